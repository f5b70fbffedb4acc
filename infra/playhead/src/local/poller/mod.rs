//! Polls a Kafka topic and invokes a function with its records, in the place of AWS Lambda's
//! event source mapping for Kafka, which no emulator has.
//!
//! **It emulates what AWS documents** (Lambda Developer Guide: "Using Lambda with Amazon MSK",
//! "Configuring error handling controls for Kafka event sources", "Capturing discarded batches",
//! read in November 2026):
//! - A batch leaves when `BatchSize` or 6 MB are reached or the batching window ends (500 ms if not
//!   set). One payload mixes partitions of the topic; within a partition order is kept.
//! - Offsets are committed to the mapping's consumer group once records succeeded or were given up.
//! - With `ReportBatchItemFailures` just the records that the answer names are sent again. An empty
//!   or null answer is success; an answer of another form, or one that names a partition or an
//!   offset that was not in the batch, fails the whole batch, and so does a function error.
//! - A failed batch is split in two if so configured, else sent again, up to the greatest number of
//!   retries (10 if unlimited and there is a destination). Until then it holds its partitions.
//! - Records that used up their retries, grew too old, or alone exceed the payload limit go to the
//!   on-failure destination: an S3 object with the whole event, or an SQS message without it.
//!
//! **Where the documentation is silent**, it follows the pages for Kinesis: splitting uses no retry,
//! neither does an invocation that Lambda could not start, and the object key has that page's form.
//!
//! **Where it differs from Lambda**: waits between retries are short (0.1 s to 10 s); a destination
//! that fails is tried until it takes the records; there is one consumer with up to eight
//! invocations at a time instead of a fleet of pollers; one plaintext listener, no filters, no
//! schema registry, no `AT_TIMESTAMP`, no Kafka or SNS destinations; the mapping's settings are read
//! once, and its `Enabled` is not looked at.
//!
//! The core (`core`, `settle`, `ledger`, `record`) is pure and decides; `shell`,
//! `failure` and `settings` speak to the broker and to AWS.
//!
//! **Invariant:** a record is committed only after it succeeded or was delivered to the
//! destination (test `no_record_is_lost_or_skipped`).

mod core;
mod failure;
mod ledger;
mod record;
mod settings;
mod settle;
mod shell;

use anyhow::Context as _;
use aws_config::SdkConfig;
use aws_config::retry::RetryConfig;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::info;

use self::core::Core;
use self::failure::FailureSink;
use self::record::Source;
use self::settings::Settings;
use self::shell::{GroupContext, Shell, subscribe};

/// Which mapping to run, and where.
#[derive(Debug, Clone)]
pub struct PollerConfig {
    /// Endpoint, region and credentials of the cloud that has the stack.
    pub sdk: SdkConfig,
    /// Brokers, as `host:port,host:port`, without encryption.
    pub bootstrap: String,
    /// Name of the deployed stack.
    pub stack: String,
    /// Logical id of the `AWS::Lambda::EventSourceMapping` in the stack's template.
    pub logical_id: String,
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
}

/// A member that died without a word is missed after six seconds; then the group waits for three more.
const JOINED_WITHIN: Duration = Duration::from_secs(30);

/// A running poller. Dropping it stops it without waiting.
#[derive(Debug)]
pub struct Poller {
    stop: watch::Sender<bool>,
    stats: watch::Receiver<PollerStats>,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Poller {
    /// Reads the mapping's settings, begins to poll, and waits until its consumer group gave it the topic's partitions. (The
    /// embedded broker never again answers for a group whose first member left before that.)
    ///
    /// # Errors
    /// If the settings cannot be read or ask for what is not emulated, or the group cannot be joined.
    pub async fn start(config: PollerConfig) -> anyhow::Result<Self> {
        let settings = Settings::load(&config.sdk, &config.stack, &config.logical_id).await?;
        info!(?settings, bootstrap = config.bootstrap, "polling");
        let context = GroupContext::default();
        let (topic, group) = (settings.topic.clone(), settings.group_id.clone());
        let poller = Self::run(&config.sdk, &config.bootstrap, settings, context.clone())?;
        let joined = tokio::time::timeout(JOINED_WITHIN, context.joined()).await;
        joined.with_context(|| {
            format!("the group {group} at {} gave out no partitions of {topic} in {JOINED_WITHIN:?}", config.bootstrap)
        })?;
        Ok(poller)
    }

    fn run(sdk: &SdkConfig, bootstrap: &str, settings: Settings, context: GroupContext) -> anyhow::Result<Self> {
        let source = Source {
            event_source_arn: settings.event_source_arn.clone(),
            bootstrap_servers: bootstrap.to_owned(),
            topic: settings.topic.clone(),
        };
        let consumer = subscribe(bootstrap, &settings, context.clone())?;
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
            consumer,
            context,
            source,
            function_arn: settings.mapping.function_arn,
            lambda: aws_sdk_lambda::Client::from_conf(lambda),
            sink,
            stats,
        };
        Ok(Self { stop, stats: stats_receiver, task: tokio::spawn(shell.run(stop_receiver)) })
    }

    /// What was done up to now.
    #[must_use]
    pub fn stats(&self) -> PollerStats {
        *self.stats.borrow()
    }

    /// Stops: takes no new records, waits up to ten seconds for what is under way, commits, and
    /// leaves the consumer group. Records that are not committed are delivered again to the next
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
