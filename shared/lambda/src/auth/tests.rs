//! Tokens with real signatures, and the key cache with a real HTTP server on loopback.

mod attacks;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair};
use axum::http::StatusCode;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{AlgorithmFamily, EncodingKey, Header, get_current_timestamp};
use serde_json::{Value, json};

use super::jwks::{FETCH_TIME_OUT, MAX_AGE, MAX_BYTES, MAX_CANDIDATES, PAUSE, PAUSE_WITHOUT_KEYS};
use super::*;

/// A fetch takes some time, after which a pause begins.
const AFTER_PAUSE: Duration = PAUSE.saturating_add(Duration::from_secs(1));

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn config(keys: KeySource) -> AuthConfig {
    AuthConfig { keys, issuer: None, audience: None, service_scope: Some("service".into()) }
}

fn secret() -> KeySource {
    KeySource::Secret(SECRET.parse().unwrap())
}

fn by_secret() -> Authenticator {
    Authenticator::new(&config(secret())).unwrap()
}

fn in_an_hour() -> u64 {
    get_current_timestamp() + 3600
}

fn member() -> Value {
    json!({"sub": "m1", "exp": in_an_hour(), "profiles": ["p1", "p2"]})
}

fn signed(algorithm: Algorithm, kid: Option<&str>, claims: &Value, key: &EncodingKey) -> String {
    let header = Header { kid: kid.map(str::to_owned), ..Header::new(algorithm) };
    format!("Bearer {}", jsonwebtoken::encode(&header, claims, key).unwrap())
}

fn hs256(claims: &Value) -> String {
    signed(Algorithm::HS256, None, claims, &EncodingKey::from_secret(SECRET.as_bytes()))
}

fn profiles(ids: &[&str]) -> Scope {
    Scope::Profiles(ids.iter().map(|&id| id.to_owned()).collect())
}

#[tokio::test]
async fn member_token_is_limited_to_its_profiles() {
    let identity = by_secret().verify(Some(&hs256(&member()))).await.unwrap();
    assert_eq!(*identity, Identity { scope: profiles(&["p1", "p2"]), subject: Some("m1".into()) });
    assert!(identity.may("p1") && !identity.may("p3") && !identity.may(""));
}

#[tokio::test]
async fn service_token_covers_all_and_scheme_ignores_case() {
    let claims = json!({"exp": in_an_hour(), "scope": "openid service", "profiles": []});
    let header = hs256(&claims).replacen("Bearer", "bEaReR", 1);
    let identity = by_secret().verify(Some(&header)).await.unwrap();
    assert_eq!(*identity, Identity { scope: Scope::Service, subject: None });
    assert!(identity.may("anyone"));
}

const MALFORMED: &str = "the token's claims have the wrong form; `profiles` must be a list of strings";

/// Providers differ: a string of words, a list of strings, `scp` instead of `scope`.
#[tokio::test]
async fn scope_is_read_in_every_form_that_providers_send() {
    let scope_of = async |claim: &str, value: Value| {
        let mut claims = json!({"exp": in_an_hour(), "profiles": ["p1"]});
        claims[claim] = value;
        by_secret().verify(Some(&hs256(&claims))).await.unwrap().scope.clone()
    };
    for claim in ["scope", "scp"] {
        for value in [json!("service"), json!("openid service"), json!(["openid", "service"]), json!([1, "service"])] {
            assert_eq!(scope_of(claim, value.clone()).await, Scope::Service, "{claim} {value}");
        }
        let others = [
            json!("openid"),
            json!(["openid"]),
            json!("services"),
            json!(["a service"]),
            json!([]),
            json!(7),
            json!({"service": true}),
            json!(true),
            Value::Null,
        ];
        for value in others {
            assert_eq!(scope_of(claim, value.clone()).await, profiles(&["p1"]), "{claim} {value}");
        }
    }
}

#[tokio::test]
async fn service_scope_is_the_configured_one_or_none() {
    let scope_of = async |service_scope: Option<&str>, scope: &str| {
        let config = AuthConfig { service_scope: service_scope.map(str::to_owned), ..config(secret()) };
        let claims = json!({"exp": in_an_hour(), "profiles": ["p1"], "scope": scope});
        Authenticator::new(&config).unwrap().verify(Some(&hs256(&claims))).await.unwrap().scope.clone()
    };
    assert_eq!(scope_of(Some("playhead:all"), "openid playhead:all").await, Scope::Service);
    assert_eq!(scope_of(Some("playhead:all"), "service").await, profiles(&["p1"]));
    assert_eq!(scope_of(None, "service").await, profiles(&["p1"]));
    assert_eq!(scope_of(None, "").await, profiles(&["p1"]));
}

