//! The settings of a mapping, read from its stack.
//!
//! The emulator's `ListEventSourceMappings` omits topics, consumer group and poller settings, so
//! they are read from the processed template. Ids and ARNs come from the stack's resources and the
//! mapping itself. Defaults are those of the AWS Lambda Developer Guide, "All Amazon MSK event
//! source configuration parameters in Lambda" and "Lambda parameters for Amazon Kinesis Data
//! Streams event source mappings".

use std::collections::{BTreeSet, HashMap};

use anyhow::{Context as _, bail, ensure};
use aws_config::SdkConfig;
use aws_sdk_cloudformation::types::TemplateStage;
use serde_json::Value;

use super::core::Batching;
use super::failure::{Destination, Mapping};
use super::record::Stream;
use super::settle::Policy;

/// Payload limit of a synchronous invocation, in bytes.
const PAYLOAD_LIMIT: usize = 6 * 1024 * 1024;
/// Maximum number of invocations at a time on one machine, whatever the mapping allows.
const MAX_CONCURRENCY: usize = 8;
/// Default batching window of Kafka mappings, in milliseconds.
const DEFAULT_WINDOW_MS: i64 = 500;
/// Lambda's limit for "unlimited" retries on Kafka if there is a destination.
const RETRIES_BEFORE_DESTINATION: u32 = 10;

/// Where a mapping starts if it has committed nothing yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StartingPosition {
    TrimHorizon,
    Latest,
}

/// The log that the mapping reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    Kafka {
        event_source_arn: String,
        topic: String,
        group_id: String,
    },
    Kinesis(Stream),
    /// The ARN of a table's stream.
    Table(String),
}

/// Everything that the poller needs to know about a mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) mapping: Mapping,
    pub(super) origin: Origin,
    pub(super) starting_position: StartingPosition,
    pub(super) batching: Batching,
    pub(super) policy: Policy,
    pub(super) destination: Option<Destination>,
}

/// What comes from the stack and the mapping, not from the template.
#[derive(Debug, Clone, Default)]
struct Deployed {
    stack: String,
    uuid: String,
    function_arn: String,
    /// ARN of the function's role.
    role: String,
    event_source_arn: String,
    parameters: HashMap<String, String>,
    /// Logical id → (type, physical id).
    resources: HashMap<String, (String, String)>,
}

impl Settings {
    /// Reads the settings of the mapping `logical_id` of `stack`.
    ///
    /// # Errors
    /// If the stack, the mapping or the template cannot be read, or the template asks for something
    /// that is not emulated.
    pub(super) async fn load(sdk: &SdkConfig, stack: &str, logical_id: &str) -> anyhow::Result<Self> {
        let cloudformation = aws_sdk_cloudformation::Client::new(sdk);
        let body = cloudformation
            .get_template()
            .stack_name(stack)
            .template_stage(TemplateStage::Processed)
            .send()
            .await
            .with_context(|| format!("getting the processed template of the stack {stack}"))?
            .template_body
            .with_context(|| format!("the stack {stack} has no template"))?;
        let template: Value = serde_json::from_str(&body).with_context(|| {
            format!("the processed template of the stack {stack} is not JSON (does it use the SAM transform?)")
        })?;

        let parameters = cloudformation
            .describe_stacks()
            .stack_name(stack)
            .send()
            .await
            .with_context(|| format!("describing the stack {stack}"))?
            .stacks
            .into_iter()
            .flatten()
            .flat_map(|stack| stack.parameters.unwrap_or_default())
            .filter_map(|p| Some((p.parameter_key?, p.resolved_value.or(p.parameter_value)?)))
            .collect();
        let resources = resources(&cloudformation, stack).await?;
        let (_, uuid) = resources
            .get(logical_id)
            .with_context(|| format!("the stack {stack} has no resource {logical_id}"))?
            .clone();
        let lambda = aws_sdk_lambda::Client::new(sdk);
        let mapping = lambda
            .get_event_source_mapping()
            .uuid(&uuid)
            .send()
            .await
            .with_context(|| format!("getting the event source mapping {uuid} ({logical_id})"))?;
        let function_arn = mapping.function_arn.with_context(|| format!("the mapping {uuid} has no function"))?;
        let function = lambda.get_function_configuration().function_name(&function_arn).send().await;
        let function = function.with_context(|| format!("getting the configuration of {function_arn}"))?;
        let deployed = Deployed {
            stack: stack.to_owned(),
            role: function.role.with_context(|| format!("{function_arn} has no role"))?,
            function_arn,
            event_source_arn: mapping
                .event_source_arn
                .with_context(|| format!("the mapping {uuid} has no event source"))?,
            uuid,
            parameters,
            resources,
        };
        Self::parse(&template, logical_id, &deployed)
            .with_context(|| format!("settings of {logical_id} in the stack {stack}"))
    }

