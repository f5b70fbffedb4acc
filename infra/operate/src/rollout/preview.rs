//! Who moves when one rollout replaces another: shares of all profiles, and the known profiles by
//! name.

use super::profiles::Profiles;
use playback::rollout::{BUCKETS, Path, Rollout};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// How many moves are listed.
const LISTED: usize = 20;

/// One profile's step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The profile.
    pub profile_id: String,
    /// Its path before.
    pub from: Path,
    /// Its path after.
    pub to: Path,
}

/// Who moves.
#[derive(Debug, Clone)]
pub struct Preview {
    /// The current rollout.
    pub before: Rollout,
    /// The new rollout.
    pub after: Rollout,
    /// The share of all profiles that moves, by path from and to, in millionths of a percent. Lists
    /// are not included. If the salt changes, these are expected values.
    pub flows: BTreeMap<(Path, Path), u64>,
    /// The known profiles that move, by id.
    pub moves: Vec<Step>,
    profiles: Profiles,
}

impl Preview {
    /// What the step means for all profiles, and by name for these profiles and those in lists.
    #[must_use]
    pub fn of(before: Rollout, after: Rollout, mut profiles: Profiles) -> Self {
        let listed = [&before, &after].into_iter().flat_map(|rollout| Path::ALL.map(|path| rollout.always().of(path)));
        profiles.add_listed(listed.flatten());
        let step = |one: playback::rollout::Move<'_>| Step {
            profile_id: one.profile_id.to_owned(),
            from: one.from,
            to: one.to,
        };
        let moves = before.moves(&after, profiles.ids.iter().map(String::as_str)).map(step).collect();
        Self { flows: flows(&before, &after), moves, before, after, profiles }
    }

    /// Whether any profile moves back towards the legacy system.
    #[must_use]
    pub fn goes_back(&self) -> bool {
        self.flows.keys().any(|(from, to)| to < from) || self.moves.iter().any(|step| step.to < step.from)
    }

    /// The preview as text.
    #[must_use]
    pub fn text(&self) -> String {
        let Self { before, after, flows, moves, profiles, .. } = self;
        let mut text = format!("{:<10} {:>8} {:>8}\n", "path", "before", "after");
        for path in Path::ALL {
            let share = |rollout: &Rollout| rollout.share_of(path).to_string();
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{:<10} {:>8} {:>8}", path.as_str(), share(before), share(after));
        }
        let about = if before.salt() == after.salt() { "" } else { "about " };
        for ((from, to), share) in flows {
            let _ = writeln!(text, "{about}{:.2}% of all profiles move {from} -> {to}", *share as f64 / 1e6);
        }
        if before.salt() != after.salt() {
            let _ = writeln!(
                text,
                "The salt changes from {} to {}: all buckets are reassigned",
                before.salt(),
                after.salt()
            );
        }
        if !profiles.ids.is_empty() {
            let _ = writeln!(text, "Of {} profiles {}, {} move", profiles.ids.len(), profiles.from, moves.len());
        }
        for Step { profile_id, from, to } in moves.iter().take(LISTED) {
            let _ = writeln!(text, "  {profile_id}: {from} -> {to}");
        }
        if moves.len() > LISTED {
            let _ = writeln!(text, "  and {} more", moves.len() - LISTED);
        }
        text
    }

    /// A warning if any profile moves back.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        self.goes_back().then(|| {
            "PROFILES MOVE BACK. The legacy system does not know what they watched while they were async. The shadow views of profiles that leave shadow will miss what they watch now.\n".to_owned()
        })
    }
}

