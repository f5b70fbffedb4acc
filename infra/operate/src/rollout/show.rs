//! `playhead rollout show`: the rollout, and the paths of some profiles.

use super::set::NO_EFFECT;
use playback::rollout::{Path, Rollout, Share, bucket};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// What is shown.
#[derive(Debug, Serialize)]
pub(super) struct Shown {
    /// The rollout in the document, if it has one.
    rollout: Option<Rollout>,
    /// Whether there is a legacy system. Without one, everybody is async.
    has_legacy: bool,
    /// The share of each path, without the lists.
    shares: BTreeMap<&'static str, Share>,
    /// The profiles that were asked for.
    profiles: Vec<Profile>,
}

#[derive(Debug, Serialize)]
struct Profile {
    profile_id: String,
    /// 0 to 9,999.
    bucket: Option<u16>,
    path: &'static str,
    /// Whether a list decides, not its bucket.
    listed: bool,
}

impl Shown {
    /// What the rollout, if any, means for all profiles and for these.
    pub(super) fn of(rollout: Option<Rollout>, has_legacy: bool, profiles: &[String]) -> Self {
        let followed = rollout.as_ref().filter(|_| has_legacy);
        let share = |path: Path| match followed {
            Some(rollout) => rollout.share_of(path),
            None if path == all_path(has_legacy) => Share::ALL,
            None => Share::NONE,
        };
        let shares = Path::ALL.map(|path| (path.as_str(), share(path)));
        let profile = |profile_id: &String| Profile {
            profile_id: profile_id.clone(),
            bucket: rollout.as_ref().map(|rollout| bucket(rollout.salt(), profile_id)),
            path: followed.map_or(all_path(has_legacy), |rollout| rollout.path(profile_id)).as_str(),
            listed: followed.is_some_and(|rollout| {
                Path::ALL.into_iter().any(|path| rollout.always().of(path).contains(profile_id))
            }),
        };
        let profiles = profiles.iter().map(profile).collect();
        Self { shares: shares.into(), profiles, rollout, has_legacy }
    }

    /// The rollout as text.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = match &self.rollout {
            None => writeln!(text, "There is no rollout yet."),
            Some(rollout) => {
                let (asynchronous, shadow, salt) = (rollout.async_share(), rollout.shadow_share(), rollout.salt());
                writeln!(text, "async={asynchronous} shadow={shadow} salt={salt}")
            }
        };
        let _ = writeln!(text, "\n{:<10} {:>8}", "path", "profiles");
        for path in Path::ALL {
            let share = self.shares.get(path.as_str()).map(Share::to_string).unwrap_or_default();
            let listed = self.rollout.as_ref().map(|rollout| rollout.always().of(path)).filter(|ids| !ids.is_empty());
            let listed = listed.map(|ids| ids.iter().map(String::as_str).collect::<Vec<_>>().join(", "));
            let listed = listed.map_or_else(String::new, |ids| format!("  and always {ids}"));
            let _ = writeln!(text, "{:<10} {share:>8}{listed}", path.as_str());
        }
        for Profile { profile_id, bucket, path, listed } in &self.profiles {
            let bucket = bucket.map_or_else(String::new, |bucket| format!("bucket {bucket}, "));
            let by = if *listed { ", by its list" } else { "" };
            let _ = writeln!(text, "{profile_id}: {bucket}{path}{by}");
        }
        if !self.has_legacy {
            let _ = write!(text, "\n{NO_EFFECT}");
        }
        text
    }
}

/// The path of everybody if there is no rollout to follow.
fn all_path(has_legacy: bool) -> Path {
    if has_legacy { Path::Legacy } else { Path::Async }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(form: Option<&str>, has_legacy: bool, profiles: &[&str]) -> Shown {
        let profiles: Vec<String> = profiles.iter().map(|&id| id.to_owned()).collect();
        Shown::of(form.map(|form| serde_json::from_str(form).unwrap()), has_legacy, &profiles)
    }

    const FORM: &str = r#"{"salt":"2026-11","async":"25%","shadow":"60%","always":{"legacy":["p7"]}}"#;

    #[test]
    fn shares_lists_and_profile_paths_are_shown() {
        let bucket = bucket("2026-11", "p00000054");
        let path = if bucket < 2_500 {
            "async"
        } else if bucket < 6_000 {
            "shadow"
        } else {
            "legacy"
        };
        let text = shown(Some(FORM), true, &["p00000054", "p7"]).text();
        let expect = format!(
            "\
async=25% shadow=60% salt=2026-11

path       profiles
legacy          40%  and always p7
shadow          35%
async           25%
p00000054: bucket {bucket}, {path}
p7: bucket {}, legacy, by its list
",
            playback::rollout::bucket("2026-11", "p7")
        );
        assert_eq!(text, expect);
    }

    #[test]
    fn default_path_is_legacy_or_async_without_a_legacy_system() {
        let check = |shown: &Shown, path: &str| {
            let json = serde_json::to_value(shown).unwrap();
            assert_eq!((&json["shares"][path], &json["profiles"][0]["path"]), (&"100%".into(), &path.into()), "{json}");
        };
        check(&shown(None, true, &["p7"]), "legacy");
        check(&shown(None, false, &["p7"]), "async");
        let no_effect = shown(Some(FORM), false, &["p7"]);
        check(&no_effect, "async");
        assert!(no_effect.text().contains("the rollout has no effect"), "{}", no_effect.text());
    }
}
