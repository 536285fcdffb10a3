//! A shard without its network: what the network calls, and the bounds on what connections may hold.
//!
//! Every connection has a session; what one session may make others pay is bounded here:
//!
//!   received -> [turn's share used up?] -> batch::serve -> out -> sent
//!                 | yes: bytes gather in the session, tried again next turn

use std::collections::{HashMap, VecDeque};
use std::net::TcpStream;
use std::ops::DerefMut;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam::channel::Receiver;

use crate::base::hash::{BuildMix, KeyHash};
use crate::base::id::{ConnectionId, ShardId};
use crate::base::limits;
use crate::base::time::Instant;
use crate::cache::Store;
use crate::engine::interest::Interest;
use crate::engine::keys::Keys;
use crate::engine::l0::L0;
use crate::engine::post::{Asked, Forward, Post};
use crate::engine::replica::Replication;
use crate::engine::resp::client::Client;
use crate::engine::resp::config::EXPIRIES;
use crate::engine::resp::pubsub::PubSub;
use crate::engine::resp::tracking::{self, Tracking};
use crate::engine::resp::transaction::Transaction;
use crate::engine::resp::watch::Watches;
use crate::engine::session::{Bound, Protocol, Session};
use crate::engine::shard::{Control, Neighbour, Shared};
use crate::engine::tenants::Tenants;
use crate::net::{Flow, Handler};
use crate::observe::calls::OpenCalls;
use crate::observe::hot::HotKeys;
use crate::observe::service::BatchCounts;
use crate::observe::{Operation, ShardCounters};
use crate::wire::native::{self, ServerHello};
use crate::wire::{Command, Reply, Request, Status};

