//! Chooses the partition of a record: the one that a Java producer would choose for its key or, if
//! that one is sick, a healthy one.
//!
//! Pure: its input is what a broker said about the partitions, what was acknowledged and what was
//! not.
//!
//! There are two signs of sickness. Metadata names leaders and in-sync replicas, but only once the
//! cluster has noticed. A broker that hangs stays in sync until its session ends
//! (`broker.session.timeout.ms`, 9 s). Until then, every partition that it replicates is silent, no
//! matter which broker leads, because `acks=all` waits for it. So we also learn from what we send.
//! An acknowledgement vouches for the leader and every in-sync replica. Silence makes those suspect
//! that have not been heard from since.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use rdkafka::metadata::MetadataTopic;

use crate::log::Lane;

/// How long a component stays suspect: a little longer than a broker's session by default, when the
/// cluster has usually moved the leaders.
pub(super) const SUSPECT_FOR: Duration = Duration::from_secs(10);

/// A partition, as a broker described it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Partition {
    id: i32,
    leader: Option<i32>,
    in_sync: Vec<i32>,
    replicas: usize,
}

impl Partition {
    /// Whether it accepts records: it has a leader and enough in-sync replicas. An empty list of
    /// in-sync replicas, although there is a leader, means that they are unknown.
    fn writable(&self, min_insync_replicas: usize) -> bool {
        let enough = self.in_sync.len() >= min_insync_replicas.min(self.replicas);
        self.leader.is_some() && (enough || self.in_sync.is_empty())
    }

    /// The components that must work for a record to be acknowledged here.
    fn components(&self) -> impl Iterator<Item = Component> {
        let replicas = self.in_sync.iter().copied().map(Component::Replica);
        [Component::Partition(self.id)].into_iter().chain(self.leader.map(Component::Leader)).chain(replicas)
    }
}

/// What can be sick. A broker's two roles are separate: a leader we cannot reach may still follow
/// others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Component {
    Partition(i32),
    Leader(i32),
    Replica(i32),
}

/// What acknowledgements and silence have shown.
#[derive(Debug, Default)]
pub(super) struct Health {
    heard: HashMap<Component, Instant>,
    suspect_since: HashMap<Component, Instant>,
}

impl Health {
    /// A record was acknowledged, so all components of its partition work.
    pub(super) fn acknowledged(&mut self, partition: &Partition, now: Instant) {
        for component in partition.components() {
            self.heard.insert(component, now);
            self.suspect_since.remove(&component);
        }
    }

    /// A record sent at `sent` failed or is not acknowledged yet. Every component not heard from
    /// since becomes suspect.
    pub(super) fn failed(&mut self, partition: &Partition, sent: Instant, now: Instant) {
        for component in partition.components() {
            if self.heard.get(&component).is_none_or(|heard| *heard < sent) {
                self.suspect_since.insert(component, now);
            }
        }
    }

    fn suspects(&self, partition: &Partition, now: Instant) -> usize {
        if self.suspect_since.is_empty() {
            return 0;
        }
        let suspect = |component: &Component| {
            self.suspect_since.get(component).is_some_and(|since| now.saturating_duration_since(*since) < SUSPECT_FOR)
        };
        partition.components().filter(suspect).count()
    }
}

/// The partitions of the topic, as a broker described them.
#[derive(Debug)]
pub(super) struct Partitions {
    read_at: Instant,
    min_insync_replicas: usize,
    all: Vec<Partition>,
}

impl Partitions {
    /// Converts a broker's answer; `None` if it named no partitions.
    pub(super) fn of(topic: &MetadataTopic, min_insync_replicas: usize, read_at: Instant) -> Option<Self> {
        let mut all: Vec<Partition> = topic
            .partitions()
            .iter()
            .map(|partition| Partition {
                id: partition.id(),
                leader: (partition.leader() >= 0).then(|| partition.leader()),
                in_sync: partition.isr().to_vec(),
                replicas: partition.replicas().len(),
            })
            .collect();
        all.sort_by_key(|partition| partition.id);
        (!all.is_empty()).then_some(Self { read_at, min_insync_replicas, all })
    }

