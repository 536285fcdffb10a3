//! Objects or bytes: how much an item's size counts against it.
//!
//! Ranking by hits per byte buys many small hits with few large ones. Fewer requests miss, but those
//! that do are the large ones, and an origin that pays by the byte pays more than under plain LRU (on
//! one block trace by 21 %, on Twitter's at a tenth of the footprint by 12 %). So a small LRU runs
//! beside the store on a hash sample of the keys, and tells what recency alone would have missed in
//! bytes. The rank is divided by `bytes^exponent`; the exponent is 1 while we miss no more bytes than
//! that, and falls to 0 when we miss 3 % more (1). A sample of at most 4,096 entries suffices,
//! since both sides see the same keys and only the ratio counts.
//!
//! Rejected: a fixed exponent of 0.7 (no row above 1.05, but Twitter at 0.1 % goes from 0.345 to
//! 0.362).
//!
//! (1) The idea of steering a policy by a simulated small one: Waldspurger et al., "Cache modeling and
//!     optimization using miniature simulations", USENIX ATC 2017

use crate::base::hash::KeyHash;
use crate::learn::lru::Lru;

/// A small LRU, what it and we missed, and the exponent that follows.
#[derive(Clone)]
pub struct Balance {
    lru: Lru,
    /// Hashes whose lower half lies below are in the sample.
    threshold: u64,
    /// One entry in `1 << sample_shift`.
    sample_shift: u32,
    resident: u64,
    /// What the small LRU's capacity is to become.
    capacity: u64,
    missed_by_us: f32,
    missed_by_lru: f32,
    requests: f32,
    exponent: f32,
}

impl Balance {
    /// Nothing sampled yet, exponent 1.
    pub fn new() -> Balance {
        let mut lru = Lru::new(0);
        lru.reserve(ENTRIES_MAX);
        Balance {
            lru,
            threshold: 0,
            sample_shift: 0,
            resident: 0,
            capacity: 0,
            missed_by_us: 0.0,
            missed_by_lru: 0.0,
            requests: 0.0,
            exponent: 1.0,
        }
    }

    /// What sizes are raised to before a rank is divided by them, 0 to 1.
    #[inline]
    pub fn exponent(&self) -> f32 {
        self.exponent
    }

    /// Starts from what another has found.
    pub fn start_from(&mut self, exponent: f32) {
        self.exponent = exponent;
    }

    /// Whether the methods below want to hear of this key.
    #[inline]
    pub fn is_sampled(&self, hash: KeyHash) -> bool {
        u64::from(hash.bucket_bits()) < self.threshold
    }

    /// Follows the store's size: `resident` items, room for items that are charged `capacity`. Samples
    /// nothing while it is not needed: below a few thousand items every request would be in the sample.
    pub fn pace(&mut self, resident: u64, capacity: u64, is_needed: bool) {
        self.resident = resident;
        while resident >> self.sample_shift > SAMPLE_MAX {
            self.sample_shift += 1;
        }
        self.threshold = if is_needed { SAMPLE_ALL >> self.sample_shift } else { 0 };
        self.capacity = capacity >> self.sample_shift;
    }

    /// A read that we served.
    pub fn hit(&mut self, hash: KeyHash, charge: u32) {
        self.count();
        if self.lru.refresh(hash.0).is_none() {
            self.missed_by_lru += charge as f32;
            self.insert(hash, charge);
        }
    }

    /// A read that we did not serve.
    pub fn missed(&mut self, hash: KeyHash) {
        self.count();
        if let Some(size) = self.lru.refresh(hash.0) {
            self.missed_by_us += size as f32;
        }
    }

    /// A write. What neither of us held was missed by both: a read tells no size, so it is counted when
    /// the value arrives.
    pub fn written(&mut self, hash: KeyHash, charge: u32, was_held: bool) {
        let was_in_lru = self.lru.remove(hash.0).is_some();
        if !was_held && !was_in_lru {
            self.missed_by_us += charge as f32;
            self.missed_by_lru += charge as f32;
        }
        self.insert(hash, charge);
    }

