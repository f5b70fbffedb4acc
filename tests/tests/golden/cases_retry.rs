//! Messages of the queue `retry`: letters of records that could not be applied, and notifications
//! of batches that Lambda discarded.

use crate::case::{Case, Expected, Function, Given, NOW, Part};
use crate::player::{BEGAN, GARBAGE, Session, received, record};
use crate::shape::{
    discarded, kafka_record, kinesis_record, list, msk, object_created, retry_message, s3_test, sqs_message,
    waiting_for,
};
use apply::{Failure, Letter, Redrive};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use lambda::batch::Source;
use playback::envelope::join_delimited;
use serde_json::{Value, json};
use store::{Erase, EraseMessage};

/// Where Lambda puts a discarded batch of the topic.
const OBJECT: &str =
    "aws/lambda/0b3c9a52-9a5d-4a4b-8c55-1f0e4f2d6b11/playback-events-0/2026/09/21/2026-09-21T14.13.28-6f1c";

/// How long a letter waits for a store that is away, milliseconds.
const MAX_AGE_MS: u64 = retry::MAX_AGE.as_secs() * 1_000;

/// All of them.
pub(crate) fn cases() -> Vec<Case> {
    [letters(), batches(), erasures(), others()].concat()
}

fn case(name: &str, about: &str, given: Given, messages: impl IntoIterator<Item = Value>) -> Case {
    let expected = Expected { about: about.to_owned(), function: Function::Retry, given, expect: Value::Null };
    Case { trigger: "retry".to_owned(), name: name.to_owned(), event: list(messages), expected }
}

fn sessions() -> (Session, Session) {
    (Session::example(), Session::new(BEGAN, 2).of_title("t000007").on("d00000309", "tv"))
}

/// The letter of a record that the store did not accept a minute ago.
fn letter(offset: i64, session: &Session, value: &[u8]) -> Letter {
    let error = Failure {
        cause: "store_throttled".to_owned(),
        detail: "UpdateItem on views: throttled: ThrottlingException".to_owned(),
        at: NOW - 60_000,
    };
    Letter {
        source: Source::Kafka { topic: "playback-events".to_owned(), partition: 0, offset },
        key_base64: Some(BASE64_STANDARD.encode(&session.id)),
        value_base64: BASE64_STANDARD.encode(value),
        attempts: 1,
        first_error: Some(error.clone()),
        last_error: Some(error),
        redrives: Vec::new(),
    }
}

fn message(number: u32, receives: u32, letter: &Letter) -> Value {
    retry_message(number, receives, &json!(letter))
}

fn redrive(reason: &str, attempts: u32) -> Redrive {
    Redrive { reason: reason.to_owned(), attempts, events: 1, dead_at: NOW - 7_200_000, redriven_at: NOW - 3_600_000 }
}

