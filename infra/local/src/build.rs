//! Builds the functions the way the running program was built, and lays them out where the template
//! expects them.
//!
//! They are built with plain cargo, in the profile and with the features of the whole workspace.
//! The command line and the tests were built the same way, so dependencies are compiled once. The
//! result goes into the run's `app` folder: the release binaries that `infra/build-functions` puts
//! into `target/lambda` are never touched.

use super::progress::Progress;
use anyhow::{Context as _, Result, bail};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::Command;

/// The template and its nested ones, from the root of the workspace.
const TEMPLATES: [&str; 7] = [
    "template.yaml",
    "infra/alarm-topics.yaml",
    "infra/change-archive.yaml",
    "infra/gradual-deployment.yaml",
    "infra/kafka.yaml",
    "infra/network.yaml",
    "infra/observability.yaml",
];

/// Cargo sets these for the program that it runs. If the cargo that we start inherited them, build
/// scripts would see changed values and run again, and everything that depends on them would be
/// rebuilt.
const CARGO_RUN_VARIABLES: [&str; 6] =
    ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_PACKAGE", "CARGO_TARGET_TMPDIR"];

/// The functions' names: the folders under `functions/` that make a binary, which has the folder's
/// name.
///
/// # Errors
/// If the folder cannot be read.
pub fn function_names(workspace: &Path) -> Result<Vec<String>> {
    let folder = workspace.join("functions");
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
        let entry = entry?;
        if entry.path().join("src/main.rs").is_file() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Builds every function, and returns the path of each binary by function name.
///
/// # Errors
/// If the code does not compile. The error has the compiler's messages.
pub(super) async fn build(workspace: &Path, progress: &Progress) -> Result<BTreeMap<String, PathBuf>> {
    let (target, profile) = own_target()?;
    build_with(workspace, target, &profile, progress).await
}

/// Builds every function in release mode, however this program was built. Returns the path of each
/// binary by function name.
///
/// # Errors
/// If the code does not compile. The error has the compiler's messages.
pub async fn build_release(workspace: &Path, progress: &Progress) -> Result<BTreeMap<String, PathBuf>> {
    let (target, _) = own_target()?;
    build_with(workspace, target, "release", progress).await
}

async fn build_with(
    workspace: &Path,
    target: Option<PathBuf>,
    profile: &str,
    progress: &Progress,
) -> Result<BTreeMap<String, PathBuf>> {
    let names = function_names(workspace)?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    cargo.args(["build", "--workspace", "--message-format=json-render-diagnostics", "--profile", profile]);
    cargo.args(names.iter().flat_map(|name| ["--bin", name]));
    if let Some(target) = target {
        cargo.arg("--target-dir").arg(target);
    }
    for (name, _) in std::env::vars_os() {
        if CARGO_RUN_VARIABLES.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            cargo.env_remove(name);
        }
    }
    cargo.current_dir(workspace).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = cargo.spawn().context("starting cargo, which builds the functions")?;
    let (stdout, stderr) = (child.stdout.take().context("no output")?, child.stderr.take().context("no output")?);
    let mut said = String::new();
    let follow = async {
        let mut lines = BufReader::new(stderr).lines();
        while let Some(line) = lines.next_line().await? {
            progress.detail(format!("functions: {}", line.trim()));
            said.push_str(&line);
            said.push('\n');
        }
        std::io::Result::Ok(())
    };
    let mut messages = String::new();
    let mut stdout = BufReader::new(stdout);
    let ((), _) = tokio::try_join!(follow, stdout.read_to_string(&mut messages))?;
    let status = child.wait().await?;
    if !status.success() {
        bail!("building the functions failed ({status}):\n{}", said.trim_end());
    }
    let mut binaries = executables(&messages)?;
    binaries.retain(|name, _| names.contains(name));
    match names.iter().find(|name| !binaries.contains_key(*name)) {
        Some(missing) => bail!("cargo built no binary `{missing}` for functions/{missing}"),
        None => Ok(binaries),
    }
}

