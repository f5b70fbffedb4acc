//! A set of `u64`, stored as sorted, disjoint, non-adjacent half-open ranges. It holds the sequence
//! numbers received and the position intervals played. Its union is the join that makes views
//! independent of order and duplication.

use std::ops::Range;

/// A set of integers as ranges. Equal sets have equal representations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RangeSet {
    /// Sorted, disjoint, non-adjacent, none empty.
    ranges: Vec<Range<u64>>,
}

/// Packed ranges that [`RangeSet::pack`] cannot have written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("packed ranges are corrupt")]
pub struct CorruptRanges;

impl RangeSet {
    /// Adds every integer in `range`.
    pub fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        // Events mostly arrive in order, so extending or following the last range is the common
        // case.
        match self.ranges.last_mut() {
            None => return self.ranges.push(range),
            Some(last) if range.start > last.end => return self.ranges.push(range),
            Some(last) if range.start >= last.start => {
                last.end = last.end.max(range.end);
                return;
            }
            Some(_) => {}
        }
        // Replace all ranges that overlap or touch the new one by their hull.
        let from = self.ranges.partition_point(|r| r.end < range.start);
        let to = self.ranges.partition_point(|r| r.start <= range.end);
        let hull = match self.ranges.get(from..to) {
            Some([first, .., last]) => range.start.min(first.start)..range.end.max(last.end),
            Some([only]) => range.start.min(only.start)..range.end.max(only.end),
            _ => range,
        };
        self.ranges.splice(from..to, [hull]);
    }

    /// Adds every member of `other`.
    pub fn union(&mut self, other: &RangeSet) {
        if self.ranges.is_empty() {
            self.ranges.clone_from(&other.ranges);
            return;
        }
        if other.ranges.len() <= 4 {
            for range in &other.ranges {
                self.insert(range.clone());
            }
            return;
        }
        // Both are large: one linear merge instead of a splice per range.
        let left = std::mem::take(&mut self.ranges);
        let mut left = left.into_iter().peekable();
        let mut right = other.ranges.iter().cloned().peekable();
        loop {
            let next = match (left.peek(), right.peek()) {
                (Some(l), Some(r)) if l.start <= r.start => left.next(),
                (Some(_), None) => left.next(),
                (_, Some(_)) => right.next(),
                (None, None) => break,
            };
            if let Some(range) = next {
                self.insert(range);
            }
        }
    }

    /// Whether `value` is a member.
    pub fn contains(&self, value: u64) -> bool {
        let at = self.ranges.partition_point(|r| r.end <= value);
        self.ranges.get(at).is_some_and(|r| r.contains(&value))
    }

    /// How many members the set has.
    pub fn len(&self) -> u64 {
        self.ranges.iter().map(|r| r.end - r.start).sum()
    }

    /// How many members are less than `bound`.
    pub fn len_below(&self, bound: u64) -> u64 {
        self.ranges.iter().take_while(|r| r.start < bound).map(|r| r.end.min(bound) - r.start).sum()
    }

    /// Whether the set has no members.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The ranges, sorted, disjoint and non-adjacent.
    pub fn ranges(&self) -> &[Range<u64>] {
        &self.ranges
    }

    /// Packs the set as pairs (gap since the end of the previous range, length). As varints, most
    /// of these numbers take one to three bytes.
    pub fn pack(&self) -> Vec<u64> {
        let mut packed = Vec::with_capacity(self.ranges.len() * 2);
        let mut end = 0;
        for range in &self.ranges {
            packed.push(range.start - end);
            packed.push(range.end - range.start);
            end = range.end;
        }
        packed
    }

    /// Unpacks the output of [`RangeSet::pack`].
    ///
    /// # Errors
    /// [`CorruptRanges`] when a number is missing, a range is empty, two ranges touch, or the sum
    /// overflows.
    pub fn unpack(packed: &[u64]) -> Result<Self, CorruptRanges> {
        let (pairs, rest) = packed.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(CorruptRanges);
        }
        let mut ranges = Vec::with_capacity(pairs.len());
        let mut end = 0u64;
        for (at, [gap, length]) in pairs.iter().enumerate() {
            if *length == 0 || (*gap == 0 && at > 0) {
                return Err(CorruptRanges);
            }
            let start = end.checked_add(*gap).ok_or(CorruptRanges)?;
            end = start.checked_add(*length).ok_or(CorruptRanges)?;
            ranges.push(start..end);
        }
        Ok(Self { ranges })
    }
}

impl From<Range<u64>> for RangeSet {
    fn from(range: Range<u64>) -> Self {
        let ranges = if range.is_empty() { Vec::new() } else { vec![range] };
        Self { ranges }
    }
}

impl FromIterator<Range<u64>> for RangeSet {
    fn from_iter<I: IntoIterator<Item = Range<u64>>>(ranges: I) -> Self {
        let mut set = Self::default();
        for range in ranges {
            set.insert(range);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn inputs() -> impl Strategy<Value = Vec<Range<u64>>> {
        prop::collection::vec((0u64..200, 0u64..20).prop_map(|(start, length)| start..start + length), 0..40)
    }

    fn members(ranges: &[Range<u64>]) -> BTreeSet<u64> {
        ranges.iter().cloned().flatten().collect()
    }

    fn is_canonical(set: &RangeSet) -> bool {
        set.ranges().iter().all(|r| r.start < r.end) && set.ranges().windows(2).all(|w| w[0].end < w[1].start)
    }

    proptest! {
        #[test]
        fn has_exactly_the_members_inserted(input in inputs()) {
            let set: RangeSet = input.iter().cloned().collect();
            prop_assert!(is_canonical(&set));
            prop_assert_eq!(members(set.ranges()), members(&input));
            prop_assert_eq!(set.len() as usize, members(&input).len());
            for value in 0..230 {
                prop_assert_eq!(set.contains(value), members(&input).contains(&value));
                prop_assert_eq!(set.len_below(value) as usize, members(&input).range(..value).count());
            }
        }

        #[test]
        fn union_is_the_set_union(a in inputs(), b in inputs()) {
            let (left, right): (RangeSet, RangeSet) = (a.iter().cloned().collect(), b.iter().cloned().collect());
            let mut both = left.clone();
            both.union(&right);
            prop_assert!(is_canonical(&both));
            prop_assert_eq!(members(both.ranges()), members(&[a, b].concat()));
            let mut reversed = right.clone();
            reversed.union(&left);
            prop_assert_eq!(both, reversed);
        }

        #[test]
        fn pack_round_trips(input in inputs()) {
            let set: RangeSet = input.into_iter().collect();
            prop_assert_eq!(RangeSet::unpack(&set.pack()), Ok(set));
        }

        #[test]
        fn unpack_never_panics_and_gives_a_canonical_set(packed in prop::collection::vec(any::<u64>(), 0..9)) {
            if let Ok(set) = RangeSet::unpack(&packed) {
                prop_assert!(is_canonical(&set));
                prop_assert_eq!(set.pack(), packed);
            }
        }
    }
}