    /// The age of this metadata.
    pub(super) fn age(&self) -> Duration {
        self.read_at.elapsed()
    }

    /// Each leader, with one of its partitions.
    pub(super) fn leaders(&self) -> BTreeMap<i32, i32> {
        self.all.iter().filter_map(|partition| Some((partition.leader?, partition.id))).collect()
    }

    /// The partition with this id.
    pub(super) fn get(&self, id: i32) -> Option<&Partition> {
        self.all.get(usize::try_from(id).ok()?)
    }

    /// Chooses the partition for a record, the least sick of those that accept records. Among
    /// equals, that is the key's own partition, else one of its lane by the key's hash, so diverted
    /// records spread evenly. Partitions in `tried` come last, and before them the other partitions
    /// of their leaders. `None` if no partition accepts records.
    pub(super) fn choose(&self, key: &[u8], lane: Lane, health: &Health, tried: &[i32], now: Instant) -> Option<i32> {
        // At most 2^31 - 1 fits into any usize of at least 32 bits.
        let hash = (murmur2(key) & 0x7fff_ffff) as usize;
        let sickness = |partition: &Partition| {
            let leader_tried = tried.iter().any(|id| self.get(*id).is_some_and(|it| it.leader == partition.leader));
            (tried.contains(&partition.id), leader_tried, health.suspects(partition, now))
        };
        // Partition `n` is of lane `n` modulo the number of lanes.
        let (index, lanes) = match (usize::from(lane.index), usize::from(lane.of)) {
            (_, lanes) if lanes > self.all.len() => (0, 1),
            lane => lane,
        };
        let of_lane = (self.all.len() - index).div_ceil(lanes);
        let own = &self.all[index + hash % of_lane * lanes];
        let own_sickness = own.writable(self.min_insync_replicas).then(|| sickness(own));
        if own_sickness == Some((false, false, 0)) {
            return Some(own.id);
        }
        let writable =
            self.all.iter().enumerate().filter(|(_, partition)| partition.writable(self.min_insync_replicas));
        let judged: Vec<_> =
            writable.map(|(at, partition)| ((sickness(partition), at % lanes != index), partition.id)).collect();
        let least = judged.iter().map(|(rank, _)| *rank).min()?;
        if own_sickness.map(|sickness| (sickness, false)) == Some(least) {
            return Some(own.id);
        }
        let best: Vec<i32> = judged.into_iter().filter(|(rank, _)| *rank == least).map(|(_, id)| id).collect();
        Some(best[hash / self.all.len() % best.len()])
    }
}

