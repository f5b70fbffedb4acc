//! Configuration of the Kafka log, and the librdkafka configuration that follows from it.
//!
//! [`client_config`] is pure, so a test can check the guarantee (`acks=all`). Property names,
//! defaults and meanings: `CONFIGURATION.md` of librdkafka 2.12.

use std::fmt;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

/// Maximum size of a record, key and value together, bytes: librdkafka's default for
/// `message.max.bytes`. That is just under the 1,048,588 that brokers allow by default
/// (`message.max.bytes`, `max.message.bytes`). A topic must not allow less, or the broker would
/// refuse whole batches of small records as too large.
pub const MAX_RECORD_BYTES: usize = 1_000_000;

/// How to connect to the brokers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KafkaSecurity {
    /// Amazon MSK with IAM: TLS, and a token signed with our AWS credentials.
    Iam {
        /// The cluster's region, such as `us-east-1`.
        region: String,
    },
    /// No encryption, no authentication. For development only.
    Plaintext,
}

impl fmt::Display for KafkaSecurity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Iam { .. } => "IAM",
            Self::Plaintext => "plaintext",
        })
    }
}

/// Configuration of the adapter. [`KafkaConfig::new`] sets the defaults named here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaConfig {
    /// `host:port,…`. Takes precedence over the cluster. Default: none.
    pub bootstrap: Option<String>,
    /// The MSK cluster to ask for brokers if `bootstrap` is absent. Default: none.
    pub cluster_arn: Option<String>,
    /// How to connect to the brokers.
    pub security: KafkaSecurity,
    /// The topic to append to. It must exist: appending never creates it.
    pub topic: String,
    /// The topic's `min.insync.replicas`. A partition with fewer in-sync replicas refuses every
    /// record, so it is avoided. A partition with fewer replicas in total needs them all.
    /// Default: 2.
    pub min_insync_replicas: usize,
    /// The name of this client in the brokers' logs. Default: `playhead`.
    pub client_id: String,
    /// How long a record, and its device, wait for others to share the request. Default: not at all.
    /// While as many requests are in flight as may be, records gather by themselves.
    pub linger: Duration,
    /// How long an attempt may be silent before the record is also sent to another partition. Also
    /// how long a leader may wait for its replicas. Default: 1 s.
    pub second_attempt_after: Duration,
    /// How long a record may take to be acknowledged, all attempts included. Default: 3 s, which
    /// leaves time for a standby in the same request. Minimum: 500 ms.
    pub delivery_timeout: Duration,
    /// Maximum number of records waiting or in flight. Further ones are throttled immediately.
    /// Default: 10,000.
    pub queue_records: u32,
    /// Maximum size of records waiting or in flight, KiB. Further ones are throttled immediately.
    /// Default: 32 MiB.
    pub queue_kib: u32,
    /// Time limit of the broker look-up, and of the warm-up. Default: 5 s each.
    pub connect_timeout: Duration,
}

impl KafkaConfig {
    /// The defaults for `topic`. Set `bootstrap` or `cluster_arn` before connecting.
    #[must_use]
    pub fn new(topic: impl Into<String>, security: KafkaSecurity) -> Self {
        Self {
            bootstrap: None,
            cluster_arn: None,
            security,
            topic: topic.into(),
            min_insync_replicas: 2,
            client_id: "playhead".to_owned(),
            linger: Duration::ZERO,
            second_attempt_after: Duration::from_secs(1),
            delivery_timeout: Duration::from_secs(3),
            queue_records: 10_000,
            queue_kib: 32 * 1024,
            connect_timeout: Duration::from_secs(5),
        }
    }
}

/// The librdkafka configuration for `brokers` (`bootstrap.servers`).
pub(super) fn client_config(config: &KafkaConfig, brokers: &str) -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set_log_level(RDKafkaLogLevel::Info);
    client.set("bootstrap.servers", brokers).set("client.id", &config.client_id);
    guarantee(&mut client);
    bound(&mut client, config);
    survive_freezing(&mut client, config);
    secure(&mut client, &config.security);
    client
}

