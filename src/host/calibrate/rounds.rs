//! Batches to a round's figure, rounds to a figure with its noise.
//!
//!   slice of a round: | batch | batch | batch | … |  → median batch, in ns an operation
//!   rounds: 12.1  12.0  12.3 …                       → Measured { 12.1, 11.6 to 12.7, 9 rounds }
//!
//! The first batch of a slice is thrown away: it pays for what the subject before it left in caches and predictors, and
//! for a core that had gone to sleep.

use std::time::{Duration, Instant};

use crate::base::limits;
use crate::host::calibration::{Measured, median};

/// A subject's rounds.
#[derive(Clone, Debug)]
pub struct Rounds {
    figures: Vec<f64>,
    resolution: f64,
    drift_share: f64,
}

impl Rounds {
    /// For a subject whose figures the timer cannot tell apart by less than `resolution`.
    pub fn with_resolution(resolution: f64) -> Rounds {
        Rounds { figures: Vec::new(), resolution, drift_share: limits::CALIBRATE_DRIFT_SHARE }
    }

    /// For a subject that is known to drift by another share of itself.
    pub fn with_drift(drift_share: f64) -> Rounds {
        Rounds { figures: Vec::new(), resolution: 0.0, drift_share }
    }

    /// Takes a round's figure in; one that is no number is none.
    pub fn add(&mut self, figure: f64) {
        if figure.is_finite() {
            self.figures.push(figure);
        }
    }

    /// The figure, if any round gave one.
    pub fn measured(&self) -> Option<Measured> {
        Measured::of_rounds(&self.figures, self.resolution, self.drift_share)
    }
}

/// Runs batches of `operations` for as long as `slice` lasts, and answers the median batch in nanoseconds an operation.
/// At least [`BATCHES_MIN`] of them count, however short the slice.
pub fn median_batch(slice: Duration, operations: u32, mut batch: impl FnMut()) -> f64 {
    batch();
    let started = Instant::now();
    let mut figures = Vec::with_capacity(BATCHES_RESERVED);
    let mut before = started;
    while figures.len() < BATCHES_MIN || before - started < slice {
        batch();
        // One reading ends a batch and begins the next.
        let now = Instant::now();
        figures.push((now - before).as_nanos() as f64 / f64::from(operations.max(1)));
        before = now;
    }
    median(&figures).unwrap_or(f64::NAN)
}

/// What the timer leaves open of a batch of `operations`: a reading at each end, in nanoseconds an operation.
pub fn resolution_ns(clock_ns: f64, operations: u32) -> f64 {
    2.0 * clock_ns / f64::from(operations.max(1))
}

/// Fewest batches whose median is one: of seven three may be interrupted.
pub const BATCHES_MIN: usize = 7;

/// Room for the batches of a slice, so that few of them pay for more.
const BATCHES_RESERVED: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interrupted_batches_do_not_move_the_median() {
        let mut number = 0;
        let figure = median_batch(Duration::ZERO, 1, || {
            number += 1;
            // Three of the seven that count, and the first, which does not.
            let slow = [1, 3, 4, 7].contains(&number);
            std::thread::sleep(Duration::from_millis(if slow { 60 } else { 1 }));
        });
        assert_eq!(number, BATCHES_MIN + 1);
        assert!((1e6..30e6).contains(&figure), "{figure}");
    }

    #[test]
    fn a_round_without_a_figure_counts_as_none() {
        let mut rounds = Rounds::with_resolution(0.5);
        assert_eq!(rounds.measured(), None);
        rounds.add(f64::NAN);
        assert_eq!(rounds.measured(), None);
        for figure in [3.0, 1.0, 2.0] {
            rounds.add(figure);
        }
        let measured = rounds.measured().unwrap();
        assert_eq!((measured.median, measured.rounds), (2.0, 3));
        assert!(measured.low <= 0.5 && measured.high >= 3.5, "{measured:?}");
    }
}
