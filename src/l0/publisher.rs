//! The owner's side of a region: publishing, rewriting, taking away.
//!
//! The owner tells the publisher of every write to its shard before it answers the write, and the publisher
//! has rewritten or cleared the entry's slot when it returns. That is the whole rule of coherence: from the
//! acknowledgement on no reader is given the old value, because there is no slot left that holds it.
//!
//! What is published is decided by the store's learned ranks (`hotness` below), the same that decide what
//! stays in the shard. Hits that readers report are counted there as requests, so an entry that is read here
//! stays hot, and one that is read no longer cools down and gives way to the next candidate.

use crate::base::hash::KeyHash;
use crate::base::limits;
use crate::l0::slot::{self, HEADER_WORDS, Head, Life};
use crate::l0::table::Region;
use crate::l0::word::Word;

/// Publishes the entries of one shard in one region. It alone writes there.
pub struct Publisher<'a, W> {
    region: Region<'a, W>,
    spill_free: Vec<u32>,
    published: u64,
    epoch: u16,
    /// Slots of old epochs are cleared from here on, a few at a time.
    sweep_at: usize,
    /// Flushes since the sweep last began a round, and how many slots are left of this one.
    flushes: u16,
    sweep_left: usize,
}

/// An entry as it is published.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// The key.
    pub key: &'a [u8],
    /// Its hash.
    pub hash: KeyHash,
    /// The value.
    pub value: &'a [u8],
    /// When it stops being served, ms of CLOCK_MONOTONIC; 0 for never.
    pub expires_ms: u64,
}

impl<'a, W: Word> Publisher<'a, W> {
    /// Begins to publish in a region of zeros.
    pub fn new(region: Region<'a, W>) -> Publisher<'a, W> {
        // The first epoch is one: a slot of zeros has none.
        region.set_epoch(1);
        let spill_free = (0..region.shape().spill_count).rev().collect();
        Publisher { region, spill_free, published: 0, epoch: 1, sweep_at: 0, flushes: 0, sweep_left: 0 }
    }

    /// The region, for readers in this process.
    pub fn region(&self) -> Region<'a, W> {
        self.region
    }

    /// Entries that readers may find.
    pub fn published(&self) -> u64 {
        self.published
    }

    /// Whether an entry of these lengths can be published.
    #[inline]
    pub fn fits(key_bytes: usize, value_bytes: usize) -> bool {
        // An empty key would look like an empty slot.
        (1..=limits::L0_KEY_BYTES_MAX).contains(&key_bytes) && value_bytes <= limits::L0_VALUE_BYTES_MAX
    }

    /// Whether `key` is published.
    pub fn has(&self, hash: KeyHash, key: &[u8]) -> bool {
        self.find(hash, key).is_some()
    }

    /// Begins to load the line that a write to `hash` will look at.
    #[inline]
    pub fn prefetch(&self, hash: KeyHash) {
        self.region.prefetch(hash);
    }

    /// A key has got another value: what is published for it is rewritten, or cleared if it no longer fits.
    #[inline]
    pub fn written(&mut self, entry: &Entry<'_>) {
        if let Some(slot) = self.find(entry.hash, entry.key)
            && !(Self::fits(entry.key.len(), entry.value.len()) && self.write(slot, entry))
        {
            self.clear(slot);
        }
    }

    /// A key is gone.
    #[inline]
    pub fn removed(&mut self, hash: KeyHash, key: &[u8]) {
        if let Some(slot) = self.find(hash, key) {
            self.clear(slot);
        }
    }

    /// A key expires at another time; 0 for never.
    pub fn touched(&mut self, hash: KeyHash, key: &[u8], expires_ms: u64) {
        if let Some(slot) = self.find(hash, key) {
            slot::set_life(self.region.slot(slot), Life::new(self.epoch, expires_ms));
        }
    }

    /// Everything is gone: one word, whatever the number of slots.
    pub fn flushed(&mut self) {
        self.epoch = if self.epoch == u16::MAX { 1 } else { self.epoch + 1 };
        self.region.set_epoch(self.epoch);
        self.published = 0;
        self.flushes += 1;
        self.sweep_left = self.region.shape().slot_count();
        if self.flushes == FLUSHES_MAX {
            // Before an epoch comes around nothing of its namesake may be left.
            self.sweep(usize::MAX);
        }
    }

