//! The port to the queues `retry` and `dead-letter`.

use queue::{Queue, SendError};
use serde::Serialize;
use std::fmt;
use std::future::Future;

/// Why a queue did not take a letter.
pub trait NotPut: fmt::Display + Send {
    /// Whether the queue may have it anyway.
    fn may_have_arrived(&self) -> bool;
}

impl NotPut for SendError {
    fn may_have_arrived(&self) -> bool {
        SendError::may_have_arrived(self)
    }
}

/// Where letters of one kind go.
pub trait LetterQueue<L>: Send + Sync {
    /// Why the queue did not take a letter.
    type Error: NotPut;

    /// Puts letters: one result each, in order. A letter counts as put only when it is durable.
    fn put(&self, letters: Vec<L>) -> impl Future<Output = Vec<Result<(), Self::Error>>> + Send;
}

impl<L: Send, Q: LetterQueue<L>> LetterQueue<L> for &Q {
    type Error = Q::Error;

    async fn put(&self, letters: Vec<L>) -> Vec<Result<(), Q::Error>> {
        (**self).put(letters).await
    }
}

impl<L: Serialize + Send> LetterQueue<L> for Queue {
    type Error = SendError;

    /// A letter that is too large for SQS is refused. Its record is nearly a megabyte, so we did
    /// not write it. It is redelivered until Lambda gives up and sends it to the on-failure
    /// destination, whole.
    async fn put(&self, letters: Vec<L>) -> Vec<Result<(), SendError>> {
        // Strings and numbers only: serialising cannot fail, and an empty body would be refused by
        // the queue.
        let bodies = letters.iter().map(|letter| serde_json::to_string(letter).unwrap_or_default()).collect();
        drop(letters);
        self.send_all(bodies).await
    }
}
