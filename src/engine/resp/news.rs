//! What clients of RESP are told unasked: messages of channels, and which keys their caches must forget.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::DerefMut;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::base::hash::KeyHash;
use crate::base::id::{ConnectionId, ShardId};
use crate::base::limits;
use crate::engine::core::Core;
use crate::engine::post::{Caller, Errand, Letter};
use crate::engine::resp::client::WatchedKey;
use crate::engine::resp::config::{self, EXPIRIES, FULL, shard_of_client};
use crate::engine::resp::parts;
use crate::engine::resp::tasks::part;
use crate::engine::resp::tracking::News;
use crate::wire::resp::{self, encode};

impl<M: DerefMut<Target = [u8]>> Core<M> {
    /// Whether there is anything for [`Core::gather_news`] and what follows it.
    #[inline]
    pub(in crate::engine) fn has_something_to_tell(&self) -> bool {
        !self.pushes.is_empty()
            || !self.to_close.is_empty()
            || !self.answered.is_empty()
            || self.keys.tracking.has_news()
            || (!self.news.is_empty() && self.transaction.is_none())
    }

    /// Connections whose replies came from a transaction.
    pub(in crate::engine) fn take_answered(&mut self) -> Vec<ConnectionId> {
        std::mem::take(&mut self.answered)
    }

    /// Sends what this turn's writes have made of news to where those live who are to hear them.
    pub(in crate::engine) fn gather_news(&mut self) {
        let was_flushed = std::mem::take(&mut self.keys.tracking.was_flushed);
        for (to, news) in self.keys.tracking.take_news() {
            if was_flushed && news == News::Everything && self.clients.contains_key(&to.client) {
                continue; // told below
            }
            let (client, writer) = (to.client.to_string(), to.writer.to_string());
            let frame = match &news {
                News::Everything => part(&[parts::TELL_ALL, client.as_bytes()]),
                News::Keys(keys) => {
                    // What was read is told key by key, as Redis does; what is broadcast, together.
                    let name = if to.prefix.is_some() { parts::TELL_TOGETHER } else { parts::TELL };
                    let mut words: Vec<&[u8]> = vec![name, client.as_bytes(), writer.as_bytes()];
                    words.extend(keys.iter().map(Vec::as_slice));
                    part(&words)
                }
            };
            self.tell_shard(ShardId(shard_of_client(to.client)), frame);
        }
        if was_flushed {
            let tracking = self.clients.values().filter(|client| client.rare.tracking.is_some());
            let tracking: Vec<u64> = tracking.map(|client| client.id).collect();
            tracking.into_iter().for_each(|client| self.tell_client(client, 0, false, None));
        }
        if self.transaction.is_some() {
            return;
        }
        while let Some((shard, frame)) = self.news.front()
            && self.post.has_room(*shard, 0)
            && !frame.is_empty()
            && let Some((shard, frame)) = self.news.pop_front()
        {
            self.news_bytes -= frame.len();
            let letter = Letter {
                errand: Errand::News,
                caller: Caller::default(),
                asked: None,
                connection: ConnectionId::default(),
                sequence: 0,
                hash: KeyHash(0),
                frame: &frame,
            };
            self.post.send(shard, letter);
        }
    }

    /// Sends parts to a shard that answers nothing.
    pub(super) fn tell_shard(&mut self, shard: ShardId, frame: Vec<u8>) {
        if shard == self.id {
            let mut ignored = Vec::new();
            return self.do_parts(&frame, Caller::default(), &mut ignored);
        }
        if usize::from(shard.0) >= self.shared.counters.len() {
            return;
        }
        self.news_bytes += frame.len();
        // One box takes many.
        match self.news.back_mut() {
            Some((last, gathered)) if *last == shard && gathered.len() < NEWS_FRAME_BYTES => {
                gathered.extend_from_slice(&frame);
            }
            _ => self.news.push_back((shard, frame)),
        }
        if self.news_bytes > self.news_bytes_high.max(limits::NEWS_BYTES_MAX) {
            self.shorten_news();
            self.news_bytes_high = 2 * self.news_bytes;
        }
    }

