//! Requests whose token is in the body: `navigator.sendBeacon`, with which a page that closes sends
//! its last events, cannot set headers.
//!
//! Such a request is turned into a normal one at the door, with the header `Authorization` and the
//! media type of JSON. Nothing behind the door knows the difference: not the authentication, not
//! the legacy system, which gets the token in the header as for any other request and never in the
//! body.
//!
//! Its sender is unknown when it is read. So it is read only if it is small enough and not
//! compressed; whatever else is wrong with it, the answer is that there is no token.
//!
//! **Invariant:** the token is never logged: not here, and not by a `Debug` of the headers.

use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};
use lambda::problem::Problem;
use playback::contract::MAX_BODY_BYTES;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// The member of the body that carries the token.
const TOKEN: &str = "token";

/// A request for events. It is a normal one: its token, if it has one, is in the header.
pub(crate) struct Post<'a> {
    pub(crate) headers: Cow<'a, HeaderMap>,
    pub(crate) body: Cow<'a, [u8]>,
}

impl<'a> Post<'a> {
    /// Makes a normal request of a beacon. Others stay as they are.
    pub(crate) fn of(headers: &'a HeaderMap, body: &'a [u8]) -> Self {
        let normal = Beacon::of(headers, body).and_then(|beacon| beacon.normal_headers());
        Self { headers: normal.map_or(Cow::Borrowed(headers), Cow::Owned), body: Cow::Borrowed(body) }
    }

    /// The same for a request that may be passed on to the legacy system: the token is taken out of
    /// the body. Only a beacon whose token has the form of a JWT is ours.
    pub(crate) fn to_pass_on(headers: &'a HeaderMap, body: &'a [u8]) -> Result<Self, Problem> {
        let Some(beacon) = Beacon::of(headers, body).filter(Beacon::has_jwt) else {
            return Ok(Self { headers: Cow::Borrowed(headers), body: Cow::Borrowed(body) });
        };
        match (beacon.normal_headers(), beacon.body_without_token()) {
            (Some(headers), Some(body)) => Ok(Self { headers: Cow::Owned(headers), body: Cow::Owned(body) }),
            _ => {
                Err(Problem::bad_request("malformed_request", "a body with a `token` must be JSON in UTF-8 throughout"))
            }
        }
    }
}

/// A request with its token in the body.
struct Beacon<'a> {
    token: Cow<'a, str>,
    headers: &'a HeaderMap,
    body: &'a [u8],
}

impl<'a> Beacon<'a> {
    /// The beacon, if the request is one: without the header `Authorization`, as JSON or text, with
    /// a token in its JSON.
    fn of(headers: &'a HeaderMap, body: &'a [u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct WithToken<'a> {
            #[serde(borrow)]
            token: Cow<'a, str>,
        }
        let is_plain = !headers.contains_key(AUTHORIZATION) && !headers.contains_key(CONTENT_ENCODING);
        if !is_plain || body.len() > MAX_BODY_BYTES || !may_be_json(headers) {
            return None;
        }
        let WithToken { token } = serde_json::from_slice(body).ok()?;
        Some(Self { token, headers, body })
    }

    /// Whether the token has the form of a JWT. A legacy system may have beacons with tokens of
    /// another form, which are none of our business.
    fn has_jwt(&self) -> bool {
        let is_part = |part: &str| {
            !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        };
        let parts: Vec<&str> = self.token.split('.').collect();
        parts.len() == 3 && parts.into_iter().all(is_part)
    }

    /// The headers of the same request with its token where it belongs. `None` if the token cannot
    /// be in a header.
    fn normal_headers(&self) -> Option<HeaderMap> {
        let mut authorization = HeaderValue::from_str(&format!("Bearer {}", self.token)).ok()?;
        authorization.set_sensitive(true);
        let mut headers = self.headers.clone();
        headers.insert(AUTHORIZATION, authorization);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Some(headers)
    }

    /// The body without the token. `None` if it is not JSON throughout.
    fn body_without_token(&self) -> Option<Vec<u8>> {
        let mut members: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_slice(self.body).ok()?;
        members.remove(TOKEN);
        serde_json::to_vec(&members).ok()
    }
}

