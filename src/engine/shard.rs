//! The turn of a shard: network, mail, control, housekeeping.
//!
//! A turn never blocks and never waits. It is called again and again by an executor; what it
//! answers says whether there was anything to do.

use std::collections::VecDeque;
use std::ops::DerefMut;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crossbeam::channel::{Receiver, Sender};

use crate::base::hash::HashSeed;
use crate::base::id::{ConnectionId, ShardId};
use crate::base::limits;
use crate::base::time::Instant;
use crate::cache::Store;
use crate::engine::apply::{apply, operation_of};
use crate::engine::post::Post;
use crate::engine::session::{Bound, Session};
use crate::net::{Flow, Handler, Network, Waker};
use crate::observe::service::{BatchCounts, Published};
use crate::observe::{ServiceTimes, ShardCounters, stats_text};
use crate::wire::native::{self, Decoded, Refusal, ServerHello};
use crate::wire::{Command, Reply, Request, Status};

/// What all shards of a process share, for reading.
pub struct Shared {
    /// Each shard's counters.
    pub counters: Vec<ShardCounters>,
    /// Each shard's latest histograms.
    pub published: Vec<Published>,
    /// The seed of the key hash.
    pub seed: HashSeed,
    /// When the process's clock started.
    pub started: std::time::Instant,
}

/// What a shard is told from outside its loop.
pub enum Control {
    /// Serve this connection; it was accepted by another shard and asked to come here.
    Adopt {
        socket: OwnedFd,
        /// The HELLO that asked for it.
        hello_id: u32,
        /// Bytes that arrived after that HELLO.
        pending: Vec<u8>,
    },
    /// Stop accepting, answer what is under way, leave.
    Stop,
}

/// Where the other shards are reached.
pub struct Neighbour {
    pub control: Sender<Control>,
    pub waker: Waker,
}

/// A shard: its network, and everything else.
pub struct Shard<N, M> {
    net: N,
    core: Core<M>,
}

/// A shard without its network, so that the network can call it.
pub struct Core<M> {
    id: ShardId,
    shared: Arc<Shared>,
    store: Store<M>,
    sessions: Vec<Option<Box<Session>>>,
    post: Post,
    neighbours: Vec<Neighbour>,
    control: Receiver<Control>,
    now: Instant,
    value_bytes_max: usize,
    /// Bytes that connections may buffer, each way.
    buffer_bytes_max: usize,
    output_bytes_high: usize,
    /// Bytes of output that have not left.
    output_bytes: usize,
    /// What a reply from another shard is expected to hold: the largest lately, slowly forgotten. It
    /// begins high, so that the first deep pipeline of large values does not overrun the bound.
    reply_estimate: usize,
    /// Bytes of incomplete and held-back requests.
    pending_bytes: usize,
    /// Connections that were held back by a bound, to be tried again in the next turn.
    held: Vec<ConnectionId>,
    /// Connections held back by [`Bound::Memory`], in order.
    starved: VecDeque<ConnectionId>,
    times: ServiceTimes,
    swept_at: Instant,
    published_at: Instant,
    stopping: Option<Instant>,
    last_work: Instant,
}

/// What came of one request.
enum Served {
    Done,
    Blocked,
    Detach,
}

impl<N: Network, M: DerefMut<Target = [u8]>> Shard<N, M> {
    #[expect(clippy::too_many_arguments, reason = "the parts of a shard, put together in one place")]
    pub fn new(
        id: ShardId,
        net: N,
        store: Store<M>,
        post: Post,
        neighbours: Vec<Neighbour>,
        control: Receiver<Control>,
        shared: Arc<Shared>,
        connection_bytes: u64,
    ) -> Shard<N, M> {
        let value_bytes_max = Store::<M>::value_bytes_max(store.item_bytes_max(), limits::KEY_BYTES_MAX);
        let buffer_bytes_max = connection_bytes as usize / 2;
        let mut post = post;
        post.set_bytes_max(buffer_bytes_max / 4);
        let core = Core {
            id,
            shared,
            store,
            sessions: Vec::new(),
            post,
            neighbours,
            control,
            now: Instant::default(),
            value_bytes_max,
            buffer_bytes_max,
            output_bytes_high: (buffer_bytes_max / 8).clamp(16 << 10, limits::OUTPUT_BYTES_HIGH),
            output_bytes: 0,
            reply_estimate: value_bytes_max.min(REPLY_ESTIMATE_FIRST),
            pending_bytes: 0,
            held: Vec::new(),
            starved: VecDeque::new(),
            times: ServiceTimes::new(),
            swept_at: Instant::default(),
            published_at: Instant::default(),
            stopping: None,
            last_work: Instant::default(),
        };
        Shard { net, core }
    }

