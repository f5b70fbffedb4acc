//! Queues of a local cloud: how many messages they hold, and the dead letters among them.

use anyhow::{Context as _, Result};
use apply::DeadLetter;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::QueueAttributeName;
use operate::Endpoints;

/// Messages that a queue has delivered or may deliver: all but those that were sent with a delay.
const DUE: [QueueAttributeName; 2] =
    [QueueAttributeName::ApproximateNumberOfMessages, QueueAttributeName::ApproximateNumberOfMessagesNotVisible];

/// Messages on a queue, including those that a consumer holds.
///
/// # Errors
/// If the queue does not answer.
pub async fn queued(endpoints: &Endpoints, queue: &str) -> Result<u64> {
    let delayed = QueueAttributeName::ApproximateNumberOfMessagesDelayed;
    count(endpoints, queue, DUE.into_iter().chain([delayed]).collect()).await
}

/// The same without those that were sent with a delay that has not passed.
///
/// # Errors
/// If the queue does not answer.
pub async fn due(endpoints: &Endpoints, queue: &str) -> Result<u64> {
    count(endpoints, queue, DUE.to_vec()).await
}

async fn count(endpoints: &Endpoints, queue: &str, names: Vec<QueueAttributeName>) -> Result<u64> {
    let client = Client::new(&endpoints.sdk_config());
    let request = client.get_queue_attributes().queue_url(queue);
    let answer = request.set_attribute_names(Some(names.clone())).send().await?;
    let attributes = answer.attributes.context("a queue without attributes")?;
    names.iter().map(|name| Ok(attributes.get(name).context("an attribute is missing")?.parse::<u64>()?)).sum()
}

/// Moves all dead letters from their queue to `letters`.
///
/// # Errors
/// If the queue does not answer, or a message is not a dead letter.
pub async fn take_dead_letters(endpoints: &Endpoints, letters: &mut Vec<DeadLetter>) -> Result<()> {
    let client = Client::new(&endpoints.sdk_config());
    let queue = &endpoints.dead_letter_queue_url;
    loop {
        let answer = client.receive_message().queue_url(queue).max_number_of_messages(10).send().await?;
        let messages = answer.messages.unwrap_or_default();
        if messages.is_empty() {
            return Ok(());
        }
        for message in messages {
            let body = message.body.context("a message without a body")?;
            letters.push(serde_json::from_str(&body).with_context(|| format!("not a dead letter: {body}"))?);
            let handle = message.receipt_handle.context("a message without a receipt")?;
            client.delete_message().queue_url(queue).receipt_handle(handle).send().await?;
        }
    }
}
