//! What goes wrong between the player and us: events are lost, malformed, late, out of order or
//! sent again.
//!
//! Each fault has its own random stream. So the same seed loses the same events, whether or not
//! others are sent twice. Of all rates, only `--lost` changes the expected views.

use super::event::EdgeEvent;
use super::plan::{PlannedEvent, Post};
use super::{Stream, rng};
use playback::session::SessionId;
use rand::{Rng, RngExt, seq::SliceRandom};
use serde::Serialize;
use std::collections::BTreeMap;

const SECOND: i64 = 1_000;
const MINUTE: i64 = 60 * SECOND;
const YEAR: i64 = 365 * 24 * 60 * MINUTE;

/// A held-back tail is sent in POSTs of up to this many events, as by a device that comes back
/// online.
const BACKLOG: usize = 100;

/// How often each fault happens, 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, clap::Args)]
pub struct Faults {
    /// Share of events that are sent again, as whole POSTs or alone, at once or much later
    #[arg(long, value_name = "RATE", value_parser = rate, default_value_t = Faults::default().duplicates)]
    pub duplicates: f64,
    /// Share of POSTs that are delayed or shuffled, or of which one event is delayed
    #[arg(long, value_name = "RATE", value_parser = rate, default_value_t = Faults::default().reorder)]
    pub reorder: f64,
    /// Share of sessions whose tail is held back until everything else has been sent
    #[arg(long, value_name = "RATE", value_parser = rate, default_value_t = Faults::default().late)]
    pub late: f64,
    /// Share of events that are never sent
    #[arg(long, value_name = "RATE", value_parser = rate, default_value_t = Faults::default().lost)]
    pub lost: f64,
    /// Malformed events to add, as a share of the good ones
    #[arg(long, value_name = "RATE", value_parser = rate, default_value_t = Faults::default().malformed)]
    pub malformed: f64,
}

impl Faults {
    /// A perfect network and perfect players.
    pub const NONE: Self = Self { duplicates: 0.0, reorder: 0.0, late: 0.0, lost: 0.0, malformed: 0.0 };
}

impl Default for Faults {
    fn default() -> Self {
        Self { duplicates: 0.02, reorder: 0.05, late: 0.02, lost: 0.002, malformed: 0.005 }
    }
}

pub(super) fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|error| format!("{error}"))?;
    if (0.0..=1.0).contains(&rate) { Ok(rate) } else { Err("must be between 0 and 1".to_owned()) }
}

/// How many times each fault was applied.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Applied {
    /// Events never sent.
    pub lost: usize,
    /// Malformed events added, not counting copies. About as many others were made odd.
    pub malformed: usize,
    /// Sessions whose tail was held back.
    pub late_sessions: usize,
    /// POSTs that were delayed or shuffled, or of which one event was delayed.
    pub reordered_posts: usize,
    /// Events sent again, including malformed ones.
    pub repeated: usize,
}

/// Turns the ideal POSTs into those that are really sent. The result is not sorted.
pub(super) fn apply(mut posts: Vec<Post>, faults: &Faults, seed: u64) -> (Vec<Post>, Applied) {
    let mut applied = Applied { lost: lose(&mut posts, faults.lost, seed), ..Applied::default() };
    applied.malformed = spoil(&mut posts, faults.malformed, seed);
    applied.late_sessions = hold_back(&mut posts, faults.late, seed);
    applied.reordered_posts = reorder(&mut posts, faults.reorder, seed);
    applied.repeated = repeat(&mut posts, faults.duplicates, seed);
    posts.retain(|post| !post.events.is_empty());
    (posts, applied)
}

fn lose(posts: &mut [Post], rate: f64, seed: u64) -> usize {
    let mut rng = rng(seed, Stream::Lost);
    let count = |posts: &[Post]| posts.iter().map(|post| post.events.len()).sum::<usize>();
    let before = count(posts);
    for post in &mut *posts {
        post.events.retain(|_| !rng.random_bool(rate));
    }
    before - count(posts)
}

fn spoil(posts: &mut [Post], rate: f64, seed: u64) -> usize {
    let mut rng = rng(seed, Stream::Malformed);
    let mut added = 0;
    for post in posts {
        // Backwards, so that an inserted event is not itself visited.
        for good in (0..post.events.len()).rev() {
            if rng.random_bool(rate) {
                let mut event = post.events[good].event.clone();
                let code = DEFECTS[rng.random_range(0..DEFECTS.len())](&mut event, &mut rng);
                let place = rng.random_range(good + 1..=post.events.len());
                post.events.insert(place, PlannedEvent { event, rejected_as: Some(code) });
                added += 1;
            }
            if rng.random_bool(rate) {
                ODDITIES[rng.random_range(0..ODDITIES.len())](&mut post.events[good].event);
            }
        }
    }
    added
}

/// Breaks one rule of the contract. Returns the code that must reject the event.
type Defect = fn(&mut EdgeEvent, &mut dyn Rng) -> &'static str;

const DEFECTS: [Defect; 12] = [
    |event, _| {
        event.kind = "rewound".into();
        "kind_unknown"
    },
    |event, _| {
        event.position_ms = -1;
        "position_out_of_range"
    },
    |event, _| {
        event.position_ms = i64::MAX;
        "position_out_of_range"
    },
    |event, _| {
        event.seq = -1 - event.seq;
        "seq_out_of_range"
    },
    |event, _| {
        event.seq = 70_000;
        "seq_out_of_range"
    },
    |event, _| {
        event.session_id.make_ascii_lowercase();
        "session_id_malformed"
    },
    |event, _| {
        event.session_id = event.session_id.split('-').next_back().unwrap_or_default().to_owned();
        "session_id_malformed"
    },
    |event, rng| began_elsewhen(event, -YEAR, "session_too_old", rng),
    |event, rng| began_elsewhen(event, YEAR, "session_too_far_ahead", rng),
    |event, _| {
        event.profile_id = None;
        "field_missing"
    },
    |event, _| {
        event.profile_id = event.profile_id.take().map(|id| id + "#me");
        "profile_id_malformed"
    },
    |event, _| {
        event.title_id = "a title".to_owned();
        "title_id_malformed"
    },
];

