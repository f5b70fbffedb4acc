//! The folder of a run: which process holds it, and the endpoints that it publishes.
//!
//! A run is alive exactly as long as its process holds the lock on the file `lock`. However the
//! process ends, the kernel releases the lock. So neither a stale file nor a reused process id is
//! mistaken for a running cloud.

use crate::endpoints::Endpoints;
use crate::workspace::workspace_root;
use anyhow::{Context as _, Result, bail};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Name of the run that stays up in the background.
pub const RUN: &str = "local";
/// Name of the run of `playhead demo`.
pub const DEMO: &str = "demo";

const ENDPOINTS: &str = "endpoints.json";
const LOCK: &str = "lock";

/// The folder of the run with this name, in the current workspace.
///
/// # Errors
/// If there is no workspace.
pub fn run_dir(run: &str) -> Result<PathBuf> {
    Ok(workspace_root()?.join("target/playhead").join(run))
}

/// The running local cloud: that of `local up`, else that of `demo`.
///
/// # Errors
/// If there is none, or it is not ready yet.
pub fn running() -> Result<Endpoints> {
    match Run::find(&run_dir(DEMO)?)? {
        Some(Run { endpoints: Some(demo), .. }) => in_background(RUN).or(Ok(demo)),
        _ => in_background(RUN),
    }
}

/// The local cloud that `local up` started.
///
/// # Errors
/// If there is none, or it is not ready yet.
pub fn in_background(run: &str) -> Result<Endpoints> {
    match Run::find(&run_dir(run)?)? {
        Some(Run { endpoints: Some(endpoints), .. }) => Ok(endpoints),
        Some(Run { pid, .. }) => {
            bail!("the local cloud (process {pid}) is starting or stopping: wait a moment and try again")
        }
        None => bail!("no local cloud is running: start one with `cargo playhead local up`"),
    }
}

/// A live run.
#[derive(Debug)]
pub struct Run {
    /// The process that holds the folder.
    pub pid: u32,
    /// Absent while the cloud starts.
    pub endpoints: Option<Endpoints>,
}

impl Run {
    /// The live run in this folder, if any.
    ///
    /// # Errors
    /// If the folder's files cannot be read.
    pub fn find(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(LOCK);
        let lock = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("opening {}", path.display())),
        };
        match lock.try_lock_shared() {
            Ok(()) => return Ok(None),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("locking {}", path.display()));
            }
        }
        let text = fs::read_to_string(&path)?;
        let Ok(pid) = text.trim().parse() else { return Ok(None) }; // just starting or stopping
        let endpoints = match fs::read(folder.join(ENDPOINTS)) {
            // A file that another process left behind does not count.
            Ok(bytes) => serde_json::from_slice(&bytes).ok().filter(|found: &Endpoints| found.pid == pid),
            Err(_) => None,
        };
        Ok(Some(Self { pid, endpoints }))
    }
}

/// Our hold on a run's folder. Dropping it removes what only a live run needs. Logs stay.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    _lock: File,
}

impl RunFolder {
    /// Takes the folder, and removes what a crashed run left there.
    ///
    /// # Errors
    /// If another process holds it.
    pub async fn take(path: &Path) -> Result<Self> {
        fs::create_dir_all(path).with_context(|| format!("creating {}", path.display()))?;
        let file = path.join(LOCK);
        let mut lock = OpenOptions::new().create(true).read(true).write(true).truncate(false).open(&file)?;
        // A process that asks for the status holds the lock for a moment.
        let deadline = Instant::now() + Duration::from_secs(1);
        while let Err(error) = lock.try_lock() {
            match error {
                TryLockError::Error(error) => return Err(error).with_context(|| format!("locking {}", file.display())),
                TryLockError::WouldBlock if Instant::now() > deadline => {
                    let holder = fs::read_to_string(&file).unwrap_or_default();
                    bail!("process {} already runs a local cloud in {}", holder.trim(), path.display())
                }
                TryLockError::WouldBlock => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
        lock.set_len(0)?;
        lock.rewind()?;
        lock.write_all(std::process::id().to_string().as_bytes())?;
        let folder = Self { path: path.to_owned(), _lock: lock };
        folder.clear()?;
        Ok(folder)
    }

    /// Tells others that the cloud is ready.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn publish(&self, endpoints: &Endpoints) -> Result<()> {
        let (file, draft) = (self.path.join(ENDPOINTS), self.path.join("endpoints.json.draft"));
        // It contains the stage's secret, so only the user may read it.
        let mut out = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&draft)?;
        out.write_all(&serde_json::to_vec_pretty(endpoints)?)?;
        fs::rename(&draft, &file).with_context(|| format!("writing {}", file.display()))
    }

    /// A subfolder that lives as long as the run.
    ///
    /// # Errors
    /// If it cannot be created.
    pub fn temporary(&self, name: &str) -> Result<PathBuf> {
        let folder = self.path.join("live").join(name);
        fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        Ok(folder)
    }

    /// Where a child writes its log.
    pub fn log(&self, name: &str) -> PathBuf {
        self.logs().join(format!("{name}.log"))
    }

    /// The folder of the logs, which stay.
    pub fn logs(&self) -> PathBuf {
        self.path.join("logs")
    }

    fn clear(&self) -> Result<()> {
        let live = self.path.join("live");
        if live.exists() {
            fs::remove_dir_all(&live).with_context(|| format!("removing {}", live.display()))?;
        }
        match fs::remove_file(self.path.join(ENDPOINTS)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        if let Err(error) = self.clear() {
            tracing::warn!(folder = %self.path.display(), "failed to remove the run's temporary files: {error:#}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::endpoints as example;

    #[tokio::test]
    async fn run_is_found_only_while_it_is_held() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Run::find(folder.path()).unwrap().is_none());
        let held = RunFolder::take(folder.path()).await.unwrap();
        let starting = Run::find(folder.path()).unwrap().unwrap();
        assert_eq!((starting.pid, starting.endpoints.is_none()), (std::process::id(), true));
        let endpoints = Endpoints { pid: std::process::id(), ..example() };
        held.publish(&endpoints).unwrap();
        assert_eq!(Run::find(folder.path()).unwrap().unwrap().endpoints.unwrap().stack, "playhead-local");
        drop(held);
        assert!(Run::find(folder.path()).unwrap().is_none());
    }

    #[tokio::test]
    async fn folder_has_one_run_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let _held = RunFolder::take(folder.path()).await.unwrap();
        let error = RunFolder::take(folder.path()).await.unwrap_err().to_string();
        assert!(error.contains(&std::process::id().to_string()), "{error}");
    }

    #[tokio::test]
    async fn leftovers_of_a_crashed_run_are_ignored_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(LOCK), "1").unwrap();
        fs::write(folder.path().join(ENDPOINTS), serde_json::to_vec(&example()).unwrap()).unwrap();
        assert!(Run::find(folder.path()).unwrap().is_none());
        let _held = RunFolder::take(folder.path()).await.unwrap();
        assert!(!folder.path().join(ENDPOINTS).exists());
        assert!(Run::find(folder.path()).unwrap().unwrap().endpoints.is_none());
    }
}
