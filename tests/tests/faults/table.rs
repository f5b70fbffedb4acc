//! What a scenario showed, what is wrong with it, and the table of all.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use operate::books::Books;
use operate::workspace_root;
use playhead_tests::measure::{at, seconds, share};
use serde::Serialize;
use simulate::send::{Attempt, SendReport};

use super::Args;
use super::scenario::Scenario;
use super::settle::Settled;
use super::stage::{Marks, Sent};

/// Of the template.
const INGEST_TIMEOUT: Duration = Duration::from_secs(20);
/// How many differences of views are told.
const DIFFERENCES_TOLD: usize = 5;

/// What a scenario showed. Times in seconds, latencies in milliseconds.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Row {
    pub(crate) scenario: &'static str,
    what: &'static str,
    posts: usize,
    /// Events that the devices were told are accepted.
    accepted: u64,
    lost: u64,
    counted_twice: u64,
    duplicates: u64,
    unclaimed: u64,
    retried: u64,
    /// Accepted events that are dead.
    dead: u64,
    /// Poison records on the dead-letter queue, of those that were sent.
    poison: [usize; 2],
    /// Shares of the POSTs that were answered with a `202` at the first attempt, and in the end.
    at_first_try: f64,
    in_the_end: f64,
    /// Of first attempts.
    p50_ms: u128,
    p99_ms: u128,
    /// From the fault until a POST that began after it was answered with a `202`.
    first_accepted_s: Option<f64>,
    /// The longest time without any `202` from the fault on.
    gap_s: Option<f64>,
    /// Records on the standby.
    standby_records: usize,
    /// From the fault to the first record on the standby.
    failed_over_s: Option<f64>,
    /// From the end of the fault to the last record on the standby.
    came_back_s: Option<f64>,
    /// Times that a circuit to the primary opened, and closed again.
    circuits: [u64; 2],
    /// From the last answer to a device until nothing was in flight.
    settled_s: f64,
    /// The functions' own counts: of everything.
    books: Books,
    /// What the fault proxy did.
    faults: BTreeMap<&'static str, usize>,
    /// Promises that were not kept, in words.
    pub(crate) wrong: Vec<String>,
}

impl Row {
    /// A scenario that could not be played.
    pub(crate) fn broken(scenario: Scenario, why: String) -> Self {
        Self { scenario: scenario.name(), what: scenario.what(), wrong: vec![why], ..Self::default() }
    }

    /// Holds everything against everything.
    pub(crate) fn of(
        scenario: Scenario,
        report: &SendReport,
        marks: Marks,
        poison: &Sent,
        settled: Settled,
        faults: BTreeMap<&'static str, usize>,
    ) -> Result<Self> {
        let books = &settled.books;
        let mut row = Self {
            scenario: scenario.name(),
            what: scenario.what(),
            posts: report.posts,
            accepted: report.accepted as u64,
            lost: settled.lost,
            counted_twice: settled.twice + books.applied.saturating_sub(settled.distinct),
            duplicates: books.duplicates,
            unclaimed: books.unclaimed,
            retried: books.retried,
            poison: [settled.dead_letters.len(), poison.tried.len()],
            at_first_try: share(report.first_try, report.posts),
            in_the_end: share(report.posts - report.failed_posts.len(), report.posts),
            standby_records: settled.logs.standby.len(),
            circuits: [books.circuit_opened, books.circuit_closed],
            settled_s: seconds(settled.took),
            faults,
            books: books.clone(),
            ..Self::default()
        };
        let firsts = report.attempts.iter().filter(|attempt| attempt.number == 0);
        let mut latencies: Vec<u128> = firsts.map(|attempt| attempt.took.as_millis()).collect();
        latencies.sort_unstable();
        (row.p50_ms, row.p99_ms) = (at(&latencies, 0.5), at(&latencies, 0.99));
        row.times(report, marks, &settled);
        row.hold(report, poison, &settled);
        row.see(scenario, report, marks, &settled);
        Ok(row)
    }

