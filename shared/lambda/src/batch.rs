//! Batches: the records that a log or a queue invoked a function with, and the answer that names
//! the failed ones.
//!
//! [`Batch::parse`] recognises the trigger by `eventSource` and returns one [`Record`] for each
//! record of the event, in the event's order within a partition. A record that cannot be decoded is
//! still a record: a [`BadRecord`] keeps its original text, so it can be dead-lettered instead of
//! stopping the batch. A batch that cannot be read, or whose records an answer could not name, is
//! an error as a whole.
//!
//! **Invariant:** an internal error never looks like success. An empty answer means that every
//! record succeeded, so only [`answer`] makes one, when no record failed. A [`BatchError`] cannot
//! become an answer.
//!
//! What Lambda does with an answer (`ReportBatchItemFailures` on the mapping):
//! - Kafka (provisioned mode only): retries the failed records of the batch; a partition that was
//!   not in the batch makes the whole batch fail. We name every failed record. That is right
//!   whether a partition resumes at its lowest failed offset or record by record, since folding a
//!   record again changes nothing.
//! - Kinesis and DynamoDB: takes the lowest sequence number as a checkpoint and retries everything
//!   from there.
//! - SQS: makes the failed messages visible again and deletes the others.
//!
//! Sources: the AWS Lambda developer guide on Kafka error handling controls, and on partial batch
//! responses for Kinesis and SQS. The types for Kafka's and Kinesis' records are our own:
//! `aws_lambda_events` has no answer for Kafka, and its types fail a whole batch because of one bad
//! record.

use std::borrow::Cow;
use std::collections::BTreeMap;

use aws_lambda_events::sqs::SqsMessage;
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

/// Accepts what AWS's own examples contain: missing padding and unused trailing bits.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The records of one invocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// One for each record of the event.
    pub records: Vec<Record>,
}

/// One record, from any trigger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Where the record is from; names it in an answer, in a log line and in a dead letter.
    pub source: Source,
    /// The record's key: Kafka's key or Kinesis' partition key. SQS has none.
    pub key: Option<Bytes>,
    /// The record's bytes: Kafka's value and Kinesis' data decoded from base64, SQS' body and the
    /// whole record of a table's stream (JSON) unchanged.
    pub value: Result<Bytes, BadRecord>,
    /// How an SQS message was delivered.
    pub delivery: Option<Delivery>,
}

/// One delivery of an SQS message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The delivery's handle in SQS, by which its visibility timeout can be changed.
    pub receipt_handle: String,
    /// How often SQS has delivered the message, this time included; 1 if it does not say.
    pub receives: u32,
    /// When the message was sent, Unix milliseconds, if SQS says so.
    pub sent_at: Option<u64>,
}

/// Where a record is from. Its JSON form is the `source` of a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "kind")]
pub enum Source {
    /// A record of a Kafka topic (Amazon MSK or self-managed).
    #[serde(rename = "msk")]
    Kafka {
        /// The topic's name.
        topic: String,
        /// The partition's number.
        partition: i32,
        /// The offset in the partition.
        offset: i64,
    },
    /// A message of an SQS queue.
    #[serde(rename = "sqs")]
    Sqs {
        /// The queue's ARN.
        queue: String,
        /// The message's id.
        message_id: String,
    },
    /// A record of a DynamoDB table's stream.
    #[serde(rename = "dynamodb")]
    Table {
        /// The stream's ARN.
        stream: String,
        /// The sequence number in the shard, a decimal of 21 to 40 digits.
        sequence_number: String,
    },
    /// A record of a Kinesis stream.
    #[serde(rename = "kinesis")]
    Kinesis {
        /// The stream's ARN.
        stream: String,
        /// The shard's id (`shardId-000000000000`).
        shard: String,
        /// The sequence number in the shard, a decimal of up to 128 digits.
        sequence_number: String,
    },
}

/// Why a record has no bytes to decode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRecord {
    /// A Kafka tombstone, or an SQS message without a body.
    #[error("the record has no value")]
    NoValue,
    /// Lambda encodes keys, values and data in base64; this was something else.
    #[error("the record's {part} is not base64")]
    NotBase64 {
        /// Which part: `key` or `value`.
        part: &'static str,
        /// The part as it was received.
        text: String,
    },
}

impl BadRecord {
    /// The text that was received instead of the bytes.
    pub fn original(&self) -> &[u8] {
        match self {
            Self::NoValue => &[],
            Self::NotBase64 { text, .. } => text.as_bytes(),
        }
    }
}

