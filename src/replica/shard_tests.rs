//! Three sites, random writes, a network that loses, doubles, delays and reorders; partitions, evictions, restarts.

use std::collections::BTreeMap;

use super::*;
use crate::base::prng::Prng;
use crate::replica::record::records;
use crate::replica::repair::{Question, Summary, lists};
use crate::replica::shelf::Shelf;

const SEED: HashSeed = HashSeed(9);
const START_MS: u64 = 1_800_000_000_000;

/// A node with one shard.
struct Node {
    site: SiteId,
    replica: Replica,
    shelf: Shelf,
    now_ms: u64,
}

fn id(key: &str) -> KeyId {
    KeyId::new(SEED, SEED.hash(key.as_bytes()).0, key.as_bytes())
}

impl Node {
    fn new(number: u16, incarnation: u64) -> Node {
        Node::with_versions(number, incarnation, 4096)
    }

    fn with_versions(number: u16, incarnation: u64, versions_max: usize) -> Node {
        let site = SiteId(number as u8);
        let config = Config { node: NodeId(number), site, incarnation, seed: SEED, versions_max, counters_max: 512 };
        let mut replica = Replica::new(config);
        replica.set_time(START_MS);
        Node { site, replica, shelf: Shelf::default(), now_ms: START_MS }
    }

    fn set_time(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
        self.replica.set_time(now_ms);
        self.shelf.0.retain(|_, stored| stored.expires_ms.is_none_or(|at| at > now_ms));
        self.replica.housekeep(&mut self.shelf);
    }

    fn set(&mut self, key: &str, value: &str) {
        self.set_until(key, value, None);
    }

    fn set_until(&mut self, key: &str, value: &str, expires_ms: Option<u64>) {
        let found = Found { value: value.as_bytes(), expires_ms, ..Found::default() };
        self.shelf.put(id(key), key.as_bytes(), found);
        self.replica.changed(id(key), key.as_bytes(), Some(found), None);
    }

    fn delete(&mut self, key: &str) {
        self.shelf.remove(id(key), None);
        self.replica.changed(id(key), key.as_bytes(), None, None);
    }

    /// As the engine does it: what was evicted comes back first.
    fn count(&mut self, key: &str, delta: i64) -> i128 {
        if !self.shelf.0.contains_key(&id(key))
            && let Some((text, expires_ms, _)) = self.replica.recall(id(key))
        {
            let found = Found { value: text.as_bytes(), expires_ms, ..Found::default() };
            self.shelf.put(id(key), key.as_bytes(), found);
        }
        let stored = self.shelf.0.get(&id(key)).cloned();
        let before = stored.as_ref().and_then(|stored| counter::parse(&stored.value));
        let after = before.unwrap_or(0) + i128::from(delta);
        let text = after.to_string();
        let expires_ms = stored.and_then(|stored| stored.expires_ms);
        let found = Found { value: text.as_bytes(), expires_ms, ..Found::default() };
        self.shelf.put(id(key), key.as_bytes(), found);
        self.replica.changed(id(key), key.as_bytes(), Some(found), Some(Count { before, is_initial: false }));
        after
    }

    fn get(&self, key: &str) -> Option<String> {
        self.shelf.0.get(&id(key)).map(|stored| String::from_utf8_lossy(&stored.value).into_owned())
    }

    fn chunks(&mut self) -> Vec<Chunk> {
        self.replica.housekeep(&mut self.shelf);
        std::iter::from_fn(|| self.replica.next_chunk()).collect()
    }

    fn apply(&mut self, bytes: &[u8]) {
        for record in records(bytes) {
            self.replica.apply(&record.unwrap(), &mut self.shelf);
        }
    }

    fn summaries(&self, to: SiteId) -> BTreeMap<Vec<SiteId>, Summary> {
        self.replica.summary(to).into_iter().collect()
    }

    /// One round of repair: this node takes what the other has and it misses. Answers how many records came.
    fn pull(&mut self, other: &mut Node) -> usize {
        let mut fetched = 0;
        let mine = self.summaries(other.site);
        for (regions, theirs) in other.summaries(self.site) {
            let windows = mine.get(&regions).cloned().unwrap_or_default().differences(&theirs, self.now_ms, true);
            let my_buckets: Vec<_> = windows.iter().map(|window| self.replica.buckets(&regions, *window)).collect();
            let their_buckets: Vec<_> =
                windows.iter().map(|window| other.replica.buckets(&regions, *window).each.to_vec()).collect();
            for question in lists(&regions, &windows, &my_buckets, &their_buckets) {
                let Question::List { regions, buckets } = question else { unreachable!() };
                for list in buckets {
                    let named = other.replica.named(&regions, list.bucket, &list.windows, list.with_counters);
                    for named in named.iter().filter(|named| self.replica.wants(named)).collect::<Vec<_>>() {
                        let mut bytes = Vec::new();
                        other.replica.fetch(named.id, self.site, &mut other.shelf, &mut bytes);
                        fetched += usize::from(!bytes.is_empty());
                        self.apply(&bytes);
                    }
                }
            }
        }
        self.replica.has_compared();
        fetched
    }
}