#[tokio::test]
async fn refusal_names_the_algorithm_but_no_text_of_the_token() {
    let named = async |header: Value| {
        let token = format!("Bearer {}.{}.c2ln", URL_SAFE_NO_PAD.encode(header.to_string()), "e30");
        by_secret().verify(Some(&token)).await.unwrap_err()
    };
    for name in ["none", "HS512", "RS256", "ES512", "ES256K", "Ed25519"] {
        let refused = named(json!({"alg": name})).await;
        assert_eq!(refused, AuthError::Algorithm { named: name, allowed: "HS256" });
        let detail = Problem::from(refused).detail;
        assert_eq!(detail, format!("the token's algorithm is {name}, but only HS256 may sign a token here"));
    }
    assert_eq!(named(json!({"alg": "NoNe"})).await, AuthError::Algorithm { named: "none", allowed: "HS256" });
    for made_up in ["<script>", "HS256 ", "", "HS256\r\nx: y"] {
        let refused = named(json!({"alg": made_up})).await;
        assert_eq!(refused, AuthError::Algorithm { named: "unknown", allowed: "HS256" }, "{made_up:?}");
    }
    for header in [json!({}), json!({"alg": 1}), json!([]), json!({"alg": "HS256", "x5c": 1})] {
        assert_eq!(named(header).await, AuthError::Invalid("the token is not a JWT"));
    }
}

#[tokio::test]
async fn insufficient_claims_are_refused() {
    let exp = in_an_hour();
    let now = get_current_timestamp();
    let cases = [
        (json!({"exp": now - 61, "profiles": ["p1"]}), "the token has expired"),
        (json!({"exp": exp, "nbf": now + 120, "profiles": ["p1"]}), "the token is not valid yet"),
        (json!({"profiles": ["p1"]}), "the token lacks one of the claims exp, iss, aud"),
        (json!({"exp": exp}), "the token has neither profiles nor the scope of a service"),
        (json!({"exp": exp, "scope": "services"}), "the token has neither profiles nor the scope of a service"),
        (json!({"exp": exp, "profiles": "p1"}), MALFORMED),
        (json!({"exp": exp, "profiles": [1]}), MALFORMED),
    ];
    for (claims, reason) in cases {
        let refused = by_secret().verify(Some(&hs256(&claims))).await;
        assert_eq!(refused, Err(AuthError::Invalid(reason)), "{claims}");
    }
}

#[tokio::test]
async fn clocks_may_differ_by_the_leeway() {
    let now = get_current_timestamp();
    let claims = json!({"exp": now - 30, "nbf": now + 30, "profiles": ["p1"]});
    by_secret().verify(Some(&hs256(&claims))).await.unwrap();
}

#[tokio::test]
async fn issuer_and_audience_are_required_when_configured() {
    let (issuer, audience) = (Some("https://issuer".into()), Some("playhead".into()));
    let config = AuthConfig { issuer, audience, ..config(secret()) };
    let strict = Authenticator::new(&config).unwrap();
    let with = |iss: Value, aud: Value| {
        let mut claims = member();
        claims["iss"] = iss;
        claims["aud"] = aud;
        hs256(&claims)
    };
    strict.verify(Some(&with(json!("https://issuer"), json!(["other", "playhead"])))).await.unwrap();
    let refused = [
        with(json!("https://other"), json!("playhead")),
        with(json!("https://issuer"), json!("other")),
        with(Value::Null, json!("playhead")),
        with(json!("https://issuer"), Value::Null),
    ];
    for header in refused {
        assert!(matches!(strict.verify(Some(&header)).await, Err(AuthError::Invalid(_))));
    }
    by_secret().verify(Some(&with(json!("https://any"), json!("any")))).await.unwrap();
}

