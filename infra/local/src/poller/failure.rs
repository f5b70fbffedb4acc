//! The on-failure destination: what is written about discarded records, and where.
//!
//! The format follows the AWS Lambda Developer Guide, "Capturing discarded batches for Amazon MSK
//! and self-managed Apache Kafka event sources" and "Retain discarded batch records for a Kinesis
//! Data Streams event source in Lambda". An SQS message says which records failed and how. An S3
//! object also carries the whole event as an escaped JSON string in `payload`. The guide gives the
//! name of such an object only for streams, with the shard in it. For Kafka we put the first
//! partition of the batch there.

use anyhow::Context as _;
use aws_sdk_s3::primitives::{ByteStream, DateTime, DateTimeFormat};
use serde_json::{Map, Value, json};

use super::record::{Record, Source, Stream, TableStream};
use super::settle::Discard;

/// Where discarded records go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Destination {
    /// An S3 bucket.
    Bucket(String),
    /// An SQS queue, by its name.
    Queue(String),
}

impl Destination {
    /// Reads the ARN of `DestinationConfig.OnFailure.Destination`.
    ///
    /// # Errors
    /// If it is neither a bucket nor a queue. Other kinds are not emulated.
    pub(super) fn from_arn(arn: &str) -> anyhow::Result<Self> {
        let parts: Vec<&str> = arn.split(':').collect();
        match parts.as_slice() {
            ["arn", _, "s3", "", "", bucket] => Ok(Self::Bucket((*bucket).to_owned())),
            ["arn", _, "sqs", _, _, queue] => Ok(Self::Queue((*queue).to_owned())),
            _ => anyhow::bail!("on-failure destination {arn} is neither an S3 bucket nor an SQS queue"),
        }
    }
}

/// The mapping that discards the records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mapping {
    pub(super) uuid: String,
    pub(super) function_arn: String,
}

/// The failure record of a discard, without the event itself. `now` is in Unix milliseconds.
pub(super) fn failure_record(
    mapping: &Mapping,
    source: &Source,
    discard: &Discard,
    payload_size: usize,
    now: i64,
) -> anyhow::Result<Value> {
    let batch = &discard.batch;
    let response = discard.response.as_ref().map(|response| {
        let mut context = Map::new();
        context.insert("statusCode".into(), response.status.into());
        context.insert("executedVersion".into(), response.executed_version.clone().into());
        if let Some(error) = &response.function_error {
            context.insert("functionError".into(), error.clone().into());
        }
        context
    });
    let request_id = discard.response.as_ref().map(|response| &response.request_id);
    let mut record = json!({
        "requestContext": {
            "requestId": request_id,
            "functionArn": mapping.function_arn,
            "condition": discard.condition.as_str(),
            "approximateInvokeCount": batch.invocations,
        },
        "responseContext": response,
        "version": "1.0",
        "timestamp": iso(now)?,
    });
    let (name, info) = batch_info(source, &batch.records, payload_size)?;
    record[name] = info;
    Ok(record)
}

/// Which records they are, with the field name that this kind of source has in a failure record.
fn batch_info(source: &Source, records: &[Record], payload_size: usize) -> anyhow::Result<(&'static str, Value)> {
    match source {
        Source::Kafka(topic) => {
            let mut records_info = Map::new();
            for run in records.chunk_by(|a, b| a.partition == b.partition) {
                let (first, last) = (&run[0], &run[run.len() - 1]);
                records_info.insert(
                    source.partition_name(first.partition),
                    json!({
                        "firstRecordOffset": first.offset.to_string(),
                        "lastRecordOffset": last.offset.to_string(),
                        "firstRecordTimestamp": iso(first.timestamp)?,
                        "lastRecordTimestamp": iso(last.timestamp)?,
                    }),
                );
            }
            let info = json!({
                "batchSize": records.len(),
                "eventSourceArn": topic.event_source_arn,
                "bootstrapServers": topic.bootstrap_servers,
                "payloadSize": payload_size,
                "recordsInfo": records_info,
            });
            Ok(("KafkaBatchInfo", info))
        }
        Source::Kinesis(Stream { arn, .. }) => Ok(("KinesisBatchInfo", shard_info(source, arn, records)?)),
        Source::Table(TableStream { arn, .. }) => Ok(("DDBStreamBatchInfo", shard_info(source, arn, records)?)),
    }
}