/// A shard without its network, so that the network can call it.
pub struct Core<M> {
    pub(super) id: ShardId,
    pub(super) shared: Arc<Shared>,
    /// The entries, and who is to hear of a change.
    pub(super) keys: Keys<M>,
    pub(super) sessions: Vec<Option<Box<Session>>>,
    pub(super) post: Post,
    pub(super) neighbours: Vec<Neighbour>,
    pub(super) control: Receiver<Control>,
    pub(super) now: Instant,
    /// What each listener's connections speak.
    pub(super) protocols: Vec<Protocol>,
    pub(super) value_bytes_max: usize,
    /// Bytes that connections may buffer, each way.
    pub(super) buffer_bytes_max: usize,
    pub(super) output_bytes_high: usize,
    /// Bytes of output that have not left.
    pub(super) output_bytes: usize,
    /// Bytes of replies that wait for other parts of theirs.
    pub(super) gathered_bytes: usize,
    /// What a reply from another shard is expected to hold: the largest lately, slowly forgotten. It
    /// begins high, so that the first deep pipeline of large values does not overrun the bound.
    pub(super) reply_estimate: usize,
    /// Bytes of incomplete and held-back requests.
    pub(super) pending_bytes: usize,
    /// Connections that were held back by a bound, to be tried again in the next turn.
    pub(super) held: Vec<ConnectionId>,
    /// Connections held back by [`Bound::Memory`], in order.
    pub(super) starved: VecDeque<ConnectionId>,
    /// When this turn began, in nanoseconds of the process's clock, and whether the one before had work.
    pub(super) turn_began_ns: u64,
    /// See `turn_began_ns`.
    pub(super) worked: bool,
    /// Requests served in this turn.
    pub(super) turn_counts: BatchCounts,
    /// Where the search for stalled connections is, and how many it has looked at in this round.
    pub(super) stall_cursor: usize,
    /// See `stall_cursor`.
    pub(super) stall_looks: usize,
    /// Turns so far.
    pub(super) turn: u64,
    /// A forwarded request on its way into its box.
    pub(super) forward_scratch: Vec<u8>,
    /// Requests served in this turn that a bound had held back, and when the turn began that received them.
    pub(super) held_counts: Vec<(BatchCounts, u64)>,
    /// Requests whose answers other shards gave in this turn.
    pub(super) answered_elsewhere: Vec<Asked>,
    /// What the last command that was more than a request counts as.
    pub(super) front_operation: Operation,
    pub(super) hot_keys: HotKeys,
    /// When a read was last looked at for it.
    pub(super) hot_sampled: Instant,
    pub(super) swept_at: Instant,
    pub(super) published_at: Instant,
    pub(super) stopping: Option<Instant>,
    pub(super) last_work: Instant,
    /// Clients of RESP, by their numbers.
    pub(super) clients: HashMap<u64, Client, BuildMix>,
    pub(super) pubsub: PubSub,
    /// Calls of RESP in this turn, and commands that were refused for their words.
    pub(super) calls: OpenCalls,
    /// See `calls`.
    pub(super) open_calls_rejected: u64,
    /// What connections are told unasked, at the end of the turn.
    pub(super) pushes: Vec<(ConnectionId, Arc<[u8]>)>,
    /// What CLIENT TRACKING wants all shards to broadcast.
    pub(super) to_broadcast: Option<Vec<u8>>,
    /// Bytes of messages written in this turn.
    pub(super) push_bytes: usize,
    /// Connections whose replies came from a transaction, to be sent at the end of the turn.
    pub(super) answered: Vec<ConnectionId>,
    /// Connections to be closed at the end of the turn.
    pub(super) to_close: Vec<ConnectionId>,
    /// News for clients of other shards, by shard, and how many bytes they are.
    pub(super) news: VecDeque<(ShardId, Vec<u8>)>,
    /// See `news`.
    pub(super) news_bytes: usize,
    /// When news are shortened next.
    pub(super) news_bytes_high: usize,
    /// News that came before the replies they follow.
    pub(super) late_news: VecDeque<(ShardId, Box<Forward>)>,
    /// A transaction of one of our connections that waits for other shards.
    pub(super) transaction: Option<Box<Transaction>>,
    /// The shard whose transaction alone is served now.
    pub(super) holder: Option<ShardId>,
    /// What is remembered for clients of RESP: commands in MULTI, watched keys, channels.
    pub(super) remembered_bytes: usize,
    /// The moment everything was last removed that somebody had named before (memcached).
    pub(super) flushed_at: u64,
    /// When the store was last told what time it is.
    pub(super) noted_at: Instant,
    /// Since when memory has been full by what CONFIG SET said.
    pub(super) full_since: Option<Instant>,
    /// Why every command of RESP must be looked at; 0 if there is no reason.
    pub(super) attention: u32,
    /// Keys that clients' caches are told about: what memory allows, and what CONFIG SET last said.
    pub(super) tracked_keys_max: usize,
    /// See `tracked_keys_max`.
    pub(super) tracked_keys_wanted: usize,
}

/// What a core is made of.
pub struct Parts<M> {
    pub id: ShardId,
    pub shared: Arc<Shared>,
    pub store: Store<M>,
    pub l0: Option<Box<L0>>,
    pub replication: Option<Box<Replication>>,
    pub post: Post,
    pub neighbours: Vec<Neighbour>,
    pub control: Receiver<Control>,
    /// What the connections of each listener speak.
    pub protocols: Vec<Protocol>,
    /// Bytes that connections may buffer.
    pub connection_bytes: u64,
}

