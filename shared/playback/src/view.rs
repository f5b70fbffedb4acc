//! The state of one viewing session, as a join-semilattice: merging is commutative, associative and
//! idempotent, so that views end the same in whatever order events arrive, and however often.
//!
//! The sequence numbers seen are part of the view, so that "seen" and "applied" are one conditional write:
//! there is no second table of processed ids that could disagree with it.

use crate::contract::{Country, Device, Event, Kind, is_completed};
use crate::envelope::{Envelope, country_text, kind_of, parse_country};
use crate::proto;
use crate::ranges::RangeSet;
use prost::Message;
use std::sync::Arc;

/// The packed form's version that this code writes, and the greatest it reads.
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

/// What the event with the lowest `seq` said. The derived order compares `seq` and `received_at` first; the other
/// fields only decide between events that contradict each other under one key, so that even then the order of
/// arrival does not matter.
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
    /// Where it began.
    pub country: Option<Country>,
}

/// What the event with the greatest key said; ordered as [`First`] is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Latest {
    /// The greatest sequence number.
    pub seq: u16,
    /// When it was received, Unix milliseconds; decides between two events of one `seq`.
    pub received_at: u64,
    /// Where the player stood, milliseconds.
    pub position_ms: u64,
    /// What happened.
    pub kind: Kind,
    /// On which device.
    pub device: Arc<Device>,
}

/// Sequence numbers missing in ended sessions, as one change of a view opens and closes them. Over all changes, opened less closed
/// are the holes that there are. A session that goes on after `stopped` has not ended any more, and closes its holes until it ends again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Holes {
    /// Missing now, and not before.
    pub opened: u64,
    /// Missing before, and not any more.
    pub closed: u64,
}

impl std::ops::AddAssign for Holes {
    fn add_assign(&mut self, other: Self) {
        self.opened += other.opened;
        self.closed += other.closed;
    }
}

/// A packed view that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnreadableView {
    /// Written by newer code.
    #[error("the view has schema version {0}, this code knows {VIEW_SCHEMA_VERSION}")]
    Newer(u32),
    /// Written by no code of ours.
    #[error("the view is corrupt: {0}")]
    Corrupt(String),
}

impl View {
    /// The state of a session of which only this event is known. `title_id` and `received_at` come from its envelope.
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

    /// The state after all events of an envelope; `None` when it has none.
    pub fn of_envelope(envelope: &Envelope) -> Option<Self> {
        let (first, rest) = envelope.events.split_first()?;
        let mut view = Self::of(first, &envelope.title_id, envelope.stamp.received_at);
        for event in rest {
            view.absorb(event, &envelope.title_id, envelope.stamp.received_at);
        }
        Some(view)
    }

    /// Joins one more event: the same as merging [`View::of`] it, without building that.
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

    /// One past the greatest sequence number once the session has ended (its latest event is `stopped`), and 0 before that: below
    /// it nothing should be missing.
    fn complete_below(&self) -> u64 {
        if self.latest.kind == Kind::Stopped { u64::from(self.latest.seq) + 1 } else { 0 }
    }

    /// What this state changes in the holes of ended sessions, when it takes the place of `before`, which it contains.
    pub fn holes_since(&self, before: Option<&View>) -> Holes {
        let missing_below = |view: &View, bound: u64| bound - view.seen.len_below(bound);
        let (bound_before, bound) = (before.map_or(0, View::complete_below), self.complete_below());
        let holes_before = before.map_or(0, |view| missing_below(view, bound_before));
        let kept = missing_below(self, bound.min(bound_before));
        Holes { opened: missing_below(self, bound) - kept, closed: holes_before.saturating_sub(kept) }
    }

    /// How much of the title was played, milliseconds; what was played twice counts once.
    pub fn played_ms(&self) -> u64 {
        self.played.len()
    }

    /// Whether the member stands at 95% of the title or beyond.
    pub fn completed(&self) -> bool {
        is_completed(self.latest.position_ms, self.first.title_duration_ms)
    }

    /// The packed form that the item holds.
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

    /// Reads the packed form.
    ///
    /// # Errors
    /// [`UnreadableView`]: newer code's work, which may pass, or corruption, which does not.
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

/// The positions that an event says were played: `played_ms` up to `position_ms`.
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
        fn absorbing_an_event_is_merging_its_view(a in views(), envelope in testing::envelopes()) {
            let mut absorbed = a.clone();
            let mut merged = a;
            for event in &envelope.events {
                absorbed.absorb(event, &envelope.title_id, envelope.stamp.received_at);
                merged.merge(&View::of(event, &envelope.title_id, envelope.stamp.received_at));
            }
            prop_assert_eq!(absorbed, merged);
        }

        /// However a session's events arrive, the changes add up to what is missing in the end, and each is the difference of two sets.
        #[test]
        fn holes_opened_less_closed_are_what_is_missing_in_the_end(states in prop::collection::vec(views(), 1..8)) {
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
        fn unpacking_anything_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = View::unpack(&bytes);
        }
    }

    #[test]
    fn a_view_of_newer_code_is_told_from_a_corrupt_one() {
        let view = View::of_envelope(&testing::example()).unwrap();
        let mut packed = proto::View::decode(view.pack().as_slice()).unwrap();
        packed.schema_version = 2;
        assert_eq!(View::unpack(&packed.encode_to_vec()), Err(UnreadableView::Newer(2)));
        packed.schema_version = 1;
        packed.seen = vec![0];
        assert_eq!(View::unpack(&packed.encode_to_vec()), Err(UnreadableView::Corrupt("seen".to_owned())));
        assert!(matches!(View::unpack(b""), Err(UnreadableView::Corrupt(_))));
    }

    /// Every second sequence number missing and every event an interval of its own: the largest item a session can make.
    #[test]
    fn the_largest_view_fits_an_item() {
        let mut view = View::of_envelope(&testing::example()).unwrap();
        view.seen = (0..=MAX_SEQ).step_by(2).map(|seq| seq..seq + 1).collect();
        let step = MAX_TITLE_DURATION_MS / (MAX_SEQ + 1);
        view.played = (0..=MAX_SEQ).map(|at| at * step..at * step + step / 2).collect();
        assert_eq!(view.played.ranges().len(), 65_536);
        let bytes = view.pack().len();
        assert!(bytes < 350_000, "{bytes} bytes, and DynamoDB's limit is 409,600 for the whole item");
        assert_eq!(View::unpack(&view.pack()), Ok(view));
    }
}
