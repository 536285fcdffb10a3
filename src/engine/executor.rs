//! Who calls a shard's turns: a glommio executor pinned to its core, or a plain pinned thread with
//! the epoll network where io_uring is refused.
//!
//! **Why the hot task yields by itself, and why there is a heartbeat.** glommio 0.9.0 can park with
//! runnable tasks: `run_task_queues` answers "nothing ran" when the preemption timer has fired before
//! it looked at the first queue, and `run` takes that for "nothing to run" and sleeps until the next
//! event, which may never come. Measured with a 1 ms timer on a loaded machine: 6 of 12 runs hung;
//! with a timer of 20 µs or less every run hangs at once on any machine. Two remedies, both kept: the
//! timer is 200 ms, so that it hardly ever fires in that gap, and every executor has a standing 5 ms
//! timer, whose completion ends such a sleep should it come all the same. (Alone the heartbeat does not
//! help against a timer that always fires first.) `tests/glommio_parking.rs` shows the hang without
//! them and none with them.
//! The long timer also spares the tail: ring inside glommio p99 23.5 µs with 100 ms, 53 µs with 1 ms.
//!
//! **Parking** (poll modes `park` and `adaptive`, see `idle`): the network's eventfd is armed, the queues
//! are looked at once more, and the task awaits a read of the eventfd through glommio, whose own ring
//! sleeps in the kernel. What waking costs and what spinning costs: `scripts/pollmodes`.

#![expect(unsafe_code, reason = "glommio takes a file only by its raw descriptor")]

use std::net::TcpListener;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, bounded};
use glommio::io::BufferedFile;
use glommio::{LocalExecutorBuilder, Placement};

use crate::base::hash::HashSeed;
use crate::base::id::ShardId;
use crate::base::limits;
use crate::cache::{Accounting, Config, Store};
use crate::engine::budget::Budget;
use crate::engine::core::{Core, Parts as CoreParts};
use crate::engine::idle::{Idle, PollMode};
use crate::engine::l0::{self, L0, ReaderFile};
use crate::engine::memcached::MemcachedShared;
use crate::engine::post::{self, Post};
use crate::engine::region_map::RegionMapBytes;
use crate::engine::replica::{Replication, ShardPorts, connect};
use crate::engine::resp::config::RespShared;
use crate::engine::session::Protocol;
use crate::engine::shard::{Control, Neighbour, Shard, Shared};
use crate::engine::strong::{self, DeskPorts};
use crate::host::memory::{Arena, Home, PageWish};
use crate::net::shm::Rings;
use crate::net::{EpollNetwork, Network, RingNetwork, WakeTarget, Waker};
use crate::observe::ShardCounters;
use crate::observe::calls::Calls;
use crate::observe::hot::PublishedHotKeys;
use crate::observe::tenants::TenantCounters;
use crate::observe::{Counter, EvictedIdle, ServiceTimes};
use crate::replica;
use crate::wire::resp::commands::COMMANDS;

/// What drives the sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Io {
    /// A raw ring inside a glommio executor.
    Ring,
    /// epoll on a plain thread.
    Epoll,
}

/// What to start.
pub struct Plan {
    /// What drives the sockets.
    pub io: Io,
    /// What an idle shard does.
    pub poll: PollMode,
    /// The core of each shard; their number is the number of shards.
    pub cores: Vec<usize>,
    /// The NUMA node of each shard's core, where memory is bound.
    pub nodes: Vec<Option<usize>>,
    /// Native listeners, one for each shard.
    pub listeners: Vec<TcpListener>,
    /// RESP listeners, one for each shard, or none.
    pub resp_listeners: Vec<TcpListener>,
    /// memcached listeners, one for each shard, or none.
    pub memcached_listeners: Vec<TcpListener>,
    /// Memory of the whole server, everything included.
    pub memory_bytes: u64,
    /// Tenants, by name and what their keys begin with, whose use is counted apart.
    pub tenants: Vec<(String, Vec<u8>)>,
    /// What each shard publishes in, if anything is published.
    pub l0: Vec<l0::Parts>,
    /// How memory is divided.
    pub budget: Budget,
    /// Which pages to ask for.
    pub pages: PageWish,
    /// Whether to touch every page at start.
    pub populate: bool,
    /// Whether a shard starts although its memory was found on another node.
    pub remote: bool,
    /// For how many microseconds at most a shard with nothing to do polls the cards itself, if it shall.
    pub busy_poll_us: Option<u32>,
    /// The seed of the key hash.
    pub seed: HashSeed,
    /// Which node of a cluster this is, if it is one: its changes are told to others and theirs are taken in.
    pub replication: Option<replica::Config>,
}

