//! What a message of the dead-letter queue is.

use apply::{DeadLetter, Letter, Redrive};
use aws_sdk_sqs::types::{Message, MessageSystemAttributeName};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use lambda::batch::Source;
use playback::envelope::{Envelope, split_delimited};
use playback::outcome::Reason;
use serde::Deserialize;
use serde_json::Value;

/// Reason of what did not come as a [`DeadLetter`]: SQS moved it here, after it was received too often.
pub(super) const RAW: &str = "raw";

/// A message that was received, and what it is.
#[derive(Debug, Clone)]
pub(super) struct Found {
    /// SQS's id of the message.
    pub(super) id: String,
    /// When it was sent first, Unix milliseconds.
    pub(super) sent_at: u64,
    /// The queue from which SQS moved it here, if it did.
    pub(super) moved_from: Option<String>,
    pub(super) body: String,
    pub(super) content: Content,
}

/// What the body of a message is.
#[derive(Debug, Clone)]
pub(super) enum Content {
    /// What our functions put there.
    Dead(Box<DeadLetter>),
    /// A message of the queue `retry`.
    Letter(Box<Letter>),
    /// A message of the queue `retry` too: that S3 has an object with a batch that Lambda gave up.
    Notification,
    /// A message of the queue `inbound`: envelopes.
    Envelopes(Vec<Vec<u8>>),
    /// Something else.
    Unknown,
}

impl Content {
    fn of(body: &str) -> Self {
        if let Ok(dead) = serde_json::from_str(body) {
            return Self::Dead(dead);
        }
        if let Ok(letter) = serde_json::from_str(body) {
            return Self::Letter(letter);
        }
        if is_notification(body) {
            return Self::Notification;
        }
        let Ok(joined) = BASE64_STANDARD.decode(body) else { return Self::Unknown };
        match split_delimited(&joined) {
            // Lengths may fit by chance: one of them at least must be an envelope, if a bad one.
            Ok(parts) if parts.iter().any(|part| is_envelope(part)) => {
                Self::Envelopes(parts.into_iter().map(<[u8]>::to_vec).collect())
            }
            _ => Self::Unknown,
        }
    }
}

fn is_envelope(bytes: &[u8]) -> bool {
    Envelope::decode(bytes).err().is_none_or(|fault| fault.reason != Reason::NotAnEnvelope)
}

/// Whether it is what S3 says of new objects.
fn is_notification(body: &str) -> bool {
    #[derive(Deserialize)]
    struct Notification {
        #[serde(rename = "Records")]
        records: Vec<Value>,
    }
    let parsed: Result<Notification, _> = serde_json::from_str(body);
    parsed.is_ok_and(|it| !it.records.is_empty() && it.records.iter().all(|record| record["eventSource"] == "aws:s3"))
}

impl Found {
    /// Reads a message. One without an id does not exist in SQS.
    pub(super) fn of(message: Message) -> Self {
        let attribute = |name| message.attributes.as_ref().and_then(|all| all.get(&name));
        let sent_at = attribute(MessageSystemAttributeName::SentTimestamp).and_then(|ms| ms.parse().ok());
        let moved_from = attribute(MessageSystemAttributeName::DeadLetterQueueSourceArn).cloned();
        let body = message.body.unwrap_or_default();
        let content = Content::of(&body);
        Self {
            id: message.message_id.unwrap_or_default(),
            sent_at: sent_at.unwrap_or_default(),
            moved_from,
            body,
            content,
        }
    }

    pub(super) fn reason(&self) -> &str {
        match &self.content {
            Content::Dead(dead) => &dead.reason,
            _ => RAW,
        }
    }

    /// When it died, Unix milliseconds. SQS does not say when it moved a message: then, when that was sent.
    pub(super) fn dead_at(&self) -> u64 {
        match &self.content {
            Content::Dead(dead) => dead.dead_at,
            _ => self.sent_at,
        }
    }

    pub(super) fn letter(&self) -> Option<&Letter> {
        match &self.content {
            Content::Dead(dead) => Some(&dead.letter),
            Content::Letter(letter) => Some(letter),
            _ => None,
        }
    }

    /// Topic, queue or stream that the record came from, as far as it is known: a name, or an ARN.
    pub(super) fn origin(&self) -> Option<&str> {
        match self.letter().map(|letter| &letter.source) {
            Some(Source::Kafka { topic, .. }) => Some(topic),
            Some(Source::Sqs { queue, .. }) => Some(queue),
            Some(Source::Kinesis { stream, .. }) => Some(stream),
            None => self.moved_from.as_deref(),
        }
    }

    /// The records in it, as far as they can be told apart.
    pub(super) fn records(&self) -> Vec<Vec<u8>> {
        match &self.content {
            Content::Dead(_) | Content::Letter(_) => {
                self.letter().and_then(|letter| BASE64_STANDARD.decode(&letter.value_base64).ok()).into_iter().collect()
            }
            Content::Envelopes(envelopes) => envelopes.clone(),
            Content::Notification | Content::Unknown => Vec::new(),
        }
    }

    /// Events in it; `None` if that cannot be told.
    pub(super) fn events(&self) -> Option<u64> {
        let of = |record: Vec<u8>| match Envelope::decode(&record) {
            Ok(envelope) => envelope.events.len() as u64,
            Err(fault) => fault.events,
        };
        Some(self.records().into_iter().map(of).sum()).filter(|events| *events > 0)
    }

