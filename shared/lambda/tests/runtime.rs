//! A real function process against a Runtime API on loopback: every invocation ends in an answer or
//! in a function error, once, with its metrics written, one at a time and several at once.
//!
//! The Runtime API configures a process by its environment, so the function under test is this same
//! program, started again with that environment.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode};
use axum::routing::{get, post};
use lambda::batch::{Batch, BatchAnswer, answer};
use lambda::metrics::{Emitter, Metric, Metrics};
use lambda::runtime::{Invocation, ServeBatch, ServeHttp, ServeSchedule};
use lambda_http::{Body, Request};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::sync::{Barrier, mpsc};
use tracing::level_filters::LevelFilter;

const RUNTIME_API: &str = "AWS_LAMBDA_RUNTIME_API";
/// The functions' names.
const BATCHES: &str = "batches";
const SCHEDULED: &str = "scheduled";
const HTTP: &str = "http";
/// What no log line may have.
const TOKEN: &str = "header.claims.signature-that-nobody-may-see";
const DEADLINE: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() {
    if std::env::var_os(RUNTIME_API).is_some() {
        return function().await;
    }
    every_invocation_ends_in_an_answer_or_a_function_error(None).await;
    every_invocation_ends_in_an_answer_or_a_function_error(Some("4")).await;
    concurrent_invocations_run_side_by_side().await;
    schedule_ignores_its_event_and_knows_the_time_left().await;
    no_part_of_a_request_is_logged_at_any_level().await;
    println!("runtime: 5 passed");
}

/// The function under test: serves a schedule, or does what the body of its only record says.
async fn function() {
    let name = std::env::var("AWS_LAMBDA_FUNCTION_NAME").unwrap();
    lambda::logs::init(if name == HTTP { LevelFilter::TRACE } else { LevelFilter::INFO });
    let emitter = Emitter::stdout("test", "runtime");
    match name.as_str() {
        SCHEDULED => lambda::runtime::run_schedule(emitter, TellsTheTimeLeft).await.unwrap(),
        HTTP => lambda::runtime::run_http(emitter, Refuses).await.unwrap(),
        _ => lambda::runtime::run_batches(emitter, Obeys { meeting: Barrier::new(2) }).await.unwrap(),
    }
}

struct TellsTheTimeLeft;

impl ServeSchedule for TellsTheTimeLeft {
    type Answer = Value;
    type Error = Infallible;

    async fn serve(&self, _: &Metrics, time_left: Duration, _: u64) -> Result<Value, Infallible> {
        Ok(json!({ "seconds": time_left.as_secs() }))
    }
}

struct Refuses;

impl ServeHttp for Refuses {
    async fn serve(&self, _: &Metrics, request: Request, _: u64) -> Response<Body> {
        tracing::trace!(target: "lambda", "ours");
        if request.body().is_empty() {
            panic!("a bug");
        }
        let auth = lambda::config::Env::from_pairs([("JWT_SECRET", "a secret of at least thirty-two bytes")]);
        let auth = lambda::config::read(auth, lambda::auth::AuthConfig::read).unwrap();
        let authorization = request.headers()["authorization"].to_str().unwrap();
        let refused = lambda::auth::Authenticator::new(&auth).unwrap().verify(Some(authorization)).await;
        lambda::problem::Problem::from(refused.unwrap_err()).response()
    }
}

struct Obeys {
    meeting: Barrier,
}

impl ServeBatch for Obeys {
    type Error = &'static str;

    async fn serve(&self, metrics: &Metrics, batch: Batch, _: Invocation) -> Result<BatchAnswer, &'static str> {
        metrics.add(Metric::RecordsReceived, batch.records.len() as u64);
        let record = &batch.records[0];
        match record.value.as_deref().unwrap() {
            b"panic" => panic!("a bug"),
            b"error" => Err("the store is down"),
            b"fail" => Ok(answer([&record.source])),
            b"meet" => {
                self.meeting.wait().await;
                Ok(answer([]))
            }
            _ => Ok(answer([])),
        }
    }
}

/// How an invocation ended: `response` or `error`, and the body.
type Ends = BTreeMap<String, (String, Value)>;

/// Serves `events` to a function process and waits until each has ended. Also returns what the
/// function printed.
async fn invoke(function: &str, events: &[String], max_concurrency: Option<&str>) -> (Ends, String) {
    let (ended, mut ends) = mpsc::unbounded_channel();
    let api = Api { events: Arc::new(Mutex::new(events.iter().cloned().enumerate().collect())), ended };
    let router = Router::new()
        .route("/2018-06-01/runtime/invocation/next", get(next))
        .route("/2018-06-01/runtime/invocation/{id}/{end}", post(end))
        .with_state(api);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move { axum::serve(listener, router).await });

    let mut command = tokio::process::Command::new(std::env::current_exe().unwrap());
    command
        .env(RUNTIME_API, address)
        .env("AWS_LAMBDA_FUNCTION_NAME", function)
        .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128")
        .env("AWS_LAMBDA_FUNCTION_VERSION", "1")
        .env_remove("AWS_LAMBDA_MAX_CONCURRENCY")
        .envs(max_concurrency.map(|limit| ("AWS_LAMBDA_MAX_CONCURRENCY", limit)))
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    let mut process = command.spawn().unwrap();
    let mut found = Ends::new();
    while found.len() < events.len() {
        let next = tokio::time::timeout(DEADLINE, ends.recv()).await;
        let (id, how) = next.expect("every invocation ends").unwrap();
        assert!(found.insert(id, how).is_none(), "an invocation ends once");
    }
    process.kill().await.unwrap();
    let mut printed = String::new();
    process.stdout.take().unwrap().read_to_string(&mut printed).await.unwrap();
    (found, printed)
}

