//! memcached's text protocol and its meta commands: lines in, lines out, values as blocks of bytes between them.
//!
//!   get key\r\n                  ->  VALUE key flags 5\r\nvalue\r\nEND\r\n   or   END\r\n
//!   set key flags ttl 5\r\nvalue\r\n  ->  STORED\r\n
//!   mg key v t Oabc\r\n          ->  VA 5 t30 Oabc\r\nvalue\r\n              or   EN\r\n
//!
//! Decoding borrows; nothing is copied or reserved before the bytes are there. A command about one key is a request
//! to the shard that owns it. A retrieval of several keys, a key in base64 and what is about the server are only
//! measured here: the engine's `memcached` reads their line once more. The binary protocol, which memcached itself
//! calls deprecated, is not spoken: its first byte ends the connection.
//!
//! A line is understood as memcached 1.6.18 does, errors and their wording included.
//!
//! - `ask`: what can be asked of a key
//! - `text`: the classic commands, line by line
//! - `meta`: the flags of the meta commands, and their replies
//! - `number`: decimal numbers as C reads them
//! - `base64`: keys that are not text
//! - `encode`: replies to the classic commands
//! - `part`: requests between shards
//! - `client`: the client's side, for the load generator

pub mod ask;
pub mod base64;
pub mod client;
pub mod encode;
pub mod meta;
pub mod number;
pub mod part;
pub mod text;

pub use ask::{Ask, Exptime, Storing, Verb};
pub use client::{decode_reply, encode_request};
pub use text::Line;

use crate::base::limits;
use crate::wire::codec::{Codec, Decoded, Refusal};
use crate::wire::request::{Command, Reply, Request, Status};

/// The protocol, for listeners.
pub struct Memcached;

/// What is wrong with a frame; travels as a refusal's opcode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Wrong {
    /// No such command, or not with so many words.
    Command,
    /// A word is not what it should be.
    Format,
    /// A value does not end where its length says.
    Chunk,
    /// An amount to add is no number.
    Delta,
    /// A time is no number.
    Exptime,
    /// DELETE was given a time.
    Delete,
    /// A meta command has too many flags, as MG words it.
    FlagsOfGet,
    /// The same, as the others do.
    Flags,
    /// The connection is closed without a word.
    Nothing,
    /// A line is too long; the connection is closed.
    Line,
    /// The binary protocol; the connection is closed.
    Binary,
    /// There is no memory for the rest of a line; the connection is closed.
    Memory,
}

impl Codec for Memcached {
    const IS_MEMCACHED: bool = true;

    #[inline]
    fn decode(bytes: &[u8], value_bytes_max: usize) -> Decoded<'_> {
        // The two that make the traffic come first, and plain.
        let plain = match bytes {
            [b'g', b'e', b't', b' ', ..] => text::plain_get(bytes),
            [b's', b'e', b't', b' ', ..] => text::plain_set(bytes, value_bytes_max),
            _ => None,
        };
        plain.unwrap_or_else(|| decode_line(bytes, value_bytes_max))
    }

    fn busy(bytes: &[u8], needed: usize) -> Refusal {
        busy(bytes, needed)
    }

    fn encode_reply(request: &Request<'_>, reply: &Reply<'_>, out: &mut Vec<u8>) {
        encode_reply(request, reply, out);
    }

    fn encode_refusal(refusal: &Refusal, _text: &str, out: &mut Vec<u8>) {
        encode_refusal(refusal, out);
    }
}

/// Any line, and the value behind it if it announces one.
#[cold]
fn decode_line(bytes: &[u8], value_bytes_max: usize) -> Decoded<'_> {
    match bytes.first() {
        None => return Decoded::Incomplete(1),
        Some(&BINARY_MAGIC) => return refused(Wrong::Binary, false, bytes.len()),
        Some(_) => {}
    }
    let Some(end) = text::newline(bytes) else {
        let bytes_max = line_bytes_max(bytes);
        return if bytes.len() > bytes_max {
            refused(Wrong::Line, false, bytes.len())
        } else {
            Decoded::Incomplete(bytes.len() + 1)
        };
    };
    if end > limits::MEMCACHED_LINE_BYTES_MAX && end > line_bytes_max(bytes) {
        return refused(Wrong::Line, false, bytes.len());
    }
    let after = end + 1;
    match text::line(text::stripped(&bytes[..end])) {
        Line::Key { block: None, is_encoded: true, .. } => Decoded::Front(after),
        Line::Key { key, ask, block: None, .. } => request(key, ask, after),
        Line::Key { key, mut ask, block: Some(block), is_encoded } => {
            if block > value_bytes_max_of(key, value_bytes_max) {
                return Decoded::Front(after);
            }
            match text::block(bytes, after, block) {
                Err(needed) => Decoded::Incomplete(needed),
                Ok((_, length)) if is_encoded => Decoded::Front(length),
                Ok((Some(value), length)) => {
                    ask.set_value(value);
                    request(key, ask, length)
                }
                // There may be more wrong with a meta command.
                Ok((None, length)) if ask.is_meta() => Decoded::Front(length),
                Ok((None, length)) => refused(Wrong::Chunk, ask.is_quiet(), length),
            }
        }
        Line::Barrier => Decoded::Request(Request { id: 0, want_version: false, command: Command::Noop }, after),
        Line::Keys { .. } | Line::Server(_) => Decoded::Front(after),
        Line::Wrong(wrong, is_quiet) => refused(wrong, is_quiet, after),
    }
}