    /// Publishes an entry that is stored and asked for. `hotness` says how hot another published key is; if
    /// all places are taken, the coldest gives way, or the entry does. Answers whether it is published.
    pub fn publish(&mut self, entry: &Entry<'_>, hotness: impl Fn(&[u8]) -> f32) -> bool {
        if !Self::fits(entry.key.len(), entry.value.len()) {
            return false;
        }
        if self.find(entry.hash, entry.key).is_some() {
            return true;
        }
        let home = self.region.home(entry.hash);
        let window = home..home + limits::L0_WINDOW;
        let free = window.clone().find(|&slot| !self.is_live(slot));
        let slot = match free {
            Some(slot) => slot,
            None => {
                let own = hotness(entry.key);
                if own <= 0.0 {
                    return false; // nothing is colder, so the others need not be asked
                }
                let heat = |slot: usize| self.with_key(slot, &hotness);
                let coldest = window.map(|slot| (slot, heat(slot))).min_by(|a, b| a.1.total_cmp(&b.1));
                let Some((slot, _)) = coldest.filter(|&(_, heat)| heat < own) else { return false };
                slot
            }
        };
        let there = Head(self.region.slot(slot)[0].load());
        let has_cell = there.is_spilled() || !self.spill_free.is_empty();
        if entry.value.len() > self.inline_bytes(entry.key.len()) && !has_cell {
            return false; // before another entry has given way for nothing
        }
        if there.key_bytes() != 0 {
            self.clear(slot);
        }
        let is_written = self.write(slot, entry);
        self.published += u64::from(is_written);
        is_written
    }

    /// Calls `with` with the key in `slot`, should one be published there; a reader has named it. Clears the
    /// slot if `with` answers that the key should not be there.
    pub fn check(&mut self, slot: u32, with: impl FnOnce(&[u8]) -> bool) {
        let slot = slot as usize;
        if slot < self.region.shape().slot_count() && self.is_live(slot) && !self.with_key(slot, with) {
            self.clear(slot);
        }
    }

    /// Clears a few slots of old epochs, if there may be any.
    pub fn sweep(&mut self, slots: usize) {
        for _ in 0..slots.min(self.sweep_left) {
            let slot = self.sweep_at;
            self.sweep_at = (slot + 1) % self.region.shape().slot_count();
            self.sweep_left -= 1;
            let head = Head(self.region.slot(slot)[0].load());
            if head.key_bytes() != 0 && !self.is_live(slot) {
                self.clear(slot);
            }
        }
        if self.sweep_left == 0 {
            self.flushes = 0;
        }
    }

    /// Recounts everything.
    ///
    /// # Panics
    /// If a belief does not hold.
    pub fn verify(&self, hash_of: impl Fn(&[u8]) -> KeyHash) {
        let count = self.region.shape().slot_count();
        let mut cells = vec![false; self.region.shape().spill_count as usize];
        let mut published = 0;
        for slot in 0..count {
            let head = Head(self.region.slot(slot)[0].load());
            assert!(!head.is_odd(), "slot {slot} is left half written");
            if head.key_bytes() == 0 {
                continue;
            }
            if head.is_spilled() {
                let cell = self.cell_of(slot, head) as usize;
                assert!(!std::mem::replace(&mut cells[cell], true), "cell {cell} has two owners");
            }
            if self.is_live(slot) {
                published += 1;
                let (hash, found) = self.with_key(slot, |key| (hash_of(key), self.find(hash_of(key), key)));
                let home = self.region.home(hash);
                assert!((home..home + limits::L0_WINDOW).contains(&slot), "slot {slot} is outside its window");
                assert_eq!(found, Some(slot), "a search for the key in slot {slot} ends elsewhere");
            }
        }
        assert_eq!(published, self.published, "published entries");
        let owned = cells.iter().filter(|&&owned| owned).count();
        assert_eq!(owned + self.spill_free.len(), cells.len(), "spill cells");
        assert!(self.spill_free.iter().all(|&cell| !cells[cell as usize]), "a free cell has an owner");
    }

