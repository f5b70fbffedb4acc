//! The hot paths: what each event or record goes through, by the public functions that the Lambda
//! functions call, without I/O.
//!
//! A path is a function of its own that is never inlined, so a profile shows it by name. Its input
//! is built outside of what is counted. What it makes is dropped inside.

use crate::input;
use anyhow::{Context, Result, ensure};
use apply::unpack;
use http::StatusCode;
use lambda::batch::Batch;
use lambda::metrics::{Emitter, Metric};
use playback::edge::{BodyText, SessionWindow, parse_request, validate};
use playback::envelope::{Envelope, group};
use playback::fold::fold;
use playback::view::View;
use std::hint::black_box;
use std::ops::Range;

/// A path with its input, ready to run. It returns how many events it handled
/// ([`HotPath::events`]).
type Run = Box<dyn FnOnce() -> Result<u64>>;

/// A path that is counted.
pub(crate) struct HotPath {
    /// Its name in `figures.json`.
    pub(crate) name: &'static str,
    /// How many events it handles; of `batch/parse` records, of `metrics/request` requests.
    pub(crate) events: u64,
    prepare: fn() -> Result<Run>,
}

/// All paths. Players that post often fold about 1.5 events per write, those that wait up to 12
/// (docs/performance.md).
pub(crate) const PATHS: [HotPath; 11] = [
    HotPath { name: "edge/1", events: 1, prepare: || Ok(edge_of(input::body(0, 1..2)?)) },
    HotPath { name: "edge/50", events: 50, prepare: || Ok(edge_of(input::body(0, 0..50)?)) },
    HotPath { name: "edge/500", events: 500, prepare: || Ok(edge_of(input::backlog(0..5, 100)?)) },
    HotPath { name: "batch/parse", events: 500, prepare: parse_of_records },
    HotPath { name: "batch/unpack", events: 750, prepare: unpack_of_records },
    HotPath { name: "fold/1.5", events: 501, prepare: || Ok(fold_of(input::short_posts(334)?, 334)) },
    HotPath { name: "fold/12", events: 504, prepare: || Ok(fold_of(input::long_posts(42)?, 42)) },
    HotPath { name: "view/merge", events: 12, prepare: merge_of_views },
    HotPath { name: "view/pack", events: 200, prepare: pack_of_view },
    HotPath { name: "view/unpack", events: 200, prepare: unpack_of_view },
    HotPath { name: "metrics/request", events: 1, prepare: metrics_of_request },
];

impl HotPath {
    /// The path of this name.
    pub(crate) fn named(name: &str) -> Result<&'static Self> {
        PATHS.iter().find(|path| path.name == name).with_context(|| format!("there is no path {name}"))
    }

    /// Runs the path twice, the second time inside [`counted`]. The first time takes what happens
    /// once per process, such as the allocator's set-up.
    pub(crate) fn run(&self) -> Result<()> {
        let first = (self.prepare)()?()?;
        let second = counted((self.prepare)()?)?;
        ensure!((first, second) == (self.events, self.events), "{}: {first} and {second} events", self.name);
        Ok(())
    }
}

/// Valgrind counts from when this function is entered until it is left.
#[inline(never)]
fn counted(run: Run) -> Result<u64> {
    black_box(run())
}

// ------------------------------------------------------------------------------------------ ingest

fn edge_of(body: String) -> Run {
    Box::new(move || edge(body.as_bytes()))
}

/// What `ingest` does with a body, from bytes to the records of the log.
#[inline(never)]
fn edge(body: &[u8]) -> Result<u64> {
    let body = BodyText::new(body);
    let request = parse_request(&body)?;
    let stamp = input::stamp(request.sent_at);
    let mut events = Vec::new();
    for raw in request.events {
        events.push(validate(raw, stamp.received_at, SessionWindow::default())?.event);
    }
    let envelopes = group(events, &stamp);
    for envelope in &envelopes {
        black_box(envelope.encode());
    }
    Ok(envelopes.iter().map(|envelope| envelope.events.len() as u64).sum())
}

fn metrics_of_request() -> Result<Run> {
    let emitter = Emitter::to("prod", "ingest", |lines| {
        black_box(lines);
    });
    Ok(Box::new(move || Ok(metrics(&emitter))))
}

