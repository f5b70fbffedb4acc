//! Folds batches of records into views.
//!
//! What cannot be applied is diverted, so that nothing stops the line: poison to `dead-letter`, what is worth another try to
//! `retry`. Only what no queue took, and everything when most of a batch fails, is named in the answer and delivered again, which is
//! harmless, since folding a record twice changes nothing. How that is done is in the crate `apply`.
//!
//! Shadows go into a table of their own ([`Shadow`]). And the same code can run a second time beside the live one, as a candidate: it folds a
//! sample of live profiles into the shadow table, and nothing depends on it ([`Candidate`]).

mod audition;
mod config;
mod shadow;

pub use audition::{Candidate, Sample};
pub use config::{Config, Part};
pub use shadow::Shadow;

use apply::{DeadLetter, Letter, LetterQueue, Unbalanced, apply, carry_out, count, decide, unpack};
use lambda::batch::{Batch, BatchAnswer, Source, answer};
use lambda::metrics::Metrics;
use lambda::runtime::ServeBatch;
use std::time::Instant;
use store::ViewTable;

/// Folds batches into the views that members see. What fails of the records is in the answer.
#[derive(Debug)]
pub struct Process<T, R, D> {
    /// The views.
    pub table: T,
    /// The shadow views, if there is a table for them.
    pub shadow: Option<Shadow<T>>,
    /// The queue `retry`.
    pub retry: R,
    /// The queue `dead-letter`.
    pub dead_letters: D,
}

impl<T: ViewTable, R: LetterQueue<Letter>, D: LetterQueue<DeadLetter>> ServeBatch for Process<T, R, D> {
    type Error = Unbalanced;

    async fn serve(&self, metrics: &Metrics, batch: Batch, now: u64) -> Result<BatchAnswer, Unbalanced> {
        let (units, mut contents) = unpack(batch);
        let shadows = shadow::take_shadows(&mut contents);
        let folded = shadow::fold_into(self.shadow.as_ref(), shadows, Instant::now());
        let (applied, folded) = tokio::join!(apply(&self.table, contents), folded);
        let (mut verdicts, usage) = applied?;
        for (at, verdict) in folded {
            if let Some(slot) = verdicts.get_mut(at) {
                *slot = verdict;
            }
        }
        let decisions = decide(&units, verdicts, false, now);
        let outcomes = carry_out(&self.retry, &self.dead_letters, &units, decisions).await;
        count(metrics, &units, &outcomes, usage)?;
        let failed = units.iter().zip(&outcomes).filter(|(_, outcome)| !outcome.is_durable());
        let mut failed: Vec<&Source> = failed.map(|(unit, _)| &unit.source).collect();
        failed.dedup();
        Ok(answer(failed))
    }
}
