//! Settling: brings a batch's deltas into the stored views.
//!
//! ```text
//!   read up to 100 views ──▶ merge ──▶ unchanged? ──▶ done, no write
//!        │ not stored         ▲ └──▶ write, 25 a request, each if its version is as read ──▶ done
//!        ▼                    │                                       │ lost the race
//!      erased? ──▶ done       └── what is there ◀─────────────────────┘ (came with the failure)
//! ```
//!
//! Requests are what settling costs, so many views share one. Each still succeeds, loses its race
//! or fails for itself.
//!
//! A crash at any point is harmless: only the views remember what was applied, and merging a delta
//! twice changes nothing.

use crate::erase::Erase;
use crate::patience::Patience;
use crate::table::{Erasure, Fault, READ_AT_ONCE, StoreError, Stored, ViewTable, WRITE_AT_ONCE, Write, WriteError};
use futures::stream::{self, StreamExt};
use playback::contract::MAX_RANGES;
use playback::fold::{Delta, ViewKey};
use playback::outcome::Counts;
use playback::session::SessionId;
use playback::view::{Holes, Sequence, View};
use std::collections::HashMap;
use tokio::time::Instant;

/// Parts of a batch, of [`READ_AT_ONCE`] views each, that are settled at a time. While one is being
/// read, another is written. With the requests of each part below, an environment has at most 32
/// requests under way.
const CONCURRENT_PARTS: usize = 8;

/// Requests of a part under way at a time: its writes, or the reads that count holes.
const CONCURRENT_REQUESTS: usize = 4;

/// Each lost race means that another writer succeeded. This many in a row are a fault, not
/// contention.
const MAX_LOST_RACES: u32 = 32;

/// A delta and its result.
#[derive(Debug)]
pub struct Settled {
    /// The delta.
    pub delta: Delta,
    /// For each record, how many of its events were applied and how many were duplicates, once
    /// stored.
    pub result: Result<Vec<(usize, Counts)>, StoreError>,
}

/// How much settling used the store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Views read, and sessions read to count their holes.
    pub reads: u64,
    /// Conditional writes sent, including those that lost a race.
    pub writes: u64,
    /// Conditional writes that lost a race.
    pub lost_races: u64,
    /// Deltas that failed because the store throttled.
    pub throttles: u64,
    /// The holes that successful writes opened and closed in ended sessions at home here. It misses
    /// writes whose answer was lost, and views that were deleted.
    pub holes: Holes,
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.reads += other.reads;
        self.writes += other.writes;
        self.lost_races += other.lost_races;
        self.throttles += other.throttles;
        self.holes += other.holes;
    }
}

/// Brings every delta into the table. One result per delta: a failure does not stop the others. At
/// the deadline, and as soon as the store seems to be away, what is left fails as unavailable.
pub async fn settle<T: ViewTable>(table: &T, deltas: Vec<Delta>, deadline: Instant) -> (Vec<Settled>, Usage) {
    let patience = &Patience::until(deadline);
    let (mut settled, mut usage) = (Vec::with_capacity(deltas.len()), Usage::default());
    for wave in waves(deltas) {
        let mut parts =
            stream::iter(parts(wave)).map(|part| settle_part(table, part, patience)).buffer_unordered(CONCURRENT_PARTS);
        while let Some((of_part, own)) = parts.next().await {
            settled.extend(of_part);
            usage += own;
        }
    }
    (settled, usage)
}

