//! `playhead bench ingest`: what a POST costs in the function `ingest`, by how many events it has;
//! beside an endpoint in Python.
//!
//! Each run has a new process and a new topic. A POST of up to 100 events has one session. One of
//! 500 is that of a device that was offline: 5 sessions of 100 events, of one member.

pub(super) mod load;

use self::load::Load;
use super::aws::Aws;
use super::function::Program;
use super::measure::{CPU_PER_EVENT, Figures, P50, Work, measure};
use super::report::{Row, Target};
use super::stage::{Stage, now_ms};
use anyhow::{Context as _, Result, ensure};
use local::{create_topic, delete_topic, python_environment};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Our program and the one that it is compared with, in the table.
const PROGRAMS: [&str; 2] = ["ingest", "Python"];
const SCRIPT: &str = include_str!("reference.py");
const REQUIREMENTS: &str = include_str!("reference-requirements.txt");
/// Of the stage that is measured, and of nothing else.
pub(super) const SECRET: &str = "the secret of a stage on loopback";
const PARTITIONS: i32 = 6;
/// How many events a run measures, if that makes a number of POSTs within these bounds.
const EVENTS: usize = 20_000;
const POSTS: [usize; 2] = [100, 2_000];
/// What the CPU per event should be at most, of Python's, by events in a POST.
const CPU_TARGETS: [(usize, f64); 3] = [(1, 1.0 / 4.0), (50, 1.0 / 8.0), (500, 1.0 / 8.0)];

/// One line of the table.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Scenario {
    /// In a POST.
    events: usize,
    gzip: bool,
    /// Invocations at once, in one process.
    in_flight: usize,
    /// Whether the member is not the profile's, so that nothing reaches the log.
    is_refused: bool,
    /// Whether Python is measured too.
    with_reference: bool,
}

impl Scenario {
    fn name(&self) -> String {
        let events = if self.events == 1 { "1 event".to_owned() } else { format!("{} events", self.events) };
        let gzip = if self.gzip { ", gzip" } else { "" };
        let at_once = if self.in_flight > 1 { format!(", {} at once", self.in_flight) } else { String::new() };
        let refused = if self.is_refused { ", refused" } else { "" };
        format!("POST of {events}{gzip}{at_once}{refused}")
    }
}

/// Measures and adds to the report. `all`: not only the standard set.
///
/// # Errors
/// If the broker does not start, or the function fails.
pub(super) async fn run(stage: &mut Stage, all: bool) -> Result<()> {
    let scenarios: Vec<Scenario> =
        if all { every_scenario() } else { standard() }.into_iter().filter(|one| stage.wants(&one.name())).collect();
    if scenarios.is_empty() {
        return Ok(());
    }
    let python = if stage.options.no_references { None } else { python(stage).await };
    let (_broker, brokers) = stage.broker().await?;
    let aws = Aws::start().await?;
    let programs = [vec![program(stage, &aws, &brokers)?], reference(stage, &brokers, python)].concat();
    for scenario in scenarios {
        let name = scenario.name();
        stage.progress.step(format!("Measuring ingest: {name}"));
        let mut runs = [Vec::new(), Vec::new()];
        for run in 0..stage.options.runs {
            // They take turns, so that noise of the machine affects both.
            for (index, program) in programs.iter().enumerate().take(1 + usize::from(scenario.with_reference)) {
                stage.progress.detail(format!("run {} of {}, {}", run + 1, stage.options.runs, program.name));
                let figures = measure_once(&scenario, program, &brokers, stage.options.seed).await;
                runs[index].push(figures.with_context(|| format!("{name}, {}", PROGRAMS[index]))?);
            }
        }
        for (program, runs) in PROGRAMS.iter().zip(&runs).filter(|(_, runs)| !runs.is_empty()) {
            stage.report.add(Row::of(&name, program, runs));
        }
    }
    stage.progress.finish();
    add_targets(stage);
    Ok(())
}

/// The Python that the reference runs in; `None`, with a word, if there is none.
async fn python(stage: &Stage) -> Option<PathBuf> {
    stage.progress.step("Installing what the reference in Python needs");
    match python_environment("bench-venv", REQUIREMENTS, &stage.progress).await {
        Ok(python) => Some(python),
        Err(error) => {
            eprintln!("note: ingest is not compared with Python: {error:#}");
            None
        }
    }
}

async fn measure_once(scenario: &Scenario, program: &Program, brokers: &str, seed: u64) -> Result<Figures> {
    let topic = format!("bench-{:016x}", rand::random::<u64>());
    create_topic(brokers, &topic, PARTITIONS, None).await?;
    let mut program = program.clone();
    program.variables.push(("KAFKA_TOPIC", topic.clone()));
    if scenario.in_flight > 1 {
        program.variables.push(("AWS_LAMBDA_MAX_CONCURRENCY", scenario.in_flight.to_string()));
    }
    let mut load = Load::new(scenario.events, scenario.gzip, SECRET, seed, now_ms()?)?;
    let posts = (EVENTS / scenario.events).clamp(POSTS[0], POSTS[1]);
    if scenario.is_refused {
        load.exchange_tokens();
    }
    let (warm_up, measured) = (load.requests(posts / 5)?, load.requests(posts)?);
    let work = Work {
        warm_up: &warm_up,
        measured: &measured,
        in_flight: scenario.in_flight,
        events_each: scenario.events,
        records_each: load.sessions(),
        sessions_each: load.sessions(),
        check: if scenario.is_refused { check_refused } else { check },
    };
    let figures = measure(&program, &work, None).await;
    delete_topic(brokers, &topic).await?;
    figures
}

