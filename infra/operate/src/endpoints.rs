//! Everything one needs to speak to a running local cloud.

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_sqs::config::{Credentials, SharedCredentialsProvider};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;

/// Access key and secret of the emulator, which checks neither.
pub const DUMMY_CREDENTIALS: &str = "test";

/// Addresses, names and the development secret of a running local cloud.
#[derive(Clone, Serialize, Deserialize)]
pub struct Endpoints {
    /// Base URL of the HTTP API: `{api}/v1/events` takes events.
    pub api: String,
    /// Endpoint of every AWS API, for `AWS_ENDPOINT_URL`.
    pub aws_endpoint: String,
    /// Brokers of the primary log, as `host:port,host:port`, plaintext, if it is Kafka.
    pub log_bootstrap: Option<String>,
    /// Brokers of the standby log, likewise.
    pub standby_bootstrap: Option<String>,
    /// The region that the stack is in.
    pub region: String,
    /// Name of the CloudFormation stack.
    pub stack: String,
    /// Kafka topic of the durable log, wherever that is on Kafka.
    pub topic: String,
    /// Kinesis stream of the primary log, if it is Kinesis.
    pub events_stream: Option<String>,
    /// Kinesis stream of the standby log, likewise.
    pub standby_stream: Option<String>,
    /// DynamoDB table of the views.
    pub views_table: String,
    /// Kafka topic of the sessions of other regions, wherever the log is on Kafka, if there are other regions.
    #[serde(default)]
    pub remote_topic: Option<String>,
    /// Kinesis stream of the sessions of other regions on the primary log, if that is Kinesis and there are other regions.
    #[serde(default)]
    pub remote_stream: Option<String>,
    /// Kinesis stream of the sessions of other regions on the standby log, likewise.
    #[serde(default)]
    pub remote_standby_stream: Option<String>,
    /// SQS queue into which other regions send envelopes.
    pub inbound_queue_url: String,
    /// SQS queue of records to be applied again.
    pub retry_queue_url: String,
    /// SQS queue of records that cannot be applied.
    pub dead_letter_queue_url: String,
    /// S3 bucket of the batches that a mapping of the log gave up.
    pub failure_bucket: String,
    /// Lambda function `ingest`.
    pub ingest_function: String,
    /// Lambda function `process`.
    pub process_function: String,
    /// Lambda function `retry`.
    pub retry_function: String,
    /// Lambda function `query`.
    pub query_function: String,
    /// Lambda function `forward`, if there are other regions.
    #[serde(default)]
    pub forward_function: Option<String>,
    /// SSM parameter that holds the routing document.
    #[serde(default)]
    pub routing_parameter: String,
    /// DynamoDB table of the shadow's views, if the stack moves from another system or tries new code.
    #[serde(default)]
    pub shadow_table: Option<String>,
    /// S3 bucket of what `compare` found, if it compares.
    #[serde(default)]
    pub reports_bucket: Option<String>,
    /// Lambda function `compare`, likewise.
    #[serde(default)]
    pub compare_function: Option<String>,
    /// Lambda function that is a candidate for `process`, if the stack tries one.
    #[serde(default)]
    pub candidate_function: Option<String>,
    /// Where the system that is taken over from takes events, if there is one.
    #[serde(default)]
    pub legacy_endpoint: Option<String>,
    /// Shared secret (HS256) of the stage's bearer tokens, made anew for each run.
    pub jwt_secret: String,
    /// Folder of the run: logs, and what was deployed.
    pub run_dir: PathBuf,
    /// The process that holds the local cloud.
    pub pid: u32,
    /// The other regions' clouds, if there are several. They have no peers themselves.
    #[serde(default)]
    pub peers: Vec<Endpoints>,
}

impl Endpoints {
    /// All regions: this one, and its peers.
    pub fn regions(&self) -> impl Iterator<Item = &Self> {
        std::iter::once(self).chain(&self.peers)
    }

    /// Configuration of any AWS client for this local cloud. Nothing of the user's own AWS settings goes into it.
    #[must_use]
    pub fn sdk_config(&self) -> SdkConfig {
        sdk_config(&self.aws_endpoint, &self.region)
    }
}

impl fmt::Debug for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Named field by field, so that the compiler does not let a new one slip by; the secret is left out.
        let Self {
            api,
            aws_endpoint,
            log_bootstrap,
            standby_bootstrap,
            region,
            stack,
            topic,
            events_stream,
            standby_stream,
            views_table,
            inbound_queue_url,
            retry_queue_url,
            dead_letter_queue_url,
            failure_bucket,
            ingest_function,
            process_function,
            retry_function,
            query_function,
            jwt_secret: _,
            run_dir,
            pid,
            remote_topic,
            remote_stream,
            remote_standby_stream,
            forward_function,
            routing_parameter,
            shadow_table,
            reports_bucket,
            compare_function,
            candidate_function,
            legacy_endpoint,
            peers,
        } = self;
        f.debug_struct("Endpoints")
            .field("api", api)
            .field("aws_endpoint", aws_endpoint)
            .field("log_bootstrap", log_bootstrap)
            .field("standby_bootstrap", standby_bootstrap)
            .field("region", region)
            .field("stack", stack)
            .field("topic", topic)
            .field("events_stream", events_stream)
            .field("standby_stream", standby_stream)
            .field("views_table", views_table)
            .field("inbound_queue_url", inbound_queue_url)
            .field("retry_queue_url", retry_queue_url)
            .field("dead_letter_queue_url", dead_letter_queue_url)
            .field("failure_bucket", failure_bucket)
            .field("ingest_function", ingest_function)
            .field("process_function", process_function)
            .field("retry_function", retry_function)
            .field("query_function", query_function)
            .field("jwt_secret", &format_args!("…"))
            .field("run_dir", run_dir)
            .field("pid", pid)
            .field("remote_topic", remote_topic)
            .field("remote_stream", remote_stream)
            .field("remote_standby_stream", remote_standby_stream)
            .field("forward_function", forward_function)
            .field("routing_parameter", routing_parameter)
            .field("shadow_table", shadow_table)
            .field("reports_bucket", reports_bucket)
            .field("compare_function", compare_function)
            .field("candidate_function", candidate_function)
            .field("legacy_endpoint", legacy_endpoint)
            .field("peers", peers)
            .finish()
    }
}

/// Configuration of AWS clients for an emulator, or for whatever else stands in for AWS at this endpoint.
#[must_use]
pub fn sdk_config(endpoint: &str, region: &str) -> SdkConfig {
    let credentials = Credentials::new(DUMMY_CREDENTIALS, DUMMY_CREDENTIALS, None, None, "local cloud");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(region.to_owned()))
        .endpoint_url(endpoint)
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .build()
}

#[cfg(test)]
mod tests {
    use crate::testing::endpoints;

    #[test]
    fn debug_shows_no_secret() {
        let shown = format!("{:?}", endpoints());
        assert!(shown.contains("playhead-local") && !shown.contains("do-not-show-this"), "{shown}");
    }
}
