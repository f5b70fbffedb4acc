//! A small synchronous viewing history: the legacy system that a team has before Playhead.
//!
//! It accepts the events of the contract (`POST /v1/events`, also gzip). It writes each session's
//! events to its own table before it answers `200 {"ok":true,"stored":n,"refused":m}`.
//! `GET /v1/profiles/{p}/sessions/{s}` returns a session, in its own form and units, and
//! `GET /v1/profiles/{p}/sessions` all sessions of a profile. It authenticates no one: whatever is
//! in front of it does.
//!
//! It computes a session in its own way. The result agrees with Playhead's on every field that both
//! know, unless a bug is switched on. It shares only the rules for valid events with Playhead
//! ([`playback::edge`]).

mod behaviour;
mod table;
mod viewing;

pub use behaviour::{Behaviour, Bug, Bugs};

use anyhow::{Context as _, Result};
use aws_config::SdkConfig;
use axum::body::{Bytes, to_bytes};
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use flate2::read::GzDecoder;
use lambda::clock::now_ms;
use playback::contract::MAX_DECOMPRESSED_BYTES;
use playback::edge::{BodyText, SessionWindow, parse_request, validate};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::Read as _;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use table::{Arrived, Table};
use tokio::net::TcpListener;
use viewing::Kept;

/// The mapping of its answers to Playhead's fields, for `compare` (`LEGACY_MAPPING`).
pub const MAPPING: &str = include_str!("../mapping.json");

/// A running service. It stops with the runtime.
#[derive(Debug)]
pub struct Legacy {
    /// Its base URL, without a slash at its end.
    pub url: String,
    behaviour: Arc<RwLock<Behaviour>>,
    answers: AnswerLog,
}

/// A service that has an address but no table yet. Connections wait.
#[derive(Debug)]
pub struct Listening {
    /// Its base URL, without a slash at its end.
    pub url: String,
    listener: TcpListener,
}

/// An answer that the service sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// The status.
    pub status: StatusCode,
    /// The header `content-type`, if it is text.
    pub content_type: Option<String>,
    /// The body.
    pub body: Bytes,
}

/// Answers by the `x-request-id` header of their requests.
type AnswerLog = Arc<Mutex<BTreeMap<String, Answered>>>;

/// The state that requests share.
#[derive(Clone)]
struct Service {
    table: Table,
    behaviour: Arc<RwLock<Behaviour>>,
    answers: AnswerLog,
}

impl Legacy {
    /// Starts it on a free loopback port, and creates its table if it does not exist.
    ///
    /// # Errors
    /// If there is no free port, or the table cannot be created.
    pub async fn start(sdk: &SdkConfig, table: &str) -> Result<Self> {
        Self::listen().await?.serve(sdk, table).await
    }

    /// Takes a free loopback port, for callers that need the address before there is a table.
    ///
    /// # Errors
    /// If there is no free port.
    pub async fn listen() -> Result<Listening> {
        let listener =
            TcpListener::bind(("127.0.0.1", 0)).await.context("cannot bind a port for the legacy service")?;
        Ok(Listening { url: format!("http://{}", listener.local_addr()?), listener })
    }

    /// Its answers so far, by the `x-request-id` header of their requests.
    #[must_use]
    pub fn answered(&self) -> BTreeMap<String, Answered> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The URL of a profile's sessions, for `compare` (`LEGACY_SESSIONS_URL`).
    #[must_use]
    pub fn sessions_url(&self) -> String {
        sessions_url(&self.url)
    }

    /// Changes its behaviour from the next request on.
    pub fn behave(&self, behaviour: Behaviour) {
        *self.behaviour.write().unwrap_or_else(PoisonError::into_inner) = behaviour;
    }
}

impl Listening {
    /// Serves from this table, and creates it if it does not exist.
    ///
    /// # Errors
    /// If the table cannot be created.
    pub async fn serve(self, sdk: &SdkConfig, table: &str) -> Result<Legacy> {
        let Self { url, listener } = self;
        let (behaviour, answers) = (Arc::<RwLock<Behaviour>>::default(), AnswerLog::default());
        let table = Table::open(sdk, table).await?;
        let service = Service { table, behaviour: Arc::clone(&behaviour), answers: Arc::clone(&answers) };
        let app = Router::new()
            .route("/v1/events", post(take))
            .route("/v1/profiles/{profile}/sessions", get(list))
            .route("/v1/profiles/{profile}/sessions/{session}", get(one))
            .layer(middleware::from_fn_with_state(service.clone(), behave))
            .layer(middleware::from_fn_with_state(service.clone(), remember))
            .with_state(service);
        tokio::spawn(async { axum::serve(listener, app).await });
        Ok(Legacy { url, behaviour, answers })
    }

