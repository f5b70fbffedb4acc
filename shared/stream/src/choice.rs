//! Either kind of log, by configuration.
//!
//! Creating one does no I/O and cannot fail. The brokers of a Kafka cluster are looked up on first
//! use, and again until they are found. A function must start even if its primary log is
//! unreachable, because its standby may serve.
//!
//! A look-up belongs to no request: it goes on when the request that began it was answered by the
//! standby and dropped, and all requests that need it wait for the same one. It progresses whenever
//! the environment runs, and time in which that is frozen does not use up its time limit.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use aws_config::SdkConfig;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use futures::stream::{self, Stream, StreamExt};

use crate::kafka::{self, ConnectError, KafkaConfig, KafkaLog, KafkaSecurity, WarmUpError};
use crate::kinesis::{KinesisConfig, KinesisLog, KinesisWarmUpError};
use crate::log::{AppendError, Attempt, DurableLog, LogRecord, RecordResult};

/// The kind of a log, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogConfig {
    /// Kafka or Amazon MSK.
    Kafka(KafkaConfig),
    /// A Kinesis data stream.
    Kinesis(KinesisConfig),
}

impl LogConfig {
    /// Whether its brokers are reached over TLS, which only a build with [`crate::TLS`] can do.
    #[must_use]
    pub fn needs_tls(&self) -> bool {
        matches!(self, Self::Kafka(KafkaConfig { security: KafkaSecurity::Iam { .. }, .. }))
    }
}

/// Either log. Clones share one client; keep one per process and log.
#[derive(Clone)]
pub enum Log {
    /// Kafka or Amazon MSK.
    Kafka(LazyKafka),
    /// A Kinesis data stream.
    Kinesis(KinesisLog),
}

