//! The processor's own counter: what single look-ups of ten nanoseconds are timed with.
//!
//! `Instant` takes 22 ns a reading. A reading of the time-stamp counter between fences takes some 10: the fence
//! before lets everything before it finish, the one after keeps everything after it from starting. What a pair
//! of readings around nothing measures is the timer's own cost; it is stated, and subtracted only where it says
//! so. The counter's rate is measured against `Instant` at the start. Elsewhere than on x86-64 `Instant` does.

use std::time::{Duration, Instant};

/// A timer for very short times.
#[derive(Clone, Copy, Debug)]
pub struct Ticks {
    started: Instant,
    origin: u64,
    ns_per_tick: f64,
    pair_ns: f64,
}

impl Ticks {
    /// Measures the counter's rate, and what a pair of readings costs: 20 ms.
    pub fn calibrate() -> Ticks {
        let started = Instant::now();
        let origin = read(started);
        while started.elapsed() < CALIBRATION {
            std::hint::spin_loop();
        }
        let (ns, ticks) = (started.elapsed().as_nanos() as f64, read(started) - origin);
        let mut timer = Ticks { started, origin, ns_per_tick: ns / ticks as f64, pair_ns: 0.0 };
        let mut pairs: Vec<u64> = (0..PAIRS)
            .map(|_| {
                let before = timer.now();
                timer.now() - before
            })
            .collect();
        pairs.sort_unstable();
        timer.pair_ns = timer.ns(pairs[PAIRS / 2]);
        timer
    }

    /// The counter, once everything before has finished.
    #[inline(always)]
    pub fn now(&self) -> u64 {
        read(self.started)
    }

    /// Ticks as nanoseconds.
    #[inline(always)]
    pub fn ns(&self, ticks: u64) -> f64 {
        ticks as f64 * self.ns_per_tick
    }

    /// Nanoseconds since the calibration began.
    #[inline(always)]
    pub fn elapsed_ns(&self, now: u64) -> u64 {
        self.ns(now.saturating_sub(self.origin)) as u64
    }

    /// What a pair of readings around nothing measures: the median of ten thousand.
    pub fn pair_ns(&self) -> f64 {
        self.pair_ns
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
#[expect(unsafe_code, reason = "the instructions have no safe wrapper")]
fn read(_: Instant) -> u64 {
    use std::arch::x86_64::{_mm_lfence, _rdtsc};
    // SAFETY: both instructions are there on every x86-64 processor and touch no memory.
    unsafe {
        _mm_lfence();
        let ticks = _rdtsc();
        _mm_lfence();
        ticks
    }
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn read(started: Instant) -> u64 {
    started.elapsed().as_nanos() as u64
}

const CALIBRATION: Duration = Duration::from_millis(20);
const PAIRS: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_nanoseconds_within_a_percent() {
        let timer = Ticks::calibrate();
        let (before, ticks) = (Instant::now(), timer.now());
        std::thread::sleep(Duration::from_millis(50));
        let measured = timer.ns(timer.now() - ticks);
        let elapsed = before.elapsed().as_nanos() as f64;
        assert!((0.98..1.02).contains(&(measured / elapsed)), "{measured} for {elapsed}");
        assert!(timer.pair_ns() > 0.0 && timer.pair_ns() < 1000.0, "{}", timer.pair_ns());
    }
}
