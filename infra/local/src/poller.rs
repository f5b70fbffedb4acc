//! Polls Kafka topics, Kinesis streams and a table's stream, and invokes functions with their records. It replaces AWS
//! Lambda's event source mappings. No emulator has those for Kafka. Ours has them for Kinesis, but
//! it ignores which records an answer names as failed, and it neither splits a batch nor gives it
//! up.
//!
//! **It emulates what AWS documents** (Lambda Developer Guide: "Using Lambda with Amazon MSK",
//! "Configuring error handling controls for Kafka event sources", "Using Lambda with Kinesis",
//! "Configuring partial batch response with Kinesis Data Streams and Lambda", "Capturing discarded
//! batches", "Retain discarded batch records", read in November 2026):
//! - A batch leaves when it reaches `BatchSize` or 6 MB, or when the batching window ends (default:
//!   500 ms for Kafka, 0 for Kinesis). Order is kept within a partition or shard. A Kafka payload
//!   mixes partitions of the topic. A Kinesis payload holds records of one shard, and each shard
//!   has one batch at a time.
//! - Once records succeeded or were given up, their offsets are committed to the mapping's consumer
//!   group, or the shard's checkpoint is moved.
//! - With `ReportBatchItemFailures`, on Kafka only the records that the answer names are retried.
//!   On Kinesis the lowest sequence number that it names is the checkpoint: everything from there
//!   on is retried. An empty or null answer is success. An answer of another form, one that names a
//!   record outside the batch, and a function error all fail the whole batch.
//! - A failed batch is split in two if the mapping says so, which uses no retry. Otherwise it is
//!   retried, up to the limit. (No limit means 10 on Kafka with a destination, and forever on
//!   Kinesis.) Until it ends it blocks its partitions or its shard. A partial answer splits a batch
//!   of a shard only at the checkpoint.
//! - Records that used up their retries, grew too old, or exceed the payload limit alone go to the
//!   on-failure destination: an S3 object with the whole event, or an SQS message without it.
//!
//! **Where the documentation is silent**:
//! - Splitting on Kafka uses no retry either, nor does an invocation that Lambda could not start.
//! - The object key has the form that the page for Kinesis gives.
//! - On Kinesis a sequence number that was not in the batch counts like such an offset on Kafka,
//!   and a partial answer uses a retry even if it moved the checkpoint.
//!
//! **Where it differs from Lambda**:
//! - Waits between retries are short (0.1 s to 10 s). A destination that fails is tried until it
//!   accepts the records.
//! - Each mapping has one consumer with up to eight invocations at a time, instead of a fleet of
//!   pollers. There is one plaintext listener.
//! - There are no filters, no schema registry, no `AT_TIMESTAMP`, and no Kafka or SNS destinations.
//! - The mapping's settings are read once, and its `Enabled` is ignored.
//! - A Kinesis shard is read four to forty times a second instead of once.
//! - `ParallelizationFactor`, tumbling windows and enhanced fan-out are not emulated.
//! - Shards are listed once, so the poller does not follow a split or a merge.
//! - The stream of a DynamoDB table is treated as a Kinesis stream with one shard.
//! - Checkpoints live in [`Checkpoints`], as long as the process.
//! - On Kinesis a batch that is retried forever does not end when its records expire.
//!
//! **Where the emulated Kinesis differs from AWS's** (ministack 1.5.33):
//! - An on-demand stream always has four shards. A shard that is split or merged is gone with its
//!   records.
//! - Sequence numbers have 30 digits instead of 56.
//! - `GetRecords` has no limit of 10 MB, 2 MB/s or five reads a second. It accepts an iterator only
//!   once (`emulator.py` does that). Nothing is ever throttled.
//!
//! The core (`core`, `settle`, `ledger`, `record`) is pure and decides. `shell`, `kafka`,
//! `kinesis`, `table`, `failure` and `settings` talk to the logs and to AWS.
//!
//! **Invariant:** a record is committed only after it succeeded or was delivered to the destination
//! (tests `no_record_is_lost_or_skipped`, `no_record_of_a_shard_is_lost_or_skipped`).

mod core;
mod failure;
mod kafka;
mod kinesis;
mod ledger;
mod mapping;
mod record;
mod settings;
mod settle;
mod shards;
mod shell;
mod table;

use std::collections::BTreeMap;

use anyhow::Context as _;
use aws_config::SdkConfig;
use aws_config::retry::RetryConfig;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::info;

use super::deploy::s3;
use super::servers::Role;

use self::core::Core;
use self::failure::FailureSink;
use self::kafka::KafkaLog;
pub use self::mapping::{Mapping, MappingSettings, MappingStep};
use self::record::{Source, TableStream, Topic};
use self::settings::{Origin, Settings, deployed_mappings};
pub use self::shards::Checkpoints;
use self::shell::{Log, Shell};

