//! The durable log on Kafka or Amazon MSK, through librdkafka.
//!
//! A record is acknowledged when all in-sync replicas have it. The adapter chooses no partition (the key
//! does), creates no topic, keeps no record after its answer, and never waits for room: when librdkafka's
//! bounded queue is full, the record is throttled at once.

mod config;
mod context;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use aws_config::SdkConfig;
use futures::stream::{self, FuturesUnordered, Stream, StreamExt};
use rdkafka::ClientConfig;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::future_producer::DeliveryFuture;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};

use crate::bootstrap::{self, BootstrapError};
use crate::log::{Ack, AppendError, Attempt, DurableLog, LogRecord, Settled};
use context::Context;

pub use config::{KafkaConfig, KafkaSecurity, MAX_RECORD_BYTES};

/// Leaders that are connected to at the same time during warm-up.
const WARM_UP_CONCURRENCY: usize = 16;

type Client = FutureProducer<Context>;

/// Why the log could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The brokers are not known.
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    /// librdkafka refused the configuration.
    #[error("no Kafka client for {brokers}: {source}")]
    Client {
        /// The `bootstrap.servers`.
        brokers: String,
        /// librdkafka's reason.
        source: KafkaError,
    },
}

/// Why the topic could not be reached. The log may still recover: appends will say.
#[derive(Debug, thiserror::Error)]
pub enum WarmUpError {
    /// No broker described the topic in time.
    #[error("no metadata of topic {topic}: {source}")]
    Metadata {
        /// The topic asked for.
        topic: String,
        /// librdkafka's reason.
        source: KafkaError,
    },
    /// The brokers know no such topic, or do not let us see it.
    #[error("topic {topic} is not usable: {reason}")]
    Topic {
        /// The topic asked for.
        topic: String,
        /// The brokers' reason.
        reason: String,
    },
    /// Some leaders could not be reached.
    #[error("leaders of topic {topic} not reached: {failures:?}")]
    Leaders {
        /// The topic asked for.
        topic: String,
        /// Broker id and reason.
        failures: Vec<(i32, String)>,
    },
    /// The runtime ended while warming up.
    #[error("warming up topic {topic} was cancelled")]
    Cancelled {
        /// The topic asked for.
        topic: String,
    },
}

/// The durable log on Kafka. Clones share one client; keep one per process.
#[derive(Clone)]
pub struct KafkaLog {
    inner: Arc<Inner>,
}

struct Inner {
    config: KafkaConfig,
    client_config: ClientConfig,
    context: Context,
    current: Mutex<Current>,
}

struct Current {
    client: Client,
    since: Instant,
}

impl KafkaLog {
    /// Finds the brokers and creates the client. It connects in the background: see [`KafkaLog::warm_up`].
    ///
    /// `sdk` gives the credentials and the endpoint for the broker look-up and for IAM; the runtime that
    /// this runs on must be driven as long as the log lives, since IAM tokens are signed on it.
    ///
    /// # Errors
    /// When no broker is known or librdkafka refuses the configuration.
    pub async fn connect(config: &KafkaConfig, sdk: &SdkConfig) -> Result<Self, ConnectError> {
        let brokers = bootstrap::resolve(config, sdk).await?;
        let client_config = config::client_config(config, &brokers);
        let context = Context::new(&config.security, sdk);
        let client = Client::from_config_and_context(&client_config, context.clone())
            .map_err(|source| ConnectError::Client { brokers, source })?;
        let current = Current { client, since: Instant::now() };
        Ok(Self {
            inner: Arc::new(Inner { config: config.clone(), client_config, context, current: Mutex::new(current) }),
        })
    }

    /// Reads the topic's metadata and one offset from each leader, so that connections, handshakes and
    /// tokens are paid for before the first request, and the producer id has been asked for.
    ///
    /// librdkafka connects to a leader only when it needs it; the offsets are that need, and need no more
    /// permission than describing the topic. Bounded by `connect_timeout` for metadata and offsets each.
    ///
    /// # Errors
    /// When the topic cannot be used yet. The log goes on trying: the caller may log this and begin.
    pub async fn warm_up(&self) -> Result<(), WarmUpError> {
        let leaders = self.leaders().await?;
        let offsets = leaders.into_iter().map(|(leader, partition)| async move {
            let answer = self
                .blocking(move |client, config| {
                    client.client().fetch_watermarks(&config.topic, partition, config.connect_timeout)
                })
                .await?;
            Ok(answer.err().map(|error| (leader, error.to_string())))
        });
        let outcomes: Vec<Result<_, WarmUpError>> =
            stream::iter(offsets).buffer_unordered(WARM_UP_CONCURRENCY).collect().await;
        let failures: Vec<_> = outcomes.into_iter().filter_map(Result::transpose).collect::<Result<_, _>>()?;
        if failures.is_empty() {
            return Ok(());
        }
        let topic = self.topic();
        Err(WarmUpError::Leaders { topic, failures })
    }

