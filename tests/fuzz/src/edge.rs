//! The body of `POST /v1/events`, once authenticated and decompressed.
//!
//! - An event is accepted or rejected; no request has more than 500.
//! - An accepted event written as JSON is accepted again as the same event, and nothing but a
//!   position past the end is left to adjust.
//! - How JSON is spelt (spaces, escapes, the order of members) makes no difference.
//! - All accepted events survive the way into envelopes, onto the log and back.

use crate::NOW;
use playback::contract::MAX_EVENTS;
use playback::edge::{BodyText, Change, EdgeEvent, SessionWindow, Valid, parse_request, validate};
use playback::envelope::{Envelope, Stamp, group};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};

pub(crate) fn run(body: &[u8]) {
    let text = BodyText::new(body);
    let Ok(request) = parse_request(&text) else { return };
    assert!(request.events.len() <= MAX_EVENTS);
    let mut accepted = Vec::new();
    for raw in request.events {
        let outcome = check(raw.json);
        if let Ok(valid) = validate(raw, NOW, SessionWindow::default()) {
            assert_eq!(outcome.as_ref(), Ok(&valid));
            let again = check(&to_raw_value(&json_of(&valid.event)).unwrap()).unwrap();
            assert_eq!(again.event, valid.event);
            assert!(again.adjusted.iter().all(|adjustment| adjustment.change == Change::PositionPastEnd));
            accepted.push(valid.event);
        }
        if let Ok(value) = serde_json::from_str::<Value>(raw.json.get()) {
            assert_eq!(check(&to_raw_value(&value).unwrap()), outcome, "{value}");
        }
    }
    let stamp = Stamp {
        received_at: NOW,
        sent_at: request.sent_at,
        ingest_region: "us-east-1".to_owned(),
        trace_id: None,
        shadow: false,
    };
    let envelopes = group(accepted.clone(), &stamp);
    let read: Vec<Envelope> = envelopes.iter().map(|one| Envelope::decode(&one.encode()).unwrap()).collect();
    assert_eq!(read, envelopes);
    let mut back: Vec<EdgeEvent> = read.iter().flat_map(events_of).collect();
    let viewing = |event: &EdgeEvent| (event.session_id.clone(), event.profile_id.clone(), event.title_id.clone());
    back.sort_by_key(viewing);
    accepted.sort_by_key(viewing);
    assert_eq!(back, accepted);
}

fn check(json: &RawValue) -> Result<Valid, playback::edge::Rejection> {
    validate(json.into(), NOW, SessionWindow::default())
}

fn events_of(envelope: &Envelope) -> impl Iterator<Item = EdgeEvent> {
    envelope.events.iter().map(|event| EdgeEvent {
        session_id: envelope.session_id.clone(),
        profile_id: envelope.profile_id.clone(),
        title_id: envelope.title_id.clone(),
        event: event.clone(),
    })
}

fn json_of(EdgeEvent { session_id, profile_id, title_id, event }: &EdgeEvent) -> Value {
    json!({
        "session_id": session_id.to_string(),
        "profile_id": profile_id,
        "title_id": title_id,
        "seq": event.seq,
        "kind": event.kind.as_str(),
        "position_ms": event.position_ms,
        "played_ms": event.played_ms,
        "title_duration_ms": event.title_duration_ms,
        "credits_ms": event.credits_ms,
        "occurred_at": event.occurred_at,
        "device": {"id": event.device.id, "kind": event.device.kind},
        "country": event.country.map(|country| country.to_string()),
    })
}
