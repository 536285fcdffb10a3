use std::future::Future;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::AsyncWriteExt;

use super::*;
use crate::base::id::SiteId;
use crate::cluster::genesis::{Genesis, Site, SiteKind, Timing};
use crate::cluster::host::keys::{Authority, Key, certificates};
use crate::cluster::host::links::Channel;
use crate::cluster::host::news::Kept;

/// Some nodes that are members of one cluster, and what each needs to begin.
struct World {
    authority: Authority,
    genesis: Genesis,
    keys: Vec<Key>,
    pems: Vec<String>,
    listeners: Vec<Option<std::net::TcpListener>>,
    state: watch::Sender<Arc<State>>,
}

/// A node of it that runs.
struct Runs {
    links: Links,
    tls: TlsLinks,
    refusals: Arc<Refusals>,
    news: Arc<Kept>,
}

fn listener() -> std::net::TcpListener {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap()
}

impl World {
    fn new(nodes: u16) -> World {
        let authority = Authority::new(Key::generate().unwrap(), "test");
        let ids = 1..=nodes;
        let keys: Vec<Key> = ids.clone().map(|_| Key::generate().unwrap()).collect();
        let year = Duration::from_secs(365 * 86_400);
        let pems: Vec<String> =
            ids.clone().zip(&keys).map(|(id, key)| authority.issue(NodeId(id), &key.public(), year).unwrap()).collect();
        let listeners: Vec<_> = ids.clone().map(|_| listener()).collect();
        let member = |id: u16| Member {
            id: NodeId(id),
            site: SiteId(id as u8),
            name: format!("node-{id}"),
            address: listeners[usize::from(id) - 1].local_addr().unwrap().to_string(),
            clients: None,
            resp: None,
            key: keys[usize::from(id) - 1].public(),
            certificate: fingerprint(&certificates(&pems[usize::from(id) - 1]).unwrap()[0]),
            voter: true,
        };
        let site = |id: u16| Site {
            id: SiteId(id as u8),
            name: format!("site-{id}"),
            kind: SiteKind::Region,
            validator: NodeId(id),
        };
        let genesis = Genesis {
            name: "test".into(),
            nonce: "test".into(),
            operator: String::new(),
            authority: authority.certificate().unwrap(),
            timing: Timing::default(),
            sites: ids.clone().map(site).collect(),
            members: ids.map(member).collect(),
        };
        let state = watch::Sender::new(Arc::new(State::new(&genesis)));
        World { authority, genesis, keys, pems, listeners: listeners.into_iter().map(Some).collect(), state }
    }

    fn instance(boot: u64) -> Instance {
        Instance { folder: [boot as u8; 16], boot, session: crate::cluster::host::keys::random().unwrap() }
    }

    fn start(&mut self, id: u16) -> Runs {
        let listener = self.listeners[usize::from(id) - 1].take().unwrap_or_else(|| {
            let address = &self.genesis.members[usize::from(id) - 1].address;
            let until = Instant::now() + Duration::from_secs(5);
            loop {
                match std::net::TcpListener::bind(address) {
                    Ok(listener) => return listener,
                    Err(error) if Instant::now() > until => panic!("{address}: {error}"),
                    Err(_) => std::thread::sleep(Duration::from_millis(10)),
                }
            }
        });
        self.start_as(id, listener, Self::instance(1), &self.pems[usize::from(id) - 1], self.genesis.network())
    }

    fn start_as(
        &self,
        id: u16,
        listener: std::net::TcpListener,
        instance: Instance,
        pem: &str,
        network: NetworkId,
    ) -> Runs {
        let news = Arc::new(Kept::default());
        let refusals = Arc::new(Refusals::new(news.clone()));
        let setup = Setup {
            me: NodeId(id),
            network,
            trust: Trust::new(&self.keys[usize::from(id) - 1], pem, &self.genesis.authority).unwrap(),
            instance,
            listener,
            state: self.state.subscribe(),
            reach: BTreeMap::new(),
            book: Book::default(),
            remember: Box::new(|_, _| Ok(())),
            refusals: refusals.clone(),
            news: news.clone(),
        };
        let (links, tls) = TlsLinks::start(setup).unwrap();
        Runs { links, tls, refusals, news }
    }

