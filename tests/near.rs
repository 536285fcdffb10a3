//! The near cache against a server in a process of its own: what it serves, how long, and what empties it.

mod common;

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::*;
use spinetail::base::limits;
use spinetail::client::{Client, Endpoint, Error, NearCache, NearOptions};

const LEASE: Duration = Duration::from_millis(limits::NEAR_LEASE_MS);
const SUBSCRIBE: u8 = 0x05;
const PUSH: u8 = 0x81;

fn near(address: SocketAddr) -> NearCache {
    NearCache::connect(address, NearOptions { capacity_bytes: 8 << 20, lease_max: None }).expect("a near cache")
}

fn read(cache: &NearCache, key: &[u8]) -> Option<Vec<u8>> {
    cache.get(key).expect("the server answers")
}

/// Reads until the value comes from this process; a loaded machine may let a lease end.
fn hold(cache: &NearCache, key: &[u8], value: &[u8]) {
    let held = eventually(PATIENCE, || {
        let before = cache.stats().hits;
        assert_eq!(read(cache, key).as_deref(), Some(value));
        cache.stats().hits > before
    });
    assert!(held, "{:?} never comes from here: {}", String::from_utf8_lossy(key), cache.stats());
}

/// Reads until the value is the expected one, for a lease at most.
fn sees(cache: &NearCache, key: &[u8], value: Option<&[u8]>, told: &str) {
    let acknowledged = Instant::now();
    loop {
        let asked = Instant::now();
        let got = read(cache, key);
        if got.as_deref() == value {
            return;
        }
        assert!(asked - acknowledged < LEASE, "{told}: {got:?} after {:?}", asked - acknowledged);
    }
}

// --- What others write ------------------------------------------------------------------------

#[test]
fn every_kind_of_write_of_another_client_is_seen_within_the_lease() {
    for driver in drivers() {
        for shards in shard_counts() {
            let told = format!("{driver}, {shards} shard(s)");
            let server = Server::start(&["--io", driver, "--shards", shards]);
            let cache = near(server.address);
            let mut other = Client::connect(server.address).unwrap();
            // Enough keys for either shard; `wire` stays at one, so some of its writes are forwarded.
            let mut wire = server.connect();
            for number in 0..40 {
                let key = format!("key-{number}").into_bytes();
                other.set(&key, b"1", None).unwrap();
                hold(&cache, &key, b"1");
                other.set(&key, b"2", None).unwrap();
                sees(&cache, &key, Some(b"2"), &told);
                hold(&cache, &key, b"2");
                assert_eq!(wire.ask(SET, &key, b"3").status, OK);
                sees(&cache, &key, Some(b"3"), &told);
                hold(&cache, &key, b"3");
                assert_eq!(other.increment(&key, 4, None).unwrap(), Some(7));
                sees(&cache, &key, Some(b"7"), &told);
                hold(&cache, &key, b"7");
                assert!(other.replace(&key, b"8", None).unwrap());
                sees(&cache, &key, Some(b"8"), &told);
                hold(&cache, &key, b"8");
                let version = other.get_versioned(&key).unwrap().unwrap().version;
                other.compare_and_set(&key, version, b"9", None).unwrap();
                sees(&cache, &key, Some(b"9"), &told);
                hold(&cache, &key, b"9");
                assert!(other.delete(&key).unwrap());
                sees(&cache, &key, None, &told);
                assert!(other.add(&key, b"10", None).unwrap());
                hold(&cache, &key, b"10");
            }
            other.flush().unwrap();
            let asked = Instant::now();
            for number in 0..40 {
                sees(&cache, format!("key-{number}").as_bytes(), None, &told);
            }
            assert!(asked.elapsed() < PATIENCE);
            let stats = cache.stats();
            assert!(stats.invalidations >= 200 && stats.hits >= 240 && stats.subscribed, "{stats}");
            assert!(stats.staleness_max < LEASE && stats.staleness_mean <= stats.staleness_max, "{stats}");
            assert!(stats.to_string().contains(&format!("near_hit_ratio {:.6}\n", stats.hit_ratio())));
            assert_eq!(server.counter("near_subscribers").to_string(), shards);
            assert!(server.counter("near_pushes") >= 100 && server.counter("near_invalidations") >= 200);
            drop(cache);
            assert!(eventually(PATIENCE, || server.counter("near_subscribers") == 0), "{told}: it has left");
        }
    }
}

