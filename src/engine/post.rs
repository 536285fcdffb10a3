//! What one shard has under way at the others.
//!
//! A forwarded request travels as it arrived, in a box that comes back with the reply in it, and then serves the
//! next. So do parts of commands about several keys (RESP), steps of transactions, and news for another shard's
//! clients; each box says which errand it is on. At most `MAILBOX_SLOTS` are under way to each shard; the ring that
//! brings them back has as many slots, so an answer always finds one. Bytes are bounded too: requests
//! by the asker, who keeps count; replies by the shard that makes them, which stops serving an asker
//! that has not taken what is there.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::base::hash::KeyHash;
use crate::base::id::{ConnectionId, ShardId};
use crate::base::limits;
use crate::engine::mailbox::{Consumer, Producer, mailbox};
use crate::engine::session::Protocol;
use crate::engine::strong::Desk;
use crate::net::Waker;
use crate::observe::Operation;

/// What a box is sent for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errand {
    /// One request about a key, in the protocol it arrived in.
    Request(Protocol),
    /// One request about a key that its client did not send as it is (memcached).
    Key,
    /// Parts of commands of RESP, each answered with its length before it.
    Parts(Hold),
    /// What clients of the shard are to hear.
    News,
}

/// Whom a shard serves around the parts it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Everybody.
    No,
    /// From now on only the asker.
    Begin,
    /// Still only the asker.
    Keep,
    /// Everybody again, afterwards.
    End,
}

/// For whom a command is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// The client's number, where somebody asks (RESP); else 0.
    pub client: u64,
    /// It is answered in RESP3.
    pub is_resp3: bool,
    /// It is to hear when what it reads changes.
    pub tracks: bool,
}

/// A request on its way to the shard that owns its key, and back.
pub struct Forward {
    /// What it is sent for.
    pub errand: Errand,
    /// For whom.
    pub caller: Caller,
    /// News are delivered once so many replies of the sender have been taken in.
    pub after: u64,
    /// What its client asked for and when the turn began in which it did, where that is counted.
    pub asked: Option<Asked>,
    /// Who waits for it at home.
    pub connection: ConnectionId,
    /// And for which place in its queue of replies.
    pub sequence: u32,
    /// The key's hash, so that it is not computed twice.
    pub hash: KeyHash,
    /// The request as it arrived.
    pub frame: Vec<u8>,
    /// The reply, once there is one.
    pub reply: Vec<u8>,
}

/// A request as its client experiences it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    pub operation: Operation,
    /// When the turn began that received it, in nanoseconds of the process's clock.
    pub since_ns: u64,
}

/// What is put into a box.
pub struct Letter<'a> {
    pub errand: Errand,
    pub caller: Caller,
    pub asked: Option<Asked>,
    pub connection: ConnectionId,
    pub sequence: u32,
    pub hash: KeyHash,
    pub frame: &'a [u8],
}

/// The rings between a shard and one other.
pub struct Peer {
    pub shard: ShardId,
    requests_out: Producer<Box<Forward>>,
    replies_in: Consumer<Box<Forward>>,
    requests_in: Consumer<Box<Forward>>,
    replies_out: Producer<Box<Forward>>,
    under_way: usize,
    /// Those of them that are answered with something.
    answers_under_way: usize,
    served_in_turn: usize,
    replies_sent: u64,
    replies_taken: u64,
    /// Bytes of requests under way there.
    request_bytes: usize,
    /// Bytes of replies that we have made and they have not taken, and the other way round.
    reply_bytes_out: Arc<AtomicUsize>,
    reply_bytes_in: Arc<AtomicUsize>,
    /// Something was sent since it was last woken.
    wake_due: bool,
    waker: Option<Waker>,
}

/// All of a shard's rings.
#[derive(Default)]
pub struct Post {
    peers: Vec<Peer>,
    #[expect(clippy::vec_box, reason = "the boxes themselves travel; the vector only keeps them between trips")]
    spare: Vec<Box<Forward>>,
    /// Most bytes under way to or from one shard, each way; one message may exceed it alone.
    bytes_max: usize,
    /// Where strong keys are asked for, in a cluster.
    desk: Option<Desk>,
}

