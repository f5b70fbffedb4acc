//! The clock: the one place where a function asks for the time. Everything else is handed it.

use std::time::{SystemTime, UNIX_EPOCH};

/// The time in Unix milliseconds; 0 on a machine whose clock stands before 1970.
pub fn now_ms() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}
