//! A local cloud in which nothing is deployed yet, for tests that deploy with the commands of
//! `docs/deploy.md`, as a user does.
//!
//! The functions are stubs, because such a test invokes none: so nothing has to be compiled. There
//! is no broker either.

use super::build::{assemble, copy, function_names};
use super::child::Guarded;
use super::cloud::DEFAULT_REGION;
use super::deploy::{Sam, create_cluster};
use super::emulator::Emulator;
use super::progress::Progress;
use super::tools::Tools;
use anyhow::{Context as _, Result};
use aws_config::SdkConfig;
use operate::run::RunFolder;
use operate::{sdk_config, workspace_root};
use std::fs;
use std::path::PathBuf;

/// What the commands name beside the templates.
const SETTINGS: &str = "samconfig.toml";
const STAGES: &str = "infra/stages";

/// A running emulator, and the application in a folder beside it. It ends when it is dropped or our
/// process ends, even by SIGKILL.
#[derive(Debug)]
pub struct BareCloud {
    // In drop order: the folder's lock last.
    _emulator: Guarded,
    endpoint: String,
    tools: Tools,
    app: PathBuf,
    folder: RunFolder,
}

impl BareCloud {
    /// Starts one in `target/playhead/<name>`.
    ///
    /// # Errors
    /// If it cannot be installed, does not come up, or another process runs one in the same folder.
    pub async fn start(name: &str) -> Result<Self> {
        let workspace = workspace_root()?;
        let folder = RunFolder::take(&workspace.join("target/playhead").join(name)).await?;
        let tools = Tools::install(&workspace, &Progress::silent()).await?;
        let (app, stubs) = (folder.temporary("app")?, folder.temporary("stubs")?);
        let stub = |function: String| {
            let path = stubs.join(&function);
            // Each with another text, or two functions would share a package.
            fs::write(&path, format!("a stub of {function}\n"))?;
            anyhow::Ok((function, path))
        };
        let binaries = function_names(&workspace)?.into_iter().map(stub).collect::<Result<_>>()?;
        assemble(&workspace, &binaries, &app)?;
        copy(&workspace.join(SETTINGS), &app.join(SETTINGS))?;
        for stage in fs::read_dir(workspace.join(STAGES))? {
            let stage = stage?;
            copy(&stage.path(), &app.join(STAGES).join(stage.file_name()))?;
        }
        let emulator = Emulator::alone(&folder)?;
        let child = emulator.start(&tools).await?;
        Ok(Self { _emulator: child, endpoint: emulator.endpoint(), tools, app, folder })
    }

    /// Configuration of AWS clients for a region of it, without the user's AWS settings.
    #[must_use]
    pub fn sdk_config(&self, region: &str) -> SdkConfig {
        sdk_config(&self.endpoint, region)
    }

    /// The ARN of a new MSK cluster, of which the emulator has little more than that.
    ///
    /// # Errors
    /// If the emulator refuses.
    pub async fn create_cluster(&self, region: &str, name: &str) -> Result<String> {
        create_cluster(&self.sdk_config(region), name).await
    }

    /// Runs `sam` with these arguments where the templates are, as a user does. Returns what it
    /// prints. `run` names its log.
    ///
    /// # Errors
    /// If it fails. The error has the end of its output.
    pub async fn sam(&self, run: &str, arguments: &[&str]) -> Result<String> {
        let (folder, log) = (self.folder.temporary(&format!("sam-{run}"))?, self.folder.log(run));
        let (endpoint, app) = (&self.endpoint, &self.app);
        let tool = Sam { endpoint, region: DEFAULT_REGION, app, folder: &folder, log: log.clone() };
        tool.run(&self.tools, arguments).await.with_context(|| format!("sam {}", arguments.join(" ")))?;
        Ok(fs::read_to_string(log)?)
    }
}
