//! A region at work: Raft, leases and strong entries of its voters, with links, a disk and a clock.
//!
//!   execute(key, op) --> holder of the key's home? -- no --> that node, by Channel::Strong
//!                             | yes, and the lease runs
//!                             v
//!                        read: answered      write: a majority keeps it, then answered
//!
//! The protocols are in `cluster::region`; here are the tasks that carry them. A voter runs, on the housekeeping
//! cores: one that watches for the leader and stands for election, one that reigns while this node is leader, one that
//! keeps its lease, one that takes and drops homes, one for every other voter that brings it up to date, and openraft's
//! own. A node that is no voter runs none of them and asks voters.
//!
//! - `report`: all of it beside a node that runs
//! - `store`: Raft's log and votes, and promised tokens, on disk
//! - `raft`: messages of Raft and of the region between voters
//! - `reign`: elections, promises, leases
//! - `members`: the first voters, and later ones
//! - `strong`: operations: at the holder, or on their way to it
//! - `sync`: a new holder collects, a lagging node is brought up to date

mod members;
mod raft;
mod reign;
pub mod report;
pub mod store;
mod strong;
mod sync;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use openraft::{Config, Raft, ServerState, SnapshotPolicy};
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

use crate::base::id::{NodeId, SiteId};
use crate::base::limits;
use crate::cluster::host::links::{Channel, Links};
use crate::cluster::host::lock;
use crate::cluster::region::lease::{Lease, Promise};
use crate::cluster::region::strong::FencedOff;
use crate::cluster::region::{Homes, StrongOp, StrongRefused, StrongReply};
use crate::cluster::{Command, State, Timing};
use crate::replica::StrongStore;
use reign::Reign;
use store::{OpenError, Store, TypeConfig};
use strong::Strong;

/// Starts a node's part in its region.
pub struct Region;

/// What a node's part in its region needs.
pub struct Setup {
    /// Where votes and the log are kept; the node's own folder.
    pub folder: PathBuf,
    /// The clockwork.
    pub timing: Timing,
    /// Where strong entries are kept.
    pub store: Box<dyn StrongStore>,
    /// Microseconds of a clock that never goes back and keeps its rate: [`monotonic_us`].
    pub clock: Clock,
    /// Takes what this node has to say for its region; called when it has become leader.
    pub submit: Submit,
}

/// Reads a clock, in microseconds.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Takes a command on its way to the order between sites.
pub type Submit = Arc<dyn Fn(Command) + Send + Sync>;

/// A node's part in its region.
#[derive(Clone)]
pub struct RegionHandle {
    links: Links,
    state: watch::Receiver<Arc<State>>,
    site: SiteId,
    /// Only voters have a part of their own.
    voter: Option<Arc<Shared>>,
    tasks: Arc<Tasks>,
}

/// A home as this node sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HomeLease {
    /// The home.
    pub home: u8,
    /// Who holds it.
    pub holder: Option<NodeId>,
    /// Under which token.
    pub token: u64,
    /// Here: for how long this node may serve it.
    pub left_ms: u64,
    /// Here: every voter has everything.
    pub is_whole: bool,
}

/// What has been counted since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegionCounters {
    /// Elections this node stood for.
    pub elections: u64,
    /// Reads it answered as holder.
    pub reads: u64,
    /// Writes it acknowledged as holder.
    pub writes: u64,
    /// Writes it began as holder and does not know the outcome of.
    pub unknown: u64,
    /// Homes it lost because somebody had heard of a later token: it was fenced off.
    pub fenced_off: u64,
    /// Writers it refused for an old token, by node.
    pub refused: BTreeMap<NodeId, u64>,
    /// The last of them.
    pub last_refused: Option<FencedOff>,
    /// Homes it took over although so many nodes had lost their memory that something may be missing.
    pub homes_lost: u64,
    /// Messages that made no sense.
    pub bad_messages: u64,
    /// Messages of nodes of no business here.
    pub strangers: u64,
}

