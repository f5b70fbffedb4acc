//! The logs, and the mappings that read them.

use crate::bucket::Bucket;
use crate::clock::BEGAN;
use crate::invoke::Environment;
use crate::next::of_next_version;
use crate::weather::{Call, Faults, What};
use ::stream::{Ack, AppendError, Attempt, DurableLog, LogRecord, RecordResult};
use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt as _};
use lambda::runtime::ServeBatch;
use local::poller::{Mapping, MappingStep};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::timeout;

/// When an adapter gives up an append.
const PATIENCE_MS: u64 = 30_000;
/// Partitions, or shards.
const PARTITIONS: u64 = 3;

struct Record {
    key: String,
    value: Bytes,
    at: u64,
}

/// A log. Clones share it.
#[derive(Clone)]
pub(crate) struct Log {
    what: What,
    partitions: Arc<Mutex<Vec<Vec<Record>>>>,
    faults: Faults,
    appended: Arc<Notify>,
    /// Records that its mapping has not finished.
    pub(crate) waiting: Arc<AtomicU64>,
}

impl Log {
    pub(crate) fn new(what: What, faults: &Faults) -> Self {
        let partitions = (0..PARTITIONS).map(|_| Vec::new()).collect();
        let partitions = Arc::new(Mutex::new(partitions));
        Self { what, partitions, faults: faults.clone(), appended: Arc::default(), waiting: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Vec<Record>>> {
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, record: &LogRecord) {
        let sum = record.key.bytes().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        let at = self.faults.clock.now();
        let is_next = self.faults.runs_next(What::NextIngest);
        let value = match is_next && self.faults.dice.permille(250) {
            true => of_next_version(&record.value).into(),
            false => record.value.clone(),
        };
        let record = Record { key: record.key.clone(), value, at };
        if let Some(partition) = self.lock().get_mut(usize::try_from(sum % PARTITIONS).unwrap_or_default()) {
            partition.push(record);
        }
        self.waiting.fetch_add(1, Relaxed);
        self.appended.notify_one();
    }

    async fn append_all(&self, records: &[LogRecord]) -> Vec<RecordResult> {
        let call = self.faults.call(self.what, PATIENCE_MS).await;
        let one = |(index, record): (usize, &LogRecord)| {
            if call == Call::Answered || call == Call::Unanswered {
                self.push(record);
            }
            let result = match call {
                Call::Answered => Ok(Ack::ONCE),
                _ => Err(AppendError::Unavailable(Attempt::new("simulated", record, "Simulated", "the weather"))),
            };
            (index, result)
        };
        records.iter().enumerate().map(one).collect()
    }

    /// The mapping of the log to a function.
    pub(crate) async fn map<F: ServeBatch>(self, mut mapping: Mapping, mut function: Environment<F>, bucket: Bucket) {
        let mut read = vec![0_usize; usize::try_from(PARTITIONS).unwrap_or_default()];
        let mut finished = 0;
        loop {
            for (number, (partition, read)) in self.lock().iter().zip(&mut read).enumerate() {
                for record in &partition[*read..] {
                    let (number, offset) = (i32::try_from(number).unwrap_or_default(), *read as i64);
                    let received = mapping.receive(number, offset, millis(record.at), &record.key, &record.value);
                    received.expect("a record is plain JSON");
                    *read += 1;
                }
            }
            let now = || millis(self.faults.clock.now());
            match mapping.next(now()).expect("the clock shows a time") {
                MappingStep::Invoke { id, event } => {
                    let answer = function.invoke(&event).await;
                    mapping.answered(id, answer, now());
                }
                MappingStep::Discard { id, object } => {
                    let succeeded = bucket.put(object).await;
                    mapping.delivered(id, succeeded, now());
                }
                MappingStep::Wait(Some(at)) => {
                    let wait = u64::try_from(at - now()).unwrap_or_default().max(1);
                    let _ = timeout(Duration::from_millis(wait), self.appended.notified()).await;
                }
                MappingStep::Wait(None) => self.appended.notified().await,
            }
            let stats = mapping.stats();
            let done = stats.records_delivered + stats.discarded;
            self.waiting.fetch_sub(done - finished, Relaxed);
            finished = done;
        }
    }
}

fn millis(at: u64) -> i64 {
    i64::try_from(at.max(BEGAN)).unwrap_or(i64::MAX)
}

impl DurableLog for Log {
    fn append_each<'a>(&'a self, records: &'a [LogRecord]) -> impl Stream<Item = RecordResult> + Send + 'a {
        stream::once(self.append_all(records)).flat_map(stream::iter)
    }
}
