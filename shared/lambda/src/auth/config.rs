//! Which tokens are accepted, as the template configures it.

use url::Url;

use crate::config::{Env, Secret};
use crate::http_client::is_private;

/// The shortest shared secret, in bytes: HS256 needs a key as long as its hash (RFC 7518, 3.2).
pub const MIN_SECRET_BYTES: usize = 32;

/// Which tokens are accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthConfig {
    /// Where the keys come from.
    pub keys: KeySource,
    /// The `iss` that tokens must have; any if absent.
    pub issuer: Option<String>,
    /// The `aud` that tokens must have; any if absent.
    pub audience: Option<String>,
}

/// Where the keys come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// The issuer's JSON Web Key Set, over https (or http on loopback).
    Jwks(Url),
    /// A shared secret, for development.
    Secret(Secret),
}

impl AuthConfig {
    /// Reads `JWT_JWKS_URL` or `JWT_SECRET` (exactly one), `JWT_ISSUER` and `JWT_AUDIENCE`.
    pub fn read(env: &mut Env) -> Option<Self> {
        let url = env.optional::<Url>("JWT_JWKS_URL");
        let secret = env.optional::<Secret>("JWT_SECRET");
        let issuer = env.optional("JWT_ISSUER");
        let audience = env.optional("JWT_AUDIENCE");
        let keys = match (url?, secret?) {
            (Some(url), None) if is_private(&url) => KeySource::Jwks(url),
            (None, Some(secret)) if secret.expose().len() >= MIN_SECRET_BYTES => KeySource::Secret(secret),
            (Some(_), None) => {
                env.problem("JWT_JWKS_URL", "must be an https URL (http only on a loopback address)");
                return None;
            }
            (None, Some(_)) => {
                env.problem("JWT_SECRET", format!("is too short: it needs at least {MIN_SECRET_BYTES} bytes"));
                return None;
            }
            (Some(_), Some(_)) => {
                env.problem("JWT_SECRET", "excludes JWT_JWKS_URL: set only one of them; the secret is for development");
                return None;
            }
            (None, None) => {
                env.problem("JWT_JWKS_URL", "is not set: set it, or JWT_SECRET for development");
                return None;
            }
        };
        Some(Self { keys, issuer: issuer?, audience: audience? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::read;

    fn outcome(pairs: &[(&str, &str)]) -> Result<KeySource, Vec<&'static str>> {
        read(Env::from_pairs(pairs.iter().copied()), AuthConfig::read)
            .map(|config| config.keys)
            .map_err(|errors| errors.0.iter().map(|problem| problem.variable).collect())
    }

    #[test]
    fn exactly_one_trusted_key_source_is_required() {
        let long = "0123456789abcdef0123456789abcdef";
        assert!(matches!(outcome(&[("JWT_SECRET", long)]), Ok(KeySource::Secret(_))));
        for url in ["https://issuer.example/jwks", "http://127.0.0.1:8080/jwks", "http://[::1]/", "http://localhost/"] {
            assert!(matches!(outcome(&[("JWT_JWKS_URL", url)]), Ok(KeySource::Jwks(_))), "{url}");
        }
        for url in ["http://issuer.example/jwks", "file:///etc/passwd", "http://localhost.example/", "jwks"] {
            assert_eq!(outcome(&[("JWT_JWKS_URL", url)]), Err(vec!["JWT_JWKS_URL"]), "{url}");
        }
        assert_eq!(outcome(&[("JWT_SECRET", &long[1..])]), Err(vec!["JWT_SECRET"]));
        assert_eq!(outcome(&[("JWT_SECRET", long), ("JWT_JWKS_URL", "https://a/")]), Err(vec!["JWT_SECRET"]));
        assert_eq!(outcome(&[]), Err(vec!["JWT_JWKS_URL"]));
    }
}
