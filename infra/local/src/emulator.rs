//! The AWS emulator, ministack, with its own port and folder.

use super::child::{Guarded, Program};
use super::cloud::{DEFAULT_REGION, free_ports};
use super::tools::Tools;
use anyhow::{Context as _, Result};
use operate::endpoints::DUMMY_CREDENTIALS;
use operate::run::RunFolder;
use std::path::{Path, PathBuf};
use std::time::Duration;

const LAUNCHER: &str = include_str!("../assets/emulator.py");
const READY_WITHIN: Duration = Duration::from_secs(60);
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// Configuration of an emulator.
#[derive(Debug)]
pub(super) struct Emulator<'a> {
    /// Its port on the loopback interface.
    pub(super) port: u16,
    /// The functions' region.
    pub(super) region: &'a str,
    /// Endpoint of the functions' DynamoDB clients, if it is not this emulator.
    pub(super) dynamodb_endpoint: Option<&'a str>,
    /// Endpoint of the functions' SQS clients, if it is not this emulator.
    pub(super) sqs_endpoint: Option<&'a str>,
    /// The answer to `GetBootstrapBrokers`.
    pub(super) bootstrap: Option<&'a str>,
    /// For everything it writes: the functions' code and its state.
    pub(super) folder: PathBuf,
    pub(super) log: PathBuf,
}

impl Emulator<'_> {
    /// One with nothing beside it, on a free port and in the default region.
    ///
    /// # Errors
    /// If no port is free, or the folder cannot be made.
    pub(super) fn alone(folder: &RunFolder) -> Result<Self> {
        let [port] = free_ports()?;
        Ok(Self {
            port,
            region: DEFAULT_REGION,
            dynamodb_endpoint: None,
            sqs_endpoint: None,
            bootstrap: None,
            folder: folder.temporary("emulator")?,
            log: folder.log("emulator"),
        })
    }

    /// `AWS_ENDPOINT_URL` of this emulator.
    pub(super) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Starts it and waits until it is healthy.
    ///
    /// # Errors
    /// If it does not come up.
    pub(super) async fn start(&self, tools: &Tools) -> Result<Guarded> {
        let python = tools.emulator_python();
        let mut child = Guarded::start(Program {
            name: "the emulator (ministack)",
            python: &python,
            command: vec![python.to_string_lossy().into_owned(), "-I".into(), "-c".into(), LAUNCHER.into()],
            environment: self.environment(),
            folder: &self.folder,
            log: self.log.clone(),
        })?;
        let health = format!("{}/_ministack/health", self.endpoint());
        let client = reqwest::Client::builder().no_proxy().timeout(PROBE_TIMEOUT).build().context("an HTTP client")?;
        let healthy = async || client.get(&health).send().await.is_ok_and(|answer| answer.status().is_success());
        child.ready(READY_WITHIN, healthy).await?;
        Ok(child)
    }

    /// Its environment, which the functions inherit.
    fn environment(&self) -> Vec<(String, String)> {
        let mut environment = aws_environment(&self.endpoint(), self.region, &self.folder);
        let own = [
            ("GATEWAY_PORT", self.port.to_string()),
            ("BIND_HOST", "127.0.0.1".to_owned()),
            ("MINISTACK_REGION", self.region.to_owned()),
            ("STATE_DIR", self.folder.join("state").to_string_lossy().into_owned()),
            ("S3_DATA_DIR", self.folder.join("s3").to_string_lossy().into_owned()),
            ("LAMBDA_EXECUTOR", "local".to_owned()),
            // Unused services that would listen on fixed ports.
            ("IOT_MTLS_ENABLED", "0".to_owned()),
            ("SFTP_ENABLED", "0".to_owned()),
        ];
        let bootstrap = self.bootstrap.map(|brokers| ("MINISTACK_MSK_BOOTSTRAP", brokers.to_owned()));
        let sqs = self.sqs_endpoint.map(|endpoint| ("AWS_ENDPOINT_URL_SQS", endpoint.to_owned()));
        let dynamodb = self.dynamodb_endpoint.map(|endpoint| ("AWS_ENDPOINT_URL_DYNAMODB", endpoint.to_owned()));
        let given = bootstrap.into_iter().chain(sqs).chain(dynamodb);
        environment.extend(own.into_iter().chain(given).map(|(name, value)| (name.to_owned(), value)));
        environment
    }
}

/// The whole environment of a child that talks to the emulator. `folder` is its home and its
/// temporary folder, so it finds none of the user's settings and leaves no files elsewhere.
pub(super) fn aws_environment(endpoint: &str, region: &str, folder: &Path) -> Vec<(String, String)> {
    let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/bin:/bin".to_owned());
    let folder = folder.to_string_lossy().into_owned();
    let variables = [
        ("PATH", path),
        ("HOME", folder.clone()),
        ("TMPDIR", folder),
        ("LANG", "C.UTF-8".to_owned()),
        ("PYTHONUTF8", "1".to_owned()),
        ("AWS_ENDPOINT_URL", endpoint.to_owned()),
        ("AWS_REGION", region.to_owned()),
        ("AWS_DEFAULT_REGION", region.to_owned()),
        ("AWS_ACCESS_KEY_ID", DUMMY_CREDENTIALS.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", DUMMY_CREDENTIALS.to_owned()),
    ];
    variables.map(|(name, value)| (name.to_owned(), value)).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_get_their_own_home_and_no_proxy() {
        let environment = aws_environment("http://127.0.0.1:4566", "us-east-1", Path::new("/a run/live"));
        let value = |wanted: &str| environment.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
        assert_eq!((value("HOME"), value("TMPDIR")), (Some("/a run/live"), Some("/a run/live")));
        assert!(environment.iter().all(|(name, _)| !name.to_ascii_uppercase().contains("PROXY")));
    }
}
