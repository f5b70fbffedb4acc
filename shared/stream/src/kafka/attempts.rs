//! The attempts at one record: its best partition first, then others, until one acknowledges it.

use std::ops::ControlFlow::{self, Break, Continue};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::{BoxFuture, select_ok};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::future_producer::DeliveryFuture;
use rdkafka::producer::{FutureRecord, Producer};
use tokio::time::error::Elapsed;
use tokio::time::{sleep, timeout};

use super::KafkaLog;
use crate::log::{Ack, AppendError, Attempt, LogRecord};

/// Maximum number of attempts per record: its own partition and two others.
pub(crate) const MAX_ATTEMPTS: u32 = 3;
/// The pause between a failed attempt and the next. Meanwhile the metadata is refreshed.
const PAUSE: Duration = Duration::from_millis(100);

/// A record on its way. `partition` is `None` while no partitions are known and librdkafka chooses.
pub(super) struct Sent {
    partition: Option<i32>,
    at: Instant,
    delivery: DeliveryFuture,
}

/// The attempts at a record so far.
#[derive(Default)]
struct Tried {
    attempts: u32,
    partitions: Vec<i32>,
}

impl KafkaLog {
    /// Enqueues the record for the best partition. `NotEnoughReplicas` if no known partition
    /// accepts writes.
    pub(super) fn send(&self, record: &LogRecord, tried: &[i32]) -> Result<Sent, KafkaError> {
        let at = Instant::now();
        let partition = match self.inner.partitions() {
            None => None,
            Some(partitions) => {
                let choice = partitions.choose(record.key.as_bytes(), record.lane, &self.inner.health(), tried, at);
                Some(choice.ok_or(KafkaError::MessageProduction(Code::NotEnoughReplicas))?)
            }
        };
        let keyed = FutureRecord::to(&self.inner.config.topic).key(record.key.as_str()).payload(record.value.as_ref());
        let sent = self.inner.client.send_result(FutureRecord { partition, ..keyed });
        Ok(Sent { partition, at, delivery: sent.map_err(|(error, _)| error)? })
    }

    /// Waits until the record is durable or its time is up.
    pub(super) async fn settle(&self, record: &LogRecord, first: Result<Sent, KafkaError>) -> Result<Ack, AppendError> {
        let first = match first {
            // A thawed environment may have old metadata: refresh it before refusing a record.
            Err(KafkaError::MessageProduction(Code::NotEnoughReplicas)) => {
                self.refreshed().await;
                self.send(record, &[])
            }
            known => known,
        };
        let copies = AtomicU32::new(0);
        let outcome = match first {
            Ok(sent) => {
                let followed = self.follow(record, sent, Tried::default(), &copies);
                let in_time = timeout(self.inner.config.delivery_timeout, followed).await;
                in_time.unwrap_or(Err(KafkaError::MessageProduction(Code::MessageTimedOut)))
            }
            Err(error) => Err(error),
        };
        let copies = copies.into_inner();
        outcome.map(|()| Ack { copies }).map_err(|error| {
            let attempt = Attempt::new(&self.inner.config.topic, record, name(&error), error.to_string());
            meaning(&error).of(Attempt { copies, ..attempt })
        })
    }

