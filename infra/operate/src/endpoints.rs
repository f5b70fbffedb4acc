//! Everything that is needed to talk to a running local cloud.

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_sqs::config::{Credentials, SharedCredentialsProvider};
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
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
    /// Region of the stack.
    pub region: String,
    /// Name of the CloudFormation stack.
    pub stack: String,
    /// Kafka topic of the durable log: of the primary, the standby or both, whichever is Kafka.
    pub topic: String,
    /// Kinesis stream of the primary log, if it is Kinesis.
    pub events_stream: Option<String>,
    /// Kinesis stream of the standby log, likewise.
    pub standby_stream: Option<String>,
    /// DynamoDB table of the views.
    pub views_table: String,
    /// Kinesis stream of the change feed, if there is one.
    #[serde(default)]
    pub view_changes_stream: Option<String>,
    /// Kafka topic for sessions of other regions, if a log is Kafka and there are other regions.
    #[serde(default)]
    pub remote_topic: Option<String>,
    /// Kinesis stream for sessions of other regions, if the primary log is Kinesis and there are
    /// other regions.
    #[serde(default)]
    pub remote_stream: Option<String>,
    /// The same for the standby log.
    #[serde(default)]
    pub remote_standby_stream: Option<String>,
    /// SQS queue into which other regions send envelopes.
    pub inbound_queue_url: String,
    /// SQS queue of records to apply again.
    pub retry_queue_url: String,
    /// SQS queue of records that cannot be applied.
    pub dead_letter_queue_url: String,
    /// S3 bucket of the batches that an event source mapping gave up on.
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
    /// DynamoDB table of the shadow views, if the stack replaces another system or tries new code.
    #[serde(default)]
    pub shadow_table: Option<String>,
    /// S3 bucket of the comparison reports, if `compare` is deployed.
    #[serde(default)]
    pub reports_bucket: Option<String>,
    /// Lambda function `compare`, if it is deployed.
    #[serde(default)]
    pub compare_function: Option<String>,
    /// Lambda function of the candidate for `process`, if there is one.
    #[serde(default)]
    pub candidate_function: Option<String>,
    /// Name of `publish`, if there is a change feed.
    #[serde(default)]
    pub publish_function: Option<String>,
    /// Where the legacy system takes events, if there is one.
    #[serde(default)]
    pub legacy_endpoint: Option<String>,
    /// Shared secret (HS256) of the stage's bearer tokens, new for each run.
    pub jwt_secret: String,
    /// Folder of the run: its logs, and what was deployed.
    pub run_dir: PathBuf,
    /// The process that holds the local cloud.
    pub pid: u32,
    /// URL of the live page.
    #[serde(default)]
    pub live_page: Option<String>,
    /// What the emulator cannot do and the stack is without, with the reasons.
    #[serde(default)]
    pub left_out: Vec<String>,
    /// The local clouds of the other regions, if there are any. Their own `peers` are empty.
    #[serde(default)]
    pub peers: Vec<Endpoints>,
}

impl Endpoints {
    /// All regions: this one and its peers.
    pub fn regions(&self) -> impl Iterator<Item = &Self> {
        std::iter::once(self).chain(&self.peers)
    }

    /// Configuration of AWS clients for this local cloud. It uses none of the user's own AWS
    /// settings.
    #[must_use]
    pub fn sdk_config(&self) -> SdkConfig {
        sdk_config(&self.aws_endpoint, &self.region)
    }
}

impl fmt::Debug for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Destructured, so a new field does not compile until it is listed. The secret is left out.
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
            view_changes_stream,
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
            live_page,
            remote_topic,
            remote_stream,
            remote_standby_stream,
            forward_function,
            routing_parameter,
            shadow_table,
            reports_bucket,
            compare_function,
            candidate_function,
            publish_function,
            legacy_endpoint,
            left_out,
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
            .field("view_changes_stream", view_changes_stream)
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
            .field("live_page", live_page)
            .field("remote_topic", remote_topic)
            .field("remote_stream", remote_stream)
            .field("remote_standby_stream", remote_standby_stream)
            .field("forward_function", forward_function)
            .field("routing_parameter", routing_parameter)
            .field("shadow_table", shadow_table)
            .field("reports_bucket", reports_bucket)
            .field("compare_function", compare_function)
            .field("candidate_function", candidate_function)
            .field("publish_function", publish_function)
            .field("legacy_endpoint", legacy_endpoint)
            .field("left_out", left_out)
            .field("peers", peers)
            .finish()
    }
}

/// Configuration of AWS clients for an emulator, or for anything else that stands in for AWS at
/// this endpoint.
///
/// It ignores the user's proxy (`HTTP_PROXY` and the like), which the SDK would use by default even
/// for loopback.
#[must_use]
pub fn sdk_config(endpoint: &str, region: &str) -> SdkConfig {
    let tls = Provider::Rustls(CryptoMode::AwsLc);
    let credentials = Credentials::new(DUMMY_CREDENTIALS, DUMMY_CREDENTIALS, None, None, "local cloud");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(region.to_owned()))
        .endpoint_url(endpoint)
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .http_client(aws_smithy_http_client::Builder::new().tls_provider(tls).build_https())
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::endpoints;
    use axum::Json;
    use std::process::Command;
    use tokio::net::TcpListener;

    #[test]
    fn debug_shows_no_secret() {
        let shown = format!("{:?}", endpoints());
        assert!(shown.contains("playhead-local") && !shown.contains("do-not-show-this"), "{shown}");
    }

    /// A proxy at which nobody listens.
    const DEAD_PROXY: &str = "http://127.0.0.1:9";
    const IN_CHILD: &str = "PLAYHEAD_TEST_UNDER_A_PROXY";

    /// The variables are set for a child that runs this test again: a process must not change its
    /// own.
    #[tokio::test]
    async fn aws_calls_to_the_local_cloud_ignore_the_proxy() {
        if std::env::var_os(IN_CHILD).is_some() {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let endpoint = format!("http://{}", listener.local_addr().unwrap());
            let app = axum::Router::new().fallback(async || Json(serde_json::json!({"QueueUrls": ["one"]})));
            tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
            let queues = aws_sdk_sqs::Client::new(&sdk_config(&endpoint, "us-east-1")).list_queues().send().await;
            assert_eq!(queues.unwrap().queue_urls(), ["one"]);
            return;
        }
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "endpoints::tests::aws_calls_to_the_local_cloud_ignore_the_proxy"]).env(IN_CHILD, "1");
        child.env_remove("NO_PROXY").env_remove("no_proxy");
        child.envs(["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"].map(|name| (name, DEAD_PROXY)));
        let ended = tokio::task::spawn_blocking(move || child.output()).await.unwrap().unwrap();
        let said = String::from_utf8_lossy(&ended.stdout);
        assert!(
            ended.status.success() && said.contains("1 passed"),
            "{said}{}",
            String::from_utf8_lossy(&ended.stderr)
        );
    }
}