#[test]
fn writes_over_resp_are_seen() {
    let server = Server::start(&["--resp", "127.0.0.1:0"]);
    let address = server.ready.split_whitespace().find_map(|word| word.strip_prefix("resp=")).expect("an address");
    let mut resp = TcpStream::connect(address).unwrap();
    let mut say = |text: &str| {
        resp.write_all(text.as_bytes()).unwrap();
        let mut reply = [0; 64];
        let count = resp.read(&mut reply).unwrap();
        String::from_utf8_lossy(&reply[..count]).into_owned()
    };
    let cache = near(server.address);
    assert_eq!(say("SET k 1\r\n"), "+OK\r\n");
    hold(&cache, b"k", b"1");
    assert_eq!(say("INCR k\r\n"), ":2\r\n");
    sees(&cache, b"k", Some(b"2"), "INCR");
    hold(&cache, b"k", b"2");
    assert_eq!(say("DEL k\r\n"), ":1\r\n");
    sees(&cache, b"k", None, "DEL");
}

#[test]
fn through_shared_memory_it_is_the_same() {
    for shards in shard_counts() {
        let scratch = Scratch::new(&format!("near-{shards}"));
        let path = scratch.file("socket");
        let server = Server::start(&["--shm", &path, "--shards", shards]);
        let cache = NearCache::connect(Endpoint::Shm(path.into()), NearOptions::default()).unwrap();
        let mut other = Client::connect(server.address).unwrap();
        for number in 0..20 {
            let key = format!("key-{number}").into_bytes();
            other.set(&key, b"1", None).unwrap();
            hold(&cache, &key, b"1");
            other.set(&key, b"2", None).unwrap();
            sees(&cache, &key, Some(b"2"), "shared memory");
        }
    }
}

#[test]
fn a_key_deleted_after_it_was_evicted_at_the_server_is_gone_here_too() {
    let server = Server::start(&[]);
    let (cache, mut other) = (near(server.address), Client::connect(server.address).unwrap());
    other.set(b"precious", b"1", None).unwrap();
    hold(&cache, b"precious", b"1");
    let value = vec![b'v'; 100_000];
    let evicted = (0..20_000u32).any(|number| {
        other.set(format!("filler-{number}").as_bytes(), &value, None).unwrap();
        number % 200 == 199 && other.ttl(b"precious").unwrap().is_none()
    });
    assert!(evicted, "4 GB went through 64 MiB and the key is still there");
    assert!(!other.delete(b"precious").unwrap(), "the server had dropped it");
    sees(&cache, b"precious", None, "a DELETE of what was evicted");
}

/// A parked shard once went by the time at which it had lain down: values were served up to 80 ms too long.
#[test]
fn a_value_is_not_served_past_its_time_to_live() {
    for driver in drivers() {
        let server = Server::start(&["--io", driver]);
        let (cache, mut other) = (near(server.address), Client::connect(server.address).unwrap());
        let ttl = Duration::from_millis(200);
        // The pauses let the shard park in between, for long and for short.
        for pause_ms in [1, 14, 27, 40, 1, 14, 27, 40] {
            let key = format!("short-{pause_ms}").into_bytes();
            other.set(&key, b"1", Some(ttl)).unwrap();
            let over = Instant::now() + ttl;
            loop {
                let asked = Instant::now();
                if read(&cache, &key).is_none() {
                    break;
                }
                let late = asked.saturating_duration_since(over);
                // A turn reads the clock once: what a loaded machine may keep one waiting is allowed.
                assert!(late < Duration::from_millis(15), "{driver}: served {late:?} after it had expired");
                thread::sleep(Duration::from_millis(pause_ms));
            }
        }
        assert!(cache.stats().hits > 0, "{}", cache.stats());
        // A shorter life, given later, is told.
        other.set(b"touched", b"1", None).unwrap();
        hold(&cache, b"touched", b"1");
        assert!(other.touch(b"touched", Some(Duration::from_millis(50))).unwrap());
        thread::sleep(LEASE);
        assert_eq!(read(&cache, b"touched"), None);
    }
}

