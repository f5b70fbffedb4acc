//! A request's body: its media type, its encoding, its size.
//!
//! API Gateway passes a body as text or as base64, depending on its media type. An HTTP API does not
//! decompress. But what stands in front of it may, and a compressed body that was taken for text is
//! corrupt: whatever was not UTF-8 has become U+FFFD. So three forms are recognised: compressed
//! bytes; bytes that were already decompressed, with the header still there; and compressed bytes
//! that were converted to text. The last one is an error that names the fix.

use flate2::read::MultiGzDecoder;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use lambda::problem::Problem;
use playback::contract::{MAX_BODY_BYTES, MAX_DECOMPRESSED_BYTES};
use std::borrow::Cow;
use std::io::Read;

/// The first bytes of gzip (RFC 1952, 2.3.1), and what a conversion to UTF-8 makes of them.
const MAGIC: [u8; 2] = [0x1f, 0x8b];
const CORRUPT_MAGIC: &[u8] = "\u{1f}\u{fffd}".as_bytes();

/// The JSON bytes of a request's body, decompressed if it is gzip. At most
/// [`MAX_DECOMPRESSED_BYTES`] of it are held in memory, however large it would inflate.
pub(crate) fn read<'a>(headers: &HeaderMap, body: &'a [u8]) -> Result<Cow<'a, [u8]>, Problem> {
    if let Some(media_type) = headers.get(CONTENT_TYPE)
        && !is_json(media_type.to_str().unwrap_or_default())
    {
        let detail = "send JSON, with the header Content-Type: application/json";
        return Err(Problem::unsupported_media_type(detail).field("Content-Type"));
    }
    if body.len() > MAX_BODY_BYTES {
        return Err(Problem::too_large(MAX_BODY_BYTES));
    }
    match encoding(headers).as_slice() {
        b"" | b"identity" => Ok(Cow::Borrowed(body)),
        b"gzip" | b"x-gzip" if body.starts_with(&MAGIC) => decompress(body).map(Cow::Owned),
        b"gzip" | b"x-gzip" => check_intact(headers, body).map(|()| Cow::Borrowed(body)),
        _ => {
            let detail = "send the body uncompressed, or with Content-Encoding: gzip";
            Err(Problem::unsupported_media_type(detail).field("Content-Encoding"))
        }
    }
}

/// Refuses a compressed body that was treated as text on the way.
pub(crate) fn check_intact(headers: &HeaderMap, body: &[u8]) -> Result<(), Problem> {
    let is_spoilt = match encoding(headers).as_slice() {
        b"" | b"identity" => false,
        b"gzip" | b"x-gzip" => body.starts_with(CORRUPT_MAGIC),
        // Bytes that are compressed are never UTF-8 by chance, save a very few.
        _ => std::str::from_utf8(body).is_ok_and(|text| text.contains(char::REPLACEMENT_CHARACTER)),
    };
    if !is_spoilt {
        return Ok(());
    }
    let detail = "the compressed body was treated as text in transit and is corrupt; \
                  send it with Content-Type: application/vnd.playhead.events+json";
    Err(Problem::bad_request("body_spoilt", detail).field("Content-Type"))
}

/// The value of `Content-Encoding` in lower case; empty without one.
fn encoding(headers: &HeaderMap) -> Vec<u8> {
    headers.get(CONTENT_ENCODING).map(|encoding| encoding.as_bytes().to_ascii_lowercase()).unwrap_or_default()
}

/// `application/json`, or a type with the suffix `+json` (RFC 6839, 3.1).
pub(crate) fn is_json(media_type: &str) -> bool {
    let essence = essence(media_type);
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// The media type without its parameters, in lower case.
pub(crate) fn essence(media_type: &str) -> String {
    media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn decompress(body: &[u8]) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::with_capacity(body.len() * 4);
    let limit = MAX_DECOMPRESSED_BYTES as u64 + 1;
    match MultiGzDecoder::new(body).take(limit).read_to_end(&mut bytes) {
        Ok(_) if bytes.len() > MAX_DECOMPRESSED_BYTES => Err(Problem::too_large(MAX_DECOMPRESSED_BYTES)),
        Ok(_) => Ok(bytes),
        Err(_) => {
            let detail = "the body starts as gzip but cannot be decompressed";
            Err(Problem::bad_request("body_not_gzip", detail).field("Content-Encoding"))
        }
    }
}
