//! `playhead bench process`: what a batch costs in the function `process`, by how many events of a
//! session it has, how large it is, and what goes wrong; beside a consumer in plain Rust.
//!
//! Between the function and the store is a proxy that counts. Each run has a new process and a new
//! table. One event is one record, as players send while they play.

pub(super) mod load;
pub(super) mod plain;

use self::load::{Load, Sessions, Shape};
use super::function::Program;
use super::measure::{CPU_PER_EVENT, Figures, REQUESTS_PER_EVENT, WRITES_PER_SESSION, Work, measure};
use super::proxy::Proxy;
use super::report::{Row, Target};
use super::stage::{Stage, create_table, delete_table, now_ms};
use anyhow::{Context as _, Result, ensure};
use aws_config::SdkConfig;
use serde_json::Value;

/// Our program and the one that it is compared with, in the table.
const PROGRAMS: [&str; 2] = ["process", "plain Rust"];
/// The names of the scenarios that have targets.
const FOLD_1_5: &str = "fold 1.5, 500 records";
const FOLD_12: &str = "fold 12, 2000 records";
/// How many events a run measures, if that makes enough batches.
const EVENTS: usize = 10_000;
/// The least and the greatest number of measured batches.
const BATCHES: [usize; 2] = [5, 50];
/// Batches before.
const WARM_UP: usize = 3;

/// One line of the table.
#[derive(Debug, Clone, PartialEq)]
struct Scenario {
    name: String,
    shape: Shape,
    /// The share of views that another writer changes between read and write.
    conflicts: f64,
    /// Whether plain Rust is measured too.
    with_reference: bool,
}

/// Measures and adds to the report. `all`: not only the standard set.
///
/// # Errors
/// If the store does not start, or the function fails.
pub(super) async fn run(stage: &mut Stage, all: bool) -> Result<()> {
    let scenarios: Vec<Scenario> =
        if all { every_scenario() } else { standard() }.into_iter().filter(|one| stage.wants(&one.name)).collect();
    if scenarios.is_empty() {
        return Ok(());
    }
    let store = stage.store().await?;
    let proxy = Proxy::start(store.endpoint()).await?;
    let programs = [program(stage, &proxy.endpoint())?, reference(stage, &proxy.endpoint())];
    for scenario in scenarios {
        stage.progress.step(format!("Measuring process: {}", scenario.name));
        let mut runs = [Vec::new(), Vec::new()];
        let with_reference = scenario.with_reference && !stage.options.no_references;
        for run in 0..stage.options.runs {
            // They take turns, so that noise of the machine affects both.
            for (index, program) in programs.iter().enumerate().take(1 + usize::from(with_reference)) {
                stage.progress.detail(format!("run {} of {}, {}", run + 1, stage.options.runs, program.name));
                let figures = measure_once(&scenario, program, &proxy, &store.sdk_config(), stage.options.seed).await;
                runs[index].push(figures.with_context(|| format!("{}, {}", scenario.name, PROGRAMS[index]))?);
            }
        }
        for (program, runs) in PROGRAMS.iter().zip(&runs).filter(|(_, runs)| !runs.is_empty()) {
            stage.report.add(Row::of(&scenario.name, program, runs));
        }
    }
    stage.progress.finish();
    add_targets(stage);
    Ok(())
}

async fn measure_once(
    scenario: &Scenario,
    program: &Program,
    proxy: &Proxy,
    sdk: &SdkConfig,
    seed: u64,
) -> Result<Figures> {
    let table = format!("bench-{:016x}", rand::random::<u64>());
    create_table(sdk, &table).await?;
    let mut program = program.clone();
    program.variables.push(("VIEWS_TABLE", table.clone()));
    let records = scenario.shape.records;
    let mut load = Load::new(scenario.shape, seed, now_ms()?);
    let (warm_up, measured) = (load.batches(WARM_UP)?, load.batches((EVENTS / records).clamp(BATCHES[0], BATCHES[1]))?);
    let work = Work {
        warm_up: &warm_up,
        measured: &measured,
        in_flight: 1,
        events_each: records,
        records_each: records,
        sessions_each: load.sessions(),
        check,
    };
    proxy.set_conflicts(scenario.conflicts);
    let figures = measure(&program, &work, Some(proxy)).await;
    proxy.set_conflicts(0.0);
    delete_table(sdk, &table).await?;
    figures
}

/// Every record must have been settled.
pub(super) fn check(answer: &[u8]) -> Result<()> {
    let answer: Value = serde_json::from_slice(answer)?;
    let failures = answer["batchItemFailures"].as_array().context("this is not the answer to a batch")?;
    ensure!(failures.is_empty(), "{} records were not settled", failures.len());
    Ok(())
}

