//! A standalone DynamoDB for tests of the store's adapter.
//!
//! The local cloud uses the emulator. DynamoDB Local comes from AWS, so it is the reference for
//! what DynamoDB does. It needs Java 17 and, to install it, Maven. Both keep everything in memory
//! or in the folder of the run, and end with us.

use super::child::{Guarded, Program};
use super::cloud::{DEFAULT_REGION, free_ports};
use super::emulator::{Emulator, aws_environment};
use super::java::JavaProgram;
use super::progress::Progress;
use super::tools::Tools;
use anyhow::{Context as _, Result};
use aws_config::SdkConfig;
use operate::run::RunFolder;
use operate::sdk_config;
use operate::workspace_root;
use std::time::Duration;

pub(super) const PROGRAM: JavaProgram = JavaProgram {
    name: "DynamoDB Local",
    folder: "dynamodb-local",
    pom: include_str!("../assets/dynamodb-local/pom.xml"),
    sums: include_str!("../assets/dynamodb-local/sha256sums.txt"),
};
const MAIN_CLASS: &str = "software.amazon.dynamodb.services.local.main.ServerRunner";
const READY_WITHIN: Duration = Duration::from_secs(60);
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// A running DynamoDB without tables. It ends when it is dropped or our process ends, even by
/// SIGKILL.
#[derive(Debug)]
pub struct LocalDynamoDb {
    // In drop order: the folder's lock last.
    _child: Guarded,
    endpoint: String,
    _folder: RunFolder,
}

impl LocalDynamoDb {
    /// Starts the emulator (ministack) in `target/playhead/<name>`, only for its DynamoDB.
    ///
    /// # Errors
    /// If it cannot be installed, does not come up, or another process runs one in the same folder.
    pub async fn emulator(name: &str) -> Result<Self> {
        let workspace = workspace_root()?;
        let folder = RunFolder::take(&workspace.join("target/playhead").join(name)).await?;
        let tools = Tools::install(&workspace, &Progress::silent()).await?;
        let emulator = Emulator::alone(&folder)?;
        let child = emulator.start(&tools).await?;
        Ok(Self { _child: child, endpoint: emulator.endpoint(), _folder: folder })
    }

    /// Starts DynamoDB Local in `target/playhead/<name>`, with its storage in memory.
    ///
    /// # Errors
    /// As [`LocalDynamoDb::emulator`]. Also if there is no Java 17, or no Maven to install it.
    pub async fn dynamodb_local(name: &str) -> Result<Self> {
        let workspace = workspace_root()?;
        let folder = RunFolder::take(&workspace.join("target/playhead").join(name)).await?;
        // The guard is written in Python.
        let tools = Tools::install(&workspace, &Progress::silent()).await?;
        let installed = PROGRAM.install(&workspace).await?;
        let [port] = free_ports()?;
        let endpoint = format!("http://127.0.0.1:{port}");
        let live = folder.temporary("dynamodb-local")?;
        let native = format!("-Djava.library.path={}", installed.libraries());
        let arguments = ["-inMemory", "-disableTelemetry", "-port", &port.to_string()];
        let command = installed.command(512, &live, &[&native], MAIN_CLASS, &arguments)?;
        let mut child = Guarded::start(Program {
            name: "DynamoDB Local",
            python: &tools.emulator_python(),
            command,
            environment: aws_environment(&endpoint, DEFAULT_REGION, &live),
            folder: &live,
            log: folder.log("dynamodb-local"),
        })?;
        let client = reqwest::Client::builder().no_proxy().timeout(PROBE_TIMEOUT).build().context("an HTTP client")?;
        // Any answer will do: it rejects this call, which names no operation.
        child.ready(READY_WITHIN, async || client.get(&endpoint).send().await.is_ok()).await?;
        Ok(Self { _child: child, endpoint, _folder: folder })
    }

    /// Its URL.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Configuration of AWS clients for it, without the user's AWS settings.
    #[must_use]
    pub fn sdk_config(&self) -> SdkConfig {
        sdk_config(&self.endpoint, DEFAULT_REGION)
    }
}
