//! A Lambda Runtime API on loopback, for one function process.
//!
//! It speaks the protocol that a runtime sees on Lambda (AWS, "Using the Lambda runtime API"): the
//! function asks for the next invocation and posts a response or an error. It does not emulate what
//! Lambda does around it: it freezes nothing, enforces no deadline and retries nothing.

use anyhow::{Context as _, Result, bail};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, Response, StatusCode};
use axum::routing::{get, post};
use axum::serve::ListenerExt as _;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

/// The longest payload and response of a synchronous invocation (AWS, "Lambda quotas"), with room
/// to spare.
const MAX_BODY_BYTES: usize = 8 * 1024 * 1024;
/// The time out of a function.
const TIME_OUT: Duration = Duration::from_secs(60);

/// What a function answered.
#[derive(Debug)]
pub(super) struct Answer {
    /// From handing out the invocation until the answer had arrived.
    pub(super) took: Duration,
    /// What it posted.
    pub(super) body: Bytes,
    /// Whether it posted it as an error.
    pub(super) is_error: bool,
}

/// How far the function has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Init {
    /// It has asked for nothing yet.
    Running,
    /// It has asked for its first invocation.
    Done,
    /// It has reported that it cannot start.
    Failed(String),
}

/// A running Runtime API. It ends when it is dropped.
#[derive(Debug)]
pub(super) struct RuntimeApi {
    address: SocketAddr,
    jobs: mpsc::UnboundedSender<Job>,
    init: watch::Receiver<Init>,
    server: JoinHandle<()>,
}

#[derive(Debug)]
struct Job {
    payload: Bytes,
    answer: oneshot::Sender<Answer>,
}

struct Shared {
    function: String,
    /// Those not handed out yet.
    waiting: tokio::sync::Mutex<mpsc::UnboundedReceiver<Job>>,
    /// Those handed out, by request id.
    out: Mutex<HashMap<String, (Instant, oneshot::Sender<Answer>)>>,
    init: watch::Sender<Init>,
    next_id: AtomicU64,
}

impl RuntimeApi {
    /// Listens on a free port. The name goes into the function's ARN.
    pub(super) async fn start(function: &str) -> Result<Self> {
        let (jobs, waiting) = mpsc::unbounded_channel();
        let (init, progress) = watch::channel(Init::Running);
        let shared = Arc::new(Shared {
            function: function.to_owned(),
            waiting: waiting.into(),
            out: Mutex::default(),
            init,
            next_id: AtomicU64::new(1),
        });
        let invocation = "/2018-06-01/runtime/invocation";
        let router = Router::new()
            .route(&format!("{invocation}/next"), get(next))
            .route(&format!("{invocation}/{{id}}/response"), post(response))
            .route(&format!("{invocation}/{{id}}/error"), post(error))
            .route("/2018-06-01/runtime/init/error", post(init_error))
            .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
            .with_state(shared);
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("listening for a function")?;
        let address = listener.local_addr()?;
        let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
        let server = tokio::spawn(async move { drop(axum::serve(listener, router).await) });
        Ok(Self { address, jobs, init: progress, server })
    }

    /// The value of `AWS_LAMBDA_RUNTIME_API`.
    pub(super) fn address(&self) -> String {
        self.address.to_string()
    }

    /// Waits until the function asks for its first invocation.
    ///
    /// # Errors
    /// If it reports that it cannot start.
    pub(super) async fn initialised(&self) -> Result<()> {
        let mut init = self.init.clone();
        let ended = init.wait_for(|init| *init != Init::Running).await.context("the Runtime API ended")?;
        match &*ended {
            Init::Failed(why) => bail!("the function cannot start: {why}"),
            _ => Ok(()),
        }
    }

    /// Invokes the function and waits for its answer.
    ///
    /// # Errors
    /// If the Runtime API ended.
    pub(super) async fn invoke(&self, payload: Bytes) -> Result<Answer> {
        let (answer, answered) = oneshot::channel();
        self.jobs.send(Job { payload, answer }).ok().context("the Runtime API ended")?;
        answered.await.context("the invocation was lost")
    }
}

