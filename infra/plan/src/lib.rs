//! `playhead plan`: what a rate of events takes on AWS, what it costs, which limit is reached first,
//! and what a surge does to those who read the log.
//!
//! | module | what |
//! |---|---|
//! | [`constants`] | prices, limits, measured and assumed figures, each with its source |
//! | `sheet` | numbers that carry their formula |
//! | [`sizing`] | from a rate to capacity, limits, latency and dollars |
//! | `report` | what is printed of it |
//!
//! It talks to nobody: neither AWS nor the local cloud. Nothing here was measured on AWS; what was
//! assumed says so.

pub mod constants;
pub mod quantity;
mod report;
mod sheet;
pub mod sizing;

pub use sheet::{Computed, figure};

use anyhow::Result;
use constants::Constants;
use sizing::{Approach, Demand, LogService, Sized, size};
use std::path::PathBuf;

/// Show what a rate of events takes on AWS, what it costs a month, and which limit is reached first
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    demand: Demand,
    /// Print every number with its formula, its figures and the sources of its constants
    #[arg(long)]
    explain: bool,
    /// Print JSON: all numbers of all approaches, with formulas and sources
    #[arg(long, conflicts_with = "explain")]
    json: bool,
    /// Take the CPU from what `cargo playhead bench --json FILE` saved
    #[arg(long, value_name = "FILE")]
    bench: Option<PathBuf>,
    /// Replace constants by those of a file in the form of infra/plan/data/aws.toml, such as the prices of
    /// another region
    #[arg(long, value_name = "FILE")]
    constants: Option<PathBuf>,
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
    Ok(())
}
