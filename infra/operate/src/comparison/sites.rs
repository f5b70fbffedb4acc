//! What a deployment has in each region to migrate from a legacy system: its endpoint, and
//! `compare`.

use crate::stack::{Deployment, Stack};
use aws_config::SdkConfig;
use futures::future::join_all;
use std::collections::BTreeMap;

/// One region of a deployment.
#[derive(Debug, Clone)]
pub struct Site {
    /// Configuration of clients for the region.
    pub sdk: SdkConfig,
    /// The legacy system that `ingest` passes requests on to, if there is one.
    pub legacy_endpoint: Option<String>,
    /// The bucket of comparison reports, if `compare` is deployed.
    pub reports_bucket: Option<String>,
    /// The Lambda function `compare`, if it is deployed.
    pub compare_function: Option<String>,
    /// The tables with profiles: the views, and the shadow views if there are any.
    pub tables: Vec<String>,
}

/// The site of every region, or why it is unavailable.
#[derive(Debug, Clone, Default)]
pub struct Sites(pub BTreeMap<String, Result<Site, String>>);

impl Sites {
    /// Describes the stack in all regions at once.
    pub async fn find(deployment: &Deployment) -> Self {
        let asked = deployment.sdks.iter().map(|(region, sdk)| async move {
            let stack = Stack::describe(deployment.name.clone(), sdk.clone(), None).await;
            (region.clone(), stack.map(|stack| Site::of(&stack)).map_err(|error| format!("{error:#}")))
        });
        Self(join_all(asked).await.into_iter().collect())
    }

    /// The regions that were reached, by name.
    pub fn reached(&self) -> impl Iterator<Item = (&str, &Site)> {
        self.0.iter().filter_map(|(region, site)| Some((region.as_str(), site.as_ref().ok()?)))
    }

    /// Whether there may be a legacy system: one was found, or a region was not reached.
    #[must_use]
    pub fn may_have_legacy(&self) -> bool {
        self.0.values().any(|site| site.as_ref().map_or(true, |site| site.legacy_endpoint.is_some()))
    }
}

impl Site {
    fn of(stack: &Stack) -> Self {
        // Stacks older than shadow testing do not have these. Other stacks may have them empty.
        let output = |name: &str| stack.output(name).ok().map(str::to_owned);
        Self {
            sdk: stack.sdk.clone(),
            legacy_endpoint: stack.parameter("LegacyEndpoint").ok().filter(|url| !url.is_empty()).map(str::to_owned),
            reports_bucket: output("ReportsBucketName"),
            compare_function: output("CompareFunctionName"),
            tables: ["ViewsTableName", "ShadowTableName"].into_iter().filter_map(output).collect(),
        }
    }
}
