//! Applies again what `process` could not, and gives it up after the last attempt.
//!
//! Woken by the queue `retry`, whose messages are letters (one record each) and notifications of objects in the failure bucket (a
//! whole batch each, which Lambda gave up). All records of all messages are folded together. A letter that still cannot be
//! applied waits, longer each time, as the message that it is; of a batch, the few records that cannot be applied go on as letters
//! of their own, and a batch of which most cannot waits as a whole (in the end SQS itself moves its notification to
//! `dead-letter`). A message is done only when each of its records is in its view or on a queue; only then its object is deleted.
//! So a crash anywhere, or the same message twice, is harmless.

mod config;
mod message;
mod objects;
mod pause;
pub mod testing;
mod work;

pub use config::Config;
pub use message::Object;
pub use objects::{Content, MAX_OBJECT_BYTES, ObjectError, Objects};
pub use pause::{Pause, Pauses, QueuePauses};

use apply::{
    DeadLetter, Decision, Letter, LetterQueue, Unapplied, Unbalanced, Unit, Verdict, apply, carry_out, count, decide,
};
use lambda::batch::{Batch, BatchAnswer, answer};
use lambda::metrics::Metrics;
use lambda::runtime::ServeBatch;
use playback::outcome::{Cause, Outcome};
use std::ops::Range;
use store::ViewTable;
use work::Work;

/// What `retry` works with.
pub struct Retry<T, R, D, O, P> {
    /// The views.
    pub table: T,
    /// The queue `retry`, to park single records of a batch on.
    pub retry: R,
    /// The queue `dead-letter`.
    pub dead_letters: D,
    /// The failure bucket.
    pub objects: O,
    /// The pauses of the queue `retry`.
    pub pauses: P,
    /// How often a record is tried before it is given up.
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
        let (mut units, mut contents) = (Vec::new(), Vec::new());
        for record in batch.records {
            let (work, parts) = work::read(&self.objects, record).await;
            let begin = units.len();
            for (unit, content) in parts {
                units.push(unit);
                contents.push(content);
            }
            works.push((work, begin..units.len()));
        }
        let (verdicts, usage) = apply(&self.table, contents).await?;
        let mut verdicts = verdicts.into_iter();
        let mut decisions = Vec::with_capacity(units.len());
        for (work, range) in &works {
            let verdicts = verdicts.by_ref().take(range.len()).collect();
            decisions.extend(self.decide(work, &units[range.clone()], verdicts, now));
        }
        let outcomes = carry_out(&self.retry, &self.dead_letters, &units, decisions).await;
        count(metrics, &units, &outcomes, usage)?;
        Ok(self.finish(works, &outcomes).await)
    }
}

impl<T, R, D, O: Objects, P: Pauses> Retry<T, R, D, O, P> {
    fn decide(&self, work: &Work, units: &[Unit], verdicts: Vec<Verdict>, now: u64) -> Vec<Decision> {
        let last = work.attempts >= self.max_attempts;
        if work.splits || last {
            let mut decisions = decide(units, verdicts, last, now);
            // The message comes again as a whole: what of it were set aside now would be set aside each time.
            if decisions.iter().any(|decision| matches!(decision, Decision::Leave(_))) {
                let buried = decisions.iter_mut().filter(|decision| matches!(decision, Decision::Bury(..)));
                buried.for_each(|decision| *decision = Decision::Leave(Cause::HeldBack));
            }
            return decisions;
        }
        let one = |(unit, verdict)| match verdict {
            Err(Unapplied::Transient { cause, .. }) => vec![Decision::Leave(cause)],
            settled_or_poison => decide(std::slice::from_ref(unit), vec![settled_or_poison], last, now),
        };
        units.iter().zip(verdicts).flat_map(one).collect()
    }

    /// Forgets the messages of which everything is safe elsewhere, and lets the others come again later.
    async fn finish(&self, works: Vec<(Work, Range<usize>)>, outcomes: &[Outcome]) -> BatchAnswer {
        let (mut failed, mut pauses) = (Vec::new(), Vec::new());
        for (work, range) in works {
            if outcomes[range].iter().all(Outcome::is_durable) {
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

    /// An object that cannot be deleted stays until the bucket lets it expire: to apply its batch again would be worse, since
    /// what of it is dead would be dead twice.
    async fn delete(&self, objects: &[Object]) {
        for object in objects {
            if let Err(error) = self.objects.delete(object).await {
                tracing::warn!(%error, "a batch is applied, but its object could not be deleted");
            }
        }
    }
}
