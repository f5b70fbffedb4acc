//! How many workers each rule wants, from what it can see of the last period. A rule knows neither
//! the future nor what it cannot measure.

use super::Settings;
use serde::Serialize;
use std::collections::VecDeque;

/// Within so much of its target a rule leaves things as they are.
const TOLERANCE: f64 = 0.1;
/// Fewer workers only if so many seconds have wanted no more: the default of Kubernetes.
const STABILIZATION: f64 = 300.0;
/// A rule on lag wants more workers when a second's work of theirs waits so many times over.
const LAG_SECONDS: f64 = 10.0;
/// By so much the rule on lag in steps grows and shrinks.
const STEPS: [f64; 2] = [1.5, 0.9];

/// A rule for the number of workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scaling {
    /// As many as the peak needs, always.
    Peak,
    /// One for so much lag, as Kubernetes' KEDA does it: as many as work it off in ten seconds.
    LagRatio,
    /// Half as many more while there is lag, a tenth fewer while there is none.
    LagSteps,
    /// As many as bring the mean CPU to its target.
    Cpu,
    /// As many as the rate of arrival needs.
    Rate,
    /// More by lag, fewer by CPU.
    LagUpCpuDown,
}

/// What a rule sees of the last period.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    /// Events that wait now.
    pub(super) lag: f64,
    /// Mean events that arrived per second.
    pub(super) rate: f64,
    /// Share of the workers' time that they were busy.
    pub(super) busy: f64,
    /// How many there are.
    pub(super) workers: usize,
}

impl Scaling {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Peak, Self::LagRatio, Self::LagSteps, Self::Cpu, Self::Rate, Self::LagUpCpuDown];

    /// What people call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Peak => "provisioned for the peak",
            Self::LagRatio => "on lag, by ratio",
            Self::LagSteps => "on lag, by steps",
            Self::Cpu => "on CPU",
            Self::Rate => "on events per second",
            Self::LagUpCpuDown => "up on lag, down on CPU",
        }
    }

    /// What it wants, before it waits to shrink.
    pub(super) fn wants(self, seen: &Seen, settings: &Settings) -> usize {
        let now = seen.workers as f64;
        // How many of the workers' targets would be met: near 1, all is well.
        let by = |ratio: f64| if (ratio - 1.0).abs() < TOLERANCE { now } else { up(now * ratio) };
        let by_cpu = || by(seen.busy / settings.target);
        // Seconds that the lag would take if nothing else arrived.
        let waits = seen.lag / (now * settings.per_worker);
        let wants = match self {
            Self::Peak => return settings.workers_for(settings.peak),
            Self::Rate => by(seen.rate / (now * settings.per_worker * settings.target)),
            Self::LagRatio => by(waits / LAG_SECONDS),
            Self::Cpu => by_cpu(),
            Self::LagSteps | Self::LagUpCpuDown if waits > LAG_SECONDS => up(now * STEPS[0]),
            Self::LagSteps if waits < 1.0 => (now * STEPS[1]).floor(),
            Self::LagUpCpuDown => by_cpu().min(now),
            Self::LagSteps => now,
        };
        // A tenth of the peak's is kept, or a rule on lag would end with none.
        (wants as usize).clamp(settings.workers_for(settings.peak / 10.0), settings.partitions)
    }
}

/// The next whole number; 20.000000001 comes of computing, and is 20.
fn up(value: f64) -> f64 {
    (value - 1e-9).ceil()
}

/// What a rule wanted lately: it shrinks only to the most of it.
#[derive(Debug, Default)]
pub(super) struct Stabilized(VecDeque<(f64, usize)>);

impl Stabilized {
    /// What to do about what is wanted at a time, with so many workers.
    pub(super) fn decide(&mut self, at: f64, wants: usize, workers: usize) -> usize {
        self.0.push_back((at, wants));
        while self.0.front().is_some_and(|(then, _)| *then <= at - STABILIZATION) {
            self.0.pop_front();
        }
        let most = self.0.iter().map(|(_, wanted)| *wanted).max().unwrap_or(wants);
        if wants >= workers { wants } else { most.min(workers) }
    }
}
