//! The envelope: one request's events of one session, as a record on the durable log.
//!
//! Fields that nearly all events of a request share are written once, and again only when they
//! change. That makes some 70 bytes per event where JSON takes 330. Code that forwards an envelope
//! copies its bytes, so fields unknown to this version survive.

use crate::contract::{
    Country, Device, Event, Kind, MAX_EVENTS, MAX_POSITION_MS, MAX_SEQ, MAX_TITLE_DURATION_MS, is_device_kind, is_id,
    is_token,
};
use crate::edge::EdgeEvent;
use crate::outcome::Reason;
use crate::proto;
use crate::session::SessionId;
use prost::Message;
use prost::bytes::Bytes;
use std::collections::HashMap;
use std::sync::Arc;

/// The greatest schema version that this code reads.
pub const SCHEMA_VERSION: u32 = 2;
/// The version of envelopes that every reader may apply.
const LIVE_VERSION: u32 = 1;
/// The version of shadows. A reader that does not know shadows must set them aside, or members
/// would see them.
const SHADOW_VERSION: u32 = 2;

/// What the first release requires where no device was stated.
pub(crate) const NO_DEVICE: &str = "unknown";
/// Maximum length of a device id in the first release, bytes.
const FIRST_RELEASE_ID_BYTES: usize = 64;

/// One request's events of one session and title.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The viewing session.
    pub session_id: SessionId,
    /// Whose history it goes to.
    pub profile_id: String,
    /// What was watched.
    pub title_id: String,
    /// What `ingest` added to the request.
    pub stamp: Stamp,
    /// At least one.
    pub events: Vec<Event>,
}

/// What `ingest` adds to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    /// When the request was received, Unix milliseconds.
    pub received_at: u64,
    /// The device's clock when it sent the request, Unix milliseconds, if stated.
    pub sent_at: Option<u64>,
    /// The AWS region that received it.
    pub ingest_region: String,
    /// The W3C trace id, if the request had one.
    pub trace_id: Option<[u8; 16]>,
    /// Whether this is a shadow: a copy of events that a legacy system keeps. Shadows go into
    /// shadow views, which no member sees, and into no books.
    pub shadow: bool,
}

/// Why a record can never be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", reason.as_str())]
pub struct Poison {
    /// The kind of fault.
    pub reason: Reason,
    /// What is wrong, naming the field.
    pub detail: String,
    /// Number of events the record seems to hold; 0 when unknown.
    pub events: u64,
    /// When it seems to have been received, Unix milliseconds; `None` when unknown.
    pub received_at: Option<u64>,
}

/// What every schema version of an envelope has in common: enough to forward it without reading its
/// events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The viewing session.
    pub session_id: SessionId,
    /// How many events it holds.
    pub events: u64,
    /// When it was received, Unix milliseconds; `None` when not stated.
    pub received_at: Option<u64>,
    /// The AWS regions that have forwarded it so far.
    pub hops: Vec<String>,
    /// Whether it is a shadow; see [`Stamp::shadow`].
    pub shadow: bool,
}

impl Head {
    /// Reads the fields that all schema versions share. Events are counted, not read: the region
    /// that folds them decides whether they can be applied.
    ///
    /// # Errors
    /// [`Poison`] when the bytes are not an envelope or name no session.
    pub fn peek(bytes: Bytes) -> Result<Self, Poison> {
        let head = proto::EnvelopeHead::decode(bytes).map_err(|error| Poison {
            reason: Reason::NotAnEnvelope,
            detail: error.to_string(),
            events: 0,
            received_at: None,
        })?;
        let events = head.events.len() as u64;
        let received_at = (head.received_at > 0).then_some(head.received_at);
        let poison = |reason, detail: &str| Poison { reason, detail: detail.to_owned(), events, received_at };
        if head.schema_version == 0 {
            return Err(poison(Reason::NotAnEnvelope, "`schema_version` is absent"));
        }
        match head.session_id.parse() {
            Ok(session_id) => Ok(Self { session_id, events, received_at, hops: head.hops, shadow: head.shadow }),
            Err(_) => Err(poison(Reason::InvalidEnvelope, "`session_id` is invalid")),
        }
    }
}

