//! What a shard tells other sites of its changes, and how theirs are taken in.
//!
//!   SET -> store -> Keys::changed -> note ----.            per millisecond: a chunk
//!                                             v                      |
//!                                       part of `replica` ---------- ring ---> replication thread
//!                                             ^                                      |
//!   store, L0, near caches, WATCH, tracking <-- some records a turn <--- ring -------'
//!
//! The state stands beside the store and no read looks at it: a shard without other sites pays a branch with each write.
//! The rings are the shards' own kind, one writer and one reader each. The shard waits for neither: a chunk that finds
//! its ring full is kept, what does not fit beside it is left to repair, and what arrives is applied some records a turn,
//! behind the requests of that turn.
//!
//! What arrives is applied as a client's write would be, so everybody who has read the key hears of it; but the part is
//! out of its place meanwhile, so it is not told to other sites as a change of ours.

use std::ops::DerefMut;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::base::hash::{HashSeed, KeyHash};
use crate::base::limits;
use crate::base::time::Instant;
use crate::cache::{Item, Put};
use crate::engine::core::Core;
use crate::engine::keys::Keys;
use crate::engine::mailbox::{Consumer, Producer, mailbox};
use crate::net::Waker;
use crate::replica::port::{FromShard, Ports, ToShard};
use crate::replica::{Config, Count, Entries, Found, KeyId, Record, Replica, counter};

/// A shard's end.
pub struct Replication {
    part: Replica,
    to: Producer<FromShard>,
    from: Consumer<ToShard>,
    /// What found the ring full.
    kept: Option<FromShard>,
    /// Records that are being applied, and how far.
    applying: Option<(Vec<u8>, usize)>,
    /// Bytes of records applied so far, for the other end.
    applied_bytes: Arc<AtomicU64>,
    housekept_at: Instant,
    /// How far the host's clock is ahead of the shard's, which was set by it at the start and does not jump since.
    clock_ahead_ms: i64,
    /// Steps of questions that this millisecond still has room for.
    steps_left: u32,
}

/// The other end: all shards of a server, for the thread that carries their streams.
pub struct ShardPorts(Vec<Port>);

struct Port {
    to: Producer<ToShard>,
    from: Consumer<FromShard>,
    waker: Option<Waker>,
    sent_bytes: u64,
    applied_bytes: Arc<AtomicU64>,
}

/// What a number was before it was counted, where that matters.
#[derive(Clone, Copy, Default)]
pub struct Counting {
    before: Option<i128>,
}

/// Both ends for `count` shards. Each shard has its share of the versions that the node may remember.
pub fn connect(config: &Config, count: usize) -> (Vec<Box<Replication>>, ShardPorts) {
    let (mut shards, mut ports) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let (to_thread, from_shard) = mailbox(limits::REPLICATION_RING_SLOTS);
        let (to_shard, from_thread) = mailbox(limits::REPLICATION_RING_SLOTS);
        let applied_bytes = Arc::new(AtomicU64::new(0));
        shards.push(Box::new(Replication {
            part: Replica::new(config.clone()),
            to: to_thread,
            from: from_thread,
            kept: None,
            applying: None,
            applied_bytes: applied_bytes.clone(),
            housekept_at: Instant::default(),
            clock_ahead_ms: 0,
            steps_left: limits::REPLICATION_STEPS_PER_MS,
        }));
        ports.push(Port { to: to_shard, from: from_shard, waker: None, sent_bytes: 0, applied_bytes });
    }
    (shards, ShardPorts(ports))
}

/// Versions that a shard with an arena of so many bytes remembers.
pub fn versions_max(arena_bytes: u64) -> usize {
    let share = arena_bytes / limits::REPLICATION_MEMORY_SHARE / VERSION_BYTES;
    (share as usize).clamp(limits::REPLICATION_VERSIONS_MIN, limits::REPLICATION_VERSIONS_MAX)
}

impl ShardPorts {
    /// Who wakes each shard.
    pub fn set_wakers(&mut self, waker: impl Fn(u16) -> Waker) {
        self.0.iter_mut().zip(0..).for_each(|(port, shard)| port.waker = Some(waker(shard)));
    }
}

impl Ports for ShardPorts {
    fn shard_count(&self) -> u16 {
        self.0.len() as u16
    }

    fn receive(&mut self, shard: u16) -> Option<FromShard> {
        self.0.get_mut(shard as usize)?.from.receive()
    }

    fn send(&mut self, shard: u16, message: ToShard) -> Result<(), ToShard> {
        let Some(port) = self.0.get_mut(shard as usize) else { return Err(message) };
        let bytes = if let ToShard::Apply(records) = &message { records.len() as u64 } else { 0 };
        let waiting = port.sent_bytes - port.applied_bytes.load(Ordering::Relaxed).min(port.sent_bytes);
        if bytes > 0 && waiting > limits::REPLICATION_APPLY_BYTES_MAX as u64 {
            return Err(message);
        }
        port.to.send(message)?;
        port.sent_bytes += bytes;
        if let Some(waker) = &port.waker {
            waker.wake();
        }
        Ok(())
    }
}

