//! A soak on this machine: a local cloud with real processes, at the highest rate that it takes.

use super::faults::Calendar;
use super::memory::Memory;
use super::report::{Found, Report, Sending};
use super::viewers::{Played, Readers, Readings, Viewers};
use crate::demo::consumers::{Consumed, consume};
use crate::settled::{Accounts, settled, sum};
use anyhow::{Context as _, Result, bail};
use local::args::LogArgs;
use local::{LocalCloud, Progress};
use operate::Endpoints;
use operate::token;
use simulate::expect::{Difference, check};
use simulate::histories;
use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

/// How long to look for the highest rate.
const LOOK_FOR: Duration = Duration::from_secs(60);
/// Share of the highest rate that is held. The rest is for what waits after a fault.
const HELD: f64 = 0.7;
const TICK: Duration = Duration::from_secs(1);
/// How often memory is looked at.
const SAMPLE_EVERY: Duration = Duration::from_secs(10);
/// The end is without faults for this long.
const QUIET_END: Duration = Duration::from_secs(20);
/// If the books do not change for this long, events in flight count as lost. A letter on `retry`
/// pauses for about as long as it has waited.
const STANDSTILL: Duration = Duration::from_secs(180);
/// How long views may take to be right after the books have settled. After a kill the books may seem settled while
/// letters wait.
const RIGHT_WITHIN: Duration = STANDSTILL;
const TOKEN_LIFETIME: Duration = Duration::from_secs(3_600);

/// Options of a soak on this machine.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "On this machine")]
pub(super) struct MachineArgs {
    /// How long the viewers play while things break
    #[arg(long, value_name = "N", conflicts_with = "simulated", default_value_t = 20, value_parser = clap::value_parser!(u64).range(3..=1_440))]
    minutes: u64,
    /// POSTs per second [default: 70% of what the machine takes during the first minute]
    #[arg(long, value_name = "N", conflicts_with = "simulated", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    #[command(flatten)]
    log: LogArgs,
}

/// Runs the soak.
///
/// # Errors
/// If the pipeline cannot run, or a signal ends it early. A broken promise is not an error; it
/// gives exit status 1.
pub(super) async fn run(args: &MachineArgs, seed: u64, json: bool) -> Result<ExitCode> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let progress = Progress::new();
    let options = args.log.options("soak")?;
    let mut cloud = tokio::select! {
        started = LocalCloud::start(options, &progress) => started?,
        _ = interrupt.recv() => bail!("interrupted: the soak did not start"),
        _ = terminate.recv() => bail!("terminated: the soak did not start"),
    };
    let played = tokio::select! {
        played = soak(args, seed, &mut cloud, &progress) => played,
        _ = interrupt.recv() => Err(anyhow::anyhow!("interrupted")),
        _ = terminate.recv() => Err(anyhow::anyhow!("terminated")),
    };
    progress.step("Stopping");
    let stopped = cloud.stop().await;
    progress.finish();
    let report = played?;
    stopped?;
    if json {
        println!("{}", serde_json::to_string_pretty(&report)?)
    } else {
        report.print()
    }
    Ok(ExitCode::from(u8::from(!report.wrong.is_empty())))
}

