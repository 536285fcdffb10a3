//! One connection's place in its stream of requests, and the replies it waits for.
//!
//! Replies leave in the order of requests. While nothing is under way elsewhere they go straight to
//! the output; once a request has been forwarded, it and everything after it queue here:
//!
//!   awaited:  | at shard 1 | ready bytes | at shard 3 | ready bytes |
//!               ^ first_sequence                                ^ local replies are appended here
//!
//! Each session counts what it holds of the shard's output memory, so that those who read can be told
//! from those who do not.

use std::collections::VecDeque;

use crate::base::id::{ConnectionId, ShardId};
use crate::base::time::Instant;
use crate::engine::post::Asked;
use crate::engine::resp::gather::Gather;

/// The protocol a connection speaks, by the listener it came in at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// The native binary protocol.
    #[default]
    Native,
    /// RESP2, and RESP3 from HELLO on.
    Resp,
    /// RESP3.
    Resp3,
    /// memcached's text protocol, meta commands included.
    Memcached,
}

/// A connection as the engine knows it.
#[derive(Default)]
pub struct Session {
    /// Whose it is.
    pub id: ConnectionId,
    /// What it speaks.
    pub protocol: Protocol,
    /// Bytes that are incomplete or were held back, those before `pending_from` served already.
    pub pending: Vec<u8>,
    /// See `pending`.
    pub pending_from: usize,
    /// The turn of the shard in which it was last served, and how much of its share it has used there.
    pub turn: u64,
    /// See `turn`.
    pub served_in_turn: usize,
    /// How much of `pending` is counted against the shard's bound.
    pub counted: usize,
    /// When bytes last arrived.
    pub arrived: Instant,
    /// Bytes of a refused frame that are still to be passed over.
    pub skip: u64,
    /// The bound that holds it back, if one does.
    pub blocked: Option<Bound>,
    /// On a list of those to try again.
    pub held: bool,
    /// Serve nothing more, close once the awaited replies have been given.
    pub closing: bool,
    /// The peer has sent its last byte: close once everything is served.
    pub ended: bool,
    /// A near cache hears through it what changes, see `interest`.
    pub subscribed: bool,
    /// The shard that HELLO asked for, and the id of that request.
    pub moving: Option<(u16, u32)>,
    /// A frame has begun of which this much is needed before it is worth looking at again.
    pub needed: usize,
    /// The connection is in a state in which no command of RESP is a plain request: `resp` looks at each.
    pub is_stateful: bool,
    /// The number of a client of RESP; else 0.
    pub client: u64,
    /// Replies to what is asked from now on are not sent (CLIENT REPLY).
    pub is_muted: bool,
    /// Nothing more is served until the reply to its last command is there.
    pub waits: bool,
    /// How far a command of several keys is that a bound has held back.
    pub front_at: usize,
    /// Bytes given to the output and not yet sent.
    pub unsent: usize,
    /// The command whose last part has come just now.
    pub finished: Option<Asked>,
    /// When the turn began that received what a bound holds back, in nanoseconds of the process's clock; 0 if nothing is.
    pub held_since_ns: u64,
    awaited: VecDeque<Awaited>,
    ready_bytes: usize,
    /// Bytes of replies that wait for other parts of theirs. They are not output yet: were they counted as that, full
    /// memory would keep out the very parts they wait for.
    gathered_bytes: usize,
    first_sequence: u32,
}

/// What holds a connection back, and what frees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Its own output is full: freed when its peer takes some.
    Output,
    /// All outputs together are: freed when any peer takes some.
    Memory,
    /// Too many replies are awaited: freed when one comes.
    Replies,
    /// Too much is under way at another shard: tried again every turn.
    Mailbox,
    /// It has had its share of this turn: goes on in the next.
    Turn,
    /// A transaction is under way, or writes are paused: tried again every turn.
    Hold,
    /// The reply to its last command is awaited: freed when it comes.
    Answer,
}

enum Awaited {
    /// This many shards have yet to answer, and whether nobody wants to know.
    Remote(u16, bool),
    /// Parts of one reply, of several shards.
    Gather(Box<Gather>, bool),
    Ready(Vec<u8>),
}

impl Protocol {
    /// As errors call it.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Native => "the native protocol",
            Protocol::Resp | Protocol::Resp3 => "RESP",
            Protocol::Memcached => "memcached's text protocol",
        }
    }
}

impl Session {
    /// The session of a fresh connection.
    pub fn new(id: ConnectionId, protocol: Protocol) -> Session {
        Session { id, protocol, ..Session::default() }
    }

    /// Gives it its share of the shard's turn number `turn`, if it has not had it yet.
    #[inline]
    pub fn begin_turn(&mut self, turn: u64) {
        if self.turn != turn {
            self.turn = turn;
            self.served_in_turn = 0;
        }
    }

    /// Whether replies may go straight to the output.
    #[inline]
    pub fn is_in_order(&self) -> bool {
        self.awaited.is_empty()
    }

    /// Whether nothing is left to do but to send the output and close.
    pub fn is_over(&self) -> bool {
        self.is_in_order() && (self.closing || (self.ended && self.blocked.is_none()))
    }

    /// Bytes of replies that wait for earlier ones.
    pub fn ready_bytes(&self) -> usize {
        self.ready_bytes
    }

