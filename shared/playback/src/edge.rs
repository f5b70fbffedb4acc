//! The edge contract: turns the bytes of a request into validated events. It is strict about
//! identity and tolerant about the rest:
//!
//! - An event is *rejected* only when it cannot be attributed or placed. Every rule has a stable
//!   code and a message that names the field and the accepted form. A bad event rejects only
//!   itself, even if its bytes are not UTF-8.
//! - Everything else that is odd is *adjusted*: clamped, rounded, normalised or dropped. The event
//!   is kept, and the answer says so.
//!
//! A well-formed event is parsed once, into borrowed fields. Only if that fails is it parsed again
//! as loose JSON. So good events do not pay for odd ones.

use crate::contract::{
    Country, Device, Event, ID_RULE, Kind, MAX_EVENTS, MAX_INSTANT, MAX_POSITION_MS, MAX_SEQ, MAX_TITLE_DURATION_MS,
    is_device_kind, is_id, normal_device_kind,
};
use crate::session::SessionId;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

/// A validated event with its session, profile and title.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EdgeEvent {
    /// The viewing session.
    pub session_id: SessionId,
    /// Whose history it goes to.
    pub profile_id: String,
    /// What was watched.
    pub title_id: String,
    /// The event itself.
    pub event: Event,
}

/// Why a request body cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// Not JSON, or not an object with a list `events`.
    #[error("the body must be a JSON object with a list `events`: {0}")]
    Malformed(#[from] serde_json::Error),
    /// More events than one request may carry.
    #[error("`events` has {0} events; a request may have at most {MAX_EVENTS}")]
    TooManyEvents(usize),
}

/// How old, and how far in the future, a session's start may be by the server's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionWindow {
    /// Greatest age, milliseconds. Downloads may be watched offline and reported this much later.
    pub max_age_ms: u64,
    /// How far a device's clock may be ahead, milliseconds.
    pub max_ahead_ms: u64,
}

impl SessionWindow {
    /// Whether a session begins further in the future than allowed, by the server's clock `now`.
    pub fn is_too_far_ahead(&self, session_id: &SessionId, now: u64) -> bool {
        session_id.started_at() > now.saturating_add(self.max_ahead_ms)
    }
}

impl Default for SessionWindow {
    fn default() -> Self {
        Self { max_age_ms: 30 * 24 * 60 * 60 * 1000, max_ahead_ms: 10 * 60 * 1000 }
    }
}

/// Why an event was rejected. [`Code::as_str`] is part of the contract and never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Code {
    /// The event is not a JSON object.
    NotAnObject,
    /// The bytes of the event are not UTF-8.
    NotUtf8,
    /// A required field is absent.
    FieldMissing,
    /// A field that identifies or places the event has the wrong JSON type.
    FieldType,
    /// `session_id` does not have the form `<home>-<ULID>`.
    SessionIdMalformed,
    /// The session began longer ago than allowed.
    SessionTooOld,
    /// The session begins further in the future than allowed. This passes with time.
    SessionTooFarAhead,
    /// `profile_id` is not a valid id.
    ProfileIdMalformed,
    /// The token does not cover this profile. Another token may.
    ProfileForbidden,
    /// `title_id` is not a valid id.
    TitleIdMalformed,
    /// `seq` is not between 0 and 65,535.
    SeqOutOfRange,
    /// `kind` is not one of the contract's kinds.
    KindUnknown,
    /// `position_ms` is negative or past [`MAX_POSITION_MS`].
    PositionOutOfRange,
    /// The member's request has events of too many sessions. Later requests may take this one.
    TooManySessions,
}

impl Code {
    /// All codes.
    pub const ALL: [Code; 14] = [
        Code::NotAnObject,
        Code::NotUtf8,
        Code::FieldMissing,
        Code::FieldType,
        Code::SessionIdMalformed,
        Code::SessionTooOld,
        Code::SessionTooFarAhead,
        Code::ProfileIdMalformed,
        Code::ProfileForbidden,
        Code::TitleIdMalformed,
        Code::SeqOutOfRange,
        Code::KindUnknown,
        Code::PositionOutOfRange,
        Code::TooManySessions,
    ];

