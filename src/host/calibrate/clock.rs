//! What it costs to know the time: a reading of the processor's counter, one of the kernel's clock, and the rate of the
//! first against the second.
//!
//! Both costs are of readings in a row, as a thread pays them that reads the clock between other work: the processor
//! may overlap a reading with what stands around it. Readings that must not overlap stand between fences and cost more
//! (see `load::ticks`).
//!
//! The clock is read through the vDSO where the kernel trusts the counter (`clocksource` is `tsc`, `kvm-clock` or
//! `arch_sys_counter`), and through a system call where it does not: then the figure is above that of a system call.

use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::base::limits;
use crate::host::calibrate::counter;
use crate::host::calibrate::rounds::{Rounds, median_batch, resolution_ns};
use crate::host::calibration::ClockFigures;

/// The clock's rounds.
#[derive(Debug)]
pub struct Clock {
    rate: Rounds,
    counter: Rounds,
    clock: Rounds,
}

impl Clock {
    /// Before the first round; `clock_ns` is about what a reading of the clock costs.
    pub fn prepare(clock_ns: f64) -> Clock {
        let resolution = resolution_ns(clock_ns, READINGS);
        Clock {
            rate: Rounds::with_drift(limits::CALIBRATE_SLEW_SHARE),
            counter: Rounds::with_resolution(resolution),
            clock: Rounds::with_resolution(resolution),
        }
    }

    /// One round: half of `slice` for the rate, the rest for the costs.
    pub fn round(&mut self, slice: Duration) {
        self.rate.add(counter::rate_mhz(slice / 2));
        self.counter.add(counter_ns(slice / 4));
        self.clock.add(clock_ns(slice / 4));
    }

    /// What was measured; `None` before the first round.
    pub fn figures(&self, cpuinfo: &str, clocksource: Option<String>) -> Option<ClockFigures> {
        Some(ClockFigures {
            counter: counter::NAME.to_owned(),
            invariant: counter::is_invariant(cpuinfo),
            clocksource,
            counter_mhz: self.rate.measured()?,
            counter_ns: self.counter.measured()?,
            clock_ns: self.clock.measured()?,
        })
    }
}

/// One reading of the counter, in nanoseconds.
pub fn counter_ns(slice: Duration) -> f64 {
    median_batch(slice, READINGS, || {
        for _ in 0..READINGS {
            black_box(counter::read());
        }
    })
}

/// One reading of the kernel's clock, in nanoseconds.
pub fn clock_ns(slice: Duration) -> f64 {
    median_batch(slice, READINGS, || {
        for _ in 0..READINGS {
            black_box(Instant::now());
        }
    })
}

/// Readings of a batch: 10 to 100 µs.
const READINGS: u32 = 2_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_takes_time_and_not_much_of_it() {
        let mut clock = Clock::prepare(25.0);
        for _ in 0..5 {
            clock.round(Duration::from_millis(4));
        }
        let figures = clock.figures("", None).unwrap();
        assert!((0.1..5_000.0).contains(&figures.counter_ns.median), "{figures:?}");
        assert!((1.0..50_000.0).contains(&figures.clock_ns.median), "{figures:?}");
        assert!((1.0..20_000.0).contains(&figures.counter_mhz.median), "{figures:?}");
        assert_eq!(figures.clock_ns.rounds, 5);
    }
}
