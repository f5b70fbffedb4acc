//! The commands: their arguments and what they do.

use super::change::{drain, restore};
use super::copies::Copies;
use super::document::{not_of, read};
use super::edit::{Edit, Edited};
use super::history;
use super::parameter::Parameter;
use super::show::Shown;
use crate::stack::{Deployment, Which};
use anyhow::{Context as _, Result};
use clap::ValueEnum;
use playback::routing::{Document, Override};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Show and change the routing document: which region folds which sessions, and which log takes the
/// events
///
/// Every region has a copy of the document in its Parameter Store, and its functions read it every
/// ten seconds. A change is written to all regions. A region that does not answer is skipped and
/// named, and the exit status is 2. So a region can be drained while it is down. For the local
/// cloud, or with --stack for a stack on AWS and the stacks of the same name in its other regions.
/// --region may be any region that answers.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo playhead routing show
  cargo playhead routing drain us-west-2 --to us-east-1 --dry-run
  cargo playhead routing drain us-west-2 --to us-east-1
  cargo playhead routing restore us-west-2
  cargo playhead routing set --log standby
  cargo playhead routing history --limit 5
  cargo playhead routing set --version 3
  cargo playhead routing show --stack playhead-prod --region us-east-1")]
pub struct Args {
    #[command(flatten)]
    which: Which,
    #[command(subcommand)]
    command: RoutingCommand,
}

