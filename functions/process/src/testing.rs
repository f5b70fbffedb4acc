//! A dead-letter queue in memory, for tests of what `process` sets aside. No function may be wired to it.

use crate::dead_letter::{DeadLetter, DeadLetters};
use std::sync::{Mutex, PoisonError};

/// A dead-letter queue that keeps what it took, and takes nothing while it is down.
#[derive(Debug, Default)]
pub struct Letters {
    taken: Mutex<Vec<DeadLetter>>,
    down: bool,
}

impl Letters {
    /// An empty queue; one that is `down` takes nothing.
    pub fn new(down: bool) -> Self {
        Self { taken: Mutex::default(), down }
    }

    /// Everything that it took, in order.
    pub fn into_taken(self) -> Vec<DeadLetter> {
        self.taken.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DeadLetters for Letters {
    type Error = &'static str;

    async fn put(&self, letters: Vec<DeadLetter>) -> Vec<Result<(), Self::Error>> {
        if self.down {
            return letters.iter().map(|_| Err("the queue is down")).collect();
        }
        let results = letters.iter().map(|_| Ok(())).collect();
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).extend(letters);
        results
    }
}
