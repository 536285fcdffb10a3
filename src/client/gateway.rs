//! The nearest healthy region for programs that know nothing of regions: a process beside them takes their connections
//! and carries each to that region, whatever they speak.
//!
//!   program -- RESP, memcached, native --> gateway ==== one connection each ====> nearest healthy region
//!
//! *No request is answered wrongly.* A program's connection has one backend connection for its whole life, and bytes of
//! one are never sent on another; the gateway does not even know where a request ends. When a region goes down, its
//! connections are closed, at once and all of them, and programs connect again as they do when a server is restarted: only
//! they know which of their requests may be made twice. New connections go to the next region from then on.
//!
//! A region that was chosen for being nearer takes new connections; old ones stay where they are well served. Programs
//! with pools that live for ever would never come back, so connections on which nothing is awaited can be closed after a
//! while of silence ([`GatewayOptions::rehome_idle`]): the last bytes went to the program, none since, and it is not in
//! the region that is chosen.
//!
//! All of it runs on one thread with a tokio runtime of its own; every connection has a bounded buffer each way, and
//! whoever does not read holds up nobody but itself.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};

use crate::base::id::SiteId;
use crate::base::limits;
use crate::client::regions::Regions;
use crate::cluster::route::Node;

/// A gateway that runs until it is dropped.
pub struct Gateway {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What a gateway carries.
#[derive(Default)]
pub struct GatewayOptions {
    /// Where programs connect that speak RESP.
    pub resp: Option<TcpListener>,
    /// Where programs connect that speak memcached's protocol.
    pub memcached: Option<TcpListener>,
    /// Where programs connect that speak the native protocol.
    pub native: Option<TcpListener>,
    /// Close connections to another region than the chosen one when nothing was said on them for so long and the last
    /// word was the server's.
    pub rehome_idle: Option<Duration>,
}

/// What has come of a gateway so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GatewayStats {
    /// Connections there are.
    pub open: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Connections closed because no region could be connected to.
    pub unserved: u64,
    /// Connections closed because there were too many.
    pub refused: u64,
    /// Connections closed because their region went down or left the map.
    pub moved: u64,
    /// Connections closed because they were idle and another region is chosen.
    pub rehomed: u64,
    /// Bytes carried, both ways.
    pub bytes: u64,
}

#[derive(Clone, Copy)]
enum Protocol {
    Resp,
    Memcached,
    Native,
}

struct Shared {
    regions: Arc<Regions>,
    rehome_idle: Option<Duration>,
    began: Instant,
    carried: Mutex<HashMap<u64, Carried>>,
    stop: Notify,
    stopping: AtomicBool,
    accepted: AtomicU64,
    unserved: AtomicU64,
    refused: AtomicU64,
    moved: AtomicU64,
    rehomed: AtomicU64,
    bytes: AtomicU64,
}

/// A program's connection.
struct Carried {
    /// Where it leads; none while it is being connected.
    site: Option<SiteId>,
    talk: Arc<Talk>,
    task: AbortHandle,
}

/// Who spoke last on a connection, and when.
#[derive(Default)]
struct Talk {
    /// Milliseconds since the gateway began, twice, and one more if the program spoke.
    last: AtomicU64,
}