fn shard_info(source: &Source, arn: &str, records: &[Record]) -> anyhow::Result<Value> {
    let (first, last) = records.first().zip(records.last()).context("a discard without records")?;
    Ok(json!({
        "shardId": source.partition_name(first.partition),
        "startSequenceNumber": first.sequence_number,
        "endSequenceNumber": last.sequence_number,
        "approximateArrivalOfFirstRecord": iso(first.timestamp)?,
        "approximateArrivalOfLastRecord": iso(last.timestamp)?,
        "batchSize": records.len(),
        "streamArn": arn,
    }))
}

/// `aws/lambda/<mapping>/<topic-partition or shard>/YYYY/MM/DD/YYYY-MM-DDTHH.MM.SS-<random UUID>`.
fn object_key(mapping: &Mapping, partition: &str, now: i64, random: [u8; 16]) -> anyhow::Result<String> {
    let time = iso(now)?;
    let (day, rest) = time.split_once('T').context("a time without a T")?;
    let clock = rest.get(..8).context("a time without seconds")?;
    Ok(format!(
        "aws/lambda/{}/{partition}/{}/{day}T{}-{}",
        mapping.uuid,
        day.replace('-', "/"),
        clock.replace(':', "."),
        uuid::Builder::from_random_bytes(random).into_uuid()
    ))
}

/// RFC 3339 in UTC, of Unix milliseconds.
fn iso(millis: i64) -> anyhow::Result<String> {
    DateTime::from_millis(millis).fmt(DateTimeFormat::DateTime).with_context(|| format!("invalid time: {millis} ms"))
}

/// Writes discards to a destination.
#[derive(Debug, Clone)]
pub(super) struct FailureSink {
    pub(super) mapping: Mapping,
    pub(super) source: Source,
    pub(super) destination: Destination,
    pub(super) s3: aws_sdk_s3::Client,
    pub(super) sqs: aws_sdk_sqs::Client,
}

