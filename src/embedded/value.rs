//! Bytes that were read: in line up to 160 of them, else in an allocation of their own.
//!
//!   in line   | tag | length u8 | words, the first ceil(length / 8) of them written |     168 bytes
//!   on heap   | tag | pointer, length |
//!
//! A value is the caller's own: nothing in the cache is borrowed or counted for it, so it may be kept, sent to
//! another thread, and outlive the cache. Words that hold nothing are left as they are; zeroing them would cost
//! as much as copying a hundred bytes.

#![expect(unsafe_code, reason = "words seen as bytes, of which only the written ones are looked at")]

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::mem::MaybeUninit;
use std::ops::Deref;

use crate::base::limits;
use crate::l0::word::Word;

/// An owned value. It is a `[u8]` in all but name.
///
/// ```
/// # let cache = spinetail::embedded::Cache::builder().build()?;
/// cache.insert(b"greeting", b"hello")?;
/// let value = cache.get(b"greeting").unwrap();
/// assert_eq!(value, b"hello");
/// assert_eq!(value.len(), 5);
/// assert!(value.starts_with(b"he"));
/// let bytes: Vec<u8> = value.into();
/// # assert_eq!(bytes, b"hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Value(Body);

#[derive(Clone)]
enum Body {
    /// The first `length` bytes of the words are written.
    InLine {
        length: u8,
        words: Words<INLINE_WORDS>,
    },
    Heap(Box<[u8]>),
}

type Words<const COUNT: usize> = [MaybeUninit<u64>; COUNT];

/// A place on the stack for any value that L0 holds.
pub(super) struct Scratch {
    length: usize,
    words: Words<{ limits::L0_SPILL_WORDS }>,
}

impl Value {
    /// No bytes.
    #[inline(always)]
    pub(super) fn empty() -> Value {
        Value(Body::InLine { length: 0, words: [const { MaybeUninit::uninit() }; INLINE_WORDS] })
    }

    /// Takes over the `bytes` bytes that `from` holds. Answers whether they are all there.
    #[inline(always)]
    pub(super) fn copy_words<W: Word>(&mut self, from: &[W], bytes: usize) -> bool {
        let Some(from) = from.get(..bytes.div_ceil(8)) else { return false };
        if bytes > limits::EMBEDDED_VALUE_INLINE_BYTES {
            self.copy_long(from, bytes);
            return true;
        }
        if let Body::Heap(_) = self.0 {
            // A reader that was overtaken by a writer finds a shorter one the second time.
            *self = Value::empty();
        }
        if let Body::InLine { length, words } = &mut self.0 {
            write_words(words, from);
            *length = bytes as u8;
        }
        true
    }

    #[inline(never)]
    fn copy_long<W: Word>(&mut self, from: &[W], bytes: usize) {
        let mut heap = vec![0u8; bytes].into_boxed_slice();
        for (to, word) in heap.chunks_mut(8).zip(from) {
            to.copy_from_slice(&word.load().to_le_bytes()[..to.len()]);
        }
        self.0 = Body::Heap(heap);
    }
}

impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Value {
        if bytes.len() > limits::EMBEDDED_VALUE_INLINE_BYTES {
            return Value(Body::Heap(bytes.into()));
        }
        let mut words = [const { MaybeUninit::uninit() }; INLINE_WORDS];
        for (to, chunk) in words.iter_mut().zip(bytes.chunks(8)) {
            let mut padded = [0; 8];
            padded[..chunk.len()].copy_from_slice(chunk);
            to.write(u64::from_ne_bytes(padded));
        }
        Value(Body::InLine { length: bytes.len() as u8, words })
    }
}

impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Value {
        if bytes.len() > limits::EMBEDDED_VALUE_INLINE_BYTES {
            return Value(Body::Heap(bytes.into_boxed_slice()));
        }
        Value::from(bytes.as_slice())
    }
}

impl From<Value> for Vec<u8> {
    fn from(value: Value) -> Vec<u8> {
        match value.0 {
            Body::Heap(bytes) => bytes.into_vec(),
            Body::InLine { .. } => value.to_vec(),
        }
    }
}

impl Deref for Value {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Body::InLine { length, words } => bytes_of(words, (*length).into()),
            Body::Heap(bytes) => bytes,
        }
    }
}

