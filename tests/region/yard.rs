//! A region within one process: voters over the memory network, each with a folder, a clock and a store of its own;
//! nodes leave and come back from their disks; what clients ask and are told is written down.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use spinetail::base::id::{NodeId, SiteId};
use spinetail::base::limits;
use spinetail::base::prng::Prng;
use spinetail::cluster::host::links::Links;
use spinetail::cluster::host::links::memory::Network;
use spinetail::cluster::host::region::{Clock, Region, RegionHandle, Setup, monotonic_us};
use spinetail::cluster::region::{Expires, MemoryStore, StrongOp, StrongReply};
use spinetail::cluster::{Command, Genesis, Member, Site, SiteKind, State, Timing};
use spinetail::replica::{StrongEntry, StrongFull, StrongPage, StrongStore, StrongVersion};
use spinetail::sim::linear::{Action, Call, Outcome};
use tokio::sync::watch;

/// A region.
pub struct Yard {
    pub network: Network,
    pub state: watch::Sender<Arc<State>>,
    pub timing: Timing,
    pub folder: PathBuf,
    pub nodes: BTreeMap<NodeId, RegionHandle>,
    /// What is done to each node's clock.
    pub clocks: BTreeMap<NodeId, Arc<Warp>>,
    shown: BTreeMap<NodeId, Clock>,
    /// Each node's own links.
    pub links: BTreeMap<NodeId, Links>,
    /// What leaders have said for their region.
    pub said: Arc<Mutex<Vec<(NodeId, Command)>>>,
    /// Makes a node's store.
    pub make_store: fn(NodeId) -> Box<dyn StrongStore>,
}

/// What is done to a clock: so much is added, and it may stand still.
#[derive(Default)]
pub struct Warp {
    pub skew_us: AtomicI64,
    pub stands_at_us: AtomicU64,
}

impl Warp {
    /// From now on it shows what it shows now, as far as its owner can tell.
    pub fn stop(&self, shown: &Clock) {
        self.stands_at_us.store(shown(), Ordering::Relaxed);
    }

    pub fn run(&self) {
        self.stands_at_us.store(0, Ordering::Relaxed);
    }
}

pub fn memory_store(_: NodeId) -> Box<dyn StrongStore> {
    Box::new(MemoryStore::new(limits::STRONG_STORE_BYTES_DEFAULT))
}

/// A store that now and then answers what a key held before: what the checker must see.
#[derive(Default)]
pub struct StaleStore {
    store: Option<MemoryStore>,
    before: HashMap<Vec<u8>, StrongEntry>,
    reads: AtomicU64,
}

impl StaleStore {
    fn store(&mut self) -> &mut MemoryStore {
        self.store.get_or_insert_with(|| MemoryStore::new(limits::STRONG_STORE_BYTES_DEFAULT))
    }
}

impl StrongStore for StaleStore {
    fn get(&self, home: u8, key: &[u8]) -> Option<StrongEntry> {
        let is_stale = self.reads.fetch_add(1, Ordering::Relaxed) % 5 == 4;
        let before = self.before.get(key).filter(|_| is_stale).cloned();
        before.or_else(|| self.store.as_ref().and_then(|store| store.get(home, key)))
    }

    fn put(&mut self, home: u8, key: &[u8], entry: StrongEntry) -> Result<(), StrongFull> {
        if let Some(before) = self.store().get(home, key) {
            self.before.insert(key.to_vec(), before);
        }
        self.store().put(home, key, entry)
    }

    fn forget(&mut self, home: u8, key: &[u8]) {
        self.store().forget(home, key);
    }

    fn after(&self, home: u8, version: StrongVersion, bytes_max: usize) -> StrongPage {
        self.store.as_ref().map(|store| store.after(home, version, bytes_max)).unwrap_or_default()
    }

    fn due(&self, home: u8, now_ms: u64, count: usize) -> Vec<Vec<u8>> {
        self.store.as_ref().map(|store| store.due(home, now_ms, count)).unwrap_or_default()
    }

    fn settle(&mut self, home: u8, version: StrongVersion) {
        self.store().settle(home, version);
    }

    fn bytes(&self) -> usize {
        self.store.as_ref().map_or(0, |store| store.bytes())
    }

