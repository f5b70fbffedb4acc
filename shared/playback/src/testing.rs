//! Generators and examples for this crate's tests. Ranges are small on purpose: sessions, sequence
//! numbers and times must collide, because the join has to survive conflicts.

use crate::contract::{Device, Event, Kind};
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
            ingest_region: "us-east-1".to_owned(),
            trace_id: Some([7; 16]),
            shadow: false,
        },
        events: vec![Event {
            seq: 1,
            kind: Kind::Progressed,
            position_ms: 10_000,
            played_ms: 10_000,
            title_duration_ms: 2_700_000,
            occurred_at: 1_790_000_010_122,
            device: Arc::new(Device { id: "d00000308".to_owned(), kind: "tablet".to_owned() }),
            country: "US".parse().ok(),
        }],
    }
}

fn events() -> impl Strategy<Value = Event> {
    (0u16..12, 0usize..6, 1u64..50, any::<(prop::sample::Index, prop::sample::Index)>(), 0u64..4, 0usize..3, 0usize..3)
        .prop_map(|(seq, kind, title_duration_ms, (position, played), occurred_at, device, country)| {
            let position_ms = position.index(title_duration_ms as usize + 1) as u64;
            Event {
                seq,
                kind: Kind::ALL[kind],
                position_ms,
                played_ms: played.index(position_ms as usize + 1) as u64,
                title_duration_ms,
                occurred_at,
                device: Arc::new(Device { id: format!("d{device}"), kind: ["tv", "phone", "web"][device].to_owned() }),
                country: [None, "US".parse().ok(), "DE".parse().ok()][country],
            }
        })
}

/// Envelopes of two profiles, three sessions, two titles and four receipt times.
pub(crate) fn envelopes() -> impl Strategy<Value = Envelope> {
    (0u128..3, 0u8..2, 0u8..2, 0u64..4, any::<(Option<[u8; 16]>, bool)>(), prop::collection::vec(events(), 1..8))
        .prop_map(|(number, profile, title, received_at, (trace_id, shadow), events)| Envelope {
            session_id: session(number),
            profile_id: format!("p{profile}"),
            title_id: format!("t{title}"),
            stamp: Stamp { received_at, ingest_region: "us-east-1".to_owned(), trace_id, shadow },
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
