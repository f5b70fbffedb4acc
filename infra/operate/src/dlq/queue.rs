//! The queue as a set of letters that a command reads once.
//!
//! **Invariant:** every received letter is either deleted or released. It is held from its receipt
//! on, until SQS confirms its deletion or the command releases it.

use super::interrupt::Interrupt;
use anyhow::{Context as _, Result};
use aws_sdk_sqs::Client;
use aws_sdk_sqs::error::DisplayErrorContext;
use aws_sdk_sqs::types::{
    ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry, Message, MessageSystemAttributeName,
    QueueAttributeName,
};
use futures::stream::{self, StreamExt as _};
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

/// How long a letter stays hidden from other readers after we received it. A killed command leaves
/// it hidden for that long. A command that takes longer receives letters again, and recognises
/// them.
pub(super) const HOLD: Duration = Duration::from_secs(15 * 60);
/// Maximum number of letters held at once. A standard queue allows 120,000 messages in flight (SQS
/// developer guide, message quotas), and others may read it too. This also bounds our memory.
pub(super) const MOST_HELD: usize = 100_000;
/// Maximum number of messages in one call.
const BATCH: usize = 10;
/// Calls in flight at once.
const RECEIVES: usize = 4;
const CHANGES: usize = 8;
/// Long polling: it asks all of SQS's servers, not only some of them.
const WAIT_SECONDS: i32 = 1;
/// After this many looks without a new letter, the queue counts as read to its end.
const EMPTY_LOOKS: usize = 2;

/// A dead-letter queue while one command reads it.
#[derive(Debug)]
pub(super) struct DeadLetterQueue {
    client: Client,
    url: String,
    interrupt: Interrupt,
    /// Letters received and not deleted: message id → latest receipt.
    held: HashMap<String, String>,
    most_held: usize,
}

/// The result of one look.
#[derive(Debug)]
pub(super) enum Look {
    /// New letters.
    Found(Vec<Message>),
    /// There are no more letters.
    End,
    /// We hold too many letters to receive more.
    Full,
    /// The user asked to stop.
    Interrupted,
}

impl DeadLetterQueue {
    pub(super) fn new(client: Client, url: &str, interrupt: Interrupt) -> Self {
        Self { client, url: url.to_owned(), interrupt, held: HashMap::new(), most_held: MOST_HELD }
    }

    pub(super) fn interrupted(&self) -> bool {
        self.interrupt.asked()
    }

    /// Waits until then, or until the user asks to stop.
    pub(super) async fn sleep_until(&mut self, time: Instant) {
        self.interrupt.sleep(time.saturating_duration_since(Instant::now())).await;
    }

    /// The approximate number of visible letters.
    ///
    /// # Errors
    /// If a call to SQS fails.
    pub(super) async fn size(&self) -> Result<u64> {
        let name = QueueAttributeName::ApproximateNumberOfMessages;
        let answer = self.client.get_queue_attributes().queue_url(&self.url).attribute_names(name.clone()).send().await;
        let answer = answer.with_context(|| format!("reading the size of {}", self.url))?;
        let size = answer.attributes.and_then(|attributes| attributes.get(&name)?.parse().ok());
        size.context("SQS did not return the number of messages")
    }

    /// The next letters.
    ///
    /// # Errors
    /// If a call to SQS fails. Letters that other calls received are still held.
    pub(super) async fn next(&mut self) -> Result<Look> {
        for _ in 0..EMPTY_LOOKS {
            if self.interrupt.asked() {
                return Ok(Look::Interrupted);
            }
            if self.held.len() >= self.most_held {
                return Ok(Look::Full);
            }
            let received = futures::future::join_all((0..RECEIVES).map(|_| self.receive())).await;
            let (mut new, mut failure) = (Vec::new(), None);
            for result in received {
                match result {
                    Ok(messages) => {
                        new.extend(messages.into_iter().filter(|message| Self::hold(&mut self.held, message)))
                    }
                    Err(error) => failure = Some(error),
                }
            }
            if let Some(error) = failure {
                return Err(error);
            }
            if !new.is_empty() {
                return Ok(Look::Found(new));
            }
        }
        Ok(Look::End)
    }

    async fn receive(&self) -> Result<Vec<Message>> {
        let call = self
            .client
            .receive_message()
            .queue_url(&self.url)
            .max_number_of_messages(BATCH as i32)
            .wait_time_seconds(WAIT_SECONDS)
            .visibility_timeout(HOLD.as_secs() as i32)
            .message_system_attribute_names(MessageSystemAttributeName::SentTimestamp)
            .message_system_attribute_names(MessageSystemAttributeName::DeadLetterQueueSourceArn);
        let answer = call.send().await.with_context(|| format!("receiving from {}", self.url))?;
        Ok(answer.messages.unwrap_or_default())
    }

