//! Near caches: who has read what, and what to push when it changes.
//!
//! A near cache is memory inside a client. It subscribes at every shard by a connection of its own, reads with the
//! token it was given, and hears through that connection of what it must forget:
//!
//!   GET with a token  ->  masks[bucket of the key] |= subscriber's bit
//!   any write         ->  masks[bucket] = 0, the bucket goes on the list of each whose bit was set
//!   end of the turn   ->  | push | bucket | bucket | …    to each with a list
//!   NOOP of one       ->  its list at once, then the NOOP's reply
//!
//! A shard serves one request at a time, so reading a value and noting the interest are one step, and so are a
//! write and its place on the lists. Interest is kept by bucket of the key hash, not by key: 512 KiB whatever is
//! read. The price is that a write drops what a near cache holds of its whole bucket. Bits may stand for what
//! nobody holds any more; they cost a push, never a stale value.
//!
//! **What bounds staleness.** The last line above. When a client has the reply of a NOOP that it sent at moment t,
//! it has every push about writes before t: they left before the reply, in the same stream. So a client that serves
//! for a lease after t, and no longer, serves nothing that was overwritten more than a lease ago, however long bytes
//! lay in sockets or threads were kept from running. Heartbeats pushed by the server, the first design, do not give
//! that: one that is read late says nothing of how late it is, and of what lies behind it in the stream. Between
//! renewals pushes keep values much fresher than the lease: a push leaves at the end of the turn that wrote, some
//! microseconds behind the writer's own reply.
//!
//! A DELETE is told even if there was nothing to delete: what was evicted here may be held there, and who deletes
//! wants it gone from both. Eviction and expiry are not told: the value is still the last one written, and near
//! caches are given the time it has left.
//!
//! A subscriber that does not read has its list swell to "everything" and its output to the connection's bound; then
//! it is dropped. Its near cache hears nothing more, its lease ends, and it starts anew.

use std::ops::DerefMut;

use crate::base::hash::{HashSeed, KeyHash};
use crate::base::id::{ConnectionId, ShardId};
use crate::base::limits;
use crate::base::prng::mix;
use crate::engine::core::Core;
use crate::engine::session::Session;
use crate::net::Network;
use crate::wire::native::{self, PUSH_EVERYTHING, Subscribed};
use crate::wire::{Command, Reply, Status};

/// What the near caches of one shard have read.
pub struct Interest {
    /// The subscribers that have read from each bucket; empty while there are none.
    masks: Vec<u64>,
    /// By the number of their bit.
    subscribers: Vec<Option<Subscriber>>,
    subscriber_count: usize,
    /// Those with something to be pushed.
    news: u64,
    bucket_count: u32,
    subscriber_count_max: usize,
    /// Tokens are numbers drawn from here.
    seed: u64,
    drawn: u64,
}

struct Subscriber {
    connection: ConnectionId,
    token: u64,
    /// Of the last push.
    sequence: u32,
    buckets: Vec<u32>,
    /// In place of `buckets`.
    everything: bool,
}

impl Interest {
    /// Nobody's interest, for a shard whose connections may hold `connection_bytes`.
    pub fn new(seed: HashSeed, shard: ShardId, connection_bytes: u64) -> Interest {
        let masks = (connection_bytes / limits::NEAR_MASK_SHARE / size_of::<u64>() as u64).max(1);
        let lists = connection_bytes / limits::NEAR_LIST_SHARE / LIST_BYTES as u64;
        Interest {
            masks: Vec::new(),
            subscribers: Vec::new(),
            subscriber_count: 0,
            news: 0,
            bucket_count: (1 << masks.ilog2()).min(limits::NEAR_BUCKETS_MAX as u64) as u32,
            subscriber_count_max: (lists as usize).min(limits::NEAR_SUBSCRIBERS_MAX),
            seed: mix(seed.0 ^ u64::from(shard.0)),
            drawn: 0,
        }
    }

    /// Notes that the subscriber with this token holds what is read of `hash`. Answers `false` if there is none.
    #[inline]
    pub fn note(&mut self, token: u64, hash: KeyHash) -> bool {
        let bit = token & TOKEN_BIT_MASK;
        let known = self.subscribers.get(bit as usize).and_then(Option::as_ref).is_some_and(|it| it.token == token);
        if known {
            let bucket = hash.near_bucket(self.bucket_count);
            self.masks[bucket as usize] |= 1 << bit;
        }
        known
    }

