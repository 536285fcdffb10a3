//! One slot: a sequence lock around a key and its value.
//!
//!   word 0   | flags 8 | value bytes 16 | key bytes 8 | sequence 32 |      most significant bits first
//!   word 1   | epoch 16 | expiry, ms of CLOCK_MONOTONIC, 48 |              0: never
//!   word 2…  | key, zeros to a whole word | value, zeros to a whole word | or, in place of a value that does
//!            not fit: | number of its spill cell |
//!
//! The sequence is odd while the slot is written. A reader takes word 0, reads what it wants and takes word
//! 0 again: the same even sequence means that nothing was written in between (1). Lengths travel with the
//! sequence in one word, so a reader never follows lengths of one content into another. A sequence comes
//! around after 2^31 writes of one slot, at a million a second after half an hour; a reader would have to be
//! held up between two instructions for exactly that long.
//!
//! (1) Boehm, "Can seqlocks get along with programming language memory models?", MSPC 2012: the data must be
//!     atomic too, and where the fences go.

use crate::base::limits;
use crate::l0::word::Word;

/// Word 0 of a slot.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Head(pub u64);

impl Head {
    pub fn new(sequence: u32, key_bytes: usize, value_bytes: usize, flags: u64) -> Head {
        debug_assert!(key_bytes < 1 << 8 && value_bytes < 1 << 16);
        Head(u64::from(sequence) | (key_bytes as u64) << 32 | (value_bytes as u64) << 40 | flags << 56)
    }

    #[inline(always)]
    pub fn sequence(self) -> u32 {
        self.0 as u32
    }

    /// Being written.
    #[inline(always)]
    pub fn is_odd(self) -> bool {
        self.0 & 1 == 1
    }

    /// Zero where nothing is published.
    #[inline(always)]
    pub fn key_bytes(self) -> usize {
        (self.0 >> 32) as usize & 0xff
    }

    #[inline(always)]
    pub fn value_bytes(self) -> usize {
        (self.0 >> 40) as usize & 0xffff
    }

    /// The value lies in a spill cell.
    #[inline(always)]
    pub fn is_spilled(self) -> bool {
        self.0 & FLAG_SPILLED << 56 != 0
    }

    /// Nothing is published here, but a search must go on past it.
    #[inline(always)]
    pub fn is_passed(self) -> bool {
        self.0 & FLAG_PASSED << 56 != 0
    }

    /// Nothing is published here nor further on in anybody's window that comes by here.
    #[inline(always)]
    pub fn is_end(self) -> bool {
        self.0 & (0xff << 32 | FLAG_PASSED << 56 | 1) == 0
    }

    /// Whether a published key of `key_bytes` may be here.
    #[inline(always)]
    pub fn may_hold(self, key_bytes: usize) -> bool {
        self.key_bytes() == key_bytes
    }
}

/// Word 1 of a slot.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Life(pub u64);

impl Life {
    #[inline(always)]
    pub fn new(epoch: u16, expires_ms: u64) -> Life {
        debug_assert!(expires_ms <= limits::EXPIRY_MS_MAX);
        Life(u64::from(epoch) << 48 | expires_ms)
    }

    #[inline(always)]
    pub fn epoch(self) -> u16 {
        (self.0 >> 48) as u16
    }

    #[inline(always)]
    pub fn expires_ms(self) -> u64 {
        self.0 & limits::EXPIRY_MS_MAX
    }
}

/// Writes the content of a slot: `words` are the slot's own, `spill` those of its cell if it has one. The
/// owner alone calls this.
pub fn write<W: Word>(words: &[W], spill: Option<(u64, &[W])>, life: Life, key: &[u8], value: &[u8]) {
    let sequence = Head(words[0].load()).sequence();
    debug_assert!(sequence.is_multiple_of(2), "one writer");
    let flags = if spill.is_some() { FLAG_SPILLED } else { 0 };
    words[0].store(Head::new(sequence.wrapping_add(1), key.len(), value.len(), flags).0);
    W::release();
    words[1].store(life.0);
    let value_at = HEADER_WORDS + key.len().div_ceil(8);
    write_bytes(&words[HEADER_WORDS..value_at], key);
    match spill {
        None => write_bytes(&words[value_at..], value),
        Some((cell, cell_words)) => {
            words[value_at].store(cell);
            write_bytes(cell_words, value);
        }
    }
    W::release();
    words[0].store(Head::new(sequence.wrapping_add(2), key.len(), value.len(), flags).0);
}

