//! What a soak showed, and which promises it did not keep.

use super::faults::Happened;
use super::memory::{Memory, OfFunction, OfProgram};
use super::viewers::{Played, Readings};
use crate::percentile::percentile_ms;
use operate::books::{Books, Minute};
use serde::Serialize;
use simulate::expect::Difference;
use simulate::send::Attempt;
use std::collections::BTreeMap;
use std::time::Duration;

/// How many differences between views are shown. All are counted.
const DIFFERENCES_SHOWN: usize = 5;
/// Functions that are busy all the time, so the memory of each must be seen to be flat.
const BUSY: [&str; 4] = ["ingest", "process", "query", "publish"];
/// How many refusals are explained.
const FAILURES_SHOWN: usize = 5;

/// The POSTs of the soak, as their attempts ended.
#[derive(Debug, Default)]
pub(super) struct Sending {
    /// How long first attempts took that were accepted.
    first: Vec<Duration>,
    accepted: usize,
    pub(super) took: Duration,
}

impl Sending {
    pub(super) fn add(&mut self, attempt: &Attempt) {
        self.accepted += usize::from(attempt.succeeded());
        if attempt.number == 0 && attempt.succeeded() {
            self.first.push(attempt.took);
        }
    }

    pub(super) fn accepted(&self) -> usize {
        self.accepted
    }
}

/// Everything that was found.
pub(super) struct Found {
    pub(super) seed: u64,
    pub(super) minutes: u64,
    /// POSTs per second.
    pub(super) highest: f64,
    pub(super) asked: f64,
    pub(super) played: Played,
    pub(super) sending: Sending,
    pub(super) readings: Readings,
    pub(super) settled: Duration,
    pub(super) books: Books,
    pub(super) differences: Vec<Difference>,
    /// How many changes the feed had, and whether it told of all views. None without a feed.
    pub(super) feed: Option<(usize, bool)>,
    pub(super) faults: BTreeMap<String, Happened>,
    pub(super) poison: u64,
    pub(super) memory: Memory,
}

/// The result of a soak. Rates per second, memory in bytes.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    seed: u64,
    minutes: u64,
    highest_posts: f64,
    asked_posts: f64,
    held_posts: f64,
    posts: usize,
    events: usize,
    events_per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    retries: usize,
    histories: Readings,
    accepted: usize,
    distinct: usize,
    views: usize,
    /// The functions' own counts.
    books: Books,
    poison: u64,
    changes: Option<usize>,
    settled_s: u64,
    faults: BTreeMap<String, Happened>,
    functions: Vec<OfFunction>,
    programs: Vec<OfProgram>,
    /// Promises that were not kept, in words.
    pub(super) wrong: Vec<String>,
}

impl Report {
    pub(super) fn of(found: Found) -> Self {
        let functions = found.memory.of_functions();
        let wrong = wrong(&found, &functions);
        let Found { played, sending, books, .. } = found;
        let took = sending.took.as_secs_f64().max(1.0);
        // What was sent while the highest rate was looked for is in the books, but not in this rate.
        let share = sending.accepted as f64 / (played.posts as f64).max(1.0);
        Self {
            seed: found.seed,
            minutes: found.minutes,
            highest_posts: found.highest,
            asked_posts: found.asked,
            held_posts: sending.accepted as f64 / took,
            posts: played.posts,
            events: played.events,
            events_per_second: played.accepted as f64 * share / took,
            p50_ms: percentile_ms(&sending.first, 0.5),
            p99_ms: percentile_ms(&sending.first, 0.99),
            retries: played.retries,
            histories: found.readings,
            accepted: played.accepted,
            distinct: played.expected.distinct,
            views: played.expected.views.len(),
            books,
            poison: found.poison,
            changes: found.feed.map(|(changes, _)| changes),
            settled_s: found.settled.as_secs(),
            faults: found.faults,
            functions,
            programs: found.memory.of_programs(),
            wrong,
        }
    }