    /// The stable name in answers and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Code::NotAnObject => "not_an_object",
            Code::NotUtf8 => "not_utf8",
            Code::FieldMissing => "field_missing",
            Code::FieldType => "field_type",
            Code::SessionIdMalformed => "session_id_malformed",
            Code::SessionTooOld => "session_too_old",
            Code::SessionTooFarAhead => "session_too_far_ahead",
            Code::ProfileIdMalformed => "profile_id_malformed",
            Code::ProfileForbidden => "profile_forbidden",
            Code::TitleIdMalformed => "title_id_malformed",
            Code::SeqOutOfRange => "seq_out_of_range",
            Code::KindUnknown => "kind_unknown",
            Code::PositionOutOfRange => "position_out_of_range",
            Code::TooManySessions => "too_many_sessions",
        }
    }

    /// Whether the same event may be accepted later.
    pub const fn is_retryable(self) -> bool {
        matches!(self, Code::SessionTooFarAhead | Code::ProfileForbidden | Code::TooManySessions)
    }
}

impl Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Why an event was rejected; returned to the device that sent it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{message}")]
pub struct Rejection {
    /// The broken rule.
    pub code: Code,
    /// Names the field and the accepted form.
    pub message: String,
    /// Whether the same event may be accepted later.
    pub retryable: bool,
}

impl Rejection {
    /// Rejects an event whose profile the token does not cover.
    pub fn profile_forbidden(profile_id: &str) -> Self {
        reject(Code::ProfileForbidden, format!("`profile_id` {profile_id} is not among the token's profiles"))
    }

    /// Rejects an event of one session too many for a request.
    pub fn too_many_sessions(limit: usize) -> Self {
        let message = format!(
            "`session_id`: the events before this one are of {limit} viewings, the most that one request may have; \
             send this event in another request"
        );
        reject(Code::TooManySessions, message)
    }
}

fn reject(code: Code, message: impl Into<String>) -> Rejection {
    Rejection { code, message: message.into(), retryable: code.is_retryable() }
}

/// What was done to an odd value. The names are part of the contract and never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// The position is past the end of the title. It is kept and means the end.
    PositionPastEnd,
    /// The value was moved into its range.
    Clamped,
    /// A fraction was cut off.
    Rounded,
    /// The value was brought into the accepted form.
    Normalised,
    /// The value was not understood and is treated as absent.
    Dropped,
}

/// An odd value of an event that was accepted all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Adjustment {
    /// What was done.
    #[serde(rename = "code")]
    pub change: Change,
    /// To which field.
    pub field: &'static str,
}

/// A valid event, and what had to be adjusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Valid {
    /// The event.
    pub event: EdgeEvent,
    /// Nearly always empty.
    pub adjusted: Vec<Adjustment>,
}

/// A request's body as text. Bytes that are not UTF-8 were replaced by U+FFFD, and it is known
/// where.
#[derive(Debug)]
pub struct BodyText<'a> {
    text: Cow<'a, str>,
    /// Where replacements stand in `text`, sorted.
    replaced: Vec<usize>,
}

impl<'a> BodyText<'a> {
    /// Reads a body, whatever its bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        if let Ok(text) = std::str::from_utf8(bytes) {
            return Self { text: Cow::Borrowed(text), replaced: Vec::new() };
        }
        let (mut text, mut replaced) = (String::with_capacity(bytes.len() + 16), Vec::new());
        for chunk in bytes.utf8_chunks() {
            text.push_str(chunk.valid());
            if !chunk.invalid().is_empty() {
                replaced.push(text.len());
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        Self { text: Cow::Owned(text), replaced }
    }

    /// Whether `part`, a part of the text, was UTF-8 as it came.
    fn was_utf8(&self, part: &str) -> bool {
        if self.replaced.is_empty() {
            return true;
        }
        let start = (part.as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize);
        let after = self.replaced.partition_point(|&at| at < start);
        self.replaced.get(after).is_none_or(|&at| at >= start + part.len())
    }
}

/// A request's events, still unparsed, and what concerns them all.
#[derive(Debug)]
pub struct Request<'a> {
    /// In the order of the request.
    pub events: Vec<RawEvent<'a>>,
    /// The device's clock when it sent the request, Unix milliseconds, if stated.
    pub sent_at: Option<u64>,
    /// Whether `sent_at` was there but not understood.
    pub sent_at_dropped: bool,
}

/// One event, unparsed.
#[derive(Debug, Clone, Copy)]
pub struct RawEvent<'a> {
    /// Its JSON.
    pub json: &'a RawValue,
    is_utf8: bool,
}

impl<'a> From<&'a RawValue> for RawEvent<'a> {
    fn from(json: &'a RawValue) -> Self {
        Self { json, is_utf8: true }
    }
}

