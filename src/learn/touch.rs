//! An item's history in twenty bits, and the clock that its age is measured with.
//!
//!   19      7 6    4 3       0
//!   | stamp  | gap  | frequency |
//!
//! `frequency` counts accesses up to 15, `gap` is the class of the time between the last two,
//! `stamp` is the tick of the last one. Ticks are requests divided by the number of resident
//! items: a shard of a thousand entries and one of a billion age alike, so a table learned by one
//! means something to the other.

use crate::base::time::Instant;

/// Twenty bits that an index slot (or a ghost) keeps of an item's past.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Touch(u32);

impl Touch {
    /// How many bits a touch occupies.
    pub const BITS: u32 = 20;

    /// The touch of an item seen for the first time.
    pub fn first(clock: &Clock) -> Touch {
        Touch((clock.tick & STAMP_MASK) << 7)
    }

    /// Rebuilds a touch from the bits [`Touch::bits`] gave.
    #[inline]
    pub fn from_bits(bits: u32) -> Touch {
        Touch(bits & ((1 << Touch::BITS) - 1))
    }

    /// The bits to store.
    #[inline]
    pub fn bits(self) -> u32 {
        self.0
    }

    /// The touch after one more access; `bucket` is that of its age now.
    #[inline]
    #[must_use]
    pub fn again(self, clock: &Clock, bucket: usize) -> Touch {
        let frequency = (u32::from(self.frequency()) + 1).min(FREQUENCY_MAX);
        let gap = (1 + bucket as u32 / GAP_CLASS_BUCKETS).min(GAP_CLASSES as u32 - 1);
        Touch((clock.tick & STAMP_MASK) << 7 | gap << 4 | frequency)
    }

    /// The touch after the item was written anew: as fresh as a new one, as often asked for as before, and
    /// not asked for since. No other touch has a frequency and no gap, so the ranks learn of overwritten items
    /// apart from others.
    #[inline]
    #[must_use]
    pub fn overwritten(self, clock: &Clock) -> Touch {
        Touch((clock.tick & STAMP_MASK) << 7 | self.0 & 0xf)
    }

    /// Whether the item was asked for since it was written: the first time within one tick too, since it sets
    /// the gap.
    pub fn is_hit(self) -> bool {
        self.0 >> 4 & 7 != 0
    }

    /// How often it was asked for, up to 15.
    #[inline]
    pub fn frequency(self) -> u8 {
        (self.0 & 0xf) as u8
    }

    /// Ticks since the last access.
    #[inline]
    pub fn age(self, clock: &Clock) -> u32 {
        clock.tick.wrapping_sub(self.0 >> 7) & STAMP_MASK
    }

    /// The row of the rank table: frequency bucket × gap class.
    #[inline]
    pub fn class(self) -> usize {
        FREQUENCY_BUCKET[self.frequency() as usize] as usize * GAP_CLASSES + (self.0 >> 4 & 7) as usize
    }
}

/// A clock that ticks in proportion to the number of resident items.
#[derive(Clone, Debug)]
pub struct Clock {
    tick: u32,
    requests_into_tick: u32,
    requests_per_tick: u32,
    /// When the present turn of ticks began, and how long a tick of the last one took.
    turn_began: Instant,
    ms_per_tick: f32,
}

impl Clock {
    /// A clock for an empty store: every request is a tick.
    pub fn new() -> Clock {
        let turn_began = Instant::from_ms(0);
        Clock { tick: 0, requests_into_tick: 0, requests_per_tick: 1, turn_began, ms_per_tick: f32::INFINITY }
    }

    /// The present tick. A stamp is its lower bits.
    pub fn tick(&self) -> u32 {
        self.tick
    }

    /// Counts one request.
    #[inline]
    pub fn advance(&mut self) {
        self.requests_into_tick += 1;
        if self.requests_into_tick >= self.requests_per_tick {
            self.requests_into_tick = 0;
            self.tick = self.tick.wrapping_add(1);
        }
    }

    /// Whether the request just counted was the last of a turn: time for what is done now and then.
    #[inline]
    pub fn is_turn(&self) -> bool {
        self.requests_into_tick == 0 && self.tick.is_multiple_of(TICKS_PER_RESIDENT_TURN as u32)
    }

    /// Measures how long a tick takes, at the end of each turn.
    pub fn turned(&mut self, now: Instant) {
        self.ms_per_tick = self.turn_began.ms_until(now) as f32 / TICKS_PER_RESIDENT_TURN as f32;
        self.turn_began = now;
    }

    /// The ticks that `ms` milliseconds will be at the present pace.
    pub fn ticks_in(&self, ms: u64) -> f32 {
        ms as f32 / self.ms_per_tick.max(f32::MIN_POSITIVE)
    }