    /// A key of `hash` is no longer what it was.
    #[inline]
    pub fn changed(&mut self, hash: KeyHash) {
        if self.masks.is_empty() {
            return;
        }
        let bucket = hash.near_bucket(self.bucket_count);
        if self.masks[bucket as usize] != 0 {
            self.gather(bucket);
        }
    }

    /// No key is what it was.
    pub fn all_changed(&mut self) {
        if self.masks.is_empty() {
            return;
        }
        self.masks.fill(0);
        for (bit, subscriber) in self.subscribers.iter_mut().enumerate() {
            let Some(subscriber) = subscriber else { continue };
            subscriber.everything = true;
            subscriber.buckets.clear();
            self.news |= 1 << bit;
        }
    }

    /// Whether there is something to be pushed.
    #[inline]
    pub fn has_news(&self) -> bool {
        self.news != 0
    }

    /// Recounts everything.
    #[cfg(test)]
    fn check(&self) {
        let mut present = 0u64;
        for (bit, subscriber) in self.subscribers.iter().enumerate() {
            let Some(subscriber) = subscriber else { continue };
            present |= 1 << bit;
            assert!(subscriber.token != 0 && subscriber.token & TOKEN_BIT_MASK == bit as u64);
            assert!(subscriber.buckets.len() <= limits::NEAR_BUCKETS_PER_PUSH);
            assert!(!subscriber.everything || subscriber.buckets.is_empty());
            let has_news = subscriber.everything || !subscriber.buckets.is_empty();
            assert_eq!(has_news, self.news & 1 << bit != 0, "subscriber {bit}");
        }
        assert_eq!(present.count_ones() as usize, self.subscriber_count);
        assert_eq!(self.masks.len(), if present == 0 { 0 } else { self.bucket_count as usize });
        assert!(self.news & !present == 0 && self.masks.iter().all(|mask| mask & !present == 0));
    }

    /// The token of a new subscriber; `None` if there are too many.
    fn add(&mut self, connection: ConnectionId) -> Option<u64> {
        if self.subscriber_count == self.subscriber_count_max {
            return None;
        }
        let bit = self.subscribers.iter().position(Option::is_none).unwrap_or(self.subscribers.len());
        // No two of a run are alike. They name, they protect nothing: whoever guesses one earns another a few
        // pushes, which it could have done by writing.
        let token = loop {
            self.drawn += 1;
            let token = mix(self.seed ^ self.drawn) & !TOKEN_BIT_MASK;
            if token != 0 {
                break token | bit as u64;
            }
        };
        let subscriber = Subscriber { connection, token, sequence: 0, buckets: Vec::new(), everything: false };
        if bit == self.subscribers.len() {
            self.subscribers.push(None);
        }
        self.subscribers[bit] = Some(subscriber);
        self.subscriber_count += 1;
        if self.masks.is_empty() {
            self.masks = vec![0; self.bucket_count as usize];
        }
        Some(token)
    }

    /// Forgets the subscriber that `connection` is.
    fn remove(&mut self, connection: ConnectionId) {
        let Some(bit) = self.bit_of(connection) else { return };
        self.subscribers[bit] = None;
        self.subscriber_count -= 1;
        self.news &= !(1 << bit);
        if self.subscriber_count == 0 {
            self.masks = Vec::new();
        } else {
            self.masks.iter_mut().for_each(|mask| *mask &= !(1 << bit));
        }
    }

    #[cold]
    fn gather(&mut self, bucket: u32) {
        let mut mask = std::mem::take(&mut self.masks[bucket as usize]);
        self.news |= mask;
        while mask != 0 {
            let bit = mask.trailing_zeros() as usize;
            mask &= mask - 1;
            let Some(subscriber) = &mut self.subscribers[bit] else { unreachable!("a bit is removed with its owner") };
            if subscriber.everything {
                continue;
            }
            if subscriber.buckets.len() < limits::NEAR_BUCKETS_PER_PUSH {
                subscriber.buckets.push(bucket);
            } else {
                subscriber.buckets.clear();
                subscriber.everything = true;
            }
        }
    }