async fn soak(args: &MachineArgs, seed: u64, cloud: &mut LocalCloud, progress: &Progress) -> Result<Report> {
    let endpoints = cloud.endpoints().clone();
    let minutes = Duration::from_secs(60 * args.minutes);
    let mut calendar = Calendar::new(cloud, seed, minutes).await?;
    let viewers = Viewers::new(&endpoints, seed);
    progress.step(format!("Looking for the highest rate, {} s", LOOK_FOR.as_secs()));
    let (highest, first) = while_it_runs(cloud, viewers.fastest(LOOK_FOR)).await?;
    let rate = args.rate.map_or((highest * HELD).max(1.0), f64::from);

    progress.step(format!(
        "Playing {rate:.0} of at most {highest:.0} POSTs per second for {} minutes, while things break",
        args.minutes
    ));
    let mut memory = Memory::default();
    let playing = play(&viewers, rate, minutes, cloud, &mut calendar, &mut memory, progress);
    let (mut played, sending, readings) = playing.await?;
    played += first;

    progress.step("Following the pipeline until it has settled");
    let began = Instant::now();
    let settling = settled(&endpoints, played.accepted as u64, STANDSTILL, progress);
    let Accounts { books, .. } = while_it_runs(cloud, settling).await?;
    let settled = began.elapsed();
    progress.step(format!("Comparing {} views with the expected ones", played.expected.views.len()));
    let differences = differences(&endpoints, &played).await?;
    progress.step("Consuming the change feed");
    let feed = match &endpoints.view_changes_stream {
        Some(stream) => Some(consume(&endpoints.sdk_config(), stream, &played.expected).await?),
        None => None,
    };
    progress.finish();
    Ok(Report::of(Found {
        seed,
        minutes: args.minutes,
        highest,
        asked: rate,
        played,
        sending,
        readings,
        settled,
        books: sum(&books),
        differences,
        feed: feed.map(|Consumed { changes, complete, .. }| (changes, complete)),
        faults: calendar.summary().await,
        poison: calendar.poison,
        memory,
    }))
}

/// Lets viewers play for this long while things break, and watches.
async fn play(
    viewers: &Viewers,
    rate: f64,
    minutes: Duration,
    cloud: &mut LocalCloud,
    calendar: &mut Calendar,
    memory: &mut Memory,
    progress: &Progress,
) -> Result<(Played, Sending, Readings)> {
    let mut playing = viewers.play(rate);
    let readers = Readers::start(cloud.endpoints())?;
    let (began, mut sampled, mut sending) = (Instant::now(), None, Sending::default());
    let mut ticks = tokio::time::interval(TICK);
    while began.elapsed() < minutes && !playing.has_failed() {
        ticks.tick().await;
        cloud.check()?;
        let elapsed = began.elapsed();
        if elapsed + QUIET_END < minutes {
            calendar.advance(cloud, elapsed).await?;
        } else {
            calendar.repair(cloud).await?;
        }
        if sampled.is_none_or(|at| elapsed >= at + SAMPLE_EVERY) {
            memory.sample(cloud, elapsed)?;
            sampled = Some(elapsed);
        }
        while let Ok(attempt) = playing.attempts.try_recv() {
            sending.add(&attempt);
        }
        let waiting = cloud.poller().context("no pollers")?.stats().waiting;
        progress.detail(format!(
            "of {}: {} POSTs accepted, {waiting} records are being processed; {}",
            minutes.as_secs(),
            sending.accepted(),
            calendar.now()
        ));
    }
    calendar.repair(cloud).await?;
    let (played, attempts) = while_it_runs(cloud, playing.stop()).await?;
    attempts.iter().for_each(|attempt| sending.add(attempt));
    sending.took = began.elapsed();
    Ok((played, sending, readers.stop()))
}

/// Waits for this, or until the emulator ends.
async fn while_it_runs<T>(cloud: &mut LocalCloud, work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::select! {
        done = work => done,
        reason = cloud.failure() => Err(reason),
    }
}

/// How the views differ from what they must be, in the end.
async fn differences(endpoints: &Endpoints, played: &Played) -> Result<Vec<Difference>> {
    let profiles: BTreeSet<&String> = played.expected.views.keys().map(|(profile, _)| profile).collect();
    let token = token::of_service(&endpoints.jwt_secret, TOKEN_LIFETIME)?;
    let began = Instant::now();
    loop {
        let histories = histories::read(&endpoints.api, &token, profiles.iter().copied()).await?;
        let differences = check(&played.expected, &histories);
        if differences.is_empty() || began.elapsed() > RIGHT_WITHIN {
            return Ok(differences);
        }
        tokio::time::sleep(TICK).await;
    }
}