fn pair(nodes: &mut [Node], a: usize, b: usize) -> (&mut Node, &mut Node) {
    let [a, b] = nodes.get_disjoint_mut([a, b]).unwrap();
    (a, b)
}

/// Rounds of repair until nobody misses anything.
fn heal(nodes: &mut [Node]) {
    for round in 0.. {
        let mut fetched = 0;
        for a in 0..nodes.len() {
            for b in (0..nodes.len()).filter(|b| *b != a) {
                let (a, b) = pair(nodes, a, b);
                fetched += a.pull(b);
            }
        }
        // What they tell each other on the way is lost here: repair alone must do.
        nodes.iter_mut().for_each(|node| drop(node.chunks()));
        if fetched == 0 {
            break;
        }
        assert!(round < 6, "repair does not come to an end");
    }
    nodes.iter().for_each(|node| node.replica.check().unwrap());
    for node in &nodes[1..] {
        let (a, b) = (nodes[0].summaries(SiteId(0)), node.summaries(SiteId(0)));
        assert_eq!(a[&Vec::new()].digest(0), b[&Vec::new()].digest(0), "digests differ");
    }
}

struct World {
    prng: Prng,
    nodes: Vec<Node>,
    /// Chunks under way: to whom, and what.
    network: Vec<(usize, Vec<u8>)>,
    /// Groups that hear each other.
    side: [u64; 3],
    /// Of each key: the latest version written anywhere, and what was written.
    last: BTreeMap<String, (Version, Option<String>)>,
    counted: BTreeMap<String, i128>,
}

impl World {
    fn new(seed: u64) -> World {
        World {
            prng: Prng::new(seed),
            nodes: (1..=3).map(|number| Node::new(number, 1)).collect(),
            network: Vec::new(),
            side: [0; 3],
            last: BTreeMap::new(),
            counted: BTreeMap::new(),
        }
    }

    fn step(&mut self) {
        let who = self.prng.below(3) as usize;
        let node = &mut self.nodes[who];
        // Clocks differ by up to 200 ms, and stand still most of the time.
        let time_ms = node.now_ms + if self.prng.below(4) == 0 { self.prng.below(40) } else { 0 };
        node.set_time(time_ms);
        let (plain, counter) = (format!("k{}", self.prng.below(12)), format!("n{}", self.prng.below(5)));
        match self.prng.below(10) {
            0..4 => {
                let value = self.prng.below(1_000).to_string();
                node.set(&plain, &value);
                self.wrote(who, plain, Some(value));
            }
            4 => {
                node.delete(&plain);
                self.wrote(who, plain, None);
            }
            5..8 => {
                let delta = self.prng.below(9) as i64 - 3;
                node.count(&counter, delta);
                *self.counted.entry(counter).or_default() += i128::from(delta);
            }
            8 => _ = node.shelf.0.remove(&id(&plain)),
            _ => _ = node.shelf.0.remove(&id(&counter)),
        }
        let chunks = self.nodes[who].chunks();
        for chunk in chunks {
            for to in (0..3).filter(|to| *to != who && self.side[*to] == self.side[who]) {
                (0..self.prng.below(3)).for_each(|_| self.network.push((to, chunk.bytes.clone())));
            }
        }
        for _ in 0..self.prng.below(4) {
            if !self.network.is_empty() {
                let at = self.prng.below(self.network.len() as u64) as usize;
                let (to, bytes) = self.network.swap_remove(at);
                self.nodes[to].apply(&bytes);
            }
        }
        if self.prng.below(50) == 0 {
            self.side = std::array::from_fn(|_| self.prng.below(2));
        }
    }

    fn wrote(&mut self, who: usize, key: String, value: Option<String>) {
        let version = self.nodes[who].replica.versions.get(id(&key)).unwrap().version;
        let last = self.last.entry(key).or_insert((version, value.clone()));
        if version > last.0 {
            *last = (version, value);
        }
    }

