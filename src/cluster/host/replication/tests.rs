//! Nodes of unequal shards over a network within the process: cut, slow, full, and with somebody who talks nonsense.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::watch;

use super::*;
use crate::base::prng::Prng;
use crate::cluster::genesis::{Member, Site, SiteKind};
use crate::cluster::host::links::Channel;
use crate::cluster::host::links::memory::Network;
use crate::replica::port::{FromShard, ToShard};
use crate::replica::record::records;
use crate::replica::shelf::Shelf;
use crate::replica::{Config, Count, Entries, Found, KeyId, Replica, Rules, counter};

const SEED: HashSeed = HashSeed(77);

/// How long anything may take that is expected to happen: generous, for loaded machines.
const PATIENCE: Duration = Duration::from_secs(60);

/// Shards that do at once what they are told.
#[derive(Clone)]
struct Shards(Arc<Mutex<Vec<Shard>>>);

struct Shard {
    replica: Replica,
    shelf: Shelf,
    out: VecDeque<FromShard>,
    /// It takes nothing for the moment.
    is_full: bool,
}

impl Shards {
    fn new(node: u16, count: u16) -> Shards {
        let site = SiteId(node as u8);
        let config = Config {
            node: NodeId(node),
            site,
            incarnation: now_ms(),
            seed: SEED,
            versions_max: 1 << 17,
            counters_max: 1 << 10,
        };
        let shard = |_| Shard {
            replica: Replica::new(config.clone()),
            shelf: Shelf::default(),
            out: VecDeque::new(),
            is_full: false,
        };
        Shards(Arc::new(Mutex::new((0..count).map(shard).collect())))
    }

    fn with<R>(&self, key: &str, act: impl FnOnce(&mut Shard, KeyId) -> R) -> R {
        let hash = SEED.hash(key.as_bytes());
        let mut shards = self.0.lock().unwrap();
        let count = shards.len() as u16;
        let shard = &mut shards[hash.shard(count).0 as usize];
        shard.replica.set_time(now_ms());
        act(shard, KeyId::new(SEED, hash.0, key.as_bytes()))
    }

    fn set(&self, key: &str, value: &[u8]) {
        self.with(key, |shard, id| {
            let found = Found { value, ..Found::default() };
            shard.shelf.put(id, key.as_bytes(), found);
            shard.replica.changed(id, key.as_bytes(), Some(found), None);
        });
    }

    fn delete(&self, key: &str) {
        self.with(key, |shard, id| {
            shard.shelf.remove(id, None);
            shard.replica.changed(id, key.as_bytes(), None, None);
        });
    }

    fn count(&self, key: &str) {
        self.with(key, |shard, id| {
            let before = shard.shelf.0.get(&id).and_then(|stored| counter::parse(&stored.value));
            let text = (before.unwrap_or(0) + 1).to_string();
            let found = Found { value: text.as_bytes(), ..Found::default() };
            shard.shelf.put(id, key.as_bytes(), found);
            shard.replica.changed(id, key.as_bytes(), Some(found), Some(Count { before, is_initial: false }));
        });
    }

    /// All entries, whichever shard has them.
    fn all(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let shards = self.0.lock().unwrap();
        let stored = shards.iter().flat_map(|shard| shard.shelf.0.values());
        stored.map(|stored| (stored.key.clone(), stored.value.clone())).collect()
    }

    fn set_full(&self, is_full: bool) {
        self.0.lock().unwrap().iter_mut().for_each(|shard| shard.is_full = is_full);
    }
}

impl Ports for Shards {
    fn shard_count(&self) -> u16 {
        self.0.lock().unwrap().len() as u16
    }

    fn receive(&mut self, shard: u16) -> Option<FromShard> {
        let shard = &mut self.0.lock().unwrap()[shard as usize];
        shard.replica.set_time(now_ms());
        shard.replica.housekeep(&mut shard.shelf);
        shard.out.pop_front().or_else(|| shard.replica.next_chunk().map(FromShard::Chunk))
    }