/// Why a batch cannot be processed at all: the invocation must fail, and the trigger delivers the
/// batch again.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// The event is not JSON in the form that its trigger sends.
    #[error("the event is not a batch: {0}")]
    Malformed(#[from] serde_json::Error),
    /// The event does not name its trigger, or names one that is not supported.
    #[error(
        "unsupported event source {0:?}: expected aws:kafka, SelfManagedKafka, aws:sqs, aws:kinesis or aws:dynamodb"
    )]
    UnknownTrigger(Option<String>),
    /// A record lacks its identifier, so it could not be reported as failed.
    #[error("record {index} of the batch has no valid {part}")]
    Unnamed {
        /// The record's index in the event, or in its partition.
        index: usize,
        /// The part that is missing or wrong.
        part: &'static str,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event<'a> {
    #[serde(borrow)]
    event_source: Option<Cow<'a, str>>,
    /// Kafka: lists of records by `topic-partition`.
    #[serde(borrow)]
    records: Option<BTreeMap<Cow<'a, str>, Vec<KafkaRecord<'a>>>>,
    /// SQS, Kinesis and DynamoDB. Read twice, since the first record says which.
    #[serde(borrow, rename = "Records")]
    list: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Origin<'a> {
    #[serde(borrow)]
    event_source: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct KafkaRecord<'a> {
    #[serde(borrow)]
    topic: Cow<'a, str>,
    partition: i32,
    offset: i64,
    #[serde(borrow)]
    key: Option<Text<'a>>,
    #[serde(borrow)]
    value: Option<Text<'a>>,
}

/// Text that is not copied unless it has escapes. Inside an `Option`, a plain `Cow` always is.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct KinesisRecord<'a> {
    /// `<shard id>:<sequence number>`.
    #[serde(borrow, rename = "eventID")]
    event_id: Cow<'a, str>,
    #[serde(borrow, rename = "eventSourceARN")]
    event_source_arn: Cow<'a, str>,
    #[serde(borrow)]
    kinesis: KinesisData<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct KinesisData<'a> {
    #[serde(borrow)]
    partition_key: Cow<'a, str>,
    #[serde(borrow)]
    sequence_number: Cow<'a, str>,
    #[serde(borrow)]
    data: Cow<'a, str>,
}

#[derive(Deserialize)]
struct TableRecord<'a> {
    #[serde(borrow, rename = "eventSourceARN")]
    event_source_arn: Cow<'a, str>,
    #[serde(borrow)]
    dynamodb: TableData<'a>,
}

#[derive(Deserialize)]
struct TableData<'a> {
    #[serde(borrow, rename = "SequenceNumber")]
    sequence_number: Cow<'a, str>,
}

impl Batch {
    /// Reads the JSON event of a Kafka, SQS, Kinesis or DynamoDB event source mapping.
    ///
    /// # Errors
    /// When the batch as a whole cannot be processed. Bad records are not an error.
    pub fn parse(event: &[u8]) -> Result<Self, BatchError> {
        serde_json::from_slice::<Parsed>(event)?.0
    }

    fn of(event: Event<'_>) -> Result<Self, BatchError> {
        let records = match (event.event_source.as_deref(), event.records, event.list) {
            (Some("aws:kafka" | "SelfManagedKafka"), Some(partitions), None) => kafka(partitions)?,
            (None, None, Some(list)) => listed(&list)?,
            (source, ..) => return Err(BatchError::UnknownTrigger(source.map(str::to_owned))),
        };
        Ok(Self { records })
    }
}

/// An event that is JSON of the right form, as a batch or as the reason why it is none. So the
/// runtime can read an event in one pass, and its text is not kept.
#[derive(Debug)]
pub struct Parsed(
    /// The batch.
    pub Result<Batch, BatchError>,
);

impl<'de> Deserialize<'de> for Parsed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Event::deserialize(deserializer).map(|event| Self(Batch::of(event)))
    }
}

fn kafka(partitions: BTreeMap<Cow<'_, str>, Vec<KafkaRecord<'_>>>) -> Result<Vec<Record>, BatchError> {
    let mut records = Vec::with_capacity(partitions.values().map(Vec::len).sum());
    for (label, partition) in partitions {
        let mut named: Option<(Cow<'_, str>, i32)> = None;
        for (index, record) in partition.into_iter().enumerate() {
            // The answer names a partition by this label; a wrong one would silently fail the whole
            // batch. Usually a record has the names of the one before it.
            let is_known = named.as_ref().is_some_and(|(topic, id)| (topic, *id) == (&record.topic, record.partition));
            if !is_known {
                if label != partition_label(&record.topic, record.partition) {
                    return Err(BatchError::Unnamed { index, part: "topic and partition" });
                }
                named = Some((record.topic.clone(), record.partition));
            }
            let source =
                Source::Kafka { topic: record.topic.into_owned(), partition: record.partition, offset: record.offset };
            let value = record.value.ok_or(BadRecord::NoValue).and_then(|text| decode("value", &text.0));
            records.push(match record.key.map(|text| decode("key", &text.0)).transpose() {
                Ok(key) => Record { source, key, value, delivery: None },
                Err(bad_key) => Record { source, key: None, value: Err(bad_key), delivery: None },
            });
        }
    }
    Ok(records)
}

/// The records of an event that is one list. All come from one mapping, so the first one tells the
/// trigger.
fn listed(list: &[&RawValue]) -> Result<Vec<Record>, BatchError> {
    let first = list.first().ok_or(BatchError::UnknownTrigger(None))?;
    let read = match serde_json::from_str::<Origin<'_>>(first.get())?.event_source.as_deref() {
        Some("aws:sqs") => sqs,
        Some("aws:kinesis") => kinesis,
        Some("aws:dynamodb") => of_table,
        other => return Err(BatchError::UnknownTrigger(other.map(str::to_owned))),
    };
    list.iter().enumerate().map(|(index, record)| read(index, record)).collect()
}

