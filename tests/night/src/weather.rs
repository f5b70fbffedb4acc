//! The faults of a simulation, by the calendar.

use crate::clock::{Clock, Dice};
use std::sync::Arc;

/// How something fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// It answers soon that it cannot now.
    Refuses,
    /// It does not answer.
    Hangs,
    /// Half of its calls fail, and of these half have done what they were asked to.
    Flickers,
}

/// What fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum What {
    /// The table of a region.
    Table,
    /// One key of the table.
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
const WHATS: [What; 8] =
    [What::Table, What::HotKey, What::Queues, What::Bucket, What::Primary, What::Standby, What::Link, What::Crashes];
const FAULTS: [Fault; 3] = [Fault::Refuses, Fault::Hangs, Fault::Flickers];

impl Weather {
    /// Three to eight faults between two times, Unix milliseconds.
    pub(crate) fn by_chance(dice: &Dice, from: u64, to: u64) -> Self {
        let spell = |_| {
            let what = dice.pick(&WHATS);
            let lasts = dice.pick(if what == What::Link { &OF_LINK } else { &LENGTHS });
            let begins = dice.between(from, to);
            let region = usize::try_from(dice.between(0, crate::region::REGIONS.len() as u64)).unwrap_or_default();
            Spell { region, what, fault: dice.pick(&FAULTS), from: begins, to: (begins + lasts).min(to) }
        };
        Self { spells: (0..dice.between(3, 9)).map(spell).collect() }
    }

    /// How something fails at this time, if it does.
    pub(crate) fn fault(&self, region: usize, what: What, now: u64) -> Option<Fault> {
        let is_now =
            |spell: &&Spell| spell.region == region && spell.what == what && (spell.from..spell.to).contains(&now);
        self.spells.iter().find(is_now).map(|spell| spell.fault)
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
        match self.weather.fault(self.region, what, self.clock.now()) {
            None => Call::Answered,
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

    pub(crate) fn is(&self, what: What) -> bool {
        self.weather.fault(self.region, what, self.clock.now()).is_some()
    }
}
