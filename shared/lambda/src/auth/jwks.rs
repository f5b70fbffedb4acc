//! The issuer's keys: fetched when first needed, cached, refreshed, and never lost to a failed
//! refresh.
//!
//! - Keys older than [`MAX_AGE`] are fetched again; until that succeeds, the old ones stay in use.
//! - An unknown key id also triggers a fetch, since the issuer may have rotated its keys, but not
//!   within [`PAUSE`] of the last attempt: made-up key ids must not turn into requests to the
//!   issuer.
//! - A token without a key id is tried against the keys of its algorithm, at most
//!   [`MAX_CANDIDATES`]. If none has signed it, that counts as an unknown key id.
//! - One request fetches at a time. The others use the old key if there is one, and otherwise wait:
//!   its fetch serves them all, whether it succeeds or fails. The next one may begin only after a
//!   pause, counted from its end. So while the issuer hangs, a request waits for one time-out at
//!   most, and most do not wait.
//! - A key of an unknown type, or one that is not for signatures, is skipped: the others still
//!   work.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use serde::Deserialize;
use url::Url;

use super::AuthError;
use crate::http_client::client_for;

/// How long fetched keys are used before they are fetched again.
pub(super) const MAX_AGE: Duration = Duration::from_secs(600);
/// The least time from the end of one attempt to the next while there are keys.
pub(super) const PAUSE: Duration = Duration::from_secs(30);
/// The same while there are none.
pub(super) const PAUSE_WITHOUT_KEYS: Duration = Duration::from_secs(1);
/// How long one attempt may take, and so how long a request may wait for keys.
pub const FETCH_TIME_OUT: Duration = Duration::from_secs(3);
/// How many keys are tried for a token that names none: enough for an issuer in the middle of a
/// rotation, and too few to make a made-up token expensive.
pub(super) const MAX_CANDIDATES: usize = 8;
/// The largest key set that is read.
pub(super) const MAX_BYTES: usize = 256 * 1024;

/// The keys behind a URL.
pub(super) struct Jwks {
    url: Url,
    client: reqwest::Client,
    cache: RwLock<Cache>,
    /// Held by the request that fetches.
    fetching: tokio::sync::Mutex<()>,
}

#[derive(Clone, Default)]
struct Cache {
    /// The last good set; empty before the first one.
    keys: Arc<[Key]>,
    fetched_at: Option<Instant>,
    /// When the last attempt ended.
    attempted_at: Option<Instant>,
    last_attempt_failed: bool,
    /// How many attempts have ended.
    attempts: u64,
}

