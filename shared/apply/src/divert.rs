//! Diverts units that cannot be applied to the queue `retry` or to `dead-letter`, within a bound.

use crate::apply::Applied;
use crate::letter::{DeadLetter, Letter};
use crate::letter_queue::{LetterQueue, NotPut as _};
use crate::slots::{Slots, Unbalanced};
use crate::unit::{Unapplied, Unit};
use lambda::batch::Source;
use playback::outcome::{Cause, Counts, Outcome, Reason};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

/// This many failed units are always diverted, however small their batch: a few are not a flood.
const ALWAYS_DIVERTED: usize = 10;
/// How long batches are recent, milliseconds.
const RECENT_MS: u64 = 60_000;
/// How often a message waits on its queue for a flood to end. Later its units go to `retry`, where
/// they may wait for days, each as a letter with a history. With the 6 minutes of the queue
/// `inbound` that is after 20 hours; after 100 hours SQS would move the message to `dead-letter`.
const MAX_WAITS: u32 = 200;

/// Whether so many failures are our fault, or that of something we depend on, rather than the
/// records'. Then nothing is diverted.
pub fn is_flood(failed: usize, of: usize) -> bool {
    failed > ALWAYS_DIVERTED && failed * 2 > of
}

/// How many units failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Tally {
    transient: usize,
    poison: usize,
    of: usize,
}

impl Tally {
    fn of(applied: &[Applied]) -> Self {
        let mut tally = Self { of: applied.len(), ..Self::default() };
        for one in applied {
            match one {
                Err(Unapplied::Transient { .. }) => tally.transient += 1,
                Err(Unapplied::Poison { .. }) => tally.poison += 1,
                Ok(_) => {}
            }
        }
        tally
    }

    fn flood(self, chances: Chances) -> Flood {
        // Without a chance left, poison waits no longer. So it keeps nothing else waiting either.
        let (last, Self { transient, poison, of }) = (chances.any_used(), self);
        let flood = Flood {
            transient: is_flood(if last { transient } else { transient + poison }, of),
            poison: !last && is_flood(poison, of),
        };
        if flood != Flood::NONE {
            tracing::error!(transient, poison, of, "most of what was tried cannot be applied: it is not diverted");
        }
        flood
    }
}

/// What waits at its source because most of what was tried has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flood {
    /// Units worth another try.
    transient: bool,
    /// Poison. It waits only if it is most of the failures itself: only failed units are
    /// redelivered, so a little poison would soon be most of what is left.
    poison: bool,
}

impl Flood {
    /// Nothing waits.
    pub const NONE: Self = Self { transient: false, poison: false };

    /// Judges one batch by itself, with the chances that its units have left.
    pub fn of(applied: &[Applied], chances: Chances) -> Self {
        Tally::of(applied).flood(chances)
    }
}

/// Judges batches together with those of the last minute in this environment, so that an outage is
/// a flood in many small batches as it is in a large one. It forgets everything with its
/// environment; then each batch is judged by itself.
///
/// Only failures that pass with an outage count here. What is held back is delivered again, and
/// counts again each time: a little poison would keep itself waiting.
#[derive(Debug, Default)]
pub struct Recent(Mutex<VecDeque<Lately>>);

/// When a batch was judged (Unix milliseconds), how many of its units failed because something is
/// away, and how many it had.
#[derive(Debug)]
struct Lately {
    at: u64,
    failed: usize,
    of: usize,
}

impl Recent {
    /// Judges a batch at `now`, Unix milliseconds.
    pub fn flood(&self, applied: &[Applied], now: u64) -> Flood {
        let is_outage = |one: &&Applied| matches!(one, Err(Unapplied::Transient { cause, .. }) if cause.is_outage());
        let batch = Lately { at: now, failed: applied.iter().filter(is_outage).count(), of: applied.len() };
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        recent.retain(|batch| batch.at.abs_diff(now) < RECENT_MS);
        recent.push_back(batch);
        let sum = |of: fn(&Lately) -> usize| recent.iter().map(of).sum();
        let (failed, of) = (sum(|batch| batch.failed), sum(|batch| batch.of));
        drop(recent);
        let alone = Flood::of(applied, Chances::default());
        if alone.transient || !is_flood(failed, of) {
            return alone;
        }
        tracing::error!(failed, of, "most of the last minute's records cannot be applied: they are not diverted");
        Flood { transient: true, ..alone }
    }
}

