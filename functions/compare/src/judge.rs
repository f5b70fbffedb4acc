//! Decides which sessions are due, what to ask the live system for, and what its answer means.
//!
//! Each walk goes through the whole shadow table. A session is due if it settled since the previous
//! walk began. It settles when it has not changed for a while: no event arrived, and none was folded.
//! So each session is compared once each time it settles, and an event that arrives or is folded late
//! makes it due again. A session that changes during a walk is due in the next one.
//!
//! Sessions missing in the shadow are looked for between its sessions. If a live session began
//! between two shadow sessions of a profile, the shadow should have it too. It is counted when the
//! later one of the two is due. Sessions before a profile's first shadow session are ignored,
//! because the profile may not have been on the shadow path then.

use crate::report::{Cause, Verdict};
use crate::session::{Session, Tolerances, diff};
use playback::session::SessionId;
use std::collections::BTreeMap;
use store::dynamodb::{KEPT_FOR, Place, PlacedView};

/// A session that changed later than this before a walk has not expired in the shadow table. DynamoDB
/// deletes what has expired within a few days, in any order.
const SURELY_KEPT_MS: u64 = (KEPT_FOR.as_secs() - 24 * 3_600) * 1_000;

/// The sessions that are due in a walk: those that settled after `since` and at or before `until`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// When the previous walk began, Unix milliseconds; 0 for the first walk.
    pub since: u64,
    /// When this walk began, Unix milliseconds.
    pub until: u64,
    /// A session settles after this time without a change, milliseconds.
    pub settle_ms: u64,
}

impl Window {
    /// Whether a session that last changed at this time is due.
    fn is_due(&self, changed_at: u64) -> bool {
        let settled_at = changed_at.saturating_add(self.settle_ms);
        self.since < settled_at && settled_at <= self.until
    }

    /// Whether a session whose last event arrived at this time has settled, in this walk or before.
    fn has_settled(&self, last_received_at: u64) -> bool {
        last_received_at.saturating_add(self.settle_ms) <= self.until
    }
}

/// A shadow session and whether it is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its sort key, in the shadow table and the live table.
    pub sk: String,
    /// The session.
    pub session_id: SessionId,
    /// The shadow's fields.
    pub ours: Session,
    /// Whether it has its first event and only its home region folded it.
    pub is_whole: bool,
    /// When the session began, by its id or by the server's clock, whichever is earlier, Unix
    /// milliseconds. Erasures use it.
    pub began_at: u64,
    /// Whether to compare it now.
    pub is_due: bool,
}

/// A question to the live system: sessions of one profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// The profile.
    pub profile_id: String,
    /// The sort key of the shadow session before these, if any.
    pub after: Option<String>,
    /// Sessions in the order of their sort keys. The first and the last one are due.
    pub rows: Vec<Row>,
}

/// The live system's sessions of a profile.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// Sessions by sort key. There may be more than were asked for.
    pub sessions: BTreeMap<String, (SessionId, Session)>,
    /// The time up to which the member erased the history, Unix milliseconds.
    pub erased_at: Option<u64>,
}

/// The questions for a page of the shadow table that follows `before`. Profiles without due
/// sessions are skipped.
pub fn asks(page: &[PlacedView], before: Option<&Place>, window: Window) -> Vec<Ask> {
    let of_profile = |views: &[PlacedView]| {
        let profile_id = &views.first()?.place.profile_id;
        let is_due = |view: &PlacedView| window.is_due(changed_at(view));
        let (first, last) = (views.iter().position(is_due)?, views.iter().rposition(is_due)?);
        let after = match first.checked_sub(1) {
            Some(index) => Some(&views[index].place),
            None => before.filter(|place| place.profile_id == *profile_id),
        };
        let row = |view: &PlacedView| Row {
            sk: view.place.sk.clone(),
            session_id: view.session_id.clone(),
            ours: Session::of(&view.view),
            is_whole: view.view.first.seq == 0 && !view.place.is_part(),
            began_at: view.session_id.started_at().min(view.view.received_from),
            is_due: is_due(view),
        };
        Some(Ask {
            profile_id: profile_id.clone(),
            after: after.map(|place| place.sk.clone()),
            rows: views[first..=last].iter().map(row).collect(),
        })
    };
    page.chunk_by(|a, b| a.place.profile_id == b.place.profile_id).filter_map(of_profile).collect()
}

/// When a shadow session last changed. After an outage it is folded long after its events were
/// received.
fn changed_at(view: &PlacedView) -> u64 {
    view.view.latest.received_at.max(view.written_at.unwrap_or(0))
}

