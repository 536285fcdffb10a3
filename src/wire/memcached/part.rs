//! Requests between shards that no line says: one key of a retrieval, a key that was in base64, a flush.
//!
//!   | what 1 | verb 1 | encoded 1 | key 1 | flags 2 | exptime 4 | key | flags | value |
//!
//! A shard never reads these from a client: they have a codec of their own.

use crate::wire::codec::{Codec, Decoded, Refusal};
use crate::wire::memcached::ask::{Ask, Exptime, Verb};
use crate::wire::request::{Command, Reply, Request};

/// The codec of what travels between shards.
pub struct Part;

/// Writes what is asked of a key.
pub fn write(key: &[u8], ask: &Ask<'_>, out: &mut Vec<u8>) {
    let (what, verb, is_encoded, flags, exptime, value): (u8, u8, bool, &[u8], i32, &[u8]) = match *ask {
        Ask::Read { exptime, with_cas, ends } => {
            let bits = u8::from(with_cas) | u8::from(ends) << 1 | u8::from(exptime.is_some()) << 2;
            (READ, bits, false, &[], exptime.unwrap_or_default().0, &[])
        }
        Ask::Delete { is_quiet } => (DELETE, u8::from(is_quiet), false, &[], 0, &[]),
        Ask::Meta { verb, flags, value, is_encoded } => (META, verb as u8, is_encoded, flags, 0, value),
        Ask::Store { .. } | Ask::Touch { .. } | Ask::Count { .. } => unreachable!("these travel as they were sent"),
    };
    out.extend_from_slice(&[what, verb, u8::from(is_encoded), key.len() as u8]);
    out.extend_from_slice(&(flags.len() as u16).to_le_bytes());
    out.extend_from_slice(&exptime.to_le_bytes());
    out.extend_from_slice(key);
    out.extend_from_slice(flags);
    out.extend_from_slice(value);
}

/// Writes that everything is to go.
pub fn write_flush(out: &mut Vec<u8>) {
    out.push(FLUSH);
}

/// What [`write`] wrote.
fn read(frame: &[u8]) -> Option<Command<'_>> {
    if frame == [FLUSH] {
        return Some(Command::Flush);
    }
    let (&[what, verb, is_encoded, key_bytes], rest) = frame.split_first_chunk()?;
    let (flags_bytes, rest) = rest.split_first_chunk()?;
    let (exptime, rest) = rest.split_first_chunk()?;
    let (key, rest) = rest.split_at_checked(usize::from(key_bytes))?;
    let (flags, value) = rest.split_at_checked(usize::from(u16::from_le_bytes(*flags_bytes)))?;
    let ask = match what {
        READ => Ask::Read {
            exptime: (verb & 4 != 0).then_some(Exptime(i32::from_le_bytes(*exptime))),
            with_cas: verb & 1 != 0,
            ends: verb & 2 != 0,
        },
        DELETE => Ask::Delete { is_quiet: verb != 0 },
        META => Ask::Meta { verb: Verb::of(verb)?, flags, value, is_encoded: is_encoded != 0 },
        _ => return None,
    };
    Some(Command::Memcached { key, ask })
}

impl Codec for Part {
    const IS_MEMCACHED: bool = true;

    fn decode(bytes: &[u8], _value_bytes_max: usize) -> Decoded<'_> {
        match read(bytes) {
            Some(command) => Decoded::Request(Request { id: 0, want_version: false, command }, bytes.len()),
            None => Decoded::Incomplete(bytes.len() + 1),
        }
    }

    fn encode_reply(request: &Request<'_>, reply: &Reply<'_>, out: &mut Vec<u8>) {
        super::encode_reply(request, reply, out);
    }

    fn encode_refusal(refusal: &Refusal, _text: &str, out: &mut Vec<u8>) {
        super::encode_refusal(refusal, out);
    }
}

const READ: u8 = 1;
const DELETE: u8 = 2;
const META: u8 = 3;
const FLUSH: u8 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let asks = [
            Ask::Read { exptime: None, with_cas: false, ends: false },
            Ask::Read { exptime: Some(Exptime(-1)), with_cas: true, ends: true },
            Ask::Delete { is_quiet: true },
            Ask::Meta { verb: Verb::Set, flags: b" b k", value: b"value", is_encoded: true },
        ];
        for ask in asks {
            let mut frame = Vec::new();
            write(b"key", &ask, &mut frame);
            assert_eq!(read(&frame), Some(Command::Memcached { key: b"key", ask }));
        }
        let mut frame = Vec::new();
        write_flush(&mut frame);
        assert_eq!((read(&frame), read(b"")), (Some(Command::Flush), None));
    }
}
