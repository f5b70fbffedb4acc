//! The durable log on a Kinesis data stream, through `PutRecords`.
//!
//! A call can succeed while some of its records fail. So every entry of the answer is checked, and
//! only failed ones are sent again, for a limited time. Kinesis stores what it acknowledges in
//! three availability zones. The key chooses the shard, among those of its lane if it has one
//! (`shards`). The adapter creates no stream and keeps no record after its answer.
//!
//! The SDK's retries are off: they would repeat whole calls, over connections from the same pool.
//! In an environment that was frozen, every connection in the pool may be dead without anyone
//! noticing. So after an attempt without an answer, the next attempt opens a new connection.

mod shards;

use std::sync::Arc;
use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::retry::RetryConfig;
use aws_sdk_kinesis::config::timeout::TimeoutConfig;
use aws_sdk_kinesis::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_kinesis::operation::put_records::{PutRecordsError, PutRecordsOutput};
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, PutRecordsResultEntry};
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use futures::stream::{self, Stream, StreamExt};
use tokio::time::{Instant, sleep, timeout_at};

use crate::log::{Ack, AppendError, Attempt, DurableLog, Lane, LogRecord, RecordResult};
use shards::{ShardCache, Shards};

/// Maximum number of records in one `PutRecords` (API reference of `PutRecords`).
pub const MAX_REQUEST_RECORDS: usize = 500;

/// Maximum size of one `PutRecords`, keys included: 10 MiB (API reference of `PutRecords`; 5 MiB
/// before October 2025).
pub const MAX_REQUEST_BYTES: usize = 10 * 1024 * 1024;

/// Maximum size of one record, key included: 1 MiB. That is a stream's limit unless its
/// `MaxRecordSizeInKiB` was raised (API reference of `CreateStream`).
pub const MAX_RECORD_BYTES: usize = 1024 * 1024;

/// Maximum length of a partition key, characters (API reference of `PutRecordsRequestEntry`).
const MAX_KEY_CHARS: usize = 256;

/// Maximum number of attempts per record.
const MAX_ATTEMPTS: u32 = 4;

/// Configuration of the adapter. [`KinesisConfig::new`] sets the defaults named here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KinesisConfig {
    /// The stream's name. It must exist.
    pub stream: String,
    /// How long opening a connection may take, TLS included. Default: 0.7 s.
    pub connect_timeout: Duration,
    /// How long one attempt may take. Default: 1.1 s; two fit into the budget.
    pub attempt_timeout: Duration,
    /// How long a record may take to be acknowledged, retries included. Default: 2.3 s.
    pub budget: Duration,
    /// Maximum wait before the second attempt. It doubles with each attempt. Default: 100 ms.
    pub backoff: Duration,
}

impl KinesisConfig {
    /// The defaults for `stream`.
    #[must_use]
    pub fn new(stream: impl Into<String>) -> Self {
        Self {
            stream: stream.into(),
            connect_timeout: Duration::from_millis(700),
            attempt_timeout: Duration::from_millis(1100),
            budget: Duration::from_millis(2300),
            backoff: Duration::from_millis(100),
        }
    }
}

/// Why the stream could not be reached. The log may recover: appends will tell.
#[derive(Debug, thiserror::Error)]
#[error("could not reach stream {stream}: {message}")]
pub struct KinesisWarmUpError {
    /// The stream asked for.
    pub stream: String,
    /// The SDK's error with all its causes.
    pub message: String,
}

/// The durable log on Kinesis. Clones share their connections; keep one per process.
#[derive(Clone, Debug)]
pub struct KinesisLog {
    config: KinesisConfig,
    client: Client,
    /// Opens a new connection for each call.
    fresh: Client,
    /// Read only for records that have a lane.
    shards: Arc<ShardCache>,
}

