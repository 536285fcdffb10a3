//! Rounds and percentiles.
//!
//! A round times its requests twice over: a batch between two readings of the clock, which gives
//! the mean without the timer's cost, then single requests between two readings each, which give
//! the tail. From a single's time the median of an empty single is subtracted. That is the timer's
//! cost to within its own scatter (a few nanoseconds), so a p99 near that size says no more than
//! "small"; what falls below zero counts as zero.

use std::hint::black_box;
use std::time::Instant;

/// What one request leaves behind.
pub struct Answer {
    /// Joins the next request's key number: the next request cannot begin before this is known.
    pub carry: u64,
    /// Joins the checksum.
    pub sum: u64,
}

/// One subject's part of one round.
pub struct Round {
    /// Nanoseconds a request in the batch.
    pub mean_ns: f64,
    /// Nanoseconds of each single request, the timer's cost subtracted.
    pub singles: Vec<u32>,
    /// Sum over all requests of what they answered.
    pub checksum: u64,
    /// Requests that found nothing.
    pub misses: u64,
}

/// How many requests a round has, and what an empty single costs.
#[derive(Clone, Copy)]
pub struct Extent {
    pub batch: usize,
    pub singles: usize,
    pub timer_ns: u32,
}

/// Times requests `0..batch`, then `batch..batch + singles`.
#[inline]
pub fn round(extent: Extent, mut request: impl FnMut(usize, u64) -> Answer) -> Round {
    let (mut carry, mut checksum) = (0, 0u64);
    let start = Instant::now();
    for number in 0..extent.batch {
        let answer = request(number, carry);
        carry = answer.carry;
        checksum = checksum.wrapping_add(answer.sum);
    }
    // The last answer must be there before the clock is read.
    carry = black_box(carry);
    let mean_ns = start.elapsed().as_nanos() as f64 / extent.batch.max(1) as f64;

    let mut singles = vec![0u32; extent.singles];
    for (number, single) in singles.iter_mut().enumerate() {
        let start = Instant::now();
        let answer = request(black_box(extent.batch + number), carry);
        carry = black_box(answer.carry);
        let ns = start.elapsed().as_nanos();
        *single = u32::try_from(ns).unwrap_or(u32::MAX).saturating_sub(extent.timer_ns);
        checksum = checksum.wrapping_add(answer.sum);
    }
    Round { mean_ns, singles, checksum, misses: 0 }
}

/// The value that `share` of `values` do not exceed. Reorders them.
pub fn percentile(values: &mut [u32], share: f64) -> f64 {
    let rank = ((values.len() as f64 * share).ceil() as usize).clamp(1, values.len()) - 1;
    f64::from(*values.select_nth_unstable(rank).1)
}

/// The median; of an even number the mean of the middle two.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

/// A subject's rounds of one case.
#[derive(Default)]
pub struct Rounds {
    pub mean_ns: Vec<f64>,
    pub p99_ns: Vec<f64>,
    pub longest_ns: Vec<f64>,
    /// For each single its fastest round. Where every round does the same work from the same
    /// state, what interrupted one of them is gone and what the subject itself takes is left.
    pub fastest: Vec<u32>,
    pub misses: u64,
    pub checksum: u64,
}

impl Rounds {
    pub fn add(&mut self, mut round: Round) {
        if self.fastest.is_empty() {
            self.fastest = round.singles.clone();
            self.checksum = round.checksum;
        }
        for (fastest, &single) in self.fastest.iter_mut().zip(&round.singles) {
            *fastest = single.min(*fastest);
        }
        assert_eq!(self.checksum, round.checksum, "a round did other work than the one before");
        self.mean_ns.push(round.mean_ns);
        self.p99_ns.push(percentile(&mut round.singles, 0.99));
        self.longest_ns.push(percentile(&mut round.singles, 1.0));
        self.misses = round.misses;
    }
}
