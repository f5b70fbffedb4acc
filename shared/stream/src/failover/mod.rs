//! A primary log and, if there is one, a standby: each record goes to the one that can take it.
//!
//! While the circuit to the primary is closed, records go to the primary, and those that it does not acknowledge in
//! time go to the standby. While it is open, they go to the standby at once, and those that the standby does not
//! take go to the primary as a last resort; a request now and then is also appended to the primary, to see how it is.
//! Whichever log acknowledges a record first, it is durable. A record may so be on both, and more than once: readers
//! must bear duplicates, and [`Fate::copies`] says how many there may be.
//!
//! It must not look inside a record, and must not rely on anything that happens between two appends: an environment
//! may be frozen as soon as it has answered.

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

use crate::log::{Ack, AppendError, Attempt, DurableLog, LogRecord, Settled};
use circuit::{Circuit, Route, Ticket, Transition, Verdict};

pub use circuit::{CircuitPolicy, CircuitState};

/// One of the two logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The log that is used while it is well.
    Primary,
    /// The log that is used while the primary is not.
    Standby,
}

/// How long things may take, and when the circuit opens.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// How long one log is waited for before the other is asked too. Default: 2.5 s.
    pub patience: Duration,
    /// How long an append may take in all. Default: 7 s.
    pub total: Duration,
    /// How much longer than it needs an append that carries a probe waits for it: otherwise an environment that is
    /// frozen after each answer would never see a probe end. Default: 0.5 s.
    pub grace: Duration,
    /// When the circuit opens and how it comes back.
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

/// What became of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fate {
    /// The log that acknowledged it first, or the last reason why none did.
    pub result: Result<Role, AppendError>,
    /// How many copies of it there may be on both logs together, the acknowledged one included.
    pub copies: u32,
}

/// What became of an append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// One a record, in their order.
    pub fates: Vec<Fate>,
    /// How often the circuit opened since the append before.
    pub opened: u32,
    /// How often it closed.
    pub closed: u32,
}

/// A primary and perhaps a standby. Clones share one circuit; keep one per process.
pub struct Failover<L> {
    inner: Arc<Inner<L>>,
}

struct Inner<L> {
    primary: L,
    standby: Option<L>,
    policy: Policy,
    watched: Mutex<Watched>,
}

/// The circuit, and what was not yet told of it.
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
    /// Appends go to `primary`, and to `standby` when it is there and the primary is not well.
    #[must_use]
    pub fn new(primary: L, standby: Option<L>, policy: Policy) -> Self {
        let watched = Watched { circuit: Circuit::new(policy.circuit.clone()), opened: 0, closed: 0 };
        Self { inner: Arc::new(Inner { primary, standby, policy, watched: Mutex::new(watched) }) }
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

    /// Whether appends go to the primary now.
    #[must_use]
    pub fn state(&self) -> CircuitState {
        self.inner.watched().circuit.state()
    }

    /// Appends the records and says of each whether and where it is durable, within the policy's `total` and `grace`. An
    /// operator who chooses a standby that there is none of chooses nothing.
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

    /// To the standby, and at the same time to the primary, in the background: a probe that takes longer than the
    /// standby is not waited for beyond the grace.
    async fn with_probe(&self, standby: &L, ticket: Ticket, fates: &mut Fates<'_>) {
        let deadline = Instant::now() + self.inner.policy.total;
        let (told, mut heard) = mpsc::unbounded_channel();
        let (log, records) = (self.clone(), fates.records.to_vec());
        let probe = tokio::spawn(async move { log.inner.probe(ticket, &records, told).await });
        fates.offer_all(Role::Primary, &self.inner.primary);
        fates.offer_all(Role::Standby, standby);
        let taken = pin!(standby.append_each(fates.records).map(of(Role::Standby)));
        let probed = stream::poll_fn(|context| heard.poll_recv(context)).map(of(Role::Primary));
        fates.follow(stream::select(taken, probed), deadline).await;
        if timeout_at((Instant::now() + self.inner.policy.grace).min(deadline), probe).await.is_err() {
            tracing::debug!("a probe of the primary log goes on in the background");
        }
        while let Ok((index, result)) = heard.try_recv() {
            fates.settle(Role::Primary, index, result);
        }
    }
}

impl<L: DurableLog> Inner<L> {
    async fn only(&self, role: Role, log: &L, fates: &mut Fates<'_>) {
        fates.offer_all(role, log);
        let settled = pin!(log.append_each(fates.records).map(of(role)));
        fates.follow(settled, Instant::now() + self.policy.total).await;
    }

