//! The regions' queues in memory, for tests of forwarding.

use crate::queues::{Inbound, InboundError};
use playback::routing::Region;
use queue::SendError;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The queues of all regions. Clones share their messages.
#[derive(Clone, Debug, Default)]
pub struct MemoryQueues {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    down: BTreeSet<String>,
    taken: BTreeMap<String, Vec<String>>,
}

impl MemoryQueues {
    /// From now on the region's queue is down, or up again.
    pub fn set_down(&self, region: &str, down: bool) {
        let mut state = self.lock();
        if down {
            state.down.insert(region.to_owned());
        } else {
            state.down.remove(region);
        }
    }

    /// Removes and returns the messages that a region took.
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
        if state.down.contains(&region.name) {
            let error = SendError::Call {
                queue: region.name.clone(),
                code: "None".to_owned(),
                message: "the region is down".to_owned(),
            };
            return bodies.iter().map(|_| Err(error.clone().into())).collect();
        }
        let results = bodies.iter().map(|_| Ok(())).collect();
        state.taken.entry(region.name.clone()).or_default().extend(bodies);
        results
    }
}
