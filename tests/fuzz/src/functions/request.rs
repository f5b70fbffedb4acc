//! A request to `POST /v1/events` as `ingest` sees it: lines of headers, an empty line, and the body.
//! Media types, gzip, tokens in the header or in the body, events.
//!
//! - Whatever a device sends, the answer is a `202` or says what is wrong with the request: no `5xx`,
//!   since the log takes everything.
//! - A `202` counts exactly the events that are on the log, and only those of the token's profiles.
//! - Any other answer has left nothing on the log.

use super::token::authenticator;
use super::{block_on, emitter};
use crate::NOW;
use futures::Stream;
use http::{HeaderName, HeaderValue, Request};
use ingest::{Budgets, Ingest};
use lambda::routing::Routing;
use lambda::runtime::ServeHttp;
use lambda_http::{Body, RequestExt};
use playback::contract::MAX_EVENTS;
use playback::edge::SessionWindow;
use playback::envelope::Envelope;
use playback::routing::Regions;
use serde_json::Value;
use std::sync::{Arc, Mutex};
use stream::{Ack, DurableLog, Failover, LogRecord, Policy, RecordResult};

/// A log that takes everything.
#[derive(Default)]
struct Log(Mutex<Vec<LogRecord>>);

impl DurableLog for Log {
    fn append_each<'a>(&'a self, records: &'a [LogRecord]) -> impl Stream<Item = RecordResult> + Send + 'a {
        self.0.lock().unwrap().extend_from_slice(records);
        futures::stream::iter((0..records.len()).map(|index| (index, Ok(Ack::ONCE))))
    }
}

pub(super) fn run(bytes: &[u8]) {
    thread_local! {
        static INGEST: Ingest<Log> = ingest();
    }
    let Some(request) = request(bytes) else { return };
    INGEST.with(|ingest| {
        let response = block_on(ingest.serve(&emitter().start(NOW), request, NOW));
        let appended = std::mem::take(&mut *ingest.local.primary().0.lock().unwrap());
        let status = response.status().as_u16();
        if status != 202 {
            assert!((400..500).contains(&status), "{status}");
            assert!(appended.is_empty());
            return;
        }
        let answer: Value = serde_json::from_slice(response.body()).unwrap();
        let envelopes: Vec<Envelope> = appended.iter().map(|one| Envelope::decode(&one.value).unwrap()).collect();
        let events: usize = envelopes.iter().map(|envelope| envelope.events.len()).sum();
        assert_eq!(answer["accepted"], events);
        assert!(events + answer["rejected"].as_array().unwrap().len() <= MAX_EVENTS);
        assert!(envelopes.iter().all(|envelope| envelope.profile_id == "p00000054"));
    });
}

fn ingest() -> Ingest<Log> {
    Ingest {
        local: Failover::new(Log::default(), None, Policy::default()),
        remote: None,
        routing: Routing::read_by(Regions::parse("us-east-1", "").unwrap(), async || Ok(r#"{"version":1}"#.to_owned())),
        authenticator: authenticator(),
        window: SessionWindow::default(),
        budgets: Budgets::new(u32::MAX),
        legacy: None,
        shadows: Arc::default(),
    }
}

fn request(bytes: &[u8]) -> Option<lambda_http::Request> {
    let end = bytes.windows(2).position(|two| two == b"\n\n")?;
    let (head, body) = (&bytes[..end], &bytes[end + 2..]);
    let mut request = Request::post("/v1/events");
    for line in head.split(|byte| *byte == b'\n') {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        request = request.header(HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?);
    }
    // As the runtime makes it of an event.
    let body = match std::str::from_utf8(body) {
        Ok("") => Body::Empty,
        Ok(text) => Body::Text(text.to_owned()),
        Err(_) => Body::Binary(body.to_vec()),
    };
    Some(request.body(body).ok()?.with_raw_http_path("/v1/events"))
}
