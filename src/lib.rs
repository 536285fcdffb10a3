//! Spinetail is a cache appliance for dedicated hosts whose users count nanoseconds at the median and
//! microseconds at the tail. `README.md` says what it does and how to run it; this page is the map of
//! the house.
//!
//! A room is a module. Each imports only rooms named beside it; a test below reads this table and
//! checks every `crate::` path of every file against it. *Pure* rooms know no I/O, no clock and no
//! global state: time, randomness and memory arrive as arguments.
//!
//! | room | holds | may import |
//! |---|---|---|
//! | `base` | ids, units, time, the key hash, a seeded generator, all limits; *pure* | – |
//! | `learn` | admission and eviction ranking; *pure* | base |
//! | `cache` | one shard's memory: index, segments, ghosts, eviction, `check()`; *pure* | base, learn |
//! | `wire` | codecs: bytes to requests, replies to bytes; *pure* | base |
//! | `replica` | the same key at several sites: clocks, versions, counters, tombstones, digests, streams; *pure* | base |
//! | `observe` | counters and service-time histograms, one writer each | base |
//! | `host` | topology, hardware profiles and their placement, memory, a machine checked, tuned, calibrated | base |
//! | `l0` | published entries in shared memory: layout, publisher, reader | base, host |
//! | `embedded` | the cache inside a program: stripes behind locks, hits without one | base, cache, host, l0 |
//! | `net` | sockets on io_uring, and on epoll: bytes in, bytes out | base, host |
//! | `engine` | one shard a core: the turn, sessions, forwarding, executors | base, cache, learn, wire, replica, observe, host, l0, net |
//! | `client` | the native client, over TCP or shared memory; the program's side of L0; the nearest region | base, cluster, wire, l0, net |
//! | `cluster` | sites and nodes that agree: Byzantine order, Raft, links, leases, routes; *pure* but `cluster::host` | base, replica |
//! | `sim` | seeded simulation of sites, links, clocks, disks; faults; invariants; *pure* | base, replica, cluster |
//! | `trace` | request traces, read from compressed CSV | base |
//! | `load` | the load generator, its outcome and report | base, client, wire, net, trace |
//! | `replay` | a trace against the cache alone | base, cache, engine, learn, trace |
//! | `top` | the live view in a terminal, over the admin listener's events | base |
//! | `serve` | flags, file and profile to a running appliance; the admin listener | base, cluster, engine, host, l0, net, observe, replica |
//!
//! `client` knows of `cluster` what is pure: the region map and the rules of choosing (`cluster::route`).
//! `load` drives its connections with `net`, the same event loop the server uses, and `replay` asks
//! `engine` only how a server divides its memory. Planned and not there yet: `tenant`, `guard`. Beside the
//! library stands `main.rs` with `cli/`, the command line.
#![warn(missing_docs)]

// `cfg(fuzzing)` is set by cargo-fuzz: its targets need none of the rooms that it leaves out here, and compile in three minutes
// instead of eleven.
pub mod base;
pub mod cache;
#[cfg(not(fuzzing))]
pub mod client;
#[cfg(not(fuzzing))]
pub mod cluster;
pub mod embedded;
pub mod engine;
pub mod host;
pub mod l0;
pub mod learn;
#[cfg(not(fuzzing))]
pub mod load;
pub mod net;
pub mod observe;
#[cfg(not(fuzzing))]
pub mod replay;
pub mod replica;
#[cfg(not(fuzzing))]
pub mod serve;
#[cfg(not(fuzzing))]
pub mod sim;
#[cfg(not(fuzzing))]
pub mod top;
#[cfg(not(fuzzing))]
pub mod trace;
pub mod wire;

#[cfg(test)]
mod import_rule {
    use std::collections::{BTreeMap, BTreeSet};
    use std::fs;
    use std::path::{Path, PathBuf};

    /// Rooms and what each may import, as the table above says.
    fn table() -> BTreeMap<String, BTreeSet<String>> {
        let source = include_str!("lib.rs");
        let rows = source.lines().filter_map(|line| line.strip_prefix("//! | `"));
        rows.map(|row| {
            let (room, rest) = row.split_once('`').expect("a room's name ends with a tick");
            let imports = rest.trim_end_matches([' ', '|']).rsplit('|').next().expect("a row has a last column");
            let imports = imports.split(',').map(|name| name.trim().to_string()).filter(|name| name != "–");
            (room.to_string(), imports.collect())
        })
        .collect()
    }

    fn files_below(folder: &Path, into: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("a room is a readable folder") {
            let path = entry.expect("a folder lists its entries").path();
            if path.is_dir() {
                files_below(&path, into);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                into.push(path);
            }
        }
    }

    /// Room names that follow `crate::` in a line of code.
    fn imported(line: &str) -> Vec<&str> {
        let code = line.split("//").next().unwrap_or_default();
        code.split("crate::")
            .skip(1)
            .map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default())
            .filter(|name| !name.is_empty())
            .collect()
    }

    #[test]
    fn every_room_imports_only_what_the_table_allows() {
        let table = table();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut wrong = Vec::new();
        for (room, allowed) in &table {
            let mut files = Vec::new();
            files_below(&source.join(room), &mut files);
            assert!(!files.is_empty(), "the table names {room}, which has no files");
            for file in files {
                let text = fs::read_to_string(&file).expect("a source file is readable");
                for (number, line) in text.lines().enumerate() {
                    for name in imported(line) {
                        if name != room && !allowed.contains(name) {
                            wrong.push(format!("{}:{}: {room} may not import {name}", file.display(), number + 1));
                        }
                    }
                }
                assert!(!text.contains("super::super"), "{}: climbs out of its folder", file.display());
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn the_table_names_every_room_and_has_no_circle() {
        let table = table();
        let declared = include_str!("lib.rs").lines().filter_map(|line| line.strip_prefix("pub mod "));
        let declared: BTreeSet<String> = declared.map(|name| name.trim_end_matches(';').to_string()).collect();
        assert_eq!(table.keys().cloned().collect::<BTreeSet<_>>(), declared);
        // Taking away, again and again, the rooms that import nothing left must take all away.
        let mut left = table;
        while !left.is_empty() {
            let names: BTreeSet<String> = left.keys().cloned().collect();
            let before = left.len();
            left.retain(|_, imports| imports.iter().any(|name| names.contains(name)));
            assert!(left.len() < before, "a circle among {:?}", left.keys());
        }
    }

    #[test]
    fn the_check_sees_an_import_that_is_not_allowed() {
        assert_eq!(imported("use crate::net::socket; let x = crate::base::id::ShardId(0);"), ["net", "base"]);
        assert!(imported("// see crate::net").is_empty());
    }
}