#[derive(Clone)]
struct Api {
    events: Arc<Mutex<VecDeque<(usize, String)>>>,
    ended: mpsc::UnboundedSender<(String, (String, Value))>,
}

async fn next(State(api): State<Api>) -> (HeaderMap, String) {
    let event = api.events.lock().unwrap().pop_front();
    let Some((id, event)) = event else { return std::future::pending().await };
    let mut headers = HeaderMap::new();
    headers.insert("lambda-runtime-aws-request-id", HeaderValue::from(id));
    headers.insert("lambda-runtime-deadline-ms", HeaderValue::from(lambda::clock::now_ms() + 60_000));
    headers.insert("lambda-runtime-invoked-function-arn", HeaderValue::from_static("arn:aws:lambda:::runtime"));
    (headers, event)
}

async fn end(State(api): State<Api>, Path((id, end)): Path<(String, String)>, body: String) -> StatusCode {
    api.ended.send((id, (end, serde_json::from_str(&body).unwrap()))).unwrap();
    StatusCode::ACCEPTED
}

fn sqs(body: &str) -> String {
    let queue = "arn:aws:sqs:us-east-1:000000000000:inbound";
    json!({"Records": [{"messageId": body, "receiptHandle": "r", "attributes": {"SentTimestamp": "1790000000000"},
        "body": body, "eventSource": "aws:sqs", "eventSourceARN": queue}]})
    .to_string()
}

async fn every_invocation_ends_in_an_answer_or_a_function_error(max_concurrency: Option<&str>) {
    let events = [sqs("panic"), sqs("error"), "{}".into(), sqs("fail"), sqs("succeed")];
    let (ends, printed) = invoke(BATCHES, &events, max_concurrency).await;
    let message = |id: &str| (ends[id].0.as_str(), ends[id].1["errorMessage"].as_str().unwrap());
    assert_eq!(message("0"), ("error", "Lambda panicked: a bug"));
    assert_eq!(message("1"), ("error", "the store is down"));
    assert_eq!(message("2").0, "error");
    let failed = json!({"batchItemFailures": [{"itemIdentifier": "fail"}]});
    assert_eq!(ends["3"], ("response".into(), failed));
    assert_eq!(ends["4"], ("response".into(), json!({"batchItemFailures": []})));

    let lines: Vec<Value> =
        printed.lines().map(|line| serde_json::from_str(line).expect("every line is JSON")).collect();
    let counted = lines.iter().filter(|line| line["RecordsReceived"] == 1).count();
    assert_eq!(counted, 4, "each parsed batch is counted once, whether its handler returned, failed or panicked");
    let panic = lines.iter().find(|line| line["message"] == "panicked").expect("the panic is logged");
    assert_eq!((&panic["panic"], &panic["span"]["requestId"]), (&json!("a bug"), &json!("0")));
}

async fn concurrent_invocations_run_side_by_side() {
    let (ends, _) = invoke(BATCHES, &[sqs("meet"), sqs("meet")], Some("2")).await;
    assert!(ends.values().all(|(end, _)| end == "response"), "two that wait for each other both answer");
}

async fn schedule_ignores_its_event_and_knows_the_time_left() {
    let events = ["{}".to_owned(), "null".to_owned(), json!({"detail-type": "Scheduled Event"}).to_string()];
    let (ends, _) = invoke(SCHEDULED, &events, None).await;
    for (end, answer) in ends.values() {
        let seconds = answer["seconds"].as_u64().unwrap();
        assert!(end == "response" && (30..=60).contains(&seconds), "{answer}");
    }
}

/// Neither by us nor by the runtime and the HTTP libraries, whether the function answers or panics,
/// or the event has another form.
async fn no_part_of_a_request_is_logged_at_any_level() {
    let event = |body: &str, version: Value| {
        let route = "POST /v1/events";
        json!({"version": version, "routeKey": route, "rawPath": "/v1/events", "rawQueryString": format!("token={TOKEN}"),
            "cookies": [format!("session={TOKEN}")], "headers": {"authorization": format!("Bearer {TOKEN}")},
            "body": body, "isBase64Encoded": false,
            "requestContext": {"routeKey": route, "http": {"method": "POST", "path": "/v1/events"}}})
        .to_string()
    };
    let body = json!({ "token": TOKEN }).to_string();
    let events = [event(&body, json!("2.0")), event("", json!("2.0")), event(&body, json!(2))];
    let (ends, printed) = invoke(HTTP, &events, None).await;
    assert_eq!((ends["0"].0.as_str(), &ends["0"].1["statusCode"]), ("response", &json!(401)));
    assert_eq!((ends["1"].0.as_str(), ends["2"].0.as_str()), ("error", "error"));
    assert!(printed.contains("ours") && printed.contains("panicked"), "{printed}");
    for told in [printed, json!(ends).to_string()] {
        assert!(!told.contains("nobody-may-see"), "{told}");
    }
}