/// Shards that run.
pub struct Running {
    /// Counters and histograms.
    pub shared: Arc<Shared>,
    /// The pages each shard was granted.
    pub pages: Vec<PageWish>,
    /// Where memory is not as it was asked for, with the remedy.
    pub shortfalls: Vec<String>,
    /// Says how a shard ended, should one end: none does before [`Running::stop`] unless it failed.
    pub ended: Receiver<Result<(), String>>,
    /// The shards' other end of replication, for whoever carries it.
    pub replication: Option<ShardPorts>,
    /// The shards' other end of the way to the holders of strong keys.
    pub strong: Option<DeskPorts>,
    neighbours: Vec<(Sender<Control>, Waker)>,
    threads: Vec<Thread>,
}

/// Hands shared-memory connections to shards.
pub struct Attacher {
    neighbours: Vec<(Sender<Control>, Waker)>,
    next: usize,
}

impl Attacher {
    /// How many shards there are.
    pub fn shard_count(&self) -> u16 {
        self.neighbours.len() as u16
    }

    /// The shard that is to serve a client who wants `shard`, or any; `None` if there is no such shard.
    pub fn pick(&mut self, shard: Option<u16>) -> Option<u16> {
        match shard {
            Some(shard) => ((shard as usize) < self.neighbours.len()).then_some(shard),
            None => {
                self.next = (self.next + 1) % self.neighbours.len();
                Some(self.next as u16)
            }
        }
    }

    /// Tells every shard of a reader in shared memory.
    pub fn listen_to(&self, reader: &Arc<ReaderFile>) {
        for (control, waker) in &self.neighbours {
            // A shard with a thousand messages waiting hears nothing of this reader: its hits are not counted.
            if control.try_send(Control::Listen(reader.clone())).is_ok() {
                waker.wake();
            }
        }
    }

    /// Gives a connection to `shard`. Dropped, which closes it, if the shard has too much to do.
    pub fn attach(&self, shard: u16, socket: OwnedFd, rings: Rings) {
        let (control, waker) = &self.neighbours[shard as usize];
        if control.try_send(Control::Attach { socket, rings: Box::new(rings) }).is_ok() {
            waker.wake();
        }
    }
}

enum Thread {
    Glommio(glommio::ExecutorJoinHandle<Result<(), String>>),
    Plain(std::thread::JoinHandle<Result<(), String>>),
}

/// What memory a shard got.
struct Granted {
    pages: PageWish,
    shortfalls: Vec<String>,
}

/// The parts of a shard that cross into its thread.
struct Parts {
    id: ShardId,
    node: Option<usize>,
    listeners: Vec<(TcpListener, Protocol)>,
    post: Post,
    neighbours: Vec<Neighbour>,
    control: Receiver<Control>,
    wake: WakeTarget,
    shared: Arc<Shared>,
    l0: Option<l0::Parts>,
    replication: Option<Box<Replication>>,
    budget: Budget,
    pages: PageWish,
    populate: bool,
    remote: bool,
    busy_poll_us: Option<u32>,
    poll: PollMode,
    ready: Sender<Result<Granted, String>>,
    end: Sender<Result<(), String>>,
}

fn tenant_counters(tenants: &[(String, Vec<u8>)]) -> TenantCounters {
    TenantCounters::new(tenants.iter().map(|(name, prefix)| (name.clone(), prefix.as_slice())))
}

