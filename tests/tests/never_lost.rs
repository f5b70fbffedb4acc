//! Whatever fails and wherever it crashes, an accepted event is never lost, and ends in its view.
//!
//! `process` and `retry` themselves, between a log, two queues, a bucket and a table that each fail
//! at random, and that each keep what was done when an invocation is dropped in the middle. Lambda
//! and SQS are simulated as AWS documents them: failed records are delivered again, batches that
//! fail too often go to the bucket, messages are delivered again until they are acknowledged.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use apply::testing::Letters;
use apply::{DeadLetter, Letter, Recent};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use lambda::batch::Batch;
use lambda::metrics::{Emitter, Metric, Metrics};
use lambda::runtime::{Invocation, ServeBatch};
use playback::contract::Event;
use playback::envelope::Envelope;
use playback::fold::{ViewKey, fold};
use playback::outcome::{Cause, Reason};
use playback::session::SessionId;
use playback::view::View;
use playhead_tests::sample;
use process::Process;
use proptest::prelude::*;
use retry::testing::{MemoryBucket, RecordedPauses};
use retry::{Object, Retry};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;
use store::testing::MemoryTable;
use store::{Fault, StoreError};

const NOW: u64 = 1_790_000_300_000;
/// Deliveries after which the mapping discards a batch.
const MAX_DELIVERIES: u32 = 3;

#[derive(Debug, Clone)]
enum Given {
    Good { session: u128, seqs: Vec<u16> },
    Garbage,
}

fn session(number: u128) -> SessionId {
    SessionId::mint("use1".parse().unwrap(), 1_790_000_000_000, number)
}

fn envelope(number: u128, seqs: &[u16]) -> Envelope {
    let event = |&seq: &u16| Event {
        position_ms: u64::from(seq) * 10,
        played_ms: 5.min(u64::from(seq) * 10),
        title_duration_ms: Some(1_000_000),
        ..sample::event(seq, 1)
    };
    sample::envelope(session(number), "p1", "t1", NOW, seqs.iter().map(event).collect())
}

/// The bytes of the `at`th record. Its number makes garbage unique.
fn value(at: usize, given: &Given) -> Vec<u8> {
    match given {
        Given::Good { session, seqs } => envelope(*session, seqs).encode(),
        Given::Garbage => format!("garbage {at}").into_bytes(),
    }
}

fn trace() -> impl Strategy<Value = Vec<Given>> {
    let good =
        (0u128..5, prop::collection::vec(0u16..12, 1..5)).prop_map(|(session, seqs)| Given::Good { session, seqs });
    prop::collection::vec(prop_oneof![6 => good, 1 => Just(Given::Garbage)], 1..60)
}

/// Faults of a run: what percentage of calls fail, and of invocations crash.
#[derive(Debug, Clone)]
struct Faults {
    store: u64,
    retry: u64,
    dead: u64,
    bucket: u64,
    crash: u64,
}

fn faults() -> impl Strategy<Value = Faults> {
    let share = || prop_oneof![Just(0u64), 1..40u64, Just(95)];
    (share(), share(), share(), share(), prop_oneof![Just(0u64), 1..60u64])
        .prop_map(|(store, retry, dead, bucket, crash)| Faults { store, retry, dead, bucket, crash })
}

/// Random numbers from a seed, shared by everything that fails.
#[derive(Clone)]
struct Dice(Arc<Mutex<u64>>);

impl Dice {
    fn below(&self, bound: u64) -> u64 {
        let mut state = self.0.lock().unwrap();
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 33) % bound
    }

    fn percent(&self, share: u64) -> bool {
        self.below(100) < share
    }
}

/// A message of the queue `retry`.
#[derive(Debug, Clone)]
struct Message {
    body: String,
    receives: u32,
}

/// Runs a future for at most this many turns. What it did until then stays done.
async fn crash_after<F: Future>(turns: u64, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = turns;
    std::future::poll_fn(move |context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending if left == 0 => Poll::Ready(None),
        Poll::Pending => {
            left -= 1;
            Poll::Pending
        }
    })
    .await
}

struct World {
    retry: Retry<MemoryTable, Letters<Letter>, Letters<DeadLetter>, MemoryBucket, RecordedPauses>,
    values: Vec<Vec<u8>>,
    trace: Vec<Given>,
    /// Records on the log, by offset, and how often they were delivered.
    log: BTreeMap<usize, u32>,
    queue: BTreeMap<usize, Message>,
    dead: Vec<DeadLetter>,
    next_message: usize,
    dice: Dice,
    crash: u64,
    healed: Arc<Mutex<bool>>,
    emitter: Emitter,
}

