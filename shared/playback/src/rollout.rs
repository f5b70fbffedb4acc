//! The rollout: which live path each profile is on while a team moves from its own system to this one.
//!
//! A profile's bucket is a number below 10,000, from a salted hash of its id. Two nested shares say what becomes of it:
//!
//! ```text
//!   bucket   0 ──────────── async ──────────── shadow ──────────── 10,000
//!            │     Async     │      Shadow      │      Legacy       │
//! ```
//!
//! Both are counted from 0, so that raising either moves profiles forward only, and a profile that was on trial as `Shadow` is the
//! next to become `Async`. Another salt deals all buckets anew. Lists of profiles win over buckets.
//!
//! As a person writes it, in the routing document's field `rollout`:
//!
//! ```json
//! {"salt": "2026-11", "async": "25%", "shadow": "100%", "always": {"legacy": ["p00000007"], "async": ["p00000054"]}}
//! ```
//!
//! - `salt`: required, 1 to 64 letters, digits, `_`, `-`, `.` or `:`, a letter or digit first.
//! - `async`, `shadow`: text like `"25%"` or `"0.01%"`, with two decimals at most: one bucket is 0.01%. A bare number is refused, since 0.5 might
//!   mean a half or half a percent. `async` defaults to 0% and `shadow` to `async`. `shadow` counts the profiles that are shadowed *or beyond*, so one below
//!   `async` is refused rather than guessed at.
//! - `always`: lists of profile ids by path, each absent if empty. A profile in two of them is refused.
//! - A field of another name is refused: a misspelt share must not count as 0%.
//!
//! It decides and nothing more: what is sent where is up to the function that asks. `events/rollout/vectors.json` holds golden
//! values for who implements it in another language.

use crate::contract::is_id;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// How many buckets there are: one is 0.01% of all profiles.
pub const BUCKETS: u16 = 10_000;

/// A profile's live path. The order is that of a migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Path {
    /// The legacy system alone.
    Legacy,
    /// The legacy system answers, and a copy of the events goes to the log, marked.
    Shadow,
    /// The log; the legacy system hears nothing.
    Async,
}

impl Path {
    /// All paths, in the order of a migration.
    pub const ALL: [Path; 3] = [Path::Legacy, Path::Shadow, Path::Async];

    /// The stable name, a field of the routing document and a metric dimension.
    pub const fn as_str(self) -> &'static str {
        match self {
            Path::Legacy => "legacy",
            Path::Shadow => "shadow",
            Path::Async => "async",
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A share of all profiles, in whole buckets: 0 to [`BUCKETS`]. As text a percentage, `25%` or `0.01%`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Share(u16);

impl Share {
    /// Nobody.
    pub const NONE: Share = Share(0);
    /// Everybody.
    pub const ALL: Share = Share(BUCKETS);

    /// How many buckets, from 0 up.
    pub const fn buckets(self) -> u16 {
        self.0
    }
}

/// A text that is no share.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "is {0:?} and must be a percentage from \"0%\" to \"100%\", with two decimals at most, such as \"25%\" or \"0.01%\""
)]
pub struct MalformedShare(String);

impl FromStr for Share {
    type Err = MalformedShare;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_share(text).ok_or_else(|| MalformedShare(text.to_owned()))
    }
}

fn parse_share(text: &str) -> Option<Share> {
    let (whole, decimals) = match text.strip_suffix('%')?.split_once('.') {
        Some((whole, decimals)) => (whole, decimals),
        None => (text.strip_suffix('%')?, "0"),
    };
    let digits = |part: &str, most| (1..=most).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole, 3) || !digits(decimals, 2) {
        return None;
    }
    let buckets: u32 = format!("{whole}{decimals:0<2}").parse().ok()?;
    u16::try_from(buckets).ok().filter(|&buckets| buckets <= BUCKETS).map(Share)
}

