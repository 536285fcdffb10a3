//! What a load speaks to its server.

use crate::wire::{Command, Reply, Request, memcached, native, resp};

/// The protocol of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Spinetail's own.
    Native,
    /// RESP: Redis, Valkey, Spinetail's `--resp`.
    Resp,
    /// memcached's text protocol.
    Memcached,
    /// A server that returns the bytes it gets: the floor under all others. Requests are native frames.
    Echo,
}

/// A reply of any dialect.
pub struct Answer<'a> {
    /// The request's id, where the dialect has one.
    pub id: Option<u32>,
    /// The reply itself.
    pub reply: Reply<'a>,
}

impl Dialect {
    /// Appends a request to `out`.
    #[inline]
    pub fn encode(self, id: u32, command: Command<'_>, out: &mut Vec<u8>) {
        match self {
            Dialect::Native | Dialect::Echo => {
                native::encode_request(&Request { id, want_version: false, command }, out);
            }
            Dialect::Resp => resp::client::encode_request(&command, out),
            Dialect::Memcached => memcached::encode_request(&command, out),
        }
    }

    /// Decodes the first reply of `bytes` and its length; `None` if more bytes are needed.
    /// `request_bytes` is what the oldest unanswered request took.
    #[inline]
    pub fn decode(self, bytes: &[u8], request_bytes: usize) -> Result<Option<(Answer<'_>, usize)>, String> {
        match self {
            Dialect::Native => Ok(native::decode_reply(bytes)?
                .map(|(frame, length)| (Answer { id: Some(frame.id), reply: frame.reply }, length))),
            Dialect::Resp => {
                Ok(resp::client::decode_reply(bytes)?.map(|(reply, length)| (Answer { id: None, reply }, length)))
            }
            Dialect::Memcached => {
                Ok(memcached::decode_reply(bytes)?.map(|(reply, length)| (Answer { id: None, reply }, length)))
            }
            Dialect::Echo if bytes.is_empty() || bytes.len() < request_bytes => Ok(None),
            Dialect::Echo if bytes[0] != native::REQUEST_MAGIC => {
                Err("the peer returns other bytes than it got".into())
            }
            Dialect::Echo => {
                Ok(Some((Answer { id: None, reply: Reply::status(crate::wire::Status::Ok) }, request_bytes)))
            }
        }
    }
}
