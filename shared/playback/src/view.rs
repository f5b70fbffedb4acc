//! What one session played of one title, as a join-semilattice: merging is commutative, associative
//! and idempotent. So a view does not depend on the order of its events, nor on how often each
//! arrives.
//!
//! The sequence numbers seen are part of the view, so "seen" and "applied" are one conditional
//! write. There is no second table of processed ids that could disagree.
//!
//! No field is a maximum over receipts, because an event that is received again would move
//! it. Where one `seq` was received several times, the earliest receipt counts.

use crate::contract::{Country, Device, Event, Kind, MAX_TITLE_DURATION_MS};
use crate::envelope::{Envelope, NO_DEVICE, country_text, kind_of, parse_country};
use crate::proto;
use crate::ranges::RangeSet;
use crate::unknown::unknown_fields;
use prost::{DecodeError, Message};
use std::cmp::Reverse;
use std::sync::Arc;

/// The version of the packed form that this code writes, and the newest it reads.
pub const VIEW_SCHEMA_VERSION: u32 = 1;

/// The state of one session and title. It always holds at least one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// What was watched. The same in all states that are merged.
    pub title_id: String,
    /// Sequence numbers received. Join: union.
    pub seen: RangeSet,
    /// Position intervals played, milliseconds. Join: union.
    pub played: RangeSet,
    /// What the event with the lowest `seq` said. Join: minimum.
    pub first: First,
    /// What the event with the greatest `seq` said. Join: maximum by `Latest::rank`.
    pub latest: Latest,
    /// The newest stated duration of the title. Join: maximum by `Statement::rank`.
    pub duration: Option<Statement>,
    /// The newest stated begin of the credits. Join: as `duration`.
    pub credits: Option<Statement>,
    /// When the first of its events was received, Unix milliseconds; for erasures. Join: minimum,
    /// which no repeat can move.
    pub received_from: u64,
    /// What newer code keeps in the view. Join: the greater, which keeps what is stored, since no
    /// event brings any.
    pub newer: Newer,
}

/// The fields of a packed view that this code does not know, as packed.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Newer {
    /// Of the message itself.
    view: Vec<u8>,
    /// Of its message `second`.
    second: Vec<u8>,
}

impl Newer {
    /// The numbers of the fields that this code knows (`proto/playback.proto`).
    const VIEW: [u32; 16] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];
    const SECOND_NUMBER: u32 = 20;
    const SECOND: [u32; 5] = [1, 2, 3, 4, 5];

    fn of(packed: &[u8]) -> Result<Self, DecodeError> {
        let (view, second) = unknown_fields(packed, &Self::VIEW, Some(Self::SECOND_NUMBER))?;
        let (second, _) = unknown_fields(&second, &Self::SECOND, None)?;
        Ok(Self { view, second })
    }

    /// Adds the fields to a packed view. Protobuf reads a second message `second` as more fields of
    /// the first.
    fn add_to(&self, packed: &mut Vec<u8>) {
        packed.extend_from_slice(&self.view);
        if !self.second.is_empty() {
            prost::encoding::bytes::encode(Self::SECOND_NUMBER, &self.second, packed);
        }
    }
}

/// What the event with the lowest `seq` said. The derived order compares `seq`, then the receipt.
/// The other fields only decide between events that contradict each other under one key, so even
/// then the order of arrival does not matter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct First {
    /// The lowest sequence number.
    pub seq: u16,
    /// When it was received, Unix milliseconds.
    pub received_at: u64,
    /// Its watch time, Unix milliseconds; see [`watch_time`].
    pub watched_at: u64,
    /// Position in the title, milliseconds.
    pub position_ms: u64,
    /// Where the session began.
    pub country: Option<Country>,
}

/// What the event with the greatest `seq` said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Latest {
    /// The greatest sequence number.
    pub seq: u16,
    /// When it was received first, Unix milliseconds.
    pub received_at: u64,
    /// Its watch time, Unix milliseconds; see [`watch_time`].
    pub watched_at: u64,
    /// Position in the title, milliseconds. It may be past the end.
    pub position_ms: u64,
    /// What happened.
    pub kind: Kind,
    /// The device.
    pub device: Arc<Device>,
}

