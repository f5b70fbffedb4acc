//! What could not be applied at once: letters on the queue `retry`, and batches in the failure
//! bucket that Lambda discarded. They end applied, or as dead letters with their history.

use anyhow::{Context as _, Result};
use apply::{DeadLetter, Failure, Letter};
use aws_sdk_s3::primitives::ByteStream;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use lambda::batch::Source;
use local::functions::configure;
use local::proxy::{Fault, FaultProxy, Rule, When};
use playhead_tests::queues::due;
use serde_json::{Value, json};

use super::cloud::{Cloud, Need, eventually, now_ms, run, run_alone};
use super::member::{Member, Viewing};
use super::poison::record;

/// The letter of a record that could not be applied before.
fn letter(source: Source, value: &[u8], attempts: u32, first_error: Option<Failure>) -> Letter {
    Letter {
        source,
        key_base64: None,
        value_base64: BASE64_STANDARD.encode(value),
        attempts,
        last_error: first_error.clone(),
        first_error,
        redrives: Vec::new(),
    }
}

async fn send(cloud: &Cloud, body: String) -> Result<()> {
    cloud.sqs.send_message().queue_url(&cloud.endpoints.retry_queue_url).message_body(body).send().await?;
    Ok(())
}

/// Puts the object into the bucket that Lambda writes when it discards a batch: the record of the
/// invocation, in the form of the developer guide ("Capturing discarded batches"), with the whole
/// event as a string in `payload`.
async fn discard(cloud: &Cloud, place: &str, batch_info: (&str, Value), event: &Value) -> Result<String> {
    let mut object = json!({
        "requestContext": {
            "requestId": "316aa6d0-8154-xmpl-9af7-85d5f4a6bc81",
            "functionArn": format!("arn:aws:lambda:us-east-1:000000000000:function:{}", cloud.endpoints.process_function),
            "condition": "RetryAttemptsExhausted",
            "approximateInvokeCount": 11
        },
        "responseContext": { "statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled" },
        "version": "1.0",
        "timestamp": "2026-11-14T00:38:06.021Z",
        "payload": event.to_string(),
    });
    object[batch_info.0] = batch_info.1;
    // Its key has characters that a notification encodes.
    let key = format!("aws/lambda/a1b2c3d4/{place}/2026/11/14/2026-11-14T00.38.06-{place} (+é).json");
    let put = aws_sdk_s3::Client::new(&cloud.endpoints.sdk_config())
        .put_object()
        .bucket(&cloud.endpoints.failure_bucket)
        .key(&key);
    put.body(ByteStream::from(object.to_string().into_bytes())).send().await?;
    Ok(key)
}

async fn until_deleted(cloud: &Cloud, key: &str) -> Result<()> {
    let s3 = aws_sdk_s3::Client::new(&cloud.endpoints.sdk_config());
    eventually("the deletion of the object", async || {
        let listed = s3.list_objects_v2().bucket(&cloud.endpoints.failure_bucket).send().await?;
        Ok(listed.contents().iter().all(|object| object.key() != Some(key)).then_some(()))
    })
    .await
}

