//! A queue of letters in memory, for tests of diverting. No function may be wired to it.

use crate::letter_queue::{LetterQueue, NotPut};
use std::sync::{Mutex, PoisonError};

/// Decides whether to refuse a letter; asked once for each.
pub type Refuse<L> = Box<dyn FnMut(&L) -> bool + Send>;

/// A queue that keeps the letters it took, and refuses those it is told to.
pub struct Letters<L> {
    taken: Mutex<Vec<L>>,
    refuse: Mutex<Refuse<L>>,
}

impl<L> Default for Letters<L> {
    fn default() -> Self {
        Self::refusing(|_| false)
    }
}

impl<L> Letters<L> {
    /// An empty queue; it refuses everything if it is `down`.
    pub fn new(down: bool) -> Self {
        Self::refusing(move |_| down)
    }

    /// An empty queue that refuses each letter that `refuse` picks.
    pub fn refusing(refuse: impl FnMut(&L) -> bool + Send + 'static) -> Self {
        Self { taken: Mutex::new(Vec::new()), refuse: Mutex::new(Box::new(refuse)) }
    }

    /// Removes and returns everything that it took so far, in order.
    pub fn take(&self) -> Vec<L> {
        std::mem::take(&mut *self.taken.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Everything that it took, in order.
    pub fn into_taken(self) -> Vec<L> {
        self.take()
    }
}

/// A test said so: the queue does not have the letter.
impl NotPut for &'static str {
    fn may_have_arrived(&self) -> bool {
        false
    }
}

impl<L: Send> LetterQueue<L> for Letters<L> {
    type Error = &'static str;

    /// Gives way to other tasks between any two letters, so a crash can happen there.
    async fn put(&self, letters: Vec<L>) -> Vec<Result<(), Self::Error>> {
        let mut results = Vec::with_capacity(letters.len());
        for letter in letters {
            let refused = (self.refuse.lock().unwrap_or_else(PoisonError::into_inner))(&letter);
            if refused {
                results.push(Err("the test says so"));
            } else {
                self.taken.lock().unwrap_or_else(PoisonError::into_inner).push(letter);
                results.push(Ok(()));
            }
            tokio::task::yield_now().await;
        }
        results
    }
}
