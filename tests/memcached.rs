//! memcached's protocol against a server of two shards: the same answers as from one, whatever the splits.

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use common::{PATIENCE, Server, eventually, two_shards_fit};
use spinetail::base::prng::Prng;

/// A server of so many shards, and where it speaks memcached.
fn server(shards: &str) -> (Server, SocketAddr) {
    let server = Server::start(&["--shards", shards, "--memcached", "127.0.0.1:0"]);
    let address = server.ready.split_whitespace().find_map(|word| word.strip_prefix("memcached=")?.parse().ok());
    let address = address.unwrap_or_else(|| panic!("no memcached listener in '{}'", server.ready));
    (server, address)
}

/// Sends a stream in the pieces that `pieces` gives the lengths of, and returns all that comes.
fn converse(address: SocketAddr, stream: &[u8], mut pieces: impl FnMut() -> usize) -> Vec<u8> {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_nodelay(true).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut sender = socket.try_clone().unwrap();
    let mut chunks = Vec::new();
    let mut rest = stream;
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(pieces().clamp(1, rest.len()));
        chunks.push(piece.to_vec());
        rest = behind;
    }
    let sending = std::thread::spawn(move || {
        chunks.iter().for_each(|chunk| sender.write_all(chunk).unwrap());
        sender.shutdown(Shutdown::Write).unwrap();
    });
    let mut answered = Vec::new();
    socket.read_to_end(&mut answered).unwrap();
    sending.join().unwrap();
    answered
}

/// A stream of commands about few keys, many of them about several.
fn stream(prng: &mut Prng, commands: usize) -> Vec<u8> {
    let mut stream = Vec::new();
    for _ in 0..commands {
        let mut key = || format!("key-{}", prng.below(12));
        let (key, other, third) = (key(), key(), key());
        let value_bytes_max = if prng.below(20) == 0 { 5000 } else { 20 };
        let value = "v".repeat(prng.below(value_bytes_max) as usize);
        let length = value.len();
        let text = match prng.below(24) {
            0..4 => format!("set {key} {length} 0 {length}\r\n{value}\r\n"),
            4 => format!("set {key} 0 0 {length} noreply\r\n{value}\r\n"),
            5 => format!("append {key} 0 0 {length}\r\n{value}\r\n"),
            6 => format!("delete {key}\r\n"),
            7 => format!("delete {key} noreply\r\n"),
            8..12 => format!("get {key} {other} missing {third} {key}\r\n"),
            12 => format!("gat 1000 {key} {other}\r\n"),
            13 => format!("incr {key} 5\r\n"),
            14 => format!("set {key} 0 0 2\r\n17\r\ndecr {key} 9\r\n"),
            15 => format!("mg {key} v s f t k Oabc\r\nmg {other} v q\r\nmn\r\n"),
            16 => format!("ms {key} {length} T500 F3 k\r\n{value}\r\n"),
            17 => format!("ms a2V5LTM= {length} b k\r\n{value}\r\nmg a2V5LTQ= b v k q\r\nmd a2V5LTU= b q\r\n"),
            18 => format!("ma {key} N0 J7 v\r\n"),
            19 => format!("set {key} 0 0 2000000\r\n{}\r\nget {key}\r\n", "x".repeat(2_000_000)),
            20 if prng.below(4) == 0 => "flush_all\r\n".to_string(),
            21 if prng.below(4) == 0 => "flush_all noreply\r\n".to_string(),
            22 => format!("bogus\r\nget {}\r\nset {key} 0 0 1\r\nxx\r\n", "k".repeat(300)),
            _ => format!("get {key}\r\n"),
        };
        stream.extend_from_slice(text.as_bytes());
    }
    stream
}

