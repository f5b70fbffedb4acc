//! How long a batch keeps asking a store that does not answer. A batch may hold thousands of views,
//! and each call may hang for seconds; the function must answer, and say what it did, before Lambda
//! ends it.

use crate::table::{Fault, StoreError, WriteError};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use tokio::time::{Instant, timeout_at};

/// After so many calls in a row without an answer, the store is away: no more are made for the
/// batch. Throttling does not count: it is an answer, comes soon, and may be that of one hot key.
const MAX_SILENT: u32 = 16;

/// The patience of one batch.
#[derive(Debug)]
pub(crate) struct Patience {
    deadline: Instant,
    /// Calls in a row without an answer.
    silent: AtomicU32,
}

impl Patience {
    /// Patience until `deadline`.
    pub(crate) fn until(deadline: Instant) -> Self {
        Self { deadline, silent: AtomicU32::new(0) }
    }

    /// Makes a call, and gives it up at the deadline. Once the deadline has passed, or the store
    /// counts as away, it is not made.
    ///
    /// # Errors
    /// Why it has no answer.
    pub(crate) async fn call<R: Answered>(&self, call: impl Future<Output = R>) -> Result<R, Fault> {
        if self.silent.load(Relaxed) >= MAX_SILENT {
            return Err(Fault::Unavailable(format!("not asked: {MAX_SILENT} calls in a row had no answer")));
        }
        let out_of_time = || Fault::Unavailable("out of time".to_owned());
        if Instant::now() >= self.deadline {
            return Err(out_of_time());
        }
        let answer = timeout_at(self.deadline, call).await.map_err(|_| out_of_time())?;
        if answer.is_silence() {
            self.silent.fetch_add(1, Relaxed);
        } else {
            self.silent.store(0, Relaxed);
        }
        Ok(answer)
    }
}

/// The answer to a call.
pub(crate) trait Answered {
    /// Whether the store gave none.
    fn is_silence(&self) -> bool;
}

impl<T> Answered for Result<T, StoreError> {
    fn is_silence(&self) -> bool {
        matches!(self, Err(StoreError { fault: Fault::Unavailable(_), .. }))
    }
}

impl Answered for Result<(), WriteError> {
    fn is_silence(&self) -> bool {
        matches!(self, Err(WriteError::Failed(StoreError { fault: Fault::Unavailable(_), .. })))
    }
}

impl<T, E> Answered for Vec<Result<T, E>>
where
    Result<T, E>: Answered,
{
    fn is_silence(&self) -> bool {
        !self.is_empty() && self.iter().all(Answered::is_silence)
    }
}
