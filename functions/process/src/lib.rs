//! Folds batches of records into views.
//!
//! What cannot be applied is diverted, so that nothing stops the line: poison to `dead-letter`, what is worth another try to
//! `retry`. Only what no queue took, and everything when most of a batch fails, is named in the answer and delivered again, which is
//! harmless, since folding a record twice changes nothing. How that is done is in the crate `apply`.

mod config;

pub use config::Config;

use apply::{DeadLetter, Letter, LetterQueue, Unbalanced, apply, carry_out, count, decide, unpack};
use lambda::batch::{Batch, BatchAnswer, Source, answer};
use lambda::metrics::Metrics;
use store::ViewTable;

/// Processes one batch. `now` is the clock, Unix milliseconds.
///
/// # Errors
/// [`Unbalanced`]. What fails of the records is no error: it is in the answer.
pub async fn process<T, R, D>(
    table: &T,
    retry: &R,
    dead_letters: &D,
    metrics: &Metrics,
    batch: Batch,
    now: u64,
) -> Result<BatchAnswer, Unbalanced>
where
    T: ViewTable,
    R: LetterQueue<Letter>,
    D: LetterQueue<DeadLetter>,
{
    let (units, contents) = unpack(batch);
    let (verdicts, usage) = apply(table, contents).await?;
    let decisions = decide(&units, verdicts, false, now);
    let outcomes = carry_out(retry, dead_letters, &units, decisions).await;
    count(metrics, &units, &outcomes, usage)?;
    let failed = units.iter().zip(&outcomes).filter(|(_, outcome)| !outcome.is_durable());
    let mut failed: Vec<&Source> = failed.map(|(unit, _)| &unit.source).collect();
    failed.dedup();
    Ok(answer(failed))
}
