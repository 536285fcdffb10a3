//! Which regions there are, and which of them to ask: the signed map, kept fresh, and a probe of each region.
//!
//!   seeds -> map, checked -> one prober a region -> Chooser -> View: the order in which to ask
//!              ^ fetched again every 30 s                ^ connections that broke are reported here too
//!
//! A prober has a connection of its own and sends NOOP on it, so that what it measures is the way and not the requests
//! that stand before it. Connecting and HELLO are not part of a round trip. A probe without an answer within the deadline
//! is missed; its connection is thrown away, and the next probe goes to the next node of the region: a region is lost when
//! three probes are, wherever they went.
//!
//! Names are resolved by the thread that fetches maps, and kept: a resolver that hangs must not look like a region that
//! does. `rules` of choosing are `cluster::route`'s; here are threads, sockets and the clock.
//!
//! A map that expires while nobody gives out a newer one is gone on with: this process has seen it valid, and a control
//! plane that rests is no reason to stop using caches. Only a first map must not have expired.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use crate::base::id::SiteId;
use crate::base::limits;
use crate::base::prng::Prng;
use crate::base::time::unix_ms;
use crate::client::connection::{Connection, Error};
use crate::client::geo::GeoError;
use crate::cluster::route::{Authorities, Chooser, Health, Node, RegionMap, RegionReport, Rules, Switch};
use crate::wire::{Command, Status};

/// Watches the regions of a cluster, for any number of clients and gateways in this process.
pub struct Regions {
    shared: Arc<Shared>,
}

/// How regions are watched.
#[derive(Clone, Debug)]
pub struct RegionOptions {
    /// Time between two probes of a region, and the deadline of each.
    pub probe: Duration,
    /// Time between two looks for a newer map.
    pub refresh: Duration,
    /// How long the first map and the first choice may take.
    pub connect: Duration,
    /// How regions are chosen.
    pub rules: Rules,
    /// Addresses of the map that are reached elsewhere from here, as in a hosts file.
    pub resolve: BTreeMap<String, SocketAddr>,
    /// A map to begin with, as it travels; without one the seeds are asked.
    pub map: Option<Vec<u8>>,
}

/// What holds at a moment. Replaced as a whole, never changed.
#[derive(Clone, Debug)]
pub struct View {
    /// Rises with every view.
    pub generation: u64,
    /// The map.
    pub map: Arc<RegionMap>,
    /// Healthy regions in the order in which to ask them: the chosen one first. Empty, if there is none.
    pub order: Vec<SiteId>,
}

impl Default for RegionOptions {
    fn default() -> RegionOptions {
        RegionOptions {
            probe: Duration::from_millis(limits::ROUTE_PROBE_MS),
            refresh: Duration::from_millis(limits::ROUTE_REFRESH_MS),
            connect: Duration::from_secs(5),
            rules: Rules::default(),
            resolve: BTreeMap::new(),
            map: None,
        }
    }
}

struct Shared {
    seeds: Vec<String>,
    authorities: Authorities,
    options: RegionOptions,
    began: Instant,
    chooser: Mutex<Chooser>,
    view: RwLock<Arc<View>>,
    /// The view's, to look at without taking a lock.
    generation: AtomicU64,
    /// Rung with every view.
    changed: (Mutex<()>, Condvar),
    addresses: Mutex<HashMap<String, SocketAddr>>,
    /// The node of each region that answered last, by its place on the map.
    good_nodes: Mutex<HashMap<SiteId, usize>>,
    /// Where to begin in a region: another node for every process.
    spread: usize,
    /// Regions whose connections broke: their next probe does not wait its turn.
    suspects: Mutex<BTreeSet<SiteId>>,
    /// Wakes those who sleep, when there is a new suspect or everything ends.
    bell: Condvar,
    map_failure: Mutex<Option<String>>,
    stopping: AtomicBool,
}

impl Regions {
    /// Fetches the map from any of `seeds` (`host:port`, native protocol), checks it, and watches its regions. Returns
    /// when the first region has been chosen.
    pub fn watch(seeds: &[String], authorities: Authorities, options: RegionOptions) -> Result<Regions, GeoError> {
        let deadline = Instant::now() + options.connect;
        let nowhere = RegionMap { network: authorities.network(), height: 0, expires_ms: 0, regions: Vec::new() };
        let view = View { generation: 0, map: Arc::new(nowhere), order: Vec::new() };
        let shared = Arc::new(Shared {
            seeds: seeds.to_vec(),
            authorities,
            began: Instant::now(),
            chooser: Mutex::new(Chooser::new(options.rules)),
            view: RwLock::new(Arc::new(view)),
            generation: AtomicU64::new(0),
            changed: (Mutex::new(()), Condvar::new()),
            addresses: Mutex::new(HashMap::new()),
            good_nodes: Mutex::new(HashMap::new()),
            spread: RandomState::new().build_hasher().finish() as usize,
            suspects: Mutex::new(BTreeSet::new()),
            bell: Condvar::new(),
            map_failure: Mutex::new(None),
            stopping: AtomicBool::new(false),
            options,
        });
        let regions = Regions { shared };
        let shared = &regions.shared;
        match shared.options.map.clone() {
            Some(bytes) => shared.adopt(&bytes, None).map_err(GeoError::NoMap)?,
            None => shared.fetch(None).map_err(GeoError::NoMap)?,
        }
        let watched = shared.clone();
        thread::Builder::new().name("geo-map".into()).spawn(move || watched.supervise()).map_err(no_thread)?;
        regions.wait(deadline, |view| !view.order.is_empty())?;
        Ok(regions)
    }

