//! The clock: the only place where a function reads the time. Everything else gets it as an
//! argument.

use std::time::{SystemTime, UNIX_EPOCH};

/// The time in Unix milliseconds; 0 if the machine's clock is set before 1970.
pub fn now_ms() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}
