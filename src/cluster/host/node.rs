//! A node of a cluster, from its folder to its end.
//!
//!   folder ──→ disk ──→ ordering recovered ──→ links ──→ driver
//!                            │                   │         │
//!                            └ state (watch) ────┴─────────┴──→ region, replication, probes, routes
//!
//! `serve --cluster` and `cluster run` start the same node; the difference is whether shards run beside it. It has
//! two threads for links and whatever is spawned beside them ([`Running::runtime`]), and one for the ordering, which
//! may wait for the disk. If the ordering ends, for whatever reason, [`Running::ended`] says why.

use std::fmt;
use std::net::{TcpListener, ToSocketAddrs};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{Receiver, bounded};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::{mpsc, oneshot, watch};

use crate::base::limits;
use crate::cluster::genesis::{Genesis, Member};
use crate::cluster::host::control;
use crate::cluster::host::disk::{Disk, DiskError};
use crate::cluster::host::driver::{Driver, Part};
use crate::cluster::host::folder::{Folder, FolderError};
use crate::cluster::host::greeting::Book;
use crate::cluster::host::keys::Key;
use crate::cluster::host::links::{Channel, Links};
use crate::cluster::host::news::{News, Weight};
use crate::cluster::host::refusals::Refusals;
use crate::cluster::host::region::RegionHandle;
use crate::cluster::host::status::{LinkReport, Shared, Status, StatusSource};
use crate::cluster::host::submit::{Recent, Submitter};
use crate::cluster::host::tls::{Setup, TlsLinks};
use crate::cluster::host::trust::{Trust, Validity};
use crate::cluster::keys::SecretKey;
use crate::cluster::ordering::Ordering;
use crate::cluster::ordering::block::Snapshot;
use crate::cluster::ordering::recover::RecoverError;
use crate::cluster::ordering::validator::Validator;
use crate::cluster::state::State;

/// Starts nodes.
pub struct Node;

/// What a node may be started with, besides its folder.
pub struct Options {
    /// Who is told what matters.
    pub news: Arc<dyn News>,
    /// Takes the place of the node's part in ordering: a test plays a lying site with it. A node that serves has none.
    pub part: Option<Replace>,
}

/// Makes another part of the real one.
pub type Replace = Box<dyn FnOnce(Validator) -> Box<dyn Part> + Send>;

/// A node that runs. Dropping it ends it.
pub struct Running {
    /// The node, as it was agreed on or wants to be.
    pub me: Member,
    /// The beginning of its cluster.
    pub genesis: Arc<Genesis>,
    /// Its links.
    pub links: Links,
    /// What has been agreed on, as far as this node has executed it.
    pub state: watch::Receiver<Arc<State>>,
    /// Has commands executed.
    pub submitter: Submitter,
    /// Where parts fill in how they do.
    pub shared: Arc<Shared>,
    /// How it does, all of it.
    pub status: StatusSource,
    /// Its key: signs region maps and probes.
    pub key: Arc<Key>,
    /// Where tasks of the cluster's parts are spawned.
    pub runtime: Handle,
    /// Its data folder, for parts with files of their own.
    pub data: PathBuf,
    /// Its part in its region, once that is attached.
    pub region: Arc<OnceLock<RegionHandle>>,
    /// Why the ordering has ended, once it has.
    pub ended: Receiver<String>,
    threads: Threads,
}

struct Threads {
    runtime: Option<Runtime>,
    stop: Option<oneshot::Sender<()>>,
    ordering: Option<JoinHandle<()>>,
    socket: PathBuf,
    links: Links,
}

/// Why a node does not start.
#[derive(Debug)]
pub enum StartError {
    /// Its folder.
    Folder(FolderError),
    /// Its data.
    Disk(DiskError),
    /// What its data says.
    Recover(RecoverError),
    /// Its certificate.
    Certificate(String),
    /// The address to listen on.
    Listen(String, std::io::Error),
    /// Its control socket.
    Control(PathBuf, std::io::Error),
    /// It is told too little.
    Unknown(String),
    /// A thread, a runtime.
    System(String),
}

