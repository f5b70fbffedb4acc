//! `playhead demo`: the whole pipeline on this machine, from simulated viewers to their histories, with the proof that
//! nothing was lost on the way.

use crate::books::{self, Books};
use crate::local::args::CloudArgs;
use crate::local::command::DEMO;
use crate::local::{Endpoints, LocalCloud, Progress};
use crate::simulate::expect::{self, Difference, Expected, SessionView};
use crate::simulate::plan::Plan;
use crate::simulate::send::{self, Auth, Pace, SendReport, Target};
use crate::simulate::{Model, histories, progress_bar};
use crate::token;
use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::signal::unix::{SignalKind, signal};

/// How long the books may stand still before what is in flight counts as lost.
const STANDSTILL: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(500);
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
    cost: Cost,
    seconds: Seconds,
}

/// The books of the run, from the devices to the views.
#[derive(Debug, Serialize)]
struct Account {
    /// Events that the devices sent.
    sent: usize,
    accepted: u64,
    rejected: BTreeMap<String, u64>,
    applied: u64,
    duplicates: u64,
    dead: u64,
    in_flight: i64,
    /// Distinct events that were accepted, as the simulator knows: as many as must be applied.
    distinct: usize,
    /// Every line below holds.
    balanced: bool,
    /// What does not hold, in words.
    faults: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Views {
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
pub async fn run(args: Args) -> Result<ExitCode> {
    let options = args.cloud.options(DEMO)?;
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let progress = Progress::new();
    let began = Instant::now();
    let started = tokio::select! {
        started = LocalCloud::start(options, &progress) => started,
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
    let proven = outcome.books.balanced && outcome.views.equal;
    Ok(if proven { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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
    let auth = Auth::Secret { secret: endpoints.jwt_secret.clone(), issuer: None, audience: None };
    let target = Target { endpoint: endpoints.api.clone(), elsewhere: send::elsewhere(endpoints), auth };
    let bar = progress_bar()?;
    let report = send::send(&plan, &target, Pace::default(), &bar).await?;
    bar.finish_and_clear();
    let send = began.elapsed();

    progress.step("Following the pipeline until it has settled");
    let began = Instant::now();
    let books = settled(endpoints, report.accepted as u64, progress).await?;
    let settle = began.elapsed();

    let expected = expect::expect(&plan, &report.failed_posts);
    let profiles: BTreeSet<&String> = expected.views.keys().map(|(profile, _)| profile).collect();
    progress.step(format!("Comparing the histories of {} profiles with what they must be", profiles.len()));
    let histories = histories::read(
        &endpoints.api,
        &token::of_service(&endpoints.jwt_secret, TOKEN_LIFETIME)?,
        profiles.iter().copied(),
    )
    .await?;
    progress.finish();
    let differences = expect::check(&expected, &histories);

    let account = account(&report, &books, &expected);
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
    };
    let (profile_id, history) =
        histories.into_iter().max_by_key(|(_, sessions)| sessions.len()).context("nobody watched anything")?;
    Ok((outcome, Member { profile_id, history }))
}

fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10.0).round() / 10.0
}

/// Waits until all that the devices were told is accepted is in the books and nothing is in flight, or nothing moves any
/// more. What `process` counted may be in the logs before what `ingest` did, so that nothing in flight is not enough.
async fn settled(endpoints: &Endpoints, accepted: u64, progress: &Progress) -> Result<Books> {
    let mut reader = books::Reader::new(endpoints);
    let mut last = Books::default();
    let mut moved = Instant::now();
    loop {
        let books = reader.catch_up().await?.clone();
        progress.detail(format!("{} of {} events ended", books.accepted as i64 - books.in_flight(), books.accepted));
        if books.accepted >= accepted && books.in_flight() <= 0 && books == last {
            return Ok(books);
        }
        if books != last {
            (last, moved) = (books, Instant::now());
        } else if moved.elapsed() > STANDSTILL {
            return Ok(last);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Holds the devices' side, the functions' side and the simulator's knowledge against each other.
fn account(report: &SendReport, books: &Books, expected: &Expected) -> Account {
    let rejected: u64 = books.rejected.values().sum();
    let dead: u64 = books.dead.values().sum();
    let mut faults = Vec::new();
    // What an attempt to append left on a log although it failed ends too, as duplicates; what failed comes again.
    let again: u64 = books.failed_records.values().chain(books.retried_records.values()).sum();
    let mut hold_between = |what: &str, least: u64, value: u64, more: u64| {
        if !(least..=least + more).contains(&value) {
            faults.push(format!("{what}: {value} is not between {least} and {}", least + more));
        }
    };
    hold_between(
        "accepted <= applied + duplicates + dead <= accepted + unclaimed",
        books.accepted,
        books.ended(),
        books.unclaimed,
    );
    hold_between(
        "records: appended <= received <= appended + unclaimed + failed + retried",
        books.appended_records,
        books.received_records,
        books.unclaimed + again,
    );
    let mut hold = |what: &str, left: u64, right: u64| {
        if left != right {
            faults.push(format!("{what}: {left} is not {right}"));
        }
    };
    hold("events sent = accepted + rejected", report.events_sent as u64, books.accepted + rejected);
    hold("accepted: by the devices = by ingest", report.accepted as u64, books.accepted);
    hold("applied = distinct events accepted", books.applied, expected.distinct as u64);
    hold("dead = 0", dead + books.dead_records.values().sum::<u64>(), 0);
    hold("failed POSTs = 0", report.failed_posts.len() as u64, 0);
    for code in books.rejected.keys().chain(expected.rejected.keys()).collect::<BTreeSet<_>>() {
        let planned = expected.rejected.get(code).copied().unwrap_or_default() as u64;
        hold(
            &format!("rejected as {code} = malformed so"),
            books.rejected.get(code).copied().unwrap_or_default(),
            planned,
        );
    }
    faults.extend(report.failures.iter().cloned());
    Account {
        sent: report.events_sent,
        accepted: books.accepted,
        rejected: books.rejected.clone(),
        applied: books.applied,
        duplicates: books.duplicates,
        dead,
        in_flight: books.in_flight(),
        distinct: expected.distinct,
        balanced: faults.is_empty(),
        faults,
    }
}

fn print(outcome: &Outcome, model: &Model, member: &Member, endpoints: &Endpoints) {
    let Outcome { books, views, cost, .. } = outcome;
    println!(
        "\nThe books, in events ({} sessions of {} profiles, {} POSTs)\n",
        model.sessions, outcome.profiles, outcome.posts
    );
    println!("  sent         {:>9}", books.sent);
    println!("  rejected     {:>9}   malformed on purpose", books.rejected.values().sum::<u64>());
    for (code, n) in &books.rejected {
        println!("               {n:>9}   {code}");
    }
    println!("  accepted     {:>9}   acknowledged by the log before the device was answered", books.accepted);
    println!("    applied    {:>9}   = {} distinct events", books.applied, books.distinct);
    println!("    duplicates {:>9}", books.duplicates);
    println!("    dead       {:>9}", books.dead);
    println!("    in flight  {:>9}", books.in_flight);
    for fault in &books.faults {
        println!("  DOES NOT HOLD: {fault}");
    }
    println!("  {}\n", if books.balanced { "They balance." } else { "They do not balance." });
    println!(
        "Cost: {} conditional writes for {} events: {:.3} an event ({} records, {} views read, {} lost races)\n",
        cost.conditional_writes, books.accepted, cost.writes_per_event, cost.records, cost.views_read, cost.lost_races
    );
    if views.equal {
        println!("Views: all {} equal the fold of what was sent, computed apart from the store.\n", views.expected);
    } else {
        println!("Views: {} differences in {} views:", views.differences, views.expected);
        for difference in &views.first_differences {
            println!("  {difference}");
        }
        println!();
    }
    println!("The history of {} as the API gives it, newest first\n", member.profile_id);
    println!("  {:<31} {:<8} {:>9} {:>9} {:>9}  device", "session", "title", "position", "played", "of");
    for session in &member.history {
        println!(
            "  {:<31} {:<8} {:>9} {:>9} {:>9}  {}{}",
            session.session_id,
            session.title_id,
            clock(session.position_ms),
            clock(session.played_ms),
            clock(session.title_duration_ms),
            session.device.kind,
            if session.completed { ", completed" } else { "" }
        );
    }
    println!("\nLogs of this run: {}", endpoints.run_dir.join("logs").display());
}

/// Milliseconds as h:mm:ss.
fn clock(ms: i64) -> String {
    let s = ms / 1000;
    format!("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
}

/// What to try while the demo stays up; to standard error, so that the result stays alone on standard output.
fn invite(endpoints: &Endpoints, profile: Option<&str>) -> Result<()> {
    let Endpoints { api, aws_endpoint, .. } = endpoints;
    let log = endpoints.log_bootstrap.as_ref().or(endpoints.events_stream.as_ref()).map_or("", String::as_str);
    let profile = profile.unwrap_or("p00000000");
    eprintln!("\nIt stays up until Ctrl-C.\n");
    eprintln!("  API    {api}\n  AWS    {aws_endpoint}\n  Log    {log}\n\nTry:\n");
    eprintln!("  export TOKEN={}", token::of_service(&endpoints.jwt_secret, TOKEN_LIFETIME)?);
    eprintln!("  curl -s -H \"Authorization: Bearer $TOKEN\" '{api}/v1/profiles/{profile}/continue-watching'");
    eprintln!("  curl -s -H \"Authorization: Bearer $TOKEN\" -X DELETE '{api}/v1/profiles/{profile}/history'");
    Ok(())
}