/// Starts the shards and waits until every one of them accepts.
pub fn start(plan: Plan) -> Result<Running, String> {
    let count = plan.cores.len();
    let shared = Arc::new(Shared {
        counters: (0..count).map(|_| ShardCounters::default()).collect(),
        times: (0..count).map(|_| ServiceTimes::default()).collect(),
        evicted_idle: (0..count).map(|_| EvictedIdle::default()).collect(),
        hot_keys: (0..count).map(|_| PublishedHotKeys::default()).collect(),
        beats_ms: (0..count).map(|_| Counter::default()).collect(),
        tenants: (0..count).map(|_| tenant_counters(&plan.tenants)).collect(),
        calls: (0..count).map(|_| Calls::new(COMMANDS.len())).collect(),
        seed: plan.seed,
        started: Instant::now(),
        resp: RespShared::new(unix_ms(), plan.seed.0, plan.memory_bytes, plan.budget.segment_bytes),
        memcached: MemcachedShared::default(),
        region_map: RegionMapBytes::default(),
    });
    let mut wakes = Vec::new();
    let (mut senders, mut receivers) = (Vec::new(), Vec::new());
    for _ in 0..count {
        wakes.push(WakeTarget::new().map_err(|error| format!("no eventfd: {error}"))?);
        let (sender, receiver) = bounded(limits::CONTROL_MESSAGES_MAX);
        senders.push(sender);
        receivers.push(receiver);
    }
    let neighbours: Vec<(Sender<Control>, Waker)> =
        senders.into_iter().zip(&wakes).map(|(sender, wake)| (sender, wake.waker())).collect();
    let (ready, are_ready) = bounded(count);
    let (end, ended) = bounded(count);
    let mut posts = post::connect(count as u16);
    for post in &mut posts {
        post.set_wakers(|shard| neighbours[shard.0 as usize].1.clone());
    }
    let (replications, replication) = match &plan.replication {
        None => (Vec::new(), None),
        Some(config) => {
            let (shards, mut ports) = connect(config, count);
            ports.set_wakers(|shard| neighbours[shard as usize].1.clone());
            (shards, Some(ports))
        }
    };
    let strong = replication.is_some().then(|| {
        let (desks, mut ports) = strong::connect(count);
        ports.set_wakers(|shard| neighbours[shard as usize].1.clone());
        posts.iter_mut().zip(desks).for_each(|(post, desk)| post.set_desk(desk));
        ports
    });
    let mut replications = replications.into_iter();
    let mut threads = Vec::new();
    let parts = wakes.into_iter().zip(receivers).zip(plan.listeners).zip(posts).zip(plan.nodes);
    let mut resp_listeners = plan.resp_listeners.into_iter();
    let mut memcached_listeners = plan.memcached_listeners.into_iter();
    let mut l0 = plan.l0.into_iter();
    for (number, ((((wake, control), listener), post), node)) in parts.enumerate() {
        let parts = Parts {
            id: ShardId(number as u16),
            node,
            listeners: [
                Some((listener, Protocol::Native)),
                resp_listeners.next().map(|it| (it, Protocol::Resp)),
                memcached_listeners.next().map(|it| (it, Protocol::Memcached)),
            ]
            .into_iter()
            .flatten()
            .collect(),
            post,
            neighbours: neighbours
                .iter()
                .map(|(control, waker)| Neighbour { control: control.clone(), waker: waker.clone() })
                .collect(),
            control,
            wake,
            shared: shared.clone(),
            l0: l0.next(),
            replication: replications.next(),
            budget: plan.budget,
            pages: plan.pages,
            populate: plan.populate,
            remote: plan.remote,
            busy_poll_us: plan.busy_poll_us,
            poll: plan.poll,
            ready: ready.clone(),
            end: end.clone(),
        };
        threads.push(match plan.io {
            Io::Ring => spawn_glommio(plan.cores[number], parts)?,
            Io::Epoll => spawn_plain(plan.cores[number], parts)?,
        });
    }
    drop(ready);
    let (mut pages, mut shortfalls) = (Vec::new(), Vec::new());
    for _ in 0..count {
        match are_ready.recv() {
            Ok(Ok(granted)) => {
                pages.push(granted.pages);
                shortfalls.extend(granted.shortfalls);
            }
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err("a shard ended before it was ready".to_string()),
        }
    }
    shortfalls.dedup();
    Ok(Running { shared, pages, shortfalls, ended, replication, strong, neighbours, threads })
}

impl Running {
    /// Hands shards connections from elsewhere.
    pub fn attacher(&self) -> Attacher {
        Attacher { neighbours: self.neighbours.clone(), next: 0 }
    }

