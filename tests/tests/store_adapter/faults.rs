//! What DynamoDB does on a bad day: leave things unprocessed, throttle, fail. None of it may be
//! mistaken for an answer, and throttling is distinguished from everything else.

use crate::RUNTIME;
use crate::case::{BEGAN, Watched, session};
use crate::fake::{Answer, Call, Fake, TABLE, error, ok};
use axum::http::StatusCode;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use playback::fold::{ViewKey, fold};
use playback::history::Rules;
use playback::outcome::{Cause, Counts};
use serde_json::{Value, json};
use std::time::Duration;
use store::dynamodb::Request;
use store::testing::{settle_in_time, write_one};
use store::{Erase, Erasure, Fault, READ_AT_ONCE, StoreError, ViewTable as _, Write, WriteError};
use tokio::time::Instant;

/// How often the adapter sends one call before it gives up, and how often it asks for unprocessed
/// keys.
const ATTEMPTS: usize = 3;
const ROUNDS: usize = 5;

fn key(number: u64) -> ViewKey {
    ViewKey { profile_id: "p1".to_owned(), session_id: session(number), title_id: "t1".to_owned() }
}

fn key_json(number: u64) -> Value {
    let session = session(number);
    json!({ "pk": { "S": "p1" }, "sk": { "S": format!("{}#{}#~t1", session.ulid, session.home) } })
}

fn item_json(number: u64) -> Value {
    let mut item = key_json(number);
    item["version"] = json!({ "N": "1" });
    item["title_id"] = json!({ "S": "t1" });
    item["view"] = json!({ "B": BASE64_STANDARD.encode(Watched::new(number, "t1").view().pack()) });
    item
}

fn found(items: &[Value], unprocessed: &[Value]) -> Answer {
    let left = if unprocessed.is_empty() { json!({}) } else { json!({ TABLE: { "Keys": unprocessed } }) };
    ok(json!({ "Responses": { TABLE: items }, "UnprocessedKeys": left }))
}

/// The keys that a BatchGetItem asks for.
fn asked(call: &Value) -> Vec<Value> {
    call["RequestItems"][TABLE]["Keys"].as_array().unwrap().clone()
}

fn is_throttled(error: &StoreError) -> bool {
    matches!(error.fault, Fault::Throttled(_))
}

fn is_unavailable(error: &StoreError) -> bool {
    matches!(error.fault, Fault::Unavailable(_))
}

