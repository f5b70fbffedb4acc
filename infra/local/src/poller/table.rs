//! Reads the stream of a DynamoDB table.
//!
//! The form of a record is that of the example event in the AWS Lambda Developer Guide, "Using AWS
//! Lambda with Amazon DynamoDB".

use std::collections::HashMap;

use anyhow::{Context as _, Result, bail};
use aws_config::SdkConfig;
use aws_sdk_dynamodbstreams::types::{AttributeValue, Record as Read, ShardIteratorType};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use tracing::warn;

use super::record::Record;
use super::settings::StartingPosition;
use super::shards::{AFTER_ERROR, Checkpoints, IDLE, Reading, ShardLog};
use crate::table_stream::TableReader;

/// The number of the only shard.
const SHARD: i32 = 0;

/// Starts reading a stream after its checkpoint, or at the starting position. Returns the id of its
/// shard too.
///
/// # Errors
/// If the stream cannot be read.
pub(super) async fn open(
    sdk: &SdkConfig,
    arn: &str,
    mapping: &str,
    from: StartingPosition,
    checkpoints: Checkpoints,
) -> Result<(String, ShardLog)> {
    let from = match from {
        StartingPosition::TrimHorizon => ShardIteratorType::TrimHorizon,
        StartingPosition::Latest => ShardIteratorType::Latest,
    };
    let reader = TableReader::open(sdk, arn, from, checkpoints.get(mapping, SHARD)).await?;
    let (shard, arn) = (reader.shard().to_owned(), arn.to_owned());
    let (mut log, reads) = ShardLog::new(mapping, checkpoints);
    log.spawn(&reads, |reading| run(reader, arn, reading));
    Ok((shard, log))
}

/// Reads until the receiver is gone. Retries errors.
async fn run(mut reader: TableReader, arn: String, Reading { reads, mut full }: Reading) -> Result<()> {
    let (shortest, longest) = IDLE;
    let (mut idle, mut ordinal, mut failing) = (shortest, 0, false);
    while full.wait_for(|full| !full.contains(&SHARD)).await.is_ok() {
        match reader.read().await {
            Ok(read) if read.is_empty() => {
                idle = longest.min(idle * 2);
                tokio::time::sleep(idle).await;
            }
            Ok(read) => {
                (idle, failing) = (shortest, false);
                let records: Vec<Record> =
                    (ordinal..).zip(&read).map(|(ordinal, read)| encode(ordinal, read, &arn)).collect::<Result<_>>()?;
                ordinal += i64::try_from(records.len())?;
                if reads.send(records).await.is_err() {
                    break;
                }
            }
            Err(error) => {
                // Warn once per outage.
                if !failing {
                    warn!(error = format!("{error:#}"), "reading failed; will retry");
                }
                failing = true;
                tokio::time::sleep(AFTER_ERROR).await;
            }
        }
    }
    Ok(())
}

fn encode(ordinal: i64, read: &Read, arn: &str) -> Result<Record> {
    let change = read.dynamodb.as_ref().context("a record without a change")?;
    let sequence_number = change.sequence_number.clone().context("a record without a sequence number")?;
    let at = change.approximate_creation_date_time.context("a record without a time")?;
    let mut data = json!({
        "ApproximateCreationDateTime": at.as_secs_f64(),
        "SequenceNumber": sequence_number,
        "SizeBytes": change.size_bytes,
        "StreamViewType": change.stream_view_type.as_ref().map(|kind| kind.as_str()),
    });
    let images = [("Keys", &change.keys), ("OldImage", &change.old_image), ("NewImage", &change.new_image)];
    for (name, image) in images {
        if let Some(image) = image {
            data[name] = item(image)?;
        }
    }
    let json = json!({
        "eventID": read.event_id,
        "eventName": read.event_name.as_ref().map(|name| name.as_str()),
        "eventVersion": read.event_version,
        "eventSource": "aws:dynamodb",
        "awsRegion": read.aws_region,
        "dynamodb": data,
        "eventSourceARN": arn,
    });
    Ok(Record::of_table(ordinal, sequence_number, at.to_millis()?, json.to_string()))
}

fn item(attributes: &HashMap<String, AttributeValue>) -> Result<Value> {
    let attributes = attributes.iter().map(|(name, value)| Ok((name.clone(), attribute(value)?)));
    Ok(Value::Object(attributes.collect::<Result<Map<_, _>>>()?))
}

fn attribute(value: &AttributeValue) -> Result<Value> {
    Ok(match value {
        AttributeValue::S(text) => json!({ "S": text }),
        AttributeValue::N(number) => json!({ "N": number }),
        AttributeValue::B(bytes) => json!({ "B": STANDARD.encode(bytes) }),
        AttributeValue::Bool(is) => json!({ "BOOL": is }),
        AttributeValue::Null(is) => json!({ "NULL": is }),
        AttributeValue::Ss(texts) => json!({ "SS": texts }),
        AttributeValue::Ns(numbers) => json!({ "NS": numbers }),
        AttributeValue::Bs(bytes) => {
            json!({ "BS": bytes.iter().map(|bytes| STANDARD.encode(bytes)).collect::<Vec<_>>() })
        }
        AttributeValue::L(values) => json!({ "L": values.iter().map(attribute).collect::<Result<Vec<_>>>()? }),
        AttributeValue::M(values) => json!({ "M": item(values)? }),
        other => bail!("unknown kind of attribute: {other:?}"),
    })
}
