//! The turn of a shard: network, mail, control, housekeeping.
//!
//! A turn never blocks and never waits. It is called again and again by an executor; what it
//! answers says whether there was anything to do.

use std::ops::DerefMut;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam::channel::Sender;

use crate::base::hash::HashSeed;
use crate::base::limits;
use crate::base::time::Instant;
use crate::engine::core::Core;
use crate::engine::errand::Errands;
use crate::engine::interest::{close_subscribers, push_news};
use crate::engine::l0::ReaderFile;
use crate::engine::memcached::MemcachedShared;
use crate::engine::post::{Errand, Hold};
use crate::engine::region_map::RegionMapBytes;
use crate::engine::resp::config::{FULL, PAUSED, RespShared};
use crate::engine::session::Bound;
use crate::net::shm::Rings;
use crate::net::{Flow, Handler, Network, Waker, WithShm};
use crate::observe::ShardCounters;
use crate::observe::calls::Calls;
use crate::observe::hot::PublishedHotKeys;
use crate::observe::tenants::TenantCounters;
use crate::observe::{Counter, EvictedIdle, ServiceTimes};

/// What all shards of a process share, for reading.
pub struct Shared {
    /// Each shard's counters.
    pub counters: Vec<ShardCounters>,
    /// Each shard's service times.
    pub times: Vec<ServiceTimes>,
    /// How long entries had been idle that each shard evicted.
    pub evicted_idle: Vec<EvictedIdle>,
    /// The keys each shard is asked for most.
    pub hot_keys: Vec<PublishedHotKeys>,
    /// When each shard last took a turn, in milliseconds of the process's clock; a quarter of a second behind at most.
    pub beats_ms: Vec<Counter>,
    /// The tenants whose use is counted apart, by shard; empty if there is one for all keys.
    pub tenants: Vec<TenantCounters>,
    /// Each shard's calls of RESP, by command.
    pub calls: Vec<Calls>,
    /// The seed of the key hash.
    pub seed: HashSeed,
    /// When the process's clock started.
    pub started: std::time::Instant,
    /// What they share of RESP.
    pub resp: RespShared,
    /// What they share of memcached's protocol.
    pub memcached: MemcachedShared,
    /// What MAP is answered with.
    pub region_map: RegionMapBytes,
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
    /// Serve this connection through shared memory; its socket says whether the peer lives.
    Attach { socket: OwnedFd, rings: Box<Rings> },
    /// Hear what this reader in shared memory reports.
    Listen(Arc<ReaderFile>),
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
    net: WithShm<N>,
    core: Core<M>,
    /// The clock was read in the last turn.
    clock_is_fresh: bool,
}

impl<N: Network, M: DerefMut<Target = [u8]>> Shard<N, M> {
    pub fn new(net: N, core: Core<M>) -> Shard<N, M> {
        Shard { net: WithShm::new(net), core, clock_is_fresh: false }
    }