impl Drop for RuntimeApi {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// `GET …/invocation/next`: waits until there is one.
async fn next(State(shared): State<Arc<Shared>>) -> Response<Body> {
    shared.init.send_if_modified(|init| std::mem::replace(init, Init::Done) != Init::Done);
    let Some(Job { payload, answer }) = shared.waiting.lock().await.recv().await else {
        return status(StatusCode::GONE);
    };
    let id = format!("00000000-0000-4000-8000-{:012x}", shared.next_id.fetch_add(1, Ordering::Relaxed));
    let deadline = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() + TIME_OUT;
    let arn = format!("arn:aws:lambda:us-east-1:000000000000:function:{}", shared.function);
    let answered = Response::builder()
        .header("content-type", "application/json")
        .header("lambda-runtime-aws-request-id", &id)
        .header("lambda-runtime-deadline-ms", deadline.as_millis().to_string())
        .header("lambda-runtime-invoked-function-arn", arn)
        .header("lambda-runtime-trace-id", "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Sampled=0")
        .body(Body::from(payload));
    let mut out = shared.out.lock().unwrap_or_else(PoisonError::into_inner);
    out.insert(id, (Instant::now(), answer));
    answered.unwrap_or_else(|_| status(StatusCode::INTERNAL_SERVER_ERROR))
}

/// `POST …/invocation/<id>/response`
async fn response(State(shared): State<Arc<Shared>>, Path(id): Path<String>, body: Bytes) -> Response<Body> {
    shared.settle(&id, body, false)
}

/// `POST …/invocation/<id>/error`
async fn error(State(shared): State<Arc<Shared>>, Path(id): Path<String>, body: Bytes) -> Response<Body> {
    shared.settle(&id, body, true)
}

/// `POST …/init/error`
async fn init_error(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response<Body> {
    let kind = headers.get("lambda-runtime-function-error-type").and_then(|kind| kind.to_str().ok());
    let why = format!("{}: {}", kind.unwrap_or("error"), String::from_utf8_lossy(&body));
    shared.init.send_replace(Init::Failed(why));
    status(StatusCode::ACCEPTED)
}

impl Shared {
    fn settle(&self, id: &str, body: Bytes, is_error: bool) -> Response<Body> {
        let handed_out = self.out.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
        let Some((at, answer)) = handed_out else { return status(StatusCode::BAD_REQUEST) };
        // Nobody may be waiting any more.
        let _ = answer.send(Answer { took: at.elapsed(), body, is_error });
        status(StatusCode::ACCEPTED)
    }
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::from(r#"{"status":"OK"}"#));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(api: &RuntimeApi, path: &str) -> String {
        format!("http://{}/2018-06-01/runtime/{path}", api.address())
    }

    fn client() -> reqwest::Client {
        reqwest::Client::builder().no_proxy().build().unwrap()
    }

    /// A function that answers once with what it was given, as a response or as an error.
    async fn serve_once(api: &RuntimeApi, end: &str) -> HeaderMap {
        let client = client();
        let got = client.get(url(api, "invocation/next")).send().await.unwrap();
        let headers = got.headers().clone();
        let id = headers["lambda-runtime-aws-request-id"].to_str().unwrap();
        let posted = client.post(url(api, &format!("invocation/{id}/{end}"))).body(got.bytes().await.unwrap());
        assert_eq!(posted.send().await.unwrap().status(), 202);
        headers
    }

    #[tokio::test]
    async fn invocation_is_handed_out_and_answered() {
        let api = RuntimeApi::start("process").await.unwrap();
        let large = Bytes::from(vec![b'x'; 6 * 1024 * 1024]);
        let (answer, headers) = tokio::join!(api.invoke(large.clone()), serve_once(&api, "response"));
        let answer = answer.unwrap();
        assert!(!answer.is_error && answer.body == large && answer.took > Duration::ZERO);
        let header = |name: &str| headers[name].to_str().unwrap().to_owned();
        assert!(header("lambda-runtime-invoked-function-arn").ends_with(":function:process"));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        assert!(header("lambda-runtime-deadline-ms").parse::<u128>().unwrap() > now);
        let (answer, _) = tokio::join!(api.invoke(Bytes::from_static(b"{}")), serve_once(&api, "error"));
        assert!(answer.unwrap().is_error);
    }

    #[tokio::test]
    async fn init_ends_with_the_first_request_or_with_its_error() {
        let api = RuntimeApi::start("process").await.unwrap();
        let (next, done) = (client().get(url(&api, "invocation/next")).send(), api.initialised());
        tokio::select! {
            _ = next => panic!("there was no invocation"),
            done = done => done.unwrap(),
        }
        let api = RuntimeApi::start("process").await.unwrap();
        client().post(url(&api, "init/error")).body("no table").send().await.unwrap();
        assert!(api.initialised().await.unwrap_err().to_string().contains("no table"));
    }

    #[tokio::test]
    async fn answer_to_an_unknown_invocation_is_refused() {
        let api = RuntimeApi::start("process").await.unwrap();
        let posted = client().post(url(&api, "invocation/no-such-id/response")).body("{}").send().await.unwrap();
        assert_eq!(posted.status(), 400);
    }
}
