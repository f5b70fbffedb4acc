//! Folds batches of records into views.
//!
//! A record that cannot be applied is diverted, so it stops no other: poison to `dead-letter`,
//! anything worth another try to `retry`. Only the records that no queue took, and all failed
//! records when most of a batch fails, are named in the answer and delivered again. That is
//! harmless: folding a record twice changes nothing. The crate `apply` does all of this.
//!
//! Shadows go into a separate table ([`Shadow`]). The same code can also run a second time beside
//! the live function, as a [`Candidate`]: it folds a sample of live profiles into the shadow table,
//! and nothing depends on it.

mod candidate;
mod config;
mod copies;
mod shadow;

pub use candidate::{Candidate, Sample};
pub use config::{Config, ForCandidate, Mode};
pub use copies::{Copies, SendCopies, WithCopies};
pub use shadow::Shadow;

use apply::{
    Books, Chances, DeadLetter, Decoded, Fork, Letter, LetterQueue, Recent, Unbalanced, Unit, apply, carry_out, count,
    count_usage, decide, redelivered_together, unpack,
};
use lambda::batch::{Batch, BatchAnswer, Source, answer};
use lambda::metrics::Metrics;
use lambda::runtime::{Invocation, ServeBatch};
use queue::SEND_FOR;
use std::time::Duration;
use store::ViewTable;

/// What an invocation keeps for the two queues, and for its answer.
pub const RESERVE: Duration = SEND_FOR.saturating_mul(2).saturating_add(Duration::from_secs(4));

/// Folds batches into the views that members see. Its answer names the records that failed.
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
    /// The last batches of this environment.
    pub recent: Recent,
}

impl<T: ViewTable, R: LetterQueue<Letter>, D: LetterQueue<DeadLetter>> ServeBatch for Process<T, R, D> {
    type Error = Unbalanced;

    async fn serve(&self, metrics: &Metrics, batch: Batch, invocation: Invocation) -> Result<BatchAnswer, Unbalanced> {
        let Fork { live, shadows } = Fork::of(unpack(batch));
        let (failed, folded) = tokio::join!(
            self.apply(metrics, live, invocation),
            shadow::fold_apart(self.shadow.as_ref(), metrics, shadows)
        );
        // A fault in our counting of shadows must not hold up live events.
        if let Err(unbalanced) = folded {
            tracing::error!(%unbalanced, "shadows were lost");
        }
        Ok(answer(&failed?))
    }
}

impl<T: ViewTable, R: LetterQueue<Letter>, D: LetterQueue<DeadLetter>> Process<T, R, D> {
    /// Applies or diverts units. Returns the sources of those for which neither worked.
    async fn apply(
        &self,
        metrics: &Metrics,
        units: Vec<(Unit, Decoded)>,
        invocation: Invocation,
    ) -> Result<Vec<Source>, Unbalanced> {
        let now = invocation.now;
        let (units, decoded): (Vec<Unit>, Vec<Decoded>) = units.into_iter().unzip();
        let (applied, usage) = apply(&self.table, decoded, invocation.leaving(RESERVE)).await?;
        count_usage(metrics, usage);
        let flood = self.recent.flood(&applied, now);
        let decisions = decide(&units, applied, Chances::default(), flood, now);
        let together = redelivered_together(units.iter().map(|unit| &unit.source));
        let outcomes = carry_out(&self.retry, &self.dead_letters, &units, &together, decisions).await?;
        count(metrics, Books::Live, &units, &outcomes)?;
        let failed = units.into_iter().zip(&outcomes).filter(|(_, outcome)| !outcome.is_durable());
        let mut failed: Vec<Source> = failed.map(|(unit, _)| unit.source).collect();
        failed.dedup();
        Ok(failed)
    }
}
