use super::*;
use playback::contract::{Device, Event, Kind};
use playback::view::Receipt;
use serde_json::{Value, json};
use std::sync::Arc;

const ULID: &str = "01M3250V3TW3KG5DD5CEVSMJCC";

fn record(sk: &str, old: Value, new: Value) -> Value {
    json!({
        "eventID": "e1", "eventName": "MODIFY", "eventSource": "aws:dynamodb",
        "dynamodb": {
            "ApproximateCreationDateTime": 1_790_000_010.0, "SequenceNumber": "421300000000017450000000001",
            "Keys": {"pk": {"S": "p1"}, "sk": {"S": sk}}, "OldImage": old, "NewImage": new,
        },
    })
}

fn read(sk: &str, old: Value, new: Value) -> Result<Changed, String> {
    let record = record(sk, old, new).to_string();
    Change::read(record.as_bytes()).map(|change| change.what).map_err(|error| error.to_string())
}

fn packed(view: &View) -> Value {
    json!({"pk": {"S": "p1"}, "version": {"N": "3"}, "view": {"B": BASE64_STANDARD.encode(view.pack())}, "later": {"L": []}})
}

fn example(position_ms: u64) -> View {
    let event = Event {
        seq: 0,
        kind: Kind::Progressed,
        position_ms,
        played_ms: 0,
        title_duration_ms: None,
        credits_ms: None,
        occurred_at: None,
        device: Arc::new(Device::default()),
        country: None,
    };
    View::of(&event, "t1", Receipt { received_at: 2, sent_at: None, session_started_at: 1 })
}

#[test]
fn views_of_every_release_and_region_are_read() {
    let (old, new) = (example(1), example(2));
    for sk in [
        format!("{ULID}#use1#~t1"),
        format!("{ULID}#use1#usw2#~t1"),
        format!("{ULID}#use1"),
        format!("{ULID}#use1#usw2"),
    ] {
        let session_id: SessionId = format!("use1-{ULID}").parse().unwrap();
        let what = |old: Option<&View>, new: Option<&View>| {
            let boxed = |view: &View| Box::new(view.clone());
            Ok(Changed::View {
                session_id: session_id.clone(),
                sk: sk.clone(),
                old: old.map(boxed),
                new: new.map(boxed),
            })
        };
        assert_eq!(read(&sk, packed(&old), packed(&new)), what(Some(&old), Some(&new)));
        assert_eq!(read(&sk, Value::Null, packed(&new)), what(None, Some(&new)));
        assert_eq!(read(&sk, packed(&old), Value::Null), what(Some(&old), None));
    }
}

#[test]
fn registers_are_read_and_their_deletion_says_nothing() {
    let session = ulid(ULID).unwrap();
    let changed_at = json!({"N": "7"});
    let registers = [
        ("~erased".to_owned(), json!({"erased_at": {"N": "7"}}), Changed::Erased { up_to: 7 }),
        (
            "~forgotten#t~1".to_owned(),
            json!({"forgotten_at": {"N": "7"}}),
            Changed::TitleForgotten { title_id: "t~1".to_owned(), up_to: 7 },
        ),
        (
            "~watched#t1".to_owned(),
            json!({"watched": {"BOOL": false}, "changed_at": changed_at}),
            Changed::Watched { title_id: "t1".to_owned(), watched: false, changed_at: 7 },
        ),
        (
            format!("{ULID}#~hidden"),
            json!({"hidden": {"BOOL": true}, "changed_at": changed_at}),
            Changed::Hidden { session, hidden: true },
        ),
        (
            format!("{ULID}#~forgotten"),
            json!({"forgotten_at": {"N": "7"}}),
            Changed::SessionForgotten { session, title_id: None },
        ),
        (
            format!("{ULID}#~forgotten#t1"),
            json!({"forgotten_at": {"N": "7"}}),
            Changed::SessionForgotten { session, title_id: Some("t1".to_owned()) },
        ),
    ];
    for (sk, image, what) in registers {
        assert_eq!(read(&sk, Value::Null, image.clone()), Ok(what), "{sk}");
        assert_eq!(read(&sk, image, Value::Null), Ok(Changed::Nothing), "{sk}");
    }
}

#[test]
fn what_is_not_a_change_says_what_is_wrong() {
    let fails = |sk: &str, new: Value, what: &str| {
        let error = read(sk, Value::Null, new).unwrap_err();
        assert!(error.contains(what), "{sk}: {error}");
    };
    fails("~other", json!({}), "its key");
    fails("x#use1#~t1", packed(&example(1)), "the session in its key");
    fails(&format!("{ULID}#USE1#~t1"), packed(&example(1)), "the home in its key");
    fails("~erased", json!({}), "its register");
    fails("~erased", json!({"erased_at": {"N": "soon"}}), "its register");
    fails(&format!("{ULID}#use1#~t1"), json!({}), "the view is corrupt");
    fails(&format!("{ULID}#use1#~t1"), json!({"view": {"B": "?"}}), "the view is corrupt");
    fails(&format!("{ULID}#use1#~t1"), json!({"view": {"S": "text"}}), "missing field `B`");
    assert!(matches!(Change::read(b"{}"), Err(UnreadableChange::Malformed(_))));
    assert!(matches!(Change::read(b"\xff"), Err(UnreadableChange::Malformed(_))));
}

/// No clock of ours says it, and none can write it down.
#[test]
fn record_of_an_impossible_time_is_malformed() {
    let at = |seconds: f64| {
        let mut record = record("~erased", Value::Null, json!({"erased_at": {"N": "7"}}));
        record["dynamodb"]["ApproximateCreationDateTime"] = json!(seconds);
        Change::read(record.to_string().as_bytes()).map(|change| change.at)
    };
    assert_eq!(at(253_402_300_799.0).unwrap(), 253_402_300_799_000);
    for seconds in [253_402_300_800.0, 1e19, 1e300, -1.0] {
        assert!(matches!(at(seconds), Err(UnreadableChange::Malformed(_))), "{seconds}");
    }
}
