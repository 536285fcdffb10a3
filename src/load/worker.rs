//! One thread of a load: issues what is due, reads what has come, records.
//!
//! It drives its connections with the same `net` room as the server, so its own share of a round
//! trip is a receive, a send and two clock reads. Verification (`--verify`) sends each key always
//! over the same connection, whose answers come in order; so the version a GET must find is known
//! when it is sent: the last one written before it.

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant as WallInstant};

use hdrhistogram::Histogram;

use crate::base::hash::BuildMix;
use crate::base::hash::HashSeed;
use crate::base::id::ConnectionId;
use crate::base::limits;
use crate::base::prng::{Prng, mix};
use crate::base::time::Instant;
use crate::client::{Connection, Error, Transport};
use crate::load::dialect::{Answer, Dialect};
use crate::load::plan::{Arrivals, Plan, Route};
use crate::load::work::{Task, Work};
use crate::net::{EpollNetwork, Flow, Handler, Network, WakeTarget, WithShm};
use crate::wire::{Command, Mode, Status};

/// What one worker has measured.
pub struct Tally {
    /// Latencies of GETs and SETs, nanoseconds.
    pub latency: [Histogram<u64>; 2],
    /// Latencies of those GETs that found their value in shared memory.
    pub published: Histogram<u64>,
    /// Requests by second, with their latencies.
    pub seconds: Vec<SecondTally>,
    pub requests: u64,
    pub errors: u64,
    pub hits: u64,
    pub misses: u64,
    /// Answers that carried another key's value, another version or a damaged value.
    pub wrong: u64,
    /// Keys that were written in this run and not found.
    pub missing: u64,
    /// The first thing that went wrong, in words.
    pub complaint: Option<String>,
    pub elapsed: Duration,
}

pub struct SecondTally {
    pub requests: u64,
    pub errors: u64,
    pub latency: Histogram<u64>,
}

/// Which part of a run this is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Fill,
    Warmup,
    Measure,
}

pub struct Worker {
    net: WithShm<EpollNetwork>,
    core: Core,
    arrivals: Arrivals,
    route: Route,
    pipeline: usize,
    /// Requests have a rate.
    paced: bool,
    seed: HashSeed,
    prng: Prng,
}

/// Connections that lead to the same shard.
#[derive(Default)]
struct Group {
    connections: Vec<ConnectionId>,
    /// Those that may have room for a request, each once.
    open: VecDeque<ConnectionId>,
}

struct Core {
    dialect: Dialect,
    peers: Vec<Peer>,
    /// Connections by the shard that serves them; one group when any shard will do.
    groups: Vec<Group>,
    tally: Tally,
    started: WallInstant,
    phase: Phase,
    set_on_miss: bool,
    ttl_ms: u64,
    values: Vec<u8>,
    verify: Option<Verify>,
    key_scratch: Vec<u8>,
    next_id: u32,
    under_way: usize,
    lost: usize,
    work: Work,
    filled: Arc<AtomicU64>,
    order: Option<KeyOrder>,
    deep: Option<Deep>,
}

/// A neighbour with a deep pipeline: a burst of GETs, and the next once all are answered, as pipelining
/// clients do. Its frames are written once, so that it keeps this thread from the others' answers for no
/// longer than need be.
struct Deep {
    frames: Vec<u8>,
    frame_bytes: usize,
    /// How much of the present burst has been answered.
    answered_bytes: usize,
}

/// Keeps each key's requests in order where misses are filled. A key with a request under way is
/// not asked for again before the answer, and the fill, are there: otherwise a second GET would
/// overtake the SET that follows the first one's miss, and deep pipelines would report misses that
/// the trace does not have. Other keys go on meanwhile.
#[derive(Default)]
struct KeyOrder {
    /// Keys under way, each with the tasks that wait for it.
    busy: HashMap<u64, VecDeque<(Task, u64)>, BuildMix>,
    waiting: usize,
    /// Tasks whose turn has come.
    released: VecDeque<(Task, u64)>,
}

