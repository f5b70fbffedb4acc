//! A primary log and an optional standby: each record goes to the one that can take it.
//!
//! While the circuit to the primary is closed, records go to the primary. Those that it does not
//! acknowledge in time go to the standby. While the circuit is open, records go to the standby
//! immediately, and those that it does not take go to the primary as a last resort. Now and then a
//! request is also appended to the primary, as a probe. As soon as one log acknowledges a record,
//! it is durable. So a record may be on both logs, and more than once. Readers must tolerate
//! duplicates; [`Fate::copies`] is their maximum.
//!
//! It must not look inside a record, nor rely on anything that happens between two appends: an
//! environment may be frozen as soon as it has answered.

mod circuit;
#[cfg(test)]
mod tests;

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::stream::{self, Stream, StreamExt};
use playback::routing::Override;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::log::{Ack, AppendError, Attempt, DurableLog, LogRecord, RecordResult};
use circuit::{Circuit, Route, Signal, Ticket, Transition};

pub use circuit::{CircuitPolicy, CircuitState};

/// One of the two logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The log to use while it is healthy.
    Primary,
    /// The log to use while the primary is not.
    Standby,
}

/// Time limits, and when the circuit opens.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// How long to wait for one log before trying the other. Default: 2.5 s.
    pub patience: Duration,
    /// How long an append may take in total. Default: 7 s.
    pub total: Duration,
    /// How much longer an append with a probe may wait for the probe to end. An environment that is
    /// frozen after each answer would otherwise never see a probe end. Default: 0.5 s.
    pub grace: Duration,
    /// When the circuit opens and how it closes again.
    pub circuit: CircuitPolicy,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            patience: Duration::from_millis(2500),
            total: Duration::from_secs(7),
            grace: Duration::from_millis(500),
            circuit: CircuitPolicy::default(),
        }
    }
}

/// The result of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fate {
    /// The log that acknowledged it first, or the last error.
    pub result: Result<Role, AppendError>,
    /// How many copies may be on both logs together, including the acknowledged one.
    pub copies: u32,
}

/// The result of an append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// One per record, in their order.
    pub fates: Vec<Fate>,
    /// How often the circuit opened since the previous append.
    pub opened: u32,
    /// How often it closed since then.
    pub closed: u32,
}

/// A primary and an optional standby. Clones share one circuit; keep one per process.
pub struct Failover<L> {
    inner: Arc<Inner<L>>,
}

struct Inner<L> {
    primary: L,
    standby: Option<L>,
    policy: Policy,
    watched: Mutex<Watched>,
    /// A random number in `0..1`.
    random: fn() -> f64,
}

/// The circuit, and its changes that no append has reported yet.
struct Watched {
    circuit: Circuit,
    opened: u32,
    closed: u32,
}

impl<L> Clone for Failover<L> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<L: DurableLog + 'static> Failover<L> {
    /// Appends go to `primary`, or to `standby` (if any) while the primary is unhealthy.
    #[must_use]
    pub fn new(primary: L, standby: Option<L>, policy: Policy) -> Self {
        Self::with_random(primary, standby, policy, rand::random)
    }

    /// As [`Failover::new`], with another source of random numbers in `0..1`, for simulations.
    #[must_use]
    pub fn with_random(primary: L, standby: Option<L>, policy: Policy, random: fn() -> f64) -> Self {
        let watched = Watched { circuit: Circuit::new(policy.circuit.clone()), opened: 0, closed: 0 };
        Self { inner: Arc::new(Inner { primary, standby, policy, watched: Mutex::new(watched), random }) }
    }

    /// The primary log.
    #[must_use]
    pub fn primary(&self) -> &L {
        &self.inner.primary
    }

    /// The standby log.
    #[must_use]
    pub fn standby(&self) -> Option<&L> {
        self.inner.standby.as_ref()
    }

    /// The state of the circuit.
    #[must_use]
    pub fn state(&self) -> CircuitState {
        self.inner.watched().circuit.state()
    }

    /// Appends the records and returns for each whether and where it is durable, within the
    /// policy's `total` and `grace`. An operator's choice of the standby has no effect if there is
    /// none.
    pub async fn append(&self, records: &[LogRecord], operator: Override) -> Appended {
        let inner = &*self.inner;
        let mut fates = Fates::new(records);
        match (&inner.standby, operator) {
            _ if records.is_empty() => {}
            (None, _) | (_, Override::Primary) => inner.only(Role::Primary, &inner.primary, &mut fates).await,
            (Some(standby), Override::Standby) => inner.only(Role::Standby, standby, &mut fates).await,
            (Some(standby), Override::Auto) => {
                let route = inner.watched().circuit.route(Instant::now().into_std());
                match route {
                    Route::Primary(ticket) => inner.primary_first(standby, ticket, &mut fates).await,
                    Route::Standby { last_resort, probe: None } => {
                        inner.standby_first(standby, last_resort, &mut fates).await;
                    }
                    Route::Standby { probe: Some(probe), .. } => self.with_probe(standby, probe, &mut fates).await,
                }
            }
        }
        let mut watched = inner.watched();
        let (opened, closed) = (std::mem::take(&mut watched.opened), std::mem::take(&mut watched.closed));
        drop(watched);
        Appended { fates: fates.into_results(), opened, closed }
    }

    /// Appends to the standby, and at the same time to the primary in the background. Waits for a
    /// probe that is slower than the standby only within the grace.
    async fn with_probe(&self, standby: &L, ticket: Ticket, fates: &mut Fates<'_>) {
        let deadline = Instant::now() + self.inner.policy.total;
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let (log, records) = (self.clone(), fates.records.to_vec());
        let probe = tokio::spawn(async move { log.inner.probe(ticket, &records, sender).await });
        fates.offer_all(Role::Primary, &self.inner.primary);
        fates.offer_all(Role::Standby, standby);
        let taken = pin!(standby.append_each(fates.records).map(of(Role::Standby)));
        let probed = stream::poll_fn(|context| receiver.poll_recv(context)).map(of(Role::Primary));
        fates.follow(stream::select(taken, probed), deadline).await;
        if timeout_at((Instant::now() + self.inner.policy.grace).min(deadline), probe).await.is_err() {
            tracing::debug!("a probe of the primary log continues in the background");
        }
        while let Ok((index, result)) = receiver.try_recv() {
            fates.settle(Role::Primary, index, result);
        }
    }
}

