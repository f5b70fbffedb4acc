//! `playhead bench`: what an event costs, in CPU, requests and bytes, on the paths that every event takes.
//!
//! Figures of this machine, to be compared with figures of this machine: before and after a change. They come from the
//! library functions that the Lambda functions call, in one process, on one thread.

mod append;
mod forwarding;

use crate::encode::{self, Trigger, encode};
use crate::local::LocalDynamoDb;
use crate::simulate::plan::{DEFAULT_START_AT, Plan};
use crate::simulate::{Faults, Model};
use anyhow::{Context as _, Result, bail};
use apply::testing::Letters;
use apply::{DeadLetter, Letter};
use aws_sdk_dynamodb::types::{AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType};
use cpu_time::ProcessTime;
use lambda::batch::Batch;
use lambda::metrics::{Emitter, Metric};
use lambda::runtime::ServeBatch;
use playback::edge::{SessionWindow, parse_request, validate};
use playback::envelope::{Envelope, Stamp, group};
use process::Process;
use serde::Serialize;
use std::process::ExitCode;
use std::time::Duration;
use store::ViewTable;
use store::dynamodb::Views;
use store::testing::MemoryTable;

const TABLE: &str = "bench-views";

/// Measure what an event costs: CPU, conditional writes, bytes
///
/// Feeds batches of a simulated trace (duplicates and reordering as in the demo) through ingest's and process's own code, first
/// with a table in memory, then with the real DynamoDB client against the emulator on this machine. A debug build hands over to
/// a release build of itself, which takes some minutes the first time.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Lambda events to process
    #[arg(long, value_name = "N", default_value_t = 13, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    batches: u16,
    /// Records in each
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    records: u32,
    /// The trace's seed
    #[arg(long, value_name = "N", default_value_t = 7)]
    seed: u64,
    /// How often the paths without a store are measured; the fastest run counts
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=100))]
    runs: u8,
    /// Measure instead how long an append takes on these brokers (plaintext), with and without a standby beside them
    #[arg(long, value_name = "HOST:PORT[,...]")]
    append: Option<String>,
    /// How many appends of each kind to measure
    #[arg(long, value_name = "N", default_value_t = 5_000, requires = "append")]
    appends: usize,
    /// Print the figures as one JSON object, for a program
    #[arg(long)]
    json: bool,
    /// Measure this build even if it is a debug build
    #[arg(long, hide = true)]
    here: bool,
}

/// What was measured. CPU in microseconds, user and system, of the whole process.
#[derive(Debug, Serialize)]
struct Figures {
    batches: usize,
    records: u64,
    events: u64,
    sessions: usize,
    /// Parse, validate, group, encode: ingest's own work, without HTTP and the log.
    edge_cpu_us_per_event: f64,
    /// The record's value on the log.
    log_bytes_per_event: f64,
    /// Parse the Lambda event, decode, fold, merge, pack: process's own work.
    fold_cpu_us_per_event: f64,
    /// The same with the DynamoDB client and plain HTTP to the emulator.
    process_cpu_us_per_event: f64,
    writes: u64,
    writes_per_event: f64,
    reads_per_event: f64,
    view_bytes_median: usize,
    view_bytes_p99: usize,
    view_bytes_greatest: usize,
    /// What it costs to bring events to another region, by sessions a batch.
    forwarding: Vec<forwarding::Cost>,
}

