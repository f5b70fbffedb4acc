//! What a browser gets once a second, and how it is computed. Pure: times are arguments.

use crate::parts::RegionParts;
use crate::shared::Note;
use crate::traffic::Traffic;
use operate::books::Books;
use serde::Serialize;
use std::collections::VecDeque;

/// Rates are averages over this time, because the books arrive in lumps, milliseconds.
const RATE_WINDOW_MS: u64 = 5_000;
/// Writes per event need more events than a rate.
const COST_WINDOW_MS: u64 = 30_000;
/// How far back the lag can be told, milliseconds.
const KEPT_MS: u64 = 30 * 60_000;

/// The whole message.
#[derive(Debug, Serialize)]
pub(crate) struct Snapshot {
    /// Unix milliseconds.
    pub(crate) at: u64,
    /// Why the controls are locked, if they are.
    pub(crate) locked: Option<&'static str>,
    pub(crate) draining: bool,
    /// Records of poison that a log acknowledged.
    pub(crate) poison: u64,
    pub(crate) traffic: Traffic,
    pub(crate) all: Figures,
    pub(crate) regions: Vec<Region>,
    /// Newest first.
    pub(crate) notes: Vec<Note>,
}

/// One region.
#[derive(Debug, Serialize)]
pub(crate) struct Region {
    pub(crate) parts: RegionParts,
    /// Whether its books could be read lately.
    pub(crate) answers: bool,
    pub(crate) queues: Queues,
    pub(crate) figures: Figures,
}

/// Messages on the queues, about.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Queues {
    pub(crate) retry: u64,
    pub(crate) dead_letter: u64,
    pub(crate) inbound: u64,
}

/// What was counted since the cloud started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Totals {
    pub(crate) accepted: u64,
    pub(crate) rejected: u64,
    pub(crate) applied: u64,
    pub(crate) duplicates: u64,
    /// Events on the dead-letter queue that were not redriven.
    pub(crate) dead: u64,
    /// Records on the dead-letter queue, those included that hold no event.
    pub(crate) dead_records: u64,
    /// Negative if events ended more often than they were accepted.
    pub(crate) in_flight: i64,
    pub(crate) retried_records: u64,
    /// Records that the primary log acknowledged.
    pub(crate) primary: u64,
    pub(crate) standby: u64,
    /// Records that no log acknowledged.
    pub(crate) append_errors: u64,
    pub(crate) writes: u64,
    pub(crate) throttles: u64,
    pub(crate) forwarded: u64,
    pub(crate) arrived: u64,
    pub(crate) unclaimed: u64,
    pub(crate) changes: u64,
}

/// Totals, and what follows from how they grew.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Figures {
    pub(crate) totals: Totals,
    pub(crate) rates: Rates,
    /// For how long the oldest event in flight has been accepted, milliseconds, about.
    pub(crate) lag_ms: u64,
    /// None if there were no events lately.
    pub(crate) writes_per_event: Option<f64>,
    pub(crate) takes: Takes,
    /// accepted = applied + duplicates + dead, with nothing in flight.
    pub(crate) balanced: bool,
}

/// Per second, of the last seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct Rates {
    pub(crate) accepted: f64,
    pub(crate) rejected: f64,
    pub(crate) primary: f64,
    pub(crate) standby: f64,
    /// Events that ended in a view, duplicates included.
    pub(crate) folded: f64,
    pub(crate) writes: f64,
    pub(crate) retried: f64,
    pub(crate) dead: f64,
    pub(crate) forwarded: f64,
    pub(crate) changes: f64,
}

/// Which log took the records of the last seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Takes {
    Primary,
    Standby,
    Both,
    /// There were records, and no log took them.
    Neither,
    /// There were no records.
    Idle,
}

impl Totals {
    /// Of one region, or of all regions together.
    pub(crate) fn of(books: &Books) -> Self {
        let sum = |by: &std::collections::BTreeMap<String, u64>| by.values().sum::<u64>();
        Self {
            accepted: books.accepted,
            rejected: sum(&books.rejected),
            applied: books.applied,
            duplicates: books.duplicates,
            dead: sum(&books.dead).saturating_sub(books.redriven),
            dead_records: sum(&books.dead_records),
            in_flight: books.in_flight(),
            retried_records: sum(&books.retried_records),
            primary: books.appended_records.saturating_sub(books.standby_records),
            standby: books.standby_records,
            append_errors: books.append_errors,
            writes: books.view_writes,
            throttles: books.throttles,
            forwarded: books.forwarded,
            arrived: books.arrived,
            unclaimed: books.unclaimed,
            changes: books.changes_published,
        }
    }

