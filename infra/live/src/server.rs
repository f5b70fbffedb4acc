//! HTTP: the page and its assets, the film, the snapshots as server-sent events, the controls.

use crate::control::Control;
use crate::guard::{self, Refused};
use crate::shared::Shared;
use anyhow::{Context as _, Result};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Request, State};
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_RANGE, CONTENT_SECURITY_POLICY, CONTENT_TYPE, RANGE, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use futures::{Stream, stream};
use operate::token;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

/// Whose history the player of the page writes.
const PROFILE: &str = "you";
const FILM: &str = "test-film";
const TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 3_600);
/// How long the member's page may take to be there.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

macro_rules! asset {
    ($name:literal, $kind:literal) => {
        ($name, $kind, include_bytes!(concat!("../assets/", $name)).as_slice())
    };
}

/// Name, media type and content of all assets.
const ASSETS: [(&str, &str, &[u8]); 8] = [
    asset!("index.html", "text/html; charset=utf-8"),
    asset!("live.css", "text/css; charset=utf-8"),
    asset!("live.js", "text/javascript; charset=utf-8"),
    asset!("player.js", "text/javascript; charset=utf-8"),
    asset!("uPlot.min.css", "text/css; charset=utf-8"),
    asset!("uPlot.iife.min.js", "text/javascript; charset=utf-8"),
    asset!("playhead-web.js", "text/javascript; charset=utf-8"),
    asset!("film.webm", "video/webm"),
];

#[derive(Debug)]
struct Site {
    port: u16,
    shared: Arc<Shared>,
    policy: HeaderValue,
    http: reqwest::Client,
}

/// Serves until the listener fails.
///
/// # Errors
/// If it does.
pub(crate) async fn serve(listener: TcpListener, port: u16, shared: Arc<Shared>) -> Result<()> {
    axum::serve(listener, router(port, shared)?).await.context("serving the live page")
}

fn router(port: u16, shared: Arc<Shared>) -> Result<Router> {
    let apis: Vec<&str> = shared.endpoints.regions().map(|region| region.aws_endpoint.as_str()).collect();
    let apis = apis.join(" ");
    let policy = format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src 'self'; \
         connect-src 'self' {apis}; frame-src {apis}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let http = reqwest::Client::builder().no_proxy().timeout(PROBE_TIMEOUT).build().context("an HTTP client")?;
    let site = Arc::new(Site { port, shared, policy: policy.parse()?, http });
    Ok(Router::new()
        .route("/", get(async |headers: HeaderMap| file("index.html", &headers)))
        .route("/{name}", get(async |Path(name): Path<String>, headers: HeaderMap| file(&name, &headers)))
        .route("/config", get(config))
        .route("/snapshots", get(snapshots))
        .route("/controls", post(control))
        .layer(middleware::from_fn_with_state(Arc::clone(&site), guarded))
        .with_state(site))
}

/// Refuses what is not for us, and sets the headers of every answer.
async fn guarded(State(site): State<Arc<Site>>, request: Request, next: Next) -> Response {
    let mut answer = match guard::check(site.port, request.method(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(Refused::Host) => refusal(StatusCode::MISDIRECTED_REQUEST, "this server has another name"),
        Err(Refused::Origin) => refusal(StatusCode::FORBIDDEN, "only this server's own page may change things"),
        Err(Refused::MediaType) => refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, "a control is application/json"),
    };
    let headers = answer.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, site.policy.clone());
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    // The next run may have another page on this port.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    answer
}

fn refusal(status: StatusCode, why: &str) -> Response {
    (status, Json(json!({ "error": why }))).into_response()
}

/// An asset, or the part of it that was asked for: a browser seeks in a film with `Range`.
fn file(name: &str, headers: &HeaderMap) -> Response {
    let Some((_, kind, content)) = ASSETS.iter().find(|(known, ..)| *known == name) else {
        return refusal(StatusCode::NOT_FOUND, "there is no such file");
    };
    let kind = [(CONTENT_TYPE, *kind), (ACCEPT_RANGES, "bytes")];
    let asked = headers.get(RANGE).and_then(|range| range.to_str().ok());
    match asked.map(|asked| range(asked, content.len())) {
        None => (kind, *content).into_response(),
        Some(Some((first, last))) => {
            let part = [(CONTENT_RANGE, format!("bytes {first}-{last}/{}", content.len()))];
            (StatusCode::PARTIAL_CONTENT, kind, part, &content[first..=last]).into_response()
        }
        Some(None) => {
            let all = [(CONTENT_RANGE, format!("bytes */{}", content.len()))];
            (StatusCode::RANGE_NOT_SATISFIABLE, all).into_response()
        }
    }
}

/// The first and last byte of a range such as `bytes=5-` or `bytes=0-99`. Browsers ask for no other
/// forms.
fn range(asked: &str, length: usize) -> Option<(usize, usize)> {
    let (first, last) = asked.strip_prefix("bytes=")?.split_once('-')?;
    let first: usize = first.parse().ok()?;
    let last = if last.is_empty() { length.checked_sub(1)? } else { last.parse::<usize>().ok()?.min(length - 1) };
    (first <= last).then_some((first, last))
}

