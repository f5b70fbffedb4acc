//! An in-memory log for the tests of callers. It records effects in order and refuses what a test
//! tells it to.
//!
//! A test can add its own steps to the same list ([`RecordingLog::note`]). Then "durable before
//! acknowledged" is an assertion on one list. No function may use it.

use std::sync::{Arc, Mutex, PoisonError};

use futures::stream::{self, Stream, StreamExt};

use crate::log::{Ack, AppendError, DurableLog, LogRecord, RecordResult};

/// One effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The record was acknowledged.
    Appended(LogRecord),
    /// The record was refused with this error.
    Refused(LogRecord, AppendError),
    /// A step the test noted, such as the answer to a request.
    Noted(String),
}

type Choice = dyn Fn(&LogRecord) -> Option<AppendError> + Send + Sync;

/// A [`DurableLog`] that records its calls. Clones share one list of effects.
#[derive(Clone)]
pub struct RecordingLog {
    effects: Arc<Mutex<Vec<Effect>>>,
    refuse: Arc<Choice>,
}

impl RecordingLog {
    /// A log that acknowledges everything.
    #[must_use]
    pub fn new() -> Self {
        Self::refusing(|_| None)
    }

    /// A log that refuses each record for which `refuse` gives an error.
    #[must_use]
    pub fn refusing(refuse: impl Fn(&LogRecord) -> Option<AppendError> + Send + Sync + 'static) -> Self {
        Self { effects: Arc::default(), refuse: Arc::new(refuse) }
    }

    /// Adds a step of the test to the effects.
    pub fn note(&self, what: impl Into<String>) {
        self.push(Effect::Noted(what.into()));
    }

    /// All effects so far, in order.
    #[must_use]
    pub fn effects(&self) -> Vec<Effect> {
        self.effects.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The records that were acknowledged, in order.
    #[must_use]
    pub fn appended(&self) -> Vec<LogRecord> {
        self.effects()
            .into_iter()
            .filter_map(|effect| match effect {
                Effect::Appended(record) => Some(record),
                Effect::Refused(..) | Effect::Noted(_) => None,
            })
            .collect()
    }

    fn push(&self, effect: Effect) {
        self.effects.lock().unwrap_or_else(PoisonError::into_inner).push(effect);
    }
}

impl Default for RecordingLog {
    fn default() -> Self {
        Self::new()
    }
}

impl DurableLog for RecordingLog {
    fn append_each<'a>(&'a self, records: &'a [LogRecord]) -> impl Stream<Item = RecordResult> + Send + 'a {
        stream::iter(records.iter().cloned().enumerate()).map(|(index, record)| match (self.refuse)(&record) {
            None => {
                self.push(Effect::Appended(record));
                (index, Ok(Ack::ONCE))
            }
            Some(error) => {
                self.push(Effect::Refused(record, error.clone()));
                (index, Err(error))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Attempt;

    fn record(key: &str) -> LogRecord {
        LogRecord::new(key, bytes::Bytes::from_static(b"v"))
    }

    #[tokio::test]
    async fn chosen_records_are_refused_and_effects_keep_their_order() {
        let full = |record: &LogRecord| AppendError::Throttled(Attempt::new("t", record, "QueueFull", "full"));
        let log = RecordingLog::refusing(move |record| (record.key == "b").then(|| full(record)));
        let results = log.append(&[record("a"), record("b"), record("c")]).await;
        log.note("answered");
        assert_eq!(results, [Ok(Ack::ONCE), Err(full(&record("b"))), Ok(Ack::ONCE)]);
        assert_eq!(
            log.effects(),
            [
                Effect::Appended(record("a")),
                Effect::Refused(record("b"), full(&record("b"))),
                Effect::Appended(record("c")),
                Effect::Noted("answered".to_owned()),
            ]
        );
        assert_eq!(log.appended(), [record("a"), record("c")]);
    }
}
