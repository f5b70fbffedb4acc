//! The circuit to the primary log: whether the next append goes there, as a pure state machine.
//!
//! It is handed the time and the randomness, so that it does nothing between two calls: an environment that was
//! frozen for an hour goes on where it stood. It knows no log and no record, and must not wait for anything.
//!
//! ```text
//!            a run, or a share of a window, of failed appends
//!   closed ───────────────────────────────────────────────────▶ open ◀──┐
//!      ▲                                                          │     │ a failed one
//!      │                                             a good probe ▼     │
//!      └──────────────────────────────────────────────────── half-open ─┘
//!                      several good ones in a row
//! ```

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

/// When the circuit opens and how it comes back.
#[derive(Clone, Debug, PartialEq)]
pub struct CircuitPolicy {
    /// So many failed appends in a row open it. Default: 3.
    pub run: u32,
    /// How far back the share of failed appends is looked at. Default: 10 s.
    pub window: Duration,
    /// The share is of so many appends at the least, and of the newest so many at the most. Default: 10 and 100.
    pub window_appends: (usize, usize),
    /// The share of failed appends that opens it. Default: 0.5.
    pub share: f64,
    /// So many good probes in a row close it. Default: 3.
    pub probes: u32,
    /// From its opening to the first probe, and from a good probe to the next. Default: 1 s.
    pub rest: Duration,
    /// Each failed probe doubles the time to the next, up to this. Default: 15 s.
    pub probe_interval_max: Duration,
    /// How long a probe may take; later it tells nothing, since the environment may have been frozen. Default: 5 s.
    pub probe_timeout: Duration,
    /// Opening again sooner than this after a closing doubles the time to the first probe. Default: 10 min.
    pub calm: Duration,
    /// Up to this. Default: 2 min.
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

/// What an append to the primary says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It acknowledged.
    Good,
    /// It did not answer in time, or answered that it cannot or will not.
    Failed,
    /// Neither: it throttled, or a record could never fit. A log that says so is not away.
    Neither,
}

/// Where an append goes, and what its end is to be reported with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// To the primary.
    Primary(Ticket),
    /// To the standby.
    Standby {
        /// For the case that the standby fails and the primary is tried as a last resort.
        last_resort: Ticket,
        /// Present if the records are also to be appended to the primary, to see how it is.
        probe: Option<Ticket>,
    },
}

/// What an append was begun as. A report from before the circuit last opened or closed changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    epoch: u64,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Append,
    Probe(u64),
    LastResort,
}

/// Whether appends go to the primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CircuitState {
    /// They do.
    Closed,
    /// They do not; the last probe, if there was one, failed.
    Open,
    /// They do not; the last probe was good, and more are needed.
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

/// A change of state, and what brought it about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Transition {
    /// The state before.
    pub(super) from: CircuitState,
    /// The state now.
    pub(super) to: CircuitState,
    /// Why.
    pub(super) reason: Reason,
}

/// What brought a change of state about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// So many appends in a row failed.
    Run(u32),
    /// So many appends of so many in the window failed.
    Share(usize, usize),
    /// So many probes in a row were good.
    Good(u32),
    /// A probe failed.
    Failed,
}

