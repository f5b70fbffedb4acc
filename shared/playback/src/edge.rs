//! The edge contract: turns the bytes of a request into validated events. Every rule has a stable
//! code and a message that names the field. A bad event rejects only itself.
//!
//! A well-formed event is parsed once, into borrowed fields. Only if that fails is it parsed again
//! as loose JSON, to find the field at fault. So good events do not pay for diagnosing bad ones.

use crate::contract::{
    Country, Device, Event, Kind, MAX_DEVICE_KIND_BYTES, MAX_EVENTS, MAX_ID_BYTES, MAX_INSTANT, MAX_SEQ,
    MAX_TITLE_DURATION_MS, is_device_kind, is_id,
};
use crate::session::SessionId;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;
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
    /// A required field is absent.
    FieldMissing,
    /// A field has the wrong JSON type.
    FieldType,
    /// `session_id` does not have the form `<home>-<ULID>`.
    SessionIdMalformed,
    /// The session began longer ago than allowed.
    SessionTooOld,
    /// The session begins further in the future than allowed.
    SessionTooFarAhead,
    /// The request has events of more sessions than one request of a member may have.
    TooManySessions,
    /// `profile_id` is not a valid id.
    ProfileIdMalformed,
    /// The token does not cover this profile.
    ProfileForbidden,
    /// `title_id` is not a valid id.
    TitleIdMalformed,
    /// `seq` is not between 0 and 65,535.
    SeqOutOfRange,
    /// `kind` is not one of the contract's kinds.
    KindUnknown,
    /// `title_duration_ms` is not between 1 and seven days.
    TitleDurationOutOfRange,
    /// `position_ms` is not between 0 and `title_duration_ms`.
    PositionOutOfRange,
    /// `played_ms` is not between 0 and `position_ms`.
    PlayedOutOfRange,
    /// `occurred_at` is not a time before the year 10000.
    OccurredAtOutOfRange,
    /// `device.id` or `device.kind` is malformed.
    DeviceMalformed,
    /// `country` is not an ISO 3166-1 alpha-2 code.
    CountryMalformed,
}

impl Code {
    /// All codes.
    pub const ALL: [Code; 18] = [
        Code::NotAnObject,
        Code::FieldMissing,
        Code::FieldType,
        Code::SessionIdMalformed,
        Code::SessionTooOld,
        Code::SessionTooFarAhead,
        Code::TooManySessions,
        Code::ProfileIdMalformed,
        Code::ProfileForbidden,
        Code::TitleIdMalformed,
        Code::SeqOutOfRange,
        Code::KindUnknown,
        Code::TitleDurationOutOfRange,
        Code::PositionOutOfRange,
        Code::PlayedOutOfRange,
        Code::OccurredAtOutOfRange,
        Code::DeviceMalformed,
        Code::CountryMalformed,
    ];

    /// The stable name in answers and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Code::NotAnObject => "not_an_object",
            Code::FieldMissing => "field_missing",
            Code::FieldType => "field_type",
            Code::SessionIdMalformed => "session_id_malformed",
            Code::SessionTooOld => "session_too_old",
            Code::SessionTooFarAhead => "session_too_far_ahead",
            Code::TooManySessions => "too_many_sessions",
            Code::ProfileIdMalformed => "profile_id_malformed",
            Code::ProfileForbidden => "profile_forbidden",
            Code::TitleIdMalformed => "title_id_malformed",
            Code::SeqOutOfRange => "seq_out_of_range",
            Code::KindUnknown => "kind_unknown",
            Code::TitleDurationOutOfRange => "title_duration_out_of_range",
            Code::PositionOutOfRange => "position_out_of_range",
            Code::PlayedOutOfRange => "played_out_of_range",
            Code::OccurredAtOutOfRange => "occurred_at_out_of_range",
            Code::DeviceMalformed => "device_malformed",
            Code::CountryMalformed => "country_malformed",
        }
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
    /// Names the field, the rule and the fix.
    pub message: String,
    /// Whether the event may be accepted when it is sent again later.
    pub retryable: bool,
}

