//! Links over TCP with mutual TLS 1.3.
//!
//! Of two nodes the one with the smaller number dials, and has one connection for each group of channels. The other
//! only *knocks*: it connects, greets, and is heard, so that a node that comes back is dialed at once and a copy of
//! its key is noticed wherever it runs. A connection that ends is tried again after a pause that doubles, with
//! jitter, so that a site that heals is not met by everybody in the same millisecond.
//!
//! Who may connect is what the cluster has agreed on: the SHA-256 of the certificate must be that of a member as the
//! state stands now. When the state changes, so do the peers: a node that has left, or whose certificate has been
//! replaced, is disconnected within one turn of `keep_peers`.
//!
//! Strangers get little: a bounded number of handshakes at once, fewer from one address, five seconds each, some
//! hundred bytes of memory outside TLS, and a refusal that is counted by reason.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{CertificateError, CommonState, Error as TlsFault, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use crate::base::id::NodeId;
use crate::base::limits;
use crate::base::prng::Prng;
use crate::cluster::genesis::{Member, NetworkId};
use crate::cluster::host::connection::{End, GROUPS, Group, Peer};
use crate::cluster::host::greeting::{Book, Greeting, Instance, Known, ReadError};
use crate::cluster::host::keys::{fingerprint, server_name};
use crate::cluster::host::links::{Carrier, Desk, Frame, Links, NotSent};
use crate::cluster::host::lock;
use crate::cluster::host::news::{News, Weight};
use crate::cluster::host::refusals::{Refusal, Refusals};
use crate::cluster::host::trust::Trust;
use crate::cluster::state::State;

/// What links need to begin.
pub struct Setup {
    /// The node itself.
    pub me: NodeId,
    /// Its cluster.
    pub network: NetworkId,
    /// Key, certificate and authority.
    pub trust: Trust,
    /// Which folder and process it is.
    pub instance: Instance,
    /// Where others reach it.
    pub listener: std::net::TcpListener,
    /// Who is a member.
    pub state: watch::Receiver<Arc<State>>,
    /// Other ways to reach nodes than their addresses: a tunnel, a proxy.
    pub reach: BTreeMap<NodeId, String>,
    /// What is remembered of other nodes.
    pub book: Book,
    /// Writes down what is to be remembered.
    pub remember: Remember,
    /// Where refusals are counted.
    pub refusals: Arc<Refusals>,
    /// Who is told.
    pub news: Arc<dyn News>,
}

/// Writes down what is to be remembered of a node.
pub type Remember = Box<dyn Fn(NodeId, &Known) -> Result<(), String> + Send + Sync>;

/// The carrier.
#[derive(Clone)]
pub struct TlsLinks(Arc<Inner>);

struct Inner {
    me: NodeId,
    network: NetworkId,
    instance: Instance,
    connector: TlsConnector,
    acceptor: TlsAcceptor,
    desk: Arc<Desk>,
    state: watch::Receiver<Arc<State>>,
    reach: BTreeMap<NodeId, String>,
    peers: Mutex<BTreeMap<NodeId, Arc<Peer>>>,
    book: Mutex<Book>,
    remember: Remember,
    refusals: Arc<Refusals>,
    news: Arc<dyn News>,
    epoch: Instant,
    /// Handshakes under way, by address.
    shaking: Mutex<HashMap<IpAddr, usize>>,
}

/// A link as `status` shows it.
#[derive(Clone, Debug)]
pub struct LinkStatus {
    /// The other node.
    pub node: NodeId,
    /// Groups that are connected, in the order of their numbers.
    pub connected: [bool; GROUPS.len()],
    /// The last round trip.
    pub round_trip_us: Option<u64>,
    /// Connections made so far.
    pub connections: u64,
    /// Bytes that wait to be sent.
    pub waiting_bytes: usize,
    /// Bytes of messages sent.
    pub sent_bytes: u64,
    /// Bytes of messages received.
    pub received_bytes: u64,
}

impl Carrier for TlsLinks {
    fn send(&self, to: NodeId, frame: Frame) -> Result<(), NotSent> {
        let peer = lock(&self.0.peers).get(&to).cloned();
        peer.ok_or(NotSent::Unknown)?.send(frame)
    }
}

