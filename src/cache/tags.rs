//! Comparing the eight tags of a bucket at once.
//!
//! A bucket is eight little-endian words whose highest byte is a tag (see `slot`). The answer has
//! bit `2 i` set where word `i` carries the tag asked for. A tag is never zero and an empty word
//! is, so empty slots answer nothing.

use crate::base::limits::BUCKET_BYTES;

/// Which slots of a bucket carry `tag`; see [`positions`].
#[inline(always)]
#[cfg_attr(target_arch = "x86_64", expect(unsafe_code, reason = "vector instructions that are part of the target"))]
pub fn equal(line: &[u8; BUCKET_BYTES], tag: u8) -> u32 {
    // SAFETY: 1. x86-64 includes SSE2, so its instructions are there. 2. The function takes and gives values.
    #[cfg(target_arch = "x86_64")]
    return unsafe { equal_sse2(line, tag) };
    #[cfg(not(target_arch = "x86_64"))]
    equal_portable(line, tag)
}

/// The slot numbers in what [`equal`] or [`empty`] answered, lowest first.
#[inline(always)]
pub fn positions(mut matches: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let position = (matches != 0).then_some(matches.trailing_zeros() as usize / 2);
        matches &= matches.wrapping_sub(1);
        position
    })
}

/// Which slots of a bucket are empty.
#[inline(always)]
pub fn empty(line: &[u8; BUCKET_BYTES]) -> u32 {
    // A word is zero just where its tag is.
    equal(line, 0)
}

/// SSE2 is part of x86-64: no detection, no second build. The four vectors' tags are moved to the
/// low bytes and packed into one vector, with zeroes between them that are masked off at the end.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse2")]
#[inline]
fn equal_sse2(line: &[u8; BUCKET_BYTES], tag: u8) -> u32 {
    use std::arch::x86_64::{
        __m128i, _mm_cmpeq_epi8, _mm_movemask_epi8, _mm_packs_epi32, _mm_packus_epi16, _mm_set_epi64x, _mm_set1_epi8,
        _mm_srli_epi64,
    };
    let pair = |at: usize| -> __m128i {
        let word = |at: usize| i64::from_le_bytes(line[at..at + 8].try_into().expect("eight bytes"));
        _mm_srli_epi64::<56>(_mm_set_epi64x(word(at + 8), word(at)))
    };
    let low = _mm_packs_epi32(pair(0), pair(16));
    let high = _mm_packs_epi32(pair(32), pair(48));
    let tags = _mm_packus_epi16(low, high);
    _mm_movemask_epi8(_mm_cmpeq_epi8(tags, _mm_set1_epi8(tag as i8))) as u32 & 0x5555
}

/// The same answer word by word, for other machines, and the twin the vectors are tested against.
#[cfg(any(test, not(target_arch = "x86_64")))]
fn equal_portable(line: &[u8; BUCKET_BYTES], tag: u8) -> u32 {
    (0..BUCKET_BYTES / 8).fold(0, |matches, slot| matches | u32::from(line[slot * 8 + 7] == tag) << (2 * slot))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::prng::Prng;

    #[test]
    fn vectors_and_words_answer_alike() {
        let mut prng = Prng::new(1);
        for round in 0..if cfg!(miri) { 50 } else { 20_000 } {
            let mut line = [0u8; BUCKET_BYTES];
            for word in line.chunks_exact_mut(8) {
                word.copy_from_slice(&prng.next_u64().to_le_bytes());
                // Few different tags, so that there is something to find; some words empty.
                word[7] &= if round % 2 == 0 { 3 } else { 0xff };
                if prng.below(4) == 0 {
                    word.fill(0);
                }
            }
            for tag in [0, 1, 2, 3, 127, 128, 255, line[7], line[63]] {
                assert_eq!(equal(&line, tag), equal_portable(&line, tag), "tag {tag} in {line:?}");
            }
        }
    }

    #[test]
    fn positions_are_slot_numbers() {
        let mut line = [0u8; BUCKET_BYTES];
        for slot in [0, 3, 7] {
            line[slot * 8 + 7] = 9;
        }
        assert_eq!(positions(equal(&line, 9)).collect::<Vec<_>>(), [0, 3, 7]);
        assert_eq!(positions(empty(&line)).collect::<Vec<_>>(), [1, 2, 4, 5, 6]);
    }
}
