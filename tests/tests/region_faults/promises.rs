//! The promises, each by itself: what of what is there breaks it, in words.

use std::collections::BTreeSet;
use std::time::Duration;

use super::members::Said;
use super::play::{Crowd, Sights, lives};
use super::scenario::{SLOW, Scenario};
use super::settle::Settled;

/// Of the template.
const INGEST_TIMEOUT: Duration = Duration::from_secs(20);
/// How many of a kind are told.
const TOLD: usize = 5;
/// What a clock and a look may be off where something must take as long as it was delayed.
const SLACK: Duration = Duration::from_millis(300);

/// Of all regions together: every event that devices were told is accepted has ended, in a view or as a duplicate, as often as copies are known of.
pub(crate) fn what_both_regions_accepted_has_ended_and_nothing_is_dead(
    crowds: &[Crowd],
    settled: &Settled,
) -> Vec<String> {
    let (books, mut wrong) = (&settled.books, settled.in_flight.clone());
    let accepted: u64 = crowds.iter().map(|crowd| crowd.report.accepted as u64).sum();
    let mut at_most = |what: &str, less: u64, more: u64| {
        if less > more {
            wrong.push(format!("{what}: {less} > {more}"));
        }
    };
    // A device that got no answer, or the gateway's after ingest's time-out, sends again what ingest may have counted.
    let mut attempts = crowds.iter().flat_map(|crowd| &crowd.report.attempts);
    let unanswered =
        attempts.any(|attempt| attempt.status.is_none() || (!attempt.succeeded() && attempt.took > INGEST_TIMEOUT));
    at_most("accepted: devices ≤ ingest", accepted, books.accepted);
    if !unanswered {
        at_most("accepted: ingest ≤ devices", books.accepted, accepted);
    }
    at_most("ended more often than copies are known of", books.loss().min(0).unsigned_abs(), books.unclaimed);
    at_most("arrived in a region: more than copies are known of", books.arrived, books.forwarded + books.unclaimed);
    at_most("dead", books.dead, 0);
    wrong
}

/// Every view in each region is the trace's.
pub(crate) fn views_of_both_regions_are_the_trace_whatever_is_between_them(settled: &Settled) -> Vec<String> {
    let mut wrong = Vec::new();
    for (what, events) in [("lost", settled.lost), ("counted twice", settled.twice)] {
        if events > 0 {
            wrong.push(format!("{events} events are {what}"));
        }
    }
    let told = settled.differences.iter().take(TOLD);
    wrong.extend(told.map(|(side, difference)| format!("in {}: {difference}", side.region())));
    wrong
}

/// Each session has one writer, its home; one whose home was drained in its life may have another, the successor.
pub(crate) fn a_session_is_written_at_home_and_of_a_drained_home_by_the_successor_at_most(
    crowds: &[Crowd],
    sights: &Sights,
    settled: &Settled,
) -> Vec<String> {
    let lives = lives(crowds);
    let keys: BTreeSet<&(String, String)> = settled.keys.iter().flatten().collect();
    let strangers = keys.into_iter().filter(|(_, sk)| {
        let mut parts = sk.split('#');
        let (ulid, home) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let Some(writer) = parts.next() else { return false };
        let began = lives.get(format!("{home}-{ulid}").as_str()).map_or(u64::MAX, |(began, _)| *began);
        !sights.drained.as_ref().is_some_and(|(drained, successor, until)| {
            home == drained.as_str() && writer == successor.as_str() && began <= *until
        })
    });
    strangers.take(TOLD).map(|(profile, sk)| format!("{profile} {sk} was written by a stranger")).collect()
}

/// What a member hid is hidden and what they showed again is shown, in each region; nothing of what was erased is in any.
pub(crate) fn what_is_hidden_or_erased_from_either_region_stays_so_in_both(
    said: &Said,
    settled: &Settled,
) -> Vec<String> {
    let mut wrong: Vec<String> = settled.unheeded.iter().take(TOLD).cloned().collect();
    let back = settled.differences.iter().filter(|(_, difference)| said.erased.contains_key(&difference.profile_id));
    wrong.extend(back.take(TOLD).map(|(side, difference)| format!("erased, in {}: {difference}", side.region())));
    wrong
}

/// Every POST is accepted at its first attempt.
pub(crate) fn devices_notice_nothing_of_what_is_between_the_regions(crowds: &[Crowd]) -> Vec<String> {
    let mut wrong = Vec::new();
    for crowd in crowds {
        let refused = crowd.report.posts - crowd.report.first_try;
        if refused > 0 {
            let failed = crowd.report.attempts.iter().filter(|attempt| !attempt.succeeded());
            let statuses: BTreeSet<String> = failed.map(|attempt| format!("{:?}", attempt.status)).collect();
            wrong.push(format!("{refused} POSTs were not accepted at the first attempt: {statuses:?}"));
        }
        wrong.extend(crowd.report.failures.iter().cloned());
    }
    wrong
}

/// What must be seen, or the scenario proved nothing.
pub(crate) fn seen(
    scenario: Scenario,
    crowds: &[Crowd],
    said: &Said,
    sights: &Sights,
    settled: &Settled,
) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut unless = |seen: bool, what: &str| {
        if !seen {
            wrong.push(what.to_owned());
        }
    };
    let was_written_elsewhere = settled.keys.iter().flatten().any(|(_, sk)| sk.matches('#').count() == 2);
    let drains = matches!(scenario, Scenario::Drained | Scenario::Worst);
    unless(sights.converged.is_some(), "the regions never converged");
    unless(settled.books.forwarded > 0, "nothing was forwarded");
    unless(said.hidden.values().any(|hidden| *hidden), "nobody hid anything");
    unless(crowds.iter().any(|crowd| sent_after_erasing(crowd, said)), "nothing was sent of what had been erased");
    unless(
        !scenario.cuts_the_link() || (sights.cut_off > 0 && sights.waiting > 0),
        "the cut of the link cut nothing off",
    );
    unless(!scenario.cuts_replication() || sights.open > 0, "the cut of replication held nothing back");
    unless(!drains || was_written_elsewhere, "no successor wrote anything of a drained region");
    unless(
        scenario != Scenario::ReplicationSlow || sights.converged.is_none_or(|took| took + SLACK >= SLOW),
        "replication was not slow",
    );
    wrong
}

/// Whether anything was sent of a member who had erased everything by then.
fn sent_after_erasing(crowd: &Crowd, said: &Said) -> bool {
    crowd.report.attempts.iter().any(|attempt| {
        let erased = crowd.plan.posts.get(attempt.post).and_then(|post| said.erased.get(&post.profile_id));
        erased.is_some_and(|erased| attempt.began_at > *erased)
    })
}
