//! The circuit to the primary log decides whether the next append goes there. A pure state machine.
//!
//! The caller passes in the time and the randomness, and nothing happens between two calls. So an
//! environment that was frozen for an hour continues where it was. The circuit knows no log and no
//! record, and must not wait for anything.
//!
//! ```text
//!        a run of failed appends, or a share of a window
//!   closed ──────────────────────────────────────────────▶ open ◀──┐
//!      ▲                                                    │       │ failed probe
//!      │                                         good probe ▼       │
//!      └─────────────────────────────────────────────── half-open ──┘
//!                 several good probes in a row
//! ```

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

/// When the circuit opens and how it closes again.
#[derive(Clone, Debug, PartialEq)]
pub struct CircuitPolicy {
    /// This many failed appends in a row open it. Default: 3.
    pub run: u32,
    /// The share of failed appends is taken over this time. Default: 10 s.
    pub window: Duration,
    /// Minimum and maximum number of appends in the window. The newest ones count. Default: 10 and
    /// 100.
    pub window_appends: (usize, usize),
    /// This share of failed appends opens it. Default: 0.5.
    pub share: f64,
    /// This many good probes in a row close it. Default: 3.
    pub probes: u32,
    /// The time from opening to the first probe, and from a good probe to the next. Default: 1 s.
    pub rest: Duration,
    /// Each failed probe doubles the time to the next probe, up to this. Default: 15 s.
    pub probe_interval_max: Duration,
    /// How long a probe may take. A later result is ignored: the environment may have been frozen.
    /// Default: 5 s.
    pub probe_timeout: Duration,
    /// If it opens again sooner than this after closing, the time to the first probe doubles.
    /// Default: 10 min.
    pub calm: Duration,
    /// Maximum time from opening to the first probe. Default: 2 min.
    pub rest_max: Duration,
}

impl Default for CircuitPolicy {
    fn default() -> Self {
        Self {
            run: 3,
            window: Duration::from_secs(10),
            window_appends: (10, 100),
            share: 0.5,
            probes: 3,
            rest: Duration::from_secs(1),
            probe_interval_max: Duration::from_secs(15),
            probe_timeout: Duration::from_secs(5),
            calm: Duration::from_secs(600),
            rest_max: Duration::from_secs(120),
        }
    }
}

/// What an append tells about the primary's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    /// It acknowledged the records.
    Good,
    /// It did not answer in time, or was unavailable, or denied access.
    Failed,
    /// Neither: it throttled, or a record was too large. A log that answers like this is up.
    Neither,
}

/// Where an append goes, with the ticket to report its result with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// To the primary.
    Primary(Ticket),
    /// To the standby.
    Standby {
        /// For trying the primary as a last resort, if the standby fails.
        last_resort: Ticket,
        /// Present if the records must also be appended to the primary, as a probe.
        probe: Option<Ticket>,
    },
}

/// The purpose an append was started for. Reports of appends started before the circuit last opened
/// or closed are ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    epoch: u64,
    purpose: Purpose,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Append,
    Probe(u64),
    LastResort,
}

/// Whether appends go to the primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CircuitState {
    /// Appends go to the primary.
    Closed,
    /// They go to the standby. The last probe, if any, failed.
    Open,
    /// They go to the standby. The last probe was good; more good ones are needed.
    HalfOpen,
}

impl fmt::Display for CircuitState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        })
    }
}

/// A change of state and its trigger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Transition {
    /// The state before.
    pub(super) from: CircuitState,
    /// The state now.
    pub(super) to: CircuitState,
    /// What caused it.
    pub(super) trigger: Trigger,
}

/// What caused a change of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trigger {
    /// This many appends in a row failed.
    Run(u32),
    /// This many of this many appends in the window failed.
    Share(usize, usize),
    /// This many probes in a row were good.
    Good(u32),
    /// A probe failed.
    Failed,
}

impl Trigger {
    /// Whether a failed append caused it.
    #[must_use]
    pub(super) fn is_failure(self) -> bool {
        !matches!(self, Self::Good(_))
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run(n) => write!(f, "{n} appends in a row failed"),
            Self::Share(failed, of) => write!(f, "{failed} of the last {of} appends failed"),
            Self::Good(n) => write!(f, "{n} probes in a row were good"),
            Self::Failed => f.write_str("a probe failed"),
        }
    }
}

/// The circuit. See the module's documentation.
#[derive(Debug)]
pub(super) struct Circuit {
    policy: CircuitPolicy,
    /// Counts the times it opened or closed.
    epoch: u64,
    state: State,
    /// The time to the first probe after it last opened.
    rest: Duration,
    closed_at: Option<Instant>,
}

#[derive(Debug)]
enum State {
    Closed { run: u32, recent: VecDeque<(Instant, bool)> },
    Open { good: u32, interval: Duration, next: Instant, probe: Probing },
}

/// The newest probe, and the deadline of its report.
#[derive(Debug)]
struct Probing {
    number: u64,
    until: Option<Instant>,
}

impl Circuit {
    /// A closed circuit.
    #[must_use]
    pub(super) fn new(policy: CircuitPolicy) -> Self {
        let state = State::closed(&policy);
        Self { rest: policy.rest, policy, epoch: 0, state, closed_at: None }
    }

