//! Conditional writes: on absence, on the version, and what a lost race returns.

use crate::case::{Case, Watched, session};
use aws_sdk_dynamodb::types::AttributeValue;
use playback::contract::MAX_RANGES;
use playback::fold::fold;
use playback::outcome::Counts;
use std::collections::BTreeSet;
use store::testing::{settle_in_time, write_one};
use store::{Fault, Stored, ViewTable as _, WriteError};

async fn stored(case: &Case, number: u64) -> Option<Stored> {
    case.views.read(&[case.key(number)]).await.remove(0).unwrap()
}

pub(crate) async fn a_view_is_written_where_there_is_none(case: Case) {
    assert_eq!(stored(&case, 1).await, None);
    let view = Watched::new(1, "t1").view();
    write_one(&case.views, &case.key(1), &view, None).await.unwrap();
    assert_eq!(stored(&case, 1).await, Some(Stored { view: view.clone(), version: 1 }));
    // Exactly what is stored: other regions, the index and the change feed read it.
    assert_eq!(case.items().await, [case.view_item(1, None, &view)]);
}

pub(crate) async fn a_view_is_written_if_its_version_is_as_expected(case: Case) {
    let (first, second) = (Watched::new(1, "t1").view(), Watched::new(1, "t1").seq(1).view());
    write_one(&case.views, &case.key(1), &first, None).await.unwrap();
    write_one(&case.views, &case.key(1), &second, Some(1)).await.unwrap();
    assert_eq!(stored(&case, 1).await, Some(Stored { view: second.clone(), version: 2 }));
    write_one(&case.views, &case.key(1), &first, Some(2)).await.unwrap();
    assert_eq!(stored(&case, 1).await, Some(Stored { view: first, version: 3 }));
}

pub(crate) async fn a_lost_race_returns_what_is_stored_and_changes_nothing(case: Case) {
    let (winner, loser) = (Watched::new(1, "t1").view(), Watched::new(1, "t1").seq(1).view());
    write_one(&case.views, &case.key(1), &winner, None).await.unwrap();
    let there = Stored { view: winner, version: 1 };
    for expected in [None, Some(2), Some(0)] {
        match write_one(&case.views, &case.key(1), &loser, expected).await {
            Err(WriteError::Lost(Some(current))) => assert_eq!(*current, there),
            other => panic!("expected {expected:?}: {other:?}"),
        }
    }
    assert_eq!(stored(&case, 1).await, Some(there));
}

pub(crate) async fn lost_race_against_a_deleted_item_makes_no_item(case: Case) {
    let view = Watched::new(1, "t1").view();
    write_one(&case.views, &case.key(1), &view, None).await.unwrap();
    case.delete(1).await;
    let lost = write_one(&case.views, &case.key(1), &view, Some(1)).await;
    assert!(matches!(lost, Err(WriteError::Lost(None))), "{lost:?}");
    assert_eq!(stored(&case, 1).await, None);
}

