//! Which algorithms may sign a token, and the name of the one that did, for the answer.
//!
//! **Invariant:** no text of a token is ever repeated. A name comes from the list below, so a
//! header cannot smuggle anything into an answer or a log.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, AlgorithmFamily};
use serde::Deserialize;

/// What a shared secret signs with.
pub(super) const OF_SECRET: &str = "HS256";
/// What the keys of a JWKS sign with.
pub(super) const OF_JWKS: &str = "RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA";

/// Signature algorithms with a registered name (IANA, "JSON Web Signature and Encryption
/// Algorithms"), and the lack of one.
const KNOWN: [&str; 17] = [
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512",
    "ES256K", "EdDSA", "Ed25519", "Ed448", "none",
];

/// Whether the keys of a JWKS may verify this algorithm.
pub(super) fn is_of_jwks(algorithm: Algorithm) -> bool {
    algorithm.family() != AlgorithmFamily::Hmac
}

/// The algorithm that a token's header names, as a word of [`KNOWN`] or `unknown`. `None` if the
/// token has no such header.
pub(super) fn named_in(token: &str) -> Option<&'static str> {
    #[derive(Deserialize)]
    struct Header {
        alg: String,
    }
    let (header, _) = token.split_once('.')?;
    let header: Header = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(header).ok()?).ok()?;
    // RFC 7515 compares names exactly, but "None" and "NONE" are well-known tricks: name them, too.
    let known = KNOWN.into_iter().find(|known| known.eq_ignore_ascii_case(&header.alg));
    Some(known.unwrap_or("unknown"))
}
