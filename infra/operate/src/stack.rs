//! Which stack a command works on: that of the running local cloud, or one on AWS.

use crate::endpoints::Endpoints;
use crate::run::running;
use anyhow::{Context as _, Result};
use aws_config::{BehaviorVersion, Region, SdkConfig};
use playback::routing::Regions;
use std::collections::BTreeMap;

/// Arguments that select the stack.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Which {
    /// Work on this CloudFormation stack on AWS, with the environment's credentials [default: the
    /// local cloud]
    #[arg(long, value_name = "NAME", global = true)]
    pub stack: Option<String>,
    /// The stack's region [default: the environment's]
    #[arg(long, value_name = "REGION", requires = "stack", global = true)]
    pub region: Option<String>,
}

/// A stack that was found.
#[derive(Debug)]
pub struct Stack {
    /// Its name.
    pub name: String,
    /// Configuration of clients for its region.
    pub sdk: SdkConfig,
    /// The local cloud that it runs in, if any.
    pub local: Option<Endpoints>,
    /// Its outputs by name.
    pub outputs: BTreeMap<String, String>,
    parameters: BTreeMap<String, String>,
}

impl Which {
    /// Finds the stack, and reads its outputs and parameters.
    ///
    /// # Errors
    /// If no local cloud is running, the stack does not exist, or access is denied.
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

/// The same stack in all of its regions, with what is needed to work on all of them.
#[derive(Debug, Clone)]
pub struct Deployment {
    /// Name of the stacks.
    pub name: String,
    /// Its regions, as seen from the one where its stack was found.
    pub regions: Regions,
    /// Configuration of clients for each region, by its name.
    pub sdks: BTreeMap<String, SdkConfig>,
    /// Name of the SSM parameter that holds the routing document, the same in each region.
    pub routing_parameter: String,
    /// Whether there is a standby log.
    pub has_standby: bool,
    /// Whether it runs in the local cloud.
    pub is_local: bool,
}

impl Which {
    /// Finds the deployment that the stack belongs to. Only the stack itself is asked: another
    /// region may be down.
    ///
    /// # Errors
    /// As [`Which::find`], or if the stack's list of regions is invalid.
    pub async fn find_all(&self) -> Result<Deployment> {
        if self.stack.is_none() {
            return Deployment::local(&running()?);
        }
        let found = self.find().await;
        Deployment::of(&found.context("if that region is down, choose another one of the deployment with --region")?)
    }
}

impl Deployment {
    /// A running local cloud and its peers.
    ///
    /// # Errors
    /// If their regions do not form one deployment.
    pub fn local(endpoints: &Endpoints) -> Result<Self> {
        let clouds: Vec<&Endpoints> = std::iter::once(endpoints).chain(&endpoints.peers).collect();
        let names: Vec<&str> = clouds.iter().map(|cloud| cloud.region.as_str()).collect();
        Ok(Self {
            name: endpoints.stack.clone(),
            regions: Regions::parse(&endpoints.region, &names.join(","))?,
            sdks: clouds.iter().map(|cloud| (cloud.region.clone(), cloud.sdk_config())).collect(),
            routing_parameter: endpoints.routing_parameter.clone(),
            has_standby: endpoints.standby_stream.is_some() || endpoints.standby_bootstrap.is_some(),
            is_local: true,
        })
    }

    /// The stacks of this name in all regions that this stack's parameter `Regions` lists.
    fn of(stack: &Stack) -> Result<Self> {
        let here = stack.sdk.region().context("no region: set it with --region")?.to_string();
        let regions = Regions::parse(&here, stack.parameter("Regions")?)
            .with_context(|| format!("the parameter Regions of the stack {} in {here}", stack.name))?;
        let sdk = |name: &str| stack.sdk.to_builder().region(Region::new(name.to_owned())).build();
        Ok(Self {
            name: stack.name.clone(),
            sdks: regions.all().map(|region| (region.name.clone(), sdk(&region.name))).collect(),
            regions,
            routing_parameter: stack.output("RoutingParameterName")?.to_owned(),
            has_standby: stack.parameter("StandbyLog")? != "none",
            is_local: false,
        })
    }

    /// The arguments with which another command finds it, each after a space.
    #[must_use]
    pub fn arguments(&self) -> String {
        match self.is_local {
            true => String::new(),
            false => format!(" --stack {} --region {}", self.name, self.regions.here().name),
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
    /// If it does not exist, or access is denied.
    pub async fn describe(name: String, sdk: SdkConfig, local: Option<Endpoints>) -> Result<Self> {
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

    /// The stack that this resource nests.
    ///
    /// # Errors
    /// If there is none, or access is denied.
    pub async fn nested(&self, id: &str) -> Result<Self> {
        let client = aws_sdk_cloudformation::Client::new(&self.sdk);
        let found = client.describe_stack_resource().stack_name(&self.name).logical_resource_id(id).send().await;
        let found = found.with_context(|| format!("describing the stack {id} in the stack {}", self.name))?;
        let nested = found.stack_resource_detail().and_then(|resource| resource.physical_resource_id());
        let nested = nested.with_context(|| format!("the stack {} has no stack {id}", self.name))?;
        Self::describe(nested.to_owned(), self.sdk.clone(), None).await
    }

    /// An output of the template.
    ///
    /// # Errors
    /// If the stack does not have it.
    pub fn output(&self, name: &str) -> Result<&str> {
        let value = self.outputs.get(name).map(String::as_str);
        value.with_context(|| format!("the stack {} has no output {name}: is it a Playhead stack?", self.name))
    }

    /// A parameter of the template.
    ///
    /// # Errors
    /// If the stack does not have it.
    pub fn parameter(&self, name: &str) -> Result<&str> {
        let value = self.parameters.get(name).map(String::as_str);
        value.with_context(|| format!("the stack {} has no parameter {name}: is it a Playhead stack?", self.name))
    }

    /// Names of the functions. Each is a dimension of its metrics.
    #[must_use]
    pub fn functions(&self) -> Vec<&str> {
        let names = self.outputs.iter().filter(|(name, _)| name.ends_with("FunctionName"));
        names.map(|(_, function)| function.as_str()).collect()
    }
}
