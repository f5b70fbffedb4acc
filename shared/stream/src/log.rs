//! The port of the durable log: what a record is, how it is appended, how an append can fail.
//!
//! An append never fails as a call: it answers one result per record, since some may be durable while others
//! are not. The port makes no routing decision and chooses no partition.

use std::fmt;
use std::future::Future;
use std::pin::pin;

use bytes::Bytes;
use futures::{Stream, StreamExt};

/// One record of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRecord {
    /// The session id. Records of one key keep their order on a healthy log.
    pub key: String,
    /// The encoded envelope, passed on unread.
    pub value: Bytes,
    /// Which part of the log it goes to, if that is well.
    pub lane: Lane,
}

/// A part of a log's partitions (of a stream's hash keys): records that may wait for different things go to different lanes,
/// so that one that waits holds up none of another lane. A log that has fewer partitions than lanes has one lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lane {
    /// Which one, less than `of`.
    pub index: u16,
    /// How many there are, at least 1.
    pub of: u16,
}

impl Lane {
    /// The whole log.
    pub const WHOLE: Self = Self { index: 0, of: 1 };

    /// Lane `index` of `of`; with less than two there is just one.
    #[must_use]
    pub fn new(index: u16, of: u16) -> Self {
        if of < 2 { Self::WHOLE } else { Self { index: index % of, of } }
    }
}

impl LogRecord {
    /// A record that may go anywhere.
    #[must_use]
    pub fn new(key: impl Into<String>, value: impl Into<Bytes>) -> Self {
        Self { key: key.into(), value: value.into(), lane: Lane::WHOLE }
    }
}

/// A log that has a record safely once it has acknowledged it.
pub trait DurableLog: Send + Sync {
    /// Appends the records, all at once, and answers each one's index and result as soon as it is known, in any
    /// order, once. A record that the stream ends without naming is not acknowledged.
    ///
    /// `Ok` means that the log acknowledged the record as durable. An error means that it *may* not be
    /// there: a record whose acknowledgement was lost is reported as failed, so appending it again must
    /// be harmless to the reader. To drop the stream is to wait no longer; records may still arrive.
    fn append_each<'a>(&'a self, records: &'a [LogRecord]) -> impl Stream<Item = Settled> + Send + 'a;

    /// How many copies of a record one append can leave in the log, at the most: the attempts that it makes by
    /// itself and that may each arrive.
    fn max_copies(&self) -> u32 {
        1
    }

    /// Appends the records, waits for all results and answers them in the order of the records.
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

/// A record's index among those of its append, and what became of it.
pub type Settled = (usize, Result<Ack, AppendError>);

/// A record is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// How many copies of the record the log may hold: 1, and one more for each failed attempt before that may
    /// have arrived all the same.
    pub copies: u32,
}

impl Ack {
    /// Acknowledged at the first attempt.
    pub const ONCE: Self = Self { copies: 1 };
}

/// Why a record was not acknowledged, by what the caller can do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The record can never fit; sending it again is useless.
    #[error("record too large: {0}")]
    TooLarge(Attempt),
    /// Backpressure: the local queue is full or the log limits our rate. Not an outage; try later.
    #[error("log throttled: {0}")]
    Throttled(Attempt),
    /// No acknowledgement in time: broker or leader lost, too few replicas, time-out. Try again or elsewhere.
    #[error("log unavailable: {0}")]
    Unavailable(Attempt),
    /// The log knows us and refuses, or cannot establish who we are. An operator is needed.
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

    /// What was asked and answered.
    #[must_use]
    pub fn attempt(&self) -> &Attempt {
        match self {
            Self::TooLarge(attempt) | Self::Throttled(attempt) | Self::Unavailable(attempt) | Self::Denied(attempt) => {
                attempt
            }
        }
    }

    /// The same, with another number of copies that may be there all the same.
    #[must_use]
    pub fn with_copies(mut self, copies: u32) -> Self {
        match &mut self {
            Self::TooLarge(attempt) | Self::Throttled(attempt) | Self::Unavailable(attempt) | Self::Denied(attempt) => {
                attempt.copies = copies;
            }
        }
        self
    }

    /// The class as a bounded word, fit for a metric's dimension.
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

/// One append that was not acknowledged: what was asked, and what the log answered.
///
/// It holds sizes instead of the bytes: a session id in an error text would spread members' traces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The topic or stream.
    pub log: String,
    /// Length of the key, bytes.
    pub key_bytes: usize,
    /// Length of the value, bytes.
    pub value_bytes: usize,
    /// The log's own name for the error, such as `NotEnoughReplicas`.
    pub code: String,
    /// The log's own words.
    pub message: String,
    /// How many copies of the record the log may hold all the same.
    pub copies: u32,
}

impl Attempt {
    /// Describes a failed append of `record` to `log`, which may have arrived once.
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