fn letters() -> Vec<Case> {
    let (first, second) = sessions();
    let good = |offset, seq| letter(offset, &first, &record(first.watched(seq, seq)));
    let refused = letter(16, &second, &record(second.watched(0, 1)));
    let refuses = || Given { refused: vec![second.place()], ..Given::default() };
    let redriven = Letter { attempts: 0, redrives: vec![redrive("attempts_exhausted", 16)], ..refused.clone() };
    let poison = Letter { redrives: vec![redrive("not_an_envelope", 1)], ..letter(17, &second, GARBAGE) };
    let inbound = [record(first.watched(0, 0)), GARBAGE.to_vec(), record(second.watched(0, 0))];
    let inbound = BASE64_STANDARD.encode(join_delimited(inbound.iter().map(Vec::as_slice)));
    let from_queue = Letter {
        source: Source::Sqs {
            queue: "arn:aws:sqs:us-east-1:123456789012:inbound".to_owned(),
            message_id: sqs_message(9, 1, "")["messageId"].as_str().unwrap().to_owned(),
        },
        key_base64: None,
        attempts: 0,
        redrives: vec![redrive("not_an_envelope", 1)],
        ..letter(0, &first, inbound.as_bytes())
    };
    vec![
        case(
            "letters",
            "Three letters of one session: one write, and all are done. One of them was applied before.",
            Given { played: vec![received(NOW, first.watched(0, 0))], ..Given::default() },
            [message(1, 1, &good(15, 0)), message(2, 4, &good(16, 1)), message(3, 1, &good(17, 2))],
        ),
        case(
            "letter-waits",
            "The store still refuses one session: its letter is reported as failed and redelivered after 3 seconds, which is half of 4 plus half of the other half as jitter; the other letter is done.",
            refuses(),
            [message(1, 2, &refused), message(2, 1, &good(15, 0))],
        ),
        case(
            "outage-uses-up-no-attempts",
            "After 50 attempts and a second less than five days the store is still away: the letter waits.",
            refuses(),
            [waiting_for(MAX_AGE_MS - 1_000, message(1, 50, &refused))],
        ),
        case(
            "attempts-exhausted",
            "The store has been away for five days: dead, with its bytes, its attempts, its first and its last error.",
            refuses(),
            [waiting_for(MAX_AGE_MS, message(1, 600, &refused))],
        ),
        case(
            "attempts-exhausted-again",
            "A redriven letter gets as much time again, and keeps its earlier death in its history.",
            refuses(),
            [waiting_for(MAX_AGE_MS, message(1, 600, &redriven))],
        ),
        case(
            "dead-letter-queue-away",
            "An exhausted letter that the dead-letter queue does not accept stays, with the longest pause.",
            Given { away: [Part::DeadLetterQueue].into(), ..refuses() },
            [waiting_for(MAX_AGE_MS, message(1, 600, &refused))],
        ),
        case(
            "poison-letter",
            "A redriven letter that is still not an envelope: dead at once, with its history.",
            Given::default(),
            [message(1, 1, &poison)],
        ),
        case(
            "letter-of-a-whole-message",
            "A redriven message of the queue `inbound` holds several envelopes: one is applied, one is dead, and one that the store refuses is retried as its own letter.",
            refuses(),
            [message(1, 1, &from_queue)],
        ),
    ]
}

