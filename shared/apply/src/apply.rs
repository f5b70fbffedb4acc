//! Applying: from what units hold to the views, one conditional write a session.

use crate::unit::{Decoded, Unapplied};
use playback::fold::fold;
use playback::outcome::Counts;
use store::{Usage, ViewTable, settle};

/// What became of a unit: its events are in their view, or why not.
pub type Applied = Result<Counts, Unapplied>;

/// A fault of ours: some record has no outcome, so that nothing may be called done. The invocation fails, and the whole
/// batch is delivered again.
#[derive(Debug, thiserror::Error)]
#[error("{received} records came in and {settled} have an outcome")]
pub struct Unbalanced {
    /// Records received.
    pub received: usize,
    /// Records with an outcome.
    pub settled: usize,
}

/// Folds all units together and settles them: a verdict each, in their order, and what it took. Shadows are not for this
/// table: their verdict is [`Unapplied::Unshadowed`].
///
/// # Errors
/// [`Unbalanced`]. What fails of the units is no error: it is in the verdicts.
pub async fn apply<T: ViewTable>(table: &T, contents: Vec<Decoded>) -> Result<(Vec<Applied>, Usage), Unbalanced> {
    let received = contents.len();
    let mut verdicts: Vec<Option<Applied>> = vec![None; received];
    let mut set = |at: usize, verdict: Applied| {
        if let Some(slot) = verdicts.get_mut(at) {
            *slot = Some(verdict);
        }
    };
    let mut envelopes = Vec::with_capacity(received);
    for (at, content) in contents.into_iter().enumerate() {
        match content {
            Ok(envelope) if envelope.stamp.shadow => set(at, Err(Unapplied::Unshadowed)),
            Ok(envelope) => envelopes.push((at, envelope)),
            Err(why) => set(at, Err(why)),
        }
    }
    let (settled, usage) = settle(table, fold(envelopes)).await;
    for one in settled {
        match one.result {
            Ok(records) => records.into_iter().for_each(|(at, counts)| set(at, Ok(counts))),
            Err(error) => {
                let detail = error.to_string();
                let why = match error.fault.class() {
                    Ok(cause) => {
                        tracing::warn!(%error, cause = cause.as_str(), "a session could not be settled");
                        Unapplied::Transient { cause, detail }
                    }
                    Err(reason) => Unapplied::Poison { reason, detail },
                };
                one.delta.records().for_each(|at| set(at, Err(why.clone())));
            }
        }
    }
    let verdicts: Vec<Applied> = verdicts.into_iter().flatten().collect();
    if verdicts.len() == received {
        Ok((verdicts, usage))
    } else {
        Err(Unbalanced { received, settled: verdicts.len() })
    }
}
