//! `playhead bench`: what an event costs. Whole functions first: the release binaries, driven
//! through a Runtime API on loopback as Lambda drives them, against a real store and a real broker.
//!
//! Compare its figures only with figures of the same machine: before and after a change, or with
//! the references that it measures in the same run. It says nothing of AWS's own latencies.
//!
//! | module | what |
//! |---|---|
//! | `process`, `ingest`, `start`, `scale` | the measurements of whole functions |
//! | `inside`, `forwarding`, `append` | those of the library code, in this process |
//! | `runtime_api`, `function` | Lambda's side: invocations, the process |
//! | `proxy`, `aws` | AWS's side: the store's requests counted, and the rest answered |
//! | `viewing` | the members whose events they are |
//! | `measure`, `statistics`, `report` | from runs to figures, tables and targets |

mod append;
mod aws;
mod forwarding;
mod function;
mod ingest;
mod inside;
mod measure;
mod process;
mod proxy;
mod report;
mod runtime_api;
mod scale;
mod stage;
mod start;
mod statistics;
mod viewing;

use anyhow::{Context as _, Result};
use std::process::ExitCode;

/// Measure what an event costs in whole functions: CPU, requests, capacity, latency, memory
///
/// Without a command it measures the standard set: how process folds, how ingest accepts, beside
/// what one would write by hand. Each function is the release binary, in a process of its own, driven
/// through Lambda's Runtime API; the store is the emulator behind a proxy that counts. A debug build
/// hands over to a release build of itself, which takes some minutes the first time.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(after_help = "Examples:
  cargo playhead bench                                     the standard set, with its targets
  cargo playhead bench process --only 'fold 1.5' --runs 5
  cargo playhead bench ingest --no-references --json before.json
  cargo playhead bench ingest --no-references --baseline before.json")]
pub struct Args {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    options: stage::Options,
    /// Measure this build even if it is a debug build
    #[arg(long, hide = true)]
    here: bool,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Measure batches in process, beside a consumer in plain Rust
    Process(stage::Options),
    /// Measure POSTs in ingest, beside an endpoint in Python
    Ingest(stage::Options),
    /// Measure how soon each function starts, its size, and its greatest memory
    Start(stage::Options),
    Scale(scale::Args),
    Inside(inside::Args),
    Append(append::Args),
    /// Be the consumer that process is compared with
    #[command(hide = true)]
    PlainProcess,
}

/// Runs `playhead bench`.
///
/// # Errors
/// If the release build, the emulator or the broker is unavailable, or a function fails.
pub async fn run(args: Args) -> Result<ExitCode> {
    if cfg!(debug_assertions) && !args.here {
        return in_release().await;
    }
    match args.what {
        None => {
            let mut stage = stage::Stage::set(args.options).await?;
            process::run(&mut stage, false).await?;
            ingest::run(&mut stage, false).await?;
            start::run(&mut stage).await?;
            stage.end()?;
        }
        Some(What::Process(options)) => {
            let mut stage = stage::Stage::set(options).await?;
            process::run(&mut stage, true).await?;
            stage.end()?;
        }
        Some(What::Ingest(options)) => {
            let mut stage = stage::Stage::set(options).await?;
            ingest::run(&mut stage, true).await?;
            stage.end()?;
        }
        Some(What::Start(options)) => {
            let mut stage = stage::Stage::set(options).await?;
            start::run(&mut stage).await?;
            stage.end()?;
        }
        Some(What::Scale(args)) => scale::run(args).await?,
        Some(What::Inside(args)) => return inside::run(args).await,
        Some(What::Append(args)) => return append::run(args).await,
        Some(What::PlainProcess) => return process::plain::run().await,
    }
    Ok(ExitCode::SUCCESS)
}

/// Hands over to a release build of this program.
async fn in_release() -> Result<ExitCode> {
    eprintln!("This is a debug build: building in release mode, which takes some minutes the first time ...");
    let mut cargo = tokio::process::Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(operate::workspace_root()?);
    cargo.args(["run", "--release", "--bin", "playhead", "--"]).args(std::env::args_os().skip(1));
    let status = cargo.status().await.context("starting cargo")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