    fn bit_of(&self, connection: ConnectionId) -> Option<usize> {
        self.subscribers.iter().position(|it| it.as_ref().is_some_and(|it| it.connection == connection))
    }

    /// Writes what the subscriber that `connection` is must hear. Answers how many buckets that was.
    fn write_push(&mut self, connection: ConnectionId, out: &mut Vec<u8>) -> usize {
        let Some(bit) = self.bit_of(connection) else { return 0 };
        let Some(subscriber) = self.subscribers[bit].as_mut().filter(|_| self.news & 1 << bit != 0) else { return 0 };
        self.news &= !(1 << bit);
        if std::mem::take(&mut subscriber.everything) {
            subscriber.buckets.push(PUSH_EVERYTHING);
        }
        subscriber.sequence = subscriber.sequence.wrapping_add(1);
        native::encode_push(subscriber.sequence, &subscriber.buckets, out);
        let count = subscriber.buckets.len();
        subscriber.buckets.clear();
        count
    }

    /// What masks and lists may hold while there are subscribers.
    fn bytes_max(&self) -> usize {
        self.bucket_count as usize * size_of::<u64>() + self.subscriber_count_max * LIST_BYTES
    }
}

impl<M: DerefMut<Target = [u8]>> Core<M> {
    /// Answers a SUBSCRIBE. Whoever has subscribed already is told the same again.
    pub(super) fn subscribe(&mut self, id: ConnectionId, session: &mut Session, request_id: u32, out: &mut Vec<u8>) {
        let known = self.keys.interest.bit_of(id).and_then(|bit| self.keys.interest.subscribers[bit].as_ref());
        let token = match known.map(|subscriber| subscriber.token) {
            None => {
                let first = self.keys.interest.subscriber_count == 0;
                let token = self.keys.interest.add(id);
                if first && token.is_some() {
                    self.buffer_bytes_max -= self.keys.interest.bytes_max() / 2;
                }
                token
            }
            known => known,
        };
        let subscribed =
            Subscribed { bucket_count: self.keys.interest.bucket_count, lease_ms: limits::NEAR_LEASE_MS as u32 }
                .encode();
        let text;
        let reply = match token {
            Some(number) => {
                session.subscribed = true;
                Reply { status: Status::Ok, value: &subscribed, number }
            }
            None => {
                self.counters().refused_busy.add(1);
                text = format!("this shard keeps {} near caches and no more", self.keys.interest.subscriber_count_max);
                Reply { status: Status::Busy, value: text.as_bytes(), number: 0 }
            }
        };
        let opcode = native::opcode_of(&Command::Subscribe);
        session.reply(out, |to| native::encode_reply(request_id, opcode, &reply, to));
        self.counters().near_subscribers.set(self.keys.interest.subscriber_count as u64);
    }

    /// Answers the NOOP of a subscriber, behind all that it must have heard by then.
    pub(super) fn renew(&mut self, session: &mut Session, request_id: u32, out: &mut Vec<u8>) {
        session.unsent += self.push(session.id, out);
        let opcode = native::opcode_of(&Command::Noop);
        session.reply(out, |to| native::encode_reply(request_id, opcode, &Reply::status(Status::Ok), to));
    }

    /// Forgets a connection's subscription, if it has one.
    pub(super) fn unsubscribe(&mut self, session: &Session) {
        if !session.subscribed || self.keys.interest.bit_of(session.id).is_none() {
            return;
        }
        self.keys.interest.remove(session.id);
        if self.keys.interest.subscriber_count == 0 {
            self.buffer_bytes_max += self.keys.interest.bytes_max() / 2;
        }
        self.counters().near_subscribers.set(self.keys.interest.subscriber_count as u64);
    }

    /// Writes what a subscriber must hear to its output, past the replies that others owe it. Answers how many
    /// bytes that was.
    fn push(&mut self, id: ConnectionId, out: &mut Vec<u8>) -> usize {
        let before = out.len();
        let buckets = self.keys.interest.write_push(id, out);
        if buckets > 0 {
            self.counters().near_pushes.add(1);
            self.counters().near_invalidations.add(buckets as u64);
        }
        out.len() - before
    }
}

