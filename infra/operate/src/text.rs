//! How the command line formats times.

use std::time::{Duration, UNIX_EPOCH};

/// Unix milliseconds as `2026-09-21 13:33:30Z`.
#[must_use]
pub fn clock_time(ms: u64) -> String {
    // RFC 3339 ends with the year 9999.
    let time = UNIX_EPOCH + Duration::from_millis(ms.min(253_402_300_799_000));
    humantime::format_rfc3339_seconds(time).to_string().replace('T', " ")
}

/// A duration in its largest unit: `45s`, `12m`, `7h`, `3d`.
#[must_use]
pub fn age(ms: u64) -> String {
    let s = ms / 1_000;
    match s {
        0..120 => format!("{s}s"),
        120..7_200 => format!("{}m", s / 60),
        7_200..172_800 => format!("{}h", s / 3_600),
        _ => format!("{}d", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_ages_are_short() {
        assert_eq!(clock_time(1_790_000_010_122), "2026-09-21 14:13:30Z");
        assert_eq!(
            [0, 119_999, 120_000, 7_199_000, 7_200_000, 172_800_000].map(age),
            ["0s", "119s", "2m", "119m", "2h", "2d"]
        );
    }
}
