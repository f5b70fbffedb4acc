//! The viewers: who they are, what they watch, and every event that their players produce, with its
//! time. Nothing is lost, late or doubled here: [`super::faults`] does that.

use super::event::{Device, EdgeEvent};
use super::{Model, Stream, rng};
use anyhow::{Context, Result, ensure};
use playback::session::SessionId;
use rand::{RngExt, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Exp, Zipf};
use std::borrow::Cow;
use std::collections::BTreeMap;

const SECOND: i64 = 1_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
/// A player reports progress after this much play.
const TICK: i64 = 10 * SECOND;

const DEVICE_KINDS: [&str; 6] = ["tv", "phone", "tablet", "web", "console", "set_top_box"];
const COUNTRIES: [&str; 10] = ["US", "CA", "BR", "MX", "GB", "DE", "FR", "IN", "JP", "AU"];

/// An event and its true time, Unix milliseconds.
#[derive(Debug, Clone)]
pub(super) struct Timed {
    pub(super) at_ms: i64,
    pub(super) event: EdgeEvent,
}

struct Title {
    id: String,
    duration_ms: i64,
}

struct Viewer {
    profile_id: String,
    devices: Vec<(Device, ClockError)>,
    country: &'static str,
    home: playback::session::Home,
    begins_at: i64,
}

/// How wrong a device's clock is, milliseconds.
type ClockError = i64;

/// Everything that the model's viewers do from `start_at` on: one list per viewer, in order of
/// time.
pub(super) fn watch(model: &Model, start_at: i64) -> Result<Vec<Vec<Timed>>> {
    ensure!(model.titles > 0, "there must be at least one title");
    ensure!(!model.homes.is_empty(), "there must be at least one home");
    let mut world = rng(model.seed, Stream::World);
    let titles: Vec<Title> = (1..=model.titles).map(|n| title(n, &mut world)).collect();
    let popularity = Zipf::new(titles.len() as f64, 1.0).context("title popularity")?;
    let mut viewers = rng(model.seed, Stream::Viewers);
    let viewers: Vec<Viewer> = (1..=model.viewer_count()).map(|n| viewer(n, start_at, model, &mut viewers)).collect();

    let mut sessions_of: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    let mut choice = rng(model.seed, Stream::Choice);
    for session in 0..model.sessions {
        sessions_of.entry(choice.random_range(0..viewers.len())).or_default().push(session);
    }

    let evening = |(v, sessions): (usize, Vec<usize>)| {
        let viewer = &viewers[v];
        let mut events = Vec::new();
        let mut now = viewer.begins_at;
        let mut device = 0;
        let mut unfinished: Option<(usize, i64)> = None;
        for session in sessions {
            let mut rng = rng(model.seed, Stream::Session(session as u64));
            let (t, from) = match unfinished.take() {
                Some((title, position)) if rng.random_bool(0.4) => {
                    (title, (position - rng.random_range(0..10) * SECOND).max(0))
                }
                _ => {
                    let t = (popularity.sample(&mut rng) as usize).clamp(1, titles.len()) - 1;
                    let begun_before = rng.random_bool(0.15);
                    let share = if begun_before { rng.random_range(0.0..0.9) } else { 0.0 };
                    (t, (titles[t].duration_ms as f64 * share) as i64)
                }
            };
            let mut player = Player::open(viewer, &titles[t], device, now, from, &mut rng);
            player.watch();
            if player.position < titles[t].duration_ms * 9 / 10 {
                unfinished = Some((t, player.position));
            }
            now = player.now;
            device = player.device;
            events.append(&mut player.events);
            if rng.random_bool(0.3) {
                now += rng.random_range(3..15) * SECOND; // autoplay of the next title, on the same device
            } else {
                now += 2 * MINUTE + exponential(2 * HOUR, &mut rng);
                device = rng.random_range(0..viewer.devices.len());
            }
        }
        events
    };
    Ok(sessions_of.into_iter().map(evening).collect())
}

fn title(n: usize, rng: &mut ChaCha8Rng) -> Title {
    let minutes = match rng.random_range(0..10) {
        0..3 => rng.random_range(2..=6),   // clips
        3..8 => rng.random_range(20..=50), // episodes
        _ => rng.random_range(80..=130),   // films
    };
    Title { id: format!("t{n:06}"), duration_ms: minutes * MINUTE + rng.random_range(0..60) * SECOND }
}

fn viewer(n: usize, start_at: i64, model: &Model, rng: &mut ChaCha8Rng) -> Viewer {
    let count = *[1, 2, 2, 3].choose(rng).unwrap_or(&1);
    let devices = (0..count).map(|d| {
        let kind = DEVICE_KINDS[rng.random_range(0..DEVICE_KINDS.len())];
        let wrong_clock = rng.random_bool(0.03);
        let error = if wrong_clock { 12 * HOUR } else { 2 * SECOND };
        let device = Device { id: format!("d{:08}", n * 4 + d), kind: Cow::Borrowed(kind) };
        (device, rng.random_range(-error..=error))
    });
    Viewer {
        profile_id: format!("p{n:08}"),
        devices: devices.collect(),
        country: COUNTRIES[rng.random_range(0..COUNTRIES.len())],
        home: model.homes[rng.random_range(0..model.homes.len())].clone(),
        begins_at: start_at + rng.random_range(0..HOUR),
    }
}

