//! The fold: turns a batch of envelopes into one delta per session. Once a delta is stored, it
//! tells each record which of its events were new.

use crate::envelope::Envelope;
use crate::outcome::Counts;
use crate::session::SessionId;
use crate::view::View;
use std::collections::HashMap;

/// The key of a view: a session of a profile.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ViewKey {
    /// Whose history.
    pub profile_id: String,
    /// Which session.
    pub session_id: SessionId,
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

/// Folds envelopes into one delta per session. Each envelope comes with the index of its record.
pub fn fold(envelopes: impl IntoIterator<Item = (usize, Envelope)>) -> Vec<Delta> {
    let mut deltas: Vec<Delta> = Vec::new();
    let mut index: HashMap<ViewKey, usize> = HashMap::new();
    for (record, envelope) in envelopes {
        let Some(view) = View::of_envelope(&envelope) else { continue };
        let contribution = Contribution { record, seqs: envelope.events.iter().map(|event| event.seq).collect() };
        let key = ViewKey { profile_id: envelope.profile_id, session_id: envelope.session_id };
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
    use crate::testing;
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
                let events: Vec<_> = trace
                    .iter()
                    .filter(|e| e.session_id == key.session_id && e.profile_id == key.profile_id)
                    .flat_map(|e| e.events.iter().map(move |event| (e, event)))
                    .collect();
                let seqs: BTreeSet<u16> = events.iter().map(|(_, e)| e.seq).collect();
                prop_assert_eq!(view.events(), seqs.len() as u64);
                prop_assert_eq!(view.missing(), u64::from(*seqs.last().unwrap()) + 1 - seqs.len() as u64);
                let played: BTreeSet<u64> =
                    events.iter().flat_map(|(_, e)| e.position_ms - e.played_ms..e.position_ms).collect();
                prop_assert_eq!(view.played_ms(), played.len() as u64);
                let received: BTreeSet<u64> = events.iter().map(|(e, _)| e.stamp.received_at).collect();
                prop_assert_eq!(Some(&view.started_at), received.first());
                prop_assert_eq!(Some(&view.last_received_at), received.last());
                let greatest = events.iter().map(|(e, event)| (event.seq, e.stamp.received_at)).max().unwrap();
                prop_assert_eq!((view.latest.seq, view.latest.received_at), greatest);
                prop_assert!(events.iter().any(|(e, event)| (event.seq, e.stamp.received_at) == greatest
                    && event.position_ms == view.latest.position_ms && event.kind == view.latest.kind));
                let lowest = *seqs.first().unwrap();
                prop_assert!(events.iter().any(|(e, event)| event.seq == lowest && e.title_id == view.first.title_id
                    && event.country == view.first.country && event.title_duration_ms == view.first.title_duration_ms));
            }
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