    fn is_durable(&self) -> bool {
        false
    }
}

impl Yard {
    /// `voters` of a region with `members` nodes, none started.
    pub fn new(voters: u16, members: u16) -> Yard {
        let member = |number| Member {
            id: NodeId(number),
            site: SiteId(1),
            name: format!("node-{number}"),
            address: String::new(),
            clients: None,
            resp: None,
            key: String::new(),
            certificate: String::new(),
            voter: number <= voters,
        };
        let site = Site { id: SiteId(1), name: "here".into(), kind: SiteKind::Region, validator: NodeId(1) };
        let genesis = Genesis {
            name: "yard".into(),
            nonce: String::new(),
            operator: String::new(),
            authority: String::new(),
            timing: Timing::default(),
            sites: vec![site],
            members: (1..=members).map(member).collect(),
        };
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("spinetail-yard-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Yard {
            network: Network::default(),
            state: watch::channel(Arc::new(State::new(&genesis))).0,
            timing: genesis.timing,
            folder: std::env::temp_dir().join(name),
            nodes: BTreeMap::new(),
            clocks: (1..=members).map(|number| (NodeId(number), Arc::default())).collect(),
            shown: BTreeMap::new(),
            links: BTreeMap::new(),
            said: Arc::default(),
            make_store: memory_store,
        }
    }

    /// The same, all of them started, and serving.
    pub async fn started(voters: u16) -> Yard {
        let mut yard = Yard::new(voters, voters);
        for number in 1..=voters {
            yard.start(NodeId(number)).await;
        }
        yard.until_whole().await;
        yard
    }

    pub async fn start(&mut self, node: NodeId) {
        let clock = self.clock(node, monotonic_us());
        self.shown.insert(node, clock.clone());
        let said = self.said.clone();
        let setup = Setup {
            folder: self.folder.join(node.to_string()),
            timing: self.timing,
            store: (self.make_store)(node),
            clock,
            submit: Arc::new(move |command| said.lock().unwrap().push((node, command))),
        };
        let links = self.network.join(node);
        self.links.insert(node, links.clone());
        let handle = Region::start(links, self.state.subscribe(), setup).await.unwrap();
        self.nodes.insert(node, handle);
    }

    fn clock(&self, node: NodeId, monotonic: Clock) -> Clock {
        let warp = self.clocks[&node].clone();
        Arc::new(move || match warp.stands_at_us.load(Ordering::Relaxed) {
            // An hour in, so that a clock that is set back does not reach 0.
            0 => (monotonic() + 3_600_000_000).saturating_add_signed(warp.skew_us.load(Ordering::Relaxed)),
            stands_at_us => stands_at_us,
        })
    }

    /// What a node's clock shows, for [`Warp::stop`].
    pub fn clock_of(&self, node: NodeId) -> Clock {
        self.shown[&node].clone()
    }

    /// A node is gone, at once; its files are closed so that it can come back from them.
    pub async fn kill(&mut self, node: NodeId) {
        self.network.leave(node);
        let handle = self.nodes.remove(&node).unwrap();
        handle.stop().await;
    }

    /// Cuts a node off from all others, or heals that.
    pub fn cut_off(&self, node: NodeId, is_cut: bool) {
        for other in self.clocks.keys().filter(|other| **other != node) {
            self.network.set_cut(node, *other, is_cut);
        }
    }

    pub fn handle(&self, node: NodeId) -> &RegionHandle {
        &self.nodes[&node]
    }

    /// A node that leads, and that a majority of those here takes for the leader.
    pub fn leader(&self) -> Option<NodeId> {
        let (node, _) = self.nodes.iter().find(|(_, handle)| handle.is_leader())?;
        let agree = self.nodes.values().filter(|handle| handle.leader() == Some(*node)).count();
        (2 * agree > self.nodes.len()).then_some(*node)
    }