impl<M: DerefMut<Target = [u8]>> Core<M> {
    pub fn new(parts: Parts<M>) -> Core<M> {
        let Parts { id, shared, store, l0, replication, mut post, neighbours, control, protocols, connection_bytes } =
            parts;
        let value_bytes_max = Store::<M>::value_bytes_max(store.item_bytes_max(), limits::KEY_BYTES_MAX);
        let buffer_bytes_max = connection_bytes as usize / 2;
        post.set_bytes_max(buffer_bytes_max / 4);
        let tracked_keys_max = limits::TRACKED_KEYS_MAX.min(connection_bytes as usize / tracking::KEY_BYTES / 8);
        Core {
            id,
            keys: Keys {
                store,
                l0,
                interest: Interest::new(shared.seed, id, connection_bytes),
                watches: Watches::default(),
                tracking: Tracking::new(tracked_keys_max),
                observer: None,
                tenants: shared.tenants.get(id.0 as usize).and_then(|counters| Tenants::new(counters.clone())),
                replication,
                now: Instant::default(),
                unix_zero_ms: shared.resp.unix_zero_ms,
                client: 0,
            },
            shared,
            sessions: Vec::new(),
            post,
            neighbours,
            control,
            now: Instant::default(),
            protocols,
            value_bytes_max,
            buffer_bytes_max,
            output_bytes_high: (buffer_bytes_max / 8).clamp(16 << 10, limits::OUTPUT_BYTES_HIGH),
            output_bytes: 0,
            gathered_bytes: 0,
            reply_estimate: value_bytes_max.min(REPLY_ESTIMATE_FIRST),
            pending_bytes: 0,
            held: Vec::new(),
            starved: VecDeque::new(),
            turn_began_ns: 0,
            worked: false,
            turn_counts: BatchCounts::default(),
            turn: 0,
            stall_cursor: 0,
            stall_looks: 0,
            forward_scratch: Vec::new(),
            held_counts: Vec::new(),
            answered_elsewhere: Vec::new(),
            front_operation: Operation::Other,
            hot_keys: HotKeys::default(),
            hot_sampled: Instant::default(),
            swept_at: Instant::default(),
            published_at: Instant::default(),
            stopping: None,
            last_work: Instant::default(),
            clients: HashMap::default(),
            pubsub: PubSub::default(),
            calls: OpenCalls::default(),
            open_calls_rejected: 0,
            pushes: Vec::new(),
            to_broadcast: None,
            push_bytes: 0,
            news_bytes_high: 0,
            to_close: Vec::new(),
            answered: Vec::new(),
            tracked_keys_max,
            tracked_keys_wanted: 0,
            news: VecDeque::new(),
            news_bytes: 0,
            late_news: VecDeque::new(),
            transaction: None,
            holder: None,
            remembered_bytes: 0,
            flushed_at: u64::MAX,
            noted_at: Instant::default(),
            full_since: None,
            attention: 0,
        }
    }

    /// Reads the clock, and books the turn that has ended.
    #[inline]
    pub(super) fn begin_turn(&mut self) {
        let now_ns = self.shared.started.elapsed().as_nanos() as u64;
        if std::mem::take(&mut self.worked) {
            let (place, ns) = (self.id.0 as usize, now_ns - self.turn_began_ns);
            self.counters().busy_ns.add(ns);
            let counts = std::mem::take(&mut self.turn_counts);
            match self.held_counts.is_empty() {
                true => self.shared.times[place].record(counts, ns, counts.sum()),
                false => self.record_held(counts, ns, now_ns),
            }
            self.calls.record(&self.shared.calls[place], ns);
            for Asked { operation, since_ns } in self.answered_elsewhere.drain(..) {
                self.shared.times[place].record_forwarded(operation, now_ns - since_ns);
            }
            if let Some(tenants) = self.keys.tenants.as_deref_mut() {
                tenants.end_turn(ns);
            }
        }
        self.turn_began_ns = now_ns;
        self.now = Instant::from_ms(now_ns / 1_000_000);
        self.keys.now = self.now;
    }

    /// Books a turn in which requests were served that had come in earlier ones.
    #[cold]
    fn record_held(&mut self, counts: BatchCounts, ns: u64, now_ns: u64) {
        let times = &self.shared.times[self.id.0 as usize];
        let all = counts.sum() + self.held_counts.iter().map(|(counts, _)| counts.sum()).sum::<u32>();
        times.record(counts, ns, all);
        for (counts, since_ns) in self.held_counts.drain(..) {
            times.record_held(counts, ns / u64::from(all.max(1)), now_ns - since_ns);
        }
    }

    /// When the turn began that received what is served now.
    #[inline]
    pub(super) fn asked_since(&self, session: &Session) -> u64 {
        match session.held_since_ns {
            0 => self.turn_began_ns,
            since => since,
        }
    }

