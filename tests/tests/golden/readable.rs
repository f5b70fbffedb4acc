//! Packed data as JSON that a person can review.

use playback::contract::Event;
use playback::envelope::Envelope;
use playback::fold::ViewKey;
use playback::history::Rules;
use playback::ranges::RangeSet;
use playback::view::{Sequence, Statement, View};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A record on the log.
pub(crate) fn envelope(envelope: &Envelope) -> Value {
    let trace_id = envelope.stamp.trace_id.map(|id| format!("{:032x}", u128::from_be_bytes(id)));
    json!({
        "session_id": envelope.session_id.to_string(),
        "profile_id": envelope.profile_id,
        "title_id": envelope.title_id,
        "received_at": envelope.stamp.received_at,
        "sent_at": envelope.stamp.sent_at,
        "ingest_region": envelope.stamp.ingest_region,
        "trace_id": trace_id,
        "events": envelope.events.iter().map(event).collect::<Vec<_>>(),
    })
}

fn event(event: &Event) -> Value {
    json!({
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

/// A stored view: the fields of DESIGN's join, and what a member sees of them. Ranges are half
/// open.
pub(crate) fn view(key: &ViewKey, view: &View) -> Value {
    json!({
        "profile_id": key.profile_id,
        "session_id": key.session_id.to_string(),
        "title_id": key.title_id,
        "seen": ranges(&view.seen),
        "played": ranges(&view.played),
        "first": {
            "seq": view.first.seq,
            "received_at": view.first.received_at,
            "watched_at": view.first.watched_at,
            "position_ms": view.first.position_ms,
            "country": view.first.country.map(|country| country.to_string()),
        },
        "latest": {
            "seq": view.latest.seq,
            "received_at": view.latest.received_at,
            "watched_at": view.latest.watched_at,
            "position_ms": view.latest.position_ms,
            "kind": view.latest.kind.as_str(),
            "device": {"id": view.latest.device.id, "kind": view.latest.device.kind},
        },
        "duration": view.duration.map(statement),
        "credits": view.credits.map(statement),
        "events": view.events(),
        "missing": Sequence::of([view]).missing(),
        "played_ms": view.played_ms(),
        "completed": Rules::default().is_finished(view),
    })
}

fn statement(statement: Statement) -> Value {
    json!({"seq": statement.seq, "received_at": statement.received_at, "ms": statement.ms})
}

fn ranges(set: &RangeSet) -> Vec<String> {
    set.ranges().iter().map(|range| format!("{}..{}", range.start, range.end)).collect()
}

/// What an invocation counted, from its EMF lines: `Name` or `Name[dimension]`, and how often.
pub(crate) fn counts(lines: &str) -> Value {
    let mut counts = BTreeMap::<String, u64>::new();
    for (_, label, n) in counted(lines) {
        *counts.entry(label).or_default() += n;
    }
    json!(counts)
}

/// The part of that which it counted at another time than `now`: by minute of acceptance.
pub(crate) fn books(lines: &str, now: u64) -> Value {
    let mut books = BTreeMap::<u64, BTreeMap<String, u64>>::new();
    for (at, label, n) in counted(lines).filter(|(at, ..)| *at != now) {
        *books.entry(at).or_default().entry(label).or_default() += n;
    }
    json!(books)
}

fn counted(lines: &str) -> impl Iterator<Item = (u64, String, u64)> {
    lines.lines().flat_map(|line| {
        let document: Value = serde_json::from_str(line).unwrap();
        let third = document.get("Code").or_else(|| document.get("Reason")).and_then(Value::as_str);
        let label = |name: &str| third.map_or_else(|| name.to_owned(), |third| format!("{name}[{third}]"));
        let at = document["_aws"]["Timestamp"].as_u64().unwrap();
        let names = document["_aws"]["CloudWatchMetrics"][0]["Metrics"].as_array().unwrap().iter();
        let names = names.map(|metric| metric["Name"].as_str().unwrap());
        names.map(|name| (at, label(name), document[name].as_u64().unwrap())).collect::<Vec<_>>()
    })
}