#[derive(Debug, clap::Subcommand)]
enum RoutingCommand {
    /// Show each region's document, and where sessions and events go
    ///
    /// Exit status 1 if a region was not reached, if the documents differ, or if one is invalid.
    Show {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Replace the document, choose the log, or copy one region's document to all regions
    ///
    /// A document is refused if functions would not follow it, or would ignore a part of it.
    /// `--from REGION` alone copies that region's document to the other regions. Repeating this is
    /// harmless.
    #[command(after_help = "Examples:
  cargo playhead routing set --log primary            even if it fails, until `set --log auto`
  cargo playhead routing set --file routing.json --dry-run
  echo '{\"version\":1}' | cargo playhead routing set --file -
  cargo playhead routing set --version 3              an earlier version, see `history`
  cargo playhead routing set --from us-east-1         after a region is back")]
    #[command(group(clap::ArgGroup::new("what").args(["file", "log", "version"])))]
    Set {
        /// Replace the whole document with this file (- for standard input)
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// The log that takes the events (auto = the primary while it is healthy, else the standby)
        #[arg(long)]
        log: Option<Log>,
        /// Bring back this version, by its number in the region of --from, or in the stack's own
        /// region
        #[arg(long, value_name = "N")]
        version: Option<i64>,
        #[command(flatten)]
        how: How,
    },
    /// Let another region fold new events of a region's sessions
    ///
    /// Sessions that begin in the drained region get the other one as their home. Players and
    /// members notice nothing. What the drained region has folded stays there.
    Drain {
        /// The region to drain, up or down
        region: String,
        /// The region that takes over
        #[arg(long, value_name = "REGION")]
        to: String,
        #[command(flatten)]
        how: How,
    },
    /// End a drain: the region folds the events of its sessions again
    Restore {
        /// The region that was drained
        region: String,
        #[command(flatten)]
        how: How,
    },
    /// List the document's versions in one region: when, who, and what changed
    History {
        /// List the versions in this region [default: the stack's own region]
        #[arg(long = "of", value_name = "REGION")]
        of: Option<String>,
        /// How many versions to list (Parameter Store keeps 100)
        #[arg(long, value_name = "N", default_value_t = 20)]
        limit: usize,
        /// Print a JSON array
        #[arg(long)]
        json: bool,
    },
}

/// Arguments of all commands that write.
#[derive(Debug, clap::Args)]
struct How {
    /// Start from this region's document, if the regions differ. The others get the result too
    #[arg(long, value_name = "REGION")]
    from: Option<String>,
    /// Show what would change, and write nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Log {
    Auto,
    Primary,
    Standby,
}

/// Runs `playhead routing`.
///
/// # Errors
/// If no document can be read, the change is refused, or no region accepts it. Regions that were
/// not reached are not an error, but exit status 2.
pub async fn run(args: Args) -> Result<ExitCode> {
    let deployment = args.which.find_all().await?;
    run_on(&deployment, args, &mut std::io::stdout()).await
}

/// Runs `playhead routing` on a known deployment, with its output written to `out`.
///
/// # Errors
/// As [`run`].
pub async fn run_on(deployment: &Deployment, args: Args, out: &mut impl Write) -> Result<ExitCode> {
    let edited = match args.command {
        RoutingCommand::Show { json } => {
            let shown = Shown::of(deployment, &Copies::read(deployment).await);
            let text = if json { serde_json::to_string(&shown)? + "\n" } else { shown.text() };
            out.write_all(text.as_bytes())?;
            return Ok(if shown.good { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        RoutingCommand::History { of, limit, json } => {
            let kept = parameter(deployment, of.as_deref())?.history().await?;
            let entries = history::entries(kept, limit)?;
            let text = if json { serde_json::to_string(&entries)? + "\n" } else { history::text(&entries) };
            out.write_all(text.as_bytes())?;
            return Ok(ExitCode::SUCCESS);
        }
        RoutingCommand::Set { file, log, version, how } => set(deployment, &how, file.as_deref(), log, version).await?,
        RoutingCommand::Drain { region, to, how } => {
            how.edit(deployment).run(|document| drain(document, &deployment.regions, &region, &to)).await?
        }
        RoutingCommand::Restore { region, how } => {
            how.edit(deployment).run(|document| restore(document, &deployment.regions, &region)).await?
        }
    };
    out.write_all(edited.text().as_bytes())?;
    if let Some(warning) = edited.warning() {
        eprint!("{warning}");
    }
    Ok(edited.status())
}

async fn set(
    deployment: &Deployment,
    how: &How,
    file: Option<&Path>,
    log: Option<Log>,
    version: Option<i64>,
) -> Result<Edited> {
    let edit = how.edit(deployment);
    match (file, log, version) {
        (Some(file), ..) => {
            let text = match file == Path::new("-") {
                true => std::io::read_to_string(std::io::stdin()),
                false => std::fs::read_to_string(file),
            };
            edit.replace(read(&text.with_context(|| format!("reading {}", file.display()))?)?).await
        }
        (_, _, Some(version)) => {
            let copy = parameter(deployment, how.from.as_deref())?.read(Some(version)).await?;
            edit.replace(read(&copy.text).with_context(|| format!("version {version}"))?).await
        }
        (_, Some(log), _) => edit.run(|document| Ok(Document { log: log.into(), ..document.clone() })).await,
        (None, None, None) if how.from.is_some() => edit.run(|document| Ok(document.clone())).await,
        _ => {
            anyhow::bail!(
                "say what to set: --file, --log or --version, or --from REGION to copy its document to all regions"
            )
        }
    }
}

/// The document's parameter in this region, or else in the stack's own region.
fn parameter(deployment: &Deployment, region: Option<&str>) -> Result<Parameter> {
    let region = region.unwrap_or(&deployment.regions.here().name);
    let sdk = deployment.sdks.get(region);
    let sdk = sdk.with_context(|| not_of(region, deployment.sdks.keys().map(String::as_str)))?;
    Ok(Parameter::of(sdk, &deployment.routing_parameter))
}

impl How {
    fn edit<'a>(&'a self, deployment: &'a Deployment) -> Edit<'a> {
        Edit { deployment, from: self.from.as_deref(), dry_run: self.dry_run }
    }
}

impl From<Log> for Override {
    fn from(log: Log) -> Self {
        match log {
            Log::Auto => Self::Auto,
            Log::Primary => Self::Primary,
            Log::Standby => Self::Standby,
        }
    }
}