impl Ask {
    /// The sessions that are due.
    pub fn due(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| row.is_due)
    }

    /// The verdicts that follow from the live system's answer.
    pub fn judge(&self, answer: &Answer, window: Window, tolerances: &Tolerances) -> Vec<(SessionId, Verdict)> {
        let compared = self.due().filter_map(|row| {
            let verdict = match answer.sessions.get(&row.sk) {
                _ if !row.is_whole => Verdict::Partial,
                Some((_, theirs)) => match diff(&row.ours, theirs, tolerances) {
                    same if same.is_empty() => Verdict::Matched,
                    differences => Verdict::Differs(differences),
                },
                None if answer.erased_at.is_some_and(|erased_at| row.began_at <= erased_at) => return None,
                None => Verdict::MissingLive,
            };
            Some((row.session_id.clone(), verdict))
        });
        let missing =
            answer.sessions.iter().filter(|(sk, (id, theirs))| self.lacks(sk, id.started_at(), theirs, window));
        let missing = missing.map(|(_, (session_id, _))| (session_id.clone(), Verdict::MissingShadow));
        compared.chain(missing).collect()
    }

    /// The verdicts if the live system did not answer, or its answer is unreadable.
    pub fn unanswered(&self, cause: Cause) -> Vec<(SessionId, Verdict)> {
        self.due().map(|row| (row.session_id.clone(), Verdict::Unanswered(cause))).collect()
    }

    /// Whether the shadow lacks a session of the live system that it should have: see the module's
    /// documentation.
    fn lacks(&self, sk: &str, began_at: u64, theirs: &Session, window: Window) -> bool {
        let next = self.rows.partition_point(|row| row.sk.as_str() < sk);
        let follows_one = next > 0 || self.after.as_deref().is_some_and(|after| after < sk);
        let is_between = self.rows.get(next).is_some_and(|row| row.is_due && row.sk != sk);
        let has_settled = theirs.last_received_at().is_none_or(|at| window.has_settled(at));
        let changed_at = theirs.last_received_at().unwrap_or(began_at);
        let is_kept = changed_at + SURELY_KEPT_MS > window.until;
        follows_one && is_between && has_settled && is_kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{Field, Value};
    use crate::testing::{placed, session_id};
    use proptest::prelude::*;

    const SETTLE_MS: u64 = 10;

    fn window(since: u64, until: u64) -> Window {
        Window { since, until, settle_ms: SETTLE_MS }
    }

    /// A live system that agrees with these views.
    fn live<'a>(views: impl IntoIterator<Item = &'a PlacedView>) -> Answer {
        let one = |view: &PlacedView| (view.place.sk.clone(), (view.session_id.clone(), Session::of(&view.view)));
        Answer { sessions: views.into_iter().map(one).collect(), erased_at: None }
    }

    fn judged(page: &[PlacedView], before: Option<&Place>, window: Window, live: &Answer) -> Vec<(u64, Verdict)> {
        let judge = |ask: Ask| ask.judge(live, window, &Tolerances::default());
        let number = |id: &SessionId| (id.started_at() - session_id(0).started_at()) / 1000;
        asks(page, before, window).into_iter().flat_map(judge).map(|(id, verdict)| (number(&id), verdict)).collect()
    }

    /// It was written long before its neighbours, and has expired.
    #[test]
    fn expired_session_is_not_missing() {
        const DAY: u64 = 24 * 3_600 * 1_000;
        let missing = |received_at: u64| {
            let until = session_id(0).started_at() + 40 * DAY;
            let page = [placed("p1", 1, until - 20), placed("p1", 3, until - 20)];
            let all = [page[0].clone(), placed("p1", 2, until - received_at), page[1].clone()];
            judged(&page, None, window(until - 1_000, until), &live(&all)).contains(&(2, Verdict::MissingShadow))
        };
        assert!(missing(28 * DAY));
        assert!(!missing(30 * DAY));
    }

    /// After an outage of hours, walks that began since its events arrived have passed it by.
    #[test]
    fn session_that_is_folded_late_is_due_then() {
        let folded = PlacedView { written_at: Some(1_000), ..placed("p1", 1, 100) };
        let is_due = |since, until| !asks(std::slice::from_ref(&folded), None, window(since, until)).is_empty();
        assert!(is_due(500, 1_010));
        assert!(!is_due(500, 1_009), "more may be folded");
        assert!(!is_due(1_010, 2_000), "it was due before");
    }

    #[test]
    fn a_session_is_due_once_after_it_settles() {
        let page = [placed("p1", 1, 100)];
        let is_due = |since, until| !asks(&page, None, window(since, until)).is_empty();
        assert!(!is_due(0, 109), "it has not settled");
        assert!(is_due(0, 110));
        assert!(is_due(109, 200));
        assert!(!is_due(110, 200), "it was due in the previous walk");
    }

    proptest! {
        /// Whatever the times of consecutive walks, each covers what settled between them.
        #[test]
        fn over_any_walks_each_session_is_due_once(
            heard in prop::collection::vec(0u64..1000, 1..20),
            pauses in prop::collection::vec(1u64..100, 1..30),
        ) {
            let page: Vec<PlacedView> =
                heard.iter().enumerate().map(|(number, at)| placed("p1", number as u64, *at)).collect();
            let (mut since, mut due) = (0, Vec::new());
            for pause in pauses {
                let window = window(since, since + pause);
                due.extend(asks(&page, None, window).iter().flat_map(|ask| ask.due().map(|row| row.sk.clone()).collect::<Vec<_>>()));
                since = window.until;
            }
            due.sort();
            let settled = page.iter().filter(|view| view.view.latest.received_at + SETTLE_MS <= since);
            let expected: Vec<String> = settled.map(|view| view.place.sk.clone()).collect();
            prop_assert_eq!(due, expected);
        }

        /// The verdicts do not depend on the page size, nor does a gap between two pages matter.
        #[test]
        fn pages_of_any_size_give_the_same_verdicts(
            in_shadow in prop::collection::vec(any::<bool>(), 1..20),
            in_live in prop::collection::vec(any::<bool>(), 20),
            due in prop::collection::vec(any::<bool>(), 20),
            size in 1usize..8,
        ) {
            let view = |number: usize| placed("p1", number as u64, if due[number] { 100 } else { 10 });
            let all: Vec<usize> = (0..in_shadow.len()).collect();
            let shadow: Vec<PlacedView> = all.iter().filter(|&&n| in_shadow[n]).map(|&n| view(n)).collect();
            let live = live(&all.iter().filter(|&&n| in_live[n]).map(|&n| view(n)).collect::<Vec<_>>());
            let window = window(50, 200);
            let mut whole = judged(&shadow, None, window, &live);
            let (mut pieces, mut before) = (Vec::new(), None);
            for page in shadow.chunks(size) {
                pieces.extend(judged(page, before, window, &live));
                before = page.last().map(|view| &view.place);
            }
            whole.sort_by_key(|one| one.0);
            pieces.sort_by_key(|one| one.0);
            prop_assert_eq!(&pieces, &whole);

            // And they agree with a direct comparison of both sides.
            let expected = all.iter().filter_map(|&n| {
                let next = (n..in_shadow.len()).find(|&later| in_shadow[later])?;
                let follows_one = (0..n).any(|earlier| in_shadow[earlier]);
                match (in_shadow[n], in_live[n]) {
                    (true, true) if due[n] => Some((n as u64, Verdict::Matched)),
                    (true, false) if due[n] => Some((n as u64, Verdict::MissingLive)),
                    (false, true) if due[next] && follows_one => Some((n as u64, Verdict::MissingShadow)),
                    _ => None,
                }
            });
            prop_assert_eq!(pieces, expected.collect::<Vec<_>>());
        }
    }

    #[test]
    fn each_profile_with_due_sessions_is_asked_for() {
        let page = [placed("p1", 1, 10), placed("p1", 2, 100), placed("p2", 1, 10), placed("p3", 1, 100)];
        let asks = asks(&page, Some(&placed("p3", 0, 10).place), window(50, 200));
        let asked: Vec<(&str, Option<&str>, usize)> =
            asks.iter().map(|ask| (ask.profile_id.as_str(), ask.after.as_deref(), ask.rows.len())).collect();
        assert_eq!(
            asked,
            [("p1", Some(page[0].place.sk.as_str()), 1), ("p3", Some(placed("p3", 0, 10).place.sk.as_str()), 1)]
        );
    }

    #[test]
    fn differences_name_their_field() {
        let page = [placed("p1", 1, 100)];
        let mut other = page[0].clone();
        other.view.latest.position_ms += 1;
        let [(1, Verdict::Differs(differences))] = &judged(&page, None, window(0, 200), &live([&other]))[..] else {
            panic!("one session differs");
        };
        assert_eq!(differences.len(), 1);
        assert_eq!(
            (differences[0].field, &differences[0].theirs),
            (Field::PositionMs, &Value::from(other.view.latest.position_ms))
        );
    }

    #[test]
    fn partial_sessions_are_not_compared() {
        let mut under_way = placed("p1", 1, 100);
        under_way.view.first.seq = 3;
        let mut part = placed("p1", 2, 100);
        part.place.sk = part.place.sk.replace("#~", "#usw2#~");
        assert_eq!(
            judged(&[under_way, part], None, window(0, 200), &Answer::default()),
            [(1, Verdict::Partial), (2, Verdict::Partial)]
        );
    }

    #[test]
    fn erased_sessions_are_not_missing() {
        let page = [placed("p1", 1, 100), placed("p1", 2, 100)];
        let erased_at = Some(page[0].session_id.started_at());
        assert_eq!(judged(&page, None, window(0, 200), &Answer { erased_at, ..Answer::default() }), []);
        let never = judged(&page, None, window(0, 200), &Answer::default());
        assert_eq!(never, [(1, Verdict::MissingLive), (2, Verdict::MissingLive)]);
    }

    #[test]
    fn unsettled_live_sessions_are_not_missing_yet() {
        let shadow = [placed("p1", 1, 100), placed("p1", 3, 100)];
        let heard = |at| live(&[shadow[0].clone(), placed("p1", 2, at), shadow[1].clone()]);
        let found = |at| judged(&shadow, None, window(0, 200), &heard(at)).len();
        assert_eq!((found(191), found(190)), (2, 3));
    }
}