impl KinesisLog {
    /// The stream, with the credentials and endpoint of `sdk`. It connects on first use: see
    /// [`Self::warm_up`].
    #[must_use]
    pub fn new(config: KinesisConfig, sdk: &SdkConfig) -> Self {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(config.connect_timeout)
            .operation_attempt_timeout(config.attempt_timeout)
            .operation_timeout(config.attempt_timeout);
        let settings = aws_sdk_kinesis::config::Builder::from(sdk)
            .timeout_config(timeouts.build())
            .retry_config(RetryConfig::disabled());
        let without_pool = aws_smithy_http_client::Builder::new()
            .pool_max_idle_per_host(0)
            .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
            .build_https();
        let fresh = Client::from_conf(settings.clone().http_client(without_pool).build());
        Self { config, client: Client::from_conf(settings.build()), fresh, shards: Arc::default() }
    }

    /// Another stream of the same account, over the same connections.
    #[must_use]
    pub fn beside(&self, stream: &str) -> Self {
        let config = KinesisConfig { stream: stream.to_owned(), ..self.config.clone() };
        Self { config, shards: Arc::default(), ..self.clone() }
    }

    /// Calls `PutRecords` without a record, to open a connection and load credentials before the
    /// first request. Kinesis rejects that as invalid after it authenticated us. Unlike describing
    /// the stream, this needs no permission besides appending.
    ///
    /// # Errors
    /// When the stream is unavailable. The caller may log this and start.
    pub async fn warm_up(&self) -> Result<(), KinesisWarmUpError> {
        let call = self.client.put_records().stream_name(&self.config.stream).set_records(Some(Vec::new()));
        match call.send().await {
            Ok(_) => Ok(()),
            Err(error) if matches!(error.code(), Some("ValidationException" | "InvalidArgumentException")) => Ok(()),
            Err(error) => {
                let message = DisplayErrorContext(error).to_string();
                Err(KinesisWarmUpError { stream: self.config.stream.clone(), message })
            }
        }
    }

    /// Sends the records of one request until each is acknowledged or has failed permanently, or
    /// time is up.
    fn append_request<'a>(
        &'a self,
        records: &'a [LogRecord],
        request: Vec<usize>,
    ) -> impl Stream<Item = RecordResult> + Send + 'a {
        let pending = request.into_iter().map(|index| Pending { index, copies: 0 }).collect();
        let deadline = Instant::now() + self.config.budget;
        let first = Round { pending, attempts: 0, backoff: Duration::ZERO, deadline, is_connection_sound: true };
        stream::unfold(first, move |round| self.call(records, round)).flat_map(stream::iter)
    }

    /// Makes one call. Returns the final results and the next round.
    async fn call(&self, records: &[LogRecord], mut round: Round) -> Option<(Vec<RecordResult>, Round)> {
        if round.pending.is_empty() {
            return None;
        }
        if round.attempts > 0 {
            sleep(round.backoff).await;
        }
        let results = self.put(records, &mut round).await;
        round.attempts += 1;
        let ceiling = self.config.backoff * 2_u32.pow(round.attempts - 1);
        round.backoff = ceiling.mul_f64(rand::random());
        let can_go_on =
            round.attempts < MAX_ATTEMPTS && Instant::now() + round.backoff + self.config.backoff <= round.deadline;
        let mut settled = Vec::with_capacity(results.len());
        let mut left = Vec::new();
        for (mut pending, result) in round.pending.into_iter().zip(results) {
            match result {
                Ok(()) => settled.push((pending.index, Ok(Ack { copies: pending.copies + 1 }))),
                Err(error) => {
                    pending.copies += error.attempt().copies;
                    match error {
                        AppendError::Throttled(_) | AppendError::Unavailable(_) if can_go_on => left.push(pending),
                        error => settled.push((pending.index, Err(error.with_copies(pending.copies)))),
                    }
                }
            }
        }
        Some((settled, Round { pending: left, ..round }))
    }

    /// Calls `PutRecords` for the pending records. Returns one result per record, in order.
    async fn put(&self, records: &[LogRecord], round: &mut Round) -> Vec<Result<(), AppendError>> {
        let client = if round.is_connection_sound { &self.client } else { &self.fresh };
        let mut call = client.put_records().stream_name(&self.config.stream);
        let pending = || round.pending.iter().map(|pending| &records[pending.index]);
        let shards = match pending().any(|record| record.lane != Lane::WHOLE) {
            true => self.shards.get(client, &self.config.stream).await,
            false => Arc::new(Shards::default()),
        };
        for record in pending() {
            let entry = PutRecordsRequestEntry::builder()
                .partition_key(&record.key)
                .set_explicit_hash_key(shards.hash_key(record).map(|hash| hash.to_string()));
            match entry.data(Blob::new(record.value.as_ref())).build() {
                Ok(entry) => call = call.records(entry),
                Err(error) => {
                    let failure = Failure::new(Class::Denied, 0, "BuildError", error.to_string());
                    return pending().map(|record| Err(failure.of(&self.config.stream, record))).collect();
                }
            }
        }
        let failure = match timeout_at(round.deadline, call.send()).await {
            Ok(Ok(answer)) => return settle(&self.config.stream, pending(), &answer),
            Ok(Err(error)) => {
                let is_answered = matches!(error, SdkError::ServiceError(_) | SdkError::ConstructionFailure(_));
                round.is_connection_sound = round.is_connection_sound && is_answered;
                classify(error)
            }
            Err(_) => Failure::new(Class::Unavailable, 1, "TimedOut", "no answer within the budget".to_owned()),
        };
        round.pending.iter().map(|one| Err(failure.of(&self.config.stream, &records[one.index]))).collect()
    }
}