/// The trace id of a record, for log lines: 32 hex digits, if the record has one. It asks nothing
/// else of the bytes, since the lines are about records that cannot be applied.
pub fn trace_id(bytes: &[u8]) -> Option<String> {
    let id: [u8; 16] = proto::Envelope::decode(bytes).ok()?.trace_id.try_into().ok()?;
    Some(format!("{:032x}", u128::from_be_bytes(id)))
}

/// Appends `region` to an envelope's hops. A repeated field may stand anywhere in a message, so the
/// existing bytes stay unchanged, unknown fields included.
pub fn with_hop(envelope: &[u8], region: &str) -> Vec<u8> {
    const HOPS: u32 = 9;
    let region = region.to_owned();
    let mut bytes = Vec::with_capacity(envelope.len() + region.len() + 4);
    bytes.extend_from_slice(envelope);
    prost::encoding::string::encode(HOPS, &region, &mut bytes);
    bytes
}

/// Groups the events of one request into envelopes, in order of first appearance. There is one
/// envelope per session, or several if the session's events name several profiles or titles.
pub fn group(events: Vec<EdgeEvent>, stamp: &Stamp) -> Vec<Envelope> {
    let mut envelopes: Vec<Envelope> = Vec::new();
    let mut index: HashMap<(SessionId, String, String), usize> = HashMap::new();
    for EdgeEvent { session_id, profile_id, title_id, event } in events {
        // A player sends one session at a time, so the last envelope is usually the right one.
        if let Some(last) = envelopes.last_mut()
            && last.session_id == session_id
            && last.profile_id == profile_id
            && last.title_id == title_id
        {
            last.events.push(event);
            continue;
        }
        let at = *index.entry((session_id.clone(), profile_id.clone(), title_id.clone())).or_insert(envelopes.len());
        match envelopes.get_mut(at) {
            Some(envelope) => envelope.events.push(event),
            None => {
                envelopes.push(Envelope { session_id, profile_id, title_id, stamp: stamp.clone(), events: vec![event] })
            }
        }
    }
    envelopes
}

impl Envelope {
    /// Encodes the envelope as a record's value.
    pub fn encode(&self) -> Vec<u8> {
        let befores = std::iter::once(None).chain(self.events.iter().map(Some));
        let events = self.events.iter().zip(befores).map(|(event, before)| pack_event(event, before)).collect();
        proto::Envelope {
            schema_version: if self.stamp.shadow { SHADOW_VERSION } else { LIVE_VERSION },
            session_id: self.session_id.to_string(),
            profile_id: self.profile_id.clone(),
            title_id: self.title_id.clone(),
            received_at: self.stamp.received_at,
            ingest_region: self.stamp.ingest_region.clone(),
            trace_id: self.stamp.trace_id.map(|id| id.to_vec()).unwrap_or_default(),
            events,
            hops: Vec::new(),
            shadow: self.stamp.shadow,
            sent_at: self.stamp.sent_at.unwrap_or(0),
        }
        .encode_to_vec()
    }

