//! RESP2 and RESP3, the protocol of Redis: arrays of bulk strings in, typed lines out.
//!
//!   *2\r\n $3\r\nGET\r\n $3\r\nkey\r\n   ->   $5\r\nvalue\r\n   or   $-1\r\n   (RESP3: _\r\n)
//!
//! Decoding borrows; nothing is copied or reserved before the bytes are there. A command about one key is a request
//! to the shard that owns it and is understood here. All others (several keys, transactions, what is about the
//! connection) are only measured: the engine's `resp` reads their words. RESP has no request ids, so a request's
//! `id` carries which command it is and the version of the protocol its reply is written in.
//!
//! - `commands`: the table of commands
//! - `single`: the words of a command about one key to a request
//! - `encode`: replies
//! - `scripts`: the scripts that are known
//! - `client`: the client's side, for the load generator

pub mod client;
pub mod commands;
pub mod encode;
pub mod scripts;
pub mod single;

use crate::base::limits;
use crate::wire::codec::{Codec, Decoded, Refusal};
use crate::wire::request::{Command, Reply, Request, Status};
use crate::wire::resp::commands::Cmd;

/// RESP2, for listeners: what every connection speaks until HELLO.
pub struct Resp;
/// RESP3.
pub struct Resp3;
/// Either, on a connection in a state of its own (a transaction, say): no command is understood here.
pub struct RespFront;

/// What is wrong with a frame; travels as a refusal's opcode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Wrong {
    Length,
    BulkLength,
    NotBulk,
    TooBigCount,
    TooBigInline,
    Value,
    NoRoom,
}

impl Codec for Resp {
    const IS_COUNTED: bool = true;

    fn busy(bytes: &[u8], _needed: usize) -> Refusal {
        no_room(bytes)
    }

    #[inline]
    fn decode(bytes: &[u8], value_bytes_max: usize) -> Decoded<'_> {
        decode::<false, true>(bytes, value_bytes_max)
    }

    #[inline]
    fn encode_reply(request: &Request<'_>, reply: &Reply<'_>, out: &mut Vec<u8>) {
        encode::reply(request, reply, out);
    }

    fn encode_refusal(refusal: &Refusal, text: &str, out: &mut Vec<u8>) {
        encode_refusal(refusal, text, out);
    }
}

impl Codec for Resp3 {
    const IS_COUNTED: bool = true;

    fn busy(bytes: &[u8], _needed: usize) -> Refusal {
        no_room(bytes)
    }

    #[inline]
    fn decode(bytes: &[u8], value_bytes_max: usize) -> Decoded<'_> {
        decode::<true, true>(bytes, value_bytes_max)
    }

    #[inline]
    fn encode_reply(request: &Request<'_>, reply: &Reply<'_>, out: &mut Vec<u8>) {
        encode::reply(request, reply, out);
    }

    fn encode_refusal(refusal: &Refusal, text: &str, out: &mut Vec<u8>) {
        encode_refusal(refusal, text, out);
    }
}

impl Codec for RespFront {
    const IS_COUNTED: bool = true;

    fn busy(bytes: &[u8], _needed: usize) -> Refusal {
        no_room(bytes)
    }

    fn decode(bytes: &[u8], value_bytes_max: usize) -> Decoded<'_> {
        decode::<false, false>(bytes, value_bytes_max)
    }

    fn encode_reply(request: &Request<'_>, reply: &Reply<'_>, out: &mut Vec<u8>) {
        encode::reply(request, reply, out);
    }

    fn encode_refusal(refusal: &Refusal, text: &str, out: &mut Vec<u8>) {
        encode_refusal(refusal, text, out);
    }
}

/// The id of a request: which command it is and in which version it is answered.
#[inline]
pub fn request_id(command: Cmd, is_resp3: bool) -> u32 {
    u32::from(command as u8) | if is_resp3 { IS_RESP3 } else { 0 }
}

/// The command of a request and whether it is answered in RESP3.
#[inline]
pub fn of_request_id(id: u32) -> (Option<Cmd>, bool) {
    (Cmd::of_number(id as u8), id & IS_RESP3 != 0)
}

