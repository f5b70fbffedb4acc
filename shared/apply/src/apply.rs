//! Applies units to the views, with one conditional write per session.

use crate::slots::{Slots, Unbalanced};
use crate::unit::{Decoded, Unapplied};
use playback::fold::fold;
use playback::outcome::{Cause, Counts};
use std::collections::BTreeMap;
use store::{StoreError, Usage, ViewTable, settle};
use tokio::time::Instant;

/// The result of applying a unit: its events are in their view, or the reason why not.
pub type Applied = Result<Counts, Unapplied>;

/// Folds all units together and settles them until the deadline. Returns one result per unit, in
/// order, and how much the store was used.
///
/// # Errors
/// [`Unbalanced`]. A unit that cannot be applied is not an error: its result says so.
pub async fn apply<T: ViewTable>(
    table: &T,
    units: Vec<Decoded>,
    deadline: Instant,
) -> Result<(Vec<Applied>, Usage), Unbalanced> {
    let mut applied = Slots::new(units.len());
    let mut envelopes = Vec::with_capacity(units.len());
    for (at, decoded) in units.into_iter().enumerate() {
        match decoded {
            Ok(envelope) => envelopes.push((at, envelope)),
            Err(why) => applied.fill(at, Err(why)),
        }
    }
    let (settled, usage) = settle(table, fold(envelopes), deadline).await;
    let mut failures: BTreeMap<Cause, (usize, StoreError)> = BTreeMap::new();
    for one in settled {
        match one.result {
            Ok(records) => records.into_iter().for_each(|(at, counts)| applied.fill(at, Ok(counts))),
            Err(error) => {
                let detail = error.to_string();
                let why = match error.fault.class() {
                    Ok(cause) => {
                        failures.entry(cause).or_insert((0, error)).0 += 1;
                        Unapplied::Transient { cause, detail }
                    }
                    Err(reason) => Unapplied::Poison { reason, detail },
                };
                one.delta.records().for_each(|at| applied.fill(at, Err(why.clone())));
            }
        }
    }
    // Once per batch and cause: in an outage, every session fails.
    for (cause, (views, first)) in failures {
        tracing::warn!(views, %first, cause = cause.as_str(), "views could not be written");
    }
    Ok((applied.finish()?, usage))
}
