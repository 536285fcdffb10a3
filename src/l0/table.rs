//! A region: the published entries of one shard, as readers and the owner see it.
//!
//!   | state 64 B | slot | slot | … | slot × 7 more | spill cell | spill cell | … |
//!                 home ^ one of the next eight slots holds the entry, or none does
//!
//!   state   | epoch | … zeros |      rises with every flush; a slot of another epoch is not published
//!
//! Open addressing with a bounded window: one dependent miss a look-up where a directory in front of the
//! values would cost two (a million entries: 145 ns against 260). A hit among a few thousand is a hash, a
//! compare and a copy. The owner is the only writer; what a reader may see while it writes is decided by the
//! slots' sequence locks alone, so a slot may be cleared, replaced or moved at any moment: the worst a reader
//! gets is a miss, which the appliance answers.

use crate::base::hash::KeyHash;
use crate::base::limits;
use crate::l0::slot::{self, HEADER_WORDS, Head, Life};
use crate::l0::word::Word;

/// How many slots and spill cells a region has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Places that a hash may call home.
    pub home_count: u32,
    /// Cells for values that do not fit a slot.
    pub spill_count: u32,
}

/// A region of shared words.
pub struct Region<'a, W> {
    words: &'a [W],
    shape: Shape,
}

/// A value that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its bytes.
    pub value_bytes: usize,
    /// The slot it was in.
    pub slot: u32,
}

impl Shape {
    /// The region that fits `bytes`: three quarters of them slots, one quarter spill cells.
    pub fn for_bytes(bytes: usize) -> Shape {
        let words = bytes / 8;
        let spill_count = words / 4 / limits::L0_SPILL_WORDS;
        let fixed = STATE_WORDS + PAD_WORDS + spill_count * limits::L0_SPILL_WORDS;
        let slots = words.saturating_sub(fixed) / limits::L0_SLOT_WORDS;
        Shape { home_count: slots.saturating_sub(limits::L0_WINDOW - 1) as u32, spill_count: spill_count as u32 }
    }

    /// Slots in all: those that are nobody's home end the last windows.
    pub fn slot_count(self) -> usize {
        self.home_count as usize + limits::L0_WINDOW - 1
    }

    /// Words of the region.
    pub fn words(self) -> usize {
        self.spill_at(self.spill_count as usize) + PAD_WORDS
    }

    /// The home of a hash.
    #[inline(always)]
    fn home(self, hash: KeyHash) -> usize {
        ((u64::from(hash.bucket_bits()) * u64::from(self.home_count)) >> 32) as usize
    }

    #[inline(always)]
    fn slot_at(slot: usize) -> usize {
        STATE_WORDS + slot * limits::L0_SLOT_WORDS
    }

    fn spill_at(self, cell: usize) -> usize {
        Shape::slot_at(self.slot_count()) + cell * limits::L0_SPILL_WORDS
    }
}

impl<W> Clone for Region<'_, W> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<W> Copy for Region<'_, W> {}

impl<'a, W: Word> Region<'a, W> {
    /// A region over `words`.
    ///
    /// # Panics
    /// If there are fewer words than the shape has.
    pub fn new(words: &'a [W], shape: Shape) -> Region<'a, W> {
        assert!(words.len() >= shape.words() && shape.home_count > 0, "a region lies inside its memory");
        Region { words, shape }
    }

    /// Its shape.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The words of a slot.
    #[inline(always)]
    pub(super) fn slot(&self, slot: usize) -> &'a [W] {
        let at = Shape::slot_at(slot);
        &self.words[at..at + limits::L0_SLOT_WORDS]
    }