    pub(super) fn print(&self) {
        let Self { books, .. } = self;
        println!("\n{} minutes, {} POSTs with {} events", self.minutes, self.posts, self.events);
        println!(
            "The machine took at most {:.0} POSTs per second at first; of {:.0} asked for, {:.0} were held: {:.0} events \
             per second",
            self.highest_posts, self.asked_posts, self.held_posts, self.events_per_second
        );
        println!(
            "Accepted at the first attempt, a POST took {:.0} ms at the median, {:.0} ms at the 99th percentile",
            self.p50_ms, self.p99_ms
        );
        println!("{} attempts were made again", self.retries);
        let Readings { answered, unavailable, .. } = self.histories;
        println!("{answered} histories were read meanwhile, {unavailable} requests for them failed\n");

        println!("What broke                                 times       hit   (calls of AWS, processes, records)");
        for (fault, Happened { times, hit }) in &self.faults {
            println!("  {fault:<40} {times:>5}  {hit:>8}");
        }
        println!("\nThe books, in events\n");
        println!("  accepted     {:>9}   by the devices; {} by ingest", self.accepted, books.accepted);
        println!("    applied    {:>9}   of {} distinct events", books.applied, self.distinct);
        println!("    duplicates {:>9}", books.duplicates);
        println!("    dead       {:>9}   and {} records of poison", books.dead.values().sum::<u64>(), self.poison);
        println!("    in flight  {:>9}", books.in_flight().max(0));
        println!("  {} records were on the standby log, {} events on retry", books.standby_records, books.retried);
        println!("  {} conditional writes: {:.3} per event", books.view_writes, self.writes_per_event());
        if let Some(changes) = self.changes {
            println!("  {changes} changes in the change feed");
        }
        match books.in_flight() {
            ..=0 => println!("  Nothing was in flight {} s after the viewers had stopped.\n", self.settled_s),
            left => println!("  {left} events were in flight, and nothing moved any more.\n"),
        }

        println!("Memory allocated, MiB                      start      end");
        for of in &self.functions {
            let verdict = match of.flat {
                Some(true) => "flat",
                Some(false) => "GROWS",
                None => "did not live for long enough to judge",
            };
            println!(
                "  {:<38} {:>7} {:>8}   {verdict}; one of {} environments, {} s",
                of.function,
                mib(of.start),
                mib(of.end),
                of.environments,
                of.seconds
            );
        }
        for of in &self.programs {
            println!("  {:<38} {:>7} {:>8}", of.program, mib(of.start), mib(of.end));
        }
        println!("  The emulator, a broker in memory and this command keep what was sent.\n");
        match self.wrong.is_empty() {
            true => println!("All {} views are right. Nothing was lost, nothing counted twice.", self.views),
            false => self.wrong.iter().for_each(|wrong| println!("DOES NOT HOLD: {wrong}")),
        }
    }

    fn writes_per_event(&self) -> f64 {
        self.books.view_writes as f64 / (self.books.accepted as f64).max(1.0)
    }
}

fn mib(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / 1_048_576.0)
}

