//! For tests: letters, and a small SQS on loopback with a dead-letter queue and `retry`.

use super::interrupt::Interrupt;
use super::letter::Found;
use super::queue::DeadLetterQueue;
use crate::endpoints::sdk_config;
use apply::{DeadLetter, Letter};
use aws_sdk_sqs::types::{Message, MessageSystemAttributeName};
use axum::Json;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use lambda::batch::Source;
use playback::proto;
use prost::Message as _;
use queue::Queue;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::watch;

/// A record with one event.
pub(super) fn envelope() -> Vec<u8> {
    let event = proto::Event {
        seq: 3,
        kind: proto::Kind::Progressed.into(),
        position_ms: 10_000,
        played_ms: 10_000,
        occurred_at: 1_790_000_010_122,
        title_duration_ms: Some(60_000),
        device_id: Some("d1".into()),
        device_kind: Some("tv".into()),
        country: Some("US".into()),
        ..proto::Event::default()
    };
    proto::Envelope {
        schema_version: 1,
        session_id: "use1-01M3250V3TW3KG5DD5CEVSMJCC".into(),
        profile_id: "p1".into(),
        title_id: "t1".into(),
        received_at: 1_790_000_011_000,
        ingest_region: "us-east-1".into(),
        trace_id: Vec::new(),
        events: vec![event],
        hops: Vec::new(),
        shadow: false,
        sent_at: 0,
    }
    .encode_to_vec()
}

pub(super) fn letter() -> Letter {
    Letter {
        source: Source::Kafka { topic: "playback-events".into(), partition: 2, offset: 77 },
        key_base64: None,
        value_base64: BASE64_STANDARD.encode(envelope()),
        attempts: 0,
        first_error: None,
        last_error: None,
        redrives: Vec::new(),
    }
}

pub(super) fn dead(reason: &str, dead_at: u64) -> DeadLetter {
    DeadLetter { reason: reason.into(), detail: "`title_id` is invalid".into(), events: 1, dead_at, letter: letter() }
}

/// A message with this body that SQS moved from `inbound`.
pub(super) fn message(id: &str, body: &str) -> Message {
    Message::builder()
        .message_id(id)
        .receipt_handle(format!("handle of {id}"))
        .body(body)
        .attributes(MessageSystemAttributeName::SentTimestamp, "50")
        .attributes(MessageSystemAttributeName::DeadLetterQueueSourceArn, "arn:aws:sqs:us-east-1:1:inbound")
        .build()
}

pub(super) fn found(body: &str) -> Found {
    Found::of(message("m1", body))
}

/// What the fake holds, and which errors it makes.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) dead: Vec<Stored>,
    pub(super) retry: Vec<String>,
    /// Refuses every n-th message sent. 0 = none.
    pub(super) refuse_every: usize,
    /// Does not delete every n-th message, although the call succeeds. 0 = deletes all.
    pub(super) keep_every: usize,
    /// Accepts no message at all.
    pub(super) down: bool,
    entries: usize,
}

#[derive(Debug)]
pub(super) struct Stored {
    pub(super) body: String,
    pub(super) hidden: bool,
    id: String,
}

pub(super) struct Sqs {
    state: Arc<Mutex<State>>,
    client: aws_sdk_sqs::Client,
}

impl Sqs {
    /// Starts an SQS whose dead-letter queue holds these messages.
    pub(super) async fn start(bodies: Vec<String>) -> Self {
        let stored = bodies.into_iter().enumerate();
        let dead = stored.map(|(n, body)| Stored { body, hidden: false, id: format!("m{n}") }).collect();
        let state = Arc::new(Mutex::new(State { dead, ..State::default() }));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::clone(&state);
        let app = axum::Router::new().fallback(async move |headers: HeaderMap, body: Bytes| {
            let action = headers["x-amz-target"].to_str().unwrap().trim_start_matches("AmazonSQS.").to_owned();
            shared.lock().unwrap().answer(&action, &serde_json::from_slice(&body).unwrap())
        });
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        let config = aws_sdk_sqs::config::Builder::from(&sdk_config(&format!("http://{address}"), "us-east-1"));
        let config = config.retry_config(aws_sdk_sqs::config::retry::RetryConfig::disabled()).build();
        Self { state, client: aws_sdk_sqs::Client::from_conf(config) }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Its dead-letter queue, and the sender that interrupts.
    pub(super) fn dead_letters(&self) -> (watch::Sender<bool>, DeadLetterQueue) {
        let (ask, interrupt) = Interrupt::by_hand();
        (ask, DeadLetterQueue::new(self.client.clone(), "http://localhost/1/dead-letter", interrupt))
    }

    pub(super) fn retry(&self) -> Queue {
        Queue::new(self.client.clone(), "http://localhost/1/retry")
    }
}

impl State {
    fn answer(&mut self, action: &str, call: &Value) -> Response {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let entries = call["Entries"].as_array().cloned().unwrap_or_default();
        let (mut successful, mut failed) = (Vec::new(), Vec::new());
        match action {
            "ReceiveMessage" => {
                let visible = self.dead.iter_mut().filter(|message| !message.hidden).take(10);
                let received = visible.map(|message| {
                    message.hidden = true;
                    json!({"MessageId": message.id, "ReceiptHandle": message.id, "Body": message.body})
                });
                return Json(json!({"Messages": received.collect::<Vec<_>>()})).into_response();
            }
            "SendMessageBatch" if self.down => return StatusCode::SERVICE_UNAVAILABLE.into_response(),
            "SendMessageBatch" => {
                for entry in entries {
                    self.entries += 1;
                    if self.refuse_every > 0 && self.entries.is_multiple_of(self.refuse_every) {
                        failed.push(json!({"Id": entry["Id"], "Code": "InternalError", "SenderFault": false}));
                    } else {
                        self.retry.push(text(&entry["MessageBody"]));
                        successful.push(json!({"Id": entry["Id"], "MessageId": "s", "MD5OfMessageBody": "d"}));
                    }
                }
            }
            "DeleteMessageBatch" => {
                for entry in entries {
                    self.entries += 1;
                    if self.keep_every > 0 && self.entries.is_multiple_of(self.keep_every) {
                        failed.push(json!({"Id": entry["Id"], "Code": "InternalError", "SenderFault": false}));
                    } else {
                        self.dead.retain(|message| entry["ReceiptHandle"] != message.id.as_str());
                        successful.push(json!({"Id": entry["Id"]}));
                    }
                }
            }
            "ChangeMessageVisibilityBatch" => {
                for entry in entries {
                    assert_eq!(entry["VisibilityTimeout"], 0);
                    let held = self.dead.iter_mut().find(|message| entry["ReceiptHandle"] == message.id.as_str());
                    held.unwrap().hidden = false;
                    successful.push(json!({"Id": entry["Id"]}));
                }
            }
            other => panic!("unexpected action {other}"),
        }
        Json(json!({"Successful": successful, "Failed": failed})).into_response()
    }
}
