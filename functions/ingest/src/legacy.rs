//! The legacy system: called synchronously for profiles that have not been migrated yet. The device
//! gets its answer.
//!
//! A request is passed on unchanged, except for the headers that concern a single connection. No
//! part of it is logged. After several calls without a whole answer the system is left alone for a
//! while, and devices get their `503` at once instead of waiting. Redirects are not followed: the
//! device follows them itself.
//!
//! A request is sent once. Whatever fails, nobody can tell whether the system has processed it, so
//! the device decides whether to send it again.

mod answer;
mod connections;
#[cfg(test)]
mod tests;

use crate::beacon::Post;
use answer::{Broken, pass_back};
use connections::Connections;
use http::header::{
    CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, HOST, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, Response, StatusCode};
use lambda::clock::now_ms;
use lambda::problem::Problem;
use lambda_http::Body;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use url::Url;

/// After this many requests in a row without a whole answer, the system is left alone.
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
    connections: Connections,
    endpoint: Url,
    health: Mutex<Health>,
}

#[derive(Debug, Default)]
struct Health {
    failures: u32,
    resting_until: Option<Instant>,
}

/// A request for the legacy system.
#[derive(Default)]
pub(crate) struct Passed {
    headers: HeaderMap,
    query: Option<String>,
    body: Vec<u8>,
}

impl Passed {
    /// The request as it came.
    pub(crate) fn whole(post: &Post<'_>, query: Option<&str>) -> Self {
        Self { headers: end_to_end(&post.headers), query: query.map(str::to_owned), body: post.body.to_vec() }
    }

    /// The request with another body, which is not compressed.
    pub(crate) fn with_body(mut self, body: Vec<u8>) -> Self {
        self.headers.remove(CONTENT_ENCODING);
        Self { body, ..self }
    }
}

impl Legacy {
    /// A client for the legacy endpoint, which must answer within `time_out`.
    ///
    /// # Errors
    /// When no HTTP client can be built.
    pub fn new(endpoint: Url, time_out: Duration) -> Result<Self, reqwest::Error> {
        let connections = Connections::new(endpoint.clone(), time_out, now_ms())?;
        Ok(Self { connections, endpoint, health: Mutex::default() })
    }

    /// Passes a request on and returns the answer for the device.
    ///
    /// # Errors
    /// A `503` when there is no answer or the system is left alone; a `502` when its answer cannot
    /// be passed back.
    pub(crate) async fn ask(&self, request: Passed, now: Instant) -> Result<Response<Body>, Problem> {
        if !self.may_ask(now) {
            return Err(unavailable("it did not answer the last requests"));
        }
        let began = Instant::now();
        let Passed { headers, query, body } = request;
        let call = self.connections.client(now_ms()).post(self.url(query.as_deref())).headers(headers).body(body);
        let answer = match call.send().await {
            Ok(answer) => pass_back(answer).await,
            Err(error) => {
                // Without the URL, whose query is the device's, the client's error names nothing of
                // a request.
                tracing::error!(error = %error.without_url(), "the legacy system did not answer");
                self.has_failed(now + began.elapsed());
                return Err(unavailable("it did not answer"));
            }
        };
        match answer {
            Err(Broken::Off) => self.has_failed(now + began.elapsed()),
            Ok(_) | Err(Broken::TooLarge) => self.has_answered(),
        }
        answer.map_err(|broken| Problem::new(StatusCode::BAD_GATEWAY, "legacy_answer_broken", broken.to_string()))
    }

    /// The endpoint with the query of a request, after its own.
    fn url(&self, query: Option<&str>) -> Url {
        let mut url = self.endpoint.clone();
        if let Some(query) = query.filter(|query| !query.is_empty()) {
            let own = self.endpoint.query().map(|own| format!("{own}&")).unwrap_or_default();
            url.set_query(Some(&format!("{own}{query}")));
        }
        url
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