/// The request that a whole command about one key is, scripts that say their text included; nothing if it is none.
pub fn single_request(frame: &[u8], is_resp3: bool) -> Option<Request<'_>> {
    let mut spoken = Vec::new();
    words(frame, &mut spoken);
    let cmd = Cmd::of(spoken.first()?)?;
    let command = single::command(cmd, &spoken, limits::VALUE_BYTES_MAX).ok()?;
    command.key().filter(|key| (1..=limits::KEY_BYTES_MAX).contains(&key.len()))?;
    Some(Request { id: request_id(cmd, is_resp3), want_version: false, command })
}

/// Appends a command of these words to `out`.
pub fn encode_words<'a>(words: impl IntoIterator<Item = &'a [u8], IntoIter: ExactSizeIterator>, out: &mut Vec<u8>) {
    let words = words.into_iter();
    encode::array(words.len(), out);
    words.for_each(|word| encode::bulk(word, out));
}

/// The words of the command that `frame` begins with, which has been measured, and its length.
pub fn words<'a>(frame: &'a [u8], into: &mut Vec<&'a [u8]>) -> usize {
    into.clear();
    let Line::Number(count, mut at) = line_number(frame, 1) else { return frame.len() };
    for _ in 0..count {
        let Line::Number(length, start) = line_number(frame, at + 1) else { return frame.len() };
        let end = start + length as usize;
        into.push(&frame[start..end]);
        at = end + 2;
    }
    at
}

/// The words of an inline command; `None` if its quotes do not end.
pub fn inline_words(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    let mut rest = line.trim_ascii();
    while !rest.is_empty() {
        let (word, after) = inline_word(rest)?;
        words.push(word);
        rest = after.trim_ascii_start();
    }
    Some(words)
}

/// The first word of a line, and what follows it.
fn inline_word(line: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let (mut word, mut at) = (Vec::new(), 0);
    let mut quote = None;
    loop {
        match (quote, line.get(at).copied()) {
            (None, None) => return Some((word, &[])),
            (None, Some(byte)) if byte.is_ascii_whitespace() || byte == 0 => return Some((word, &line[at + 1..])),
            (None, Some(byte @ (b'"' | b'\''))) => quote = Some(byte),
            (Some(_), None) => return None,
            (Some(b'"'), Some(b'\\')) => {
                let escaped = line.get(at + 1).copied()?;
                if escaped == b'x'
                    && let Some(byte) = line.get(at + 2..at + 4).and_then(hex_byte)
                {
                    word.push(byte);
                    at += 2;
                } else {
                    word.push(match escaped {
                        b'n' => b'\n',
                        b'r' => b'\r',
                        b't' => b'\t',
                        b'b' => 8,
                        b'a' => 7,
                        plain => plain,
                    });
                }
                at += 1;
            }
            (Some(b'\''), Some(b'\\')) if line.get(at + 1) == Some(&b'\'') => {
                word.push(b'\'');
                at += 1;
            }
            (Some(end), Some(byte)) if byte == end => {
                // A closing quote ends the word: something else right behind it is a mistake.
                return match line.get(at + 1) {
                    None => Some((word, &[])),
                    Some(next) if next.is_ascii_whitespace() => Some((word, &line[at + 1..])),
                    Some(_) => None,
                };
            }
            (_, Some(byte)) => word.push(byte),
        }
        at += 1;
    }
}

fn hex_byte(digits: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    u8::from_str_radix(text, 16).ok()
}

#[inline]
fn decode<const RESP3: bool, const UNDERSTOOD: bool>(bytes: &[u8], value_bytes_max: usize) -> Decoded<'_> {
    match bytes.first() {
        None => Decoded::Incomplete(1),
        Some(b'*') => decode_array::<RESP3, UNDERSTOOD>(bytes, value_bytes_max),
        Some(_) => measure_inline(bytes),
    }
}