#[test]
fn own_writes_are_seen_at_once_by_every_thread() {
    for shards in shard_counts() {
        let server = Server::start(&["--shards", shards]);
        let cache = near(server.address);
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    read(&cache, b"key"); // fills the cache again and again
                }
            });
            for number in 0..2_000u32 {
                cache.set(b"key", &number.to_le_bytes(), None).unwrap();
                assert_eq!(read(&cache, b"key").unwrap(), number.to_le_bytes());
            }
            assert!(cache.delete(b"key").unwrap());
            assert_eq!(read(&cache, b"key"), None);
            stop.store(true, Ordering::Relaxed);
        });
        assert!(cache.stats().hits > 0);
    }
}

#[test]
fn what_it_holds_stays_within_its_bytes() {
    let server = Server::start(&[]);
    let options = NearOptions { capacity_bytes: 300_000, lease_max: None };
    let (cache, mut other) = (NearCache::connect(server.address, options).unwrap(), server.connect());
    for number in 0..3_000u32 {
        let key = format!("key-{number}").into_bytes();
        assert_eq!(other.ask(SET, &key, &[b'v'; 500]).status, OK);
        read(&cache, &key);
    }
    let stats = cache.stats();
    assert!(stats.bytes <= 300_000 && stats.entries > 200 && stats.evicted > 1_000, "{stats}");
}

// --- What empties it --------------------------------------------------------------------------

#[test]
fn a_killed_server_empties_it_and_another_in_its_place_is_used() {
    let mut server = Server::start(&[]);
    let (address, listen) = (server.address, server.address.to_string());
    let cache = near(address);
    cache.set(b"key", b"old", None).unwrap();
    hold(&cache, b"key", b"old");
    signal(server.pid(), "KILL");
    let killed = Instant::now();
    server.wait(PATIENCE);
    loop {
        let asked = Instant::now();
        match cache.get(b"key") {
            Err(Error::Io(_)) => break,
            Ok(Some(value)) if asked - killed < LEASE + Duration::from_millis(200) => assert_eq!(value, b"old"),
            other => panic!("{other:?} from nobody after {:?}", asked - killed),
        }
    }
    assert!(eventually(PATIENCE, || cache.stats().entries == 0 && !cache.stats().subscribed), "{}", cache.stats());
    assert!(cache.stats().emptied >= 1);
    // Another hash seed, another number of shards, no keys.
    let shards = if two_shards_fit() { "2" } else { "1" };
    let next = Server::start(&["--listen", &listen, "--shards", shards]);
    assert_eq!(read(&cache, b"key"), None);
    let mut other = Client::connect(next.address).unwrap();
    for number in 0..10 {
        let key = format!("key-{number}").into_bytes();
        other.set(&key, b"new", None).unwrap();
        hold(&cache, &key, b"new");
        other.set(&key, b"newer", None).unwrap();
        sees(&cache, &key, Some(b"newer"), "the next server");
    }
}

#[test]
fn a_server_that_leaves_takes_its_near_caches_with_it_at_once() {
    let mut server = Server::start(&[]);
    let caches = [near(server.address), near(server.address)];
    caches[0].set(b"key", b"1", None).unwrap();
    caches.iter().for_each(|cache| hold(cache, b"key", b"1"));
    server.terminate();
    let left = Instant::now();
    assert!(server.wait(PATIENCE).success());
    assert!(left.elapsed() < Duration::from_secs(4), "renewals kept it from leaving for {:?}", left.elapsed());
    assert!(eventually(PATIENCE, || caches.iter().all(|cache| cache.stats().entries == 0)));
}

#[test]
fn a_stopped_server_ends_the_lease_and_goes_on_when_it_wakes() {
    let server = Server::start(&[]);
    let cache = near(server.address);
    cache.set(b"key", b"1", None).unwrap();
    hold(&cache, b"key", b"1");
    let before = cache.stats();
    signal(server.pid(), "STOP");
    thread::sleep(LEASE + Duration::from_millis(300));
    let hits = cache.stats().hits;
    thread::scope(|scope| {
        let reader = scope.spawn(|| cache.get(b"key")); // waits for the server
        thread::sleep(Duration::from_millis(300));
        assert!(!reader.is_finished(), "served without a lease");
        assert_eq!((cache.stats().hits, cache.stats().entries), (hits, 0));
        assert!(cache.stats().emptied > before.emptied);
        signal(server.pid(), "CONT");
        assert_eq!(reader.join().unwrap().unwrap().as_deref(), Some(b"1".as_slice()));
    });
    hold(&cache, b"key", b"1");
}

