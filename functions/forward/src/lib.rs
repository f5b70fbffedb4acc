//! Brings the events of other regions' sessions to the regions that fold them: the router behind local publishing.
//!
//! `ingest` appends what is not folded here to a log of this region, `playback-remote`, so that no device waits for an ocean. `forward` reads it,
//! groups the records by the region that folds them, packs many envelopes into few messages, and sends these to that region's queue `inbound`,
//! where `process` takes them. An envelope is passed on as the bytes that it is, with this region as one more hop.
//!
//! A region that does not answer stops nothing but its own records: they are named in the answer and stay on this region's log, whose lag grows. Each region
//! has its own partitions (see `stream::Lane`), so that these hold up no other's. What cannot be read is dead-lettered here. It must not look into events, and
//! must not decide where a session belongs: that is `playback::routing`'s.
//!
//! Nothing can go round: what `process` takes, it folds. A record that has been through this region before, by whatever way it came back, is folded here.

mod config;
mod pack;
mod queues;
pub mod testing;

pub use config::Config;
pub use pack::{MAX_PACKED_BYTES, Message, pack};
pub use queues::{Inbound, InboundError, RegionQueues};

use apply::{DeadLetter, History, LetterQueue, Unbalanced, Unit, count, is_flood};
use bytes::Bytes;
use lambda::batch::{Batch, BatchAnswer, Record, Source, answer};
use lambda::metrics::{Metric, Metrics};
use lambda::routing::Routing;
use lambda::runtime::ServeBatch;
use playback::envelope::{Head, Poison, with_hop};
use playback::outcome::{Cause, Outcome, Reason};
use playback::routing::{Region, Routes};
use std::collections::BTreeMap;
use std::time::Instant;
use store::Usage;
use stream::queue::calls;

/// Regions that an envelope may have been through. It is at one when all is well.
const MAX_HOPS: usize = 4;

/// What `forward` works with.
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

/// What a record is, as far as sending it on goes.
type Content = Result<Head, Poison>;

impl<Q: Inbound, D: LetterQueue<DeadLetter>> ServeBatch for Forward<Q, D> {
    type Error = Unbalanced;

    async fn serve(&self, metrics: &Metrics, batch: Batch, now: u64) -> Result<BatchAnswer, Unbalanced> {
        let routes = self.routing.routes(metrics, Instant::now()).await;
        let (units, contents): (Vec<Unit>, Vec<Content>) = batch.records.into_iter().map(read).unzip();
        // Failed, until a queue says that it has it.
        let mut outcomes = vec![Outcome::Failed(Cause::RegionUnavailable); units.len()];
        let mut by_region: BTreeMap<&str, (&Region, Envelopes)> = BTreeMap::new();
        let mut poison = Vec::new();
        for (at, (unit, content)) in units.iter().zip(contents).enumerate() {
            match content {
                Ok(head) => {
                    let region = target(&head, &routes);
                    let envelope = with_hop(&unit.bytes, &routes.regions().here().name);
                    by_region.entry(&region.name).or_insert_with(|| (region, Vec::new())).1.push((at, envelope));
                }
                Err(fault) => poison.push((at, fault)),
            }
        }
        let sending = by_region.into_values().map(|(region, envelopes)| self.send(region, envelopes, &units, metrics));
        let (sent, buried) = tokio::join!(futures::future::join_all(sending), self.bury(poison, &units, now));
        for (at, outcome) in sent.into_iter().flatten().chain(buried) {
            if let Some(slot) = outcomes.get_mut(at) {
                *slot = outcome;
            }
        }
        count(metrics, &units, &outcomes, Usage::default())?;
        let failed = units.iter().zip(&outcomes).filter(|(_, outcome)| !outcome.is_durable());
        Ok(answer(failed.map(|(unit, _)| &unit.source).collect::<Vec<&Source>>()))
    }
}

