//! Simulated viewers in the background. They play only while a browser is connected.

use crate::shared::{Shared, now_ms};
use anyhow::Result;
use indicatif::ProgressBar;
use playback::session::Home;
use serde::{Deserialize, Serialize};
use simulate::plan::Plan;
use simulate::send::{self, Attempt, Auth, Pace, Target, Valve};
use simulate::{Faults, Model};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// POSTs per second of gentle viewers. Heavy ones send ten times as many.
const GENTLE: f64 = 2.0;
/// Sessions per plan: some minutes of gentle traffic.
const SESSIONS: usize = 30;
/// What is said of attempts is about this long, milliseconds.
const RATE_WINDOW_MS: u64 = 5_000;
const P50_WINDOW_MS: u64 = 15_000;
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Share of sessions that change region, if there are several.
const TRAVEL: f64 = 0.2;

/// How much the viewers send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    /// Nothing.
    Off,
    /// A little.
    Gentle,
    /// Ten times as much.
    Heavy,
}

impl Level {
    fn per_second(self) -> Option<f64> {
        match self {
            Self::Off => None,
            Self::Gentle => Some(GENTLE),
            Self::Heavy => Some(10.0 * GENTLE),
        }
    }

    pub(crate) fn in_words(self) -> &'static str {
        match self {
            Self::Off => "The simulated viewers have stopped",
            Self::Gentle => "The simulated viewers send 2 POSTs a second",
            Self::Heavy => "The simulated viewers send 20 POSTs a second",
        }
    }
}

/// The viewers' POSTs of the last seconds.
#[derive(Debug, Default)]
pub(crate) struct Viewers {
    /// When each ended (Unix milliseconds), how long it took, and whether it succeeded.
    attempts: VecDeque<(u64, Duration, bool)>,
}

/// The same in figures.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Traffic {
    pub(crate) level: Level,
    posts_per_second: f64,
    /// Attempts per second that were not accepted. They are made again.
    failed_per_second: f64,
    /// Of the accepted ones. None if there were none lately.
    p50_ms: Option<f64>,
}

impl Viewers {
    fn add(&mut self, ended_at: u64, took: Duration, succeeded: bool) {
        self.attempts.push_back((ended_at, took, succeeded));
        while self.attempts.front().is_some_and(|(at, ..)| at + P50_WINDOW_MS < ended_at) {
            self.attempts.pop_front();
        }
    }

    /// The figures at present.
    pub(crate) fn figures(&self, level: Level, now: u64) -> Traffic {
        let since = |window: u64| self.attempts.iter().filter(move |(at, ..)| *at + window > now);
        let per_second = |n: usize| n as f64 * 1000.0 / RATE_WINDOW_MS as f64;
        let mut took: Vec<Duration> =
            since(P50_WINDOW_MS).filter(|(.., succeeded)| *succeeded).map(|(_, took, _)| *took).collect();
        took.sort_unstable();
        Traffic {
            level,
            posts_per_second: per_second(since(RATE_WINDOW_MS).count()),
            failed_per_second: per_second(since(RATE_WINDOW_MS).filter(|(.., succeeded)| !succeeded).count()),
            p50_ms: took.get(took.len() / 2).map(|median| (median.as_secs_f64() * 10_000.0).round() / 10.0),
        }
    }
}

/// Plays for as long as the page is served.
///
/// # Errors
/// If no plan or HTTP client can be made, or an answer breaks the contract.
pub(crate) async fn play(shared: Arc<Shared>) -> Result<()> {
    let (told, mut attempts) = mpsc::unbounded_channel();
    let mut playing = None;
    loop {
        let wanted = wanted(&shared);
        if playing.as_ref().is_none_or(|playing: &Playing| playing.is_over(wanted)) {
            if let Some(playing) = playing.take() {
                playing.valve.stop();
            }
            playing = wanted.map(|rate| Playing::start(&shared, rate, told.clone())).transpose()?;
        }
        tokio::select! {
            Some(attempt) = attempts.recv() => {
                let attempt: Attempt = attempt;
                shared.viewers().add(attempt.ended_at(), attempt.took, attempt.succeeded());
            }
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

/// POSTs per second that are wanted now.
fn wanted(shared: &Shared) -> Option<f64> {
    let plays = shared.is_watched() && shared.locked.borrow().is_none();
    shared.level.borrow().per_second().filter(|_| plays)
}

/// A plan that is being sent. Attempts that have begun are finished, whatever becomes wanted.
struct Playing {
    rate: f64,
    valve: Arc<Valve>,
    task: tokio::task::JoinHandle<()>,
}

impl Playing {
    fn start(shared: &Arc<Shared>, rate: f64, told: mpsc::UnboundedSender<Attempt>) -> Result<Self> {
        let homes: Vec<Home> =
            shared.endpoints.regions().filter_map(|region| Home::of_region(&region.region)).collect();
        let model = Model {
            sessions: SESSIONS,
            viewers: None,
            titles: 100,
            travel: (homes.len() > 1).then_some(TRAVEL),
            homes,
            seed: rand::random(),
            faults: Faults { late: 0.0, ..Faults::default() },
        };
        let plan = Plan::ending_at(&model, i64::try_from(now_ms())?)?;
        let pace = Pace { per_second: Some(rate), ..Pace::default() };
        let valve = Arc::new(Valve::telling(pace, told));
        let target = Target {
            endpoint: shared.endpoints.api.clone(),
            elsewhere: send::elsewhere(&shared.endpoints),
            auth: Auth::of(&shared.endpoints),
        };
        let task = tokio::spawn({
            let (valve, shared) = (Arc::clone(&valve), Arc::clone(shared));
            async move {
                let sent = send::send_through(&valve, &plan, &target, pace, &ProgressBar::hidden()).await;
                if let Err(error) = sent {
                    shared.note(format!("The simulated viewers failed: {error:#}"));
                }
            }
        });
        Ok(Self { rate, valve, task })
    }

    fn is_over(&self, wanted: Option<f64>) -> bool {
        self.task.is_finished() || wanted != Some(self.rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_the_viewers_are_of_the_last_seconds() {
        let mut viewers = Viewers::default();
        let ms = Duration::from_millis;
        viewers.add(1_000, ms(900), true);
        viewers.add(12_000, ms(10), true);
        viewers.add(18_000, ms(30), true);
        viewers.add(19_000, ms(20), true);
        viewers.add(19_500, ms(5_000), false);
        let figures = viewers.figures(Level::Gentle, 20_000);
        assert_eq!((figures.posts_per_second, figures.failed_per_second, figures.p50_ms), (0.6, 0.2, Some(20.0)));
        let idle = viewers.figures(Level::Off, 60_000);
        assert_eq!((idle.posts_per_second, idle.failed_per_second, idle.p50_ms), (0.0, 0.0, None));
    }
}