impl Rejection {
    /// Rejects an event whose profile the token does not cover.
    pub fn profile_forbidden(profile_id: &str) -> Self {
        reject(Code::ProfileForbidden, format!("`profile_id` {profile_id} is not among the token's profiles"))
    }

    /// Rejects an event of one session too many; a request may have `limit`.
    pub fn too_many_sessions(limit: usize) -> Self {
        let message = format!(
            "`session_id`: the events before this one are of {limit} sessions, the most that one request may have; \
             send this event in another request"
        );
        Self { retryable: true, ..reject(Code::TooManySessions, message) }
    }
}

fn reject(code: Code, message: impl Into<String>) -> Rejection {
    Rejection { code, message: message.into(), retryable: false }
}

/// Splits a request body into its events, still unparsed.
///
/// # Errors
/// [`RequestError`] when the body as a whole does not follow the contract. A bad event is not such
/// an error.
pub fn parse_request(body: &[u8]) -> Result<Vec<&RawValue>, RequestError> {
    #[derive(Deserialize)]
    struct Request<'a> {
        #[serde(borrow)]
        events: Vec<&'a RawValue>,
    }
    let request: Request<'_> = serde_json::from_slice(body)?;
    if request.events.len() > MAX_EVENTS {
        return Err(RequestError::TooManyEvents(request.events.len()));
    }
    Ok(request.events)
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
    title_duration_ms: i64,
    occurred_at: i64,
    #[serde(borrow)]
    device: DeviceFields<'a>,
    #[serde(borrow, default)]
    country: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct DeviceFields<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    kind: Cow<'a, str>,
}

/// Validates one event. `now` is the server's clock, Unix milliseconds.
///
/// # Errors
/// The first broken rule, as a [`Rejection`].
pub fn validate(raw: &RawValue, now: u64, window: SessionWindow) -> Result<EdgeEvent, Rejection> {
    match serde_json::from_str::<Fields<'_>>(raw.get()) {
        Ok(fields) => check(fields, now, window),
        Err(error) => Err(diagnose(raw).unwrap_or_else(|| reject(Code::FieldType, error.to_string()))),
    }
}