/// The settings that "accepted means durable" depends on.
fn guarantee(client: &mut ClientConfig) {
    client
        // All in-sync replicas acknowledge. With the topic's min.insync.replicas, that is durable.
        .set("acks", "all")
        // A failed attempt ends immediately, and we make the next one, elsewhere. librdkafka would
        // retry in the same place, and each retry blocks the leader's connection until the replicas
        // answer or time out. It still retries what a leader surely did not write.
        .set("retries", "0")
        // When an idempotent producer gives up a record, it sends nothing to any partition until
        // all requests in flight are answered (a new epoch). So one silent broker would stop the
        // healthy ones. Readers tolerate copies.
        .set("enable.idempotence", "false")
        // A broker answers a connection's requests in order, so one that waits for a silent replica
        // blocks those behind it. Allow only a few. (An idempotent producer allows as many.)
        .set("max.in.flight.requests.per.connection", "5")
        // A misspelt topic must fail, not be created with one replica.
        .set("allow.auto.create.topics", "false")
        // Like Java producers, so any writer sends a session to the same partition.
        .set("partitioner", "murmur2_random")
        // librdkafka compresses each request for itself, and most hold one small record. That would
        // cost a fifth of all instructions of a POST of one event and save nothing. A topic may
        // have its brokers compress instead (`compression.type`).
        .set("compression.type", "none");
}

/// Limits on memory and on the time that a device waits.
fn bound(client: &mut ClientConfig, config: &KafkaConfig) {
    client
        .set("message.max.bytes", MAX_RECORD_BYTES.to_string())
        .set("linger.ms", millis(config.linger))
        // A small request must not wait until the one before it is acknowledged by TCP.
        .set("socket.nagle.disable", "true")
        .set("delivery.timeout.ms", millis(config.delivery_timeout))
        // A full queue throttles immediately: see KafkaLog.
        .set("queue.buffering.max.messages", config.queue_records.to_string())
        .set("queue.buffering.max.kbytes", config.queue_kib.to_string())
        // How long a leader waits for its replicas. By then the record is on its way elsewhere.
        .set("request.timeout.ms", millis(config.second_attempt_after))
        // After an election, ask the new leader soon (defaults: 100 ms and 1 s).
        .set("retry.backoff.ms", "50")
        .set("retry.backoff.max.ms", "500")
        // Leave time for several connections within the delivery time (defaults: 100 ms and 10 s).
        .set("reconnect.backoff.ms", "50")
        .set("reconnect.backoff.max.ms", "1000");
}

/// The settings with which a thawed Lambda environment recovers within one request.
///
/// While an environment is frozen, nothing runs: no metadata refresh, no keep-alive, no token
/// refresh. Peers close idle connections without the environment noticing: AWS NAT gateways, load
/// balancers and PrivateLink after 350 s, brokers after `connections.max.idle.ms` (default 600 s).
fn survive_freezing(client: &mut ClientConfig, config: &KafkaConfig) {
    let request = config.delivery_timeout / 2;
    client
        // A request on a dead connection times out at half the delivery time. Then librdkafka drops
        // the connection (socket.max.fails=1), and the other half is left for a new one.
        .set("socket.timeout.ms", millis(request))
        // TCP, TLS and SASL together (default 30 s; librdkafka's minimum is 1 s).
        .set("socket.connection.setup.timeout.ms", millis(request.max(Duration::from_secs(1))))
        // Close idle connections before anything on the path does.
        .set("connections.max.idle.ms", "240000")
        // Finds dead peers of a connection that is idle for hours (Linux probes after 2 h).
        .set("socket.keepalive.enable", "true")
        // A stale leader answers NOT_LEADER_OR_FOLLOWER; then librdkafka refreshes and retries. In
        // a warm environment, this interval moves the refresh off the request's path.
        .set("topic.metadata.refresh.interval.ms", "60000")
        // If no known broker answers, start again from bootstrap.servers.
        .set("metadata.recovery.strategy", "rebootstrap")
        .set("statistics.interval.ms", "60000");
}