/// Logical ids of the mappings that `template.yaml` may have for the primary log.
const OF_PRIMARY: [&str; 6] = [
    "ProcessLogMapping",
    "ProcessStreamMapping",
    "ForwardLogMapping",
    "ForwardStreamMapping",
    "CandidateLogMapping",
    "CandidateStreamMapping",
];
/// Likewise for the standby log.
const OF_STANDBY: [&str; 6] = [
    "ProcessStandbyLogMapping",
    "ProcessStandbyStreamMapping",
    "ForwardStandbyLogMapping",
    "ForwardStandbyStreamMapping",
    "CandidateStandbyLogMapping",
    "CandidateStandbyStreamMapping",
];

/// The mapping of the table's stream.
const OF_TABLE: &str = "PublishMapping";

/// Which mapping to run, and where.
#[derive(Debug, Clone)]
pub struct PollerConfig {
    /// Endpoint, region and credentials of the stack's cloud.
    pub sdk: SdkConfig,
    /// Name of the deployed stack.
    pub stack: String,
    /// Logical id of the `AWS::Lambda::EventSourceMapping` in the stack's template.
    pub logical_id: String,
    /// Plaintext brokers, as `host:port,host:port`. Needed if the mapping reads a Kafka topic.
    pub bootstrap: Option<String>,
    /// Where a mapping of a stream resumes, and where it stores its progress.
    pub checkpoints: Checkpoints,
    /// An upper bound for `BatchSize`.
    pub max_batch: Option<usize>,
}

/// What a poller has done since it started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PollerStats {
    /// Records that the function processed, each counted once.
    pub records_delivered: u64,
    /// Invocations started.
    pub invocations: u64,
    /// Invocations with records that had been sent before.
    pub retries: u64,
    /// Records given up: written to the on-failure destination, or discarded without one.
    pub discarded: u64,
    /// Batches that failed as a whole: by a function error, a time-out or an invalid answer.
    pub function_errors: u64,
    /// Records that were read and are not done yet.
    pub waiting: u64,
}

impl std::iter::Sum for PollerStats {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |a, b| Self {
            records_delivered: a.records_delivered + b.records_delivered,
            invocations: a.invocations + b.invocations,
            retries: a.retries + b.retries,
            discarded: a.discarded + b.discarded,
            function_errors: a.function_errors + b.function_errors,
            waiting: a.waiting + b.waiting,
        })
    }
}

