//! `playhead bench append`: what failover costs while the primary is healthy.
//!
//! The bare log and the same log behind [`Failover`] take turns in appending the same requests, so
//! noise of the machine and the broker affects both. A log in memory that acknowledges at once
//! shows the cost without broker and network.

use super::inside::{envelopes, trace};
use anyhow::{Context as _, Result, ensure};
use aws_config::{BehaviorVersion, SdkConfig};
use cpu_time::ProcessTime;
use futures::Stream;
use local::{create_topic, delete_topic};
use playback::envelope::Envelope;
use playback::routing::Override;
use serde::Serialize;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use stream::{Ack, DurableLog, Failover, KafkaConfig, KafkaLog, KafkaSecurity, LogRecord, Policy, RecordResult, Role};

/// Unmeasured appends of each kind at the start.
const WARM_UP: usize = 200;
const PARTITIONS: i32 = 6;
/// Batches, and records in each, that a trace has: its requests are appended.
const TRACE: (u16, u32) = (13, 500);

/// What one append takes, microseconds.
#[derive(Debug, Serialize)]
struct Latency {
    p50_us: f64,
    p99_us: f64,
    /// CPU of one append, all threads of the client.
    cpu_us: f64,
}

#[derive(Debug, Serialize)]
struct Figures {
    appends_of_each: usize,
    kafka_bare: Latency,
    kafka_behind_failover: Latency,
    memory_bare: Latency,
    memory_behind_failover: Latency,
}

/// Measure how long an append to a log takes, with and without a standby
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Plaintext brokers to append to
    #[arg(value_name = "HOST:PORT[,...]")]
    brokers: String,
    /// Number of appends of each kind
    #[arg(long, value_name = "N", default_value_t = 5_000)]
    appends: usize,
    /// Seed of the trace
    #[arg(long, value_name = "N", default_value_t = 7)]
    seed: u64,
    /// Print the figures as one JSON object, for programs
    #[arg(long)]
    json: bool,
}

/// Measures on a new topic, and deletes it.
///
/// # Errors
/// If the brokers refuse, or a record goes to the standby.
pub(super) async fn run(args: Args) -> Result<ExitCode> {
    let Args { brokers, appends, seed, json } = args;
    let brokers = brokers.as_str();
    let (bodies, _) = trace(seed, TRACE.0, TRACE.1)?;
    let requests = bodies.iter().map(|body| records(body)).collect::<Result<Vec<_>>>()?;
    let topic = format!("bench-{:016x}", rand::random::<u64>());
    create_topic(brokers, &topic, PARTITIONS, None).await?;
    let measured = measure(brokers, &topic, &requests, appends).await;
    delete_topic(brokers, &topic)
        .await
        .unwrap_or_else(|error| eprintln!("could not delete the topic {topic}: {error:#}"));
    let figures = measured?;
    if json {
        println!("{}", serde_json::to_string(&figures)?);
    } else {
        print(&figures);
    }
    Ok(ExitCode::SUCCESS)
}

fn print(figures: &Figures) {
    println!("{} appends of each kind, one request at a time; microseconds\n", figures.appends_of_each);
    println!("{:32}{:>10}{:>10}{:>10}", "", "p50", "p99", "CPU");
    for (what, latency) in [
        ("Kafka", &figures.kafka_bare),
        ("Kafka, with a standby", &figures.kafka_behind_failover),
        ("memory", &figures.memory_bare),
        ("memory, with a standby", &figures.memory_behind_failover),
    ] {
        println!("{what:32}{:>10.1}{:>10.1}{:>10.1}", latency.p50_us, latency.p99_us, latency.cpu_us);
    }
}

async fn measure(brokers: &str, topic: &str, requests: &[Vec<LogRecord>], appends: usize) -> Result<Figures> {
    let bootstrap = Some(brokers.to_owned());
    let config = KafkaConfig { bootstrap, ..KafkaConfig::new(topic, KafkaSecurity::Plaintext) };
    let sdk = SdkConfig::builder().behavior_version(BehaviorVersion::latest()).build();
    let log = KafkaLog::connect(&config, &sdk).await?;
    log.warm_up().await.with_context(|| format!("warming up {brokers}"))?;
    let (kafka_bare, kafka_behind_failover) = compare(&log, requests, appends).await?;
    let (memory_bare, memory_behind_failover) = compare(&Memory, requests, appends).await?;
    Ok(Figures { appends_of_each: appends, kafka_bare, kafka_behind_failover, memory_bare, memory_behind_failover })
}

/// Measures the bare log and the log behind failover, taking turns for each request.
async fn compare<L: DurableLog + Clone + 'static>(
    log: &L,
    requests: &[Vec<LogRecord>],
    appends: usize,
) -> Result<(Latency, Latency)> {
    let failover = Failover::new(log.clone(), Some(log.clone()), Policy::default());
    let (mut bare, mut behind) = (Vec::with_capacity(appends), Vec::with_capacity(appends));
    let (mut bare_cpu, mut behind_cpu) = (Duration::ZERO, Duration::ZERO);
    for (n, records) in requests.iter().cycle().take(WARM_UP + appends).enumerate() {
        let (began, before) = (Instant::now(), ProcessTime::now());
        let results = log.append(records).await;
        bare.push(began.elapsed());
        bare_cpu += before.elapsed();
        for result in results {
            result?;
        }
        let (began, before) = (Instant::now(), ProcessTime::now());
        let appended = failover.append(records, Override::Auto).await;
        behind.push(began.elapsed());
        behind_cpu += before.elapsed();
        for fate in appended.fates {
            ensure!(
                fate.result? == Role::Primary,
                "append {n}: the log failed over to the standby, so the figures are invalid"
            );
        }
    }
    Ok((latency(bare.split_off(WARM_UP), bare_cpu), latency(behind.split_off(WARM_UP), behind_cpu)))
}

fn latency(mut times: Vec<Duration>, cpu: Duration) -> Latency {
    times.sort_unstable();
    let at = |share: f64| {
        let index = ((times.len().saturating_sub(1)) as f64 * share) as usize;
        times.get(index).map_or(0.0, |time| (time.as_secs_f64() * 1e7).round() / 10.0)
    };
    // Of the warm-up too.
    let cpu_us = cpu.as_secs_f64() * 1e6 / (times.len() + WARM_UP) as f64;
    Latency { p50_us: at(0.5), p99_us: at(0.99), cpu_us }
}

/// The records that `ingest` makes from a request.
fn records(body: &[u8]) -> Result<Vec<LogRecord>> {
    let record = |envelope: Envelope| LogRecord::new(envelope.session_id.to_string(), envelope.encode());
    Ok(envelopes(body)?.into_iter().map(record).collect())
}

/// A log that stores nothing and acknowledges at once.
#[derive(Clone)]
struct Memory;

impl DurableLog for Memory {
    fn append_each<'a>(&'a self, records: &'a [LogRecord]) -> impl Stream<Item = RecordResult> + Send + 'a {
        futures::stream::iter((0..records.len()).map(|index| (index, Ok(Ack::ONCE))))
    }
}
