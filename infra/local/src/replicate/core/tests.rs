//! The core between tables that behave like DynamoDB's: writes are conditional, and every change is
//! on the stream, in order.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::{Apply, Core};
use proptest::prelude::*;
use std::collections::BTreeMap;

type Key = u8;
type Image = u32;

/// A region: its table, its stream, and how far the stream was read.
#[derive(Default)]
struct Region {
    table: BTreeMap<Key, Image>,
    stream: Vec<(Key, Option<Image>, u64)>,
    read: usize,
}

impl Region {
    /// A write that changes nothing is not on the stream.
    fn put(&mut self, key: Key, image: Option<Image>, at: u64) {
        let before = self.table.get(&key).copied();
        if before != image {
            match image {
                Some(image) => drop(self.table.insert(key, image)),
                None => drop(self.table.remove(&key)),
            }
            self.stream.push((key, image, at));
        }
    }
}

struct World {
    regions: Vec<Region>,
    core: Core<Key, Image>,
    now: u64,
    /// Resolution of the time stamps in the streams, in ms.
    resolution: u64,
    delay: u64,
    cut: bool,
    images: Image,
    /// The latest own write of each item: its stamp, region and image.
    winners: BTreeMap<Key, (u64, usize, Option<Image>)>,
}

impl World {
    fn new(regions: usize, resolution: u64) -> Self {
        Self {
            regions: std::iter::repeat_with(Region::default).take(regions).collect(),
            core: Core::new(regions),
            now: 1_000,
            resolution,
            delay: 0,
            cut: false,
            images: 0,
            winners: BTreeMap::new(),
        }
    }

    fn stamp(&self) -> u64 {
        self.now - self.now % self.resolution
    }

    /// A region's own write: a new image or a deletion.
    fn write(&mut self, region: usize, key: Key, deletes: bool) {
        let stamp = self.stamp();
        self.images += 1;
        let image = (!deletes).then_some(self.images);
        if self.regions[region].table.get(&key).copied() != image {
            self.regions[region].put(key, image, stamp);
            let winner = self.winners.entry(key).or_insert((stamp, region, image));
            if (stamp, region) >= (winner.0, winner.1) {
                *winner = (stamp, region, image);
            }
        }
    }

    /// Reads up to `most` records of a region's stream.
    fn poll(&mut self, region: usize, most: usize) {
        let Region { stream, read, .. } = &mut self.regions[region];
        for (key, image, at) in stream.iter().skip(*read).take(most) {
            self.core.observe(region, key, *image, *at, self.now);
            *read += 1;
        }
    }

    fn due(&mut self) -> Vec<Apply<Key, Image>> {
        self.core.due(self.now, self.delay, self.cut)
    }

    /// Makes the due writes whose condition holds. Returns how many.
    fn apply(&mut self, due: Vec<Apply<Key, Image>>) -> usize {
        let stamp = self.stamp();
        let mut done = 0;
        for apply in due {
            let region = &mut self.regions[apply.region];
            let holds = region.table.get(&apply.key).copied() == apply.expected;
            if holds {
                assert_ne!(apply.expected, apply.image, "a write that changes nothing has no echo");
                region.put(apply.key, apply.image, stamp);
                done += 1;
            }
            self.core.applied(apply, holds);
        }
        done
    }

    fn unread(&self) -> usize {
        self.regions.iter().map(|region| region.stream.len() - region.read).sum()
    }

