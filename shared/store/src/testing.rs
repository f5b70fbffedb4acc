//! An in-memory table for tests. It keeps the port's promises, records its calls in order, and
//! fails on request. It yields to other tasks between any two effects, so writers really
//! interleave.

use crate::erase::Erase;
use crate::settle::{Settled, Usage, settle};
use crate::table::{Erasure, StoreError, Stored, ViewTable, Write, WriteError};
use playback::fold::{Delta, ViewKey};
use playback::history::is_erased;
use playback::session::SessionId;
use playback::view::View;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// [`settle`] with more time than any test takes.
pub async fn settle_in_time<T: ViewTable>(table: &T, deltas: Vec<Delta>) -> (Vec<Settled>, Usage) {
    settle(table, deltas, Instant::now() + Duration::from_secs(60)).await
}

/// Writes one view.
///
/// # Errors
/// As [`ViewTable::write`] says.
pub async fn write_one<T: ViewTable>(
    table: &T,
    key: &ViewKey,
    view: &View,
    expected: Option<u64>,
) -> Result<(), WriteError> {
    table.write(&[Write { key, view, expected }]).await.pop().unwrap_or_else(|| unreachable!("one result per write"))
}

/// An effect on the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// A view was read.
    Read(ViewKey),
    /// A view was written; holds its new version.
    Written(ViewKey, u64),
    /// A conditional write found another version.
    Lost(ViewKey),
    /// The test made the call fail.
    Failed(ViewKey),
}

/// Decides whether a write fails; called once before each write.
pub type FailWrites = Box<dyn FnMut(&ViewKey) -> Option<StoreError> + Send>;

/// An in-memory table.
#[derive(Default)]
pub struct MemoryTable {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Packed, as in a real table.
    items: BTreeMap<ViewKey, (Vec<u8>, u64)>,
    effects: Vec<Effect>,
    fail_writes: Option<FailWrites>,
    /// Up to when each profile's history is erased.
    erased: BTreeMap<String, u64>,
    /// Whether erasures never end.
    erasures_hang: bool,
    /// Sessions that were forgotten.
    forgotten: BTreeSet<(String, SessionId)>,
    /// A linear congruential generator that decides how often a call yields.
    turns: u64,
}

impl MemoryTable {
    /// An empty table. `seed` decides how often its calls yield to other tasks.
    pub fn new(seed: u64) -> Self {
        Self { state: Mutex::new(State { turns: seed, ..State::default() }) }
    }

    /// Makes the writes fail that `decide` chooses.
    pub fn fail_writes(&self, decide: FailWrites) {
        self.lock().fail_writes = Some(decide);
    }

    /// Stores bytes as a view, readable or not.
    pub fn put_raw(&self, key: ViewKey, packed: Vec<u8>) {
        self.lock().items.insert(key, (packed, 1));
    }

    /// Marks a profile's history as erased up to `at`, Unix milliseconds.
    pub fn mark_erased(&self, profile_id: &str, at: u64) {
        let mut state = self.lock();
        let marked = state.erased.entry(profile_id.to_owned()).or_default();
        *marked = at.max(*marked);
    }

    /// Deletes a view, as an erasure does.
    pub fn delete(&self, key: &ViewKey) {
        self.lock().items.remove(key);
    }

    /// Makes erasures never end.
    pub fn hang_erasures(&self) {
        self.lock().erasures_hang = true;
    }

    /// All views that can be read.
    pub fn views(&self) -> BTreeMap<ViewKey, View> {
        let state = self.lock();
        state.items.iter().filter_map(|(key, (packed, _))| Some((key.clone(), View::unpack(packed).ok()?))).collect()
    }

    /// The size of each packed view, bytes.
    pub fn packed_sizes(&self) -> Vec<usize> {
        self.lock().items.values().map(|(packed, _)| packed.len()).collect()
    }

    /// Returns and clears the effects so far.
    pub fn take_effects(&self) -> Vec<Effect> {
        std::mem::take(&mut self.lock().effects)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn yield_randomly(&self) {
        let turns = {
            let mut state = self.lock();
            state.turns = state.turns.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state.turns >> 33) % 4
        };
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
    }
}

