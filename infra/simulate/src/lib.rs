//! The simulator: seeded, repeatable viewing sessions and everything that can go wrong on their way to us,
//! written as a trace or sent to an endpoint, and what the views must be afterwards.
//!
//! [`plan`] says what is sent, [`send`] sends it, [`expect`] says what must come of it. Nothing here
//! decides anything for the pipeline; it only plays its members.

pub mod encode;
pub mod event;
pub mod expect;
mod faults;
pub mod histories;
pub mod plan;
pub mod send;
#[cfg(test)]
mod tests;
mod travel;
mod viewer;
pub mod writers;

pub use faults::{Applied, Faults};

use crate::encode::is_broken_pipe;
use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use operate::run::running;
use plan::{DEFAULT_START_AT, Plan};
use playback::session::Home;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use send::{Auth, Pace, SendReport, Target};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufWriter, IsTerminal};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

/// Who watches how much, and what goes wrong.
#[derive(Debug, Clone, PartialEq, clap::Args)]
pub struct Model {
    /// Viewing sessions
    #[arg(long, value_name = "N", default_value_t = 300)]
    pub sessions: usize,
    /// Profiles that share them [default: a third of the sessions]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub viewers: Option<u32>,
    /// Titles in the catalogue; their popularity follows Zipf's law
    #[arg(long, value_name = "N", default_value_t = 500)]
    pub titles: usize,
    /// Home regions of the viewers
    #[arg(long, value_name = "HOME", value_delimiter = ',', default_value = "use1")]
    pub homes: Vec<Home>,
    /// Share of sessions that change region in the middle: from some time on their POSTs go through another home region [default: 0; of a
    /// demo with several regions 0.2]
    #[arg(long, value_name = "RATE", value_parser = faults::rate)]
    pub travel: Option<f64>,
    /// The same seed and options make the same events
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    #[command(flatten)]
    /// What goes wrong
    pub faults: Faults,
}

impl Model {
    /// How many profiles watch.
    #[must_use]
    pub fn viewer_count(&self) -> usize {
        self.viewers.map_or((self.sessions / 3).max(1), |viewers| viewers as usize)
    }
}

/// The independent random streams of a seed.
#[derive(Debug, Clone, Copy)]
enum Stream {
    World,
    Viewers,
    Choice,
    Buffer,
    Lost,
    Malformed,
    Late,
    Reorder,
    Duplicates,
    Travel,
    Session(u64),
}

fn rng(seed: u64, stream: Stream) -> ChaCha8Rng {
    let number = match stream {
        Stream::World => 0,
        Stream::Viewers => 1,
        Stream::Choice => 2,
        Stream::Buffer => 3,
        Stream::Lost => 4,
        Stream::Malformed => 5,
        Stream::Late => 6,
        Stream::Reorder => 7,
        Stream::Duplicates => 8,
        Stream::Travel => 9,
        Stream::Session(n) => 1_000 + n,
    };
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(number);
    rng
}

/// Simulate viewers: write what they send, or send it
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("where").required(true).args(["out", "endpoint"])))]
pub struct Args {
    #[command(flatten)]
    /// Who watches
    pub model: Model,
    /// Write the trace here, one edge event a line (`-` = standard output)
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Send the events to the API at this base URL
    #[arg(long, value_name = "URL")]
    pub endpoint: Option<String>,
    /// Where the POSTs through a home region go, if not to --endpoint [default: the regions of the running local cloud, if it is the endpoint]
    #[arg(long, value_name = "HOME=URL", requires = "endpoint", value_parser = home_and_url)]
    pub endpoint_of: Vec<(Home, String)>,
    /// When virtual time begins, Unix milliseconds [default: 1790000000000 for a trace; for an endpoint such that it ends now]
    #[arg(long, value_name = "MS")]
    pub start_at: Option<i64>,
    /// The bearer token of all devices
    #[arg(long, value_name = "JWT", requires = "endpoint")]
    pub token: Option<String>,
    /// Sign a token for each profile with this secret (development stages) [default: the running local cloud's, if it is the endpoint]
    #[arg(long, value_name = "SECRET", env = "JWT_SECRET", hide_env_values = true)]
    pub token_secret: Option<String>,
    /// The claim `iss` of signed tokens
    #[arg(long, value_name = "ISSUER", requires = "token_secret")]
    pub token_issuer: Option<String>,
    /// The claim `aud` of signed tokens
    #[arg(long, value_name = "AUDIENCE", requires = "token_secret")]
    pub token_audience: Option<String>,
    /// Attempts in flight at once
    #[arg(long, value_name = "N", default_value_t = Pace::default().concurrency)]
    pub concurrency: usize,
    /// Virtual seconds a second, e.g. 60 [default: as fast as the endpoint answers]
    #[arg(long, value_name = "FACTOR", value_parser = positive)]
    pub speed: Option<f64>,
    /// POSTs that begin a second, whatever becomes of those before them [default: as the endpoint answers]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub rate: Option<f64>,
    /// How often a POST is tried before it is given up
    #[arg(long, value_name = "N", default_value_t = Pace::default().attempts)]
    pub attempts: u32,
    /// Print the summary as JSON
    #[arg(long)]
    pub json: bool,
}

fn positive(text: &str) -> Result<f64, String> {
    let factor: f64 = text.parse().map_err(|error| format!("{error}"))?;
    if factor > 0.0 && factor.is_finite() { Ok(factor) } else { Err("must be greater than 0".to_owned()) }
}

