//! Waits until nothing is in flight and both regions show the same, then reads the final state.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Result;
use futures::future::try_join_all;
use operate::books::Minute;
use playhead_tests::measure::lost_and_twice;
use playhead_tests::queues::due;
use playhead_tests::suite::{self, Converging, converge};
use simulate::expect::{Difference, Expected, SessionView, check, expect_sent};
use simulate::histories;
use simulate::writers::view_keys;
use tokio::time::Instant;

use super::members::Said;
use super::play::Crowd;
use super::world::{Side, World};

/// What is still in flight after this time is lost.
const PATIENCE: Duration = Duration::from_secs(90);
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The state at the end of a scenario.
pub(crate) type Converged = suite::Converged<End>;

/// What was read at the end.
#[derive(Debug, Default)]
pub(crate) struct End {
    /// What the functions of both regions counted in this scenario.
    pub(crate) books: Minute,
    /// Accepted events that are missing in the views of the region that lacks more.
    pub(crate) lost: u64,
    /// Surplus events in the views of the region that has more.
    pub(crate) twice: u64,
    /// By region.
    pub(crate) differences: Vec<(Side, Difference)>,
    /// What members asked for and a region does not show, in words.
    pub(crate) unheeded: Vec<String>,
    /// Keys of the views of each region: those of this scenario's members, except the erased one.
    pub(crate) keys: [BTreeSet<(String, String)>; 2],
}

/// Waits until every view is as expected in both regions, and says how long that took since
/// `since`. `None` if patience ran out first.
///
/// # Errors
/// If histories cannot be read.
pub(crate) async fn until_right(world: &World, expected: &Expected, since: Instant) -> Result<Option<Duration>> {
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

/// Waits until the books and the views of both regions agree with what the devices were told and
/// what the members asked for, or patience runs out. `before` is what had been counted before the
/// scenario.
///
/// # Errors
/// If something cannot be read.
pub(crate) async fn settle(world: &mut World, crowds: &[Crowd], said: &Said, before: Minute) -> Result<Converged> {
    let accepted: usize = crowds.iter().map(|crowd| crowd.report.accepted).sum();
    let mut views = Expected::default();
    crowds.iter().for_each(|crowd| views.views.extend(expect_sent(&crowd.plan, &crowd.report).views));
    let profiles: BTreeSet<String> = views.views.keys().map(|(profile, _)| profile.clone()).collect();
    // The erased member's sessions are read too: none may come back.
    views.views.retain(|(profile, _), _| !said.erased.contains_key(profile));
    let (accepted, books) = (accepted as u64, Minute::default());
    converge(InFlight { world, accepted, before, books, views, profiles, said }).await
}

struct InFlight<'a> {
    world: &'a mut World,
    /// Accepted events, as the devices were told.
    accepted: u64,
    before: Minute,
    books: Minute,
    views: Expected,
    profiles: BTreeSet<String>,
    said: &'a Said,
}

impl Converging for InFlight<'_> {
    type End = End;
    const LOOK_EVERY: Duration = LOOK_EVERY;

    fn patience(&self) -> Duration {
        PATIENCE
    }

    async fn count(&mut self, in_flight: &mut Vec<String>) -> Result<()> {
        self.books = since(self.world.books().await?, self.before);
        let (world, books) = (&*self.world, &self.books);
        if books.accepted < self.accepted {
            in_flight.push(format!("accepted events in the books: {} of {}", books.accepted, self.accepted));
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
                match due(endpoints, url).await? {
                    0 => {}
                    messages => in_flight.push(format!("{messages} messages on {name} in {}", side.region())),
                }
            }
        }
        Ok(())
    }

    /// What members see in each region, and who wrote it.
    async fn look(&mut self, in_flight: &mut Vec<String>) -> Result<End> {
        let Self { world, books, views, profiles, said, .. } = self;
        let mut end = End { books: *books, ..End::default() };
        for (side, keys) in Side::BOTH.into_iter().zip(&mut end.keys) {
            let endpoints = world.endpoints(side)?;
            let all = histories::read_with_hidden(&endpoints.api, &world.token, &*profiles).await?;
            let (lost, twice) = lost_and_twice(views, &all);
            (end.lost, end.twice) = (end.lost.max(lost), end.twice.max(twice));
            end.differences.extend(check(views, &all).into_iter().map(|difference| (side, difference)));
            // What a member sees without asking for hidden sessions.
            let listed = histories::read(&endpoints.api, &world.token, &*profiles).await?;
            end.unheeded.extend(unheeded(said, &all, &listed).map(|what| format!("{what} in {}", side.region())));
            let of_scenario =
                |(profile, _): &(String, String)| profiles.contains(profile) && !said.erased.contains_key(profile);
            *keys = view_keys(endpoints).await?.into_iter().filter(of_scenario).collect();
        }
        let [east, west] = &end.keys;
        for (what, there_are) in [
            ("differences between views and what they must be", end.differences.len()),
            ("wishes of members that were not heeded", end.unheeded.len()),
            ("items that are in one region only", east.symmetric_difference(west).count()),
        ] {
            if there_are > 0 {
                in_flight.push(format!("{there_are} {what}"));
            }
        }
        Ok(end)
    }
}

/// Sessions that are not hidden or shown as their member asked last. `all` are there, `listed` are
/// shown.
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