impl Node {
    /// Starts the node of a folder.
    pub fn start(folder: &Path, options: Options) -> Result<Running, StartError> {
        let folder = Folder::read(folder).map_err(StartError::Folder)?;
        let reach = folder.reach().map_err(StartError::Folder)?;
        let genesis = Arc::new(folder.genesis.clone());
        let (node, network) = (folder.own.node, genesis.network());
        let data = folder.path.join("data");
        let (disk, recovered) = Disk::open(&data, network, node).map_err(StartError::Disk)?;
        let site = genesis.member(node).map(|member| member.site).or(folder.own.site);
        let site = site.ok_or_else(|| {
            StartError::Unknown(format!("node {node} is not in cluster.toml: node.toml must say its 'site'"))
        })?;
        let snapshot_height = recovered.snapshot.as_ref().map_or(0, |(height, _)| *height);
        let snapshot = recovered.snapshot.map(|(height, bytes)| Snapshot { height, bytes });
        let secret = SecretKey::from(folder.key.secret());
        let validator = Validator::recover(&genesis, site, node, secret, snapshot, recovered.blocks, recovered.records)
            .map_err(StartError::Recover)?;
        let agreed = validator.state().members.get(&node).cloned();
        let trust = trust(&folder, agreed.as_ref(), options.news.as_ref())?;
        let me = agreed.unwrap_or_else(|| provisional(&folder, site, &trust));
        let listen = folder.own.listen.clone().unwrap_or_else(|| me.address.clone());
        let listener = listen_at(&listen).map_err(|error| StartError::Listen(listen.clone(), error))?;

        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(LINK_THREADS)
            .thread_name("cluster")
            .enable_all()
            .build()
            .map_err(|error| StartError::System(error.to_string()))?;
        let inside = runtime.enter();
        let (state_sender, state) = watch::channel(Arc::new(validator.state().clone()));
        let refusals = Arc::new(Refusals::new(options.news.clone()));
        let store = disk.store();
        let remember = store.clone();
        let (links, tls) = TlsLinks::start(Setup {
            me: node,
            network,
            trust,
            instance: recovered.instance,
            listener,
            state: state.clone(),
            reach,
            book: Book::new(recovered.known),
            remember: Box::new(move |node, known| remember.remember(node, known).map_err(|error| error.to_string())),
            refusals: refusals.clone(),
            news: options.news.clone(),
        })
        .map_err(|error| StartError::System(error.to_string()))?;
        let shared = Arc::new(Shared::new(Status {
            network: network.to_string(),
            node: node.0,
            name: me.name.clone(),
            site: site.0,
            boot: recovered.instance.boot,
            ..Status::default()
        }));
        let key = Arc::new(folder.key);
        let executed = Recent::default();
        let (submissions, submitted) = mpsc::channel(limits::CLUSTER_SUBMISSIONS_MAX);
        let submitter = Submitter::new(
            key.clone(),
            links.clone(),
            state.clone(),
            submissions,
            store,
            executed.clone(),
            shared.clone(),
        );
        links.answer(Channel::Submit, submitter.handler());
        let inbox = links.listen(Channel::Ordering);
        let status = status_source(shared.clone(), tls, links.clone(), refusals, state.clone());
        let socket = Folder::control(&folder.path);
        let region = Arc::new(OnceLock::new());
        control::open(&socket, status.clone(), state.clone(), submitter.clone(), region.clone())
            .map_err(|error| StartError::Control(socket.clone(), error))?;
        drop(inside);

        let part: Box<dyn Part> = match options.part {
            Some(replace) => replace(validator),
            None => Box::new(validator),
        };
        let driver = Driver {
            part,
            disk,
            links: links.clone(),
            state: state_sender,
            executed,
            shared: shared.clone(),
            news: options.news.clone(),
            timers: Default::default(),
            snapshot_height,
        };
        let (stop, stopped) = oneshot::channel();
        let (say_end, ended) = bounded(1);
        let news = options.news;
        let ordering = std::thread::Builder::new().name("ordering".into()).spawn(move || {
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
                let runtime = runtime.map_err(|error| error.to_string())?;
                runtime.block_on(driver.run(inbox, submitted, stopped))
            }));
            let reason = match outcome {
                Ok(Ok(())) => return,
                Ok(Err(reason)) => reason,
                // What it was stands in the log: the process's panic hook has written it.
                Err(_) => "the ordering panicked".to_string(),
            };
            news.tell(Weight::Error, "the ordering has ended", &[("reason", reason.clone())]);
            let _ = say_end.send(reason);
        });
        let ordering = ordering.map_err(|error| StartError::System(error.to_string()))?;
        let runtime_handle = runtime.handle().clone();
        let threads = Threads {
            runtime: Some(runtime),
            stop: Some(stop),
            ordering: Some(ordering),
            socket,
            links: links.clone(),
        };
        Ok(Running {
            me,
            genesis,
            links,
            state,
            submitter,
            shared,
            status,
            key,
            runtime: runtime_handle,
            data,
            region,
            ended,
            threads,
        })
    }
}

impl Running {
    /// Ends it: the ordering first, with everything it has promised on the disk, then the links.
    pub fn stop(mut self) {
        self.threads.end();
    }
}

impl Threads {
    fn end(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(ordering) = self.ordering.take() {
            let _ = ordering.join();
        }
        self.links.close();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_millis(500));
            let _ = std::fs::remove_file(&self.socket);
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.end();
    }
}

