//! The commands: their arguments and output.

use super::read::{Found, run_now, since};
use super::sites::Sites;
use crate::stack::Which;
use anyhow::{Result, bail};
use lambda::clock::now_ms;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

/// Show how shadow views compare with the live system, or compare now
///
/// For the local cloud, or with --stack for a stack on AWS and the stacks of the same name in its
/// other regions. Exit status 1 if a region could not be read. The figures then do not include it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo playhead compare report
  cargo playhead compare report --since 1d --json
  cargo playhead compare run
  cargo playhead compare report --stack playhead-prod --region us-east-1")]
pub struct Args {
    #[command(flatten)]
    which: Which,
    #[command(subcommand)]
    command: CompareCommand,
}

#[derive(Debug, clap::Subcommand)]
enum CompareCommand {
    /// Add up the reports: match rate, differences by field, missing sessions, examples
    Report {
        /// Reports since this long ago, such as 10m, 6h or 2d
        #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = humantime::parse_duration)]
        since: Duration,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Run the function compare now, rather than at its next scheduled time, and print the result
    ///
    /// It continues where the last run stopped, and compares only sessions that have settled.
    Run {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
}

/// Runs `playhead compare`.
///
/// # Errors
/// If the stack is not found, or `compare` is not deployed in any region.
pub async fn run(args: Args) -> Result<ExitCode> {
    let sites = Sites::find(&args.which.find_all().await?).await;
    run_on(&sites, args, &mut std::io::stdout()).await
}

/// Runs `playhead compare` on known regions, with its output written to `out`.
///
/// # Errors
/// As [`run`].
pub async fn run_on(sites: &Sites, args: Args, out: &mut impl Write) -> Result<ExitCode> {
    let (found, json) = match args.command {
        CompareCommand::Report { since: ago, json } => {
            let ago = u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
            (since(sites, now_ms().saturating_sub(ago)).await, json)
        }
        CompareCommand::Run { json } => (run_now(sites).await, json),
    };
    print(&found, json, out)
}

fn print(found: &Found, json: bool, out: &mut impl Write) -> Result<ExitCode> {
    if found.reports.is_empty() && found.missed.is_empty() {
        bail!("nothing is compared: {}", found.text().trim_end());
    }
    let text = if json { serde_json::to_string(found)? + "\n" } else { found.text() };
    out.write_all(text.as_bytes())?;
    match found.warning() {
        None => Ok(ExitCode::SUCCESS),
        Some(warning) => {
            eprint!("{warning}");
            Ok(ExitCode::FAILURE)
        }
    }
}
