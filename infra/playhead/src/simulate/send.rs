//! Sends a plan as devices would: a POST that finds no open door is kept and sent again, honouring
//! `Retry-After`, with exponential backoff and jitter; a POST that is refused for good is counted, never hidden.

use super::plan::{Plan, Post};
use anyhow::{Context, Result, bail};
use flate2::{Compression, write::GzEncoder};
use futures::{StreamExt, stream};
use indicatif::ProgressBar;
use jsonwebtoken::{EncodingKey, Header};
use rand::RngExt;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Response, StatusCode};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

const FIRST_BACKOFF: Duration = Duration::from_millis(200);
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);
/// A server that asks for more than this is asked again after this.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(60);
const TIMEOUT: Duration = Duration::from_secs(30);
const TOKEN_LIFETIME: Duration = Duration::from_secs(3_600);
/// Every so many POSTs one is compressed.
const GZIP_EVERY: usize = 4;
/// A report names so many failed POSTs in words; it counts them all.
const FAILURES_TOLD: usize = 10;

/// Where a plan is sent, and as whom.
#[derive(Debug, Clone)]
pub struct Target {
    /// The API's base URL, without `/v1/events`.
    pub endpoint: String,
    /// How the devices prove who they are.
    pub auth: Auth,
}

/// How the devices prove who they are.
#[derive(Clone)]
pub enum Auth {
    /// They send no token.
    None,
    /// All send this token.
    Token(String),
    /// Each sends a token for its own profile, signed (HS256) with the development secret.
    Secret {
        /// The shared secret.
        secret: String,
        /// The claim `iss`, if the endpoint asks for one.
        issuer: Option<String>,
        /// The claim `aud`, if the endpoint asks for one.
        audience: Option<String>,
    },
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Auth::None => "None",
            Auth::Token(_) => "Token(***)",
            Auth::Secret { .. } => "Secret(***)",
        })
    }
}

/// How a plan is sent.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// POSTs in flight at once.
    pub concurrency: usize,
    /// Virtual seconds a second; `None` = as fast as the endpoint answers.
    pub speed: Option<f64>,
    /// How often a POST is tried before it is given up.
    pub attempts: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Self { concurrency: 16, speed: None, attempts: 10 }
    }
}

/// What the endpoint said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SendReport {
    /// POSTs of the plan.
    pub posts: usize,
    /// Their events, malformed ones and copies too; not counted again when a POST is tried again.
    pub events_sent: usize,
    /// Events that the endpoint answered for as accepted.
    pub accepted: usize,
    /// Events that it rejected, by code.
    pub rejected: BTreeMap<String, usize>,
    /// Attempts after the first one.
    pub retries: usize,
    /// Indexes of the POSTs that were given up or refused as a whole; some of their events may have got through.
    pub failed_posts: BTreeSet<usize>,
    /// Why, for the first few of them.
    pub failures: Vec<String>,
}

/// Sends the whole plan. POSTs start in the plan's order, `pace.concurrency` of them at once; the bar counts them.
///
/// # Errors
/// When no HTTP client or token can be made, or an answer breaks the contract. POSTs that fail are no
/// error: the report names them.
pub async fn send(plan: &Plan, target: &Target, pace: Pace, bar: &ProgressBar) -> Result<SendReport> {
    let client = reqwest::Client::builder().timeout(TIMEOUT).build().context("making an HTTP client")?;
    let sender = Sender { client, url: format!("{}/v1/events", target.endpoint.trim_end_matches('/')), target, pace };
    let began = Instant::now();
    let virtual_start = plan.posts.first().map_or(0, |post| post.at_ms);
    bar.set_length(plan.posts.len() as u64);

    let sender = &sender;
    let sending = plan.posts.iter().enumerate().map(|(index, post)| async move {
        if let Some(speed) = pace.speed {
            let since_start = (post.at_ms - virtual_start) as f64 / 1000.0 / speed;
            tokio::time::sleep_until(began + Duration::from_secs_f64(since_start)).await;
        }
        (index, post, sender.deliver(index, post).await)
    });
    let mut sending = stream::iter(sending).buffer_unordered(pace.concurrency.max(1));
    let mut report = SendReport { posts: plan.posts.len(), ..SendReport::default() };
    while let Some((index, post, delivery)) = sending.next().await {
        let delivery = delivery.with_context(|| format!("POST {index}"))?;
        report.add(index, post, delivery);
        bar.inc(1);
    }
    Ok(report)
}

/// How one POST ended.
struct Delivery {
    retries: usize,
    result: Result<Answer, String>,
}

/// The body of a `202`.
#[derive(Debug, Deserialize)]
struct Answer {
    accepted: usize,
    #[serde(default)]
    rejected: Vec<Rejected>,
}

#[derive(Debug, Deserialize)]
struct Rejected {
    code: String,
}

