//! Who answered which POST, and whether that is what was promised: each profile on exactly one live path, nobody moved back, and every answer of the
//! legacy system the device's answer, byte for byte.

use super::journey::Step;
use crate::simulate::plan::{Plan, Post};
use crate::simulate::send::SendReport;
use legacy::Answered;
use playback::rollout::{Path, Rollout};
use std::collections::{BTreeMap, BTreeSet};

/// Faults that are told of one kind and step; all count.
const TOLD: usize = 5;

/// Who answered which POST of the whole plan, by index.
#[derive(Debug, Default)]
pub(super) struct Answers {
    pub(super) by_legacy: BTreeSet<usize>,
    pub(super) by_playhead: BTreeSet<usize>,
    pub(super) failed: BTreeSet<usize>,
}

/// What a step showed.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Who sent anything once functions followed.
    pub(super) profiles: BTreeSet<String>,
    /// Answers that are not what the legacy system says that it answered.
    pub(super) changed: usize,
    /// Profiles that were on the old path once more after they had been on the new one.
    pub(super) to_and_fro: usize,
    /// What does not hold, in words.
    pub(super) faults: Vec<String>,
}

/// Whether the legacy system answers who is on this path.
fn is_legacys(path: Path) -> bool {
    path != Path::Async
}

impl Answers {
    /// Adds the answers of a step, whose POSTs are `plan`. `before` held until the functions followed, at `followed_at` (Unix milliseconds); `said`
    /// is what the legacy system answered, by request id.
    pub(super) fn add(
        &mut self,
        step: &Step,
        plan: &Plan,
        report: &SendReport,
        before: Option<&Rollout>,
        followed_at: u64,
        said: &BTreeMap<String, Answered>,
    ) -> Seen {
        let mut seen = Seen::default();
        let mut wrong = Vec::new();
        // When a profile was answered by Playhead for the first time, and by the legacy system for the last time.
        let (mut first_here, mut last_there) = (BTreeMap::<&str, u64>::new(), BTreeMap::<&str, u64>::new());
        for attempt in &report.attempts {
            let (index, profile) = (attempt.post, plan.posts[attempt.post].profile_id.as_str());
            let id = format!("{}-{index}-{}", report.id, attempt.number);
            let answered = said.get(&id);
            if !attempt.succeeded() {
                continue;
            }
            let legacys = report.by_legacy.get(&index);
            let path = step.rollout.path(profile);
            let was = before.map_or(path, |before| before.path(profile));
            let is_as_promised = legacys.is_some() == is_legacys(path)
                || (attempt.began_at < followed_at && legacys.is_some() == is_legacys(was));
            if was > path {
                wrong.push(format!("{profile} moves back, from {was} to {path}"));
            }
            if !is_as_promised {
                wrong.push(format!("POST {index} of {profile}, which is {path}, took the other path"));
            }
            if attempt.began_at >= followed_at {
                seen.profiles.insert(profile.to_owned());
            }
            match (legacys, answered) {
                (Some(device), Some(legacy)) => {
                    let same = attempt.status.is_some_and(|status| status.as_u16() == legacy.status.as_u16())
                        && device.content_type == legacy.content_type
                        && device.body == legacy.body;
                    seen.changed += usize::from(!same);
                }
                (Some(_), None) => wrong.push(format!("POST {index} was answered for a legacy system that saw none")),
                (None, Some(_)) => wrong.push(format!("POST {index} of {profile} was on both live paths")),
                (None, None) => {}
            }
            match legacys {
                Some(_) => {
                    let last = last_there.entry(profile).or_default();
                    *last = (*last).max(attempt.began_at);
                    self.by_legacy.insert(step.posts.start + index);
                }
                None => {
                    let first = first_here.entry(profile).or_insert(u64::MAX);
                    *first = (*first).min(attempt.ended_at());
                    self.by_playhead.insert(step.posts.start + index);
                }
            }
        }
        self.failed.extend(report.failed_posts.iter().map(|index| step.posts.start + index));
        let back =
            first_here.iter().filter(|(profile, first)| last_there.get(*profile).is_some_and(|last| last > first));
        seen.to_and_fro = back.count();
        if seen.changed > 0 {
            wrong.push(format!("{} answers are not what the legacy system answered", seen.changed));
        }
        wrong.extend(report.failures.iter().cloned());
        let told = wrong.len().min(TOLD);
        seen.faults = wrong.drain(..told).map(|fault| format!("{}: {fault}", step.name)).collect();
        if !wrong.is_empty() {
            seen.faults.push(format!("{}: and {} more", step.name, wrong.len()));
        }
        seen
    }

    /// POSTs that Playhead did not accept.
    pub(super) fn not_here(&self) -> BTreeSet<usize> {
        self.by_legacy.union(&self.failed).copied().collect()
    }

    /// Sessions of which Playhead has everything that was sent.
    pub(super) fn entirely_here<'a>(&self, plan: &'a Plan) -> BTreeSet<&'a str> {
        let sessions = |indexes: &BTreeSet<usize>| -> BTreeSet<&'a str> {
            indexes.iter().flat_map(|index| plan.posts[*index].sessions()).collect()
        };
        let elsewhere = sessions(&self.not_here());
        sessions(&self.by_playhead).difference(&elsewhere).copied().collect()
    }
}

/// Different events in these POSTs.
pub(super) fn distinct_events<'a>(posts: impl Iterator<Item = &'a Post>) -> usize {
    let events = posts.flat_map(|post| &post.events).map(|planned| (&planned.event.session_id, planned.event.seq));
    events.collect::<BTreeSet<_>>().len()
}
