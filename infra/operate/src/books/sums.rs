//! What the functions counted, summed by kind and by the minute in which the events were accepted.

use lambda::metrics::NAMESPACE;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::ops::AddAssign;

/// Milliseconds in a minute.
pub(crate) const MINUTE_MS: u64 = 60_000;

/// Sums since the local cloud started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Books {
    /// Events that a `202` called accepted.
    pub accepted: u64,
    /// Events that were rejected at the edge, by code.
    pub rejected: BTreeMap<String, u64>,
    /// Events folded into a view for the first time.
    pub applied: u64,
    /// Events that their view had already seen.
    pub duplicates: u64,
    /// Events sent to the queue `retry`, counted each time.
    pub retried: u64,
    /// Events sent to the dead-letter queue, by reason.
    pub dead: BTreeMap<String, u64>,
    /// Events of redriven records that have ended again. Their earlier death no longer counts.
    pub redriven: u64,
    /// Events that may be on a log one more time than they were accepted.
    pub unclaimed: u64,
    /// Events sent to the queue of their home region.
    pub forwarded: u64,
    /// Events that came from another region through the queue `inbound`.
    pub arrived: u64,
    /// Records sent to the queue of another region.
    pub forwarded_records: u64,
    /// SQS requests for these.
    pub forward_requests: u64,
    /// Bytes of the messages in these requests.
    pub forward_bytes: u64,
    /// Records sent to the dead-letter queue, by reason.
    pub dead_records: BTreeMap<String, u64>,
    /// Records sent to the queue `retry`, by cause.
    pub retried_records: BTreeMap<String, u64>,
    /// Records that failed and were delivered again, by cause.
    pub failed_records: BTreeMap<String, u64>,
    /// Records that a log acknowledged.
    pub appended_records: u64,
    /// Of these, the ones that the standby acknowledged.
    pub standby_records: u64,
    /// Records that no log acknowledged.
    pub append_errors: u64,
    /// How often a circuit to the primary log opened.
    pub circuit_opened: u64,
    /// How often one closed again.
    pub circuit_closed: u64,
    /// Records that reached `process`, and messages that reached `retry`.
    pub received_records: u64,
    /// Changes of views that the change feed has.
    pub changes_published: u64,
    /// Conditional writes of views.
    pub view_writes: u64,
    /// Views read.
    pub view_reads: u64,
    /// Conditional writes that lost a race.
    pub lost_races: u64,
    /// Calls that the store throttled.
    pub throttles: u64,
    /// Events that another system handled while a copy went to the log as a shadow. No other sum
    /// includes them.
    pub shadow_appended: u64,
    /// Events whose shadow copy should have gone to the log and did not.
    pub shadow_missed: u64,
    /// Answers to HTTP requests, by status.
    pub requests: BTreeMap<String, u64>,
    /// The same events by the minute in which they were accepted (its start, Unix milliseconds).
    pub minutes: BTreeMap<u64, Minute>,
}

/// Events accepted in one minute, and what happened to them, whenever that was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Minute {
    /// Called accepted by a `202`.
    pub accepted: u64,
    /// Folded into a view for the first time.
    pub applied: u64,
    /// Already seen by their view.
    pub duplicates: u64,
    /// Sent to the queue `retry`, counted each time.
    pub retried: u64,
    /// Sent to the dead-letter queue, counted each time.
    pub dead: u64,
    /// Of these, the ones that were redriven and have ended again since.
    pub redriven: u64,
    /// Possibly on a log one more time than they were accepted.
    pub unclaimed: u64,
    /// Sent to the queue of another region.
    pub forwarded: u64,
    /// Arrived from another region.
    pub arrived: u64,
    /// Sequence numbers missing when their sessions ended.
    pub holes_opened: u64,
    /// Of these, the ones that arrived later.
    pub holes_closed: u64,
}

impl Minute {
    /// accepted + arrived − applied − duplicates − dead + redriven − forwarded. Above zero: in
    /// flight, or lost. Below zero: ended more often than accepted, which is harmless, since a view
    /// counts each sequence number once.
    #[must_use]
    pub fn loss(&self) -> i64 {
        (self.accepted + self.arrived + self.redriven).cast_signed()
            - (self.applied + self.duplicates + self.dead + self.forwarded).cast_signed()
    }

