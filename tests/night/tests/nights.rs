//! A slice of the simulation: some nights by chance, and some that once went wrong. `cargo playhead
//! soak --simulated` plays as many as asked.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use night::{Fault, Game, Report, What, outage, play};

#[test]
fn every_promise_is_kept_through_some_nights() {
    for seed in 0..4 {
        let report = play(&Game::new(seed, 24));
        assert!(report.broken.is_empty(), "{report}");
    }
}

/// What `retry` may have, although its queue did not answer, ended once more than the books knew.
#[test]
fn nights_that_once_went_wrong_are_fine() {
    let report = play(&Game::new(20_072, 72));
    assert!(report.broken.is_empty(), "{report}");
}

#[test]
fn seed_replays_exactly() {
    let game = Game::new(7, 12);
    let (first, again) = (play(&game), play(&game));
    assert_eq!(first.fingerprint, again.fingerprint);
    assert_ne!(first.fingerprint, play(&Game::new(8, 12)).fingerprint);
}

/// A night with one fault until its end.
fn night_with(what: What, fault: Fault, hours: u64) -> Report {
    play(&Game { posts_per_hour: 2, ..outage(what, fault, hours * 60) })
}

/// Letters were given up after 16 attempts, which are about an hour, and events of other regions
/// after half an hour.
#[test]
fn store_away_for_two_days_leaves_no_dead() {
    let report = night_with(What::Table, Fault::Hangs, 48);
    assert!(report.broken.is_empty(), "{report}");
    assert!(report.calls_per_event > 1.0, "the store was asked again: {report}");
}

#[test]
fn hot_key_for_a_day_leaves_no_dead() {
    let report = night_with(What::HotKey, Fault::Refuses, 24);
    assert!(report.broken.is_empty(), "{report}");
}

#[test]
fn region_away_for_a_day_loses_nothing() {
    let report = night_with(What::Link, Fault::Refuses, 24);
    assert!(report.broken.is_empty(), "{report}");
}