    fn send(&mut self, shard: u16, message: ToShard) -> Result<(), ToShard> {
        let shard = &mut self.0.lock().unwrap()[shard as usize];
        if shard.is_full {
            return Err(message);
        }
        shard.replica.set_time(now_ms());
        match message {
            ToShard::Apply(bytes) => {
                for record in records(&bytes) {
                    shard.replica.apply(&record.unwrap(), &mut shard.shelf);
                }
            }
            ToShard::Rules(rules) => shard.replica.set_rules(rules),
            ToShard::Compared => shard.replica.has_compared(),
            ToShard::Clock(_) => {}
            ToShard::Ask(step, asked) => {
                let answer = shard.replica.answer(asked, &mut shard.shelf);
                shard.out.push_back(FromShard::Answer(step, answer));
            }
        }
        Ok(())
    }
}

fn now_ms() -> u64 {
    crate::base::time::unix_ms()
}

struct Node {
    shards: Shards,
    replication: Replication,
}

fn state(nodes: &[u16]) -> Arc<State> {
    let site = |node: &u16| Site {
        id: SiteId(*node as u8),
        name: format!("site-{node}"),
        kind: SiteKind::Region,
        validator: NodeId(*node),
    };
    let member = |node: &u16| Member {
        id: NodeId(*node),
        site: SiteId(*node as u8),
        name: format!("node-{node}"),
        address: String::new(),
        clients: None,
        resp: None,
        key: String::new(),
        certificate: String::new(),
        voter: true,
    };
    Arc::new(State {
        network: NetworkId([0; 32]),
        height: 0,
        operator: String::new(),
        sites: nodes.iter().map(|node| (SiteId(*node as u8), site(node))).collect(),
        members: nodes.iter().map(|node| (NodeId(*node), member(node))).collect(),
        primary: SiteId(1),
        rules: Rules::default(),
        tenants: BTreeMap::new(),
        config: (0, [0; 32]),
        audits: BTreeMap::new(),
        leaders: BTreeMap::new(),
        numbers: BTreeMap::new(),
    })
}

fn join(network: &Network, state: &watch::Receiver<Arc<State>>, node: u16, shards: u16, seed: HashSeed) -> Node {
    let (links, shards) = (network.join(NodeId(node)), Shards::new(node, shards));
    let setup = Setup { site: SiteId(node as u8), incarnation: now_ms(), seed };
    let replication = Replication::start(links, state.clone(), Box::new(shards.clone()), setup);
    Node { shards, replication }
}

fn run<F: Future<Output = ()>>(test: impl FnOnce(Network, watch::Receiver<Arc<State>>) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let (_sender, state) = watch::channel(state(&[1, 2, 3]));
    runtime.block_on(test(Network::default(), state));
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    began.elapsed()
}

fn write_some(node: &Node, prng: &mut Prng, count: usize) -> u64 {
    let mut counted = 0;
    for _ in 0..count {
        let key = format!("k{}", prng.below(2_000));
        match prng.below(5) {
            0 => node.shards.delete(&key),
            1 | 2 => {
                node.shards.count("counter");
                counted += 1;
            }
            _ => node.shards.set(&key, format!("v{}", prng.next_u64()).as_bytes()),
        }
    }
    counted
}

