//! Accepting a request's events: each is validated, the good ones are appended, the bad ones are
//! named in the answer.
//!
//! An event is called accepted only once a log has acknowledged it. If one record is not durable,
//! the whole request is a `503`.

use crate::Ingest;
use crate::append::Append;
use http::{HeaderMap, StatusCode};
use lambda::auth::Identity;
use lambda::metrics::{Metric, Metrics};
use lambda::problem::Problem;
use playback::edge::{Code, EdgeEvent, Rejection, RequestError, parse_request, validate};
use playback::envelope::Stamp;
use playback::routing::Routes;
use serde::Serialize;
use serde_json::value::RawValue;
use stream::DurableLog;

/// The body of a `202`.
#[derive(Serialize)]
pub(crate) struct Accepted {
    pub(crate) accepted: usize,
    pub(crate) rejected: Vec<Rejected>,
}

#[derive(Serialize)]
pub(crate) struct Rejected {
    /// The event's index in the request.
    index: usize,
    #[serde(flatten)]
    rejection: Rejection,
}

impl<L: DurableLog + 'static> Ingest<L> {
    /// Accepts events, each given with its index in the request.
    pub(crate) async fn accept(
        &self,
        identity: &Identity,
        raw_events: impl IntoIterator<Item = (usize, &RawValue)>,
        stamp: &Stamp,
        routes: &Routes,
        metrics: &Metrics,
    ) -> Result<Accepted, Problem> {
        let (mut events, mut rejected) = (Vec::new(), Vec::new());
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
        let summary = Append::new(self, events, stamp, routes).run().await;
        summary.report(metrics);
        if !summary.is_durable() {
            return Err(log_unavailable());
        }
        metrics.add(Metric::EventsAccepted, accepted as u64);
        Ok(Accepted { accepted, rejected })
    }
}

fn permit(identity: &Identity, event: EdgeEvent) -> Result<EdgeEvent, Rejection> {
    if identity.may(&event.profile_id) { Ok(event) } else { Err(Rejection::profile_forbidden(&event.profile_id)) }
}

fn log_unavailable() -> Problem {
    // Devices that were turned away together must not come back together: between 2 and 9 seconds.
    let seconds = rand::random_range(2..10);
    let detail = "the events could not be made durable; send the request again, which is harmless";
    Problem::unavailable("log_unavailable", detail, seconds)
}

/// The events in a request's body.
pub(crate) fn events_of(body: &[u8]) -> Result<Vec<&RawValue>, Problem> {
    parse_request(body).map_err(|error| match error {
        RequestError::Malformed(_) => Problem::bad_request("malformed_request", error.to_string()),
        RequestError::TooManyEvents(_) => {
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_many_events", error.to_string()).field("events")
        }
    })
}

/// The stamp of a live request received at `now`.
pub(crate) fn stamp(headers: &HeaderMap, routes: &Routes, now: u64) -> Stamp {
    let ingest_region = routes.regions().here().name.clone();
    Stamp { received_at: now, ingest_region, trace_id: trace_id(headers), shadow: false }
}

/// The trace id of a W3C `traceparent` header (version 00: `00-<32 hex>-<16 hex>-<2 hex>`).
pub(crate) fn trace_id(headers: &HeaderMap) -> Option<[u8; 16]> {
    let header = headers.get("traceparent")?.to_str().ok()?;
    let hex = header.split('-').nth(1).filter(|hex| hex.len() == 32)?;
    u128::from_str_radix(hex, 16).ok().filter(|id| *id != 0).map(u128::to_be_bytes)
}