    /// The leader, once there is one.
    pub async fn the_leader(&self) -> NodeId {
        loop {
            match self.leader() {
                Some(leader) => return leader,
                None => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        }
    }

    /// A key whose home a node holds.
    pub fn key_at(&self, node: NodeId, random: &mut Prng) -> Vec<u8> {
        let homes = self.nodes[&node].leases();
        loop {
            let key = format!("key-{}", random.below(10_000)).into_bytes();
            let home = spinetail::replica::strong::home_of(&key);
            if homes[usize::from(home)].holder == Some(node) {
                return key;
            }
        }
    }

    /// Waits until every home is served, every voter here has everything, and homes are spread evenly.
    pub async fn until_whole(&self) {
        let begun = Instant::now();
        loop {
            let whole = self.nodes.values().flat_map(|handle| handle.leases());
            let whole = whole.filter(|home| home.is_whole && home.left_ms > 0).count();
            let mut load: BTreeMap<NodeId, usize> = self.nodes.keys().map(|node| (*node, 0)).collect();
            if let Some(leader) = self.leader() {
                for holder in self.nodes[&leader].leases().into_iter().filter_map(|home| home.holder) {
                    *load.entry(holder).or_default() += 1;
                }
            }
            let spread = load.values().max().unwrap() - load.values().min().unwrap();
            if self.leader().is_some()
                && whole == limits::REGION_HOMES
                && spread <= 1
                && self.nodes.values().all(|node| node.lost_homes() == 0)
            {
                return;
            }
            if begun.elapsed() > Duration::from_secs(60) {
                let lost: Vec<usize> = self.nodes.values().map(RegionHandle::lost_homes).collect();
                panic!("not whole after a minute: {whole} homes are, load {load:?}, lost {lost:?}");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Yard {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// What clients asked and were told.
#[derive(Clone)]
pub struct Record {
    start: Instant,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl Record {
    pub fn new() -> Record {
        Record { start: Instant::now(), calls: Arc::default() }
    }

    pub fn take(&self) -> Vec<Call> {
        std::mem::take(&mut self.calls.lock().unwrap())
    }

    /// Asks a node, and writes down when and what.
    pub async fn ask(&self, process: u32, node: &RegionHandle, key: &[u8], action: Action) -> Outcome {
        let bytes = |value: u64| value.to_string().into_bytes();
        let op = match action {
            Action::Read => StrongOp::Read,
            Action::Write(value) => StrongOp::Set(bytes(value), Expires::Never),
            Action::Delete => StrongOp::Delete,
            Action::CompareAndSet(expected, value) => {
                StrongOp::CompareAndSet { expected: expected.map(bytes), new: Some(bytes(value)) }
            }
        };
        let invoked_at = self.start.elapsed().as_nanos() as u64;
        let reply = node.execute(key.to_vec(), op).await;
        let returned_at = self.start.elapsed().as_nanos() as u64;
        let outcome = match (reply, action) {
            (StrongReply::Value(value), _) => {
                Outcome::Held(value.map(|value| String::from_utf8(value).unwrap().parse().unwrap()))
            }
            (StrongReply::Done, _) | (StrongReply::Was(_), Action::Delete) => Outcome::Done,
            (StrongReply::Was(swapped), _) => Outcome::Swapped(swapped),
            (StrongReply::Refused(_), _) => Outcome::Refused,
            (StrongReply::Unknown, _) => Outcome::Unknown,
            (StrongReply::Sum(_) | StrongReply::Seen(..), _) => unreachable!("nothing here increments or looks"),
        };
        let call = Call { process, key: key.to_vec(), action, outcome, invoked_at, returned_at };
        self.calls.lock().unwrap().push(call);
        outcome
    }
}

/// The next thing a client does, with a value that nobody else writes.
pub fn random_action(random: &mut Prng, seen: Option<u64>, next: &AtomicU64) -> Action {
    match random.below(10) {
        0..5 => Action::Read,
        5..8 => Action::Write(next.fetch_add(1, Ordering::Relaxed)),
        8 => Action::Delete,
        _ => Action::CompareAndSet(seen, next.fetch_add(1, Ordering::Relaxed)),
    }
}

/// The value at a share of a list, which is sorted for that.
pub fn percentile(of: &mut [Duration], share: f64) -> Duration {
    of.sort_unstable();
    of[((of.len() - 1) as f64 * share).round() as usize]
}

pub fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    runtime.block_on(test)
}