impl Reason {
    /// Whether an append that failed brought it about.
    #[must_use]
    pub(super) fn is_failure(self) -> bool {
        !matches!(self, Self::Good(_))
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run(n) => write!(f, "{n} appends in a row failed"),
            Self::Share(failed, of) => write!(f, "{failed} of the last {of} appends failed"),
            Self::Good(n) => write!(f, "{n} probes in a row were good"),
            Self::Failed => f.write_str("a probe failed"),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Circuit {
    policy: CircuitPolicy,
    /// Counts openings and closings.
    epoch: u64,
    state: State,
    /// The time to the first probe, when it last opened.
    rest: Duration,
    closed_at: Option<Instant>,
}

#[derive(Debug)]
enum State {
    Closed { run: u32, recent: VecDeque<(Instant, bool)> },
    Open { good: u32, interval: Duration, next: Instant, probe: Probing },
}

/// The newest probe, and until when its report counts.
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

    /// Where an append that begins now goes. At most one probe is under way at a time.
    pub(super) fn route(&mut self, now: Instant) -> Route {
        let ticket = |kind| Ticket { epoch: self.epoch, kind };
        match &mut self.state {
            State::Closed { .. } => Route::Primary(ticket(Kind::Append)),
            State::Open { next, probe, .. } => {
                let is_due = *next <= now && probe.until.is_none_or(|until| until < now);
                if is_due {
                    *probe = Probing { number: probe.number + 1, until: Some(now + self.policy.probe_timeout) };
                }
                let probe = is_due.then(|| ticket(Kind::Probe(probe.number)));
                Route::Standby { last_resort: ticket(Kind::LastResort), probe }
            }
        }
    }

    /// Takes note of how an append to the primary ended. `spread` is random, from 0 to 1: it keeps the probes of
    /// environments apart that were cut off together.
    pub(super) fn report(&mut self, now: Instant, spread: f64, ticket: Ticket, verdict: Verdict) -> Option<Transition> {
        if ticket.epoch != self.epoch {
            return None;
        }
        let from = self.state();
        let reason = match ticket.kind {
            Kind::Append => self.appended(now, spread, verdict),
            Kind::Probe(number) => self.probed(now, spread, number, verdict),
            Kind::LastResort => self.counted(now, verdict),
        };
        let to = self.state();
        reason.filter(|_| from != to).map(|reason| Transition { from, to, reason })
    }

    fn appended(&mut self, now: Instant, spread: f64, verdict: Verdict) -> Option<Reason> {
        let State::Closed { run, recent } = &mut self.state else {
            return None;
        };
        let failed = match verdict {
            Verdict::Neither => return None,
            Verdict::Good => false,
            Verdict::Failed => true,
        };
        *run = if failed { *run + 1 } else { 0 };
        let (least, most) = self.policy.window_appends;
        let is_old = |began: Instant| now.saturating_duration_since(began) > self.policy.window;
        while recent.len() >= most || recent.front().is_some_and(|(at, _)| is_old(*at)) {
            recent.pop_front();
        }
        recent.push_back((now, failed));
        if !failed {
            return None;
        }
        let failures = recent.iter().filter(|(_, failed)| *failed).count();
        let reason = if *run >= self.policy.run {
            Reason::Run(*run)
        } else if recent.len() >= least && failures as f64 >= self.policy.share * recent.len() as f64 {
            Reason::Share(failures, recent.len())
        } else {
            return None;
        };
        self.open(now, spread);
        Some(reason)
    }

    fn probed(&mut self, now: Instant, spread: f64, number: u64, verdict: Verdict) -> Option<Reason> {
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
        let wait = match verdict {
            Verdict::Good => self.policy.rest,
            Verdict::Neither => *interval,
            Verdict::Failed => {
                if *interval < self.policy.probe_interval_max {
                    *interval = (*interval * 2).min(self.policy.probe_interval_max);
                }
                *interval
            }
        };
        *next = now + spread_out(wait, spread);
        self.counted(now, verdict)
    }

    /// Counts the good ones in a row.
    fn counted(&mut self, now: Instant, verdict: Verdict) -> Option<Reason> {
        let State::Open { good, .. } = &mut self.state else {
            return None;
        };
        match verdict {
            Verdict::Neither => None,
            Verdict::Failed => {
                *good = 0;
                Some(Reason::Failed)
            }
            Verdict::Good => {
                *good += 1;
                let good = *good;
                if good >= self.policy.probes {
                    self.epoch += 1;
                    self.state = State::closed(&self.policy);
                    self.closed_at = Some(now);
                }
                Some(Reason::Good(good))
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

/// A quarter less up to a quarter more.
fn spread_out(wait: Duration, spread: f64) -> Duration {
    wait.mul_f64(0.75 + spread.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
#[path = "circuit_tests.rs"]
mod tests;
