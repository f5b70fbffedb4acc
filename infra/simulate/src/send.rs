//! Sends a plan as devices would. A POST that gets no answer, a `429` or a `5xx` is kept and sent
//! again, honouring `Retry-After`, with exponential backoff and jitter. A POST that is refused is
//! counted, never hidden.

use super::http::Http;
use super::plan::{Plan, Post};
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use futures::{StreamExt as _, stream};
use indicatif::ProgressBar;
use jsonwebtoken::{EncodingKey, Header};
use operate::Endpoints;
use playback::session::Home;
use rand::RngExt;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Response, StatusCode};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{Semaphore, SemaphorePermit, mpsc, watch};
use tokio::time::Instant;

const FIRST_BACKOFF: Duration = Duration::from_millis(200);
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);
/// Maximum `Retry-After` that is honoured.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(60);
const TIMEOUT: Duration = Duration::from_secs(30);
const TOKEN_LIFETIME: Duration = Duration::from_secs(3_600);
/// One POST in this many is compressed.
const GZIP_EVERY: usize = 4;
/// How many failed POSTs a report describes. It counts them all.
const FAILURES_TOLD: usize = 10;

/// Where a plan is sent, and as whom.
#[derive(Debug, Clone)]
pub struct Target {
    /// The API's base URL, without `/v1/events`.
    pub endpoint: String,
    /// The base URLs of other regions, by the home that a POST goes through.
    pub elsewhere: BTreeMap<Home, String>,
    /// How devices authenticate.
    pub auth: Auth,
}

/// How devices authenticate.
#[derive(Clone)]
pub enum Auth {
    /// They send no token.
    None,
    /// All send this token.
    Token(String),
    /// Each sends a token for its own profile, signed with the development secret (HS256).
    Secret {
        /// The shared secret.
        secret: String,
        /// The claim `iss`, if the endpoint requires it.
        issuer: Option<String>,
        /// The claim `aud`, if the endpoint requires it.
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

impl Auth {
    /// The secret of a local cloud.
    #[must_use]
    pub fn of(cloud: &Endpoints) -> Self {
        Self::Secret { secret: cloud.jwt_secret.clone(), issuer: None, audience: None }
    }
}

/// The APIs of a local cloud's regions, including its own. Empty if it has no peers.
#[must_use]
pub fn elsewhere(cloud: &Endpoints) -> BTreeMap<Home, String> {
    let regions = cloud.regions().filter(|_| !cloud.peers.is_empty());
    regions.filter_map(|region| Some((Home::of_region(&region.region)?, region.api.clone()))).collect()
}

/// How a plan is sent.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Maximum number of attempts in flight at once.
    pub concurrency: usize,
    /// Virtual seconds per second. `None` = as fast as the endpoint answers.
    pub speed: Option<f64>,
    /// New POSTs per second, evenly spaced, whether or not earlier ones were answered (an open
    /// loop: devices do not wait for each other). `None` = a closed loop: a POST that waits for its
    /// next attempt takes the place of a new one.
    pub per_second: Option<f64>,
    /// Maximum number of attempts per POST.
    pub attempts: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Self { concurrency: 16, speed: None, per_second: None, attempts: 10 }
    }
}

/// What was sent, and what the endpoint answered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SendReport {
    /// POSTs that were sent: all of the plan, unless it was stopped.
    pub posts: usize,
    /// Their events, including malformed ones and copies. Later attempts do not count again.
    pub events_sent: usize,
    /// Events that the endpoint accepted.
    pub accepted: usize,
    /// Events that it rejected, by code.
    pub rejected: BTreeMap<String, usize>,
    /// POSTs that succeeded at the first attempt, see [`Attempt::succeeded`].
    pub first_try: usize,
    /// Attempts after the first one.
    pub retries: usize,
    /// Indexes of the POSTs that were given up or refused as a whole. Some of their events may have
    /// arrived.
    pub failed_posts: BTreeSet<usize>,
    /// Why, for the first few of them.
    pub failures: Vec<String>,
    /// Answers of a legacy system behind the endpoint, by index of the POST: `200` and its own
    /// body, which does not count events.
    #[serde(skip)]
    pub by_legacy: BTreeMap<usize, LegacyAnswer>,
    /// Prefix of the header `x-request-id`, which is `<id>-<index of the POST>-<number of the
    /// attempt>`.
    #[serde(skip)]
    pub id: String,
    /// Indexes of the POSTs that were not sent because the sending was stopped.
    #[serde(skip)]
    pub unsent: BTreeSet<usize>,
    /// Every attempt, in the order in which POSTs ended.
    #[serde(skip)]
    pub attempts: Vec<Attempt>,
}

