//! Batches for `process`: of the topic (MSK), of the queue `inbound` (SQS), of the standby stream
//! (Kinesis).

use crate::case::{Case, Expected, Function, Given, NOW, Part};
use crate::player::{BEGAN, GARBAGE, Session, altered_record, received, record, record_at};
use crate::shape::{kafka_record, kinesis_record, list, msk, sqs_message, with_attribute};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use playback::envelope::{SCHEMA_VERSION, join_delimited};
use serde_json::{Value, json};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// All of them.
pub(crate) fn cases() -> Vec<Case> {
    [msk_applied(), msk_poison(), msk_failed(), sqs(), kinesis()].concat()
}

fn case(trigger: &str, name: &str, about: &str, given: Given, event: Value) -> Case {
    let expected = Expected { about: about.to_owned(), function: Function::Process, given, expect: Value::Null };
    Case { trigger: trigger.to_owned(), name: name.to_owned(), event, expected }
}

/// Two sessions of one profile, and one of another.
fn sessions() -> (Session, Session, Session) {
    let second = Session::new(BEGAN, 2).of_title("t000007").on("d00000309", "tv");
    let third = Session::new(BEGAN, 3).of_profile("p00000055").of_title("t000003");
    (Session::example(), second, third)
}

/// A record of the topic with these events.
fn kafka(partition: u32, offset: u64, session: &Session, events: Vec<Value>) -> Value {
    kafka_record(partition, offset, &session.id, &record(events))
}

fn nothing() -> Given {
    Given::default()
}