    /// Decodes a record's value. It applies the rules of the edge again, because other producers
    /// may write to the topic.
    ///
    /// # Errors
    /// [`Poison`] with the reason, the field, and the number of events.
    pub fn decode(bytes: &[u8]) -> Result<Self, Poison> {
        let envelope = proto::Envelope::decode(bytes).map_err(|error| Poison {
            reason: Reason::NotAnEnvelope,
            detail: error.to_string(),
            events: 0,
            received_at: None,
        })?;
        let events = envelope.events.len() as u64;
        let received_at = (envelope.received_at > 0).then_some(envelope.received_at);
        let poison = |reason, detail: String| Poison { reason, detail, events, received_at };
        match envelope.schema_version {
            // Protobuf parses nearly any short text as a message of unknown fields. Without a
            // version it is not ours.
            0 => return Err(poison(Reason::NotAnEnvelope, "`schema_version` is absent".to_owned())),
            LIVE_VERSION if !envelope.shadow => {}
            SHADOW_VERSION => {}
            LIVE_VERSION => return Err(poison(Reason::InvalidEnvelope, "`shadow` is invalid".to_owned())),
            version => {
                return Err(poison(
                    Reason::UnknownSchemaVersion,
                    format!("`schema_version` is {version}; this code reads up to {SCHEMA_VERSION}"),
                ));
            }
        }
        Self::check(envelope).map_err(|field| poison(Reason::InvalidEnvelope, format!("`{field}` is invalid")))
    }

    /// Checks the fields; the error is the name of the first invalid one.
    fn check(envelope: proto::Envelope) -> Result<Self, &'static str> {
        let session_id = envelope.session_id.parse().map_err(|_| "session_id")?;
        ensure(is_id(&envelope.profile_id), "profile_id")?;
        ensure(is_id(&envelope.title_id), "title_id")?;
        ensure((1..=MAX_EVENTS).contains(&envelope.events.len()), "events")?;
        let trace_id = match envelope.trace_id.as_slice() {
            [] => None,
            bytes => Some(bytes.try_into().map_err(|_| "trace_id")?),
        };
        let mut events: Vec<Event> = Vec::with_capacity(envelope.events.len());
        for event in envelope.events {
            let event = check_event(event, events.last())?;
            events.push(event);
        }
        Ok(Self {
            session_id,
            profile_id: envelope.profile_id,
            title_id: envelope.title_id,
            stamp: Stamp {
                received_at: envelope.received_at,
                sent_at: stated(envelope.sent_at),
                ingest_region: envelope.ingest_region,
                trace_id,
                shadow: envelope.shadow,
            },
            events,
        })
    }
}

/// Packs an event so that the first release can read it. What is the same for nearly all events of
/// a request is left out where it is as in the event before.
fn pack_event(event: &Event, before: Option<&Event>) -> proto::Event {
    let position_ms = event.position_ms.min(MAX_TITLE_DURATION_MS);
    let duration_ms = readable_duration(event);
    let is_stated = event.title_duration_ms == Some(duration_ms);
    let mut packed = proto::Event {
        seq: u32::from(event.seq),
        kind: proto::Kind::from(event.kind).into(),
        position_ms,
        played_ms: event.played_ms.min(position_ms),
        occurred_at: event.occurred_at.unwrap_or(0),
        title_duration_ms: (before.map(readable_duration) != Some(duration_ms)).then_some(duration_ms),
        stated_duration_ms: (!is_stated).then(|| event.title_duration_ms.unwrap_or(0)),
        exact_position_ms: (event.position_ms > position_ms).then_some(event.position_ms),
        ..proto::Event::default()
    };
    if before.is_none_or(|before| before.country != event.country) {
        packed.country = Some(country_text(event.country));
    }
    if before.and_then(|before| before.credits_ms) != event.credits_ms {
        packed.credits_ms = Some(event.credits_ms.unwrap_or(0));
    }
    if before.is_none_or(|before| before.device != event.device) {
        let Device { id, kind } = &*event.device;
        let readable_id = id.as_deref().filter(|id| is_token(id, FIRST_RELEASE_ID_BYTES) && *id != NO_DEVICE);
        packed.device_id = Some(readable_id.unwrap_or(NO_DEVICE).to_owned());
        packed.device_kind = Some(kind.as_deref().unwrap_or(NO_DEVICE).to_owned());
        packed.exact_device_id = id.clone().filter(|_| readable_id.is_none());
    }
    packed
}

