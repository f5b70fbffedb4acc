//! Every variant of the stack, deployed to the emulator with the commands of `docs/deploy.md`: the
//! stages of `infra/stages` by `samconfig.toml`, and what may be added to them. Each is deployed
//! twice, and the second deployment must change nothing. Then each is deleted, and what may hold
//! events must stay.
//!
//! What the emulator lacks is switched off here, and only that: see [`LACKING`]. The functions are
//! stubs, because none is invoked. The end-to-end tests show what a running stack does.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use aws_sdk_cloudformation::types::{Capability, Parameter};
use local::BareCloud;
use operate::stack::Stack;
use playhead_tests::within;

const EAST: &str = "us-east-1";
const WEST: &str = "us-west-2";
/// How long anything may take: far more than it takes on an idle machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// What the emulator lacks: queries of Logs Insights, clusters to create and their topics, NAT
/// gateways, and CodeDeploy.
const LACKING: [&str; 5] =
    ["SavedQueries=off", "KafkaCluster=existing", "TopicPartitions=0", "NatGateways=0", "Deployment=AllAtOnce"];
const CHEAP: &[&str] = &["file://infra/stages/cheap.yaml", "JwtSecret=0123456789abcdef0123456789abcdef"];
const FULL: &[&str] = &["file://infra/stages/full.yaml"];
const REGIONS: &[&str] = &["file://infra/stages/full.yaml", "file://infra/stages/regions.yaml"];

/// A stack as `sam deploy` makes it.
struct Variant {
    /// Names its logs.
    name: &'static str,
    /// Its name in `samconfig.toml`, without which `sam` takes other settings.
    environment: &'static str,
    /// As that file has them.
    stack: &'static str,
    region: &'static str,
    /// The files and parameters of `--parameter-overrides`.
    parameters: Vec<String>,
    /// Some of the resources that make it this variant.
    has: &'static [&'static str],
}

/// Logical id → type, physical id and status, of a stack and the stacks nested in it.
type Resources = BTreeMap<String, (String, String, String)>;

struct Deployments {
    cloud: BareCloud,
}

impl Deployments {
    fn cloudformation(&self, region: &str) -> aws_sdk_cloudformation::Client {
        aws_sdk_cloudformation::Client::new(&self.cloud.sdk_config(region))
    }

    /// Deploys, and deploys again with the same command.
    async fn twice(&self, variant: &Variant) -> Result<()> {
        self.once(variant).await?;
        self.again(variant).await
    }

    /// Deploys again with the same command.
    async fn again(&self, variant: &Variant) -> Result<()> {
        let before = (self.resources(variant).await?, self.events(variant).await?);
        for id in variant.has {
            ensure!(before.0.contains_key(*id), "{}: no {id} in {:?}", variant.name, before.0.keys());
        }
        let said = self.sam(variant, "again").await?;
        ensure!(said.contains("No changes to deploy"), "{}: the second deployment said\n{said}", variant.name);
        let after = (self.resources(variant).await?, self.events(variant).await?);
        ensure!(before == after, "{}: the second deployment changed {before:?} to {after:?}", variant.name);
        Ok(())
    }

    async fn once(&self, variant: &Variant) -> Result<()> {
        let said = self.sam(variant, "first").await?;
        ensure!(said.contains("Successfully created/updated stack"), "{}: sam said\n{said}", variant.name);
        Ok(())
    }

    async fn sam(&self, variant: &Variant, run: &str) -> Result<String> {
        // The first option answers the question that `sam` asks before it changes a stage like prod.
        let mut arguments = vec!["deploy", "--config-env", variant.environment, "--no-confirm-changeset"];
        arguments.extend(["--no-progressbar", "--parameter-overrides"]);
        arguments.extend(variant.parameters.iter().map(String::as_str));
        self.cloud.sam(&format!("{}-{run}", variant.name), &arguments).await
    }