/// Runs `playhead bench`.
///
/// # Errors
/// When the release build or the emulator cannot be had.
pub async fn run(args: Args) -> Result<ExitCode> {
    if cfg!(debug_assertions) && !args.here {
        return in_release(&args).await;
    }
    let (requests, events) = trace(&args)?;
    if let Some(brokers) = &args.append {
        return append::run(brokers, &requests, args.appends, args.json).await;
    }
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
    create_table(&sdk).await?;
    let views = Views::new(&sdk, TABLE, "use1".parse()?);
    views.warm_up().await?;
    let began = ProcessTime::now();
    let stored = process_all(&views, &events).await?;
    let with_store = began.elapsed();
    if stored != sums {
        bail!("the table in memory and the emulator disagree: {sums:?} and {stored:?}");
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
    println!("ingest   {:>8.2} µs CPU an event: parse, validate, group, encode", figures.edge_cpu_us_per_event);
    println!("log      {:>8.1} bytes an event", figures.log_bytes_per_event);
    println!("process  {:>8.2} µs CPU an event: parse, decode, fold, merge, pack", figures.fold_cpu_us_per_event);
    println!(
        "         {:>8.2} µs CPU an event with the DynamoDB client, over plain HTTP",
        figures.process_cpu_us_per_event
    );
    println!("store    {:>8.4} conditional writes an event ({} in all)", figures.writes_per_event, figures.writes);
    println!("         {:>8.4} views read an event", figures.reads_per_event);
    println!(
        "views    {:>8} bytes packed in the median, {} at 99%, {} at the most",
        figures.view_bytes_median, figures.view_bytes_p99, figures.view_bytes_greatest
    );
    forwarding::print(&figures.forwarding);
}

/// Hands over to a release build of this program.
async fn in_release(args: &Args) -> Result<ExitCode> {
    eprintln!("This is a debug build: building in release mode, which takes some minutes the first time ...");
    let mut cargo = tokio::process::Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(crate::local::workspace_root()?);
    cargo.args(["run", "--release", "--bin", "playhead", "--", "bench"]);
    cargo.args(["--batches", &args.batches.to_string(), "--records", &args.records.to_string()]);
    cargo.args(["--seed", &args.seed.to_string(), "--runs", &args.runs.to_string()]);
    if let Some(brokers) = &args.append {
        cargo.args(["--append", brokers, "--appends", &args.appends.to_string()]);
    }
    cargo.args(args.json.then_some("--json"));
    let status = cargo.status().await.context("starting cargo")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The bodies of the requests, and the Lambda events that come of them.
fn trace(args: &Args) -> Result<(Vec<Vec<u8>>, Vec<String>)> {
    let (plan, events) = msk_batches(args.seed, usize::from(args.batches), args.records)?;
    let bodies: Result<Vec<Vec<u8>>> = plan.posts.iter().map(|post| post.body()).collect();
    Ok((bodies?, events))
}

/// A simulated trace with duplicates and reordering, and so many Lambda events of it, of `records` records each.
///
/// # Errors
/// When the trace makes fewer.
pub fn msk_batches(seed: u64, batches: usize, records: u32) -> Result<(Plan, Vec<String>)> {
    let faults = Faults { duplicates: 0.05, reorder: 0.1, ..Faults::NONE };
    // A session makes some nine records.
    let sessions = batches * records as usize / 8 + 10;
    let model =
        Model { sessions, viewers: None, titles: 500, homes: vec!["use1".parse()?], travel: None, seed, faults };
    let plan = Plan::new(&model, DEFAULT_START_AT)?;
    let mut lines = Vec::new();
    plan.write_trace(&mut lines)?;
    let region = "us-east-1".to_owned();
    let options = encode::Args { trigger: Trigger::Msk, batch: records, topic: None, partitions: 8, region };
    let mut output = Vec::new();
    encode(&options, lines.as_slice(), &mut output)?;
    let events: Vec<String> = String::from_utf8(output)?.lines().take(batches).map(str::to_owned).collect();
    if events.len() < batches {
        bail!("the trace made only {} batches", events.len());
    }
    Ok((plan, events))
}

/// What `ingest` does with each request but for HTTP and the log: gives the events and the bytes for the log.
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

/// The envelopes that `ingest` makes of a request.
fn envelopes(body: &[u8]) -> Result<Vec<Envelope>> {
    // The trace plays at a fixed time in virtual days.
    let window = SessionWindow { max_age_ms: u64::MAX, max_ahead_ms: u64::MAX / 2 };
    let stamp = Stamp {
        received_at: DEFAULT_START_AT.unsigned_abs(),
        ingest_region: "us-east-1".to_owned(),
        trace_id: None,
        shadow: false,
    };
    let mut events = Vec::new();
    for raw in parse_request(body)? {
        events.push(validate(raw, stamp.received_at, window)?);
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
    let process = Process { table, shadow: None, retry, dead_letters };
    let mut sums = Sums::default();
    for event in events {
        let metrics = emitter.start(0);
        let batch = Batch::parse(event.as_bytes())?;
        let received = batch.records.len() as u64;
        let answer = process.serve(&metrics, batch, 0).await?;
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

async fn create_table(sdk: &aws_config::SdkConfig) -> Result<()> {
    let attribute =
        |name: &str| AttributeDefinition::builder().attribute_name(name).attribute_type(ScalarAttributeType::S).build();
    let key = |name: &str, of| KeySchemaElement::builder().attribute_name(name).key_type(of).build();
    let client = aws_sdk_dynamodb::Client::new(sdk);
    let table = client.create_table().table_name(TABLE).billing_mode(BillingMode::PayPerRequest);
    let table = table.attribute_definitions(attribute("pk")?).attribute_definitions(attribute("sk")?);
    let table = table.key_schema(key("pk", KeyType::Hash)?).key_schema(key("sk", KeyType::Range)?);
    table.send().await.context("creating a table in the emulator")?;
    Ok(())
}
