//! When a shard that has nothing to do goes to sleep.
//!
//! Spinning costs a core, sleeping costs whoever comes next the wake-up. `park` sleeps after a fixed
//! 50 µs. `adaptive` learns how long to spin from how pauses end: one that ends soon after the shard
//! went to sleep was worth spinning through, so the window doubles, up to the length that is ever worth
//! it; one that lasts shows that nobody comes, so the window halves. A shard that is asked for
//! something every millisecond never sleeps; one that is left alone sleeps as soon as `park` does.

use std::time::Duration;

use crate::base::limits;

/// What an idle shard does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PollMode {
    /// Spin: the core belongs to the shard.
    Spin,
    /// Spin as long as pauses have been short lately, then sleep.
    Adaptive,
    /// Spin a little, then sleep until something happens.
    Park,
}

impl PollMode {
    /// As flags and profiles spell it.
    pub fn name(self) -> &'static str {
        match self {
            PollMode::Spin => "spin",
            PollMode::Adaptive => "adaptive",
            PollMode::Park => "park",
        }
    }
}

/// One shard's pauses.
pub struct Idle {
    mode: PollMode,
    /// Since when there has been nothing to do.
    since: Option<Duration>,
    /// How long to spin before sleeping.
    window: Duration,
}

impl Idle {
    /// A shard that has just begun.
    pub fn new(mode: PollMode) -> Idle {
        Idle { mode, since: None, window: Duration::from_micros(limits::SPIN_BEFORE_PARK_US) }
    }

    /// There was something to do.
    #[inline]
    pub fn worked(&mut self) {
        self.since = None;
    }

    /// There was nothing to do at `now`. Answers whether to sleep.
    #[inline]
    pub fn is_over(&mut self, now: Duration) -> bool {
        if self.mode == PollMode::Spin {
            return false;
        }
        let since = *self.since.get_or_insert(now);
        now.saturating_sub(since) >= self.window
    }

    /// A sleep has ended at `now`.
    pub fn woke(&mut self, now: Duration) {
        let Some(since) = self.since.take() else { return };
        if self.mode != PollMode::Adaptive {
            return;
        }
        let (least, most) =
            (Duration::from_micros(limits::SPIN_BEFORE_PARK_US), Duration::from_micros(limits::SPIN_ADAPTIVE_US_MAX));
        let worth_spinning = now.saturating_sub(since) <= most;
        self.window = if worth_spinning { self.window * 2 } else { self.window / 2 }.clamp(least, most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sleeps among `pauses` pauses of this length.
    fn sleeps(mode: PollMode, pause_us: u64, pauses: usize) -> usize {
        let mut idle = Idle::new(mode);
        let (mut now, mut count) = (Duration::ZERO, 0);
        for _ in 0..pauses {
            idle.worked();
            let end = now + Duration::from_micros(pause_us);
            while now < end {
                if idle.is_over(now) {
                    count += 1;
                    now = end;
                    idle.woke(now);
                }
                now += Duration::from_micros(1);
            }
        }
        count
    }

    #[test]
    fn adaptive_spins_through_short_pauses_and_sleeps_through_long_ones() {
        assert_eq!(sleeps(PollMode::Spin, 100_000, 5), 0);
        assert_eq!(sleeps(PollMode::Park, 1_000, 50), 50);
        assert!(sleeps(PollMode::Adaptive, 1_000, 50) <= 6, "a busy shard soon stops sleeping");
        assert_eq!(sleeps(PollMode::Adaptive, 100_000, 20), 20, "a shard left alone sleeps each time");
        assert_eq!(sleeps(PollMode::Adaptive, 40, 50), 0);
    }

    #[test]
    fn an_adaptive_shard_gives_up_spinning_when_pauses_grow() {
        let mut idle = Idle::new(PollMode::Adaptive);
        for _ in 0..10 {
            idle.is_over(Duration::ZERO);
            idle.woke(Duration::from_micros(500));
        }
        assert_eq!(idle.window, Duration::from_micros(limits::SPIN_ADAPTIVE_US_MAX));
        for _ in 0..10 {
            idle.is_over(Duration::ZERO);
            idle.woke(Duration::from_millis(50));
        }
        assert_eq!(idle.window, Duration::from_micros(limits::SPIN_BEFORE_PARK_US));
    }
}