#[derive(Default)]
struct Peer {
    id: ConnectionId,
    outstanding: VecDeque<Outstanding>,
    partial: Vec<u8>,
    alive: bool,
    /// Its requests are not counted; see [`Deep`].
    is_deep: bool,
    /// Its group, and whether it stands among the open ones there.
    group: usize,
    is_open: bool,
}

struct Outstanding {
    due_ns: u64,
    id: u32,
    task: Task,
    /// The version a GET must find, or a SET writes.
    version: u32,
    /// Bytes of the request.
    bytes: u32,
}

/// The versions written so far, by key number, and what makes this run's values its own.
struct Verify {
    versions: Vec<u32>,
    nonce: u64,
}

impl Worker {
    /// Connects this worker's share of the connections.
    pub fn connect(plan: &Plan, worker: usize, workers: usize) -> Result<Worker, String> {
        let share = (plan.connections + workers - 1 - worker) / workers;
        let wake = WakeTarget::new().map_err(|error| format!("no eventfd: {error}"))?;
        let mut net = WithShm::new(EpollNetwork::new(wake).map_err(|error| format!("no epoll: {error}"))?);
        let mut peers = Vec::new();
        let mut groups: Vec<Group> = Vec::new();
        let mut seed = HashSeed(0);
        let mut shard_count = 1;
        let mut route = plan.route;
        if plan.dialect != Dialect::Native {
            route = Route::Any;
            groups.push(Group::default());
            for _ in 0..share.max(1) {
                let transport = connect(plan)?;
                adopt(&mut net, transport, &mut peers, &mut groups, 0)?;
            }
        }
        let native_share = if plan.dialect == Dialect::Native { share.max(1) } else { 0 };
        for number in 0..native_share {
            // A connection of its own for each shard, as long as there are enough.
            let shard = (route == Route::Owner && number > 0).then_some((number % shard_count) as u16);
            let connection = Connection::open(plan.endpoint.clone(), shard, CONNECT_TIMEOUT)
                .map_err(|error| format!("{}: {error}", plan.target))?;
            seed = HashSeed(connection.hello().hash_seed);
            let served_by = connection.hello().shard as usize;
            if number == 0 {
                shard_count = connection.hello().shard_count as usize;
                if share < shard_count {
                    route = Route::Any;
                }
                let group_count = if route == Route::Owner { shard_count } else { 1 };
                groups = (0..group_count).map(|_| Group::default()).collect();
                if route == Route::Owner && served_by != 0 {
                    // The first one came in anywhere; start over at shard 0 so that all are covered.
                    drop(connection);
                    let connection = Connection::open(plan.endpoint.clone(), Some(0), CONNECT_TIMEOUT)
                        .map_err(|error| format!("{}: {error}", plan.target))?;
                    adopt(&mut net, connection.into_transport(), &mut peers, &mut groups, 0)?;
                    continue;
                }
            }
            let group = if route == Route::Owner { served_by } else { 0 };
            adopt(&mut net, connection.into_transport(), &mut peers, &mut groups, group)?;
        }
        let verify = plan.verify.then(|| Verify {
            versions: vec![0; (plan.keys + workers as u64) as usize],
            nonce: mix(plan.seed ^ u64::from(std::process::id()) << 32 ^ now_nanos()),
        });
        let mut values = vec![0u8; limits::VALUE_BYTES_MAX.min(plan.value_bytes.max(limits::SEGMENT_BYTES_MAX))];
        let mut prng = Prng::new(plan.seed);
        values.iter_mut().for_each(|byte| *byte = b'a' + (prng.next_u64() % 26) as u8);
        Ok(Worker {
            net,
            core: Core {
                dialect: plan.dialect,
                peers,
                groups,
                tally: Tally::new(),
                started: WallInstant::now(),
                phase: Phase::Warmup,
                set_on_miss: plan.set_on_miss,
                ttl_ms: plan.ttl_ms,
                values,
                verify,
                key_scratch: vec![0; limits::KEY_BYTES_MAX],
                next_id: 0,
                under_way: 0,
                lost: 0,
                work: Work::fill(plan, worker, workers),
                filled: plan.filled.clone(),
                deep: None,
                order: (plan.set_on_miss && plan.trace.is_some()).then(KeyOrder::default),
            },
            arrivals: plan.arrivals,
            route,
            pipeline: plan.pipeline,
            paced: false,
            seed,
            prng,
        })
    }

