//! The harness of the fault suites: decides whether a suite runs, plays the chosen scenarios one
//! after the other, and prints a table of the results.
//!
//! A suite is a program rather than a set of tests because its result is a table. It takes minutes,
//! so it runs only on request. Each suite decides what breaks and what must hold nevertheless; none
//! of that is here.

mod args;
mod converge;
mod promises;
mod table;

use std::env;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::runtime::Runtime;

pub use self::args::{Load, Scenario, Slice};
pub use self::converge::{Converged, Converging, converge};
pub use self::promises::Promises;
pub use self::table::{Figures, Row, folder};

use self::args::Args;
use self::table::Table;

/// What the harness must know about a suite.
#[derive(Debug, Clone, Copy)]
pub struct About {
    /// Its folder below `target/playhead`, and the name of its table there.
    pub name: &'static str,
    /// What its scenarios are about, for messages: "faults".
    pub of: &'static str,
    /// The environment variable that must be `1` for it to run.
    pub switch: &'static str,
    /// How long all of it takes on two cores.
    pub minutes: u32,
    /// POSTs that begin per second, unless the command line says otherwise.
    pub rate: f64,
}

/// A running fault suite: what all of its scenarios share.
pub trait Suite: Sized {
    /// What it plays.
    type Scenario: Scenario;
    /// What it measures.
    type Figures: Figures;
    /// What the harness must know.
    const ABOUT: About;

    /// A scenario that is not over by then has failed.
    fn longest(scenario: Self::Scenario) -> Duration;

    /// Starts what all scenarios share.
    fn start() -> impl Future<Output = Result<Self>>;

    /// Plays one scenario. Fails only if it could not be played: broken promises are in the row.
    fn play(&mut self, scenario: Self::Scenario, load: Load) -> impl Future<Output = Result<Row<Self::Figures>>>;

    /// Repairs whatever a scenario left broken, so it does not make the next one fail.
    fn repair(&mut self) -> impl Future<Output = Result<()>>;

    /// Stops what all scenarios share.
    fn stop(self) -> impl Future<Output = Result<()>>;
}

/// The `main` of a suite. It succeeds if every scenario kept every promise, or if the switch is
/// off.
#[must_use]
pub fn main<S: Suite>() -> ExitCode {
    let About { of, switch, minutes, .. } = S::ABOUT;
    match env::var(switch).as_deref() {
        Err(_) => {
            let scenarios = S::Scenario::ALL.len();
            println!("Skipped: {scenarios} scenarios of {of}, about {minutes} minutes. {switch}=1 runs them.");
            ExitCode::SUCCESS
        }
        Ok("1") => match run::<S>() {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => {
                eprintln!("the suite of {of} could not run: {error:#}");
                ExitCode::FAILURE
            }
        },
        // A misspelled switch must not look like a suite that passed.
        Ok(other) => {
            eprintln!("{switch} must be 1 or unset, not {other:?}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the scenarios that the command line asks for. Returns whether all of them kept their
/// promises.
fn run<S: Suite>() -> Result<bool> {
    let args = Args::<S::Scenario>::read(env::args().skip(1), S::ABOUT.rate)?;
    println!("{}", args.selection());
    Runtime::new()?.block_on(async {
        let began = Instant::now();
        let mut suite = S::start().await?;
        let mut table = Table::new(args.load);
        for scenario in &args.scenarios {
            eprintln!("{:>5} s  {}: {}", began.elapsed().as_secs(), scenario.name(), scenario.what());
            let row = play(&mut suite, *scenario, args.load).await;
            for wrong in &row.wrong {
                eprintln!("         WRONG: {wrong}");
            }
            table.rows.push(row);
            suite.repair().await?;
        }
        suite.stop().await?;
        table.seconds = began.elapsed().as_secs();
        println!("\n{}", table.markdown());
        println!("Written to {}.", table.write(S::ABOUT.name)?.display());
        let failed = table.rows.iter().filter(|row| !row.wrong.is_empty()).count();
        println!("\n{} passed, {failed} failed", table.rows.len() - failed);
        Ok(failed == 0)
    })
}

async fn play<S: Suite>(suite: &mut S, scenario: S::Scenario, load: Load) -> Row<S::Figures> {
    let longest = S::longest(scenario);
    match tokio::time::timeout(longest, suite.play(scenario, load)).await {
        Ok(Ok(row)) => row,
        Ok(Err(error)) => Row::broken(scenario, format!("{error:#}")),
        Err(_) => Row::broken(scenario, format!("not over within {} s", longest.as_secs())),
    }
}