impl DurableLog for KinesisLog {
    fn append_each<'a>(&'a self, records: &'a [LogRecord]) -> impl Stream<Item = RecordResult> + Send + 'a {
        let Plan { requests, refused } = plan(&self.config.stream, records);
        let requests = requests.into_iter().map(|request| Box::pin(self.append_request(records, request)));
        stream::select(stream::iter(refused), stream::select_all(requests))
    }

    fn max_copies(&self) -> u32 {
        MAX_ATTEMPTS
    }
}

/// The rest of a request.
struct Round {
    pending: Vec<Pending>,
    attempts: u32,
    /// The wait before the next attempt.
    backoff: Duration,
    deadline: Instant,
    /// Whether every attempt so far was answered.
    is_connection_sound: bool,
}

/// A record that is not acknowledged yet.
struct Pending {
    index: usize,
    /// How many failed attempts may have arrived.
    copies: u32,
}

/// Which records share a request, and which cannot be sent.
struct Plan {
    requests: Vec<Vec<usize>>,
    refused: Vec<RecordResult>,
}

/// Splits the records into requests within the API's limits, in order. Each request is as full as
/// the next record allows.
fn plan(stream: &str, records: &[LogRecord]) -> Plan {
    let mut requests: Vec<Vec<usize>> = Vec::new();
    let mut refused = Vec::new();
    let mut room = 0;
    for (index, record) in records.iter().enumerate() {
        let bytes = record.key.len() + record.value.len();
        if bytes > MAX_RECORD_BYTES || record.key.chars().count() > MAX_KEY_CHARS {
            let message = format!("over {MAX_RECORD_BYTES} B with its key, or a key over {MAX_KEY_CHARS} characters");
            let attempt = Attempt::new(stream, record, "RecordTooLarge", message);
            refused.push((index, Err(AppendError::TooLarge(Attempt { copies: 0, ..attempt }))));
            continue;
        }
        match requests.last_mut() {
            Some(request) if request.len() < MAX_REQUEST_RECORDS && bytes <= room => {
                request.push(index);
                room -= bytes;
            }
            _ => {
                requests.push(vec![index]);
                room = MAX_REQUEST_BYTES - bytes;
            }
        }
    }
    Plan { requests, refused }
}