    fn check(&mut self) {
        let latest = self.nodes.iter().map(|node| node.now_ms).max().unwrap();
        self.nodes.iter_mut().for_each(|node| node.set_time(latest));
        heal(&mut self.nodes);
        for node in &mut self.nodes {
            for (key, (version, value)) in &self.last {
                let known = node.replica.versions.get(id(key)).unwrap();
                assert_eq!(known.version, *version, "{key}");
                // It may have been evicted here; what it must not be is another one, or one that was deleted.
                assert!(node.get(key).is_none() || node.get(key) == *value, "{key}: {value:?} {:?}", node.get(key));
            }
            for (key, sum) in &self.counted {
                assert_eq!(node.replica.recall(id(key)).unwrap().0, sum.to_string(), "{key}");
                assert_eq!(node.count(key, 0), *sum);
            }
            node.replica.check().unwrap();
        }
    }
}

#[test]
fn three_sites_converge_whatever_the_network_does_and_no_increment_is_lost() {
    for seed in 0..100 {
        let mut world = World::new(seed);
        for round in 0..4 {
            (0..200).for_each(|_| world.step());
            if round % 2 == 1 {
                // What was under way stays under way: it comes when all is settled, and changes nothing.
                world.check();
            }
        }
        for (to, bytes) in std::mem::take(&mut world.network) {
            world.nodes[to].apply(&bytes);
        }
        world.check();
    }
}

#[test]
fn counters_survive_restarts_of_each_node_in_turn() {
    for seed in 0..50 {
        let mut world = World::new(seed);
        for restart in 0..6 {
            (0..100).for_each(|_| world.step());
            world.check();
            let who = restart % 3;
            let now_ms = world.nodes[who].now_ms;
            world.nodes[who] = Node::new(who as u16 + 1, 2 + restart as u64);
            world.nodes[who].set_time(now_ms);
            // It counts before it has heard of anybody.
            for _ in 0..5 {
                let key = format!("n{}", world.prng.below(5));
                world.nodes[who].count(&key, 7);
                *world.counted.entry(key).or_default() += 7;
            }
        }
        world.check();
    }
}

#[test]
fn a_node_that_was_restarted_counts_from_a_set_that_it_has_forgotten() {
    let mut nodes = [Node::new(1, 1), Node::new(2, 1)];
    nodes.iter_mut().for_each(|node| node.replica.has_compared());
    nodes[0].set("n", "100");
    heal(&mut nodes);
    nodes[0].count("n", 1);
    nodes[1].count("n", 10);
    heal(&mut nodes);
    nodes[1] = Node::new(2, 2);
    assert_eq!(nodes[1].count("n", 1_000), 1_000, "it does not know better yet");
    heal(&mut nodes);
    assert_eq!((nodes[0].get("n"), nodes[1].get("n")), (Some("1111".into()), Some("1111".into())));
    nodes[0].set("n", "5");
    heal(&mut nodes);
    assert_eq!((nodes[0].get("n"), nodes[1].get("n")), (Some("5".into()), Some("5".into())));
}

#[test]
fn an_evicted_entry_leaves_digests_as_they_are_and_does_not_come_back_as_an_older_one() {
    let mut nodes = [Node::new(1, 1), Node::new(2, 1)];
    nodes[0].set("k", "old");
    heal(&mut nodes);
    nodes[1].set("k", "new");
    nodes[1].shelf.0.clear();
    heal(&mut nodes);
    // Nobody has the new value any more; the old one is not served in its place.
    assert_eq!((nodes[0].get("k"), nodes[1].get("k")), (None, None));
}

#[test]
fn a_counter_whose_time_has_run_out_begins_again_the_same_everywhere() {
    let mut nodes = [Node::new(1, 1), Node::new(2, 1)];
    nodes.iter_mut().for_each(|node| node.replica.has_compared());
    nodes[0].count("n", 5);
    let until = Some(START_MS + 1_000);
    nodes[0].set_until("n", "5", until);
    heal(&mut nodes);
    assert_eq!(nodes[1].shelf.0[&id("n")].expires_ms, until, "an expiry is no new epoch");
    nodes.iter_mut().for_each(|node| node.set_time(START_MS + 2_000));
    assert_eq!(nodes[0].count("n", 1), 1);
    // The other is late, and forgets the ended one before it counts.
    (0..200).for_each(|ms| nodes[1].set_time(START_MS + 2_000 + limits::REPLICATION_ENDED_MS + ms));
    assert!(nodes[1].replica.counters.get(id("n")).is_none());
    assert_eq!(nodes[1].count("n", 10), 10);
    nodes[0].set_time(START_MS + 2_000 + limits::REPLICATION_ENDED_MS);
    heal(&mut nodes);
    assert_eq!((nodes[0].get("n"), nodes[1].get("n")), (Some("11".into()), Some("11".into())));
}