/// The event's duration as the first release requires it: present, and not before the position.
fn readable_duration(event: &Event) -> u64 {
    let position_ms = event.position_ms.min(MAX_TITLE_DURATION_MS);
    event.title_duration_ms.map_or(MAX_TITLE_DURATION_MS, |stated| stated.max(position_ms))
}

/// Unpacks an event, given the one before; the error is the name of the first invalid field.
fn check_event(event: proto::Event, before: Option<&Event>) -> Result<Event, &'static str> {
    let duration_ms = event.title_duration_ms.or(before.map(readable_duration));
    let title_duration_ms = match event.stated_duration_ms {
        Some(stated_ms) => stated(stated_ms),
        None => Some(duration_ms.ok_or("events.title_duration_ms")?),
    };
    let in_range = title_duration_ms.is_none_or(|duration| (1..=MAX_TITLE_DURATION_MS).contains(&duration));
    ensure(in_range, "events.title_duration_ms")?;
    ensure(u64::from(event.seq) <= MAX_SEQ, "events.seq")?;
    let position_ms = event.exact_position_ms.unwrap_or(event.position_ms);
    ensure(position_ms <= MAX_POSITION_MS, "events.position_ms")?;
    ensure(event.played_ms <= position_ms.min(MAX_TITLE_DURATION_MS), "events.played_ms")?;
    let kind = kind_of(event.kind).ok_or("events.kind")?;
    let country = match event.country.as_deref() {
        None => before.and_then(|e| e.country),
        Some(text) => parse_country(text).map_err(|_| "events.country")?,
    };
    let credits_ms = event.credits_ms.map_or(before.and_then(|e| e.credits_ms), stated);
    ensure(credits_ms.is_none_or(|credits| credits <= MAX_TITLE_DURATION_MS), "events.credits_ms")?;
    Ok(Event {
        seq: u16::try_from(event.seq).map_err(|_| "events.seq")?,
        kind,
        position_ms,
        played_ms: event.played_ms,
        title_duration_ms,
        credits_ms,
        occurred_at: stated(event.occurred_at),
        device: check_device(event.device_id, event.device_kind, event.exact_device_id, before)?,
        country,
    })
}

fn check_device(
    id: Option<String>,
    kind: Option<String>,
    exact_id: Option<String>,
    before: Option<&Event>,
) -> Result<Arc<Device>, &'static str> {
    let is_stated = |text: &String| text != NO_DEVICE;
    match (id, kind, before) {
        (None, None, Some(before)) => Ok(Arc::clone(&before.device)),
        (Some(id), Some(kind), _) => {
            let id = exact_id.or(Some(id).filter(is_stated));
            let kind = Some(kind).filter(is_stated);
            ensure(id.as_deref().is_none_or(is_id), "events.device_id")?;
            ensure(kind.as_deref().is_none_or(is_device_kind), "events.device_kind")?;
            Ok(Arc::new(Device { id, kind }))
        }
        _ => Err("events.device_id"),
    }
}

/// A number of which 0 means that it was not stated.
fn stated(value: u64) -> Option<u64> {
    (value > 0).then_some(value)
}

