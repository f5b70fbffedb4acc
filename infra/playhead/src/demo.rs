//! `playhead demo`: the whole pipeline on this machine, from simulated viewers to their histories,
//! with the proof that nothing was lost on the way.

mod account;
pub(crate) mod consumers;
mod migrate;
mod print;
mod regions;
mod stage;

use self::account::{Account, account};
use self::consumers::{Consumed, consume};
use self::print::print;
use self::regions::{Regions, read_everywhere};
use self::stage::Proof;
use crate::settled::{Accounts, settled, sum};
use anyhow::{Context as _, Result};
use legacy::Bug;
use local::args::CloudArgs;
use local::{DEFAULT_REGION, LocalOptions, Progress};
use operate::Endpoints;
use operate::run::DEMO;
use operate::token;
use playback::session::Home;
use serde::Serialize;
use simulate::expect::{self, Difference, SessionView};
use simulate::plan::Plan;
use simulate::send::{self, Auth, Pace, Target};
use simulate::{Model, progress_bar};
use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Default share of sessions that change region, in a demo with several regions.
const TRAVEL: f64 = 0.2;
const TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 3_600);
/// If the books do not change for this long, events in flight count as lost.
const STANDSTILL: Duration = Duration::from_secs(60);
/// Maximum number of differences that are printed. All are counted.
const DIFFERENCES_LISTED: usize = 10;

/// Run the whole pipeline on this machine with simulated viewers, and prove that nothing was lost
///
/// Installs the tools and builds the functions, starts a local cloud, deploys template.yaml, plays
/// the viewers' sessions against its API, waits until every event is done, prints the books,
/// compares every member's history with the expected one, and stays up until Ctrl-C, so that you
/// can look around.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: Model,
    /// Migrate from a legacy service to Playhead instead, under load: shadow, compare, then move
    /// profiles step by step
    #[arg(long)]
    migrate: bool,
    /// Give the legacy service a bug, which must be found before anyone is moved:
    /// dropped-duplicates, last-arrival-wins or lost-seek
    #[arg(long, value_name = "BUG", requires = "migrate", value_parser = migrate::bug)]
    legacy_bug: Option<Bug>,
    /// Stop after the proof, with exit status 0 only if the books balance and all views are right
    #[arg(long)]
    exit: bool,
    /// Print the result as one JSON object, for programs
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    cloud: CloudArgs,
}

/// The result of a demo.
#[derive(Debug, Serialize)]
struct DemoResult {
    seed: u64,
    posts: usize,
    profiles: usize,
    books: Account,
    views: Views,
    #[serde(skip_serializing_if = "Option::is_none")]
    regions: Option<Regions>,
    #[serde(skip_serializing_if = "Option::is_none")]
    feed: Option<Consumed>,
    cost: Cost,
    seconds: Seconds,
    /// Sessions that were played.
    #[serde(skip)]
    sessions: usize,
    #[serde(skip)]
    member: Member,
}

impl Proof for DemoResult {
    fn print(&self, endpoints: &Endpoints) {
        print(self, endpoints);
    }

    fn holds(&self) -> bool {
        let regions_hold = self.regions.as_ref().is_none_or(|regions| regions.faults.is_empty());
        let feed_holds = self.feed.as_ref().is_none_or(|feed| feed.complete);
        self.books.balanced && self.views.equal && regions_hold && feed_holds
    }

    fn profile(&self) -> Option<&str> {
        Some(&self.member.profile_id)
    }
}

#[derive(Debug, Serialize)]
struct Views {
    /// In each region.
    expected: usize,
    equal: bool,
    differences: usize,
    first_differences: Vec<Difference>,
}

#[derive(Debug, Serialize)]
struct Cost {
    records: u64,
    conditional_writes: u64,
    writes_per_event: f64,
    views_read: u64,
    lost_races: u64,
}

#[derive(Debug, Serialize)]
struct Seconds {
    start: f64,
    send: f64,
    settle: f64,
}

