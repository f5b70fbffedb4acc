//! Takes events in over HTTP and appends them to the durable log.
//!
//! A request goes through five steps: identify the sender, read the body, validate each event, group the good ones by
//! session, append: to one topic what is folded in this region, to another one what `forward` brings to its own. The `202` is made after the last acknowledgement of a log, the primary or the standby, and only if
//! all are there: an event that is called accepted is durable. Nothing here knows the store, so that no device ever waits for it.

mod body;
mod config;
mod legacy;
mod migrate;

pub use config::Config;
pub use legacy::Legacy;
pub use migrate::ShadowTally;

use http::{HeaderMap, Method, Response, StatusCode};
use lambda::auth::{Authenticator, Identity};
use lambda::metrics::{Metric, Metrics};
use lambda::problem::{Problem, json};
use lambda::routing::Routing;
use lambda::runtime::ServeHttp;
use lambda_http::{Body, Request, RequestExt};
use playback::edge::{Code, EdgeEvent, Rejection, RequestError, SessionWindow, parse_request, validate};
use playback::envelope::{Envelope, Stamp, group};
use playback::routing::Routes;
use playback::session::SessionId;
use serde::Serialize;
use serde_json::value::RawValue;
use std::sync::Arc;
use std::time::Instant;
use stream::{Appended, DurableLog, Failover, Fate, Lane, LogRecord, Role};

/// What serves requests; one a process.
pub struct Ingest<L> {
    /// Where the events of sessions go that are folded in this region.
    pub local: Failover<L>,
    /// Where those of all other sessions go, if the deployment has other regions.
    pub remote: Option<Failover<L>>,
    /// Which sessions are which.
    pub routing: Routing,
    /// Whose tokens are believed.
    pub authenticator: Authenticator,
    /// How old and how far ahead a session may be.
    pub window: SessionWindow,
    /// The system that we take over from, if there is one.
    pub legacy: Option<Legacy>,
    /// What became of shadows.
    pub shadows: Arc<ShadowTally>,
}

#[derive(Serialize)]
struct Accepted {
    accepted: usize,
    rejected: Vec<Rejected>,
}

#[derive(Serialize)]
struct Rejected {
    /// Where the event stands in the request.
    index: usize,
    #[serde(flatten)]
    rejection: Rejection,
}

#[derive(Serialize)]
struct Minted {
    session_id: String,
    started_at: u64,
}

impl<L: DurableLog + 'static> ServeHttp for Ingest<L> {
    async fn serve(&self, metrics: &Metrics, request: Request, now: u64) -> Response<Body> {
        self.answer(&request, metrics, now).await
    }
}

