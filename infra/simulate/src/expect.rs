//! What the views must be after a plan was sent. It is computed independently of the store and the
//! code under test, by a deliberately naive fold: sort all events of a session, and look at them at
//! once. It must not use the join of `playback`, or it would share its bugs.

use super::event::{Device, EdgeEvent};
use super::plan::Plan;
use super::send::SendReport;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::AddAssign;

/// The expected result of a plan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expected {
    /// By profile and session id.
    pub views: BTreeMap<(String, String), ExpectedView>,
    /// Well-formed events sent, copies included. All must be accepted.
    pub accepted: usize,
    /// Distinct (session, seq) among them. All must be applied.
    pub distinct: usize,
    /// The rest. They must be recognised as duplicates. There are more if a POST had to be sent
    /// again.
    pub duplicates: usize,
    /// Malformed events, by the code that must reject them.
    pub rejected: BTreeMap<String, usize>,
}

impl AddAssign for Expected {
    /// Adds what another plan must lead to. The plans have no session in common.
    fn add_assign(&mut self, other: Self) {
        self.views.extend(other.views);
        self.accepted += other.accepted;
        self.distinct += other.distinct;
        self.duplicates += other.duplicates;
        for (code, n) in other.rejected {
            *self.rejected.entry(code).or_default() += n;
        }
    }
}

/// One session's view, without the fields that depend on the server's clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExpectedView {
    /// Of the lowest seq.
    pub title_id: String,
    /// Of the greatest seq that states it, milliseconds.
    pub title_duration_ms: Option<i64>,
    /// Of the lowest seq; upper case.
    pub country: String,
    /// Of the greatest seq, but not past the end, milliseconds.
    pub position_ms: i64,
    /// Of the greatest seq, as the server shows it.
    pub device: ShownDevice,
    /// Length of the union of what was played, milliseconds.
    pub played_ms: i64,
    /// Watched to at least 95%.
    pub completed: bool,
    /// Distinct seqs.
    pub events: i64,
    /// Holes below the greatest seq.
    pub missing: i64,
}

/// A device in the history API's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownDevice {
    /// Absent if it was not stated, or is not an id.
    pub id: Option<String>,
    /// As stated, without spaces around it.
    pub kind: Option<String>,
}

impl ShownDevice {
    fn of(device: &Device) -> Self {
        Self { id: Some(device.id.clone()), kind: Some(device.kind.trim().to_owned()) }
    }
}

/// One session in the history API's answer. The server's times are not compared.
#[derive(Debug, Clone, Deserialize)]
#[expect(missing_docs, reason = "the fields of the contract")]
pub struct SessionView {
    pub session_id: String,
    pub title_id: String,
    pub position_ms: i64,
    pub played_ms: i64,
    pub title_duration_ms: Option<i64>,
    pub completed: bool,
    pub device: ShownDevice,
    pub country: Option<String>,
    pub events: i64,
    pub missing: i64,
    /// Whether the member hid it.
    pub hidden: bool,
}

/// One field of one session that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Whose session it is.
    pub profile_id: String,
    /// Which session.
    pub session_id: String,
    /// Which field. `session` if the session itself is missing or extra.
    pub field: &'static str,
    /// The expected value.
    pub expected: String,
    /// The actual value.
    pub actual: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { profile_id, session_id, field, expected, actual } = self;
        write!(f, "{profile_id} {session_id}: {field} is {actual}, expected {expected}")
    }
}

/// The expected result of `plan` if all its POSTs were accepted except those in `failed` (indexes).
pub fn expect(plan: &Plan, failed: &BTreeSet<usize>) -> Expected {
    let mut expected = Expected::default();
    let mut sessions: BTreeMap<(String, String), BTreeMap<i64, &EdgeEvent>> = BTreeMap::new();
    let sent = plan.posts.iter().enumerate().filter(|(index, _)| !failed.contains(index));
    for (post, planned) in sent.flat_map(|(_, post)| post.events.iter().map(move |planned| (post, planned))) {
        match planned.rejected_as {
            Some(code) => *expected.rejected.entry(code.to_owned()).or_default() += 1,
            None => {
                let event = &planned.event;
                let key = (post.profile_id.clone(), event.session_id.clone());
                sessions.entry(key).or_default().insert(event.seq, event);
                expected.accepted += 1;
            }
        }
    }
    expected.distinct = sessions.values().map(BTreeMap::len).sum();
    expected.duplicates = expected.accepted - expected.distinct;
    expected.views = sessions.into_iter().filter_map(|(key, events)| Some((key, view(&events)?))).collect();
    expected
}

