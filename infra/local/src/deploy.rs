//! Deploys the real template to the emulator with the real tool, `sam deploy`, and reads the
//! stack's outputs.

use super::child::{Guarded, Program};
use super::cloud::DEFAULT_REGION;
use super::emulator::aws_environment;
use super::tools::Tools;
use anyhow::{Context as _, Result, bail, ensure};
use aws_config::SdkConfig;
use aws_sdk_cloudformation::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_cloudformation::types::StackStatus;
use aws_sdk_s3::types::CreateBucketConfiguration;
use operate::stack::Stack;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const LAUNCHER: &str = include_str!("../assets/deploy.py");
const DEPLOYED_WITHIN: Duration = Duration::from_secs(300);
const DELETED_WITHIN: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The names of a deployment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Names {
    /// Its stack, and the beginning of all that the stack has. So it is the same in all regions.
    pub(super) stack: String,
    /// The bucket for the functions' packages and the nested templates.
    artifacts: String,
}

impl Names {
    /// With this suffix, which makes them unique if others may use the same emulator. Ours has no
    /// other deployment.
    pub(super) fn with(suffix: &str) -> Self {
        Self { stack: format!("playhead-local{suffix}"), artifacts: format!("playhead-local-artifacts{suffix}") }
    }

    /// The standby log's MSK cluster. The primary's has the name of the stack.
    pub(super) fn standby_cluster(&self) -> String {
        format!("{}-standby", self.stack)
    }
}

/// What to deploy, and where.
#[derive(Debug)]
pub(super) struct DeployRequest<'a> {
    pub(super) sdk: &'a SdkConfig,
    pub(super) names: &'a Names,
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

/// A client of S3. On one machine, buckets have no host names.
pub(super) fn s3(sdk: &SdkConfig) -> aws_sdk_s3::Client {
    aws_sdk_s3::Client::from_conf(aws_sdk_s3::config::Builder::from(sdk).force_path_style(true).build())
}

/// Creates a bucket.
///
/// # Errors
/// If the emulator refuses.
pub(super) async fn create_bucket(sdk: &SdkConfig, name: &str) -> Result<()> {
    let mut create = aws_sdk_s3::Client::new(sdk).create_bucket().bucket(name);
    // S3 rejects us-east-1, its first region, as a location constraint.
    if let Some(region) = sdk.region().map(AsRef::as_ref).filter(|region| *region != DEFAULT_REGION) {
        let place = CreateBucketConfiguration::builder().location_constraint(region.into()).build();
        create = create.create_bucket_configuration(place);
    }
    create.send().await.with_context(|| format!("creating the bucket {name} in the emulator"))?;
    Ok(())
}

