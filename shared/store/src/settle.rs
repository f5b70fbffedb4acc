//! Settling: brings a batch's deltas into the stored views.
//!
//! ```text
//!   read all views of the batch ──▶ merge ──▶ unchanged? ──▶ done, no write
//!        │ not stored              ▲   └──▶ write if version is as read ──▶ done
//!        ▼                         │                  │ lost the race
//!      erased? ──▶ done, no write  └── what is there ◀┘ (came with the failure)
//! ```
//!
//! A crash at any point is harmless: only the views remember what was applied, and merging a delta
//! twice changes nothing.

use crate::patience::Patience;
use crate::table::{Erasure, Fault, StoreError, Stored, ViewTable, WriteError};
use futures::stream::{self, StreamExt};
use playback::contract::MAX_RANGES;
use playback::fold::{Delta, ViewKey};
use playback::outcome::Counts;
use playback::session::SessionId;
use playback::view::{Holes, Sequence, View};
use std::collections::HashMap;
use tokio::time::Instant;

/// Views in one call to read them, and such calls at a time.
const READ_AT_ONCE: usize = 100;
const CONCURRENT_READS: usize = 8;

/// Concurrent writes: enough to hide the store's latency, and below the connections one environment
/// keeps.
const CONCURRENT_WRITES: usize = 64;

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
    let keys: Vec<ViewKey> = deltas.iter().map(|delta| delta.key.clone()).collect();
    let patience = &Patience::until(deadline);
    let bases = read_bases(table, &keys, patience).await;
    debug_assert_eq!(bases.len(), deltas.len());
    let mut usage = Usage { reads: keys.len() as u64, ..Usage::default() };
    let mut writes = stream::iter(by_session(deltas.into_iter().zip(bases)))
        .map(|titles| async move {
            let mut settled = Vec::with_capacity(titles.len());
            for (delta, base) in titles {
                settled.push(settle_one(table, delta, base, patience).await);
            }
            settled
        })
        .buffer_unordered(CONCURRENT_WRITES);
    let mut settled = Vec::with_capacity(keys.len());
    while let Some(of_session) = writes.next().await {
        for (one, own) in of_session {
            settled.push(one);
            usage += own;
        }
    }
    drop(writes);
    (settled, usage)
}

type Based = (Delta, Result<Base, StoreError>);

/// Groups deltas by session, its titles in the order in which they were watched. They are written
/// one after the other, so that each finds the earlier ones when it counts the session's holes.
fn by_session(deltas: impl IntoIterator<Item = Based>) -> Vec<Vec<Based>> {
    let mut sessions: Vec<Vec<Based>> = Vec::new();
    let mut index: HashMap<(String, SessionId), usize> = HashMap::new();
    for (delta, base) in deltas {
        let session = (delta.key.profile_id.clone(), delta.key.session_id.clone());
        match index.get(&session).and_then(|&at| sessions.get_mut(at)) {
            Some(titles) => titles.push((delta, base)),
            None => {
                index.insert(session, sessions.len());
                sessions.push(vec![(delta, base)]);
            }
        }
    }
    sessions.iter_mut().for_each(|titles| titles.sort_by_key(|(delta, _)| delta.view.first.seq));
    sessions
}

async fn settle_one<T: ViewTable>(
    table: &T,
    delta: Delta,
    base: Result<Base, StoreError>,
    patience: &Patience,
) -> (Settled, Usage) {
    let mut own = Usage::default();
    let result = match base {
        Ok(base) => write_until_stored(table, &delta, base, patience, &mut own).await,
        Err(error) => Err(error),
    };
    if matches!(&result, Err(StoreError { fault: Fault::Throttled(_), .. })) {
        own.throttles = 1;
    }
    (Settled { delta, result }, own)
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
    let batches: Vec<_> = keys.chunks(READ_AT_ONCE).map(|keys| read_some(table, keys, patience)).collect();
    stream::iter(batches).buffered(CONCURRENT_READS).flat_map(stream::iter).collect().await
}

