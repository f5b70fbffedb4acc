#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use crate::expect;
use crate::plan::{DEFAULT_START_AT, Plan};
use crate::{Faults, Model};
use playback::edge::EdgeEvent;
use playback::envelope::Envelope;
use std::collections::BTreeSet;

fn plan() -> Plan {
    let faults = Faults { duplicates: 0.1, reorder: 0.1, late: 0.1, lost: 0.01, malformed: 0.05 };
    let homes = vec!["use1".parse().unwrap()];
    let model = Model { sessions: 60, viewers: Some(10), titles: 20, homes, travel: None, seed: 3, faults };
    Plan::new(&model, DEFAULT_START_AT).unwrap()
}

fn args(trigger: Trigger, batch: u32) -> Args {
    Args { trigger, batch, topic: None, partitions: 4, region: "us-east-1".to_owned() }
}

fn encode_lines(args: &Args, trace: &[u8]) -> (Encoded, Vec<Value>) {
    let mut output = Vec::new();
    let encoded = encode(args, trace, &mut output).unwrap();
    let payloads = output.split(|&b| b == b'\n').filter(|line| !line.is_empty());
    (encoded, payloads.map(|line| serde_json::from_slice(line).unwrap()).collect())
}

/// The envelopes in a Lambda event, each with the source's timestamp of its record.
fn envelopes(trigger: Trigger, payload: &Value) -> Vec<(u64, Envelope)> {
    let bytes = |value: &Value| BASE64.decode(value.as_str().unwrap()).unwrap();
    let decode = |bytes: &[u8]| Envelope::decode(bytes).unwrap();
    match trigger {
        Trigger::Msk => payload["records"]
            .as_object()
            .unwrap()
            .values()
            .flat_map(|records| records.as_array().unwrap())
            .map(|record| {
                let envelope = decode(&bytes(&record["value"]));
                assert_eq!(bytes(&record["key"]), envelope.session_id.to_string().as_bytes());
                (record["timestamp"].as_u64().unwrap(), envelope)
            })
            .collect(),
        Trigger::Sqs => payload["Records"]
            .as_array()
            .unwrap()
            .iter()
            .map(|record| {
                assert_eq!(record["md5OfBody"], hex(&Md5::digest(record["body"].as_str().unwrap())));
                let body = bytes(&record["body"]);
                let parts = envelope::split_delimited(&body).unwrap();
                assert_eq!(parts.len(), 1);
                (record["attributes"]["SentTimestamp"].as_str().unwrap().parse().unwrap(), decode(parts[0]))
            })
            .collect(),
        Trigger::Kinesis => payload["Records"]
            .as_array()
            .unwrap()
            .iter()
            .map(|record| {
                let kinesis = &record["kinesis"];
                let envelope = decode(&bytes(&kinesis["data"]));
                assert_eq!(kinesis["partitionKey"], envelope.session_id.to_string());
                ((kinesis["approximateArrivalTimestamp"].as_f64().unwrap() * 1000.0).round() as u64, envelope)
            })
            .collect(),
    }
}

#[test]
fn envelopes_hold_exactly_the_valid_events() {
    let plan = plan();
    let mut trace = Vec::new();
    plan.write_trace(&mut trace).unwrap();
    let mut sent: Vec<String> = Vec::new();
    for post in &plan.posts {
        for planned in post.events.iter().filter(|planned| planned.rejected_as.is_none()) {
            let raw = serde_json::value::to_raw_value(&planned.event).unwrap();
            let valid = edge::validate((&*raw).into(), post.at_ms as u64, SessionWindow::default()).unwrap();
            sent.push(format!("{} {:?}", post.at_ms, valid.event));
        }
    }
    sent.sort();
    for trigger in [Trigger::Msk, Trigger::Sqs, Trigger::Kinesis] {
        let (encoded, payloads) = encode_lines(&args(trigger, 50), &trace);
        let mut found = Vec::new();
        let mut count = 0;
        for (stamped, envelope) in payloads.iter().flat_map(|payload| envelopes(trigger, payload)) {
            count += 1;
            assert_eq!(stamped, envelope.stamp.received_at);
            for event in envelope.events {
                let (session_id, profile_id) = (envelope.session_id.clone(), envelope.profile_id.clone());
                let event = EdgeEvent { session_id, profile_id, title_id: envelope.title_id.clone(), event };
                found.push(format!("{stamped} {event:?}"));
            }
        }
        found.sort();
        assert_eq!(found, sent, "{trigger:?}");
        assert_eq!((encoded.events, encoded.envelopes, encoded.payloads), (sent.len(), count, payloads.len()));
        let rejected: BTreeMap<String, usize> =
            encoded.rejected.into_iter().map(|(code, count)| (code.to_owned(), count)).collect();
        assert_eq!(rejected, expect::expect(&plan, &BTreeSet::new()).rejected);
    }
}