impl<Q: Inbound, D: LetterQueue<DeadLetter>> Forward<Q, D> {
    /// Sends envelopes to a region's queue, and says what became of the records that they were.
    async fn send(
        &self,
        region: &Region,
        envelopes: Envelopes,
        units: &[Unit],
        metrics: &Metrics,
    ) -> Vec<(usize, Outcome)> {
        let messages = pack(envelopes);
        let (bodies, holds): (Vec<String>, Vec<Vec<usize>>) =
            messages.into_iter().map(|message| (message.body, message.holds)).unzip();
        metrics.add(Metric::ForwardRequests, calls(&bodies) as u64);
        metrics.add(Metric::ForwardBytes, bodies.iter().map(|body| body.len() as u64).sum());
        let results = self.inbound.send(region, bodies).await;
        let mut outcomes = Vec::new();
        for (holds, result) in holds.into_iter().zip(results) {
            let records = holds.len();
            let held = holds.into_iter().filter_map(|at| Some((at, units.get(at)?)));
            match result {
                Ok(()) => outcomes.extend(held.map(|(at, unit)| (at, Outcome::Forwarded { events: unit.events }))),
                Err(error) => {
                    tracing::warn!(region = region.name, records, %error, "a region did not take records; they stay on the log");
                    if error.may_have_arrived() {
                        held.filter(|(_, unit)| !unit.shadow).for_each(|(_, unit)| unclaimed(metrics, unit));
                    }
                }
            }
        }
        outcomes
    }

    /// Dead-letters what cannot be read, unless it is most of the batch, which then waits: the fault may be ours.
    async fn bury(&self, poison: Vec<(usize, Poison)>, units: &[Unit], now: u64) -> Vec<(usize, Outcome)> {
        if is_flood(poison.len(), units.len()) {
            tracing::error!(
                poison = poison.len(),
                of = units.len(),
                "most of a batch cannot be read: that is not diverted"
            );
            return poison.into_iter().map(|(at, _)| (at, Outcome::Failed(Cause::HeldBack))).collect();
        }
        let mut dying = Vec::with_capacity(poison.len());
        let mut letters = Vec::with_capacity(poison.len());
        for (at, fault) in poison {
            if let Some(unit) = units.get(at) {
                dying.push((at, fault.reason, unit));
                letters.push(unit.dead(fault.reason, fault.detail, now));
            }
        }
        if letters.is_empty() {
            return Vec::new();
        }
        let results = self.dead_letters.put(letters).await;
        let one = |((at, reason, unit), result): ((usize, Reason, &Unit), Result<(), D::Error>)| match result {
            Ok(()) => {
                tracing::error!(source = ?unit.source, reason = reason.as_str(), "dead-lettered a record");
                (at, Outcome::Dead { reason, events: unit.events })
            }
            Err(error) => {
                tracing::error!(source = ?unit.source, %error, "the dead-letter queue did not take a record; it comes again");
                (at, Outcome::Failed(Cause::DeadLetterUnavailable))
            }
        };
        dying.into_iter().zip(results).map(one).collect()
    }
}

/// A record as a unit, and what it says of where it goes.
fn read(record: Record) -> (Unit, Content) {
    let Record { source, key, value, .. } = record;
    let (bytes, content) = match value {
        Ok(bytes) => (bytes.clone(), Head::peek(bytes)),
        Err(bad) => {
            let reason = Reason::NotAnEnvelope;
            let fault = Poison { reason, detail: bad.to_string(), events: 0, received_at: None };
            (Bytes::copy_from_slice(bad.original()), Err(fault))
        }
    };
    let (events, received_at, shadow) = match &content {
        Ok(head) => (head.events, head.received_at, head.shadow),
        Err(fault) => (fault.events, fault.received_at, false),
    };
    (Unit { source, key, bytes, events, received_at, arrived: false, shadow, history: History::default() }, content)
}

/// The region that folds it; this one, when it has been here before or about for too long.
fn target<'a>(head: &Head, routes: &'a Routes) -> &'a Region {
    let here = routes.regions().here();
    if head.hops.len() >= MAX_HOPS || head.hops.contains(&here.name) {
        tracing::error!(hops = ?head.hops, "a record goes round: it is folded here");
        return here;
    }
    routes.target(&head.session_id.home)
}

/// It may be on a queue once more than it was accepted.
fn unclaimed(metrics: &Metrics, unit: &Unit) {
    match unit.received_at {
        Some(received_at) => metrics.add_at(received_at, Metric::EventsUnclaimed, unit.events),
        None => metrics.add(Metric::EventsUnclaimed, unit.events),
    }
}
