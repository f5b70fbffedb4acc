//! The commands: their arguments and what they do.

use super::change::{Change, List, Word};
use super::profiles::Profiles;
use super::rule::Rule;
use super::set::set;
use super::show::Shown;
use crate::comparison::Sites;
use crate::routing::{Copies, Edit, read};
use crate::stack::{Deployment, Which};
use anyhow::Result;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Show and change which profiles are on the legacy system, shadowed, or migrated
///
/// Each profile has one live path: legacy (only the legacy system), shadow (the same, and a marked
/// copy goes to the log) or async (only the log). Shares count from bucket 0, so raising one moves
/// nobody back. For the local cloud, or with --stack for a stack on AWS and the stacks of the same
/// name in its other regions. --region may be any region that answers.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo playhead rollout show --profile p00000054
  cargo playhead rollout set shadow=100%
  cargo playhead rollout set async=1% --dry-run
  cargo playhead rollout set async=25%
  cargo playhead rollout set --always async=p00000054,p00000007
  cargo playhead rollout set async=25% --profiles ids.txt --dry-run --stack playhead-prod --region us-east-1")]
pub struct Args {
    #[command(flatten)]
    which: Which,
    #[command(subcommand)]
    command: RolloutCommand,
}

#[derive(Debug, clap::Subcommand)]
enum RolloutCommand {
    /// Show shares, salt and lists, and the paths of profiles
    Show {
        /// Also show this profile's bucket and path (may be repeated)
        #[arg(long, value_name = "ID")]
        profile: Vec<String>,
        /// Use this region's document, if the regions differ
        #[arg(long, value_name = "REGION")]
        from: Option<String>,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Change shares, salt or lists, show who moves, and write the document to all regions
    ///
    /// Whatever you do not set stays unchanged. The share of async is raised only if the sessions
    /// compared in the last hour match, over all regions (the promotion rule). The rule does not
    /// apply to profiles in lists. A region that does not answer is skipped and named, and the exit
    /// status is 2.
    Set {
        /// Shares: async=25% migrates 25%, shadow=100% shadows or migrates everybody
        #[arg(value_name = "async=SHARE|shadow=SHARE")]
        shares: Vec<Word>,
        /// Reassign all buckets with this salt (the first salt is the stack's name)
        #[arg(long, value_name = "WORD")]
        salt: Option<String>,
        /// Replace the list of profiles that are always on a path, such as async=ID,ID (async=
        /// empties it)
        #[arg(long, value_name = "PATH=ID,ID")]
        always: Vec<List>,
        #[command(flatten)]
        rule: Rule,
        /// List which of these profiles move: a file with one id per line, - for standard input
        /// [default on the local cloud: the profiles in its tables]
        #[arg(long, value_name = "FILE")]
        profiles: Option<PathBuf>,
        /// Start from this region's document, if the regions differ. The others get the result too
        #[arg(long, value_name = "REGION")]
        from: Option<String>,
        /// Show what would change, and write nothing. Exit status 1 if it would be refused
        #[arg(long)]
        dry_run: bool,
    },
}

/// Runs `playhead rollout`.
///
/// # Errors
/// If no document can be read, the change is refused, or no region accepts it. Regions that were
/// not reached are not an error, but exit status 2.
pub async fn run(args: Args) -> Result<ExitCode> {
    let deployment = args.which.find_all().await?;
    let sites = Sites::find(&deployment).await;
    run_on(&deployment, &sites, args, &mut std::io::stdout()).await
}

/// Runs `playhead rollout` on a known deployment, with its output written to `out`.
///
/// # Errors
/// As [`run`].
pub async fn run_on(deployment: &Deployment, sites: &Sites, args: Args, out: &mut impl Write) -> Result<ExitCode> {
    match args.command {
        RolloutCommand::Show { profile, from, json } => {
            let copies = Copies::read(deployment).await;
            let (_, copy) = copies.chosen(from.as_deref())?;
            let shown = Shown::of(read(&copy.text)?.rollout, sites.may_have_legacy(), &profile);
            let text = if json { serde_json::to_string(&shown)? + "\n" } else { shown.text() };
            out.write_all(text.as_bytes())?;
            Ok(ExitCode::SUCCESS)
        }
        RolloutCommand::Set { shares, salt, always, rule, profiles, from, dry_run } => {
            let change = Change::of(&shares, salt, always)?;
            let profiles = match profiles {
                Some(file) => Profiles::of_file(&file)?,
                None if deployment.is_local => Profiles::of_tables(sites).await?,
                None => Profiles::default(),
            };
            let edit = Edit { deployment, from: from.as_deref(), dry_run };
            let done = set(edit, sites, &change, &rule, profiles).await?;
            out.write_all(done.text().as_bytes())?;
            if let Some(warning) = done.warning() {
                eprint!("{warning}");
            }
            Ok(done.status())
        }
    }
}
