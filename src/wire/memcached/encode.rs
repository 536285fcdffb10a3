//! Replies to the classic commands.

/// Appends a value as retrievals answer it.
#[inline]
pub fn value(key: &[u8], client_flags: u32, value: &[u8], cas: Option<u64>, ends: bool, out: &mut Vec<u8>) {
    out.reserve(key.len() + value.len() + VALUE_BYTES_MAX);
    out.extend_from_slice(b"VALUE ");
    out.extend_from_slice(key);
    if client_flags == 0 {
        out.extend_from_slice(b" 0 ");
    } else {
        out.push(b' ');
        decimal(u64::from(client_flags), out);
        out.push(b' ');
    }
    decimal(value.len() as u64, out);
    if let Some(cas) = cas {
        out.push(b' ');
        decimal(cas, out);
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(value);
    out.extend_from_slice(if ends { b"\r\nEND\r\n".as_slice() } else { b"\r\n" });
}

/// Appends a line.
pub fn line(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Appends a number.
#[inline]
pub fn decimal(number: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    out.extend_from_slice(decimal_in(number, &mut digits));
}

/// A number's digits, at the end of `digits`.
#[inline]
pub fn decimal_in(number: u64, digits: &mut [u8; 20]) -> &[u8] {
    let (mut left, mut at) = (number, digits.len());
    loop {
        at -= 1;
        digits[at] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            return &digits[at..];
        }
    }
}

/// Bytes of a reply beside its key and its value, at most.
const VALUE_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_the_protocol_has_them() {
        let mut out = Vec::new();
        value(b"k", 0, b"ab", None, true, &mut out);
        value(b"k", u32::MAX, b"", Some(u64::MAX), false, &mut out);
        let expected = "VALUE k 0 2\r\nab\r\nEND\r\nVALUE k 4294967295 0 18446744073709551615\r\n\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