/// Makes a field odd that only decorates. The event must be accepted all the same, and its view must
/// be as without that.
type Oddity = fn(&mut EdgeEvent);

const ODDITIES: [Oddity; 3] = [
    |event| event.occurred_at = -event.occurred_at,
    |event| event.device.kind = format!("{} ", event.device.kind).into(),
    |event| event.country = event.country.to_lowercase().into(),
];

/// A shift of a year is outside the window, both in virtual time and by the endpoint's clock.
fn began_elsewhen(event: &mut EdgeEvent, shift_ms: i64, code: &'static str, rng: &mut dyn Rng) -> &'static str {
    if let Ok(id) = event.session_id.parse::<SessionId>() {
        let began = (id.started_at() as i64 + shift_ms).max(0) as u64;
        event.session_id = SessionId::mint(id.home, began, u128::from(rng.next_u64())).to_string();
    }
    code
}

/// Takes the tails of some sessions out of their POSTs, and sends them after everything else.
fn hold_back(posts: &mut Vec<Post>, rate: f64, seed: u64) -> usize {
    let mut rng = rng(seed, Stream::Late);
    let mut last_seq: BTreeMap<String, i64> = BTreeMap::new();
    for event in posts.iter().flat_map(|post| &post.events).filter(|planned| planned.rejected_as.is_none()) {
        let last = last_seq.entry(event.event.session_id.clone()).or_insert(0);
        *last = event.event.seq.max(*last);
    }
    let mut held_from: BTreeMap<String, i64> = BTreeMap::new();
    for (session, last) in last_seq {
        let (chosen, share) = (rng.random_bool(rate), rng.random_range(0.0..1.0));
        if chosen && last > 0 {
            held_from.insert(session, 1 + (last as f64 * share) as i64);
        }
    }
    let is_held = |planned: &mut PlannedEvent| {
        planned.rejected_as.is_none()
            && held_from.get(&planned.event.session_id).is_some_and(|&from| planned.event.seq >= from)
    };
    let mut tails: BTreeMap<(String, String), Post> = BTreeMap::new();
    for post in posts.iter_mut() {
        let held: Vec<PlannedEvent> = post.events.extract_if(.., is_held).collect();
        for planned in held {
            let key = (planned.event.session_id.clone(), planned.event.device.id.clone());
            tails.entry(key).or_insert_with(|| post.with(0, Vec::new())).events.push(planned);
        }
    }
    let end = posts.iter().map(|post| post.at_ms).max().unwrap_or(0);
    for tail in tails.values() {
        for events in tail.events.chunks(BACKLOG) {
            let at_ms = end + rng.random_range(MINUTE..10 * MINUTE);
            posts.push(tail.with(at_ms, events.to_vec()));
        }
    }
    held_from.len()
}

fn reorder(posts: &mut Vec<Post>, rate: f64, seed: u64) -> usize {
    let mut rng = rng(seed, Stream::Reorder);
    let mut reordered = 0;
    let mut alone = Vec::new();
    for post in posts.iter_mut() {
        if post.events.is_empty() || !rng.random_bool(rate) {
            continue;
        }
        reordered += 1;
        let late = log_uniform(MINUTE, 20 * MINUTE, &mut rng);
        match rng.random_range(0..10) {
            0..5 => post.at_ms += late,
            5..8 => {
                let event = post.events.remove(rng.random_range(0..post.events.len()));
                alone.push(post.with(post.at_ms + late, vec![event]));
            }
            _ => post.events.shuffle(&mut rng),
        }
    }
    posts.append(&mut alone);
    reordered
}

/// Half of the copies are whole POSTs, half are single events. A copied event is in the same POST,
/// or in a separate one.
fn repeat(posts: &mut Vec<Post>, rate: f64, seed: u64) -> usize {
    let mut rng = rng(seed, Stream::Duplicates);
    let mut copies = Vec::new();
    let mut repeated = 0;
    for post in posts.iter_mut() {
        if rng.random_bool(rate / 2.0) {
            repeated += post.events.len();
            copies.push(post.with(post.at_ms + again_after(&mut rng), post.events.clone()));
        }
        for index in (0..post.events.len()).rev() {
            if rng.random_bool(rate / 2.0) {
                repeated += 1;
                let event = post.events[index].clone();
                if rng.random_bool(0.3) {
                    post.events.insert(index + 1, event);
                } else {
                    let at_ms = post.at_ms + again_after(&mut rng);
                    copies.push(post.with(at_ms, vec![event]));
                }
            }
        }
    }
    posts.append(&mut copies);
    repeated
}

fn again_after(rng: &mut impl Rng) -> i64 {
    if rng.random_bool(0.5) { rng.random_range(0..2 * SECOND) } else { log_uniform(MINUTE, 6 * 60 * MINUTE, rng) }
}

/// Log-uniform: 1 to 2 minutes is as likely as 2 to 4.
fn log_uniform(from_ms: i64, to_ms: i64, rng: &mut impl Rng) -> i64 {
    rng.random_range((from_ms as f64).ln()..(to_ms as f64).ln()).exp() as i64
}
