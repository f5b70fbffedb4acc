//! What is on the logs, read record by record without the code under test.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use aws_sdk_kinesis::types::ShardIteratorType;
use operate::Endpoints;
use playback::envelope::Envelope;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};

const ANSWER_WITHIN: Duration = Duration::from_secs(15);
const READ_WITHIN: Duration = Duration::from_secs(60);

/// What is on the primary and on the standby.
#[derive(Debug, Default)]
pub(crate) struct Logs {
    /// Events of all envelopes, including copies.
    pub(crate) events: u64,
    /// Records, including poison.
    pub(crate) records: u64,
    /// The maximum number of events in one record.
    pub(crate) most: u64,
    /// When the producer made each record of the primary, Unix milliseconds.
    pub(crate) primary: Vec<u64>,
    /// When each record arrived on the standby, Unix milliseconds.
    pub(crate) standby: Vec<u64>,
}

impl Logs {
    /// Reads both from the beginning to their current end.
    pub(crate) async fn read(endpoints: &Endpoints) -> Result<Self> {
        let mut logs = Self::default();
        let (bootstrap, topic) = (endpoints.log_bootstrap.clone().context("no brokers")?, endpoints.topic.clone());
        let read = tokio::task::spawn_blocking(move || read_topic(&bootstrap, &topic));
        for (at, value) in read.await.context("reading the topic panicked")?? {
            logs.add(&value);
            logs.primary.push(at);
        }
        if let Some(stream) = &endpoints.standby_stream {
            for (at, value) in read_stream(endpoints, stream).await? {
                logs.add(&value);
                logs.standby.push(at);
            }
        }
        Ok(logs)
    }

    fn add(&mut self, value: &[u8]) {
        self.records += 1;
        // Everything else is poison, which the suite itself made.
        if let Ok(envelope) = Envelope::decode(value) {
            let events = envelope.events.len() as u64;
            self.events += events;
            self.most = self.most.max(events);
        }
    }
}

type Record = (u64, Vec<u8>);

fn read_topic(bootstrap: &str, topic: &str) -> Result<Vec<Record>> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("group.id", "faults-reader").set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.create()?;
    let metadata = consumer.fetch_metadata(Some(topic), ANSWER_WITHIN).context("asking for the topic's partitions")?;
    let partitions = metadata.topics().first().context("no such topic")?.partitions();
    ensure!(!partitions.is_empty(), "the topic {topic} has no partitions");
    let (mut open, mut assigned) = (BTreeMap::new(), TopicPartitionList::new());
    for partition in partitions {
        let (low, high) = consumer.fetch_watermarks(topic, partition.id(), ANSWER_WITHIN)?;
        if high > low {
            open.insert(partition.id(), high);
            assigned.add_partition_offset(topic, partition.id(), Offset::Beginning)?;
        }
    }
    consumer.assign(&assigned)?;
    let (mut records, deadline) = (Vec::new(), Instant::now() + READ_WITHIN);
    while !open.is_empty() {
        ensure!(Instant::now() < deadline, "the topic was not read within {READ_WITHIN:?}: {open:?}");
        let Some(message) = consumer.poll(Duration::from_millis(200)) else { continue };
        let message = message.context("reading the topic")?;
        let at = message.timestamp().to_millis().context("a record without a time")?;
        if open.get(&message.partition()).is_some_and(|end| message.offset() + 1 >= *end) {
            open.remove(&message.partition());
        }
        records.push((u64::try_from(at)?, message.payload().unwrap_or_default().to_vec()));
    }
    Ok(records)
}

async fn read_stream(endpoints: &Endpoints, stream: &str) -> Result<Vec<Record>> {
    let client = aws_sdk_kinesis::Client::new(&endpoints.sdk_config());
    let shards = client.list_shards().stream_name(stream).send().await?.shards.unwrap_or_default();
    let mut records = Vec::new();
    for shard in shards {
        let from = client.get_shard_iterator().stream_name(stream).shard_id(shard.shard_id);
        let mut next = from.shard_iterator_type(ShardIteratorType::TrimHorizon).send().await?.shard_iterator;
        while let Some(iterator) = next {
            let page = client.get_records().shard_iterator(iterator).send().await.context("reading the stream")?;
            let ended = page.records.is_empty() && page.millis_behind_latest.unwrap_or_default() == 0;
            for record in page.records {
                let at = record.approximate_arrival_timestamp.context("a record without a time")?.to_millis()?;
                records.push((u64::try_from(at)?, record.data.into_inner()));
            }
            next = page.next_shard_iterator.filter(|_| !ended);
        }
    }
    Ok(records)
}
