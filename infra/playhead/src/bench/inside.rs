//! `playhead bench inside`: what an event costs in CPU, requests and bytes inside the functions, on
//! the paths that every event takes.
//!
//! Compare its figures only with figures of the same machine, before and after a change. They come
//! from the library functions that the Lambda functions call, in one process, on one thread.

use super::forwarding;
use super::stage::create_table;
use anyhow::{Result, bail};
use apply::testing::Letters;
use apply::{DeadLetter, Letter, Recent};
use cpu_time::ProcessTime;
use lambda::batch::Batch;
use lambda::metrics::{Emitter, Metric};
use lambda::runtime::{Invocation, ServeBatch};
use local::LocalDynamoDb;
use playback::edge::{BodyText, SessionWindow, parse_request, validate};
use playback::envelope::{Envelope, Stamp, group};
use process::Process;
use serde::Serialize;
use simulate::encode::msk_batches;
use simulate::plan::DEFAULT_START_AT;

use std::process::ExitCode;
use std::time::Duration;
use store::ViewTable;
use store::dynamodb::Views;
use store::testing::MemoryTable;

const TABLE: &str = "bench-views";

/// Measure the inside of the functions: CPU, conditional writes, bytes per event
///
/// Feeds batches of a simulated trace (with duplicates and reordering, as in the demo) through the
/// code of ingest and process: first with a table in memory, then with the real DynamoDB client
/// against the emulator on this machine.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Number of Lambda events to process
    #[arg(long, value_name = "N", default_value_t = 13, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    batches: u16,
    /// Records in each Lambda event
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    records: u32,
    /// Seed of the trace
    #[arg(long, value_name = "N", default_value_t = 7)]
    seed: u64,
    /// Runs of the measurements without a store; the fastest one counts
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=100))]
    runs: u8,
    /// Print the figures as one JSON object, for programs
    #[arg(long)]
    json: bool,
}

/// The measurements. CPU is user and system time of the whole process, in microseconds.
#[derive(Debug, Serialize)]
struct Figures {
    batches: usize,
    records: u64,
    events: u64,
    sessions: usize,
    /// Parse, validate, group, encode: `ingest`'s own work, without HTTP and the log.
    edge_cpu_us_per_event: f64,
    /// The record's value on the log.
    log_bytes_per_event: f64,
    /// Parse the Lambda event, decode, fold, merge, pack: `process`'s own work.
    fold_cpu_us_per_event: f64,
    /// The same with the DynamoDB client and plain HTTP to the emulator.
    process_cpu_us_per_event: f64,
    writes: u64,
    writes_per_event: f64,
    reads_per_event: f64,
    view_bytes_median: usize,
    view_bytes_p99: usize,
    view_bytes_greatest: usize,
    /// The cost of forwarding events to another region, by sessions per batch.
    forwarding: Vec<forwarding::Cost>,
}

/// Runs `playhead bench inside`.
///
/// # Errors
/// If the emulator is unavailable.
pub(super) async fn run(args: Args) -> Result<ExitCode> {
    let (requests, events) = trace(args.seed, args.batches, args.records)?;
    let mut edge = Duration::MAX;
    let mut log_bytes = 0;
    let mut edge_events = 0;
    for _ in 0..args.runs {
        let began = ProcessTime::now();
        (edge_events, log_bytes) = ingest_all(&requests)?;
        edge = edge.min(began.elapsed());
    }
    let mut fold = Duration::MAX;
    let mut table = MemoryTable::new(0);
    let mut sums = Sums::default();
    for _ in 0..args.runs {
        table = MemoryTable::new(0);
        let began = ProcessTime::now();
        sums = process_all(&table, &events).await?;
        fold = fold.min(began.elapsed());
    }
    let mut sizes = table.packed_sizes();
    sizes.sort_unstable();

    let dynamodb = LocalDynamoDb::emulator("bench").await?;
    let sdk = dynamodb.sdk_config();
    create_table(&sdk, TABLE).await?;
    let views = Views::new(&sdk, TABLE, "use1".parse()?);
    views.warm_up().await?;
    let began = ProcessTime::now();
    let stored = process_all(&views, &events).await?;
    let with_store = began.elapsed();
    if stored != sums {
        bail!("the table in memory and the emulator gave different results: {sums:?} and {stored:?}");
    }

    let each = |cpu: Duration, events: u64| (cpu.as_secs_f64() * 1e6 / events as f64 * 100.0).round() / 100.0;
    let share = |n: u64| (n as f64 / sums.events as f64 * 10_000.0).round() / 10_000.0;
    let at = |share: f64| sizes.get(((sizes.len() - 1) as f64 * share) as usize).copied().unwrap_or_default();
    let figures = Figures {
        batches: events.len(),
        records: sums.records,
        events: sums.events,
        sessions: sizes.len(),
        edge_cpu_us_per_event: each(edge, edge_events),
        log_bytes_per_event: (log_bytes as f64 / edge_events as f64 * 10.0).round() / 10.0,
        fold_cpu_us_per_event: each(fold, sums.events),
        process_cpu_us_per_event: each(with_store, sums.events),
        writes: sums.writes,
        writes_per_event: share(sums.writes),
        reads_per_event: share(sums.reads),
        view_bytes_median: at(0.5),
        view_bytes_p99: at(0.99),
        view_bytes_greatest: at(1.0),
        forwarding: forwarding::measure(args.seed).await?,
    };
    if args.json {
        println!("{}", serde_json::to_string(&figures)?);
    } else {
        print(&figures);
    }
    Ok(ExitCode::SUCCESS)
}

