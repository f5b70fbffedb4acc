//! The faults of a simulation, by the calendar.

use crate::clock::{Clock, Dice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

/// How something fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// It answers soon that it cannot now.
    Refuses,
    /// It does not answer.
    Hangs,
    /// Half of its calls fail, and of these half have done what they were asked to.
    Flickers,
    /// A clock is five minutes ahead.
    Ahead,
    /// A clock is five minutes behind.
    Behind,
    /// A function runs its next version, until it is rolled back.
    Deployed,
}

/// What fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum What {
    /// The table of a region.
    Table,
    /// One key of the table: always, or half of the time.
    HotKey,
    /// The queues `retry` and `dead-letter`.
    Queues,
    /// The failure bucket.
    Bucket,
    /// The primary logs.
    Primary,
    /// The standby logs.
    Standby,
    /// The way to the other regions' queues.
    Link,
    /// Functions crash at any effect.
    Crashes,
    /// Queues deliver some messages again though they are done.
    Twice,
    /// The clock of all functions.
    Clock,
    /// `ingest` of the next version writes some envelopes that this version cannot read.
    NextIngest,
    /// `process` of the next version reads them, and writes views with a field that this version
    /// does not know, or that it cannot read.
    NextProcess,
    /// `retry` of the next version, likewise.
    NextRetry,
}

/// A fault that lasts for a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spell {
    /// The region's index.
    pub region: usize,
    /// What fails.
    pub what: What,
    /// How.
    pub fault: Fault,
    /// From when, Unix milliseconds.
    pub from: u64,
    /// Until when, Unix milliseconds.
    pub to: u64,
}

/// All faults of a simulation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Weather {
    /// In no order; they may overlap.
    pub spells: Vec<Spell>,
}

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
/// How long outages last.
const LENGTHS: [u64; 6] = [MINUTE, 10 * MINUTE, 30 * MINUTE, 3 * HOUR, 12 * HOUR, 48 * HOUR];
/// The link between regions may be away for longer.
const OF_LINK: [u64; 3] = [30 * MINUTE, 6 * HOUR, 96 * HOUR];
/// For so long some functions may run the next version and others not.
const ROLLOUT: u64 = 96 * HOUR;
/// How wrong a clock may be.
pub(crate) const CLOCK_ERROR: u64 = 5 * MINUTE;
const WHATS: [What; 13] = [
    What::Table,
    What::HotKey,
    What::Queues,
    What::Bucket,
    What::Primary,
    What::Standby,
    What::Link,
    What::Crashes,
    What::Twice,
    What::Clock,
    What::NextIngest,
    What::NextProcess,
    What::NextRetry,
];
const FAULTS: [Fault; 3] = [Fault::Refuses, Fault::Hangs, Fault::Flickers];

impl Weather {
    /// Three to ten faults between two times, Unix milliseconds.
    pub(crate) fn by_chance(dice: &Dice, from: u64, to: u64) -> Self {
        let spell = |_| {
            let what = dice.pick(&WHATS);
            let lasts = dice.pick(if what == What::Link { &OF_LINK } else { &LENGTHS });
            let begins = dice.between(from, to);
            let region = usize::try_from(dice.between(0, crate::region::REGIONS.len() as u64)).unwrap_or_default();
            Spell { region, what, fault: what.pick_fault(dice), from: begins, to: (begins + lasts).min(to) }
        };
        Self { spells: (0..dice.between(3, 11)).map(spell).collect() }
    }

    /// How something fails at this time, if it does.
    pub(crate) fn fault(&self, region: usize, what: What, now: u64) -> Option<Fault> {
        let is_now =
            |spell: &&Spell| spell.region == region && spell.what == what && (spell.from..spell.to).contains(&now);
        self.spells.iter().find(is_now).map(|spell| spell.fault)
    }

    fn deployments(&self) -> impl Iterator<Item = &Spell> {
        self.spells.iter().filter(|spell| spell.what.is_deployment())
    }

    /// Whether a function runs its next version. In the end all do.
    pub(crate) fn runs_next(&self, region: usize, what: What, now: u64) -> bool {
        let Some(first) = self.deployments().map(|spell| spell.from).min() else { return false };
        let last = self.deployments().map(|spell| spell.to).max().unwrap_or(first);
        now >= last.min(first + ROLLOUT) || self.fault(region, what, now).is_some()
    }
}

impl What {
    fn is_deployment(self) -> bool {
        matches!(self, What::NextIngest | What::NextProcess | What::NextRetry)
    }

    fn pick_fault(self, dice: &Dice) -> Fault {
        match self {
            What::Twice => Fault::Flickers,
            What::Clock => dice.pick(&[Fault::Ahead, Fault::Behind]),
            what if what.is_deployment() => Fault::Deployed,
            _ => dice.pick(&FAULTS),
        }
    }
}

/// The faults of one thing in one region.
#[derive(Debug, Clone)]
pub(crate) struct Faults {
    pub(crate) weather: Arc<Weather>,
    pub(crate) region: usize,
    pub(crate) clock: Clock,
    pub(crate) dice: Dice,
}

/// How a call ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    /// It is made and answered.
    Answered,
    /// It is made, and its answer is lost.
    Unanswered,
    /// It is not made, and no answer comes.
    Lost,
    /// It is refused.
    Refused,
}

impl Faults {
    /// How a call that gives up after `patience_ms` ends. Takes as long as that.
    pub(crate) async fn call(&self, what: What, patience_ms: u64) -> Call {
        self.dice.delay(20).await;
        match self.fault(what) {
            None | Some(Fault::Ahead | Fault::Behind | Fault::Deployed) => Call::Answered,
            Some(Fault::Refuses) => {
                self.dice.delay(300).await;
                Call::Refused
            }
            Some(Fault::Hangs) => {
                self.clock.until(self.clock.now() + patience_ms).await;
                Call::Lost
            }
            Some(Fault::Flickers) => match self.dice.between(0, 4) {
                0 => Call::Unanswered,
                1 => Call::Lost,
                _ => Call::Answered,
            },
        }
    }

    pub(crate) fn fault(&self, what: What) -> Option<Fault> {
        self.weather.fault(self.region, what, self.clock.now())
    }

    pub(crate) fn is(&self, what: What) -> bool {
        self.fault(what).is_some()
    }

    /// Runs an invocation, unless it crashes on the way.
    pub(crate) async fn until_crash<F: Future>(&self, invocation: F) -> Option<F::Output> {
        let crashes = self.is(What::Crashes) && self.dice.permille(300);
        let polls = if crashes { self.dice.between(1, 80) } else { u64::MAX };
        Mortal { polls, future: pin!(invocation) }.await
    }

    /// Whether this function runs its next version now.
    pub(crate) fn runs_next(&self, what: What) -> bool {
        self.weather.runs_next(self.region, what, self.clock.now())
    }

    /// The time as the region's functions see it, Unix milliseconds.
    pub(crate) fn local_now(&self) -> u64 {
        let now = self.clock.now();
        match self.fault(What::Clock) {
            Some(Fault::Ahead) => now + CLOCK_ERROR,
            Some(Fault::Behind) => now - CLOCK_ERROR,
            _ => now,
        }
    }
}

/// A future that ends without a result after so many polls.
struct Mortal<'a, F> {
    polls: u64,
    future: Pin<&'a mut F>,
}

impl<F: Future> Future for Mortal<'_, F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.polls == 0 {
            return Poll::Ready(None);
        }
        self.polls -= 1;
        self.future.as_mut().poll(context).map(Some)
    }
}
