//! A message of the queue `retry`: the body on the first line, and on the others the object of the
//! failure bucket that it may name.
//!
//! - It ends: its records are applied, on a queue, or dead with their bytes, or the message waits.
//! - A second delivery changes no view.
//! - The bytes of what cannot be read are kept unchanged.

use super::batch::names_only;
use super::{block_on, emitter, invocation};
use crate::NOW;
use apply::testing::Letters;
use apply::{DeadLetter, Letter};
use bytes::Bytes;
use lambda::batch::{Batch, Delivery, Record, Source};
use lambda::runtime::ServeBatch;
use retry::testing::RecordedPauses;
use retry::{Object, ObjectBody, Objects, Retry};
use std::convert::Infallible;
use store::testing::MemoryTable;

/// A bucket in which every key is the same object.
struct OneObject(Bytes);

impl Objects for OneObject {
    type Error = Infallible;

    async fn get(&self, _: &Object) -> Result<ObjectBody, Infallible> {
        Ok(if self.0.is_empty() { ObjectBody::Missing } else { ObjectBody::Bytes(self.0.clone()) })
    }

    async fn delete(&self, _: &Object) -> Result<(), Infallible> {
        Ok(())
    }
}

pub(super) fn run(bytes: &[u8]) {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (body, object) = (&bytes[..end], bytes.get(end + 1..).unwrap_or_default());
    let source = Source::Sqs { queue: "arn".to_owned(), message_id: "m".to_owned() };
    let delivery = Delivery { receipt_handle: "r".to_owned(), receives: 1, sent_at: Some(NOW) };
    let record = Record { source, key: None, value: Ok(Bytes::copy_from_slice(body)), delivery: Some(delivery) };
    let batch = Batch { records: vec![record] };
    let retry = Retry {
        table: MemoryTable::new(7),
        shadow: None,
        retry: Letters::<Letter>::default(),
        dead_letters: Letters::<DeadLetter>::default(),
        objects: OneObject(Bytes::copy_from_slice(object)),
        pauses: RecordedPauses::default(),
        max_attempts: 16,
        jitter: || 0.5,
    };
    let serve = || {
        let served = block_on(retry.serve(&emitter().start(NOW), batch.clone(), invocation())).unwrap();
        names_only(&served, &batch);
    };
    serve();
    let views = retry.table.views();
    for letter in retry.retry.take() {
        assert_eq!(serde_json::from_slice::<Letter>(&serde_json::to_vec(&letter).unwrap()).unwrap(), letter);
    }
    for dead in retry.dead_letters.take() {
        assert_eq!(serde_json::from_slice::<DeadLetter>(&serde_json::to_vec(&dead).unwrap()).unwrap(), dead);
    }
    serve();
    assert_eq!(retry.table.views(), views);
}
