//! A mapping's side of a Kinesis stream: one reader for each shard, and the mapping's checkpoints.
//!
//! Shards are listed once. Splits and merges while the poller runs are not emulated.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use aws_config::SdkConfig;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::error::DisplayErrorContext;
use aws_sdk_kinesis::operation::get_records::{GetRecordsError, GetRecordsOutput};
use aws_sdk_kinesis::types::ShardIteratorType;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{info, warn};

use super::record::{KinesisRecord, Record, Stream, shard_id, shard_number};
use super::settings::StartingPosition;
use super::shell::{Log, Read, now_ms};

/// Shortest and longest pause at the end of a shard. It doubles each time that no record came.
/// Lambda waits a second. On one machine a record should arrive sooner, but each request costs
/// milliseconds.
const IDLE: (Duration, Duration) = (Duration::from_millis(25), Duration::from_millis(250));
/// Pause after an error.
const AFTER_ERROR: Duration = Duration::from_millis(500);
/// Time limit of one request.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum number of records from `GetRecords`, and of shards from `ListShards`.
const MOST: i32 = 10_000;

/// Where pollers of Kinesis mappings stopped: for each shard, the last sequence number before the
/// first unsettled record. Clones share the checkpoints. So a new poller in the same process
/// resumes where the previous one stopped or died.
#[derive(Debug, Clone, Default)]
pub struct Checkpoints(Arc<Mutex<BTreeMap<(String, i32), String>>>);

impl Checkpoints {
    fn get(&self, mapping: &str, shard: i32) -> Option<String> {
        let checkpoints = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        checkpoints.get(&(mapping.to_owned(), shard)).cloned()
    }

    fn set(&self, mapping: &str, shard: i32, sequence_number: String) {
        let mut checkpoints = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        checkpoints.insert((mapping.to_owned(), shard), sequence_number);
    }
}

/// The readers of a stream, and the records read since the last commit.
pub(super) struct KinesisLog {
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

impl KinesisLog {
    /// Finds the shards and starts reading them after their checkpoints, or at the starting
    /// position.
    ///
    /// # Errors
    /// If the stream cannot be read.
    pub(super) async fn open(
        sdk: &SdkConfig,
        stream: &Stream,
        mapping: &str,
        from: StartingPosition,
        checkpoints: Checkpoints,
    ) -> anyhow::Result<Self> {
        let config = aws_sdk_kinesis::config::Builder::from(sdk)
            .retry_config(RetryConfig::disabled()) // readers retry by themselves
            .timeout_config(TimeoutConfig::builder().operation_timeout(TIMEOUT).build())
            .build();
        let client = Client::from_conf(config);
        let (sender, reads) = mpsc::channel(1);
        let (full, full_receiver) = watch::channel(BTreeSet::new());
        let mut readers = JoinSet::new();
        for number in shards(&client, stream).await? {
            let reader = Reader {
                client: client.clone(),
                stream: stream.clone(),
                number,
                from,
                after: checkpoints.get(mapping, number),
                ordinal: 0,
            };
            // Before the caller knows that the poller runs, so no later record is missed.
            let iterator = reader.iterator().await?;
            readers.spawn(reader.run(iterator, sender.clone(), full_receiver.clone()));
        }
        let mapping = mapping.to_owned();
        Ok(Self { reads, full, readers, checkpoints, mapping, uncommitted: BTreeMap::new() })
    }
}

async fn shards(client: &Client, stream: &Stream) -> anyhow::Result<Vec<i32>> {
    let listed = client.list_shards().stream_arn(&stream.arn).max_results(MOST).send().await;
    let listed = listed.with_context(|| format!("listing the shards of {}", stream.arn))?;
    ensure!(listed.next_token.is_none(), "{} has more than {MOST} shards", stream.arn);
    let numbers = listed.shards.unwrap_or_default().into_iter().map(|shard| {
        let id = shard.shard_id;
        shard_number(&id).with_context(|| format!("shard {id} of {}: its id has no number", stream.arn))
    });
    numbers.collect()
}

impl Log for KinesisLog {
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

/// Reads one shard.
struct Reader {
    client: Client,
    stream: Stream,
    /// The shard's number.
    number: i32,
    from: StartingPosition,
    /// The sequence number of the last record read, by this poller or the previous one.
    after: Option<String>,
    /// The ordinal of the next record.
    ordinal: i64,
}

impl Reader {
    /// Reads until the shard is closed or the receiver is gone. Retries errors.
    async fn run(
        mut self,
        mut iterator: String,
        reads: mpsc::Sender<Vec<Record>>,
        mut full: watch::Receiver<BTreeSet<i32>>,
    ) -> anyhow::Result<()> {
        let mut failing = false;
        let (shortest, longest) = IDLE;
        let mut idle = shortest;
        while full.wait_for(|full| !full.contains(&self.number)).await.is_ok() {
            let read = self.client.get_records().stream_arn(&self.stream.arn).shard_iterator(&iterator).limit(MOST);
            match read.send().await {
                Ok(output) => {
                    failing = false;
                    let records = self.encode(&output)?;
                    idle = if records.is_empty() { longest.min(idle * 2) } else { shortest };
                    if !records.is_empty() && reads.send(records).await.is_err() {
                        break;
                    }
                    let Some(next) = output.next_shard_iterator else {
                        info!(stream = self.stream.arn, shard = self.number, "the shard is closed");
                        break;
                    };
                    iterator = next;
                    if output.millis_behind_latest.unwrap_or_default() == 0 {
                        tokio::time::sleep(idle).await;
                    }
                }
                Err(error) => {
                    // Warn once per outage.
                    if !failing {
                        let error = DisplayErrorContext(&error);
                        warn!(stream = self.stream.arn, shard = self.number, %error, "reading failed; will retry");
                    }
                    failing = true;
                    tokio::time::sleep(AFTER_ERROR).await;
                    // An iterator expires after five minutes.
                    let expired = error.as_service_error().is_some_and(GetRecordsError::is_expired_iterator_exception);
                    if expired && let Ok(renewed) = self.iterator().await {
                        iterator = renewed;
                    }
                }
            }
        }
        Ok(())
    }

