//! Starting, being asked, and leaving: the command line of `serve`, `get`, `set`, `del` and `stats`,
//! and the native client, against servers in processes of their own.

mod common;

use std::fs;
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use common::*;
use serde_json::Value;
use spinetail::client::native::CompareAndSet;
use spinetail::client::{Client, Error};
use spinetail::wire::Status;

// --- Starting -----------------------------------------------------------------------------------

#[test]
fn the_ready_line_has_exactly_the_promised_form() {
    for shards in shard_counts() {
        let server = Server::start(&["--shards", shards]);
        let port = server.address.port();
        assert_ne!(port, 0);
        assert_eq!(server.ready, format!("ready native=127.0.0.1:{port} resp=- memcached=- admin=- l0=-"));
    }
}

#[test]
fn an_occupied_port_is_named_with_a_remedy() {
    let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = Server::start(&[]);
    for address in [stranger.local_addr().unwrap(), server.address] {
        let text = address.to_string();
        let refused = Server::try_start(&["--listen", &text]).err().expect("the port is taken");
        refused.assert_refused(1, &[&text, "--listen"]);
    }
}

#[test]
fn what_cannot_be_served_is_refused_with_78() {
    let refused = |arguments: &[&str]| Server::try_start(arguments).err().expect("this must not start");
    refused(&["--memory", "1MiB"]).assert_refused(78, &["--memory 1.0 MiB", "at least"]);
    refused(&["--memory", "100000GiB"]).assert_refused(78, &["--memory", "give less"]);
    refused(&["--cores", "999"]).assert_refused(78, &["core 999", "--cores"]);
    refused(&["--cores", "0", "--shards", "2"]).assert_refused(78, &["2 shards", "--cores"]);
    refused(&["--shards", "257"]).assert_refused(78, &["--shards 257"]);
    refused(&["--shards", "0"]).assert_refused(78, &["--shards 0"]);
}

#[test]
fn what_the_command_line_does_not_know_is_refused_with_2() {
    for arguments in [
        &["serve", "--no-such-flag"][..],
        &["serve", "--memory", "lots"],
        &["serve", "--poll", "sometimes"],
        &["serve", "--listen", "nowhere"],
        &["load", "--no-such-flag"],
        &["get"],
        &["no-such-command"],
    ] {
        let ended = spinetail(arguments);
        assert_eq!(ended.status, Some(2), "{arguments:?}: {ended:?}");
        assert!(ended.stderr.contains(arguments[arguments.len() - 1]), "{arguments:?}: {ended:?}");
    }
}

#[test]
fn every_subcommand_has_help_with_an_example() {
    for command in ["serve", "load", "replay", "demo", "get", "set", "del", "stats", "host"] {
        let ended = spinetail(&[command, "--help"]);
        assert_eq!(ended.status, Some(0), "{command}: {ended:?}");
        assert!(ended.stdout.contains(&format!("spinetail {command}")), "{command}: {ended:?}");
        assert!(ended.stdout.contains("Example"), "{command} has no example: {ended:?}");
    }
}

#[test]
fn a_profiles_faults_are_named() {
    let scratch = Scratch::new("profiles");
    let sound = "[machine]\nname = \"test\"\n[cores]\ndata = \"0\"\n[memory]\ntotal = \"64MiB\"\n";
    let refusal = |text: &str| {
        let file = scratch.file("profile.toml");
        fs::write(&file, text).unwrap();
        spinetail(&["serve", "--listen", "127.0.0.1:0", "--profile", &file])
    };
    let misspelt = sound.replace("total", "totl");
    refusal(&misspelt).assert_refused(78, &["profile.toml:6", "memory.totl", "memory.total"]);
    let missing = sound.replace("data = \"0\"\n", "");
    refusal(&missing).assert_refused(78, &["profile.toml", "cores.data", "missing"]);
    let core = sound.replace("\"0\"", "\"999\"");
    refusal(&core).assert_refused(78, &["cores.data", "999"]);
    refusal("[machine\n").assert_refused(78, &["profile.toml:1"]);
    let absent = scratch.file("absent.toml");
    spinetail(&["serve", "--profile", &absent]).assert_refused(78, &["absent.toml"]);

    // And the sound one, of which all these were made, is none of them.
    let file = scratch.file("sound.toml");
    fs::write(&file, sound).unwrap();
    Server::start(&["--profile", &file]).assert_serves();
}