    /// Events that have left a region and not arrived in another. In the books of all regions,
    /// [`Minute::loss`] does not include them.
    #[must_use]
    pub fn between_regions(&self) -> u64 {
        self.forwarded.saturating_sub(self.arrived)
    }

    /// The counter for this metric. `None` if the books do not have it.
    pub(crate) fn count(&mut self, metric: &str) -> Option<&mut u64> {
        Some(match metric {
            "EventsAccepted" => &mut self.accepted,
            "EventsApplied" => &mut self.applied,
            "EventsDuplicate" => &mut self.duplicates,
            "EventsRetried" => &mut self.retried,
            "EventsDead" => &mut self.dead,
            "EventsRedriven" => &mut self.redriven,
            "EventsUnclaimed" => &mut self.unclaimed,
            "EventsForwarded" => &mut self.forwarded,
            "EventsArrived" => &mut self.arrived,
            "HolesOpened" => &mut self.holes_opened,
            "HolesClosed" => &mut self.holes_closed,
            _ => return None,
        })
    }
}

impl AddAssign for Minute {
    fn add_assign(&mut self, other: Self) {
        self.accepted += other.accepted;
        self.applied += other.applied;
        self.duplicates += other.duplicates;
        self.retried += other.retried;
        self.dead += other.dead;
        self.redriven += other.redriven;
        self.unclaimed += other.unclaimed;
        self.forwarded += other.forwarded;
        self.arrived += other.arrived;
        self.holes_opened += other.holes_opened;
        self.holes_closed += other.holes_closed;
    }
}

impl AddAssign<&Books> for Books {
    fn add_assign(&mut self, other: &Books) {
        let by = |sums: &mut BTreeMap<String, u64>, more: &BTreeMap<String, u64>| {
            more.iter().for_each(|(name, n)| *sums.entry(name.clone()).or_default() += n);
        };
        by(&mut self.rejected, &other.rejected);
        by(&mut self.dead, &other.dead);
        by(&mut self.dead_records, &other.dead_records);
        by(&mut self.retried_records, &other.retried_records);
        by(&mut self.failed_records, &other.failed_records);
        by(&mut self.requests, &other.requests);
        self.accepted += other.accepted;
        self.applied += other.applied;
        self.duplicates += other.duplicates;
        self.retried += other.retried;
        self.redriven += other.redriven;
        self.unclaimed += other.unclaimed;
        self.forwarded += other.forwarded;
        self.arrived += other.arrived;
        self.forwarded_records += other.forwarded_records;
        self.forward_requests += other.forward_requests;
        self.forward_bytes += other.forward_bytes;
        self.appended_records += other.appended_records;
        self.standby_records += other.standby_records;
        self.append_errors += other.append_errors;
        self.circuit_opened += other.circuit_opened;
        self.circuit_closed += other.circuit_closed;
        self.received_records += other.received_records;
        self.changes_published += other.changes_published;
        self.view_writes += other.view_writes;
        self.view_reads += other.view_reads;
        self.lost_races += other.lost_races;
        self.throttles += other.throttles;
        self.shadow_appended += other.shadow_appended;
        self.shadow_missed += other.shadow_missed;
        for (minute, counts) in &other.minutes {
            *self.minutes.entry(*minute).or_default() += *counts;
        }
    }
}

impl Books {
    /// Events that have ended: applied, duplicates, dead and not redriven since.
    #[must_use]
    pub fn ended(&self) -> u64 {
        (self.applied + self.duplicates + self.dead.values().sum::<u64>()).saturating_sub(self.redriven)
    }

    /// Events that were accepted or arrived, and are not yet in a view, dead, or forwarded.
    /// Negative when a record was on a log, or was delivered, more than once: its events are then
    /// counted as duplicates again.
    #[must_use]
    pub fn in_flight(&self) -> i64 {
        (self.accepted + self.arrived).cast_signed() - (self.ended() + self.forwarded).cast_signed()
    }

    /// Events that have left a region and not arrived in another, if these are the books of all
    /// regions.
    #[must_use]
    pub fn between_regions(&self) -> u64 {
        self.forwarded.saturating_sub(self.arrived)
    }

    /// Whether every event has ended, and none more often than it may be on a log:
    /// accepted + arrived ≤ ended + forwarded ≤ accepted + arrived + unclaimed.
    #[must_use]
    pub fn balance(&self) -> bool {
        let came = self.accepted + self.arrived;
        (came..=came + self.unclaimed).contains(&(self.ended() + self.forwarded))
    }