fn check(fields: Fields<'_>, now: u64, window: SessionWindow) -> Result<EdgeEvent, Rejection> {
    let session_id: SessionId =
        fields.session_id.parse().map_err(|error| reject(Code::SessionIdMalformed, format!("`session_id` {error}")))?;
    let began = session_id.started_at();
    if began < now.saturating_sub(window.max_age_ms) {
        let days = window.max_age_ms / 86_400_000;
        return Err(reject(
            Code::SessionTooOld,
            format!("`session_id` says the session began at {began}, more than {days} days before now"),
        ));
    }
    if began > now.saturating_add(window.max_ahead_ms) {
        let minutes = window.max_ahead_ms / 60_000;
        return Err(reject(
            Code::SessionTooFarAhead,
            format!("`session_id` says the session begins at {began}, more than {minutes} minutes after now"),
        ));
    }
    let id = |field: &str, code, text: Cow<'_, str>| {
        if is_id(&text) { Ok(text.into_owned()) } else { Err(reject(code, id_rule(field, MAX_ID_BYTES))) }
    };
    let profile_id = id("profile_id", Code::ProfileIdMalformed, fields.profile_id)?;
    let title_id = id("title_id", Code::TitleIdMalformed, fields.title_id)?;
    let seq = within("seq", Code::SeqOutOfRange, fields.seq, 0, MAX_SEQ, "65,535 (then begin a new session)")?;
    let kind = Kind::from_word(&fields.kind).ok_or_else(|| {
        let words = Kind::ALL.map(Kind::as_str).join(", ");
        reject(Code::KindUnknown, format!("`kind` must be one of {words}"))
    })?;
    let title_duration_ms = within(
        "title_duration_ms",
        Code::TitleDurationOutOfRange,
        fields.title_duration_ms,
        1,
        MAX_TITLE_DURATION_MS,
        "604,800,000 (seven days)",
    )?;
    let position_ms = within(
        "position_ms",
        Code::PositionOutOfRange,
        fields.position_ms,
        0,
        title_duration_ms,
        "`title_duration_ms`",
    )?;
    let played = fields.played_ms.unwrap_or(0);
    let played_ms = within("played_ms", Code::PlayedOutOfRange, played, 0, position_ms, "`position_ms`")?;
    let occurred_at = within(
        "occurred_at",
        Code::OccurredAtOutOfRange,
        fields.occurred_at,
        0,
        MAX_INSTANT,
        "the end of the year 9999 in Unix milliseconds",
    )?;
    if !is_id(&fields.device.id) {
        return Err(reject(Code::DeviceMalformed, id_rule("device.id", MAX_ID_BYTES)));
    }
    if !is_device_kind(&fields.device.kind) {
        return Err(reject(Code::DeviceMalformed, id_rule("device.kind", MAX_DEVICE_KIND_BYTES)));
    }
    let device = Arc::new(Device { id: fields.device.id.into_owned(), kind: fields.device.kind.into_owned() });
    let country = fields
        .country
        .map(|text| text.parse::<Country>())
        .transpose()
        .map_err(|error| reject(Code::CountryMalformed, format!("`country` {error}")))?;
    Ok(EdgeEvent {
        session_id,
        profile_id,
        title_id,
        event: Event {
            seq: u16::try_from(seq).map_err(|error| reject(Code::SeqOutOfRange, error.to_string()))?,
            kind,
            position_ms,
            played_ms,
            title_duration_ms,
            occurred_at,
            device,
            country,
        },
    })
}

fn id_rule(field: &str, max_bytes: usize) -> String {
    format!("`{field}` must be 1 to {max_bytes} letters, digits or _ - . : and begin with a letter or digit")
}

fn within(field: &str, code: Code, value: i64, min: u64, max: u64, max_name: &str) -> Result<u64, Rejection> {
    u64::try_from(value)
        .ok()
        .filter(|value| (min..=max).contains(value))
        .ok_or_else(|| reject(code, range_rule(field, value, min, max_name)))
}

fn range_rule(field: &str, value: impl std::fmt::Display, min: u64, max_name: &str) -> String {
    format!("`{field}` is {value}; it must be between {min} and {max_name}")
}

