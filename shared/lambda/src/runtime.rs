//! Serving invocations: the handler's types say what an invocation may end in.
//!
//! All of them serve one invocation at a time or, where Lambda says so by `AWS_LAMBDA_MAX_CONCURRENCY`, several; so a
//! handler shares nothing but what it was cloned with.
//!
//! **Invariant:** an invocation ends in the handler's answer or in a function error. An `Err`, an event that cannot be
//! parsed and a panic are all function errors, which Lambda logs, counts and retries; `lambda_runtime` catches panics
//! when they unwind, and when they abort (`panic = "abort"`) the process is gone, which Lambda counts as an error too.

use std::convert::Infallible;
use std::fmt::Display;

use http::Response;
use lambda_http::{Body, Request};
pub use lambda_runtime::Context;
use lambda_runtime::{LambdaEvent, service_fn};
use serde::Serialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::batch::{Batch, BatchAnswer};

/// What ends a function's process: the Runtime API could not be reached or spoken to.
pub type Error = lambda_runtime::Error;

/// Serves a Kafka, SQS or Kinesis trigger. The handler's `Err` fails the whole batch.
///
/// # Errors
/// When the Runtime API cannot be reached or spoken to.
///
/// # Panics
/// When the environment variables that Lambda sets for a runtime are missing.
pub async fn run_batches<F, E>(handle: impl Fn(Batch, Context) -> F + Clone + Send + 'static) -> Result<(), Error>
where
    F: Future<Output = Result<BatchAnswer, E>> + Send + 'static,
    E: Display + Send + 'static,
{
    lambda_runtime::run_concurrent(service_fn(move |event: LambdaEvent<Box<RawValue>>| {
        let handle = handle.clone();
        async move {
            let batch = Batch::parse(event.payload.get().as_bytes()).map_err(|error| error.to_string())?;
            drop(event.payload);
            handle(batch, event.context).await.map_err(|error| error.to_string())
        }
    }))
    .await
}

/// Serves a schedule, whose event says nothing. The handler is told when it will be cut off, by its context, and what it answers is
/// for whoever invokes the function by hand.
///
/// # Errors
/// When the Runtime API cannot be reached or spoken to.
///
/// # Panics
/// When the environment variables that Lambda sets for a runtime are missing.
pub async fn run_scheduled<F, A, E>(handle: impl Fn(Context) -> F + Clone + Send + 'static) -> Result<(), Error>
where
    F: Future<Output = Result<A, E>> + Send + 'static,
    A: Serialize + Send + 'static,
    E: Display + Send + 'static,
{
    lambda_runtime::run_concurrent(service_fn(move |event: LambdaEvent<IgnoredAny>| {
        let answer = handle(event.context);
        async move { answer.await.map_err(|error| error.to_string()) }
    }))
    .await
}

/// Serves an HTTP API. The handler answers every request, with a [`Problem`](crate::problem::Problem) if need be.
///
/// # Errors
/// When the Runtime API cannot be reached or spoken to.
///
/// # Panics
/// When the environment variables that Lambda sets for a runtime are missing.
pub async fn run_http<F>(handle: impl Fn(Request) -> F + Clone + Send + 'static) -> Result<(), Error>
where
    F: Future<Output = Response<Body>> + Send + 'static,
{
    lambda_http::run_concurrent(service_fn(move |request: Request| {
        let answer = handle(request);
        async move { Ok::<_, Infallible>(answer.await) }
    }))
    .await
}
