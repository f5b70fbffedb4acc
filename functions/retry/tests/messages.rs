//! The outcome of each kind of message of the queue `retry`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use apply::testing::Letters;
use apply::{DeadLetter, Failure, Letter, Redrive};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use lambda::batch::{Batch, Source};
use lambda::metrics::{Emitter, Metric};
use lambda::runtime::{Invocation, ServeBatch};
use playback::contract::{Device, Event, Kind};
use playback::envelope::{Envelope, Stamp, join_delimited};
use playback::fold::ViewKey;
use playback::session::SessionId;
use retry::testing::{MemoryBucket, RecordedPauses};
use retry::{MAX_AGE, MAX_OBJECT_BYTES, Object, Objects as _, Pause, Retry, bucket};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use store::testing::{Effect, MemoryTable};
use store::{Fault, StoreError};

const NOW: u64 = 1_790_000_300_000;
const MAX_ATTEMPTS: u32 = 16;

fn session(number: u128) -> SessionId {
    SessionId::mint("use1".parse().unwrap(), 1_790_000_000_000, number)
}

fn key(number: u128) -> ViewKey {
    ViewKey { profile_id: "p1".to_owned(), session_id: session(number), title_id: "t1".to_owned() }
}

fn envelope(number: u128, seqs: &[u16]) -> Vec<u8> {
    envelope_of(number, seqs, false)
}

fn envelope_of(number: u128, seqs: &[u16], shadow: bool) -> Vec<u8> {
    let device = Arc::new(Device { id: Some("d1".to_owned()), kind: Some("tv".to_owned()) });
    let event = |&seq: &u16| Event {
        seq,
        kind: Kind::Progressed,
        position_ms: u64::from(seq) * 10,
        played_ms: 0,
        title_duration_ms: Some(1_000_000),
        credits_ms: None,
        occurred_at: Some(1),
        device: Arc::clone(&device),
        country: None,
    };
    let events = seqs.iter().map(event).collect();
    let stamp = Stamp {
        received_at: NOW - 60_000,
        sent_at: None,
        ingest_region: "us-east-1".to_owned(),
        trace_id: None,
        shadow,
    };
    let (profile_id, title_id) = ("p1".to_owned(), "t1".to_owned());
    Envelope { session_id: session(number), profile_id, title_id, stamp, events }.encode()
}

fn failure(detail: &str, at: u64) -> Failure {
    Failure { cause: "store_throttled".to_owned(), detail: detail.to_owned(), at }
}

/// The letter of a record that was tried once.
fn letter(offset: i64, value: &[u8]) -> Letter {
    Letter {
        source: Source::Kafka { topic: "playback-events".to_owned(), partition: 0, offset },
        key_base64: Some(BASE64_STANDARD.encode("k")),
        value_base64: BASE64_STANDARD.encode(value),
        attempts: 1,
        first_error: Some(failure("first", 5)),
        last_error: Some(failure("first", 5)),
        redrives: Vec::new(),
    }
}

/// The SQS event of these messages, each with its receive count, sent `age` ago.
fn messages(bodies: &[(u32, String)], age: Duration) -> Value {
    let sent_at = NOW - age.as_millis() as u64;
    let record = |(at, (receives, body)): (usize, &(u32, String))| {
        json!({"messageId": format!("m{at}"), "receiptHandle": format!("r{at}"), "body": body,
            "attributes": {"ApproximateReceiveCount": receives.to_string(), "SentTimestamp": sent_at.to_string()}, "messageAttributes": {}, "md5OfBody": "",
            "eventSource": "aws:sqs", "eventSourceARN": "arn:retry", "awsRegion": "us-east-1"})
    };
    json!({"Records": bodies.iter().enumerate().map(record).collect::<Vec<_>>()})
}

fn text(letter: &Letter) -> String {
    serde_json::to_string(letter).unwrap()
}

fn object(key: &str) -> Object {
    Object { bucket: "failures".to_owned(), key: key.to_owned() }
}

fn notification(key: &str) -> String {
    json!({"Records": [{"eventVersion": "2.1", "eventSource": "aws:s3", "eventName": "ObjectCreated:Put",
        "s3": {"bucket": {"name": "failures"}, "object": {"key": key, "size": 1}}}]})
    .to_string()
}