    /// Follows an attempt to its end, and starts the next one when it fails or stays silent.
    /// `copies` counts the attempts that may have reached the log.
    fn follow<'a>(
        &'a self,
        record: &'a LogRecord,
        sent: Sent,
        mut tried: Tried,
        copies: &'a AtomicU32,
    ) -> BoxFuture<'a, Result<(), KafkaError>> {
        let Sent { partition, at, delivery } = sent;
        let mut delivery = self.delivered(delivery, copies).boxed();
        let followed = async move {
            let mut failure = match judge(timeout(self.inner.config.second_attempt_after, &mut delivery).await) {
                Break(outcome) => return outcome,
                Continue(failure) => failure,
            };
            tried.attempts += 1;
            tried.partitions.extend(partition);
            self.doubt(partition, at);
            self.refresh();
            if tried.attempts == MAX_ATTEMPTS || self.crowded() {
                return match failure {
                    Some(error) => Err(error),
                    None => delivery.await,
                };
            }
            if failure.is_some() {
                sleep(PAUSE).await;
            } else {
                match judge(timeout(PAUSE, &mut delivery).await) {
                    Break(outcome) => return outcome,
                    Continue(late) => failure = late,
                }
            }
            match (self.send(record, &tried.partitions), failure) {
                (Ok(sent), Some(_)) => self.follow(record, sent, tried, copies).await,
                (Ok(sent), None) => {
                    let next = self.follow(record, sent, tried, copies);
                    select_ok([delivery, next]).await.map(|((), _)| ())
                }
                (Err(error), Some(_)) => Err(error),
                // No other attempt can begin, but the silent one may still be acknowledged.
                (Err(_), None) => delivery.await,
            }
        };
        followed.boxed()
    }

    /// Waits for the answer to one attempt, and records the partition's health.
    async fn delivered(&self, delivery: DeliveryFuture, copies: &AtomicU32) -> Result<(), KafkaError> {
        copies.fetch_add(1, Relaxed);
        match delivery.await {
            Ok(Ok(delivery)) => {
                let partitions = self.inner.partitions();
                if let Some(partition) = partitions.as_ref().and_then(|known| known.get(delivery.partition)) {
                    self.inner.health().acknowledged(partition, Instant::now());
                }
                Ok(())
            }
            Ok(Err((error, _))) => {
                if surely_absent(&error) {
                    copies.fetch_sub(1, Relaxed);
                }
                Err(error)
            }
            Err(_) => Err(KafkaError::Canceled),
        }
    }

    fn doubt(&self, partition: Option<i32>, sent: Instant) {
        let partitions = self.inner.partitions();
        let known = partitions.as_ref().zip(partition).and_then(|(known, partition)| known.get(partition));
        if let Some(partition) = known {
            self.inner.health().failed(partition, sent, Instant::now());
        }
    }

    /// Whether so many records are waiting that more copies would make it worse.
    fn crowded(&self) -> bool {
        i64::from(self.inner.client.in_flight_count()) > i64::from(self.inner.config.queue_records / 2)
    }
}

/// Breaks with the record's result if it is final. Otherwise continues, with the error if the
/// attempt failed, or without if it is silent.
fn judge(answer: Result<Result<(), KafkaError>, Elapsed>) -> ControlFlow<Result<(), KafkaError>, Option<KafkaError>> {
    match answer {
        Ok(Err(error)) if meaning(&error) == Meaning::Unavailable => Continue(Some(error)),
        Ok(outcome) => Break(outcome),
        Err(_) => Continue(None),
    }
}

/// What an error means to the caller.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Meaning {
    TooLarge,
    Throttled,
    Unavailable,
    Denied,
}

impl Meaning {
    fn of(self, attempt: Attempt) -> AppendError {
        match self {
            Self::TooLarge => AppendError::TooLarge(attempt),
            Self::Throttled => AppendError::Throttled(attempt),
            Self::Unavailable => AppendError::Unavailable(attempt),
            Self::Denied => AppendError::Denied(attempt),
        }
    }
}

/// Any error that is not known to be permanent counts as unavailable.
fn meaning(error: &KafkaError) -> Meaning {
    match error.rdkafka_error_code() {
        Some(Code::MessageSizeTooLarge | Code::MessageBatchTooLarge | Code::InvalidMessageSize) => Meaning::TooLarge,
        Some(Code::QueueFull | Code::ThrottlingQuotaExceeded) => Meaning::Throttled,
        Some(
            Code::Authentication
            | Code::SaslAuthenticationFailed
            | Code::UnsupportedSASLMechanism
            | Code::IllegalSASLState
            | Code::TopicAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::SecurityDisabled,
        ) => Meaning::Denied,
        _ => Meaning::Unavailable,
    }
}

/// Whether the leader refused the record before writing anything.
fn surely_absent(error: &KafkaError) -> bool {
    let refused = matches!(error.rdkafka_error_code(), Some(Code::NotEnoughReplicas | Code::NotLeaderForPartition));
    refused || meaning(error) != Meaning::Unavailable
}

fn name(error: &KafkaError) -> String {
    error.rdkafka_error_code().map_or_else(|| "Client".to_owned(), |code| format!("{code:?}"))
}
