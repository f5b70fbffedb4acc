//! The commands: arguments, what is said at the end, exit status.

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

/// Look at dead letters, send them through the pipeline again, or throw them away
///
/// A dead letter is a record that could not be applied, with its original bytes, the reason, and its history. Of the local cloud, or
/// with --stack of a stack on AWS. While a command looks at letters they are hidden from other commands (for 15 minutes at most).
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
        /// Letters that are listed; all are counted
        #[arg(long, value_name = "N", default_value_t = 20)]
        limit: usize,
        /// As one JSON object, for a program
        #[arg(long)]
        json: bool,
    },
    /// Show everything about one letter: its history, and its record decoded
    Show {
        /// Its id as `list` gives it, or the beginning of it
        id: String,
        /// As one JSON object, for a program
        #[arg(long)]
        json: bool,
    },
    /// Send letters to the queue retry, to be applied again
    ///
    /// Each keeps its history, and is deleted here only once it is there. It may be stopped and started again at any time: what was
    /// moved is moved. Exit status 1 if a chosen letter was not moved.
    Redrive {
        #[command(flatten)]
        filter: Filter,
        /// Letters that are moved, at most
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
        /// Letters a second
        #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
        rate: u32,
        /// Say what would be moved, and move nothing
        #[arg(long)]
        dry_run: bool,
        /// Print the counts as one JSON object, for a program
        #[arg(long)]
        json: bool,
    },
    /// Delete letters for good
    Discard {
        #[command(flatten)]
        filter: Filter,
        /// Letters that are deleted, at most
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
        /// First append each letter to this file, as a JSON object a line
        #[arg(long, value_name = "FILE")]
        save: Option<PathBuf>,
        /// Say what would be deleted, and delete nothing
        #[arg(long)]
        dry_run: bool,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        /// Print the counts as one JSON object, for a program
        #[arg(long)]
        json: bool,
    },
}

/// Runs `playhead dlq`.
///
/// # Errors
/// If the queue cannot be worked on. Letters that could not be moved or deleted are no error but exit status 1.
pub async fn run(args: Args) -> Result<ExitCode> {
    let stack = args.which.find().await?;
    run_on(&stack, args, &mut std::io::stdout()).await
}

/// Runs `playhead dlq` on a stack that was found, and writes there what it prints.
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
            let_go(&mut queue).await;
            let (list, end) = listed?;
            let listed = if json { serde_json::to_string(&list)? + "\n" } else { list.text() };
            out.write_all(listed.as_bytes())?;
            tell(&end);
            status(&end, list.complete)
        }
        DlqCommand::Show { id, json } => {
            let found = show::find(&mut queue, &id).await;
            let_go(&mut queue).await;
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

/// Lets go of all letters, and says what was done.
async fn finish(
    queue: &mut DeadLetterQueue,
    done: &Done,
    end: Result<Look>,
    verb: &str,
    json: bool,
    out: &mut impl Write,
) -> Result<ExitCode> {
    let_go(queue).await;
    let said = if json { serde_json::to_string(done)? + "\n" } else { summary(done, verb) };
    out.write_all(said.as_bytes())?;
    let end = end?;
    tell(&end);
    Ok(status(&end, matches!(end, Look::End) && done.is_complete()))
}

async fn let_go(queue: &mut DeadLetterQueue) {
    let hidden = queue.release().await;
    if hidden > 0 {
        eprintln!(
            "{hidden} letters stay hidden for up to {} minutes: SQS did not let go of them.",
            HOLD.as_secs() / 60
        );
    }
}

fn summary(done: &Done, verb: &str) -> String {
    let mut lines = vec![format!("{verb} {} letters.", done.total())];
    lines.extend(done.letters.iter().map(|(reason, n)| format!("  {reason:<24} {n:>8}")));
    let also = [
        (done.left_out, "did not match and were left alone"),
        (done.dead_again, "died again after this run had redriven them, and were left alone"),
        (
            done.not_redrivable,
            "are nothing that retry could apply, and stay: see `dlq show`, then `dlq discard --save`",
        ),
        (done.not_sent, "could not be sent, and stay"),
        (done.not_deleted, "could not be deleted, and show up again, which is harmless"),
    ];
    lines.extend(also.into_iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} letters {what}.")));
    lines.extend(done.problems.iter().map(|problem| format!("  {problem}")));
    lines.join("\n") + "\n"
}

/// Says why the queue was not gone through to its end.
fn tell(end: &Look) {
    match end {
        Look::Full => eprintln!(
            "Stopped: {MOST_HELD} letters are hidden from others by now, and SQS allows 120,000 a queue. Deal with a part of them first."
        ),
        Look::Interrupted => eprintln!("Interrupted: run it again to go on."),
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

/// Asks whether to go on.
fn confirm(stack: &str) -> Result<()> {
    if !std::io::stdin().is_terminal() {
        bail!("letters are deleted for good: say --yes, and think of --save FILE");
    }
    eprint!("Delete every letter of {stack} that matches, for good? Type yes: ");
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
