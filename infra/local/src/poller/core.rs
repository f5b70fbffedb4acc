//! The mapping as a state machine: which batch is sent when, and what may be committed.
//!
//! Pure: records, resolutions and the time come in, steps come out. It reads no clock and knows no
//! Kafka client and no SDK. It must never forget a record before it is done or delivered to the
//! destination.
//!
//! A *work* is a batch to send or to discard. The list of works is ordered: for each partition,
//! earlier offsets come first. A work may run when no earlier work shares a partition with it. New
//! batches are taken only from partitions without works. So each partition is processed in order,
//! and a batch that fails forever blocks only its own partitions.
//!
//! A batch of a Kafka topic mixes its free partitions. Each shard of a Kinesis stream has its own
//! batches and its own batching window. Here a shard is a partition, and a record's offset is its
//! number in the shard.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::PollerStats;
use super::ledger::Ledger;
use super::record::{Record, Source};
use super::settle::{Batch, Condition, Discard, Policy, Resolution, Response, backoff_ms, settle};

/// How batches are assembled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Batching {
    /// Maximum number of records in a batch.
    pub(super) size: usize,
    /// How long to collect records, in milliseconds.
    pub(super) window_ms: i64,
    /// Maximum size of a payload, in bytes.
    pub(super) payload_limit: usize,
    /// Maximum number of invocations and deliveries at a time.
    pub(super) concurrency: usize,
}

/// What to do next.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// Invoke the function, then call [`Core::invoked`].
    Invoke { id: u64, batch: Batch },
    /// Send to the on-failure destination, then call [`Core::delivered`].
    Deliver { id: u64, discard: Discard },
    /// Nothing to do before this time (Unix milliseconds) or the next event.
    Wait(Option<i64>),
}

#[derive(Debug)]
struct Work {
    id: u64,
    batch: Batch,
    /// Set if the batch must be discarded, not sent.
    fate: Option<(Condition, Option<Response>)>,
    running: bool,
}

impl Work {
    fn partitions(&self) -> impl Iterator<Item = i32> {
        self.batch.records.iter().map(|record| record.partition)
    }
}

/// Records waiting for their batch.
#[derive(Debug, Default)]
struct Queue {
    /// With the arrival time and a serial number, which serves partitions fairly.
    records: VecDeque<(i64, u64, Record)>,
    bytes: usize,
}

/// The state of one event source mapping.
#[derive(Debug)]
pub(super) struct Core {
    policy: Policy,
    batching: Batching,
    source: Source,
    queues: BTreeMap<i32, Queue>,
    works: Vec<Work>,
    ledger: Ledger,
    stats: PollerStats,
    /// The last work id or serial number of a record.
    serial: u64,
}

impl Core {
    pub(super) fn new(policy: Policy, batching: Batching, source: Source) -> Self {
        Self {
            policy,
            batching,
            source,
            queues: BTreeMap::new(),
            works: Vec::new(),
            ledger: Ledger::default(),
            stats: PollerStats::default(),
            serial: 0,
        }
    }

    /// Queues a record. Records of a partition must come in the order of the log.
    pub(super) fn receive(&mut self, record: Record, now: i64) {
        self.stats.waiting += 1;
        self.ledger.receive(record.partition, record.offset);
        let serial = self.next_serial();
        let queue = self.queues.entry(record.partition).or_default();
        queue.bytes += record.size();
        queue.records.push_back((now, serial, record));
    }

    /// Forgets everything uncommitted: the group revoked the partitions and will deliver the
    /// records again. Results of earlier steps no longer have an effect.
    pub(super) fn reset(&mut self) {
        self.queues.clear();
        self.works.clear();
        self.ledger = Ledger::default();
        self.stats.waiting = 0;
    }

    /// Partitions that hold enough records for now. They should be paused.
    pub(super) fn full_partitions(&self) -> BTreeSet<i32> {
        self.queues
            .iter()
            .filter(|(_, queue)| {
                queue.records.len() >= 2 * self.batching.size || queue.bytes >= 2 * self.batching.payload_limit
            })
            .map(|(partition, _)| *partition)
            .collect()
    }