    fn parse(template: &Value, logical_id: &str, deployed: &Deployed) -> anyhow::Result<Self> {
        let resource = &template["Resources"][logical_id];
        ensure!(
            resource["Type"] == "AWS::Lambda::EventSourceMapping",
            "expected an AWS::Lambda::EventSourceMapping, found {}",
            resource["Type"]
        );
        let properties = Properties { values: &resource["Properties"], template, deployed };
        let origin = properties.origin()?;
        let on_kafka = matches!(origin, Origin::Kafka { .. });
        let starting_position = match properties.get("/StartingPosition")?.as_str() {
            Some("TRIM_HORIZON") => StartingPosition::TrimHorizon,
            Some("LATEST") => StartingPosition::Latest,
            other => bail!("StartingPosition {other:?} is not emulated"),
        };
        let destination = match properties.get("/DestinationConfig/OnFailure/Destination")? {
            Value::Null => None,
            Value::String(arn) if arn.is_empty() => None,
            Value::String(arn) => Some(Destination::from_arn(&arn)?),
            other => bail!("the on-failure destination must be an ARN, not {other}"),
        };
        let max_retries = match properties.integer("/MaximumRetryAttempts")?.unwrap_or(-1) {
            -1 if on_kafka && destination.is_some() => Some(RETRIES_BEFORE_DESTINATION),
            -1 => None,
            retries => Some(u32::try_from(retries).context("MaximumRetryAttempts")?),
        };
        let max_age_ms = match properties.integer("/MaximumRecordAgeInSeconds")?.unwrap_or(-1) {
            -1 => None,
            seconds => Some(seconds * 1_000),
        };
        let size = properties.integer("/BatchSize")?.unwrap_or(100);
        ensure!((1..=10_000).contains(&size), "BatchSize is {size}; it must be between 1 and 10000");
        let window = properties.integer("/MaximumBatchingWindowInSeconds")?.map(|seconds| seconds * 1_000);
        let pollers = properties.integer("/ProvisionedPollerConfig/MaximumPollers")?.unwrap_or(200);
        Ok(Self {
            mapping: Mapping { uuid: deployed.uuid.clone(), function_arn: deployed.function_arn.clone() },
            origin,
            starting_position,
            batching: Batching {
                size: usize::try_from(size)?,
                window_ms: window.unwrap_or(if on_kafka { DEFAULT_WINDOW_MS } else { 0 }),
                payload_limit: PAYLOAD_LIMIT,
                concurrency: usize::try_from(pollers)?.clamp(1, MAX_CONCURRENCY),
            },
            policy: Policy {
                max_retries,
                max_age_ms,
                bisect: properties.flag("/BisectBatchOnFunctionError")?,
                partial_answers: properties
                    .get("/FunctionResponseTypes")?
                    .as_array()
                    .is_some_and(|types| types.iter().any(|t| t == "ReportBatchItemFailures")),
            },
            destination,
        })
    }
}

