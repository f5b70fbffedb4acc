//! Shadows: copies of a legacy profile's events, appended beside the live answer and marked so that
//! no member sees them.
//!
//! A shadow never delays or fails the live answer. Its append may end after that, so its events are
//! tallied, and the next request counts them.

use crate::Ingest;
use crate::append::{Append, AppendSummary};
use http::HeaderMap;
use lambda::metrics::{Metric, Metrics};
use playback::edge::{RawEvent, validate};
use playback::envelope::Stamp;
use playback::routing::Routes;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use stream::DurableLog;

/// Shadow events that were appended or missed since the last report.
#[derive(Debug, Default)]
pub struct ShadowTally {
    appended: AtomicU64,
    missed: AtomicU64,
}

impl ShadowTally {
    fn add(&self, summary: &AppendSummary) {
        let (durable, failed) = summary.durable_and_failed_events();
        self.appended.fetch_add(durable, Relaxed);
        self.missed.fetch_add(failed, Relaxed);
    }

    /// Counts what was tallied since the last call.
    pub(crate) fn report(&self, metrics: &Metrics) {
        metrics.add(Metric::ShadowAppended, self.appended.swap(0, Relaxed));
        metrics.add(Metric::ShadowMissed, self.missed.swap(0, Relaxed));
    }
}

impl<L: DurableLog + 'static> Ingest<L> {
    /// Appends copies of the events that our own rules accept: the legacy system may still refuse
    /// the request, and its sender may be unknown to us. The future may be dropped at any time; an
    /// append that has begun continues.
    pub(crate) async fn shadow(&self, headers: &HeaderMap, events: &[RawEvent<'_>], stamp: &Stamp, routes: &Routes) {
        if events.is_empty() {
            return;
        }
        let mut missed = Missed { tally: Arc::clone(&self.shadows), events: events.len() as u64 };
        let Ok(identity) = self.identify(headers).await else { return };
        let valid = events.iter().filter_map(|event| validate(*event, stamp.received_at, self.window).ok());
        let permitted = valid.map(|valid| valid.event).filter(|event| identity.may(&event.profile_id)).collect();
        let stamp = Stamp { shadow: true, ..stamp.clone() };
        let append = Append::new(self, permitted, &stamp, routes);
        missed.events -= append.events();
        let tally = Arc::clone(&self.shadows);
        // In its own task, so that it outlives the live answer.
        let appending = tokio::spawn(async move { tally.add(&append.run().await) });
        drop(missed);
        drop(appending.await);
    }
}

/// Events for which no append began. They are tallied as missed on drop, even when the live answer
/// came first.
struct Missed {
    tally: Arc<ShadowTally>,
    events: u64,
}

impl Drop for Missed {
    fn drop(&mut self) {
        self.tally.missed.fetch_add(self.events, Relaxed);
    }
}