/// What Lambda writes to S3 when it gives up on a batch of the topic.
fn failed_batch(values: &[Vec<u8>]) -> Vec<u8> {
    let record = |(offset, value): (usize, &Vec<u8>)| {
        json!({"topic": "playback-events", "partition": 0, "offset": offset, "timestamp": 1, "timestampType": "CREATE_TIME",
            "key": BASE64_STANDARD.encode("k"), "value": BASE64_STANDARD.encode(value), "headers": []})
    };
    let records: Vec<Value> = values.iter().enumerate().map(record).collect();
    let event = json!({"eventSource": "aws:kafka", "eventSourceArn": "arn", "bootstrapServers": "b:9098",
        "records": {"playback-events-0": records}});
    json!({"requestContext": {"requestId": "r", "functionArn": "arn", "condition": "RetryAttemptsExhausted",
        "approximateInvokeCount": 11}, "version": "1.0", "payload": event.to_string()})
    .to_string()
    .into_bytes()
}

struct Bed {
    retry: Retry<MemoryTable, Letters<Letter>, Letters<DeadLetter>, MemoryBucket, RecordedPauses>,
    counts: Vec<(String, u64)>,
    /// How long its messages have been waiting.
    age: Duration,
}

impl Bed {
    fn new() -> Self {
        let retry = Retry {
            table: MemoryTable::new(0),
            shadow: None,
            retry: Letters::default(),
            dead_letters: Letters::default(),
            objects: MemoryBucket::default(),
            pauses: RecordedPauses::default(),
            max_attempts: MAX_ATTEMPTS,
            jitter: || 0.5,
        };
        Self { retry, counts: Vec::new(), age: Duration::ZERO }
    }

    /// The store is away for this session.
    fn refusing(number: u128) -> Self {
        Self::failing(number, Fault::Unavailable("the test says so".to_owned()))
    }

    /// Writes of this session fail.
    fn failing(number: u128, fault: Fault) -> Self {
        let bed = Self::new();
        bed.retry.table.fail_writes(Box::new(move |of| {
            let fault = fault.clone();
            (*of == key(number)).then(|| StoreError { operation: "write", subject: "a view".to_owned(), fault })
        }));
        bed
    }

    /// Serves messages. Returns the ids of those that failed.
    fn serve(&mut self, bodies: &[(u32, String)]) -> Vec<String> {
        let lines = Arc::new(std::sync::Mutex::new(String::new()));
        let sink = Arc::clone(&lines);
        let emitter = Emitter::to("test", "retry", move |text| sink.lock().unwrap().push_str(text));
        let batch = Batch::parse(messages(bodies, self.age).to_string().as_bytes()).unwrap();
        let metrics = emitter.start(NOW);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let answer =
            runtime.block_on(self.retry.serve(&metrics, batch, Invocation::new(NOW, Duration::from_secs(60)))).unwrap();
        let outcomes = ["RecordsSettled", "RecordsRetried", "RecordsDead", "RecordsFailed", "RecordsDropped"];
        let received = metrics.count(Metric::RecordsReceived);
        drop(metrics);
        self.counts = Vec::new();
        for line in lines.lock().unwrap().lines() {
            let document: Value = serde_json::from_str(line).unwrap();
            let named = document.as_object().unwrap().iter();
            self.counts.extend(named.filter_map(|(name, n)| Some((name.clone(), n.as_u64()?))));
        }
        assert_eq!(outcomes.map(|name| self.count(name)).iter().sum::<u64>(), received, "{:?}", self.counts);
        let answer = serde_json::to_value(answer).unwrap();
        let failures = answer["batchItemFailures"].as_array().unwrap();
        failures.iter().map(|failure| failure["itemIdentifier"].as_str().unwrap().to_owned()).collect()
    }

    fn count(&self, name: &str) -> u64 {
        self.counts.iter().filter(|(of, _)| of == name).map(|(_, n)| n).sum()
    }

    fn seen(&self, number: u128) -> u64 {
        self.retry.table.views().get(&key(number)).map_or(0, |view| view.events())
    }

    fn writes(&self) -> usize {
        let effects = self.retry.table.take_effects();
        effects.iter().filter(|effect| matches!(effect, Effect::Written(..))).count()
    }
}

#[test]
fn letters_of_many_records_fold_together() {
    let mut bed = Bed::new();
    let one = |at: u16| (1, text(&letter(at.into(), &envelope(u128::from(at % 2), &[at]))));
    assert_eq!(bed.serve(&(0..10).map(one).collect::<Vec<_>>()), [""; 0]);
    assert_eq!((bed.seen(0), bed.seen(1), bed.writes()), (5, 5, 2));
    assert_eq!(bed.count("EventsApplied"), 10);
    assert_eq!(bed.serve(&[one(3)]), [""; 0], "the same letter twice");
    assert_eq!((bed.writes(), bed.count("EventsDuplicate")), (0, 1));
    assert_eq!(
        (bed.retry.retry.take(), bed.retry.dead_letters.take(), bed.retry.pauses.take()),
        (vec![], vec![], vec![])
    );
}