#[inline]
fn request<'a>(key: &'a [u8], ask: Ask<'a>, length: usize) -> Decoded<'a> {
    Decoded::Request(Request { id: 0, want_version: false, command: Command::Memcached { key, ask } }, length)
}

fn refused<'a>(wrong: Wrong, is_quiet: bool, length: usize) -> Decoded<'a> {
    let (id, status) = match wrong {
        Wrong::Nothing | Wrong::Line => (SILENT, Status::Malformed),
        Wrong::Binary | Wrong::Memory => (0, Status::Malformed),
        _ if is_quiet => (SILENT, Status::Ok),
        _ => (0, Status::Unsupported),
    };
    Decoded::Refused(Refusal { id, opcode: wrong as u8, status, frame_bytes: length as u64 })
}

/// Longest value beside `key`: what `value_bytes_max`, which leaves room for the longest key, leaves besides.
#[inline]
pub fn value_bytes_max_of(key: &[u8], value_bytes_max: usize) -> usize {
    value_bytes_max + limits::KEY_BYTES_MAX.saturating_sub(key.len())
}

/// A retrieval may have any number of keys, within reason; all other lines are short.
fn line_bytes_max(bytes: &[u8]) -> usize {
    let spaces = bytes.iter().take(SPACES_MAX + 1).take_while(|&&byte| byte == b' ').count();
    let is_retrieval = RETRIEVALS.iter().any(|name| bytes[spaces..].starts_with(name));
    match is_retrieval && spaces <= SPACES_MAX {
        true => limits::MEMCACHED_KEYS_BYTES_MAX,
        false => limits::MEMCACHED_LINE_BYTES_MAX,
    }
}

/// Where the rest of a line was to be waited for, nobody knows where the next one begins.
fn busy(bytes: &[u8], needed: usize) -> Refusal {
    let (wrong, status) = match text::newline(bytes) {
        Some(_) => (Wrong::Command, Status::Busy),
        None => (Wrong::Memory, Status::Malformed),
    };
    Refusal { id: 0, opcode: wrong as u8, status, frame_bytes: needed as u64 }
}

/// What is not about a key; the rest writes its own replies.
fn encode_reply(request: &Request<'_>, _reply: &Reply<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(match request.command {
        Command::Noop => b"MN\r\n".as_slice(),
        _ => b"OK\r\n".as_slice(),
    });
}

fn encode_refusal(refusal: &Refusal, out: &mut Vec<u8>) {
    let texts: [(Wrong, &str); 10] = [
        (Wrong::Command, "ERROR"),
        (Wrong::Format, "CLIENT_ERROR bad command line format"),
        (Wrong::Chunk, "CLIENT_ERROR bad data chunk"),
        (Wrong::Delta, "CLIENT_ERROR invalid numeric delta argument"),
        (Wrong::Exptime, "CLIENT_ERROR invalid exptime argument"),
        (Wrong::Delete, "CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]"),
        (Wrong::FlagsOfGet, "CLIENT_ERROR options flags are too long"),
        (Wrong::Flags, "CLIENT_ERROR options flags too long"),
        (Wrong::Binary, "ERROR"),
        (Wrong::Memory, "SERVER_ERROR out of memory reading request"),
    ];
    let text = match refusal.status {
        Status::Busy => "SERVER_ERROR out of memory storing object",
        _ => match texts.iter().find(|(wrong, _)| *wrong as u8 == refusal.opcode) {
            Some((_, text)) => text,
            None => return,
        },
    };
    encode::line(text, out);
}

pub use crate::wire::codec::SILENT;

/// What every request of the binary protocol begins with.
const BINARY_MAGIC: u8 = 0x80;
/// Commands that may be followed by any number of keys.
const RETRIEVALS: [&[u8]; 4] = [b"get ", b"gets ", b"gat ", b"gats "];
/// Spaces before one of them.
const SPACES_MAX: usize = 100;

#[cfg(test)]
mod tests;