fn batches() -> Vec<Case> {
    let (first, second) = sessions();
    let refuses = || Given { refused: vec![second.place()], ..Given::default() };
    let of_topic = |records: Vec<Value>| {
        let range = json!({"firstRecordOffset": "15", "lastRecordOffset": "27", "firstRecordTimestamp": "2026-09-21T14:13:30.2Z",
            "lastRecordTimestamp": "2026-09-21T14:13:30.2Z"});
        let event = msk(records);
        let info = json!({"batchSize": 13, "eventSourceArn": event["eventSourceArn"], "bootstrapServers": event["bootstrapServers"],
            "payloadSize": event.to_string().len(), "recordsInfo": {"playback-events-0": range}});
        discarded(("KafkaBatchInfo", info), &event)
    };
    let kafka =
        |offset, session: &Session, seq| kafka_record(0, offset, &session.id, &record(session.watched(seq, seq)));
    let few = of_topic(vec![
        kafka(15, &first, 0),
        kafka(16, &second, 0),
        kafka_record(0, 17, "k", GARBAGE),
        kafka(18, &first, 1),
    ]);
    let most = of_topic((0..12).map(|seq| kafka(15 + seq, &second, seq)).chain([kafka(27, &first, 0)]).collect());
    let stream = list([kinesis_record(1, &first.id, &record(first.watched(0, 1)))]);
    let info = json!({"shardId": "shardId-000000000006", "startSequenceNumber": stream["Records"][0]["kinesis"]["sequenceNumber"],
        "endSequenceNumber": stream["Records"][0]["kinesis"]["sequenceNumber"], "approximateArrivalOfFirstRecord": "2026-09-21T14:13:30.2Z",
        "approximateArrivalOfLastRecord": "2026-09-21T14:13:30.2Z", "batchSize": 1,
        "streamArn": stream["Records"][0]["eventSourceARN"]});
    let of_stream = discarded(("KinesisBatchInfo", info), &stream);
    let with = |object: &Value, given: Given| Given { objects: [(OBJECT.to_owned(), object.clone())].into(), ..given };
    let notice = |receives| [retry_message(1, receives, &object_created(OBJECT))];
    vec![
        case(
            "failed-batch",
            "A batch of the topic that Lambda discarded: its good records are applied, poison is dead, and the record that the store refuses is retried as a letter; then the object is deleted.",
            with(&few, refuses()),
            notice(1),
        ),
        case(
            "failed-batch-of-a-stream",
            "A batch of a Kinesis stream that Lambda discarded.",
            with(&of_stream, Given::default()),
            notice(1),
        ),
        case(
            "failed-batch-waits",
            "Most of a batch that Lambda discarded still fails, a flood: nothing is diverted, the message is redelivered and the object stays.",
            with(&most, refuses()),
            notice(3),
        ),
        case(
            "failed-batch-exhausted",
            "After five days each record that cannot be applied is dead.",
            with(&few, refuses()),
            notice(600).map(|message| waiting_for(MAX_AGE_MS, message)),
        ),
        case(
            "failed-batch-retry-queue-away",
            "A record of the batch is on no queue: the message is redelivered and the object stays. Poison is not dead-lettered, since it would be dead again each time.",
            with(&few, Given { away: [Part::RetryQueue].into(), ..refuses() }),
            notice(1),
        ),
        case("object-gone", "The object does not exist: the batch was applied before.", Given::default(), notice(2)),
        case(
            "bucket-away",
            "The object is unavailable: the message is redelivered.",
            with(&few, Given { away: [Part::FailureBucket].into(), ..Given::default() }),
            notice(1),
        ),
        case(
            "object-unreadable",
            "The object has an unknown format: the notification is dead-lettered, and the object stays.",
            with(&json!({"hello": "world"}), Given::default()),
            notice(1),
        ),
    ]
}

/// A member's erasure, which `query` hands over.
fn erasures() -> Vec<Case> {
    let (first, second) = sessions();
    let other = Session::new(BEGAN, 3).of_profile("p00000055");
    let played = [first.watched(0, 1), second.watched(0, 1), other.watched(0, 1)].map(|of| received(NOW - 2_000, of));
    let given = || Given { played: played.to_vec(), ..Given::default() };
    let erase = Erase { profile_id: first.profile.clone(), at: NOW - 1_000, title_id: None, session_id: None };
    let body = json!(EraseMessage { erase: erase.clone() });
    let late = letter(15, &first, &record(first.watched(2, 2)));
    let erased = || Given { erased_at: [(erase.profile_id.clone(), erase.at)].into(), ..Given::default() };
    vec![
        case(
            "erase",
            "A member erased everything, and the items that were left are deleted; another profile's stay.",
            given(),
            [retry_message(1, 1, &body)],
        ),
        case(
            "erase-without-a-profile",
            "An erasure that does not say whose history: dead, and nothing is erased.",
            given(),
            [retry_message(1, 1, &json!({"erase": {"at": NOW}}))],
        ),
        case(
            "letter-of-an-erased-session",
            "A letter of a session that the member has erased meanwhile: done, and nothing is written.",
            erased(),
            [message(1, 2, &late)],
        ),
    ]
}

fn others() -> Vec<Case> {
    vec![
        case(
            "s3-test",
            "What S3 sends when notifications are set up: nothing to do.",
            Given::default(),
            [retry_message(1, 1, &s3_test())],
        ),
        case(
            "unreadable",
            "A message that is neither a letter nor a notification: dead, unchanged.",
            Given::default(),
            [retry_message(1, 1, &json!({"to": "whom it may concern"}))],
        ),
    ]
}