fn ensure(holds: bool, field: &'static str) -> Result<(), &'static str> {
    if holds { Ok(()) } else { Err(field) }
}

/// Encodes a country as text; empty means unknown.
pub(crate) fn country_text(country: Option<Country>) -> String {
    country.map(|country| country.to_string()).unwrap_or_default()
}

/// Parses the output of [`country_text`].
pub(crate) fn parse_country(text: &str) -> Result<Option<Country>, crate::contract::MalformedCountry> {
    if text.is_empty() { Ok(None) } else { text.parse().map(Some) }
}

/// Converts a protobuf enum value; `None` if this code does not know it.
pub(crate) fn kind_of(value: i32) -> Option<Kind> {
    match proto::Kind::try_from(value).ok()? {
        proto::Kind::Unspecified => None,
        proto::Kind::Started => Some(Kind::Started),
        proto::Kind::Progressed => Some(Kind::Progressed),
        proto::Kind::Paused => Some(Kind::Paused),
        proto::Kind::Resumed => Some(Kind::Resumed),
        proto::Kind::Seeked => Some(Kind::Seeked),
        proto::Kind::Stopped => Some(Kind::Stopped),
    }
}

impl From<Kind> for proto::Kind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Started => proto::Kind::Started,
            Kind::Progressed => proto::Kind::Progressed,
            Kind::Paused => proto::Kind::Paused,
            Kind::Resumed => proto::Kind::Resumed,
            Kind::Seeked => proto::Kind::Seeked,
            Kind::Stopped => proto::Kind::Stopped,
        }
    }
}

/// Joins envelopes into one length-delimited message body, for SQS between regions.
pub fn join_delimited<'a>(envelopes: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut joined = Vec::new();
    for envelope in envelopes {
        prost::encoding::encode_varint(envelope.len() as u64, &mut joined);
        joined.extend_from_slice(envelope);
    }
    joined
}

