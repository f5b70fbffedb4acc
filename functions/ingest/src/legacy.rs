//! The legacy system: called synchronously for profiles that have not been migrated yet. The device
//! gets its answer.
//!
//! A request is passed on unchanged, except for the headers that concern a single connection. No
//! part of it is logged. After several calls without an answer the system is left alone for a
//! while, and devices get their `503` at once instead of waiting. Redirects are not followed: the
//! device follows them itself.

use crate::body::MAGIC;
use bytes::BytesMut;
use http::header::{
    CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, HOST, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, Response, StatusCode};
use lambda::http_client::client_for;
use lambda::problem::Problem;
use lambda_http::Body;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use url::Url;

/// The largest answer that is passed back, in bytes.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;
/// How long connecting may take.
const CONNECT_TIME_OUT: Duration = Duration::from_secs(1);
/// After this many requests in a row without an answer, the system is left alone.
const FAILURES: u32 = 5;
/// How long it is left alone; then one request tries again.
const REST: Duration = Duration::from_secs(5);
/// After how many seconds a device should retry.
const RETRY_AFTER_S: u32 = 5;

/// Headers that concern a single connection (RFC 9110, 7.6.1), or that the next connection sets
/// itself.
const CONNECTION_HEADERS: [HeaderName; 9] = [
    CONNECTION,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    HOST,
    CONTENT_LENGTH,
];

/// The legacy system's endpoint for events.
#[derive(Debug)]
pub struct Legacy {
    client: reqwest::Client,
    endpoint: Url,
    health: Mutex<Health>,
}

#[derive(Debug, Default)]
struct Health {
    failures: u32,
    resting_until: Option<Instant>,
}

impl Legacy {
    /// A client for the legacy endpoint, which must answer within `time_out`.
    ///
    /// # Errors
    /// When no HTTP client can be built.
    pub fn new(endpoint: Url, time_out: Duration) -> Result<Self, reqwest::Error> {
        let client = client_for(&endpoint).timeout(time_out).connect_timeout(CONNECT_TIME_OUT).build()?;
        Ok(Self { client, endpoint, health: Mutex::default() })
    }

    /// Passes a request on and returns the answer for the device.
    ///
    /// # Errors
    /// A `503` when there is no answer or the system is left alone; a `502` when its answer cannot
    /// be passed back.
    pub async fn ask(&self, headers: &HeaderMap, body: Vec<u8>, now: Instant) -> Result<Response<Body>, Problem> {
        if !self.may_ask(now) {
            return Err(unavailable("it did not answer the last requests"));
        }
        let is_gzip = body.starts_with(&MAGIC);
        let mut passed = end_to_end(headers);
        if !is_gzip {
            // The gateway has decompressed the body.
            passed.remove(CONTENT_ENCODING);
        }
        let asked = self.client.post(self.endpoint.clone()).headers(passed).body(body).send().await;
        let answer = match asked {
            Ok(answer) => answer,
            Err(error) => {
                self.has_failed(now);
                // The client's error may name the URL, but never a header or the body.
                tracing::error!(%error, "the legacy system did not answer");
                return Err(unavailable("it did not answer"));
            }
        };
        self.has_answered();
        pass_back(answer).await
    }

    /// Whether to call the system now: always while it answers, and now and then while it does not.
    fn may_ask(&self, now: Instant) -> bool {
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        match health.resting_until {
            Some(until) if now < until => false,
            Some(_) => {
                health.resting_until = Some(now + REST);
                true
            }
            None => true,
        }
    }

    fn has_answered(&self) {
        *self.health.lock().unwrap_or_else(PoisonError::into_inner) = Health::default();
    }

    fn has_failed(&self, now: Instant) {
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        health.failures += 1;
        if health.failures >= FAILURES {
            health.resting_until = Some(now + REST);
        }
    }
}

fn unavailable(why: &str) -> Problem {
    let detail = format!("the system behind this profile is unavailable: {why}; send the request again");
    Problem::unavailable("legacy_unavailable", detail, RETRY_AFTER_S)
}

/// The headers that do not concern a single connection.
fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let named = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let named: Vec<String> =
        named.flat_map(|names| names.split(',')).map(|name| name.trim().to_ascii_lowercase()).collect();
    let is_passed = |name: &HeaderName| {
        !CONNECTION_HEADERS.contains(name)
            && name.as_str() != "keep-alive"
            && !named.iter().any(|connection| connection == name.as_str())
    };
    headers.iter().filter(|(name, _)| is_passed(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
}

async fn pass_back(mut answer: reqwest::Response) -> Result<Response<Body>, Problem> {
    let broken = |detail: &str| Problem::new(StatusCode::BAD_GATEWAY, "legacy_answer_broken", detail.to_owned());
    let (status, headers) = (answer.status(), end_to_end(answer.headers()));
    let mut body = BytesMut::new();
    while let Some(chunk) = answer.chunk().await.map_err(|_| broken("the legacy system's answer broke off"))? {
        if body.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Err(broken("the legacy system's answer is larger than 1 MiB"));
        }
        body.extend_from_slice(&chunk);
    }
    let body = match String::from_utf8(body.to_vec()) {
        Ok(text) if text.is_empty() => Body::Empty,
        Ok(text) if !headers.contains_key(CONTENT_ENCODING) => Body::Text(text),
        Ok(text) => Body::Binary(text.into_bytes()),
        Err(bytes) => Body::Binary(bytes.into_bytes()),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}