    fn times(&mut self, report: &SendReport, marks: Marks, settled: &Settled) {
        let Some(fault) = marks.fault else { return };
        let since = |from: u64, to: u64| seconds(Duration::from_millis(to.saturating_sub(from)));
        let mut accepted: Vec<&Attempt> = report.attempts.iter().filter(|attempt| attempt.succeeded()).collect();
        accepted.sort_by_key(|attempt| attempt.ended_at());
        let begun_after = accepted.iter().find(|attempt| attempt.began_at >= fault);
        self.first_accepted_s = begun_after.map(|attempt| since(fault, attempt.ended_at()));
        let ends: Vec<u64> = accepted.iter().map(|attempt| attempt.ended_at()).collect();
        let gaps = ends.windows(2).filter(|pair| pair[1] >= fault).map(|pair| since(pair[0], pair[1]));
        self.gap_s = gaps.reduce(f64::max);
        let standby = || settled.logs.standby.iter().copied();
        self.failed_over_s = standby().filter(|at| *at >= fault).min().map(|first| since(fault, first));
        self.came_back_s = marks.healed.and_then(|healed| standby().max().map(|last| since(healed, last)));
    }

    /// The promises.
    fn hold(&mut self, report: &SendReport, poison: &Sent, settled: &Settled) {
        let (books, logs) = (&settled.books, &settled.logs);
        let mut wrong = settled.in_flight.clone();
        let mut at_most = |what: &str, less: u64, more: u64| {
            if less > more {
                wrong.push(format!("{what}: {less} > {more}"));
            }
        };
        at_most("lost", settled.lost, 0);
        at_most("counted twice", self.counted_twice, 0);
        at_most("POSTs given up or refused for good", report.failed_posts.len() as u64, 0);
        // A device that got no answer, or the gateway's after ingest's time-out, sends again what ingest may have counted.
        let is_unanswered =
            |attempt: &Attempt| attempt.status.is_none() || (!attempt.succeeded() && attempt.took > INGEST_TIMEOUT);
        let unanswered = report.attempts.iter().any(is_unanswered);
        at_most("accepted: devices ≤ ingest", report.accepted as u64, books.accepted);
        if !unanswered {
            at_most("accepted: ingest ≤ devices", books.accepted, report.accepted as u64);
        }
        // Of which ingest is told by the log, and which this suite has read from it.
        at_most("accepted ≤ events on the logs", books.accepted, logs.events);
        at_most("events on the logs ≤ accepted + unclaimed", logs.events, books.accepted + books.unclaimed);
        // Everything on the logs has ended, and more often than once only where a record came to a function more than once. A
        // function writes that it received a record together with what became of it. So the copies that were counted
        // are at most those that were received, and each had at most as many events as the greatest record.
        let ended = books.applied + books.duplicates;
        let again = books.received_records.saturating_sub(logs.records);
        at_most("events on the logs ≤ applied + duplicates", logs.events, ended);
        at_most(
            "applied + duplicates ≤ events on the logs and delivered again",
            ended,
            logs.events + again * logs.most,
        );
        // Nothing but poison is dead, and every record of it that a broker acknowledged is, with its bytes.
        let known = |letter: &&Vec<u8>| poison.tried.contains(letter);
        self.dead = settled.dead_letters.iter().filter(|letter| !known(letter)).count() as u64;
        at_most("dead records that were good", self.dead, 0);
        let missing =
            poison.acknowledged.iter().filter(|at| !settled.dead_letters.contains(&poison.tried[**at])).count();
        at_most("poison that is not on the dead-letter queue", missing as u64, 0);
        wrong.extend(settled.differences.iter().take(DIFFERENCES_TOLD).map(ToString::to_string));
        wrong.extend(report.failures.iter().cloned());
        self.wrong.extend(wrong);
    }

