//! Audience who watch, and what their players send: one record per POST, in order of time.

use crate::viewer::exponential;
use crate::{Stream, rng};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

const SECOND: i64 = 1_000;
const MINUTE: i64 = 60 * SECOND;

/// How long a session plays.
const PLAYS: std::ops::Range<i64> = 10 * MINUTE..50 * MINUTE;
/// How long a member plays, on average, until they pause or seek: as the simulator's viewers.
const UNDISTURBED: i64 = 3 * MINUTE;
/// A player looks at its position about four times a second, so progress is late by up to this.
const TICK: i64 = 250;
/// `sendAtEvents` of `sdk/web`.
const SEND_AT: usize = 20;
/// The simulator's devices send what they have when nothing happens for this long.
const IDLE: i64 = MINUTE;

/// How a player reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Habit {
    /// How much a member plays between two `progressed` events, ms.
    pub(super) progress_every: i64,
    /// When events are sent.
    pub(super) sends: Sends,
}

/// When a player sends the events that wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sends {
    /// As `sdk/web`: so many ms after the first of them, at once at a pause or a stop, and at once
    /// when 20 wait.
    Every(i64),
    /// As the devices of [`plan`](crate::plan): when 1 to 12 wait, drawn anew for each POST, and
    /// before a long silence. A pause waits like any other event.
    Drawn,
}

/// One record on the log: the events of one session in one POST.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Upload {
    /// When the log has it, ms. This is when its events are accepted.
    pub(super) at: i64,
    /// Whose session it is. A member has one session after the other.
    pub(super) member: usize,
    /// Distinct for each session.
    pub(super) session: u64,
    /// In order.
    pub(super) events: Vec<Moment>,
}

/// When an event happened, and whether it ended playing: a pause or a stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    pub(super) at: i64,
    pub(super) ends_playing: bool,
}

/// A constant number of members, each of whom watches one session after the other. Time begins at
/// 0, in the middle of everyone's session. An endless iterator over what they send.
#[derive(Debug)]
pub(super) struct Audience {
    habit: Habit,
    rng: ChaCha8Rng,
    sessions: u64,
    members: Vec<Watcher>,
    /// The next record of each member, and all of them by time.
    next: Vec<Option<Upload>>,
    order: BinaryHeap<Reverse<(i64, usize)>>,
}

impl Audience {
    pub(super) fn new(habit: Habit, count: usize, seed: u64) -> Self {
        let mut rng = rng(seed, Stream::Folding);
        let members = (0..count).map(|n| Watcher::in_the_middle(n as u64, habit, &mut rng)).collect();
        let (next, order) = (vec![None; count], BinaryHeap::with_capacity(count));
        let mut all = Self { habit, rng, sessions: count as u64, members, next, order };
        (0..count).for_each(|member| all.prepare(member));
        all
    }

    /// Events per second of one member, measured.
    pub(super) fn events_per_second(habit: Habit, seed: u64) -> f64 {
        const COUNT: usize = 300;
        const SECONDS: i64 = 3_600;
        let sent = Self::new(habit, COUNT, seed).take_while(|sent| sent.at < 2 * SECONDS * SECOND);
        let counted = sent.filter(|sent| sent.at >= SECONDS * SECOND);
        counted.map(|sent| sent.events.len()).sum::<usize>() as f64 / (COUNT as i64 * SECONDS) as f64
    }

    fn prepare(&mut self, member: usize) {
        let sent = self.members[member].send_next(member, self.habit, &mut self.sessions, &mut self.rng);
        self.order.push(Reverse((sent.at, member)));
        self.next[member] = Some(sent);
    }
}

impl Iterator for Audience {
    type Item = Upload;

    fn next(&mut self) -> Option<Upload> {
        let Reverse((_, member)) = self.order.pop()?;
        let sent = self.next[member].take();
        self.prepare(member);
        sent
    }
}