impl TryFrom<String> for Share {
    type Error = MalformedShare;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Share> for String {
    fn from(share: Share) -> Self {
        share.to_string()
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0 / 100, self.0 % 100) {
            (whole, 0) => write!(f, "{whole}%"),
            (whole, decimals) if decimals % 10 == 0 => write!(f, "{whole}.{}%", decimals / 10),
            (whole, decimals) => write!(f, "{whole}.{decimals:02}%"),
        }
    }
}

/// Profiles whose path no bucket decides.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lists {
    /// Always on the legacy system.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub legacy: BTreeSet<String>,
    /// Always shadowed.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub shadow: BTreeSet<String>,
    /// Always on the log.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub r#async: BTreeSet<String>,
}

impl Lists {
    /// The list of a path.
    pub fn of(&self, path: Path) -> &BTreeSet<String> {
        match path {
            Path::Legacy => &self.legacy,
            Path::Shadow => &self.shadow,
            Path::Async => &self.r#async,
        }
    }

    fn is_empty(&self) -> bool {
        Path::ALL.into_iter().all(|path| self.of(path).is_empty())
    }

    fn find(&self, profile_id: &str) -> Option<Path> {
        Path::ALL.into_iter().find(|&path| self.of(path).contains(profile_id))
    }
}

/// Why a rollout is refused. The message names the field as it stands in the routing document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RolloutError {
    /// The salt is no word.
    #[error("`rollout.salt` must be 1 to 64 letters, digits, `_`, `-`, `.` or `:`, a letter or digit first")]
    Salt,
    /// The shares are not nested.
    #[error(
        "`rollout.shadow` is {shadow}, below `rollout.async`, which is {asynchronous}: it counts who is async, too"
    )]
    ShadowBelowAsync {
        /// The share that is shadowed or beyond.
        shadow: Share,
        /// The share that is async.
        asynchronous: Share,
    },
    /// A list holds what is no profile id.
    #[error("`rollout.always.{path}` holds {profile_id:?}, which is no profile id")]
    ProfileId {
        /// Of which path.
        path: Path,
        /// What it holds.
        profile_id: String,
    },
    /// A profile is in two lists.
    #[error("profile {profile_id} is in both `rollout.always.{first}` and `rollout.always.{second}`")]
    InTwoLists {
        /// Which profile.
        profile_id: String,
        /// One list.
        first: Path,
        /// The other.
        second: Path,
    },
}

/// Which path each profile is on. What this type holds is valid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Form", into = "Form")]
pub struct Rollout {
    salt: String,
    asynchronous: Share,
    shadow: Share,
    always: Lists,
}

/// A profile that another rollout puts on another path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Move<'a> {
    /// Who moves.
    pub profile_id: &'a str,
    /// The path until now.
    pub from: Path,
    /// The path from then on.
    pub to: Path,
}

