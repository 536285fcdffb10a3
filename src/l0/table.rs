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
        let slots = (words.saturating_sub(STATE_WORDS + spill_count * limits::L0_SPILL_WORDS)) / limits::L0_SLOT_WORDS;
        Shape { home_count: slots.saturating_sub(limits::L0_WINDOW - 1) as u32, spill_count: spill_count as u32 }
    }

    /// Slots in all: those that are nobody's home end the last windows.
    pub fn slot_count(self) -> usize {
        self.home_count as usize + limits::L0_WINDOW - 1
    }

    /// Words of the region.
    pub fn words(self) -> usize {
        STATE_WORDS + self.slot_count() * limits::L0_SLOT_WORDS + self.spill_count as usize * limits::L0_SPILL_WORDS
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
        let home = self.home(hash);
        let key_words = key.len().div_ceil(8);
        if key.len() > limits::L0_KEY_BYTES_MAX {
            return None;
        }
        for slot in home..home + limits::L0_WINDOW {
            let words = self.slot(slot);
            // A writer is done in some ten nanoseconds unless it was interrupted; then the appliance answers.
            for _ in 0..limits::L0_RETRIES {
                let head = Head(words[0].load());
                W::acquire();
                if head.is_odd() {
                    std::hint::spin_loop();
                    continue;
                }
                if !head.may_hold(key.len()) {
                    if head.is_end() {
                        return None;
                    }
                    break;
                }
                if !slot::has_key(&words[HEADER_WORDS..HEADER_WORDS + key_words], key) {
                    break;
                }
                let life = Life(words[1].load());
                let value_at = HEADER_WORDS + key_words;
                let value_words = head.value_bytes().div_ceil(8);
                let copied = if head.is_spilled() {
                    self.copy_spilled(words[value_at].load(), value_words, out)
                } else {
                    copy(words.get(value_at..value_at + value_words), out)
                };
                W::acquire();
                if words[0].load() != head.0 || !copied {
                    continue;
                }
                let is_past = life.expires_ms() != 0 && is_over(life.expires_ms());
                if is_past || life.epoch() != self.epoch() {
                    return None;
                }
                return Some(Found { value_bytes: head.value_bytes(), slot: slot as u32 });
            }
        }
        None
    }

    #[cold]
    fn copy_spilled(&self, cell: u64, value_words: usize, out: &mut [u64; limits::L0_SPILL_WORDS]) -> bool {
        // The number may be torn like everything else: it is checked before it is followed.
        cell < u64::from(self.shape.spill_count) && copy(self.spill(cell as usize).get(..value_words), out)
    }
}

/// Copies words; `false` if they are not all there, as torn lengths may have it.
#[inline(always)]
fn copy<W: Word>(from: Option<&[W]>, out: &mut [u64; limits::L0_SPILL_WORDS]) -> bool {
    let Some(from) = from else { return false };
    if from.len() > out.len() {
        return false;
    }
    for (out, word) in out.iter_mut().zip(from) {
        *out = word.load();
    }
    true
}

/// Words before the first slot: a line of their own, read with every hit and written by flushes only.
pub const STATE_WORDS: usize = 8;
