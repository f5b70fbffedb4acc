//! Authentication: bearer JWTs, and the profiles that their holder may write and read.
//!
//! Keys come from a JWKS (asymmetric algorithms only) or, on a development stage, from a shared
//! secret (HS256 only). The two never mix, so a public key cannot pass as a secret. A token must
//! expire (`exp`); `nbf` is honoured; both allow [`LEEWAY_S`]. If an issuer or an audience is
//! configured, the token must carry it.
//!
//! The claim `profiles` lists the profiles that the token covers; a `scope` with the word `service`
//! covers all of them. A token with neither is refused.
//!
//! **Invariant:** no token, secret or key is logged or printed. **Invariant:** unavailable keys are
//! [`AuthError::Unavailable`] (503), never a refusal: the device must keep its events and try
//! again.

mod config;
mod jwks;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::time::Instant;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, Validation};
use serde::Deserialize;

pub use self::config::{AuthConfig, KeySource, MIN_SECRET_BYTES};
use self::jwks::Jwks;
use crate::problem::Problem;

/// How far our clock and the issuer's may differ, in seconds.
pub const LEEWAY_S: u64 = 60;
/// The longest `Authorization` header that is read, in bytes. API Gateway's limit for all headers
/// is 10,240.
const MAX_HEADER_BYTES: usize = 10_240;
/// After how many seconds a device should retry when the keys are unavailable.
const RETRY_AFTER_S: u32 = 5;

/// The holder of a valid token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Which profiles it covers.
    pub scope: Scope,
    /// The token's `sub`, if it has one.
    pub subject: Option<String>,
}

/// Which profiles an identity covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// These profiles and no others.
    Profiles(BTreeSet<String>),
    /// Every profile: the token of a backend.
    Service,
}

impl Identity {
    /// Whether the identity may write and read this profile.
    pub fn may(&self, profile_id: &str) -> bool {
        match &self.scope {
            Scope::Profiles(profiles) => profiles.contains(profile_id),
            Scope::Service => true,
        }
    }
}

/// Why authentication failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// There is no bearer token.
    #[error("send a bearer token in the Authorization header")]
    Missing,
    /// The token is invalid. The reason contains no part of the token.
    #[error("{0}")]
    Invalid(&'static str),
    /// The keys that tokens are checked with are unavailable.
    #[error("the keys that tokens are checked with are unavailable now")]
    Unavailable,
}

impl From<AuthError> for Problem {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Missing => Self::unauthorized("no_token", error.to_string(), r#"Bearer realm="playhead""#),
            AuthError::Invalid(reason) => {
                Self::unauthorized("invalid_token", reason, r#"Bearer realm="playhead", error="invalid_token""#)
            }
            AuthError::Unavailable => Self::unavailable("keys_unavailable", error.to_string(), RETRY_AFTER_S),
        }
    }
}

/// Checks bearer tokens. One per process, shared by concurrent invocations.
pub struct Authenticator {
    keys: Keys,
    /// All checks but the algorithm. That comes from the token, once it is known to be allowed.
    validation: Validation,
}

enum Keys {
    Jwks(Jwks),
    Secret(DecodingKey),
}

#[derive(Deserialize)]
struct Claims {
    sub: Option<String>,
    profiles: Option<BTreeSet<String>>,
    scope: Option<String>,
}

impl Authenticator {
    /// An authenticator that has fetched nothing yet.
    ///
    /// # Errors
    /// When the HTTP client for the JWKS cannot be built (no TLS roots on this machine).
    pub fn new(config: &AuthConfig) -> Result<Self, reqwest::Error> {
        let mut validation = Validation {
            leeway: LEEWAY_S,
            validate_nbf: true,
            // Without a configured audience, tokens for any audience are accepted; with one, the
            // claim is required.
            validate_aud: config.audience.is_some(),
            ..Validation::default()
        };
        let mut required = vec!["exp"];
        if let Some(audience) = &config.audience {
            validation.set_audience(&[audience]);
            required.push("aud");
        }
        if let Some(issuer) = &config.issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        validation.set_required_spec_claims(&required);
        let keys = match &config.keys {
            KeySource::Jwks(url) => Keys::Jwks(Jwks::new(url.clone())?),
            KeySource::Secret(secret) => Keys::Secret(DecodingKey::from_secret(secret.expose().as_bytes())),
        };
        Ok(Self { keys, validation })
    }

