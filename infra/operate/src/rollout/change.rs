//! What an operator wants changed, and the rollout that it makes.

use anyhow::{Context as _, Result, bail, ensure};
use playback::rollout::{Lists, Path, Rollout, Share};
use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

/// What is to be another way. What it does not say stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// The share that is async.
    pub asynchronous: Option<Share>,
    /// The share that is shadowed or async; if it is not said and async grows beyond it, it grows with it.
    pub shadow: Option<Share>,
    /// What deals the buckets.
    pub salt: Option<String>,
    /// The whole list of a path.
    pub always: BTreeMap<Path, BTreeSet<String>>,
}

/// `async=25%` or `shadow=100%`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Word {
    path: Path,
    share: Share,
}

/// `async=ID,ID`: a path, and who is always on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct List {
    path: Path,
    profiles: BTreeSet<String>,
}

fn path_and<'a>(text: &'a str, example: &str) -> Result<(Path, &'a str)> {
    let (name, value) = text.split_once('=').with_context(|| format!("say it as {example}"))?;
    let path = Path::ALL.into_iter().find(|path| path.as_str() == name);
    Ok((path.with_context(|| format!("there is no path {name:?}: say it as {example}"))?, value))
}

impl FromStr for Word {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (path, share) = path_and(text, "async=25% or shadow=100%")?;
        ensure!(path != Path::Legacy, "the share of legacy is what the others leave: say async=… or shadow=…");
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
    /// The change that these words ask for.
    ///
    /// # Errors
    /// If they ask for nothing, or for the same twice.
    pub(super) fn of(words: &[Word], salt: Option<String>, lists: Vec<List>) -> Result<Self> {
        let mut change = Self { salt, ..Self::default() };
        for &Word { path, share } in words {
            let place = if path == Path::Async { &mut change.asynchronous } else { &mut change.shadow };
            ensure!(place.replace(share).is_none(), "{path}=… is there twice: say it once");
        }
        for List { path, profiles } in lists {
            change.always.entry(path).or_default().extend(profiles);
        }
        if change == Self::default() {
            bail!("say what to set: async=25%, shadow=100%, --salt WORD or --always async=ID,ID");
        }
        Ok(change)
    }

    /// The rollout that comes of this one.
    ///
    /// # Errors
    /// If there is none of that kind; the message says what to do instead.
    pub fn apply(&self, before: &Rollout) -> Result<Rollout> {
        let asynchronous = self.asynchronous.unwrap_or(before.async_share());
        let shadow = self.shadow.unwrap_or(before.shadow_share().max(asynchronous));
        ensure!(
            shadow >= asynchronous,
            "shadow={shadow} is below async, which is {asynchronous}: shadow counts who is async, too. Say shadow={asynchronous} or more, or lower async with it: async={shadow} shadow={shadow}"
        );
        let list = |path: Path| self.always.get(&path).unwrap_or(before.always().of(path)).clone();
        let lists = Lists { legacy: list(Path::Legacy), shadow: list(Path::Shadow), r#async: list(Path::Async) };
        let salt = self.salt.as_deref().unwrap_or(before.salt());
        Rollout::new(salt, asynchronous, shadow, lists).context("mend it with --salt or --always")
    }
}

/// The rollout that holds while nobody has said anything and there is a legacy system: everybody is on that.
///
/// # Errors
/// If `salt` is none.
pub(super) fn nobody_moved(salt: &str) -> Result<Rollout> {
    Rollout::new(salt, Share::NONE, Share::NONE, Lists::default())
        .with_context(|| format!("{salt:?} cannot deal the buckets: name a word with --salt"))
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
    fn what_is_not_said_stays_as_it_is() {
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
    fn what_cannot_be_set_says_what_to_do() {
        let before = rollout(r#"{"salt":"a","async":"25%","shadow":"100%","always":{"legacy":["p1"]}}"#);
        let check = |words: &str, salt, lists: &[&str], because: &str| {
            let refused = change(words, salt, lists).and_then(|change| change.apply(&before)).unwrap_err();
            let refused = format!("{refused:#}");
            assert!(refused.contains(because), "{refused}");
        };
        check("", None, &[], "say what to set: async=25%");
        check("async", None, &[], "say it as async=25%");
        check("sync=1%", None, &[], r#"no path "sync": say it as async=25%"#);
        check("legacy=1%", None, &[], "what the others leave");
        check("async=25", None, &[], "with two decimals at most");
        check("async=1% async=2%", None, &[], "async=… is there twice");
        check("shadow=10%", None, &[], "lower async with it: async=10% shadow=10%");
        check("", Some("no word"), &[], "--salt or --always: `rollout.salt` must be");
        check("", None, &["async=p1"], "profile p1 is in both");
        check("", None, &["nowhere=p1"], r#"no path "nowhere": say it as async=ID,ID"#);
        assert!(nobody_moved("a stack").unwrap_err().to_string().contains("with --salt"));
    }
}