#[test]
fn failing_letter_waits_longer_each_time_and_stops_no_other() {
    let mut bed = Bed::refusing(1);
    let (refused, good) = (text(&letter(7, &envelope(1, &[0]))), text(&letter(8, &envelope(2, &[0]))));
    assert_eq!(bed.serve(&[(1, refused.clone()), (1, good)]), ["m0"]);
    assert_eq!((bed.seen(2), bed.count("RecordsFailed"), bed.count("RecordsSettled")), (1, 1, 1));
    let pause = |seconds| vec![Pause { receipt_handle: "r0".to_owned(), seconds }];
    assert_eq!(bed.retry.pauses.take(), pause(2), "half of 2 s, and half of the other half");
    assert_eq!(bed.serve(&[(5, refused)]), ["m0"]);
    assert_eq!(bed.retry.pauses.take(), pause(24));
    assert_eq!((bed.retry.retry.take(), bed.retry.dead_letters.take()), (vec![], vec![]));
}

#[test]
fn last_attempt_dead_letters_with_bytes_and_history() {
    let mut bed = Bed::failing(1, Fault::Refused("the test says so".to_owned()));
    let value = envelope(1, &[0, 1]);
    let redrives =
        vec![Redrive { reason: "attempts_exhausted".to_owned(), attempts: 16, events: 2, dead_at: 1, redriven_at: 2 }];
    let one = Letter { redrives, ..letter(7, &value) };
    assert_eq!(bed.serve(&[(14, text(&one))]), ["m0"], "the 15th attempt");
    assert_eq!(bed.serve(&[(15, text(&one))]), [""; 0], "the 16th");
    let detail = "write on a view: refused: the test says so".to_owned();
    let last_error = Failure { cause: "store_refused".to_owned(), detail: detail.clone(), at: NOW };
    let letter = Letter { attempts: 16, last_error: Some(last_error), ..one };
    let dead = DeadLetter { reason: "attempts_exhausted".to_owned(), detail, events: 2, dead_at: NOW, letter };
    assert_eq!(bed.retry.dead_letters.take(), [dead]);
    assert_eq!((bed.count("RecordsDead"), bed.count("EventsDead")), (1, 2));
    assert_eq!(bed.count("EventsRedriven"), 2, "its earlier death is taken back: it is dead once");
}

#[test]
fn outage_uses_up_no_attempts() {
    for cause in [Fault::Unavailable(String::new()), Fault::Throttled(String::new())] {
        let mut bed = Bed::failing(1, cause);
        bed.retry.objects.put(object("o"), failed_batch(&[envelope(1, &[1])]));
        let bodies = [text(&letter(7, &envelope(1, &[0]))), notification("o")].map(|body| (900, body));
        bed.age = MAX_AGE - Duration::from_secs(1);
        assert_eq!(bed.serve(&bodies), ["m0"], "the letter waits, and the record of the batch becomes one");
        assert_eq!((bed.retry.retry.take().len(), bed.retry.dead_letters.take()), (1, vec![]));
        bed.age = MAX_AGE;
        assert_eq!(bed.serve(&bodies[..1]), [""; 0]);
        let dead = bed.retry.dead_letters.take();
        assert_eq!((dead.len(), dead[0].reason.as_str()), (1, "attempts_exhausted"));
    }
}

#[test]
fn newer_envelope_waits_for_the_deployment() {
    let mut bed = Bed::new();
    let newer = [envelope(1, &[0, 1]), vec![0x08, 99]].concat(); // a later field overrides: `schema_version` 99
    assert_eq!(bed.serve(&[(100, text(&letter(7, &newer)))]), ["m0"]);
    assert_eq!(bed.count("RecordsFailed"), 1);
    bed.age = MAX_AGE;
    assert_eq!(bed.serve(&[(100, text(&letter(7, &newer)))]), [""; 0]);
    assert_eq!(bed.retry.dead_letters.take()[0].reason, "unknown_schema_version");
}

