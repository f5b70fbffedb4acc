//! Batches of the stream of the table `views`: changes to publish.

use crate::case::{Case, Expected, Function, Given, Part};
use crate::player::{Session, envelopes, received};
use crate::shape::list;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use playback::fold::fold;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// All of them.
pub(crate) fn cases() -> Vec<Case> {
    let session = Session::example();
    let key = format!("{}#use1#~t000002", &session.id[5..]);
    let (one, two) = (view(&session, 0), view(&session, 1));
    let ulid = &session.id[5..];
    vec![
        case(
            "changes",
            "A new view, and the same view as it goes on: each change with what differs, in order",
            Given::default(),
            [change(1, &key, Value::Null, one.clone()), change(2, &key, one.clone(), two.clone())],
        ),
        case(
            "words-of-the-member",
            "What a member hides, marks, forgets and erases is told; what follows it tells consumers to delete",
            Given::default(),
            [
                change(3, &format!("{ulid}#~hidden"), Value::Null, json!({"hidden": {"BOOL": true}})),
                change(4, "~watched#t000002", Value::Null, watched()),
                change(5, "~forgotten#t000002", Value::Null, json!({"forgotten_at": {"N": "1790000010000"}})),
                change(6, &format!("{ulid}#~forgotten"), Value::Null, json!({"forgotten_at": {"N": "1790000010000"}})),
                change(7, "~erased", Value::Null, json!({"erased_at": {"N": "1790000010100"}})),
                change(8, &key, two.clone(), Value::Null),
                change(9, "~watched#t000002", watched(), Value::Null),
            ],
        ),
        case(
            "poison-among-good",
            "What is no change of ours goes to a queue with its bytes, and the rest goes on",
            Given::default(),
            [
                change(1, "~nobody-knows", Value::Null, json!({})),
                change(2, &key, Value::Null, json!({"view": {"B": "bm8gdmlldw=="}, "version": {"N": "1"}})),
                change(3, &key, Value::Null, one.clone()),
            ],
        ),
        case(
            "feed-away",
            "The feed is away: nothing overtakes, and all is delivered again",
            Given { away: BTreeSet::from([Part::Log]), ..Given::default() },
            [change(1, &key, Value::Null, one.clone()), change(2, &key, one, two)],
        ),
    ]
}

fn case(name: &str, about: &str, given: Given, records: impl IntoIterator<Item = Value>) -> Case {
    let expected = Expected { about: about.to_owned(), function: Function::Publish, given, expect: Value::Null };
    Case { trigger: "dynamodb".to_owned(), name: name.to_owned(), event: list(records), expected }
}

fn watched() -> Value {
    json!({"watched": {"BOOL": true}, "changed_at": {"N": "1790000010000"}})
}

/// The item of the session after its events up to this one.
fn view(session: &Session, to: u64) -> Value {
    let envelopes = envelopes(&received(1_790_000_010_200, session.watched(0, to)));
    let delta = fold(envelopes.into_iter().enumerate()).remove(0);
    json!({
        "version": {"N": (to + 1).to_string()},
        "title_id": {"S": "t000002"},
        "view": {"B": BASE64_STANDARD.encode(delta.view.pack())},
    })
}

/// A record of the stream, as in the AWS Lambda developer guide, "Using AWS Lambda with Amazon DynamoDB".
fn change(number: u64, sk: &str, old: Value, new: Value) -> Value {
    let keys = json!({"pk": {"S": "p00000054"}, "sk": {"S": sk}});
    let name = if old.is_null() {
        "INSERT"
    } else if new.is_null() {
        "REMOVE"
    } else {
        "MODIFY"
    };
    let mut data = json!({
        "ApproximateCreationDateTime": 1_790_000_010,
        "Keys": keys,
        "SequenceNumber": format!("4421584500000000017450{number:04}"),
        "SizeBytes": 120,
        "StreamViewType": "NEW_AND_OLD_IMAGES",
    });
    for (image, item) in [("OldImage", old), ("NewImage", new)] {
        if let Value::Object(attributes) = item {
            let mut all = attributes;
            all.extend(keys.as_object().into_iter().flatten().map(|(name, value)| (name.clone(), value.clone())));
            data[image] = Value::Object(all);
        }
    }
    json!({
        "eventID": format!("c4ca4238a0b923820dcc509a6f75{number:04}"),
        "eventName": name,
        "eventVersion": "1.1",
        "eventSource": "aws:dynamodb",
        "awsRegion": "us-east-1",
        "dynamodb": data,
        "eventSourceARN": "arn:aws:dynamodb:us-east-1:123456789012:table/views/stream/2026-09-21T00:00:00.000",
    })
}