/// Makes the rings between `count` shards.
pub fn connect(count: u16) -> Vec<Post> {
    let mut posts: Vec<Post> = (0..count).map(|_| Post::default()).collect();
    for a in 0..count {
        for b in a + 1..count {
            let ring = || mailbox::<Box<Forward>>(limits::MAILBOX_SLOTS);
            let (requests_ab, requests_at_b) = ring();
            let (requests_ba, requests_at_a) = ring();
            let (replies_ab, replies_at_b) = ring();
            let (replies_ba, replies_at_a) = ring();
            let (bytes_ab, bytes_ba) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
            posts[a as usize].peers.push(Peer {
                shard: ShardId(b),
                requests_out: requests_ab,
                replies_in: replies_at_a,
                requests_in: requests_at_a,
                replies_out: replies_ab,
                under_way: 0,
                answers_under_way: 0,
                served_in_turn: 0,
                replies_sent: 0,
                replies_taken: 0,
                request_bytes: 0,
                reply_bytes_out: bytes_ab.clone(),
                reply_bytes_in: bytes_ba.clone(),
                wake_due: false,
                waker: None,
            });
            posts[b as usize].peers.push(Peer {
                shard: ShardId(a),
                requests_out: requests_ba,
                replies_in: replies_at_b,
                requests_in: requests_at_b,
                replies_out: replies_ba,
                under_way: 0,
                answers_under_way: 0,
                served_in_turn: 0,
                replies_sent: 0,
                replies_taken: 0,
                request_bytes: 0,
                reply_bytes_out: bytes_ba,
                reply_bytes_in: bytes_ab,
                wake_due: false,
                waker: None,
            });
        }
    }
    posts
}

impl Post {
    /// Shares `bytes` among the other shards as the bound of what is under way.
    pub fn set_bytes_max(&mut self, bytes: usize) {
        self.bytes_max = bytes / self.peers.len().max(1);
    }

    /// Tells the post how to wake the others.
    pub fn set_wakers(&mut self, waker_of: impl Fn(ShardId) -> Waker) {
        for peer in &mut self.peers {
            peer.waker = Some(waker_of(peer.shard));
        }
    }

    /// Gives the shard its way to the holders of strong keys.
    pub fn set_desk(&mut self, desk: Desk) {
        self.desk = Some(desk);
    }

    /// Whether there is a way to the holders of strong keys.
    pub fn has_desk(&self) -> bool {
        self.desk.is_some()
    }

    /// Whether anybody sends this shard anything.
    pub fn is_connected(&self) -> bool {
        !self.peers.is_empty() || self.desk.is_some()
    }

    /// Sends a request about a strong key to its holder; the caller has asked for room.
    pub fn ask_holder(&mut self, letter: &Letter<'_>) {
        let forward = self.boxed(letter, 0);
        if let Some(desk) = &mut self.desk {
            desk.send(forward);
        }
    }

    /// Whether another such request may be sent.
    pub fn holder_has_room(&self) -> bool {
        self.desk.as_ref().is_some_and(Desk::has_room)
    }

    fn boxed(&mut self, letter: &Letter<'_>, after: u64) -> Box<Forward> {
        let mut forward = self.spare.pop().unwrap_or_else(|| Box::new(Forward::empty()));
        forward.errand = letter.errand;
        forward.caller = letter.caller;
        forward.after = after;
        forward.asked = letter.asked;
        forward.connection = letter.connection;
        forward.sequence = letter.sequence;
        forward.hash = letter.hash;
        forward.frame.clear();
        forward.frame.extend_from_slice(letter.frame);
        forward.reply.clear();
        forward
    }

    /// Other shards.
    pub fn peer_count(&self) -> usize {
        self.peers.len()
    }

    /// Whether another request of `bytes` bytes may be sent to every other shard.
    pub fn all_have_room(&self, bytes: usize) -> bool {
        self.peers.iter().all(|peer| peer.has_room(bytes, self.bytes_max))
    }

    /// Sends a box to `shard`. Answers `false` if too many are under way there; bytes are asked for by
    /// [`Post::has_room`].
    pub fn send(&mut self, shard: ShardId, letter: Letter<'_>) -> bool {
        let Some(place) = self.peers.iter().position(|peer| peer.shard == shard) else {
            panic!("shard {shard} does not exist, yet a key hashed to it");
        };
        // Bytes are the caller's to ask about: what must not wait (transactions, news) has bounds of its own.
        if !self.peers[place].has_slot() {
            return false;
        }
        let forward = self.boxed(&letter, self.peers[place].replies_sent);
        let peer = &mut self.peers[place];
        peer.answers_under_way += usize::from(letter.errand != Errand::News);
        peer.request_bytes += letter.frame.len();
        let sent = peer.requests_out.send(forward);
        assert!(sent.is_ok(), "fewer were under way than the ring has slots");
        peer.under_way += 1;
        peer.wake_due = true;
        true
    }

    /// Whether another request of `bytes` bytes may be sent to `shard`.
    pub fn has_room(&self, shard: ShardId, bytes: usize) -> bool {
        self.peers.iter().any(|peer| peer.shard == shard && peer.has_room(bytes, self.bytes_max))
    }

    /// Sends a native request to every other shard; the caller has asked [`Post::all_have_room`].
    pub fn send_to_all(&mut self, connection: ConnectionId, sequence: u32, frame: &[u8]) {
        for index in 0..self.peers.len() {
            let (shard, errand) = (self.peers[index].shard, Errand::Request(Protocol::Native));
            let caller = Caller::default();
            let sent =
                self.send(shard, Letter { errand, caller, asked: None, connection, sequence, hash: KeyHash(0), frame });
            assert!(sent, "room was asked for before");
        }
    }

