//! Property tests of requests, tests of answers entry by entry, and the adapter against a small
//! fake Kinesis on loopback.

use super::*;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use aws_sdk_kinesis::config::{BehaviorVersion, Credentials, Region, SharedCredentialsProvider};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

fn record(key: &str) -> LogRecord {
    LogRecord::new(key, Bytes::from_static(b"v"))
}

fn records(keys: &[&str]) -> Vec<LogRecord> {
    keys.iter().map(|key| record(key)).collect()
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    let size = prop_oneof![
        6 => 0..2_000usize,
        2 => 500_000..MAX_RECORD_BYTES,
        1 => (MAX_RECORD_BYTES - 3)..=MAX_RECORD_BYTES,
    ];
    let few = prop::collection::vec(size, 0..60);
    let many = prop::collection::vec(0..10usize, 900..1_100);
    prop_oneof![9 => few, 1 => many]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn requests_are_full_ordered_and_within_limits(sizes in sizes()) {
        let bytes = Bytes::from(vec![0; MAX_RECORD_BYTES]);
        let of = |&size: &usize| LogRecord::new("k", bytes.slice(..size));
        let records: Vec<LogRecord> = sizes.iter().map(of).collect();
        let plan = plan("s", &records);
        let fits = |index: &usize| sizes[*index] < MAX_RECORD_BYTES;
        let (expected, refused): (Vec<usize>, Vec<usize>) = (0..sizes.len()).partition(fits);
        prop_assert_eq!(plan.requests.concat(), expected);
        prop_assert_eq!(plan.refused.iter().map(|(index, _)| *index).collect::<Vec<_>>(), refused);
        prop_assert!(plan.refused.iter().all(|(_, result)| matches!(result, Err(AppendError::TooLarge(_)))));
        let total = |request: &[usize]| request.iter().map(|&index| sizes[index] + 1).sum::<usize>();
        for request in &plan.requests {
            prop_assert!((1..=MAX_REQUEST_RECORDS).contains(&request.len()) && total(request) <= MAX_REQUEST_BYTES);
        }
        for pair in plan.requests.windows(2) {
            let is_full = pair[0].len() == MAX_REQUEST_RECORDS;
            prop_assert!(is_full || total(&pair[0]) + sizes[pair[1][0]] + 1 > MAX_REQUEST_BYTES);
        }
    }
}

fn done() -> PutRecordsResultEntry {
    PutRecordsResultEntry::builder().shard_id("shardId-0").sequence_number("1").build()
}

fn failed(code: &str) -> PutRecordsResultEntry {
    PutRecordsResultEntry::builder().error_code(code).error_message("so").build()
}

#[test]
fn only_a_sequence_number_without_error_acknowledges() {
    let both = PutRecordsResultEntry::builder().sequence_number("1").error_code("InternalFailure").build();
    let neither = PutRecordsResultEntry::builder().shard_id("shardId-0").build();
    let entries = [done(), failed("ProvisionedThroughputExceededException"), failed("InternalFailure"), both, neither];
    let answer = PutRecordsOutput::builder().set_records(Some(entries.to_vec())).build().unwrap();
    let records = records(&["a", "b", "c", "d", "e"]);
    let words: Vec<_> = settle("s", records.iter(), &answer)
        .into_iter()
        .map(|result| result.map_or_else(|error| (error.reason(), error.attempt().copies), |()| ("ok", 1)))
        .collect();
    assert_eq!(words, [("ok", 1), ("throttled", 0), ("unavailable", 1), ("unavailable", 1), ("unavailable", 1)]);
}

#[test]
fn an_answer_of_another_length_acknowledges_nothing() {
    let records = records(&["a", "b"]);
    for answered in [0, 1, 3] {
        let answer = PutRecordsOutput::builder().set_records(Some(vec![done(); answered])).build().unwrap();
        let results = settle("s", records.iter(), &answer);
        assert_eq!(results.len(), 2);
        for result in results {
            assert!(matches!(result, Err(AppendError::Unavailable(_))), "{answered}: {result:?}");
        }
    }
}