#[test]
fn msk_events_are_full_and_offsets_have_no_gaps() {
    let mut trace = Vec::new();
    plan().write_trace(&mut trace).unwrap();
    let (encoded, payloads) = encode_lines(&args(Trigger::Msk, 50), &trace);
    let mut next: BTreeMap<u64, u64> = BTreeMap::new();
    for (index, payload) in payloads.iter().enumerate() {
        let records = payload["records"].as_object().unwrap();
        let count: usize = records.values().map(|records| records.as_array().unwrap().len()).sum();
        assert_eq!(count, if index + 1 < payloads.len() { 50 } else { (encoded.envelopes - 1) % 50 + 1 });
        for (name, records) in records {
            for record in records.as_array().unwrap() {
                let partition = record["partition"].as_u64().unwrap();
                assert_eq!(name, &format!("playback-events-{partition}"));
                let next = next.entry(partition).or_default();
                assert_eq!(record["offset"].as_u64(), Some(*next));
                *next += 1;
            }
        }
    }
    assert_eq!(next.len(), 4, "all partitions are used: {next:?}");
}

#[test]
fn kinesis_event_has_records_of_one_shard() {
    let mut trace = Vec::new();
    plan().write_trace(&mut trace).unwrap();
    let (_, payloads) = encode_lines(&args(Trigger::Kinesis, 20), &trace);
    let mut shards_seen = BTreeSet::new();
    for payload in &payloads {
        let records = payload["Records"].as_array().unwrap();
        assert!(records.len() <= 20);
        let shards: BTreeSet<&str> =
            records.iter().map(|record| record["eventID"].as_str().unwrap().split_once(':').unwrap().0).collect();
        assert_eq!(shards.len(), 1);
        shards_seen.extend(shards);
    }
    assert_eq!(shards_seen.len(), 4);
}

#[test]
fn partitions_match_librdkafka_and_kinesis() {
    // CRC-32 and MD5 of "123456789": cbf43926, 25f9e794323b453885f5181f1b624d0b.
    assert_eq!(kafka_partition("123456789", 1_000), 0xcbf4_3926 % 1_000);
    assert_eq!(kinesis_shard("123456789", 16), 0x2);
    assert_eq!(kinesis_shard("123456789", 1), 0);
}

fn line(seq: u32, extra: &str) -> String {
    format!(
        r#"{{"session_id":"use1-01M3250V3TW3KG5DD5CEVSMJCC","profile_id":"p1","title_id":"t1","seq":{seq},"kind":"started","position_ms":0,"title_duration_ms":10,"occurred_at":1,"device":{{"id":"d","kind":"tv"}}{extra}}}"#
    )
}

fn envelopes_of(lines: &[String]) -> Vec<usize> {
    let (_, payloads) = encode_lines(&args(Trigger::Msk, 100), lines.join("\n").as_bytes());
    payloads.iter().flat_map(|p| envelopes(Trigger::Msk, p)).map(|(_, envelope)| envelope.events.len()).collect()
}

#[test]
fn lines_of_a_post_form_requests_of_at_most_500_events() {
    let at = |seq: u32, extra: &str| line(seq, &format!(r#","received_at":1790000010200{extra}"#));
    assert_eq!(envelopes_of(&[at(0, ""), at(1, "")]), [2]);
    assert_eq!(envelopes_of(&[at(0, r#","post":1"#), at(1, r#","post":2"#)]), [1, 1]);
    let many: Vec<String> = (0..501).map(|seq| at(seq, "")).collect();
    assert_eq!(envelopes_of(&many), [500, 1]);
}

#[test]
fn received_at_defaults_to_now() {
    let before = now().unwrap();
    let id = playback::session::SessionId::mint("use1".parse().unwrap(), before, 1).to_string();
    let line = line(0, "").replace("use1-01M3250V3TW3KG5DD5CEVSMJCC", &id);
    let (_, payloads) = encode_lines(&args(Trigger::Sqs, 1), line.as_bytes());
    let (stamped, _) = envelopes(Trigger::Sqs, &payloads[0]).remove(0);
    assert!((before..=now().unwrap()).contains(&stamped));
}

#[test]
fn invalid_line_is_named() {
    let input = format!("{}\n\n{{oops\n", line(0, ""));
    let error = encode(&args(Trigger::Msk, 1), input.as_bytes(), Vec::new()).unwrap_err();
    assert!(format!("{error:#}").starts_with("line 3 is not JSON"), "{error:#}");
    let error = encode(&args(Trigger::Msk, 1), line(0, r#","received_at":"now""#).as_bytes(), Vec::new()).unwrap_err();
    assert!(format!("{error:#}").starts_with("line 1: `received_at`"), "{error:#}");
}

#[test]
fn json_that_is_not_an_event_is_skipped_and_counted() {
    let (encoded, payloads) = encode_lines(&args(Trigger::Msk, 1), b"7\n[]\n{}\n");
    assert!(payloads.is_empty());
    assert_eq!(encoded.rejected, BTreeMap::from([("not_an_object", 2), ("field_missing", 1)]));
}