// --- Being asked, by people -----------------------------------------------------------------------

#[test]
fn without_a_server_there_is_a_sentence_and_status_1() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let target = format!("native://{free}");
    for arguments in [&["get", "key"][..], &["set", "key", "value"], &["del", "key"], &["stats"]] {
        let ended = spinetail(&[arguments, &["--target", &target]].concat());
        ended.assert_refused(1, &[&target, "spinetail serve"]);
        assert_eq!(ended.stdout, "");
    }
}

#[test]
fn people_set_get_and_delete() {
    for shards in shard_counts() {
        let server = Server::start(&["--shards", shards]);
        let target = server.target();
        let ask = |arguments: &[&str]| spinetail(&[arguments, &["--target", &target]].concat());
        assert_eq!(ask(&["set", "user:7", "Ada"]).status, Some(0));
        let got = ask(&["get", "user:7"]);
        assert_eq!((got.status, got.stdout.as_str()), (Some(0), "Ada\n"));
        let json = json_of(&ask(&["get", "user:7", "--json"]));
        assert_eq!((&json["key"], &json["value"], &json["ttl_ms"]), (&"user:7".into(), &"Ada".into(), &Value::Null));
        assert!(json["version"].as_u64().unwrap() > 0, "{json}");

        assert_eq!(ask(&["set", "user:8", "Bob", "--ttl", "1h"]).status, Some(0));
        let left = json_of(&ask(&["get", "user:8", "--json"]))["ttl_ms"].as_u64().unwrap();
        assert!((3_000_000..=3_600_000).contains(&left), "{left} ms are left of an hour");

        let deleted = ask(&["del", "user:7", "user:8", "user:9"]);
        assert_eq!((deleted.status, deleted.stdout.as_str()), (Some(0), "2\n"));
        ask(&["get", "user:7"]).assert_refused(1, &["user:7", "not stored"]);
        ask(&["del", "user:7"]).assert_refused(1, &["none"]);
        ask(&["set", "", "value"]).assert_refused(1, &["1 to 1024 bytes"]);
    }
}

#[test]
fn people_read_the_counters() {
    for shards in shard_counts() {
        let server = Server::start(&["--shards", shards]);
        let target = server.target();
        for number in 0..10 {
            let key = format!("key-{number}");
            assert_eq!(spinetail(&["set", &key, "value", "--target", &target]).status, Some(0));
        }
        assert_eq!(spinetail(&["get", "key-1", "--target", &target]).status, Some(0));
        assert_eq!(spinetail(&["get", "absent", "--target", &target]).status, Some(1));
        // Gauges follow a moment later.
        assert!(eventually(PATIENCE, || server.counter("entries") == 10));
        let json = json_of(&spinetail(&["stats", "--json", "--target", &target]));
        for (name, value) in [("sets", 10), ("get_hits", 1), ("get_misses", 1), ("entries", 10)] {
            assert_eq!(json[name].as_u64(), Some(value), "{name}: {json}");
        }
        assert_eq!(json["shards"].as_u64().unwrap().to_string(), shards);
        let text = spinetail(&["stats", "--target", &target]).stdout;
        assert!(text.lines().any(|line| line == "sets 10"), "{text}");
        let names: Vec<&str> = text.lines().filter_map(|line| line.split(' ').next()).collect();
        assert_eq!(names.len(), json.as_object().unwrap().len(), "text and JSON name the same counters");
    }
}

fn json_of(ended: &Ended) -> Value {
    assert_eq!(ended.status, Some(0), "{ended:?}");
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"))
}

// --- Being asked, by programs -------------------------------------------------------------------

