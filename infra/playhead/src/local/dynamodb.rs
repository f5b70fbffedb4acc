//! A DynamoDB by itself, without a deployment: what tests of the store's adapter run against.
//!
//! The emulator is what the local cloud runs on. DynamoDB Local is AWS's own, so it has the last word on what DynamoDB does;
//! it needs Java 17 and, for its installation, Maven. Both keep everything in memory or in the folder of the run, and end with us.

use super::child::{Guarded, Program};
use super::cloud::{REGION, free_ports};
use super::emulator::{Emulator, aws_environment};
use super::endpoints::sdk_config;
use super::progress::Progress;
use super::run::RunFolder;
use super::tools::{Tools, hex, run, tools_folder};
use super::workspace::workspace_root;
use anyhow::{Context as _, Result, ensure};
use aws_config::SdkConfig;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

const POM: &str = include_str!("../../assets/dynamodb-local/pom.xml");
const SUMS: &str = include_str!("../../assets/dynamodb-local/sha256sums.txt");
const MAIN_CLASS: &str = "software.amazon.dynamodb.services.local.main.ServerRunner";
const READY_WITHIN: Duration = Duration::from_secs(60);
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// A running DynamoDB with no tables. Dropping it ends it, as does the end of our process, however that comes.
#[derive(Debug)]
pub struct LocalDynamoDb {
    // In the order in which they are dropped: the folder's lock last.
    _child: Guarded,
    endpoint: String,
    _folder: RunFolder,
}

impl LocalDynamoDb {
    /// Starts the emulator (ministack) in `target/playhead/<name>`, for its DynamoDB alone.
    ///
    /// # Errors
    /// If it cannot be installed or does not come up, or another process runs one in the same folder.
    pub async fn emulator(name: &str) -> Result<Self> {
        let workspace = workspace_root()?;
        let folder = RunFolder::take(&workspace.join("target/playhead").join(name)).await?;
        let tools = Tools::install(&workspace, &Progress::silent()).await?;
        let [port, _] = free_ports()?;
        let emulator = Emulator {
            port,
            region: REGION,
            bootstrap: None,
            folder: folder.temporary("emulator")?,
            log: folder.log("emulator"),
        };
        let child = emulator.start(&tools).await?;
        Ok(Self { _child: child, endpoint: emulator.endpoint(), _folder: folder })
    }

    /// Starts DynamoDB Local in `target/playhead/<name>`, with its storage in memory.
    ///
    /// # Errors
    /// As [`LocalDynamoDb::emulator`]; also if there is no Java 17, or no Maven to install it with.
    pub async fn dynamodb_local(name: &str) -> Result<Self> {
        let workspace = workspace_root()?;
        let folder = RunFolder::take(&workspace.join("target/playhead").join(name)).await?;
        // Its guard is written in Python.
        let tools = Tools::install(&workspace, &Progress::silent()).await?;
        let libraries = install(&workspace).await?;
        let [port, _] = free_ports()?;
        let endpoint = format!("http://127.0.0.1:{port}");
        let live = folder.temporary("dynamodb-local")?;
        let libraries = libraries.to_str().context("the path of the workspace is not UTF-8")?;
        let temporary = live.to_str().context("the path of the workspace is not UTF-8")?;
        let command = [
            "java",
            "-Xmx512m",
            "-XX:+UseSerialGC",
            "-XX:-UsePerfData", // that would be a file in the system's temporary folder
            &format!("-Djava.io.tmpdir={temporary}"),
            &format!("-Djava.library.path={libraries}"),
            "-cp",
            &format!("{libraries}/*"),
            MAIN_CLASS,
            "-inMemory",
            "-disableTelemetry",
            "-port",
            &port.to_string(),
        ];
        let mut child = Guarded::start(Program {
            name: "DynamoDB Local",
            python: &tools.emulator_python(),
            command: command.map(str::to_owned).to_vec(),
            environment: aws_environment(&endpoint, REGION, &live),
            folder: &live,
            log: folder.log("dynamodb-local"),
        })?;
        let client = reqwest::Client::builder().no_proxy().timeout(PROBE_TIMEOUT).build().context("an HTTP client")?;
        // It refuses a call that names no operation, but it answers.
        child.ready(READY_WITHIN, async || client.get(&endpoint).send().await.is_ok()).await?;
        Ok(Self { _child: child, endpoint, _folder: folder })
    }

