//! The loop around the core: reads the topic, invokes the function, delivers discards, commits.
//!
//! Everything that touches the outside is here; it decides nothing. It must never use end offsets
//! or watermarks (the embedded broker's are wrong) and never commit what the core did not hand out.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use aws_sdk_lambda::operation::RequestId as _;
use aws_sdk_lambda::primitives::Blob;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance, StreamConsumer};
use rdkafka::error::KafkaResult;
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _, Timestamp};
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{info, warn};

use super::PollerStats;
use super::core::{Core, Step};
use super::failure::FailureSink;
use super::record::{Incoming, Record, Source, TimestampType};
use super::settings::{Settings, StartingPosition};
use super::settle::{Batch, Discard, Outcome, Response};

/// How long a stop waits for what is under way, before it abandons it.
const STOP_GRACE: Duration = Duration::from_secs(10);
/// Lambda's longest function time-out; an invocation without an answer by then has timed out.
const INVOKE_TIMEOUT: Duration = Duration::from_secs(900);

/// What the group tells: counts revocations, so that the loop notices them before the next record.
#[derive(Debug, Default, Clone)]
pub(super) struct GroupContext {
    revocations: Arc<AtomicU64>,
    joined: Arc<watch::Sender<bool>>,
}

impl GroupContext {
    /// Waits until the group gave out its partitions for the first time.
    pub(super) async fn joined(&self) {
        // It holds the sender itself, so the channel is open.
        let _ = self.joined.subscribe().wait_for(|joined| *joined).await;
    }
}

impl ClientContext for GroupContext {}

impl ConsumerContext for GroupContext {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(partitions) => {
                info!(partitions = partitions.count(), "assigned");
                self.joined.send_replace(true);
            }
            Rebalance::Revoke(_) => {
                self.revocations.fetch_add(1, Ordering::SeqCst);
            }
            Rebalance::Error(error) => warn!(%error, "rebalance failed"),
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        if let Err(error) = result {
            warn!(%error, "a commit failed; its records may be delivered again");
        }
    }
}

/// A consumer of the mapping's group and topic.
///
/// # Errors
/// If librdkafka refuses the configuration.
pub(super) fn subscribe(
    bootstrap: &str,
    settings: &Settings,
    context: GroupContext,
) -> anyhow::Result<StreamConsumer<GroupContext>> {
    let reset = match settings.starting_position {
        StartingPosition::TrimHorizon => "earliest",
        StartingPosition::Latest => "latest",
    };
    let consumer: StreamConsumer<GroupContext> = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", &settings.group_id)
        .set("client.id", "playhead-poller")
        .set("auto.offset.reset", reset)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // The shortest that Apache Kafka takes: a poller that died must give its partitions back soon,
        // and the embedded broker lets the first member of a group wait for half of it.
        .set("session.timeout.ms", "6000")
        .set("heartbeat.interval.ms", "1500")
        // A topic that is created later must be found soon.
        .set("topic.metadata.refresh.interval.ms", "2000")
        .create_with_context(context)
        .with_context(|| format!("make a Kafka consumer for {bootstrap}"))?;
    consumer.subscribe(&[&settings.topic]).with_context(|| format!("subscribe to {}", settings.topic))?;
    Ok(consumer)
}

/// What a task of the loop came to.
enum Ended {
    Invoked { id: u64, outcome: Outcome },
    Delivered { id: u64, succeeded: bool },
}

/// The running poller.
pub(super) struct Shell {
    pub(super) core: Core,
    pub(super) consumer: StreamConsumer<GroupContext>,
    pub(super) context: GroupContext,
    pub(super) source: Source,
    pub(super) function_arn: String,
    pub(super) lambda: aws_sdk_lambda::Client,
    /// Absent: discards are dropped, as Lambda does.
    pub(super) sink: Option<FailureSink>,
    pub(super) stats: watch::Sender<PollerStats>,
}

