//! The index: from a key's hash to the slot that says where the item is.
//!
//!   bucket, one cache line:  | link u32, 0 u32 | slot | slot | slot | slot | slot | slot | slot |
//!
//! Linear hashing (Litwin, VLDB 1980): buckets are split one at a time in address order, so the
//! table grows with its entries and there is never a moment when everything is rehashed; the
//! longest single step is one bucket's chain. Buckets live in segments taken from the arena like
//! any other, hence small items get more index and large ones more room, and nobody has to guess
//! the ratio at start. A bucket that is full before its turn links to overflow buckets.

use crate::base::hash::KeyHash;
use crate::base::limits::BUCKET_BYTES;
use crate::cache::bytes::{read_u32, read_u64, write_u32, write_u64};
use crate::cache::slot::Slot;

/// Where a slot is: its byte address in the arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotAt(usize);

pub struct Index {
    /// Segments that hold the addressed buckets, in order.
    pages: Vec<u32>,
    /// Segments that hold overflow buckets.
    overflow_pages: Vec<u32>,
    /// Free overflow buckets, linked through their first word; the number of the first plus one.
    overflow_free: u32,
    overflow_free_count: u32,
    bucket_count: u32,
    /// Addresses below `split_next` use one bit more of the hash than `round_bits`.
    split_next: u32,
    round_bits: u32,
    entries: u64,
    segment_shift: u32,
    page_shift: u32,
    scratch: Vec<u64>,
}

impl Index {
    /// An empty index whose first buckets fill `page`, a segment of zeroes.
    pub fn new(page: u32, segment_bytes: usize) -> Index {
        let page_shift = (segment_bytes / BUCKET_BYTES).trailing_zeros();
        Index {
            pages: vec![page],
            overflow_pages: Vec::new(),
            overflow_free: 0,
            overflow_free_count: 0,
            bucket_count: 1 << page_shift,
            split_next: 0,
            round_bits: page_shift,
            entries: 0,
            segment_shift: segment_bytes.trailing_zeros(),
            page_shift,
            scratch: Vec::with_capacity(64),
        }
    }

    /// Finds the slot of `hash` for which `is_match` holds; asked only where the tag agrees.
    #[inline]
    pub fn find(&self, memory: &[u8], hash: KeyHash, mut is_match: impl FnMut(Slot) -> bool) -> Option<(SlotAt, Slot)> {
        let mut bucket = self.address(self.bucket_of(hash));
        loop {
            let line = &memory[bucket..bucket + BUCKET_BYTES];
            for number in 1..SLOT_END {
                let slot = Slot(read_u64(line, number * 8));
                if slot.tag() == hash.tag() && !slot.is_empty() && is_match(slot) {
                    return Some((SlotAt(bucket + number * 8), slot));
                }
            }
            match read_u32(line, 0) {
                0 => return None,
                link => bucket = self.overflow_address(link - 1),
            }
        }
    }

    /// Adds a slot. The caller has made sure of [`Index::has_room`].
    pub fn insert(&mut self, memory: &mut [u8], hash: KeyHash, slot: Slot) {
        self.insert_at(memory, self.bucket_of(hash), slot);
        self.entries += 1;
    }

    pub fn remove(&mut self, memory: &mut [u8], at: SlotAt) {
        write_u64(memory, at.0, 0);
        self.entries -= 1;
    }

    #[inline]
    pub fn replace(&self, memory: &mut [u8], at: SlotAt, slot: Slot) {
        write_u64(memory, at.0, slot.0);
    }

    /// Whether one more entry surely finds a place.
    pub fn has_room(&self) -> bool {
        self.overflow_free_count > 0
    }

    /// Adds a segment of zeroes for overflow buckets.
    pub fn add_overflow_page(&mut self, memory: &mut [u8], page: u32) {
        let first = (self.overflow_pages.len() as u32) << self.page_shift;
        self.overflow_pages.push(page);
        for number in (first..first + (1 << self.page_shift)).rev() {
            self.free_overflow(memory, number);
        }
    }

