//! A member's command to erase.

use playback::session::SessionId;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A member's command to erase, as of a time. It may be carried out any number of times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
// A narrower command of newer code must not be taken for a wider one.
#[serde(deny_unknown_fields)]
pub struct Erase {
    /// Whose history.
    pub profile_id: String,
    /// Up to when, Unix milliseconds.
    pub at: u64,
    /// Only this title.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title_id: Option<String>,
    /// Only this session; then `at` does not matter.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "session_text")]
    pub session_id: Option<SessionId>,
}

impl Erase {
    /// After this time an erasure must be carried out again: longer than one invocation of `process`
    /// or `retry` may take.
    pub const REPEAT_AFTER: Duration = Duration::from_secs(120);
}

/// The body of a message on the queue `retry` that asks to carry out an erasure again.
#[derive(Debug, Serialize, Deserialize)]
pub struct EraseMessage {
    /// What to erase.
    pub erase: Erase,
}

mod session_text {
    use playback::session::SessionId;
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(session: &Option<SessionId>, to: S) -> Result<S::Ok, S::Error> {
        match session {
            Some(session) => to.collect_str(session),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SessionId>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| text.parse().map_err(de::Error::custom)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erasures_round_trip_as_json() {
        let everything = Erase { profile_id: "p".to_owned(), at: 7, title_id: None, session_id: None };
        let session = "use1-01M3250V3TW3KG5DD5CEVSMJCC".parse().ok();
        for erase in [
            Erase { title_id: Some("t/1".to_owned()), ..everything.clone() },
            Erase { session_id: session, ..everything.clone() },
            everything,
        ] {
            let text = serde_json::to_string(&erase).unwrap();
            assert_eq!(serde_json::from_str::<Erase>(&text).unwrap(), erase, "{text}");
        }
    }
}
