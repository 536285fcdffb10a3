//! The server against Redis and memcached themselves: the same stream of commands to both, every reply compared.
//!
//! `cargo test --release --test differential` sends 20,000 Redis and 10,000 memcached commands in each of its runs;
//! `SPINETAIL_DIFFERENTIAL=1000000,7` sends as many as it says, from that seed. Written against Redis 7.0 and memcached
//! 1.6.18 (Debian 12), whose error texts are part of the comparison. What may differ stands in
//! `differential/tolerances.rs`, a reason beside each row; everything else must be the same bytes.
//!
//! Where Redis or memcached are not installed these tests say so and pass; that the comparison sees what it should is
//! tested everywhere.

mod common;

#[path = "differential/engine.rs"]
mod engine;
#[path = "differential/peer.rs"]
mod peer;
#[path = "differential/redis.rs"]
mod redis;
#[path = "differential/resp.rs"]
mod resp;
#[path = "differential/tolerances.rs"]
mod tolerances;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use common::{PATIENCE, Server, shard_counts};
use engine::{Outcome, Peer, Plan, run};
use peer::{Foreign, liar};
use redis::Redis;

/// Spinetail, and where it speaks a protocol.
fn appliance(protocol: &str, shards: &str) -> (Server, Peer) {
    let flag = format!("--{protocol}");
    let server = Server::start(&[&flag, "127.0.0.1:0", "--shards", shards]);
    let mut words = server.ready.split_whitespace();
    let address = words.find_map(|word| word.strip_prefix(protocol)?.strip_prefix('=')?.parse().ok());
    let address = address.unwrap_or_else(|| panic!("no {protocol} address in '{}'", server.ready));
    (server, Peer { name: format!("spinetail, {shards} shard(s)"), address })
}

fn assert_nothing_unexplained(outcome: &Outcome, plan: Plan) {
    if outcome.differences.is_empty() && outcome.commands >= plan.commands {
        return println!("{}", outcome.report());
    }
    panic!("{}", outcome.report());
}

// --- Redis ---------------------------------------------------------------------------------------

#[test]
fn redis_clients_see_no_difference() {
    let Some(redis) = Foreign::redis() else { return };
    for shards in shard_counts() {
        for version in [2, 3] {
            let plan = Plan::from_environment(20_000, 1);
            let (_server, peer) = appliance("resp", shards);
            let outcome = run(Redis::new(plan.seed, version), &redis.peer, &peer, plan);
            assert_nothing_unexplained(&outcome, plan);
        }
    }
}

/// Time, expiry and order leave no difference between two Redis, so what is reported of ours is ours.
#[test]
fn redis_does_not_differ_from_redis() {
    let (Some(one), Some(two)) = (Foreign::redis(), Foreign::redis()) else { return };
    for version in [2, 3] {
        let plan = Plan::from_environment(20_000, 2);
        let outcome = run(Redis::new(plan.seed, version), &one.peer, &two.peer, plan);
        assert_nothing_unexplained(&outcome, plan);
    }
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
        b"*1\r\n$4\r\nPINGxxPING\r\n",
        b"PING\r\nQUIT\r\nPING\r\n",
        b"\r\n\r\n   \r\nPING\r\n",
        b"   PING   \r\n",
        b"*1\r\n$4\r\nPI",
        &long,
    ];
    let mut differing = Vec::new();
    for request in broken {
        let [reference, other] = [&redis.peer, &peer].map(|peer| all_that_comes(peer, request));
        if reference != other {
            let [request, reference, other] = [*request, &reference, &other].map(engine::shown_bytes);
            differing.push(format!("{request}\n    {}: {reference}\n    {}: {other}", redis.peer.name, peer.name));
        }
    }
    assert!(differing.is_empty(), "{} of {}:\n{}", differing.len(), broken.len(), differing.join("\n"));
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

// --- What the comparison sees ----------------------------------------------------------------------

/// Redis if it is here, else our own server: a lie is a difference before either.
fn any_resp() -> (Option<Foreign>, Option<Server>, Peer) {
    if let Some(redis) = Foreign::redis() {
        let peer = redis.peer.clone();
        return (Some(redis), None, peer);
    }
    let (server, peer) = appliance("resp", "1");
    (None, Some(server), peer)
}

/// Runs a server against itself behind a proxy that lies, and checks that exactly that is seen.
fn assert_lie_is_seen(what: &str, mut lies: impl FnMut(&mut Vec<u8>) -> bool + Send + 'static) {
    let (_one, _server_one, reference) = any_resp();
    let (_two, _server_two, other) = any_resp();
    let mut replies = 0;
    let mut told = false;
    let other = liar(
        &other,
        |from| resp::read(from),
        move |reply| {
            replies += 1;
            told = told || (replies > 500 && lies(reply));
        },
    );
    let outcome = run(Redis::new(3, 2), &reference, &other, Plan { commands: 4000, seed: 3 });
    println!("{what}: {}", outcome.report());
    let [difference] = &outcome.differences[..] else {
        panic!("{what}: {} differences, not one: {}", outcome.differences.len(), outcome.report());
    };
    let report = outcome.report();
    assert!(report.contains("seed 3") && report.contains(&format!("#{} ", difference.number)), "{report}");
}

#[test]
fn planted_differences_are_seen() {
    assert_lie_is_seen("an integer that is one too high", |reply| {
        let lies = reply == b":1\r\n";
        if lies {
            *reply = b":2\r\n".to_vec();
        }
        lies
    });
    assert_lie_is_seen("one bit of a long value", |reply| {
        let lies = reply.starts_with(b"$") && reply.len() > 1000;
        if lies {
            let middle = reply.len() / 2;
            reply[middle] ^= 1;
        }
        lies
    });
    assert_lie_is_seen("three seconds more to live", |reply| {
        let lies = resp::integer(reply).filter(|left| (100_000..100_000_000).contains(left));
        if let Some(left) = lies {
            *reply = format!(":{}\r\n", left + 3).into_bytes();
        }
        lies.is_some()
    });
    assert_lie_is_seen("a nil in a transaction", |reply| {
        let nil = reply.windows(5).position(|bytes| bytes == b"$-1\r\n").filter(|_| reply.starts_with(b"*"));
        if let Some(at) = nil {
            reply.splice(at..at + 5, *b"$0\r\n\r\n");
        }
        nil.is_some()
    });
    assert_lie_is_seen("another word in an error", |reply| {
        let lies = reply == b"-ERR syntax error\r\n";
        if lies {
            *reply = b"-ERR Syntax error\r\n".to_vec();
        }
        lies
    });
}
