//! The member's viewing-activity page: static files, which need no token. The token comes in the
//! fragment of the page's address, which a browser never sends, and the page calls the API with it.

use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderName,
    HeaderValue, IF_NONE_MATCH, REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use http::{Response, StatusCode};
use lambda::problem::Problem;
use lambda::route::Table;
use lambda_http::{Body, Request};
use sha2::{Digest, Sha256};
use std::fmt;
use std::io::Write;
use std::str::FromStr;
use std::sync::LazyLock;

/// The routes of the page and of the files that it loads.
pub(crate) const ROUTES: Table<()> = Table(&[("GET /activity", ()), ("GET /activity/{file}", ())]);

/// The page itself has no name: its address ends with `/activity`.
const FILES: [(&str, &str, &str); 6] = [
    ("", "text/html; charset=utf-8", include_str!("../page/index.html")),
    ("app.css", "text/css; charset=utf-8", include_str!("../page/app.css")),
    ("app.js", "text/javascript; charset=utf-8", include_str!("../page/app.js")),
    ("api.js", "text/javascript; charset=utf-8", include_str!("../page/api.js")),
    ("format.js", "text/javascript; charset=utf-8", include_str!("../page/format.js")),
    ("icon.svg", "image/svg+xml", include_str!("../page/icon.svg")),
];

/// Made when the page is first asked for: a function that only answers calls pays nothing for it.
static ASSETS: LazyLock<Vec<Asset>> = LazyLock::new(|| FILES.into_iter().map(Asset::of).collect());

struct Asset {
    name: &'static str,
    media_type: &'static str,
    text: &'static str,
    /// Empty if it could not be compressed.
    gzip: Vec<u8>,
    tag: String,
}

impl Asset {
    fn of((name, media_type, text): (&'static str, &'static str, &'static str)) -> Self {
        let hash = Sha256::digest(text);
        let tag: String = hash.iter().take(12).map(|byte| format!("{byte:02x}")).collect();
        // Weak, because it stands for both encodings.
        Self { name, media_type, text, gzip: gzip(text).unwrap_or_default(), tag: format!("W/\"{tag}\"") }
    }
}

fn gzip(text: &str) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(text.as_bytes())?;
    encoder.finish()
}

/// Which pages may have the page in a frame: those of the origins that may call the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameAncestors(String);

impl Default for FrameAncestors {
    fn default() -> Self {
        Self("'none'".to_owned())
    }
}

impl fmt::Display for FrameAncestors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a list of origins is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be `*`, or origins separated by commas")]
pub struct NotOrigins;

impl FromStr for FrameAncestors {
    type Err = NotOrigins;

    /// Reads the parameter `AllowedOrigins`.
    fn from_str(text: &str) -> Result<Self, NotOrigins> {
        // What ends a directive, or a policy, must not get into the header.
        let is_origin = |origin: &str| {
            let host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
            host.is_some_and(|host| {
                !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte))
            })
        };
        if text == "*" || text.split(',').all(is_origin) {
            return Ok(Self(text.replace(',', " ")));
        }
        Err(NotOrigins)
    }
}

/// The answer to a request for the page or one of its files; `None` for any other request.
pub(crate) fn serve(request: &Request, ancestors: &FrameAncestors) -> Option<Result<Response<Body>, Problem>> {
    let ((), of) = ROUTES.find(request).ok()?;
    let name = of.path("file");
    let Some(asset) = ASSETS.iter().find(|asset| asset.name == name) else {
        return Some(Err(Problem::not_found("the page has no such file")));
    };
    Some(Ok(answer(request, asset, ancestors)))
}

fn answer(request: &Request, asset: &Asset, ancestors: &FrameAncestors) -> Response<Body> {
    let says = |name: HeaderName| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_known = says(IF_NONE_MATCH).split(',').any(|tag| [asset.tag.as_str(), "*"].contains(&tag.trim()));
    let is_gzip = !asset.gzip.is_empty() && accepts_gzip(says(ACCEPT_ENCODING));
    let body = match (is_known, is_gzip) {
        (true, _) => Body::Empty,
        (false, true) => Body::Binary(asset.gzip.clone()),
        (false, false) => Body::Text(asset.text.to_owned()),
    };
    let mut response = Response::new(body);
    if is_known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(asset.media_type));
    // Asked for anew each time, so that the files of a page are always of one release; 304 is short.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    if is_gzip && !is_known {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    let policy = format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors {ancestors}"
    );
    for (name, value) in [(ETAG, asset.tag.clone()), (CONTENT_SECURITY_POLICY, policy)] {
        // Both are of ASCII.
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
    response
}