fn secure(client: &mut ClientConfig, security: &KafkaSecurity) {
    match security {
        KafkaSecurity::Plaintext => {
            client.set("security.protocol", "plaintext");
        }
        KafkaSecurity::Iam { .. } => {
            client
                .set("security.protocol", "sasl_ssl")
                .set("sasl.mechanisms", "OAUTHBEARER")
                // The vendored OpenSSL does not know the system's CAs. librdkafka probes the usual
                // places, first /etc/pki/tls/certs/ca-bundle.crt, the one of Amazon Linux 2023.
                .set("ssl.ca.location", "probe");
        }
    }
}

fn millis(duration: Duration) -> String {
    duration.as_millis().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn iam() -> KafkaSecurity {
        KafkaSecurity::Iam { region: "us-east-1".to_owned() }
    }

    /// The value that librdkafka parsed.
    fn parsed(config: &KafkaConfig, key: &str) -> String {
        client_config(config, "broker:9098").create_native_config().unwrap().get(key).unwrap()
    }

    #[test]
    fn all_in_sync_replicas_must_acknowledge() {
        // Without TLS librdkafka refuses to parse the configuration for IAM.
        let securities = [KafkaSecurity::Plaintext, iam()].into_iter().take(if crate::TLS { 2 } else { 1 });
        for security in securities {
            let config = KafkaConfig::new("t", security);
            assert_eq!(parsed(&config, "acks"), "-1");
            assert_eq!(parsed(&config, "allow.auto.create.topics"), "false");
        }
    }

    #[cfg(feature = "tls")]
    #[test]
    fn iam_is_encrypted_verified_and_signed() {
        let config = KafkaConfig::new("t", iam());
        assert_eq!(parsed(&config, "security.protocol"), "sasl_ssl");
        assert_eq!(parsed(&config, "sasl.mechanisms"), "OAUTHBEARER");
        assert_eq!(parsed(&config, "enable.ssl.certificate.verification"), "true");
        assert_eq!(parsed(&config, "ssl.endpoint.identification.algorithm"), "https");
        assert_eq!(parsed(&config, "ssl.ca.location"), "probe");
    }

    #[test]
    fn librdkafka_makes_no_attempts_of_its_own() {
        let config = KafkaConfig::new("t", KafkaSecurity::Plaintext);
        assert_eq!(parsed(&config, "retries"), "0");
        assert_eq!(parsed(&config, "enable.idempotence"), "false");
    }

    #[test]
    fn default_times_leave_room_for_retries_and_a_standby() {
        let config = KafkaConfig::new("t", KafkaSecurity::Plaintext);
        let ms = |key| parsed(&config, key).parse::<u64>().unwrap();
        assert_eq!(ms("delivery.timeout.ms"), 3000);
        assert_eq!(ms("socket.timeout.ms"), 1500);
        assert_eq!(ms("request.timeout.ms"), 1000);
        assert_eq!(ms("socket.connection.setup.timeout.ms"), 1500);
        assert!(ms("connections.max.idle.ms") < 350_000);
    }

    #[test]
    fn partitioner_and_security_are_built_in() {
        let config = KafkaConfig::new("t", KafkaSecurity::Plaintext);
        assert_eq!(parsed(&config, "partitioner"), "murmur2_random");
        let features = parsed(&config, "builtin.features");
        let of_tls: &[&str] = if crate::TLS { &["ssl", "sasl_oauthbearer"] } else { &[] };
        for needed in of_tls {
            assert!(features.contains(needed), "{needed} not in {features}");
        }
    }
}
