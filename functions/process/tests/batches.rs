//! Every record of a batch ends in exactly one outcome, and what the answer calls done is durable.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use lambda::batch::Batch;
use lambda::metrics::{Emitter, Metric};
use playback::contract::{Device, Event, Kind};
use playback::envelope::{Envelope, Stamp, join_delimited};
use playback::fold::ViewKey;
use playback::session::SessionId;
use process::process;
use process::testing::Letters;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use store::testing::{Effect, MemoryTable};
use store::{Fault, StoreError};

fn session(number: u128) -> SessionId {
    SessionId::mint("use1".parse().unwrap(), 1_790_000_000_000, number)
}

fn envelope(number: u128, seqs: &[u16]) -> Vec<u8> {
    let device = Arc::new(Device { id: "d1".to_owned(), kind: "tv".to_owned() });
    let event = |&seq: &u16| Event {
        seq,
        kind: Kind::Progressed,
        position_ms: u64::from(seq) * 10,
        played_ms: 0,
        title_duration_ms: 1_000_000,
        occurred_at: 1,
        device: Arc::clone(&device),
        country: None,
    };
    let events = seqs.iter().map(event).collect();
    let stamp = Stamp { received_at: 5, ingest_region: "us-east-1".to_owned(), trace_id: None };
    let (profile_id, title_id) = ("p1".to_owned(), "t1".to_owned());
    Envelope { session_id: session(number), profile_id, title_id, stamp, events }.encode()
}

fn key(number: u128) -> ViewKey {
    ViewKey { profile_id: "p1".to_owned(), session_id: session(number) }
}

/// The MSK event of these values, dealt out to three partitions.
fn msk(values: &[Vec<u8>]) -> Value {
    let mut partitions = serde_json::Map::new();
    for (offset, value) in values.iter().enumerate() {
        let partition = offset % 3;
        let record = json!({"topic": "playback-events", "partition": partition, "offset": offset, "timestamp": 1,
            "timestampType": "CREATE_TIME", "key": BASE64_STANDARD.encode("k"), "value": BASE64_STANDARD.encode(value), "headers": []});
        let list = partitions.entry(format!("playback-events-{partition}")).or_insert_with(|| json!([]));
        list.as_array_mut().unwrap().push(record);
    }
    json!({"eventSource": "aws:kafka", "eventSourceArn": "arn", "bootstrapServers": "b:9098", "records": partitions})
}

fn sqs(bodies: &[String]) -> Value {
    let record = |(at, body): (usize, &String)| {
        json!({"messageId": format!("m{at}"), "receiptHandle": "r", "body": body,
        "attributes": {}, "messageAttributes": {}, "md5OfBody": "", "eventSource": "aws:sqs", "eventSourceARN": "arn:inbound", "awsRegion": "us-east-1"})
    };
    json!({"Records": bodies.iter().enumerate().map(record).collect::<Vec<_>>()})
}

fn kinesis(values: &[Vec<u8>]) -> Value {
    let record = |(at, value): (usize, &Vec<u8>)| {
        json!({"eventID": format!("shardId-000000000000:{at}"), "eventSource": "aws:kinesis",
        "eventSourceARN": "arn:standby", "eventName": "aws:kinesis:record", "eventVersion": "1.0", "awsRegion": "us-east-1",
        "kinesis": {"partitionKey": "k", "sequenceNumber": at.to_string(), "data": BASE64_STANDARD.encode(value), "approximateArrivalTimestamp": 1.5}})
    };
    json!({"Records": values.iter().enumerate().map(record).collect::<Vec<_>>()})
}

struct Ran {
    answer: Value,
    counts: Vec<(&'static str, u64)>,
}

impl Ran {
    fn count(&self, name: &str) -> u64 {
        self.counts.iter().filter(|(of, _)| *of == name).map(|(_, n)| n).sum()
    }

