//! The messages of the dead-letter queue.

use apply::{DeadLetter, Letter, Redrive};
use aws_sdk_sqs::types::{Message, MessageSystemAttributeName};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use lambda::batch::Source;
use playback::envelope::{Envelope, split_delimited};
use playback::outcome::Reason;
use serde::Deserialize;
use serde_json::Value;

/// Reason of a message that is not a [`DeadLetter`]: SQS moved it here after too many receives.
pub(super) const RAW: &str = "raw";

/// A received message, and what it contains.
#[derive(Debug, Clone)]
pub(super) struct Found {
    /// The message's id in SQS.
    pub(super) id: String,
    /// When it was first sent, Unix milliseconds.
    pub(super) sent_at: u64,
    /// The queue that SQS moved it from, if it did.
    pub(super) moved_from: Option<String>,
    pub(super) body: String,
    pub(super) content: LetterBody,
}

/// The body of a message.
#[derive(Debug, Clone)]
pub(super) enum LetterBody {
    /// A dead letter from one of our functions.
    Dead(Box<DeadLetter>),
    /// A message of the queue `retry`.
    Letter(Box<Letter>),
    /// Also a message of the queue `retry`: S3's notification of an object with a batch that Lambda
    /// gave up on.
    Notification,
    /// A message of the queue `inbound`: envelopes.
    Envelopes(Vec<Vec<u8>>),
    /// Anything else.
    Unknown,
}

impl LetterBody {
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
            // The lengths may fit by chance. So at least one part must be an envelope, even if an
            // invalid one.
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

/// Whether it is S3's notification of new objects.
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
    /// Reads a message. Every SQS message has an id.
    pub(super) fn of(message: Message) -> Self {
        let attribute = |name| message.attributes.as_ref().and_then(|all| all.get(&name));
        let sent_at = attribute(MessageSystemAttributeName::SentTimestamp).and_then(|ms| ms.parse().ok());
        let moved_from = attribute(MessageSystemAttributeName::DeadLetterQueueSourceArn).cloned();
        let body = message.body.unwrap_or_default();
        let content = LetterBody::of(&body);
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
            LetterBody::Dead(dead) => &dead.reason,
            _ => RAW,
        }
    }

    /// When it died, Unix milliseconds. For a message that SQS moved, when it was sent: SQS does
    /// not say when it moved it.
    pub(super) fn dead_at(&self) -> u64 {
        match &self.content {
            LetterBody::Dead(dead) => dead.dead_at,
            _ => self.sent_at,
        }
    }

    pub(super) fn letter(&self) -> Option<&Letter> {
        match &self.content {
            LetterBody::Dead(dead) => Some(&dead.letter),
            LetterBody::Letter(letter) => Some(letter),
            _ => None,
        }
    }

    /// Topic, queue or stream that the record came from (a name or an ARN), if known.
    pub(super) fn origin(&self) -> Option<&str> {
        match self.letter().map(|letter| &letter.source) {
            Some(Source::Kafka { topic, .. }) => Some(topic),
            Some(Source::Sqs { queue, .. }) => Some(queue),
            Some(Source::Kinesis { stream, .. } | Source::Table { stream, .. }) => Some(stream),
            None => self.moved_from.as_deref(),
        }
    }

    /// The records in it, if they can be decoded.
    pub(super) fn records(&self) -> Vec<Vec<u8>> {
        match &self.content {
            LetterBody::Dead(_) | LetterBody::Letter(_) => {
                self.letter().and_then(|letter| BASE64_STANDARD.decode(&letter.value_base64).ok()).into_iter().collect()
            }
            LetterBody::Envelopes(envelopes) => envelopes.clone(),
            LetterBody::Notification | LetterBody::Unknown => Vec::new(),
        }
    }

    /// The number of events in it, if known.
    pub(super) fn events(&self) -> Option<u64> {
        let of = |record: Vec<u8>| match Envelope::decode(&record) {
            Ok(envelope) => envelope.events.len() as u64,
            Err(fault) => fault.events,
        };
        Some(self.records().into_iter().map(of).sum()).filter(|events| *events > 0)
    }

    /// Whether it was redriven at this time or later, and died again.
    pub(super) fn redriven_since(&self, time: u64) -> bool {
        self.letter().and_then(|letter| letter.redrives.last()).is_some_and(|last| last.redriven_at >= time)
    }

    /// The messages that it becomes on the queue `retry`. Empty if `retry` cannot apply it.
    pub(super) fn redrive(&self, now: u64) -> serde_json::Result<Vec<String>> {
        match &self.content {
            LetterBody::Dead(dead) => {
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
            LetterBody::Letter(_) | LetterBody::Notification => Ok(vec![self.body.clone()]),
            LetterBody::Envelopes(envelopes) => envelopes.iter().map(|envelope| self.letter_of(envelope)).collect(),
            LetterBody::Unknown => Ok(Vec::new()),
        }
    }

    /// A new letter for an envelope of a message of `inbound`.
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
    fn redriven_letter_starts_over_and_keeps_its_history() {
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
        // It dies and is redriven a second time.
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
    fn message_moved_by_sqs_is_raw_and_redriven_as_retry_reads_it() {
        let check = |body: &str, events: Option<u64>, expect: &[String]| {
            let found = found(body);
            assert_eq!((found.reason(), found.events()), (RAW, events), "{body}");
            assert_eq!(found.redrive(1).unwrap(), expect, "{body}");
        };
        // From `retry`: unchanged.
        let letter = serde_json::to_string(&letter()).unwrap();
        check(&letter, Some(1), std::slice::from_ref(&letter));
        let notification = json!({"Records": [{"eventSource": "aws:s3", "s3": {}}]}).to_string();
        check(&notification, None, std::slice::from_ref(&notification));
        // From `inbound`: one letter per envelope, even for the bad one.
        let body = BASE64_STANDARD.encode(join_delimited([envelope().as_slice(), b"bad", &envelope()]));
        let letters: Vec<Letter> =
            found(&body).redrive(1).unwrap().iter().map(|body| serde_json::from_str(body).unwrap()).collect();
        let values: Vec<_> =
            letters.iter().map(|letter| BASE64_STANDARD.decode(&letter.value_base64).unwrap()).collect();
        assert_eq!(values, [envelope(), b"bad".to_vec(), envelope()]);
        let source = Source::Sqs { queue: "arn:aws:sqs:us-east-1:1:inbound".into(), message_id: "m1".into() };
        assert!(letters.iter().all(|letter| letter.source == source && letter.attempts == 0));
        assert_eq!(found(&body).events(), Some(2));
        // Anything else: nothing.
        for body in
            ["hello", "{}", "", "AAAA", "AQE=", r#"{"Records":[]}"#, r#"{"Records":[{"eventSource":"aws:sqs"}]}"#]
        {
            check(body, None, &[]);
        }
    }
}
