//! `playhead bench start`: how soon a new environment of each function serves, how large its binary
//! is, and how much memory the largest event takes.
//!
//! What AWS adds is not in it: fetching the code, starting a micro-VM, TLS to its services. The
//! dependencies are on loopback and answer at once.

use super::aws::Aws;
use super::function::Program;
use super::ingest::{self, SECRET, load as posts};
use super::measure::{Figures, INIT, PEAK, Work, measure};
use super::process;
use super::process::load::{Load, Sessions, Shape};
use super::report::{Row, Target};
use super::stage::{Stage, now_ms};
use anyhow::{Context as _, Result, ensure};
use axum::body::Bytes;
use local::{create_topic, delete_topic};
use serde_json::{Value, json};

/// The limit of a synchronous invocation's payload (AWS, "Lambda quotas"). A mapping's batch is one.
const MAX_PAYLOAD_BYTES: usize = 6 * 1024 * 1024;
/// The names of the scenarios; those with the largest event begin with the second.
const SMALL: &str = "small event";
/// A record of the table's stream that tells consumers nothing: a register was deleted.
const NO_CHANGE: &str = r#"{"Records":[{"eventID":"e1","eventName":"REMOVE","eventSource":"aws:dynamodb",
    "eventSourceARN":"arn:aws:dynamodb:us-east-1:000000000000:table/views/stream/bench","dynamodb":{
    "ApproximateCreationDateTime":1790000010,"Keys":{"pk":{"S":"p1"},"sk":{"S":"~erased"}},
    "SequenceNumber":"421300000000017450000000001"}}]}"#;
const LARGEST: &str = "largest event";
/// Milliseconds.
const INIT_AT_MOST: f64 = 25.0;
/// MiB.
const PEAK_AT_MOST: f64 = 64.0;
/// How often the largest event is served. The memory of the second and third shows what is kept.
const LARGEST_TIMES: usize = 3;

/// One line of the table.
struct Scenario {
    name: &'static str,
    program: Program,
    /// The first invocation.
    first: Bytes,
    /// Later ones.
    rest: Vec<Bytes>,
    /// What each may answer.
    check: fn(&[u8]) -> Result<()>,
}

/// Measures and adds to the report.
///
/// # Errors
/// If the broker does not start, or a function fails.
pub(super) async fn run(stage: &mut Stage) -> Result<()> {
    let aws = Aws::start().await?;
    let (_broker, brokers) = stage.broker().await?;
    let topic = format!("bench-{:016x}", rand::random::<u64>());
    create_topic(&brokers, &topic, 6, None).await?;
    let scenarios = scenarios(stage, &aws, &brokers, &topic)?;
    for scenario in scenarios {
        let Scenario { name, program, .. } = &scenario;
        if !stage.wants(&format!("{} {name}", program.name)) {
            continue;
        }
        stage.progress.step(format!("Measuring {}: {name}", program.name));
        let mut runs = Vec::new();
        for _ in 0..stage.options.runs {
            runs.push(once(&scenario).await.with_context(|| format!("{}: {name}", program.name))?);
        }
        stage.report.add(Row::of(name, program.name, &runs));
    }
    stage.progress.finish();
    delete_topic(&brokers, &topic).await?;
    add_targets(stage);
    Ok(())
}

async fn once(scenario: &Scenario) -> Result<Figures> {
    let work = Work {
        warm_up: std::slice::from_ref(&scenario.first),
        measured: &scenario.rest,
        in_flight: 1,
        events_each: 1,
        records_each: 1,
        sessions_each: 1,
        check: scenario.check,
    };
    let mut figures = measure(&scenario.program, &work, None).await?;
    // Not per event: these events are made to be small or large.
    figures.retain(|key, _| !key.contains("_per_"));
    Ok(figures)
}

fn scenarios(stage: &Stage, aws: &Aws, brokers: &str, topic: &str) -> Result<Vec<Scenario>> {
    let now = now_ms()?;
    let mut process = process::program(stage, &aws.endpoint())?;
    process.variables.push(("VIEWS_TABLE", "views".to_owned()));
    let mut ingest = ingest::program(stage, aws, brokers)?;
    ingest.variables.push(("KAFKA_TOPIC", topic.to_owned()));
    let post = posts::Load::new(1, false, SECRET, 1, now)?.requests(2)?;
    let largest_post = posts::Load::new(500, true, SECRET, 1, now)?.padded().requests(LARGEST_TIMES + 1)?;
    let batch = batches(1, 1.0, now, 2)?;
    let mut all = vec![
        scenario(SMALL, ingest.clone(), post, ingest::check),
        scenario(LARGEST, ingest, largest_post, ingest::check),
        scenario(SMALL, process.clone(), batch, process::check),
    ];
    for (name, fold) in [("largest event, fold 1.5", 1.5), ("largest event, fold 12", 12.0)] {
        all.push(scenario(name, process.clone(), largest_batches(fold, now)?, process::check));
    }
    all.extend(others(stage, aws)?);
    Ok(all)
}

