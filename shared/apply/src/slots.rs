//! Conservation: n in, n out, or an error.

/// A bug: some unit has no outcome, or more than one, so nothing may be called done. The invocation
/// fails, and the whole batch is delivered again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{empty} of {slots} slots are empty, and {stray} values had no empty slot")]
pub struct Unbalanced {
    /// How many values were expected.
    pub slots: usize,
    /// Slots that got no value.
    pub empty: usize,
    /// Values for a slot that does not exist or was full.
    pub stray: usize,
}

impl Unbalanced {
    /// Fails unless there are as many `values` as `slots`.
    pub(crate) fn check(slots: usize, values: usize) -> Result<(), Self> {
        match (slots.saturating_sub(values), values.saturating_sub(slots)) {
            (0, 0) => Ok(()),
            (empty, stray) => Err(Self { slots, empty, stray }),
        }
    }
}

/// One value for each of n places, filled in any order.
#[derive(Debug)]
pub struct Slots<T> {
    slots: Vec<Option<T>>,
    stray: usize,
}

impl<T> Slots<T> {
    /// `n` empty slots.
    pub fn new(n: usize) -> Self {
        Self { slots: std::iter::repeat_with(|| None).take(n).collect(), stray: 0 }
    }

    /// Fills a slot. A value for which there is no empty slot makes [`Slots::finish`] fail.
    pub fn fill(&mut self, at: usize, value: T) {
        match self.slots.get_mut(at) {
            Some(slot @ None) => *slot = Some(value),
            _ => self.stray += 1,
        }
    }

    /// The values in the order of their slots.
    ///
    /// # Errors
    /// [`Unbalanced`] unless each slot was filled once, and nothing else was.
    pub fn finish(self) -> Result<Vec<T>, Unbalanced> {
        let (slots, stray) = (self.slots.len(), self.stray);
        let values: Vec<T> = self.slots.into_iter().flatten().collect();
        let empty = slots - values.len();
        if empty == 0 && stray == 0 { Ok(values) } else { Err(Unbalanced { slots, empty, stray }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn any_order_gives_the_values_in_order(places in Just((0..20usize).collect::<Vec<_>>()).prop_shuffle()) {
            let mut slots = Slots::new(places.len());
            places.iter().for_each(|&at| slots.fill(at, at));
            prop_assert_eq!(slots.finish(), Ok((0..20).collect()));
        }

        #[test]
        fn only_each_slot_once_balances(n in 0..6usize, places in prop::collection::vec(0..8usize, 0..10)) {
            let mut slots = Slots::new(n);
            places.iter().for_each(|&at| slots.fill(at, at));
            let filled = places.iter().filter(|&&at| at < n).collect::<BTreeSet<_>>().len();
            let fault = Unbalanced { slots: n, empty: n - filled, stray: places.len() - filled };
            let balanced = filled == n && places.len() == n;
            prop_assert_eq!(slots.finish().map(|values| values.len()), if balanced { Ok(n) } else { Err(fault) });
        }
    }
}