    async fn resources(&self, variant: &Variant) -> Result<Resources> {
        let client = self.cloudformation(variant.region);
        let (mut found, mut stacks) = (Resources::new(), vec![variant.stack.to_owned()]);
        while let Some(stack) = stacks.pop() {
            let mut pages = client.list_stack_resources().stack_name(&stack).into_paginator().items().send();
            while let Some(resource) = pages.try_next().await? {
                let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
                let [id, kind, physical] =
                    [resource.logical_resource_id(), resource.resource_type(), resource.physical_resource_id()]
                        .map(text);
                if kind == "AWS::CloudFormation::Stack" {
                    stacks.push(physical.clone());
                }
                let status = text(resource.resource_status().map(|status| status.as_str()));
                // Nested stacks have ids of their own, and a second Kafka cluster has those of the first.
                let id = if stack == variant.stack { id } else { format!("{stack}/{id}") };
                found.insert(id, (kind, physical, status));
            }
        }
        Ok(found)
    }

    /// The ids of all that happened to it and to the stacks nested in it.
    async fn events(&self, variant: &Variant) -> Result<BTreeSet<String>> {
        let client = self.cloudformation(variant.region);
        let nested = self.resources(variant).await?.into_values();
        let nested = nested.filter(|(kind, ..)| kind == "AWS::CloudFormation::Stack").map(|(_, stack, _)| stack);
        let mut found = BTreeSet::new();
        for stack in nested.chain([variant.stack.to_owned()]) {
            let mut pages = client.describe_stack_events().stack_name(stack).into_paginator().send();
            while let Some(page) = pages.try_next().await? {
                found.extend(page.stack_events().iter().filter_map(|event| event.event_id().map(str::to_owned)));
            }
        }
        ensure!(found.len() > 100, "{}: only {} events", variant.name, found.len());
        Ok(found)
    }

    /// Deletes the stack: its functions go, and its streams, queues and buckets stay. By the API that
    /// `sam delete` calls, because that one cannot read an emulator's URLs of packages.
    async fn delete(&self, variant: &Variant) -> Result<()> {
        let sdk = self.cloud.sdk_config(variant.region);
        let resources = self.resources(variant).await?;
        let client = self.cloudformation(variant.region);
        let described = client.describe_stacks().stack_name(variant.stack).send().await?;
        let id = described.stacks().first().and_then(|stack| stack.stack_id()).context("a stack without an id")?;
        client.delete_stack().stack_name(variant.stack).send().await?;
        within(PATIENCE, "the deletion", async || {
            let now = client.describe_stacks().stack_name(id).send().await?;
            let status = now.stacks().first().and_then(|stack| stack.stack_status()).context("no status")?;
            Ok((status.as_str() == "DELETE_COMPLETE").then_some(()))
        })
        .await?;
        let (kinesis, sqs) = (aws_sdk_kinesis::Client::new(&sdk), aws_sdk_sqs::Client::new(&sdk));
        let (s3, lambda) = (aws_sdk_s3::Client::new(&sdk), aws_sdk_lambda::Client::new(&sdk));
        let mut seen = BTreeMap::new();
        // Not those of nested stacks, which the emulator deletes whatever their template says.
        for (id, (kind, physical, _)) in resources.iter().filter(|(id, _)| !id.contains('/')) {
            let (is_there, should_be) = match kind.as_str() {
                "AWS::Kinesis::Stream" => {
                    (kinesis.describe_stream_summary().stream_name(physical).send().await.is_ok(), true)
                }
                "AWS::SQS::Queue" => (sqs.get_queue_attributes().queue_url(physical).send().await.is_ok(), true),
                "AWS::S3::Bucket" => (s3.head_bucket().bucket(physical).send().await.is_ok(), true),
                "AWS::Lambda::Function" => (lambda.get_function().function_name(physical).send().await.is_ok(), false),
                _ => continue,
            };
            ensure!(is_there == should_be, "{}: after the deletion, is {id} there? {is_there}", variant.name);
            *seen.entry(kind.as_str()).or_insert(0) += 1;
        }
        // At least the queues `inbound`, `retry` and `dead-letter`, and the change feed's stream.
        let enough =
            [("AWS::SQS::Queue", 3), ("AWS::Kinesis::Stream", 1), ("AWS::S3::Bucket", 1), ("AWS::Lambda::Function", 5)];
        for (kind, least) in enough {
            ensure!(seen.get(kind).is_some_and(|count| *count >= least), "{}: {seen:?}", variant.name);
        }
        Ok(())
    }