    /// Does what there is to do. Answers whether there was anything.
    pub fn turn(&mut self) -> Result<bool, String> {
        self.core.now = Instant::from_ms(self.core.shared.started.elapsed().as_millis() as u64);
        let now = self.core.now;
        let polled = self.net.poll(&mut self.core, now);
        let mut worked = polled.map_err(|error| format!("shard {}: the network failed: {error}", self.core.id))?;
        if self.core.post.peer_count() > 0 {
            worked |= self.take_mail();
        }
        if !self.core.control.is_empty() {
            self.take_control()?;
            worked = true;
        }
        if !self.core.held.is_empty() {
            worked |= self.retry_held();
        }
        self.core.post.wake();
        if now > self.core.swept_at {
            // A shard that has slept makes up for it, within a bound.
            let elapsed = self.core.swept_at.ms_until(now).min(EXPIRE_CATCH_UP_MS) as usize;
            self.core.swept_at = now;
            self.core.store.expire(now, limits::EXPIRE_SEGMENTS_PER_MS * elapsed, limits::EXPIRE_ITEMS_PER_MS);
            if self.core.published_at.ms_until(now) >= PUBLISH_MS {
                self.housekeeping();
            }
        }
        if worked {
            self.core.last_work = now;
        }
        Ok(worked)
    }

    /// Whether the shard has been told to stop and has nothing left to do.
    pub fn is_done(&self) -> bool {
        self.core.stopping.is_some_and(|since| {
            let now = self.core.now;
            let quiet = self.core.last_work.ms_until(now) >= limits::STOP_IDLE_MS && self.core.post.under_way() == 0;
            let answered = self.core.output_bytes == 0 && self.core.held.is_empty() && self.core.starved.is_empty();
            (quiet && answered) || since.ms_until(now) >= limits::STOP_GRACE_MS
        })
    }

    /// Prepares to sleep. Answers `false` if there is work after all.
    pub fn arm(&mut self) -> bool {
        if !self.net.arm() {
            return false;
        }
        let busy = self.core.post.has_mail() || !self.core.control.is_empty() || !self.core.held.is_empty();
        if busy || self.core.stopping.is_some() {
            self.net.disarm();
            return false;
        }
        true
    }

    /// The opposite of [`Shard::arm`].
    pub fn disarm(&mut self) {
        self.net.disarm();
    }

    /// The network, for its driver.
    pub fn net_mut(&mut self) -> &mut N {
        &mut self.net
    }

    fn take_mail(&mut self) -> bool {
        let core = &mut self.core;
        let counters = &core.shared.counters[core.id.0 as usize];
        let (store, now, value_bytes_max) = (&mut core.store, core.now, core.value_bytes_max);
        let served = core.post.serve(|forward| match native::decode(&forward.frame, value_bytes_max) {
            Decoded::Request(request, _) => apply(store, counters, &request, forward.hash, now, &mut forward.reply),
            other => panic!("a shard forwarded what does not decode: {other:?}"),
        });
        counters.forwarded_in.add(served as u64);
        let mut answered = 0;
        // Replies that find the output memory full wait where they are; their maker waits with them.
        while core.output_bytes < core.buffer_bytes_max
            && let Some(mut forward) = core.post.next_reply()
        {
            answered += 1;
            let id = forward.connection;
            if let Some(out) = self.net.output(id)
                && let Some(session) = core.sessions.get_mut(id.slot as usize).and_then(Option::as_mut)
                && session.id == id
            {
                let reply = std::mem::take(&mut forward.reply);
                core.output_bytes += reply.len();
                core.reply_estimate = match core.reply_estimate {
                    estimate if reply.len() >= estimate => reply.len(),
                    estimate => estimate - (estimate - reply.len()) / REPLY_ESTIMATE_MEMORY,
                };
                forward.reply = session.answer(forward.sequence, reply);
                core.output_bytes -= forward.reply.len();
                session.release(out);
                if session.is_over() {
                    self.net.close(id);
                } else if matches!(session.blocked, Some(Bound::Replies | Bound::Memory)) {
                    session.held = false;
                    core.hold(id);
                }
            }
            core.post.recycle(forward);
        }
        served + answered > 0
    }