    /// Does what there is to do. Answers whether there was anything.
    pub fn turn(&mut self) -> Result<bool, String> {
        // After a turn with work the clock is read anew. After one without it was read a few looks ago,
        // some hundred nanoseconds: not worth the 22 ns that reading it takes, while a request waits.
        let found = self.core.worked || self.look();
        if self.core.worked || !found || !self.clock_is_fresh {
            self.core.begin_turn();
            self.clock_is_fresh = true;
        } else {
            self.clock_is_fresh = false;
        }
        self.core.heed_others();
        let now = self.core.now;
        if !found && now == self.core.swept_at {
            return Ok(false);
        }
        self.core.turn += 1;
        if now > self.core.swept_at {
            self.core.keep_time();
        }
        let polled = self.net.poll(&mut self.core, now);
        let mut worked = polled.map_err(|error| format!("shard {}: the network failed: {error}", self.core.id))?;
        if self.core.post.is_connected() {
            worked |= self.take_mail();
        }
        if !self.core.control.is_empty() {
            self.take_control()?;
            worked = true;
        }
        if self.core.keys.replication.is_some() {
            worked |= self.core.replicate();
        }
        if !self.core.held.is_empty() {
            worked |= self.retry_held();
        }
        if self.core.keys.interest.has_news() {
            worked |= push_news(&mut self.net, &mut self.core);
        }
        if self.core.has_something_to_tell() {
            self.deliver();
            worked = true;
        }
        self.core.post.wake();
        if now > self.core.swept_at {
            // A shard that has slept makes up for it, within a bound.
            let elapsed = self.core.swept_at.ms_until(now).min(EXPIRE_CATCH_UP_MS) as usize;
            self.core.swept_at = now;
            self.core.keys.store.expire(now, limits::EXPIRE_SEGMENTS_PER_MS * elapsed, limits::EXPIRE_ITEMS_PER_MS);
            if let Some(l0) = &mut self.core.keys.l0 {
                let place = self.core.id.0 as usize;
                let (counters, tenants) = (&self.core.shared.counters[place], self.core.shared.tenants.get(place));
                l0.housekeep(&mut self.core.keys.store, counters, tenants, now);
            }
            self.core.look_around();
            self.close_stalled();
            if self.core.output_bytes < self.core.buffer_bytes_max / 2 {
                self.core.feed_starved();
            }
            if self.core.published_at.ms_until(now) >= PUBLISH_MS {
                self.housekeeping();
            }
        }
        if worked {
            self.core.last_work = now;
        }
        self.core.worked = worked;
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
        let busy = self.core.post.has_mail()
            || self.core.has_something_to_tell()
            || !self.core.late_news.is_empty()
            || !self.core.control.is_empty()
            || !self.core.held.is_empty()
            || self.core.keys.replication.as_ref().is_some_and(|replication| replication.has_work());
        if busy || self.core.stopping.is_some() {
            self.net.disarm();
            return false;
        }
        true
    }

    /// The opposite of [`Shard::arm`].
    pub fn disarm(&mut self) {
        self.net.disarm();
        // It may have slept: the next turn must not go by the time at which it lay down, or what has expired
        // meanwhile is served once more, and what is written now lives that much too short.
        self.clock_is_fresh = false;
    }

    /// The network, for its driver.
    pub fn net_mut(&mut self) -> &mut N {
        self.net.inner_mut()
    }

    /// Looks for something to do a few times. Answers whether there is, as far as that can be told
    /// without a system call.
    #[inline]
    fn look(&mut self) -> bool {
        if !self.core.held.is_empty() || !self.core.control.is_empty() {
            return true;
        }
        if self.core.keys.replication.as_ref().is_some_and(|replication| replication.has_mail()) {
            return true;
        }
        let has_peers = self.core.post.is_connected();
        for _ in 0..limits::LOOKS_PER_TURN {
            if self.net.is_ready() || (has_peers && self.core.post.has_mail()) {
                return true;
            }
            if !self.net.has_ports() {
                std::hint::spin_loop(); // a round trip through shared memory is shorter than a few of these
            }
        }
        false
    }

    /// When the last turn began, by the clock of the process.
    pub fn turn_began(&self) -> Duration {
        Duration::from_nanos(self.core.turn_began_ns)
    }

    /// The clock of the process, read now.
    pub fn clock(&self) -> Duration {
        self.core.shared.started.elapsed()
    }