    /// A connection of somebody who holds node `id`'s key and speaks for himself.
    async fn raw(&self, id: u16, to: u16) -> client::TlsStream<TcpStream> {
        let at = usize::from(id) - 1;
        let trust = Trust::new(&self.keys[at], &self.pems[at], &self.genesis.authority).unwrap();
        let (client, _) = trust.configure(self.genesis.network()).unwrap();
        let stream = TcpStream::connect(&self.genesis.members[usize::from(to) - 1].address).await.unwrap();
        let name = ServerName::try_from(server_name(NodeId(to))).unwrap();
        TlsConnector::from(Arc::new(client)).connect(name, stream).await.unwrap()
    }
}

impl Runs {
    async fn connected_to(&self, node: u16) {
        eventually("a connection", || {
            self.tls.status().iter().any(|link| link.node == NodeId(node) && link.connected == [true; 3])
        })
        .await;
    }

    async fn refuses(&self, refusal: Refusal) {
        let began = Instant::now();
        while self.refusals.count(refusal) == 0 {
            let late = began.elapsed() > Duration::from_secs(20);
            assert!(!late, "no '{refusal}': {:?} {:?}", self.refusals.counts(), self.news.lines());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(20), "{what}: not within 20 s");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(test);
}

#[test]
fn nodes_find_each_other_and_speak_as_whom_their_certificates_say() {
    run(async {
        let mut world = World::new(3);
        let (a, b, c) = (world.start(1), world.start(2), world.start(3));
        a.connected_to(2).await;
        b.connected_to(3).await;
        c.connected_to(1).await;
        let mut inbox = b.links.listen(Channel::Replication);
        let large = Bytes::from(vec![7; 3 << 20]);
        c.links.send(NodeId(2), Channel::Replication, large.clone()).unwrap();
        let message = inbox.recv().await.unwrap();
        assert_eq!((message.from, message.bytes), (NodeId(3), large));
        a.links.answer(
            Channel::Strong,
            Arc::new(|from, bytes| Box::pin(async move { [&bytes[..], &from.0.to_le_bytes()].concat().into() })),
        );
        let answer = c.links.call(NodeId(1), Channel::Strong, Bytes::from_static(b"q"), Duration::from_secs(5)).await;
        assert_eq!(answer.unwrap(), Bytes::from_static(b"q\x03\x00"));
        eventually("a round trip", || a.tls.status().iter().all(|link| link.round_trip_us.is_some())).await;
        for runs in [&a, &b, &c] {
            assert!(runs.refusals.counts().iter().all(|(_, count)| *count == 0), "{:?}", runs.refusals.counts());
        }
    });
}

#[test]
fn a_node_that_comes_back_is_dialed_at_once() {
    let mut world = World::new(2);
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let first = runtime();
    let a = {
        let _inside = first.enter();
        world.start(1)
    };
    let instance = Instance { boot: 2, ..World::instance(1) };
    for boot in 1..4 {
        // A runtime that ends takes its connections and its listener with it, as a process would.
        let second = runtime();
        second.block_on(async {
            let address = world.genesis.members[1].address.clone();
            let listener = world.listeners[1].take().unwrap_or_else(|| std::net::TcpListener::bind(address).unwrap());
            let session = [boot as u8; 16];
            let instance = Instance { boot, session, ..instance };
            let b = world.start_as(2, listener, instance, &world.pems[1], world.genesis.network());
            let began = Instant::now();
            b.connected_to(1).await;
            assert!(began.elapsed() < Duration::from_millis(1_500), "{:?}", began.elapsed());
        });
        second.shutdown_timeout(Duration::from_secs(5));
    }
    assert_eq!(a.refusals.count(Refusal::CopiedKey) + a.refusals.count(Refusal::StaleLog), 0);
}

#[test]
fn copied_keys_and_stale_folders_are_named() {
    run(async {
        let mut world = World::new(2);
        let (a, b) = (world.start(1), world.start(2));
        a.connected_to(2).await;
        // The key alone was copied, to another machine: both nodes name it, and the link stays.
        let copy = world.start_as(2, listener(), World::instance(9), &world.pems[1], world.genesis.network());
        a.refuses(Refusal::CopiedKey).await;
        copy.refuses(Refusal::CopiedKey).await;
        // Of the smaller number, which dials itself.
        let copy = world.start_as(1, listener(), World::instance(9), &world.pems[0], world.genesis.network());
        b.refuses(Refusal::CopiedKey).await;
        copy.refuses(Refusal::CopiedKey).await;
        let copies = |runs: &Runs| runs.news.lines().iter().filter(|line| line.contains("copied key")).count();
        assert!(copies(&a) > 0 && copies(&b) > 0);
        assert!(a.tls.status()[0].connected[0], "the honest pair is connected still");
        // A folder of an earlier time.
        let mut stale = World::new(2);
        let later = Instance { boot: 5, ..World::instance(1) };
        let earlier = Instance { boot: 4, session: [0; 16], ..later };
        let a = stale.start(1);
        let second = stale.listeners[1].take().unwrap();
        let b = stale.start_as(2, second, later, &stale.pems[1], stale.genesis.network());
        b.connected_to(1).await;
        let old = stale.start_as(2, listener(), earlier, &stale.pems[1], stale.genesis.network());
        a.refuses(Refusal::StaleLog).await;
        old.refuses(Refusal::StaleLog).await;
    });
}

#[test]
fn certificates_that_do_not_hold_are_named() {
    run(async {
        let mut world = World::new(2);
        let a = world.start(1);
        let public = world.keys[1].public();
        // Expired.
        let past =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap() - Duration::from_secs(60);
        let expired = world.authority.issue_until(NodeId(2), &public, past).unwrap();
        let network = world.genesis.network();
        let second = world.listeners[1].take().unwrap();
        let b = world.start_as(2, second, World::instance(1), &expired, network);
        a.refuses(Refusal::ExpiredCertificate).await;
        b.refuses(Refusal::RefusedByPeer).await;
        let trust = Trust::new(&world.keys[1], &expired, &world.genesis.authority).unwrap();
        assert_eq!(trust.validity(NodeId(2), Duration::ZERO), Ok(crate::cluster::host::trust::Validity::Expired));
        // Signed by the authority, and not what the cluster has agreed on.
        let other = world.authority.issue(NodeId(2), &public, Duration::from_secs(3_600)).unwrap();
        let _other = world.start_as(2, listener(), World::instance(1), &other, network);
        a.refuses(Refusal::UnknownCertificate).await;
        // Another authority's, of the same name.
        let foreign = Authority::new(Key::generate().unwrap(), "test");
        let foreign = foreign.issue(NodeId(2), &public, Duration::from_secs(3_600)).unwrap();
        let _foreign = world.start_as(2, listener(), World::instance(1), &foreign, network);
        a.refuses(Refusal::ForeignCertificate).await;
    });
}

#[test]
fn other_networks_strangers_and_oneself_are_named() {
    run(async {
        let mut world = World::new(2);
        let a = world.start(1);
        let second = world.listeners[1].take().unwrap();
        let b = world.start_as(2, second, World::instance(1), &world.pems[1], NetworkId([9; 32]));
        a.refuses(Refusal::WrongNetwork).await;
        b.refuses(Refusal::WrongNetwork).await;
        // The address of node 2 leads back to node 1.
        let mut changed = world.genesis.clone();
        changed.members[1].address = changed.members[0].address.clone();
        world.state.send_replace(Arc::new(State::new(&changed)));
        a.refuses(Refusal::SelfConnection).await;
        // Not TLS at all.
        let address = &world.genesis.members[0].address;
        let mut rubbish = TcpStream::connect(address).await.unwrap();
        rubbish.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        a.refuses(Refusal::NotTls).await;
        // Hostile bytes behind a good handshake: a greeting that is none, and one that says it is another node.
        let mut raw = world.raw(2, 1).await;
        raw.write_all(&[0xee; 600]).await.unwrap();
        a.refuses(Refusal::Malformed).await;
        let mut raw = world.raw(2, 1).await;
        let lie = Greeting {
            network: world.genesis.network(),
            from: NodeId(7),
            to: NodeId(1),
            instance: World::instance(1),
            group: 0,
            is_knock: true,
        };
        raw.write_all(&lie.encode()).await.unwrap();
        a.refuses(Refusal::Impostor).await;
        // Somebody who says nothing.
        let _silent = TcpStream::connect(address).await.unwrap();
        a.refuses(Refusal::HalfOpen).await;
    });
}

#[test]
fn one_address_cannot_hold_every_handshake() {
    run(async {
        let mut world = World::new(2);
        let a = world.start(1);
        let address = &world.genesis.members[0].address;
        let mut held = Vec::new();
        for _ in 0..limits::CLUSTER_HANDSHAKES_PER_ADDRESS + 10 {
            held.push(TcpStream::connect(address).await.unwrap());
        }
        a.refuses(Refusal::Crowded).await;
        assert!(a.refusals.count(Refusal::Crowded) <= 10);
        drop(held);
        // They are given back.
        let b = world.start(2);
        b.connected_to(1).await;
    });
}

#[test]
fn hostile_frames_of_a_member_end_its_connection_and_nothing_else() {
    run(async {
        let mut world = World::new(3);
        // Node 2 is played by hand, against node 3.
        let (a, c) = (world.start(1), world.start(3));
        a.connected_to(3).await;
        let mut raw = world.raw(2, 3).await;
        let greeting = Greeting {
            network: world.genesis.network(),
            from: NodeId(2),
            to: NodeId(3),
            instance: World::instance(1),
            group: 0,
            is_knock: false,
        };
        raw.write_all(&greeting.encode()).await.unwrap();
        let mut large = vec![0xff; 16];
        large[4..8].copy_from_slice(&[Channel::Ordering as u8, 0, 0, 0]);
        raw.write_all(&large).await.unwrap();
        c.refuses(Refusal::Oversized).await;
        assert!(c.news.lines().iter().any(|line| line.contains("oversized") && line.contains("node 2")));
        assert!(c.tls.status().iter().any(|link| link.node == NodeId(1) && link.connected == [true; 3]));
    });
}

#[test]
fn a_member_that_leaves_or_changes_its_certificate_is_disconnected() {
    run(async {
        let mut world = World::new(2);
        let (a, _b) = (world.start(1), world.start(2));
        a.connected_to(2).await;
        let mut changed = world.genesis.clone();
        changed.members.pop();
        world.state.send_replace(Arc::new(State::new(&changed)));
        eventually("no peer", || a.tls.status().is_empty()).await;
        assert_eq!(a.links.send(NodeId(2), Channel::Probe, Bytes::new()), Err(NotSent::Unknown));
        // And is welcome again.
        world.state.send_replace(Arc::new(State::new(&world.genesis)));
        a.connected_to(2).await;
    });
}

#[test]
fn a_stream_of_entries_does_not_delay_votes() {
    run(async {
        let mut world = World::new(2);
        let (a, b) = (world.start(1), world.start(2));
        a.connected_to(2).await;
        b.links.answer(Channel::Submit, Arc::new(|_, bytes| Box::pin(async move { bytes })));
        let mut streams = b.links.listen(Channel::Replication);
        tokio::spawn(async move { while streams.recv().await.is_some() {} });
        let flood = tokio::spawn({
            let links = a.links.clone();
            async move {
                let batch = Bytes::from(vec![1; 1 << 20]);
                loop {
                    if links.send(NodeId(2), Channel::Replication, batch.clone()).is_err() {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                }
            }
        });
        let mut slowest = Vec::new();
        for _ in 0..100 {
            let began = Instant::now();
            a.links.call(NodeId(2), Channel::Submit, Bytes::from_static(b"?"), Duration::from_secs(5)).await.unwrap();
            slowest.push(began.elapsed());
        }
        flood.abort();
        slowest.sort();
        // 16 MiB wait on the stream all the time; behind them a question would take tens of milliseconds at least.
        assert!(slowest[50] < Duration::from_millis(20), "median {:?}, longest {:?}", slowest[50], slowest[99]);
    });
}