    /// Runs one phase: `work` at `rate` requests a second until `duration` or the work ends.
    pub fn run(
        &mut self,
        phase: Phase,
        work: Work,
        rate: Option<f64>,
        duration: Option<Duration>,
    ) -> Result<(), String> {
        self.core.phase = phase;
        self.core.work = work;
        self.core.started = WallInstant::now();
        let end_ns = duration.map_or(u64::MAX, |duration| duration.as_nanos() as u64);
        let gap_ns = rate.map(|rate| 1e9 / rate);
        self.paced = rate.is_some();
        let mut due_ns = 0.0f64;
        let mut next: Option<Task> = None;
        let mut exhausted = false;
        let mut idle_polls = 0u32;
        let mut now_ns = self.core.now_ns();
        loop {
            // Issue what is due, as far as the pipelines have room.
            self.issue_released();
            let mut budget = ISSUE_MAX;
            while budget > 0 && !(exhausted && next.is_none()) && now_ns < end_ns {
                let due = match gap_ns {
                    Some(_) if due_ns as u64 > now_ns => break,
                    Some(_) => due_ns as u64,
                    None => now_ns,
                };
                let Some(task) = next.take().or_else(|| self.core.work.next()) else {
                    exhausted = true;
                    break;
                };
                let must_wait = match &mut self.core.order {
                    Some(order) if !order.may_wait() => {
                        next = Some(task);
                        break;
                    }
                    Some(order) => order.waits(task, due),
                    None => false,
                };
                if !must_wait {
                    let Some(id) = self.pick(&task) else {
                        next = Some(task);
                        break;
                    };
                    self.issue(id, task, due);
                    if let Some(order) = &mut self.core.order {
                        order.began(task.key);
                    }
                }
                if let Some(gap) = gap_ns {
                    due_ns += match self.arrivals {
                        Arrivals::Uniform => gap,
                        Arrivals::Poisson => gap * -(1.0 - self.prng.unit()).ln(),
                    };
                }
                budget -= 1;
            }
            let polled = self.net.poll(&mut self.core, Instant::from_ms(now_ns / 1_000_000));
            let worked = polled.map_err(|error| format!("the load generator's network failed: {error}"))?;
            idle_polls = if worked { 0 } else { idle_polls + 1 };
            if idle_polls > if self.net.port_count() > 0 { LOOKS_BEFORE_YIELD } else { SPINS_BEFORE_YIELD } {
                // On a core of its own this returns at once. On one shared with the server, which
                // waits for that very core, spinning on would only make both slow.
                std::thread::yield_now();
            }
            if !worked && self.net.has_ports() {
                // Shared memory answers sooner than this loop comes around.
                (0..LOOKS).any(|_| self.net.is_answered());
            }
            // Drawn while answers are under way, so that the draw is in nobody's latency.
            if next.is_none() && !exhausted {
                next = self.core.work.next();
                exhausted = next.is_none();
            }
            now_ns = self.core.now_ns();
            if self.core.lost == self.core.peers.len() {
                self.core.tally.complaint.get_or_insert("every connection was lost".to_string());
                break;
            }
            let over = (exhausted && next.is_none()) || now_ns >= end_ns;
            let waiting = self.core.order.as_ref().is_some_and(|order| order.waiting + order.released.len() > 0);
            if over && self.core.under_way == 0 && !waiting {
                break;
            }
            if over && self.is_overdue(end_ns, now_ns) {
                let under_way = self.core.under_way as u64;
                self.core.tally.errors += under_way;
                self.core
                    .tally
                    .complaint
                    .get_or_insert(format!("{under_way} requests had no answer after {DRAIN_S} s"));
                break;
            }
        }
        self.core.tally.elapsed = self.core.started.elapsed().min(duration.unwrap_or(Duration::MAX));
        Ok(())
    }

