//! What carries requests beside native TCP: RESP, shared memory, and shards that sleep.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use spinetail::client::{Client, Endpoint};

use crate::common::{PATIENCE, Server, eventually};

fn field(server: &Server, name: &str) -> String {
    let words = server.ready.split_whitespace();
    words.filter_map(|word| word.split_once('=')).find(|(key, _)| *key == name).expect("a field").1.to_string()
}

/// A path of this test's own.
fn door(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("spinetail-{name}-{}", std::process::id()))
}

fn say(stream: &mut TcpStream, text: &str, bytes: usize) -> String {
    stream.write_all(text.as_bytes()).unwrap();
    let mut reply = vec![0; bytes];
    stream.read_exact(&mut reply).unwrap();
    String::from_utf8(reply).unwrap()
}

#[test]
fn resp_is_answered_in_order_whichever_shard_owns_the_key() {
    for driver in ["io_uring", "epoll"] {
        let server = Server::start(&["--io", driver, "--shards", "2", "--resp", "127.0.0.1:0"]);
        let mut stream = TcpStream::connect(field(&server, "resp")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let sets: String = (0..300).map(|n| format!("SET key-{n} value-{n:04}\r\n")).collect();
        assert_eq!(say(&mut stream, &sets, 300 * 5), "+OK\r\n".repeat(300));
        let gets: String =
            (0..300).map(|n| format!("*2\r\n$3\r\nGET\r\n${}\r\nkey-{n}\r\n", format!("key-{n}").len())).collect();
        let expected: String = (0..300).map(|n| format!("$10\r\nvalue-{n:04}\r\n")).collect();
        assert_eq!(say(&mut stream, &gets, expected.len()), expected, "{driver}");
        assert_eq!(say(&mut stream, "INCR n\r\nINCR n\r\nTTL n\r\nGET none\r\n", 18), ":1\r\n:2\r\n:-1\r\n$-1\r\n");
        // What one protocol wrote, the other reads.
        let mut client = Client::connect(server.address).unwrap();
        assert_eq!(client.get(b"key-7").unwrap().unwrap().bytes, b"value-0007");
        assert_eq!(say(&mut stream, "FLUSHALL\r\nEXISTS key-7\r\n", 9), "+OK\r\n:0\r\n");
        assert_eq!(say(&mut stream, "*1\r\n$-1\r\n", 10), "-ERR Proto");
    }
}

#[test]
fn programs_of_this_host_use_the_server_through_shared_memory() {
    for poll in ["spin", "adaptive", "park"] {
        for driver in ["io_uring", "epoll"] {
            let path = door(&format!("shm-{poll}-{driver}"));
            let arguments = ["--io", driver, "--shards", "2", "--poll", poll, "--shm", path.to_str().unwrap()];
            let server = Server::start(&arguments);
            let mut client = Client::connect(Endpoint::Shm(path.clone())).unwrap();
            assert_eq!(client.shard_count(), 2);
            for number in 0..200u32 {
                client.set(&number.to_le_bytes(), format!("value {number}").as_bytes(), None).unwrap();
            }
            for number in 0..200u32 {
                let value = client.get(&number.to_le_bytes()).unwrap().unwrap();
                assert_eq!(value.bytes, format!("value {number}").as_bytes());
            }
            // A value larger than a ring comes in pieces.
            let large: Vec<u8> = (0..120_000u32).map(|n| n as u8).collect();
            client.set(b"large", &large, None).unwrap();
            assert!(client.get(b"large").unwrap().unwrap().bytes == large);
            // Once both ends sleep, either wakes the other.
            std::thread::sleep(Duration::from_millis(300));
            let asked = Instant::now();
            assert!(client.get(b"large").unwrap().is_some());
            assert!(asked.elapsed() < Duration::from_secs(1), "{poll}, {driver}: {:?}", asked.elapsed());
            // TCP beside it sees the same.
            assert!(Client::connect(server.address).unwrap().get(b"large").unwrap().is_some());
            drop(client);
            assert!(Client::connect(Endpoint::Shm(path.clone())).unwrap().get(b"large").unwrap().is_some());
            drop(server);
            let _ = std::fs::remove_file(&path); // a killed server leaves its door
        }
    }
}

#[test]
fn a_door_that_was_left_behind_is_opened_anew_and_one_in_use_is_not() {
    let path = door("door");
    let shm = ["--shm", path.to_str().unwrap()];
    let first = Server::start(&shm);
    let second = Server::try_start(&shm).err().expect("refused");
    assert_eq!(second.status, Some(1));
    assert!(second.stderr.contains("another program listens on --shm"), "{}", second.stderr);
    drop(first); // killed: its socket stays
    assert!(path.exists());
    let mut third = Server::start(&shm);
    assert!(Client::connect(Endpoint::Shm(path.clone())).is_ok());
    third.terminate();
    assert_eq!(third.wait(PATIENCE).code(), Some(0));
    assert!(!path.exists(), "a server that leaves takes its door along");
}

#[test]
fn more_programs_than_there_are_rings_are_refused_and_places_come_back() {
    let path = door("many");
    let server = Server::start(&["--shm", path.to_str().unwrap()]);
    let connect = || Client::connect(Endpoint::Shm(path.clone()));
    let clients: Vec<Client> = (0..16).map(|_| connect().unwrap()).collect();
    assert!(connect().is_err());
    drop(clients);
    assert!(eventually(PATIENCE, || connect().is_ok()));
    drop(server);
    let _ = std::fs::remove_file(&path);
}

#[test]
fn a_shard_that_sleeps_is_woken_by_whoever_comes() {
    for poll in ["adaptive", "park"] {
        for driver in ["io_uring", "epoll"] {
            let server = Server::start(&["--io", driver, "--poll", poll]);
            let mut client = Client::connect(server.address).unwrap();
            for _ in 0..5 {
                std::thread::sleep(Duration::from_millis(20));
                let asked = Instant::now();
                assert!(client.get(b"nothing").unwrap().is_none());
                assert!(asked.elapsed() < Duration::from_millis(90), "{poll}, {driver}: {:?}", asked.elapsed());
            }
        }
    }
}

/// Two megabytes at once to one connection, while another asks for little.
#[test]
fn large_replies_leave_in_pieces_and_whole() {
    for driver in ["io_uring", "epoll"] {
        let server = Server::start(&["--io", driver, "--memory", "256MiB"]);
        let mut client = Client::connect(server.address).unwrap();
        let large: Vec<u8> = (0..900_000u32).map(|n| (n >> 3) as u8).collect();
        client.set(b"large", &large, None).unwrap();
        let mut wires: Vec<_> = (0..4).map(|_| server.connect()).collect();
        for wire in &mut wires {
            for id in 0..5 {
                wire.send(&common::frame(common::GET, 0, b"large", b"", id, 0));
            }
        }
        assert!(client.get(b"large").unwrap().unwrap().bytes == large);
        for wire in &mut wires {
            for id in 0..5 {
                let reply = wire.reply();
                assert_eq!((reply.id, reply.value.len()), (id, large.len()), "{driver}");
                assert!(reply.value == large);
            }
        }
    }
}
