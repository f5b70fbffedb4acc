//! A mapping's side of a Kafka topic: a consumer in the mapping's group.
//!
//! It must never use end offsets or watermarks (the embedded broker's are wrong), and it commits
//! only what the core hands out. Records must come without a gap: while several producers write, the
//! embedded broker may show a record before an earlier one of the same partition (docs/local.md).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance, StreamConsumer};
use rdkafka::error::KafkaResult;
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _, Timestamp};
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use super::record::{KafkaRecord, Record, TimestampType};
use super::settings::StartingPosition;
use super::shell::{Log, Read, now_ms};

/// The group notices a dead member after six seconds, then waits three more.
const JOINED_WITHIN: Duration = Duration::from_secs(30);
/// Pause after an error: librdkafka repeats it many times a second.
const AFTER_ERROR: Duration = Duration::from_millis(100);

/// Pause between two readings of what was skipped.
const READ_AGAIN_EVERY: Duration = Duration::from_millis(50);
/// What is still not there then was deleted, or was never a record.
const READINGS: u32 = 100;

/// Callbacks of the group. Counts revocations, so the loop notices them before the next record.
#[derive(Debug, Default, Clone)]
struct GroupContext {
    revocations: Arc<AtomicU64>,
    joined: Arc<watch::Sender<bool>>,
}

impl GroupContext {
    /// Waits until the group has assigned partitions for the first time.
    async fn joined(&self) {
        // It owns the sender, so the channel is open.
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
            Rebalance::Error(error) => {
                warn!(%error, "rebalance failed");
                // The client now gives up all partitions. When it gets them back, it reads from the
                // committed offsets.
                self.revocations.fetch_add(1, Ordering::SeqCst);
            }
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        if let Err(error) = result {
            warn!(%error, "a commit failed; its records may be redelivered");
        }
    }
}

/// A consumer of the topic in the group.
fn subscribe(
    bootstrap: &str,
    topic: &str,
    group_id: &str,
    from: StartingPosition,
    context: GroupContext,
) -> anyhow::Result<StreamConsumer<GroupContext>> {
    let reset = match from {
        StartingPosition::TrimHorizon => "earliest",
        StartingPosition::Latest => "latest",
    };
    let consumer: StreamConsumer<GroupContext> = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", group_id)
        .set("client.id", "playhead-poller")
        .set("auto.offset.reset", reset)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // The shortest that Apache Kafka allows. A dead poller must release its partitions soon,
        // and the embedded broker makes the first member of a group wait half of this time.
        .set("session.timeout.ms", "6000")
        .set("heartbeat.interval.ms", "1500")
        // Find a topic that is created later.
        .set("topic.metadata.refresh.interval.ms", "2000")
        // A hung broker keeps its connections open: requests must not wait a minute for it. A
        // broker that comes back after minutes must be used at once.
        .set("socket.timeout.ms", "6000")
        .set("reconnect.backoff.max.ms", "1000")
        .create_with_context(context)
        .with_context(|| format!("creating a Kafka consumer for {bootstrap}"))?;
    consumer.subscribe(&[topic]).with_context(|| format!("subscribing to {topic}"))?;
    Ok(consumer)
}

/// How far a partition was read.
#[derive(Debug)]
struct Progress {
    /// The offset of the next record.
    next: i64,
    /// How often it was read again, and when for the last time.
    again: Option<(u32, Instant)>,
}

/// What to do with a record.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    Its,
    /// Read again from this offset: those from there on were skipped.
    Skipped(i64),
    /// It comes again, because the partition is being read again.
    Early,
}

/// How far each partition was read.
#[derive(Debug, Default)]
struct Positions(BTreeMap<i32, Progress>);

impl Positions {
    fn turn_of(&mut self, partition: i32, offset: i64, now: Instant) -> Turn {
        let progress = self.0.entry(partition).or_insert(Progress { next: offset, again: None });
        let readings = progress.again.map_or(0, |(readings, _)| readings);
        if offset > progress.next && readings < READINGS {
            if progress.again.is_some_and(|(_, at)| now < at + READ_AGAIN_EVERY) {
                return Turn::Early;
            }
            progress.again = Some((readings + 1, now));
            return Turn::Skipped(progress.next);
        }
        if offset > progress.next {
            warn!(partition, from = progress.next, to = offset, "there are no records between these offsets");
        }
        *progress = Progress { next: offset + 1, again: None };
        Turn::Its
    }
}

/// The consumer, and what the loop has seen of the group.
pub(super) struct KafkaLog {
    consumer: StreamConsumer<GroupContext>,
    context: GroupContext,
    topic: String,
    /// Revocations already reported to the loop.
    revocations: u64,
    paused: BTreeSet<i32>,
    positions: Positions,
    /// While reading fails: when to try again.
    failing: Option<Instant>,
}