fn print(figures: &Figures) {
    let Figures { batches, records, events, sessions, .. } = figures;
    println!("{events} events of {sessions} sessions in {records} records in {batches} batches\n");
    println!("ingest   {:>8.2} µs CPU per event: parse, validate, group, encode", figures.edge_cpu_us_per_event);
    println!("log      {:>8.1} bytes per event", figures.log_bytes_per_event);
    println!("process  {:>8.2} µs CPU per event: parse, decode, fold, merge, pack", figures.fold_cpu_us_per_event);
    println!(
        "         {:>8.2} µs CPU per event with the DynamoDB client, over plain HTTP",
        figures.process_cpu_us_per_event
    );
    println!("store    {:>8.4} conditional writes per event ({} in total)", figures.writes_per_event, figures.writes);
    println!("         {:>8.4} views read per event", figures.reads_per_event);
    println!(
        "views    {:>8} bytes packed at the median, {} at p99, {} at most",
        figures.view_bytes_median, figures.view_bytes_p99, figures.view_bytes_greatest
    );
    forwarding::print(&figures.forwarding);
}

/// The bodies of the requests, and the Lambda events made from them.
pub(super) fn trace(seed: u64, batches: u16, records: u32) -> Result<(Vec<Vec<u8>>, Vec<String>)> {
    let (plan, events) = msk_batches(seed, usize::from(batches), records)?;
    let bodies: Result<Vec<Vec<u8>>> = plan.posts.iter().map(|post| post.body()).collect();
    Ok((bodies?, events))
}

/// What `ingest` does with each request, without HTTP and the log. Returns the number of events and
/// the bytes for the log.
fn ingest_all(requests: &[Vec<u8>]) -> Result<(u64, usize)> {
    let (mut count, mut bytes) = (0, 0);
    for body in requests {
        for envelope in envelopes(body)? {
            count += envelope.events.len() as u64;
            bytes += envelope.encode().len();
        }
    }
    Ok((count, bytes))
}

/// The envelopes that `ingest` makes from a request.
pub(super) fn envelopes(body: &[u8]) -> Result<Vec<Envelope>> {
    // The trace has a fixed virtual time, so no event is too old.
    let window = SessionWindow { max_age_ms: u64::MAX, max_ahead_ms: u64::MAX / 2 };
    let stamp = Stamp {
        received_at: DEFAULT_START_AT.unsigned_abs(),
        sent_at: None,
        ingest_region: "us-east-1".to_owned(),
        trace_id: None,
        shadow: false,
    };
    let mut events = Vec::new();
    for raw in parse_request(&BodyText::new(body))?.events {
        events.push(validate(raw, stamp.received_at, window)?.event);
    }
    Ok(group(events, &stamp))
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Sums {
    records: u64,
    events: u64,
    writes: u64,
    reads: u64,
}

async fn process_all<T: ViewTable>(table: &T, events: &[String]) -> Result<Sums> {
    let emitter = Emitter::to("bench", "process", |_| {});
    let (retry, dead_letters) = (Letters::<Letter>::default(), Letters::<DeadLetter>::default());
    let process = Process { table, shadow: None, retry, dead_letters, recent: Recent::default() };
    let mut sums = Sums::default();
    for event in events {
        let metrics = emitter.start(0);
        let batch = Batch::parse(event.as_bytes())?;
        let received = batch.records.len() as u64;
        let answer = process.serve(&metrics, batch, Invocation::new(0, Duration::from_secs(60))).await?;
        serde_json::to_string(&answer)?;
        if metrics.count(Metric::RecordsSettled) != received {
            bail!("only {} of {received} records were settled", metrics.count(Metric::RecordsSettled));
        }
        sums.records += received;
        sums.events += metrics.count(Metric::EventsApplied) + metrics.count(Metric::EventsDuplicate);
        sums.writes += metrics.count(Metric::ViewWrites);
        sums.reads += metrics.count(Metric::ViewReads);
    }
    Ok(sums)
}
