//! Deploys the real template to the emulator with the real tool, `sam deploy`, and reads the
//! stack's outputs.

use super::child::{Guarded, Program};
use super::cloud::DEFAULT_REGION;
use super::emulator::aws_environment;
use super::tools::Tools;
use anyhow::{Context as _, Result, bail};
use aws_config::SdkConfig;
use aws_sdk_s3::types::CreateBucketConfiguration;
use operate::stack::Stack;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const LAUNCHER: &str = include_str!("../assets/deploy.py");
/// Name of the stack of every local cloud: each has its own emulator.
pub(super) const STACK: &str = "playhead-local";
/// Where `sam deploy` puts the functions' packages and the nested template.
const ARTIFACTS: &str = "playhead-local-artifacts";
const DEPLOYED_WITHIN: Duration = Duration::from_secs(300);

/// What to deploy, and where.
#[derive(Debug)]
pub(super) struct DeployRequest<'a> {
    pub(super) sdk: &'a SdkConfig,
    pub(super) endpoint: &'a str,
    pub(super) region: &'a str,
    /// Holds the templates and the functions' binaries.
    pub(super) app: &'a Path,
    /// For everything that the tool writes except its log.
    pub(super) folder: &'a Path,
    pub(super) log: PathBuf,
    /// Template parameters.
    pub(super) parameters: BTreeMap<String, String>,
}

/// Creates as much of an MSK cluster as an emulator has: its ARN, and an answer to
/// `GetBootstrapBrokers`.
///
/// # Errors
/// If the emulator refuses.
pub(super) async fn create_cluster(sdk: &SdkConfig, name: &str) -> Result<String> {
    use aws_sdk_kafka::types::BrokerNodeGroupInfo;
    let nodes = BrokerNodeGroupInfo::builder()
        .client_subnets("subnet-00000001")
        .client_subnets("subnet-00000002")
        .instance_type("kafka.m7g.large")
        .build();
    // Version 1 of the call: the emulator lacks CreateClusterV2.
    let made = aws_sdk_kafka::Client::new(sdk)
        .create_cluster()
        .cluster_name(name)
        .kafka_version("3.9.x")
        .number_of_broker_nodes(2)
        .broker_node_group_info(nodes)
        .send()
        .await
        .context("creating the MSK cluster in the emulator")?;
    made.cluster_arn.context("the emulator gave the MSK cluster no ARN")
}

impl DeployRequest<'_> {
    /// Deploys, and returns the stack's outputs by name.
    ///
    /// # Errors
    /// If the tool fails. The error has the end of its output.
    pub(super) async fn run(self, tools: &Tools) -> Result<BTreeMap<String, String>> {
        // `--resolve-s3` would deploy another stack just for this.
        let s3 = aws_sdk_s3::Client::new(self.sdk);
        let mut create = s3.create_bucket().bucket(ARTIFACTS);
        // S3 rejects us-east-1, its first region, as a location constraint.
        if self.region != DEFAULT_REGION {
            let place = CreateBucketConfiguration::builder().location_constraint(self.region.into()).build();
            create = create.create_bucket_configuration(place);
        }
        create.send().await.context("creating the bucket for packages in the emulator")?;

        // In a file: anyone on the machine may read the arguments of a process, and one of them is
        // a secret.
        let parameters = self.folder.join("parameters.yaml");
        fs::write(&parameters, serde_json::to_vec(&self.parameters)?)?;
        let file = format!("file://{}", parameters.display());
        let arguments = ["deploy", "--template-file", "template.yaml", "--stack-name", STACK, "--s3-bucket", ARTIFACTS];
        let options = ["--no-confirm-changeset", "--no-progressbar", "--parameter-overrides", &file];
        let capabilities = ["--capabilities", "CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"];
        let Self { endpoint, region, app, folder, .. } = self;
        let tool = Sam { endpoint, region, app, folder, log: self.log };
        let done = tool.run(tools, &[&arguments[..], &options, &capabilities].concat()).await;
        fs::remove_file(&parameters)?;
        done?;
        Ok(Stack::describe(STACK.to_owned(), self.sdk.clone(), None).await?.outputs)
    }
}

/// A run of the AWS SAM CLI against an emulator.
#[derive(Debug)]
pub(super) struct Sam<'a> {
    pub(super) endpoint: &'a str,
    pub(super) region: &'a str,
    /// Where it runs: the folder of the template, of its binaries and of its settings, if any.
    pub(super) app: &'a Path,
    /// For everything that the tool writes except its log.
    pub(super) folder: &'a Path,
    pub(super) log: PathBuf,
}

impl Sam<'_> {
    /// Runs `sam` with these arguments.
    ///
    /// # Errors
    /// If it fails. The error has the end of its output.
    pub(super) async fn run(self, tools: &Tools, arguments: &[&str]) -> Result<()> {
        self.skip_version_check()?;
        let python = tools.deploy_python();
        let mut command = vec![python.to_string_lossy().into_owned()];
        command.extend(["-I", "-c", LAUNCHER].iter().chain(arguments).map(ToString::to_string));
        let mut environment = aws_environment(self.endpoint, self.region, self.folder);
        // No telemetry. The stack is ready within a second, so poll more often than every 5 s.
        let settings = [("SAM_CLI_TELEMETRY", "0"), ("SAM_CLI_POLL_DELAY", "0.2")];
        environment.extend(settings.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let name = "sam";
        let (folder, log) = (self.app, self.log.clone());
        let mut sam = Guarded::start(Program { name, python: &python, command, environment, folder, log })?;
        let status = sam.finished(DEPLOYED_WITHIN).await?;
        if !status.success() {
            bail!("sam {} failed ({status}); {}", arguments.first().unwrap_or(&""), sam.tail());
        }
        Ok(())
    }

    /// The tool asks the package index for a newer version once a week. This tells it that it has
    /// just done so.
    fn skip_version_check(&self) -> Result<()> {
        let settings = self.folder.join(".aws-sam");
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        fs::create_dir_all(&settings)?;
        fs::write(settings.join("metadata.json"), format!(r#"{{"lastVersionCheck": {now}}}"#))?;
        Ok(())
    }
}
