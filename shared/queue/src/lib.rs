//! Sends messages to an SQS queue in batches, and returns for each whether SQS accepted it.
//!
//! A batch call can succeed while some of its entries fail. So each entry is looked up in the
//! answer, and an entry that is missing there counts as failed. The SDK retries calls; nobody
//! retries entries: a caller that gets an error keeps its record. A message whose call timed out
//! may have arrived anyway, so readers must tolerate duplicates.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

use std::collections::HashMap;
use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::retry::RetryConfig;
use aws_sdk_sqs::config::timeout::TimeoutConfig;
use aws_sdk_sqs::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_sqs::operation::send_message_batch::SendMessageBatchOutput;
use aws_sdk_sqs::types::SendMessageBatchRequestEntry;
use futures::stream::{self, StreamExt};
use tokio::time::{Instant, timeout_at};

/// Maximum number of messages in one `SendMessageBatch` (SQS developer guide, message quotas).
pub const MAX_BATCH_MESSAGES: usize = 10;

/// Maximum size of one message, and of all messages of one batch together: 1 MiB (API reference of
/// `SendMessageBatch`; 256 KiB before August 2025). The queue's `MaximumMessageSize` may be lower;
/// then SQS fails the entries that exceed it.
pub const MAX_BYTES: usize = 1024 * 1024;

/// The longest delay of a message, seconds (API reference of `SendMessage`).
const MAX_DELAY_S: i32 = 900;

/// Concurrent batches of one `send_all`.
const CONCURRENCY: usize = 8;

/// The longest that [`Queue::send_all`] takes, however many bodies there are: when the queue hangs,
/// the caller must still answer in time.
pub const SEND_FOR: Duration = Duration::from_secs(8);

/// A client whose calls end in time. Attempts are few and short: what is not sent stays at its
/// source.
#[must_use]
pub fn client(sdk: &SdkConfig) -> Client {
    let config = aws_sdk_sqs::config::Builder::from(sdk)
        .retry_config(RetryConfig::standard().with_max_attempts(3))
        .timeout_config(
            TimeoutConfig::builder()
                .connect_timeout(Duration::from_secs(1))
                .operation_attempt_timeout(Duration::from_secs(3))
                .operation_timeout(Duration::from_secs(6))
                .build(),
        );
    Client::from_conf(config.build())
}

/// Why SQS did not accept a message, as far as we know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The body exceeds [`MAX_BYTES`]; it was not sent.
    #[error("message of {bytes} B for {queue} exceeds {MAX_BYTES} B")]
    TooLarge {
        /// The queue's URL.
        queue: String,
        /// Length of the body.
        bytes: usize,
    },
    /// The body is empty or has a character that SQS does not accept; it was not sent.
    #[error("message of {bytes} B for {queue} is empty or has a character that XML 1.0 does not allow")]
    Unsendable {
        /// The queue's URL.
        queue: String,
        /// Length of the body.
        bytes: usize,
    },
    /// SQS failed this entry of the batch.
    #[error("message of {bytes} B refused by {queue}: {code} ({message})")]
    Refused {
        /// The queue's URL.
        queue: String,
        /// Length of the body.
        bytes: usize,
        /// SQS's error code.
        code: String,
        /// SQS's message.
        message: String,
        /// Whether the message itself is at fault, so a retry is useless.
        sender_fault: bool,
    },
    /// SQS answered the batch without naming this entry.
    #[error("message of {bytes} B for {queue} is missing from the answer")]
    Unanswered {
        /// The queue's URL.
        queue: String,
        /// Length of the body.
        bytes: usize,
    },
    /// There was no time left, so it was not sent.
    #[error("message of {bytes} B for {queue} was not sent: out of time")]
    NotSent {
        /// The queue's URL.
        queue: String,
        /// Length of the body.
        bytes: usize,
    },
    /// The call failed for the whole batch.
    #[error("SendMessageBatch to {queue} failed: {code} ({message})")]
    Call {
        /// The queue's URL.
        queue: String,
        /// The service's error code, or `None` when there was no answer.
        code: String,
        /// The SDK's error with all its causes.
        message: String,
    },
}

impl SendError {
    /// Whether SQS may have the message anyway.
    #[must_use]
    pub fn may_have_arrived(&self) -> bool {
        matches!(self, Self::Call { .. } | Self::Unanswered { .. })
    }
}

/// The number of calls needed to send these bodies.
#[must_use]
pub fn calls(bodies: &[String]) -> usize {
    plan("", bodies).batches.len()
}

/// An SQS standard queue.
#[derive(Clone, Debug)]
pub struct Queue {
    client: Client,
    url: String,
}

impl Queue {
    /// The queue at `url`.
    #[must_use]
    pub fn new(client: Client, url: impl Into<String>) -> Self {
        Self { client, url: url.into() }
    }

    /// Sends the bodies and returns one result per body, in their order, within [`SEND_FOR`].
    pub async fn send_all(&self, bodies: Vec<String>) -> Vec<Result<(), SendError>> {
        let plan = plan(&self.url, &bodies);
        let (bodies, deadline) = (&bodies, Instant::now() + SEND_FOR);
        let settled: HashMap<usize, Result<(), SendError>> = stream::iter(plan.batches)
            .map(|batch| async move { self.send_batch(&batch, bodies, deadline).await })
            .buffer_unordered(CONCURRENCY)
            .flat_map(stream::iter)
            .chain(stream::iter(plan.refused))
            .collect()
            .await;
        in_order(&self.url, bodies, settled)
    }