/// Whether `Accept-Encoding` names gzip and does not refuse it.
fn accepts_gzip(accepts: &str) -> bool {
    accepts.split(',').any(|one| {
        let (coding, rest) = one.split_once(';').unwrap_or((one, ""));
        let weight = rest.trim().strip_prefix("q=").map_or(Ok(1.0), str::parse::<f32>);
        coding.trim().eq_ignore_ascii_case("gzip") && weight.is_ok_and(|weight| weight > 0.0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::read::GzDecoder;
    use lambda_http::RequestExt;
    use std::io::Read;

    /// The most that the page and all its files may weigh, as sent.
    const MAX_BYTES: usize = 60 * 1024;

    fn request(path: &str, headers: &[(HeaderName, &str)]) -> Request {
        let mut request = http::Request::builder();
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        request.body(Body::Empty).unwrap().with_raw_http_path(path)
    }

    fn get(path: &str, headers: &[(HeaderName, &str)]) -> Response<Body> {
        let ancestors = "https://play.example,https://tv.example:8443".parse().unwrap();
        serve(&request(path, headers), &ancestors).unwrap().unwrap()
    }

    fn path_of(name: &str) -> String {
        format!("/activity/{name}").trim_end_matches('/').to_owned()
    }

    #[test]
    fn the_page_weighs_at_most_60_kb() {
        let sent: usize = FILES
            .iter()
            .map(|(name, ..)| match get(&path_of(name), &[(ACCEPT_ENCODING, "gzip")]).body() {
                Body::Binary(bytes) => bytes.len(),
                other => panic!("{name} is not compressed: {other:?}"),
            })
            .sum();
        assert!((1_000..=MAX_BYTES).contains(&sent), "the page weighs {sent} bytes, of {MAX_BYTES}");
    }

    #[test]
    fn each_file_is_the_same_in_either_encoding() {
        for (name, media_type, text) in FILES {
            let plain = get(&path_of(name), &[]);
            assert_eq!(
                (plain.status(), &plain.headers()[CONTENT_TYPE]),
                (StatusCode::OK, &media_type.parse().unwrap())
            );
            assert!(matches!(plain.body(), Body::Text(body) if body == text), "{name}");
            let packed = get(&path_of(name), &[(ACCEPT_ENCODING, "br, gzip;q=0.8")]);
            assert_eq!(packed.headers()[CONTENT_ENCODING], "gzip");
            let mut unpacked = String::new();
            GzDecoder::new(packed.body().as_ref()).read_to_string(&mut unpacked).unwrap();
            assert_eq!(unpacked, text, "{name}");
            assert_eq!(plain.headers()[ETAG], packed.headers()[ETAG]);
        }
        for refused in ["", "br", "gzip;q=0", "identity", "xgzip"] {
            assert!(!get("/activity", &[(ACCEPT_ENCODING, refused)]).headers().contains_key(CONTENT_ENCODING));
        }
    }

    #[test]
    fn a_browser_that_has_a_file_gets_no_second_copy() {
        let first = get("/activity/app.js", &[]);
        let tag = first.headers()[ETAG].to_str().unwrap().to_owned();
        for known in [tag.clone(), format!("\"x\", {tag}"), "*".to_owned()] {
            let again = get("/activity/app.js", &[(IF_NONE_MATCH, &known), (ACCEPT_ENCODING, "gzip")]);
            assert_eq!(again.status(), StatusCode::NOT_MODIFIED, "{known}");
            assert!(matches!(again.body(), Body::Empty));
            assert!(!again.headers().contains_key(CONTENT_ENCODING));
            assert_eq!(again.headers()[ETAG], tag.as_str());
        }
        assert_eq!(get("/activity/app.css", &[(IF_NONE_MATCH, &tag)]).status(), StatusCode::OK);
    }

    #[test]
    fn the_page_may_load_and_call_only_its_own_origin() {
        for (name, ..) in FILES {
            let response = get(&path_of(name), &[]);
            let headers = response.headers();
            assert_eq!(
                headers[CONTENT_SECURITY_POLICY],
                "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
                 base-uri 'none'; form-action 'none'; frame-ancestors https://play.example https://tv.example:8443"
            );
            assert_eq!(headers[X_CONTENT_TYPE_OPTIONS], "nosniff");
            assert_eq!(headers[REFERRER_POLICY], "no-referrer");
        }
        // Nothing inline, which the policy would stop, and no address of another origin.
        let (_, _, html) = FILES[0];
        for forbidden in ["<style", " style=", "<script>", "onclick", "<base", "<form", "href=\"/", "src=\"/", "://"] {
            assert!(!html.contains(forbidden), "the page has {forbidden}");
        }
    }

    #[test]
    fn only_allowed_origins_may_frame_the_page() {
        let read = |text: &str| text.parse::<FrameAncestors>().map(|ancestors| ancestors.to_string());
        assert_eq!(FrameAncestors::default().to_string(), "'none'");
        assert_eq!(read("*").as_deref(), Ok("*"));
        assert_eq!(
            read("https://a.example,http://localhost:8080").as_deref(),
            Ok("https://a.example http://localhost:8080")
        );
        for wrong in ["", "a.example", "https://", "https://a.example;script-src *", "https://a b", "https://é", "*,*"]
        {
            assert_eq!(read(wrong), Err(NotOrigins), "{wrong}");
        }
    }

    #[test]
    fn every_file_that_the_page_loads_is_served() {
        let (_, _, html) = FILES[0];
        let loaded: Vec<&str> = html.split(['"']).filter_map(|text| text.strip_prefix("activity/")).collect();
        assert!(loaded.len() >= 4, "{loaded:?}");
        for name in loaded {
            assert_eq!(get(&path_of(name), &[]).status(), StatusCode::OK, "{name}");
        }
        for (_, _, text) in FILES.iter().filter(|(name, ..)| name.ends_with(".js")) {
            for name in text.split("from \"./").skip(1).filter_map(|rest| rest.split('"').next()) {
                assert_eq!(get(&path_of(name), &[]).status(), StatusCode::OK, "{name}");
            }
        }
    }

    #[test]
    fn nothing_else_is_served_without_a_token() {
        let ancestors = FrameAncestors::default();
        for path in ["/", "/v1/profiles/p1/history", "/activity/a/b", "/activities"] {
            assert!(serve(&request(path, &[]), &ancestors).is_none(), "{path}");
        }
        for path in ["/activity/index.html", "/activity/%2e%2e", "/activity/app.js.map"] {
            let problem = serve(&request(path, &[]), &ancestors).unwrap().unwrap_err();
            assert_eq!(problem.status, StatusCode::NOT_FOUND, "{path}");
        }
    }
}