impl<L: DurableLog> Inner<L> {
    async fn only(&self, role: Role, log: &L, fates: &mut Fates<'_>) {
        fates.offer_all(role, log);
        let results = pin!(log.append_each(fates.records).map(of(role)));
        fates.follow(results, Instant::now() + self.policy.total).await;
    }

    async fn primary_first(&self, standby: &L, ticket: Ticket, fates: &mut Fates<'_>) {
        let began = Instant::now();
        fates.offer_all(Role::Primary, &self.primary);
        let mut first = pin!(self.primary.append_each(fates.records).map(of(Role::Primary)).fuse());
        fates.follow(&mut first, began + self.policy.patience).await;
        self.report(ticket, fates);
        let left = fates.remaining();
        if left.is_empty() {
            return;
        }
        tracing::warn!(
            records = left.len(),
            error = %fates.failure(),
            "the primary log did not acknowledge records: trying the standby"
        );
        let deadline = began + self.policy.total;
        fates.continue_with(first, Role::Standby, standby, &left, deadline).await;
    }

    async fn standby_first(&self, standby: &L, ticket: Ticket, fates: &mut Fates<'_>) {
        let began = Instant::now();
        fates.offer_all(Role::Standby, standby);
        let mut first = pin!(standby.append_each(fates.records).map(of(Role::Standby)).fuse());
        fates.follow(&mut first, began + self.policy.patience).await;
        let left = fates.remaining();
        if left.is_empty() {
            return;
        }
        tracing::warn!(
            records = left.len(),
            error = %fates.failure(),
            "the standby log did not acknowledge records: trying the primary as a last resort"
        );
        fates.continue_with(first, Role::Primary, &self.primary, &left, began + self.policy.total).await;
        // If a late answer of the standby cut this short, it says nothing about the primary.
        if fates.primary.is_answered() || !fates.are_all_durable() {
            self.report(ticket, fates);
        }
    }

    /// Also appends to the primary, passes on each result, and reports to the circuit.
    async fn probe(&self, ticket: Ticket, records: &[LogRecord], sender: mpsc::UnboundedSender<RecordResult>) {
        let mut fates = Fates::new(records);
        fates.offer_all(Role::Primary, &self.primary);
        // The append may have been answered already. Then there is no receiver.
        let results = self.primary.append_each(records).inspect(|result| drop(sender.send(result.clone())));
        let results = pin!(results.map(of(Role::Primary)));
        fates.follow(results, Instant::now() + self.policy.patience).await;
        self.report(ticket, &fates);
    }

    /// Reports to the circuit how the primary answered.
    fn report(&self, ticket: Ticket, fates: &Fates<'_>) {
        let mut watched = self.watched();
        let (now, spread) = (Instant::now().into_std(), (self.random)());
        let transition = watched.circuit.report(now, spread, ticket, fates.primary.signal());
        let Some(Transition { from, to, trigger }) = transition else {
            return;
        };
        watched.opened += u32::from(from == CircuitState::Closed);
        watched.closed += u32::from(to == CircuitState::Closed);
        drop(watched);
        if trigger.is_failure() {
            tracing::warn!(%from, %to, reason = %trigger, error = %fates.failure(), "circuit to the primary log");
        } else {
            tracing::warn!(%from, %to, reason = %trigger, "circuit to the primary log");
        }
    }

    fn watched(&self) -> MutexGuard<'_, Watched> {
        // A panic elsewhere leaves the circuit in a valid state.
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tags each result with its log.
fn of(role: Role) -> impl FnMut(RecordResult) -> (Role, RecordResult) {
    move |result| (role, result)
}

/// What is known about the records of an append in progress.
struct Fates<'a> {
    records: &'a [LogRecord],
    known: Vec<Known>,
    primary: Answers,
    standby: Answers,
}

