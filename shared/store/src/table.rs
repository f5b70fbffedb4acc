//! The port: what settling needs of a store.

use playback::fold::ViewKey;
use playback::outcome::{Cause, Reason};
use playback::view::{UnreadableView, View};
use std::future::Future;

/// A view as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The state.
    pub view: View,
    /// Counts the writes of the item; a write is conditional on it.
    pub version: u64,
}

/// A store of views.
pub trait ViewTable: Send + Sync {
    /// Reads views, one result a key, in order; `None` where there is none. It may be a little behind the last write:
    /// that only loses a race.
    fn read(&self, keys: &[ViewKey]) -> impl Future<Output = Vec<Result<Option<Stored>, StoreError>>> + Send;

    /// Writes a view if the stored version is still `expected` (`None`: if there is none).
    fn write(
        &self,
        key: &ViewKey,
        view: &View,
        expected: Option<u64>,
    ) -> impl Future<Output = Result<(), WriteError>> + Send;

    /// Whether this is where all of the session is folded unless its home is drained: what is missing in a part that another
    /// region folds is most likely in the home's, and no hole.
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
    /// Another writer was faster; this is what is there now (`None`: it was deleted).
    #[error("another writer was faster")]
    Lost(Option<Box<Stored>>),
    /// The store failed.
    #[error(transparent)]
    Failed(#[from] StoreError),
}

/// A failure of the store, with what was asked of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{operation} on {subject}: {fault}")]
pub struct StoreError {
    /// The operation, as the store names it.
    pub operation: &'static str,
    /// The table and the key.
    pub subject: String,
    /// What kind of failure.
    pub fault: Fault,
}

/// What kind of failure, and so what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The store asks for less: try later.
    #[error("throttled: {0}")]
    Throttled(String),
    /// No answer, or an error of the store's or of our right to use it: try later.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// Lost as many races as we are ready to run.
    #[error("lost {0} races in a row")]
    LostRaces(u32),
    /// What is stored cannot be read.
    #[error(transparent)]
    Unreadable(#[from] UnreadableView),
}

impl Fault {
    /// What the failure means for a record: worth another try for a cause, or dead for a reason.
    pub fn verdict(&self) -> Result<Cause, Reason> {
        match self {
            Fault::Throttled(_) => Ok(Cause::StoreThrottled),
            Fault::Unavailable(_) => Ok(Cause::StoreUnavailable),
            Fault::LostRaces(_) => Ok(Cause::LostRaces),
            Fault::Unreadable(UnreadableView::Newer(_)) => Ok(Cause::NewerView),
            Fault::Unreadable(UnreadableView::Corrupt(_)) => Err(Reason::CorruptView),
        }
    }
}
