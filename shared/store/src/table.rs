//! The port: what settling needs of a store.

use crate::erase::Erase;
use playback::contract::MAX_RANGES;
use playback::fold::ViewKey;
use playback::history::is_erased;
use playback::outcome::{Cause, Reason};
use playback::view::{UnreadableView, View};
use std::future::Future;
use tokio::time::Instant;

/// A stored view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The state.
    pub view: View,
    /// Counts the writes of the item. Each write is conditional on it.
    pub version: u64,
}

/// Maximum number of views in one call of [`ViewTable::read`] and [`ViewTable::erasures`]. Source:
/// DynamoDB API reference, BatchGetItem.
pub const READ_AT_ONCE: usize = 100;

/// Maximum number of views in one call of [`ViewTable::write`]. Source: DynamoDB API reference,
/// BatchExecuteStatement.
pub const WRITE_AT_ONCE: usize = 25;

/// A conditional write.
#[derive(Debug, Clone, Copy)]
pub struct Write<'a> {
    /// Which view.
    pub key: &'a ViewKey,
    /// What it becomes.
    pub view: &'a View,
    /// Its stored version must still be this (`None`: there must be no view).
    pub expected: Option<u64>,
}

/// A store of views.
pub trait ViewTable: Send + Sync {
    /// Reads views, one result per key, in order; `None` if there is no view. The result may lag
    /// behind the last write: that only loses a race.
    fn read(&self, keys: &[ViewKey]) -> impl Future<Output = Vec<Result<Option<Stored>, StoreError>>> + Send;

    /// Writes views of different keys, one result per write, in order: a write that fails or loses
    /// its race stops no other.
    fn write(&self, writes: &[Write<'_>]) -> impl Future<Output = Vec<Result<(), WriteError>>> + Send;

    /// What the member erased that may cover these views, one result per key, in order. Asked before
    /// a view is written for the first time, so that late events do not bring it back.
    fn erasures(&self, keys: &[ViewKey]) -> impl Future<Output = Vec<Result<Erasure, StoreError>>> + Send;

    /// Marks what a member erased, and deletes it until `deadline`. Returns whether everything is
    /// deleted; call again to continue.
    fn erase(&self, erase: &Erase, deadline: Instant) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// The other views of the session that `key` names: of other titles, writers and releases. `None`
    /// if there are too many to read at once.
    fn session(&self, key: &ViewKey) -> impl Future<Output = Result<Option<Vec<View>>, StoreError>> + Send;

    /// Whether this region is the session's home. Elsewhere only a part is folded while the home
    /// drains: what is missing there is most likely at home, and not a hole.
    fn is_home_of(&self, _key: &ViewKey) -> bool {
        true
    }
}

impl<T: ViewTable> ViewTable for &T {
    async fn read(&self, keys: &[ViewKey]) -> Vec<Result<Option<Stored>, StoreError>> {
        (**self).read(keys).await
    }

    async fn write(&self, writes: &[Write<'_>]) -> Vec<Result<(), WriteError>> {
        (**self).write(writes).await
    }

    async fn erasures(&self, keys: &[ViewKey]) -> Vec<Result<Erasure, StoreError>> {
        (**self).erasures(keys).await
    }

    async fn erase(&self, erase: &Erase, deadline: Instant) -> Result<bool, StoreError> {
        (**self).erase(erase, deadline).await
    }

    async fn session(&self, key: &ViewKey) -> Result<Option<Vec<View>>, StoreError> {
        (**self).session(key).await
    }

    fn is_home_of(&self, key: &ViewKey) -> bool {
        (**self).is_home_of(key)
    }
}

/// What a member erased, as far as it concerns one view.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Erasure {
    /// Everything up to this time, Unix milliseconds.
    pub everything: Option<u64>,
    /// Everything of the title up to this time, Unix milliseconds.
    pub title: Option<u64>,
    /// The session, or the title in this session, whenever it was watched.
    pub whole: bool,
}

impl Erasure {
    /// Whether a view that would be stored under `key` is erased.
    pub fn covers(&self, key: &ViewKey, view: &View) -> bool {
        self.whole || is_erased(&key.session_id, view, self.everything.max(self.title))
    }

    /// The command that keeps a covered session erased, if no time does: its id is ahead of time,
    /// and this is the first that is known of it.
    pub fn of_session_ahead(&self, key: &ViewKey, view: &View) -> Option<Erase> {
        let ahead_of = |at: &u64| key.session_id.started_at() > *at && is_erased(&key.session_id, view, Some(*at));
        let everything = self.everything.filter(ahead_of).map(|at| (at, None));
        let title = || self.title.filter(ahead_of).map(|at| (at, Some(key.title_id.clone())));
        let (at, title_id) = everything.or_else(title).filter(|_| !self.whole)?;
        let (profile_id, session_id) = (key.profile_id.clone(), Some(key.session_id.clone()));
        Some(Erase { profile_id, at, title_id, session_id })
    }
}

/// Why a conditional write did not happen.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Another writer was faster. Holds the view stored now (`None`: it was deleted).
    #[error("another writer was faster")]
    Lost(Option<Box<Stored>>),
    /// The store failed.
    #[error(transparent)]
    Failed(#[from] StoreError),
}

/// A failed operation of the store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{operation} on {subject}: {fault}")]
pub struct StoreError {
    /// The operation, as the store names it.
    pub operation: &'static str,
    /// The table and the key.
    pub subject: String,
    /// The kind of failure.
    pub fault: Fault,
}

/// The kind of failure, which decides what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The store throttled the call: try later.
    #[error("throttled: {0}")]
    Throttled(String),
    /// No answer, an internal error of the store, or no permission to use it: try later.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// The store refuses this item.
    #[error("refused: {0}")]
    Refused(String),
    /// Lost the maximum number of races.
    #[error("lost {0} races in a row")]
    LostRaces(u32),
    /// The stored view cannot be read.
    #[error(transparent)]
    Unreadable(#[from] UnreadableView),
    /// The view would have more ranges than [`MAX_RANGES`]. It is never made smaller by closing
    /// gaps: in `seen` that would drop events, in `played` it would make their order matter.
    #[error("the view would have {0} ranges; at most {MAX_RANGES} are allowed")]
    TooLarge(usize),
}

impl Fault {
    /// What the failure means for a record: retry for a cause, or dead-letter for a reason.
    pub fn class(&self) -> Result<Cause, Reason> {
        match self {
            Fault::Throttled(_) => Ok(Cause::StoreThrottled),
            Fault::Unavailable(_) => Ok(Cause::StoreUnavailable),
            Fault::Refused(_) => Ok(Cause::StoreRefused),
            Fault::LostRaces(_) => Ok(Cause::LostRaces),
            Fault::Unreadable(UnreadableView::Newer(_)) => Ok(Cause::NewerView),
            Fault::Unreadable(UnreadableView::Corrupt(_)) => Err(Reason::CorruptView),
            Fault::TooLarge(_) => Err(Reason::ViewTooLarge),
        }
    }
}
