//! One profile's device: what it sends, and what its member sees.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use jsonwebtoken::{EncodingKey, Header};
use playback::session::SessionId;
pub(crate) use playhead_tests::sample::TITLE_DURATION_MS;
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use simulate::expect::SessionView;

use super::cloud::{Cloud, eventually, now_ms, session_at};

/// An answer of the API.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) async fn of(request: reqwest::RequestBuilder) -> Result<Self> {
        let response = request.send().await?;
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.text().await?;
        let body = match text.as_str() {
            "" => Value::Null,
            text => {
                serde_json::from_str(text).with_context(|| format!("{status} with a body that is not JSON: {text}"))?
            }
        };
        Ok(Self { status, headers, body })
    }

    /// The body, if the answer has this status.
    pub(crate) fn expect(self, status: u16) -> Result<Value> {
        ensure!(self.status == status, "answered {} {}, expected {status}", self.status, self.body);
        Ok(self.body)
    }

    /// Asserts that it is a problem (RFC 9457) with this status and code.
    #[track_caller]
    pub(crate) fn assert_problem(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.headers[CONTENT_TYPE], "application/problem+json", "{self:?}");
        assert_eq!((&self.body["status"], &self.body["code"]), (&json!(status), &json!(code)), "{self:?}");
        for member in ["title", "detail"] {
            assert!(self.body[member].as_str().is_some_and(|text| !text.is_empty()), "no {member}: {self:?}");
        }
    }
}

/// The body of a `202` that took everything unchanged.
pub(crate) fn accepted(events: usize) -> Value {
    json!({"accepted": events, "rejected": [], "adjusted": []})
}

/// The same body, padded to exactly so many bytes: JSON ignores blanks.
pub(crate) fn padded(mut body: String, bytes: usize) -> String {
    body.extend(std::iter::repeat_n(' ', bytes - body.len()));
    body
}

/// Signs claims with a secret.
pub(crate) fn sign(claims: &Value, secret: &str) -> String {
    jsonwebtoken::encode(&Header::default(), claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
}

/// Unix seconds from now, for the claim `exp`.
pub(crate) fn in_seconds(seconds: i64) -> i64 {
    i64::try_from(now_ms() / 1000).unwrap() + seconds
}

/// One profile, and the token of its devices.
pub(crate) struct Member {
    cloud: &'static Cloud,
    pub(crate) profile_id: String,
    pub(crate) token: String,
}

impl Member {
    pub(crate) fn new(cloud: &'static Cloud, profile_id: &str) -> Self {
        let claims = json!({ "profiles": [profile_id], "exp": in_seconds(3600) });
        Self { cloud, profile_id: profile_id.to_owned(), token: sign(&claims, &cloud.endpoints.jwt_secret) }
    }

    /// The same profile, accessed by a backend.
    pub(crate) fn by_service(cloud: &'static Cloud, profile_id: &str) -> Self {
        let claims = json!({ "scope": "service", "exp": in_seconds(3600) });
        Self { token: sign(&claims, &cloud.endpoints.jwt_secret), ..Self::new(cloud, profile_id) }
    }

    /// A request with the member's token; `path` begins with `/v1`.
    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.cloud.http.request(method, format!("{}{path}", self.cloud.endpoints.api)).bearer_auth(&self.token)
    }

    /// The API's answer to events.
    pub(crate) async fn send(&self, events: &[Value]) -> Result<Answer> {
        Answer::of(self.request(Method::POST, "/v1/events").json(&json!({ "events": events }))).await
    }

    /// Sends events, all of which must be accepted.
    pub(crate) async fn post(&self, events: &[Value]) -> Result<()> {
        let body = self.send(events).await?.expect(202)?;
        ensure!(body == accepted(events.len()), "of {} events: {body}", events.len());
        Ok(())
    }

    /// Calls `/v1/profiles/{profile}/{path}`.
    pub(crate) async fn call(&self, method: Method, path: &str) -> Result<Answer> {
        Answer::of(self.request(method, &format!("/v1/profiles/{}/{path}", self.profile_id))).await
    }

    /// All pages of the history, `limit` sessions each.
    pub(crate) async fn pages(&self, limit: usize, include_hidden: bool) -> Result<Vec<Vec<Value>>> {
        let mut pages = Vec::new();
        let mut query = format!("limit={limit}&include_hidden={include_hidden}");
        loop {
            let page = self.call(Method::GET, &format!("history?{query}")).await?.expect(200)?;
            pages.push(page["sessions"].as_array().context("a page without sessions")?.clone());
            let Some(token) = page["next_page_token"].as_str() else { return Ok(pages) };
            query = format!("limit={limit}&include_hidden={include_hidden}&page_token={token}");
        }
    }

    /// The whole history without hidden sessions.
    pub(crate) async fn history(&self) -> Result<Vec<Value>> {
        Ok(self.pages(100, false).await?.concat())
    }

    /// The history, as soon as `done` accepts it.
    pub(crate) async fn history_once(&self, what: &str, done: impl Fn(&[Value]) -> bool) -> Result<Vec<Value>> {
        let profile = &self.profile_id;
        let mut last = Vec::new();
        let found = eventually(&format!("the history of {profile}: {what}"), async || {
            last = self.history().await?;
            Ok(done(&last).then(|| last.clone()))
        })
        .await;
        found.with_context(|| format!("it is {}", Value::from(last)))
    }

    /// The history, as soon as it has this many events of each of these sessions.
    pub(crate) async fn history_with(&self, wanted: &[(&Viewing, u64)]) -> Result<Vec<Value>> {
        let has = |sessions: &[Value], viewing: &Viewing, events: u64| {
            sessions.iter().any(|session| session["session_id"] == viewing.id() && session["events"] == events)
        };
        let done = |sessions: &[Value]| wanted.iter().all(|(viewing, events)| has(sessions, viewing, *events));
        self.history_once("the events that were sent", done).await
    }

    /// What is known of titles.
    pub(crate) async fn titles(&self, ids: &[&str]) -> Result<Vec<Value>> {
        let body = self.call(Method::GET, &format!("titles?ids={}", ids.join(","))).await?.expect(200)?;
        Ok(body["titles"].as_array().context("no titles")?.clone())
    }

    /// What is known of a title.
    pub(crate) async fn title(&self, id: &str) -> Result<Value> {
        self.call(Method::GET, &format!("titles/{id}")).await?.expect(200)
    }

    /// Session ids of continue watching.
    pub(crate) async fn continue_watching(&self) -> Result<Vec<Value>> {
        let body = self.call(Method::GET, "continue-watching").await?.expect(200)?;
        let sessions = body["sessions"].as_array().context("no sessions")?;
        Ok(sessions.iter().map(|session| session["session_id"].clone()).collect())
    }
}