    fn failed(&self) -> usize {
        self.answer["batchItemFailures"].as_array().unwrap().len()
    }
}

fn run(table: &MemoryTable, letters: &Letters, event: &Value) -> Ran {
    let metrics = Emitter::to("test", "process", |_| {}).start(7);
    let batch = Batch::parse(event.to_string().as_bytes()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let answer = runtime.block_on(process(table, letters, &metrics, batch, 7)).unwrap();
    let reasons = ["not_an_envelope", "unknown_schema_version", "invalid_envelope", "corrupt_view"];
    let causes = ["store_throttled", "store_unavailable", "lost_races", "newer_view", "dead_letter_unavailable"];
    let plain = [
        Metric::RecordsReceived,
        Metric::RecordsSettled,
        Metric::EventsApplied,
        Metric::EventsDuplicate,
        Metric::ViewWrites,
        Metric::ViewReads,
    ];
    let dead = reasons.into_iter().flat_map(|reason| [Metric::RecordsDead(reason), Metric::EventsDead(reason)]);
    let all = plain.into_iter().chain(dead).chain(causes.map(Metric::RecordsFailed));
    let counts = all.map(|metric| (metric.name(), metrics.count(metric))).collect();
    Ran { answer: serde_json::to_value(answer).unwrap(), counts }
}

fn unavailable(key: &ViewKey) -> StoreError {
    let fault = Fault::Unavailable("the test says so".to_owned());
    StoreError { operation: "write", subject: key.session_id.to_string(), fault }
}

#[test]
fn many_records_of_a_session_are_one_write() {
    let table = MemoryTable::new(0);
    let values: Vec<_> = (0..20).map(|at| envelope(at % 2, &[at as u16])).collect();
    let ran = run(&table, &Letters::default(), &msk(&values));
    assert_eq!(ran.answer, json!({"batchItemFailures": []}));
    assert_eq!((ran.count("ViewWrites"), ran.count("EventsApplied"), ran.count("RecordsSettled")), (2, 20, 20));
}

#[test]
fn poison_goes_to_the_dead_letter_queue_with_its_bytes_and_stops_nothing() {
    let (table, letters) = (MemoryTable::new(0), Letters::default());
    let ran = run(&table, &letters, &msk(&[envelope(1, &[0]), b"\xffgarbage".to_vec(), envelope(2, &[0])]));
    assert_eq!(ran.failed(), 0);
    assert_eq!((ran.count("RecordsSettled"), ran.count("RecordsDead")), (2, 1));
    let letters = letters.into_taken();
    assert_eq!(
        serde_json::to_value(&letters[0]).unwrap()["source"],
        json!({"kind": "msk", "topic": "playback-events", "partition": 1, "offset": 1})
    );
    assert_eq!(BASE64_STANDARD.decode(&letters[0].value_base64).unwrap(), b"\xffgarbage");
    assert_eq!((letters[0].reason.as_str(), letters[0].dead_at), ("not_an_envelope", 7));
    assert_eq!(table.views().len(), 2);
}

#[test]
fn poison_that_the_queue_did_not_take_comes_again() {
    let letters = Letters::new(true);
    let ran = run(&MemoryTable::new(0), &letters, &msk(&[b"garbage".to_vec(), envelope(1, &[0])]));
    assert_eq!(
        ran.answer,
        json!({"batchItemFailures": [{"itemIdentifier": {"partition": "playback-events-0", "offset": 0}}]})
    );
    assert_eq!((ran.count("RecordsDead"), ran.count("RecordsFailed")), (0, 1));
}

#[test]
fn a_session_that_the_store_refuses_fails_its_own_records_only() {
    let table = MemoryTable::new(0);
    table.fail_writes(Box::new(|of| (*of == key(1)).then(|| unavailable(of))));
    let values = [envelope(1, &[0]), envelope(2, &[0]), envelope(1, &[1])];
    let ran = run(&table, &Letters::default(), &kinesis(&values));
    assert_eq!(ran.answer, json!({"batchItemFailures": [{"itemIdentifier": "0"}, {"itemIdentifier": "2"}]}));
    assert_eq!((ran.count("RecordsSettled"), ran.count("RecordsFailed")), (1, 2));
}

#[test]
fn a_corrupt_view_makes_dead_letters_and_not_a_blocked_partition() {
    let (table, letters) = (MemoryTable::new(0), Letters::default());
    table.put_raw(key(1), b"rust".to_vec());
    let ran = run(&table, &letters, &msk(&[envelope(1, &[0, 1]), envelope(2, &[0])]));
    assert_eq!((ran.failed(), ran.count("RecordsDead"), ran.count("EventsDead")), (0, 1, 2));
    assert_eq!(letters.into_taken()[0].reason, "corrupt_view");
}

#[test]
fn a_message_of_many_envelopes_is_settled_envelope_by_envelope() {
    let (table, letters) = (MemoryTable::new(0), Letters::default());
    let body = |parts: &[Vec<u8>]| BASE64_STANDARD.encode(join_delimited(parts.iter().map(Vec::as_slice)));
    let bodies = [
        body(&[envelope(1, &[0]), b"garbage".to_vec(), envelope(2, &[0])]),
        "not base64!".to_owned(),
        body(&[envelope(1, &[0])]),
    ];
    let ran = run(&table, &letters, &sqs(&bodies));
    assert_eq!(ran.answer, json!({"batchItemFailures": []}));
    assert_eq!((ran.count("RecordsReceived"), ran.count("RecordsSettled"), ran.count("RecordsDead")), (5, 3, 2));
    assert_eq!((ran.count("EventsApplied"), ran.count("EventsDuplicate")), (2, 1));
    let bytes: BTreeSet<Vec<u8>> =
        letters.into_taken().iter().map(|l| BASE64_STANDARD.decode(&l.value_base64).unwrap()).collect();
    assert_eq!(bytes, BTreeSet::from([b"garbage".to_vec(), b"not base64!".to_vec()]));
}

#[test]
fn a_message_is_named_once_however_many_of_its_envelopes_failed() {
    let table = MemoryTable::new(0);
    table.fail_writes(Box::new(|of| Some(unavailable(of))));
    let parts = [envelope(1, &[0]), envelope(2, &[0])];
    let body = BASE64_STANDARD.encode(join_delimited(parts.iter().map(Vec::as_slice)));
    let ran = run(&table, &Letters::default(), &sqs(&[body]));
    assert_eq!(ran.answer, json!({"batchItemFailures": [{"itemIdentifier": "m0"}]}));
}

#[derive(Debug, Clone)]
enum Given {
    Good { session: u128, seqs: Vec<u16> },
    Garbage(Vec<u8>),
}

fn given() -> impl Strategy<Value = Given> {
    prop_oneof![
        4 => (0u128..4, prop::collection::vec(0u16..9, 1..5)).prop_map(|(session, seqs)| Given::Good { session, seqs }),
        1 => prop::collection::vec(any::<u8>(), 0..20).prop_map(Given::Garbage),
    ]
}

proptest! {
    /// Whatever comes, however the store and the queue fail: records in = outcomes, and an event that the answer does not
    /// name is in a view or in a dead letter.
    #[test]
    fn every_record_ends_once_and_what_is_called_done_is_durable(
        records in prop::collection::vec(given(), 1..30),
        refused in 0u128..6,
        down in any::<bool>(),
        trigger in 0u8..2,
        seed in any::<u64>(),
    ) {
        let values: Vec<Vec<u8>> = records.iter().map(|record| match record {
            Given::Good { session, seqs } => envelope(*session, seqs),
            Given::Garbage(bytes) => bytes.clone(),
        }).collect();
        let event = if trigger == 0 { msk(&values) } else { kinesis(&values) };
        let (table, letters) = (MemoryTable::new(seed), Letters::new(down));
        table.fail_writes(Box::new(move |of| (*of == key(refused)).then(|| unavailable(of))));
        let ran = run(&table, &letters, &event);
        prop_assert_eq!(ran.count("RecordsReceived") as usize, records.len());
        prop_assert_eq!(
            ran.count("RecordsSettled") + ran.count("RecordsDead") + ran.count("RecordsFailed"),
            ran.count("RecordsReceived")
        );
        let failed: BTreeSet<usize> = ran.answer["batchItemFailures"].as_array().unwrap().iter().map(|failure| {
            let id = &failure["itemIdentifier"];
            id.as_str().map_or_else(|| id["offset"].as_u64().unwrap() as usize, |text| text.parse().unwrap())
        }).collect();
        prop_assert_eq!(failed.len() as u64, ran.count("RecordsFailed"));
        let views = table.views();
        let dead: BTreeSet<String> = letters.into_taken().into_iter().map(|l| l.value_base64).collect();
        for (at, (record, value)) in records.iter().zip(&values).enumerate() {
            if failed.contains(&at) {
                continue;
            }
            let in_view = matches!(record, Given::Good { session, seqs }
                if views.get(&key(*session)).is_some_and(|view| seqs.iter().all(|&seq| view.seen.contains(u64::from(seq)))));
            prop_assert!(in_view || dead.contains(&BASE64_STANDARD.encode(value)), "record {} is nowhere", at);
        }
        // At most one write a session a batch.
        let mut written = BTreeSet::new();
        for effect in table.take_effects() {
            if let Effect::Written(key, _) | Effect::Failed(key) = effect {
                prop_assert!(written.insert(key));
            }
        }
    }
}
