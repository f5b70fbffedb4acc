//! The requests that `ingest` is measured with, as API Gateway's HTTP API passes them on.

use super::super::viewing::Viewing;
use anyhow::{Result, ensure};
use axum::body::Bytes;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use flate2::Compression;
use flate2::write::GzEncoder;
use playback::contract::{MAX_BODY_BYTES, MAX_DECOMPRESSED_BYTES};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use std::io::Write as _;
use std::time::Duration;

/// How many members take turns in sending.
const MEMBERS: usize = 100;
/// Events of a session in one request, at most. A device that was offline has several sessions.
const EVENTS_OF_A_SESSION: usize = 100;
const TOKEN_TTL: Duration = Duration::from_secs(3_600);

/// Sends requests of one size.
#[derive(Debug)]
pub(in crate::bench) struct Load {
    members: Vec<Member>,
    events: usize,
    gzip: bool,
    /// The least size of a body before it is compressed, bytes.
    padded_to: usize,
    next: usize,
    now: u64,
    rng: StdRng,
}

/// A member with their token and what they watch.
#[derive(Debug)]
struct Member {
    profile_id: String,
    authorization: String,
    viewings: Vec<Viewing>,
}

impl Load {
    /// Requests with so many events, of members whose tokens are signed with this secret.
    pub(in crate::bench) fn new(events: usize, gzip: bool, secret: &str, seed: u64, now: u64) -> Result<Self> {
        let mut rng = StdRng::seed_from_u64(seed);
        let sessions = sessions_of(events);
        let mut members = Vec::new();
        for number in 0..MEMBERS {
            let profile_id = format!("p{number:08}");
            let token = operate::token::of_member(secret, vec![profile_id.clone()], TOKEN_TTL)?;
            let viewings = (0..sessions).map(|_| Viewing::of(profile_id.clone(), &mut rng, now));
            let viewings = viewings.collect::<Result<_>>()?;
            members.push(Member { profile_id, authorization: format!("Bearer {token}"), viewings });
        }
        Ok(Self { members, events, gzip, padded_to: 0, next: 0, now, rng })
    }

    /// How many sessions a request has events of. Each is a record on the log.
    pub(in crate::bench) fn sessions(&self) -> usize {
        sessions_of(self.events)
    }

    /// The next requests.
    ///
    /// # Errors
    /// If a body is larger than players may send.
    pub(in crate::bench) fn requests(&mut self, count: usize) -> Result<Vec<Bytes>> {
        (0..count).map(|_| self.request()).collect()
    }

    /// Gives each member the token of another.
    pub(in crate::bench) fn exchange_tokens(&mut self) {
        let first = self.members.first().map(|member| member.authorization.clone()).unwrap_or_default();
        let others: Vec<String> = self.members.iter().skip(1).map(|member| member.authorization.clone()).collect();
        for (member, authorization) in self.members.iter_mut().zip(others.into_iter().chain([first])) {
            member.authorization = authorization;
        }
    }

    fn request(&mut self) -> Result<Bytes> {
        let member = &mut self.members[self.next % MEMBERS];
        self.next += 1;
        let mut events = Vec::with_capacity(self.events);
        let each = self.events.div_ceil(member.viewings.len());
        for viewing in &mut member.viewings {
            if viewing.is_over() {
                *viewing = Viewing::of(member.profile_id.clone(), &mut self.rng, self.now)?;
            }
            for _ in 0..each {
                if viewing.is_over() {
                    viewing.rewind();
                }
                let event = viewing.next(&mut self.rng)?;
                events.push(viewing.posted(&event));
            }
        }
        let mut body = serde_json::to_vec(&json!({"sent_at": self.now, "events": events}))?;
        body.resize(body.len().max(self.padded_to), b' ');
        let body = if self.gzip { compress(&body)? } else { body };
        ensure!(body.len() <= MAX_BODY_BYTES, "a body has {} bytes", body.len());
        Ok(event("POST /v1/events", "/v1/events", &member.authorization, &body, self.gzip)?.to_string().into())
    }

    /// The same, with bodies as large as may be once they are decompressed.
    pub(in crate::bench) fn padded(self) -> Self {
        Self { padded_to: MAX_DECOMPRESSED_BYTES, ..self }
    }
}

