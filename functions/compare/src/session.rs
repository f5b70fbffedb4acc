//! The fields of a session on which two systems are compared, and their differences.

use playback::history::Rules;
use playback::view::{Sequence, View};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::str::FromStr;

/// The fields that are compared; the names are those of the member's API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Field {
    /// What was watched.
    TitleId,
    /// Its length, milliseconds.
    TitleDurationMs,
    /// The country where it began.
    Country,
    /// The watch time of the first event, Unix milliseconds.
    StartedAt,
    /// The watch time of the latest event, Unix milliseconds.
    WatchedAt,
    /// When the latest event was received, Unix milliseconds.
    LastReceivedAt,
    /// Position in the title, milliseconds.
    PositionMs,
    /// How much of the title was played, milliseconds.
    PlayedMs,
    /// Whether the position is at or beyond 95% of the title.
    Completed,
    /// The device on which it was watched last.
    DeviceId,
    /// The kind of that device.
    DeviceKind,
    /// How many distinct events there were.
    Events,
    /// How many sequence numbers are missing.
    Missing,
}

impl Field {
    /// All fields.
    pub const ALL: [Field; 13] = [
        Field::TitleId,
        Field::TitleDurationMs,
        Field::Country,
        Field::StartedAt,
        Field::WatchedAt,
        Field::LastReceivedAt,
        Field::PositionMs,
        Field::PlayedMs,
        Field::Completed,
        Field::DeviceId,
        Field::DeviceKind,
        Field::Events,
        Field::Missing,
    ];

    /// The stable name, a metric dimension.
    pub const fn as_str(self) -> &'static str {
        match self {
            Field::TitleId => "title_id",
            Field::TitleDurationMs => "title_duration_ms",
            Field::Country => "country",
            Field::StartedAt => "started_at",
            Field::WatchedAt => "watched_at",
            Field::LastReceivedAt => "last_received_at",
            Field::PositionMs => "position_ms",
            Field::PlayedMs => "played_ms",
            Field::Completed => "completed",
            Field::DeviceId => "device_id",
            Field::DeviceKind => "device_kind",
            Field::Events => "events",
            Field::Missing => "missing",
        }
    }

    /// Whether it is a number, which can have a scale and a tolerance.
    pub const fn is_number(self) -> bool {
        match self {
            Field::TitleDurationMs
            | Field::StartedAt
            | Field::WatchedAt
            | Field::LastReceivedAt
            | Field::PositionMs
            | Field::PlayedMs
            | Field::Events
            | Field::Missing => true,
            Field::TitleId | Field::Country | Field::Completed | Field::DeviceId | Field::DeviceKind => false,
        }
    }
}

/// The value of a field in one system. Values of different types differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// It has no value.
    Absent,
    /// True or false.
    Flag(bool),
    /// Milliseconds, Unix milliseconds or a count.
    Number(i64),
    /// A word or an id.
    Text(String),
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

/// A session in one system: the fields that the system knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Session(BTreeMap<Field, Value>);

impl Session {
    /// A session in Playhead, which knows every field.
    pub fn of(view: &View) -> Self {
        let text = |text: &Option<String>| text.clone().map_or(Value::Absent, Value::Text);
        let device = &view.latest.device;
        Self(BTreeMap::from([
            (Field::TitleId, Value::Text(view.title_id.clone())),
            (Field::TitleDurationMs, view.title_duration_ms().map_or(Value::Absent, Value::from)),
            (Field::Country, text(&view.first.country.map(|country| country.to_string()))),
            (Field::StartedAt, view.first.watched_at.into()),
            (Field::WatchedAt, view.latest.watched_at.into()),
            (Field::LastReceivedAt, view.latest.received_at.into()),
            (Field::PositionMs, view.position_ms().into()),
            (Field::PlayedMs, view.played_ms().into()),
            (Field::Completed, Value::Flag(Rules::default().is_finished(view))),
            (Field::DeviceId, text(&device.id)),
            (Field::DeviceKind, text(&device.kind)),
            (Field::Events, view.events().into()),
            (Field::Missing, Sequence::of([view]).missing().into()),
        ]))
    }

    /// The value of a field; `None` if the system does not know the field.
    pub fn get(&self, field: Field) -> Option<&Value> {
        self.0.get(&field)
    }

    /// When it was last received, Unix milliseconds, if the system says so.
    pub fn last_received_at(&self) -> Option<u64> {
        match self.get(Field::LastReceivedAt) {
            Some(Value::Number(at)) => u64::try_from(*at).ok(),
            _ => None,
        }
    }
}

impl FromIterator<(Field, Value)> for Session {
    fn from_iter<I: IntoIterator<Item = (Field, Value)>>(fields: I) -> Self {
        Self(fields.into_iter().collect())
    }
}

/// How much numbers may differ and still match, by field. Other fields must be equal. In JSON:
/// `{"position_ms": 500, "started_at": 5000}`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tolerances(BTreeMap<Field, u32>);

