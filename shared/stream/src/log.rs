//! The port of the durable log: what a record is, how it is appended, and how an append can fail.
//!
//! An append never fails as a call. It returns one result per record, because some may be durable
//! while others are not. The port makes no routing decision and chooses no partition.

use std::fmt;
use std::future::Future;
use std::pin::pin;

use bytes::Bytes;
use futures::{Stream, StreamExt};

/// A record of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRecord {
    /// The session id. Records with one key keep their order on a healthy log.
    pub key: String,
    /// The encoded envelope. Never read here.
    pub value: Bytes,
    /// Where it goes while that part of the log is healthy.
    pub lane: Lane,
}

/// A share of a log's partitions, or of a stream's hash keys. Records that may wait for different
/// destinations use different lanes, so one that waits does not block another lane. A log with
/// fewer partitions than lanes has one lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lane {
    /// The lane's index, less than `of`.
    pub index: u16,
    /// The number of lanes, at least 1.
    pub of: u16,
}

impl Lane {
    /// The whole log.
    pub const WHOLE: Self = Self { index: 0, of: 1 };

    /// Lane `index` of `of`; the whole log if `of` is less than 2.
    #[must_use]
    pub fn new(index: u16, of: u16) -> Self {
        if of < 2 { Self::WHOLE } else { Self { index: index % of, of } }
    }
}

impl LogRecord {
    /// A record that may go to any lane.
    #[must_use]
    pub fn new(key: impl Into<String>, value: impl Into<Bytes>) -> Self {
        Self { key: key.into(), value: value.into(), lane: Lane::WHOLE }
    }
}

/// A log that stores a record durably before it acknowledges it.
pub trait DurableLog: Send + Sync {
    /// Appends all records at once. Yields each record's index and result once, as soon as it is
    /// known, in any order. A record that the stream never yields is not acknowledged.
    ///
    /// `Ok` means that the log acknowledged the record as durable. An error means that the record
    /// *may* not be there: one whose acknowledgement was lost is reported as failed. So appending
    /// it again must be harmless to readers. Dropping the stream stops waiting; records may still
    /// arrive.
    fn append_each<'a>(&'a self, records: &'a [LogRecord]) -> impl Stream<Item = RecordResult> + Send + 'a;

    /// The maximum number of copies that one append can leave in the log: each attempt that the
    /// adapter makes on its own may arrive.
    fn max_copies(&self) -> u32 {
        1
    }

    /// Appends the records, waits for all results and returns them in the order of the records.
    fn append(&self, records: &[LogRecord]) -> impl Future<Output = Vec<Result<Ack, AppendError>>> + Send {
        async move {
            let mut results: Vec<_> =
                records.iter().map(|record| Err(AppendError::unanswered(record, self.max_copies()))).collect();
            let mut settled = pin!(self.append_each(records));
            while let Some((index, result)) = settled.next().await {
                results[index] = result;
            }
            results
        }
    }
}

/// The index of a record in its append, and its result.
pub type RecordResult = (usize, Result<Ack, AppendError>);

/// An acknowledgement: the record is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// How many copies of the record the log may hold: 1, plus one for each earlier failed attempt
    /// that may have arrived anyway.
    pub copies: u32,
}

impl Ack {
    /// Acknowledged on the first attempt.
    pub const ONCE: Self = Self { copies: 1 };
}

/// Why a record was not acknowledged, grouped by what the caller can do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The record can never fit. Do not retry.
    #[error("record too large: {0}")]
    TooLarge(Attempt),
    /// Backpressure: the local queue is full, or the log limits our rate. Not an outage; retry
    /// later.
    #[error("log throttled: {0}")]
    Throttled(Attempt),
    /// No acknowledgement in time: broker or leader lost, too few replicas, time-out. Retry, here
    /// or elsewhere.
    #[error("log unavailable: {0}")]
    Unavailable(Attempt),
    /// The log denies us access, or cannot tell who we are. An operator must act.
    #[error("log denied: {0}")]
    Denied(Attempt),
}

impl AppendError {
    /// The log's answer does not name the record.
    #[must_use]
    pub fn unanswered(record: &LogRecord, copies: u32) -> Self {
        let message = "the answer does not name the record";
        Self::Unavailable(Attempt { copies, ..Attempt::new("log", record, "Unanswered", message) })
    }

    /// The failed attempt.
    #[must_use]
    pub fn attempt(&self) -> &Attempt {
        match self {
            Self::TooLarge(attempt) | Self::Throttled(attempt) | Self::Unavailable(attempt) | Self::Denied(attempt) => {
                attempt
            }
        }
    }

    /// The same error with another number of copies that may exist anyway.
    #[must_use]
    pub fn with_copies(mut self, copies: u32) -> Self {
        match &mut self {
            Self::TooLarge(attempt) | Self::Throttled(attempt) | Self::Unavailable(attempt) | Self::Denied(attempt) => {
                attempt.copies = copies;
            }
        }
        self
    }

    /// The kind of error as one of a few words, for a metric's dimension.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TooLarge(_) => "too_large",
            Self::Throttled(_) => "throttled",
            Self::Unavailable(_) => "unavailable",
            Self::Denied(_) => "denied",
        }
    }
}

/// An append that was not acknowledged: the request, and the log's answer.
///
/// It holds sizes, not bytes: a session id in an error text would leak what members watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The topic or stream.
    pub log: String,
    /// Size of the key, bytes.
    pub key_bytes: usize,
    /// Size of the value, bytes.
    pub value_bytes: usize,
    /// The log's name for the error, such as `NotEnoughReplicas`.
    pub code: String,
    /// The log's message.
    pub message: String,
    /// How many copies of the record the log may hold anyway.
    pub copies: u32,
}

impl Attempt {
    /// A failed append of `record` to `log` that may have arrived once.
    #[must_use]
    pub fn new(
        log: impl Into<String>,
        record: &LogRecord,
        code: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            log: log.into(),
            key_bytes: record.key.len(),
            value_bytes: record.value.len(),
            code: code.into(),
            message: message.into(),
            copies: 1,
        }
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}, key {} B, value {} B: {} ({})",
            self.log, self.key_bytes, self.value_bytes, self.code, self.message
        )
    }
}
