//! The change feed: tells recommendations, analytics and others of each change of a view, and of
//! what members hide, mark, forget and erase.
//!
//! It is woken by the stream of the table `views`, and appends to a Kinesis stream. Each change
//! arrives at least once, and the changes of a profile arrive in order: they have one partition
//! key, at most one of them is in a request, and the next one is sent when it is acknowledged.
//! (`PutRecords` keeps no order among the records of a request.) When one fails, those after it
//! wait for the redelivery. A repeat has the same `id` and `sequence`.
//!
//! A record that can never be published goes to a queue of its own, so it stops no other.

mod config;
mod event;
mod parts;

pub use config::Config;
pub use parts::Parts;

use apply::{DeadLetter, Letter, LetterQueue};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use event::Event;
use lambda::batch::{Batch, BatchAnswer, Record, answer};
use lambda::metrics::{Metric, Metrics};
use lambda::runtime::{Invocation, ServeBatch};
use playback::history::Rules;
use playback::view::UnreadableView;
use queue::SEND_FOR;
use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::time::Duration;
use store::dynamodb::{Change, UnreadableChange};
use stream::{DurableLog, LogRecord};
use tokio::time::Instant;

/// What an invocation keeps for the last request, for the queue, and for its answer.
pub const RESERVE: Duration = SEND_FOR.saturating_add(Duration::from_secs(7));

/// Why a change was not published and is delivered again: the values of
/// [`Metric::ChangesFailed`].
pub mod failed {
    /// The feed did not take it.
    pub const FEED_UNAVAILABLE: &str = "feed_unavailable";
    /// An earlier record was not published, or time ran out.
    pub const HELD_BACK: &str = "held_back";
    /// Newer code wrote the view, or another region's part of it.
    pub const NEWER_VIEW: &str = "newer_view";
    /// The other regions' parts of the view could not be read.
    pub const STORE_UNAVAILABLE: &str = "store_unavailable";
    /// The queue did not take what cannot be published.
    pub const QUEUE_UNAVAILABLE: &str = "dead_letter_unavailable";
}

/// Why a record can never be published: the values of [`Metric::ChangesDead`].
pub mod dead {
    /// It is not a change of a view or a register.
    pub const MALFORMED: &str = "not_a_change";
    /// The view in it cannot be read.
    pub const CORRUPT_VIEW: &str = "corrupt_view";
    /// The feed can never take it.
    pub const TOO_LARGE: &str = "too_large";
}

/// Publishes changes; one per process.
#[derive(Debug)]
pub struct Publish<F, Q, P> {
    /// Where the changes happened, the `source` of each event.
    pub source: String,
    /// The feed.
    pub feed: F,
    /// The queue for what can never be published.
    pub failed: Q,
    /// Where other regions' parts of a view are, if there are any.
    pub parts: Option<P>,
    /// When a title counts as finished.
    pub rules: Rules,
}