impl KafkaLog {
    /// Subscribes to the topic as a member of the group. The group assigns partitions once the log
    /// is read.
    ///
    /// # Errors
    /// If librdkafka refuses the configuration.
    pub(super) fn subscribe(
        bootstrap: &str,
        topic: &str,
        group_id: &str,
        from: StartingPosition,
    ) -> anyhow::Result<Self> {
        let context = GroupContext::default();
        let consumer = subscribe(bootstrap, topic, group_id, from, context.clone())?;
        let (topic, paused, positions) = (topic.to_owned(), BTreeSet::new(), Positions::default());
        Ok(Self { consumer, context, topic, revocations: 0, paused, positions, failing: None })
    }

    /// Waits until the group has assigned partitions. The log must be read meanwhile. (The embedded
    /// broker never answers again for a group whose first member left before that.)
    ///
    /// # Errors
    /// If that takes too long.
    pub(super) fn joined(&self) -> impl Future<Output = anyhow::Result<()>> + use<> {
        let (context, topic) = (self.context.clone(), self.topic.clone());
        async move {
            let joined = tokio::time::timeout(JOINED_WITHIN, context.joined()).await;
            joined.with_context(|| format!("the group assigned no partitions of {topic} within {JOINED_WITHIN:?}"))
        }
    }

    fn offsets(&self, positions: &[(i32, i64)]) -> KafkaResult<TopicPartitionList> {
        let mut list = TopicPartitionList::with_capacity(positions.len());
        for (partition, offset) in positions {
            list.add_partition_offset(&self.topic, *partition, Offset::Offset(*offset))?;
        }
        Ok(list)
    }
}

impl Log for KafkaLog {
    async fn read(&mut self) -> anyhow::Result<Read> {
        if let Some(again) = self.failing {
            tokio::time::sleep_until(again).await;
        }
        let received = self.consumer.recv().await;
        // A revocation's callback runs inside `recv`, before any record that is read again.
        let seen = self.context.revocations.load(Ordering::SeqCst);
        let reset = seen != self.revocations;
        if reset {
            self.revocations = seen;
            self.paused.clear();
            self.positions = Positions::default();
        }
        match received {
            Ok(message) => {
                self.failing = None;
                let turn = self.positions.turn_of(message.partition(), message.offset(), Instant::now());
                let records = match turn {
                    Turn::Its => vec![encode(&message)?],
                    Turn::Early => Vec::new(),
                    Turn::Skipped(from) => {
                        // Zero: it does not wait until this is done.
                        let again =
                            self.consumer.seek(&self.topic, message.partition(), Offset::Offset(from), Duration::ZERO);
                        if let Err(error) = again {
                            warn!(%error, "reading skipped records failed; will retry");
                        }
                        Vec::new()
                    }
                };
                Ok(Read { reset, records })
            }
            Err(error) => {
                // Warn once per outage.
                if self.failing.replace(Instant::now() + AFTER_ERROR).is_none() {
                    warn!(%error, "reading the topic failed; will retry");
                }
                Ok(Read { reset, records: Vec::new() })
            }
        }
    }

    fn commit(&mut self, positions: &[(i32, i64)]) {
        let committed = self.offsets(positions).and_then(|list| self.consumer.commit(&list, CommitMode::Async));
        if let Err(error) = committed {
            warn!(%error, "a commit failed; its records may be redelivered");
        }
    }

    fn pause(&mut self, full: BTreeSet<i32>) {
        if full == self.paused {
            return;
        }
        let list = |partitions: Vec<i32>| {
            let mut list = TopicPartitionList::new();
            for partition in partitions {
                list.add_partition(&self.topic, partition);
            }
            list
        };
        let pause = list(full.difference(&self.paused).copied().collect());
        let resume = list(self.paused.difference(&full).copied().collect());
        let done = self.consumer.pause(&pause).and_then(|()| self.consumer.resume(&resume));
        match done {
            Ok(()) => self.paused = full,
            Err(error) => warn!(%error, "pausing partitions failed; will retry"),
        }
    }

    async fn leave(self, positions: Vec<(i32, i64)>) -> anyhow::Result<()> {
        tokio::task::spawn_blocking(move || {
            let revoked = self.context.revocations.load(Ordering::SeqCst);
            if !positions.is_empty() {
                self.offsets(&positions)
                    .and_then(|list| self.consumer.commit(&list, CommitMode::Sync))
                    .with_context(|| format!("committing before the stop ({revoked} revocations)"))?;
            }
            // Dropping the consumer leaves the group and blocks for a moment.
            drop(self.consumer);
            Ok(())
        })
        .await
        .context("leaving the consumer group panicked")?
    }
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
    Record::kafka(&KafkaRecord {
        topic: message.topic(),
        partition: message.partition(),
        offset: message.offset(),
        timestamp,
        timestamp_type,
        key: message.key(),
        value: message.payload(),
        headers,
    })
    .with_context(|| format!("encoding offset {} of partition {}", message.offset(), message.partition()))
}

#[cfg(all(test, target_os = "linux"))]
mod tests;