/// Logical id → (type, physical id).
async fn resources(
    cloudformation: &aws_sdk_cloudformation::Client,
    stack: &str,
) -> anyhow::Result<HashMap<String, (String, String)>> {
    let described = cloudformation.describe_stack_resources().stack_name(stack).send().await;
    let described = described.with_context(|| format!("describing the resources of the stack {stack}"))?;
    let resources = described.stack_resources.into_iter().flatten();
    Ok(resources.filter_map(|r| Some((r.logical_resource_id?, (r.resource_type?, r.physical_resource_id?)))).collect())
}

/// Logical ids of the stack's event source mappings.
///
/// # Errors
/// If the stack's resources cannot be read.
pub(super) async fn deployed_mappings(sdk: &SdkConfig, stack: &str) -> anyhow::Result<BTreeSet<String>> {
    let resources = resources(&aws_sdk_cloudformation::Client::new(sdk), stack).await?;
    let mappings = resources.into_iter().filter(|(_, (kind, _))| kind == "AWS::Lambda::EventSourceMapping");
    Ok(mappings.map(|(logical_id, _)| logical_id).collect())
}

/// Switches off the endpoint's own polling of these mappings, so that nothing is delivered twice.
///
/// # Errors
/// If the endpoint refuses.
pub(super) async fn disable(sdk: &SdkConfig, stack: &str, is_ours: impl Fn(&str) -> bool) -> anyhow::Result<()> {
    let lambda = aws_sdk_lambda::Client::new(sdk);
    for (logical_id, (kind, uuid)) in resources(&aws_sdk_cloudformation::Client::new(sdk), stack).await? {
        if kind == "AWS::Lambda::EventSourceMapping" && is_ours(&logical_id) {
            let disabled = lambda.update_event_source_mapping().uuid(uuid).enabled(false).send().await;
            disabled.with_context(|| format!("disabling the mapping {logical_id}"))?;
        }
    }
    Ok(())
}

/// The properties of the mapping's resource. Reading one resolves intrinsic functions.
struct Properties<'a> {
    values: &'a Value,
    template: &'a Value,
    deployed: &'a Deployed,
}

