//! During a migration from a legacy system: which requests go to that system, which to the log, and
//! which to both.
//!
//! The routing document's rollout puts each profile on exactly one live path. Requests of `legacy`
//! and `shadow` profiles go to the legacy system, and its answer goes to the device unread. Events
//! of `shadow` profiles are also copied to the log ([`crate::shadow`]). A request with profiles on
//! both paths, as backends send them, is split, and is accepted only if both sides accept it.
//!
//! Without a rollout, every profile is on the legacy path.
//!
//! A beacon has become a normal request before ([`Post::to_pass_on`]): the legacy system gets its
//! token in the header and nothing of it in the body.

use crate::accept::{Accepted, Posted, posted, stamp};
use crate::beacon::Post;
use crate::legacy::Legacy;
use crate::{Ingest, body};
use futures::future::{Either, select};
use http::{HeaderMap, Response, StatusCode};
use lambda::metrics::{Metric, Metrics};
use lambda::problem::{Problem, json};
use lambda_http::Body;
use playback::edge::{BodyText, RawEvent};
use playback::rollout::{Path, Rollout};
use playback::routing::Routes;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::pin::pin;
use std::time::Instant;
use stream::DurableLog;

impl<L: DurableLog + 'static> Ingest<L> {
    /// Takes a request in while there is a legacy system.
    pub(crate) async fn migrate(
        &self,
        legacy: &Legacy,
        post: &Post<'_>,
        routes: &Routes,
        metrics: &Metrics,
        now: u64,
    ) -> Result<Response<Body>, Problem> {
        let headers = &*post.headers;
        let whole = || post.body.to_vec();
        let read = body::read(headers, &post.body);
        let text = BodyText::new(read.as_deref().unwrap_or_default());
        let read = read.as_ref().map_err(Problem::clone).and_then(|_| posted(&text));
        let Posted { events, sent_at, adjusted } = match read {
            Ok(read) if !read.events.is_empty() => read,
            unusual if routes.rollout().is_some_and(Rollout::is_complete) => {
                let identity = self.identify(headers).await?;
                let Posted { sent_at, adjusted, .. } = unusual?;
                let stamp = stamp(headers, routes, sent_at, now);
                let accepted = self.accept(&identity, [], adjusted, &stamp, routes, metrics).await?;
                return Ok(json(StatusCode::ACCEPTED, &accepted));
            }
            // It is not in our contract's form, so we cannot tell whose it is.
            _ => return self.ask(legacy, headers, whole(), metrics).await,
        };
        let stamp = stamp(headers, routes, sent_at, now);
        let Split { moved, others, shadows } = Split::of(events, routes.rollout());
        // Checked before the legacy system is asked, so that neither side accepts an
        // unauthenticated request alone.
        let identity = if moved.is_empty() { None } else { Some(self.identify(headers).await?) };
        if let Some(identity) = identity.as_ref().filter(|_| others.is_empty()) {
            let accepted = self.accept(identity, moved, adjusted, &stamp, routes, metrics).await?;
            return Ok(json(StatusCode::ACCEPTED, &accepted));
        }
        let body = if moved.is_empty() { whole() } else { body_of(&others, sent_at) };
        let answer = {
            let asked = pin!(self.ask(legacy, headers, body, metrics));
            let shadowed = pin!(self.shadow(headers, &shadows, &stamp, routes));
            match select(asked, shadowed).await {
                Either::Left((answer, _)) => answer?,
                Either::Right(((), asked)) => asked.await?,
            }
        };
        let Some(identity) = identity.filter(|_| answer.status().is_success()) else { return Ok(answer) };
        let ours = self.accept(&identity, moved, adjusted, &stamp, routes, metrics).await?;
        Ok(json(StatusCode::ACCEPTED, &Accepted { accepted: ours.accepted + others.len(), ..ours }))
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
}

/// A request's events, by the path of their profile.
#[derive(Default)]
struct Split<'a> {
    /// On the path `async`, each with its index in the request.
    moved: Vec<(usize, RawEvent<'a>)>,
    /// For the legacy system.
    others: Vec<RawEvent<'a>>,
    /// Those of `others` that are also copied to the log.
    shadows: Vec<RawEvent<'a>>,
}

impl<'a> Split<'a> {
    fn of(events: Vec<RawEvent<'a>>, rollout: Option<&Rollout>) -> Self {
        let mut split = Self::default();
        for (index, event) in events.into_iter().enumerate() {
            match path_of(event.json, rollout) {
                Path::Async => split.moved.push((index, event)),
                path => {
                    split.others.push(event);
                    split.shadows.extend((path == Path::Shadow).then_some(event));
                }
            }
        }
        split
    }
}

/// The one field that decides the path.
#[derive(Deserialize)]
struct Whose<'a> {
    #[serde(borrow, default)]
    profile_id: Option<Cow<'a, str>>,
}

fn path_of(event: &RawValue, rollout: Option<&Rollout>) -> Path {
    let whose = serde_json::from_str::<Whose<'_>>(event.get()).ok().and_then(|whose| whose.profile_id);
    let path = rollout.zip(whose).map(|(rollout, profile_id)| rollout.path(&profile_id));
    // An event without a profile stays on the legacy path until all profiles have left it.
    path.unwrap_or_else(|| if rollout.is_some_and(Rollout::is_complete) { Path::Async } else { Path::Legacy })
}

/// A request's body with these events alone.
fn body_of(events: &[RawEvent<'_>], sent_at: Option<u64>) -> Vec<u8> {
    let events: Vec<&str> = events.iter().map(|event| event.json.get()).collect();
    let sent_at = sent_at.map(|at| format!("\"sent_at\":{at},")).unwrap_or_default();
    format!("{{{sent_at}\"events\":[{}]}}", events.join(",")).into_bytes()
}

#[cfg(test)]
mod tests;