#[test]
fn redriven_letter_that_is_applied_is_no_longer_dead() {
    let mut bed = Bed::new();
    let death = |events| Redrive { reason: "corrupt_view".to_owned(), attempts: 1, events, dead_at: 1, redriven_at: 2 };
    let one = Letter { redrives: vec![death(1), death(2)], ..letter(7, &envelope(1, &[0, 1])) };
    assert_eq!(bed.serve(&[(1, text(&one))]), [""; 0]);
    assert_eq!(
        (bed.count("EventsApplied"), bed.count("EventsRedriven")),
        (2, 2),
        "the last death; the ones before were taken back"
    );
}

#[test]
fn letter_that_no_queue_takes_is_never_given_up() {
    let mut bed = Bed::refusing(1);
    bed.retry.dead_letters = Letters::new(true);
    let bodies =
        [(40, text(&letter(7, &envelope(1, &[0])))), (1, text(&letter(8, b"garbage"))), (1, "garbage".to_owned())];
    assert_eq!(bed.serve(&bodies), ["m0", "m1", "m2"]);
    assert_eq!((bed.count("RecordsFailed"), bed.count("RecordsDead")), (3, 0));
    assert_eq!(bed.retry.pauses.take().len(), 3);
}

#[test]
fn poison_letter_is_dead_at_once_and_keeps_its_history() {
    let mut bed = Bed::new();
    let redrives =
        vec![Redrive { reason: "not_an_envelope".to_owned(), attempts: 1, events: 1, dead_at: 1, redriven_at: 2 }];
    let one = Letter { redrives, ..letter(7, b"garbage") };
    assert_eq!(bed.serve(&[(2, text(&one))]), [""; 0]);
    let dead = bed.retry.dead_letters.take().remove(0);
    assert_eq!((dead.reason.as_str(), dead.letter), ("not_an_envelope", Letter { attempts: 3, ..one }));
}

#[test]
fn shadows_are_dropped_and_never_applied() {
    let mut bed = Bed::refusing(1);
    let shadow = |number| envelope_of(number, &[0, 1], true);
    bed.retry.objects.put(object("o"), failed_batch(&[shadow(1), envelope(2, &[0]), shadow(2)]));
    assert_eq!(bed.serve(&[(1, text(&letter(7, &shadow(1)))), (1, notification("o"))]), [""; 0]);
    assert_eq!((bed.seen(1), bed.seen(2), bed.retry.objects.objects().len()), (0, 1, 0));
    assert_eq!((bed.retry.retry.take(), bed.retry.dead_letters.take()), (vec![], vec![]));
    assert_eq!((bed.count("RecordsDropped"), bed.count("ShadowDropped"), bed.count("EventsApplied")), (3, 6, 1));
}

#[test]
fn unreadable_message_is_dead_lettered_unchanged() {
    let mut bed = Bed::new();
    let bad_value = Letter { value_base64: "not base64!".to_owned(), ..letter(7, b"") };
    let bodies = ["garbage".to_owned(), "{}".to_owned(), text(&bad_value)];
    assert_eq!(bed.serve(&bodies.clone().map(|body| (1, body))), [""; 0]);
    let dead = bed.retry.dead_letters.take();
    for (at, (letter, body)) in dead.iter().zip(&bodies).enumerate() {
        let source = Source::Sqs { queue: "arn:retry".to_owned(), message_id: format!("m{at}") };
        assert_eq!((letter.reason.as_str(), &letter.letter.source), ("unreadable_message", &source));
        assert_eq!(&BASE64_STANDARD.decode(&letter.letter.value_base64).unwrap(), body.as_bytes());
    }
    assert_eq!(dead.len(), 3);
}

#[test]
fn s3_test_event_and_deleted_object_are_done() {
    let mut bed = Bed::new();
    let test = json!({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "failures"}).to_string();
    assert_eq!(bed.serve(&[(1, test), (1, notification("gone"))]), [""; 0]);
    assert_eq!((bed.retry.dead_letters.take(), bed.count("RecordsReceived")), (vec![], 0));
}