#[tokio::test]
async fn forged_tokens_are_refused() {
    let encode = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let unsigned = format!("Bearer {}.{}.", encode(json!({"alg": "none"})), encode(member()));
    let other_secret = EncodingKey::from_secret(b"fedcba9876543210fedcba9876543210");
    let mut critical = Header::new(Algorithm::HS256);
    critical.crit = Some(vec!["b64".into()]);
    let right_secret = EncodingKey::from_secret(SECRET.as_bytes());
    let forged = [
        unsigned,
        signed(Algorithm::HS256, None, &member(), &other_secret),
        signed(Algorithm::HS512, None, &member(), &right_secret),
        format!("Bearer {}", jsonwebtoken::encode(&critical, &member(), &right_secret).unwrap()),
        format!("{}x", hs256(&member())),
        "Bearer a.b.c".into(),
        "Bearer ".into(),
        format!("Bearer {}", "a".repeat(20_000)),
    ];
    for header in forged {
        let problem = Problem::from(by_secret().verify(Some(&header)).await.unwrap_err());
        assert_eq!((problem.status.as_u16(), problem.code), (401, "invalid_token"), "{header}");
    }
    for header in [None, Some(""), Some("Bearer"), Some("Basic dTpw")] {
        assert_eq!(by_secret().verify(header).await, Err(AuthError::Missing));
    }
}

