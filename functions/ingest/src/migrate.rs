//! While a team moves from a system of its own: which requests go to that system, which to the log, and which to both.
//!
//! Each profile is on exactly one live path, by the routing document's rollout. `legacy` and `shadow` profiles' requests go to the legacy system, and
//! what it answers is what the device gets, unread. Of `shadow` ones a copy goes to the log as well, marked: beside the live call, which neither waits
//! for it nor fails with it. A request of profiles on both sides (backends send such) is split, and is accepted only if both sides accept.
//!
//! Without a rollout nobody is moved.

use crate::legacy::Legacy;
use crate::{Accepted, Ingest, Load, body, events_of, stamp};
use futures::future::{Either, select};
use http::{HeaderMap, Response, StatusCode};
use lambda::metrics::{Metric, Metrics};
use lambda::problem::{Problem, json};
use lambda_http::{Body, Request};
use playback::edge::validate;
use playback::envelope::{Stamp, group};
use playback::rollout::{Path, Rollout};
use playback::routing::Routes;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;
use stream::DurableLog;

/// Events of shadows since they were last counted: an append may end after the answer beside which it began.
#[derive(Debug, Default)]
pub struct ShadowTally {
    appended: AtomicU64,
    missed: AtomicU64,
}

impl ShadowTally {
    /// Counts what has ended since the last call.
    pub(crate) fn count(&self, metrics: &Metrics) {
        metrics.add(Metric::ShadowAppended, self.appended.swap(0, Relaxed));
        metrics.add(Metric::ShadowMissed, self.missed.swap(0, Relaxed));
    }
}

/// The one field that the path depends on; an event without it is nobody's, and nobody's are not moved.
#[derive(Deserialize)]
struct Whose<'a> {
    #[serde(borrow, default)]
    profile_id: Option<Cow<'a, str>>,
}

fn path_of(event: &RawValue, rollout: Option<&Rollout>) -> Path {
    let whose = serde_json::from_str::<Whose<'_>>(event.get()).ok().and_then(|whose| whose.profile_id);
    let moved = rollout.zip(whose).map(|(rollout, profile_id)| rollout.path(&profile_id));
    // An event that names nobody belongs to where everybody is.
    let nobodys = || if rollout.is_some_and(Rollout::is_complete) { Path::Async } else { Path::Legacy };
    moved.unwrap_or_else(nobodys)
}

