//! Waits until nothing is in flight and both regions show the same, and looks at what there is then.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Result;
use futures::future::try_join_all;
use operate::books::Minute;
use playhead_tests::measure::{lost_and_twice, queued};
use simulate::expect::{Difference, Expected, SessionView, check};
use simulate::histories;
use simulate::writers::view_keys;
use tokio::time::Instant;

use super::members::Said;
use super::play::{Crowd, expected};
use super::world::{Side, World};

/// What is in flight after that long is lost.
const PATIENCE: Duration = Duration::from_secs(90);
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// What there is at the end.
pub(crate) struct Settled {
    /// From the last answer to a device until it was so.
    pub(crate) took: Duration,
    /// What the functions of both regions counted of this scenario.
    pub(crate) books: Minute,
    /// Accepted events that are missing in the views of a region: of the one that lacks more.
    pub(crate) lost: u64,
    /// Events that views have above these, likewise.
    pub(crate) twice: u64,
    /// By region.
    pub(crate) differences: Vec<(Side, Difference)>,
    /// What members said and a region does not show, in words.
    pub(crate) unheeded: Vec<String>,
    /// Keys of the views of each region: those of members of this scenario, the erased one apart.
    pub(crate) keys: [BTreeSet<(String, String)>; 2],
    /// What was still in flight when patience ended; empty if all has settled.
    pub(crate) in_flight: Vec<String>,
}