/// Finds the field that makes parsing fail. `None` when no rule here explains it.
fn diagnose(raw: &RawValue) -> Option<Rejection> {
    use serde_json::Value;
    let Ok(Value::Object(event)) = serde_json::from_str(raw.get()) else {
        return Some(reject(Code::NotAnObject, "an event must be a JSON object"));
    };
    let missing = |field: &str| reject(Code::FieldMissing, format!("`{field}` is required"));
    let wrong = |field: &str, expected: &str| reject(Code::FieldType, format!("`{field}` must be {expected}"));
    for field in ["session_id", "profile_id", "title_id", "kind"] {
        match event.get(field) {
            None | Some(Value::Null) => return Some(missing(field)),
            Some(Value::String(_)) => {}
            Some(_) => return Some(wrong(field, "a string")),
        }
    }
    // An integer that does not fit into an `i64` has the right type but is out of every range.
    let integers = [
        ("seq", Code::SeqOutOfRange, true),
        ("title_duration_ms", Code::TitleDurationOutOfRange, true),
        ("position_ms", Code::PositionOutOfRange, true),
        ("played_ms", Code::PlayedOutOfRange, false),
        ("occurred_at", Code::OccurredAtOutOfRange, true),
    ];
    for (field, out_of_range, required) in integers {
        match event.get(field) {
            None | Some(Value::Null) if required => return Some(missing(field)),
            None | Some(Value::Null) => {}
            Some(Value::Number(number)) if number.is_i64() => {}
            Some(Value::Number(number)) if number.as_f64().is_some_and(|value| value.fract() == 0.0) => {
                return Some(reject(
                    out_of_range,
                    format!("`{field}` is {number}; it must be an integer within its range"),
                ));
            }
            Some(_) => return Some(wrong(field, "an integer")),
        }
    }
    match event.get("device") {
        None | Some(Value::Null) => return Some(missing("device")),
        Some(Value::Object(device)) => {
            for field in ["id", "kind"] {
                match device.get(field) {
                    None | Some(Value::Null) => return Some(missing(&format!("device.{field}"))),
                    Some(Value::String(_)) => {}
                    Some(_) => return Some(wrong(&format!("device.{field}"), "a string")),
                }
            }
        }
        Some(_) => return Some(wrong("device", "an object with `id` and `kind`")),
    }
    match event.get("country") {
        None | Some(Value::Null | Value::String(_)) => None,
        Some(_) => Some(wrong("country", "a string")),
    }
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

    fn validated(event: &Value) -> Result<EdgeEvent, Rejection> {
        let raw = serde_json::value::to_raw_value(event).unwrap();
        validate(&raw, NOW, SessionWindow::default())
    }

    #[test]
    fn contract_example_is_valid() {
        let event = validated(&good()).unwrap();
        assert_eq!(event.session_id.to_string(), "use1-01M3250V3TW3KG5DD5CEVSMJCC");
        assert_eq!((event.event.seq, event.event.position_ms, event.event.played_ms), (1, 10_000, 10_000));
        assert_eq!(event.event.country.map(|c| c.to_string()).as_deref(), Some("US"));
    }

    #[test]
    fn optional_fields_have_defaults_and_unknown_ones_are_ignored() {
        let mut event = good();
        let fields = event.as_object_mut().unwrap();
        fields.remove("played_ms");
        fields.remove("country");
        fields.insert("bitrate".to_owned(), json!({"kbps": 4000}));
        let event = validated(&event).unwrap();
        assert_eq!((event.event.played_ms, event.event.country), (0, None));
    }

    /// Replaces the value at a JSON pointer (`null` removes the field), and expects this code and
    /// field name in the rejection.
    fn check(pointer: &str, value: Value, code: &str, names: &str) {
        let mut event = good();
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        let parent = event.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        if value.is_null() {
            parent.remove(field);
        } else {
            parent.insert(field.to_owned(), value.clone());
        }
        let rejection = validated(&event).expect_err(&format!("{pointer} = {value}"));
        assert_eq!(rejection.code.as_str(), code, "{pointer} = {value}: {}", rejection.message);
        assert!(rejection.message.contains(&format!("`{names}`")), "{pointer} = {value}: {}", rejection.message);
    }

    #[test]
    fn every_rule_has_its_code_and_names_its_field() {
        for field in [
            "session_id",
            "profile_id",
            "title_id",
            "seq",
            "kind",
            "position_ms",
            "title_duration_ms",
            "occurred_at",
            "device",
        ] {
            check(&format!("/{field}"), Value::Null, "field_missing", field);
            check(&format!("/{field}"), json!([1]), "field_type", field);
        }
        for field in ["id", "kind"] {
            check(&format!("/device/{field}"), Value::Null, "field_missing", &format!("device.{field}"));
            check(&format!("/device/{field}"), json!(7), "field_type", &format!("device.{field}"));
        }
        check("/seq", json!(1.5), "field_type", "seq");
        check("/seq", json!("1"), "field_type", "seq");
        check("/country", json!(49), "field_type", "country");
        check("/played_ms", json!("10"), "field_type", "played_ms");
        check("/session_id", json!("01M3250V3TW3KG5DD5CEVSMJCC"), "session_id_malformed", "session_id");
        check("/session_id", json!("use1-01J00000000000000000000000"), "session_too_old", "session_id");
        check("/session_id", json!("use1-01N00000000000000000000000"), "session_too_far_ahead", "session_id");
        check("/profile_id", json!(""), "profile_id_malformed", "profile_id");
        check("/profile_id", json!("a#b"), "profile_id_malformed", "profile_id");
        check("/profile_id", json!("p".repeat(65)), "profile_id_malformed", "profile_id");
        check("/title_id", json!("~t"), "title_id_malformed", "title_id");
        check("/seq", json!(-1), "seq_out_of_range", "seq");
        check("/seq", json!(65_536), "seq_out_of_range", "seq");
        check("/seq", json!(u64::MAX), "seq_out_of_range", "seq");
        check("/kind", json!("rewound"), "kind_unknown", "kind");
        check("/title_duration_ms", json!(0), "title_duration_out_of_range", "title_duration_ms");
        check(
            "/title_duration_ms",
            json!(MAX_TITLE_DURATION_MS + 1),
            "title_duration_out_of_range",
            "title_duration_ms",
        );
        check("/position_ms", json!(-1), "position_out_of_range", "position_ms");
        check("/position_ms", json!(2_700_001), "position_out_of_range", "position_ms");
        check("/position_ms", json!(1e300), "position_out_of_range", "position_ms");
        check("/played_ms", json!(10_001), "played_out_of_range", "played_ms");
        check("/played_ms", json!(-5), "played_out_of_range", "played_ms");
        check("/occurred_at", json!(-1), "occurred_at_out_of_range", "occurred_at");
        check("/occurred_at", json!(MAX_INSTANT + 1), "occurred_at_out_of_range", "occurred_at");
        check("/device/id", json!("a b"), "device_malformed", "device.id");
        check("/device/kind", json!("k".repeat(33)), "device_malformed", "device.kind");
        check("/country", json!("USA"), "country_malformed", "country");
        check("/country", json!("us"), "country_malformed", "country");
    }

    #[test]
    fn event_that_is_not_an_object_rejects_only_itself() {
        let body = br#"{"events":[7,null,"x",[{}]],"client":"new"}"#;
        let events = parse_request(body).unwrap();
        assert_eq!(events.len(), 4);
        for raw in events {
            assert_eq!(validate(raw, NOW, SessionWindow::default()).unwrap_err().code, Code::NotAnObject);
        }
    }

    #[test]
    fn malformed_body_is_refused_as_a_whole() {
        for body in ["", "[]", "{}", r#"{"events":{}}"#, r#"{"events":[}"#, r#"{"events":[]} x"#, "\u{feff}{}"] {
            assert!(matches!(parse_request(body.as_bytes()), Err(RequestError::Malformed(_))), "{body}");
        }
        let many = format!(r#"{{"events":[{}1]}}"#, "1,".repeat(MAX_EVENTS));
        assert!(matches!(parse_request(many.as_bytes()), Err(RequestError::TooManyEvents(501))));
    }

    #[test]
    fn session_window_includes_its_edges() {
        let window = SessionWindow { max_age_ms: 1000, max_ahead_ms: 500 };
        let at = |began: u64| {
            let mut event = good();
            let id = SessionId::mint("use1".parse().unwrap(), began, 7);
            event.as_object_mut().unwrap().insert("session_id".to_owned(), json!(id.to_string()));
            let raw = serde_json::value::to_raw_value(&event).unwrap();
            validate(&raw, NOW, window).err().map(|rejection| rejection.code)
        };
        assert_eq!(at(NOW - 1000), None);
        assert_eq!(at(NOW - 1001), Some(Code::SessionTooOld));
        assert_eq!(at(NOW + 500), None);
        assert_eq!(at(NOW + 501), Some(Code::SessionTooFarAhead));
    }

    #[test]
    fn codes_are_distinct() {
        let names: std::collections::BTreeSet<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(names.len(), Code::ALL.len());
    }
}
