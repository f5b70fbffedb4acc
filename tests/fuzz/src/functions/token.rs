//! What follows `Bearer`: a token.
//!
//! - Only a token that was signed with the secret is accepted. Of the corpus those are [`SIGNED`]; a
//!   fuzzer cannot sign others.

use super::{SECRET, block_on};
use lambda::auth::{AuthConfig, Authenticator};
use lambda::config::{Env, read};

/// A member's and a backend's.
const SIGNED: [&str; 2] = [
    "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJleHAiOjQxMDI0NDQ4MDAsInByb2ZpbGVzIjpbInAwMDAwMDA1NCJdfQ.Fgy2QwvLgjKHeze7eLT-qd9zjzerKgFjks_jz39y9NE",
    "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic2VydmljZSJ9.EUHnJRkp9n-hKN2ITExoAIaH5yM846I3SVk9hU0xR3Q",
];

pub(super) fn run(bytes: &[u8]) {
    thread_local! {
        static AUTHENTICATOR: Authenticator = authenticator();
    }
    let Ok(token) = std::str::from_utf8(bytes) else { return };
    let header = format!("Bearer {token}");
    let verified = AUTHENTICATOR.with(|authenticator| block_on(authenticator.verify(Some(&header))));
    assert_eq!(verified.is_ok(), SIGNED.contains(&token.trim()), "{verified:?}");
}

/// As on a development stage.
pub(super) fn authenticator() -> Authenticator {
    let env = Env::from_pairs([("JWT_SECRET", SECRET), ("SERVICE_SCOPE", "service")]);
    Authenticator::new(&read(env, AuthConfig::read).unwrap()).unwrap()
}
