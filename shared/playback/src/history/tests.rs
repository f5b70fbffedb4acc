use super::*;
use crate::contract::{Event, Kind};
use crate::envelope::Envelope;
use crate::testing;
use crate::view::{Receipt, watch_time};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const TITLE_MS: u64 = 5_400_000;
const MINUTE: u64 = 60_000;
/// When the numbered sessions begin, roughly.
const DAY: u64 = 1_790_000_000_000;

/// One event of a numbered session, watched and received at `at`, after playing `played_ms`.
fn viewing(number: u128, title: &str, (from_ms, position_ms): (u64, u64), at: u64) -> Envelope {
    let mut envelope = testing::example();
    envelope.session_id = testing::session(number);
    envelope.title_id = title.to_owned();
    envelope.stamp.received_at = at;
    envelope.stamp.sent_at = None;
    let event = |seq, kind, position_ms, played_ms| Event {
        seq,
        kind,
        position_ms,
        played_ms,
        title_duration_ms: Some(TITLE_MS),
        occurred_at: None,
        ..testing::example().events.remove(0)
    };
    envelope.events = vec![
        event(0, Kind::Started, from_ms, 0),
        event(1, Kind::Stopped, position_ms, position_ms.saturating_sub(from_ms)),
    ];
    envelope
}

fn part_of(envelope: &Envelope) -> (Ulid, Row) {
    let SessionId { ulid, home } = envelope.session_id.clone();
    (ulid, Row::Part { home, view: Box::new(View::of_envelope(envelope).unwrap()) })
}

fn part(number: u128, title: &str, position_ms: u64, at: u64) -> (Ulid, Row) {
    part_of(&viewing(number, title, (0, position_ms), at))
}

fn hidden(number: u128, hidden: bool) -> (Ulid, Row) {
    (testing::session(number).ulid, Row::Hidden(hidden))
}

fn states(rows: Vec<(Ulid, Row)>, marks: &Marks) -> HashMap<String, TitleState> {
    title_states(assemble(rows, marks), marks, &Rules::default())
}

/// The resume position of t1, and whether it was watched.
fn t1(rows: Vec<(Ulid, Row)>) -> (Option<u64>, bool) {
    let state = states(rows, &Marks::default()).remove("t1").unwrap_or_default();
    (state.resume.map(|entry| entry.view.position_ms()), state.watched)
}

#[test]
fn parts_join_and_hiding_applies_to_rows_on_both_sides() {
    let rows = [
        hidden(9, true),
        part(3, "t1", 5, 30),
        hidden(2, true),
        part(2, "t1", 5, 20),
        part(2, "t1", 9, 19),
        part(1, "t2", 5, 10),
        hidden(1, true),
    ];
    let entries = assemble(rows, &Marks::default());
    let seen: Vec<_> = entries.iter().map(|e| (e.session_id.clone(), e.hidden, e.view.latest.received_at)).collect();
    assert_eq!(
        seen,
        [(testing::session(3), false, 30), (testing::session(2), true, 19), (testing::session(1), true, 10)]
    );
}

/// Two sessions whose ids differ only in their home. No player creates such ids by accident.
#[test]
fn sessions_with_one_ulid_and_different_homes_are_two() {
    let (ulid, Row::Part { view, .. }) = part(1, "t1", 5, 10) else { panic!("a part") };
    let west = Row::Part { home: "usw2".parse().unwrap(), view };
    let entries = assemble([hidden(1, true), (ulid, west), part(1, "t1", 9, 11)], &Marks::default());
    let seen: Vec<_> = entries.iter().map(|e| (e.session_id.home.as_str(), e.view.events(), e.hidden)).collect();
    assert_eq!(seen, [("usw2", 2, true), ("use1", 2, true)]);
}

#[test]
fn each_title_of_a_session_has_a_view_and_missing_counts_them_together() {
    let seqs = |title: &str, from: u16, to: u16| {
        let mut envelope = viewing(1, title, (0, 0), DAY);
        let event = |seq| Event { seq, position_ms: u64::from(seq) * 1000, ..envelope.events[0].clone() };
        envelope.events = (from..=to).map(event).collect();
        envelope
    };
    let rows = [seqs("e2", 6, 9), seqs("e1", 0, 4)].iter().map(part_of).collect::<Vec<_>>();
    let entries = assemble(rows, &Marks::default());
    let seen: Vec<_> =
        entries.iter().map(|e| (e.view.title_id.as_str(), e.view.position_ms(), e.view.events(), e.missing)).collect();
    assert_eq!(seen, [("e2", 9_000, 4, 1), ("e1", 4_000, 5, 1)]);
}

