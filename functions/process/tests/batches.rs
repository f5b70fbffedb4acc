//! Every record of a batch ends in exactly one outcome, and a record that the answer calls done is
//! durable.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use apply::testing::Letters;
use apply::{DeadLetter, Letter, LetterQueue, Recent};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use lambda::batch::Batch;
use lambda::metrics::{Emitter, Metric};
use lambda::runtime::{Invocation, ServeBatch};
use playback::contract::{Device, Event, Kind};
use playback::envelope::{Envelope, Stamp, join_delimited};
use playback::fold::ViewKey;
use playback::outcome::{Cause, Reason};
use playback::session::SessionId;
use playback::view::View;
use process::Process;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use store::testing::{Effect, MemoryTable};
use store::{Erase, Erasure, Fault, StoreError, Stored, ViewTable, Write, WriteError};

fn session(number: u128) -> SessionId {
    SessionId::mint("use1".parse().unwrap(), 1_790_000_000_000, number)
}

fn envelope(number: u128, seqs: &[u16]) -> Vec<u8> {
    envelope_at(5, number, seqs)
}

fn envelope_at(received_at: u64, number: u128, seqs: &[u16]) -> Vec<u8> {
    envelope_of(received_at, number, seqs, Kind::Progressed)
}

fn stopped(number: u128, seq: u16) -> Vec<u8> {
    envelope_of(5, number, &[seq], Kind::Stopped)
}

fn envelope_of(received_at: u64, number: u128, seqs: &[u16], kind: Kind) -> Vec<u8> {
    let device = Arc::new(Device { id: Some("d1".to_owned()), kind: Some("tv".to_owned()) });
    let event = |&seq: &u16| Event {
        seq,
        kind,
        position_ms: u64::from(seq) * 10,
        played_ms: 0,
        title_duration_ms: Some(1_000_000),
        credits_ms: None,
        occurred_at: Some(1),
        device: Arc::clone(&device),
        country: None,
    };
    let events = seqs.iter().map(event).collect();
    let stamp =
        Stamp { received_at, sent_at: None, ingest_region: "us-east-1".to_owned(), trace_id: None, shadow: false };
    let (profile_id, title_id) = ("p1".to_owned(), "t1".to_owned());
    Envelope { session_id: session(number), profile_id, title_id, stamp, events }.encode()
}

fn key(number: u128) -> ViewKey {
    ViewKey { profile_id: "p1".to_owned(), session_id: session(number), title_id: "t1".to_owned() }
}

/// The MSK event of these values, on three partitions.
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

#[derive(Default)]
struct Queues {
    retry: Letters<Letter>,
    dead: Letters<DeadLetter>,
}

