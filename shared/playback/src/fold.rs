//! The fold: turns a batch of envelopes into one delta per session and title. Once a delta is stored, it
//! tells each record which of its events were new.

use crate::envelope::Envelope;
use crate::outcome::Counts;
use crate::session::SessionId;
use crate::view::View;
use std::collections::HashMap;

/// The key of a view: a title that a profile watched in a session.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ViewKey {
    /// Whose history.
    pub profile_id: String,
    /// Which session.
    pub session_id: SessionId,
    /// Which title.
    pub title_id: String,
}

/// What a batch adds to a view.
#[derive(Debug, Clone)]
pub struct Delta {
    /// The view.
    pub key: ViewKey,
    /// The join of all its events in the batch.
    pub view: View,
    /// What each record adds, in the order of the batch.
    contributions: Vec<Contribution>,
}

#[derive(Debug, Clone)]
struct Contribution {
    record: usize,
    seqs: Vec<u16>,
}

/// Folds envelopes into one delta per session and title. Each envelope comes with the index of its record.
pub fn fold(envelopes: impl IntoIterator<Item = (usize, Envelope)>) -> Vec<Delta> {
    let mut deltas: Vec<Delta> = Vec::new();
    let mut index: HashMap<ViewKey, usize> = HashMap::new();
    for (record, envelope) in envelopes {
        let Some(view) = View::of_envelope(&envelope) else { continue };
        let contribution = Contribution { record, seqs: envelope.events.iter().map(|event| event.seq).collect() };
        let Envelope { profile_id, session_id, title_id, .. } = envelope;
        let key = ViewKey { profile_id, session_id, title_id };
        match index.get(&key).and_then(|&at| deltas.get_mut(at)) {
            Some(delta) => {
                delta.view.merge(&view);
                delta.contributions.push(contribution);
            }
            None => {
                index.insert(key.clone(), deltas.len());
                deltas.push(Delta { key, view, contributions: vec![contribution] });
            }
        }
    }
    deltas
}

