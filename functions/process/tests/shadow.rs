//! Shadows go into a separate table, and live events are unaffected by whatever happens to that
//! table.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use apply::testing::Letters;
use apply::{DeadLetter, Letter, Recent};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use lambda::batch::{Batch, Record, Source};
use lambda::metrics::{Emitter, Metric, Metrics};
use lambda::runtime::{Invocation, ServeBatch};
use playback::contract::{Device, Event, Kind};
use playback::envelope::{Envelope, Stamp, join_delimited};
use playback::fold::ViewKey;
use playback::outcome::{Cause, Reason};
use playback::rollout::Share;
use playback::session::SessionId;
use playback::view::View;
use process::{Candidate, Process, Sample, Shadow};
use proptest::prelude::*;
use std::sync::Arc;
use std::time::Duration;
use store::testing::MemoryTable;
use store::{Erase, Erasure, Fault, StoreError, Stored, ViewTable, Write, WriteError};
use tokio::time::Instant;

const NOW: u64 = 1_790_000_010_200;

fn envelope(profile: &str, number: u128, events: u16, shadow: bool) -> Vec<u8> {
    let event = |seq| Event {
        seq,
        kind: Kind::Progressed,
        position_ms: u64::from(seq),
        played_ms: 0,
        title_duration_ms: Some(1_000_000),
        credits_ms: None,
        occurred_at: Some(1),
        device: Arc::new(Device { id: Some("d1".to_owned()), kind: Some("tv".to_owned()) }),
        country: None,
    };
    let envelope = Envelope {
        session_id: SessionId::mint("use1".parse().unwrap(), NOW, number),
        profile_id: profile.to_owned(),
        title_id: "t1".to_owned(),
        stamp: Stamp { received_at: NOW, sent_at: None, ingest_region: "us-east-1".to_owned(), trace_id: None, shadow },
        events: (0..events).map(event).collect(),
    };
    envelope.encode()
}

fn batch(values: Vec<Vec<u8>>) -> Batch {
    let record = |(offset, value): (usize, Vec<u8>)| Record {
        source: Source::Kafka { topic: "playback-events".to_owned(), partition: 0, offset: offset as i64 },
        key: None,
        value: Ok(Bytes::from(value)),
        delivery: None,
    };
    Batch { records: values.into_iter().enumerate().map(record).collect() }
}

fn metrics() -> Metrics {
    Emitter::to("dev", "process", |_| ()).start(NOW)
}

fn profiles(table: &Table) -> Vec<String> {
    let Table::Memory(table) = table else { return Vec::new() };
    table.views().into_keys().map(|key| key.profile_id).collect()
}

/// A table that may never answer.
enum Table {
    Memory(MemoryTable),
    Silent,
}

impl ViewTable for Table {
    async fn read(&self, keys: &[ViewKey]) -> Vec<Result<Option<Stored>, StoreError>> {
        match self {
            Self::Memory(table) => table.read(keys).await,
            Self::Silent => std::future::pending().await,
        }
    }

