//! Requests to `ingest`, as API Gateway hands them over.

use crate::region::Region;
use ingest::Ingest;
use jsonwebtoken::{EncodingKey, Header, encode};
use lambda::auth::{AuthConfig, Authenticator};
use lambda::config::Env;
use lambda::metrics::Emitter;
use lambda::runtime::ServeHttp as _;
use lambda_http::RequestExt as _;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::timeout;

const SECRET: &str = "a secret of at least thirty-two bytes";
const PATH: &str = "/v1/events";
/// The template's `Timeout` of `ingest`.
const TIME_OUT: Duration = Duration::from_secs(20);

pub(crate) fn authenticator() -> Authenticator {
    let env = Env::from_pairs([("JWT_SECRET", SECRET)]);
    let config = lambda::config::read(env, AuthConfig::read).expect("a configuration");
    Authenticator::new(&config).expect("an authenticator")
}

fn token(profile_id: &str) -> String {
    // Tokens are checked by the real clock.
    let claims = json!({ "profiles": [profile_id], "exp": 4_000_000_000_u64 });
    let token = encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET.as_bytes()));
    format!("Bearer {}", token.expect("a token"))
}

impl Region {
    /// Sends a request of a profile. Returns the status and the body, unless the function crashed or
    /// Lambda ended it.
    pub(crate) async fn post(&self, profile_id: &str, body: &Value) -> Option<(u16, Value)> {
        let request = http::Request::post(PATH).header("authorization", token(profile_id));
        let request = request.body(body.to_string().into()).expect("a request").with_raw_http_path(PATH);
        let lines = Arc::new(Mutex::new(String::new()));
        let sink = Arc::clone(&lines);
        let emitter = Emitter::to("simulated", "ingest", move |text| {
            sink.lock().unwrap_or_else(PoisonError::into_inner).push_str(text);
        });
        let now = self.faults.local_now();
        let ended = {
            let metrics = emitter.start(now);
            let served = Ingest::serve(&*self.ingest, &metrics, request, now);
            timeout(TIME_OUT, self.faults.until_crash(served)).await
        };
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        match ended {
            Ok(Some(response)) => {
                ledger.books.add_lines(&lines.lock().unwrap_or_else(PoisonError::into_inner));
                let body = serde_json::from_slice(response.body()).unwrap_or_default();
                Some((response.status().as_u16(), body))
            }
            Ok(None) => {
                ledger.crashes += 1;
                None
            }
            Err(_) => {
                ledger.time_outs += 1;
                None
            }
        }
    }
}