/// A log at `address` with a short backoff.
fn log_at(address: std::net::SocketAddr) -> KinesisLog {
    let sdk = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(SharedCredentialsProvider::new(Credentials::new("AKID", "secret", None, None, "test")))
        .endpoint_url(format!("http://{address}"))
        .build();
    let backoff = Duration::from_millis(10);
    KinesisLog::new(KinesisConfig { backoff, ..KinesisConfig::new("events") }, &sdk)
}

type Calls = Arc<Mutex<Vec<Vec<String>>>>;

/// A fake Kinesis that answers each call with `answer` of its number and keys. It records the keys
/// of each call.
async fn small_kinesis(
    answer: impl Fn(usize, &[String]) -> Response + Clone + Send + Sync + 'static,
) -> (KinesisLog, Calls) {
    let calls = Calls::default();
    let seen = Arc::clone(&calls);
    let serve = move |body: String| {
        let request: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(request["StreamName"], "events");
        let of = |entry: &Value| entry["PartitionKey"].as_str().unwrap().to_owned();
        let keys: Vec<String> = request["Records"].as_array().unwrap().iter().map(of).collect();
        let mut seen = seen.lock().unwrap();
        seen.push(keys.clone());
        let response = answer(seen.len(), &keys);
        async move { response }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = axum::Router::new().fallback(serve).layer(axum::extract::DefaultBodyLimit::disable());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (log_at(address), calls)
}

/// An answer with these error codes by key.
fn entries(keys: &[String], code: impl Fn(&str) -> Option<&'static str>) -> Response {
    let entry = |key: &String| match code(key) {
        None => json!({"SequenceNumber": "1", "ShardId": "shardId-0"}),
        Some(code) => json!({"ErrorCode": code, "ErrorMessage": "so"}),
    };
    let failed = keys.iter().filter(|key| code(key).is_some()).count();
    let entries: Vec<Value> = keys.iter().map(entry).collect();
    json!({"FailedRecordCount": failed, "Records": entries}).to_string().into_response()
}

fn refusal(status: StatusCode, code: &str) -> Response {
    (status, json!({"__type": code, "message": "so"}).to_string()).into_response()
}

const THROTTLED: &str = "ProvisionedThroughputExceededException";

#[tokio::test]
async fn only_failed_entries_are_sent_again() {
    let (log, calls) = small_kinesis(|call, keys| {
        entries(keys, |key| match key {
            "b" if call < 3 => Some(THROTTLED),
            "d" if call < 2 => Some("InternalFailure"),
            _ => None,
        })
    })
    .await;
    let results = log.append(&records(&["a", "b", "c", "d"])).await;
    // a record that failed inside Kinesis may be there anyway; a throttled one is not
    assert_eq!(results, [Ok(Ack::ONCE), Ok(Ack::ONCE), Ok(Ack::ONCE), Ok(Ack { copies: 2 })]);
    assert_eq!(*calls.lock().unwrap(), [vec!["a", "b", "c", "d"], vec!["b", "d"], vec!["b"]]);
}

#[tokio::test]
async fn lasting_throttling_ends_as_throttled_in_time() {
    for by_call in [false, true] {
        let (log, calls) = small_kinesis(move |_, keys| match by_call {
            false => entries(keys, |key| (key == "b").then_some(THROTTLED)),
            true => refusal(StatusCode::BAD_REQUEST, THROTTLED),
        })
        .await;
        let began = Instant::now();
        let results = log.append(&records(&["a", "b"])).await;
        assert!(began.elapsed() < Duration::from_secs(10));
        assert_eq!(results[0].is_ok(), !by_call);
        let error = results[1].clone().unwrap_err();
        assert_eq!((error.reason(), error.attempt().copies), ("throttled", 0), "{error}");
        assert!(calls.lock().unwrap().len() >= 2);
    }
}

#[tokio::test]
async fn failed_calls_are_classified_by_code() {
    for (status, code, reason, copies, retried) in [
        (StatusCode::BAD_REQUEST, "AccessDeniedException", "denied", 0, false),
        (StatusCode::BAD_REQUEST, "KMSAccessDeniedException", "denied", 0, false),
        (StatusCode::BAD_REQUEST, "ExpiredTokenException", "denied", 0, false),
        (StatusCode::BAD_REQUEST, "KMSThrottlingException", "throttled", 0, true),
        (StatusCode::BAD_REQUEST, "ResourceNotFoundException", "unavailable", 0, true),
        (StatusCode::INTERNAL_SERVER_ERROR, "InternalFailure", "unavailable", MAX_ATTEMPTS, true),
        (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", "unavailable", MAX_ATTEMPTS, true),
    ] {
        let (log, calls) = small_kinesis(move |_, _| refusal(status, code)).await;
        let error = log.append(&records(&["a"])).await.remove(0).unwrap_err();
        assert_eq!((error.reason(), error.attempt().code.as_str()), (reason, code), "{error}");
        let calls = calls.lock().unwrap().len();
        assert_eq!(calls > 1, retried, "{code}: {calls} calls");
        // on a slow machine, the budget may run out before the attempts do
        assert!(error.attempt().copies <= copies && (error.attempt().copies > 0) == (copies > 0), "{error:?}");
    }
}

#[tokio::test]
async fn an_oversize_record_fails_alone() {
    let (log, calls) = small_kinesis(|_, keys| entries(keys, |_| None)).await;
    let big = LogRecord::new("big", vec![0; MAX_RECORD_BYTES - 2]);
    let long_key = record(&"k".repeat(MAX_KEY_CHARS + 1));
    let results = log.append(&[record("a"), big, long_key, record("c")]).await;
    assert_eq!((results[0].is_ok(), results[3].is_ok()), (true, true));
    for refused in [&results[1], &results[2]] {
        assert!(matches!(refused, Err(AppendError::TooLarge(attempt)) if attempt.copies == 0), "{refused:?}");
    }
    assert_eq!(*calls.lock().unwrap(), [["a", "c"]]);
}

#[tokio::test]
async fn an_empty_append_makes_no_call() {
    let (log, calls) = small_kinesis(|_, keys| entries(keys, |_| None)).await;
    assert!(log.append(&[]).await.is_empty());
    assert!(calls.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_refused_connection_is_unavailable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let log = log_at(listener.local_addr().unwrap());
    drop(listener);
    let error = log.append(&records(&["a"])).await.remove(0).unwrap_err();
    assert_eq!((error.reason(), error.attempt().code.as_str()), ("unavailable", "ConnectionFailed"), "{error}");
    assert!(log.warm_up().await.is_err());
}

/// A server that answers the first request of each connection. The first `stale` connections then
/// go dead: a later request gets no answer (`hang`) or a closed connection. Also returns the number
/// of connections.
async fn freezing(stale: u32, hang: bool) -> (KinesisLog, Arc<AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let log = log_at(listener.local_addr().unwrap());
    let connections = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let number = counted.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let body = json!({"Records": [{"SequenceNumber": "1", "ShardId": "s"}]}).to_string();
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                let mut buffer = [0; 16 * 1024];
                let mut requests = 0;
                while socket.read(&mut buffer).await.is_ok_and(|read| read > 0) {
                    requests += 1;
                    if requests > 1 && number < stale {
                        if hang {
                            std::future::pending::<()>().await;
                        }
                        return;
                    }
                    if requests == 1 && number < stale {
                        // let concurrent requests put several connections into the pool
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                    socket.write_all(answer.as_bytes()).await.unwrap();
                }
            });
        }
    });
    (log, connections)
}

