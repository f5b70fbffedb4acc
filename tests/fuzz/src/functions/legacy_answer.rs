//! What a legacy system answers to `compare`: a mapping on the first line, the answer on the others.
//!
//! - An answer has no more sessions than its list, and each has exactly the mapped fields.

use compare::{Mapping, Unmapped};
use serde_json::Value;

/// For inputs whose first line is no mapping.
const DEFAULT: &str = r#"{"sessions": "/viewings", "session_id": "/viewing", "fields": {
    "title_id": {"pointer": "/movie/id"}, "position_ms": {"pointer": "/progress/resume", "scale": 1000},
    "started_at": {"pointer": "/first", "scale": 1000}, "completed": {"pointer": "/done", "default": false},
    "missing": {"pointer": "/missing", "default": 0}, "country": {"pointer": "/country"}}}"#;

pub(super) fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (first, rest) = text.split_once('\n').unwrap_or((DEFAULT, text));
    let mapping: Mapping = match first.parse() {
        Ok(mapping) => mapping,
        Err(_) => DEFAULT.parse().unwrap(),
    };
    let Ok(answer) = serde_json::from_str::<Value>(rest) else { return };
    let one = mapping.session(&answer);
    assert_eq!(one == Err(Unmapped::NotAnObject), !answer.is_object());
    match mapping.sessions(&answer) {
        Ok(sessions) => {
            assert!(mapping.reads_lists() && sessions.len() <= rest.len());
            for (session_id, _) in sessions {
                assert!(rest.contains(session_id.ulid.to_string().as_str()) || rest.contains('\\'), "{session_id}");
            }
        }
        Err(Unmapped::NoList) => {}
        Err(error) => assert!(mapping.reads_lists(), "{error}"),
    }
}
