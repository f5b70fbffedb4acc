//! Dead letters: a record that can never be applied, with its original bytes, the reason and where it came from, so
//! that it can be looked at, mended and redriven.

use crate::unpack::Unit;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use lambda::batch::Source;
use playback::envelope::Poison;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::future::Future;
use stream::{Queue, SendError};

/// The message on the dead-letter queue, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The class of the fault, a [`playback::outcome::Reason`].
    pub reason: String,
    /// What exactly is wrong.
    pub detail: String,
    /// Where the record came from.
    pub source: Source,
    /// The record's key, if it had one.
    pub key_base64: Option<String>,
    /// The record's original bytes.
    pub value_base64: String,
    /// When it was set aside, Unix milliseconds.
    pub dead_at: u64,
}

impl DeadLetter {
    pub(crate) fn new(unit: &Unit, fault: &Poison, now: u64) -> Self {
        Self {
            reason: fault.reason.as_str().to_owned(),
            detail: fault.detail.clone(),
            source: unit.source.clone(),
            key_base64: unit.key.as_ref().map(|key| BASE64_STANDARD.encode(key)),
            value_base64: BASE64_STANDARD.encode(&unit.bytes),
            dead_at: now,
        }
    }
}

/// Where dead letters go.
pub trait DeadLetters: Send + Sync {
    /// Why a letter was not taken.
    type Error: fmt::Display + Send;

    /// Puts letters, one result each, in order; a letter counts as put only when it is durable.
    fn put(&self, letters: Vec<DeadLetter>) -> impl Future<Output = Vec<Result<(), Self::Error>>> + Send;
}

impl DeadLetters for Queue {
    type Error = SendError;

    /// A letter that is too large for SQS (a record of nearly a megabyte, which is none of ours) is not taken: its
    /// record fails until Lambda gives up on it and sends it to the on-failure destination, whole.
    async fn put(&self, letters: Vec<DeadLetter>) -> Vec<Result<(), SendError>> {
        // Strings and numbers only: serialising cannot fail, and an empty body would be refused by the queue.
        let bodies = letters.iter().map(|letter| serde_json::to_string(letter).unwrap_or_default()).collect();
        self.send_all(bodies).await
    }
}
