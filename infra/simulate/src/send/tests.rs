#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use crate::expect::expect;
use crate::plan::DEFAULT_START_AT;
use crate::{Faults, Model};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use flate2::read::GzDecoder;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use playback::edge::{self, SessionWindow};
use std::io::Read;
use std::sync::{Arc, Mutex};

const SECRET: &str = "a-secret-of-a-development-stage!";

/// An endpoint that keeps the contract. It first gives some scripted answers.
#[derive(Default)]
struct Endpoint {
    /// Answers to the first attempts, in reverse order.
    closed: Mutex<Vec<StatusCode>>,
    attempts: Mutex<Vec<Instant>>,
    gzipped: Mutex<usize>,
}

async fn events(State(endpoint): State<Arc<Endpoint>>, headers: HeaderMap, body: Bytes) -> Response {
    endpoint.attempts.lock().unwrap().push(Instant::now());
    if let Some(status) = endpoint.closed.lock().unwrap().pop() {
        return (status, [(RETRY_AFTER, "1")]).into_response();
    }
    let mut plain = body.to_vec();
    if headers.contains_key(CONTENT_ENCODING) {
        *endpoint.gzipped.lock().unwrap() += 1;
        plain.clear();
        GzDecoder::new(body.as_ref()).read_to_end(&mut plain).unwrap();
    }
    let Some(profiles) = profiles(&headers) else { return StatusCode::UNAUTHORIZED.into_response() };
    let mut accepted = 0;
    let mut rejected = Vec::new();
    let body = edge::BodyText::new(&plain);
    for (index, raw) in edge::parse_request(&body).unwrap().events.into_iter().enumerate() {
        match edge::validate(raw, DEFAULT_START_AT as u64, SessionWindow::default()) {
            Ok(valid) if profiles.contains(&valid.event.profile_id) => accepted += 1,
            Ok(_) => return StatusCode::FORBIDDEN.into_response(),
            Err(rejection) => {
                rejected.push(serde_json::json!({"index": index, "code": rejection.code, "message": rejection.message}))
            }
        }
    }
    let answer = serde_json::json!({"accepted": accepted, "rejected": rejected});
    (StatusCode::ACCEPTED, answer.to_string()).into_response()
}

fn profiles(headers: &HeaderMap) -> Option<Vec<String>> {
    #[derive(Deserialize)]
    struct Claims {
        profiles: Vec<String>,
    }
    let token = headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?;
    let mut validation = Validation::new(Algorithm::HS256);
    validation.set_issuer(&["stage"]);
    validation.set_audience(&["playhead"]);
    let key = DecodingKey::from_secret(SECRET.as_bytes());
    Some(jsonwebtoken::decode::<Claims>(token, &key, &validation).ok()?.claims.profiles)
}

async fn serve(closed: Vec<StatusCode>) -> (Arc<Endpoint>, String) {
    let endpoint = Arc::new(Endpoint { closed: Mutex::new(closed), ..Endpoint::default() });
    let app = Router::new().route("/v1/events", post(events)).with_state(Arc::clone(&endpoint));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    (endpoint, url)
}

fn secret(issuer: &str) -> Auth {
    Auth::Secret { secret: SECRET.to_owned(), issuer: Some(issuer.to_owned()), audience: Some("playhead".to_owned()) }
}

fn plan(sessions: usize) -> Plan {
    let faults = Faults { duplicates: 0.1, reorder: 0.1, late: 0.1, lost: 0.0, malformed: 0.1 };
    let homes = vec!["use1".parse().unwrap()];
    let model = Model { sessions, viewers: None, titles: 20, homes, travel: None, seed: 5, faults };
    Plan::ending_at(&model, DEFAULT_START_AT).unwrap()
}

async fn sent(plan: &Plan, endpoint: String, auth: Auth, pace: Pace) -> SendReport {
    send(plan, &Target { endpoint, elsewhere: BTreeMap::new(), auth }, pace, &ProgressBar::hidden()).await.unwrap()
}

