//! Maps a legacy system's answers to the fields that are compared.
//!
//! The mapping is a JSON document. For a system that returns one session:
//!
//! ```json
//! {"fields": {"title_id":    {"pointer": "/movie/id"},
//!             "position_ms": {"pointer": "/progress/resume_at_seconds", "scale": 1000},
//!             "completed":   {"pointer": "/progress/finished", "default": false}}}
//! ```
//!
//! - `fields`: from our names ([`Field`]) to the place of the value. Fields that are not named are
//!   not compared.
//! - `pointer`: a JSON pointer (RFC 6901) from the session's object.
//! - `scale`: multiplies a number to convert it to our unit, milliseconds: 1000 for seconds. The
//!   product is rounded.
//! - `default`: the value, in our unit, if the place is empty or `null`. Without a default the
//!   field is absent, which matches only if ours is absent too.
//!
//! For a system that returns all sessions of a profile, also set two pointers: `sessions` from the
//! answer to the list, and `session_id` from a session's object to our session id. Entries without
//! one of our ids are skipped: they never came here.

use crate::session::{Field, Session, Value};
use playback::session::SessionId;
use serde::Deserialize;
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::str::FromStr;

/// Where a legacy system's answer holds which field.
#[derive(Debug, Clone, PartialEq)]
pub struct Mapping {
    fields: BTreeMap<Field, Source>,
    list: Option<ListPointers>,
}

#[derive(Debug, Clone, PartialEq)]
struct ListPointers {
    sessions: String,
    session_id: String,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Source {
    pointer: String,
    #[serde(default)]
    scale: Option<f64>,
    #[serde(default)]
    default: Json,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    fields: BTreeMap<Field, Source>,
    #[serde(default)]
    sessions: Option<String>,
    #[serde(default)]
    session_id: Option<String>,
}

/// Why a mapping is invalid.
#[derive(Debug, thiserror::Error)]
pub enum MalformedMapping {
    /// Not JSON of this form.
    #[error("must be a JSON object with an object `fields`: {0}")]
    Malformed(#[from] serde_json::Error),
    /// No fields, so nothing would be compared.
    #[error("`fields` is empty: name at least one field")]
    Empty,
    /// Not a JSON pointer.
    #[error("`{0}` must be a JSON pointer: empty, or starting with a slash")]
    Pointer(String),
    /// Only one of the two pointers that a list needs.
    #[error("`sessions` and `session_id` go together: set both or neither")]
    HalfAList,
    /// An invalid scale, or a scale for a field that is not a number.
    #[error("`fields.{}.scale` must be a number above 0, and only numeric fields can have one", .0.as_str())]
    Scale(Field),
}

/// Why an answer does not fit the mapping.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unmapped {
    /// A session is not an object.
    #[error("a session is not a JSON object")]
    NotAnObject,
    /// There is no list.
    #[error("there is no list at the pointer `sessions`")]
    NoList,
    /// No mapped field is in the object. More likely an answer of another form than an empty
    /// session.
    #[error("a session has none of the mapped fields")]
    NoFields,
}

impl FromStr for Mapping {
    type Err = MalformedMapping;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let document: Document = serde_json::from_str(text)?;
        if document.fields.is_empty() {
            return Err(MalformedMapping::Empty);
        }
        let list = match (document.sessions, document.session_id) {
            (Some(sessions), Some(session_id)) => Some(ListPointers { sessions, session_id }),
            (None, None) => None,
            _ => return Err(MalformedMapping::HalfAList),
        };
        let of_list = list
            .iter()
            .flat_map(|list| [("sessions".to_owned(), &list.sessions), ("session_id".to_owned(), &list.session_id)]);
        let of_fields = document
            .fields
            .iter()
            .map(|(field, source)| (format!("fields.{}.pointer", field.as_str()), &source.pointer));
        for (name, pointer) in of_list.chain(of_fields) {
            if !pointer.is_empty() && !pointer.starts_with('/') {
                return Err(MalformedMapping::Pointer(name));
            }
        }
        for (field, source) in &document.fields {
            if source.scale.is_some_and(|scale| !field.is_number() || !scale.is_finite() || scale <= 0.0) {
                return Err(MalformedMapping::Scale(*field));
            }
        }
        Ok(Self { fields: document.fields, list })
    }
}

impl Mapping {
    /// Whether it can read a list of sessions.
    pub fn reads_lists(&self) -> bool {
        self.list.is_some()
    }

    /// Reads a session's object.
    ///
    /// # Errors
    /// When it is not an object, or has none of the mapped fields.
    pub fn session(&self, object: &Json) -> Result<Session, Unmapped> {
        if !object.is_object() {
            return Err(Unmapped::NotAnObject);
        }
        let found = |source: &Source| object.pointer(&source.pointer).filter(|value| !value.is_null()).cloned();
        if self.fields.values().all(|source| found(source).is_none()) {
            return Err(Unmapped::NoFields);
        }
        let value = |source: &Source| match found(source) {
            Some(value) => read(&value, source.scale.unwrap_or(1.0)),
            None => read(&source.default, 1.0),
        };
        Ok(self.fields.iter().map(|(field, source)| (*field, value(source))).collect())
    }

