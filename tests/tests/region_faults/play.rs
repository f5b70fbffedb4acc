//! One scenario from beginning to end: two crowds of devices send, the script runs, members hide
//! and erase, everything converges.
//!
//! One crowd falls silent the moment everything is repaired. From then on its views are known
//! exactly. The other keeps sending, so the regions converge under load and sessions span the
//! repair.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use indicatif::ProgressBar;
use lambda::clock::now_ms;
use lambda::routing::MAX_AGE;
use playback::session::Home;
use playhead_tests::sample::rename_profiles;
use playhead_tests::suite::{Load, Row};
use simulate::expect::expect_sent;
use simulate::plan::Plan;
use simulate::send::{Auth, Pace, SendReport, Target, Valve, elsewhere, send_through};
use simulate::{Faults, Model};
use tokio::sync::watch;
use tokio::time::Instant;

use super::members::{self, Said};
use super::scenario::{Scenario, Script};
use super::settle::{settle, until_right};
use super::table::{Figures, row};
use super::world::{Action, Side, World};

/// Attempts in flight at once, per crowd. The emulator starts an environment for each attempt that
/// finds none idle, so this also bounds their number.
const CONCURRENCY: usize = 12;
/// Devices never give up within a scenario.
const ATTEMPTS: u32 = 10_000;
/// The simulator's sessions make about nine POSTs each, and a small crowd may draw short ones.
const POSTS_PER_SESSION: f64 = 5.0;
const TRAVEL: f64 = 0.3;
/// Shares of the POSTs: of the crowd that falls silent, and of the one that goes on.
const CROWDS: [f64; 2] = [0.4, 0.6];
const SAMPLED_EVERY: Duration = Duration::from_millis(200);

/// Devices that send, and what they were told.
pub(crate) struct Crowd {
    pub(crate) plan: Plan,
    pub(crate) report: SendReport,
}

/// What was observed meanwhile.
#[derive(Debug, Default, Clone)]
pub(crate) struct Sights {
    /// The maximum number of records that waited for another region at once, as far as the pollers
    /// had read.
    pub(crate) waiting: u64,
    /// The maximum number of items that differed between the regions at once.
    pub(crate) open: u64,
    /// Requests between the regions that failed.
    pub(crate) cut_off: u64,
    /// The home that was drained, its successor, and when the last function stopped following that,
    /// Unix milliseconds.
    pub(crate) drained: Option<(Home, Home, u64)>,
    /// From the repair until the views of the crowd that fell silent were right in both regions.
    pub(crate) converged: Option<Duration>,
}

/// Plays a scenario.
///
/// # Errors
/// If it could not be played. Broken promises are not an error: they are in the row.
pub(crate) async fn play(scenario: Scenario, world: &mut World, load: Load) -> Result<Row<Figures>> {
    world.played += 1;
    let before = world.books().await?;
    let cut_off = world.cut_off();
    let script = scenario.script(load.seed);
    let lasts = scenario.healed(&script) + scenario.after();
    let plans = [plan(world.played, 0, lasts, load)?, plan(world.played, 1, lasts, load)?];
    let paces = CROWDS.map(|share| Pace {
        concurrency: CONCURRENCY,
        per_second: Some(share * load.rate),
        attempts: ATTEMPTS,
        ..Pace::default()
    });
    let valves = paces.map(Valve::new);
    let endpoints = world.regions.endpoints();
    let target = Target { endpoint: endpoints.api.clone(), elsewhere: elsewhere(endpoints), auth: Auth::of(endpoints) };
    let bar = ProgressBar::hidden();
    let send = |crowd: usize| send_through(&valves[crowd], &plans[crowd], &target, paces[crowd], &bar);

    let (over, stopped) = watch::channel(false);
    let healed = watch::Sender::new(None);
    let acts = async {
        let drained = follow(&script, scenario, world).await;
        healed.send_replace(Some(Instant::now()));
        valves[0].stop();
        if drained.is_ok() {
            tokio::time::sleep(scenario.after()).await;
        }
        valves[1].stop();
        over.send_replace(true);
        drained
    };
    let falls_silent = async {
        let report = send(0).await?;
        let since = healed.borrow().unwrap_or_else(Instant::now);
        let converged = until_right(world, &expect_sent(&plans[0], &report), since).await?;
        anyhow::Ok((report, converged))
    };
    let to_send = (CROWDS[1] * load.rate * lasts.as_secs_f64()) as usize;
    let posts = plans[1].posts.get(..to_send).context("the devices have too little to send")?;
    let speaks = members::speak(world, posts, load.seed, stopped);
    let mut sights = Sights::default();
    let (drained, (first, converged), second, said): (_, _, _, Said) = tokio::select! {
        done = async { tokio::try_join!(acts, falls_silent, send(1), speaks) } => done?,
        never = watch_over(world, &mut sights) => never,
    };
    sights.cut_off = world.cut_off() - cut_off;
    (sights.drained, sights.converged) = (drained, converged);
    for report in [&first, &second] {
        ensure!(!report.unsent.is_empty(), "the devices had nothing more to send before the scenario was over");
    }
    let [plan_of_first, plan_of_second] = plans;
    let crowds = [Crowd { plan: plan_of_first, report: first }, Crowd { plan: plan_of_second, report: second }];
    let converged = settle(world, &crowds, &said, before).await?;
    Ok(row(scenario, &crowds, &said, &sights, &converged))
}