#[derive(Clone, Default)]
struct Known {
    durable_on: Option<Role>,
    error: Option<AppendError>,
    copies: u32,
}

/// What was sent to a log, and how it answered.
#[derive(Default)]
struct Answers {
    max_copies: u32,
    offered: usize,
    acknowledged: usize,
    failed: usize,
    neither: usize,
}

impl Answers {
    fn is_answered(&self) -> bool {
        self.acknowledged + self.failed + self.neither >= self.offered
    }

    /// One record that the log failed to acknowledge is a failure of the log.
    fn signal(&self) -> Signal {
        if self.failed > 0 || !self.is_answered() {
            Signal::Failed
        } else if self.acknowledged > 0 {
            Signal::Good
        } else {
            Signal::Neither
        }
    }
}

impl<'a> Fates<'a> {
    fn new(records: &'a [LogRecord]) -> Self {
        let known = vec![Known::default(); records.len()];
        Self { records, known, primary: Answers::default(), standby: Answers::default() }
    }

    fn answers(&mut self, role: Role) -> &mut Answers {
        match role {
            Role::Primary => &mut self.primary,
            Role::Standby => &mut self.standby,
        }
    }

    /// Notes that records are being sent to a log. Until it answers, assume its maximum number of
    /// copies.
    fn offer(&mut self, role: Role, log: &impl DurableLog, indexes: impl Iterator<Item = usize>) {
        let max_copies = log.max_copies();
        let mut offered = 0;
        for index in indexes {
            self.known[index].copies += max_copies;
            offered += 1;
        }
        let answers = self.answers(role);
        (answers.max_copies, answers.offered) = (max_copies, offered);
    }

    fn offer_all(&mut self, role: Role, log: &impl DurableLog) {
        self.offer(role, log, 0..self.records.len());
    }

    /// Records the logs' answers until there are no more, all records are durable, or time is up.
    async fn follow(&mut self, mut results: impl Stream<Item = (Role, RecordResult)> + Unpin, deadline: Instant) {
        let all = async {
            while let Some((role, (index, result))) = results.next().await {
                self.settle(role, index, result);
                if self.are_all_durable() {
                    break;
                }
            }
        };
        // Records without an answer in time stay unknown.
        drop(timeout_at(deadline, all).await);
    }

    /// Offers the remaining records to the second log, and keeps following the first.
    async fn continue_with(
        &mut self,
        first: impl Stream<Item = (Role, RecordResult)> + Unpin,
        role: Role,
        second: &impl DurableLog,
        left: &[usize],
        deadline: Instant,
    ) {
        let records: Vec<LogRecord> = left.iter().map(|&index| self.records[index].clone()).collect();
        self.offer(role, second, left.iter().copied());
        let results = second.append_each(&records).map(|(index, result)| (role, (left[index], result)));
        self.follow(stream::select(pin!(results), first), deadline).await;
    }

    fn settle(&mut self, role: Role, index: usize, result: Result<Ack, AppendError>) {
        let answers = self.answers(role);
        let max_copies = answers.max_copies;
        let copies = match &result {
            Ok(ack) => {
                answers.acknowledged += 1;
                ack.copies
            }
            Err(error) => {
                match error {
                    AppendError::Unavailable(_) | AppendError::Denied(_) => answers.failed += 1,
                    AppendError::Throttled(_) | AppendError::TooLarge(_) => answers.neither += 1,
                }
                error.attempt().copies
            }
        };
        let known = &mut self.known[index];
        known.copies = known.copies.saturating_sub(max_copies) + copies;
        match result {
            Ok(_) => known.durable_on = known.durable_on.or(Some(role)),
            Err(error) => known.error = Some(error),
        }
    }

    fn are_all_durable(&self) -> bool {
        self.known.iter().all(|known| known.durable_on.is_some())
    }

    /// The records that no log has acknowledged and another log may take.
    fn remaining(&self) -> Vec<usize> {
        let is_left =
            |known: &Known| known.durable_on.is_none() && !matches!(known.error, Some(AppendError::TooLarge(_)));
        self.known.iter().enumerate().filter(|(_, known)| is_left(known)).map(|(index, _)| index).collect()
    }

    /// Why records were not acknowledged, as a log text.
    fn failure(&self) -> String {
        let errors = || self.known.iter().filter_map(|known| known.error.as_ref());
        let outage = errors().find(|error| matches!(error, AppendError::Unavailable(_) | AppendError::Denied(_)));
        outage.or_else(|| errors().next()).map_or_else(|| "no answer in time".to_owned(), AppendError::to_string)
    }

    fn into_results(self) -> Vec<Fate> {
        let unanswered =
            |record| AppendError::Unavailable(Attempt::new("log", record, "NoAnswer", "not acknowledged in time"));
        let fate = |(known, record): (Known, _)| Fate {
            result: known.durable_on.ok_or_else(|| known.error.unwrap_or_else(|| unanswered(record))),
            copies: known.copies,
        };
        self.known.into_iter().zip(self.records).map(fate).collect()
    }
}