#[test]
fn object_is_deleted_only_after_its_batch_is_applied() {
    let mut bed = Bed::refusing(1);
    let values = [envelope(1, &[0]), envelope(2, &[0]), b"garbage".to_vec(), envelope(2, &[1])];
    bed.retry.objects.put(object("a b"), failed_batch(&values));
    bed.retry.retry = Letters::new(true);
    assert_eq!(bed.serve(&[(1, notification("a+b"))]), ["m0"], "no queue took one of its records");
    assert_eq!((bed.seen(2), bed.retry.objects.objects().len()), (2, 1));
    assert_eq!(bed.retry.dead_letters.take(), [], "it would be dead again each time");

    bed.retry.retry = Letters::default();
    assert_eq!(bed.serve(&[(2, notification("a+b"))]), [""; 0]);
    assert!(bed.retry.objects.objects().is_empty());
    let parked = bed.retry.retry.take();
    let source = Source::Kafka { topic: "playback-events".to_owned(), partition: 0, offset: 0 };
    assert_eq!((parked.len(), parked[0].attempts, &parked[0].source), (1, 1, &source));
    assert_eq!(BASE64_STANDARD.decode(&parked[0].value_base64).unwrap(), values[0]);
    assert_eq!((bed.count("RecordsRetried"), bed.count("EventsRetried"), bed.count("RecordsDead")), (1, 1, 1));
}

#[test]
fn mostly_failing_batch_waits_while_the_store_is_down() {
    let mut bed = Bed::refusing(1);
    let mut values: Vec<_> = (0..11).map(|seq| envelope(1, &[seq])).collect();
    values.extend([envelope(2, &[0]), b"garbage".to_vec()]);
    bed.retry.objects.put(object("o"), failed_batch(&values));
    for receives in [1, MAX_ATTEMPTS - 1, MAX_ATTEMPTS, 50] {
        assert_eq!(bed.serve(&[(receives, notification("o"))]), ["m0"], "{receives}");
        assert_eq!((bed.seen(2), bed.count("RecordsFailed"), bed.retry.objects.objects().len()), (1, 12, 1));
        assert_eq!((bed.retry.retry.take(), bed.retry.dead_letters.take()), (vec![], vec![]));
    }
    bed.retry.table.fail_writes(Box::new(|_| None));
    assert_eq!(bed.serve(&[(51, notification("o"))]), [""; 0]);
    assert_eq!((bed.seen(1), bed.retry.dead_letters.take().len(), bed.retry.objects.objects().len()), (11, 1, 0));
}

#[test]
fn mostly_poison_batch_is_dead_on_the_last_attempt() {
    let mut bed = Bed::refusing(1);
    let mut values: Vec<_> = (0..11).map(|at| format!("garbage {at}").into_bytes()).collect();
    values.extend([envelope(1, &[0]), envelope(2, &[0])]);
    bed.retry.objects.put(object("o"), failed_batch(&values));
    assert_eq!(bed.serve(&[(MAX_ATTEMPTS - 1, notification("o"))]), ["m0"]);
    assert_eq!((bed.seen(2), bed.count("RecordsFailed"), bed.retry.objects.objects().len()), (1, 12, 1));
    assert_eq!((bed.retry.retry.take(), bed.retry.dead_letters.take()), (vec![], vec![]));
    assert_eq!(bed.serve(&[(MAX_ATTEMPTS, notification("o"))]), [""; 0]);
    let dead = bed.retry.dead_letters.take();
    let of = |reason| dead.iter().filter(|dead| dead.reason == reason && dead.letter.attempts == MAX_ATTEMPTS).count();
    assert_eq!((of("not_an_envelope"), dead.len(), bed.retry.retry.take().len()), (11, 11, 1));
    assert!(bed.retry.objects.objects().is_empty());
}