#[test]
fn pushes_held_up_on_their_way_are_waited_for_no_longer_than_the_lease() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.address);
    let (cache, mut other) = (near(proxy.address), Client::connect(server.address).unwrap());
    other.set(b"key", b"1", None).unwrap();
    hold(&cache, b"key", b"1");
    proxy.mode.store(Proxy::HOLD, Ordering::Relaxed);
    other.set(b"key", b"2", None).unwrap();
    assert_eq!(read(&cache, b"key").unwrap(), b"1", "the push is on its way");
    sees(&cache, b"key", Some(b"2"), "pushes held up");
    // What was held up arrives at once: old renewals first, the push behind them. None of it may bring back the old.
    thread::sleep(2 * LEASE);
    assert!(cache.stats().emptied >= 1);
    proxy.mode.store(Proxy::PASS, Ordering::Relaxed);
    for _ in 0..1_000 {
        assert_eq!(read(&cache, b"key").unwrap(), b"2");
    }
    hold(&cache, b"key", b"2");
}

#[test]
fn a_push_that_is_lost_is_noticed_by_the_next() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.address);
    let (cache, mut other) = (near(proxy.address), Client::connect(server.address).unwrap());
    for key in [b"a", b"b"] {
        other.set(key, b"1", None).unwrap();
        hold(&cache, key, b"1");
    }
    proxy.mode.store(Proxy::LOSE_PUSHES, Ordering::Relaxed);
    other.set(b"a", b"2", None).unwrap();
    assert!(eventually(PATIENCE, || proxy.lost.load(Ordering::Relaxed) > 0), "nothing was pushed");
    proxy.mode.store(Proxy::PASS, Ordering::Relaxed);
    let emptied = cache.stats().emptied;
    hold(&cache, b"b", b"1");
    other.set(b"b", b"2", None).unwrap();
    assert!(eventually(PATIENCE, || cache.stats().emptied > emptied), "{}", cache.stats());
    for key in [b"a", b"b"] {
        hold(&cache, key, b"2");
    }
}

/// Stands between a near cache and its server, and does to push connections what networks do.
struct Proxy {
    address: SocketAddr,
    mode: Arc<AtomicU8>,
    /// Pushes that were lost.
    lost: Arc<AtomicU64>,
}

impl Proxy {
    const PASS: u8 = 0;
    const HOLD: u8 = 1;
    const LOSE_PUSHES: u8 = 2;

    fn start(server: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Proxy {
            address: listener.local_addr().unwrap(),
            mode: Arc::new(AtomicU8::new(Proxy::PASS)),
            lost: Arc::new(AtomicU64::new(0)),
        };
        let (mode, lost) = (proxy.mode.clone(), proxy.lost.clone());
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let server = TcpStream::connect(server).unwrap();
                client.set_nodelay(true).unwrap();
                server.set_nodelay(true).unwrap();
                let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(Shutdown::Write);
                });
                let (mode, lost) = (mode.clone(), lost.clone());
                thread::spawn(move || Proxy::answer(Wire { stream: server }, client, &mode, &lost));
            }
        });
        proxy
    }

    /// Passes whole frames to the client, until either side ends.
    fn answer(mut server: Wire, mut client: TcpStream, mode: &AtomicU8, lost: &AtomicU64) {
        let mut pushes = false;
        while let Ok(reply) = server.try_reply() {
            pushes |= reply.opcode == SUBSCRIBE;
            while pushes && mode.load(Ordering::Relaxed) == Proxy::HOLD {
                thread::sleep(Duration::from_millis(1));
            }
            if reply.opcode == PUSH && mode.load(Ordering::Relaxed) == Proxy::LOSE_PUSHES {
                lost.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let mut bytes = vec![0xb5, 1, reply.opcode, 0, 0, 0];
            bytes.extend(reply.status.to_le_bytes());
            bytes.extend((reply.value.len() as u32).to_le_bytes());
            bytes.extend(reply.id.to_le_bytes());
            bytes.extend(reply.number.to_le_bytes());
            bytes.extend(reply.value);
            if client.write_all(&bytes).is_err() {
                return;
            }
        }
        let _ = client.shutdown(Shutdown::Both);
    }
}

// --- The server's side ------------------------------------------------------------------------

