//! Golden events: every file of `events/` goes through the code that serves its trigger, from the
//! bytes that Lambda passes in to the bytes that go back. The outcome must match the file beside
//! it.
//!
//! `cases_*.rs` generates the events, so every byte has a known origin, and the files must match
//! what it generates. `PLAYHEAD_BLESS=1` rewrites both kinds of files, to be reviewed in the diff.
//! CI never sets it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod case;
mod cases_api;
mod cases_batches;
mod cases_feed;
mod cases_forward;
mod cases_member;
mod cases_retry;
mod dynamodb;
mod player;
mod readable;
mod redaction;
mod run;
mod shape;

use case::{Case, TRIGGERS, read_all};
use playback::contract::MAX_EVENTS;
use player::{Session, record};
use serde_json::{Value, json};
use shape::{kafka_record, msk};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::Once;

static BLESS: Once = Once::new();

/// The cases on disk, rewritten first if the user asks for it.
fn on_disk() -> BTreeMap<String, Case> {
    BLESS.call_once(|| {
        if std::env::var_os("PLAYHEAD_BLESS").is_some() {
            assert!(std::env::var_os("CI").is_none(), "CI must not bless its own findings");
            runtime().block_on(bless());
        }
    });
    read_all().unwrap()
}

async fn bless() {
    for trigger in TRIGGERS {
        let folder = case::events_folder().join(trigger);
        if folder.exists() {
            std::fs::remove_dir_all(folder).unwrap();
        }
    }
    for mut case in generated().into_values() {
        case.write().unwrap();
        case.expected.expect = run::run(&case).await.unwrap();
        case.write().unwrap();
    }
}

/// The cases that the generator makes, without their outcomes.
fn generated() -> BTreeMap<String, Case> {
    let all = cases_api::cases()
        .into_iter()
        .chain(cases_member::cases())
        .chain(cases_batches::cases())
        .chain(cases_retry::cases())
        .chain(cases_forward::cases())
        .chain(cases_feed::cases());
    let mut cases = BTreeMap::new();
    for case in all {
        let id = case.id();
        assert!(cases.insert(id.clone(), case).is_none(), "two cases are called {id}");
    }
    cases
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn every_trigger_has_events_and_every_event_an_expectation() {
    // Reading them checks that each file has its counterpart.
    let cases = on_disk();
    let mut of_trigger = BTreeMap::<&str, usize>::new();
    for case in cases.values() {
        *of_trigger.entry(&case.trigger).or_default() += 1;
        assert!(case.expected.expect.is_object(), "{} expects nothing", case.id());
    }
    assert_eq!(of_trigger.keys().copied().collect::<Vec<_>>(), TRIGGERS);
    assert!(of_trigger.values().all(|&events| events >= 3), "{of_trigger:?}");
}

#[test]
fn the_files_are_what_the_generator_makes() {
    let (mut on_disk, generated) = (on_disk(), generated());
    for case in on_disk.values_mut() {
        case.expected.expect = Value::Null;
    }
    let differing: BTreeSet<&String> =
        on_disk.keys().chain(generated.keys()).filter(|id| on_disk.get(*id) != generated.get(*id)).collect();
    assert!(differing.is_empty(), "not as generated, see events/README.md: {differing:?}");
}

#[test]
fn every_event_ends_as_expected() {
    let cases = on_disk();
    let mut differences = String::new();
    let mut ran = 0;
    for case in cases.values() {
        let actual = runtime().block_on(run::run(case)).unwrap_or_else(|error| json!({"failed": format!("{error:#}")}));
        if actual != case.expected.expect {
            let expected = serde_json::to_string_pretty(&case.expected.expect).unwrap();
            let actual = serde_json::to_string_pretty(&actual).unwrap();
            write!(differences, "\n== {} ==\n-- expected\n{expected}\n-- actual\n{actual}\n", case.id()).unwrap();
        }
        ran += 1;
    }
    assert!(differences.is_empty(), "{differences}");
    assert!(ran > 0 && ran == cases.len());
}

/// The body is too large for a file. It is the golden event's, padded with spaces, which JSON
/// ignores.
#[test]
fn body_of_256_kib_is_accepted_and_one_byte_more_is_not() {
    let cases = on_disk();
    let case = &cases["api/good-events"];
    let padded = |bytes: usize| {
        let mut event = case.event.clone();
        let body = event["body"].as_str().unwrap();
        event["body"] = json!(body.to_owned() + &" ".repeat(bytes - body.len()));
        runtime().block_on(run::run_bytes(case, event.to_string().as_bytes())).unwrap()
    };
    assert_eq!(padded(256 * 1024), case.expected.expect);
    let refused = padded(256 * 1024 + 1);
    assert_eq!((&refused["response"]["statusCode"], &refused["appended"]), (&json!(413), &json!([])));
    assert_eq!(refused["response"]["body"]["code"], "body_too_large");
}

/// The batch is too large for a file: so many numbers with a hole after each.
#[test]
fn view_of_2000_ranges_is_kept_and_one_more_is_dead() {
    let cases = on_disk();
    let session = Session::example();
    let apply = |numbers: u64| {
        let events: Vec<Value> = (0..numbers).map(|number| session.event(2 * number, "seeked", 0, 0)).collect();
        let records = events.chunks(MAX_EVENTS).zip(15..);
        let records = records.map(|(events, offset)| kafka_record(0, offset, &session.id, &record(events.to_vec())));
        runtime().block_on(run::run_bytes(&cases["msk/one-record"], msk(records).to_string().as_bytes())).unwrap()
    };
    let kept = apply(2_000);
    assert_eq!((&kept["views"][0]["events"], &kept["dead_letters"]), (&json!(2_000), &json!([])));
    let refused = apply(2_001);
    let dead = refused["dead_letters"].as_array().unwrap();
    assert!(dead.len() == 5 && dead.iter().all(|letter| letter["reason"] == "view_too_large"), "{dead:?}");
    assert_eq!((&refused["views"], &refused["retry"]), (&json!([]), &json!([])));
}
