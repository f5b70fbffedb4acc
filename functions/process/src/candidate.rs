//! The candidate: new code for `process`, tried on live traffic. It folds a sample of profiles into
//! the shadow table, with its own consumer groups, and `compare` compares the result with the live
//! views.
//!
//! Nothing depends on it: it sends no letter, reports no record as failed and is in no books. It
//! drops what it cannot fold.

use crate::shadow::{Shadow, fold_apart};
use apply::{Fork, Unbalanced, unpack};
use lambda::batch::{Batch, BatchAnswer, answer};
use lambda::metrics::Metrics;
use lambda::runtime::{Invocation, ServeBatch};
use playback::rollout::{Share, bucket};
use store::ViewTable;

/// The buckets of a sample differ from those of any rollout: a sample of the profiles that have
/// already moved would prove less.
const SALT: &str = "candidate";

/// Which profiles a candidate folds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample(pub Share);

impl Sample {
    pub(crate) fn has(self, profile_id: &str) -> bool {
        bucket(SALT, profile_id) < self.0.buckets()
    }
}

/// Folds the sampled live records of a batch into the shadow table. It always answers that all are
/// done.
#[derive(Debug)]
pub struct Candidate<T> {
    /// The shadow table.
    pub shadow: Shadow<T>,
    /// Which profiles it folds.
    pub sample: Sample,
}

impl<T: ViewTable> ServeBatch for Candidate<T> {
    type Error = Unbalanced;

    async fn serve(&self, metrics: &Metrics, batch: Batch, _: Invocation) -> Result<BatchAnswer, Unbalanced> {
        let live = Fork::of(unpack(batch)).live.into_iter();
        let live = live.filter_map(|(unit, decoded)| Some((unit, decoded.ok()?)));
        let sampled = live.filter(|(_, envelope)| self.sample.has(&envelope.profile_id)).collect();
        fold_apart(Some(&self.shadow), metrics, sampled).await?;
        Ok(answer([]))
    }
}