    /// Takes over what other shards' clients have asked of all: a pause, say. In every turn, for they have been told
    /// that it is so.
    #[inline]
    pub(super) fn heed_others(&mut self) {
        self.attention = self.shared.resp.attention.load(Ordering::Relaxed);
        self.keys.tracking.tells_expiries = self.attention & EXPIRIES != 0;
    }

    pub(super) fn counters(&self) -> &ShardCounters {
        &self.shared.counters[self.id.0 as usize]
    }

    /// Answers the HELLO that brought a connection here.
    pub(super) fn greet(&mut self, id: ConnectionId, hello_id: u32, out: &mut Vec<u8>) {
        let before = out.len();
        self.answer_hello(hello_id, out);
        let written = out.len() - before;
        self.output_bytes += written;
        if let Some(session) = self.session_mut(id) {
            session.unsent += written;
        }
    }

    pub(super) fn answer_hello(&self, id: u32, out: &mut Vec<u8>) {
        let hello = ServerHello {
            shard_count: self.shared.counters.len() as u16,
            shard: self.id.0,
            key_bytes_max: limits::KEY_BYTES_MAX as u32,
            value_bytes_max: self.value_bytes_max as u32,
            features: if self.shared.region_map.is_set() { native::FEATURE_MAP } else { 0 },
            hash_seed: self.shared.seed.0,
            server: concat!("spinetail ", env!("CARGO_PKG_VERSION")).to_string(),
        };
        let value = hello.encode();
        let opcode = native::opcode_of(&Command::Hello { shard: None });
        native::encode_reply(id, opcode, &Reply { status: Status::Ok, value: &value, number: 0 }, out);
    }

