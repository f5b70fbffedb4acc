//! How many minutes of each title were watched, from the change feed.

use anyhow::Result;
use clap::Parser;
use examples::Feed;
use examples::minutes_watched::MinutesWatched;

/// How many minutes of each title were watched, from the change feed. Credentials, region and endpoint come from the
/// environment.
#[derive(Parser)]
struct Arguments {
    /// The feed's Kinesis stream: the stack's output ViewChangesStreamName.
    #[arg(long)]
    stream: String,
    /// How many lines to print.
    #[arg(long, default_value_t = 10)]
    lines: usize,
    /// Do not end when there is nothing new: print again whenever there is.
    #[arg(long)]
    follow: bool,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let sdk = aws_config::load_defaults(aws_config::BehaviorVersion::latest()).await;
    let mut feed = Feed::open(&sdk, &arguments.stream).await?;
    let mut report = MinutesWatched::default();
    loop {
        let changes = feed.read_to_end().await?;
        changes.iter().for_each(|change| report.take(change));
        if !changes.is_empty() || !arguments.follow {
            print!("{}", report.text(arguments.lines));
        }
        if !arguments.follow {
            return Ok(());
        }
    }
}
