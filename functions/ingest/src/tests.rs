use super::*;
use crate::accept::{is_sampled, trace_id};
use flate2::Compression;
use flate2::write::GzEncoder;
use jsonwebtoken::{EncodingKey, Header, encode};
use lambda::auth::AuthConfig;
use lambda::config::Env;
use lambda::metrics::Emitter;
use lambda::testing::Logged;
use lambda_http::RequestExt;
use lambda_http::aws_lambda_events::apigw::ApiGatewayV2httpRequestContext;
use lambda_http::request::RequestContext;
use playback::contract::{MAX_BODY_BYTES, MAX_DECOMPRESSED_BYTES};
use playback::envelope::Envelope;
use playback::routing::Regions;
use serde_json::{Value, json};
use std::io::Write;
use stream::testing::{Effect, RecordingLog};
use stream::{AppendError, Attempt, LogRecord, Policy};
use tracing::level_filters::LevelFilter;

pub(crate) const SECRET: &str = "a secret of at least thirty-two bytes";
const NOW: u64 = 1_790_000_010_200;

fn ingest(log: RecordingLog) -> Ingest<RecordingLog> {
    ingest_to(log, None, r#"{"version":1}"#)
}

/// In us-east-1, with us-west-2 as the other region; the document is `routing`.
fn ingest_to(primary: RecordingLog, standby: Option<RecordingLog>, routing: &'static str) -> Ingest<RecordingLog> {
    let env = Env::from_pairs([("JWT_SECRET", SECRET), ("SERVICE_SCOPE", "service")]);
    let auth = lambda::config::read(env, AuthConfig::read).unwrap();
    let regions = Regions::parse("us-east-1", "us-east-1,us-west-2").unwrap();
    Ingest {
        local: Failover::new(primary, standby, Policy::default()),
        remote: Some(Failover::new(RecordingLog::new(), None, Policy::default())),
        routing: Routing::read_by(regions, move || async { Ok(routing.to_owned()) }),
        authenticator: Authenticator::new(&auth).unwrap(),
        window: SessionWindow::default(),
        budgets: Budgets::new(6_000),
        legacy: None,
        shadows: Arc::default(),
    }
}

pub(crate) fn token(claims: Value) -> String {
    let mut claims = claims;
    claims["exp"] = json!(4_000_000_000_u64);
    format!("Bearer {}", encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap())
}

pub(crate) fn event(session: u8, seq: u64) -> Value {
    json!({"session_id": format!("use1-01M3250V3TW3KG5DD5CEVSMJC{session}"), "profile_id": "p1", "title_id": "t1", "seq": seq,
        "kind": "progressed", "position_ms": seq * 1000, "title_duration_ms": 100_000, "occurred_at": NOW, "device": {"id": "d1", "kind": "tv"}})
}

pub(crate) struct Sent {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
    pub(crate) lines: String,
}

async fn send(ingest: &Ingest<RecordingLog>, request: Request) -> Sent {
    let sent = send_to(ingest, request).await;
    ingest.local.primary().note(format!("answered {}", sent.status));
    sent
}

pub(crate) async fn send_to<L: DurableLog + 'static>(ingest: &Ingest<L>, request: Request) -> Sent {
    let lines = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
    let sink = std::sync::Arc::clone(&lines);
    let emitter = Emitter::to("test", "ingest", move |text| sink.lock().unwrap().push_str(text));
    let response = ingest.serve(&emitter.start(NOW), request, NOW).await;
    let (parts, body) = response.into_parts();
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let lines = lines.lock().unwrap().clone();
    Sent { status: parts.status.as_u16(), headers: parts.headers, body, lines }
}

pub(crate) fn post(path: &str) -> http::request::Builder {
    http::Request::post(path).header("authorization", token(json!({"profiles": ["p1"]})))
}

pub(crate) fn events(body: impl Into<Body>) -> Request {
    on_path(post("/v1/events").body(body.into()).unwrap())
}