impl TlsLinks {
    /// Begins to listen and to dial. Must be called within a tokio runtime; its tasks run until that ends.
    pub fn start(setup: Setup) -> io::Result<(Links, TlsLinks)> {
        let (client, server) = setup.trust.configure(setup.network).map_err(io::Error::other)?;
        setup.listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(setup.listener)?;
        let desk = Arc::new(Desk::default());
        let inner = Arc::new(Inner {
            me: setup.me,
            network: setup.network,
            instance: setup.instance,
            connector: TlsConnector::from(Arc::new(client)),
            acceptor: TlsAcceptor::from(Arc::<ServerConfig>::new(server)),
            desk: desk.clone(),
            state: setup.state,
            reach: setup.reach,
            peers: Mutex::default(),
            book: Mutex::new(setup.book),
            remember: setup.remember,
            refusals: setup.refusals,
            news: setup.news,
            epoch: Instant::now(),
            shaking: Mutex::default(),
        });
        let links = TlsLinks(inner.clone());
        tokio::spawn(keep_peers(links.clone()));
        tokio::spawn(accept(links.clone(), listener));
        Ok((Links::new(setup.me, Arc::new(links.clone()), desk), links))
    }

    /// Every link.
    pub fn status(&self) -> Vec<LinkStatus> {
        let peers: Vec<Arc<Peer>> = lock(&self.0.peers).values().cloned().collect();
        let counted = |counter: &std::sync::atomic::AtomicU64| counter.load(std::sync::atomic::Ordering::Relaxed);
        let status = |peer: Arc<Peer>| LinkStatus {
            node: peer.id,
            connected: GROUPS.map(|group| peer.is_connected(group)),
            round_trip_us: Some(counted(&peer.round_trip_us)).filter(|us| *us > 0),
            connections: counted(&peer.connections),
            waiting_bytes: peer.waiting_bytes(),
            sent_bytes: counted(&peer.sent_bytes),
            received_bytes: counted(&peer.received_bytes),
        };
        peers.into_iter().map(status).collect()
    }

    fn peer(&self, node: NodeId) -> Option<Arc<Peer>> {
        lock(&self.0.peers).get(&node).cloned()
    }

    fn greeting(&self, to: NodeId, group: u8, is_knock: bool) -> Greeting {
        let Inner { network, me, instance, .. } = *self.0;
        Greeting { network, from: me, to, instance, group, is_knock }
    }

    /// Whether a certificate is that of a member, and of which.
    fn member_of(&self, certificate: &str) -> Option<NodeId> {
        let state = self.0.state.borrow();
        state.members.values().find(|member| member.certificate == certificate).map(|member| member.id)
    }

    /// Whom the state of the TLS session says the peer is.
    fn authenticated(&self, session: &CommonState) -> Result<(NodeId, String), Refusal> {
        let certificate = session.peer_certificates().and_then(<[_]>::first).ok_or(Refusal::NoCertificate)?;
        let certificate = fingerprint(certificate);
        let node = self.member_of(&certificate).ok_or(Refusal::UnknownCertificate)?;
        Ok((node, certificate))
    }

    /// What is checked of every greeting, at both ends.
    fn check(&self, greeting: &Greeting, node: NodeId, certificate: &str) -> Result<(), (Refusal, String)> {
        let detail = |refusal: Refusal| (refusal, format!("node {}", greeting.from));
        if greeting.network != self.0.network {
            return Err((Refusal::WrongNetwork, format!("network {}", greeting.network)));
        }
        if greeting.from == self.0.me {
            // Whoever holds this node's key and is not this process is a copy.
            let is_me = greeting.instance == self.0.instance;
            return Err(detail(if is_me { Refusal::SelfConnection } else { Refusal::CopiedKey }));
        }
        if greeting.from != node {
            return Err((Refusal::Impostor, format!("node {node} says it is node {}", greeting.from)));
        }
        if greeting.to != self.0.me {
            return Err((Refusal::Misdirected, format!("meant for node {}", greeting.to)));
        }
        let mut book = lock(&self.0.book);
        let seen = book.meet(node, certificate, greeting.instance).map_err(detail)?;
        if let Some(known) = seen
            && let Err(reason) = (self.0.remember)(node, known)
        {
            let fields = [("node", node.to_string()), ("reason", reason)];
            self.0.news.tell(Weight::Error, "a peer's instance was not written down", &fields);
        }
        Ok(())
    }

    /// Carries frames of an established connection until it ends.
    async fn carry<S>(&self, peer: &Arc<Peer>, group: Group, stream: S)
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    {
        let back: Arc<dyn Carrier> = Arc::new(self.clone());
        let (desk, from) = (self.0.desk.clone(), peer.id);
        let is_first = group == Group::Order;
        if is_first {
            self.0.news.tell(Weight::Info, "link up", &[("node", from.to_string())]);
        }
        let End { refusal, detail } =
            peer.carry(group, stream, self.0.epoch, |frame| desk.deliver(from, frame, &back)).await;
        match refusal {
            Some(refusal) => self.0.refusals.note(refusal, format!("node {from}"), detail),
            None if is_first => {
                self.0.news.tell(Weight::Info, "link down", &[("node", from.to_string()), ("reason", detail)]);
            }
            None => {}
        }
    }
}