impl<L: DurableLog + 'static> Ingest<L> {
    /// Takes a request in while there is a legacy system.
    pub(crate) async fn migrate(
        &self,
        legacy: &Legacy,
        request: &Request,
        routes: &Routes,
        metrics: &Metrics,
        now: u64,
    ) -> Result<Response<Body>, Problem> {
        let headers = request.headers();
        let whole = || request.body().to_vec();
        let read = body::read(headers, request.body());
        let raw_events = match read.as_ref().map_err(Problem::clone).and_then(|body| events_of(body)) {
            Ok(raw_events) if !raw_events.is_empty() => raw_events,
            other if routes.rollout().is_some_and(Rollout::is_complete) => {
                let identity = self.identify(headers).await?;
                let none = other?.into_iter().enumerate();
                let taken = self.accept(&identity, none, &stamp(headers, routes, now), routes, metrics).await?;
                return Ok(json(StatusCode::ACCEPTED, &taken));
            }
            // Not of our contract, and so nobody's that we could know.
            _ => return self.ask(legacy, headers, whole(), metrics).await,
        };
        let (mut moved, mut others, mut shadows) = (Vec::new(), Vec::new(), Vec::new());
        for (index, event) in raw_events.into_iter().enumerate() {
            match path_of(event, routes.rollout()) {
                Path::Async => moved.push((index, event)),
                path => {
                    others.push(event);
                    shadows.extend((path == Path::Shadow).then_some(event));
                }
            }
        }
        // Known before the legacy system is asked, so that a stranger's request is not accepted by one side.
        let identity = if moved.is_empty() { None } else { Some(self.identify(headers).await?) };
        if let Some(identity) = identity.as_ref().filter(|_| others.is_empty()) {
            let taken = self.accept(identity, moved, &stamp(headers, routes, now), routes, metrics).await?;
            return Ok(json(StatusCode::ACCEPTED, &taken));
        }
        let body = if moved.is_empty() { whole() } else { body_of(&others) };
        let answer = {
            let asked = pin!(self.ask(legacy, headers, body, metrics));
            let shadowed = pin!(self.shadow(headers, &shadows, routes, now));
            match select(asked, shadowed).await {
                Either::Left((answer, _)) => answer?,
                Either::Right(((), asked)) => asked.await?,
            }
        };
        let Some(identity) = identity.filter(|_| answer.status().is_success()) else { return Ok(answer) };
        let stamp = stamp(headers, routes, now);
        let Accepted { accepted, rejected } = self.accept(&identity, moved, &stamp, routes, metrics).await?;
        Ok(json(StatusCode::ACCEPTED, &Accepted { accepted: accepted + others.len(), rejected }))
    }

    async fn ask(
        &self,
        legacy: &Legacy,
        headers: &HeaderMap,
        body: Vec<u8>,
        metrics: &Metrics,
    ) -> Result<Response<Body>, Problem> {
        let answer = legacy.ask(headers, body, Instant::now()).await;
        let status = answer.as_ref().map_or_else(|problem| problem.status, Response::status);
        metrics.add(Metric::LegacyRequests(status), 1);
        answer
    }

    /// Appends copies of events, marked. Only what our own rules let in: a request that the legacy system refuses may still be one of a stranger.
    /// It may be dropped at any time: an append that has begun goes on.
    async fn shadow(&self, headers: &HeaderMap, events: &[&RawValue], routes: &Routes, now: u64) {
        if events.is_empty() {
            return;
        }
        let mut missed = Missed { tally: Arc::clone(&self.shadows), events: events.len() as u64 };
        let Ok(identity) = self.identify(headers).await else { return };
        let valid = events.iter().filter_map(|event| validate(event, now, self.window).ok());
        let valid: Vec<_> = valid.filter(|event| identity.may(&event.profile_id)).collect();
        let stamp = Stamp { shadow: true, ..stamp(headers, routes, now) };
        let (mut local, mut remote) = (Load::default(), Load::default());
        for envelope in group(valid, &stamp) {
            self.load(envelope, routes, &mut local, &mut remote);
        }
        let begun: u64 = local.sizes.iter().chain(&remote.sizes).sum();
        missed.events -= begun;
        let (log, remote_log, operator, tally) =
            (self.local.clone(), self.remote.clone(), routes.log(), Arc::clone(&self.shadows));
        // On its own, so that it outlives the live answer.
        let appending = tokio::spawn(async move {
            let here = log.append(&local.records, operator).await;
            let elsewhere = match &remote_log {
                Some(log) => log.append(&remote.records, operator).await.fates,
                None => Vec::new(),
            };
            let fates = here.fates.iter().chain(&elsewhere);
            for (fate, events) in fates.zip(local.sizes.iter().chain(&remote.sizes)) {
                let count = if fate.result.is_ok() { &tally.appended } else { &tally.missed };
                count.fetch_add(*events, Relaxed);
            }
        });
        drop(missed);
        drop(appending.await);
    }
}

/// Events of which no copy was begun; they are counted as missed, also when the live answer came first.
struct Missed {
    tally: Arc<ShadowTally>,
    events: u64,
}

impl Drop for Missed {
    fn drop(&mut self) {
        self.tally.missed.fetch_add(self.events, Relaxed);
    }
}

/// A request with these events alone.
fn body_of(events: &[&RawValue]) -> Vec<u8> {
    let events: Vec<&str> = events.iter().map(|event| event.get()).collect();
    format!("{{\"events\":[{}]}}", events.join(",")).into_bytes()
}

#[cfg(test)]
mod tests;