#[test]
fn two_sites_write_through_a_partition_and_agree_soon_after_it() {
    run(|network, state| async move {
        let (a, b) = (join(&network, &state, 1, 2, SEED), join(&network, &state, 2, 3, SEED));
        network.set_delay(NodeId(1), NodeId(2), Duration::from_millis(40));
        let (mut prng, mut counted) = (Prng::new(1), 0);
        for round in 0..120 {
            network.set_cut(NodeId(1), NodeId(2), (40..80).contains(&round));
            for node in [&a, &b] {
                counted += write_some(node, &mut prng, 40);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let took = until("the same everywhere", || a.shards.all() == b.shards.all()).await;
        assert!(took < Duration::from_secs(5), "{took:?}");
        assert_eq!(a.shards.all()[&b"counter".to_vec()], counted.to_string().into_bytes());
        until("equal digests", || {
            let (a, b) = (a.replication.report(), b.replication.report());
            a.peers[&2].is_equal && b.peers[&1].is_equal && a.peers[&2].digest == b.peers[&1].digest
        })
        .await;
        let report = a.replication.report();
        assert!(report.counts.applied > 0 && report.peers[&2].lag_ms < 1_000, "{report:?}");
    });
}

#[test]
fn what_a_stream_lets_go_of_is_fetched_by_repair() {
    run(|network, state| async move {
        let (a, b) = (join(&network, &state, 1, 1, SEED), join(&network, &state, 2, 2, SEED));
        until("a first comparison", || b.replication.report().peers.get(&1).is_some_and(|peer| peer.compared > 0))
            .await;
        network.set_cut(NodeId(1), NodeId(2), true);
        let mut prng = Prng::new(8);
        for number in 0..30_000u32 {
            // Not to be packed: otherwise the outbox has room for it all.
            let value: Vec<u8> = (0..64).flat_map(|_| prng.next_u64().to_le_bytes()).collect();
            a.shards.set(&format!("k{number}"), &value);
            if number.is_multiple_of(100) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        until("the outbox has overflown", || a.replication.report().peers[&2].let_go > 0).await;
        assert!(a.replication.report().peers[&2].waiting_bytes <= limits::REPLICATION_OUTBOX_BYTES_MAX as u64);
        network.set_cut(NodeId(1), NodeId(2), false);
        let took = until("all is there", || b.shards.all().len() == 30_000).await;
        println!("30,000 entries of half a kibibyte fetched in {took:?}");
        assert!(a.shards.all() == b.shards.all());
        let report = b.replication.report();
        assert!(report.peers[&1].gaps > 0 && report.peers[&1].fetched > 1_000, "{report:?}");
    });
}

#[test]
fn a_node_that_was_restarted_gets_back_what_was_written_while_it_was_remembered() {
    run(|network, state| async move {
        let (a, b) = (join(&network, &state, 1, 2, SEED), join(&network, &state, 2, 1, SEED));
        let mut prng = Prng::new(3);
        let mut counted = write_some(&a, &mut prng, 500) + write_some(&b, &mut prng, 500);
        until("the same everywhere", || a.shards.all() == b.shards.all()).await;
        network.leave(NodeId(2));
        drop(b);
        counted += write_some(&a, &mut prng, 100);
        let b = join(&network, &state, 2, 4, SEED);
        // It counts before it has heard of anybody.
        counted += write_some(&b, &mut prng, 100);
        until("the same everywhere again", || a.shards.all() == b.shards.all()).await;
        assert_eq!(b.shards.all()[&b"counter".to_vec()], counted.to_string().into_bytes());
    });
}

#[test]
fn a_shard_without_room_puts_frames_off_and_loses_nothing() {
    run(|network, state| async move {
        let (a, b) = (join(&network, &state, 1, 1, SEED), join(&network, &state, 2, 1, SEED));
        a.shards.set("first", b"x");
        until("connected", || !b.shards.all().is_empty()).await;
        b.shards.set_full(true);
        (0..50).for_each(|number| a.shards.set(&format!("k{number}"), b"x"));
        until("put off", || b.replication.report().put_off > 0).await;
        assert_eq!(b.shards.all().len(), 1);
        b.shards.set_full(false);
        until("all is there", || b.shards.all().len() == 51).await;
    });
}

#[test]
fn nonsense_is_counted_against_whoever_sends_it_and_harms_nobody() {
    run(|network, state| async move {
        let (a, b) = (join(&network, &state, 1, 1, SEED), join(&network, &state, 2, 1, SEED));
        let (liar, stranger) = (network.join(NodeId(3)), network.join(NodeId(9)));
        let mut prng = Prng::new(4);
        for _ in 0..500 {
            let bytes: Bytes = (0..prng.below(200)).map(|_| prng.next_u64() as u8).collect::<Vec<u8>>().into();
            let _ = liar.send(NodeId(1), Channel::Replication, bytes.clone());
            let _ = stranger.send(NodeId(1), Channel::Replication, bytes.clone());
            let answer = liar.call(NodeId(1), Channel::Replication, bytes, Duration::from_millis(200)).await;
            assert!(answer.is_ok(), "the handler lives");
        }
        a.shards.set("k", b"v");
        until("replicated all the same", || !b.shards.all().is_empty()).await;
        until("counted", || a.replication.report().malformed > 500 && a.replication.report().strangers >= 500).await;
        assert!(a.replication.report().peers[&3].trouble.is_some());
    });
}

#[test]
fn nodes_that_hash_keys_differently_say_so() {
    run(|network, state| async move {
        let (a, _b) = (join(&network, &state, 1, 1, SEED), join(&network, &state, 2, 1, HashSeed(78)));
        let trouble = || a.replication.report().peers.get(&2).and_then(|peer| peer.trouble.clone());
        until("named", || trouble().is_some_and(|trouble| trouble.contains("seed"))).await;
    });
}
