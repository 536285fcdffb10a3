//! The server against Redis and memcached themselves: the same stream of commands to both, every reply compared.
//!
//! `cargo test --release --test differential` sends 20,000 Redis and 10,000 memcached commands in each of its runs;
//! `SPINETAIL_DIFFERENTIAL=1000000,7` sends as many as it says (of memcached's at most 100,000), from that seed. Written against Redis 7.0 and memcached
//! 1.6.18 (Debian 12), whose error texts are part of the comparison. What may differ stands in
//! `differential/tolerances.rs`, a reason beside each row; everything else must be the same bytes.
//!
//! Where Redis or memcached are not installed these tests say so and pass; that the comparison sees what it should is
//! tested everywhere.

mod common;

#[path = "differential/dice.rs"]
mod dice;
#[path = "differential/engine.rs"]
mod engine;
#[path = "differential/memcached.rs"]
mod memcached;
#[path = "differential/memcached_stream.rs"]
mod memcached_stream;
#[path = "differential/peer.rs"]
mod peer;
#[path = "differential/redis.rs"]
mod redis;
#[path = "differential/redis_commands.rs"]
mod redis_commands;
#[path = "differential/redis_stream.rs"]
mod redis_stream;
#[path = "differential/resp.rs"]
mod resp;
#[path = "differential/tolerances.rs"]
mod tolerances;

