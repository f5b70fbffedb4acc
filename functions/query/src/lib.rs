//! The member's API: history, continue watching, a title's bookmark, hide and unhide, erase.
//!
//! A member can reach only the profiles of their token; that is checked here, before any call to
//! the store.

mod config;
mod route;

pub use config::Config;

use http::{Response, StatusCode};
use lambda::auth::Authenticator;
use lambda::metrics::{Metric, Metrics};
use lambda::problem::{Problem, json, no_content};
use lambda::runtime::ServeHttp;
use lambda_http::{Body, Request};
use playback::history::Entry;
use route::{Call, ROUTES, route};
use serde::Serialize;
use std::time::Duration;
use store::StoreError;
use store::dynamodb::Views;
use tokio::time::Instant;

/// How long one request deletes. One more call of 5 s still fits the function's 15 s. A repeated
/// request continues.
const ERASE_FOR: Duration = Duration::from_secs(8);
/// After how many seconds to retry when the store does not answer.
const RETRY_AFTER_S: u32 = 2;

/// The keys of the routes that are served, as `template.yaml` must have them.
pub fn route_keys() -> impl Iterator<Item = &'static str> {
    ROUTES.keys()
}

/// Serves requests; one per process.
pub struct Query {
    /// The views table.
    pub views: Views,
    /// Checks tokens.
    pub authenticator: Authenticator,
}

#[derive(Serialize)]
struct Page {
    sessions: Vec<Session>,
    next_page_token: Option<String>,
}

/// A session in the contract's form.
#[derive(Serialize)]
struct Session {
    session_id: String,
    title_id: String,
    started_at: u64,
    last_received_at: u64,
    position_ms: u64,
    played_ms: u64,
    title_duration_ms: u64,
    completed: bool,
    device: Device,
    country: Option<String>,
    events: u64,
    missing: u64,
    hidden: bool,
}

#[derive(Serialize)]
struct Device {
    id: String,
    kind: String,
}

#[derive(Serialize)]
struct Bookmark {
    title_id: String,
    session_id: String,
    position_ms: u64,
    title_duration_ms: u64,
    completed: bool,
    last_received_at: u64,
}

impl From<Entry> for Session {
    fn from(Entry { session_id, view, hidden }: Entry) -> Self {
        Self {
            session_id: session_id.to_string(),
            started_at: view.started_at,
            last_received_at: view.last_received_at,
            position_ms: view.latest.position_ms,
            played_ms: view.played_ms(),
            title_duration_ms: view.first.title_duration_ms,
            completed: view.completed(),
            device: Device { id: view.latest.device.id.clone(), kind: view.latest.device.kind.clone() },
            country: view.first.country.map(|country| country.to_string()),
            events: view.events(),
            missing: view.missing(),
            hidden,
            title_id: view.first.title_id,
        }
    }
}

impl ServeHttp for Query {
    async fn serve(&self, metrics: &Metrics, request: Request, now: u64) -> Response<Body> {
        let response = self.answer(&request, now).await.unwrap_or_else(|problem| problem.response());
        metrics.add(Metric::Requests(response.status()), 1);
        response
    }
}

impl Query {
    async fn answer(&self, request: &Request, now: u64) -> Result<Response<Body>, Problem> {
        let authorization = request.headers().get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let identity = self.authenticator.verify(authorization).await?;
        let (profile_id, call) = route(request)?;
        let profile_id = profile_id.as_str();
        if !identity.may(profile_id) {
            let detail = format!("profile {profile_id} is not among the token's profiles");
            return Err(Problem::forbidden(detail).field("profile_id"));
        }
        match call {
            Call::History(page) => {
                let page = self.views.history(profile_id, page).await.map_err(unavailable)?;
                Ok(sessions(page.entries, page.next.map(|token| token.to_string())))
            }
            Call::ContinueWatching { limit } => {
                let entries = self.views.continue_watching(profile_id, limit).await.map_err(unavailable)?;
                Ok(sessions(entries, None))
            }
            Call::Bookmark { title_id } => {
                let entry = self.views.bookmark(profile_id, &title_id).await.map_err(unavailable)?;
                let entry = entry.ok_or_else(|| Problem::not_found(format!("no session of title {title_id}")))?;
                Ok(json(StatusCode::OK, &bookmark(title_id, entry)))
            }
            Call::SetHidden { session_id, hidden } => {
                self.views.set_hidden(profile_id, &session_id, hidden, now).await.map_err(unavailable)?;
                Ok(no_content())
            }
            Call::Erase => {
                let until = Instant::now() + ERASE_FOR;
                if !self.views.erase(profile_id, now, until).await.map_err(unavailable)? {
                    tracing::warn!("an erasure is marked and in force, but not all items are deleted yet");
                }
                Ok(no_content())
            }
        }
    }
}

/// Logs the store's failure; the member only learns when to retry.
fn unavailable(error: StoreError) -> Problem {
    tracing::error!(%error, "the store did not answer");
    Problem::unavailable("store_unavailable", "the history is unavailable now", RETRY_AFTER_S)
}

fn sessions(entries: Vec<Entry>, next_page_token: Option<String>) -> Response<Body> {
    let sessions = entries.into_iter().map(Session::from).collect();
    json(StatusCode::OK, &Page { sessions, next_page_token })
}

fn bookmark(title_id: String, Entry { session_id, view, .. }: Entry) -> Bookmark {
    Bookmark {
        title_id,
        session_id: session_id.to_string(),
        position_ms: view.latest.position_ms,
        title_duration_ms: view.first.title_duration_ms,
        completed: view.completed(),
        last_received_at: view.last_received_at,
    }
}