    /// What `docs/deploy.md` says must go before a stack of the same name can be deployed again.
    async fn delete_inbound(&self, variant: &Variant) -> Result<()> {
        let sqs = aws_sdk_sqs::Client::new(&self.cloud.sdk_config(variant.region));
        let queue = sqs.get_queue_url().queue_name(format!("{}-inbound", variant.stack)).send().await?;
        sqs.delete_queue().queue_url(queue.queue_url().context("a queue without a URL")?).send().await?;
        Ok(())
    }

    /// A stack of one template that is deployed by itself. Returns its outputs.
    async fn alone(
        &self,
        stack: &str,
        template: &str,
        parameters: &[(&str, &str)],
    ) -> Result<BTreeMap<String, String>> {
        let client = self.cloudformation(EAST);
        let body = fs::read_to_string(operate::workspace_root()?.join(template))?;
        let given = parameters
            .iter()
            .map(|(name, value)| Parameter::builder().parameter_key(*name).parameter_value(*value).build());
        let create = client.create_stack().stack_name(stack).template_body(body);
        create.set_parameters(Some(given.collect())).capabilities(Capability::CapabilityIam).send().await?;
        within(PATIENCE, stack, async || {
            let now = client.describe_stacks().stack_name(stack).send().await?;
            let status = now.stacks().first().and_then(|stack| stack.stack_status()).context("no status")?;
            match status.as_str() {
                "CREATE_COMPLETE" => Ok(Some(())),
                "CREATE_IN_PROGRESS" => Ok(None),
                other => bail!("{stack} is {other}"),
            }
        })
        .await?;
        Ok(Stack::describe(stack.to_owned(), self.cloud.sdk_config(EAST), None).await?.outputs)
    }

    /// The cheap stage, which then gets a standby; and everything that may be added to a full one.
    async fn streams_and_everything(&self, cheap: &Variant) -> Result<()> {
        self.again(cheap).await?;
        let alone = self.resources(cheap).await?;
        let standby = Variant {
            name: "standby",
            parameters: with(&[CHEAP, &["StandbyLog=kinesis"]], &LACKING[..1]),
            has: &["EventsStream", "StandbyStream", "ProcessStandbyStreamMapping"],
            ..*cheap
        };
        self.twice(&standby).await?;
        let both = self.resources(cheap).await?;
        let added: Vec<_> = both.keys().filter(|id| !alone.contains_key(*id) && !id.contains("Version")).collect();
        ensure!(added.iter().any(|id| *id == "StandbyStream"), "added: {added:?}");
        let physical = |resources: &Resources| resources["EventsStream"].1.clone();
        ensure!(physical(&alone) == physical(&both), "a standby replaces the primary log");
        self.delete(&standby).await?;

        self.delete_inbound(&standby).await?;
        let key = &self.alone("data-key", "infra/data-key.yaml", &[]).await?["DataKeyArn"];
        let (primary, second) = (self.cluster(EAST, "first").await?, self.cluster(EAST, "second").await?);
        let chosen = [
            "Stage=other",
            "StandbyLog=kafka",
            "PageUrl=https://pager.example/x",
            "ChangeArchive=on",
            "IngestProvisioned=2",
            "QueryProvisioned=2",
            "IngestConcurrency=20",
            "MinimumPollers=2",
            "MaximumPollers=10",
            "PollerGroup=quiet",
        ];
        let mut parameters = with(&[FULL, &chosen], &LACKING);
        parameters.extend([
            format!("KafkaClusterArn={primary}"),
            format!("StandbyKafkaClusterArn={second}"),
            format!("DataKeyArn={key}"),
        ]);
        let everything = Variant {
            name: "everything",
            parameters,
            has: &["ProcessStandbyLogMapping", "ChangeArchiveStack", "AlarmTopics", "Network", "StandbyKafka"],
            ..*cheap
        };
        self.twice(&everything).await?;
        // Where `cargo playhead topics` looks for the clusters.
        let stack = Stack::describe(everything.stack.to_owned(), self.cloud.sdk_config(EAST), None).await?;
        for (id, arn) in [("Kafka", &primary), ("StandbyKafka", &second)] {
            ensure!(stack.nested(id).await?.output("ClusterArn")? == arn, "the stack {id} has another cluster");
        }
        self.delete(&everything).await
    }

