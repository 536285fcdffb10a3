//! Time as the pure rooms see it: milliseconds on a clock that the caller reads.

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