/// What the page needs to know once: the API, the player's profile and its token.
async fn config(State(site): State<Arc<Site>>) -> Response {
    let endpoints = &site.shared.endpoints;
    let signed = token::of_member(&endpoints.jwt_secret, vec![PROFILE.to_owned()], TOKEN_LIFETIME);
    let Ok(token) = signed else { return refusal(StatusCode::INTERNAL_SERVER_ERROR, "no token could be signed") };
    let probed = site.http.get(format!("{}/activity", endpoints.api)).send().await;
    let has_page = probed.is_ok_and(|answer| answer.status().is_success());
    let config: Value = json!({
        "api": endpoints.api,
        "profile": PROFILE,
        "title": FILM,
        "token": token,
        "activity": has_page.then(|| format!("{}/activity#profile={PROFILE}&token={token}", endpoints.api)),
        "regions": endpoints.regions().map(|region| &region.region).collect::<Vec<_>>(),
    });
    Json(config).into_response()
}

/// Every snapshot from now on. Each open stream is a connected browser.
async fn snapshots(State(site): State<Arc<Site>>) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let news = stream::unfold(site.shared.snapshots.subscribe(), async |mut snapshots| {
        snapshots.changed().await.ok()?;
        let snapshot = Arc::clone(&snapshots.borrow_and_update());
        Some((Ok(Event::default().data(snapshot)), snapshots))
    });
    Sse::new(news).keep_alive(KeepAlive::default())
}

async fn control(State(site): State<Arc<Site>>, body: Bytes) -> Response {
    let control = match Control::parse(&body) {
        Ok(control) => control,
        Err(error) => return refusal(StatusCode::BAD_REQUEST, &format!("{error:#}")),
    };
    match control.carry_out(&site.shared).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => refusal(StatusCode::CONFLICT, &format!("{error:#}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::{Body, to_bytes};
    use axum::http::Method;
    use axum::http::header::{HOST, ORIGIN};
    use tokio::sync::{mpsc, watch};
    use tower::ServiceExt as _;

    const PORT: u16 = 8_000;

    async fn ask(method: Method, path: &str, headers: &[(&str, &str)], body: &'static str) -> (StatusCode, Vec<u8>) {
        let endpoints = operate::testing::endpoints();
        let locked = watch::Sender::new(Some("the proof runs"));
        let shared = Shared::new(endpoints, locked.subscribe(), mpsc::channel(1).0);
        let app = router(PORT, Arc::new(shared)).unwrap();
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = app.oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
        assert!(answer.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap().contains("http://127.0.0.1:1;"));
        assert_eq!(answer.headers()[X_FRAME_OPTIONS], "DENY");
        (answer.status(), to_bytes(answer.into_body(), usize::MAX).await.unwrap().to_vec())
    }

    const US: (&str, &str) = ("host", "127.0.0.1:8000");

    #[tokio::test]
    async fn page_is_served_to_its_own_name_only() {
        let (status, page) = ask(Method::GET, "/", &[US], "").await;
        assert!(status.is_success() && page.starts_with(b"<!doctype html>"));
        assert_eq!(ask(Method::GET, "/config", &[(HOST.as_str(), "evil.example:8000")], "").await.0, 421);
        assert_eq!(ask(Method::GET, "/nothing", &[US], "").await.0, 404);
    }

    #[tokio::test]
    async fn controls_of_other_pages_and_while_locked_are_refused() {
        let ours = [US, (ORIGIN.as_str(), "http://127.0.0.1:8000"), ("content-type", "application/json")];
        let foreign = [US, (ORIGIN.as_str(), "https://evil.example"), ("content-type", "application/json")];
        let drain = r#"{"do":"drain"}"#;
        assert_eq!(ask(Method::POST, "/controls", &foreign, drain).await.0, 403);
        assert_eq!(ask(Method::POST, "/controls", &ours, "{}").await.0, 400);
        let (status, why) = ask(Method::POST, "/controls", &ours, drain).await;
        assert_eq!(status, 409);
        assert!(String::from_utf8(why).unwrap().contains("the proof runs"));
    }

    #[tokio::test]
    async fn film_is_served_in_parts() {
        let whole = ask(Method::GET, "/film.webm", &[US], "").await.1;
        let (status, part) = ask(Method::GET, "/film.webm", &[US, ("range", "bytes=100-199")], "").await;
        assert_eq!((status, part.as_slice()), (StatusCode::PARTIAL_CONTENT, &whole[100..200]));
        let (status, rest) = ask(Method::GET, "/film.webm", &[US, ("range", "bytes=1000-")], "").await;
        assert_eq!((status, rest.len()), (StatusCode::PARTIAL_CONTENT, whole.len() - 1_000));
        for beyond in ["bytes=9999999-", "bytes=5-2", "pages=1-2"] {
            assert_eq!(ask(Method::GET, "/film.webm", &[US, ("range", beyond)], "").await.0, 416, "{beyond}");
        }
    }

    #[test]
    fn page_weighs_little() {
        let weighed = ASSETS.iter().filter(|(name, ..)| !["film.webm", "playhead-web.js"].contains(name));
        let bytes: usize = weighed.map(|(_, _, content)| gzipped(content)).sum();
        assert!(bytes <= 60 * 1024, "the page has {bytes} bytes gzip");
    }

    fn gzipped(content: &[u8]) -> usize {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        std::io::Write::write_all(&mut encoder, content).unwrap();
        encoder.finish().unwrap().len()
    }
}
