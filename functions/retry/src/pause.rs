//! Pauses between attempts: exponential with jitter. The queue itself keeps them, as the message's
//! visibility time-out, so no function waits and there is no state.

use aws_sdk_sqs::Client;
use aws_sdk_sqs::error::DisplayErrorContext;
use aws_sdk_sqs::types::ChangeMessageVisibilityBatchRequestEntry as Entry;
use std::future::Future;

/// The longest pause after the first attempt, seconds; it doubles with each attempt.
const FIRST_S: u64 = 2;
/// The longest pause, seconds.
const LONGEST_S: u64 = 15 * 60;
/// The most messages in one `ChangeMessageVisibilityBatch` (SQS API reference).
const MAX_ENTRIES: usize = 10;

/// When a message becomes visible again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// Identifies this delivery of the message to SQS.
    pub receipt_handle: String,
    /// Seconds from now.
    pub seconds: u64,
}

/// Delays the next delivery of messages.
pub trait Pauses: Send + Sync {
    /// Sets when each message becomes visible again. If that fails, it is logged, and the queue's
    /// own time-out applies.
    fn pause(&self, pauses: Vec<Pause>) -> impl Future<Output = ()> + Send;
}

/// How long to pause after this many `receives`, seconds. `jitter` in `0..1` decides half of it, so
/// messages that failed together do not come back together ("equal jitter": AWS Architecture Blog,
/// "Exponential Backoff And Jitter").
pub(crate) fn seconds(receives: u32, jitter: f64) -> u64 {
    let doublings = receives.saturating_sub(1).min(32);
    let most = (FIRST_S << doublings).min(LONGEST_S);
    let half = most / 2;
    half + ((most - half) as f64 * jitter).round() as u64
}

/// The pauses of the queue `retry`.
#[derive(Debug, Clone)]
pub struct QueuePauses {
    client: Client,
    url: String,
}

impl QueuePauses {
    /// The queue at `url`.
    pub fn new(client: Client, url: impl Into<String>) -> Self {
        Self { client, url: url.into() }
    }

    async fn pause_some(&self, pauses: &[Pause]) -> Result<(), String> {
        let mut call = self.client.change_message_visibility_batch().queue_url(&self.url);
        for (at, pause) in pauses.iter().enumerate() {
            let entry = Entry::builder().id(at.to_string()).receipt_handle(&pause.receipt_handle);
            let seconds = i32::try_from(pause.seconds).unwrap_or(i32::MAX);
            call = call.entries(entry.visibility_timeout(seconds).build().map_err(|error| error.to_string())?);
        }
        let answer = call.send().await.map_err(|error| DisplayErrorContext(error).to_string())?;
        for failed in answer.failed() {
            tracing::warn!(code = failed.code(), message = failed.message(), "a message could not be paused");
        }
        Ok(())
    }
}

impl Pauses for QueuePauses {
    async fn pause(&self, pauses: Vec<Pause>) {
        for some in pauses.chunks(MAX_ENTRIES) {
            if let Err(error) = self.pause_some(some).await {
                tracing::warn!(error, messages = some.len(), "messages could not be paused");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pauses_double_up_to_15_minutes_and_half_of_each_is_jitter() {
        let range = |receives| (seconds(receives, 0.0), seconds(receives, 0.999_999));
        assert_eq!([1, 2, 3, 9].map(range), [(1, 2), (2, 4), (4, 8), (256, 512)]);
        assert_eq!([10, 11, 1_000, u32::MAX].map(range), [(450, 900); 4]);
        assert_eq!(seconds(0, 0.0), 1);
    }

    proptest! {
        #[test]
        fn pause_is_never_zero_nor_longer_than_sqs_allows(receives in any::<u32>(), jitter in 0.0..1.0f64) {
            prop_assert!((1..=43_200).contains(&seconds(receives, jitter)));
        }
    }
}
