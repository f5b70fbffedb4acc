//! Batches of the topic `playback-remote`: sessions on their way to other regions.

use crate::case::{Case, Expected, Function, Given, Part};
use crate::player::{BEGAN, GARBAGE, Session, record};
use crate::shape::{kafka_record, msk};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// All of them.
pub(crate) fn cases() -> Vec<Case> {
    let west = Session::example().at_home_in("usw2");
    let ireland = Session::new(BEGAN, 2).of_title("t000007").on("d00000309", "tv").at_home_in("euw1");
    let two_regions = || {
        [
            remote(0, 16, &west.id, &record(west.watched(0, 1))),
            remote(0, 17, &ireland.id, &record(ireland.watched(0, 0))),
            remote(1, 4, &west.id, &record(west.watched(2, 2))),
        ]
    };
    let draining = json!({"version": 1, "regions": {"us-west-2": {"state": "draining", "to": "us-east-1"}}});
    let elsewhere = Session::new(BEGAN, 3).at_home_in("apse2");
    vec![
        case(
            "two-regions",
            "Each session's envelopes go to its writer region, unchanged but for one more hop, in one message per region",
            Given::default(),
            two_regions(),
        ),
        case(
            "region-away",
            "The records of an unreachable region stay on the log, and block no other region",
            Given { away: BTreeSet::from([Part::UsWest2]), ..Given::default() },
            two_regions(),
        ),
        case(
            "drained-region",
            "Records for a draining region go to its successor, even if that is this region",
            Given { routing: Some(draining), ..Given::default() },
            two_regions(),
        ),
        case(
            "unknown-home",
            "A session whose home is not in the deployment is folded where its events arrived",
            Given::default(),
            [remote(0, 5, &elsewhere.id, &record(elsewhere.watched(0, 0)))],
        ),
        case(
            "poison-among-good",
            "What is not an envelope is dead-lettered here with its bytes, and the rest goes on",
            Given::default(),
            [remote(0, 7, &west.id, GARBAGE), remote(0, 8, &west.id, &record(west.watched(0, 0)))],
        ),
    ]
}

fn case(name: &str, about: &str, given: Given, records: impl IntoIterator<Item = Value>) -> Case {
    let expected = Expected { about: about.to_owned(), function: Function::Forward, given, expect: Value::Null };
    Case { trigger: "forward".to_owned(), name: name.to_owned(), event: msk(records), expected }
}

fn remote(partition: u32, offset: u64, key: &str, value: &[u8]) -> Value {
    let mut record = kafka_record(partition, offset, key, value);
    record["topic"] = json!("playback-remote");
    record
}