impl Latest {
    /// The greatest rank wins: the greatest `seq`, then the earliest receipt. The rest only decides
    /// between contradictions.
    fn rank(&self) -> impl Ord {
        let Self { seq, received_at, watched_at, position_ms, kind, device } = self;
        (*seq, Reverse(*received_at), *watched_at, *position_ms, *kind, device)
    }
}

/// A value that some events state and some do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statement {
    /// The greatest sequence number that states it.
    pub seq: u16,
    /// When that event was received first, Unix milliseconds.
    pub received_at: u64,
    /// The value, milliseconds.
    pub ms: u64,
}

impl Statement {
    fn of(event: &Event, received_at: u64, ms: Option<u64>) -> Option<Self> {
        ms.map(|ms| Self { seq: event.seq, received_at, ms })
    }

    /// The greatest rank wins, as in [`Latest::rank`].
    fn rank(&self) -> impl Ord {
        (self.seq, Reverse(self.received_at), self.ms)
    }

    fn join(a: Option<Self>, b: Option<Self>) -> Option<Self> {
        match (a, b) {
            (Some(a), Some(b)) => Some(if b.rank() > a.rank() { b } else { a }),
            (a, b) => a.or(b),
        }
    }
}

/// What an event's envelope says about its receipt.
#[derive(Debug, Clone, Copy)]
pub struct Receipt {
    /// When it was received, Unix milliseconds.
    pub received_at: u64,
    /// The device's clock when it sent the request, Unix milliseconds, if stated.
    pub sent_at: Option<u64>,
    /// When the session began, by its id, Unix milliseconds.
    pub session_started_at: u64,
}

impl Receipt {
    /// The receipt of an envelope.
    pub fn of(envelope: &Envelope) -> Self {
        Self {
            received_at: envelope.stamp.received_at,
            sent_at: envelope.stamp.sent_at,
            session_started_at: envelope.session_id.started_at(),
        }
    }
}

/// When an event happened, Unix milliseconds: the device's clock, corrected by its skew (our clock
/// minus the device's, as the request was received), and never before the session's start or after
/// the receipt. Without the device's clock it is the receipt.
pub fn watch_time(occurred_at: Option<u64>, receipt: Receipt) -> u64 {
    let Receipt { received_at, sent_at, session_started_at } = receipt;
    let skew = sent_at.map_or(0, |sent_at| i128::from(received_at) - i128::from(sent_at));
    let corrected = occurred_at.map_or(i128::from(received_at), |occurred_at| i128::from(occurred_at) + skew);
    let latest = i128::from(received_at);
    let watched_at = corrected.max(i128::from(session_started_at)).min(latest).max(0);
    u64::try_from(watched_at).unwrap_or(received_at)
}

/// The sequence numbers of a whole session, all its titles together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sequence {
    seen: RangeSet,
    /// The greatest sequence number's rank and kind.
    latest: Option<(u16, Reverse<u64>, Kind)>,
}