    fn take_mail(&mut self) -> bool {
        let core = &mut self.core;
        let (mut served, mut answered) = (0, 0);
        core.post.begin_turn();
        while let Some((from, mut forward)) = core.post.next_request(core.holder) {
            served += 1;
            match core.run_errand(from, &mut forward) {
                Errands::Answered => core.post.give_back(from, forward),
                Errands::Late => core.late_news.push_back((from, forward)),
            }
        }
        // Replies that find the output memory full wait where they are; their maker waits with them. Those that a
        // transaction needs go on, or all would wait.
        while (core.output_bytes < core.buffer_bytes_max || core.transaction.is_some())
            && let Some((from, mut forward)) = core.post.next_reply()
        {
            answered += 1;
            if let Errand::Parts(hold) = forward.errand
                && hold != Hold::No
            {
                core.transaction_answered(from, std::mem::take(&mut forward.reply));
                core.post.recycle(forward);
                continue;
            }
            let id = forward.connection;
            // Even if nobody waits for it any more: it was done, and took as long.
            core.answered_elsewhere.extend(forward.asked.take());
            if forward.errand != Errand::News
                && let Some(out) = self.net.output(id)
                && let Some(session) = core.sessions.get_mut(id.slot as usize).and_then(Option::as_mut)
                && session.id == id
            {
                let reply = std::mem::take(&mut forward.reply);
                core.reply_estimate = match core.reply_estimate {
                    estimate if reply.len() >= estimate => reply.len(),
                    estimate => estimate - (estimate - reply.len()) / REPLY_ESTIMATE_MEMORY,
                };
                let (before, gathered) = (session.output_bytes(), session.gathered_bytes());
                forward.reply = session.answer(forward.sequence, from, reply);
                session.release(out);
                core.output_bytes += session.output_bytes() - before;
                core.gathered_bytes = core.gathered_bytes + session.gathered_bytes() - gathered;
                core.answered_elsewhere.extend(session.finished.take());
                if session.is_over() {
                    self.net.close(id);
                } else if matches!(session.blocked, Some(Bound::Replies | Bound::Memory)) {
                    session.held = false;
                    core.hold(id);
                }
            }
            core.post.recycle(forward);
        }
        while let Some((from, forward)) = core.late_news.front()
            && core.post.replies_taken(*from) >= forward.after
            && let Some((from, mut forward)) = core.late_news.pop_front()
        {
            core.hear(&mut forward);
            core.post.give_back(from, forward);
        }
        served + answered > 0
    }

    /// Gives connections what they are told unasked, and closes those that are to be.
    #[cold]
    fn deliver(&mut self) {
        let core = &mut self.core;
        core.gather_news();
        let mut pushes = std::mem::take(&mut core.pushes).into_iter();
        while let Some((id, bytes)) = pushes.next() {
            let bound = core.output_bytes_high;
            let is_full = core.output_bytes > 0 && core.output_bytes + bytes.len() > core.buffer_bytes_max;
            let Some(out) = self.net.output(id) else { continue };
            let Some(session) = core.session_mut(id) else { continue };
            if session.closing {
                // It has missed something already, or is being sent away: it hears nothing more.
                continue;
            }
            let (waiting, client) = (session.output_bytes(), session.client);
            if waiting >= bound || (is_full && waiting >= bound / 4) {
                // Whoever listens and does not read is cut off, as Redis does: it may not fill the memory of others.
                session.closing = true;
                core.counters().listeners_dropped.add(1);
                core.forget_client(client);
                self.net.abort(id);
                continue;
            }
            if is_full {
                // Others, who do not read, have it all: in a moment some of it is free, or they are gone.
                core.pushes.push((id, bytes));
                core.pushes.extend(pushes);
                break;
            }
            let before = session.output_bytes();
            session.push(out, &bytes);
            let written = session.output_bytes() - before;
            core.output_bytes += written;
        }
        if core.pushes.is_empty() {
            core.push_bytes = 0;
        }
        for id in std::mem::take(&mut core.to_close) {
            if let Some(session) = core.session_mut(id) {
                session.closing = true;
                // What it is still owed comes first, as the reply to the CLIENT KILL of itself.
                if session.is_in_order() {
                    self.net.close(id);
                }
            }
        }
        for id in core.take_answered() {
            let Some(out) = self.net.output(id) else { continue };
            let Some(session) = core.session_mut(id) else { continue };
            let before = session.output_bytes();
            session.release(out);
            let (after, is_over) = (session.output_bytes(), session.is_over());
            core.output_bytes = core.output_bytes + after - before;
            if is_over {
                self.net.close(id);
            }
        }
    }

