//! The bucket of reports: one object per run that compared anything. Keys sort by time.

use crate::report::Report;
use aws_sdk_s3::Client;
use aws_sdk_s3::error::DisplayErrorContext;

/// The prefix of report keys.
pub const PREFIX: &str = "reports/";

/// The bucket of reports.
#[derive(Debug, Clone)]
pub struct Archive {
    client: Client,
    bucket: String,
}

/// Why a report could not be stored.
#[derive(Debug, thiserror::Error)]
#[error("PutObject to s3://{bucket}/{key} failed: {detail}")]
pub struct ArchiveError {
    bucket: String,
    key: String,
    detail: String,
}

/// The key of the report of a run at `at` (Unix milliseconds) that started from this revision of
/// the checkpoint. Keys sort by time: the reports since some time are those after `key(time, 0)`.
pub fn key(at: u64, revision: u64) -> String {
    format!("{PREFIX}{at:013}-{revision:010}.json")
}

impl Archive {
    /// The bucket with this name.
    pub fn new(client: Client, bucket: impl Into<String>) -> Self {
        Self { client, bucket: bucket.into() }
    }

    /// Stores a report.
    ///
    /// # Errors
    /// When S3 does not accept it.
    pub async fn keep(&self, report: &Report, at: u64, revision: u64) -> Result<(), ArchiveError> {
        let key = key(at, revision);
        let failed = |detail: String| ArchiveError { bucket: self.bucket.clone(), key: key.clone(), detail };
        let body = serde_json::to_vec(report).map_err(|error| failed(error.to_string()))?;
        let put = self.client.put_object().bucket(&self.bucket).key(&key).content_type("application/json");
        let put = put.body(body.into()).send().await;
        put.map(drop).map_err(|error| failed(DisplayErrorContext(&error).to_string()))
    }
}
