//! The state of one viewing session, as a join-semilattice: merging is commutative, associative and
//! idempotent. So a view does not depend on the order of its events, nor on how often each arrives.
//!
//! The sequence numbers seen are part of the view, so "seen" and "applied" are one conditional
//! write. There is no second table of processed ids that could disagree.

use crate::contract::{Country, Device, Event, Kind, is_completed};
use crate::envelope::{Envelope, country_text, kind_of, parse_country};
use crate::proto;
use crate::ranges::RangeSet;
use prost::Message;
use std::sync::Arc;

/// The version of the packed form that this code writes, and the newest it reads.
pub const VIEW_SCHEMA_VERSION: u32 = 1;

/// The state of one viewing session. It always holds at least one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// Sequence numbers received. Join: union.
    pub seen: RangeSet,
    /// Position intervals played, milliseconds. Join: union.
    pub played: RangeSet,
    /// What the event with the lowest `seq` said. Join: minimum.
    pub first: First,
    /// What the event with the greatest (`seq`, `received_at`) said. Join: maximum.
    pub latest: Latest,
    /// Least `received_at`, Unix milliseconds. Join: minimum.
    pub started_at: u64,
    /// Greatest `received_at`, Unix milliseconds. Join: maximum.
    pub last_received_at: u64,
}

/// What the event with the lowest `seq` said. The derived order compares `seq` and `received_at`
/// first. The other fields only decide between events that contradict each other under one key, so
/// even then the order of arrival does not matter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct First {
    /// The lowest sequence number.
    pub seq: u16,
    /// When it was received, Unix milliseconds.
    pub received_at: u64,
    /// What was watched.
    pub title_id: String,
    /// Its length, milliseconds.
    pub title_duration_ms: u64,
    /// Where the session began.
    pub country: Option<Country>,
}

/// What the event with the greatest key said. Ordered like [`First`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Latest {
    /// The greatest sequence number.
    pub seq: u16,
    /// When it was received, Unix milliseconds. It decides between two events of one `seq`.
    pub received_at: u64,
    /// Position in the title, milliseconds.
    pub position_ms: u64,
    /// What happened.
    pub kind: Kind,
    /// The device.
    pub device: Arc<Device>,
}

/// How one change of a view opens and closes holes: sequence numbers missing in ended sessions.
/// Over all changes, opened minus closed is the number of holes. A session that continues after
/// `stopped` is no longer ended and closes its holes until it ends again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Holes {
    /// Missing now but not before.
    pub opened: u64,
    /// Missing before but not now.
    pub closed: u64,
}

impl std::ops::AddAssign for Holes {
    fn add_assign(&mut self, other: Self) {
        self.opened += other.opened;
        self.closed += other.closed;
    }
}

/// Why a packed view cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnreadableView {
    /// Newer code wrote it.
    #[error("the view has schema version {0}; this code reads up to {VIEW_SCHEMA_VERSION}")]
    Newer(u32),
    /// The bytes are corrupt.
    #[error("the view is corrupt: {0}")]
    Corrupt(String),
}

impl View {
    /// The state of a session after only this event. `title_id` and `received_at` come from its
    /// envelope.
    pub fn of(event: &Event, title_id: &str, received_at: u64) -> Self {
        let seq = u64::from(event.seq);
        Self {
            seen: RangeSet::from(seq..seq + 1),
            played: RangeSet::from(played_interval(event)),
            first: First {
                seq: event.seq,
                received_at,
                title_id: title_id.to_owned(),
                title_duration_ms: event.title_duration_ms,
                country: event.country,
            },
            latest: Latest {
                seq: event.seq,
                received_at,
                position_ms: event.position_ms,
                kind: event.kind,
                device: Arc::clone(&event.device),
            },
            started_at: received_at,
            last_received_at: received_at,
        }
    }

    /// The state after all events of an envelope; `None` if it has no events.
    pub fn of_envelope(envelope: &Envelope) -> Option<Self> {
        let (first, rest) = envelope.events.split_first()?;
        let mut view = Self::of(first, &envelope.title_id, envelope.stamp.received_at);
        for event in rest {
            view.absorb(event, &envelope.title_id, envelope.stamp.received_at);
        }
        Some(view)
    }

