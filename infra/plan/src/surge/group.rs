//! The consumer group: whose each partition is, how much waits on it, and who stops while partitions
//! are reassigned.

use super::Settings;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution as _, Normal};
use serde::Serialize;

/// How much partitions differ in what they get: one standard deviation.
const UNEVEN: f64 = 0.05;

/// Who stops in a rebalance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Rebalance {
    /// All partitions, as with Kafka's older assignors.
    Eager,
    /// Those that change hands, as with the cooperative one.
    Cooperative,
}

#[derive(Debug)]
struct Partition {
    /// Share of all events that it gets.
    share: f64,
    /// Events that wait.
    lag: f64,
    owner: usize,
    /// Nobody reads it before this time, seconds.
    stopped_until: f64,
}

/// The group.
#[derive(Debug)]
pub(super) struct Group {
    partitions: Vec<Partition>,
    pub(super) workers: usize,
    pub(super) arrived: f64,
    pub(super) processed: f64,
    /// Seconds that workers were there.
    pub(super) present: f64,
    /// Seconds of them that they were busy.
    pub(super) busy: f64,
    pub(super) rebalances: usize,
}

impl Group {
    pub(super) fn new(workers: usize, settings: &Settings) -> Self {
        // Another seed than that of the rates, so that the two have nothing to do with each other.
        let mut rng = ChaCha8Rng::seed_from_u64(!settings.seed);
        let weights: Vec<f64> = match Normal::new(1.0, UNEVEN) {
            Ok(uneven) => (0..settings.partitions).map(|_| uneven.sample(&mut rng).max(0.1)).collect(),
            Err(_) => vec![1.0; settings.partitions],
        };
        let all: f64 = weights.iter().sum();
        let partition = |weight: f64| Partition { share: weight / all, lag: 0.0, owner: 0, stopped_until: 0.0 };
        let partitions = weights.into_iter().map(partition).collect();
        let mut group =
            Self { partitions, workers, arrived: 0.0, processed: 0.0, present: 0.0, busy: 0.0, rebalances: 0 };
        group.assign();
        group
    }

    /// Events that wait.
    pub(super) fn lag(&self) -> f64 {
        self.partitions.iter().map(|partition| partition.lag).sum()
    }

    /// Time passes, at a constant rate, in which nothing happens to the group.
    pub(super) fn advance(&mut self, from: f64, to: f64, rate: f64, per_worker: f64) {
        let seconds = to - from;
        if seconds <= 0.0 {
            return;
        }
        let mut demand = vec![0.0; self.workers];
        for partition in &mut self.partitions {
            partition.lag += rate * partition.share * seconds;
            if partition.stopped_until <= from {
                demand[partition.owner] += partition.lag;
            }
        }
        self.arrived += rate * seconds;
        self.present += self.workers as f64 * seconds;
        // A worker takes from each of its partitions in proportion to what waits there.
        let most = per_worker * seconds;
        for partition in &mut self.partitions {
            let demand = demand[partition.owner];
            if partition.stopped_until <= from && demand > 0.0 {
                let done = partition.lag * (most / demand).min(1.0);
                partition.lag -= done;
                self.processed += done;
            }
        }
        self.busy += demand.iter().map(|demand| (demand / most).min(1.0) * seconds).sum::<f64>();
    }

    /// The group has so many workers from now on. Says when the rebalance ends.
    pub(super) fn resize(&mut self, workers: usize, now: f64, settings: &Settings) -> f64 {
        let before: Vec<usize> = self.partitions.iter().map(|partition| partition.owner).collect();
        self.workers = workers;
        self.assign();
        self.rebalances += 1;
        let end = now + settings.pause;
        for (partition, before) in self.partitions.iter_mut().zip(before) {
            if settings.rebalance == Rebalance::Eager || partition.owner != before {
                partition.stopped_until = end;
            }
        }
        end
    }

    /// Spreads the partitions evenly, and moves no more of them than that takes.
    fn assign(&mut self) {
        let (each, more) = (self.partitions.len() / self.workers, self.partitions.len() % self.workers);
        // The first `more` workers may have one more.
        let room = |worker: usize| each + usize::from(worker < more);
        let mut has = vec![0; self.workers];
        let mut homeless = Vec::new();
        for (index, partition) in self.partitions.iter().enumerate() {
            match has.get_mut(partition.owner) {
                Some(count) if *count < room(partition.owner) => *count += 1,
                _ => homeless.push(index),
            }
        }
        let mut places = (0..self.workers).flat_map(|worker| std::iter::repeat_n(worker, room(worker) - has[worker]));
        for index in homeless {
            if let (Some(partition), Some(worker)) = (self.partitions.get_mut(index), places.next()) {
                partition.owner = worker;
            }
        }
    }
}
