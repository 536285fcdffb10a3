//! What clients of RESP are told unasked: messages of channels, and which keys their caches must forget.

use std::ops::DerefMut;
use std::sync::Arc;

use crate::base::hash::KeyHash;
use crate::base::id::{ConnectionId, ShardId};
use crate::base::limits;
use crate::engine::core::Core;
use crate::engine::post::{Caller, Errand, Letter};
use crate::engine::resp::client::WatchedKey;
use crate::engine::resp::config::shard_of_client;
use crate::engine::resp::parts;
use crate::engine::resp::tasks::part;
use crate::engine::resp::tracking::News;
use crate::wire::resp::encode;

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
        for ((client, _), news) in self.keys.tracking.take_news() {
            let number = client.to_string();
            let frame = match &news {
                News::Everything => part(&[parts::TELL_ALL, number.as_bytes()]),
                News::Keys(keys) => {
                    let mut words: Vec<&[u8]> = vec![parts::TELL, number.as_bytes()];
                    words.extend(keys.iter().map(Vec::as_slice));
                    part(&words)
                }
            };
            self.tell_shard(ShardId(shard_of_client(client)), frame);
        }
        if self.transaction.is_some() {
            return;
        }
        while let Some((shard, frame)) = self.news.front()
            && self.post.has_room(*shard, frame.len())
            && let Some((shard, frame)) = self.news.pop_front()
        {
            self.news_bytes -= frame.len();
            let letter = Letter {
                errand: Errand::News,
                caller: Caller::default(),
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
        if self.news_bytes + frame.len() > limits::NEWS_BYTES_MAX {
            // Too much to hold: what is news of keys becomes "everything", which is short, once for each client.
            self.shorten_news();
        }
        self.news_bytes += frame.len();
        self.news.push_back((shard, frame));
    }

    #[cold]
    fn shorten_news(&mut self) {
        let mut told = std::collections::BTreeSet::new();
        let mut words = Vec::new();
        for (shard, frame) in std::mem::take(&mut self.news) {
            crate::wire::resp::words(&frame, &mut words);
            if let [parts::TELL, client, ..] = *words.as_slice() {
                if told.insert(client.to_vec()) {
                    self.news.push_back((shard, part(&[parts::TELL_ALL, client])));
                }
            } else {
                self.news.push_back((shard, frame.clone()));
            }
            words = Vec::new();
        }
        self.news_bytes = self.news.iter().map(|(_, frame)| frame.len()).sum();
    }

    /// Looks at keys whose time has come and that clients hold: they must hear of it.
    pub(in crate::engine) fn tell_expired(&mut self) {
        while let Some((hash, key)) = self.keys.tracking.next_expired(self.now) {
            if self.keys.store.peek(hash, &key, self.now).is_none() {
                self.keys.tracking.changed(hash, &key, 0);
            }
        }
    }

    /// Tells a client of this shard which keys have changed, all if none are named.
    pub(super) fn tell_client(&mut self, id: u64, keys: Option<&[&[u8]]>) {
        let Some(client) = self.clients.get(&id) else { return };
        let mut out = Vec::new();
        if client.is_resp3 {
            encode::push(2, true, &mut out);
            encode::bulk(b"invalidate", &mut out);
        } else if client.rare.channels.contains(INVALIDATIONS) {
            encode::array(3, &mut out);
            encode::bulk(b"message", &mut out);
            encode::bulk(INVALIDATIONS, &mut out);
        } else {
            return;
        }
        match keys {
            Some(keys) => {
                encode::array(keys.len(), &mut out);
                keys.iter().for_each(|key| encode::bulk(key, &mut out));
            }
            None => encode::null(client.is_resp3, &mut out),
        }
        self.pushes.push((client.connection, out.into()));
    }

    /// A client that others named as their receiver is gone.
    pub(super) fn receiver_gone(&mut self, receiver: u64) {
        for client in self.clients.values_mut() {
            let id = client.id;
            if let Some(mode) = &mut client.rare.tracking
                && mode.receiver == receiver
                && receiver != id
                && !mode.is_broken
            {
                mode.is_broken = true;
                if client.is_resp3 {
                    let mut out = Vec::new();
                    encode::push(2, true, &mut out);
                    encode::bulk(b"tracking-redir-broken", &mut out);
                    encode::integer(receiver as i64, &mut out);
                    self.pushes.push((client.connection, out.into()));
                }
            }
        }
    }

    /// Gives a message to those of this shard who listen. Answers how many.
    pub(super) fn publish_here(&mut self, channel: &[u8], message: &[u8]) -> usize {
        let listeners = self.pubsub.listeners(channel);
        // Listeners who hear the same bytes share them.
        let mut written: Vec<(bool, Option<&[u8]>, Arc<[u8]>)> = Vec::new();
        for listener in &listeners {
            let Some(client) = self.clients.get(&listener.client) else { continue };
            let (is_resp3, pattern) = (client.is_resp3, listener.pattern.as_deref());
            let known = written.iter().find(|(resp3, by, _)| *resp3 == is_resp3 && *by == pattern);
            let bytes = match known {
                Some((.., bytes)) => bytes.clone(),
                None => {
                    let bytes = message_bytes(is_resp3, pattern, channel, message);
                    written.push((is_resp3, pattern, bytes.clone()));
                    bytes
                }
            };
            self.pushes.push((client.connection, bytes));
        }
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

/// The channel on which clients of RESP2 hear what their caches must forget.
const INVALIDATIONS: &[u8] = b"__redis__:invalidate";