#[test]
fn discarded_kafka_batch_is_applied_and_its_object_deleted() -> Result<()> {
    run(async |cloud| {
        let member = Member::new(cloud, "discarded-msk");
        let (first, second) = (Viewing::begin(&member, "t1"), Viewing::begin(&member, "t2"));
        let topic = "discarded-msk";
        let of = |offset: i64, value: &[u8]| {
            json!({ "topic": topic, "partition": 3, "offset": offset, "timestamp": now_ms(), "timestampType": "CREATE_TIME",
                "key": BASE64_STANDARD.encode(first.id()), "value": BASE64_STANDARD.encode(value), "headers": [] })
        };
        let garbage = b"\xff\xfe never an envelope";
        let records = [
            of(7, &record(&first, &member, 0)),
            of(8, garbage),
            of(9, &record(&first, &member, 1)),
            of(10, &record(&second, &member, 0)),
        ];
        let cluster = "arn:aws:kafka:us-east-1:000000000000:cluster/playhead-local/0-1";
        let brokers = "127.0.0.1:9092";
        let event = json!({ "eventSource": "aws:kafka", "eventSourceArn": cluster, "bootstrapServers": brokers,
            "records": { format!("{topic}-3"): records } });
        let info = json!({ "batchSize": 4, "eventSourceArn": cluster, "bootstrapServers": brokers, "payloadSize": event.to_string().len(),
            "recordsInfo": { format!("{topic}-3"): { "firstRecordOffset": "7", "lastRecordOffset": "10" } } });
        let key = discard(cloud, "discarded-msk-3", ("KafkaBatchInfo", info), &event).await?;

        member.history_with(&[(&first, 2), (&second, 1)]).await?;
        let source = Source::Kafka { topic: topic.to_owned(), partition: 3, offset: 8 };
        let dead = cloud.dead_letter("of the bucket", |dead| dead.letter.source == source).await?;
        assert_eq!(
            (dead.reason.as_str(), dead.letter.value_base64),
            ("not_an_envelope", BASE64_STANDARD.encode(garbage))
        );
        until_deleted(cloud, &key).await
    })
}

#[test]
fn discarded_kinesis_batch_is_applied_and_its_object_deleted() -> Result<()> {
    run(async |cloud| {
        let member = Member::new(cloud, "discarded-kinesis");
        let viewing = Viewing::begin(&member, "t1");
        let (stream, shard) = ("arn:aws:kinesis:us-east-1:000000000000:stream/discarded", "shardId-000000000006");
        let of = |number: &str, value: &[u8]| {
            json!({ "eventID": format!("{shard}:{number}"), "eventName": "aws:kinesis:record", "eventSource": "aws:kinesis",
                "eventSourceARN": stream, "eventVersion": "1.0", "awsRegion": "us-east-1",
                "kinesis": { "kinesisSchemaVersion": "1.0", "partitionKey": viewing.id(), "sequenceNumber": number,
                    "data": BASE64_STANDARD.encode(value), "approximateArrivalTimestamp": 1_545_084_650.987 } })
        };
        let event = json!({ "Records": [of("49590338271490256608559692540925702759324208523137515618", &record(&viewing, &member, 0)),
            of("49590338271490256608559692540925702759324208523137515619", &record(&viewing, &member, 1))] });
        let info = json!({ "shardId": shard, "streamArn": stream, "batchSize": 2,
            "startSequenceNumber": "49590338271490256608559692540925702759324208523137515618",
            "endSequenceNumber": "49590338271490256608559692540925702759324208523137515619",
            "approximateArrivalOfFirstRecord": "2026-11-14T00:38:04.835Z", "approximateArrivalOfLastRecord": "2026-11-14T00:38:05.580Z" });
        let key = discard(cloud, shard, ("KinesisBatchInfo", info), &event).await?;

        member.history_with(&[(&viewing, 2)]).await?;
        until_deleted(cloud, &key).await
    })
}

#[test]
fn letters_are_applied_and_poison_among_them_is_dead() -> Result<()> {
    run(async |cloud| {
        let member = Member::new(cloud, "retried-letters");
        let viewing = Viewing::begin(&member, "t1");
        let of = |offset: i64, value: &[u8]| {
            let source = Source::Kafka { topic: "letters".to_owned(), partition: 99, offset };
            letter(source, value, 3, None)
        };
        member.post(&viewing.events(1)).await?;
        let (one, poison) = (of(1, &record(&viewing, &member, 1)), of(2, b"garbage"));
        // The first one twice, as a queue may deliver it: it counts once.
        for letter in [&one, &one, &poison, &of(3, &record(&viewing, &member, 2))] {
            send(cloud, serde_json::to_string(letter)?).await?;
        }
        send(cloud, "not a letter".to_owned()).await?;
        member.history_with(&[(&viewing, 3)]).await?;

        let dead = cloud.dead_letter("of a letter", |dead| dead.letter.source == poison.source).await?;
        assert_eq!((dead.reason.as_str(), dead.letter), ("not_an_envelope", Letter { attempts: 4, ..poison }));
        let unreadable = BASE64_STANDARD.encode("not a letter");
        let dead = cloud.dead_letter("not a letter", |dead| dead.letter.value_base64 == unreadable).await?;
        assert_eq!(dead.reason, "unreadable_message");
        Ok(())
    })
}

