//! Two shards with all their protocols, and the records between them.

use super::*;
use crate::base::id::{NodeId, SiteId};
use crate::cache::{Accounting, Config as StoreConfig, Store};
use crate::engine::Protocol;
use crate::engine::direct::Direct;
use crate::replica::port::{Step, StepAnswer};
use crate::wire::{Command, Mode, Request, native};

const SEED: HashSeed = HashSeed(5);

struct Site {
    shard: Direct<Vec<u8>>,
    ports: ShardPorts,
}

fn site(node: u16, protocol: Protocol) -> Site {
    let config = Config {
        node: NodeId(node),
        site: SiteId(node as u8),
        incarnation: 1,
        seed: SEED,
        versions_max: 4096,
        counters_max: 512,
    };
    let (mut shards, mut ports) = connect(&config, 1);
    assert!(ports.send(0, ToShard::Compared).is_ok());
    let segment_bytes = 64 << 10;
    let layout = StoreConfig { segment_bytes, seed: SEED, accounting: Accounting::Memory };
    let store = Store::new(vec![0; 64 * segment_bytes], layout);
    let mut shard = Direct::replicated(store, SEED, protocol, shards.pop());
    shard.replicate();
    Site { shard, ports }
}

impl Site {
    fn say(&mut self, text: &str) -> String {
        String::from_utf8_lossy(self.shard.exchange(text.as_bytes()).0).into_owned()
    }

    /// What it has to tell, once its millisecond is over.
    fn chunks(&mut self) -> Vec<Vec<u8>> {
        std::thread::sleep(std::time::Duration::from_millis(2));
        self.shard.replicate();
        let messages = std::iter::from_fn(|| self.ports.receive(0));
        messages
            .filter_map(|message| match message {
                FromShard::Chunk(chunk) => Some(chunk.bytes),
                FromShard::Answer(..) => None,
            })
            .collect()
    }

    fn apply(&mut self, chunks: Vec<Vec<u8>>) {
        for chunk in chunks {
            self.ports.send(0, ToShard::Apply(chunk)).unwrap();
        }
        while self.shard.replicate() {}
    }
}

fn exchange(a: &mut Site, b: &mut Site) {
    let (from_a, from_b) = (a.chunks(), b.chunks());
    a.apply(from_b);
    b.apply(from_a);
    assert!(a.chunks().is_empty() && b.chunks().is_empty(), "what arrives is not sent on");
}

#[test]
fn a_write_in_any_protocol_is_read_in_every_other_at_the_other_site() {
    let mut resp = site(1, Protocol::Resp);
    let mut memcached = site(2, Protocol::Memcached);
    assert_eq!(
        resp.say("SET a 1 EX 100\r\nSET n 5\r\nAPPEND s x\r\nSETRANGE s 1 yz\r\nDEL never\r\n").lines().count(),
        5
    );
    exchange(&mut resp, &mut memcached);
    assert_eq!(memcached.say("get a n s\r\n"), "VALUE a 0 1\r\n1\r\nVALUE n 0 1\r\n5\r\nVALUE s 0 3\r\nxyz\r\nEND\r\n");
    assert_eq!(memcached.say("set f 7 0 2\r\nhi\r\nincr n 3\r\ndecr n 1\r\n"), "STORED\r\n8\r\n7\r\n");
    exchange(&mut resp, &mut memcached);
    assert_eq!(resp.say("GET f\r\nGET n\r\nTTL a\r\n"), "$2\r\nhi\r\n$1\r\n7\r\n:100\r\n");
    // Flags are kept through a site that knows none.
    let mut third = site(3, Protocol::Memcached);
    memcached.say("touch f 100\r\n");
    third.apply(memcached.chunks());
    assert_eq!(third.say("get f\r\n"), "VALUE f 7 2\r\nhi\r\nEND\r\n");
    assert_eq!(resp.say("DEL f a\r\n"), ":2\r\n");
    exchange(&mut resp, &mut memcached);
    assert_eq!(memcached.say("get a f\r\n"), "END\r\n");
    assert_eq!(memcached.say("delete s\r\ndelete s\r\nflush_all\r\n"), "DELETED\r\nNOT_FOUND\r\nOK\r\n");
    exchange(&mut resp, &mut memcached);
    assert_eq!(resp.say("GET s\r\nGET n\r\n"), "$-1\r\n$1\r\n7\r\n", "a flush is no delete");
}

#[test]
fn what_is_counted_at_both_sites_adds_up_whatever_the_command() {
    let (mut a, mut b) = (site(1, Protocol::Resp), site(2, Protocol::Memcached));
    a.say("SET n 10\r\n");
    exchange(&mut a, &mut b);
    assert_eq!(a.say("INCR n\r\nINCRBY n 4\r\nDECR n\r\n"), ":11\r\n:15\r\n:14\r\n");
    assert_eq!(b.say("incr n 100\r\ndecr n 10\r\n"), "110\r\n100\r\n");
    exchange(&mut a, &mut b);
    assert_eq!(
        (a.say("GET n\r\n"), b.say("get n\r\n")),
        ("$3\r\n104\r\n".into(), "VALUE n 0 3\r\n104\r\nEND\r\n".into())
    );
    // Also one that neither has set before, with an expiry on the way.
    a.say("INCR m\r\nEXPIRE m 100\r\n");
    exchange(&mut a, &mut b);
    b.say("incr m 1\r\n");
    a.say("INCR m\r\n");
    exchange(&mut a, &mut b);
    assert_eq!(a.say("GET m\r\nTTL m\r\n"), "$1\r\n3\r\n:100\r\n");
    // A float is a value: the last one wins.
    a.say("INCRBYFLOAT m 0.5\r\n");
    exchange(&mut a, &mut b);
    assert_eq!(b.say("get m\r\nincr m 1\r\n").lines().last().unwrap(), memcached_refusal());
}

