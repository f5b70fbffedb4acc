//! Compares shadow views with live views, or with a legacy system, and reports how many sessions
//! match and where the others differ.
//!
//! A schedule wakes it. It walks through the shadow table from where it stopped, page by page,
//! until time runs short. Sessions that settled since the last walk are due (`judge`). The live
//! side is asked for them (`live`) and the fields are compared (`session`). The result
//! (`report`) becomes metrics and an object in the bucket of reports, with a few redacted
//! examples.
//!
//! It writes to no view and delays no one. If the live side fails for most of a page, the run stops
//! there and fails. The next run retries the page: an outage must not let sessions pass as
//! compared. A few failed profiles are counted as such and skipped.

mod archive;
mod checkpoint;
mod config;
mod judge;
mod legacy;
mod live;
mod mapping;
mod report;
mod session;
#[cfg(test)]
mod testing;

pub use archive::{Archive, ArchiveError, PREFIX, key};
pub use checkpoint::{Checkpoint, CheckpointError, Checkpoints};
pub use config::{Config, LegacyConfig};
pub use judge::{Answer, Ask, Row, Window, asks};
pub use legacy::{AuthorizationError, Legacy, LegacyError, MalformedUrlTemplate, UrlTemplate, authorization};
pub use live::{Live, LiveError};
pub use mapping::{MalformedMapping, Mapping, Unmapped};
pub use report::{Cause, Example, MAX_EXAMPLES, Report, Verdict, redact};
pub use session::{Field, FieldDifference, MalformedTolerances, Session, Tolerances, Value, diff};

use futures::stream::{self, StreamExt};
use lambda::metrics::{Metric, Metrics};
use lambda::runtime::ServeSchedule;
use playback::session::SessionId;
use std::time::Duration;
use store::StoreError;
use store::dynamodb::{Views, ViewsPage};
use tokio::time::Instant;

/// Items per page. Even if every item needs a slow call, a page ends within [`TIME_TO_FINISH`].
const PAGE: u16 = 100;
/// This many profiles of a page may fail without counting as an outage: a permanent failure must
/// not stop the walk.
const TOLERATED_FAILURES: usize = 3;
/// Concurrent questions to the live side.
const CONCURRENT_ASKS: usize = 16;

/// Time reserved at the end of an invocation: for the current page (a call of each kind may take 5
/// s), the report and the checkpoint.
const TIME_TO_FINISH: Duration = Duration::from_secs(20);

/// What `compare` works with.
pub struct Compare {
    /// The shadow views.
    pub shadow: Views,
    /// The side they are compared with.
    pub live: Live,
    /// The checkpoint of the walk.
    pub checkpoints: Checkpoints,
    /// The bucket of reports.
    pub archive: Archive,
    /// How much numbers may differ.
    pub tolerances: Tolerances,
    /// A session settles after this time without events.
    pub settled_after: Duration,
}

/// Why a run failed. What it found before it stopped is reported anyway, unless another run was
/// faster.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// The shadow table cannot be read.
    #[error(transparent)]
    Shadow(#[from] StoreError),
    /// The live side failed for most of a page.
    #[error("could not ask for {failed} of {asked} profiles of a page; the last error: {last}")]
    Live {
        /// How many profiles failed.
        failed: usize,
        /// How many were asked for.
        asked: usize,
        /// The last error.
        last: LiveError,
    },
    /// The checkpoint could not be read or written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The report could not be stored.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
}

impl ServeSchedule for Compare {
    type Answer = Report;
    type Error = CompareError;

    async fn serve(&self, metrics: &Metrics, time_left: Duration, now: u64) -> Result<Report, CompareError> {
        self.run(metrics, now, Instant::now() + time_left.saturating_sub(TIME_TO_FINISH)).await
    }
}

