//! What players send: viewing sessions, their events, and the requests and envelopes made from
//! them.

use crate::case::{NOW, Place, Request};
use playback::edge::{SessionWindow, validate};
use playback::envelope::{Envelope, Stamp, group};
use playback::proto;
use playback::session::SessionId;
use playhead_tests::sample::stamp;
use prost::Message;
use serde_json::{Value, json};

/// The bytes of a record that is not an envelope: text where protobuf should be.
pub(crate) const GARBAGE: &[u8] = b"this is no envelope";
/// The profile of most cases, as in the contract's example.
pub(crate) const PROFILE: &str = "p00000054";
/// The session of the contract's example.
pub(crate) const EXAMPLE: &str = "use1-01M3250V3TW3KG5DD5CEVSMJCC";
/// When most sessions began: ten seconds before [`NOW`].
pub(crate) const BEGAN: u64 = 1_790_000_000_122;
const MINUTE_MS: u64 = 60_000;

/// A viewing session on one device.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    /// `<home>-<ULID>`.
    pub(crate) id: String,
    /// Whose.
    pub(crate) profile: String,
    title: String,
    minutes: u64,
    device: (String, String),
}

impl Session {
    /// The session of the contract's example: a title of 45 minutes, on a tablet in the US.
    pub(crate) fn example() -> Self {
        Self {
            id: EXAMPLE.to_owned(),
            profile: PROFILE.to_owned(),
            title: "t000002".to_owned(),
            minutes: 45,
            device: ("d00000308".to_owned(), "tablet".to_owned()),
        }
    }

    /// Another session of the same kind that began at `began`, Unix milliseconds. `number` is the
    /// random part of its ULID.
    pub(crate) fn new(began: u64, number: u8) -> Self {
        let home = "use1".parse().unwrap();
        Self { id: SessionId::mint(home, began, number.into()).to_string(), ..Self::example() }
    }

    /// The same, at home in another region.
    pub(crate) fn at_home_in(self, home: &str) -> Self {
        let id: SessionId = self.id.parse().unwrap();
        Self { id: SessionId { home: home.parse().unwrap(), ..id }.to_string(), ..self }
    }

    /// The same with another title.
    pub(crate) fn of_title(self, title: &str) -> Self {
        Self { title: title.to_owned(), ..self }
    }

    /// The same for another profile.
    pub(crate) fn of_profile(self, profile: &str) -> Self {
        Self { profile: profile.to_owned(), ..self }
    }

    /// The same on another device.
    pub(crate) fn on(self, id: &str, kind: &str) -> Self {
        Self { device: (id.to_owned(), kind.to_owned()), ..self }
    }

    /// An event of the edge contract.
    pub(crate) fn event(&self, seq: u64, kind: &str, position_ms: u64, played_ms: u64) -> Value {
        json!({
            "session_id": self.id,
            "profile_id": self.profile,
            "title_id": self.title,
            "seq": seq,
            "kind": kind,
            "position_ms": position_ms,
            "played_ms": played_ms,
            "title_duration_ms": self.minutes * MINUTE_MS,
            "occurred_at": BEGAN + seq * 10_000,
            "device": {"id": self.device.0, "kind": self.device.1},
            "country": "US",
        })
    }

    /// Events `from` to `to`, ten seconds of playback apart. Event 0 is `started` at the beginning.
    pub(crate) fn watched(&self, from: u64, to: u64) -> Vec<Value> {
        let one = |seq| match seq {
            0 => self.event(0, "started", 0, 0),
            seq => self.event(seq, "progressed", seq * 10_000, 10_000),
        };
        (from..=to).map(one).collect()
    }

    /// Where its view is.
    pub(crate) fn place(&self) -> Place {
        Place { profile_id: self.profile.clone(), session_id: self.id.clone(), title_id: self.title.clone() }
    }
}

/// A request that ingest accepted at `received_at`.
pub(crate) fn received(received_at: u64, events: Vec<Value>) -> Request {
    Request { received_at, sent_at: None, events }
}

/// The same, from a device that stated its clock.
pub(crate) fn sent(sent_at: u64, request: Request) -> Request {
    Request { sent_at: Some(sent_at), ..request }
}

/// The envelopes that ingest makes from a request, by the same validation and grouping.
pub(crate) fn envelopes(request: &Request) -> Vec<Envelope> {
    // The time of receipt is given here, so sessions may have any age.
    let window = SessionWindow { max_age_ms: u64::MAX, max_ahead_ms: u64::MAX };
    let valid = |event: &Value| {
        let raw = serde_json::value::to_raw_value(event).unwrap();
        let valid = validate((&*raw).into(), request.received_at, window);
        valid.unwrap_or_else(|rejection| panic!("{rejection}: {event}")).event
    };
    let stamp = Stamp { sent_at: request.sent_at, ..stamp(request.received_at) };
    group(request.events.iter().map(valid).collect(), &stamp)
}

/// The record that ingest appends for these events of one session, received at [`NOW`].
pub(crate) fn record(events: Vec<Value>) -> Vec<u8> {
    record_at(NOW, events)
}

/// Like [`record`], received at another time.
pub(crate) fn record_at(received_at: u64, events: Vec<Value>) -> Vec<u8> {
    let mut envelopes = envelopes(&received(received_at, events));
    assert_eq!(envelopes.len(), 1, "one record is of one session");
    envelopes.remove(0).encode()
}

/// A record whose protobuf was changed to something that this version never writes.
pub(crate) fn altered_record(events: Vec<Value>, alter: impl FnOnce(&mut proto::Envelope)) -> Vec<u8> {
    let mut envelope = proto::Envelope::decode(record(events).as_slice()).unwrap();
    alter(&mut envelope);
    envelope.encode_to_vec()
}