    /// Sets the pace for `resident` items. Stamps already given keep their tick: while a shard
    /// fills they read a little old, which is forgotten by the next access.
    pub fn pace(&mut self, resident: u64) {
        self.requests_per_tick = (resident / TICKS_PER_RESIDENT_TURN).clamp(1, u64::from(u32::MAX)) as u32;
    }
}

impl Default for Clock {
    fn default() -> Clock {
        Clock::new()
    }
}

/// The half-octave of `age`: 0, 1, 2, 3, 4-5, 6-7, 8-11, …
#[inline]
pub fn age_bucket(age: u32) -> usize {
    if age < 2 {
        return age as usize;
    }
    let log = 31 - age.leading_zeros();
    ((2 * log + (age >> (log - 1) & 1)) as usize).min(AGE_BUCKETS - 1)
}

/// First age and width, in ticks, of an age bucket.
pub fn age_bucket_span(bucket: usize) -> (f32, f32) {
    if bucket < 2 {
        return (bucket as f32, 1.0);
    }
    let octave = (1u32 << (bucket / 2)) as f32;
    (octave + (bucket % 2) as f32 * octave / 2.0, octave / 2.0)
}

/// Rows of the rank table.
pub const CLASSES: usize = FREQUENCY_BUCKETS * GAP_CLASSES;
/// Gap classes: 0 is "not accessed since it was written", the others are widening spans of ticks.
pub const GAP_CLASSES: usize = 8;
/// Frequency buckets: 0, 1, 2, 3-4, 5-8, 9 and more.
pub const FREQUENCY_BUCKETS: usize = 6;
/// Columns of the rank table.
pub const AGE_BUCKETS: usize = 2 * STAMP_BITS as usize;

/// Ticks after which stamps begin anew.
pub const STAMPS: u32 = 1 << STAMP_BITS;

const STAMP_BITS: u32 = 13;
const STAMP_MASK: u32 = (1 << STAMP_BITS) - 1;
const FREQUENCY_MAX: u32 = 15;
const FREQUENCY_BUCKET: [u8; 16] = [0, 1, 2, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 5, 5, 5];
/// Ticks in which a full store sees as many requests as it holds items.
const TICKS_PER_RESIDENT_TURN: u64 = 64;
/// Age buckets (half-octaves) in one gap class.
const GAP_CLASS_BUCKETS: u32 = 4;

const _: () = assert!(STAMP_BITS + 3 + 4 == Touch::BITS);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn age_buckets_are_contiguous_and_rise() {
        let mut last = 0;
        for age in 0..1 << STAMP_BITS {
            let bucket = age_bucket(age);
            let (low, width) = age_bucket_span(bucket);
            assert!(bucket == last || bucket == last + 1 || age == 0, "age {age}");
            assert!((low..low + width).contains(&(age as f32)), "age {age} bucket {bucket}");
            last = bucket;
        }
        assert_eq!(last, AGE_BUCKETS - 1);
    }

    #[test]
    fn a_touch_remembers_age_and_counts() {
        let mut clock = Clock::new();
        let first = Touch::first(&clock);
        for _ in 0..100 {
            clock.advance();
        }
        assert_eq!(first.age(&clock), 100);
        let second = first.again(&clock, age_bucket(first.age(&clock)));
        assert_eq!((second.age(&clock), second.frequency()), (0, 1));
        assert_eq!(Touch::from_bits(second.bits()), second);
        assert_ne!(second.class(), first.class());
    }

    #[test]
    fn the_first_access_after_a_write_is_seen_even_in_its_tick() {
        let mut clock = Clock::new();
        let mut touch = Touch::first(&clock);
        assert!(!touch.is_hit());
        for accesses in 1..20 {
            touch = touch.again(&clock, age_bucket(touch.age(&clock)));
            assert!(touch.is_hit());
            assert_eq!(u32::from(touch.frequency()), accesses.min(FREQUENCY_MAX));
        }
        (0..100).for_each(|_| clock.advance());
        let written = touch.overwritten(&clock);
        assert_eq!((written.is_hit(), written.age(&clock), written.frequency()), (false, 0, 15));
        assert!(written.again(&clock, 0).is_hit());
        assert!(![touch.class(), Touch::first(&clock).class()].contains(&written.class()));
    }

    #[test]
    fn ticks_follow_the_time_that_requests_take() {
        let mut clock = Clock::new();
        assert_eq!(clock.ticks_in(1000), 0.0, "nobody knows yet: not to be counted on");
        for ms in 0..256 {
            clock.advance();
            if clock.is_turn() {
                clock.turned(Instant::from_ms(2 * (ms + 1)));
            }
        }
        assert_eq!(clock.ticks_in(1000), 500.0);
    }

    #[test]
    fn a_larger_store_ages_slower() {
        let mut clock = Clock::new();
        clock.pace(64_000);
        let touch = Touch::first(&clock);
        for _ in 0..64_000 {
            clock.advance();
        }
        assert_eq!(touch.age(&clock), 64);
    }
}
