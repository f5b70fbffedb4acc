//! A deterministic simulation: days of outages in seconds.
//!
//! `ingest` with its failover, `process`, `retry`, `forward`, the erasure of `query` and the mappings of
//! the logs run with their real code. The logs, the queues, the bucket and the table are small models of what
//! AWS documents, and fail as the `weather` says. Everything runs in one thread on tokio's paused
//! clock, which jumps from timer to timer, and all chance comes from one seed: so a seed replays
//! exactly. [`play`] lives through a number of hours, lets everything recover, and [`Report`] says
//! which promises were broken.
//!
//! The models are those of TigerBeetle's and FoundationDB's simulators: the whole system in one
//! process, faults by the calendar, and an oracle that knows what was accepted.

#![expect(clippy::expect_used, reason = "a simulation whose own parts fail must stop")]

mod bucket;
mod clock;
mod devices;
mod front;
mod invoke;
mod judge;
mod log;
mod member;
mod next;
mod region;
mod sqs;
mod table;
mod weather;

pub use clock::BEGAN;
pub use judge::Report;
pub use weather::{Fault, Spell, Weather, What};

use clock::{Clock, Dice};
use std::time::Duration;

/// How long to wait for the world to come to rest.
const PATIENCE: Duration = Duration::from_secs(8 * 24 * 3_600);

/// How to play.
#[derive(Debug, Clone)]
pub struct Game {
    /// Decides everything that happens.
    pub seed: u64,
    /// How long devices send and faults happen, hours.
    pub hours: u64,
    /// The faults; chosen by the seed if there are none here.
    pub weather: Option<Weather>,
    /// Requests that devices send in an hour and region.
    pub posts_per_hour: u64,
}

impl Game {
    /// A game of some hours with faults by the seed.
    #[must_use]
    pub fn new(seed: u64, hours: u64) -> Self {
        Self { seed, hours, weather: None, posts_per_hour: 12 }
    }
}

/// A game in which one thing is away for some minutes, in the first region, until the end.
#[must_use]
pub fn outage(what: What, fault: Fault, minutes: u64) -> Game {
    let hours = 2 + minutes / 60;
    let to = BEGAN + hours * 3_600_000;
    let spell = Spell { region: 0, what, fault, from: to - minutes * 60_000, to };
    let weather = Some(Weather { spells: vec![spell] });
    // So many requests that some fall into the outage, and so few that a day is soon played.
    let posts_per_hour = if minutes > 60 { 20 } else { 300 };
    Game { weather, posts_per_hour, ..Game::new(1, hours) }
}

/// Plays a game.
///
/// # Panics
/// If tokio cannot start a runtime, or a task of the simulation panics.
#[must_use]
pub fn play(game: &Game) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let (clock, dice) = (Clock::start(), Dice::new(game.seed));
        let until = clock.now() + game.hours * 3_600_000;
        let weather = game.weather.clone().unwrap_or_else(|| Weather::by_chance(&dice, clock.now(), until));
        let world = region::World::build(&clock, &dice, &weather);
        let everybody = async { tokio::join!(world.live(until, game.posts_per_hour), world.erase(until)) };
        let in_time = Duration::from_millis(until - clock.now()) + PATIENCE;
        let settled_after = match tokio::time::timeout(in_time, everybody).await {
            Ok(_) => world.settle(until, PATIENCE).await,
            Err(_) => None,
        };
        judge::judge(game, &weather, &world, settled_after)
    })
}