    async fn iterator(&self) -> anyhow::Result<String> {
        let kind = match (&self.after, self.from) {
            (Some(_), _) => ShardIteratorType::AfterSequenceNumber,
            (None, StartingPosition::TrimHorizon) => ShardIteratorType::TrimHorizon,
            (None, StartingPosition::Latest) => ShardIteratorType::Latest,
        };
        let shard = shard_id(self.number);
        let got = self
            .client
            .get_shard_iterator()
            .stream_arn(&self.stream.arn)
            .shard_id(&shard)
            .shard_iterator_type(kind)
            .set_starting_sequence_number(self.after.clone())
            .send()
            .await;
        let got = got.with_context(|| format!("getting an iterator of {shard} of {}", self.stream.arn))?;
        got.shard_iterator.with_context(|| format!("GetShardIterator returned no iterator of {shard}"))
    }

    fn encode(&mut self, output: &GetRecordsOutput) -> serde_json::Result<Vec<Record>> {
        let mut records = Vec::with_capacity(output.records.len());
        for read in &output.records {
            let arrival = read.approximate_arrival_timestamp.and_then(|at| at.to_millis().ok());
            records.push(Record::kinesis(
                &self.stream,
                &KinesisRecord {
                    shard: self.number,
                    ordinal: self.ordinal,
                    sequence_number: &read.sequence_number,
                    arrival: arrival.unwrap_or_else(now_ms),
                    partition_key: read.partition_key.as_deref().unwrap_or_default(),
                    data: read.data.as_ref(),
                },
            )?);
            self.ordinal += 1;
            self.after = Some(read.sequence_number.clone());
        }
        Ok(records)
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::samples::{sequence_number, streamed};
    use super::*;

    fn log(checkpoints: &Checkpoints) -> (mpsc::Sender<Vec<Record>>, KinesisLog) {
        let (sender, reads) = mpsc::channel(8);
        let (checkpoints, uncommitted) = (checkpoints.clone(), BTreeMap::new());
        let (full, readers) = (watch::Sender::default(), JoinSet::new());
        (sender, KinesisLog { reads, full, readers, checkpoints, mapping: "m".into(), uncommitted })
    }

    #[tokio::test]
    async fn checkpoint_is_the_last_record_before_the_first_open_one() -> anyhow::Result<()> {
        let checkpoints = Checkpoints::default();
        let (reader, mut log) = log(&checkpoints);
        reader.send((0..4).map(|ordinal| streamed(1, ordinal, 0, 2)).collect()).await?;
        reader.send(vec![streamed(2, 0, 0, 2)]).await?;
        assert_eq!((log.read().await?.records.len(), log.read().await?.records.len()), (4, 1));
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
