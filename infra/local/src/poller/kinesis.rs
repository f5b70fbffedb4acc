//! Reads the shards of a Kinesis stream.
//!
//! Shards are listed once. Splits and merges while the poller runs are not emulated.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use aws_config::SdkConfig;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::error::DisplayErrorContext;
use aws_sdk_kinesis::operation::get_records::{GetRecordsError, GetRecordsOutput};
use aws_sdk_kinesis::types::ShardIteratorType;
use tracing::{info, warn};

use super::record::{KinesisRecord, Record, Stream, shard_id, shard_number};
use super::settings::StartingPosition;
use super::shards::{AFTER_ERROR, Checkpoints, IDLE, Reading, ShardLog};
use super::shell::now_ms;

/// Time limit of one request.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum number of records from `GetRecords`, and of shards from `ListShards`.
const MOST: i32 = 10_000;

/// Finds the shards of a stream and starts reading them after their checkpoints, or at the starting
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
) -> anyhow::Result<ShardLog> {
    let config = aws_sdk_kinesis::config::Builder::from(sdk)
        .retry_config(RetryConfig::disabled()) // readers retry by themselves
        .timeout_config(TimeoutConfig::builder().operation_timeout(TIMEOUT).build())
        .build();
    let client = Client::from_conf(config);
    let (mut log, reads) = ShardLog::new(mapping, checkpoints.clone());
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
        log.spawn(&reads, |reading| reader.run(iterator, reading));
    }
    Ok(log)
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
    async fn run(mut self, mut iterator: String, Reading { reads, mut full }: Reading) -> anyhow::Result<()> {
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
