//! Counts the outcomes of units, in the metrics and in the books.

use crate::slots::Unbalanced;
use crate::unit::Unit;
use lambda::metrics::{Metric, Metrics};
use playback::outcome::{Cause, Outcome};
use store::Usage;

/// Which books a unit is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Books {
    /// The books of the minute in which its events were accepted, so a minute's books close however
    /// late an event is applied. If that minute is unknown, the books of the current minute.
    Live,
    /// None: another system accepted its events.
    Shadow,
}

impl Books {
    /// Counts the outcome of one unit.
    pub fn count(self, metrics: &Metrics, unit: &Unit, outcome: &Outcome) {
        metrics.add(Metric::RecordsReceived, 1);
        let record = match outcome {
            Outcome::Applied(_) => Metric::RecordsSettled,
            Outcome::Forwarded { .. } => Metric::RecordsForwarded,
            Outcome::Retry { cause, .. } => Metric::RecordsRetried(cause.as_str()),
            Outcome::DeadLetter { reason, .. } => Metric::RecordsDead(reason.as_str()),
            Outcome::Drop { .. } => Metric::RecordsDropped,
            Outcome::Redeliver(cause) => Metric::RecordsFailed(cause.as_str()),
        };
        metrics.add(record, 1);
        match self {
            Self::Live => count_live(metrics, unit, outcome),
            Self::Shadow => count_shadow(metrics, outcome),
        }
    }

    /// Counts the events of a unit that may be on a queue without being accepted there.
    pub fn count_unclaimed(self, metrics: &Metrics, unit: &Unit) {
        if self == Self::Live {
            book(metrics, unit, Metric::EventsUnclaimed, unit.events);
        }
    }
}

/// Counts the outcomes of units, one per unit.
///
/// # Errors
/// [`Unbalanced`] unless there is one outcome per unit.
pub fn count(metrics: &Metrics, books: Books, units: &[Unit], outcomes: &[Outcome]) -> Result<(), Unbalanced> {
    Unbalanced::check(units.len(), outcomes.len())?;
    units.iter().zip(outcomes).for_each(|(unit, outcome)| books.count(metrics, unit, outcome));
    Ok(())
}

/// Counts how much applying used the store.
pub fn count_usage(metrics: &Metrics, usage: Usage) {
    metrics.add(Metric::ViewReads, usage.reads);
    metrics.add(Metric::ViewWrites, usage.writes);
    metrics.add(Metric::LostRaces, usage.lost_races);
    metrics.add(Metric::Throttles, usage.throttles);
    metrics.add(Metric::HolesOpened, usage.holes.opened);
    metrics.add(Metric::HolesClosed, usage.holes.closed);
}

fn book(metrics: &Metrics, unit: &Unit, metric: Metric, events: u64) {
    match unit.received_at {
        Some(received_at) => metrics.add_at(received_at, metric, events),
        None => metrics.add(metric, events),
    }
}

fn count_live(metrics: &Metrics, unit: &Unit, outcome: &Outcome) {
    let book = |metric, events| book(metrics, unit, metric, events);
    if matches!(outcome, Outcome::Applied(_) | Outcome::DeadLetter { .. }) {
        book(Metric::EventsRedriven, unit.history.redrives.last().map_or(0, |death| death.events));
    }
    if unit.arrived && outcome.is_durable() {
        book(Metric::EventsArrived, unit.events);
    }
    match outcome {
        Outcome::Applied(counts) => {
            book(Metric::EventsApplied, counts.applied);
            book(Metric::EventsDuplicate, counts.duplicate);
        }
        Outcome::Forwarded { events } => book(Metric::EventsForwarded, *events),
        Outcome::Retry { events, .. } => book(Metric::EventsRetried, *events),
        Outcome::DeadLetter { reason, events } => book(Metric::EventsDead(reason.as_str()), *events),
        Outcome::Redeliver(Cause::RetryUnanswered) => book(Metric::EventsUnclaimed, unit.events),
        Outcome::Drop { .. } | Outcome::Redeliver(_) => {}
    }
}

fn count_shadow(metrics: &Metrics, outcome: &Outcome) {
    match outcome {
        Outcome::Applied(counts) => {
            metrics.add(Metric::ShadowApplied, counts.applied);
            metrics.add(Metric::ShadowDuplicate, counts.duplicate);
        }
        Outcome::Drop { events } => metrics.add(Metric::ShadowDropped, *events),
        _ => {}
    }
}
