//! Input for the paths: always the same bytes, in the forms that players and Lambda send.

use anyhow::Result;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use playback::edge::{BodyText, SessionWindow, parse_request, validate};
use playback::envelope::{Envelope, Stamp, group};
use playback::session::SessionId;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ops::Range;

/// The server's clock, Unix milliseconds.
pub(crate) const NOW: u64 = 1_790_000_010_200;
const STARTED_AT: u64 = NOW - 3_600_000;
const TITLE_DURATION_MS: u64 = 10_800_000;
/// The partitions that a batch has records of.
const PARTITIONS: usize = 4;

/// What `ingest` adds to every request.
pub(crate) fn stamp(sent_at: Option<u64>) -> Stamp {
    Stamp { received_at: NOW, sent_at, ingest_region: "us-east-1".to_owned(), trace_id: Some([7; 16]), shadow: false }
}

/// The body of a POST with these events of one viewing, as JSON of some 300 bytes each.
pub(crate) fn body(viewing: u64, seqs: Range<u64>) -> Result<String> {
    join(seqs.map(|seq| event(viewing, seq)).collect::<Result<_>>()?)
}

/// The body of a POST from a device that was offline: as many events of each of these viewings.
pub(crate) fn backlog(viewings: Range<u64>, events: u64) -> Result<String> {
    let events = viewings.flat_map(|viewing| (0..events).map(move |seq| event(viewing, seq)));
    join(events.collect::<Result<_>>()?)
}

fn join(events: Vec<String>) -> Result<String> {
    Ok(format!(r#"{{"sent_at":{},"events":[{}]}}"#, NOW - 180, events.join(",")))
}

/// One event. A viewer pauses and seeks once in 20 events.
fn event(viewing: u64, seq: u64) -> Result<String> {
    let random = u128::from(viewing + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    let session_id = SessionId::mint("use1".parse()?, STARTED_AT, random);
    let (kind, played_ms) = match seq % 20 {
        0 if seq == 0 => ("started", 0),
        0 => ("seeked", 0),
        10 => ("paused", 10_000),
        11 => ("resumed", 0),
        _ => ("progressed", 10_000),
    };
    let position_ms = seq * 10_000 + seq / 20 * 300_000;
    let occurred_at = STARTED_AT + seq * 10_000;
    Ok(format!(
        r#"{{"session_id":"{session_id}","profile_id":"p{:08}","title_id":"t{:06}","seq":{seq},"kind":"{kind}","position_ms":{position_ms},"played_ms":{played_ms},"title_duration_ms":{TITLE_DURATION_MS},"occurred_at":{occurred_at},"device":{{"id":"d{:08}","kind":"tablet"}},"country":"US"}}"#,
        viewing / 5,
        viewing % 500,
        viewing / 5,
    ))
}

/// The envelopes of a POST.
pub(crate) fn envelopes(body: &str) -> Result<Vec<Envelope>> {
    let body = BodyText::new(body.as_bytes());
    let request = parse_request(&body)?;
    let stamp = stamp(request.sent_at);
    let valid = request.events.into_iter().map(|raw| validate(raw, NOW, SessionWindow::default()));
    let events = valid.map(|valid| Ok(valid?.event)).collect::<Result<_>>()?;
    Ok(group(events, &stamp))
}

/// The envelopes of `posts` POSTs, each of another viewing, alternately of one event and of two.
pub(crate) fn short_posts(posts: u64) -> Result<Vec<Envelope>> {
    let all = (0..posts).map(|viewing| envelopes(&body(viewing, 0..1 + viewing % 2)?));
    Ok(all.collect::<Result<Vec<_>>>()?.concat())
}

/// The envelopes of two POSTs of six events for each of these viewings. As on a log, all first ones
/// come before the second ones.
pub(crate) fn long_posts(viewings: u64) -> Result<Vec<Envelope>> {
    let posts = [0..6, 6..12].into_iter().flat_map(|seqs| (0..viewings).map(move |viewing| (viewing, seqs.clone())));
    let all = posts.map(|(viewing, seqs)| envelopes(&body(viewing, seqs)?));
    Ok(all.collect::<Result<Vec<_>>>()?.concat())
}

/// The event with which Lambda hands these envelopes to `process`, from Amazon MSK.
pub(crate) fn msk_event(envelopes: &[Envelope]) -> String {
    let mut records: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for (index, envelope) in envelopes.iter().enumerate() {
        let partition = index % PARTITIONS;
        records.entry(format!("playback-events-{partition}")).or_default().push(json!({
            "topic": "playback-events",
            "partition": partition,
            "offset": 81_234_000 + index / PARTITIONS,
            "timestamp": NOW,
            "timestampType": "CREATE_TIME",
            "key": BASE64_STANDARD.encode(envelope.session_id.to_string()),
            "value": BASE64_STANDARD.encode(envelope.encode()),
            "headers": [],
        }));
    }
    let event = json!({
        "eventSource": "aws:kafka",
        "eventSourceArn":
            "arn:aws:kafka:us-east-1:000000000000:cluster/playhead/00000000-0000-4000-8000-000000000000-1",
        "bootstrapServers": "b-1.playhead.kafka.us-east-1.amazonaws.com:9098",
        "records": records,
    });
    event.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_as_large_as_those_of_players() {
        for events in [1, 50, 500] {
            let each = body(0, 0..events).unwrap().len() as u64 / events;
            assert!((270..=330).contains(&each), "{each} bytes for each of {events} events");
        }
    }
}