    fn take_control(&mut self) -> Result<(), String> {
        while let Ok(message) = self.core.control.try_recv() {
            match message {
                Control::Adopt { socket, hello_id, pending } => {
                    let Some(id) = self.net.adopt(socket, self.core.now) else { continue };
                    self.core.opened(id);
                    let Some(out) = self.net.output(id) else { continue };
                    self.core.greet(id, hello_id, out);
                    if !pending.is_empty() {
                        let flow = self.core.received(id, &pending, out);
                        if flow == Flow::Close {
                            self.net.close(id);
                        }
                    }
                }
                Control::Stop => {
                    self.net.stop_listening();
                    self.core.stopping = Some(self.core.now);
                }
            }
        }
        Ok(())
    }

    /// Takes up connections that a bound had held back.
    fn retry_held(&mut self) -> bool {
        let mut worked = false;
        for id in std::mem::take(&mut self.core.held) {
            if let Some(session) = self.core.session_mut(id) {
                session.held = false;
            }
            if !self.core.may_go_on(id) {
                self.core.wait(id);
                continue;
            }
            worked = true;
            let Some(out) = self.net.output(id) else { continue };
            match self.core.received(id, &[], out) {
                Flow::Continue => self.net.resume(id),
                Flow::Close => self.net.close(id),
                Flow::Pause | Flow::Detach => {}
            }
        }
        worked
    }

    fn housekeeping(&mut self) {
        let core = &mut self.core;
        core.published_at = core.now;
        let counters = &core.shared.counters[core.id.0 as usize];
        let stats = core.store.stats();
        counters.entries.set(stats.entries);
        counters.payload_bytes.set(stats.payload_bytes);
        counters.arena_bytes.set(stats.arena_bytes);
        counters.used_bytes.set(stats.used_bytes);
        counters.index_bytes.set(stats.index_bytes);
        counters.evicted.set(stats.evicted);
        counters.expired.set(stats.expired);
        counters.ghost_hits.set(stats.ghost_hits);
        counters.copied_bytes.set(stats.copied_bytes);
        core.times.publish(&core.shared.published[core.id.0 as usize]);
        for id in core.half_sent() {
            counters.connections_stalled.add(1);
            self.net.close(id);
        }
        if core.now.ms > limits::SEND_STALL_MS {
            let stalled = self.net.close_stalled(Instant::from_ms(core.now.ms - limits::SEND_STALL_MS));
            counters.connections_stalled.add(stalled as u64);
        }
    }
}

impl<M: DerefMut<Target = [u8]>> Core<M> {
    fn counters(&self) -> &ShardCounters {
        &self.shared.counters[self.id.0 as usize]
    }

    /// Serves the requests in `bytes`. Answers how many bytes were used, and how to go on.
    fn serve(&mut self, id: ConnectionId, session: &mut Session, bytes: &[u8], out: &mut Vec<u8>) -> (usize, Flow) {
        let before = session.output_bytes();
        let (used, flow) = self.serve_counted(id, session, bytes, out, before);
        self.output_bytes += session.output_bytes() - before;
        (used, flow)
    }

    fn serve_counted(
        &mut self,
        id: ConnectionId,
        session: &mut Session,
        bytes: &[u8],
        out: &mut Vec<u8>,
        counted: usize,
    ) -> (usize, Flow) {
        let started = std::time::Instant::now();
        let mut counts = BatchCounts::default();
        let (mut at, mut flow) = (0, Flow::Continue);
        session.blocked = None;
        loop {
            let skipped = session.skip.min((bytes.len() - at) as u64);
            session.skip -= skipped;
            at += skipped as usize;
            if at == bytes.len() || session.closing {
                break;
            }
            if let Some(bound) = self.bound_reached(session, session.output_bytes() - counted) {
                session.blocked = Some(bound);
                flow = Flow::Pause;
                break;
            }
            match native::decode(&bytes[at..], self.value_bytes_max) {
                Decoded::Request(request, length) => {
                    counts.count(operation_of(&request.command));
                    match self.dispatch(id, session, &request, &bytes[at..at + length], out) {
                        Served::Done => at += length,
                        Served::Blocked => {
                            session.blocked = Some(Bound::Mailbox);
                            flow = Flow::Pause;
                            break;
                        }
                        Served::Detach => {
                            at += length;
                            flow = Flow::Detach;
                            break;
                        }
                    }
                }
                Decoded::Incomplete(needed) => {
                    if self.may_keep(session, bytes.len() - at, needed) {
                        break;
                    }
                    self.counters().refused_busy.add(1);
                    let header = &bytes[at..];
                    let id = u32::from_le_bytes([header[12], header[13], header[14], header[15]]);
                    self.refuse(
                        session,
                        Refusal { id, opcode: header[2], status: Status::Busy, frame_bytes: needed as u64 },
                        out,
                    );
                }
                Decoded::Refused(refusal) => {
                    self.counters().refused.add(1);
                    self.refuse(session, refusal, out);
                    if refusal.status.closes() {
                        self.counters().malformed.add(1);
                        session.closing = true;
                        flow = if session.is_in_order() { Flow::Close } else { Flow::Pause };
                        break;
                    }
                }
            }
        }
        self.times.record(counts, started.elapsed().as_nanos() as u64);
        (at, flow)
    }

