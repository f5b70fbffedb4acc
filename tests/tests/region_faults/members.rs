//! Members who change their minds: they hide sessions, show them again, and one erases everything,
//! sometimes in one region and sometimes in the other.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use lambda::clock::now_ms;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use reqwest::{Method, StatusCode};
use simulate::plan::Post;
use tokio::sync::watch;

use super::world::{Side, World};

/// Between two calls.
const PAUSE: Duration = Duration::from_millis(700);
/// Sessions that are hidden and shown again.
const SESSIONS: usize = 12;
/// The calls that erase everything of one member, in one region and soon after in the other. The
/// fault has begun by then.
const ERASURES: [usize; 2] = [16, 20];
/// A call that is refused is repeated for a while, as an app would.
const ATTEMPTS: usize = 20;

/// What members did.
#[derive(Debug, Default)]
pub(crate) struct Said {
    /// By profile and session: whether the last call hid it.
    pub(crate) hidden: BTreeMap<(String, String), bool>,
    /// Profiles that were erased, and since when, Unix milliseconds.
    pub(crate) erased: BTreeMap<String, u64>,
    /// How many calls there were.
    pub(crate) calls: usize,
}

/// Makes calls for the members of these POSTs until it is stopped. One call after the other, so
/// each is later than all before it.
///
/// # Errors
/// If a call is refused for good.
pub(crate) async fn speak(world: &World, posts: &[Post], seed: u64, stopped: watch::Receiver<bool>) -> Result<Said> {
    let (mut said, mut chance) = (Said::default(), ChaCha8Rng::seed_from_u64(seed));
    let eraser = eraser(posts).context("nobody watches")?;
    let sessions = sessions(posts, eraser);
    let first = Side::drawn(&mut chance);
    loop {
        tokio::time::sleep(PAUSE).await;
        if *stopped.borrow() {
            return Ok(said);
        }
        if let Some(time) = ERASURES.iter().position(|call| *call == said.calls) {
            let side = if time == 0 { first } else { first.other() };
            call(world, side, Method::DELETE, &format!("/v1/profiles/{eraser}/history")).await?;
            said.erased.entry(eraser.to_owned()).or_insert_with(now_ms);
        } else {
            let (profile, session) = sessions.choose(&mut chance).context("only one member watches")?;
            let (side, hides) = (Side::drawn(&mut chance), chance.random_bool(0.6));
            let method = if hides { Method::PUT } else { Method::DELETE };
            call(world, side, method, &format!("/v1/profiles/{profile}/history/{session}/hidden")).await?;
            said.hidden.insert((profile.clone(), session.clone()), hides);
        }
        said.calls += 1;
    }
}

/// The member who sends most in the second half, so events of what was erased keep coming.
fn eraser(posts: &[Post]) -> Option<&str> {
    let mut busy: BTreeMap<&str, usize> = BTreeMap::new();
    let second_half = posts.iter().skip(posts.len() / 2);
    second_half.for_each(|post| *busy.entry(&post.profile_id).or_default() += 1);
    busy.into_iter().max_by_key(|(_, posts)| *posts).map(|(profile, _)| profile)
}

/// Some sessions of the other members that continue for a while, with their profiles.
fn sessions(posts: &[Post], eraser: &str) -> Vec<(String, String)> {
    let mut sessions = Vec::new();
    for post in posts.iter().skip(posts.len() / 4).filter(|post| post.profile_id != eraser) {
        for planned in post.events.iter().filter(|planned| planned.rejected_as.is_none()) {
            let session = (post.profile_id.clone(), planned.event.session_id.clone());
            if sessions.len() < SESSIONS && !sessions.contains(&session) {
                sessions.push(session);
            }
        }
    }
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
