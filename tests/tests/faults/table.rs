//! What a scenario measured, and which promises it did not keep.

use std::collections::BTreeMap;
use std::time::Duration;

use local::poller::PollerStats;
use operate::books::Books;
use playhead_tests::measure::{first_attempts, seconds, share};
use playhead_tests::suite::{self, Promises, Row};
use serde::Serialize;
use simulate::send::{Attempt, SendReport};

use super::scenario::Scenario;
use super::settle::Converged;
use super::stage::{Marks, Sent};

/// How many differences between views are shown.
const DIFFERENCES_SHOWN: usize = 5;

/// Compares everything with everything.
pub(crate) fn row(
    scenario: Scenario,
    report: &SendReport,
    marks: Marks,
    poison: &Sent,
    converged: &Converged,
    faults: BTreeMap<&'static str, usize>,
    polled: PollerStats,
) -> Row<Figures> {
    let mut figures = Figures::of(report, poison, converged, faults);
    (figures.given_up, figures.redelivered) = (polled.discarded, polled.retries);
    figures.times(report, marks, converged);
    let mut promises = Promises::default();
    kept(&mut promises, &figures, report, poison, converged);
    seen(&mut promises, scenario, &figures, report, marks, converged);
    Row::new(scenario, figures, promises.broken)
}

/// What a scenario showed. Times in seconds, latencies in milliseconds.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Figures {
    posts: usize,
    /// Events that the devices were told are accepted.
    accepted: u64,
    lost: u64,
    counted_twice: u64,
    duplicates: u64,
    unclaimed: u64,
    retried: u64,
    /// Records that were given up into the failure bucket.
    given_up: u64,
    /// Batches that a log delivered again.
    redelivered: u64,
    /// Dead records that are not poison.
    dead: u64,
    /// Records on the dead-letter queue, and poison records that were sent.
    poison: [usize; 2],
    /// Share of the POSTs that got a `202` at the first attempt, and at any.
    at_first_try: f64,
    in_the_end: f64,
    /// Of first attempts.
    p50_ms: u128,
    p99_ms: u128,
    /// From the fault until a POST that began after it got a `202`.
    first_accepted_s: Option<f64>,
    /// The longest time without a `202` from the fault on.
    gap_s: Option<f64>,
    /// Records on the standby.
    standby_records: usize,
    /// From the fault to the first record on the standby.
    failed_over_s: Option<f64>,
    /// From the end of the fault to the last record on the standby.
    came_back_s: Option<f64>,
    /// How often a circuit to the primary opened, and closed again.
    circuits: [u64; 2],
    /// While one session was throttled, how long the last events of all others took.
    others_s: Option<f64>,
    /// From the last answer to a device until nothing was in flight.
    settled_s: f64,
    /// The functions' own counts of everything.
    books: Books,
    /// What the fault proxy did.
    faults: BTreeMap<&'static str, usize>,
}

impl Figures {
    fn of(report: &SendReport, poison: &Sent, converged: &Converged, faults: BTreeMap<&'static str, usize>) -> Self {
        let end = &converged.end;
        let (p50_ms, p99_ms) = first_attempts(&report.attempts);
        Self {
            posts: report.posts,
            accepted: report.accepted as u64,
            lost: end.lost,
            counted_twice: end.twice + end.books.applied.saturating_sub(end.distinct),
            duplicates: end.books.duplicates,
            unclaimed: end.books.unclaimed,
            retried: end.books.retried,
            dead: end.dead_letters.iter().filter(|letter| !poison.tried.contains(letter)).count() as u64,
            poison: [end.dead_letters.len(), poison.tried.len()],
            at_first_try: share(report.first_try, report.posts),
            in_the_end: share(report.posts - report.failed_posts.len(), report.posts),
            p50_ms,
            p99_ms,
            standby_records: end.logs.standby.len(),
            circuits: [end.books.circuit_opened, end.books.circuit_closed],
            settled_s: seconds(converged.took),
            books: end.books.clone(),
            faults,
            ..Self::default()
        }
    }

    fn times(&mut self, report: &SendReport, marks: Marks, converged: &Converged) {
        self.others_s = marks.others_took.map(seconds);
        let Some(fault) = marks.fault else { return };
        let since = |from: u64, to: u64| seconds(Duration::from_millis(to.saturating_sub(from)));
        let mut accepted: Vec<&Attempt> = report.attempts.iter().filter(|attempt| attempt.succeeded()).collect();
        accepted.sort_by_key(|attempt| attempt.ended_at());
        let begun_after = accepted.iter().find(|attempt| attempt.began_at >= fault);
        self.first_accepted_s = begun_after.map(|attempt| since(fault, attempt.ended_at()));
        let ends: Vec<u64> = accepted.iter().map(|attempt| attempt.ended_at()).collect();
        let gaps = ends.windows(2).filter(|pair| pair[1] >= fault).map(|pair| since(pair[0], pair[1]));
        self.gap_s = gaps.reduce(f64::max);
        let standby = || converged.end.logs.standby.iter().copied();
        self.failed_over_s = standby().filter(|at| *at >= fault).min().map(|first| since(fault, first));
        self.came_back_s = marks.healed.and_then(|healed| standby().max().map(|last| since(healed, last)));
    }
}