impl<L: DurableLog + 'static> Ingest<L> {
    /// Answers a request. `now` is when it was received, Unix milliseconds.
    pub async fn answer(&self, request: &Request, metrics: &Metrics, now: u64) -> Response<Body> {
        let response = self.route(request, metrics, now).await.unwrap_or_else(|problem| problem.response());
        metrics.add(Metric::Requests(response.status()), 1);
        response
    }

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
        self.shadows.count(metrics);
        let routes = self.routing.routes(metrics, Instant::now()).await;
        if let Some(legacy) = &self.legacy {
            return self.migrate(legacy, request, &routes, metrics, now).await;
        }
        // Who is not known learns nothing of what else is wrong.
        let identity = self.identify(request.headers()).await?;
        let body = body::read(request.headers(), request.body())?;
        let raw_events = events_of(&body)?.into_iter().enumerate();
        let stamp = stamp(request.headers(), &routes, now);
        let taken = self.accept(&identity, raw_events, &stamp, &routes, metrics).await?;
        Ok(json(StatusCode::ACCEPTED, &taken))
    }

    /// Takes events, each with its place in the request: the good ones are durable, the bad ones are named.
    async fn accept(
        &self,
        identity: &Identity,
        raw_events: impl IntoIterator<Item = (usize, &RawValue)>,
        stamp: &Stamp,
        routes: &Routes,
        metrics: &Metrics,
    ) -> Result<Accepted, Problem> {
        let raw_events = raw_events.into_iter();
        let mut events = Vec::with_capacity(raw_events.size_hint().0);
        let mut rejected = Vec::new();
        for (index, raw) in raw_events {
            match validate(raw, stamp.received_at, self.window).and_then(|event| permit(identity, event)) {
                Ok(event) => events.push(event),
                Err(rejection) => {
                    metrics.add(Metric::EventsRejected(rejection.code.as_str()), 1);
                    rejected.push(Rejected { index, rejection });
                }
            }
        }
        if events.is_empty()
            && let Some(first) = rejected.first()
            && rejected.iter().all(|one| one.rejection.code == Code::ProfileForbidden)
        {
            return Err(Problem::forbidden(first.rejection.message.clone()).field("profile_id"));
        }
        let accepted = events.len();
        self.append(events, stamp, routes, metrics).await?;
        metrics.add(Metric::EventsAccepted, accepted as u64);
        Ok(Accepted { accepted, rejected })
    }

    /// Puts an envelope with those that go its way.
    fn load(&self, envelope: Envelope, routes: &Routes, local: &mut Load, remote: &mut Load) {
        let target = routes.target(&envelope.session_id.home);
        let record = LogRecord::new(envelope.session_id.to_string(), envelope.encode());
        if target == routes.regions().here() || self.remote.is_none() {
            local.add(record, envelope.events.len());
        } else {
            let (index, of) = routes.lane(target);
            remote.add(LogRecord { lane: Lane::new(index as u16, of as u16), ..record }, envelope.events.len());
        }
    }

    /// Appends events to the logs; all of them are durable, or the request is to be sent again.
    async fn append(
        &self,
        events: Vec<EdgeEvent>,
        stamp: &Stamp,
        routes: &Routes,
        metrics: &Metrics,
    ) -> Result<(), Problem> {
        let (mut local, mut remote) = (Load::default(), Load::default());
        for envelope in group(events, stamp) {
            self.load(envelope, routes, &mut local, &mut remote);
        }
        let append_remote = async {
            match &self.remote {
                Some(log) => log.append(&remote.records, routes.log()).await,
                None => Appended { fates: Vec::new(), opened: 0, closed: 0 },
            }
        };
        let (here, elsewhere) = tokio::join!(self.local.append(&local.records, routes.log()), append_remote);
        metrics.add(Metric::CircuitOpened, (here.opened + elsewhere.opened).into());
        metrics.add(Metric::CircuitClosed, (here.closed + elsewhere.closed).into());
        let fates: Vec<Fate> = here.fates.into_iter().chain(elsewhere.fates).collect();
        let sizes: Vec<u64> = local.sizes.into_iter().chain(remote.sizes).collect();
        let on = |role| fates.iter().filter(|fate| fate.result == Ok(role)).count();
        let (on_primary, on_standby) = (on(Role::Primary), on(Role::Standby));
        metrics.add(Metric::RecordsAppended, (on_primary + on_standby) as u64);
        metrics.add(Metric::RecordsOnStandby, on_standby as u64);
        let is_accepted = on_primary + on_standby == fates.len();
        metrics.add(Metric::EventsUnclaimed, unclaimed(&fates, &sizes, is_accepted));
        if is_accepted {
            return Ok(());
        }
        metrics.add(Metric::AppendErrors, (fates.len() - on_primary - on_standby) as u64);
        for error in fates.iter().filter_map(|fate| fate.result.as_ref().err()) {
            tracing::error!(%error, reason = error.reason(), "no log took a record");
        }
        // Devices that were turned away together must not come back together: between 2 and 9 seconds.
        let seconds = rand::random_range(2..10);
        let detail = "the events could not be made durable; send the request again, which is harmless";
        Err(Problem::unavailable("log_unavailable", detail, seconds))
    }

    async fn identify(&self, headers: &HeaderMap) -> Result<Identity, Problem> {
        let authorization = headers.get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        Ok(self.authenticator.verify(authorization).await?)
    }
}

/// The events of a request's body.
fn events_of(body: &[u8]) -> Result<Vec<&RawValue>, Problem> {
    parse_request(body).map_err(|error| match error {
        RequestError::Malformed(_) => Problem::bad_request("malformed_request", error.to_string()),
        RequestError::TooManyEvents(_) => {
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_many_events", error.to_string()).field("events")
        }
    })
}

/// What is stamped on a request received at `now`.
fn stamp(headers: &HeaderMap, routes: &Routes, now: u64) -> Stamp {
    let ingest_region = routes.regions().here().name.clone();
    Stamp { received_at: now, ingest_region, trace_id: trace_id(headers), shadow: false }
}

/// The records of a request that go the same way, and how many events each holds.
#[derive(Default)]
struct Load {
    records: Vec<LogRecord>,
    sizes: Vec<u64>,
}

impl Load {
    fn add(&mut self, record: LogRecord, events: usize) {
        self.records.push(record);
        self.sizes.push(events as u64);
    }
}

/// The events that may be on a log beyond the one copy of each that a `202` rests on; a `503` rests on none.
fn unclaimed(fates: &[Fate], sizes: &[u64], is_accepted: bool) -> u64 {
    let claimed = u32::from(is_accepted);
    fates.iter().zip(sizes).map(|(fate, events)| u64::from(fate.copies.saturating_sub(claimed)) * events).sum()
}

fn permit(identity: &Identity, event: EdgeEvent) -> Result<EdgeEvent, Rejection> {
    if identity.may(&event.profile_id) { Ok(event) } else { Err(Rejection::profile_forbidden(&event.profile_id)) }
}

/// The trace id of a W3C `traceparent` header (version 00: `00-<32 hex>-<16 hex>-<2 hex>`).
fn trace_id(headers: &HeaderMap) -> Option<[u8; 16]> {
    let header = headers.get("traceparent")?.to_str().ok()?;
    let hex = header.split('-').nth(1).filter(|hex| hex.len() == 32)?;
    u128::from_str_radix(hex, 16).ok().filter(|id| *id != 0).map(u128::to_be_bytes)
}

#[cfg(test)]
mod tests;