/// Splits a request's body into its events.
///
/// # Errors
/// [`RequestError`] when the body as a whole does not follow the contract. A bad event is not such
/// an error.
pub fn parse_request<'a>(body: &'a BodyText<'_>) -> Result<Request<'a>, RequestError> {
    #[derive(Deserialize)]
    struct Members<'a> {
        #[serde(borrow)]
        events: Vec<&'a RawValue>,
        #[serde(borrow, default)]
        sent_at: Option<&'a RawValue>,
    }
    let members: Members<'_> = serde_json::from_str(&body.text)?;
    if members.events.len() > MAX_EVENTS {
        return Err(RequestError::TooManyEvents(members.events.len()));
    }
    let stated = members.sent_at.filter(|raw| raw.get() != "null");
    let value = stated.and_then(|raw| serde_json::from_str::<Value>(raw.get()).ok());
    let sent_at = value.as_ref().and_then(number).and_then(|number| number.within(1..=MAX_INSTANT));
    Ok(Request {
        events: members.events.into_iter().map(|json| RawEvent { json, is_utf8: body.was_utf8(json.get()) }).collect(),
        sent_at,
        sent_at_dropped: stated.is_some() && sent_at.is_none(),
    })
}

/// The fields of an event in JSON. Unknown fields are ignored, so players may be newer than this
/// code.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    session_id: Cow<'a, str>,
    #[serde(borrow)]
    profile_id: Cow<'a, str>,
    #[serde(borrow)]
    title_id: Cow<'a, str>,
    seq: i64,
    #[serde(borrow)]
    kind: Cow<'a, str>,
    position_ms: i64,
    #[serde(default)]
    played_ms: Option<i64>,
    #[serde(default)]
    title_duration_ms: Option<i64>,
    #[serde(default)]
    credits_ms: Option<i64>,
    #[serde(default)]
    occurred_at: Option<i64>,
    #[serde(borrow, default)]
    device: Option<DeviceFields<'a>>,
    #[serde(borrow, default)]
    country: Option<Text<'a>>,
}

/// Text that is not copied unless it has escapes. Inside an `Option`, a plain `Cow` always is.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Deserialize)]
struct DeviceFields<'a> {
    #[serde(borrow, default)]
    id: Option<Text<'a>>,
    #[serde(borrow, default)]
    kind: Option<Text<'a>>,
}

/// Validates one event. `now` is the server's clock, Unix milliseconds.
///
/// # Errors
/// The first broken rule, as a [`Rejection`].
pub fn validate(raw: RawEvent<'_>, now: u64, window: SessionWindow) -> Result<Valid, Rejection> {
    if !raw.is_utf8 {
        return Err(reject(Code::NotUtf8, "the event's bytes are not UTF-8; send JSON in UTF-8"));
    }
    let mut notes = Notes::default();
    let fields = match serde_json::from_str::<Fields<'_>>(raw.json.get()) {
        Ok(fields) => fields,
        Err(_) => loose(raw.json, &mut notes)?,
    };
    let event = check(fields, &mut notes, now, window)?;
    Ok(Valid { event, adjusted: notes.0 })
}

/// Collects what is adjusted.
#[derive(Default)]
struct Notes(Vec<Adjustment>);

impl Notes {
    fn add(&mut self, change: Change, field: &'static str) {
        self.0.push(Adjustment { change, field });
    }

    /// An optional number in its range; outside of it, it is dropped.
    fn optional(&mut self, field: &'static str, value: Option<i64>, min: u64, max: u64) -> Option<u64> {
        let value = value?;
        let within = u64::try_from(value).ok().filter(|value| (min..=max).contains(value));
        if within.is_none() {
            self.add(Change::Dropped, field);
        }
        within
    }
}

