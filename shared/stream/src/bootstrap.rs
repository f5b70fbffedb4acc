//! Finds the brokers to connect to: the configured ones, else those that Amazon MSK reports for the
//! cluster.
//!
//! It must not fall back to a listener with other security than configured. A wrong port would fail
//! to connect or, worse, connect without the protection that was asked for.

use std::pin::pin;
use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_kafka::error::DisplayErrorContext;
use aws_sdk_kafka::operation::get_bootstrap_brokers::GetBootstrapBrokersOutput;

use crate::kafka::{KafkaConfig, KafkaSecurity};

/// In how many steps the time of a look-up is measured.
const STEPS: u32 = 20;

/// Why no brokers were found.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// Neither brokers nor a cluster are configured.
    #[error("neither bootstrap brokers nor a cluster ARN are configured")]
    NotConfigured,
    /// `GetBootstrapBrokers` failed.
    #[error("GetBootstrapBrokers of {cluster_arn} failed: {message}")]
    Call {
        /// The cluster asked for.
        cluster_arn: String,
        /// The SDK's error with all its causes.
        message: String,
    },
    /// `GetBootstrapBrokers` did not answer in time.
    #[error("GetBootstrapBrokers of {cluster_arn} did not answer within {after:?}")]
    TimedOut {
        /// The cluster asked for.
        cluster_arn: String,
        /// How long we waited.
        after: Duration,
    },
    /// The cluster has no listener with the configured security.
    #[error("cluster {cluster_arn} has no {security} listener; it has: {offered:?}")]
    NoListener {
        /// The cluster asked for.
        cluster_arn: String,
        /// The configured security.
        security: KafkaSecurity,
        /// The listeners in the answer.
        offered: Vec<&'static str>,
    },
}

/// The `bootstrap.servers` of the configured cluster.
///
/// # Errors
/// See [`BootstrapError`]. The look-up takes at most `config.connect_timeout`, not counting time in
/// which the environment is frozen.
pub async fn resolve(config: &KafkaConfig, sdk: &SdkConfig) -> Result<String, BootstrapError> {
    if let Some(brokers) = given(config.bootstrap.as_deref()) {
        return Ok(brokers.to_owned());
    }
    let arn = given(config.cluster_arn.as_deref()).ok_or(BootstrapError::NotConfigured)?;
    let call = aws_sdk_kafka::Client::new(sdk).get_bootstrap_brokers().cluster_arn(arn).send();
    let answer = within(config.connect_timeout, call)
        .await
        .ok_or_else(|| BootstrapError::TimedOut { cluster_arn: arn.to_owned(), after: config.connect_timeout })?
        .map_err(|error| BootstrapError::Call {
            cluster_arn: arn.to_owned(),
            message: DisplayErrorContext(error).to_string(),
        })?;
    choose(&config.security, &answer).map(str::to_owned).ok_or_else(|| BootstrapError::NoListener {
        cluster_arn: arn.to_owned(),
        security: config.security.clone(),
        offered: offered(&answer),
    })
}

/// The future's result, unless it takes longer than `limit`. The time is measured in steps, so that
/// the environment may be frozen meanwhile: that counts as one step, after which the future goes on.
async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    for _ in 0..STEPS {
        if let Ok(result) = tokio::time::timeout(limit / STEPS, &mut future).await {
            return Some(result);
        }
    }
    None
}

/// The nearest listener with this security: in the VPC, through multi-VPC connectivity, public,
/// IPv6.
fn choose<'a>(security: &KafkaSecurity, answer: &'a GetBootstrapBrokersOutput) -> Option<&'a str> {
    let candidates: &[Option<&'a str>] = match security {
        KafkaSecurity::Iam { .. } => &[
            answer.bootstrap_broker_string_sasl_iam(),
            answer.bootstrap_broker_string_vpc_connectivity_sasl_iam(),
            answer.bootstrap_broker_string_public_sasl_iam(),
            answer.bootstrap_broker_string_sasl_iam_ipv6(),
        ],
        KafkaSecurity::Plaintext => &[answer.bootstrap_broker_string(), answer.bootstrap_broker_string_ipv6()],
    };
    candidates.iter().copied().find_map(given)
}