    /// Tells every shard to stop accepting, to answer what is under way and to leave.
    pub fn stop(&self) {
        for (control, waker) in &self.neighbours {
            // A full queue means a shard that is busy adopting connections; it is asked again below
            // by nobody, so wait for room: stopping is the one message that must not be lost.
            if control.send_timeout(Control::Stop, Duration::from_secs(1)).is_ok() {
                waker.wake_always();
            }
        }
    }

    /// Waits until every shard has left.
    pub fn join(self) -> Result<(), String> {
        let mut outcome = Ok(());
        for thread in self.threads {
            let result = match thread {
                Thread::Glommio(handle) => handle.join().unwrap_or_else(|error| Err(error.to_string())),
                Thread::Plain(handle) => handle.join().unwrap_or_else(|_| Err("a shard's thread panicked".into())),
            };
            outcome = outcome.and(result);
        }
        outcome
    }
}

fn spawn_glommio(core: usize, parts: Parts) -> Result<Thread, String> {
    let name = format!("shard-{}", parts.id);
    let handle = LocalExecutorBuilder::new(Placement::Fixed(core))
        .name(&name)
        .preempt_timer(Duration::from_millis(limits::PREEMPT_TIMER_MS))
        .io_memory(GLOMMIO_IO_BYTES)
        .ring_depth(GLOMMIO_RING_DEPTH)
        .spawn(move || async move {
            let (wake, poll) = (parts.wake.clone(), parts.poll);
            let (ready, end) = (parts.ready.clone(), parts.end.clone());
            match build(parts, RingNetwork::new) {
                Ok((shard, pages)) => {
                    // Nobody listens any more only if the start has failed elsewhere.
                    let _ = ready.send(Ok(pages));
                    let result = drive(shard, wake, poll).await;
                    let _ = end.send(result.clone());
                    result
                }
                Err(error) => {
                    let _ = ready.send(Err(error.clone()));
                    Err(error)
                }
            }
        })
        .map_err(|error| format!("no executor on core {core}: {error}"))?;
    Ok(Thread::Glommio(handle))
}

fn spawn_plain(core: usize, parts: Parts) -> Result<Thread, String> {
    let name = format!("shard-{}", parts.id);
    let run = move || {
        if !core_affinity::set_for_current(core_affinity::CoreId { id: core }) {
            let error = format!("core {core} cannot be pinned: it is not among those this process may use");
            let _ = parts.ready.send(Err(error.clone()));
            return Err(error);
        }
        let (poll, ready, end) = (parts.poll, parts.ready.clone(), parts.end.clone());
        match build(parts, EpollNetwork::new) {
            Ok((shard, pages)) => {
                let _ = ready.send(Ok(pages));
                let result = drive_plain(shard, poll);
                let _ = end.send(result.clone());
                result
            }
            Err(error) => {
                let _ = ready.send(Err(error.clone()));
                Err(error)
            }
        }
    };
    let handle = std::thread::Builder::new().name(name).spawn(run).map_err(|error| format!("no thread: {error}"))?;
    Ok(Thread::Plain(handle))
}

/// Builds a shard on its own thread: memory is touched and the ring is owned where they are used.
fn build<N: Network>(
    parts: Parts,
    network: impl FnOnce(WakeTarget) -> std::io::Result<N>,
) -> Result<(Shard<N, Arena>, Granted), String> {
    let home = parts.node.map(|node| Home { node, remote_allowed: parts.remote });
    let arena = Arena::reserve_at(parts.budget.arena_bytes as usize, parts.pages, home, parts.populate)
        .map_err(|reason| format!("shard {}: {reason}", parts.id))?;
    let mut granted = Granted { pages: arena.granted(), shortfalls: arena.shortfalls().to_vec() };
    let config =
        Config { segment_bytes: parts.budget.segment_bytes, seed: parts.shared.seed, accounting: Accounting::Memory };
    let store = Store::new(arena, config);
    let l0 = match parts.l0 {
        None => None,
        Some(l0) => {
            let l0 = L0::new(l0, parts.id, parts.shared.seed, parts.shared.started);
            Some(Box::new(l0.map_err(|error| {
                format!("L0 needs the kernel to say when a shard has ended (set_robust_list): {error}; leave --l0-socket out")
            })?))
        }
    };
    let mut net = network(parts.wake).map_err(|error| format!("shard {}: no network: {error}", parts.id))?;
    net.set_connection_count_max(parts.budget.connection_count_max);
    if let Some(us) = parts.busy_poll_us
        && let Err(error) = net.set_busy_poll(us)
    {
        granted.shortfalls.push(format!(
            "cards are not polled by their shards ({error}): nic.busy_poll_us needs io_uring and Linux 6.9 or newer"
        ));
    }
    let mut protocols = Vec::new();
    for (listener, protocol) in parts.listeners {
        net.listen(listener).map_err(|error| format!("shard {}: cannot listen: {error}", parts.id))?;
        protocols.push(protocol);
    }
    let shard = Shard::new(
        net,
        Core::new(CoreParts {
            id: parts.id,
            shared: parts.shared,
            store,
            l0,
            replication: parts.replication,
            post: parts.post,
            neighbours: parts.neighbours,
            control: parts.control,
            protocols,
            connection_bytes: parts.budget.connection_bytes,
        }),
    );
    Ok((shard, granted))
}

