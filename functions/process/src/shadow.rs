//! Shadows: copies of events that another system serves, folded into a separate table to try our
//! code on them. They must never delay or crowd out live events. So folding them has a time limit,
//! pauses after a failure, and drops what it cannot fold.

use apply::{Books, Slots, Unbalanced, Unit, count};
use lambda::metrics::Metrics;
use playback::envelope::Envelope;
use playback::fold::fold;
use playback::outcome::{Counts, Outcome};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use store::{Fault, ViewTable, settle};
use tokio::time::Instant;

/// How long a batch's shadows may take: the live events beside them wait at most this long.
const TIME_OUT: Duration = Duration::from_secs(2);
/// How long something is left alone when it does not answer or throttles.
const REST: Duration = Duration::from_secs(30);

/// A rest after a failure, for what live events must not wait for again and again.
#[derive(Debug, Default)]
pub(crate) struct Rest(Mutex<Option<Instant>>);

impl Rest {
    pub(crate) fn lasts(&self, now: Instant) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|until| now < until)
    }

    pub(crate) fn begin(&self, now: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(now + REST);
    }
}

/// The table of shadow views.
#[derive(Debug)]
pub struct Shadow<T> {
    table: T,
    rest: Rest,
}

impl<T: ViewTable> Shadow<T> {
    /// Shadow views in `table`.
    pub fn new(table: T) -> Self {
        Self { table, rest: Rest::default() }
    }

    /// Folds envelopes from `now` on, in bounded time. Returns counts for each, or `None` if it was
    /// not folded.
    ///
    /// # Errors
    /// [`Unbalanced`].
    pub async fn fold(&self, envelopes: Vec<Envelope>, now: Instant) -> Result<Vec<Option<Counts>>, Unbalanced> {
        let none = vec![None; envelopes.len()];
        if envelopes.is_empty() || self.rest.lasts(now) {
            return Ok(none);
        }
        let (settled, _) = settle(&self.table, fold(envelopes.into_iter().enumerate()), now + TIME_OUT).await;
        let mut folded = Slots::new(none.len());
        let (mut failed, mut first_error) = (0, None);
        for one in settled {
            match one.result {
                Ok(records) => records.into_iter().for_each(|(at, counts)| folded.fill(at, Some(counts))),
                Err(error) => {
                    if matches!(error.fault, Fault::Throttled(_) | Fault::Unavailable(_)) {
                        self.rest.begin(now);
                    }
                    failed += 1;
                    first_error.get_or_insert(error);
                    one.delta.records().for_each(|at| folded.fill(at, None));
                }
            }
        }
        if let Some(error) = first_error {
            tracing::warn!(%error, failed, "shadows could not be folded: their events are dropped");
        }
        folded.finish()
    }
}

/// Folds units into the shadow table, if there is one, and drops the others. They are not in our
/// books.
pub(crate) async fn fold_apart<T: ViewTable>(
    shadow: Option<&Shadow<T>>,
    metrics: &Metrics,
    units: Vec<(Unit, Envelope)>,
) -> Result<(), Unbalanced> {
    let (units, envelopes): (Vec<Unit>, Vec<Envelope>) = units.into_iter().unzip();
    let folded = match shadow {
        Some(shadow) => shadow.fold(envelopes, Instant::now()).await?,
        None => vec![None; units.len()],
    };
    let outcome = |(unit, counts): (&Unit, Option<Counts>)| match counts {
        Some(counts) => Outcome::Applied(counts),
        None => Outcome::Drop { events: unit.events },
    };
    let outcomes: Vec<Outcome> = units.iter().zip(folded).map(outcome).collect();
    count(metrics, Books::Shadow, &units, &outcomes)
}