/// The expected result of what was sent of `plan`: all its POSTs but those that failed or were not sent.
pub fn expect_sent(plan: &Plan, report: &SendReport) -> Expected {
    let left_out: BTreeSet<usize> = report.unsent.union(&report.failed_posts).copied().collect();
    expect(plan, &left_out)
}

/// The view of all distinct events of a session, by seq. `None` if there are none.
fn view(events: &BTreeMap<i64, &EdgeEvent>) -> Option<ExpectedView> {
    let (_, first) = events.first_key_value()?;
    let (last_seq, last) = events.last_key_value()?;
    let played = |e: &EdgeEvent| e.played_ms.clamp(0, e.position_ms);
    let mut intervals: Vec<_> = events.values().map(|e| (e.position_ms - played(e), e.position_ms)).collect();
    intervals.sort_unstable();
    let (mut played_ms, mut played_to) = (0, 0);
    for (from, to) in intervals {
        played_ms += (to - from.max(played_to)).max(0);
        played_to = played_to.max(to);
    }
    // The end of the last interval only counts if something was played up to it.
    let played_to = events.values().filter(|e| played(e) > 0).map(|e| e.position_ms).max().unwrap_or(0);
    let duration = events.values().rev().map(|e| e.title_duration_ms).find(|&duration| duration > 0);
    Some(ExpectedView {
        title_id: first.title_id.clone(),
        title_duration_ms: duration,
        country: first.country.to_uppercase(),
        position_ms: duration.map_or(last.position_ms, |end| last.position_ms.min(end)),
        device: ShownDevice::of(&last.device),
        played_ms,
        completed: duration.is_some_and(|duration| 20 * last.position_ms.max(played_to) >= 19 * duration),
        events: events.len() as i64,
        missing: last_seq + 1 - events.len() as i64,
    })
}

fn duration(stated: Option<i64>) -> i64 {
    stated.unwrap_or_default()
}

/// Compares the history API's answer for each profile (all pages) with the expected one: every
/// expected session once, field by field, and no other session.
pub fn check(expected: &Expected, actual: &BTreeMap<String, Vec<SessionView>>) -> Vec<Difference> {
    let mut differences = Vec::new();
    let mut seen: BTreeSet<(String, String)> = BTreeSet::new();
    for (profile_id, view) in actual.iter().flat_map(|(profile, views)| views.iter().map(move |view| (profile, view))) {
        let key = (profile_id.clone(), view.session_id.clone());
        let mut differs = |field, expected: String, actual: String| {
            if expected != actual {
                let (profile_id, session_id) = key.clone();
                differences.push(Difference { profile_id, session_id, field, expected, actual });
            }
        };
        match expected.views.get(&key) {
            None => differs("session", "absent".to_owned(), "present".to_owned()),
            Some(_) if seen.contains(&key) => differs("session", "once".to_owned(), "again".to_owned()),
            Some(expected) => {
                differs("title_id", expected.title_id.clone(), view.title_id.clone());
                differs("country", expected.country.clone(), view.country.clone().unwrap_or_default());
                let text = |text: &Option<String>| text.clone().unwrap_or_default();
                differs("device.id", text(&expected.device.id), text(&view.device.id));
                differs("device.kind", text(&expected.device.kind), text(&view.device.kind));
                differs("completed", expected.completed.to_string(), view.completed.to_string());
                for (field, expected, actual) in [
                    ("title_duration_ms", duration(expected.title_duration_ms), duration(view.title_duration_ms)),
                    ("position_ms", expected.position_ms, view.position_ms),
                    ("played_ms", expected.played_ms, view.played_ms),
                    ("events", expected.events, view.events),
                    ("missing", expected.missing, view.missing),
                ] {
                    differs(field, expected.to_string(), actual.to_string());
                }
            }
        }
        seen.insert(key);
    }
    for (profile_id, session_id) in expected.views.keys().filter(|key| !seen.contains(key)).cloned() {
        let (expected, actual) = ("present".to_owned(), "absent".to_owned());
        differences.push(Difference { profile_id, session_id, field: "session", expected, actual });
    }
    differences
}
