//! The steps from the legacy system to Playhead, and the POSTs of each step.

use anyhow::{Context as _, Result, ensure};
use lambda::routing::MAX_AGE;
use playback::rollout::{Lists, Path, Rollout};
use playback::session::SessionId;
use simulate::plan::{Plan, Post};
use simulate::{Faults, Model};
use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

/// How long it takes until every function follows a new routing document: the maximum age of its
/// copy, plus the time to read it.
pub(super) const FOLLOWED_WITHIN: Duration = MAX_AGE.saturating_add(Duration::from_secs(2));

/// Name, async share, shadow share and minimum seconds of POSTs of each step. Where profiles change
/// their live path, the first of these seconds pass until all functions follow.
const STEPS: [(&str, &str, &str, f64); 5] = [
    ("all legacy", "0%", "0%", 12.0),
    ("shadow 100%", "0%", "100%", 16.0),
    ("async 1%", "1%", "100%", 22.0),
    ("async 25%", "25%", "100%", 22.0),
    ("async 100%", "100%", "100%", 22.0),
];
/// Steps of a demo with a bug. The last one would move profiles; it must be refused and has no
/// POSTs.
const STEPS_TO_A_BUG: usize = 3;
/// How much faster POSTs are sent then, since one step has them all.
const HASTE_TO_A_BUG: f64 = 2.0;
/// Maximum POSTs per second: an overloaded machine would measure its own delays. With more sessions
/// the steps last longer.
const MOST_PER_SECOND: f64 = 16.0;
/// Gap, in the viewers' time, between the sessions that end before the shadow starts and the
/// others.
const BREAK_MS: i64 = 60_000;

/// A step of the rollout.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) name: &'static str,
    /// The rollout from this step on.
    pub(super) rollout: Rollout,
    /// The POSTs of this step.
    pub(super) posts: Range<usize>,
}

/// All steps and POSTs.
#[derive(Debug)]
pub(super) struct Journey {
    pub(super) steps: Vec<Step>,
    /// In the order of sending.
    pub(super) plan: Plan,
    /// POSTs per second, evenly spaced.
    pub(super) per_second: f64,
}

impl Journey {
    /// The steps for these viewers. Sessions of the first step end before the shadow starts, which
    /// otherwise would see only their ends. All others continue across steps. With `to_a_bug` there
    /// are only the steps up to the one that the legacy system's bug must stop.
    ///
    /// # Errors
    /// If the model is impossible, or has too few viewers to exercise each step.
    pub(super) fn new(model: &Model, now: i64, to_a_bug: bool) -> Result<Self> {
        // A malformed event may have no valid profile, so it is unclear which system must refuse
        // it.
        let faults = Faults { malformed: 0.0, ..model.faults };
        let model = Model { faults, viewers: Some(u32::try_from(model.viewer_count())?), ..model.clone() };
        let [first, rest @ ..] = STEPS;
        let rest_s: f64 = rest.iter().map(|step| step.3).sum();
        let Plan { posts: later, .. } = Plan::ending_at(&model, now)?;
        let begun = later.iter().flat_map(Post::sessions).filter_map(|id| id.parse::<SessionId>().ok());
        let begun = begun.map(|id| id.started_at()).min().context("no viewer watches anything")?;
        let haste = if to_a_bug { HASTE_TO_A_BUG } else { 1.0 };
        let per_second = (later.len() as f64 / rest_s * haste).min(MOST_PER_SECOND);
        let Plan { mut posts, applied } = Plan::ending_at(&model, i64::try_from(begun)? - BREAK_MS)?;
        posts.truncate((first.3 * per_second).round() as usize);
        let mut cuts = vec![0, posts.len()];
        if to_a_bug {
            cuts.extend([posts.len() + later.len(); 2]);
        } else {
            let mut until = 0.0;
            for (.., seconds) in rest {
                until += seconds;
                cuts.push(posts.len() + (later.len() as f64 * until / rest_s).round() as usize);
            }
        }
        posts.extend(later);
        let plan = Plan { posts, applied };
        let wanted = if to_a_bug { STEPS_TO_A_BUG } else { STEPS.len() };
        // With few viewers, 1% is mostly no one: try salts until every share has a profile.
        let mut salted = (0..10_000).map(|n| steps(&format!("demo-{n}"), &cuts, wanted));
        let steps = salted.find(|steps| steps.as_ref().map_or(true, |steps| plan_shows_all(&plan, steps, per_second)));
        let steps = steps.context("too few viewers to show something at each step: use more --sessions")??;
        Ok(Self { steps, plan, per_second })
    }
}

