//! Events in any order, with any duplication, in any batches, from any interleaving of concurrent
//! writers: the views end the same.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use playback::contract::{Device, Event, Kind, MAX_RANGES};
use playback::envelope::{Envelope, Stamp};
use playback::fold::{ViewKey, fold};
use playback::outcome::{Counts, Reason};
use playback::session::SessionId;
use playback::view::View;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use store::testing::{Effect, MemoryTable, settle_in_time, write_one};
use store::{Erase, Fault, StoreError};

fn envelope(session: u128, received_at: u64, events: Vec<(u16, u64)>) -> Envelope {
    let device = Arc::new(Device { id: Some("d1".to_owned()), kind: Some("tv".to_owned()) });
    let event = |(seq, position_ms): (u16, u64)| Event {
        seq,
        kind: Kind::Progressed,
        position_ms,
        played_ms: position_ms.min(7),
        title_duration_ms: Some(100),
        credits_ms: None,
        occurred_at: Some(received_at),
        device: Arc::clone(&device),
        country: None,
    };
    Envelope {
        session_id: SessionId::mint("use1".parse().unwrap(), 1_790_000_000_000, session),
        profile_id: "p1".to_owned(),
        title_id: "t1".to_owned(),
        stamp: Stamp {
            received_at,
            sent_at: None,
            ingest_region: "us-east-1".to_owned(),
            trace_id: None,
            shadow: false,
        },
        events: events.into_iter().map(event).collect(),
    }
}

fn key_of(envelope: &Envelope) -> ViewKey {
    let Envelope { profile_id, session_id, title_id, .. } = envelope.clone();
    ViewKey { profile_id, session_id, title_id }
}

fn envelopes() -> impl Strategy<Value = Envelope> {
    (0u128..3, 0u64..4, prop::collection::vec((0u16..20, 0u64..100), 1..5))
        .prop_map(|(session, received_at, events)| envelope(session, received_at, events))
}

/// The views that one writer makes of the whole trace in one batch.
fn expected(trace: &[Envelope]) -> BTreeMap<ViewKey, View> {
    fold(trace.iter().cloned().enumerate()).into_iter().map(|delta| (delta.key, delta.view)).collect()
}

