//! Golden: the example events of the AWS Lambda developer guide (chapters MSK, SQS, Kinesis).
//! Property: parsing loses no record.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn msk_example() -> Value {
    json!({
        "eventSource": "aws:kafka",
        "eventSourceArn": "arn:aws:kafka:us-east-1:123456789012:cluster/vpc-2priv-2pub/751d2973-a626-431c-9d4e-d7975eb44dd7-2",
        "bootstrapServers": "b-2.demo-cluster-1.a1bcde.c1.kafka.us-east-1.amazonaws.com:9092",
        "records": {
            "mytopic-0": [{
                "topic": "mytopic",
                "partition": 0,
                "offset": 15,
                "timestamp": 1545084650987_u64,
                "timestampType": "CREATE_TIME",
                "key": "abcDEFghiJKLmnoPQRstuVWXyz1234==",
                "value": "SGVsbG8sIHRoaXMgaXMgYSB0ZXN0Lg==",
                "headers": [{"headerKey": [104, 101, 97, 100, 101, 114, 86, 97, 108, 117, 101]}]
            }]
        }
    })
}

fn sqs_example() -> Value {
    json!({"Records": [{
        "messageId": "059f36b4-87a3-44ab-83d2-661975830a7d",
        "receiptHandle": "AQEBwJnKyrHigUMZj6rYigCgxlaS3SLy0a...",
        "body": "Test message.",
        "attributes": {
            "ApproximateReceiveCount": "1",
            "SentTimestamp": "1545082649183",
            "SenderId": "AIDAIENQZJOLO23YVJ4VO",
            "ApproximateFirstReceiveTimestamp": "1545082649185"
        },
        "messageAttributes": {
            "myAttribute": {"stringValue": "myValue", "stringListValues": [], "binaryListValues": [], "dataType": "String"}
        },
        "md5OfBody": "e4e68fb7bd0e697a0ae8f1bb342846b3",
        "eventSource": "aws:sqs",
        "eventSourceARN": "arn:aws:sqs:us-east-2:123456789012:my-queue",
        "awsRegion": "us-east-2"
    }]})
}

fn kinesis_example() -> Value {
    json!({"Records": [{
        "kinesis": {
            "kinesisSchemaVersion": "1.0",
            "partitionKey": "1",
            "sequenceNumber": "49590338271490256608559692538361571095921575989136588898",
            "data": "SGVsbG8sIHRoaXMgaXMgYSB0ZXN0Lg==",
            "approximateArrivalTimestamp": 1545084650.987
        },
        "eventSource": "aws:kinesis",
        "eventVersion": "1.0",
        "eventID": "shardId-000000000006:49590338271490256608559692538361571095921575989136588898",
        "eventName": "aws:kinesis:record",
        "invokeIdentityArn": "arn:aws:iam::123456789012:role/lambda-role",
        "awsRegion": "us-east-2",
        "eventSourceARN": "arn:aws:kinesis:us-east-2:123456789012:stream/lambda-stream"
    }]})
}

fn parse(event: &Value) -> Result<Batch, BatchError> {
    Batch::parse(event.to_string().as_bytes())
}

/// Parses an event of one record, and answers that it failed.
fn only_record_and_its_answer(event: &Value) -> (Record, String) {
    let mut records = parse(event).unwrap().records;
    assert_eq!(records.len(), 1);
    let record = records.remove(0);
    let answer = serde_json::to_string(&answer([&record.source])).unwrap();
    (record, answer)
}

