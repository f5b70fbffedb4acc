//! Diverting: what could not be applied goes to the queue `retry` or to `dead-letter`, within a bound.

use crate::apply::Applied;
use crate::letter::{DeadLetter, Letter};
use crate::queue::LetterQueue;
use crate::unit::{Unapplied, Unit};
use playback::outcome::{Cause, Counts, Outcome, Reason};

/// So many units are always diverted, whatever part of their batch they are: few make no flood.
const ALWAYS_DIVERTED: usize = 10;

/// Whether so many failures in a batch are a fault of ours or of what we depend on, rather than of single records: then nothing is diverted.
pub fn is_flood(failed: usize, of: usize) -> bool {
    failed > ALWAYS_DIVERTED && failed * 2 > of
}

/// What is to be done about a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Nothing: its events are in their view.
    Applied(Counts),
    /// To `retry`.
    Retry(Cause, Letter),
    /// To `dead-letter`.
    DeadLetter(Reason, DeadLetter),
    /// It is forgotten.
    Drop,
    /// It stays where it is, to be delivered again.
    Redeliver(Cause),
}

/// Decides about the units of one batch. Poison is buried; what is worth another try is parked, or on the `last` attempt buried.
///
/// When most of a batch fails, and more than a few, the fault is the store's or ours: then what is worth another try waits where it is
/// and lag grows, rather than that a whole topic ends on `retry`. Poison waits only if it is itself most of the batch: of a batch that
/// waits just what failed is delivered again, so that a little poison among it would become most of it. The last attempt
/// ends the waiting of poison, but not of the rest while the store is what fails: an outage makes no flood of dead letters
/// however long it lasts.
pub fn decide(units: &[Unit], applied: Vec<Applied>, last: bool, now: u64) -> Vec<Decision> {
    let transient = applied.iter().filter(|applied| matches!(applied, Err(Unapplied::Transient { .. }))).count();
    let poison = applied.iter().filter(|applied| matches!(applied, Err(Unapplied::Poison { .. }))).count();
    let live = units.iter().filter(|unit| !unit.shadow).count();
    let transient_waits = is_flood(if last { transient } else { transient + poison }, live);
    let poison_waits = !last && is_flood(poison, live);
    if transient_waits || poison_waits {
        tracing::error!(transient, poison, of = units.len(), "most of a batch cannot be applied: that is not diverted");
    }
    let one = |(unit, applied): (&Unit, Applied)| match applied {
        Ok(counts) => Decision::Applied(counts),
        Err(_) if unit.shadow => Decision::Drop,
        Err(Unapplied::Unshadowed) => Decision::Drop,
        Err(Unapplied::Transient { cause, .. }) if transient_waits => Decision::Redeliver(cause),
        Err(Unapplied::Poison { .. }) if poison_waits => Decision::Redeliver(Cause::HeldBack),
        Err(Unapplied::Poison { reason, detail }) => {
            Decision::DeadLetter(reason, unit.dead_letter(reason, detail, now))
        }
        Err(Unapplied::Transient { cause, detail }) if last => {
            Decision::DeadLetter(Reason::AttemptsExhausted, unit.exhausted(cause, detail, now))
        }
        Err(Unapplied::Transient { cause, detail }) => Decision::Retry(cause, unit.retry_letter(cause, detail, now)),
    };
    units.iter().zip(applied).map(one).collect()
}

/// Carries decisions out, one outcome each, in order. What a queue did not take is neither retried nor dead: it failed.
pub async fn carry_out<R, D>(retry: &R, dead_letters: &D, units: &[Unit], decisions: Vec<Decision>) -> Vec<Outcome>
where
    R: LetterQueue<Letter>,
    D: LetterQueue<DeadLetter>,
{
    let mut outcomes = Vec::with_capacity(decisions.len());
    let (mut parked, mut buried) = (Split::default(), Split::default());
    for (at, (unit, decision)) in units.iter().zip(decisions).enumerate() {
        outcomes.push(match decision {
            Decision::Applied(counts) => Outcome::Applied(counts),
            Decision::Drop => Outcome::Drop { events: unit.events },
            Decision::Redeliver(cause) => Outcome::Redeliver(cause),
            // Failed, until the queue says that it has it.
            Decision::Retry(cause, letter) => {
                parked.push(letter, at, Outcome::Retry { cause, events: unit.events });
                Outcome::Redeliver(Cause::RetryUnavailable)
            }
            Decision::DeadLetter(reason, letter) => {
                buried.push(letter, at, Outcome::DeadLetter { reason, events: unit.events });
                Outcome::Redeliver(Cause::DeadLetterUnavailable)
            }
        });
    }
    parked.send(retry, "retry", units, &mut outcomes).await;
    buried.send(dead_letters, "dead-letter", units, &mut outcomes).await;
    outcomes
}

/// Letters for one queue, and the outcome of each once the queue has it.
struct Split<L> {
    letters: Vec<L>,
    then: Vec<(usize, Outcome)>,
}

impl<L> Default for Split<L> {
    fn default() -> Self {
        Self { letters: Vec::new(), then: Vec::new() }
    }
}

impl<L> Split<L> {
    fn push(&mut self, letter: L, at: usize, outcome: Outcome) {
        self.letters.push(letter);
        self.then.push((at, outcome));
    }

    async fn send<Q: LetterQueue<L>>(self, queue: &Q, name: &'static str, units: &[Unit], outcomes: &mut [Outcome]) {
        if self.letters.is_empty() {
            return;
        }
        let results = queue.put(self.letters).await;
        for ((at, outcome), result) in self.then.into_iter().zip(results) {
            let source = units.get(at).map(|unit| &unit.source);
            match (result, outcome) {
                (Ok(()), Outcome::DeadLetter { reason, .. }) => {
                    tracing::error!(?source, reason = reason.as_str(), "dead-lettered a record");
                }
                (Ok(()), _) => tracing::debug!(?source, "parked a record"),
                (Err(error), _) => {
                    tracing::error!(?source, queue = name, %error, "a queue did not take a record; it comes again");
                    continue;
                }
            }
            if let Some(slot) = outcomes.get_mut(at) {
                *slot = outcome;
            }
        }
    }
}