/// One session as its device sees it.
pub(crate) struct Viewing {
    pub(crate) session: SessionId,
    pub(crate) profile_id: String,
    pub(crate) title_id: String,
}

impl Viewing {
    /// Begins now.
    pub(crate) fn begin(member: &Member, title_id: &str) -> Self {
        Self::begin_at(member, title_id, now_ms())
    }

    /// Began this long ago.
    pub(crate) fn began(member: &Member, title_id: &str, ago: Duration) -> Self {
        Self::begin_at(member, title_id, now_ms() - u64::try_from(ago.as_millis()).unwrap())
    }

    /// Begins at a time, Unix milliseconds.
    pub(crate) fn begin_at(member: &Member, title_id: &str, at: u64) -> Self {
        Self { session: session_at(at), profile_id: member.profile_id.clone(), title_id: title_id.to_owned() }
    }

    pub(crate) fn id(&self) -> String {
        self.session.to_string()
    }

    /// An event after `played_ms` were played up to `position_ms` of [`TITLE_DURATION_MS`].
    pub(crate) fn event(&self, seq: u64, position_ms: u64, played_ms: u64) -> Value {
        json!({"session_id": self.id(), "profile_id": self.profile_id, "title_id": self.title_id, "seq": seq,
            "kind": if seq == 0 { "started" } else { "progressed" }, "position_ms": position_ms, "played_ms": played_ms,
            "title_duration_ms": TITLE_DURATION_MS, "occurred_at": now_ms(), "device": {"id": "d1", "kind": "tv"}, "country": "US"})
    }

    /// The first `count` events, 1,000 ms apart, reported long after: they happened when the session
    /// began.
    pub(crate) fn events_then(&self, count: u64) -> Vec<Value> {
        let mut events = self.events(count);
        for (seq, event) in (0..).zip(&mut events) {
            event["occurred_at"] = json!(self.session.started_at() + seq * 1000);
        }
        events
    }

    /// The first `count` events, 1,000 ms apart.
    pub(crate) fn events(&self, count: u64) -> Vec<Value> {
        (0..count).map(|seq| self.event(seq, seq * 1000, if seq == 0 { 0 } else { 1000 })).collect()
    }
}

/// The sessions in the form that the simulator checks.
pub(crate) fn views(sessions: &[Value]) -> Result<Vec<SessionView>> {
    sessions.iter().map(|session| Ok(serde_json::from_value(session.clone())?)).collect()
}

/// The first `count` events of each session.
pub(crate) fn events_of(viewings: &[Viewing], count: u64) -> Vec<Value> {
    viewings.iter().flat_map(|viewing| viewing.events(count)).collect()
}

/// Each session with `count` events, for [`Member::history_with`].
pub(crate) fn with_events(viewings: &[Viewing], count: u64) -> Vec<(&Viewing, u64)> {
    viewings.iter().map(|viewing| (viewing, count)).collect()
}

/// What is known of a title that was never watched.
pub(crate) fn never_watched(title_id: &str) -> Value {
    json!({"title_id": title_id, "resume": null, "watched": false, "watched_at": null})
}

/// Session ids, in order.
pub(crate) fn ids(sessions: &[Value]) -> Vec<&str> {
    sessions.iter().filter_map(|session| session["session_id"].as_str()).collect()
}

/// The histories of many profiles, read page by page.
pub(crate) async fn read_all(
    cloud: &'static Cloud,
    profiles: impl IntoIterator<Item = String>,
    limit: usize,
) -> Result<BTreeMap<String, Vec<SessionView>>> {
    let mut all = BTreeMap::new();
    for profile_id in profiles {
        let sessions = Member::new(cloud, &profile_id).pages(limit, true).await?.concat();
        all.insert(profile_id, views(&sessions)?);
    }
    Ok(all)
}