#[test]
fn kafka_example_of_the_guide() {
    let (record, answer) = only_record_and_its_answer(&msk_example());
    assert_eq!(record.source, Source::Kafka { topic: "mytopic".into(), partition: 0, offset: 15 });
    assert_eq!(record.key.unwrap().len(), 22, "the guide's own key has unused trailing bits");
    assert_eq!(record.value.unwrap(), "Hello, this is a test.");
    assert_eq!(answer, r#"{"batchItemFailures":[{"itemIdentifier":{"partition":"mytopic-0","offset":15}}]}"#);
}

#[test]
fn sqs_example_of_the_guide() {
    let (record, answer) = only_record_and_its_answer(&sqs_example());
    let queue = "arn:aws:sqs:us-east-2:123456789012:my-queue".to_owned();
    let message_id = "059f36b4-87a3-44ab-83d2-661975830a7d".to_owned();
    assert_eq!(record.source, Source::Sqs { queue, message_id });
    assert_eq!((record.key, record.value.unwrap()), (None, Bytes::from("Test message.")));
    assert_eq!(answer, r#"{"batchItemFailures":[{"itemIdentifier":"059f36b4-87a3-44ab-83d2-661975830a7d"}]}"#);
}

#[test]
fn kinesis_example_of_the_guide() {
    let (record, answer) = only_record_and_its_answer(&kinesis_example());
    let number = "49590338271490256608559692538361571095921575989136588898";
    let stream = "arn:aws:kinesis:us-east-2:123456789012:stream/lambda-stream".to_owned();
    let shard = "shardId-000000000006".to_owned();
    assert_eq!(record.source, Source::Kinesis { stream, shard, sequence_number: number.into() });
    assert_eq!((record.key.unwrap(), record.value.unwrap()), ("1".into(), "Hello, this is a test.".into()));
    assert_eq!(answer, format!(r#"{{"batchItemFailures":[{{"itemIdentifier":"{number}"}}]}}"#));
}

#[test]
fn self_managed_kafka_is_kafka() {
    let mut event = msk_example();
    event["eventSource"] = json!("SelfManagedKafka");
    assert_eq!(parse(&event).unwrap(), parse(&msk_example()).unwrap());
}

#[test]
fn empty_answer_requires_no_failures() {
    assert_eq!(serde_json::to_string(&answer([])).unwrap(), r#"{"batchItemFailures":[]}"#);
}

#[test]
fn source_json_of_a_dead_letter() {
    let source = parse(&msk_example()).unwrap().records.remove(0).source;
    assert_eq!(
        serde_json::to_value(source).unwrap(),
        json!({"kind": "msk", "topic": "mytopic", "partition": 0, "offset": 15})
    );
}

#[test]
fn bad_record_keeps_its_original_text() {
    let mut tombstone = msk_example();
    tombstone["records"]["mytopic-0"][0]["value"] = Value::Null;
    assert_eq!(only_record_and_its_answer(&tombstone).0.value, Err(BadRecord::NoValue));

    let mut bad_value = msk_example();
    bad_value["records"]["mytopic-0"][0]["value"] = json!("not base64!");
    let bad = only_record_and_its_answer(&bad_value).0.value.unwrap_err();
    assert_eq!((bad.original(), bad.to_string().as_str()), (&b"not base64!"[..], "the record's value is not base64"));

    let mut bad_key = msk_example();
    bad_key["records"]["mytopic-0"][0]["key"] = json!("*");
    let bad = only_record_and_its_answer(&bad_key).0.value.unwrap_err();
    assert_eq!(bad, BadRecord::NotBase64 { part: "key", text: "*".into() });

    let mut bad_data = kinesis_example();
    bad_data["Records"][0]["kinesis"]["data"] = json!("%");
    assert_eq!(only_record_and_its_answer(&bad_data).0.value.unwrap_err().original(), b"%");
}

#[test]
fn unanswerable_batches_are_errors() {
    let without = |mut event: Value, part: &str| {
        event["Records"][0].as_object_mut().unwrap().remove(part);
        event
    };
    let mut mislabelled = msk_example();
    mislabelled["records"]["mytopic-0"][0]["partition"] = json!(1);
    let mut two_numbers = kinesis_example();
    two_numbers["Records"][0]["kinesis"]["sequenceNumber"] = json!("1");
    let mut two_triggers = sqs_example();
    two_triggers["Records"].as_array_mut().unwrap().push(kinesis_example()["Records"][0].clone());
    let cases = [
        json!({}),
        json!(null),
        json!([]),
        json!({"Records": []}),
        json!({"records": {}}),
        json!({"eventSource": "aws:kafka"}),
        json!({"eventSource": "aws:mq", "records": {}}),
        json!({"Records": [{"eventSource": "aws:s3"}]}),
        without(sqs_example(), "messageId"),
        without(sqs_example(), "eventSourceARN"),
        without(kinesis_example(), "eventID"),
        mislabelled,
        two_numbers,
        two_triggers,
    ];
    for event in cases {
        assert!(parse(&event).is_err(), "{event}");
    }
    assert!(Batch::parse(b"{").is_err());
}

/// The runtime passes a function its event as raw JSON through `serde_path_to_error`; this must
/// keep working.
#[test]
fn the_runtime_can_hand_over_the_raw_event() {
    let text = kinesis_example().to_string();
    let raw: Box<RawValue> = serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_str(&text)).unwrap();
    assert_eq!(Batch::parse(raw.get().as_bytes()).unwrap().records.len(), 1);
}

fn kafka_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..40).prop_map(|bytes| json!(BASE64.encode(bytes))),
        1 => Just(Value::Null),
        1 => any::<String>().prop_map(Value::from),
    ]
}

proptest! {
    #[test]
    fn every_kafka_record_is_parsed_and_can_be_named(
        partitions in prop::collection::btree_map(
            ("[a-z][a-z0-9.-]{0,8}", 0..50_i32),
            (0..1_000_000_i64, prop::collection::vec(kafka_value(), 0..20)),
            0..8,
        )
    ) {
        let mut expected = BTreeSet::new();
        let mut records = serde_json::Map::new();
        for ((topic, partition), (first, values)) in partitions {
            let list: Vec<Value> = values.into_iter().zip(first..).map(|(value, offset)| {
                expected.insert((format!("{topic}-{partition}"), offset));
                json!({"topic": topic, "partition": partition, "offset": offset, "value": value})
            }).collect();
            records.insert(format!("{topic}-{partition}"), list.into());
        }
        let batch = parse(&json!({"eventSource": "aws:kafka", "records": records})).unwrap();
        prop_assert_eq!(batch.records.len(), expected.len());
        let all_failed = serde_json::to_value(answer(batch.records.iter().map(|record| &record.source))).unwrap();
        let named: BTreeSet<_> = all_failed["batchItemFailures"].as_array().unwrap().iter().map(|failure| {
            let id = &failure["itemIdentifier"];
            (id["partition"].as_str().unwrap().to_owned(), id["offset"].as_i64().unwrap())
        }).collect();
        prop_assert_eq!(named, expected);
    }

    #[test]
    fn kafka_values_round_trip(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut event = msk_example();
        event["records"]["mytopic-0"][0]["value"] = json!(BASE64.encode(&bytes));
        let value = parse(&event).unwrap().records.remove(0).value.unwrap();
        prop_assert_eq!(value.as_ref(), &bytes[..]);
    }

    #[test]
    fn no_bytes_make_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Batch::parse(&bytes).is_err());
    }
}
