//! Accepting a request's events: each is validated, the good ones are appended, the bad ones are
//! named in the answer.
//!
//! An event is called accepted only once a log has acknowledged it. If one record is not durable,
//! the whole request is a `503`.
//!
//! A member's token has limits that a backend's has not: [`MAX_VIEWINGS`] per request, and a budget
//! of events per profile and minute ([`crate::budget`]).

use crate::Ingest;
use crate::append::Append;
use crate::budget::Exhausted;
use http::{HeaderMap, StatusCode};
use lambda::auth::{Identity, Scope};
use lambda::metrics::{Metric, Metrics};
use lambda::problem::Problem;
use playback::edge::{
    Adjustment, BodyText, Change, Code, EdgeEvent, RawEvent, Rejection, RequestError, Valid, parse_request, validate,
};
use playback::envelope::Stamp;
use playback::routing::Routes;
use playback::session::SessionId;
use serde::Serialize;
use stream::DurableLog;

/// How many viewings (a session and title) one request of a member may have events of. Each costs a
/// record on the log and a write of the store. A device has one; one that was offline for days has a
/// few.
pub(crate) const MAX_VIEWINGS: usize = 50;

/// The body of a `202`.
#[derive(Serialize)]
pub(crate) struct Accepted {
    pub(crate) accepted: usize,
    pub(crate) rejected: Vec<Rejected>,
    pub(crate) adjusted: Vec<Adjusted>,
}

#[derive(Serialize)]
pub(crate) struct Rejected {
    /// The event's index in the request.
    index: usize,
    #[serde(flatten)]
    rejection: Rejection,
}

/// An odd value of a request that was accepted all the same.
#[derive(Serialize)]
pub(crate) struct Adjusted {
    /// The event's index in the request; absent if it concerns the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<usize>,
    #[serde(flatten)]
    adjustment: Adjustment,
}

/// A request's events, and the device's clock.
pub(crate) struct Posted<'a> {
    pub(crate) events: Vec<RawEvent<'a>>,
    pub(crate) sent_at: Option<u64>,
    /// What was adjusted in the request as a whole.
    pub(crate) adjusted: Vec<Adjusted>,
}

