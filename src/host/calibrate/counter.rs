//! The processor's counter: the time-stamp counter of x86-64, the virtual counter of Arm.
//!
//! Read without fences: neighbouring instructions may overlap with a reading by some tens of cycles. That is what is
//! wanted here, where millions of readings in a row look for gaps of hundreds of nanoseconds and a fence would only make
//! the net coarser. Elsewhere than on these two the kernel's monotonic clock stands in.

use std::time::{Duration, Instant};

use crate::base::limits;

/// A counter whose rate is known.
#[derive(Clone, Copy, Debug)]
pub struct Counter {
    ns_per_tick: f64,
}

/// Which counter this program reads.
pub const NAME: &str = if cfg!(target_arch = "x86_64") {
    "tsc"
} else if cfg!(target_arch = "aarch64") {
    "cntvct"
} else {
    "none"
};

impl Counter {
    /// Measures the rate once, in 20 ms.
    pub fn calibrate() -> Counter {
        Counter { ns_per_tick: 1e3 / rate_mhz(RATE_SLICE) }
    }

    /// Ticks as nanoseconds.
    #[inline]
    pub fn ns(self, ticks: u64) -> f64 {
        ticks as f64 * self.ns_per_tick
    }

    /// Nanoseconds as ticks, at least one.
    pub fn ticks(self, ns: u64) -> u64 {
        ((ns as f64 / self.ns_per_tick) as u64).max(1)
    }

    /// Ticks of the gap that counts as a hiccup: a coarse counter needs a few.
    pub fn hiccup_ticks(self) -> u64 {
        self.ticks(limits::CALIBRATE_HICCUP_NS).max(HICCUP_TICKS_MIN)
    }
}

/// Ticks in a microsecond over `slice`, against the kernel's clock. Each end is the tightest of several pairs of
/// readings, so that an interrupt between counter and clock does no harm.
pub fn rate_mhz(slice: Duration) -> f64 {
    let (first_tick, first) = pair();
    while first.elapsed() < slice {
        std::hint::spin_loop();
    }
    let (last_tick, last) = pair();
    last_tick.wrapping_sub(first_tick) as f64 * 1e3 / (last - first).as_nanos().max(1) as f64
}

/// Counter and clock at the same moment, as far as they can be read so.
fn pair() -> (u64, Instant) {
    let attempt = || {
        let before = read();
        let now = Instant::now();
        let after = read();
        (after.wrapping_sub(before), before.wrapping_add(after.wrapping_sub(before) / 2), now)
    };
    let attempts = (0..PAIR_ATTEMPTS).map(|_| attempt());
    attempts.min_by_key(|(width, ..)| *width).map_or_else(|| (read(), Instant::now()), |(_, tick, now)| (tick, now))
}

/// The counter now.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
#[expect(unsafe_code, reason = "the instruction has no safe wrapper")]
pub fn read() -> u64 {
    // SAFETY: the instruction is there on every x86-64 processor and touches no memory.
    unsafe { std::arch::x86_64::_rdtsc() }
}

/// The counter now.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
#[expect(unsafe_code, reason = "the register has no safe wrapper")]
pub fn read() -> u64 {
    let ticks: u64;
    // SAFETY: Linux lets every program read this register; reading changes nothing.
    unsafe { std::arch::asm!("mrs {}, cntvct_el0", out(reg) ticks, options(nomem, nostack, preserves_flags)) };
    ticks
}

/// The kernel's clock in its place, in nanoseconds.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub fn read() -> u64 {
    static STARTED: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    STARTED.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

/// Whether the counter runs at one rate in all states of the core, given the text of `/proc/cpuinfo`. Arm's always does,
/// the architecture says so.
pub fn is_invariant(cpuinfo: &str) -> Option<bool> {
    if cfg!(target_arch = "aarch64") {
        return Some(true);
    }
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags"))?;
    let has = |flag: &str| flags.split_whitespace().any(|word| word == flag);
    Some(has("constant_tsc") && has("nonstop_tsc"))
}

const RATE_SLICE: Duration = Duration::from_millis(20);
const PAIR_ATTEMPTS: usize = 15;

/// Fewest ticks of a hiccup: Arm's counter may tick as slowly as 25 MHz.
const HICCUP_TICKS_MIN: u64 = 12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_and_nanoseconds_are_each_others_inverse() {
        let counter = Counter::calibrate();
        for ns in [500, 10_000, 1_000_000] {
            let back = counter.ns(counter.ticks(ns));
            assert!((back - ns as f64).abs() <= counter.ns(1) + 1e-6, "{back} for {ns}");
        }
        assert!(counter.hiccup_ticks() >= HICCUP_TICKS_MIN);
    }

    #[test]
    fn a_sleep_lasts_as_long_by_the_counter_as_by_the_clock() {
        let counter = Counter::calibrate();
        let (before, started) = (read(), Instant::now());
        std::thread::sleep(Duration::from_millis(40));
        let (ticks, elapsed) = (read() - before, started.elapsed().as_nanos() as f64);
        let ratio = counter.ns(ticks) / elapsed;
        assert!((0.97..1.03).contains(&ratio), "{ratio}");
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn a_counter_that_stops_or_changes_its_rate_is_not_invariant() {
        assert_eq!(is_invariant("flags\t\t: fpu constant_tsc nonstop_tsc\n"), Some(true));
        assert_eq!(is_invariant("flags\t\t: fpu constant_tsc\n"), Some(false));
        assert_eq!(is_invariant("flags\t\t: fpu tsc\n"), Some(false));
        assert_eq!(is_invariant(""), None);
    }
}