/// With the raw path set, as the runtime sets it.
pub(crate) fn on_path(request: Request) -> Request {
    let path = request.uri().path().to_owned();
    request.with_raw_http_path(&path)
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn events_are_durable_before_the_answer_one_record_per_session() {
    let ingest = ingest(RecordingLog::new());
    let body = json!({"events": [event(1, 0), event(2, 0), event(1, 1)]}).to_string();
    let sent = send(&ingest, events(body)).await;
    assert_eq!((sent.status, &sent.body), (202, &json!({"accepted": 3, "rejected": [], "adjusted": []})));
    let effects = ingest.local.primary().effects();
    assert!(
        matches!(effects.as_slice(), [Effect::Appended(_), Effect::Appended(_), Effect::Noted(last)] if last == "answered 202")
    );
    let envelopes: Vec<_> =
        ingest.local.primary().appended().iter().map(|r| Envelope::decode(&r.value).unwrap()).collect();
    assert_eq!(envelopes[0].session_id.to_string(), ingest.local.primary().appended()[0].key);
    assert_eq!(envelopes[0].events.iter().map(|e| e.seq).collect::<Vec<_>>(), [0, 1]);
    assert_eq!((envelopes[0].stamp.received_at, envelopes[0].stamp.ingest_region.as_str()), (NOW, "us-east-1"));
}

#[tokio::test]
async fn bad_event_rejects_only_itself() {
    let ingest = ingest(RecordingLog::new());
    let mut bad = event(1, 1);
    bad["position_ms"] = json!(-1);
    let mut foreign = event(1, 3);
    foreign["profile_id"] = json!("p2");
    let sent = send(&ingest, events(json!({"events": [event(1, 0), bad, event(1, 2), foreign, 7]}).to_string())).await;
    assert_eq!((sent.status, sent.body["accepted"].as_u64()), (202, Some(2)));
    let rejected: Vec<_> =
        sent.body["rejected"].as_array().unwrap().iter().map(|r| (r["index"].as_u64(), r["code"].as_str())).collect();
    assert_eq!(
        rejected,
        [
            (Some(1), Some("position_out_of_range")),
            (Some(3), Some("profile_forbidden")),
            (Some(4), Some("not_an_object"))
        ]
    );
    assert!(sent.body["rejected"][0]["message"].as_str().unwrap().contains("`position_ms`"));
    assert!(
        sent.lines.contains(r#""Code":"position_out_of_range""#) && sent.lines.contains(r#""EventsAccepted":2"#),
        "{}",
        sent.lines
    );
}

#[tokio::test]
async fn one_record_not_durable_makes_the_request_a_503() {
    let refusing = RecordingLog::refusing(|record| {
        record
            .key
            .ends_with('2')
            .then(|| AppendError::Unavailable(Attempt::new("test", record, "timed_out", "no answer")))
    });
    let ingest = ingest(refusing);
    let sent = send(&ingest, events(json!({"events": [event(1, 0), event(2, 0)]}).to_string())).await;
    assert_eq!((sent.status, sent.body["code"].as_str()), (503, Some("log_unavailable")));
    let seconds: u32 = sent.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((2..10).contains(&seconds));
    assert!(!sent.lines.contains("EventsAccepted"), "a 503 accepts nothing: {}", sent.lines);
}

fn refusing(error: fn(Attempt) -> AppendError, keys: &'static str) -> RecordingLog {
    RecordingLog::refusing(move |record| {
        record.key.ends_with(|key| keys.contains(key)).then(|| error(Attempt::new("test", record, "Refused", "so")))
    })
}

fn three_events_of_two_sessions() -> Request {
    events(json!({"events": [event(1, 0), event(2, 0), event(2, 1)]}).to_string())
}

#[tokio::test]
async fn records_refused_by_primary_go_to_standby_and_are_counted() {
    for error in [AppendError::Unavailable, AppendError::Denied, AppendError::Throttled] {
        let standby = RecordingLog::new();
        let ingest = ingest_to(refusing(error, "2"), Some(standby.clone()), r#"{"version":1}"#);
        let sent = send(&ingest, three_events_of_two_sessions()).await;
        assert_eq!((sent.status, sent.body["accepted"].as_u64()), (202, Some(3)));
        assert_eq!(standby.appended().len(), 1, "only what the primary did not take");
        let counts =
            ["\"RecordsAppended\":2", "\"RecordsOnStandby\":1", "\"EventsAccepted\":3", "\"EventsUnclaimed\":2"];
        assert!(counts.iter().all(|count| sent.lines.contains(count)), "{}", sent.lines);
    }
}

#[tokio::test]
async fn both_logs_failing_accepts_nothing_and_counts_unclaimed() {
    let standby = refusing(AppendError::Unavailable, "2");
    let ingest = ingest_to(refusing(AppendError::Unavailable, "2"), Some(standby), r#"{"version":1}"#);
    let sent = send(&ingest, three_events_of_two_sessions()).await;
    assert_eq!((sent.status, sent.body["code"].as_str()), (503, Some("log_unavailable")));
    assert!(sent.headers.contains_key("retry-after"));
    assert!(!sent.lines.contains("EventsAccepted"), "{}", sent.lines);
    // The first session's event is durable once but not accepted; the other session's two may be on
    // both logs.
    let counts = ["\"RecordsAppended\":1", "\"AppendErrors\":1", "\"EventsUnclaimed\":5"];
    assert!(counts.iter().all(|count| sent.lines.contains(count)), "{}", sent.lines);
}

#[tokio::test]
async fn denying_primary_opens_the_circuit_once() {
    let standby = RecordingLog::new();
    let ingest = ingest_to(refusing(AppendError::Denied, "12"), Some(standby.clone()), r#"{"version":1}"#);
    let mut lines = String::new();
    for _ in 0..4 {
        let sent = send(&ingest, three_events_of_two_sessions()).await;
        assert_eq!(sent.status, 202);
        lines += &sent.lines;
    }
    assert_eq!(standby.appended().len(), 8);
    assert_eq!(
        (lines.matches("\"CircuitOpened\":1").count(), lines.matches("CircuitClosed").count()),
        (1, 0),
        "{lines}"
    );
}

#[tokio::test]
async fn operator_can_choose_the_log() {
    let standby = RecordingLog::new();
    let broken = || refusing(AppendError::Unavailable, "12");
    let primary_only = ingest_to(broken(), Some(standby.clone()), r#"{"version":1,"log":"primary"}"#);
    assert_eq!(send(&primary_only, three_events_of_two_sessions()).await.status, 503);
    assert!(standby.appended().is_empty());
    let standby_only = ingest_to(RecordingLog::new(), Some(standby.clone()), r#"{"version":1,"log":"standby"}"#);
    assert_eq!(send(&standby_only, three_events_of_two_sessions()).await.status, 202);
    assert_eq!((standby_only.local.primary().appended().len(), standby.appended().len()), (0, 2));
}

#[tokio::test]
async fn only_permitted_tokens_are_accepted() {
    let ingest = ingest(RecordingLog::new());
    let body = || Body::from(json!({"events": [event(1, 0)]}).to_string());
    let ask = |authorization: Option<String>| {
        let mut request = http::Request::post("/v1/events");
        if let Some(value) = authorization {
            request = request.header("authorization", value);
        }
        on_path(request.body(body()).unwrap())
    };
    let status = async |authorization| send(&ingest, ask(authorization)).await.status;
    assert_eq!(status(None).await, 401);
    assert_eq!(status(Some("Bearer x.y.z".to_owned())).await, 401);
    assert_eq!(status(Some(token(json!({"sub": "nobody"})))).await, 401);
    assert_eq!(status(Some(token(json!({"profiles": ["p2"]})))).await, 403);
    assert_eq!(status(Some(token(json!({"profiles": ["p2", "p1"]})))).await, 202);
    assert_eq!(status(Some(token(json!({"scope": "service"})))).await, 202);
    assert_eq!(ingest.local.primary().appended().len(), 2);
}

#[tokio::test]
async fn gzip_is_accepted_but_not_a_bomb() {
    let ingest = ingest(RecordingLog::new());
    let zipped = |bytes: Vec<u8>| {
        on_path(post("/v1/events").header("content-encoding", "gzip").body(Body::Binary(bytes)).unwrap())
    };
    let body = json!({"events": [event(1, 0)]}).to_string();
    assert_eq!(send(&ingest, zipped(gzip(body.as_bytes()))).await.status, 202);
    let bomb = gzip(&vec![b' '; 50 * MAX_DECOMPRESSED_BYTES]);
    assert!(bomb.len() < MAX_BODY_BYTES);
    assert_eq!(send(&ingest, zipped(bomb)).await.status, 413);
    let problem = async |bytes: Vec<u8>| send(&ingest, zipped(bytes)).await.body["code"].as_str().map(str::to_owned);
    let whole = gzip(body.as_bytes());
    assert_eq!(problem(whole[..whole.len() / 2].to_vec()).await.as_deref(), Some("body_not_gzip"));
    assert_eq!(
        problem(String::from_utf8_lossy(&whole).into_owned().into_bytes()).await.as_deref(),
        Some("body_spoilt")
    );
    // Decompressed in transit by a gateway that kept the header.
    assert_eq!(send(&ingest, zipped(body.into_bytes())).await.status, 202);
}

#[tokio::test]
async fn any_json_media_type_is_accepted() {
    let ingest = ingest(RecordingLog::new());
    for media_type in ["application/json", "Application/JSON; charset=utf-8", "application/vnd.playhead.events+json"] {
        let body = json!({"events": [event(1, 0)]}).to_string();
        let request = post("/v1/events").header("content-type", media_type).body(Body::from(body)).unwrap();
        assert_eq!(send(&ingest, on_path(request)).await.status, 202, "{media_type}");
    }
}

#[tokio::test]
async fn requests_outside_the_contract_are_refused() {
    let ingest = ingest(RecordingLog::new());
    let check = async |request: Request, status: u16, code: &str| {
        let sent = send(&ingest, request).await;
        assert_eq!((sent.status, sent.body["code"].as_str()), (status, Some(code)));
        assert_eq!(sent.headers["content-type"], "application/problem+json");
    };
    check(events("not JSON"), 400, "malformed_request").await;
    check(events(r#"{"event":[]}"#), 400, "malformed_request").await;
    check(events(json!({"events": vec![0; 501]}).to_string()), 413, "too_many_events").await;
    check(events(" ".repeat(MAX_BODY_BYTES + 1)), 413, "body_too_large").await;
    let typed =
        |header: &str, value: &str| on_path(post("/v1/events").header(header, value).body(Body::from("{}")).unwrap());
    check(typed("content-type", "text/xml"), 415, "unsupported_media_type").await;
    check(typed("content-encoding", "br"), 415, "unsupported_media_type").await;
    check(on_path(post("/v2/events").body(Body::Empty).unwrap()), 404, "not_found").await;
    let get = http::Request::get("/v1/events").body(Body::Empty).unwrap();
    check(on_path(get), 405, "method_not_allowed").await;
    assert!(ingest.local.primary().appended().is_empty());
}

/// What `navigator.sendBeacon` sends: no header but the media type of text.
pub(crate) fn beacon(body: &Value) -> Request {
    let text = body.to_string();
    let request = http::Request::post("/v1/events").header("content-type", "text/plain;charset=UTF-8");
    on_path(request.body(Body::from(text)).unwrap())
}

/// A token without the scheme, as the body of a beacon has it.
pub(crate) fn bare(claims: Value) -> String {
    token(claims).split_off("Bearer ".len())
}

#[tokio::test]
async fn beacon_with_its_token_in_the_body_is_accepted() {
    let ingest = ingest(RecordingLog::new());
    let token = bare(json!({"profiles": ["p1"]}));
    let body = json!({"token": token, "sent_at": NOW, "events": [event(1, 0), event(1, 1)]});
    let sent = send(&ingest, beacon(&body)).await;
    assert_eq!((sent.status, &sent.body), (202, &json!({"accepted": 2, "rejected": [], "adjusted": []})));
    let json_body = http::Request::post("/v1/events").header("content-type", "application/json");
    let sent_as_json = send(&ingest, on_path(json_body.body(Body::from(body.to_string())).unwrap())).await;
    assert_eq!(sent_as_json.status, 202);
    assert_eq!(ingest.local.primary().appended().len(), 2);
    let on_the_log: Vec<u8> = ingest.local.primary().appended().iter().flat_map(|one| one.value.to_vec()).collect();
    assert!(!on_the_log.windows(token.len()).any(|bytes| bytes == token.as_bytes()));
    assert!(!sent.lines.contains(&token));
}

#[tokio::test]
async fn beacon_without_a_valid_token_learns_only_that() {
    let ingest = ingest(RecordingLog::new());
    let valid = bare(json!({"profiles": ["p1"]}));
    let check = async |request: Request, code: &str| {
        let sent = send(&ingest, request).await;
        assert_eq!((sent.status, sent.body["code"].as_str()), (401, Some(code)), "{}", sent.body);
    };
    let expired = bare(json!({"profiles": ["p1"]})) + "x";
    check(beacon(&json!({"events": [event(1, 0)]})), "no_token").await;
    check(beacon(&json!({"events": [event(1, 0)], "token": 7})), "no_token").await;
    check(beacon(&json!({"events": vec![0; 501]})), "no_token").await;
    check(beacon(&json!("not an object")), "no_token").await;
    check(beacon(&json!({"events": [event(1, 0)], "token": expired})), "invalid_token").await;
    check(beacon(&json!({"events": 5, "token": "x"})), "invalid_token").await;
    // Too large to be read before the sender is known.
    let padding = " ".repeat(MAX_BODY_BYTES);
    check(beacon(&json!({"token": valid, "events": [], "padding": padding})), "no_token").await;
    let zipped = gzip(json!({"token": valid, "events": []}).to_string().as_bytes());
    let request = http::Request::post("/v1/events").header("content-encoding", "gzip");
    check(on_path(request.body(Body::Binary(zipped)).unwrap()), "no_token").await;
    // A header is used alone, even a wrong one; the body's token does not help.
    let mut with_header = beacon(&json!({"token": valid, "events": [event(1, 0)]}));
    with_header.headers_mut().insert("authorization", "Bearer x.y.z".parse().unwrap());
    check(with_header, "invalid_token").await;
    assert!(ingest.local.primary().appended().is_empty());
}

#[tokio::test]
async fn text_with_an_authorization_header_is_refused() {
    let ingest = ingest(RecordingLog::new());
    let body = json!({"events": [event(1, 0)]}).to_string();
    let request = post("/v1/events").header("content-type", "text/plain").body(Body::from(body)).unwrap();
    assert_eq!(send(&ingest, on_path(request)).await.status, 415);
}

/// An event of the nth of many sessions.
fn of_many(n: usize) -> Value {
    let mut event = event(1, 0);
    event["session_id"] = json!(format!("use1-01M3250V3TW3KG5DD5CEVSM{n:03}"));
    event
}

fn by_service(body: &Value) -> Request {
    let request = http::Request::post("/v1/events").header("authorization", token(json!({"scope": "service"})));
    on_path(request.body(Body::from(body.to_string())).unwrap())
}

#[tokio::test]
async fn events_of_the_51st_session_are_rejected_until_later() {
    let ingest = ingest(RecordingLog::new());
    let body = |sessions: usize| {
        // Each session twice, so that the later events of known sessions come after the limit.
        let events: Vec<Value> = (0..sessions).chain(0..sessions).map(of_many).collect();
        json!({"events": events})
    };
    let sent = send(&ingest, events(body(50).to_string())).await;
    assert_eq!((sent.status, &sent.body), (202, &json!({"accepted": 100, "rejected": [], "adjusted": []})));
    let sent = send(&ingest, events(body(52).to_string())).await;
    assert_eq!((sent.status, sent.body["accepted"].as_u64()), (202, Some(100)));
    let rejected: Vec<_> = sent.body["rejected"].as_array().unwrap().iter().map(|one| one["index"].as_u64()).collect();
    assert_eq!(rejected, [50, 51, 102, 103].map(Some));
    let first = &sent.body["rejected"][0];
    assert_eq!((&first["code"], &first["retryable"]), (&json!("too_many_sessions"), &json!(true)));
    assert!(sent.lines.contains(r#""Code":"too_many_sessions""#), "{}", sent.lines);
    let sent = send(&ingest, by_service(&body(52))).await;
    assert_eq!((sent.status, sent.body["accepted"].as_u64()), (202, Some(104)), "a backend has no such limit");
}

#[tokio::test]
async fn invalid_events_use_up_neither_sessions_nor_budget() {
    let ingest = Ingest { budgets: Budgets::new(100), ..ingest(RecordingLog::new()) };
    let broken = |n: usize| {
        let mut event = of_many(n);
        event["kind"] = json!("rewound");
        event
    };
    let foreign = |n: usize| {
        let mut event = of_many(n);
        event["profile_id"] = json!("p2");
        event
    };
    let odd = (100..200).map(broken).chain((200..300).map(foreign));
    let body = json!({"events": odd.chain((0..50).map(of_many)).collect::<Vec<_>>()});
    for _ in 0..2 {
        let sent = send(&ingest, events(body.to_string())).await;
        assert_eq!((sent.status, sent.body["accepted"].as_u64()), (202, Some(50)));
    }
    assert_eq!(send(&ingest, events(body.to_string())).await.status, 429);
}

#[tokio::test]
async fn profile_over_its_budget_gets_429_until_the_next_minute() {
    let ingest = Ingest { budgets: Budgets::new(3), ..ingest(RecordingLog::new()) };
    let body = json!({"events": [event(1, 0), event(1, 1)]});
    assert_eq!(send(&ingest, events(body.to_string())).await.status, 202);
    let sent = send(&ingest, events(body.to_string())).await;
    assert_eq!((sent.status, &sent.body["code"]), (429, &json!("too_many_events_per_minute")));
    assert_eq!(sent.body["field"], "profile_id");
    assert!(sent.body["detail"].as_str().unwrap().contains("profile p1 "), "{}", sent.body);
    let seconds: u64 = sent.headers["retry-after"].to_str().unwrap().parse().unwrap();
    let to_the_next_minute = (60_000 - NOW % 60_000).div_ceil(1_000);
    assert!((to_the_next_minute..to_the_next_minute + 10).contains(&seconds), "{seconds}");
    assert!(sent.lines.contains(r#""Code":"429""#) && !sent.lines.contains("EventsAccepted"), "{}", sent.lines);
    assert_eq!(send(&ingest, by_service(&body)).await.status, 202, "a backend has no such limit");
    assert_eq!(ingest.local.primary().appended().len(), 2);
}

#[tokio::test]
async fn request_answered_503_uses_up_no_budget() {
    let failures = std::sync::atomic::AtomicUsize::new(5);
    let failing = RecordingLog::refusing(move |record| {
        let fails = failures
            .fetch_update(std::sync::atomic::Ordering::SeqCst, std::sync::atomic::Ordering::SeqCst, |left| {
                left.checked_sub(1)
            })
            .is_ok();
        fails.then(|| AppendError::Unavailable(Attempt::new("test", record, "timed_out", "no answer")))
    });
    let ingest = Ingest { budgets: Budgets::new(2), ..ingest(failing) };
    let body = json!({"events": [event(1, 0), event(1, 1)]}).to_string();
    let mut statuses = Vec::new();
    for _ in 0..12 {
        statuses.push(send(&ingest, events(body.clone())).await.status);
    }
    let refused = statuses.iter().take_while(|status| **status == 503).count();
    assert!(refused > 0, "{statuses:?}");
    assert_eq!(statuses[refused], 202, "{statuses:?}");
    assert!(statuses[refused + 1..].iter().all(|status| *status == 429), "{statuses:?}");
}

/// As API Gateway sends it behind a custom domain with a mapping key, or on a named stage.
#[tokio::test]
async fn route_key_counts_not_the_path() {
    let ingest = ingest(RecordingLog::new());
    for (path, stage) in [("/playhead/v1/events", "$default"), ("/prod/v1/events", "prod")] {
        let event = json!({
            "version": "2.0", "routeKey": "POST /v1/events", "rawPath": path, "rawQueryString": "",
            "headers": {"host": "api.example", "authorization": token(json!({"profiles": ["p1"]}))},
            "requestContext": {"routeKey": "POST /v1/events", "stage": stage, "http": {"method": "POST", "path": path}},
            "body": json!({"events": [event(1, 0)]}).to_string(), "isBase64Encoded": false,
        });
        let request: lambda_http::request::LambdaRequest = serde_json::from_value(event).unwrap();
        assert_eq!(send(&ingest, request.into()).await.status, 202, "{path}");
    }
}

#[tokio::test]
async fn minted_sessions_start_here_and_now() {
    let ingest = ingest(RecordingLog::new());
    let sent = send(&ingest, on_path(post("/v1/sessions").body(Body::Empty).unwrap())).await;
    let id: SessionId = sent.body["session_id"].as_str().unwrap().parse().unwrap();
    assert_eq!((sent.status, id.home.as_str(), id.started_at()), (201, "use1", NOW));
    let unknown = on_path(http::Request::post("/v1/sessions").body(Body::Empty).unwrap());
    assert_eq!(send(&ingest, unknown).await.status, 401);
}

#[test]
fn trace_id_comes_from_traceparent() {
    let of = |value: &str| {
        let mut headers = HeaderMap::new();
        headers.insert("traceparent", value.parse().unwrap());
        trace_id(&headers)
    };
    assert_eq!(of("00-000102030405060708090a0b0c0d0e0f-00f067aa0ba902b7-01").map(|id| id[1]), Some(1));
    assert_eq!(of("00-00000000000000000000000000000000-00f067aa0ba902b7-01"), None);
    assert_eq!(of("garbage"), None);
}

#[test]
fn without_traceparent_the_trace_id_is_that_of_x_ray() {
    let of = |value: &str| {
        let mut headers = HeaderMap::new();
        headers.insert("x-amzn-trace-id", value.parse().unwrap());
        let without = (trace_id(&headers).map(|id| format!("{:032x}", u128::from_be_bytes(id))), is_sampled(&headers));
        headers.insert("traceparent", "00-000102030405060708090a0b0c0d0e0f-00f067aa0ba902b7-01".parse().unwrap());
        assert_eq!(trace_id(&headers).map(|id| id[1]), Some(1), "the device's own id comes first");
        without
    };
    let id = Some("5759e988bd862e3fe1be46a994272793".to_owned());
    assert_eq!(of("Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"), (id.clone(), true));
    assert_eq!(of("Self=1-1-1;Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=0"), (id, false));
    assert_eq!(of("Root=1-5759e988-bd862e3fe1be46a99427279"), (None, false));
    assert_eq!(of("garbage"), (None, false));
}

#[tokio::test]
async fn noteworthy_requests_are_logged_with_their_ids() {
    let logged = Logged::at(LevelFilter::INFO);
    let check = async |body: Value, x_ray: &str, expected: Option<(u64, u64)>| {
        let ingest = ingest(RecordingLog::new());
        let request =
            post("/v1/events").header("x-amzn-trace-id", format!("Root=1-5759e988-bd862e3fe1be46a994272793{x_ray}"));
        let mut context = ApiGatewayV2httpRequestContext::default();
        context.request_id = Some("of-the-api".to_owned());
        let request = on_path(request.body(body.to_string().into()).unwrap());
        let sent = send(&ingest, request.with_request_context(RequestContext::ApiGatewayV2(context))).await;
        assert_eq!(sent.status, 202);
        let line = logged.lines("answered a request").last().cloned();
        let counts = line.as_ref().map(|line| (line["accepted"].as_u64().unwrap(), line["rejected"].as_u64().unwrap()));
        assert_eq!(counts, expected);
        let trace_id = "5759e988bd862e3fe1be46a994272793";
        if let Some(line) = line {
            assert_eq!((&line["trace_id"], &line["api_request_id"]), (&json!(trace_id), &json!("of-the-api")));
            assert_eq!((&line["status"], &line["level"]), (&json!(202), &json!("INFO")));
        }
        // The records lead back to it.
        for record in ingest.local.primary().appended() {
            assert_eq!(playback::envelope::trace_id(&record.value).as_deref(), Some(trace_id));
        }
    };
    check(json!({"events": [event(1, 0)]}), ";Sampled=0", None).await;
    check(json!({"events": [event(1, 0), event(2, 0)]}), ";Sampled=1", Some((2, 0))).await;
    check(json!({"events": [event(1, 0), 7]}), ";Sampled=0", Some((1, 1))).await;
}

/// An event of a session whose home is us-west-2.
fn of_the_west(session: u8, seq: u64) -> Value {
    let mut event = event(session, seq);
    event["session_id"] = json!(event["session_id"].as_str().unwrap().replace("use1", "usw2"));
    event
}

fn keys(log: &Failover<RecordingLog>) -> Vec<String> {
    log.primary().appended().iter().map(|record| record.key[..4].to_owned()).collect()
}

#[tokio::test]
async fn other_regions_sessions_wait_for_the_remote_log() {
    let ingest = ingest(RecordingLog::new());
    let remote = ingest.remote.clone().unwrap();
    let body = json!({"events": [event(1, 0), of_the_west(2, 0), event(1, 1), of_the_west(2, 1)]}).to_string();
    let sent = send(&ingest, events(body.clone())).await;
    assert_eq!((sent.status, &sent.body["accepted"]), (202, &json!(4)));
    assert_eq!((keys(&ingest.local), keys(&remote)), (vec!["use1".to_owned()], vec!["usw2".to_owned()]));
    assert!(sent.lines.contains("\"RecordsAppended\":2"), "{}", sent.lines);

    let refuse =
        |record: &LogRecord| Some(AppendError::Unavailable(Attempt::new("r", record, "TimedOut", "no answer")));
    let remote = Some(Failover::new(RecordingLog::refusing(refuse), None, Policy::default()));
    let without_router = Ingest { remote, ..ingest_to(RecordingLog::new(), None, r#"{"version":1}"#) };
    assert_eq!(send(&without_router, events(body)).await.status, 503, "one record is not durable");
}

#[tokio::test]
async fn draining_region_sends_sessions_to_its_successor() {
    let west_drains = r#"{"version":1,"regions":{"us-west-2":{"state":"draining","to":"us-east-1"}}}"#;
    let here_drains = r#"{"version":1,"regions":{"us-east-1":{"state":"draining","to":"us-west-2"}}}"#;
    for (routing, local, home) in [(west_drains, 2, "use1"), (here_drains, 0, "usw2")] {
        let ingest = ingest_to(RecordingLog::new(), None, routing);
        let body = json!({"events": [event(1, 0), of_the_west(2, 0)]}).to_string();
        assert_eq!(send(&ingest, events(body)).await.status, 202);
        assert_eq!((keys(&ingest.local).len(), keys(ingest.remote.as_ref().unwrap()).len()), (local, 2 - local));
        let minted = send(&ingest, on_path(post("/v1/sessions").body(Body::Empty).unwrap())).await;
        assert!(minted.body["session_id"].as_str().unwrap().starts_with(home), "{}", minted.body);
    }
}
