//! The running cut: the rank below which the hand drops an item of the main log.
//!
//! The hand walks the main log oldest first and wants to drop one byte in `SHARE`. Collecting a
//! window of segments and sorting it would give that share exactly, and a pause of milliseconds with
//! it. Instead the ranks seen lately are kept in a histogram, weighted by bytes, and the cut is its
//! 1/SHARE quantile. What the last walks dropped too little or too much shifts the share asked of
//! the next, so the log cannot creep.

use crate::learn::histogram::Histogram;

/// Ranks seen by the hand, and the quantile that is dropped.
#[derive(Clone, Default)]
pub struct Cut {
    ranks: Histogram,
    /// Bytes still owed (positive) or dropped ahead of schedule.
    debt: f32,
    cut: f32,
}

impl Cut {
    /// A cut that drops nothing until ranks have been seen.
    pub fn new() -> Cut {
        Cut::default()
    }

    /// Whether an item of this rank is dropped now.
    #[inline]
    pub fn drops(&self, rank: f32) -> bool {
        rank <= self.cut
    }

    /// Notes the rank of `bytes` bytes that the hand is about to pass.
    #[inline]
    pub fn observe(&mut self, rank: f32, bytes: u32) {
        self.ranks.add(rank, bytes as f32);
    }

    /// Sets the cut for the next walk over about `bytes` bytes.
    pub fn aim(&mut self, bytes: f32) {
        if !self.ranks.is_empty() {
            let share = (1.0 + self.debt / bytes.max(1.0)) / SHARE;
            self.cut = self.ranks.quantile(share.clamp(0.5 / SHARE, 1.0));
        }
    }

    /// Closes a walk that passed `passed` bytes and dropped `dropped` of them.
    pub fn walked(&mut self, passed: f32, dropped: f32) {
        self.debt = (self.debt + passed / SHARE - dropped).clamp(-passed, SHARE * passed);
        self.ranks.fade(MEMORY);
    }
}

/// The hand drops one byte of the main log in this many. With 16 it copies twice as much for a gap
/// closed that differs by 0.002.
const SHARE: f32 = 8.0;
/// What a walk leaves of the histogram.
const MEMORY: f32 = 0.95;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::prng::Prng;

    #[test]
    #[cfg_attr(miri, ignore = "arithmetic only, half a million times")]
    fn about_one_byte_in_eight_is_dropped() {
        let (mut cut, mut prng) = (Cut::new(), Prng::new(3));
        let (mut passed, mut dropped) = (0.0f64, 0.0f64);
        for walk in 0..400 {
            cut.aim(100_000.0);
            let (mut walk_passed, mut walk_dropped) = (0.0, 0.0);
            for _ in 0..1000 {
                let rank = prng.unit() as f32 * 1e-4;
                cut.observe(rank, 100);
                walk_passed += 100.0;
                if cut.drops(rank) {
                    walk_dropped += 100.0;
                }
            }
            cut.walked(walk_passed, walk_dropped);
            if walk >= 50 {
                passed += f64::from(walk_passed);
                dropped += f64::from(walk_dropped);
            }
        }
        let share = dropped / passed;
        assert!((0.115..0.135).contains(&share), "{share}");
    }
}