    /// Reads an answer that lists a profile's sessions.
    ///
    /// # Errors
    /// When there is no list, or one of our sessions in it cannot be read.
    pub fn sessions(&self, answer: &Json) -> Result<Vec<(SessionId, Session)>, Unmapped> {
        let list = self.list.as_ref().ok_or(Unmapped::NoList)?;
        let objects = answer.pointer(&list.sessions).and_then(Json::as_array).ok_or(Unmapped::NoList)?;
        let ours = objects.iter().filter_map(|object| {
            let id = object.pointer(&list.session_id)?.as_str()?.parse().ok()?;
            Some((id, object))
        });
        ours.map(|(id, object)| Ok((id, self.session(object)?))).collect()
    }
}

fn read(value: &Json, scale: f64) -> Value {
    match value {
        Json::Null => Value::Absent,
        Json::Bool(flag) => Value::Flag(*flag),
        // Keep whole numbers exact if there is no scale. A product that is too large becomes the
        // maximum.
        Json::Number(number) => match number.as_i64() {
            Some(number) if scale == 1.0 => Value::Number(number),
            _ => Value::Number((number.as_f64().unwrap_or(f64::MAX) * scale).round() as i64),
        },
        Json::String(text) => Value::Text(text.clone()),
        // None of our fields is a list or an object. As text it differs, and an example shows why.
        Json::Array(_) | Json::Object(_) => Value::Text(value.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn mapping(document: Json) -> Mapping {
        document.to_string().parse().unwrap()
    }

    fn example() -> Mapping {
        mapping(json!({
            "sessions": "/viewings", "session_id": "/viewing",
            "fields": {
                "title_id": {"pointer": "/movie/id"},
                "position_ms": {"pointer": "/progress/resume", "scale": 1000},
                "started_at": {"pointer": "/first", "scale": 1000},
                "completed": {"pointer": "/progress/finished", "default": false},
                "missing": {"pointer": "/missing", "default": 0},
                "country": {"pointer": "/country"},
            },
        }))
    }

    #[test]
    fn answers_are_mapped_to_our_fields() {
        let answer =
            json!({"movie": {"id": "t1"}, "progress": {"resume": 12.345}, "first": 1_790_000_010.122, "country": null});
        let expected = [
            (Field::TitleId, Value::Text("t1".to_owned())),
            (Field::PositionMs, Value::Number(12_345)),
            (Field::StartedAt, Value::Number(1_790_000_010_122)),
            (Field::Completed, Value::Flag(false)),
            (Field::Missing, Value::Number(0)),
            (Field::Country, Value::Absent),
        ];
        assert_eq!(example().session(&answer), Ok(expected.into_iter().collect()));
    }

    #[test]
    fn a_list_keeps_only_sessions_with_our_ids() {
        let id = "use1-01M3250V3TW3KG5DD5CEVSMJCC";
        let one = |id: &str| json!({"viewing": id, "movie": {"id": "t1"}});
        let answer = json!({"viewings": [one(id), one("4711"), {"movie": {"id": "t1"}}]});
        let found = example().sessions(&answer).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].0.to_string(), found[0].1.get(Field::TitleId)),
            (id.to_owned(), Some(&Value::Text("t1".to_owned())))
        );
        assert_eq!(example().sessions(&json!({"viewings": []})), Ok(vec![]));
    }

    #[test]
    fn answers_that_do_not_fit_the_mapping_are_errors() {
        assert_eq!(example().session(&json!([])), Err(Unmapped::NotAnObject));
        assert_eq!(example().session(&json!({"error": "no such viewing"})), Err(Unmapped::NoFields));
        assert_eq!(example().sessions(&json!({"error": "no such viewer"})), Err(Unmapped::NoList));
        let of_another_type = example().session(&json!({"movie": {"id": [1]}, "country": 7})).unwrap();
        assert_eq!(of_another_type.get(Field::TitleId), Some(&Value::Text("[1]".to_owned())));
        assert_eq!(of_another_type.get(Field::Country), Some(&Value::Number(7)));
    }

    #[test]
    fn an_invalid_mapping_names_its_field() {
        let check = |document: Json, expected: &str| {
            let error = document.to_string().parse::<Mapping>().unwrap_err().to_string();
            assert!(error.contains(expected), "{document}: {error}");
        };
        check(json!([]), "`fields`");
        check(json!({"fields": {}}), "empty");
        check(json!({"fields": {"position": {"pointer": "/p"}}}), "position");
        check(json!({"fields": {"position_ms": {"pointer": "p"}}}), "`fields.position_ms.pointer`");
        check(json!({"fields": {"position_ms": {"pointer": "/p", "scale": 0}}}), "`fields.position_ms.scale`");
        check(json!({"fields": {"title_id": {"pointer": "/p", "scale": 2}}}), "`fields.title_id.scale`");
        check(json!({"fields": {"title_id": {"pointer": "/p", "factor": 2}}}), "factor");
        check(json!({"fields": {"title_id": {"pointer": "/p"}}, "sessions": "/s"}), "go together");
        check(json!({"fields": {"title_id": {"pointer": "/p"}}, "sessions": "s", "session_id": "/i"}), "`sessions`");
    }

    proptest! {
        /// Times in seconds with decimals convert back to the exact millisecond.
        #[test]
        fn seconds_convert_to_exact_milliseconds(ms in 0i64..=253_402_300_799_999) {
            let answer: Json = serde_json::from_str(&json!({"first": ms as f64 / 1000.0}).to_string()).unwrap();
            let session = example().session(&answer).unwrap();
            prop_assert_eq!(session.get(Field::StartedAt), Some(&Value::Number(ms)));
        }

        #[test]
        fn reading_any_number_never_panics(number in any::<f64>(), scale in 0.001f64..1e300) {
            read(&json!(number), scale);
        }
    }
}