impl Shell {
    /// Runs until `stop` changes or its sender is gone, then commits and leaves the group.
    ///
    /// # Errors
    /// If a task panicked or the last commit failed.
    pub(super) async fn run(mut self, mut stop: watch::Receiver<bool>) -> anyhow::Result<()> {
        let mut tasks = JoinSet::new();
        let mut paused = BTreeSet::new();
        let mut revocations = 0;
        let mut failing = false;
        loop {
            let wake = self.start_work(&mut tasks);
            self.commit();
            self.pause(&mut paused);
            self.stats.send_replace(self.core.stats());
            let received = tokio::select! {
                _ = stop.changed() => break,
                Some(ended) = tasks.join_next() => {
                    self.end(ended.context("a task of the poller panicked")?);
                    continue;
                }
                () = wait_until(wake) => continue,
                received = self.consumer.recv() => received,
            };
            // The callback of a revocation runs inside `recv`, before any record that is read anew.
            let seen = self.context.revocations.load(Ordering::SeqCst);
            if seen != revocations {
                revocations = seen;
                paused.clear();
                self.core.reset();
            }
            match received {
                Ok(message) => {
                    let record = encode(&message)?;
                    self.core.receive(record, now_ms());
                    failing = false;
                }
                Err(error) => {
                    // Once an outage: librdkafka says it again many times a second.
                    if !failing {
                        warn!(%error, "reading the topic failed; trying on");
                    }
                    failing = true;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        self.finish(tasks).await
    }

    /// Starts everything that is due; says when to look again.
    fn start_work(&mut self, tasks: &mut JoinSet<Ended>) -> Option<i64> {
        loop {
            match self.core.next(now_ms()) {
                Step::Wait(until) => return until,
                Step::Invoke { id, batch } => {
                    let request = self
                        .lambda
                        .invoke()
                        .function_name(&self.function_arn)
                        .payload(Blob::new(self.source.payload(&batch.records)));
                    tasks.spawn(async move {
                        let outcome = invoke(request, &batch).await;
                        Ended::Invoked { id, outcome }
                    });
                }
                Step::Deliver { id, discard } => {
                    let sink = self.sink.clone();
                    tasks.spawn(async move {
                        let succeeded = deliver(sink, &discard).await;
                        Ended::Delivered { id, succeeded }
                    });
                }
            }
        }
    }

    fn end(&mut self, ended: Ended) {
        match ended {
            Ended::Invoked { id, outcome } => self.core.invoked(id, outcome, now_ms()),
            Ended::Delivered { id, succeeded } => self.core.delivered(id, succeeded, now_ms()),
        }
    }

    fn commit(&mut self) {
        let positions = self.core.take_commits();
        if positions.is_empty() {
            return;
        }
        let committed = self.offsets(&positions).and_then(|list| self.consumer.commit(&list, CommitMode::Async));
        if let Err(error) = committed {
            warn!(%error, "a commit failed; its records may be delivered again");
        }
    }

    fn offsets(&self, positions: &[(i32, i64)]) -> KafkaResult<TopicPartitionList> {
        let mut list = TopicPartitionList::with_capacity(positions.len());
        for (partition, offset) in positions {
            list.add_partition_offset(&self.source.topic, *partition, Offset::Offset(*offset))?;
        }
        Ok(list)
    }

    /// Stops reading partitions that hold enough, and reads on where there is room again.
    fn pause(&self, paused: &mut BTreeSet<i32>) {
        let full = self.core.full_partitions();
        if full == *paused {
            return;
        }
        let list = |partitions: Vec<i32>| {
            let mut list = TopicPartitionList::new();
            for partition in partitions {
                list.add_partition(&self.source.topic, partition);
            }
            list
        };
        let pause = list(full.difference(paused).copied().collect());
        let resume = list(paused.difference(&full).copied().collect());
        let done = self.consumer.pause(&pause).and_then(|()| self.consumer.resume(&resume));
        match done {
            Ok(()) => *paused = full,
            Err(error) => warn!(%error, "pausing partitions failed; trying again"),
        }
    }

    /// Takes in what ends within the grace period, commits, and leaves the group. What is then
    /// still under way is not committed and will be delivered again.
    async fn finish(mut self, mut tasks: JoinSet<Ended>) -> anyhow::Result<()> {
        let deadline = tokio::time::Instant::now() + STOP_GRACE;
        while let Ok(Some(ended)) = tokio::time::timeout_at(deadline, tasks.join_next()).await {
            self.end(ended.context("a task of the poller panicked")?);
        }
        self.stats.send_replace(self.core.stats());
        tokio::task::spawn_blocking(move || {
            let positions = self.core.positions();
            let revoked = self.context.revocations.load(Ordering::SeqCst);
            if !positions.is_empty() {
                self.offsets(&positions)
                    .and_then(|list| self.consumer.commit(&list, CommitMode::Sync))
                    .with_context(|| format!("commit before the stop ({revoked} revocations)"))?;
            }
            // Dropping the consumer leaves the group, which blocks for a moment.
            drop(self.consumer);
            Ok(())
        })
        .await
        .context("leaving the consumer group panicked")?
    }
}

async fn wait_until(wake: Option<i64>) {
    match wake {
        Some(at) => {
            let wait = u64::try_from(at - now_ms()).unwrap_or(0);
            tokio::time::sleep(Duration::from_millis(wait)).await;
        }
        None => std::future::pending().await,
    }
}

fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|elapsed| i64::try_from(elapsed.as_millis()).ok())
        .unwrap_or_default()
}

fn encode(message: &BorrowedMessage<'_>) -> anyhow::Result<Record> {
    let (timestamp, timestamp_type) = match message.timestamp() {
        Timestamp::CreateTime(at) => (at, TimestampType::CreateTime),
        Timestamp::LogAppendTime(at) => (at, TimestampType::LogAppendTime),
        Timestamp::NotAvailable => (now_ms(), TimestampType::CreateTime),
    };
    let headers = message
        .headers()
        .into_iter()
        .flat_map(|headers| headers.iter())
        .map(|header| (header.key, header.value.unwrap_or_default()))
        .collect();
    Record::encode(&Incoming {
        topic: message.topic(),
        partition: message.partition(),
        offset: message.offset(),
        timestamp,
        timestamp_type,
        key: message.key(),
        value: message.payload(),
        headers,
    })
    .with_context(|| format!("encode offset {} of partition {}", message.offset(), message.partition()))
}

async fn invoke(request: aws_sdk_lambda::operation::invoke::builders::InvokeFluentBuilder, batch: &Batch) -> Outcome {
    let outcome = match tokio::time::timeout(INVOKE_TIMEOUT, request.send()).await {
        Err(_) => Outcome::FunctionError {
            response: Response { function_error: Some("Unhandled".into()), ..Response::default() },
        },
        Ok(Err(error)) => Outcome::NotInvoked { cause: format!("{:#}", anyhow::Error::from(error)) },
        Ok(Ok(output)) => {
            let response = Response {
                request_id: output.request_id().unwrap_or_default().to_owned(),
                status: output.status_code,
                executed_version: output.executed_version.unwrap_or_else(|| "$LATEST".into()),
                function_error: output.function_error,
            };
            let payload = output.payload.map(Blob::into_inner).unwrap_or_default();
            if response.function_error.is_some() {
                warn!(records = batch.records.len(), answer = %String::from_utf8_lossy(&payload), "the function failed");
                Outcome::FunctionError { response }
            } else {
                Outcome::Answered { payload, response }
            }
        }
    };
    if let Outcome::NotInvoked { cause } = &outcome {
        warn!(records = batch.records.len(), %cause, "the function could not be invoked");
    }
    outcome
}

async fn deliver(sink: Option<FailureSink>, discard: &Discard) -> bool {
    let (records, condition) = (discard.batch.records.len(), discard.condition.as_str());
    let Some(sink) = sink else {
        warn!(records, condition, "records are dropped: there is no on-failure destination");
        return true;
    };
    match sink.deliver(discard, now_ms()).await {
        Ok(()) => {
            warn!(records, condition, "records went to the on-failure destination");
            true
        }
        Err(error) => {
            warn!(records, condition, error = format!("{error:#}"), "the on-failure destination failed; trying again");
            false
        }
    }
}
