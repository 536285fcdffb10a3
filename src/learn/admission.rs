//! Admission: the rank an item must have to enter the main log.
//!
//! An item that enters pushes another out, so the bar is where the main log's own items rank now,
//! not where the hand last found those it was about to drop: the hand sees the oldest only, and
//! while nobody is let in it sees none at all, and a bar taken from it fossilises the log (Twitter at
//! 0.1 % of the footprint: miss ratio 0.396 instead of 0.347). Hence with every few insertions one
//! item of the main log, drawn at random, is ranked; the bar is a low quantile of these ranks. An
//! item whose ghost was still remembered has shown that dropping it was early: its bar is lower.

use crate::learn::histogram::Histogram;

/// Ranks of randomly drawn items of the main log, and two of their quantiles.
#[derive(Clone, Default)]
pub struct Admission {
    ranks: Histogram,
    bar: f32,
    bar_returned: f32,
    samples: u32,
    insertions: u32,
}

impl Admission {
    /// Everything is admitted until samples say otherwise.
    pub fn new() -> Admission {
        Admission::default()
    }

    /// Whether an item at the end of the small log may go on to the main log.
    #[inline]
    pub fn admits(&self, rank: f32) -> bool {
        rank > self.bar
    }

    /// Whether an item whose ghost was remembered may enter the main log at once.
    #[inline]
    pub fn admits_returned(&self, rank: f32) -> bool {
        rank > self.bar_returned
    }

    /// Counts an insertion into a store of `resident` items; answers whether to draw a sample.
    #[inline]
    pub fn wants_sample(&mut self, resident: u64) -> bool {
        self.insertions += 1;
        let every = (resident / WINDOW_MAX as u64).clamp(1, u64::from(INSERTIONS_PER_SAMPLE_MAX));
        let wants = u64::from(self.insertions) >= every;
        self.insertions = if wants { 0 } else { self.insertions };
        wants
    }

    /// Notes the rank of a randomly drawn item of `bytes` bytes.
    pub fn sample(&mut self, rank: f32, bytes: u32, resident: u64) {
        let window = (resident as f32).clamp(WINDOW_MIN, WINDOW_MAX);
        self.ranks.add(rank, bytes as f32);
        self.ranks.fade(1.0 - 1.0 / window);
        self.samples += 1;
        if self.samples >= SAMPLES_PER_BAR {
            self.samples = 0;
            self.bar = BAR_FACTOR * self.ranks.quantile(QUANTILE);
            self.bar_returned = BAR_FACTOR * self.ranks.quantile(QUANTILE_RETURNED);
        }
    }
}

/// Share of the main log's bytes that an item at the end of the small log must outrank. Gap closed at
/// 0.30 0.420, 0.40 and 0.45 0.418, here 0.422.
const QUANTILE: f32 = 0.35;
/// The same for one whose ghost was remembered.
const QUANTILE_RETURNED: f32 = 0.2;
/// Ranks come in steps; an item exactly on the bar has not outranked it.
const BAR_FACTOR: f32 = 1.1;
/// Samples that count, at least and at most: as many as there are items.
const WINDOW_MIN: f32 = 50.0;
const WINDOW_MAX: f32 = 4096.0;
/// Samples between two looks at the quantiles.
const SAMPLES_PER_BAR: u32 = 8;
/// A sample costs two cache misses; large stores draw one in sixteen insertions.
const INSERTIONS_PER_SAMPLE_MAX: u32 = 16;