/// Follows the state: peers appear, change and leave with it.
async fn keep_peers(links: TlsLinks) {
    let mut state = links.0.state.clone();
    // Of each peer: what its tasks were started with, and the tasks.
    let mut kept: BTreeMap<NodeId, (Member, JoinSet<()>)> = BTreeMap::new();
    loop {
        let members = state.borrow_and_update().members.clone();
        let is_same = |member: &Member| {
            let now = members.get(&member.id);
            now.is_some_and(|now| now.address == member.address && now.certificate == member.certificate)
        };
        let gone: Vec<NodeId> =
            kept.iter().filter(|(_, (member, _))| !is_same(member)).map(|(node, _)| *node).collect();
        for node in gone {
            // Dropping its tasks ends what this node has dialed; the rest is told.
            kept.remove(&node);
            if let Some(peer) = lock(&links.0.peers).remove(&node) {
                peer.disconnect();
            }
        }
        for (node, member) in members.iter().filter(|(node, _)| **node != links.0.me) {
            if kept.contains_key(node) {
                continue;
            }
            let peer = Arc::new(Peer::new(*node));
            lock(&links.0.peers).insert(*node, peer.clone());
            let mut tasks = JoinSet::new();
            let address = links.0.reach.get(node).unwrap_or(&member.address).clone();
            if links.0.me < *node {
                for group in GROUPS {
                    tasks.spawn(dial(links.clone(), peer.clone(), address.clone(), group));
                }
            } else {
                tasks.spawn(knock(links.clone(), peer.clone(), address.clone()));
            }
            kept.insert(*node, (member.clone(), tasks));
        }
        if state.changed().await.is_err() {
            return;
        }
    }
}

/// Keeps one connection to a node, again and again.
async fn dial(links: TlsLinks, peer: Arc<Peer>, address: String, group: Group) {
    let mut pause = Pause::new(links.0.me, peer.id, group as u8);
    loop {
        match connect(&links, &peer, &address, group as u8, false).await {
            Ok(Some(stream)) => {
                let began = Instant::now();
                links.carry(&peer, group, stream).await;
                if began.elapsed() > Duration::from_millis(limits::CLUSTER_RECONNECT_MS) {
                    pause.reset();
                }
            }
            Ok(None) => {}
            Err(Refused { refusal: Some(refusal), detail }) => {
                links.0.refusals.note(refusal, format!("node {} at {address}", peer.id), detail);
            }
            // Not there, or not reachable: that is what pauses are for, and `status` shows it.
            Err(Refused { refusal: None, .. }) => {}
        }
        tokio::select! {
            () = tokio::time::sleep(pause.next()) => {}
            () = peer.knocked.notified() => {}
        }
    }
}

/// Shows a node that this one is there, while it has not dialed.
async fn knock(links: TlsLinks, peer: Arc<Peer>, address: String) {
    let mut pause = Pause::new(links.0.me, peer.id, u8::MAX);
    loop {
        if GROUPS.iter().all(|group| peer.is_connected(*group)) {
            pause.reset();
        } else if let Err(Refused { refusal: Some(refusal), detail }) =
            connect(&links, &peer, &address, u8::MAX, true).await
        {
            links.0.refusals.note(refusal, format!("node {} at {address}", peer.id), detail);
        }
        tokio::time::sleep(pause.next()).await;
    }
}

struct Refused {
    refusal: Option<Refusal>,
    detail: String,
}

impl From<(Refusal, String)> for Refused {
    fn from((refusal, detail): (Refusal, String)) -> Refused {
        Refused { refusal: Some(refusal), detail }
    }
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Refused {
        let (refusal, detail) = classify(&error, None);
        Refused { refusal, detail }
    }
}

