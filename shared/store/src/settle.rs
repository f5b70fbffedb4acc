//! Settling: brings a batch's deltas into the stored views.
//!
//! ```text
//!   read all views of the batch ──▶ merge ──▶ unchanged? ──▶ done, no write
//!                                    ▲   └──▶ write if version is as read ──▶ done
//!                                    │                  │ lost the race
//!                                    └── what is there ◀┘ (came with the failure)
//! ```
//!
//! A crash at any point is harmless: only the views remember what was applied, and merging a delta
//! twice changes nothing.

use crate::table::{Fault, StoreError, Stored, ViewTable, WriteError};
use futures::stream::{self, StreamExt};
use playback::fold::{Delta, ViewKey};
use playback::outcome::Counts;
use playback::view::Holes;

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
    /// Views read.
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

/// Brings every delta into the table. One result per delta: a failure does not stop the others.
pub async fn settle<T: ViewTable>(table: &T, deltas: Vec<Delta>) -> (Vec<Settled>, Usage) {
    let keys: Vec<ViewKey> = deltas.iter().map(|delta| delta.key.clone()).collect();
    let bases = table.read(&keys).await;
    debug_assert_eq!(bases.len(), deltas.len());
    let mut usage = Usage { reads: keys.len() as u64, ..Usage::default() };
    let mut writes = stream::iter(deltas.into_iter().zip(bases))
        .map(|(delta, base)| async move {
            let mut own = Usage::default();
            let result = match base {
                Ok(base) => write_until_stored(table, &delta, base, &mut own).await,
                Err(error) => Err(error),
            };
            if matches!(&result, Err(StoreError { fault: Fault::Throttled(_), .. })) {
                own.throttles = 1;
            }
            (Settled { delta, result }, own)
        })
        .buffer_unordered(CONCURRENT_WRITES);
    let mut settled = Vec::with_capacity(keys.len());
    while let Some((one, own)) = writes.next().await {
        settled.push(one);
        usage.writes += own.writes;
        usage.lost_races += own.lost_races;
        usage.throttles += own.throttles;
        usage.holes += own.holes;
    }
    drop(writes);
    (settled, usage)
}

async fn write_until_stored<T: ViewTable>(
    table: &T,
    delta: &Delta,
    mut base: Option<Stored>,
    usage: &mut Usage,
) -> Result<Vec<(usize, Counts)>, StoreError> {
    for _ in 0..MAX_LOST_RACES {
        let stored = base.as_ref().map(|stored| &stored.view);
        let merged = match stored {
            None => delta.view.clone(),
            Some(view) => {
                let mut merged = view.clone();
                merged.merge(&delta.view);
                merged
            }
        };
        if stored == Some(&merged) {
            return Ok(delta.attribute(stored));
        }
        usage.writes += 1;
        match table.write(&delta.key, &merged, base.as_ref().map(|stored| stored.version)).await {
            Ok(()) => {
                if table.is_home_of(&delta.key) {
                    usage.holes += merged.holes_since(stored);
                }
                return Ok(delta.attribute(stored));
            }
            Err(WriteError::Lost(current)) => {
                usage.lost_races += 1;
                base = current.map(|stored| *stored);
            }
            Err(WriteError::Failed(error)) => return Err(error),
        }
    }
    Err(StoreError {
        operation: "settle",
        subject: format!("{} of {}", delta.key.session_id, delta.key.profile_id),
        fault: Fault::LostRaces(MAX_LOST_RACES),
    })
}