#[derive(Default)]
struct Counters {
    elections: AtomicU64,
    reads: AtomicU64,
    writes: AtomicU64,
    unknown: AtomicU64,
    fenced_off: AtomicU64,
    homes_lost: AtomicU64,
    bad_messages: AtomicU64,
    strangers: AtomicU64,
}

/// What a voter's tasks share.
struct Shared {
    me: NodeId,
    site: SiteId,
    links: Links,
    raft: Raft<TypeConfig>,
    store: Store,
    state: watch::Receiver<Arc<State>>,
    homes: watch::Receiver<Arc<Homes>>,
    timing: Timing,
    clock: Clock,
    submit: Submit,
    counters: Counters,
    /// Held while a vote or a promise is given, see `reign`.
    promise: tokio::sync::Mutex<Promise>,
    heard_leader: Mutex<Instant>,
    reign: Mutex<Reign>,
    lease: Mutex<Lease>,
    /// The lease is to be renewed now; it has been.
    renew: Notify,
    renewed: Notify,
    strong: Strong,
}

/// Tasks that end with the last handle.
#[derive(Default)]
struct Tasks(Mutex<Vec<AbortHandle>>);

impl Region {
    /// Starts a node's part: as a voter, if the state says so, else as one that asks voters. Within a tokio runtime.
    pub async fn start(
        links: Links,
        state: watch::Receiver<Arc<State>>,
        setup: Setup,
    ) -> Result<RegionHandle, StartError> {
        let me = links.me;
        let (site, is_voter) = {
            let state = state.borrow();
            let member = state.members.get(&me).ok_or(StartError::Unknown(me))?;
            (member.site, member.voter)
        };
        check_timing(&setup.timing)?;
        let tasks = Arc::new(Tasks::default());
        if !is_voter {
            return Ok(RegionHandle { links, state, site, voter: None, tasks });
        }
        members::voters(&state.borrow(), site).map_err(StartError::Voters)?;
        let store = Store::open(&setup.folder).map_err(StartError::Store)?;
        let tokens = store.tokens();
        let heartbeat = Duration::from_millis(setup.timing.heartbeat_ms);
        let network = raft::Network { links: links.clone(), backoff: heartbeat };
        let config = Arc::new(raft_config(site, &setup.timing)?);
        let raft = Raft::new(u64::from(me.0), config, network, store.clone(), store.clone())
            .await
            .map_err(|error| StartError::Raft(error.to_string()))?;
        let homes = store.homes();
        let now_us = (setup.clock)();
        let shared = Arc::new(Shared {
            me,
            site,
            links: links.clone(),
            raft,
            store,
            state: state.clone(),
            homes,
            timing: setup.timing,
            clock: setup.clock,
            submit: setup.submit,
            counters: Counters::default(),
            promise: tokio::sync::Mutex::new(Promise::after_start(now_us, setup.timing.lease_ms * 1000)),
            heard_leader: Mutex::new(Instant::now()),
            reign: Mutex::default(),
            lease: Mutex::default(),
            renew: Notify::new(),
            renewed: Notify::new(),
            strong: Strong::new(setup.store, &tokens),
        });
        let seed = now_us ^ u64::from(me.0) << 48 ^ u64::from(std::process::id());
        tasks.spawn(reign::watch_the_leader(shared.clone(), seed));
        tasks.spawn(reign::reign(shared.clone()));
        tasks.spawn(reign::renew_the_lease(shared.clone()));
        tasks.spawn(members::keep(shared.clone()));
        tasks.spawn(sync::take_homes(shared.clone()));
        tasks.spawn(sync::keep_in_step(shared.clone()));
        tasks.spawn({
            let shared = shared.clone();
            async move { shared.sweep().await }
        });
        {
            let shared = shared.clone();
            links.answer(
                Channel::Raft,
                Arc::new(move |from, bytes| {
                    let shared = shared.clone();
                    Box::pin(async move { raft::answer(&shared, from, &bytes).await })
                }),
            );
        }
        let handle = RegionHandle { links: links.clone(), state, site, voter: Some(shared.clone()), tasks };
        links.answer(
            Channel::Strong,
            Arc::new(move |from, bytes| {
                let shared = shared.clone();
                Box::pin(async move { strong::answer(&shared, from, bytes).await })
            }),
        );
        Ok(handle)
    }
}

