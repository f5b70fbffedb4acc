//! Queues of regions in memory, for tests of what is sent to them.

use crate::queues::{Inbound, InboundError};
use playback::routing::Region;
use queue::SendError;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Queues of all regions. Clones share what they hold.
#[derive(Clone, Debug, Default)]
pub struct MemoryQueues {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    away: BTreeSet<String>,
    taken: BTreeMap<String, Vec<String>>,
}

impl MemoryQueues {
    /// From now on the region takes nothing, or takes again.
    pub fn set_away(&self, region: &str, away: bool) {
        let mut state = self.lock();
        if away {
            state.away.insert(region.to_owned());
        } else {
            state.away.remove(region);
        }
    }

    /// The messages that a region took since this was last asked.
    pub fn take(&self, region: &str) -> Vec<String> {
        self.lock().taken.remove(region).unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inbound for MemoryQueues {
    async fn send(&self, region: &Region, bodies: Vec<String>) -> Vec<Result<(), InboundError>> {
        let mut state = self.lock();
        if state.away.contains(&region.name) {
            let error = SendError::Call {
                queue: region.name.clone(),
                code: "None".to_owned(),
                message: "the region is away".to_owned(),
            };
            return bodies.iter().map(|_| Err(error.clone().into())).collect();
        }
        let results = bodies.iter().map(|_| Ok(())).collect();
        state.taken.entry(region.name.clone()).or_default().extend(bodies);
        results
    }
}
