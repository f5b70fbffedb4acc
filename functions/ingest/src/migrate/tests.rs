use super::*;
use crate::Budgets;
use crate::tests::{SECRET, bare, beacon, event, events, on_path, post, send_to, token};
use axum::extract::State;
use axum::http::Request as HttpRequest;
use axum::response::IntoResponse;
use lambda::auth::{AuthConfig, Authenticator};
use lambda::config::Env;
use lambda::routing::{Routing, Unread};
use lambda_http::Request;
use playback::contract::MAX_BODY_BYTES;
use playback::edge::SessionWindow;
use playback::envelope::Envelope;
use playback::routing::Regions;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use stream::testing::RecordingLog;
use stream::{AppendError, Attempt, Failover, LogRecord, Policy, RecordResult};

/// The requests that a legacy system received.
pub(crate) type Asked = Arc<Mutex<Vec<(HeaderMap, Vec<u8>)>>>;

/// A legacy system that gives this answer to every request.
pub(crate) async fn legacy(status: u16, body: &'static str) -> (Legacy, Asked) {
    let asked = Asked::default();
    let answer = move |State(asked): State<Asked>, request: HttpRequest<axum::body::Body>| async move {
        let (parts, asked_with) = request.into_parts();
        let bytes = axum::body::to_bytes(asked_with, usize::MAX).await.unwrap().to_vec();
        asked.lock().unwrap().push((parts.headers, bytes));
        let headers = [("x-legacy", "yes"), ("content-type", "application/json"), ("set-cookie", "a=1")];
        (StatusCode::from_u16(status).unwrap(), headers, body_for(status, body)).into_response()
    };
    let app = axum::Router::new().fallback(answer).with_state(Arc::clone(&asked));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/old/events", listener.local_addr().unwrap()).parse().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    (Legacy::new(url, Duration::from_secs(5)).unwrap(), asked)
}

fn body_for(status: u16, body: &'static str) -> String {
    if status == 299 { "x".repeat(2 * 1024 * 1024) } else { body.to_owned() }
}

pub(crate) fn ingest<L: DurableLog + 'static>(log: L, legacy: Option<Legacy>, rollout: &str) -> Ingest<L> {
    let env = Env::from_pairs([("JWT_SECRET", SECRET), ("SERVICE_SCOPE", "service")]);
    let auth = lambda::config::read(env, AuthConfig::read).unwrap();
    let document = if rollout.is_empty() {
        r#"{"version":1}"#.to_owned()
    } else {
        format!(r#"{{"version":1,"rollout":{rollout}}}"#)
    };
    Ingest {
        local: Failover::new(log, None, Policy::default()),
        remote: None,
        routing: Routing::read_by(Regions::parse("us-east-1", "").unwrap(), move || {
            let document = document.clone();
            async move { Ok(document) }
        }),
        authenticator: Authenticator::new(&auth).unwrap(),
        window: SessionWindow::default(),
        budgets: Budgets::new(6_000),
        legacy,
        shadows: Arc::default(),
    }
}

const SHADOW: &str = r#"{"salt":"s","shadow":"100%"}"#;
const ASYNC: &str = r#"{"salt":"s","async":"100%"}"#;

pub(crate) fn of(profile: &str, session: u8, seq: u64) -> Value {
    let mut event = event(session, seq);
    event["profile_id"] = json!(profile);
    event
}

pub(crate) fn service() -> http::request::Builder {
    let token = token(json!({"scope": "service"}));
    http::Request::post("/v1/events").header("authorization", token)
}

pub(crate) fn shadows(log: &RecordingLog) -> Vec<bool> {
    log.appended().iter().map(|record| Envelope::decode(&record.value).unwrap().stamp.shadow).collect()
}

