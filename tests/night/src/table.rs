//! The table: `store`'s in-memory one, which fails as the weather says.

use crate::weather::{Call, Faults, What};
use playback::fold::ViewKey;
use playback::view::View;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use store::testing::MemoryTable;
use store::{Erase, Erasure, Fault, StoreError, Stored, ViewTable, WriteError};
use tokio::time::Instant;

/// When the SDK gives up a call (`store::dynamodb::Views::new`).
const PATIENCE_MS: u64 = 5_000;
/// The profile whose items are throttled while there is a hot key.
pub(crate) const HOT: &str = "p0";

/// The table of a region.
#[derive(Clone)]
pub(crate) struct Table {
    pub(crate) items: Arc<MemoryTable>,
    pub(crate) faults: Faults,
    /// Calls so far.
    pub(crate) calls: Arc<AtomicU64>,
}

impl Table {
    pub(crate) fn new(faults: &Faults) -> Self {
        Self { items: Arc::new(MemoryTable::new(0)), faults: faults.clone(), calls: Arc::default() }
    }

    async fn call(&self) -> Call {
        self.calls.fetch_add(1, Relaxed);
        self.faults.call(What::Table, PATIENCE_MS).await
    }

    fn is_hot(&self, key: &ViewKey) -> bool {
        key.profile_id == HOT && self.faults.is(What::HotKey)
    }
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
        let throttled = || Err(error("read", Fault::Throttled("a hot key".to_owned())));
        let read = self.items.read(keys).await;
        keys.iter().zip(read).map(|(key, read)| if self.is_hot(key) { throttled() } else { read }).collect()
    }

    async fn write(&self, key: &ViewKey, view: &View, expected: Option<u64>) -> Result<(), WriteError> {
        let call = self.call().await;
        if self.is_hot(key) {
            return Err(error("write", Fault::Throttled("a hot key".to_owned())).into());
        }
        match fault(call) {
            None => self.items.write(key, view, expected).await,
            Some(fault) => {
                if call == Call::Unanswered {
                    let _ = self.items.write(key, view, expected).await;
                }
                Err(error("write", fault).into())
            }
        }
    }

    async fn erasures(&self, keys: &[ViewKey]) -> Vec<Result<Erasure, StoreError>> {
        match fault(self.call().await) {
            None => self.items.erasures(keys).await,
            Some(fault) => keys.iter().map(|_| Err(error("erasures", fault.clone()))).collect(),
        }
    }

    async fn erase(&self, erase: &Erase, deadline: Instant) -> Result<bool, StoreError> {
        match fault(self.call().await) {
            None => self.items.erase(erase, deadline).await,
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