fn check(fields: Fields<'_>, notes: &mut Notes, now: u64, window: SessionWindow) -> Result<EdgeEvent, Rejection> {
    let session_id = check_session(&fields.session_id, now, window)?;
    let id = |field: &str, code, text: Cow<'_, str>| {
        if is_id(&text) { Ok(text.into_owned()) } else { Err(reject(code, format!("`{field}` {ID_RULE}"))) }
    };
    let profile_id = id("profile_id", Code::ProfileIdMalformed, fields.profile_id)?;
    let title_id = id("title_id", Code::TitleIdMalformed, fields.title_id)?;
    let seq = u16::try_from(fields.seq).map_err(|_| {
        let message = format!("`seq` is {}; it must be between 0 and {MAX_SEQ} (then begin a new session)", fields.seq);
        reject(Code::SeqOutOfRange, message)
    })?;
    let kind = Kind::from_word(&fields.kind).ok_or_else(|| {
        let words = Kind::ALL.map(Kind::as_str).join(", ");
        reject(Code::KindUnknown, format!("`kind` must be one of {words}"))
    })?;
    let position_ms = u64::try_from(fields.position_ms).ok().filter(|&position| position <= MAX_POSITION_MS);
    let position_ms = position_ms.ok_or_else(|| {
        let message = format!("`position_ms` is {}; it must be between 0 and {MAX_POSITION_MS}", fields.position_ms);
        reject(Code::PositionOutOfRange, message)
    })?;
    let title_duration_ms = notes.optional("title_duration_ms", fields.title_duration_ms, 1, MAX_TITLE_DURATION_MS);
    if title_duration_ms.is_some_and(|duration| position_ms > duration) {
        notes.add(Change::PositionPastEnd, "position_ms");
    }
    let played = notes.optional("played_ms", fields.played_ms, 0, u64::MAX).unwrap_or(0);
    let most = position_ms.min(MAX_TITLE_DURATION_MS);
    if played > most {
        notes.add(Change::Clamped, "played_ms");
    }
    let event = Event {
        seq,
        kind,
        position_ms,
        played_ms: played.min(most),
        title_duration_ms,
        credits_ms: notes.optional("credits_ms", fields.credits_ms, 1, MAX_TITLE_DURATION_MS),
        occurred_at: notes.optional("occurred_at", fields.occurred_at, 1, MAX_INSTANT),
        device: Arc::new(fields.device.map(|device| check_device(device, notes)).unwrap_or_default()),
        country: fields.country.and_then(|Text(text)| check_country(&text, notes)),
    };
    Ok(EdgeEvent { session_id, profile_id, title_id, event })
}

fn check_session(text: &str, now: u64, window: SessionWindow) -> Result<SessionId, Rejection> {
    let session_id: SessionId =
        text.parse().map_err(|error| reject(Code::SessionIdMalformed, format!("`session_id` {error}")))?;
    let began = session_id.started_at();
    if began < now.saturating_sub(window.max_age_ms) {
        let days = window.max_age_ms / 86_400_000;
        let message = format!("`session_id` says the session began at {began}; it must be within the last {days} days");
        return Err(reject(Code::SessionTooOld, message));
    }
    if window.is_too_far_ahead(&session_id, now) {
        let minutes = window.max_ahead_ms / 60_000;
        let message = format!(
            "`session_id` says the session begins at {began}; it must be at most {minutes} minutes after now: \
             send the event again then"
        );
        return Err(reject(Code::SessionTooFarAhead, message));
    }
    Ok(session_id)
}

fn check_device(fields: DeviceFields<'_>, notes: &mut Notes) -> Device {
    let id = fields.id.and_then(|Text(id)| {
        if is_id(&id) {
            return Some(id.into_owned());
        }
        notes.add(Change::Dropped, "device.id");
        None
    });
    let kind = fields.kind.and_then(|Text(kind)| {
        if is_device_kind(&kind) {
            return Some(kind.into_owned());
        }
        let normal = normal_device_kind(&kind);
        notes.add(if normal.is_some() { Change::Normalised } else { Change::Dropped }, "device.kind");
        normal
    });
    Device { id, kind }
}

fn check_country(text: &str, notes: &mut Notes) -> Option<Country> {
    if let Ok(country) = text.parse() {
        return Some(country);
    }
    let normal = text.trim().to_ascii_uppercase().parse().ok();
    notes.add(if normal.is_some() { Change::Normalised } else { Change::Dropped }, "country");
    normal
}

/// A JSON number that is not negative.
#[derive(Debug, Clone, Copy)]
struct Number {
    /// Its integral part.
    whole: u64,
    has_fraction: bool,
}

impl Number {
    fn within(self, range: std::ops::RangeInclusive<u64>) -> Option<u64> {
        range.contains(&self.whole).then_some(self.whole)
    }
}

/// Reads a number in any JSON spelling (`10`, `10.0`, `1e1`); `None` for anything else and below 0.
fn number(value: &Value) -> Option<Number> {
    if let Some(whole) = value.as_u64() {
        return Some(Number { whole, has_fraction: false });
    }
    let float = value.as_f64().filter(|float| *float >= 0.0)?;
    // A conversion of too large a number saturates, and every range ends below that.
    Some(Number { whole: float as u64, has_fraction: float.fract() != 0.0 })
}

/// An event's members, of which only those of the contract are looked into: whatever is odd in the
/// others does no harm.
struct Members<'a>(HashMap<String, &'a RawValue>);