    /// Too much to hold: news of keys become "everything", which is short, once for each client; messages, of which
    /// nobody is promised all, are dropped.
    #[cold]
    fn shorten_news(&mut self) {
        let mut told = BTreeSet::new();
        for (shard, frame) in std::mem::take(&mut self.news) {
            let (mut at, mut kept, mut words) = (0, Vec::new(), Vec::new());
            while at < frame.len() {
                let from = at;
                at += resp::words(&frame[at..], &mut words);
                let short = match *words.as_slice() {
                    [parts::TELL | parts::TELL_TOGETHER | parts::TELL_ALL, client, ..] => {
                        part(&[parts::TELL_ALL, client])
                    }
                    [parts::DELIVER | parts::DELIVER_ALL, receiver, client, ..] => {
                        part(&[parts::DELIVER_ALL, receiver, client])
                    }
                    [b"publish", ..] => continue,
                    _ => {
                        kept.extend_from_slice(&frame[from..at]);
                        continue;
                    }
                };
                if told.insert((shard, short.clone())) {
                    kept.extend_from_slice(&short);
                }
            }
            if !kept.is_empty() {
                self.news.push_back((shard, kept));
            }
        }
        self.news_bytes = self.news.iter().map(|(_, frame)| frame.len()).sum();
    }

    /// Once a millisecond: keys whose time has come and that clients hold, and what CONFIG SET has changed.
    pub(in crate::engine) fn look_around(&mut self) {
        self.heed_config();
        // Not at once: a bound may be taken back, or be meant to refuse writes and no more.
        let is_full = self.attention & FULL != 0;
        self.full_since = is_full.then(|| self.full_since.unwrap_or(self.now));
        let has_stayed = self.full_since.is_some_and(|since| since.ms_until(self.now) > EVICT_AFTER_MS);
        if has_stayed && self.shared.resp.evicts() {
            self.evict_all();
        }
        self.tell_expired();
    }

    /// Takes over what CONFIG SET has said about clients' caches.
    pub(super) fn heed_config(&mut self) {
        let wanted = self.shared.resp.tracked_keys_max.load(Ordering::Relaxed);
        if wanted != 0 && wanted != self.tracked_keys_wanted {
            self.tracked_keys_wanted = wanted;
            let share = wanted.div_ceil(self.shared.counters.len());
            self.keys.tracking.set_keys_max(share.min(self.tracked_keys_max));
        }
    }

    /// Somebody has set a bound that holds nothing, and said that keys may go: they do, some in each millisecond.
    #[cold]
    fn evict_all(&mut self) {
        for _ in 0..EVICTED_PER_MS {
            let Some(key) = self.keys.store.random(self.now).map(|item| item.key.to_vec()) else { return };
            let hash = self.shared.seed.hash(&key);
            self.keys.store.delete(hash, &key, self.now);
            if let Some(l0) = &mut self.keys.l0 {
                l0.removed(hash, &key);
            }
            self.keys.evicted(hash, &key);
            self.publish_event(config::EVICTED, "evicted", &key);
        }
    }

    fn tell_expired(&mut self) {
        while let Some((hash, key)) = self.keys.tracking.next_expired(self.now) {
            match self.keys.store.peek(hash, &key, self.now).map(|item| item.expires) {
                None => {
                    self.keys.tracking.forget_expiry(hash);
                    self.keys.tracking.changed(hash, &key, 0);
                    if self.attention & EXPIRIES != 0 {
                        self.publish_event(config::EXPIRED, "expired", &key);
                    }
                }
                Some(None) => self.keys.tracking.forget_expiry(hash),
                // It has another expiry by now, which was noted too.
                Some(Some(_)) => {}
            }
        }
    }

    /// Tells a client of this shard, or whom it named in its place, which keys `writer` has changed; all if none are
    /// named.
    pub(super) fn tell_client(&mut self, id: u64, writer: u64, is_broadcast: bool, keys: Option<&[&[u8]]>) {
        let Some(mode) = self.clients.get(&id).and_then(|client| client.rare.tracking.as_ref()) else { return };
        // Whoever tracks another way by now wants to hear no more of what it read before.
        let is_stale = keys.is_some() && mode.is_broadcast != is_broadcast;
        if is_stale || (mode.no_loop && writer == id) {
            return;
        }
        let receiver = mode.receiver;
        let shard = ShardId(shard_of_client(receiver));
        if shard != self.id {
            let (number, id) = (receiver.to_string(), id.to_string());
            let name = if keys.is_some() { parts::DELIVER } else { parts::DELIVER_ALL };
            let mut words: Vec<&[u8]> = vec![name, number.as_bytes(), id.as_bytes()];
            words.extend(keys.unwrap_or_default());
            self.tell_shard(shard, part(&words));
        } else if !self.deliver_to(receiver, keys) {
            self.receiver_gone(id, receiver);
        }
    }