impl FailureSink {
    /// Delivers a discard.
    ///
    /// # Errors
    /// If the destination did not accept it.
    pub(super) async fn deliver(&self, discard: &Discard, now: i64) -> anyhow::Result<()> {
        let records = &discard.batch.records;
        let payload = self.source.payload(records);
        let mut body = failure_record(&self.mapping, &self.source, discard, payload.len(), now)?;
        match &self.destination {
            Destination::Bucket(bucket) => {
                body["payload"] = payload.into();
                let first = records.first().context("a discard without records")?;
                let partition = self.source.partition_name(first.partition);
                let key = object_key(&self.mapping, &partition, now, rand::random())?;
                self.s3
                    .put_object()
                    .bucket(bucket)
                    .key(&key)
                    .content_type("application/json")
                    .body(ByteStream::from(body.to_string().into_bytes()))
                    .send()
                    .await
                    .with_context(|| format!("writing s3://{bucket}/{key}"))?;
            }
            Destination::Queue(queue) => {
                let url = self
                    .sqs
                    .get_queue_url()
                    .queue_name(queue)
                    .send()
                    .await
                    .with_context(|| format!("finding the queue {queue}"))?
                    .queue_url
                    .with_context(|| format!("the queue {queue} has no URL"))?;
                self.sqs
                    .send_message()
                    .queue_url(url)
                    .message_body(body.to_string())
                    .send()
                    .await
                    .with_context(|| format!("sending to the queue {queue}"))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::record::samples::{record, sequence_number, source, stream_source, streamed};
    use super::super::settle::{Batch, Condition, Discard, Response};
    use super::{Destination, Mapping, failure_record, object_key};

    fn mapping() -> Mapping {
        Mapping { uuid: "0b3c".into(), function_arn: "arn:aws:lambda:us-east-1:000000000000:function:process".into() }
    }

    fn discard(condition: Condition, response: Option<Response>) -> Discard {
        Discard {
            batch: Batch {
                records: vec![record(0, 3, 1_000), record(0, 5, 2_500), record(1, 7, 0)],
                retries: 2,
                invocations: 3,
                not_before: 0,
            },
            condition,
            response,
        }
    }

    #[test]
    fn failure_record_has_the_documented_form() {
        let response = Response {
            request_id: "r-1".into(),
            status: 200,
            executed_version: "$LATEST".into(),
            function_error: Some("Unhandled".into()),
        };
        let discard = discard(Condition::RetryAttemptsExhausted, Some(response));
        let written = failure_record(&mapping(), &source(), &discard, 321, 1_573_691_886_021);
        assert_eq!(
            written.expect("a record"),
            json!({
                "requestContext": {
                    "requestId": "r-1",
                    "functionArn": "arn:aws:lambda:us-east-1:000000000000:function:process",
                    "condition": "RetryAttemptsExhausted",
                    "approximateInvokeCount": 3,
                },
                "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
                "version": "1.0",
                "timestamp": "2019-11-14T00:38:06.021Z",
                "KafkaBatchInfo": {
                    "batchSize": 3,
                    "eventSourceArn": "arn:aws:kafka:us-east-1:000000000000:cluster/c/1",
                    "bootstrapServers": "127.0.0.1:9092",
                    "payloadSize": 321,
                    "recordsInfo": {
                        "events-0": {
                            "firstRecordOffset": "3",
                            "lastRecordOffset": "5",
                            "firstRecordTimestamp": "1970-01-01T00:00:01Z",
                            "lastRecordTimestamp": "1970-01-01T00:00:02.5Z",
                        },
                        "events-1": {
                            "firstRecordOffset": "7",
                            "lastRecordOffset": "7",
                            "firstRecordTimestamp": "1970-01-01T00:00:00Z",
                            "lastRecordTimestamp": "1970-01-01T00:00:00Z",
                        },
                    },
                },
            })
        );
    }

    #[test]
    fn failure_record_of_a_shard_has_the_documented_form() {
        let mut discard = discard(Condition::RetryAttemptsExhausted, Some(Response::default()));
        discard.batch.records = vec![streamed(1, 4, 1_573_691_884_835, 2), streamed(1, 5, 1_573_691_885_580, 2)];
        let written = failure_record(&mapping(), &stream_source(), &discard, 321, 0).expect("a record");
        assert_eq!(written["requestContext"]["approximateInvokeCount"], 3);
        assert_eq!(written.get("KafkaBatchInfo"), None);
        assert_eq!(
            written["KinesisBatchInfo"],
            json!({
                "shardId": "shardId-000000000001",
                "startSequenceNumber": sequence_number(4),
                "endSequenceNumber": sequence_number(5),
                "approximateArrivalOfFirstRecord": "2019-11-14T00:38:04.835Z",
                "approximateArrivalOfLastRecord": "2019-11-14T00:38:05.58Z",
                "batchSize": 2,
                "streamArn": "arn:aws:kinesis:us-east-1:000000000000:stream/events",
            })
        );
    }

    #[test]
    fn failure_record_without_an_invocation_has_no_response() {
        let discard = discard(Condition::MaximumPayloadSizeExceeded, None);
        let written = failure_record(&mapping(), &source(), &discard, 1, 0).expect("a record");
        assert_eq!(written["responseContext"], json!(null));
        assert_eq!(written["requestContext"]["condition"], "MaximumPayloadSizeExceeded");
    }

    #[test]
    fn object_key_has_the_documented_form() {
        assert_eq!(
            object_key(&mapping(), "events-0", 1_573_691_886_021, [0; 16]).expect("a key"),
            "aws/lambda/0b3c/events-0/2019/11/14/2019-11-14T00.38.06-00000000-0000-4000-8000-000000000000"
        );
    }

    #[test]
    fn destinations_are_buckets_and_queues() {
        let read = |arn| Destination::from_arn(arn).ok();
        assert_eq!(read("arn:aws:s3:::failures"), Some(Destination::Bucket("failures".into())));
        assert_eq!(read("arn:aws:sqs:us-east-1:000000000000:q"), Some(Destination::Queue("q".into())));
        assert_eq!(read("kafka://topic"), None);
    }
}
