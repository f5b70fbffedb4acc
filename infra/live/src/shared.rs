//! What the parts of the page share. No lock is held across a wait.

use crate::control::Order;
use crate::parts::RegionParts;
use crate::traffic::{Level, Viewers};
use operate::Endpoints;
use serde::Serialize;
use std::collections::VecDeque;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, watch};

/// How many notes the page shows.
const NOTES: usize = 12;

/// Something that happened, in words.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Note {
    /// Unix milliseconds.
    at: u64,
    text: String,
}

/// The state of the page.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) endpoints: Endpoints,
    /// The latest snapshot as JSON. Its receivers are the connected browsers.
    pub(crate) snapshots: watch::Sender<Arc<str>>,
    pub(crate) level: watch::Sender<Level>,
    /// Why controls and viewers are locked, if they are.
    pub(crate) locked: watch::Receiver<Option<&'static str>>,
    pub(crate) orders: mpsc::Sender<Order>,
    /// Whether somebody waits for the pipeline to be empty.
    pub(crate) draining: watch::Sender<bool>,
    /// Records of poison that a log acknowledged.
    pub(crate) poison: AtomicU64,
    parts: Mutex<Vec<RegionParts>>,
    viewers: Mutex<Viewers>,
    notes: Mutex<VecDeque<Note>>,
}

impl Shared {
    pub(crate) fn new(
        endpoints: Endpoints,
        locked: watch::Receiver<Option<&'static str>>,
        orders: mpsc::Sender<Order>,
    ) -> Self {
        Self {
            endpoints,
            snapshots: watch::Sender::new(Arc::from("")),
            level: watch::Sender::new(Level::Gentle),
            locked,
            orders,
            draining: watch::Sender::new(false),
            poison: AtomicU64::default(),
            parts: Mutex::default(),
            viewers: Mutex::default(),
            notes: Mutex::default(),
        }
    }

    /// Whether a browser is connected.
    pub(crate) fn is_watched(&self) -> bool {
        self.snapshots.receiver_count() > 0
    }

    /// Notes the present state of the parts, and what has changed by itself.
    pub(crate) fn see(&self, now: Vec<RegionParts>) {
        let before = std::mem::replace(&mut *lock(&self.parts), now.clone());
        for (before, now) in before.iter().zip(&now) {
            for text in now.changes_since(before) {
                self.note(text);
            }
        }
    }

    pub(crate) fn parts(&self) -> Vec<RegionParts> {
        lock(&self.parts).clone()
    }

    pub(crate) fn viewers(&self) -> MutexGuard<'_, Viewers> {
        lock(&self.viewers)
    }

    pub(crate) fn note(&self, text: impl Into<String>) {
        let mut notes = lock(&self.notes);
        notes.push_front(Note { at: now_ms(), text: text.into() });
        notes.truncate(NOTES);
    }

    /// Newest first.
    pub(crate) fn notes(&self) -> Vec<Note> {
        lock(&self.notes).iter().cloned().collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Unix milliseconds.
pub(crate) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
