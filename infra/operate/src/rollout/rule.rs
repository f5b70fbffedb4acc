//! The promotion rule: shares are raised to `async` on evidence only.
//!
//! By default 99.9% of the sessions that were compared in the last hour must match, of 100 at least. That is stricter than the alarm (99%): an
//! alarm wakes somebody, and this stops somebody who is awake. 100 sessions without a difference say, with 95% confidence, that fewer than 3
//! in 100 differ: enough for the first percent of the profiles, and every step after it brings more.
//!
//! Profiles that are named one by one, in the lists, are an operator's word and not held against it: testers go first.

use crate::comparison::{Found, percent};
use playback::rollout::{BUCKETS, Rollout, Share};

const MIN_MATCH_RATE: &str = "99.9%";
const MIN_SAMPLE: u64 = 100;

/// What must have been found before a share of async is raised.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct Rule {
    /// The share of the sessions compared in the last hour that must match for async to be raised
    #[arg(long, value_name = "SHARE", default_value = MIN_MATCH_RATE)]
    pub min_match_rate: Share,
    /// How many sessions must have been compared in the last hour for async to be raised
    #[arg(long, value_name = "SESSIONS", default_value_t = MIN_SAMPLE)]
    pub min_sample: u64,
    /// Raise async whatever was found, and say what that overrides
    #[arg(long)]
    pub force: bool,
}

impl Default for Rule {
    fn default() -> Self {
        // It can be read (a test holds that); if it could not, all would have to match.
        let min_match_rate = MIN_MATCH_RATE.parse().unwrap_or(Share::ALL);
        Self { min_match_rate, min_sample: MIN_SAMPLE, force: false }
    }
}

/// Whether the step from one rollout to the next puts anybody on async whom no list names.
pub(super) fn promotes(before: &Rollout, after: &Rollout) -> bool {
    let reshuffles = before.salt() != after.salt() && after.async_share() > Share::NONE;
    after.async_share() > before.async_share() || reshuffles
}

impl Rule {
    /// What speaks against raising async, a line each; nothing if all is well.
    #[must_use]
    pub fn objections(&self, found: &Found) -> Vec<String> {
        let mut objections = Vec::new();
        for region in &found.without {
            objections.push(format!(
                "in {region} nothing is compared: update its stack with LegacySessionsUrl and LegacyMapping"
            ));
        }
        for (region, why) in &found.missed {
            objections.push(format!("what was found in {region} is not known: {why}"));
        }
        let (compared, matched) = (found.total.compared, found.total.matched);
        // With nothing to read from there is nothing more to say.
        if !found.reports.is_empty() && (compared == 0 || compared < self.min_sample) {
            objections.push(format!(
                "{compared} sessions were compared in the last hour, and {} must be (--min-sample): wait until more have settled, or raise shadow first",
                self.min_sample.max(1)
            ));
        }
        let wanted = u128::from(compared) * u128::from(self.min_match_rate.buckets());
        if compared > 0 && u128::from(matched) * u128::from(BUCKETS) < wanted {
            objections.push(format!(
                "{} of {compared} sessions match, and {} must (--min-match-rate): `cargo playhead compare report` shows where the others differ",
                percent(matched, compared),
                self.min_match_rate
            ));
        }
        objections
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::compare::Report;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    pub(in super::super) fn found(compared: u64, matched: u64) -> Found {
        let total = Report { compared, matched, differing: compared - matched, ..Report::default() };
        Found { reports: BTreeMap::from([("us-east-1".to_owned(), 12)]), total, ..Found::default() }
    }

    #[test]
    fn by_default_999_of_1000_must_match_of_100_at_least() {
        let rule = Rule::default();
        assert_eq!((rule.min_match_rate.to_string().as_str(), rule.force), ("99.9%", false));
        let refused = |compared, matched, because: &str| {
            let objections = rule.objections(&found(compared, matched));
            assert!(objections.len() == 1 && objections[0].contains(because), "{objections:?}");
        };
        assert_eq!(rule.objections(&found(100, 100)), [""; 0]);
        assert_eq!(rule.objections(&found(1_000, 999)), [""; 0]);
        refused(99, 99, "99 sessions were compared in the last hour, and 100 must be");
        refused(0, 0, "0 sessions were compared");
        refused(1_000, 998, "99.80% of 1000 sessions match, and 99.9% must");
        refused(100, 99, "99.00% of 100");
    }

    #[test]
    fn a_region_that_compares_nothing_or_was_not_read_speaks_against_it() {
        let mut one = found(500, 500);
        one.without.push("us-west-2".to_owned());
        one.missed.insert("eu-west-1".to_owned(), "it is away".to_owned());
        let objections = Rule::default().objections(&one);
        assert!(objections[0].contains("in us-west-2 nothing is compared"), "{objections:?}");
        assert!(objections[1].contains("eu-west-1 is not known: it is away"), "{objections:?}");
        let nowhere = Found { without: vec!["us-east-1".to_owned()], ..Found::default() };
        assert_eq!(Rule::default().objections(&nowhere).len(), 1);
    }

    proptest! {
        #[test]
        fn better_evidence_is_never_refused_where_worse_was_taken(
            compared in 0..5_000u64, share in 0..=100u64, more in 0..500u64, min_sample in 0..2_000u64, min in 0..=100u16,
        ) {
            let rule = Rule { min_match_rate: format!("{min}%").parse().unwrap(), min_sample, force: false };
            let matched = compared * share / 100;
            if rule.objections(&found(compared, matched)).is_empty() {
                prop_assert!(compared >= min_sample.max(1) && matched * 100 >= compared * u64::from(min));
                prop_assert!(rule.objections(&found(compared + more, matched + more)).is_empty());
            }
        }
    }

    #[test]
    fn only_who_no_list_names_needs_evidence() {
        let rollout = |form: &str| -> Rollout { serde_json::from_str(form).unwrap() };
        let before = rollout(r#"{"salt":"a","async":"10%","shadow":"20%"}"#);
        let check = |after: &str, expected: bool| assert_eq!(promotes(&before, &rollout(after)), expected, "{after}");
        check(r#"{"salt":"a","async":"10.01%","shadow":"20%"}"#, true);
        check(r#"{"salt":"b","async":"5%","shadow":"20%"}"#, true);
        check(r#"{"salt":"b","async":"0%","shadow":"100%"}"#, false);
        check(r#"{"salt":"a","async":"10%","shadow":"100%"}"#, false);
        check(r#"{"salt":"a","async":"0%","shadow":"0%"}"#, false);
        check(r#"{"salt":"a","async":"10%","shadow":"20%","always":{"async":["p1"]}}"#, false);
    }
}
