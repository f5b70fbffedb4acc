//! Who may ask. The page listens on the loopback interface, but any page of the internet can make
//! this machine's browser send requests there. So:
//! - `Host` must be this server's own. A foreign name that was made to resolve to 127.0.0.1 (DNS
//!   rebinding) comes with its own name.
//! - A POST must come from this page: its `Origin`, which a page cannot forge, and its media type,
//!   which no form can send.
//!
//! Other programs of this machine are not kept out. They could signal the processes themselves.

use axum::http::header::{CONTENT_TYPE, HOST, ORIGIN};
use axum::http::{HeaderMap, Method};

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It was meant for another server.
    Host,
    /// Another page sent it.
    Origin,
    /// Its body is not JSON.
    MediaType,
}

/// Whether the server on this port answers the request.
///
/// # Errors
/// Why not.
pub(crate) fn check(port: u16, method: &Method, headers: &HeaderMap) -> Result<(), Refused> {
    let ours = ["127.0.0.1", "localhost"].map(|host| format!("{host}:{port}"));
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if headers.get_all(HOST).iter().count() != 1 || !ours.iter().any(|host| host == text(HOST)) {
        return Err(Refused::Host);
    }
    if method.is_safe() {
        return Ok(());
    }
    if text(ORIGIN) != format!("http://{}", text(HOST)) {
        return Err(Refused::Origin);
    }
    if text(CONTENT_TYPE) != "application/json" {
        return Err(Refused::MediaType);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderName;

    fn checked(method: &Method, headers: &[(HeaderName, &str)]) -> Result<(), Refused> {
        let headers = headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap()));
        check(8_000, method, &headers.collect())
    }

    #[test]
    fn only_this_servers_own_names_are_answered() {
        for host in ["127.0.0.1:8000", "localhost:8000"] {
            assert_eq!(checked(&Method::GET, &[(HOST, host)]), Ok(()), "{host}");
        }
        for host in ["evil.example:8000", "127.0.0.1:8001", "127.0.0.1", "localhost", "127.0.0.1.evil.example:8000", ""]
        {
            assert_eq!(checked(&Method::GET, &[(HOST, host)]), Err(Refused::Host), "{host}");
        }
        assert_eq!(checked(&Method::GET, &[]), Err(Refused::Host));
    }

    #[test]
    fn controls_are_taken_from_this_page_only() {
        let post = |origin: &'static str, media_type: &'static str| {
            checked(&Method::POST, &[(HOST, "127.0.0.1:8000"), (ORIGIN, origin), (CONTENT_TYPE, media_type)])
        };
        assert_eq!(post("http://127.0.0.1:8000", "application/json"), Ok(()));
        for origin in [
            "https://evil.example",
            "null",
            "",
            "http://127.0.0.1:9000",
            "https://127.0.0.1:8000",
            "http://localhost:8000",
        ] {
            assert_eq!(post(origin, "application/json"), Err(Refused::Origin), "{origin}");
        }
        for media_type in ["text/plain", "application/x-www-form-urlencoded", ""] {
            assert_eq!(post("http://127.0.0.1:8000", media_type), Err(Refused::MediaType), "{media_type}");
        }
        let without_origin = [(HOST, "127.0.0.1:8000"), (CONTENT_TYPE, "application/json")];
        assert_eq!(checked(&Method::POST, &without_origin), Err(Refused::Origin));
    }
}