fn home_and_url(text: &str) -> Result<(Home, String), String> {
    let (home, url) = text.split_once('=').ok_or("must be HOME=URL, for example usw2=https://…")?;
    Ok((home.parse().map_err(|error| format!("{home}: {error}"))?, url.to_owned()))
}

/// What a plan holds.
#[derive(Debug, Serialize)]
struct Summary {
    posts: usize,
    profiles: usize,
    sessions: usize,
    completed_sessions: usize,
    events: usize,
    distinct: usize,
    duplicates: usize,
    missing: i64,
    malformed: BTreeMap<String, usize>,
    applied: Applied,
}

impl Summary {
    fn of(plan: &Plan) -> Self {
        let expected = expect::expect(plan, &BTreeSet::new());
        Self {
            posts: plan.posts.len(),
            profiles: expected.views.keys().map(|(profile, _)| profile).collect::<BTreeSet<_>>().len(),
            sessions: expected.views.len(),
            completed_sessions: expected.views.values().filter(|view| view.completed).count(),
            events: plan.events().count(),
            distinct: expected.distinct,
            duplicates: expected.duplicates,
            missing: expected.views.values().map(|view| view.missing).sum(),
            malformed: expected.rejected,
            applied: plan.applied.clone(),
        }
    }
}

/// Runs `playhead simulate`.
///
/// # Errors
/// When the model is impossible, the trace cannot be written, or a POST failed for good.
pub async fn run(args: Args) -> Result<()> {
    match (&args.out, &args.endpoint) {
        (Some(out), _) => write(&args, out),
        (None, Some(endpoint)) => send_to(&args, endpoint).await,
        (None, None) => bail!("give --out or --endpoint"),
    }
}

fn write(args: &Args, out: &PathBuf) -> Result<()> {
    let plan = Plan::new(&args.model, args.start_at.unwrap_or(DEFAULT_START_AT))?;
    let summary = Summary::of(&plan);
    let to_stdout = out.as_os_str() == "-";
    if to_stdout {
        match plan.write_trace(BufWriter::new(std::io::stdout().lock())) {
            Err(error) if is_broken_pipe(&error) => return Ok(()),
            written => written?,
        }
    } else {
        let file = File::create(out).with_context(|| format!("creating {}", out.display()))?;
        plan.write_trace(BufWriter::new(file))?;
    }
    let text = if args.json {
        serde_json::to_string(&summary)?
    } else {
        format!(
            "{} POSTs with {} events ({} distinct, {} sent again, {} malformed, {} never sent) of {} sessions ({} completed) of {} profiles",
            summary.posts,
            summary.events,
            summary.distinct,
            summary.duplicates,
            summary.malformed.values().sum::<usize>(),
            summary.applied.lost,
            summary.sessions,
            summary.completed_sessions,
            summary.profiles,
        )
    };
    if to_stdout {
        eprintln!("{text}")
    } else {
        println!("{text}")
    }
    Ok(())
}

async fn send_to(args: &Args, endpoint: &str) -> Result<()> {
    let plan = match args.start_at {
        Some(start_at) => Plan::new(&args.model, start_at)?,
        None => Plan::ending_at(&args.model, now()?)?,
    };
    let local = running().ok().filter(|local| local.api == endpoint.trim_end_matches('/'));
    let auth = match (&args.token, &args.token_secret, &local) {
        (Some(token), ..) => Auth::Token(token.clone()),
        (None, Some(secret), _) => Auth::Secret {
            secret: secret.clone(),
            issuer: args.token_issuer.clone(),
            audience: args.token_audience.clone(),
        },
        (None, None, Some(local)) => Auth::of(local),
        (None, None, None) => Auth::None,
    };
    let mut elsewhere = local.as_ref().map(send::elsewhere).unwrap_or_default();
    elsewhere.extend(args.endpoint_of.iter().cloned());
    let target = Target { endpoint: endpoint.to_owned(), elsewhere, auth };
    let pace =
        Pace { concurrency: args.concurrency, speed: args.speed, per_second: args.rate, attempts: args.attempts };
    let bar = progress_bar()?;
    let report = send::send(&plan, &target, pace, &bar).await?;
    bar.finish_and_clear();
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print_report(&report);
    }
    if !report.failed_posts.is_empty() {
        bail!("{} of {} POSTs failed for good", report.failed_posts.len(), report.posts);
    }
    Ok(())
}

/// A bar that counts POSTs on a terminal, and nothing elsewhere.
///
/// # Errors
/// Never in practice: its template is fixed.
pub fn progress_bar() -> Result<ProgressBar> {
    if !std::io::stderr().is_terminal() {
        return Ok(ProgressBar::hidden());
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} POSTs, {per_sec}, {eta} left")?;
    Ok(ProgressBar::new(0).with_style(style))
}

fn print_report(report: &SendReport) {
    println!("posts     {}", report.posts);
    println!("events    {}", report.events_sent);
    println!("accepted  {}", report.accepted);
    println!("rejected  {}", report.rejected.values().sum::<usize>());
    for (code, count) in &report.rejected {
        println!("          {count} {code}");
    }
    println!("at once   {} POSTs answered 202 at the first attempt", report.first_try);
    println!("retries   {}", report.retries);
    println!("failed    {}", report.failed_posts.len());
    for failure in &report.failures {
        println!("          {failure}");
    }
}

fn now() -> Result<i64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("a clock before 1970")?;
    Ok(now.as_millis().try_into()?)
}