    /// Starts the neighbour with `depth` GETs under way. Its keys are the first ones.
    pub fn start_deep(&mut self, plan: &Plan) -> Result<(), String> {
        let transport = connect(plan)?;
        let mut ignored = [Group::default()];
        adopt(&mut self.net, transport, &mut self.core.peers, &mut ignored, 0)?;
        let [Group { connections, .. }] = ignored;
        let id = connections[0];
        self.core.peers[id.slot as usize].is_deep = true;
        let mut frames = Vec::new();
        for number in 0..plan.deep as u64 {
            let length = self.core.work.key(number % plan.keys, &mut self.core.key_scratch);
            let command = Command::Get { key: &self.core.key_scratch[..length] };
            self.core.dialect.encode(0, command, &mut frames);
        }
        let frame_bytes = frames.len() / plan.deep;
        if let Some(out) = self.net.output(id) {
            out.extend_from_slice(&frames);
        }
        self.core.deep = Some(Deep { frames, frame_bytes, answered_bytes: 0 });
        Ok(())
    }

    /// Takes what was measured, leaving nothing.
    pub fn take_tally(&mut self) -> Tally {
        std::mem::replace(&mut self.core.tally, Tally::new())
    }

    fn is_overdue(&self, end_ns: u64, now_ns: u64) -> bool {
        let oldest = self.core.peers.iter().filter_map(|peer| peer.outstanding.front()).map(|first| first.due_ns).min();
        let since = oldest.unwrap_or(now_ns).max(end_ns.min(now_ns));
        now_ns.saturating_sub(since) > DRAIN_S * 1_000_000_000
    }

    /// A connection with room for the task; `None` if the ones it may take are full.
    fn pick(&mut self, task: &Task) -> Option<ConnectionId> {
        let Core { groups, peers, work, key_scratch, verify, .. } = &mut self.core;
        let group = if self.route == Route::Owner && groups.len() > 1 {
            let length = work.key(task.key, key_scratch);
            let hash = self.seed.hash(&key_scratch[..length]);
            hash.shard(groups.len() as u16).0 as usize
        } else {
            0
        };
        let group = &mut groups[group];
        if verify.is_some() {
            // One key, one connection: its answers come in the order of its requests.
            let id = group.connections[(mix(task.key) % group.connections.len() as u64) as usize];
            let peer = &peers[id.slot as usize];
            return (peer.alive && peer.outstanding.len() < self.pipeline).then_some(id);
        }
        while let Some(&id) = group.open.front() {
            let peer = &mut peers[id.slot as usize];
            if peer.alive && peer.outstanding.len() < self.pipeline {
                // As fast as possible means full pipelines, one after the other; a rate is spread evenly.
                if self.paced {
                    group.open.rotate_left(1);
                }
                return Some(id);
            }
            peer.is_open = false;
            group.open.pop_front();
        }
        None
    }

    /// Issues tasks that had waited for their key.
    fn issue_released(&mut self) {
        while let Some((task, due)) = self.core.order.as_ref().and_then(|order| order.released.front().copied()) {
            let Some(id) = self.pick(&task) else { return };
            if let Some(order) = &mut self.core.order {
                order.released.pop_front();
            }
            self.issue(id, task, due);
        }
    }

    fn issue(&mut self, id: ConnectionId, task: Task, due_ns: u64) {
        let Some(out) = self.net.output(id) else { return };
        self.core.encode(id, task, due_ns, out);
    }
}

