//! The messages of the queue `retry`.
//!
//! Sources: Amazon S3 user guide, "Event message structure" (keys are form-encoded), and "Enabling
//! and configuring event notifications" for the message `s3:TestEvent` that S3 sends when
//! notifications are set up.

use apply::Letter;
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use store::{Erase, EraseMessage};

/// A message of the queue `retry`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// A record to apply again.
    Letter(Box<Letter>),
    /// Objects that were created in the failure bucket. There are none in S3's test message, and
    /// when objects were deleted.
    Objects(Vec<Object>),
    /// An erasure to carry out again; `query` has begun it.
    Erase(Erase),
}

/// An object in a bucket.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Object {
    /// The bucket's name.
    pub bucket: String,
    /// The object's key.
    pub key: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Notification {
    event: Option<String>,
    #[serde(default)]
    records: Vec<Change>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Change {
    event_name: String,
    s3: Place,
}

#[derive(Deserialize)]
struct Place {
    bucket: Bucket,
    object: Key,
}

#[derive(Deserialize)]
struct Bucket {
    name: String,
}

#[derive(Deserialize)]
struct Key {
    key: String,
}

impl Message {
    /// Reads a message's body.
    ///
    /// # Errors
    /// What is wrong with it, if it has no known form.
    pub(crate) fn read(body: &[u8]) -> Result<Self, String> {
        if let Ok(EraseMessage { erase }) = serde_json::from_slice(body) {
            return Ok(Self::Erase(erase));
        }
        let no_letter = match serde_json::from_slice::<Letter>(body) {
            Ok(letter) => return Ok(Self::Letter(Box::new(letter))),
            Err(error) => error,
        };
        match serde_json::from_slice::<Notification>(body) {
            Ok(Notification { event: Some(event), .. }) if event == "s3:TestEvent" => Ok(Self::Objects(Vec::new())),
            Ok(Notification { event: None, records }) if !records.is_empty() => {
                let created = records.into_iter().filter(|change| change.event_name.starts_with("ObjectCreated:"));
                created.map(|change| change.s3.object()).collect::<Result<_, _>>().map(Self::Objects)
            }
            Ok(_) => Err(format!("neither a letter ({no_letter}) nor a notification of an object")),
            Err(error) => Err(format!("neither a letter ({no_letter}) nor a notification of S3 ({error})")),
        }
    }
}

impl Place {
    fn object(self) -> Result<Object, String> {
        let encoded = self.object.key.replace('+', " ");
        let key = percent_decode_str(&encoded).decode_utf8().map_err(|_| "the object's key is not UTF-8".to_owned())?;
        Ok(Object { bucket: self.bucket.name, key: key.into_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(body: serde_json::Value) -> Result<Message, String> {
        Message::read(body.to_string().as_bytes())
    }

    fn change(name: &str, key: &str) -> serde_json::Value {
        json!({"eventVersion": "2.1", "eventSource": "aws:s3", "eventName": name,
            "s3": {"s3SchemaVersion": "1.0", "bucket": {"name": "failures", "arn": "arn"}, "object": {"key": key, "size": 7}}})
    }

    #[test]
    fn notification_names_created_objects_by_decoded_keys() {
        let body = json!({"Records": [
            change("ObjectCreated:Put", "aws/lambda/a+b%2B/t-0/2026-09-21T14.13.30-%C3%BC"),
            change("ObjectRemoved:Delete", "gone"),
        ]});
        let object = Object { bucket: "failures".into(), key: "aws/lambda/a b+/t-0/2026-09-21T14.13.30-ü".into() };
        assert_eq!(read(body), Ok(Message::Objects(vec![object])));
    }

    #[test]
    fn s3_test_event_names_no_object() {
        let test = json!({"Service": "Amazon S3", "Event": "s3:TestEvent", "Time": "2026-09-21T14:13:30.000Z",
            "Bucket": "failures", "RequestId": "r", "HostId": "h"});
        assert_eq!(read(test), Ok(Message::Objects(vec![])));
    }

    #[test]
    fn erasures_are_read() {
        let erase = Erase { profile_id: "p".into(), at: 7, title_id: None, session_id: None };
        let body = serde_json::to_value(EraseMessage { erase: erase.clone() }).unwrap();
        assert_eq!(read(body), Ok(Message::Erase(erase)));
    }

    #[test]
    fn other_messages_say_what_is_wrong() {
        for body in [
            json!({}),
            json!({"Records": []}),
            json!({"Records": [{"eventSource": "aws:sqs", "body": "x"}]}),
            json!({"Event": "s3:Else"}),
            json!({"Records": [change("ObjectCreated:Put", "%FF")]}),
            json!({"erase": {"at": 7}}),
            json!(7),
        ] {
            assert!(read(body.clone()).is_err_and(|why| !why.is_empty()), "{body}");
        }
        assert!(Message::read(b"\xff").is_err());
    }
}
