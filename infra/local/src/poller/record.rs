//! Records as a function receives them, and the payload that carries them.
//!
//! Pure. A record is encoded once, when it arrives. So the size of a payload is known before it is
//! assembled, and the function and the on-failure destination get the same bytes. The formats are
//! those of the example events in the AWS Lambda Developer Guide, "Using Lambda with Amazon MSK"
//! and "Using Lambda with Kinesis".

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

/// What the `timestamp` of a Kafka record means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum TimestampType {
    /// Set by the producer.
    CreateTime,
    /// Set by the broker.
    LogAppendTime,
}

/// A record as the Kafka consumer read it.
#[derive(Debug, Clone)]
pub(super) struct KafkaRecord<'a> {
    pub(super) topic: &'a str,
    pub(super) partition: i32,
    pub(super) offset: i64,
    /// Unix milliseconds.
    pub(super) timestamp: i64,
    pub(super) timestamp_type: TimestampType,
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
    pub(super) headers: Vec<(&'a str, &'a [u8])>,
}

/// A record as read from a Kinesis shard.
#[derive(Debug, Clone)]
pub(super) struct KinesisRecord<'a> {
    /// The shard's number.
    pub(super) shard: i32,
    /// The number of records of the shard that were read before it.
    pub(super) ordinal: i64,
    pub(super) sequence_number: &'a str,
    /// When the stream accepted it, Unix milliseconds.
    pub(super) arrival: i64,
    pub(super) partition_key: &'a str,
    pub(super) data: &'a [u8],
}

/// A record encoded for the payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    /// For Kinesis, the shard's number.
    pub(super) partition: i32,
    /// The position in the partition. For Kinesis, the [`KinesisRecord::ordinal`].
    pub(super) offset: i64,
    /// Unix milliseconds.
    pub(super) timestamp: i64,
    /// Names the record in its shard. Empty for Kafka, where the offset does that.
    pub(super) sequence_number: String,
    /// The record's JSON object in the payload.
    json: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct KafkaWire<'a> {
    topic: &'a str,
    partition: i32,
    offset: i64,
    timestamp: i64,
    timestamp_type: TimestampType,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    /// Header values are arrays of signed bytes, as a JVM prints them.
    headers: Vec<BTreeMap<&'a str, Vec<i8>>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct KinesisWire<'a> {
    kinesis: KinesisData<'a>,
    event_source: &'static str,
    event_version: &'static str,
    #[serde(rename = "eventID")]
    event_id: String,
    event_name: &'static str,
    invoke_identity_arn: &'a str,
    aws_region: &'a str,
    #[serde(rename = "eventSourceARN")]
    event_source_arn: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct KinesisData<'a> {
    kinesis_schema_version: &'static str,
    partition_key: &'a str,
    sequence_number: &'a str,
    data: String,
    /// Unix seconds, with a fraction.
    approximate_arrival_timestamp: f64,
}

impl Record {
    /// Encodes a record of the Kafka consumer.
    ///
    /// # Errors
    /// Only if serde_json cannot write a plain struct, which would be a bug.
    pub(super) fn kafka(read: &KafkaRecord<'_>) -> serde_json::Result<Self> {
        let signed = |bytes: &[u8]| bytes.iter().map(|byte| byte.cast_signed()).collect();
        let wire = KafkaWire {
            topic: read.topic,
            partition: read.partition,
            offset: read.offset,
            timestamp: read.timestamp,
            timestamp_type: read.timestamp_type,
            key: read.key.map(|key| STANDARD.encode(key)),
            value: read.value.map(|value| STANDARD.encode(value)),
            headers: read.headers.iter().map(|(name, value)| BTreeMap::from([(*name, signed(value))])).collect(),
        };
        Ok(Self {
            partition: read.partition,
            offset: read.offset,
            timestamp: read.timestamp,
            sequence_number: String::new(),
            json: serde_json::to_string(&wire)?,
        })
    }

    /// Encodes a record of a shard of `stream`.
    ///
    /// # Errors
    /// Only if serde_json cannot write a plain struct, which would be a bug.
    pub(super) fn kinesis(stream: &Stream, read: &KinesisRecord<'_>) -> serde_json::Result<Self> {
        #[expect(clippy::cast_precision_loss, reason = "milliseconds fit 53 bits for the next 285,000 years")]
        let seconds = read.arrival as f64 / 1_000.0;
        let wire = KinesisWire {
            kinesis: KinesisData {
                kinesis_schema_version: "1.0",
                partition_key: read.partition_key,
                sequence_number: read.sequence_number,
                data: STANDARD.encode(read.data),
                approximate_arrival_timestamp: seconds,
            },
            event_source: "aws:kinesis",
            event_version: "1.0",
            event_id: format!("{}:{}", shard_id(read.shard), read.sequence_number),
            event_name: "aws:kinesis:record",
            invoke_identity_arn: &stream.role,
            aws_region: stream.region(),
            event_source_arn: &stream.arn,
        };
        Ok(Self {
            partition: read.shard,
            offset: read.ordinal,
            timestamp: read.arrival,
            sequence_number: read.sequence_number.to_owned(),
            json: serde_json::to_string(&wire)?,
        })
    }

