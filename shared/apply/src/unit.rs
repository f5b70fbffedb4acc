//! Units: what has one outcome each, made of the records of a trigger.

use crate::letter::{DeadLetter, Failure, Letter, Redrive};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use lambda::batch::{Batch, Record, Source};
use playback::envelope::{Envelope, Poison, split_delimited};
use playback::outcome::{Cause, Reason};

/// What has one outcome: a record of Kafka or Kinesis, or one of the envelopes in an SQS message.
#[derive(Debug, Clone)]
pub struct Unit {
    /// Where it came from first.
    pub source: Source,
    /// The record's key, if it had one.
    pub key: Option<Bytes>,
    /// The original bytes.
    pub bytes: Bytes,
    /// Events in it, as far as they can be told.
    pub events: u64,
    /// When ingest received it, Unix milliseconds, if that can be told: the minute in which it was accepted.
    pub received_at: Option<u64>,
    /// Whether it came with a message of the queue `inbound` just now: some region's `forward` sent it.
    pub arrived: bool,
    /// Whether it is a shadow of what another system has: it is in no books.
    pub shadow: bool,
    /// What happened to it before.
    pub history: History,
}

/// What happened to a unit before it was tried this time.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// Times that it was tried and could not be applied since it was last redriven.
    pub attempts: u32,
    /// The first of them.
    pub first_error: Option<Failure>,
    /// The last of them.
    pub last_error: Option<Failure>,
    /// Its earlier deaths, oldest first.
    pub redrives: Vec<Redrive>,
}

/// Why a unit is not in its view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unapplied {
    /// It never will be.
    Poison {
        /// The class of the fault.
        reason: Reason,
        /// What exactly is wrong.
        detail: String,
    },
    /// It is worth another try.
    Transient {
        /// The class of the failure.
        cause: Cause,
        /// What exactly went wrong.
        detail: String,
    },
    /// It is a shadow, and there is nowhere to fold it now.
    Unshadowed,
}

/// What a unit holds.
pub type Decoded = Result<Envelope, Unapplied>;

impl Unit {
    /// A unit of these bytes, and what they hold.
    pub fn decode(source: Source, key: Option<Bytes>, bytes: Bytes) -> (Self, Decoded) {
        let content = Envelope::decode(&bytes);
        Self::new(source, key, bytes, content)
    }

    /// A unit of bytes that cannot be applied.
    pub fn unapplied(source: Source, key: Option<Bytes>, bytes: Bytes, why: Unapplied) -> (Self, Decoded) {
        let history = History::default();
        let unit = Self { source, key, bytes, events: 0, received_at: None, arrived: false, shadow: false, history };
        (unit, Err(why))
    }

    fn new(source: Source, key: Option<Bytes>, bytes: Bytes, content: Result<Envelope, Poison>) -> (Self, Decoded) {
        let (events, received_at) = match &content {
            Ok(envelope) => (envelope.events.len() as u64, Some(envelope.stamp.received_at)),
            Err(poison) => (poison.events, poison.received_at),
        };
        let shadow = content.as_ref().is_ok_and(|envelope| envelope.stamp.shadow);
        let content = content.map_err(|Poison { reason, detail, .. }| Unapplied::Poison { reason, detail });
        (Self { source, key, bytes, events, received_at, arrived: false, shadow, history: History::default() }, content)
    }

    /// The letter that parks it on `retry`: its attempts are counted from this one on.
    pub fn retry_letter(&self, cause: Cause, detail: String, now: u64) -> Letter {
        Letter { attempts: 1, ..self.failed(cause, detail, now) }
    }

    /// The dead letter of one that will never be applied.
    pub fn dead_letter(&self, reason: Reason, detail: String, now: u64) -> DeadLetter {
        let (reason, events) = (reason.as_str().to_owned(), self.events);
        DeadLetter { reason, detail, events, dead_at: now, letter: self.letter() }
    }

    /// The dead letter of one that was tried for the last time.
    pub fn exhausted(&self, cause: Cause, detail: String, now: u64) -> DeadLetter {
        let letter = self.failed(cause, detail.clone(), now);
        let (reason, events) = (Reason::AttemptsExhausted.as_str().to_owned(), self.events);
        DeadLetter { reason, detail, events, dead_at: now, letter }
    }

    fn failed(&self, cause: Cause, detail: String, now: u64) -> Letter {
        let failure = Failure { cause: cause.as_str().to_owned(), detail, at: now };
        let letter = self.letter();
        Letter {
            first_error: letter.first_error.or_else(|| Some(failure.clone())),
            last_error: Some(failure),
            ..letter
        }
    }

    fn letter(&self) -> Letter {
        let History { attempts, first_error, last_error, redrives } = self.history.clone();
        Letter {
            source: self.source.clone(),
            key_base64: self.key.as_ref().map(|key| BASE64_STANDARD.encode(key)),
            value_base64: BASE64_STANDARD.encode(&self.bytes),
            attempts: attempts + 1,
            first_error,
            last_error,
            redrives,
        }
    }
}

/// The units of a batch; a record that cannot be unpacked is a unit all the same.
pub fn unpack(batch: Batch) -> (Vec<Unit>, Vec<Decoded>) {
    let mut unpacked = (Vec::with_capacity(batch.records.len()), Vec::with_capacity(batch.records.len()));
    for Record { source, key, value, .. } in batch.records {
        match (value, &source) {
            (Ok(body), Source::Sqs { .. }) => unpacked.extend(unpack_message(&source, body)),
            (Ok(bytes), _) => unpacked.extend([Unit::decode(source, key, bytes)]),
            (Err(bad), _) => {
                let bytes = Bytes::copy_from_slice(bad.original());
                unpacked.extend([Unit::new(source, key, bytes, Err(not_an_envelope(bad.to_string())))]);
            }
        }
    }
    unpacked
}

/// The body of a message of the queue `inbound`: envelopes, length-delimited, in base64.
pub fn unpack_message(source: &Source, body: Bytes) -> Vec<(Unit, Decoded)> {
    let whole = |fault| vec![Unit::new(source.clone(), None, body.clone(), Err(fault))];
    let joined = match BASE64_STANDARD.decode(&body) {
        Ok(joined) => Bytes::from(joined),
        Err(error) => return whole(not_an_envelope(format!("the message is not base64: {error}"))),
    };
    match split_delimited(&joined) {
        Err(fault) => whole(fault),
        Ok(parts) => {
            let arrived = |part| {
                let (unit, content) = Unit::decode(source.clone(), None, joined.slice_ref(part));
                (Unit { arrived: true, ..unit }, content)
            };
            parts.into_iter().map(arrived).collect()
        }
    }
}

fn not_an_envelope(detail: String) -> Poison {
    Poison { reason: Reason::NotAnEnvelope, detail, events: 0, received_at: None }
}
