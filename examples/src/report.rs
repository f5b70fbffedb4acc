//! Runs a report on the change feed from the command line.

use anyhow::Result;
use aws_config::BehaviorVersion;
use clap::{CommandFactory as _, FromArgMatches as _, Parser};

use crate::{Change, Feed};

/// What a consumer makes of the feed.
pub trait Report: Default {
    /// What it says, for its help.
    const ABOUT: &str;

    /// Takes the next change.
    fn take(&mut self, change: &Change);

    /// The first lines of what it says now.
    fn text(&self, lines: usize) -> String;
}

/// Credentials, region and endpoint come from the environment.
#[derive(Parser)]
struct Arguments {
    /// The feed's Kinesis stream: the stack's output ViewChangesStreamName
    #[arg(long)]
    stream: String,
    /// How many lines to print
    #[arg(long, default_value_t = 10)]
    lines: usize,
    /// Do not end when there is nothing new: print again whenever there is
    #[arg(long)]
    follow: bool,
}

/// Prints a report.
///
/// # Errors
/// If the feed cannot be read.
#[tokio::main]
pub async fn run<R: Report>() -> Result<()> {
    let Arguments { stream, lines, follow } =
        Arguments::from_arg_matches(&Arguments::command().about(R::ABOUT).get_matches())?;
    let sdk = aws_config::load_defaults(BehaviorVersion::latest()).await;
    let mut feed = Feed::open(&sdk, &stream).await?;
    let mut report = R::default();
    loop {
        let changes = feed.read_to_end().await?;
        changes.iter().for_each(|change| report.take(change));
        if !changes.is_empty() || !follow {
            print!("{}", report.text(lines));
        }
        if !follow {
            return Ok(());
        }
    }
}
