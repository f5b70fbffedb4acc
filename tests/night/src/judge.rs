//! The oracle: which promises were broken.

use crate::Game;
use crate::region::World;
use crate::weather::{CLOCK_ERROR, Weather, What};
use apply::DeadLetter;
use operate::books::Books;
use playback::fold::ViewKey;
use playback::history::is_erased;
use playback::view::View;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// How long after the last repair everything must be done.
const SETTLED_WITHIN: Duration = Duration::from_secs(2 * 3_600);
/// How long the retries of the mappings of `forward` last, at least: 10,000, soon every 10 s.
const RETRIES_LAST: Duration = Duration::from_secs(24 * 3_600);
/// How many calls of the table an accepted event may cost on average, retries in outages included.
const CALLS_PER_EVENT: f64 = 60.0;

/// What happened in a game.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Virtual hours with devices and faults.
    pub hours: u64,
    /// Faults, by what failed.
    pub faults: BTreeMap<String, u64>,
    /// Events that were accepted.
    pub accepted: u64,
    /// Requests answered with `503`.
    pub refused: u64,
    /// Invocations, and those that crashed.
    pub invocations: u64,
    /// Invocations that crashed.
    pub crashes: u64,
    /// Calls of the table per accepted event.
    pub calls_per_event: f64,
    /// Seconds from the end of the faults until devices had sent everything and nothing was on its way.
    pub settled_after_s: Option<u64>,
    /// The same for the same seed and code.
    pub fingerprint: u64,
    /// The promises that were broken, in words.
    pub broken: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, hours, accepted, refused, invocations, crashes, calls_per_event, .. } = self;
        write!(f, "seed {seed}: {hours} h, {accepted} events, {refused} refused, {invocations} invocations")?;
        write!(f, " ({crashes} crashed), {calls_per_event:.1} calls per event")?;
        match self.settled_after_s {
            Some(s) => write!(f, ", settled after {s} s")?,
            None => write!(f, ", never settled")?,
        }
        self.broken.iter().try_for_each(|broken| write!(f, "\n  BROKEN: {broken}"))
    }
}

type Views = BTreeMap<ViewKey, View>;

fn join(views: &mut Views, key: ViewKey, view: View) {
    match views.get_mut(&key) {
        Some(known) => known.merge(&view),
        None => drop(views.insert(key, view)),
    }
}

/// What of a view does not depend on which of several receipts counted.
fn content(view: &View) -> impl PartialEq + fmt::Debug + use<> {
    let latest = &view.latest;
    (view.seen.clone(), view.played.clone(), latest.seq, latest.position_ms, latest.kind, view.title_duration_ms())
}