/// How a record ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Ending {
    /// It tells consumers nothing.
    Silent,
    Published,
    Failed(&'static str),
    Dead(&'static str, String),
}

/// A change to append: the record's place in the batch, and its event.
struct Pending {
    at: usize,
    record: LogRecord,
}

impl<F: DurableLog, Q: LetterQueue<DeadLetter>, P: Parts> ServeBatch for Publish<F, Q, P> {
    type Error = Infallible;

    async fn serve(&self, metrics: &Metrics, batch: Batch, invocation: Invocation) -> Result<BatchAnswer, Infallible> {
        let records = batch.records;
        let mut endings = vec![Ending::Silent; records.len()];
        let until = invocation.leaving(RESERVE);
        let pending = self.pending(&records, &mut endings, until).await;
        self.append(pending, &mut endings, until).await;
        hold_back(&mut endings);
        self.bury(&records, &mut endings, invocation.now).await;
        count(metrics, &endings);
        let failed = records.iter().zip(&endings).filter(|(_, ending)| matches!(ending, Ending::Failed(_)));
        Ok(answer(failed.map(|(record, _)| &record.source)))
    }
}

impl<F: DurableLog, Q: LetterQueue<DeadLetter>, P: Parts> Publish<F, Q, P> {
    /// Reads the records. The changes to append are in the batch's order. Joining the regions' parts
    /// takes at most half of the time.
    async fn pending(&self, records: &[Record], endings: &mut [Ending], until: Instant) -> Vec<Pending> {
        let mut changes = Vec::with_capacity(records.len());
        for (at, record) in records.iter().enumerate() {
            match record.value.as_deref().map_err(ToString::to_string).map(Change::read) {
                Ok(Ok(change)) => changes.push((at, change)),
                Ok(Err(UnreadableChange::View(UnreadableView::Newer(_)))) => {
                    endings[at] = Ending::Failed(failed::NEWER_VIEW);
                }
                Ok(Err(error @ UnreadableChange::View(_))) => {
                    endings[at] = Ending::Dead(dead::CORRUPT_VIEW, error.to_string());
                }
                Ok(Err(error @ UnreadableChange::Malformed(_))) => {
                    endings[at] = Ending::Dead(dead::MALFORMED, error.to_string());
                }
                Err(error) => endings[at] = Ending::Dead(dead::MALFORMED, error),
            }
        }
        if let Some(parts) = &self.parts {
            let until = Instant::now() + until.saturating_duration_since(Instant::now()) / 2;
            for (at, cause) in parts::join(parts, &mut changes, until).await {
                endings[at] = Ending::Failed(cause);
            }
        }
        let event = |(at, change)| {
            let event = Event::of(change, &self.source, &self.rules)?;
            // Text and numbers only, so serialising cannot fail.
            let json = serde_json::to_vec(&event).unwrap_or_default();
            Some(Pending { at, record: LogRecord::new(event.partitionkey, json) })
        };
        // Lambda delivers everything again from the first failure on. What follows it must not
        // overtake it.
        let first_failed = endings.iter().position(|ending| matches!(ending, Ending::Failed(_)));
        let waits = |one: &Pending| first_failed.is_some_and(|first| one.at >= first);
        let (waiting, pending): (Vec<_>, Vec<_>) = changes.into_iter().filter_map(event).partition(waits);
        for one in waiting {
            if endings[one.at] == Ending::Silent {
                endings[one.at] = Ending::Failed(failed::HELD_BACK);
            }
        }
        pending
    }

    /// Appends the changes in waves, each with the next change of every profile.
    async fn append(&self, pending: Vec<Pending>, endings: &mut [Ending], until: Instant) {
        let mut profiles: BTreeMap<String, VecDeque<Pending>> = BTreeMap::new();
        for one in pending {
            profiles.entry(one.record.key.clone()).or_default().push_back(one);
        }
        while !profiles.is_empty() && Instant::now() < until {
            let wave: Vec<Pending> = profiles.values_mut().filter_map(VecDeque::pop_front).collect();
            let records: Vec<LogRecord> = wave.iter().map(|one| one.record.clone()).collect();
            for (one, result) in wave.iter().zip(self.feed.append(&records).await) {
                endings[one.at] = match result {
                    Ok(_) => Ending::Published,
                    Err(error @ stream::AppendError::TooLarge(_)) => Ending::Dead(dead::TOO_LARGE, error.to_string()),
                    Err(error) => {
                        tracing::warn!(%error, "a change was not published; it is delivered again");
                        for held in profiles.remove(&one.record.key).into_iter().flatten() {
                            endings[held.at] = Ending::Failed(failed::HELD_BACK);
                        }
                        Ending::Failed(failed::FEED_UNAVAILABLE)
                    }
                };
            }
            profiles.retain(|_, rest| !rest.is_empty());
        }
        for held in profiles.into_values().flatten() {
            endings[held.at] = Ending::Failed(failed::HELD_BACK);
        }
    }

    /// Sends what can never be published to its queue, with its bytes.
    async fn bury(&self, records: &[Record], endings: &mut [Ending], now: u64) {
        let letter = |(at, ending): (usize, &Ending)| {
            let Ending::Dead(reason, detail) = ending else { return None };
            let record = &records[at];
            let bytes = record.value.as_deref().unwrap_or_default();
            let letter = Letter {
                source: record.source.clone(),
                key_base64: None,
                value_base64: BASE64_STANDARD.encode(bytes),
                attempts: 0,
                first_error: None,
                last_error: None,
                redrives: Vec::new(),
            };
            let (reason, detail) = ((*reason).to_owned(), detail.clone());
            Some((at, DeadLetter { reason, detail, events: 0, dead_at: now, letter }))
        };
        let (dead, letters): (Vec<usize>, Vec<DeadLetter>) = endings.iter().enumerate().filter_map(letter).unzip();
        if letters.is_empty() {
            return;
        }
        for letter in &letters {
            tracing::error!(reason = letter.reason, detail = letter.detail, "a change cannot be published");
        }
        for (at, result) in dead.into_iter().zip(self.failed.put(letters).await) {
            if let Err(error) = result {
                tracing::warn!(%error, "the queue did not take a change; it is delivered again");
                endings[at] = Ending::Failed(failed::QUEUE_UNAVAILABLE);
            }
        }
    }
}

/// Lambda delivers everything again from the first failure on, so what can never be published and
/// comes after it is buried when it comes again, once.
fn hold_back(endings: &mut [Ending]) {
    let after_failure = endings.iter_mut().skip_while(|ending| !matches!(ending, Ending::Failed(_)));
    for ending in after_failure.filter(|ending| matches!(ending, Ending::Dead(..))) {
        *ending = Ending::Failed(failed::HELD_BACK);
    }
}

fn count(metrics: &Metrics, endings: &[Ending]) {
    for ending in endings {
        let metric = match ending {
            Ending::Silent => continue,
            Ending::Published => Metric::ChangesPublished,
            Ending::Failed(cause) => Metric::ChangesFailed(cause),
            Ending::Dead(reason, _) => Metric::ChangesDead(reason),
        };
        metrics.add(Metric::ChangesReceived, 1);
        metrics.add(metric, 1);
    }
}
