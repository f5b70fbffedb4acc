//! The port of the durable log: what a record is, how it is appended, how an append can fail.
//!
//! An append never fails as a call: it answers one result per record, in the order of the records, since
//! some may be durable while others are not. The port makes no routing decision and chooses no partition.

use std::fmt;
use std::future::Future;

use bytes::Bytes;

/// One record of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRecord {
    /// The session id. Records of one key keep their order on a healthy log.
    pub key: String,
    /// The encoded envelope, passed on unread.
    pub value: Bytes,
}

/// A log that has a record safely once it has acknowledged it.
pub trait DurableLog: Send + Sync {
    /// Appends the records and answers one result per record, in their order.
    ///
    /// `Ok` means that the log acknowledged the record as durable. An error means that it *may* not be
    /// there: a record whose acknowledgement was lost is reported as failed, so appending it again must
    /// be harmless to the reader.
    fn append(&self, records: Vec<LogRecord>) -> impl Future<Output = Vec<Result<(), AppendError>>> + Send;
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
    /// What was asked and answered.
    #[must_use]
    pub fn attempt(&self) -> &Attempt {
        match self {
            Self::TooLarge(attempt) | Self::Throttled(attempt) | Self::Unavailable(attempt) | Self::Denied(attempt) => {
                attempt
            }
        }
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
}

impl Attempt {
    /// Describes a failed append of `record` to `log`.
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