#[test]
fn an_entry_is_gone_after_its_time_and_its_memory_is_swept() {
    for shards in shard_counts() {
        let server = Server::start(&["--shards", shards]);
        let mut client = Client::connect(server.address).unwrap();
        let ttl = Some(Duration::from_millis(200));
        client.set(b"stays", b"value", None).unwrap();
        for number in 0..1_000u32 {
            client.set(&number.to_le_bytes(), &[b'v'; 100], ttl).unwrap();
        }
        client.set(b"long", b"value", Some(Duration::from_secs(3600))).unwrap();
        thread::sleep(Duration::from_secs(1));
        for number in 0..1_000u32 {
            assert_eq!(client.get(&number.to_le_bytes()).unwrap(), None, "entry {number} outlived its 200 ms");
        }
        assert_eq!(client.ttl(&7u32.to_le_bytes()).unwrap(), None);
        assert!(client.add(&7u32.to_le_bytes(), b"again", None).unwrap(), "an expired key can be added");
        assert_eq!(client.get(b"stays").unwrap().unwrap().bytes, b"value");
        assert_eq!(client.ttl(b"stays").unwrap(), Some(None));
        let left = client.ttl(b"long").unwrap().unwrap().unwrap();
        assert!(left > Duration::from_secs(3000) && left <= Duration::from_secs(3600), "{left:?}");
        // A touch gives a key another time, or takes it away.
        assert!(client.touch(b"stays", ttl).unwrap());
        assert!(client.touch(b"long", None).unwrap());
        assert!(!client.touch(b"absent", ttl).unwrap());
        thread::sleep(Duration::from_secs(1));
        assert_eq!(client.get(b"stays").unwrap(), None);
        assert_eq!(client.ttl(b"long").unwrap(), Some(None));
    }
}

#[test]
fn expired_entries_are_swept_without_being_asked_for() {
    sweeps(&Server::start(&["--poll", "spin", "--memory", "16MiB"]), PATIENCE);
}

#[test]
fn a_parked_shard_sweeps_too() {
    // A hundred and some segments at one a millisecond: a second would do.
    sweeps(&Server::start(&["--poll", "park", "--memory", "16MiB"]), Duration::from_secs(4));
}

/// Stores what soon expires, and looks at counters until all of it is gone.
fn sweeps(server: &Server, at_most: Duration) {
    let mut wire = server.connect();
    let set = |number: u32| frame(SET, 0, &number.to_le_bytes(), &[b'v'; 200], number, 200);
    wire.send(&(0..10_000).flat_map(set).collect::<Vec<u8>>());
    (0..10_000).for_each(|_| assert_eq!(wire.reply().status, OK));
    let swept = eventually(at_most, || {
        thread::sleep(Duration::from_millis(500)); // every question gives a parked shard a turn
        server.counter("expired") == 10_000 && server.counter("entries") == 0
    });
    assert!(swept, "{} expired, {} left", server.counter("expired"), server.counter("entries"));
    assert_eq!(server.counter("payload_bytes"), 0);
}

#[test]
fn conditional_writes_hold_to_their_conditions() {
    for shards in shard_counts() {
        let server = Server::start(&["--shards", shards]);
        let mut client = Client::connect(server.address).unwrap();
        assert_eq!(client.shard_count().to_string(), shards);
        for number in 0..64 {
            let key = format!("key-{number}").into_bytes();
            assert!(!client.replace(&key, b"none", None).unwrap());
            assert_eq!(client.compare_and_set(&key, 1, b"none", None).unwrap(), CompareAndSet::NotFound);
            assert!(client.add(&key, b"first", None).unwrap());
            assert!(!client.add(&key, b"second", None).unwrap());
            assert!(client.replace(&key, b"third", None).unwrap());
            let read = client.get_versioned(&key).unwrap().unwrap();
            assert_eq!(read.bytes, b"third");
            let CompareAndSet::Stored(version) = client.compare_and_set(&key, read.version, b"fourth", None).unwrap()
            else {
                panic!("nobody else wrote {number}");
            };
            assert_ne!(version, read.version);
            let differs = CompareAndSet::Differs;
            assert_eq!(client.compare_and_set(&key, read.version, b"fifth", None).unwrap(), differs);
            assert_eq!(client.get(&key).unwrap().unwrap().bytes, b"fourth");
            // A plain write in between is noticed, though it asked for no version.
            client.set(&key, b"sixth", None).unwrap();
            assert_eq!(client.compare_and_set(&key, version, b"seventh", None).unwrap(), differs);
            // So are a deletion and another beginning.
            let version = client.get_versioned(&key).unwrap().unwrap().version;
            assert!(client.delete(&key).unwrap());
            client.set(&key, b"sixth", None).unwrap();
            assert_eq!(client.compare_and_set(&key, version, b"eighth", None).unwrap(), differs);
            assert_eq!(client.get(&key).unwrap().unwrap().bytes, b"sixth");
        }
    }
}

