//! A proxy between the functions and the AWS APIs that they call. It makes chosen calls fail as
//! they would on a bad day: an error in the service's own format, no answer, a connection cut
//! before or after the call took effect, the death of the caller.
//!
//! No maintained proxy can do this. Toxiproxy and noxious work below HTTP, so they can neither
//! choose calls by their operation nor answer as DynamoDB does when it throttles. lowdown knows
//! HTTP but no operations. None can kill the caller between a write and its answer. This one
//! decides by the header `x-amz-target`, which every call of DynamoDB, SQS and Kinesis carries.
//! Calls without it are S3's: they are named after their method. It reads a body only for a rule
//! about one key, and passes on unchanged what no rule applies to.
//!
//! `AWS_ENDPOINT_URL_DYNAMODB`, `…_SQS`, `…_KINESIS` and `…_S3` send a function through it: see
//! [`ENDPOINTS`].

mod hot_key;

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use anyhow::Result;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use futures::stream;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rustix::process::Signal;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, watch};

use super::functions::Environments;

/// The variables that point a function's clients here.
pub const ENDPOINTS: [&str; 4] =
    ["AWS_ENDPOINT_URL_DYNAMODB", "AWS_ENDPOINT_URL_SQS", "AWS_ENDPOINT_URL_KINESIS", "AWS_ENDPOINT_URL_S3"];
/// How DynamoDB says that it throttles.
const THROTTLED: (u16, &str) = (400, "ProvisionedThroughputExceededException");

/// What happens to which calls.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Its name in the counts.
    pub name: &'static str,
    /// Which operations: a name such as `DynamoDB_20120810.UpdateItem` or `S3.GetObject`, or how it
    /// begins or ends.
    pub calls: &'static str,
    /// Only calls whose body has this text, if it is set.
    pub text: Option<String>,
    /// The share of them, from 0 to 1.
    pub share: f64,
    /// Maximum number of times.
    pub times: usize,
    /// Before or after the call takes effect. After: only to calls that succeeded.
    pub when: When,
    /// What happens.
    pub fault: Fault,
}

impl Rule {
    /// A rule that applies to all of these calls, forever.
    #[must_use]
    pub fn always(name: &'static str, calls: &'static str, when: When, fault: Fault) -> Self {
        Self { name, calls, text: None, share: 1.0, times: usize::MAX, when, fault }
    }

    /// A rule that throttles all items of DynamoDB whose keys have this text, forever.
    #[must_use]
    pub fn hot_key(name: &'static str, text: String) -> Self {
        Self { text: Some(text), ..Self::always(name, "DynamoDB", When::Before, Fault::Throttle) }
    }

    fn is_for(&self, call: &Call) -> bool {
        let has = |text: &String| call.body.windows(text.len().max(1)).any(|bytes| bytes == text.as_bytes());
        (call.name.starts_with(self.calls) || call.name.ends_with(self.calls)) && self.text.as_ref().is_none_or(has)
    }
}

/// On which side of the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// The service never sees the call.
    Before,
    /// The service carried out the call, but the caller does not learn that.
    After,
}