    /// The bound that keeps a connection from being answered more; `fresh` is output of its own not
    /// counted yet, `next` the request it would be answered. Below half of the shard's output memory
    /// everybody may go on. Above it only those who have nothing waiting and ask for little, up to the
    /// whole: many who ask for much and read nothing must not take the rest from those who read.
    #[inline]
    pub(super) fn bound_reached(
        &mut self,
        session: &Session,
        fresh: usize,
        next: Option<(&Request<'_>, KeyHash)>,
    ) -> Option<Bound> {
        let expected = self.post.answers_under_way() * self.reply_estimate;
        let total = self.output_bytes + self.gathered_bytes + fresh + expected;
        if session.served_in_turn >= limits::REQUESTS_PER_TURN {
            Some(Bound::Turn)
        } else if session.output_bytes() >= self.output_bytes_high {
            Some(Bound::Output)
        } else if session.awaited_count() >= limits::FORWARDED_MAX {
            Some(Bound::Replies)
        } else if total >= self.buffer_bytes_max / 2 && self.is_too_much(session, total, next) {
            Some(Bound::Memory)
        } else {
            None
        }
    }

    /// Whether a connection must wait now that half of the output memory is taken.
    #[cold]
    fn is_too_much(&mut self, session: &Session, total: usize, next: Option<(&Request<'_>, KeyHash)>) -> bool {
        if total >= self.buffer_bytes_max || session.output_bytes() > 0 || !session.is_in_order() {
            return true;
        }
        let Some((request, hash)) = next else { return false };
        let key = match request.command {
            Command::Get { key } | Command::GetTracked { key, .. } => key,
            Command::Memcached { key, ask } if ask.is_read() => key,
            _ => return false,
        };
        let found = self.keys.store.peek(hash, key, self.now);
        found.is_some_and(|item| item.value.len() > limits::SMALL_FRAME_BYTES)
    }

    /// How long a peer may take nothing of its replies: less when their memory runs short.
    pub(super) fn send_stall_ms(&self) -> u64 {
        let is_short = self.output_bytes >= self.buffer_bytes_max / 2;
        if is_short { limits::SEND_STALL_SHORT_MS } else { limits::SEND_STALL_MS }
    }

    /// Whether the `arrived` first bytes of a frame of `needed` may be kept until the rest comes.
    /// Only what has arrived counts: a promise in a header takes nothing from others.
    pub(super) fn may_keep(&self, session: &Session, arrived: usize, needed: usize) -> bool {
        let extra = arrived.saturating_sub(session.counted);
        needed <= limits::SMALL_FRAME_BYTES || self.pending_bytes + extra <= self.buffer_bytes_max
    }

    /// Keeps what was not used for the next call, and the books right.
    pub(super) fn keep(&mut self, session: &mut Session, mut bytes: Vec<u8>, used: usize) {
        if used == bytes.len() {
            bytes.clear();
            session.pending_from = 0;
            if bytes.capacity() > limits::SMALL_FRAME_BYTES {
                bytes = Vec::new(); // a large buffer is given back, a small one kept for the next fragment
            }
        } else if used > bytes.len() / 2 {
            bytes.drain(..used);
            session.pending_from = 0;
        } else {
            session.pending_from = used;
        }
        self.pending_bytes = self.pending_bytes + bytes.len() - session.counted;
        session.counted = bytes.len();
        session.pending = bytes;
    }

    /// Whether a connection that was held back may be tried again.
    pub(super) fn may_go_on(&mut self, id: ConnectionId) -> bool {
        let Some(mut session) = self.session(id) else { return false };
        session.begin_turn(self.turn);
        let bound = self.bound_reached(&session, 0, None);
        if bound.is_some() {
            session.blocked = bound;
        }
        self.sessions[id.slot as usize] = Some(session);
        bound.is_none()
    }

    /// Whether a connection waits for its share of another turn.
    pub(super) fn takes_another_turn(&self, id: ConnectionId) -> bool {
        let session = self.sessions.get(id.slot as usize).and_then(Option::as_ref);
        session.is_some_and(|session| session.id == id && session.blocked == Some(Bound::Turn))
    }

    /// Puts a connection on the list of those to try again, once.
    pub(super) fn hold(&mut self, id: ConnectionId) {
        if let Some(session) = self.session_mut(id)
            && !session.held
        {
            session.held = true;
            self.held.push(id);
        }
    }

    /// Files a blocked connection where the event that frees it will find it.
    pub(super) fn wait(&mut self, id: ConnectionId) {
        match self.session_mut(id).and_then(|session| session.blocked) {
            Some(Bound::Mailbox | Bound::Turn | Bound::Hold) => self.hold(id),
            Some(Bound::Memory) => {
                if let Some(session) = self.session_mut(id)
                    && !session.held
                {
                    session.held = true;
                    self.starved.push_back(id);
                }
            }
            Some(Bound::Output | Bound::Replies | Bound::Answer) | None => {}
        }
    }

    /// Lets some of those who starved try again. Called when output memory is freed, and now and then: those
    /// whom it wakes may be gone or blocked by something else, and must not be the last.
    pub(super) fn feed_starved(&mut self) {
        let mut fed = 0;
        while fed < STARVED_PER_SEND
            && let Some(id) = self.starved.pop_front()
        {
            if let Some(session) = self.session_mut(id) {
                session.held = false;
                self.hold(id);
                fed += 1;
            }
        }
    }

    /// Some output has left or will never be sent: those who starved may try again.
    pub(super) fn output_freed(&mut self, bytes: usize) {
        self.output_bytes -= bytes;
        self.feed_starved();
    }

    /// The next connection that began a request and has sent nothing of the rest for too long. Each call
    /// goes on where the last one stopped, a bounded number of connections in all; `None` ends a round.
    pub(super) fn next_half_sent(&mut self) -> Option<ConnectionId> {
        while self.stall_looks < limits::STALL_LOOKS_PER_MS.min(self.sessions.len()) {
            self.stall_looks += 1;
            self.stall_cursor = (self.stall_cursor + 1) % self.sessions.len();
            let Some(session) = &self.sessions[self.stall_cursor] else { continue };
            let waits = !session.pending.is_empty() && session.blocked.is_none() && session.moving.is_none();
            if waits && session.arrived.ms_until(self.now) >= limits::RECEIVE_STALL_MS {
                return Some(session.id);
            }
        }
        self.stall_looks = 0;
        None
    }

    pub(super) fn session_mut(&mut self, id: ConnectionId) -> Option<&mut Session> {
        self.sessions.get_mut(id.slot as usize)?.as_deref_mut().filter(|session| session.id == id)
    }

    pub(super) fn session(&mut self, id: ConnectionId) -> Option<Box<Session>> {
        self.sessions.get_mut(id.slot as usize)?.take_if(|session| session.id == id)
    }
}

impl<M: DerefMut<Target = [u8]>> Handler for Core<M> {
    fn opened(&mut self, id: ConnectionId, listener: usize) {
        let protocol = self.protocols.get(listener).copied().unwrap_or_default();
        let slot = id.slot as usize;
        if self.sessions.len() <= slot {
            self.sessions.resize_with(slot + 1, || None);
        }
        let mut session = Box::new(Session::new(id, protocol));
        if protocol == Protocol::Resp {
            session.client = self.introduce(id);
        }
        self.sessions[slot] = Some(session);
        self.counters().connections_opened.add(1);
    }

    fn met(&mut self, id: ConnectionId, socket: BorrowedFd<'_>) {
        let Some(client) = self.session_mut(id).map(|session| session.client).filter(|client| *client != 0) else {
            return;
        };
        // Only clients of RESP ask who is connected.
        let (descriptor, peer) = (socket.as_raw_fd(), socket.try_clone_to_owned().map(TcpStream::from));
        let Ok(peer) = peer else { return };
        self.note_addresses(client, descriptor, peer.peer_addr().ok(), peer.local_addr().ok());
    }

    fn received(&mut self, id: ConnectionId, bytes: &[u8], out: &mut Vec<u8>) -> Flow {
        self.counters().received_bytes.add(bytes.len() as u64);
        let Some(mut session) = self.session(id) else { return Flow::Close };
        session.begin_turn(self.turn);
        if !bytes.is_empty() {
            session.arrived = self.now;
        }
        let mut flow = if session.moving.is_some() {
            session.pending.extend_from_slice(bytes);
            Flow::Detach
        } else if session.served_in_turn >= limits::REQUESTS_PER_TURN {
            let mut pending = std::mem::take(&mut session.pending);
            pending.extend_from_slice(bytes);
            let from = session.pending_from;
            self.keep(&mut session, pending, from);
            session.blocked = Some(Bound::Turn);
            session.held_since_ns = self.asked_since(&session);
            Flow::Pause
        } else if session.pending.len() - session.pending_from + bytes.len() < session.needed {
            // A long frame comes in many pieces: it is looked at again when it may be whole.
            let mut pending = std::mem::take(&mut session.pending);
            pending.extend_from_slice(bytes);
            let from = session.pending_from;
            self.keep(&mut session, pending, from);
            Flow::Continue
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
            let from = session.pending_from;
            let (used, flow) = self.serve(id, &mut session, &pending[from..], out);
            self.keep(&mut session, pending, from + used);
            flow
        };
        if session.is_over() && flow != Flow::Detach {
            flow = Flow::Close;
        }
        if flow == Flow::Pause
            && session.blocked == Some(Bound::Turn)
            && session.pending.len() < limits::WAITING_BYTES_HIGH
        {
            // It goes on in a moment: reading on meanwhile is cheaper than stopping and starting again.
            flow = Flow::Continue;
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
            self.gathered_bytes -= session.gathered_bytes();
            self.unsubscribe(&session);
            self.forget_client(session.client);
        }
        self.output_freed(freed);
    }

    fn detached(&mut self, id: ConnectionId, socket: OwnedFd) {
        let Some(mut session) = self.session(id) else { return };
        self.pending_bytes -= session.counted;
        self.unsubscribe(&session);
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
/// Starved connections that one send lets try again.
const STARVED_PER_SEND: usize = 4;
