#![allow(clippy::unwrap_used)]

use super::habit::{Audience, Habit, Moment, Sends, Upload};
use super::pickup::{Counted, KeyedBy, LogKind, Pickup, catch_up, read};
use super::study::{DEFAULT, thousands};
use crate::{Stream, rng};
use rand::RngExt;
use std::collections::BTreeMap;
use std::ops::Range;

const SECOND: i64 = 1_000;
const MINUTE: i64 = 60 * SECOND;
const HALF_AN_HOUR: i64 = 30 * MINUTE;

fn kafka(window: i64, batch_size: usize) -> Pickup {
    Pickup { log: LogKind::Kafka, keyed_by: KeyedBy::Session, lanes: 1, window, batch_size }
}

fn every(progress: i64, send: i64) -> Habit {
    Habit { progress_every: progress * SECOND, sends: Sends::Every(send * SECOND) }
}

/// One event of a session.
fn upload(at: i64, session: u64) -> Upload {
    Upload { at, member: session as usize, session, events: vec![Moment { at, ends_playing: false }] }
}

fn read_all(uploads: Vec<Upload>, pickup: &Pickup) -> Counted {
    read(uploads.into_iter(), pickup, 0..i64::MAX, &mut rng(1, Stream::Folding))
}

// ----------------------------------------------------------------------------------------- formula

/// POSTs per write, if a batch leaves every `cycle` ms, and each POST came so long after the
/// previous one of its session.
///
/// A POST shares its write with the previous one if no batch left in between. If that was X ms ago,
/// and a cycle has C ms, the chance is 1 − X/C, or none if X is longer. So there are E[min(X, C)]/C
/// writes per POST. For a regular X that is max(1, C/X) POSTs per write, for a Poisson process with
/// the mean M it is C/M/(1 − exp(−C/M)).
fn posts_per_write(cycle: f64, apart: &[f64]) -> f64 {
    let shorter = apart.iter().map(|apart| apart.min(cycle)).sum::<f64>() / apart.len() as f64;
    cycle / shorter
}

/// How long each POST in the span came after the previous one of its session, ms. The first comes
/// infinitely late.
fn apart(uploads: &[Upload], span: Range<i64>) -> Vec<f64> {
    let mut last = BTreeMap::new();
    let before = uploads.iter().map(|upload| (upload.at, last.insert(upload.session, upload.at)));
    let before = before.filter(|(at, _)| span.contains(at));
    before.map(|(at, last)| last.map_or(f64::INFINITY, |last| (at - last) as f64)).collect()
}

/// Compares what the mapping did with what is expected of the cycle that it had.
fn check(what: &str, uploads: &[Upload], pickup: &Pickup, span: Range<i64>, expected: impl Fn(f64) -> f64) {
    let counted = read(uploads.iter().cloned(), pickup, span.clone(), &mut rng(1, Stream::Folding));
    let sent = uploads.iter().filter(|upload| span.contains(&upload.at)).count();
    let every = (span.end - span.start) as f64 / sent as f64;
    let cycle = counted.records as f64 / counted.batches as f64 * every;
    let (found, expected) = (counted.records as f64 / counted.writes as f64, expected(cycle));
    assert!((found / expected - 1.0).abs() < 0.02, "{what}: {found:.3} POSTs per write, not {expected:.3}");
}

#[test]
fn regular_posts_share_a_write_once_the_window_is_longer_than_their_interval() {
    const INTERVAL: i64 = 10 * SECOND;
    let mut rng = rng(1, Stream::Folding);
    let phases: Vec<i64> = (0..200).map(|_| rng.random_range(0..INTERVAL)).collect();
    let posts = |(session, phase): (u64, i64)| (0..60).map(move |n| upload(phase + n * INTERVAL, session));
    let mut uploads: Vec<Upload> = (0..).zip(phases).flat_map(posts).collect();
    uploads.sort_by_key(|upload| upload.at);
    let span = 30 * SECOND..570 * SECOND;
    let expected = |cycle: f64| (cycle / INTERVAL as f64).max(1.0);
    for window in [1, 5, 20, 45] {
        let pickup = kafka(window * SECOND, 10_000);
        check(&format!("a window of {window} s"), &uploads, &pickup, span.clone(), expected);
        check(&format!("a window of {window} s"), &uploads, &pickup, span.clone(), |cycle| {
            posts_per_write(cycle, &[INTERVAL as f64])
        });
    }
    // At 20 records per second a batch of 600 spans 30 s, whatever the window.
    check("600 records", &uploads, &kafka(300 * SECOND, 600), span, |_| 3.0);
}

