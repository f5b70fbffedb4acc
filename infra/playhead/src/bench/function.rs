//! A function as Lambda runs it: a process of its own that takes invocations from a Runtime API.
//!
//! It gets the environment that Lambda would give it and none of ours.

use super::runtime_api::{Answer, RuntimeApi};
use crate::usage::{Cpu, peak_memory};
use anyhow::{Context as _, Result, bail, ensure};
use axum::body::Bytes;
use futures::StreamExt as _;
use operate::endpoints::DUMMY_CREDENTIALS;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};
use tokio::sync::{oneshot, watch};

const READY_WITHIN: Duration = Duration::from_secs(30);
const ANSWER_WITHIN: Duration = Duration::from_secs(120);
/// A function with concurrency asks a Runtime API that is gone again and again, without end. So if
/// we are killed, this ends it.
const CPU_SECONDS: u64 = 1_800;
/// How much of its log an error shows, bytes.
const TAIL_BYTES: usize = 2_000;

/// What to run.
#[derive(Debug, Clone)]
pub(super) struct Program {
    /// The function's name.
    pub(super) name: &'static str,
    /// The program.
    pub(super) binary: PathBuf,
    /// Its arguments.
    pub(super) arguments: Vec<String>,
    /// Its environment, beside what Lambda always sets.
    pub(super) variables: Vec<(&'static str, String)>,
    /// The file for its output. Replaces an older one.
    pub(super) log: PathBuf,
}

/// A running function. It ends when it is dropped.
#[derive(Debug)]
pub(super) struct Function {
    api: RuntimeApi,
    pid: u32,
    log: PathBuf,
    /// From the start of the process until it asked for its first invocation.
    pub(super) init: Duration,
    ended: watch::Receiver<Option<String>>,
    _stop: oneshot::Sender<()>,
}

impl Function {
    /// Starts it and waits until it asks for its first invocation.
    ///
    /// # Errors
    /// If it ends or fails before that.
    pub(super) async fn start(program: &Program) -> Result<Self> {
        let api = RuntimeApi::start(program.name).await?;
        if let Some(folder) = program.log.parent() {
            fs::create_dir_all(folder)?;
        }
        let log = File::create(&program.log).with_context(|| format!("creating {}", program.log.display()))?;
        let mut command = Command::new(&program.binary);
        command.args(&program.arguments).env_clear();
        command.envs(always(program.name, &api)).envs(program.variables.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
        let began = Instant::now();
        let child = command.spawn().with_context(|| format!("starting {}", program.binary.display()))?;
        let pid = child.id().context("a function ended at once")?;
        let (stop, stopped) = oneshot::channel();
        let (end, ended) = watch::channel(None);
        tokio::spawn(watch_over(child, stopped, end));
        let mut function = Self { api, pid, log: program.log.clone(), init: Duration::ZERO, ended, _stop: stop };
        let initialised = function.or_ended(READY_WITHIN, function.api.initialised()).await;
        function.init = began.elapsed();
        initialised.with_context(|| format!("starting {}", program.name))?;
        if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
            let limit = Rlimit { current: Some(CPU_SECONDS), maximum: Some(CPU_SECONDS) };
            prlimit(Some(pid), Resource::Cpu, limit).context("limiting the CPU of a function")?;
        }
        Ok(function)
    }

    /// Invokes it once.
    ///
    /// # Errors
    /// If it answers with an error, does not answer in time, or ends.
    pub(super) async fn invoke(&self, payload: Bytes) -> Result<Answer> {
        let answer = self.or_ended(ANSWER_WITHIN, self.api.invoke(payload)).await?;
        ensure!(!answer.is_error, "the function failed: {}", String::from_utf8_lossy(&answer.body));
        Ok(answer)
    }

    /// Invokes it with each payload, so many at once. `check` looks at each answer. Returns how
    /// long each invocation took.
    ///
    /// # Errors
    /// As [`Function::invoke`], and what `check` finds.
    pub(super) async fn drive(
        &self,
        payloads: &[Bytes],
        in_flight: usize,
        check: impl Fn(&[u8]) -> Result<()>,
    ) -> Result<Vec<Duration>> {
        let mut answers =
            futures::stream::iter(payloads).map(|payload| self.invoke(payload.clone())).buffer_unordered(in_flight);
        let mut times = Vec::with_capacity(payloads.len());
        while let Some(answer) = answers.next().await {
            let answer = answer?;
            check(&answer.body).with_context(|| self.tail())?;
            times.push(answer.took);
        }
        Ok(times)
    }

    /// The CPU that it has used so far.
    pub(super) fn cpu(&self) -> Result<Cpu> {
        Cpu::of(self.pid)
    }

    /// The greatest memory that it has had so far, bytes.
    pub(super) fn peak_memory(&self) -> Result<u64> {
        peak_memory(self.pid)
    }

    /// The result of `doing`, or an error if the function ends or time runs out first.
    async fn or_ended<T>(&self, within: Duration, doing: impl Future<Output = Result<T>>) -> Result<T> {
        let mut ended = self.ended.clone();
        tokio::select! {
            done = tokio::time::timeout(within, doing) => match done {
                Ok(done) => done,
                Err(_) => bail!("no answer within {} s; {}", within.as_secs(), self.tail()),
            },
            _ = ended.wait_for(Option::is_some) => {
                let how = self.ended.borrow().clone().unwrap_or_default();
                bail!("the function ended ({how}); {}", self.tail())
            }
        }
    }

    fn tail(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let end = log.get(log.len().saturating_sub(TAIL_BYTES)..).unwrap_or_default();
        format!("the end of {}:\n{}", self.log.display(), String::from_utf8_lossy(end).trim_end())
    }
}

/// Says how the process ended, or ends it.
async fn watch_over(mut child: Child, stopped: oneshot::Receiver<()>, end: watch::Sender<Option<String>>) {
    tokio::select! {
        status = child.wait() => {
            end.send_replace(Some(status.map_or_else(|error| error.to_string(), |status| status.to_string())));
        }
        _ = stopped => drop(child.kill().await),
    }
}

/// What Lambda sets for each function (AWS, "Defined runtime environment variables").
fn always(name: &str, api: &RuntimeApi) -> Vec<(&'static str, String)> {
    let of = |value: &str| value.to_owned();
    vec![
        ("AWS_LAMBDA_RUNTIME_API", api.address()),
        ("AWS_LAMBDA_FUNCTION_NAME", of(name)),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", of("1024")),
        ("AWS_LAMBDA_FUNCTION_VERSION", of("$LATEST")),
        ("AWS_LAMBDA_LOG_GROUP_NAME", format!("/aws/lambda/{name}")),
        ("AWS_LAMBDA_LOG_STREAM_NAME", of("bench")),
        ("AWS_REGION", of(local::DEFAULT_REGION)),
        // DynamoDB Local keeps the tables of each key apart.
        ("AWS_ACCESS_KEY_ID", of(DUMMY_CREDENTIALS)),
        ("AWS_SECRET_ACCESS_KEY", of(DUMMY_CREDENTIALS)),
        ("PATH", of("/usr/local/bin:/usr/bin:/bin")),
        ("TZ", of(":UTC")),
    ]
}
