//! The change that an operator asks for, and the rollout that results.

use anyhow::{Context as _, Result, bail, ensure};
use playback::rollout::{Lists, Path, Rollout, Share};
use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

/// A change of the rollout. Fields that are not set stay unchanged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// The new share of async.
    pub asynchronous: Option<Share>,
    /// The new share of shadow and async together. If it is not set and async grows beyond it, it
    /// grows with async.
    pub shadow: Option<Share>,
    /// The new salt, which assigns profiles to buckets.
    pub salt: Option<String>,
    /// The new lists of paths, each as a whole.
    pub always: BTreeMap<Path, BTreeSet<String>>,
}

/// `async=25%` or `shadow=100%`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Word {
    path: Path,
    share: Share,
}

/// `async=ID,ID`: a path, and the profiles that are always on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct List {
    path: Path,
    profiles: BTreeSet<String>,
}

fn path_and<'a>(text: &'a str, example: &str) -> Result<(Path, &'a str)> {
    let (name, value) = text.split_once('=').with_context(|| format!("use the form {example}"))?;
    let path = Path::ALL.into_iter().find(|path| path.as_str() == name);
    Ok((path.with_context(|| format!("there is no path {name:?}: use the form {example}"))?, value))
}

impl FromStr for Word {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (path, share) = path_and(text, "async=25% or shadow=100%")?;
        ensure!(path != Path::Legacy, "the share of legacy is the rest: set async=… or shadow=…");
        Ok(Self { path, share: share.parse()? })
    }
}

impl FromStr for List {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (path, profiles) = path_and(text, "async=ID,ID, shadow=ID or legacy=ID")?;
        let profiles = profiles.split(',').map(str::trim).filter(|id| !id.is_empty()).map(str::to_owned).collect();
        Ok(Self { path, profiles })
    }
}

impl Change {
    /// The change that these arguments ask for.
    ///
    /// # Errors
    /// If they change nothing, or set a share twice.
    pub(super) fn of(words: &[Word], salt: Option<String>, lists: Vec<List>) -> Result<Self> {
        let mut change = Self { salt, ..Self::default() };
        for &Word { path, share } in words {
            let place = if path == Path::Async { &mut change.asynchronous } else { &mut change.shadow };
            ensure!(place.replace(share).is_none(), "{path}=… is given twice");
        }
        for List { path, profiles } in lists {
            change.always.entry(path).or_default().extend(profiles);
        }
        if change == Self::default() {
            bail!("say what to set: async=25%, shadow=100%, --salt WORD or --always async=ID,ID");
        }
        Ok(change)
    }

    /// The rollout after this change.
    ///
    /// # Errors
    /// If the result is invalid. The message says what to do instead.
    pub fn apply(&self, before: &Rollout) -> Result<Rollout> {
        let asynchronous = self.asynchronous.unwrap_or(before.async_share());
        let shadow = self.shadow.unwrap_or(before.shadow_share().max(asynchronous));
        ensure!(
            shadow >= asynchronous,
            "shadow={shadow} is below async, which is {asynchronous}: shadow includes async. Set shadow={asynchronous} or more, or lower async too: async={shadow} shadow={shadow}"
        );
        let list = |path: Path| self.always.get(&path).unwrap_or(before.always().of(path)).clone();
        let lists = Lists { legacy: list(Path::Legacy), shadow: list(Path::Shadow), r#async: list(Path::Async) };
        let salt = self.salt.as_deref().unwrap_or(before.salt());
        Rollout::new(salt, asynchronous, shadow, lists).context("fix it with --salt or --always")
    }
}

/// The rollout of a stack with a legacy system whose document has none: everybody is on legacy.
///
/// # Errors
/// If `salt` is invalid.
pub(super) fn nobody_moved(salt: &str) -> Result<Rollout> {
    Rollout::new(salt, Share::NONE, Share::NONE, Lists::default())
        .with_context(|| format!("{salt:?} is not a valid salt: set one with --salt"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(words: &str, salt: Option<&str>, lists: &[&str]) -> Result<Change> {
        let words: Vec<Word> = words.split_whitespace().map(str::parse).collect::<Result<_>>()?;
        let lists = lists.iter().map(|list| list.parse()).collect::<Result<_>>()?;
        Change::of(&words, salt.map(str::to_owned), lists)
    }

    fn rollout(form: &str) -> Rollout {
        serde_json::from_str(form).unwrap()
    }

    #[test]
    fn fields_that_are_not_set_stay_unchanged() {
        let before = rollout(r#"{"salt":"a","async":"1%","shadow":"50%","always":{"legacy":["p1"],"async":["p2"]}}"#);
        let check = |words: &str, salt, lists: &[&str], after: &str| {
            let made = change(words, salt, lists).unwrap().apply(&before).unwrap();
            assert_eq!(made, rollout(after));
        };
        let lists = r#""always":{"legacy":["p1"],"async":["p2"]}"#;
        check("async=25%", None, &[], &format!(r#"{{"salt":"a","async":"25%","shadow":"50%",{lists}}}"#));
        check("shadow=100%", None, &[], &format!(r#"{{"salt":"a","async":"1%","shadow":"100%",{lists}}}"#));
        check("async=75%", None, &[], &format!(r#"{{"salt":"a","async":"75%","shadow":"75%",{lists}}}"#));
        check("", Some("b"), &[], &format!(r#"{{"salt":"b","async":"1%","shadow":"50%",{lists}}}"#));
        let none = r#"{"salt":"a","async":"1%","shadow":"50%","always":{"legacy":["p1"]}}"#;
        check("", None, &["async="], none);
        let others = r#"{"salt":"a","async":"1%","shadow":"50%","always":{"legacy":["p1"],"async":["p3","p4","p5"]}}"#;
        check("", None, &["async=p3, p4", "async=p5"], others);
    }

    #[test]
    fn invalid_changes_say_what_to_do_instead() {
        let before = rollout(r#"{"salt":"a","async":"25%","shadow":"100%","always":{"legacy":["p1"]}}"#);
        let check = |words: &str, salt, lists: &[&str], because: &str| {
            let refused = change(words, salt, lists).and_then(|change| change.apply(&before)).unwrap_err();
            let refused = format!("{refused:#}");
            assert!(refused.contains(because), "{refused}");
        };
        check("", None, &[], "say what to set: async=25%");
        check("async", None, &[], "use the form async=25%");
        check("sync=1%", None, &[], r#"no path "sync": use the form async=25%"#);
        check("legacy=1%", None, &[], "of legacy is the rest");
        check("async=25", None, &[], "at most two decimals");
        check("async=1% async=2%", None, &[], "async=… is given twice");
        check("shadow=10%", None, &[], "lower async too: async=10% shadow=10%");
        check("", Some("no word"), &[], "--salt or --always: `rollout.salt` must be");
        check("", None, &["async=p1"], "profile p1 is in both");
        check("", None, &["nowhere=p1"], r#"no path "nowhere": use the form async=ID,ID"#);
        assert!(nobody_moved("a stack").unwrap_err().to_string().contains("with --salt"));
    }
}
