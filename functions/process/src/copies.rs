//! Copies of what arrives from other regions, for a candidate. On the logs a candidate has a consumer
//! group of its own, but a queue has only one reader, and without these events its views could not
//! agree with the live ones.
//!
//! A copy is sent beside the live work, in bounded time, and forgotten if that fails: `compare` then
//! finds a session that differs. After a failure there are none for a while.

use crate::Sample;
use crate::shadow::Rest;
use apply::{Decoded, Unit, unpack_message};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use lambda::batch::{Batch, BatchAnswer, Source};
use lambda::metrics::Metrics;
use lambda::runtime::{Invocation, ServeBatch};
use playback::envelope::join_delimited;
use queue::Queue;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// How long the copies of a batch may take: the live events beside them wait at most this long.
const TIME_OUT: Duration = Duration::from_secs(2);

/// Where copies go.
pub trait SendCopies {
    /// Sends messages. Returns how many could not be sent.
    fn send(&self, bodies: Vec<String>) -> impl Future<Output = usize> + Send;
}

impl SendCopies for Queue {
    async fn send(&self, bodies: Vec<String>) -> usize {
        self.send_all(bodies).await.iter().filter(|sent| sent.is_err()).count()
    }
}

/// `process`, which also copies sampled envelopes of the queue `inbound`.
#[derive(Debug)]
pub struct WithCopies<P, Q> {
    /// The live function.
    pub process: P,
    /// What a candidate gets, if there is one.
    pub copies: Option<Copies<Q>>,
}

/// Copies for a candidate.
#[derive(Debug)]
pub struct Copies<Q> {
    queue: Q,
    sample: Sample,
    rest: Rest,
}

impl<P: ServeBatch, Q: SendCopies + Send + Sync> ServeBatch for WithCopies<P, Q> {
    type Error = P::Error;

    async fn serve(&self, metrics: &Metrics, batch: Batch, invocation: Invocation) -> Result<BatchAnswer, P::Error> {
        let Some(copies) = &self.copies else {
            return self.process.serve(metrics, batch, invocation).await;
        };
        let bodies = copies.wanted(&batch);
        tokio::join!(self.process.serve(metrics, batch, invocation), copies.send(bodies)).0
    }
}

impl<Q: SendCopies> Copies<Q> {
    /// Copies of the profiles of `sample`, to `queue`.
    pub fn new(queue: Q, sample: Sample) -> Self {
        Self { queue, sample, rest: Rest::default() }
    }

    /// The copies to send now; none during a rest, when nothing needs to be decoded either.
    fn wanted(&self, batch: &Batch) -> Vec<String> {
        if self.rest.lasts(Instant::now()) { Vec::new() } else { sampled(batch, self.sample) }
    }

    async fn send(&self, bodies: Vec<String>) {
        if bodies.is_empty() {
            return;
        }
        match timeout(TIME_OUT, self.queue.send(bodies)).await {
            Ok(0) => return,
            Ok(failed) => tracing::warn!(failed, "the candidate's queue did not take copies"),
            Err(_) => tracing::warn!("the candidate's queue did not take copies in time"),
        }
        self.rest.begin(Instant::now());
    }
}

/// The sampled envelopes of each message, packed like the message.
fn sampled(batch: &Batch, sample: Sample) -> Vec<String> {
    let is_sampled =
        |(_, decoded): &(Unit, Decoded)| decoded.as_ref().is_ok_and(|envelope| sample.has(&envelope.profile_id));
    let mut bodies = Vec::new();
    for record in batch.records.iter().filter(|record| matches!(record.source, Source::Sqs { .. })) {
        let Ok(body) = &record.value else { continue };
        let mut units = unpack_message(&record.source, body.clone());
        units.retain(is_sampled);
        if !units.is_empty() {
            bodies.push(BASE64_STANDARD.encode(join_delimited(units.iter().map(|(unit, _)| unit.bytes.as_ref()))));
        }
    }
    bodies
}