/// Unix time in milliseconds; a clock before 1970 counts as then.
pub(super) fn unix_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    // Rounded up: the shard's clock is rounded down, and what expires at a moment given must not live longer.
    i64::try_from(since.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX)
}

/// The hot task of an executor.
async fn drive(mut shard: Shard<RingNetwork, Arena>, wake: WakeTarget, poll: PollMode) -> Result<(), String> {
    let heart = glommio::spawn_local(heartbeat(wake.waker())).detach();
    let event = wake.event().try_clone_to_owned().map_err(|error| format!("no second eventfd: {error}"))?;
    // SAFETY: the descriptor is a duplicate that BufferedFile alone owns from here on.
    let event = unsafe { BufferedFile::from_raw_fd(event.into_raw_fd()) };
    let mut yielded = Duration::ZERO;
    let mut idle = Idle::new(poll);
    while !shard.is_done() {
        let worked = shard.turn()?;
        let now = shard.turn_began();
        if now.saturating_sub(yielded).as_micros() as u64 >= limits::YIELD_US {
            glommio::executor().yield_task_queue_now().await;
            yielded = now;
        }
        if worked {
            idle.worked();
        } else if idle.is_over(now) && shard.arm() {
            let read = event.read_at(0, 8).await;
            shard.disarm();
            read.map_err(|error| format!("the wake event failed: {error}"))?;
            idle.woke(shard.clock());
        }
    }
    heart.cancel();
    // The event file is closed with the process; closing it here would race with its last read.
    std::mem::forget(event);
    Ok(())
}

/// The standing timer that bounds any park of the executor; now and then it also gives a sleeping
/// shard a turn, so that expiry and stalled peers are looked after while nobody asks for anything.
async fn heartbeat(waker: Waker) {
    let mut beats = 0u64;
    loop {
        glommio::timer::sleep(Duration::from_millis(limits::HEARTBEAT_MS)).await;
        beats += 1;
        if beats.is_multiple_of(BEATS_PER_TURN) {
            waker.wake();
        }
    }
}

/// The loop of a plain thread.
fn drive_plain(mut shard: Shard<EpollNetwork, Arena>, poll: PollMode) -> Result<(), String> {
    let mut idle = Idle::new(poll);
    while !shard.is_done() {
        if shard.turn()? {
            idle.worked();
        } else if idle.is_over(shard.turn_began()) && shard.arm() {
            let wait = Duration::from_millis(limits::HEARTBEAT_MS * BEATS_PER_TURN);
            let waited = shard.net_mut().wait(wait);
            shard.disarm();
            waited.map_err(|error| format!("epoll failed: {error}"))?;
            idle.woke(shard.clock());
        }
    }
    Ok(())
}

/// A sleeping shard is given a turn every so many heartbeats: ten times a second.
const BEATS_PER_TURN: u64 = 20;
/// Memory for glommio's own direct I/O buffers. We do none yet; the least it accepts is 64 KiB.
const GLOMMIO_IO_BYTES: usize = 64 << 10;
/// Entries of glommio's own rings, which carry timers and the wake event.
const GLOMMIO_RING_DEPTH: usize = 32;