/// Takes away what is published; `passed` if searches must go on past it.
pub fn clear<W: Word>(words: &[W], passed: bool) {
    // One word changes: no reader can see half of it, and whoever is reading finds another sequence.
    let sequence = Head(words[0].load()).sequence().wrapping_add(2);
    words[0].store(Head::new(sequence, 0, 0, if passed { FLAG_PASSED } else { 0 }).0);
    // What is written over a spill cell that this one gives back comes after it is given back.
    W::release();
}

/// Gives the content another expiry.
pub fn set_life<W: Word>(words: &[W], life: Life) {
    let head = Head(words[0].load());
    let with = |sequence: u32| Head(head.0 & !0xffff_ffff | u64::from(sequence)).0;
    words[0].store(with(head.sequence().wrapping_add(1)));
    W::release();
    words[1].store(life.0);
    W::release();
    words[0].store(with(head.sequence().wrapping_add(2)));
}

/// Whether `words` hold `key`, zero-padded. `words` must be as many as `key` needs.
#[inline(always)]
pub fn has_key<W: Word>(words: &[W], key: &[u8]) -> bool {
    // The usual lengths without a loop: the last word is the last eight bytes, moved down to where zeros follow.
    if let (9..=16, [first, last]) = (key.len(), words) {
        let (front, back) = (&key[..8], &key[key.len() - 8..]);
        let whole = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
        let shift = (16 - key.len() as u32) * 8;
        return (first.load() ^ whole(front)) | (last.load() ^ whole(back) >> shift) == 0;
    }
    let mut differs = 0;
    let mut chunks = key.chunks_exact(8);
    for (word, chunk) in words.iter().zip(&mut chunks) {
        differs |= word.load() ^ u64::from_le_bytes(chunk.try_into().expect("chunks are of eight"));
    }
    if !chunks.remainder().is_empty() {
        differs |= words[words.len() - 1].load() ^ last_word(key);
    }
    differs == 0
}

/// What of a key is left after its whole words, zeros after it; there must be something. Without copying so and so
/// many bytes, which is a call and 3 ns.
#[inline(always)]
fn last_word(key: &[u8]) -> u64 {
    let rest = key.len() % 8;
    if let Some(last) = key.last_chunk::<8>() {
        return u64::from_le_bytes(*last) >> (8 * (8 - rest));
    }
    if let (Some(first), Some(last)) = (key.first_chunk::<4>(), key.last_chunk::<4>()) {
        // Where the two overlap they say the same.
        return u64::from(u32::from_le_bytes(*first)) | u64::from(u32::from_le_bytes(*last)) << (8 * (rest - 4));
    }
    let byte = |at: usize| u64::from(key[at]) << (8 * at);
    byte(0) | byte(rest / 2) | byte(rest - 1)
}

/// Up to seven bytes as a word, zeros after them.
fn padded(rest: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    bytes[..rest.len()].copy_from_slice(rest);
    u64::from_le_bytes(bytes)
}

fn write_bytes<W: Word>(words: &[W], bytes: &[u8]) {
    for (word, chunk) in words.iter().zip(bytes.chunks(8)) {
        word.store(padded_to_word(chunk));
    }
}

fn padded_to_word(chunk: &[u8]) -> u64 {
    match chunk.try_into() {
        Ok(whole) => u64::from_le_bytes(whole),
        Err(_) => padded(chunk),
    }
}

/// Words before the key.
pub const HEADER_WORDS: usize = 2;
const FLAG_SPILLED: u64 = 1;
const FLAG_PASSED: u64 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_of_a_key_is_its_rest_and_zeros() {
        let key: Vec<u8> = (0x81..0x81 + 64).collect();
        for length in (1..64).filter(|length| length % 8 != 0) {
            assert_eq!(last_word(&key[..length]), padded(&key[length / 8 * 8..length]), "{length} bytes");
        }
    }
}