impl SendReport {
    fn add(&mut self, index: usize, post: &Post, delivery: Delivery) {
        self.events_sent += post.events.len();
        self.retries += delivery.retries;
        match delivery.result {
            Ok(answer) => {
                self.accepted += answer.accepted;
                for rejected in answer.rejected {
                    *self.rejected.entry(rejected.code).or_default() += 1;
                }
            }
            Err(why) => {
                self.failed_posts.insert(index);
                if self.failures.len() < FAILURES_TOLD {
                    self.failures.push(format!("POST {index}: {why}"));
                }
            }
        }
    }
}

struct Sender<'a> {
    client: reqwest::Client,
    url: String,
    target: &'a Target,
    pace: Pace,
}

/// What one attempt says about the next.
enum Attempt {
    Answered(Answer),
    Refused(String),
    Again { why: String, not_before: Option<Duration> },
}

impl Sender<'_> {
    async fn deliver(&self, index: usize, post: &Post) -> Result<Delivery> {
        let body = post.body()?;
        let gzip = index % GZIP_EVERY == GZIP_EVERY - 1;
        let body = if gzip { compressed(&body)? } else { body };
        let mut retries = 0;
        loop {
            let result = match self.attempt(post, body.clone(), gzip).await? {
                Attempt::Answered(answer) => Ok(answer),
                Attempt::Refused(why) => Err(why),
                Attempt::Again { why, .. } if retries as u32 + 1 >= self.pace.attempts => {
                    Err(format!("given up after {} attempts: {why}", retries + 1))
                }
                Attempt::Again { not_before, .. } => {
                    tokio::time::sleep(wait(retries, not_before)).await;
                    retries += 1;
                    continue;
                }
            };
            return Ok(Delivery { retries, result });
        }
    }

    async fn attempt(&self, post: &Post, body: Vec<u8>, gzip: bool) -> Result<Attempt> {
        let mut request = self.client.post(&self.url).header(CONTENT_TYPE, "application/json").body(body);
        if gzip {
            request = request.header(CONTENT_ENCODING, "gzip");
        }
        if let Some(token) = self.target.auth.token(&post.profile_id)? {
            request = request.bearer_auth(token);
        }
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => return Ok(Attempt::Again { why: chain(&error), not_before: None }),
        };
        let status = response.status();
        let not_before = retry_after(&response);
        let text = match response.text().await {
            Ok(text) => text,
            Err(error) => return Ok(Attempt::Again { why: chain(&error), not_before }),
        };
        if status == StatusCode::ACCEPTED {
            let answer: Answer = serde_json::from_str(&text).with_context(|| format!("202 with the body {text}"))?;
            if answer.accepted + answer.rejected.len() != post.events.len() {
                bail!("a POST of {} events was answered with {text}", post.events.len());
            }
            return Ok(Attempt::Answered(answer));
        }
        let why = format!("{status} {}", text.trim());
        let closed_for_now = status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error();
        Ok(if closed_for_now { Attempt::Again { why, not_before } } else { Attempt::Refused(why) })
    }
}

impl Auth {
    fn token(&self, profile_id: &str) -> Result<Option<String>> {
        match self {
            Auth::None => Ok(None),
            Auth::Token(token) => Ok(Some(token.clone())),
            Auth::Secret { secret, issuer, audience } => {
                #[derive(Serialize)]
                struct Claims<'a> {
                    sub: &'a str,
                    profiles: [&'a str; 1],
                    exp: u64,
                    #[serde(skip_serializing_if = "Option::is_none")]
                    iss: Option<&'a str>,
                    #[serde(skip_serializing_if = "Option::is_none")]
                    aud: Option<&'a str>,
                }
                let now = SystemTime::now().duration_since(UNIX_EPOCH).context("a clock before 1970")?;
                let claims = Claims {
                    sub: profile_id,
                    profiles: [profile_id],
                    exp: (now + TOKEN_LIFETIME).as_secs(),
                    iss: issuer.as_deref(),
                    aud: audience.as_deref(),
                };
                let key = EncodingKey::from_secret(secret.as_bytes());
                jsonwebtoken::encode(&Header::default(), &claims, &key).context("signing a token").map(Some)
            }
        }
    }
}

fn compressed(body: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body)?;
    Ok(encoder.finish()?)
}

/// `Retry-After` in seconds, the form that the contract uses.
fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_RETRY_AFTER))
}

/// Full jitter, on top of what the server asked for.
fn wait(retries: usize, not_before: Option<Duration>) -> Duration {
    let backoff = FIRST_BACKOFF.saturating_mul(1 << retries.min(16)).min(LONGEST_BACKOFF);
    not_before.unwrap_or_default() + backoff.mul_f64(rand::rng().random_range(0.0..1.0))
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests;
