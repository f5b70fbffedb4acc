//! Diverts units that cannot be applied to the queue `retry` or to `dead-letter`, within a bound.

use crate::apply::Applied;
use crate::letter::{DeadLetter, Letter};
use crate::letter_queue::LetterQueue;
use crate::slots::{Slots, Unbalanced};
use crate::unit::{Unapplied, Unit};
use playback::outcome::{Cause, Counts, Outcome, Reason};

/// This many failed units are always diverted, however small their batch: a few are not a flood.
const ALWAYS_DIVERTED: usize = 10;

/// Whether this many failures in a batch are our fault, or that of something we depend on, rather
/// than the records'. Then nothing is diverted.
pub fn is_flood(failed: usize, of: usize) -> bool {
    failed > ALWAYS_DIVERTED && failed * 2 > of
}

/// What to do with a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Nothing: its events are in their view.
    Applied(Counts),
    /// Send it to `retry`.
    Retry(Cause, Letter),
    /// Send it to `dead-letter`.
    DeadLetter(Reason, DeadLetter),
    /// Leave it at its source, which delivers it again.
    Redeliver(Cause),
}

/// Decides about the units of one batch. Poison is dead-lettered. Anything worth another try is
/// retried, or on the `last` attempt dead-lettered.
///
/// When most of a batch fails, and more than a few, the fault is the store's or ours. Then units
/// worth another try are redelivered and lag grows; a whole topic must not end on `retry`. Poison
/// is redelivered only if it is itself most of the batch: only failed units are redelivered, so a
/// little poison would soon be most of what is left. On the last attempt poison is dead-lettered in
/// any case, but the other units still wait while the store fails: an outage never causes a flood
/// of dead letters, however long it lasts.
pub fn decide(units: &[Unit], applied: Vec<Applied>, last: bool, now: u64) -> Vec<Decision> {
    let transient = applied.iter().filter(|applied| matches!(applied, Err(Unapplied::Transient { .. }))).count();
    let poison = applied.iter().filter(|applied| matches!(applied, Err(Unapplied::Poison { .. }))).count();
    let transient_waits = is_flood(if last { transient } else { transient + poison }, units.len());
    let poison_waits = !last && is_flood(poison, units.len());
    if transient_waits || poison_waits {
        tracing::error!(transient, poison, of = units.len(), "most of a batch cannot be applied: it is not diverted");
    }
    let one = |(unit, applied): (&Unit, Applied)| match applied {
        Ok(counts) => Decision::Applied(counts),
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

/// Carries decisions out: one outcome per unit, in order.
///
/// # Errors
/// [`Unbalanced`] when some unit has no decision.
pub async fn carry_out<R, D>(
    retry: &R,
    dead_letters: &D,
    units: &[Unit],
    decisions: Vec<Decision>,
) -> Result<Vec<Outcome>, Unbalanced>
where
    R: LetterQueue<Letter>,
    D: LetterQueue<DeadLetter>,
{
    Unbalanced::check(units.len(), decisions.len())?;
    let mut outcomes = Slots::new(units.len());
    let (mut to_retry, mut dead) = (Vec::new(), Vec::new());
    for (at, (unit, decision)) in units.iter().zip(decisions).enumerate() {
        let events = unit.events;
        match decision {
            Decision::Applied(counts) => outcomes.fill(at, Outcome::Applied(counts)),
            Decision::Redeliver(cause) => outcomes.fill(at, Outcome::Redeliver(cause)),
            Decision::Retry(cause, letter) => {
                to_retry.push(Diverted { at, unit, letter, outcome: Outcome::Retry { cause, events } });
            }
            Decision::DeadLetter(reason, letter) => {
                dead.push(Diverted { at, unit, letter, outcome: Outcome::DeadLetter { reason, events } });
            }
        }
    }
    divert(retry, to_retry, &mut outcomes).await;
    divert(dead_letters, dead, &mut outcomes).await;
    outcomes.finish()
}

/// A letter to send.
#[derive(Debug)]
pub struct Diverted<'a, L> {
    /// The slot of its outcome.
    pub at: usize,
    /// Its unit.
    pub unit: &'a Unit,
    /// The letter.
    pub letter: L,
    /// The unit's outcome once the queue has the letter.
    pub outcome: Outcome,
}

/// Sends letters. A unit whose letter the queue refused, or did not answer for, is redelivered.
pub async fn divert<L, Q: LetterQueue<L>>(queue: &Q, diverted: Vec<Diverted<'_, L>>, outcomes: &mut Slots<Outcome>) {
    if diverted.is_empty() {
        return;
    }
    let (letters, then): (Vec<L>, Vec<_>) =
        diverted.into_iter().map(|one| (one.letter, (one.at, &one.unit.source, one.outcome))).unzip();
    let mut results = queue.put(letters).await.into_iter();
    for (at, source, outcome) in then {
        let refused = match results.next() {
            Some(Ok(())) => None,
            Some(Err(error)) => Some(error.to_string()),
            None => Some("no answer".to_owned()),
        };
        let outcome = match (refused, outcome) {
            (None, Outcome::DeadLetter { reason, .. }) => {
                tracing::error!(?source, reason = reason.as_str(), "dead-lettered a record");
                outcome
            }
            (None, _) => {
                tracing::debug!(?source, "sent a record to retry");
                outcome
            }
            (Some(error), _) => {
                let (queue, cause) = match outcome {
                    Outcome::DeadLetter { .. } => ("dead-letter", Cause::DeadLetterUnavailable),
                    _ => ("retry", Cause::RetryUnavailable),
                };
                tracing::error!(?source, queue, error, "a queue did not take a record: it is redelivered");
                Outcome::Redeliver(cause)
            }
        };
        outcomes.fill(at, outcome);
    }
}