/// Pushes what this turn's writes have changed. Answers whether anything was given to the network.
#[cold]
pub fn push_news<N: Network, M: DerefMut<Target = [u8]>>(net: &mut N, core: &mut Core<M>) -> bool {
    let (mut news, mut worked) = (core.keys.interest.news, false);
    while news != 0 {
        let bit = news.trailing_zeros() as usize;
        news &= news - 1;
        let Some(id) = core.keys.interest.subscribers[bit].as_ref().map(|subscriber| subscriber.connection) else {
            continue;
        };
        // With the output memory full the list waits where it is, bounded; so does the lease.
        if core.output_bytes >= core.buffer_bytes_max {
            break;
        }
        let bound = core.output_bytes_high;
        if core.session_mut(id).is_some_and(|session| session.output_bytes() >= bound) {
            drop_subscriber(net, core, id);
            core.counters().near_dropped.add(1);
            worked = true;
        } else if let Some(out) = net.output(id) {
            let written = core.push(id, out);
            core.output_bytes += written;
            if let Some(session) = core.session_mut(id) {
                session.unsent += written;
            }
            worked = true;
        }
    }
    worked
}

/// Closes all subscribers: the shard is about to leave, and their near caches had better know at once.
pub fn close_subscribers<N: Network, M: DerefMut<Target = [u8]>>(net: &mut N, core: &mut Core<M>) {
    let connections: Vec<_> = core.keys.interest.subscribers.iter().flatten().map(|it| it.connection).collect();
    connections.into_iter().for_each(|id| drop_subscriber(net, core, id));
}

/// Ends a subscription and its connection, without serving it any more: a renewal must not be answered.
fn drop_subscriber<N: Network, M: DerefMut<Target = [u8]>>(net: &mut N, core: &mut Core<M>, id: ConnectionId) {
    let Some(mut session) = core.session(id) else { return };
    core.unsubscribe(&session);
    session.closing = true;
    core.sessions[id.slot as usize] = Some(session);
    net.close(id);
}

/// A token's low bits say whose bit it is.
const TOKEN_BIT_MASK: u64 = limits::NEAR_SUBSCRIBERS_MAX as u64 - 1;
/// What waits to be pushed to one subscriber, at most.
const LIST_BYTES: usize = limits::NEAR_BUCKETS_PER_PUSH * size_of::<u32>();