async fn read_some<T: ViewTable>(table: &T, keys: &[ViewKey], patience: &Patience) -> Vec<Result<Base, StoreError>> {
    let stored = match patience.call(table.read(keys)).await {
        Ok(stored) => stored,
        Err(fault) => return keys.iter().map(|_| Err(of_batch("read", fault.clone()))).collect(),
    };
    let absent = keys.iter().zip(&stored).filter(|(_, stored)| matches!(stored, Ok(None)));
    let absent: Vec<ViewKey> = absent.map(|(key, _)| key.clone()).collect();
    let erasures = match absent.as_slice() {
        [] => Vec::new(),
        absent => patience
            .call(table.erasures(absent))
            .await
            .unwrap_or_else(|fault| absent.iter().map(|_| Err(of_batch("erasures", fault.clone()))).collect()),
    };
    let mut erasures = erasures.into_iter();
    let mut base = |stored: Result<Option<Stored>, StoreError>| match stored? {
        Some(stored) => Ok(Base::Stored(Box::new(stored))),
        None => erasures.next().unwrap_or_else(|| Err(unanswered("erasures"))).map(Base::Nothing),
    };
    stored.into_iter().map(&mut base).collect()
}

fn of_batch(operation: &'static str, fault: Fault) -> StoreError {
    StoreError { operation, subject: "a batch".to_owned(), fault }
}

fn unanswered(operation: &'static str) -> StoreError {
    of_batch(operation, Fault::Unavailable("the store's answer lacks an entry".to_owned()))
}

async fn write_until_stored<T: ViewTable>(
    table: &T,
    delta: &Delta,
    mut base: Base,
    patience: &Patience,
    usage: &mut Usage,
) -> Result<Vec<(usize, Counts)>, StoreError> {
    for _ in 0..MAX_LOST_RACES {
        if let Base::Nothing(erasure) = &base
            && erasure.covers(&delta.key, &delta.view)
        {
            if let Some(erase) = erasure.of_session_ahead(&delta.key, &delta.view) {
                // The mark is what matters. Nothing is stored that a deadline could leave over.
                let erased = patience.call(table.erase(&erase, Instant::now())).await;
                erased.map_err(|fault| error(delta, fault))??;
            }
            return Ok(delta.discard());
        }
        let stored = base.view();
        let merged = merge(delta, stored)?;
        if stored == Some(&merged) {
            return Ok(delta.attribute(stored));
        }
        let write = patience.call(table.write(&delta.key, &merged, base.version())).await;
        let written = write.map_err(|fault| error(delta, fault))?;
        usage.writes += 1;
        match written {
            Ok(()) => {
                let holes = holes(table, &delta.key, stored, &merged, patience, usage).await;
                usage.holes += holes;
                return Ok(delta.attribute(stored));
            }
            Err(WriteError::Lost(current)) => {
                usage.lost_races += 1;
                base = match current {
                    Some(stored) => Base::Stored(stored),
                    None => {
                        let asked = patience.call(table.erasures(std::slice::from_ref(&delta.key))).await;
                        let erasure = asked.map_err(|fault| error(delta, fault))?.pop();
                        Base::Nothing(erasure.unwrap_or_else(|| Err(unanswered("erasures")))?)
                    }
                };
            }
            Err(WriteError::Failed(error)) => return Err(error),
        }
    }
    Err(error(delta, Fault::LostRaces(MAX_LOST_RACES)))
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
/// views are read where they matter: when this view's latest event is or was `stopped`, and when a
/// later title of the session begins. If the events of several titles arrive out of order, some
/// closings are missed.
async fn holes<T: ViewTable>(
    table: &T,
    key: &ViewKey,
    before: Option<&View>,
    after: &View,
    patience: &Patience,
    usage: &mut Usage,
) -> Holes {
    let (own_before, own) = (Sequence::of(before), Sequence::of([after]));
    let begins_later_title = before.is_none() && after.first.seq > 0;
    if !table.is_home_of(key) || !(own_before.has_ended() || own.has_ended() || begins_later_title) {
        return Holes::default();
    }
    usage.reads += 1;
    let uncounted = |error: &dyn std::fmt::Display| {
        tracing::warn!(%error, "the holes of a session could not be counted");
        Holes::default()
    };
    match patience.call(table.session(key)).await {
        Ok(Ok(Some(others))) => {
            let others = Sequence::of(&others);
            own.with(&others).holes_since(&own_before.with(&others))
        }
        Ok(Ok(None)) => Holes::default(),
        Ok(Err(error)) => uncounted(&error),
        Err(fault) => uncounted(&fault),
    }
}