    /// Sends one body that becomes visible after `delay`, at most 15 minutes.
    ///
    /// # Errors
    /// [`SendError::Call`].
    pub async fn send_after(&self, body: String, delay: Duration) -> Result<(), SendError> {
        let seconds = i32::try_from(delay.as_secs()).unwrap_or(i32::MAX).min(MAX_DELAY_S);
        let call = self.client.send_message().queue_url(&self.url).message_body(body).delay_seconds(seconds);
        call.send().await.map(|_| ()).map_err(|error| self.call_error(&error))
    }

    async fn send_batch(&self, batch: &[usize], bodies: &[String], deadline: Instant) -> EntryResults {
        if Instant::now() >= deadline {
            let not_sent =
                |&at: &usize| (at, Err(SendError::NotSent { queue: self.url.clone(), bytes: bodies[at].len() }));
            return batch.iter().map(not_sent).collect();
        }
        let mut call = self.client.send_message_batch().queue_url(&self.url);
        for &index in batch {
            let entry =
                SendMessageBatchRequestEntry::builder().id(index.to_string()).message_body(&bodies[index]).build();
            match entry {
                Ok(entry) => call = call.entries(entry),
                Err(error) => {
                    let (queue, code) = (self.url.clone(), "BuildError".to_owned());
                    return each(batch, &SendError::Call { queue, code, message: error.to_string() });
                }
            }
        }
        match timeout_at(deadline, call.send()).await {
            Ok(Ok(answer)) => settle(&self.url, batch, bodies, &answer),
            Ok(Err(error)) => each(batch, &self.call_error(&error)),
            Err(_) => {
                let (queue, code) = (self.url.clone(), "TimedOut".to_owned());
                each(batch, &SendError::Call { queue, code, message: format!("no answer within {SEND_FOR:?}") })
            }
        }
    }

    fn call_error<E, R>(&self, error: &SdkError<E, R>) -> SendError
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
        R: std::fmt::Debug,
    {
        let code = error.code().unwrap_or("None").to_owned();
        SendError::Call { queue: self.url.clone(), code, message: DisplayErrorContext(error).to_string() }
    }
}

/// The same error for each entry of a batch.
fn each(batch: &[usize], error: &SendError) -> EntryResults {
    batch.iter().map(|&index| (index, Err(error.clone()))).collect()
}

/// Results, each with the index of its body.
type EntryResults = Vec<(usize, Result<(), SendError>)>;

/// Which bodies share a batch, and which cannot be sent.
struct Plan {
    batches: Vec<Vec<usize>>,
    refused: EntryResults,
}

/// Splits the bodies into batches within SQS's limits, in order. Each batch is as full as the next
/// body allows.
fn plan(queue: &str, bodies: &[String]) -> Plan {
    let mut batches: Vec<Vec<usize>> = Vec::new();
    let mut refused = Vec::new();
    let mut room = 0;
    for (index, body) in bodies.iter().enumerate() {
        let (queue, bytes) = (queue.to_owned(), body.len());
        if bytes > MAX_BYTES {
            refused.push((index, Err(SendError::TooLarge { queue, bytes })));
            continue;
        }
        if body.is_empty() || !body.chars().all(is_allowed) {
            refused.push((index, Err(SendError::Unsendable { queue, bytes })));
            continue;
        }
        match batches.last_mut() {
            Some(batch) if batch.len() < MAX_BATCH_MESSAGES && bytes <= room => {
                batch.push(index);
                room -= bytes;
            }
            _ => {
                batches.push(vec![index]);
                room = MAX_BYTES - bytes;
            }
        }
    }
    Plan { batches, refused }
}

/// The characters that SQS accepts: those of XML 1.0 (API reference of `SendMessageBatch`). Any
/// other character would fail the whole batch.
fn is_allowed(character: char) -> bool {
    matches!(character, '\t' | '\n' | '\r' | ' '..='\u{FFFD}' | '\u{10000}'..)
}

/// The result of each entry, from the answer. An entry listed as both sent and failed counts as
/// failed.
fn settle(queue: &str, batch: &[usize], bodies: &[String], answer: &SendMessageBatchOutput) -> EntryResults {
    let settle_one = |index: usize| {
        let id = index.to_string();
        let (queue, bytes) = (queue.to_owned(), bodies[index].len());
        if let Some(entry) = answer.failed().iter().find(|entry| entry.id() == id) {
            return Err(SendError::Refused {
                queue,
                bytes,
                code: entry.code().to_owned(),
                message: entry.message().unwrap_or_default().to_owned(),
                sender_fault: entry.sender_fault(),
            });
        }
        if answer.successful().iter().any(|entry| entry.id() == id) {
            return Ok(());
        }
        Err(SendError::Unanswered { queue, bytes })
    };
    batch.iter().map(|&index| (index, settle_one(index))).collect()
}

fn in_order(
    queue: &str,
    bodies: &[String],
    mut settled: HashMap<usize, Result<(), SendError>>,
) -> Vec<Result<(), SendError>> {
    bodies
        .iter()
        .enumerate()
        .map(|(index, body)| {
            settled
                .remove(&index)
                .unwrap_or_else(|| Err(SendError::Unanswered { queue: queue.to_owned(), bytes: body.len() }))
        })
        .collect()
}

#[cfg(test)]
mod tests;