#[test]
fn unavailable_object_is_retried_and_unreadable_one_is_dead() {
    let mut bed = Bed::new();
    bed.retry.objects = MemoryBucket::failing(|object| object.key == "unavailable");
    bed.retry.objects.put(object("unavailable"), failed_batch(&[envelope(1, &[0])]));
    bed.retry.objects.put(object("no-json"), &b"\xff"[..]);
    bed.retry.objects.put(object("no-payload"), &br#"{"requestContext":{"condition":"RecordAgeExceeded"}}"#[..]);
    bed.retry.objects.put(object("no-batch"), &br#"{"requestContext":{"condition":"x"},"payload":"{}"}"#[..]);
    bed.retry.objects.put(object("too-large"), vec![b' '; MAX_OBJECT_BYTES + 1]);
    let unreadable = ["no-json", "no-payload", "no-batch", "too-large"];
    let bodies: Vec<_> = ["unavailable"].iter().chain(&unreadable).map(|key| (1, notification(key))).collect();
    assert_eq!(bed.serve(&bodies), ["m0"]);
    let dead = bed.retry.dead_letters.take();
    for (letter, key) in dead.iter().zip(unreadable) {
        assert_eq!(letter.reason, "unreadable_message");
        assert!(letter.detail.contains(&format!("s3://failures/{key}")), "{}", letter.detail);
        assert_eq!(BASE64_STANDARD.decode(&letter.letter.value_base64).unwrap(), notification(key).as_bytes());
    }
    assert_eq!((dead.len(), bed.retry.objects.objects().len()), (4, 5));

    assert_eq!(bed.serve(&[(MAX_ATTEMPTS, notification("unavailable"))]), ["m0"], "the bucket is away");
    bed.age = MAX_AGE;
    assert_eq!(bed.serve(&[(MAX_ATTEMPTS, notification("unavailable"))]), [""; 0]);
    let dead = bed.retry.dead_letters.take().remove(0);
    assert_eq!((dead.reason.as_str(), dead.letter.attempts), ("attempts_exhausted", MAX_ATTEMPTS));
    assert_eq!(dead.letter.last_error.unwrap().cause, "object_unavailable");
    assert_eq!(bed.retry.objects.objects().len(), 5, "its bytes can still be redriven");
}

#[test]
fn redriven_message_is_read_as_what_it_was() {
    let mut bed = Bed::refusing(1);
    bed.retry.objects.put(object("o"), failed_batch(&[envelope(3, &[0])]));
    let of_queue = |body: String| Letter {
        source: Source::Sqs { queue: "arn:inbound".to_owned(), message_id: "m".to_owned() },
        key_base64: None,
        attempts: 0,
        redrives: vec![Redrive {
            reason: "redriven_by_sqs".to_owned(),
            attempts: 5,
            events: 1,
            dead_at: 1,
            redriven_at: 2,
        }],
        ..letter(0, body.as_bytes())
    };
    let parts = [envelope(1, &[0]), envelope(2, &[0]), b"garbage".to_vec()];
    let inbound = BASE64_STANDARD.encode(join_delimited(parts.iter().map(Vec::as_slice)));
    let bodies = [inbound, notification("o"), "neither".to_owned()];
    assert_eq!(bed.serve(&bodies.map(|body| (1, text(&of_queue(body))))), [""; 0]);
    assert_eq!((bed.seen(2), bed.seen(3), bed.retry.objects.objects().len()), (1, 1, 0));
    let parked = bed.retry.retry.take();
    assert_eq!((parked.len(), BASE64_STANDARD.decode(&parked[0].value_base64).unwrap()), (1, envelope(1, &[0])));
    assert_eq!(parked[0].redrives.len(), 1, "it keeps its history");
    let dead = bed.retry.dead_letters.take();
    let dead: Vec<_> = dead.iter().map(|dead| BASE64_STANDARD.decode(&dead.letter.value_base64).unwrap()).collect();
    assert_eq!(dead, [b"garbage".to_vec(), b"neither".to_vec()]);
}

/// Else the function would be cut off, and the letters beside the erasures would wait for the
/// queue's own time-out.
#[tokio::test]
async fn hanging_erasures_hold_up_no_letter() {
    let bed = Bed::new();
    bed.retry.table.hang_erasures();
    let erase = json!({"erase": {"profile_id": "p1", "at": 7}}).to_string();
    let mut bodies = vec![(1, erase); 9];
    bodies.push((1, text(&letter(0, &envelope(1, &[0])))));
    let metrics = Emitter::to("test", "retry", |_| {}).start(NOW);
    let batch = Batch::parse(messages(&bodies, Duration::ZERO).to_string().as_bytes()).unwrap();
    let began = tokio::time::Instant::now();
    let answer = serde_json::to_value(
        bed.retry.serve(&metrics, batch, Invocation::new(NOW, Duration::from_secs(60))).await.unwrap(),
    )
    .unwrap();
    assert!(began.elapsed() < std::time::Duration::from_secs(15), "{:?}", began.elapsed());
    assert_eq!(answer["batchItemFailures"].as_array().unwrap().len(), 9);
    assert_eq!((bed.retry.table.views().len(), bed.retry.pauses.take().len()), (1, 9));
}

#[tokio::test]
async fn hanging_bucket_is_given_up_in_time() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let sdk = aws_config::defaults(aws_config::BehaviorVersion::latest())
        .region("us-east-1")
        .credentials_provider(aws_sdk_s3::config::Credentials::new("AKID", "secret", None, None, "test"))
        .endpoint_url(format!("http://{}", listener.local_addr().unwrap()))
        .load()
        .await;
    let began = tokio::time::Instant::now();
    let read = bucket(&sdk).get(&object("o")).await;
    assert!(read.is_err(), "{read:?}");
    assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
}