#[test]
fn auth_errors_become_problems() {
    let problem = Problem::from(AuthError::Missing);
    assert_eq!((problem.status.as_u16(), problem.challenge), (401, Some(r#"Bearer realm="playhead""#)));
    let problem = Problem::from(AuthError::Invalid("the token has expired"));
    let challenge = r#"Bearer realm="playhead", error="invalid_token""#;
    assert_eq!((problem.status.as_u16(), problem.challenge), (401, Some(challenge)));
    let problem = Problem::from(AuthError::Unavailable);
    assert_eq!((problem.status.as_u16(), problem.retry_after_s, problem.challenge), (503, Some(5), None));
}

#[test]
fn secrets_are_never_printed() {
    assert_eq!(format!("{:?}", by_secret()), "Authenticator { .. }");
    assert!(!format!("{:?}", config(secret())).contains(SECRET));
}

/// A signer and the public half of its key.
struct Issuer {
    algorithm: Algorithm,
    kid: &'static str,
    private: EncodingKey,
    public: Value,
}

impl Issuer {
    fn new(algorithm: Algorithm, kid: &'static str) -> Self {
        let random = SystemRandom::new();
        let private = match algorithm.family() {
            AlgorithmFamily::Ec => {
                let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
                EncodingKey::from_ec_der(key.as_ref())
            }
            AlgorithmFamily::Ed => {
                EncodingKey::from_ed_der(Ed25519KeyPair::generate_pkcs8v1(&random).unwrap().as_ref())
            }
            AlgorithmFamily::Rsa => {
                let key: Pkcs8V1Der<'_> = KeyPair::generate(KeySize::Rsa2048).unwrap().as_der().unwrap();
                // At this size, PKCS #8 wraps the PKCS #1 key that is needed in 26 bytes of header.
                EncodingKey::from_rsa_der(&key.as_ref()[26..])
            }
            AlgorithmFamily::Hmac => panic!("HMAC has no public key"),
        };
        let mut jwk = Jwk::from_encoding_key(&private, algorithm).unwrap();
        jwk.common.key_id = Some(kid.into());
        Self { algorithm, kid, private, public: serde_json::to_value(jwk).unwrap() }
    }

    fn token(&self) -> String {
        signed(self.algorithm, Some(self.kid), &member(), &self.private)
    }
}

/// A JWKS server on loopback. The test sets its answer; it counts its requests.
#[derive(Clone, Default)]
struct Server {
    answer: Arc<Mutex<Option<String>>>,
    requests: Arc<AtomicUsize>,
}

impl Server {
    async fn start(keys: &[&Issuer]) -> (Self, Authenticator) {
        let (server, url) = Self::listen(keys).await;
        (server, Authenticator::new(&config(KeySource::Jwks(url))).unwrap())
    }

    async fn listen(keys: &[&Issuer]) -> (Self, url::Url) {
        let server = Self::default();
        server.publish(keys);
        let state = server.clone();
        let serve = move || {
            let state = state.clone();
            async move {
                state.requests.fetch_add(1, Ordering::SeqCst);
                let answer = state.answer.lock().unwrap().clone();
                answer.ok_or(StatusCode::INTERNAL_SERVER_ERROR)
            }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/jwks", listener.local_addr().unwrap()).parse().unwrap();
        let router = axum::Router::new().route("/jwks", axum::routing::get(serve));
        tokio::spawn(async move { axum::serve(listener, router).await });
        (server, url)
    }

    fn publish(&self, keys: &[&Issuer]) {
        let keys: Vec<&Value> = keys.iter().map(|issuer| &issuer.public).collect();
        self.answer(Some(json!({"keys": keys}).to_string()));
    }

    fn answer(&self, answer: Option<String>) {
        *self.answer.lock().unwrap() = answer;
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

#[tokio::test]
async fn every_public_key_family_verifies() {
    let issuers = [
        Issuer::new(Algorithm::RS256, "rsa"),
        Issuer::new(Algorithm::ES256, "ec"),
        Issuer::new(Algorithm::EdDSA, "ed"),
    ];
    let (server, authenticator) = Server::start(&issuers.each_ref()).await;
    authenticator.warm_up().await.unwrap();
    for issuer in &issuers {
        assert!(authenticator.verify(Some(&issuer.token())).await.unwrap().may("p1"), "{}", issuer.kid);
    }
    assert_eq!(server.requests(), 1, "the keys are cached");
}

#[tokio::test]
async fn public_key_is_never_used_as_a_secret() {
    let issuer = Issuer::new(Algorithm::RS256, "rsa");
    let (server, authenticator) = Server::start(&[&issuer]).await;
    let modulus = issuer.public["n"].as_str().unwrap();
    for secret in [modulus.as_bytes().to_vec(), URL_SAFE_NO_PAD.decode(modulus).unwrap()] {
        let forged = signed(Algorithm::HS256, Some("rsa"), &member(), &EncodingKey::from_secret(&secret));
        let refused = authenticator.verify(Some(&forged)).await;
        let allowed = "RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA";
        assert_eq!(refused, Err(AuthError::Algorithm { named: "HS256", allowed }));
    }
    let shared = json!({"kty": "oct", "kid": "shared", "k": URL_SAFE_NO_PAD.encode(SECRET)});
    server.answer(Some(json!({"keys": [shared, issuer.public]}).to_string()));
    authenticator.warm_up().await.unwrap();
    let forged = signed(Algorithm::HS256, Some("shared"), &member(), &EncodingKey::from_secret(SECRET.as_bytes()));
    assert!(matches!(authenticator.verify(Some(&forged)).await, Err(AuthError::Algorithm { .. })));
}

#[tokio::test]
async fn token_without_key_id_is_tried_against_every_key() {
    let issuers = [
        Issuer::new(Algorithm::ES256, "a"),
        Issuer::new(Algorithm::RS256, "b"),
        Issuer::new(Algorithm::ES256, "c"),
        Issuer::new(Algorithm::ES256, "d"),
    ];
    let (server, authenticator) = Server::start(&issuers.each_ref()).await;
    let start = Instant::now();
    let without_id = |issuer: &Issuer, claims: &Value| signed(issuer.algorithm, None, claims, &issuer.private);
    for issuer in &issuers {
        let token = without_id(issuer, &member());
        assert!(authenticator.verify_at(Some(&token), start).await.unwrap().may("p1"), "{}", issuer.kid);
    }
    let expired = without_id(&issuers[3], &json!({"exp": get_current_timestamp() - 120, "profiles": ["p1"]}));
    let refused = authenticator.verify_at(Some(&expired), start).await;
    assert_eq!(refused, Err(AuthError::Invalid("the token has expired")), "the right key, not the last one, answers");

    let stranger = Issuer::new(Algorithm::ES256, "e");
    let unknown = Err(AuthError::Invalid("the token is signed with an unknown key"));
    let token = without_id(&stranger, &member());
    for _ in 0..5 {
        assert_eq!(authenticator.verify_at(Some(&token), start).await, unknown);
    }
    assert_eq!(server.requests(), 1, "within the pause nothing is fetched");
    server.publish(&[&stranger]);
    authenticator.verify_at(Some(&token), start + AFTER_PAUSE).await.unwrap();
    assert_eq!(server.requests(), 2, "the issuer has rotated its keys");
}

#[tokio::test]
async fn few_keys_are_tried_for_a_token_without_key_id() {
    let issuers: Vec<Issuer> = (0..=MAX_CANDIDATES).map(|_| Issuer::new(Algorithm::EdDSA, "k")).collect();
    let (_server, authenticator) = Server::start(&issuers.iter().collect::<Vec<_>>()).await;
    let verified = async |n: usize| {
        let token = signed(Algorithm::EdDSA, None, &member(), &issuers[n].private);
        authenticator.verify(Some(&token)).await.is_ok()
    };
    assert!(verified(MAX_CANDIDATES - 1).await);
    assert!(!verified(MAX_CANDIDATES).await);
}

#[tokio::test]
async fn wrong_signature_under_a_known_key_id_is_final() {
    let issuer = Issuer::new(Algorithm::ES256, "known");
    let (server, authenticator) = Server::start(&[&issuer]).await;
    let other = Issuer::new(Algorithm::ES256, "other");
    let start = Instant::now();
    for age in [Duration::ZERO, AFTER_PAUSE] {
        let token = signed(Algorithm::ES256, Some("known"), &member(), &other.private);
        let refused = authenticator.verify_at(Some(&token), start + age).await;
        assert_eq!(refused, Err(AuthError::Invalid("the token's signature is wrong")));
    }
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn key_verifies_only_its_own_algorithm_and_tokens() {
    let (rsa, ec) = (Issuer::new(Algorithm::RS256, "rsa"), Issuer::new(Algorithm::ES256, "ec"));
    let (_server, authenticator) = Server::start(&[&rsa, &ec]).await;
    let crossed = [
        signed(Algorithm::RS384, Some("rsa"), &member(), &rsa.private),
        signed(Algorithm::ES256, Some("rsa"), &member(), &ec.private),
        signed(Algorithm::ES256, Some("ec"), &member(), &Issuer::new(Algorithm::ES256, "ec").private),
    ];
    for header in crossed {
        assert!(matches!(authenticator.verify(Some(&header)).await, Err(AuthError::Invalid(_))));
    }
    let without_id = signed(Algorithm::ES256, None, &member(), &ec.private);
    authenticator.verify(Some(&without_id)).await.unwrap();
}

#[tokio::test]
async fn rotated_keys_are_found_but_made_up_ids_are_not_fetched() {
    let (old, new) = (Issuer::new(Algorithm::ES256, "old"), Issuer::new(Algorithm::ES256, "new"));
    let (server, authenticator) = Server::start(&[&old]).await;
    let start = Instant::now();
    authenticator.verify_at(Some(&old.token()), start).await.unwrap();
    server.publish(&[&old, &new]);
    let unknown = Err(AuthError::Invalid("the token is signed with an unknown key"));
    for _ in 0..5 {
        assert_eq!(authenticator.verify_at(Some(&new.token()), start).await, unknown);
    }
    assert_eq!(server.requests(), 1, "within the pause nothing is fetched");
    authenticator.verify_at(Some(&new.token()), start + AFTER_PAUSE).await.unwrap();
    assert_eq!(server.requests(), 2);
    server.publish(&[&new]);
    let withdrawn = authenticator.verify_at(Some(&old.token()), start + AFTER_PAUSE + MAX_AGE).await;
    assert_eq!((withdrawn, server.requests()), (unknown, 3));
}

#[tokio::test]
async fn last_good_keys_hold_while_the_issuer_is_down() {
    let (known, other) = (Issuer::new(Algorithm::ES256, "known"), Issuer::new(Algorithm::ES256, "other"));
    let (server, authenticator) = Server::start(&[&known]).await;
    let start = Instant::now();
    authenticator.verify_at(Some(&known.token()), start).await.unwrap();
    let too_large = json!({"keys": [other.public]}).to_string() + &" ".repeat(MAX_BYTES);
    let broken = [None, Some("not JSON".into()), Some(r#"{"keys":[]}"#.into()), Some(too_large)];
    for (answer, n) in broken.into_iter().zip(1..) {
        server.answer(answer);
        let now = start + MAX_AGE * n;
        authenticator.verify_at(Some(&known.token()), now).await.unwrap();
        let unknown = authenticator.verify_at(Some(&other.token()), now).await;
        assert_eq!((unknown, server.requests()), (Err(AuthError::Unavailable), 1 + n as usize));
    }
}

#[tokio::test]
async fn keys_never_fetched_are_unavailable_and_soon_retried() {
    let issuer = Issuer::new(Algorithm::ES256, "only");
    let (server, authenticator) = Server::start(&[&issuer]).await;
    server.answer(None);
    assert_eq!(authenticator.warm_up().await, Err(AuthError::Unavailable));
    let start = Instant::now() + PAUSE_WITHOUT_KEYS;
    assert_eq!(authenticator.verify_at(Some(&issuer.token()), start).await, Err(AuthError::Unavailable));
    server.publish(&[&issuer]);
    assert_eq!(authenticator.verify_at(Some(&issuer.token()), start).await, Err(AuthError::Unavailable));
    authenticator.verify_at(Some(&issuer.token()), start + PAUSE_WITHOUT_KEYS * 2).await.unwrap();
    assert_eq!(server.requests(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_requests_fetch_once() {
    let issuer = Issuer::new(Algorithm::ES256, "only");
    let (server, authenticator) = Server::start(&[&issuer]).await;
    let (authenticator, token) = (Arc::new(authenticator), issuer.token());
    let requests: Vec<_> = (0..32)
        .map(|_| {
            let (authenticator, token) = (Arc::clone(&authenticator), token.clone());
            tokio::spawn(async move { authenticator.verify(Some(&token)).await })
        })
        .collect();
    for request in requests {
        request.await.unwrap().unwrap();
    }
    assert_eq!(server.requests(), 1);
}

/// Requests that come one after another while the issuer hangs, and one soon after it has failed.
#[tokio::test]
async fn hanging_issuer_is_asked_once_for_all_waiters() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/jwks", listener.local_addr().unwrap()).parse().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            held.push(connection);
        }
    });
    let authenticator = Authenticator::new(&config(KeySource::Jwks(url))).unwrap();
    let token = Issuer::new(Algorithm::ES256, "only").token();
    let (began, now) = (Instant::now(), Instant::now());
    let request = |after| authenticator.verify_at(Some(&token), now + after);
    let waiters = (0..20).map(|nth| request(FETCH_TIME_OUT * nth / 20));
    for refused in futures::future::join_all(waiters).await {
        assert_eq!(refused, Err(AuthError::Unavailable));
    }
    assert!(began.elapsed() < FETCH_TIME_OUT * 3 / 2, "{:?}", began.elapsed());
    assert_eq!(request(FETCH_TIME_OUT + PAUSE_WITHOUT_KEYS / 2).await, Err(AuthError::Unavailable));
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

/// A token that was verified is believed for a minute, whatever happens to the keys meanwhile, and no
/// longer.
#[tokio::test]
async fn withdrawn_key_stops_working_within_its_time() {
    let (issuer, next) = (Issuer::new(Algorithm::ES256, "old"), Issuer::new(Algorithm::ES256, "new"));
    let (server, authenticator) = Server::start(&[&issuer]).await;
    let (start, token) = (Instant::now(), issuer.token());
    authenticator.verify_at(Some(&token), start).await.unwrap();
    server.answer(None);
    let a_moment_later = authenticator.verify_at(Some(&token), start + Duration::from_secs(59)).await;
    assert!(a_moment_later.unwrap().may("p1"));
    server.publish(&[&next]);
    // Another token makes it fetch the keys.
    authenticator.verify_at(Some(&next.token()), start + AFTER_PAUSE * 2).await.unwrap();
    let refused = authenticator.verify_at(Some(&token), start + AFTER_PAUSE * 2).await;
    assert_eq!(refused, Err(AuthError::Invalid("the token is signed with an unknown key")));
}

/// Only what was verified is remembered: a token that fails today may be valid tomorrow, and the
/// other way round.
#[tokio::test]
async fn refusal_is_not_remembered_and_expiry_is_not_forgotten() {
    let authenticator = by_secret();
    let expires = get_current_timestamp() - LEEWAY_S + 1;
    let token = hs256(&json!({"exp": expires, "profiles": ["p1"]}));
    assert!(authenticator.verify(Some(&token)).await.is_ok(), "within the leeway");
    let later = Instant::now() + Duration::from_secs(2);
    tokio::time::sleep(Duration::from_millis(2_100)).await;
    let refused = authenticator.verify_at(Some(&token), later).await;
    assert_eq!(refused, Err(AuthError::Invalid("the token has expired")));
}