    /// Joins one more event. The same as merging its [`View::of`], without building it.
    pub fn absorb(&mut self, event: &Event, title_id: &str, received_at: u64) {
        let seq = u64::from(event.seq);
        self.seen.insert(seq..seq + 1);
        self.played.insert(played_interval(event));
        let first = (event.seq, received_at, title_id, event.title_duration_ms, event.country);
        let kept = &self.first;
        if first < (kept.seq, kept.received_at, &kept.title_id, kept.title_duration_ms, kept.country) {
            self.first = First {
                seq: event.seq,
                received_at,
                title_id: title_id.to_owned(),
                title_duration_ms: event.title_duration_ms,
                country: event.country,
            };
        }
        let latest = (event.seq, received_at, event.position_ms, event.kind, &event.device);
        let kept = &self.latest;
        if latest > (kept.seq, kept.received_at, kept.position_ms, kept.kind, &kept.device) {
            self.latest = Latest {
                seq: event.seq,
                received_at,
                position_ms: event.position_ms,
                kind: event.kind,
                device: Arc::clone(&event.device),
            };
        }
        self.started_at = self.started_at.min(received_at);
        self.last_received_at = self.last_received_at.max(received_at);
    }

    /// Joins another state of the same session.
    pub fn merge(&mut self, other: &View) {
        self.seen.union(&other.seen);
        self.played.union(&other.played);
        if other.first < self.first {
            self.first.clone_from(&other.first);
        }
        if other.latest > self.latest {
            self.latest.clone_from(&other.latest);
        }
        self.started_at = self.started_at.min(other.started_at);
        self.last_received_at = self.last_received_at.max(other.last_received_at);
    }

    /// Distinct sequence numbers received.
    pub fn events(&self) -> u64 {
        self.seen.len()
    }

    /// Sequence numbers below the greatest that never arrived.
    pub fn missing(&self) -> u64 {
        (u64::from(self.latest.seq) + 1).saturating_sub(self.events())
    }

    /// Below this number, nothing should be missing. It is the greatest sequence number plus one if
    /// the session has ended (its latest event is `stopped`), else 0.
    fn complete_below(&self) -> u64 {
        if self.latest.kind == Kind::Stopped { u64::from(self.latest.seq) + 1 } else { 0 }
    }

    /// The holes that open and close when this state replaces `before`, which it contains.
    pub fn holes_since(&self, before: Option<&View>) -> Holes {
        let missing_below = |view: &View, bound: u64| bound - view.seen.len_below(bound);
        let (bound_before, bound) = (before.map_or(0, View::complete_below), self.complete_below());
        let holes_before = before.map_or(0, |view| missing_below(view, bound_before));
        let kept = missing_below(self, bound.min(bound_before));
        Holes { opened: missing_below(self, bound) - kept, closed: holes_before.saturating_sub(kept) }
    }

    /// How much of the title was played, milliseconds. Replayed intervals count once.
    pub fn played_ms(&self) -> u64 {
        self.played.len()
    }

    /// Whether the position is at or beyond 95% of the title.
    pub fn completed(&self) -> bool {
        is_completed(self.latest.position_ms, self.first.title_duration_ms)
    }

    /// Packs the view for its item.
    pub fn pack(&self) -> Vec<u8> {
        proto::View {
            schema_version: VIEW_SCHEMA_VERSION,
            seen: self.seen.pack(),
            played: self.played.pack(),
            first_seq: u32::from(self.first.seq),
            first_received_at: self.first.received_at,
            title_id: self.first.title_id.clone(),
            title_duration_ms: self.first.title_duration_ms,
            country: country_text(self.first.country),
            latest_seq: u32::from(self.latest.seq),
            latest_received_at: self.latest.received_at,
            position_ms: self.latest.position_ms,
            kind: proto::Kind::from(self.latest.kind).into(),
            device_id: self.latest.device.id.clone(),
            device_kind: self.latest.device.kind.clone(),
            started_at: self.started_at,
            last_received_at: self.last_received_at,
        }
        .encode_to_vec()
    }

    /// Unpacks a view.
    ///
    /// # Errors
    /// [`UnreadableView`]: a newer version, which may pass once this code is updated, or
    /// corruption, which will not.
    pub fn unpack(bytes: &[u8]) -> Result<Self, UnreadableView> {
        let corrupt = |what: &str| UnreadableView::Corrupt(what.to_owned());
        let packed = proto::View::decode(bytes).map_err(|error| UnreadableView::Corrupt(error.to_string()))?;
        match packed.schema_version {
            0 => return Err(corrupt("schema_version")),
            VIEW_SCHEMA_VERSION => {}
            newer => return Err(UnreadableView::Newer(newer)),
        }
        let seen = RangeSet::unpack(&packed.seen).map_err(|_| corrupt("seen"))?;
        if seen.is_empty() {
            return Err(corrupt("seen"));
        }
        Ok(Self {
            seen,
            played: RangeSet::unpack(&packed.played).map_err(|_| corrupt("played"))?,
            first: First {
                seq: u16::try_from(packed.first_seq).map_err(|_| corrupt("first_seq"))?,
                received_at: packed.first_received_at,
                title_id: packed.title_id,
                title_duration_ms: packed.title_duration_ms,
                country: parse_country(&packed.country).map_err(|_| corrupt("country"))?,
            },
            latest: Latest {
                seq: u16::try_from(packed.latest_seq).map_err(|_| corrupt("latest_seq"))?,
                received_at: packed.latest_received_at,
                position_ms: packed.position_ms,
                kind: kind_of(packed.kind).ok_or_else(|| corrupt("kind"))?,
                device: Arc::new(Device { id: packed.device_id, kind: packed.device_kind }),
            },
            started_at: packed.started_at,
            last_received_at: packed.last_received_at,
        })
    }
}