pub(super) fn exponential(mean_ms: i64, rng: &mut ChaCha8Rng) -> i64 {
    let rate = 1.0 / mean_ms as f64;
    Exp::new(rate).map_or(mean_ms, |d| d.sample(rng) as i64)
}

/// One session being played.
struct Player<'a> {
    viewer: &'a Viewer,
    title: &'a Title,
    rng: &'a mut ChaCha8Rng,
    session_id: String,
    device: usize,
    country: &'static str,
    now: i64,
    position: i64,
    /// Played without a break since the last event.
    unreported: i64,
    events: Vec<Timed>,
}

impl<'a> Player<'a> {
    fn open(
        viewer: &'a Viewer,
        title: &'a Title,
        device: usize,
        now: i64,
        position: i64,
        rng: &'a mut ChaCha8Rng,
    ) -> Self {
        let session_id = SessionId::mint(viewer.home.clone(), now as u64, rng.random()).to_string();
        let country = viewer.country;
        Self { viewer, title, rng, session_id, device, country, now, position, unreported: 0, events: Vec::new() }
    }

    /// Plays from the start until the viewer leaves or the title ends.
    fn watch(&mut self) {
        self.report("started");
        let duration = self.title.duration_ms;
        let finishes = self.rng.random_bool(if duration < 10 * MINUTE { 0.6 } else { 0.07 });
        let (leaves_at, mut patience) = if finishes {
            (duration * self.rng.random_range(955..=1000) / 1000, 3 * duration)
        } else {
            (duration, 5 * SECOND + exponential(4 * MINUTE, self.rng))
        };
        while self.position < leaves_at && patience > 0 {
            let stretch = SECOND + exponential(3 * MINUTE, self.rng);
            let stretch = stretch.min(patience).min(leaves_at - self.position);
            self.play(stretch);
            patience -= stretch;
            if self.position < leaves_at && patience > 0 {
                self.interrupt();
            }
        }
        let vanishes = self.rng.random_bool(0.05); // a dead battery reports nothing
        if !vanishes {
            self.report("stopped");
        }
    }

    fn play(&mut self, mut left: i64) {
        while left > 0 {
            let step = left.min(TICK - self.unreported);
            left -= step;
            self.now += step;
            self.position += step;
            self.unreported += step;
            if self.unreported == TICK {
                self.report("progressed");
            }
        }
    }

    fn interrupt(&mut self) {
        let end = self.title.duration_ms;
        match self.rng.random_range(0..10) {
            0..4 => {
                self.report("paused");
                self.now += 3 * SECOND + exponential(2 * MINUTE, self.rng);
                self.report("resumed");
            }
            4..6 => {
                let to = self.position + self.rng.random_range(10 * SECOND..5 * MINUTE);
                self.seek(to.min(end - SECOND).max(self.position));
            }
            6..8 => {
                let back = self.rng.random_range(10 * SECOND..2 * MINUTE);
                self.seek((self.position - back).max(0));
            }
            8 => {
                // watches again from far back
                let to = self.rng.random_range(0..=self.position);
                self.seek(to);
            }
            _ => self.hand_over(),
        }
    }

    /// Reports what was played before the jump, since an event's interval ends at its position.
    fn seek(&mut self, to: i64) {
        if self.unreported > 0 {
            self.report("progressed");
        }
        self.now += self.rng.random_range(500..3 * SECOND);
        self.position = to;
        self.report("seeked");
    }

    /// Pauses, and continues the session later, on another device if there is one.
    fn hand_over(&mut self) {
        self.report("paused");
        self.now += self.rng.random_range(MINUTE..HOUR);
        self.device = (self.device + 1) % self.viewer.devices.len();
        let travelled = self.rng.random_bool(0.2);
        if travelled {
            self.country = COUNTRIES[self.rng.random_range(0..COUNTRIES.len())];
        }
        self.report("resumed");
    }

    fn report(&mut self, kind: &'static str) {
        let (device, clock_error) = &self.viewer.devices[self.device];
        let event = EdgeEvent {
            session_id: self.session_id.clone(),
            profile_id: Some(self.viewer.profile_id.clone()),
            title_id: self.title.id.clone(),
            seq: self.events.len() as i64,
            kind: Cow::Borrowed(kind),
            position_ms: self.position,
            played_ms: std::mem::take(&mut self.unreported),
            title_duration_ms: self.title.duration_ms,
            occurred_at: self.now + clock_error,
            device: device.clone(),
            country: Cow::Borrowed(self.country),
        };
        self.events.push(Timed { at_ms: self.now, event });
    }
}
