//! The core between tables that behave as DynamoDB's do: a write is conditional, and every change is on the stream, in order.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::core::{Apply, Core};
use proptest::prelude::*;
use std::collections::BTreeMap;

type Key = u8;
type Image = u32;

/// A region: its table, its stream, and how far that was read.
#[derive(Default)]
struct Region {
    table: BTreeMap<Key, Image>,
    stream: Vec<(Key, Option<Image>, u64)>,
    read: usize,
}

impl Region {
    /// A write that changes nothing is on no stream.
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
    /// Of the stamps in the streams, in ms.
    resolution: u64,
    delay: u64,
    cut: bool,
    images: Image,
    /// Of each item the greatest write of a region's own: its stamp, region and image.
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

    /// A region's own write: of an image that never was, or a deletion.
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

    /// Reads up to so many records of a region's stream.
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

    /// Does what is due, as far as the tables still are what they are believed to be.
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

    /// Lets it come to rest, and says how many writes that took.
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
            assert!(rounds < 100, "it never comes to rest: {:?}", self.core);
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
    /// What is due is done, after these writes (region, item, whether it deletes) came between.
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
    fn any_interleaving_ends_with_the_last_write_in_every_region_and_nothing_echoes(
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
        prop_assert_eq!(world.settle(), 0, "what has come to rest stays so");
    }
}

#[test]
fn a_write_arrives_after_the_delay_once() {
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
    assert_eq!(world.core.stats().writes, 1, "the echo is no write of the region's own");
}

#[test]
fn while_the_regions_are_cut_off_nothing_arrives_and_nothing_is_forgotten() {
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
fn of_two_writes_at_once_that_of_the_later_region_wins_and_the_other_gives_way() {
    let mut world = World::new(2, 1_000);
    world.write(1, 1, false);
    world.now += 1;
    world.write(0, 1, false);
    assert_eq!(world.settle(), 1);
    assert_eq!(world.regions[0].table, BTreeMap::from([(1, 1)]), "the same stamp: the region decides");
    assert_eq!(world.regions[1].table, world.regions[0].table);
}

#[test]
fn a_deletion_is_a_write() {
    let mut world = World::new(2, 1);
    world.write(0, 1, false);
    world.settle();
    world.write(1, 1, true);
    assert_eq!(world.settle(), 1);
    assert!(world.regions.iter().all(|region| region.table.is_empty()));
}

#[test]
fn what_is_refused_waits_for_the_record_that_explains_it() {
    let mut world = World::new(2, 1);
    world.write(0, 1, false);
    world.poll(0, 9);
    let due = world.due();
    world.write(1, 1, false);
    assert_eq!(world.apply(due), 0);
    world.now += 1;
    assert_eq!(world.due(), [], "not again before something is read");
    assert_eq!(world.settle(), 1);
    assert_eq!(world.regions[0].table, world.regions[1].table);
}