#[test]
fn letter_is_dead_after_its_attempts_with_its_history() -> Result<()> {
    run_alone(async |cloud, _| {
        if cloud.lacks(&[Need::FunctionsHere]) {
            return Ok(());
        }
        let endpoints = &cloud.endpoints;
        let member = Member::new(cloud, "hopeless");
        let viewing = Viewing::begin(&member, "t1");
        let source = Source::Kafka { topic: "hopeless".to_owned(), partition: 2, offset: 5 };
        let (value, parked_at) = (record(&viewing, &member, 0), now_ms());
        let at_first = Failure { cause: "store_throttled".to_owned(), detail: "too much".to_owned(), at: parked_at };

        let proxy = FaultProxy::start(&endpoints.aws_endpoint, 5).await?;
        let fault = Fault::Error(400, "ValidationException");
        proxy.set(vec![Rule::always("no write", "BatchExecuteStatement", When::Before, fault)]);
        let function = &endpoints.retry_function;
        let variables = [("AWS_ENDPOINT_URL_DYNAMODB", Some(proxy.url.as_str())), ("RETRY_MAX_ATTEMPTS", Some("2"))];
        configure(endpoints, function, &variables).await?;
        let found = async {
            send(cloud, serde_json::to_string(&letter(source.clone(), &value, 0, Some(at_first.clone())))?).await?;
            cloud.dead_letter("after two attempts", |dead| dead.letter.source == source).await
        };
        let found = found.await;
        // Pass or fail, later tests need the function unchanged.
        configure(endpoints, function, &[("AWS_ENDPOINT_URL_DYNAMODB", None), ("RETRY_MAX_ATTEMPTS", Some("16"))])
            .await?;

        let dead = found?;
        assert_eq!((dead.reason.as_str(), dead.letter.attempts), ("attempts_exhausted", 2), "{dead:?}");
        assert_eq!(BASE64_STANDARD.decode(&dead.letter.value_base64)?, value);
        assert_eq!(dead.letter.first_error, Some(at_first), "the first error is kept");
        let last = dead.letter.last_error.context("no last error")?;
        assert_eq!(last.cause, "store_refused");
        assert!(parked_at <= last.at && last.at <= dead.dead_at, "{last:?} {}", dead.dead_at);
        assert!(proxy.done().await["no write"] >= 2, "each attempt called the store");
        assert!(cloud.stored(&viewing).await?.is_none(), "it was never applied");
        Ok(())
    })
}

#[test]
fn s3_test_event_is_not_dead_lettered() -> Result<()> {
    run_alone(async |cloud, _| {
        let queue = &cloud.endpoints.retry_queue_url;
        // S3 sent one when the bucket was made; this one is sent while the test looks.
        let body = json!({ "Service": "Amazon S3", "Event": "s3:TestEvent", "Time": "2026-11-14T00:38:06.021Z",
            "Bucket": cloud.endpoints.failure_bucket, "RequestId": "5582815E1AEA5ADF", "HostId": "8cLeGAmw098X5cv4Zkwcmo8vvZa3eH3eKxsPzbB9wrR" });
        send(cloud, body.to_string()).await?;
        eventually("an empty queue", async || Ok((due(&cloud.endpoints, queue).await? == 0).then_some(()))).await?;
        let is_it = |dead: &DeadLetter| {
            let bytes = BASE64_STANDARD.decode(&dead.letter.value_base64).unwrap_or_default();
            String::from_utf8_lossy(&bytes).contains("s3:TestEvent")
        };
        assert_eq!(cloud.count_dead_letters(is_it).await?, 0);
        Ok(())
    })
}
