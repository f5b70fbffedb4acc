//! Shadows: copies of what another system has for good, folded into a table of their own to try ours with. They must never hold up or
//! crowd out live events, so folding them is bounded in time, is left alone for a while after it failed, and what cannot be folded is
//! forgotten.

use apply::{Applied, Decoded, Unapplied};
use futures::future::OptionFuture;
use playback::envelope::Envelope;
use playback::fold::fold;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use store::{ViewTable, settle};

/// How long a batch's shadows may take: what the live ones beside them wait at the most.
const TIME_OUT: Duration = Duration::from_secs(2);
/// How long the table is left alone after it failed.
const REST: Duration = Duration::from_secs(30);

/// The table of shadow views.
#[derive(Debug)]
pub struct Shadow<T> {
    table: T,
    resting_until: Mutex<Option<Instant>>,
}

impl<T: ViewTable> Shadow<T> {
    /// Shadow views in `table`.
    pub fn new(table: T) -> Self {
        Self { table, resting_until: Mutex::new(None) }
    }

    /// Folds shadows, each with its place in the batch, and says what became of those that it could fold. It ends in bounded time.
    pub async fn fold(&self, shadows: Vec<(usize, Envelope)>, now: Instant) -> Vec<(usize, Applied)> {
        if shadows.is_empty() || self.rests(now) {
            return Vec::new();
        }
        let Ok((settled, _)) = tokio::time::timeout(TIME_OUT, settle(&self.table, fold(shadows))).await else {
            tracing::warn!("the shadow table does not answer in time: its events are dropped for a while");
            self.rest(now);
            return Vec::new();
        };
        let mut applied = Vec::new();
        for one in settled {
            match one.result {
                Ok(records) => applied.extend(records.into_iter().map(|(at, counts)| (at, Ok(counts)))),
                Err(error) => {
                    tracing::warn!(%error, "a shadow could not be folded: its events are dropped");
                    if error.fault.class().is_ok() {
                        self.rest(now);
                    }
                }
            }
        }
        applied
    }

    fn rests(&self, now: Instant) -> bool {
        self.resting_until.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|until| now < until)
    }

    fn rest(&self, now: Instant) {
        *self.resting_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(now + REST);
    }
}

/// Takes the shadows out of a batch: what is left in their places says that they are shadows.
pub(crate) fn take_shadows(contents: &mut [Decoded]) -> Vec<(usize, Envelope)> {
    let mut shadows = Vec::new();
    for (at, content) in contents.iter_mut().enumerate() {
        if content.as_ref().is_ok_and(|envelope| envelope.stamp.shadow)
            && let Ok(envelope) = std::mem::replace(content, Err(Unapplied::Unshadowed))
        {
            shadows.push((at, envelope));
        }
    }
    shadows
}

/// Folds shadows if there is a table for them.
pub(crate) async fn fold_into<T: ViewTable>(
    shadow: Option<&Shadow<T>>,
    shadows: Vec<(usize, Envelope)>,
    now: Instant,
) -> Vec<(usize, Applied)> {
    OptionFuture::from(shadow.map(|shadow| shadow.fold(shadows, now))).await.unwrap_or_default()
}
