//! Brings events of other regions' sessions to the regions that fold them: the router behind local
//! publishing.
//!
//! `ingest` appends events that are not folded here to a log of this region, `playback-remote`, so
//! no device waits for a round trip across an ocean. `forward` reads that log, groups the records
//! by the region that folds them, packs many envelopes into few messages and sends them to that
//! region's queue `inbound`, where `process` takes them. The bytes of an envelope are passed on
//! unchanged, with this region as one more hop.
//!
//! A region that does not answer stops only its own records: they are named in the answer and stay
//! on this region's log, whose lag grows. Each region has its own partitions (see `stream::Lane`),
//! so one never holds up another. Records that cannot be read are dead-lettered here. `forward`
//! must not look into events, and must not decide where a session belongs: `playback::routing`
//! does.
//!
//! Records cannot go round in circles: `process` folds all that it takes, and a record that was in
//! this region before, however it came back, is folded here.

mod config;
mod pack;
mod queues;
pub mod testing;

pub use config::Config;
pub use pack::{MAX_PACKED_BYTES, Message, pack};
pub use queues::{FIND_FOR, Inbound, InboundError, RegionQueues};

use apply::{
    Books, DeadLetter, Diverted, LetterQueue, Slots, Unbalanced, Unit, divert, is_flood, log_waiting,
    redelivered_together,
};
use bytes::Bytes;
use lambda::batch::{Batch, BatchAnswer, Record, Source, answer};
use lambda::metrics::{Metric, Metrics};
use lambda::routing::Routing;
use lambda::runtime::{Invocation, ServeBatch};
use playback::envelope::{Head, Poison, with_hop};
use playback::outcome::{Cause, Outcome, Reason};
use playback::routing::{Region, Routes};
use queue::calls;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// How many regions an envelope may have passed through. Normally it is one.
const MAX_HOPS: usize = 4;

/// Forwards batches. Its answer names the records that stay on the log.
pub struct Forward<Q, D> {
    /// The queues of all regions.
    pub inbound: Q,
    /// This region's queue `dead-letter`.
    pub dead_letters: D,
    /// Which region folds a session.
    pub routing: Routing,
}

/// Envelopes to send, each with its place in the batch.
type Envelopes = Vec<(usize, Vec<u8>)>;

/// What forwarding needs to know of a record.
type Readable = Result<Head, Poison>;

/// A record that cannot be read, with its place in the batch.
type Unreadable<'a> = (usize, &'a Unit, Poison);

impl<Q: Inbound, D: LetterQueue<DeadLetter>> ServeBatch for Forward<Q, D> {
    type Error = Unbalanced;

    async fn serve(&self, metrics: &Metrics, batch: Batch, invocation: Invocation) -> Result<BatchAnswer, Unbalanced> {
        let now = invocation.now;
        let routes = self.routing.routes(metrics, Instant::now()).await;
        let together = redelivered_together(batch.records.iter().map(|record| &record.source));
        let (units, readables): (Vec<(Unit, Books)>, Vec<Readable>) = batch.records.into_iter().map(read).unzip();
        let mut by_region: BTreeMap<&str, (&Region, Envelopes)> = BTreeMap::new();
        let mut poison: Vec<Unreadable<'_>> = Vec::new();
        for (at, ((unit, _), readable)) in units.iter().zip(readables).enumerate() {
            match readable {
                Ok(head) => {
                    let region = target(&head, &routes);
                    let envelope = with_hop(&unit.bytes, &routes.regions().here().name);
                    by_region.entry(&region.name).or_insert_with(|| (region, Vec::new())).1.push((at, envelope));
                }
                Err(fault) => poison.push((at, unit, fault)),
            }
        }
        let mut outcomes = Slots::new(units.len());
        let sending = by_region.into_values().map(|(region, envelopes)| self.send(region, envelopes, &units, metrics));
        let mut redelivered = BTreeSet::new();
        for (at, outcome) in futures::future::join_all(sending).await.into_iter().flatten() {
            if !outcome.is_durable() {
                redelivered.insert(together[at]);
            }
            outcomes.fill(at, outcome);
        }
        // What is redelivered together with it would be dead-lettered again each time.
        let (held_back, poison) = poison.into_iter().partition(|(at, ..)| redelivered.contains(&together[*at]));
        hold_back(held_back, &mut outcomes);
        let dead = dead_letters(poison, units.len(), now, &mut outcomes);
        divert(&self.dead_letters, dead, &mut outcomes).await;
        let mut failed: Vec<&Source> = Vec::new();
        for ((unit, books), outcome) in units.iter().zip(outcomes.finish()?) {
            books.count(metrics, unit, &outcome);
            if !outcome.is_durable() {
                failed.push(&unit.source);
            }
        }
        Ok(answer(failed))
    }
}

