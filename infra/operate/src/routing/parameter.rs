//! One region's copy of the document: a parameter in its Parameter Store.

use anyhow::{Context as _, Result};
use aws_config::SdkConfig;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_ssm::Client;
use aws_sdk_ssm::primitives::DateTime;
use aws_sdk_ssm::types::{ParameterTier, ParameterType};
use std::cmp::Reverse;
use std::time::Duration;

/// How often a call is tried. The functions' reads may use up Parameter Store's throughput.
const ATTEMPTS: u32 = 5;
/// How long a call may take, including all attempts. Then the region counts as not answering.
const TIME_OUT: Duration = Duration::from_secs(10);
const CONNECT_TIME_OUT: Duration = Duration::from_secs(3);

/// A version of the document in a region. It may be invalid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Copy {
    /// Its text.
    pub(crate) text: String,
    /// Its number in this region.
    pub(crate) version: i64,
    /// When it was written, Unix milliseconds.
    pub(crate) changed_at: u64,
}

/// A version that a region keeps, and who wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) copy: Copy,
    /// ARN of the user or role that wrote it.
    pub(super) by: String,
}

/// The parameter.
#[derive(Debug, Clone)]
pub(super) struct Parameter {
    client: Client,
    name: String,
}

impl Parameter {
    /// The parameter `name` in the region of `sdk`.
    pub(super) fn of(sdk: &SdkConfig, name: &str) -> Self {
        let time_outs = TimeoutConfig::builder().operation_timeout(TIME_OUT).connect_timeout(CONNECT_TIME_OUT).build();
        let retries = RetryConfig::standard().with_max_attempts(ATTEMPTS);
        let config = aws_sdk_ssm::config::Builder::from(sdk).timeout_config(time_outs).retry_config(retries).build();
        Self { client: Client::from_conf(config), name: name.to_owned() }
    }

    /// Reads the current version, or this one.
    ///
    /// # Errors
    /// If the region does not answer, or has no such parameter or version.
    pub(super) async fn read(&self, version: Option<i64>) -> Result<Copy> {
        let name = version.map_or_else(|| self.name.clone(), |version| format!("{}:{version}", self.name));
        let got = self.client.get_parameter().name(&name).send().await;
        let parameter =
            got.with_context(|| format!("reading {name}"))?.parameter.context("SSM answered without the parameter")?;
        Ok(Copy {
            text: parameter.value.unwrap_or_default(),
            version: parameter.version,
            changed_at: ms(parameter.last_modified_date.as_ref()),
        })
    }

    /// All kept versions, newest first. Parameter Store keeps 100.
    ///
    /// # Errors
    /// If the region does not answer, or has no such parameter.
    pub(super) async fn history(&self) -> Result<Vec<Kept>> {
        let mut pages = self.client.get_parameter_history().name(&self.name).into_paginator().send();
        let mut versions = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.with_context(|| format!("reading the history of {}", self.name))?;
            versions.extend(page.parameters.unwrap_or_default());
        }
        let mut kept: Vec<Kept> = versions
            .into_iter()
            .map(|version| Kept {
                copy: Copy {
                    changed_at: ms(version.last_modified_date.as_ref()),
                    text: version.value.unwrap_or_default(),
                    version: version.version,
                },
                by: version.last_modified_user.unwrap_or_default(),
            })
            .collect();
        kept.sort_by_key(|kept| Reverse(kept.copy.version));
        Ok(kept)
    }

    /// Writes this text, and returns its version.
    ///
    /// # Errors
    /// If the region refuses it.
    pub(super) async fn write(&self, text: &str) -> Result<i64> {
        // The free tier holds 4 KB. A longer document moves to the paid tier by itself, and readers
        // do not notice.
        let put = self.client.put_parameter().name(&self.name).value(text).r#type(ParameterType::String);
        let put = put.tier(ParameterTier::IntelligentTiering).overwrite(true).send().await;
        Ok(put.with_context(|| format!("writing {}", self.name))?.version)
    }
}

fn ms(time: Option<&DateTime>) -> u64 {
    time.and_then(|time| u64::try_from(time.to_millis().ok()?).ok()).unwrap_or_default()
}