/// Which chances a unit has left.
#[derive(Debug, Clone, Copy, Default)]
pub struct Chances {
    /// It was tried as often as it may be.
    pub attempts_used: bool,
    /// It has waited as long as it may.
    pub time_used: bool,
}

impl Chances {
    /// Whether a failure of this cause was the last one. Attempts during an outage do not count.
    fn are_used(self, cause: Cause) -> bool {
        self.time_used || (self.attempts_used && !cause.is_outage())
    }

    fn any_used(self) -> bool {
        self.time_used || self.attempts_used
    }
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

/// Decides about units. Poison is dead-lettered. Anything worth another try is retried, or without
/// a chance left dead-lettered.
///
/// In a flood the fault is the store's or ours. Then units worth another try are redelivered and
/// lag grows; a whole topic must not end on `retry`. Poison without a chance left is dead-lettered
/// in any case, but the other units still wait: an outage never causes a flood of dead letters,
/// however long it lasts.
pub fn decide(units: &[Unit], applied: Vec<Applied>, chances: Chances, flood: Flood, now: u64) -> Vec<Decision> {
    let one = |(unit, applied): (&Unit, Applied)| {
        let waits = unit.receives < MAX_WAITS;
        match applied {
            Ok(counts) => Decision::Applied(counts),
            Err(Unapplied::Transient { cause, .. }) if flood.transient && waits => Decision::Redeliver(cause),
            Err(Unapplied::Poison { .. }) if flood.poison && waits => Decision::Redeliver(Cause::HeldBack),
            Err(Unapplied::Poison { reason, detail }) => {
                Decision::DeadLetter(reason, unit.dead_letter(reason, detail, now))
            }
            Err(Unapplied::Transient { cause, detail }) if chances.are_used(cause) => {
                let reason = match cause {
                    Cause::NewerEnvelope => Reason::UnknownSchemaVersion,
                    _ => Reason::AttemptsExhausted,
                };
                Decision::DeadLetter(reason, unit.exhausted(reason, cause, detail, now))
            }
            Err(Unapplied::Transient { cause, detail }) => {
                Decision::Retry(cause, unit.retry_letter(cause, detail, now))
            }
        }
    };
    units.iter().zip(applied).map(one).collect()
}

/// Carries decisions out: one outcome per unit, in order. Units with the same number in `together`
/// are redelivered together. So if one of them is redelivered, none is diverted: it would be
/// diverted again each time.
///
/// # Errors
/// [`Unbalanced`] when some unit has no decision.
pub async fn carry_out<R, D>(
    retry: &R,
    dead_letters: &D,
    units: &[Unit],
    together: &[usize],
    decisions: Vec<Decision>,
) -> Result<Vec<Outcome>, Unbalanced>
where
    R: LetterQueue<Letter>,
    D: LetterQueue<DeadLetter>,
{
    Unbalanced::check(units.len(), decisions.len())?;
    Unbalanced::check(units.len(), together.len())?;
    let redelivered = together.iter().zip(&decisions).filter(|(_, one)| matches!(one, Decision::Redeliver(_)));
    let mut redelivered: BTreeSet<usize> = redelivered.map(|(group, _)| *group).collect();
    let mut outcomes = Slots::new(units.len());
    let (mut to_retry, mut dead) = (Vec::new(), Vec::new());
    for (at, (unit, decision)) in units.iter().zip(decisions).enumerate() {
        let events = unit.events;
        match decision {
            Decision::Applied(counts) => {
                if let Some(failure) = &unit.history.first_error {
                    let (trace_id, attempts) = (unit.trace_id(), unit.history.attempts);
                    tracing::info!(
                        trace_id,
                        attempts,
                        cause = failure.cause,
                        "applied a record that had failed before"
                    );
                } else {
                    // Most records: asked for at DEBUG only, and decoded only then.
                    tracing::debug!(source = ?unit.source, trace_id = unit.trace_id(), "applied a record");
                }
                outcomes.fill(at, Outcome::Applied(counts));
            }
            Decision::Redeliver(cause) => outcomes.fill(at, Outcome::Redeliver(cause)),
            Decision::Retry(cause, _) if redelivered.contains(&together[at]) => {
                outcomes.fill(at, Outcome::Redeliver(cause));
            }
            Decision::Retry(cause, letter) => {
                to_retry.push(Diverted { at, unit, letter, outcome: Outcome::Retry { cause, events } });
            }
            Decision::DeadLetter(reason, letter) => {
                dead.push(Diverted { at, unit, letter, outcome: Outcome::DeadLetter { reason, events } });
            }
        }
    }
    let waiting = units.iter().zip(together).filter(|(_, group)| redelivered.contains(group));
    log_waiting(waiting.map(|(unit, _)| unit));
    redelivered.extend(divert(retry, to_retry, &mut outcomes).await.into_iter().map(|at| together[at]));
    let (held_back, dead): (Vec<_>, Vec<_>) =
        dead.into_iter().partition(|letter| redelivered.contains(&together[letter.at]));
    held_back.iter().for_each(|letter| outcomes.fill(letter.at, Outcome::Redeliver(Cause::HeldBack)));
    divert(dead_letters, dead, &mut outcomes).await;
    outcomes.finish()
}

/// Logs the first trace ids of records that are redelivered: one line, since these may be a whole
/// batch, each time it comes.
pub fn log_waiting<'a>(units: impl Iterator<Item = &'a Unit>) {
    const MOST: usize = 10;
    let mut records = 0;
    let mut trace_ids = Vec::new();
    for unit in units {
        records += 1;
        if trace_ids.len() < MOST {
            trace_ids.extend(unit.trace_id());
        }
    }
    if records > 0 {
        tracing::info!(records, trace_ids = trace_ids.join(" "), "records are redelivered");
    }
}