#[test]
fn two_shards_answer_as_one_does_however_a_stream_is_cut() {
    if !two_shards_fit() {
        return;
    }
    let ((_one, one), (two_server, two)) = (server("1"), server("2"));
    let mut prng = Prng::new(3);
    for round in 0..6 {
        let stream = [b"flush_all\r\n".to_vec(), stream(&mut prng, 400)].concat();
        let expected = converse(one, &stream, || usize::MAX);
        let answered = match round % 3 {
            0 => converse(two, &stream, || usize::MAX),
            1 => converse(two, &stream, || 1 + prng.below(100_000) as usize),
            // The last bytes of each piece begin something.
            _ => converse(two, &stream, || 1000),
        };
        let differs = expected.iter().zip(&answered).position(|(one, two)| one != two);
        let differs = differs.or((expected.len() != answered.len()).then_some(expected.len().min(answered.len())));
        if let Some(at) = differs {
            let around = |bytes: &[u8]| {
                let (from, to) = (at.saturating_sub(60).min(bytes.len()), (at + 60).min(bytes.len()));
                String::from_utf8_lossy(&bytes[from..to]).into_owned()
            };
            panic!("round {round}, byte {at}:\n  one: {:?}\n  two: {:?}", around(&expected), around(&answered));
        }
    }
    assert!(two_server.counter("forwarded_out") > 500, "nothing was forwarded");
}

/// More than the buffers of the connection, of the shards and of the mailboxes hold.
#[test]
fn a_retrieval_of_many_large_values_is_answered_to_a_slow_reader() {
    if !two_shards_fit() {
        return;
    }
    let (server, address) = server("2");
    let value = "v".repeat(100_000);
    let stored: String = (0..8).map(|key| format!("set key-{key} 0 0 100000 noreply\r\n{value}\r\n")).collect();
    assert_eq!(converse(address, format!("{stored}mn\r\n").as_bytes(), || usize::MAX), b"MN\r\n");
    let keys: String = (0..600).map(|number| format!(" key-{}", number % 8)).collect();
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.write_all(format!("get{keys}\r\nmn\r\n").as_bytes()).unwrap();
    let expected: usize = (0..600).map(|_| "VALUE key-0 0 100000\r\n\r\n".len() + 100_000).sum();
    let mut answered = vec![0; expected + b"END\r\nMN\r\n".len()];
    let mut at = 0;
    while at < answered.len() {
        if at < 2_000_000 {
            std::thread::sleep(Duration::from_millis(5));
        }
        let end = (at + 64_000).min(answered.len());
        let read = socket.read(&mut answered[at..end]).unwrap();
        assert!(read > 0, "closed after {at} bytes");
        at += read;
    }
    assert!(answered.ends_with(b"\r\nEND\r\nMN\r\n"));
    for (number, block) in answered[..expected].chunks(expected / 600).enumerate() {
        assert!(block.starts_with(format!("VALUE key-{} 0 100000\r\n", number % 8).as_bytes()), "block {number}");
    }
    server.assert_within_memory(64 << 20);
}

#[test]
fn a_flush_that_was_named_a_moment_comes_then_and_everywhere() {
    let shards = if two_shards_fit() { "2" } else { "1" };
    let (_server, address) = server(shards);
    let stored: String = (0..20).map(|key| format!("set key-{key} 0 0 1 noreply\r\nx\r\n")).collect();
    let all: String = (0..20).map(|key| format!(" key-{key}")).collect();
    let get = format!("get{all}\r\n");
    let before = converse(address, format!("{stored}flush_all 1\r\n{get}").as_bytes(), || usize::MAX);
    assert_eq!(before.windows(5).filter(|window| window == b"VALUE").count(), 20);
    assert!(eventually(PATIENCE, || converse(address, get.as_bytes(), || usize::MAX) == b"END\r\n"));
    // Once, and not again and again.
    std::thread::sleep(Duration::from_millis(1100));
    let after = converse(address, format!("{stored}{get}").as_bytes(), || usize::MAX);
    assert_eq!(after.windows(5).filter(|window| window == b"VALUE").count(), 20);
}