/// Deals out deltas: first each session's earliest title, then each session's next title, and so
/// on. A session's titles are written one after the other, so that each finds the earlier ones when
/// it counts the session's holes.
fn waves(deltas: Vec<Delta>) -> Vec<Vec<Delta>> {
    let mut sessions: HashMap<(&str, &SessionId), Vec<(u16, usize)>> = HashMap::with_capacity(deltas.len());
    for (at, delta) in deltas.iter().enumerate() {
        let titles = sessions.entry((&delta.key.profile_id, &delta.key.session_id)).or_default();
        titles.push((delta.view.first.seq, at));
    }
    let mut wave_of = vec![0; deltas.len()];
    for titles in sessions.values_mut().filter(|titles| titles.len() > 1) {
        titles.sort_unstable();
        for (wave, (_, at)) in titles.iter().enumerate() {
            wave_of[*at] = wave;
        }
    }
    let mut waves: Vec<Vec<Delta>> = Vec::new();
    for (delta, wave) in deltas.into_iter().zip(wave_of) {
        if waves.len() <= wave {
            waves.resize_with(wave + 1, Vec::new);
        }
        waves[wave].push(delta);
    }
    waves
}

fn parts(deltas: Vec<Delta>) -> Vec<Vec<Delta>> {
    let mut deltas = deltas.into_iter();
    let next = || Some(deltas.by_ref().take(READ_AT_ONCE).collect::<Vec<_>>()).filter(|part| !part.is_empty());
    std::iter::from_fn(next).collect()
}

/// Settles up to [`READ_AT_ONCE`] deltas of different sessions.
async fn settle_part<T: ViewTable>(table: &T, deltas: Vec<Delta>, patience: &Patience) -> (Vec<Settled>, Usage) {
    let keys: Vec<ViewKey> = deltas.iter().map(|delta| delta.key.clone()).collect();
    let bases = read_bases(table, &keys, patience).await;
    debug_assert_eq!(bases.len(), deltas.len());
    let mut usage = Usage { reads: keys.len() as u64, ..Usage::default() };
    let mut settled = Vec::with_capacity(deltas.len());
    let mut open: Vec<(Delta, Result<Base, StoreError>)> = deltas.into_iter().zip(bases).collect();
    for _ in 0..MAX_LOST_RACES {
        let (mut changes, mut erasures) = (Vec::with_capacity(open.len()), Vec::new());
        for (delta, base) in open {
            match next_step(&delta, base) {
                Ok(Step::Done(counts)) => settled.push(Settled { delta, result: Ok(counts) }),
                Ok(Step::Write { base, merged }) => changes.push(Change { delta, base, merged }),
                Ok(Step::Erase(erase)) => erasures.push((delta, erase)),
                Err(error) => settled.push(Settled { delta, result: Err(error) }),
            }
        }
        let erasing: Vec<_> =
            erasures.into_iter().map(|(delta, erase)| erase_session(table, delta, erase, patience)).collect();
        let erasing = stream::iter(erasing).buffer_unordered(CONCURRENT_REQUESTS).collect::<Vec<_>>();
        let (erased, results) = tokio::join!(erasing, write_all(table, &changes, patience));
        settled.extend(erased);
        debug_assert_eq!(results.len(), changes.len());
        let (mut written, mut lost) = (Vec::with_capacity(changes.len()), Vec::new());
        for (change, result) in changes.into_iter().zip(results) {
            usage.writes += u64::from(result.is_ok());
            match result {
                Ok(Ok(())) => written.push(change),
                Ok(Err(WriteError::Lost(current))) => {
                    usage.lost_races += 1;
                    lost.push((change.delta, Ok(current)));
                }
                Ok(Err(WriteError::Failed(error))) | Err(error) => {
                    settled.push(Settled { delta: change.delta, result: Err(error) });
                }
            }
        }
        // Of a few only: the future of a call is large, and moving one for each view is dear.
        let may_matter = |change: &&Change| change.may_change_holes(table);
        let counting: Vec<_> = written.iter().filter(may_matter).map(|change| holes(table, change, patience)).collect();
        let mut counted = stream::iter(counting).buffer_unordered(CONCURRENT_REQUESTS);
        while let Some(holes) = counted.next().await {
            usage.holes += holes;
            usage.reads += 1;
        }
        drop(counted);
        settled.extend(written.into_iter().map(|Change { delta, base, .. }| {
            let counts = delta.attribute(base.view());
            Settled { delta, result: Ok(counts) }
        }));
        if lost.is_empty() {
            open = Vec::new();
            break;
        }
        let (deltas, found): (Vec<Delta>, Vec<_>) = lost.into_iter().unzip();
        let keys: Vec<ViewKey> = deltas.iter().map(|delta| delta.key.clone()).collect();
        open = deltas.into_iter().zip(bases_of(table, &keys, found, patience).await).collect();
    }
    settled.extend(open.into_iter().map(|(delta, _)| {
        let result = Err(error(&delta, Fault::LostRaces(MAX_LOST_RACES)));
        Settled { delta, result }
    }));
    let is_throttled = |one: &&Settled| matches!(&one.result, Err(StoreError { fault: Fault::Throttled(_), .. }));
    usage.throttles += settled.iter().filter(is_throttled).count() as u64;
    (settled, usage)
}