    /// See [`Legacy::sessions_url`].
    #[must_use]
    pub fn sessions_url(&self) -> String {
        sessions_url(&self.url)
    }
}

fn sessions_url(url: &str) -> String {
    format!("{url}/v1/profiles/{{profile_id}}/sessions")
}

impl Service {
    fn behaviour(&self) -> Behaviour {
        self.behaviour.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// An error, as the caller sees it.
struct Failed(StatusCode, String);

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "ok": false, "error": self.1 }))).into_response()
    }
}

impl From<anyhow::Error> for Failed {
    fn from(error: anyhow::Error) -> Self {
        tracing::error!(error = format!("{error:#}"), "the legacy service failed");
        Self(StatusCode::INTERNAL_SERVER_ERROR, "the database did not answer".to_owned())
    }
}

async fn behave(State(service): State<Service>, request: Request, next: Next) -> Response {
    let Behaviour { delay, failure, .. } = service.behaviour();
    tokio::time::sleep(delay).await;
    match failure {
        Some(status) => Failed(status, "switched on by the test".to_owned()).into_response(),
        None => next.run(request).await,
    }
}

async fn remember(State(service): State<Service>, request: Request, next: Next) -> Result<Response, Failed> {
    let id = request.headers().get("x-request-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
    let answer = next.run(request).await;
    let Some(id) = id else { return Ok(answer) };
    let (parts, body) = answer.into_parts();
    let body = to_bytes(body, usize::MAX).await.map_err(anyhow::Error::from)?;
    let content_type = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let answered = Answered { status: parts.status, content_type: content_type.map(str::to_owned), body: body.clone() };
    service.answers.lock().unwrap_or_else(PoisonError::into_inner).insert(id, answered);
    Ok(Response::from_parts(parts, body.into()))
}

async fn take(State(service): State<Service>, headers: HeaderMap, body: Bytes) -> Result<Response, Failed> {
    let bad_request = |error: String| Failed(StatusCode::BAD_REQUEST, error);
    let body = decompressed(&headers, &body).map_err(|error| bad_request(error.to_string()))?;
    let body = BodyText::new(&body);
    let request = parse_request(&body).map_err(|error| bad_request(error.to_string()))?;
    let (now, all) = (now_ms(), request.events.len());
    let mut requests: Vec<Arrived> = Vec::new();
    let valid = request.events.into_iter().filter_map(|raw| validate(raw, now, SessionWindow::default()).ok());
    for event in valid.map(|valid| valid.event) {
        let session = event.session_id.to_string();
        let (began, sent) = (event.session_id.started_at(), request.sent_at);
        let kept = (event.event.seq, Kept::of(&event.event, &event.title_id, began, sent, now));
        match requests.iter_mut().find(|one| one.session == session && one.profile == event.profile_id) {
            Some(one) => one.events.push(kept),
            None => requests.push(Arrived { profile: event.profile_id, session, events: vec![kept] }),
        }
    }
    for arrived in &requests {
        let again = service.table.keep(arrived).await?;
        if service.behaviour().bugs.contains(&Bug::DroppedDuplicates) {
            service.table.remove(&arrived.profile, &arrived.session, &again).await?;
        }
    }
    let stored: usize = requests.iter().map(|arrived| arrived.events.len()).sum();
    Ok(Json(json!({ "ok": true, "stored": stored, "refused": all - stored })).into_response())
}

fn decompressed(headers: &HeaderMap, body: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match headers.get(header::CONTENT_ENCODING) {
        Some(encoding) if encoding == "gzip" => {
            GzDecoder::new(body).take(MAX_DECOMPRESSED_BYTES as u64).read_to_end(&mut bytes)?;
        }
        _ => bytes.extend_from_slice(body),
    }
    Ok(bytes)
}

async fn one(
    State(service): State<Service>,
    Path((profile, session)): Path<(String, String)>,
) -> Result<Response, Failed> {
    let viewing = service.table.get(&profile, &session).await?;
    let answer = viewing.and_then(|viewing| viewing.answer(&session, &service.behaviour().bugs));
    let answer = answer.ok_or_else(|| Failed(StatusCode::NOT_FOUND, "no such viewing".to_owned()))?;
    Ok(Json(answer).into_response())
}

async fn list(State(service): State<Service>, Path(profile): Path<String>) -> Result<Response, Failed> {
    let bugs = service.behaviour().bugs;
    let viewings = service.table.list(&profile).await?;
    let answers: Vec<_> = viewings.iter().filter_map(|(session, viewing)| viewing.answer(session, &bugs)).collect();
    Ok(Json(json!({ "viewings": answers })).into_response())
}