    pub(super) fn spill(&self, cell: usize) -> &'a [W] {
        let at = self.shape.spill_at(cell);
        &self.words[at..at + limits::L0_SPILL_WORDS]
    }

    /// The present epoch.
    #[inline(always)]
    pub(super) fn epoch(&self) -> u16 {
        self.words[0].load() as u16
    }

    pub(super) fn set_epoch(&self, epoch: u16) {
        self.words[0].store(epoch.into());
        W::release();
    }

    #[inline(always)]
    pub(super) fn home(&self, hash: KeyHash) -> usize {
        self.shape.home(hash)
    }

    /// Begins to load the lines of a hash's home.
    #[inline(always)]
    pub fn prefetch(&self, hash: KeyHash) {
        let words = self.slot(self.home(hash));
        for line in (0..limits::L0_SLOT_WORDS).step_by(8) {
            crate::base::prefetch::value(&words[line]);
        }
    }

    /// Copies the value published for `key` to the front of `out`. `is_over` is asked, only for entries that
    /// expire, whether a moment (ms of CLOCK_MONOTONIC) has come.
    #[inline(always)]
    pub fn read(
        &self,
        hash: KeyHash,
        key: &[u8],
        out: &mut [u64; limits::L0_SPILL_WORDS],
        is_over: impl Fn(u64) -> bool,
    ) -> Option<Found> {
        self.read_with(hash, key, is_over, |from, bytes| {
            let lines = bytes.div_ceil(64);
            // As torn lengths may have it.
            let is_possible = lines * 8 <= out.len().min(from.len());
            if is_possible {
                W::copy(from, lines, out);
            }
            is_possible
        })
    }

    /// The same for any destination: `copy` is given the words that the value begins, whole lines of them and at
    /// least as many as its bytes need, unless lengths are torn; it answers whether it could take them. What it
    /// took is right only if an answer is found; until then it may be called again and must overwrite what it took.
    #[inline(always)]
    pub fn read_with(
        &self,
        hash: KeyHash,
        key: &[u8],
        is_over: impl Fn(u64) -> bool,
        mut copy: impl FnMut(&[W], usize) -> bool,
    ) -> Option<Found> {
        let home = self.home(hash);
        // Nine of ten are at home when the table is not full: tried in line, all else out of it.
        let found = match self.attempt(home, key, &mut copy) {
            Attempt::Copied(copied) => (home, copied),
            _ => self.search(home, key, &mut copy)?,
        };
        let (slot, Copied { value_bytes, life }) = found;
        let is_past = life.expires_ms() != 0 && is_over(life.expires_ms());
        if is_past || life.epoch() != self.epoch() {
            return None;
        }
        Some(Found { value_bytes, slot: slot as u32 })
    }

    #[inline(never)]
    fn search(&self, home: usize, key: &[u8], copy: &mut impl FnMut(&[W], usize) -> bool) -> Option<(usize, Copied)> {
        for slot in home..home + limits::L0_WINDOW {
            // A writer is done in some thirty nanoseconds unless it was interrupted; then the appliance answers.
            for _ in 0..limits::L0_RETRIES {
                match self.attempt(slot, key, copy) {
                    Attempt::Copied(copied) => return Some((slot, copied)),
                    Attempt::Other => break,
                    Attempt::End => return None,
                    Attempt::Disturbed => W::pause(),
                }
            }
        }
        None
    }

    /// Looks at one slot once.
    #[inline(always)]
    fn attempt(&self, slot: usize, key: &[u8], copy: &mut impl FnMut(&[W], usize) -> bool) -> Attempt {
        let words = self.with_pad(slot);
        let head = Head(words[0].load());
        W::acquire();
        // Empty keys wrap around and are too long as well: no key bytes mean that nothing is published, and
        // what a cleared slot was must not be found under the empty key.
        let is_key = key.len().wrapping_sub(1) < limits::L0_KEY_BYTES_MAX;
        if head.key_bytes() != key.len() || head.is_odd() || !is_key {
            return match (head.is_odd(), head.is_end()) {
                (true, _) => Attempt::Disturbed,
                (_, true) => Attempt::End,
                _ => Attempt::Other,
            };
        }
        let value_at = HEADER_WORDS + key.len().div_ceil(8);
        if !slot::has_key(&words[HEADER_WORDS..value_at], key) {
            return Attempt::Other;
        }
        let life = Life(words[1].load());
        let is_copied = if head.is_spilled() {
            self.spilled(words[value_at].load()).is_some_and(|from| copy(from, head.value_bytes()))
        } else {
            copy(&words[value_at..], head.value_bytes())
        };
        W::acquire();
        if words[0].load() != head.0 || !is_copied {
            return Attempt::Disturbed;
        }
        Attempt::Copied(Copied { value_bytes: head.value_bytes(), life })
    }

    /// The words of a slot and a line more, which is always there.
    #[inline(always)]
    fn with_pad(&self, slot: usize) -> &'a [W; limits::L0_SLOT_WORDS + PAD_WORDS] {
        let at = Shape::slot_at(slot);
        let words = &self.words[at..at + limits::L0_SLOT_WORDS + PAD_WORDS];
        words.try_into().expect("the slice has that length")
    }

    #[cold]
    #[inline(never)]
    fn spilled(&self, cell: u64) -> Option<&'a [W]> {
        // The number may be torn like everything else: it is checked before it is followed.
        (cell < u64::from(self.shape.spill_count)).then(|| self.spill(cell as usize))
    }
}

/// What a look at a slot has found.
enum Attempt {
    /// The key, and its value is copied.
    Copied(Copied),
    /// Another key or none; go on.
    Other,
    /// No key here nor further on.
    End,
    /// The slot is being written.
    Disturbed,
}

#[derive(Clone, Copy)]
struct Copied {
    value_bytes: usize,
    life: Life,
}

/// Words after the last cell, so that whole lines may be copied wherever a value begins.
const PAD_WORDS: usize = 8;
/// Words before the first slot: a line of their own, read with every hit and written by flushes only.
pub const STATE_WORDS: usize = 8;