/// A delta that changes a view.
struct Change {
    delta: Delta,
    base: Base,
    merged: Box<View>,
}

impl Change {
    fn write(&self) -> Write<'_> {
        Write { key: &self.delta.key, view: &self.merged, expected: self.base.version() }
    }

    /// Whether the session's other views matter for its holes: when this view's latest event is or
    /// was `stopped`, and when a later title of the session begins. If the events of several titles
    /// arrive out of order, some closings are missed.
    fn may_change_holes<T: ViewTable>(&self, table: &T) -> bool {
        let before = self.base.view();
        let has_ended = Sequence::of(before).has_ended() || Sequence::of([&*self.merged]).has_ended();
        let begins_later_title = before.is_none() && self.merged.first.seq > 0;
        table.is_home_of(&self.delta.key) && (has_ended || begins_later_title)
    }
}

/// Writes what has changed. `Err` for a write whose request was not made or had no answer in time.
async fn write_all<T: ViewTable>(
    table: &T,
    changes: &[Change],
    patience: &Patience,
) -> Vec<Result<Result<(), WriteError>, StoreError>> {
    let requests: Vec<_> = changes
        .chunks(WRITE_AT_ONCE)
        .map(|changes| async move {
            let writes: Vec<Write<'_>> = changes.iter().map(Change::write).collect();
            match patience.call(table.write(&writes)).await {
                Ok(results) => results.into_iter().map(Ok).collect(),
                Err(fault) => changes.iter().map(|change| Err(error(&change.delta, fault.clone()))).collect(),
            }
        })
        .collect();
    let results: Vec<Vec<_>> = stream::iter(requests).buffered(CONCURRENT_REQUESTS).collect().await;
    results.into_iter().flatten().collect()
}

/// What a delta is merged into.
enum Base {
    Stored(Box<Stored>),
    /// There is no view, maybe because the member has erased it.
    Nothing(Erasure),
}

impl Base {
    fn view(&self) -> Option<&View> {
        match self {
            Base::Stored(stored) => Some(&stored.view),
            Base::Nothing(_) => None,
        }
    }

    fn version(&self) -> Option<u64> {
        match self {
            Base::Stored(stored) => Some(stored.version),
            Base::Nothing(_) => None,
        }
    }
}

/// Reads what is stored, and for what is not, whether it was erased.
async fn read_bases<T: ViewTable>(table: &T, keys: &[ViewKey], patience: &Patience) -> Vec<Result<Base, StoreError>> {
    match patience.call(table.read(keys)).await {
        Ok(stored) => {
            let found = stored.into_iter().map(|stored| stored.map(|stored| stored.map(Box::new))).collect();
            bases_of(table, keys, found, patience).await
        }
        Err(fault) => keys.iter().map(|_| Err(of_batch("read", fault.clone()))).collect(),
    }
}