#[test]
fn a_delete_holds_within_the_horizon_and_what_is_older_is_refused() {
    let (mut a, mut b) = (Node::new(1, 1), Node::new(2, 1));
    a.set("k", "v");
    let write = a.chunks();
    a.set_time(START_MS + 1_000);
    b.set_time(START_MS + 1_000);
    b.apply(&write[0].bytes);
    b.delete("k");
    let minute_ms = 60_000;
    for minute in 1..60 {
        b.set_time(START_MS + minute * minute_ms);
        b.apply(&write[0].bytes);
        assert_eq!(b.get("k"), None, "after {minute} minutes");
    }
    for minute in 60..80 {
        b.set_time(START_MS + minute * minute_ms);
        b.apply(&write[0].bytes);
        assert_eq!(b.get("k"), None, "after {minute} minutes");
    }
    let counts = b.replica.counts();
    assert!(counts.stale >= 59 && counts.late >= 10, "{counts:?}");
}

#[test]
fn a_record_from_the_future_is_refused_and_counted() {
    let (mut fast, mut node) = (Node::new(1, 1), Node::new(2, 1));
    fast.set_time(START_MS + 60_000);
    fast.set("k", "v");
    fast.count("n", 1);
    for chunk in fast.chunks() {
        node.apply(&chunk.bytes);
    }
    assert_eq!((node.get("k"), node.replica.counts().future), (None, 1), "a counter's epoch is as old as the key");
    node.set("k", "mine");
    assert!(node.replica.versions.get(id("k")).unwrap().version.unix_ms() < START_MS + 100, "nor is the clock moved");
}

fn rules(prefix: &str, mode: Mode, regions: &[u8], epoch: u64) -> Arc<Rules> {
    let mut rules = Rules::default();
    let regions = regions.iter().map(|region| SiteId(*region)).collect();
    rules.set(Namespace { prefix: prefix.into(), mode, regions, home: None, epoch });
    Arc::new(rules)
}

#[test]
fn a_pinned_namespace_is_neither_sent_nor_taken_elsewhere() {
    let mut nodes: Vec<Node> = (1..=3).map(|number| Node::new(number, 1)).collect();
    let pinned = rules("eu:", Mode::Eventual, &[1, 2], 0);
    nodes.iter_mut().for_each(|node| node.replica.set_rules(pinned.clone()));
    nodes[0].set("eu:a", "secret");
    nodes[0].count("eu:n", 3);
    nodes[0].delete("eu:gone");
    nodes[0].set("other", "x");
    let chunks = nodes[0].chunks();
    let to_all: Vec<u8> =
        chunks.iter().filter(|chunk| chunk.regions.is_empty()).flat_map(|c| c.bytes.clone()).collect();
    assert!(records(&to_all).flatten().all(|record| matches!(record, Record::Value { key: b"other", .. })));
    // A node that breaks the rule is not believed.
    chunks.iter().for_each(|chunk| nodes[2].apply(&chunk.bytes));
    assert_eq!((nodes[2].get("eu:a"), nodes[2].get("other")), (None, Some("x".into())));
    assert_eq!(nodes[2].replica.counts().misplaced, 3);
    // Nor does repair bring it there, nor name it; to the region that may have it, it does.
    for a in 0..3 {
        for b in (0..3).filter(|b| *b != a) {
            let (a, b) = pair(&mut nodes, a, b);
            a.pull(b);
        }
    }
    assert_eq!((nodes[1].get("eu:a"), nodes[1].get("eu:n")), (Some("secret".into()), Some("3".into())));
    assert_eq!((nodes[2].get("eu:a"), nodes[2].get("eu:n")), (None, None));
    assert_eq!(nodes[0].summaries(SiteId(3)).len(), 1);
    let mut bytes = Vec::new();
    let (first, _) = pair(&mut nodes, 0, 1);
    ["eu:a", "eu:n", "eu:gone"].iter().for_each(|key| {
        first.replica.fetch(id(key), SiteId(3), &mut first.shelf, &mut bytes);
    });
    assert!(bytes.is_empty() && first.replica.counts().kept_home == 3);
}

#[test]
fn a_namespace_that_is_pinned_later_leaves_the_other_regions() {
    let mut nodes: Vec<Node> = (1..=3).map(|number| Node::new(number, 1)).collect();
    nodes[0].set("eu:a", "secret");
    nodes[0].set("x", "1");
    heal(&mut nodes);
    assert_eq!(nodes[2].get("eu:a"), Some("secret".into()));
    let pinned = rules("eu:", Mode::Eventual, &[1, 2], 0);
    nodes.iter_mut().for_each(|node| node.replica.set_rules(pinned.clone()));
    (1..20).for_each(|ms| nodes.iter_mut().for_each(|node| node.set_time(START_MS + ms)));
    assert_eq!((nodes[2].get("eu:a"), nodes[2].get("x")), (None, Some("1".into())));
    assert_eq!(nodes[1].get("eu:a"), Some("secret".into()));
}

