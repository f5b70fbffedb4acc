//! `playhead dlq show`: everything about one letter.

use super::letter::{Found, LetterBody};
use super::list::{source, when};
use super::queue::{DeadLetterQueue, Look};
use anyhow::{Result, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use playback::envelope::Envelope;
use playback::proto;
use prost::Message as _;
use serde_json::{Value, json};
use std::fmt::Write as _;

/// The letter with this id, or the only one whose id begins with it.
///
/// # Errors
/// If there is none, or several, or a call to SQS fails.
pub(super) async fn find(queue: &mut DeadLetterQueue, id: &str) -> Result<Found> {
    let mut matching: Vec<Found> = Vec::new();
    let end = loop {
        match queue.next().await? {
            Look::Found(messages) => {
                for found in messages.into_iter().map(Found::of) {
                    if found.id == id {
                        return Ok(found);
                    }
                    // Two are enough to know that the id is ambiguous.
                    if found.id.starts_with(id) && matching.len() < 2 {
                        matching.push(found);
                    }
                }
            }
            end => break end,
        }
    };
    match (matching.len(), end) {
        (1, Look::End) => Ok(matching.remove(0)),
        (2, _) => bail!("several letters have an id that begins with {id}"),
        (_, Look::Interrupted) => bail!("interrupted before {id} was found"),
        (_, Look::Full) => bail!("{id} is not among the first {} letters", super::queue::MOST_HELD),
        _ => bail!(
            "no letter with the id {id} is visible; a letter that another command is reading shows up again when that command ends"
        ),
    }
}

/// The letter as JSON.
pub(super) fn as_json(found: &Found) -> Value {
    let message: Value = match &found.content {
        LetterBody::Dead(_) | LetterBody::Letter(_) | LetterBody::Notification => {
            serde_json::from_str(&found.body).unwrap_or_default()
        }
        LetterBody::Envelopes(_) | LetterBody::Unknown => json!(found.body),
    };
    json!({
        "id": found.id,
        "reason": found.reason(),
        "sent_at": found.sent_at,
        "dead_at": found.dead_at(),
        "moved_from": found.moved_from,
        "message": message,
        "records": found.records().iter().map(|record| decode(record)).collect::<Vec<_>>(),
    })
}

/// A record as JSON, as it is on the log: a field that an event does not have is that of the
/// previous event. A record that is not an envelope, as base64.
fn decode(record: &[u8]) -> Value {
    let fault = Envelope::decode(record).err().map(|fault| fault.to_string());
    let envelope = match proto::Envelope::decode(record) {
        Ok(envelope) if envelope.schema_version > 0 => envelope,
        _ => return json!({"fault": fault, "bytes": record.len(), "base64": BASE64_STANDARD.encode(record)}),
    };
    let trace_id: String = envelope.trace_id.iter().map(|byte| format!("{byte:02x}")).collect();
    json!({
        "fault": fault,
        "bytes": record.len(),
        "schema_version": envelope.schema_version,
        "session_id": envelope.session_id,
        "profile_id": envelope.profile_id,
        "title_id": envelope.title_id,
        "received_at": envelope.received_at,
        "sent_at": envelope.sent_at,
        "ingest_region": envelope.ingest_region,
        "trace_id": trace_id,
        "events": envelope.events.iter().map(event).collect::<Vec<_>>(),
    })
}

fn event(event: &proto::Event) -> Value {
    let kind = proto::Kind::try_from(event.kind)
        .map_or_else(|_| event.kind.to_string(), |kind| kind.as_str_name().to_lowercase());
    let mut fields = json!({
        "seq": event.seq,
        "kind": kind,
        "position_ms": event.position_ms,
        "played_ms": event.played_ms,
        "occurred_at": event.occurred_at,
    });
    let changed = [
        ("title_duration_ms", event.title_duration_ms.map(Value::from)),
        ("device_id", event.device_id.clone().map(Value::from)),
        ("device_kind", event.device_kind.clone().map(Value::from)),
        ("country", event.country.clone().map(Value::from)),
        ("credits_ms", event.credits_ms.map(Value::from)),
        ("stated_duration_ms", event.stated_duration_ms.map(Value::from)),
        ("exact_position_ms", event.exact_position_ms.map(Value::from)),
        ("exact_device_id", event.exact_device_id.clone().map(Value::from)),
    ];
    for (name, value) in changed {
        if let Some(value) = value {
            fields[name] = value;
        }
    }
    fields
}

/// The letter as text. `now` is in Unix milliseconds.
pub(super) fn text(found: &Found, now: u64) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name:<12} {value}");
    };
    line("id", &found.id);
    line("reason", found.reason());
    match &found.content {
        LetterBody::Dead(dead) => line("detail", &dead.detail),
        LetterBody::Letter(_) => line("detail", "SQS moved it here from the queue retry"),
        LetterBody::Notification => line("detail", "a notification from S3 that SQS moved here from the queue retry"),
        LetterBody::Envelopes(_) => line("detail", "SQS moved it here from the queue inbound"),
        LetterBody::Unknown => {
            line("detail", "neither a letter nor a message of one of our queues: it cannot be redriven")
        }
    }
    line("died", &when(found.dead_at(), now));
    line("source", &source(found));
    if let Some(letter) = found.letter() {
        line("attempts", &letter.attempts.to_string());
        for (name, error) in [("first error", &letter.first_error), ("last error", &letter.last_error)] {
            if let Some(error) = error {
                line(name, &format!("{}, {}: {}", when(error.at, now), error.cause, error.detail));
            }
        }
        for death in &letter.redrives {
            let (died, attempts) = (when(death.dead_at, now), death.attempts);
            let redriven = when(death.redriven_at, now);
            line("redriven", &format!("{redriven}; died {died} of {} after {attempts} attempts", death.reason));
        }
    }
    for record in found.records() {
        let _ = writeln!(text, "\n{:#}", decode(&record));
    }
    if found.records().is_empty() {
        let _ = writeln!(text, "\n{}", found.body);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::testing::{dead, envelope, found};
    use super::*;

    #[test]
    fn letter_shows_its_history_and_content() {
        let mut dead = dead("invalid_envelope", 0);
        dead.letter.attempts = 16;
        dead.letter.last_error = Some(apply::Failure { cause: "lost_races".into(), detail: "again".into(), at: 0 });
        dead.letter.redrives =
            vec![apply::Redrive { reason: "corrupt_view".into(), attempts: 2, events: 1, dead_at: 0, redriven_at: 0 }];
        let found = found(&serde_json::to_string(&dead).unwrap());
        let shown = text(&found, 60_000);
        for part in
            ["invalid_envelope", "title_id", "lost_races: again", "of corrupt_view after 2 attempts", "\"seq\": 3"]
        {
            assert!(shown.contains(part), "{part} is not in {shown}");
        }
        let json = as_json(&found);
        assert_eq!(json["message"]["attempts"], 16);
        assert_eq!(json["records"][0]["events"][0]["kind"], "progressed");
        assert_eq!(json["records"][0]["fault"], Value::Null);
    }

    #[test]
    fn record_is_decoded_as_far_as_possible() {
        let newer = [envelope(), vec![0x08, 99]].concat(); // the later schema_version counts
        assert_eq!(decode(&newer)["schema_version"], 99);
        assert!(decode(&newer)["fault"].as_str().unwrap().starts_with("unknown_schema_version"));
        assert_eq!(decode(b"\xff\xfe")["base64"], "//4=");
    }
}
