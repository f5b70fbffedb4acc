//! Work: what a message of the queue `retry` holds to apply.

use crate::message::{Message, Object};
use crate::objects::{self, Objects};
use apply::{History, Letter, Unapplied, Unit, unpack, unpack_message};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use lambda::batch::{BadRecord, Batch, Delivery, Record, Source};
use playback::outcome::{Cause, Reason};
use serde::Deserialize;
use std::borrow::Cow;

/// What one message holds.
#[derive(Debug)]
pub(crate) struct Work {
    /// The message.
    pub(crate) message: Source,
    /// Its delivery, if the trigger said so.
    pub(crate) delivery: Option<Delivery>,
    /// Whether its parts go on by themselves, as letters of their own, when they are worth another try. Otherwise the message itself waits.
    pub(crate) splits: bool,
    /// To be deleted once all parts are safe.
    pub(crate) objects: Vec<Object>,
    /// How often its parts were tried, with this time.
    pub(crate) attempts: u32,
}

/// What a message holds; nothing when it is done already.
pub(crate) type Parts = Vec<(Unit, apply::Decoded)>;

/// A message while it is read.
struct Reader<'a, O> {
    bucket: &'a O,
    work: Work,
    parts: Parts,
    /// The message's body.
    body: Bytes,
    history: History,
}

/// Finds out what a message holds, in the failure bucket if need be. What cannot be read is a part all the same.
pub(crate) async fn read<O: Objects>(bucket: &O, record: Record) -> (Work, Parts) {
    let Record { source, delivery, value, .. } = record;
    let receives = delivery.as_ref().map_or(1, |delivery| delivery.receives.max(1));
    let work = Work { message: source, delivery, splits: false, objects: Vec::new(), attempts: receives };
    let history = History { attempts: receives - 1, ..History::default() };
    let body = value.as_ref().map_or_else(|bad: &BadRecord| Bytes::copy_from_slice(bad.original()), Bytes::clone);
    let mut reader = Reader { bucket, work, parts: Vec::new(), body, history };
    match Message::read(&reader.body) {
        Ok(Message::Letter(letter)) => reader.letter(*letter).await,
        Ok(Message::Objects(objects)) => reader.objects(objects).await,
        Err(detail) => reader.unreadable(detail),
    }
    let Reader { work, mut parts, history, .. } = reader;
    for (unit, _) in &mut parts {
        unit.history = history.clone();
    }
    (work, parts)
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
            self.parts = vec![one];
            return;
        }
        // A letter from a queue may hold a whole message: one of `retry` that is redriven after it had been set aside ...
        if let Ok(Message::Objects(objects)) = Message::read(&bytes) {
            self.body = bytes;
            return self.objects(objects).await;
        }
        // ... or one of `inbound`, which holds several envelopes.
        let parts = unpack_message(&letter.source, bytes);
        let is_message = parts.iter().any(|(_, content)| content.is_ok());
        (self.work.splits, self.parts) = if is_message { (true, parts) } else { (false, vec![one]) };
    }

    async fn objects(&mut self, objects: Vec<Object>) {
        for object in objects {
            match self.bucket.get(&object).await {
                Ok(objects::ObjectBody::Bytes(bytes)) => match failed_batch(&bytes) {
                    Ok(batch) => {
                        let (units, contents) = unpack(batch);
                        tracing::info!(object.key, records = units.len(), "applying a batch that Lambda gave up");
                        self.parts.extend(units.into_iter().zip(contents));
                        self.work.objects.push(object);
                    }
                    Err(detail) => self.unreadable(format!("s3://{}/{}: {detail}", object.bucket, object.key)),
                },
                Ok(objects::ObjectBody::TooLarge) => {
                    let limit = objects::MAX_OBJECT_BYTES;
                    self.unreadable(format!("s3://{}/{} exceeds {limit} B", object.bucket, object.key));
                }
                Ok(objects::ObjectBody::Missing) => {
                    tracing::info!(object.key, "the object is gone: its batch was applied before");
                }
                Err(error) => {
                    // The message waits as a whole, so none of it is applied now.
                    tracing::warn!(%error, "an object could not be had");
                    let (cause, detail) = (Cause::ObjectUnavailable, error.to_string());
                    let why = Unapplied::Transient { cause, detail };
                    self.parts = vec![self.itself(why)];
                    self.work.objects = Vec::new();
                    self.work.splits = false;
                    return;
                }
            }
        }
        self.work.splits = true;
    }

    /// The message cannot be read, or one of its objects: it is set aside as it is. The object stays in the bucket.
    fn unreadable(&mut self, detail: String) {
        let why = Unapplied::Poison { reason: Reason::UnreadableMessage, detail };
        let itself = self.itself(why);
        self.parts.push(itself);
    }

    fn itself(&self, why: Unapplied) -> (Unit, apply::Decoded) {
        Unit::unapplied(self.work.message.clone(), None, self.body.clone(), why)
    }
}

/// What Lambda writes to an on-failure destination in S3 (AWS Lambda developer guide, "Capturing discarded batches for Amazon MSK and
/// self-managed Apache Kafka event sources", and the same for Kinesis): `payload` is the whole event, as a string.
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
        serde_json::from_slice(object).map_err(|error| format!("no record of a failed invocation: {error}"))?;
    let condition = &failed.request_context.condition;
    let payload = failed.payload.ok_or_else(|| format!("discarded ({condition}) without its payload"))?;
    Batch::parse(payload.as_bytes())
        .map_err(|error| format!("discarded ({condition}) with a payload that is no batch: {error}"))
}