#[tokio::test]
async fn without_rollout_all_requests_pass_to_legacy_unread() {
    let (legacy, asked) = legacy(418, r#"{"ok":"as before"}"#).await;
    let ingest = ingest(RecordingLog::new(), Some(legacy), "");
    let odd = r#"{ "events": [ {"what": "ever"} ],  "more": 1 }"#;
    for body in [odd, "not JSON at all", ""] {
        let request =
            post("/v1/events").header("x-api-key", "k").header("connection", "x-secret").header("x-secret", "s");
        let sent = send_to(&ingest, on_path(request.body(Body::from(body)).unwrap())).await;
        assert_eq!((sent.status, &sent.body), (418, &json!({"ok": "as before"})));
        assert!(sent.headers["x-legacy"] == "yes" && sent.headers["set-cookie"] == "a=1");
        let (headers, passed) = asked.lock().unwrap().pop().unwrap();
        assert_eq!(passed, body.as_bytes());
        assert!(headers.contains_key("authorization") && headers["x-api-key"] == "k");
        assert!(!headers.contains_key("x-secret"), "it concerns the connection");
        assert!(headers["host"].to_str().unwrap().starts_with("127.0.0.1"));
    }
    assert!(ingest.local.primary().appended().is_empty());
}

#[tokio::test]
async fn shadow_is_appended_marked_and_legacy_answers() {
    let (legacy, asked) = legacy(200, r#"{"stored":2}"#).await;
    let ingest = ingest(RecordingLog::new(), Some(legacy), SHADOW);
    let mut bad = event(1, 1);
    bad["position_ms"] = json!(-1);
    let body = json!({"events": [event(1, 0), bad]}).to_string();
    let sent = send_to(&ingest, events(body.clone())).await;
    assert_eq!((sent.status, &sent.body), (200, &json!({"stored": 2})));
    assert_eq!(asked.lock().unwrap()[0].1, body.as_bytes());
    // The next request counts what was appended.
    let counted = async || {
        loop {
            let lines = send_to(&ingest, events(r#"{"events":[]}"#)).await.lines;
            if lines.contains("ShadowAppended") {
                return lines;
            }
        }
    };
    let lines = tokio::time::timeout(Duration::from_secs(10), counted()).await.unwrap();
    assert!(lines.contains(r#""ShadowAppended":1"#), "{lines}");
    assert_eq!(shadows(ingest.local.primary()), [true]);
}

#[tokio::test]
async fn unauthenticated_request_gets_no_shadow() {
    let (legacy, _) = legacy(401, "{}").await;
    let ingest = ingest(RecordingLog::new(), Some(legacy), SHADOW);
    let request = http::Request::post("/v1/events").body(Body::from(json!({"events": [event(1, 0)]}).to_string()));
    assert_eq!(send_to(&ingest, on_path(request.unwrap())).await.status, 401);
    assert!(ingest.local.primary().appended().is_empty());
}

/// A log that never answers.
#[derive(Clone)]
struct Silent;

impl DurableLog for Silent {
    fn append_each<'a>(&'a self, _: &'a [LogRecord]) -> impl futures::Stream<Item = RecordResult> + Send + 'a {
        futures::stream::pending()
    }
}

#[tokio::test]
async fn shadow_never_delays_or_fails_the_live_answer() {
    let (to, _) = legacy(200, r#"{"stored":1}"#).await;
    let silent = ingest(Silent, Some(to), SHADOW);
    let body = json!({"events": [event(1, 0)]}).to_string();
    let answered = tokio::time::timeout(Duration::from_secs(2), send_to(&silent, events(body.clone()))).await;
    assert_eq!(answered.expect("the answer does not wait for the log").status, 200);

    let refuse = |record: &LogRecord| Some(AppendError::Denied(Attempt::new("t", record, "Denied", "so")));
    let (to, _) = legacy(200, r#"{"stored":1}"#).await;
    let refusing = ingest(RecordingLog::refusing(refuse), Some(to), SHADOW);
    assert_eq!(send_to(&refusing, events(body)).await.body, json!({"stored": 1}));
}

/// Whether it was passed on or moved, a beacon is treated like the normal request that it stands
/// for.
#[tokio::test]
async fn beacon_reaches_legacy_as_a_normal_request() {
    let rollout = r#"{"salt":"s","always":{"async":["new"],"shadow":["both"]}}"#;
    let token = bare(json!({"profiles": ["old", "new", "both"]}));
    let passed_on = async |rollout: &str, sent: Value| {
        let (legacy, asked) = legacy(200, "{}").await;
        let ingest = ingest(RecordingLog::new(), Some(legacy), rollout);
        let answer = send_to(&ingest, beacon(&sent)).await;
        let asked: Vec<_> = asked.lock().unwrap().drain(..).collect();
        for (headers, body) in &asked {
            let bytes = token.as_bytes();
            assert!(!body.windows(bytes.len()).any(|part| part == bytes), "the token is in the body");
            assert_eq!(headers["authorization"], format!("Bearer {token}"));
            assert_eq!(headers["content-type"], "application/json");
        }
        assert!(!answer.lines.contains(&token));
        let live = shadows(ingest.local.primary()).into_iter().filter(|shadow| !shadow).count();
        let bodies: Vec<Value> = asked.iter().map(|(_, body)| serde_json::from_slice(body).unwrap()).collect();
        (answer.status, live, bodies)
    };
    let old = json!({"events": [of("old", 1, 0), of("both", 3, 0)], "sent_at": 7});
    let with_token = |mut body: Value| {
        body["token"] = json!(token);
        body
    };
    assert_eq!(passed_on("", with_token(old.clone())).await, (200, 0, vec![old.clone()]));
    assert_eq!(passed_on(rollout, with_token(old.clone())).await, (200, 0, vec![old]));
    let mixed = with_token(json!({"events": [of("old", 1, 0), of("new", 2, 0)]}));
    let to_legacy = json!({"events": [of("old", 1, 0)]});
    assert_eq!(passed_on(rollout, mixed).await, (202, 1, vec![to_legacy]));
    let new = with_token(json!({"events": [of("new", 2, 0)]}));
    assert_eq!(passed_on(rollout, new).await, (202, 1, Vec::new()));
}

#[tokio::test]
async fn beacon_of_the_legacy_system_itself_passes_unread() {
    let (legacy, asked) = legacy(200, "{}").await;
    let ingest = ingest(RecordingLog::new(), Some(legacy), "");
    let body = json!({"events": [event(1, 0)], "token": "opaque-0123"});
    assert_eq!(send_to(&ingest, beacon(&body)).await.status, 200);
    let (headers, passed) = asked.lock().unwrap().pop().unwrap();
    assert_eq!(passed, body.to_string().into_bytes());
    assert!(!headers.contains_key("authorization"));
    assert_eq!(headers["content-type"], "text/plain;charset=UTF-8");
}

#[tokio::test]
async fn unknown_routing_passes_nothing_to_legacy() {
    let body = json!({"events": [event(1, 0)]}).to_string();
    for (unread, passes) in [(Unread::Failed("unreachable".to_owned()), false), (Unread::Absent, true)] {
        let (legacy, asked) = legacy(200, "{}").await;
        let mut ingest = ingest(RecordingLog::new(), Some(legacy), "");
        ingest.routing = Routing::read_by(Regions::parse("us-east-1", "").unwrap(), move || {
            let unread = unread.clone();
            async move { Err(unread) }
        });
        let sent = send_to(&ingest, events(body.clone())).await;
        assert_eq!((sent.status == 200, asked.lock().unwrap().len() == 1), (passes, passes));
        if !passes {
            assert_eq!((sent.status, sent.body["code"].as_str()), (503, Some("routing_unavailable")));
            assert!(sent.headers.contains_key("retry-after"));
        }
        // Without a legacy system, the default is right.
        ingest.legacy = None;
        assert_eq!(send_to(&ingest, events(body.clone())).await.status, 202);
    }
}

#[tokio::test]
async fn async_profiles_never_reach_legacy() {
    let (legacy, asked) = legacy(200, "{}").await;
    let ingest = ingest(RecordingLog::new(), Some(legacy), ASYNC);
    let sent = send_to(&ingest, events(json!({"events": [event(1, 0)]}).to_string())).await;
    assert_eq!((sent.status, &sent.body["accepted"]), (202, &json!(1)));
    assert_eq!(send_to(&ingest, events("not in our format")).await.status, 400);
    assert!(asked.lock().unwrap().is_empty());
    assert_eq!(shadows(ingest.local.primary()), [false]);
}

/// Requests whose events cannot be read, or do not say whose they are.
fn unreadable() -> Vec<(Request, u16)> {
    let with = |name: &str, value: &str, body: String| {
        on_path(http::Request::post("/v1/events").header(name, value).body(Body::from(body)).unwrap())
    };
    let one = json!({"events": [event(1, 0)]}).to_string();
    let nobodys = json!({"events": [{"what": "ever"}, 7]}).to_string();
    vec![
        (with("content-type", "application/json", json!({"events": vec![event(1, 0); 501]}).to_string()), 413),
        (with("content-type", "application/json", " ".repeat(MAX_BODY_BYTES + 1)), 413),
        (with("content-type", "application/x-protobuf", one.clone()), 415),
        (with("content-encoding", "br", one), 415),
        (with("content-type", "application/json", "not JSON".to_owned()), 400),
        (with("content-type", "application/json", r#"{"events":[]}"#.to_owned()), 202),
        (with("content-type", "application/json", nobodys), 202),
    ]
}

/// Who answers when the events cannot be read: the sender's profiles decide.
#[tokio::test]
async fn token_decides_where_an_unreadable_request_goes() {
    let rollout = r#"{"salt":"s","always":{"async":["new","new2"],"shadow":["both"]}}"#;
    let tokens = [
        (Some(json!({"profiles": ["new"]})), true),
        (Some(json!({"profiles": ["new", "new2"]})), true),
        (Some(json!({"profiles": ["old"]})), false),
        (Some(json!({"profiles": ["both"]})), false),
        (Some(json!({"profiles": ["new", "old"]})), false),
        (Some(json!({"profiles": []})), false),
        (Some(json!({"scope": "service"})), false),
        (None, false),
    ];
    for (claims, is_ours) in tokens {
        for (nth, (mut request, status)) in unreadable().into_iter().enumerate() {
            let (legacy, asked) = legacy(418, "{}").await;
            let ingest = ingest(RecordingLog::new(), Some(legacy), rollout);
            if let Some(claims) = &claims {
                request.headers_mut().insert("authorization", token(claims.clone()).parse().unwrap());
            }
            let sent = send_to(&ingest, request).await;
            let expected = if is_ours { (status, 0) } else { (418, 1) };
            assert_eq!((sent.status, asked.lock().unwrap().len()), expected, "{claims:?} {nth}: {}", sent.body);
        }
    }
}

/// An event that names no profile goes where the others of its request go.
#[tokio::test]
async fn stray_event_stays_with_the_others_of_its_request() {
    let rollout = r#"{"salt":"s","always":{"async":["new"]}}"#;
    let sent_with = async |profile: &str| {
        let (legacy, asked) = legacy(200, "{}").await;
        let ingest = ingest(RecordingLog::new(), Some(legacy), rollout);
        let body = json!({"events": [of(profile, 1, 0), {"what": "ever"}]}).to_string();
        let mut request = events(body);
        request.headers_mut().insert("authorization", token(json!({"profiles": [profile]})).parse().unwrap());
        let sent = send_to(&ingest, request).await;
        (sent.status, sent.body["rejected"].as_array().map(Vec::len), asked.lock().unwrap().len())
    };
    assert_eq!(sent_with("new").await, (202, Some(1), 0));
    assert_eq!(sent_with("old").await, (200, None, 1));
}

#[tokio::test]
async fn mixed_request_is_split_and_needs_both_sides() {
    let rollout = r#"{"salt":"s","always":{"async":["new"],"shadow":["both"]}}"#;
    let body = json!({"events": [of("old", 1, 0), of("new", 2, 0), of("both", 3, 0), of("new", 2, 1)]}).to_string();
    let (accepts, asked) = legacy(200, "{}").await;
    let ingest = ingest(RecordingLog::new(), Some(accepts), rollout);
    let sent = send_to(&ingest, on_path(service().body(Body::from(body.clone())).unwrap())).await;
    assert_eq!((sent.status, &sent.body), (202, &json!({"accepted": 4, "rejected": [], "adjusted": []})));
    let passed: Value = serde_json::from_slice(&asked.lock().unwrap()[0].1).unwrap();
    assert_eq!(passed, json!({"events": [of("old", 1, 0), of("both", 3, 0)]}));
    let live: Vec<bool> = shadows(ingest.local.primary()).into_iter().filter(|shadow| !shadow).collect();
    assert_eq!(live.len(), 1, "the one session of the migrated profile");

    let (refuses, _) = legacy(409, r#"{"no":1}"#).await;
    let refused = self::ingest(RecordingLog::new(), Some(refuses), rollout);
    let sent = send_to(&refused, on_path(service().body(Body::from(body)).unwrap())).await;
    assert_eq!((sent.status, &sent.body), (409, &json!({"no": 1})));
    assert!(!shadows(refused.local.primary()).contains(&false), "nothing is accepted on one side only");
}

#[tokio::test]
async fn every_profile_is_on_exactly_one_live_path() {
    let (legacy, asked) = legacy(200, "{}").await;
    let ingest = ingest(RecordingLog::new(), Some(legacy), r#"{"salt":"s","async":"30%","shadow":"60%"}"#);
    let body = json!({"events": (0..200).map(|n| of(&format!("p{n}"), 1, n % 90)).collect::<Vec<_>>()}).to_string();
    let sent = send_to(&ingest, on_path(service().body(Body::from(body)).unwrap())).await;
    assert_eq!((sent.status, &sent.body["accepted"]), (202, &json!(200)));
    let passed: Value = serde_json::from_slice(&asked.lock().unwrap()[0].1).unwrap();
    let names = |value: &Value| value["profile_id"].as_str().unwrap().to_owned();
    let to_legacy: BTreeSet<String> = passed["events"].as_array().unwrap().iter().map(names).collect();
    let envelopes: Vec<Envelope> =
        ingest.local.primary().appended().iter().map(|record| Envelope::decode(&record.value).unwrap()).collect();
    let of_log =
        |shadow| envelopes.iter().filter(move |one| one.stamp.shadow == shadow).map(|one| one.profile_id.clone());
    let (live, copies): (BTreeSet<String>, BTreeSet<String>) = (of_log(false).collect(), of_log(true).collect());
    assert!(live.is_disjoint(&to_legacy) && live.len() + to_legacy.len() == 200);
    assert!(copies.is_subset(&to_legacy) && !copies.is_empty() && !live.is_empty());
}

#[tokio::test]
async fn silent_legacy_is_left_alone_then_retried() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url: url::Url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
    drop(listener);
    let legacy = Legacy::new(url, Duration::from_secs(5)).unwrap();
    let began = Instant::now();
    let why = async |after: u64| {
        let problem = legacy.ask(Passed::default(), began + Duration::from_secs(after)).await.unwrap_err();
        assert_eq!(
            (problem.status, problem.code, problem.retry_after_s),
            (StatusCode::SERVICE_UNAVAILABLE, "legacy_unavailable", Some(5))
        );
        problem.detail.contains("the last requests")
    };
    let mut left_alone = Vec::new();
    for after in [0, 0, 0, 0, 0, 1, 4, 6, 7, 12] {
        left_alone.push(why(after).await);
    }
    assert_eq!(left_alone, [false, false, false, false, false, true, true, false, true, false]);
}

#[tokio::test]
async fn oversized_legacy_answer_is_a_502() {
    let (legacy, _) = legacy(299, "").await;
    let ingest = ingest(RecordingLog::new(), Some(legacy), "");
    let sent = send_to(&ingest, events("{}")).await;
    assert_eq!((sent.status, &sent.body["code"]), (502, &json!("legacy_answer_broken")));
    assert!(sent.lines.contains(r#""LegacyRequests":1"#), "{}", sent.lines);
}
