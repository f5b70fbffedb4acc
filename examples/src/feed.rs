//! Reads the change feed from its beginning, and leaves out repeats.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use anyhow::{Context as _, Result};
use aws_config::SdkConfig;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::types::{ChildShard, Shard, ShardIteratorType};
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
    stream: String,
    /// The iterators of the shards that are being read, by their ids.
    shards: BTreeMap<String, String>,
    /// Whether there may be more to read at once.
    is_behind: bool,
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
        let mut shards = Vec::new();
        let mut page = Some(client.list_shards().stream_name(stream));
        while let Some(list) = page {
            let listed = list.send().await.with_context(|| format!("listing the shards of {stream}"))?;
            shards.extend(listed.shards.unwrap_or_default());
            // The token stands for the stream's name, too.
            page = listed.next_token.map(|token| client.list_shards().next_token(token));
        }
        let repeats = Repeats::default();
        let mut feed = Self { client, stream: stream.to_owned(), shards: BTreeMap::new(), is_behind: true, repeats };
        for id in oldest(&shards) {
            feed.begin(id).await?;
        }
        Ok(feed)
    }

    async fn begin(&mut self, shard_id: String) -> Result<()> {
        let from = self.client.get_shard_iterator().stream_name(&self.stream).shard_id(&shard_id);
        let got = from.shard_iterator_type(ShardIteratorType::TrimHorizon).send().await;
        let got = got.with_context(|| format!("opening a shard of {}", self.stream))?;
        self.shards.extend(got.shard_iterator.map(|iterator| (shard_id, iterator)));
        Ok(())
    }

    /// The next changes of all shards, without repeats. After a pause, if there was nothing new.
    ///
    /// # Errors
    /// If the stream cannot be read, or a record is not a change.
    pub async fn next(&mut self) -> Result<Vec<Change>> {
        let (mut changes, mut children) = (Vec::new(), Vec::new());
        self.is_behind = false;
        for (id, iterator) in std::mem::take(&mut self.shards) {
            let read = self.client.get_records().shard_iterator(iterator).send().await.context("reading the feed")?;
            self.is_behind |= read.millis_behind_latest.unwrap_or_default() > 0 || !read.records.is_empty();
            for record in &read.records {
                let change: Change = serde_json::from_slice(record.data.as_ref()).context("a record of the feed")?;
                changes.extend(self.repeats.is_new(&change).then_some(change));
            }
            match read.next_shard_iterator {
                Some(next) => drop(self.shards.insert(id, next)),
                None => children.extend(read.child_shards.unwrap_or_default()),
            }
        }
        for child in children.into_iter().filter(|child| is_next(child, &self.shards)).collect::<Vec<_>>() {
            self.is_behind = true;
            self.begin(child.shard_id).await?;
        }
        if !self.is_behind {
            tokio::time::sleep(PAUSE).await;
        }
        Ok(changes)
    }

    /// Reads until there is nothing new.
    ///
    /// # Errors
    /// As [`Feed::next`].
    pub async fn read_to_end(&mut self) -> Result<Vec<Change>> {
        let mut all = self.next().await?;
        while self.is_behind {
            all.extend(self.next().await?);
        }
        Ok(all)
    }
}

/// The shards to begin with. Those that others were split or merged into come after their parents:
/// a profile's changes are in order only then.
fn oldest(shards: &[Shard]) -> Vec<String> {
    let listed: HashSet<&str> = shards.iter().map(Shard::shard_id).collect();
    let parents = |shard: &Shard| [shard.parent_shard_id.clone(), shard.adjacent_parent_shard_id.clone()];
    let is_oldest = |shard: &&Shard| !parents(shard).iter().flatten().any(|parent| listed.contains(parent.as_str()));
    shards.iter().filter(is_oldest).map(|shard| shard.shard_id.clone()).collect()
}

/// Whether a shard follows now: all its parents have been read, and it has not begun.
fn is_next(child: &ChildShard, reading: &BTreeMap<String, String>) -> bool {
    !reading.contains_key(&child.shard_id) && !child.parent_shards.iter().any(|parent| reading.contains_key(parent))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(id: &str, parents: [Option<&str>; 2]) -> Shard {
        let [parent, adjacent] = parents.map(|parent| parent.map(str::to_owned));
        let shard = Shard::builder().shard_id(id).set_parent_shard_id(parent).set_adjacent_parent_shard_id(adjacent);
        shard.build().unwrap()
    }

    #[test]
    fn shards_that_were_split_or_merged_come_before_what_became_of_them() {
        let (split, a, b) = (Some("split"), Some("a"), Some("b"));
        let shards = [
            shard("a", [split, None]),
            shard("b", [split, None]),
            shard("merged", [a, b]),
            shard("split", [Some("expired"), None]),
            shard("other", [None, None]),
        ];
        assert_eq!(oldest(&shards), ["split", "other"]);
    }

    #[test]
    fn a_shard_that_was_merged_waits_for_both_parents() {
        let child = ChildShard::builder().shard_id("merged").parent_shards("a").parent_shards("b").build().unwrap();
        let reading = |ids: &[&str]| ids.iter().map(|id| ((*id).to_owned(), String::new())).collect();
        assert!(!is_next(&child, &reading(&["b", "other"])));
        assert!(is_next(&child, &reading(&["other"])));
        assert!(!is_next(&child, &reading(&["merged"])));
    }
}
