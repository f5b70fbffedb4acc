//! A request's body: its media type, its encoding, its size.

use flate2::read::MultiGzDecoder;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use lambda::problem::Problem;
use playback::contract::{MAX_BODY_BYTES, MAX_DECOMPRESSED_BYTES};
use std::borrow::Cow;
use std::io::Read;

/// The JSON bytes of a request's body, decompressed where it is gzip. At no time are more than
/// [`MAX_DECOMPRESSED_BYTES`] of it held, however much it would inflate to.
pub(crate) fn read<'a>(headers: &HeaderMap, body: &'a [u8]) -> Result<Cow<'a, [u8]>, Problem> {
    if let Some(media_type) = headers.get(CONTENT_TYPE) {
        let essence = media_type.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case("application/json") {
            let detail = "send JSON, with the header Content-Type: application/json";
            return Err(Problem::unsupported_media_type(detail).field("Content-Type"));
        }
    }
    if body.len() > MAX_BODY_BYTES {
        return Err(Problem::too_large(MAX_BODY_BYTES));
    }
    match headers.get(CONTENT_ENCODING).map(|encoding| encoding.as_bytes().to_ascii_lowercase()).as_deref() {
        None | Some(b"identity" | b"") => Ok(Cow::Borrowed(body)),
        Some(b"gzip" | b"x-gzip") => decompress(body).map(Cow::Owned),
        Some(_) => {
            let detail = "send the body as it is, or with Content-Encoding: gzip";
            Err(Problem::unsupported_media_type(detail).field("Content-Encoding"))
        }
    }
}

fn decompress(body: &[u8]) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::with_capacity(body.len() * 4);
    let limit = MAX_DECOMPRESSED_BYTES as u64 + 1;
    match MultiGzDecoder::new(body).take(limit).read_to_end(&mut bytes) {
        Ok(_) if bytes.len() > MAX_DECOMPRESSED_BYTES => Err(Problem::too_large(MAX_DECOMPRESSED_BYTES)),
        Ok(_) => Ok(bytes),
        Err(_) => {
            let detail = "the body is not gzip, although Content-Encoding says so";
            Err(Problem::bad_request("body_not_gzip", detail).field("Content-Encoding"))
        }
    }
}
