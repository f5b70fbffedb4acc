//! Counting: what a batch's outcomes add to the metrics and to the books.

use crate::apply::Unbalanced;
use crate::unit::Unit;
use lambda::metrics::{Metric, Metrics};
use playback::outcome::Outcome;
use store::Usage;

/// Counts the outcomes of a batch, one a unit. Events go into the books of the minute in which they were accepted, so that the books of a
/// minute close however late an event is applied; events of which that cannot be told, and all work of ours, count now.
///
/// # Errors
/// [`Unbalanced`] when some unit has no outcome.
pub fn count(metrics: &Metrics, units: &[Unit], outcomes: &[Outcome], usage: Usage) -> Result<(), Unbalanced> {
    metrics.add(Metric::RecordsReceived, units.len() as u64);
    if units.len() != outcomes.len() {
        return Err(Unbalanced { received: units.len(), settled: outcomes.len() });
    }
    for (unit, outcome) in units.iter().zip(outcomes) {
        if unit.shadow {
            count_shadow(metrics, outcome);
            continue;
        }
        let book = |metric, n| match unit.received_at {
            Some(received_at) => metrics.add_at(received_at, metric, n),
            None => metrics.add(metric, n),
        };
        if matches!(outcome, Outcome::Applied(_) | Outcome::DeadLetter { .. }) {
            book(Metric::EventsRedriven, unit.history.redrives.last().map_or(0, |death| death.events));
        }
        if unit.arrived && outcome.is_durable() {
            book(Metric::EventsArrived, unit.events);
        }
        match outcome {
            Outcome::Applied(counts) => {
                metrics.add(Metric::RecordsSettled, 1);
                book(Metric::EventsApplied, counts.applied);
                book(Metric::EventsDuplicate, counts.duplicate);
            }
            Outcome::Forwarded { events } => {
                metrics.add(Metric::RecordsForwarded, 1);
                book(Metric::EventsForwarded, *events);
            }
            Outcome::Retry { cause, events } => {
                metrics.add(Metric::RecordsRetried(cause.as_str()), 1);
                book(Metric::EventsRetried, *events);
            }
            Outcome::DeadLetter { reason, events } => {
                metrics.add(Metric::RecordsDead(reason.as_str()), 1);
                book(Metric::EventsDead(reason.as_str()), *events);
            }
            Outcome::Drop { .. } => metrics.add(Metric::RecordsDropped, 1),
            Outcome::Redeliver(cause) => metrics.add(Metric::RecordsFailed(cause.as_str()), 1),
        }
    }
    metrics.add(Metric::ViewReads, usage.reads);
    metrics.add(Metric::ViewWrites, usage.writes);
    metrics.add(Metric::LostRaces, usage.lost_races);
    metrics.add(Metric::Throttles, usage.throttles);
    metrics.add(Metric::HolesOpened, usage.holes.opened);
    metrics.add(Metric::HolesClosed, usage.holes.closed);
    Ok(())
}

/// Shadows are in no books: another system accepted their events.
fn count_shadow(metrics: &Metrics, outcome: &Outcome) {
    match outcome {
        Outcome::Applied(counts) => {
            metrics.add(Metric::RecordsSettled, 1);
            metrics.add(Metric::ShadowApplied, counts.applied);
            metrics.add(Metric::ShadowDuplicate, counts.duplicate);
        }
        Outcome::Forwarded { .. } => metrics.add(Metric::RecordsForwarded, 1),
        Outcome::Drop { events } => {
            metrics.add(Metric::RecordsDropped, 1);
            metrics.add(Metric::ShadowDropped, *events);
        }
        Outcome::Retry { cause, .. } => metrics.add(Metric::RecordsRetried(cause.as_str()), 1),
        Outcome::DeadLetter { reason, .. } => metrics.add(Metric::RecordsDead(reason.as_str()), 1),
        Outcome::Redeliver(cause) => metrics.add(Metric::RecordsFailed(cause.as_str()), 1),
    }
}
