//! How far another node is: round trips, loss, and how far its clock is off.
//!
//! *Round trips.* The mean moves by an eighth of what is new, as the smoothed round trip of TCP does (RFC 6298); the first
//! eight probes count alike, or the very first, which often pays for a cold path, would stand for seconds. Beside it the
//! 90th percentile of a sliding window: a link whose mean is fine and whose tail is not is no near link.
//!
//! *Clock offset.* Four moments, two by each clock (Mills, RFC 5905):
//!
//!    here    sent ---------.                 .---- returned        offset = ((received − sent)
//!                           \               /                                + (answered − returned)) / 2
//!    there                received -- answered                     error <= (round trip − time spent there) / 2
//!
//! Were both ways equally long, the offset would be exact; a way cannot take less than nothing, which bounds the error
//! whatever they are. So the probe with the shortest round trip is the one to believe, until it is so old that the two
//! clocks may have run apart by more than another's error.
//!
//! Time is an argument throughout: milliseconds of any clock that only goes forward.

use std::collections::VecDeque;

use crate::base::limits;

/// What is known of one link.
#[derive(Clone, Debug, Default)]
pub struct Estimate {
    mean_us: f64,
    /// Answers that made the mean, up to the number from which on it moves by a fixed part.
    weight: u32,
    window: VecDeque<Probe>,
    answered: u64,
    missed: u64,
}

/// How far another clock is ahead of this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockOffset {
    /// Microseconds it is ahead; behind, if negative.
    pub offset_us: i64,
    /// By how much that may be wrong, either way.
    pub error_us: u64,
}

/// The four moments of a probe, in microseconds: the first and last by the asker's clock, the others by the peer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamps {
    /// The question left.
    pub sent_us: u64,
    /// It arrived there.
    pub received_us: u64,
    /// The answer left there.
    pub answered_us: u64,
    /// It arrived here.
    pub returned_us: u64,
}

#[derive(Clone, Copy, Debug)]
struct Probe {
    at_ms: u64,
    /// None: missed.
    rtt_us: Option<u64>,
    clock: Option<ClockOffset>,
}

impl Estimate {
    /// A probe was answered.
    pub fn answered(&mut self, now_ms: u64, rtt_us: u64, clock: Option<ClockOffset>) {
        self.answered += 1;
        self.weight = (self.weight + 1).min(MEAN_OF);
        self.mean_us += (rtt_us as f64 - self.mean_us) / f64::from(self.weight);
        self.push(Probe { at_ms: now_ms, rtt_us: Some(rtt_us), clock });
    }

    /// A probe was not answered in time.
    pub fn missed(&mut self, now_ms: u64) {
        self.missed += 1;
        self.push(Probe { at_ms: now_ms, rtt_us: None, clock: None });
    }

    /// What was measured so far says nothing about what comes: the way was lost, and may be another when it is found.
    pub fn forget(&mut self) {
        (self.mean_us, self.weight) = (0.0, 0);
        self.window.clear();
    }

    /// The smoothed round trip, if any probe was answered.
    pub fn rtt_us(&self) -> Option<u64> {
        (self.weight > 0).then(|| self.mean_us.round() as u64)
    }

    /// What nine of ten recent round trips did not exceed.
    pub fn rtt_p90_us(&self, now_ms: u64) -> Option<u64> {
        let mut rtts: Vec<u64> = self.recent(now_ms).filter_map(|probe| probe.rtt_us).collect();
        rtts.sort_unstable();
        // The nearest rank: the smallest with nine tenths at or below it.
        let rank = (rtts.len() * 9).div_ceil(10);
        rank.checked_sub(1).map(|index| rtts[index])
    }

    /// What a request there costs, to compare regions by: halfway between what is usual and what is bad.
    pub fn cost_us(&self, now_ms: u64) -> Option<u64> {
        let usual = self.rtt_us()?;
        Some(usual.saturating_add(self.rtt_p90_us(now_ms).unwrap_or(usual)) / 2)
    }

    /// The part of recent probes that was not answered, 0 to 1.
    pub fn loss(&self, now_ms: u64) -> f64 {
        let (all, missed) = self
            .recent(now_ms)
            .fold((0u32, 0u32), |(all, missed), probe| (all + 1, missed + u32::from(probe.rtt_us.is_none())));
        f64::from(missed) / f64::from(all.max(1))
    }

    /// How far the peer's clock is ahead, by the probe that knows best.
    pub fn clock(&self, now_ms: u64) -> Option<ClockOffset> {
        let aged = |probe: &Probe| {
            let clock = probe.clock?;
            let drift_us = now_ms.saturating_sub(probe.at_ms).saturating_mul(limits::ROUTE_DRIFT_PPM) / 1_000;
            Some(ClockOffset { error_us: clock.error_us.saturating_add(drift_us), ..clock })
        };
        self.recent(now_ms).filter_map(aged).min_by_key(|clock| clock.error_us)
    }

    /// Probes ever answered and missed.
    pub fn counts(&self) -> (u64, u64) {
        (self.answered, self.missed)
    }

    fn push(&mut self, probe: Probe) {
        if self.window.len() == limits::ROUTE_WINDOW_PROBES {
            self.window.pop_front();
        }
        self.window.push_back(probe);
    }

    fn recent(&self, now_ms: u64) -> impl Iterator<Item = &Probe> {
        self.window.iter().filter(move |probe| now_ms.saturating_sub(probe.at_ms) <= limits::ROUTE_WINDOW_MS)
    }
}

