//! The cost of folding: `process`, fed batches of a trace, writes each session at most once a batch, and views stay small.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use lambda::batch::Batch;
use lambda::metrics::{Emitter, Metric};
use playhead::encode::{Args, Trigger, encode};
use playhead::simulate::plan::{DEFAULT_START_AT, Plan};
use playhead::simulate::{Faults, Model};
use process::{DeadLetter, DeadLetters, process};
use std::collections::BTreeMap;
use std::convert::Infallible;
use store::testing::{Effect, MemoryTable};

const BATCHES: usize = 13;
const RECORDS: usize = 500;

/// No record of a simulated trace is poison.
struct NoLetters;

impl DeadLetters for NoLetters {
    type Error = Infallible;

    async fn put(&self, letters: Vec<DeadLetter>) -> Vec<Result<(), Infallible>> {
        panic!("dead letters: {letters:?}")
    }
}

/// The Lambda events of a trace with duplicates and reordering.
fn msk_batches() -> Vec<String> {
    let faults = Faults { duplicates: 0.05, reorder: 0.1, ..Faults::NONE };
    let model =
        Model { sessions: 800, viewers: None, titles: 500, homes: vec!["use1".parse().unwrap()], seed: 7, faults };
    let mut trace = Vec::new();
    Plan::new(&model, DEFAULT_START_AT).unwrap().write_trace(&mut trace).unwrap();
    let batch = u32::try_from(RECORDS).unwrap();
    let args = Args { trigger: Trigger::Msk, batch, topic: None, partitions: 8, region: "us-east-1".to_owned() };
    let mut output = Vec::new();
    encode(&args, trace.as_slice(), &mut output).unwrap();
    let batches: Vec<String> = String::from_utf8(output).unwrap().lines().take(BATCHES).map(str::to_owned).collect();
    assert_eq!(batches.len(), BATCHES);
    batches
}

#[tokio::test]
async fn thirteen_batches_of_500_records_cost_at_most_one_write_a_session_a_batch() {
    let table = MemoryTable::new(7);
    let emitter = Emitter::to("test", "process", |_| {});
    let (mut events, mut writes) = (0, 0);
    for event in msk_batches() {
        let batch = Batch::parse(event.as_bytes()).unwrap();
        assert_eq!(batch.records.len(), RECORDS);
        let metrics = emitter.start(0);
        let answer = process(&table, &NoLetters, &metrics, batch, 0).await.unwrap();
        assert_eq!(serde_json::to_string(&answer).unwrap(), r#"{"batchItemFailures":[]}"#);

        let mut requests = BTreeMap::new();
        for effect in table.take_effects() {
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
    assert!(events > 30_000, "{events} events are no trace");
    println!("{writes} writes for {events} events: {:.3} an event", writes as f64 / events as f64);

    let mut sizes = table.packed_sizes();
    sizes.sort_unstable();
    let (median, greatest) = (sizes[sizes.len() / 2], sizes[sizes.len() - 1]);
    println!("packed views: median {median} B, greatest {greatest} B");
    // Keys, version and title around the packed view take some 120 bytes more.
    assert!(median < 200 && greatest < 900, "median {median} B, greatest {greatest} B");
}