#[test]
fn irregular_posts_share_writes_as_poisson_says() {
    const SESSIONS: u64 = 300;
    const MEAN: f64 = 10_000.0;
    let mut rng = rng(2, Stream::Folding);
    let mut at = 0.0;
    // Together, Poisson processes are one whose points are of any session.
    let any = std::iter::repeat_with(|| {
        at -= (1.0 - rng.random::<f64>()).ln() * MEAN / SESSIONS as f64;
        upload(at as i64, rng.random_range(0..SESSIONS))
    });
    let uploads: Vec<Upload> = any.take_while(|upload| upload.at < HALF_AN_HOUR).collect();
    for window in [1, 10, 30] {
        let expected = |cycle: f64| cycle / MEAN / (1.0 - (-cycle / MEAN).exp());
        let pickup = kafka(window * SECOND, 10_000);
        check(&format!("a window of {window} s"), &uploads, &pickup, MINUTE..HALF_AN_HOUR, expected);
    }
}

#[test]
fn simulated_members_share_writes_as_their_intervals_say() {
    for habit in [every(30, 10), every(10, 60), Habit { progress_every: 10 * SECOND, sends: Sends::Drawn }] {
        let uploads: Vec<Upload> = Audience::new(habit, 400, 3).take_while(|upload| upload.at < 65 * MINUTE).collect();
        let span = 5 * MINUTE..65 * MINUTE;
        let apart = apart(&uploads, span.clone());
        for window in [1, 20, 120] {
            let pickup = kafka(window * SECOND, 10_000);
            let what = format!("{habit:?}, a window of {window} s");
            check(&what, &uploads, &pickup, span.clone(), |cycle| posts_per_write(cycle, &apart));
        }
    }
}

// ----------------------------------------------------------------------------------------- batches

/// Checks how long records of these times wait until they are written, and in how many batches.
#[track_caller]
fn batches(pickup: &Pickup, at: &[i64], expected_added: &[i64], expected_batches: u64) {
    let counted = read_all((0..).zip(at).map(|(session, at)| upload(*at, session)).collect(), pickup);
    assert_eq!((counted.added, counted.batches), (expected_added.to_vec(), expected_batches), "{at:?}");
}

#[test]
fn batch_leaves_when_its_window_ends_or_it_is_full() {
    // An invocation with few views takes 20 ms.
    batches(&kafka(1_000, 3), &[0, 400, 5_000], &[1_020, 620, 1_020], 2);
    batches(&kafka(1_000, 3), &[0, 400, 500, 5_000], &[520, 120, 20, 1_020], 2);
    batches(&kafka(0, 3), &[0, 100], &[20, 20], 2);
}

#[test]
fn records_wait_for_the_running_invocation_and_leave_together() {
    batches(&kafka(0, 10), &[0, 5, 10, 15], &[20, 35, 30, 25], 2);
    // The window of what waits has begun before the invocation ends.
    batches(&kafka(10, 10), &[0, 15, 25], &[30, 35, 25], 2);
    // What does not fit waits for another one.
    batches(&kafka(0, 2), &[0, 5, 10, 15], &[20, 35, 30, 45], 3);
}

#[test]
fn shard_is_read_once_a_second_and_its_window_begins_when_it_is_free() {
    let shard = Pickup { log: LogKind::Kinesis, ..kafka(1_000, 10) };
    batches(&shard, &[200, 900, 1_100], &[820, 120, 940], 2);
    batches(&Pickup { window: 0, ..shard }, &[200, 900, 1_100], &[820, 120, 920], 2);
}

#[test]
fn payload_limit_closes_a_batch() {
    let large = |session| Upload { events: vec![Moment { at: 0, ends_playing: false }; 40_000], ..upload(0, session) };
    // Each takes 2 MB: 6 MB are full after the fourth, which no longer fits.
    let counted = read_all((0..7).map(large).collect(), &kafka(60_000, 10_000));
    assert_eq!(counted.batches, 3);
    assert_eq!((counted.records, counted.events), (7, 280_000));
}

#[test]
fn nothing_is_lost_or_read_twice() {
    let uploads: Vec<Upload> =
        Audience::new(every(30, 10), 200, 5).take_while(|upload| upload.at < HALF_AN_HOUR).collect();
    let events: usize = uploads.iter().map(|upload| upload.events.len()).sum();
    for log in [LogKind::Kafka, LogKind::Kinesis] {
        for keyed_by in [KeyedBy::Session, KeyedBy::Profile, KeyedBy::Nothing] {
            let counted = read_all(uploads.clone(), &Pickup { log, keyed_by, lanes: 7, ..kafka(SECOND, 5) });
            assert_eq!((counted.records, counted.events), (uploads.len() as u64, events as u64));
            assert_eq!(counted.added.len(), events);
            assert_eq!(counted.ended.len() + counted.played.len(), events);
            assert!(counted.added.iter().all(|added| *added > 0));
        }
    }
}

