//! What a scenario measured, and which promises it did not keep.

use operate::books::Minute;
use playhead_tests::measure::{first_attempts, seconds, share};
use playhead_tests::suite::{self, Row};
use serde::Serialize;
use simulate::plan::Plan;
use simulate::writers::Writers;

use super::members::Said;
use super::play::{Crowd, Sights};
use super::promises;
use super::scenario::Scenario;
use super::settle::Converged;

/// Compares everything with everything.
pub(crate) fn row(
    scenario: Scenario,
    crowds: &[Crowd],
    said: &Said,
    sights: &Sights,
    converged: &Converged,
) -> Row<Figures> {
    let wrong = [
        promises::accepted_events_have_ended_and_none_is_dead(crowds, converged),
        promises::views_in_both_regions_match_the_trace(converged),
        promises::only_the_home_or_its_successor_writes_a_session(crowds, sights, converged),
        promises::hidden_and_erased_stays_so_in_both_regions(said, converged),
        promises::devices_notice_nothing(crowds),
        promises::seen(scenario, crowds, said, sights, converged),
    ];
    Row::new(scenario, Figures::of(crowds, said, sights, converged), wrong.concat())
}

/// What a scenario showed. Times in seconds, latencies in milliseconds.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Figures {
    posts: usize,
    /// Events that the devices were told are accepted.
    accepted: u64,
    lost: u64,
    counted_twice: u64,
    /// Sessions that were sent through both regions.
    travelled: usize,
    /// Who wrote the sessions, except the erased ones.
    writers: Writers,
    /// How often members hid, showed or erased something.
    said: usize,
    /// Share of the POSTs that got a `202` at the first attempt.
    at_first_try: f64,
    /// Of first attempts.
    p50_ms: u128,
    p99_ms: u128,
    /// The maximum number of records that waited for another region at once.
    waiting: u64,
    /// The maximum number of items that differed between the regions at once.
    open: u64,
    /// Requests between the regions that failed.
    cut_off: u64,
    /// From the repair until the views of the crowd that fell silent were right in both regions.
    converged_s: Option<f64>,
    /// From the last answer to a device until nothing was in flight and all views were right.
    settled_s: f64,
    /// The functions' own counts in both regions.
    books: Minute,
}

impl Figures {
    fn of(crowds: &[Crowd], said: &Said, sights: &Sights, converged: &Converged) -> Self {
        let end = &converged.end;
        let sum = |count: fn(&Crowd) -> usize| crowds.iter().map(count).sum::<usize>();
        let posts = sum(|crowd| crowd.report.posts);
        let (p50_ms, p99_ms) = first_attempts(crowds.iter().flat_map(|crowd| &crowd.report.attempts));
        Self {
            posts,
            accepted: sum(|crowd| crowd.report.accepted) as u64,
            lost: end.lost,
            counted_twice: end.twice,
            travelled: sum(travelled),
            writers: Writers::of(end.keys.iter().flatten()),
            said: said.calls,
            at_first_try: share(sum(|crowd| crowd.report.first_try), posts),
            p50_ms,
            p99_ms,
            waiting: sights.waiting,
            open: sights.open,
            cut_off: sights.cut_off,
            converged_s: sights.converged.map(seconds),
            settled_s: seconds(converged.took),
            books: end.books,
        }
    }
}

impl suite::Figures for Figures {
    const HEAD: &'static [&'static str] = &[
        "accepted",
        "lost",
        "twice",
        "duplicates",
        "unclaimed",
        "forwarded / arrived",
        "travelled",
        "written at home + by a successor too",
        "hid, showed, erased",
        "202 at first try",
        "p50 ms",
        "p99 ms",
        "waiting for a region",
        "not replicated",
        "cut off",
        "converged s",
        "settled s",
    ];

    fn cells(&self) -> Vec<String> {
        let books = &self.books;
        vec![
            self.accepted.to_string(),
            self.lost.to_string(),
            self.counted_twice.to_string(),
            books.duplicates.to_string(),
            books.unclaimed.to_string(),
            format!("{} / {}", books.forwarded, books.arrived),
            self.travelled.to_string(),
            format!("{} + {}", self.writers.at_home, self.writers.elsewhere),
            self.said.to_string(),
            format!("{:.2} %", 100.0 * self.at_first_try),
            self.p50_ms.to_string(),
            self.p99_ms.to_string(),
            self.waiting.to_string(),
            self.open.to_string(),
            self.cut_off.to_string(),
            self.converged_s.map_or_else(|| "–".to_owned(), |took| format!("{took:.1}")),
            format!("{:.1}", self.settled_s),
        ]
    }

    fn accepted(&self) -> u64 {
        self.accepted
    }
}

/// How many of the sessions that were sent travelled.
fn travelled(crowd: &Crowd) -> usize {
    let sent = crowd.plan.posts.iter().enumerate().filter(|(index, _)| !crowd.report.unsent.contains(index));
    let sent = Plan { posts: sent.map(|(_, post)| post.clone()).collect(), applied: crowd.plan.applied.clone() };
    sent.travelled().len()
}