/// MurmurHash2 as in Kafka's Java client (`org.apache.kafka.common.utils.Utils.murmur2`), by Austin
/// Appleby, in the public domain. A key's partition is the low 31 bits modulo the number of
/// partitions.
fn murmur2(key: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    let mix = |k: u32| {
        let k = k.wrapping_mul(M);
        (k ^ (k >> 24)).wrapping_mul(M)
    };
    let (words, tail) = key.as_chunks::<4>();
    // A key's length is far below 4 GiB.
    let mut hash = SEED ^ (key.len() as u32);
    for word in words {
        hash = hash.wrapping_mul(M) ^ mix(u32::from_le_bytes(*word));
    }
    if !tail.is_empty() {
        let tail = tail.iter().rev().fold(0_u32, |tail, byte| (tail << 8) | u32::from(*byte));
        hash = (hash ^ tail).wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    const MIN: usize = 2;

    fn partition(id: i32, leader: Option<i32>, in_sync: &[i32]) -> Partition {
        Partition { id, leader, in_sync: in_sync.to_vec(), replicas: 3 }
    }

    fn of(all: Vec<Partition>) -> Partitions {
        Partitions { read_at: Instant::now(), min_insync_replicas: MIN, all }
    }

    proptest! {
        #[test]
        fn healthy_lanes_share_no_partition(
            count in 1..40i32,
            lanes in 1..6u16,
            keys in vec(vec(any::<u8>(), 1..20), 1..30),
        ) {
            let partitions = healthy(count, 6);
            for (key, index) in keys.iter().zip((0..lanes).cycle()) {
                let lane = Lane::new(index, lanes);
                let id = partitions.choose(key, lane, &Health::default(), &[], Instant::now()).unwrap();
                prop_assert!(i32::from(lanes) > count || id % i32::from(lanes) == i32::from(index));
            }
        }
    }

    /// A record that is durable in the wrong lane is better than one that is not durable.
    #[test]
    fn a_record_of_a_sick_lane_goes_to_another_lane() {
        let sick = |id| partition(id, None, &[]);
        let partitions = of(vec![partition(0, Some(1), &[1, 2]), sick(1), partition(2, Some(1), &[1, 2]), sick(3)]);
        let choose = |lane| partitions.choose(b"key", lane, &Health::default(), &[], Instant::now()).unwrap();
        assert_eq!([choose(Lane::new(0, 2)) % 2, choose(Lane::new(1, 2)) % 2], [0, 0]);
    }

    /// Partition `n` is on brokers `n`, `n + 1` and `n + 2`, modulo the number of brokers. The
    /// first leads.
    fn healthy(count: i32, brokers: i32) -> Partitions {
        let broker = |n: i32| n % brokers;
        of((0..count).map(|n| partition(n, Some(broker(n)), &[broker(n), broker(n + 1), broker(n + 2)])).collect())
    }

    /// A mix of leaderless, under-replicated and healthy partitions on six brokers.
    fn mixed() -> impl Strategy<Value = Partitions> {
        vec((proptest::option::weighted(0.7, 0..6_i32), vec(0..6_i32, 1..=3)), 1..40).prop_map(|all| {
            let numbered = all.into_iter().zip(0..);
            of(numbered.map(|((leader, in_sync), id)| partition(id, leader, &in_sync)).collect())
        })
    }

    fn key() -> impl Strategy<Value = Vec<u8>> {
        vec(any::<u8>(), 0..40)
    }

    /// Values of librdkafka's `unittest_murmur2`, which come from the Java client.
    #[test]
    fn murmur2_matches_the_java_client() {
        for (key, hash) in [
            ("kafka", 0xd067_cf64),
            ("giberish123456789", 0x8f55_2b0c),
            ("1234", 0x9fc9_7b14),
            ("234", 0xe7c0_09ca),
            ("34", 0x8739_30da),
            ("4", 0x5a4b_5ca1),
            ("PreAmbleWillBeRemoved,ThePrePartThatIs", 0x7842_4f1c),
            ("reAmbleWillBeRemoved,ThePrePartThatIs", 0x4a62_b377),
            ("", 0x106e_08d9),
        ] {
            assert_eq!(murmur2(key.as_bytes()), hash, "{key}");
        }
    }

    proptest! {
        #[test]
        fn on_a_healthy_log_a_key_goes_to_its_own_partition(key in key(), count in 1..200_i32) {
            let own = i64::from(murmur2(&key) & 0x7fff_ffff) % i64::from(count);
            let choice = healthy(count, 6).choose(&key, Lane::WHOLE, &Health::default(), &[], Instant::now());
            prop_assert_eq!(choice.map(i64::from), Some(own));
        }

        #[test]
        fn a_record_never_goes_to_a_partition_that_refuses_it(
            partitions in mixed(), key in key(), failed in vec(0..40_i32, 0..5), tried in vec(0..40_i32, 0..3),
        ) {
            let now = Instant::now();
            let mut health = Health::default();
            for partition in failed.into_iter().filter_map(|id| partitions.get(id)) {
                health.failed(partition, now, now);
            }
            let writable = |it: &Partition| it.leader.is_some() && it.in_sync.len() >= MIN;
            match partitions.choose(&key, Lane::WHOLE, &health, &tried, now) {
                Some(id) => prop_assert!(partitions.get(id).is_some_and(writable)),
                None => prop_assert!(!partitions.all.iter().any(writable)),
            }
        }

        #[test]
        fn the_next_attempt_always_goes_to_another_leader(
            key in key(), count in 2..60_i32, suspects in vec(0..60_i32, 0..60),
        ) {
            let now = Instant::now();
            let (partitions, mut health) = (healthy(count, 6), Health::default());
            for partition in suspects.into_iter().filter_map(|id| partitions.get(id)) {
                health.failed(partition, now, now);
            }
            let first = partitions.choose(&key, Lane::WHOLE, &health, &[], now).unwrap();
            let second = partitions.choose(&key, Lane::WHOLE, &health, &[first], now).unwrap();
            let third = partitions.choose(&key, Lane::WHOLE, &health, &[first, second], now).unwrap();
            let leader = |id| partitions.get(id).unwrap().leader;
            prop_assert_ne!(leader(first), leader(second));
            prop_assert!(count < 3 || (leader(third) != leader(first) && leader(third) != leader(second)));
        }
    }

    #[test]
    fn a_partition_with_few_replicas_needs_them_all() {
        let alone = Partition { id: 0, leader: Some(1), in_sync: vec![1], replicas: 1 };
        assert!(alone.writable(MIN));
        assert!(!Partition { replicas: 3, ..alone.clone() }.writable(MIN));
        assert!(!Partition { leader: None, ..alone }.writable(MIN));
    }

    #[test]
    fn silence_blames_only_what_was_not_heard_from_since() {
        // Broker 2 hangs. It leads partition 2 and replicates 0 and 1.
        let partitions = healthy(6, 6);
        let mut health = Health::default();
        let sent = Instant::now();
        let later = sent + Duration::from_secs(1);
        // The others still work: 3 on brokers 3, 4, 5; 4 on 4, 5, 0; 5 on 5, 0, 1.
        for id in [3, 4, 5] {
            health.acknowledged(partitions.get(id).unwrap(), later);
        }
        for id in [0, 1, 2] {
            health.failed(partitions.get(id).unwrap(), sent, later);
        }
        let suspects: Vec<usize> = partitions.all.iter().map(|partition| health.suspects(partition, later)).collect();
        assert!(suspects[..3].iter().all(|suspects| *suspects > 0), "{suspects:?}");
        assert_eq!(suspects[3..], [0, 0, 0]);
    }

    #[test]
    fn a_leader_that_we_cannot_reach_may_still_follow() {
        // Three brokers, all partitions on all of them.
        let partitions = healthy(3, 3);
        let mut health = Health::default();
        let now = Instant::now();
        health.failed(partitions.get(0).unwrap(), now, now);
        health.acknowledged(partitions.get(1).unwrap(), now);
        let suspects: Vec<usize> = partitions.all.iter().map(|it| health.suspects(it, now)).collect();
        assert_eq!(suspects, [2, 0, 0], "the partition and its leader");
    }

    #[test]
    fn suspicion_ends_with_time_or_an_acknowledgement() {
        let partitions = healthy(6, 6);
        let suspect = partitions.get(0).unwrap();
        let mut health = Health::default();
        let now = Instant::now();
        health.failed(suspect, now, now);
        assert!(health.suspects(suspect, now) > 0);
        assert_eq!(health.suspects(suspect, now + SUSPECT_FOR), 0);
        health.acknowledged(suspect, now);
        assert_eq!(health.suspects(suspect, now), 0);
    }

    #[test]
    fn diverted_records_spread_over_healthy_partitions() {
        let mut partitions = healthy(12, 6);
        for id in [0, 6] {
            partitions.all[id].leader = None;
        }
        let mut diverted: BTreeMap<i32, u32> = BTreeMap::new();
        for n in 0..12_000 {
            let key = format!("use1-{n:026}");
            if [0, 6].contains(&(murmur2(key.as_bytes()) & 0x7fff_ffff).rem_euclid(12)) {
                let choice =
                    partitions.choose(key.as_bytes(), Lane::WHOLE, &Health::default(), &[], Instant::now()).unwrap();
                *diverted.entry(choice).or_default() += 1;
            }
        }
        assert_eq!(diverted.len(), 10);
        assert!(diverted.values().all(|records| (100..400).contains(records)), "{diverted:?}");
    }
}
