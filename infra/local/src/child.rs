//! Child processes that can never outlive us.
//!
//! Each child runs under `assets/guard.py`. The guard's standard input is a pipe that we hold open
//! and never write to. When we let go, end, or are killed, the kernel closes our end. The guard
//! then ends the child's whole process group; for ministack that includes the functions it started.
//! So neither a crash nor SIGKILL leaves anything behind.

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

const GUARD: &str = include_str!("../assets/guard.py");

/// Between SIGTERM and SIGKILL. Short: their state is in memory, and nobody will read it again.
const GRACE: Duration = Duration::from_secs(1);
/// How often we check a child while we wait for it.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// How much of its log an error shows.
const TAIL_BYTES: u64 = 4_000;

/// What to run, and where its output goes.
#[derive(Debug)]
pub(crate) struct Program<'a> {
    /// Its name in messages.
    pub(crate) name: &'a str,
    /// The Python that runs the guard.
    pub(crate) python: &'a Path,
    /// Program and arguments.
    pub(crate) command: Vec<String>,
    /// Its whole environment. It inherits nothing, so none of the user's proxies, profiles or
    /// secrets leak into the functions.
    pub(crate) environment: Vec<(String, String)>,
    /// Its working directory.
    pub(crate) folder: &'a Path,
    /// The file for standard output and error. Replaces an older one.
    pub(crate) log: PathBuf,
}

/// A running child with its guard. Dropping it ends it and waits until it is gone.
#[derive(Debug)]
pub(crate) struct Guarded {
    name: String,
    guard: Child,
    lifeline: Option<ChildStdin>,
    log: PathBuf,
}

impl Guarded {
    /// Starts the program.
    ///
    /// # Errors
    /// If the guard does not start. If the program itself does not start, [`Guarded::check`] tells.
    pub(crate) fn start(program: Program<'_>) -> Result<Self> {
        if let Some(folder) = program.log.parent() {
            fs::create_dir_all(folder)?;
        }
        let log = File::create(&program.log).with_context(|| format!("creating {}", program.log.display()))?;
        let mut guard = Command::new(program.python)
            .args(["-I", "-c", GUARD, &GRACE.as_secs_f32().to_string()])
            .args(&program.command)
            .env_clear()
            .envs(program.environment)
            .current_dir(program.folder)
            // Not in our group: Ctrl-C on the terminal is for us, and we choose the order in which
            // children end.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {} with {}", program.name, program.python.display()))?;
        let lifeline = guard.stdin.take();
        Ok(Self { name: program.name.to_owned(), guard, lifeline, log: program.log })
    }

