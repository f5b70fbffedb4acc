//! How Lambda reads the log: which records make a batch, and when its writes are done.
//!
//! From the AWS Lambda Developer Guide, "Event source mappings" (batching behavior), "Using Lambda
//! with Amazon MSK" and "Using Lambda with Kinesis":
//! - A batch leaves when the batching window ends, at `BatchSize` records, or at 6 MB.
//! - On Kafka the window begins with the first record; on Kinesis when the last invocation ended.
//! - While an invocation runs, its partition or its part of a shard waits, and what waits is in the
//!   next batch.
//! - A shard is read once a second. With a `ParallelizationFactor` it is divided by partition key.
//!
//! What has batches of its own is a *lane* here: a partition, several that share a poller's
//! batches, or a part of a shard. There are no failures, and the poller's own time is left out.

use super::habit::Upload;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use std::collections::VecDeque;

/// Payload limit of an invocation, bytes.
const PAYLOAD_LIMIT: usize = 6 * 1024 * 1024;
/// What a record takes in the payload beside its events, and what each event adds, bytes of JSON.
const RECORD_BYTES: usize = 320;
const EVENT_BYTES: usize = 50;
/// The pause between two reads of a shard, ms.
const SHARD_READ_EVERY: i64 = 1_000;

/// An invocation takes 10 ms, 5 ms for each round of reads and of writes (8 parts of 100 views at a
/// time, as `store::settle` does), and the CPU that `playhead bench process` measured: 4 µs per event
/// and 20 µs per view.
fn invocation_ms(events: usize, views: usize) -> i64 {
    const CALL_MS: usize = 5;
    let rounds = 2 * views.div_ceil(8 * 100);
    (10 + CALL_MS * rounds + (4 * events + 20 * views) / 1_000) as i64
}

/// Which service holds the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LogKind {
    /// Amazon MSK.
    Kafka,
    /// Kinesis.
    Kinesis,
}

/// What decides the lane of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyedBy {
    /// The session, as `ingest` does.
    Session,
    /// The profile.
    Profile,
    /// Chance.
    Nothing,
}

/// How the log is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pickup {
    /// Which service holds the log.
    pub(super) log: LogKind,
    /// What decides the lane.
    pub(super) keyed_by: KeyedBy,
    /// Number of lanes. All of them share the members.
    pub(super) lanes: usize,
    /// `MaximumBatchingWindowInSeconds`, in ms.
    pub(super) window: i64,
    /// `BatchSize`.
    pub(super) batch_size: usize,
}

/// What batches held, and how long their events took.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) events: u64,
    pub(super) records: u64,
    pub(super) writes: u64,
    pub(super) batches: u64,
    /// How long invocations ran, ms.
    pub(super) busy: i64,
    /// From accepted to written, ms, per event.
    pub(super) added: Vec<i64>,
    /// From happened to written, ms, of pauses and stops.
    pub(super) ended: Vec<i64>,
    /// From happened to written, ms, of all other events.
    pub(super) played: Vec<i64>,
}

impl Counted {
    /// Events per write.
    pub(super) fn fold(&self) -> f64 {
        self.events as f64 / self.writes as f64
    }
}

/// Records that wait for their batch.
#[derive(Debug, Default)]
pub(super) struct LaneQueue {
    waiting: VecDeque<(i64, Upload)>,
    bytes: usize,
    /// When the waiting records became a full batch.
    full_at: Option<i64>,
    /// When the last invocation ends.
    pub(super) free_at: i64,
    /// Sessions of the batch.
    sessions: Vec<u64>,
}

impl LaneQueue {
    /// When the next batch leaves.
    fn due(&self, pickup: &Pickup) -> Option<i64> {
        let (first, _) = self.waiting.front()?;
        let window_ends = match pickup.log {
            LogKind::Kafka => first + pickup.window,
            LogKind::Kinesis => (self.free_at + pickup.window).max(*first),
        };
        Some(self.full_at.map_or(window_ends, |full_at| full_at.min(window_ends)).max(self.free_at))
    }

    /// The mapping sees a record.
    fn push(&mut self, pickup: &Pickup, seen: i64, sent: Upload) {
        self.bytes += size(&sent);
        self.waiting.push_back((seen, sent));
        self.note_full(pickup, seen);
    }

