//! The claims of a token, read tolerantly where providers differ.
//!
//! `scope` is a string of words in some providers and a list of strings in others; some call it
//! `scp`. A scope of any other form names nothing. It never makes a token with valid `profiles`
//! invalid.

use serde::{Deserialize, Deserializer};
use std::collections::BTreeSet;
use std::time::Duration;

#[derive(Deserialize)]
pub(super) struct Claims {
    pub(super) sub: Option<String>,
    /// When it expires. Verifying has checked it, and says what is wrong with it.
    #[serde(default)]
    exp: serde_json::Value,
    pub(super) profiles: Option<BTreeSet<String>>,
    #[serde(default)]
    scope: Words,
    #[serde(default)]
    scp: Words,
}

impl Claims {
    /// When the token expires, since 1970.
    pub(super) fn expires_at(&self) -> Option<Duration> {
        Duration::try_from_secs_f64(self.exp.as_f64()?).ok()
    }

    /// Whether `scope` or `scp` has this word.
    pub(super) fn has_scope(&self, wanted: &str) -> bool {
        self.scope.0.iter().chain(&self.scp.0).any(|word| word == wanted)
    }
}

/// The words of a scope.
#[derive(Default)]
struct Words(Vec<String>);

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde_json::Value;
        let words = match Value::deserialize(deserializer)? {
            Value::String(text) => text.split_whitespace().map(str::to_owned).collect(),
            Value::Array(items) => items
                .into_iter()
                .filter_map(|item| match item {
                    Value::String(word) => Some(word),
                    _ => None,
                })
                .collect(),
            _ => Vec::new(),
        };
        Ok(Self(words))
    }
}