    /// Checks that it still runs.
    ///
    /// # Errors
    /// If it ended. The message shows the end of its log.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.guard.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended ({status}); {}", self.name, self.tail()),
        }
    }

    /// Waits until `ready` returns true.
    ///
    /// # Errors
    /// If the child ends first, or is not ready in time.
    pub(crate) async fn ready(&mut self, within: Duration, mut ready: impl AsyncFnMut() -> bool) -> Result<()> {
        let deadline = Instant::now() + within;
        while !ready().await {
            self.check()?;
            if Instant::now() > deadline {
                bail!("{} was not ready within {} s; {}", self.name, within.as_secs(), self.tail());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// If it cannot be waited for, or takes too long.
    pub(crate) async fn finished(&mut self, within: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.guard.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("{} did not end within {} s; {}", self.name, within.as_secs(), self.tail());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The process id of the command under the guard, which is also its process group.
    ///
    /// # Errors
    /// If it does not run, or the system has no `/proc` (only Linux does).
    pub(crate) fn command_id(&self) -> Result<Pid> {
        let guard = self.guard.id();
        let children = fs::read_to_string(format!("/proc/{guard}/task/{guard}/children")).unwrap_or_default();
        let id = children.split_whitespace().next().and_then(|id| id.parse().ok()).and_then(Pid::from_raw);
        id.with_context(|| format!("{} does not run; {}", self.name, self.tail()))
    }

    /// Sends a signal to the command and everything it started, but not to the guard.
    ///
    /// # Errors
    /// As [`Guarded::command_id`].
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let group = self.command_id()?;
        kill_process_group(group, signal).with_context(|| format!("sending {signal:?} to {}", self.name))
    }

    /// Lets go: it starts to end. Does not wait, so others can be told too.
    pub(crate) fn let_go(&mut self) {
        self.lifeline = None;
    }

    /// The end of its log, and the log's path.
    pub(crate) fn tail(&self) -> String {
        match read_tail(&self.log) {
            Ok(text) if text.trim().is_empty() => format!("its log {} is empty", self.log.display()),
            Ok(text) => format!("the end of {}:\n{}", self.log.display(), text.trim_end()),
            Err(error) => format!("its log {} cannot be read: {error}", self.log.display()),
        }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.let_go();
        // The guard kills after the grace period and ends. If it does not, that is a bug, so wait
        // only a few more seconds.
        let deadline = Instant::now() + GRACE + Duration::from_secs(5);
        while matches!(self.guard.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

fn read_tail(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::test_kill_process;

    /// A shell that starts another process in the background, prints both ids and waits.
    const FAMILY: &str = r#"sleep 600 & echo "$$ $!"; wait"#;

    fn start(folder: &Path, script: &str) -> Guarded {
        let command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        let environment = vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())];
        let log = folder.join("log");
        let python = which_python();
        Guarded::start(Program { name: "family", python: &python, command, environment, folder, log }).unwrap()
    }

    fn which_python() -> PathBuf {
        let path = std::env::var_os("PATH").unwrap();
        std::env::split_paths(&path).map(|folder| folder.join("python3")).find(|file| file.is_file()).unwrap()
    }

    async fn family(child: &mut Guarded) -> Vec<Pid> {
        let log = child.log.clone();
        child.ready(Duration::from_secs(20), async || fs::read_to_string(&log).unwrap().ends_with('\n')).await.unwrap();
        let text = fs::read_to_string(&log).unwrap();
        text.split_whitespace().map(|id| Pid::from_raw(id.parse().unwrap()).unwrap()).collect()
    }

    async fn assert_all_end(family: &[Pid]) {
        // init reaps the sleeper, which may take a moment.
        let deadline = Instant::now() + Duration::from_secs(10);
        while family.iter().any(|id| test_kill_process(*id).is_ok()) {
            assert!(Instant::now() < deadline, "still there: {family:?}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    #[tokio::test]
    async fn letting_go_ends_the_child_and_its_descendants() {
        let folder = tempfile::tempdir().unwrap();
        let mut child = start(folder.path(), FAMILY);
        let family = family(&mut child).await;
        assert_eq!(family.len(), 2);
        assert!(family.iter().all(|id| test_kill_process(*id).is_ok()));
        drop(child);
        assert_all_end(&family).await;
    }

    #[tokio::test]
    async fn child_inherits_no_variable_of_ours() {
        let folder = tempfile::tempdir().unwrap();
        let mut child = start(folder.path(), "env");
        assert!(child.finished(Duration::from_secs(20)).await.unwrap().success());
        let text = fs::read_to_string(&child.log).unwrap();
        let names: Vec<&str> = text.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
        assert!(names.contains(&"PATH"), "{text}");
        // Shells set these, and pyenv's `python3` is a shell script.
        let set_by_shells =
            |name: &str| ["PATH", "PWD", "OLDPWD", "SHLVL", "_"].contains(&name) || name.starts_with("PYENV");
        let ours = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        let inherited: Vec<String> =
            ours.filter(|name| names.contains(&name.as_str()) && !set_by_shells(name)).collect();
        assert!(inherited.is_empty(), "{inherited:?}");
    }

    #[tokio::test]
    async fn stopped_child_ends_with_us_too() {
        let folder = tempfile::tempdir().unwrap();
        let mut child = start(folder.path(), FAMILY);
        let family = family(&mut child).await;
        assert_eq!(child.command_id().unwrap(), family[0]);
        child.signal(Signal::STOP).unwrap();
        let state = || fs::read_to_string(format!("/proc/{}/stat", family[0])).unwrap();
        child.ready(Duration::from_secs(20), async || state().contains(") T ")).await.unwrap();
        drop(child);
        assert_all_end(&family).await;
    }

    #[tokio::test]
    async fn signal_reaches_the_command_and_the_guard_reports_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let mut child = start(folder.path(), FAMILY);
        let family = family(&mut child).await;
        child.signal(Signal::KILL).unwrap();
        let status = child.finished(Duration::from_secs(20)).await.unwrap();
        assert_eq!(status.code(), Some(128 + Signal::KILL.as_raw()));
        assert_all_end(&family).await;
        assert!(child.signal(Signal::KILL).unwrap_err().to_string().contains("does not run"));
    }

    #[tokio::test]
    async fn child_that_dies_early_shows_the_end_of_its_log() {
        let folder = tempfile::tempdir().unwrap();
        let mut child = start(folder.path(), "echo the port is taken; exit 3");
        let error = child.ready(Duration::from_secs(20), async || false).await.unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.contains("the port is taken"), "{error}");
    }
}
