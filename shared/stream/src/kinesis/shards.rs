//! The shards of a stream, so that each lane has shards of its own.
//!
//! `forward` resumes a shard at its first failed record, so a shard that two regions share would
//! hold one up while the other is away. Shards split and merge where they like, and a lane that was
//! simply a share of the hashes would end inside a shard.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::error::DisplayErrorContext;
use aws_sdk_kinesis::types::Shard;
use md5::Digest as _;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::log::{Lane, LogRecord};

/// How long a list of shards is good, and how soon one that could not be read is read again.
const MAX_AGE: Duration = Duration::from_secs(60);
const READ_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// How long an append waits for the list.
const READ_FOR: Duration = Duration::from_millis(400);
/// Shards in one answer of `ListShards`, at most (API reference of `ListShards`).
const MAX_LISTED: i32 = 10_000;

/// The hashes of a shard, from the first to the last.
type Range = (u128, u128);

/// The ranges of the open shards, in order. Empty if they are unknown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Shards(Vec<Range>);

impl Shards {
    fn of(shards: &[Shard]) -> Self {
        let is_open = |shard: &&Shard| {
            shard.sequence_number_range().is_none_or(|numbers| numbers.ending_sequence_number().is_none())
        };
        let range = |shard: &Shard| {
            let range = shard.hash_key_range()?;
            Some((range.starting_hash_key().parse().ok()?, range.ending_hash_key().parse().ok()?))
        };
        let mut ranges: Vec<Range> = shards.iter().filter(is_open).filter_map(range).collect();
        ranges.sort_unstable();
        Self(ranges)
    }

    /// The explicit hash key of a record in a lane; `None` leaves the hash, MD5 of the key, to
    /// Kinesis. A lane is a share of the hashes, and a shard is of the lane that holds its middle. So
    /// the shards of a split or a merge stay in the lane, except at its ends. If a lane has no shard,
    /// or the shards are unknown, it is the share itself.
    pub(super) fn hash_key(&self, record: &LogRecord) -> Option<u128> {
        let Lane { index, of } = record.lane;
        if of < 2 {
            return None;
        }
        let (index, of) = (u128::from(index), u128::from(of));
        let hash = u128::from_be_bytes(md5::Md5::digest(record.key.as_bytes()).into());
        let share = u128::MAX / of;
        let is_of_lane = |(first, last): &&Range| (first + (last - first) / 2) / share == index;
        let of_lane: Vec<&Range> = self.0.iter().filter(is_of_lane).collect();
        if of_lane.is_empty() {
            return Some(share * index + hash / of);
        }
        // Which shard, and where in it, must not depend on each other.
        let (high, low) = (hash >> 64, hash & u128::from(u64::MAX));
        let nth = usize::try_from(high % of_lane.len() as u128).unwrap_or_default();
        let (first, last) = of_lane[nth];
        Some(first + (last - first) / u128::from(u64::MAX) * low)
    }
}

/// The shards as last read; one per stream.
#[derive(Debug, Default)]
pub(super) struct ShardCache {
    cached: RwLock<Cached>,
    /// Held by the caller that reads.
    reading: Mutex<()>,
}

#[derive(Debug, Default)]
struct Cached {
    shards: Arc<Shards>,
    read_at: Option<Instant>,
}

impl ShardCache {
    /// The shards of `stream`. An append waits for them only if none are known yet; else they are
    /// read again beside it.
    pub(super) async fn get(self: &Arc<Self>, client: &Client, stream: &str) -> Arc<Shards> {
        if let Some(known) = self.known() {
            if self.is_due(MAX_AGE) {
                let (cache, client, stream) = (Arc::clone(self), client.clone(), stream.to_owned());
                tokio::spawn(async move { cache.read(&client, &stream, MAX_AGE).await });
            }
            return known;
        }
        self.read(client, stream, READ_AGAIN_AFTER).await;
        self.known().unwrap_or_default()
    }

    fn known(&self) -> Option<Arc<Shards>> {
        let cached = self.cached.read().unwrap_or_else(PoisonError::into_inner);
        (*cached.shards != Shards::default()).then(|| Arc::clone(&cached.shards))
    }

    fn is_due(&self, max_age: Duration) -> bool {
        let cached = self.cached.read().unwrap_or_else(PoisonError::into_inner);
        cached.read_at.is_none_or(|at| at.elapsed() >= max_age)
    }

    async fn read(&self, client: &Client, stream: &str, max_age: Duration) {
        let _reading = self.reading.lock().await;
        if !self.is_due(max_age) {
            return; // another caller has just read them
        }
        let listed = timeout(READ_FOR, list(client, stream)).await;
        let mut cached = self.cached.write().unwrap_or_else(PoisonError::into_inner);
        cached.read_at = Some(Instant::now());
        match listed {
            Ok(Ok(shards)) => cached.shards = Arc::new(shards),
            Ok(Err(error)) => tracing::warn!(stream, error, "the shards of a stream are unknown"),
            Err(_) => tracing::warn!(stream, "the shards of a stream could not be read in time"),
        }
    }
}

