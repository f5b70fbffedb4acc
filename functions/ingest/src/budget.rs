//! How many events of one profile are accepted per minute: a limit against a broken or hostile
//! player, far above any real one.
//!
//! It is an estimate, made in each environment for itself, without a call to anything: a fixed
//! table of counters, found by a hash of the profile. Two profiles that share a counter share its
//! budget, which two real players never notice. The hash has a random key, so nobody can choose
//! whom to share with.
//!
//! **Invariant:** only accepted events use up the budget. What a request has reserved comes back
//! when the request fails, is cancelled or panics.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const MINUTE_MS: u64 = 60_000;
/// Number of counters: half a mebibyte. With 1,000 profiles a minute in one environment, one in
/// 65 shares a counter.
const SLOTS: usize = 1 << 16;

/// The budgets of all profiles, in one environment.
#[derive(Debug, Clone)]
pub struct Budgets {
    /// `None`: there is no limit.
    limit: Option<NonZeroU32>,
    /// Each counter is a minute (the upper half) and the events accepted in it (the lower).
    slots: Arc<[AtomicU64]>,
    hash: RandomState,
}

/// What a request has reserved. It comes back on drop, unless it was [spent](Self::spend).
#[derive(Debug)]
pub(crate) struct Reservation<'a> {
    budgets: &'a Budgets,
    /// Slots, each with the minute and the events that are reserved in it.
    reserved: Vec<(usize, u32, u32)>,
}

/// A profile has no budget left in this minute.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Exhausted {
    /// Whose.
    pub(crate) profile_id: String,
    /// Its limit per minute.
    pub(crate) limit: u32,
    /// Until the next minute begins, in seconds, rounded up.
    pub(crate) seconds_left: u32,
}

impl Budgets {
    /// At most so many events of each profile per minute; 0 means any number.
    pub fn new(events_per_minute: u32) -> Self {
        let limit = NonZeroU32::new(events_per_minute);
        let slots = if limit.is_some() { SLOTS } else { 0 };
        Self { limit, slots: (0..slots).map(|_| AtomicU64::new(0)).collect(), hash: RandomState::new() }
    }

    /// Reserves what a request at `now` needs, for all of its profiles or for none.
    ///
    /// A request that finds its counter at zero always passes. Otherwise one with more events than
    /// the limit could never be sent.
    pub(crate) fn reserve<'p>(
        &self,
        profiles: impl Iterator<Item = &'p str>,
        now: u64,
    ) -> Result<Reservation<'_>, Exhausted> {
        let minute = u32::try_from(now / MINUTE_MS).unwrap_or(u32::MAX);
        let mut reservation = Reservation { budgets: self, reserved: Vec::new() };
        let Some(limit) = self.limit else { return Ok(reservation) };
        let mut events = BTreeMap::<&str, u32>::new();
        for profile_id in profiles {
            *events.entry(profile_id).or_default() += 1;
        }
        for (profile_id, events) in events {
            let slot = self.slot_of(profile_id);
            // Another request may be in the next minute already, or the clock may have gone back.
            let minute_of = |counter| minute.max(minute_of(counter));
            let reserve = |counter| {
                let (minute, so_far) = (minute_of(counter), events_of(counter, minute_of(counter)));
                let fits = so_far == 0 || so_far.saturating_add(events) <= limit.get();
                fits.then(|| pack(minute, so_far.saturating_add(events)))
            };
            let Ok(before) = self.slots[slot].fetch_update(Relaxed, Relaxed, reserve) else {
                let seconds_left = (MINUTE_MS - now % MINUTE_MS).div_ceil(1000) as u32;
                return Err(Exhausted { profile_id: profile_id.to_owned(), limit: limit.get(), seconds_left });
            };
            reservation.reserved.push((slot, minute_of(before), events));
        }
        Ok(reservation)
    }

    fn slot_of(&self, profile_id: &str) -> usize {
        self.hash.hash_one(profile_id) as usize % self.slots.len()
    }
}

impl Reservation<'_> {
    /// The events were accepted.
    pub(crate) fn spend(mut self) {
        self.reserved.clear();
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        for (slot, minute, events) in self.reserved.drain(..) {
            let give_back = |counter| {
                let is_same_minute = minute_of(counter) == minute;
                is_same_minute.then(|| pack(minute, events_of(counter, minute).saturating_sub(events)))
            };
            // An error only means that the minute is over, and its counter with it.
            let _ = self.budgets.slots[slot].fetch_update(Relaxed, Relaxed, give_back);
        }
    }
}

