//! One region's copy of the document: a parameter of its Parameter Store.

use anyhow::{Context as _, Result};
use aws_config::SdkConfig;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_ssm::Client;
use aws_sdk_ssm::types::{ParameterTier, ParameterType};
use std::time::Duration;

/// How often a call is tried: functions may be using up what Parameter Store answers.
const ATTEMPTS: u32 = 5;
/// How long a call may take with all its attempts: a region that does not answer is left behind.
const TIME_OUT: Duration = Duration::from_secs(10);
const CONNECT_TIME_OUT: Duration = Duration::from_secs(3);

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
