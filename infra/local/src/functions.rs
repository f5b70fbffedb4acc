//! The functions of a local cloud, seen as processes with a configuration that can be changed.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use aws_sdk_lambda::types::{Environment, LastUpdateStatus};
use operate::Endpoints;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

const CONFIGURED_WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Where routes and mappings lead, in the template.
const ALIAS: &str = "live";

/// The processes (execution environments) of one function in one local cloud.
#[derive(Debug, Clone)]
pub struct Environments {
    /// Variables that only they have in their environment, as `NAME=value`.
    marks: [String; 2],
}

impl Environments {
    /// The processes of `function` in the cloud of `endpoints`.
    #[must_use]
    pub fn of(endpoints: &Endpoints, function: &str) -> Self {
        let marks = [("AWS_LAMBDA_FUNCTION_NAME", function), ("AWS_ENDPOINT_URL", &endpoints.aws_endpoint)];
        Self { marks: marks.map(|(name, value)| format!("{name}={value}")) }
    }

    /// Their ids at present.
    ///
    /// # Errors
    /// If the list of processes cannot be read.
    pub fn ids(&self) -> Result<Vec<Pid>> {
        let mut ids = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let entry = entry?;
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw)
            else {
                continue;
            };
            // A process that has ended meanwhile has no environment.
            let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
            let has = |mark: &String| environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes());
            if self.marks.iter().all(has) {
                ids.push(pid);
            }
        }
        Ok(ids)
    }

    /// Signals all of them. Returns how many there were.
    ///
    /// # Errors
    /// If one of them cannot be signalled.
    pub fn signal(&self, signal: Signal) -> Result<usize> {
        let mut signalled = 0;
        for id in self.ids()? {
            match kill_process(id, signal) {
                Ok(()) => signalled += 1,
                Err(Errno::SRCH) => {} // it has ended meanwhile
                Err(error) => return Err(error).with_context(|| format!("sending {signal:?} to the process {id:?}")),
            }
        }
        Ok(signalled)
    }
}

/// Sets variables of a function (`None` removes one), and waits until the next invocation will see
/// them.
///
/// # Errors
/// If the emulator refuses, or takes too long.
pub async fn configure(endpoints: &Endpoints, function: &str, variables: &[(&str, Option<&str>)]) -> Result<()> {
    let lambda = aws_sdk_lambda::Client::new(&endpoints.sdk_config());
    let now = lambda.get_function_configuration().function_name(function).send().await?;
    let mut all = now.environment.and_then(|environment| environment.variables).context("no environment")?;
    for (name, value) in variables {
        match value {
            Some(value) => drop(all.insert((*name).to_owned(), (*value).to_owned())),
            None => drop(all.remove(*name)),
        }
    }
    let environment = Environment::builder().set_variables(Some(all)).build();
    lambda.update_function_configuration().function_name(function).environment(environment).send().await?;
    let deadline = Instant::now() + CONFIGURED_WITHIN;
    loop {
        let now = lambda.get_function_configuration().function_name(function).send().await?;
        if now.last_update_status == Some(LastUpdateStatus::Successful) {
            return publish(&lambda, function).await;
        }
        ensure!(Instant::now() < deadline, "{function} was not configured within {} s", CONFIGURED_WITHIN.as_secs());
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Makes the alias to which routes and mappings lead point to what the function is now.
///
/// # Errors
/// If the emulator refuses.
pub async fn publish(lambda: &aws_sdk_lambda::Client, function: &str) -> Result<()> {
    let published = lambda.publish_version().function_name(function).send().await?;
    let version = published.version.context("a published version has no number")?;
    lambda.update_alias().function_name(function).name(ALIAS).function_version(version).send().await?;
    Ok(())
}