#[inline]
fn decode_array<const RESP3: bool, const UNDERSTOOD: bool>(bytes: &[u8], value_bytes_max: usize) -> Decoded<'_> {
    let (count, mut at) = match line_number(bytes, 1) {
        Line::Number(count, at) => (count, at),
        Line::Incomplete => return Decoded::Incomplete(bytes.len() + 1),
        Line::TooLong => return malformed(bytes, Wrong::TooBigCount, 0),
        Line::Bad => return malformed(bytes, Wrong::Length, 0),
    };
    if count <= 0 {
        // An empty array asks nothing and is answered with nothing, as Redis does.
        return Decoded::Refused(Refusal { id: SILENT, opcode: 0, status: Status::Ok, frame_bytes: at as u64 });
    }
    if count > limits::RESP_WORDS_MAX {
        return malformed(bytes, Wrong::Length, 0);
    }
    let mut stored: [&[u8]; ARGUMENTS_MAX] = [&[]; ARGUMENTS_MAX];
    for number in 0..count as usize {
        // What is missing at least: nobody decodes a command of a million words again with every packet.
        let rest_bytes_min = (count as usize - number - 1) * WORD_BYTES_MIN;
        match bytes.get(at) {
            None => return Decoded::Incomplete(at + WORD_BYTES_MIN + rest_bytes_min),
            Some(b'$') => {}
            Some(&other) => return malformed(bytes, Wrong::NotBulk, other),
        }
        let (length, start) = match line_number(bytes, at + 1) {
            Line::Number(length, start) if length >= 0 => (length as usize, start),
            Line::Incomplete => return Decoded::Incomplete(bytes.len() + 1),
            _ => return malformed(bytes, Wrong::BulkLength, 0),
        };
        if length > value_bytes_max.max(limits::KEY_BYTES_MAX) {
            // Only where it is the last argument is it known where the next command begins.
            if number + 1 < count as usize || length > BULK_BYTES_MAX {
                return malformed(bytes, Wrong::BulkLength, 0);
            }
            let frame_bytes = (start as u64).saturating_add(length as u64).saturating_add(2);
            let (opcode, status) = (Wrong::Value as u8, Status::ValueTooLarge);
            return Decoded::Refused(Refusal { id: 0, opcode, status, frame_bytes });
        }
        let end = start + length;
        let (Some(argument), Some(tail)) = (bytes.get(start..end), bytes.get(end..end + 2)) else {
            return Decoded::Incomplete(end + 2 + rest_bytes_min);
        };
        if tail != b"\r\n" {
            return malformed(bytes, Wrong::BulkLength, 0);
        }
        if let Some(place) = stored.get_mut(number) {
            *place = argument;
        }
        at = end + 2;
    }
    if UNDERSTOOD && let Some(words) = stored.get(..count as usize) {
        return interpret::<RESP3>(words, at, value_bytes_max);
    }
    Decoded::Front(at)
}

/// A command about one key as a request; everything else is the engine's.
#[inline]
fn interpret<'a, const RESP3: bool>(words: &[&'a [u8]], length: usize, value_bytes_max: usize) -> Decoded<'a> {
    // The two that make the traffic come first, in the two spellings clients use.
    let (cmd, command) = match *words {
        [name, key] if name == b"GET" || name == b"get" => (Cmd::Get, Command::Get { key }),
        [name, ..] => {
            let Some(cmd) = Cmd::of(name).filter(|cmd| !matches!(cmd, Cmd::Eval | Cmd::EvalSha)) else {
                // Which scripts are known changes with time: another shard might read the same bytes otherwise.
                return Decoded::Front(length);
            };
            let Ok(command) = single::command(cmd, words, value_bytes_max) else { return Decoded::Front(length) };
            (cmd, command)
        }
        [] => return Decoded::Front(length),
    };
    match command.key() {
        Some(key) if (1..=limits::KEY_BYTES_MAX).contains(&key.len()) => {
            Decoded::Request(Request { id: request_id(cmd, RESP3), want_version: false, command }, length)
        }
        _ => Decoded::Front(length),
    }
}

/// A command as a person types it: words on a line.
#[cold]
fn measure_inline(bytes: &[u8]) -> Decoded<'_> {
    let Some(end) = bytes.iter().take(INLINE_BYTES_MAX + 1).position(|&byte| byte == b'\n') else {
        let is_too_long = bytes.len() > INLINE_BYTES_MAX;
        return if is_too_long {
            malformed(bytes, Wrong::TooBigInline, 0)
        } else {
            Decoded::Incomplete(bytes.len() + 1)
        };
    };
    if bytes[..end].trim_ascii().is_empty() {
        return Decoded::Refused(Refusal { id: SILENT, opcode: 0, status: Status::Ok, frame_bytes: end as u64 + 1 });
    }
    Decoded::Front(end + 1)
}

#[cold]
fn malformed(bytes: &[u8], wrong: Wrong, seen: u8) -> Decoded<'_> {
    let (id, opcode, frame_bytes) = (u32::from(seen), wrong as u8, bytes.len() as u64);
    Decoded::Refused(Refusal { id, opcode, status: Status::Malformed, frame_bytes })
}