impl RegionHandle {
    /// Does what is asked of a strong key of this region, wherever its holder is. Answers within
    /// [`limits::STRONG_DEADLINE_MS`]: what was refused until then surely did not happen; see `region::strong`.
    pub async fn execute(&self, key: Vec<u8>, op: StrongOp) -> StrongReply {
        let deadline = Instant::now() + Duration::from_millis(limits::STRONG_DEADLINE_MS);
        if !op.fits(&key) {
            return StrongReply::Refused(StrongRefused::TooLarge);
        }
        match &self.voter {
            Some(shared) => shared.execute(key, op, deadline).await,
            None => {
                let voters = members::voters(&self.state.borrow(), self.site).unwrap_or_default();
                strong::ask_voters(&self.links, &voters, key, op, deadline).await
            }
        }
    }

    /// All homes as this node sees them; empty if it is no voter.
    pub fn leases(&self) -> Vec<HomeLease> {
        let Some(shared) = &self.voter else { return Vec::new() };
        let homes = shared.homes.borrow().clone();
        let now_us = shared.now_us();
        let lease = lock(&shared.lease).clone();
        let homes = homes.homes.iter().enumerate().map(|(number, home)| HomeLease {
            home: number as u8,
            holder: home.holder,
            token: home.token,
            left_ms: match home.holder == Some(shared.me) {
                true => lease.left_us(number as u8, now_us) / 1000,
                false => 0,
            },
            is_whole: shared.strong.is_whole(number as u8),
        });
        homes.collect()
    }

    /// How many leaders the region has had, as far as this node knows: the term of the present one. Not openraft's
    /// terms: in one of those there may be two leaders, one after the other.
    pub fn term(&self) -> u64 {
        self.voter.as_ref().map_or(0, |shared| shared.homes.borrow().reign)
    }

    /// Who leads the region, as far as this node knows.
    pub fn leader(&self) -> Option<NodeId> {
        let shared = self.voter.as_ref()?;
        let leader = shared.raft.server_metrics().borrow().current_leader;
        leader.and_then(|leader| u16::try_from(leader).ok()).map(NodeId)
    }

    /// Whether this node leads it.
    pub fn is_leader(&self) -> bool {
        let state = self.voter.as_ref().map(|shared| shared.raft.server_metrics().borrow().state);
        state == Some(ServerState::Leader)
    }

    /// Homes in which this node has lost its memory and was not brought up to date yet.
    pub fn lost_homes(&self) -> usize {
        self.voter.as_ref().map_or(0, |shared| shared.strong.lost_homes())
    }

    /// What has been counted.
    pub fn counters(&self) -> RegionCounters {
        let Some(shared) = &self.voter else { return RegionCounters::default() };
        let counters = &shared.counters;
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (refused, last_refused) = shared.strong.refused();
        RegionCounters {
            elections: get(&counters.elections),
            reads: get(&counters.reads),
            writes: get(&counters.writes),
            unknown: get(&counters.unknown),
            fenced_off: get(&counters.fenced_off),
            refused,
            last_refused,
            homes_lost: get(&counters.homes_lost),
            bad_messages: get(&counters.bad_messages),
            strangers: get(&counters.strangers),
        }
    }

    /// Ends this node's part: nothing is written any more, and its files are closed.
    pub async fn stop(&self) {
        self.tasks.abort();
        if let Some(shared) = &self.voter {
            // Who answers holds what it answers about, and that holds the links.
            for channel in [Channel::Raft, Channel::Strong] {
                self.links.answer(channel, Arc::new(|_, _| Box::pin(async { Bytes::new() })));
            }
            let _ = shared.raft.shutdown().await;
            shared.store.close().await;
        }
    }
}

