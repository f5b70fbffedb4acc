//! Waits until nothing is in flight, and looks at what there is then.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result};
use apply::DeadLetter;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use operate::Endpoints;
use operate::books::{Books, Reader};
use operate::token;
use playhead_tests::measure::{lost_and_twice, queued};
use simulate::expect::{Difference, Expected, SessionView, check, expect};
use simulate::histories;
use simulate::plan::Plan;
use simulate::send::SendReport;
use tokio::time::Instant;

use super::logs::Logs;

/// What is in flight after that long is lost.
const PATIENCE: Duration = Duration::from_secs(150);
const LOOK_EVERY: Duration = Duration::from_secs(1);
const TOKEN_LIFETIME: Duration = Duration::from_secs(3_600);

/// What there is at the end.
pub(crate) struct Settled {
    /// From the last answer to a device until it was so.
    pub(crate) took: Duration,
    pub(crate) books: Books,
    pub(crate) logs: Logs,
    /// Distinct events that the devices were told are accepted.
    pub(crate) distinct: u64,
    /// Of these, the ones that are in no view.
    pub(crate) lost: u64,
    /// Events that views have above these.
    pub(crate) twice: u64,
    pub(crate) differences: Vec<Difference>,
    pub(crate) dead_letters: Vec<Vec<u8>>,
    /// What was still in flight when patience ended; empty if all has settled.
    pub(crate) in_flight: Vec<String>,
}

/// Waits until the books, the logs and the views agree with what the devices were told, and gives what there is, at the latest
/// when patience ends.
///
/// # Errors
/// When something cannot be read.
pub(crate) async fn settle(endpoints: &Endpoints, plan: &Plan, report: &SendReport) -> Result<Settled> {
    let began = Instant::now();
    let left_out: BTreeSet<usize> = report.unsent.union(&report.failed_posts).copied().collect();
    let expected = expect(plan, &left_out);
    let mut reader = Reader::new(endpoints);
    loop {
        let books = reader.catch_up().await?.clone();
        let queued = queued(endpoints, &endpoints.retry_queue_url).await?;
        let patient = began.elapsed() < PATIENCE;
        let mut in_flight = Vec::new();
        let mut wait_for = |what: &str, has: u64, wanted: u64| {
            if has < wanted {
                in_flight.push(format!("{what}: {has} of {wanted}"));
            }
        };
        wait_for("accepted events in the books", books.accepted, report.accepted as u64);
        wait_for("accepted events that have ended", books.ended(), books.accepted);
        if queued > 0 {
            in_flight.push(format!("{queued} messages on the queue retry"));
        }
        if !in_flight.is_empty() && patient {
            tokio::time::sleep(LOOK_EVERY).await;
            continue;
        }
        let logs = Logs::read(endpoints).await?;
        let ended = books.applied + books.duplicates;
        if ended < logs.events {
            in_flight.push(format!("events of the logs that have ended: {ended} of {}", logs.events));
        }
        let histories = read_histories(endpoints, &expected).await?;
        let differences = check(&expected, &histories);
        if !differences.is_empty() {
            in_flight.push(format!("{} differences between views and what they must be", differences.len()));
        }
        if !in_flight.is_empty() && patient {
            tokio::time::sleep(LOOK_EVERY).await;
            continue;
        }
        let took = began.elapsed();
        let (lost, twice) = lost_and_twice(&expected, &histories);
        let dead_letters = dead_letters(endpoints).await?;
        let distinct = expected.distinct as u64;
        return Ok(Settled { took, books, logs, distinct, lost, twice, differences, dead_letters, in_flight });
    }
}

/// What the functions said at the levels WARN and ERROR.
///
/// # Errors
/// When the logs cannot be read.
pub(crate) async fn complaints(endpoints: &Endpoints) -> Result<Vec<String>> {
    let client = aws_sdk_cloudwatchlogs::Client::new(&endpoints.sdk_config());
    let functions = [&endpoints.ingest_function, &endpoints.process_function, &endpoints.retry_function];
    let mut lines = Vec::new();
    for function in functions {
        for level in ["WARN", "ERROR"] {
            let request = client.filter_log_events().log_group_name(format!("/aws/lambda/{function}"));
            let events = request.filter_pattern(level).send().await?.events.unwrap_or_default();
            let messages = events.iter().filter_map(|event| event.message()).flat_map(str::lines);
            lines.extend(messages.filter(|line| line.contains(level)).map(|line| format!("{function} {line}")));
        }
    }
    Ok(lines)
}

async fn read_histories(endpoints: &Endpoints, expected: &Expected) -> Result<BTreeMap<String, Vec<SessionView>>> {
    let profiles: BTreeSet<&String> = expected.views.keys().map(|(profile, _)| profile).collect();
    let token = token::of_service(&endpoints.jwt_secret, TOKEN_LIFETIME)?;
    histories::read(&endpoints.api, &token, profiles).await
}

/// The bytes of every record on the dead-letter queue.
async fn dead_letters(endpoints: &Endpoints) -> Result<Vec<Vec<u8>>> {
    let client = aws_sdk_sqs::Client::new(&endpoints.sdk_config());
    let queue = &endpoints.dead_letter_queue_url;
    let mut letters = Vec::new();
    loop {
        let answer = client.receive_message().queue_url(queue).max_number_of_messages(10).send().await?;
        let messages = answer.messages.unwrap_or_default();
        if messages.is_empty() {
            return Ok(letters);
        }
        for message in messages {
            let body = message.body.context("a message without a body")?;
            let dead: DeadLetter = serde_json::from_str(&body).with_context(|| format!("no dead letter: {body}"))?;
            letters.push(BASE64_STANDARD.decode(&dead.letter.value_base64)?);
            let handle = message.receipt_handle.context("a message without a receipt")?;
            client.delete_message().queue_url(queue).receipt_handle(handle).send().await?;
        }
    }
}