/// Why a log could not be reached. It may recover: appends will tell.
#[derive(Debug, thiserror::Error)]
pub enum LogWarmUpError {
    /// The brokers were not found.
    #[error(transparent)]
    Connect(#[from] Arc<ConnectError>),
    /// The topic could not be reached.
    #[error(transparent)]
    Kafka(#[from] WarmUpError),
    /// The stream could not be reached.
    #[error(transparent)]
    Kinesis(#[from] KinesisWarmUpError),
}

impl Log {
    /// The log of `config`, with the credentials and endpoint of `sdk`.
    #[must_use]
    pub fn new(config: LogConfig, sdk: &SdkConfig) -> Self {
        match config {
            LogConfig::Kafka(config) => Self::Kafka(LazyKafka::new(config, sdk)),
            LogConfig::Kinesis(config) => Self::Kinesis(KinesisLog::new(config, sdk)),
        }
    }

    /// Another topic or stream of the same cluster or account, over the same connections.
    #[must_use]
    pub fn beside(&self, name: &str) -> Self {
        match self {
            Self::Kafka(kafka) => Self::Kafka(kafka.beside(name)),
            Self::Kinesis(kinesis) => Self::Kinesis(kinesis.beside(name)),
        }
    }

    /// Connects, so the first request need not wait for connections, handshakes and tokens.
    ///
    /// # Errors
    /// When the log is unavailable. It keeps trying, so the caller may log this and start.
    pub async fn warm_up(&self) -> Result<(), LogWarmUpError> {
        match self {
            Self::Kafka(kafka) => Ok(kafka.connected().await?.warm_up().await?),
            Self::Kinesis(kinesis) => Ok(kinesis.warm_up().await?),
        }
    }
}

impl DurableLog for Log {
    fn append_each<'a>(&'a self, records: &'a [LogRecord]) -> impl Stream<Item = RecordResult> + Send + 'a {
        match self {
            Self::Kafka(kafka) => kafka.append_each(records).left_stream(),
            Self::Kinesis(kinesis) => kinesis.append_each(records).right_stream(),
        }
    }

    fn max_copies(&self) -> u32 {
        match self {
            Self::Kafka(kafka) => kafka.max_copies(),
            Self::Kinesis(kinesis) => kinesis.max_copies(),
        }
    }
}

/// A Kafka log that looks up its brokers on first use.
#[derive(Clone)]
pub struct LazyKafka {
    inner: Arc<Inner>,
}

struct Inner {
    config: KafkaConfig,
    connection: Connection,
    log: OnceLock<KafkaLog>,
}

/// How a log gets its client.
enum Connection {
    /// It creates one.
    New { sdk: Box<SdkConfig>, look_up: Mutex<Option<LookUp>> },
    /// It shares the client of another topic's log.
    Shared(LazyKafka),
}

/// A look-up of the brokers that was begun, or how it ended.
type LookUp = Shared<BoxFuture<'static, Result<KafkaLog, Arc<ConnectError>>>>;

impl LazyKafka {
    fn new(config: KafkaConfig, sdk: &SdkConfig) -> Self {
        let connection = Connection::New { sdk: Box::new(sdk.clone()), look_up: Mutex::default() };
        Self { inner: Arc::new(Inner { config, connection, log: OnceLock::new() }) }
    }

    fn beside(&self, topic: &str) -> Self {
        let config = KafkaConfig { topic: topic.to_owned(), ..self.inner.config.clone() };
        Self { inner: Arc::new(Inner { config, connection: Connection::Shared(self.clone()), log: OnceLock::new() }) }
    }

    /// The connected log. Dropping the call does not stop the look-up of the brokers.
    async fn connected(&self) -> Result<&KafkaLog, Arc<ConnectError>> {
        let Inner { config, connection, log } = &*self.inner;
        if let Some(log) = log.get() {
            return Ok(log);
        }
        let connected = match connection {
            Connection::New { sdk, look_up } => look_up_by(look_up, config, sdk).await?,
            Connection::Shared(other) => Box::pin(other.connected()).await?.beside(&config.topic),
        };
        Ok(log.get_or_init(|| connected))
    }

    /// The error of a record that was not sent, because no broker was found.
    fn no_brokers(&self, record: &LogRecord, error: &ConnectError) -> AppendError {
        let attempt = Attempt::new(self.inner.config.topic.as_str(), record, "NoBrokers", error.to_string());
        AppendError::Unavailable(Attempt { copies: 0, ..attempt })
    }
}

/// The look-up that is going on. If there is none, or the last one has failed, a new one.
fn look_up_by(current: &Mutex<Option<LookUp>>, config: &KafkaConfig, sdk: &SdkConfig) -> LookUp {
    let mut current = current.lock().unwrap_or_else(PoisonError::into_inner);
    match &*current {
        Some(look_up) if !matches!(look_up.peek(), Some(Err(_))) => look_up.clone(),
        _ => {
            let (config, sdk) = (config.clone(), sdk.clone());
            let connecting = tokio::spawn(async move { KafkaLog::connect(&config, &sdk).await });
            let ended = connecting.map(|ended| match ended {
                Ok(connected) => connected.map_err(Arc::new),
                Err(_) => Err(Arc::new(ConnectError::Cancelled)),
            });
            current.insert(ended.boxed().shared()).clone()
        }
    }
}

impl DurableLog for LazyKafka {
    fn append_each<'a>(&'a self, records: &'a [LogRecord]) -> impl Stream<Item = RecordResult> + Send + 'a {
        if let Some(log) = self.inner.log.get() {
            return log.append_each(records).left_stream();
        }
        let results = stream::once(self.connected()).flat_map(move |connected| match connected {
            Ok(log) => log.append_each(records).left_stream(),
            Err(error) => {
                let failed =
                    records.iter().enumerate().map(|(index, record)| (index, Err(self.no_brokers(record, &error))));
                stream::iter(failed.collect::<Vec<_>>()).right_stream()
            }
        });
        results.right_stream()
    }

    fn max_copies(&self) -> u32 {
        kafka::MAX_ATTEMPTS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_kafka::config::{BehaviorVersion, Credentials, Region, SharedCredentialsProvider};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    fn config(bootstrap: Option<&str>) -> KafkaConfig {
        let bootstrap = bootstrap.map(str::to_owned);
        KafkaConfig { bootstrap, ..KafkaConfig::new("t", KafkaSecurity::Plaintext) }
    }

    #[test]
    fn only_iam_needs_tls() {
        let iam = KafkaConfig::new("t", KafkaSecurity::Iam { region: "us-east-1".to_owned() });
        assert!(LogConfig::Kafka(iam).needs_tls());
        assert!(!LogConfig::Kafka(config(None)).needs_tls());
    }

    fn records() -> [LogRecord; 2] {
        ["a", "b"].map(|key| LogRecord::new(key, bytes::Bytes::from_static(b"v")))
    }

    /// The configuration names no cluster, so no broker is found.
    #[tokio::test]
    async fn a_log_without_brokers_is_unavailable_and_looks_again() {
        let log = Log::new(LogConfig::Kafka(config(None)), &SdkConfig::builder().build());
        assert!(matches!(log.warm_up().await, Err(LogWarmUpError::Connect(_))));
        for _ in ["at first", "and again"] {
            for result in log.append(&records()).await {
                let error = result.unwrap_err();
                assert_eq!((error.reason(), error.attempt().code.as_str()), ("unavailable", "NoBrokers"), "{error}");
                assert_eq!(error.attempt().copies, 0);
            }
        }
    }

    #[tokio::test]
    async fn brokers_are_looked_up_once_by_the_first_append() {
        let mock = rdkafka::mocking::MockCluster::new(1).unwrap();
        mock.create_topic("t", 1, 1).unwrap();
        let config = config(Some(&mock.bootstrap_servers()));
        let log = LazyKafka::new(config, &SdkConfig::builder().build());
        for _ in ["connecting", "connected"] {
            assert!(log.append(&records()).await.iter().all(Result::is_ok));
            assert!(log.inner.log.get().is_some());
        }
        mock.create_topic("u", 1, 1).unwrap();
        assert!(log.beside("u").append(&records()).await.iter().all(Result::is_ok), "another topic of the cluster");
        let of_no_topic = log.beside("absent").append(&records()).await;
        assert!(of_no_topic.iter().all(Result::is_err), "{of_no_topic:?}");
    }

    /// The AWS endpoint of the broker look-up. It answers after `delay`, and counts the calls.
    async fn look_ups(brokers: String, delay: Duration) -> (SdkConfig, Arc<AtomicUsize>) {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let answer = move || {
            counted.fetch_add(1, Ordering::SeqCst);
            let body = format!(r#"{{"bootstrapBrokerString":"{brokers}"}}"#);
            async move {
                tokio::time::sleep(delay).await;
                body
            }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(answer)).await });
        let credentials = Credentials::new("AKID", "secret", None, None, "test");
        let sdk = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .endpoint_url(endpoint);
        (sdk.build(), calls)
    }

    fn config_of_cluster() -> KafkaConfig {
        let cluster_arn = Some("arn:aws:kafka:us-east-1:123456789012:cluster/c/1".to_owned());
        KafkaConfig { cluster_arn, ..config(None) }
    }

    /// Each request is answered by a standby, and then dropped.
    #[tokio::test]
    async fn slow_broker_look_up_outlives_the_request_that_began_it() {
        let mock = rdkafka::mocking::MockCluster::new(1).unwrap();
        mock.create_topic("t", 1, 1).unwrap();
        let (sdk, calls) = look_ups(mock.bootstrap_servers(), Duration::from_millis(300)).await;
        let log = LazyKafka::new(config_of_cluster(), &sdk);
        let beside = log.beside("t");
        let request = |log: LazyKafka| async move {
            tokio::time::timeout(Duration::from_millis(50), log.append(&records())).await.is_ok()
        };
        let requests = async { while !(request(log.clone()).await && request(beside.clone()).await) {} };
        tokio::time::timeout(Duration::from_secs(20), requests).await.expect("the brokers are found");
        assert_eq!(calls.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn hanging_broker_look_up_is_awaited_once_by_all() {
        let (sdk, calls) = look_ups(String::new(), Duration::from_secs(60)).await;
        let connect_timeout = Duration::from_millis(500);
        let log = LazyKafka::new(KafkaConfig { connect_timeout, ..config_of_cluster() }, &sdk);
        let (records, began) = (records(), std::time::Instant::now());
        for result in futures::future::join_all((0..10).map(|_| log.append(&records))).await.concat() {
            assert_eq!(result.unwrap_err().attempt().code, "NoBrokers");
        }
        assert!(began.elapsed() < connect_timeout * 3, "{:?}", began.elapsed());
        assert_eq!(calls.load(Ordering::SeqCst), 1);
    }
}