fn memcached_refusal() -> &'static str {
    "CLIENT_ERROR cannot increment or decrement non-numeric value"
}

#[test]
fn a_native_increment_begins_where_it_says_at_both_sites_and_no_further() {
    let (mut a, mut b) = (site(1, Protocol::Native), site(2, Protocol::Native));
    let count = |site: &mut Site| {
        let command = Command::Increment { key: b"n", delta: 1, initial: Some(100), ttl_ms: 0 };
        let mut frame = Vec::new();
        native::encode_request(&Request { id: 1, want_version: false, command }, &mut frame);
        native::decode_reply(site.shard.exchange(&frame).0).unwrap().unwrap().0.reply.number
    };
    assert_eq!((count(&mut a), count(&mut b), count(&mut b)), (100, 100, 101));
    exchange(&mut a, &mut b);
    assert_eq!((count(&mut a), count(&mut b)), (102, 102));
    exchange(&mut a, &mut b);
    assert_eq!(count(&mut a), 104);
}

#[test]
fn an_evicted_counter_goes_on_where_it_stood() {
    let (mut a, mut b) = (site(1, Protocol::Resp), site(2, Protocol::Resp));
    a.say("INCRBY n 40\r\n");
    exchange(&mut a, &mut b);
    // Emptied here, as by eviction: to others nothing has happened.
    a.say("FLUSHALL\r\n");
    assert_eq!(a.say("GET n\r\nINCR n\r\n"), "$-1\r\n:41\r\n");
    b.say("INCR n\r\n");
    exchange(&mut a, &mut b);
    assert_eq!((a.say("GET n\r\n"), b.say("GET n\r\n")), ("$2\r\n42\r\n".into(), "$2\r\n42\r\n".into()));
}

#[test]
fn whoever_has_read_a_key_hears_of_a_write_elsewhere() {
    let (mut a, mut b) = (site(1, Protocol::Resp), site(2, Protocol::Resp));
    b.say("SET k 1\r\n");
    exchange(&mut a, &mut b);
    b.say("WATCH k\r\n");
    a.say("SET k 2\r\n");
    exchange(&mut a, &mut b);
    assert_eq!(b.say("MULTI\r\nSET k 3\r\nEXEC\r\n"), "+OK\r\n+QUEUED\r\n*-1\r\n");
    assert_eq!(b.say("GET k\r\n"), "$1\r\n2\r\n");
}

#[test]
fn a_host_whose_clock_is_set_calls_later_writes_by_the_new_time() {
    let mut site = site(1, Protocol::Resp);
    let ahead_ms = 3_600_000;
    let now_ms = crate::engine::executor::unix_ms() as u64;
    site.ports.send(0, ToShard::Clock(now_ms + ahead_ms)).unwrap();
    site.shard.replicate();
    site.say("SET k 1\r\n");
    let chunk = site.chunks().pop().unwrap();
    let Record::Value { version, .. } = Record::decode(&mut chunk.as_slice()).unwrap() else { panic!("a value") };
    assert!((ahead_ms - 1_000..ahead_ms + 60_000).contains(&(version.unix_ms() - now_ms)), "{version:?}");
}

#[test]
fn a_turn_applies_some_records_and_a_full_ring_loses_none() {
    let (mut a, mut b) = (site(1, Protocol::Native), site(2, Protocol::Native));
    let value = vec![7; 1_000];
    let mut sent = 0;
    for number in 0..2_000u32 {
        let key = number.to_le_bytes();
        let mut frame = Vec::new();
        let command = Command::Set { key: &key, value: &value, ttl_ms: 0, mode: Mode::Set };
        native::encode_request(&Request { id: 1, want_version: false, command }, &mut frame);
        a.shard.exchange(&frame);
        a.shard.replicate();
        sent += 1;
    }
    let chunks = a.chunks();
    for chunk in chunks {
        b.ports.send(0, ToShard::Apply(chunk)).unwrap();
    }
    let mut turns = 0;
    while b.shard.replicate() {
        turns += 1;
    }
    assert!(turns >= sent / limits::REPLICATION_RECORDS_PER_TURN, "{turns} turns");
    let summary = |site: &mut Site| {
        site.ports.send(0, ToShard::Ask(1, Step::Summary { to: SiteId(9) })).unwrap();
        site.shard.replicate();
        std::thread::sleep(std::time::Duration::from_millis(2));
        site.shard.replicate();
        std::iter::from_fn(|| site.ports.receive(0)).find_map(|message| match message {
            FromShard::Answer(1, StepAnswer::Summary(summaries, counts)) => Some((summaries, *counts)),
            _ => None,
        })
    };
    let ((of_a, counts), (of_b, _)) = (summary(&mut a).unwrap(), summary(&mut b).unwrap());
    assert_eq!((of_a, counts.unsent), (of_b, 0));
}

#[test]
fn a_shard_told_nothing_of_a_cluster_tells_nothing() {
    assert!(
        versions_max(0) == limits::REPLICATION_VERSIONS_MIN
            && versions_max(1 << 40) == limits::REPLICATION_VERSIONS_MAX
    );
    let mut alone = Direct::new(
        Store::new(
            vec![0; 64 << 16],
            StoreConfig { segment_bytes: 1 << 16, seed: SEED, accounting: Accounting::Memory },
        ),
        SEED,
        Protocol::Resp,
    );
    alone.exchange(b"SET k 1\r\nINCR k\r\nDEL k\r\nDEL k\r\n");
    assert!(!alone.replicate());
}
