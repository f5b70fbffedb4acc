//! Queues of SQS and their mappings: visibility, receives, retention and redrive.

use crate::invoke::Environment;
use crate::weather::{Call, Faults, What};
use apply::LetterQueue;
use lambda::runtime::ServeBatch;
use queue::SendError;
use retry::{Pause, Pauses};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::sleep;

/// When the SDK gives up a call (`queue::client`).
const PATIENCE_MS: u64 = 6_000;
/// The template's `VisibilityTimeout`, milliseconds.
const VISIBILITY_MS: u64 = 360_000;
/// The template's `MessageRetentionPeriod`, milliseconds.
const RETENTION_MS: u64 = 14 * 24 * 3_600_000;
/// The template's `maxReceiveCount`.
const MAX_RECEIVES: u32 = 1_000;
/// Messages in a batch.
const BATCH: usize = 10;
/// In how many of a thousand cases a message that is done is delivered again, if queues do that.
const TWICE_PERMILLE: u64 = 200;
/// How often an empty queue is asked.
const IDLE: Duration = Duration::from_secs(20);

#[derive(Debug, Clone)]
pub(crate) struct Message {
    id: u64,
    pub(crate) body: String,
    sent_at: u64,
    visible_at: u64,
    receives: u32,
}

/// A queue. Clones share it.
#[derive(Clone)]
pub(crate) struct Queue {
    name: &'static str,
    /// What makes it fail.
    what: What,
    state: Arc<Mutex<State>>,
    faults: Faults,
}

#[derive(Default)]
struct State {
    messages: Vec<Message>,
    last_id: u64,
    /// Messages that SQS itself gave up.
    raw_dead: Vec<String>,
    expired: u64,
}

impl Queue {
    pub(crate) fn new(name: &'static str, what: What, faults: &Faults) -> Self {
        Self { name, what, state: Arc::default(), faults: faults.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bodies of all messages.
    pub(crate) fn bodies(&self) -> Vec<String> {
        self.lock().messages.iter().map(|message| message.body.clone()).collect()
    }

    /// How many messages are there, how many SQS gave up, and how many expired.
    pub(crate) fn counts(&self) -> (usize, usize, u64) {
        let state = self.lock();
        (state.messages.len(), state.raw_dead.len(), state.expired)
    }

    /// Takes a message.
    pub(crate) fn accept(&self, body: String) {
        let now = self.faults.clock.now();
        let mut state = self.lock();
        state.last_id += 1;
        let message = Message { id: state.last_id, body, sent_at: now, visible_at: now, receives: 0 };
        state.messages.push(message);
    }

    /// Sends a message that nobody receives for a while. Returns whether that was answered.
    pub(crate) async fn send_later(&self, body: String, after: Duration) -> bool {
        let call = self.faults.call(self.what, PATIENCE_MS).await;
        if call == Call::Answered || call == Call::Unanswered {
            self.accept(body);
            if let Some(message) = self.lock().messages.last_mut() {
                message.visible_at += u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
            }
        }
        call == Call::Answered
    }

    /// Sends messages with the faults of `from`.
    pub(crate) async fn send_from(&self, from: &Faults, bodies: Vec<String>) -> Vec<Result<(), SendError>> {
        let mut results = Vec::with_capacity(bodies.len());
        for bodies in bodies.chunks(queue::MAX_BATCH_MESSAGES) {
            let call = from.call(self.what, PATIENCE_MS).await;
            for body in bodies {
                if call == Call::Answered || call == Call::Unanswered {
                    self.accept(body.clone());
                }
                results.push(match call {
                    Call::Answered => Ok(()),
                    _ => Err(SendError::Call {
                        queue: self.name.to_owned(),
                        code: "None".to_owned(),
                        message: "simulated".to_owned(),
                    }),
                });
            }
        }
        results
    }

    fn receive(&self) -> Vec<Message> {
        let now = self.faults.clock.now();
        let mut state = self.lock();
        let before = state.messages.len();
        state.messages.retain(|message| now - message.sent_at < RETENTION_MS);
        state.expired += (before - state.messages.len()) as u64;
        let is_spent = |message: &Message| message.visible_at <= now && message.receives >= MAX_RECEIVES;
        let (spent, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut state.messages).into_iter().partition(is_spent);
        state.raw_dead.extend(spent.into_iter().map(|message| message.body));
        state.messages = kept;
        let visible = state.messages.iter_mut().filter(|message| message.visible_at <= now);
        let received = visible.take(BATCH).map(|message| {
            message.receives += 1;
            message.visible_at = now + VISIBILITY_MS;
            message.clone()
        });
        received.collect()
    }

    fn delete(&self, ids: &BTreeSet<u64>) {
        self.lock().messages.retain(|message| !ids.contains(&message.id));
    }

    /// When the next message becomes visible.
    fn next_visible(&self) -> Option<u64> {
        self.lock().messages.iter().map(|message| message.visible_at).min()
    }

    /// The mapping of the queue to a function.
    pub(crate) async fn map<F: ServeBatch>(self, mut function: Environment<F>) {
        loop {
            let received = self.receive();
            if received.is_empty() {
                let now = self.faults.clock.now();
                let wait = self.next_visible().map_or(IDLE, |at| Duration::from_millis(at.saturating_sub(now)));
                sleep(wait.clamp(Duration::from_millis(1), IDLE)).await;
                continue;
            }
            let records: Vec<Value> = received.iter().map(|message| self.record(message)).collect();
            let Some(answer) = function.invoke(&json!({ "Records": records }).to_string()).await else {
                continue;
            };
            let answer: Value = serde_json::from_slice(&answer).expect("an answer is JSON");
            let failed: BTreeSet<&str> = answer["batchItemFailures"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|failure| failure["itemIdentifier"].as_str())
                .collect();
            let is_done = |message: &&Message| !failed.contains(message.id.to_string().as_str());
            let twice = self.faults.is(What::Twice);
            let done =
                received.iter().filter(is_done).filter(|_| !(twice && self.faults.dice.permille(TWICE_PERMILLE)));
            self.delete(&done.map(|message| message.id).collect());
        }
    }

    fn record(&self, message: &Message) -> Value {
        json!({
            "messageId": message.id.to_string(),
            "receiptHandle": message.id.to_string(),
            "body": message.body,
            "attributes": {
                "ApproximateReceiveCount": message.receives.to_string(),
                "SentTimestamp": message.sent_at.to_string(),
            },
            "eventSource": "aws:sqs",
            "eventSourceARN": format!("arn:aws:sqs:us-east-1:000000000000:{}", self.name),
        })
    }
}

impl<L: Serialize + Send> LetterQueue<L> for Queue {
    type Error = SendError;

    async fn put(&self, letters: Vec<L>) -> Vec<Result<(), SendError>> {
        let bodies = letters.iter().map(|letter| serde_json::to_string(letter).expect("a letter is JSON")).collect();
        drop(letters);
        self.send_from(&self.faults, bodies).await
    }
}

impl Pauses for Queue {
    async fn pause(&self, pauses: Vec<Pause>) {
        if self.faults.call(self.what, PATIENCE_MS).await != Call::Answered {
            return;
        }
        let now = self.faults.clock.now();
        let mut state = self.lock();
        for pause in pauses {
            let id = pause.receipt_handle.parse::<u64>().ok();
            if let Some(message) = state.messages.iter_mut().find(|message| Some(message.id) == id) {
                message.visible_at = now + pause.seconds * 1_000;
            }
        }
    }
}
