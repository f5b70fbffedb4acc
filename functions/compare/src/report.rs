//! The result of a run: how many sessions were compared, how many matched, and where the others
//! differ, with a few examples.
//!
//! **Invariant:** a report holds no id in clear text. Session ids are hashed. An id inside a
//! session is hashed together with the session's id, whose 80 random bits cannot be guessed. Anyone
//! who has a session id can find its example ([`redact`]); the report alone reveals none.

use crate::session::{Field, FieldDifference, Value};
use playback::contract::is_device_kind;
use playback::session::SessionId;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Maximum number of examples in a report.
pub const MAX_EXAMPLES: usize = 20;
/// Maximum number of examples of one kind (a field, or missing on one side), so a frequent
/// difference does not crowd out rare ones.
const MAX_EXAMPLES_OF_A_KIND: usize = 3;

/// The result of comparing one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Both sides agree.
    Matched,
    /// They differ in these fields.
    Differs(Vec<FieldDifference>),
    /// Only the shadow has it.
    MissingLive,
    /// Only the live system has it.
    MissingShadow,
    /// The shadow has only a part of it: its profile joined the shadow path during the session, or
    /// its home was draining.
    Partial,
    /// It could not be compared.
    Unanswered(Cause),
}

/// Why a session could not be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The live system did not answer, or refused to.
    Unavailable,
    /// The live system's answer, or the stored view, cannot be read.
    Unreadable,
}

impl Cause {
    /// The stable name, a metric dimension.
    pub const fn as_str(self) -> &'static str {
        match self {
            Cause::Unavailable => "unavailable",
            Cause::Unreadable => "unreadable",
        }
    }
}

/// The result of a run. Reports can be added up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Sessions that were compared: matched, differing, or missing on one side.
    pub compared: u64,
    /// Sessions on which both sides agree.
    pub matched: u64,
    /// Sessions that both sides have and that differ in at least one field.
    pub differing: u64,
    /// How many of these differ, by field.
    pub fields: BTreeMap<Field, u64>,
    /// Sessions that only the shadow has.
    pub missing_live: u64,
    /// Sessions that only the live system has.
    pub missing_shadow: u64,
    /// Sessions of which the shadow has only a part. They are not compared.
    pub partial: u64,
    /// Sessions that could not be compared, by cause.
    pub unanswered: BTreeMap<Cause, u64>,
    /// Examples of sessions that do not match.
    pub examples: Vec<Example>,
}

/// A session that does not match.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Example {
    /// The session's id, hashed: see [`redact`].
    pub session: String,
    /// The side that lacks the session, `live` or `shadow`, if one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
    /// The fields that differ; ids are hashed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<FieldDifference>,
}

impl Report {
    /// Adds a session.
    pub fn add(&mut self, session_id: &SessionId, verdict: Verdict) {
        match verdict {
            Verdict::Matched => self.matched += 1,
            Verdict::Differs(differences) => {
                self.differing += 1;
                for one in &differences {
                    *self.fields.entry(one.field).or_default() += 1;
                }
                self.keep(Example::of(session_id, None, differences));
            }
            Verdict::MissingLive => {
                self.missing_live += 1;
                self.keep(Example::of(session_id, Some("live"), Vec::new()));
            }
            Verdict::MissingShadow => {
                self.missing_shadow += 1;
                self.keep(Example::of(session_id, Some("shadow"), Vec::new()));
            }
            Verdict::Partial => self.partial += 1,
            Verdict::Unanswered(cause) => self.could_not_compare(cause, 1),
        }
        self.compared = self.matched + self.differing + self.missing_live + self.missing_shadow;
    }

    /// Counts sessions that could not be compared.
    pub fn could_not_compare(&mut self, cause: Cause, sessions: u64) {
        if sessions > 0 {
            *self.unanswered.entry(cause).or_default() += sessions;
        }
    }

    /// Adds another report. This report's examples come first.
    pub fn merge(&mut self, other: Report) {
        let Report {
            compared,
            matched,
            differing,
            fields,
            missing_live,
            missing_shadow,
            partial,
            unanswered,
            examples,
        } = other;
        self.compared += compared;
        self.matched += matched;
        self.differing += differing;
        self.missing_live += missing_live;
        self.missing_shadow += missing_shadow;
        self.partial += partial;
        for (field, sessions) in fields {
            *self.fields.entry(field).or_default() += sessions;
        }
        for (cause, sessions) in unanswered {
            self.could_not_compare(cause, sessions);
        }
        for example in examples {
            self.keep(example);
        }
    }

    /// The share of compared sessions that matched, 0 to 1; `None` if none were compared.
    pub fn match_rate(&self) -> Option<f64> {
        (self.compared > 0).then(|| self.matched as f64 / self.compared as f64)
    }

    /// Whether no session was looked at.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Keeps an example if few others show the same.
    fn keep(&mut self, example: Example) {
        let is_rare = |shows: &dyn Fn(&Example) -> bool| {
            self.examples.iter().filter(|kept| shows(kept)).count() < MAX_EXAMPLES_OF_A_KIND
        };
        let is_wanted = match &example.missing {
            Some(side) => is_rare(&|kept| kept.missing.as_ref() == Some(side)),
            None => example
                .differences
                .iter()
                .any(|one| is_rare(&|kept| kept.differences.iter().any(|other| other.field == one.field))),
        };
        if is_wanted && self.examples.len() < MAX_EXAMPLES {
            self.examples.push(example);
        }
    }
}

