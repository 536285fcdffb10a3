//! The eight bytes by which the index knows an item.
//!
//!   63    56 55          36 35        34             0
//!   | tag   | touch        | displaced | location + 1 |
//!
//! The location is a byte address in the arena. The tag spares reading items of other keys, the
//! touch is what `learn` remembers, and `displaced` says in which of its two buckets the entry is,
//! so that it can change to the other without its item being read. A tag is never zero, hence the
//! all-zero word is an empty slot, and one look at the tag tells.

use crate::base::limits;
use crate::learn::Touch;

/// A slot's contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(pub u64);

impl Slot {
    /// A slot for an entry in its home bucket.
    #[inline]
    pub fn new(tag: u8, touch: Touch, location: usize) -> Slot {
        debug_assert!(tag != 0 && (location as u64) < limits::ARENA_BYTES_MAX);
        Slot(u64::from(tag) << TAG_SHIFT | u64::from(touch.bits()) << TOUCH_SHIFT | (location as u64 + 1))
    }

    #[inline]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    #[inline]
    pub fn tag(self) -> u8 {
        (self.0 >> TAG_SHIFT) as u8
    }

    #[inline]
    pub fn touch(self) -> Touch {
        Touch::from_bits((self.0 >> TOUCH_SHIFT) as u32)
    }

    /// Whether the entry is in its alternate bucket.
    #[inline]
    pub fn is_displaced(self) -> bool {
        self.0 & DISPLACED != 0
    }

    /// Byte address of the item. Not for empty slots.
    #[inline]
    pub fn location(self) -> usize {
        debug_assert!(!self.is_empty());
        ((self.0 & LOCATION_MASK) - 1) as usize
    }

    #[inline]
    pub fn with_touch(self, touch: Touch) -> Slot {
        Slot(self.0 & !(TOUCH_MASK << TOUCH_SHIFT) | u64::from(touch.bits()) << TOUCH_SHIFT)
    }

    #[inline]
    pub fn with_location(self, location: usize) -> Slot {
        Slot(self.0 & !LOCATION_MASK | (location as u64 + 1))
    }

    #[inline]
    pub fn with_displaced(self, displaced: bool) -> Slot {
        Slot(self.0 & !DISPLACED | if displaced { DISPLACED } else { 0 })
    }
}

const TAG_SHIFT: u32 = 56;
const TOUCH_SHIFT: u32 = 36;
const TOUCH_MASK: u64 = (1 << Touch::BITS) - 1;
const DISPLACED: u64 = 1 << 35;
const LOCATION_MASK: u64 = DISPLACED - 1;

const _: () = assert!(TOUCH_SHIFT + Touch::BITS == TAG_SHIFT);
const _: () = assert!(limits::ARENA_BYTES_MAX < LOCATION_MASK);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_do_not_disturb_each_other() {
        let touch = Touch::from_bits(0xa_bcde);
        let last = limits::ARENA_BYTES_MAX as usize - 1;
        let slot = Slot::new(0x5a, touch, last);
        assert_eq!((slot.tag(), slot.touch(), slot.location()), (0x5a, touch, last));
        assert!(!slot.is_displaced());
        let moved = slot.with_location(0).with_touch(Touch::from_bits(1)).with_displaced(true);
        assert_eq!((moved.tag(), moved.touch().bits(), moved.location()), (0x5a, 1, 0));
        assert!(moved.is_displaced() && moved.with_displaced(false).0 == moved.0 & !DISPLACED);
        assert!(!Slot::new(1, Touch::from_bits(0), 0).is_empty());
    }
}
