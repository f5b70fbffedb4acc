//! The loop around the core: reads the log, invokes the function, delivers discards, commits.
//!
//! What touches the outside is here and in the two logs; it decides nothing. It must never commit
//! what the core did not hand out.

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
use super::settle::{Batch, Discard, Outcome, Response};

/// How long a stop waits for what is under way, before it abandons it.
const STOP_GRACE: Duration = Duration::from_secs(10);
/// Lambda's longest function time-out; an invocation without an answer by then has timed out.
const INVOKE_TIMEOUT: Duration = Duration::from_secs(900);

/// What a log has next.
#[derive(Debug, Default)]
pub(super) struct Read {
    /// All that is not committed was taken away, and comes again.
    pub(super) reset: bool,
    /// Those of a partition in their order.
    pub(super) records: Vec<Record>,
}

/// A mapping's side of a log: a Kafka topic or a Kinesis stream.
pub(super) trait Log: Send + 'static {
    /// Waits for what comes next. Loses nothing if it is dropped meanwhile.
    ///
    /// # Errors
    /// By a bug only. A log that cannot be read at the time is waited for.
    fn read(&mut self) -> impl Future<Output = anyhow::Result<Read>> + Send;

    /// Remembers from which (partition, offset) the next poller must read.
    fn commit(&mut self, positions: &[(i32, i64)]);

    /// Stops reading these partitions, which hold enough for now, and no others.
    fn pause(&mut self, full: BTreeSet<i32>);

    /// Commits for the last time, and leaves the log to the next poller.
    ///
    /// # Errors
    /// If the commit failed.
    fn leave(self, positions: Vec<(i32, i64)>) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// What a task of the loop came to.
enum Ended {
    Invoked { id: u64, outcome: Outcome },
    Delivered { id: u64, succeeded: bool },
}

/// The running poller.
pub(super) struct Shell<L> {
    pub(super) core: Core,
    pub(super) log: L,
    pub(super) source: Source,
    pub(super) function_arn: String,
    pub(super) lambda: aws_sdk_lambda::Client,
    /// Absent: discards are dropped, as Lambda does.
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

    /// Starts everything that is due; says when to look again.
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
                        let outcome = invoke(request, &batch).await;
                        Ended::Invoked { id, outcome }
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
            Ended::Invoked { id, outcome } => self.core.invoked(id, outcome, now_ms()),
            Ended::Delivered { id, succeeded } => self.core.delivered(id, succeeded, now_ms()),
        }
    }

    /// Takes in what ends within the grace period, commits, and leaves the log. What is then still
    /// under way is not committed and will be delivered again.
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

async fn invoke(request: aws_sdk_lambda::operation::invoke::builders::InvokeFluentBuilder, batch: &Batch) -> Outcome {
    let outcome = match tokio::time::timeout(INVOKE_TIMEOUT, request.send()).await {
        Err(_) => Outcome::FunctionError {
            response: Response { function_error: Some("Unhandled".into()), ..Response::default() },
        },
        Ok(Err(error)) => Outcome::NotInvoked { cause: format!("{:#}", anyhow::Error::from(error)) },
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
                Outcome::FunctionError { response }
            } else {
                Outcome::Answered { payload, response }
            }
        }
    };
    if let Outcome::NotInvoked { cause } = &outcome {
        warn!(records = batch.records.len(), %cause, "the function could not be invoked");
    }
    outcome
}

async fn deliver(sink: Option<FailureSink>, discard: &Discard) -> bool {
    let (records, condition) = (discard.batch.records.len(), discard.condition.as_str());
    let Some(sink) = sink else {
        warn!(records, condition, "records are dropped: there is no on-failure destination");
        return true;
    };
    match sink.deliver(discard, now_ms()).await {
        Ok(()) => {
            warn!(records, condition, "records went to the on-failure destination");
            true
        }
        Err(error) => {
            warn!(records, condition, error = format!("{error:#}"), "the on-failure destination failed; trying again");
            false
        }
    }
}