impl Example {
    fn of(session_id: &SessionId, missing: Option<&str>, mut differences: Vec<FieldDifference>) -> Self {
        for one in &mut differences {
            for value in [&mut one.ours, &mut one.theirs] {
                redact_value(session_id, one.field, value);
            }
        }
        Self { session: redact(&session_id.to_string()), missing: missing.map(str::to_owned), differences }
    }
}

/// Keeps only short words of fields that identify nobody. Another system may store anything in
/// their place.
fn redact_value(session_id: &SessionId, field: Field, value: &mut Value) {
    let identifies_nobody = matches!(field, Field::Country | Field::DeviceKind);
    if let Value::Text(text) = value
        && !(identifies_nobody && text.len() <= 16 && is_device_kind(text))
    {
        *text = redact(&format!("{session_id}\0{text}"));
    }
}

/// Replaces a text in a report by the first 16 hexadecimal digits of its SHA-256, as
/// `printf '%s' use1-01… | sha256sum` prints them.
pub fn redact(text: &str) -> String {
    Sha256::digest(text).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{session_id, verdicts};
    use proptest::prelude::*;

    fn report(verdicts: &[Verdict]) -> Report {
        let mut report = Report::default();
        for (number, verdict) in verdicts.iter().enumerate() {
            report.add(&session_id(number as u64), verdict.clone());
        }
        report
    }

    fn differs(field: Field, ours: Value, theirs: Value) -> Verdict {
        Verdict::Differs(vec![FieldDifference { field, ours, theirs }])
    }

    proptest! {
        #[test]
        fn every_session_is_counted_once(verdicts in prop::collection::vec(verdicts(), 0..60)) {
            let report = report(&verdicts);
            let counted = report.compared + report.partial + report.unanswered.values().sum::<u64>();
            prop_assert_eq!(counted, verdicts.len() as u64);
            prop_assert_eq!(report.compared, report.matched + report.differing + report.missing_live + report.missing_shadow);
            prop_assert!(report.fields.values().all(|&sessions| sessions <= report.differing));
            let all_matched = report.matched == report.compared;
            prop_assert_eq!(report.match_rate() == Some(1.0), all_matched && report.compared > 0);
        }

        #[test]
        fn reports_add_up(verdicts in prop::collection::vec(verdicts(), 0..60), split in any::<prop::sample::Index>()) {
            let split = split.index(verdicts.len() + 1);
            let mut sum = report(&verdicts[..split]);
            sum.merge(report(&verdicts[split..]));
            let mut whole = report(&verdicts);
            prop_assert!(sum.examples.len() <= MAX_EXAMPLES);
            sum.examples.clear();
            whole.examples.clear();
            prop_assert_eq!(sum, whole);
        }

        #[test]
        fn examples_are_bounded_and_show_every_kind_of_difference(verdicts in prop::collection::vec(verdicts(), 0..200)) {
            let report = report(&verdicts);
            prop_assert!(report.examples.len() <= MAX_EXAMPLES);
            if report.examples.len() < MAX_EXAMPLES {
                for field in report.fields.keys() {
                    prop_assert!(report.examples.iter().any(|one| one.differences.iter().any(|one| one.field == *field)));
                }
                let shows = |side: &str| report.examples.iter().any(|one| one.missing.as_deref() == Some(side));
                prop_assert_eq!(shows("live"), report.missing_live > 0);
                prop_assert_eq!(shows("shadow"), report.missing_shadow > 0);
            }
        }

        #[test]
        fn report_round_trips(verdicts in prop::collection::vec(verdicts(), 0..60)) {
            let report = report(&verdicts);
            prop_assert_eq!(serde_json::from_str::<Report>(&serde_json::to_string(&report).unwrap()).unwrap(), report);
        }
    }

    #[test]
    fn a_frequent_difference_does_not_crowd_out_rare_ones() {
        let frequent = differs(Field::PositionMs, Value::Number(1), Value::Number(2));
        let rare = differs(Field::Country, Value::Absent, Value::Text("US".to_owned()));
        let report = report(&[vec![frequent; 100], vec![rare, Verdict::MissingShadow]].concat());
        assert_eq!((report.fields[&Field::PositionMs], report.examples.len()), (100, 5));
        assert_eq!(report.examples[3].differences[0].field, Field::Country);
        assert_eq!(report.examples[4].missing.as_deref(), Some("shadow"));
    }

    #[test]
    fn a_report_holds_no_id() {
        let text = |text: &str| Value::Text(text.to_owned());
        let report = report(&[
            differs(Field::DeviceId, text("d00000308"), text("serial-4711")),
            differs(Field::TitleId, text("t000002"), Value::Absent),
            differs(Field::Country, text("US"), text("jane.doe@example.com")),
            differs(Field::DeviceKind, text("tv"), text("Jane Doe's television")),
            Verdict::MissingLive,
            Verdict::MissingShadow,
        ]);
        let written = serde_json::to_string(&report).unwrap();
        let ids: Vec<String> = (0..6).map(|number| session_id(number).to_string()).collect();
        let secret =
            ["d00000308", "serial-4711", "t000002", "jane", "Jane"].into_iter().chain(ids.iter().map(String::as_str));
        for secret in secret {
            assert!(!written.contains(secret), "{secret} in {written}");
        }
        assert!(written.contains(r#""US""#) && written.contains(r#""tv""#), "what identifies nobody stays: {written}");
        assert_eq!(report.examples[0].session, redact(&ids[0]));
    }

    #[test]
    fn a_known_session_can_be_found_in_a_report() {
        // printf '%s' use1-01M3250V3TW3KG5DD5CEVSMJCC | sha256sum
        assert_eq!(redact("use1-01M3250V3TW3KG5DD5CEVSMJCC"), "d293cc27f539fcce");
    }
}