impl Gateway {
    /// Begins to carry. The listeners are bound already, so whoever starts it knows that it has its addresses.
    pub fn start(regions: Arc<Regions>, options: GatewayOptions) -> io::Result<Gateway> {
        let shared = Arc::new(Shared {
            regions,
            rehome_idle: options.rehome_idle,
            began: Instant::now(),
            carried: Mutex::new(HashMap::new()),
            stop: Notify::new(),
            stopping: AtomicBool::new(false),
            accepted: AtomicU64::new(0),
            unserved: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            moved: AtomicU64::new(0),
            rehomed: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let listeners = [
            (options.resp, Protocol::Resp),
            (options.memcached, Protocol::Memcached),
            (options.native, Protocol::Native),
        ];
        let mut accepting = Vec::new();
        for (listener, protocol) in listeners {
            let Some(listener) = listener else { continue };
            listener.set_nonblocking(true)?;
            let _inside = runtime.enter();
            accepting.push((tokio::net::TcpListener::from_std(listener)?, protocol));
        }
        let served = shared.clone();
        let thread = thread::Builder::new().name("gateway".into()).spawn(move || {
            runtime.block_on(async {
                for (listener, protocol) in accepting {
                    tokio::spawn(served.clone().accept(listener, protocol));
                }
                tokio::spawn(served.clone().watch());
                while !served.stopping.load(Ordering::Acquire) {
                    served.stop.notified().await;
                }
            });
            // Whatever still runs ends with the runtime; its sockets are closed.
        })?;
        Ok(Gateway { shared, thread: Some(thread) })
    }

    /// What has come of it so far.
    pub fn stats(&self) -> GatewayStats {
        let shared = &*self.shared;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        GatewayStats {
            open: locked(&shared.carried).len() as u64,
            accepted: count(&shared.accepted),
            unserved: count(&shared.unserved),
            refused: count(&shared.refused),
            moved: count(&shared.moved),
            rehomed: count(&shared.rehomed),
            bytes: count(&shared.bytes),
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.shared.stop.notify_one();
        if let Some(thread) = self.thread.take() {
            // It has nothing to report.
            let _ = thread.join();
        }
    }
}

impl Shared {
    async fn accept(self: Arc<Shared>, listener: tokio::net::TcpListener, protocol: Protocol) {
        let mut number = protocol as u64;
        loop {
            let Ok((program, _)) = listener.accept().await else {
                // Out of descriptors, most likely: some will be given back.
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            };
            self.accepted.fetch_add(1, Ordering::Relaxed);
            let mut carried = locked(&self.carried);
            if carried.len() >= limits::GATEWAY_CONNECTIONS_MAX {
                self.refused.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            // Listeners count in steps of their number, so that no two connections have the same.
            number += PROTOCOLS;
            let talk = Arc::new(Talk::default());
            let shared = self.clone();
            let (task_talk, task_number) = (talk.clone(), number);
            // It cannot run before it is entered here: this thread runs both.
            let task = tokio::spawn(async move {
                let _entry = Entry { shared: &shared, number: task_number };
                shared.carry(program, protocol, task_number, task_talk).await;
            });
            carried.insert(number, Carried { site: None, talk, task: task.abort_handle() });
        }
    }

    /// Carries a connection from its beginning to its end.
    async fn carry(self: &Arc<Shared>, program: TcpStream, protocol: Protocol, number: u64, talk: Arc<Talk>) {
        let Some((site, server)) = self.connect(protocol).await else {
            self.unserved.fetch_add(1, Ordering::Relaxed);
            return;
        };
        if let Some(entry) = locked(&self.carried).get_mut(&number) {
            entry.site = Some(site);
        }
        if !self.regions.is_up(site) {
            // It went down just now, and whoever closes its connections may have looked before this one was among them.
            self.moved.fetch_add(1, Ordering::Relaxed);
            return;
        }
        // Neither can fail on a socket that is open, and if it did, things would only be slower.
        let _ = (program.set_nodelay(true), server.set_nodelay(true));
        self.said(&talk, false);
        let ((from_program, to_program), (from_server, to_server)) = (program.into_split(), server.into_split());
        let mut ways = JoinSet::new();
        let (shared, asking) = (self.clone(), talk.clone());
        ways.spawn(async move { (true, shared.one_way(from_program, to_server, asking, true).await) });
        let shared = self.clone();
        ways.spawn(async move { (false, shared.one_way(from_server, to_program, talk, false).await) });
        // One end that has said all is answered until the other has, too; one that breaks ends both.
        let mut is_first = true;
        while let Some(Ok((is_program, outcome))) = ways.join_next().await {
            if is_first && !is_program {
                // Servers end connections when they end, and hardly otherwise.
                self.regions.suspect(site);
            }
            is_first = false;
            if outcome.is_err() {
                return;
            }
        }
    }

    /// Connects to the nearest healthy region that speaks the protocol; answers which.
    async fn connect(&self, protocol: Protocol) -> Option<(SiteId, TcpStream)> {
        let view = self.regions.view();
        for &site in &view.order {
            for address in self.regions.addresses(site, |node| protocol.address(node)) {
                // A region that does not take a connection is not given up here: it may lack this protocol alone.
                if let Ok(Ok(server)) = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
                    return Some((site, server));
                }
            }
        }
        None
    }

    /// Carries bytes one way until their source has no more. Dropping the sink tells its peer.
    async fn one_way(
        self: Arc<Shared>,
        source: OwnedReadHalf,
        sink: OwnedWriteHalf,
        talk: Arc<Talk>,
        is_program: bool,
    ) -> io::Result<()> {
        let mut buffer = vec![0u8; limits::GATEWAY_BUFFER_BYTES];
        loop {
            source.readable().await?;
            let count = match source.try_read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            };
            self.said(&talk, is_program);
            let mut rest = &buffer[..count];
            while !rest.is_empty() {
                sink.writable().await?;
                match sink.try_write(rest) {
                    Ok(written) => rest = &rest[written..],
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
            self.bytes.fetch_add(count as u64, Ordering::Relaxed);
        }
    }

    /// Closes connections of regions that are down, and those that are to come home.
    async fn watch(self: Arc<Shared>) {
        let mut seen = None;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let generation = self.regions.generation();
            if seen != Some(generation) {
                seen = Some(generation);
                let gone = |site: SiteId| !self.regions.is_up(site);
                self.close(&self.moved, |_, site| gone(site));
            }
            if let Some(idle) = self.rehome_idle
                && let Some(&home) = self.regions.view().order.first()
            {
                let now_ms = self.began.elapsed().as_millis() as u64;
                let is_idle = |talk: &Talk| {
                    talk.server_was_last_for_ms(now_ms).is_some_and(|ms| u128::from(ms) >= idle.as_millis())
                };
                self.close(&self.rehomed, |carried, site| site != home && is_idle(&carried.talk));
            }
        }
    }

    fn close(&self, counter: &AtomicU64, is_to_close: impl Fn(&Carried, SiteId) -> bool) {
        let carried = locked(&self.carried);
        let closing = carried.values().filter(|carried| carried.site.is_some_and(|site| is_to_close(carried, site)));
        for carried in closing {
            if !carried.task.is_finished() {
                carried.task.abort();
                counter.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn said(&self, talk: &Talk, is_program: bool) {
        let now_ms = self.began.elapsed().as_millis() as u64;
        talk.last.store(now_ms << 1 | u64::from(is_program), Ordering::Relaxed);
    }
}

impl Talk {
    /// For how long nothing was said, if the server spoke last.
    fn server_was_last_for_ms(&self, now_ms: u64) -> Option<u64> {
        let last = self.last.load(Ordering::Relaxed);
        (last & 1 == 0).then(|| now_ms.saturating_sub(last >> 1))
    }
}

/// Takes a connection off the list when it ends, however it ends.
struct Entry<'a> {
    shared: &'a Shared,
    number: u64,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        locked(&self.shared.carried).remove(&self.number);
    }
}

impl Protocol {
    fn address(self, node: &Node) -> Option<&String> {
        match self {
            Protocol::Resp => node.resp.as_ref(),
            Protocol::Memcached => node.memcached.as_ref(),
            Protocol::Native => node.native.as_ref(),
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it is held; were it so, the list would still be whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Protocols there are: the step in which connections are numbered.
const PROTOCOLS: u64 = 3;
/// How long a node may take to accept.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How soon a change of regions is seen.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long to wait when no connection can be accepted.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);