impl World {
    fn new(trace: Vec<Given>, faults: &Faults, max_attempts: u32, seed: u64) -> Self {
        let dice = Dice(Arc::new(Mutex::new(seed)));
        let healed = Arc::new(Mutex::new(false));
        let fails = |share: u64| {
            let (dice, healed) = (dice.clone(), Arc::clone(&healed));
            move || !*healed.lock().unwrap() && dice.percent(share)
        };
        let table = MemoryTable::new(seed);
        let (store_fails, is_away) = (fails(faults.store), fails(50));
        table.fail_writes(Box::new(move |_| {
            let why = "the test says so".to_owned();
            let fault = if is_away() { Fault::Unavailable(why) } else { Fault::Refused(why) };
            store_fails().then(|| StoreError { operation: "write", subject: "a view".to_owned(), fault })
        }));
        let (retry_fails, dead_fails, bucket_fails) = (fails(faults.retry), fails(faults.dead), fails(faults.bucket));
        let retry = Retry {
            table,
            shadow: None,
            retry: Letters::refusing(move |_| retry_fails()),
            dead_letters: Letters::refusing(move |_| dead_fails()),
            objects: MemoryBucket::failing(move |_| bucket_fails()),
            pauses: RecordedPauses::default(),
            max_attempts,
            jitter: || 0.0,
        };
        let values: Vec<_> = trace.iter().enumerate().map(|(at, given)| value(at, given)).collect();
        Self {
            log: (0..values.len()).map(|offset| (offset, 0)).collect(),
            retry,
            values,
            trace,
            queue: BTreeMap::new(),
            dead: Vec::new(),
            next_message: 0,
            dice,
            crash: faults.crash,
            healed,
            emitter: Emitter::to("test", "test", |_| {}),
        }
    }

    /// How many turns the next invocation gets.
    fn turns(&self) -> u64 {
        let dies = !*self.healed.lock().unwrap() && self.dice.percent(self.crash);
        if dies { self.dice.below(60) } else { u64::MAX }
    }

    fn event(&self, offsets: &[usize]) -> String {
        let record = |&offset: &usize| {
            json!({"topic": "t", "partition": 0, "offset": offset, "timestamp": 1, "timestampType": "CREATE_TIME",
                "key": "aw==", "value": BASE64_STANDARD.encode(&self.values[offset]), "headers": []})
        };
        let records: Vec<Value> = offsets.iter().map(record).collect();
        json!({"eventSource": "aws:kafka", "eventSourceArn": "arn", "bootstrapServers": "b", "records": {"t-0": records}})
            .to_string()
    }

    async fn deliver_from_log(&mut self) {
        let size = 1 + self.dice.below(40) as usize;
        let offsets: Vec<usize> = self.log.keys().copied().take(size).collect();
        if offsets.is_empty() {
            return;
        }
        let event = self.event(&offsets);
        let batch = Batch::parse(event.as_bytes()).unwrap();
        let metrics = self.emitter.start(NOW);
        let Retry { table, retry, dead_letters, .. } = &self.retry;
        let process = Process { table, shadow: None, retry, dead_letters, recent: Recent::default() };
        let answer =
            crash_after(self.turns(), process.serve(&metrics, batch, Invocation::new(NOW, Duration::from_secs(60))))
                .await
                .map(Result::unwrap);
        let diverted = self.collect();
        let answer = answer.map(|answer| serde_json::to_value(answer).unwrap());
        let failed: Vec<usize> = match &answer {
            None => offsets.clone(),
            Some(answer) => {
                balances(&metrics);
                assert!(diverted <= 10.max(offsets.len() / 2), "{diverted} of {} were diverted", offsets.len());
                let failures = answer["batchItemFailures"].as_array().unwrap().iter();
                failures.map(|failure| failure["itemIdentifier"]["offset"].as_u64().unwrap() as usize).collect()
            }
        };
        for offset in &offsets {
            if !failed.contains(offset) {
                self.log.remove(offset);
            }
        }
        failed.iter().for_each(|offset| *self.log.get_mut(offset).unwrap() += 1);
        let given_up: Vec<usize> = failed.into_iter().filter(|offset| self.log[offset] >= MAX_DELIVERIES).collect();
        if !given_up.is_empty() {
            let object = Object { bucket: "failures".to_owned(), key: format!("object-{}", self.next_message) };
            let content =
                json!({"requestContext": {"condition": "RetryAttemptsExhausted"}, "payload": self.event(&given_up)});
            let notice = json!({"Records": [{"eventSource": "aws:s3", "eventName": "ObjectCreated:Put",
                "s3": {"bucket": {"name": "failures"}, "object": {"key": object.key}}}]});
            self.retry.objects.put(object, content.to_string());
            self.send(notice.to_string());
            self.log.retain(|offset, _| !given_up.contains(offset));
        }
    }