    /// Whether appends go to the primary.
    #[must_use]
    pub(super) fn state(&self) -> CircuitState {
        match self.state {
            State::Closed { .. } => CircuitState::Closed,
            State::Open { good: 0, .. } => CircuitState::Open,
            State::Open { .. } => CircuitState::HalfOpen,
        }
    }

    /// Where an append that starts now goes. At most one probe runs at a time.
    pub(super) fn route(&mut self, now: Instant) -> Route {
        let ticket = |purpose| Ticket { epoch: self.epoch, purpose };
        match &mut self.state {
            State::Closed { .. } => Route::Primary(ticket(Purpose::Append)),
            State::Open { next, probe, .. } => {
                let is_due = *next <= now && probe.until.is_none_or(|until| until < now);
                if is_due {
                    *probe = Probing { number: probe.number + 1, until: Some(now + self.policy.probe_timeout) };
                }
                let probe = is_due.then(|| ticket(Purpose::Probe(probe.number)));
                Route::Standby { last_resort: ticket(Purpose::LastResort), probe }
            }
        }
    }

    /// Records how an append to the primary ended. `spread` is random, from 0 to 1. It spreads out
    /// the probes of environments that lost the primary at the same time.
    pub(super) fn report(&mut self, now: Instant, spread: f64, ticket: Ticket, signal: Signal) -> Option<Transition> {
        if ticket.epoch != self.epoch {
            return None;
        }
        let from = self.state();
        let trigger = match ticket.purpose {
            Purpose::Append => self.appended(now, spread, signal),
            Purpose::Probe(number) => self.probed(now, spread, number, signal),
            Purpose::LastResort => self.counted(now, signal),
        };
        let to = self.state();
        trigger.filter(|_| from != to).map(|trigger| Transition { from, to, trigger })
    }

    fn appended(&mut self, now: Instant, spread: f64, signal: Signal) -> Option<Trigger> {
        let State::Closed { run, recent } = &mut self.state else {
            return None;
        };
        let failed = match signal {
            Signal::Neither => return None,
            Signal::Good => false,
            Signal::Failed => true,
        };
        *run = if failed { *run + 1 } else { 0 };
        let (least, most) = self.policy.window_appends;
        let is_old = |at: Instant| now.saturating_duration_since(at) > self.policy.window;
        while recent.len() >= most || recent.front().is_some_and(|(at, _)| is_old(*at)) {
            recent.pop_front();
        }
        recent.push_back((now, failed));
        if !failed {
            return None;
        }
        let failures = recent.iter().filter(|(_, failed)| *failed).count();
        let trigger = if *run >= self.policy.run {
            Trigger::Run(*run)
        } else if recent.len() >= least && failures as f64 >= self.policy.share * recent.len() as f64 {
            Trigger::Share(failures, recent.len())
        } else {
            return None;
        };
        self.open(now, spread);
        Some(trigger)
    }

    fn probed(&mut self, now: Instant, spread: f64, number: u64, signal: Signal) -> Option<Trigger> {
        let State::Open { interval, next, probe, .. } = &mut self.state else {
            return None;
        };
        if probe.number != number {
            return None;
        }
        let until = probe.until.take()?;
        if now > until {
            return None;
        }
        let wait = match signal {
            Signal::Good => self.policy.rest,
            Signal::Neither => *interval,
            Signal::Failed => {
                if *interval < self.policy.probe_interval_max {
                    *interval = (*interval * 2).min(self.policy.probe_interval_max);
                }
                *interval
            }
        };
        *next = now + spread_out(wait, spread);
        self.counted(now, signal)
    }

    /// Counts good results in a row.
    fn counted(&mut self, now: Instant, signal: Signal) -> Option<Trigger> {
        let State::Open { good, .. } = &mut self.state else {
            return None;
        };
        match signal {
            Signal::Neither => None,
            Signal::Failed => {
                *good = 0;
                Some(Trigger::Failed)
            }
            Signal::Good => {
                *good += 1;
                let good = *good;
                if good >= self.policy.probes {
                    self.epoch += 1;
                    self.state = State::closed(&self.policy);
                    self.closed_at = Some(now);
                }
                Some(Trigger::Good(good))
            }
        }
    }

    fn open(&mut self, now: Instant, spread: f64) {
        let is_soon = self.closed_at.is_some_and(|at| now.saturating_duration_since(at) < self.policy.calm);
        self.rest = if is_soon { (self.rest * 2).min(self.policy.rest_max) } else { self.policy.rest };
        self.epoch += 1;
        self.state = State::Open {
            good: 0,
            interval: self.rest,
            next: now + spread_out(self.rest, spread),
            probe: Probing { number: 0, until: None },
        };
    }
}

impl State {
    fn closed(policy: &CircuitPolicy) -> Self {
        Self::Closed { run: 0, recent: VecDeque::with_capacity(policy.window_appends.1) }
    }
}

/// Scales a wait by 0.75 to 1.25.
fn spread_out(wait: Duration, spread: f64) -> Duration {
    wait.mul_f64(0.75 + spread.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests;
