//! Unpacking: from the records of a trigger to envelopes.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use lambda::batch::{Batch, Record, Source};
use playback::envelope::{Envelope, Poison, split_delimited};
use playback::outcome::Reason;

/// What has one outcome: a record of Kafka or Kinesis, or one of the envelopes in an SQS message.
#[derive(Debug)]
pub(crate) struct Unit {
    pub(crate) source: Source,
    pub(crate) key: Option<Bytes>,
    /// The original bytes, for the dead-letter queue.
    pub(crate) bytes: Bytes,
    /// Events in it, as far as they can be told.
    pub(crate) events: u64,
}

impl Unit {
    fn new(source: Source, key: Option<Bytes>, bytes: Bytes, content: Content) -> (Self, Content) {
        let events = match &content {
            Ok(envelope) => envelope.events.len() as u64,
            Err(poison) => poison.events,
        };
        (Self { source, key, bytes, events }, content)
    }
}

/// What a unit holds.
pub(crate) type Content = Result<Envelope, Poison>;

/// Unpacks all records; one that cannot be unpacked is a unit all the same.
pub(crate) fn unpack(batch: Batch) -> (Vec<Unit>, Vec<Content>) {
    let mut unpacked = (Vec::with_capacity(batch.records.len()), Vec::with_capacity(batch.records.len()));
    for Record { source, key, value } in batch.records {
        match (value, &source) {
            (Ok(body), Source::Sqs { .. }) => unpacked.extend(unpack_message(&source, body)),
            (Ok(bytes), _) => {
                let content = Envelope::decode(&bytes);
                unpacked.extend([Unit::new(source, key, bytes, content)]);
            }
            (Err(bad), _) => {
                let bytes = Bytes::copy_from_slice(bad.original());
                unpacked.extend([Unit::new(source, key, bytes, Err(not_an_envelope(bad.to_string())))]);
            }
        }
    }
    unpacked
}

/// The body of a message of the queue `inbound`: envelopes, length-delimited, in base64.
fn unpack_message(source: &Source, body: Bytes) -> Vec<(Unit, Content)> {
    let whole = |fault| vec![Unit::new(source.clone(), None, body.clone(), Err(fault))];
    let joined = match BASE64_STANDARD.decode(&body) {
        Ok(joined) => Bytes::from(joined),
        Err(error) => return whole(not_an_envelope(format!("the message is not base64: {error}"))),
    };
    match split_delimited(&joined) {
        Err(fault) => whole(fault),
        Ok(parts) => parts
            .into_iter()
            .map(|part| Unit::new(source.clone(), None, joined.slice_ref(part), Envelope::decode(part)))
            .collect(),
    }
}

fn not_an_envelope(detail: String) -> Poison {
    Poison { reason: Reason::NotAnEnvelope, detail, events: 0 }
}