/// Which records their source redelivers together, as a number for each: the envelopes of a
/// message, and all records of a Kinesis shard, which resumes at its first failed record.
pub fn redelivered_together<'a>(sources: impl IntoIterator<Item = &'a Source>) -> Vec<usize> {
    let mut known: HashMap<(&str, &str), usize> = HashMap::new();
    let number = |(at, source): (usize, &'a Source)| match source {
        Source::Kafka { .. } => at,
        Source::Sqs { queue, message_id } => *known.entry((queue, message_id)).or_insert(at),
        Source::Table { stream, .. } => *known.entry((stream, "")).or_insert(at),
        Source::Kinesis { stream, shard, .. } => *known.entry((stream, shard)).or_insert(at),
    };
    sources.into_iter().enumerate().map(number).collect()
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

/// Sends letters. A unit whose letter the queue refused, or did not answer for, is redelivered;
/// returns the slots of these.
pub async fn divert<L, Q: LetterQueue<L>>(
    queue: &Q,
    diverted: Vec<Diverted<'_, L>>,
    outcomes: &mut Slots<Outcome>,
) -> Vec<usize> {
    let mut redelivered = Vec::new();
    if diverted.is_empty() {
        return redelivered;
    }
    let (letters, then): (Vec<L>, Vec<_>) =
        diverted.into_iter().map(|one| (one.letter, (one.at, one.unit, one.outcome))).unzip();
    let mut results = queue.put(letters).await.into_iter();
    for (at, unit, outcome) in then {
        let (source, trace_id) = (&unit.source, unit.trace_id());
        let refused = match results.next() {
            Some(Ok(())) => None,
            Some(Err(error)) => Some((error.to_string(), error.may_have_arrived())),
            None => Some(("no answer".to_owned(), true)),
        };
        let outcome = match (refused, outcome) {
            (None, Outcome::DeadLetter { reason, .. }) => {
                tracing::error!(?source, trace_id, reason = reason.as_str(), "dead-lettered a record");
                outcome
            }
            (None, _) => {
                let cause = match outcome {
                    Outcome::Retry { cause, .. } => Some(cause.as_str()),
                    _ => None,
                };
                tracing::info!(?source, trace_id, cause, "sent a record to retry");
                outcome
            }
            (Some((error, may_have_arrived)), _) => {
                let (queue, cause) = match outcome {
                    Outcome::DeadLetter { .. } => ("dead-letter", Cause::DeadLetterUnavailable),
                    _ if may_have_arrived => ("retry", Cause::RetryUnanswered),
                    _ => ("retry", Cause::RetryUnavailable),
                };
                tracing::error!(?source, trace_id, queue, error, "a queue did not take a record: it is redelivered");
                redelivered.push(at);
                Outcome::Redeliver(cause)
            }
        };
        outcomes.fill(at, outcome);
    }
    redelivered
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use lambda::testing::Logged;
    use playback::contract::{Device, Event, Kind};
    use playback::envelope::{Envelope, Stamp};
    use tracing::level_filters::LevelFilter;

    use super::*;
    use crate::letter::Failure;
    use crate::testing::Letters;

    /// A record of a request with a trace id.
    fn traced() -> Unit {
        let event = Event {
            seq: 0,
            kind: Kind::Started,
            position_ms: 0,
            played_ms: 0,
            title_duration_ms: None,
            credits_ms: None,
            occurred_at: None,
            device: Device { id: None, kind: None }.into(),
            country: None,
        };
        let (received_at, ingest_region) = (5, "us-east-1".to_owned());
        let stamp = Stamp { received_at, sent_at: None, ingest_region, trace_id: Some([7; 16]), shadow: false };
        let session_id = "use1-01M3250V3TW3KG5DD5CEVSMJC1".parse().unwrap();
        let (profile_id, title_id) = ("p1".to_owned(), "t1".to_owned());
        let bytes = Envelope { session_id, profile_id, title_id, stamp, events: vec![event] }.encode();
        let source = Source::Kafka { topic: "t".to_owned(), partition: 0, offset: 17 };
        Unit::new(source, None, Bytes::from(bytes), 1, Some(received_at))
    }

    fn failed(cause: Cause) -> Applied {
        Err(Unapplied::Transient { cause, detail: "down".to_owned() })
    }

    #[tokio::test]
    async fn diverted_records_are_logged_with_their_trace_id() {
        let logged = Logged::at(LevelFilter::DEBUG);
        let trace_id = "07".repeat(16);
        let check = async |unit: Unit, applied: Applied, flood: Flood, message: &str, (name, value): (&str, &str)| {
            let units = [unit];
            let decisions = decide(&units, vec![applied], Chances::default(), flood, 9);
            let (retry, dead) = (Letters::<Letter>::default(), Letters::<DeadLetter>::default());
            carry_out(&retry, &dead, &units, &[0], decisions).await.unwrap();
            let lines = logged.lines(message);
            let [line] = lines.as_slice() else { panic!("{message}: {lines:?}") };
            assert_eq!(line[name], value, "{line}");
            assert!(line["trace_id"] == trace_id || line["trace_ids"] == trace_id, "{line}");
        };
        let calm = Flood { transient: false, poison: false };
        let flood = Flood { transient: true, ..calm };
        let unavailable = ("cause", "store_unavailable");
        check(traced(), failed(Cause::StoreUnavailable), calm, "sent a record to retry", unavailable).await;
        let poison = Err(Unapplied::Poison { reason: Reason::CorruptView, detail: "bytes".to_owned() });
        check(traced(), poison, calm, "dead-lettered a record", ("reason", "corrupt_view")).await;
        let throttled = failed(Cause::StoreThrottled);
        check(traced(), throttled, flood, "records are redelivered", ("level", "INFO")).await;
        check(traced(), Ok(Counts::default()), calm, "applied a record", ("level", "DEBUG")).await;
        let mut again = traced();
        let failure = Failure { cause: "store_unavailable".to_owned(), detail: "down".to_owned(), at: 7 };
        again.history.first_error = Some(failure);
        check(again, Ok(Counts::default()), calm, "applied a record that had failed before", unavailable).await;
    }
}