fn msk_applied() -> Vec<Case> {
    let (first, second, third) = sessions();
    let before = Given { played: vec![received(NOW - 5_000, first.watched(0, 2))], ..nothing() };
    let mut with_header = kafka(1, 41, &second, second.watched(1, 1));
    with_header["headers"] = json!([{"headerKey": b"headerValue"}]);
    let again = before.clone();
    let next = first.clone().of_title("t000003");
    let after = Session::new(BEGAN + 200, 4);
    let mut live =
        vec![first.event(0, "started", 1_789_999_990_000, 0), first.event(1, "stopped", 1_790_000_000_000, 10_000)];
    for event in &mut live {
        event["title_duration_ms"] = Value::Null;
    }
    let seek = [first.event(3, "seeked", 5_000, 0), first.event(4, "progressed", 25_000, 20_000)];
    vec![
        case(
            "msk",
            "one-record",
            "One envelope of two events: one view.",
            nothing(),
            msk([kafka(0, 15, &first, first.watched(0, 1))]),
        ),
        case(
            "msk",
            "mixed-partitions",
            "Records of three partitions, two sessions on one of them and one session on two: one write per session.",
            nothing(),
            msk([
                kafka(0, 15, &first, first.watched(0, 1)),
                kafka(0, 16, &second, second.watched(0, 0)),
                kafka(0, 17, &first, first.watched(2, 2)),
                with_header,
                kafka(7, 3, &third, third.watched(0, 3)),
            ]),
        ),
        case(
            "msk",
            "duplicates",
            "A record twice and one that overlaps it, all overlapping what is folded already: each event counts once.",
            before.clone(),
            msk([
                kafka(0, 15, &first, first.watched(1, 3)),
                kafka(0, 16, &first, first.watched(1, 3)),
                kafka(1, 41, &first, first.watched(3, 4)),
            ]),
        ),
        case(
            "msk",
            "nothing-new",
            "A record that is folded already: all duplicates, and no write. `received_at` is the original one, because the bytes are the same.",
            before,
            msk([kafka_record(0, 14, &first.id, &record_at(NOW - 5_000, first.watched(0, 2)))]),
        ),
        case(
            "msk",
            "any-order",
            "The end before the beginning, a hole and a seek back: `latest` comes from the greatest seq, `first` from the lowest, and what was played twice counts once.",
            nothing(),
            msk([
                kafka_record(0, 15, &first.id, &record_at(NOW, seek.to_vec())),
                kafka_record(0, 16, &first.id, &record_at(NOW + 30_000, vec![first.event(0, "started", 0, 0)])),
                kafka_record(
                    1,
                    41,
                    &first.id,
                    &record_at(NOW - 20_000, vec![first.event(1, "progressed", 10_000, 10_000)]),
                ),
            ]),
        ),
        case(
            "msk",
            "one-session-of-two-profiles",
            "The same session id in another profile: two views, because a view belongs to a profile.",
            nothing(),
            msk([
                kafka(0, 15, &first, first.watched(0, 1)),
                kafka(0, 16, &first, first.clone().of_profile("p00000055").watched(0, 0)),
            ]),
        ),
        case(
            "msk",
            "two-titles-of-a-session",
            "A session goes on with another title: a view for each title. The session has ended and its numbers are complete over both titles, so no hole is opened.",
            nothing(),
            msk([
                kafka(0, 15, &first, first.watched(0, 2)),
                kafka(0, 16, &first, vec![next.event(3, "started", 0, 0), next.event(4, "stopped", 9_000, 9_000)]),
            ]),
        ),
        case(
            "msk",
            "received-again-later",
            "The same events in a request a day later, as a device sends them whose answer was lost: the first receipt counts, and nothing is written.",
            Given { now: NOW + DAY_MS, ..again },
            msk([kafka_record(0, 15, &first.id, &record_at(NOW + DAY_MS, first.watched(0, 2)))]),
        ),
        case(
            "msk",
            "of-an-erased-session",
            "A late event of a session that began before the member erased the history, and one of a session after that: only the second is stored.",
            Given { erased_at: [(first.profile.clone(), BEGAN + 100)].into(), ..nothing() },
            msk([kafka(0, 15, &first, first.watched(3, 3)), kafka(0, 16, &after, after.watched(0, 0))]),
        ),
        case(
            "msk",
            "position-past-the-end",
            "A position past the title's stated end is kept, and means the end: the title is finished.",
            nothing(),
            msk([kafka(0, 15, &first, vec![first.event(0, "stopped", 2_700_009, 10_000)])]),
        ),
        case(
            "msk",
            "live",
            "A live stream: positions without a duration, and never finished.",
            nothing(),
            msk([kafka(0, 15, &first, live)]),
        ),
        case("msk", "no-records", "A batch without records: nothing to do.", nothing(), msk([])),
    ]
}

fn msk_poison() -> Vec<Case> {
    let (first, second, _) = sessions();
    let good = |offset, seq| kafka(0, offset, &first, first.watched(seq, seq));
    let version = altered_record(second.watched(0, 2), |envelope| envelope.schema_version = SCHEMA_VERSION + 1);
    let beyond = altered_record(second.watched(0, 2), |envelope| envelope.events[1].seq = 65_536);
    let (mut null, mut absent) = (kafka_record(0, 16, &second.id, b""), kafka_record(0, 17, &second.id, b""));
    null["value"] = Value::Null;
    absent.as_object_mut().unwrap().remove("value");
    let mut without_key = good(18, 2);
    without_key["key"] = Value::Null;
    let mut not_base64 = good(16, 1);
    not_base64["value"] = json!("not base64!");
    vec![
        case(
            "msk",
            "poison-among-good",
            "Bytes that are not an envelope, and an empty value, between good records: the good ones are folded, the others are dead-lettered with their bytes, and the partition goes on.",
            nothing(),
            msk([good(15, 0), kafka_record(0, 16, "k", GARBAGE), kafka_record(0, 17, "k", b""), good(18, 1)]),
        ),
        case(
            "msk",
            "tombstone",
            "Records without a value, null or absent, as in a compacted topic: dead, with empty bytes. A record without a key is folded.",
            nothing(),
            msk([good(15, 0), null, absent, without_key]),
        ),
        case(
            "msk",
            "not-base64",
            "A value that Lambda never sends: dead, with its text.",
            nothing(),
            msk([good(15, 0), not_base64]),
        ),
        case(
            "msk",
            "unknown-schema-version",
            "An envelope of schema version 2: dead, not guessed at, and its three events are counted.",
            nothing(),
            msk([good(15, 0), kafka_record(0, 16, &second.id, &version)]),
        ),
        case(
            "msk",
            "invalid-envelope",
            "An envelope with a sequence number beyond 65,535, as another producer might write: dead as a whole.",
            nothing(),
            msk([good(15, 0), kafka_record(0, 16, &second.id, &beyond)]),
        ),
        case(
            "msk",
            "corrupt-view",
            "The stored view of one session is unreadable: its records are dead and can be redriven, the other session's are folded.",
            Given { corrupt: vec![second.place()], ..nothing() },
            msk([
                good(15, 0),
                kafka(0, 16, &second, second.watched(0, 1)),
                kafka(0, 17, &second, second.watched(2, 2)),
            ]),
        ),
    ]
}

