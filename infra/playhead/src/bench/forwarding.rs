//! What it costs to bring a session's events to another region: requests and bytes of SQS, and CPU, by how many sessions share a batch.

use super::envelopes;
use crate::simulate::plan::{DEFAULT_START_AT, Plan};
use crate::simulate::{Faults, Model};
use anyhow::{Result, ensure};
use apply::DeadLetter;
use apply::testing::Letters;
use bytes::Bytes;
use cpu_time::ProcessTime;
use forward::Forward;
use forward::testing::MemoryQueues;
use lambda::batch::{Batch, Record, Source};
use lambda::metrics::{Emitter, Metric};
use lambda::routing::Routing;
use lambda::runtime::ServeBatch;
use playback::envelope::Envelope;
use playback::routing::Regions;
use serde::Serialize;
use std::collections::HashSet;

/// Sessions that share a batch.
const SESSIONS: [usize; 3] = [1, 10, 100];
/// Batches measured of each size, at most.
const BATCHES: usize = 200;
/// SQS bills a request for each so many bytes of it (AWS, "Amazon SQS pricing").
const BILLED_BYTES: usize = 64 * 1024;

/// The cost of forwarding at one size of batches.
#[derive(Debug, Serialize)]
pub(super) struct Cost {
    /// Sessions in a batch, one record each.
    sessions_a_batch: usize,
    /// Events in them, on average.
    events_a_batch: f64,
    /// Calls of `SendMessageBatch` an event.
    requests_per_event: f64,
    /// The same as SQS bills them: one for each 64 KiB.
    billed_requests_per_event: f64,
    /// Bytes of message bodies an event.
    bytes_per_event: f64,
    /// `forward`'s own work, without the SQS client, microseconds of CPU.
    cpu_us_per_event: f64,
}

/// Measures it with envelopes of a simulated trace.
///
/// # Errors
/// When the trace makes too few records, or one is not sent.
pub(super) async fn measure(seed: u64) -> Result<Vec<Cost>> {
    let envelopes = from_elsewhere(seed)?;
    let regions = Regions::parse("us-east-1", "us-east-1,us-west-2")?;
    let emitter = Emitter::to("bench", "forward", |_| {});
    let mut costs = Vec::new();
    for sessions in SESSIONS {
        let batches = batches(&envelopes, sessions);
        ensure!(!batches.is_empty(), "the trace has no {sessions} sessions side by side");
        let routing = Routing::read_by(regions.clone(), async || Ok(r#"{"version":1}"#.to_owned()));
        let dead_letters = Letters::<DeadLetter>::default();
        let forward = Forward { inbound: MemoryQueues::default(), dead_letters, routing };
        let metrics = emitter.start(0);
        let mut billed = 0;
        let count = batches.len();
        let began = ProcessTime::now();
        for batch in batches {
            let before = metrics.count(Metric::ForwardBytes);
            let answer = forward.serve(&metrics, batch, 0).await?;
            ensure!(
                serde_json::to_value(answer)?["batchItemFailures"] == serde_json::json!([]),
                "a record was not sent"
            );
            billed += (metrics.count(Metric::ForwardBytes) - before).div_ceil(BILLED_BYTES as u64);
        }
        let cpu = began.elapsed();
        let events = metrics.count(Metric::EventsForwarded) as f64;
        let each = |n: u64| (n as f64 / events * 10_000.0).round() / 10_000.0;
        costs.push(Cost {
            sessions_a_batch: sessions,
            events_a_batch: (events / count as f64 * 10.0).round() / 10.0,
            requests_per_event: each(metrics.count(Metric::ForwardRequests)),
            billed_requests_per_event: each(billed),
            bytes_per_event: (metrics.count(Metric::ForwardBytes) as f64 / events * 10.0).round() / 10.0,
            cpu_us_per_event: (cpu.as_secs_f64() * 1e6 / events * 100.0).round() / 100.0,
        });
    }
    Ok(costs)
}

/// Prints a line a size.
pub(super) fn print(costs: &[Cost]) {
    for cost in costs {
        println!(
            "forward  {:>8.4} SQS requests an event ({:.4} billed), {:.1} bytes, {:.2} µs CPU: {} session{} a batch ({} events)",
            cost.requests_per_event,
            cost.billed_requests_per_event,
            cost.bytes_per_event,
            cost.cpu_us_per_event,
            cost.sessions_a_batch,
            if cost.sessions_a_batch == 1 { "" } else { "s" },
            cost.events_a_batch
        );
    }
}

/// What `ingest` makes of the POSTs of viewers whose home is the other region.
fn from_elsewhere(seed: u64) -> Result<Vec<Envelope>> {
    let (homes, faults) = (vec!["usw2".parse()?], Faults { duplicates: 0.05, reorder: 0.1, ..Faults::NONE });
    // Many viewers, so that their sessions run side by side.
    let model = Model { sessions: 2_000, viewers: Some(1_500), titles: 500, homes, travel: None, seed, faults };
    let mut all = Vec::new();
    for post in &Plan::new(&model, DEFAULT_START_AT)?.posts {
        all.extend(envelopes(&post.body()?)?);
    }
    Ok(all)
}

/// Batches of one record of each of so many sessions, in the order of the log.
fn batches(envelopes: &[Envelope], sessions: usize) -> Vec<Batch> {
    let mut batches = Vec::new();
    let (mut records, mut seen) = (Vec::new(), HashSet::new());
    for (offset, envelope) in envelopes.iter().enumerate() {
        if batches.len() == BATCHES {
            break;
        }
        if !seen.insert(&envelope.session_id) {
            continue;
        }
        let source = Source::Kafka { topic: "playback-remote".to_owned(), partition: 0, offset: offset as i64 };
        records.push(Record { source, key: None, value: Ok(Bytes::from(envelope.encode())), delivery: None });
        if records.len() == sessions {
            batches.push(Batch { records: std::mem::take(&mut records) });
            seen.clear();
        }
    }
    batches
}
