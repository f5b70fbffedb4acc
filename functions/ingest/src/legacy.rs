//! The system that we take over from: asked synchronously for profiles that are not moved yet, and its answer is the device's answer, as
//! before.
//!
//! What is passed on is the request as it came: its body unchanged, its headers but those that are about one connection. Nothing of it is logged. A system that
//! does not answer is left alone for a while, so that its devices get their `503` at once instead of waiting for it. Redirects are not followed: they are
//! the device's to follow.

use crate::body::MAGIC;
use bytes::BytesMut;
use http::header::{
    CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, HOST, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, Response, StatusCode};
use lambda::problem::Problem;
use lambda_http::Body;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use url::Url;

/// The largest answer that is passed back, bytes.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;
/// How long a connection may take to be made.
const CONNECT_TIME_OUT: Duration = Duration::from_secs(1);
/// Requests in a row without an answer after which it is left alone.
const FAILURES: u32 = 5;
/// How long it is left alone; then one request tries.
const REST: Duration = Duration::from_secs(5);
/// After how many seconds a device is to come again.
const RETRY_AFTER_S: u32 = 5;

/// Headers that are about one connection (RFC 9110, 7.6.1), or that the next connection makes anew.
const OF_THE_CONNECTION: [HeaderName; 9] = [
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
    /// The endpoint that takes what players send, and how long it may take to answer.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn new(endpoint: Url, time_out: Duration) -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .timeout(time_out)
            .connect_timeout(CONNECT_TIME_OUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self { client, endpoint, health: Mutex::default() })
    }

    /// Passes a request on and gives its answer as the device's.
    ///
    /// # Errors
    /// A `503` when there is no answer, or it is left alone; a `502` when its answer cannot be passed back.
    pub async fn ask(&self, headers: &HeaderMap, body: Vec<u8>, now: Instant) -> Result<Response<Body>, Problem> {
        if !self.may_ask(now) {
            return Err(unavailable("it did not answer the last requests"));
        }
        let is_gzip = body.starts_with(&MAGIC);
        let mut passed = passed_on(headers);
        if !is_gzip {
            // The gateway decompressed it on the way.
            passed.remove(CONTENT_ENCODING);
        }
        let asked = self.client.post(self.endpoint.clone()).headers(passed).body(body).send().await;
        let answer = match asked {
            Ok(answer) => answer,
            Err(error) => {
                self.has_failed(now);
                // The error of the client names the URL at the most, never a header or the body.
                tracing::error!(%error, "the legacy system did not answer");
                return Err(unavailable("it did not answer"));
            }
        };
        self.has_answered();
        pass_back(answer).await
    }

    /// Whether it is asked now: always while it answers, and once in a while when it does not.
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
    let detail = format!("the system behind this profile is not available: {why}; send the request again");
    Problem::unavailable("legacy_unavailable", detail, RETRY_AFTER_S)
}

/// What of the headers is for the next one to see.
fn passed_on(headers: &HeaderMap) -> HeaderMap {
    let named = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let named: Vec<String> =
        named.flat_map(|names| names.split(',')).map(|name| name.trim().to_ascii_lowercase()).collect();
    let is_passed = |name: &HeaderName| {
        !OF_THE_CONNECTION.contains(name)
            && name.as_str() != "keep-alive"
            && !named.iter().any(|connection| connection == name.as_str())
    };
    headers.iter().filter(|(name, _)| is_passed(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
}

async fn pass_back(mut answer: reqwest::Response) -> Result<Response<Body>, Problem> {
    let broken = |detail: &str| Problem::new(StatusCode::BAD_GATEWAY, "legacy_answer_broken", detail.to_owned());
    let (status, headers) = (answer.status(), passed_on(answer.headers()));
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