    /// Adds the metrics among the lines of a log event.
    pub fn add_lines(&mut self, lines: &str) {
        for line in lines.lines() {
            // Most lines are not metrics: skip the parser.
            if line.starts_with("{\"_aws\"")
                && let Ok(document) = serde_json::from_str::<Value>(line)
            {
                self.add(&document);
            }
        }
    }

    fn add(&mut self, document: &Value) {
        let at = document.pointer("/_aws/Timestamp").and_then(Value::as_u64).unwrap_or_default();
        let directives = document.pointer("/_aws/CloudWatchMetrics").and_then(Value::as_array);
        // The first directive names all metrics. Later ones repeat some of them, for totals.
        for directive in directives.into_iter().flatten().take(1).filter(|one| one["Namespace"] == NAMESPACE) {
            let metrics = directive["Metrics"].as_array().into_iter().flatten();
            for name in metrics.filter_map(|metric| metric["Name"].as_str()) {
                let n = document[name].as_u64().unwrap_or_default();
                self.count(name, n, |dimension| document[dimension].as_str().unwrap_or_default().to_owned());
                let mut minute = Minute::default();
                if let Some(count) = minute.count(name) {
                    *count = n;
                    *self.minutes.entry(at - at % MINUTE_MS).or_default() += minute;
                }
            }
        }
    }

