//! What the caller says about Kafka, and the librdkafka configuration that follows from it.
//!
//! [`client_config`] is pure, so that a test can hold the guarantee (`acks=all`) against it.
//! Property names, defaults and meanings: `CONFIGURATION.md` of librdkafka 2.12.

use std::fmt;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

/// The largest record, key and value together, in bytes: librdkafka's default for `message.max.bytes`,
/// just under the 1,048,588 that brokers allow by default (`message.max.bytes`, `max.message.bytes`). A
/// topic must not allow less, or the broker would refuse whole batches of small records as too large.
pub const MAX_RECORD_BYTES: usize = 1_000_000;

/// How the brokers are spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KafkaSecurity {
    /// Amazon MSK with IAM: TLS, and a token signed with the caller's AWS credentials.
    Iam {
        /// The region of the cluster, such as `us-east-1`.
        region: String,
    },
    /// No encryption and no authentication: development only.
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

/// Everything that the adapter needs to know. [`KafkaConfig::new`] sets the defaults named here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaConfig {
    /// `host:port,…`; wins over the cluster. Default: none.
    pub bootstrap: Option<String>,
    /// The MSK cluster whose brokers are looked up when `bootstrap` is absent. Default: none.
    pub cluster_arn: Option<String>,
    /// How to speak to the brokers.
    pub security: KafkaSecurity,
    /// The one topic that is appended to. It must exist: it is never created by appending.
    pub topic: String,
    /// The `min.insync.replicas` of the topic: a partition with fewer is avoided, since it refuses every
    /// record. A partition with fewer replicas in all needs them all. Default: 2.
    pub min_insync_replicas: usize,
    /// What the brokers log this client as. Default: `playhead`.
    pub client_id: String,
    /// How long a record waits for others to share its request. Default: 5 ms; a device waits for it.
    pub linger: Duration,
    /// How long an attempt may be silent before the record is sent to another partition as well; also how long
    /// a leader may wait for its replicas. Default: 1 s.
    pub second_attempt_after: Duration,
    /// How long a record may take to be acknowledged, all attempts included. Default: 3 s, so that a standby's
    /// turn fits into the same request. Allowed: 500 ms and more.
    pub delivery_timeout: Duration,
    /// Records waiting or under way; more are throttled at once. Default: 10,000.
    pub queue_records: u32,
    /// KiB waiting or under way; more are throttled at once. Default: 32 MiB.
    pub queue_kib: u32,
    /// Bound of the broker look-up, and of the warm-up. Default: 5 s each.
    pub connect_timeout: Duration,
}