/// A request of a member for their history.
pub(in crate::bench) fn history(secret: &str) -> Result<Bytes> {
    let profile_id = "p00000001";
    let token = operate::token::of_member(secret, vec![profile_id.to_owned()], TOKEN_TTL)?;
    let mut event = event(
        "GET /v1/profiles/{profile_id}/history",
        &format!("/v1/profiles/{profile_id}/history"),
        &format!("Bearer {token}"),
        b"",
        false,
    )?;
    event["pathParameters"] = json!({"profile_id": profile_id});
    Ok(event.to_string().into())
}

fn sessions_of(events: usize) -> usize {
    events.div_ceil(EVENTS_OF_A_SESSION)
}

fn compress(body: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body)?;
    Ok(encoder.finish()?)
}

/// The event of an HTTP API, payload format 2.0.
fn event(route: &str, path: &str, authorization: &str, body: &[u8], gzip: bool) -> Result<Value> {
    let host = "a1b2c3d4e5.execute-api.us-east-1.amazonaws.com";
    let method = route.split(' ').next();
    let mut headers = json!({
        "accept": "application/json",
        "accept-encoding": "gzip",
        "authorization": authorization,
        "content-length": body.len().to_string(),
        "content-type": "application/json",
        "host": host,
        "user-agent": "player/7.4",
        "x-amzn-trace-id": "Root=1-6ab1dc9a-000000000000000000000001",
        "x-forwarded-for": "192.0.2.1",
        "x-forwarded-port": "443",
        "x-forwarded-proto": "https",
    });
    let body = if gzip {
        headers["content-encoding"] = json!("gzip");
        headers["content-type"] = json!("application/vnd.playhead.events+json");
        BASE64.encode(body)
    } else {
        String::from_utf8(body.to_vec())?
    };
    Ok(json!({
        "version": "2.0",
        "routeKey": route,
        "rawPath": path,
        "rawQueryString": "",
        "headers": headers,
        "requestContext": {
            "accountId": "123456789012",
            "apiId": "a1b2c3d4e5",
            "domainName": host,
            "domainPrefix": "a1b2c3d4e5",
            "http": {
                "method": method,
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": "192.0.2.1",
                "userAgent": "player/7.4",
            },
            "requestId": "JKJaXmPLvHcESHA=",
            "routeKey": route,
            "stage": "$default",
            "time": "21/Sep/2026:14:13:30 +0000",
            "timeEpoch": 1_790_000_010_200_u64,
        },
        "body": body,
        "isBase64Encoded": gzip,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::io::Read as _;

    const SECRET: &str = "a secret of at least thirty-two bytes";

    fn first(events: usize, gzip: bool) -> Value {
        let mut load = Load::new(events, gzip, SECRET, 1, 1_790_000_000_000).unwrap();
        serde_json::from_slice(&load.requests(1).unwrap()[0]).unwrap()
    }

    #[test]
    fn offline_device_sends_five_sessions_of_one_profile() {
        let body: Value = serde_json::from_str(first(500, false)["body"].as_str().unwrap()).unwrap();
        let events = body["events"].as_array().unwrap();
        let distinct = |field: &str| events.iter().map(|event| event[field].to_string()).collect::<BTreeSet<_>>().len();
        assert_eq!((events.len(), distinct("session_id"), distinct("profile_id")), (500, 5, 1));
    }

    #[test]
    fn padded_body_is_as_large_as_may_be() {
        let mut load = Load::new(500, true, SECRET, 1, 1_790_000_000_000).unwrap().padded();
        let event: Value = serde_json::from_slice(&load.requests(1).unwrap()[0]).unwrap();
        let body = BASE64.decode(event["body"].as_str().unwrap()).unwrap();
        let mut inflated = Vec::new();
        flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut inflated).unwrap();
        assert_eq!(inflated.len(), MAX_DECOMPRESSED_BYTES);
    }

    #[test]
    fn compressed_body_is_passed_on_as_base64() {
        let event = first(50, true);
        assert_eq!((&event["isBase64Encoded"], &event["headers"]["content-encoding"]), (&json!(true), &json!("gzip")));
        assert!(BASE64.decode(event["body"].as_str().unwrap()).unwrap().starts_with(&[0x1f, 0x8b]));
    }
}
