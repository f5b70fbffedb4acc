//! What the suites of faults measure alike.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use aws_sdk_sqs::types::QueueAttributeName;
use operate::Endpoints;
use simulate::expect::{Expected, SessionView};

/// Events that views have less than they must, and events that they have more.
#[must_use]
pub fn lost_and_twice(expected: &Expected, histories: &BTreeMap<String, Vec<SessionView>>) -> (u64, u64) {
    let mut left: BTreeMap<(String, String), i64> =
        expected.views.iter().map(|(key, view)| (key.clone(), view.events)).collect();
    for (profile, sessions) in histories {
        for session in sessions {
            *left.entry((profile.clone(), session.session_id.clone())).or_default() -= session.events;
        }
    }
    let lost = left.values().filter(|left| **left > 0).sum::<i64>();
    let twice = -left.values().filter(|left| **left < 0).sum::<i64>();
    (lost.unsigned_abs(), twice.unsigned_abs())
}

/// Messages on a queue, whoever has them.
///
/// # Errors
/// When the queue does not say.
pub async fn queued(endpoints: &Endpoints, queue: &str) -> Result<u64> {
    let client = aws_sdk_sqs::Client::new(&endpoints.sdk_config());
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

/// A part of a whole; 0 of nothing.
#[must_use]
pub fn share(part: usize, of: usize) -> f64 {
    part as f64 / of.max(1) as f64
}

/// Seconds, to a tenth.
#[must_use]
pub fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10.0).round() / 10.0
}

/// The value below which this share of sorted values lies; 0 of none.
#[must_use]
pub fn at(sorted: &[u128], share: f64) -> u128 {
    sorted.get(((sorted.len().max(1) - 1) as f64 * share) as usize).copied().unwrap_or_default()
}
