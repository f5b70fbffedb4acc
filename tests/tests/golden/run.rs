//! Runs an event through the library of its Lambda function, from the bytes that the runtime would
//! get to the bytes that it would send back, and reports what was done.

use crate::case::{Case, Function, Given, Part, Place, event_bytes};
use crate::dynamodb::{TABLE, Table, views};
use crate::{readable, shape};
use anyhow::{Result, bail, ensure};
use apply::testing::Letters;
use apply::{DeadLetter, Letter, Recent};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use flate2::read::GzDecoder;
use forward::Forward;
use forward::testing::MemoryQueues;
use ingest::{Budgets, Ingest};
use lambda::auth::{AuthConfig, Authenticator};
use lambda::batch::Batch;
use lambda::config::Env;
use lambda::metrics::{Emitter, Metrics};
use lambda::routing::Routing;
use lambda::runtime::{Invocation, ServeBatch, ServeHttp};
use lambda_http::request::LambdaRequest;
use lambda_http::{Adapter, Body, Context, LambdaEvent, Request, Response, Service, service_fn};
use playback::edge::SessionWindow;
use playback::envelope::{Envelope, Head, split_delimited};
use playback::fold::ViewKey;
use playback::history::Rules;
use playback::routing::Regions;
use playback::session::SessionId;
use process::Process;
use publish::Publish;
use query::{FrameAncestors, Query};
use retry::testing::{MemoryBucket, RecordedPauses};
use retry::{Object, Retry};
use serde_json::{Map, Value, json};
use std::convert::Infallible;
use std::io::Read as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use store::testing::MemoryTable;
use store::{Erase, Fault, StoreError, ViewTable as _};
use stream::testing::RecordingLog;
use stream::{AppendError, Attempt, Failover, Policy};
use tokio::time::Instant;

/// What the function does and answers, in the form of `expect`.
pub(crate) async fn run(case: &Case) -> Result<Value> {
    run_bytes(case, &event_bytes(case)?).await
}

/// Like [`run`], with another event.
pub(crate) async fn run_bytes(case: &Case, event: &[u8]) -> Result<Value> {
    let given = &case.expected.given;
    match (case.trigger.as_str(), case.expected.function) {
        ("api", Function::Ingest) => run_ingest(given, event).await,
        ("api", Function::Query) => run_query(given, event).await,
        ("msk" | "sqs" | "kinesis", Function::Process) => run_process(given, event).await,
        ("retry", Function::Retry) => run_retry(given, event).await,
        ("dynamodb", Function::Publish) => run_publish(given, event).await,
        ("forward", Function::Forward) => run_forward(given, event).await,
        (trigger, function) => bail!("{trigger} does not invoke {function:?}"),
    }
}