/// What happens to a call.
#[derive(Debug, Clone)]
pub enum Fault {
    /// An error of the service: status and name of the exception.
    Error(u16, &'static str),
    /// DynamoDB throttles. If the rule has a text, only the keys or statements with it: BatchGetItem
    /// leaves such keys unprocessed, and fails only if no other key is asked for;
    /// BatchExecuteStatement answers that such statements failed.
    Throttle,
    /// No answer, until the caller gives up.
    Hang,
    /// The connection is cut.
    Cut,
    /// The answer is held back until this is true.
    Hold(watch::Receiver<bool>),
    /// All environments of a function are killed (SIGKILL), including the caller's.
    Kill(Environments),
}

/// A call to the service.
#[derive(Debug)]
struct Call {
    name: String,
    method: Method,
    /// Path and query.
    target: String,
    headers: HeaderMap,
    body: Bytes,
}

impl Call {
    fn new(method: Method, uri: &Uri, mut headers: HeaderMap, body: Bytes) -> Self {
        let operation = headers.get("x-amz-target").and_then(|target| target.to_str().ok());
        let name = operation.map_or_else(|| operation_of_s3(&method, uri), str::to_owned);
        let target = uri.path_and_query().map_or("/", |target| target.as_str()).to_owned();
        // The body is whole by now, and its length may change. The host stays, because it is signed.
        for length in [TRANSFER_ENCODING, CONTENT_LENGTH] {
            headers.remove(length);
        }
        Self { name, method, target, headers, body }
    }
}

/// S3 names no operation. `PUT /bucket/key` is `S3.PutObject`, `PUT /bucket` is `S3.PutBucket`.
fn operation_of_s3(method: &Method, uri: &Uri) -> String {
    let what = if uri.path().trim_matches('/').contains('/') { "Object" } else { "Bucket" };
    let verb = method.as_str();
    let (first, rest) = verb.split_at(verb.len().min(1));
    format!("S3.{first}{}{what}", rest.to_ascii_lowercase())
}

/// A running proxy. It ends with the runtime.
#[derive(Debug)]
pub struct FaultProxy {
    /// Where it listens.
    pub url: String,
    http: reqwest::Client,
    upstream: String,
    rules: RwLock<Vec<Rule>>,
    chance: Mutex<ChaCha8Rng>,
    /// How often each rule was applied. Locked during a kill, so each death counts once.
    done: Mutex<BTreeMap<&'static str, usize>>,
    /// How many kills there were.
    deaths: AtomicU64,
}

impl FaultProxy {
    /// Starts a proxy in front of `upstream`, the endpoint of a local cloud. The seed decides to
    /// which calls a rule with a share applies.
    ///
    /// # Errors
    /// If no port is free.
    pub async fn start(upstream: &str, seed: u64) -> Result<Arc<Self>> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let proxy = Arc::new(Self {
            url: format!("http://{}", listener.local_addr()?),
            // A caller that gives up closes its connection, which ends the call here too.
            http: reqwest::Client::builder().no_proxy().build()?,
            upstream: upstream.to_owned(),
            rules: RwLock::default(),
            chance: Mutex::new(ChaCha8Rng::seed_from_u64(seed)),
            done: Mutex::default(),
            deaths: AtomicU64::new(0),
        });
        let app = Router::new().fallback(serve).layer(DefaultBodyLimit::disable()).with_state(Arc::clone(&proxy));
        tokio::spawn(async { axum::serve(listener, app).await });
        Ok(proxy)
    }

    /// Replaces the rules. The first one that matches a call applies. Calls that are already held
    /// back stay so.
    pub fn set(&self, rules: Vec<Rule>) {
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = rules;
    }