#[tokio::test]
async fn a_pool_of_dead_connections_costs_one_attempt() {
    for hang in [true, false] {
        let (log, connections) = freezing(3, hang).await;
        let one = records(&["a"]);
        let warm = futures::future::join_all((0..3).map(|_| log.append(&one))).await;
        assert!(warm.iter().flatten().all(Result::is_ok), "{warm:?}");
        let pooled = connections.load(Ordering::SeqCst);
        // as after a thaw: every connection in the pool is dead
        let results = log.append(&one).await;
        assert_eq!(results, [Ok(Ack { copies: 2 })], "hang {hang}, {pooled} connections before");
        assert_eq!(connections.load(Ordering::SeqCst), pooled + 1, "the second attempt opened a new connection");
    }
}

#[tokio::test]
async fn a_service_that_hangs_is_unavailable_within_the_budget() {
    let (log, _) = freezing(u32::MAX, true).await;
    let one = records(&["a"]);
    assert!(log.append(&one).await[0].is_ok());
    // no connection answers any longer, not even a new one
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let log = log_at(listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut held = Vec::new();
        loop {
            held.push(listener.accept().await);
        }
    });
    let began = Instant::now();
    let error = log.append(&one).await.remove(0).unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(10));
    assert_eq!((error.reason(), error.attempt().code.as_str()), ("unavailable", "TimedOut"), "{error}");
    assert!((1..=MAX_ATTEMPTS).contains(&error.attempt().copies));
}