    #[inline]
    fn find(&self, hash: KeyHash, key: &[u8]) -> Option<usize> {
        if key.len() > limits::L0_KEY_BYTES_MAX {
            return None;
        }
        let home = self.region.home(hash);
        let key_words = HEADER_WORDS..HEADER_WORDS + key.len().div_ceil(8);
        for slot in home..home + limits::L0_WINDOW {
            let words = self.region.slot(slot);
            let head = Head(words[0].load());
            if head.is_end() {
                return None;
            }
            if head.may_hold(key.len()) && slot::has_key(&words[key_words.clone()], key) && self.is_live(slot) {
                return Some(slot);
            }
        }
        None
    }

    /// Something is published there, and no flush has come since.
    fn is_live(&self, slot: usize) -> bool {
        let words = self.region.slot(slot);
        Head(words[0].load()).key_bytes() != 0 && Life(words[1].load()).epoch() == self.epoch
    }

    fn with_key<T>(&self, slot: usize, with: impl FnOnce(&[u8]) -> T) -> T {
        let words = self.region.slot(slot);
        let length = Head(words[0].load()).key_bytes();
        let mut key = [0u8; limits::L0_KEY_BYTES_MAX];
        for (bytes, word) in key.chunks_exact_mut(8).zip(&words[HEADER_WORDS..HEADER_WORDS + length.div_ceil(8)]) {
            bytes.copy_from_slice(&word.load().to_le_bytes());
        }
        with(&key[..length])
    }

    /// Writes an entry into a slot that holds nothing or an older value of its key. `false`, and nothing has
    /// changed, if there is no spill cell for a value that needs one.
    fn write(&mut self, slot: usize, entry: &Entry<'_>) -> bool {
        let words = self.region.slot(slot);
        let head = Head(words[0].load());
        let own_cell = (head.key_bytes() != 0 && head.is_spilled()).then(|| self.cell_of(slot, head));
        let life = Life::new(self.epoch, entry.expires_ms);
        if entry.value.len() <= self.inline_bytes(entry.key.len()) {
            slot::write(words, None, life, entry.key, entry.value);
            // After the write: a reader of the old content has seen the sequence change by now.
            self.spill_free.extend(own_cell);
        } else {
            let Some(cell) = own_cell.or_else(|| self.spill_free.pop()) else { return false };
            slot::write(words, Some((cell.into(), self.region.spill(cell as usize))), life, entry.key, entry.value);
        }
        true
    }

    /// Longest value that fits a slot beside a key of `key_bytes`.
    fn inline_bytes(&self, key_bytes: usize) -> usize {
        (limits::L0_SLOT_WORDS - HEADER_WORDS - key_bytes.div_ceil(8)) * 8
    }

    fn clear(&mut self, slot: usize) {
        let words = self.region.slot(slot);
        let head = Head(words[0].load());
        if self.is_live(slot) {
            self.published -= 1;
        }
        if head.is_spilled() {
            self.spill_free.push(self.cell_of(slot, head));
        }
        // A search that comes by here need not go on if none goes on past the next slot; then those just
        // before, kept for the same reason, end searches too.
        let is_end =
            |slot: usize| slot >= self.region.shape().slot_count() || Head(self.region.slot(slot)[0].load()).is_end();
        let ends = is_end(slot + 1);
        slot::clear(words, !ends);
        let mut before = slot;
        while ends && before > 0 && Head(self.region.slot(before - 1)[0].load()).is_passed() {
            before -= 1;
            slot::clear(self.region.slot(before), false);
        }
    }

    fn cell_of(&self, slot: usize, head: Head) -> u32 {
        self.region.slot(slot)[HEADER_WORDS + head.key_bytes().div_ceil(8)].load() as u32
    }
}

/// Flushes between two rounds of the sweep, at most: fewer than there are epochs.
const FLUSHES_MAX: u16 = u16::MAX / 2;