/// The promises that were not kept.
fn wrong(found: &Found, functions: &[OfFunction]) -> Vec<String> {
    let Found { played, books, .. } = found;
    let mut wrong = Vec::new();
    let mut at_most = |what: &str, less: u64, more: u64| {
        if less > more {
            wrong.push(format!("{what}: {less} > {more}"));
        }
    };
    at_most("POSTs that were refused for good", played.refused as u64, 0);
    at_most("views that are wrong", found.differences.len() as u64, 0);
    // An environment of `ingest` that is killed does not count what it had appended, and its device
    // sends it again. One of `process` does not count what it had applied, and what it reads again
    // is a duplicate.
    at_most("accepted: devices ≤ ingest", played.accepted as u64, books.accepted);
    // By the minute, because what was counted twice in one must not hide what was lost in another.
    for (minute, Minute { accepted, applied, duplicates, .. }) in &books.minutes {
        at_most(&format!("accepted in minute {minute} ≤ applied + duplicates"), *accepted, applied + duplicates);
    }
    at_most("applied ≤ distinct events", books.applied, played.expected.distinct as u64);
    at_most("events that are dead", books.dead.values().sum(), 0);
    at_most("poison ≤ records that are dead", found.poison, books.dead_records.values().sum());
    at_most("views that the change feed did not tell of", u64::from(found.feed.is_some_and(|(_, all)| !all)), 0);
    if played.rejected != played.expected.rejected {
        wrong.push(format!("rejected: {:?} is not {:?}", played.rejected, played.expected.rejected));
    }
    let Readings { answered, refused, .. } = found.readings;
    if answered == 0 || refused > 0 {
        wrong.push(format!("histories: {answered} were read, {refused} requests for them were refused"));
    }
    for (fault, _) in found.faults.iter().filter(|(_, happened)| happened.hit == 0) {
        wrong.push(format!("{fault}: it hit nothing"));
    }
    for function in BUSY.into_iter().filter(|busy| found.feed.is_some() || *busy != "publish") {
        if !functions.iter().any(|of| of.function == function && of.flat.is_some()) {
            wrong.push(format!("the memory of {function}: no environment lived for long enough to judge it"));
        }
    }
    let grows = functions.iter().filter(|of| of.flat == Some(false));
    wrong.extend(grows.map(|of| {
        format!(
            "the memory of {} grows: from {} to {} MiB in {} s, and had not stopped: it was {} MiB in the third quarter",
            of.function,
            mib(of.start),
            mib(of.end),
            of.seconds,
            mib(of.late)
        )
    }));
    wrong.extend(found.differences.iter().take(DIFFERENCES_SHOWN).map(ToString::to_string));
    wrong.extend(played.failures.iter().take(FAILURES_SHOWN).cloned());
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use simulate::expect::Expected;

    /// A soak in which everything holds.
    fn found() -> Found {
        let expected = Expected { accepted: 10, distinct: 8, duplicates: 2, ..Expected::default() };
        Found {
            seed: 0,
            minutes: 1,
            highest: 2.0,
            asked: 2.0,
            played: Played { accepted: 10, posts: 4, expected, ..Played::default() },
            sending: Sending::default(),
            readings: Readings { answered: 1, ..Readings::default() },
            settled: Duration::ZERO,
            books: Books {
                accepted: 11, // a device got no answer, and sent one event again
                applied: 8,
                duplicates: 3,
                dead_records: BTreeMap::from([("not_an_envelope".to_owned(), 3)]),
                minutes: BTreeMap::from([
                    (60_000, Minute { accepted: 6, applied: 5, duplicates: 1, ..Minute::default() }),
                    (120_000, Minute { accepted: 5, applied: 3, duplicates: 2, ..Minute::default() }),
                ]),
                ..Books::default()
            },
            differences: Vec::new(),
            feed: Some((5, true)),
            faults: BTreeMap::new(),
            poison: 3,
            memory: Memory::flat(&BUSY),
        }
    }

    #[track_caller]
    fn breaks(change: impl FnOnce(&mut Found), promise: &str) {
        let mut found = found();
        change(&mut found);
        let wrong = Report::of(found).wrong;
        assert!(wrong.len() == 1 && wrong[0].starts_with(promise), "{wrong:?}");
    }

    #[test]
    fn each_broken_promise_is_told() {
        assert_eq!(Report::of(found()).wrong, Vec::<String>::new());
        breaks(|found| found.played.refused = 1, "POSTs that were refused for good");
        breaks(|found| found.played.accepted = 12, "accepted: devices ≤ ingest");
        let lost = |found: &mut Found| found.books.minutes.get_mut(&120_000).unwrap().applied = 2;
        breaks(lost, "accepted in minute 120000 ≤ applied + duplicates: 5 > 4");
        breaks(|found| found.books.applied = 9, "applied ≤ distinct events");
        breaks(|found| found.books.dead = BTreeMap::from([("too_large".to_owned(), 1)]), "events that are dead");
        breaks(|found| found.poison = 4, "poison ≤ records that are dead");
        breaks(|found| found.feed = Some((5, false)), "views that the change feed did not tell of");
        breaks(|found| found.readings.answered = 0, "histories: 0 were read");
        breaks(|found| found.readings.refused = 1, "histories: 1 were read, 1 requests");
        breaks(|found| found.memory = Memory::flat(&BUSY[1..]), "the memory of ingest: no environment lived");
        let nothing = || BTreeMap::from([("the store hangs".to_owned(), Happened { times: 1, hit: 0 })]);
        breaks(|found| found.faults = nothing(), "the store hangs: it hit nothing");
        breaks(|found| found.played.rejected = BTreeMap::from([("kind_unknown".to_owned(), 1)]), "rejected: ");
    }

    #[test]
    fn a_difference_is_counted_and_shown() {
        let difference = Difference {
            profile_id: "p1".to_owned(),
            session_id: "s1".to_owned(),
            field: "events",
            expected: "3".to_owned(),
            actual: "2".to_owned(),
        };
        let report = Report::of(Found { differences: vec![difference], ..found() });
        assert_eq!(report.wrong, ["views that are wrong: 1 > 0", "p1 s1: events is 2, expected 3"]);
    }
}
