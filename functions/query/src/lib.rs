//! The member's API: history, continue watching, titles; hide, mark watched, forget, erase. And the
//! page on which members do all that themselves.
//!
//! A member can reach only the profiles of their token; that is checked here, before any call to
//! the store.

mod config;
mod erase;
mod page;
mod route;

pub use config::Config;
pub use erase::{Erasing, erase};
pub use page::{FrameAncestors, NotOrigins};

use http::{Response, StatusCode};
use lambda::auth::Authenticator;
use lambda::metrics::{Metric, Metrics};
use lambda::problem::{Problem, json, no_content};
use lambda::runtime::ServeHttp;
use lambda_http::{Body, Request};
use playback::edge::{Code, SessionWindow};
use playback::history::{Entry, Rules, ShownView, TitleState};
use playback::session::SessionId;
use queue::Queue;
use route::{Call, ROUTES, route};
use serde::Serialize;
use std::time::Duration;
use store::dynamodb::Views;
use store::{Erase, StoreError};
use tokio::time::Instant;

/// How long a call of the member's API may take once its token is checked. The store's own time
/// limits are for one operation, and a call may need many.
pub const CALL_FOR: Duration = Duration::from_secs(15);
/// How long writing the mark of an erasure may take.
pub const MARK_FOR: Duration = Duration::from_secs(5);
/// How long handing an erasure to `retry` may take.
pub const HAND_OVER_FOR: Duration = Duration::from_secs(4);
/// How long one request deletes. `retry` continues.
pub const DELETE_FOR: Duration = Duration::from_secs(4);
/// After how many seconds to retry when the store does not answer.
const RETRY_AFTER_S: u32 = 2;

/// The keys of the routes that are served, as `template.yaml` must have them.
pub fn route_keys() -> impl Iterator<Item = &'static str> {
    ROUTES.keys().chain(page::ROUTES.keys())
}

/// Serves requests; one per process.
pub struct Query {
    /// The views table.
    pub views: Views,
    /// The queue `retry`, which carries erasures to the end.
    pub retry: Queue,
    /// Checks tokens.
    pub authenticator: Authenticator,
    /// When a title counts as begun and as finished.
    pub rules: Rules,
    /// How far ahead of our clock a session may begin.
    pub window: SessionWindow,
    /// Which pages may have the activity page in a frame.
    pub frame_ancestors: FrameAncestors,
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
    #[serde(flatten)]
    view: ShownView,
    missing: u64,
    hidden: bool,
}

#[derive(Serialize)]
struct Titles {
    titles: Vec<Title>,
}

/// What is known of a title, in the contract's form.
#[derive(Serialize)]
struct Title {
    title_id: String,
    resume: Option<Resume>,
    watched: bool,
    watched_at: Option<u64>,
}

#[derive(Serialize)]
struct Resume {
    session_id: String,
    position_ms: u64,
    title_duration_ms: Option<u64>,
    watched_at: u64,
}

impl Session {
    fn of(Entry { session_id, view, hidden, missing }: Entry, rules: &Rules) -> Self {
        let (session_id, shown) = (session_id.to_string(), ShownView::of(&view, rules));
        Self { session_id, title_id: view.title_id, view: shown, missing, hidden }
    }
}

impl Title {
    fn of(title_id: String, state: TitleState) -> Self {
        let resume = |entry: Entry| Resume {
            session_id: entry.session_id.to_string(),
            position_ms: entry.view.position_ms(),
            title_duration_ms: entry.view.title_duration_ms(),
            watched_at: entry.view.latest.watched_at,
        };
        let TitleState { resume: entry, watched, watched_at } = state;
        Self { title_id, resume: entry.map(resume), watched, watched_at }
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
        if let Some(page) = page::serve(request, &self.frame_ancestors) {
            return page;
        }
        let authorization = request.headers().get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let identity = self.authenticator.verify(authorization).await?;
        let (profile_id, call) = route(request)?;
        let profile_id = profile_id.as_str();
        if !identity.may(profile_id) {
            let detail = format!("profile {profile_id} is not among the token's profiles");
            return Err(Problem::forbidden(detail).field("profile_id"));
        }
        let carried_out = tokio::time::timeout(CALL_FOR, self.carry_out(call, profile_id, now)).await;
        carried_out.unwrap_or_else(|_| Err(overdue("a call")))
    }