use std::collections::HashSet;
use std::io::{self, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::{PATIENCE, Server, shard_counts};
use engine::{Dialect, Facts, Judgement, Outcome, Peer, Plan, judge_by, run};
use memcached::Memcached;
use peer::{Foreign, liar};
use redis::Redis;
use tolerances::{self as table, Tolerance};

/// Spinetail, and where it speaks a protocol.
fn appliance(protocol: &str, shards: &str) -> (Server, Peer) {
    let flag = format!("--{protocol}");
    let server = Server::start(&[&flag, "127.0.0.1:0", "--shards", shards]);
    let mut words = server.ready.split_whitespace();
    let address = words.find_map(|word| word.strip_prefix(protocol)?.strip_prefix('=')?.parse().ok());
    let address = address.unwrap_or_else(|| panic!("no {protocol} address in '{}'", server.ready));
    (server, Peer { name: format!("spinetail, {shards} shard(s)"), address })
}

/// Prints what came of each run, and fails if anything is unexplained in any.
fn assert_nothing_unexplained(runs: impl IntoIterator<Item = (Plan, Outcome)>) {
    let mut failed = String::new();
    for (plan, outcome) in runs {
        if outcome.differences.is_empty() && outcome.commands >= plan.commands {
            println!("{}", outcome.report());
        } else {
            failed.push_str(outcome.report());
        }
    }
    assert!(failed.is_empty(), "{failed}");
}

// --- Redis ---------------------------------------------------------------------------------------

#[test]
fn redis_clients_see_no_difference() {
    let Some(redis) = Foreign::redis() else { return };
    let mut runs = Vec::new();
    for shards in shard_counts() {
        for version in [2, 3] {
            let plan = Plan::from_environment(20_000, 1);
            let (_server, peer) = appliance("resp", shards);
            runs.push((plan, run(Redis::new(plan.seed, version), &redis.peer, &peer, plan)));
        }
    }
    assert_nothing_unexplained(runs);
}

/// Time, expiry and order leave no difference between two Redis, so what is reported of ours is ours.
#[test]
fn redis_does_not_differ_from_redis() {
    let (Some(one), Some(two)) = (Foreign::redis(), Foreign::redis()) else { return };
    let plan = Plan::from_environment(20_000, 2);
    let runs = [2, 3].map(|version| (plan, run(Redis::new(plan.seed, version), &one.peer, &two.peer, plan)));
    assert_nothing_unexplained(runs);
}

/// What no client sends. Answered by the same words, and the connection ends or goes on as there.
#[test]
fn broken_redis_requests_are_answered_alike() {
    let Some(redis) = Foreign::redis() else { return };
    let (_server, peer) = appliance("resp", "1");
    let long = [b'a'; 70_000];
    let broken: &[&[u8]] = &[
        b"*abc\r\nPING\r\n",
        b"*1\r\n$abc\r\nPING\r\n",
        b"*1\r\n+PING\r\n",
        b"*1\r\n$-1\r\nPING\r\n",
        b"*1\r\n\r\nPING\r\n",
        b"*99999999999\r\nPING\r\n",
        b"*1\r\n$99999999999\r\nPING\r\n",
        b"*2\r\n$4\r\nPING\r\n$600000000\r\n",
        b"SET \"a b\r\nPING\r\n",
        b"SET 'a'b c\r\nPING\r\n",
        b"SET 'a b' \"\\x41\\n\"\r\nGET 'a b'\r\nDEL 'a b'\r\n",
        b"*1\n$4\nPING\n",
        b"*\r\nPING\r\n",
        b"*-5\r\nPING\r\n",
        b"PING\r\nQUIT\r\nPING\r\n",
        b"\r\n\r\n   \r\nPING\r\n",
        b"   PING   \r\n",
        b"*1\r\n$4\r\nPI",
        &long,
    ];
    assert_answered_alike(&redis.peer, &peer, broken);
    // Redis passes over two bytes behind a string whatever they are; here a stream that is out of step is not read on.
    let out_of_step = all_that_comes(&peer, b"*1\r\n$4\r\nPINGxxPING\r\n");
    assert_eq!(out_of_step, b"-ERR Protocol error: invalid bulk length\r\n");
}

/// Each request on a connection of its own, up to its end.
fn assert_answered_alike(reference: &Peer, other: &Peer, requests: &[&[u8]]) {
    let mut differing = Vec::new();
    for request in requests {
        let replies = [reference, other].map(|peer| all_that_comes(peer, request));
        if replies[0] != replies[1] {
            let [request, one, two] = [*request, &replies[0], &replies[1]].map(engine::shown_bytes);
            differing.push(format!("{request}\n    {}: {one}\n    {}: {two}", reference.name, other.name));
        }
    }
    assert!(differing.is_empty(), "{} of {}:\n{}", differing.len(), requests.len(), differing.join("\n"));
}

/// Sends, says that there is no more, and reads to the end.
fn all_that_comes(peer: &Peer, request: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(peer.address).expect("the server accepts");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let _ = stream.write_all(request);
    let _ = stream.shutdown(Shutdown::Write);
    let mut reply = Vec::new();
    let _ = stream.read_to_end(&mut reply);
    reply
}

// --- memcached -----------------------------------------------------------------------------------

/// Times to live are seconds here, and waiting for them takes most of a run: a million would take hours.
fn memcached_plan(seed: u64) -> Plan {
    let plan = Plan::from_environment(10_000, seed);
    Plan { commands: plan.commands.min(100_000), ..plan }
}

/// Whether this memcached is new enough for the flag `E`.
fn knows_explicit(peer: &Peer) -> bool {
    all_that_comes(peer, b"ms nobodys-key 1 E281474976710656 c\r\nx\r\ndelete nobodys-key\r\n")
        .starts_with(b"HD c281474976710656")
}

#[test]
fn memcached_clients_see_no_difference() {
    let Some(memcached) = Foreign::memcached() else { return };
    let mut runs = Vec::new();
    for shards in shard_counts() {
        let plan = memcached_plan(1);
        let (_server, peer) = appliance("memcached", shards);
        let dialect = Memcached::new(plan.seed, knows_explicit(&memcached.peer));
        runs.push((plan, run(dialect, &memcached.peer, &peer, plan)));
    }
    assert_nothing_unexplained(runs);
}

/// Ticks, expiry and uniques leave no difference between two memcached, so what is reported of ours is ours.
#[test]
fn memcached_does_not_differ_from_memcached() {
    let (Some(one), Some(two)) = (Foreign::memcached(), Foreign::memcached()) else { return };
    // Elsewhere in their counts, so that their uniques differ.
    all_that_comes(&two.peer, "set elsewhere 0 0 1 noreply\r\nx\r\n".repeat(1000).as_bytes());
    let plan = memcached_plan(2);
    let outcome = run(Memcached::new(plan.seed, knows_explicit(&one.peer)), &one.peer, &two.peer, plan);
    assert_nothing_unexplained([(plan, outcome)]);
}

/// What no client sends, and what ends a connection.
#[test]
fn broken_memcached_requests_are_answered_alike() {
    let Some(memcached) = Foreign::memcached() else { return };
    let (_server, peer) = appliance("memcached", "1");
    let long = [b'a'; 70_000];
    let broken: &[&[u8]] = &[
        b"mn\r\nquit\r\nmn\r\n",
        b"mn\r\nquit now\r\nmn\r\n",
        b"get k",
        b"set k 0 0 10\r\nhalf",
        b"set k 0 0 2\r\nok\r\nget k\r\ndelete k\r\nset k 0 0 3",
        b"ms k 4\r\nab\r\n",
        b"mn\nmn\nget k\n",
        b"shutdown\r\nmn\r\n",
        b"misbehave\r\nmn\r\n",
        b"\x00\x01\x02\r\nmn\r\n",
        b"verbosity\r\n\r\n\r\nmn\r\n",
        &long,
    ];
    assert_answered_alike(&memcached.peer, &peer, broken);
}

// --- What the comparison sees ----------------------------------------------------------------------

/// The real server if it is here, else our own: a lie is a difference before either.
fn any_server(real: Option<Foreign>, protocol: &str) -> (Option<Foreign>, Option<Server>, Peer) {
    if let Some(real) = real {
        let peer = real.peer.clone();
        return (Some(real), None, peer);
    }
    let (server, peer) = appliance(protocol, "1");
    (None, Some(server), peer)
}

/// Checks that a run against a server behind a liar sees the one lie it tells, and nothing else.
fn assert_lie_is_seen<D: Dialect>(
    what: &str,
    (dialect, seed): (D, u64),
    [reference, other]: [&Peer; 2],
    read: fn(&mut BufReader<TcpStream>) -> io::Result<Vec<u8>>,
    mut lie: Lie,
) {
    let mut replies = 0;
    let told = Arc::new(AtomicU64::new(0));
    let telling = told.clone();
    let other = liar(other, read, move |reply| {
        replies += 1;
        if replies > 300 && telling.load(Ordering::SeqCst) == 0 && lie(reply) {
            telling.store(replies, Ordering::SeqCst);
        }
    });
    let outcome = run(dialect, reference, &other, Plan { commands: 1000, seed });
    assert!(told.load(Ordering::SeqCst) > 0, "{what}: there was no occasion for it");
    let [difference] = &outcome.differences[..] else {
        panic!("{what}: {} differences, not one: {}", outcome.differences.len(), outcome.report());
    };
    let report = outcome.report();
    assert!(
        report.contains(&format!("seed {seed}:")) && report.contains(&format!("#{} ", difference.number)),
        "{what}: {report}"
    );
}

/// Changes a reply and says that it did, or leaves it.
type Lie = Box<dyn FnMut(&mut Vec<u8>) -> bool + Send>;

fn replace(reply: &mut Vec<u8>, from: &[u8], to: &[u8]) -> bool {
    let at = reply.windows(from.len()).position(|bytes| bytes == from);
    if let Some(at) = at {
        reply.splice(at..at + from.len(), to.iter().copied());
    }
    at.is_some()
}

/// Adds to the number that follows `flag` in the reply.
fn add_to(reply: &mut Vec<u8>, flag: &[u8], number: u64) -> bool {
    let Some(at) = reply.windows(flag.len()).position(|bytes| bytes == flag) else { return false };
    let start = at + flag.len();
    let digits = reply[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let Ok(old) = String::from_utf8_lossy(&reply[start..start + digits]).parse::<u64>() else { return false };
    reply.splice(start..start + digits, (old + number).to_string().into_bytes());
    true
}

#[test]
fn planted_differences_from_redis_are_seen() {
    let (_one, _server_one, reference) = any_server(Foreign::redis(), "resp");
    let (_two, _server_two, other) = any_server(Foreign::redis(), "resp");
    let seen = |what: &str, lie: Lie| {
        assert_lie_is_seen(what, (Redis::new(3, 2), 3), [&reference, &other], resp::read, lie);
    };
    seen("an integer that is one too high", Box::new(|reply| reply == b":1\r\n" && replace(reply, b"1", b"2")));
    seen(
        "one bit of a long value",
        Box::new(|reply| {
            let middle = reply.len() / 2;
            let lies = reply.starts_with(b"$") && reply.len() > 1000;
            reply[middle] ^= u8::from(lies);
            lies
        }),
    );
    seen(
        "three seconds more to live",
        Box::new(|reply| {
            let is_seconds = resp::integer(reply).is_some_and(|left| (100_000..100_000_000).contains(&left));
            is_seconds && add_to(reply, b":", 3)
        }),
    );
    seen("another error", Box::new(|reply| replace(reply, b"-ERR syntax error", b"-ERR Syntax error")));
    seen("an empty string for nil", Box::new(|reply| reply.starts_with(b"$-1") && replace(reply, b"$-1", b"$0\r\n")));
    seen(
        "an empty string in an array",
        Box::new(|reply| reply.starts_with(b"*") && replace(reply, b"$-1\r\n", b"$0\r\n\r\n")),
    );
    seen(
        "a key that KEYS forgets",
        Box::new(|reply| reply.starts_with(b"*") && replace(reply, b"$2\r\nk0\r\n", b"$2\r\nk9\r\n")),
    );
}

#[test]
fn planted_differences_from_memcached_are_seen() {
    let (_one, _server_one, reference) = any_server(Foreign::memcached(), "memcached");
    let (_two, _server_two, other) = any_server(Foreign::memcached(), "memcached");
    let seen = |what: &str, lie: Lie| {
        let dialect = Memcached::new(MEMCACHED_LIES_SEED, knows_explicit(&reference));
        assert_lie_is_seen(what, (dialect, MEMCACHED_LIES_SEED), [&reference, &other], memcached::read, lie);
    };
    seen(
        "one bit of a long value",
        Box::new(|reply| {
            let middle = reply.len() / 2;
            let lies = reply.starts_with(b"VA") && reply.len() > 500;
            reply[middle] ^= u8::from(lies);
            lies
        }),
    );
    seen("five seconds more to live", Box::new(|reply| reply.starts_with(b"HD") && add_to(reply, b" t", 5)));
    let mut told_before = HashSet::new();
    seen(
        "a unique that nobody changed",
        Box::new(move |reply| {
            let is_old = reply.starts_with(b"HD c") && !told_before.insert(reply.clone());
            is_old && add_to(reply, b" c", 1)
        }),
    );
    seen("other flags", Box::new(|reply| reply.starts_with(b"HD") && add_to(reply, b" f", 1)));
    seen("a hit as a miss", Box::new(|reply| reply == b"HD\r\nMN\r\n" && replace(reply, b"HD", b"NF")));
    seen(
        "a reply that should be quiet",
        Box::new(|reply| reply == b"MN\r\n" && replace(reply, b"MN\r\n", b"HD\r\nMN\r\n")),
    );
    seen("a stale mark too many", Box::new(|reply| reply == b"HD\r\nMN\r\n" && replace(reply, b"HD", b"HD X")));
    seen("another error", Box::new(|reply| replace(reply, b"invalid exptime argument", b"invalid exptime")));
}

#[test]
fn rows_of_the_table_explain_no_more_than_they_say() {
    let facts = Facts { skew: Duration::ZERO, elapsed: Duration::from_secs(1) };
    let explains = |row: &'static Tolerance, reference: &str, other: &str| {
        matches!(judge_by(Some(row), reference.as_bytes(), other.as_bytes(), facts), Judgement::Explained(_))
    };
    let cases: &[(&'static Tolerance, &str, &[&str], &[&str])] = &[
        (&table::SECONDS, ":100\r\n", &[":99\r\n", ":101\r\n"], &[":98\r\n", ":-1\r\n", "$-1\r\n", "-ERR\r\n"]),
        (&table::SECONDS, ":-1\r\n", &[], &[":-2\r\n", ":0\r\n"]),
        (&table::MILLISECONDS, ":5000\r\n", &[":4950\r\n"], &[":4949\r\n", ":5051\r\n"]),
        (&table::SECONDS, ":900000000000\r\n", &[":281474976710\r\n"], &[":281000000\r\n", ":-1\r\n"]),
        (
            &table::KEY_ORDER,
            "*2\r\n$1\r\na\r\n$1\r\nb\r\n",
            &["*2\r\n$1\r\nb\r\n$1\r\na\r\n"],
            &["*1\r\n$1\r\na\r\n", "*0\r\n"],
        ),
        (
            &table::FLOAT,
            "$4\r\n10.1\r\n",
            &["$20\r\n10.09999999999999999\r\n"],
            &["$5\r\n10.11\r\n", "$-1\r\n", "$5\r\n-10.1\r\n"],
        ),
        (&table::FLOAT, "$19\r\n4644238456028572735\r\n", &[], &["$19\r\n4644238456028572672\r\n"]),
        (&table::ENCODING, "$3\r\nraw\r\n", &["$3\r\nint\r\n"], &["$-1\r\n", "$4\r\nlist\r\n"]),
        (&table::KEY_LENGTH, "+OK\r\n", &["-ERR key\r\n"], &["$-1\r\n"]),
        (&table::SCRIPT_ERROR, "-ERR one script: x\r\n", &["-ERR two\r\n"], &["-NOSCRIPT two\r\n", ":0\r\n"]),
        (&table::SCRIPT_ERROR, ":0\r\n", &["-ERR this script takes one key\r\n"], &["-ERR two\r\n", ":1\r\n"]),
        (&table::TIME_LEFT, "100", &["98", "101"], &["-1", "103", ""]),
        (&table::LAST_ACCESS, "0", &["3"], &["-1", "4", "x"]),
        (&table::UNIQUE, "17", &["18446744073709551615"], &["", "-1", "x"]),
    ];
    for (row, reference, explained, others) in cases {
        for other in *explained {
            assert!(explains(row, reference, other), "{}: {reference:?} and {other:?}", row.name);
        }
        for other in *others {
            assert!(!explains(row, reference, other), "{}: {reference:?} and {other:?}", row.name);
        }
    }
}

/// A seed whose first thousand commands wait for no expiry.
const MEMCACHED_LIES_SEED: u64 = 6;