/// JSON, or the text that a browser may send anywhere without asking first.
fn may_be_json(headers: &HeaderMap) -> bool {
    let Some(media_type) = headers.get(CONTENT_TYPE) else { return true };
    let media_type = media_type.to_str().unwrap_or_default();
    crate::body::is_json(media_type) || crate::body::essence(media_type) == "text/plain"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (http::HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        pairs.iter().map(pair).collect()
    }

    fn token_of(pairs: &[(&'static str, &'static str)], body: &str) -> Option<String> {
        let headers = headers(pairs);
        Beacon::of(&headers, body.as_bytes()).map(|beacon| beacon.token.into_owned())
    }

    const TEXT: (&str, &str) = ("content-type", "text/plain;charset=UTF-8");

    #[test]
    fn token_is_read_only_without_an_authorization_header() {
        let body = r#"{"events":[],"token":"a.b.c"}"#;
        for plain in [&[TEXT][..], &[("content-type", "Application/JSON")], &[]] {
            assert_eq!(token_of(plain, body).as_deref(), Some("a.b.c"), "{plain:?}");
        }
        for other in [
            &[TEXT, ("authorization", "")][..],
            &[TEXT, ("authorization", "Bearer x")],
            &[TEXT, ("content-encoding", "gzip")],
            &[("content-type", "text/html")],
            &[("content-type", "application/x-www-form-urlencoded")],
        ] {
            assert_eq!(token_of(other, body), None, "{other:?}");
        }
    }

    #[test]
    fn body_without_a_readable_token_is_no_beacon() {
        let too_large = format!(r#"{{"token":"a.b.c","padding":"{}"}}"#, " ".repeat(MAX_BODY_BYTES));
        for body in [
            "",
            "not JSON",
            "[]",
            "{}",
            r#"{"token":7}"#,
            r#"{"token":null}"#,
            r#"{"token":"a","token":"b"}"#,
            &too_large,
        ] {
            assert_eq!(token_of(&[TEXT], body), None, "{:.40}", body);
        }
    }

    #[test]
    fn normal_request_has_the_token_in_the_header_alone() {
        let headers = headers(&[TEXT, ("origin", "https://play.example")]);
        let body = r#"{"sent_at": 5, "token": "a.b\u002dc.d", "events": [ {"seq": 1.0} ]}"#;
        let beacon = Beacon::of(&headers, body.as_bytes()).unwrap();
        let normal = beacon.normal_headers().unwrap();
        assert_eq!(normal[AUTHORIZATION], "Bearer a.b-c.d");
        assert_eq!(normal[CONTENT_TYPE], "application/json");
        assert_eq!(normal["origin"], "https://play.example");
        assert!(!format!("{normal:?}").contains("a.b-c.d"), "{normal:?}");
        let passed = String::from_utf8(beacon.body_without_token().unwrap()).unwrap();
        assert_eq!(passed, r#"{"events":[ {"seq": 1.0} ],"sent_at":5}"#);
    }

    #[test]
    fn token_that_fits_no_header_makes_no_normal_request() {
        let headers = headers(&[TEXT]);
        let beacon = Beacon::of(&headers, br#"{"token":"a\r\nx-admin: yes"}"#).unwrap();
        assert!(beacon.normal_headers().is_none());
    }

    #[test]
    fn body_that_is_not_utf8_is_never_passed_on_with_its_token() {
        let headers = headers(&[TEXT]);
        let body = b"{\"token\":\"a.b.c\",\"events\":[{\"x\":\"\xff\"}]}";
        assert_eq!(Post::of(&headers, body).headers[AUTHORIZATION], "Bearer a.b.c");
        assert_eq!(Post::to_pass_on(&headers, body).err().unwrap().code, "malformed_request");
    }

    #[test]
    fn only_three_parts_of_base64url_are_a_jwt() {
        let is_jwt = |token: &str| {
            let headers = headers(&[TEXT]);
            Beacon::of(&headers, format!(r#"{{"token":"{token}"}}"#).as_bytes()).unwrap().has_jwt()
        };
        assert!(is_jwt("eyJ.e30-_9.c2ln"));
        for other in ["", "opaque", "a.b", "a.b.c.d", "a..c", "a.b.c=", "a.b c.d"] {
            assert!(!is_jwt(other), "{other}");
        }
    }
}