/// Lays out `app`: the templates unchanged, and each binary as
/// `target/lambda/<function>/bootstrap`, where its `CodeUri` points.
///
/// # Errors
/// If a file cannot be copied.
pub(super) fn assemble(workspace: &Path, binaries: &BTreeMap<String, PathBuf>, app: &Path) -> Result<()> {
    for template in TEMPLATES {
        copy(&workspace.join(template), &app.join(template))?;
    }
    for (name, binary) in binaries {
        copy(binary, &app.join("target/lambda").join(name).join("bootstrap"))?;
    }
    Ok(())
}

/// Copies a file, and creates its folder.
///
/// # Errors
/// If that fails.
pub(super) fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::copy(from, to).with_context(|| format!("copying {} to {}", from.display(), to.display()))?;
    Ok(())
}

/// The target folder (if known) and the profile of the running program, from its path:
/// `<target>/<profile>/playhead`, or `<target>/<profile>/deps/…` for tests.
fn own_target() -> Result<(Option<PathBuf>, String)> {
    let program = std::env::current_exe()?;
    let mut folder = program.parent().context("the program has no parent folder")?;
    if folder.ends_with("deps")
        && let Some(parent) = folder.parent()
    {
        folder = parent;
    }
    Ok(target_of(folder))
}

fn target_of(folder: &Path) -> (Option<PathBuf>, String) {
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    // Cargo tags its target folder. If there is no tag, the program was copied elsewhere, and
    // cargo's default will do.
    match folder.parent().filter(|target| target.join("CACHEDIR.TAG").is_file()) {
        Some(target) => (Some(target.to_owned()), profile.to_owned()),
        None => (None, "dev".to_owned()),
    }
}

/// The binaries named in cargo's JSON messages, which come one per line.
fn executables(messages: &str) -> Result<BTreeMap<String, PathBuf>> {
    #[derive(serde::Deserialize)]
    struct Message {
        reason: String,
        target: Option<Target>,
        executable: Option<PathBuf>,
    }
    #[derive(serde::Deserialize)]
    struct Target {
        name: String,
    }
    let mut found = BTreeMap::new();
    for line in messages.lines().filter(|line| line.starts_with('{')) {
        let message: Message = serde_json::from_str(line).context("reading a message from cargo")?;
        if message.reason == "compiler-artifact"
            && let (Some(target), Some(executable)) = (message.target, message.executable)
        {
            found.insert(target.name, executable);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binaries_are_read_from_cargos_messages() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"name":"lambda"},"executable":null}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"name":"ingest"},"executable":"/t/debug/ingest"}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        assert_eq!(executables(messages).unwrap(), BTreeMap::from([("ingest".into(), "/t/debug/ingest".into())]));
    }

    #[test]
    fn profile_and_target_folder_come_from_the_programs_path() {
        let target = tempfile::tempdir().unwrap();
        assert_eq!(target_of(&target.path().join("release")), (None, "dev".into()), "no target folder of cargo's");
        fs::write(target.path().join("CACHEDIR.TAG"), "").unwrap();
        assert_eq!(target_of(&target.path().join("debug")), (Some(target.path().into()), "dev".into()));
        assert_eq!(target_of(&target.path().join("release")), (Some(target.path().into()), "release".into()));
    }

    #[test]
    fn assemble_copies_templates_unchanged_and_names_binaries() {
        let (workspace, app) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir(workspace.path().join("infra")).unwrap();
        for template in TEMPLATES {
            fs::write(workspace.path().join(template), format!("A: 1 # {template}\n")).unwrap();
        }
        fs::write(workspace.path().join("ingest"), "binary").unwrap();
        let binaries = BTreeMap::from([("ingest".to_owned(), workspace.path().join("ingest"))]);
        assemble(workspace.path(), &binaries, app.path()).unwrap();
        for template in TEMPLATES {
            let copied = fs::read_to_string(app.path().join(template)).unwrap();
            assert_eq!(copied, format!("A: 1 # {template}\n"));
        }
        assert_eq!(fs::read_to_string(app.path().join("target/lambda/ingest/bootstrap")).unwrap(), "binary");
    }
}
