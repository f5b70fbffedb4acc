//! Authentication: bearer JWTs, and the profiles that their holder may write and read.
//!
//! Keys come from a JWKS (asymmetric algorithms only) or, on a development stage, from a shared
//! secret (HS256 only). The two never mix, so a public key cannot pass as a secret. A token must
//! expire (`exp`); `nbf` is honoured; both allow [`LEEWAY_S`]. If an issuer or an audience is
//! configured, the token must carry it.
//!
//! The claim `profiles` lists the profiles that the token covers. A token whose `scope` (or `scp`)
//! has the stage's service scope covers all of them: it is a backend's. A token with neither is
//! refused.
//!
//! **Invariant:** no token, secret or key is logged or printed. **Invariant:** unavailable keys are
//! [`AuthError::Unavailable`] (503), never a refusal: the device must keep its events and try
//! again.

mod algorithm;
mod claims;
mod config;
mod jwks;
#[cfg(test)]
mod tests;
mod verified;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};

use self::claims::Claims;
pub use self::config::{AuthConfig, KeySource, MIN_SECRET_BYTES};
pub use self::jwks::FETCH_TIME_OUT;
use self::jwks::Jwks;
use self::verified::Verified;
use crate::problem::Problem;

/// How far our clock and the issuer's may differ, in seconds.
pub const LEEWAY_S: u64 = 60;
/// The longest token that is read, in bytes. API Gateway's limit for all headers is 10,240.
const MAX_TOKEN_BYTES: usize = 10_240;
const WRONG_SIGNATURE: AuthError = AuthError::Invalid("the token's signature is wrong");
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
    /// The token is signed with an algorithm that is not allowed here.
    #[error("the token's algorithm is {named}, but only {allowed} may sign a token here")]
    Algorithm {
        /// A known name, or `unknown`: never text of the token.
        named: &'static str,
        /// Those that are allowed.
        allowed: &'static str,
    },
    /// The keys that tokens are checked with are unavailable.
    #[error("the keys that tokens are checked with are unavailable now")]
    Unavailable,
}

impl From<AuthError> for Problem {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Missing => Self::unauthorized("no_token", error.to_string(), r#"Bearer realm="playhead""#),
            AuthError::Invalid(_) | AuthError::Algorithm { .. } => {
                let challenge = r#"Bearer realm="playhead", error="invalid_token""#;
                Self::unauthorized("invalid_token", error.to_string(), challenge)
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
    /// The scope of a backend's token; if absent, no token is a backend's.
    service_scope: Option<String>,
    verified: Verified,
}

enum Keys {
    Jwks(Jwks),
    Secret(DecodingKey),
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
        Ok(Self { keys, validation, service_scope: config.service_scope.clone(), verified: Verified::new() })
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
    pub async fn verify(&self, authorization: Option<&str>) -> Result<Arc<Identity>, AuthError> {
        self.verify_at(authorization, Instant::now()).await
    }

    /// Like [`Self::verify`]; `now` is the monotonic clock by which cached keys and tokens age.
    async fn verify_at(&self, authorization: Option<&str>, now: Instant) -> Result<Arc<Identity>, AuthError> {
        let token = bearer(authorization)?;
        let hash = verified::hash(token);
        if let Some(identity) = self.verified.get(&hash, now) {
            return Ok(identity);
        }
        let claims = self.claims_of(token, now).await?;
        let expires_in = expires_in(&claims);
        let identity = Arc::new(self.identity(claims)?);
        self.verified.put(hash, Arc::clone(&identity), now, expires_in);
        Ok(identity)
    }

    /// The claims of a token that is valid.
    async fn claims_of(&self, token: &str, now: Instant) -> Result<Claims, AuthError> {
        let allowed = match &self.keys {
            Keys::Secret(_) => algorithm::OF_SECRET,
            Keys::Jwks(_) => algorithm::OF_JWKS,
        };
        let Ok(header) = jsonwebtoken::decode_header(token) else {
            let named = algorithm::named_in(token).filter(|name| !allowed.split(", ").any(|one| one == *name));
            return Err(match named {
                Some(named) => AuthError::Algorithm { named, allowed },
                None => AuthError::Invalid("the token is not a JWT"),
            });
        };
        if header.crit.is_some() {
            return Err(AuthError::Invalid("the token has critical headers that are not supported"));
        }
        match &self.keys {
            Keys::Secret(secret) if header.alg == Algorithm::HS256 => {
                self.claims(token, secret, header.alg).unwrap_or(Err(WRONG_SIGNATURE))
            }
            Keys::Jwks(jwks) if algorithm::is_of_jwks(header.alg) => {
                let is_named = header.kid.is_some();
                let verify = |key: &DecodingKey| match self.claims(token, key, header.alg) {
                    None if is_named => Some(Err(WRONG_SIGNATURE)),
                    // Without a key id, another key may have signed it.
                    result => result,
                };
                jwks.first(header.kid.as_deref(), header.alg, now, verify).await?
            }
            _ => {
                let named = algorithm::named_in(token).unwrap_or("unknown");
                Err(AuthError::Algorithm { named, allowed })
            }
        }
    }

    /// Checks the signature, then the claims. `None` when this key did not sign the token; an error
    /// when it did, but the claims are invalid.
    fn claims(&self, token: &str, key: &DecodingKey, algorithm: Algorithm) -> Option<Result<Claims, AuthError>> {
        let validation = Validation { algorithms: vec![algorithm], ..self.validation.clone() };
        let reason = match jsonwebtoken::decode(token, key, &validation) {
            Ok(token) => return Some(Ok(token.claims)),
            Err(error) => match error.kind() {
                ErrorKind::ExpiredSignature => "the token has expired",
                ErrorKind::ImmatureSignature => "the token is not valid yet",
                ErrorKind::InvalidIssuer => "the token is from another issuer",
                ErrorKind::InvalidAudience => "the token is for another audience",
                ErrorKind::MissingRequiredClaim(_) => "the token lacks one of the claims exp, iss, aud",
                ErrorKind::Json(_) | ErrorKind::InvalidClaimFormat(_) => {
                    "the token's claims have the wrong form; `profiles` must be a list of strings"
                }
                _ => return None,
            },
        };
        Some(Err(AuthError::Invalid(reason)))
    }

    fn identity(&self, claims: Claims) -> Result<Identity, AuthError> {
        let is_service = self.service_scope.as_deref().is_some_and(|scope| claims.has_scope(scope));
        let scope = match claims.profiles {
            _ if is_service => Scope::Service,
            Some(profiles) => Scope::Profiles(profiles),
            None => return Err(AuthError::Invalid("the token has neither profiles nor the scope of a service")),
        };
        Ok(Identity { scope, subject: claims.sub })
    }
}

/// For how long these claims are valid, by our clock.
fn expires_in(claims: &Claims) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let expires_at = claims.expires_at().unwrap_or_default();
    expires_at.saturating_add(Duration::from_secs(LEEWAY_S)).saturating_sub(now)
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticator").finish_non_exhaustive()
    }
}

/// The token of `Bearer <token>`; the scheme's case does not matter (RFC 9110, 11.1).
fn bearer(authorization: Option<&str>) -> Result<&str, AuthError> {
    let header = authorization.ok_or(AuthError::Missing)?;
    if header.len() > MAX_TOKEN_BYTES {
        return Err(AuthError::Invalid("the token is too long"));
    }
    match header.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(token.trim()),
        _ => Err(AuthError::Missing),
    }
}
