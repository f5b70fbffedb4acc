//! Units: each has one outcome. They are made of the records of a trigger.

use crate::letter::{DeadLetter, Failure, Letter, Redrive};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use lambda::batch::{Batch, Record, Source};
use playback::envelope::{Envelope, Poison, split_delimited};
use playback::outcome::{Cause, Reason};

/// A record of Kafka or Kinesis, or one of the envelopes in an SQS message.
#[derive(Debug, Clone)]
pub struct Unit {
    /// Where it first came from.
    pub source: Source,
    /// The record's key, if it had one.
    pub key: Option<Bytes>,
    /// The original bytes.
    pub bytes: Bytes,
    /// Events in it, as far as they can be counted.
    pub events: u64,
    /// When `ingest` received it, Unix milliseconds, if known: the minute in which it was accepted.
    pub received_at: Option<u64>,
    /// Whether it just arrived on the queue `inbound`, sent by another region's `forward`.
    pub arrived: bool,
    /// How often its message was received, if it waits on a queue together with others.
    pub receives: u32,
    /// What happened to it before.
    pub history: History,
}

/// What happened to a unit before this attempt.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// Failed attempts since it was last redriven.
    pub attempts: u32,
    /// The first failure.
    pub first_error: Option<Failure>,
    /// The last failure.
    pub last_error: Option<Failure>,
    /// Its earlier deaths, oldest first.
    pub redrives: Vec<Redrive>,
}

/// Why a unit is not in its view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unapplied {
    /// It can never be applied.
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
}

/// What a unit's bytes hold.
pub type Decoded = Result<Envelope, Unapplied>;

impl Unit {
    /// A unit of these bytes.
    pub fn new(source: Source, key: Option<Bytes>, bytes: Bytes, events: u64, received_at: Option<u64>) -> Self {
        Self { source, key, bytes, events, received_at, arrived: false, receives: 0, history: History::default() }
    }

    /// The trace id of the request that brought it, if it is known.
    pub fn trace_id(&self) -> Option<String> {
        playback::envelope::trace_id(&self.bytes)
    }

    /// A unit of these bytes, and what they hold.
    pub fn decode(source: Source, key: Option<Bytes>, bytes: Bytes) -> (Self, Decoded) {
        let decoded = Envelope::decode(&bytes);
        Self::decoded(source, key, bytes, decoded)
    }

    fn decoded(source: Source, key: Option<Bytes>, bytes: Bytes, decoded: Result<Envelope, Poison>) -> (Self, Decoded) {
        let (events, received_at) = match &decoded {
            Ok(envelope) => (envelope.events.len() as u64, Some(envelope.stamp.received_at)),
            Err(poison) => (poison.events, poison.received_at),
        };
        let decoded = decoded.map_err(|Poison { reason, detail, .. }| match reason {
            // Code that can read it is on its way: in a deployment, or after a rollback.
            Reason::UnknownSchemaVersion => Unapplied::Transient { cause: Cause::NewerEnvelope, detail },
            reason => Unapplied::Poison { reason, detail },
        });
        (Self::new(source, key, bytes, events, received_at), decoded)
    }

    /// The letter that takes it to `retry`, where its attempts are counted afresh.
    pub fn retry_letter(&self, cause: Cause, detail: String, now: u64) -> Letter {
        Letter { attempts: 1, ..self.failed(cause, detail, now) }
    }

    /// The dead letter of a unit that can never be applied.
    pub fn dead_letter(&self, reason: Reason, detail: String, now: u64) -> DeadLetter {
        self.dead(reason, detail, self.letter(), now)
    }

    /// The dead letter of a unit without a chance left.
    pub fn exhausted(&self, reason: Reason, cause: Cause, detail: String, now: u64) -> DeadLetter {
        let letter = self.failed(cause, detail.clone(), now);
        self.dead(reason, detail, letter, now)
    }

    fn dead(&self, reason: Reason, detail: String, letter: Letter, now: u64) -> DeadLetter {
        DeadLetter { reason: reason.as_str().to_owned(), detail, events: self.events, dead_at: now, letter }
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

/// Unpacks a batch. A record that cannot be unpacked is a unit too.
pub fn unpack(batch: Batch) -> Vec<(Unit, Decoded)> {
    let mut units = Vec::with_capacity(batch.records.len());
    for Record { source, key, value, delivery } in batch.records {
        match (value, &source) {
            (Ok(body), Source::Sqs { .. }) => {
                let receives = delivery.map_or(0, |delivery| delivery.receives);
                let parts = unpack_message(&source, body).into_iter();
                units.extend(parts.map(|(unit, decoded)| (Unit { receives, ..unit }, decoded)));
            }
            (Ok(bytes), _) => units.push(Unit::decode(source, key, bytes)),
            (Err(bad), _) => {
                let bytes = Bytes::copy_from_slice(bad.original());
                units.push(Unit::decoded(source, key, bytes, Err(not_an_envelope(bad.to_string()))));
            }
        }
    }
    units
}

/// Unpacks the body of a message of the queue `inbound`: envelopes, length-delimited, in base64.
pub fn unpack_message(source: &Source, body: Bytes) -> Vec<(Unit, Decoded)> {
    let whole = |fault| vec![Unit::decoded(source.clone(), None, body.clone(), Err(fault))];
    let joined = match BASE64_STANDARD.decode(&body) {
        Ok(joined) => Bytes::from(joined),
        Err(error) => return whole(not_an_envelope(format!("the message is not base64: {error}"))),
    };
    match split_delimited(&joined) {
        Err(fault) => whole(fault),
        Ok(parts) => {
            let arrived = |part| {
                let (unit, decoded) = Unit::decode(source.clone(), None, joined.slice_ref(part));
                (Unit { arrived: true, ..unit }, decoded)
            };
            parts.into_iter().map(arrived).collect()
        }
    }
}

fn not_an_envelope(detail: String) -> Poison {
    Poison { reason: Reason::NotAnEnvelope, detail, events: 0, received_at: None }
}

/// Units that go separate ways from here on: nothing that happens to a shadow touches a live unit.
#[derive(Debug, Default)]
pub struct Fork {
    /// Units of members that we serve, and units that cannot be read.
    pub live: Vec<(Unit, Decoded)>,
    /// Copies of the events of profiles that another system serves.
    pub shadows: Vec<(Unit, Envelope)>,
}

impl Fork {
    /// Splits units.
    pub fn of(units: Vec<(Unit, Decoded)>) -> Self {
        let mut fork = Self::default();
        for (unit, decoded) in units {
            match decoded {
                Ok(envelope) if envelope.stamp.shadow => fork.shadows.push((unit, envelope)),
                decoded => fork.live.push((unit, decoded)),
            }
        }
        fork
    }
}
