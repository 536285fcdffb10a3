//! Hits that a reader reports to the shards, so that what is read in shared memory stays hot in the shard.
//!
//!   file:  | ring of shard 0 | ring of shard 1 | …
//!   ring:  | tail | hits | … 64 B | head | … 64 B | report u32 × 512 |
//!   report | weight, a power of two, 4 | slot 28 |
//!
//! The file is this reader's own: it and the server alone have it mapped. The reader writes tail, hits and
//! reports, the shard the head. A reader that is faster than a shard listens reports fewer of its hits, each
//! with more weight: it doubles the number it skips when the ring is half full and halves it when it is almost
//! empty. Nothing a reader writes here is trusted with more than what is kept: numbers out of range are passed
//! over, a tail that runs away is taken for a full ring.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::base::limits;
use crate::base::prng::mix;

/// A reader's side: which hits to report, and the rings.
pub struct Reporter {
    /// Hits until the next is reported, and how many they were from the last one on.
    countdown: u32,
    /// See `countdown`.
    spread: u32,
    weight_log: u32,
    tails: Vec<u64>,
    /// Hits reported so far, for everybody who wants to know.
    hits: Vec<u64>,
}

/// The shard's side of one reader's ring.
#[derive(Clone, Copy, Debug, Default)]
pub struct Listener {
    head: u64,
    hits: u64,
}

impl Reporter {
    /// A reporter of a fresh file.
    pub fn new(shard_count: u16) -> Reporter {
        let zeros = vec![0; shard_count.into()];
        Reporter { countdown: 1, spread: 1, weight_log: 0, tails: zeros.clone(), hits: zeros }
    }

    /// Counts a hit. Answers whether it is one to report.
    #[inline(always)]
    pub fn is_due(&mut self) -> bool {
        self.countdown -= 1;
        self.countdown == 0
    }

    /// Reports a hit.
    #[inline(never)]
    pub fn report(&mut self, words: &[AtomicU64], shard: u16, slot: u32) {
        let ring = &words[at(shard)..at(shard) + RING_WORDS];
        let (tail, hits) = (&mut self.tails[shard as usize], &mut self.hits[shard as usize]);
        let waiting = tail.wrapping_sub(ring[HEAD].load(Ordering::Acquire));
        // Those passed over are counted with it: the sum over shards is exact, a shard's own share nearly.
        *hits += u64::from(self.spread);
        ring[HITS].store(*hits, Ordering::Relaxed);
        if waiting < limits::L0_REPORTS as u64 {
            let report = u64::from(slot) | u64::from(self.weight_log) << SLOT_BITS;
            let place = *tail as usize % limits::L0_REPORTS;
            let (word, shift) = (&ring[FIRST + place / 2], place % 2 * 32);
            let kept = word.load(Ordering::Relaxed) & !(0xffff_ffff << shift);
            word.store(kept | report << shift, Ordering::Relaxed);
            *tail += 1;
            ring[TAIL].store(*tail, Ordering::Release);
        }
        match waiting {
            0..FEW => self.weight_log = self.weight_log.saturating_sub(1),
            MANY.. => self.weight_log = (self.weight_log + 1).min(WEIGHT_LOG_MAX),
            _ => {}
        }
        // About every 2^weight_log-th, never in step with what the program does.
        let spread = 1u64 << self.weight_log;
        self.spread = (spread / 2 + mix(*hits ^ *tail << 32) % spread).max(1) as u32;
        self.countdown = self.spread;
    }

    /// Counts what has not been reported yet, at the end of a reader.
    pub fn end(&mut self, words: &[AtomicU64]) {
        let left = self.spread - self.countdown;
        self.spread = self.countdown;
        if let Some(hits) = self.hits.first_mut() {
            *hits += u64::from(left);
            words[at(0) + HITS].store(*hits, Ordering::Relaxed);
        }
    }
}

