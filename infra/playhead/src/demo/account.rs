//! The books of a demo, checked against the devices and the simulator.

use crate::settled::sum;
use operate::books::Books;
use serde::Serialize;
use simulate::expect::Expected;
use simulate::send::SendReport;
use std::collections::{BTreeMap, BTreeSet};

/// The books of a run, from the devices to the views.
#[derive(Debug, Serialize)]
pub(super) struct Account {
    /// Events that the devices sent.
    pub(super) sent: usize,
    pub(super) accepted: u64,
    pub(super) rejected: BTreeMap<String, u64>,
    pub(super) applied: u64,
    pub(super) duplicates: u64,
    pub(super) dead: u64,
    pub(super) in_flight: i64,
    /// Distinct accepted events, as the simulator counts them. All of them must be applied.
    pub(super) distinct: usize,
    /// Every check holds.
    pub(super) balanced: bool,
    /// The checks that do not hold, in words.
    pub(super) faults: Vec<String>,
}

/// Checks the books of the devices, of the functions and of the simulator against each other.
pub(super) fn account(report: &SendReport, books: &[Books], expected: &Expected) -> Account {
    let several = books.len() > 1;
    let books = &sum(books);
    let rejected: u64 = books.rejected.values().sum();
    let dead: u64 = books.dead.values().sum();
    let mut faults = Vec::new();
    // A failed append may leave a copy on a log, which ends as a duplicate. Failed and retried
    // records are received again.
    let again: u64 = books.failed_records.values().chain(books.retried_records.values()).sum();
    let mut hold_between = |what: &str, least: u64, value: u64, more: u64| {
        if !(least..=least + more).contains(&value) {
            faults.push(format!("{what}: {value} is not between {least} and {}", least + more));
        }
    };
    hold_between(
        "accepted + arrived <= applied + duplicates + dead + forwarded <= accepted + arrived + unclaimed",
        books.accepted + books.arrived,
        books.ended() + books.forwarded,
        books.unclaimed,
    );
    if !several {
        // Between regions, `forward` receives a record, and then `process` gets it in a message.
        hold_between(
            "records: appended <= received <= appended + unclaimed + failed + retried",
            books.appended_records,
            books.received_records,
            books.unclaimed + again,
        );
    }
    let mut hold = |what: &str, left: u64, right: u64| {
        if left != right {
            faults.push(format!("{what}: {left} is not {right}"));
        }
    };
    hold("events sent = accepted + rejected", report.events_sent as u64, books.accepted + rejected);
    hold("accepted: by the devices = by ingest", report.accepted as u64, books.accepted);
    hold("applied = distinct events accepted", books.applied, expected.distinct as u64);
    hold("forwarded but not arrived = 0", books.between_regions(), 0);
    hold("dead = 0", dead + books.dead_records.values().sum::<u64>(), 0);
    hold("failed POSTs = 0", report.failed_posts.len() as u64, 0);
    for code in books.rejected.keys().chain(expected.rejected.keys()).collect::<BTreeSet<_>>() {
        let planned = expected.rejected.get(code).copied().unwrap_or_default() as u64;
        hold(
            &format!("rejected as {code} = planned as {code}"),
            books.rejected.get(code).copied().unwrap_or_default(),
            planned,
        );
    }
    faults.extend(report.failures.iter().cloned());
    Account {
        sent: report.events_sent,
        accepted: books.accepted,
        rejected: books.rejected.clone(),
        applied: books.applied,
        duplicates: books.duplicates,
        dead,
        in_flight: books.in_flight() + books.between_regions().cast_signed(),
        distinct: expected.distinct,
        balanced: faults.is_empty(),
        faults,
    }
}