impl Core {
    fn now_ns(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    fn encode(&mut self, connection: ConnectionId, task: Task, due_ns: u64, out: &mut Vec<u8>) {
        let id = self.next_id;
        self.next_id = self.next_id.wrapping_add(1);
        let key_len = self.work.key(task.key, &mut self.key_scratch);
        let mut version = 0;
        if let Some(verify) = &mut self.verify {
            let known = &mut verify.versions[task.key as usize];
            *known += u32::from(task.writes);
            version = *known;
            if task.writes {
                let value_bytes = task.value_bytes.max(VERIFIED_BYTES_MIN);
                stamp(&mut self.values[..value_bytes], task.key, version, verify.nonce);
            }
        }
        let key = &self.key_scratch[..key_len];
        let command = if task.writes {
            let length = task.value_bytes.max(if self.verify.is_some() { VERIFIED_BYTES_MIN } else { 0 });
            let value = &self.values[..length.min(self.values.len())];
            Command::Set { key, value, ttl_ms: self.ttl_ms, mode: Mode::Set }
        } else {
            Command::Get { key }
        };
        let before = out.len();
        self.dialect.encode(id, command, out);
        let bytes = (out.len() - before) as u32;
        self.under_way += 1;
        self.peers[connection.slot as usize].outstanding.push_back(Outstanding { due_ns, id, task, version, bytes });
    }

    /// Takes in one reply; answers what is to be written in consequence.
    fn answered(&mut self, slot: usize, frame: &Answer<'_>, now_ns: u64) -> Result<Option<Task>, String> {
        let Some(sent) = self.peers[slot].outstanding.pop_front() else {
            return Err("a reply to a request that was never sent".to_string());
        };
        self.under_way -= 1;
        self.reopen(slot);
        if let Some(id) = frame.id
            && sent.id != id
        {
            return Err(format!("the reply to request {id} came in place of {}", sent.id));
        }
        let status = frame.reply.status;
        let is_miss = !sent.task.writes && status == Status::NotFound;
        let is_error = status != Status::Ok && !is_miss;
        if is_error {
            let words = String::from_utf8_lossy(frame.reply.value);
            self.tally.complaint.get_or_insert_with(|| format!("a request was answered '{status}' {words}"));
        }
        if let Some(verify) = &self.verify
            && !sent.task.writes
            && !is_error
        {
            if is_miss {
                self.tally.missing += u64::from(sent.version > 0);
            } else if !is_as_written(frame.reply.value, sent.task.key, sent.version, verify.nonce) {
                self.tally.wrong += 1;
                let key = sent.task.key;
                self.tally.complaint.get_or_insert_with(|| {
                    format!("key {key} came back with another value than version {}", sent.version)
                });
            }
        }
        if self.phase == Phase::Measure {
            self.tally.record(&sent, now_ns, is_miss, is_error);
        } else {
            self.tally.errors += u64::from(is_error);
            if self.phase == Phase::Fill {
                self.filled.fetch_add(1, Ordering::Relaxed);
            }
        }
        let fills = is_miss && self.set_on_miss;
        if let Some(order) = &mut self.order
            && !fills
        {
            order.finished(sent.task.key);
        }
        Ok(fills.then_some(Task { writes: true, ..sent.task }))
    }

    /// Puts a connection that has room again among the open ones of its group.
    #[inline]
    fn reopen(&mut self, slot: usize) {
        let peer = &mut self.peers[slot];
        if !peer.is_open {
            peer.is_open = true;
            let group = &mut self.groups[peer.group];
            group.open.push_back(peer.id);
        }
    }

    fn serve(&mut self, id: ConnectionId, bytes: &[u8], out: &mut Vec<u8>) -> Result<usize, String> {
        if self.peers[id.slot as usize].is_deep {
            return self.serve_deep(bytes, out);
        }
        let mut at = 0;
        let now_ns = self.now_ns();
        let slot = id.slot as usize;
        loop {
            let request_bytes = self.peers[slot].outstanding.front().map_or(0, |sent| sent.bytes as usize);
            let Some((frame, length)) = self.dialect.decode(&bytes[at..], request_bytes)? else { break };
            at += length;
            if let Some(write) = self.answered(id.slot as usize, &frame, now_ns)? {
                self.encode(id, write, now_ns, out);
            }
        }
        Ok(at)
    }
}

impl Core {
    /// Counts the replies to a deep neighbour, and asks again when all are there.
    fn serve_deep(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<usize, String> {
        let Some(deep) = &mut self.deep else { return Ok(bytes.len()) };
        let (mut at, mut count) = (0, 0);
        while let Some((_, length)) = self.dialect.decode(&bytes[at..], deep.frame_bytes)? {
            at += length;
            count += 1;
        }
        deep.answered_bytes += count * deep.frame_bytes;
        if deep.answered_bytes >= deep.frames.len() {
            deep.answered_bytes = 0;
            out.extend_from_slice(&deep.frames);
        }
        Ok(at)
    }
}

impl Handler for Core {
    fn opened(&mut self, _id: ConnectionId, _listener: usize) {}