#[test]
fn only_the_newest_session_of_a_title_continues() {
    let watching = |rows: Vec<(Ulid, Row)>| {
        let entries = continue_watching(states(rows, &Marks::default()).into_values());
        entries.iter().map(|e| e.session_id.clone()).collect::<Vec<_>>()
    };
    let (far, done) = (30 * MINUTE, TITLE_MS);
    assert_eq!(watching(vec![part(2, "a", far, 2), part(1, "a", far, 1)]), [testing::session(2)]);
    assert_eq!(watching(vec![part(2, "a", done, 2), part(1, "a", far, 1)]), []);
    assert_eq!(watching(vec![hidden(2, true), part(2, "a", far, 2), part(1, "b", far, 1)]), [testing::session(1)]);
    assert_eq!(watching(vec![hidden(2, true), part(2, "a", far, 2), part(1, "a", far, 1)]), []);
    let by_watch_time = [testing::session(1), testing::session(2)];
    assert_eq!(watching(vec![part(2, "a", far, 2), part(1, "b", far, 3)]), by_watch_time);
}

#[test]
fn title_is_finished_at_its_share_or_at_its_credits_or_past_its_end() {
    let finished = |duration: Option<u64>, credits: Option<u64>, position_ms| {
        let mut envelope = viewing(1, "t1", (position_ms, position_ms), DAY);
        for event in &mut envelope.events {
            (event.title_duration_ms, event.credits_ms) = (duration, credits);
        }
        Rules::default().is_finished(&View::of_envelope(&envelope).unwrap())
    };
    assert!(!finished(Some(1000), None, 949));
    assert!(finished(Some(1000), None, 950));
    assert!(finished(Some(1000), None, 2000));
    assert!(finished(Some(1000), Some(900), 900));
    assert!(!finished(Some(1000), Some(990), 949));
    assert!(finished(Some(1000), Some(990), 950));
    assert!(!finished(None, None, 1 << 40));
    assert!(finished(None, Some(900), 900));
}

#[test]
fn a_session_that_went_back_after_the_end_has_finished() {
    let mut envelope = viewing(1, "t1", (0, TITLE_MS), DAY);
    let back = Event { seq: 2, kind: Kind::Seeked, position_ms: 0, played_ms: 0, ..envelope.events[1].clone() };
    envelope.events.push(back);
    assert_eq!(t1(vec![part_of(&envelope)]), (None, true));
    let again = Event { seq: 3, position_ms: 40 * MINUTE, played_ms: 40 * MINUTE, ..envelope.events[2].clone() };
    envelope.events.push(again);
    assert_eq!(t1(vec![part_of(&envelope)]), (Some(40 * MINUTE), true), "it is played again");
}

#[test]
fn a_short_session_never_displaces_a_resume_point() {
    let long = || part(1, "t1", 33 * MINUTE, DAY + 1);
    let then = |from, to| t1(vec![part_of(&viewing(2, "t1", (from, to), DAY + 2)), long()]).0;
    assert_eq!(then(0, 0), Some(33 * MINUTE));
    assert_eq!(then(0, 2 * MINUTE - 1), Some(33 * MINUTE));
    assert_eq!(then(0, 2 * MINUTE), Some(2 * MINUTE));
    assert_eq!(then(60 * MINUTE, 61 * MINUTE), Some(33 * MINUTE));
    // One that goes on from there takes the point along.
    assert_eq!(then(33 * MINUTE, 34 * MINUTE), Some(34 * MINUTE));
    assert_eq!(then(32 * MINUTE, 33 * MINUTE + 5), Some(33 * MINUTE + 5));
    assert_eq!(then(33 * MINUTE, 20 * MINUTE), Some(33 * MINUTE));
    // Alone it is better than nothing.
    assert_eq!(t1(vec![part(1, "t1", 9, DAY)]).0, Some(9));
}

#[test]
fn a_finished_title_stays_watched_while_it_is_watched_again() {
    let again = vec![part(2, "t1", MINUTE / 2, DAY + 2), part(1, "t1", TITLE_MS, DAY + 1)];
    assert_eq!(t1(again), (Some(MINUTE / 2), true));
}

#[test]
fn late_offline_upload_never_displaces_newer_viewing() {
    let newer = part(2, "t1", 40 * MINUTE, DAY + 10 * MINUTE);
    let mut offline = viewing(1, "t1", (0, 10 * MINUTE), DAY + 90 * MINUTE);
    for event in &mut offline.events {
        event.occurred_at = Some(DAY + 9 * MINUTE);
    }
    assert_eq!(t1(vec![newer, part_of(&offline)]), (Some(40 * MINUTE), false));
}

