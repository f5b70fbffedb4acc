//! The record of the feed: a CloudEvent in JSON, one per change. `docs/view-change.schema.json`
//! describes it.
//!
//! Attributes: CloudEvents 1.0, and its documented extensions `partitionkey` and `sequence`.

use playback::history::{Rules, ShownView};
use playback::view::View;
use serde::Serialize;
use serde_json::{Map, Value};
use std::time::{Duration, UNIX_EPOCH};
use store::dynamodb::{Change, Changed};
use ulid::Ulid;

/// The version of the records, part of `dataschema`. It grows only for what consumers must know of:
/// they ignore fields and types that they do not know.
const DATA_SCHEMA: &str = "urn:playhead:view-change:1";
/// DynamoDB's sequence numbers have up to 40 digits. Padded, they compare as text too.
const SEQUENCE_DIGITS: usize = 40;

/// A change as the feed carries it.
#[derive(Debug, Serialize)]
pub(crate) struct Event {
    specversion: &'static str,
    id: String,
    source: String,
    #[serde(rename = "type")]
    kind: &'static str,
    subject: String,
    time: String,
    datacontenttype: &'static str,
    dataschema: &'static str,
    /// The profile: all its changes are in order.
    pub(crate) partitionkey: String,
    sequence: String,
    data: Data,
}

#[derive(Debug, Default, Serialize)]
struct Data {
    profile_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_ulid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    title_id: Option<String>,
    #[serde(flatten)]
    what: Option<What>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum What {
    View {
        /// The fields that differ.
        changed: Vec<String>,
        old: Option<Value>,
        new: Value,
    },
    Hidden {
        hidden: bool,
    },
    UpTo {
        up_to: u64,
    },
    Watched {
        watched: bool,
        changed_at: u64,
    },
}

impl Event {
    /// The event of a change, as of `source`; `None` if the change tells consumers nothing.
    pub(crate) fn of(change: Change, source: &str, rules: &Rules) -> Option<Self> {
        let Change { id, sequence_number, at, profile_id, what } = change;
        let (kind, data) = describe(what, rules)?;
        let of = [data.session_id.as_ref().or(data.session_ulid.as_ref()), data.title_id.as_ref()];
        let subject = std::iter::once(&profile_id).chain(of.into_iter().flatten()).map(String::as_str);
        Some(Self {
            specversion: "1.0",
            id,
            source: source.to_owned(),
            kind,
            subject: subject.collect::<Vec<_>>().join("/"),
            time: humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(at)).to_string(),
            datacontenttype: "application/json",
            dataschema: DATA_SCHEMA,
            partitionkey: profile_id.clone(),
            sequence: format!("{sequence_number:0>SEQUENCE_DIGITS$}"),
            data: Data { profile_id, ..data },
        })
    }
}

fn describe(what: Changed, rules: &Rules) -> Option<(&'static str, Data)> {
    let session = |session: Ulid| Some(session.to_string());
    Some(match what {
        Changed::View { session_id, old, new, .. } => {
            let title_id = new.as_ref().or(old.as_ref())?.title_id.clone();
            let ids = Data {
                session_ulid: session(session_id.ulid),
                session_id: Some(session_id.to_string()),
                title_id: Some(title_id),
                ..Data::default()
            };
            match new {
                // Without the old view: who was told of an erasure must not learn what was erased.
                None => ("playhead.view.erased", ids),
                Some(new) => {
                    let (old, new) = (old.map(|old| shown(&old, rules)), shown(&new, rules));
                    let changed = differing(old.as_ref(), &new);
                    let (old, new) = (old.map(Value::Object), Value::Object(new));
                    ("playhead.view.changed", Data { what: Some(What::View { changed, old, new }), ..ids })
                }
            }
        }
        Changed::Hidden { session: of, hidden } => {
            let what = Some(What::Hidden { hidden });
            ("playhead.session.hidden", Data { session_ulid: session(of), what, ..Data::default() })
        }
        Changed::SessionForgotten { session: of, title_id } => {
            ("playhead.session.forgotten", Data { session_ulid: session(of), title_id, ..Data::default() })
        }
        Changed::TitleForgotten { title_id, up_to } => {
            let what = Some(What::UpTo { up_to });
            ("playhead.title.forgotten", Data { title_id: Some(title_id), what, ..Data::default() })
        }
        Changed::Watched { title_id, watched, changed_at } => {
            let what = Some(What::Watched { watched, changed_at });
            ("playhead.title.watched", Data { title_id: Some(title_id), what, ..Data::default() })
        }
        Changed::Erased { up_to } => {
            ("playhead.history.erased", Data { what: Some(What::UpTo { up_to }), ..Data::default() })
        }
        Changed::Nothing => return None,
    })
}

fn shown(view: &View, rules: &Rules) -> Map<String, Value> {
    match serde_json::to_value(ShownView::of(view, rules)) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(), // numbers and text only, so it is always an object
    }
}

fn differing(old: Option<&Map<String, Value>>, new: &Map<String, Value>) -> Vec<String> {
    let differs = |(name, value): &(&String, &Value)| old.is_none_or(|old| old.get(*name) != Some(value));
    new.iter().filter(differs).map(|(name, _)| name.clone()).collect()
}