    /// Fetches the keys during init, so the first request need not wait for them.
    ///
    /// # Errors
    /// [`AuthError::Unavailable`] when that fails; the first request tries again.
    pub async fn warm_up(&self) -> Result<(), AuthError> {
        match &self.keys {
            Keys::Jwks(jwks) => jwks.warm_up(Instant::now()).await,
            Keys::Secret(_) => Ok(()),
        }
    }

    /// Identifies the sender of a request by the value of its `Authorization` header.
    ///
    /// # Errors
    /// See [`AuthError`].
    pub async fn verify(&self, authorization: Option<&str>) -> Result<Identity, AuthError> {
        self.verify_at(authorization, Instant::now()).await
    }

    /// Like [`Self::verify`]; `now` is the monotonic clock by which the cached keys age.
    async fn verify_at(&self, authorization: Option<&str>, now: Instant) -> Result<Identity, AuthError> {
        let token = bearer(authorization)?;
        let header = jsonwebtoken::decode_header(token).map_err(|_| AuthError::Invalid("the token is not a JWT"))?;
        if header.crit.is_some() {
            return Err(AuthError::Invalid("the token has critical headers that are not supported"));
        }
        let claims = match &self.keys {
            Keys::Secret(secret) if header.alg == Algorithm::HS256 => self.claims(token, secret, header.alg)?,
            Keys::Jwks(jwks) if header.alg.family() != AlgorithmFamily::Hmac => {
                let key = jwks.key(header.kid.as_deref(), header.alg, now).await?;
                self.claims(token, &key, header.alg)?
            }
            _ => return Err(AuthError::Invalid("the token's algorithm is not allowed here")),
        };
        identity(claims)
    }

    /// Checks the signature, then the claims.
    fn claims(&self, token: &str, key: &DecodingKey, algorithm: Algorithm) -> Result<Claims, AuthError> {
        let validation = Validation { algorithms: vec![algorithm], ..self.validation.clone() };
        jsonwebtoken::decode(token, key, &validation).map(|token| token.claims).map_err(|error| {
            AuthError::Invalid(match error.kind() {
                ErrorKind::ExpiredSignature => "the token has expired",
                ErrorKind::ImmatureSignature => "the token is not valid yet",
                ErrorKind::InvalidIssuer => "the token is from another issuer",
                ErrorKind::InvalidAudience => "the token is for another audience",
                ErrorKind::MissingRequiredClaim(_) => "the token lacks one of the claims exp, iss, aud",
                _ => "the token is not valid",
            })
        })
    }
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticator").finish_non_exhaustive()
    }
}

/// The token of `Bearer <token>`; the scheme's case does not matter (RFC 9110, 11.1).
fn bearer(authorization: Option<&str>) -> Result<&str, AuthError> {
    let header = authorization.ok_or(AuthError::Missing)?;
    if header.len() > MAX_HEADER_BYTES {
        return Err(AuthError::Invalid("the token is too long"));
    }
    match header.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(token.trim()),
        _ => Err(AuthError::Missing),
    }
}

fn identity(claims: Claims) -> Result<Identity, AuthError> {
    let is_service = claims.scope.is_some_and(|scope| scope.split(' ').any(|word| word == "service"));
    let scope = match claims.profiles {
        _ if is_service => Scope::Service,
        Some(profiles) => Scope::Profiles(profiles),
        None => return Err(AuthError::Invalid("the token has neither profiles nor the scope service")),
    };
    Ok(Identity { scope, subject: claims.sub })
}
