//! Ghosts: four-byte memories of items that were dropped.
//!
//!   31          12 11          0
//!   | touch       | fingerprint |      sixteen to a cache line, no order, oldest replaced
//!
//! When a dropped key comes back its history does too, and `learn` hears that dropping it was a
//! mistake; when a ghost is replaced unseen it hears that it was not. A false match (one in 256 a
//! look-up: sixteen candidates of twelve bits) lends a stranger's history to a new item for its
//! first stay, which costs a little accuracy and never correctness.

use crate::base::hash::KeyHash;
use crate::base::limits::BUCKET_BYTES;
use crate::base::prefetch;
use crate::cache::bytes::{read_u32, write_u32};
use crate::learn::{Clock, GhostKey, Touch};

#[derive(Default)]
pub struct Ghosts {
    pages: Vec<u32>,
    lines: u64,
    /// Lines that have been zeroed; those after them hold nothing yet.
    cleared: u64,
    segment_shift: u32,
}

impl Ghosts {
    /// A memory of `lines` lines, or as many as `pages` have, which are segments of whatever content.
    pub fn new(pages: Vec<u32>, lines: u64, segment_bytes: usize) -> Ghosts {
        let fit = (pages.len() * (segment_bytes / BUCKET_BYTES)) as u64;
        Ghosts { pages, lines: lines.min(fit), cleared: 0, segment_shift: segment_bytes.trailing_zeros() }
    }

    /// Lines for the ghosts of `entries` entries: one each, and a fifth more while that costs nothing.
    /// Four times as many at fifty objects help most traces by a hundredth and ruin loops.
    pub fn lines_for(entries: u64) -> u64 {
        entries.max((entries * 6 / 5).min(FEW_GHOSTS)) / GHOSTS_PER_LINE + 1
    }

    /// Zeroes the next few lines, so that a new memory becomes usable bit by bit.
    #[inline]
    pub fn clear_some(&mut self, memory: &mut [u8]) {
        if self.cleared < self.lines {
            for _ in 0..CLEARED_AT_ONCE.min(self.lines - self.cleared) {
                let at = self.address(self.cleared);
                memory[at..at + BUCKET_BYTES].fill(0);
                self.cleared += 1;
            }
        }
    }

    pub fn page_count(&self) -> usize {
        self.pages.len()
    }

    /// Gives up its pages.
    pub fn into_pages(self) -> Vec<u32> {
        self.pages
    }

    /// Remembers a dropped item. Returns the ghost that had to go for it, or `touch` itself where there
    /// is no room for any.
    pub fn remember(
        &self,
        memory: &mut [u8],
        hash: KeyHash,
        touch: Touch,
        clock: &Clock,
    ) -> Option<(Option<GhostKey>, Touch)> {
        let Some((number, line)) = self.line(hash) else { return Some((None, touch)) };
        let (mut oldest, mut oldest_age, mut replaced) = (line, 0, None);
        for at in (line..line + BUCKET_BYTES).step_by(GHOST_BYTES) {
            let ghost = read_u32(memory, at);
            if ghost == 0 {
                (oldest, replaced) = (at, None);
                break;
            }
            let ghost_touch = Touch::from_bits(ghost >> FINGERPRINT_BITS);
            let age = ghost_touch.age(clock);
            if age >= oldest_age {
                let key = ghost_key(number, ghost & FINGERPRINT_MASK);
                (oldest, oldest_age, replaced) = (at, age, Some((Some(key), ghost_touch)));
            }
        }
        write_u32(memory, oldest, touch.bits() << FINGERPRINT_BITS | hash.fingerprint());
        replaced
    }

    /// Begins to load the line of `hash`.
    #[inline]
    pub fn prefetch(&self, memory: &[u8], hash: KeyHash) {
        if let Some((_, line)) = self.line(hash) {
            prefetch::line(memory, line);
        }
    }

    /// Takes back the memory of `hash`, if there is one.
    pub fn recall(&self, memory: &mut [u8], hash: KeyHash) -> Option<Touch> {
        let (_, line) = self.line(hash)?;
        let at = (line..line + BUCKET_BYTES)
            .step_by(GHOST_BYTES)
            .find(|&at| read_u32(memory, at) & FINGERPRINT_MASK == hash.fingerprint())?;
        let ghost = read_u32(memory, at);
        write_u32(memory, at, 0);
        Some(Touch::from_bits(ghost >> FINGERPRINT_BITS))
    }

