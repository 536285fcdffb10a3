//! The requests in a piece of a connection's stream, answered in order.
//!
//! Requests are decoded a few ahead of the one that is applied, and the index line and the item each
//! will read are asked for on the way; by the time its turn comes they have arrived:
//!
//!   decode, hash, prefetch bucket  | r5 | r6 | r7 | r8 |
//!   prefetch item                  | r5 | r6 | r7 | r8 |
//!   apply, encode                  | r5 | r6 | r7 | r8 |
//!
//! Forwarding and requests about the connection itself are rare and kept out of this path.

use std::ops::DerefMut;

use crate::base::hash::KeyHash;
use crate::base::id::ConnectionId;
use crate::base::limits;
use crate::engine::apply::{apply, operation_of};
use crate::engine::core::Core;
use crate::engine::post::{Asked, Caller, Errand, Letter};
use crate::engine::region_map::Look;
use crate::engine::session::{Bound, Protocol, Session};
use crate::engine::strong::NOT_MEMCACHED;
use crate::net::Flow;
use crate::observe::Operation;
use crate::observe::service::BatchCounts;
use crate::observe::stats_text;
use crate::wire::memcached::Memcached;
use crate::wire::native::{self, Native};
use crate::wire::resp::{self, Resp, Resp3, RespFront};
use crate::wire::{Codec, Command, Decoded, Refusal, Reply, Request, Status};

/// A request that has been decoded and not yet applied.
struct Ahead<'a> {
    request: Request<'a>,
    hash: KeyHash,
    start: usize,
    end: usize,
}

/// What came of one request.
pub(super) enum Served {
    Done,
    /// It is on its way to another shard, and counted when the answer is back.
    Sent,
    Blocked,
    Detach,
}

impl<M: DerefMut<Target = [u8]>> Core<M> {
    /// Serves the requests in `bytes`. Answers how many bytes were used, and how to go on.
    #[inline]
    pub(super) fn serve(
        &mut self,
        id: ConnectionId,
        session: &mut Session,
        bytes: &[u8],
        out: &mut Vec<u8>,
    ) -> (usize, Flow) {
        let before = session.output_bytes();
        let mut counts = self.turn_counts;
        let mut used = 0;
        session.needed = 0;
        session.blocked = self.is_held(session);
        if session.blocked.is_some() {
            session.held_since_ns = self.asked_since(session);
            return (0, Flow::Pause);
        }
        // A command may change what the next bytes are read as; then they are read anew.
        let flow = loop {
            let spoken = (session.protocol, session.is_stateful, self.attention);
            let rest = &bytes[used..];
            let is_plain = !session.is_stateful && self.attention == 0;
            let (more, next) = match session.protocol {
                Protocol::Native => self.serve_as::<Native>(id, session, rest, out, &mut counts),
                Protocol::Resp if is_plain => self.serve_as::<Resp>(id, session, rest, out, &mut counts),
                Protocol::Resp3 if is_plain => self.serve_as::<Resp3>(id, session, rest, out, &mut counts),
                Protocol::Resp | Protocol::Resp3 => self.serve_as::<RespFront>(id, session, rest, out, &mut counts),
                Protocol::Memcached => self.serve_as::<Memcached>(id, session, rest, out, &mut counts),
            };
            used += more;
            if spoken == (session.protocol, session.is_stateful, self.attention)
                || next != Flow::Continue
                || used == bytes.len()
            {
                break next;
            }
        };
        if session.held_since_ns != 0 || session.blocked.is_some() {
            self.note_held(session, &mut counts);
        }
        self.turn_counts = counts;
        self.output_bytes += session.output_bytes() - before;
        (used, flow)
    }

    /// What had been held back and is served now counts from when it came, and so will what is held back now.
    #[cold]
    fn note_held(&mut self, session: &mut Session, counts: &mut BatchCounts) {
        if session.held_since_ns != 0 {
            let served = counts.since(&self.turn_counts);
            self.held_counts.push((served, session.held_since_ns));
            *counts = self.turn_counts;
        }
        session.held_since_ns = match session.blocked {
            // Its peer does not take what it is owed: that is the peer's time.
            None | Some(Bound::Output) => 0,
            Some(_) => self.asked_since(session),
        };
    }