#[test]
fn backlog_folds_until_the_lane_is_empty() {
    let backlog = || (0..).map(|n| upload(n * 100, n as u64 % 10));
    let fold = |batch_size| {
        let (counted, took) = catch_up(backlog(), &kafka(SECOND, batch_size), 10 * MINUTE);
        assert!(counted.records >= 6_000 && took < 5 * SECOND, "{} records in {took} ms", counted.records);
        counted.fold()
    };
    assert!((fold(500) - 50.0).abs() < 5.0, "500 records of 10 sessions");
    assert!(fold(10_000) > 300.0, "all of them at once");
}

#[test]
fn only_a_key_brings_the_posts_of_a_session_together() {
    let fold = |keyed_by| {
        let pickup = Pickup { keyed_by, lanes: 8, ..kafka(MINUTE, 10_000) };
        let span = 4 * MINUTE..20 * MINUTE;
        read(Audience::new(every(30, 10), 1_000, 7), &pickup, span, &mut rng(7, Stream::Folding)).fold()
    };
    let (session, profile, nothing) = (fold(KeyedBy::Session), fold(KeyedBy::Profile), fold(KeyedBy::Nothing));
    assert!((session / profile - 1.0).abs() < 0.02, "{session:.2} and {profile:.2}");
    assert!(session > 1.7 * nothing, "{session:.2} and {nothing:.2}");
}

// ----------------------------------------------------------------------------------------- players

#[test]
fn player_that_sends_more_often_than_it_records_sends_each_event_alone() {
    let per_post = |habit| {
        let uploads: Vec<Upload> = Audience::new(habit, 300, 9).take_while(|upload| upload.at < HALF_AN_HOUR).collect();
        uploads.iter().map(|upload| upload.events.len()).sum::<usize>() as f64 / uploads.len() as f64
    };
    let (library, slower) = (per_post(every(30, 10)), per_post(every(30, 60)));
    assert!(library < 1.2 && slower > 2.2, "{library:.2} and {slower:.2}");
}

#[test]
fn pause_and_stop_are_sent_at_once_and_nothing_waits_longer_than_it_may() {
    let uploads = Audience::new(every(30, 60), 300, 11).take_while(|upload| upload.at < HALF_AN_HOUR);
    let (mut last, mut ended) = (vec![0; 300], 0);
    for upload in uploads {
        assert!(last[upload.member] < upload.at, "a device sends one POST at a time");
        last[upload.member] = upload.at;
        assert!(upload.events.is_sorted_by_key(|moment| moment.at) && upload.events.len() <= 20);
        let newest = upload.events.last().unwrap();
        let waited = upload.at - upload.events[0].at;
        assert!((50..=61 * SECOND).contains(&waited), "waited {waited} ms");
        if newest.ends_playing {
            ended += 1;
            assert!(upload.at - newest.at <= SECOND);
        }
        assert!(upload.events.iter().rev().skip(1).all(|moment| !moment.ends_playing));
    }
    assert!(ended > 500, "only {ended} pauses and stops");
}

#[test]
fn same_seed_sends_the_same_and_time_never_goes_back() {
    let some = |seed| Audience::new(every(30, 10), 50, seed).take(5_000).collect::<Vec<Upload>>();
    assert_eq!(some(1), some(1));
    assert_ne!(some(1), some(2));
    assert!(some(1).is_sorted_by_key(|upload| upload.at));
}

// ------------------------------------------------------------------------------------------- study

#[test]
fn study_has_the_settings_of_the_template() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../template.yaml");
    let template = std::fs::read_to_string(path).unwrap();
    let mapping = template.split_once("\n  ProcessLogMapping:\n").unwrap().1;
    let setting = |name: &str| -> i64 {
        let value = mapping.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(": "));
        value.unwrap().parse().unwrap()
    };
    assert_eq!(setting("BatchSize"), DEFAULT.batch_size as i64);
    assert_eq!(setting("MaximumBatchingWindowInSeconds") * SECOND, DEFAULT.window);
}

#[test]
fn thousands_have_commas() {
    for (number, text) in [(0.0, "0"), (999.4, "999"), (999.6, "1,000"), (47_900.0, "47,900"), (1e6, "1,000,000")] {
        assert_eq!(thousands(number), text);
    }
}