impl Properties<'_> {
    /// The log that the mapping reads: a stream if the ARN is a stream's, otherwise a topic.
    fn origin(&self) -> anyhow::Result<Origin> {
        let Deployed { event_source_arn, uuid, role, .. } = self.deployed;
        if event_source_arn.split(':').nth(2) == Some("kinesis") {
            return Ok(Origin::Kinesis(Stream { arn: event_source_arn.clone(), role: role.clone() }));
        }
        if event_source_arn.split(':').nth(2) == Some("dynamodb") {
            return Ok(Origin::Table(event_source_arn.clone()));
        }
        let topics = self.get("/Topics")?;
        let topic = match topics.as_array().map(Vec::as_slice) {
            Some([Value::String(topic)]) => topic.clone(),
            _ => bail!("Topics must name exactly one topic, not {topics}"),
        };
        let group_id = match self.get("/AmazonManagedKafkaEventSourceConfig/ConsumerGroupId")? {
            Value::Null => uuid.clone(),
            Value::String(group) => group,
            other => bail!("ConsumerGroupId must be a string, not {other}"),
        };
        Ok(Origin::Kafka { event_source_arn: event_source_arn.clone(), topic, group_id })
    }

    /// The value at a JSON pointer; null if there is none.
    fn get(&self, pointer: &str) -> anyhow::Result<Value> {
        let value = self.values.pointer(pointer).unwrap_or(&Value::Null);
        self.resolve(value).with_context(|| pointer.to_owned())
    }

    fn integer(&self, pointer: &str) -> anyhow::Result<Option<i64>> {
        match self.get(pointer)? {
            Value::Null => Ok(None),
            Value::String(text) => Ok(Some(text.parse().with_context(|| pointer.to_owned())?)),
            value => match value.as_i64() {
                Some(number) => Ok(Some(number)),
                None => bail!("{pointer} must be a whole number, not {value}"),
            },
        }
    }

    fn flag(&self, pointer: &str) -> anyhow::Result<bool> {
        match self.get(pointer)? {
            Value::Null => Ok(false),
            Value::Bool(flag) => Ok(flag),
            Value::String(text) => text.parse().with_context(|| pointer.to_owned()),
            value => bail!("{pointer} must be true or false, not {value}"),
        }
    }

    fn resolve(&self, value: &Value) -> anyhow::Result<Value> {
        match value {
            Value::Array(items) => items.iter().map(|item| self.resolve(item)).collect(),
            Value::Object(object) if object.len() == 1 => {
                let Some((name, argument)) = object.iter().next() else {
                    return Ok(value.clone());
                };
                match (name.as_str(), argument) {
                    ("Ref", Value::String(name)) => self.reference(name),
                    ("Fn::GetAtt", Value::String(path)) => self.attribute(path),
                    ("Fn::GetAtt", Value::Array(path)) => {
                        let path: Option<Vec<_>> = path.iter().map(Value::as_str).collect();
                        self.attribute(&path.context("Fn::GetAtt must have names")?.join("."))
                    }
                    ("Fn::Sub", Value::String(text)) => self.substitute(text),
                    (name, _) if name == "Ref" || name.starts_with("Fn::") => {
                        bail!("{value} is not supported")
                    }
                    _ => Ok(value.clone()),
                }
            }
            _ => Ok(value.clone()),
        }
    }

    fn reference(&self, name: &str) -> anyhow::Result<Value> {
        if let Some(value) = self.pseudo_parameter(name) {
            return Ok(value);
        }
        let default = || match &self.template["Parameters"][name]["Default"] {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        };
        let physical = || self.deployed.resources.get(name).map(|(_, id)| id.clone());
        self.deployed
            .parameters
            .get(name)
            .cloned()
            .or_else(physical)
            .or_else(default)
            .map(Value::String)
            .with_context(|| format!("Ref {name}: no such parameter or resource"))
    }

    /// Account, region and partition come from the function's ARN.
    fn pseudo_parameter(&self, name: &str) -> Option<Value> {
        let arn = |index| self.deployed.function_arn.split(':').nth(index).map(Value::from);
        match name {
            "AWS::NoValue" => Some(Value::Null),
            "AWS::StackName" => Some(self.deployed.stack.as_str().into()),
            "AWS::Partition" => arn(1),
            "AWS::Region" => arn(3),
            "AWS::AccountId" => arn(4),
            _ => None,
        }
    }

    fn attribute(&self, path: &str) -> anyhow::Result<Value> {
        let (name, attribute) = path.split_once('.').with_context(|| format!("Fn::GetAtt {path}"))?;
        let (kind, id) =
            self.deployed.resources.get(name).with_context(|| format!("Fn::GetAtt {path}: no such resource"))?;
        let form = match (kind.as_str(), attribute) {
            (_, "Arn") if id.starts_with("arn:") => return Ok(id.as_str().into()),
            ("AWS::S3::Bucket", "Arn") => "arn:${AWS::Partition}:s3:::",
            ("AWS::SQS::Queue", "Arn") => "arn:${AWS::Partition}:sqs:${AWS::Region}:${AWS::AccountId}:",
            _ => bail!("Fn::GetAtt {path} of {kind} is not supported"),
        };
        // The physical id of a queue is its URL, which ends with its name.
        let name = id.rsplit('/').next().unwrap_or(id);
        self.substitute(&format!("{form}{name}"))
    }

    fn substitute(&self, text: &str) -> anyhow::Result<Value> {
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            let (name, tail) =
                after.split_once('}').with_context(|| format!("Fn::Sub {text}: a brace is not closed"))?;
            out.push_str(before);
            if let Some(literal) = name.strip_prefix('!') {
                out.push_str(&format!("${{{literal}}}"));
            } else {
                let value = if name.contains('.') { self.attribute(name)? } else { self.reference(name)? };
                out.push_str(value.as_str().unwrap_or_default());
            }
            rest = tail;
        }
        out.push_str(rest);
        Ok(out.into())
    }
}

#[cfg(test)]
mod tests;