impl Members<'_> {
    /// Takes a member; `None` if it is absent or null. A value that serde_json cannot hold, such as
    /// half of a surrogate pair, has the wrong type everywhere.
    fn take(&mut self, field: &str) -> Option<Value> {
        let value = serde_json::from_str(self.0.remove(field)?.get()).unwrap_or(Value::Array(Vec::new()));
        (!value.is_null()).then_some(value)
    }

    fn text<'t>(&mut self, field: &str) -> Result<Cow<'t, str>, Rejection> {
        match self.take(field) {
            None => Err(missing(field)),
            Some(Value::String(text)) => Ok(Cow::Owned(text)),
            Some(_) => Err(wrong_type(field, "a string")),
        }
    }

    /// A number that must be there. Below 0 it is rounded down, and too large it is the largest:
    /// both are out of every range.
    fn number(&mut self, field: &str) -> Result<(i64, bool), Rejection> {
        match self.take(field) {
            None => Err(missing(field)),
            Some(value @ Value::Number(_)) => Ok(whole_and_fraction(&value)),
            Some(_) => Err(wrong_type(field, "a number")),
        }
    }

    fn optional_number(&mut self, field: &'static str, notes: &mut Notes) -> Option<i64> {
        let (whole, has_fraction) = whole_and_fraction(&self.take(field)?);
        if has_fraction {
            notes.add(Change::Rounded, field);
        }
        Some(whole)
    }

    fn optional_text<'t>(&mut self, field: &str, name: &'static str, notes: &mut Notes) -> Option<Text<'t>> {
        match self.take(field)? {
            Value::String(text) => Some(Text(Cow::Owned(text))),
            _ => {
                notes.add(Change::Dropped, name);
                None
            }
        }
    }

    fn device<'t>(&mut self, notes: &mut Notes) -> Option<DeviceFields<'t>> {
        let raw = self.0.remove("device").filter(|raw| raw.get() != "null")?;
        let Ok(members) = serde_json::from_str(raw.get()) else {
            notes.add(Change::Dropped, "device");
            return None;
        };
        let mut device = Members(members);
        let id = device.optional_text("id", "device.id", notes);
        Some(DeviceFields { id, kind: device.optional_text("kind", "device.kind", notes) })
    }
}

fn missing(field: &str) -> Rejection {
    reject(Code::FieldMissing, format!("`{field}` is required"))
}

fn wrong_type(field: &str, expected: &str) -> Rejection {
    reject(Code::FieldType, format!("`{field}` must be {expected}"))
}

fn whole_and_fraction(value: &Value) -> (i64, bool) {
    if let Some(number) = number(value) {
        return (i64::try_from(number.whole).unwrap_or(i64::MAX), number.has_fraction);
    }
    // Rounded down, for the message. A conversion of too small a number saturates.
    let below = value.as_i64().or_else(|| Some(value.as_f64()?.floor() as i64));
    (below.unwrap_or(-1), false)
}