/// Every event must have been accepted.
pub(super) fn check(answer: &[u8]) -> Result<()> {
    let answer: Value = serde_json::from_slice(answer)?;
    let body: Value = serde_json::from_str(answer["body"].as_str().unwrap_or_default())?;
    ensure!(answer["statusCode"] == 202 && body["rejected"] == json!([]), "not all events were accepted: {answer}");
    Ok(())
}

fn check_refused(answer: &[u8]) -> Result<()> {
    let answer: Value = serde_json::from_slice(answer)?;
    ensure!(answer["statusCode"] == 403, "this should have been refused: {answer}");
    Ok(())
}

/// The function.
pub(super) fn program(stage: &Stage, aws: &Aws, brokers: &str) -> Result<Program> {
    let of = |value: &str| value.to_owned();
    let variables = vec![
        ("STAGE", of("bench")),
        ("AWS_ENDPOINT_URL", aws.endpoint()),
        ("KAFKA_BOOTSTRAP", of(brokers)),
        ("KAFKA_SECURITY", of("plaintext")),
        ("KAFKA_MIN_INSYNC_REPLICAS", of("1")),
        ("ROUTING_PARAMETER", of("routing")),
        ("JWT_SECRET", of(SECRET)),
        // So many that the budget is kept but never spent: few members stand for many.
        ("EVENTS_PER_PROFILE_PER_MINUTE", u32::MAX.to_string()),
    ];
    let (binary, log) = (stage.binary("ingest")?, stage.log("ingest"));
    Ok(Program { name: "ingest", binary, arguments: Vec::new(), variables, log })
}

/// What it is compared with, if there is a Python.
fn reference(stage: &Stage, brokers: &str, python: Option<PathBuf>) -> Vec<Program> {
    let program = |binary| Program {
        name: "python",
        binary,
        arguments: ["-I", "-c", SCRIPT].map(str::to_owned).to_vec(),
        variables: vec![("KAFKA_BOOTSTRAP", brokers.to_owned()), ("JWT_SECRET", SECRET.to_owned())],
        log: stage.log("python"),
    };
    python.into_iter().map(program).collect()
}

fn scenario(events: usize) -> Scenario {
    Scenario { events, gzip: false, in_flight: 1, is_refused: false, with_reference: false }
}

/// Those that have targets, one with concurrency, and one that never reaches the log.
fn standard() -> Vec<Scenario> {
    let mut all: Vec<Scenario> =
        CPU_TARGETS.map(|(events, _)| Scenario { with_reference: true, ..scenario(events) }).to_vec();
    all.push(Scenario { in_flight: 64, ..scenario(1) });
    all.push(Scenario { is_refused: true, ..scenario(1) });
    all
}

fn every_scenario() -> Vec<Scenario> {
    let mut all = vec![Scenario { is_refused: true, ..scenario(1) }];
    for events in [1, 10, 50, 500] {
        for gzip in [false, true] {
            all.push(Scenario { gzip, with_reference: true, ..scenario(events) });
            all.push(Scenario { gzip, in_flight: 64, ..scenario(events) });
        }
    }
    all
}

fn add_targets(stage: &mut Stage) {
    let report = &mut stage.report;
    for (events, at_most) in CPU_TARGETS {
        let name = scenario(events).name();
        let figures = [("CPU per event", CPU_PER_EVENT, at_most), ("p50", P50, 1.0)];
        for (what, key, at_most) in figures.into_iter().take(if events == 1 { 2 } else { 1 }) {
            if let Some(ratio) = report.ratio(&name, PROGRAMS, key) {
                report.targets.push(Target::at_most(format!("ingest, {name}: {what}, of Python's"), ratio, at_most));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn scenarios_have_names_of_their_own() {
        let names: BTreeSet<String> = every_scenario().iter().map(Scenario::name).collect();
        assert_eq!(names.len(), every_scenario().len());
        assert!(standard().iter().all(|scenario| names.contains(&scenario.name())));
        assert!(names.contains("POST of 1 event, gzip, 64 at once"));
    }

    #[test]
    fn only_a_202_without_rejections_passes() {
        check(br#"{"statusCode":202,"body":"{\"accepted\":1,\"rejected\":[]}"}"#).unwrap();
        for answer in [r#"{"statusCode":503,"body":"{}"}"#, r#"{"statusCode":202,"body":"{\"rejected\":[{}]}"}"#] {
            assert!(check(answer.as_bytes()).is_err());
        }
    }

    #[test]
    fn every_requirement_is_pinned_by_hash_and_names_no_host() {
        let entries: Vec<&str> = REQUIREMENTS.lines().filter(|line| !line.starts_with([' ', '#'])).collect();
        assert!(entries.len() >= 3 && entries.iter().all(|entry| entry.contains("==") && entry.ends_with('\\')));
        assert!(!REQUIREMENTS.contains("://") && !REQUIREMENTS.contains("--find-links"));
    }
}
