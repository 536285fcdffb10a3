//! Clocks that are wrong: each starts somewhere else and runs at a rate of its own.
//!
//! The ordering never asks what time it is; it only sets timers. So a clock that runs wrong is a timer that runs out
//! early or late, by the clock's rate. Replication does ask, and is told the skewed time.

use crate::sim::world::World;

/// One node's clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// What it shows at the beginning, in microseconds.
    offset_us: u64,
    /// How long a second of it takes, in thousandths of a second.
    second_ms: u64,
}

/// How wrong clocks may be.
#[derive(Clone, Copy, Debug)]
pub struct ClockFaults {
    /// The furthest ahead one starts.
    pub offset_us: u64,
    /// The most its second differs from a second, in thousandths; below 1,000.
    pub drift_per_mille: u64,
}

impl ClockFaults {
    /// Clocks that are right.
    pub const NONE: ClockFaults = ClockFaults { offset_us: 0, drift_per_mille: 0 };
    /// Clocks far worse than any that is sold: half or one and a half times as fast, five seconds off.
    pub const SKEWED: ClockFaults = ClockFaults { offset_us: 5_000_000, drift_per_mille: 500 };
}

impl Clock {
    /// A clock as wrong as the seed says.
    pub fn new<E>(world: &mut World<E>, faults: ClockFaults) -> Clock {
        let offset_us = world.between(0, faults.offset_us);
        let second_ms = world.between(1000 - faults.drift_per_mille, 1000 + faults.drift_per_mille);
        Clock { offset_us, second_ms }
    }

    /// How long a timer of so many milliseconds really takes, in microseconds.
    pub fn timer_us(&self, timer_ms: u64) -> u64 {
        timer_ms.saturating_mul(self.second_ms)
    }

    /// What it shows at `now_us`.
    pub fn shows_us(&self, now_us: u64) -> u64 {
        self.offset_us + now_us.saturating_mul(1000) / self.second_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_clock_lengthens_timers_and_shows_less() {
        let slow = Clock { offset_us: 7, second_ms: 1_500 };
        assert_eq!((slow.timer_us(10), slow.shows_us(3_000)), (15_000, 2_007));
        let mut world: World<()> = World::new(1);
        let right = Clock::new(&mut world, ClockFaults::NONE);
        assert_eq!((right.timer_us(10), right.shows_us(3_000)), (10_000, 3_000));
        for _ in 0..100 {
            let clock = Clock::new(&mut world, ClockFaults::SKEWED);
            assert!((500..=1500).contains(&clock.second_ms) && clock.offset_us <= 5_000_000);
        }
    }
}