impl Listener {
    /// Takes reports of one reader to `shard`, at most `most`; how many hits there were since the last call.
    pub fn listen(&mut self, words: &[AtomicU64], shard: u16, most: usize, mut hit: impl FnMut(u32)) -> u64 {
        let ring = &words[at(shard)..at(shard) + RING_WORDS];
        let tail = ring[TAIL].load(Ordering::Acquire);
        let waiting = tail.wrapping_sub(self.head);
        if waiting > limits::L0_REPORTS as u64 {
            // Not what our reader does. What the ring holds is as good as anything else it may say.
            self.head = tail.wrapping_sub(limits::L0_REPORTS as u64);
        }
        let mut taken = 0;
        while self.head != tail && taken < most {
            let place = self.head as usize % limits::L0_REPORTS;
            let report = ring[FIRST + place / 2].load(Ordering::Relaxed) >> (place % 2 * 32);
            self.head = self.head.wrapping_add(1);
            hit(report as u32 & SLOT_MASK);
            taken += 1;
        }
        if taken > 0 {
            ring[HEAD].store(self.head, Ordering::Release);
        }
        let hits = ring[HITS].load(Ordering::Relaxed);
        let fresh = hits.wrapping_sub(self.hits).min(HITS_PER_LISTENING_MAX);
        self.hits = hits;
        fresh
    }
}

/// Bytes of the file for so many shards.
pub fn bytes(shard_count: u16) -> usize {
    at(shard_count) * 8
}

fn at(shard: u16) -> usize {
    shard as usize * RING_WORDS
}

const TAIL: usize = 0;
const HITS: usize = 1;
const HEAD: usize = 8;
const FIRST: usize = 16;
const RING_WORDS: usize = FIRST + limits::L0_REPORTS / 2;
const SLOT_BITS: u32 = 28;
const SLOT_MASK: u32 = (1 << SLOT_BITS) - 1;
/// One in 1,024 at the most: a reader of a hundred million hits a second reports a hundred a millisecond.
const WEIGHT_LOG_MAX: u32 = 10;
/// Reports waiting below which more hits are reported, and from which on fewer.
const FEW: u64 = limits::L0_REPORTS as u64 / 16;
const MANY: u64 = limits::L0_REPORTS as u64 / 2;
/// A second's worth at a rate nobody reads: a liar's count is no larger.
const HITS_PER_LISTENING_MAX: u64 = 1 << 30;

#[cfg(test)]
mod tests {
    use super::*;

    fn file(shards: u16) -> Vec<AtomicU64> {
        (0..bytes(shards) / 8).map(|_| AtomicU64::new(0)).collect()
    }

    fn hit(reporter: &mut Reporter, words: &[AtomicU64], shard: u16, slot: u32) {
        if reporter.is_due() {
            reporter.report(words, shard, slot);
        }
    }

    #[test]
    fn slow_readers_report_every_hit() {
        let (words, mut reporter, mut listener) = (file(2), Reporter::new(2), Listener::default());
        let mut heard = Vec::new();
        for slot in 0..2000 {
            hit(&mut reporter, &words, 1, slot);
            listener.listen(&words, 1, 8, |slot| heard.push(slot));
        }
        assert_eq!(heard, (0..2000).collect::<Vec<_>>());
        assert_eq!(Listener::default().listen(&words, 0, 8, |_| panic!("the other shard heard it")), 0);
    }

    #[test]
    fn fast_readers_report_a_share_that_weighs_as_much() {
        let (words, mut reporter, mut listener) = (file(1), Reporter::new(1), Listener::default());
        let (mut reports, mut hits) = (0u64, 0);
        for number in 0..1_000_000u32 {
            hit(&mut reporter, &words, 0, number % 100);
            if number % 10_000 == 0 {
                hits += listener.listen(&words, 0, limits::L0_REPORTS_PER_MS, |_| reports += 1);
            }
        }
        assert!(reports < 40_000, "{reports}");
        assert!((980_000..=1_000_000).contains(&hits), "{hits}");
        reporter.end(&words);
        hits += listener.listen(&words, 0, 0, |_| ());
        assert_eq!(hits, 1_000_000, "every hit is counted once");
    }

    #[test]
    fn a_liar_gets_no_more_than_a_full_ring() {
        let (words, mut listener) = (file(1), Listener::default());
        words.iter().for_each(|word| word.store(u64::MAX, Ordering::Relaxed));
        let mut reports = 0;
        let hits = listener.listen(&words, 0, usize::MAX, |slot| {
            assert!(slot <= SLOT_MASK);
            reports += 1;
        });
        assert!(reports <= limits::L0_REPORTS && hits <= HITS_PER_LISTENING_MAX);
        words[TAIL].store(3, Ordering::Relaxed);
        listener.listen(&words, 0, usize::MAX, |_| reports += 1);
        assert!(reports <= 2 * limits::L0_REPORTS);
    }
}
