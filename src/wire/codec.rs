//! What every protocol of a listener looks like to the engine.

use crate::wire::request::{Reply, Request, Status};

/// One protocol: bytes to requests, replies to bytes.
pub trait Codec {
    /// Whether the low byte of a request's id says which command it is, so that calls can be counted by command.
    const IS_COUNTED: bool = false;

    /// Whether it has requests of memcached's kind; others do not pay for their code beside their own.
    const IS_MEMCACHED: bool = false;

    /// Decodes the first request of `bytes`. `value_bytes_max` is the server's own limit.
    fn decode(bytes: &[u8], value_bytes_max: usize) -> Decoded<'_>;

    /// What the frame of `needed` bytes that `bytes` begins is refused with where there is no memory for it.
    fn busy(_bytes: &[u8], needed: usize) -> Refusal {
        Refusal { id: 0, opcode: 0, status: Status::Busy, frame_bytes: needed as u64 }
    }

    /// Appends the reply to `request` to `out`.
    fn encode_reply(request: &Request<'_>, reply: &Reply<'_>, out: &mut Vec<u8>);

    /// Appends what a refused frame is answered, with a text for people.
    fn encode_refusal(refusal: &Refusal, text: &str, out: &mut Vec<u8>);
}

/// What the first bytes of a buffer are.
#[derive(Debug, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// A whole request, and how many bytes it took.
    Request(Request<'a>, usize),
    /// A whole command that takes more than one request to one shard, or the state of its connection: the engine's
    /// part for this protocol reads it. How many bytes it is.
    Front(usize),
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

/// The id of a refusal that is not answered: where nothing is wrong, or nobody is to hear of it.
pub const SILENT: u32 = u32::MAX;