#[test]
fn local_and_strong_namespaces_are_none_of_it() {
    for mode in [Mode::Local, Mode::Strong] {
        let (mut a, mut b) = (Node::new(1, 1), Node::new(2, 1));
        a.set("mine:k", "v");
        a.count("mine:n", 1);
        let before = a.chunks();
        [&mut a, &mut b].into_iter().for_each(|node| node.replica.set_rules(rules("mine:", mode, &[], 0)));
        before.iter().for_each(|chunk| b.apply(&chunk.bytes));
        assert_eq!((b.get("mine:k"), b.replica.counts().misplaced), (None, 2));
        a.set("mine:k", "w");
        assert!(a.chunks().is_empty());
    }
}

#[test]
fn a_purge_empties_a_namespace_and_what_was_written_before_it_does_not_come_back() {
    let mut nodes: Vec<Node> = (1..=2).map(|number| Node::new(number, 1)).collect();
    for node in &mut nodes {
        node.replica.set_rules(rules("p:", Mode::Eventual, &[], 0));
    }
    (0..20).for_each(|number| nodes[0].set(&format!("p:{number}"), "old"));
    nodes[0].count("p:n", 5);
    nodes[0].set("q", "stays");
    let late = nodes[0].chunks();
    heal(&mut nodes);
    nodes[0].shelf.remove(id("p:n"), None);
    // One hears of it earlier than the other, which goes on counting.
    nodes[0].replica.set_rules(rules("p:", Mode::Eventual, &[], 1));
    nodes[1].count("p:n", 1);
    (1..40).for_each(|ms| nodes[0].set_time(START_MS + ms));
    assert_eq!((nodes[0].get("p:1"), nodes[0].get("q")), (None, Some("stays".into())));
    nodes[0].count("p:n", 1);
    nodes[0].set("p:1", "new");
    let early = nodes[0].chunks();
    early.iter().for_each(|chunk| nodes[1].apply(&chunk.bytes));
    assert_eq!(nodes[1].replica.counts().early, 2);
    nodes[1].replica.set_rules(rules("p:", Mode::Eventual, &[], 1));
    (1..40).for_each(|ms| nodes[1].set_time(START_MS + ms));
    late.iter().for_each(|chunk| nodes[1].apply(&chunk.bytes));
    assert_eq!(nodes[1].replica.counts().purged, 21);
    heal(&mut nodes);
    for node in &nodes {
        let values = (node.get("p:1"), node.get("p:2"), node.get("p:n"), node.get("q"));
        assert_eq!(values, (Some("new".into()), None, Some("1".into()), Some("stays".into())));
    }
}

#[test]
fn what_finds_no_room_is_a_gap_and_repair_closes_it() {
    let mut nodes = [Node::with_versions(1, 1, 1 << 16), Node::with_versions(2, 1, 1 << 16)];
    let value = "x".repeat(1_000);
    for number in 0..10_000 {
        nodes[0].set(&format!("k{number}"), &value);
    }
    let chunks = nodes[0].chunks();
    let bytes: usize = chunks.iter().map(|chunk| chunk.bytes.len()).sum();
    assert!(bytes < limits::REPLICATION_WAITING_BYTES_MAX + limits::REPLICATION_CHUNK_BYTES);
    assert!(chunks.iter().all(|chunk| chunk.bytes.len() < limits::REPLICATION_FRAME_BYTES_MAX));
    assert!(chunks.last().unwrap().is_gap && nodes[0].replica.counts().unsent > 7_000);
    chunks.iter().for_each(|chunk| nodes[1].apply(&chunk.bytes));
    heal(&mut nodes);
    assert_eq!(nodes[1].get("k9999"), Some(value));
}

#[test]
fn more_counters_than_there_is_room_for_travel_as_values() {
    let (mut a, mut b) = (Node::new(1, 1), Node::new(2, 1));
    (0..2_000).for_each(|number| _ = a.count(&format!("n{number}"), number));
    assert!(a.replica.counts().uncounted > 1_000 && a.replica.counters.count() <= 768);
    a.chunks().iter().for_each(|chunk| b.apply(&chunk.bytes));
    assert_eq!((b.get("n1"), b.get("n1999")), (Some("1".into()), Some("1999".into())));
}
