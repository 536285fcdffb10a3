//! What is not one request to one shard: several keys, keys in base64, the server, the connection.

use std::ops::DerefMut;

use crate::base::hash::KeyHash;
use crate::base::id::{ConnectionId, ShardId};
use crate::base::limits;
use crate::base::time::Instant;
use crate::engine::apply::{apply, operation_of_ask};
use crate::engine::batch::Served;
use crate::engine::core::Core;
use crate::engine::memcached::meta;
use crate::engine::memcached::one::TOO_LARGE;
use crate::engine::memcached::shared::NEVER;
use crate::engine::memcached::stats;
use crate::engine::post::{Asked, Caller, Errand, Letter};
use crate::engine::session::{Bound, Session};
use crate::engine::strong::NOT_MEMCACHED;
use crate::observe::Operation;
use crate::wire::memcached::Memcached;
use crate::wire::memcached::text::{self, Server};
use crate::wire::memcached::{Ask, Exptime, Line, Storing, encode, part};
use crate::wire::{Command, Expiry, Request};

/// A retrieval of several keys.
#[derive(Clone, Copy)]
struct Retrieval<'a> {
    keys: &'a [u8],
    exptime: Option<Exptime>,
    with_cas: bool,
}

/// A request about one key that is not served as it is.
struct Kept<'a> {
    /// The key, as it was sent.
    key: &'a [u8],
    ask: Ask<'a>,
    /// The length of the value, if one follows.
    block: Option<usize>,
    is_encoded: bool,
    /// The value and the end of its line, or nothing if they are not waited for.
    value: &'a [u8],
}

impl<M: DerefMut<Target = [u8]>> Core<M> {
    /// Serves a command that is more than a request to one shard.
    pub(in crate::engine) fn serve_memcached(
        &mut self,
        id: ConnectionId,
        session: &mut Session,
        frame: &[u8],
        out: &mut Vec<u8>,
    ) -> Served {
        if self.awaits_rules() {
            return Served::Blocked;
        }
        let end = text::newline(frame).unwrap_or(frame.len());
        match text::line(text::stripped(&frame[..end])) {
            Line::Keys { keys, exptime, with_cas } => {
                self.front_operation = Operation::Get;
                self.retrieve(id, session, Retrieval { keys, exptime, with_cas }, out)
            }
            Line::Key { key, ask, block, is_encoded } => {
                let value = &frame[(end + 1).min(frame.len())..];
                self.front_operation = operation_of_ask(&ask);
                self.serve_kept_back(id, session, Kept { key, ask, block, is_encoded, value }, out)
            }
            Line::Server(server) => self.serve_server(id, session, server, out),
            Line::Barrier | Line::Wrong(..) => unreachable!("the codec serves these"),
        }
    }

