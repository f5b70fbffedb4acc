//! The AWS of a local cloud: an emulator of ours, or one of the user's.

use super::child::Guarded;
use super::deploy::{Names, delete_deployment};
use anyhow::{Context as _, Result, bail};
use operate::sdk_config;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

const STOPPED_WITHIN: Duration = Duration::from_secs(20);

/// What the stack of a local cloud is deployed to.
#[derive(Debug)]
pub(super) enum Aws {
    /// Ends with us.
    Ours(Guarded),
    Users(UsersAws),
}

/// An emulator that the user runs. We neither start nor end it, and delete what we deployed.
#[derive(Debug, Clone)]
pub(super) struct UsersAws {
    deployment: Deployment,
    /// Where the deployment is noted, so that the next run deletes it if this one is killed.
    note: PathBuf,
}

/// What we deployed there.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Deployment {
    endpoint: String,
    region: String,
    names: Names,
}

impl Aws {
    /// Checks that it runs, if it is ours.
    ///
    /// # Errors
    /// If it ended.
    pub(super) fn check(&mut self) -> Result<()> {
        match self {
            Self::Ours(emulator) => emulator.check(),
            Self::Users(_) => Ok(()),
        }
    }

    /// Sends a signal to it and its functions.
    ///
    /// # Errors
    /// If it is the user's.
    pub(super) fn signal(&self, signal: Signal) -> Result<()> {
        match self {
            Self::Ours(emulator) => emulator.signal(signal),
            Self::Users(_) => bail!("the AWS emulator is yours: stop it yourself"),
        }
    }

    /// Tells it to end, if it is ours.
    pub(super) fn let_go(&mut self) {
        if let Self::Ours(emulator) = self {
            emulator.let_go();
        }
    }

    /// Waits until it has ended, or until what we deployed is deleted.
    ///
    /// # Errors
    /// If a part did not end, or could not be deleted.
    pub(super) async fn stop(self) -> Result<()> {
        match self {
            Self::Ours(mut emulator) => emulator.finished(STOPPED_WITHIN).await.map(drop),
            Self::Users(users) => users.delete().await,
        }
    }
}

impl UsersAws {
    /// Notes what is going to be deployed, and deletes what an earlier run in this folder left.
    ///
    /// # Errors
    /// If that cannot be deleted, or the note cannot be read or written.
    pub(super) async fn begin(endpoint: &str, region: &str, names: &Names, run_dir: &Path) -> Result<Self> {
        let note = run_dir.join("deployed.json");
        if let Ok(left) = fs::read(&note) {
            let left = Self { deployment: serde_json::from_slice(&left)?, note: note.clone() };
            let Deployment { endpoint, names, .. } = left.deployment.clone();
            left.delete().await.with_context(|| {
                let note = note.display();
                format!(
                    "the stack {} of an earlier run may still be at {endpoint}: start that emulator again, or delete {note}",
                    names.stack
                )
            })?;
        }
        let deployment = Deployment { endpoint: endpoint.into(), region: region.into(), names: names.clone() };
        fs::write(&note, serde_json::to_vec(&deployment)?)?;
        Ok(Self { deployment, note })
    }

    /// Deletes what we deployed there, its data included.
    ///
    /// # Errors
    /// If something is left.
    pub(super) async fn delete(self) -> Result<()> {
        let Deployment { endpoint, region, names } = &self.deployment;
        delete_deployment(&sdk_config(endpoint, region), names).await?;
        fs::remove_file(&self.note)?;
        Ok(())
    }
}
