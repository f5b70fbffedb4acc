//! The decisions of the replicator: what each region knows about each item, and which writes are
//! due. No I/O and no clock.
//!
//! For each item, a region knows the latest write that it made or that reached it, ordered by time,
//! then by region. We also keep what we believe its table holds. If they differ, a write is *due*,
//! on the condition that the table holds what we believe.
//!
//! Our own writes come back on the region's stream as *echoes*. The stream has the order of the
//! writes, and our writes succeed only if the table holds what we believe. So the first record with
//! the image of our oldest unseen write is its echo. This assumes that no region writes an earlier
//! image of an item again, except a deletion. It holds for views, whose version grows, and for
//! registers, whose time does.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A due write: sets the item in this region to this image, if it still is the expected one. `None`
/// means no item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Apply<K, I> {
    pub(super) region: usize,
    pub(super) key: K,
    pub(super) expected: Option<I>,
    pub(super) image: Option<I>,
}

/// Counts since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReplicationStats {
    /// The regions' own writes.
    pub writes: u64,
    /// Own writes that lost, because their region already knew a later one.
    pub overruled: u64,
    /// Copies written to other regions.
    pub applied: u64,
    /// Copies not written, because the item had changed meanwhile.
    pub refused: u64,
    /// Items that are not yet known to be the same everywhere.
    pub open: u64,
}

/// The state of all items in all regions. Regions are numbered in the order of their names.
#[derive(Debug)]
pub(super) struct Core<K, I> {
    regions: usize,
    items: BTreeMap<K, Item<I>>,
    /// Items that are not the same everywhere.
    open: BTreeSet<K>,
    stats: ReplicationStats,
}

#[derive(Debug)]
struct Item<I> {
    replicas: Vec<Replica<I>>,
    /// Writes that the other regions do not know yet, with the milliseconds at which each was read.
    /// Oldest first.
    travelling: VecDeque<(u64, Write<I>)>,
}

#[derive(Debug)]
struct Replica<I> {
    known: Option<Write<I>>,
    /// What we believe the table holds.
    believed: Option<I>,
    /// Images that we wrote and that have not come back, in the order of writing.
    echoes: VecDeque<Option<I>>,
    /// Time of the region's newest own write.
    newest: u64,
    /// Our write was refused: there is a write whose record we have not read.
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
    /// Remembers a write if it is the newest. Of two writes of one region at the same time, the
    /// second wins.
    fn learn(&mut self, write: &Write<I>) -> bool {
        let newer = self.known.as_ref().is_none_or(|known| (write.at, write.region) >= (known.at, known.region));
        if newer {
            self.known = Some(write.clone());
        }
        newer
    }

    /// What the table must hold, if it does not yet.
    fn due(&self) -> Option<&Option<I>> {
        self.known.as_ref().map(|known| &known.image).filter(|image| **image != self.believed)
    }
}

impl<K: Clone + Ord, I: Clone + PartialEq> Core<K, I> {
    /// Starts with empty tables in this many regions.
    pub(super) fn new(regions: usize) -> Self {
        Self { regions, items: BTreeMap::new(), open: BTreeSet::new(), stats: ReplicationStats::default() }
    }

    /// Takes a record of a region's stream, read at `now`: the item became this image at `at`. Both
    /// are in milliseconds.
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
        } // else it was written before our last write, which the table holds
        // If the region's clock was set back, its later write must still win.
        replica.newest = replica.newest.max(at);
        let write = Write { at: replica.newest, region, image };
        self.stats.writes += 1;
        self.stats.overruled += u64::from(!replica.learn(&write));
        item.travelling.push_back((now, write));
        self.open.insert(key.clone());
    }

    /// The writes due at `now`, at most one per region and item. Writes that were read `delay`
    /// milliseconds ago arrive, unless the regions are cut off. Pass each result to
    /// [`Core::applied`] before any other call.
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

    /// Takes the result of a due write: it was made, or the table did not hold the expected image.
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

    /// The counts so far.
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

#[cfg(test)]
mod tests;
