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
//! Where the events cannot be read, or none of them names a profile, the token's profiles decide: if
//! all have moved, the answer is ours, and otherwise the legacy system's. So it may see such a request
//! of a household or a backend with profiles on both paths. The alternative would be to refuse what
//! the legacy system takes from profiles that have not moved, and their devices would drop it.
//!
//! A beacon has become a normal request before ([`Post::to_pass_on`]): the legacy system gets its
//! token in the header and nothing of it in the body.

use crate::accept::{Accepted, Posted, posted, stamp};
use crate::beacon::Post;
use crate::legacy::{Legacy, Passed};
use crate::{Ingest, body};
use futures::future::{Either, select};
use http::{HeaderMap, Response, StatusCode};
use lambda::auth::{Identity, Scope};
use lambda::metrics::{Metric, Metrics};
use lambda::problem::{Problem, json};
use lambda_http::Body;
use playback::edge::{BodyText, RawEvent};
use playback::rollout::{Path, Rollout, Share};
use playback::routing::Routes;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;
use stream::DurableLog;

impl<L: DurableLog + 'static> Ingest<L> {
    /// Takes a request in while there is a legacy system. `query` is the query string of its URL.
    pub(crate) async fn migrate(
        &self,
        legacy: &Legacy,
        post: &Post<'_>,
        query: Option<&str>,
        routes: &Routes,
        metrics: &Metrics,
        now: u64,
    ) -> Result<Response<Body>, Problem> {
        let headers = &*post.headers;
        body::check_intact(headers, &post.body)?;
        let read = body::read(headers, &post.body);
        let text = BodyText::new(read.as_deref().unwrap_or_default());
        let read = read.as_ref().map_err(Problem::clone).and_then(|bytes| Ok((bytes, posted(&text)?)));
        let whole = Passed::whole(post, query);
        let (bytes, Posted { events, sent_at, adjusted }) = match read {
            Ok((bytes, posted)) if posted.events.iter().any(|event| profile_of(event.json).is_some()) => {
                (bytes, posted)
            }
            unplaced => {
                let Some(identity) = self.moved(headers, routes.rollout()).await? else {
                    return self.ask(legacy, whole, metrics).await;
                };
                let (_, Posted { events, sent_at, adjusted }) = unplaced?;
                let (stamp, events) = (stamp(headers, routes, sent_at, now), events.into_iter().enumerate());
                let accepted = self.accept(&identity, events, adjusted, &stamp, routes, metrics).await?;
                return Ok(json(StatusCode::ACCEPTED, &accepted));
            }
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
        let passed = if moved.is_empty() { whole } else { whole.with_body(body_of(bytes, &others)?) };
        let answer = {
            let asked = pin!(self.ask(legacy, passed, metrics));
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

    /// The sender of a request that does not say whose its events are, if all of the token's
    /// profiles have moved.
    async fn moved(&self, headers: &HeaderMap, rollout: Option<&Rollout>) -> Result<Option<Arc<Identity>>, Problem> {
        let has_begun =
            |rollout: &&Rollout| rollout.async_share() > Share::NONE || !rollout.always().of(Path::Async).is_empty();
        // As long as nobody has moved, no token is checked.
        let Some(rollout) = rollout.filter(has_begun) else { return Ok(None) };
        let identity = self.identify(headers).await;
        if rollout.is_complete() {
            return identity.map(Some);
        }
        let have_moved = |identity: &Arc<Identity>| match &identity.scope {
            Scope::Profiles(profiles) => {
                !profiles.is_empty() && profiles.iter().all(|profile_id| rollout.path(profile_id) == Path::Async)
            }
            Scope::Service => false,
        };
        match identity {
            // Its token may be of the legacy system alone.
            Err(problem) if problem.status == StatusCode::UNAUTHORIZED => Ok(None),
            identity => Ok(Some(identity?).filter(have_moved)),
        }
    }

    async fn ask(&self, legacy: &Legacy, request: Passed, metrics: &Metrics) -> Result<Response<Body>, Problem> {
        let answer = legacy.ask(request, Instant::now()).await;
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
    /// An event that names no profile goes to the log if all others do, and else to the legacy
    /// system.
    fn of(events: Vec<RawEvent<'a>>, rollout: Option<&Rollout>) -> Self {
        let path = |event: &RawEvent<'_>| {
            let profile_id = profile_of(event.json)?;
            Some(rollout.map_or(Path::Legacy, |rollout| rollout.path(&profile_id)))
        };
        let paths: Vec<Option<Path>> = events.iter().map(path).collect();
        let have_moved = paths.iter().flatten().all(|path| *path == Path::Async);
        let of_strays = if have_moved { Path::Async } else { Path::Legacy };
        let mut split = Self::default();
        for (index, (event, path)) in events.into_iter().zip(paths).enumerate() {
            match path.unwrap_or(of_strays) {
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

fn profile_of(event: &RawValue) -> Option<Cow<'_, str>> {
    serde_json::from_str::<Whose<'_>>(event.get()).ok().and_then(|whose| whose.profile_id)
}

/// A request's body with these events alone, and everything else that it says.
fn body_of(body: &[u8], events: &[RawEvent<'_>]) -> Result<Vec<u8>, Problem> {
    let malformed = |error: serde_json::Error| Problem::bad_request("malformed_request", error.to_string());
    let text = String::from_utf8_lossy(body);
    let mut members: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_str(&text).map_err(malformed)?;
    let events: Vec<&RawValue> = events.iter().map(|event| event.json).collect();
    let events = serde_json::value::to_raw_value(&events).map_err(malformed)?;
    members.insert(Cow::Borrowed("events"), &events);
    serde_json::to_vec(&members).map_err(malformed)
}

#[cfg(test)]
pub(crate) mod tests;