fn sqs(index: usize, record: &RawValue) -> Result<Record, BatchError> {
    let message: SqsMessage = serde_json::from_str(record.get())?;
    let named = |part: Option<String>, name| {
        part.filter(|part| !part.is_empty()).ok_or(BatchError::Unnamed { index, part: name })
    };
    let attribute = |name| message.attributes.get(name);
    let receives = attribute("ApproximateReceiveCount").and_then(|count| count.parse().ok()).unwrap_or(1);
    let sent_at = attribute("SentTimestamp").and_then(|at| at.parse().ok());
    Ok(Record {
        delivery: message.receipt_handle.map(|receipt_handle| Delivery { receipt_handle, receives, sent_at }),
        source: Source::Sqs {
            queue: named(message.event_source_arn, "eventSourceARN")?,
            message_id: named(message.message_id, "messageId")?,
        },
        key: None,
        value: message.body.map(Bytes::from).ok_or(BadRecord::NoValue),
    })
}

fn kinesis(index: usize, record: &RawValue) -> Result<Record, BatchError> {
    let record: KinesisRecord<'_> = serde_json::from_str(record.get())?;
    let (shard, sequence_number) = record
        .event_id
        .split_once(':')
        .filter(|(_, number)| !number.is_empty() && *number == record.kinesis.sequence_number)
        .ok_or(BatchError::Unnamed { index, part: "eventID and sequenceNumber" })?;
    Ok(Record {
        source: Source::Kinesis {
            stream: record.event_source_arn.to_string(),
            shard: shard.to_owned(),
            sequence_number: sequence_number.to_owned(),
        },
        key: Some(Bytes::from(record.kinesis.partition_key.into_owned())),
        value: decode("value", &record.kinesis.data),
        delivery: None,
    })
}

fn of_table(index: usize, record: &RawValue) -> Result<Record, BatchError> {
    let TableRecord { event_source_arn, dynamodb } = serde_json::from_str(record.get())?;
    let sequence_number = dynamodb.sequence_number.into_owned();
    if sequence_number.is_empty() {
        return Err(BatchError::Unnamed { index, part: "SequenceNumber" });
    }
    let source = Source::Table { stream: event_source_arn.into_owned(), sequence_number };
    Ok(Record { source, key: None, value: Ok(Bytes::copy_from_slice(record.get().as_bytes())), delivery: None })
}

fn decode(part: &'static str, text: &str) -> Result<Bytes, BadRecord> {
    BASE64.decode(text).map(Bytes::from).map_err(|_| BadRecord::NotBase64 { part, text: text.to_owned() })
}

fn partition_label(topic: &str, partition: i32) -> String {
    format!("{topic}-{partition}")
}

/// The answer to a batch: the failed records, which must be delivered again. All others succeeded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[must_use = "an invocation that does not return its answer says that every record succeeded"]
pub struct BatchAnswer {
    batch_item_failures: Vec<Failure>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Failure {
    item_identifier: ItemIdentifier,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
enum ItemIdentifier {
    Offset { partition: String, offset: i64 },
    Id(String),
}

/// Answers a batch. `failed` names every record that must be delivered again. If it is empty, the
/// answer says that all succeeded, and Lambda delivers none of them again.
pub fn answer<'a>(failed: impl IntoIterator<Item = &'a Source>) -> BatchAnswer {
    let identify = |source: &Source| match source {
        Source::Kafka { topic, partition, offset } => {
            ItemIdentifier::Offset { partition: partition_label(topic, *partition), offset: *offset }
        }
        Source::Sqs { message_id, .. } => ItemIdentifier::Id(message_id.clone()),
        Source::Kinesis { sequence_number, .. } | Source::Table { sequence_number, .. } => {
            ItemIdentifier::Id(sequence_number.clone())
        }
    };
    let batch_item_failures = failed.into_iter().map(|source| Failure { item_identifier: identify(source) }).collect();
    BatchAnswer { batch_item_failures }
}

#[cfg(test)]
mod tests;