    /// Of all regions: what left one and did not arrive in another is in flight too.
    pub(crate) fn of_all(books: &Books) -> Self {
        let totals = Self::of(books);
        Self { in_flight: totals.in_flight + books.between_regions().cast_signed(), ..totals }
    }

    /// Events that came in.
    fn came(&self) -> u64 {
        self.accepted + self.arrived
    }
}

/// The totals of the last minutes.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// Times in Unix milliseconds, oldest first.
    samples: VecDeque<(u64, Totals)>,
}

impl History {
    /// Adds totals that were read at this time.
    pub(crate) fn add(&mut self, at: u64, totals: Totals) {
        self.samples.push_back((at, totals));
        while self.samples.front().is_some_and(|(first, _)| first + KEPT_MS < at) {
            self.samples.pop_front();
        }
    }

    /// Forgets everything: nobody looked for a while.
    pub(crate) fn clear(&mut self) {
        self.samples.clear();
    }

    /// The figures at present.
    pub(crate) fn figures(&self, now: u64) -> Figures {
        let totals = self.samples.back().map(|(_, totals)| *totals).unwrap_or_default();
        let (before, seconds) = self.since(now.saturating_sub(RATE_WINDOW_MS));
        let per_second = |grown: u64| if seconds > 0.0 { grown as f64 / seconds } else { 0.0 };
        let grown = |of: fn(&Totals) -> u64| of(&totals).saturating_sub(of(&before));
        let rate = |of: fn(&Totals) -> u64| per_second(grown(of));
        let (primary, standby) = (grown(|totals| totals.primary) > 0, grown(|totals| totals.standby) > 0);
        let takes = match (primary, standby, grown(|totals| totals.append_errors) > 0) {
            (true, true, _) => Takes::Both,
            (true, false, _) => Takes::Primary,
            (false, true, _) => Takes::Standby,
            (false, false, true) => Takes::Neither,
            (false, false, false) => Takes::Idle,
        };
        Figures {
            rates: Rates {
                accepted: rate(|totals| totals.accepted),
                rejected: rate(|totals| totals.rejected),
                primary: rate(|totals| totals.primary),
                standby: rate(|totals| totals.standby),
                folded: rate(|totals| totals.applied + totals.duplicates),
                writes: rate(|totals| totals.writes),
                retried: rate(|totals| totals.retried_records),
                dead: rate(|totals| totals.dead_records),
                forwarded: rate(|totals| totals.forwarded),
                changes: rate(|totals| totals.changes),
            },
            lag_ms: self.lag_ms(&totals, now),
            writes_per_event: self.writes_per_event(&totals, now),
            takes,
            balanced: totals.in_flight <= 0 && totals.in_flight.unsigned_abs() <= totals.unclaimed,
            totals,
        }
    }

    /// The first totals from this time on, and the seconds since then.
    fn since(&self, from: u64) -> (Totals, f64) {
        let first = self.samples.iter().find(|(at, _)| *at >= from);
        let last = self.samples.back().map_or(0, |(at, _)| *at);
        first.map_or((Totals::default(), 0.0), |(at, totals)| (*totals, (last - at) as f64 / 1000.0))
    }

    /// The time since more events had come in than have ended by now.
    fn lag_ms(&self, totals: &Totals, now: u64) -> u64 {
        let Ok(in_flight @ 1..) = u64::try_from(totals.in_flight) else { return 0 };
        let ended = totals.came().saturating_sub(in_flight);
        let first = self.samples.iter().find(|(_, then)| then.came() > ended);
        first.map_or(0, |(at, _)| now.saturating_sub(*at))
    }

