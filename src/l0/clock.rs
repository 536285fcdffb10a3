//! The clock by which readers honour expiry: CLOCK_MONOTONIC, one for all processes of a host.
//!
//! Reading it takes 22 ns, its coarse twin 5, which is what the kernel noted at its last tick. The twin lags by
//! a tick, 4 ms here, and by more when a tick comes late (6 ms seen on an idle machine). So it decides only what
//! is far off: within a second of an entry's end the fine one is asked, and no entry is served a millisecond late.
//! Entries that do not expire cost no reading.

#![expect(unsafe_code, reason = "clock_gettime has no safe wrapper among our dependencies")]

/// Whether the moment `ms` of CLOCK_MONOTONIC has come.
#[inline]
pub fn is_over(ms: u64) -> bool {
    read(libc::CLOCK_MONOTONIC_COARSE) + COARSE_LAG_MS_MAX >= ms && now_ms() >= ms
}

/// CLOCK_MONOTONIC now, in milliseconds.
pub fn now_ms() -> u64 {
    read(libc::CLOCK_MONOTONIC)
}

fn read(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: one live timespec is passed. Linux has had both clocks since 2.6.32.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}

/// Ticks come at least this often, or the coarse clock is not believed.
const COARSE_LAG_MS_MAX: u64 = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_over_when_it_comes_to_the_millisecond() {
        for _ in 0..1000 {
            let now = now_ms();
            assert!(is_over(now), "an entry would be served when its time has come");
            assert!(!is_over(now + 900) && !is_over(now + 60_000));
        }
    }
}
