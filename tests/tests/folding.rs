//! The cost of folding: `process` writes each session of a trace at most once per batch, and views
//! stay small.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use apply::testing::Letters;
use apply::{DeadLetter, Letter, Recent};
use lambda::batch::Batch;
use lambda::metrics::{Emitter, Metric};
use lambda::runtime::{Invocation, ServeBatch};
use process::Process;
use simulate::encode::msk_batches;
use std::collections::BTreeMap;
use std::time::Duration;
use store::testing::{Effect, MemoryTable};

const BATCHES: usize = 13;
const RECORDS: u32 = 500;

#[tokio::test]
async fn each_batch_writes_each_session_at_most_once() {
    let process = Process {
        table: MemoryTable::new(7),
        shadow: None,
        retry: Letters::<Letter>::default(),
        dead_letters: Letters::<DeadLetter>::default(),
        recent: Recent::default(),
    };
    let emitter = Emitter::to("test", "process", |_| {});
    let (mut events, mut writes) = (0, 0);
    let (_, batches) = msk_batches(7, BATCHES, RECORDS).unwrap();
    assert_eq!(batches.len(), BATCHES);
    for event in batches {
        let batch = Batch::parse(event.as_bytes()).unwrap();
        assert_eq!(batch.records.len(), RECORDS as usize);
        let metrics = emitter.start(0);
        let answer = process.serve(&metrics, batch, Invocation::new(0, Duration::from_secs(60))).await.unwrap();
        assert_eq!(serde_json::to_string(&answer).unwrap(), r#"{"batchItemFailures":[]}"#);

        let mut requests = BTreeMap::new();
        for effect in process.table.take_effects() {
            match effect {
                Effect::Written(key, _) => *requests.entry(key).or_insert(0) += 1,
                Effect::Read(_) => {}
                Effect::Lost(key) | Effect::Failed(key) => panic!("{key:?}: nobody else writes"),
            }
        }
        assert!(requests.values().all(|&n| n == 1), "a session was written more than once in a batch");
        assert_eq!(metrics.count(Metric::ViewWrites), requests.len() as u64);
        writes += requests.len() as u64;
        events += metrics.count(Metric::EventsApplied) + metrics.count(Metric::EventsDuplicate);
    }
    assert_eq!(process.dead_letters.take(), [], "no record of a simulated trace is poison");
    assert_eq!(process.retry.take(), [], "nothing fails");
    assert!(events > 30_000, "{events} events are too few");
    println!("{writes} writes for {events} events: {:.3} per event", writes as f64 / events as f64);

    let mut sizes = process.table.packed_sizes();
    sizes.sort_unstable();
    let (median, greatest) = (sizes[sizes.len() / 2], sizes[sizes.len() - 1]);
    println!("packed views: median {median} B, greatest {greatest} B");
    // Keys, version and title take about 120 bytes more.
    assert!(median < 200 && greatest < 900, "median {median} B, greatest {greatest} B");
}