/// Waits until every view is what is expected in both regions, and says how long that took since then; `None` if patience ended first.
///
/// # Errors
/// When histories cannot be read.
pub(crate) async fn converge(world: &World, expected: &Expected, since: Instant) -> Result<Option<Duration>> {
    let profiles: BTreeSet<&String> = expected.views.keys().map(|(profile, _)| profile).collect();
    let profiles = &profiles;
    let both = Side::BOTH.map(async |side| {
        let api = &world.endpoints(side)?.api;
        while since.elapsed() < PATIENCE {
            let histories = histories::read(api, &world.token, profiles.iter().copied()).await?;
            if check(expected, &histories).is_empty() {
                return anyhow::Ok(Some(since.elapsed()));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(None)
    });
    let took: Option<Vec<Duration>> = try_join_all(both).await?.into_iter().collect();
    Ok(took.and_then(|took| took.into_iter().max()))
}

/// Waits until the books and the views of both regions agree with what the devices were told and what the members said, and gives what there
/// is, at the latest when patience ends. `before` is what had been counted before the scenario.
///
/// # Errors
/// When something cannot be read.
pub(crate) async fn settle(world: &mut World, crowds: &[Crowd], said: &Said, before: Minute) -> Result<Settled> {
    let began = Instant::now();
    let accepted: usize = crowds.iter().map(|crowd| crowd.report.accepted).sum();
    let mut views = Expected::default();
    crowds.iter().for_each(|crowd| views.views.extend(expected(&crowd.plan, &crowd.report).views));
    let profiles: BTreeSet<String> = views.views.keys().map(|(profile, _)| profile.clone()).collect();
    // The erased one's are read as well: none of them may come back.
    views.views.retain(|(profile, _), _| !said.erased.contains_key(profile));
    loop {
        let books = since(world.books().await?, before);
        let patient = began.elapsed() < PATIENCE;
        let mut settled = Settled {
            took: began.elapsed(),
            books,
            lost: 0,
            twice: 0,
            differences: Vec::new(),
            unheeded: Vec::new(),
            keys: Default::default(),
            in_flight: in_flight(world, accepted as u64, &books).await?,
        };
        if settled.in_flight.is_empty() || !patient {
            look(world, &views, &profiles, said, &mut settled).await?;
        }
        if settled.in_flight.is_empty() || !patient {
            settled.took = began.elapsed();
            return Ok(settled);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn in_flight(world: &World, accepted: u64, books: &Minute) -> Result<Vec<String>> {
    let mut in_flight = Vec::new();
    if books.accepted < accepted {
        in_flight.push(format!("accepted events in the books: {} of {accepted}", books.accepted));
    }
    if books.loss() > 0 {
        in_flight.push(format!("{} events that have not ended", books.loss()));
    }
    if books.between_regions() > 0 {
        in_flight.push(format!("{} events between the regions", books.between_regions()));
    }
    if world.waiting() > 0 {
        in_flight.push(format!("{} records that wait for another region", world.waiting()));
    }
    for side in Side::BOTH {
        let endpoints = world.endpoints(side)?;
        for (name, url) in [("retry", &endpoints.retry_queue_url), ("inbound", &endpoints.inbound_queue_url)] {
            match queued(endpoints, url).await? {
                0 => {}
                messages => in_flight.push(format!("{messages} messages on {name} in {}", side.region())),
            }
        }
    }
    Ok(in_flight)
}

/// What members see in each region, and who wrote it.
async fn look(
    world: &World,
    views: &Expected,
    profiles: &BTreeSet<String>,
    said: &Said,
    settled: &mut Settled,
) -> Result<()> {
    for (side, keys) in Side::BOTH.into_iter().zip(&mut settled.keys) {
        let endpoints = world.endpoints(side)?;
        let all = histories::read_with_hidden(&endpoints.api, &world.token, profiles).await?;
        let (lost, twice) = lost_and_twice(views, &all);
        (settled.lost, settled.twice) = (settled.lost.max(lost), settled.twice.max(twice));
        settled.differences.extend(check(views, &all).into_iter().map(|difference| (side, difference)));
        // What a member sees who does not ask for what is hidden.
        let listed = histories::read(&endpoints.api, &world.token, profiles).await?;
        settled.unheeded.extend(unheeded(said, &all, &listed).map(|what| format!("{what} in {}", side.region())));
        let of_scenario =
            |(profile, _): &(String, String)| profiles.contains(profile) && !said.erased.contains_key(profile);
        *keys = view_keys(endpoints).await?.into_iter().filter(of_scenario).collect();
    }
    let Settled { differences, unheeded, keys: [east, west], in_flight, .. } = settled;
    for (what, there_are) in [
        ("differences between views and what they must be", differences.len()),
        ("wishes of members that are not heeded", unheeded.len()),
        ("items that are in one region only", east.symmetric_difference(west).count()),
    ] {
        if there_are > 0 {
            in_flight.push(format!("{there_are} {what}"));
        }
    }
    Ok(())
}

/// Sessions that are not hidden or shown as their member said last, among all that are there and those that are listed.
fn unheeded<'a>(
    said: &'a Said,
    all: &'a BTreeMap<String, Vec<SessionView>>,
    listed: &'a BTreeMap<String, Vec<SessionView>>,
) -> impl Iterator<Item = String> + 'a {
    let sessions = all.iter().flat_map(|(profile, sessions)| sessions.iter().map(move |session| (profile, session)));
    sessions.filter_map(move |(profile, session)| {
        let key = (profile.clone(), session.session_id.clone());
        let hidden = said.hidden.get(&key).copied().unwrap_or_default();
        let is_listed = listed[profile].iter().any(|other| other.session_id == session.session_id);
        let wish = if hidden { "hidden" } else { "shown" };
        (session.hidden != hidden || is_listed == hidden).then(|| format!("{} must be {wish}", session.session_id))
    })
}

/// What was counted since `before`.
fn since(now: Minute, before: Minute) -> Minute {
    Minute {
        accepted: now.accepted - before.accepted,
        applied: now.applied - before.applied,
        duplicates: now.duplicates - before.duplicates,
        retried: now.retried - before.retried,
        dead: now.dead - before.dead,
        redriven: now.redriven - before.redriven,
        unclaimed: now.unclaimed - before.unclaimed,
        forwarded: now.forwarded - before.forwarded,
        arrived: now.arrived - before.arrived,
        holes_opened: now.holes_opened - before.holes_opened,
        holes_closed: now.holes_closed - before.holes_closed,
    }
}
