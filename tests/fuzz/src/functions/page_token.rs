//! Text from a URL: page tokens, session ids, the codes of regions.
//!
//! - Each has one spelling: what is read is written as the same text.

use playback::rollout::Share;
use playback::session::{Home, SessionId, parse_ulid};
use store::dynamodb::PageToken;

pub(super) fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(token) = text.parse::<PageToken>() {
        assert_eq!(token.to_string(), text);
    }
    if let Ok(session_id) = text.parse::<SessionId>() {
        assert_eq!(session_id.to_string(), text);
        assert!(session_id.started_at() < 1 << 48);
    }
    if let Ok(home) = text.parse::<Home>() {
        assert_eq!(home.to_string(), text);
    }
    if let Some(ulid) = parse_ulid(text) {
        assert_eq!(ulid.to_string(), text);
    }
    if let Ok(share) = text.parse::<Share>() {
        assert_eq!(share.to_string().parse(), Ok(share));
    }
    let _ = Home::of_region(text);
}
