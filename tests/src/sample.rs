//! Events, envelopes and plans to start from. A test overrides the fields that matter to it.

use std::io::Write as _;
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use playback::contract::{Device, Event, Kind};
use playback::envelope::{Envelope, Stamp};
use playback::session::SessionId;
use simulate::plan::Plan;

/// The duration of the title that is watched.
pub const TITLE_DURATION_MS: u64 = 100_000;

/// A later field of a protobuf message overrides an earlier one: appended to an envelope, this says
/// `title_id` "a,b", which is no id.
const TITLE_OF_TWO: [u8; 5] = [0x22, 3, b'a', b',', b'b'];

/// An event one second into the title, on a TV.
#[must_use]
pub fn event(seq: u16, occurred_at: u64) -> Event {
    Event {
        seq,
        kind: Kind::Progressed,
        position_ms: 1_000,
        played_ms: 1_000,
        title_duration_ms: Some(TITLE_DURATION_MS),
        credits_ms: None,
        occurred_at: Some(occurred_at),
        device: Arc::new(Device { id: Some("d1".to_owned()), kind: Some("tv".to_owned()) }),
        country: None,
    }
}

/// An envelope that `ingest` in us-east-1 made of these events.
#[must_use]
pub fn envelope(
    session_id: SessionId,
    profile_id: &str,
    title_id: &str,
    received_at: u64,
    events: Vec<Event>,
) -> Envelope {
    Envelope {
        session_id,
        profile_id: profile_id.to_owned(),
        title_id: title_id.to_owned(),
        stamp: stamp(received_at),
        events,
    }
}

/// What `ingest` in us-east-1 stamps on envelopes.
#[must_use]
pub fn stamp(received_at: u64) -> Stamp {
    Stamp { received_at, sent_at: None, ingest_region: "us-east-1".to_owned(), trace_id: None, shadow: false }
}

/// Gives the profiles of a plan new names, so that no other plan shares them.
pub fn rename_profiles(plan: &mut Plan, prefix: &str) {
    for post in &mut plan.posts {
        let new = format!("{prefix}-{}", post.profile_id);
        for planned in &mut post.events {
            // A malformed event may name no profile, or one that is not an id.
            if planned.event.profile_id.as_ref() == Some(&post.profile_id) {
                planned.event.profile_id = Some(new.clone());
            }
        }
        post.profile_id = new;
    }
}

/// The same record with a title that breaks the contract.
#[must_use]
pub fn invalid(record: &[u8]) -> Vec<u8> {
    [record, &TITLE_OF_TWO].concat()
}

/// Compressed bytes, always the same: no name and no time in the header.
///
/// # Errors
/// Never in practice: it writes to memory.
pub fn gzip(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes)?;
    encoder.finish()
}
