//! `playhead token`: makes a bearer token for a stage with a shared secret. Only development stages
//! have one.

use crate::run::running;
use anyhow::{Context as _, Result};
use jsonwebtoken::{EncodingKey, Header};
use serde::Serialize;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Make a bearer token (JWT, HS256) for a development stage, and print it
///
/// Its bearer may write and read the given profiles, or with --service all profiles. Without
/// --secret it is signed with the secret of the running local cloud. If none is running, it is
/// signed with the environment variable JWT_SECRET.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo playhead token --profile p00000054
  cargo playhead token --profile p00000054 --profile p00000055 --ttl 10m
  curl -H \"Authorization: Bearer $(cargo playhead token --service)\" …")]
#[command(group(clap::ArgGroup::new("who").required(true).args(["profile", "service"])))]
pub struct Args {
    /// A profile that the bearer may write and read (may be repeated)
    #[arg(long, value_name = "PROFILE")]
    pub profile: Vec<String>,
    /// For a backend: all profiles
    #[arg(long)]
    pub service: bool,
    /// How long the token is valid, such as 90s, 10m, 1h or 7d
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = humantime::parse_duration)]
    pub ttl: Duration,
    /// The stage's secret [default: the running local cloud's, else the variable JWT_SECRET]
    #[arg(long, value_name = "SECRET")]
    pub secret: Option<String>,
}

/// The claims of a token.
#[derive(Debug, Serialize)]
struct Claims {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    profiles: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'static str>,
    /// Unix seconds (RFC 7519).
    iat: u64,
    exp: u64,
}

/// Runs `playhead token`.
///
/// # Errors
/// If there is no secret to sign with.
pub fn run(args: Args) -> Result<()> {
    let secret = match args.secret {
        Some(secret) => secret,
        None => default_secret()?,
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    println!("{}", token(&secret, args.profile, args.service, now, args.ttl)?);
    Ok(())
}

fn default_secret() -> Result<String> {
    let absent = match running() {
        Ok(endpoints) => return Ok(endpoints.jwt_secret),
        Err(absent) => absent,
    };
    match std::env::var("JWT_SECRET") {
        Ok(secret) if !secret.is_empty() => Ok(secret),
        _ => Err(absent.context("no secret to sign with: pass --secret, start a local cloud, or set JWT_SECRET")),
    }
}

/// Signs a service token, valid for `ttl`: a backend may write and read every profile.
///
/// # Errors
/// If the clock is before 1970.
pub fn of_service(secret: &str, ttl: Duration) -> Result<String> {
    token(secret, Vec::new(), true, SystemTime::now().duration_since(UNIX_EPOCH)?, ttl)
}

/// Signs a member's token, valid for `ttl`: its bearer may write and read these profiles.
///
/// # Errors
/// If the clock is before 1970.
pub fn of_member(secret: &str, profiles: Vec<String>, ttl: Duration) -> Result<String> {
    token(secret, profiles, false, SystemTime::now().duration_since(UNIX_EPOCH)?, ttl)
}

/// Signs a token. `now` is the time since the Unix epoch.
fn token(secret: &str, profiles: Vec<String>, service: bool, now: Duration, ttl: Duration) -> Result<String> {
    let iat = now.as_secs();
    let claims = Claims { profiles, scope: service.then_some("service"), iat, exp: iat + ttl.as_secs() };
    let key = EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&Header::default(), &claims, &key).context("signing the token")
}

#[cfg(test)]
mod tests {
    use super::*;
    use jsonwebtoken::{DecodingKey, Validation, decode};
    use serde_json::{Value, json};

    const NOW: Duration = Duration::from_secs(1_790_000_000);

    fn check(profiles: &[&str], service: bool, expect: &Value) {
        let profiles = profiles.iter().map(ToString::to_string).collect();
        let token = token("secret", profiles, service, NOW, Duration::from_secs(600)).unwrap();
        let validation = Validation { validate_exp: false, ..Validation::default() }; // HS256
        let decoded = decode::<Value>(&token, &DecodingKey::from_secret(b"secret"), &validation).unwrap();
        assert_eq!(&decoded.claims, expect);
    }

    #[test]
    fn claims_name_profiles_or_the_service() {
        let (iat, exp) = (1_790_000_000, 1_790_000_600);
        check(&["p1", "p2"], false, &json!({"profiles": ["p1", "p2"], "iat": iat, "exp": exp}));
        check(&[], true, &json!({"scope": "service", "iat": iat, "exp": exp}));
    }
}
