//! The plan: every POST that the simulated devices will make, in sending order. It is a pure
//! function of the model and the start time, so the same seed always plans the same bytes.

use super::event::EdgeEvent;
use super::faults::{self, Applied};
use super::viewer::{self, Timed};
use super::{Model, Stream, rng, travel};
use anyhow::{Context, Result, ensure};
use playback::session::{Home, SessionId};
use rand::RngExt;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

/// Default start of virtual time (2026-09-21T14:13:20Z). It is fixed, so that traces are
/// repeatable.
pub const DEFAULT_START_AT: i64 = 1_790_000_000_000;

/// Maximum number of events in one POST. The contract allows 500. This limit also keeps the largest
/// events within 256 KiB.
const MAX_EVENTS: usize = 400;

/// Maximum length of a plan. By default, sessions older than 30 days are refused.
const MAX_SPAN_MS: i64 = 29 * 24 * 3_600_000;

/// A device sends its buffer when nothing has happened for this long.
const IDLE_FLUSH_MS: i64 = 60_000;

/// All POSTs in sending order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// In sending order.
    pub posts: Vec<Post>,
    /// What the faults did to the ideal trace.
    pub applied: Applied,
}

/// One POST: events of one device and one profile, so one token is enough.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Post {
    /// When it is sent, virtual Unix milliseconds.
    pub at_ms: i64,
    /// The home region whose API it is sent to.
    pub through: Home,
    /// Whose token it carries.
    pub profile_id: String,
    /// In the order of the body.
    pub events: Vec<PlannedEvent>,
}

/// One event of a POST, and whether the contract must accept it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedEvent {
    /// The event to send.
    pub event: EdgeEvent,
    /// The code that must reject it. `None` if it must be accepted.
    pub rejected_as: Option<&'static str>,
}

impl Plan {
    /// The plan of the model. Virtual time starts at `start_at`, Unix milliseconds.
    ///
    /// # Errors
    /// If the model is impossible: no titles or homes, no region to travel to, or so few viewers
    /// that they would watch for a month.
    pub fn new(model: &Model, start_at: i64) -> Result<Self> {
        let ideal = buffer(viewer::watch(model, start_at)?, model.seed);
        let (posts, applied) = faults::apply(ideal, &model.faults, model.seed);
        let mut posts: Vec<Post> = posts.into_iter().flat_map(within_limits).collect();
        posts.sort_by_key(|post| post.at_ms);
        travel::travel(&mut posts, model)?;
        let plan = Self { posts, applied };
        let span = plan.span_ms(start_at);
        ensure!(
            span < MAX_SPAN_MS,
            "{} viewers need {} days for {} sessions, but sessions older than 30 days are refused: allow more viewers",
            model.viewer_count(),
            span / 86_400_000,
            model.sessions
        );
        Ok(plan)
    }

    /// The plan of the model, with its last POST at `end_at`. A live endpoint needs this: it
    /// refuses sessions that begin in its future or too far in its past.
    ///
    /// # Errors
    /// As [`Plan::new`].
    pub fn ending_at(model: &Model, end_at: i64) -> Result<Self> {
        let span = Self::new(model, 0)?.span_ms(0);
        Self::new(model, end_at - span)
    }

    /// All events, including malformed ones and copies.
    pub fn events(&self) -> impl Iterator<Item = &PlannedEvent> {
        self.posts.iter().flat_map(|post| &post.events)
    }

    /// Sessions whose events go through more than one region.
    #[must_use]
    pub fn travelled(&self) -> BTreeSet<&str> {
        let mut through: BTreeMap<&str, &Home> = BTreeMap::new();
        let mut travelled = BTreeSet::new();
        for post in &self.posts {
            for session in post.sessions() {
                if *through.entry(session).or_insert(&post.through) != &post.through {
                    travelled.insert(session);
                }
            }
        }
        travelled
    }

