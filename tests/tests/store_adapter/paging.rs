//! Pages of any limit against a model of the list, and the bound on how many rows one request
//! reads.

use crate::case::{Case, Watched, numbers, session};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::collections::BTreeMap;
use tokio::runtime::Handle;
use tokio::task::block_in_place;

/// One session of a random history.
#[derive(Debug, Clone)]
struct Session {
    /// The regions that wrote a part; `None` is the home region. Empty: only the hidden register
    /// exists.
    writers: Vec<Option<&'static str>>,
    hidden: Option<bool>,
}

/// A random history, and how it is read.
#[derive(Debug, Clone)]
struct Plan {
    sessions: BTreeMap<u64, Session>,
    include_hidden: bool,
    erased: Option<u64>,
}

fn plans() -> impl Strategy<Value = Plan> {
    let writers = prop::sample::subsequence(vec![None, Some("euw1"), Some("usw2")], 0..=3);
    let session = (writers, prop::option::of(any::<bool>())).prop_map(|(writers, hidden)| Session { writers, hidden });
    let sessions = prop::collection::btree_map(0u64..40, session, 0..14);
    // Mostly among the sessions, and mostly towards the older ones.
    (sessions, any::<bool>(), prop::option::of(0u64..30)).prop_map(|(sessions, include_hidden, erased)| Plan {
        sessions,
        include_hidden,
        erased,
    })
}

impl Plan {
    /// Sessions newest first: number, hidden, events.
    fn list(&self) -> Vec<(u64, bool, u64)> {
        let all = self
            .sessions
            .iter()
            .rev()
            .map(|(number, session)| (*number, session.hidden == Some(true), session.writers.len() as u64));
        all.filter(|(number, hidden, parts)| {
            *parts > 0 && (self.include_hidden || !hidden) && self.erased.is_none_or(|erased| *number > erased)
        })
        .collect()
    }

    async fn store(&self, case: &Case) {
        let mut items = Vec::new();
        for (&number, session) in &self.sessions {
            for (writer, seq) in session.writers.iter().zip(0..) {
                items.push(case.view_item(number, *writer, &Watched::new(number, "t1").seq(seq).view()));
            }
            items.extend(session.hidden.map(|hidden| case.hidden_item(number, hidden)));
        }
        case.put(items).await;
        if let Some(erased) = self.erased {
            // The mark alone, so readers have something to leave out.
            case.mark(&case.everything(erased)).await;
        }
    }
}

pub(crate) async fn pages_of_any_limit_match_a_model(case: Case) {
    let mut runner = TestRunner::new(Config { cases: 12, failure_persistence: None, ..Config::default() });
    let runs = std::cell::Cell::new(0);
    let check = |plan: Plan| {
        runs.set(runs.get() + 1);
        let case = case.of(format!("{}-{}", case.profile, runs.get()));
        Handle::current().block_on(async {
            plan.store(&case).await;
            for limit in [1, 2, 3, 5, 100] {
                let (entries, _) = case.history(limit, plan.include_hidden).await;
                let hidden = entries.iter().map(|entry| (entry.hidden, entry.view.events()));
                let found: Vec<_> = numbers(&entries).into_iter().zip(hidden).map(|(n, (h, e))| (n, h, e)).collect();
                prop_assert_eq!(found, plan.list(), "in pages of {}", limit);
            }
            Ok(())
        })
    };
    block_in_place(|| runner.run(&plans(), check)).unwrap();
}

/// More rows than one request reads, all hidden, in front of visible ones.
pub(crate) async fn too_many_hidden_rows_end_the_page_with_a_token(case: Case) {
    const HIDDEN: u64 = 2_100; // two rows each, and more than twice what one request reads
    let view = Watched::new(0, "t1").view();
    let rows = |number| [case.view_item(number, None, &view), case.hidden_item(number, number > 2)];
    case.put((0..HIDDEN + 3).flat_map(rows)).await;
    let first = case.page(2, None, false).await;
    assert!(first.entries.is_empty() && first.next.is_some(), "{first:?}");
    let (entries, lengths) = case.history(2, false).await;
    assert_eq!(numbers(&entries), [2, 1, 0]);
    assert!(lengths.len() <= 4, "{lengths:?}");
    assert_eq!(entries[0].session_id, session(2));
}

/// Sessions of so many parts that a request reaches its bound within one of them.
pub(crate) async fn page_that_stops_within_a_session_leaves_it_to_the_next(case: Case) {
    const SESSIONS: u64 = 21;
    const PARTS: u16 = 101;
    let part = |number, seq: u16| {
        let view = Watched::new(number, "t1").seq(seq).view();
        case.view_item(number, Some(&format!("writer{seq:03}")), &view)
    };
    case.put((0..SESSIONS).flat_map(|number| (0..PARTS).map(move |seq| (number, seq))).map(|(n, seq)| part(n, seq)))
        .await;
    // With this limit a request stops after 2,000 of the 2,121 rows.
    let (entries, lengths) = case.history(62, false).await;
    assert_eq!(lengths, [19, 2]);
    assert_eq!(numbers(&entries), (0..SESSIONS).rev().collect::<Vec<_>>());
    assert!(entries.iter().all(|entry| entry.view.events() == u64::from(PARTS)), "a session was split");
}
