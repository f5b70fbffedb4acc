//! The promotion rule: the share of `async` is raised only on evidence.
//!
//! By default at least 100 sessions must have been compared in the last hour, and 99.9% of them
//! must match. That is stricter than the alarm (99%): the alarm wakes somebody, and the rule stops
//! somebody who is already awake. 100 sessions without a difference mean, with 95% confidence, that
//! fewer than 3 in 100 differ. That is enough for the first percent of the profiles. Each later
//! step brings more evidence.
//!
//! The rule does not apply to profiles in the lists. An operator puts them there by name, so that
//! testers can go first.

use crate::comparison::{Found, percent};
use playback::rollout::{BUCKETS, Rollout, Share};

const MIN_MATCH_RATE: &str = "99.9%";
const MIN_SAMPLE: u64 = 100;

/// The evidence needed before the share of async is raised.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct Rule {
    /// To raise async, this share of the sessions compared in the last hour must match
    #[arg(long, value_name = "SHARE", default_value = MIN_MATCH_RATE)]
    pub min_match_rate: Share,
    /// To raise async, this many sessions must have been compared in the last hour
    #[arg(long, value_name = "SESSIONS", default_value_t = MIN_SAMPLE)]
    pub min_sample: u64,
    /// Raise async anyway, and print what that overrides
    #[arg(long)]
    pub force: bool,
}

impl Default for Rule {
    fn default() -> Self {
        // The constant is valid, as a test checks. If it were not, all would have to match.
        let min_match_rate = MIN_MATCH_RATE.parse().unwrap_or(Share::ALL);
        Self { min_match_rate, min_sample: MIN_SAMPLE, force: false }
    }
}

/// Whether the step may move profiles to async that are not in a list.
pub(super) fn promotes(before: &Rollout, after: &Rollout) -> bool {
    let reshuffles = before.salt() != after.salt() && after.async_share() > Share::NONE;
    after.async_share() > before.async_share() || reshuffles
}

impl Rule {
    /// The reasons against raising async, one line each. Empty if there are none.
    #[must_use]
    pub fn objections(&self, found: &Found) -> Vec<String> {
        let mut objections = Vec::new();
        for region in &found.without {
            objections.push(format!(
                "nothing is compared in {region}: update its stack with LegacySessionsUrl and LegacyMapping"
            ));
        }
        for (region, why) in &found.missed {
            objections.push(format!("the comparison of {region} is unavailable: {why}"));
        }
        let (compared, matched) = (found.total.compared, found.total.matched);
        // Without any reports, the objections above are enough.
        if !found.reports.is_empty() && (compared == 0 || compared < self.min_sample) {
            objections.push(format!(
                "{compared} sessions were compared in the last hour, and {} must be (--min-sample): wait until more sessions have settled, or raise shadow first",
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
    fn default_rule_wants_999_of_1000_and_at_least_100() {
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
    fn region_without_comparison_or_unread_is_an_objection() {
        let mut one = found(500, 500);
        one.without.push("us-west-2".to_owned());
        one.missed.insert("eu-west-1".to_owned(), "it is down".to_owned());
        let objections = Rule::default().objections(&one);
        assert!(objections[0].contains("nothing is compared in us-west-2"), "{objections:?}");
        assert!(objections[1].contains("of eu-west-1 is unavailable: it is down"), "{objections:?}");
        let nowhere = Found { without: vec!["us-east-1".to_owned()], ..Found::default() };
        assert_eq!(Rule::default().objections(&nowhere).len(), 1);
    }

    proptest! {
        #[test]
        fn better_evidence_is_accepted_wherever_worse_was(
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
    fn only_unlisted_profiles_need_evidence() {
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
