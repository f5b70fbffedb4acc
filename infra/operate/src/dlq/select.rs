//! Filters that select letters.

use super::letter::Found;
use std::time::Duration;

/// The filters of a command. A letter must pass all that are given.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct Filter {
    /// Only letters that died for this reason, such as `invalid_envelope`, or `raw` if SQS moved
    /// them here (may be repeated)
    #[arg(long, value_name = "REASON")]
    reason: Vec<String>,
    /// Only letters that died longer ago than this, such as 90s, 10m, 1h or 2d
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    older_than: Option<Duration>,
    /// Only letters that died more recently than this
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    newer_than: Option<Duration>,
    /// Only records from this topic, queue or stream (a name or an ARN)
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
}

impl Filter {
    /// Whether a letter passes. `now` is in Unix milliseconds.
    pub(super) fn takes(&self, letter: &Found, now: u64) -> bool {
        let age = Duration::from_millis(now.saturating_sub(letter.dead_at()));
        let named = |wanted: &String| {
            letter
                .origin()
                .is_some_and(|origin| origin == wanted || origin.rsplit([':', '/']).next() == Some(wanted.as_str()))
        };
        (self.reason.is_empty() || self.reason.iter().any(|reason| reason == letter.reason()))
            && self.older_than.is_none_or(|least| age > least)
            && self.newer_than.is_none_or(|most| age < most)
            && self.source.as_ref().is_none_or(named)
    }
}

#[cfg(test)]
impl Filter {
    pub(super) fn of_reason(reason: &str) -> Self {
        Self { reason: vec![reason.to_owned()], ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{dead, found};
    use super::*;

    #[test]
    fn letter_must_pass_every_given_filter() {
        let filter = |reason: &[&str], older: Option<u64>, newer: Option<u64>, source: Option<&str>| Filter {
            reason: reason.iter().map(ToString::to_string).collect(),
            older_than: older.map(Duration::from_millis),
            newer_than: newer.map(Duration::from_millis),
            source: source.map(str::to_owned),
        };
        let letter = found(&serde_json::to_string(&dead("invalid_envelope", 1_000)).unwrap());
        let raw = found("hello"); // sent at 50
        let check = |filter: Filter, takes_letter: bool, takes_raw: bool| {
            let takes = (filter.takes(&letter, 1_500), filter.takes(&raw, 1_500));
            assert_eq!(takes, (takes_letter, takes_raw), "{filter:?}");
        };
        check(Filter::default(), true, true);
        check(filter(&["raw"], None, None, None), false, true);
        check(filter(&["invalid_envelope", "raw"], None, None, None), true, true);
        check(filter(&["corrupt_view"], None, None, None), false, false);
        check(filter(&[], Some(499), None, None), true, true);
        check(filter(&[], Some(500), None, None), false, true);
        check(filter(&[], None, Some(501), None), true, false);
        check(filter(&[], None, Some(500), None), false, false);
        check(filter(&[], None, None, Some("playback-events")), true, false);
        check(filter(&[], None, None, Some("inbound")), false, true);
        check(filter(&[], None, None, Some("arn:aws:sqs:us-east-1:1:inbound")), false, true);
        check(filter(&[], None, None, Some("bound")), false, false);
        check(filter(&["raw"], None, None, Some("playback-events")), false, false);
    }
}