impl Compare {
    /// Continues the walk until `stop_at` or the end of the table. `now` is the clock, Unix
    /// milliseconds.
    ///
    /// # Errors
    /// [`CompareError`].
    pub async fn run(&self, metrics: &Metrics, now: u64, stop_at: Instant) -> Result<Report, CompareError> {
        let begun = self.checkpoints.read().await?;
        let (report, reached, stopped) = self.walk(&begun, now, stop_at).await;
        if reached != begun {
            // Written first, so no session is counted twice, whatever happens next.
            self.checkpoints.write(&reached).await?;
            count(metrics, &report);
            if !report.is_empty() {
                self.archive.keep(&report, now, begun.revision).await?;
            }
        }
        match stopped {
            None => Ok(report),
            Some(error) => Err(error),
        }
    }

    /// Walks from a checkpoint. Returns what it found, how far it came, and the error that stopped
    /// it, if any.
    async fn walk(&self, begun: &Checkpoint, now: u64, stop_at: Instant) -> (Report, Checkpoint, Option<CompareError>) {
        let mut report = Report::default();
        let (until, mut after) = match begun.under_way.clone() {
            Some((until, after)) => (until, Some(after)),
            None => (now, None),
        };
        let settle_ms = u64::try_from(self.settled_after.as_millis()).unwrap_or(u64::MAX);
        let window = Window { since: begun.since, until, settle_ms };
        let reached = |under_way| Checkpoint { under_way, ..begun.clone() };
        while Instant::now() < stop_at {
            let page = match self.shadow.scan(after.as_ref(), PAGE).await {
                Ok(page) => page,
                Err(error) => return (report, reached(after.map(|after| (until, after))), Some(error.into())),
            };
            match self.compare(&page, asks(&page.views, after.as_ref(), window), window).await {
                Ok(found) => report.merge(found),
                Err(error) => return (report, reached(after.map(|after| (until, after))), Some(error)),
            }
            if page.next.is_none() {
                return (report, Checkpoint { since: until, under_way: None, ..begun.clone() }, None);
            }
            after = page.next;
        }
        (report, reached(after.map(|after| (until, after))), None)
    }

    /// Compares the due sessions of a page. Fails as a whole if the live side failed for most of
    /// it.
    async fn compare(&self, page: &ViewsPage, asks: Vec<Ask>, window: Window) -> Result<Report, CompareError> {
        let asked = asks.len();
        let mut answers = stream::iter(asks)
            .map(|ask| async move { (self.live.answer(&ask).await, ask) })
            .buffer_unordered(CONCURRENT_ASKS);
        let mut report = Report::default();
        report.could_not_compare(Cause::Unreadable, page.unreadable);
        let (mut failed, mut last) = (0, None);
        while let Some((answer, ask)) = answers.next().await {
            let verdicts = match answer {
                Ok(answer) => ask.judge(&answer, window, &self.tolerances),
                Err(error) => {
                    let verdicts = ask.unanswered(error.cause());
                    tracing::warn!(%error, sessions = verdicts.len(), "sessions could not be compared");
                    failed += 1;
                    last = Some(error);
                    verdicts
                }
            };
            add_all(&mut report, verdicts);
        }
        match last {
            Some(last) if failed > TOLERATED_FAILURES && failed * 2 > asked => {
                Err(CompareError::Live { failed, asked, last })
            }
            _ => Ok(report),
        }
    }
}

fn add_all(report: &mut Report, verdicts: Vec<(SessionId, Verdict)>) {
    for (session_id, verdict) in verdicts {
        report.add(&session_id, verdict);
    }
}

fn count(metrics: &Metrics, report: &Report) {
    metrics.add(Metric::ComparedSessions, report.compared);
    metrics.add(Metric::MatchedSessions, report.matched);
    metrics.add(Metric::MissingLive, report.missing_live);
    metrics.add(Metric::MissingShadow, report.missing_shadow);
    metrics.add(Metric::PartialSessions, report.partial);
    for (field, sessions) in &report.fields {
        metrics.add(Metric::FieldDifferences(field.as_str()), *sessions);
    }
    for (cause, sessions) in &report.unanswered {
        metrics.add(Metric::UnansweredSessions(cause.as_str()), *sessions);
    }
}