/// Splits the output of [`join_delimited`].
///
/// # Errors
/// [`Poison`] when a length does not fit or the message is empty. Then nothing in the message is
/// trusted.
pub fn split_delimited(mut bytes: &[u8]) -> Result<Vec<&[u8]>, Poison> {
    let broken = |detail: &str| Poison {
        reason: Reason::NotAnEnvelope,
        detail: detail.to_owned(),
        events: 0,
        received_at: None,
    };
    let mut envelopes = Vec::new();
    while !bytes.is_empty() {
        let length = prost::encoding::decode_varint(&mut bytes).map_err(|error| broken(&error.to_string()))?;
        let length = usize::try_from(length).map_err(|_| broken("a length does not fit into memory"))?;
        let (envelope, rest) =
            bytes.split_at_checked(length).ok_or_else(|| broken("a length points past the end of the message"))?;
        envelopes.push(envelope);
        bytes = rest;
    }
    if envelopes.is_empty() { Err(broken("the message is empty")) } else { Ok(envelopes) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn encode_decode_round_trips(envelope in testing::envelopes()) {
            prop_assert_eq!(Envelope::decode(&envelope.encode()), Ok(envelope));
        }

        #[test]
        fn decoding_random_bytes_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Envelope::decode(&bytes);
            let _ = split_delimited(&bytes);
        }

        #[test]
        fn decoding_a_damaged_envelope_never_panics(envelope in testing::envelopes(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut bytes = envelope.encode();
            let at = at.index(bytes.len());
            let _ = Envelope::decode(&bytes[..at]);
            bytes[at] = byte;
            let _ = Envelope::decode(&bytes);
        }

        #[test]
        fn grouping_keeps_every_event(envelopes in prop::collection::vec(testing::envelopes(), 0..5)) {
            let edge: Vec<EdgeEvent> = envelopes.iter().flat_map(testing::edge_events).collect();
            let stamp = Stamp {
                received_at: 1, sent_at: None, ingest_region: "us-east-1".to_owned(), trace_id: None, shadow: false
            };
            let grouped = group(edge.clone(), &stamp);
            let mut back: Vec<EdgeEvent> = grouped.iter().flat_map(testing::edge_events).collect();
            let mut edge = edge;
            let key = |e: &EdgeEvent| (e.session_id.clone(), e.profile_id.clone(), e.title_id.clone());
            edge.sort_by_key(key);
            back.sort_by_key(key);
            prop_assert_eq!(edge, back);
        }

        #[test]
        fn delimited_round_trips(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..6)) {
            let joined = join_delimited(parts.iter().map(Vec::as_slice));
            prop_assert_eq!(split_delimited(&joined).unwrap(), parts.iter().map(Vec::as_slice).collect::<Vec<_>>());
        }
    }

    #[test]
    fn poison_names_its_reason_and_field() {
        let check = |bytes: &[u8], reason: Reason, names: &str| {
            let poison = Envelope::decode(bytes).unwrap_err();
            assert_eq!(poison.reason, reason, "{poison}");
            assert!(poison.detail.contains(names), "{poison}");
        };
        let envelope = || proto::Envelope::decode(testing::example().encode().as_slice()).unwrap();
        let with = |change: fn(&mut proto::Envelope)| {
            let mut envelope = envelope();
            change(&mut envelope);
            envelope.encode_to_vec()
        };
        check(b"", Reason::NotAnEnvelope, "schema_version");
        check(b"\xff\xff\xff", Reason::NotAnEnvelope, "");
        check(b"{\"events\":[]}", Reason::NotAnEnvelope, "");
        check(&with(|e| e.schema_version = SCHEMA_VERSION + 1), Reason::UnknownSchemaVersion, "schema_version");
        check(&with(|e| e.session_id = "x".to_owned()), Reason::InvalidEnvelope, "session_id");
        check(&with(|e| e.profile_id.clear()), Reason::InvalidEnvelope, "profile_id");
        check(&with(|e| e.title_id = "a#b".to_owned()), Reason::InvalidEnvelope, "title_id");
        check(&with(|e| e.trace_id = vec![1]), Reason::InvalidEnvelope, "trace_id");
        check(&with(|e| e.events.clear()), Reason::InvalidEnvelope, "events");
        check(&with(|e| e.events[0].seq = 65_536), Reason::InvalidEnvelope, "events.seq");
        check(&with(|e| e.events[0].kind = 77), Reason::InvalidEnvelope, "events.kind");
        check(&with(|e| e.events[0].kind = 0), Reason::InvalidEnvelope, "events.kind");
        check(&with(|e| e.events[0].position_ms = u64::MAX), Reason::InvalidEnvelope, "events.position_ms");
        check(&with(|e| e.events[0].played_ms = u64::MAX), Reason::InvalidEnvelope, "events.played_ms");
        let longer_than_a_title = |e: &mut proto::Envelope| {
            e.events[0].exact_position_ms = Some(MAX_TITLE_DURATION_MS + 2);
            e.events[0].played_ms = MAX_TITLE_DURATION_MS + 1;
        };
        check(&with(longer_than_a_title), Reason::InvalidEnvelope, "events.played_ms");
        check(&with(|e| e.events[0].credits_ms = Some(u64::MAX)), Reason::InvalidEnvelope, "events.credits_ms");
        check(
            &with(|e| e.events[0].exact_device_id = Some("a b".to_owned())),
            Reason::InvalidEnvelope,
            "events.device_id",
        );
        check(&with(|e| e.events[0].title_duration_ms = None), Reason::InvalidEnvelope, "events.title_duration_ms");
        check(&with(|e| e.events[0].device_id = None), Reason::InvalidEnvelope, "events.device_id");
        check(&with(|e| e.events[0].country = Some("xx".to_owned())), Reason::InvalidEnvelope, "events.country");
    }

    proptest! {
        #[test]
        fn head_matches_its_envelope_and_hops_accumulate(envelope in testing::envelopes(), hops in prop::collection::vec("[a-z0-9-]{1,12}", 0..4)) {
            let mut bytes = envelope.encode();
            for hop in &hops {
                bytes = with_hop(&bytes, hop);
            }
            let head = Head::peek(Bytes::from(bytes.clone())).unwrap();
            prop_assert_eq!(&head.session_id, &envelope.session_id);
            prop_assert_eq!((head.events, head.hops), (envelope.events.len() as u64, hops));
            prop_assert_eq!(head.received_at.unwrap_or(0), envelope.stamp.received_at);
            prop_assert_eq!(Envelope::decode(&bytes), Ok(envelope));
        }

        #[test]
        fn peeking_at_random_bytes_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Head::peek(Bytes::from(bytes));
        }
    }

    /// Newer code may have written it and newer code may read it; this code only forwards it.
    #[test]
    fn head_of_any_version_is_read_and_errors_name_the_field() {
        let peek = |schema_version, session_id: &str| {
            let mut envelope = proto::Envelope::decode(testing::example().encode().as_slice()).unwrap();
            (envelope.schema_version, envelope.session_id) = (schema_version, session_id.to_owned());
            Head::peek(envelope.encode_to_vec().into()).map(|head| head.events).map_err(|poison| poison.reason)
        };
        let session = "use1-01M3250V3TW3KG5DD5CEVSMJCC";
        assert_eq!(peek(SCHEMA_VERSION + 1, session), Ok(1));
        assert_eq!(peek(0, session), Err(Reason::NotAnEnvelope));
        assert_eq!(peek(SCHEMA_VERSION, "x"), Err(Reason::InvalidEnvelope));
    }

    #[test]
    fn fields_of_newer_writers_are_ignored() {
        let mut bytes = testing::example().encode();
        prost::encoding::string::encode(999, &"from the future".to_owned(), &mut bytes);
        assert_eq!(Envelope::decode(&bytes), Ok(testing::example()));
    }

    /// The checks of the first release (commit 5802b66), which dead-letters what breaks them.
    fn first_release_accepts(envelope: &proto::Envelope) -> bool {
        let mut before: Option<(u64, String, String, String)> = None;
        let is_kind = |kind: &str| is_token(kind, 32);
        let ids = is_token(&envelope.profile_id, 64) && is_token(&envelope.title_id, 64);
        let version = envelope.schema_version == if envelope.shadow { 2 } else { 1 };
        ids && version
            && (1..=500).contains(&envelope.events.len())
            && envelope.events.iter().all(|event| {
                let (duration, id, kind, country) = match (&event.title_duration_ms, &event.device_id, &before) {
                    (duration, id, Some(before)) => (
                        duration.unwrap_or(before.0),
                        id.clone().unwrap_or_else(|| before.1.clone()),
                        event.device_kind.clone().unwrap_or_else(|| before.2.clone()),
                        event.country.clone().unwrap_or_else(|| before.3.clone()),
                    ),
                    (Some(duration), Some(id), None) => {
                        let (kind, country) = (event.device_kind.clone(), event.country.clone());
                        (*duration, id.clone(), kind.unwrap_or_default(), country.unwrap_or_default())
                    }
                    _ => return false,
                };
                before = Some((duration, id.clone(), kind.clone(), country.clone()));
                event.device_id.is_some() == event.device_kind.is_some()
                    && (1..=604_800_000).contains(&duration)
                    && event.seq <= 65_535
                    && event.position_ms <= duration
                    && event.played_ms <= event.position_ms
                    && (1..=6).contains(&event.kind)
                    && is_token(&id, 64)
                    && is_kind(&kind)
                    && (country.is_empty() || parse_country(&country).is_ok())
            })
    }

    proptest! {
        /// Old code may read what new code wrote, during a deployment and after a rollback.
        #[test]
        fn the_first_release_accepts_what_is_written_today(envelope in testing::envelopes()) {
            let packed = proto::Envelope::decode(envelope.encode().as_slice()).unwrap();
            prop_assert!(first_release_accepts(&packed), "{packed:?}");
        }
    }

    #[test]
    fn an_event_takes_at_most_seventy_bytes() {
        let one = testing::example();
        let mut six = one.clone();
        for seq in 2..7u16 {
            let mut event = one.events[0].clone();
            event.seq = seq;
            event.position_ms = u64::from(seq) * 10_000;
            six.events.push(event);
        }
        assert!(six.encode().len() <= 6 * 70, "{} bytes for six events", six.encode().len());
    }
}