    /// A record of a table's stream, at a place among those that were read. `json` is what Lambda
    /// passes on.
    pub(super) fn of_table(ordinal: i64, sequence_number: String, timestamp: i64, json: String) -> Self {
        Self { partition: 0, offset: ordinal, timestamp, sequence_number, json }
    }

    /// Bytes that this record adds to a payload, including the separator.
    pub(super) fn size(&self) -> usize {
        self.json.len() + 1
    }
}

/// Where the records of a mapping come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    Kafka(Topic),
    Kinesis(Stream),
    Table(TableStream),
}

/// A Kafka topic: the part that all payloads share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Topic {
    pub(super) event_source_arn: String,
    pub(super) bootstrap_servers: String,
    pub(super) topic: String,
}

/// A Kinesis stream: the part that all records share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stream {
    pub(super) arn: String,
    /// ARN of the function's role, which Lambda uses to read the stream.
    pub(super) role: String,
}

/// The stream of a DynamoDB table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TableStream {
    pub(super) arn: String,
    /// Its only shard: an emulator's stream is never split.
    pub(super) shard: String,
}

impl Stream {
    fn region(&self) -> &str {
        self.arn.split(':').nth(3).unwrap_or_default()
    }
}

/// The id of a shard: its number in twelve digits.
pub(super) fn shard_id(number: i32) -> String {
    format!("shardId-{number:012}")
}

/// The number of a shard, if its id has the usual form.
pub(super) fn shard_number(id: &str) -> Option<i32> {
    let number = id.strip_prefix("shardId-")?.parse().ok()?;
    (shard_id(number) == id).then_some(number)
}

impl Source {
    /// Whether one batch may hold records of several partitions.
    pub(super) fn mixes_partitions(&self) -> bool {
        matches!(self, Self::Kafka(_))
    }

    /// The name of a partition in events, answers and failure records: `topic-partition` or the
    /// shard's id.
    pub(super) fn partition_name(&self, partition: i32) -> String {
        match self {
            Self::Kafka(topic) => format!("{}-{partition}", topic.topic),
            Self::Kinesis(_) => shard_id(partition),
            Self::Table(stream) => stream.shard.clone(),
        }
    }

    /// Bytes of a payload without records.
    pub(super) fn envelope_size(&self) -> usize {
        self.payload(&[]).len()
    }

    /// Extra bytes for the first record of a partition. Kafka: `"topic-0":[]` and a comma.
    pub(super) fn partition_size(&self, partition: i32) -> usize {
        match self {
            Self::Kafka(_) => quoted(&self.partition_name(partition)).len() + 4,
            Self::Kinesis(_) | Self::Table(_) => 0,
        }
    }

