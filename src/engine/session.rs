//! One connection's place in its stream of requests, and the replies it waits for.
//!
//! Replies leave in the order of requests. While nothing is under way elsewhere they go straight to
//! the output; once a request has been forwarded, it and everything after it queue here:
//!
//!   awaited:  | at shard 1 | ready bytes | at shard 3 | ready bytes |
//!               ^ first_sequence                                ^ local replies are appended here

use std::collections::VecDeque;

/// A connection as the engine knows it.
#[derive(Default)]
pub struct Session {
    /// Bytes of a frame that is incomplete or was held back.
    pub pending: Vec<u8>,
    /// What `pending` may grow to, as counted against the shard's bound.
    pub reserved: usize,
    /// Bytes of a refused frame that are still to be passed over.
    pub skip: u64,
    /// The bound that holds it back, if one does.
    pub blocked: Option<Bound>,
    /// On the list of those to try again.
    pub held: bool,
    /// Close once the awaited replies have been given.
    pub closing: bool,
    /// The shard that HELLO asked for, and the id of that request.
    pub moving: Option<(u16, u32)>,
    awaited: VecDeque<Awaited>,
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
}

enum Awaited {
    /// This many shards have yet to answer.
    Remote(u16),
    Ready(Vec<u8>),
}

impl Session {
    /// Whether replies may go straight to the output.
    #[inline]
    pub fn is_in_order(&self) -> bool {
        self.awaited.is_empty()
    }

    /// Replies in the queue.
    pub fn awaited_count(&self) -> usize {
        self.awaited.len()
    }

    /// Queues a place for the answer of `shards` other shards; its sequence number.
    pub fn await_remote(&mut self, shards: u16) -> u32 {
        self.awaited.push_back(Awaited::Remote(shards));
        self.first_sequence.wrapping_add(self.awaited.len() as u32 - 1)
    }

    /// Where a local reply goes while others are awaited.
    pub fn staged(&mut self) -> &mut Vec<u8> {
        if !matches!(self.awaited.back(), Some(Awaited::Ready(_))) {
            self.awaited.push_back(Awaited::Ready(Vec::new()));
        }
        match self.awaited.back_mut() {
            Some(Awaited::Ready(bytes)) => bytes,
            _ => unreachable!("a ready entry was pushed just now"),
        }
    }

    /// Takes in an answer for `sequence`. With several shards asked, the last answer counts.
    /// The vector swapped in is returned for reuse.
    pub fn answer(&mut self, sequence: u32, reply: Vec<u8>) -> Vec<u8> {
        let position = sequence.wrapping_sub(self.first_sequence) as usize;
        match self.awaited.get_mut(position) {
            Some(Awaited::Remote(shards)) if *shards > 1 => {
                *shards -= 1;
                reply
            }
            Some(entry @ Awaited::Remote(_)) => {
                *entry = Awaited::Ready(reply);
                Vec::new()
            }
            _ => unreachable!("an answer for sequence {sequence} that nobody awaits"),
        }
    }

    /// Moves what is ready, in order, to `out`.
    pub fn release(&mut self, out: &mut Vec<u8>) {
        while let Some(Awaited::Ready(bytes)) = self.awaited.front() {
            out.extend_from_slice(bytes);
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
        session.staged().extend_from_slice(b"b");
        session.staged().extend_from_slice(b"c");
        let second = session.await_remote(2);
        session.staged().extend_from_slice(b"e");
        let mut out = Vec::new();
        session.answer(second, b"-".to_vec());
        session.release(&mut out);
        assert!(out.is_empty() && !session.is_in_order());
        session.answer(first, b"a".to_vec());
        session.release(&mut out);
        assert_eq!(out, b"abc");
        session.answer(second, b"d".to_vec());
        session.release(&mut out);
        assert_eq!(out, b"abcde");
        assert!(session.is_in_order());
        let third = session.await_remote(1);
        session.answer(third, b"f".to_vec());
        session.release(&mut out);
        assert_eq!(out, b"abcdef");
    }
}