    /// One partition of each broker that leads any.
    async fn leaders(&self) -> Result<BTreeMap<i32, i32>, WarmUpError> {
        let metadata = self
            .blocking(|client, config| client.client().fetch_metadata(Some(&config.topic), config.connect_timeout))
            .await?
            .map_err(|source| WarmUpError::Metadata { topic: self.topic(), source })?;
        let unusable = |reason: String| WarmUpError::Topic { topic: self.topic(), reason };
        let topic = metadata
            .topics()
            .iter()
            .find(|topic| topic.name() == self.inner.config.topic)
            .ok_or_else(|| unusable("not in the answer".to_owned()))?;
        if let Some(error) = topic.error() {
            return Err(unusable(RDKafkaErrorCode::from(error).to_string()));
        }
        let leaders: BTreeMap<i32, i32> = topic
            .partitions()
            .iter()
            .filter(|partition| partition.leader() >= 0)
            .map(|partition| (partition.leader(), partition.id()))
            .collect();
        if leaders.is_empty() {
            return Err(unusable("no partition has a leader".to_owned()));
        }
        Ok(leaders)
    }

    /// Runs a blocking call of librdkafka off the async threads.
    async fn blocking<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Client, &KafkaConfig) -> T + Send + 'static,
    ) -> Result<T, WarmUpError> {
        let log = self.clone();
        tokio::task::spawn_blocking(move || call(&log.client(), &log.inner.config))
            .await
            .map_err(|_| WarmUpError::Cancelled { topic: self.topic() })
    }

    fn topic(&self) -> String {
        self.inner.config.topic.clone()
    }

    /// The client to use now. After a fatal error (a lost producer id, a denied one) librdkafka's client
    /// refuses everything for ever, so it is replaced, at most once in `replace_interval`.
    fn client(&self) -> Client {
        let mut current = self.current();
        if current.since.elapsed() >= self.inner.config.replace_interval
            && let Some((code, reason)) = current.client.client().fatal_error()
        {
            let config = &self.inner.client_config;
            match Client::from_config_and_context(config, self.inner.context.clone()) {
                Ok(client) => {
                    tracing::warn!(?code, reason, "Kafka client replaced after a fatal error");
                    let broken = std::mem::replace(&mut current.client, client);
                    // waits for its threads, so not here
                    std::thread::spawn(move || drop(broken));
                }
                Err(error) => tracing::error!(%error, "broken Kafka client could not be replaced"),
            }
            current.since = Instant::now();
        }
        current.client.clone()
    }

    /// A fatal error purges what is queued and refuses what comes; this is the error behind it.
    fn cause(&self, error: KafkaError) -> KafkaError {
        use RDKafkaErrorCode::{Fatal, PurgeInflight, PurgeQueue};
        if !matches!(error.rdkafka_error_code(), Some(Fatal | PurgeInflight | PurgeQueue)) {
            return error;
        }
        self.current().client.client().fatal_error().map_or(error, |(code, _)| KafkaError::MessageProduction(code))
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.inner.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DurableLog for KafkaLog {
    fn append_each<'a>(&'a self, records: &'a [LogRecord]) -> impl Stream<Item = Settled> + Send + 'a {
        let topic = self.inner.config.topic.as_str();
        // All are enqueued before any is waited for, so that they share requests.
        let enqueued: Vec<_> = {
            let client = self.client();
            let enqueue = |record: &LogRecord| {
                let keyed = FutureRecord::to(topic).key(record.key.as_str()).payload(record.value.as_ref());
                client.send_result(keyed).map_err(|(error, _)| error)
            };
            records.iter().map(enqueue).collect()
        };
        let settle = move |(index, (enqueued, record)): (usize, (Result<DeliveryFuture, _>, &'a LogRecord))| async move {
            let delivered = match enqueued {
                Ok(delivery) => match delivery.await {
                    Ok(Ok(_)) => Ok(Ack::ONCE),
                    Ok(Err((error, _))) => Err(error),
                    Err(_) => Err(KafkaError::Canceled),
                },
                Err(error) => Err(error),
            };
            (index, delivered.map_err(|error| classify(topic, record, &self.cause(error))))
        };
        enqueued.into_iter().zip(records).enumerate().map(settle).collect::<FuturesUnordered<_>>()
    }
}

/// What an error means to the caller. Whatever is not known to be lasting counts as unavailable.
fn classify(topic: &str, record: &LogRecord, error: &KafkaError) -> AppendError {
    use RDKafkaErrorCode as Code;
    let code = error.rdkafka_error_code();
    let name = code.map_or_else(|| "Client".to_owned(), |code| format!("{code:?}"));
    let attempt = Attempt::new(topic, record, name, error.to_string());
    match code {
        Some(Code::MessageSizeTooLarge | Code::MessageBatchTooLarge | Code::InvalidMessageSize) => {
            AppendError::TooLarge(attempt)
        }
        Some(Code::QueueFull | Code::ThrottlingQuotaExceeded) => AppendError::Throttled(attempt),
        Some(
            Code::Authentication
            | Code::SaslAuthenticationFailed
            | Code::UnsupportedSASLMechanism
            | Code::IllegalSASLState
            | Code::TopicAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::SecurityDisabled,
        ) => AppendError::Denied(attempt),
        _ => AppendError::Unavailable(attempt),
    }
}
