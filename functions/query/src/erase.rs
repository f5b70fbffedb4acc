//! The order in which an erasure takes effect.
//!
//! It is in force once its mark is written. Before anything is deleted, a message to `retry` makes
//! sure that it is carried out to the end, and once more when no `process` that has not seen the mark
//! can be running.

use crate::{DELETE_FOR, MARK_FOR, RETRY_AFTER_S, overdue, unavailable};
use http::Response;
use lambda::problem::{Problem, accepted, no_content};
use lambda_http::Body;
use std::time::Duration;
use store::{Erase, EraseMessage, StoreError};
use tokio::time::{Instant, timeout, timeout_at};

/// The effects of an erasure.
pub trait Erasing {
    /// Writes its mark.
    fn mark(&self, erase: &Erase) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Sends a message to `retry`, to be received after this time. The error is for the log.
    fn hand_over(&self, message: String, after: Duration) -> impl Future<Output = Result<(), String>> + Send;

    /// Deletes what it covers. Returns whether all of that is done.
    fn delete(&self, erase: &Erase, deadline: Instant) -> impl Future<Output = Result<bool, StoreError>> + Send;
}

/// Erases: answers `204` when the items are gone, `202` when the rest follows by itself.
///
/// # Errors
/// `503` when the erasure may not be in force, or may not be carried out to the end.
pub async fn erase<E: Erasing>(effects: &E, erase: &Erase) -> Result<Response<Body>, Problem> {
    let marked = timeout(MARK_FOR, effects.mark(erase)).await;
    marked.map_err(|_| overdue("the mark of an erasure"))?.map_err(unavailable)?;
    if let Err(error) = hand_to_retry(effects, erase).await {
        tracing::error!(error, "an erasure is marked, but could not be handed to retry");
        return Err(Problem::unavailable("store_unavailable", "the erasure is not finished", RETRY_AFTER_S));
    }
    let deadline = Instant::now() + DELETE_FOR;
    match timeout_at(deadline, effects.delete(erase, deadline)).await {
        Ok(Ok(true)) => Ok(no_content()),
        // A call under way at the deadline may be dropped: the message has everything deleted.
        Ok(Ok(false)) | Err(_) => Ok(accepted()),
        Ok(Err(error)) => {
            tracing::warn!(%error, "an erasure is marked; its items are deleted later");
            Ok(accepted())
        }
    }
}

async fn hand_to_retry<E: Erasing>(effects: &E, erase: &Erase) -> Result<(), String> {
    let message = serde_json::to_string(&EraseMessage { erase: erase.clone() }).map_err(|error| error.to_string())?;
    effects.hand_over(message, Erase::REPEAT_AFTER).await
}