/// Judges a world that has come to rest.
pub(crate) fn judge(game: &Game, weather: &Weather, world: &World, settled: Option<Duration>) -> Report {
    let mut broken = Vec::new();
    let of_link = weather.spells.iter().filter(|spell| spell.what == What::Link);
    let links_away = Duration::from_millis(of_link.map(|spell| spell.to - spell.from).sum());
    let is_calm = |what| !weather.spells.iter().any(|spell| spell.what == what);
    let accepted = world.accepted.lock().unwrap_or_else(PoisonError::into_inner);
    let (mut expected, mut actual) = (Views::new(), Views::new());
    for envelope in &accepted.envelopes {
        if let Some(view) = View::of_envelope(envelope) {
            let (profile_id, session_id) = (envelope.profile_id.clone(), envelope.session_id.clone());
            join(&mut expected, ViewKey { profile_id, session_id, title_id: envelope.title_id.clone() }, view);
        }
    }
    let mut dead = Vec::new();
    let (mut invocations, mut crashes, mut calls) = (0, 0, 0);
    let mut books = Books::default();
    for region in &world.regions {
        region.table.items.views().into_iter().for_each(|(key, view)| join(&mut actual, key, view));
        dead.extend(region.dead.bodies());
        calls += region.table.calls.load(Relaxed);
        let ledger = region.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        books += &ledger.books;
        invocations += ledger.invocations;
        crashes += ledger.crashes;
        if ledger.errors > 0 {
            broken.push(format!("{} invocations ended in an error of the function", ledger.errors));
        }
        let here = &region.regions.here().home;
        // What a region does not take until the mapping's retries are used up is folded where it is.
        let is_abroad = |key: &ViewKey| key.session_id.home != *here && links_away < RETRIES_LAST;
        for key in region.table.items.views().into_keys().filter(is_abroad) {
            broken.push(format!("not folded in its own region: {}", key.session_id));
        }
        for key in region.table.spoilt() {
            broken.push(format!("{}: a field of the next version is lost", key.session_id));
        }
        if ledger.time_outs > 0 {
            broken.push(format!("{} invocations ran into their time-out", ledger.time_outs));
        }
        for queue in [&region.retry, &region.inbound, &region.dead] {
            let (_, raw_dead, expired) = queue.counts();
            if raw_dead > 0 || expired > 0 {
                broken.push(format!("SQS gave up {raw_dead} messages and lost {expired}"));
            }
        }
        if settled.is_some() && region.bucket.len() > 0 {
            // A deletion whose answer was lost is not repeated; the bucket's lifecycle removes it.
            let forgotten = weather.spells.iter().any(|spell| spell.what == What::Bucket);
            if !forgotten {
                broken.push(format!("{} objects are left in the bucket", region.bucket.len()));
            }
        }
    }
    broken.extend(accepted.given_up.iter().map(|answer| format!("refused for good: {answer}")));
    let erased = world.erased.lock().unwrap_or_else(PoisonError::into_inner);
    for (key, view) in &expected {
        let up_to = erased.get(&key.profile_id).copied().unwrap_or_default();
        let is_gone = is_erased(&key.session_id, view, Some(up_to.answered.saturating_sub(CLOCK_ERROR)));
        if is_gone && actual.contains_key(key) {
            broken.push(format!("erased, and there again: {}", key.session_id));
        }
        if is_gone || is_erased(&key.session_id, view, Some(up_to.tried + CLOCK_ERROR)) {
            continue;
        }
        match actual.get(key) {
            None => broken.push(format!("lost: all of {}", key.session_id)),
            Some(stored) if content(stored) != content(view) => {
                broken.push(format!("{}: {:?} is not {:?}", key.session_id, content(stored), content(view)));
            }
            Some(_) => {}
        }
    }
    actual
        .keys()
        .filter(|key| !expected.contains_key(key))
        .for_each(|key| broken.push(format!("made up: {}", key.session_id)));
    let letters: Vec<DeadLetter> = dead.iter().filter_map(|body| serde_json::from_str(body).ok()).collect();
    if let Some(unlucky) = letters.iter().find(|letter| letter.reason != "not_an_envelope") {
        broken.push(format!("dead, but only unlucky: {} ({})", unlucky.reason, unlucky.detail));
    }
    let distinct: BTreeSet<&str> = letters.iter().map(|letter| letter.letter.value_base64.as_str()).collect();
    let poison = accepted.poison..=accepted.poison + accepted.maybe_poison;
    if !poison.contains(&(distinct.len() as u64)) {
        broken.push(format!("of {poison:?} records of garbage, {} are dead", distinct.len()));
    }
    if is_calm(What::Crashes)
        && is_calm(What::Twice)
        && is_calm(What::Queues)
        && is_calm(What::Link)
        && letters.len() > distinct.len()
    {
        let copies = letters.len() - distinct.len();
        // The logs may have a copy each.
        if is_calm(What::Primary) && is_calm(What::Standby) {
            broken.push(format!("{copies} records of garbage are dead twice"));
        }
    }
    for (minute, books) in &books.minutes {
        let lost = books.loss();
        if lost > 0 {
            broken.push(format!("the books of {minute} miss {lost}: {books:?}"));
        }
        // A function that crashes takes its metrics along, and what a queue delivers again is
        // counted again.
        if crashes == 0 && is_calm(What::Twice) && lost.unsigned_abs() > books.unclaimed {
            broken.push(format!("the books of {minute} have {} too many: {books:?}", -lost));
        }
    }
    let calls_per_event = calls as f64 / (books.accepted as f64).max(1.0);
    if calls_per_event > CALLS_PER_EVENT {
        broken.push(format!("{calls_per_event:.1} calls of the table per event"));
    }
    if settled.is_none_or(|after| after > SETTLED_WITHIN) {
        broken.push("the backlog was not gone in time, or devices were still refused".to_owned());
    }
    let mut hasher = DefaultHasher::new();
    (format!("{actual:?}"), &dead, calls, invocations, crashes, settled).hash(&mut hasher);
    let mut faults: BTreeMap<String, u64> = BTreeMap::new();
    for spell in &weather.spells {
        *faults.entry(format!("{:?} {:?}", spell.what, spell.fault)).or_default() += 1;
    }
    Report {
        seed: game.seed,
        hours: game.hours,
        faults,
        accepted: books.accepted,
        refused: accepted.refused,
        invocations,
        crashes,
        calls_per_event,
        settled_after_s: settled.map(|after| after.as_secs()),
        fingerprint: hasher.finish(),
        broken,
    }
}
