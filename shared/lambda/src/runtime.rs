//! The loop that Lambda drives: it owns a function's shared state, the clock and the metrics.
//!
//! A function is a struct with its ports and one `serve`. An environment serves one invocation at a
//! time or, where Lambda sets `AWS_LAMBDA_MAX_CONCURRENCY`, several at once, which share the
//! struct.
//!
//! **Invariant:** an invocation ends in the function's answer or in a function error. An `Err`, an
//! event that cannot be parsed and a panic are all function errors, which Lambda logs, counts and
//! retries; `lambda_runtime` catches panics when they unwind, and when they abort (`panic =
//! "abort"`) the process is gone, which Lambda counts as an error too.

use std::convert::Infallible;
use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lambda_events::apigw::ApiGatewayV2httpRequest;
use http::Response;
use lambda_http::request::LambdaRequest;
use lambda_http::{Body, Request};
use lambda_runtime::{Context, LambdaEvent, service_fn};
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};
use tokio::time::Instant;

use crate::batch::{Batch, BatchAnswer, Parsed};
use crate::clock::now_ms;
use crate::metrics::{Emitter, Metric, Metrics};

/// The Runtime API could not be reached, or not be spoken to: the process ends.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct RuntimeError(#[from] lambda_runtime::Error);

/// Runs a function's `main`.
///
/// An environment that serves one invocation at a time runs on one thread: what wakes another
/// thread costs more CPU than most of what a handler does. One that serves several at once
/// (`AWS_LAMBDA_MAX_CONCURRENCY`) has a thread per processor.
///
/// # Errors
/// What `main` fails with, or that the runtime could not be built.
pub fn block_on<E: From<std::io::Error>>(main: impl Future<Output = Result<(), E>>) -> Result<(), E> {
    let concurrency = std::env::var("AWS_LAMBDA_MAX_CONCURRENCY").ok().and_then(|most| most.parse::<u32>().ok());
    let mut builder = match concurrency {
        None | Some(0 | 1) => tokio::runtime::Builder::new_current_thread(),
        Some(_) => tokio::runtime::Builder::new_multi_thread(),
    };
    builder.enable_all().build()?.block_on(main)
}

/// Serves until the end of the process, as a task: what wakes a task on its own thread puts it into
/// a queue, but what wakes the future that a runtime blocks on makes a system call, several times
/// per request.
async fn as_task(
    serving: impl Future<Output = Result<(), lambda_runtime::Error>> + Send + 'static,
) -> Result<(), RuntimeError> {
    Ok(tokio::spawn(serving).await.unwrap_or_else(|lost| Err(lost.into()))?)
}

/// When an invocation began, and until when it may take.
#[derive(Debug, Clone, Copy)]
pub struct Invocation {
    /// When it began, Unix milliseconds.
    pub now: u64,
    /// When Lambda ends it, if it has not answered.
    pub deadline: Instant,
}

impl Invocation {
    /// An invocation that began at `now` (Unix milliseconds) and may take `time_left` from now on.
    pub fn new(now: u64, time_left: Duration) -> Self {
        Self { now, deadline: Instant::now() + time_left }
    }

    /// When to stop, so that `reserve` is left until the deadline.
    pub fn leaving(&self, reserve: Duration) -> Instant {
        self.deadline.checked_sub(reserve).unwrap_or_else(Instant::now)
    }
}

/// A function with a Kafka, SQS or Kinesis trigger.
pub trait ServeBatch: Send + Sync {
    /// Why a whole batch fails.
    type Error: Display + Send;

    /// Serves one batch.
    fn serve(
        &self,
        metrics: &Metrics,
        batch: Batch,
        invocation: Invocation,
    ) -> impl Future<Output = Result<BatchAnswer, Self::Error>> + Send;
}

/// A function behind an HTTP API.
pub trait ServeHttp: Send + Sync {
    /// Answers one request, with a [`Problem`](crate::problem::Problem) if need be. `now` is when
    /// it was received, Unix milliseconds.
    fn serve(&self, metrics: &Metrics, request: Request, now: u64) -> impl Future<Output = Response<Body>> + Send;
}