    async fn carry_out(&self, call: Call, profile_id: &str, now: u64) -> Result<Response<Body>, Problem> {
        match call {
            Call::History(page) => {
                let page = self.views.history(profile_id, page).await.map_err(unavailable)?;
                Ok(self.sessions(page.entries, page.next.map(|token| token.to_string())))
            }
            Call::ContinueWatching { limit } => {
                let entries = self.views.continue_watching(profile_id, limit, &self.rules).await;
                Ok(self.sessions(entries.map_err(unavailable)?, None))
            }
            Call::Titles(title_ids) => {
                let titles = self.titles(profile_id, &title_ids).await?;
                Ok(json(StatusCode::OK, &Titles { titles }))
            }
            Call::Title { title_id } => {
                let title = self.titles(profile_id, &[title_id]).await?.pop();
                Ok(json(StatusCode::OK, &title))
            }
            Call::SetWatched { title_id, watched } => {
                self.views.set_watched(profile_id, &title_id, watched, now).await.map_err(unavailable)?;
                Ok(no_content())
            }
            Call::SetHidden { session_id, hidden } => {
                self.check_begun(&session_id, now)?;
                self.views.set_hidden(profile_id, &session_id, hidden, now).await.map_err(unavailable)?;
                Ok(no_content())
            }
            Call::Erase { title_id, session_id } => {
                session_id.as_ref().map_or(Ok(()), |session_id| self.check_begun(session_id, now))?;
                erase(self, &Erase { profile_id: profile_id.to_owned(), at: now, title_id, session_id }).await
            }
        }
    }

    fn sessions(&self, entries: Vec<Entry>, next_page_token: Option<String>) -> Response<Body> {
        let sessions = entries.into_iter().map(|entry| Session::of(entry, &self.rules)).collect();
        json(StatusCode::OK, &Page { sessions, next_page_token })
    }

    /// The state of each title, in the order asked for.
    async fn titles(&self, profile_id: &str, title_ids: &[String]) -> Result<Vec<Title>, Problem> {
        let states = self.views.titles(profile_id, title_ids, &self.rules).await.map_err(unavailable)?;
        let title = |id: &String| Title::of(id.clone(), states.get(id).cloned().unwrap_or_default());
        Ok(title_ids.iter().map(title).collect())
    }

    /// Refuses sessions that cannot have begun: their registers would stay for ever.
    fn check_begun(&self, session_id: &SessionId, now: u64) -> Result<(), Problem> {
        if !self.window.is_too_far_ahead(session_id, now) {
            return Ok(());
        }
        let detail = "`session_id` says the session begins in the future";
        Err(Problem::bad_request(Code::SessionTooFarAhead.as_str(), detail).field("session_id"))
    }
}

impl Erasing for Query {
    async fn mark(&self, erase: &Erase) -> Result<(), StoreError> {
        self.views.mark_erased(erase).await
    }

    async fn hand_over(&self, message: String, after: Duration) -> Result<(), String> {
        self.retry.send_after(message, after).await.map_err(|error| error.to_string())
    }

    async fn delete(&self, erase: &Erase, deadline: Instant) -> Result<bool, StoreError> {
        self.views.delete_erased(erase, deadline).await
    }
}

/// Logs the store's failure; the member only learns when to retry.
fn unavailable(error: StoreError) -> Problem {
    tracing::error!(%error, "the store did not answer");
    history_unavailable()
}

/// The same for a store that is too slow.
fn overdue(what: &str) -> Problem {
    tracing::error!(what, "the store did not answer in time");
    history_unavailable()
}

fn history_unavailable() -> Problem {
    Problem::unavailable("store_unavailable", "the history is unavailable now", RETRY_AFTER_S)
}
