//! What arrives, second by second, as a share of the peak.

use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution as _, Normal};
use serde::Serialize;

const MINUTE: f64 = 60.0;
/// How much a second's rate differs from what it should be: one standard deviation.
const NOISE: f64 = 0.03;

/// A surge of some kind. Each begins after half an hour of base load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Occasion {
    /// An evening: from 40% to the peak in 15 minutes, an hour there, and back in half an hour.
    Surge,
    /// A season appears at once: from 30% to the peak in 10 seconds; what is above 40% halves every 40 minutes.
    Release,
    /// Another region is evacuated: from 50% to the peak in a minute, for an hour, and back in a minute.
    Evacuation,
}

impl Occasion {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Surge, Self::Release, Self::Evacuation];

    /// What people call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Surge => "a surge of traffic",
            Self::Release => "a new season",
            Self::Evacuation => "a region's evacuation",
        }
    }

    /// The name of its files.
    #[must_use]
    pub fn file(self) -> &'static str {
        match self {
            Self::Surge => "surge",
            Self::Release => "release",
            Self::Evacuation => "evacuation",
        }
    }

    /// How long it is simulated, seconds.
    #[must_use]
    pub fn duration(self) -> f64 {
        240.0 * MINUTE
    }

    /// When the rate begins to rise, and when it is nearly down again, seconds.
    #[must_use]
    pub fn above(self) -> [f64; 2] {
        let until = match self {
            Self::Surge => 135.0,
            Self::Release => 150.0,
            Self::Evacuation => 92.0,
        };
        [30.0 * MINUTE, until * MINUTE]
    }

    /// The share of the peak at a time in seconds, without noise.
    #[must_use]
    pub fn share(self, at: f64) -> f64 {
        let [begin, _] = self.above();
        let since = at - begin;
        match self {
            _ if since < 0.0 => self.base(),
            Self::Surge => {
                let up = since / (15.0 * MINUTE);
                let down = (since - 75.0 * MINUTE) / (30.0 * MINUTE);
                self.base() + (1.0 - self.base()) * (up.min(1.0) - down.clamp(0.0, 1.0))
            }
            Self::Release if since < 10.0 => self.base() + (1.0 - self.base()) * since / 10.0,
            Self::Release => 0.4 + 0.6 * 0.5_f64.powf((since - 10.0) / (40.0 * MINUTE)),
            Self::Evacuation => {
                let down = (since - 60.0 * MINUTE) / MINUTE;
                self.base() + (1.0 - self.base()) * ((since / MINUTE).min(1.0) - down.clamp(0.0, 1.0))
            }
        }
    }

    /// The share before it begins.
    fn base(self) -> f64 {
        match self {
            Self::Surge => 0.4,
            Self::Release => 0.3,
            Self::Evacuation => 0.5,
        }
    }

    /// Events per second in each second, with noise.
    pub(super) fn rates(self, peak: f64, seed: u64) -> Vec<f64> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let seconds = self.duration() as usize;
        // A standard deviation that is finite and not negative makes a distribution.
        let Ok(noise) = Normal::new(1.0, NOISE) else { return Vec::new() };
        (0..seconds).map(|second| peak * self.share(second as f64) * noise.sample(&mut rng).max(0.0)).collect()
    }
}