impl Rollout {
    /// A rollout; `shadow` is the share that is shadowed or async.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn new(
        salt: impl Into<String>,
        asynchronous: Share,
        shadow: Share,
        always: Lists,
    ) -> Result<Self, RolloutError> {
        let salt = salt.into();
        if !is_id(&salt) {
            return Err(RolloutError::Salt);
        }
        if shadow < asynchronous {
            return Err(RolloutError::ShadowBelowAsync { shadow, asynchronous });
        }
        for path in Path::ALL {
            for profile_id in always.of(path) {
                if !is_id(profile_id) {
                    return Err(RolloutError::ProfileId { path, profile_id: profile_id.clone() });
                }
                if let Some(first) = always.find(profile_id).filter(|&first| first != path) {
                    return Err(RolloutError::InTwoLists { profile_id: profile_id.clone(), first, second: path });
                }
            }
        }
        Ok(Self { salt, asynchronous, shadow, always })
    }

    /// The path of a profile.
    pub fn path(&self, profile_id: &str) -> Path {
        if let Some(path) = self.always.find(profile_id) {
            return path;
        }
        let bucket = bucket(&self.salt, profile_id);
        if bucket < self.asynchronous.0 {
            Path::Async
        } else if bucket < self.shadow.0 {
            Path::Shadow
        } else {
            Path::Legacy
        }
    }

    /// Who of `profiles` moves when `new` takes the place of this one, in their order.
    pub fn moves<'a>(
        &'a self,
        new: &'a Rollout,
        profiles: impl IntoIterator<Item = &'a str>,
    ) -> impl Iterator<Item = Move<'a>> {
        profiles
            .into_iter()
            .map(|profile_id| Move { profile_id, from: self.path(profile_id), to: new.path(profile_id) })
            .filter(|a_move| a_move.from != a_move.to)
    }

    /// Whether everybody is async, so that there is nothing left to migrate.
    pub fn is_complete(&self) -> bool {
        self.asynchronous == Share::ALL && self.always.legacy.is_empty() && self.always.shadow.is_empty()
    }

    /// What deals the buckets.
    pub fn salt(&self) -> &str {
        &self.salt
    }

    /// The share that is async, lists apart.
    pub fn async_share(&self) -> Share {
        self.asynchronous
    }

    /// The share that is shadowed or async, lists apart.
    pub fn shadow_share(&self) -> Share {
        self.shadow
    }

    /// The share that is on a path, lists apart.
    pub fn share_of(&self, path: Path) -> Share {
        match path {
            Path::Legacy => Share(BUCKETS - self.shadow.0),
            Path::Shadow => Share(self.shadow.0 - self.asynchronous.0),
            Path::Async => self.asynchronous,
        }
    }

    /// The profiles that no bucket decides on.
    pub fn always(&self) -> &Lists {
        &self.always
    }
}

/// A profile's bucket, 0 to 9,999: the first eight bytes, big endian, of SHA-256(`salt`, a zero byte, `profile_id`), modulo [`BUCKETS`].
/// (That 2^64 is no multiple of it favours some buckets by less than one part in 10^15.)
pub fn bucket(salt: &str, profile_id: &str) -> u16 {
    let hash = Sha256::new().chain_update(salt).chain_update([0]).chain_update(profile_id).finalize();
    let head = hash.iter().take(8).fold(0, |head: u64, &byte| head << 8 | u64::from(byte));
    (head % u64::from(BUCKETS)) as u16
}

/// The form in the routing document.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    #[serde(deserialize_with = "salt")]
    salt: String,
    #[serde(default, deserialize_with = "asynchronous")]
    r#async: Share,
    #[serde(default, deserialize_with = "shadow")]
    shadow: Option<Share>,
    #[serde(default, deserialize_with = "always", skip_serializing_if = "Lists::is_empty")]
    always: Lists,
}

impl TryFrom<Form> for Rollout {
    type Error = RolloutError;

    fn try_from(form: Form) -> Result<Self, Self::Error> {
        Self::new(form.salt, form.r#async, form.shadow.unwrap_or(form.r#async), form.always)
    }
}

impl From<Rollout> for Form {
    fn from(Rollout { salt, asynchronous, shadow, always }: Rollout) -> Self {
        Self { salt, r#async: asynchronous, shadow: Some(shadow), always }
    }
}

/// Serde says what is wrong with a value, but not in which field it stands.
fn named<'de, D: Deserializer<'de>, T: Deserialize<'de>>(field: &str, deserializer: D) -> Result<T, D::Error> {
    T::deserialize(deserializer).map_err(|error| D::Error::custom(format_args!("`rollout.{field}` {error}")))
}

fn salt<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    named("salt", deserializer)
}

fn asynchronous<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Share, D::Error> {
    named("async", deserializer)
}

fn shadow<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Share>, D::Error> {
    named("shadow", deserializer).map(Some)
}

fn always<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Lists, D::Error> {
    named("always", deserializer)
}

#[cfg(test)]
mod tests;