#[tokio::test]
async fn warm_up_appends_nothing_and_reports_the_error() {
    let (log, calls) = small_kinesis(|_, _| refusal(StatusCode::BAD_REQUEST, "ValidationException")).await;
    log.warm_up().await.unwrap();
    assert_eq!(*calls.lock().unwrap(), [Vec::<String>::new()]);
    let (log, _) = small_kinesis(|_, _| refusal(StatusCode::BAD_REQUEST, "AccessDeniedException")).await;
    let error = log.warm_up().await.unwrap_err();
    assert!(error.to_string().contains("AccessDeniedException"), "{error}");
}

#[test]
fn default_times_leave_room_for_a_second_attempt() {
    let config = KinesisConfig::new("s");
    assert!(config.connect_timeout < config.attempt_timeout);
    assert!(config.attempt_timeout * 2 <= config.budget);
    assert!(config.budget < crate::failover::Policy::default().patience);
}

/// Three shards, of which two lanes as mere shares of the hashes would both use the second.
#[tokio::test]
async fn each_lane_has_shards_of_its_own() {
    const BEGINS: [u128; 3] = [0, u128::MAX / 3, u128::MAX / 3 * 2];
    for is_listed in [true, false] {
        let hashes: Arc<Mutex<Vec<u128>>> = Arc::default();
        let seen = Arc::clone(&hashes);
        let serve = move |headers: axum::http::HeaderMap, body: String| {
            let request: Value = serde_json::from_str(&body).unwrap();
            let response = if headers["x-amz-target"].to_str().unwrap().ends_with("ListShards") {
                let shard = |(at, first): (usize, &u128)| {
                    let last = BEGINS.get(at + 1).map_or(u128::MAX, |next| next - 1);
                    json!({"ShardId": "s", "SequenceNumberRange": {"StartingSequenceNumber": "1"},
                        "HashKeyRange": {"StartingHashKey": first.to_string(), "EndingHashKey": last.to_string()}})
                };
                let shards: Vec<Value> = BEGINS.iter().enumerate().map(shard).collect();
                match is_listed {
                    true => json!({ "Shards": shards }).to_string().into_response(),
                    false => refusal(StatusCode::BAD_REQUEST, "AccessDeniedException"),
                }
            } else {
                let of = |entry: &Value| entry["ExplicitHashKey"].as_str().unwrap().parse::<u128>().unwrap();
                let records = request["Records"].as_array().unwrap();
                seen.lock().unwrap().extend(records.iter().map(of));
                entries(&vec![String::new(); records.len()], |_| None)
            };
            async move { response }
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let log = log_at(listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(serve)).await });
        let laned = |key: u16| LogRecord { lane: Lane::new(key % 2, 2), ..record(&key.to_string()) };
        let records: Vec<LogRecord> = (0..100).map(laned).collect();
        assert!(log.append(&records).await.iter().all(Result::is_ok));
        let shard = |hash: &u128| BEGINS.iter().rposition(|first| first <= hash).unwrap();
        let lane_0: Vec<usize> = hashes.lock().unwrap().iter().step_by(2).map(shard).collect();
        assert_eq!(lane_0.iter().all(|shard| *shard == 0), is_listed, "{lane_0:?}");
    }
}