    /// The next step. Call it after every event, and until it returns [`Step::Wait`].
    pub(super) fn next(&mut self, now: i64) -> Step {
        if self.works.iter().filter(|work| work.running).count() >= self.batching.concurrency {
            return Step::Wait(None);
        }
        let mut held = BTreeSet::new();
        let mut wake: Option<i64> = None;
        for index in 0..self.works.len() {
            let work = &self.works[index];
            if !work.running && !work.partitions().any(|partition| held.contains(&partition)) {
                if work.batch.not_before <= now {
                    return self.start(index, now);
                }
                wake = earliest(wake, work.batch.not_before);
            }
            held.extend(work.partitions());
        }
        match self.next_window(&held) {
            Some((end, partitions)) if end <= now => {
                self.assemble(&partitions);
                self.start(self.works.len() - 1, now)
            }
            Some((end, _)) => Step::Wait(earliest(wake, end)),
            None => Step::Wait(wake),
        }
    }

    /// An invocation ended.
    pub(super) fn invoked(&mut self, id: u64, resolution: Resolution, now: i64) {
        let Some(index) = self.works.iter().position(|work| work.id == id) else {
            return;
        };
        let work = self.works.remove(index);
        let decision = settle(&self.policy, &self.source, work.batch, resolution, now);
        self.stats.function_errors += u64::from(decision.failed);
        self.stats.records_delivered += decision.done.len() as u64;
        self.stats.waiting -= decision.done.len() as u64;
        for record in &decision.done {
            self.ledger.settle(record.partition, record.offset);
        }
        // At the index of the old work, to keep the order of each partition.
        let again = decision.again.into_iter().map(|batch| (batch, None));
        let discard = decision.discard.map(|discard| (discard.batch, Some((discard.condition, discard.response))));
        for (offset, (batch, fate)) in again.chain(discard).enumerate() {
            self.insert_work(index + offset, batch, fate);
        }
    }

    /// A delivery to the destination ended. If it failed, it is retried. Lambda would lose the
    /// records, but a local outage must not lose any.
    pub(super) fn delivered(&mut self, id: u64, succeeded: bool, now: i64) {
        let Some(index) = self.works.iter().position(|work| work.id == id) else {
            return;
        };
        if succeeded {
            let work = self.works.remove(index);
            self.stats.discarded += work.batch.records.len() as u64;
            self.stats.waiting -= work.batch.records.len() as u64;
            for record in &work.batch.records {
                self.ledger.settle(record.partition, record.offset);
            }
        } else {
            let work = &mut self.works[index];
            work.running = false;
            work.batch.not_before = now + backoff_ms(8);
        }
    }

    /// The positions to commit that changed since the last call, as (partition, offset).
    pub(super) fn take_commits(&mut self) -> Vec<(i32, i64)> {
        self.ledger.take_commits()
    }

    /// All positions, for the last commit before a stop.
    pub(super) fn positions(&self) -> Vec<(i32, i64)> {
        self.ledger.positions()
    }

    pub(super) fn stats(&self) -> PollerStats {
        self.stats
    }

    fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    fn insert_work(&mut self, index: usize, batch: Batch, fate: Option<(Condition, Option<Response>)>) {
        let id = self.next_serial();
        self.works.insert(index, Work { id, batch, fate, running: false });
    }

    /// Starts the work at `index`. If some of its records are too old, discards those first.
    fn start(&mut self, index: usize, now: i64) -> Step {
        if self.works[index].fate.is_none() {
            self.split_off_expired(index, now);
        }
        let work = &mut self.works[index];
        work.running = true;
        let (id, batch) = (work.id, work.batch.clone());
        if let Some((condition, response)) = work.fate.clone() {
            return Step::Deliver { id, discard: Discard { batch, condition, response } };
        }
        self.stats.invocations += 1;
        self.stats.retries += u64::from(batch.invocations > 0);
        Step::Invoke { id, batch }
    }