/// Reads an event that is not in the plain form: field by field, tolerant about what only
/// decorates.
fn loose<'a>(raw: &RawValue, notes: &mut Notes) -> Result<Fields<'a>, Rejection> {
    let members = serde_json::from_str(raw.get());
    let mut event = Members(members.map_err(|_| reject(Code::NotAnObject, "an event must be a JSON object"))?);
    let session_id = event.text("session_id")?;
    let profile_id = event.text("profile_id")?;
    let title_id = event.text("title_id")?;
    let (seq, has_fraction) = event.number("seq")?;
    if has_fraction {
        return Err(wrong_type("seq", "an integer"));
    }
    let kind = event.text("kind")?;
    let (position_ms, has_fraction) = event.number("position_ms")?;
    if has_fraction {
        notes.add(Change::Rounded, "position_ms");
    }
    Ok(Fields {
        session_id,
        profile_id,
        title_id,
        seq,
        kind,
        position_ms,
        played_ms: event.optional_number("played_ms", notes),
        title_duration_ms: event.optional_number("title_duration_ms", notes),
        credits_ms: event.optional_number("credits_ms", notes),
        occurred_at: event.optional_number("occurred_at", notes),
        device: event.device(notes),
        country: event.optional_text("country", "country", notes),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const NOW: u64 = 1_790_000_010_200;

    fn good() -> Value {
        json!({"session_id": "use1-01M3250V3TW3KG5DD5CEVSMJCC", "profile_id": "p00000054", "title_id": "t000002",
            "seq": 1, "kind": "progressed", "position_ms": 10000, "played_ms": 10000, "title_duration_ms": 2_700_000,
            "occurred_at": 1_790_000_010_122_u64, "device": {"id": "d00000308", "kind": "tablet"}, "country": "US"})
    }

    fn validated_text(event: &str) -> Result<Valid, Rejection> {
        let body = format!(r#"{{"events":[{event}]}}"#);
        let body = BodyText::new(body.as_bytes());
        validate(parse_request(&body).unwrap().events[0], NOW, SessionWindow::default())
    }

    /// The good event with the value at a JSON pointer replaced by a piece of JSON; an empty piece
    /// removes the field.
    fn with(pointer: &str, json: &str) -> String {
        let mut event = good();
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        let parent = event.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        parent.remove(field);
        if !json.is_empty() {
            parent.insert(field.to_owned(), "<here>".into());
        }
        event.to_string().replace("\"<here>\"", json)
    }

    #[test]
    fn contract_example_is_valid() {
        let Valid { event, adjusted } = validated_text(&good().to_string()).unwrap();
        assert_eq!(event.session_id.to_string(), "use1-01M3250V3TW3KG5DD5CEVSMJCC");
        assert_eq!((event.event.seq, event.event.position_ms, event.event.played_ms), (1, 10_000, 10_000));
        assert_eq!(event.event.country.map(|c| c.to_string()).as_deref(), Some("US"));
        assert_eq!(adjusted, []);
    }

    #[test]
    fn only_identity_and_place_are_required() {
        let event = json!({"session_id": "use1-01M3250V3TW3KG5DD5CEVSMJCC", "profile_id": "p", "title_id": "t",
            "seq": 0, "kind": "started", "position_ms": 0, "bitrate": {"kbps": 4000}});
        let Valid { event, adjusted } = validated_text(&event.to_string()).unwrap();
        let plain = Event {
            seq: 0,
            kind: Kind::Started,
            position_ms: 0,
            played_ms: 0,
            title_duration_ms: None,
            credits_ms: None,
            occurred_at: None,
            device: Arc::default(),
            country: None,
        };
        assert_eq!((event.event, adjusted.as_slice()), (plain, [].as_slice()));
    }

    /// Expects this code in the rejection, and the field's name.
    fn rejected(pointer: &str, json: &str, code: &str, names: &str) {
        let rejection = validated_text(&with(pointer, json)).expect_err(&format!("{pointer} = {json}"));
        assert_eq!(rejection.code.as_str(), code, "{pointer} = {json}: {}", rejection.message);
        assert!(rejection.message.contains(&format!("`{names}`")), "{pointer} = {json}: {}", rejection.message);
    }

    #[test]
    fn every_rule_of_identity_has_its_code_and_names_its_field() {
        for field in ["session_id", "profile_id", "title_id", "seq", "kind", "position_ms"] {
            rejected(&format!("/{field}"), "", "field_missing", field);
            rejected(&format!("/{field}"), "null", "field_missing", field);
            rejected(&format!("/{field}"), "[1]", "field_type", field);
        }
        rejected("/seq", "1.5", "field_type", "seq");
        rejected("/seq", r#""1""#, "field_type", "seq");
        rejected("/position_ms", r#""1""#, "field_type", "position_ms");
        rejected("/title_id", r#""\ud83d""#, "field_type", "title_id");
        rejected("/session_id", r#""01M3250V3TW3KG5DD5CEVSMJCC""#, "session_id_malformed", "session_id");
        rejected("/session_id", r#""use1-01J00000000000000000000000""#, "session_too_old", "session_id");
        rejected("/session_id", r#""use1-01N00000000000000000000000""#, "session_too_far_ahead", "session_id");
        let long = format!("{:?}", "p".repeat(129));
        for id in [r#""""#, r#""a#b""#, r#""a b""#, r#""~a""#, r#""a,b""#, r#""ä""#, r#""a\u0000""#, r#""..""#, &long]
        {
            rejected("/profile_id", id, "profile_id_malformed", "profile_id");
            rejected("/title_id", id, "title_id_malformed", "title_id");
        }
        for seq in ["-1", "65536", "18446744073709551615", "1e300"] {
            rejected("/seq", seq, "seq_out_of_range", "seq");
        }
        rejected("/kind", r#""rewound""#, "kind_unknown", "kind");
        for position in ["-1", "-0.5", "253402300800000", "1e300"] {
            rejected("/position_ms", position, "position_out_of_range", "position_ms");
        }
    }

    #[test]
    fn ids_of_real_systems_are_accepted() {
        for id in [
            "p00000054",
            "8b1f2c9e-7d0a-4f58-9a77-0c1f5b1d2e3f",
            "-_aGVsbG8_d29ybGQ=",
            "aGVsbG8+d29ybGQ/",
            "urn:uuid:8b1f2c9e-7d0a-4f58-9a77-0c1f5b1d2e3f",
            "crid://broadcaster.example/b07r7",
            "10.5240/7791-8534-2C23-9030-8610-5",
            "spotify:episode:512ojhOuo1ktJprKbVcKyQ",
            "user@tenant.example",
            &"p".repeat(128),
        ] {
            let valid = validated_text(&with("/profile_id", &format!("{id:?}"))).unwrap();
            assert_eq!((valid.event.profile_id.as_str(), valid.adjusted.len()), (id, 0));
        }
    }

    /// Expects the event to be kept with this one note, and returns it.
    fn adjusted(pointer: &str, json: &str, change: Change, field: &str) -> Event {
        let Valid { event, adjusted } = validated_text(&with(pointer, json)).expect(pointer);
        let seen: Vec<_> = adjusted.iter().map(|one| (one.change, one.field)).collect();
        assert_eq!(seen, [(change, field)], "{pointer} = {json}");
        event.event
    }

    #[test]
    fn odd_values_are_adjusted_and_never_cost_the_event() {
        use Change::*;
        let event = adjusted("/position_ms", "2700009", PositionPastEnd, "position_ms");
        assert_eq!((event.position_ms, event.title_duration_ms), (2_700_009, Some(2_700_000)));
        assert_eq!(adjusted("/position_ms", "10000.7", Rounded, "position_ms").position_ms, 10_000);
        assert_eq!(adjusted("/played_ms", "20000", Clamped, "played_ms").played_ms, 10_000);
        assert_eq!(adjusted("/played_ms", "9.5", Rounded, "played_ms").played_ms, 9);
        for played in ["-5", r#""10""#] {
            assert_eq!(adjusted("/played_ms", played, Dropped, "played_ms").played_ms, 0);
        }
        for duration in ["0", "-1", "604800001", "1e300", r#""Infinity""#, "{}"] {
            assert_eq!(adjusted("/title_duration_ms", duration, Dropped, "title_duration_ms").title_duration_ms, None);
        }
        for clock in ["0", "-1", "253402300800000", r#""2026-09-21T12:00:00Z""#] {
            assert_eq!(adjusted("/occurred_at", clock, Dropped, "occurred_at").occurred_at, None);
        }
        assert_eq!(adjusted("/credits_ms", "true", Dropped, "credits_ms").credits_ms, None);
        let kind = |json: &str, change| adjusted("/device/kind", json, change, "device.kind").device.kind.clone();
        assert_eq!(kind(r#""Android TV""#, Normalised).as_deref(), Some("Android-TV"));
        assert_eq!(kind(&format!("{:?}", "k".repeat(33)), Normalised), Some("k".repeat(32)));
        assert_eq!(kind(r#""电视""#, Dropped), None);
        assert_eq!(kind("7", Dropped), None);
        assert_eq!(kind(r#""\ud83d""#, Dropped), None);
        assert_eq!(adjusted("/device/id", r#""a b""#, Dropped, "device.id").device.id, None);
        assert_eq!(adjusted("/device", r#""tv""#, Dropped, "device").device, Arc::default());
        assert_eq!(adjusted("/country", r#""us""#, Normalised, "country").country, "US".parse().ok());
        for country in [r#""USA""#, "49"] {
            assert_eq!(adjusted("/country", country, Dropped, "country").country, None);
        }
    }

    #[test]
    fn integral_numbers_are_accepted_in_any_spelling() {
        for (pointer, json) in
            [("/position_ms", "10000.0"), ("/position_ms", "1e4"), ("/seq", "1.0"), ("/seq", "10e-1")]
        {
            let valid = validated_text(&with(pointer, json)).unwrap();
            assert_eq!((valid.event.event.position_ms, valid.event.event.seq), (10_000, 1), "{json}");
            assert_eq!(valid.adjusted, []);
        }
    }

    #[test]
    fn rejection_tells_a_negative_number_rounded_down_however_the_event_is_spelt() {
        for (field, number, told) in [
            ("seq", "-2", "-2"),
            ("seq", "-2.0", "-2"),
            ("position_ms", "-2", "-2"),
            ("position_ms", "-0.5", "-1"),
            ("position_ms", "-9007199254740993", "-9007199254740993"),
        ] {
            let plain = with(&format!("/{field}"), number);
            // What is told twice is not in the plain form.
            let odd = plain.replacen('{', r#"{"country":"US","#, 1);
            for json in [plain, odd] {
                let rejection = validated_text(&json).unwrap_err();
                assert!(rejection.message.starts_with(&format!("`{field}` is {told}; ")), "{json}: {rejection:?}");
            }
        }
    }

    #[test]
    fn null_means_absent_and_is_not_odd() {
        for field in ["played_ms", "title_duration_ms", "credits_ms", "occurred_at", "device", "device/id", "country"] {
            assert_eq!(validated_text(&with(&format!("/{field}"), "null")).unwrap().adjusted, [], "{field}");
        }
    }

    #[test]
    fn odd_unknown_fields_do_no_harm() {
        for json in ["1e400", r#""\ud83d""#, r#"{"a":"\udead"}"#] {
            let event = with("/position_ms", "10000.0").replacen('{', &format!("{{\"extra\":{json},"), 1);
            assert_eq!(validated_text(&event).unwrap().adjusted, [], "{json}");
        }
    }

    #[test]
    fn event_with_invalid_utf8_rejects_only_itself() {
        let good = good().to_string();
        let mut body = r#"{"x":"#.to_string().into_bytes();
        body.extend_from_slice(b"\"\xff\",\"events\":[");
        for at in 0..21 {
            if at > 0 {
                body.push(b',');
            }
            if at == 7 {
                body.extend_from_slice(br#"{"note":"caf"#);
                body.push(0xff);
                body.extend_from_slice(br#"","#);
                body.extend_from_slice(&good.as_bytes()[1..]);
            } else {
                body.extend_from_slice(good.replacen('{', "{\"note\":\"\u{fffd}\",", 1).as_bytes());
            }
        }
        body.extend_from_slice(b"]}");
        let body = BodyText::new(&body);
        let results: Vec<_> = parse_request(&body)
            .unwrap()
            .events
            .into_iter()
            .map(|event| validate(event, NOW, SessionWindow::default()).map_err(|rejection| rejection.code))
            .collect();
        let bad: Vec<_> = results.iter().enumerate().filter_map(|(at, r)| Some((at, *r.as_ref().err()?))).collect();
        assert_eq!((results.len(), bad), (21, vec![(7, Code::NotUtf8)]));
    }

    #[test]
    fn event_that_is_not_an_object_rejects_only_itself() {
        for json in ["7", "null", r#""x""#, "[{}]"] {
            assert_eq!(validated_text(json).unwrap_err().code, Code::NotAnObject);
        }
    }

    #[test]
    fn request_members_are_read_and_odd_ones_do_no_harm() {
        let read = |body: &str| {
            let text = BodyText::new(body.as_bytes());
            let request = parse_request(&text).unwrap();
            (request.events.len(), request.sent_at, request.sent_at_dropped)
        };
        assert_eq!(read(r#"{"events":[7],"client":"new"}"#), (1, None, false));
        assert_eq!(read(r#"{"events":[],"sent_at":12.5}"#), (0, Some(12), false));
        assert_eq!(read(r#"{"events":[],"sent_at":null}"#), (0, None, false));
        for odd in ["0", "-1", r#""now""#, "1e300", "1e400", r#""\ud83d""#, "[]"] {
            assert_eq!(read(&format!(r#"{{"events":[],"sent_at":{odd}}}"#)), (0, None, true), "{odd}");
        }
    }

    #[test]
    fn malformed_body_is_refused_as_a_whole() {
        for body in ["", "[]", "{}", r#"{"events":{}}"#, r#"{"events":[}"#, r#"{"events":[]} x"#, "\u{feff}{}"] {
            let body = BodyText::new(body.as_bytes());
            assert!(matches!(parse_request(&body), Err(RequestError::Malformed(_))), "{body:?}");
        }
        let many = format!(r#"{{"events":[{}1]}}"#, "1,".repeat(MAX_EVENTS));
        assert!(matches!(parse_request(&BodyText::new(many.as_bytes())), Err(RequestError::TooManyEvents(501))));
    }

    #[test]
    fn session_window_includes_its_edges() {
        let window = SessionWindow { max_age_ms: 1000, max_ahead_ms: 500 };
        let at = |began: u64| {
            let id = SessionId::mint("use1".parse().unwrap(), began, 7);
            let body = format!(r#"{{"events":[{}]}}"#, with("/session_id", &format!("\"{id}\"")));
            let body = BodyText::new(body.as_bytes());
            let rejection = validate(parse_request(&body).unwrap().events[0], NOW, window).err();
            rejection.map(|rejection| (rejection.code, rejection.retryable))
        };
        assert_eq!(at(NOW - 1000), None);
        assert_eq!(at(NOW - 1001), Some((Code::SessionTooOld, false)));
        assert_eq!(at(NOW + 500), None);
        assert_eq!(at(NOW + 501), Some((Code::SessionTooFarAhead, true)));
    }

    #[test]
    fn codes_are_distinct() {
        let names: std::collections::BTreeSet<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(names.len(), Code::ALL.len());
    }
}