    /// What a ghost of `hash` knows of it.
    pub fn key(&self, hash: KeyHash) -> Option<GhostKey> {
        self.line(hash).map(|(number, _)| ghost_key(number, hash.fingerprint()))
    }

    /// Number and address of the line of `hash`.
    fn line(&self, hash: KeyHash) -> Option<(u64, usize)> {
        let line = (u64::from(hash.bucket_bits()) * self.lines) >> 32;
        (line < self.cleared).then(|| (line, self.address(line)))
    }

    fn address(&self, line: u64) -> usize {
        let lines_shift = self.segment_shift - BUCKET_BYTES.trailing_zeros();
        let page = self.pages[(line >> lines_shift) as usize] as usize;
        (page << self.segment_shift) + (line as usize & ((1 << lines_shift) - 1)) * BUCKET_BYTES
    }
}

fn ghost_key(line: u64, fingerprint: u32) -> GhostKey {
    GhostKey(line << FINGERPRINT_BITS | u64::from(fingerprint))
}

const FINGERPRINT_BITS: u32 = 12;
const FINGERPRINT_MASK: u32 = (1 << FINGERPRINT_BITS) - 1;
const GHOSTS_PER_LINE: u64 = (BUCKET_BYTES / GHOST_BYTES) as u64;
/// So many ghosts cost 8 KiB: nobody counts them.
const FEW_GHOSTS: u64 = 2048;
/// Bytes of a ghost.
pub const GHOST_BYTES: usize = 4;
/// Lines zeroed at once: half a kibibyte, a few nanoseconds each.
const CLEARED_AT_ONCE: u64 = 8;

const _: () = assert!(Touch::BITS + FINGERPRINT_BITS == 32);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::hash::HashSeed;

    fn cleared(pages: Vec<u32>, segment_bytes: usize, memory: &mut [u8]) -> Ghosts {
        let mut ghosts = Ghosts::new(pages, u64::MAX, segment_bytes);
        (0..ghosts.lines).for_each(|_| ghosts.clear_some(memory));
        ghosts
    }

    #[test]
    fn a_ghost_is_recalled_once() {
        let (mut memory, clock) = (vec![0xa5; 4096], Clock::new());
        let ghosts = cleared(vec![1], 1024, &mut memory);
        let hash = HashSeed(0).hash(b"gone");
        let touch = Touch::first(&clock).again(&clock, 0);
        assert_eq!(ghosts.remember(&mut memory, hash, touch, &clock), None);
        assert_eq!(ghosts.recall(&mut memory, hash), Some(touch));
        assert_eq!(ghosts.recall(&mut memory, hash), None);
    }

    #[test]
    fn what_is_not_cleared_yet_remembers_nothing() {
        let (mut memory, clock) = (vec![0xa5; 1024], Clock::new());
        let ghosts = Ghosts::new(vec![0], u64::MAX, 1024);
        let (hash, touch) = (HashSeed(0).hash(b"gone"), Touch::first(&clock));
        assert_eq!(ghosts.remember(&mut memory, hash, touch, &clock), Some((None, touch)), "given up at once");
        assert_eq!(ghosts.recall(&mut memory, hash), None);
        assert!(memory.iter().all(|&byte| byte == 0xa5));
    }

    #[test]
    fn the_oldest_ghost_of_a_line_goes_first() {
        let (mut memory, mut clock) = (vec![0; 64], Clock::new());
        let ghosts = cleared(vec![0], 64, &mut memory);
        let mut hashes = (0u32..).map(|i| HashSeed(0).hash(&i.to_le_bytes()));
        let first = hashes.next().unwrap();
        let first_touch = Touch::first(&clock);
        ghosts.remember(&mut memory, first, first_touch, &clock);
        for hash in hashes.take(BUCKET_BYTES / GHOST_BYTES) {
            clock.advance();
            let replaced = ghosts.remember(&mut memory, hash, Touch::first(&clock), &clock);
            assert!(replaced.is_none() || replaced.map(|(_, touch)| touch) == Some(first_touch));
        }
        assert_eq!(ghosts.recall(&mut memory, first), None);
    }
}