fn steps(salt: &str, cuts: &[usize], wanted: usize) -> Result<Vec<Step>> {
    ensure!(cuts.len() == wanted + 1, "every step needs a part of the plan");
    let parts = cuts.iter().zip(&cuts[1..]);
    let step = |((name, asynchronous, shadow, _), (from, to)): ((&'static str, &str, &str, f64), (&usize, &usize))| {
        let rollout = Rollout::new(salt, asynchronous.parse()?, shadow.parse()?, Lists::default())?;
        Ok(Step { name, rollout, posts: *from..*to })
    };
    STEPS.into_iter().zip(parts).map(step).collect()
}

/// Whether, once functions follow, each step has POSTs of every path with a share in its rollout.
fn plan_shows_all(plan: &Plan, steps: &[Step], per_second: f64) -> bool {
    let following = (FOLLOWED_WITHIN.as_secs_f64() * per_second).ceil() as usize;
    steps.iter().filter(|step| !step.posts.is_empty()).all(|step| {
        let begin =
            if step.rollout.async_share().buckets() > 0 { step.posts.start + following } else { step.posts.start };
        let Some(posts) = plan.posts.get(begin..step.posts.end) else { return false };
        let seen: BTreeSet<Path> = posts.iter().map(|post| step.rollout.path(&post.profile_id)).collect();
        let (asynchronous, shadow) = (step.rollout.async_share().buckets(), step.rollout.shadow_share().buckets());
        let wanted = [(Path::Async, asynchronous > 0), (Path::Shadow, shadow > asynchronous)];
        wanted.into_iter().all(|(path, is_wanted)| !is_wanted || seen.contains(&path))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(sessions: usize) -> Model {
        let homes = vec!["use1".parse().unwrap()];
        Model { sessions, viewers: None, titles: 50, homes, travel: None, seed: 7, faults: Faults::default() }
    }

    #[test]
    fn every_step_has_traffic_on_its_paths_and_no_one_moves_back() {
        for sessions in [60, 300] {
            let journey = Journey::new(&model(sessions), 1_790_000_000_000, false).unwrap();
            assert_eq!(journey.steps.len(), 5);
            let ends: Vec<usize> = journey.steps.iter().map(|step| step.posts.end).collect();
            let begins: Vec<usize> = journey.steps.iter().map(|step| step.posts.start).collect();
            assert_eq!((begins[0], &begins[1..], ends[4]), (0, &ends[..4], journey.plan.posts.len()));
            assert!(plan_shows_all(&journey.plan, &journey.steps, journey.per_second));
            for pair in journey.steps.windows(2) {
                let moved =
                    |post: &Post| pair[0].rollout.path(&post.profile_id) > pair[1].rollout.path(&post.profile_id);
                assert!(!journey.plan.posts.iter().any(moved));
            }
        }
    }

    #[test]
    fn first_sessions_end_before_the_shadow_and_the_rest_continue() {
        let journey = Journey::new(&model(60), 1_790_000_000_000, false).unwrap();
        let of = |step: &Step| -> BTreeSet<&str> {
            journey.plan.posts[step.posts.clone()].iter().flat_map(Post::sessions).collect()
        };
        let sessions: Vec<BTreeSet<&str>> = journey.steps.iter().map(of).collect();
        assert!(sessions[1..].iter().all(|later| later.is_disjoint(&sessions[0])));
        assert!(sessions[1..].windows(2).all(|pair| !pair[0].is_disjoint(&pair[1])));
    }

    #[test]
    fn demo_with_a_bug_ends_before_anyone_is_moved() {
        let journey = Journey::new(&model(60), 1_790_000_000_000, true).unwrap();
        let moves = |step: &Step| step.rollout.async_share().buckets() > 0;
        assert_eq!(
            journey.steps.iter().map(|step| (moves(step), step.posts.is_empty())).collect::<Vec<_>>(),
            [(false, false), (false, false), (true, true)]
        );
        assert_eq!(journey.steps[2].posts.end, journey.plan.posts.len());
    }
}