impl Shared {
    fn now_us(&self) -> u64 {
        (self.clock)()
    }

    /// Whether a node may speak here: it stands at this site, or Raft still counts it.
    fn is_of_region(&self, node: NodeId) -> bool {
        self.state.borrow().site_of(node) == Some(self.site)
            || self.raft_configs().iter().any(|set| set.contains(&node))
    }

    /// The sets of voters that Raft goes by: one, or two while they change.
    fn raft_configs(&self) -> Vec<BTreeSet<NodeId>> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow();
        let sets = metrics.membership_config.membership().get_joint_config().iter();
        sets.map(|set| set.iter().filter_map(|node| u16::try_from(*node).ok()).map(NodeId).collect()).collect()
    }
}

impl Counters {
    fn bad_messages(&self) {
        self.bad_messages.fetch_add(1, Ordering::Relaxed);
    }

    fn strangers(&self) {
        self.strangers.fetch_add(1, Ordering::Relaxed);
    }
}

impl Tasks {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        lock(&self.0).push(tokio::spawn(task).abort_handle());
    }

    fn abort(&self) {
        lock(&self.0).drain(..).for_each(|task| task.abort());
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.abort();
    }
}

/// Why a node cannot take part in its region.
#[derive(Debug)]
pub enum StartError {
    /// The cluster does not know it.
    Unknown(NodeId),
    /// The site's voters are not 1, 3 or 5.
    Voters(usize),
    /// The clockwork cannot work.
    Timing(&'static str),
    /// Its store cannot be opened.
    Store(OpenError),
    /// openraft refused.
    Raft(String),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Unknown(node) => write!(f, "node {node} is no member of the cluster: let the operator add it"),
            StartError::Voters(count) => {
                write!(f, "the site has {count} voters: it needs 1, 3 or 5, so let the operator change 'voter'")
            }
            StartError::Timing(what) => write!(f, "the genesis has a clockwork that cannot work: {what}"),
            StartError::Store(error) => error.fmt(f),
            StartError::Raft(error) => write!(f, "Raft did not start: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// Microseconds since the first call, of the clock that neither goes back nor follows anybody's corrections but in rate.
/// It stands still while the machine is suspended: a node that sleeps within its lease may answer a read with what was
/// true when it fell asleep; its writes are refused by their token. See `docs/regions.md`.
pub fn monotonic_us() -> Clock {
    let start = Instant::now();
    Arc::new(move || start.elapsed().as_micros() as u64)
}

fn check_timing(timing: &Timing) -> Result<(), StartError> {
    if timing.heartbeat_ms == 0 || timing.lease_ms < 3 * timing.heartbeat_ms {
        return Err(StartError::Timing("lease_ms must be at least three times heartbeat_ms, which is not 0"));
    }
    if timing.lease_ms > timing.election_ms || timing.lease_ms > limits::REGION_LEASE_MS_MAX {
        return Err(StartError::Timing("lease_ms must not be longer than election_ms, nor than a minute"));
    }
    Ok(())
}

fn raft_config(site: SiteId, timing: &Timing) -> Result<Config, StartError> {
    let config = Config {
        cluster_name: format!("region {site}"),
        // Our promises and our own clock decide about elections, see `reign`. These are what openraft still goes by:
        // an append may take one heartbeat, and a vote is refused for one `max` after an append, which must be over
        // when a promise is.
        enable_elect: false,
        heartbeat_interval: timing.election_ms / 2,
        election_timeout_min: timing.election_ms / 2 + 1,
        election_timeout_max: timing.election_ms / 2 + 2,
        max_payload_entries: limits::REGION_LOG_ENTRIES_PER_MESSAGE,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(limits::REGION_LOG_ENTRIES),
        snapshot_max_chunk_size: limits::REGION_SNAPSHOT_PIECE_BYTES,
        max_in_snapshot_log_to_keep: limits::REGION_LOG_ENTRIES_KEPT,
        ..Config::default()
    };
    config.validate().map_err(|_| StartError::Timing("election_ms is too short"))
}