/// Deletes a stack, and waits until it is gone.
///
/// # Errors
/// If it is not gone in time.
pub(super) async fn delete_stack(sdk: &SdkConfig, name: &str) -> Result<()> {
    let cloudformation = aws_sdk_cloudformation::Client::new(sdk);
    cloudformation
        .delete_stack()
        .stack_name(name)
        .send()
        .await
        .with_context(|| format!("deleting the stack {name}"))?;
    let deadline = Instant::now() + DELETED_WITHIN;
    loop {
        let described = match cloudformation.describe_stacks().stack_name(name).send().await {
            Err(error) if does_not_exist(&error) => return Ok(()),
            described => described.with_context(|| format!("describing the stack {name}"))?,
        };
        match described.stacks().first().and_then(|stack| stack.stack_status()) {
            None | Some(StackStatus::DeleteComplete) => return Ok(()),
            Some(status) => ensure!(Instant::now() < deadline, "the stack {name} is still {}", status.as_str()),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// CloudFormation has no code of its own for a stack that is not there.
fn does_not_exist(error: &impl ProvideErrorMetadata) -> bool {
    error.code() == Some("ValidationError") && error.message().is_some_and(|message| message.contains("does not exist"))
}

/// Deletes a deployment from an emulator, with the data that the template keeps.
///
/// # Errors
/// If something cannot be deleted. The rest is deleted anyway.
pub(super) async fn delete_deployment(sdk: &SdkConfig, names: &Names) -> Result<()> {
    let cloudformation = aws_sdk_cloudformation::Client::new(sdk);
    let mut resources = Vec::new();
    let mut pages = cloudformation.list_stack_resources().stack_name(&names.stack).into_paginator().items().send();
    while let Some(page) = pages.next().await {
        match page {
            Err(error) if does_not_exist(&error) => break,
            page => resources.push(page.with_context(|| format!("listing the resources of {}", names.stack))?),
        }
    }
    let mut deleted = vec![delete_stack(sdk, &names.stack).await];
    for resource in resources {
        if let (Some(kind), Some(id)) = (resource.resource_type(), resource.physical_resource_id()) {
            deleted.push(delete_kept(sdk, kind, id).await);
        }
    }
    deleted.push(delete_bucket(sdk, &names.artifacts).await);
    deleted.push(delete_clusters(sdk, names).await);
    let failed: Vec<String> = deleted.into_iter().filter_map(Result::err).map(|error| format!("{error:#}")).collect();
    ensure!(failed.is_empty(), "{}", failed.join("; "));
    Ok(())
}

/// Deletes a resource of a kind that the template keeps, if it is still there.
async fn delete_kept(sdk: &SdkConfig, kind: &str, id: &str) -> Result<()> {
    match kind {
        "AWS::S3::Bucket" => delete_bucket(sdk, id).await,
        "AWS::Kinesis::Stream" => {
            let deleted = aws_sdk_kinesis::Client::new(sdk).delete_stream().stream_name(id).send().await;
            gone(deleted, |error| error.is_resource_not_found_exception())
        }
        "AWS::SQS::Queue" => {
            let deleted = aws_sdk_sqs::Client::new(sdk).delete_queue().queue_url(id).send().await;
            gone(deleted, |error| error.is_queue_does_not_exist())
        }
        _ => Ok(()),
    }
    .with_context(|| format!("deleting {id}"))
}

async fn delete_bucket(sdk: &SdkConfig, name: &str) -> Result<()> {
    let s3 = s3(sdk);
    let mut pages = s3.list_objects_v2().bucket(name).into_paginator().send();
    while let Some(page) = pages.next().await {
        let page = match page {
            Err(error) if error.as_service_error().is_some_and(|error| error.is_no_such_bucket()) => return Ok(()),
            page => page.with_context(|| format!("listing the bucket {name}"))?,
        };
        for key in page.contents().iter().filter_map(|object| object.key()) {
            s3.delete_object().bucket(name).key(key).send().await.with_context(|| format!("deleting {key}"))?;
        }
    }
    s3.delete_bucket().bucket(name).send().await.with_context(|| format!("deleting the bucket {name}"))?;
    Ok(())
}

async fn delete_clusters(sdk: &SdkConfig, names: &Names) -> Result<()> {
    let kafka = aws_sdk_kafka::Client::new(sdk);
    // An emulator without MSK has none.
    let listed = kafka.list_clusters().send().await.map(|listed| listed.cluster_info_list.unwrap_or_default());
    for cluster in listed.unwrap_or_default() {
        if cluster.cluster_name().is_some_and(|name| name == names.stack || name == names.standby_cluster()) {
            kafka
                .delete_cluster()
                .set_cluster_arn(cluster.cluster_arn)
                .send()
                .await
                .context("deleting an MSK cluster")?;
        }
    }
    Ok(())
}

/// Success, also if there was nothing to delete.
fn gone<T, E, R>(deleted: Result<T, SdkError<E, R>>, is_gone: impl FnOnce(&E) -> bool) -> Result<()>
where
    SdkError<E, R>: std::error::Error + Send + Sync + 'static,
{
    match deleted {
        Err(error) if error.as_service_error().is_some_and(is_gone) => Ok(()),
        deleted => deleted.map(drop).map_err(anyhow::Error::from),
    }
}

impl DeployRequest<'_> {
    /// Deploys, and returns the stack's outputs by name.
    ///
    /// # Errors
    /// If the tool fails. The error has the end of its output.
    pub(super) async fn run(self, tools: &Tools) -> Result<BTreeMap<String, String>> {
        let Names { stack, artifacts } = self.names;
        // `--resolve-s3` would deploy another stack just for this.
        create_bucket(self.sdk, artifacts).await?;
        // In a file: anyone on the machine may read the arguments of a process, and one of them is
        // a secret.
        let parameters = self.folder.join("parameters.yaml");
        fs::write(&parameters, serde_json::to_vec(&self.parameters)?)?;
        let file = format!("file://{}", parameters.display());
        let arguments = ["deploy", "--template-file", "template.yaml", "--stack-name", stack, "--s3-bucket", artifacts];
        let options = ["--no-confirm-changeset", "--no-progressbar", "--parameter-overrides", &file];
        let capabilities = ["--capabilities", "CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"];
        let Self { endpoint, region, app, folder, .. } = self;
        let tool = Sam { endpoint, region, app, folder, log: self.log };
        let done = tool.run(tools, &[&arguments[..], &options, &capabilities].concat()).await;
        fs::remove_file(&parameters)?;
        done?;
        Ok(Stack::describe(stack.clone(), self.sdk.clone(), None).await?.outputs)
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
