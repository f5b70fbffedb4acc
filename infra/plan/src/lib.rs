//! `playhead plan`: what a rate of events takes on AWS, what it costs, which limit is reached first,
//! and what a surge does to those who read the log.
//!
//! | module | what |
//! |---|---|
//! | [`constants`] | prices, limits, measured and assumed figures, each with its source |
//! | `sheet` | numbers that carry their formula |
//! | [`sizing`] | from a rate to capacity, limits, latency and dollars |
//! | [`surge`] | those who read the log in a surge, by discrete events |
//! | `report`, [`picture`] | what is printed and drawn of it |
//!
//! It talks to nobody: neither AWS nor the local cloud. Nothing here was measured on AWS; what was
//! assumed says so.

pub mod constants;
pub mod picture;
pub mod quantity;
mod report;
mod sheet;
pub mod sizing;
pub mod surge;

pub use sheet::{Computed, figure};

use anyhow::Result;
use constants::Constants;
use picture::Picture;
use sizing::{Approach, Demand, LogService, Sized, size};
use std::path::PathBuf;
use surge::{Occasion, Settings};

/// Show what a rate of events takes on AWS, what it costs a month, and which limit is reached first
///
/// Beside it is the same for today's way, with one write or two per event. With --surge it simulates
/// instead what a surge does to consumers of the log under several rules for scaling them. Nothing of
/// it was measured on AWS: docs/sizing.md says what it rests on.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo playhead plan --rate 1M/s --explain
  cargo playhead plan --rate 1M/s --events-per-post 4.26 --ingest managed-instances
  cargo playhead plan --rate 300k/s --mean 100k/s --regions 3 --log kinesis-provisioned
  cargo playhead plan --surge --rate 1M/s --rebalance cooperative")]
pub struct Args {
    #[command(flatten)]
    demand: Demand,
    /// Simulate a surge, a new season and a region's evacuation, and how rules for scaling consumers cope
    #[arg(long, conflicts_with = "explain")]
    surge: bool,
    #[command(flatten, next_help_heading = "With --surge")]
    simulation: surge::Options,
    /// Print every number with its formula, its figures and the sources of its constants
    #[arg(long)]
    explain: bool,
    /// Print JSON: all numbers, with formulas and sources; of a surge its courses
    #[arg(long, conflicts_with = "explain")]
    json: bool,
    /// Take the CPU from what `cargo playhead bench --json FILE` saved
    #[arg(long, value_name = "FILE")]
    bench: Option<PathBuf>,
    /// Replace constants by those of a file in the form of infra/plan/data/aws.toml, such as the prices of
    /// another region
    #[arg(long, value_name = "FILE")]
    constants: Option<PathBuf>,
    /// Where pictures go, as SVG and PNG (default: target/plan)
    #[arg(long, value_name = "FOLDER", default_value = "target/plan", hide_default_value = true)]
    pictures: PathBuf,
}

/// Runs `playhead plan`.
///
/// # Errors
/// If a file cannot be read or written, or lacks what is needed.
pub fn run(args: &Args) -> Result<()> {
    let mut constants = Constants::committed()?;
    if let Some(path) = &args.constants {
        constants.replace_from(path)?;
    }
    if let Some(path) = &args.bench {
        constants.measured_by(path)?;
    }
    if args.surge {
        return simulate(args, &constants);
    }
    let plans = Approach::ALL.iter().map(|approach| size(&args.demand, *approach, &constants));
    let plans: Vec<Sized> = plans.collect::<Result<_>>()?;
    if args.json {
        println!("{}", report::json(&args.demand, &plans)?);
        return Ok(());
    }
    let logs = LogService::ALL.map(|log| (log, Demand { log, ..args.demand.clone() }));
    let logs = logs.into_iter().map(|(log, demand)| Ok((log, size(&demand, Approach::Playhead, &constants)?)));
    let logs: Vec<(LogService, Sized)> = logs.collect::<Result<_>>()?;
    print!("{}", report::text(&args.demand, &plans, &logs, args.explain));
    let [svg, png] = Picture::Dollars(&plans).draw(&args.pictures)?;
    println!("\nPictures: {}, {}", svg.display(), png.display());
    Ok(())
}

fn simulate(args: &Args, constants: &Constants) -> Result<()> {
    let settings = Settings::of(&args.demand, &args.simulation, constants)?;
    let runs = Occasion::ALL.map(|occasion| (occasion, surge::simulate(occasion, &settings)));
    if args.json {
        println!("{}", report::surge_json(&settings, &runs)?);
    } else {
        print!("{}", report::surge_text(&settings, &runs));
    }
    for (occasion, runs) in &runs {
        let [svg, png] = Picture::Surge(*occasion, &settings, runs).draw(&args.pictures)?;
        eprintln!("Pictures: {}, {}", svg.display(), png.display());
    }
    Ok(())
}