/// Dials a node up to the end of the greeting. No stream means it was a knock that was heard.
async fn connect(
    links: &TlsLinks,
    peer: &Peer,
    address: &str,
    group: u8,
    is_knock: bool,
) -> Result<Option<client::TlsStream<TcpStream>>, Refused> {
    let patience = Duration::from_millis(limits::CLUSTER_HANDSHAKE_MS);
    let connecting = async {
        let stream = TcpStream::connect(address).await.map_err(|error| {
            // A closed port, an unknown name: nobody is to blame.
            Refused { refusal: None, detail: error.to_string() }
        })?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(server_name(peer.id)).map_err(io::Error::other)?;
        let mut stream = links.0.connector.connect(name, stream).await.map_err(|error| {
            let (refusal, detail) = classify(&error, Some(links.0.me));
            Refused { refusal, detail }
        })?;
        let (node, certificate) = links
            .authenticated(stream.get_ref().1)
            .map_err(|refusal| (refusal, format!("the certificate of node {} is not the agreed one", peer.id)))?;
        if node != peer.id {
            return Err((Refusal::Misdirected, format!("node {node} answers")).into());
        }
        stream.write_all(&links.greeting(peer.id, group, is_knock).encode()).await?;
        stream.flush().await?;
        match stream.read_u8().await? {
            WELCOME => {}
            HEARD if is_knock => return Ok(None),
            number => {
                // What the other side says of this node is worth its own reason: the operator reads it here.
                let said = Refusal::from_number(number);
                let detail = said.map_or("for a reason unknown here".to_string(), |said| {
                    format!("it says: {said}; {}", said.remedy())
                });
                return Err((said.filter(is_about_me).unwrap_or(Refusal::RefusedByPeer), detail).into());
            }
        }
        let greeting = match Greeting::read(&mut stream).await {
            Ok(greeting) => greeting,
            Err(ReadError::Refused(refusal)) => return Err((refusal, "in its greeting".to_string()).into()),
            Err(ReadError::Io(error)) => return Err(error.into()),
        };
        links.check(&greeting, node, &certificate)?;
        Ok(Some(stream))
    };
    match timeout(patience, connecting).await {
        Ok(outcome) => outcome,
        Err(_) => Err((Refusal::HalfOpen, format!("no end of the handshake in {} ms", patience.as_millis())).into()),
    }
}

/// What a peer says of this node and this node counts under the same name, so that its own `status` tells.
fn is_about_me(said: &Refusal) -> bool {
    matches!(said, Refusal::CopiedKey | Refusal::StaleLog | Refusal::WrongNetwork | Refusal::WrongVersion)
}

const WELCOME: u8 = 0;
/// A knock was heard.
const HEARD: u8 = u8::MAX;

/// Takes connections, for ever.
async fn accept(links: TlsLinks, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, address)) => match Shaking::begin(&links.0, address.ip()) {
                Some(shaking) => {
                    let links = links.clone();
                    tokio::spawn(async move { welcome(links, stream, address, shaking).await });
                }
                None => {
                    let detail = format!("{} at once", limits::CLUSTER_HANDSHAKES_PER_ADDRESS);
                    links.0.refusals.note(Refusal::Crowded, address.to_string(), detail);
                }
            },
            Err(error) => {
                // No descriptor left, or the peer was gone already: a pause lets others give some back.
                links.0.news.tell(Weight::Warn, "no connection taken", &[("reason", error.to_string())]);
                tokio::time::sleep(Duration::from_millis(limits::CLUSTER_RECONNECT_MS_MIN)).await;
            }
        }
    }
}

/// A handshake under way.
struct Shaking {
    inner: Arc<Inner>,
    address: IpAddr,
}

impl Shaking {
    fn begin(inner: &Arc<Inner>, address: IpAddr) -> Option<Shaking> {
        let mut shaking = lock(&inner.shaking);
        let all: usize = shaking.values().sum();
        let here = shaking.get(&address).copied().unwrap_or(0);
        if all >= limits::CLUSTER_HANDSHAKES_MAX || here >= limits::CLUSTER_HANDSHAKES_PER_ADDRESS {
            return None;
        }
        *shaking.entry(address).or_default() += 1;
        Some(Shaking { inner: inner.clone(), address })
    }
}

impl Drop for Shaking {
    fn drop(&mut self) {
        let mut shaking = lock(&self.inner.shaking);
        if let Some(count) = shaking.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                shaking.remove(&self.address);
            }
        }
    }
}

/// A connection that somebody has made, up to its end.
async fn welcome(links: TlsLinks, stream: TcpStream, address: SocketAddr, shaking: Shaking) {
    let patience = Duration::from_millis(limits::CLUSTER_HANDSHAKE_MS);
    let outcome = timeout(patience, shake(&links, stream)).await;
    drop(shaking);
    match outcome {
        Ok(Ok(Some((peer, group, stream)))) => links.carry(&peer, group, stream).await,
        Ok(Ok(None)) => {}
        Ok(Err(Refused { refusal, detail })) => {
            links.0.refusals.note(refusal.unwrap_or(Refusal::HalfOpen), address.to_string(), detail);
        }
        Err(_) => {
            let detail = format!("no end of the handshake in {} ms", patience.as_millis());
            links.0.refusals.note(Refusal::HalfOpen, address.to_string(), detail);
        }
    }
}