/// One member's player.
#[derive(Debug)]
struct Watcher {
    session: u64,
    now: i64,
    /// Play until the session ends, until the member does something, and until progress is due.
    left: i64,
    undisturbed: i64,
    unreported: i64,
    /// The next event follows after this time without play: `resumed` or `seeked`.
    follows: Option<i64>,
    /// An event that happened after the last POST was made, and the session it belongs to.
    ahead: Option<(Moment, u64)>,
    waiting: Vec<Moment>,
    /// When the waiting events must be sent.
    due: i64,
    /// How many waiting events are sent at once, if that is drawn.
    enough: usize,
    /// When the last POST was made.
    sent_at: i64,
}

impl Watcher {
    fn in_the_middle(session: u64, habit: Habit, rng: &mut ChaCha8Rng) -> Self {
        let plays = rng.random_range(PLAYS);
        Self {
            session,
            now: 0,
            left: rng.random_range(1..=plays),
            undisturbed: SECOND + exponential(UNDISTURBED, rng),
            unreported: rng.random_range(1..=habit.progress_every),
            follows: None,
            ahead: None,
            waiting: Vec::new(),
            due: i64::MAX,
            enough: rng.random_range(1..=12),
            sent_at: i64::MIN,
        }
    }

    /// The next POST of this member.
    fn send_next(&mut self, member: usize, habit: Habit, sessions: &mut u64, rng: &mut ChaCha8Rng) -> Upload {
        loop {
            let (moment, session) = match self.ahead.take() {
                Some(ahead) => ahead,
                None => (self.happen(habit, sessions, rng), self.session),
            };
            let silent = |last: &Moment| habit.sends == Sends::Drawn && moment.at > last.at + IDLE;
            let before = match self.waiting.last() {
                Some(last) if silent(last) => Some(last.at),
                Some(_) if self.due <= moment.at => Some(self.due),
                _ => None,
            };
            if let Some(at) = before {
                self.ahead = Some((moment, session));
                return self.send(member, session, at, rng);
            }
            self.waiting.push(moment);
            let stopped = moment.ends_playing && self.left == 0;
            let now = match habit.sends {
                Sends::Every(_) => moment.ends_playing || self.waiting.len() >= SEND_AT,
                Sends::Drawn => stopped || self.waiting.len() >= self.enough,
            };
            if now {
                return self.send(member, session, moment.at, rng);
            }
            if let (Sends::Every(ms), [only]) = (habit.sends, &self.waiting[..]) {
                self.due = only.at + ms;
            }
        }
    }

    fn send(&mut self, member: usize, session: u64, at: i64, rng: &mut ChaCha8Rng) -> Upload {
        // A device sends one POST at a time.
        self.sent_at = (at + rng.random_range(50..800)).max(self.sent_at.saturating_add(1));
        self.due = i64::MAX;
        self.enough = rng.random_range(1..=12);
        Upload { at: self.sent_at, member, session, events: std::mem::take(&mut self.waiting) }
    }

    /// Plays on until the next event.
    fn happen(&mut self, habit: Habit, sessions: &mut u64, rng: &mut ChaCha8Rng) -> Moment {
        let mut ends_playing = false;
        if let Some(wait) = self.follows.take() {
            self.now += wait;
        } else if self.left == 0 {
            self.now += rng.random_range(3 * SECOND..15 * SECOND);
            self.session = *sessions;
            *sessions += 1;
            self.left = rng.random_range(PLAYS);
        } else {
            let step = self.left.min(self.undisturbed).min(self.unreported);
            self.now += step;
            self.left -= step;
            self.undisturbed -= step;
            if self.left == 0 {
                ends_playing = true;
            } else if self.undisturbed == 0 {
                self.undisturbed = SECOND + exponential(UNDISTURBED, rng);
                ends_playing = rng.random_bool(0.5);
                let pause = 3 * SECOND + exponential(2 * MINUTE, rng);
                self.follows = Some(if ends_playing { pause } else { rng.random_range(500..3 * SECOND) });
            }
        }
        self.unreported = habit.progress_every + rng.random_range(0..TICK);
        Moment { at: self.now, ends_playing }
    }
}