impl KafkaConfig {
    /// The defaults for `topic`; set `bootstrap` or `cluster_arn` before connecting.
    #[must_use]
    pub fn new(topic: impl Into<String>, security: KafkaSecurity) -> Self {
        Self {
            bootstrap: None,
            cluster_arn: None,
            security,
            topic: topic.into(),
            min_insync_replicas: 2,
            client_id: "playhead".to_owned(),
            linger: Duration::from_millis(5),
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

/// What "accepted means durable" rests on.
fn guarantee(client: &mut ClientConfig) {
    client
        // acknowledged only by all in-sync replicas; with the topic's min.insync.replicas that is durable
        .set("acks", "all")
        // A failed attempt ends at once, and the next is ours, elsewhere: librdkafka would repeat it in the same
        // place, and each repetition occupies the leader's connection until the replicas answer or time out. It
        // still repeats by itself what a leader surely did not write.
        .set("retries", "0")
        // An idempotent producer that gives a record up sends nothing to any partition until all requests under
        // way are answered (a new epoch), so that one silent broker stops the healthy ones. Readers do not mind
        // copies.
        .set("enable.idempotence", "false")
        // A broker answers the requests of a connection one after the other: one that waits for a silent replica
        // holds back those behind it, so few may be behind it. (Also what an idempotent producer has.)
        .set("max.in.flight.requests.per.connection", "5")
        // a misspelt topic must fail, not come to life with one replica
        .set("allow.auto.create.topics", "false")
        // what Java producers use: a session lands on the same partition whoever writes it
        .set("partitioner", "murmur2_random")
        // bundled with librdkafka; zstd would need its own library
        .set("compression.type", "lz4");
}

/// What bounds memory and the time that a device waits.
fn bound(client: &mut ClientConfig, config: &KafkaConfig) {
    client
        .set("message.max.bytes", MAX_RECORD_BYTES.to_string())
        .set("linger.ms", millis(config.linger))
        .set("delivery.timeout.ms", millis(config.delivery_timeout))
        // a full queue is answered at once: see KafkaLog
        .set("queue.buffering.max.messages", config.queue_records.to_string())
        .set("queue.buffering.max.kbytes", config.queue_kib.to_string())
        // how long a leader waits for its replicas: by then the record is on its way elsewhere
        .set("request.timeout.ms", millis(config.second_attempt_after))
        // after an election the new leader is asked at once (defaults: 100 ms and 1 s)
        .set("retry.backoff.ms", "50")
        .set("retry.backoff.max.ms", "500")
        // so that several connections fit into the delivery time (defaults: 100 ms and 10 s)
        .set("reconnect.backoff.ms", "50")
        .set("reconnect.backoff.max.ms", "1000");
}

/// What brings a thawed Lambda environment back within one request.
///
/// While an environment is frozen nothing runs: no metadata refresh, no keep-alive, no token refresh; and
/// peers close what is idle (AWS NAT gateways, load balancers and PrivateLink after 350 s, brokers after
/// `connections.max.idle.ms`, 600 s by default) without the environment hearing of it.
fn survive_freezing(client: &mut ClientConfig, config: &KafkaConfig) {
    let request = config.delivery_timeout / 2;
    client
        // a request into a dead connection is given up at half the delivery time; librdkafka then drops the
        // connection (socket.max.fails=1) and the other half is left for a new one
        .set("socket.timeout.ms", millis(request))
        // TCP, TLS and SASL together (default 30 s; librdkafka's minimum is 1 s)
        .set("socket.connection.setup.timeout.ms", millis(request.max(Duration::from_secs(1))))
        // we close idle connections before anyone on the way does
        .set("connections.max.idle.ms", "240000")
        // finds dead peers under a connection that is idle for hours (Linux probes after 2 h)
        .set("socket.keepalive.enable", "true")
        // a stale leader answers NOT_LEADER_OR_FOLLOWER, upon which librdkafka refreshes and retries; the
        // interval only moves that off the request's path where the environment is warm
        .set("topic.metadata.refresh.interval.ms", "60000")
        // when no known broker answers, begin again from bootstrap.servers
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
                // The vendored OpenSSL knows no CA of the system. librdkafka tries the usual places, first
                // /etc/pki/tls/certs/ca-bundle.crt, which is Amazon Linux 2023's.
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

    /// What librdkafka itself understood.
    fn understood(config: &KafkaConfig, key: &str) -> String {
        client_config(config, "broker:9098").create_native_config().unwrap().get(key).unwrap()
    }

    #[test]
    fn acknowledged_means_by_all_in_sync_replicas() {
        for security in [iam(), KafkaSecurity::Plaintext] {
            let config = KafkaConfig::new("t", security);
            assert_eq!(understood(&config, "acks"), "-1");
            assert_eq!(understood(&config, "allow.auto.create.topics"), "false");
        }
    }

    #[test]
    fn iam_is_encrypted_verified_and_signed() {
        let config = KafkaConfig::new("t", iam());
        assert_eq!(understood(&config, "security.protocol"), "sasl_ssl");
        assert_eq!(understood(&config, "sasl.mechanisms"), "OAUTHBEARER");
        assert_eq!(understood(&config, "enable.ssl.certificate.verification"), "true");
        assert_eq!(understood(&config, "ssl.endpoint.identification.algorithm"), "https");
        assert_eq!(understood(&config, "ssl.ca.location"), "probe");
    }

    #[test]
    fn every_attempt_that_may_leave_a_copy_is_ours_and_counted() {
        let config = KafkaConfig::new("t", KafkaSecurity::Plaintext);
        assert_eq!(understood(&config, "retries"), "0");
        assert_eq!(understood(&config, "enable.idempotence"), "false");
    }

    #[test]
    fn default_times_leave_room_for_other_attempts_and_for_a_standby_inside_ten_seconds() {
        let config = KafkaConfig::new("t", KafkaSecurity::Plaintext);
        let ms = |key| understood(&config, key).parse::<u64>().unwrap();
        assert_eq!(ms("delivery.timeout.ms"), 3000);
        assert_eq!(ms("socket.timeout.ms"), 1500);
        assert_eq!(ms("request.timeout.ms"), 1000);
        assert_eq!(ms("socket.connection.setup.timeout.ms"), 1500);
        assert!(ms("connections.max.idle.ms") < 350_000);
    }

    #[test]
    fn compression_and_partitioner_are_those_that_were_built_in() {
        let config = KafkaConfig::new("t", KafkaSecurity::Plaintext);
        assert_eq!(understood(&config, "compression.type"), "lz4");
        assert_eq!(understood(&config, "partitioner"), "murmur2_random");
        let features = understood(&config, "builtin.features");
        for needed in ["lz4", "ssl", "sasl_oauthbearer"] {
            assert!(features.contains(needed), "{needed} not in {features}");
        }
    }
}