    fn writes_per_event(&self, totals: &Totals, now: u64) -> Option<f64> {
        let (before, _) = self.since(now.saturating_sub(COST_WINDOW_MS));
        let folded = |totals: &Totals| totals.applied + totals.duplicates;
        let events = folded(totals).saturating_sub(folded(&before));
        (events > 0).then(|| totals.writes.saturating_sub(before.writes) as f64 / events as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn history(samples: &[(u64, Totals)]) -> History {
        let mut history = History::default();
        samples.iter().for_each(|(at, totals)| history.add(*at, *totals));
        history
    }

    fn accepted(accepted: u64, applied: u64) -> Totals {
        let in_flight = accepted.cast_signed() - applied.cast_signed();
        Totals { accepted, applied, in_flight, ..Totals::default() }
    }

    #[test]
    fn totals_follow_from_the_books() {
        let by = |n: u64| BTreeMap::from([("a".to_owned(), n), ("b".to_owned(), 1)]);
        let books = Books {
            accepted: 100,
            rejected: by(4),
            applied: 70,
            duplicates: 10,
            dead: by(6),
            redriven: 2,
            dead_records: by(2),
            appended_records: 50,
            standby_records: 20,
            forwarded: 9,
            arrived: 4,
            ..Books::default()
        };
        let totals = Totals::of(&books);
        assert_eq!((totals.rejected, totals.dead, totals.dead_records), (5, 5, 3));
        assert_eq!((totals.primary, totals.standby), (30, 20));
        // accepted + arrived = applied + duplicates + dead + forwarded + in flight
        assert_eq!(totals.in_flight, 100 + 4 - 70 - 10 - 5 - 9);
        assert_eq!(Totals::of_all(&books).in_flight, totals.in_flight + 5, "five are between regions");
    }

    #[test]
    fn rates_are_of_the_last_seconds_only() {
        let totals = |accepted, primary, standby| Totals { accepted, primary, standby, ..Totals::default() };
        let history = history(&[(0, totals(0, 0, 0)), (6_000, totals(600, 60, 0)), (10_000, totals(1_000, 60, 20))]);
        let figures = history.figures(10_000);
        assert_eq!((figures.rates.accepted, figures.rates.primary, figures.rates.standby), (100.0, 0.0, 5.0));
        assert_eq!(figures.takes, Takes::Standby);
        assert_eq!(history.figures(60_000).rates, Rates::default(), "no sample is young enough");
    }

    #[test]
    fn one_sample_or_none_gives_no_rate() {
        assert_eq!(history(&[]).figures(5).rates, Rates::default());
        let one = history(&[(1_000, accepted(500, 400))]).figures(1_000);
        assert_eq!((one.rates, one.takes, one.writes_per_event), (Rates::default(), Takes::Idle, None));
    }

    #[test]
    fn log_that_takes_writes_is_told_from_what_grew() {
        let check = |primary, standby, append_errors, expect| {
            let after = Totals { primary, standby, append_errors, ..Totals::default() };
            assert_eq!(history(&[(0, Totals::default()), (1_000, after)]).figures(1_000).takes, expect);
        };
        check(1, 0, 3, Takes::Primary);
        check(1, 1, 0, Takes::Both);
        check(0, 0, 1, Takes::Neither);
        check(0, 0, 0, Takes::Idle);
    }

    #[test]
    fn lag_is_the_age_of_the_oldest_event_in_flight() {
        let stuck = [(1_000, accepted(10, 10)), (2_000, accepted(30, 10)), (9_000, accepted(50, 10))];
        assert_eq!(history(&stuck).figures(9_500).lag_ms, 7_500, "the eleventh event was there after 2 s");
        let catching_up = [(1_000, accepted(10, 10)), (2_000, accepted(30, 10)), (9_000, accepted(50, 35))];
        assert_eq!(history(&catching_up).figures(9_500).lag_ms, 500);
        assert_eq!(history(&[(1_000, accepted(10, 10))]).figures(9_000).lag_ms, 0);
        assert_eq!(history(&[(1_000, accepted(10, 12))]).figures(9_000).lag_ms, 0, "more ended than came");
    }

    #[test]
    fn writes_per_event_count_duplicates_as_events() {
        let totals = |writes, applied, duplicates| Totals { writes, applied, duplicates, ..Totals::default() };
        let figures = history(&[(0, totals(10, 100, 0)), (20_000, totals(14, 170, 10))]).figures(20_000);
        assert_eq!(figures.writes_per_event, Some(0.05));
    }

    #[test]
    fn books_balance_when_nothing_is_in_flight() {
        let balanced = |in_flight, unclaimed| {
            let totals = Totals { in_flight, unclaimed, ..Totals::default() };
            history(&[(0, totals)]).figures(0).balanced
        };
        assert!(balanced(0, 0) && balanced(-2, 3));
        assert!(!balanced(1, 0) && !balanced(1, 5) && !balanced(-2, 1));
    }
}