    /// Begins a turn: a bounded number of each other shard's requests is answered in it.
    pub fn begin_turn(&mut self) {
        self.peers.iter_mut().for_each(|peer| peer.served_in_turn = 0);
    }

    /// The next request of another shard, of `only` if one is named, and whose it is. Give it to
    /// [`Post::give_back`] with its reply.
    pub fn next_request(&mut self, only: Option<ShardId>) -> Option<(ShardId, Box<Forward>)> {
        for peer in &mut self.peers {
            // They have not taken what is there, or had their share of the turn.
            let is_over = peer.reply_bytes_out.load(Ordering::Relaxed) > self.bytes_max
                || peer.served_in_turn == limits::FORWARDED_PER_TURN;
            if is_over && only.is_none() || only.is_some_and(|only| only != peer.shard) {
                continue;
            }
            if let Some(forward) = peer.requests_in.receive() {
                peer.served_in_turn += 1;
                return Some((peer.shard, forward));
            }
        }
        None
    }

    /// Sends a request of `shard` back, answered.
    pub fn give_back(&mut self, shard: ShardId, forward: Box<Forward>) {
        let Some(peer) = self.peers.iter_mut().find(|peer| peer.shard == shard) else { return };
        peer.reply_bytes_out.fetch_add(forward.reply.len(), Ordering::Relaxed);
        let sent = peer.replies_out.send(forward);
        assert!(sent.is_ok(), "the asker keeps fewer under way than this ring has slots");
        peer.replies_sent += 1;
        peer.wake_due = true;
    }

    /// How many replies of `shard` have been taken in.
    pub fn replies_taken(&self, shard: ShardId) -> u64 {
        self.peers.iter().find(|peer| peer.shard == shard).map_or(0, |peer| peer.replies_taken)
    }

    /// The next answer that has come back. Give it to [`Post::recycle`] afterwards.
    pub fn next_reply(&mut self) -> Option<(ShardId, Box<Forward>)> {
        for peer in &mut self.peers {
            if let Some(forward) = peer.replies_in.receive() {
                peer.under_way -= 1;
                peer.answers_under_way -= usize::from(forward.errand != Errand::News);
                peer.replies_taken += 1;
                peer.request_bytes -= forward.frame.len();
                peer.reply_bytes_in.fetch_sub(forward.reply.len(), Ordering::Relaxed);
                return Some((peer.shard, forward));
            }
        }
        let desk = self.desk.as_mut()?;
        desk.next_reply().map(|forward| (HOLDER, forward))
    }

    /// Keeps a box for the next request, unless it has grown large.
    pub fn recycle(&mut self, forward: Box<Forward>) {
        let small = forward.frame.capacity() + forward.reply.capacity() <= SPARE_BYTES_MAX;
        if small && self.spare.len() < SPARE_MAX {
            self.spare.push(forward);
        }
    }

    /// Wakes those who got something in this turn, if they sleep.
    pub fn wake(&mut self) {
        for peer in &mut self.peers {
            if std::mem::take(&mut peer.wake_due)
                && let Some(waker) = &peer.waker
            {
                waker.wake();
            }
        }
        if let Some(desk) = &mut self.desk {
            desk.wake();
        }
    }

    /// Whether something waits to be taken.
    pub fn has_mail(&self) -> bool {
        self.peers.iter().any(|peer| peer.requests_in.has_message() || peer.replies_in.has_message())
            || self.desk.as_ref().is_some_and(Desk::has_reply)
    }

    /// Requests under way at other shards that are answered with something.
    pub fn answers_under_way(&self) -> usize {
        self.peers.iter().map(|peer| peer.answers_under_way).sum::<usize>() + self.strong_under_way()
    }

    /// Requests under way at other shards.
    pub fn under_way(&self) -> usize {
        self.peers.iter().map(|peer| peer.under_way).sum::<usize>() + self.strong_under_way()
    }

    fn strong_under_way(&self) -> usize {
        self.desk.as_ref().map_or(0, Desk::under_way)
    }
}

impl Forward {
    pub(super) fn empty() -> Forward {
        Forward {
            errand: Errand::News,
            caller: Caller::default(),
            after: 0,
            asked: None,
            connection: ConnectionId::default(),
            sequence: 0,
            hash: KeyHash(0),
            frame: Vec::new(),
            reply: Vec::new(),
        }
    }
}

impl Peer {
    fn has_room(&self, bytes: usize, bytes_max: usize) -> bool {
        self.has_slot() && (bytes == 0 || self.under_way == 0 || self.request_bytes + bytes <= bytes_max)
    }

    fn has_slot(&self) -> bool {
        self.under_way < limits::MAILBOX_SLOTS
    }
}

/// Whom a strong key's answer is from: no shard.
const HOLDER: ShardId = ShardId(u16::MAX);
/// Boxes kept for reuse, and the capacity above which one is not.
const SPARE_MAX: usize = 64;
const SPARE_BYTES_MAX: usize = 4096;