/// The function, with its store and queues at this endpoint. It has no table yet.
pub(super) fn program(stage: &Stage, endpoint: &str) -> Result<Program> {
    // Nothing is sent there unless a record fails.
    let queue = |name: &str| format!("{endpoint}/000000000000/{name}");
    let variables = vec![
        ("STAGE", "bench".to_owned()),
        ("AWS_ENDPOINT_URL", endpoint.to_owned()),
        ("RETRY_QUEUE_URL", queue("retry")),
        ("DEAD_LETTER_QUEUE_URL", queue("dead-letter")),
    ];
    let (binary, log) = (stage.binary("process")?, stage.log("process"));
    Ok(Program { name: "process", binary, arguments: Vec::new(), variables, log })
}

/// What it is compared with.
fn reference(stage: &Stage, endpoint: &str) -> Program {
    Program {
        name: "plain-rust",
        // Us, even if the file was replaced by a build since.
        binary: "/proc/self/exe".into(),
        arguments: ["bench", "plain-process"].map(str::to_owned).to_vec(),
        variables: vec![("AWS_ENDPOINT_URL", endpoint.to_owned())],
        log: stage.log("plain-rust"),
    }
}

fn scenario(name: &str, records: usize, fold: f64) -> Scenario {
    let shape = Shape { records, fold, duplicates: 0.0, hot: 0, sessions: Sessions::Playing };
    Scenario { name: name.to_owned(), shape, conflicts: 0.0, with_reference: false }
}

fn with_sessions(sessions: Sessions, scenario: Scenario) -> Scenario {
    Scenario { shape: Shape { sessions, ..scenario.shape }, ..scenario }
}

fn with_hot_session(hot: usize, scenario: Scenario) -> Scenario {
    Scenario { shape: Shape { hot, ..scenario.shape }, ..scenario }
}

fn with_duplicates(duplicates: f64, scenario: Scenario) -> Scenario {
    Scenario { shape: Shape { duplicates, ..scenario.shape }, ..scenario }
}

/// The two that have targets, and one line for each thing that changes what a batch costs.
fn standard() -> Vec<Scenario> {
    vec![
        Scenario { with_reference: true, ..scenario(FOLD_1_5, 500, 1.5) },
        Scenario { with_reference: true, ..scenario(FOLD_12, 2_000, 12.0) },
        with_sessions(Sessions::New, scenario("fold 3, all sessions new", 500, 3.0)),
        with_sessions(Sessions::Known, scenario("fold 3, all sessions known", 500, 3.0)),
        with_duplicates(0.1, scenario("fold 3, 10 % duplicates", 500, 3.0)),
        Scenario { conflicts: 0.1, ..scenario("fold 3, 10 % conflicts", 500, 3.0) },
    ]
}

fn every_scenario() -> Vec<Scenario> {
    let mut all = standard();
    all.extend([1.0, 3.0, 12.0, 60.0].map(|fold| scenario(&format!("fold {fold}, 500 records"), 500, fold)));
    all.extend([100, 2_000, 10_000].map(|n| scenario(&format!("fold 1.5, {n} records"), n, 1.5)));
    all.push(scenario("fold 12, 10000 records", 10_000, 12.0));
    // A thousand times what the others send, and the others alone.
    all.push(with_hot_session(1_500, scenario("fold 1.5, 500 of 2000 records beside a hot session", 2_000, 1.5)));
    all.push(with_duplicates(0.5, scenario("fold 3, 50 % duplicates", 500, 3.0)));
    all.push(Scenario { conflicts: 0.3, ..scenario("fold 3, 30 % conflicts", 500, 3.0) });
    all
}

fn add_targets(stage: &mut Stage) {
    let report = &mut stage.report;
    for (scenario, cpu) in [(FOLD_1_5, 1.0 / 5.0), (FOLD_12, 1.0 / 40.0)] {
        for (what, key, at_most) in
            [("CPU per event", CPU_PER_EVENT, cpu), ("requests per event", REQUESTS_PER_EVENT, 0.1)]
        {
            if let Some(ratio) = report.ratio(scenario, PROGRAMS, key) {
                let what = format!("process, {scenario}: {what}, of plain Rust's");
                report.targets.push(Target::at_most(what, ratio, at_most));
            }
        }
        if let Some(writes) = report.median(scenario, PROGRAMS[0], WRITES_PER_SESSION) {
            let what = format!("process, {scenario}: writes per session of a batch");
            report.targets.push(Target::at_most(what, writes, 1.0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn scenarios_have_names_of_their_own() {
        let names: BTreeSet<String> = every_scenario().into_iter().map(|scenario| scenario.name).collect();
        assert_eq!(names.len(), every_scenario().len());
        assert!(names.contains(FOLD_1_5) && names.contains(FOLD_12));
    }

    #[test]
    fn unsettled_record_is_an_error() {
        check(br#"{"batchItemFailures":[]}"#).unwrap();
        assert!(check(br#"{"batchItemFailures":[{"itemIdentifier":"1"}]}"#).is_err());
        assert!(check(b"{}").is_err());
    }
}
