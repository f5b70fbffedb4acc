//! Polls Kafka topics and Kinesis streams and invokes functions with their records, in the place of
//! AWS Lambda's event source mappings: no emulator has those for Kafka, and this one's for Kinesis
//! takes a batch for done whatever its answer names, and neither splits it nor gives it up.
//!
//! **It emulates what AWS documents** (Lambda Developer Guide: "Using Lambda with Amazon MSK",
//! "Configuring error handling controls for Kafka event sources", "Using Lambda with Kinesis",
//! "Configuring partial batch response with Kinesis Data Streams and Lambda", "Capturing discarded
//! batches", "Retain discarded batch records", read in November 2026):
//! - A batch leaves when `BatchSize` or 6 MB are reached or the batching window ends (if not set,
//!   500 ms for Kafka, 0 for Kinesis). Within a partition or shard order is kept. A payload of Kafka
//!   mixes partitions of the topic; one of Kinesis is of one shard, and each shard has one at a time.
//! - Offsets are committed to the mapping's consumer group, or the shard's checkpoint is moved, once
//!   records succeeded or were given up.
//! - With `ReportBatchItemFailures`, on Kafka just the records that the answer names are sent again;
//!   on Kinesis the lowest sequence number that it names is the checkpoint, and everything from there
//!   on is sent again. An empty or null answer is success; an answer of another form, or one that
//!   names a record that was not in the batch, fails the whole batch, and so does a function error.
//! - A failed batch is split in two if so configured, which uses no retry, else sent again, up to
//!   the greatest number of retries. (If unlimited: on Kafka 10 if there is a destination, on Kinesis
//!   for ever.) Until then it holds its partitions, or its shard. A partial answer splits a batch of a
//!   shard at the checkpoint only.
//! - Records that used up their retries, grew too old, or alone exceed the payload limit go to the
//!   on-failure destination: an S3 object with the whole event, or an SQS message without it.
//!
//! **Where the documentation is silent**: splitting on Kafka uses no retry either, nor does an
//! invocation that Lambda could not start, and the object key has the form that the page for Kinesis
//! gives. On Kinesis a sequence number that was not in the batch counts like an offset that was not;
//! a partial answer uses a retry even if it moved the checkpoint.
//!
//! **Where it differs from Lambda**: waits between retries are short (0.1 s to 10 s); a destination
//! that fails is tried until it takes the records; there is one consumer a mapping with up to eight
//! invocations at a time instead of a fleet of pollers; one plaintext listener, no filters, no
//! schema registry, no `AT_TIMESTAMP`, no Kafka or SNS destinations; the mapping's settings are read
//! once, and its `Enabled` is not looked at. On Kinesis: a shard is read four to forty times a second
//! instead of once; `ParallelizationFactor`, tumbling windows and enhanced fan-out are not emulated; shards
//! are listed once, so nothing follows a split or a merge; checkpoints live in [`Checkpoints`], as
//! long as the process; a batch that is retried for ever does not end when its records expire.
//!
//! **Where the emulated Kinesis differs from AWS's** (ministack 1.5.33): an on-demand stream has four
//! shards for good; sequence numbers have 30 digits instead of 56; a shard that is split or merged is
//! gone with its records; `GetRecords` has no limit of 10 MB, 2 MB/s or five reads a second, and
//! takes an iterator once only (`emulator.py` sees to that); nothing is ever throttled.
//!
//! The core (`core`, `settle`, `ledger`, `record`) is pure and decides; `shell`, `kafka`, `kinesis`,
//! `failure` and `settings` speak to the logs and to AWS.
//!
//! **Invariant:** a record is committed only after it succeeded or was delivered to the
//! destination (tests `no_record_is_lost_or_skipped`, `no_record_of_a_shard_is_lost_or_skipped`).

mod core;
mod failure;
mod kafka;
mod kinesis;
mod ledger;
mod record;
mod settings;
mod settle;
mod shell;

use std::collections::BTreeMap;

use anyhow::Context as _;
use aws_config::SdkConfig;
use aws_config::retry::RetryConfig;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::info;

use self::core::Core;
use self::failure::FailureSink;
use self::kafka::KafkaLog;
pub use self::kinesis::Checkpoints;
use self::kinesis::KinesisLog;
use self::record::{Source, Topic};
use self::settings::{Origin, Settings, deployed_mappings};
use self::shell::{Log, Shell};

/// Logical ids of the mappings of Kafka topics and Kinesis streams that `template.yaml` may have, by what they read.
const OF_PRIMARY: [&str; 6] = [
    "ProcessLogMapping",
    "ProcessStreamMapping",
    "ForwardLogMapping",
    "ForwardStreamMapping",
    "CandidateLogMapping",
    "CandidateStreamMapping",
];
const OF_STANDBY: [&str; 6] = [
    "ProcessStandbyLogMapping",
    "ProcessStandbyStreamMapping",
    "ForwardStandbyLogMapping",
    "ForwardStandbyStreamMapping",
    "CandidateStandbyLogMapping",
    "CandidateStandbyStreamMapping",
];

/// Which mapping to run, and where.
#[derive(Debug, Clone)]
pub struct PollerConfig {
    /// Endpoint, region and credentials of the cloud that has the stack.
    pub sdk: SdkConfig,
    /// Name of the deployed stack.
    pub stack: String,
    /// Logical id of the `AWS::Lambda::EventSourceMapping` in the stack's template.
    pub logical_id: String,
    /// Brokers, as `host:port,host:port`, without encryption. Needed if the mapping reads a Kafka topic.
    pub bootstrap: Option<String>,
    /// Where to go on if the mapping reads a Kinesis stream, and where to keep how far it came.
    pub checkpoints: Checkpoints,
}