/// What `ingest` counts and writes for a request that it accepts.
#[inline(never)]
fn metrics(emitter: &Emitter) -> u64 {
    let recorder = emitter.start(input::NOW);
    recorder.add(Metric::RecordsAppended, 1);
    recorder.add(Metric::RecordsOnStandby, 0);
    recorder.add(Metric::AppendErrors, 0);
    recorder.add(Metric::EventsUnclaimed, 0);
    recorder.add(Metric::EventsAccepted, 6);
    recorder.add(Metric::EventsAdjusted, 0);
    recorder.add(Metric::Requests(StatusCode::ACCEPTED), 1);
    recorder.count(Metric::RecordsAppended)
}

// ----------------------------------------------------------------------------------------- process

fn parse_of_records() -> Result<Run> {
    let event = input::msk_event(&input::short_posts(500)?);
    Ok(Box::new(move || parse(event.as_bytes())))
}

/// Reads Lambda's event of 500 records.
#[inline(never)]
fn parse(event: &[u8]) -> Result<u64> {
    Ok(Batch::parse(event)?.records.len() as u64)
}

fn unpack_of_records() -> Result<Run> {
    let batch = Batch::parse(input::msk_event(&input::short_posts(500)?).as_bytes())?;
    Ok(Box::new(move || Ok(unpack_batch(batch))))
}

/// Decodes the envelopes of 500 records. Poison would count as no events.
#[inline(never)]
fn unpack_batch(batch: Batch) -> u64 {
    let units = unpack(batch);
    units.iter().filter_map(|(_, decoded)| Some(decoded.as_ref().ok()?.events.len() as u64)).sum()
}

fn fold_of(envelopes: Vec<Envelope>, views: usize) -> Run {
    Box::new(move || fold_batch(envelopes, views))
}

/// Folds a batch into so many views.
#[inline(never)]
fn fold_batch(envelopes: Vec<Envelope>, views: usize) -> Result<u64> {
    let deltas = fold(envelopes.into_iter().enumerate());
    ensure!(deltas.len() == views, "{} views, not {views}", deltas.len());
    Ok(deltas.iter().map(|delta| delta.events()).sum())
}

/// What these POSTs of one viewing make.
fn view_of(posts: &[Range<u64>]) -> Result<View> {
    let bodies = posts.iter().map(|seqs| input::envelopes(&input::body(0, seqs.clone())?));
    let envelopes = bodies.collect::<Result<Vec<_>>>()?.concat();
    let mut deltas = fold(envelopes.into_iter().enumerate());
    let delta = deltas.pop().filter(|_| deltas.is_empty());
    Ok(delta.context("these are not of one view")?.view)
}

/// A view of 200 events. Three events between its four POSTs never arrived.
fn stored_view() -> Result<View> {
    view_of(&[0..50, 51..101, 102..152, 153..203])
}

fn merge_of_views() -> Result<Run> {
    let (delta, stored) = (view_of(&[203..209, 209..215])?, stored_view()?);
    Ok(Box::new(move || Ok(merge(&delta, &stored))))
}

/// What settling does with a delta when it has read the view.
#[inline(never)]
fn merge(delta: &View, stored: &View) -> u64 {
    let mut merged = delta.clone();
    merged.merge(stored);
    if merged == *stored { 0 } else { merged.events() - stored.events() }
}

fn pack_of_view() -> Result<Run> {
    let view = stored_view()?;
    Ok(Box::new(move || Ok(pack(&view))))
}

/// Packs a view for its item.
#[inline(never)]
fn pack(view: &View) -> u64 {
    black_box(view.pack());
    view.events()
}

fn unpack_of_view() -> Result<Run> {
    let packed = stored_view()?.pack();
    Ok(Box::new(move || unpack_view(&packed)))
}

/// Unpacks the view of an item.
#[inline(never)]
fn unpack_view(packed: &[u8]) -> Result<u64> {
    Ok(View::unpack(packed)?.events())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_handles_the_events_it_says() {
        for path in &PATHS {
            path.run().unwrap();
        }
    }
}
