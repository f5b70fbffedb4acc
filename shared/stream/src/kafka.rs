//! The durable log on Kafka or Amazon MSK, through librdkafka.
//!
//! A record is acknowledged when all in-sync replicas have it. The adapter creates no topic, keeps
//! no record after its answer, and never waits for space: when librdkafka's bounded queue is full,
//! the record is throttled immediately.
//!
//! It stays inside a sick cluster as long as that can accept records. A record goes to its key's
//! partition, or to another if that one is sick (`partitions`). When an attempt fails with a
//! transient error, or is silent for `second_attempt_after`, the record is also sent to another
//! partition. Whichever acknowledges first makes it durable. Readers must tolerate the copies; the
//! answer says how many there may be. librdkafka must not retry by itself, because it would retry
//! in the same place: see `config`.

mod attempts;
mod config;
mod context;
mod partitions;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aws_config::SdkConfig;
use futures::stream::{self, FuturesUnordered, Stream, StreamExt};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{FutureProducer, Producer};
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::bootstrap::{self, BootstrapError};
use crate::log::{DurableLog, LogRecord, RecordResult};
use context::Context;
use partitions::{Health, Partitions};

pub(crate) use attempts::MAX_ATTEMPTS;
pub use config::{KafkaConfig, KafkaSecurity, MAX_RECORD_BYTES};

/// Concurrent connections to leaders during warm-up.
const WARM_UP_CONCURRENCY: usize = 16;

/// How often the metadata is refreshed while there are records to append, so a request rarely works
/// with outdated metadata.
const REFRESH_EVERY: Duration = Duration::from_secs(10);
/// Metadata younger than this is not refreshed, no matter how much fails.
const FRESH: Duration = Duration::from_millis(500);
/// Time limit of one refresh. librdkafka asks any connected broker, which may be the sick one.
const METADATA_TIMEOUT: Duration = Duration::from_secs(1);

type Client = FutureProducer<Context>;

/// Why the log could not be created.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The brokers were not found.
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    /// librdkafka refused the configuration.
    #[error("cannot create a Kafka client for {brokers}: {source}")]
    Client {
        /// The `bootstrap.servers`.
        brokers: String,
        /// librdkafka's reason.
        source: KafkaError,
    },
    /// The runtime ended meanwhile.
    #[error("connecting was cancelled")]
    Cancelled,
}

/// Why the topic could not be reached. The log may recover: appends will tell.
#[derive(Debug, thiserror::Error)]
pub enum WarmUpError {
    /// No broker described the topic in time.
    #[error("no metadata for topic {topic}: {source}")]
    Metadata {
        /// The topic asked for.
        topic: String,
        /// librdkafka's reason.
        source: KafkaError,
    },
    /// The topic does not exist, or we may not see it.
    #[error("topic {topic} is not usable: {reason}")]
    Topic {
        /// The topic asked for.
        topic: String,
        /// The brokers' reason.
        reason: String,
    },
    /// Some leaders could not be reached.
    #[error("could not reach leaders of topic {topic}: {failures:?}")]
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
    client: Client,
    runtime: Handle,
    /// `None` until a broker has described the topic; until then librdkafka chooses.
    partitions: watch::Sender<Option<Arc<Partitions>>>,
    /// Held while the metadata is being refreshed.
    reading: Arc<tokio::sync::Mutex<()>>,
    health: Mutex<Health>,
}

impl KafkaLog {
    /// Finds the brokers and creates the client. It connects in the background: see
    /// [`KafkaLog::warm_up`].
    ///
    /// `sdk` provides the credentials and the endpoint for the broker look-up and for IAM. The
    /// current runtime must run as long as the log lives: it signs IAM tokens and refreshes
    /// metadata.
    ///
    /// # Errors
    /// When no broker was found or librdkafka refuses the configuration.
    pub async fn connect(config: &KafkaConfig, sdk: &SdkConfig) -> Result<Self, ConnectError> {
        let brokers = bootstrap::resolve(config, sdk).await?;
        let client_config = config::client_config(config, &brokers);
        let client = Client::from_config_and_context(&client_config, Context::new(&config.security, sdk))
            .map_err(|source| ConnectError::Client { brokers, source })?;
        Ok(Self {
            inner: Arc::new(Inner {
                config: config.clone(),
                client,
                runtime: Handle::current(),
                partitions: watch::Sender::new(None),
                reading: Arc::default(),
                health: Mutex::default(),
            }),
        })
    }

    /// Another topic of the same cluster, with the same client.
    #[must_use]
    pub fn beside(&self, topic: &str) -> Self {
        let Inner { config, client, runtime, .. } = &*self.inner;
        Self {
            inner: Arc::new(Inner {
                config: KafkaConfig { topic: topic.to_owned(), ..config.clone() },
                client: client.clone(),
                runtime: runtime.clone(),
                partitions: watch::Sender::new(None),
                reading: Arc::default(),
                health: Mutex::default(),
            }),
        }
    }