/// A function on a schedule, whose event says nothing.
pub trait ServeSchedule: Send + Sync {
    /// What it answers to anyone who invokes it by hand.
    type Answer: Serialize + Send;
    /// Why an invocation fails.
    type Error: Display + Send;

    /// Runs once. Lambda ends the invocation after `time_left`; `now` is when it began, Unix
    /// milliseconds.
    fn serve(
        &self,
        metrics: &Metrics,
        time_left: Duration,
        now: u64,
    ) -> impl Future<Output = Result<Self::Answer, Self::Error>> + Send;
}

/// Serves batches. An `Err` of the function fails the whole batch.
///
/// # Errors
/// [`RuntimeError`].
///
/// # Panics
/// When the environment variables that Lambda sets for a runtime are missing.
pub async fn run_batches(emitter: Emitter, function: impl ServeBatch + 'static) -> Result<(), RuntimeError> {
    let shared = Arc::new((emitter, function));
    let handler = service_fn(move |event: LambdaEvent<Parsed>| {
        let shared = Arc::clone(&shared);
        async move {
            let (emitter, function) = &*shared;
            let batch = event.payload.0.map_err(|error| error.to_string())?;
            let invocation = Invocation::new(now_ms(), time_left(&event.context));
            let metrics = emitter.start(invocation.now);
            observe_age(&metrics, &batch, invocation.now);
            function.serve(&metrics, batch, invocation).await.map_err(|error| error.to_string())
        }
    });
    as_task(lambda_runtime::run_concurrent(handler)).await
}

/// Serves an HTTP API.
///
/// # Errors
/// [`RuntimeError`].
///
/// # Panics
/// When the environment variables that Lambda sets for a runtime are missing.
pub async fn run_http(emitter: Emitter, function: impl ServeHttp + 'static) -> Result<(), RuntimeError> {
    let shared = Arc::new((emitter, function));
    let handler = service_fn(move |request: Request| {
        let shared = Arc::clone(&shared);
        async move {
            let (emitter, function) = &*shared;
            let now = now_ms();
            Ok::<_, Infallible>(function.serve(&emitter.start(now), request, now).await)
        }
    });
    let one_pass = |LambdaEvent { payload: OnePass(payload), context }| LambdaEvent { payload, context };
    let service = tower::ServiceBuilder::new().map_request(one_pass).service(lambda_http::Adapter::from(handler));
    as_task(lambda_runtime::run_concurrent(service)).await
}

/// An HTTP API's event. `LambdaRequest` looks at an event twice, to tell several sources apart;
/// ours has one.
struct OnePass(LambdaRequest);

impl<'de> Deserialize<'de> for OnePass {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        ApiGatewayV2httpRequest::deserialize(deserializer).map(|request| Self(LambdaRequest::ApiGatewayV2(request)))
    }
}

/// Serves a schedule.
///
/// # Errors
/// [`RuntimeError`].
///
/// # Panics
/// When the environment variables that Lambda sets for a runtime are missing.
pub async fn run_schedule(emitter: Emitter, function: impl ServeSchedule + 'static) -> Result<(), RuntimeError> {
    let shared = Arc::new((emitter, function));
    let handler = service_fn(move |event: LambdaEvent<IgnoredAny>| {
        let shared = Arc::clone(&shared);
        async move {
            let (emitter, function) = &*shared;
            let now = now_ms();
            function.serve(&emitter.start(now), time_left(&event.context), now).await.map_err(|error| error.to_string())
        }
    });
    as_task(lambda_runtime::run_concurrent(handler)).await
}

/// The age of a batch's oldest message. SQS no longer tells the age of a message that was received
/// three times.
fn observe_age(metrics: &Metrics, batch: &Batch, now: u64) {
    let sent_at = batch.records.iter().filter_map(|record| record.delivery.as_ref()?.sent_at);
    if let Some(oldest) = sent_at.min() {
        metrics.observe(Metric::OldestMessageAge, now.saturating_sub(oldest) / 1_000);
    }
}

/// How long until Lambda ends the invocation.
fn time_left(context: &Context) -> Duration {
    context.deadline().duration_since(SystemTime::now()).unwrap_or_default()
}
