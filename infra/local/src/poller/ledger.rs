//! Which offsets may be committed.
//!
//! Pure. A partition's committed offset never passes an unsettled record, whatever the order in
//! which records are settled. "Nothing is lost" depends on this.

use std::collections::BTreeMap;

/// Received and unsettled offsets by partition.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    partitions: BTreeMap<i32, Progress>,
}

#[derive(Debug, Default)]
struct Progress {
    /// How often each unsettled offset was received. More than once only if the broker lost its log
    /// and started again at offset 0.
    unsettled: BTreeMap<i64, u32>,
    /// The offset after the last one received.
    next: i64,
    /// The position last handed out by [`Ledger::take_commits`].
    handed_out: Option<i64>,
}

impl Progress {
    /// The offset from which a restarted consumer must read.
    fn position(&self) -> i64 {
        self.unsettled.first_key_value().map_or(self.next, |(offset, _)| *offset)
    }
}

impl Ledger {
    /// A record arrived and must be settled.
    pub(super) fn receive(&mut self, partition: i32, offset: i64) {
        let progress = self.partitions.entry(partition).or_default();
        *progress.unsettled.entry(offset).or_default() += 1;
        progress.next = offset + 1;
        if progress.handed_out.is_none() {
            progress.handed_out = Some(offset);
        }
    }

    /// The record is done.
    pub(super) fn settle(&mut self, partition: i32, offset: i64) {
        let Some(progress) = self.partitions.get_mut(&partition) else {
            return;
        };
        if let Some(count) = progress.unsettled.get_mut(&offset) {
            *count -= 1;
            if *count == 0 {
                progress.unsettled.remove(&offset);
            }
        }
    }

    /// The positions that changed since the last call, as (partition, offset to commit).
    pub(super) fn take_commits(&mut self) -> Vec<(i32, i64)> {
        let mut changed = Vec::new();
        for (partition, progress) in &mut self.partitions {
            let position = progress.position();
            if progress.handed_out != Some(position) {
                progress.handed_out = Some(position);
                changed.push((*partition, position));
            }
        }
        changed
    }

    /// Every position, for the last commit before a stop.
    pub(super) fn positions(&self) -> Vec<(i32, i64)> {
        self.partitions.iter().map(|(partition, progress)| (*partition, progress.position())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Ledger;

    #[test]
    fn commit_waits_for_the_lowest_unsettled_offset() {
        let mut ledger = Ledger::default();
        for offset in [5, 6, 9] {
            ledger.receive(0, offset);
        }
        ledger.receive(1, 2);
        assert_eq!(ledger.take_commits(), []);
        ledger.settle(0, 6);
        assert_eq!(ledger.take_commits(), []);
        ledger.settle(0, 5);
        assert_eq!(ledger.take_commits(), [(0, 9)]);
        ledger.settle(0, 9);
        ledger.settle(1, 2);
        assert_eq!(ledger.take_commits(), [(0, 10), (1, 3)]);
        assert_eq!(ledger.take_commits(), []);
        assert_eq!(ledger.positions(), [(0, 10), (1, 3)]);
    }

    #[test]
    fn ledger_follows_a_log_that_starts_over() {
        let mut ledger = Ledger::default();
        ledger.receive(0, 0);
        ledger.receive(0, 1);
        ledger.settle(0, 0);
        assert_eq!(ledger.take_commits(), [(0, 1)]);
        ledger.receive(0, 0);
        ledger.receive(0, 1);
        assert_eq!(ledger.take_commits(), [(0, 0)]);
        ledger.settle(0, 1);
        ledger.settle(0, 0);
        assert_eq!(ledger.take_commits(), [(0, 1)], "one of the two 1s is open");
        ledger.settle(0, 1);
        assert_eq!(ledger.take_commits(), [(0, 2)]);
    }
}
