//! What both fault suites measure.

use std::collections::BTreeMap;
use std::time::Duration;

use simulate::expect::{Expected, SessionView};
use simulate::send::Attempt;

/// How many accepted events the views lack, and how many surplus events they have.
#[must_use]
pub fn lost_and_twice(expected: &Expected, histories: &BTreeMap<String, Vec<SessionView>>) -> (u64, u64) {
    let mut left: BTreeMap<(String, String), i64> =
        expected.views.iter().map(|(key, view)| (key.clone(), view.events)).collect();
    for (profile, sessions) in histories {
        for session in sessions {
            *left.entry((profile.clone(), session.session_id.clone())).or_default() -= session.events;
        }
    }
    let lost = left.values().filter(|left| **left > 0).sum::<i64>();
    let twice = -left.values().filter(|left| **left < 0).sum::<i64>();
    (lost.unsigned_abs(), twice.unsigned_abs())
}

/// Median and 99th percentile of the first attempts, in milliseconds.
#[must_use]
pub fn first_attempts<'a>(attempts: impl IntoIterator<Item = &'a Attempt>) -> (u128, u128) {
    let firsts = attempts.into_iter().filter(|attempt| attempt.number == 0);
    let mut took: Vec<u128> = firsts.map(|attempt| attempt.took.as_millis()).collect();
    took.sort_unstable();
    (at(&took, 0.5), at(&took, 0.99))
}

/// A part as a share of a whole; 0 if the whole is 0.
#[must_use]
pub fn share(part: usize, of: usize) -> f64 {
    part as f64 / of.max(1) as f64
}

/// Seconds, to a tenth.
#[must_use]
pub fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10.0).round() / 10.0
}

/// The value below which this share of sorted values lies; 0 if there are none.
fn at(sorted: &[u128], share: f64) -> u128 {
    sorted.get(((sorted.len().max(1) - 1) as f64 * share) as usize).copied().unwrap_or_default()
}
