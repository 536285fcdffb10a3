//! RESP2 and RESP3 replies as bytes: where one ends, and what it holds.

use std::io::{self, BufRead, Error, ErrorKind, Read as _};

/// Reads one reply, nested ones included.
pub fn read(from: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut reply = Vec::new();
    read_into(from, &mut reply, 0)?;
    Ok(reply)
}

/// A request of these words.
pub fn request<W: AsRef<[u8]>>(words: &[W]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.as_ref().len()).as_bytes());
        bytes.extend_from_slice(word.as_ref());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// The head line of an array, set, map or push, and its elements as they came. `None` if it is none, or nil.
pub fn children(reply: &[u8]) -> Option<(&[u8], Vec<&[u8]>)> {
    let (line, mut at) = line_at(reply, 0)?;
    let count = elements(line)?;
    let mut elements = Vec::new();
    for _ in 0..count {
        let end = end_of(reply, at)?;
        elements.push(&reply[at..end]);
        at = end;
    }
    Some((&reply[..line.len() + 2], elements))
}

/// The number of an integer reply.
pub fn integer(reply: &[u8]) -> Option<i64> {
    let (line, end) = line_at(reply, 0)?;
    if end != reply.len() { None } else { std::str::from_utf8(line.strip_prefix(b":")?).ok()?.parse().ok() }
}

/// The bytes of a bulk string; `None` for anything else, nil too.
pub fn bulk(reply: &[u8]) -> Option<&[u8]> {
    let (line, at) = line_at(reply, 0)?;
    let length: usize = std::str::from_utf8(line.strip_prefix(b"$")?).ok()?.parse().ok()?;
    reply.get(at..at + length)
}

fn read_into(from: &mut impl BufRead, reply: &mut Vec<u8>, depth: usize) -> io::Result<()> {
    let start = reply.len();
    let bad = |reply: &[u8]| {
        let shown = crate::engine::shown_bytes(&reply[start..]);
        Error::new(ErrorKind::InvalidData, format!("no RESP: {shown}"))
    };
    (&mut *from).take(LINE_BYTES_MAX).read_until(b'\n', reply)?;
    let line = match reply[start..].strip_suffix(b"\r\n") {
        Some(line) => line.to_vec(),
        None if reply.len() == start => return Err(ErrorKind::UnexpectedEof.into()),
        None => return Err(bad(reply)),
    };
    match line.first() {
        Some(b'+' | b'-' | b':' | b'_' | b',' | b'#' | b'(') => Ok(()),
        Some(b'$' | b'=' | b'!') => {
            let length = number(&line[1..]).ok_or_else(|| bad(reply))?;
            if length >= 0 {
                let from_byte = reply.len();
                reply.resize(from_byte + length as usize + 2, 0);
                from.read_exact(&mut reply[from_byte..])?;
                if !reply.ends_with(b"\r\n") {
                    return Err(bad(reply));
                }
            }
            Ok(())
        }
        _ => {
            let nil = matches!(&line[..], b"*-1");
            let count = if nil { 0 } else { elements(&line).ok_or_else(|| bad(reply))? };
            if depth > DEPTH_MAX {
                return Err(bad(reply));
            }
            (0..count).try_for_each(|_| read_into(from, reply, depth + 1))
        }
    }
}

/// How many replies follow a head line.
fn elements(line: &[u8]) -> Option<usize> {
    let count = usize::try_from(number(line.get(1..)?)?).ok()?;
    match line[0] {
        b'*' | b'~' | b'>' => Some(count),
        b'%' => count.checked_mul(2),
        _ => None,
    }
}

fn end_of(reply: &[u8], at: usize) -> Option<usize> {
    let (line, mut end) = line_at(reply, at)?;
    match line.first()? {
        b'$' | b'=' | b'!' => {
            let length = number(&line[1..])?;
            Some(if length < 0 { end } else { end + length as usize + 2 })
        }
        b'*' | b'~' | b'>' | b'%' if line != b"*-1" => {
            for _ in 0..elements(line)? {
                end = end_of(reply, end)?;
            }
            Some(end)
        }
        _ => Some(end),
    }
}

/// The line that begins here, without its end, and where the next begins.
fn line_at(bytes: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let length = bytes.get(at..)?.windows(2).position(|pair| pair == b"\r\n")?;
    Some((&bytes[at..at + length], at + length + 2))
}

fn number(text: &[u8]) -> Option<i64> {
    let number: i64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (number <= REPLY_BYTES_MAX).then_some(number)
}

/// Error texts repeat what was sent, up to some hundred bytes.
const LINE_BYTES_MAX: u64 = 64 << 10;

/// Larger than anything a run stores: a length beyond it is nonsense.
const REPLY_BYTES_MAX: i64 = 64 << 20;

/// EXEC of something that nests twice.
const DEPTH_MAX: usize = 6;