async fn list(client: &Client, stream: &str) -> Result<Shards, String> {
    let mut shards = Vec::new();
    let mut call = client.list_shards().stream_name(stream).max_results(MAX_LISTED);
    loop {
        let answer = call.send().await.map_err(|error| DisplayErrorContext(error).to_string())?;
        shards.extend(answer.shards.unwrap_or_default());
        match answer.next_token {
            // It names the stream.
            Some(token) => call = client.list_shards().next_token(token),
            None => return Ok(Shards::of(&shards)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_kinesis::types::{HashKeyRange, SequenceNumberRange};
    use proptest::prelude::*;

    fn laned(key: &str, index: u16, of: u16) -> LogRecord {
        LogRecord { lane: Lane::new(index, of), ..LogRecord::new(key, "v") }
    }

    /// Shards that begin at 0 and at these hashes.
    fn shards(begins: &[u128]) -> Shards {
        let firsts = std::iter::once(0).chain(begins.iter().copied());
        let lasts = begins.iter().map(|begin| begin - 1).chain([u128::MAX]);
        Shards(firsts.zip(lasts).collect())
    }

    fn begins() -> impl Strategy<Value = Vec<u128>> {
        prop::collection::btree_set(1..u128::MAX, 0..9).prop_map(|begins| begins.into_iter().collect())
    }

    proptest! {
        #[test]
        fn lanes_share_no_shard(begins in begins(), keys in prop::collection::vec("[a-z0-9]{1,30}", 1..20), of in 2..6u16) {
            let shards = shards(&begins);
            let share = u128::MAX / u128::from(of);
            let lane = |(first, last): &Range| (first + (last - first) / 2) / share;
            for (key, index) in keys.iter().zip((0..of).cycle()) {
                let index_of = u128::from(index);
                let hash = shards.hash_key(&laned(key, index, of)).unwrap();
                let shard = shards.0.iter().find(|(first, last)| (first..=last).contains(&&hash)).unwrap();
                // A lane without a shard has to use another's.
                if shards.0.iter().any(|shard| lane(shard) == index_of) {
                    prop_assert_eq!(lane(shard), index_of);
                }
            }
        }

        /// A backlog of a lane, on shards that have split or merged since, must not stop another.
        #[test]
        fn splitting_a_shard_moves_none_of_another_lane(
            count in 4u128..40, split in any::<prop::sample::Index>(), keys in prop::collection::vec("[a-z0-9]{1,30}", 1..20),
        ) {
            const LANES: u16 = 2;
            let even: Vec<u128> = (1..count).map(|at| u128::MAX / count * at).collect();
            let before = shards(&even);
            let (first, last) = before.0[split.index(before.0.len())];
            let middle = first + (last - first) / 2;
            let mut begins = even;
            begins.push(middle);
            begins.sort_unstable();
            let after = shards(&begins);
            let share = u128::MAX / u128::from(LANES);
            // But for a shard that two lanes divide between them.
            prop_assume!(first / share == last.min(share * 2 - 1) / share);
            for (key, index) in keys.iter().zip((0..LANES).cycle()) {
                let hash = after.hash_key(&laned(key, index, LANES)).unwrap();
                let old = before.0.iter().find(|(first, last)| (first..=last).contains(&&hash)).unwrap();
                prop_assert_eq!((old.0 + (old.1 - old.0) / 2) / share, u128::from(index));
            }
        }

        #[test]
        fn each_lane_has_its_share_of_the_hashes(keys in prop::collection::vec("[a-z0-9]{1,30}", 1..20), of in 2..6u16) {
            let unknown = Shards::default();
            for (key, index) in keys.iter().zip((0..of).cycle()) {
                let hash = unknown.hash_key(&laned(key, index, of)).unwrap();
                prop_assert_eq!(hash / (u128::MAX / u128::from(of)), u128::from(index));
            }
            prop_assert_eq!(unknown.hash_key(&LogRecord::new("k", "v")), None);
        }
    }

    #[test]
    fn keys_spread_over_all_shards_of_their_lane() {
        let shards = shards(&[1 << 100, 1 << 120, 1 << 127]);
        let mut counts = [0; 4];
        for key in 0..3_000 {
            let hash = shards.hash_key(&laned(&key.to_string(), 0, 2)).unwrap();
            counts[shards.0.iter().position(|(_, last)| hash <= *last).unwrap()] += 1;
        }
        assert!(counts[..3].iter().all(|count| *count > 900), "{counts:?}");
    }

    #[test]
    fn closed_shards_take_no_records() {
        let shard = |first: &str, last: &str, end: Option<&str>| {
            let hashes = HashKeyRange::builder().starting_hash_key(first).ending_hash_key(last).build().unwrap();
            let numbers = SequenceNumberRange::builder().starting_sequence_number("1");
            let numbers = numbers.set_ending_sequence_number(end.map(str::to_owned)).build().unwrap();
            Shard::builder().shard_id("s").hash_key_range(hashes).sequence_number_range(numbers).build().unwrap()
        };
        let listed = [shard("0", "99", Some("7")), shard("50", "99", None), shard("0", "49", None)];
        assert_eq!(Shards::of(&listed), Shards(vec![(0, 49), (50, 99)]));
    }
}
