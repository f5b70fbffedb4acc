//! The clock. What happens next is taken from a queue; between two happenings nothing changes but
//! what waits.

use super::group::Group;
use super::scaling::{Scaling, Seen, Stabilized};
use super::{Occasion, Settings};
use serde::Serialize;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// How often the course is written down, seconds.
const EVERY: f64 = 5.0;

/// What it was like at a time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Point {
    /// Seconds from the beginning.
    pub at: f64,
    /// Events per second that arrived since the point before.
    pub rate: f64,
    /// Events that waited.
    pub lag: f64,
    /// How long the one that was processed last had waited, seconds.
    pub delay: f64,
    /// Members of the group.
    pub workers: usize,
}

/// How it went.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Course {
    /// Every [`Self::every`] seconds.
    pub points: Vec<Point>,
    /// Seconds between two points.
    pub every: f64,
    /// Events that arrived.
    pub arrived: f64,
    /// Events that were processed.
    pub processed: f64,
    /// Events that wait at the end.
    pub lag: f64,
    /// Seconds of workers that were paid for, from asking for one.
    pub worker_seconds: f64,
    /// How often the group was rebalanced.
    pub rebalances: usize,
}

/// What can happen, in the order in which it does if it is at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    /// Another second, another rate.
    Second,
    /// A rebalance may have ended.
    Resumed,
    /// Workers that were asked for join.
    Joined(usize),
    /// A point is written down.
    Written,
    /// A period is over: the rule decides.
    Decided,
}

/// Whole milliseconds, so that times can be compared and added without rounding.
type Millis = u64;

fn millis(seconds: f64) -> Millis {
    (seconds * 1e3).round() as Millis
}

fn seconds(millis: Millis) -> f64 {
    millis as f64 / 1e3
}

/// Plays an occasion under a rule.
pub(super) fn run(occasion: Occasion, scaling: Scaling, settings: &Settings) -> Course {
    play(occasion.rates(settings.peak, settings.seed), scaling, settings)
}

/// Plays these rates, one for each second, under a rule.
pub(super) fn play(rates: Vec<f64>, scaling: Scaling, settings: &Settings) -> Course {
    let end = rates.len() as Millis * 1_000;
    let first = rates.first().copied().unwrap_or_default();
    let workers =
        if scaling == Scaling::Peak { settings.workers_for(settings.peak) } else { settings.workers_for(first) };
    let mut clock = Clock {
        settings,
        scaling,
        rates,
        group: Group::new(workers, settings),
        queue: BinaryHeap::new(),
        now: 0,
        joining: 0,
        stabilized: Stabilized::default(),
        period: [0.0; 3],
        arrivals: vec![0.0],
        worker_seconds: 0.0,
        points: Vec::new(),
    };
    for (at, what) in [(1.0, Happening::Second), (EVERY, Happening::Written), (settings.evaluate, Happening::Decided)] {
        clock.queue.push(Reverse((millis(at), what)));
    }
    clock.play(end);
    let Clock { group, points, worker_seconds, .. } = clock;
    let (arrived, processed, rebalances) = (group.arrived, group.processed, group.rebalances);
    Course { points, every: EVERY, arrived, processed, lag: group.lag(), worker_seconds, rebalances }
}

struct Clock<'a> {
    settings: &'a Settings,
    scaling: Scaling,
    /// Events per second in each second.
    rates: Vec<f64>,
    group: Group,
    queue: BinaryHeap<Reverse<(Millis, Happening)>>,
    now: Millis,
    /// Workers that were asked for and have not joined.
    joining: usize,
    stabilized: Stabilized,
    /// When the period began: events that had arrived, seconds that workers had been busy and had been there.
    period: [f64; 3],
    /// All events that had arrived by the end of each second.
    arrivals: Vec<f64>,
    worker_seconds: f64,
    points: Vec<Point>,
}

impl Clock<'_> {
    fn play(&mut self, end: Millis) {
        while let Some(Reverse((at, what))) = self.queue.pop() {
            if at > end {
                break;
            }
            self.pass(at);
            match what {
                Happening::Second => {
                    self.arrivals.push(self.group.arrived);
                    self.after(1.0, Happening::Second);
                }
                Happening::Resumed => {}
                Happening::Joined(count) => {
                    self.joining -= count;
                    self.resize(self.group.workers + count);
                }
                Happening::Written => {
                    self.write();
                    self.after(EVERY, Happening::Written);
                }
                Happening::Decided => {
                    self.decide();
                    self.after(self.settings.evaluate, Happening::Decided);
                }
            }
        }
    }

    fn after(&mut self, seconds: f64, what: Happening) {
        self.queue.push(Reverse((self.now + millis(seconds), what)));
    }

    /// Time passes until `at`.
    fn pass(&mut self, at: Millis) {
        let rate = self.rates.get((self.now / 1_000) as usize).copied().unwrap_or_default();
        self.group.advance(seconds(self.now), seconds(at), rate, self.settings.per_worker);
        self.worker_seconds += (self.group.workers + self.joining) as f64 * seconds(at - self.now);
        self.now = at;
    }

    fn resize(&mut self, workers: usize) {
        let end = self.group.resize(workers, seconds(self.now), self.settings);
        self.queue.push(Reverse((millis(end), Happening::Resumed)));
    }

    fn decide(&mut self) {
        let [arrived, busy, there] = self.period;
        let now = [self.group.arrived, self.group.busy, self.group.present];
        self.period = now;
        let seen = Seen {
            lag: self.group.lag(),
            rate: (now[0] - arrived) / self.settings.evaluate,
            busy: (now[1] - busy) / (now[2] - there),
            workers: self.group.workers,
        };
        let wants = self.scaling.wants(&seen, self.settings);
        let workers = self.stabilized.decide(seconds(self.now), wants, self.group.workers);
        // What was asked for comes first.
        if self.joining > 0 || workers == self.group.workers {
            return;
        }
        if workers < self.group.workers {
            self.resize(workers);
        } else {
            self.joining = workers - self.group.workers;
            self.after(self.settings.start, Happening::Joined(self.joining));
        }
    }

    fn write(&mut self) {
        let at = seconds(self.now);
        let since = |seconds: f64| self.arrivals.get((at - seconds).max(0.0) as usize).copied().unwrap_or_default();
        let rate = (self.group.arrived - since(EVERY)) / EVERY;
        self.points.push(Point { at, rate, lag: self.group.lag(), delay: self.delay(), workers: self.group.workers });
    }

    /// How long ago as many events had arrived as are processed now: if all were processed in their order, how long
    /// the last one waited.
    fn delay(&self) -> f64 {
        let behind = self.arrivals.partition_point(|arrived| *arrived <= self.group.processed);
        // Between the two seconds around it, events arrived at a constant rate.
        let (Some(before), Some(after)) = (self.arrivals.get(behind.wrapping_sub(1)), self.arrivals.get(behind)) else {
            return 0.0;
        };
        let second = (behind - 1) as f64 + (self.group.processed - before) / (after - before);
        (seconds(self.now) - second).max(0.0)
    }
}