/// A legacy system's answer that was passed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LegacyAnswer {
    /// Its header `content-type`.
    pub content_type: Option<String>,
    /// Its body.
    pub body: Bytes,
}

/// One attempt to send a POST.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// Index of the POST.
    pub post: usize,
    /// 0 for the first.
    pub number: usize,
    /// When it started, Unix milliseconds.
    pub began_at: u64,
    /// How long until it was answered or given up.
    pub took: Duration,
    /// The answer's status. `None` if there was no answer.
    pub status: Option<StatusCode>,
}

impl Attempt {
    /// When it was answered or given up, Unix milliseconds.
    #[must_use]
    pub fn ended_at(&self) -> u64 {
        self.began_at + self.took.as_millis() as u64
    }

    /// Whether the answer was our `202`, or the `200` of a legacy system.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        matches!(self.status, Some(StatusCode::ACCEPTED | StatusCode::OK))
    }
}

/// Pauses and stops the sending of a plan.
#[derive(Debug)]
pub struct Valve {
    /// Permits for attempts in flight.
    places: Semaphore,
    size: u32,
    stopped: watch::Sender<bool>,
    /// Who is told about every attempt as it ends.
    told: Option<mpsc::UnboundedSender<Attempt>>,
}

impl Valve {
    /// An open valve for the pace's number of attempts in flight.
    #[must_use]
    pub fn new(pace: Pace) -> Self {
        let size = u32::try_from(pace.concurrency.max(1)).unwrap_or(u32::MAX);
        Self { places: Semaphore::new(size as usize), size, stopped: watch::Sender::new(false), told: None }
    }

    /// The same, and tells about every attempt as it ends, for those who cannot wait for the
    /// report.
    #[must_use]
    pub fn telling(pace: Pace, told: mpsc::UnboundedSender<Attempt>) -> Self {
        Self { told: Some(told), ..Self::new(pace) }
    }

    /// Waits until every attempt in flight has ended. No attempt starts until the returned permit
    /// is dropped.
    ///
    /// # Errors
    /// Never in practice: the places are never closed.
    pub async fn close(&self) -> Result<SemaphorePermit<'_>> {
        Ok(self.places.acquire_many(self.size).await?)
    }

    /// From now on no new POST starts. Those that have started are finished.
    pub fn stop(&self) {
        self.stopped.send_replace(true);
    }
}

/// Sends the whole plan. POSTs start in the plan's order. The bar counts them.
///
/// # Errors
/// If no HTTP client or token can be made, or an answer breaks the contract. POSTs that fail are
/// not an error: the report names them.
pub async fn send(plan: &Plan, target: &Target, pace: Pace, bar: &ProgressBar) -> Result<SendReport> {
    send_through(&Valve::new(pace), plan, target, pace, bar).await
}

/// Sends the plan as [`send`] does, as far as the valve allows.
///
/// # Errors
/// As [`send`].
pub async fn send_through(
    valve: &Valve,
    plan: &Plan,
    target: &Target,
    pace: Pace,
    bar: &ProgressBar,
) -> Result<SendReport> {
    let http = Http::new(|builder| builder.timeout(TIMEOUT))?;
    let id = format!("{:016x}", rand::random::<u64>());
    let sender = Sender { http, target, pace, valve, id: &id };
    let began = Instant::now();
    let virtual_start = plan.posts.first().map_or(0, |post| post.at_ms);
    bar.set_length(plan.posts.len() as u64);

    let sender = &sender;
    let sending = (0..plan.posts.len()).map(|index| async move {
        let post = &plan.posts[index];
        let paced = pace.per_second.map(|rate| index as f64 / rate);
        let played = pace.speed.map(|speed| (post.at_ms - virtual_start) as f64 / 1000.0 / speed);
        let due = began + Duration::from_secs_f64(paced.into_iter().chain(played).fold(0.0, f64::max));
        let mut stopped = valve.stopped.subscribe();
        let its_turn = async {
            tokio::time::sleep_until(due).await;
            valve.places.acquire().await
        };
        tokio::select! {
            biased;
            _ = async { stopped.wait_for(|stopped| *stopped).await.map(drop) } => (index, post, None),
            place = its_turn => (index, post, Some(async { sender.deliver(index, post, place?).await }.await)),
        }
    });
    let at_once = if pace.per_second.is_some() { plan.posts.len() } else { pace.concurrency };
    let mut sending = stream::iter(sending).buffer_unordered(at_once.max(1));
    let mut report = SendReport { id: id.clone(), ..SendReport::default() };
    while let Some((index, post, delivery)) = sending.next().await {
        match delivery {
            Some(delivery) => report.add(index, post, delivery.with_context(|| format!("POST {index}"))?),
            None => drop(report.unsent.insert(index)),
        }
        bar.inc(1);
    }
    Ok(report)
}

