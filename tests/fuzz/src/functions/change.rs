//! A record of the table's stream, through `publish`.
//!
//! - It is published, tells consumers nothing, waits (a newer view), or is dead, with its bytes: no
//!   record stops the stream.
//! - What is published is JSON, with the profile as its key.

use super::batch::names_only;
use super::{block_on, emitter, invocation};
use crate::NOW;
use apply::DeadLetter;
use apply::testing::Letters;
use lambda::batch::{Batch, Record, Source};
use lambda::runtime::ServeBatch;
use playback::history::Rules;
use playback::view::UnreadableView;
use publish::Publish;
use serde_json::Value;
use store::dynamodb::{Change, UnreadableChange, Views};
use stream::testing::RecordingLog;

pub(super) fn run(record: &[u8]) {
    let waits = matches!(Change::read(record), Err(UnreadableChange::View(UnreadableView::Newer(_))));
    let is_change = Change::read(record).is_ok();
    let source = Source::Table { stream: "arn".to_owned(), sequence_number: "1".to_owned() };
    let value = Ok(bytes::Bytes::copy_from_slice(record));
    let batch = Batch { records: vec![Record { source, key: None, value, delivery: None }] };
    let publish = Publish {
        source: "/playhead/fuzz/us-east-1".to_owned(),
        feed: RecordingLog::new(),
        failed: Letters::<DeadLetter>::default(),
        parts: None::<Views>,
        rules: Rules::default(),
    };
    let Ok(served) = block_on(publish.serve(&emitter().start(NOW), batch.clone(), invocation()));
    names_only(&served, &batch);
    let failed = serde_json::to_value(&served).unwrap()["batchItemFailures"].as_array().unwrap().len();
    let (published, dead) = (publish.feed.appended(), publish.failed.take());
    assert_eq!(failed, usize::from(waits));
    assert_eq!(dead.len(), usize::from(!is_change && !waits));
    assert!(published.len() <= usize::from(is_change));
    for record in published {
        let event: Value = serde_json::from_slice(&record.value).unwrap();
        assert_eq!(event["partitionkey"], Value::String(record.key));
        assert_eq!(event["data"]["profile_id"], event["partitionkey"]);
    }
}
