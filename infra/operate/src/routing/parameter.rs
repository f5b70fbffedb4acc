//! One region's copy of the document: a parameter of its Parameter Store.

use anyhow::{Context as _, Result};
use aws_config::SdkConfig;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_ssm::Client;
use aws_sdk_ssm::primitives::DateTime;
use aws_sdk_ssm::types::{ParameterTier, ParameterType};
use std::cmp::Reverse;
use std::time::Duration;

/// How often a call is tried: functions may be using up what Parameter Store answers.
const ATTEMPTS: u32 = 5;
/// How long a call may take with all its attempts: a region that does not answer is left behind.
const TIME_OUT: Duration = Duration::from_secs(10);
const CONNECT_TIME_OUT: Duration = Duration::from_secs(3);

/// A version of the document as a region has it, which need not be one that can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Copy {
    /// What it says.
    pub(crate) text: String,
    /// Its number, counted by this region.
    pub(crate) version: i64,
    /// When it was written there, Unix milliseconds.
    pub(crate) changed_at: u64,
}

/// A version that a region keeps, and who wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) copy: Copy,
    /// ARN of the user or role.
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

    /// What it says now, or said in this version of it.
    ///
    /// # Errors
    /// If the region does not answer, or has no such parameter or version.
    pub(super) async fn read(&self, version: Option<i64>) -> Result<Copy> {
        let name = version.map_or_else(|| self.name.clone(), |version| format!("{}:{version}", self.name));
        let got = self.client.get_parameter().name(&name).send().await;
        let parameter =
            got.with_context(|| format!("reading {name}"))?.parameter.context("an answer without a parameter")?;
        Ok(Copy {
            text: parameter.value.unwrap_or_default(),
            version: parameter.version,
            changed_at: ms(parameter.last_modified_date.as_ref()),
        })
    }

    /// All versions that are kept (Parameter Store keeps 100), newest first.
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

    /// Puts this text there, and says which version it is.
    ///
    /// # Errors
    /// If the region does not take it.
    pub(super) async fn write(&self, text: &str) -> Result<i64> {
        // It stays in the tier that costs nothing until it no longer fits there (4 KB), and none of its readers notices.
        let put = self.client.put_parameter().name(&self.name).value(text).r#type(ParameterType::String);
        let put = put.tier(ParameterTier::IntelligentTiering).overwrite(true).send().await;
        Ok(put.with_context(|| format!("writing {}", self.name))?.version)
    }
}

fn ms(time: Option<&DateTime>) -> u64 {
    time.and_then(|time| u64::try_from(time.to_millis().ok()?).ok()).unwrap_or_default()
}
