//! Records in the form in which a function receives them, and the payload that carries them.
//!
//! Pure. A record is encoded once, when it arrives, so that the size of a payload is known before
//! it is assembled and the same bytes go to the function and to the on-failure destination.
//! Source of the form: AWS Lambda Developer Guide, "Using Lambda with Amazon MSK", example event.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

/// What the `timestamp` of a record means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum TimestampType {
    /// Set by the producer.
    CreateTime,
    /// Set by the broker.
    LogAppendTime,
}

/// A record as the consumer read it.
#[derive(Debug, Clone)]
pub(super) struct Incoming<'a> {
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

/// A record encoded for the payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) partition: i32,
    pub(super) offset: i64,
    /// Unix milliseconds.
    pub(super) timestamp: i64,
    /// The JSON object that stands in the payload.
    json: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Wire<'a> {
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

impl Record {
    /// Encodes what the consumer read.
    ///
    /// # Errors
    /// Only if serde_json cannot write a plain struct, which would be a bug.
    pub(super) fn encode(incoming: &Incoming<'_>) -> serde_json::Result<Self> {
        let signed = |bytes: &[u8]| bytes.iter().map(|byte| byte.cast_signed()).collect();
        let wire = Wire {
            topic: incoming.topic,
            partition: incoming.partition,
            offset: incoming.offset,
            timestamp: incoming.timestamp,
            timestamp_type: incoming.timestamp_type,
            key: incoming.key.map(|key| STANDARD.encode(key)),
            value: incoming.value.map(|value| STANDARD.encode(value)),
            headers: incoming.headers.iter().map(|(name, value)| BTreeMap::from([(*name, signed(value))])).collect(),
        };
        Ok(Self {
            partition: incoming.partition,
            offset: incoming.offset,
            timestamp: incoming.timestamp,
            json: serde_json::to_string(&wire)?,
        })
    }

    /// Bytes that this record adds to a payload, its separator included.
    pub(super) fn size(&self) -> usize {
        self.json.len() + 1
    }
}

/// Where the records of a mapping come from: the constant part of each payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) event_source_arn: String,
    pub(super) bootstrap_servers: String,
    pub(super) topic: String,
}

impl Source {
    /// `topic-partition`, the name of a partition in events, answers and failure records.
    pub(super) fn partition_name(&self, partition: i32) -> String {
        format!("{}-{partition}", self.topic)
    }

    /// Bytes of a payload without records.
    pub(super) fn envelope_size(&self) -> usize {
        self.payload(&[]).len()
    }

    /// Bytes that the first record of a partition adds besides itself: `"topic-0":[]` and a comma.
    pub(super) fn partition_size(&self, partition: i32) -> usize {
        quoted(&self.partition_name(partition)).len() + 4
    }

    /// The event for `records`, which must be sorted by partition and offset.
    pub(super) fn payload(&self, records: &[Record]) -> String {
        let partitions: Vec<String> = records
            .chunk_by(|a, b| a.partition == b.partition)
            .map(|run| {
                let name = quoted(&self.partition_name(run[0].partition));
                let rows: Vec<&str> = run.iter().map(|record| record.json.as_str()).collect();
                format!("{name}:[{}]", rows.join(","))
            })
            .collect();
        format!(
            r#"{{"eventSource":"aws:kafka","eventSourceArn":{},"bootstrapServers":{},"records":{{{}}}}}"#,
            quoted(&self.event_source_arn),
            quoted(&self.bootstrap_servers),
            partitions.join(",")
        )
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
pub(super) mod samples {
    use super::{Incoming, Record, Source, TimestampType};

    pub(in super::super) fn source() -> Source {
        Source {
            event_source_arn: "arn:aws:kafka:us-east-1:000000000000:cluster/c/1".into(),
            bootstrap_servers: "127.0.0.1:9092".into(),
            topic: "events".into(),
        }
    }

    pub(in super::super) fn record(partition: i32, offset: i64, timestamp: i64) -> Record {
        sized(partition, offset, timestamp, 2)
    }

    pub(in super::super) fn sized(partition: i32, offset: i64, timestamp: i64, bytes: usize) -> Record {
        Record::encode(&Incoming {
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
}

#[cfg(test)]
mod tests {
    use super::samples::{record, source};
    use super::{Incoming, Record, TimestampType};

    #[test]
    fn payload_has_the_documented_form_and_mixes_partitions() {
        let with_headers = Record::encode(&Incoming {
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
    fn sizes_add_up_to_at_least_the_payload() {
        let source = source();
        let records = [record(0, 3, 5), record(0, 4, 5), record(12, 9, 5)];
        let sum = source.envelope_size()
            + source.partition_size(0)
            + source.partition_size(12)
            + records.iter().map(Record::size).sum::<usize>();
        let payload = source.payload(&records).len();
        assert!(sum >= payload && sum < payload + 10, "{sum} for {payload}");
    }
}