#[test]
fn marks_decide_from_their_time_on() {
    let watched_at = |watched, at| Marks {
        watched: HashMap::from([("t1".to_owned(), WatchedMark { watched, at })]),
        ..Marks::default()
    };
    let state = |rows: Vec<(Ulid, Row)>, marks: &Marks| {
        let entries = assemble(rows, marks);
        title_state(entries, marks.watched.get("t1").copied(), &Rules::default())
    };
    let half = || vec![part(1, "t1", 40 * MINUTE, DAY + 5)];
    let end = || vec![part(1, "t1", TITLE_MS, DAY + 5)];
    let seen = |state: TitleState| (state.resume.is_some(), state.watched_at);
    assert_eq!(seen(state(half(), &watched_at(true, DAY + 5))), (false, Some(DAY + 5)));
    assert_eq!(seen(state(half(), &watched_at(true, DAY + 4))), (true, Some(DAY + 4)));
    assert_eq!(seen(state(half(), &watched_at(false, DAY + 5))), (true, None));
    assert_eq!(seen(state(end(), &watched_at(false, DAY + 5))), (false, None));
    assert_eq!(seen(state(end(), &watched_at(false, DAY + 4))), (false, Some(DAY + 5)));
    assert_eq!(seen(state(vec![], &watched_at(true, 7))), (false, Some(7)));
}

#[test]
fn erasure_covers_sessions_begun_before_it_by_either_clock() {
    let marks = |erased_at| Marks { erased_at, ..Marks::default() };
    let left = |marks: &Marks| assemble([part(5, "a", 1, 7)], marks).len();
    assert_eq!(left(&marks(None)), 1);
    assert_eq!(left(&marks(Some(6))), 1);
    assert_eq!(left(&marks(Some(7))), 0, "received before the erasure, although its id is later");
    assert_eq!(left(&marks(Some(testing::session(5).started_at()))), 0);
    let title = |title: &str| Marks { forgotten: HashMap::from([(title.to_owned(), 7)]), ..Marks::default() };
    assert_eq!((left(&title("a")), left(&title("b"))), (0, 1));
}

#[test]
fn forgotten_sessions_make_no_entry() {
    let rows = |title: Option<&str>| {
        let forgotten = (testing::session(1).ulid, Row::Forgotten(title.map(str::to_owned)));
        [part(2, "a", 5, 9), part(1, "a", 5, 9), part(1, "b", 5, 9), forgotten]
    };
    let left = |title| {
        let entries = assemble(rows(title), &Marks::default());
        entries.iter().map(|e| (e.session_id == testing::session(1), e.view.title_id.clone())).collect::<BTreeSet<_>>()
    };
    let of = |title: &str| (true, title.to_owned());
    assert_eq!(left(None), BTreeSet::from([(false, "a".to_owned())]));
    assert_eq!(left(Some("a")), BTreeSet::from([(false, "a".to_owned()), of("b")]));
}

proptest! {
    /// Regions may fold a session's envelopes in any split, in any order, any number of times.
    /// Readers see what one writer would have folded.
    #[test]
    fn any_split_over_writers_reads_like_one_writer(
        trace in prop::collection::vec((testing::envelopes(), 0usize..4, 1usize..3), 1..24),
        order in any::<prop::sample::Index>(),
    ) {
        type Key = (SessionId, String, String);
        let key = |e: &Envelope| (e.session_id.clone(), e.profile_id.clone(), e.title_id.clone());
        let mut alone: BTreeMap<Key, View> = BTreeMap::new();
        let mut parts: BTreeMap<(Key, usize), View> = BTreeMap::new();
        let join = |view: &mut Option<View>, other: &View| match view {
            Some(view) => view.merge(other),
            None => *view = Some(other.clone()),
        };
        let turned = trace.iter().cycle().skip(order.index(trace.len())).take(trace.len());
        for (envelope, _, _) in &trace {
            let mut view = alone.remove(&key(envelope));
            join(&mut view, &View::of_envelope(envelope).unwrap());
            alone.insert(key(envelope), view.unwrap());
        }
        for (envelope, writer, times) in turned {
            for _ in 0..*times {
                let mut view = parts.remove(&(key(envelope), *writer));
                join(&mut view, &View::of_envelope(envelope).unwrap());
                parts.insert((key(envelope), *writer), view.unwrap());
            }
        }
        let mut joined = BTreeMap::new();
        for profile in ["p0", "p1"] {
            let rows = parts.iter().filter(|(((_, of, _), _), _)| of == profile);
            let rows = rows.map(|(((session, _, _), _), view)| {
                (session.ulid, Row::Part { home: session.home.clone(), view: Box::new(view.clone()) })
            });
            for entry in assemble(rows, &Marks::default()) {
                joined.insert((entry.session_id, profile.to_owned(), entry.view.title_id.clone()), entry.view);
            }
        }
        prop_assert_eq!(joined, alone);
    }

    /// A member's life on several devices, some offline, with wrong clocks: what the three lists
    /// say agrees with each other and with a model that knows every event, in any order of arrival.
    #[test]
    fn lists_agree_with_each_other_and_with_a_model(
        life in prop::collection::vec(chapters(), 1..14),
        order in any::<prop::sample::Index>(),
    ) {
        let envelopes: Vec<Envelope> = life.iter().enumerate().map(|(at, chapter)| chapter.envelope(at)).collect();
        let mut rows: Vec<(Ulid, Row)> = envelopes.iter().map(part_of).collect();
        let turn = order.index(rows.len());
        rows.rotate_left(turn);
        rows.sort_by_key(|(ulid, _)| std::cmp::Reverse(*ulid));
        let marks = Marks::default();
        let entries = assemble(rows, &marks);
        let states = title_states(entries.clone(), &marks, &Rules::default());
        // Every resume point is in the history, at the same position; continue watching has exactly
        // the resume points.
        let continuing = continue_watching(states.values().cloned());
        let resumes = states.values().filter(|state| state.resume.is_some()).count();
        prop_assert_eq!(continuing.len(), resumes);
        for entry in &continuing {
            prop_assert!(entries.contains(entry));
            let bookmark = states[&entry.view.title_id].resume.as_ref();
            prop_assert_eq!(bookmark, Some(entry));
            prop_assert!(!Rules::default().is_finished(&entry.view));
        }
        let times: Vec<u64> = continuing.iter().map(|entry| entry.view.latest.watched_at).collect();
        prop_assert!(times.is_sorted_by(|a, b| a >= b));
        for title in ["a", "b"] {
            let state = states.get(title).cloned().unwrap_or_default();
            prop_assert_eq!(
                (state.resume.map(|entry| (entry.session_id, entry.view.position_ms())), state.watched),
                model(title, &envelopes)
            );
        }
    }
}

