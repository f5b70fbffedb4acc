//! Tokens that were verified a moment ago. A device sends the same one for hours, and verifying it
//! costs more than everything else that is done with a small request.
//!
//! A token is known by its SHA-256, so no token is kept. It is forgotten when it expires, and a
//! minute after it was verified at the latest: by then, a key that its issuer has withdrawn is no
//! longer in use either (the keys themselves are refreshed less often than that).

use super::{Identity, Scope};
use lru::LruCache;
use sha2::{Digest, Sha256};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// How long a verified token is believed.
const MAX_AGE: Duration = Duration::from_secs(60);
/// How many tokens are kept, some 200 bytes each. The one that was not used for longest goes first.
const CAPACITY: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();

/// The most profiles of a token that is kept. A member has a few.
const MAX_PROFILES: usize = 50;

/// The hash of a token.
pub(super) type TokenHash = [u8; 32];

/// The hash of this token.
pub(super) fn hash(token: &str) -> TokenHash {
    Sha256::digest(token).into()
}

/// Identities by the hash of their token.
pub(super) struct Verified(Mutex<LruCache<TokenHash, Entry>>);

struct Entry {
    identity: Arc<Identity>,
    until: Instant,
    /// By the clock on the wall, too: the other one may stand still in a frozen environment.
    expires_at: SystemTime,
}

impl Verified {
    /// Nobody is known yet.
    pub(super) fn new() -> Self {
        Self(Mutex::new(LruCache::new(CAPACITY)))
    }

    /// Who this token is of, if it was verified and is still believed.
    pub(super) fn get(&self, hash: &TokenHash, now: Instant) -> Option<Arc<Identity>> {
        let mut known = self.lock();
        let entry = known.get(hash)?;
        if now < entry.until && SystemTime::now() < entry.expires_at {
            return Some(Arc::clone(&entry.identity));
        }
        known.pop(hash);
        None
    }

    /// Believes this token, which expires in `expires_in`.
    pub(super) fn put(&self, hash: TokenHash, identity: Arc<Identity>, now: Instant, expires_in: Duration) {
        if matches!(&identity.scope, Scope::Profiles(profiles) if profiles.len() > MAX_PROFILES) {
            return;
        }
        let expires_in = expires_in.min(MAX_AGE);
        let (until, expires_at) = (now + expires_in, SystemTime::now() + expires_in);
        self.lock().put(hash, Entry { identity, until, expires_at });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, LruCache<TokenHash, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn of(subject: &str) -> Arc<Identity> {
        Arc::new(Identity { scope: Scope::Service, subject: Some(subject.to_owned()) })
    }

    #[test]
    fn token_is_believed_until_it_expires_and_a_minute_at_most() {
        let (verified, now) = (Verified::new(), Instant::now());
        for (expires_in, believed) in [(0, 0), (5, 5), (60, 60), (3_600, 60)] {
            let hash = hash(&format!("token of {expires_in} s"));
            verified.put(hash, of("m"), now, SECOND * expires_in);
            if believed > 0 {
                assert!(verified.get(&hash, now + SECOND * believed - Duration::from_millis(1)).is_some());
            }
            assert_eq!(verified.get(&hash, now + SECOND * believed), None, "{expires_in}");
        }
    }

    #[test]
    fn another_token_is_never_taken_for_a_known_one() {
        let (verified, now) = (Verified::new(), Instant::now());
        verified.put(hash("a.b.c"), of("m"), now, SECOND);
        for other in ["a.b.d", "a.b.", "a.b.c ", ""] {
            assert_eq!(verified.get(&hash(other), now), None, "{other:?}");
        }
        assert_eq!(verified.get(&hash("a.b.c"), now), Some(of("m")));
    }

    #[test]
    fn made_up_traffic_cannot_fill_the_memory() {
        let (verified, now) = (Verified::new(), Instant::now());
        for n in 0..CAPACITY.get() + 5 {
            verified.put(hash(&n.to_string()), of("m"), now, SECOND);
        }
        assert_eq!(verified.lock().len(), CAPACITY.get());
        assert_eq!(verified.get(&hash("0"), now), None);
        assert!(verified.get(&hash("7"), now).is_some());
    }
}