    /// Answers a refused frame and passes over it.
    fn refuse(&mut self, session: &mut Session, refusal: Refusal, out: &mut Vec<u8>) {
        let text = match refusal.status {
            Status::KeyLength => format!("keys have 1 to {} bytes", limits::KEY_BYTES_MAX),
            Status::ValueTooLarge => format!("values have at most {} bytes on this server", self.value_bytes_max),
            Status::Malformed => "this port speaks the native protocol; the frame is none".to_string(),
            Status::UnsupportedVersion => format!("this server speaks version {}", native::VERSION),
            Status::Busy => "no buffer memory for this frame now, try again".to_string(),
            _ => String::new(),
        };
        let reply = Reply { status: refusal.status, value: text.as_bytes(), number: 0 };
        session.reply(out, |to| native::encode_reply(refusal.id, refusal.opcode, &reply, to));
        session.skip = refusal.frame_bytes;
    }

    #[inline]
    fn dispatch(
        &mut self,
        id: ConnectionId,
        session: &mut Session,
        request: &Request<'_>,
        frame: &[u8],
        out: &mut Vec<u8>,
    ) -> Served {
        if let Some(key) = request.command.key() {
            let hash = self.shared.seed.hash(key);
            let owner = hash.shard(self.shared.counters.len() as u16);
            if owner != self.id {
                if !self.post.has_room(owner, frame.len()) {
                    return Served::Blocked;
                }
                let sequence = session.await_remote(1);
                self.post.send(owner, id, sequence, hash, frame);
                self.counters().forwarded_out.add(1);
                return Served::Done;
            }
            let (store, counters, now) = (&mut self.store, &self.shared.counters[self.id.0 as usize], self.now);
            session.reply(out, |to| apply(store, counters, request, hash, now, to));
            return Served::Done;
        }
        self.dispatch_keyless(id, session, request, frame, out)
    }

