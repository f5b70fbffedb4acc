//! The commands: arguments, and what each does with them.

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

/// Show and change which profiles are on the legacy system, on trial, and moved over
///
/// Each profile has one live path: legacy (the legacy system alone), shadow (the same, and a marked copy goes to the log) or async (the log alone). Shares
/// count from bucket 0: raising one moves nobody back. Of the local cloud, or with --stack of a stack on AWS and the stacks of the same name
/// in its other regions; --region may be any of them that answers.
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
    /// Show the shares, the salt and the lists, and the paths of profiles
    Show {
        /// Say this profile's bucket and path
        #[arg(long, value_name = "ID")]
        profile: Vec<String>,
        /// The region whose document is meant, if they differ
        #[arg(long, value_name = "REGION")]
        from: Option<String>,
        /// As one JSON object, for a program
        #[arg(long)]
        json: bool,
    },
    /// Change shares, salt or lists, say who moves, and write it to all regions
    ///
    /// What is not named stays as it is. A share of async is raised only if what was compared in the last hour matches, in all regions together:
    /// that is the promotion rule. Profiles in lists are not held against it. A region that does not answer is left behind and named, with exit status 2.
    Set {
        /// Shares: async=25% is moved over, shadow=100% is on trial or moved over
        #[arg(value_name = "async=SHARE|shadow=SHARE")]
        shares: Vec<Word>,
        /// Deal the buckets anew with this word; the first one is the stack's name
        #[arg(long, value_name = "WORD")]
        salt: Option<String>,
        /// The whole list of the profiles that are always on a path, such as async=ID,ID; async= empties it
        #[arg(long, value_name = "PATH=ID,ID")]
        always: Vec<List>,
        #[command(flatten)]
        rule: Rule,
        /// Say by name who moves of these profiles: a file with an id a line, - for standard input. Of a local cloud, those of its tables
        #[arg(long, value_name = "FILE")]
        profiles: Option<PathBuf>,
        /// The region whose document is meant, if they differ; the others get it, too
        #[arg(long, value_name = "REGION")]
        from: Option<String>,
        /// Say what would change, and write nothing; exit status 1 if it would be refused
        #[arg(long)]
        dry_run: bool,
    },
}

/// Runs `playhead rollout`.
///
/// # Errors
/// If nothing can be read, the change is refused, or no region takes it. Regions that were not reached are no error but exit status 2.
pub async fn run(args: Args) -> Result<ExitCode> {
    let deployment = args.which.find_all().await?;
    let sites = Sites::find(&deployment).await;
    run_on(&deployment, &sites, args, &mut std::io::stdout()).await
}

/// Runs `playhead rollout` on a deployment that was found, and writes there what it prints.
///
/// # Errors
/// As [`run`].
pub async fn run_on(deployment: &Deployment, sites: &Sites, args: Args, out: &mut impl Write) -> Result<ExitCode> {
    match args.command {
        RolloutCommand::Show { profile, from, json } => {
            let copies = Copies::read(deployment).await;
            let (_, copy) = copies.meant(from.as_deref())?;
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
