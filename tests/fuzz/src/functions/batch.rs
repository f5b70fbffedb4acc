//! A batch of Kafka, Kinesis or SQS, through `process` and `forward`.
//!
//! - Every record of the event is a record of the batch.
//! - Every unit has one outcome (`Unbalanced` would be the error), and the answer names only records
//!   of the batch.
//! - What `process` sets aside can be read again.
//! - A second delivery changes no view.

use super::{block_on, emitter, invocation};
use crate::NOW;
use apply::testing::Letters;
use apply::{DeadLetter, Letter, Recent};
use forward::Forward;
use forward::testing::MemoryQueues;
use lambda::batch::{Batch, BatchAnswer, answer};
use lambda::routing::Routing;
use lambda::runtime::ServeBatch;
use playback::routing::Regions;
use process::Process;
use serde_json::Value;
use store::testing::MemoryTable;

pub(super) fn run(event: &[u8]) {
    let Ok(batch) = Batch::parse(event) else { return };
    if let Ok(json) = serde_json::from_slice::<Value>(event) {
        let partitions = json["records"].as_object().into_iter().flat_map(|partitions| partitions.values());
        let lists = partitions.chain([&json["Records"]]).filter_map(Value::as_array);
        assert_eq!(lists.map(Vec::len).sum::<usize>(), batch.records.len());
    }
    process(&batch);
    forward(batch);
}

fn process(batch: &Batch) {
    let process = Process {
        table: MemoryTable::new(7),
        shadow: None,
        retry: Letters::<Letter>::default(),
        dead_letters: Letters::<DeadLetter>::default(),
        recent: Recent::default(),
    };
    let serve = || {
        let served = block_on(process.serve(&emitter().start(NOW), batch.clone(), invocation())).unwrap();
        names_only(&served, batch);
    };
    serve();
    let views = process.table.views();
    for letter in process.retry.take() {
        assert_eq!(serde_json::from_slice::<Letter>(&serde_json::to_vec(&letter).unwrap()).unwrap(), letter);
    }
    for letter in process.dead_letters.take() {
        assert_eq!(serde_json::from_slice::<DeadLetter>(&serde_json::to_vec(&letter).unwrap()).unwrap(), letter);
    }
    serve();
    assert_eq!(process.table.views(), views);
}

fn forward(batch: Batch) {
    let regions = Regions::parse("us-east-1", "us-east-1,us-west-2,eu-west-1").unwrap();
    let forward = Forward {
        inbound: MemoryQueues::default(),
        dead_letters: Letters::<DeadLetter>::default(),
        routing: Routing::read_by(regions, async || Ok(r#"{"version":1}"#.to_owned())),
    };
    let served = block_on(forward.serve(&emitter().start(NOW), batch.clone(), invocation())).unwrap();
    names_only(&served, &batch);
}

/// An answer that names anything else fails the whole batch, or is taken for success.
pub(super) fn names_only(served: &BatchAnswer, batch: &Batch) {
    let failures = |answer: &BatchAnswer| {
        let json = serde_json::to_value(answer).unwrap();
        json["batchItemFailures"].as_array().unwrap().clone()
    };
    let of_batch = failures(&answer(batch.records.iter().map(|record| &record.source)));
    assert_eq!(of_batch.len(), batch.records.len());
    assert!(failures(served).iter().all(|failure| of_batch.contains(failure)), "{served:?}");
}
