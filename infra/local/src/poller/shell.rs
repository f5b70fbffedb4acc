//! The loop around the core: reads the log, invokes the function, delivers discards, commits.
//!
//! All I/O is here and in the two logs. The shell decides nothing, and it must never commit a
//! position that the core did not hand out.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use aws_sdk_lambda::operation::RequestId as _;
use aws_sdk_lambda::primitives::Blob;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::warn;

use super::PollerStats;
use super::core::{Core, Step};
use super::failure::FailureSink;
use super::record::{Record, Source};
use super::settle::{Batch, Discard, Resolution, Response};

/// How long a stop waits for running tasks before it abandons them.
const STOP_GRACE: Duration = Duration::from_secs(10);
/// Lambda's longest function time-out. An invocation without an answer by then has timed out.
const INVOKE_TIMEOUT: Duration = Duration::from_secs(900);

/// What came next from a log.
#[derive(Debug, Default)]
pub(super) struct Read {
    /// Everything uncommitted was revoked and will be delivered again.
    pub(super) reset: bool,
    /// In order within each partition.
    pub(super) records: Vec<Record>,
}

/// A mapping's side of a log: a Kafka topic or a Kinesis stream.
pub(super) trait Log: Send + 'static {
    /// Waits for the next records. Cancel-safe: dropping the future loses nothing.
    ///
    /// # Errors
    /// Only on a bug. If the log is unavailable, this waits for it.
    fn read(&mut self) -> impl Future<Output = anyhow::Result<Read>> + Send;

    /// Stores the (partition, offset) from which the next poller must read.
    fn commit(&mut self, positions: &[(i32, i64)]);

    /// Pauses exactly these partitions, which hold enough for now.
    fn pause(&mut self, full: BTreeSet<i32>);

    /// Commits one last time and leaves the log to the next poller.
    ///
    /// # Errors
    /// If the commit failed.
    fn leave(self, positions: Vec<(i32, i64)>) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// How a task of the loop ended.
enum Ended {
    Invoked { id: u64, resolution: Resolution },
    Delivered { id: u64, succeeded: bool },
}

/// The running poller.
pub(super) struct Shell<L> {
    pub(super) core: Core,
    pub(super) log: L,
    pub(super) source: Source,
    pub(super) function_arn: String,
    pub(super) lambda: aws_sdk_lambda::Client,
    /// Without one, discarded records are lost, as with Lambda.
    pub(super) sink: Option<FailureSink>,
    pub(super) stats: watch::Sender<PollerStats>,
}

impl<L: Log> Shell<L> {
    /// Runs until `stop` changes or its sender is gone, then commits and leaves the log.
    ///
    /// # Errors
    /// If a task panicked or the last commit failed.
    pub(super) async fn run(mut self, mut stop: watch::Receiver<bool>) -> anyhow::Result<()> {
        let mut tasks = JoinSet::new();
        loop {
            let wake = self.start_work(&mut tasks);
            let positions = self.core.take_commits();
            if !positions.is_empty() {
                self.log.commit(&positions);
            }
            self.log.pause(self.core.full_partitions());
            self.stats.send_replace(self.core.stats());
            tokio::select! {
                _ = stop.changed() => break,
                Some(ended) = tasks.join_next() => self.end(ended.context("a task of the poller panicked")?),
                () = wait_until(wake) => {}
                read = self.log.read() => {
                    let read = read?;
                    if read.reset {
                        self.core.reset();
                    }
                    for record in read.records {
                        self.core.receive(record, now_ms());
                    }
                }
            }
        }
        self.finish(tasks).await
    }

    /// Starts everything that is due. Returns when to look again.
    fn start_work(&mut self, tasks: &mut JoinSet<Ended>) -> Option<i64> {
        loop {
            match self.core.next(now_ms()) {
                Step::Wait(until) => return until,
                Step::Invoke { id, batch } => {
                    let request = self
                        .lambda
                        .invoke()
                        .function_name(&self.function_arn)
                        .payload(Blob::new(self.source.payload(&batch.records)));
                    tasks.spawn(async move {
                        let resolution = invoke(request, &batch).await;
                        Ended::Invoked { id, resolution }
                    });
                }
                Step::Deliver { id, discard } => {
                    let sink = self.sink.clone();
                    tasks.spawn(async move {
                        let succeeded = deliver(sink, &discard).await;
                        Ended::Delivered { id, succeeded }
                    });
                }
            }
        }
    }

    fn end(&mut self, ended: Ended) {
        match ended {
            Ended::Invoked { id, resolution } => self.core.invoked(id, resolution, now_ms()),
            Ended::Delivered { id, succeeded } => self.core.delivered(id, succeeded, now_ms()),
        }
    }

    /// Waits for running tasks up to the grace period, commits, and leaves the log. Records of
    /// unfinished tasks are not committed and will be delivered again.
    async fn finish(mut self, mut tasks: JoinSet<Ended>) -> anyhow::Result<()> {
        let deadline = tokio::time::Instant::now() + STOP_GRACE;
        while let Ok(Some(ended)) = tokio::time::timeout_at(deadline, tasks.join_next()).await {
            self.end(ended.context("a task of the poller panicked")?);
        }
        self.stats.send_replace(self.core.stats());
        self.log.leave(self.core.positions()).await
    }
}

async fn wait_until(wake: Option<i64>) {
    match wake {
        Some(at) => {
            let wait = u64::try_from(at - now_ms()).unwrap_or(0);
            tokio::time::sleep(Duration::from_millis(wait)).await;
        }
        None => std::future::pending().await,
    }
}

/// Unix milliseconds.
pub(super) fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|elapsed| i64::try_from(elapsed.as_millis()).ok())
        .unwrap_or_default()
}

async fn invoke(
    request: aws_sdk_lambda::operation::invoke::builders::InvokeFluentBuilder,
    batch: &Batch,
) -> Resolution {
    let resolution = match tokio::time::timeout(INVOKE_TIMEOUT, request.send()).await {
        Err(_) => Resolution::FunctionError {
            response: Response { function_error: Some("Unhandled".into()), ..Response::default() },
        },
        Ok(Err(error)) => Resolution::NotInvoked { cause: format!("{:#}", anyhow::Error::from(error)) },
        Ok(Ok(output)) => {
            let response = Response {
                request_id: output.request_id().unwrap_or_default().to_owned(),
                status: output.status_code,
                executed_version: output.executed_version.unwrap_or_else(|| "$LATEST".into()),
                function_error: output.function_error,
            };
            let payload = output.payload.map(Blob::into_inner).unwrap_or_default();
            if response.function_error.is_some() {
                warn!(records = batch.records.len(), answer = %String::from_utf8_lossy(&payload), "the function failed");
                Resolution::FunctionError { response }
            } else {
                Resolution::Answered { payload, response }
            }
        }
    };
    if let Resolution::NotInvoked { cause } = &resolution {
        warn!(records = batch.records.len(), %cause, "could not invoke the function");
    }
    resolution
}

async fn deliver(sink: Option<FailureSink>, discard: &Discard) -> bool {
    let (records, condition) = (discard.batch.records.len(), discard.condition.as_str());
    let Some(sink) = sink else {
        warn!(records, condition, "discarded records: there is no on-failure destination");
        return true;
    };
    match sink.deliver(discard, now_ms()).await {
        Ok(()) => {
            warn!(records, condition, "sent records to the on-failure destination");
            true
        }
        Err(error) => {
            warn!(records, condition, error = format!("{error:#}"), "the on-failure destination failed; will retry");
            false
        }
    }
}
