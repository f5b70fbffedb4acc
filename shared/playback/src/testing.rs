//! Generators and examples for this crate's tests. Ranges are small on purpose: sessions, sequence
//! numbers and times must collide, because the join has to survive conflicts.

use crate::contract::{Device, Event, Kind, MAX_TITLE_DURATION_MS};
use crate::edge::EdgeEvent;
use crate::envelope::{Envelope, Stamp};
use crate::session::SessionId;
use proptest::prelude::*;
use std::sync::Arc;

pub(crate) fn session(number: u128) -> SessionId {
    SessionId::mint("use1".parse().unwrap(), 1_790_000_000_000 + (number as u64) * 1000, number)
}

pub(crate) fn example() -> Envelope {
    Envelope {
        session_id: "use1-01M3250V3TW3KG5DD5CEVSMJCC".parse().unwrap(),
        profile_id: "p00000054".to_owned(),
        title_id: "t000002".to_owned(),
        stamp: Stamp {
            received_at: 1_790_000_010_200,
            sent_at: Some(1_790_000_010_190),
            ingest_region: "us-east-1".to_owned(),
            trace_id: Some([7; 16]),
            shadow: false,
        },
        events: vec![Event {
            seq: 1,
            kind: Kind::Progressed,
            position_ms: 10_000,
            played_ms: 10_000,
            title_duration_ms: Some(2_700_000),
            credits_ms: None,
            occurred_at: Some(1_790_000_010_122),
            device: Arc::new(Device { id: Some("d00000308".to_owned()), kind: Some("tablet".to_owned()) }),
            country: "US".parse().ok(),
        }],
    }
}

/// Now and then with what the first release could not say: no duration, a position past the end or
/// past seven days, no device, a long id.
fn events() -> impl Strategy<Value = Event> {
    let title = (prop::option::weighted(0.8, 1u64..50), prop::option::weighted(0.2, 1u64..50));
    let position = prop_oneof![9 => 0u64..60, 1 => MAX_TITLE_DURATION_MS..MAX_TITLE_DURATION_MS + 60];
    let clock = prop::option::of(clock());
    (0u16..12, 0usize..6, title, position, any::<prop::sample::Index>(), clock, 0usize..5, 0usize..3).prop_map(
        |(seq, kind, (title_duration_ms, credits_ms), position_ms, played, occurred_at, device, country)| Event {
            seq,
            kind: Kind::ALL[kind],
            position_ms,
            played_ms: played.index(position_ms.min(50) as usize + 1) as u64,
            title_duration_ms,
            credits_ms,
            occurred_at,
            device: Arc::new(device_of(device)),
            country: [None, "US".parse().ok(), "DE".parse().ok()][country],
        },
    )
}

/// Times around the starts of the sessions, so that every bound of a watch time is met.
fn clock() -> impl Strategy<Value = u64> {
    (0u64..5).prop_map(|step| 1_790_000_000_000 + step * 600)
}

fn device_of(number: usize) -> Device {
    let (id, kind) = [
        (Some("d1"), Some("tv")),
        (Some("d2"), Some("phone")),
        (None, Some("web")),
        (Some("-_8=/an+id/of@another:kind"), None),
        (None, None),
    ][number];
    Device { id: id.map(str::to_owned), kind: kind.map(str::to_owned) }
}

/// Envelopes of two profiles, three sessions, two titles and four receipt times.
pub(crate) fn envelopes() -> impl Strategy<Value = Envelope> {
    let clocks = (clock(), prop::option::of(clock()));
    (0u128..3, 0u8..2, 0u8..2, clocks, any::<(Option<[u8; 16]>, bool)>(), prop::collection::vec(events(), 1..8))
        .prop_map(|(number, profile, title, (received_at, sent_at), (trace_id, shadow), events)| Envelope {
            session_id: session(number),
            profile_id: format!("p{profile}"),
            title_id: format!("t{title}"),
            stamp: Stamp { received_at, sent_at, ingest_region: "us-east-1".to_owned(), trace_id, shadow },
            events,
        })
}

pub(crate) fn edge_events(envelope: &Envelope) -> Vec<EdgeEvent> {
    envelope
        .events
        .iter()
        .map(|event| EdgeEvent {
            session_id: envelope.session_id.clone(),
            profile_id: envelope.profile_id.clone(),
            title_id: envelope.title_id.clone(),
            event: event.clone(),
        })
        .collect()
}