#[test]
fn a_version_set_by_one_of_many_racing_writers_is_set_once() {
    for shards in shard_counts() {
        let server = Server::start(&["--shards", shards]);
        let address = server.address;
        Client::connect(address).unwrap().set(b"sum", b"0", None).unwrap();
        let racers: Vec<_> = (0..4)
            .map(|_| {
                thread::spawn(move || {
                    let mut client = Client::connect(address).unwrap();
                    let mut stored = 0;
                    while stored < 100 {
                        let read = client.get_versioned(b"sum").unwrap().unwrap();
                        let sum: u64 = String::from_utf8(read.bytes).unwrap().parse().unwrap();
                        let next = (sum + 1).to_string();
                        let set = client.compare_and_set(b"sum", read.version, next.as_bytes(), None).unwrap();
                        stored += u64::from(matches!(set, CompareAndSet::Stored(_)));
                    }
                })
            })
            .collect();
        racers.into_iter().for_each(|racer| racer.join().unwrap());
        assert_eq!(Client::connect(address).unwrap().get(b"sum").unwrap().unwrap().bytes, b"400");
    }
}

#[test]
fn counters_count_and_say_why_when_they_cannot() {
    for shards in shard_counts() {
        let server = Server::start(&["--shards", shards]);
        let mut client = Client::connect(server.address).unwrap();
        let status = |error: Error| match error {
            Error::Refused { status, .. } => status,
            other => panic!("{other}"),
        };
        for number in 0..32 {
            let key = format!("count-{number}").into_bytes();
            assert_eq!(client.increment(&key, 5, None).unwrap(), None);
            assert_eq!(client.increment(&key, 5, Some(40)).unwrap(), Some(40));
            assert_eq!(client.increment(&key, 5, Some(40)).unwrap(), Some(45));
            assert_eq!(client.increment(&key, -50, None).unwrap(), Some(-5));
            assert_eq!(client.get(&key).unwrap().unwrap().bytes, b"-5");
            client.set(&key, b"five", None).unwrap();
            assert_eq!(status(client.increment(&key, 1, None).unwrap_err()), Status::NotANumber);
            client.set(&key, i64::MAX.to_string().as_bytes(), None).unwrap();
            assert_eq!(status(client.increment(&key, 1, None).unwrap_err()), Status::Overflow);
            assert_eq!(client.increment(&key, 0, None).unwrap(), Some(i64::MAX), "nothing changed");
        }
    }
}

#[test]
fn flush_empties_every_shard() {
    for shards in shard_counts() {
        let server = Server::start(&["--shards", shards]);
        let mut client = Client::connect(server.address).unwrap();
        let keys: Vec<Vec<u8>> = (0..500).map(|number| format!("key-{number}").into_bytes()).collect();
        keys.iter().for_each(|key| client.set(key, b"value", None).unwrap());
        assert!(keys.iter().all(|key| client.get(key).unwrap().is_some()));
        client.flush().unwrap();
        assert!(keys.iter().all(|key| client.get(key).unwrap().is_none()), "{shards} shard(s)");
        assert!(eventually(PATIENCE, || server.counter("entries") == 0));
        keys.iter().for_each(|key| client.set(key, b"again", None).unwrap());
        assert!(keys.iter().all(|key| client.get(key).unwrap().is_some()), "what comes after it is kept");
    }
}

#[test]
fn a_connection_is_served_by_the_shard_it_asks_for() {
    for shards in shard_counts() {
        let server = Server::start(&["--shards", shards]);
        let count: u16 = shards.parse().unwrap();
        for round in 0..20u16 {
            let wanted = round % count;
            let mut wire = server.connect();
            wire.send(&frame(HELLO, 0, b"", b"tests", 9, u64::from(wanted) + 1));
            let reply = wire.reply();
            assert_eq!((reply.status, reply.id, reply.opcode), (OK, 9, HELLO));
            let at = |at: usize| u16::from_le_bytes([reply.value[at], reply.value[at + 1]]);
            assert_eq!((at(0), at(2)), (count, wanted));
            assert_eq!(wire.ask(SET, b"key", b"value").status, OK);
            assert_eq!(wire.ask(GET, b"key", b"").value, b"value");
        }
        // A shard that does not exist cannot be had; the connection is served where it is.
        let mut wire = server.connect();
        wire.send(&frame(HELLO, 0, b"", b"", 9, 1_000));
        assert_eq!(wire.reply().status, OK);
        assert_eq!(wire.ask(NOOP, b"", b"").status, OK);
    }
}

// --- Leaving --------------------------------------------------------------------------------------

