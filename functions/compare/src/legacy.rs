//! Asks a legacy system for its sessions, over HTTP.
//!
//! The URL names the profile and, if the system returns one session at a time, the session:
//! `https://history.example/v1/profiles/{profile_id}/sessions/{session_id}`. Without
//! `{session_id}`, the answer lists all sessions of the profile, so sessions that the shadow lacks
//! are found too. `404` means that there is none. Any other status but `200` is an error.

use crate::judge::{Answer, Ask, Row};
use crate::mapping::{Mapping, Unmapped};
use crate::report::Cause;
use crate::session::{Field, Session, Value};
use aws_sdk_ssm::error::DisplayErrorContext;
use futures::future::try_join_all;
use lambda::config::Secret;
use lambda::http_client::names_nobody;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use playback::fold::ViewKey;
use playback::session::SessionId;
use reqwest::{Client, StatusCode, Url, header, redirect};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use store::dynamodb::Place;
use tokio::sync::Semaphore;

/// Maximum size of an answer, bytes: far more than a profile's sessions need.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;
/// Concurrent calls.
const CONCURRENT_CALLS: usize = 16;
const PROFILE: &str = "{profile_id}";
const SESSION: &str = "{session_id}";

/// The URL of a profile's sessions, or of one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UrlTemplate(String);

/// Not a URL of this form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be an http or https URL with {{profile_id}} in it, and without a user name or password")]
pub struct MalformedUrlTemplate;

impl FromStr for UrlTemplate {
    type Err = MalformedUrlTemplate;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let template = Self(text.to_owned());
        let url = template.of("p1", "use1-01M3250V3TW3KG5DD5CEVSMJCC").ok_or(MalformedUrlTemplate)?;
        let is_http = matches!(url.scheme(), "http" | "https");
        if is_http && names_nobody(&url) && text.contains(PROFILE) { Ok(template) } else { Err(MalformedUrlTemplate) }
    }
}

/// All but the unreserved characters (RFC 3986, 2.3).
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

impl UrlTemplate {
    /// Whether it names one session.
    pub fn names_a_session(&self) -> bool {
        self.0.contains(SESSION)
    }

    /// Ids are escaped: those of profiles may have a meaning in a URL, such as `/`.
    fn of(&self, profile_id: &str, session_id: &str) -> Option<Url> {
        let profile_id = utf8_percent_encode(profile_id, ESCAPED).to_string();
        self.0.replace(PROFILE, &profile_id).replace(SESSION, session_id).parse().ok()
    }
}

/// Why the authorization could not be read.
#[derive(Debug, thiserror::Error)]
#[error("GetParameter of {name} failed: {detail}")]
pub struct AuthorizationError {
    name: String,
    detail: String,
}

/// Reads the value of the `authorization` header from the SSM parameter with this name, a
/// SecureString.
///
/// # Errors
/// When SSM does not return it.
pub async fn authorization(ssm: &aws_sdk_ssm::Client, name: &str) -> Result<Secret, AuthorizationError> {
    let failed = |detail: String| AuthorizationError { name: name.to_owned(), detail };
    let got = ssm.get_parameter().name(name).with_decryption(true).send().await;
    let parameter = got.map_err(|error| failed(DisplayErrorContext(&error).to_string()))?.parameter;
    let value = parameter.and_then(|parameter| parameter.value).ok_or_else(|| failed("it has no value".to_owned()))?;
    let Ok(secret) = value.parse();
    Ok(secret)
}

/// A legacy system.
#[derive(Debug, Clone)]
pub struct Legacy {
    http: Client,
    url: UrlTemplate,
    mapping: Mapping,
    authorization: Option<Secret>,
    /// Limits concurrent calls: the system also serves members.
    permits: Arc<Semaphore>,
}

