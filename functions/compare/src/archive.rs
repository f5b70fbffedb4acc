//! The bucket of reports: one object a run that looked at something, under a key that sorts by time.

use crate::report::Report;
use aws_sdk_s3::Client;
use aws_sdk_s3::error::DisplayErrorContext;

/// What the keys of reports begin with.
pub const PREFIX: &str = "reports/";

/// The bucket.
#[derive(Debug, Clone)]
pub struct Archive {
    client: Client,
    bucket: String,
}

/// A report that could not be kept.
#[derive(Debug, thiserror::Error)]
#[error("PutObject of s3://{bucket}/{key}: {detail}")]
pub struct ArchiveError {
    bucket: String,
    key: String,
    detail: String,
}

/// The key of the report of a run at `at` (Unix milliseconds) that began at a checkpoint of this revision. Keys sort by time, so that the
/// reports since some time are those after `key(time, 0)`.
pub fn key(at: u64, revision: u64) -> String {
    format!("{PREFIX}{at:013}-{revision:010}.json")
}

impl Archive {
    /// The bucket of this name.
    pub fn new(client: Client, bucket: impl Into<String>) -> Self {
        Self { client, bucket: bucket.into() }
    }

    /// Keeps a report.
    ///
    /// # Errors
    /// When the bucket does not take it.
    pub async fn keep(&self, report: &Report, at: u64, revision: u64) -> Result<(), ArchiveError> {
        let key = key(at, revision);
        let failed = |detail: String| ArchiveError { bucket: self.bucket.clone(), key: key.clone(), detail };
        let body = serde_json::to_vec(report).map_err(|error| failed(error.to_string()))?;
        let put = self.client.put_object().bucket(&self.bucket).key(&key).content_type("application/json");
        let put = put.body(body.into()).send().await;
        put.map(drop).map_err(|error| failed(DisplayErrorContext(&error).to_string()))
    }
}
