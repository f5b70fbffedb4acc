//! Members who erase their history.

use crate::region::{Region, World};
use query::{Erasing, erase};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use store::{Erase, StoreError, ViewTable as _};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// Hours between two erasures, at most.
const EVERY_H: u64 = 16;
/// How soon a member tries again.
const AGAIN: Duration = Duration::from_secs(30);
/// The template's `Timeout` of `query`.
const TIME_OUT: Duration = Duration::from_secs(20);

/// Up to when histories are erased, by profile, Unix milliseconds.
pub(crate) type Erased = BTreeMap<String, UpTo>;

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct UpTo {
    /// What the member was told.
    pub(crate) answered: u64,
    /// What was tried, and may be in force.
    pub(crate) tried: u64,
}

impl World {
    /// Members erase until `until` (Unix milliseconds), and then until they are told that it is done.
    pub(crate) async fn erase(&self, until: u64) {
        let mut members = JoinSet::new();
        loop {
            let at = self.clock.now() + self.dice.between(1, 2 * EVERY_H * 3_600_000);
            if at >= until {
                break;
            }
            self.clock.until(at).await;
            let region = usize::try_from(self.dice.between(0, self.regions.len() as u64)).unwrap_or_default();
            let profile_id = self.any_profile();
            members.spawn(erase_all(self.regions[region].clone(), profile_id, Arc::clone(&self.erased)));
        }
        while members.join_next().await.is_some() {}
    }
}

async fn erase_all(region: Region, profile_id: String, erased: Arc<Mutex<Erased>>) {
    loop {
        let at = region.faults.local_now();
        let up_to = |note: fn(&mut UpTo) -> &mut u64| {
            let mut erased = erased.lock().unwrap_or_else(PoisonError::into_inner);
            let up_to = note(erased.entry(profile_id.clone()).or_default());
            *up_to = at.max(*up_to);
        };
        up_to(|up_to| &mut up_to.tried);
        let command = Erase { profile_id: profile_id.clone(), at, title_id: None, session_id: None };
        let answered = timeout(TIME_OUT, region.faults.until_crash(erase(&region, &command))).await;
        if matches!(answered, Ok(Some(Ok(_)))) {
            return up_to(|up_to| &mut up_to.answered);
        }
        sleep(AGAIN).await;
    }
}

impl Erasing for Region {
    async fn mark(&self, erase: &Erase) -> Result<(), StoreError> {
        self.table.mark_erased(&erase.profile_id, erase.at).await
    }

    async fn hand_over(&self, message: String, after: Duration) -> Result<(), String> {
        if self.retry.send_later(message, after).await { Ok(()) } else { Err("the queue is away".to_owned()) }
    }

    async fn delete(&self, erase: &Erase, deadline: Instant) -> Result<bool, StoreError> {
        self.table.erase(erase, deadline).await
    }
}