    /// Gives news to a client of this shard. `false` if there is none of that number.
    pub(super) fn deliver_to(&mut self, receiver: u64, keys: Option<&[&[u8]]>) -> bool {
        let Some(receiver) = self.clients.get(&receiver) else { return false };
        let mut out = Vec::new();
        if receiver.is_resp3 {
            encode::push(2, true, &mut out);
            encode::bulk(b"invalidate", &mut out);
        } else if receiver.rare.channels.contains(INVALIDATIONS) {
            encode::array(3, &mut out);
            encode::bulk(b"message", &mut out);
            encode::bulk(INVALIDATIONS, &mut out);
        } else {
            return true;
        }
        match keys {
            Some(keys) => {
                encode::array(keys.len(), &mut out);
                keys.iter().for_each(|key| encode::bulk(key, &mut out));
            }
            None => encode::null(receiver.is_resp3, &mut out),
        }
        self.pushes.push((receiver.connection, out.into()));
        true
    }

    /// Whom a client of this shard named in its place is gone.
    pub(super) fn receiver_gone(&mut self, id: u64, receiver: u64) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        let Some(mode) = client.rare.tracking.as_mut().filter(|mode| mode.receiver == receiver) else { return };
        mode.is_broken = true;
        if client.is_resp3 {
            let mut out = Vec::new();
            encode::push(2, true, &mut out);
            encode::bulk(b"tracking-redir-broken", &mut out);
            encode::integer(receiver as i64, &mut out);
            self.pushes.push((client.connection, out.into()));
        }
    }

    /// Gives a message to those of this shard who listen. Answers how many.
    pub(super) fn publish_here(&mut self, channel: &[u8], message: &[u8]) -> usize {
        let listeners = self.pubsub.listeners(channel);
        // Listeners who hear the same bytes share them.
        let mut written: BTreeMap<Form<'_>, Arc<[u8]>> = BTreeMap::new();
        let mut fresh = 0;
        for listener in &listeners {
            let Some(client) = self.clients.get(&listener.client) else { continue };
            if self.push_bytes + fresh > self.buffer_bytes_max || self.pushes.len() > limits::PUSHES_MAX {
                // More than this turn has room for: who is left does not hear it, and is told so by losing the
                // connection.
                self.to_close.push(client.connection);
                continue;
            }
            let form = (client.is_resp3, listener.pattern.as_deref());
            let bytes = written.entry(form).or_insert_with(|| {
                let bytes = message_bytes(form.0, form.1, channel, message);
                fresh += bytes.len();
                bytes
            });
            self.pushes.push((client.connection, bytes.clone()));
        }
        self.push_bytes += fresh;
        self.counters().published.add(listeners.len() as u64);
        listeners.len()
    }

    /// Ends watches.
    pub(super) fn unwatch(&mut self, keys: Vec<WatchedKey>) {
        let spread = self.spread();
        for WatchedKey { key, hash, .. } in keys {
            let (_, shard) = spread.of(&key);
            if shard == self.id {
                self.keys.watches.unwatch(hash);
            } else {
                self.tell_shard(shard, part(&[parts::UNWATCH, &key]));
            }
        }
    }
}

/// What makes the bytes of a message: the version of the protocol, and the pattern by which it is heard.
type Form<'a> = (bool, Option<&'a [u8]>);

fn message_bytes(is_resp3: bool, pattern: Option<&[u8]>, channel: &[u8], message: &[u8]) -> Arc<[u8]> {
    let mut out = Vec::new();
    match pattern {
        Some(pattern) => {
            encode::push(4, is_resp3, &mut out);
            encode::bulk(b"pmessage", &mut out);
            encode::bulk(pattern, &mut out);
        }
        None => {
            encode::push(3, is_resp3, &mut out);
            encode::bulk(b"message", &mut out);
        }
    }
    encode::bulk(channel, &mut out);
    encode::bulk(message, &mut out);
    out.into()
}

/// News for one shard that share a box.
const NEWS_FRAME_BYTES: usize = 16 << 10;
/// How long memory is full by what CONFIG SET said before keys go for it.
const EVICT_AFTER_MS: u64 = 500;
/// Keys that go in a millisecond where none may stay.
const EVICTED_PER_MS: usize = 64;
/// The channel on which clients of RESP2 hear what their caches must forget.
const INVALIDATIONS: &[u8] = b"__redis__:invalidate";
