//! Work: the units that a message of the queue `retry` holds.

use crate::message::{Message, Object};
use crate::objects::{MAX_OBJECT_BYTES, ObjectBody, Objects};
use apply::{Decoded, History, Letter, Unapplied, Unit, unpack, unpack_message};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use lambda::batch::{BadRecord, Batch, Delivery, Record, Source};
use playback::outcome::{Cause, Reason};
use serde::Deserialize;
use std::borrow::Cow;
use store::Erase;

/// One message.
#[derive(Debug)]
pub(crate) struct Work {
    /// Where it came from.
    pub(crate) message: Source,
    /// Its delivery, if the trigger names it.
    pub(crate) delivery: Option<Delivery>,
    /// Whether its units become separate letters when they are worth another try. Otherwise the
    /// message itself waits.
    pub(crate) splits: bool,
    /// Objects to delete once all units are safe.
    pub(crate) objects: Vec<Object>,
    /// What to erase.
    pub(crate) erase: Option<Erase>,
    /// How often its units were tried, this time included.
    pub(crate) attempts: u32,
}

/// The units of a message; none if it is already done.
pub(crate) type Units = Vec<(Unit, Decoded)>;

/// A message while it is read.
struct Reader<'a, O> {
    bucket: &'a O,
    work: Work,
    units: Units,
    /// The message's body.
    body: Bytes,
    history: History,
}

/// Reads a message, and its objects in the failure bucket if it names any. A message that cannot be
/// read is a unit itself.
pub(crate) async fn read<O: Objects>(bucket: &O, record: Record) -> (Work, Units) {
    let Record { source, delivery, value, .. } = record;
    let receives = delivery.as_ref().map_or(1, |delivery| delivery.receives.max(1));
    let work = Work { message: source, delivery, splits: false, objects: Vec::new(), erase: None, attempts: receives };
    let history = History { attempts: receives - 1, ..History::default() };
    let body = value.as_ref().map_or_else(|bad: &BadRecord| Bytes::copy_from_slice(bad.original()), Bytes::clone);
    let mut reader = Reader { bucket, work, units: Vec::new(), body, history };
    match Message::read(&reader.body) {
        Ok(Message::Letter(letter)) => reader.letter(*letter).await,
        Ok(Message::Objects(objects)) => reader.objects(objects).await,
        Ok(Message::Erase(erase)) => reader.work.erase = Some(erase),
        Err(detail) => reader.unreadable(detail),
    }
    let Reader { work, mut units, history, .. } = reader;
    for (unit, _) in &mut units {
        unit.history = history.clone();
    }
    (work, units)
}

impl<O: Objects> Reader<'_, O> {
    async fn letter(&mut self, letter: Letter) {
        let decoded = |text: &str| BASE64_STANDARD.decode(text).map(Bytes::from);
        let (bytes, key) = match (decoded(&letter.value_base64), letter.key_base64.as_deref().map(decoded).transpose())
        {
            (Ok(bytes), Ok(key)) => (bytes, key),
            (Err(error), _) => return self.unreadable(format!("the letter's value is not base64: {error}")),
            (_, Err(error)) => return self.unreadable(format!("the letter's key is not base64: {error}")),
        };
        self.work.attempts = self.work.attempts.saturating_add(letter.attempts);
        self.history = History {
            attempts: self.work.attempts - 1,
            first_error: letter.first_error,
            last_error: letter.last_error,
            redrives: letter.redrives,
        };
        let one = Unit::decode(letter.source.clone(), key, bytes.clone());
        if !matches!((&letter.source, &one.1), (Source::Sqs { .. }, Err(_))) {
            self.units = vec![one];
            return;
        }
        // A letter from a queue may hold a whole message: a dead-lettered one of `retry` that is
        // redriven ...
        match Message::read(&bytes) {
            Ok(Message::Objects(objects)) => {
                self.body = bytes;
                return self.objects(objects).await;
            }
            Ok(Message::Erase(erase)) => {
                self.work.erase = Some(erase);
                return;
            }
            _ => {}
        }
        // ... or one of `inbound`, which holds several envelopes.
        let units = unpack_message(&letter.source, bytes);
        let is_message = units.iter().any(|(_, decoded)| decoded.is_ok());
        (self.work.splits, self.units) = if is_message { (true, units) } else { (false, vec![one]) };
    }

    async fn objects(&mut self, objects: Vec<Object>) {
        for object in objects {
            match self.bucket.get(&object).await {
                Ok(ObjectBody::Bytes(bytes)) => match failed_batch(&bytes) {
                    Ok(batch) => {
                        let units = unpack(batch);
                        tracing::info!(object.key, records = units.len(), "applying a batch that Lambda gave up on");
                        self.units.extend(units);
                        self.work.objects.push(object);
                    }
                    Err(detail) => self.unreadable(format!("s3://{}/{}: {detail}", object.bucket, object.key)),
                },
                Ok(ObjectBody::TooLarge) => {
                    self.unreadable(format!("s3://{}/{} exceeds {MAX_OBJECT_BYTES} B", object.bucket, object.key));
                }
                Ok(ObjectBody::Missing) => {
                    tracing::info!(object.key, "the object is gone: its batch was applied before");
                }
                Err(error) => {
                    // The message waits as a whole, so none of it is applied now.
                    tracing::warn!(%error, "an object is unavailable");
                    let (cause, detail) = (Cause::ObjectUnavailable, error.to_string());
                    self.units = vec![self.itself(Unapplied::Transient { cause, detail })];
                    self.work.objects = Vec::new();
                    self.work.splits = false;
                    return;
                }
            }
        }
        self.work.splits = true;
    }

    /// The message, or one of its objects, cannot be read: it is dead-lettered unchanged. The
    /// object stays in the bucket.
    fn unreadable(&mut self, detail: String) {
        let itself = self.itself(Unapplied::Poison { reason: Reason::UnreadableMessage, detail });
        self.units.push(itself);
    }

    fn itself(&self, why: Unapplied) -> (Unit, Decoded) {
        (Unit::new(self.work.message.clone(), None, self.body.clone(), 0, None), Err(why))
    }
}

/// What Lambda writes to an on-failure destination in S3; `payload` is the whole event, as a
/// string. Source: AWS Lambda developer guide, "Capturing discarded batches for Amazon MSK and
/// self-managed Apache Kafka event sources", and the same for Kinesis.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FailedInvocation<'a> {
    #[serde(borrow)]
    request_context: RequestContext<'a>,
    #[serde(borrow)]
    payload: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct RequestContext<'a> {
    #[serde(borrow)]
    condition: Cow<'a, str>,
}

fn failed_batch(object: &[u8]) -> Result<Batch, String> {
    let failed: FailedInvocation<'_> =
        serde_json::from_slice(object).map_err(|error| format!("not the record of a failed invocation: {error}"))?;
    let condition = &failed.request_context.condition;
    let payload = failed.payload.ok_or_else(|| format!("discarded ({condition}) without its payload"))?;
    Batch::parse(payload.as_bytes())
        .map_err(|error| format!("discarded ({condition}) with a payload that is not a batch: {error}"))
}