    async fn write(&self, writes: &[Write<'_>]) -> Vec<Result<(), WriteError>> {
        match self {
            Self::Memory(table) => table.write(writes).await,
            Self::Silent => std::future::pending().await,
        }
    }

    async fn erasures(&self, keys: &[ViewKey]) -> Vec<Result<Erasure, StoreError>> {
        match self {
            Self::Memory(table) => table.erasures(keys).await,
            Self::Silent => std::future::pending().await,
        }
    }

    async fn erase(&self, erase: &Erase, deadline: tokio::time::Instant) -> Result<bool, StoreError> {
        match self {
            Self::Memory(table) => table.erase(erase, deadline).await,
            Self::Silent => std::future::pending().await,
        }
    }

    async fn session(&self, key: &ViewKey) -> Result<Option<Vec<View>>, StoreError> {
        match self {
            Self::Memory(table) => table.session(key).await,
            Self::Silent => std::future::pending().await,
        }
    }
}

type InMemory = Process<Table, Letters<Letter>, Letters<DeadLetter>>;

fn process(shadow: Option<Table>) -> InMemory {
    let (table, shadow) = (Table::Memory(MemoryTable::new(1)), shadow.map(Shadow::new));
    Process { table, shadow, retry: Letters::default(), dead_letters: Letters::default(), recent: Recent::default() }
}

/// Serves two live records and two shadows. Returns the metrics.
async fn run(process: &InMemory) -> Metrics {
    let metrics = metrics();
    let values = vec![
        envelope("live", 1, 3, false),
        envelope("tried", 2, 2, true),
        envelope("live", 3, 1, false),
        envelope("tried", 2, 2, true),
    ];
    let answer = process.serve(&metrics, batch(values), Invocation::new(NOW, Duration::from_secs(60))).await.unwrap();
    assert_eq!(serde_json::to_value(answer).unwrap()["batchItemFailures"], serde_json::json!([]));
    assert!(process.retry.take().is_empty() && process.dead_letters.take().is_empty(), "a shadow goes to no queue");
    metrics
}

#[tokio::test]
async fn shadows_are_folded_apart_and_are_in_no_books() {
    let process = process(Some(Table::Memory(MemoryTable::new(2))));
    let metrics = run(&process).await;
    assert_eq!(profiles(&process.table), ["live", "live"]);
    assert_eq!((metrics.count(Metric::EventsApplied), metrics.count(Metric::EventsDuplicate)), (4, 0));
    assert_eq!((metrics.count(Metric::ShadowApplied), metrics.count(Metric::ShadowDuplicate)), (2, 2));
    assert_eq!((metrics.count(Metric::RecordsReceived), metrics.count(Metric::RecordsSettled)), (4, 4));
}

#[tokio::test]
async fn shadows_without_a_table_are_dropped_and_never_shown() {
    let process = process(None);
    let metrics = run(&process).await;
    assert_eq!(profiles(&process.table), ["live", "live"]);
    assert_eq!((metrics.count(Metric::RecordsDropped), metrics.count(Metric::ShadowDropped)), (2, 4));
    assert_eq!(metrics.count(Metric::EventsApplied), 4);
}

#[tokio::test]
async fn failing_shadow_table_costs_live_nothing_and_rests() {
    let shadows = MemoryTable::new(2);
    shadows.fail_writes(Box::new(|key| {
        let fault = Fault::Throttled("the test says so".to_owned());
        Some(StoreError { operation: "write", subject: key.session_id.to_string(), fault })
    }));
    let process = process(Some(Table::Memory(shadows)));
    for _ in 0..2 {
        let metrics = run(&process).await;
        assert_eq!(metrics.count(Metric::ShadowDropped), 4);
        assert_eq!(metrics.count(Metric::EventsApplied) + metrics.count(Metric::EventsDuplicate), 4);
    }
    let (began, shadow) = (Instant::now(), process.shadow.as_ref().unwrap());
    let folds = async |after: u64| {
        let envelope = Envelope::decode(&envelope("tried", 2, 2, true)).unwrap();
        let folded = shadow.fold(vec![envelope], began + Duration::from_secs(after)).await.unwrap();
        folded.into_iter().flatten().count()
    };
    assert_eq!(folds(1).await, 0, "left alone");
}

#[tokio::test]
async fn hanging_shadow_table_is_awaited_once_and_briefly() {
    let process = process(Some(Table::Silent));
    for _ in 0..20 {
        let metrics = tokio::time::timeout(Duration::from_secs(20), run(&process)).await.unwrap();
        assert_eq!(metrics.count(Metric::ShadowDropped), 4);
    }
    assert_eq!(profiles(&process.table), ["live", "live"]);
}

#[tokio::test]
async fn candidate_folds_a_sample_and_always_answers_done() {
    let shares = async |sample: &str| {
        let values = (0..400).map(|n| envelope(&format!("p{n}"), n, 2, n % 4 == 0)).chain([vec![0xff]]).collect();
        let (metrics, sample) = (metrics(), Sample(sample.parse::<Share>().unwrap()));
        let candidate = Candidate { shadow: Shadow::new(MemoryTable::new(1)), sample };
        let answer =
            candidate.serve(&metrics, batch(values), Invocation::new(NOW, Duration::from_secs(60))).await.unwrap();
        assert_eq!(serde_json::to_value(answer).unwrap()["batchItemFailures"], serde_json::json!([]));
        assert_eq!(metrics.count(Metric::EventsApplied), 0, "a candidate is in no books");
        metrics.count(Metric::ShadowApplied) / 2
    };
    assert_eq!((shares("0%").await, shares("100%").await), (0, 300));
    assert!((45..110).contains(&shares("25%").await));

    let (metrics, silent) = (metrics(), Candidate { shadow: Shadow::new(Table::Silent), sample: Sample(Share::ALL) });
    let answer = silent
        .serve(&metrics, batch(vec![envelope("p", 1, 2, false)]), Invocation::new(NOW, Duration::from_secs(60)))
        .await
        .unwrap();
    assert_eq!(serde_json::to_value(answer).unwrap()["batchItemFailures"], serde_json::json!([]));
    assert_eq!(metrics.count(Metric::ShadowDropped), 2);
}

/// Each record that came in has one outcome.
fn balances(metrics: &Metrics) -> bool {
    let causes = Cause::ALL.map(Cause::as_str).into_iter();
    let causes = causes.flat_map(|cause| [Metric::RecordsFailed(cause), Metric::RecordsRetried(cause)]);
    let reasons = Reason::ALL.map(Reason::as_str).into_iter().map(Metric::RecordsDead);
    let outcomes = causes.chain(reasons).chain([Metric::RecordsSettled, Metric::RecordsDropped]);
    outcomes.map(|metric| metrics.count(metric)).sum::<u64>() == metrics.count(Metric::RecordsReceived)
}

proptest! {
    #[test]
    fn live_records_end_as_if_there_were_no_shadows(
        kinds in prop::collection::vec(prop::sample::select(vec!["live", "tried", "garbage"]), 1..60),
        shadow_fails in any::<Option<bool>>(),
        refused in 0..60u128,
    ) {
        let value = |(at, kind): (usize, &&str)| match *kind {
            "garbage" => format!("garbage {at}").into_bytes(),
            kind => envelope(kind, at as u128, 2, kind == "tried"),
        };
        let values: Vec<_> = kinds.iter().enumerate().map(|one| (*one.1, value(one))).collect();
        let serve = |values: Vec<Vec<u8>>| {
            let fails = |key: &ViewKey| {
                let fault = Fault::Unavailable("the test says so".to_owned());
                Some(StoreError { operation: "write", subject: key.session_id.to_string(), fault })
            };
            let shadow = shadow_fails.map(|down| {
                let table = MemoryTable::new(2);
                table.fail_writes(Box::new(move |key| if down { fails(key) } else { None }));
                Table::Memory(table)
            });
            let (process, metrics) = (process(shadow), metrics());
            let Table::Memory(table) = &process.table else { unreachable!("the live table is in memory") };
            let refused = SessionId::mint("use1".parse().unwrap(), NOW, refused);
            table.fail_writes(Box::new(move |key| if key.session_id == refused { fails(key) } else { None }));
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let received = values.len() as u64;
            let answer = runtime.block_on(process.serve(&metrics, batch(values), Invocation::new(NOW, Duration::from_secs(60)))).unwrap();
            assert!(balances(&metrics) && metrics.count(Metric::RecordsReceived) == received);
            let failed = serde_json::to_value(answer).unwrap()["batchItemFailures"].as_array().unwrap().len();
            let retried = process.retry.take().into_iter().map(|letter| letter.value_base64);
            let dead = process.dead_letters.take().into_iter().map(|dead| dead.letter.value_base64);
            let letters: (Vec<String>, Vec<String>) = (retried.collect(), dead.collect());
            (failed, letters, table.views(), metrics.count(Metric::EventsApplied))
        };
        let without = values.iter().filter(|(kind, _)| *kind != "tried").map(|(_, value)| value.clone()).collect();
        let with = values.into_iter().map(|(_, value)| value).collect();
        prop_assert_eq!(serve(with), serve(without));
    }
}

/// The candidate's queue: it keeps what it gets, or does not answer.
#[derive(Default)]
struct CopiesTaken {
    taken: std::sync::Mutex<Vec<String>>,
    hangs: bool,
    asked: std::sync::atomic::AtomicUsize,
}

impl process::SendCopies for &CopiesTaken {
    async fn send(&self, bodies: Vec<String>) -> usize {
        self.asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        if self.hangs {
            std::future::pending::<()>().await;
        }
        self.taken.lock().unwrap().extend(bodies);
        0
    }
}

/// A message of `inbound` with envelopes of these profiles.
fn message(id: &str, profiles: &[&str]) -> Record {
    let envelopes: Vec<Vec<u8>> = profiles.iter().map(|profile| envelope(profile, 1, 1, false)).collect();
    let body = BASE64_STANDARD.encode(join_delimited(envelopes.iter().map(Vec::as_slice)));
    let source = Source::Sqs { queue: "inbound".to_owned(), message_id: id.to_owned() };
    Record { source, key: None, value: Ok(body.into()), delivery: None }
}

#[tokio::test(start_paused = true)]
async fn candidate_gets_copies_of_what_only_one_reads() {
    let sample = Sample("50%".parse::<Share>().unwrap());
    let profiles: Vec<String> = (0..40).map(|number| format!("p{number}")).collect();
    let names: Vec<&str> = profiles.iter().map(String::as_str).collect();
    for hangs in [false, true] {
        let (live, shadow, copies) =
            (MemoryTable::new(1), MemoryTable::new(2), CopiesTaken { hangs, ..CopiesTaken::default() });
        let (retry, dead_letters) = (Letters::<Letter>::default(), Letters::<DeadLetter>::default());
        let recent = Recent::default();
        let process = Process { table: &live, shadow: None, retry: &retry, dead_letters: &dead_letters, recent };
        let process = process::WithCopies { process, copies: Some(process::Copies::new(&copies, sample)) };
        let mut arrived = batch(vec![envelope("of-the-log", 1, 1, false)]);
        arrived.records.extend([message("1", &names[..20]), message("2", &names[20..])]);
        let emitter = Emitter::to("test", "process", |_| {});
        let invocation = Invocation::new(NOW, Duration::from_secs(60));
        let _ = process.serve(&emitter.start(NOW), arrived, invocation).await.unwrap();
        assert_eq!(live.views().len(), 41, "nothing waits for the copies");
        let again = Batch { records: vec![message("3", &names)] };
        let _ = process.serve(&emitter.start(NOW), again, invocation).await.unwrap();
        let asked = copies.asked.load(std::sync::atomic::Ordering::Relaxed);
        assert_eq!(asked, if hangs { 1 } else { 2 }, "a queue that hangs is left alone for a while");

        // The candidate folds just the copies of its sample.
        let bodies = copies.taken.into_inner().unwrap();
        let record = |body: String| Record { value: Ok(body.into()), ..message("copy", &[]) };
        let copied = Batch { records: bodies.into_iter().map(record).collect() };
        let candidate = Candidate { shadow: Shadow::new(&shadow), sample };
        let _ = candidate.serve(&emitter.start(NOW), copied, invocation).await.unwrap();
        let folded = shadow.views().len();
        assert_eq!(folded > 5 && folded < 35, !hangs, "{folded}");
        let of_live = live.views();
        assert!(shadow.views().iter().all(|(key, view)| of_live[key] == *view));
    }
}