    /// Whether one of the keys belongs to a strong namespace.
    fn asks_strong<'a>(&self, keys: impl IntoIterator<Item = &'a [u8]>) -> bool {
        self.keys.replication.as_ref().is_some_and(|replication| replication.has_strong())
            && keys.into_iter().any(|key| self.is_strong(key))
    }

    /// A request about one key that is not served as it is: the key is in base64, or the value is too large or does
    /// not end where it should.
    fn serve_kept_back(
        &mut self,
        id: ConnectionId,
        session: &mut Session,
        kept: Kept<'_>,
        out: &mut Vec<u8>,
    ) -> Served {
        let Kept { key, mut ask, block, is_encoded, value } = kept;
        let mut decoded = [0; limits::MEMCACHED_KEY_BYTES_MAX];
        let key = match is_encoded {
            true => text::encoded_key(key, &mut decoded).map(|length| &decoded[..length]),
            false => Some(key),
        };
        let mut wrong = match key {
            None => Some(text::encoded_key_is_wrong(&ask)),
            Some(_) => None,
        };
        let mut is_too_large = false;
        if let Some(bytes) = block {
            if let Ask::Meta { flags, .. } = ask {
                // What is wrong with its flags comes first.
                wrong = meta::wrong_before_value(flags).or(wrong);
            }
            is_too_large = value.len() != bytes + 2;
            if is_too_large {
                if wrong.is_some() {
                    session.skip = bytes as u64 + 2;
                }
            } else if &value[bytes..] == b"\r\n" {
                ask.set_value(&value[..bytes]);
            } else {
                wrong = wrong.or(Some("CLIENT_ERROR bad data chunk"));
            }
        }
        match (key, wrong) {
            (_, Some(text)) => say(session, text, out),
            (Some(key), None) if self.asks_strong([key]) => say(session, NOT_MEMCACHED, out),
            (Some(key), None) if is_too_large => self.refuse_value(id, session, key, ask, block.unwrap_or(0), out),
            (Some(key), None) => self.serve_key(id, session, key, ask, out, true),
            (None, None) => unreachable!("a key that does not decode is wrong"),
        }
    }

    /// A value that is larger than the server stores: it is passed over, and what it was to replace must not stay.
    fn refuse_value(
        &mut self,
        id: ConnectionId,
        session: &mut Session,
        key: &[u8],
        ask: Ask<'_>,
        bytes: usize,
        out: &mut Vec<u8>,
    ) -> Served {
        if ask.is_meta() || matches!(ask, Ask::Store { how: Storing::Set, .. }) {
            let served = self.serve_key(id, session, key, Ask::Delete { is_quiet: true }, out, false);
            if matches!(served, Served::Blocked) {
                return served;
            }
        }
        self.counters().too_large.add(1);
        session.skip = bytes as u64 + 2;
        if ask.is_quiet() { Served::Done } else { say(session, TOO_LARGE, out) }
    }

    /// One request about a key, here or at its shard. `is_whole` says that it is all that the client asked for.
    fn serve_key(
        &mut self,
        id: ConnectionId,
        session: &mut Session,
        key: &[u8],
        ask: Ask<'_>,
        out: &mut Vec<u8>,
        is_whole: bool,
    ) -> Served {
        let hash = self.shared.seed.hash(key);
        let owner = hash.shard(self.shared.counters.len() as u16);
        if owner == self.id {
            let (keys, counters) = (&mut self.keys, &self.shared.counters[self.id.0 as usize]);
            let request = Request { id: 0, want_version: false, command: Command::Memcached { key, ask } };
            session.reply(out, |to| apply::<Memcached, M>(keys, counters, &request, hash, to));
            return Served::Done;
        }
        let mut frame = std::mem::take(&mut self.forward_scratch);
        frame.clear();
        part::write(key, &ask, &mut frame);
        let asked = Asked { operation: self.front_operation, since_ns: self.asked_since(session) };
        let asked = Some(asked).filter(|_| is_whole);
        let served = self.forward_key(id, session, owner, hash, &frame, asked);
        self.forward_scratch = frame;
        served
    }

    fn forward_key(
        &mut self,
        id: ConnectionId,
        session: &mut Session,
        owner: ShardId,
        hash: KeyHash,
        frame: &[u8],
        asked: Option<Asked>,
    ) -> Served {
        if !self.post.has_room(owner, frame.len()) {
            return Served::Blocked;
        }
        let sequence = session.await_remote(1);
        let (errand, caller) = (Errand::Key, Caller::default());
        self.post.send(owner, Letter { errand, caller, asked, connection: id, sequence, hash, frame });
        self.counters().forwarded_out.add(1);
        Served::Sent
    }

    /// GET of several keys. What the bounds do not let it do now it does later: the session keeps how far it is.
    fn retrieve(
        &mut self,
        id: ConnectionId,
        session: &mut Session,
        retrieval: Retrieval<'_>,
        out: &mut Vec<u8>,
    ) -> Served {
        let Retrieval { keys, exptime, with_cas } = retrieval;
        let mut at = session.front_at;
        if at == 0 && has_long_key(keys) {
            return say(session, "CLIENT_ERROR bad command line format", out);
        }
        if at == 0 && self.asks_strong(keys.split(|byte| *byte == b' ')) {
            return say(session, NOT_MEMCACHED, out);
        }
        let ask = Ask::Read { exptime, with_cas, ends: false };
        let counted = session.output_bytes();
        // A long line has cost its share already; each turn does some of its keys all the same.
        session.served_in_turn = session.served_in_turn.min(limits::REQUESTS_PER_TURN / 2);
        loop {
            let mut ahead = [const { None }; limits::MEMCACHED_KEYS_AHEAD];
            let mut count = 0;
            let mut next = at;
            while count < ahead.len()
                && let Some((start, end)) = text::next_word(keys, next)
            {
                let hash = self.shared.seed.hash(&keys[start..end]);
                self.keys.store.prefetch(hash);
                ahead[count] = Some((start, end, hash));
                count += 1;
                next = end;
            }
            ahead[..count].iter().flatten().for_each(|(_, _, hash)| self.keys.store.prefetch_item(*hash));
            for &(start, end, hash) in ahead[..count].iter().flatten() {
                let key = &keys[start..end];
                let request = Request { id: 0, want_version: false, command: Command::Memcached { key, ask } };
                let fresh = session.output_bytes().saturating_sub(counted);
                let bound = self.bound_reached(session, fresh, Some((&request, hash)));
                if bound.is_none() {
                    session.served_in_turn += 1;
                }
                if bound.is_some() || matches!(self.serve_key(id, session, key, ask, out, false), Served::Blocked) {
                    session.blocked = Some(bound.unwrap_or(Bound::Mailbox));
                    session.front_at = at;
                    return Served::Blocked;
                }
                at = end;
            }
            if count < ahead.len() {
                break;
            }
        }
        session.front_at = 0;
        session.reply(out, |to| to.extend_from_slice(b"END\r\n"));
        Served::Done
    }

    fn serve_server(
        &mut self,
        id: ConnectionId,
        session: &mut Session,
        server: Server<'_>,
        out: &mut Vec<u8>,
    ) -> Served {
        match server {
            Server::Say(_, true) => {}
            Server::Say(text, false) => return say(session, text, out),
            Server::Version => return say(session, &format!("VERSION {}", stats::VERSION), out),
            Server::Quit => session.closing = true,
            Server::Watch(_) => return say(session, "CLIENT_ERROR watch commands not allowed", out),
            Server::Flush { exptime, is_quiet } => return self.flush_all(id, session, exptime, is_quiet, out),
            Server::Stats(words) => {
                if !session.is_in_order() {
                    // What was asked before is to be in the numbers.
                    session.blocked = Some(Bound::Replies);
                    return Served::Blocked;
                }
                let mut reply = Vec::new();
                self.memcached_stats(words, &mut reply);
                session.reply(out, |to| to.extend_from_slice(&reply));
            }
        }
        Served::Done
    }

    /// FLUSH_ALL, now or later.
    fn flush_all(
        &mut self,
        id: ConnectionId,
        session: &mut Session,
        exptime: Exptime,
        is_quiet: bool,
        out: &mut Vec<u8>,
    ) -> Served {
        let is_alone = self.post.peer_count() == 0;
        let at = match exptime.expiry() {
            Expiry::In(ms) => Some(self.now.after_ms(ms)),
            Expiry::At(unix_ms) if unix_ms > self.keys.unix_ms() => Some(self.keys.moment(unix_ms)),
            _ => None,
        };
        if at.is_none() && !is_alone && !self.post.all_have_room(0) {
            return Served::Blocked;
        }
        self.counters().flushes.add(1);
        self.shared.memcached.set_flush_at(at.map_or(NEVER, |at| at.ms));
        if at.is_some() || is_alone {
            if at.is_none() {
                self.keys.flush();
            }
            return if is_quiet { Served::Done } else { say(session, "OK", out) };
        }
        self.keys.flush();
        let is_muted = std::mem::replace(&mut session.is_muted, is_quiet);
        let sequence = session.await_remote(self.post.peer_count() as u16);
        session.is_muted = is_muted;
        let mut frame = Vec::new();
        part::write_flush(&mut frame);
        for shard in (0..self.shared.counters.len() as u16).map(ShardId).filter(|shard| *shard != self.id) {
            let (errand, caller) = (Errand::Key, Caller::default());
            let letter =
                Letter { errand, caller, asked: None, connection: id, sequence, hash: KeyHash(0), frame: &frame };
            let is_sent = self.post.send(shard, letter);
            assert!(is_sent, "room was asked for before");
        }
        Served::Done
    }

    /// What is to be done now and then, before a turn's requests: once a millisecond at most.
    pub(in crate::engine) fn keep_time(&mut self) {
        let due = self.shared.memcached.flush_at();
        if due <= self.now.ms && due != self.flushed_at {
            self.flushed_at = due;
            self.keys.flush();
        }
        if self.noted_at.ms_until(self.now) >= NOTE_MS || self.noted_at == Instant::default() {
            self.noted_at = self.now;
            self.keys.store.note_time(self.now);
        }
        if self.shared.memcached.is_observed() != self.keys.observer.is_some() {
            let observer = self.shared.memcached.is_observed().then(|| self.shared.memcached.observer.clone());
            self.keys.observer = observer;
        }
    }
}

/// Whether a key is longer than any may be.
fn has_long_key(keys: &[u8]) -> bool {
    keys.split(|&byte| byte == b' ').any(|key| key.len() > limits::MEMCACHED_KEY_BYTES_MAX)
}

fn say(session: &mut Session, text: &str, out: &mut Vec<u8>) -> Served {
    session.reply(out, |to| encode::line(text, to));
    Served::Done
}

/// How often the store is told what time it is.
const NOTE_MS: u64 = 1000;