    fn received(&mut self, id: ConnectionId, bytes: &[u8], out: &mut Vec<u8>) -> Flow {
        let mut partial = std::mem::take(&mut self.peers[id.slot as usize].partial);
        let outcome = if partial.is_empty() {
            self.serve(id, bytes, out).map(|used| partial.extend_from_slice(&bytes[used..]))
        } else {
            partial.extend_from_slice(bytes);
            self.serve(id, &partial, out).map(|used| drop(partial.drain(..used)))
        };
        self.peers[id.slot as usize].partial = partial;
        match outcome {
            Ok(()) => Flow::Continue,
            Err(complaint) => {
                self.tally.complaint.get_or_insert(complaint);
                Flow::Close
            }
        }
    }

    fn ended(&mut self, _id: ConnectionId) -> Flow {
        Flow::Close
    }

    fn sent(&mut self, _id: ConnectionId, _bytes: usize) {}

    fn closed(&mut self, id: ConnectionId, _unsent: usize) {
        let peer = &mut self.peers[id.slot as usize];
        if std::mem::replace(&mut peer.alive, false) {
            let lost = peer.outstanding.len();
            for sent in peer.outstanding.drain(..) {
                if let Some(order) = &mut self.order {
                    order.finished(sent.task.key);
                }
            }
            self.under_way -= lost;
            self.lost += 1;
            self.tally.errors += lost as u64 + 1;
            self.tally.complaint.get_or_insert(format!("a connection was lost with {lost} requests under way"));
        }
    }

    fn detached(&mut self, _id: ConnectionId, _socket: OwnedFd) {}
}

impl KeyOrder {
    /// Whether there is room for one more task to wait.
    fn may_wait(&self) -> bool {
        self.waiting + self.released.len() < WAITING_MAX
    }

    /// Lets a task wait if its key is under way.
    fn waits(&mut self, task: Task, due_ns: u64) -> bool {
        let Some(queue) = self.busy.get_mut(&task.key) else { return false };
        queue.push_back((task, due_ns));
        self.waiting += 1;
        true
    }

    /// A request for `key` has been sent.
    fn began(&mut self, key: u64) {
        self.busy.entry(key).or_default();
    }

    /// A request for `key` has been answered, its fill too: the next one's turn.
    fn finished(&mut self, key: u64) {
        let Some(queue) = self.busy.get_mut(&key) else { return };
        match queue.pop_front() {
            Some(task) => {
                self.waiting -= 1;
                self.released.push_back(task);
            }
            None => drop(self.busy.remove(&key)),
        }
    }
}

impl Tally {
    /// Nothing yet.
    pub fn new() -> Tally {
        Tally {
            latency: [histogram(3), histogram(3)],
            published: histogram(3),
            seconds: Vec::new(),
            requests: 0,
            errors: 0,
            hits: 0,
            misses: 0,
            wrong: 0,
            missing: 0,
            complaint: None,
            elapsed: Duration::ZERO,
        }
    }

    fn record(&mut self, sent: &Outstanding, now_ns: u64, is_miss: bool, is_error: bool) {
        self.count(sent.task.writes, now_ns.saturating_sub(sent.due_ns), now_ns, is_miss, is_error);
    }

