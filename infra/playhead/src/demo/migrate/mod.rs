//! `playhead demo --migrate`: a team moves over from a system of its own, on this machine. The reference legacy service has its table on the
//! emulator; devices go on sending through Playhead's API while the rollout is walked, step by step, and what was promised to them is held
//! against what happened.
//!
//! With a bug in the legacy service the walk must find it, and refuse to move anybody: that is then its success.

mod journey;
mod print;
mod proof;
mod walk;

use self::journey::Journey;
use self::walk::{Row, SETTLED_AFTER_S, Walk, profiles};
use super::account::{Settled, settled};
use super::print::invite;
use super::{Args, DIFFERENCES_TOLD, TOKEN_LIFETIME, seconds};
use anyhow::{Result, bail, ensure};
use compare::{Field, Report};
use lambda::clock::now_ms;
use legacy::{Behaviour, Bug, Legacy};
use local::{LocalCloud, Progress};
use operate::Endpoints;
use operate::run::DEMO;
use operate::token;
use serde::Serialize;
use simulate::expect::{self, Expected};
use simulate::histories;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Instant;
use tokio::signal::unix::{SignalKind, signal};

/// The legacy service's table.
const LEGACY_TABLE: &str = "legacy-viewings";

/// A bug by the name that the command line has for it.
pub(super) fn bug(name: &str) -> Result<Bug, String> {
    name.replace('-', "_").parse()
}

/// What came of a migration.
#[derive(Debug, Serialize)]
struct Outcome {
    seed: u64,
    sessions: usize,
    profiles: usize,
    per_second: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    bug: Option<&'static str>,
    steps: Vec<Row>,
    /// The p99 of the step with all profiles shadowed, less that of the step before, milliseconds.
    added_p99_ms: f64,
    /// All that `compare` found.
    match_rate: Option<f64>,
    /// Sessions that differ, by field.
    fields: BTreeMap<Field, u64>,
    missing_live: u64,
    missing_shadow: u64,
    /// Why nobody was moved any further, if so.
    refused: Option<String>,
    history: History,
    seconds: f64,
    /// What does not hold, in words.
    faults: Vec<String>,
}

/// What members see once all are moved.
#[derive(Debug, Serialize)]
struct History {
    /// Events that Playhead accepted.
    accepted: u64,
    /// Sessions of which it has at least a part.
    sessions: usize,
    /// Sessions of which it has everything.
    entire: usize,
    differences: usize,
}