impl Counting {
    pub(super) fn count(self, is_initial: bool) -> Count {
        Count { before: self.before, is_initial }
    }
}

impl Replication {
    /// Whether the shard has heard what the cluster has agreed on.
    pub fn knows_rules(&self) -> bool {
        self.part.knows_rules()
    }

    /// Whether any namespace is strong, as far as is known.
    #[inline]
    pub fn has_strong(&self) -> bool {
        self.part.has_strong()
    }

    /// Whether a key's is.
    pub fn is_strong(&self, key: &[u8]) -> bool {
        self.part.is_strong(key)
    }

    /// Whether something has arrived, or is being applied.
    #[inline]
    pub fn has_mail(&self) -> bool {
        self.applying.is_some() || self.from.has_message()
    }

    /// Whether there is something to do that should not wait until the shard is woken.
    pub fn has_work(&self) -> bool {
        self.has_mail() || (self.kept.is_none() && self.part.has_waiting())
    }

    /// Does what there is to do, within a turn's bounds. Answers whether there was anything.
    fn turn(&mut self, entries: &mut impl Entries, now: Instant, unix_ms: i64) -> bool {
        self.set_time(unix_ms);
        let is_tick = now > self.housekept_at;
        if is_tick {
            self.steps_left = limits::REPLICATION_STEPS_PER_MS;
        }
        let mut worked = self.take_in(entries, unix_ms);
        if is_tick {
            self.housekept_at = now;
            self.part.housekeep(entries);
        }
        if is_tick || self.part.has_much() {
            worked |= self.hand_over();
        }
        worked
    }

    fn set_time(&mut self, unix_ms: i64) {
        self.part.set_time(unix_ms.saturating_add(self.clock_ahead_ms).max(0) as u64);
    }

    fn take_in(&mut self, entries: &mut impl Entries, unix_ms: i64) -> bool {
        let mut worked = false;
        let mut records_left = limits::REPLICATION_RECORDS_PER_TURN;
        loop {
            if let Some((bytes, at)) = &mut self.applying {
                worked = true;
                while *at < bytes.len() && records_left > 0 {
                    let mut left = &bytes[*at..];
                    match Record::decode(&mut left) {
                        Ok(record) => {
                            *at = bytes.len() - left.len();
                            self.part.apply(&record, entries);
                            records_left -= 1;
                        }
                        // The thread has looked through it; what is no record ends it all the same.
                        Err(_) => *at = bytes.len(),
                    }
                }
                if *at < bytes.len() {
                    return worked;
                }
                self.applied_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                self.applying = None;
            }
            if records_left == 0 || self.steps_left == 0 || self.kept.is_some() {
                return worked;
            }
            match self.from.receive() {
                None => return worked,
                Some(ToShard::Apply(bytes)) => self.applying = Some((bytes, 0)),
                Some(ToShard::Rules(rules)) => self.part.set_rules(rules),
                Some(ToShard::Compared) => self.part.has_compared(),
                Some(ToShard::Clock(host_ms)) => {
                    let ahead_ms = i64::try_from(host_ms).unwrap_or(i64::MAX) - unix_ms;
                    // Less is how long the message was under way, or slept over.
                    if (ahead_ms - self.clock_ahead_ms).abs() > CLOCK_JITTER_MS {
                        self.clock_ahead_ms = ahead_ms;
                        self.set_time(unix_ms);
                    }
                }
                Some(ToShard::Ask(number, step)) => {
                    let answer = self.part.answer(step, entries);
                    self.kept = self.to.send(FromShard::Answer(number, answer)).err();
                    self.steps_left -= 1;
                    // One step is a turn's worth.
                    return true;
                }
            }
        }
    }

    fn hand_over(&mut self) -> bool {
        let mut worked = false;
        loop {
            let message = match self.kept.take() {
                Some(kept) => kept,
                None => match self.part.next_chunk() {
                    Some(chunk) => FromShard::Chunk(chunk),
                    None => return worked,
                },
            };
            if let Err(message) = self.to.send(message) {
                self.kept = Some(message);
                return worked;
            }
            worked = true;
        }
    }
}

impl<M: DerefMut<Target = [u8]>> Keys<M> {
    /// Notes a change, and that others are to hear of it.
    #[inline(never)]
    pub(super) fn replicate(&mut self, hash: KeyHash, key: &[u8], count: Option<Count>) {
        let (unix_ms, unix_zero_ms) = (self.unix_ms(), self.unix_zero_ms);
        let Some(replication) = &mut self.replication else { return };
        let found = self.store.peek(hash, key, self.now).map(|item| found(&item, unix_zero_ms));
        replication.set_time(unix_ms);
        let part = &mut replication.part;
        part.changed(part.id(hash.0, key), key, found, count);
    }