impl Sequence {
    /// Of the views of one session.
    pub fn of<'a>(views: impl IntoIterator<Item = &'a View>) -> Self {
        let mut sequence = Self::default();
        for view in views {
            sequence.add(view);
        }
        sequence
    }

    /// Adds another view of the session.
    pub fn add(&mut self, view: &View) {
        self.seen.union(&view.seen);
        self.latest = self.latest.max(Some((view.latest.seq, Reverse(view.latest.received_at), view.latest.kind)));
    }

    /// Together with other views of the session.
    pub fn with(&self, others: &Sequence) -> Self {
        let mut seen = self.seen.clone();
        seen.union(&others.seen);
        Self { seen, latest: self.latest.max(others.latest) }
    }

    /// Whether the session's latest event is `stopped`.
    pub fn has_ended(&self) -> bool {
        matches!(self.latest, Some((_, _, Kind::Stopped)))
    }

    /// Sequence numbers below the greatest that never arrived.
    pub fn missing(&self) -> u64 {
        self.latest.map_or(0, |(seq, ..)| (u64::from(seq) + 1).saturating_sub(self.seen.len()))
    }

    /// Below this number, nothing should be missing. It is the greatest sequence number plus one if
    /// the session has ended (its latest event is `stopped`), else 0.
    fn complete_below(&self) -> u64 {
        self.latest.filter(|_| self.has_ended()).map_or(0, |(seq, ..)| u64::from(seq) + 1)
    }

    /// The holes that open and close when this state replaces `before`, which it contains.
    pub fn holes_since(&self, before: &Sequence) -> Holes {
        let missing_below = |of: &Sequence, bound: u64| bound - of.seen.len_below(bound);
        let (bound_before, bound) = (before.complete_below(), self.complete_below());
        let holes_before = missing_below(before, bound_before);
        let kept = missing_below(self, bound.min(bound_before));
        Holes { opened: missing_below(self, bound) - kept, closed: holes_before.saturating_sub(kept) }
    }
}