    /// The full stage, and the same in two regions.
    async fn full_and_regions(&self) -> Result<()> {
        let cluster = self.cluster(EAST, "full").await?;
        let on = |cluster: &str| format!("KafkaClusterArn={cluster}");
        let mut parameters = with(&[FULL], &LACKING);
        parameters.push(on(&cluster));
        let full = Variant {
            name: "full",
            environment: "full",
            stack: "playhead",
            region: EAST,
            parameters,
            has: &["ProcessLogMapping", "StandbyStream", "AlarmTopics", "Network", "PublishFunction"],
        };
        self.twice(&full).await?;
        self.delete(&full).await?;

        self.delete_inbound(&full).await?;
        let table = [("Stage", "prod"), ("TableName", "playhead-views"), ("SecondRegion", WEST)];
        self.alone("playhead-views", "infra/views-global-table.yaml", &table).await?;
        let dynamodb = aws_sdk_dynamodb::Client::new(&self.cloud.sdk_config(EAST));
        let table = dynamodb.describe_table().table_name("playhead-views").send().await?.table;
        let label = table.and_then(|table| table.latest_stream_label).context("the table has no stream")?;
        // AWS's labels have no zone.
        let label = label.trim_end_matches('Z');
        let has = &["ForwardFunction", "ForwardLogMapping", "RemoteStandbyStream", "Network"];
        let mut parameters = with(&[REGIONS], &LACKING);
        parameters.extend([on(&cluster), format!("ViewsStreamLabel={label}")]);
        let east = Variant { name: "east", parameters, has, ..full };
        self.twice(&east).await?;
        // The emulator makes no replica of the table, so this region has no change feed.
        let mut parameters = with(&[REGIONS], &LACKING);
        parameters.push(on(&self.cluster(WEST, "west").await?));
        let west = Variant { name: "west", environment: "full-west", region: WEST, parameters, has, ..full };
        self.twice(&west).await?;
        self.delete(&east).await?;
        self.delete(&west).await
    }

    async fn cluster(&self, region: &str, name: &str) -> Result<String> {
        self.cloud.create_cluster(region, name).await
    }
}

/// All of them. A later value of a parameter counts.
fn with(chosen: &[&[&str]], lacking: &[&str]) -> Vec<String> {
    chosen.concat().into_iter().chain(lacking.iter().copied()).map(str::to_owned).collect()
}

#[tokio::test]
async fn each_variant_deploys_and_a_second_deployment_changes_nothing() -> Result<()> {
    let deployments = Deployments { cloud: BareCloud::start("variants").await? };
    let cheap = Variant {
        name: "cheap",
        environment: "cheap",
        stack: "playhead-dev",
        region: EAST,
        parameters: with(&[CHEAP], &LACKING[..1]),
        has: &["EventsStream", "ProcessStreamMapping", "ViewsTable", "ViewChangesStream"],
    };
    // Alone, because the first deployment of an account also makes the bucket for packages.
    deployments.once(&cheap).await?;
    tokio::try_join!(deployments.streams_and_everything(&cheap), deployments.full_and_regions())?;
    Ok(())
}