    /// Whether the entries have outgrown the buckets.
    pub fn wants_split(&self) -> bool {
        self.entries > u64::from(self.bucket_count) * ENTRIES_PER_BUCKET && self.bucket_count < 1 << 31
    }

    /// Whether the next split needs a page first.
    pub fn split_needs_page(&self) -> bool {
        self.bucket_count as usize == self.pages.len() << self.page_shift
    }

    /// Adds a segment of zeroes for addressed buckets.
    pub fn add_page(&mut self, page: u32) {
        self.pages.push(page);
    }

    /// Splits the next bucket in turn. `hash_of` recomputes an item's hash from its location.
    /// Needs no overflow bucket that it has not freed itself: two chains of what one held are
    /// never longer together.
    pub fn split(&mut self, memory: &mut [u8], hash_of: impl Fn(&[u8], usize) -> KeyHash) {
        assert!(!self.split_needs_page());
        let old = self.split_next;
        let mut slots = std::mem::take(&mut self.scratch);
        self.drain_chain(memory, old, &mut slots);
        self.bucket_count += 1;
        self.split_next += 1;
        if self.split_next == 1 << self.round_bits {
            self.split_next = 0;
            self.round_bits += 1;
        }
        for slot in slots.drain(..).map(Slot) {
            let bucket = self.bucket_of(hash_of(memory, slot.location()));
            debug_assert!(bucket == old || bucket == self.bucket_count - 1);
            self.insert_at(memory, bucket, slot);
        }
        self.scratch = slots;
    }

    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Segments held, overflow included.
    pub fn page_count(&self) -> usize {
        self.pages.len() + self.overflow_pages.len()
    }

    /// Calls `visit` with every slot and the bucket number whose chain holds it.
    pub fn for_each(&self, memory: &[u8], mut visit: impl FnMut(u32, Slot)) {
        for number in 0..self.bucket_count {
            let mut bucket = self.address(number);
            loop {
                for position in 1..SLOT_END {
                    let slot = Slot(read_u64(memory, bucket + position * 8));
                    if !slot.is_empty() {
                        visit(number, slot);
                    }
                }
                match read_u32(memory, bucket) {
                    0 => break,
                    link => bucket = self.overflow_address(link - 1),
                }
            }
        }
    }

    /// The bucket that `hash` belongs to.
    #[inline]
    pub fn bucket_of(&self, hash: KeyHash) -> u32 {
        let bits = hash.bucket_bits();
        let bucket = bits & ((1 << self.round_bits) - 1);
        if bucket < self.split_next { bits & ((1 << (self.round_bits + 1)) - 1) } else { bucket }
    }

    /// Forgets every entry; pages stay.
    pub fn clear(&mut self, memory: &mut [u8]) {
        for number in 0..self.bucket_count {
            let mut slots = std::mem::take(&mut self.scratch);
            self.drain_chain(memory, number, &mut slots);
            slots.clear();
            self.scratch = slots;
        }
        self.entries = 0;
    }

    fn insert_at(&mut self, memory: &mut [u8], number: u32, slot: Slot) {
        let mut bucket = self.address(number);
        loop {
            for position in 1..SLOT_END {
                if read_u64(memory, bucket + position * 8) == 0 {
                    write_u64(memory, bucket + position * 8, slot.0);
                    return;
                }
            }
            match read_u32(memory, bucket) {
                0 => {
                    let fresh = self.take_overflow(memory);
                    write_u32(memory, bucket, fresh + 1);
                    bucket = self.overflow_address(fresh);
                }
                link => bucket = self.overflow_address(link - 1),
            }
        }
    }