    /// What must be seen, or the scenario proved nothing.
    fn see(&mut self, scenario: Scenario, report: &SendReport, marks: Marks, settled: &Settled) {
        let signs = scenario.signs();
        let logs = &settled.logs;
        let healed = marks.healed.unwrap_or_default();
        let mut wrong = Vec::new();
        let mut unless = |seen: bool, what: &str| {
            if !seen {
                wrong.push(what.to_owned());
            }
        };
        unless(!signs.standby || !logs.standby.is_empty(), "nothing went to the standby");
        unless(
            !signs.standby || logs.primary.iter().any(|at| *at >= healed),
            "nothing went to the primary after it was back",
        );
        unless(!signs.refusals || report.retries > 0, "no POST was refused");
        unless(!signs.never_refused || report.retries == 0, "POSTs were refused, though the logs were there");
        let after = report.attempts.iter().filter(|attempt| attempt.began_at >= healed && marks.healed.is_some());
        let refused = after.filter(|attempt| !attempt.succeeded()).count();
        unless(!signs.at_once_after || refused == 0, &format!("{refused} attempts failed after the fault"));
        let enough = self.poison[1] * 100 >= settled.logs.records as usize / 2;
        unless(!signs.poison || enough, "less poison than one record in a hundred");
        unless(!signs.retries || settled.books.retried > 0, "nothing was sent to the queue retry");
        self.wrong.extend(wrong);
    }

    fn cells(&self) -> Vec<String> {
        let optional = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| format!("{value:.1}"));
        vec![
            self.scenario.to_owned(),
            self.accepted.to_string(),
            self.lost.to_string(),
            self.counted_twice.to_string(),
            self.duplicates.to_string(),
            self.unclaimed.to_string(),
            self.retried.to_string(),
            format!("{} + {}/{} poison", self.dead, self.poison[0], self.poison[1]),
            format!("{:.2} %", 100.0 * self.at_first_try),
            format!("{:.2} %", 100.0 * self.in_the_end),
            self.p50_ms.to_string(),
            self.p99_ms.to_string(),
            optional(self.first_accepted_s),
            optional(self.gap_s),
            self.standby_records.to_string(),
            optional(self.failed_over_s),
            optional(self.came_back_s),
            format!("{:.1}", self.settled_s),
            if self.wrong.is_empty() { "held" } else { "WRONG" }.to_owned(),
        ]
    }
}

const HEAD: [&str; 19] = [
    "scenario",
    "accepted",
    "lost",
    "twice",
    "duplicates",
    "unclaimed",
    "retried",
    "dead",
    "202 at first try",
    "202 in the end",
    "p50 ms",
    "p99 ms",
    "first 202 s",
    "longest gap s",
    "on standby",
    "over s",
    "back s",
    "settled s",
    "promises",
];

/// Where the table goes, and beside it what the functions of a scenario that did not hold had to say (`SCENARIO.log`).
pub(crate) fn folder() -> Result<PathBuf> {
    Ok(workspace_root()?.join("target/playhead/faults"))
}

/// All scenarios of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Table {
    seed: u64,
    posts_per_second: f64,
    pub(crate) seconds: u64,
    pub(crate) rows: Vec<Row>,
}

impl Table {
    pub(crate) fn new(args: &Args) -> Self {
        Self { seed: args.seed, posts_per_second: args.rate, seconds: 0, rows: Vec::new() }
    }

    pub(crate) fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let mut text = line(&HEAD.map(str::to_owned));
        text += &line(&HEAD.map(|_| "---".to_owned()));
        for row in &self.rows {
            text += &line(&row.cells());
        }
        let accepted: u64 = self.rows.iter().map(|row| row.accepted).sum();
        text += &format!(
            "\n{accepted} events accepted in {} scenarios, seed {}, {} POSTs a second, {} s in all.\n",
            self.rows.len(),
            self.seed,
            self.posts_per_second,
            self.seconds
        );
        for row in self.rows.iter().filter(|row| !row.wrong.is_empty()) {
            text += &format!("\n{}:\n", row.scenario);
            text.extend(row.wrong.iter().map(|wrong| format!("- {wrong}\n")));
        }
        text
    }

    /// Writes `faults.md` and `faults.json`.
    pub(crate) fn write(&self) -> Result<()> {
        let folder = folder()?;
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("faults.md"), self.markdown())?;
        Ok(fs::write(folder.join("faults.json"), serde_json::to_vec_pretty(self)?)?)
    }
}
