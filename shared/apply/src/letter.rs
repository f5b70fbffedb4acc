//! Letters: a record with its original bytes, where it came from and what happened to it, on the
//! queue `retry` to be applied again, or on `dead-letter` for an operator to look at.

use lambda::batch::Source;
use serde::{Deserialize, Serialize};

/// The message on the queue `retry`, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Letter {
    /// Where the record first came from.
    pub source: Source,
    /// The record's key, if it had one.
    pub key_base64: Option<String>,
    /// The record's original bytes.
    pub value_base64: String,
    /// Failed attempts since it was last redriven.
    #[serde(default)]
    pub attempts: u32,
    /// The first failure. Redriving does not clear it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_error: Option<Failure>,
    /// The last failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<Failure>,
    /// Its earlier deaths, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub redrives: Vec<Redrive>,
}

/// One failed attempt to apply a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Its class, a [`playback::outcome::Cause`].
    pub cause: String,
    /// What exactly went wrong.
    pub detail: String,
    /// When, Unix milliseconds.
    pub at: u64,
}

/// An earlier death.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redrive {
    /// Why it was dead.
    pub reason: String,
    /// Failed attempts by then.
    pub attempts: u32,
    /// Events booked as dead then; its next outcome takes them back.
    #[serde(default)]
    pub events: u64,
    /// When it was dead-lettered, Unix milliseconds.
    pub dead_at: u64,
    /// When it was redriven, Unix milliseconds.
    pub redriven_at: u64,
}

/// The message on the queue `dead-letter`, as JSON: a letter, and why it is dead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Its class, a [`playback::outcome::Reason`].
    pub reason: String,
    /// What exactly is wrong.
    pub detail: String,
    /// Events in it, as far as they can be counted: this many are booked as dead.
    #[serde(default)]
    pub events: u64,
    /// When it was dead-lettered, Unix milliseconds.
    pub dead_at: u64,
    /// The record and its history.
    #[serde(flatten)]
    pub letter: Letter,
}
