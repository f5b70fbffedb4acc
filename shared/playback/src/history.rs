//! What a member sees: turns the stored rows of a profile into history entries, newest first.
//!
//! Continue watching and completion are computed here on read, so they cost no write.

use crate::session::{Home, SessionId};
use crate::view::View;
use std::collections::HashSet;
use ulid::Ulid;

/// A row of a profile that belongs to a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Row {
    /// The part of the session's view that one region folded.
    Part {
        /// The session's home region.
        home: Home,
        /// The part's state.
        view: View,
    },
    /// Whether the member hid the session. A register: the later time wins.
    Hidden(bool),
}

/// One session of the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The session.
    pub session_id: SessionId,
    /// The join of the parts that all regions folded.
    pub view: View,
    /// Whether the member hid it.
    pub hidden: bool,
}

/// Joins rows into entries in the same order. The rows must be grouped by session. A session
/// without parts, which was only hidden, makes no entry.
pub fn assemble(rows: impl IntoIterator<Item = (Ulid, Row)>) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut hidden: Option<(Ulid, bool)> = None;
    for (ulid, row) in rows {
        match row {
            Row::Hidden(is_hidden) => {
                hidden = Some((ulid, is_hidden));
                let parts = entries.iter_mut().rev().take_while(|entry| entry.session_id.ulid == ulid);
                parts.for_each(|entry| entry.hidden = is_hidden);
            }
            Row::Part { home, view } => match entries.last_mut() {
                Some(entry) if entry.session_id.ulid == ulid && entry.session_id.home == home => {
                    entry.view.merge(&view);
                }
                _ => {
                    let hidden = hidden.is_some_and(|(of, is_hidden)| of == ulid && is_hidden);
                    entries.push(Entry { session_id: SessionId { ulid, home }, view, hidden });
                }
            },
        }
    }
    entries
}

impl Entry {
    /// Whether an erasure up to `erased_at` (Unix milliseconds) covers this session. It does if the
    /// session began before that, by the time in its id or by the server's clock. Both count,
    /// because a device may mint an id ahead of time.
    pub fn is_erased(&self, erased_at: Option<u64>) -> bool {
        erased_at.is_some_and(|erased_at| self.session_id.started_at().min(self.view.started_at) <= erased_at)
    }
}

/// Continue watching, from entries newest first: the newest session of each title, unless it is
/// hidden or completed. Hiding or finishing it does not bring an older session of the title back.
pub fn continue_watching(entries: impl IntoIterator<Item = Entry>) -> Vec<Entry> {
    let mut titles = HashSet::new();
    entries
        .into_iter()
        .filter(|entry| titles.insert(entry.view.first.title_id.clone()))
        .filter(|entry| !entry.hidden && !entry.view.completed())
        .collect()
}