    async fn primary_first(&self, standby: &L, ticket: Ticket, fates: &mut Fates<'_>) {
        let began = Instant::now();
        fates.offer_all(Role::Primary, &self.primary);
        let mut first = pin!(self.primary.append_each(fates.records).map(of(Role::Primary)).fuse());
        fates.follow(&mut first, began + self.policy.patience).await;
        self.report(ticket, fates);
        let left = fates.left();
        if left.is_empty() {
            return;
        }
        tracing::warn!(
            records = left.len(),
            error = %fates.failure(),
            "not acknowledged by the primary log: offered to the standby"
        );
        let deadline = began + self.policy.total;
        fates.go_on(first, Role::Standby, standby, &left, deadline).await;
    }

    async fn standby_first(&self, standby: &L, ticket: Ticket, fates: &mut Fates<'_>) {
        let began = Instant::now();
        fates.offer_all(Role::Standby, standby);
        let mut first = pin!(standby.append_each(fates.records).map(of(Role::Standby)).fuse());
        fates.follow(&mut first, began + self.policy.patience).await;
        let left = fates.left();
        if left.is_empty() {
            return;
        }
        tracing::warn!(
            records = left.len(),
            error = %fates.failure(),
            "not acknowledged by the standby log: offered to the primary as a last resort"
        );
        fates.go_on(first, Role::Primary, &self.primary, &left, began + self.policy.total).await;
        // What a late answer of the standby cut short says nothing of the primary.
        if fates.primary.is_answered() || !fates.are_all_durable() {
            self.report(ticket, fates);
        }
    }

    /// Appends to the primary in addition, tells what it hears, and reports.
    async fn probe(&self, ticket: Ticket, records: &[LogRecord], told: mpsc::UnboundedSender<Settled>) {
        let mut fates = Fates::new(records);
        fates.offer_all(Role::Primary, &self.primary);
        // The append may have been answered, so that nobody listens any more.
        let settled = self.primary.append_each(records).inspect(|settled| drop(told.send(settled.clone())));
        let settled = pin!(settled.map(of(Role::Primary)));
        fates.follow(settled, Instant::now() + self.policy.patience).await;
        self.report(ticket, &fates);
    }

    /// Tells the circuit what the primary made of the records.
    fn report(&self, ticket: Ticket, fates: &Fates<'_>) {
        let mut watched = self.watched();
        let (now, spread) = (Instant::now().into_std(), rand::random());
        let transition = watched.circuit.report(now, spread, ticket, fates.primary.verdict());
        let Some(Transition { from, to, reason }) = transition else {
            return;
        };
        watched.opened += u32::from(from == CircuitState::Closed);
        watched.closed += u32::from(to == CircuitState::Closed);
        drop(watched);
        if reason.is_failure() {
            tracing::warn!(%from, %to, %reason, error = %fates.failure(), "circuit to the primary log");
        } else {
            tracing::warn!(%from, %to, %reason, "circuit to the primary log");
        }
    }

    fn watched(&self) -> MutexGuard<'_, Watched> {
        // A panic elsewhere leaves a whole circuit behind.
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says which log it was that settled a record.
fn of(role: Role) -> impl FnMut(Settled) -> (Role, Settled) {
    move |settled| (role, settled)
}

/// What is known of the records of an append while it goes on.
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

/// What a log was asked and answered.
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

    /// One record that is not acknowledged, for a reason that lies with the log, is a failure of the log.
    fn verdict(&self) -> Verdict {
        if self.failed > 0 || !self.is_answered() {
            Verdict::Failed
        } else if self.acknowledged > 0 {
            Verdict::Good
        } else {
            Verdict::Neither
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

    /// Takes note that a log is asked. Until it answers, the record may be there in as many copies as it can be.
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

    /// Takes note of what the logs answer, until there is nothing more to hear, all is durable or time is up.
    async fn follow(&mut self, mut settled: impl Stream<Item = (Role, Settled)> + Unpin, deadline: Instant) {
        let all = async {
            while let Some((role, (index, result))) = settled.next().await {
                self.settle(role, index, result);
                if self.are_all_durable() {
                    break;
                }
            }
        };
        // What was not heard in time stays open.
        drop(timeout_at(deadline, all).await);
    }

    /// Offers the records that are left to the second log, and goes on listening to the first.
    async fn go_on(
        &mut self,
        first: impl Stream<Item = (Role, Settled)> + Unpin,
        role: Role,
        second: &impl DurableLog,
        left: &[usize],
        deadline: Instant,
    ) {
        let records: Vec<LogRecord> = left.iter().map(|&index| self.records[index].clone()).collect();
        self.offer(role, second, left.iter().copied());
        let settled = second.append_each(&records).map(|(index, result)| (role, (left[index], result)));
        self.follow(stream::select(pin!(settled), first), deadline).await;
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

    /// The records that no log has acknowledged and that another one may take.
    fn left(&self) -> Vec<usize> {
        let is_left =
            |known: &Known| known.durable_on.is_none() && !matches!(known.error, Some(AppendError::TooLarge(_)));
        self.known.iter().enumerate().filter(|(_, known)| is_left(known)).map(|(index, _)| index).collect()
    }

    /// Why a record was not acknowledged, for the log.
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
