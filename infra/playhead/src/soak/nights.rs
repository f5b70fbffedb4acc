//! `playhead soak --simulated`: many nights of outages on a virtual clock, until enough hours are
//! played or a promise is broken.

use anyhow::{Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use night::{Fault, Game, Report, What, outage, play};
use serde::Serialize;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};
use tracing::subscriber::{NoSubscriber, with_default};

/// Options of a soak on a virtual clock.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "With --simulated")]
pub(super) struct NightsArgs {
    /// How many virtual hours to play in all
    #[arg(long, requires = "simulated", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    hours: u64,
    /// How many virtual hours a night has
    #[arg(long, requires = "simulated", default_value_t = 72, value_parser = clap::value_parser!(u64).range(1..=240))]
    night: u64,
    /// Instead of nights, each part away alone for a minute, an hour and a day: what it takes to catch up
    #[arg(long, requires = "simulated", conflicts_with_all = ["hours", "night", "seed", "json"])]
    outages: bool,
}

/// The parts that can be away, and how a reader of the table knows them.
const PARTS: [(&str, What); 8] = [
    ("the primary logs", What::Primary),
    ("the standby logs", What::Standby),
    ("the store", What::Table),
    ("one hot key", What::HotKey),
    ("SQS", What::Queues),
    ("the failure bucket", What::Bucket),
    ("the way to another region", What::Link),
    ("the functions, which crash", What::Crashes),
];

/// What all nights came to.
#[derive(Debug, Default, Serialize)]
struct Total {
    nights: u64,
    hours: u64,
    events: u64,
    invocations: u64,
    crashes: u64,
    /// Faults, by what failed and how.
    faults: BTreeMap<String, u64>,
    /// The longest time from the last repair until nothing was on its way, seconds.
    slowest_to_settle_s: u64,
    most_calls_per_event: f64,
    seconds: f64,
    hours_per_minute: u64,
    broken: Vec<Report>,
}

impl Total {
    fn add(&mut self, report: Report) {
        self.nights += 1;
        self.hours += report.hours;
        self.events += report.accepted;
        self.invocations += report.invocations;
        self.crashes += report.crashes;
        self.slowest_to_settle_s = self.slowest_to_settle_s.max(report.settled_after_s.unwrap_or(u64::MAX));
        self.most_calls_per_event = self.most_calls_per_event.max(report.calls_per_event);
        for (fault, times) in &report.faults {
            *self.faults.entry(fault.clone()).or_default() += times;
        }
        if !report.broken.is_empty() {
            self.broken.push(report);
        }
    }

    fn print(&self) {
        println!("{} nights, {} virtual hours, {} events accepted", self.nights, self.hours, self.events);
        println!("{:.0} s: {} virtual hours per minute", self.seconds, self.hours_per_minute);
        println!("{} invocations, of which {} crashed", self.invocations, self.crashes);
        println!(
            "settled after at most {} s; at most {:.1} calls of the table per event",
            self.slowest_to_settle_s, self.most_calls_per_event
        );
        println!("\nFaults");
        self.faults.iter().for_each(|(fault, times)| println!("  {fault:<20} {times:>6}"));
        if self.broken.is_empty() {
            println!("\nNothing was lost, nothing counted twice, nothing dead that was only unlucky.");
        }
        for report in &self.broken {
            println!("\n{report}");
            println!(
                "  Again: cargo playhead soak --simulated --seed {} --night {} --hours 1",
                report.seed, report.hours
            );
        }
    }
}

/// Plays the nights, or the outages.
///
/// # Errors
/// If a night panics. A broken promise is not an error; it gives exit status 1.
pub(super) async fn run(args: NightsArgs, seed: u64, json: bool) -> Result<ExitCode> {
    tokio::task::spawn_blocking(move || if args.outages { outages() } else { soak(&args, seed, json) }).await?
}

/// Prints a table in Markdown: how long it takes, from the repair, until nothing is on its way.
fn outages() -> Result<ExitCode> {
    let mut broken = false;
    println!("| away | how | a minute | an hour | a day | calls of the store per event |\n|---|---|---|---|---|---|");
    for (part, what) in PARTS {
        for (how, fault) in [("refuses", Fault::Refuses), ("hangs", Fault::Hangs)] {
            let reports = [1, 60, 24 * 60].map(|minutes| quietly(|| play(&outage(what, fault, minutes))));
            let settled = |report: &Report| report.settled_after_s.map_or("never".to_owned(), |s| format!("{s} s"));
            let calls = reports.iter().map(|report| report.calls_per_event).fold(0.0, f64::max);
            println!("| {part} | {how} | {} | {calls:.1} |", reports.each_ref().map(settled).join(" | "));
            for report in reports.iter().filter(|report| !report.broken.is_empty()) {
                eprintln!("{report}");
                broken = true;
            }
        }
    }
    Ok(ExitCode::from(u8::from(broken)))
}

/// Without the log, unless somebody asked for it: in an outage every function warns, and that is not
/// news here.
fn quietly(play: impl FnOnce() -> Report) -> Report {
    match std::env::var_os("RUST_LOG") {
        Some(_) => play(),
        None => with_default(NoSubscriber::new(), play),
    }
}

fn soak(args: &NightsArgs, seed: u64, json: bool) -> Result<ExitCode> {
    let began = Instant::now();
    let bar = ProgressBar::new(args.hours);
    bar.set_style(ProgressStyle::with_template("{bar:40} {pos}/{len} virtual hours, {eta} left")?);
    bar.enable_steady_tick(Duration::from_millis(500));
    let (next, stop, total) = (AtomicU64::new(0), AtomicBool::new(false), Mutex::new(Total::default()));
    let nights = args.hours.div_ceil(args.night);
    let work = || {
        while !stop.load(Relaxed) {
            let night = next.fetch_add(1, Relaxed);
            if night >= nights {
                break;
            }
            let game = Game::new(seed + night, args.night);
            let report = quietly(|| play(&game));
            stop.fetch_or(!report.broken.is_empty(), Relaxed);
            bar.inc(args.night);
            if let Ok(mut total) = total.lock() {
                total.add(report);
            }
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let panicked = thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(thread::ScopedJoinHandle::join).filter(Result::is_err).count()
    });
    bar.finish_and_clear();
    let Ok(mut total) = total.into_inner() else { bail!("a night panicked") };
    if panicked > 0 {
        bail!("{panicked} threads panicked; the output above says where");
    }
    total.seconds = began.elapsed().as_secs_f64();
    total.hours_per_minute = (total.hours as f64 * 60.0 / total.seconds.max(0.001)) as u64;
    if json {
        println!("{}", serde_json::to_string_pretty(&total)?);
    } else {
        total.print();
    }
    Ok(ExitCode::from(u8::from(!total.broken.is_empty())))
}
