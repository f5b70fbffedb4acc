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
pub use objects::{MAX_OBJECT_BYTES, ObjectBody, ObjectError, Objects, READ_FOR, bucket};
pub use pause::{Pause, Pauses, QueuePauses};

use apply::{
    Applied, Books, Chances, DeadLetter, Decision, Flood, Fork, Letter, LetterQueue, Unbalanced, Unit, apply,
    carry_out, count, count_usage, decide,
};
use futures::stream::{self, StreamExt};
use lambda::batch::{Batch, BatchAnswer, answer};
use lambda::metrics::Metrics;
use lambda::runtime::{Invocation, ServeBatch};
use playback::outcome::Outcome;
use queue::SEND_FOR;
use std::time::Duration;
use store::ViewTable;
use tokio::time::{Instant, timeout_at};
use work::Work;

/// How long the messages of one batch may erase. What is left continues when the message is delivered again.
const ERASE_FOR: Duration = Duration::from_secs(8);
/// What an invocation keeps for the pauses, the deletion of objects and its answer.
const RESERVE: Duration = Duration::from_secs(10);
/// What it keeps for everything after the store: the two queues, erasures and `RESERVE`.
pub const RESERVED: Duration = RESERVE.saturating_add(ERASE_FOR).saturating_add(SEND_FOR.saturating_mul(2));
/// Messages whose objects are read at the same time; an object takes up to 16 MB. The ten messages of
/// a batch are read in two rounds, so a bucket that hangs leaves time for the letters beside it.
const CONCURRENT_READS: usize = 5;
/// How long a letter may wait for something that is away. A message of SQS lives for 14 days and
/// 1,000 deliveries, which with pauses of up to 15 minutes are at least 5 days.
pub const MAX_AGE: Duration = Duration::from_secs(5 * 24 * 3_600);

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
    /// How often a record is tried before it is dead-lettered, if the failure may be its own.
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

    async fn serve(&self, metrics: &Metrics, batch: Batch, invocation: Invocation) -> Result<BatchAnswer, Unbalanced> {
        let now = invocation.now;
        let mut works = Vec::with_capacity(batch.records.len());
        let (mut units, mut decoded, mut together) = (Vec::new(), Vec::new(), Vec::new());
        let read = stream::iter(batch.records).map(|record| work::read(&self.objects, record));
        let read: Vec<_> = read.buffered(CONCURRENT_READS).collect().await;
        for (at, (work, parts)) in read.into_iter().enumerate() {
            let Fork { live, shadows } = Fork::of(parts);
            for (unit, _) in shadows {
                Books::Shadow.count(metrics, &unit, &Outcome::Drop { events: unit.events });
            }
            let begin = units.len();
            for (unit, content) in live {
                units.push(unit);
                decoded.push(content);
                together.push(at);
            }
            works.push((work, begin..units.len()));
        }
        let (applied, usage) = apply(&self.table, decoded, invocation.leaving(RESERVED)).await?;
        count_usage(metrics, usage);
        let mut applied = applied.into_iter();
        let mut decisions = Vec::with_capacity(units.len());
        for (work, range) in &works {
            let applied = applied.by_ref().take(range.len()).collect();
            decisions.extend(self.decide(work, &units[range.clone()], applied, now));
        }
        let outcomes = carry_out(&self.retry, &self.dead_letters, &units, &together, decisions).await?;
        count(metrics, Books::Live, &units, &outcomes)?;
        let deadline = invocation.leaving(RESERVE).min(Instant::now() + ERASE_FOR);
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
        let waited =
            work.delivery.as_ref().and_then(|delivery| delivery.sent_at).map_or(0, |at| now.saturating_sub(at));
        let chances = Chances {
            attempts_used: work.attempts >= self.max_attempts,
            time_used: u128::from(waited) >= MAX_AGE.as_millis(),
        };
        let flood = if work.splits { Flood::of(&applied, chances) } else { Flood::NONE };
        let mut decisions = decide(units, applied, chances, flood, now);
        if !work.splits {
            // The message itself waits.
            for decision in &mut decisions {
                if let Decision::Retry(cause, _) = decision {
                    *decision = Decision::Redeliver(*cause);
                }
            }
        }
        decisions
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
