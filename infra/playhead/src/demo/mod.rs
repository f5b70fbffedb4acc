//! `playhead demo`: the whole pipeline on this machine, from simulated viewers to their histories, with the proof that
//! nothing was lost on the way.

mod account;
mod migrate;
mod print;
mod regions;

use self::account::{Account, Settled, account, settled, sum};
use self::print::{invite, print};
use self::regions::{Regions, read_everywhere};
use anyhow::{Context as _, Result, bail};
use legacy::Bug;
use local::args::CloudArgs;
use local::{DEFAULT_REGION, LocalOptions, LocalRegions, Progress};
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
use tokio::signal::unix::{SignalKind, signal};

/// Share of sessions that change region, in a demo with several, unless told otherwise.
const TRAVEL: f64 = 0.2;
const TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 3_600);
/// Differences that are printed; all are counted.
const DIFFERENCES_TOLD: usize = 10;

/// Run the whole pipeline on this machine with simulated viewers, and prove that nothing was lost
///
/// Installs and builds what is needed, starts a local cloud, deploys template.yaml, plays the viewers' sessions against its
/// API, waits until every event has ended, prints the books, compares every member's history with what it must be, and stays
/// up until Ctrl-C, so that you can look around.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: Model,
    /// Walk the rollout from a legacy service to Playhead instead, under load: who is shadowed, who is moved, what was found on the way
    #[arg(long)]
    migrate: bool,
    /// Give the legacy service a bug, which has to be found before anybody is moved: dropped-duplicates, last-arrival-wins or lost-seek
    #[arg(long, value_name = "BUG", requires = "migrate", value_parser = migrate::bug)]
    legacy_bug: Option<Bug>,
    /// End after the proof: exit status 0 only if the books balance and all views agree
    #[arg(long)]
    exit: bool,
    /// Print the result as one JSON object, for a program
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    cloud: CloudArgs,
}

/// What came of a demo.
#[derive(Debug, Serialize)]
struct Outcome {
    seed: u64,
    posts: usize,
    profiles: usize,
    books: Account,
    views: Views,
    #[serde(skip_serializing_if = "Option::is_none")]
    regions: Option<Regions>,
    cost: Cost,
    seconds: Seconds,
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
/// When the pipeline cannot be run. What it got wrong is no error but exit status 1.
pub async fn run(mut args: Args) -> Result<ExitCode> {
    if args.migrate {
        return migrate::run(args).await;
    }
    let options = args.cloud.options(DEMO)?;
    settle_in(&mut args.model, &options);
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let progress = Progress::new();
    let began = Instant::now();
    let started = tokio::select! {
        started = LocalRegions::start(options, &progress) => started,
        _ = interrupt.recv() => bail!("interrupted: the demo did not start"),
        _ = terminate.recv() => bail!("ended: the demo did not start"),
    };
    let mut cloud = started?;
    let endpoints = cloud.endpoints().clone();
    let start = began.elapsed();
    let played = tokio::select! {
        played = play(&args, &endpoints, start, &progress) => played,
        reason = cloud.failure() => Err(reason),
        _ = interrupt.recv() => Err(anyhow::anyhow!("interrupted")),
        _ = terminate.recv() => Err(anyhow::anyhow!("ended")),
    };
    let stay = match &played {
        Ok((outcome, member)) => {
            if args.json {
                println!("{}", serde_json::to_string(outcome)?);
            } else {
                print(outcome, &args.model, member, &endpoints);
            }
            !args.exit
        }
        Err(_) => false,
    };
    if stay {
        invite(&endpoints, played.as_ref().ok().map(|(_, member)| member.profile_id.as_str()))?;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            reason = cloud.failure() => eprintln!("{reason:#}"),
        }
    }
    progress.step("Stopping");
    let stopped = cloud.stop().await;
    progress.finish();
    let (outcome, _) = played?;
    stopped?;
    let regions = outcome.regions.is_none_or(|regions| regions.faults.is_empty());
    let proven = outcome.books.balanced && outcome.views.equal && regions;
    Ok(if proven { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The viewers are at home in the regions that there are, and with several of them some travel.
fn settle_in(model: &mut Model, options: &LocalOptions) {
    if !options.regions.is_empty() {
        model.homes = options.regions.iter().filter_map(|region| Home::of_region(region)).collect();
        model.travel.get_or_insert(TRAVEL);
    } else if options.region != DEFAULT_REGION {
        model.homes = Home::of_region(&options.region).into_iter().collect();
    }
}

/// One member, whose history is shown.
struct Member {
    profile_id: String,
    history: Vec<SessionView>,
}

async fn play(args: &Args, endpoints: &Endpoints, start: Duration, progress: &Progress) -> Result<(Outcome, Member)> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
    let plan = Plan::ending_at(&args.model, i64::try_from(now)?)?;
    progress.step(format!("Playing {} sessions: {} POSTs", args.model.sessions, plan.posts.len()));
    progress.finish();
    let began = Instant::now();
    let (elsewhere, auth) = (send::elsewhere(endpoints), Auth::of(endpoints));
    let target = Target { endpoint: endpoints.api.clone(), elsewhere, auth };
    let bar = progress_bar()?;
    let report = send::send(&plan, &target, Pace::default(), &bar).await?;
    bar.finish_and_clear();
    let send = began.elapsed();

    progress.step("Following the pipeline until it has settled");
    let began = Instant::now();
    let Settled { books, at: ended } = settled(endpoints, report.accepted as u64, progress).await?;
    let settle = began.elapsed();

    let expected = expect::expect(&plan, &report.failed_posts);
    let profiles: BTreeSet<&String> = expected.views.keys().map(|(profile, _)| profile).collect();
    progress.step(format!("Comparing the histories of {} profiles with what they must be", profiles.len()));
    let token = token::of_service(&endpoints.jwt_secret, TOKEN_LIFETIME)?;
    let readings = read_everywhere(endpoints, &token, &expected, &profiles).await?;
    let converged = readings.iter().all(|reading| reading.differences.is_empty()).then(|| ended.elapsed());
    let regions = regions::report(endpoints, &books, plan.travelled().len(), converged).await?;
    progress.finish();
    let (histories, differences): (Vec<_>, Vec<_>) =
        readings.into_iter().map(|reading| (reading.histories, reading.differences)).unzip();
    let differences: Vec<Difference> = differences.into_iter().flatten().collect();

    let account = account(&report, &books, &expected);
    let books = sum(&books);
    let outcome = Outcome {
        seed: args.model.seed,
        posts: report.posts,
        profiles: profiles.len(),
        views: Views {
            expected: expected.views.len(),
            equal: differences.is_empty(),
            differences: differences.len(),
            first_differences: differences.into_iter().take(DIFFERENCES_TOLD).collect(),
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
    };
    let (profile_id, history) = histories
        .into_iter()
        .flatten()
        .max_by_key(|(_, sessions)| sessions.len())
        .context("nobody watched anything")?;
    Ok((outcome, Member { profile_id, history }))
}

fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10.0).round() / 10.0
}
