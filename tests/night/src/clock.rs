//! The virtual clock, and the dice.

use rand::{RngExt as _, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// When each simulation begins, Unix milliseconds.
pub const BEGAN: u64 = 1_790_000_000_000;

/// Unix time that moves with tokio's paused clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    began: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { began: Instant::now() }
    }

    /// Unix milliseconds.
    pub(crate) fn now(&self) -> u64 {
        BEGAN + u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Waits until `at`, Unix milliseconds.
    pub(crate) async fn until(&self, at: u64) {
        sleep(Duration::from_millis(at.saturating_sub(self.now()))).await;
    }
}

/// All chance of a simulation.
#[derive(Debug, Clone)]
pub(crate) struct Dice(Arc<Mutex<ChaCha8Rng>>);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(ChaCha8Rng::seed_from_u64(seed))))
    }

    /// A number from `least` on, below `end`.
    pub(crate) fn between(&self, least: u64, end: u64) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).random_range(least..end.max(least + 1))
    }

    /// True in so many of a thousand cases.
    pub(crate) fn permille(&self, share: u64) -> bool {
        self.between(0, 1_000) < share
    }

    /// One of some.
    pub(crate) fn pick<T: Copy>(&self, of: &[T]) -> T {
        of[usize::try_from(self.between(0, of.len() as u64)).unwrap_or_default()]
    }

    /// Takes up to `most` milliseconds.
    pub(crate) async fn delay(&self, most: u64) {
        sleep(Duration::from_millis(self.between(1, most + 1))).await;
    }
}