/// How one change of a session opens and closes holes: sequence numbers missing in ended sessions.
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
    /// The state after only this event.
    pub fn of(event: &Event, title_id: &str, receipt: Receipt) -> Self {
        let (seq, received_at) = (u64::from(event.seq), receipt.received_at);
        let watched_at = watch_time(event.occurred_at, receipt);
        Self {
            title_id: title_id.to_owned(),
            seen: RangeSet::from(seq..seq + 1),
            played: RangeSet::from(played_interval(event)),
            first: First {
                seq: event.seq,
                received_at,
                watched_at,
                position_ms: event.position_ms,
                country: event.country,
            },
            latest: Latest {
                seq: event.seq,
                received_at,
                watched_at,
                position_ms: event.position_ms,
                kind: event.kind,
                device: Arc::clone(&event.device),
            },
            duration: Statement::of(event, received_at, event.title_duration_ms),
            credits: Statement::of(event, received_at, event.credits_ms),
            received_from: received_at,
            newer: Newer::default(),
        }
    }

    /// The state after all events of an envelope; `None` if it has no events.
    pub fn of_envelope(envelope: &Envelope) -> Option<Self> {
        let (first, rest) = envelope.events.split_first()?;
        let receipt = Receipt::of(envelope);
        let mut view = Self::of(first, &envelope.title_id, receipt);
        for event in rest {
            view.absorb(event, receipt);
        }
        Some(view)
    }

    /// Joins one more event of the title. The same as merging its [`View::of`], without building
    /// it.
    pub fn absorb(&mut self, event: &Event, receipt: Receipt) {
        let (seq, received_at) = (u64::from(event.seq), receipt.received_at);
        let watched_at = watch_time(event.occurred_at, receipt);
        self.seen.insert(seq..seq + 1);
        self.played.insert(played_interval(event));
        let first =
            First { seq: event.seq, received_at, watched_at, position_ms: event.position_ms, country: event.country };
        if first < self.first {
            self.first = first;
        }
        if event.seq >= self.latest.seq {
            let latest = Latest {
                seq: event.seq,
                received_at,
                watched_at,
                position_ms: event.position_ms,
                kind: event.kind,
                device: Arc::clone(&event.device),
            };
            if latest.rank() > self.latest.rank() {
                self.latest = latest;
            }
        }
        self.duration = Statement::join(self.duration, Statement::of(event, received_at, event.title_duration_ms));
        self.credits = Statement::join(self.credits, Statement::of(event, received_at, event.credits_ms));
        self.received_from = self.received_from.min(received_at);
    }

    /// Joins another state of the same session and title.
    pub fn merge(&mut self, other: &View) {
        debug_assert_eq!(self.title_id, other.title_id);
        self.seen.union(&other.seen);
        self.played.union(&other.played);
        if other.first < self.first {
            self.first.clone_from(&other.first);
        }
        if other.latest.rank() > self.latest.rank() {
            self.latest.clone_from(&other.latest);
        }
        self.duration = Statement::join(self.duration, other.duration);
        self.credits = Statement::join(self.credits, other.credits);
        self.received_from = self.received_from.min(other.received_from);
        if other.newer > self.newer {
            self.newer.clone_from(&other.newer);
        }
    }

    /// Distinct sequence numbers received.
    pub fn events(&self) -> u64 {
        self.seen.len()
    }

    /// How much of the title was played, milliseconds. Replayed intervals count once.
    pub fn played_ms(&self) -> u64 {
        self.played.len()
    }

    /// The title's length, milliseconds, if it was stated.
    pub fn title_duration_ms(&self) -> Option<u64> {
        self.duration.map(|duration| duration.ms)
    }

    /// The position, milliseconds: past the end means the end.
    pub fn position_ms(&self) -> u64 {
        self.title_duration_ms().map_or(self.latest.position_ms, |end| self.latest.position_ms.min(end))
    }

    /// The number of ranges in `seen` or `played`, whichever is greater: what it costs to keep.
    pub fn ranges(&self) -> usize {
        self.seen.ranges().len().max(self.played.ranges().len())
    }

    /// Packs the view for its item.
    pub fn pack(&self) -> Vec<u8> {
        let statement = |statement: Option<Statement>| {
            statement.map(|Statement { seq, received_at, ms }| proto::view::Statement {
                seq: seq.into(),
                received_at,
                ms,
            })
        };
        let age = |received_at: u64, watched_at: u64| received_at.saturating_sub(watched_at);
        let Device { id, kind } = &*self.latest.device;
        let mut packed = proto::View {
            schema_version: VIEW_SCHEMA_VERSION,
            seen: self.seen.pack(),
            played: self.played.pack(),
            first_seq: u32::from(self.first.seq),
            first_received_at: self.first.received_at,
            title_id: self.title_id.clone(),
            title_duration_ms: self.title_duration_ms().unwrap_or(MAX_TITLE_DURATION_MS),
            country: country_text(self.first.country),
            latest_seq: u32::from(self.latest.seq),
            latest_received_at: self.latest.received_at,
            position_ms: self.latest.position_ms,
            kind: proto::Kind::from(self.latest.kind).into(),
            device_id: id.clone().unwrap_or_default(),
            device_kind: kind.clone().unwrap_or_default(),
            received_from: self.received_from,
            last_received_at: self.latest.received_at.max(self.first.received_at),
            second: Some(proto::view::Second {
                first_age_ms: age(self.first.received_at, self.first.watched_at),
                latest_age_ms: age(self.latest.received_at, self.latest.watched_at),
                first_position_ms: self.first.position_ms,
                duration: statement(self.duration),
                credits: statement(self.credits),
            }),
        }
        .encode_to_vec();
        self.newer.add_to(&mut packed);
        packed
    }

    /// Unpacks a view.
    ///
    /// # Errors
    /// [`UnreadableView`]: a newer version, which may pass once this code is updated, or
    /// corruption, which will not.
    pub fn unpack(bytes: &[u8]) -> Result<Self, UnreadableView> {
        let corrupt = |what: &str| UnreadableView::Corrupt(what.to_owned());
        let undecodable = |error: DecodeError| UnreadableView::Corrupt(error.to_string());
        let packed = proto::View::decode(bytes).map_err(undecodable)?;
        match packed.schema_version {
            0 => return Err(corrupt("schema_version")),
            VIEW_SCHEMA_VERSION => {}
            newer => return Err(UnreadableView::Newer(newer)),
        }
        let seen = RangeSet::unpack(&packed.seen).map_err(|_| corrupt("seen"))?;
        let first_seq = u16::try_from(packed.first_seq).map_err(|_| corrupt("first_seq"))?;
        let latest_seq = u16::try_from(packed.latest_seq).map_err(|_| corrupt("latest_seq"))?;
        // Numbers that are wrongly among them would be taken for repeats when they come, and be lost.
        let bounds = seen.ranges().first().zip(seen.ranges().last()).map(|(first, last)| (first.start, last.end));
        if bounds != Some((first_seq.into(), u64::from(latest_seq) + 1)) {
            return Err(corrupt("seen"));
        }
        let second = packed.second.unwrap_or(proto::view::Second {
            // What the first release did not keep. A session mostly begins at 0, and its first event
            // stated the duration, unless it is the placeholder.
            first_position_ms: 0,
            first_age_ms: 0,
            latest_age_ms: 0,
            duration: (packed.title_duration_ms != MAX_TITLE_DURATION_MS).then_some(proto::view::Statement {
                seq: packed.first_seq,
                received_at: packed.first_received_at,
                ms: packed.title_duration_ms,
            }),
            credits: None,
        });
        let device_word = |text: String| Some(text).filter(|text| !text.is_empty() && text != NO_DEVICE);
        let statement = |statement: Option<proto::view::Statement>, name| {
            statement
                .map(|proto::view::Statement { seq, received_at, ms }| {
                    let seq = u16::try_from(seq).map_err(|_| corrupt(name))?;
                    Ok(Statement { seq, received_at, ms })
                })
                .transpose()
        };
        Ok(Self {
            title_id: packed.title_id,
            seen,
            played: RangeSet::unpack(&packed.played).map_err(|_| corrupt("played"))?,
            first: First {
                seq: first_seq,
                received_at: packed.first_received_at,
                watched_at: packed.first_received_at.saturating_sub(second.first_age_ms),
                position_ms: second.first_position_ms,
                country: parse_country(&packed.country).map_err(|_| corrupt("country"))?,
            },
            latest: Latest {
                seq: latest_seq,
                received_at: packed.latest_received_at,
                watched_at: packed.latest_received_at.saturating_sub(second.latest_age_ms),
                position_ms: packed.position_ms,
                kind: kind_of(packed.kind).ok_or_else(|| corrupt("kind"))?,
                device: Arc::new(Device { id: device_word(packed.device_id), kind: device_word(packed.device_kind) }),
            },
            duration: statement(second.duration, "duration")?,
            credits: statement(second.credits, "credits")?,
            received_from: packed.received_from,
            newer: Newer::of(bytes).map_err(undecodable)?,
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
    use crate::contract::MAX_RANGES;
    use crate::testing;
    use proptest::prelude::*;

    fn joined(a: &View, b: &View) -> View {
        let mut joined = a.clone();
        joined.merge(b);
        joined
    }

    /// Views of one session and title.
    fn views() -> impl Strategy<Value = View> {
        testing::envelopes().prop_map(|mut envelope| {
            envelope.title_id = "t0".to_owned();
            View::of_envelope(&envelope).unwrap()
        })
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
                absorbed.absorb(event, Receipt::of(&envelope));
                merged.merge(&View::of(event, "t0", Receipt::of(&envelope)));
            }
            prop_assert_eq!(absorbed, merged);
        }

        /// In any order of arrival, the changes add up to what is missing at the end. Each change
        /// is the difference of two sets. The views may be of several titles.
        #[test]
        fn holes_opened_minus_closed_is_what_is_missing(states in prop::collection::vec(views(), 1..8)) {
            let holes = |of: &Sequence| -> std::collections::BTreeSet<u64> {
                let Some((seq, _, kind)) = of.latest else { return Default::default() };
                (0..=u64::from(seq)).filter(|&seq| kind == Kind::Stopped && !of.seen.contains(seq)).collect()
            };
            let mut sum = Holes::default();
            let mut stored = Sequence::default();
            for state in &states {
                let mut after = stored.clone();
                after.add(state);
                let change = after.holes_since(&stored);
                prop_assert_eq!(change.opened as usize, holes(&after).difference(&holes(&stored)).count());
                prop_assert_eq!(change.closed as usize, holes(&stored).difference(&holes(&after)).count());
                sum += change;
                stored = after;
            }
            prop_assert_eq!((sum.opened - sum.closed) as usize, holes(&stored).len());
        }

        /// What the first release read of a view keeps its meaning, for a deployment and after a
        /// rollback.
        #[test]
        fn the_first_release_reads_what_it_knows(a in views(), b in views()) {
            let view = joined(&a, &b);
            let mut packed = proto::View::decode(view.pack().as_slice()).unwrap();
            packed.second = None;
            let read = View::unpack(&packed.encode_to_vec()).unwrap();
            prop_assert_eq!((&read.seen, &read.played, &read.title_id), (&view.seen, &view.played, &view.title_id));
            prop_assert_eq!((read.latest.seq, read.latest.position_ms), (view.latest.seq, view.latest.position_ms));
            prop_assert_eq!(read.title_duration_ms(), view.title_duration_ms());
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
        // Half a range, none, and numbers before the first or after the latest, which is 1.
        for seen in [vec![0], vec![], vec![0, 2], vec![1, 2], vec![1, 1, 1, 1], vec![1, u64::MAX - 1]] {
            packed.seen = seen;
            assert_eq!(View::unpack(&packed.encode_to_vec()), Err(UnreadableView::Corrupt("seen".to_owned())));
        }
        assert!(matches!(View::unpack(b""), Err(UnreadableView::Corrupt(_))));
    }

    #[test]
    fn watch_time_corrects_the_skew_and_stays_between_start_and_receipt() {
        let receipt = |sent_at| Receipt { received_at: 10_000, sent_at, session_started_at: 5_000 };
        assert_eq!(watch_time(Some(8_000), receipt(None)), 8_000);
        assert_eq!(watch_time(Some(8_000), receipt(Some(10_500))), 7_500, "the device's clock is ahead");
        assert_eq!(watch_time(Some(80), receipt(Some(1_000))), 9_080, "the device's clock is in 1970");
        assert_eq!(watch_time(Some(100), receipt(None)), 5_000);
        assert_eq!(watch_time(Some(u64::MAX), receipt(Some(1))), 10_000);
        assert_eq!(watch_time(None, receipt(Some(1))), 10_000);
        let ahead = Receipt { session_started_at: 12_000, ..receipt(None) };
        assert_eq!(watch_time(Some(9_000), ahead), 10_000, "never after the receipt");
    }

    #[test]
    fn duration_and_position_come_from_the_newest_statements() {
        let mut envelope = testing::example();
        let event = |seq, position_ms, title_duration_ms| Event {
            seq,
            position_ms,
            title_duration_ms,
            played_ms: 0,
            ..testing::example().events.remove(0)
        };
        envelope.events = vec![event(0, 0, Some(1_440_000)), event(1, 1_400_000, Some(2_580_000)), event(2, 9, None)];
        let view = View::of_envelope(&envelope).unwrap();
        assert_eq!(view.title_duration_ms(), Some(2_580_000));
        envelope.events = vec![event(3, 229_886, Some(229_877))];
        let view = View::of_envelope(&envelope).unwrap();
        assert_eq!((view.latest.position_ms, view.position_ms()), (229_886, 229_877));
    }

    /// As many ranges as a view may have, each as long to write as possible.
    #[test]
    fn largest_view_is_small_enough_to_write_often() {
        let mut view = View::of_envelope(&testing::example()).unwrap();
        view.seen = (0..MAX_RANGES as u64).map(|at| at * 30..at * 30 + 1).collect();
        (view.first.seq, view.latest.seq) = (0, (MAX_RANGES as u16 - 1) * 30);
        let step = MAX_TITLE_DURATION_MS / MAX_RANGES as u64;
        view.played = (0..MAX_RANGES as u64).map(|at| at * step..at * step + step / 2).collect();
        assert_eq!(view.ranges(), MAX_RANGES);
        let bytes = view.pack().len();
        assert!(bytes < 16_384, "{bytes} bytes");
        assert_eq!(View::unpack(&view.pack()), Ok(view));
    }
}
