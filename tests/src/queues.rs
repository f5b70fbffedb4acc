//! Queues of a local cloud: how many messages they hold, and the dead letters among them.

use anyhow::{Context as _, Result};
use apply::DeadLetter;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::QueueAttributeName;
use operate::Endpoints;

/// Messages on a queue, including those that a consumer holds.
///
/// # Errors
/// If the queue does not answer.
pub async fn queued(endpoints: &Endpoints, queue: &str) -> Result<u64> {
    let client = Client::new(&endpoints.sdk_config());
    let names = [
        QueueAttributeName::ApproximateNumberOfMessages,
        QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
        QueueAttributeName::ApproximateNumberOfMessagesDelayed,
    ];
    let request = client.get_queue_attributes().queue_url(queue);
    let answer = request.set_attribute_names(Some(names.to_vec())).send().await?;
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