/// There is no memory for the rest of a command. Where it ends is known only when all its words are there, so nothing
/// can be passed over: what follows would be read as commands.
#[cold]
fn no_room(bytes: &[u8]) -> Refusal {
    Refusal { id: 0, opcode: Wrong::NoRoom as u8, status: Status::Malformed, frame_bytes: bytes.len() as u64 }
}

/// Writes what is wrong as Redis words it.
#[cold]
fn encode_refusal(refusal: &Refusal, text: &str, out: &mut Vec<u8>) {
    const LENGTH: u8 = Wrong::Length as u8;
    const BULK_LENGTH: u8 = Wrong::BulkLength as u8;
    const NOT_BULK: u8 = Wrong::NotBulk as u8;
    const TOO_BIG_COUNT: u8 = Wrong::TooBigCount as u8;
    const NO_ROOM: u8 = Wrong::NoRoom as u8;
    let worded = match (refusal.status, refusal.opcode) {
        (Status::Malformed, LENGTH) => "ERR Protocol error: invalid multibulk length",
        (Status::Malformed, BULK_LENGTH) => "ERR Protocol error: invalid bulk length",
        (Status::Malformed, NO_ROOM) => {
            "OOM no buffer memory for a command of this length now; the connection is closed"
        }
        (Status::Malformed, TOO_BIG_COUNT) => "ERR Protocol error: too big mbulk count string",
        (Status::Malformed, NOT_BULK) => {
            let seen = refusal.id as u8;
            return encode::error_bytes(&[b"ERR Protocol error: expected '$', got '", &[seen][..], b"'"].concat(), out);
        }
        (Status::Malformed, _) => "ERR Protocol error: too big inline request",
        (Status::ValueTooLarge, _) => "ERR string exceeds maximum allowed size (proto-max-bulk-len)",
        _ => return encode::error(&format!("ERR {text}"), out),
    };
    encode::error(worded, out);
}

/// A number on a line of its own.
enum Line {
    /// The number, and where the next line begins.
    Number(i64, usize),
    Incomplete,
    TooLong,
    Bad,
}

/// Reads a decimal number from `at` to the end of its line.
#[inline]
fn line_number(bytes: &[u8], at: usize) -> Line {
    let mut value: i64 = 0;
    let negative = bytes.get(at) == Some(&b'-');
    let first = at + usize::from(negative);
    let mut position = first;
    loop {
        match bytes.get(position) {
            Some(&digit @ b'0'..=b'9') if position - first < NUMBER_DIGITS_MAX => {
                value = value * 10 + i64::from(digit - b'0');
            }
            Some(b'\r') if position > first => break,
            None if position - at > LINE_BYTES_MAX => return Line::TooLong,
            None => return Line::Incomplete,
            _ => return bad_line(&bytes[at..]),
        }
        position += 1;
    }
    match bytes.get(position + 1) {
        Some(b'\n') => Line::Number(if negative { -value } else { value }, position + 2),
        Some(_) => Line::Bad,
        None => Line::Incomplete,
    }
}

/// What is no number is told so when its line has ended, or has grown too long to be one.
#[cold]
fn bad_line(bytes: &[u8]) -> Line {
    match bytes.iter().take(LINE_BYTES_MAX + 1).position(|&byte| byte == b'\r') {
        Some(_) => Line::Bad,
        None if bytes.len() > LINE_BYTES_MAX => Line::TooLong,
        None => Line::Incomplete,
    }
}

pub use crate::wire::codec::SILENT;
/// In a request's id: it is answered in RESP3.
const IS_RESP3: u32 = 1 << 8;
/// Words that are looked at for a request: the longest form of SET has seven.
const ARGUMENTS_MAX: usize = 8;
/// Bytes of a word with all that belongs to it, at least.
const WORD_BYTES_MIN: usize = b"$0\r\n\r\n".len();
/// Bytes of an inline command, and of a line that should hold a number.
const INLINE_BYTES_MAX: usize = 64 << 10;
/// See [`INLINE_BYTES_MAX`].
const LINE_BYTES_MAX: usize = 64 << 10;
/// A longer string is none that Redis would take either: the connection is closed and nothing is passed over.
const BULK_BYTES_MAX: usize = 512 << 20;
/// Digits of a length: more than any length we take, fewer than overflow.
const NUMBER_DIGITS_MAX: usize = 18;

#[cfg(test)]
mod tests;