/// The interval an event played: `played_ms` up to `position_ms`.
fn played_interval(event: &Event) -> std::ops::Range<u64> {
    event.position_ms.saturating_sub(event.played_ms)..event.position_ms
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{MAX_SEQ, MAX_TITLE_DURATION_MS};
    use crate::testing;
    use proptest::prelude::*;

    fn joined(a: &View, b: &View) -> View {
        let mut joined = a.clone();
        joined.merge(b);
        joined
    }

    fn views() -> impl Strategy<Value = View> {
        testing::envelopes().prop_map(|envelope| View::of_envelope(&envelope).unwrap())
    }

    proptest! {
        #[test]
        fn merge_is_commutative_associative_and_idempotent(a in views(), b in views(), c in views()) {
            prop_assert_eq!(joined(&a, &b), joined(&b, &a));
            prop_assert_eq!(joined(&joined(&a, &b), &c), joined(&a, &joined(&b, &c)));
            prop_assert_eq!(joined(&a, &a), a);
        }

        #[test]
        fn absorbing_an_event_equals_merging_its_view(a in views(), envelope in testing::envelopes()) {
            let mut absorbed = a.clone();
            let mut merged = a;
            for event in &envelope.events {
                absorbed.absorb(event, &envelope.title_id, envelope.stamp.received_at);
                merged.merge(&View::of(event, &envelope.title_id, envelope.stamp.received_at));
            }
            prop_assert_eq!(absorbed, merged);
        }

        /// In any order of arrival, the changes add up to what is missing at the end. Each change
        /// is the difference of two sets.
        #[test]
        fn holes_opened_minus_closed_is_what_is_missing(states in prop::collection::vec(views(), 1..8)) {
            let holes = |view: &View| -> std::collections::BTreeSet<u64> {
                let ended = view.latest.kind == Kind::Stopped;
                (0..=u64::from(view.latest.seq)).filter(|&seq| ended && !view.seen.contains(seq)).collect()
            };
            let mut sum = Holes::default();
            let mut stored: Option<View> = None;
            for state in &states {
                let after = stored.as_ref().map_or_else(|| state.clone(), |before| joined(before, state));
                let change = after.holes_since(stored.as_ref());
                let before = stored.as_ref().map(holes).unwrap_or_default();
                prop_assert_eq!(change.opened as usize, holes(&after).difference(&before).count());
                prop_assert_eq!(change.closed as usize, before.difference(&holes(&after)).count());
                sum += change;
                stored = Some(after);
            }
            prop_assert_eq!((sum.opened - sum.closed) as usize, holes(&stored.unwrap()).len());
        }

        #[test]
        fn pack_round_trips(a in views(), b in views()) {
            let view = joined(&a, &b);
            prop_assert_eq!(View::unpack(&view.pack()), Ok(view));
        }

        #[test]
        fn unpacking_random_bytes_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = View::unpack(&bytes);
        }
    }

    #[test]
    fn newer_and_corrupt_views_are_told_apart() {
        let view = View::of_envelope(&testing::example()).unwrap();
        let mut packed = proto::View::decode(view.pack().as_slice()).unwrap();
        packed.schema_version = 2;
        assert_eq!(View::unpack(&packed.encode_to_vec()), Err(UnreadableView::Newer(2)));
        packed.schema_version = 1;
        packed.seen = vec![0];
        assert_eq!(View::unpack(&packed.encode_to_vec()), Err(UnreadableView::Corrupt("seen".to_owned())));
        assert!(matches!(View::unpack(b""), Err(UnreadableView::Corrupt(_))));
    }

    /// Every second sequence number is missing and every event is a separate interval: the largest
    /// possible item.
    #[test]
    fn largest_view_fits_an_item() {
        let mut view = View::of_envelope(&testing::example()).unwrap();
        view.seen = (0..=MAX_SEQ).step_by(2).map(|seq| seq..seq + 1).collect();
        let step = MAX_TITLE_DURATION_MS / (MAX_SEQ + 1);
        view.played = (0..=MAX_SEQ).map(|at| at * step..at * step + step / 2).collect();
        assert_eq!(view.played.ranges().len(), 65_536);
        let bytes = view.pack().len();
        assert!(bytes < 350_000, "{bytes} bytes; DynamoDB's limit for the whole item is 409,600");
        assert_eq!(View::unpack(&view.pack()), Ok(view));
    }
}