    /// Whether it was redriven at this time or after, and died again.
    pub(super) fn redriven_since(&self, time: u64) -> bool {
        self.letter().and_then(|letter| letter.redrives.last()).is_some_and(|last| last.redriven_at >= time)
    }

    /// The messages to the queue `retry` that it becomes; none if nobody knows how to apply it.
    pub(super) fn redrive(&self, now: u64) -> serde_json::Result<Vec<String>> {
        match &self.content {
            Content::Dead(dead) => {
                let mut letter = dead.letter.clone();
                letter.redrives.push(Redrive {
                    reason: dead.reason.clone(),
                    attempts: letter.attempts,
                    events: dead.events,
                    dead_at: dead.dead_at,
                    redriven_at: now,
                });
                letter.attempts = 0;
                Ok(vec![serde_json::to_string(&letter)?])
            }
            Content::Letter(_) | Content::Notification => Ok(vec![self.body.clone()]),
            Content::Envelopes(envelopes) => envelopes.iter().map(|envelope| self.letter_of(envelope)).collect(),
            Content::Unknown => Ok(Vec::new()),
        }
    }

    /// The first letter of an envelope that never had one.
    fn letter_of(&self, envelope: &[u8]) -> serde_json::Result<String> {
        let queue = self.moved_from.clone().unwrap_or_default();
        serde_json::to_string(&Letter {
            source: Source::Sqs { queue, message_id: self.id.clone() },
            key_base64: None,
            value_base64: BASE64_STANDARD.encode(envelope),
            attempts: 0,
            first_error: None,
            last_error: None,
            redrives: Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{dead, envelope, found, letter};
    use super::*;
    use playback::envelope::join_delimited;
    use serde_json::json;

    #[test]
    fn a_redriven_letter_begins_anew_and_keeps_its_history() {
        let mut died = dead("corrupt_view", 100);
        died.letter.attempts = 16;
        died.letter.first_error = Some(apply::Failure { cause: "lost_races".into(), detail: "d".into(), at: 9 });
        let first = found(&serde_json::to_string(&died).unwrap());
        assert_eq!((first.reason(), first.dead_at(), first.redriven_since(0)), ("corrupt_view", 100, false));
        let [body] = first.redrive(200).unwrap().try_into().unwrap();
        let again: Letter = serde_json::from_str(&body).unwrap();
        let death = Redrive { reason: "corrupt_view".into(), attempts: 16, events: 1, dead_at: 100, redriven_at: 200 };
        let expect = Letter { attempts: 0, redrives: vec![death.clone()], ..died.letter.clone() };
        assert_eq!(again, expect);
        // It dies once more, and is redriven once more.
        let letter = Letter { attempts: 3, ..again };
        let second =
            DeadLetter { reason: "attempts_exhausted".into(), detail: String::new(), events: 1, dead_at: 300, letter };
        let second = found(&serde_json::to_string(&second).unwrap());
        assert!(second.redriven_since(200) && !second.redriven_since(201));
        let [body] = second.redrive(400).unwrap().try_into().unwrap();
        let again: Letter = serde_json::from_str(&body).unwrap();
        let later =
            Redrive { reason: "attempts_exhausted".into(), attempts: 3, events: 1, dead_at: 300, redriven_at: 400 };
        assert_eq!(again.redrives, [death, later]);
    }

    #[test]
    fn what_sqs_itself_dead_lettered_is_raw_and_goes_back_as_what_retry_reads() {
        let check = |body: &str, events: Option<u64>, expect: &[String]| {
            let found = found(body);
            assert_eq!((found.reason(), found.events()), (RAW, events), "{body}");
            assert_eq!(found.redrive(1).unwrap(), expect, "{body}");
        };
        // From `retry`: as it is.
        let letter = serde_json::to_string(&letter()).unwrap();
        check(&letter, Some(1), std::slice::from_ref(&letter));
        let notification = json!({"Records": [{"eventSource": "aws:s3", "s3": {}}]}).to_string();
        check(&notification, None, std::slice::from_ref(&notification));
        // From `inbound`: a letter for each envelope, also for the bad one among them.
        let body = BASE64_STANDARD.encode(join_delimited([envelope().as_slice(), b"bad", &envelope()]));
        let letters: Vec<Letter> =
            found(&body).redrive(1).unwrap().iter().map(|body| serde_json::from_str(body).unwrap()).collect();
        let values: Vec<_> =
            letters.iter().map(|letter| BASE64_STANDARD.decode(&letter.value_base64).unwrap()).collect();
        assert_eq!(values, [envelope(), b"bad".to_vec(), envelope()]);
        let source = Source::Sqs { queue: "arn:aws:sqs:us-east-1:1:inbound".into(), message_id: "m1".into() };
        assert!(letters.iter().all(|letter| letter.source == source && letter.attempts == 0));
        assert_eq!(found(&body).events(), Some(2));
        // Anything else: not at all.
        for body in
            ["hello", "{}", "", "AAAA", "AQE=", r#"{"Records":[]}"#, r#"{"Records":[{"eventSource":"aws:sqs"}]}"#]
        {
            check(body, None, &[]);
        }
    }
}
