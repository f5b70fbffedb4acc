//! Reads the change feed from its beginning, and leaves out repeats.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use aws_config::SdkConfig;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::types::ShardIteratorType;
use serde::Deserialize;

/// How long to wait when a shard has nothing new.
const PAUSE: Duration = Duration::from_millis(200);

/// A change (`docs/view-change.schema.json`), as far as these consumers need it.
#[derive(Debug, Clone, Deserialize)]
pub struct Change {
    /// The same each time that the change is delivered.
    pub id: String,
    /// The feed that it is from.
    pub source: String,
    /// What happened.
    #[serde(rename = "type")]
    pub kind: String,
    /// The profile, whose changes are in order.
    pub partitionkey: String,
    /// Grows with each change of a profile.
    pub sequence: String,
    /// What changed.
    pub data: Data,
}

/// What changed.
#[derive(Debug, Clone, Deserialize)]
pub struct Data {
    /// The profile.
    pub profile_id: String,
    /// The session, if it is about one view.
    pub session_id: Option<String>,
    /// The title, if it is about one.
    pub title_id: Option<String>,
    /// The view before.
    pub old: Option<View>,
    /// The view now.
    pub new: Option<View>,
}

/// What a session played of a title.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct View {
    /// Title time that was played, milliseconds.
    pub played_ms: u64,
    /// Whether the title was finished.
    pub completed: bool,
}

/// A reader of the feed. A real consumer keeps where it is in each shard; this one begins anew.
#[derive(Debug)]
pub struct Feed {
    client: Client,
    /// The iterators of the shards that are not closed.
    shards: Vec<String>,
    repeats: Repeats,
}

/// Tells repeats: a change comes at least once, and what is not greater than the last one of its
/// profile was there.
#[derive(Debug, Default)]
pub struct Repeats {
    /// The greatest sequence by source and profile.
    last: HashMap<(String, String), String>,
}

impl Feed {
    /// Opens a stream at its beginning.
    ///
    /// # Errors
    /// If it cannot be read.
    pub async fn open(sdk: &SdkConfig, stream: &str) -> Result<Self> {
        let client = Client::new(sdk);
        let listed = client.list_shards().stream_name(stream).send().await;
        let listed = listed.with_context(|| format!("listing the shards of {stream}"))?;
        let mut shards = Vec::new();
        for shard in listed.shards() {
            let from = client.get_shard_iterator().stream_name(stream).shard_id(&shard.shard_id);
            let got = from.shard_iterator_type(ShardIteratorType::TrimHorizon).send().await;
            shards.extend(got.with_context(|| format!("opening a shard of {stream}"))?.shard_iterator);
        }
        Ok(Self { client, shards, repeats: Repeats::default() })
    }

    /// The next changes of all shards, without repeats. Empty at the end, after a pause.
    ///
    /// # Errors
    /// If the stream cannot be read, or a record is not a change.
    pub async fn next(&mut self) -> Result<Vec<Change>> {
        let (mut changes, mut open, mut is_behind) = (Vec::new(), Vec::new(), false);
        for iterator in std::mem::take(&mut self.shards) {
            let read = self.client.get_records().shard_iterator(iterator).send().await.context("reading the feed")?;
            is_behind |= read.millis_behind_latest.unwrap_or_default() > 0 || !read.records.is_empty();
            for record in &read.records {
                let change: Change = serde_json::from_slice(record.data.as_ref()).context("a record of the feed")?;
                changes.extend(self.repeats.is_new(&change).then_some(change));
            }
            open.extend(read.next_shard_iterator);
        }
        self.shards = open;
        if !is_behind {
            tokio::time::sleep(PAUSE).await;
        }
        Ok(changes)
    }

    /// Reads until there is nothing new.
    ///
    /// # Errors
    /// As [`Feed::next`].
    pub async fn read_to_end(&mut self) -> Result<Vec<Change>> {
        let mut all = Vec::new();
        loop {
            match self.next().await? {
                next if next.is_empty() => return Ok(all),
                next => all.extend(next),
            }
        }
    }
}

impl Repeats {
    /// Whether the change was not there before.
    pub fn is_new(&mut self, change: &Change) -> bool {
        let last = self.last.entry((change.source.clone(), change.partitionkey.clone())).or_default();
        let is_new = change.sequence > *last;
        if is_new {
            last.clone_from(&change.sequence);
        }
        is_new
    }
}