/// Runs `playhead demo`.
///
/// # Errors
/// If the pipeline cannot run. A wrong result is not an error; it gives exit status 1.
pub async fn run(mut args: Args) -> Result<ExitCode> {
    if args.migrate {
        return migrate::run(args).await;
    }
    let options = args.cloud.options(DEMO)?;
    settle_in(&mut args.model, &options);
    let progress = Progress::new();
    let play = async |endpoints: &Endpoints, start| play(&args, endpoints, start, &progress).await;
    stage::run(options, &args, &progress, play).await
}

/// Gives the viewers homes in the cloud's regions. With several regions, some viewers travel.
fn settle_in(model: &mut Model, options: &LocalOptions) {
    if !options.regions.is_empty() {
        model.homes = options.regions.iter().filter_map(|region| Home::of_region(region)).collect();
        model.travel.get_or_insert(TRAVEL);
    } else if options.region != DEFAULT_REGION {
        model.homes = Home::of_region(&options.region).into_iter().collect();
    }
}

/// The member whose history is shown.
#[derive(Debug)]
struct Member {
    profile_id: String,
    history: Vec<SessionView>,
}

async fn play(args: &Args, endpoints: &Endpoints, start: Duration, progress: &Progress) -> Result<DemoResult> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
    let plan = Plan::ending_at(&args.model, i64::try_from(now)?)?;
    progress.step(format!("Playing {} sessions: {} POSTs", args.model.sessions, plan.posts.len()));
    let began = Instant::now();
    let (elsewhere, auth) = (send::elsewhere(endpoints), Auth::of(endpoints));
    let target = Target { endpoint: endpoints.api.clone(), elsewhere, auth };
    let bar = progress_bar()?;
    if !bar.is_hidden() {
        progress.finish(); // the bar takes its place
    }
    let report = send::send(&plan, &target, Pace::default(), &bar).await?;
    bar.finish_and_clear();
    let send = began.elapsed();

    progress.step("Following the pipeline until it has settled");
    let began = Instant::now();
    let Accounts { books, at: ended } = settled(endpoints, report.accepted as u64, STANDSTILL, progress).await?;
    let settle = began.elapsed();

    let expected = expect::expect(&plan, &report.failed_posts);
    let profiles: BTreeSet<&String> = expected.views.keys().map(|(profile, _)| profile).collect();
    progress.step(format!("Comparing the histories of {} profiles with the expected ones", profiles.len()));
    let token = token::of_service(&endpoints.jwt_secret, TOKEN_LIFETIME)?;
    let readings = read_everywhere(endpoints, &token, &expected, &profiles).await?;
    let converged = readings.iter().all(|reading| reading.differences.is_empty()).then(|| ended.elapsed());
    let regions = regions::report(endpoints, &books, plan.travelled().len(), converged).await?;
    progress.step("Consuming the change feed");
    let feed = match &endpoints.view_changes_stream {
        Some(stream) => Some(consume(&endpoints.sdk_config(), stream, &expected).await?),
        None => None,
    };
    progress.finish();
    let (histories, differences): (Vec<_>, Vec<_>) =
        readings.into_iter().map(|reading| (reading.histories, reading.differences)).unzip();
    let differences: Vec<Difference> = differences.into_iter().flatten().collect();

    let account = account(&report, &books, &expected);
    let books = sum(&books);
    let (profile_id, history) = histories
        .into_iter()
        .flatten()
        .max_by_key(|(_, sessions)| sessions.len())
        .context("no viewer watched anything")?;
    Ok(DemoResult {
        seed: args.model.seed,
        posts: report.posts,
        profiles: profiles.len(),
        views: Views {
            expected: expected.views.len(),
            equal: differences.is_empty(),
            differences: differences.len(),
            first_differences: differences.into_iter().take(DIFFERENCES_LISTED).collect(),
        },
        cost: Cost {
            records: books.appended_records,
            conditional_writes: books.view_writes,
            writes_per_event: books.view_writes as f64 / (books.accepted as f64).max(1.0),
            views_read: books.view_reads,
            lost_races: books.lost_races,
        },
        seconds: Seconds { start: seconds(start), send: seconds(send), settle: seconds(settle) },
        books: account,
        regions,
        feed,
        sessions: args.model.sessions,
        member: Member { profile_id, history },
    })
}

fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10.0).round() / 10.0
}