fn run(table: &MemoryTable, queues: &Queues, event: &Value) -> Ran {
    let metrics = Emitter::to("test", "process", |_| {}).start(7);
    let batch = Batch::parse(event.to_string().as_bytes()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let process =
        Process { table, shadow: None, retry: &queues.retry, dead_letters: &queues.dead, recent: Recent::default() };
    let answer = runtime.block_on(process.serve(&metrics, batch, Invocation::new(7, Duration::from_secs(60)))).unwrap();
    let (reasons, causes) = (Reason::ALL.map(Reason::as_str), Cause::ALL.map(Cause::as_str));
    let plain = [
        Metric::RecordsReceived,
        Metric::RecordsSettled,
        Metric::EventsApplied,
        Metric::EventsDuplicate,
        Metric::EventsRetried,
        Metric::ViewWrites,
        Metric::ViewReads,
        Metric::HolesOpened,
        Metric::HolesClosed,
    ];
    let dead = reasons.into_iter().flat_map(|reason| [Metric::RecordsDead(reason), Metric::EventsDead(reason)]);
    let unapplied = causes.into_iter().flat_map(|cause| [Metric::RecordsFailed(cause), Metric::RecordsRetried(cause)]);
    let all = plain.into_iter().chain(dead).chain(unapplied);
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
    let ran = run(&table, &Queues::default(), &msk(&values));
    assert_eq!(ran.answer, json!({"batchItemFailures": []}));
    assert_eq!((ran.count("ViewWrites"), ran.count("EventsApplied"), ran.count("RecordsSettled")), (2, 20, 20));
}

#[test]
fn poison_is_dead_lettered_with_its_bytes_and_stops_nothing() {
    let (table, queues) = (MemoryTable::new(0), Queues::default());
    let ran = run(&table, &queues, &msk(&[envelope(1, &[0]), b"\xffgarbage".to_vec(), envelope(2, &[0])]));
    assert_eq!(ran.failed(), 0);
    assert_eq!((ran.count("RecordsSettled"), ran.count("RecordsDead")), (2, 1));
    let letters = queues.dead.into_taken();
    assert_eq!(
        serde_json::to_value(&letters[0].letter.source).unwrap(),
        json!({"kind": "msk", "topic": "playback-events", "partition": 1, "offset": 1})
    );
    assert_eq!(BASE64_STANDARD.decode(&letters[0].letter.value_base64).unwrap(), b"\xffgarbage");
    assert_eq!((letters[0].reason.as_str(), letters[0].dead_at), ("not_an_envelope", 7));
    assert_eq!(table.views().len(), 2);
}

#[test]
fn poison_that_the_queue_refuses_is_redelivered() {
    let queues = Queues { dead: Letters::new(true), ..Queues::default() };
    let ran = run(&MemoryTable::new(0), &queues, &msk(&[b"garbage".to_vec(), envelope(1, &[0])]));
    assert_eq!(
        ran.answer,
        json!({"batchItemFailures": [{"itemIdentifier": {"partition": "playback-events-0", "offset": 0}}]})
    );
    assert_eq!((ran.count("RecordsDead"), ran.count("RecordsFailed")), (0, 1));
}

#[test]
fn transient_failure_is_retried_with_its_bytes_and_cause() {
    let (table, queues) = (MemoryTable::new(0), Queues::default());
    table.fail_writes(Box::new(|of| (*of == key(1)).then(|| unavailable(of))));
    let values = [envelope(1, &[0]), envelope(2, &[0]), envelope(1, &[1, 2])];
    let ran = run(&table, &queues, &kinesis(&values));
    assert_eq!(ran.failed(), 0);
    assert_eq!((ran.count("RecordsSettled"), ran.count("RecordsRetried"), ran.count("EventsRetried")), (1, 2, 3));
    let letters = queues.retry.into_taken();
    let letter = serde_json::to_value(&letters[1]).unwrap();
    let error = json!({"cause": "store_unavailable", "at": 7, "detail": format!("write on {}: unavailable: the test says so", session(1))});
    let source =
        json!({"kind": "kinesis", "stream": "arn:standby", "shard": "shardId-000000000000", "sequence_number": "2"});
    let expected = json!({"source": source, "key_base64": BASE64_STANDARD.encode("k"), "value_base64": BASE64_STANDARD.encode(&values[2]),
        "attempts": 1, "first_error": error, "last_error": error});
    assert_eq!((letters.len(), letter), (2, expected));
    assert_eq!(queues.dead.into_taken(), []);
}

#[test]
fn record_that_the_retry_queue_refuses_is_redelivered() {
    let table = MemoryTable::new(0);
    table.fail_writes(Box::new(|of| (*of == key(1)).then(|| unavailable(of))));
    let mut asked = 0;
    let refuse_second = move |_: &Letter| {
        asked += 1;
        asked == 2
    };
    let queues = Queues { retry: Letters::refusing(refuse_second), ..Queues::default() };
    let ran = run(&table, &queues, &kinesis(&[envelope(1, &[0]), envelope(2, &[0]), envelope(1, &[1])]));
    assert_eq!(ran.answer, json!({"batchItemFailures": [{"itemIdentifier": "2"}]}));
    assert_eq!((ran.count("RecordsSettled"), ran.count("RecordsRetried"), ran.count("RecordsFailed")), (1, 1, 1));
}

/// A queue that breaks its contract and answers nothing.
struct Silent;

impl<L: Send> LetterQueue<L> for Silent {
    type Error = &'static str;

    async fn put(&self, _: Vec<L>) -> Vec<Result<(), Self::Error>> {
        Vec::new()
    }
}

#[test]
fn queue_that_answers_nothing_has_taken_nothing() {
    let table = MemoryTable::new(0);
    table.fail_writes(Box::new(|of| (*of == key(1)).then(|| unavailable(of))));
    let event = kinesis(&[envelope(1, &[0]), b"garbage".to_vec(), envelope(2, &[0])]).to_string();
    let lines = Arc::new(std::sync::Mutex::new(String::new()));
    let sink = Arc::clone(&lines);
    let emitter = Emitter::to("test", "process", move |text| sink.lock().unwrap().push_str(text));
    let metrics = emitter.start(7);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let batch = Batch::parse(event.as_bytes()).unwrap();
    let process = Process { table, shadow: None, retry: Silent, dead_letters: Silent, recent: Recent::default() };
    let answer = runtime.block_on(process.serve(&metrics, batch, Invocation::new(7, Duration::from_secs(60)))).unwrap();
    let answer = serde_json::to_value(answer).unwrap();
    assert_eq!(answer, json!({"batchItemFailures": [{"itemIdentifier": "0"}, {"itemIdentifier": "1"}]}));
    // It may have it all the same, and then the event ends twice.
    drop(metrics);
    let lines = lines.lock().unwrap();
    assert!(lines.contains(r#""EventsUnclaimed":1"#) && lines.contains("retry_unanswered"), "{lines}");
}

/// Runs `total` records: `poison` of them are not envelopes, and `refused` are of a session that
/// the store refuses.
fn mixed(shape: fn(&[Vec<u8>]) -> Value, total: usize, poison: usize, refused: usize) -> (Ran, Queues) {
    let (table, queues) = (MemoryTable::new(0), Queues::default());
    table.fail_writes(Box::new(|of| (*of == key(0)).then(|| unavailable(of))));
    let value = |at: usize| match at {
        _ if at < poison => b"garbage".to_vec(),
        _ if at < poison + refused => envelope(0, &[at as u16]),
        _ => envelope(1, &[at as u16]),
    };
    let ran = run(&table, &queues, &shape(&(0..total).map(value).collect::<Vec<_>>()));
    (ran, queues)
}

#[test]
fn most_of_a_batch_fails_so_nothing_is_diverted() {
    for (total, poison, refused, parked, dead) in [
        (10, 0, 10, 10, 0), // a few are not a flood, even if they are the whole batch
        (11, 0, 11, 0, 0),
        (22, 0, 11, 11, 0), // half is not most
        (21, 0, 11, 0, 0),
        (21, 5, 6, 0, 5), // poison counts, but waits only if it is most of the batch itself
        (500, 100, 150, 150, 100),
        (500, 251, 0, 0, 0),
        (500, 251, 1, 0, 0),
    ] {
        let (ran, queues) = mixed(msk, total, poison, refused);
        let diverted = (queues.retry.into_taken().len(), queues.dead.into_taken().len());
        let expected = (poison + refused - parked - dead, parked, dead);
        assert_eq!(
            (ran.failed(), diverted.0, diverted.1),
            expected,
            "{poison} poison and {refused} refused of {total}"
        );
        assert_eq!(ran.count("RecordsSettled") as usize, total - poison - refused, "the others are applied anyway");
        assert_eq!(ran.count("RecordsFailed") as usize, expected.0);
    }
}

#[tokio::test]
async fn small_batches_of_a_flood_are_not_diverted_either() {
    let (table, queues) = (MemoryTable::new(0), Queues::default());
    table.fail_writes(Box::new(|of| Some(unavailable(of))));
    let environment = || Process {
        table: &table,
        shadow: None,
        retry: &queues.retry,
        dead_letters: &queues.dead,
        recent: Recent::default(),
    };
    let process = environment();
    let serve = async |process: &Process<_, _, _>, now: u64| {
        let batch = Batch::parse(msk(&[envelope(now.into(), &[0])]).to_string().as_bytes()).unwrap();
        let metrics = Emitter::to("test", "process", |_| {}).start(now);
        let _ = process.serve(&metrics, batch, Invocation::new(now, Duration::from_secs(60))).await.unwrap();
        (metrics.count(Metric::RecordsFailed("store_unavailable")), queues.retry.take().len())
    };
    for now in 0..10 {
        assert_eq!(serve(&process, now).await, (0, 1), "a few are not a flood");
    }
    assert_eq!(serve(&process, 10).await, (1, 0), "the 11th of 11");
    assert_eq!(serve(&process, 60_011).await, (0, 1), "a minute later");
    assert_eq!(serve(&environment(), 11).await, (0, 1), "another environment");
}

/// Its redeliveries would count again and again, and it would wait for ever.
#[tokio::test]
async fn little_poison_never_waits_for_itself() {
    let (table, queues) = (MemoryTable::new(0), Queues::default());
    let (retry, dead_letters) = (&queues.retry, &queues.dead);
    let process = Process { table: &table, shadow: None, retry, dead_letters, recent: Recent::default() };
    for _ in 0..30 {
        let batch = Batch::parse(msk(&[b"garbage".to_vec()]).to_string().as_bytes()).unwrap();
        let metrics = Emitter::to("test", "process", |_| {}).start(7);
        let _ = process.serve(&metrics, batch, Invocation::new(7, Duration::from_secs(60))).await.unwrap();
        assert_eq!(queues.dead.take().len(), 1);
    }
}

/// Lambda delivers everything from the first failed record of a shard on again, and a message as a
/// whole. What was diverted before would be diverted again each time.
#[test]
fn nothing_is_diverted_that_is_delivered_again_anyway() {
    let (table, queues) = (MemoryTable::new(0), Queues { retry: Letters::new(true), ..Queues::default() });
    table.fail_writes(Box::new(|of| (*of == key(1)).then(|| unavailable(of))));
    let values = [b"garbage".to_vec(), envelope(1, &[0]), envelope(2, &[0]), b"more garbage".to_vec()];
    let message = BASE64_STANDARD.encode(join_delimited(values.iter().map(Vec::as_slice)));
    for (event, dead, failed) in [(msk(&values), 2, 1), (kinesis(&values), 0, 3), (sqs(&[message]), 0, 1)] {
        let ran = run(&table, &queues, &event);
        assert_eq!((queues.dead.take().len(), ran.failed()), (dead, failed), "{event}");
        assert_eq!(ran.count("RecordsSettled"), 1);
    }
}

/// The queue's own limit would make raw messages of them, which are in no region's books.
#[test]
fn arrived_events_leave_their_queue_before_it_gives_up() {
    let (table, queues) = (MemoryTable::new(0), Queues::default());
    table.fail_writes(Box::new(|of| Some(unavailable(of))));
    let values: Vec<_> = (0..12).map(|number| envelope(number, &[0])).collect();
    let message = BASE64_STANDARD.encode(join_delimited(values.iter().map(Vec::as_slice)));
    let mut event = sqs(&[message]);
    for (receives, failed, parked) in [(1, 1, 0), (199, 1, 0), (200, 0, 12)] {
        event["Records"][0]["attributes"]["ApproximateReceiveCount"] = json!(receives.to_string());
        let ran = run(&table, &queues, &event);
        assert_eq!((ran.failed(), queues.retry.take().len()), (failed, parked), "{receives}");
    }
}

/// A table whose calls fail after this time, or never end.
struct Hangs(Option<Duration>);

impl Hangs {
    async fn call(&self) -> StoreError {
        match self.0 {
            Some(time) => tokio::time::sleep(time).await,
            None => std::future::pending().await,
        }
        unavailable(&key(1))
    }
}

impl ViewTable for Hangs {
    async fn read(&self, keys: &[ViewKey]) -> Vec<Result<Option<Stored>, StoreError>> {
        let error = self.call().await;
        keys.iter().map(|_| Err(error.clone())).collect()
    }

    async fn write(&self, writes: &[Write<'_>]) -> Vec<Result<(), WriteError>> {
        let error = self.call().await;
        writes.iter().map(|_| Err(error.clone().into())).collect()
    }

    async fn erasures(&self, keys: &[ViewKey]) -> Vec<Result<Erasure, StoreError>> {
        let error = self.call().await;
        keys.iter().map(|_| Err(error.clone())).collect()
    }

    async fn erase(&self, _: &Erase, _: tokio::time::Instant) -> Result<bool, StoreError> {
        Err(self.call().await)
    }

    async fn session(&self, _: &ViewKey) -> Result<Option<Vec<View>>, StoreError> {
        Err(self.call().await)
    }
}

#[tokio::test]
async fn hanging_store_leaves_time_to_answer() {
    const VIEWS: usize = 9_000;
    let values: Vec<_> = (0..VIEWS as u128).map(|number| envelope(number, &[0])).collect();
    // 20 s of the 21 s are for the queues and the answer.
    let left = Duration::from_secs(21);
    for fails_after_ms in [Some(50), None] {
        let queues = Queues::default();
        let (retry, dead_letters) = (&queues.retry, &queues.dead);
        let table = Hangs(fails_after_ms.map(Duration::from_millis));
        let process = Process { table, shadow: None, retry, dead_letters, recent: Recent::default() };
        let batch = Batch::parse(msk(&values).to_string().as_bytes()).unwrap();
        let metrics = Emitter::to("test", "process", |_| {}).start(7);
        let began = tokio::time::Instant::now();
        let _ = process.serve(&metrics, batch, Invocation::new(7, left)).await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        assert_eq!(metrics.count(Metric::RecordsFailed("store_unavailable")), VIEWS as u64);
    }
}

#[test]
fn events_are_booked_in_the_minute_of_acceptance() {
    let lines = Arc::new(std::sync::Mutex::new(String::new()));
    let sink = Arc::clone(&lines);
    let emitter = Emitter::to("test", "process", move |text| sink.lock().unwrap().push_str(text));
    let (table, queues, now) = (MemoryTable::new(0), Queues::default(), 1_790_000_300_000);
    table.fail_writes(Box::new(|of| (*of == key(1)).then(|| unavailable(of))));
    let newer = |value: Vec<u8>| [value, vec![0x08, 99]].concat(); // a later field overrides: `schema_version` 99
    let minute = 1_790_000_160_000;
    let values = [
        envelope_at(minute, 2, &[0, 1]),
        envelope_at(minute + 59_999, 2, &[1, 2]),
        envelope_at(minute + 60_000, 2, &[3]),
        envelope_at(minute, 1, &[0]),
        newer(envelope_at(minute, 3, &[0, 1, 2])),
        b"garbage".to_vec(),
    ];
    let batch = Batch::parse(msk(&values).to_string().as_bytes()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let process =
        Process { table, shadow: None, retry: queues.retry, dead_letters: queues.dead, recent: Recent::default() };
    let done = async { process.serve(&emitter.start(now), batch, Invocation::new(now, Duration::from_secs(60))).await };
    assert_eq!(runtime.block_on(done).unwrap(), lambda::batch::answer([]));
    let documents: Vec<Value> = lines.lock().unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let booked = |name: &str| -> Vec<(u64, u64)> {
        let at = |document: &Value| document["_aws"]["Timestamp"].as_u64().unwrap();
        documents.iter().filter_map(|document| Some((at(document), document[name].as_u64()?))).collect()
    };
    assert_eq!(booked("EventsApplied"), [(minute, 3), (minute + 60_000, 1)]);
    assert_eq!(booked("EventsDuplicate"), [(minute, 1)]);
    assert_eq!(booked("EventsRetried"), [(minute, 4)], "of the refused view, and of the newer envelope");
    assert_eq!(booked("EventsDead"), [], "the events in garbage cannot be counted");
    assert_eq!(booked("RecordsReceived"), [(now, 6)], "our work counts now");
}

#[test]
fn holes_of_ended_sessions_are_counted_once() {
    let (table, queues) = (MemoryTable::new(0), Queues::default());
    let run_one = |value: Vec<u8>| {
        let ran = run(&table, &queues, &msk(&[value]));
        (ran.count("HolesOpened"), ran.count("HolesClosed"))
    };
    assert_eq!(run_one(envelope(1, &[0, 2])), (0, 0), "a session that goes on has no holes yet");
    assert_eq!(run_one(stopped(1, 5)), (3, 0), "1, 3 and 4");
    assert_eq!(run_one(stopped(1, 5)), (0, 0), "nothing new, no write");
    assert_eq!(run_one(envelope(1, &[3, 4])), (0, 2));
    assert_eq!(run_one(envelope(1, &[6])), (0, 1), "it goes on: it has not ended");
    assert_eq!(run_one(stopped(1, 8)), (2, 0), "1 and 7");
}

#[test]
fn corrupt_view_makes_dead_letters_and_blocks_nothing() {
    let (table, queues) = (MemoryTable::new(0), Queues::default());
    table.put_raw(key(1), b"rust".to_vec());
    let ran = run(&table, &queues, &msk(&[envelope(1, &[0, 1]), envelope(2, &[0])]));
    assert_eq!((ran.failed(), ran.count("RecordsDead"), ran.count("EventsDead")), (0, 1, 2));
    assert_eq!(queues.dead.into_taken()[0].reason, "corrupt_view");
}

#[test]
fn each_envelope_of_a_message_has_its_own_outcome() {
    let (table, queues) = (MemoryTable::new(0), Queues::default());
    let body = |parts: &[Vec<u8>]| BASE64_STANDARD.encode(join_delimited(parts.iter().map(Vec::as_slice)));
    let bodies = [
        body(&[envelope(1, &[0]), b"garbage".to_vec(), envelope(2, &[0])]),
        "not base64!".to_owned(),
        body(&[envelope(1, &[0])]),
    ];
    let ran = run(&table, &queues, &sqs(&bodies));
    assert_eq!(ran.answer, json!({"batchItemFailures": []}));
    assert_eq!((ran.count("RecordsReceived"), ran.count("RecordsSettled"), ran.count("RecordsDead")), (5, 3, 2));
    assert_eq!((ran.count("EventsApplied"), ran.count("EventsDuplicate")), (2, 1));
    let bytes: BTreeSet<Vec<u8>> =
        queues.dead.into_taken().iter().map(|l| BASE64_STANDARD.decode(&l.letter.value_base64).unwrap()).collect();
    assert_eq!(bytes, BTreeSet::from([b"garbage".to_vec(), b"not base64!".to_vec()]));
}

#[test]
fn message_with_several_failed_envelopes_is_named_once() {
    let table = MemoryTable::new(0);
    table.fail_writes(Box::new(|of| Some(unavailable(of))));
    let parts = [envelope(1, &[0]), envelope(2, &[0])];
    let body = BASE64_STANDARD.encode(join_delimited(parts.iter().map(Vec::as_slice)));
    let queues = Queues { retry: Letters::new(true), ..Queues::default() };
    let ran = run(&table, &queues, &sqs(&[body]));
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
    /// With any records and any failures of the store and the queues: records in = outcomes, and a
    /// record that the answer does not name is in a view, or its bytes are on the queue that the
    /// counts say.
    #[test]
    fn every_record_ends_once_and_done_means_durable(
        records in prop::collection::vec(given(), 1..30),
        refused in 0u128..6,
        down in any::<(bool, bool)>(),
        trigger in 0u8..2,
        seed in any::<u64>(),
    ) {
        let values: Vec<Vec<u8>> = records.iter().map(|record| match record {
            Given::Good { session, seqs } => envelope(*session, seqs),
            Given::Garbage(bytes) => bytes.clone(),
        }).collect();
        let event = if trigger == 0 { msk(&values) } else { kinesis(&values) };
        let table = MemoryTable::new(seed);
        let queues = Queues { retry: Letters::new(down.0), dead: Letters::new(down.1) };
        table.fail_writes(Box::new(move |of| (*of == key(refused)).then(|| unavailable(of))));
        let ran = run(&table, &queues, &event);
        prop_assert_eq!(ran.count("RecordsReceived") as usize, records.len());
        let outcomes = ["RecordsSettled", "RecordsDead", "RecordsRetried", "RecordsFailed"];
        prop_assert_eq!(outcomes.map(|name| ran.count(name)).iter().sum::<u64>(), ran.count("RecordsReceived"));
        let failed: BTreeSet<usize> = ran.answer["batchItemFailures"].as_array().unwrap().iter().map(|failure| {
            let id = &failure["itemIdentifier"];
            id.as_str().map_or_else(|| id["offset"].as_u64().unwrap() as usize, |text| text.parse().unwrap())
        }).collect();
        prop_assert_eq!(failed.len() as u64, ran.count("RecordsFailed"));
        let views = table.views();
        let (parked, dead) = (queues.retry.into_taken(), queues.dead.into_taken());
        prop_assert_eq!(parked.len() as u64, ran.count("RecordsRetried"));
        prop_assert_eq!(dead.len() as u64, ran.count("RecordsDead"));
        let bytes = |letters: Vec<Letter>| -> BTreeSet<String> { letters.into_iter().map(|l| l.value_base64).collect() };
        let (parked, dead) = (bytes(parked), bytes(dead.into_iter().map(|dead| dead.letter).collect()));
        for (at, (record, value)) in records.iter().zip(&values).enumerate() {
            if failed.contains(&at) {
                continue;
            }
            let value = BASE64_STANDARD.encode(value);
            match record {
                Given::Good { session, seqs } => {
                    let view = views.get(&key(*session));
                    let in_view = view.is_some_and(|view| seqs.iter().all(|&seq| view.seen.contains(u64::from(seq))));
                    prop_assert!(in_view || parked.contains(&value), "record {} is nowhere", at);
                }
                // Only what looks like an envelope of newer code waits for a deployment.
                Given::Garbage(bytes) => {
                    let is_newer = Envelope::decode(bytes).is_err_and(|fault| fault.reason == Reason::UnknownSchemaVersion);
                    let queue = if is_newer { &parked } else { &dead };
                    prop_assert!(queue.contains(&value), "record {} is nowhere", at);
                }
            }
        }
        // At most one write per session and batch.
        let mut written = BTreeSet::new();
        for effect in table.take_effects() {
            if let Effect::Written(key, _) | Effect::Failed(key) = effect {
                prop_assert!(written.insert(key));
            }
        }
    }
}