const _: () = assert!(limits::NEAR_SUBSCRIBERS_MAX.is_power_of_two());

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::prng::Prng;

    const MEBIBYTE: u64 = 1 << 20;

    fn connection(slot: u32) -> ConnectionId {
        ConnectionId { slot, generation: 1 }
    }

    fn interest() -> Interest {
        Interest::new(HashSeed(7), ShardId(0), 64 * MEBIBYTE)
    }

    /// What a push to the connection says, if there is one: its number and its buckets.
    fn pushed(interest: &mut Interest, slot: u32) -> Option<(u32, Vec<u32>)> {
        let mut out = Vec::new();
        interest.write_push(connection(slot), &mut out);
        let (frame, _) = native::decode_reply(&out).unwrap()?;
        Some((frame.id, native::pushed_buckets(frame.reply.value).collect()))
    }

    fn hash(number: u64) -> KeyHash {
        HashSeed(7).hash(&number.to_le_bytes())
    }

    #[test]
    fn a_write_is_told_once_to_those_who_have_read_and_to_nobody_else() {
        let mut interest = interest();
        let reader = interest.add(connection(1)).unwrap();
        let _other = interest.add(connection(2)).unwrap();
        assert!(interest.note(reader, hash(5)));
        interest.changed(hash(6));
        assert!(!interest.has_news());
        interest.changed(hash(5));
        interest.changed(hash(5));
        interest.check();
        assert_eq!(pushed(&mut interest, 1), Some((1, vec![hash(5).near_bucket(1 << 16)])));
        assert_eq!((pushed(&mut interest, 1), pushed(&mut interest, 2)), (None, None));
        assert!(interest.note(reader, hash(5)), "and again after the next read");
        interest.changed(hash(5));
        assert_eq!(pushed(&mut interest, 1).map(|push| push.0), Some(2), "pushes are counted");
    }

    #[test]
    fn a_token_that_is_not_of_this_shard_and_this_time_is_not_tracked() {
        let (mut interest, mut other) = (interest(), Interest::new(HashSeed(7), ShardId(1), MEBIBYTE));
        let token = interest.add(connection(1)).unwrap();
        let foreign = other.add(connection(1)).unwrap();
        assert!(!interest.note(foreign, hash(1)) && !interest.note(1 << 40, hash(1)) && interest.note(token, hash(1)));
        interest.remove(connection(1));
        interest.check();
        let next = interest.add(connection(1)).unwrap();
        assert!(next != token && !interest.note(token, hash(1)));
        interest.changed(hash(1));
        assert_eq!(pushed(&mut interest, 1), None, "the bits of who has left went with it");
    }

    #[test]
    fn too_much_to_tell_is_told_as_everything() {
        let mut interest = interest();
        let token = interest.add(connection(1)).unwrap();
        for number in 0..4 * limits::NEAR_BUCKETS_PER_PUSH as u64 {
            interest.note(token, hash(number));
            interest.changed(hash(number));
        }
        interest.check();
        assert_eq!(pushed(&mut interest, 1), Some((1, vec![PUSH_EVERYTHING])));
        interest.note(token, hash(1));
        interest.all_changed();
        interest.check();
        assert_eq!(pushed(&mut interest, 1), Some((2, vec![PUSH_EVERYTHING])));
        interest.changed(hash(1));
        assert_eq!(pushed(&mut interest, 1), None, "a flush forgets the interest");
    }

    #[test]
    fn the_number_of_subscribers_and_their_memory_are_bounded() {
        let mut interest = interest();
        for slot in 0..limits::NEAR_SUBSCRIBERS_MAX as u32 {
            assert!(interest.add(connection(slot)).is_some());
        }
        assert_eq!(interest.add(connection(99)), None);
        interest.remove(connection(17));
        assert!(interest.add(connection(99)).is_some());
        interest.check();
        let connection_bytes = limits::CONNECTION_MEMORY_BYTES_MIN;
        let small = Interest::new(HashSeed(7), ShardId(0), connection_bytes);
        assert!(small.bytes_max() as u64 <= connection_bytes * 3 / 8 && small.subscriber_count_max > 8);
    }

    /// Whoever has read a value and has not been told since holds what was written last.
    #[test]
    fn nobody_is_left_with_what_was_overwritten() {
        let mut prng = Prng::new(11);
        let mut interest = interest();
        let mut tokens: Vec<Option<u64>> = vec![None; 5];
        let mut written = vec![0u64; 300];
        let mut held: Vec<Vec<Option<u64>>> = vec![vec![None; 300]; 5];
        for step in 1..30_000u64 {
            let (who, key) = (prng.below(5) as usize, prng.below(300) as usize);
            match prng.below(10) {
                0..5 => {
                    if let Some(token) = tokens[who] {
                        assert!(interest.note(token, hash(key as u64)));
                        held[who][key] = Some(written[key]);
                    }
                }
                5..8 => {
                    written[key] = step;
                    interest.changed(hash(key as u64));
                }
                8 if prng.below(50) == 0 => {
                    written.fill(step);
                    interest.all_changed();
                }
                8 if prng.below(20) == 0 => {
                    if tokens[who].take().is_some() {
                        interest.remove(connection(who as u32));
                        held[who].fill(None);
                    } else {
                        tokens[who] = interest.add(connection(who as u32));
                    }
                }
                _ => {
                    let (_, buckets) = pushed(&mut interest, who as u32).unwrap_or_default();
                    for (key, value) in held[who].iter_mut().enumerate() {
                        let bucket = hash(key as u64).near_bucket(1 << 16);
                        if buckets.iter().any(|&told| told == bucket || told == PUSH_EVERYTHING) {
                            *value = None;
                        }
                        assert!(value.is_none_or(|value| value == written[key]), "step {step}: {who} holds {key}");
                    }
                }
            }
            if step % 64 == 0 {
                interest.check();
            }
        }
    }
}