/// What a poller did since it started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PollerStats {
    /// Records that the function took, each once.
    pub records_delivered: u64,
    /// Invocations started.
    pub invocations: u64,
    /// Invocations with records that had been sent before.
    pub retries: u64,
    /// Records given up: written to the on-failure destination, or dropped if there is none.
    pub discarded: u64,
    /// Batches that failed as a whole by an error of the function, a time-out or a wrong answer.
    pub function_errors: u64,
    /// Records that were read and have not ended yet.
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
    /// Reads the mapping's settings and begins to poll. Returns once the consumer group gave out the topic's partitions, or
    /// the stream's shards are open.
    ///
    /// # Errors
    /// If the settings cannot be read or ask for what is not emulated, or the log cannot be read.
    pub async fn start(config: PollerConfig) -> anyhow::Result<Self> {
        let settings = Settings::load(&config.sdk, &config.stack, &config.logical_id).await?;
        info!(?settings, bootstrap = config.bootstrap, "polling");
        let from = settings.starting_position;
        match settings.origin.clone() {
            Origin::Kafka { event_source_arn, topic, group_id } => {
                let bootstrap_servers =
                    config.bootstrap.context("the mapping reads a topic, and there are no brokers")?;
                let log = KafkaLog::subscribe(&bootstrap_servers, &topic, &group_id, from)?;
                let joined = log.joined();
                let source = Source::Kafka(Topic { event_source_arn, bootstrap_servers, topic });
                let poller = Self::run(&config.sdk, settings, source, log);
                joined.await?;
                Ok(poller)
            }
            Origin::Kinesis(stream) => {
                let mapping = &settings.mapping.uuid;
                let log = KinesisLog::open(&config.sdk, &stream, mapping, from, config.checkpoints).await?;
                Ok(Self::run(&config.sdk, settings, Source::Kinesis(stream), log))
            }
        }
    }

    fn run(sdk: &SdkConfig, settings: Settings, source: Source, log: impl Log) -> Self {
        // Retries are the mapping's business, not the client's.
        let lambda = aws_sdk_lambda::config::Builder::from(sdk).retry_config(RetryConfig::disabled()).build();
        // Buckets have no host names of their own on one machine.
        let s3 = aws_sdk_s3::config::Builder::from(sdk).force_path_style(true).build();
        let sink = settings.destination.map(|destination| FailureSink {
            mapping: settings.mapping.clone(),
            source: source.clone(),
            destination,
            s3: aws_sdk_s3::Client::from_conf(s3),
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

    /// What was done up to now.
    #[must_use]
    pub fn stats(&self) -> PollerStats {
        *self.stats.borrow()
    }

    /// Stops: takes no new records, waits up to ten seconds for what is under way, commits, and
    /// leaves the log. Records that are not committed are delivered again to the next
    /// poller.
    ///
    /// # Errors
    /// If the poller had ended before, by an error, or the last commit failed.
    pub async fn stop(self) -> anyhow::Result<PollerStats> {
        self.stop.send_replace(true);
        self.task.await.context("the poller panicked")??;
        Ok(*self.stats.borrow())
    }
}

/// What the pollers of a stack need.
#[derive(Debug, Clone)]
pub struct PollersConfig {
    /// Endpoint, region and credentials of the cloud that has the stack.
    pub sdk: SdkConfig,
    /// Name of the deployed stack.
    pub stack: String,
    /// Brokers of the primary log, if that is Kafka.
    pub bootstrap: Option<String>,
    /// Brokers of the standby log, if that is Kafka.
    pub standby_bootstrap: Option<String>,
    /// Of the mappings that read Kinesis streams.
    pub checkpoints: Checkpoints,
}

/// The pollers of all mappings of a stack that read a Kafka topic or a Kinesis stream. Dropping them stops them without
/// waiting.
#[derive(Debug)]
pub struct Pollers {
    /// By the mapping's logical id.
    pollers: BTreeMap<&'static str, Poller>,
}

impl Pollers {
    /// Starts a poller for each such mapping, one after the other.
    ///
    /// # Errors
    /// As [`Poller::start`].
    pub async fn start(config: PollersConfig) -> anyhow::Result<Self> {
        let deployed = deployed_mappings(&config.sdk, &config.stack).await?;
        let primary = OF_PRIMARY.map(|logical_id| (logical_id, &config.bootstrap));
        let standby = OF_STANDBY.map(|logical_id| (logical_id, &config.standby_bootstrap));
        let mut pollers = BTreeMap::new();
        for (logical_id, bootstrap) in primary.into_iter().chain(standby) {
            if deployed.contains(logical_id) {
                let poller = Poller::start(PollerConfig {
                    sdk: config.sdk.clone(),
                    stack: config.stack.clone(),
                    logical_id: logical_id.to_owned(),
                    bootstrap: bootstrap.clone(),
                    checkpoints: config.checkpoints.clone(),
                });
                let poller = poller.await.with_context(|| format!("start the poller of {logical_id}"))?;
                pollers.insert(logical_id, poller);
            }
        }
        Ok(Self { pollers })
    }

    /// What was done up to now, by all of them.
    #[must_use]
    pub fn stats(&self) -> PollerStats {
        self.pollers.values().map(Poller::stats).sum()
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
            poller.stop().await.with_context(|| format!("stop the poller of {logical_id}"))
        });
        futures::future::join_all(stopping).await.into_iter().sum()
    }
}