impl Delta {
    /// Indexes of the records that contributed to it.
    pub fn records(&self) -> impl Iterator<Item = usize> + '_ {
        self.contributions.iter().map(|contribution| contribution.record)
    }

    /// How many events it folds, duplicates included.
    pub fn events(&self) -> u64 {
        self.contributions.iter().map(|contribution| contribution.seqs.len() as u64).sum()
    }

    /// For each record, its events as duplicates: the member has erased the view, so they change
    /// nothing.
    pub fn discard(&self) -> Vec<(usize, Counts)> {
        let discarded = |one: &Contribution| (one.record, Counts { applied: 0, duplicate: one.seqs.len() as u64 });
        self.contributions.iter().map(discarded).collect()
    }

    /// For each record, how many of its events were new to the view and how many were duplicates.
    /// `base` is the state that the delta was merged into. An event that comes twice in a batch
    /// counts as new in its first record.
    pub fn attribute(&self, base: Option<&View>) -> Vec<(usize, Counts)> {
        let mut seen = base.map(|view| view.seen.clone()).unwrap_or_default();
        let mut count = |contribution: &Contribution| {
            let mut counts = Counts::default();
            for seq in contribution.seqs.iter().copied().map(u64::from) {
                if seen.contains(seq) {
                    counts.duplicate += 1;
                } else {
                    counts.applied += 1;
                    seen.insert(seq..seq + 1);
                }
            }
            (contribution.record, counts)
        };
        self.contributions.iter().map(&mut count).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::Event;
    use crate::testing;
    use crate::view::{Receipt, Sequence, watch_time};
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    type Views = BTreeMap<ViewKey, View>;

    /// Folds `batches` into `views` one by one, as `process` would if nobody else wrote.
    fn run(views: &mut Views, batches: &[Vec<Envelope>]) -> Counts {
        let mut total = Counts::default();
        for batch in batches {
            for delta in fold(batch.iter().cloned().enumerate()) {
                let base = views.get(&delta.key).cloned();
                for (_, counts) in delta.attribute(base.as_ref()) {
                    total += counts;
                }
                let mut view = delta.view.clone();
                if let Some(base) = &base {
                    view.merge(base);
                }
                views.insert(delta.key, view);
            }
        }
        total
    }

    /// A trace, and the same trace shuffled, with duplicates, cut into batches.
    fn traces() -> impl Strategy<Value = (Vec<Envelope>, Vec<Vec<Envelope>>)> {
        prop::collection::vec(testing::envelopes(), 1..20).prop_flat_map(|trace| {
            let again = prop::collection::vec(prop::sample::select(trace.clone()), 0..10);
            let all = again.prop_map({
                let trace = trace.clone();
                move |again| [trace.clone(), again].concat()
            });
            let batches = (all.prop_shuffle(), 1usize..8)
                .prop_map(|(all, size)| all.chunks(size).map(<[Envelope]>::to_vec).collect::<Vec<_>>());
            (Just(trace), batches)
        })
    }

    proptest! {
        #[test]
        fn any_order_duplication_and_batching_gives_the_same_views((trace, batches) in traces()) {
            let (mut straight, mut shuffled) = (Views::new(), Views::new());
            run(&mut straight, &[trace]);
            let counts = run(&mut shuffled, &batches);
            prop_assert_eq!(&straight, &shuffled);
            let events: u64 = batches.iter().flatten().map(|envelope| envelope.events.len() as u64).sum();
            prop_assert_eq!(counts.applied + counts.duplicate, events);
            prop_assert_eq!(counts.applied, straight.values().map(View::events).sum::<u64>());
        }

        /// Compares the join with a model that keeps every event and computes each field by its
        /// definition.
        #[test]
        fn fold_agrees_with_a_model_that_keeps_every_event((trace, batches) in traces()) {
            let mut views = Views::new();
            run(&mut views, &batches);
            for (key, view) in views {
                let mine = |e: &&Envelope| {
                    (&e.session_id, &e.profile_id, &e.title_id) == (&key.session_id, &key.profile_id, &key.title_id)
                };
                let events: Vec<_> =
                    trace.iter().filter(mine).flat_map(|e| e.events.iter().map(move |event| (e, event))).collect();
                let seqs: BTreeSet<u16> = events.iter().map(|(_, e)| e.seq).collect();
                prop_assert_eq!(view.events(), seqs.len() as u64);
                let missing = u64::from(*seqs.last().unwrap()) + 1 - seqs.len() as u64;
                prop_assert_eq!(Sequence::of([&view]).missing(), missing);
                prop_assert_eq!(Some(view.received_from), events.iter().map(|(e, _)| e.stamp.received_at).min());
                let played: BTreeSet<u64> =
                    events.iter().flat_map(|(_, e)| e.position_ms - e.played_ms..e.position_ms).collect();
                prop_assert_eq!(view.played_ms(), played.len() as u64);
                // The events of one number that were received first.
                let earliest = |seq: u16| {
                    let of_seq = events.iter().filter(move |(_, e)| e.seq == seq);
                    let received_at = of_seq.clone().map(|(e, _)| e.stamp.received_at).min().unwrap();
                    of_seq.filter(move |(e, _)| e.stamp.received_at == received_at)
                };
                let time = |e: &Envelope, event: &Event| watch_time(event.occurred_at, Receipt::of(e));
                let first = &view.first;
                prop_assert_eq!(first.seq, *seqs.first().unwrap());
                prop_assert!(earliest(first.seq).any(|(e, event)| time(e, event) == first.watched_at
                    && e.stamp.received_at == first.received_at && event.position_ms == first.position_ms
                    && event.country == first.country));
                let latest = &view.latest;
                prop_assert_eq!(latest.seq, *seqs.last().unwrap());
                prop_assert!(earliest(latest.seq).any(|(e, event)| time(e, event) == latest.watched_at
                    && e.stamp.received_at == latest.received_at && event.position_ms == latest.position_ms
                    && event.kind == latest.kind && event.device == latest.device));
                let stating = events.iter().filter(|(_, e)| e.title_duration_ms.is_some());
                let newest = stating.clone().map(|(_, e)| e.seq).max();
                prop_assert_eq!(view.duration.map(|duration| duration.seq), newest);
                let of_newest = stating.filter(|(_, e)| Some(e.seq) == newest);
                let received_at = of_newest.clone().map(|(e, _)| e.stamp.received_at).min();
                let is_newest = |(e, event): &(&Envelope, &Event)| {
                    Some(e.stamp.received_at) == received_at && event.title_duration_ms == view.title_duration_ms()
                };
                prop_assert!(newest.is_none() || of_newest.clone().any(is_newest));
            }
        }

        /// Everything is received again later, by another clock: nothing changes.
        #[test]
        fn a_repeat_at_any_later_time_changes_nothing((trace, batches) in traces(), later in 4u64..1_000_000) {
            let mut views = Views::new();
            run(&mut views, &batches);
            let before = views.clone();
            let repeat: Vec<Envelope> = trace.into_iter().map(|mut envelope| {
                envelope.stamp.received_at += later;
                envelope.stamp.sent_at = Some(later);
                envelope
            }).collect();
            run(&mut views, &[repeat]);
            prop_assert_eq!(views, before);
        }
    }

    #[test]
    fn records_of_one_session_in_one_batch_make_one_delta() {
        let deltas = fold((0..10).map(|record| (record, testing::example())));
        assert_eq!(deltas.len(), 1);
        let counts = deltas[0].attribute(None);
        assert_eq!(counts[0], (0, Counts { applied: 1, duplicate: 0 }));
        assert!(counts[1..].iter().all(|(_, counts)| *counts == Counts { applied: 0, duplicate: 1 }));
    }
}
