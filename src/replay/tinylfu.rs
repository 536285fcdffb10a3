//! W-TinyLFU (Einziger, Friedman & Manes, "TinyLFU: a highly efficient cache admission policy", ACM
//! Transactions on Storage 13(4), 2017), with the published parameters: a window of 1 % in front of
//! a segmented LRU whose protected part is four fifths, and frequencies up to 15 that are halved
//! after ten requests for each entry. Frequencies are counted exactly, without a sketch's collisions.
//! Sizes as in Caffeine: a candidate must outrank every victim that would have to leave for it.

use std::collections::HashMap;

use crate::base::hash::BuildMix;
use crate::learn::Lru;
use crate::replay::ReadThrough;

/// A window, a segmented LRU and what has been asked for how often.
pub struct WTinyLfu {
    window: Lru,
    probation: Lru,
    protected: Lru,
    window_capacity: u64,
    protected_capacity: u64,
    main_capacity: u64,
    frequencies: HashMap<u64, u8, BuildMix>,
    requests: u64,
}

impl WTinyLfu {
    pub fn new(capacity: u64) -> WTinyLfu {
        let window_capacity = (capacity / WINDOW_SHARE).max(1);
        let main_capacity = capacity.saturating_sub(window_capacity);
        // The queues themselves never drop anything: who leaves is decided here.
        let unbounded = || Lru::new(u64::MAX);
        WTinyLfu {
            window: unbounded(),
            probation: unbounded(),
            protected: unbounded(),
            window_capacity,
            protected_capacity: main_capacity / 5 * 4,
            main_capacity,
            frequencies: HashMap::default(),
            requests: 0,
        }
    }

    fn count(&mut self, key: u64) {
        let frequency = self.frequencies.entry(key).or_default();
        *frequency = (*frequency + 1).min(FREQUENCY_MAX);
        self.requests += 1;
        let entries = self.window.len() + self.probation.len() + self.protected.len();
        if self.requests >= REQUESTS_PER_ENTRY * (entries as u64).max(16) {
            self.requests /= 2;
            self.frequencies.retain(|_, frequency| {
                *frequency /= 2;
                *frequency > 0
            });
        }
    }

    fn frequency(&self, key: u64) -> u8 {
        self.frequencies.get(&key).copied().unwrap_or(0)
    }

    fn is_hit(&mut self, key: u64) -> bool {
        if self.window.refresh(key).is_some() || self.protected.refresh(key).is_some() {
            return true;
        }
        let Some(size) = self.probation.remove(key) else { return false };
        self.protected.insert(key, size);
        while self.protected.held() > self.protected_capacity {
            let Some((key, size)) = self.protected.pop_oldest() else { break };
            self.probation.insert(key, size);
        }
        true
    }

    /// Lets an object from the window into the main part if it outranks who must leave for it.
    fn admit(&mut self, key: u64, size: u32) {
        if u64::from(size) > self.main_capacity {
            return;
        }
        while self.probation.held() + self.protected.held() + u64::from(size) > self.main_capacity {
            let from = if self.probation.is_empty() { &mut self.protected } else { &mut self.probation };
            let Some(victim) = from.peek_oldest() else { return };
            if self.frequency(key) <= self.frequency(victim) {
                return;
            }
            let from = if self.probation.is_empty() { &mut self.protected } else { &mut self.probation };
            from.pop_oldest();
        }
        self.probation.insert(key, size);
    }
}

impl ReadThrough for WTinyLfu {
    fn read(&mut self, key: u64, size: u32, _: u32) -> bool {
        self.count(key);
        if self.is_hit(key) {
            return true;
        }
        self.window.insert(key, size);
        while self.window.held() > self.window_capacity {
            let Some((key, size)) = self.window.pop_oldest() else { break };
            self.admit(key, size);
        }
        false
    }
}

/// The window's share of the capacity: one part in this many.
const WINDOW_SHARE: u64 = 100;
const FREQUENCY_MAX: u8 = 15;
/// Requests for each entry after which frequencies are halved.
const REQUESTS_PER_ENTRY: u64 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newcomer_must_have_been_asked_for_more_often() {
        let mut cache = WTinyLfu::new(100);
        for _ in 0..4 {
            for key in 0..99 {
                let _ = cache.read(key, 1, 0);
            }
        }
        (1000..1500).for_each(|key| assert!(!cache.read(key, 1, 0)));
        let kept = (0..99).filter(|&key| cache.read(key, 1, 0)).count();
        assert!(kept >= 98, "{kept}");
    }
}
