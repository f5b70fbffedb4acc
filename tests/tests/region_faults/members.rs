//! Members who change their minds: they hide sessions, show them again, and one erases everything, now in one region and now in the other.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use playhead::simulate::plan::Plan;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use reqwest::{Method, StatusCode};
use tokio::sync::watch;

use super::world::{Side, World};

/// Between two calls.
const PAUSE: Duration = Duration::from_millis(700);
/// Sessions that are hidden and shown again.
const SESSIONS: usize = 12;
/// The calls by which one member erases everything, in one region and soon after in the other. The fault has begun by then.
const ERASURES: [usize; 2] = [16, 20];
/// A call that is refused for a while is made again, as an app does.
const ATTEMPTS: usize = 20;

/// What members have said.
#[derive(Debug, Default)]
pub(crate) struct Said {
    /// By profile and session: whether it was hidden when they spoke of it last.
    pub(crate) hidden: BTreeMap<(String, String), bool>,
    /// Profiles of which everything was erased.
    pub(crate) erased: BTreeSet<String>,
    /// How often they spoke.
    pub(crate) calls: usize,
}

/// Speaks for members of this plan, one call after the other, so that each is later than all before it; until it is stopped.
///
/// # Errors
/// When a call is refused for good.
pub(crate) async fn speak(world: &World, plan: &Plan, seed: u64, stopped: watch::Receiver<bool>) -> Result<Said> {
    let (mut said, mut chance) = (Said::default(), ChaCha8Rng::seed_from_u64(seed));
    let sessions = sessions(plan);
    let (eraser, _) = sessions.choose(&mut chance).context("nobody watches")?;
    let others = sessions.iter().filter(|(profile, _)| profile != eraser).take(SESSIONS).collect::<Vec<_>>();
    let first = Side::drawn(&mut chance);
    loop {
        tokio::time::sleep(PAUSE).await;
        if *stopped.borrow() {
            return Ok(said);
        }
        if let Some(time) = ERASURES.iter().position(|call| *call == said.calls) {
            let side = if time == 0 { first } else { first.other() };
            call(world, side, Method::DELETE, &format!("/v1/profiles/{eraser}/history")).await?;
            said.erased.insert(eraser.clone());
        } else {
            let (profile, session) = others.choose(&mut chance).context("only one member watches")?;
            let (side, hides) = (Side::drawn(&mut chance), chance.random_bool(0.6));
            let method = if hides { Method::PUT } else { Method::DELETE };
            call(world, side, method, &format!("/v1/profiles/{profile}/history/{session}/hidden")).await?;
            said.hidden.insert((profile.clone(), session.clone()), hides);
        }
        said.calls += 1;
    }
}

/// Sessions of the plan with their profiles, in the order in which they are first heard of.
fn sessions(plan: &Plan) -> Vec<(String, String)> {
    let mut seen = BTreeSet::new();
    let mut sessions = Vec::new();
    for post in &plan.posts {
        for planned in post.events.iter().filter(|planned| planned.rejected_as.is_none()) {
            let session = &planned.event.session_id;
            if seen.insert(session) {
                sessions.push((post.profile_id.clone(), session.clone()));
            }
        }
    }
    sessions.truncate(2 * SESSIONS);
    sessions
}

async fn call(world: &World, side: Side, method: Method, path: &str) -> Result<()> {
    let url = format!("{}{path}", world.endpoints(side)?.api);
    for _ in 0..ATTEMPTS {
        let request = world.http.request(method.clone(), &url).bearer_auth(&world.token);
        let answer = request.send().await.with_context(|| format!("{method} {url}"))?;
        match answer.status() {
            StatusCode::NO_CONTENT => return Ok(()),
            status if status.is_server_error() => tokio::time::sleep(PAUSE).await,
            status => bail!("{method} {path} in {} was answered with {status}", side.region()),
        }
    }
    bail!("{method} {path} in {} was never carried out", side.region())
}
