//! The promises, one function each: what breaks it, in words.

use std::collections::BTreeSet;
use std::time::Duration;

use playhead_tests::suite::Promises;
use simulate::writers::ViewPlace;

use super::members::Said;
use super::play::{Crowd, Sights, lives};
use super::scenario::{SLOW, Scenario};
use super::settle::Converged;

/// How many examples of one kind are shown.
const SHOWN: usize = 5;
/// Tolerance for clocks and polling where something must take at least as long as it was delayed.
const SLACK: Duration = Duration::from_millis(300);

/// Over all regions, every event that devices were told was accepted has ended, in a view or as a
/// duplicate, and no more often than there are known copies.
pub(crate) fn accepted_events_have_ended_and_none_is_dead(crowds: &[Crowd], converged: &Converged) -> Vec<String> {
    let books = &converged.end.books;
    let mut promises = Promises { broken: converged.in_flight.clone() };
    let accepted = crowds.iter().map(|crowd| crowd.report.accepted as u64).sum();
    promises.accepted(accepted, books.accepted, crowds.iter().flat_map(|crowd| &crowd.report.attempts));
    let too_often = books.loss().min(0).unsigned_abs();
    promises.at_most("ended more often than there are known copies", too_often, books.unclaimed);
    let sent = books.forwarded + books.unclaimed;
    promises.at_most("arrived in a region: more than there are known copies", books.arrived, sent);
    promises.at_most("dead", books.dead, 0);
    promises.broken
}

/// Every view in each region is what the trace says.
pub(crate) fn views_in_both_regions_match_the_trace(converged: &Converged) -> Vec<String> {
    let mut wrong = Vec::new();
    for (what, events) in [("lost", converged.end.lost), ("counted twice", converged.end.twice)] {
        if events > 0 {
            wrong.push(format!("{events} events are {what}"));
        }
    }
    let shown = converged.end.differences.iter().take(SHOWN);
    wrong.extend(shown.map(|(side, difference)| format!("in {}: {difference}", side.region())));
    wrong
}

/// Each session has one writer, its home. If that was drained during the session, the successor may
/// be a second one.
pub(crate) fn only_the_home_or_its_successor_writes_a_session(
    crowds: &[Crowd],
    sights: &Sights,
    converged: &Converged,
) -> Vec<String> {
    let lives = lives(crowds);
    let keys: BTreeSet<&(String, String)> = converged.end.keys.iter().flatten().collect();
    let strangers = keys.into_iter().filter(|(_, sk)| {
        let Some(ViewPlace { ulid, home, writer }) = ViewPlace::of(sk) else { return false };
        if writer == home {
            return false;
        }
        let began = lives.get(format!("{home}-{ulid}").as_str()).map_or(u64::MAX, |(began, _)| *began);
        !sights.drained.as_ref().is_some_and(|(drained, successor, until)| {
            home == drained.as_str() && writer == successor.as_str() && began <= *until
        })
    });
    strangers.take(SHOWN).map(|(profile, sk)| format!("{profile} {sk} was written by a stranger")).collect()
}

/// In each region, what a member hid is hidden, what they showed again is shown, and nothing that
/// was erased is there.
pub(crate) fn hidden_and_erased_stays_so_in_both_regions(said: &Said, converged: &Converged) -> Vec<String> {
    let mut wrong: Vec<String> = converged.end.unheeded.iter().take(SHOWN).cloned().collect();
    let back =
        converged.end.differences.iter().filter(|(_, difference)| said.erased.contains_key(&difference.profile_id));
    wrong.extend(back.take(SHOWN).map(|(side, difference)| format!("erased, in {}: {difference}", side.region())));
    wrong
}

/// Every POST is accepted at its first attempt.
pub(crate) fn devices_notice_nothing(crowds: &[Crowd]) -> Vec<String> {
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
    converged: &Converged,
) -> Vec<String> {
    let mut promises = Promises::default();
    let was_written_elsewhere = converged
        .end
        .keys
        .iter()
        .flatten()
        .filter_map(|(_, sk)| ViewPlace::of(sk))
        .any(|place| place.writer != place.home);
    let drains = matches!(scenario, Scenario::Drained | Scenario::Worst);
    promises.seen(sights.converged.is_some(), "the regions never converged");
    promises.seen(converged.end.books.forwarded > 0, "nothing was forwarded");
    promises.seen(said.hidden.values().any(|hidden| *hidden), "nobody hid anything");
    promises.seen(crowds.iter().any(|crowd| sent_after_erasing(crowd, said)), "nothing was sent after its erasure");
    promises.seen(
        !scenario.cuts_the_link() || (sights.cut_off > 0 && sights.waiting > 0),
        "the cut of the link cut nothing off",
    );
    promises.seen(!scenario.cuts_replication() || sights.open > 0, "the cut of replication held nothing back");
    promises.seen(!drains || was_written_elsewhere, "no successor wrote for a drained region");
    promises.seen(
        scenario != Scenario::ReplicationSlow || sights.converged.is_none_or(|took| took + SLACK >= SLOW),
        "replication was not slow",
    );
    promises.broken
}

/// Whether anything was sent for a member after they had erased everything.
fn sent_after_erasing(crowd: &Crowd, said: &Said) -> bool {
    crowd.report.attempts.iter().any(|attempt| {
        let erased = crowd.plan.posts.get(attempt.post).and_then(|post| said.erased.get(&post.profile_id));
        erased.is_some_and(|erased| attempt.began_at > *erased)
    })
}