/// The bases of views that were found or not. For those that were not, asks whether they were erased.
async fn bases_of<T: ViewTable>(
    table: &T,
    keys: &[ViewKey],
    found: Vec<Result<Option<Box<Stored>>, StoreError>>,
    patience: &Patience,
) -> Vec<Result<Base, StoreError>> {
    let absent = keys.iter().zip(&found).filter(|(_, found)| matches!(found, Ok(None)));
    let absent: Vec<ViewKey> = absent.map(|(key, _)| key.clone()).collect();
    let erasures = match absent.as_slice() {
        [] => Vec::new(),
        absent => patience
            .call(table.erasures(absent))
            .await
            .unwrap_or_else(|fault| absent.iter().map(|_| Err(of_batch("erasures", fault.clone()))).collect()),
    };
    let mut erasures = erasures.into_iter();
    let mut base = |found: Result<Option<Box<Stored>>, StoreError>| match found? {
        Some(stored) => Ok(Base::Stored(stored)),
        None => erasures.next().unwrap_or_else(|| Err(unanswered("erasures"))).map(Base::Nothing),
    };
    found.into_iter().map(&mut base).collect()
}

fn of_batch(operation: &'static str, fault: Fault) -> StoreError {
    StoreError { operation, subject: "a batch".to_owned(), fault }
}

fn unanswered(operation: &'static str) -> StoreError {
    of_batch(operation, Fault::Unavailable("the store's answer lacks an entry".to_owned()))
}

/// What to do with a delta, given what is stored.
enum Step {
    /// Nothing has to be written.
    Done(Vec<(usize, Counts)>),
    Write {
        base: Base,
        merged: Box<View>,
    },
    /// The session is erased, and has to be marked as such.
    Erase(Erase),
}

/// Marks a session as erased that no time erases. The mark is what matters: nothing is stored that a
/// deadline could leave over.
async fn erase_session<T: ViewTable>(table: &T, delta: Delta, erase: Erase, patience: &Patience) -> Settled {
    let result = match patience.call(table.erase(&erase, Instant::now())).await {
        Ok(erased) => erased.map(|_| delta.discard()),
        Err(fault) => Err(error(&delta, fault)),
    };
    Settled { delta, result }
}

fn next_step(delta: &Delta, base: Result<Base, StoreError>) -> Result<Step, StoreError> {
    let base = base?;
    if let Base::Nothing(erasure) = &base
        && erasure.covers(&delta.key, &delta.view)
    {
        let ahead = erasure.of_session_ahead(&delta.key, &delta.view);
        return Ok(ahead.map_or_else(|| Step::Done(delta.discard()), Step::Erase));
    }
    let merged = Box::new(merge(delta, base.view())?);
    if base.view() == Some(&*merged) {
        return Ok(Step::Done(delta.attribute(base.view())));
    }
    Ok(Step::Write { base, merged })
}

fn merge(delta: &Delta, stored: Option<&View>) -> Result<View, StoreError> {
    let mut merged = delta.view.clone();
    if let Some(stored) = stored {
        merged.merge(stored);
    }
    let ranges = merged.ranges();
    if ranges > MAX_RANGES && stored.is_none_or(|stored| ranges > stored.ranges()) {
        return Err(error(delta, Fault::TooLarge(ranges)));
    }
    Ok(merged)
}

fn error(delta: &Delta, fault: Fault) -> StoreError {
    let ViewKey { profile_id, session_id, title_id } = &delta.key;
    StoreError { operation: "settle", subject: format!("{session_id} of {profile_id} ({title_id})"), fault }
}

/// The holes that a write opened and closed. They are counted over the whole session, so its other
/// views are read.
async fn holes<T: ViewTable>(table: &T, change: &Change, patience: &Patience) -> Holes {
    let (own_before, own) = (Sequence::of(change.base.view()), Sequence::of([&*change.merged]));
    let uncounted = |error: &dyn std::fmt::Display| {
        tracing::warn!(%error, "the holes of a session could not be counted");
        Holes::default()
    };
    match patience.call(table.session(&change.delta.key)).await {
        Ok(Ok(Some(others))) => {
            let others = Sequence::of(&others);
            own.with(&others).holes_since(&own_before.with(&others))
        }
        Ok(Ok(None)) => Holes::default(),
        Ok(Err(error)) => uncounted(&error),
        Err(fault) => uncounted(&fault),
    }
}