    fn dispatch_keyless(
        &mut self,
        id: ConnectionId,
        session: &mut Session,
        request: &Request<'_>,
        frame: &[u8],
        out: &mut Vec<u8>,
    ) -> Served {
        match request.command {
            Command::Hello { shard: Some(shard) }
                if shard != self.id.0 && (shard as usize) < self.neighbours.len() && session.is_in_order() =>
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
                session.reply(out, |to| native::encode_reply(request.id, frame[2], &reply, to));
            }
            Command::Flush if self.post.peer_count() > 0 => {
                if !self.post.all_have_room() {
                    return Served::Blocked;
                }
                self.store.flush();
                let sequence = session.await_remote(self.post.peer_count() as u16);
                self.post.send_to_all(id, sequence, frame);
            }
            _ => {
                let hash = self.shared.seed.hash(&[]);
                let (store, counters, now) = (&mut self.store, &self.shared.counters[self.id.0 as usize], self.now);
                session.reply(out, |to| apply(store, counters, request, hash, now, to));
            }
        }
        Served::Done
    }

    /// Answers the HELLO that brought a connection here.
    fn greet(&mut self, id: ConnectionId, hello_id: u32, out: &mut Vec<u8>) {
        let before = out.len();
        self.answer_hello(hello_id, out);
        let written = out.len() - before;
        self.output_bytes += written;
        if let Some(session) = self.session_mut(id) {
            session.unsent += written;
        }
    }

    fn answer_hello(&self, id: u32, out: &mut Vec<u8>) {
        let hello = ServerHello {
            shard_count: self.shared.counters.len() as u16,
            shard: self.id.0,
            key_bytes_max: limits::KEY_BYTES_MAX as u32,
            value_bytes_max: self.value_bytes_max as u32,
            hash_seed: self.shared.seed.0,
            server: concat!("spinetail ", env!("CARGO_PKG_VERSION")).to_string(),
        };
        let value = hello.encode();
        let opcode = native::opcode_of(&Command::Hello { shard: None });
        native::encode_reply(id, opcode, &Reply { status: Status::Ok, value: &value, number: 0 }, out);
    }

    /// The bound that keeps a connection from being answered more; `fresh` is output of its own not
    /// counted yet. Below half of the shard's output memory everybody may go on; above it
    /// only those who have nothing waiting, up to the whole.
    fn bound_reached(&self, session: &Session, fresh: usize) -> Option<Bound> {
        let expected = self.post.under_way() * self.reply_estimate;
        let total = self.output_bytes + fresh + expected;
        let has_waiting = session.output_bytes() > 0 || !session.is_in_order();
        if session.output_bytes() >= self.output_bytes_high {
            Some(Bound::Output)
        } else if session.awaited_count() >= limits::FORWARDED_MAX {
            Some(Bound::Replies)
        } else if total >= self.buffer_bytes_max || (total >= self.buffer_bytes_max / 2 && has_waiting) {
            Some(Bound::Memory)
        } else {
            None
        }
    }

    /// Whether the `arrived` first bytes of a frame of `needed` may be kept until the rest comes.
    /// Only what has arrived counts: a promise in a header takes nothing from others.
    fn may_keep(&self, session: &Session, arrived: usize, needed: usize) -> bool {
        let extra = arrived.saturating_sub(session.counted);
        needed <= limits::SMALL_FRAME_BYTES || self.pending_bytes + extra <= self.buffer_bytes_max
    }

    /// Keeps what was not used for the next call, and the books right.
    fn keep(&mut self, session: &mut Session, mut bytes: Vec<u8>, used: usize) {
        bytes.drain(..used);
        self.pending_bytes = self.pending_bytes + bytes.len() - session.counted;
        session.counted = bytes.len();
        if bytes.is_empty() && bytes.capacity() > limits::SMALL_FRAME_BYTES {
            bytes = Vec::new(); // a large buffer is given back, a small one kept for the next fragment
        }
        session.pending = bytes;
    }

    fn may_go_on(&mut self, id: ConnectionId) -> bool {
        let Some(session) = self.sessions.get(id.slot as usize).and_then(Option::as_ref) else { return false };
        let bound = self.bound_reached(session, 0);
        if let Some(session) = self.session_mut(id)
            && bound.is_some()
        {
            session.blocked = bound;
        }
        bound.is_none()
    }

    /// Puts a connection on the list of those to try again, once.
    fn hold(&mut self, id: ConnectionId) {
        if let Some(session) = self.session_mut(id)
            && !session.held
        {
            session.held = true;
            self.held.push(id);
        }
    }

    /// Files a blocked connection where the event that frees it will find it.
    fn wait(&mut self, id: ConnectionId) {
        match self.session_mut(id).and_then(|session| session.blocked) {
            Some(Bound::Mailbox) => self.hold(id),
            Some(Bound::Memory) => {
                if let Some(session) = self.session_mut(id)
                    && !session.held
                {
                    session.held = true;
                    self.starved.push_back(id);
                }
            }
            Some(Bound::Output | Bound::Replies) | None => {}
        }
    }

    /// Some output has left or will never be sent: those who starved may try again.
    fn output_freed(&mut self, bytes: usize) {
        self.output_bytes -= bytes;
        for _ in 0..STARVED_PER_SEND {
            let Some(id) = self.starved.pop_front() else { return };
            if let Some(session) = self.session_mut(id) {
                session.held = false;
                self.hold(id);
            }
        }
    }

    /// Connections that began a request and have sent nothing of the rest for too long.
    fn half_sent(&self) -> Vec<ConnectionId> {
        let late = |session: &Session| {
            let waits = !session.pending.is_empty() && session.blocked.is_none() && session.moving.is_none();
            waits && session.arrived.ms_until(self.now) >= limits::RECEIVE_STALL_MS
        };
        let sessions = self.sessions.iter().flatten();
        sessions.filter(|session| late(session)).map(|session| session.id).collect()
    }

    fn session_mut(&mut self, id: ConnectionId) -> Option<&mut Session> {
        self.sessions.get_mut(id.slot as usize)?.as_deref_mut().filter(|session| session.id == id)
    }

    fn session(&mut self, id: ConnectionId) -> Option<Box<Session>> {
        self.sessions.get_mut(id.slot as usize)?.take_if(|session| session.id == id)
    }
}

