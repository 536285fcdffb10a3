//! Hybrid logical clocks: when a write happened, in an order that respects what its writer had seen.
//!
//! A reading is the shard's wall clock, or one more than the last reading or than the last one seen from elsewhere,
//! whichever is later \[1\]. So a write that was made after another was seen is later than it even if its machine's clock
//! is slow, and a reading is still a time of day that can be compared with a horizon. Readings of two nodes may be
//! equal; the node's number decides then, which makes a [`Version`] unique.
//!
//!   63                32 31                     0
//!   | Unix seconds      | fraction of a second  |   NTP's form, from `uhlc`; one count is 233 ps
//!
//! The fraction has room for four million writes between two readings of the millisecond clock, so the counter that the
//! paper keeps apart lives in its low bits. `uhlc`'s own clock reads the system's time behind a lock; a shard has one
//! thread, and this room is told the time, so only its type is taken.
//!
//! 1. Kulkarni et al., "Logical Physical Clocks", OPODIS 2014.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uhlc::NTP64;

use crate::base::id::NodeId;
use crate::base::limits;

/// What a write is called everywhere: when it happened, and where. The greater one wins.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Version {
    /// When, by the writer's hybrid clock.
    pub time: NTP64,
    /// Where.
    pub node: NodeId,
}

/// A node's hybrid clock.
#[derive(Clone, Debug)]
pub struct Clock {
    node: NodeId,
    last: NTP64,
}

/// A reading from further in the future than clocks may differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooFarAhead {
    /// By how much, in milliseconds.
    pub ahead_ms: u64,
}

impl Version {
    /// Older than every write: of what nobody has written within memory.
    pub const ZERO: Version = Version { time: NTP64(1), node: NodeId(0) };
    /// Older still: of a counter that was begun by a node which did not know yet what others have.
    pub const ORPHAN: Version = Version { time: NTP64(0), node: NodeId(0) };

    /// The version that everybody gives to what has ended at a moment all agree on; later than `before`.
    pub fn at_end(unix_ms: u64, before: Version) -> Version {
        Version { time: ntp(unix_ms).max(NTP64(before.time.0.saturating_add(1))), node: NodeId(0) }
    }

    /// Unix time in milliseconds.
    pub fn unix_ms(self) -> u64 {
        unix_ms(self.time)
    }
}

impl Clock {
    /// A clock that has read nothing.
    pub fn new(node: NodeId) -> Clock {
        Clock { node, last: NTP64(Version::ZERO.time.0) }
    }

    /// The version of a write that happens now: later than all before.
    #[inline]
    pub fn tick(&mut self, unix_ms: u64) -> Version {
        self.last = ntp(unix_ms).max(NTP64(self.last.0 + 1));
        Version { time: self.last, node: self.node }
    }

    /// Somebody else's reading: what is written here from now on is later. Refused, and forgotten, if it is too far
    /// ahead.
    #[inline]
    pub fn observe(&mut self, time: NTP64, unix_ms: u64) -> Result<(), TooFarAhead> {
        if time > ntp(unix_ms.saturating_add(limits::REPLICATION_DRIFT_MS_MAX)) {
            return Err(TooFarAhead { ahead_ms: self::unix_ms(time).saturating_sub(unix_ms) });
        }
        self.last = self.last.max(time);
        Ok(())
    }

    /// The last reading.
    pub fn last(&self) -> NTP64 {
        self.last
    }
}

/// Unix milliseconds in NTP's form. What lies beyond 2106 is held there.
#[inline]
pub fn ntp(unix_ms: u64) -> NTP64 {
    let seconds = (unix_ms / 1000).min(u64::from(u32::MAX) - 1);
    NTP64((seconds << 32) | (((unix_ms % 1000) << 32) / 1000))
}

/// The inverse of [`ntp`], rounded down by less than a millisecond.
pub fn unix_ms(time: NTP64) -> u64 {
    u64::from(time.as_secs()) * 1000 + u64::from(time.subsec_nanos()).div_ceil(1_000_000).min(999)
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}@{}", self.time.0, self.node)
    }
}

impl fmt::Display for TooFarAhead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ahead, most) = (Duration::from_millis(self.ahead_ms), limits::REPLICATION_DRIFT_MS_MAX);
        write!(f, "stamped {ahead:?} ahead, clocks may differ by {most} ms: see to NTP on its host and on this one")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_800_000_000_123;

    #[test]
    fn readings_rise_although_the_wall_clock_stands_or_goes_back() {
        let mut clock = Clock::new(NodeId(1));
        let mut last = clock.tick(NOW_MS);
        for unix_ms in [NOW_MS, NOW_MS, NOW_MS - 5_000, NOW_MS, NOW_MS + 1] {
            let next = clock.tick(unix_ms);
            assert!(next > last);
            last = next;
        }
        assert_eq!(last.unix_ms(), NOW_MS + 1);
    }

    #[test]
    fn what_was_seen_is_earlier_than_what_is_written_next() {
        let (mut fast, mut slow) = (Clock::new(NodeId(1)), Clock::new(NodeId(2)));
        let seen = fast.tick(NOW_MS + 200);
        slow.observe(seen.time, NOW_MS).unwrap();
        assert!(slow.tick(NOW_MS) > seen);
    }

    #[test]
    fn a_reading_from_too_far_ahead_is_refused_and_moves_nothing() {
        let mut clock = Clock::new(NodeId(1));
        let before = clock.tick(NOW_MS);
        let far = ntp(NOW_MS + limits::REPLICATION_DRIFT_MS_MAX + 10);
        assert!(clock.observe(far, NOW_MS).is_err() && clock.observe(NTP64(u64::MAX), NOW_MS).is_err());
        assert!(clock.tick(NOW_MS).time.0 - before.time.0 < 10);
        clock.observe(ntp(NOW_MS + limits::REPLICATION_DRIFT_MS_MAX), NOW_MS).unwrap();
    }

    #[test]
    fn milliseconds_survive_ntps_form() {
        for unix_ms in [0, 1, 999, 1000, NOW_MS, NOW_MS + 7, u64::from(u32::MAX) * 1000 - 1001] {
            assert_eq!(unix_ms, super::unix_ms(ntp(unix_ms)), "{unix_ms}");
        }
        assert!(ntp(u64::MAX) < NTP64(u64::MAX));
    }

    #[test]
    fn what_ends_at_an_agreed_moment_has_one_version_everywhere() {
        let began = Version { time: ntp(NOW_MS), node: NodeId(3) };
        assert_eq!(Version::at_end(NOW_MS + 50, began), Version::at_end(NOW_MS + 50, began));
        assert!(Version::at_end(NOW_MS - 50, began) > began, "even if it ended before it began");
    }
}