    /// What holds now.
    pub fn view(&self) -> Arc<View> {
        self.shared.view()
    }

    /// The generation of what holds now; cheap enough to look at with every request.
    pub fn generation(&self) -> u64 {
        self.shared.generation.load(Ordering::Acquire)
    }

    /// Whether a region may be asked: it is on the map and not down.
    pub fn is_up(&self, site: SiteId) -> bool {
        locked(&self.shared.chooser).health(site) == Some(Health::Up)
    }

    /// A region's connections broke and new ones cannot be made.
    pub fn lost(&self, site: SiteId) {
        self.shared.note(|chooser, now_ms| chooser.lost(site, now_ms));
    }

    /// A connection to a region broke, which may have other reasons than the region: it is probed at once, and again soon
    /// if that is missed, so that a region that is really gone is known to be in a fraction of a second.
    pub fn suspect(&self, site: SiteId) {
        if locked(&self.shared.suspects).insert(site) {
            self.shared.bell.notify_all();
        }
    }

    /// Waits until a view is as it should be.
    pub fn wait(&self, deadline: Instant, holds: impl Fn(&View) -> bool) -> Result<Arc<View>, GeoError> {
        let (mutex, changed) = &self.shared.changed;
        let mut guard = locked(mutex);
        loop {
            let view = self.view();
            if holds(&view) {
                return Ok(view);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(GeoError::NoRegion);
            }
            guard = changed.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Every region, for people.
    pub fn report(&self) -> Vec<RegionReport> {
        locked(&self.shared.chooser).report(self.shared.now_ms())
    }

    /// Times that another region was chosen, the first choice included.
    pub fn switches(&self) -> u64 {
        locked(&self.shared.chooser).switches()
    }

    /// Why the last look for a newer map found none, if it did not.
    pub fn map_failure(&self) -> Option<String> {
        locked(&self.shared.map_failure).clone()
    }

    /// Where the nodes of a region are reached that speak a protocol, the one that answered last first. `address` takes
    /// a node's address of that protocol.
    pub fn addresses(&self, site: SiteId, address: impl Fn(&Node) -> Option<&String>) -> Vec<SocketAddr> {
        let view = self.view();
        self.shared.addresses_in(&view.map, site, address)
    }
}

impl Drop for Regions {
    fn drop(&mut self) {
        // The threads see it within a probe's deadline and let go of what they share.
        self.shared.stopping.store(true, Ordering::Relaxed);
        // Whoever sleeps looks before it does, with the lock held: the bell cannot ring in between.
        drop(locked(&self.shared.suspects));
        self.shared.bell.notify_all();
    }
}

impl Shared {
    /// Keeps a prober for each region of the map, and the map fresh.
    fn supervise(self: Arc<Shared>) {
        let mut probed: BTreeSet<SiteId> = BTreeSet::new();
        let mut look_at = Instant::now() + self.options.refresh;
        while !self.is_stopping() {
            let view = self.view();
            let wanted: BTreeSet<SiteId> = view.map.regions.iter().map(|region| region.site).collect();
            probed.retain(|site| wanted.contains(site));
            for &site in &wanted {
                let shared = self.clone();
                let prober = thread::Builder::new().name(format!("geo-probe-{site}"));
                // One that cannot be started now is started at the next look.
                if !probed.contains(&site) && prober.spawn(move || shared.probe_for_ever(site)).is_ok() {
                    probed.insert(site);
                }
            }
            self.pause(look_at, None);
            if self.is_stopping() {
                return;
            }
            let failure = self.fetch(Some(&view.map)).err();
            // Failing that, it is looked more often: until a newer one is found the old one grows older.
            let pause = if failure.is_some() { self.options.refresh / 10 } else { self.options.refresh };
            *locked(&self.map_failure) = failure;
            look_at = Instant::now() + pause;
        }
    }

    /// Asks whoever may know for the map: the nodes of the map so far, the nearest first, then the seeds.
    fn fetch(&self, seen: Option<&RegionMap>) -> Result<(), String> {
        let view = self.view();
        let mut names: Vec<String> = Vec::new();
        for &site in &view.order {
            let nodes = view.map.region(site).into_iter().flat_map(|region| &region.nodes);
            names.extend(nodes.filter_map(|node| node.native.clone()));
        }
        names.extend(self.seeds.iter().cloned());
        if names.is_empty() {
            return Err("nobody to ask is known: name seeds".to_string());
        }
        let mut failures = Vec::new();
        for name in names.into_iter().take(ASKED_MAX) {
            let bytes = self.resolve(&name).map_err(|error| error.to_string()).and_then(ask_for_map);
            match bytes.and_then(|bytes| self.adopt(&bytes, seen)) {
                Ok(()) => return Ok(()),
                Err(reason) => failures.push(format!("{name}: {reason}")),
            }
            if self.is_stopping() {
                break;
            }
        }
        Err(failures.join("; "))
    }

    /// Believes a map, if it is to be believed.
    fn adopt(&self, bytes: &[u8], seen: Option<&RegionMap>) -> Result<(), String> {
        let map = self.authorities.verify(bytes, unix_ms(), seen).map_err(|refused| refused.to_string())?;
        if *self.view().map == map {
            return Ok(());
        }
        let nodes = map.regions.iter().flat_map(|region| &region.nodes);
        let names = nodes.flat_map(|node| [&node.native, &node.resp, &node.memcached]).flatten();
        for name in names {
            // A name that is not found now is looked up with the next map; what it led to before may still be right.
            let _ = self.resolve(name);
        }
        let sites: Vec<SiteId> =
            map.regions.iter().filter(|region| is_native(region)).map(|region| region.site).collect();
        let map = Arc::new(map);
        let mut chooser = locked(&self.chooser);
        let now_ms = self.now_ms();
        chooser.set_regions(sites, now_ms);
        self.publish(&chooser, map, now_ms);
        Ok(())
    }

    /// Where a name leads; remembers it.
    fn resolve(&self, name: &str) -> io::Result<SocketAddr> {
        let found = address_of(name, &self.options.resolve)?;
        locked(&self.addresses).insert(name.to_string(), found);
        Ok(found)
    }

    fn addresses_in(
        &self,
        map: &RegionMap,
        site: SiteId,
        address: impl Fn(&Node) -> Option<&String>,
    ) -> Vec<SocketAddr> {
        let Some(region) = map.region(site) else { return Vec::new() };
        let begin = locked(&self.good_nodes).get(&site).copied().unwrap_or(self.spread) % region.nodes.len();
        let (before, after) = region.nodes.split_at(begin);
        let known = locked(&self.addresses);
        let names = after.iter().chain(before).filter_map(address);
        names.filter_map(|name| known.get(name).copied()).collect()
    }

    /// Probes a region until it leaves the map.
    fn probe_for_ever(&self, site: SiteId) {
        let mut dice = Prng::new(self.spread as u64 ^ u64::from(site.0) << 32);
        let mut connection: Option<Connection> = None;
        let mut node = self.spread;
        let mut first = limits::ROUTE_FIRST_PROBES;
        while !self.is_stopping() {
            let began = Instant::now();
            let view = self.view();
            let Some(region) = view.map.region(site) else { return };
            node %= region.nodes.len();
            let address =
                region.nodes[node].native.as_ref().and_then(|name| locked(&self.addresses).get(name).copied());
            let was_suspect = locked(&self.suspects).contains(&site);
            let probed = address.ok_or(()).and_then(|to| probe(&mut connection, to, self.options.probe));
            match probed {
                Ok(rtt) => {
                    locked(&self.good_nodes).insert(site, node);
                    if was_suspect {
                        locked(&self.suspects).remove(&site);
                    }
                    self.note(|chooser, now_ms| chooser.answered(site, now_ms, rtt.as_micros() as u64));
                }
                Err(()) => {
                    (connection, node, first) = (None, node + 1, 0);
                    self.note(|chooser, now_ms| chooser.missed(site, now_ms));
                    if locked(&self.chooser).health(site) != Some(Health::Up) {
                        // It is known by now, and need not be asked more often than others.
                        locked(&self.suspects).remove(&site);
                    }
                }
            }
            first = first.saturating_sub(1);
            if first == 0 {
                let every = self.options.probe;
                let part = every / limits::ROUTE_JITTER_SHARE as u32;
                let jitter_us = dice.below(2 * part.as_micros() as u64 + 1);
                self.pause(began + every - part + Duration::from_micros(jitter_us), Some(site));
            }
        }
    }

    /// Tells the chooser something, and everybody else what came of it.
    fn note(&self, tell: impl FnOnce(&mut Chooser, u64) -> Option<Switch>) {
        let mut chooser = locked(&self.chooser);
        let now_ms = self.now_ms();
        tell(&mut chooser, now_ms);
        let view = self.view();
        self.publish(&chooser, view.map.clone(), now_ms);
    }

    /// Replaces the view, if it has changed. The chooser is locked, so views follow one another as its choices do.
    fn publish(&self, chooser: &Chooser, map: Arc<RegionMap>, now_ms: u64) {
        let order = if chooser.current().is_some() { chooser.in_order(now_ms) } else { Vec::new() };
        let before = self.view();
        if before.order == order && Arc::ptr_eq(&before.map, &map) {
            return;
        }
        let generation = before.generation + 1;
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(View { generation, map, order });
        self.generation.store(generation, Ordering::Release);
        // Whoever waits looks before it sleeps, with the lock held: the bell cannot ring in between.
        drop(locked(&self.changed.0));
        self.changed.1.notify_all();
    }

    fn view(&self) -> Arc<View> {
        self.view.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn now_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Sleeps; not past the end of everything, and not for long if a region that it is about is suspect.
    fn pause(&self, until: Instant, about: Option<SiteId>) {
        let soon = Instant::now() + SUSPECT_PROBED_AFTER;
        let mut suspects = locked(&self.suspects);
        while !self.is_stopping() {
            let is_suspect = about.is_some_and(|site| suspects.contains(&site));
            let until = if is_suspect { until.min(soon) } else { until };
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            suspects = self.bell.wait_timeout(suspects, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// One round trip; on a new connection, if there is none.
fn probe(connection: &mut Option<Connection>, to: SocketAddr, deadline: Duration) -> Result<Duration, ()> {
    if connection.is_none() {
        *connection = Some(Connection::open(to, None, deadline).map_err(|_| ())?);
    }
    let connection = connection.as_mut().ok_or(())?;
    let asked = Instant::now();
    connection.call(Command::Noop, false).map_err(|_| ())?;
    let rtt = asked.elapsed();
    // A read may be longer than its timeout by some milliseconds; late is late.
    if rtt <= deadline { Ok(rtt) } else { Err(()) }
}

/// Asks seeds, one after the other, for the map as it travels, and checks it.
pub fn fetch_map(
    seeds: &[String],
    authorities: &Authorities,
    resolve: &BTreeMap<String, SocketAddr>,
) -> Result<Vec<u8>, String> {
    let mut failures = Vec::new();
    for seed in seeds.iter().take(ASKED_MAX) {
        let fetched = address_of(seed, resolve).map_err(|error| error.to_string()).and_then(ask_for_map);
        let believed = fetched.and_then(|bytes| {
            let verified = authorities.verify(&bytes, unix_ms(), None);
            verified.map_err(|refused| refused.to_string()).map(|_| bytes)
        });
        match believed {
            Ok(bytes) => return Ok(bytes),
            Err(reason) => failures.push(format!("{seed}: {reason}")),
        }
    }
    Err(failures.join("; "))
}

/// Where a name leads, from the hosts given or the resolver.
fn address_of(name: &str, resolve: &BTreeMap<String, SocketAddr>) -> io::Result<SocketAddr> {
    match resolve.get(name) {
        Some(address) => Ok(*address),
        None => Ok(name.to_socket_addrs()?.next().ok_or(io::ErrorKind::NotFound)?),
    }
}

/// Asks a server for the map it passes on.
fn ask_for_map(to: SocketAddr) -> Result<Vec<u8>, String> {
    let mut connection = Connection::open(to, None, ASK_TIMEOUT).map_err(|error| error.to_string())?;
    for _ in 0..ASKED_AGAIN_MAX {
        match connection.call(Command::Map, false) {
            Ok(frame) if frame.reply.value.len() > limits::ROUTE_MAP_BYTES_MAX => {
                return Err("its map is larger than a map may be".to_string());
            }
            Ok(frame) => return Ok(frame.reply.value.to_vec()),
            Err(Error::Refused { status: Status::Busy, .. }) => {}
            Err(Error::Refused { status: Status::Unsupported, .. }) => {
                return Err("it has no region map; start it with --region-map or as part of a cluster".to_string());
            }
            Err(error) => return Err(error.to_string()),
        }
    }
    Err("its map is always just being replaced".to_string())
}

fn is_native(region: &crate::cluster::route::Region) -> bool {
    region.nodes.iter().any(|node| node.native.is_some())
}

fn no_thread(error: io::Error) -> GeoError {
    GeoError::NoMap(format!("no thread to watch regions: {error}"))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while one of these is held; were it so, what they hold would still be whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long one server may take to give out its map.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// Servers asked for one map at most.
const ASKED_MAX: usize = 16;
/// Times a server is asked again that is just replacing its map.
const ASKED_AGAIN_MAX: usize = 3;
/// How long after its last probe a suspect is probed: ten times a second at most, whatever is said of it.
const SUSPECT_PROBED_AFTER: Duration = Duration::from_millis(100);