/// The result of each record, from the answer. An entry is acknowledged if it has a sequence number
/// and no error. Entries match records only by their position, so an answer of another length
/// acknowledges nothing.
fn settle<'a>(
    stream: &str,
    records: impl ExactSizeIterator<Item = &'a LogRecord>,
    answer: &PutRecordsOutput,
) -> Vec<Result<(), AppendError>> {
    let (asked, answered) = (records.len(), answer.records().len());
    if asked != answered {
        let message = format!("{asked} records were sent, but the answer has {answered}");
        let failure = Failure::new(Class::Unavailable, 1, "Unanswered", message);
        return records.map(|record| Err(failure.of(stream, record))).collect();
    }
    let settle_one = |(record, entry): (&LogRecord, &PutRecordsResultEntry)| {
        let message = || entry.error_message().unwrap_or_default().to_owned();
        let failure = match (entry.error_code(), entry.sequence_number()) {
            (None, Some(_)) => return Ok(()),
            (None, None) => Failure::new(Class::Unavailable, 1, "Unanswered", "no sequence number".to_owned()),
            (Some(code), _) if is_throttling(code) => Failure::new(Class::Throttled, 0, code, message()),
            (Some(code), _) => Failure::new(Class::Unavailable, 1, code, message()),
        };
        Err(failure.of(stream, record))
    };
    records.zip(answer.records()).map(settle_one).collect()
}

/// What a failed call means for each of its records. Any error that is not known to be permanent
/// counts as unavailable.
fn classify(error: SdkError<PutRecordsError>) -> Failure {
    let code = error.code().map(str::to_owned);
    let is_refused = error.raw_response().is_some_and(|response| response.status().is_client_error());
    let is_unsent = matches!(error, SdkError::ConstructionFailure(_));
    let kind = match &error {
        SdkError::ConstructionFailure(_) => "NotSent",
        SdkError::TimeoutError(_) => "TimedOut",
        SdkError::DispatchFailure(_) => "ConnectionFailed",
        _ => "Unanswered",
    };
    let message = DisplayErrorContext(error).to_string();
    let class = match code.as_deref() {
        Some(code) if is_throttling(code) => Class::Throttled,
        Some(code) if DENIALS.contains(&code) => Class::Denied,
        _ => Class::Unavailable,
    };
    // Records refused with a 4xx, or never sent, are not in the stream.
    let copies = u32::from(!(is_refused || is_unsent));
    Failure::new(class, copies, code.as_deref().unwrap_or(kind), message)
}

/// Per record or per call: the rate limit of the shard, the stream, KMS or the API (API reference
/// of `PutRecords`, and "Common errors").
fn is_throttling(code: &str) -> bool {
    let codes = [
        "ProvisionedThroughputExceededException",
        "KMSThrottlingException",
        "LimitExceededException",
        "ThrottlingException",
        "Throttling",
        "RequestLimitExceeded",
    ];
    codes.contains(&code)
}

/// Access is denied, or our identity is unknown (API reference of `PutRecords`, and "Common
/// errors").
const DENIALS: [&str; 12] = [
    "AccessDeniedException",
    "KMSAccessDeniedException",
    "KMSDisabledException",
    "KMSInvalidStateException",
    "KMSNotFoundException",
    "KMSOptInRequired",
    "ExpiredTokenException",
    "IncompleteSignature",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "MissingAuthenticationTokenException",
    "UnrecognizedClientException",
];

/// Why one or more records were not acknowledged.
struct Failure {
    class: Class,
    /// How many copies may exist anyway.
    copies: u32,
    code: String,
    message: String,
}

#[derive(Clone, Copy)]
enum Class {
    Throttled,
    Unavailable,
    Denied,
}

impl Failure {
    fn new(class: Class, copies: u32, code: &str, message: String) -> Self {
        Self { class, copies, code: code.to_owned(), message }
    }

    fn of(&self, stream: &str, record: &LogRecord) -> AppendError {
        let attempt = Attempt::new(stream, record, self.code.as_str(), self.message.as_str());
        let attempt = Attempt { copies: self.copies, ..attempt };
        match self.class {
            Class::Throttled => AppendError::Throttled(attempt),
            Class::Unavailable => AppendError::Unavailable(attempt),
            Class::Denied => AppendError::Denied(attempt),
        }
    }
}

#[cfg(test)]
mod tests;
