//! The memory of a cache: one mapping, cut from the front into pieces for regions and arenas.
//!
//!   | region | region | … | arena | arena | … |     each piece begins at a multiple of 4096
//!
//! Stores and publishers borrow their pieces for as long as they live, and the mapping lives beside them in one
//! struct. Rust has no name for that lifetime, so pieces say 'static and the cutter's caller promises the rest.

#![expect(unsafe_code, reason = "pieces of a mapping that outlives them")]

use std::sync::atomic::AtomicU64;

use crate::embedded::error::BuildError;
#[cfg(not(miri))]
use crate::host::memory::{Arena, PageWish};

/// Keeps the mapping; it is unmapped when this is dropped.
pub struct Memory {
    /// Miri knows no mappings in huge pages, so it gets a vector of the same size.
    #[cfg(not(miri))]
    _arena: Arena,
    #[cfg(miri)]
    _words: Vec<[u64; PAGE_BYTES / 8]>,
}

/// What of the mapping has not been given out yet.
pub struct Cutter {
    next: *mut u8,
    left_bytes: usize,
}

impl Memory {
    /// Maps `bytes` of zeroed memory, in huge pages if `huge` and if there are any; `populate` touches all of it.
    #[cfg(not(miri))]
    pub fn reserve(bytes: usize, huge: bool, populate: bool) -> Result<(Memory, Cutter), BuildError> {
        let pages = if huge { PageWish::Transparent } else { PageWish::Small };
        let mut arena =
            Arena::reserve(bytes, pages, None, populate).map_err(|reason| BuildError::Memory { bytes, reason })?;
        // The only time the arena is looked at: from here on there are pieces of it.
        let next = arena.as_mut_ptr();
        Ok((Memory { _arena: arena }, Cutter { next, left_bytes: bytes }))
    }

    /// The same in a vector.
    #[cfg(miri)]
    pub fn reserve(bytes: usize, _huge: bool, _populate: bool) -> Result<(Memory, Cutter), BuildError> {
        let mut words = vec![[0; PAGE_BYTES / 8]; bytes.div_ceil(PAGE_BYTES)];
        let next = words.as_mut_ptr().cast();
        Ok((Memory { _words: words }, Cutter { next, left_bytes: bytes }))
    }
}

impl Cutter {
    /// The next `bytes` bytes.
    ///
    /// # Safety
    /// The piece must not be used after the [`Memory`] that this cutter came with is dropped.
    pub unsafe fn bytes(&mut self, bytes: usize) -> &'static mut [u8] {
        let start = self.cut(bytes);
        // SAFETY: 1. `cut` gives out every byte once, so nobody else refers to these. 2. they are mapped and zeroed
        // until the memory is dropped, which the caller waits for.
        unsafe { std::slice::from_raw_parts_mut(start, bytes) }
    }

    /// The next `words` words.
    ///
    /// # Safety
    /// As [`Cutter::bytes`].
    pub unsafe fn words(&mut self, words: usize) -> &'static [AtomicU64] {
        let start = self.cut(words * 8);
        // SAFETY: 1. and 2. as in `bytes`. 3. pieces begin at pages, so words are aligned, and zeros are words.
        unsafe { std::slice::from_raw_parts(start.cast::<AtomicU64>(), words) }
    }

    fn cut(&mut self, bytes: usize) -> *mut u8 {
        let whole = bytes.next_multiple_of(PAGE_BYTES);
        assert!(whole <= self.left_bytes, "the plan does not fit its memory");
        let start = self.next;
        self.left_bytes -= whole;
        // SAFETY: by the assertion the sum lies in the mapping or at its end.
        self.next = unsafe { self.next.add(whole) };
        start
    }
}

/// Where pieces begin is a multiple of this.
pub const PAGE_BYTES: usize = 4096;

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn pieces_are_zeroed_and_do_not_overlap() {
        let (memory, mut cutter) = Memory::reserve(4 * PAGE_BYTES, false, true).unwrap();
        // SAFETY: the memory is dropped at the end of the test.
        let (words, first, second) = unsafe { (cutter.words(3), cutter.bytes(PAGE_BYTES + 1), cutter.bytes(10)) };
        assert!(first.iter().chain(second.iter()).all(|&byte| byte == 0));
        words[2].store(u64::MAX, Ordering::Relaxed);
        first.fill(1);
        second.fill(2);
        assert_eq!((words[2].load(Ordering::Relaxed), first[PAGE_BYTES], second[9]), (u64::MAX, 1, 2));
        drop(memory);
    }

    #[test]
    #[should_panic(expected = "does not fit")]
    fn no_more_is_given_out_than_there_is() {
        let (_memory, mut cutter) = Memory::reserve(PAGE_BYTES, false, false).unwrap();
        // SAFETY: nothing is given out.
        unsafe { cutter.bytes(PAGE_BYTES + 1) };
    }
}
