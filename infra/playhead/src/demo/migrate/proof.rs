//! Which system answered which POST, and whether that keeps the promises: each profile is on
//! exactly one live path, no one moves back, and the device gets every answer of the legacy system
//! byte for byte.

use super::journey::Step;
use legacy::Answered;
use playback::rollout::{Path, Rollout};
use simulate::plan::{Plan, Post};
use simulate::send::SendReport;
use std::collections::{BTreeMap, BTreeSet};

/// Maximum number of faults listed per step. All are counted.
const LISTED: usize = 5;

/// Which system answered which POST of the whole plan, by index.
#[derive(Debug, Default)]
pub(super) struct Answers {
    pub(super) by_legacy: BTreeSet<usize>,
    pub(super) by_playhead: BTreeSet<usize>,
}

/// What a step showed.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Profiles that sent something once functions followed.
    pub(super) profiles: BTreeSet<String>,
    /// Answers that differ from what the legacy system says it answered.
    pub(super) changed: usize,
    /// Profiles that were on the old path again after they had been on the new one.
    pub(super) to_and_fro: usize,
    /// The promises that do not hold, in words.
    pub(super) faults: Vec<String>,
}

/// Whether the legacy system answers profiles on this path.
fn is_legacys(path: Path) -> bool {
    path != Path::Async
}

impl Answers {
    /// Adds the answers of a step with the POSTs in `plan`. Functions may follow the rollout
    /// `before` until `followed_at` (Unix milliseconds). `said` has the legacy system's answers by
    /// request id.
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
        // When Playhead first answered a profile, and when the legacy system last did.
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
                wrong.push(format!("{profile} moves back from {was} to {path}"));
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
                (Some(_), None) => {
                    wrong.push(format!("POST {index} got an answer of the legacy system, which did not see it"))
                }
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
        let back =
            first_here.iter().filter(|(profile, first)| last_there.get(*profile).is_some_and(|last| last > first));
        seen.to_and_fro = back.count();
        if seen.changed > 0 {
            wrong.push(format!("{} answers differ from what the legacy system answered", seen.changed));
        }
        wrong.extend(report.failures.iter().cloned());
        let listed = wrong.len().min(LISTED);
        seen.faults = wrong.drain(..listed).map(|fault| format!("{}: {fault}", step.name)).collect();
        if !wrong.is_empty() {
            seen.faults.push(format!("{}: and {} more", step.name, wrong.len()));
        }
        seen
    }

    /// POSTs of the plan that Playhead did not accept: the legacy system did, no one did, or they
    /// were not sent.
    pub(super) fn not_here(&self, plan: &Plan) -> BTreeSet<usize> {
        (0..plan.posts.len()).filter(|index| !self.by_playhead.contains(index)).collect()
    }

    /// Sessions that Playhead has completely.
    pub(super) fn entirely_here<'a>(&self, plan: &'a Plan) -> BTreeSet<&'a str> {
        let sessions = |indexes: &BTreeSet<usize>| -> BTreeSet<&'a str> {
            indexes.iter().flat_map(|index| plan.posts[*index].sessions()).collect()
        };
        let elsewhere = sessions(&self.not_here(plan));
        sessions(&self.by_playhead).difference(&elsewhere).copied().collect()
    }
}

/// The number of distinct events in these POSTs.
pub(super) fn distinct_events<'a>(posts: impl Iterator<Item = &'a Post>) -> usize {
    let events = posts.flat_map(|post| &post.events).map(|planned| (&planned.event.session_id, planned.event.seq));
    events.collect::<BTreeSet<_>>().len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Bytes;
    use axum::http::StatusCode;
    use playback::rollout::Lists;
    use simulate::Applied;
    use simulate::send::{Attempt, LegacyAnswer};
    use std::time::Duration;

    /// p1 is moved, p0 is not.
    fn rollout(moved: bool) -> Rollout {
        let of = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let lists = Lists { r#async: of(if moved { &["p1"] } else { &[] }), ..Lists::default() };
        Rollout::new("s", "0%".parse().unwrap(), "100%".parse().unwrap(), lists).unwrap()
    }

    /// Answers to POSTs of p0, p1, p0, p1, …, one per second. `by_legacy` says which the legacy
    /// system answered, and the legacy system agrees.
    fn seen(
        by_legacy: &[bool],
        before: &Rollout,
        followed_at: u64,
        said: impl Fn(&mut BTreeMap<String, Answered>),
    ) -> Seen {
        let post = |index: usize| {
            let (profile_id, through) = (format!("p{}", index % 2), "use1".parse().unwrap());
            Post { at_ms: 0, through, profile_id, events: Vec::new() }
        };
        let plan = Plan { posts: (0..by_legacy.len()).map(post).collect(), applied: Applied::default() };
        let step = Step { name: "step", rollout: rollout(true), posts: 0..by_legacy.len() };
        let mut report = SendReport { id: "run".to_owned(), ..SendReport::default() };
        let mut answered = BTreeMap::new();
        for (post, legacys) in by_legacy.iter().enumerate() {
            let status = if *legacys { StatusCode::OK } else { StatusCode::ACCEPTED };
            let (began_at, took) = (post as u64 * 1000, Duration::from_millis(5));
            report.attempts.push(Attempt { post, number: 0, began_at, took, status: Some(status) });
            if *legacys {
                let body = Bytes::from_static(b"{}");
                report.by_legacy.insert(post, LegacyAnswer { content_type: None, body: body.clone() });
                answered.insert(format!("run-{post}-0"), Answered { status, content_type: None, body });
            }
        }
        said(&mut answered);
        Answers::default().add(&step, &plan, &report, Some(before), followed_at, &answered)
    }

    #[test]
    fn old_path_is_allowed_only_until_functions_follow() {
        let of = |by_legacy: &[bool], followed_at| seen(by_legacy, &rollout(false), followed_at, |_| {});
        let well = of(&[true, false, true, false], 0);
        assert_eq!((well.faults.len(), well.to_and_fro, well.profiles.len()), (0, 0, 2), "{well:?}");
        let late = of(&[true, true, true, false], 2_000);
        assert_eq!((late.faults.len(), late.to_and_fro), (0, 0), "{late:?}");
        let to_and_fro = of(&[true, false, true, true, true, false], 4_000);
        assert_eq!((to_and_fro.faults.len(), to_and_fro.to_and_fro), (0, 1), "{to_and_fro:?}");
        let back = of(&[true, false, true, true], 2_000);
        assert_eq!(back.faults, ["step: POST 3 of p1, which is async, took the other path"]);
        let early = of(&[false, false], 2_000);
        assert_eq!(early.faults, ["step: POST 0 of p0, which is shadow, took the other path"]);
    }

    #[test]
    fn changed_made_up_and_double_answers_are_found() {
        let of = |said: fn(&mut BTreeMap<String, Answered>)| seen(&[true, false], &rollout(true), 0, said);
        let changed = of(|said| said.get_mut("run-0-0").unwrap().body = Bytes::from_static(b"{} "));
        assert_eq!((changed.changed, changed.faults.len()), (1, 1), "{changed:?}");
        assert!(of(BTreeMap::clear).faults[0].contains("the legacy system, which did not see it"));
        let both = of(|said| {
            let one = said["run-0-0"].clone();
            said.insert("run-1-0".to_owned(), one);
        });
        assert!(both.faults[0].contains("POST 1 of p1 was on both live paths"), "{both:?}");
    }
}