impl Scratch {
    #[inline(always)]
    pub(super) fn new() -> Scratch {
        Scratch { length: 0, words: [const { MaybeUninit::uninit() }; limits::L0_SPILL_WORDS] }
    }

    /// As [`Value::copy_words`].
    #[inline(always)]
    pub(super) fn copy_words<W: Word>(&mut self, from: &[W], bytes: usize) -> bool {
        let Some(from) = from.get(..bytes.div_ceil(8)).filter(|from| from.len() <= self.words.len()) else {
            return false;
        };
        write_words(&mut self.words, from);
        self.length = bytes;
        true
    }

    #[inline(always)]
    pub(super) fn bytes(&self) -> &[u8] {
        bytes_of(&self.words, self.length)
    }
}

/// Writes as many words as there are in `from`, of which there must not be more than places.
#[inline(always)]
fn write_words<W: Word, const COUNT: usize>(words: &mut Words<COUNT>, from: &[W]) {
    for (to, word) in words.iter_mut().zip(from) {
        to.write(word.load().to_le());
    }
}

/// The first `length` bytes of `words`, which the caller has written.
#[inline(always)]
fn bytes_of<const COUNT: usize>(words: &Words<COUNT>, length: usize) -> &[u8] {
    assert!(length <= COUNT * 8, "a length is that of what was written");
    // SAFETY: 1. the bytes lie inside of `words`, by the assertion, and live as long. 2. they were written: both
    // types set a length only after `write_words` or a loop like it has written ceil(length / 8) words, and words
    // are never unwritten. 3. any byte is a byte.
    unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), length) }
}

impl AsRef<[u8]> for Value {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Borrow<[u8]> for Value {
    fn borrow(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl<T: AsRef<[u8]> + ?Sized> PartialEq<T> for Value {
    fn eq(&self, other: &T) -> bool {
        **self == *other.as_ref()
    }
}

impl Eq for Value {}

impl Hash for Value {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

const INLINE_WORDS: usize = limits::EMBEDDED_VALUE_INLINE_BYTES / 8;
const _: () = assert!(size_of::<Option<Value>>() == limits::EMBEDDED_VALUE_INLINE_BYTES + 8);

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::atomic::AtomicU64;

    use super::*;

    fn bytes(length: usize) -> Vec<u8> {
        (0..length).map(|at| at as u8 ^ 0x5a).collect()
    }

    fn words(bytes: &[u8]) -> Vec<AtomicU64> {
        let word = |chunk: &[u8]| {
            let mut padded = [0; 8];
            padded[..chunk.len()].copy_from_slice(chunk);
            AtomicU64::new(u64::from_le_bytes(padded))
        };
        bytes.chunks(8).map(word).collect()
    }

    const LENGTHS: [usize; 11] = [0, 1, 7, 8, 9, 100, 159, 160, 161, 1000, 1024];

    #[test]
    fn a_value_is_the_bytes_it_was_made_of() {
        for length in LENGTHS {
            let bytes = bytes(length);
            for value in [Value::from(bytes.as_slice()), Value::from(bytes.clone())] {
                assert_eq!(value, bytes);
                assert_eq!(value.clone(), value);
                assert_eq!(Vec::from(value), bytes);
            }
        }
    }

    #[test]
    fn words_are_taken_over_whatever_was_there_before() {
        let (mut value, mut scratch) = (Value::empty(), Scratch::new());
        for length in LENGTHS.into_iter().chain(LENGTHS.into_iter().rev()) {
            let bytes = bytes(length);
            assert!(value.copy_words(&words(&bytes), length) && scratch.copy_words(&words(&bytes), length));
            assert_eq!((&*value, scratch.bytes()), (&*bytes, &*bytes));
        }
        assert!(!value.copy_words(&words(&[1; 8]), 9), "a word is missing");
        assert!(!scratch.copy_words(&words(&[1; 1032]), 1032), "no place for so many");
    }

    #[test]
    fn a_value_stands_where_bytes_do() {
        let value = Value::from(&b"abc"[..]);
        assert!(value == b"abc" && value == *b"abc" && value == [97, 98, 99][..] && value != b"abd");
        assert!(value == "abc" && value == vec![97, 98, 99]);
        assert_eq!(format!("{value:?}"), "[97, 98, 99]");
        assert_eq!(value.as_ref(), b"abc");
        let set = HashSet::from([value]);
        assert!(set.contains(&b"abc"[..]));
    }
}
