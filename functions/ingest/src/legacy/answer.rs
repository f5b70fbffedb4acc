//! The legacy system's answer, as the device gets it: its status, headers and bytes.
//!
//! Between us and the device are the Lambda runtime and API Gateway, which take an answer as JSON.
//! What they would change or refuse is put into a form that they keep:
//!
//! - A header has one value there. Several become one, separated by commas (RFC 9110, 5.3); cookies
//!   have a place of their own.
//! - A value must be UTF-8, a cookie visible ASCII. Others are dropped: the runtime would end the
//!   process over them, or empty them.
//! - The runtime decodes a body by the charset that its media type names, unless it has a
//!   `Content-Encoding`. So one that it would change gets `identity`, which changes nothing.

use super::end_to_end;
use bytes::BytesMut;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue, SET_COOKIE};
use http::{HeaderMap, Response};
use lambda_http::Body;

/// The largest answer that is passed back, in bytes.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;
const UTF8_MARK: &[u8] = "\u{feff}".as_bytes();

/// Why an answer cannot be passed back.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    /// It ended before its end, or stopped for too long.
    #[error("the legacy system's answer broke off")]
    Off,
    /// It exceeds [`MAX_ANSWER_BYTES`].
    #[error("the legacy system's answer is larger than 1 MiB")]
    TooLarge,
}

/// Reads the answer.
pub(super) async fn pass_back(mut answer: reqwest::Response) -> Result<Response<Body>, Broken> {
    let (status, mut headers) = (answer.status(), sendable(&end_to_end(answer.headers())));
    let mut body = BytesMut::new();
    while let Some(chunk) = answer.chunk().await.map_err(|_| Broken::Off)? {
        if body.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Err(Broken::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    let is_encoded = headers.contains_key(CONTENT_ENCODING);
    let body = match String::from_utf8(body.to_vec()) {
        Ok(text) if text.is_empty() => Body::Empty,
        Ok(text) if !is_encoded && stays_as_text(&headers, &text) => Body::Text(text),
        Ok(text) => Body::Binary(text.into_bytes()),
        Err(error) => Body::Binary(error.into_bytes()),
    };
    if matches!(body, Body::Binary(_)) && !is_encoded {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("identity"));
    }
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}

/// The headers with one value each, apart from cookies, and without those that cannot be sent.
fn sendable(headers: &HeaderMap) -> HeaderMap {
    let (mut passed, mut dropped) = (HeaderMap::new(), Vec::new());
    for name in headers.keys() {
        let can_be_sent = |value: &&HeaderValue| {
            value.to_str().is_ok() || (name != SET_COOKIE && std::str::from_utf8(value.as_bytes()).is_ok())
        };
        let (kept, others): (Vec<&HeaderValue>, Vec<&HeaderValue>) =
            headers.get_all(name).iter().partition(can_be_sent);
        if !others.is_empty() {
            dropped.push(name.as_str());
        }
        pass(&mut passed, name, &kept);
    }
    if !dropped.is_empty() {
        tracing::warn!(headers = ?dropped, "dropped headers of the legacy system's answer that are not text");
    }
    passed
}

fn pass(headers: &mut HeaderMap, name: &HeaderName, values: &[&HeaderValue]) {
    if values.len() < 2 || name == SET_COOKIE {
        headers.extend(values.iter().map(|&value| (name.clone(), value.clone())));
        return;
    }
    let values: Vec<&[u8]> = values.iter().map(|value| value.as_bytes()).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&values.join(&b", "[..])) {
        headers.insert(name, joined);
    }
}

/// Whether a text keeps its bytes when the runtime decodes it by the charset of its media type.
fn stays_as_text(headers: &HeaderMap, text: &str) -> bool {
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let charset = media_type.split(';').skip(1).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"').to_ascii_lowercase())
    });
    match charset.as_deref() {
        None | Some("utf-8" | "utf8") => !text.as_bytes().starts_with(UTF8_MARK),
        Some("us-ascii" | "iso-8859-1" | "windows-1252") => text.is_ascii(),
        Some(_) => false,
    }
}
