//! librdkafka's callbacks: log lines, errors and statistics go to tracing, and MSK's IAM gets its
//! tokens.
//!
//! Callbacks run on the producer's polling thread, which also delivers the reports. Nothing here
//! may take longer than [`TOKEN_TIMEOUT`].

use std::error::Error;
use std::time::Duration;

use aws_config::{Region, SdkConfig};
use aws_msk_iam_sasl_signer::generate_auth_token_from_credentials_provider;
use rdkafka::ClientContext;
use rdkafka::client::OAuthToken;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::statistics::Statistics;
use tokio::runtime::Handle;

use super::config::KafkaSecurity;

/// How long loading credentials for a token may take. In Lambda they are in the environment, so
/// this is ample.
const TOKEN_TIMEOUT: Duration = Duration::from_secs(2);

/// Signs tokens with our AWS credentials.
#[derive(Clone)]
struct Signer {
    region: Region,
    sdk: SdkConfig,
    runtime: Handle,
}

/// The context of a client.
#[derive(Clone)]
pub(super) struct Context {
    signer: Option<Signer>,
}

impl Context {
    /// Must be called inside a Tokio runtime; tokens are signed on it.
    pub(super) fn new(security: &KafkaSecurity, sdk: &SdkConfig) -> Self {
        let signer = match security {
            KafkaSecurity::Plaintext => None,
            KafkaSecurity::Iam { region } => {
                Some(Signer { region: Region::new(region.clone()), sdk: sdk.clone(), runtime: Handle::current() })
            }
        };
        Self { signer }
    }
}

impl Signer {
    /// Signs a token as MSK documents it: a presigned `kafka-cluster:Connect`, valid for 15
    /// minutes. librdkafka asks for the next one after 80% of that, and again 10 s after a failure.
    fn token(&self) -> Result<OAuthToken, Box<dyn Error>> {
        let credentials = self.sdk.credentials_provider().ok_or("no AWS credentials provider is configured")?;
        let signing = generate_auth_token_from_credentials_provider(self.region.clone(), credentials);
        // The polling thread belongs to no runtime, so it may block.
        let (token, lifetime_ms) =
            self.runtime.block_on(async { tokio::time::timeout(TOKEN_TIMEOUT, signing).await })??;
        Ok(OAuthToken {
            token,
            // MSK reads the identity from the token.
            principal_name: String::new(),
            lifetime_ms,
        })
    }
}

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        let signer = self.signer.as_ref().ok_or("IAM is not configured for this log")?;
        signer
            .token()
            .inspect_err(|error| tracing::error!(%error, region = %signer.region, "could not sign a token for MSK"))
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
                tracing::error!(facility, message, "librdkafka")
            }
            RDKafkaLogLevel::Warning => tracing::warn!(facility, message, "librdkafka"),
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
                tracing::info!(facility, message, "librdkafka");
            }
            RDKafkaLogLevel::Debug => tracing::debug!(facility, message, "librdkafka"),
        }
    }

    /// Most errors are transient and librdkafka recovers. Fatal errors and those of identity need
    /// an operator.
    fn error(&self, error: KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            Some(
                RDKafkaErrorCode::Authentication
                | RDKafkaErrorCode::Fatal
                | RDKafkaErrorCode::SaslAuthenticationFailed
                | RDKafkaErrorCode::ClusterAuthorizationFailed
                | RDKafkaErrorCode::TopicAuthorizationFailed,
            ) => tracing::error!(%error, reason, "Kafka client"),
            _ => tracing::warn!(%error, reason, "Kafka client"),
        }
    }

    fn stats(&self, statistics: Statistics) {
        for broker in statistics.brokers.values() {
            tracing::debug!(
                broker = broker.name,
                state = broker.state,
                rtt_p99_us = broker.rtt.as_ref().map(|rtt| rtt.p99),
                waiting_requests = broker.waitresp_cnt,
                retries = broker.txretries,
                timeouts = broker.req_timeouts,
                queued_records = statistics.msg_cnt,
                "Kafka broker"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_kafka::config::{Credentials, SharedCredentialsProvider};

    fn iam() -> KafkaSecurity {
        KafkaSecurity::Iam { region: "eu-west-1".to_owned() }
    }

    /// Asks for a token like librdkafka: from a thread outside the runtime.
    async fn token_of(context: Context) -> Result<(String, i64), String> {
        let ask = move || {
            context
                .generate_oauth_token(None)
                .map(|token| (token.token, token.lifetime_ms))
                .map_err(|error| error.to_string())
        };
        let thread = std::thread::spawn(ask);
        tokio::task::spawn_blocking(|| thread.join().unwrap()).await.unwrap()
    }

    #[tokio::test]
    async fn token_is_signed_from_a_thread_outside_the_runtime() {
        let credentials = Credentials::new("AKID", "secret", None, None, "test");
        let sdk = SdkConfig::builder().credentials_provider(SharedCredentialsProvider::new(credentials)).build();
        let (token, lifetime_ms) = token_of(Context::new(&iam(), &sdk)).await.unwrap();
        assert!(token.len() > 100, "{token}");
        let now_ms = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
        let left_ms = i128::from(lifetime_ms) - i128::try_from(now_ms).unwrap();
        assert!((800_000..=900_000).contains(&left_ms), "{left_ms}");
    }

    #[tokio::test]
    async fn missing_credentials_are_an_error_not_a_panic() {
        let sdk = SdkConfig::builder().build();
        let error = token_of(Context::new(&iam(), &sdk)).await.unwrap_err();
        assert!(error.contains("credentials provider"), "{error}");
    }
}