    fn serve_as<C: Codec>(
        &mut self,
        id: ConnectionId,
        session: &mut Session,
        bytes: &[u8],
        out: &mut Vec<u8>,
        counts: &mut BatchCounts,
    ) -> (usize, Flow) {
        let counted = session.output_bytes();
        let mut at = 0;
        let spoken = (session.protocol, session.is_stateful, self.attention);
        loop {
            let skipped = session.skip.min((bytes.len() - at) as u64);
            session.skip -= skipped;
            at += skipped as usize;
            if at == bytes.len() || session.closing {
                return (at, Flow::Continue);
            }
            let mut ahead = [const { None }; limits::REQUESTS_AHEAD];
            let stopped_by = self.look_ahead::<C>(bytes, at, &mut ahead);
            if self.hot_sampled != self.now {
                self.sample_hot(&ahead);
            }
            for Ahead { request, hash, start, end } in ahead.iter().map_while(Option::as_ref) {
                let fresh = session.output_bytes() - counted;
                if let Some(bound) = self.bound_reached(session, fresh, Some((request, *hash))) {
                    session.blocked = Some(bound);
                    return (at, Flow::Pause);
                }
                session.served_in_turn += 1 + (end - start) / BYTES_PER_SHARE;
                match self.dispatch::<C>(id, session, request, &bytes[*start..*end], *hash, out) {
                    Served::Done => {
                        counts.count(operation_of(&request.command));
                        at = *end;
                    }
                    Served::Sent => at = *end,
                    Served::Blocked => {
                        session.blocked = Some(Bound::Mailbox);
                        return (at, Flow::Pause);
                    }
                    Served::Detach => {
                        counts.count(Operation::Other);
                        return (*end, Flow::Detach);
                    }
                }
            }
            match stopped_by {
                None => {}
                Some(Decoded::Request(..)) => unreachable!("a request does not stop the look ahead"),
                Some(Decoded::Front(length)) => {
                    if let Some(bound) = self.bound_reached(session, session.output_bytes() - counted, None) {
                        session.blocked = Some(bound);
                        return (at, Flow::Pause);
                    }
                    session.served_in_turn += 1 + length / BYTES_PER_SHARE;
                    self.front_operation = Operation::Other;
                    match self.serve_front(id, session, &bytes[at..at + length], out) {
                        Served::Done => {
                            counts.count(self.front_operation);
                            at += length;
                        }
                        Served::Sent => at += length,
                        Served::Blocked => {
                            session.blocked = Some(session.blocked.unwrap_or(Bound::Mailbox));
                            return (at, Flow::Pause);
                        }
                        Served::Detach => unreachable!("only native connections move between shards"),
                    }
                    if session.closing {
                        return (at, close_when_in_order(session));
                    }
                    if session.waits {
                        session.blocked = Some(Bound::Answer);
                        return (at, Flow::Pause);
                    }
                    if spoken != (session.protocol, session.is_stateful, self.attention) {
                        return (at, Flow::Continue);
                    }
                }
                Some(Decoded::Incomplete(needed)) => {
                    if self.may_keep(session, bytes.len() - at, needed) {
                        session.needed = needed;
                        return (at, Flow::Continue);
                    }
                    self.counters().refused_busy.add(1);
                    let refusal = C::busy(&bytes[at..], needed);
                    self.refuse::<C>(session, refusal, out);
                    if refusal.status.closes() {
                        session.closing = true;
                        return (at, close_when_in_order(session));
                    }
                }
                Some(Decoded::Refused(_)) if session.served_in_turn >= limits::REQUESTS_PER_TURN => {
                    session.blocked = Some(Bound::Turn);
                    return (at, Flow::Pause);
                }
                Some(Decoded::Refused(refusal)) => {
                    session.served_in_turn += 1;
                    if refusal.id != resp::SILENT {
                        self.counters().refused.add(1);
                    }
                    self.refuse::<C>(session, refusal, out);
                    if refusal.status.closes() {
                        self.counters().malformed.add(1);
                        session.closing = true;
                        return (at, close_when_in_order(session));
                    }
                }
            }
        }
    }

