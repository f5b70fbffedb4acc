//! What a scenario showed, what is wrong with it, and the table of all.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;
use operate::books::Minute;
use operate::workspace_root;
use playhead_tests::measure::{at, seconds, share};
use serde::Serialize;
use simulate::plan::Plan;
use simulate::send::Attempt;
use simulate::writers::Writers;

use super::Args;
use super::members::Said;
use super::play::{Crowd, Sights};
use super::promises;
use super::scenario::Scenario;
use super::settle::Settled;

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
    /// Sessions that were sent through both regions.
    travelled: usize,
    /// Who wrote the sessions, the erased ones apart.
    writers: Writers,
    /// How often members hid, showed or erased something.
    said: usize,
    /// Share of the POSTs that were answered with a `202` at the first attempt.
    at_first_try: f64,
    /// Of first attempts.
    p50_ms: u128,
    p99_ms: u128,
    /// The most records at once that waited for another region.
    waiting: u64,
    /// The most items at once that were not the same in both regions.
    open: u64,
    /// Requests between the regions that did not get through.
    cut_off: u64,
    /// From the repair until the views of the crowd that fell silent then were right in both regions.
    converged_s: Option<f64>,
    /// From the last answer to a device until nothing was in flight and all views were right.
    settled_s: f64,
    /// The functions' own counts, of both regions.
    books: Minute,
    /// Promises that were not kept, in words.
    pub(crate) wrong: Vec<String>,
}

impl Row {
    /// A scenario that could not be played.
    pub(crate) fn broken(scenario: Scenario, why: String) -> Self {
        Self { scenario: scenario.name(), what: scenario.what(), wrong: vec![why], ..Self::default() }
    }

    /// Holds everything against everything.
    pub(crate) fn of(scenario: Scenario, crowds: &[Crowd], said: &Said, sights: &Sights, settled: &Settled) -> Self {
        let sum = |count: fn(&Crowd) -> usize| crowds.iter().map(count).sum::<usize>();
        let posts = sum(|crowd| crowd.report.posts);
        let firsts = crowds.iter().flat_map(|crowd| &crowd.report.attempts).filter(|attempt| attempt.number == 0);
        let mut latencies: Vec<u128> = firsts.map(|attempt: &Attempt| attempt.took.as_millis()).collect();
        latencies.sort_unstable();
        let wrong = [
            promises::what_both_regions_accepted_has_ended_and_nothing_is_dead(crowds, settled),
            promises::views_of_both_regions_are_the_trace_whatever_is_between_them(settled),
            promises::a_session_is_written_at_home_and_of_a_drained_home_by_the_successor_at_most(
                crowds, sights, settled,
            ),
            promises::what_is_hidden_or_erased_from_either_region_stays_so_in_both(said, settled),
            promises::devices_notice_nothing_of_what_is_between_the_regions(crowds),
            promises::seen(scenario, crowds, said, sights, settled),
        ];
        Self {
            scenario: scenario.name(),
            what: scenario.what(),
            posts,
            accepted: sum(|crowd| crowd.report.accepted) as u64,
            lost: settled.lost,
            counted_twice: settled.twice,
            travelled: sum(travelled),
            writers: Writers::of(settled.keys.iter().flatten()),
            said: said.calls,
            at_first_try: share(sum(|crowd| crowd.report.first_try), posts),
            p50_ms: at(&latencies, 0.5),
            p99_ms: at(&latencies, 0.99),
            waiting: sights.waiting,
            open: sights.open,
            cut_off: sights.cut_off,
            converged_s: sights.converged.map(seconds),
            settled_s: seconds(settled.took),
            books: settled.books,
            wrong: wrong.concat(),
        }
    }

    fn cells(&self) -> Vec<String> {
        let books = &self.books;
        vec![
            self.scenario.to_owned(),
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
            if self.wrong.is_empty() { "held" } else { "WRONG" }.to_owned(),
        ]
    }
}

/// Of what was sent.
fn travelled(crowd: &Crowd) -> usize {
    let sent = crowd.plan.posts.iter().enumerate().filter(|(index, _)| !crowd.report.unsent.contains(index));
    let sent = Plan { posts: sent.map(|(_, post)| post.clone()).collect(), applied: crowd.plan.applied.clone() };
    sent.travelled().len()
}

const HEAD: [&str; 19] = [
    "scenario",
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
    "promises",
];

/// Where the table goes.
pub(crate) fn folder() -> Result<PathBuf> {
    Ok(workspace_root()?.join("target/playhead/region-faults"))
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

    /// Writes `region-faults.md` and `region-faults.json`.
    pub(crate) fn write(&self) -> Result<()> {
        let folder = folder()?;
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("region-faults.md"), self.markdown())?;
        Ok(fs::write(folder.join("region-faults.json"), serde_json::to_vec_pretty(self)?)?)
    }
}
