//! The candidate: new code for `process`, tried on live traffic. It folds a sample of profiles into the shadow table, by a consumer group of its own, and
//! `compare` holds what comes of it against the live views.
//!
//! Nothing depends on it: it sends no letter, names no record as failed and is in no books. What it cannot fold is dropped.

use crate::shadow::Shadow;
use apply::{Unbalanced, Unit, count, unpack};
use lambda::batch::{Batch, BatchAnswer, answer};
use lambda::metrics::Metrics;
use lambda::runtime::ServeBatch;
use playback::outcome::Outcome;
use playback::rollout::{Share, bucket};
use std::time::Instant;
use store::{Usage, ViewTable};

/// The buckets of a sample are not those of any rollout: a sample of the profiles that are already moved would prove less.
const SALT: &str = "candidate";

/// Which profiles a candidate folds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample(pub Share);

impl Sample {
    fn has(self, profile_id: &str) -> bool {
        bucket(SALT, profile_id) < self.0.buckets()
    }
}

/// Folds the sampled live records of a batch into the shadow table. The answer is always that all is done.
#[derive(Debug)]
pub struct Candidate<T> {
    /// The shadow table.
    pub shadow: Shadow<T>,
    /// Which profiles it folds.
    pub sample: Sample,
}

impl<T: ViewTable> ServeBatch for Candidate<T> {
    type Error = Unbalanced;

    async fn serve(&self, metrics: &Metrics, batch: Batch, _: u64) -> Result<BatchAnswer, Unbalanced> {
        let (units, contents) = unpack(batch);
        let (mut sampled, mut envelopes) = (Vec::new(), Vec::new());
        for (unit, content) in units.into_iter().zip(contents) {
            if let Ok(envelope) = content
                && !envelope.stamp.shadow
                && self.sample.has(&envelope.profile_id)
            {
                envelopes.push((sampled.len(), envelope));
                sampled.push(Unit { shadow: true, arrived: false, ..unit });
            }
        }
        let mut outcomes: Vec<Outcome> = sampled.iter().map(|unit| Outcome::Dropped { events: unit.events }).collect();
        for (at, verdict) in self.shadow.fold(envelopes, Instant::now()).await {
            if let (Some(slot), Ok(counts)) = (outcomes.get_mut(at), verdict) {
                *slot = Outcome::Settled(counts);
            }
        }
        count(metrics, &sampled, &outcomes, Usage::default())?;
        Ok(answer([]))
    }
}