    /// Decodes requests from `at` on into `ahead` and asks for what they will read. Answers what it
    /// stopped at, if not at the end of `ahead`.
    #[inline]
    fn look_ahead<'a, C: Codec>(
        &self,
        bytes: &'a [u8],
        at: usize,
        ahead: &mut [Option<Ahead<'a>>; limits::REQUESTS_AHEAD],
    ) -> Option<Decoded<'a>> {
        let mut start = at;
        let mut count = 0;
        let mut stopped_by = None;
        while count < ahead.len() {
            match C::decode(&bytes[start..], self.value_bytes_max) {
                Decoded::Request(request, length) => {
                    let hash = self.shared.seed.hash(request.command.key().unwrap_or_default());
                    self.keys.store.prefetch(hash);
                    ahead[count] = Some(Ahead { request, hash, start, end: start + length });
                    count += 1;
                    start += length;
                    if start == bytes.len() {
                        break;
                    }
                }
                other => {
                    stopped_by = Some(other);
                    break;
                }
            }
        }
        if count >= ITEMS_PREFETCHED_FROM {
            for Ahead { hash, .. } in ahead[..count].iter().flatten() {
                self.keys.store.prefetch_item(*hash);
            }
        }
        stopped_by
    }

    /// Once a millisecond: looks at a read, to know which keys are hot.
    #[cold]
    fn sample_hot(&mut self, ahead: &[Option<Ahead<'_>>]) {
        self.hot_sampled = self.now;
        let count = ahead.iter().flatten().count();
        // Not always the first of its batch, in which a client may say what it always says first.
        let Some(Some(Ahead { request, hash, .. })) = ahead.get(self.turn as usize % count.max(1)) else { return };
        if operation_of(&request.command) == Operation::Get
            && let Some(key) = request.command.key()
        {
            self.hot_keys.note(hash.0, key);
        }
    }

    #[inline]
    fn dispatch<C: Codec>(
        &mut self,
        id: ConnectionId,
        session: &mut Session,
        request: &Request<'_>,
        frame: &[u8],
        hash: KeyHash,
        out: &mut Vec<u8>,
    ) -> Served {
        if request.command.key().is_none() {
            return self.dispatch_keyless::<C>(id, session, request, out);
        }
        if let Some(replication) = &self.keys.replication
            && replication.has_strong()
            && let Some(served) = self.ask_holder::<C>(id, session, request, frame, hash, out)
        {
            return served;
        }
        if hash.shard(self.shared.counters.len() as u16) != self.id {
            return self.forward(id, session, request, frame, hash);
        }
        if C::IS_COUNTED {
            self.calls.count(request.id as u8);
        }
        let (keys, counters) = (&mut self.keys, &self.shared.counters[self.id.0 as usize]);
        session.reply(out, |to| apply::<C, M>(keys, counters, request, hash, to));
        Served::Done
    }

    /// Sends a request about a strong key to its holder; nothing if the key is not strong.
    #[cold]
    fn ask_holder<C: Codec>(
        &mut self,
        id: ConnectionId,
        session: &mut Session,
        request: &Request<'_>,
        frame: &[u8],
        hash: KeyHash,
        out: &mut Vec<u8>,
    ) -> Option<Served> {
        if self.awaits_rules() {
            return Some(Served::Blocked);
        }
        if !self.is_strong(request.command.key()?) {
            return None;
        }
        if C::IS_MEMCACHED {
            session.reply(out, |to| to.extend_from_slice(format!("{NOT_MEMCACHED}\r\n").as_bytes()));
            return Some(Served::Done);
        }
        let asked = Some(Asked { operation: operation_of(&request.command), since_ns: self.asked_since(session) });
        let errand = Errand::Request(session.protocol);
        let caller = Caller::default();
        // Asked before the place in the queue of replies is taken.
        if !self.post.holder_has_room() {
            return Some(Served::Blocked);
        }
        let sequence = session.await_remote(1);
        self.post.ask_holder(&Letter { errand, caller, asked, connection: id, sequence, hash, frame });
        Some(Served::Sent)
    }

    /// Whether this node of a cluster has yet to hear which keys are strong: until then no key is served, for a strong one
    /// would be taken for another. Some milliseconds after the start.
    pub(super) fn awaits_rules(&self) -> bool {
        self.post.has_desk() && self.keys.replication.as_ref().is_some_and(|replication| !replication.knows_rules())
    }

    /// Whether a key belongs to a strong namespace, which this shard's store does not hold.
    pub(super) fn is_strong(&self, key: &[u8]) -> bool {
        self.post.has_desk() && self.keys.replication.as_ref().is_some_and(|replication| replication.is_strong(key))
    }

    /// Sends a request to the shard that owns its key, as it arrived.
    #[cold]
    fn forward(
        &mut self,
        id: ConnectionId,
        session: &mut Session,
        request: &Request<'_>,
        frame: &[u8],
        hash: KeyHash,
    ) -> Served {
        let owner = hash.shard(self.shared.counters.len() as u16);
        if !self.post.has_room(owner, frame.len()) {
            return Served::Blocked;
        }
        let sequence = session.await_remote(1);
        let (errand, caller) = (Errand::Request(session.protocol), Caller::default());
        let asked = Some(Asked { operation: operation_of(&request.command), since_ns: self.asked_since(session) });
        self.post.send(owner, Letter { errand, caller, asked, connection: id, sequence, hash, frame });
        self.counters().forwarded_out.add(1);
        Served::Sent
    }

    #[cold]
    fn dispatch_keyless<C: Codec>(
        &mut self,
        id: ConnectionId,
        session: &mut Session,
        request: &Request<'_>,
        out: &mut Vec<u8>,
    ) -> Served {
        match request.command {
            Command::Hello { shard: Some(shard) }
                if shard != self.id.0
                    && (shard as usize) < self.neighbours.len()
                    && session.is_in_order()
                    && !session.subscribed =>
            {
                session.moving = Some((shard, request.id));
                return Served::Detach;
            }
            Command::Hello { .. } => {
                session.reply(out, |to| self.answer_hello(request.id, to));
            }
            Command::Stats => {
                let text = stats_text(self.shared.counters.iter());
                let reply = Reply { status: Status::Ok, value: text.as_bytes(), number: 0 };
                session.reply(out, |to| C::encode_reply(request, &reply, to));
            }
            Command::Map => {
                let map = self.shared.region_map.get();
                let reply = match &map {
                    Look::Map(bytes) => Reply { value: bytes, ..Reply::status(Status::Ok) },
                    Look::None => Reply::status(Status::Unsupported),
                    Look::BeingReplaced => Reply::status(Status::Busy),
                };
                session.reply(out, |to| C::encode_reply(request, &reply, to));
            }
            Command::Subscribe => self.subscribe(id, session, request.id, out),
            Command::Noop if session.subscribed => self.renew(session, request.id, out),
            Command::Flush if self.post.peer_count() > 0 => {
                self.forward_scratch.clear();
                native::encode_request(request, &mut self.forward_scratch);
                if !self.post.all_have_room(self.forward_scratch.len()) {
                    return Served::Blocked;
                }
                self.keys.flush();
                let sequence = session.await_remote(self.post.peer_count() as u16);
                self.post.send_to_all(id, sequence, &self.forward_scratch);
            }
            _ => {
                let hash = self.shared.seed.hash(&[]);
                let (keys, counters) = (&mut self.keys, &self.shared.counters[self.id.0 as usize]);
                session.reply(out, |to| apply::<C, M>(keys, counters, request, hash, to));
            }
        }
        Served::Done
    }

    /// Answers a refused frame and passes over it.
    #[cold]
    fn refuse<C: Codec>(&mut self, session: &mut Session, refusal: Refusal, out: &mut Vec<u8>) {
        session.skip = refusal.frame_bytes;
        if refusal.id == resp::SILENT && refusal.status == Status::Ok {
            return;
        }
        let protocol = session.protocol.name();
        let text = match refusal.status {
            Status::KeyLength => format!("keys have 1 to {} bytes", limits::KEY_BYTES_MAX),
            Status::ValueTooLarge => format!("values have at most {} bytes on this server", self.value_bytes_max),
            Status::Malformed => format!("this port speaks {protocol}; the frame is none"),
            Status::UnsupportedVersion => format!("this server speaks version {}", native::VERSION),
            Status::Busy => "no buffer memory for this frame now, try again".to_string(),
            _ => String::new(),
        };
        session.reply(out, |to| C::encode_refusal(&refusal, &text, to));
    }

    /// What keeps a connection from being served at all.
    #[inline]
    fn is_held(&self, session: &Session) -> Option<Bound> {
        if session.waits {
            return Some(Bound::Answer);
        }
        self.holder.map(|_| Bound::Hold)
    }

    /// Serves a command that is more than a request.
    #[cold]
    fn serve_front(&mut self, id: ConnectionId, session: &mut Session, frame: &[u8], out: &mut Vec<u8>) -> Served {
        match session.protocol {
            Protocol::Resp | Protocol::Resp3 => self.serve_resp(id, session, frame, out),
            Protocol::Memcached => self.serve_memcached(id, session, frame, out),
            Protocol::Native => unreachable!("its codec understands every frame"),
        }
    }
}

fn close_when_in_order(session: &Session) -> Flow {
    if session.is_in_order() { Flow::Close } else { Flow::Pause }
}

/// A request takes one share of its connection's turn, and one more for every so many bytes.
const BYTES_PER_SHARE: usize = 1024;
/// From so many requests on it pays to look for each item before the first is applied.
const ITEMS_PREFETCHED_FROM: usize = 4;