/// Sixteen writers with several batches each; two writers have each event.
pub(crate) async fn concurrent_writers_count_each_event_once(case: Case) {
    const WRITERS: u16 = 16;
    const BATCHES: u16 = 4;
    const EVENTS: u16 = WRITERS * BATCHES;
    let event = |seq: u16| Watched::new(1, "t1").seq(seq).at(u64::from(seq) * 20).received(u64::from(seq % 7));
    let writers = (0..WRITERS).map(|writer| {
        let case = case.clone();
        tokio::spawn(async move {
            let (mut total, mut lost) = (Counts::default(), 0);
            for batch in 0..BATCHES {
                let own = batch * WRITERS + writer;
                let other = (own + 5 * WRITERS + 3) % EVENTS;
                let deltas =
                    || fold([own, other].map(|seq| event(seq).envelope(&case.profile)).into_iter().enumerate());
                // A batch that loses too many races in a row is delivered again, but each time
                // implies 32 other writes.
                for delivery in 1.. {
                    assert!(delivery <= EVENTS, "batch {batch} of writer {writer} never succeeds");
                    let (mut settled, usage) = settle_in_time(&case.views, deltas()).await;
                    assert_eq!(settled.len(), 1);
                    lost += usage.lost_races;
                    match settled.remove(0).result {
                        Ok(counted) => {
                            counted.into_iter().for_each(|(_, counts)| total += counts);
                            break;
                        }
                        Err(error) => assert!(matches!(error.fault, Fault::LostRaces(_)), "{error}"),
                    }
                }
            }
            (total, lost)
        })
    });
    let (mut total, mut lost) = (Counts::default(), 0);
    for writer in writers.collect::<Vec<_>>() {
        let (counts, races) = writer.await.unwrap();
        total += counts;
        lost += races;
    }
    let found = stored(&case, 1).await.unwrap();
    let expected = (0..EVENTS).map(|seq| event(seq).view()).reduce(|mut all, one| {
        all.merge(&one);
        all
    });
    assert_eq!(Some(found.view), expected);
    assert_eq!(total, Counts { applied: u64::from(EVENTS), duplicate: u64::from(EVENTS) });
    assert!(lost > 0, "no race was lost: the writers were not concurrent");
    assert!(found.version <= u64::from(EVENTS), "more writes than batches");
}

pub(crate) async fn view_of_too_many_ranges_is_refused_and_stays_as_it_was(case: Case) {
    const MOST: u16 = MAX_RANGES as u16;
    // Every second sequence number.
    let events: Vec<Watched> = (0..MOST).map(|at| Watched::new(1, "t1").seq(at * 2)).collect();
    case.watch(&events).await;
    let before = stored(&case, 1).await;
    assert_eq!(before.as_ref().map(|stored| stored.view.ranges()), Some(MAX_RANGES));
    let more = [Watched::new(1, "t1").seq(MOST * 2), Watched::new(1, "t2").seq(MOST * 2 + 1)];
    let (settled, _) =
        settle_in_time(&case.views, fold(more.map(|one| one.envelope(&case.profile)).into_iter().enumerate())).await;
    let refused = |one: &store::Settled| one.result.as_ref().err().map(|error| error.fault.clone());
    let mut faults: Vec<_> = settled.iter().map(|one| (one.delta.key.title_id.as_str(), refused(one))).collect();
    faults.sort_by_key(|(title, _)| *title);
    assert_eq!(faults, [("t1", Some(Fault::TooLarge(MAX_RANGES + 1))), ("t2", None)]);
    assert_eq!(stored(&case, 1).await, before);
    // What closes a gap is welcome.
    assert_eq!(case.settle(&[Watched::new(1, "t1").seq(1)]).await, Counts { applied: 1, duplicate: 0 });
}

pub(crate) async fn unknown_attributes_survive_an_update(case: Case) {
    let event = Watched::new(1, "t1");
    let mut item = case.view_item(1, None, &event.view());
    let known: BTreeSet<String> = item.keys().cloned().collect();
    item.insert("of_newer_code".to_owned(), AttributeValue::S("kept".to_owned()));
    case.put([item.clone()]).await;
    case.watch(&[event.seq(1)]).await;
    let now = case.items().await.remove(0);
    assert_eq!(now["of_newer_code"], item["of_newer_code"]);
    assert_eq!(now["version"], AttributeValue::N("2".to_owned()));
    assert_eq!(now.keys().filter(|name| !known.contains(*name)).count(), 1);
}

/// A session may change its title. The index finds each.
pub(crate) async fn each_title_of_a_session_is_found_by_the_index(case: Case) {
    case.watch(&[Watched::new(1, "later").seq(5)]).await;
    case.watch(&[Watched::new(1, "earlier").seq(2)]).await;
    for title in ["later", "earlier"] {
        let found = case.resume(title).await.unwrap();
        assert_eq!((found.session_id, found.view.title_id.as_str()), (session(1), title));
    }
    assert_eq!(case.resume("late").await, None);
}