async fn run_ingest(given: &Given, event: &[u8]) -> Result<Value> {
    let is_away = given.away.contains(&Part::Log);
    let refuse = move |record: &stream::LogRecord| {
        is_away.then(|| AppendError::Unavailable(Attempt::new("playback-events", record, "MessageTimedOut", "away")))
    };
    let ingest = Ingest {
        local: Failover::new(RecordingLog::refusing(refuse), None, Policy::default()),
        remote: None,
        routing: Routing::read_by(Regions::parse("us-east-1", "")?, async || Ok(r#"{"version":1}"#.to_owned())),
        authenticator: authenticator()?,
        window: SessionWindow::default(),
        budgets: Budgets::new(given.budget.unwrap_or(6_000)),
        legacy: None,
        shadows: Arc::default(),
    };
    let log = ingest.local.primary().clone();
    let (ingest, now) = (Arc::new(ingest), given.now);
    let answer = move |request, metrics| {
        let ingest = Arc::clone(&ingest);
        async move { ingest.serve(&metrics, request, now).await }
    };
    if given.budget.is_some() {
        serve("ingest", event, now, &answer).await?;
    }
    let before = log.appended().len();
    let (response, counts) = serve("ingest", event, now, &answer).await?;
    let appended = log.appended();
    let appended = appended.iter().skip(before).map(|record| {
        let envelope = Envelope::decode(&record.value)?;
        Ok(json!({"key": record.key, "envelope": readable::envelope(&envelope)}))
    });
    let appended = appended.collect::<Result<Vec<_>>>()?;
    Ok(json!({"response": steady(response, now), "appended": appended, "counts": counts}))
}

async fn run_query(given: &Given, event: &[u8]) -> Result<Value> {
    let (table, sdk) = Table::serve(given).await;
    let query = Query {
        views: store::dynamodb::Views::new(&sdk, TABLE, "use1".parse()?),
        retry: queue::Queue::new(aws_sdk_sqs::Client::new(&sdk), "http://queue/retry"),
        authenticator: authenticator()?,
        rules: Rules::default(),
        window: SessionWindow::default(),
        frame_ancestors: FrameAncestors::default(),
    };
    let (query, now) = (Arc::new(query), given.now);
    let (response, counts) = serve("query", event, now, move |request, metrics| {
        let query = Arc::clone(&query);
        async move { query.serve(&metrics, request, now).await }
    })
    .await?;
    Ok(json!({"response": of_the_page(response), "store": table.asked(), "counts": counts}))
}

/// Replaces the content of a file of the page, and the tag made of it, which each change of the file
/// would change.
fn of_the_page(mut response: Value) -> Value {
    let files = [
        ("index.html", include_str!("../../../functions/query/page/index.html")),
        ("icon.svg", include_str!("../../../functions/query/page/icon.svg")),
    ];
    let body = response["body"].as_str().unwrap_or_default();
    let content = if response["isBase64Encoded"] == true { unpacked(body) } else { Some(body.to_owned()) };
    if let Some((name, _)) = files.into_iter().find(|(_, text)| content.as_deref() == Some(*text)) {
        response["body"] = json!(format!("<functions/query/page/{name}>"));
    }
    let tag = response["headers"]["etag"].as_str().and_then(|tag| tag.strip_prefix("W/\"")?.strip_suffix('"'));
    if tag.is_some_and(|tag| tag.len() == 24 && tag.bytes().all(|byte| byte.is_ascii_hexdigit())) {
        response["headers"]["etag"] = json!("<a tag of the content>");
    }
    response
}

/// The text in a body of gzip in base64.
fn unpacked(body: &str) -> Option<String> {
    let bytes = BASE64_STANDARD.decode(body).ok()?;
    let mut text = String::new();
    GzDecoder::new(bytes.as_slice()).read_to_string(&mut text).ok()?;
    Some(text)
}

/// From the event's bytes to the answer's JSON, with the same conversions as `lambda_http::run`.
async fn serve<F>(
    function: &str,
    event: &[u8],
    now: u64,
    answer: impl Fn(Request, Metrics) -> F,
) -> Result<(Value, Value)>
where
    F: Future<Output = Response<Body>> + Send,
{
    let (emitter, lines) = recording(function);
    let handler = service_fn(|request: Request| {
        let answer = answer(request, emitter.start(now));
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let payload: LambdaRequest = serde_json::from_slice(event)?;
    let response = Adapter::from(handler).call(LambdaEvent::new(payload, Context::default())).await?;
    let mut response = serde_json::to_value(response)?;
    // The body is JSON in a string; unpacked, it can be reviewed.
    let is_json = response["headers"]["content-type"].as_str().is_some_and(|sent| sent.ends_with("json"));
    if let Some(body) = response["body"].as_str().filter(|body| is_json && !body.is_empty()) {
        response["body"] = serde_json::from_str(body)?;
    }
    let counts = readable::counts(&lines.lock().unwrap());
    Ok((response, counts))
}

/// Replaces random parts of an answer with placeholders, if they are valid. Otherwise they stay and
/// show.
fn steady(mut response: Value, now: u64) -> Value {
    let minted = response["body"]["session_id"].as_str().and_then(|id| id.parse::<SessionId>().ok());
    if minted.is_some_and(|id| id.home.as_str() == "use1" && id.started_at() == now) {
        response["body"]["session_id"] = json!("<a session id of use1, minted now>");
    }
    let delay = response["headers"]["retry-after"].as_str().and_then(|seconds| seconds.parse::<u32>().ok());
    if delay.is_some_and(|seconds| (2..10).contains(&seconds)) {
        response["headers"]["retry-after"] = json!("<2 to 9 seconds>");
    }
    let to_the_next_minute = (60_000 - now % 60_000).div_ceil(1_000) as u32;
    let is_of_the_budget = response["statusCode"] == 429;
    if is_of_the_budget && delay.is_some_and(|seconds| (0..10).contains(&(seconds - to_the_next_minute))) {
        response["headers"]["retry-after"] = json!("<seconds to the next minute, and 0 to 9 more>");
    }
    response
}

async fn run_process(given: &Given, event: &[u8]) -> Result<Value> {
    let batch = match Batch::parse(event) {
        Ok(batch) => batch,
        Err(error) => return Ok(json!({"function_error": error.to_string()})),
    };
    let process = Process {
        table: table(given).await?,
        shadow: None,
        retry: Letters::<Letter>::new(given.away.contains(&Part::RetryQueue)),
        dead_letters: Letters::<DeadLetter>::new(given.away.contains(&Part::DeadLetterQueue)),
        recent: Recent::default(),
    };
    let (emitter, lines) = recording("process");
    let answer =
        process.serve(&emitter.start(given.now), batch, Invocation::new(given.now, Duration::from_secs(60))).await;
    let views: Vec<Value> = process.table.views().iter().map(|(key, view)| readable::view(key, view)).collect();
    Ok(json!({
        "answer": serde_json::to_value(answer?)?,
        "views": views,
        "retry": process.retry.take(),
        "dead_letters": process.dead_letters.take(),
        "counts": readable::counts(&lines.lock().unwrap()),
        "books": readable::books(&lines.lock().unwrap(), given.now),
    }))
}

async fn run_retry(given: &Given, event: &[u8]) -> Result<Value> {
    let bucket_is_away = given.away.contains(&Part::FailureBucket);
    let retry = Retry {
        table: table(given).await?,
        shadow: None,
        retry: Letters::new(given.away.contains(&Part::RetryQueue)),
        dead_letters: Letters::new(given.away.contains(&Part::DeadLetterQueue)),
        objects: MemoryBucket::failing(move |_| bucket_is_away),
        pauses: RecordedPauses::default(),
        max_attempts: 16,
        jitter: || 0.5,
    };
    for (key, content) in &given.objects {
        let object = Object { bucket: shape::FAILURE_BUCKET.to_owned(), key: key.clone() };
        retry.objects.put(object, content.to_string());
    }
    let (emitter, lines) = recording("retry");
    let answer = retry
        .serve(&emitter.start(given.now), Batch::parse(event)?, Invocation::new(given.now, Duration::from_secs(60)))
        .await?;
    let pauses = retry.pauses.take();
    Ok(json!({
        "answer": serde_json::to_value(answer)?,
        "views": retry.table.views().iter().map(|(key, view)| readable::view(key, view)).collect::<Vec<_>>(),
        "retry": retry.retry.take(),
        "dead_letters": retry.dead_letters.take(),
        "pauses": pauses.iter().map(|pause| json!({"receipt_handle": pause.receipt_handle, "seconds": pause.seconds})).collect::<Vec<_>>(),
        "objects": retry.objects.objects().keys().map(|object| &object.key).collect::<Vec<_>>(),
        "counts": readable::counts(&lines.lock().unwrap()),
        "books": readable::books(&lines.lock().unwrap(), given.now),
    }))
}

/// In us-east-1, with us-west-2 and eu-west-1 as the other regions.
async fn run_forward(given: &Given, event: &[u8]) -> Result<Value> {
    let regions = Regions::parse("us-east-1", "us-east-1,us-west-2,eu-west-1")?;
    let document = given.routing.as_ref().map_or_else(|| r#"{"version":1}"#.to_owned(), Value::to_string);
    let routing = Routing::read_by(regions.clone(), move || std::future::ready(Ok(document.clone())));
    let forward = Forward {
        inbound: MemoryQueues::default(),
        dead_letters: Letters::<DeadLetter>::new(given.away.contains(&Part::DeadLetterQueue)),
        routing,
    };
    forward.inbound.set_down("us-west-2", given.away.contains(&Part::UsWest2));
    let (emitter, lines) = recording("forward");
    let answer = forward
        .serve(&emitter.start(given.now), Batch::parse(event)?, Invocation::new(given.now, Duration::from_secs(60)))
        .await?;
    let mut sent = Map::new();
    for region in regions.all() {
        let messages = forward.inbound.take(&region.name).into_iter().map(|body| message(&body));
        let messages = messages.collect::<Result<Vec<_>>>()?;
        if !messages.is_empty() {
            sent.insert(region.name.clone(), messages.into());
        }
    }
    Ok(json!({
        "answer": serde_json::to_value(answer)?,
        "sent": sent,
        "dead_letters": forward.dead_letters.take(),
        "counts": readable::counts(&lines.lock().unwrap()),
        "books": readable::books(&lines.lock().unwrap(), given.now),
    }))
}

async fn run_publish(given: &Given, event: &[u8]) -> Result<Value> {
    let is_away = given.away.contains(&Part::Log);
    let refuse = move |record: &stream::LogRecord| {
        is_away.then(|| AppendError::Unavailable(Attempt::new("view-changes", record, "InternalFailure", "away")))
    };
    let publish = Publish {
        source: "/playhead/golden/us-east-1".to_owned(),
        feed: RecordingLog::refusing(refuse),
        failed: Letters::<DeadLetter>::new(given.away.contains(&Part::DeadLetterQueue)),
        parts: None::<store::dynamodb::Views>,
        rules: Rules::default(),
    };
    let (emitter, lines) = recording("publish");
    let answer = publish
        .serve(&emitter.start(given.now), Batch::parse(event)?, Invocation::new(given.now, Duration::from_secs(60)))
        .await?;
    let published = publish.feed.appended().into_iter().map(|record| serde_json::from_slice(&record.value));
    Ok(json!({
        "answer": serde_json::to_value(answer)?,
        "published": published.collect::<Result<Vec<Value>, _>>()?,
        "dead_letters": publish.failed.take(),
        "counts": readable::counts(&lines.lock().unwrap()),
    }))
}

/// What a message of `inbound` holds: each envelope, and the regions that forwarded it.
fn message(body: &str) -> Result<Value> {
    let joined = BASE64_STANDARD.decode(body)?;
    let envelope = |bytes: &[u8]| {
        let head = Head::peek(bytes.to_vec().into())?;
        let hops = json!(head.hops);
        Ok(json!({"envelope": Envelope::decode(bytes).map(|it| readable::envelope(&it))?, "hops": hops}))
    };
    split_delimited(&joined)?.into_iter().map(envelope).collect()
}

/// The table that a case asks for.
async fn table(given: &Given) -> Result<MemoryTable> {
    ensure!(given.forgotten.is_empty() && given.marked.is_empty(), "the table in memory knows no such marks");
    let table = MemoryTable::new(7);
    for (profile_id, at) in &given.erased_at {
        let erase = Erase { profile_id: profile_id.clone(), at: *at, title_id: None, session_id: None };
        table.erase(&erase, Instant::now()).await?;
    }
    for (key, view) in views(given) {
        table.put_raw(key, view.pack());
    }
    for place in &given.corrupt {
        table.put_raw(key_of(place), b"no view".to_vec());
    }
    let refused: Vec<ViewKey> = given.refused.iter().map(key_of).collect();
    table.fail_writes(Box::new(move |key| {
        let fault = Fault::Unavailable("the case says so".to_owned());
        refused.contains(key).then(|| StoreError { operation: "write", subject: key.session_id.to_string(), fault })
    }));
    Ok(table)
}

fn key_of(place: &Place) -> ViewKey {
    let Place { profile_id, session_id, title_id } = place.clone();
    ViewKey { profile_id, session_id: session_id.parse().unwrap(), title_id }
}

fn authenticator() -> Result<Authenticator> {
    let env = Env::from_pairs([("JWT_SECRET", shape::SECRET), ("SERVICE_SCOPE", "service")]);
    Ok(Authenticator::new(&lambda::config::read(env, AuthConfig::read)?)?)
}

fn recording(function: &str) -> (Emitter, Arc<Mutex<String>>) {
    let lines = Arc::new(Mutex::new(String::new()));
    let sink = Arc::clone(&lines);
    (Emitter::to("golden", function, move |text| sink.lock().unwrap().push_str(text)), lines)
}
