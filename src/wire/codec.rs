//! What every protocol of a listener looks like to the engine.

use crate::wire::request::{Reply, Request, Status};

/// One protocol: bytes to requests, replies to bytes.
pub trait Codec {
    /// Decodes the first request of `bytes`. `value_bytes_max` is the server's own limit.
    fn decode(bytes: &[u8], value_bytes_max: usize) -> Decoded<'_>;

    /// What the frame of `needed` bytes that `bytes` begins is refused with where there is no memory for it.
    fn busy(_bytes: &[u8], needed: usize) -> Refusal {
        Refusal { id: 0, opcode: 0, status: Status::Busy, frame_bytes: needed as u64 }
    }

    /// Appends the reply to the request of this `id` and `opcode` to `out`.
    fn encode_reply(id: u32, opcode: u8, reply: &Reply<'_>, out: &mut Vec<u8>);

    /// Appends what the codec answers by itself.
    fn encode_local(local: &Local<'_>, out: &mut Vec<u8>);
}

/// What the first bytes of a buffer are.
#[derive(Debug, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// A whole request, and how many bytes it took.
    Request(Request<'a>, usize),
    /// A whole request that needs no shard to be answered, and how many bytes it took.
    Local(Local<'a>, usize),
    /// The beginning of a frame of this many bytes (at least; more once its header is there).
    Incomplete(usize),
    /// Nothing that can be served.
    Refused(Refusal),
}

/// Why a frame is not served, and how to go on after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The request's id and opcode, as far as they can be told.
    pub id: u32,
    /// See `id`.
    pub opcode: u8,
    /// What to answer.
    pub status: Status,
    /// Bytes of the frame to pass over, those not yet arrived included.
    pub frame_bytes: u64,
}

/// Requests of text protocols that are about the connection and not about a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Local<'a> {
    /// Answered with this text.
    Text(&'static str),
    /// Answered with the bytes that were sent.
    Echo(&'a [u8]),
    /// Answered with an empty list.
    Nothing,
    /// Answered with what the server is.
    Hello,
    /// Answered with an error: what is wrong, and about what.
    Error(&'static str, &'a [u8]),
    /// Answered, then the connection is closed.
    Quit,
}
