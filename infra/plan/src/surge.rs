//! What a surge does to those who read the log, by discrete events: how far they fall behind, how
//! many of them there are, and what they cost, under several rules for scaling them.
//!
//! It is about long-running consumers in a Kafka group, which somebody must scale. Lambda has none:
//! its pollers and environments follow by themselves (`docs/decisions/which-platform.md`).
//!
//! | module | what |
//! |---|---|
//! | `occasion` | what arrives, second by second |
//! | `scaling` | how many workers each rule wants, from what it can see |
//! | `group` | the partitions: whose they are, what waits on them, who stops while they move |
//! | `simulation` | the clock: what happens when |
//!
//! The same seed gives the same course. It is a fluid model: events are amounts, not things, so that
//! a million per second can be simulated in a moment. `arrived = processed + lag` holds at any time.

mod group;
mod occasion;
mod scaling;
mod simulation;
#[cfg(test)]
mod tests;

pub use group::Rebalance;
pub use occasion::Occasion;
pub use scaling::Scaling;
pub use simulation::{Course, Point};

use crate::constants::Constants;
use crate::quantity::rate;
use crate::sizing::{Approach, Demand, size};
use anyhow::Result;
use serde::Serialize;
use std::time::Duration;

/// An event that waits longer than this is late, seconds: views are to be readable in seconds.
pub const LATE: f64 = 10.0;

/// How a surge is simulated.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Seed of what happens by chance: noise of the rate, uneven partitions
    #[arg(long, requires = "surge", value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Events per second that a worker can process (default: a vCPU, by the measured CPU of process)
    #[arg(long, requires = "surge", value_name = "RATE", value_parser = rate)]
    pub per_worker: Option<f64>,
    /// From asking for a worker until it joins the group
    #[arg(long, requires = "surge", value_name = "TIME", default_value = "90s", value_parser = humantime::parse_duration)]
    pub start: Duration,
    /// How often a rule looks at the last period and decides
    #[arg(long, requires = "surge", value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    pub evaluate: Duration,
    /// How long a rebalance stops those who take part in it
    #[arg(long, requires = "surge", value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    pub pause: Duration,
    /// Who stops in a rebalance
    #[arg(long, requires = "surge", value_enum, default_value_t = Rebalance::Eager)]
    pub rebalance: Rebalance,
}

/// What a simulation needs to know. Rates are events per second, times seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Settings {
    /// The greatest rate of the occasion.
    pub peak: f64,
    /// Partitions of the topic, and so the most workers.
    pub partitions: usize,
    /// What a worker can process.
    pub per_worker: f64,
    /// Share of its time that a worker should be busy.
    pub target: f64,
    /// From asking for a worker until it joins.
    pub start: f64,
    /// How often a rule decides.
    pub evaluate: f64,
    /// How long a rebalance stops those who take part.
    pub pause: f64,
    /// Who takes part.
    pub rebalance: Rebalance,
    /// Of what happens by chance.
    pub seed: u64,
    /// Dollars of a worker per hour.
    pub worker_hour: f64,
}

impl Settings {
    /// For a demand, from the plan for it.
    ///
    /// # Errors
    /// If a constant is missing, or a time is not possible.
    pub fn of(demand: &Demand, options: &Options, constants: &Constants) -> Result<Self> {
        let plan = size(demand, Approach::Playhead, constants)?;
        let times = [options.evaluate, options.start, options.pause];
        anyhow::ensure!(!options.evaluate.is_zero(), "--evaluate is not above 0");
        let [evaluate, start, pause] = times.map(|time| time.as_secs_f64());
        Ok(Self {
            peak: demand.rate,
            partitions: plan.value("partitions") as usize,
            per_worker: options.per_worker.unwrap_or(1e6 / plan.value("CPU per event")),
            target: constants.get("assumed.busy")?.value,
            start,
            evaluate,
            pause,
            rebalance: options.rebalance,
            seed: options.seed,
            // A task with a vCPU and 2 GB.
            worker_hour: constants.get("fargate.vcpu")?.value + 2.0 * constants.get("fargate.gb")?.value,
        })
    }

    /// Workers that a rate keeps as busy as they should be; at least one.
    #[must_use]
    pub fn workers_for(&self, rate: f64) -> usize {
        let workers = (rate / (self.per_worker * self.target)).ceil() as usize;
        workers.clamp(1, self.partitions)
    }
}

/// How an occasion went under a rule.
#[derive(Debug, Clone, Serialize)]
pub struct SurgeResult {
    /// What happened.
    pub occasion: Occasion,
    /// Under which rule.
    pub scaling: Scaling,
    /// The most events that waited.
    pub peak_lag: f64,
    /// The longest that an event waited, seconds.
    pub worst_delay: f64,
    /// Minutes in which events were late before the rate began to rise.
    pub late_before: f64,
    /// While it was above what it was before.
    pub late_during: f64,
    /// And afterwards.
    pub late_after: f64,
    /// How often the group stopped for a rebalance.
    pub rebalances: usize,
    /// The fewest and the most workers.
    pub workers: [usize; 2],
    /// Hours of workers that were paid for.
    pub worker_hours: f64,
    /// Those hours, by the hours that would have kept workers as busy as they should be.
    pub of_ideal: f64,
    /// For all of those hours.
    pub dollars: f64,
    /// How often the number of workers turned from growing to shrinking or back.
    pub turns: usize,
}

impl SurgeResult {
    fn of(occasion: Occasion, scaling: Scaling, course: &Course, settings: &Settings) -> Self {
        let points = &course.points;
        let most = |value: fn(&Point) -> f64| points.iter().map(value).fold(0.0, f64::max);
        let [begin, end] = occasion.above();
        let late = |from: f64, to: f64| {
            let late = points.iter().filter(|point| (from..to).contains(&point.at) && point.delay > LATE);
            late.count() as f64 * course.every / 60.0
        };
        let counts: Vec<usize> = points.iter().map(|point| point.workers).collect();
        let ideal: f64 = points.iter().map(|point| point.rate).sum::<f64>() * course.every
            / (settings.per_worker * settings.target)
            / 3_600.0;
        let worker_hours = course.worker_seconds / 3_600.0;
        Self {
            occasion,
            scaling,
            peak_lag: most(|point| point.lag),
            worst_delay: most(|point| point.delay),
            late_before: late(0.0, begin),
            late_during: late(begin, end),
            late_after: late(end, f64::INFINITY),
            rebalances: course.rebalances,
            workers: [counts.iter().copied().min().unwrap_or(0), counts.iter().copied().max().unwrap_or(0)],
            worker_hours,
            of_ideal: worker_hours / ideal,
            dollars: worker_hours * settings.worker_hour,
            turns: turns(&counts),
        }
    }
}

/// How often a sequence turns from growing to shrinking or back.
fn turns(counts: &[usize]) -> usize {
    let changes = counts.windows(2).filter(|pair| pair[0] != pair[1]).map(|pair| pair[1] > pair[0]);
    let mut directions: Vec<bool> = changes.collect();
    directions.dedup();
    directions.len().saturating_sub(1)
}

/// Simulates an occasion under each rule.
#[must_use]
pub fn simulate(occasion: Occasion, settings: &Settings) -> Vec<(SurgeResult, Course)> {
    let run = |scaling| {
        let course = simulation::run(occasion, scaling, settings);
        (SurgeResult::of(occasion, scaling, &course, settings), course)
    };
    Scaling::ALL.into_iter().map(run).collect()
}