    /// Bytes of replies that wait for other parts of theirs.
    pub fn gathered_bytes(&self) -> usize {
        self.gathered_bytes
    }

    /// Bytes that this connection holds of the shard's output memory.
    pub fn output_bytes(&self) -> usize {
        self.unsent + self.ready_bytes
    }

    /// Writes a reply where its order demands: to `out`, or behind those that are awaited.
    #[inline]
    pub fn reply<R>(&mut self, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        if self.is_in_order() {
            let before = out.len();
            let result = write(out);
            if self.is_muted {
                out.truncate(before);
            }
            self.unsent += out.len() - before;
            return result;
        }
        if !matches!(self.awaited.back(), Some(Awaited::Ready(_))) {
            self.awaited.push_back(Awaited::Ready(Vec::new()));
        }
        let Some(Awaited::Ready(bytes)) = self.awaited.back_mut() else {
            unreachable!("a ready entry was pushed just now");
        };
        let before = bytes.len();
        let result = write(bytes);
        if self.is_muted {
            bytes.truncate(before);
        }
        self.ready_bytes += bytes.len() - before;
        result
    }

    /// Writes what the client did not ask for behind all that it is owed.
    pub fn push(&mut self, out: &mut Vec<u8>, bytes: &[u8]) {
        let is_muted = std::mem::take(&mut self.is_muted);
        self.reply(out, |to| to.extend_from_slice(bytes));
        self.is_muted = is_muted;
    }

    /// Replies in the queue.
    pub fn awaited_count(&self) -> usize {
        self.awaited.len()
    }

    /// Queues a place for the answer of `shards` other shards; its sequence number.
    pub fn await_remote(&mut self, shards: u16) -> u32 {
        self.awaited.push_back(Awaited::Remote(shards, self.is_muted));
        self.first_sequence.wrapping_add(self.awaited.len() as u32 - 1)
    }

    /// Queues a place for a reply that is put together; its sequence number.
    pub fn await_parts(&mut self, gather: Gather) -> u32 {
        self.gathered_bytes += gather.bytes();
        self.awaited.push_back(Awaited::Gather(Box::new(gather), self.is_muted));
        self.first_sequence.wrapping_add(self.awaited.len() as u32 - 1)
    }

    /// Takes in an answer for `sequence`. With several shards asked, the last answer counts.
    /// The vector swapped in is returned for reuse.
    pub fn answer(&mut self, sequence: u32, from: ShardId, mut reply: Vec<u8>) -> Vec<u8> {
        let position = sequence.wrapping_sub(self.first_sequence) as usize;
        match self.awaited.get_mut(position) {
            Some(Awaited::Remote(shards, _)) if *shards > 1 => {
                *shards -= 1;
                reply
            }
            Some(entry @ Awaited::Remote(..)) => {
                if matches!(entry, Awaited::Remote(_, true)) {
                    reply.clear();
                }
                self.ready_bytes += reply.len();
                *entry = Awaited::Ready(reply);
                Vec::new()
            }
            Some(entry @ Awaited::Gather(..)) => {
                let Awaited::Gather(gather, is_muted) = entry else { unreachable!("matched just now") };
                self.gathered_bytes += reply.len();
                let gathered = gather.bytes() + reply.len();
                if let Some(mut whole) = gather.take_in(from, reply) {
                    self.finished = gather.asked;
                    self.gathered_bytes -= gathered;
                    if *is_muted {
                        whole.clear();
                    }
                    self.ready_bytes += whole.len();
                    *entry = Awaited::Ready(whole);
                }
                Vec::new()
            }
            _ => unreachable!("an answer for sequence {sequence} that nobody awaits"),
        }
    }

    /// Moves what is ready, in order, to `out`.
    pub fn release(&mut self, out: &mut Vec<u8>) {
        while let Some(Awaited::Ready(bytes)) = self.awaited.front() {
            out.extend_from_slice(bytes);
            self.ready_bytes -= bytes.len();
            self.unsent += bytes.len();
            self.awaited.pop_front();
            self.first_sequence = self.first_sequence.wrapping_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_leave_in_the_order_of_requests() {
        let mut session = Session::default();
        let first = session.await_remote(1);
        let mut out = Vec::new();
        session.reply(&mut out, |to| to.push(b'b'));
        session.reply(&mut out, |to| to.push(b'c'));
        let second = session.await_remote(2);
        session.reply(&mut out, |to| to.push(b'e'));
        assert_eq!((out.len(), session.ready_bytes()), (0, 3));
        session.answer(second, ShardId(1), b"-".to_vec());
        session.release(&mut out);
        assert!(out.is_empty() && !session.is_in_order());
        session.answer(first, ShardId(1), b"a".to_vec());
        session.release(&mut out);
        assert_eq!(out, b"abc");
        session.answer(second, ShardId(1), b"d".to_vec());
        session.release(&mut out);
        assert_eq!(out, b"abcde");
        assert!(session.is_in_order());
        let third = session.await_remote(1);
        session.answer(third, ShardId(1), b"f".to_vec());
        session.release(&mut out);
        session.reply(&mut out, |to| to.push(b'g'));
        assert_eq!(out, b"abcdefg");
        assert_eq!((session.ready_bytes(), session.unsent), (0, 7));
    }
}