/// Threads for links and what is spawned beside them. Encrypting a link of 10 Gbit/s takes one.
const LINK_THREADS: usize = 2;

/// The node's trust, if its certificate is good; what is not as agreed is told.
fn trust(folder: &Folder, agreed: Option<&Member>, news: &dyn News) -> Result<Trust, StartError> {
    let trust =
        Trust::new(&folder.key, &folder.certificate, &folder.genesis.authority).map_err(StartError::Certificate)?;
    let node = folder.own.node;
    let soon = Duration::from_secs(limits::CLUSTER_CERTIFICATE_WARN_DAYS * 86_400);
    let warn = |message, reason: String| news.tell(Weight::Warn, message, &[("reason", reason)]);
    match trust.validity(node, soon).map_err(|reason| {
        StartError::Certificate(format!("cert.pem is not node {node}'s, signed by this cluster's authority: {reason}"))
    })? {
        Validity::Good => {}
        Validity::EndsSoon => {
            let reason = format!(
                "it ends within {} days: 'spinetail cluster join --renew'",
                limits::CLUSTER_CERTIFICATE_WARN_DAYS
            );
            warn("this node's certificate ends soon", reason);
        }
        Validity::Expired => {
            return Err(StartError::Certificate(
                "expired certificate: cert.pem is past its end, or this machine's clock is wrong: set the clock, or renew \
                 it with 'spinetail cluster join --renew'"
                    .into(),
            ));
        }
    }
    match agreed {
        None => warn("not a member yet", "the operator proposes it: 'spinetail cluster propose set-member'".into()),
        Some(member) if member.key != folder.key.public() || member.certificate != trust.fingerprint() => {
            let reason = "the cluster has agreed on another, as far as is known here: 'propose set-member'";
            warn("key or certificate not agreed on", reason.into());
        }
        Some(_) => {}
    }
    Ok(trust)
}

/// What a node that is not a member yet calls itself.
fn provisional(folder: &Folder, site: crate::base::id::SiteId, trust: &Trust) -> Member {
    let id = folder.own.node;
    Member {
        id,
        site,
        name: format!("node-{id}"),
        address: folder.own.listen.clone().unwrap_or_else(|| "0.0.0.0:7800".into()),
        clients: None,
        resp: None,
        key: folder.key.public(),
        certificate: trust.fingerprint(),
        voter: false,
    }
}

fn listen_at(address: &str) -> std::io::Result<TcpListener> {
    let mut last = std::io::Error::other("the name has no address");
    for address in address.to_socket_addrs()? {
        match TcpListener::bind(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn status_source(
    shared: Arc<Shared>,
    tls: TlsLinks,
    links: Links,
    refusals: Arc<Refusals>,
    state: watch::Receiver<Arc<State>>,
) -> StatusSource {
    Arc::new(move || {
        let mut status = shared.status();
        let state = state.borrow().clone();
        status.sites = state.sites.len();
        status.tolerates = state.sites.len().saturating_sub(1) / 3;
        let report = |link: crate::cluster::host::tls::LinkStatus| LinkReport {
            node: link.node.0,
            site: state.site_of(link.node).map_or(0, |site| site.0),
            connected: link.connected.iter().all(|is| *is),
            rtt_ms: link.round_trip_us.map(|us| us as f64 / 1e3),
            rtt_p90_ms: None,
            loss: None,
            clock_offset_ms: None,
            clock_error_ms: None,
            connections: link.connections,
            waiting_bytes: link.waiting_bytes,
            sent_bytes: link.sent_bytes,
            received_bytes: link.received_bytes,
        };
        status.links = tls.status().into_iter().map(report).collect();
        status.refusals = refusals.counts().into_iter().map(|(name, count)| (name.to_string(), count)).collect();
        status.dropped = links.dropped();
        let known = state.members.get(&links.me).and_then(|member| state.leaders.get(&member.site));
        if let Some((leader, term)) = known {
            // What the cluster knows; the region's own part, which knows better, overwrites it.
            status.leader = Some(leader.0);
            status.term = Some(*term);
        }
        shared.finish(&mut status);
        status
    })
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Folder(error) => error.fmt(f),
            StartError::Disk(error) => error.fmt(f),
            StartError::Recover(error) => error.fmt(f),
            StartError::Certificate(reason) | StartError::Unknown(reason) | StartError::System(reason) => {
                f.write_str(reason)
            }
            StartError::Listen(address, error) => {
                write!(f, "cannot listen on {address}: {error}: free it, or give another 'listen' in node.toml")
            }
            StartError::Control(path, error) => {
                write!(f, "control socket {}: {error}: a path of a socket has 107 bytes at most", path.display())
            }
        }
    }
}

impl std::error::Error for StartError {}

#[cfg(test)]
#[path = "node_tests.rs"]
pub(super) mod tests;
