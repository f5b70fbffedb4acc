//! The one way onto the logs, for live events and for shadows.
//!
//! Each session's events become one record, for the local log or for the remote one. Both logs are
//! appended to at once.
//!
//! What a failed append means is for the caller to decide: a live request becomes a `503`, a shadow
//! is counted as missed.

use crate::Ingest;
use lambda::metrics::{Metric, Metrics};
use playback::edge::EdgeEvent;
use playback::envelope::{Envelope, Stamp, group};
use playback::routing::{Override, Routes};
use stream::{DurableLog, Failover, Fate, Lane, LogRecord, Role};

/// A request's records, ready to append. It owns all it needs, so a shadow's append can outlive its
/// request.
pub(crate) struct Append<L> {
    local: Load<L>,
    /// For sessions of other regions, if the deployment has any.
    remote: Option<Load<L>>,
    operator: Override,
}

/// The records for one log, and how many events each holds.
struct Load<L> {
    log: Failover<L>,
    records: Vec<LogRecord>,
    sizes: Vec<u64>,
}

/// What happened to each record, with its number of events, and to the circuits.
#[derive(Default)]
pub(crate) struct AppendSummary {
    fates: Vec<(Fate, u64)>,
    circuits_opened: u32,
    circuits_closed: u32,
}

impl<L: DurableLog + 'static> Append<L> {
    /// Encodes the events and picks the log and the lane of each session.
    pub(crate) fn new(ingest: &Ingest<L>, events: Vec<EdgeEvent>, stamp: &Stamp, routes: &Routes) -> Self {
        let (local, remote) = (Load::to(&ingest.local), ingest.remote.as_ref().map(Load::to));
        let mut append = Self { local, remote, operator: routes.log() };
        for envelope in group(events, stamp) {
            append.load(&envelope, routes);
        }
        append
    }

    fn load(&mut self, envelope: &Envelope, routes: &Routes) {
        let target = routes.target(&envelope.session_id.home);
        let record = LogRecord::new(envelope.session_id.to_string(), envelope.encode());
        match &mut self.remote {
            Some(remote) if target != routes.regions().here() => {
                let (index, of) = routes.lane(target);
                remote.add(LogRecord { lane: Lane::new(index as u16, of as u16), ..record }, envelope);
            }
            _ => self.local.add(record, envelope),
        }
    }

    /// How many events its records hold.
    pub(crate) fn events(&self) -> u64 {
        std::iter::once(&self.local).chain(&self.remote).flat_map(|load| &load.sizes).sum()
    }

    /// Appends to both logs and waits for every record's fate.
    pub(crate) async fn run(self) -> AppendSummary {
        let Self { local, remote, operator } = self;
        let append_remote = async {
            match remote {
                Some(remote) => remote.append(operator).await,
                None => AppendSummary::default(),
            }
        };
        let (mut here, elsewhere) = tokio::join!(local.append(operator), append_remote);
        here.fates.extend(elsewhere.fates);
        here.circuits_opened += elsewhere.circuits_opened;
        here.circuits_closed += elsewhere.circuits_closed;
        here
    }
}

impl<L: DurableLog + 'static> Load<L> {
    fn to(log: &Failover<L>) -> Self {
        Self { log: log.clone(), records: Vec::new(), sizes: Vec::new() }
    }

    fn add(&mut self, record: LogRecord, envelope: &Envelope) {
        self.records.push(record);
        self.sizes.push(envelope.events.len() as u64);
    }

    async fn append(self, operator: Override) -> AppendSummary {
        let stream::Appended { fates, opened, closed } = self.log.append(&self.records, operator).await;
        let fates = fates.into_iter().zip(self.sizes).collect();
        AppendSummary { fates, circuits_opened: opened, circuits_closed: closed }
    }
}

impl AppendSummary {
    /// Whether a log acknowledged every record.
    pub(crate) fn is_durable(&self) -> bool {
        self.fates.iter().all(|(fate, _)| fate.result.is_ok())
    }

    /// Events of records that a log acknowledged, and events of the others.
    pub(crate) fn durable_and_failed_events(&self) -> (u64, u64) {
        self.fates.iter().fold((0, 0), |(durable, failed), (fate, events)| match fate.result {
            Ok(_) => (durable + events, failed),
            Err(_) => (durable, failed + events),
        })
    }

    /// Counts a live append and logs its errors. A shadow is not counted here: it is not in the
    /// books.
    pub(crate) fn report(&self, metrics: &Metrics) {
        let on = |role| self.fates.iter().filter(|(fate, _)| fate.result == Ok(role)).count() as u64;
        let (on_primary, on_standby) = (on(Role::Primary), on(Role::Standby));
        metrics.add(Metric::CircuitOpened, self.circuits_opened.into());
        metrics.add(Metric::CircuitClosed, self.circuits_closed.into());
        metrics.add(Metric::RecordsAppended, on_primary + on_standby);
        metrics.add(Metric::RecordsOnStandby, on_standby);
        metrics.add(Metric::AppendErrors, self.fates.len() as u64 - on_primary - on_standby);
        metrics.add(Metric::EventsUnclaimed, self.unclaimed());
        for error in self.fates.iter().filter_map(|(fate, _)| fate.result.as_ref().err()) {
            tracing::error!(%error, reason = error.reason(), "no log accepted a record");
        }
    }

    /// Copies of events that may be on a log without being accepted: a `202` accepts one copy of
    /// each event, a `503` none.
    fn unclaimed(&self) -> u64 {
        let accepted = u32::from(self.is_durable());
        self.fates.iter().map(|(fate, events)| u64::from(fate.copies.saturating_sub(accepted)) * events).sum()
    }
}
