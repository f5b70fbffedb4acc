//! Members who travel: from some time on, a session's POSTs go through another region than its
//! home.

use super::plan::Post;
use super::{Model, Stream, rng};
use anyhow::{Result, ensure};
use playback::session::{Home, SessionId};
use rand::RngExt;
use rand::seq::IndexedRandom;
use std::collections::{BTreeMap, BTreeSet};

/// A session's route: when its first and last POSTs are sent, and when it moves to which region.
struct Way {
    first_ms: i64,
    last_ms: i64,
    moved: Option<(i64, Home)>,
}

/// Lets sessions change region at some time between their first and last POST, including late POSTs
/// and copies. A POST follows its first session that has travelled by then.
///
/// # Errors
/// If the model has travellers and fewer than two homes.
pub(super) fn travel(posts: &mut [Post], model: &Model) -> Result<()> {
    let rate = model.travel.unwrap_or_default();
    if rate == 0.0 {
        return Ok(());
    }
    ensure!(model.homes.iter().collect::<BTreeSet<_>>().len() > 1, "travel needs at least two homes");
    let mut rng = rng(model.seed, Stream::Travel);
    let mut ways: BTreeMap<String, Way> = BTreeMap::new();
    for post in posts.iter() {
        for session in post.sessions() {
            let at = post.at_ms;
            let way = ways.entry(session.to_owned()).or_insert(Way { first_ms: at, last_ms: at, moved: None });
            (way.first_ms, way.last_ms) = (way.first_ms.min(at), way.last_ms.max(at));
        }
    }
    for (session, way) in &mut ways {
        let travels = rng.random_bool(rate);
        let home = session.parse::<SessionId>()?.home;
        let others: Vec<&Home> = model.homes.iter().filter(|other| **other != home).collect();
        if let Some(to) = others.choose(&mut rng)
            && travels
            && way.first_ms < way.last_ms
        {
            way.moved = Some((rng.random_range(way.first_ms + 1..=way.last_ms), (*to).clone()));
        }
    }
    for post in posts {
        let moved = post.sessions().into_iter().filter_map(|session| ways.get(session)?.moved.as_ref());
        if let Some((_, to)) = moved.into_iter().find(|(from, _)| *from <= post.at_ms) {
            post.through = to.clone();
        }
    }
    Ok(())
}
