//! `playhead soak`: runs for a long time while one thing after the other breaks, and proves that
//! nothing was lost. On this machine with real processes (`machine`), or on a virtual clock (`nights`).

mod faults;
mod machine;
mod memory;
mod nights;
mod report;
mod viewers;

use anyhow::Result;
use std::process::ExitCode;

/// Run for a long time while things break, and prove that nothing was lost and memory stays flat
///
/// Starts a local cloud, looks for the highest rate that this machine takes, and lets simulated
/// viewers play while one part after the other fails. Then it checks the books, every member's
/// history and the change feed. Exit status 0 only if every promise was kept.
///
/// With --simulated: nights of outages in seconds, on a virtual clock. The functions' real code
/// runs on models of the logs, the queues, the bucket and the table, which fail by the calendar of
/// a seed: throttled, hanging or away for minutes to days. It ends with status 1 as soon as a
/// promise is broken, and prints the seed, which replays exactly.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// On a virtual clock, with everything outside our code simulated
    #[arg(long)]
    simulated: bool,
    /// The seed of the viewers and of the order of faults; with --simulated, of the first night
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Print the result as one JSON object, for programs
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    machine: machine::MachineArgs,
    #[command(flatten)]
    nights: nights::NightsArgs,
}

/// Runs `playhead soak`.
///
/// # Errors
/// If it cannot run, or a night panics. A broken promise is not an error; it gives exit status 1.
pub async fn run(args: Args) -> Result<ExitCode> {
    let Args { simulated, seed, json, machine, nights } = args;
    if simulated { nights::run(nights, seed, json).await } else { machine::run(&machine, seed, json).await }
}
