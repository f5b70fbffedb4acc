//! The simulator: seeded, repeatable viewing sessions with everything that can go wrong on their
//! way to us. It writes them as a trace or sends them to an endpoint, and computes the expected
//! views.
//!
//! [`plan`] says what is sent, [`send`] sends it, [`expect`] says what the result must be. Nothing
//! here decides anything for the pipeline. It only plays the members.

pub mod encode;
pub mod event;
pub mod expect;
mod faults;
pub mod folding;
pub mod histories;
pub mod http;
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
    /// Number of viewing sessions
    #[arg(long, value_name = "N", default_value_t = 300)]
    pub sessions: usize,
    /// Number of profiles that watch them [default: a third of the sessions]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub viewers: Option<u32>,
    /// Number of titles in the catalogue (their popularity follows Zipf's law)
    #[arg(long, value_name = "N", default_value_t = 500)]
    pub titles: usize,
    /// Where the viewers' sessions begin: regions by their short names in session ids, such as use1 for us-east-1 and
    /// euw1 for eu-west-1. A demo in other regions takes those
    #[arg(long, value_name = "HOME", value_delimiter = ',', default_value = "use1")]
    pub homes: Vec<Home>,
    /// Share of sessions that change region in the middle: their later POSTs go through another
    /// home region [default: 0; 0.2 in a demo with several regions]
    #[arg(long, value_name = "RATE", value_parser = faults::rate)]
    pub travel: Option<f64>,
    /// Seed: the same seed and options make the same events
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    #[command(flatten)]
    /// What goes wrong
    pub faults: Faults,
}

impl Model {
    /// Number of profiles that watch.
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
    Folding,
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
        Stream::Folding => 10,
        Stream::Session(n) => 1_000 + n,
    };
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(number);
    rng
}

/// Simulate viewers: write their events to a file, or send them
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("where").required(true).args(["out", "endpoint"])))]
pub struct Args {
    #[command(flatten)]
    /// Who watches
    pub model: Model,
    /// Write the trace to this file, one edge event per line (- = standard output)
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Send the events to the API at this base URL
    #[arg(long, value_name = "URL")]
    pub endpoint: Option<String>,
    /// Send POSTs that go through this home region to this URL, not to --endpoint [default: the
    /// running local cloud's regions, if it is the endpoint]
    #[arg(long, value_name = "HOME=URL", requires = "endpoint", value_parser = home_and_url)]
    pub endpoint_of: Vec<(Home, String)>,
    /// Start of virtual time, Unix milliseconds [default: 1790000000000 for a trace; for an
    /// endpoint, chosen so that it ends now]
    #[arg(long, value_name = "MS")]
    pub start_at: Option<i64>,
    /// Bearer token of all devices
    #[arg(long, value_name = "JWT", requires = "endpoint")]
    pub token: Option<String>,
    /// Sign a token for each profile with this secret (development stages) [default: the running
    /// local cloud's, if it is the endpoint]
    #[arg(long, value_name = "SECRET", env = "JWT_SECRET", hide_env_values = true)]
    pub token_secret: Option<String>,
    /// Claim `iss` of signed tokens
    #[arg(long, value_name = "ISSUER", requires = "token_secret")]
    pub token_issuer: Option<String>,
    /// Claim `aud` of signed tokens
    #[arg(long, value_name = "AUDIENCE", requires = "token_secret")]
    pub token_audience: Option<String>,
    /// Number of attempts in flight at once
    #[arg(long, value_name = "N", default_value_t = Pace::default().concurrency)]
    pub concurrency: usize,
    /// Virtual seconds per second, such as 60 [default: as fast as the endpoint answers]
    #[arg(long, value_name = "FACTOR", value_parser = positive)]
    pub speed: Option<f64>,
    /// New POSTs per second, whether or not earlier ones were answered [default: as fast as the
    /// endpoint answers]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub rate: Option<f64>,
    /// Maximum number of attempts per POST
    #[arg(long, value_name = "N", default_value_t = Pace::default().attempts)]
    pub attempts: u32,
    /// Print the summary as one JSON object
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

/// Numbers of a plan.
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
/// If the model is impossible, the trace cannot be written, or a POST failed permanently.
pub async fn run(args: Args) -> Result<()> {
    match (&args.out, &args.endpoint) {
        (Some(out), _) => write(&args, out),
        (None, Some(endpoint)) => send_to(&args, endpoint).await,
        (None, None) => bail!("pass --out or --endpoint"),
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
            "{} POSTs with {} events ({} distinct, {} sent again, {} malformed, {} never sent) in {} sessions ({} completed) of {} profiles",
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
        bail!("{} of {} POSTs failed permanently", report.failed_posts.len(), report.posts);
    }
    Ok(())
}

/// A bar that counts POSTs on a terminal. Hidden if the output is not a terminal.
///
/// # Errors
/// Never in practice: the template is fixed.
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
    println!("at once   {} POSTs accepted at the first attempt", report.first_try);
    println!("retries   {}", report.retries);
    println!("failed    {}", report.failed_posts.len());
    for failure in &report.failures {
        println!("          {failure}");
    }
}

fn now() -> Result<i64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
    Ok(now.as_millis().try_into()?)
}