/// A running poller. Dropping it stops it without waiting.
#[derive(Debug)]
pub struct Poller {
    stop: watch::Sender<bool>,
    stats: watch::Receiver<PollerStats>,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Poller {
    /// Reads the mapping's settings and starts polling. Returns once the consumer group has
    /// assigned the topic's partitions, or the stream's shards are open.
    ///
    /// # Errors
    /// If the settings cannot be read or ask for something that is not emulated, or the log cannot
    /// be read.
    pub async fn start(config: PollerConfig) -> anyhow::Result<Self> {
        let mut settings = Settings::load(&config.sdk, &config.stack, &config.logical_id).await?;
        settings.batching.size = settings.batching.size.min(config.max_batch.unwrap_or(usize::MAX)).max(1);
        info!(?settings, bootstrap = config.bootstrap, "polling");
        let from = settings.starting_position;
        match settings.origin.clone() {
            Origin::Kafka { event_source_arn, topic, group_id } => {
                let bootstrap_servers =
                    config.bootstrap.context("the mapping reads a topic, but there are no brokers")?;
                let log = KafkaLog::subscribe(&bootstrap_servers, &topic, &group_id, from)?;
                let joined = log.joined();
                let source = Source::Kafka(Topic { event_source_arn, bootstrap_servers, topic });
                let poller = Self::run(&config.sdk, settings, source, log);
                joined.await?;
                Ok(poller)
            }
            Origin::Kinesis(stream) => {
                let mapping = &settings.mapping.uuid;
                let log = kinesis::open(&config.sdk, &stream, mapping, from, config.checkpoints).await?;
                Ok(Self::run(&config.sdk, settings, Source::Kinesis(stream), log))
            }
            Origin::Table(arn) => {
                let mapping = &settings.mapping.uuid;
                let (shard, log) = table::open(&config.sdk, &arn, mapping, from, config.checkpoints).await?;
                Ok(Self::run(&config.sdk, settings, Source::Table(TableStream { arn, shard }), log))
            }
        }
    }

    fn run(sdk: &SdkConfig, settings: Settings, source: Source, log: impl Log) -> Self {
        // The mapping retries, not the client.
        let lambda = aws_sdk_lambda::config::Builder::from(sdk).retry_config(RetryConfig::disabled()).build();
        let sink = settings.destination.map(|destination| FailureSink {
            mapping: settings.mapping.clone(),
            source: source.clone(),
            destination,
            s3: s3(sdk),
            sqs: aws_sdk_sqs::Client::new(sdk),
        });
        let (stats, stats_receiver) = watch::channel(PollerStats::default());
        let (stop, stop_receiver) = watch::channel(false);
        let shell = Shell {
            core: Core::new(settings.policy, settings.batching, source.clone()),
            log,
            source,
            function_arn: settings.mapping.function_arn,
            lambda: aws_sdk_lambda::Client::from_conf(lambda),
            sink,
            stats,
        };
        Self { stop, stats: stats_receiver, task: tokio::spawn(shell.run(stop_receiver)) }
    }

    /// What it has done so far.
    #[must_use]
    pub fn stats(&self) -> PollerStats {
        *self.stats.borrow()
    }

    /// Stops: reads no more records, waits up to ten seconds for running invocations, commits, and
    /// leaves the log. The next poller gets the uncommitted records again.
    ///
    /// # Errors
    /// If the poller had already failed, or the last commit failed.
    pub async fn stop(self) -> anyhow::Result<PollerStats> {
        self.stop.send_replace(true);
        self.task.await.context("the poller panicked")??;
        Ok(*self.stats.borrow())
    }
}

/// Makes the pollers the only ones of their mappings on an emulator that has some itself.
///
/// # Errors
/// If the emulator refuses.
pub(super) async fn take_over(sdk: &SdkConfig, stack: &str) -> anyhow::Result<()> {
    let ours = |logical_id: &str| {
        OF_PRIMARY.contains(&logical_id) || OF_STANDBY.contains(&logical_id) || logical_id == OF_TABLE
    };
    settings::disable(sdk, stack, ours).await
}

/// What the pollers of a stack need.
#[derive(Debug, Clone)]
pub struct PollersConfig {
    /// Endpoint, region and credentials of the stack's cloud.
    pub sdk: SdkConfig,
    /// Name of the deployed stack.
    pub stack: String,
    /// Brokers of the primary log, if that is Kafka.
    pub bootstrap: Option<String>,
    /// Brokers of the standby log, if that is Kafka.
    pub standby_bootstrap: Option<String>,
    /// Progress of the mappings that read streams.
    pub checkpoints: Checkpoints,
    /// An upper bound for `BatchSize` of all mappings.
    pub max_batch: Option<usize>,
}

/// The pollers of all mappings of a stack that read a Kafka topic, a Kinesis stream or the table's.
/// Dropping them stops them without waiting.
#[derive(Debug)]
pub struct Pollers {
    /// By the mapping's logical id.
    pollers: BTreeMap<&'static str, Poller>,
}

impl Pollers {
    /// Starts one poller per mapping, one after the other.
    ///
    /// # Errors
    /// As [`Poller::start`].
    pub async fn start(config: PollersConfig) -> anyhow::Result<Self> {
        let deployed = deployed_mappings(&config.sdk, &config.stack).await?;
        let primary = OF_PRIMARY.map(|logical_id| (logical_id, &config.bootstrap));
        let standby = OF_STANDBY.map(|logical_id| (logical_id, &config.standby_bootstrap));
        let mut pollers = BTreeMap::new();
        for (logical_id, bootstrap) in primary.into_iter().chain(standby).chain([(OF_TABLE, &None)]) {
            if deployed.contains(logical_id) {
                let poller = Poller::start(PollerConfig {
                    sdk: config.sdk.clone(),
                    stack: config.stack.clone(),
                    logical_id: logical_id.to_owned(),
                    bootstrap: bootstrap.clone(),
                    checkpoints: config.checkpoints.clone(),
                    max_batch: config.max_batch,
                });
                let poller = poller.await.with_context(|| format!("starting the poller of {logical_id}"))?;
                pollers.insert(logical_id, poller);
            }
        }
        Ok(Self { pollers })
    }

    /// What all of them have done so far.
    #[must_use]
    pub fn stats(&self) -> PollerStats {
        self.pollers.values().map(Poller::stats).sum()
    }

    /// What the pollers of one log have done so far.
    #[must_use]
    pub fn stats_of(&self, log: Role) -> PollerStats {
        let of_log = match log {
            Role::Primary => OF_PRIMARY,
            Role::Standby => OF_STANDBY,
        };
        of_log.iter().filter_map(|logical_id| self.of(logical_id)).map(Poller::stats).sum()
    }

    /// The poller of one mapping.
    #[must_use]
    pub fn of(&self, logical_id: &str) -> Option<&Poller> {
        self.pollers.get(logical_id)
    }

    /// Stops all of them, as [`Poller::stop`] does.
    ///
    /// # Errors
    /// As [`Poller::stop`]: the first error, once all have ended.
    pub async fn stop(self) -> anyhow::Result<PollerStats> {
        let stopping = self.pollers.into_iter().map(|(logical_id, poller)| async move {
            poller.stop().await.with_context(|| format!("stopping the poller of {logical_id}"))
        });
        futures::future::join_all(stopping).await.into_iter().sum()
    }
}
