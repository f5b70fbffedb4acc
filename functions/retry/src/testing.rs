//! A bucket and pauses in memory, for tests of `retry`. No function may be wired to them.

use crate::{MAX_OBJECT_BYTES, Object, ObjectBody, Objects, Pause, Pauses};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Decides whether a call fails; asked once per call.
pub type Fail = Box<dyn FnMut(&Object) -> bool + Send>;

/// A bucket in memory that fails where it is told to.
pub struct MemoryBucket {
    objects: Mutex<BTreeMap<Object, Bytes>>,
    fail: Mutex<Fail>,
}

impl Default for MemoryBucket {
    fn default() -> Self {
        Self::failing(|_| false)
    }
}

impl MemoryBucket {
    /// An empty bucket. Calls fail for the objects that `fail` accepts.
    pub fn failing(fail: impl FnMut(&Object) -> bool + Send + 'static) -> Self {
        Self { objects: Mutex::default(), fail: Mutex::new(Box::new(fail)) }
    }

    /// Puts an object.
    pub fn put(&self, object: Object, bytes: impl Into<Bytes>) {
        self.lock().insert(object, bytes.into());
    }

    /// All objects.
    pub fn objects(&self) -> BTreeMap<Object, Bytes> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Object, Bytes>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn called(&self, object: &Object) -> Result<(), &'static str> {
        tokio::task::yield_now().await;
        let fails = (self.fail.lock().unwrap_or_else(PoisonError::into_inner))(object);
        if fails { Err("the test says so") } else { Ok(()) }
    }
}

impl Objects for MemoryBucket {
    type Error = &'static str;

    async fn get(&self, object: &Object) -> Result<ObjectBody, Self::Error> {
        self.called(object).await?;
        Ok(match self.lock().get(object) {
            None => ObjectBody::Missing,
            Some(bytes) if bytes.len() > MAX_OBJECT_BYTES => ObjectBody::TooLarge,
            Some(bytes) => ObjectBody::Bytes(bytes.clone()),
        })
    }

    async fn delete(&self, object: &Object) -> Result<(), Self::Error> {
        self.called(object).await?;
        self.lock().remove(object);
        tokio::task::yield_now().await;
        Ok(())
    }
}

/// Records pauses.
#[derive(Debug, Default)]
pub struct RecordedPauses(Mutex<Vec<Pause>>);

impl RecordedPauses {
    /// Removes and returns the pauses so far, in order.
    pub fn take(&self) -> Vec<Pause> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Pauses for RecordedPauses {
    async fn pause(&self, pauses: Vec<Pause>) {
        tokio::task::yield_now().await;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(pauses);
    }
}
