//! The queue, as a set of letters that is gone through once.
//!
//! **Invariant:** what was received is either deleted or let go of: it is held from its receipt on, and only a deletion that
//! SQS confirmed ends that.

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

/// How long a letter stays hidden from others after we received it. Whoever is killed leaves it hidden for that long;
/// a command that takes longer sees letters again, and knows them.
pub(super) const HOLD: Duration = Duration::from_secs(15 * 60);
/// Letters held at once, at most: a standard queue has 120,000 messages in flight at the most (SQS developer guide, message
/// quotas), and others may look at it too. It bounds our memory as well.
pub(super) const MOST_HELD: usize = 100_000;
/// Messages in one call, at most.
const BATCH: usize = 10;
/// Calls under way at once.
const RECEIVES: usize = 4;
const CHANGES: usize = 8;
/// A look at all of SQS's servers, rather than at some of them.
const WAIT_SECONDS: i32 = 1;
/// Looks without anything new after which the queue counts as gone through.
const EMPTY_LOOKS: usize = 2;

/// A dead-letter queue while one command goes through it.
#[derive(Debug)]
pub(super) struct DeadLetterQueue {
    client: Client,
    url: String,
    interrupt: Interrupt,
    /// What we received and did not delete: message id → its latest receipt.
    held: HashMap<String, String>,
    most_held: usize,
}

/// What the next look brought.
#[derive(Debug)]
pub(super) enum Look {
    /// Letters that were not seen before.
    Found(Vec<Message>),
    /// Everything was seen.
    End,
    /// Too many letters are held for more to be received.
    Full,
    /// We were asked to stop.
    Interrupted,
}

impl DeadLetterQueue {
    pub(super) fn new(client: Client, url: &str, interrupt: Interrupt) -> Self {
        Self { client, url: url.to_owned(), interrupt, held: HashMap::new(), most_held: MOST_HELD }
    }

    pub(super) fn interrupted(&self) -> bool {
        self.interrupt.asked()
    }

    /// Waits until then, or until we are asked to stop.
    pub(super) async fn sleep_until(&mut self, time: Instant) {
        self.interrupt.sleep(time.saturating_duration_since(Instant::now())).await;
    }

    /// About how many letters are there for us.
    ///
    /// # Errors
    /// If SQS cannot be asked.
    pub(super) async fn size(&self) -> Result<u64> {
        let name = QueueAttributeName::ApproximateNumberOfMessages;
        let answer = self.client.get_queue_attributes().queue_url(&self.url).attribute_names(name.clone()).send().await;
        let answer = answer.with_context(|| format!("asking for the size of {}", self.url))?;
        let size = answer.attributes.and_then(|attributes| attributes.get(&name)?.parse().ok());
        size.context("SQS does not say how many messages there are")
    }

    /// The next letters.
    ///
    /// # Errors
    /// If SQS cannot be asked. What was received is held all the same.
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

    /// Remembers it; whether it was new.
    fn hold(held: &mut HashMap<String, String>, message: &Message) -> bool {
        match (&message.message_id, &message.receipt_handle) {
            (Some(id), Some(receipt)) => held.insert(id.clone(), receipt.clone()).is_none(),
            _ => false, // the API has no such message
        }
    }

    /// Deletes letters that are held. Gives why, for each that it could not delete; it is still held.
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

    /// Lets go of all that is held. Gives how many stay hidden until [`HOLD`] is over, since SQS did not take it.
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
    /// Held letters at most.
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
        (id.clone(), if deleted { Ok(()) } else { Err("SQS did not answer for it".to_owned()) })
    };
    batch.iter().enumerate().map(one).collect()
}

/// How many of them were not let go of.
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