impl<L: DurableLog + 'static> Ingest<L> {
    /// Accepts events, each given with its index in the request.
    pub(crate) async fn accept(
        &self,
        identity: &Identity,
        raw_events: impl IntoIterator<Item = (usize, RawEvent<'_>)>,
        mut adjusted: Vec<Adjusted>,
        stamp: &Stamp,
        routes: &Routes,
        metrics: &Metrics,
    ) -> Result<Accepted, Problem> {
        let (mut events, mut rejected) = (Vec::new(), Vec::new());
        let mut adjusted_events = 0;
        let mut viewings = Viewings::of(identity);
        for (index, raw) in raw_events {
            match self.check(raw, stamp, identity, &mut viewings) {
                Ok(Valid { event, adjusted: changes }) => {
                    events.push(event);
                    adjusted_events += u64::from(!changes.is_empty());
                    let one = |adjustment| Adjusted { index: Some(index), adjustment };
                    adjusted.extend(changes.into_iter().map(one));
                }
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
        // Given back unless the events become durable.
        let reservation = match identity.scope {
            Scope::Profiles(_) => {
                let profiles = events.iter().map(|event| event.profile_id.as_str());
                Some(self.budgets.reserve(profiles, stamp.received_at).map_err(too_many_events)?)
            }
            Scope::Service => None,
        };
        let summary = Append::new(self, events, stamp, routes).run().await;
        summary.report(metrics);
        if !summary.is_durable() {
            return Err(log_unavailable());
        }
        if let Some(reservation) = reservation {
            reservation.spend();
        }
        metrics.add(Metric::EventsAccepted, accepted as u64);
        metrics.add(Metric::EventsAdjusted, adjusted_events);
        Ok(Accepted { accepted, rejected, adjusted })
    }

    /// The event, if it is valid, its profile is the sender's, and its viewing is not one too many.
    fn check(
        &self,
        raw: RawEvent<'_>,
        stamp: &Stamp,
        identity: &Identity,
        viewings: &mut Viewings,
    ) -> Result<Valid, Rejection> {
        viewings.admit(permit(identity, validate(raw, stamp.received_at, self.window)?)?)
    }
}

fn permit(identity: &Identity, valid: Valid) -> Result<Valid, Rejection> {
    let profile_id = &valid.event.profile_id;
    if identity.may(profile_id) { Ok(valid) } else { Err(Rejection::profile_forbidden(profile_id)) }
}

/// The viewings of a request so far.
struct Viewings {
    /// `None`: any number.
    limit: Option<usize>,
    /// So few that searching them costs less than a copy of each event's ids.
    seen: Vec<(SessionId, String)>,
}

impl Viewings {
    fn of(identity: &Identity) -> Self {
        let limit = match identity.scope {
            Scope::Profiles(_) => Some(MAX_VIEWINGS),
            Scope::Service => None,
        };
        Self { limit, seen: Vec::new() }
    }

    /// Rejects an event of one viewing too many.
    fn admit(&mut self, valid: Valid) -> Result<Valid, Rejection> {
        let Some(limit) = self.limit else { return Ok(valid) };
        let EdgeEvent { session_id, title_id, .. } = &valid.event;
        if self.seen.iter().rev().any(|(session, title)| session == session_id && title == title_id) {
            return Ok(valid);
        }
        if self.seen.len() == limit {
            return Err(Rejection::too_many_sessions(limit));
        }
        self.seen.push((session_id.clone(), title_id.clone()));
        Ok(valid)
    }
}

fn too_many_events(Exhausted { profile_id, limit, seconds_left }: Exhausted) -> Problem {
    let detail = format!(
        "profile {profile_id} has sent more than {limit} events in this minute; \
         send the request again in the next one, which is harmless"
    );
    // Devices that were turned away together must not come back together.
    let seconds = seconds_left + rand::random_range(0..10);
    Problem::too_many_requests("too_many_events_per_minute", detail, seconds).field("profile_id")
}

fn log_unavailable() -> Problem {
    // Devices that were turned away together must not come back together: between 2 and 9 seconds.
    let seconds = rand::random_range(2..10);
    let detail = "the events could not be made durable; send the request again, which is harmless";
    Problem::unavailable("log_unavailable", detail, seconds)
}

/// What a request's body holds.
pub(crate) fn posted<'a>(body: &'a BodyText<'_>) -> Result<Posted<'a>, Problem> {
    let request = parse_request(body).map_err(|error| match error {
        RequestError::Malformed(_) => Problem::bad_request("malformed_request", error.to_string()),
        RequestError::TooManyEvents(_) => {
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_many_events", error.to_string()).field("events")
        }
    })?;
    let dropped = Adjusted { index: None, adjustment: Adjustment { change: Change::Dropped, field: "sent_at" } };
    let adjusted = if request.sent_at_dropped { vec![dropped] } else { Vec::new() };
    Ok(Posted { events: request.events, sent_at: request.sent_at, adjusted })
}

/// The stamp of a live request received at `now`.
pub(crate) fn stamp(headers: &HeaderMap, routes: &Routes, sent_at: Option<u64>, now: u64) -> Stamp {
    let ingest_region = routes.regions().here().name.clone();
    Stamp { received_at: now, sent_at, ingest_region, trace_id: trace_id(headers), shadow: false }
}

/// The device's trace id: that of a W3C `traceparent` header (version 00:
/// `00-<32 hex>-<16 hex>-<2 hex>`). Without one, that of X-Ray (`Root=1-<8 hex>-<24 hex>`), which
/// API Gateway gives to every request.
pub(crate) fn trace_id(headers: &HeaderMap) -> Option<[u8; 16]> {
    let id = |hex: &str| u128::from_str_radix(hex, 16).ok().filter(|id| *id != 0).map(u128::to_be_bytes);
    let device = || text(headers, "traceparent")?.split('-').nth(1).filter(|hex| hex.len() == 32).and_then(id);
    let gateway = || {
        let root = text(headers, X_RAY)?.split(';').find_map(|part| part.trim().strip_prefix("Root=1-"))?;
        let (time, unique) = root.split_once('-').filter(|(time, unique)| (time.len(), unique.len()) == (8, 24))?;
        id(&format!("{time}{unique}"))
    };
    device().or_else(gateway)
}

/// Whether X-Ray samples the request.
pub(crate) fn is_sampled(headers: &HeaderMap) -> bool {
    text(headers, X_RAY).is_some_and(|header| header.split(';').any(|part| part.trim() == "Sampled=1"))
}

const X_RAY: &str = "x-amzn-trace-id";

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}
