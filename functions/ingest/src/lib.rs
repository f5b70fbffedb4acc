//! Takes events in over HTTP and appends them to the durable log.
//!
//! A request goes through five steps: authenticate the sender, read the body, validate each event,
//! group the good ones by session, append them. Sessions that are folded in this region go to the
//! local log, all others to the remote log, from which `forward` takes them to their own region.
//!
//! A `202` is answered only after a log, primary or standby, has acknowledged every record: an
//! event called accepted is durable. Nothing here knows the store, so no device ever waits for it.

mod accept;
mod append;
mod beacon;
mod body;
mod budget;
mod config;
mod legacy;
mod migrate;
mod shadow;

pub use budget::Budgets;
pub use config::Config;
pub use legacy::Legacy;
pub use shadow::ShadowTally;

use accept::{Posted, posted, stamp};
use beacon::Post;
use http::{HeaderMap, Response, StatusCode};
use lambda::auth::{Authenticator, Identity};
use lambda::metrics::{Metric, Metrics};
use lambda::problem::{Problem, json};
use lambda::route::Table;
use lambda::routing::Routing;
use lambda::runtime::ServeHttp;
use lambda_http::request::RequestContext;
use lambda_http::{Body, Request, RequestExt};
use playback::edge::{BodyText, SessionWindow};
use playback::session::SessionId;
use serde::Serialize;
use std::sync::Arc;
use std::time::Instant;
use stream::{DurableLog, Failover};

/// What a request asks for.
#[derive(Clone, Copy)]
enum Call {
    TakeEvents,
    MintSession,
}

const ROUTES: Table<Call> = Table(&[("POST /v1/events", Call::TakeEvents), ("POST /v1/sessions", Call::MintSession)]);

/// The keys of the routes that are served, as `template.yaml` must have them.
pub fn route_keys() -> impl Iterator<Item = &'static str> {
    ROUTES.keys()
}

/// Serves requests; one per process.
pub struct Ingest<L> {
    /// The log for sessions that are folded in this region.
    pub local: Failover<L>,
    /// The log for all other sessions, if the deployment has other regions.
    pub remote: Option<Failover<L>>,
    /// The routing document, which says where each session is folded.
    pub routing: Routing,
    /// Checks tokens.
    pub authenticator: Authenticator,
    /// How old and how far ahead a session may be.
    pub window: SessionWindow,
    /// How many events of a profile are accepted per minute.
    pub budgets: Budgets,
    /// The system we are migrating from, if there is one.
    pub legacy: Option<Legacy>,
    /// Counts shadows.
    pub shadows: Arc<ShadowTally>,
}

#[derive(Serialize)]
struct Minted {
    session_id: String,
    started_at: u64,
}

impl<L: DurableLog + 'static> ServeHttp for Ingest<L> {
    async fn serve(&self, metrics: &Metrics, request: Request, now: u64) -> Response<Body> {
        let response = self.route(&request, metrics, now).await.unwrap_or_else(|problem| problem.response());
        metrics.add(Metric::Requests(response.status()), 1);
        log(&request, response.status(), metrics);
        response
    }
}

impl<L: DurableLog + 'static> Ingest<L> {
    async fn route(&self, request: &Request, metrics: &Metrics, now: u64) -> Result<Response<Body>, Problem> {
        match ROUTES.find(request)?.0 {
            Call::TakeEvents => self.take_events(request, metrics, now).await,
            Call::MintSession => self.mint_session(request.headers(), metrics, now).await,
        }
    }

    async fn mint_session(&self, headers: &HeaderMap, metrics: &Metrics, now: u64) -> Result<Response<Body>, Problem> {
        self.identify(headers).await?;
        let home = self.routing.routes(metrics, Instant::now()).await.home_of_new_sessions().clone();
        let session_id = SessionId::mint(home, now, rand::random()).to_string();
        Ok(json(StatusCode::CREATED, &Minted { session_id, started_at: now }))
    }

    async fn take_events(&self, request: &Request, metrics: &Metrics, now: u64) -> Result<Response<Body>, Problem> {
        self.shadows.report(metrics);
        if let Some(legacy) = &self.legacy {
            let routes = self.routing.known_routes(metrics, Instant::now()).await.ok_or_else(routing_unavailable)?;
            let post = Post::to_pass_on(request.headers(), request.body())?;
            return self.migrate(legacy, &post, request.uri().query(), &routes, metrics, now).await;
        }
        let routes = self.routing.routes(metrics, Instant::now()).await;
        let Post { headers, body } = Post::of(request.headers(), request.body());
        // Unauthenticated callers learn nothing about other errors.
        let identity = self.identify(&headers).await?;
        let body = body::read(&headers, &body)?;
        let body = BodyText::new(&body);
        let Posted { events, sent_at, adjusted } = posted(&body)?;
        let stamp = stamp(&headers, &routes, sent_at, now);
        let events = events.into_iter().enumerate();
        let accepted = self.accept(&identity, events, adjusted, &stamp, &routes, metrics).await?;
        Ok(json(StatusCode::ACCEPTED, &accepted))
    }

    async fn identify(&self, headers: &HeaderMap) -> Result<Arc<Identity>, Problem> {
        let authorization = headers.get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        Ok(self.authenticator.verify(authorization).await?)
    }
}

/// The line that leads from a request to its records: they carry its trace id. INFO if it is
/// noteworthy or X-Ray samples it, else DEBUG.
fn log(request: &Request, status: StatusCode, metrics: &Metrics) {
    let rejected = metrics.count_where(|metric| matches!(metric, Metric::EventsRejected(_)));
    let is_noteworthy = rejected > 0 || status.is_server_error() || accept::is_sampled(request.headers());
    if !is_noteworthy && !tracing::enabled!(tracing::Level::DEBUG) {
        return;
    }
    let trace_id = accept::trace_id(request.headers()).map(|id| format!("{:032x}", u128::from_be_bytes(id)));
    let api_request_id = match request.request_context_ref() {
        Some(RequestContext::ApiGatewayV2(context)) => context.request_id.as_deref(),
        _ => None,
    };
    let (status, accepted) = (status.as_u16(), metrics.count(Metric::EventsAccepted));
    if is_noteworthy {
        tracing::info!(trace_id, api_request_id, status, accepted, rejected, "answered a request");
    } else {
        tracing::debug!(trace_id, api_request_id, status, accepted, rejected, "answered a request");
    }
}

/// Without the rollout nobody knows which profiles have moved, and those that have must not reach
/// the legacy system.
fn routing_unavailable() -> Problem {
    // Devices that were turned away together must not come back together: between 2 and 9 seconds.
    let seconds = rand::random_range(2..10);
    let detail = "the routing document is unavailable; send the request again, which is harmless";
    Problem::unavailable("routing_unavailable", detail, seconds)
}

#[cfg(test)]
mod tests;