    /// The names of the rules in force.
    #[must_use]
    pub fn in_force(&self) -> Vec<&'static str> {
        self.rules().iter().map(|rule| rule.name).collect()
    }

    /// How often each rule was applied since the start, by name.
    pub async fn done(&self) -> BTreeMap<&'static str, usize> {
        self.done.lock().await.clone()
    }

    fn rules(&self) -> RwLockReadGuard<'_, Vec<Rule>> {
        self.rules.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The rule that applies to this call, if any.
    async fn rule(&self, call: &Call) -> Option<Rule> {
        let candidates: Vec<Rule> = self.rules().iter().filter(|rule| rule.is_for(call)).cloned().collect();
        let done = self.done.lock().await;
        let mut chance = self.chance.lock().await;
        candidates
            .into_iter()
            .find(|rule| done.get(rule.name).is_none_or(|done| *done < rule.times) && chance.random_bool(rule.share))
    }

    async fn answer(&self, call: Call) -> Result<Response> {
        let deaths = self.deaths.load(Ordering::SeqCst);
        let Some(rule) = self.rule(&call).await else { return self.pass_on(call).await };
        if let (Fault::Throttle, Some(text)) = (&rule.fault, &rule.text)
            && let Some((others, hot)) = hot_key::without(&call, text)
        {
            *self.done.lock().await.entry(rule.name).or_default() += 1;
            return hot.throttle(self.pass_on(others).await?).await;
        }
        let (name, answer) = match rule.when {
            When::Before => (call.name, None),
            When::After => (call.name.clone(), Some(self.pass_on(call).await?)),
        };
        match answer {
            Some(refused) if !refused.status().is_success() => Ok(refused),
            answer => self.happen(rule, &name, answer, deaths).await,
        }
    }

    /// Passes on a call and returns the answer.
    async fn pass_on(&self, call: Call) -> Result<Response> {
        let request = self.http.request(call.method, format!("{}{}", self.upstream, call.target));
        let answer = request.headers(call.headers).body(call.body).send().await?;
        let (status, mut headers) = (answer.status(), answer.headers().clone());
        headers.remove(TRANSFER_ENCODING);
        Ok((status, headers, answer.bytes().await?).into_response())
    }

    /// `deaths` is how many there had been when the call arrived.
    async fn happen(&self, rule: Rule, call: &str, answer: Option<Response>, deaths: u64) -> Result<Response> {
        let mut done = self.done.lock().await;
        let times = done.entry(rule.name).or_default();
        if *times >= rule.times {
            // Other calls were faster.
            return Ok(answer.unwrap_or_else(cut_off));
        }
        if let Fault::Kill(victims) = &rule.fault {
            // A caller that another of its calls has killed cannot die again: its successor would.
            if self.deaths.load(Ordering::SeqCst) == deaths && victims.signal(Signal::KILL)? > 0 {
                self.deaths.fetch_add(1, Ordering::SeqCst);
                *times += 1;
            }
            return Ok(cut_off()); // nobody is left to read it
        }
        *times += 1;
        drop(done);
        match rule.fault {
            Fault::Error(status, exception) => error(call, status, exception, rule.name),
            Fault::Throttle => error(call, THROTTLED.0, THROTTLED.1, rule.name),
            Fault::Hang => pending().await,
            Fault::Hold(mut released) => {
                released.wait_for(|released| *released).await?;
                Ok(answer.unwrap_or_else(cut_off))
            }
            Fault::Cut | Fault::Kill(_) => Ok(cut_off()),
        }
    }
}

/// An error in the format of the service that was called.
fn error(call: &str, status: u16, exception: &'static str, rule: &str) -> Result<Response> {
    let (status, message) = (StatusCode::from_u16(status)?, format!("{rule} by the fault proxy"));
    if call.starts_with("S3.") {
        let body = format!("<Error><Code>{exception}</Code><Message>{message}</Message></Error>");
        return Ok((status, [("content-type", "application/xml")], body).into_response());
    }
    let kind = [("x-amzn-errortype", exception), ("content-type", "application/x-amz-json-1.0")];
    Ok((status, kind, json!({ "__type": exception, "message": message }).to_string()).into_response())
}

/// A failing body makes the server close the connection.
fn cut_off() -> Response {
    Body::from_stream(stream::once(async { Err::<Bytes, _>(std::io::Error::other("cut off on purpose")) }))
        .into_response()
}

