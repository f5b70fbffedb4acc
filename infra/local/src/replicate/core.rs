//! The decisions of the replicator: what each region knows of each item, and which write it is due. No I/O and no clock.
//!
//! Of an item a region knows the greatest write that it made itself or that reached it: by time, then by region. What its table is
//! believed to hold and that write differ: then the write is *due*, on the condition that the table holds what is believed.
//!
//! Our own writes come back on the region's stream. The order of a stream is the order of the writes, and none of ours succeeds unless the
//! table holds what we believe; so the first record that shows the image of our oldest write that has not come back is that write's echo,
//! as long as nobody writes an item as it was before, a deletion apart. Views do not: their version grows; nor do registers: their time does.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Something that is due: make the item of this region this image, if it still is what was expected. `None` is no item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Apply<K, I> {
    pub(super) region: usize,
    pub(super) key: K,
    pub(super) expected: Option<I>,
    pub(super) image: Option<I>,
}

/// What was counted since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReplicationStats {
    /// Writes of the regions' own that were read.
    pub writes: u64,
    /// Of these, the ones that were older than what their region knew already, and gave way to it.
    pub overruled: u64,
    /// Writes that were made in the place of another region's.
    pub applied: u64,
    /// Writes that were not made, since the item had changed meanwhile.
    pub refused: u64,
    /// Items that are not yet the same everywhere, as far as is known.
    pub open: u64,
}

/// The state of all items in all regions, which are numbered in the order of their names.
#[derive(Debug)]
pub(super) struct Core<K, I> {
    regions: usize,
    items: BTreeMap<K, Item<I>>,
    /// Those of the items that are not the same everywhere.
    open: BTreeSet<K>,
    stats: ReplicationStats,
}

#[derive(Debug)]
struct Item<I> {
    replicas: Vec<Replica<I>>,
    /// Writes that the other regions do not know of, and when each was read, milliseconds: the oldest first.
    travelling: VecDeque<(u64, Write<I>)>,
}

#[derive(Debug)]
struct Replica<I> {
    known: Option<Write<I>>,
    /// What the table holds after all that we know of.
    believed: Option<I>,
    /// Images that we wrote and that have not come back, in the order in which they were written.
    echoes: VecDeque<Option<I>>,
    /// Time of the region's newest own write.
    newest: u64,
    /// A write of ours was refused: something was written of which the record has not been read.
    behind: bool,
}

#[derive(Debug, Clone)]
struct Write<I> {
    /// Milliseconds.
    at: u64,
    region: usize,
    image: Option<I>,
}

impl<I: Clone + PartialEq> Replica<I> {
    /// Takes a write for the newest if it is. Of writes of one region and the same time the later one counts.
    fn learn(&mut self, write: &Write<I>) -> bool {
        let newer = self.known.as_ref().is_none_or(|known| (write.at, write.region) >= (known.at, known.region));
        if newer {
            self.known = Some(write.clone());
        }
        newer
    }

    /// What the table must come to hold, if it does not.
    fn due(&self) -> Option<&Option<I>> {
        self.known.as_ref().map(|known| &known.image).filter(|image| **image != self.believed)
    }
}

impl<K: Clone + Ord, I: Clone + PartialEq> Core<K, I> {
    /// So many regions, with empty tables.
    pub(super) fn new(regions: usize) -> Self {
        Self { regions, items: BTreeMap::new(), open: BTreeSet::new(), stats: ReplicationStats::default() }
    }

    /// A record of a region's stream, read at `now`: at `at` an item came to be this image. Both in milliseconds.
    pub(super) fn observe(&mut self, region: usize, key: &K, image: Option<I>, at: u64, now: u64) {
        let regions = self.regions;
        let item = self.items.entry(key.clone()).or_insert_with(|| Item::new(regions));
        let Some(replica) = item.replicas.get_mut(region) else { return };
        replica.behind = false;
        if replica.echoes.front() == Some(&image) {
            replica.echoes.pop_front();
            return;
        }
        if replica.echoes.is_empty() {
            replica.believed.clone_from(&image);
        } // else it was written before what we wrote last, which the table holds
        // A clock that was set back does not make a region's later write the older one.
        replica.newest = replica.newest.max(at);
        let write = Write { at: replica.newest, region, image };
        self.stats.writes += 1;
        self.stats.overruled += u64::from(!replica.learn(&write));
        item.travelling.push_back((now, write));
        self.open.insert(key.clone());
    }

    /// Everything that is due at `now`, at most one thing a region and item. Writes that were read `delay` milliseconds ago arrive, unless
    /// the regions are cut off from each other. Each result must be told to [`Core::applied`] before anything else.
    pub(super) fn due(&mut self, now: u64, delay: u64, cut: bool) -> Vec<Apply<K, I>> {
        let mut due = Vec::new();
        let items = &mut self.items;
        self.open.retain(|key| {
            let Some(item) = items.get_mut(key) else { return false };
            while !cut && item.travelling.front().is_some_and(|(read, _)| read.saturating_add(delay) <= now) {
                if let Some((_, write)) = item.travelling.pop_front() {
                    for (region, replica) in item.replicas.iter_mut().enumerate() {
                        if region != write.region {
                            replica.learn(&write);
                        }
                    }
                }
            }
            let mut settled = item.travelling.is_empty();
            for (region, replica) in item.replicas.iter().enumerate() {
                let Some(image) = replica.due() else { continue };
                settled = false;
                if !replica.behind {
                    let (expected, image) = (replica.believed.clone(), image.clone());
                    due.push(Apply { region, key: key.clone(), expected, image });
                }
            }
            !settled
        });
        due
    }

    /// What came of something that was due: it was done, or the table did not hold what was expected.
    pub(super) fn applied(&mut self, apply: Apply<K, I>, done: bool) {
        let item = self.items.get_mut(&apply.key);
        let Some(replica) = item.and_then(|item| item.replicas.get_mut(apply.region)) else { return };
        if done {
            replica.believed.clone_from(&apply.image);
            replica.echoes.push_back(apply.image);
            self.stats.applied += 1;
        } else {
            replica.behind = true;
            self.stats.refused += 1;
        }
    }

    /// What was counted.
    pub(super) fn stats(&self) -> ReplicationStats {
        ReplicationStats { open: self.open.len() as u64, ..self.stats }
    }
}

impl<I> Item<I> {
    fn new(regions: usize) -> Self {
        let replica = || Replica { known: None, believed: None, echoes: VecDeque::new(), newest: 0, behind: false };
        Self { replicas: std::iter::repeat_with(replica).take(regions).collect(), travelling: VecDeque::new() }
    }
}