impl<Q: Inbound, D: LetterQueue<DeadLetter>> Forward<Q, D> {
    /// Sends envelopes to a region's queue. Returns the outcome of each.
    async fn send(
        &self,
        region: &Region,
        envelopes: Envelopes,
        units: &[(Unit, Books)],
        metrics: &Metrics,
    ) -> Vec<(usize, Outcome)> {
        let (bodies, holds): (Vec<String>, Vec<Vec<usize>>) =
            pack(envelopes).into_iter().map(|message| (message.body, message.holds)).unzip();
        metrics.add(Metric::ForwardRequests, calls(&bodies) as u64);
        metrics.add(Metric::ForwardBytes, bodies.iter().map(|body| body.len() as u64).sum());
        let results = self.inbound.send(region, bodies).await;
        let mut outcomes = Vec::new();
        for (holds, result) in holds.into_iter().zip(results) {
            if let Err(error) = &result {
                let (region, records) = (&region.name, holds.len());
                tracing::warn!(region, records, %error, "a region did not take records; they stay on the log");
                log_waiting(holds.iter().map(|at| &units[*at].0));
            }
            for at in holds {
                let (unit, books) = &units[at];
                let outcome = match &result {
                    Ok(()) => {
                        let (source, region) = (&unit.source, &region.name);
                        tracing::debug!(?source, trace_id = unit.trace_id(), region, "forwarded a record");
                        Outcome::Forwarded { events: unit.events }
                    }
                    Err(error) => {
                        if error.may_have_arrived() {
                            books.count_unclaimed(metrics, unit);
                        }
                        Outcome::Redeliver(Cause::RegionUnavailable)
                    }
                };
                outcomes.push((at, outcome));
            }
        }
        outcomes
    }
}

/// The dead letters of records that cannot be read. If they are most of the batch, the fault may be
/// ours: they are redelivered.
fn dead_letters<'a>(
    poison: Vec<Unreadable<'a>>,
    of: usize,
    now: u64,
    outcomes: &mut Slots<Outcome>,
) -> Vec<Diverted<'a, DeadLetter>> {
    if is_flood(poison.len(), of) {
        tracing::error!(poison = poison.len(), of, "most of a batch cannot be read: it is not diverted");
        hold_back(poison, outcomes);
        return Vec::new();
    }
    let dead = poison.into_iter().map(|(at, unit, Poison { reason, detail, .. })| {
        let outcome = Outcome::DeadLetter { reason, events: unit.events };
        Diverted { at, unit, letter: unit.dead_letter(reason, detail, now), outcome }
    });
    dead.collect()
}

fn hold_back(poison: Vec<Unreadable<'_>>, outcomes: &mut Slots<Outcome>) {
    poison.iter().for_each(|(at, ..)| outcomes.fill(*at, Outcome::Redeliver(Cause::HeldBack)));
}

/// A record as a unit, its books, and what forwarding needs to know of it.
fn read(record: Record) -> ((Unit, Books), Readable) {
    let Record { source, key, value, .. } = record;
    let (bytes, readable) = match value {
        Ok(bytes) => (bytes.clone(), Head::peek(bytes)),
        Err(bad) => {
            let reason = Reason::NotAnEnvelope;
            let fault = Poison { reason, detail: bad.to_string(), events: 0, received_at: None };
            (Bytes::copy_from_slice(bad.original()), Err(fault))
        }
    };
    let (events, received_at, books) = match &readable {
        Ok(head) if head.shadow => (head.events, head.received_at, Books::Shadow),
        Ok(head) => (head.events, head.received_at, Books::Live),
        Err(fault) => (fault.events, fault.received_at, Books::Live),
    };
    ((Unit::new(source, key, bytes, events, received_at), books), readable)
}

/// The region that folds a record; this one, if the record was here before or has been through too
/// many regions.
fn target<'a>(head: &Head, routes: &'a Routes) -> &'a Region {
    let here = routes.regions().here();
    if head.hops.len() >= MAX_HOPS || head.hops.contains(&here.name) {
        tracing::error!(hops = ?head.hops, "a record is going round in circles: it is folded here");
        return here;
    }
    routes.target(&head.session_id.home)
}
