//! The running cut: the rank below which the hand drops an item.
//!
//! The hand walks the main log oldest first and wants to drop one byte in `W`. Collecting a window
//! of `W` segments and sorting it would give that share exactly, and a pause of milliseconds with
//! it. Instead the ranks seen lately are kept in a histogram by half a quarter octave, weighted by
//! bytes and slowly forgotten, and the cut is its 1/W quantile. What the last walks dropped too
//! little or too much shifts the share asked of the next, so the log cannot creep.

/// A histogram of ranks, and the quantile that is dropped.
#[derive(Clone)]
pub struct Cut {
    bins: Box<[f32; BINS]>,
    total: f32,
    /// What a byte observed now weighs. It grows with every walk, so that older observations fade
    /// without being touched; now and then everything is scaled back.
    weight: f32,
    /// Bytes still owed (positive) or dropped ahead of schedule.
    debt: f32,
    cut: f32,
    /// Smoothed cut: what an item must outrank to enter the main log.
    admission: f32,
}

impl Cut {
    /// A cut that drops nothing until ranks have been seen.
    pub fn new() -> Cut {
        Cut { bins: Box::new([0.0; BINS]), total: 0.0, weight: 1.0, debt: 0.0, cut: 0.0, admission: 0.0 }
    }

    /// Whether an item of this rank is dropped now.
    #[inline]
    pub fn drops(&self, rank: f32) -> bool {
        rank <= self.cut
    }

    /// Whether an item of this rank may enter the main log: it would not be dropped first there.
    #[inline]
    pub fn admits(&self, rank: f32) -> bool {
        rank > self.admission
    }

    /// Notes the rank of `bytes` bytes that the hand is about to pass.
    #[inline]
    pub fn observe(&mut self, rank: f32, bytes: u32) {
        let weighed = bytes as f32 * self.weight;
        self.bins[bin(rank)] += weighed;
        self.total += weighed;
    }

    /// Sets the cut for the next walk over about `bytes` bytes.
    pub fn aim(&mut self, bytes: f32) {
        if self.total <= 0.0 {
            return;
        }
        let share =
            (1.0 / WINDOW_SEGMENTS + self.debt / bytes.max(1.0) / WINDOW_SEGMENTS).clamp(0.5 / WINDOW_SEGMENTS, 1.0);
        let mut wanted = share * self.total;
        let mut index = 0;
        while index < BINS - 1 && wanted > self.bins[index] {
            wanted -= self.bins[index];
            index += 1;
        }
        // Within the bin ranks are taken as spread evenly on the logarithm.
        let within = if self.bins[index] > 0.0 { wanted / self.bins[index] } else { 0.0 };
        self.cut = bin_rank(index as f32 + within.clamp(0.0, 1.0));
        self.admission = if self.admission == 0.0 { self.cut } else { 0.8 * self.admission + 0.2 * self.cut };
    }

    /// Notes a walk of the small log. While everything is refused at the door nothing leaves the
    /// main log, so the bar would stay where it was set and the log fossilise: it sinks a little
    /// with each such walk until somebody gets in and the main log is looked at again.
    pub fn small_walked(&mut self) {
        self.admission *= IDLE;
    }

    /// Closes a walk that passed `passed` bytes and dropped `dropped` of them.
    pub fn walked(&mut self, passed: f32, dropped: f32) {
        self.debt = (self.debt + passed / WINDOW_SEGMENTS - dropped).clamp(-passed, WINDOW_SEGMENTS * passed);
        self.weight /= MEMORY;
        if self.weight > WEIGHT_MAX {
            self.bins.iter_mut().for_each(|value| *value /= self.weight);
            self.total = self.bins.iter().sum();
            self.weight = 1.0;
        }
    }
}

impl Default for Cut {
    fn default() -> Cut {
        Cut::new()
    }
}

#[inline]
fn bin(rank: f32) -> usize {
    // The float's own exponent and top three mantissa bits: eight bins an octave, no logarithm.
    let position = (rank.to_bits() >> 20) as i32 - LOWEST;
    position.clamp(0, BINS as i32 - 1) as usize
}

fn bin_rank(position: f32) -> f32 {
    let whole = position.floor();
    let bits = ((whole as i32 + LOWEST) as u32) << 20;
    let (low, high) = (f32::from_bits(bits), f32::from_bits(bits + (1 << 20)));
    low + (high - low) * (position - whole)
}

/// The hand drops one byte in this many.
const WINDOW_SEGMENTS: f32 = 16.0;
/// What a walk leaves of the histogram.
const MEMORY: f32 = 0.85;
/// What a walk of the small log leaves of the bar.
const IDLE: f32 = 0.98;
/// Scale at which the histogram is brought back to weight one.
const WEIGHT_MAX: f32 = 1e9;
/// Bins: eight an octave over 64 octaves.
const BINS: usize = 512;
/// Bit pattern of the lowest bin, 2^-56: ranks are hits per byte and tick.
const LOWEST: i32 = (127 - 56) << 3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::prng::Prng;

    #[test]
    fn bins_hold_the_ranks_they_stand_for() {
        for rank in [1e-9f32, 3.7e-5, 0.01, 0.5, 1.0, 77.0] {
            let index = bin(rank);
            assert!(bin_rank(index as f32) <= rank && rank < bin_rank(index as f32 + 1.0), "{rank}");
        }
    }

    #[test]
    fn about_one_byte_in_sixteen_is_dropped() {
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
        assert!((0.057..0.068).contains(&share), "{share}");
    }
}
