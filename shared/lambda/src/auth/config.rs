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
    /// The scope of a backend's token, which covers all profiles; if absent, no token does.
    pub service_scope: Option<String>,
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
    /// Reads `JWT_JWKS_URL` or `JWT_SECRET` (exactly one), `JWT_ISSUER`, `JWT_AUDIENCE` and
    /// `SERVICE_SCOPE`. With a JWKS, a `STAGE` other than `dev` must name both the issuer and the
    /// audience: a provider signs tokens for all its customers' applications with the same keys.
    pub fn read(env: &mut Env) -> Option<Self> {
        let url = env.optional::<Url>("JWT_JWKS_URL");
        let secret = env.optional::<Secret>("JWT_SECRET");
        let issuer = env.optional::<String>("JWT_ISSUER");
        let audience = env.optional::<String>("JWT_AUDIENCE");
        let service_scope = env.optional::<String>("SERVICE_SCOPE");
        let stage = env.optional::<String>("STAGE");
        if service_scope.iter().flatten().any(|scope| !is_scope(scope)) {
            env.problem("SERVICE_SCOPE", "must be one scope: printable ASCII without spaces, quotes or backslashes");
        }
        let is_development = stage.is_some_and(|stage| stage.as_deref() == Some("dev"));
        if matches!(url, Some(Some(_))) && !is_development {
            for (variable, value, claim) in [("JWT_ISSUER", &issuer, "iss"), ("JWT_AUDIENCE", &audience, "aud")] {
                if matches!(value, Some(None)) {
                    let fix = format!("is not set: with JWT_JWKS_URL, name the `{claim}` that a token must carry");
                    env.problem(variable, format!("{fix} (only STAGE=dev may accept any)"));
                }
            }
        }
        let keys = match (url?, secret?) {
            (Some(url), None) if is_private(&url) => KeySource::Jwks(url),
            (None, Some(secret)) if secret.expose().len() >= MIN_SECRET_BYTES => KeySource::Secret(secret),
            (Some(_), None) => {
                env.problem(
                    "JWT_JWKS_URL",
                    "must be an https URL without a user name (http only on a loopback address)",
                );
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
        Some(Self { keys, issuer: issuer?, audience: audience?, service_scope: service_scope? })
    }
}

/// Whether this is one scope (`scope-token` of RFC 6749, 3.3).
fn is_scope(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\'))
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

    const DEVELOPMENT: (&str, &str) = ("STAGE", "dev");

    #[test]
    fn exactly_one_trusted_key_source_is_required() {
        let long = "0123456789abcdef0123456789abcdef";
        assert!(matches!(outcome(&[("JWT_SECRET", long)]), Ok(KeySource::Secret(_))));
        for url in ["https://issuer.example/jwks", "http://127.0.0.1:8080/jwks", "http://[::1]/", "http://localhost/"] {
            assert!(matches!(outcome(&[("JWT_JWKS_URL", url), DEVELOPMENT]), Ok(KeySource::Jwks(_))), "{url}");
        }
        for url in [
            "http://issuer.example/jwks",
            "https://user:password@issuer.example/jwks",
            "file:///etc/passwd",
            "http://localhost.example/",
            "jwks",
        ] {
            assert_eq!(outcome(&[("JWT_JWKS_URL", url), DEVELOPMENT]), Err(vec!["JWT_JWKS_URL"]), "{url}");
        }
        assert_eq!(outcome(&[("JWT_SECRET", &long[1..])]), Err(vec!["JWT_SECRET"]));
        let both = [("JWT_SECRET", long), ("JWT_JWKS_URL", "https://a/"), DEVELOPMENT];
        assert_eq!(outcome(&both), Err(vec!["JWT_SECRET"]));
        assert_eq!(outcome(&[]), Err(vec!["JWT_JWKS_URL"]));
    }

    #[test]
    fn jwks_outside_development_needs_issuer_and_audience() {
        let url = ("JWT_JWKS_URL", "https://issuer.example/jwks");
        let (issuer, audience) = (("JWT_ISSUER", "https://issuer.example/"), ("JWT_AUDIENCE", "playhead"));
        for stage in [Some(("STAGE", "prod")), Some(("STAGE", "")), None] {
            let with = |more: &[(&'static str, &'static str)]| [&[url], more, stage.as_slice()].concat();
            assert_eq!(outcome(&with(&[])), Err(vec!["JWT_ISSUER", "JWT_AUDIENCE"]), "{stage:?}");
            assert_eq!(outcome(&with(&[issuer])), Err(vec!["JWT_AUDIENCE"]), "{stage:?}");
            assert_eq!(outcome(&with(&[audience])), Err(vec!["JWT_ISSUER"]), "{stage:?}");
            assert!(outcome(&with(&[issuer, audience])).is_ok(), "{stage:?}");
        }
        assert!(outcome(&[url, DEVELOPMENT]).is_ok());
        let errors = read(Env::from_pairs([url, ("STAGE", "prod")]), AuthConfig::read).unwrap_err().to_string();
        assert!(errors.contains("JWT_AUDIENCE is not set: with JWT_JWKS_URL, name the `aud`"), "{errors}");
    }

    #[test]
    fn service_scope_is_one_word_or_absent() {
        let secret = ("JWT_SECRET", "0123456789abcdef0123456789abcdef");
        let scope = |value: &str| {
            read(Env::from_pairs([secret, ("SERVICE_SCOPE", value)]), AuthConfig::read)
                .map(|config| config.service_scope)
                .map_err(|errors| errors.0[0].variable)
        };
        assert_eq!(scope("").unwrap(), None);
        for word in ["service", "playhead:all", "https://api.example/.default"] {
            assert_eq!(scope(word).unwrap().as_deref(), Some(word));
        }
        for wrong in ["two words", "a\"b", "a\\b", "sérvice"] {
            assert_eq!(scope(wrong), Err("SERVICE_SCOPE"), "{wrong}");
        }
    }
}