    /// Moves all slots of a bucket's chain to `slots` and frees its overflow buckets.
    fn drain_chain(&mut self, memory: &mut [u8], number: u32, slots: &mut Vec<u64>) {
        let mut bucket = self.address(number);
        let mut overflow = None;
        loop {
            for position in 1..SLOT_END {
                let word = read_u64(memory, bucket + position * 8);
                if word != 0 {
                    slots.push(word);
                }
            }
            let link = read_u32(memory, bucket);
            memory[bucket..bucket + BUCKET_BYTES].fill(0);
            if let Some(number) = overflow {
                self.free_overflow(memory, number);
            }
            if link == 0 {
                return;
            }
            overflow = Some(link - 1);
            bucket = self.overflow_address(link - 1);
        }
    }

    fn take_overflow(&mut self, memory: &mut [u8]) -> u32 {
        assert!(self.overflow_free > 0, "has_room() was not asked before insert()");
        let number = self.overflow_free - 1;
        let bucket = self.overflow_address(number);
        self.overflow_free = read_u32(memory, bucket);
        self.overflow_free_count -= 1;
        write_u32(memory, bucket, 0);
        number
    }

    fn free_overflow(&mut self, memory: &mut [u8], number: u32) {
        let bucket = self.overflow_address(number);
        write_u32(memory, bucket, self.overflow_free);
        self.overflow_free = number + 1;
        self.overflow_free_count += 1;
    }

    #[inline]
    fn address(&self, bucket: u32) -> usize {
        self.place(&self.pages, bucket)
    }

    fn overflow_address(&self, number: u32) -> usize {
        self.place(&self.overflow_pages, number)
    }

    #[inline]
    fn place(&self, pages: &[u32], number: u32) -> usize {
        let page = pages[(number >> self.page_shift) as usize] as usize;
        (page << self.segment_shift) + (number as usize & ((1 << self.page_shift) - 1)) * BUCKET_BYTES
    }
}

/// Words of a bucket: one for the link, seven slots.
const SLOT_END: usize = BUCKET_BYTES / 8;
/// Mean entries per addressed bucket before one is split. With overflow counted a bucket costs
/// 64 B × 1.27 / 6 = 13.5 B an entry at 6, 12.5 B at 8; a probe reads 1.07 lines at 6, 1.3 at 8.
const ENTRIES_PER_BUCKET: u64 = 6;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::hash::HashSeed;
    use crate::learn::Touch;

    /// Entries whose location is their number, so that a hash can be recomputed from it.
    fn hash_of(location: usize) -> KeyHash {
        HashSeed(1).hash(&location.to_le_bytes())
    }

    #[test]
    fn every_entry_is_found_through_growth_and_removal() {
        let (segment_bytes, count) = (1024, 20_000usize);
        let mut memory = vec![0; segment_bytes * 1000];
        let mut index = Index::new(0, segment_bytes);
        let mut page = 1;
        for location in 0..count {
            while !index.has_room() {
                index.add_overflow_page(&mut memory, page);
                page += 1;
            }
            let hash = hash_of(location);
            index.insert(&mut memory, hash, Slot::new(hash.tag(), Touch::default(), location));
            while index.wants_split() {
                if index.split_needs_page() {
                    index.add_page(page);
                    page += 1;
                }
                index.split(&mut memory, |_, location| hash_of(location));
            }
        }
        for location in 0..count {
            let found = index.find(&memory, hash_of(location), |slot| slot.location() == location);
            let (at, _) = found.unwrap_or_else(|| panic!("{location} is lost"));
            if location % 3 == 0 {
                index.remove(&mut memory, at);
            }
        }
        let mut left = 0;
        index.for_each(&memory, |bucket, slot| {
            assert_eq!(bucket, index.bucket_of(hash_of(slot.location())));
            assert_ne!(slot.location() % 3, 0);
            left += 1;
        });
        assert_eq!(left, index.entries());
        assert!(index.page_count() * segment_bytes < count * 16, "the index grew out of proportion");
    }
}