/// The names of the listeners in the answer.
fn offered(answer: &GetBootstrapBrokersOutput) -> Vec<&'static str> {
    [
        ("plaintext", answer.bootstrap_broker_string()),
        ("tls", answer.bootstrap_broker_string_tls()),
        ("sasl_scram", answer.bootstrap_broker_string_sasl_scram()),
        ("sasl_iam", answer.bootstrap_broker_string_sasl_iam()),
        ("public_tls", answer.bootstrap_broker_string_public_tls()),
        ("public_sasl_scram", answer.bootstrap_broker_string_public_sasl_scram()),
        ("public_sasl_iam", answer.bootstrap_broker_string_public_sasl_iam()),
        ("vpc_connectivity_tls", answer.bootstrap_broker_string_vpc_connectivity_tls()),
        ("vpc_connectivity_sasl_scram", answer.bootstrap_broker_string_vpc_connectivity_sasl_scram()),
        ("vpc_connectivity_sasl_iam", answer.bootstrap_broker_string_vpc_connectivity_sasl_iam()),
        ("plaintext_ipv6", answer.bootstrap_broker_string_ipv6()),
        ("tls_ipv6", answer.bootstrap_broker_string_tls_ipv6()),
        ("sasl_scram_ipv6", answer.bootstrap_broker_string_sasl_scram_ipv6()),
        ("sasl_iam_ipv6", answer.bootstrap_broker_string_sasl_iam_ipv6()),
    ]
    .into_iter()
    .filter_map(|(name, value)| given(value).map(|_| name))
    .collect()
}

/// Treats an empty string as absent, because template parameters default to it.
fn given(value: Option<&str>) -> Option<&str> {
    value.map(str::trim).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn iam() -> KafkaSecurity {
        KafkaSecurity::Iam { region: "us-east-1".to_owned() }
    }

    #[test]
    fn nearest_listener_with_the_configured_security_is_chosen() {
        let answer = GetBootstrapBrokersOutput::builder;
        let all = answer()
            .bootstrap_broker_string("plain")
            .bootstrap_broker_string_ipv6("plain6")
            .bootstrap_broker_string_tls("tls")
            .bootstrap_broker_string_sasl_iam("iam")
            .bootstrap_broker_string_vpc_connectivity_sasl_iam("vpc")
            .bootstrap_broker_string_public_sasl_iam("public");
        let table = [
            (iam(), all.clone(), Some("iam")),
            (KafkaSecurity::Plaintext, all, Some("plain")),
            (
                iam(),
                answer()
                    .bootstrap_broker_string_sasl_iam("")
                    .bootstrap_broker_string_vpc_connectivity_sasl_iam("vpc")
                    .bootstrap_broker_string_public_sasl_iam("public"),
                Some("vpc"),
            ),
            (
                iam(),
                answer()
                    .bootstrap_broker_string_sasl_iam_ipv6("iam6")
                    .bootstrap_broker_string_public_sasl_iam("public"),
                Some("public"),
            ),
            (iam(), answer().bootstrap_broker_string_sasl_iam_ipv6("iam6"), Some("iam6")),
            (KafkaSecurity::Plaintext, answer().bootstrap_broker_string_ipv6("plain6"), Some("plain6")),
            // never another security than the configured one
            (iam(), answer().bootstrap_broker_string("plain"), None),
            (iam(), answer().bootstrap_broker_string_tls("tls").bootstrap_broker_string_sasl_scram("scram"), None),
            (
                KafkaSecurity::Plaintext,
                answer().bootstrap_broker_string_tls("tls").bootstrap_broker_string_sasl_iam("iam"),
                None,
            ),
            (iam(), answer(), None),
        ];
        for (row, (security, answer, expected)) in table.into_iter().enumerate() {
            assert_eq!(choose(&security, &answer.build()), expected, "row {row}");
        }
    }

    #[test]
    fn offered_lists_every_listener_in_the_answer() {
        let answer = GetBootstrapBrokersOutput::builder()
            .bootstrap_broker_string("")
            .bootstrap_broker_string_tls("tls")
            .bootstrap_broker_string_sasl_scram_ipv6("scram6")
            .build();
        assert_eq!(offered(&answer), ["tls", "sasl_scram_ipv6"]);
    }

    #[tokio::test]
    async fn configured_brokers_win_over_the_cluster() {
        let mut config = KafkaConfig::new("t", KafkaSecurity::Plaintext);
        config.bootstrap = Some("broker:9092".to_owned());
        config.cluster_arn = Some("arn:aws:kafka:us-east-1:1:cluster/c/1".to_owned());
        let brokers = resolve(&config, &SdkConfig::builder().build()).await;
        assert_eq!(brokers.unwrap(), "broker:9092");
    }

    #[tokio::test]
    async fn empty_strings_count_as_not_configured() {
        let mut config = KafkaConfig::new("t", KafkaSecurity::Plaintext);
        config.bootstrap = Some(String::new());
        config.cluster_arn = Some(" ".to_owned());
        let brokers = resolve(&config, &SdkConfig::builder().build()).await;
        assert!(matches!(brokers, Err(BootstrapError::NotConfigured)));
    }

    /// A frozen environment looks like a thread that was blocked.
    #[tokio::test]
    async fn freeze_does_not_use_up_the_time_of_a_look_up() {
        let limit = Duration::from_millis(400);
        let frozen = async {
            tokio::task::yield_now().await;
            std::thread::sleep(limit * 2);
            tokio::time::sleep(limit / 4).await;
        };
        assert!(within(limit, frozen).await.is_some());
        assert!(within(limit, std::future::pending::<()>()).await.is_none());
    }
}
