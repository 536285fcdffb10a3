//! Decimal numbers as memcached reads a word, with C's strtol family.

/// A signed number: an optional sign, and digits to the end.
pub fn signed(word: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(word).ok()?;
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// A signed 32-bit number: the lower half of a larger one.
pub fn signed32(word: &[u8]) -> Option<i32> {
    signed(word).map(|number| number as i32)
}

/// An unsigned 64-bit number.
pub fn unsigned(word: &[u8]) -> Option<u64> {
    let digits = word.strip_prefix(b"+").unwrap_or(word);
    if digits.is_empty() || digits.len() > DIGITS_MAX {
        return None;
    }
    let mut number = 0u64;
    for &digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        number = number.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
    }
    Some(number)
}

/// An unsigned 32-bit number: the lower half of a larger one.
pub fn unsigned32(word: &[u8]) -> Option<u32> {
    unsigned(word).map(|number| number as u32)
}

/// The number that a stored value begins with: spaces before it and whatever follows a space or a zero byte are passed over.
pub fn stored(value: &[u8]) -> Option<u64> {
    let is_space = |byte: u8| matches!(byte, b' ' | b'\t'..=b'\r');
    let start = value.iter().position(|&byte| !is_space(byte))?;
    let value = &value[start..];
    let end = value.iter().position(|&byte| byte == 0 || is_space(byte)).unwrap_or(value.len());
    unsigned(&value[..end])
}

/// Zeros in front are allowed, as many as anybody would write.
const DIGITS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_whole_words_within_their_range() {
        assert_eq!((signed(b"-5"), signed(b"+7"), signed(b"007")), (Some(-5), Some(7), Some(7)));
        assert_eq!(
            (signed(b""), signed(b"-"), signed(b"5x"), signed(b"9223372036854775808")),
            (None, None, None, None)
        );
        assert_eq!((unsigned(b"18446744073709551615"), unsigned(b"18446744073709551616")), (Some(u64::MAX), None));
        assert_eq!((unsigned(b"-1"), unsigned(b"+1"), unsigned(b"")), (None, Some(1), None));
        assert_eq!((unsigned32(b"4294967295"), unsigned32(b"4294967296")), (Some(u32::MAX), Some(0)));
        assert_eq!((stored(b"9  "), stored(b" 12"), stored(b"hi"), stored(b"")), (Some(9), Some(12), None, None));
        assert_eq!((stored(b"5 x"), stored(b"\x0b5\0x"), stored(b"5x")), (Some(5), Some(5), None));
    }
}
