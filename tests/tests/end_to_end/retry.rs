//! What could not be applied at first: letters on the queue `retry`, and batches in the failure bucket.

use anyhow::Result;
use apply::Letter;
use aws_sdk_s3::primitives::ByteStream;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use lambda::batch::Source;
use serde_json::json;

use super::cloud::{Cloud, eventually, run};
use super::member::{Member, Viewing};
use super::poison::record;

async fn send(cloud: &Cloud, body: String) -> Result<()> {
    cloud.sqs.send_message().queue_url(&cloud.endpoints.retry_queue_url).message_body(body).send().await?;
    Ok(())
}

/// A letter of a record on a partition that does not exist, tried so often.
fn letter(offset: i64, value: &[u8], attempts: u32) -> Letter {
    Letter {
        source: Source::Kafka { topic: "letters".to_owned(), partition: 99, offset },
        key_base64: None,
        value_base64: BASE64_STANDARD.encode(value),
        attempts,
        first_error: None,
        last_error: None,
        redrives: Vec::new(),
    }
}

#[test]
fn letters_are_applied_and_poison_among_them_is_dead_with_its_history() -> Result<()> {
    run(async |cloud| {
        let member = Member::new(cloud, "retried-letters");
        let viewing = Viewing::begin(&member, "t1");
        for seq in 0..2 {
            send(cloud, serde_json::to_string(&letter(seq, &record(&viewing, &member, seq as u16), 3))?).await?;
        }
        send(cloud, serde_json::to_string(&letter(2, b"garbage", 3))?).await?;
        send(cloud, "no letter at all".to_owned()).await?;
        member.history_with(&[(&viewing, 2)]).await?;

        let poison = letter(2, b"garbage", 3);
        let dead = cloud.dead_letter("of a letter", |dead| dead.letter.source == poison.source).await?;
        assert_eq!((dead.reason.as_str(), dead.letter), ("not_an_envelope", Letter { attempts: 4, ..poison }));
        let unreadable = BASE64_STANDARD.encode("no letter at all");
        let dead = cloud.dead_letter("no letter", |dead| dead.letter.value_base64 == unreadable).await?;
        assert_eq!(dead.reason, "unreadable_message");
        Ok(())
    })
}

#[test]
fn a_batch_in_the_failure_bucket_is_applied_and_its_object_deleted() -> Result<()> {
    run(async |cloud| {
        let member = Member::new(cloud, "given-up-batch");
        let viewing = Viewing::begin(&member, "t1");
        let kafka = |offset: u16| {
            json!({"topic": "letters", "partition": 98, "offset": offset, "timestamp": 1, "timestampType": "CREATE_TIME",
                "key": null, "value": BASE64_STANDARD.encode(record(&viewing, &member, offset)), "headers": []})
        };
        let event = json!({"eventSource": "aws:kafka", "eventSourceArn": "arn", "bootstrapServers": "b",
            "records": {"letters-98": [kafka(0), kafka(1), kafka(2)]}});
        let object = json!({"requestContext": {"condition": "RetryAttemptsExhausted"}, "payload": event.to_string()});
        let s3 = aws_sdk_s3::Client::new(&cloud.endpoints.sdk_config());
        let (bucket, key) = (&cloud.endpoints.failure_bucket, "given up/a+b");
        let body = ByteStream::from(object.to_string().into_bytes());
        s3.put_object().bucket(bucket).key(key).body(body).send().await?;
        member.history_with(&[(&viewing, 3)]).await?;
        eventually("the object is gone", async || {
            let listed = s3.list_objects_v2().bucket(bucket).prefix("given up/").send().await?;
            Ok(listed.contents().is_empty().then_some(()))
        })
        .await
    })
}
