//! Applies units to the views, with one conditional write per session.

use crate::slots::{Slots, Unbalanced};
use crate::unit::{Decoded, Unapplied};
use playback::fold::fold;
use playback::outcome::Counts;
use store::{Usage, ViewTable, settle};

/// The result of applying a unit: its events are in their view, or the reason why not.
pub type Applied = Result<Counts, Unapplied>;

/// Folds all units together and settles them. Returns one result per unit, in order, and how much
/// the store was used.
///
/// # Errors
/// [`Unbalanced`]. A unit that cannot be applied is not an error: its result says so.
pub async fn apply<T: ViewTable>(table: &T, units: Vec<Decoded>) -> Result<(Vec<Applied>, Usage), Unbalanced> {
    let mut applied = Slots::new(units.len());
    let mut envelopes = Vec::with_capacity(units.len());
    for (at, decoded) in units.into_iter().enumerate() {
        match decoded {
            Ok(envelope) => envelopes.push((at, envelope)),
            Err(why) => applied.fill(at, Err(why)),
        }
    }
    let (settled, usage) = settle(table, fold(envelopes)).await;
    for one in settled {
        match one.result {
            Ok(records) => records.into_iter().for_each(|(at, counts)| applied.fill(at, Ok(counts))),
            Err(error) => {
                let detail = error.to_string();
                let why = match error.fault.class() {
                    Ok(cause) => {
                        tracing::warn!(%error, cause = cause.as_str(), "a session could not be settled");
                        Unapplied::Transient { cause, detail }
                    }
                    Err(reason) => Unapplied::Poison { reason, detail },
                };
                one.delta.records().for_each(|at| applied.fill(at, Err(why.clone())));
            }
        }
    }
    Ok((applied.finish()?, usage))
}
