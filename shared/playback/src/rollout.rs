//! The rollout: which path each profile is on while a team moves from its legacy system to
//! Playhead.
//!
//! A profile's bucket is a number below 10,000, from a salted hash of its id. Two nested shares map
//! buckets to paths:
//!
//! ```text
//!   bucket   0 ──────────── async ──────────── shadow ──────────── 10,000
//!            │     Async     │      Shadow      │      Legacy       │
//! ```
//!
//! Both shares count from 0, so raising either one moves profiles forward only. A profile in
//! `Shadow` is the next to become `Async`. Another salt reshuffles all buckets. Lists of profiles
//! win over buckets.
//!
//! In the routing document it is the field `rollout`:
//!
//! ```json
//! {"salt": "2026-11", "async": "25%", "shadow": "100%",
//!  "always": {"legacy": ["p00000007"], "async": ["p00000054"]}}
//! ```
//!
//! - `salt`: required. 1 to 64 letters, digits, `_`, `-`, `.` or `:`, starting with a letter or
//!   digit.
//! - `async`, `shadow`: text such as `"25%"` or `"0.01%"`, with at most two decimals, since one
//!   bucket is 0.01%. A bare number is rejected: 0.5 might mean a half or half a percent. `async`
//!   defaults to 0% and `shadow` to `async`. `shadow` counts the profiles that are shadowed *or
//!   async*, so a value below `async` is rejected.
//! - `always`: lists of profile ids by path; a path may be absent. A profile in two lists is
//!   rejected.
//! - Any other field is rejected: a misspelt share must not count as 0%.
//!
//! This module decides and sends nothing. `events/rollout/vectors.json` holds golden values for
//! implementations in other languages.

use crate::contract::is_id;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// The number of buckets; one bucket is 0.01% of all profiles.
pub const BUCKETS: u16 = 10_000;

/// A profile's live path, in the order of a migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Path {
    /// The legacy system only.
    Legacy,
    /// The legacy system answers, and a shadow of the events goes to the log.
    Shadow,
    /// The log only.
    Async,
}

impl Path {
    /// All paths, in the order of a migration.
    pub const ALL: [Path; 3] = [Path::Legacy, Path::Shadow, Path::Async];

    /// The stable name: a field of the routing document and a metric dimension.
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

/// A share of all profiles, in whole buckets: 0 to [`BUCKETS`]. As text it is a percentage: `25%`
/// or `0.01%`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Share(u16);

impl Share {
    /// Nobody.
    pub const NONE: Share = Share(0);
    /// Everybody.
    pub const ALL: Share = Share(BUCKETS);

    /// How many buckets it covers, counted from 0.
    pub const fn buckets(self) -> u16 {
        self.0
    }
}

/// Not a share.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "is {0:?}; it must be a percentage from \"0%\" to \"100%\" with at most two decimals, such as \"25%\" or \"0.01%\""
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

/// Profiles whose path is listed, not decided by a bucket.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lists {
    /// Always on the legacy system.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub legacy: BTreeSet<String>,
    /// Always shadowed.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub shadow: BTreeSet<String>,
    /// Always async.
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

/// Why a rollout is invalid. The message names the field of the routing document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RolloutError {
    /// The salt has a wrong character or length.
    #[error("`rollout.salt` must be 1 to 64 letters, digits, `_`, `-`, `.` or `:`, starting with a letter or digit")]
    Salt,
    /// The shares are not nested.
    #[error(
        "`rollout.shadow` is {shadow}, less than `rollout.async`, which is {asynchronous}; it must include the async profiles"
    )]
    ShadowBelowAsync {
        /// The share that is shadowed or async.
        shadow: Share,
        /// The share that is async.
        asynchronous: Share,
    },
    /// A list holds an invalid profile id.
    #[error("`rollout.always.{path}` holds {profile_id:?}, which is not a profile id")]
    ProfileId {
        /// The list's path.
        path: Path,
        /// The invalid id.
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

/// Which path each profile is on. A value of this type is always valid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Form", into = "Form")]
pub struct Rollout {
    salt: String,
    asynchronous: Share,
    shadow: Share,
    always: Lists,
}

/// A profile that a new rollout puts on another path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Move<'a> {
    /// The profile.
    pub profile_id: &'a str,
    /// Its path now.
    pub from: Path,
    /// Its path under the new rollout.
    pub to: Path,
}

impl Rollout {
    /// Creates a rollout; `shadow` is the share that is shadowed or async.
    ///
    /// # Errors
    /// The first broken rule.
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

    /// The profiles, of these, that move when `new` replaces this rollout; in their order.
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

    /// Whether every profile is async, so nothing is left to migrate.
    pub fn is_complete(&self) -> bool {
        self.asynchronous == Share::ALL && self.always.legacy.is_empty() && self.always.shadow.is_empty()
    }

    /// The salt of the buckets.
    pub fn salt(&self) -> &str {
        &self.salt
    }

    /// The share that is async, ignoring lists.
    pub fn async_share(&self) -> Share {
        self.asynchronous
    }

    /// The share that is shadowed or async, ignoring lists.
    pub fn shadow_share(&self) -> Share {
        self.shadow
    }

    /// The share that is on a path, ignoring lists.
    pub fn share_of(&self, path: Path) -> Share {
        match path {
            Path::Legacy => Share(BUCKETS - self.shadow.0),
            Path::Shadow => Share(self.shadow.0 - self.asynchronous.0),
            Path::Async => self.asynchronous,
        }
    }

    /// The listed profiles.
    pub fn always(&self) -> &Lists {
        &self.always
    }
}

/// A profile's bucket, 0 to 9,999: the first eight bytes, big endian, of SHA-256(`salt`, a zero
/// byte, `profile_id`), modulo [`BUCKETS`]. (2^64 is not a multiple of it, which favours some
/// buckets by less than one part in 10^15.)
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

/// Adds the field's name to an error. Serde says only what is wrong with the value.
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