    /// Runs until nothing is due. Returns how many writes that took.
    fn settle(&mut self) -> usize {
        self.cut = false;
        let (mut done, mut rounds) = (0, 0);
        loop {
            self.now += self.delay + 1;
            (0..self.regions.len()).for_each(|region| self.poll(region, usize::MAX));
            let due = self.due();
            if due.is_empty() && self.unread() == 0 && self.core.stats().open == 0 {
                return done;
            }
            done += self.apply(due);
            rounds += 1;
            assert!(rounds < 100, "it never settles: {:?}", self.core);
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Write {
        region: usize,
        key: Key,
        deletes: bool,
    },
    Poll {
        region: usize,
        most: usize,
    },
    /// Makes the due writes, after these writes (region, item, whether it deletes) came between.
    Apply {
        meanwhile: Vec<(usize, Key, bool)>,
    },
    Wait(u64),
    Delay(u64),
    Cut(bool),
}

const REGIONS: usize = 3;
const KEYS: Key = 2;

fn write() -> impl Strategy<Value = (usize, Key, bool)> {
    (0..REGIONS, 0..KEYS, prop::bool::weighted(0.3))
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => write().prop_map(|(region, key, deletes)| Step::Write { region, key, deletes }),
        4 => (0..REGIONS, 1..4usize).prop_map(|(region, most)| Step::Poll { region, most }),
        4 => prop::collection::vec(write(), 0..2).prop_map(|meanwhile| Step::Apply { meanwhile }),
        3 => (0..30u64).prop_map(Step::Wait),
        1 => (0..50u64).prop_map(Step::Delay),
        1 => any::<bool>().prop_map(Step::Cut),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_interleaving_ends_with_the_last_write_everywhere(
        steps in prop::collection::vec(step(), 0..60),
        resolution in prop::sample::select(vec![1, 10, 1_000]),
    ) {
        let mut world = World::new(REGIONS, resolution);
        for step in steps {
            match step {
                Step::Write { region, key, deletes } => world.write(region, key, deletes),
                Step::Poll { region, most } => world.poll(region, most),
                Step::Apply { meanwhile } => {
                    let due = world.due();
                    meanwhile.into_iter().for_each(|(region, key, deletes)| world.write(region, key, deletes));
                    world.apply(due);
                }
                Step::Wait(ms) => world.now += ms,
                Step::Delay(ms) => world.delay = ms,
                Step::Cut(cut) => world.cut = cut,
            }
        }
        world.settle();
        for (key, (_, _, image)) in &world.winners {
            for region in &world.regions {
                prop_assert_eq!(region.table.get(key).copied(), *image, "item {}", key);
            }
        }
        prop_assert_eq!(world.settle(), 0, "once settled, it stays settled");
    }
}

#[test]
fn write_arrives_once_after_the_delay() {
    let mut world = World::new(2, 1);
    world.delay = 100;
    world.write(0, 1, false);
    world.poll(0, 9);
    world.now += 99;
    assert_eq!(world.due(), []);
    world.now += 1;
    let due = world.due();
    assert_eq!(due, [Apply { region: 1, key: 1, expected: None, image: Some(1) }]);
    assert_eq!((world.apply(due), world.settle()), (1, 0));
    assert_eq!(world.core.stats().writes, 1, "the echo is not an own write");
}

#[test]
fn cut_delays_writes_and_loses_none() {
    let mut world = World::new(2, 1);
    world.cut = true;
    world.write(0, 1, false);
    world.poll(0, 9);
    world.now += 10_000;
    assert_eq!(world.due(), []);
    assert_eq!(world.core.stats().open, 1);
    assert_eq!(world.settle(), 1);
    assert_eq!(world.regions[1].table, BTreeMap::from([(1, 1)]));
}

#[test]
fn greater_region_wins_two_writes_at_the_same_time() {
    let mut world = World::new(2, 1_000);
    world.write(1, 1, false);
    world.now += 1;
    world.write(0, 1, false);
    assert_eq!(world.settle(), 1);
    assert_eq!(world.regions[0].table, BTreeMap::from([(1, 1)]), "the same stamp: the region decides");
    assert_eq!(world.regions[1].table, world.regions[0].table);
}

#[test]
fn deletion_is_replicated() {
    let mut world = World::new(2, 1);
    world.write(0, 1, false);
    world.settle();
    world.write(1, 1, true);
    assert_eq!(world.settle(), 1);
    assert!(world.regions.iter().all(|region| region.table.is_empty()));
}

#[test]
fn refused_write_waits_for_the_record_that_explains_it() {
    let mut world = World::new(2, 1);
    world.write(0, 1, false);
    world.poll(0, 9);
    let due = world.due();
    world.write(1, 1, false);
    assert_eq!(world.apply(due), 0);
    world.now += 1;
    assert_eq!(world.due(), [], "no retry before a record is read");
    assert_eq!(world.settle(), 1);
    assert_eq!(world.regions[0].table, world.regions[1].table);
}