/// Why a session could not be read from the legacy system. It names no id.
#[derive(Debug, thiserror::Error)]
pub enum LegacyError {
    /// No answer in time, or none at all.
    #[error("it did not answer: {0}")]
    Silent(#[source] reqwest::Error),
    /// A status other than `200` and `404`.
    #[error("it answered {0}")]
    Status(StatusCode),
    /// Ids that do not give a valid URL.
    #[error("its URL template does not give a valid URL for an id")]
    NoUrl,
    /// An answer that is too long.
    #[error("its answer has more than {MAX_ANSWER_BYTES} bytes")]
    TooLarge,
    /// An answer that is not JSON.
    #[error("its answer is not JSON: {0}")]
    NotJson(#[from] serde_json::Error),
    /// An answer that does not fit the mapping.
    #[error("its answer does not fit the mapping: {0}")]
    Unmapped(#[from] Unmapped),
}

impl LegacyError {
    /// Why the sessions that were asked for could not be compared.
    pub fn cause(&self) -> Cause {
        match self {
            LegacyError::Silent(_) | LegacyError::Status(_) => Cause::Unavailable,
            LegacyError::NoUrl | LegacyError::TooLarge | LegacyError::NotJson(_) | LegacyError::Unmapped(_) => {
                Cause::Unreadable
            }
        }
    }
}

impl Legacy {
    /// The legacy system at `url`. Each call takes at most `time_out` and sends `authorization` as
    /// that header.
    ///
    /// # Errors
    /// When the HTTP client cannot be created.
    pub fn new(
        url: UrlTemplate,
        mapping: Mapping,
        authorization: Option<Secret>,
        time_out: Duration,
    ) -> Result<Self, reqwest::Error> {
        // A redirect could carry the authorization elsewhere.
        let http = Client::builder().timeout(time_out).redirect(redirect::Policy::none()).build()?;
        Ok(Self { http, url, mapping, authorization, permits: Arc::new(Semaphore::new(CONCURRENT_CALLS)) })
    }

    /// Its sessions of a profile: all, or those that are due.
    ///
    /// # Errors
    /// When one call fails.
    pub(crate) async fn answer(&self, ask: &Ask) -> Result<Answer, LegacyError> {
        let sessions = if self.url.names_a_session() {
            let due = ask.due().filter(|row| row.is_whole);
            let one = async |row: &Row| match self.get(&ask.profile_id, &row.session_id.to_string()).await? {
                Some(body) => Ok(Some((row.session_id.clone(), self.mapping.session(&body)?))),
                None => Ok::<_, LegacyError>(None),
            };
            try_join_all(due.map(one)).await?.into_iter().flatten().collect()
        } else {
            match self.get(&ask.profile_id, "").await? {
                Some(body) => self.mapping.sessions(&body)?,
                None => Vec::new(),
            }
        };
        let placed = |(session_id, session)| (sort_key(ask, &session_id, &session), (session_id, session));
        Ok(Answer { sessions: sessions.into_iter().map(placed).collect(), erased_at: None })
    }

    /// The JSON of its answer; `None` for `404`.
    async fn get(&self, profile_id: &str, session_id: &str) -> Result<Option<serde_json::Value>, LegacyError> {
        // The URL names the profile, so it must not be logged.
        let silent = |error: reqwest::Error| LegacyError::Silent(error.without_url());
        let url = self.url.of(profile_id, session_id).ok_or(LegacyError::NoUrl)?;
        // The semaphore is never closed. The permit is returned at the end of the call.
        let _permit = self.permits.acquire().await;
        let mut get = self.http.get(url).header(header::ACCEPT, "application/json");
        if let Some(authorization) = &self.authorization {
            get = get.header(header::AUTHORIZATION, authorization.expose());
        }
        let mut answer = get.send().await.map_err(silent)?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(None),
            status => return Err(LegacyError::Status(status)),
        }
        // Read in chunks, without trusting the announced length.
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(silent)? {
            if body.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(LegacyError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Some(serde_json::from_slice(&body)?))
    }
}

/// Where the view of a legacy session would be. If the legacy system does not say the title, it is
/// that of the shadow's first view of the session.
fn sort_key(ask: &Ask, session_id: &SessionId, session: &Session) -> String {
    let of = |title_id: &str| {
        let (profile_id, title_id) = (ask.profile_id.clone(), title_id.to_owned());
        Place::of(&ViewKey { profile_id, session_id: session_id.clone(), title_id }).sk
    };
    match session.get(Field::TitleId) {
        Some(Value::Text(title_id)) => of(title_id),
        _ => ask.rows.iter().find(|row| row.session_id == *session_id).map_or_else(|| of(""), |row| row.sk.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::{Window, asks};
    use crate::testing::{placed, session_id};
    use axum::Router;
    use axum::extract::Request;
    use axum::http::StatusCode as Status;
    use serde_json::json;

    const PER_SESSION: &str = "/v1/profiles/{profile_id}/sessions/{session_id}";

    /// A system that answers with `answer` of the path and the `authorization` header.
    async fn system(
        template: &str,
        answer: impl Fn(&str, &str) -> (Status, String) + Clone + Send + Sync + 'static,
    ) -> Legacy {
        let handler = move |request: Request| async move {
            let authorization = request.headers().get("authorization").map(|value| value.to_str().unwrap().to_owned());
            answer(request.uri().path(), &authorization.unwrap_or_default())
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}{template}", listener.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(handler)).await.unwrap() });
        let mapping = json!({"sessions": "/all", "session_id": "/id", "fields": {"position_ms": {"pointer": "/at"}}});
        let authorization = Some("Bearer secret".parse().unwrap());
        Legacy::new(url, mapping.to_string().parse().unwrap(), authorization, Duration::from_secs(2)).unwrap()
    }

    /// The sessions 1 and 2 of p1, both due.
    fn ask() -> Ask {
        let page = [placed("p1", 1, 100), placed("p1", 2, 100)];
        asks(&page, None, Window { since: 0, until: 200, settle_ms: 10 }).remove(0)
    }

    #[tokio::test]
    async fn sessions_are_asked_for_one_by_one_and_404_means_absent() {
        let first = format!("/v1/profiles/p1/sessions/{}", session_id(1));
        let legacy = system(PER_SESSION, move |path, authorization| match (path == first, authorization) {
            (true, "Bearer secret") => (Status::OK, json!({"at": 7}).to_string()),
            (false, "Bearer secret") => (Status::NOT_FOUND, "no".to_owned()),
            _ => (Status::UNAUTHORIZED, String::new()),
        });
        let answer = legacy.await.answer(&ask()).await.unwrap();
        let found: Vec<_> = answer.sessions.values().map(|(session_id, _)| session_id.clone()).collect();
        assert_eq!(found, [session_id(1)]);
    }

    #[tokio::test]
    async fn a_list_is_read_once_and_may_hold_more_sessions() {
        let legacy = system("/v1/profiles/{profile_id}/sessions", |path, _| {
            assert_eq!(path, "/v1/profiles/p1/sessions");
            let one = |number| json!({"id": session_id(number).to_string(), "at": 7});
            (Status::OK, json!({"all": [one(1), one(5)]}).to_string())
        });
        let answer = legacy.await.answer(&ask()).await.unwrap();
        let found: Vec<_> = answer.sessions.values().map(|(session_id, _)| session_id.clone()).collect();
        assert_eq!(found, [session_id(1), session_id(5)]);
    }

    #[tokio::test]
    async fn silent_and_unreadable_answers_differ_and_name_no_id() {
        let check = async |status: u16, body: String, expected: Cause| {
            let status = Status::from_u16(status).unwrap();
            let legacy = system(PER_SESSION, move |_, _| (status, body.clone())).await;
            let error = legacy.answer(&ask()).await.unwrap_err();
            assert_eq!(error.cause(), expected, "{error}");
            assert!(!error.to_string().contains("p1") && !format!("{error:?}").contains("profiles"), "{error:?}");
        };
        check(500, String::new(), Cause::Unavailable).await;
        check(429, String::new(), Cause::Unavailable).await;
        check(403, String::new(), Cause::Unavailable).await;
        check(307, String::new(), Cause::Unavailable).await;
        check(200, "no json".to_owned(), Cause::Unreadable).await;
        check(200, "{}".to_owned(), Cause::Unreadable).await;
        check(200, format!("{{\"at\": 7, \"x\": \"{}\"}}", "y".repeat(MAX_ANSWER_BYTES)), Cause::Unreadable).await;

        let down = Legacy {
            url: format!("http://127.0.0.1:1{PER_SESSION}").parse().unwrap(),
            ..system("/{profile_id}", |_, _| (Status::OK, String::new())).await
        };
        let error = down.answer(&ask()).await.unwrap_err();
        assert_eq!(error.cause(), Cause::Unavailable);
        assert!(!format!("{error:?}").contains("profiles"), "{error:?}");
    }

    #[test]
    fn ids_cannot_leave_their_place_in_the_url() {
        let template: UrlTemplate = "https://a.example/{profile_id}/sessions?of={profile_id}".parse().unwrap();
        let url = template.of("../x/y@z&a=b+c", "").unwrap();
        assert_eq!(url.path(), "/..%2Fx%2Fy%40z%26a%3Db%2Bc/sessions");
        assert_eq!(url.query_pairs().collect::<Vec<_>>(), [("of".into(), "../x/y@z&a=b+c".into())]);
    }

    #[test]
    fn a_url_names_the_profile_and_optionally_the_session() {
        let names_a_session = |text: &str| text.parse::<UrlTemplate>().map(|template| template.names_a_session());
        assert_eq!(names_a_session("https://a.example/{profile_id}/{session_id}"), Ok(true));
        assert_eq!(names_a_session("http://a.example/sessions?of={profile_id}"), Ok(false));
        for text in [
            "",
            "a.example/{profile_id}",
            "https://a.example/{session_id}",
            "ftp://a.example/{profile_id}",
            "https://user:password@a.example/{profile_id}",
        ] {
            assert_eq!(names_a_session(text), Err(MalformedUrlTemplate), "{text}");
        }
    }
}
