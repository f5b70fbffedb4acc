//! The link between regions. A function's request to a queue of another region goes through here,
//! so tests can delay it or cut it off.
//!
//! It is the SQS endpoint (`AWS_ENDPOINT_URL_SQS`) of each region's functions, with one port per
//! region. The target region is in the scope of the request's signature
//! (`Credential=KEY/DATE/REGION/sqs/aws4_request`); on AWS the host name says it. A request inside
//! a region passes at once. The link is not under test: it reads no body, answers nothing itself,
//! and delays or cuts requests between regions only on demand.

use anyhow::{Context as _, Result};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use futures::stream;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Default extra time between regions: a round trip across a continent.
const DELAY: Duration = Duration::from_millis(60);

/// How the regions are cut off from each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Closes connections at once.
    HangUp,
    /// Does not answer until the caller gives up or the cut ends.
    Silence,
}

/// The traffic from one region to another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Crossing {
    /// Requests passed on.
    pub requests: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// Requests lost to a cut.
    pub cut_off: u64,
}

/// The link between the regions of a deployment. It ends when it is dropped.
#[derive(Debug)]
pub struct Link {
    state: Arc<Shared>,
    /// By the calling region.
    urls: BTreeMap<String, String>,
    _servers: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    http: reqwest::Client,
    /// Endpoints by region.
    upstreams: Mutex<BTreeMap<String, String>>,
    settings: watch::Sender<LinkSettings>,
    /// By source and target region.
    crossings: Mutex<BTreeMap<(String, String), Crossing>>,
}

#[derive(Debug, Clone, Copy)]
struct LinkSettings {
    delay: Duration,
    cut: Option<Cut>,
}