    fn take_control(&mut self) -> Result<(), String> {
        while let Ok(message) = self.core.control.try_recv() {
            match message {
                Control::Adopt { socket, hello_id, pending } => {
                    let Some(id) = self.net.adopt(socket, self.core.now) else { continue };
                    self.core.opened(id, NATIVE_LISTENER);
                    let Some(out) = self.net.output(id) else { continue };
                    self.core.greet(id, hello_id, out);
                    if !pending.is_empty() {
                        let flow = self.core.received(id, &pending, out);
                        if flow == Flow::Close {
                            self.net.close(id);
                        }
                    }
                }
                Control::Attach { socket, rings } => {
                    // Dropping the socket tells the peer that there is no room.
                    if self.net.port_count() < limits::SHM_CONNECTIONS_MAX
                        && let Some(id) = self.net.attach(socket, *rings, self.core.now)
                    {
                        self.core.opened(id, NATIVE_LISTENER);
                    }
                }
                Control::Listen(reader) => {
                    if let Some(l0) = &mut self.core.keys.l0 {
                        l0.listen_to(reader);
                    }
                }
                Control::Stop => {
                    // Before the port is free for a successor, whose writes would not reach our readers.
                    if let Some(l0) = &mut self.core.keys.l0 {
                        l0.end();
                    }
                    self.net.stop_listening();
                    close_subscribers(&mut self.net, &mut self.core);
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

    /// Looks at some connections for peers that stopped halfway or take nothing, and closes those. With ten
    /// thousand connections all of them at once would keep requests waiting for a millisecond.
    fn close_stalled(&mut self) {
        let mut closed = 0;
        while let Some(id) = self.core.next_half_sent() {
            self.net.close(id);
            closed += 1;
        }
        let since = self.core.now.ms.saturating_sub(self.core.send_stall_ms());
        closed += self.net.close_stalled(Instant::from_ms(since), limits::STALL_LOOKS_PER_MS) as u64;
        if closed > 0 {
            self.core.counters().connections_stalled.add(closed);
        }
    }

    fn housekeeping(&mut self) {
        let core = &mut self.core;
        core.published_at = core.now;
        let counters = &core.shared.counters[core.id.0 as usize];
        let stats = core.keys.store.stats();
        counters.entries.set(stats.entries);
        counters.payload_bytes.set(stats.payload_bytes);
        counters.arena_bytes.set(stats.arena_bytes);
        counters.used_bytes.set(stats.used_bytes);
        counters.index_bytes.set(stats.index_bytes);
        counters.table_bytes.set(stats.table_bytes);
        counters.live_bytes.set(stats.live_bytes);
        counters.evicted.set(stats.evicted);
        counters.evicted_rushed.set(stats.rushed);
        counters.expired.set(stats.expired);
        counters.ghost_hits.set(stats.ghost_hits);
        counters.copied_bytes.set(stats.copied_bytes);
        let used: u64 = core.shared.counters.iter().map(|shard| shard.used_bytes.get()).sum();
        if core.id.0 == 0 {
            core.shared.resp.attend(FULL, core.shared.resp.is_full(used));
            let is_over = core.shared.resp.paused_until.load(Ordering::Relaxed) <= core.now.ms;
            if is_over {
                core.shared.resp.attend(PAUSED, false);
            }
        }
        counters.mailbox_depth.set(core.post.under_way() as u64);
        let network = self.net.load();
        counters.ring_depth.set(network.depth);
        counters.buffers_exhausted.set(network.buffers_exhausted);
        let place = core.id.0 as usize;
        core.shared.evicted_idle[place].publish(&stats.idle_at_eviction, stats.idle_ms_sum);
        core.hot_keys.publish(&core.shared.hot_keys[place]);
        core.shared.beats_ms[place].set(core.now.ms);
    }
}

/// Connections that move between shards speak the native protocol, whose listener comes first.
pub const NATIVE_LISTENER: usize = 0;
/// A smaller reply moves the estimate by one part in this many.
const REPLY_ESTIMATE_MEMORY: usize = 16;
/// Milliseconds of expiry sweeps that one turn makes up for.
const EXPIRE_CATCH_UP_MS: u64 = 256;
/// How often gauges are left for readers.
const PUBLISH_MS: u64 = 250;
