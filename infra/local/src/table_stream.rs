//! Reads the stream of a DynamoDB table. It has one shard, which the emulator never splits.

use anyhow::{Context as _, Result, bail};
use aws_config::SdkConfig;
use aws_sdk_dynamodbstreams::Client;
use aws_sdk_dynamodbstreams::operation::get_records::GetRecordsError;
use aws_sdk_dynamodbstreams::types::{Record, ShardIteratorType};

/// A reader of a table's stream.
#[derive(Debug)]
pub(crate) struct TableReader {
    client: Client,
    arn: String,
    shard: String,
    /// Where to begin if no record was read.
    from: ShardIteratorType,
    iterator: Option<String>,
    /// Sequence number of the last record read.
    after: Option<String>,
}

impl TableReader {
    /// Opens the stream after a record, or else at `from`. Records that are written from now on are
    /// read.
    ///
    /// # Errors
    /// If the stream cannot be read.
    pub(crate) async fn open(
        sdk: &SdkConfig,
        arn: &str,
        from: ShardIteratorType,
        after: Option<String>,
    ) -> Result<Self> {
        let client = Client::new(sdk);
        let described = client.describe_stream().stream_arn(arn).send().await;
        let described = described.with_context(|| format!("describing the stream {arn}"))?.stream_description;
        let shards = described.map(|stream| stream.shards.unwrap_or_default()).unwrap_or_default();
        let [shard] = &shards[..] else { bail!("the stream {arn} has {} shards instead of one", shards.len()) };
        let shard = shard.shard_id.clone().context("a shard without an id")?;
        let mut reader = Self { client, arn: arn.to_owned(), shard, from, iterator: None, after };
        reader.iterator = Some(reader.iterator().await?);
        Ok(reader)
    }

    /// The id of the shard.
    pub(crate) fn shard(&self) -> &str {
        &self.shard
    }

    /// The next records, in the order of their writes. Empty if there are none yet.
    ///
    /// # Errors
    /// If the stream is unavailable.
    pub(crate) async fn read(&mut self) -> Result<Vec<Record>> {
        let iterator = match self.iterator.take() {
            Some(iterator) => iterator,
            None => self.iterator().await?,
        };
        match self.client.get_records().shard_iterator(&iterator).send().await {
            Ok(read) => {
                self.iterator = read.next_shard_iterator;
                let records = read.records.unwrap_or_default();
                if let Some(last) = records.last().and_then(|record| record.dynamodb.as_ref()) {
                    self.after.clone_from(&last.sequence_number);
                }
                Ok(records)
            }
            // Iterators expire after 15 minutes, for example while the machine sleeps. The next
            // call gets a new one.
            Err(error) if error.as_service_error().is_some_and(GetRecordsError::is_expired_iterator_exception) => {
                Ok(Vec::new())
            }
            Err(error) => {
                self.iterator = Some(iterator);
                Err(error).with_context(|| format!("reading the stream {}", self.arn))
            }
        }
    }

    async fn iterator(&self) -> Result<String> {
        let kind = match self.after {
            Some(_) => ShardIteratorType::AfterSequenceNumber,
            None => self.from.clone(),
        };
        let got = self.client.get_shard_iterator().stream_arn(&self.arn).shard_id(&self.shard);
        let got = got.shard_iterator_type(kind).set_sequence_number(self.after.clone()).send().await;
        let got = got.with_context(|| format!("opening the stream {}", self.arn))?;
        got.shard_iterator.context("a stream without an iterator")
    }
}