    fn count(&mut self, name: &str, n: u64, dimension: impl Fn(&str) -> String) {
        let by = |counts: &mut BTreeMap<String, u64>, name| *counts.entry(dimension(name)).or_default() += n;
        match name {
            "EventsAccepted" => self.accepted += n,
            "EventsRejected" => by(&mut self.rejected, "Code"),
            "EventsApplied" => self.applied += n,
            "EventsDuplicate" => self.duplicates += n,
            "EventsRetried" => self.retried += n,
            "EventsDead" => by(&mut self.dead, "Reason"),
            "EventsRedriven" => self.redriven += n,
            "EventsUnclaimed" => self.unclaimed += n,
            "EventsForwarded" => self.forwarded += n,
            "EventsArrived" => self.arrived += n,
            "RecordsForwarded" => self.forwarded_records += n,
            "ForwardRequests" => self.forward_requests += n,
            "ForwardBytes" => self.forward_bytes += n,
            "RecordsDead" => by(&mut self.dead_records, "Reason"),
            "RecordsRetried" => by(&mut self.retried_records, "Reason"),
            "RecordsFailed" => by(&mut self.failed_records, "Reason"),
            "RecordsAppended" => self.appended_records += n,
            "RecordsOnStandby" => self.standby_records += n,
            "RecordsReceived" => self.received_records += n,
            "AppendErrors" => self.append_errors += n,
            "CircuitOpened" => self.circuit_opened += n,
            "CircuitClosed" => self.circuit_closed += n,
            "ChangesPublished" => self.changes_published += n,
            "ViewWrites" => self.view_writes += n,
            "ViewReads" => self.view_reads += n,
            "LostRaces" => self.lost_races += n,
            "Throttles" => self.throttles += n,
            "ShadowAppended" => self.shadow_appended += n,
            "ShadowMissed" => self.shadow_missed += n,
            "Requests" => by(&mut self.requests, "Code"),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lambda::metrics::{Emitter, Metric};
    use std::sync::{Arc, Mutex};

    /// The books after these invocations, each at its time.
    fn books(invocations: &[(u64, &[(Metric, u64)])]) -> Books {
        let lines = Arc::new(Mutex::new(String::from("START RequestId\n{\"level\":\"INFO\"}\n")));
        let sink = Arc::clone(&lines);
        let emitter = Emitter::to("dev", "process", move |text| sink.lock().unwrap().push_str(text));
        for (at, counted) in invocations {
            let metrics = emitter.start(*at);
            counted.iter().for_each(|(metric, n)| metrics.add(*metric, *n));
        }
        let mut books = Books::default();
        books.add_lines(&lines.lock().unwrap());
        books
    }

    #[test]
    fn the_books_add_up_what_the_functions_count() {
        let invocation: (u64, &[(Metric, u64)]) = (
            1,
            &[
                (Metric::EventsAccepted, 10),
                (Metric::EventsRejected("kind_unknown"), 1),
                (Metric::EventsApplied, 6),
                (Metric::EventsDuplicate, 2),
                (Metric::EventsDead("invalid_envelope"), 1),
                (Metric::ViewWrites, 3),
                (Metric::RecordsOnStandby, 5),
                (Metric::RecordsRetried("store_throttled"), 7),
            ],
        );
        let books = books(&[invocation, invocation]);
        assert_eq!((books.accepted, books.applied, books.duplicates, books.view_writes), (20, 12, 4, 6));
        assert_eq!(books.rejected, BTreeMap::from([("kind_unknown".to_owned(), 2)]));
        assert_eq!(books.retried_records, BTreeMap::from([("store_throttled".to_owned(), 14)]));
        assert_eq!((books.standby_records, books.in_flight(), books.balance()), (10, 2, false));
    }

    #[test]
    fn outcomes_are_booked_in_the_minute_of_acceptance() {
        let books = books(&[
            (60_001, &[(Metric::EventsAccepted, 5)]),
            (119_999, &[(Metric::EventsAccepted, 5), (Metric::EventsUnclaimed, 2)]),
            (120_000, &[(Metric::EventsAccepted, 1), (Metric::HolesOpened, 3)]),
            // From `process` and `retry`, however much later.
            (60_000, &[(Metric::EventsApplied, 6), (Metric::EventsDuplicate, 2), (Metric::EventsRetried, 4)]),
            (60_000, &[(Metric::EventsDead("a"), 1), (Metric::EventsDead("b"), 1)]),
        ]);
        let first =
            Minute { accepted: 10, applied: 6, duplicates: 2, retried: 4, dead: 2, unclaimed: 2, ..Minute::default() };
        let second = Minute { accepted: 1, holes_opened: 3, ..Minute::default() };
        assert_eq!(books.minutes, BTreeMap::from([(60_000, first), (120_000, second)]));
        assert_eq!((first.loss(), second.loss()), (0, 1));
    }

    #[test]
    fn books_balance_between_accepted_and_accepted_plus_unclaimed() {
        let check = |ended: u64, unclaimed: u64, expect: bool| {
            let books = Books { accepted: 10, applied: ended, unclaimed, ..Books::default() };
            assert_eq!(books.balance(), expect, "{ended} of 10 ended, {unclaimed} unclaimed");
        };
        check(10, 0, true);
        check(9, 0, false);
        check(11, 0, false);
        check(9, 5, false);
        check(11, 1, true);
        check(12, 1, false);
    }

    #[test]
    fn only_a_single_regions_books_end_at_its_border() {
        let document = |metric: &str, n: u64| {
            let metrics = format!(r#"[{{"Namespace":"Playhead","Dimensions":[],"Metrics":[{{"Name":"{metric}"}}]}}]"#);
            format!(r#"{{"_aws":{{"Timestamp":60000,"CloudWatchMetrics":{metrics}}},"{metric}":{n}}}"#) + "\n"
        };
        let of = |counted: &[(&str, u64)]| {
            let mut books = Books::default();
            counted.iter().for_each(|(metric, n)| books.add_lines(&document(metric, *n)));
            books
        };
        let here = of(&[("EventsAccepted", 10), ("EventsApplied", 7), ("EventsForwarded", 3), ("ForwardRequests", 1)]);
        let there = of(&[("EventsAccepted", 5), ("EventsApplied", 5)]);
        assert!(here.balance() && there.balance(), "{here:?}");
        let sum = |there: &Books| {
            let mut all = here.clone();
            all += there;
            (
                all.in_flight(),
                all.between_regions(),
                all.minutes[&60_000].loss(),
                all.minutes[&60_000].between_regions(),
            )
        };
        assert_eq!(sum(&there), (0, 3, 0, 3), "three events are on their way");
        let there = of(&[("EventsAccepted", 5), ("EventsApplied", 5), ("EventsArrived", 3)]);
        assert_eq!((there.balance(), sum(&there)), (false, (3, 0, 3, 0)));
        let there = of(&[("EventsAccepted", 5), ("EventsApplied", 8), ("EventsArrived", 3)]);
        assert_eq!((there.balance(), sum(&there)), (true, (0, 0, 0, 0)));
    }
}
