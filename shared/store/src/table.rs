//! The port: what settling needs of a store.

use playback::fold::ViewKey;
use playback::outcome::{Cause, Reason};
use playback::view::{UnreadableView, View};
use std::future::Future;

/// A stored view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The state.
    pub view: View,
    /// Counts the writes of the item. Each write is conditional on it.
    pub version: u64,
}

/// A store of views.
pub trait ViewTable: Send + Sync {
    /// Reads views, one result per key, in order; `None` if there is no view. The result may lag
    /// behind the last write: that only loses a race.
    fn read(&self, keys: &[ViewKey]) -> impl Future<Output = Vec<Result<Option<Stored>, StoreError>>> + Send;

    /// Writes a view if the stored version is still `expected` (`None`: if there is no view).
    fn write(
        &self,
        key: &ViewKey,
        view: &View,
        expected: Option<u64>,
    ) -> impl Future<Output = Result<(), WriteError>> + Send;

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

    async fn write(&self, key: &ViewKey, view: &View, expected: Option<u64>) -> Result<(), WriteError> {
        (**self).write(key, view, expected).await
    }

    fn is_home_of(&self, key: &ViewKey) -> bool {
        (**self).is_home_of(key)
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
    /// Lost the maximum number of races.
    #[error("lost {0} races in a row")]
    LostRaces(u32),
    /// The stored view cannot be read.
    #[error(transparent)]
    Unreadable(#[from] UnreadableView),
}

impl Fault {
    /// What the failure means for a record: retry for a cause, or dead-letter for a reason.
    pub fn class(&self) -> Result<Cause, Reason> {
        match self {
            Fault::Throttled(_) => Ok(Cause::StoreThrottled),
            Fault::Unavailable(_) => Ok(Cause::StoreUnavailable),
            Fault::LostRaces(_) => Ok(Cause::LostRaces),
            Fault::Unreadable(UnreadableView::Newer(_)) => Ok(Cause::NewerView),
            Fault::Unreadable(UnreadableView::Corrupt(_)) => Err(Reason::CorruptView),
        }
    }
}
