//! The commands: arguments, summary, exit status.

use super::discard::{Discard, Saved};
use super::interrupt::{INTERRUPTED, Interrupt};
use super::list::List;
use super::queue::{DeadLetterQueue, HOLD, Look, MOST_HELD};
use super::redrive::{Done, Redrive};
use super::select::Filter;
use super::show;
use crate::stack::{Stack, Which};
use anyhow::{Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use queue::Queue;
use std::io::{BufRead as _, IsTerminal as _, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

/// Look at dead letters, redrive them, or delete them
///
/// A dead letter is a record that could not be applied, with its original bytes, the reason, and
/// its history. For the local cloud, or with --stack for a stack on AWS. While a command works on
/// letters, other commands do not see them (for at most 15 minutes).
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo playhead dlq list
  cargo playhead dlq show 1c0e8a5f
  cargo playhead dlq redrive --reason corrupt_view --dry-run
  cargo playhead dlq redrive --reason corrupt_view --rate 20
  cargo playhead dlq discard --older-than 7d --save dead.jsonl
  cargo playhead dlq list --stack playhead-prod --region us-east-1")]
pub struct Args {
    #[command(flatten)]
    which: Which,
    #[command(subcommand)]
    command: DlqCommand,
}

#[derive(Debug, clap::Subcommand)]
enum DlqCommand {
    /// Count the letters by reason, and list the newest
    List {
        #[command(flatten)]
        filter: Filter,
        /// How many letters to list (all are counted)
        #[arg(long, value_name = "N", default_value_t = 20)]
        limit: usize,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Show one letter: its history, and its record decoded
    Show {
        /// Its id as printed by `list`, or the beginning of it
        id: String,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Send letters to the queue retry, which applies them again
    ///
    /// A letter keeps its history. It is deleted here only after the queue retry has it. You may
    /// stop and run this again at any time. Exit status 1 if a selected letter was not moved.
    Redrive {
        #[command(flatten)]
        filter: Filter,
        /// Move at most this many letters
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
        /// Letters per second
        #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
        rate: u32,
        /// Show what would be moved, and move nothing
        #[arg(long)]
        dry_run: bool,
        /// Print the counts as one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Delete letters permanently
    Discard {
        #[command(flatten)]
        filter: Filter,
        /// Delete at most this many letters
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
        /// First append each letter to this file, one JSON object per line
        #[arg(long, value_name = "FILE")]
        save: Option<PathBuf>,
        /// Show what would be deleted, and delete nothing
        #[arg(long)]
        dry_run: bool,
        /// Do not ask for confirmation
        #[arg(long)]
        yes: bool,
        /// Print the counts as one JSON object
        #[arg(long)]
        json: bool,
    },
}

/// Runs `playhead dlq`.
///
/// # Errors
/// If a call for the queue fails. Letters that could not be moved or deleted are not an error, but
/// exit status 1.
pub async fn run(args: Args) -> Result<ExitCode> {
    let stack = args.which.find().await?;
    run_on(&stack, args, &mut std::io::stdout()).await
}

/// Runs `playhead dlq` on a known stack, with its output written to `out`.
///
/// # Errors
/// As [`run`].
pub async fn run_on(stack: &Stack, args: Args, out: &mut impl Write) -> Result<ExitCode> {
    let client = aws_sdk_sqs::Client::new(&stack.sdk);
    if let DlqCommand::Discard { dry_run: false, yes: false, .. } = args.command {
        confirm(&stack.name)?;
    }
    let mut queue = DeadLetterQueue::new(client.clone(), stack.output("DeadLetterQueueUrl")?, Interrupt::listen()?);
    let began = now()?;
    let code = match args.command {
        DlqCommand::List { filter, limit, json } => {
            let listed = List::read(&mut queue, &filter, limit, began).await;
            release(&mut queue).await;
            let (list, end) = listed?;
            let listed = if json { serde_json::to_string(&list)? + "\n" } else { list.text() };
            out.write_all(listed.as_bytes())?;
            tell(&end);
            status(&end, list.complete)
        }
        DlqCommand::Show { id, json } => {
            let found = show::find(&mut queue, &id).await;
            release(&mut queue).await;
            let found = found?;
            let shown = if json { show::as_json(&found).to_string() + "\n" } else { show::text(&found, began) };
            out.write_all(shown.as_bytes())?;
            ExitCode::SUCCESS
        }
        DlqCommand::Redrive { filter, limit, rate, dry_run, json } => {
            let retry = Queue::new(client, stack.output("RetryQueueUrl")?);
            let bar = progress_bar(&queue, limit).await?;
            let mut done = Done::default();
            let redrive = Redrive { filter: &filter, rate, limit, dry_run, began };
            let clock = || now().unwrap_or(began);
            let end = redrive.run(&mut queue, &retry, clock, &bar, &mut done).await;
            bar.finish_and_clear();
            finish(&mut queue, &done, end, if dry_run { "Would redrive" } else { "Redrove" }, json, out).await?
        }
        DlqCommand::Discard { filter, limit, save, dry_run, json, .. } => {
            let save = save.map(|path| Saved::open(&path)).transpose()?;
            let bar = progress_bar(&queue, limit).await?;
            let mut done = Done::default();
            let end = Discard { filter: &filter, limit, dry_run, save, began }.run(&mut queue, &bar, &mut done).await;
            bar.finish_and_clear();
            finish(&mut queue, &done, end, if dry_run { "Would discard" } else { "Discarded" }, json, out).await?
        }
    };
    Ok(code)
}

/// Releases all letters, and prints what was done.
async fn finish(
    queue: &mut DeadLetterQueue,
    done: &Done,
    end: Result<Look>,
    verb: &str,
    json: bool,
    out: &mut impl Write,
) -> Result<ExitCode> {
    release(queue).await;
    let said = if json { serde_json::to_string(done)? + "\n" } else { summary(done, verb) };
    out.write_all(said.as_bytes())?;
    let end = end?;
    tell(&end);
    Ok(status(&end, matches!(end, Look::End) && done.is_complete()))
}

async fn release(queue: &mut DeadLetterQueue) {
    let hidden = queue.release().await;
    if hidden > 0 {
        eprintln!("{hidden} letters stay hidden for up to {} minutes: SQS did not release them.", HOLD.as_secs() / 60);
    }
}

fn summary(done: &Done, verb: &str) -> String {
    let mut lines = vec![format!("{verb} {} letters.", done.total())];
    lines.extend(done.letters.iter().map(|(reason, n)| format!("  {reason:<24} {n:>8}")));
    let also = [
        (done.left_out, "did not match, and stay"),
        (done.dead_again, "died again after this run redrove them, and stay"),
        (
            done.not_redrivable,
            "are not something that retry can apply, and stay: see `dlq show`, then `dlq discard --save`",
        ),
        (done.not_sent, "could not be sent, and stay"),
        (done.not_deleted, "could not be deleted, and will show up again, which is harmless"),
    ];
    lines.extend(also.into_iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} letters {what}.")));
    if done.total() == 0 && done.left_out > 0 {
        lines.push("`cargo playhead dlq list` shows which reasons there are.".to_owned());
    }
    lines.extend(done.problems.iter().map(|problem| format!("  {problem}")));
    lines.join("\n") + "\n"
}

/// Prints why the command did not reach the end of the queue.
fn tell(end: &Look) {
    match end {
        Look::Full => eprintln!(
            "Stopped: {MOST_HELD} letters are hidden from other readers now, and SQS allows 120,000 per queue. Work on some of them first."
        ),
        Look::Interrupted => eprintln!("Interrupted: run it again to continue."),
        Look::End | Look::Found(_) => {}
    }
}

fn status(end: &Look, complete: bool) -> ExitCode {
    match end {
        Look::Interrupted => ExitCode::from(INTERRUPTED),
        _ if complete => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// Asks for confirmation.
fn confirm(stack: &str) -> Result<()> {
    if !std::io::stdin().is_terminal() {
        bail!("this deletes letters permanently: pass --yes, and consider --save FILE");
    }
    eprint!("Permanently delete every matching letter of {stack}? Type yes: ");
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    if answer.trim() == "yes" { Ok(()) } else { bail!("nothing was deleted") }
}

async fn progress_bar(queue: &DeadLetterQueue, limit: Option<usize>) -> Result<ProgressBar> {
    if !std::io::stderr().is_terminal() {
        return Ok(ProgressBar::hidden());
    }
    let most = limit.map_or(u64::MAX, |limit| limit as u64);
    let style = ProgressStyle::with_template("{bar:40} {pos} of about {len} letters, {per_sec}, {eta} left")?;
    Ok(ProgressBar::new(queue.size().await?.min(most)).with_style(style))
}

/// The clock, Unix milliseconds.
fn now() -> Result<u64> {
    Ok(u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?)
}