struct Key {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error(transparent)]
    Http(#[from] reqwest::Error),
    #[error("the key set is larger than {MAX_BYTES} bytes")]
    TooLarge,
    #[error("the answer is not a JSON key set: {0}")]
    Malformed(#[from] serde_json::Error),
    #[error("the key set has no key for an allowed algorithm")]
    NoUsableKey,
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<serde_json::Value>,
}

impl Jwks {
    pub(super) fn new(url: Url) -> Result<Self, reqwest::Error> {
        // The next fetch is minutes later, when the issuer has closed a connection of this one.
        let client = client_for(&url).timeout(FETCH_TIME_OUT).pool_max_idle_per_host(0).build()?;
        Ok(Self { url, client, cache: RwLock::default(), fetching: tokio::sync::Mutex::default() })
    }

    /// What `verify` makes of the first key that it accepts (`Some`), among the keys that may have
    /// signed a token: the one its header names, or else all of its algorithm.
    pub(super) async fn first<T>(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
        now: Instant,
        verify: impl Fn(&DecodingKey) -> Option<T>,
    ) -> Result<T, AuthError> {
        let cache = self.cache();
        let known = cache.candidates(id, algorithm).find_map(&verify);
        let known = match known {
            Some(known) if !cache.is_stale(now) => return Ok(known),
            known => known,
        };
        let fetching = match (self.fetching.try_lock(), known) {
            (Ok(fetching), _) => fetching,
            (Err(_), Some(known)) => return Ok(known),
            (Err(_), None) => self.fetching.lock().await,
        };
        // If another request fetched while this one waited, its attempt counts for both.
        let attempted = self.cache();
        if attempted.attempts == cache.attempts && attempted.may_try(now) {
            self.refresh(now).await;
        }
        drop(fetching);
        let cache = self.cache();
        cache.candidates(id, algorithm).find_map(&verify).ok_or(if cache.keys.is_empty() || cache.last_attempt_failed {
            AuthError::Unavailable // The key may exist; we could not check.
        } else {
            AuthError::Invalid("the token is signed with an unknown key")
        })
    }

    pub(super) async fn warm_up(&self, now: Instant) -> Result<(), AuthError> {
        let _fetching = self.fetching.lock().await;
        self.refresh(now).await;
        if self.cache().keys.is_empty() { Err(AuthError::Unavailable) } else { Ok(()) }
    }

    async fn refresh(&self, now: Instant) {
        let began = Instant::now();
        let fetched = self.fetch().await;
        let mut cache = self.cache.write().unwrap_or_else(PoisonError::into_inner);
        cache.attempted_at = Some(now + began.elapsed());
        cache.attempts += 1;
        cache.last_attempt_failed = fetched.is_err();
        match fetched {
            Ok(keys) => {
                cache.keys = keys;
                cache.fetched_at = Some(now);
            }
            Err(error) if cache.keys.is_empty() => tracing::error!(%error, "the JWKS could not be fetched"),
            Err(error) => tracing::warn!(%error, "the JWKS could not be refreshed; the last good one stays in use"),
        }
    }

    async fn fetch(&self) -> Result<Arc<[Key]>, FetchError> {
        let get = self.client.get(self.url.clone()).send().await.and_then(reqwest::Response::error_for_status);
        let mut response = get.map_err(reqwest::Error::without_url)?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(reqwest::Error::without_url)? {
            if body.len() + chunk.len() > MAX_BYTES {
                return Err(FetchError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        let set: KeySet = serde_json::from_slice(&body)?;
        let keys: Arc<[Key]> = set.keys.into_iter().filter_map(usable).collect();
        if keys.is_empty() { Err(FetchError::NoUsableKey) } else { Ok(keys) }
    }

    fn cache(&self) -> Cache {
        self.cache.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Cache {
    /// The key with this id; for a token without an id, every key of its algorithm, up to
    /// [`MAX_CANDIDATES`].
    fn candidates(&self, id: Option<&str>, algorithm: Algorithm) -> impl Iterator<Item = &DecodingKey> {
        let of_algorithm = self.keys.iter().filter(move |key| key.algorithms.contains(&algorithm));
        let candidates = of_algorithm.filter(move |key| id.is_none() || key.id.as_deref() == id);
        candidates.map(|key| &key.key).take(if id.is_some() { 1 } else { MAX_CANDIDATES })
    }

    fn is_stale(&self, now: Instant) -> bool {
        self.fetched_at.is_none_or(|at| now.saturating_duration_since(at) >= MAX_AGE)
    }

    fn may_try(&self, now: Instant) -> bool {
        let pause = if self.keys.is_empty() { PAUSE_WITHOUT_KEYS } else { PAUSE };
        self.attempted_at.is_none_or(|at| now.saturating_duration_since(at) >= pause)
    }
}

/// The key, if it can verify signatures with an allowed algorithm.
fn usable(jwk: serde_json::Value) -> Option<Key> {
    let jwk: Jwk = serde_json::from_value(jwk).ok()?;
    if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
        return None;
    }
    let mut algorithms = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => AlgorithmFamily::Rsa.algorithms().to_vec(),
        AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P256 => vec![Algorithm::ES256],
        AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P384 => vec![Algorithm::ES384],
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => vec![Algorithm::EdDSA],
        _ => return None,
    };
    if let Some(declared) = jwk.common.key_algorithm {
        let declared = Algorithm::try_from(declared).ok()?;
        algorithms.retain(|algorithm| *algorithm == declared);
    }
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    (!algorithms.is_empty()).then_some(Key { id: jwk.common.key_id, algorithms, key })
}
