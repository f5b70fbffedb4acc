//! The failure bucket. It notifies the queue `retry` of each object.

use crate::next::readable;
use crate::sqs::Queue;
use crate::weather::{Call, Faults, What};
use bytes::Bytes;
use retry::{Object, ObjectBody, Objects};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// When a call is given up (`retry::bucket`).
const PATIENCE_MS: u64 = 8_000;

#[derive(Clone)]
pub(crate) struct Bucket {
    objects: Arc<Mutex<BTreeMap<String, Bytes>>>,
    faults: Faults,
    notified: Queue,
}

impl Bucket {
    pub(crate) fn new(faults: &Faults, notified: &Queue) -> Self {
        Self { objects: Arc::default(), faults: faults.clone(), notified: notified.clone() }
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Puts an object, as Lambda does. S3's notification never fails.
    pub(crate) async fn put(&self, text: String) -> bool {
        let call = self.faults.call(What::Bucket, PATIENCE_MS).await;
        if call == Call::Answered || call == Call::Unanswered {
            let key = format!("object-{}", self.faults.dice.between(0, u64::MAX));
            self.lock().insert(key.clone(), text.into());
            let entry = json!({"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "failures"}, "object": {"key": key}}});
            self.notified.accept(json!({ "Records": [entry] }).to_string());
        }
        call == Call::Answered
    }

    /// What `retry` makes of an object, in the version that it runs.
    fn as_read(&self, object: Bytes) -> Bytes {
        if self.faults.runs_next(What::NextRetry) {
            return readable(&String::from_utf8_lossy(&object)).into();
        }
        object
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Bytes>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Objects for Bucket {
    type Error = &'static str;

    async fn get(&self, object: &Object) -> Result<ObjectBody, Self::Error> {
        match self.faults.call(What::Bucket, PATIENCE_MS).await {
            Call::Answered => {
                let object = self.lock().get(&object.key).cloned();
                Ok(object.map_or(ObjectBody::Missing, |object| ObjectBody::Bytes(self.as_read(object))))
            }
            _ => Err("the bucket is away"),
        }
    }

    async fn delete(&self, object: &Object) -> Result<(), Self::Error> {
        let call = self.faults.call(What::Bucket, PATIENCE_MS).await;
        if call == Call::Answered || call == Call::Unanswered {
            self.lock().remove(&object.key);
        }
        if call == Call::Answered { Ok(()) } else { Err("the bucket is away") }
    }
}
