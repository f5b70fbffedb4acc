//! A mapping's side of a log that has shards (Kinesis, a table's stream): one reader for each shard,
//! and the mapping's checkpoints.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::record::Record;
use super::shell::{Log, Read};

/// Shortest and longest pause at the end of a shard. It doubles each time that no record came.
/// Lambda waits a second. On one machine a record should arrive sooner, but each request costs
/// milliseconds.
pub(super) const IDLE: (Duration, Duration) = (Duration::from_millis(25), Duration::from_millis(250));
/// Pause after an error.
pub(super) const AFTER_ERROR: Duration = Duration::from_millis(500);
/// Where pollers of mappings with shards stopped: for each shard, the last sequence number before the
/// first unsettled record. Clones share the checkpoints. So a new poller in the same process
/// resumes where the previous one stopped or died.
#[derive(Debug, Clone, Default)]
pub struct Checkpoints(Arc<Mutex<BTreeMap<(String, i32), String>>>);

impl Checkpoints {
    pub(super) fn get(&self, mapping: &str, shard: i32) -> Option<String> {
        let checkpoints = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        checkpoints.get(&(mapping.to_owned(), shard)).cloned()
    }

    fn set(&self, mapping: &str, shard: i32, sequence_number: String) {
        let mut checkpoints = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        checkpoints.insert((mapping.to_owned(), shard), sequence_number);
    }
}

/// The readers of a stream, and the records read since the last commit.
pub(super) struct ShardLog {
    reads: mpsc::Receiver<Vec<Record>>,
    /// Paused shards.
    full: watch::Sender<BTreeSet<i32>>,
    /// Aborted when this value is dropped.
    readers: JoinSet<anyhow::Result<()>>,
    checkpoints: Checkpoints,
    /// UUID of the mapping.
    mapping: String,
    /// Sequence numbers by shard and ordinal.
    uncommitted: BTreeMap<(i32, i64), String>,
}

/// What a reader of a shard needs.
pub(super) struct Reading {
    /// Takes the records that were read.
    pub(super) reads: mpsc::Sender<Vec<Record>>,
    /// Shards that must not be read now.
    pub(super) full: watch::Receiver<BTreeSet<i32>>,
}

impl ShardLog {
    /// The log of a mapping, without a reader.
    pub(super) fn new(mapping: &str, checkpoints: Checkpoints) -> (Self, mpsc::Sender<Vec<Record>>) {
        let (sender, reads) = mpsc::channel(1);
        let (full, readers) = (watch::Sender::default(), JoinSet::new());
        let (mapping, uncommitted) = (mapping.to_owned(), BTreeMap::new());
        (Self { reads, full, readers, checkpoints, mapping, uncommitted }, sender)
    }

    /// Adds the reader of a shard.
    pub(super) fn spawn<R>(&mut self, reads: &mpsc::Sender<Vec<Record>>, run: impl FnOnce(Reading) -> R)
    where
        R: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let reading = Reading { reads: reads.clone(), full: self.full.subscribe() };
        self.readers.spawn(run(reading));
    }
}

impl Log for ShardLog {
    async fn read(&mut self) -> anyhow::Result<Read> {
        loop {
            tokio::select! {
                Some(records) = self.reads.recv() => {
                    let names = records.iter().map(|r| ((r.partition, r.offset), r.sequence_number.clone()));
                    self.uncommitted.extend(names);
                    return Ok(Read { reset: false, records });
                }
                Some(ended) = self.readers.join_next() => ended.context("reading a shard panicked")??,
                // All shards are closed.
                else => std::future::pending().await,
            }
        }
    }

    fn commit(&mut self, positions: &[(i32, i64)]) {
        for (shard, position) in positions {
            let mut last = None;
            while let Some((key, _)) = self.uncommitted.range((*shard, i64::MIN)..(*shard, *position)).next() {
                let key = *key;
                last = self.uncommitted.remove(&key);
            }
            if let Some(sequence_number) = last {
                self.checkpoints.set(&self.mapping, *shard, sequence_number);
            }
        }
    }

    fn pause(&mut self, full: BTreeSet<i32>) {
        self.full.send_if_modified(|now| {
            let changed = *now != full;
            *now = full;
            changed
        });
    }

    async fn leave(mut self, positions: Vec<(i32, i64)>) -> anyhow::Result<()> {
        self.commit(&positions);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::samples::{sequence_number, streamed};
    use super::*;

    #[tokio::test]
    async fn checkpoint_is_the_last_record_before_the_first_open_one() -> anyhow::Result<()> {
        let checkpoints = Checkpoints::default();
        let (mut log, reader) = ShardLog::new("m", checkpoints.clone());
        reader.send((0..4).map(|ordinal| streamed(1, ordinal, 0, 2)).collect()).await?;
        assert_eq!(log.read().await?.records.len(), 4);
        reader.send(vec![streamed(2, 0, 0, 2)]).await?;
        assert_eq!(log.read().await?.records.len(), 1);
        log.commit(&[(1, 0)]);
        assert_eq!(checkpoints.get("m", 1), None, "nothing has ended");
        log.commit(&[(1, 2)]);
        log.commit(&[(1, 2), (2, 1)]);
        assert_eq!(checkpoints.get("m", 1), Some(sequence_number(1)));
        assert_eq!(checkpoints.get("m", 2), Some(sequence_number(0)));
        assert_eq!((checkpoints.get("m", 3), checkpoints.get("other", 1)), (None, None));
        log.leave(vec![(1, 3), (2, 1)]).await?;
        assert_eq!(checkpoints.get("m", 1), Some(sequence_number(2)));
        Ok(())
    }
}