    /// Counts one request that was answered at `now_ns` of its phase.
    pub fn count(&mut self, writes: bool, latency: u64, now_ns: u64, is_miss: bool, is_error: bool) {
        self.requests += 1;
        self.errors += u64::from(is_error);
        if !writes && !is_error {
            self.hits += u64::from(!is_miss);
            self.misses += u64::from(is_miss);
        }
        self.latency[usize::from(writes)].saturating_record(latency);
        let second = (now_ns / 1_000_000_000) as usize;
        while self.seconds.len() <= second {
            self.seconds.push(SecondTally { requests: 0, errors: 0, latency: histogram(2) });
        }
        let tally = &mut self.seconds[second];
        tally.requests += 1;
        tally.errors += u64::from(is_error);
        tally.latency.saturating_record(latency);
    }
}

/// A connection to a server that needs no greeting.
fn connect(plan: &Plan) -> Result<Transport, String> {
    Transport::open(&plan.endpoint, None, CONNECT_TIMEOUT)
        .map_err(|error| format!("{}: {}", plan.target, Error::from(error)))
}

fn adopt(
    net: &mut WithShm<EpollNetwork>,
    transport: Transport,
    peers: &mut Vec<Peer>,
    groups: &mut [Group],
    group: usize,
) -> Result<(), String> {
    let adopted = match transport {
        Transport::Tcp(stream) => net.adopt(OwnedFd::from(stream), Instant::default()),
        Transport::Shm { rings, socket, .. } => net.attach(OwnedFd::from(socket), rings, Instant::default()),
    };
    let id = adopted.ok_or("too many connections for one load thread")?;
    assert_eq!(id.slot as usize, peers.len(), "slots of a fresh table are given in order");
    peers.push(Peer { id, alive: true, group, is_open: true, ..Peer::default() });
    groups[group].connections.push(id);
    groups[group].open.push_back(id);
    Ok(())
}

/// Key, version and run in front, a pattern made of them behind.
fn stamp(value: &mut [u8], key: u64, version: u32, nonce: u64) {
    value[..8].copy_from_slice(&key.to_le_bytes());
    value[8..12].copy_from_slice(&version.to_le_bytes());
    value[12..20].copy_from_slice(&nonce.to_le_bytes());
    let filler = mix(key ^ u64::from(version) << 40 ^ nonce) as u8;
    value[20..].fill(filler);
}

fn is_as_written(value: &[u8], key: u64, version: u32, nonce: u64) -> bool {
    let filler = mix(key ^ u64::from(version) << 40 ^ nonce) as u8;
    value.len() >= VERIFIED_BYTES_MIN
        && value[..8] == key.to_le_bytes()
        && value[8..12] == version.to_le_bytes()
        && value[12..20] == nonce.to_le_bytes()
        && value[20..].iter().all(|&byte| byte == filler)
}

fn histogram(digits: u8) -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, digits).expect("the bounds are constants that fit")
}

fn now_nanos() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Requests issued between two looks at the network.
const ISSUE_MAX: usize = 256;
/// Tasks that may wait for their keys.
const WAITING_MAX: usize = 4096;
/// Polls without result before the core is offered to others: some 20 µs.
const SPINS_BEFORE_YIELD: u32 = 64;
/// The same where a poll is a look at shared memory.
const LOOKS_BEFORE_YIELD: u32 = 2048;
/// Looks at shared memory between two readings of the clock.
const LOOKS: usize = 16;
/// How long to wait for answers after the end.
const DRAIN_S: u64 = 5;
/// A minute: what takes longer is recorded as that.
const LATENCY_NS_MAX: u64 = 60_000_000_000;
/// Key, version and nonce.
const VERIFIED_BYTES_MIN: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_of_another_key_version_or_run_is_told_from_its_own() {
        let mut value = vec![0; 64];
        stamp(&mut value, 7, 3, 99);
        assert!(is_as_written(&value, 7, 3, 99));
        assert!(!is_as_written(&value, 8, 3, 99), "another key");
        assert!(!is_as_written(&value, 7, 2, 99), "another version");
        assert!(!is_as_written(&value, 7, 3, 98), "another run");
        value[40] ^= 1;
        assert!(!is_as_written(&value, 7, 3, 99), "a damaged byte");
        assert!(!is_as_written(&value[..10], 7, 3, 99), "cut short");
    }
}
