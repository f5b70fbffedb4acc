//! Known attacks on JWTs, each with its answer. `SECURITY.md` has the same table.

use super::*;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};

const ISSUER: &str = "https://issuer.example/";
const AUDIENCE: &str = "playhead";
const SIGNATURE: AuthError = AuthError::Invalid("the token's signature is wrong");
const UNKNOWN_KEY: AuthError = AuthError::Invalid("the token is signed with an unknown key");
const NO_JWT: AuthError = AuthError::Invalid("the token is not a JWT");
const LACKING: AuthError = AuthError::Invalid("the token lacks one of the claims exp, iss, aud");
const WRONG_FORM: AuthError = AuthError::Invalid(MALFORMED);

/// A row of the table: what is tried, in one or more ways, and the answer.
type Attack = (&'static str, Vec<String>, AuthError);

/// Of a member, as the stage wants them.
fn claims() -> Value {
    json!({"sub": "m1", "iss": ISSUER, "aud": AUDIENCE, "exp": in_an_hour(), "profiles": ["p1"]})
}

/// The same with other claims.
fn with(changes: Value) -> Value {
    let mut claims = claims();
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

fn part(text: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

/// A token of this header and these claims, both as text, signed by the issuer.
fn signed_as_written(issuer: &Issuer, header: &str, claims: &str) -> String {
    let message = format!("{}.{}", part(header), part(claims));
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &issuer.private, issuer.algorithm).unwrap();
    format!("Bearer {message}.{signature}")
}

/// Claims as text, with more of them at the end.
fn and(more: &str) -> String {
    claims().to_string().trim_end_matches('}').to_owned() + more + "}"
}

/// So many lists, one in the other.
fn nested(levels: usize) -> String {
    "[".repeat(levels) + &"]".repeat(levels)
}

/// A stage that trusts an RSA and an EC key, and whoever attacks it.
struct Scene {
    rsa: Issuer,
    ec: Issuer,
    stranger: Issuer,
    attackers_server: url::Url,
}

impl Scene {
    fn of_stranger(&self, header: Header) -> String {
        format!("Bearer {}", jsonwebtoken::encode(&header, &claims(), &self.stranger.private).unwrap())
    }

    /// Signed by the stage's own issuer.
    fn of_issuer(&self, claims: &Value) -> String {
        signed(Algorithm::ES256, Some("ec"), claims, &self.ec.private)
    }

    fn attacks(&self) -> Vec<Attack> {
        let named = |named| AuthError::Algorithm { named, allowed: algorithm::OF_JWKS };
        let invalid = AuthError::Invalid;
        let unsigned = |alg: &str| {
            format!("Bearer {}.{}.", part(json!({"alg": alg, "kid": "ec"}).to_string()), part(claims().to_string()))
        };
        let known = |kid: &str| Header { kid: Some(kid.into()), ..Header::new(Algorithm::ES256) };
        let by_public_key =
            |secret: &[u8]| signed(Algorithm::HS256, Some("rsa"), &claims(), &EncodingKey::from_secret(secret));
        let modulus = self.rsa.public["n"].as_str().unwrap();
        let valid = self.of_issuer(&claims());
        let (message, signature) = valid.rsplit_once('.').unwrap();
        let (header, _) = message.rsplit_once('.').unwrap();
        let raised = part(with(json!({"scope": "service"})).to_string());
        let header_of = |text: &str| signed_as_written(&self.ec, text, &claims().to_string());
        let claims_of = |text: &str| signed_as_written(&self.ec, r#"{"alg":"ES256","kid":"ec"}"#, text);
        let now = get_current_timestamp();
        vec![
            ("no signature: `alg` is `none`", vec![unsigned("none"), unsigned("NoNe")], named("none")),
            ("no signature: `alg` is one that is allowed", vec![unsigned("ES256")], SIGNATURE),
            (
                "key confusion: HS256 with a public key as the secret",
                vec![
                    by_public_key(modulus.as_bytes()),
                    by_public_key(&URL_SAFE_NO_PAD.decode(modulus).unwrap()),
                    by_public_key(self.rsa.public.to_string().as_bytes()),
                ],
                named("HS256"),
            ),
            ("another key under a known `kid`", vec![self.of_stranger(known("ec"))], SIGNATURE),
            (
                "an EC key under the `kid` of the RSA key, or the other way round",
                vec![
                    self.of_stranger(known("rsa")),
                    signed(Algorithm::RS256, Some("ec"), &claims(), &self.rsa.private),
                ],
                UNKNOWN_KEY,
            ),
            (
                "the attacker's key in the header, or a link to it (`jwk`, `jku`, `x5u`)",
                vec![self.of_stranger(Header {
                    jwk: serde_json::from_value(self.stranger.public.clone()).unwrap(),
                    jku: Some(self.attackers_server.to_string()),
                    x5u: Some(self.attackers_server.to_string()),
                    ..known("ec")
                })],
                SIGNATURE,
            ),
            (
                "an unknown `kid`: made up, a path, SQL, very long",
                ["other", "../../../dev/null", "' OR 1=1 --", &"k".repeat(5_000), ""]
                    .map(|kid| self.of_stranger(known(kid)))
                    .to_vec(),
                UNKNOWN_KEY,
            ),
            ("no `kid`, and another key", vec![self.of_stranger(Header::new(Algorithm::ES256))], UNKNOWN_KEY),
            ("other claims under a valid signature", vec![format!("{header}.{raised}.{signature}")], SIGNATURE),
            (
                "a signature that is empty, cut off, all zeros, or longer",
                vec![
                    format!("{message}."),
                    format!("{message}.{}", &signature[..40]),
                    format!("{message}.{}", part([0; 64])),
                    format!("{message}.{signature}AAAA"),
                ],
                SIGNATURE,
            ),
            ("expired", vec![self.of_issuer(&with(json!({"exp": now - 61})))], invalid("the token has expired")),
            (
                "not valid yet",
                vec![self.of_issuer(&with(json!({"nbf": now + 120})))],
                invalid("the token is not valid yet"),
            ),
            (
                "no expiry, or one that is no number",
                [json!(null), json!("4102444800"), json!(-1), json!(1e300), json!([])]
                    .map(|exp| self.of_issuer(&with(json!({"exp": exp}))))
                    .to_vec(),
                LACKING,
            ),
            ("`nbf` that is no number", vec![self.of_issuer(&with(json!({"nbf": "0"})))], WRONG_FORM),
            (
                "of another issuer",
                vec![
                    self.of_issuer(&with(json!({"iss": "https://issuer.example"}))),
                    self.of_issuer(&with(json!({"iss": "https://attacker.example/"}))),
                ],
                invalid("the token is from another issuer"),
            ),
            (
                "for another audience",
                vec![
                    self.of_issuer(&with(json!({"aud": "playhead2"}))),
                    self.of_issuer(&with(json!({"aud": ["a", "b"]}))),
                ],
                invalid("the token is for another audience"),
            ),
            (
                "without issuer or audience",
                vec![self.of_issuer(&with(json!({"iss": null}))), self.of_issuer(&with(json!({"aud": null})))],
                LACKING,
            ),
            (
                "critical headers (`crit`)",
                vec![header_of(r#"{"alg":"ES256","kid":"ec","crit":["b64"],"b64":false}"#)],
                invalid("the token has critical headers that are not supported"),
            ),
            (
                "a claim twice",
                [r#","profiles":["p2"]"#, r#","exp":4102444800"#, r#","aud":"other""#, r#","iss":"other""#]
                    .map(|more| claims_of(&and(more)))
                    .to_vec(),
                WRONG_FORM,
            ),
            ("a header twice", vec![header_of(r#"{"alg":"none","alg":"ES256","kid":"ec"}"#)], NO_JWT),
            (
                "claims of another form",
                vec![
                    self.of_issuer(&with(json!({"profiles": "p1"}))),
                    self.of_issuer(&with(json!({"profiles": {"p1": true}}))),
                    claims_of("[]"),
                    claims_of("not JSON"),
                ],
                WRONG_FORM,
            ),
            (
                "neither profiles nor the service's scope",
                [json!(null), json!("Service"), json!("services"), json!("service\u{0}"), json!({"service": true})]
                    .map(|scope| self.of_issuer(&with(json!({"profiles": null, "scope": scope}))))
                    .to_vec(),
                invalid("the token has neither profiles nor the scope of a service"),
            ),
            (
                "two, four, five or thousands of parts (an encrypted token has five)",
                vec![
                    format!("Bearer {}", &message["Bearer ".len()..]),
                    format!("{valid}.{signature}"),
                    format!("{valid}.a.b"),
                    format!("Bearer {}", ".".repeat(5_000)),
                ],
                NO_JWT,
            ),
            (
                "no base64url, no JSON, JSON of another form, or 3,000 levels of it",
                vec![
                    "Bearer ".into(),
                    "Bearer a.b.c".into(),
                    format!("{message}=.{signature}").replacen('.', "=.", 1),
                    header_of("[]"),
                    header_of("null"),
                    header_of(&format!(r#"{{"alg":"ES256","kid":"ec","x":{}}}"#, nested(3_000))),
                ],
                NO_JWT,
            ),
            ("more than 10 KiB", vec![format!("{valid}{}", "A".repeat(10_240))], invalid("the token is too long")),
        ]
    }
}

/// The row of an attack in the document.
fn row(name: &str, refused: AuthError) -> String {
    let Problem { status, code, detail, .. } = Problem::from(refused);
    format!("\n| {name} | `{} {code}`: {detail} |\n", status.as_u16())
}

fn document() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../SECURITY.md")).unwrap()
}

#[tokio::test]
async fn every_known_attack_gets_its_documented_answer() {
    let (attacker, attackers_server) = Server::listen(&[]).await;
    let scene = Scene {
        rsa: Issuer::new(Algorithm::RS256, "rsa"),
        ec: Issuer::new(Algorithm::ES256, "ec"),
        stranger: Issuer::new(Algorithm::ES256, "stranger"),
        attackers_server,
    };
    let (server, url) = Server::listen(&[&scene.rsa, &scene.ec]).await;
    let (issuer, audience) = (Some(ISSUER.into()), Some(AUDIENCE.into()));
    let authenticator = Authenticator::new(&AuthConfig { issuer, audience, ..config(KeySource::Jwks(url)) }).unwrap();
    let now = Instant::now();
    assert!(authenticator.verify_at(Some(&scene.of_issuer(&claims())), now).await.unwrap().may("p1"));
    let document = document();
    for (name, headers, answer) in scene.attacks() {
        for header in headers {
            assert_eq!(authenticator.verify_at(Some(&header), now).await, Err(answer), "{name}: {header:.120}");
        }
        assert!(document.contains(&row(name, answer)), "SECURITY.md lacks {}", row(name, answer));
    }
    assert_eq!((attacker.requests(), server.requests()), (0, 1), "no attack makes us fetch anything");
}

/// Whatever else the issuer answers, nobody is let in, and devices keep their events.
#[tokio::test]
async fn keys_from_a_faulty_issuer_let_nobody_in() {
    let issuer = Issuer::new(Algorithm::ES256, "ec");
    let set = json!({"keys": [issuer.public]}).to_string();
    let (own, elsewhere) = Server::listen(&[&issuer]).await;
    let mut encrypts = issuer.public.clone();
    encrypts["use"] = json!("enc");
    let answers: [(&str, Response); 7] = [
        ("an error", StatusCode::INTERNAL_SERVER_ERROR.into_response()),
        ("a redirect", (StatusCode::FOUND, [(LOCATION, elsewhere.as_str())]).into_response()),
        ("no JSON", "keys".into_response()),
        ("no keys", r#"{"keys":[]}"#.into_response()),
        ("keys that are not for signatures", json!({"keys": [encrypts]}).to_string().into_response()),
        ("a symmetric key", r#"{"keys":[{"kty":"oct","kid":"ec","k":"AAAA"}]}"#.into_response()),
        ("more than 256 KiB", (set + &" ".repeat(MAX_BYTES)).into_response()),
    ];
    let document = document();
    for (name, answer) in answers {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        let answer = Arc::new(Mutex::new(Some(answer)));
        let serve = move || async move { answer.lock().unwrap().take().unwrap() };
        tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(serve)).await });
        let authenticator = Authenticator::new(&config(KeySource::Jwks(url))).unwrap();
        let refused = authenticator.verify(Some(&issuer.token())).await;
        assert_eq!(refused, Err(AuthError::Unavailable), "{name}");
    }
    assert_eq!(own.requests(), 0, "redirects are not followed");
    let name = "the key set is an error, a redirect, no JSON, empty, of other keys, or larger than 256 KiB";
    for name in [name, "the issuer is down or hangs"] {
        assert!(document.contains(&row(name, AuthError::Unavailable)), "{name}");
    }
}

#[tokio::test]
async fn profile_is_a_name_and_never_a_pattern() {
    let claims = json!({"exp": in_an_hour(), "profiles": ["*", "p*", "", ".*", "%", "P2", "p1\u{0}"]});
    let identity = by_secret().verify(Some(&hs256(&claims))).await.unwrap();
    for profile_id in ["p1", "p2", "p", "anyone"] {
        assert!(!identity.may(profile_id), "{profile_id}");
    }
}

/// A valid claim of the wrong form is not a wrong signature, for which other keys would be tried and
/// fetched.
#[tokio::test]
async fn signed_claims_of_the_wrong_form_cause_no_fetch() {
    let issuer = Issuer::new(Algorithm::ES256, "ec");
    let (server, authenticator) = Server::start(&[&issuer]).await;
    let claims = json!({"exp": in_an_hour(), "nbf": "0", "profiles": ["p1"]});
    let token = signed(Algorithm::ES256, None, &claims, &issuer.private);
    let start = Instant::now();
    for now in [start, start + AFTER_PAUSE] {
        assert_eq!(authenticator.verify_at(Some(&token), now).await, Err(WRONG_FORM));
    }
    assert_eq!(server.requests(), 1);
}