fn msk_failed() -> Vec<Case> {
    let (first, second, _) = sessions();
    let refused = Given { refused: vec![second.place()], ..nothing() };
    let mixed = || {
        msk([
            kafka(0, 15, &first, first.watched(0, 1)),
            kafka(0, 16, &second, second.watched(0, 0)),
            kafka(1, 41, &second, second.watched(1, 1)),
        ])
    };
    let mut mislabelled = msk([kafka(0, 15, &first, first.watched(0, 1))]);
    let records = mislabelled["records"].as_object_mut().unwrap();
    let partition = records.remove("playback-events-0").unwrap();
    records.insert("playback-events-1".to_owned(), partition);
    vec![
        case(
            "msk",
            "store-refuses-one-session",
            "The store fails for one session: its two records are retried, with their bytes and the cause, and the other is folded.",
            refused.clone(),
            mixed(),
        ),
        case(
            "msk",
            "retry-queue-away",
            "The store fails for one session, and the queue `retry` is unreachable: its two records are reported as failed, by partition and offset.",
            Given { away: [Part::RetryQueue].into(), ..refused.clone() },
            mixed(),
        ),
        case(
            "msk",
            "most-of-a-batch-fails",
            "The store fails for eleven of twelve records, a flood: they are reported as failed instead of retried, and lag grows; the twelfth is folded.",
            refused,
            msk((0..11).map(|seq| kafka(0, 15 + seq, &second, second.watched(seq, seq))).chain([kafka(
                1,
                41,
                &first,
                first.watched(0, 1),
            )])),
        ),
        case(
            "msk",
            "dead-letter-queue-away",
            "Poison that the dead-letter queue did not accept is not dead: it is redelivered.",
            Given { away: [Part::DeadLetterQueue].into(), ..nothing() },
            msk([kafka_record(0, 15, "k", GARBAGE), kafka(0, 16, &first, first.watched(0, 1))]),
        ),
        case(
            "msk",
            "mislabelled-partition",
            "An answer could not name records under a partition label that is not theirs: the invocation fails, and nothing is acknowledged.",
            nothing(),
            mislabelled,
        ),
    ]
}

/// A body of the queue `inbound`: envelopes, length-delimited, in base64.
fn body(envelopes: &[Vec<u8>]) -> String {
    BASE64_STANDARD.encode(join_delimited(envelopes.iter().map(Vec::as_slice)))
}