#[tokio::test]
async fn report_matches_the_plans_expectation() {
    let plan = plan(20);
    let (endpoint, url) = serve(Vec::new()).await;
    let report = sent(&plan, url, secret("stage"), Pace::default()).await;
    let expected = expect(&plan, &BTreeSet::new());
    assert_eq!(report.rejected, expected.rejected);
    assert!(report.rejected.len() > 5, "{report:?}");
    assert_eq!((report.posts, report.events_sent), (plan.posts.len(), plan.events().count()));
    assert_eq!((report.accepted, report.retries), (expected.accepted, 0));
    assert!(report.failed_posts.is_empty());
    assert_eq!(*endpoint.gzipped.lock().unwrap(), plan.posts.len() / GZIP_EVERY);
}

#[tokio::test]
async fn legacy_answer_is_a_success_counted_separately() {
    let mut plan = plan(3);
    plan.posts.truncate(2);
    let (_endpoint, url) = serve(vec![StatusCode::OK]).await;
    let report = sent(&plan, url, secret("stage"), Pace { concurrency: 1, ..Pace::default() }).await;
    assert_eq!((report.first_try, report.failed_posts.len(), report.by_legacy.len()), (2, 0, 1));
    let (by_us, all) = (report.accepted + report.rejected.values().sum::<usize>(), report.events_sent);
    assert_eq!(by_us, all - plan.posts[0].events.len(), "events are not counted from another system's answer");
}

#[tokio::test]
async fn unavailable_endpoint_is_retried_after_retry_after() {
    let mut plan = plan(1);
    plan.posts.truncate(1);
    let (endpoint, url) = serve(vec![StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE]).await;
    let report = sent(&plan, url, secret("stage"), Pace::default()).await;
    assert_eq!((report.retries, report.failed_posts.len()), (2, 0));
    assert_eq!(report.accepted + report.rejected.values().sum::<usize>(), report.events_sent);
    let attempts = endpoint.attempts.lock().unwrap();
    assert!(attempts.windows(2).all(|pair| pair[1] - pair[0] >= Duration::from_secs(1)), "{attempts:?}");
}

