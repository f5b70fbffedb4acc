//! HTTP answers: problems as RFC 9457 (`application/problem+json`), everything else as JSON.
//!
//! A problem has the type `about:blank`, so its `title` is the status's phrase (RFC 9457, 4.2.1).
//! Programs should look at the extension member `code`, which is stable. `field` names the part of
//! the request that is wrong.

use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Response, StatusCode};
use lambda_http::Body;
use serde::Serialize;

/// Why a request was not served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The HTTP status.
    pub status: StatusCode,
    /// A stable word for programs, in `snake_case`.
    pub code: &'static str,
    /// A sentence for people. It must contain no secret and no other member's data.
    pub detail: String,
    /// The field, parameter or header that is wrong.
    pub field: Option<String>,
    /// After how many seconds to retry (`Retry-After`).
    pub retry_after_s: Option<u32>,
    /// How to authenticate (`WWW-Authenticate`, RFC 6750).
    pub challenge: Option<&'static str>,
    /// The methods that are served here (`Allow`).
    pub allow: Option<String>,
}

#[derive(Serialize)]
struct Members<'a> {
    title: &'a str,
    status: u16,
    code: &'a str,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
}

impl Problem {
    /// A problem with only a status, a code and a sentence.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), field: None, retry_after_s: None, challenge: None, allow: None }
    }

    /// 400: the request does not follow the contract.
    pub fn bad_request(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    /// 401: the caller is not authenticated. `challenge` is the value of `WWW-Authenticate`.
    pub fn unauthorized(code: &'static str, detail: impl Into<String>, challenge: &'static str) -> Self {
        Self { challenge: Some(challenge), ..Self::new(StatusCode::UNAUTHORIZED, code, detail) }
    }

    /// 403: the caller is authenticated but not allowed to do this.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", detail)
    }

    /// 404: there is no such resource.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", detail)
    }

    /// 405: the path allows only the methods `allow`, which the answer must name (RFC 9110,
    /// 15.5.6).
    pub fn method_not_allowed(allow: impl Into<String>) -> Self {
        let allow = allow.into();
        let detail = format!("this path allows only {allow}");
        Self { allow: Some(allow), ..Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail) }
    }

    /// 413: the body is larger than `limit` bytes.
    pub fn too_large(limit: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body_too_large",
            format!("the body is larger than {limit} bytes; send fewer events at once"),
        )
    }

    /// 415: the body's media type or encoding is not supported.
    pub fn unsupported_media_type(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail)
    }

    /// 429: the caller sends too much; sending the request again later is harmless.
    pub fn too_many_requests(code: &'static str, detail: impl Into<String>, retry_after_s: u32) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, code, detail).retry_after(retry_after_s)
    }

    /// 503: a dependency is unavailable; sending the request again later is harmless.
    pub fn unavailable(code: &'static str, detail: impl Into<String>, retry_after_s: u32) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail).retry_after(retry_after_s)
    }

    /// Names the field, parameter or header that is wrong.
    #[must_use]
    pub fn field(self, field: impl Into<String>) -> Self {
        Self { field: Some(field.into()), ..self }
    }

    /// Says after how many seconds to retry.
    #[must_use]
    pub fn retry_after(self, seconds: u32) -> Self {
        Self { retry_after_s: Some(seconds), ..self }
    }

    /// The HTTP answer.
    pub fn response(&self) -> Response<Body> {
        let members = Members {
            title: self.status.canonical_reason().unwrap_or("Problem"),
            status: self.status.as_u16(),
            code: self.code,
            detail: &self.detail,
            field: self.field.as_deref(),
        };
        let mut response = respond(self.status, "application/problem+json", &members);
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after_s {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(challenge) = self.challenge {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if let Some(Ok(methods)) = self.allow.as_deref().map(HeaderValue::from_str) {
            headers.insert(ALLOW, methods);
        }
        response
    }
}

/// A JSON answer.
pub fn json(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    respond(status, "application/json", value)
}

/// An answer without a body: what was asked for will be done (`202`).
pub fn accepted() -> Response<Body> {
    bare(StatusCode::ACCEPTED, Body::Empty)
}

/// An answer without a body (`204`).
pub fn no_content() -> Response<Body> {
    bare(StatusCode::NO_CONTENT, Body::Empty)
}

/// A response that no cache may keep: every answer belongs to one member.
fn bare(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn respond(status: StatusCode, media_type: &'static str, value: &impl Serialize) -> Response<Body> {
    match serde_json::to_string(value) {
        Ok(text) => {
            let mut response = bare(status, Body::Text(text));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
            response
        }
        Err(error) => {
            tracing::error!(%error, "an answer could not be serialised");
            bare(StatusCode::INTERNAL_SERVER_ERROR, Body::Empty)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(response: &Response<Body>) -> &str {
        match response.body() {
            Body::Text(text) => text,
            other => panic!("not a text: {other:?}"),
        }
    }

    #[test]
    fn a_problem_has_the_members_of_rfc_9457() {
        let response = Problem::bad_request("bad_limit", "limit must be 1 to 100").field("limit").response();
        assert_eq!(response.status(), 400);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        assert_eq!(response.headers()[CACHE_CONTROL], "no-store");
        assert_eq!(
            text(&response),
            r#"{"title":"Bad Request","status":400,"code":"bad_limit","detail":"limit must be 1 to 100","field":"limit"}"#
        );
    }

    #[test]
    fn each_status_has_its_headers() {
        let unavailable = Problem::unavailable("log_unavailable", "no log took the events", 5).response();
        assert_eq!((unavailable.status().as_u16(), &unavailable.headers()[RETRY_AFTER]), (503, &"5".parse().unwrap()));
        let unknown = Problem::unauthorized("no_token", "send a bearer token", "Bearer").response();
        assert_eq!(
            (unknown.status().as_u16(), &unknown.headers()[WWW_AUTHENTICATE]),
            (401, &"Bearer".parse().unwrap())
        );
        let too_many = Problem::too_many_requests("too_many_events_per_minute", "send fewer", 42).response();
        assert_eq!((too_many.status().as_u16(), &too_many.headers()[RETRY_AFTER]), (429, &"42".parse().unwrap()));
        let elsewhere = Problem::method_not_allowed("GET, DELETE").response();
        assert_eq!((elsewhere.status().as_u16(), &elsewhere.headers()[ALLOW]), (405, &"GET, DELETE".parse().unwrap()));
        let plain = [
            (Problem::forbidden("not yours"), 403),
            (Problem::not_found("no such title"), 404),
            (Problem::too_large(262_144), 413),
            (Problem::unsupported_media_type("send JSON"), 415),
        ];
        for (problem, status) in plain {
            let response = problem.response();
            assert_eq!(response.status(), status);
            assert!(!response.headers().contains_key(RETRY_AFTER));
        }
    }

    #[test]
    fn json_and_no_content() {
        let response = json(StatusCode::ACCEPTED, &serde_json::json!({"accepted": 2}));
        assert_eq!((response.status().as_u16(), text(&response)), (202, r#"{"accepted":2}"#));
        assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
        assert!(matches!(no_content().body(), Body::Empty));
    }
}