    async fn deliver_from_queue(&mut self) {
        let size = 1 + self.dice.below(10) as usize;
        let ids: Vec<usize> = self.queue.keys().copied().filter(|_| self.dice.percent(70)).take(size).collect();
        if ids.is_empty() {
            return;
        }
        let record = |id: &usize| {
            let message = self.queue.get_mut(id).unwrap();
            message.receives += 1;
            json!({"messageId": id.to_string(), "receiptHandle": "r", "body": message.body,
                "attributes": {"ApproximateReceiveCount": message.receives.to_string()}, "messageAttributes": {},
                "eventSource": "aws:sqs", "eventSourceARN": "arn:retry", "awsRegion": "us-east-1"})
        };
        let event = json!({"Records": ids.iter().map(record).collect::<Vec<_>>()});
        let batch = Batch::parse(event.to_string().as_bytes()).unwrap();
        let metrics = self.emitter.start(NOW);
        let answer =
            crash_after(self.turns(), self.retry.serve(&metrics, batch, Invocation::new(NOW, Duration::from_secs(60))))
                .await
                .map(Result::unwrap);
        self.collect();
        if let Some(answer) = answer.map(|answer| serde_json::to_value(answer).unwrap()) {
            balances(&metrics);
            let failed = answer["batchItemFailures"].as_array().unwrap().iter();
            let failed: BTreeSet<usize> =
                failed.map(|failure| failure["itemIdentifier"].as_str().unwrap().parse().unwrap()).collect();
            assert_eq!(self.retry.pauses.take().len(), failed.len(), "redelivered messages are delayed");
            self.queue.retain(|id, _| !ids.contains(id) || failed.contains(id));
        }
    }

    fn send(&mut self, body: String) {
        self.queue.insert(self.next_message, Message { body, receives: 0 });
        self.next_message += 1;
    }

    /// Collects what was sent to the queues in the last invocation. Returns how much that was.
    fn collect(&mut self) -> usize {
        let (parked, dead) = (self.retry.retry.take(), self.retry.dead_letters.take());
        let count = parked.len() + dead.len();
        parked.iter().for_each(|letter| self.send(serde_json::to_string(letter).unwrap()));
        self.dead.extend(dead);
        count
    }

    /// Each record is on the log, in its view, on a queue, or in an object that a queued message
    /// names.
    fn nothing_is_lost(&self) {
        let views = self.retry.table.views();
        let objects = self.retry.objects.objects();
        let texts = self.queue.values().map(|message| message.body.clone());
        let dead_texts = self.dead.iter().map(|dead| decoded(&dead.letter));
        let mut held: BTreeSet<Vec<u8>> = self.dead.iter().map(|dead| decoded(&dead.letter)).collect();
        for text in texts.map(String::into_bytes).chain(dead_texts) {
            if let Ok(letter) = serde_json::from_slice::<Letter>(&text) {
                held.insert(decoded(&letter));
            }
            let notice: Value = serde_json::from_slice(&text).unwrap_or_default();
            let Some(key) = notice["Records"][0]["s3"]["object"]["key"].as_str() else { continue };
            let object = Object { bucket: "failures".to_owned(), key: key.to_owned() };
            let Some(content) = objects.get(&object) else { continue };
            let content: Value = serde_json::from_slice(content).unwrap();
            let event: Value = serde_json::from_str(content["payload"].as_str().unwrap()).unwrap();
            let records = event["records"]["t-0"].as_array().unwrap().iter();
            held.extend(records.map(|record| BASE64_STANDARD.decode(record["value"].as_str().unwrap()).unwrap()));
        }
        for (offset, given) in self.trace.iter().enumerate() {
            let in_view = matches!(given, Given::Good { session: number, seqs }
                if views.get(&key(*number)).is_some_and(|view| seqs.iter().all(|&seq| view.seen.contains(seq.into()))));
            let somewhere = in_view || self.log.contains_key(&offset) || held.contains(&self.values[offset]);
            assert!(somewhere, "record {offset} is nowhere: {given:?}");
        }
    }