fn minute_of(counter: u64) -> u32 {
    (counter >> 32) as u32
}

/// The events that a counter has for this minute.
fn events_of(counter: u64, minute: u32) -> u32 {
    if minute_of(counter) == minute { counter as u32 } else { 0 }
}

fn pack(minute: u32, events: u32) -> u64 {
    u64::from(minute) << 32 | u64::from(events)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_790_000_010_200;

    fn reserve<'a>(
        budgets: &'a Budgets,
        profile_id: &str,
        events: usize,
        now: u64,
    ) -> Result<Reservation<'a>, Exhausted> {
        budgets.reserve(std::iter::repeat_n(profile_id, events), now)
    }

    fn spends(budgets: &Budgets, events: usize, now: u64) -> bool {
        reserve(budgets, "p1", events, now).map(Reservation::spend).is_ok()
    }

    /// A profile that shares no counter with p1.
    fn other(budgets: &Budgets) -> String {
        let mut others = (2..).map(|n| format!("p{n}"));
        others.find(|other| budgets.slot_of(other) != budgets.slot_of("p1")).unwrap()
    }

    #[test]
    fn each_profile_has_its_budget_every_minute() {
        let budgets = Budgets::new(100);
        assert!(spends(&budgets, 60, NOW) && spends(&budgets, 40, NOW + 1_000));
        assert_eq!(
            reserve(&budgets, "p1", 1, NOW).unwrap_err(),
            Exhausted { profile_id: "p1".into(), limit: 100, seconds_left: 30 }
        );
        reserve(&budgets, &other(&budgets), 100, NOW).unwrap().spend();
        let next_minute = NOW.next_multiple_of(MINUTE_MS);
        assert!(!spends(&budgets, 1, next_minute - 1) && spends(&budgets, 100, next_minute));
        assert!(!spends(&budgets, 1, NOW), "a request with the clock of the last minute");
    }

    #[test]
    fn seconds_left_are_one_to_sixty() {
        let at = |ms: u64| {
            let budgets = Budgets::new(1);
            let now = NOW.next_multiple_of(MINUTE_MS) + ms;
            reserve(&budgets, "p1", 1, now).unwrap().spend();
            reserve(&budgets, "p1", 1, now).unwrap_err().seconds_left
        };
        assert_eq!((at(0), at(1), at(1_000), at(59_000), at(59_001), at(59_999)), (60, 60, 59, 1, 1, 1));
    }

    #[test]
    fn failed_request_uses_up_nothing() {
        let budgets = Budgets::new(100);
        for _ in 0..10 {
            drop(reserve(&budgets, "p1", 100, NOW).unwrap());
        }
        // The reservation of one profile comes back when another has none left.
        let other = other(&budgets);
        reserve(&budgets, &other, 100, NOW).unwrap().spend();
        for _ in 0..10 {
            let both = ["p1"; 60].into_iter().chain([other.as_str()]);
            assert_eq!(budgets.reserve(both, NOW).unwrap_err().profile_id, other);
        }
        let across = reserve(&budgets, "p1", 100, NOW).unwrap();
        let next_minute = NOW + MINUTE_MS;
        assert!(spends(&budgets, 100, next_minute));
        drop(across);
        assert!(!spends(&budgets, 1, next_minute), "a request of the last minute gives nothing to this one");
    }

    #[test]
    fn request_larger_than_the_limit_passes_alone() {
        let budgets = Budgets::new(10);
        assert!(spends(&budgets, 500, NOW) && !spends(&budgets, 1, NOW));
        assert!(spends(&budgets, 1, NOW + MINUTE_MS) && !spends(&budgets, 500, NOW + MINUTE_MS));
    }

    #[test]
    fn zero_is_no_limit() {
        let budgets = Budgets::new(0);
        assert!((0..100).all(|_| spends(&budgets, 500, NOW)));
    }

    #[test]
    fn concurrent_requests_never_exceed_the_limit() {
        let budgets = Budgets::new(1_000);
        let spend = || (0..1_000).filter(|n| n % 3 > 0 && spends(&budgets, 1, NOW)).count();
        let spent: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(spend)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(spent, 1_000);
    }
}