/// What a crowd of a scenario sends. Its members are new, because the regions keep what earlier
/// scenarios left.
fn plan(played: usize, crowd: usize, lasts: Duration, load: Load) -> Result<Plan> {
    let posts = CROWDS[crowd] * load.rate * lasts.as_secs_f64();
    let faults = Faults { duplicates: 0.05, reorder: 0.1, late: 0.0, lost: 0.0, malformed: 0.01 };
    let model = Model {
        sessions: (posts / POSTS_PER_SESSION).ceil() as usize,
        viewers: None,
        titles: 200,
        homes: vec![Side::East.home()?, Side::West.home()?],
        travel: Some(TRAVEL),
        seed: 2 * load.seed + crowd as u64,
        faults,
    };
    let mut plan = Plan::ending_at(&model, i64::try_from(now_ms())?)?;
    rename_profiles(&mut plan, &format!("{played}-{crowd}"));
    Ok(plan)
}

/// Follows the script until everything is repaired. Says what was drained.
async fn follow(script: &Script, scenario: Scenario, world: &World) -> Result<Option<(Home, Home, u64)>> {
    let began = Instant::now();
    let (mut draining, mut drained) = (None, None);
    for (at, action) in script {
        tokio::time::sleep_until(began + *at).await;
        world.act(*action).await?;
        match action {
            Action::Drain(side) => draining = Some((side.home()?, side.other().home()?)),
            Action::Restore => {
                let until = now_ms() + MAX_AGE.as_millis() as u64;
                drained = draining.take().map(|(home, to)| (home, to, until));
            }
            _ => {}
        }
    }
    tokio::time::sleep_until(began + scenario.healed(script)).await;
    Ok(drained)
}

/// Observes what waits, until it is dropped.
async fn watch_over<T>(world: &World, sights: &mut Sights) -> T {
    loop {
        sights.waiting = sights.waiting.max(world.waiting());
        sights.open = sights.open.max(world.regions.replicator().stats().open);
        tokio::time::sleep(SAMPLED_EVERY).await;
    }
}

/// When the first and the last POST of each session was sent, Unix milliseconds.
pub(crate) fn lives(crowds: &[Crowd]) -> BTreeMap<&str, (u64, u64)> {
    let mut lives: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for crowd in crowds {
        for attempt in &crowd.report.attempts {
            let events = crowd.plan.posts.get(attempt.post).into_iter().flat_map(|post| &post.events);
            for planned in events.filter(|planned| planned.rejected_as.is_none()) {
                let (from, to) = (attempt.began_at, attempt.ended_at());
                let life = lives.entry(&planned.event.session_id).or_insert((from, to));
                *life = (life.0.min(from), life.1.max(to));
            }
        }
    }
    lives
}