/// Shuffles and duplicates a trace, and deals it out to writers in batches.
fn plans() -> impl Strategy<Value = (Vec<Envelope>, Vec<Vec<Vec<Envelope>>>)> {
    prop::collection::vec(envelopes(), 1..24).prop_flat_map(|trace| {
        let again = prop::collection::vec(prop::sample::select(trace.clone()), 0..12);
        let all = again.prop_map({
            let trace = trace.clone();
            move |again| [trace.clone(), again].concat()
        });
        let dealt = (all.prop_shuffle(), 1usize..5, 1usize..6).prop_map(|(all, writers, size)| {
            let mut hands = vec![Vec::new(); writers];
            for (at, envelope) in all.into_iter().enumerate() {
                hands[at % writers].push(envelope);
            }
            hands.into_iter().map(|hand| hand.chunks(size).map(<[_]>::to_vec).collect()).collect()
        });
        (Just(trace), dealt)
    })
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

proptest! {
    #[test]
    fn concurrent_writers_always_end_with_the_same_views((trace, writers) in plans(), seed in any::<u64>()) {
        let table = MemoryTable::new(seed);
        let sent: u64 = writers.iter().flatten().flatten().map(|e| e.events.len() as u64).sum();
        let total = block_on(async {
            let run = writers.into_iter().map(|batches| async {
                let mut total = Counts::default();
                for batch in batches {
                    let (settled, usage) = settle_in_time(&table, fold(batch.into_iter().enumerate())).await;
                    assert!(usage.reads as usize >= settled.len());
                    for one in settled {
                        for (_, counts) in one.result.unwrap() {
                            total += counts;
                        }
                    }
                }
                total
            });
            futures::future::join_all(run).await.into_iter().fold(Counts::default(), |mut sum, counts| {
                sum += counts;
                sum
            })
        });
        prop_assert_eq!(table.views(), expected(&trace));
        // Every event is counted once, and applied exactly once, no matter who won which race.
        prop_assert_eq!(total.applied + total.duplicate, sent);
        prop_assert_eq!(total.applied, expected(&trace).values().map(View::events).sum::<u64>());
    }

    /// A writer that dies before a write, or whose answer is lost so its batch is redelivered,
    /// changes nothing.
    #[test]
    fn failures_and_redelivery_end_with_the_same_views((trace, writers) in plans(), seed in any::<u64>(), every in 2u64..5) {
        let table = MemoryTable::new(seed);
        let calls = AtomicU64::new(seed % every);
        table.fail_writes(Box::new(move |key| {
            calls.fetch_add(1, Ordering::Relaxed).is_multiple_of(every).then(|| StoreError {
                operation: "write",
                subject: key.session_id.to_string(),
                fault: Fault::Unavailable("the test made it fail".to_owned()),
            })
        }));
        block_on(async {
            for batch in writers.into_iter().flatten() {
                loop {
                    let (settled, _) = settle_in_time(&table, fold(batch.iter().cloned().enumerate())).await;
                    if settled.iter().all(|one| one.result.is_ok()) {
                        break;
                    }
                }
            }
        });
        prop_assert_eq!(table.views(), expected(&trace));
    }
}

#[test]
fn lost_races_happen_and_need_no_second_read() {
    let mut lost = 0;
    for seed in 0..50 {
        let table = MemoryTable::new(seed);
        block_on(async {
            let write = |at: u16| settle_in_time(&table, fold([(0, envelope(1, 1, vec![(at, u64::from(at))]))]));
            futures::future::join_all((0..8).map(write)).await;
        });
        let effects = table.take_effects();
        lost += effects.iter().filter(|effect| matches!(effect, Effect::Lost(_))).count();
        // One read per writer: after a lost race, the view to merge came with the failure.
        assert_eq!(effects.iter().filter(|effect| matches!(effect, Effect::Read(_))).count(), 8);
        assert_eq!(table.views().values().next().unwrap().events(), 8);
    }
    assert!(lost > 100, "only {lost} lost races in 50 runs of 8 writers: they do not interleave");
}

#[test]
fn an_unchanged_view_is_not_written_again() {
    let table = MemoryTable::new(0);
    let batch = || fold([(0, envelope(1, 5, vec![(0, 10), (1, 20)]))]);
    let (first, again) =
        block_on(async { (settle_in_time(&table, batch()).await, settle_in_time(&table, batch()).await) });
    assert_eq!((first.1.writes, again.1.writes), (1, 0));
    assert_eq!(again.0[0].result, Ok(vec![(0, Counts { applied: 0, duplicate: 2 })]));
}

/// Late events, a redelivery, and a `process` that read the view before it was erased.
#[test]
fn nothing_is_written_of_what_was_erased() {
    let table = MemoryTable::new(0);
    let old = envelope(1, 5, vec![(0, 10)]);
    let key = key_of(&old);
    block_on(async {
        settle_in_time(&table, fold([(0, old.clone())])).await;
        let erase = Erase { profile_id: "p1".to_owned(), at: 9, title_id: None, session_id: None };
        store::ViewTable::erase(&table, &erase, tokio::time::Instant::now()).await.unwrap();
        for late in [old, envelope(1, 8, vec![(1, 20), (2, 30)])] {
            let events = late.events.len() as u64;
            let (settled, usage) = settle_in_time(&table, fold([(0, late)])).await;
            assert_eq!(settled[0].result, Ok(vec![(0, Counts { applied: 0, duplicate: events })]));
            assert_eq!(usage.writes, 0);
        }
        // The id of this session is ahead of the erasure, and it was found out to be older: it stays
        // erased.
        let next = envelope(1, 10, vec![(3, 40)]);
        assert_eq!(settle_in_time(&table, fold([(0, next)])).await.1.writes, 0);
        // A session that began after the erasure, by both clocks, is new.
        assert_eq!(settle_in_time(&table, fold([(0, envelope(2, 10, vec![(0, 40)]))])).await.1.writes, 1);
    });
    assert!(!table.views().contains_key(&key));
}

#[test]
fn holes_are_counted_over_all_titles_of_a_session() {
    let table = MemoryTable::new(0);
    let part = |title: &str, kind, seqs: &[u16]| {
        let mut envelope = envelope(1, 5, seqs.iter().map(|seq| (*seq, 1)).collect());
        envelope.title_id = title.to_owned();
        envelope.events.last_mut().unwrap().kind = kind;
        envelope
    };
    let holes = |envelope| {
        let (_, usage) = block_on(settle_in_time(&table, fold([(0, envelope)])));
        (usage.holes.opened, usage.holes.closed)
    };
    assert_eq!(holes(part("e1", Kind::Progressed, &[0, 1, 2])), (0, 0));
    assert_eq!(holes(part("e2", Kind::Progressed, &[5, 6])), (0, 0), "the session goes on");
    assert_eq!(holes(part("e2", Kind::Stopped, &[7])), (2, 0), "3 and 4 are missing, and 0 to 2 are not");
    assert_eq!(holes(part("e1", Kind::Stopped, &[4])), (0, 1));
    assert_eq!(holes(part("e1", Kind::Progressed, &[3])), (0, 1));
}

/// The writes of a batch are concurrent, and those of one session follow each other.
#[test]
fn titles_of_one_batch_open_no_holes_to_each_other() {
    for seed in 0..50 {
        let table = MemoryTable::new(seed);
        let part = |title: &str, kind, seqs: std::ops::Range<u16>| {
            let mut envelope = envelope(1, 5, seqs.map(|seq| (seq, 1)).collect());
            envelope.title_id = title.to_owned();
            envelope.events.last_mut().unwrap().kind = kind;
            envelope
        };
        let batch = [part("e2", Kind::Stopped, 3..6), part("e1", Kind::Progressed, 0..3)];
        let (_, usage) = block_on(settle_in_time(&table, fold(batch.into_iter().enumerate())));
        assert_eq!((usage.holes.opened, usage.holes.closed), (0, 0), "seed {seed}");
    }
}

#[test]
fn a_view_with_too_many_ranges_is_refused_and_the_others_go_on() {
    let table = MemoryTable::new(0);
    let seqs = |from: u16, to: u16| envelope(1, 5, (from..to).map(|seq| (seq * 2, 0)).collect());
    let most = MAX_RANGES as u16;
    block_on(async {
        for at in (0..most).step_by(500) {
            let (settled, _) = settle_in_time(&table, fold([(0, seqs(at, at + 500))])).await;
            assert!(settled[0].result.is_ok(), "{at}");
        }
        let more = [(0, seqs(most, most + 1)), (1, envelope(2, 5, vec![(0, 0)]))];
        let (settled, _) = settle_in_time(&table, fold(more)).await;
        let faults: Vec<_> =
            settled.into_iter().filter_map(|one| one.result.err()).map(|error| error.fault.class()).collect();
        assert_eq!(faults, [Err(Reason::ViewTooLarge)]);
        // What closes a gap, or repeats, is welcome.
        let (settled, _) = settle_in_time(&table, fold([(0, envelope(1, 5, vec![(1, 0), (2, 0)]))])).await;
        assert!(settled[0].result.is_ok());
    });
}

#[test]
fn corrupt_view_fails_only_its_own_delta() {
    let table = MemoryTable::new(0);
    let corrupt = envelope(1, 1, vec![(0, 1)]);
    table.put_raw(key_of(&corrupt), b"no view".to_vec());
    let good = envelope(2, 1, vec![(0, 1)]);
    let (settled, _) = block_on(settle_in_time(&table, fold([(0, corrupt), (1, good.clone())])));
    let result_of = |record: usize| {
        settled.iter().find(|one| one.delta.records().any(|of| of == record)).map(|one| one.result.is_ok())
    };
    assert_eq!((result_of(0), result_of(1)), (Some(false), Some(true)));
    assert!(table.views().keys().any(|key| key.session_id == good.session_id));
}

#[test]
fn a_view_deleted_during_a_write_starts_anew() {
    let table = MemoryTable::new(0);
    let first = envelope(1, 1, vec![(0, 1)]);
    let key = key_of(&first);
    block_on(async {
        settle_in_time(&table, fold([(0, first)])).await;
        // Deleted between the read and the write of the next batch.
        let base = store::ViewTable::read(&table, std::slice::from_ref(&key)).await;
        table.delete(&key);
        let next = envelope(1, 2, vec![(1, 2)]);
        let view = View::of_envelope(&next).unwrap();
        let version = base[0].as_ref().unwrap().as_ref().map(|stored| stored.version);
        let lost = write_one(&table, &key, &view, version).await;
        assert!(matches!(lost, Err(store::WriteError::Lost(None))), "{lost:?}");
        let (settled, _) = settle_in_time(&table, fold([(0, next)])).await;
        assert!(settled[0].result.is_ok());
    });
    assert_eq!(table.views()[&key].events(), 1);
}