impl suite::Figures for Figures {
    const HEAD: &'static [&'static str] = &[
        "accepted",
        "lost",
        "twice",
        "duplicates",
        "unclaimed",
        "retried",
        "given up",
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
    ];

    fn cells(&self) -> Vec<String> {
        let optional = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| format!("{value:.1}"));
        vec![
            self.accepted.to_string(),
            self.lost.to_string(),
            self.counted_twice.to_string(),
            self.duplicates.to_string(),
            self.unclaimed.to_string(),
            self.retried.to_string(),
            self.given_up.to_string(),
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
        ]
    }

    fn accepted(&self) -> u64 {
        self.accepted
    }
}

/// The promises.
fn kept(promises: &mut Promises, figures: &Figures, report: &SendReport, poison: &Sent, converged: &Converged) {
    let (end, books, logs) = (&converged.end, &converged.end.books, &converged.end.logs);
    promises.broken.extend(converged.in_flight.iter().cloned());
    promises.at_most("lost", end.lost, 0);
    promises.at_most("counted twice", figures.counted_twice, 0);
    promises.at_most("POSTs given up or refused for good", report.failed_posts.len() as u64, 0);
    promises.accepted(report.accepted as u64, books.accepted, &report.attempts);
    // What the log told ingest, and what this suite has read from it.
    promises.at_most("accepted ≤ events on the logs", books.accepted, logs.events);
    promises.at_most("events on the logs ≤ accepted + unclaimed", logs.events, books.accepted + books.unclaimed);
    // Everything on the logs has ended, and more than once only if a record came to a function more
    // than once. A function writes the outcome of a record together with the fact that it received
    // it. So at most as many copies were counted as were received, and each had at most as many
    // events as the greatest record.
    let ended = books.applied + books.duplicates;
    let again = books.received_records.saturating_sub(logs.records);
    promises.at_most("events on the logs ≤ applied + duplicates", logs.events, ended);
    promises.at_most(
        "applied + duplicates ≤ events on the logs and delivered again",
        ended,
        logs.events + again * logs.most,
    );
    // Only poison is dead, and every poison record that a broker acknowledged is, with its bytes.
    promises.at_most("dead records that were good", figures.dead, 0);
    let missing = poison.acknowledged.iter().filter(|at| !end.dead_letters.contains(&poison.tried[**at])).count();
    promises.at_most("poison that is not on the dead-letter queue", missing as u64, 0);
    promises.at_most("objects left in the failure bucket", end.objects as u64, 0);
    promises.broken.extend(end.differences.iter().take(DIFFERENCES_SHOWN).map(ToString::to_string));
    promises.broken.extend(report.failures.iter().cloned());
}

/// What must be seen, or the scenario proved nothing.
fn seen(
    promises: &mut Promises,
    scenario: Scenario,
    figures: &Figures,
    report: &SendReport,
    marks: Marks,
    converged: &Converged,
) {
    let signs = scenario.signs();
    let (books, logs) = (&converged.end.books, &converged.end.logs);
    let healed = marks.healed.unwrap_or_default();
    let returned = logs.primary.iter().any(|at| *at >= healed);
    promises.seen(!signs.standby || !logs.standby.is_empty(), "nothing went to the standby");
    promises.seen(!signs.standby || returned, "nothing went to the primary after it was back");
    promises.seen(!signs.refusals || report.retries > 0, "no POST was refused");
    promises.seen(!signs.never_refused || report.retries == 0, "POSTs were refused although the logs were there");
    let after = report.attempts.iter().filter(|attempt| attempt.began_at >= healed && marks.healed.is_some());
    let refused = after.filter(|attempt| !attempt.succeeded()).count();
    promises.seen(!signs.at_once_after || refused == 0, &format!("{refused} attempts failed after the fault"));
    let enough = figures.poison[1] * 100 >= logs.records as usize / 2;
    promises.seen(!signs.poison || enough, "less poison than one record in a hundred");
    promises.seen(!signs.given_up || figures.given_up > 0, "nothing was given up into the failure bucket");
    if signs.one_session {
        promises.at_most("events on retry ≤ of the hot session", books.retried, marks.hot_events.unwrap_or_default());
        promises.at_most("batches delivered again", figures.redelivered, 0);
    }
    promises.seen(!signs.retries || books.retried > 0, "nothing was sent to the queue retry");
}