    /// Remembers a message. Returns whether it is new.
    fn hold(held: &mut HashMap<String, String>, message: &Message) -> bool {
        match (&message.message_id, &message.receipt_handle) {
            (Some(id), Some(receipt)) => held.insert(id.clone(), receipt.clone()).is_none(),
            _ => false, // the API returns no such message
        }
    }

    /// Deletes held letters. Returns the ids that could not be deleted, and why. Those are still
    /// held.
    pub(super) async fn delete(&mut self, ids: &[String]) -> Vec<(String, String)> {
        let receipts = ids.iter().filter_map(|id| Some((id.clone(), self.held.get(id)?.clone())));
        let calls: Vec<_> = chunks(receipts.collect());
        let mut deleting = stream::iter(calls)
            .map(|batch| {
                let (client, url) = (self.client.clone(), self.url.clone());
                async move { delete_batch(&client, &url, batch).await }
            })
            .buffer_unordered(CHANGES);
        let mut failed = Vec::new();
        while let Some(results) = deleting.next().await {
            for (id, result) in results {
                match result {
                    Ok(()) => {
                        self.held.remove(&id);
                    }
                    Err(why) => failed.push((id, why)),
                }
            }
        }
        failed
    }

    /// Releases all held letters. Returns how many stay hidden until [`HOLD`] is over, because SQS
    /// refused.
    pub(super) async fn release(&mut self) -> usize {
        let calls = chunks(self.held.drain().collect());
        let mut releasing = stream::iter(calls)
            .map(|batch| {
                let (client, url) = (self.client.clone(), self.url.clone());
                async move { release_batch(&client, &url, batch).await }
            })
            .buffer_unordered(CHANGES);
        let mut hidden = 0;
        while let Some(n) = releasing.next().await {
            hidden += n;
        }
        hidden
    }
}

#[cfg(test)]
impl DeadLetterQueue {
    /// With this limit on held letters.
    pub(super) fn at_most(mut self, most_held: usize) -> Self {
        self.most_held = most_held;
        self
    }
}

/// Message ids with their receipts, in batches.
fn chunks(receipts: Vec<(String, String)>) -> Vec<Vec<(String, String)>> {
    receipts.chunks(BATCH).map(<[_]>::to_vec).collect()
}

async fn delete_batch(client: &Client, url: &str, batch: Vec<(String, String)>) -> Vec<(String, Result<(), String>)> {
    let entries = batch.iter().enumerate().map(|(at, (_, receipt))| {
        DeleteMessageBatchRequestEntry::builder().id(at.to_string()).receipt_handle(receipt).build()
    });
    let all = |why: String| batch.iter().map(|(id, _)| (id.clone(), Err(why.clone()))).collect();
    let entries = match entries.collect::<Result<Vec<_>, _>>() {
        Ok(entries) => entries,
        Err(error) => return all(error.to_string()),
    };
    let answer = match client.delete_message_batch().queue_url(url).set_entries(Some(entries)).send().await {
        Ok(answer) => answer,
        Err(error) => return all(DisplayErrorContext(error).to_string()),
    };
    // An entry that the answer does not name, or names both ways, counts as failed.
    let one = |(at, (id, _)): (usize, &(String, String))| {
        let at = at.to_string();
        if let Some(failed) = answer.failed().iter().find(|entry| entry.id() == at) {
            return (id.clone(), Err(format!("{} ({})", failed.code(), failed.message().unwrap_or_default())));
        }
        let deleted = answer.successful().iter().any(|entry| entry.id() == at);
        (id.clone(), if deleted { Ok(()) } else { Err("SQS gave no result for it".to_owned()) })
    };
    batch.iter().enumerate().map(one).collect()
}

/// Returns how many were not released.
async fn release_batch(client: &Client, url: &str, batch: Vec<(String, String)>) -> usize {
    let entries = batch.iter().enumerate().map(|(at, (_, receipt))| {
        let entry = ChangeMessageVisibilityBatchRequestEntry::builder().id(at.to_string()).receipt_handle(receipt);
        entry.visibility_timeout(0).build()
    });
    let Ok(entries) = entries.collect::<Result<Vec<_>, _>>() else { return batch.len() };
    match client.change_message_visibility_batch().queue_url(url).set_entries(Some(entries)).send().await {
        Ok(answer) => batch.len().saturating_sub(answer.successful().len()),
        Err(error) => {
            tracing::warn!("letters stay hidden for a while: {}", DisplayErrorContext(error));
            batch.len()
        }
    }
}