fn failed(result: Result<(), WriteError>) -> StoreError {
    match result {
        Err(WriteError::Failed(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_unprocessed_keys_are_requested_again() {
    RUNTIME.block_on(async {
        let fake = Fake::start(|_, before| match before {
            0 => found(&[item_json(1)], &[key_json(2), key_json(3)]),
            1 => found(&[item_json(3)], &[key_json(2)]),
            _ => found(&[item_json(2)], &[]),
        })
        .await;
        let keys = [key(1), key(2), key(3), key(4)];
        let read: Vec<_> = fake.views.read(&keys).await.into_iter().map(Result::unwrap).collect();
        let there = [true, true, true, false];
        assert_eq!(read.iter().map(Option::is_some).collect::<Vec<_>>(), there);
        assert_eq!(read[1].as_ref().unwrap().view, Watched::new(2, "t1").view());
        let calls: Vec<_> = fake.calls("BatchGetItem").iter().map(asked).collect();
        assert_eq!(calls.len(), 3);
        assert_eq!(calls[1], [key_json(2), key_json(3)]);
        assert_eq!(calls[2], [key_json(2)]);
    });
}

#[test]
fn keys_never_processed_are_throttled_and_others_read() {
    RUNTIME.block_on(async {
        let fake = Fake::start(|_, before| match before {
            0 => found(&[item_json(1)], &[key_json(2)]),
            _ => found(&[], &[key_json(2)]),
        })
        .await;
        let read = fake.views.read(&[key(1), key(2), key(3)]).await;
        assert!(matches!(&read[0], Ok(Some(_))), "{read:?}");
        assert!(matches!(&read[1], Err(error) if is_throttled(error) && error.subject.contains("p1")), "{read:?}");
        assert_eq!(read[2], Ok(None));
        assert_eq!(fake.calls("BatchGetItem").len(), ROUNDS);
    });
}

/// One hot key must not fail the others, which the first round has found.
#[test]
fn failing_round_fails_only_the_keys_left_over() {
    RUNTIME.block_on(async {
        let fake = Fake::start(|_, before| match before {
            0 => found(&[item_json(1)], &[key_json(2)]),
            _ => error(StatusCode::BAD_REQUEST, "ProvisionedThroughputExceededException"),
        })
        .await;
        let read = fake.views.read(&[key(1), key(2), key(3)]).await;
        assert!(matches!(&read[0], Ok(Some(_))), "{read:?}");
        assert!(read[1].as_ref().is_err_and(is_throttled), "{read:?}");
        assert_eq!(read[2], Ok(None));
    });
}

#[test]
fn a_failed_chunk_fails_its_own_keys_only() {
    RUNTIME.block_on(async {
        let second = |call: &Call| asked(&call.body).contains(&key_json(100));
        let fake = Fake::start(move |call, _| match second(call) {
            true => error(StatusCode::BAD_REQUEST, "AccessDeniedException"),
            false => found(&[item_json(99)], &[]),
        })
        .await;
        let keys: Vec<ViewKey> = (0..150).map(key).collect();
        let mut read = Vec::new();
        for keys in keys.chunks(READ_AT_ONCE) {
            read.extend(fake.views.read(keys).await);
        }
        assert_eq!(read.len(), 150);
        assert!(read[..99].iter().all(|one| *one == Ok(None)));
        assert!(matches!(&read[99], Ok(Some(_))));
        assert!(read[100..].iter().all(|one| one.as_ref().is_err_and(is_unavailable)));
    });
}

/// An item that cannot be stored is not the store's outage: it must not wait for its end.
#[test]
fn refused_item_is_told_apart_from_an_outage() {
    RUNTIME.block_on(async {
        let fake = Fake::start(|_, _| error(StatusCode::BAD_REQUEST, "ValidationException")).await;
        let written = failed(write_one(&fake.views, &key(1), &Watched::new(1, "t1").view(), None).await);
        assert_eq!(written.fault.class(), Ok(Cause::StoreRefused), "{written:?}");
        assert!(!Cause::StoreRefused.is_outage());
    });
}

#[test]
fn throttling_is_told_apart_from_other_failures() {
    let bad = StatusCode::BAD_REQUEST;
    let cases: [(StatusCode, &'static str, bool, usize); 7] = [
        (bad, "ProvisionedThroughputExceededException", true, ATTEMPTS),
        (bad, "RequestLimitExceeded", true, ATTEMPTS),
        (bad, "ThrottlingException", true, ATTEMPTS),
        (StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError", false, ATTEMPTS),
        (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", false, ATTEMPTS),
        // Trying again at once does not help these; a later delivery may.
        (bad, "AccessDeniedException", false, 1),
        (bad, "ResourceNotFoundException", false, 1),
    ];
    RUNTIME.block_on(async {
        for (status, code, throttled, attempts) in cases {
            let fake = Fake::start(move |_, _| error(status, code)).await;
            let of_its_kind = |error: &StoreError| {
                is_throttled(error) == throttled
                    && is_unavailable(error) != throttled
                    && error.to_string().contains(code)
            };
            let written = failed(write_one(&fake.views, &key(1), &Watched::new(1, "t1").view(), None).await);
            assert!(of_its_kind(&written) && written.operation == "BatchExecuteStatement", "{code}: {written:?}");
            assert_eq!(fake.calls("BatchExecuteStatement").len(), attempts, "{code}");
            for read in fake.views.read(&[key(1), key(2)]).await {
                let read = read.unwrap_err();
                assert!(of_its_kind(&read) && read.operation == "BatchGetItem", "{code}: {read:?}");
            }
            assert_eq!(fake.calls("BatchGetItem").len(), attempts, "{code}");
        }
    });
}

#[test]
fn members_calls_say_that_they_were_throttled() {
    RUNTIME.block_on(async {
        let fake = Fake::start(|_, _| error(StatusCode::BAD_REQUEST, "ProvisionedThroughputExceededException")).await;
        let views = &fake.views;
        let request = Request { limit: 10, after: None, include_hidden: false };
        let later = Instant::now() + Duration::from_secs(60);
        let errors = [
            ("history", views.history("p1", request).await.err()),
            ("continue watching", views.continue_watching("p1", 10, &Rules::default()).await.err()),
            ("titles", views.titles("p1", &["t1".to_owned()], &Rules::default()).await.err()),
            ("hide", views.set_hidden("p1", &session(1), true, BEGAN).await.err()),
            ("watched", views.set_watched("p1", "t1", true, BEGAN).await.err()),
            ("erase", views.erase(&everything(), later).await.err()),
            ("warm up", views.warm_up().await.err()),
        ];
        for (call, error) in errors {
            assert!(error.as_ref().is_some_and(is_throttled), "{call}: {error:?}");
        }
    });
}

/// A store that accepts the call and never answers. The timeouts are the adapter's.
#[test]
fn hanging_call_ends_as_unavailable() {
    RUNTIME.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let hanging = tokio::spawn(async move {
            let mut held = Vec::new();
            loop {
                held.push(listener.accept().await.unwrap());
            }
        });
        let views = Fake::views_of(&endpoint);
        let begun = Instant::now();
        let error = failed(write_one(&views, &key(1), &Watched::new(1, "t1").view(), None).await);
        assert!(is_unavailable(&error), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(12), "after {:?}", begun.elapsed());
        hanging.abort();
    });
}

/// The write happened, its answer was lost, and the next attempt finds the adapter's own write.
#[test]
fn write_with_a_lost_answer_is_settled_once() {
    RUNTIME.block_on(async {
        let fake = Fake::start(|call, before| match (call.operation.as_str(), before) {
            ("BatchGetItem", _) => found(&[], &[]),
            (_, 0) => error(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError"),
            _ => statements([lost("DuplicateItem", Some(item_json(1)))]),
        })
        .await;
        let (settled, usage) = settle_in_time(&fake.views, fold([(0, Watched::new(1, "t1").envelope("p1"))])).await;
        // Counted once, as a duplicate, because nothing says whose write it found.
        assert_eq!(settled[0].result, Ok(vec![(0, Counts { applied: 0, duplicate: 1 })]));
        assert_eq!((usage.writes, usage.lost_races), (1, 1));
        assert_eq!(fake.calls(STATEMENTS).len(), 2);
    });
}

/// One statement's failure is no other's, and each is answered as the call of its own would have
/// been.
#[test]
fn statements_fail_each_for_itself() {
    RUNTIME.block_on(async {
        let fails = |code: &str| json!({ "Error": { "Code": code, "Message": "the test says so" } });
        let fake = Fake::start(move |call, before| match (call.operation.as_str(), before) {
            // The third lost its race, and its item did not come with the failure: it is read.
            ("BatchGetItem", _) => found(&[item_json(2)], &[]),
            (_, 0) => statements([
                json!({ "TableName": TABLE }),
                lost("ConditionalCheckFailed", Some(item_json(1))),
                lost("DuplicateItem", None),
                fails("ThrottlingError"),
                fails("ProvisionedThroughputExceeded"),
                fails("InternalServerError"),
                fails("ValidationError"),
                fails("ItemCollectionSizeLimitExceeded"),
            ]),
            // Only what may succeed is tried again.
            (_, 1) => {
                statements([json!({ "TableName": TABLE }), fails("RequestLimitExceeded"), fails("TransactionConflict")])
            }
            _ => statements([fails("RequestLimitExceeded"), fails("InternalServerError")]),
        })
        .await;
        let (keys, view) = ((0..8).map(key).collect::<Vec<_>>(), Watched::new(1, "t1").view());
        let writes: Vec<Write<'_>> = keys.iter().map(|key| Write { key, view: &view, expected: Some(1) }).collect();
        let mut results = fake.views.write(&writes).await.into_iter();
        let mut next = || results.next().unwrap();
        assert!(next().is_ok());
        for number in [1, 2] {
            let Err(WriteError::Lost(Some(stored))) = next() else { panic!("a lost race") };
            assert_eq!(stored.view, Watched::new(number, "t1").view());
        }
        assert!(next().is_ok(), "the throttled one that was tried again");
        assert!(is_throttled(&failed(next())));
        assert!(is_unavailable(&failed(next())));
        for _ in 0..2 {
            assert!(matches!(failed(next()).fault, Fault::Refused(_)));
        }
        let sent: Vec<usize> =
            fake.calls(STATEMENTS).iter().map(|call| call["Statements"].as_array().unwrap().len()).collect();
        assert_eq!(sent, [8, 3, 2]);
        let [read] = &fake.calls("BatchGetItem")[..] else { panic!("one item is read") };
        assert_eq!(read["RequestItems"][TABLE]["ConsistentRead"], true);
    });
}

/// What disappeared was erased a moment ago: whatever their number, the marks are read as last
/// written.
#[test]
fn marks_of_views_that_are_gone_are_read_as_last_written() {
    RUNTIME.block_on(async {
        let fake = Fake::start(|call, before| match call.operation.as_str() {
            "BatchGetItem" if asked_marks(&call.body).is_some() => {
                let mark = json!({ "pk": { "S": "p1" }, "sk": { "S": "~erased" },
                    "erased_at": { "N": (BEGAN + 60_000).to_string() } });
                found(&[mark], &[])
            }
            // There at first, and gone when it is read again.
            "BatchGetItem" if before == 0 => found(&[item_json(1), item_json(2)], &[]),
            "BatchGetItem" => found(&[], &[]),
            _ => statements([lost("ConditionalCheckFailed", None), lost("ConditionalCheckFailed", None)]),
        })
        .await;
        let deltas =
            fold([1, 2].map(|number| Watched::new(number, "t1").seq(1).envelope("p1")).into_iter().enumerate());
        let (settled, usage) = settle_in_time(&fake.views, deltas).await;
        for one in settled {
            assert_eq!(one.result.unwrap().iter().map(|(_, counts)| counts.applied).sum::<u64>(), 0);
        }
        assert_eq!((usage.writes, usage.lost_races), (2, 2), "nothing is written of what was erased");
        let consistent = |call: &Value| call["RequestItems"][TABLE]["ConsistentRead"] == true;
        let reads = fake.calls("BatchGetItem");
        assert_eq!(reads.iter().map(consistent).collect::<Vec<_>>(), [false, true, true]);
    });
}

/// A view that the store refuses must not spoil those beside it.
#[test]
fn refused_request_is_repeated_view_by_view() {
    RUNTIME.block_on(async {
        let is_bad = |call: &Call| call.body.to_string().contains(&session(2).ulid.to_string());
        let fake = Fake::start(move |call, _| match is_bad(call) {
            true => error(StatusCode::BAD_REQUEST, "ValidationException"),
            false => statements([json!({ "TableName": TABLE })]),
        })
        .await;
        let (keys, view) = ((1..4).map(key).collect::<Vec<_>>(), Watched::new(1, "t1").view());
        let writes: Vec<Write<'_>> = keys.iter().map(|key| Write { key, view: &view, expected: None }).collect();
        let results = fake.views.write(&writes).await;
        assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
        assert!(matches!(failed(results.into_iter().nth(1).unwrap()).fault, Fault::Refused(_)));
        assert_eq!(fake.calls(STATEMENTS).len(), 4);
    });
}

/// An answer that says nothing of a statement is no answer.
#[test]
fn answer_without_a_statement_is_never_taken_for_success() {
    RUNTIME.block_on(async {
        for answers in [json!({}), json!({ "Responses": [] })] {
            let fake = Fake::start(move |_, _| ok(answers.clone())).await;
            let error = failed(write_one(&fake.views, &key(1), &Watched::new(1, "t1").view(), None).await);
            assert!(is_unavailable(&error), "{error}");
        }
    });
}

/// The operation that writes views.
const STATEMENTS: &str = "BatchExecuteStatement";

fn statements(answers: impl IntoIterator<Item = Value>) -> Answer {
    ok(json!({ "Responses": answers.into_iter().collect::<Vec<_>>() }))
}

/// A statement whose condition failed, with the stored item or without.
fn lost(code: &str, item: Option<Value>) -> Value {
    let mut error = json!({ "Code": code, "Message": "the test says so" });
    if let Some(item) = item {
        error["Item"] = item;
    }
    json!({ "TableName": TABLE, "Error": error })
}

/// An erasure of all that [`item_json`] makes.
fn everything() -> Erase {
    Erase { profile_id: "p1".to_owned(), at: BEGAN + 60_000, title_id: None, session_id: None }
}

/// The deletions that a BatchWriteItem asks for.
fn deletions(call: &Value) -> Vec<Value> {
    call["RequestItems"][TABLE].as_array().unwrap().clone()
}

/// Answers a batch of view keys with nothing, and a batch of marks with `marks`.
async fn nothing_stored(marks: impl Fn(&[Value]) -> Answer + Send + Sync + 'static) -> Fake {
    Fake::start(move |call, _| match call.operation.as_str() {
        "BatchGetItem" => asked_marks(&call.body).map_or_else(|| found(&[], &[]), |keys| marks(&keys)),
        _ => ok(json!({})),
    })
    .await
}

/// The keys that a BatchGetItem asks for, if they are the marks of erasures.
fn asked_marks(call: &Value) -> Option<Vec<Value>> {
    let is_mark = |key: &Value| key["sk"]["S"].as_str().is_some_and(|sk| sk == "~erased" || sk.contains("~forgotten"));
    let keys = asked(call);
    keys.iter().all(is_mark).then_some(keys)
}

/// Whatever happens to the question what was erased, nothing is written as if nothing were.
#[test]
fn marks_that_cannot_be_read_are_never_taken_for_absent() {
    let envelope = || Watched::new(1, "t1").envelope("p1");
    let ulid = session(1).ulid;
    let marks = [
        "~erased".to_owned(),
        "~forgotten#t1".to_owned(),
        format!("{ulid}#~forgotten"),
        format!("{ulid}#~forgotten#t1"),
    ];
    RUNTIME.block_on(async {
        for mark in marks {
            let key = json!({ "pk": { "S": "p1" }, "sk": { "S": mark } });
            let left = key.clone();
            let fake = nothing_stored(move |keys| {
                assert!(keys.contains(&left), "{keys:?}");
                found(&[], std::slice::from_ref(&left))
            })
            .await;
            let (settled, usage) = settle_in_time(&fake.views, fold([(0, envelope())])).await;
            let error = settled[0].result.as_ref().unwrap_err();
            assert_eq!(error.fault.class(), Ok(Cause::StoreThrottled), "{key}: {error}");
            assert_eq!((usage.writes, usage.throttles), (0, 1));
            assert_eq!(fake.calls(STATEMENTS).len(), 0, "{key}");
            assert_eq!(fake.calls("BatchGetItem").len(), 1 + ROUNDS, "{key}");
        }
        let failures = [
            (StatusCode::BAD_REQUEST, "ProvisionedThroughputExceededException", Cause::StoreThrottled),
            (StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError", Cause::StoreUnavailable),
            (StatusCode::BAD_REQUEST, "AccessDeniedException", Cause::StoreUnavailable),
        ];
        for (status, code, cause) in failures {
            let fake = nothing_stored(move |_| error(status, code)).await;
            let (settled, _) = settle_in_time(&fake.views, fold([(0, envelope())])).await;
            let error = settled[0].result.as_ref().unwrap_err();
            assert_eq!(error.fault.class(), Ok(cause), "{code}: {error}");
            assert_eq!(fake.calls(STATEMENTS).len(), 0, "{code}");
        }
        // Left over for one view only: the others are answered.
        let of_two = json!({ "pk": { "S": "p1" }, "sk": { "S": format!("{}#~forgotten", session(2).ulid) } });
        let fake = nothing_stored(move |_| found(&[], std::slice::from_ref(&of_two))).await;
        let answers = fake.views.erasures(&[key(1), key(2), key(3)]).await;
        assert!(answers[1].as_ref().is_err_and(is_throttled), "{answers:?}");
        assert_eq!((&answers[0], &answers[2]), (&Ok(Erasure::default()), &Ok(Erasure::default())));
    });
}

/// The member sets a register again between the erasure's read and its deletion.
#[test]
fn register_that_was_set_again_is_not_deleted() {
    RUNTIME.block_on(async {
        let register = json!({
            "pk": { "S": "p1" }, "sk": { "S": "~watched#t1" },
            "watched": { "BOOL": true }, "changed_at": { "N": BEGAN.to_string() },
        });
        let fake = Fake::start(move |call, _| match call.operation.as_str() {
            "UpdateItem" => ok(json!({})),
            "Query" => ok(json!({ "Items": [register], "Count": 1 })),
            "DeleteItem" => error(StatusCode::BAD_REQUEST, "ConditionalCheckFailedException"),
            other => panic!("{other} is unconditional"),
        })
        .await;
        let later = Instant::now() + Duration::from_secs(60);
        assert!(fake.views.erase(&everything(), later).await.unwrap());
        let [delete] = &fake.calls("DeleteItem")[..] else { panic!("one deletion") };
        assert_eq!(delete["Key"]["sk"]["S"], "~watched#t1");
        assert_eq!(delete["ConditionExpression"], "#clock <= :at");
        assert_eq!(delete["ExpressionAttributeNames"]["#clock"], "changed_at");
        assert_eq!(delete["ExpressionAttributeValues"][":at"]["N"], (BEGAN + 60_000).to_string());
    });
}

/// A profile of 30 sessions whose deletions are answered by `delete`.
async fn erasing(delete: impl Fn(&[Value], usize) -> Answer + Send + Sync + 'static) -> Fake {
    Fake::start(move |call, before| match call.operation.as_str() {
        "UpdateItem" => ok(json!({})),
        "Query" => ok(json!({ "Items": (0..30).rev().map(item_json).collect::<Vec<_>>(), "Count": 30 })),
        "BatchWriteItem" => delete(&deletions(&call.body), before),
        other => panic!("{other} is not part of an erasure"),
    })
    .await
}

#[test]
fn only_unprocessed_deletions_are_repeated() {
    RUNTIME.block_on(async {
        let fake = erasing(|wanted, before| match before {
            0 => ok(json!({ "UnprocessedItems": { TABLE: &wanted[20..] } })),
            _ => ok(json!({ "UnprocessedItems": {} })),
        })
        .await;
        let later = Instant::now() + Duration::from_secs(60);
        assert!(fake.views.erase(&everything(), later).await.unwrap());
        let calls: Vec<_> = fake.calls("BatchWriteItem").iter().map(deletions).collect();
        assert_eq!(calls.iter().map(Vec::len).collect::<Vec<_>>(), [25, 5, 5]);
        assert_eq!(calls[1], calls[0][20..]);
        let deleted: Vec<&Value> = calls[0].iter().chain(&calls[2]).map(|one| &one["DeleteRequest"]["Key"]).collect();
        assert_eq!(deleted, (0..30).rev().map(key_json).collect::<Vec<_>>().iter().collect::<Vec<_>>());
    });
}

#[test]
fn deletions_never_processed_end_at_the_deadline() {
    RUNTIME.block_on(async {
        let fake = erasing(|wanted, _| ok(json!({ "UnprocessedItems": { TABLE: wanted } }))).await;
        let soon = Instant::now() + Duration::from_millis(400);
        assert!(!fake.views.erase(&everything(), soon).await.unwrap());
        assert!(fake.calls("BatchWriteItem").len() > 1, "it was not repeated");
        assert_eq!(fake.calls("UpdateItem").len(), 1, "the mark");
    });
}