    fn note_full(&mut self, pickup: &Pickup, now: i64) {
        if self.waiting.len() >= pickup.batch_size || self.bytes >= PAYLOAD_LIMIT {
            self.full_at.get_or_insert(now);
        } else {
            self.full_at = None;
        }
    }

    /// Sends and counts the batch that leaves before `now`, if there is one. Returns when it left.
    pub(super) fn step(&mut self, pickup: &Pickup, now: i64, counted: &mut Counted) -> Option<i64> {
        let start = self.due(pickup).filter(|start| *start < now)?;
        let (mut count, mut bytes, mut events) = (0, 0, 0);
        self.sessions.clear();
        for (_, sent) in self.waiting.iter().take(pickup.batch_size) {
            if count > 0 && bytes + size(sent) > PAYLOAD_LIMIT {
                break;
            }
            bytes += size(sent);
            count += 1;
            events += sent.events.len();
            self.sessions.push(sent.session);
        }
        self.sessions.sort_unstable();
        self.sessions.dedup();
        let views = self.sessions.len();
        self.free_at = start + invocation_ms(events, views);
        for (_, sent) in self.waiting.drain(..count) {
            for moment in &sent.events {
                counted.added.push(self.free_at - sent.at);
                let shown = if moment.ends_playing { &mut counted.ended } else { &mut counted.played };
                shown.push(self.free_at - moment.at);
            }
        }
        counted.events += events as u64;
        counted.records += count as u64;
        counted.writes += views as u64;
        counted.batches += 1;
        counted.busy += self.free_at - start;
        self.bytes -= bytes;
        self.full_at = None;
        self.note_full(pickup, start);
        Some(start)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

fn size(sent: &Upload) -> usize {
    RECORD_BYTES + EVENT_BYTES * sent.events.len()
}

/// Reads records in order of time, and counts the batches that leave in `span`, ms.
pub(super) fn read(
    records: impl Iterator<Item = Upload>,
    pickup: &Pickup,
    span: std::ops::Range<i64>,
    rng: &mut ChaCha8Rng,
) -> Counted {
    let mut lanes: Vec<LaneQueue> = (0..pickup.lanes).map(|_| LaneQueue::default()).collect();
    let (mut before, mut counted) = (Counted::default(), Counted::default());
    let mut run_until = |lane: &mut LaneQueue, now: i64| {
        while lane.step(pickup, now.min(span.start), &mut before).is_some() {}
        while lane.step(pickup, now.min(span.end), &mut counted).is_some() {}
    };
    for sent in records.take_while(|sent| sent.at < span.end) {
        let lane = &mut lanes[lane_of(&sent, pickup, rng)];
        let seen = seen(&sent, pickup);
        run_until(lane, seen);
        lane.push(pickup, seen, sent);
    }
    lanes.iter_mut().for_each(|lane| run_until(lane, span.end));
    counted
}

/// The log is not read from 0 to `outage`, ms. Counts the batches from then until a lane has no
/// records that wait, and says how long that took, ms.
pub(super) fn catch_up(records: impl Iterator<Item = Upload>, pickup: &Pickup, outage: i64) -> (Counted, i64) {
    let mut lane = LaneQueue { free_at: outage, ..LaneQueue::default() };
    let mut counted = Counted::default();
    for sent in records {
        let seen = seen(&sent, pickup);
        while lane.step(pickup, seen, &mut counted).is_some() {
            if lane.is_empty() {
                return (counted, lane.free_at - outage);
            }
        }
        lane.push(pickup, seen, sent);
    }
    (counted, i64::MAX)
}

/// When the mapping has the record.
fn seen(sent: &Upload, pickup: &Pickup) -> i64 {
    match pickup.log {
        LogKind::Kafka => sent.at,
        LogKind::Kinesis => (sent.at / SHARD_READ_EVERY + 1) * SHARD_READ_EVERY,
    }
}

fn lane_of(sent: &Upload, pickup: &Pickup, rng: &mut ChaCha8Rng) -> usize {
    let lanes = pickup.lanes as u64;
    // Spreads consecutive numbers.
    let hash = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let lane = match pickup.keyed_by {
        KeyedBy::Session => hash(sent.session) % lanes,
        KeyedBy::Profile => hash(sent.member as u64) % lanes,
        KeyedBy::Nothing => rng.random_range(0..lanes),
    };
    lane as usize
}