/// The shares that move, without empty ones.
fn flows(before: &Rollout, after: &Rollout) -> BTreeMap<(Path, Path), u64> {
    let buckets = u64::from(BUCKETS);
    let share = |rollout: &Rollout, path| u64::from(rollout.share_of(path).buckets());
    // The buckets of a path begin after those of all later paths.
    let range = |rollout: &Rollout, path: Path| {
        let beyond: u64 = Path::ALL.into_iter().filter(|other| *other > path).map(|other| share(rollout, other)).sum();
        (beyond, beyond + share(rollout, path))
    };
    let moved = |from: Path, to: Path| match before.salt() == after.salt() {
        true => {
            let ((from, from_end), (to, to_end)) = (range(before, from), range(after, to));
            from_end.min(to_end).saturating_sub(from.max(to)) * buckets
        }
        false => share(before, from) * share(after, to),
    };
    let pairs = Path::ALL.into_iter().flat_map(|from| Path::ALL.map(|to| (from, to)));
    let pairs = pairs.filter(|(from, to)| from != to);
    pairs.map(|(from, to)| ((from, to), moved(from, to))).filter(|(_, share)| *share > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use playback::rollout::Share;
    use proptest::prelude::*;

    fn rollout(salt: &str, asynchronous: &str, shadow: &str) -> Rollout {
        let share = |text: &str| text.parse::<Share>().unwrap();
        Rollout::new(salt, share(asynchronous), share(shadow), Default::default()).unwrap()
    }

    fn profiles(count: usize) -> Profiles {
        Profiles::of((0..count).map(|number| format!("p{number:08}")), "of this test")
    }

    #[test]
    fn preview_shows_shares_and_names() {
        let (before, after) = (rollout("s", "0%", "10%"), rollout("s", "25%", "100%"));
        let preview = Preview::of(before, after, profiles(200));
        let text = preview.text();
        let expect = "\
path         before    after
legacy          90%       0%
shadow          10%      75%
async            0%      25%
75.00% of all profiles move legacy -> shadow
15.00% of all profiles move legacy -> async
10.00% of all profiles move shadow -> async
Of 200 profiles of this test, ";
        assert!(text.starts_with(expect), "{text}");
        assert!(text.contains("\n  p00000000: ") && text.contains(" more\n"), "{text}");
        assert_eq!(text.lines().filter(|line| line.starts_with("  p")).count(), LISTED);
        assert_eq!(preview.warning(), None);
    }

    #[test]
    fn moving_back_by_share_list_or_salt_is_warned_of() {
        let back = |before: Rollout, after: Rollout| Preview::of(before, after, profiles(0)).goes_back();
        assert!(back(rollout("s", "25%", "100%"), rollout("s", "24.99%", "100%")));
        assert!(back(rollout("s", "0%", "50%"), rollout("s", "0%", "49%")));
        assert!(back(rollout("s", "25%", "100%"), rollout("t", "25%", "100%")));
        assert!(!back(rollout("s", "25%", "100%"), rollout("t", "100%", "100%")));
        assert!(!back(rollout("s", "0%", "0%"), rollout("t", "25%", "100%")));
        let listed: Rollout = serde_json::from_str(r#"{"salt":"s","async":"1%","always":{"async":["p1"]}}"#).unwrap();
        assert!(back(listed.clone(), rollout("s", "1%", "1%")), "p1 is in a bucket that is not async");
        let preview = Preview::of(rollout("s", "1%", "1%"), listed, profiles(0));
        assert!(preview.text().contains("\n  p1: legacy -> async"), "{}", preview.text());
    }

    fn rollouts() -> impl Strategy<Value = Rollout> {
        let share = |buckets: u16| format!("{}.{:02}%", buckets / 100, buckets % 100);
        (0..=BUCKETS, 0..=BUCKETS, 0..2)
            .prop_map(move |(a, b, salt)| rollout(["s", "t"][salt as usize], &share(a.min(b)), &share(a.max(b))))
    }

    proptest! {
        #[test]
        fn profiles_move_as_the_shares_say(before in rollouts(), after in rollouts()) {
            let preview = Preview::of(before.clone(), after.clone(), profiles(2_000));
            let same_salt = before.salt() == after.salt();
            for from in Path::ALL {
                for to in Path::ALL.into_iter().filter(|to| *to != from) {
                    let said = preview.flows.get(&(from, to)).copied().unwrap_or_default() as f64 / 1e8;
                    let do_so = preview.moves.iter().filter(|step| (step.from, step.to) == (from, to)).count() as f64 / 2_000.0;
                    // Six standard deviations for a sample of 2,000.
                    prop_assert!((said - do_so).abs() < 0.068, "{from} {to}: {said} {do_so}");
                    prop_assert!(!(same_salt && said == 0.0 && do_so > 0.0));
                }
            }
            let rises = after.async_share() >= before.async_share() && after.shadow_share() >= before.shadow_share();
            if same_salt {
                prop_assert_eq!(preview.goes_back(), !rises);
            }
        }
    }
}
