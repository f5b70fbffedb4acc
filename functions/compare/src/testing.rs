//! Generators and examples for this crate's tests.

use crate::report::{Cause, Verdict};
use crate::session::{Field, FieldDifference, Session, Value};
use playback::contract::{Device, Event, Kind};
use playback::fold::ViewKey;
use playback::session::SessionId;
use playback::view::{Receipt, View};
use proptest::prelude::*;
use std::sync::Arc;
use store::dynamodb::{Place, PlacedView};

/// Session `number`, which began that many seconds after session 0.
pub(crate) fn session_id(number: u64) -> SessionId {
    SessionId::mint("use1".parse().unwrap(), 1_790_000_000_000 + number * 1000, u128::from(number))
}

/// A view of one event.
pub(crate) fn placed(profile_id: &str, number: u64, received_at: u64) -> PlacedView {
    let session_id = session_id(number);
    let event = Event {
        seq: 0,
        kind: Kind::Started,
        position_ms: 10_000,
        played_ms: 10_000,
        title_duration_ms: Some(2_700_000),
        credits_ms: None,
        occurred_at: None,
        device: Arc::new(Device { id: Some("d1".to_owned()), kind: Some("tv".to_owned()) }),
        country: "US".parse().ok(),
    };
    let receipt = Receipt { received_at, sent_at: None, session_started_at: session_id.started_at() };
    let view = View::of(&event, "t1", receipt);
    let key = ViewKey { profile_id: profile_id.to_owned(), session_id, title_id: "t1".to_owned() };
    PlacedView { place: Place::of(&key), session_id: key.session_id, view, written_at: None }
}

fn values() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Absent),
        any::<bool>().prop_map(Value::Flag),
        (-20i64..20).prop_map(Value::Number),
        "[a-c]{1,2}".prop_map(Value::Text),
    ]
}

fn fields() -> impl Strategy<Value = Field> {
    (0..Field::ALL.len()).prop_map(|index| Field::ALL[index])
}

/// Any session that a system might return.
pub(crate) fn sessions() -> impl Strategy<Value = Session> {
    prop::collection::btree_map(fields(), values(), 0..12).prop_map(Session::from_iter)
}

pub(crate) fn verdicts() -> impl Strategy<Value = Verdict> {
    let differences = prop::collection::btree_map(fields(), (values(), values()), 1..4).prop_map(|fields| {
        let one = |(field, (ours, theirs))| FieldDifference { field, ours, theirs };
        Verdict::Differs(fields.into_iter().map(one).collect())
    });
    prop_oneof![
        3 => Just(Verdict::Matched),
        3 => differences,
        1 => Just(Verdict::MissingLive),
        1 => Just(Verdict::MissingShadow),
        1 => Just(Verdict::Partial),
        1 => Just(Verdict::Unanswered(Cause::Unavailable)),
        1 => Just(Verdict::Unanswered(Cause::Unreadable)),
    ]
}
