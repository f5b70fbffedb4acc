//! The shards of a stream, so that each lane has shards of its own.
//!
//! `forward` resumes a shard at its first failed record, so a shard that two regions share would
//! hold one up while the other is away. Shards split and merge where they like, and a lane that was
//! simply a share of the hashes would end inside a shard.

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
    /// Kinesis. As with Kafka's partitions, shard `n` is of lane `n` modulo the number of lanes. If
    /// there are fewer shards than lanes, the lanes share all of them.
    pub(super) fn hash_key(&self, record: &LogRecord) -> Option<u128> {
        let Lane { index, of } = record.lane;
        if of < 2 {
            return None;
        }
        let hash = u128::from_be_bytes(md5::Md5::digest(record.key.as_bytes()).into());
        let (index, lanes) = (usize::from(index), usize::from(of));
        if self.0.is_empty() {
            // A share of the hashes: right but for the shards at its ends.
            return Some(u128::MAX / u128::from(of) * u128::from(record.lane.index) + hash / u128::from(of));
        }
        if self.0.len() < lanes {
            return None;
        }
        let of_lane = (self.0.len() - index).div_ceil(lanes);
        // Which shard, and where in it, must not depend on each other.
        let (high, low) = (hash >> 64, hash & u128::from(u64::MAX));
        let nth = usize::try_from(high % of_lane as u128).unwrap_or_default();
        let (first, last) = self.0[index + nth * lanes];
        Some(first + (last - first) / u128::from(u64::MAX) * low)
    }
}

/// The shards as last read; one per stream.
#[derive(Debug, Default)]
pub(super) struct ShardCache(Mutex<Cached>);

#[derive(Debug, Default)]
struct Cached {
    shards: Shards,
    read_at: Option<Instant>,
}

impl ShardCache {
    /// The shards of `stream`. If they cannot be read, those that were known.
    pub(super) async fn get(&self, client: &Client, stream: &str) -> Shards {
        let mut cached = self.0.lock().await;
        let max_age = if cached.shards == Shards::default() { READ_AGAIN_AFTER } else { MAX_AGE };
        if cached.read_at.is_none_or(|at| at.elapsed() >= max_age) {
            match timeout(READ_FOR, list(client, stream)).await {
                Ok(Ok(shards)) => cached.shards = shards,
                Ok(Err(error)) => tracing::warn!(stream, error, "the shards of a stream are unknown"),
                Err(_) => tracing::warn!(stream, "the shards of a stream could not be read in time"),
            }
            cached.read_at = Some(Instant::now());
        }
        cached.shards.clone()
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
            for (key, index) in keys.iter().zip((0..of).cycle()) {
                let hash = shards.hash_key(&laned(key, index, of));
                prop_assert_eq!(hash.is_none(), shards.0.len() < usize::from(of));
                let Some(hash) = hash else { continue };
                let at = shards.0.iter().position(|(first, last)| (first..=last).contains(&&hash)).unwrap();
                prop_assert_eq!(at % usize::from(of), usize::from(index));
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
        let shards = shards(&[1 << 100, 1 << 120, 1 << 127, (1 << 127) + 5]);
        let mut counts = [0; 5];
        for key in 0..3_000 {
            let hash = shards.hash_key(&laned(&key.to_string(), 0, 2)).unwrap();
            counts[shards.0.iter().position(|(_, last)| hash <= *last).unwrap()] += 1;
        }
        assert!(counts[0] > 900 && counts[2] > 900 && counts[4] > 900, "{counts:?}");
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