impl Link {
    /// Opens one port per region. A region gets no requests before [`Link::lead_to`].
    ///
    /// # Errors
    /// If no port is free.
    pub(super) async fn open<'a>(regions: impl IntoIterator<Item = &'a String>) -> Result<Self> {
        let state = Arc::new(Shared {
            // When a caller gives up, it closes its connection, which ends our call too.
            http: reqwest::Client::builder().no_proxy().build().context("an HTTP client")?,
            upstreams: Mutex::default(),
            settings: watch::Sender::new(LinkSettings { delay: DELAY, cut: None }),
            crossings: Mutex::default(),
        });
        let (mut urls, mut servers) = (BTreeMap::new(), JoinSet::new());
        for region in regions {
            let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
            urls.insert(region.clone(), format!("http://{}", listener.local_addr()?));
            let port = Port { from: region.clone(), link: Arc::clone(&state) };
            let app = Router::new().fallback(serve).with_state(port);
            servers.spawn(async {
                if let Err(error) = axum::serve(listener, app).await {
                    tracing::warn!(%error, "the link between regions ended");
                }
            });
        }
        Ok(Self { state, urls, _servers: servers })
    }

    /// Sends requests for this region to this endpoint from now on.
    pub(super) fn lead_to(&self, region: &str, endpoint: &str) {
        let mut upstreams = self.state.upstreams.lock().unwrap_or_else(PoisonError::into_inner);
        upstreams.insert(region.to_owned(), endpoint.to_owned());
    }

    /// The SQS endpoint for the functions of this region.
    #[must_use]
    pub fn url(&self, region: &str) -> Option<&str> {
        self.urls.get(region).map(String::as_str)
    }

    /// Delays requests between regions by this time from now on.
    pub fn delay(&self, delay: Duration) {
        self.state.settings.send_modify(|settings| settings.delay = delay);
    }

    /// Cuts the regions off from each other. Requests in flight, or their answers, are lost.
    pub fn cut(&self, how: Cut) {
        self.state.settings.send_modify(|settings| settings.cut = Some(how));
    }

    /// Ends the cut.
    pub fn heal(&self) {
        self.state.settings.send_modify(|settings| settings.cut = None);
    }

    /// Whether they are cut off from each other.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.state.settings.borrow().cut.is_some()
    }

    /// The traffic between regions, by source and target region.
    #[must_use]
    pub fn crossings(&self) -> BTreeMap<(String, String), Crossing> {
        self.state.crossings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The port of one region.
#[derive(Debug, Clone)]
struct Port {
    from: String,
    link: Arc<Shared>,
}

async fn serve(State(port): State<Port>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let Some(to) = region_of(&headers) else {
        return (StatusCode::BAD_REQUEST, "the link between regions accepts only signed requests").into_response();
    };
    let answer = if to == port.from {
        port.link.pass_on(&to, &uri, headers, body).await
    } else {
        port.link.cross((port.from, to), &uri, headers, body).await
    };
    answer.unwrap_or_else(|error| {
        tracing::warn!(error = format!("{error:#}"), "the link between regions could not pass on a request");
        hang_up()
    })
}

impl Shared {
    async fn cross(&self, route: (String, String), uri: &Uri, headers: HeaderMap, body: Bytes) -> Result<Response> {
        let delay = self.settings.borrow().delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let bytes = body.len() as u64;
        if let Some(lost) = self.lost().await {
            self.count(route, |crossing| crossing.cut_off += 1);
            return Ok(lost);
        }
        let answer = self.pass_on(&route.1, uri, headers, body).await;
        self.count(route, |crossing| {
            crossing.requests += 1;
            crossing.bytes += bytes;
        });
        match self.lost().await {
            Some(lost) => Ok(lost), // it was carried out, but the caller does not know
            None => answer,
        }
    }

    /// What a caller sees during a cut.
    async fn lost(&self) -> Option<Response> {
        let mut settings = self.settings.subscribe();
        let cut = settings.borrow_and_update().cut?;
        if cut == Cut::Silence {
            // Also returns when the link ends.
            let _ = settings.wait_for(|settings| settings.cut != Some(Cut::Silence)).await;
        }
        Some(hang_up())
    }

    fn count(&self, route: (String, String), add: impl FnOnce(&mut Crossing)) {
        add(self.crossings.lock().unwrap_or_else(PoisonError::into_inner).entry(route).or_default());
    }

    async fn pass_on(&self, to: &str, uri: &Uri, headers: HeaderMap, body: Bytes) -> Result<Response> {
        let upstream = self.upstreams.lock().unwrap_or_else(PoisonError::into_inner).get(to).cloned();
        let upstream = upstream.with_context(|| format!("got a request for the unknown region {to}"))?;
        let answer = self.http.post(format!("{upstream}{uri}")).headers(headers).body(body).send().await?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        Ok((status, headers, answer.bytes().await?).into_response())
    }
}

/// The region in the scope of a request's signature (AWS Signature Version 4).
fn region_of(headers: &HeaderMap) -> Option<String> {
    let authorization = headers.get("authorization")?.to_str().ok()?;
    let (_, credential) = authorization.split_once("Credential=")?;
    credential.split([',', ' ']).next()?.split('/').nth(2).map(str::to_owned)
}

/// Closes the connection: the server does so when a body fails.
fn hang_up() -> Response {
    let fails =
        stream::once(async { Err::<Bytes, _>(std::io::Error::other("the regions are cut off from each other")) });
    Body::from_stream(fails).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use operate::sdk_config;
    use std::time::Instant;

    /// A fake SQS that answers with its region, and the number of its calls.
    async fn sqs(region: &'static str) -> (Arc<Mutex<u64>>, String) {
        let calls = Arc::new(Mutex::new(0));
        let counted = Arc::clone(&calls);
        let app = Router::new().fallback(move || async move {
            *counted.lock().unwrap() += 1;
            format!(r#"{{"QueueUrl": "http://{region}"}}"#)
        });
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async { axum::serve(listener, app).await.unwrap() });
        (calls, url)
    }

    struct World {
        link: Link,
        west_calls: Arc<Mutex<u64>>,
    }

    impl World {
        async fn new() -> Self {
            let regions = ["us-east-1".to_owned(), "us-west-2".to_owned()];
            let link = Link::open(&regions).await.unwrap();
            let ((_, east), (west_calls, west)) = (sqs("east").await, sqs("west").await);
            link.lead_to("us-east-1", &east);
            link.lead_to("us-west-2", &west);
            link.delay(Duration::ZERO);
            Self { link, west_calls }
        }

        /// Sends a request from the first region, with a client for `to`.
        async fn ask(&self, to: &str) -> Option<String> {
            let sdk = sdk_config(self.link.url("us-east-1").unwrap(), to);
            let config = aws_sdk_sqs::config::Builder::from(&sdk)
                .retry_config(aws_config::retry::RetryConfig::disabled())
                .timeout_config(
                    aws_config::timeout::TimeoutConfig::builder().operation_timeout(Duration::from_secs(1)).build(),
                )
                .build();
            let asked = aws_sdk_sqs::Client::from_conf(config).get_queue_url().queue_name("inbound").send().await;
            asked.ok()?.queue_url
        }
    }

    #[tokio::test]
    async fn request_goes_to_the_region_of_its_signature() {
        let world = World::new().await;
        assert_eq!(world.ask("us-east-1").await.as_deref(), Some("http://east"));
        assert_eq!(world.ask("us-west-2").await.as_deref(), Some("http://west"));
        assert_eq!(world.ask("eu-west-1").await, None);
        let crossings = world.link.crossings();
        let west = crossings[&("us-east-1".to_owned(), "us-west-2".to_owned())];
        assert_eq!((west.requests, west.bytes > 0, west.cut_off), (1, true, 0));
        assert!(!crossings.contains_key(&("us-east-1".to_owned(), "us-east-1".to_owned())));
    }

    #[tokio::test]
    async fn cut_is_only_between_regions_and_heals() {
        let world = World::new().await;
        for how in [Cut::HangUp, Cut::Silence] {
            let calls = *world.west_calls.lock().unwrap();
            world.link.cut(how);
            assert!(world.ask("us-east-1").await.is_some(), "{how:?}");
            let began = Instant::now();
            assert!(world.ask("us-west-2").await.is_none(), "{how:?}");
            assert_eq!(began.elapsed() > Duration::from_millis(900), how == Cut::Silence, "{:?}", began.elapsed());
            assert_eq!(*world.west_calls.lock().unwrap(), calls, "nothing came through");
            world.link.heal();
            assert!(world.ask("us-west-2").await.is_some(), "{how:?}");
        }
    }

    #[tokio::test]
    async fn delay_is_only_between_regions() {
        let world = World::new().await;
        world.link.delay(Duration::from_millis(300));
        let timed = async |to: &str| {
            let began = Instant::now();
            assert!(world.ask(to).await.is_some());
            began.elapsed()
        };
        assert!(timed("us-west-2").await >= Duration::from_millis(300));
        assert!(timed("us-east-1").await < Duration::from_millis(300));
    }
}
