//! The comparison as text.

use super::read::Found;
use crate::text::clock_time;
use ::compare::{Example, FieldDifference, Report, Value};
use std::fmt::Write as _;

/// `part` of `whole` as a percentage with two decimals. It is rounded down: less than all is never
/// `100%`.
pub(crate) fn percent(part: u64, whole: u64) -> String {
    let hundredths = (u128::from(part) * 10_000).checked_div(whole.into()).unwrap_or_default();
    match hundredths {
        0 if part > 0 => "<0.01%".to_owned(),
        10_000 => "100%".to_owned(),
        _ => format!("{}.{:02}%", hundredths / 100, hundredths % 100),
    }
}

impl Found {
    /// One line: how many sessions were compared, how many match, how many could not be compared.
    #[must_use]
    pub fn line(&self) -> String {
        let Report { compared, matched, .. } = self.total;
        let said = match compared {
            0 => "no session was compared".to_owned(),
            _ => format!("{compared} sessions compared, {} match", percent(matched, compared)),
        };
        match self.total.unanswered.values().sum() {
            0_u64 => said,
            unanswered => format!("{said}; {unanswered} could not be compared"),
        }
    }

    /// The table.
    #[must_use]
    pub fn text(&self) -> String {
        let regions: Vec<&str> = self.reports.keys().map(String::as_str).collect();
        let mut text = match regions[..] {
            [] => String::new(),
            _ => format!(
                "Since {}, in {}: {} reports\n\n",
                clock_time(self.since),
                regions.join(", "),
                self.reports.values().sum::<usize>()
            ),
        };
        if !regions.is_empty() {
            tally(&mut text, &self.total);
        }
        for region in &self.without {
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "compare is not deployed in {region}. Set LegacySessionsUrl and LegacyMapping, or CandidateSample."
            );
        }
        text
    }

    /// The regions that the figures do not include, if any.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let missed = self.missed.iter().map(|(region, why)| format!("NOT INCLUDED: {region}: {why}\n"));
        (!self.missed.is_empty()).then(|| missed.collect())
    }
}

/// Writing to a string cannot fail.
fn tally(text: &mut String, report: &Report) {
    let Report { compared, matched, differing, missing_live, missing_shadow, partial, .. } = *report;
    let _ = writeln!(text, "{:<24} {:>10} {:>9}", "sessions", "count", "share");
    for (title, sessions) in [
        ("matched", matched),
        ("differing", differing),
        ("missing, live", missing_live),
        ("missing, shadow", missing_shadow),
    ] {
        let _ = writeln!(text, "{title:<24} {sessions:>10} {:>9}", percent(sessions, compared));
    }
    let _ = writeln!(text, "{:<24} {compared:>10}", "compared");
    let _ = writeln!(text, "{:<24} {partial:>10}", "not compared, partial");
    for (cause, sessions) in &report.unanswered {
        let _ = writeln!(text, "{:<24} {sessions:>10}", format!("unanswered, {}", cause.as_str()));
    }
    let rate = match compared {
        0 => "none, since no session was compared".to_owned(),
        _ => percent(matched, compared),
    };
    let _ = writeln!(text, "\nMatch rate: {rate}");
    if !report.fields.is_empty() {
        let _ = writeln!(text, "\n{:<24} {:>10} {:>9}", "differing field", "sessions", "share");
        let mut fields: Vec<_> = report.fields.iter().collect();
        fields.sort_by_key(|(_, sessions)| std::cmp::Reverse(**sessions));
        for (field, sessions) in fields {
            let _ = writeln!(text, "{:<24} {sessions:>10} {:>9}", field.as_str(), percent(*sessions, compared));
        }
    }
    if !report.examples.is_empty() {
        text.push_str(
            "\nExamples, ids hashed (to hash a session id: printf '%s' SESSION_ID | sha256sum | head -c 16):\n",
        );
        for one in &report.examples {
            let _ = writeln!(text, "  {}  {}", one.session, said(one));
        }
    }
}

fn said(Example { missing, differences, .. }: &Example) -> String {
    let difference = |FieldDifference { field, ours, theirs }: &FieldDifference| {
        format!("{}: shadow {}, live {}", field.as_str(), value(ours), value(theirs))
    };
    let differences: Vec<String> = differences.iter().map(difference).collect();
    match missing {
        Some(side) => format!("missing, {side}"),
        None => differences.join("; "),
    }
}

fn value(value: &Value) -> String {
    match value {
        Value::Absent => "nothing".to_owned(),
        Value::Flag(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::Text(text) => text.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::compare::{Cause, Field};
    use std::collections::BTreeMap;

    #[test]
    fn less_than_all_is_never_100_percent() {
        let said = [(0, 0), (0, 9), (9, 9), (99_999, 100_000), (1, 100_000), (1, 3)];
        let said = said.map(|(part, whole)| percent(part, whole));
        assert_eq!(said, ["0.00%", "0.00%", "100%", "99.99%", "<0.01%", "33.33%"]);
    }

    #[test]
    fn table_names_fields_sides_causes_and_examples() {
        let differs = FieldDifference { field: Field::PositionMs, ours: Value::Number(7), theirs: Value::Absent };
        let example = |session: &str, missing: Option<&str>, differences| Example {
            session: session.to_owned(),
            missing: missing.map(str::to_owned),
            differences,
        };
        let total = Report {
            compared: 1_000,
            matched: 995,
            differing: 4,
            fields: BTreeMap::from([(Field::PositionMs, 4), (Field::TitleId, 1)]),
            missing_live: 1,
            partial: 12,
            unanswered: BTreeMap::from([(Cause::Unavailable, 3)]),
            examples: vec![
                example("d293cc27f539fcce", None, vec![differs]),
                example("0123456789abcdef", Some("live"), Vec::new()),
            ],
            ..Report::default()
        };
        let reports = BTreeMap::from([("us-east-1".to_owned(), 11), ("us-west-2".to_owned(), 12)]);
        let found = Found { since: 1_790_000_000_000, reports, without: vec!["x".into()], total, ..Found::default() };
        let expect = "\
Since 2026-09-21 14:13:20Z, in us-east-1, us-west-2: 23 reports

sessions                      count     share
matched                         995    99.50%
differing                         4     0.40%
missing, live                     1     0.10%
missing, shadow                   0     0.00%
compared                       1000
not compared, partial            12
unanswered, unavailable           3

Match rate: 99.50%

differing field            sessions     share
position_ms                       4     0.40%
title_id                          1     0.10%

Examples, ids hashed (to hash a session id: printf '%s' SESSION_ID | sha256sum | head -c 16):
  d293cc27f539fcce  position_ms: shadow 7, live nothing
  0123456789abcdef  missing, live
compare is not deployed in x. Set LegacySessionsUrl and LegacyMapping, or CandidateSample.
";
        assert_eq!(found.text(), expect);
        assert_eq!(found.line(), "1000 sessions compared, 99.50% match; 3 could not be compared");
    }
}
