//! The table: `store`'s in-memory one, which fails as the weather says.

use crate::weather::{self, Call, Faults, What};
use playback::fold::ViewKey;
use playback::view::{Newer, UnreadableView, VIEW_SCHEMA_VERSION, View};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use store::testing::{MemoryTable, write_one};
use store::{Erase, Erasure, Fault, StoreError, Stored, ViewTable, Write, WriteError};
use tokio::time::Instant;

/// When the SDK gives up a call (`store::dynamodb::Views::new`).
const PATIENCE_MS: u64 = 5_000;
/// The profile whose items are throttled while there is a hot key.
pub(crate) const HOT: &str = "p0";

/// The table of a region.
#[derive(Clone)]
pub(crate) struct Table {
    pub(crate) items: Arc<MemoryTable>,
    /// What erasures reach: the replicas of all regions.
    replicas: Vec<Arc<MemoryTable>>,
    pub(crate) faults: Faults,
    /// Calls so far.
    pub(crate) calls: Arc<AtomicU64>,
    next: Arc<Mutex<Next>>,
    /// The deployment of the caller's next version, if it has one.
    caller: Option<What>,
}

/// What the next version wrote.
#[derive(Default)]
struct Next {
    /// Views with a field that this version does not know.
    with_field: BTreeSet<ViewKey>,
    /// Views that this version cannot read.
    unreadable: BTreeSet<ViewKey>,
}

impl Table {
    /// A region's part of the global table.
    pub(crate) fn new(faults: &Faults, region: usize, replicas: &[Arc<MemoryTable>]) -> Self {
        let (items, replicas) = (Arc::clone(&replicas[region]), replicas.to_vec());
        let (calls, next) = (Arc::default(), Arc::default());
        Self { items, replicas, faults: faults.clone(), calls, next, caller: None }
    }

    /// The table as a function sees it.
    pub(crate) fn of(&self, caller: What) -> Self {
        Self { caller: Some(caller), ..self.clone() }
    }

    /// The views that have lost the next version's field.
    pub(crate) fn spoilt(&self) -> Vec<ViewKey> {
        let views = self.items.views();
        let is_spoilt = |key: &&ViewKey| views.get(key).is_some_and(|view| view.newer == Newer::default());
        self.next().with_field.iter().filter(is_spoilt).cloned().collect()
    }

    /// Marks a profile's history as erased.
    pub(crate) async fn mark_erased(&self, profile_id: &str, at: u64) -> Result<(), StoreError> {
        let call = self.call().await;
        if call == Call::Answered || call == Call::Unanswered {
            self.replicas.iter().for_each(|items| items.mark_erased(profile_id, at));
        }
        fault(call).map_or(Ok(()), |fault| Err(error("mark", fault)))
    }

    fn next(&self) -> MutexGuard<'_, Next> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn runs_next(&self) -> bool {
        self.caller.is_some_and(|caller| self.faults.runs_next(caller))
    }

    fn check_readable(&self, key: &ViewKey) -> Result<(), StoreError> {
        if self.next().unreadable.contains(key) && !self.runs_next() {
            return Err(error("read", UnreadableView::Newer(VIEW_SCHEMA_VERSION + 1).into()));
        }
        Ok(())
    }

    async fn put(&self, &Write { key, view, expected }: &Write<'_>) -> Result<(), WriteError> {
        let is_next = self.runs_next();
        let written = if is_next {
            write_one(&*self.items, key, &with_field(view), expected).await
        } else {
            write_one(&*self.items, key, view, expected).await
        };
        match written {
            Ok(()) => {
                let is_unreadable = is_next && self.faults.dice.permille(100);
                let mut next = self.next();
                if expected.is_none() {
                    next.with_field.remove(key);
                    next.unreadable.remove(key);
                }
                if is_next {
                    next.with_field.insert(key.clone());
                }
                if is_unreadable {
                    next.unreadable.insert(key.clone());
                }
                Ok(())
            }
            Err(WriteError::Lost(Some(stored))) => {
                self.check_readable(key)?;
                Err(WriteError::Lost(Some(stored)))
            }
            Err(error) => Err(error),
        }
    }

    async fn call(&self) -> Call {
        self.calls.fetch_add(1, Relaxed);
        self.faults.call(What::Table, PATIENCE_MS).await
    }

    fn is_hot(&self, key: &ViewKey) -> bool {
        key.profile_id == HOT
            && match self.faults.fault(What::HotKey) {
                None => false,
                Some(weather::Fault::Flickers) => self.faults.dice.permille(500),
                Some(_) => true,
            }
    }
}

/// A view, with a field that this version does not know.
fn with_field(view: &View) -> View {
    const FIELD: [u8; 3] = [0x98, 0x06, 1];
    if view.newer != Newer::default() {
        return view.clone();
    }
    View::unpack(&[view.pack().as_slice(), &FIELD].concat()).expect("a view with one field more")
}

fn error(operation: &'static str, fault: Fault) -> StoreError {
    StoreError { operation, subject: "simulated".to_owned(), fault }
}

/// Why a call has no answer that counts.
fn fault(call: Call) -> Option<Fault> {
    match call {
        Call::Answered => None,
        Call::Unanswered | Call::Lost => Some(Fault::Unavailable("no answer".to_owned())),
        Call::Refused => Some(Fault::Throttled("too much".to_owned())),
    }
}

impl ViewTable for Table {
    async fn read(&self, keys: &[ViewKey]) -> Vec<Result<Option<Stored>, StoreError>> {
        if let Some(fault) = fault(self.call().await) {
            return keys.iter().map(|_| Err(error("read", fault.clone()))).collect();
        }
        let one = |(key, read): (&ViewKey, Result<Option<Stored>, StoreError>)| match read? {
            _ if self.is_hot(key) => Err(error("read", Fault::Throttled("a hot key".to_owned()))),
            Some(stored) => self.check_readable(key).map(|()| Some(stored)),
            None => Ok(None),
        };
        keys.iter().zip(self.items.read(keys).await).map(one).collect()
    }

    async fn write(&self, writes: &[Write<'_>]) -> Vec<Result<(), WriteError>> {
        let call = self.call().await;
        let mut results = Vec::with_capacity(writes.len());
        for write in writes {
            results.push(match fault(call) {
                _ if self.is_hot(write.key) => Err(error("write", Fault::Throttled("a hot key".to_owned())).into()),
                None => self.put(write).await,
                Some(fault) => {
                    if call == Call::Unanswered {
                        let _ = self.put(write).await;
                    }
                    Err(error("write", fault).into())
                }
            });
        }
        results
    }

    async fn erasures(&self, keys: &[ViewKey]) -> Vec<Result<Erasure, StoreError>> {
        match fault(self.call().await) {
            None => self.items.erasures(keys).await,
            Some(fault) => keys.iter().map(|_| Err(error("erasures", fault.clone()))).collect(),
        }
    }

    async fn erase(&self, erase: &Erase, deadline: Instant) -> Result<bool, StoreError> {
        match fault(self.call().await) {
            None => {
                for items in &self.replicas {
                    items.erase(erase, deadline).await?;
                }
                Ok(true)
            }
            Some(fault) => Err(error("erase", fault)),
        }
    }

    async fn session(&self, key: &ViewKey) -> Result<Option<Vec<View>>, StoreError> {
        match fault(self.call().await) {
            None => self.items.session(key).await,
            Some(fault) => Err(error("session", fault)),
        }
    }
}
