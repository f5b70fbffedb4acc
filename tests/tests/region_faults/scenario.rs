//! The scenarios: what is done to the regions, and when.

use std::time::Duration;

use local::Cut;
use playhead_tests::suite;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::world::{Action, Side};

/// Sending before anything happens.
const BEFORE: Duration = Duration::from_secs(6);
/// How long something is broken.
const BROKEN: Duration = Duration::from_secs(20);
/// Functions follow the routing document within ten seconds. Then the region is drained for all of
/// them for at least as long.
const DRAINED: Duration = Duration::from_secs(24);
/// Sending after everything is repaired.
const AFTER: Duration = Duration::from_secs(10);
/// The same, where functions may take ten seconds to notice.
const AFTER_RESTORING: Duration = Duration::from_secs(16);
/// How long replication takes when it is slow.
pub(crate) const SLOW: Duration = Duration::from_secs(3);

/// What is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scenario {
    Baseline,
    ReplicationSlow,
    LinkCut,
    Drained,
    ReplicationCut,
    Worst,
}

/// What is done, and when after the devices began to send.
pub(crate) type Script = Vec<(Duration, Action)>;

impl suite::Scenario for Scenario {
    const ALL: &'static [Self] =
        &[Self::Baseline, Self::ReplicationSlow, Self::LinkCut, Self::Drained, Self::ReplicationCut, Self::Worst];

    fn name(self) -> &'static str {
        match self {
            Self::Baseline => "no-fault",
            Self::ReplicationSlow => "replication-slow",
            Self::LinkCut => "link-cut",
            Self::Drained => "drained",
            Self::ReplicationCut => "replication-cut",
            Self::Worst => "worst",
        }
    }

    fn what(self) -> &'static str {
        match self {
            Self::Baseline => "nothing breaks; members travel, hide and erase",
            Self::ReplicationSlow => "a write takes 3 s from one region to the other",
            Self::LinkCut => "the regions cannot reach each other's queues for 20 s: first refused, then silent",
            Self::Drained => "a region is drained for 24 s in the middle of playback, and restored",
            Self::ReplicationCut => "no write in one region reaches the other for 20 s",
            Self::Worst => "all of it at once, as the seed decides",
        }
    }
}

impl Scenario {
    /// What happens, in order. The last action repairs everything, except that slow replication
    /// stays slow until all has converged.
    pub(crate) fn script(self, seed: u64) -> Script {
        let healed = BEFORE + BROKEN;
        match self {
            Self::Baseline => Vec::new(),
            Self::ReplicationSlow => vec![(BEFORE, Action::DelayReplication(SLOW))],
            Self::LinkCut => vec![
                (BEFORE, Action::CutLink(Cut::HangUp)),
                (BEFORE + BROKEN / 2, Action::CutLink(Cut::Silence)),
                (healed, Action::HealLink),
            ],
            Self::Drained => vec![(BEFORE, Action::Drain(Side::West)), (BEFORE + DRAINED, Action::Restore)],
            Self::ReplicationCut => vec![(BEFORE, Action::CutReplication), (healed, Action::HealReplication)],
            Self::Worst => worst(seed),
        }
    }

    /// When everything is repaired, counted from when the devices began to send. From here on one
    /// crowd is silent.
    pub(crate) fn healed(self, script: &Script) -> Duration {
        let last = script.last().map_or(Duration::ZERO, |(at, _)| *at);
        last.max(BEFORE + BROKEN)
    }

    /// How long the other crowd goes on.
    pub(crate) fn after(self) -> Duration {
        if matches!(self, Self::Drained | Self::Worst) { AFTER_RESTORING } else { AFTER }
    }

    pub(crate) fn cuts_the_link(self) -> bool {
        matches!(self, Self::LinkCut | Self::Worst)
    }

    pub(crate) fn cuts_replication(self) -> bool {
        matches!(self, Self::ReplicationCut | Self::Worst)
    }
}

/// Everything at once: each fault begins and ends when the seed says, and overlaps the others.
fn worst(seed: u64) -> Script {
    let mut chance = ChaCha8Rng::seed_from_u64(seed);
    let mut while_broken = |lasts: std::ops::Range<f64>| {
        let lasts = BROKEN.mul_f64(chance.random_range(lasts));
        let begins = BEFORE + (DRAINED - lasts).mul_f64(chance.random_range(0.0..1.0));
        (begins, begins + lasts)
    };
    let (cut, healed) = while_broken(0.4..0.6);
    let (apart, together) = while_broken(0.4..0.6);
    let (slow, _) = while_broken(0.4..0.6);
    let (drained, restored) = while_broken(0.8..1.0);
    let how = if chance.random_bool(0.5) { Cut::HangUp } else { Cut::Silence };
    let side = Side::drawn(&mut chance);
    let delay = Duration::from_secs(1) + SLOW.mul_f64(chance.random_range(0.0..0.5));
    let mut script = vec![
        (cut, Action::CutLink(how)),
        (healed, Action::HealLink),
        (apart, Action::CutReplication),
        (together, Action::HealReplication),
        (slow, Action::DelayReplication(delay)),
        (drained, Action::Drain(side)),
        (restored, Action::Restore),
    ];
    script.sort_by_key(|(at, _)| *at);
    script
}
