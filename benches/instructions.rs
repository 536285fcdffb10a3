//! How many instructions does a request take, from its bytes to its reply's bytes?
//!
//! `cargo bench --bench instructions` (needs valgrind and `cargo install gungraun-runner --version 0.20.0`).
//! Instructions are counted by Callgrind, so the figures are the same on any machine of this architecture
//! and in any weather; the limits below fail the bench, and `scripts/verify` with it. A limit is a tenth
//! above what was measured: raise it only for something that is worth it, and say so here.
//!
//! Each case is one exchange of a `Direct` shard (the server's own path without sockets): decode, hash,
//! prefetch, look-up, encode. Values have 100 bytes, keys 16, 10,000 keys are stored.

#![expect(missing_docs, reason = "the macros below make public items")]

use std::hint::black_box;

use gungraun::prelude::*;
use gungraun::{Callgrind, EventKind};

use spinetail::base::hash::HashSeed;
use spinetail::base::id::{NodeId, SiteId};
use spinetail::base::prng::Prng;
use spinetail::cache::{Accounting, Config, Store};
use spinetail::engine::Protocol;
use spinetail::engine::direct::Direct;
use spinetail::engine::replica::{Replication, ShardPorts, connect};
use spinetail::replica::{self, port::Ports};
use spinetail::wire::{Command, Mode, Request, memcached, native, resp};

const KEYS: u64 = 10_000;
const SEGMENT_BYTES: usize = 256 << 10;

struct Case {
    shard: Direct<Vec<u8>>,
    requests: Vec<u8>,
    /// The other end of its replication, if it is told of a cluster.
    _ports: Option<ShardPorts>,
}

fn encode(protocol: Protocol, command: Command<'_>, out: &mut Vec<u8>) {
    match protocol {
        Protocol::Native => native::encode_request(&Request { id: 1, want_version: false, command }, out),
        Protocol::Resp | Protocol::Resp3 => resp::client::encode_request(&command, out),
        Protocol::Memcached => memcached::encode_request(&command, out),
    }
}

/// A shard that holds the keys, and `depth` requests of which none or all are SETs.
fn case(protocol: Protocol, depth: usize, writes: bool) -> Case {
    with_replication(protocol, depth, writes, None)
}

/// The same for a node of a cluster: what a write is noted and copied for, without what carries it away.
fn replicated(protocol: Protocol, depth: usize, writes: bool) -> Case {
    let config = replica::Config {
        node: NodeId(1),
        site: SiteId(1),
        incarnation: 1,
        seed: HashSeed(1),
        versions_max: 1 << 16,
        counters_max: 1 << 10,
    };
    with_replication(protocol, depth, writes, Some(connect(&config, 1)))
}

#[expect(clippy::vec_box, reason = "as shards are given them")]
fn with_replication(
    protocol: Protocol,
    depth: usize,
    writes: bool,
    ends: Option<(Vec<Box<Replication>>, ShardPorts)>,
) -> Case {
    let config = Config { segment_bytes: SEGMENT_BYTES, seed: HashSeed(1), accounting: Accounting::Memory };
    let (mut ends, mut ports) = ends.map_or((Vec::new(), None), |(shards, ports)| (shards, Some(ports)));
    let store = Store::new(vec![0; 64 * SEGMENT_BYTES], config);
    let mut shard = Direct::replicated(store, HashSeed(1), protocol, ends.pop());
    let value = [7u8; 100];
    let set = |number: u64, out: &mut Vec<u8>| {
        let key = format!("{number:016}");
        encode(protocol, Command::Set { key: key.as_bytes(), value: &value, ttl_ms: 0, mode: Mode::Set }, out);
    };
    let mut frame = Vec::new();
    for number in 0..KEYS {
        frame.clear();
        set(number, &mut frame);
        shard.exchange(&frame);
        shard.replicate();
        while let Some(ports) = &mut ports
            && ports.receive(0).is_some()
        {}
    }
    let mut prng = Prng::new(2);
    let mut batch = |out: &mut Vec<u8>| {
        for _ in 0..depth {
            let number = prng.below(KEYS);
            if writes {
                set(number, out);
            } else {
                encode(protocol, Command::Get { key: format!("{number:016}").as_bytes() }, out);
            }
        }
    };
    // Once before, so that no buffer grows and nothing is touched for the first time.
    let mut warm = Vec::new();
    batch(&mut warm);
    shard.exchange(&warm);
    let mut requests = Vec::new();
    batch(&mut requests);
    Case { shard, requests, _ports: ports }
}

#[library_benchmark]
#[bench::native_get_1(
    args = (Protocol::Native, 1, false), setup = case,
    config = LibraryBenchmarkConfig::default().tool(Callgrind::default().hard_limits([(EventKind::Ir, 2_280)]))
)]
#[bench::native_get_32(
    args = (Protocol::Native, 32, false), setup = case,
    config = LibraryBenchmarkConfig::default().tool(Callgrind::default().hard_limits([(EventKind::Ir, 33_700)]))
)]
#[bench::native_set_32(
    args = (Protocol::Native, 32, true), setup = case,
    config = LibraryBenchmarkConfig::default().tool(Callgrind::default().hard_limits([(EventKind::Ir, 50_000)]))
)]
#[bench::native_get_32_replicated(args = (Protocol::Native, 32, false), setup = replicated)]
#[bench::native_set_32_replicated(args = (Protocol::Native, 32, true), setup = replicated)]
#[bench::resp_get_1(
    args = (Protocol::Resp, 1, false), setup = case,
    config = LibraryBenchmarkConfig::default().tool(Callgrind::default().hard_limits([(EventKind::Ir, 2_650)]))
)]
#[bench::resp_get_32(
    args = (Protocol::Resp, 32, false), setup = case,
    config = LibraryBenchmarkConfig::default().tool(Callgrind::default().hard_limits([(EventKind::Ir, 46_000)]))
)]
#[bench::memcached_get_1(
    args = (Protocol::Memcached, 1, false), setup = case,
    config = LibraryBenchmarkConfig::default().tool(Callgrind::default().hard_limits([(EventKind::Ir, 2_550)]))
)]
#[bench::memcached_get_32(
    args = (Protocol::Memcached, 32, false), setup = case,
    config = LibraryBenchmarkConfig::default().tool(Callgrind::default().hard_limits([(EventKind::Ir, 41_400)]))
)]
#[bench::memcached_set_32(
    args = (Protocol::Memcached, 32, true), setup = case,
    config = LibraryBenchmarkConfig::default().tool(Callgrind::default().hard_limits([(EventKind::Ir, 56_600)]))
)]
fn exchange(case: Case) -> Case {
    let mut case = case;
    let (replies, open) = case.shard.exchange(black_box(&case.requests));
    assert!(open && !black_box(replies).is_empty());
    case
}

library_benchmark_group!(name = request, benchmarks = exchange);
main!(library_benchmark_groups = request);