impl<M: DerefMut<Target = [u8]>> Handler for Core<M> {
    fn opened(&mut self, id: ConnectionId) {
        let slot = id.slot as usize;
        if self.sessions.len() <= slot {
            self.sessions.resize_with(slot + 1, || None);
        }
        self.sessions[slot] = Some(Box::new(Session::new(id)));
        self.counters().connections_opened.add(1);
    }

    fn received(&mut self, id: ConnectionId, bytes: &[u8], out: &mut Vec<u8>) -> Flow {
        self.counters().received_bytes.add(bytes.len() as u64);
        let Some(mut session) = self.session(id) else { return Flow::Close };
        if !bytes.is_empty() {
            session.arrived = self.now;
        }
        let mut flow = if session.moving.is_some() {
            session.pending.extend_from_slice(bytes);
            Flow::Detach
        } else if session.pending.is_empty() {
            // The common case: whole requests, decoded where the kernel put them.
            let (used, flow) = self.serve(id, &mut session, bytes, out);
            if used < bytes.len() {
                let rest = bytes[used..].to_vec();
                self.keep(&mut session, rest, 0);
            }
            flow
        } else {
            let mut pending = std::mem::take(&mut session.pending);
            pending.extend_from_slice(bytes);
            let (used, flow) = self.serve(id, &mut session, &pending, out);
            self.keep(&mut session, pending, used);
            flow
        };
        if session.is_over() && flow != Flow::Detach {
            flow = Flow::Close;
        }
        let blocked = session.blocked.is_some();
        self.sessions[id.slot as usize] = Some(session);
        if blocked {
            self.wait(id);
        }
        flow
    }

    fn ended(&mut self, id: ConnectionId) -> Flow {
        match self.session_mut(id) {
            // What it has asked is still answered: a client may close its sending side and wait.
            Some(session) if !session.is_in_order() || session.blocked.is_some() => {
                session.ended = true;
                Flow::Pause
            }
            _ => Flow::Close,
        }
    }

    fn sent(&mut self, id: ConnectionId, bytes: usize) {
        self.counters().sent_bytes.add(bytes as u64);
        // Freed before asked: the connection's own turn comes first.
        self.output_freed(bytes);
        let Some(session) = self.session_mut(id) else { return };
        session.unsent -= bytes;
        if matches!(session.blocked, Some(Bound::Output | Bound::Memory)) {
            // It may stand among the starved already; whoever reads goes first, trying twice is harmless.
            session.held = false;
            self.hold(id);
        }
    }

    fn closed(&mut self, id: ConnectionId, unsent: usize) {
        self.counters().connections_closed.add(1);
        let mut freed = unsent;
        if let Some(session) = self.session(id) {
            self.pending_bytes -= session.counted;
            freed += session.ready_bytes();
        }
        self.output_freed(freed);
    }

    fn detached(&mut self, id: ConnectionId, socket: OwnedFd) {
        let Some(mut session) = self.session(id) else { return };
        self.pending_bytes -= session.counted;
        self.counters().connections_closed.add(1);
        let Some((shard, hello_id)) = session.moving else { return };
        let neighbour = &self.neighbours[shard as usize];
        let pending = std::mem::take(&mut session.pending);
        // With a thousand connections waiting to move, one more is better closed than waited for.
        if neighbour.control.try_send(Control::Adopt { socket, hello_id, pending }).is_ok() {
            neighbour.waker.wake();
        }
    }
}

/// The first estimate of a forwarded reply, unless values cannot be so large.
const REPLY_ESTIMATE_FIRST: usize = 64 << 10;
/// A smaller reply moves the estimate by one part in this many.
const REPLY_ESTIMATE_MEMORY: usize = 16;
/// Milliseconds of expiry sweeps that one turn makes up for.
const EXPIRE_CATCH_UP_MS: u64 = 256;
/// Starved connections that one send lets try again.
const STARVED_PER_SEND: usize = 4;
/// How often gauges and histograms are left for readers, and stalled peers looked for.
const PUBLISH_MS: u64 = 250;