#[tokio::test]
async fn refused_post_fails_at_once_and_is_named() {
    let mut plan = plan(3);
    plan.posts.truncate(2);
    let (endpoint, url) = serve(Vec::new()).await;
    let report = sent(&plan, url, secret("another stage"), Pace::default()).await;
    assert_eq!(report.failed_posts, BTreeSet::from([0, 1]));
    assert_eq!((report.accepted, report.retries), (0, 0));
    assert!(report.failures[0].contains("401"), "{report:?}");
    assert_eq!(endpoint.attempts.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn unanswered_post_is_given_up_after_max_attempts() {
    let mut plan = plan(1);
    plan.posts.truncate(1);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let report = sent(&plan, nobody, Auth::None, Pace { attempts: 2, ..Pace::default() }).await;
    assert_eq!((report.retries, report.failed_posts), (1, BTreeSet::from([0])));
    assert!(report.failures[0].contains("given up after 2 attempts"), "{:?}", report.failures);
}

#[tokio::test]
async fn paced_posts_keep_their_spacing() {
    let plan = plan(2);
    let span_ms = plan.posts.last().unwrap().at_ms - plan.posts[0].at_ms;
    let (_endpoint, url) = serve(Vec::new()).await;
    let began = Instant::now();
    let pace = Pace { speed: Some(span_ms as f64 / 500.0), ..Pace::default() };
    let report = sent(&plan, url, secret("stage"), pace).await;
    assert!(report.failed_posts.is_empty());
    assert!(began.elapsed() >= Duration::from_millis(490), "{:?}", began.elapsed());
}

#[tokio::test]
async fn waiting_post_delays_no_other_in_an_open_loop() {
    let mut plan = plan(4);
    plan.posts.truncate(12);
    let (endpoint, url) = serve(vec![StatusCode::SERVICE_UNAVAILABLE]).await;
    let pace = Pace { concurrency: 1, per_second: Some(100.0), ..Pace::default() };
    let report = sent(&plan, url, secret("stage"), pace).await;
    assert_eq!((report.posts, report.first_try, report.retries), (12, 11, 1));
    let last = report.attempts.last().unwrap();
    assert_eq!((last.number, last.succeeded()), (1, true), "the refused POST is answered last");
    assert!(report.attempts.iter().any(|attempt| attempt.status == Some(StatusCode::SERVICE_UNAVAILABLE)));
    assert_eq!(endpoint.attempts.lock().unwrap().len(), 13);
}

#[tokio::test]
async fn closed_valve_means_nothing_in_flight_and_nothing_starts() {
    let mut plan = plan(10);
    plan.posts.truncate(20);
    let (endpoint, url) = serve(Vec::new()).await;
    let target = Target { endpoint: url, elsewhere: BTreeMap::new(), auth: secret("stage") };
    let pace = Pace { concurrency: 3, per_second: Some(100.0), ..Pace::default() };
    let (valve, bar) = (Valve::new(pace), ProgressBar::hidden());
    let pause = async {
        let closed = valve.close().await.unwrap();
        let before = endpoint.attempts.lock().unwrap().len();
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(endpoint.attempts.lock().unwrap().len(), before);
        drop(closed);
    };
    let (report, ()) = tokio::join!(send_through(&valve, &plan, &target, pace, &bar), pause);
    assert_eq!(report.unwrap().first_try, 20);
}

#[tokio::test]
async fn stopped_sending_reports_what_it_left_out() {
    let plan = plan(10);
    let (endpoint, url) = serve(Vec::new()).await;
    let target = Target { endpoint: url, elsewhere: BTreeMap::new(), auth: secret("stage") };
    let pace = Pace { per_second: Some(50.0), ..Pace::default() };
    let (valve, bar) = (Valve::new(pace), ProgressBar::hidden());
    let stop = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        valve.stop();
    };
    let (report, ()) = tokio::join!(send_through(&valve, &plan, &target, pace, &bar), stop);
    let report = report.unwrap();
    assert!(report.posts >= 1 && !report.unsent.is_empty(), "{} of {}", report.posts, plan.posts.len());
    assert_eq!(report.posts + report.unsent.len(), plan.posts.len());
    assert_eq!(report.posts, endpoint.attempts.lock().unwrap().len());
    assert_eq!(report.accepted, expect(&plan, &report.unsent).accepted);
}

#[tokio::test]
async fn posts_that_wait_for_a_place_have_not_started_and_stop() {
    let plan = plan(10);
    let (endpoint, url) = serve(Vec::new()).await;
    let target = Target { endpoint: url, elsewhere: BTreeMap::new(), auth: secret("stage") };
    let pace = Pace { per_second: Some(1e6), ..Pace::default() };
    let (valve, bar) = (Valve::new(pace), ProgressBar::hidden());
    let closed = valve.close().await.unwrap();
    let stop = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        valve.stop();
        drop(closed);
    };
    let (report, ()) = tokio::join!(send_through(&valve, &plan, &target, pace, &bar), stop);
    assert_eq!(report.unwrap().unsent.len(), plan.posts.len());
    assert!(endpoint.attempts.lock().unwrap().is_empty());
}

#[test]
fn wait_grows_and_honours_retry_after() {
    for retries in 0..100 {
        assert!(wait(retries, None) <= LONGEST_BACKOFF);
        let asked = Duration::from_secs(3);
        assert!((asked..=asked + LONGEST_BACKOFF).contains(&wait(retries, Some(asked))));
    }
    assert!(wait(0, None) <= FIRST_BACKOFF);
    let secret = format!("{:?}", secret("stage"));
    assert!(!secret.contains(SECRET));
}