/// Runs it.
///
/// # Errors
/// When it cannot be run. A promise that does not hold is no error but exit status 1.
pub(super) async fn run(args: Args) -> Result<ExitCode> {
    let mut options = args.cloud.options(DEMO)?;
    ensure!(options.regions.is_empty(), "--migrate moves over to one region: leave --regions out");
    let listening = Legacy::listen().await?;
    let mapping: serde_json::Value = serde_json::from_str(legacy::MAPPING)?;
    let parameters = [
        ("LegacyEndpoint", format!("{}/v1/events", listening.url)),
        ("LegacySessionsUrl", listening.sessions_url()),
        ("LegacyMapping", mapping.to_string()),
        ("CompareSettledAfterSeconds", SETTLED_AFTER_S.to_string()),
    ];
    options.parameters.extend(parameters.map(|(name, value)| (name.to_owned(), value)));

    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let progress = Progress::new();
    let started = tokio::select! {
        started = LocalCloud::start(options, &progress) => started,
        _ = interrupt.recv() => bail!("interrupted: the demo did not start"),
        _ = terminate.recv() => bail!("ended: the demo did not start"),
    };
    let mut cloud = started?;
    let endpoints = cloud.endpoints().clone();
    let migrated = async {
        let legacy = listening.serve(&endpoints.sdk_config(), LEGACY_TABLE).await?;
        migrate(&args, &endpoints, &legacy, &progress).await
    };
    let migrated = tokio::select! {
        migrated = migrated => migrated,
        reason = cloud.failure() => Err(reason),
        _ = interrupt.recv() => Err(anyhow::anyhow!("interrupted")),
        _ = terminate.recv() => Err(anyhow::anyhow!("ended")),
    };
    if let Ok(outcome) = &migrated {
        match args.json {
            true => println!("{}", serde_json::to_string(outcome)?),
            false => print::print(outcome, &endpoints),
        }
        if !args.exit {
            invite(&endpoints, None)?;
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                reason = cloud.failure() => eprintln!("{reason:#}"),
            }
        }
    }
    progress.step("Stopping");
    let stopped = cloud.stop().await;
    progress.finish();
    let outcome = migrated?;
    stopped?;
    Ok(if outcome.faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn migrate(args: &Args, endpoints: &Endpoints, legacy: &Legacy, progress: &Progress) -> Result<Outcome> {
    let began = Instant::now();
    let bug = args.legacy_bug;
    legacy.behave(Behaviour { bugs: bug.into_iter().collect(), ..Behaviour::default() });
    let journey = Journey::new(&args.model, i64::try_from(now_ms())?, bug.is_some())?;
    let mut walk = Walk::new(endpoints, legacy, &journey, progress).await?;
    let mut refused = None;
    for step in &journey.steps {
        if step.rollout.async_share().buckets() > 0 {
            refused = walk.refuses(step).await?;
        }
        if refused.is_some() {
            break;
        }
        walk.step(step).await?;
    }

    progress.step("Following the pipeline until it has settled");
    let Settled { books, .. } = settled(endpoints, walk.accepted, progress).await?;
    let expected = expect::expect(&journey.plan, &walk.answers.not_here(&journey.plan));
    let faults = &mut walk.faults;
    for books in &books {
        let mut hold = |what: &str, left: u64, right: u64| {
            if left != right {
                faults.push(format!("{what}: {left} is not {right}"));
            }
        };
        hold("accepted: by the devices = by ingest", walk.accepted, books.accepted);
        hold("applied = distinct events accepted", books.applied, expected.distinct as u64);
        hold("dead = 0", books.dead_records.values().sum(), 0);
        hold("shadows missed = 0", books.shadow_missed, 0);
        if !books.balance() {
            faults.push("the books do not balance".to_owned());
        }
    }
    let differences = compare_histories(endpoints, &journey, &expected, progress).await?;
    let told = differences.iter().take(DIFFERENCES_TOLD).map(ToString::to_string);
    walk.faults.extend(told);
    progress.finish();
    let rates = verdict(bug, &refused, &walk);
    let Walk { answers, rows, found, accepted, mut faults, .. } = walk;
    faults.extend(rates);
    let p99 = |index: usize| rows.get(index).map_or(0.0, |row: &Row| row.p99_ms);
    Ok(Outcome {
        seed: args.model.seed,
        sessions: args.model.sessions,
        profiles: profiles(&journey.plan).len(),
        per_second: journey.per_second,
        bug: bug.map(Bug::as_str),
        added_p99_ms: p99(1) - p99(0),
        match_rate: found.match_rate(),
        fields: found.fields,
        missing_live: found.missing_live,
        missing_shadow: found.missing_shadow,
        refused,
        history: History {
            accepted,
            sessions: expected.views.len(),
            entire: answers.entirely_here(&journey.plan).len(),
            differences: differences.len(),
        },
        seconds: seconds(began.elapsed()),
        steps: rows,
        faults,
    })
}

/// What members see, held against what Playhead accepted: of a session that was under way when its profile was moved, what came after.
async fn compare_histories(
    endpoints: &Endpoints,
    journey: &Journey,
    expected: &Expected,
    progress: &Progress,
) -> Result<Vec<expect::Difference>> {
    let profiles = profiles(&journey.plan);
    progress.step(format!("Comparing the histories of {} profiles with what they must be", profiles.len()));
    let token = token::of_service(&endpoints.jwt_secret, TOKEN_LIFETIME)?;
    let histories = histories::read(&endpoints.api, &token, profiles).await?;
    Ok(expect::check(expected, &histories))
}

/// What of the comparison is not as it must be.
fn verdict(bug: Option<Bug>, refused: &Option<String>, walk: &Walk<'_>) -> Vec<String> {
    let mut faults = Vec::new();
    if walk.rows.iter().any(|row| row.errors > 0) {
        faults.push("devices saw errors".to_owned());
    }
    match (bug, refused) {
        (None, Some(why)) => faults.push(format!("nobody was to be kept from moving on, and was: {why}")),
        (None, None) if walk.found.match_rate() != Some(1.0) => {
            faults.push(format!("{} of {} sessions match", walk.found.matched, walk.found.compared));
        }
        (None, None) => {}
        (Some(bug), None) => faults.push(format!("{bug} was not enough to refuse that anybody is moved")),
        (Some(bug), Some(_)) if !shows(bug, &walk.found) => {
            faults.push(format!("{bug} was not found where it is: {:?}", walk.found.fields));
        }
        (Some(_), Some(_)) => {}
    }
    faults
}

/// Whether a report names a field in which this bug must show.
fn shows(bug: Bug, found: &Report) -> bool {
    let fields: &[Field] = match bug {
        Bug::DroppedDuplicates => &[Field::Events, Field::PlayedMs],
        Bug::LastArrivalWins | Bug::LostSeek => &[Field::PositionMs],
    };
    fields.iter().any(|field| found.fields.contains_key(field))
}
