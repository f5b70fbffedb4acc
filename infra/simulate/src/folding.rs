//! How many events share a write, and how long they wait for it: members and players, the log, and
//! Lambda's batches, in virtual time.
//!
//! It shows what the template's batching window, batch size and parallelisation and the key of the
//! log give, and what they cost in delay. `habit` plays the members, `pickup` makes the
//! batches, `study` compares settings. Nothing here runs the pipeline's code: `playhead bench`
//! measures that. A batch writes each of its sessions once: the test
//! `each_batch_writes_each_session_at_most_once` holds `process` to that.

mod habit;
mod pickup;
mod study;
#[cfg(test)]
mod tests;

use anyhow::Result;

/// Show how many events share a write, and how long they wait, by batching window, player, rate and
/// key
///
/// Simulates members, their players, the log and Lambda's batches in virtual time, and prints
/// tables in Markdown. The same seed prints the same tables. docs/performance.md says what they
/// mean. Takes some seconds in a release build and a minute without.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Seed of everything that happens by chance
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
}

/// Runs `playhead folding`.
///
/// # Errors
/// Never in practice: text is written into strings.
pub fn run(args: &Args) -> Result<()> {
    for table in study::TABLES {
        println!("{}", table(args.seed)?);
    }
    Ok(())
}
