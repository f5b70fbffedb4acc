//! Records that can never be applied: they block nothing, and end on the dead-letter queue with
//! their bytes.

use std::time::Duration;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use lambda::batch::Source;
use playback::envelope::join_delimited;
use playhead_tests::sample;
use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::json;

use super::cloud::{Cloud, now_ms, run};
use super::member::{Member, Viewing};

/// The record of one event of a session.
pub(crate) fn record(viewing: &Viewing, member: &Member, seq: u16) -> Vec<u8> {
    let (session, now) = (viewing.session.clone(), now_ms());
    let events = vec![sample::event(seq, now)];
    sample::envelope(session, &member.profile_id, &viewing.title_id, now, events).encode()
}

/// A record of the same session that breaks the contract.
pub(crate) fn invalid(viewing: &Viewing, member: &Member) -> Vec<u8> {
    sample::invalid(&record(viewing, member, 1))
}

/// Appends values, in this order, to one partition of the topic. Returns their offsets.
async fn append(cloud: &Cloud, partition: i32, key: &str, values: &[Option<Vec<u8>>]) -> Result<Vec<i64>> {
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", cloud.endpoints.log_bootstrap.as_ref().context("the log is on Kafka")?)
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .create()?;
    let mut offsets = Vec::new();
    for value in values {
        let record = FutureRecord::to(&cloud.endpoints.topic).partition(partition).key(key);
        let record = FutureRecord { payload: value.as_ref(), ..record };
        let sent = producer.send(record, Duration::from_secs(30)).await;
        let delivery = sent.map_err(|(error, _)| error).context("appending to the topic")?;
        assert_eq!(delivery.partition, partition);
        offsets.push(delivery.offset);
    }
    Ok(offsets)
}

#[test]
fn poison_on_the_topic_does_not_stop_its_partition() -> Result<()> {
    run(async |cloud| {
        let member = Member::new(cloud, "poisoned-partition");
        let (first, behind) = (Viewing::begin(&member, "t1"), Viewing::begin(&member, "t2"));
        let key = first.id();
        let garbage = b"\xff\xfe this was never an envelope \x00".to_vec();
        let of_two_titles = invalid(&first, &member);
        let of_no_title = record(&Viewing { title_id: "~".to_owned(), ..Viewing::begin(&member, "") }, &member, 0);
        let values = [
            Some(record(&first, &member, 0)),
            Some(garbage.clone()),
            Some(of_two_titles.clone()),
            Some(of_no_title.clone()),
            None,
            Some(record(&first, &member, 1)),
            Some(record(&behind, &member, 0)),
        ];
        let partition = 2;
        let offsets = append(cloud, partition, &key, &values).await?;
        member.history_with(&[(&first, 2), (&behind, 1)]).await?;

        let poison = [
            (1, "not_an_envelope", garbage),
            (2, "invalid_envelope", of_two_titles),
            (3, "invalid_envelope", of_no_title),
            (4, "not_an_envelope", Vec::new()),
        ];
        for (at, reason, bytes) in poison {
            let source = Source::Kafka { topic: cloud.endpoints.topic.clone(), partition, offset: offsets[at] };
            let letter = cloud.dead_letter(reason, |letter| letter.letter.source == source).await?;
            assert_eq!((letter.reason.as_str(), letter.detail.is_empty()), (reason, false), "{letter:?}");
            assert_eq!(BASE64_STANDARD.decode(&letter.letter.value_base64)?, bytes, "{letter:?}");
            assert_eq!(letter.letter.key_base64, Some(BASE64_STANDARD.encode(&key)));
        }
        let of_ours = |source: &Source| matches!(source, Source::Kafka { partition: on, offset, .. } if *on == partition && offsets.contains(offset));
        assert_eq!(
            cloud.count_dead_letters(|letter| of_ours(&letter.letter.source)).await?,
            4,
            "each once, and no good record"
        );
        Ok(())
    })
}

#[test]
fn envelopes_of_another_region_arrive_without_their_poison() -> Result<()> {
    run(async |cloud| {
        let member = Member::new(cloud, "from-afar");
        let (mixed, whole) = (Viewing::begin(&member, "t1"), Viewing::begin(&member, "t2"));
        let poison = invalid(&mixed, &member);
        let (before, behind) = (record(&mixed, &member, 0), record(&mixed, &member, 1));
        let good = record(&whole, &member, 0);
        let bodies = [
            BASE64_STANDARD.encode(join_delimited([before.as_slice(), &poison, &behind])),
            "this is not base64".to_owned(),
            BASE64_STANDARD.encode(join_delimited([good.as_slice()])),
        ];
        let mut message_ids = Vec::new();
        for body in bodies {
            let message = cloud.sqs.send_message().queue_url(&cloud.endpoints.inbound_queue_url).message_body(body);
            message_ids.push(message.send().await?.message_id.context("a message without an id")?);
        }
        member.history_with(&[(&mixed, 2), (&whole, 1)]).await?;

        let expected = [(0, "invalid_envelope", poison), (1, "not_an_envelope", b"this is not base64".to_vec())];
        for (at, reason, bytes) in expected {
            let from = &message_ids[at];
            let is_it = |source: &Source| matches!(source, Source::Sqs { message_id, .. } if message_id == from);
            let letter = cloud.dead_letter(reason, |letter| is_it(&letter.letter.source)).await?;
            assert_eq!((letter.reason.as_str(), &letter.letter.key_base64), (reason, &None), "{letter:?}");
            assert_eq!(BASE64_STANDARD.decode(&letter.letter.value_base64)?, bytes, "{letter:?}");
            let source = serde_json::to_value(&letter.letter.source)?;
            assert_eq!(source["kind"], json!("sqs"));
            assert_eq!(cloud.count_dead_letters(|letter| is_it(&letter.letter.source)).await?, 1);
        }
        Ok(())
    })
}
