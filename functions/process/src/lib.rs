//! Folds batches of records into views.
//!
//! A batch goes through four steps: unpack (records → envelopes, or poison), fold (envelopes → one delta a session),
//! settle (deltas → stored views, one conditional write each), and set aside (poison → dead-letter queue, with its
//! bytes). Every record ends in exactly one [`Outcome`]; those that failed are named in the answer and delivered again,
//! which is harmless, since folding a record twice changes nothing.

mod config;
mod dead_letter;
pub mod testing;
mod unpack;

pub use config::Config;
pub use dead_letter::{DeadLetter, DeadLetters};

use lambda::batch::{Batch, BatchAnswer, Source, answer};
use lambda::metrics::{Metric, Metrics};
use playback::envelope::Poison;
use playback::fold::fold;
use playback::outcome::{Cause, Outcome, Tally};
use store::{Usage, ViewTable, settle};
use unpack::{Unit, unpack};

/// A fault of ours: some record has no outcome, so that nothing may be called done. The invocation fails, and the whole
/// batch is delivered again.
#[derive(Debug, thiserror::Error)]
#[error("{received} records came in and {settled} have an outcome")]
pub struct Unbalanced {
    /// Records received.
    pub received: usize,
    /// Records with an outcome.
    pub settled: usize,
}

/// Processes one batch. `now` is the clock, Unix milliseconds.
///
/// # Errors
/// [`Unbalanced`]. What fails of the records is no error: it is in the answer.
pub async fn process<T: ViewTable, D: DeadLetters>(
    table: &T,
    dead_letters: &D,
    metrics: &Metrics,
    batch: Batch,
    now: u64,
) -> Result<BatchAnswer, Unbalanced> {
    let (units, contents) = unpack(batch);
    metrics.add(Metric::RecordsReceived, units.len() as u64);

    let mut outcomes: Vec<Option<Outcome>> = vec![None; units.len()];
    let mut envelopes = Vec::with_capacity(units.len());
    let mut poison = Vec::new();
    for (at, content) in contents.into_iter().enumerate() {
        match content {
            Ok(envelope) => envelopes.push((at, envelope)),
            Err(fault) => poison.push((at, fault)),
        }
    }

    let (settled, usage) = settle(table, fold(envelopes)).await;
    for one in settled {
        match one.result {
            Ok(records) => {
                for (at, counts) in records {
                    set(&mut outcomes, at, Outcome::Settled(counts));
                }
            }
            Err(error) => match error.fault.verdict() {
                Ok(cause) => {
                    tracing::warn!(%error, cause = cause.as_str(), "a session could not be settled; its records come again");
                    one.delta.records().for_each(|at| set(&mut outcomes, at, Outcome::Failed(cause)));
                }
                Err(reason) => {
                    let detail = error.to_string();
                    let dead = one.delta.records().map(|at| {
                        let events = units.get(at).map_or(0, |unit| unit.events);
                        (at, Poison { reason, detail: detail.clone(), events })
                    });
                    poison.extend(dead);
                }
            },
        }
    }
    set_aside(dead_letters, &units, poison, &mut outcomes, now).await;

    let outcomes: Vec<Outcome> = outcomes.into_iter().flatten().collect();
    let tally = Tally::of(&outcomes);
    if tally.records() != units.len() as u64 {
        return Err(Unbalanced { received: units.len(), settled: outcomes.len() });
    }
    count(metrics, &tally, &outcomes, usage);
    let failed = units.iter().zip(&outcomes).filter(|(_, outcome)| matches!(outcome, Outcome::Failed(_)));
    let mut failed: Vec<&Source> = failed.map(|(unit, _)| &unit.source).collect();
    failed.dedup();
    Ok(answer(failed))
}

fn set(outcomes: &mut [Option<Outcome>], at: usize, outcome: Outcome) {
    if let Some(slot) = outcomes.get_mut(at) {
        *slot = Some(outcome);
    }
}

/// Sends poison to the dead-letter queue. What the queue did not take is not dead: it comes again.
async fn set_aside<D: DeadLetters>(
    dead_letters: &D,
    units: &[Unit],
    poison: Vec<(usize, Poison)>,
    outcomes: &mut [Option<Outcome>],
    now: u64,
) {
    if poison.is_empty() {
        return;
    }
    let units_of = poison.iter().filter_map(|(at, fault)| Some((units.get(*at)?, fault)));
    let letters = units_of.map(|(unit, fault)| DeadLetter::new(unit, fault, now)).collect();
    let results = dead_letters.put(letters).await;
    for ((at, fault), result) in poison.into_iter().zip(results) {
        let source = units.get(at).map(|unit| &unit.source);
        match result {
            Ok(()) => {
                tracing::error!(
                    ?source,
                    reason = fault.reason.as_str(),
                    detail = fault.detail,
                    "dead-lettered a record"
                );
                set(outcomes, at, Outcome::Dead { reason: fault.reason, events: fault.events });
            }
            Err(error) => {
                tracing::error!(?source, %error, "the dead-letter queue did not take a record; it comes again");
                set(outcomes, at, Outcome::Failed(Cause::DeadLetterUnavailable));
            }
        }
    }
}

fn count(metrics: &Metrics, tally: &Tally, outcomes: &[Outcome], usage: Usage) {
    metrics.add(Metric::RecordsSettled, tally.settled);
    metrics.add(Metric::EventsApplied, tally.events.applied);
    metrics.add(Metric::EventsDuplicate, tally.events.duplicate);
    for outcome in outcomes {
        match outcome {
            Outcome::Settled(_) => {}
            Outcome::Dead { reason, events } => {
                metrics.add(Metric::RecordsDead(reason.as_str()), 1);
                metrics.add(Metric::EventsDead(reason.as_str()), *events);
            }
            Outcome::Failed(cause) => metrics.add(Metric::RecordsFailed(cause.as_str()), 1),
        }
    }
    metrics.add(Metric::ViewReads, usage.reads);
    metrics.add(Metric::ViewWrites, usage.writes);
    metrics.add(Metric::LostRaces, usage.lost_races);
    metrics.add(Metric::Throttles, usage.throttles);
}
