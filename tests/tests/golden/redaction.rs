//! No token, cookie or secret is logged or answered, at any level and however an invocation ends.

use crate::case::{Case, event_bytes};
use crate::{on_disk, run, runtime, shape};
use lambda::testing::Logged;
use serde_json::{Value, json};
use tracing::level_filters::LevelFilter;

/// What a request may carry besides its token.
const COOKIE: &str = "a-cookie-that-nobody-may-see";
const KEY: &str = "a-key-that-nobody-may-see";

/// The case's event, with a cookie and a key if it is a request; and what must not show.
fn with_secrets(case: &Case) -> (Vec<u8>, Vec<String>) {
    let bytes = event_bytes(case).unwrap();
    let mut secrets = vec![shape::SECRET.to_owned(), COOKIE.to_owned(), KEY.to_owned()];
    let mut event: Value = serde_json::from_slice(&bytes).unwrap();
    let Some(headers) = event["headers"].as_object_mut() else { return (bytes, secrets) };
    let of_header = headers.get("authorization").and_then(Value::as_str).map(str::to_owned);
    headers.insert("cookie".to_owned(), json!(format!("session={COOKIE}")));
    headers.insert("x-api-key".to_owned(), json!(KEY));
    event["cookies"] = json!([format!("session={COOKIE}")]);
    let body = event["body"].as_str().and_then(|body| serde_json::from_str::<Value>(body).ok());
    let of_body = body.and_then(|body| Some(body["token"].as_str()?.to_owned()));
    for token in of_header.into_iter().chain(of_body) {
        // A part of a token is as bad: the claims name a member, and the signature is the secret.
        let parts = token.trim_start_matches("Bearer ").split('.').filter(|part| part.len() > 10);
        secrets.extend(parts.map(str::to_owned));
    }
    (event.to_string().into_bytes(), secrets)
}

#[test]
fn no_token_cookie_or_secret_is_logged_or_answered() {
    let (mut lines, mut tokens) = (0, 0);
    for (id, case) in on_disk() {
        let (event, secrets) = with_secrets(&case);
        let logged = Logged::at(LevelFilter::TRACE);
        let outcome = runtime().block_on(run::run_bytes(&case, &event)).unwrap();
        assert_eq!(outcome, case.expected.expect, "{id}");
        let (logged, outcome) = (logged.text(), outcome.to_string());
        for secret in &secrets {
            assert!(!logged.contains(secret), "{id} logs {secret}: {logged}");
            assert!(!outcome.contains(secret), "{id} tells {secret}: {outcome}");
        }
        lines += logged.lines().count();
        tokens += usize::from(secrets.len() > 3);
    }
    assert!(lines > 50 && tokens > 50, "only {lines} lines and {tokens} tokens were looked at");
}
