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
mod body;
mod config;
mod legacy;
mod migrate;
mod shadow;

pub use config::Config;
pub use legacy::Legacy;
pub use shadow::ShadowTally;

use accept::{events_of, stamp};
use http::{HeaderMap, Method, Response, StatusCode};
use lambda::auth::{Authenticator, Identity};
use lambda::metrics::{Metric, Metrics};
use lambda::problem::{Problem, json};
use lambda::routing::Routing;
use lambda::runtime::ServeHttp;
use lambda_http::{Body, Request, RequestExt};
use playback::edge::SessionWindow;
use playback::session::SessionId;
use serde::Serialize;
use std::sync::Arc;
use std::time::Instant;
use stream::{DurableLog, Failover};

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
        response
    }
}

impl<L: DurableLog + 'static> Ingest<L> {
    async fn route(&self, request: &Request, metrics: &Metrics, now: u64) -> Result<Response<Body>, Problem> {
        let post = request.method() == Method::POST;
        match request.raw_http_path().trim_end_matches('/') {
            "/v1/events" if post => self.take_events(request, metrics, now).await,
            "/v1/sessions" if post => self.mint_session(request.headers(), metrics, now).await,
            "/v1/events" | "/v1/sessions" => Err(Problem::method_not_allowed("POST")),
            path => Err(Problem::not_found(format!("nothing is served at {path}"))),
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
        let routes = self.routing.routes(metrics, Instant::now()).await;
        if let Some(legacy) = &self.legacy {
            return self.migrate(legacy, request, &routes, metrics, now).await;
        }
        // Unauthenticated callers learn nothing about other errors.
        let identity = self.identify(request.headers()).await?;
        let body = body::read(request.headers(), request.body())?;
        let raw_events = events_of(&body)?.into_iter().enumerate();
        let stamp = stamp(request.headers(), &routes, now);
        let accepted = self.accept(&identity, raw_events, &stamp, &routes, metrics).await?;
        Ok(json(StatusCode::ACCEPTED, &accepted))
    }

    async fn identify(&self, headers: &HeaderMap) -> Result<Identity, Problem> {
        let authorization = headers.get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        Ok(self.authenticator.verify(authorization).await?)
    }
}

#[cfg(test)]
mod tests;