    /// Its URL.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Configuration of AWS clients for it. Nothing of the user's own AWS settings goes into it.
    #[must_use]
    pub fn sdk_config(&self) -> SdkConfig {
        sdk_config(&self.endpoint, REGION)
    }
}

/// Installs DynamoDB Local, unless it is there, and gives the folder of its libraries. Waits if another process is at it.
async fn install(workspace: &Path) -> Result<PathBuf> {
    let (tools, _lock) = tools_folder(workspace).await?;
    let wanted = hex(&Sha256::digest(format!("{POM}{SUMS}")));
    let folder = tools.join(format!("dynamodb-local-{}", &wanted[..16]));
    let (libraries, stamp) = (folder.join("lib"), folder.join("stamp"));
    // Written last: without it the download was interrupted.
    if stamp.exists() {
        return Ok(libraries);
    }
    for (program, version, what) in
        [("java", "-version", "Java 17 or newer"), ("mvn", "--version", "Maven, to be installed")]
    {
        let found = Command::new(program).arg(version).stdin(Stdio::null()).output().await;
        ensure!(
            found.is_ok_and(|found| found.status.success()),
            "DynamoDB Local needs {what}: `{program} {version}` does not run"
        );
    }
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("removing the incomplete {}", folder.display()))?;
    }
    fs::create_dir_all(&libraries)?;
    let pom = folder.join("pom.xml");
    fs::write(&pom, POM)?;
    // With the user's own Maven settings and cache: that is where a mirror or a proxy is named.
    let mut maven = Command::new("mvn");
    maven.args(["--quiet", "--batch-mode", "--strict-checksums", "dependency:copy-dependencies", "-f"]).arg(&pom);
    maven.arg(format!("-DoutputDirectory={}", libraries.display()));
    run(&mut maven, |_| {})
        .await
        .context("installing DynamoDB Local with Maven (only the first run needs the network)")?;
    verify(&libraries, SUMS)?;
    fs::write(&stamp, wanted)?;
    Ok(libraries)
}

/// Holds a folder against a list of `<sha256>  <file>`: exactly these files, exactly these bytes.
fn verify(folder: &Path, sums: &str) -> Result<()> {
    let wanted: BTreeMap<String, String> =
        sums.lines().filter_map(|line| line.split_once("  ")).map(|(sum, name)| (name.into(), sum.into())).collect();
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        found.insert(entry.file_name().to_string_lossy().into_owned(), hex(&Sha256::digest(fs::read(entry.path())?)));
    }
    let differs = |name: &&String| wanted.get(*name) != found.get(*name);
    let different: Vec<&String> = wanted.keys().chain(found.keys()).filter(differs).collect();
    ensure!(different.is_empty(), "not the files that sha256sums.txt lists: {different:?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_a_missing_and_an_additional_file_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let sum = hex(&Sha256::digest("good"));
        let check = |sums: &str| verify(folder.path(), sums).map_err(|error| error.to_string());
        fs::write(folder.path().join("a.jar"), "good").unwrap();
        assert_eq!(check(&format!("{sum}  a.jar\n")), Ok(()));
        assert!(check(&format!("{sum}  a.jar\n{sum}  b.jar\n")).unwrap_err().contains("b.jar"));
        assert!(check("").unwrap_err().contains("a.jar"));
        fs::write(folder.path().join("a.jar"), "bad").unwrap();
        assert!(check(&format!("{sum}  a.jar\n")).unwrap_err().contains("a.jar"));
    }

    #[test]
    fn the_project_pins_versions_and_names_no_host() {
        assert!(SUMS.lines().count() > 50 && SUMS.lines().all(|line| line.len() > 66 && &line[64..66] == "  "));
        assert!(!POM.contains("<repository>") && !POM.contains("https://"), "{POM}");
        let versions: Vec<&str> = POM.lines().filter(|line| line.contains("<version>")).collect();
        assert!(versions.iter().all(|line| !line.contains(['[', '(', ','])), "a range: {versions:?}");
    }
}