    /// Ends all faults, and runs until nothing is left to do.
    async fn heal(&mut self) {
        *self.healed.lock().unwrap() = true;
        for _ in 0..2_000 {
            if self.log.is_empty() && self.queue.is_empty() {
                return;
            }
            self.deliver_from_log().await;
            self.deliver_from_queue().await;
            self.nothing_is_lost();
        }
        panic!("{} records and {} messages never end", self.log.len(), self.queue.len());
    }
}

fn key(number: u128) -> ViewKey {
    ViewKey { profile_id: "p1".to_owned(), session_id: session(number), title_id: "t1".to_owned() }
}

fn decoded(letter: &Letter) -> Vec<u8> {
    BASE64_STANDARD.decode(&letter.value_base64).unwrap()
}

/// Each received record has one outcome.
fn balances(metrics: &Metrics) {
    let causes = Cause::ALL.map(Cause::as_str).into_iter();
    let causes = causes.flat_map(|cause| [Metric::RecordsFailed(cause), Metric::RecordsRetried(cause)]);
    let reasons = Reason::ALL.map(Reason::as_str).into_iter().map(Metric::RecordsDead);
    let outcomes = causes.chain(reasons).chain([Metric::RecordsSettled]);
    let outcomes: u64 = outcomes.map(|metric| metrics.count(metric)).sum();
    assert_eq!(outcomes, metrics.count(Metric::RecordsReceived));
}

/// The views of the whole trace, folded in one batch without faults.
fn expected(trace: &[Given]) -> BTreeMap<ViewKey, View> {
    let envelopes = trace.iter().enumerate().filter_map(|(at, given)| match given {
        Given::Good { session, seqs } => Some((at, envelope(*session, seqs))),
        Given::Garbage => None,
    });
    fold(envelopes).into_iter().map(|delta| (delta.key, delta.view)).collect()
}

fn run(trace: &[Given], faults: &Faults, max_attempts: u32, seed: u64) -> World {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let mut world = World::new(trace.to_vec(), faults, max_attempts, seed);
        for _ in 0..60 {
            if world.dice.percent(50) {
                world.deliver_from_log().await;
            } else {
                world.deliver_from_queue().await;
            }
            world.nothing_is_lost();
        }
        world.heal().await;
        world
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// With attempts left, every event ends in its view as if nothing had failed, and only poison
    /// is dead. A batch that is mostly poison waits for its last attempt, so there is one: after more
    /// than the faults can use up.
    #[test]
    fn views_end_right_whatever_fails_or_crashes(
        trace in trace(), faults in faults(), seed in any::<u64>(),
    ) {
        let world = run(&trace, &faults, 200, seed);
        prop_assert_eq!(world.retry.table.views(), expected(&trace));
        let dead: BTreeSet<Vec<u8>> = world.dead.iter().map(|dead| decoded(&dead.letter)).collect();
        let is_garbage = |at: &usize| matches!(trace[*at], Given::Garbage);
        let garbage: BTreeSet<Vec<u8>> = (0..trace.len()).filter(is_garbage).map(|at| world.values[at].clone()).collect();
        prop_assert_eq!(dead, garbage);
        prop_assert!(world.dead.iter().all(|dead| dead.reason == "not_an_envelope"));
        if faults.bucket == 0 && faults.crash == 0 {
            prop_assert!(world.retry.objects.objects().is_empty());
        }
    }

    /// With few attempts, some records are exhausted. Each is then dead with its bytes, after as
    /// many attempts as it says, or its object is still there.
    #[test]
    fn exhausted_records_are_dead_with_their_bytes(trace in trace(), faults in faults(), max_attempts in 1u32..4, seed in any::<u64>()) {
        let world = run(&trace, &faults, max_attempts, seed);
        world.nothing_is_lost();
        for dead in world.dead.iter().filter(|dead| dead.reason == "attempts_exhausted") {
            prop_assert!(dead.letter.attempts >= max_attempts, "{:?}", dead);
            prop_assert!(dead.letter.first_error.is_some() && dead.letter.last_error.is_some(), "{:?}", dead);
        }
    }
}
