//! Waits until nothing is in flight, then reads the final state.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Result;
use apply::DeadLetter;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use operate::Endpoints;
use operate::books::{Books, Reader};
use operate::token;
use playhead_tests::measure::lost_and_twice;
use playhead_tests::queues::{due, take_dead_letters};
use playhead_tests::suite::{self, Converging, converge};
use simulate::expect::{Difference, Expected, SessionView, check, expect_sent};
use simulate::histories;
use simulate::plan::Plan;
use simulate::send::SendReport;

use super::logs::Logs;

const TOKEN_LIFETIME: Duration = Duration::from_secs(3_600);

/// The state at the end of a scenario.
pub(crate) type Converged = suite::Converged<End>;

/// What was read at the end.
pub(crate) struct End {
    pub(crate) books: Books,
    pub(crate) logs: Logs,
    /// Distinct events that the devices were told are accepted.
    pub(crate) distinct: u64,
    /// Of these, the ones that are in no view.
    pub(crate) lost: u64,
    /// Surplus events in the views.
    pub(crate) twice: u64,
    pub(crate) differences: Vec<Difference>,
    /// Objects left in the failure bucket.
    pub(crate) objects: usize,
    /// The bytes of every record on the dead-letter queue.
    pub(crate) dead_letters: Vec<Vec<u8>>,
}

/// Waits until the books, the logs and the views agree with what the devices were told, or patience
/// runs out.
///
/// # Errors
/// If something cannot be read.
pub(crate) async fn settle(
    endpoints: &Endpoints,
    plan: &Plan,
    report: &SendReport,
    patience: Duration,
) -> Result<Converged> {
    let expected = expect_sent(plan, report);
    let accepted = report.accepted as u64;
    let reader = Reader::new(endpoints);
    let (books, dead_letters) = (Books::default(), Vec::new());
    converge(InFlight { endpoints, expected, accepted, patience, reader, books, dead_letters }).await
}

struct InFlight<'a> {
    endpoints: &'a Endpoints,
    expected: Expected,
    /// Accepted events, as the devices were told.
    accepted: u64,
    patience: Duration,
    reader: Reader,
    books: Books,
    dead_letters: Vec<DeadLetter>,
}

impl Converging for InFlight<'_> {
    type End = End;
    const LOOK_EVERY: Duration = Duration::from_secs(1);

    fn patience(&self) -> Duration {
        self.patience
    }

    async fn count(&mut self, in_flight: &mut Vec<String>) -> Result<()> {
        self.books = self.reader.catch_up().await?.clone();
        let mut wait_for = |what: &str, has: u64, wanted: u64| {
            if has < wanted {
                in_flight.push(format!("{what}: {has} of {wanted}"));
            }
        };
        wait_for("accepted events in the books", self.books.accepted, self.accepted);
        wait_for("accepted events that have ended", self.books.ended(), self.books.accepted);
        let queued = due(self.endpoints, &self.endpoints.retry_queue_url).await?;
        if queued > 0 {
            in_flight.push(format!("{queued} messages on the queue retry"));
        }
        Ok(())
    }

    async fn look(&mut self, in_flight: &mut Vec<String>) -> Result<End> {
        let logs = Logs::read(self.endpoints).await?;
        let ended = self.books.applied + self.books.duplicates;
        if ended < logs.events {
            in_flight.push(format!("events of the logs that have ended: {ended} of {}", logs.events));
        }
        let histories = read_histories(self.endpoints, &self.expected).await?;
        let differences = check(&self.expected, &histories);
        if !differences.is_empty() {
            in_flight.push(format!("{} differences between views and what they must be", differences.len()));
        }
        let (lost, twice) = lost_and_twice(&self.expected, &histories);
        take_dead_letters(self.endpoints, &mut self.dead_letters).await?;
        let bytes = self.dead_letters.iter().map(|dead| BASE64_STANDARD.decode(&dead.letter.value_base64));
        Ok(End {
            books: self.books.clone(),
            logs,
            distinct: self.expected.distinct as u64,
            lost,
            twice,
            differences,
            objects: objects(self.endpoints).await?,
            dead_letters: bytes.collect::<Result<_, _>>()?,
        })
    }
}

/// How many objects are in the failure bucket, at most a page of them.
///
/// # Errors
/// If the bucket cannot be read.
pub(crate) async fn objects(endpoints: &Endpoints) -> Result<usize> {
    let s3 = aws_sdk_s3::Client::new(&endpoints.sdk_config());
    Ok(s3.list_objects_v2().bucket(&endpoints.failure_bucket).send().await?.contents().len())
}

/// What the functions logged at the levels WARN and ERROR.
///
/// # Errors
/// If the logs cannot be read.
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