impl ClockOffset {
    /// What four moments say. Nothing, if they cannot be true: a peer may write into its two what it likes.
    pub fn of(stamps: Stamps) -> Option<ClockOffset> {
        let rtt_us = stamps.returned_us.checked_sub(stamps.sent_us)?;
        let there_us = stamps.answered_us.checked_sub(stamps.received_us)?;
        let way_us = rtt_us.checked_sub(there_us)?;
        let difference = |a: u64, b: u64| i128::from(a) - i128::from(b);
        let sum = difference(stamps.received_us, stamps.sent_us) + difference(stamps.answered_us, stamps.returned_us);
        Some(ClockOffset { offset_us: i64::try_from(sum / 2).ok()?, error_us: way_us.div_ceil(2) })
    }
}

/// Answers that the mean is made of: each moves it by one part in so many.
const MEAN_OF: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::prng::Prng;

    fn after(rtts: impl IntoIterator<Item = u64>) -> Estimate {
        let mut estimate = Estimate::default();
        rtts.into_iter().enumerate().for_each(|(at, rtt_us)| estimate.answered(at as u64, rtt_us, None));
        estimate
    }

    #[test]
    fn the_first_answers_count_alike_and_later_ones_an_eighth() {
        assert_eq!(Estimate::default().rtt_us(), None);
        assert_eq!(after([1_000, 3_000]).rtt_us(), Some(2_000));
        let settled = after([1_000; 100]);
        assert_eq!(settled.rtt_us(), Some(1_000));
        let mut moved = settled;
        moved.answered(100, 9_000, None);
        assert_eq!(moved.rtt_us(), Some(2_000));
    }

    #[test]
    fn the_percentile_is_the_nearest_rank_of_the_window_and_forgets_what_is_old() {
        assert_eq!(after(1..=10).rtt_p90_us(10), Some(9));
        assert_eq!(after([5]).rtt_p90_us(0), Some(5));
        let window = limits::ROUTE_WINDOW_PROBES as u64;
        assert_eq!(after((0..window).map(|_| 9).chain((0..window).map(|_| 1))).rtt_p90_us(window), Some(1));
        let old = after([7]);
        assert_eq!(old.rtt_p90_us(limits::ROUTE_WINDOW_MS), Some(7));
        assert_eq!(old.rtt_p90_us(limits::ROUTE_WINDOW_MS + 1), None);
        assert_eq!(old.cost_us(limits::ROUTE_WINDOW_MS + 1), Some(7), "better than nothing");
    }

    #[test]
    fn loss_is_the_part_missed_of_recent_probes() {
        let mut estimate = after([1, 1, 1]);
        assert!(estimate.loss(3) == 0.0 && Estimate::default().loss(0) == 0.0);
        estimate.missed(4);
        assert!(estimate.loss(4) == 0.25 && estimate.counts() == (3, 1));
        estimate.forget();
        assert!(estimate.loss(5) == 0.0 && estimate.rtt_us().is_none() && estimate.counts() == (3, 1));
    }

    #[test]
    fn the_true_offset_is_always_within_the_error_however_unequal_the_ways() {
        let mut prng = Prng::new(1);
        for _ in 0..20_000 {
            let (there_us, back_us, dwell_us) = (prng.below(80_000), prng.below(80_000), prng.below(500));
            let offset = prng.below(2_000_000) as i64 - 1_000_000;
            let sent_us = 1_800_000_000_000_000 + prng.below(1_000_000);
            let by_peer = |us: u64| us.checked_add_signed(offset).unwrap();
            let clock = ClockOffset::of(Stamps {
                sent_us,
                received_us: by_peer(sent_us + there_us),
                answered_us: by_peer(sent_us + there_us + dwell_us),
                returned_us: sent_us + there_us + dwell_us + back_us,
            });
            let clock = clock.unwrap();
            assert!((clock.offset_us - offset).unsigned_abs() <= clock.error_us, "{offset}: {clock:?}");
            assert_eq!(clock.error_us, (there_us + back_us).div_ceil(2));
        }
    }

    #[test]
    fn moments_that_cannot_be_true_say_nothing_and_never_panic() {
        let stamps = |sent_us, received_us, answered_us, returned_us| {
            ClockOffset::of(Stamps { sent_us, received_us, answered_us, returned_us })
        };
        assert_eq!(stamps(10, 5, 6, 9), None, "back before it left");
        assert_eq!(stamps(10, 6, 5, 20), None, "answered before it arrived");
        assert_eq!(stamps(10, 0, 11, 20), None, "longer there than it was away");
        assert_eq!(stamps(0, u64::MAX, u64::MAX, 2), None, "further off than any number says");
        let mut prng = Prng::new(2);
        for _ in 0..100_000 {
            let mut any = || prng.next_u64() >> prng.below(64);
            let _ = stamps(any(), any(), any(), any());
        }
    }

    #[test]
    fn the_probe_with_the_least_error_is_believed_until_drift_outgrows_it() {
        let mut estimate = Estimate::default();
        let near = ClockOffset { offset_us: 10, error_us: 100 };
        let far = ClockOffset { offset_us: 99, error_us: 1_000 };
        estimate.answered(0, 200, Some(near));
        estimate.answered(1_000, 2_000, Some(far));
        assert_eq!(estimate.clock(1_000), Some(ClockOffset { error_us: 300, ..near }));
        estimate.answered(10_000, 2_000, Some(far));
        assert_eq!(estimate.clock(10_000), Some(far), "2 ms of drift are worse than 1 ms of error");
    }
}
