//! Shadows go into a table of their own, and whatever becomes of that table, live events do not notice.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use apply::testing::Letters;
use apply::{DeadLetter, Letter};
use bytes::Bytes;
use lambda::batch::{Batch, Record, Source};
use lambda::metrics::{Emitter, Metric, Metrics};
use lambda::runtime::ServeBatch;
use playback::contract::{Device, Event, Kind};
use playback::envelope::{Envelope, Stamp};
use playback::fold::ViewKey;
use playback::rollout::Share;
use playback::session::SessionId;
use playback::view::View;
use process::{Candidate, Process, Sample, Shadow};
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::testing::MemoryTable;
use store::{Fault, StoreError, Stored, ViewTable, WriteError};

const NOW: u64 = 1_790_000_010_200;

fn envelope(profile: &str, number: u128, events: u16, shadow: bool) -> Vec<u8> {
    let event = |seq| Event {
        seq,
        kind: Kind::Progressed,
        position_ms: u64::from(seq),
        played_ms: 0,
        title_duration_ms: 1_000_000,
        occurred_at: 1,
        device: Arc::new(Device { id: "d1".to_owned(), kind: "tv".to_owned() }),
        country: None,
    };
    let envelope = Envelope {
        session_id: SessionId::mint("use1".parse().unwrap(), NOW, number),
        profile_id: profile.to_owned(),
        title_id: "t1".to_owned(),
        stamp: Stamp { received_at: NOW, ingest_region: "us-east-1".to_owned(), trace_id: None, shadow },
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

    async fn write(&self, key: &ViewKey, view: &View, expected: Option<u64>) -> Result<(), WriteError> {
        match self {
            Self::Memory(table) => table.write(key, view, expected).await,
            Self::Silent => std::future::pending().await,
        }
    }
}

type InMemory = Process<Table, Letters<Letter>, Letters<DeadLetter>>;

fn process(shadow: Option<Table>) -> InMemory {
    let (table, shadow) = (Table::Memory(MemoryTable::new(1)), shadow.map(Shadow::new));
    Process { table, shadow, retry: Letters::default(), dead_letters: Letters::default() }
}

/// Two live records and two shadows, folded; what was counted.
async fn run(process: &InMemory) -> Metrics {
    let metrics = metrics();
    let values = vec![
        envelope("live", 1, 3, false),
        envelope("tried", 2, 2, true),
        envelope("live", 3, 1, false),
        envelope("tried", 2, 2, true),
    ];
    let answer = process.serve(&metrics, batch(values), NOW).await.unwrap();
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
async fn without_a_table_for_them_shadows_are_dropped_and_never_shown_to_members() {
    let process = process(None);
    let metrics = run(&process).await;
    assert_eq!(profiles(&process.table), ["live", "live"]);
    assert_eq!((metrics.count(Metric::RecordsDropped), metrics.count(Metric::ShadowDropped)), (2, 4));
    assert_eq!(metrics.count(Metric::EventsApplied), 4);
}

#[tokio::test]
async fn a_shadow_table_that_fails_costs_live_events_nothing_and_is_left_alone_for_a_while() {
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
        shadow.fold(vec![(0, envelope)], began + Duration::from_secs(after)).await.len()
    };
    assert_eq!(folds(1).await, 0, "left alone");
}

#[tokio::test]
async fn a_shadow_table_that_hangs_is_waited_for_once_and_not_for_long() {
    let process = process(Some(Table::Silent));
    for _ in 0..20 {
        let metrics = tokio::time::timeout(Duration::from_secs(20), run(&process)).await.unwrap();
        assert_eq!(metrics.count(Metric::ShadowDropped), 4);
    }
    assert_eq!(profiles(&process.table), ["live", "live"]);
}

#[tokio::test]
async fn a_candidate_folds_a_sample_of_live_profiles_and_says_that_all_is_done_whatever_happens() {
    let shares = async |sample: &str| {
        let values = (0..400).map(|n| envelope(&format!("p{n}"), n, 2, n % 4 == 0)).chain([vec![0xff]]).collect();
        let (metrics, sample) = (metrics(), Sample(sample.parse::<Share>().unwrap()));
        let candidate = Candidate { shadow: Shadow::new(MemoryTable::new(1)), sample };
        let answer = candidate.serve(&metrics, batch(values), NOW).await.unwrap();
        assert_eq!(serde_json::to_value(answer).unwrap()["batchItemFailures"], serde_json::json!([]));
        assert_eq!(metrics.count(Metric::EventsApplied), 0, "the books are the live one's");
        metrics.count(Metric::ShadowApplied) / 2
    };
    assert_eq!((shares("0%").await, shares("100%").await), (0, 300));
    assert!((45..110).contains(&shares("25%").await));

    let (metrics, silent) = (metrics(), Candidate { shadow: Shadow::new(Table::Silent), sample: Sample(Share::ALL) });
    let answer = silent.serve(&metrics, batch(vec![envelope("p", 1, 2, false)]), NOW).await.unwrap();
    assert_eq!(serde_json::to_value(answer).unwrap()["batchItemFailures"], serde_json::json!([]));
    assert_eq!(metrics.count(Metric::ShadowDropped), 2);
}