/// How one POST ended.
struct Delivery {
    attempts: Vec<Attempt>,
    result: Result<Taken, String>,
}

/// The system that took a POST, and its answer.
enum Taken {
    Here(Answer),
    ByLegacy(LegacyAnswer),
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
        self.posts += 1;
        self.events_sent += post.events.len();
        self.retries += delivery.attempts.len() - 1;
        self.first_try += usize::from(delivery.attempts[0].succeeded());
        self.attempts.extend(delivery.attempts);
        match delivery.result {
            Ok(Taken::ByLegacy(answer)) => drop(self.by_legacy.insert(index, answer)),
            Ok(Taken::Here(answer)) => {
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
    http: Http,
    target: &'a Target,
    pace: Pace,
    valve: &'a Valve,
    id: &'a str,
}

/// The result of one attempt.
enum Reply {
    Taken(Taken),
    Refused(String),
    Again { why: String, not_before: Option<Duration> },
}

impl Sender<'_> {
    async fn deliver(&self, index: usize, post: &Post, place: SemaphorePermit<'_>) -> Result<Delivery> {
        let body = post.body()?;
        let gzip = index % GZIP_EVERY == GZIP_EVERY - 1;
        let body = if gzip { compressed(&body)? } else { body };
        let (mut attempts, mut place) = (Vec::new(), Some(place));
        loop {
            let id = format!("{}-{index}-{}", self.id, attempts.len());
            let place = match place.take() {
                Some(place) => place,
                None => self.valve.places.acquire().await?,
            };
            let (began_at, began) = (SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as u64, Instant::now());
            let (status, answered) = self.attempt(post, &id, body.clone(), gzip).await?;
            drop(place);
            let attempt = Attempt { post: index, number: attempts.len(), began_at, took: began.elapsed(), status };
            if let Some(told) = &self.valve.told {
                // Nobody listens any more: the report still has it.
                let _ = told.send(attempt);
            }
            attempts.push(attempt);
            let result = match answered {
                Reply::Taken(taken) => Ok(taken),
                Reply::Refused(why) => Err(why),
                Reply::Again { why, .. } if attempts.len() as u32 >= self.pace.attempts => {
                    Err(format!("given up after {} attempts: {why}", attempts.len()))
                }
                Reply::Again { not_before, .. } => {
                    tokio::time::sleep(wait(attempts.len() - 1, not_before)).await;
                    continue;
                }
            };
            return Ok(Delivery { attempts, result });
        }
    }

    async fn attempt(&self, post: &Post, id: &str, body: Vec<u8>, gzip: bool) -> Result<(Option<StatusCode>, Reply)> {
        let api = self.target.elsewhere.get(&post.through).unwrap_or(&self.target.endpoint).trim_end_matches('/');
        let request = self.http.client(api).post(format!("{api}/v1/events")).body(body);
        let mut request = request.header(CONTENT_TYPE, "application/json").header("x-request-id", id);
        if gzip {
            request = request.header(CONTENT_ENCODING, "gzip");
        }
        if let Some(token) = self.target.auth.token(&post.profile_id)? {
            request = request.bearer_auth(token);
        }
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => return Ok((None, Reply::Again { why: chain(&error), not_before: None })),
        };
        let status = response.status();
        let not_before = retry_after(&response);
        let content_type =
            response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let body = match response.bytes().await {
            Ok(body) => body,
            Err(error) => return Ok((None, Reply::Again { why: chain(&error), not_before })),
        };
        if status == StatusCode::OK {
            let answer = LegacyAnswer { content_type, body };
            return Ok((Some(status), Reply::Taken(Taken::ByLegacy(answer))));
        }
        let text = String::from_utf8_lossy(&body);
        if status == StatusCode::ACCEPTED {
            let answer: Answer = serde_json::from_str(&text).with_context(|| format!("202 with the body {text}"))?;
            if answer.accepted + answer.rejected.len() != post.events.len() {
                bail!("a POST of {} events was answered with {text}", post.events.len());
            }
            return Ok((Some(status), Reply::Taken(Taken::Here(answer))));
        }
        let why = format!("{status} {}", text.trim());
        let closed_for_now = status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error();
        let answered = if closed_for_now { Reply::Again { why, not_before } } else { Reply::Refused(why) };
        Ok((Some(status), answered))
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
                let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
                let claims = Claims {
                    sub: profile_id,
                    profiles: [profile_id],
                    // A device has the same token for an hour, which `ingest` remembers.
                    exp: (now.as_secs() / TOKEN_LIFETIME.as_secs() + 2) * TOKEN_LIFETIME.as_secs(),
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

/// `Retry-After` in seconds, as the contract has it.
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