    /// The key was deleted or has expired: LRU would not have it either.
    pub fn removed(&mut self, hash: KeyHash) {
        self.lru.remove(hash.0);
    }

    /// Everything was deleted.
    pub fn forget_entries(&mut self) {
        self.lru.set_capacity(0);
    }

    fn insert(&mut self, hash: KeyHash, charge: u32) {
        if self.lru.len() == ENTRIES_MAX {
            self.lru.pop_oldest();
        }
        self.lru.insert(hash.0, charge);
    }

    fn count(&mut self) {
        // A smaller capacity and a smaller sample are approached a few entries at a time.
        let held = self.lru.held();
        self.lru.set_capacity(self.capacity.max(held - held / SHRINK_SHARE));
        let threshold = self.threshold;
        self.lru.sweep(SWEPT_AT_ONCE, |key| key & 0xffff_ffff < threshold);
        let window = (WINDOW_TURNS * (self.resident >> self.sample_shift) as f32).max(WINDOW_MIN);
        let keep = 1.0 - 1.0 / window;
        self.missed_by_us *= keep;
        self.missed_by_lru *= keep;
        self.requests = self.requests * keep + 1.0;
        if self.requests > REQUESTS_MIN && self.missed_by_lru > 0.0 {
            let excess = self.missed_by_us / self.missed_by_lru - RATIO_FREE;
            self.exponent = 1.0 - (excess / EXCESS).clamp(0.0, 1.0);
        }
    }
}

impl Default for Balance {
    fn default() -> Balance {
        Balance::new()
    }
}

const SAMPLE_ALL: u64 = 1 << 32;
/// Entries of the sample, at most.
const SAMPLE_MAX: u64 = 4096;
/// Entries of the small LRU, at most: it may hold more and smaller ones than we do.
const ENTRIES_MAX: usize = 2 * SAMPLE_MAX as usize;
/// One part in this many leaves with a request while the capacity is too small.
const SHRINK_SHARE: u64 = 512;
/// Places looked at with a request for keys that are no longer in the sample.
const SWEPT_AT_ONCE: usize = 2;
/// Missed bytes over LRU's up to which sizes count in full, and how much more makes them count no
/// more. From 0.98 on the exponent sags where we are about as good as LRU (gap closed 0.417 instead of
/// 0.424); from 1.01 on one row in forty passes 1.05.
const RATIO_FREE: f32 = 1.0;
const EXCESS: f32 = 0.03;
/// Sampled requests that count: so many times the sampled entries, and at least so many.
const WINDOW_TURNS: f32 = 10.0;
const WINDOW_MIN: f32 = 2000.0;
/// Sampled requests before anything is concluded.
const REQUESTS_MIN: f32 = 500.0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::prng::mix;

    #[test]
    fn the_exponent_falls_while_we_miss_bytes_that_lru_would_not() {
        let mut balance = Balance::new();
        balance.pace(100, 1000, true);
        for round in 0..2000u64 {
            let (ours, large) = (KeyHash(mix(round % 50 + 1)), KeyHash(mix(77_777)));
            balance.hit(ours, 1);
            balance.missed(large);
            balance.written(large, 500, false);
        }
        assert_eq!(balance.exponent(), 0.0);
        for round in 0..20_000u64 {
            balance.hit(KeyHash(mix(round % 2000 + 1)), 10);
        }
        assert_eq!(balance.exponent(), 1.0);
    }

    #[test]
    #[cfg_attr(miri, ignore = "a million keys")]
    fn the_sample_stays_small_in_a_large_store() {
        let mut balance = Balance::new();
        balance.pace(1_000_000, 120_000_000, true);
        for key in 0..1_000_000u64 {
            let hash = KeyHash(mix(key));
            if balance.is_sampled(hash) {
                balance.missed(hash);
                balance.written(hash, 120, false);
            }
        }
        assert!((3000..5200).contains(&balance.lru.len()), "{}", balance.lru.len());
    }
}