#[test]
fn more_near_caches_than_a_shard_keeps_are_refused_with_words() {
    let server = Server::start(&[]);
    let mut wires: Vec<Wire> = (0..limits::NEAR_SUBSCRIBERS_MAX).map(|_| server.connect()).collect();
    for wire in &mut wires {
        let reply = wire.ask(SUBSCRIBE, b"", b"");
        assert!(reply.status == OK && reply.number != 0 && reply.value.len() == 8, "{reply:?}");
    }
    let refused = server.connect().ask(SUBSCRIBE, b"", b"");
    assert_eq!((refused.status, refused.number), (BUSY, 0));
    assert!(String::from_utf8(refused.value).unwrap().contains("64 near caches"));
    match NearCache::connect(server.address, NearOptions::default()) {
        Err(Error::Refused { text, .. }) => assert!(text.contains("64 near caches"), "{text}"),
        other => panic!("not refused: {:?}", other.err()),
    }
    assert_eq!(server.counter("near_subscribers"), 64);
    drop(wires.pop());
    assert!(
        eventually(PATIENCE, || NearCache::connect(server.address, NearOptions::default()).is_ok()),
        "a free place"
    );
}

#[test]
fn a_subscription_on_the_wire_keeps_to_the_page() {
    let server = Server::start(&[]);
    let (mut wire, mut other) = (server.connect(), server.connect());
    let hello = wire.ask(HELLO, b"", b"").value;
    let seed = u64::from_le_bytes(hello[16..24].try_into().unwrap());
    let subscribed = wire.ask(SUBSCRIBE, b"", b"");
    let (token, count) = (subscribed.number, u32::from_le_bytes(subscribed.value[..4].try_into().unwrap()));
    let bucket = |key: &[u8]| {
        let hash = xxhash_rust::xxh3::xxh3_64_with_seed(key, seed);
        ((hash >> 16) & 65535) as u32 & (count - 1)
    };
    assert_eq!(other.ask(SET, b"key", b"1").status, OK);
    // A token serves on any connection; without one nobody is told.
    assert_eq!(other.ask(GET, b"key", b"").number, 0);
    assert_eq!(other.ask(SET, b"key", b"2").status, OK);
    other.send(&frame(GET, 0, b"key", b"", 9, token));
    assert_eq!(other.reply().number, u64::MAX);
    assert_eq!(other.ask(SET, b"key", b"3").status, OK);
    let push = wire.reply();
    assert_eq!((push.opcode, push.status, push.id, push.number), (PUSH, OK, 1, 0));
    assert_eq!(push.value, bucket(b"key").to_le_bytes());
    // Not every write of a moment is told twice, and a failed one not at all.
    other.send(&frame(GET, 0, b"key", b"", 10, token));
    assert_eq!(other.reply().value, b"3");
    assert_eq!(other.ask(ADD, b"key", b"4").status, EXISTS);
    assert_eq!(wire.ask(NOOP, b"", b"").status, OK, "no push before it");
    other.send(&frame(FLUSH, 0, b"", b"", 11, 0));
    assert_eq!(other.reply().status, OK);
    let push = wire.reply();
    assert_eq!((push.opcode, push.id, push.value), (PUSH, 2, u32::MAX.to_le_bytes().to_vec()));
    // With another's token or a version nothing is tracked.
    assert_eq!(other.ask(SET, b"key", b"5").status, OK);
    other.send(&frame(GET, 0, b"key", b"", 12, token ^ (1 << 20)));
    let reply = other.reply();
    assert_eq!((reply.number, reply.value.as_slice()), (0, b"5".as_slice()));
    other.send(&frame(GET, WANT_VERSION, b"key", b"", 13, token));
    assert_eq!(other.reply().status, UNSUPPORTED);
}

