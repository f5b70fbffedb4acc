//! Applies again what `process` could not apply, and gives up after the last attempt.
//!
//! Woken by the queue `retry`. Its messages are letters (one record each), and notifications of
//! objects in the failure bucket (each a whole batch that Lambda gave up on). All records of all
//! messages are folded together. A letter that still cannot be applied stays on the queue as the
//! same message, and waits longer each time. If a few records of a batch cannot be applied, each
//! becomes a separate letter. If most cannot, the batch waits as a whole (in the end SQS itself
//! moves its notification to `dead-letter`). A message is done only when each of its records is in
//! its view or on a queue; only then is its object deleted. So a crash anywhere, or the same
//! message twice, is harmless.
//!
//! Shadows are never applied again: they are dropped.
//!
//! A third kind of message is an erasure that `query` has begun. It is carried out again here, in
//! the shadow table too: the rest of what was too much for one request, and what a concurrent
//! `process` may have written meanwhile.

mod config;
mod message;
mod objects;
mod pause;
pub mod testing;
mod work;

pub use config::Config;
pub use message::Object;
pub use objects::{MAX_OBJECT_BYTES, ObjectBody, ObjectError, Objects};
pub use pause::{Pause, Pauses, QueuePauses};

use apply::{
    Applied, Books, DeadLetter, Decision, Fork, Letter, LetterQueue, Unapplied, Unbalanced, Unit, apply, carry_out,
    count, count_usage, decide,
};
use lambda::batch::{Batch, BatchAnswer, answer};
use lambda::metrics::Metrics;
use lambda::runtime::ServeBatch;
use playback::outcome::{Cause, Outcome};
use std::time::Duration;
use store::ViewTable;
use tokio::time::{Instant, timeout_at};
use work::Work;

/// How long the messages of one batch may erase. What is left continues when the message is delivered again.
const ERASE_FOR: Duration = Duration::from_secs(10);

/// Serves messages of the queue `retry`. Its answer names those that failed.
#[derive(Debug)]
pub struct Retry<T, R, D, O, P> {
    /// The views.
    pub table: T,
    /// The shadow views, if there is a table for them: only erased from.
    pub shadow: Option<T>,
    /// The queue `retry`, for single records of a batch.
    pub retry: R,
    /// The queue `dead-letter`.
    pub dead_letters: D,
    /// The failure bucket.
    pub objects: O,
    /// The pauses of the queue `retry`.
    pub pauses: P,
    /// How often a record is tried before it is dead-lettered.
    pub max_attempts: u32,
    /// A random number in `0..1`.
    pub jitter: fn() -> f64,
}

impl<T, R, D, O, P> ServeBatch for Retry<T, R, D, O, P>
where
    T: ViewTable,
    R: LetterQueue<Letter>,
    D: LetterQueue<DeadLetter>,
    O: Objects,
    P: Pauses,
{
    type Error = Unbalanced;

    async fn serve(&self, metrics: &Metrics, batch: Batch, now: u64) -> Result<BatchAnswer, Unbalanced> {
        let mut works = Vec::with_capacity(batch.records.len());
        let (mut units, mut decoded) = (Vec::new(), Vec::new());
        for record in batch.records {
            let (work, parts) = work::read(&self.objects, record).await;
            let Fork { live, shadows } = Fork::of(parts);
            for (unit, _) in shadows {
                Books::Shadow.count(metrics, &unit, &Outcome::Drop { events: unit.events });
            }
            let begin = units.len();
            for (unit, content) in live {
                units.push(unit);
                decoded.push(content);
            }
            works.push((work, begin..units.len()));
        }
        let (applied, usage) = apply(&self.table, decoded).await?;
        count_usage(metrics, usage);
        let mut applied = applied.into_iter();
        let mut decisions = Vec::with_capacity(units.len());
        for (work, range) in &works {
            let applied = applied.by_ref().take(range.len()).collect();
            decisions.extend(self.decide(work, &units[range.clone()], applied, now));
        }
        let outcomes = carry_out(&self.retry, &self.dead_letters, &units, decisions).await?;
        count(metrics, Books::Live, &units, &outcomes)?;
        let deadline = Instant::now() + ERASE_FOR;
        let mut finished = Vec::with_capacity(works.len());
        for (work, range) in works {
            let is_done = outcomes[range].iter().all(Outcome::is_durable) && self.erase(&work, deadline).await;
            finished.push((work, is_done));
        }
        Ok(self.finish(finished).await)
    }
}

impl<T: ViewTable, R, D, O, P> Retry<T, R, D, O, P> {
    /// Carries out a message's erasure, if it has one. Returns whether nothing is left to do.
    async fn erase(&self, work: &Work, deadline: Instant) -> bool {
        let Some(erase) = &work.erase else { return true };
        for table in std::iter::once(&self.table).chain(&self.shadow) {
            // A store that hangs must not take the letters beside it past the function's time-out.
            match timeout_at(deadline, table.erase(erase, deadline)).await {
                Ok(Ok(true)) => {}
                Ok(Ok(false)) | Err(_) => {
                    tracing::info!("an erasure is not finished: it continues later");
                    return false;
                }
                Ok(Err(error)) => {
                    tracing::warn!(%error, "an erasure could not go on: it continues later");
                    return false;
                }
            }
        }
        true
    }
}

impl<T, R, D, O: Objects, P: Pauses> Retry<T, R, D, O, P> {
    fn decide(&self, work: &Work, units: &[Unit], applied: Vec<Applied>, now: u64) -> Vec<Decision> {
        let last = work.attempts >= self.max_attempts;
        if work.splits || last {
            let mut decisions = decide(units, applied, last, now);
            // The message is redelivered as a whole: anything dead-lettered now would be
            // dead-lettered each time.
            if decisions.iter().any(|decision| matches!(decision, Decision::Redeliver(_))) {
                let dead = decisions.iter_mut().filter(|decision| matches!(decision, Decision::DeadLetter(..)));
                dead.for_each(|decision| *decision = Decision::Redeliver(Cause::HeldBack));
            }
            return decisions;
        }
        let one = |(unit, applied)| match applied {
            Err(Unapplied::Transient { cause, .. }) => vec![Decision::Redeliver(cause)],
            applied_or_poison => decide(std::slice::from_ref(unit), vec![applied_or_poison], last, now),
        };
        units.iter().zip(applied).flat_map(one).collect()
    }

    /// Forgets the messages that are done, and delays the redelivery of the
    /// others.
    async fn finish(&self, works: Vec<(Work, bool)>) -> BatchAnswer {
        let (mut failed, mut pauses) = (Vec::new(), Vec::new());
        for (work, is_done) in works {
            if is_done {
                self.delete(&work.objects).await;
                continue;
            }
            if let Some(delivery) = work.delivery {
                let seconds = pause::seconds(delivery.receives, (self.jitter)());
                pauses.push(Pause { receipt_handle: delivery.receipt_handle, seconds });
            }
            failed.push(work.message);
        }
        if !pauses.is_empty() {
            self.pauses.pause(pauses).await;
        }
        answer(&failed)
    }

    /// An object that cannot be deleted stays until the bucket lets it expire. Applying its batch
    /// again would be worse: its dead records would be dead-lettered twice.
    async fn delete(&self, objects: &[Object]) {
        for object in objects {
            if let Err(error) = self.objects.delete(object).await {
                tracing::warn!(%error, "a batch is applied, but its object could not be deleted");
            }
        }
    }
}