impl State {
    fn get(&self, key: &ViewKey) -> Result<Option<Stored>, StoreError> {
        let Some((packed, version)) = self.items.get(key) else { return Ok(None) };
        let view = View::unpack(packed).map_err(|unreadable| StoreError {
            operation: "read",
            subject: key.session_id.to_string(),
            fault: unreadable.into(),
        })?;
        Ok(Some(Stored { view, version: *version }))
    }

    fn write(&mut self, Write { key, view, expected }: &Write<'_>) -> Result<(), WriteError> {
        if let Some(error) = self.fail_writes.as_mut().and_then(|decide| decide(key)) {
            self.effects.push(Effect::Failed((*key).clone()));
            return Err(error.into());
        }
        if self.items.get(*key).map(|(_, version)| *version) == *expected {
            let version = expected.unwrap_or(0) + 1;
            self.items.insert((*key).clone(), (view.pack(), version));
            self.effects.push(Effect::Written((*key).clone(), version));
            return Ok(());
        }
        self.effects.push(Effect::Lost((*key).clone()));
        Err(WriteError::Lost(self.get(key)?.map(Box::new)))
    }
}

impl ViewTable for MemoryTable {
    async fn read(&self, keys: &[ViewKey]) -> Vec<Result<Option<Stored>, StoreError>> {
        self.yield_randomly().await;
        let results = {
            let mut state = self.lock();
            state.effects.extend(keys.iter().cloned().map(Effect::Read));
            keys.iter().map(|key| state.get(key)).collect()
        };
        self.yield_randomly().await;
        results
    }

    async fn erasures(&self, keys: &[ViewKey]) -> Vec<Result<Erasure, StoreError>> {
        self.yield_randomly().await;
        let state = self.lock();
        let of = |key: &ViewKey| Erasure {
            everything: state.erased.get(&key.profile_id).copied(),
            title: None,
            whole: state.forgotten.contains(&(key.profile_id.clone(), key.session_id.clone())),
        };
        keys.iter().map(|key| Ok(of(key))).collect()
    }

    /// Knows erasures of everything and of a session.
    async fn erase(&self, erase: &Erase, _: Instant) -> Result<bool, StoreError> {
        self.yield_randomly().await;
        if self.lock().erasures_hang {
            std::future::pending::<()>().await;
        }
        if erase.session_id.is_none() {
            self.mark_erased(&erase.profile_id, erase.at);
        }
        let mut state = self.lock();
        let State { items, forgotten, .. } = &mut *state;
        forgotten.extend(erase.session_id.iter().map(|session_id| (erase.profile_id.clone(), session_id.clone())));
        let is_covered = |key: &ViewKey, packed: &[u8]| match &erase.session_id {
            Some(session_id) => *session_id == key.session_id,
            None => View::unpack(packed).is_ok_and(|view| is_erased(&key.session_id, &view, Some(erase.at))),
        };
        items.retain(|key, (packed, _)| {
            let is_covered = key.profile_id == erase.profile_id && is_covered(key, packed);
            if is_covered && key.session_id.started_at() > erase.at {
                forgotten.insert((key.profile_id.clone(), key.session_id.clone()));
            }
            !is_covered
        });
        Ok(true)
    }

    async fn session(&self, key: &ViewKey) -> Result<Option<Vec<View>>, StoreError> {
        self.yield_randomly().await;
        let is_other =
            |of: &ViewKey| of != key && (&of.profile_id, &of.session_id) == (&key.profile_id, &key.session_id);
        let state = self.lock();
        let others = state.items.iter().filter(|(key, _)| is_other(key));
        Ok(Some(others.filter_map(|(_, (packed, _))| View::unpack(packed).ok()).collect()))
    }

    async fn write(&self, writes: &[Write<'_>]) -> Vec<Result<(), WriteError>> {
        let mut results = Vec::with_capacity(writes.len());
        for write in writes {
            self.yield_randomly().await;
            results.push(self.lock().write(write));
            self.yield_randomly().await;
        }
        results
    }
}