/// One sitting of a member.
#[derive(Debug, Clone)]
struct Chapter {
    title: &'static str,
    from_ms: u64,
    to_ms: u64,
    begins_after_ms: u64,
    /// How much later the device sends it.
    offline_ms: u64,
    /// By how much its clock is wrong.
    skew_ms: i64,
    states_sent_at: bool,
}

fn chapters() -> impl Strategy<Value = Chapter> {
    let hour = 60 * MINUTE;
    let place = prop_oneof![Just(0), 0..TITLE_MS, Just(TITLE_MS)];
    let offline = prop_oneof![3 => Just(0), 1 => 0..100 * hour];
    let skew = prop_oneof![2 => Just(0), 1 => -72 * 3_600_000i64..72 * 3_600_000];
    let title = prop::sample::select(vec!["a", "b"]);
    (title, place.clone(), place, 0..30 * hour, offline, skew, any::<bool>()).prop_map(
        |(title, from_ms, to_ms, begins_after_ms, offline_ms, skew_ms, states_sent_at)| Chapter {
            title,
            from_ms,
            to_ms,
            begins_after_ms,
            offline_ms,
            skew_ms,
            states_sent_at,
        },
    )
}

impl Chapter {
    fn envelope(&self, number: usize) -> Envelope {
        let began = DAY + self.begins_after_ms;
        let ended = began + self.to_ms.saturating_sub(self.from_ms);
        let received_at = ended + self.offline_ms;
        let by_device = |at: u64| at.saturating_add_signed(self.skew_ms);
        let mut envelope = viewing(0, self.title, (self.from_ms, self.to_ms), received_at);
        envelope.session_id = SessionId::mint("use1".parse().unwrap(), began, number as u128);
        envelope.stamp.sent_at = self.states_sent_at.then(|| by_device(received_at));
        envelope.events[0].occurred_at = Some(by_device(began));
        envelope.events[1].occurred_at = Some(by_device(ended));
        envelope
    }
}

/// By the letter of the rules, from the events themselves.
fn model(title: &str, envelopes: &[Envelope]) -> (Option<(SessionId, u64)>, bool) {
    let mut sittings: Vec<_> = envelopes
        .iter()
        .filter(|e| e.title_id == title)
        .map(|e| {
            let end = &e.events[1];
            ((watch_time(end.occurred_at, Receipt::of(e)), e.session_id.clone()), e.events[0].position_ms, end)
        })
        .collect();
    sittings.sort_by(|a, b| a.0.cmp(&b.0));
    let (mut resume, mut watched) = (None::<(SessionId, u64)>, false);
    for ((_, session), from_ms, end) in sittings {
        let finish = TITLE_MS * 95 / 100;
        if end.position_ms >= finish {
            (resume, watched) = (None, true);
            continue;
        }
        let at = end.position_ms;
        let long = at.saturating_sub(from_ms) >= 2 * MINUTE;
        let takes =
            resume.as_ref().is_none_or(|(_, point)| long || (from_ms.abs_diff(*point) <= 2 * MINUTE && at >= *point));
        if takes {
            resume = Some((session, at));
        }
    }
    (resume, watched)
}