    /// Moves the expired records of the work at `index` into a separate work before it.
    fn split_off_expired(&mut self, index: usize, now: i64) {
        let Some(max_age) = self.policy.max_age_ms else {
            return;
        };
        let batch = &mut self.works[index].batch;
        let (expired, fresh): (Vec<_>, Vec<_>) =
            batch.records.drain(..).partition(|record| now - record.timestamp > max_age);
        if expired.is_empty() {
            batch.records = fresh;
            return;
        }
        let expired = Batch { records: expired, ..batch.clone() };
        if fresh.is_empty() {
            self.works.remove(index);
        } else {
            batch.records = fresh;
        }
        self.insert_work(index, expired, Some((Condition::RecordAgeExceeded, None)));
    }

    /// When the next batch is due, and the partitions to take it from. Partitions in `held` do not
    /// count. `None` if there are no records to take.
    fn next_window(&self, held: &BTreeSet<i32>) -> Option<(i64, BTreeSet<i32>)> {
        let free =
            self.queues.iter().filter(|(partition, queue)| !held.contains(partition) && !queue.records.is_empty());
        let free = free.map(|(partition, _)| *partition);
        let groups: Vec<BTreeSet<i32>> = if self.source.mixes_partitions() {
            vec![free.collect()]
        } else {
            free.map(|partition| BTreeSet::from([partition])).collect()
        };
        let windows = groups.into_iter().filter_map(|group| Some((self.window_end(&group)?, group)));
        windows.min_by_key(|(end, _)| *end)
    }

    /// When the window of a batch of these partitions ends. A full batch is due at once.
    fn window_end(&self, partitions: &BTreeSet<i32>) -> Option<i64> {
        let (mut records, mut bytes, mut first) = (0, self.source.envelope_size(), None);
        for partition in partitions {
            let Some((queue, (arrived, _, _))) = self.queues.get(partition).and_then(|q| Some((q, q.records.front()?)))
            else {
                continue;
            };
            records += queue.records.len();
            bytes += queue.bytes + self.source.partition_size(*partition);
            first = earliest(first, *arrived);
        }
        let full = records >= self.batching.size || bytes >= self.batching.payload_limit;
        first.map(|arrived| arrived + if full { 0 } else { self.batching.window_ms })
    }

    /// Takes records from these partitions in the order of arrival, up to the limits.
    fn assemble(&mut self, from: &BTreeSet<i32>) {
        let mut taken: Vec<Record> = Vec::new();
        let mut partitions = BTreeSet::new();
        let mut bytes = self.source.envelope_size();
        let mut fate = None;
        while taken.len() < self.batching.size {
            let Some((partition, queue)) = self
                .queues
                .iter_mut()
                .filter(|(partition, queue)| from.contains(partition) && !queue.records.is_empty())
                .min_by_key(|(_, queue)| queue.records.front().map(|(_, serial, _)| *serial))
            else {
                break;
            };
            let Some((_, _, record)) = queue.records.front() else {
                break;
            };
            let mut cost = record.size();
            if !partitions.contains(partition) {
                cost += self.source.partition_size(*partition);
            }
            let fits = bytes + cost <= self.batching.payload_limit;
            if !fits && !taken.is_empty() {
                break;
            }
            bytes += cost;
            partitions.insert(*partition);
            queue.bytes -= record.size();
            taken.extend(queue.records.pop_front().map(|(_, _, record)| record));
            if !fits {
                fate = Some((Condition::MaximumPayloadSizeExceeded, None));
                break;
            }
        }
        taken.sort_by_key(|record| (record.partition, record.offset));
        let batch = Batch { records: taken, retries: 0, invocations: 0, not_before: 0 };
        self.insert_work(self.works.len(), batch, fate);
    }
}

fn earliest(a: Option<i64>, b: i64) -> Option<i64> {
    Some(a.map_or(b, |a| a.min(b)))
}

#[cfg(test)]
mod tests;
