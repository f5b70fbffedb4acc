//! The fault suite: what the promises are worth when things break. Every scenario runs the real template and the real functions on three
//! real Apache Kafka brokers (three copies, two in sync) with a standby on Kinesis, breaks something while simulated devices send at a
//! steady rate, and then holds everything against what the devices were told: the books, the logs record by record, the
//! dead-letter queue, and every member's view, which the simulator computes apart from the code under test.
//!
//! It is a program of its own rather than a set of tests, since its result is a table. It runs for some 14 minutes on two
//! cores, so it must be asked for: `PLAYHEAD_TEST_FAULTS=1 cargo test --test faults [-- SCENARIO … --seed N --rate N]`.
//! The table is printed, and written to `target/playhead/faults/` as Markdown and JSON. The exit status is 0 only if every
//! scenario kept every promise.

mod logs;
mod play;
mod scenario;
mod settle;
mod stage;
mod table;

use std::env;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use local::ApacheKafka;
use tokio::runtime::Runtime;

use self::scenario::Scenario;
use self::table::{Row, Table};

const SWITCH: &str = "PLAYHEAD_TEST_FAULTS";
const BROKERS: u16 = 3;
/// POSTs that begin a second, unless told otherwise: what two cores carry with everything on them, and the faults as well.
const RATE: f64 = 50.0;
/// A scenario that is not through by then has failed.
const LONGEST: Duration = Duration::from_secs(420);

/// What the command line asks for.
#[derive(Debug, Clone)]
struct Args {
    scenarios: Vec<Scenario>,
    seed: u64,
    /// POSTs a second.
    rate: f64,
}

impl Args {
    fn read(mut given: impl Iterator<Item = String>) -> Result<Self> {
        let mut args = Self { scenarios: Vec::new(), seed: 1, rate: RATE };
        while let Some(word) = given.next() {
            let mut value = || given.next().with_context(|| format!("{word} needs a value"));
            match word.as_str() {
                "--seed" => args.seed = value()?.parse().context("--seed")?,
                "--rate" => args.rate = value()?.parse().context("--rate")?,
                "--nocapture" => {} // nothing is captured
                name => args.scenarios.push(Scenario::named(name)?),
            }
        }
        ensure!(args.rate > 0.0 && args.rate.is_finite(), "--rate must be above 0");
        if args.scenarios.is_empty() {
            args.scenarios = Scenario::ALL.to_vec();
        }
        Ok(args)
    }
}

fn main() -> ExitCode {
    match env::var(SWITCH).as_deref() {
        Err(_) => {
            println!(
                "Left out: {} scenarios of faults, for some 14 minutes. {SWITCH}=1 runs them.",
                Scenario::ALL.len()
            );
            ExitCode::SUCCESS
        }
        Ok("1") => match run() {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => {
                eprintln!("the fault suite could not be run: {error:#}");
                ExitCode::FAILURE
            }
        },
        // A misspelled switch must not look like a suite that passed.
        Ok(other) => {
            eprintln!("{SWITCH} is 1 or not set, not {other:?}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the scenarios, and says whether all held.
fn run() -> Result<bool> {
    let args = Args::read(env::args().skip(1))?;
    Runtime::new()?.block_on(async {
        let began = Instant::now();
        let mut cluster = ApacheKafka::start("faults-kafka", BROKERS).await?;
        let mut table = Table::new(&args);
        for scenario in &args.scenarios {
            eprintln!("{:>5} s  {}: {}", began.elapsed().as_secs(), scenario.name(), scenario.what());
            let row = match tokio::time::timeout(LONGEST, play::play(*scenario, &mut cluster, &args)).await {
                Ok(Ok(row)) => row,
                Ok(Err(error)) => Row::broken(*scenario, format!("{error:#}")),
                Err(_) => Row::broken(*scenario, format!("not through within {} s", LONGEST.as_secs())),
            };
            for wrong in &row.wrong {
                eprintln!("         WRONG: {wrong}");
            }
            table.rows.push(row);
        }
        cluster.stop().await?;
        table.seconds = began.elapsed().as_secs();
        table.write()?;
        println!("\n{}", table.markdown());
        println!("Written to {}.", table::folder()?.display());
        let failed = table.rows.iter().filter(|row| !row.wrong.is_empty()).count();
        println!("\n{} passed, {failed} failed", table.rows.len() - failed);
        if table.rows.is_empty() {
            bail!("no scenario was run");
        }
        Ok(failed == 0)
    })
}