#[test]
fn a_subscriber_that_reads_nothing_is_closed_and_harms_nobody() {
    for driver in drivers() {
        let mut server = Server::start(&["--io", driver]);
        let mut deaf = server.connect();
        let token = deaf.ask(SUBSCRIBE, b"", b"").number;
        let cache = near(server.address);
        cache.set(b"calm", b"1", None).unwrap();
        hold(&cache, b"calm", b"1");
        let mut busy = server.connect();
        // Each round reads and writes the same keys: what is pushed grows, and is never read.
        let keys: Vec<Vec<u8>> = (0..1_000u32).map(|number| number.to_le_bytes().to_vec()).collect();
        let round: Vec<u8> = keys
            .iter()
            .flat_map(|key| [frame(SET, 0, key, b"v", 1, 0), frame(GET, 0, key, b"", 1, token)].concat())
            .collect();
        let started = Instant::now();
        while server.counter("near_dropped") == 0 {
            assert!(started.elapsed() < 2 * PATIENCE, "{driver}: it is still kept");
            for _ in 0..50 {
                busy.send(&round);
                (0..2 * keys.len()).for_each(|_| assert_eq!(busy.reply().status, OK));
            }
        }
        assert_eq!(server.counter("near_subscribers"), 1, "{driver}: the other stays");
        server.assert_serves();
        server.assert_within_memory(64 << 20);
        hold(&cache, b"calm", b"1");
        // And the deaf one finds whole frames and an end, not silence.
        let mut last = 0;
        while let Ok(push) = deaf.try_reply() {
            assert_eq!((push.opcode, push.id), (PUSH, last + 1));
            last = push.id;
        }
        assert!(last > 0 && deaf.is_closed(), "{driver}");
    }
}

// --- All together -----------------------------------------------------------------------------

/// Writers overwrite numbers with larger ones; whatever a reader gets is at least what was acknowledged a lease
/// before it asked.
#[test]
fn nothing_older_than_the_lease_is_ever_served() {
    const KEYS: usize = 64;
    for shards in shard_counts() {
        let server = Server::start(&["--shards", shards]);
        let options = NearOptions { capacity_bytes: 1 << 20, lease_max: Some(Duration::from_millis(100)) };
        let lease = options.lease_max.unwrap();
        let cache = NearCache::connect(server.address, options).unwrap();
        // Of each key, what was acknowledged and when.
        let acknowledged: Vec<Mutex<VecDeque<(Instant, u64)>>> = (0..KEYS).map(|_| Mutex::default()).collect();
        let stop = AtomicBool::new(false);
        let reads = AtomicU64::new(0);
        let key_of = |number: usize| format!("key-{number}").into_bytes();
        thread::scope(|scope| {
            let (acknowledged, stop, reads, cache) = (&acknowledged, &stop, &reads, &cache);
            for writer in 0..3 {
                let address = server.address;
                scope.spawn(move || {
                    let mut client = Client::connect(address).unwrap();
                    let mut prng = spinetail::base::prng::Prng::new(writer as u64);
                    let mut count = 0u64;
                    while !stop.load(Ordering::Relaxed) {
                        let number = (prng.below(KEYS as u64) as usize / 3 * 3 + writer).min(KEYS - 1);
                        if number % 3 != writer {
                            continue; // each key has one writer
                        }
                        count += 1;
                        client.set(&key_of(number), &count.to_le_bytes(), None).unwrap();
                        acknowledged[number].lock().unwrap().push_back((Instant::now(), count));
                        if count.is_multiple_of(64) {
                            thread::sleep(Duration::from_millis(2)); // so that there are hits too
                        }
                    }
                });
            }
            for reader in 0..2 {
                scope.spawn(move || {
                    let mut prng = spinetail::base::prng::Prng::new(100 + reader);
                    while !stop.load(Ordering::Relaxed) {
                        let number = prng.below(KEYS as u64) as usize;
                        let asked = Instant::now();
                        let floor = {
                            let mut known = acknowledged[number].lock().unwrap();
                            while known.get(1).is_some_and(|next| next.0 + lease <= asked) {
                                known.pop_front();
                            }
                            known.front().filter(|first| first.0 + lease <= asked).map_or(0, |first| first.1)
                        };
                        let value = cache
                            .get(&key_of(number))
                            .unwrap()
                            .map_or(0, |value| u64::from_le_bytes(value.try_into().expect("eight bytes")));
                        assert!(value >= floor, "key {number}: {value} where {floor} was acknowledged long ago");
                        reads.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            thread::sleep(Duration::from_secs(3));
            stop.store(true, Ordering::Relaxed);
        });
        let stats = cache.stats();
        assert!(stats.hits > 100 && stats.invalidations > 100, "{stats}");
        assert!(stats.staleness_max < lease, "{stats}");
        assert_eq!(stats.hits + stats.misses, reads.load(Ordering::Relaxed));
    }
}
