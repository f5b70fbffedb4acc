//! Which stack an operation works on: that of the running local cloud, or one on AWS.

use crate::local::Endpoints;
use crate::local::command::running;
use anyhow::{Context as _, Result};
use aws_config::{BehaviorVersion, Region, SdkConfig};
use std::collections::BTreeMap;

/// Arguments of every operation.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Which {
    /// Work on this CloudFormation stack on AWS, with the credentials of the environment, rather than on the local cloud
    #[arg(long, value_name = "NAME")]
    pub stack: Option<String>,
    /// The stack's region, unless the environment names it
    #[arg(long, value_name = "REGION", requires = "stack")]
    pub region: Option<String>,
}

/// A stack that was found.
#[derive(Debug)]
pub struct Stack {
    /// Its name.
    pub name: String,
    /// Configuration of clients for its region.
    pub sdk: SdkConfig,
    /// The local cloud that it is in, if it is.
    pub local: Option<Endpoints>,
    /// Its outputs by name.
    pub(crate) outputs: BTreeMap<String, String>,
    parameters: BTreeMap<String, String>,
}

impl Which {
    /// Finds the stack, and reads its outputs and parameters.
    ///
    /// # Errors
    /// If no local cloud is running, or there is no such stack, or it may not be described.
    pub async fn find(&self) -> Result<Stack> {
        match &self.stack {
            None => Stack::local(running()?).await,
            Some(name) => {
                let mut config = aws_config::defaults(BehaviorVersion::latest());
                if let Some(region) = &self.region {
                    config = config.region(Region::new(region.clone()));
                }
                Stack::describe(name.clone(), config.load().await, None).await
            }
        }
    }
}

impl Stack {
    /// The stack of a local cloud.
    ///
    /// # Errors
    /// If it cannot be described.
    pub async fn local(endpoints: Endpoints) -> Result<Self> {
        Self::describe(endpoints.stack.clone(), endpoints.sdk_config(), Some(endpoints)).await
    }

    /// The stack of this name, in the account and region of `sdk`.
    ///
    /// # Errors
    /// If there is none, or it may not be described.
    pub(crate) async fn describe(name: String, sdk: SdkConfig, local: Option<Endpoints>) -> Result<Self> {
        let described = aws_sdk_cloudformation::Client::new(&sdk).describe_stacks().stack_name(&name).send().await;
        let described = described.with_context(|| format!("describing the stack {name}"))?;
        let stack = described.stacks().first().with_context(|| format!("there is no stack {name}"))?;
        let outputs = stack.outputs().iter().filter_map(|output| Some((output.output_key()?, output.output_value()?)));
        let parameters = stack.parameters().iter();
        let parameters = parameters.filter_map(|given| Some((given.parameter_key()?, given.parameter_value()?)));
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let (outputs, parameters) = (outputs.map(owned).collect(), parameters.map(owned).collect());
        Ok(Self { name, outputs, parameters, sdk, local })
    }

    /// An output of the template.
    ///
    /// # Errors
    /// If the stack has none of that name.
    pub fn output(&self, name: &str) -> Result<&str> {
        let value = self.outputs.get(name).map(String::as_str);
        value.with_context(|| format!("the stack {} has no output {name}: is it one of Playhead's?", self.name))
    }

    /// A parameter of the template.
    ///
    /// # Errors
    /// If the stack has none of that name.
    pub fn parameter(&self, name: &str) -> Result<&str> {
        let value = self.parameters.get(name).map(String::as_str);
        value.with_context(|| format!("the stack {} has no parameter {name}: is it one of Playhead's?", self.name))
    }

    /// Names of the functions, which are a dimension of every metric.
    #[must_use]
    pub fn functions(&self) -> Vec<&str> {
        let names = self.outputs.iter().filter(|(name, _)| name.ends_with("FunctionName"));
        names.map(|(_, function)| function.as_str()).collect()
    }
}
