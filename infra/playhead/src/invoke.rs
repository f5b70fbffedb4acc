//! `playhead invoke`: invokes one function of the running local cloud with an event, as a trigger
//! would.

use anyhow::{Context as _, Result, bail};
use aws_sdk_lambda::primitives::Blob;
use operate::run::running;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

/// Invoke a function of the running local cloud with an event, and print its answer
///
/// Pass the whole event, as the trigger would send it. `encode` makes such events. The exit status
/// is 1 if the function answered with an error.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo playhead simulate --sessions 10 --out trace.jsonl
  cargo playhead encode --trigger msk < trace.jsonl | head -1 > batch.json
  cargo playhead invoke process --data-file batch.json
  cargo playhead invoke process --data-ascii '{\"eventSource\":\"aws:kafka\",\"records\":{}}'")]
#[command(group(clap::ArgGroup::new("data").required(true).args(["data_file", "data_ascii"])))]
pub struct Args {
    /// The function to invoke
    pub function: Function,
    /// Read the event from this file (`-` for standard input)
    #[arg(long, value_name = "FILE")]
    pub data_file: Option<PathBuf>,
    /// The event as JSON text
    #[arg(long, value_name = "JSON")]
    pub data_ascii: Option<String>,
}

/// A function of the stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Function {
    /// Serves the HTTP API: POST /v1/events and /v1/sessions
    Ingest,
    /// Serves batches from MSK, SQS and Kinesis
    Process,
    /// Serves letters and notifications from the retry queue
    Retry,
    /// Serves the HTTP API: the members' histories
    Query,
    /// Serves batches from the stream of the views table
    Publish,
    /// Serves a schedule; ignores the event
    Compare,
}

/// Runs `playhead invoke`.
///
/// # Errors
/// If no local cloud is running, the event is not JSON, or the function answered with an error.
pub async fn run(args: Args) -> Result<()> {
    let event = match (args.data_file, args.data_ascii) {
        (Some(file), _) => read(&file)?,
        (None, Some(text)) => text.into_bytes(),
        (None, None) => bail!("pass --data-file or --data-ascii"),
    };
    serde_json::from_slice::<serde::de::IgnoredAny>(&event).context("the event is not JSON")?;
    let endpoints = running()?;
    let name = match args.function {
        Function::Ingest => &endpoints.ingest_function,
        Function::Process => &endpoints.process_function,
        Function::Retry => &endpoints.retry_function,
        Function::Query => &endpoints.query_function,
        Function::Publish => endpoints.publish_function.as_ref().context("this local cloud has no change feed")?,
        Function::Compare => endpoints.compare_function.as_ref().context("this local cloud has no function compare")?,
    };
    let client = aws_sdk_lambda::Client::new(&endpoints.sdk_config());
    let answer = client.invoke().function_name(name).payload(Blob::new(event)).send().await;
    let answer = answer.with_context(|| format!("invoking {name}"))?;
    let mut out = std::io::stdout().lock();
    out.write_all(answer.payload().map_or(b"null", |payload| payload.as_ref()))?;
    out.write_all(b"\n")?;
    match answer.function_error() {
        Some(kind) => bail!("{name} answered with an error ({kind})"),
        None => Ok(()),
    }
}

fn read(file: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if file.as_os_str() == "-" {
        std::io::stdin().read_to_end(&mut bytes)?;
    } else {
        bytes = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    }
    Ok(bytes)
}
