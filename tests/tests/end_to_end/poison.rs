//! Records that can never be applied: they stop nothing, and end on the dead-letter queue with their bytes.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use lambda::batch::Source;
use playback::contract::{Device, Event, Kind};
use playback::envelope::{Envelope, Stamp, join_delimited};
use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::json;

use super::cloud::{Cloud, now_ms, run};
use super::member::{Member, TITLE_DURATION_MS, Viewing};

/// A later field of a protobuf message overrides an earlier one: this says `schema_version` 99.
const VERSION_99: [u8; 2] = [0x08, 99];

/// The record of one event of a session.
pub(crate) fn record(viewing: &Viewing, member: &Member, seq: u16) -> Vec<u8> {
    let event = Event {
        seq,
        kind: Kind::Progressed,
        position_ms: 1_000,
        played_ms: 1_000,
        title_duration_ms: TITLE_DURATION_MS,
        occurred_at: now_ms(),
        device: Arc::new(Device { id: "d1".to_owned(), kind: "tv".to_owned() }),
        country: None,
    };
    Envelope {
        session_id: viewing.session.clone(),
        profile_id: member.profile_id.clone(),
        title_id: viewing.title_id.clone(),
        stamp: Stamp { received_at: now_ms(), ingest_region: "us-east-1".to_owned(), trace_id: None, shadow: false },
        events: vec![event],
    }
    .encode()
}

pub(crate) fn of_a_newer_version(viewing: &Viewing, member: &Member) -> Vec<u8> {
    [record(viewing, member, 1), VERSION_99.to_vec()].concat()
}

/// Appends values, in this order, to one partition of the topic; gives their offsets.
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
        let newer = of_a_newer_version(&first, &member);
        let invalid = record(&Viewing { title_id: "~".to_owned(), ..Viewing::begin(&member, "") }, &member, 0);
        let values = [
            Some(record(&first, &member, 0)),
            Some(garbage.clone()),
            Some(newer.clone()),
            Some(invalid.clone()),
            None,
            Some(record(&first, &member, 1)),
            Some(record(&behind, &member, 0)),
        ];
        let partition = 2;
        let offsets = append(cloud, partition, &key, &values).await?;
        member.history_with(&[(&first, 2), (&behind, 1)]).await?;

        let poison = [
            (1, "not_an_envelope", garbage),
            (2, "unknown_schema_version", newer),
            (3, "invalid_envelope", invalid),
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
fn envelopes_of_another_region_arrive_and_poison_among_them_is_set_aside() -> Result<()> {
    run(async |cloud| {
        let member = Member::new(cloud, "from-afar");
        let (mixed, whole) = (Viewing::begin(&member, "t1"), Viewing::begin(&member, "t2"));
        let poison = of_a_newer_version(&mixed, &member);
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

        let expected = [(0, "unknown_schema_version", poison), (1, "not_an_envelope", b"this is not base64".to_vec())];
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
