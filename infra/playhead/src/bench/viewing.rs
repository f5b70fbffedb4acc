//! Members who watch: each viewing goes on from batch to batch, with growing sequence numbers and
//! positions, so that views grow as in production.
//!
//! A player reports every ten seconds. One report in twenty is a pause, one a seek: a view then has
//! a few ranges, as they have in practice.

use anyhow::Result;
use playback::contract::{Device, Event, Kind};
use playback::envelope::{Envelope, Stamp};
use playback::session::SessionId;
use rand::RngExt as _;
use rand::rngs::StdRng;
use simulate::event::EdgeEvent;
use std::borrow::Cow;
use std::sync::Arc;

const TICK_MS: u64 = 10_000;
/// How long before now a viewing begins: the longest title. No event is in the future.
const BEGAN_BEFORE_MS: u64 = 3 * 3_600 * 1_000;
const DEVICE_KINDS: [&str; 6] = ["tv", "phone", "tablet", "web", "console", "set_top_box"];
const COUNTRIES: [&str; 10] = ["US", "CA", "BR", "MX", "GB", "DE", "FR", "IN", "JP", "AU"];

/// One member who watches one title.
#[derive(Debug, Clone)]
pub(super) struct Viewing {
    session_id: SessionId,
    profile_id: String,
    title_id: String,
    device: Arc<Device>,
    country: &'static str,
    duration_ms: u64,
    position_ms: u64,
    seq: u16,
    is_paused: bool,
}

impl Viewing {
    /// A new one of a random member.
    pub(super) fn begin(rng: &mut StdRng, now: u64) -> Result<Self> {
        let profile_id = format!("p{:08}", rng.random_range(0..100_000_000));
        Self::of(profile_id, rng, now)
    }

    /// A new one of this member.
    pub(super) fn of(profile_id: String, rng: &mut StdRng, now: u64) -> Result<Self> {
        let started_at = now - BEGAN_BEFORE_MS + rng.random_range(0..60_000);
        let minutes = match rng.random_range(0..10) {
            0..7 => rng.random_range(20..=50), // episodes
            _ => rng.random_range(80..=130),   // films
        };
        let kind = DEVICE_KINDS[rng.random_range(0..DEVICE_KINDS.len())];
        let device = Device { id: Some(format!("d{:08}", rng.random_range(0..100_000_000))), kind: Some(kind.into()) };
        Ok(Self {
            session_id: SessionId::mint("use1".parse()?, started_at, rng.random()),
            profile_id,
            title_id: format!("t{:06}", rng.random_range(1..=5_000)),
            device: Arc::new(device),
            country: COUNTRIES[rng.random_range(0..COUNTRIES.len())],
            duration_ms: minutes * 60_000 + rng.random_range(0..60_000),
            position_ms: 0,
            seq: 0,
            is_paused: false,
        })
    }

    /// Whether the title was played to its end.
    pub(super) fn is_over(&self) -> bool {
        self.position_ms >= self.duration_ms
    }

    /// Begins the title again, in the same session.
    pub(super) fn rewind(&mut self) {
        self.position_ms = 0;
    }

    /// The next event of the player.
    pub(super) fn next(&mut self, rng: &mut StdRng) -> Result<Event> {
        let mut played_ms = 0;
        let kind = match rng.random_range(0..20) {
            _ if self.seq == 0 => Kind::Started,
            _ if self.is_paused => Kind::Resumed,
            0 => {
                self.position_ms = rng.random_range(0..self.duration_ms);
                Kind::Seeked
            }
            chance => {
                played_ms = TICK_MS.min(self.duration_ms - self.position_ms);
                self.position_ms += played_ms;
                match chance {
                    _ if self.is_over() => Kind::Stopped,
                    1 => Kind::Paused,
                    _ => Kind::Progressed,
                }
            }
        };
        self.is_paused = kind == Kind::Paused;
        let event = Event {
            seq: self.seq,
            kind,
            position_ms: self.position_ms,
            played_ms,
            title_duration_ms: Some(self.duration_ms),
            credits_ms: None,
            occurred_at: Some(self.session_id.started_at() + u64::from(self.seq) * TICK_MS),
            device: Arc::clone(&self.device),
            country: Some(self.country.parse()?),
        };
        self.seq = self.seq.saturating_add(1);
        Ok(event)
    }

    /// The session.
    pub(super) fn session_id(&self) -> &SessionId {
        &self.session_id
    }

    /// Events as `ingest` appends them to the log.
    pub(super) fn envelope(&self, events: Vec<Event>, received_at: u64) -> Envelope {
        let (ingest_region, sent_at) = (local::DEFAULT_REGION.to_owned(), Some(received_at));
        Envelope {
            session_id: self.session_id.clone(),
            profile_id: self.profile_id.clone(),
            title_id: self.title_id.clone(),
            stamp: Stamp { received_at, sent_at, ingest_region, trace_id: None, shadow: false },
            events,
        }
    }

    /// An event as the player writes it.
    pub(super) fn posted(&self, event: &Event) -> EdgeEvent {
        let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        EdgeEvent {
            session_id: self.session_id.to_string(),
            profile_id: Some(self.profile_id.clone()),
            title_id: self.title_id.clone(),
            seq: event.seq.into(),
            kind: Cow::Borrowed(event.kind.as_str()),
            position_ms: signed(event.position_ms),
            played_ms: signed(event.played_ms),
            title_duration_ms: signed(self.duration_ms),
            occurred_at: signed(event.occurred_at.unwrap_or_default()),
            device: simulate::event::Device {
                id: self.device.id.clone().unwrap_or_default(),
                kind: Cow::Owned(self.device.kind.clone().unwrap_or_default()),
            },
            country: Cow::Borrowed(self.country),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;

    #[test]
    fn viewing_goes_on_to_the_end_of_its_title() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut viewing = Viewing::begin(&mut rng, 1_790_000_000_000).unwrap();
        let mut events = Vec::new();
        while !viewing.is_over() {
            events.push(viewing.next(&mut rng).unwrap());
        }
        assert!(events.iter().enumerate().all(|(n, event)| usize::from(event.seq) == n));
        assert!(events.iter().all(|event| event.played_ms <= event.position_ms));
        assert_eq!((events[0].kind, events.last().unwrap().kind), (Kind::Started, Kind::Stopped));
        let envelope = viewing.envelope(events, 1_790_000_000_000);
        assert_eq!(Envelope::decode(&envelope.encode()).unwrap(), envelope);
    }
}