    /// Brings a counter back that other sites count as well, if it was evicted here.
    #[inline(never)]
    pub(super) fn recall(&mut self, hash: KeyHash, key: &[u8]) -> Counting {
        if let Some(item) = self.store.peek(hash, key, self.now) {
            return Counting { before: counter::parse(item.value) };
        }
        let unix_ms = self.unix_ms();
        let Some(replication) = &mut self.replication else { return Counting::default() };
        replication.set_time(unix_ms);
        let id = replication.part.id(hash.0, key);
        let Some((text, expires_ms, client_flags)) = replication.part.recall(id) else { return Counting::default() };
        let expires = expires_ms.map(|at| self.moment(i64::try_from(at).unwrap_or(i64::MAX)));
        let put = Put { value: text.as_bytes(), expires, client_flags, ..Put::default() };
        // Some twenty bytes: no store is too small for them.
        let is_stored = self.store.set(hash, key, put, self.now).is_ok();
        Counting { before: counter::parse(text.as_bytes()).filter(|_| is_stored) }
    }
}

impl<M: DerefMut<Target = [u8]>> Core<M> {
    /// This turn's share of replication.
    pub(super) fn replicate(&mut self) -> bool {
        let Some(mut replication) = self.keys.replication.take() else { return false };
        let unix_ms = self.keys.unix_ms();
        // Nobody's client does this.
        self.keys.client = 0;
        let mut lent = Lent { keys: &mut self.keys, seed: self.shared.seed };
        let worked = replication.turn(&mut lent, self.now, unix_ms);
        self.keys.replication = Some(replication);
        worked
    }
}

/// A shard's entries, lent to its part of replication.
struct Lent<'a, M> {
    keys: &'a mut Keys<M>,
    seed: HashSeed,
}

impl<M: DerefMut<Target = [u8]>> Lent<'_, M> {
    fn item(&self, id: KeyId) -> Option<Item<'_>> {
        let (hash, seed) = (KeyHash(id.hash), self.seed);
        self.keys.store.peek_as(hash, |key| KeyId::new(seed, id.hash, key) == id, self.keys.now)
    }
}

impl<M: DerefMut<Target = [u8]>> Entries for Lent<'_, M> {
    fn look(&mut self, id: KeyId, visit: &mut dyn FnMut(&[u8], Found<'_>)) -> bool {
        let unix_zero_ms = self.keys.unix_zero_ms;
        let Some(item) = self.item(id) else { return false };
        visit(item.key, found(&item, unix_zero_ms));
        true
    }

    fn put(&mut self, id: KeyId, key: &[u8], found: Found<'_>) -> bool {
        let (keys, hash) = (&mut *self.keys, KeyHash(id.hash));
        let expires = found.expires_ms.map(|at| keys.moment(i64::try_from(at).unwrap_or(i64::MAX)));
        let Found { value, client_flags, marks, .. } = found;
        let put = Put { value, expires, client_flags, marks, ..Put::default() };
        if keys.store.set(hash, key, put, keys.now).is_err() {
            return false;
        }
        if let Some(l0) = &mut keys.l0 {
            l0.written(hash, key, value, expires);
        }
        keys.changed(hash, key);
        true
    }

    fn remove(&mut self, id: KeyId, key: Option<&[u8]>) {
        let hash = KeyHash(id.hash);
        let stored = self.item(id).map(|item| item.key.to_vec());
        let is_stored = stored.is_some();
        let Some(key) = stored.as_deref().or(key) else {
            // Its entry is gone, and so is its name: near caches go by the hash alone.
            return self.keys.interest.changed(hash);
        };
        let keys = &mut *self.keys;
        keys.store.delete(hash, key, keys.now);
        if let Some(l0) = &mut keys.l0 {
            l0.removed(hash, key);
        }
        match is_stored {
            true => keys.changed(hash, key),
            false => keys.missed(hash, key),
        }
    }

    fn walk(&mut self, cursor: u32, visit: &mut dyn FnMut(KeyId, &[u8])) -> Option<u32> {
        let seed = self.seed;
        self.keys.store.scan(cursor, PURGED_HOMES_PER_MS, self.keys.now, |item| {
            visit(KeyId::new(seed, seed.hash(item.key).0, item.key), item.key);
        })
    }
}

fn found<'a>(item: &Item<'a>, unix_zero_ms: i64) -> Found<'a> {
    let expires_ms = item.expires.map(|at| unix_zero_ms.saturating_add(at.ms as i64).max(0) as u64);
    Found { value: item.value, expires_ms, client_flags: item.client_flags, marks: item.marks }
}

/// What a version takes in its table, of which three quarters are used.
const VERSION_BYTES: u64 = 43;
/// How far the host's clock may be from what it is taken for.
const CLOCK_JITTER_MS: i64 = 50;
/// Index homes looked at for a purge each millisecond: some 450 entries of a full store.
const PURGED_HOMES_PER_MS: usize = 64;

#[cfg(test)]
#[path = "replica_tests.rs"]
mod tests;