    /// Writes the trace: one event per line, with the extra fields `received_at` (virtual), `post`
    /// (its index) and, if the POST does not go through the session's home region, `through`.
    ///
    /// # Errors
    /// If `out` cannot be written.
    pub fn write_trace(&self, mut out: impl Write) -> Result<()> {
        #[derive(Serialize)]
        struct Line<'a> {
            #[serde(flatten)]
            event: &'a EdgeEvent,
            received_at: i64,
            post: usize,
            #[serde(skip_serializing_if = "Option::is_none")]
            through: Option<&'a str>,
        }
        for (index, post) in self.posts.iter().enumerate() {
            for planned in &post.events {
                let home = planned.event.session_id.split('-').next();
                let through = Some(post.through.as_str())
                    .filter(|through| home != Some(*through) && planned.rejected_as.is_none());
                let line = Line { event: &planned.event, received_at: post.at_ms, post: index, through };
                serde_json::to_writer(&mut out, &line)?;
                out.write_all(b"\n").context("writing the trace")?;
            }
        }
        out.flush().context("writing the trace")
    }

    fn span_ms(&self, start_at: i64) -> i64 {
        self.posts.last().map_or(0, |post| post.at_ms - start_at)
    }
}

impl Post {
    /// A POST of the same device with these events at this time.
    pub(super) fn with(&self, at_ms: i64, events: Vec<PlannedEvent>) -> Self {
        Self { at_ms, events, through: self.through.clone(), profile_id: self.profile_id.clone() }
    }

    /// The sessions of its well-formed events, in order.
    pub fn sessions(&self) -> Vec<&str> {
        let good = self.events.iter().filter(|planned| planned.rejected_as.is_none());
        let mut sessions: Vec<&str> = good.map(|planned| planned.event.session_id.as_str()).collect();
        sessions.dedup();
        sessions
    }

    /// The JSON body of the request.
    ///
    /// # Errors
    /// Never in practice: all values can be written as JSON.
    pub fn body(&self) -> Result<Vec<u8>> {
        #[derive(Serialize)]
        struct Body<'a> {
            events: Vec<&'a EdgeEvent>,
        }
        let events = self.events.iter().map(|planned| &planned.event).collect();
        Ok(serde_json::to_vec(&Body { events })?)
    }
}

/// Packs the events of each device into POSTs, as a player's buffer does: after 1 to 12 events, or
/// when nothing more happens for a while. A buffer may hold the end of one session and the start of
/// the next.
fn buffer(viewers: Vec<Vec<Timed>>, seed: u64) -> Vec<Post> {
    let mut rng = rng(seed, Stream::Buffer);
    let mut posts = Vec::new();
    for events in viewers {
        let mut by_device: BTreeMap<String, Vec<Timed>> = BTreeMap::new();
        for timed in events {
            by_device.entry(timed.event.device.id.clone()).or_default().push(timed);
        }
        for events in by_device.into_values() {
            let mut sent_at = i64::MIN;
            let mut full_at = rng.random_range(1..=12);
            let mut buffered: Vec<Timed> = Vec::new();
            let mut events = events.into_iter().peekable();
            while let Some(timed) = events.next() {
                let at_ms = timed.at_ms;
                buffered.push(timed);
                let idle = events.peek().is_none_or(|next| next.at_ms > at_ms + IDLE_FLUSH_MS);
                if idle || buffered.len() >= full_at {
                    sent_at = (at_ms + rng.random_range(50..800)).max(sent_at + 1); // a device sends one POST at a time
                    posts.extend(flush(&mut buffered, sent_at));
                    full_at = rng.random_range(1..=12);
                }
            }
        }
    }
    posts.sort_by_key(|post| post.at_ms);
    posts
}

fn flush(buffered: &mut Vec<Timed>, at_ms: i64) -> Option<Post> {
    let first = &buffered.first()?.event;
    let (profile_id, through) = (first.profile_id.clone()?, first.session_id.parse::<SessionId>().ok()?.home);
    let events = buffered.drain(..).map(|timed| PlannedEvent { event: timed.event, rejected_as: None }).collect();
    Some(Post { at_ms, through, profile_id, events })
}

fn within_limits(post: Post) -> Vec<Post> {
    let part = |events: &[PlannedEvent]| post.with(post.at_ms, events.to_vec());
    if post.events.len() <= MAX_EVENTS { vec![post] } else { post.events.chunks(MAX_EVENTS).map(part).collect() }
}