async fn serve(
    State(proxy): State<Arc<FaultProxy>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    proxy.answer(Call::new(method, &uri, headers, body)).await.unwrap_or_else(|error| {
        eprintln!("the fault proxy failed: {error:#}");
        StatusCode::BAD_GATEWAY.into_response()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::time::Duration;

    /// A service that counts its calls.
    async fn service() -> (Arc<Mutex<usize>>, String) {
        let calls = Arc::new(Mutex::new(0));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new().fallback(async |State(calls): State<Arc<Mutex<usize>>>, body: String| {
            *calls.lock().await += 1;
            if body == "bad" { StatusCode::BAD_REQUEST } else { StatusCode::OK }
        });
        let app = app.with_state(Arc::clone(&calls));
        tokio::spawn(async { axum::serve(listener, app).await });
        (calls, url)
    }

    /// Long enough for any answer on a busy machine.
    const PATIENCE: Duration = Duration::from_secs(60);

    async fn call(proxy: &FaultProxy, operation: &str, body: &'static str) -> reqwest::Result<reqwest::Response> {
        call_for(PATIENCE, proxy, operation, body).await
    }

    async fn call_for(
        time: Duration,
        proxy: &FaultProxy,
        operation: &str,
        body: &'static str,
    ) -> reqwest::Result<reqwest::Response> {
        let client = reqwest::Client::builder().no_proxy().timeout(time).build().unwrap();
        client.post(&proxy.url).header("x-amz-target", operation).body(body).send().await
    }

    fn rule(calls: &'static str, when: When, fault: Fault) -> Rule {
        Rule::always("it", calls, when, fault)
    }

    #[tokio::test]
    async fn each_fault_happens_on_its_side_of_the_call() {
        let (calls, url) = service().await;
        let proxy = FaultProxy::start(&url, 1).await.unwrap();
        assert_eq!(call(&proxy, "DynamoDB_20120810.UpdateItem", "").await.unwrap().status(), 200);
        assert_eq!(*calls.lock().await, 1);

        let throttled = Fault::Error(400, "ProvisionedThroughputExceededException");
        proxy.set(vec![rule("UpdateItem", When::Before, throttled)]);
        let answer = call(&proxy, "DynamoDB_20120810.UpdateItem", "").await.unwrap();
        assert_eq!(answer.status(), 400);
        assert!(answer.text().await.unwrap().contains("ProvisionedThroughputExceededException"));
        assert_eq!(call(&proxy, "DynamoDB_20120810.BatchGetItem", "").await.unwrap().status(), 200, "no rule applies");
        assert_eq!(*calls.lock().await, 2);

        for (when, seen) in [(When::Before, 2), (When::After, 3)] {
            proxy.set(vec![rule("AmazonSQS", when, Fault::Cut)]);
            let cut = match call(&proxy, "AmazonSQS.SendMessageBatch", "").await {
                Ok(answer) => answer.text().await.unwrap_err(),
                Err(error) => error,
            };
            assert!(!cut.is_timeout(), "{cut:?}");
            assert_eq!(*calls.lock().await, seen);
        }
        proxy.set(vec![rule("Kinesis", When::Before, Fault::Hang)]);
        let hangs = call_for(Duration::from_millis(300), &proxy, "Kinesis_20131202.PutRecords", "").await;
        assert!(hangs.unwrap_err().is_timeout());
        proxy.set(vec![rule("", When::After, Fault::Error(500, "InternalServerError"))]);
        assert_eq!(call(&proxy, "any", "bad").await.unwrap().status(), 400, "an error of the service is passed on");
        assert_eq!(proxy.done().await["it"], 4);
    }

    #[tokio::test]
    async fn rule_applies_to_its_share_and_at_most_so_often() {
        let (_, url) = service().await;
        let proxy = FaultProxy::start(&url, 1).await.unwrap();
        let half = Rule { share: 0.5, times: 5, ..rule("", When::Before, Fault::Error(500, "InternalServerError")) };
        proxy.set(vec![half]);
        let mut answers = Vec::new();
        for _ in 0..40 {
            answers.push(call(&proxy, "any", "").await.unwrap().status().as_u16());
        }
        assert_eq!(answers.iter().filter(|status| **status == 500).count(), 5, "{answers:?}");
        assert!(answers[..5].contains(&200), "only a share: {answers:?}");
    }

    #[tokio::test]
    async fn calls_of_s3_are_named_and_pass_unchanged() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let echo = async |method: Method, uri: Uri, headers: HeaderMap, body: Bytes| {
            let seen = format!("{method} {uri} {:?} {:?} {}", headers["host"], headers.get("x-amz-date"), body.len());
            ([("etag", "\"7\"")], seen)
        };
        let app = Router::new().fallback(echo).layer(DefaultBodyLimit::disable());
        tokio::spawn(async { axum::serve(listener, app).await });
        let proxy = FaultProxy::start(&url, 1).await.unwrap();
        let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
        let send = async |method: Method, path: &str, bytes: usize| {
            let request = client.request(method, format!("{}{path}", proxy.url)).header("x-amz-date", "today");
            request.body(vec![0; bytes]).send().await
        };
        let path = "/bucket/a%2Bb/c?x-id=PutObject&versionId=1";
        let answer = send(Method::PUT, path, 3_000_000).await.unwrap();
        assert_eq!(answer.headers()["etag"], "\"7\"");
        let host = proxy.url.trim_start_matches("http://");
        assert_eq!(answer.text().await.unwrap(), format!("PUT {path} {host:?} Some(\"today\") 3000000"));

        proxy.set(vec![rule("S3.GetObject", When::Before, Fault::Error(503, "SlowDown"))]);
        let answer = send(Method::GET, "/bucket/key", 0).await.unwrap();
        assert_eq!(answer.status(), 503);
        assert!(answer.text().await.unwrap().contains("<Code>SlowDown</Code>"));
        for (method, path) in [(Method::PUT, "/bucket/key"), (Method::DELETE, "/bucket/key"), (Method::GET, "/bucket/")]
        {
            assert_eq!(send(method, path, 0).await.unwrap().status(), 200);
        }
        proxy.set(vec![rule("S3", When::Before, Fault::Error(503, "SlowDown"))]);
        assert_eq!(send(Method::DELETE, "/bucket/key", 0).await.unwrap().status(), 503);
        assert_eq!(proxy.done().await["it"], 2);
    }

    #[tokio::test]
    async fn hot_key_is_throttled_and_the_others_are_not() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new().fallback(async |body: String| {
            let asked: Value = serde_json::from_str(&body).unwrap();
            json!({ "Responses": asked["RequestItems"], "UnprocessedKeys": {} }).to_string()
        });
        tokio::spawn(async { axum::serve(listener, app).await });
        let proxy = FaultProxy::start(&url, 1).await.unwrap();
        proxy.set(vec![Rule::hot_key("it", "HOT#".to_owned())]);
        let read = async |body: Value| {
            let client = reqwest::Client::builder().no_proxy().build().unwrap();
            let call = client.post(&proxy.url).header("x-amz-target", "DynamoDB_20120810.BatchGetItem");
            let answer = call.body(body.to_string()).send().await.unwrap();
            (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
        };
        let keys = |names: &[&str]| json!({ "Keys": names.iter().map(|name| json!({"sk": {"S": name}})).collect::<Vec<_>>(), "ConsistentRead": true });

        let (status, answer) = read(json!({ "RequestItems": { "views": keys(&["HOT#1", "A#1", "HOT#2"]) } })).await;
        assert_eq!(status, 200);
        assert_eq!(answer["Responses"]["views"], keys(&["A#1"]), "the service is not asked for hot keys");
        assert_eq!(answer["UnprocessedKeys"]["views"], keys(&["HOT#1", "HOT#2"]));

        let (status, answer) = read(json!({ "RequestItems": { "views": keys(&["HOT#1"]) } })).await;
        assert_eq!((status, answer["__type"].as_str()), (400, Some(THROTTLED.1)), "no key is left");
        assert_eq!(read(json!({ "RequestItems": { "views": keys(&["A#1"]) } })).await.0, 200);
        assert_eq!(call(&proxy, "DynamoDB_20120810.UpdateItem", r#"{"Key":"HOT#1"}"#).await.unwrap().status(), 400);
        assert_eq!(proxy.done().await["it"], 3);
    }
}