/// The functions whose events are small.
fn others(stage: &Stage, aws: &Aws) -> Result<Vec<Scenario>> {
    let empty = Bytes::from(r#"{"eventSource":"aws:kafka","records":{}}"#);
    let history = posts::history(SECRET)?;
    let program = |name: &'static str, more: &[(&'static str, &str)]| -> Result<Program> {
        let mut variables = vec![
            ("STAGE", "bench".to_owned()),
            ("AWS_ENDPOINT_URL", aws.endpoint()),
            ("VIEWS_TABLE", "views".to_owned()),
            ("RETRY_QUEUE_URL", format!("{}/000000000000/retry", aws.endpoint())),
            ("DEAD_LETTER_QUEUE_URL", format!("{}/000000000000/dead-letter", aws.endpoint())),
        ];
        variables.extend(more.iter().map(|(name, value)| (*name, (*value).to_owned())));
        let (binary, log) = (stage.binary(name)?, stage.log(name));
        Ok(Program { name, binary, arguments: Vec::new(), variables, log })
    };
    let regions =
        [("REGIONS", "us-east-1,us-west-2"), ("ROUTING_PARAMETER", "routing"), ("INBOUND_QUEUE_NAME", "inbound")];
    let feed = [("VIEW_CHANGES_STREAM", "view-changes"), ("PUBLISH_FAILED_QUEUE_URL", "http://none")];
    let tables = [("SHADOW_TABLE", "shadow"), ("REPORTS_BUCKET", "reports")];
    let twice = |event: &Bytes| vec![event.clone(); 2];
    Ok(vec![
        scenario(SMALL, program("query", &[("JWT_SECRET", SECRET)])?, twice(&history), is_ok),
        scenario(SMALL, program("retry", &[])?, twice(&empty), process::check),
        scenario(SMALL, program("forward", &regions)?, twice(&empty), process::check),
        scenario(SMALL, program("publish", &feed)?, twice(&Bytes::from(NO_CHANGE)), process::check),
        scenario(SMALL, program("compare", &tables)?, twice(&Bytes::from("{}")), |_| Ok(())),
    ])
}

fn scenario(name: &'static str, program: Program, mut events: Vec<Bytes>, check: fn(&[u8]) -> Result<()>) -> Scenario {
    let rest = events.split_off(1);
    Scenario { name, program, first: events.into_iter().next().unwrap_or_default(), rest, check }
}

fn is_ok(answer: &[u8]) -> Result<()> {
    let answer: Value = serde_json::from_slice(answer)?;
    ensure!(answer["statusCode"] == json!(200), "{answer}");
    Ok(())
}

fn batches(records: usize, fold: f64, now: u64, count: usize) -> Result<Vec<Bytes>> {
    Load::new(Shape { records, fold, duplicates: 0.0, hot: 0, sessions: Sessions::Playing }, 1, now).batches(count)
}

/// Batches that are just below the limit of a payload.
fn largest_batches(fold: f64, now: u64) -> Result<Vec<Bytes>> {
    const SAMPLE: usize = 1_000;
    let sample = batches(SAMPLE, fold, now, 1)?.iter().map(Bytes::len).sum::<usize>();
    // A little less, since records differ in size. Lambda allows up to 10,000 records.
    let records = (MAX_PAYLOAD_BYTES * 99 / 100 * SAMPLE / sample).min(10_000);
    let batches = batches(records, fold, now, LARGEST_TIMES + 1)?;
    ensure!(batches.iter().all(|batch| batch.len() <= MAX_PAYLOAD_BYTES), "a batch is too large");
    Ok(batches)
}

fn add_targets(stage: &mut Stage) {
    let targets = stage.report.rows.iter().flat_map(|row| {
        let of = |what: &str| format!("{}, {}: {what}", row.program, row.scenario);
        let init = row.median(INIT).filter(|_| row.scenario == SMALL);
        let peak = row.median(PEAK).filter(|_| row.scenario.starts_with(LARGEST));
        let init = init.map(|init| Target::at_most(of("init, ms"), init, INIT_AT_MOST));
        init.into_iter().chain(peak.map(|peak| Target::at_most(of("peak memory, MiB"), peak, PEAK_AT_MOST)))
    });
    let targets: Vec<Target> = targets.collect();
    stage.report.targets.extend(targets);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn largest_batch_is_near_the_limit_of_a_payload() {
        let batches = largest_batches(12.0, 1_790_000_000_000).unwrap();
        let least = batches.iter().map(Bytes::len).min().unwrap();
        assert!(least > MAX_PAYLOAD_BYTES / 2, "{least}");
    }
}