    /// The event that carries `records`, which must be sorted by partition and offset.
    pub(super) fn payload(&self, records: &[Record]) -> String {
        match self {
            Self::Kafka(topic) => {
                let partitions: Vec<String> = records
                    .chunk_by(|a, b| a.partition == b.partition)
                    .map(|run| format!("{}:[{}]", quoted(&self.partition_name(run[0].partition)), rows(run)))
                    .collect();
                format!(
                    r#"{{"eventSource":"aws:kafka","eventSourceArn":{},"bootstrapServers":{},"records":{{{}}}}}"#,
                    quoted(&topic.event_source_arn),
                    quoted(&topic.bootstrap_servers),
                    partitions.join(",")
                )
            }
            Self::Kinesis(_) | Self::Table(_) => format!(r#"{{"Records":[{}]}}"#, rows(records)),
        }
    }
}

fn rows(records: &[Record]) -> String {
    let rows: Vec<&str> = records.iter().map(|record| record.json.as_str()).collect();
    rows.join(",")
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
pub(super) mod samples {
    use super::{KafkaRecord, KinesisRecord, Record, Source, Stream, TimestampType, Topic};

    pub(in super::super) fn source() -> Source {
        Source::Kafka(Topic {
            event_source_arn: "arn:aws:kafka:us-east-1:000000000000:cluster/c/1".into(),
            bootstrap_servers: "127.0.0.1:9092".into(),
            topic: "events".into(),
        })
    }

    fn stream() -> Stream {
        Stream {
            arn: "arn:aws:kinesis:us-east-1:000000000000:stream/events".into(),
            role: "arn:aws:iam::000000000000:role/process".into(),
        }
    }

    pub(in super::super) fn stream_source() -> Source {
        Source::Kinesis(stream())
    }

    pub(in super::super) fn record(partition: i32, offset: i64, timestamp: i64) -> Record {
        sized(partition, offset, timestamp, 2)
    }

    pub(in super::super) fn sized(partition: i32, offset: i64, timestamp: i64, bytes: usize) -> Record {
        Record::kafka(&KafkaRecord {
            topic: "events",
            partition,
            offset,
            timestamp,
            timestamp_type: TimestampType::CreateTime,
            key: Some(b"k"),
            value: Some(&vec![b'v'; bytes]),
            headers: Vec::new(),
        })
        .expect("a record encodes")
    }

    /// The record at a place of a stream. Its sequence number comes from [`sequence_number`].
    pub(in super::super) fn streamed(shard: i32, ordinal: i64, arrival: i64, bytes: usize) -> Record {
        let sequence_number = &sequence_number(ordinal);
        let data = &vec![b'v'; bytes];
        let read = KinesisRecord { shard, ordinal, sequence_number, arrival, partition_key: "k", data };
        Record::kinesis(&stream(), &read).expect("a record encodes")
    }

    /// A sequence number, with gaps, and with more digits than any integer type holds.
    pub(in super::super) fn sequence_number(ordinal: i64) -> String {
        format!("4959033827149025660855969253836157109592157{:013}", 7 * ordinal + 3)
    }
}

#[cfg(test)]
mod tests {
    use super::samples::{record, sequence_number, source, stream_source, streamed};
    use super::{KafkaRecord, Record, TimestampType, shard_number};

    #[test]
    fn payload_has_the_documented_form_and_mixes_partitions() {
        let with_headers = Record::kafka(&KafkaRecord {
            topic: "events",
            partition: 1,
            offset: 9,
            timestamp: 7,
            timestamp_type: TimestampType::LogAppendTime,
            key: None,
            value: Some(b"\x00\xff"),
            headers: vec![("trace", &[0x61, 0xff])],
        })
        .expect("encodes");
        let payload = source().payload(&[record(0, 3, 5), record(0, 4, 5), with_headers]);
        let event: serde_json::Value = serde_json::from_str(&payload).expect("valid JSON");
        assert_eq!(
            event,
            serde_json::json!({
                "eventSource": "aws:kafka",
                "eventSourceArn": "arn:aws:kafka:us-east-1:000000000000:cluster/c/1",
                "bootstrapServers": "127.0.0.1:9092",
                "records": {
                    "events-0": [
                        {"topic": "events", "partition": 0, "offset": 3, "timestamp": 5, "timestampType": "CREATE_TIME", "key": "aw==", "value": "dnY=", "headers": []},
                        {"topic": "events", "partition": 0, "offset": 4, "timestamp": 5, "timestampType": "CREATE_TIME", "key": "aw==", "value": "dnY=", "headers": []},
                    ],
                    "events-1": [
                        {"topic": "events", "partition": 1, "offset": 9, "timestamp": 7, "timestampType": "LOG_APPEND_TIME", "value": "AP8=", "headers": [{"trace": [97, -1]}]},
                    ],
                },
            })
        );
    }

    #[test]
    fn payload_of_a_shard_has_the_documented_form() {
        let payload = stream_source().payload(&[streamed(6, 0, 1_545_084_650_987, 2)]);
        let event: serde_json::Value = serde_json::from_str(&payload).expect("valid JSON");
        assert_eq!(
            event,
            serde_json::json!({"Records": [{
                "kinesis": {
                    "kinesisSchemaVersion": "1.0",
                    "partitionKey": "k",
                    "sequenceNumber": sequence_number(0),
                    "data": "dnY=",
                    "approximateArrivalTimestamp": 1_545_084_650.987,
                },
                "eventSource": "aws:kinesis",
                "eventVersion": "1.0",
                "eventID": format!("shardId-000000000006:{}", sequence_number(0)),
                "eventName": "aws:kinesis:record",
                "invokeIdentityArn": "arn:aws:iam::000000000000:role/process",
                "awsRegion": "us-east-1",
                "eventSourceARN": "arn:aws:kinesis:us-east-1:000000000000:stream/events",
            }]})
        );
    }

    #[test]
    fn sizes_add_up_to_at_least_the_payload() {
        let kafka = (source(), vec![record(0, 3, 5), record(0, 4, 5), record(12, 9, 5)]);
        let kinesis = (stream_source(), vec![streamed(3, 3, 5, 2), streamed(3, 4, 5, 700)]);
        for (source, records) in [kafka, kinesis] {
            let partitions = records.chunk_by(|a, b| a.partition == b.partition);
            let sum = source.envelope_size()
                + partitions.map(|run| source.partition_size(run[0].partition)).sum::<usize>()
                + records.iter().map(Record::size).sum::<usize>();
            let payload = source.payload(&records).len();
            assert!(sum >= payload && sum < payload + 10, "{sum} for {payload}");
        }
    }

    #[test]
    fn shard_ids_are_parsed_to_numbers() {
        assert_eq!(shard_number("shardId-000000000012"), Some(12));
        for other in ["shardId-12", "shardId-00000001573689847184-864758bb", "12", "shardId-+00000000012"] {
            assert_eq!(shard_number(other), None, "{other}");
        }
    }
}