/// A title's bookmark: the session with the newest `last_received_at`; of two equal ones, the newer
/// session.
pub fn bookmark(entries: impl IntoIterator<Item = Entry>) -> Option<Entry> {
    entries
        .into_iter()
        .max_by(|a, b| (a.view.last_received_at, &a.session_id).cmp(&(b.view.last_received_at, &b.session_id)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn part(number: u128, title: &str, position_ms: u64, received_at: u64) -> (Ulid, Row) {
        let mut envelope = testing::example();
        envelope.title_id = title.to_owned();
        envelope.stamp.received_at = received_at;
        envelope.events[0].position_ms = position_ms;
        envelope.events[0].played_ms = 0;
        let id = testing::session(number);
        (id.ulid, Row::Part { home: id.home, view: View::of_envelope(&envelope).unwrap() })
    }

    fn hidden(number: u128, hidden: bool) -> (Ulid, Row) {
        (testing::session(number).ulid, Row::Hidden(hidden))
    }

    #[test]
    fn parts_join_and_hiding_applies_to_rows_on_both_sides() {
        let entries = assemble([
            hidden(9, true),
            part(3, "t1", 5, 30),
            hidden(2, true),
            part(2, "t1", 5, 20),
            part(2, "t1", 9, 21),
            part(1, "t2", 5, 10),
            hidden(1, true),
        ]);
        let seen: Vec<_> = entries.iter().map(|e| (e.session_id.clone(), e.hidden, e.view.last_received_at)).collect();
        assert_eq!(
            seen,
            [(testing::session(3), false, 30), (testing::session(2), true, 21), (testing::session(1), true, 10)]
        );
    }

    /// Two sessions whose ids differ only in their home. No player creates such ids by accident.
    #[test]
    fn sessions_with_one_ulid_and_different_homes_are_two() {
        let (ulid, Row::Part { view, .. }) = part(1, "t1", 5, 10) else { panic!("a part") };
        let west = Row::Part { home: "usw2".parse().unwrap(), view };
        let entries = assemble([hidden(1, true), (ulid, west), part(1, "t1", 9, 11)]);
        let seen: Vec<_> = entries.iter().map(|e| (e.session_id.home.as_str(), e.view.events(), e.hidden)).collect();
        assert_eq!(seen, [("usw2", 1, true), ("use1", 1, true)]);
    }

    proptest! {
        /// Regions may fold a session's envelopes in any split, in any order, any number of times.
        /// Readers see what one writer would have folded.
        #[test]
        fn any_split_over_writers_reads_like_one_writer(
            trace in prop::collection::vec((testing::envelopes(), 0usize..4, 1usize..3), 1..24),
            order in any::<prop::sample::Index>(),
        ) {
            let mut alone: BTreeMap<(SessionId, String), View> = BTreeMap::new();
            let mut parts: BTreeMap<(SessionId, String, usize), View> = BTreeMap::new();
            let join = |view: &mut Option<View>, other: &View| match view {
                Some(view) => view.merge(other),
                None => *view = Some(other.clone()),
            };
            let turned = trace.iter().cycle().skip(order.index(trace.len())).take(trace.len());
            for (envelope, _, _) in &trace {
                let key = (envelope.session_id.clone(), envelope.profile_id.clone());
                let mut view = alone.remove(&key);
                join(&mut view, &View::of_envelope(envelope).unwrap());
                alone.insert(key, view.unwrap());
            }
            for (envelope, writer, times) in turned {
                for _ in 0..*times {
                    let key = (envelope.session_id.clone(), envelope.profile_id.clone(), *writer);
                    let mut view = parts.remove(&key);
                    join(&mut view, &View::of_envelope(envelope).unwrap());
                    parts.insert(key, view.unwrap());
                }
            }
            let mut joined = BTreeMap::new();
            for profile in ["p0", "p1"] {
                let rows = parts.iter().filter(|((_, of, _), _)| of == profile);
                let rows = rows.map(|((session, _, _), view)| {
                    (session.ulid, Row::Part { home: session.home.clone(), view: view.clone() })
                });
                let entries = assemble(rows).into_iter().map(|e| ((e.session_id, profile.to_owned()), e.view));
                joined.extend(entries);
            }
            prop_assert_eq!(joined, alone);
        }
    }

    #[test]
    fn only_the_newest_session_of_a_title_continues() {
        let watching = |rows: Vec<(Ulid, Row)>| {
            continue_watching(assemble(rows)).iter().map(|e| e.session_id.clone()).collect::<Vec<_>>()
        };
        let done = 2_700_000;
        assert_eq!(watching(vec![part(2, "a", 5, 1), part(1, "a", 5, 1)]), [testing::session(2)]);
        assert_eq!(watching(vec![part(2, "a", done, 1), part(1, "a", 5, 1)]), []);
        assert_eq!(watching(vec![hidden(2, true), part(2, "a", 5, 1), part(1, "b", 5, 1)]), [testing::session(1)]);
        assert_eq!(watching(vec![hidden(2, true), part(2, "a", 5, 1), part(1, "a", 5, 1)]), []);
    }

    #[test]
    fn completed_at_ninety_five_percent() {
        let completed = |position| assemble([part(1, "a", position, 1)])[0].view.completed();
        assert!(!completed(2_564_999));
        assert!(completed(2_565_000));
    }

    #[test]
    fn bookmark_is_of_the_session_received_last() {
        let rows = assemble([part(3, "a", 30, 5), part(2, "a", 20, 9), part(1, "a", 10, 7)]);
        assert_eq!(bookmark(rows).unwrap().view.latest.position_ms, 20);
        assert_eq!(bookmark([]), None);
    }

    #[test]
    fn erasure_covers_sessions_begun_before_it_by_either_clock() {
        let entry = assemble([part(5, "a", 1, 7)]).remove(0);
        let began = entry.session_id.started_at();
        assert!(!entry.is_erased(None));
        assert!(!entry.is_erased(Some(6)));
        assert!(entry.is_erased(Some(7)), "received before the erasure, although its id is later");
        assert!(entry.is_erased(Some(began)));
    }
}
