//! A histogram of ranks that forgets, and its quantiles.
//!
//! Eight bins an octave over 64 octaves, by the float's own exponent and top three bits of its
//! mantissa. To forget, nothing is touched: what is added later weighs more.

/// Weights by rank.
#[derive(Clone)]
pub struct Histogram {
    bins: Box<[f32; BINS]>,
    total: f32,
    /// What a unit added now weighs. Now and then everything is scaled back.
    weight: f32,
}

impl Histogram {
    /// Nothing seen.
    pub fn new() -> Histogram {
        Histogram { bins: Box::new([0.0; BINS]), total: 0.0, weight: 1.0 }
    }

    /// Counts `amount` of this rank.
    #[inline]
    pub fn add(&mut self, rank: f32, amount: f32) {
        let weighed = amount * self.weight;
        self.bins[bin(rank)] += weighed;
        self.total += weighed;
    }

    /// Lets all that was added so far count for `share` of what it did.
    #[inline]
    pub fn fade(&mut self, share: f32) {
        self.weight /= share;
        if self.weight > WEIGHT_MAX {
            self.bins.iter_mut().for_each(|value| *value /= self.weight);
            self.total = self.bins.iter().sum();
            self.weight = 1.0;
        }
    }

    /// The rank below which `share` of the weight lies; zero while nothing was added.
    pub fn quantile(&self, share: f32) -> f32 {
        if self.total <= 0.0 {
            return 0.0;
        }
        let mut wanted = share * self.total;
        let mut index = 0;
        while index < BINS - 1 && wanted > self.bins[index] {
            wanted -= self.bins[index];
            index += 1;
        }
        // Within the bin ranks are taken as spread evenly.
        let within = if self.bins[index] > 0.0 { wanted / self.bins[index] } else { 0.0 };
        bin_rank(index as f32 + within.clamp(0.0, 1.0))
    }

    /// Whether nothing was added yet.
    pub fn is_empty(&self) -> bool {
        self.total <= 0.0
    }
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram::new()
    }
}

#[inline]
fn bin(rank: f32) -> usize {
    let position = (rank.to_bits() >> 20) as i32 - LOWEST;
    position.clamp(0, BINS as i32 - 1) as usize
}

fn bin_rank(position: f32) -> f32 {
    let whole = position.floor();
    let bits = ((whole as i32 + LOWEST) as u32) << 20;
    let (low, high) = (f32::from_bits(bits), f32::from_bits(bits + (1 << 20)));
    low + (high - low) * (position - whole)
}

const BINS: usize = 512;
/// Bit pattern of the lowest bin, 2^-56: ranks are hits per byte and tick.
const LOWEST: i32 = (127 - 56) << 3;
/// Scale at which everything is brought back to weight one.
const WEIGHT_MAX: f32 = 1e6;

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
    fn quantiles_follow_what_was_added_last() {
        let (mut histogram, mut prng) = (Histogram::new(), Prng::new(1));
        assert_eq!(histogram.quantile(0.5), 0.0);
        for scale in [1.0, 1e-3] {
            for _ in 0..20_000 {
                histogram.fade(1.0 - 1.0 / 1000.0);
                histogram.add(prng.unit() as f32 * scale, 100.0);
            }
            let quantile = histogram.quantile(0.25) / scale;
            assert!((0.22..0.28).contains(&quantile), "{quantile}");
        }
    }
}
