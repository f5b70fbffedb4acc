//! The cost of forwarding a session's events to another region: SQS requests, bytes and CPU, by the
//! number of sessions that share a batch.

use super::inside::envelopes;
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
use lambda::runtime::{Invocation, ServeBatch};
use playback::envelope::Envelope;
use playback::routing::Regions;
use serde::Serialize;
use simulate::plan::{DEFAULT_START_AT, Plan};
use simulate::{Faults, Model};
use std::collections::HashSet;
use std::time::Duration;

/// Sessions per batch.
const SESSIONS: [usize; 3] = [1, 10, 100];
/// Maximum number of batches measured per size.
const BATCHES: usize = 200;
/// SQS bills each 64 KiB of a request as one request (AWS, "Amazon SQS pricing").
const BILLED_BYTES: usize = 64 * 1024;

/// The cost of forwarding for one batch size.
#[derive(Debug, Serialize)]
pub(super) struct Cost {
    /// Sessions in a batch, one record each.
    sessions_a_batch: usize,
    /// Average number of events in a batch.
    events_a_batch: f64,
    /// Calls of `SendMessageBatch` per event.
    requests_per_event: f64,
    /// The same as billed by SQS: one for each 64 KiB.
    billed_requests_per_event: f64,
    /// Bytes of message bodies per event.
    bytes_per_event: f64,
    /// `forward`'s own work, without the SQS client, microseconds of CPU.
    cpu_us_per_event: f64,
}

/// Measures the cost with envelopes of a simulated trace.
///
/// # Errors
/// If the trace has too few records, or a record is not sent.
pub(super) async fn measure(seed: u64) -> Result<Vec<Cost>> {
    let envelopes = from_elsewhere(seed)?;
    let regions = Regions::parse("us-east-1", "us-east-1,us-west-2")?;
    let emitter = Emitter::to("bench", "forward", |_| {});
    let mut costs = Vec::new();
    for sessions in SESSIONS {
        let batches = batches(&envelopes, sessions);
        ensure!(!batches.is_empty(), "the trace has too few parallel sessions: {sessions} are needed");
        let routing = Routing::read_by(regions.clone(), async || Ok(r#"{"version":1}"#.to_owned()));
        let dead_letters = Letters::<DeadLetter>::default();
        let forward = Forward { inbound: MemoryQueues::default(), dead_letters, routing };
        let metrics = emitter.start(0);
        let mut billed = 0;
        let count = batches.len();
        let began = ProcessTime::now();
        for batch in batches {
            let before = metrics.count(Metric::ForwardBytes);
            let answer = forward.serve(&metrics, batch, Invocation::new(0, Duration::from_secs(60))).await?;
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

/// Prints one line per batch size.
pub(super) fn print(costs: &[Cost]) {
    for cost in costs {
        println!(
            "forward  {:>8.4} SQS requests per event ({:.4} billed), {:.1} bytes, {:.2} µs CPU: {} session{} per batch ({} events)",
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

/// The envelopes that `ingest` makes from the POSTs of viewers with the other home region.
fn from_elsewhere(seed: u64) -> Result<Vec<Envelope>> {
    let (homes, faults) = (vec!["usw2".parse()?], Faults { duplicates: 0.05, reorder: 0.1, ..Faults::NONE });
    // Many viewers, so their sessions run in parallel.
    let model = Model { sessions: 2_000, viewers: Some(1_500), titles: 500, homes, travel: None, seed, faults };
    let mut all = Vec::new();
    for post in &Plan::new(&model, DEFAULT_START_AT)?.posts {
        all.extend(envelopes(&post.body()?)?);
    }
    Ok(all)
}

/// Batches with one record of each of this many sessions, in the order of the log.
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