fn sqs() -> Vec<Case> {
    let (first, second, third) = sessions();
    let good = body(&[record(first.watched(0, 1))]);
    let many = body(&[record(first.watched(0, 1)), record(second.watched(0, 0)), record(first.watched(2, 2))]);
    let version = altered_record(second.watched(0, 2), |envelope| envelope.schema_version = SCHEMA_VERSION + 1);
    let mixed = body(&[record(first.watched(0, 1)), GARBAGE.to_vec(), version, record(third.watched(0, 0))]);
    let mut cut = join_delimited([record(first.watched(0, 1)).as_slice(), record(second.watched(0, 0)).as_slice()]);
    cut.truncate(cut.len() - 1);
    let refused = || Given { refused: vec![second.place()], ..nothing() };
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let attributed = with_attribute(sqs_message(2, 1, &body(&[record(third.watched(0, 3))])), "traceparent", trace);
    vec![
        case(
            "sqs",
            "several-envelopes",
            "A message of three envelopes of two sessions, and one of one envelope with a message attribute: one write per session.",
            nothing(),
            list([sqs_message(1, 1, &many), attributed]),
        ),
        case(
            "sqs",
            "bad-base64",
            "A message that is not base64, and one that ends in the middle of an envelope: dead as a whole, with their bodies; the good one is folded.",
            nothing(),
            list([
                sqs_message(1, 1, "not base64!"),
                sqs_message(2, 1, &BASE64_STANDARD.encode(&cut)),
                sqs_message(3, 1, &good),
            ]),
        ),
        case(
            "sqs",
            "poison-among-good",
            "A message with two bad envelopes between good ones: these two are dead, each with its bytes, and the message is done.",
            nothing(),
            list([sqs_message(1, 1, &mixed)]),
        ),
        case(
            "sqs",
            "redelivery",
            "A message for the third time, because its answer was lost: all duplicates, no write.",
            Given { played: vec![received(NOW, first.watched(0, 1))], ..nothing() },
            list([sqs_message(1, 3, &good)]),
        ),
        case(
            "sqs",
            "store-refuses-one-session",
            "The store fails for one session: its envelopes are retried, one letter each, and the messages are done.",
            refused(),
            list([
                sqs_message(1, 1, &many),
                sqs_message(2, 1, &body(&[record(second.watched(1, 1))])),
                sqs_message(3, 1, &body(&[record(third.watched(0, 0))])),
            ]),
        ),
        case(
            "sqs",
            "no-records",
            "An event without records does not say what sent it: the invocation fails.",
            nothing(),
            list([]),
        ),
    ]
}

fn kinesis() -> Vec<Case> {
    let (first, second, _) = sessions();
    let put = |number, session: &Session, events| kinesis_record(number, &session.id, &record(events));
    let version = altered_record(second.watched(0, 2), |envelope| envelope.schema_version = SCHEMA_VERSION + 1);
    vec![
        case(
            "kinesis",
            "two-sessions",
            "Three records of two sessions from the standby stream: one write per session.",
            nothing(),
            list([
                put(1, &first, first.watched(0, 1)),
                put(2, &second, second.watched(0, 0)),
                put(3, &first, first.watched(2, 2)),
            ]),
        ),
        case(
            "kinesis",
            "also-on-the-primary",
            "During failover, events arrived through Kafka too: duplicates, and one that is new.",
            Given { played: vec![received(NOW, first.watched(0, 1))], ..nothing() },
            list([put(1, &first, first.watched(0, 2))]),
        ),
        case(
            "kinesis",
            "poison-among-good",
            "Bytes that are not an envelope, and an envelope of schema version 2: dead, and the shard goes on.",
            nothing(),
            list([
                put(1, &first, first.watched(0, 0)),
                kinesis_record(2, "k", GARBAGE),
                kinesis_record(3, &second.id, &version),
                put(4, &first, first.watched(1, 1)),
            ]),
        ),
        case(
            "kinesis",
            "store-refuses-one-session",
            "The store fails for one session, and the queue `retry` is unreachable: its records are reported by sequence number, and Lambda resumes at the lowest.",
            Given { refused: vec![second.place()], away: [Part::RetryQueue].into(), ..nothing() },
            list([
                put(1, &first, first.watched(0, 0)),
                put(2, &second, second.watched(0, 0)),
                put(3, &first, first.watched(1, 1)),
                put(4, &second, second.watched(1, 1)),
            ]),
        ),
    ]
}