type Shaken = (Arc<Peer>, Group, server::TlsStream<TcpStream>);

async fn shake(links: &TlsLinks, stream: TcpStream) -> Result<Option<Shaken>, Refused> {
    stream.set_nodelay(true)?;
    let mut stream = links.0.acceptor.accept(stream).await?;
    // Read first, answer then: a peer that is refused gets to know why, which a closed connection would not tell.
    let greeting = match Greeting::read(&mut stream).await {
        Ok(greeting) => Ok(greeting),
        Err(ReadError::Io(error)) => return Err(error.into()),
        Err(ReadError::Refused(refusal)) => Err((refusal, "in its greeting".to_string())),
    };
    let met = greeting.and_then(|greeting| {
        let (node, certificate) = links
            .authenticated(stream.get_ref().1)
            .map_err(|refusal| (refusal, format!("says it is node {}", greeting.from)))?;
        links.check(&greeting, node, &certificate)?;
        Ok((greeting, node))
    });
    let (greeting, node) = match met {
        Ok(met) => met,
        Err((refusal, detail)) => {
            let _ = stream.write_all(&[refusal as u8]).await;
            let _ = stream.shutdown().await;
            return Err((refusal, detail).into());
        }
    };
    let peer = links.peer(node).ok_or((Refusal::UnknownCertificate, "it has just left".to_string()))?;
    if greeting.is_knock {
        stream.write_all(&[HEARD]).await?;
        let _ = stream.shutdown().await;
        peer.knocked.notify_waiters();
        return Ok(None);
    }
    // Only the smaller number dials: two connections of one group would displace each other for ever.
    let group = Group::from_number(greeting.group).filter(|_| node < links.0.me);
    let group = group.ok_or((Refusal::Malformed, format!("node {node} dials what it may not")))?;
    let mut answer = vec![WELCOME];
    answer.extend(links.greeting(node, greeting.group, false).encode());
    stream.write_all(&answer).await?;
    stream.flush().await?;
    Ok(Some((peer, group, stream)))
}

/// Whose fault an error of a connection is. `me` is the node that dialed.
fn classify(error: &io::Error, me: Option<NodeId>) -> (Option<Refusal>, String) {
    use tokio_rustls::rustls::AlertDescription as Alert;
    let detail = error.to_string();
    let Some(fault) = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsFault>()) else {
        return (None, detail);
    };
    let refusal = match fault {
        TlsFault::InvalidCertificate(reason) => match reason {
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => Refusal::ExpiredCertificate,
            CertificateError::NotValidForNameContext { presented, .. } => {
                let mine = me.map(server_name);
                let is_me = mine.is_some_and(|mine| presented.iter().any(|name| name.contains(&mine)));
                if is_me { Refusal::SelfConnection } else { Refusal::Misdirected }
            }
            CertificateError::NotValidForName => Refusal::Misdirected,
            _ => Refusal::ForeignCertificate,
        },
        TlsFault::NoCertificatesPresented => Refusal::NoCertificate,
        TlsFault::NoApplicationProtocol => Refusal::WrongNetwork,
        TlsFault::AlertReceived(Alert::NoApplicationProtocol) => Refusal::WrongNetwork,
        TlsFault::AlertReceived(_) => Refusal::RefusedByPeer,
        _ => Refusal::NotTls,
    };
    (Some(refusal), detail)
}

/// Pauses between attempts: doubling, with jitter, bounded.
struct Pause {
    ms: u64,
    random: Prng,
}

impl Pause {
    fn new(me: NodeId, peer: NodeId, salt: u8) -> Pause {
        let seed = u64::from(me.0) << 32 | u64::from(peer.0) << 8 | u64::from(salt);
        Pause { ms: limits::CLUSTER_RECONNECT_MS_MIN, random: Prng::new(seed) }
    }

    fn next(&mut self) -> Duration {
        let ms = self.ms;
        self.ms = (self.ms * 2).min(limits::CLUSTER_RECONNECT_MS);
        // Between half and the whole of it.
        Duration::from_millis(ms / 2 + self.random.below(ms / 2 + 1))
    }

    fn reset(&mut self) {
        self.ms = limits::CLUSTER_RECONNECT_MS_MIN;
    }
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