/// Why tolerances are invalid.
#[derive(Debug, thiserror::Error)]
pub enum MalformedTolerances {
    /// Not JSON of this form.
    #[error("must be a JSON object from fields to whole numbers, such as {{\"position_ms\": 500}}: {0}")]
    Malformed(#[from] serde_json::Error),
    /// A field that is not a number.
    #[error("`{}` cannot have a tolerance: it is not a number", .0.as_str())]
    NotANumber(Field),
}

impl Tolerances {
    /// For a system with another clock: times may differ by 5 s, and other fields must be equal.
    pub fn of_another_clock() -> Self {
        Self([Field::StartedAt, Field::WatchedAt, Field::LastReceivedAt].map(|time| (time, 5_000)).into())
    }
}

impl FromStr for Tolerances {
    type Err = MalformedTolerances;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let by_field: BTreeMap<Field, u32> = serde_json::from_str(text)?;
        match by_field.keys().find(|field| !field.is_number()) {
            Some(field) => Err(MalformedTolerances::NotANumber(*field)),
            None => Ok(Self(by_field)),
        }
    }
}

/// A field in which two systems differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldDifference {
    /// The field.
    pub field: Field,
    /// The shadow's value.
    pub ours: Value,
    /// The live system's value.
    pub theirs: Value,
}

/// The fields that both systems know and in which they differ.
pub fn diff(ours: &Session, theirs: &Session, tolerances: &Tolerances) -> Vec<FieldDifference> {
    let both = ours.0.iter().filter_map(|(field, ours)| Some((*field, ours, theirs.get(*field)?)));
    both.filter(|(field, ours, theirs)| !agree(ours, theirs, tolerances.0.get(field).copied().unwrap_or_default()))
        .map(|(field, ours, theirs)| FieldDifference { field, ours: ours.clone(), theirs: theirs.clone() })
        .collect()
}

fn agree(ours: &Value, theirs: &Value, tolerance: u32) -> bool {
    match (ours, theirs) {
        (Value::Number(ours), Value::Number(theirs)) => ours.abs_diff(*theirs) <= tolerance.into(),
        _ => ours == theirs,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::sessions;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_session_does_not_differ_from_itself(session in sessions()) {
            prop_assert_eq!(diff(&session, &session, &Tolerances::default()), []);
        }

        #[test]
        fn differences_are_the_same_from_either_side(a in sessions(), b in sessions(), tolerance in 0u32..20) {
            let tolerances = Tolerances(BTreeMap::from([(Field::PositionMs, tolerance)]));
            let turned = |one: FieldDifference| FieldDifference { field: one.field, ours: one.theirs, theirs: one.ours };
            let found: Vec<_> = diff(&a, &b, &tolerances);
            prop_assert_eq!(found, diff(&b, &a, &tolerances).into_iter().map(turned).collect::<Vec<_>>());
        }

        /// Also shows that every difference is real, and that fields unknown to one system are not
        /// compared.
        #[test]
        fn exactly_the_unequal_fields_that_both_know_differ(a in sessions(), b in sessions()) {
            let found: Vec<Field> = diff(&a, &b, &Tolerances::default()).iter().map(|one| one.field).collect();
            let unequal = |field: &Field| a.get(*field).zip(b.get(*field)).is_some_and(|(a, b)| a != b);
            prop_assert_eq!(found, Field::ALL.into_iter().filter(unequal).collect::<Vec<_>>());
        }

        #[test]
        fn more_tolerance_never_finds_more_differences(a in sessions(), b in sessions(), less in 0u32..20, more in 0u32..20) {
            let found = |tolerance| {
                let all = Field::ALL.into_iter().filter(|field| field.is_number()).map(|field| (field, tolerance));
                diff(&a, &b, &Tolerances(all.collect()))
            };
            let (strict, lax) = (found(less.min(more)), found(less.max(more)));
            prop_assert!(lax.iter().all(|one| strict.contains(one)));
        }
    }

    #[test]
    fn a_number_may_differ_by_its_tolerance_and_no_more() {
        let at = |position: i64| Session::from_iter([(Field::PositionMs, Value::Number(position))]);
        let tolerances: Tolerances = r#"{"position_ms": 500}"#.parse().unwrap();
        assert_eq!(diff(&at(1_000), &at(1_500), &tolerances), []);
        assert_eq!(diff(&at(1_000), &at(1_501), &tolerances).len(), 1);
        assert_eq!(diff(&at(i64::MIN), &at(i64::MAX), &tolerances).len(), 1);
    }

    #[test]
    fn an_absent_value_equals_only_another_absent_value() {
        let country = |value| Session::from_iter([(Field::Country, value)]);
        let (none, there) = (country(Value::Absent), country(Value::Text("US".to_owned())));
        assert_eq!(diff(&none, &none, &Tolerances::default()), []);
        assert_eq!(diff(&there, &none, &Tolerances::default()).len(), 1);
        assert_eq!(
            diff(&there, &Session::default(), &Tolerances::default()),
            [],
            "the other system does not know the field"
        );
    }

    #[test]
    fn fields_have_one_name_everywhere() {
        for field in Field::ALL {
            assert_eq!(serde_json::to_value(field).unwrap(), field.as_str());
        }
    }

    #[test]
    fn invalid_tolerances_are_rejected() {
        for text in ["", "[]", r#"{"position": 1}"#, r#"{"position_ms": -1}"#, r#"{"position_ms": 0.5}"#] {
            assert!(matches!(text.parse::<Tolerances>(), Err(MalformedTolerances::Malformed(_))), "{text}");
        }
        let error = r#"{"title_id": 1}"#.parse::<Tolerances>().unwrap_err();
        assert_eq!(error.to_string(), "`title_id` cannot have a tolerance: it is not a number");
    }
}