    /// Reads the topic's metadata and one offset from each leader, so the first request need not
    /// wait for connections, handshakes and tokens.
    ///
    /// librdkafka connects to a leader only on demand, which the offsets create. Reading them needs
    /// no more permission than describing the topic. Metadata and offsets each take at most
    /// `connect_timeout`.
    ///
    /// # Errors
    /// When the topic is unavailable. The log keeps trying, so the caller may log this and start.
    pub async fn warm_up(&self) -> Result<(), WarmUpError> {
        let leaders = self.leaders().await?;
        let offsets = leaders.into_iter().map(|(leader, partition)| async move {
            let answer = self
                .blocking(move |Inner { client, config, .. }| {
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

    /// Each leader, with one of its partitions.
    async fn leaders(&self) -> Result<BTreeMap<i32, i32>, WarmUpError> {
        let partitions = self.blocking(|inner| inner.read_partitions(inner.config.connect_timeout)).await??;
        let leaders = partitions.leaders();
        if leaders.is_empty() {
            let reason = "no partition has a leader".to_owned();
            return Err(WarmUpError::Topic { topic: self.topic(), reason });
        }
        Ok(leaders)
    }

    /// Runs a blocking call of librdkafka off the async threads.
    async fn blocking<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Inner) -> T + Send + 'static,
    ) -> Result<T, WarmUpError> {
        let inner = Arc::clone(&self.inner);
        tokio::task::spawn_blocking(move || call(&inner))
            .await
            .map_err(|_| WarmUpError::Cancelled { topic: self.topic() })
    }

    fn topic(&self) -> String {
        self.inner.config.topic.clone()
    }

    /// Starts refreshing the metadata in the background. Returns false if it is still fresh.
    fn refresh(&self) -> bool {
        if self.inner.partitions().is_some_and(|partitions| partitions.age() < FRESH) {
            return false;
        }
        if let Ok(reading) = Arc::clone(&self.inner.reading).try_lock_owned() {
            let inner = Arc::clone(&self.inner);
            self.inner.runtime.spawn_blocking(move || {
                let _reading = reading;
                if let Err(error) = inner.read_partitions(METADATA_TIMEOUT) {
                    tracing::warn!(%error, "could not refresh the topic's metadata");
                }
            });
        }
        true
    }

    /// Waits for a refresh. If that takes too long, continues with the old metadata.
    async fn refreshed(&self) {
        let mut partitions = self.inner.partitions.subscribe();
        if self.refresh() {
            let _ = tokio::time::timeout(METADATA_TIMEOUT, partitions.changed()).await;
        }
    }
}

impl Inner {
    /// Asks a broker for the topic's partitions and stores the answer.
    fn read_partitions(&self, timeout: Duration) -> Result<Arc<Partitions>, WarmUpError> {
        let name = &self.config.topic;
        let metadata = self
            .client
            .client()
            .fetch_metadata(Some(name), timeout)
            .map_err(|source| WarmUpError::Metadata { topic: name.clone(), source })?;
        let unusable = |reason: String| WarmUpError::Topic { topic: name.clone(), reason };
        let topic = metadata
            .topics()
            .iter()
            .find(|topic| topic.name() == name)
            .ok_or_else(|| unusable("it is missing from the answer".to_owned()))?;
        if let Some(error) = topic.error() {
            return Err(unusable(RDKafkaErrorCode::from(error).to_string()));
        }
        let partitions = Partitions::of(topic, self.config.min_insync_replicas, Instant::now())
            .ok_or_else(|| unusable("it has no partitions".to_owned()))?;
        let partitions = Arc::new(partitions);
        self.partitions.send_replace(Some(Arc::clone(&partitions)));
        Ok(partitions)
    }

    fn partitions(&self) -> Option<Arc<Partitions>> {
        self.partitions.borrow().clone()
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DurableLog for KafkaLog {
    fn append_each<'a>(&'a self, records: &'a [LogRecord]) -> impl Stream<Item = RecordResult> + Send + 'a {
        if self.inner.partitions().is_none_or(|partitions| partitions.age() > REFRESH_EVERY) {
            self.refresh();
        }
        // Enqueue all records before waiting for any, so they share requests.
        let sent: Vec<_> = records.iter().map(|record| self.send(record, &[])).collect();
        let settle = move |(index, (record, sent)): (usize, (&'a LogRecord, _))| async move {
            (index, self.settle(record, sent).await)
        };
        records.iter().zip(sent).enumerate().map(settle).collect::<FuturesUnordered<_>>()
    }

    fn max_copies(&self) -> u32 {
        attempts::MAX_ATTEMPTS
    }
}
