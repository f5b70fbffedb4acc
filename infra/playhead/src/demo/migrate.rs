//! `playhead demo --migrate`: a team migrates from its own system to Playhead, on this machine. The
//! reference legacy service keeps its table on the emulator. Devices keep sending through
//! Playhead's API while the rollout advances step by step. The demo checks what happened against
//! the promises.
//!
//! If the legacy service has a bug, the demo succeeds if it finds the bug and refuses to move
//! anyone.

mod journey;
mod print;
mod proof;
mod walk;

use self::journey::Journey;
use self::walk::{Row, SETTLED_AFTER_S, Walk, profiles};
use super::stage::{self, Proof};
use super::{Args, DIFFERENCES_LISTED, STANDSTILL, TOKEN_LIFETIME, seconds};
use crate::settled::{Accounts, settled};
use anyhow::{Result, ensure};
use compare::{Field, Report};
use lambda::clock::now_ms;
use legacy::{Behaviour, Bug, Legacy};
use local::Progress;
use operate::Endpoints;
use operate::run::DEMO;
use operate::token;
use serde::Serialize;
use simulate::expect::{self, Expected};
use simulate::histories;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Instant;

/// The legacy service's table.
const LEGACY_TABLE: &str = "legacy-viewings";

/// Parses a bug's name on the command line.
pub(super) fn bug(name: &str) -> Result<Bug, String> {
    name.replace('-', "_").parse()
}

/// The result of a migration.
#[derive(Debug, Serialize)]
struct MigrationResult {
    seed: u64,
    sessions: usize,
    profiles: usize,
    per_second: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    bug: Option<&'static str>,
    steps: Vec<Row>,
    /// The p99 of the step that shadows all profiles, minus that of the step before, in
    /// milliseconds.
    added_p99_ms: f64,
    /// Of all comparisons.
    match_rate: Option<f64>,
    /// Sessions that differ, by field.
    fields: BTreeMap<Field, u64>,
    missing_live: u64,
    missing_shadow: u64,
    /// Why the next step was refused, if it was.
    refused: Option<String>,
    history: History,
    seconds: f64,
    /// The promises that do not hold, in words.
    faults: Vec<String>,
}

impl Proof for MigrationResult {
    fn print(&self, endpoints: &Endpoints) {
        print::print(self, endpoints);
    }

    fn holds(&self) -> bool {
        self.faults.is_empty()
    }
}

/// What members see once all are moved.
#[derive(Debug, Serialize)]
struct History {
    /// Events that Playhead accepted.
    accepted: u64,
    /// Sessions that Playhead has at least in part.
    sessions: usize,
    /// Sessions that Playhead has completely.
    entire: usize,
    differences: usize,
}

/// Runs `playhead demo --migrate`.
///
/// # Errors
/// If the demo cannot run. A broken promise is not an error; it gives exit status 1.
pub(super) async fn run(args: Args) -> Result<ExitCode> {
    let mut options = args.cloud.options(DEMO)?;
    ensure!(options.regions.is_empty(), "--migrate works with one region: remove --regions");
    let listening = Legacy::listen().await?;
    let mapping: serde_json::Value = serde_json::from_str(legacy::MAPPING)?;
    let parameters = [
        ("LegacyEndpoint", format!("{}/v1/events", listening.url)),
        ("LegacySessionsUrl", listening.sessions_url()),
        ("LegacyMapping", mapping.to_string()),
        ("CompareSettledAfterSeconds", SETTLED_AFTER_S.to_string()),
    ];
    options.parameters.extend(parameters.map(|(name, value)| (name.to_owned(), value)));

    let progress = Progress::new();
    let play = async |endpoints: &Endpoints, _| {
        let legacy = listening.serve(&endpoints.sdk_config(), LEGACY_TABLE).await?;
        migrate(&args, endpoints, &legacy, &progress).await
    };
    stage::run(options, &args, &progress, play).await
}

async fn migrate(args: &Args, endpoints: &Endpoints, legacy: &Legacy, progress: &Progress) -> Result<MigrationResult> {
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
    let Accounts { books, .. } = settled(endpoints, walk.accepted, STANDSTILL, progress).await?;
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
    let listed = differences.iter().take(DIFFERENCES_LISTED).map(ToString::to_string);
    walk.faults.extend(listed);
    progress.finish();
    let rates = verdict(bug, &refused, &walk);
    let Walk { answers, rows, found, accepted, mut faults, .. } = walk;
    faults.extend(rates);
    let p99 = |index: usize| rows.get(index).map_or(0.0, |row: &Row| row.p99_ms);
    Ok(MigrationResult {
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

/// Compares what members see with what Playhead accepted. If a profile was moved during a session,
/// Playhead accepted only the later part.
async fn compare_histories(
    endpoints: &Endpoints,
    journey: &Journey,
    expected: &Expected,
    progress: &Progress,
) -> Result<Vec<expect::Difference>> {
    let profiles = profiles(&journey.plan);
    progress.step(format!("Comparing the histories of {} profiles with the expected ones", profiles.len()));
    let token = token::of_service(&endpoints.jwt_secret, TOKEN_LIFETIME)?;
    let histories = histories::read(&endpoints.api, &token, profiles).await?;
    Ok(expect::check(expected, &histories))
}

/// Faults of the comparison.
fn verdict(bug: Option<Bug>, refused: &Option<String>, walk: &Walk<'_>) -> Vec<String> {
    let mut faults = Vec::new();
    if walk.rows.iter().any(|row| row.errors > 0) {
        faults.push("devices saw errors".to_owned());
    }
    match (bug, refused) {
        (None, Some(why)) => faults.push(format!("a step was refused without a bug: {why}")),
        (None, None) if walk.found.match_rate() != Some(1.0) => {
            faults.push(format!("{} of {} sessions match", walk.found.matched, walk.found.compared));
        }
        (None, None) => {}
        (Some(bug), None) => faults.push(format!("no step was refused, although the legacy service has {bug}")),
        (Some(bug), Some(_)) if !shows(bug, &walk.found) => {
            faults.push(format!("{bug} was not found in its fields, but in: {:?}", walk.found.fields));
        }
        (Some(_), Some(_)) => {}
    }
    faults
}

/// Whether the comparison names a field that this bug must change.
fn shows(bug: Bug, found: &Report) -> bool {
    let fields: &[Field] = match bug {
        Bug::DroppedDuplicates => &[Field::Events, Field::PlayedMs],
        Bug::LastArrivalWins | Bug::LostSeek => &[Field::PositionMs],
    };
    fields.iter().any(|field| found.fields.contains_key(field))
}
