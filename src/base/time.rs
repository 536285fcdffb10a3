//! Time as the pure rooms see it: milliseconds on a clock that the caller reads. And the one clock that others read in
//! several places.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::base::limits;

/// A moment, in milliseconds since the clock's start. The serving process passes the kernel's
/// monotonic clock, a test passes whatever it likes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant {
    /// Milliseconds since the clock's start.
    pub ms: u64,
}

impl Instant {
    /// The moment `ms` milliseconds after the clock's start.
    pub const fn from_ms(ms: u64) -> Instant {
        Instant { ms }
    }

    /// The moment `ttl_ms` later, held at the last one an item can store.
    #[must_use]
    pub fn after_ms(self, ttl_ms: u64) -> Instant {
        Instant { ms: self.ms.saturating_add(ttl_ms).min(limits::EXPIRY_MS_MAX) }
    }

    /// Milliseconds from `self` until `later`, zero if that has passed.
    pub fn ms_until(self, later: Instant) -> u64 {
        later.ms.saturating_sub(self.ms)
    }
}

/// The time of day, in milliseconds since 1970. It may be set while one looks: for durations there are other clocks. Pure
/// rooms are told it.
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Year, month and day of so many days since 1970, in the Gregorian calendar: Howard Hinnant's `civil_from_days`. Its years
/// begin in March, so that the leap day is the last.
pub fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let day = days + 719_468;
    let (era, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    (era * 400 + year + u64::from(month >= 10), if month < 10 { month + 3 } else { month - 9 }, day)
}