#[test]
fn a_server_told_to_stop_answers_everything_and_gives_the_port_back() {
    for driver in drivers() {
        for shards in shard_counts() {
            let told = format!("{driver}, {shards} shard(s)");
            let mut server = Server::start(&["--io", driver, "--shards", shards]);
            let mut wires: Vec<Wire> = (0..20).map(|_| server.connect()).collect();
            for wire in &mut wires {
                assert_eq!(wire.ask(NOOP, b"", b"").status, OK);
            }
            for (number, wire) in wires.iter_mut().enumerate() {
                let requests: Vec<u8> = (0..200)
                    .flat_map(|id| frame(SET, 0, format!("{number}-{id}").as_bytes(), b"value", id, 0))
                    .collect();
                wire.send(&requests);
            }
            server.terminate();
            for (number, wire) in wires.iter_mut().enumerate() {
                for id in 0..200 {
                    let reply = wire.try_reply();
                    let reply = reply.unwrap_or_else(|error| panic!("{told}: client {number} reply {id}: {error}"));
                    assert_eq!((reply.id, reply.status), (id, OK), "{told}");
                }
            }
            let status = server.wait(Duration::from_secs(10));
            assert_eq!(status.code(), Some(0), "{told}: {}", server.stderr());
            assert!(wires.iter_mut().all(Wire::is_closed), "{told}");
            // The very same port, at once, with the old connections hardly gone.
            let next = Server::start(&["--listen", &server.address.to_string(), "--shards", shards]);
            assert_eq!(next.address, server.address, "{told}");
        }
    }
}

#[test]
fn a_server_told_to_stop_waits_for_a_client_that_still_reads() {
    for driver in drivers() {
        let mut server = Server::start(&["--io", driver]);
        let mut wire = server.connect();
        assert_eq!(wire.ask(SET, b"large", &[b'v'; 32 << 10]).status, OK);
        let count = 600; // some 19 MiB: more than sockets hold
        let requests: Vec<u8> = (0..count).flat_map(|id| frame(GET, 0, b"large", b"", id, 0)).collect();
        wire.send(&requests);
        assert_eq!(wire.reply().id, 0);
        server.terminate();
        thread::sleep(Duration::from_millis(300));
        for id in 1..count {
            let reply = wire.try_reply().unwrap_or_else(|error| panic!("{driver}: reply {id} of {count}: {error}"));
            assert_eq!((reply.id, reply.status), (id, OK), "{driver}");
        }
        assert_eq!(server.wait(Duration::from_secs(10)).code(), Some(0), "{driver}");
    }
}

#[test]
fn a_server_told_to_stop_leaves_though_clients_do_not() {
    if let Some(shards) = shard_counts().last() {
        let mut server = Server::start(&["--shards", shards]);
        let address = server.address;
        let busy: Vec<_> = (0..4)
            .map(|_| {
                let mut wire = server.connect();
                thread::spawn(move || {
                    let mut answered = 0u64;
                    loop {
                        wire.send_anyway(&frame(SET, 0, format!("{answered}").as_bytes(), b"value", 1, 0));
                        match wire.try_reply() {
                            Ok(reply) => assert_eq!(reply.status, OK),
                            Err(_) => return answered,
                        }
                        answered += 1;
                    }
                })
            })
            .collect();
        let idle: Vec<Wire> = (0..20).map(|_| server.connect()).collect();
        thread::sleep(Duration::from_millis(300));
        let started = Instant::now();
        server.terminate();
        assert_eq!(server.wait(PATIENCE).code(), Some(0), "{}", server.stderr());
        assert!(started.elapsed() < Duration::from_secs(15), "leaving took {:?}", started.elapsed());
        for client in busy {
            assert!(client.join().unwrap() > 0, "a client was never served");
        }
        drop(idle);
        assert!(std::net::TcpStream::connect(address).is_err(), "somebody still listens");
    }
}

#[test]
fn a_second_signal_does_not_wait() {
    let mut server = Server::start(&[]);
    let _idle: Vec<Wire> = (0..5).map(|_| server.connect()).collect();
    server.terminate();
    server.terminate();
    assert_eq!(server.wait(Duration::from_secs(10)).code(), Some(0), "{}", server.stderr());
}

#[test]
fn a_hangup_signal_is_no_reason_to_leave() {
    let mut server = Server::start(&[]);
    signal(server.pid(), "HUP");
    thread::sleep(Duration::from_millis(300));
    server.assert_serves();
}
