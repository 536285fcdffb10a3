//! Peers who break the protocol, ask for what nobody can hold, or stop halfway: they are told so or closed, the server
//! keeps to its memory, and those who behave beside them notice nothing.

mod common;

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use common::resp::{Resp, Value, encode, hello3, listener};
use common::{PATIENCE, Server, shard_counts};
use spinetail::base::prng::Prng;

const MEMORY_BYTES: u64 = 64 << 20;
/// Generous: these machines are shared, and the bad clients' own threads have no core to themselves.
const GOOD_P99_MAX: Duration = Duration::from_millis(250);
const LARGE_BYTES: usize = 100_000;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Protocol {
    Resp,
    Memcached,
}

const PROTOCOLS: [Protocol; 2] = [Protocol::Resp, Protocol::Memcached];

impl Protocol {
    fn name(self) -> &'static str {
        if self == Protocol::Resp { "resp" } else { "memcached" }
    }

    fn set(self, key: &str, value: &[u8]) -> Vec<u8> {
        match self {
            Protocol::Resp => command(&[b"SET", key.as_bytes(), value]),
            Protocol::Memcached => [format!("set {key} 0 0 {}\r\n", value.len()).as_bytes(), value, b"\r\n"].concat(),
        }
    }

    fn get(self, key: &str) -> Vec<u8> {
        match self {
            Protocol::Resp => command(&[b"GET", key.as_bytes()]),
            Protocol::Memcached => format!("get {key}\r\n").into_bytes(),
        }
    }

    fn stored(self) -> &'static [u8] {
        if self == Protocol::Resp { b"+OK\r\n" } else { b"STORED\r\n" }
    }

    fn found(self, key: &str, value: &[u8]) -> Vec<u8> {
        match self {
            Protocol::Resp => [format!("${}\r\n", value.len()).as_bytes(), value, b"\r\n"].concat(),
            Protocol::Memcached => {
                [format!("VALUE {key} 0 {}\r\n", value.len()).as_bytes(), value, b"\r\nEND\r\n"].concat()
            }
        }
    }

    /// Whether a line says that something was wrong.
    fn is_error(self, line: &str) -> bool {
        match self {
            Protocol::Resp => ["-ERR ", "-OOM "].iter().any(|it| line.starts_with(it)) && line.trim_end().len() > 8,
            Protocol::Memcached => ["ERROR", "CLIENT_ERROR ", "SERVER_ERROR "].iter().any(|it| line.starts_with(it)),
        }
    }
}

fn command(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(words, &mut bytes);
    bytes
}

// --- Good company and bad ----------------------------------------------------------------------

/// What a bad client has in front of it.
struct Field {
    protocol: Protocol,
    server: Server,
    address: SocketAddr,
}

impl Field {
    fn bad(&self) -> Bad {
        let stream = TcpStream::connect_timeout(&self.address, PATIENCE).expect("the server accepts");
        // A peer that was closed while its window was shut may wait a minute for the reset.
        stream.set_write_timeout(Some(Duration::from_secs(3))).unwrap();
        Bad { protocol: self.protocol, stream: BufReader::new(stream) }
    }

    fn resp(&self) -> Resp {
        Resp::connect(self.address)
    }

    /// Stores values of which a few fill the memory for replies.
    fn store_large(&self) {
        let mut bad = self.bad();
        for number in 0..4 {
            assert!(bad.send(&self.protocol.set(&format!("large{number}"), &vec![b'x'; LARGE_BYTES])));
            let mut stored = vec![0; self.protocol.stored().len()];
            bad.stream.read_exact(&mut stored).unwrap();
            assert_eq!(stored, self.protocol.stored());
        }
    }
}

/// Somebody who does not behave.
struct Bad {
    protocol: Protocol,
    stream: BufReader<TcpStream>,
}

impl Bad {
    /// Sends as much as is taken. Answers whether that was all.
    fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.get_mut().write_all(bytes).is_ok()
    }

    /// Sends what is taken at once. Answers how much that is.
    fn send_some(&mut self, bytes: &[u8]) -> usize {
        self.stream.get_ref().set_nonblocking(true).unwrap();
        let written = self.stream.get_mut().write(bytes);
        self.stream.get_ref().set_nonblocking(false).unwrap();
        written.unwrap_or(0)
    }

    /// Whether the other end is closed, found out without reading.
    fn is_gone(&mut self) -> bool {
        self.stream.get_ref().set_nonblocking(true).unwrap();
        let written = self.stream.get_mut().write(b" ");
        self.stream.get_ref().set_nonblocking(false).unwrap();
        written.is_err_and(|error| error.kind() != ErrorKind::WouldBlock)
    }

    /// Whether the server has closed or has said something, found out without sending: that would be a sign of life.
    fn is_answered(&mut self) -> bool {
        self.stream.get_ref().set_nonblocking(true).unwrap();
        let peeked = self.stream.get_ref().peek(&mut [0]);
        self.stream.get_ref().set_nonblocking(false).unwrap();
        !peeked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }

    /// The first line that comes, or `None` if the server has closed; who is neither told nor closed fails.
    fn told(&mut self, at_most: Duration) -> Option<String> {
        self.stream.get_ref().set_read_timeout(Some(at_most)).unwrap();
        let mut line = Vec::new();
        match self.stream.read_until(b'\n', &mut line) {
            Ok(0) => None,
            Ok(_) => Some(String::from_utf8_lossy(&line).into_owned()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("after {at_most:?} the bad client is neither told anything nor closed")
            }
            Err(_) => None,
        }
    }

    /// Whether it is told that something is wrong, or closed.
    fn assert_refused(&mut self) {
        if let Some(line) = self.told(Duration::from_secs(3)) {
            assert!(self.protocol.is_error(&line), "no error: {line}");
        }
    }
}

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Latencies mean nothing while another test runs beside.
fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets four good clients work while `bad` does what it does, and checks what they and the server make of it. Answers how
/// long the longest of their requests took.
fn beside_good_clients(protocol: Protocol, told: &str, bad: impl FnOnce(&Field)) -> Duration {
    let told = format!("{}: {told}", protocol.name());
    let shards = *shard_counts().last().expect("one at least");
    let flag = format!("--{}", protocol.name());
    let server = Server::start(&["--shards", shards, "--memory", "64MiB", &flag, "127.0.0.1:0"]);
    let address = listener(&server, protocol.name()).expect("a listener");
    let mut field = Field { protocol, server, address };
    let is_over = AtomicBool::new(false);
    let mut took: Vec<Duration> = thread::scope(|scope| {
        let good: Vec<_> = (0..4)
            .map(|number| {
                let (is_over, told) = (&is_over, &told);
                scope.spawn(move || work(protocol, address, number, is_over, told))
            })
            .collect();
        let started = Instant::now();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| bad(&field)));
        thread::sleep(Duration::from_millis(400).saturating_sub(started.elapsed()));
        is_over.store(true, Ordering::Relaxed);
        let took = good.into_iter().flat_map(|good| good.join().expect("a good client is served")).collect();
        if outcome.is_err() {
            panic!("{told}: what the bad client met is above");
        }
        took
    });
    took.sort_unstable();
    let (p99, worst) = (took[took.len() * 99 / 100], took[took.len() - 1]);
    let most = field.server.rss_bytes_max();
    println!("{told}: {} good requests, p99 {p99:?}, worst {worst:?}, {} MiB", took.len(), most >> 20);
    assert!(took.len() > 20, "{told}: only {} good requests", took.len());
    assert!(p99 < GOOD_P99_MAX, "{told}: p99 of good clients is {p99:?}");
    // What eight hundred connections' buffers keep is not counted to the byte.
    assert!(most <= MEMORY_BYTES + MEMORY_BYTES / 8, "{told}: {most} bytes were resident under --memory 64MiB");
    field.server.assert_serves();
    worst
}

/// A good client, until it is over: how long each of its requests took.
fn work(protocol: Protocol, address: SocketAddr, number: usize, is_over: &AtomicBool, told: &str) -> Vec<Duration> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).expect("the server accepts");
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut took = Vec::new();
    let mut ask = |request: &[u8], expected: &[u8]| {
        let started = Instant::now();
        stream.write_all(request).unwrap_or_else(|error| panic!("{told}: a good client is closed: {error}"));
        let mut reply = vec![0; expected.len()];
        let read = stream.read_exact(&mut reply);
        read.unwrap_or_else(|error| panic!("{told}: a good client gets no reply: {error}"));
        assert!(reply == expected, "{told}: a good client is told {:?}", String::from_utf8_lossy(&reply));
        took.push(started.elapsed());
    };
    let mut round = 0;
    while !is_over.load(Ordering::Relaxed) {
        let (key, value) = (format!("good{number}.{}", round % 16), format!("value {round}"));
        ask(&protocol.set(&key, value.as_bytes()), protocol.stored());
        ask(&protocol.get(&key), &protocol.found(&key, value.as_bytes()));
        round += 1;
        thread::sleep(Duration::from_micros(300));
    }
    took
}

// --- What is wrong ------------------------------------------------------------------------------

fn random_bytes(seed: u64, count: usize) -> Vec<u8> {
    let mut prng = Prng::new(seed);
    (0..count).map(|_| prng.next_u64() as u8).collect()
}

/// What breaks a protocol's rules, by name.
fn breaches(protocol: Protocol) -> Vec<(&'static str, Vec<u8>)> {
    let mut all = vec![
        ("a megabyte without a newline", vec![b'a'; 1 << 20]),
        ("a megabyte of zeros", vec![0; 1 << 20]),
        ("binary garbage", random_bytes(1, 1 << 20)),
        ("more binary garbage", random_bytes(2, 1 << 20)),
        ("a TLS greeting", [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &random_bytes(3, 500), b"\r\n"].concat()),
        ("a web browser", b"GET / HTTP/1.1\r\nHost: here\r\nAccept: */*\r\n\r\n".to_vec()),
    ];
    match protocol {
        Protocol::Resp => {
            let half_a_gib = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$536870912\r\n";
            all.extend([
                ("a thousand million words", b"*1000000000\r\n$1\r\na\r\n".to_vec()),
                ("more words than numbers have", b"*99999999999999999999\r\n".to_vec()),
                ("a word of negative length", b"*1\r\n$-5\r\n*1\r\n$4\r\nPING\r\n".to_vec()),
                ("a negative length by itself", b"$-5\r\n".to_vec()),
                ("half a GiB announced, 8 MiB sent", [&half_a_gib[..], &vec![b'x'; 8 << 20]].concat()),
                ("half a GiB as a key", b"*2\r\n$3\r\nGET\r\n$536870912\r\nabc".to_vec()),
                ("half a GiB before another word", b"*3\r\n$3\r\nSET\r\n$536870912\r\nabc".to_vec()),
                ("a key of a megabyte", command(&[b"SET", &vec![b'k'; 1 << 20], b"v"])),
                ("a length that is no number", b"*2\r\n$3x\r\nGET\r\n$1\r\nk\r\n".to_vec()),
                ("a word that ends elsewhere", b"*2\r\n$3\r\nGETTT\r\n$1\r\nk\r\n".to_vec()),
                ("pushes within pushes", b">1\r\n".repeat(100_000)),
                ("arrays within arrays", b"*1\r\n".repeat(100_000)),
                ("a map within a command", b"*2\r\n$3\r\nGET\r\n%1\r\n$1\r\nk\r\n".to_vec()),
                ("quotes that do not end", b"SET k \"value\r\n".to_vec()),
                ("a browser that posts", b"POST / HTTP/1.1\r\nHost: here\r\n\r\nFLUSHALL\r\n".to_vec()),
                ("a value grown to half a GiB", command(&[b"SETRANGE", b"k", b"536870911", b"x"])),
                ("a bit half a GiB away", command(&[b"SETBIT", b"k", b"4294967295", b"1"])),
                ("a script nobody knows", command(&[b"EVAL", &vec![b'-'; 60_000], b"0"])),
            ]);
        }
        Protocol::Memcached => {
            let half_a_gib = b"set k 0 0 536870912\r\n";
            let many = (0..200_000).map(|number| format!(" k{number}")).collect::<String>();
            all.extend([
                ("half a GiB announced, 8 MiB sent", [&half_a_gib[..], &vec![b'x'; 8 << 20]].concat()),
                ("half a GiB by meta command", [&b"ms k 536870912\r\n"[..], &vec![b'x'; 1 << 20]].concat()),
                ("a value of negative length", b"set k 0 0 -5\r\nabc\r\n".to_vec()),
                ("a length beyond numbers", b"set k 0 0 99999999999999999999\r\nabc\r\n".to_vec()),
                ("a value that ends elsewhere", b"set k 0 0 1\r\nabc\r\n".to_vec()),
                ("a key of a kilobyte", format!("get {}\r\n", "k".repeat(1000)).into_bytes()),
                ("the binary protocol", [&[0x80, 0, 0, 1][..], &[0; 20], b"k"].concat()),
                ("flags nobody knows", b"mg k ! @ # $\r\n".to_vec()),
                ("a thousand flags", format!("mg k{}\r\n", " v".repeat(1000)).into_bytes()),
                ("two hundred thousand keys without a newline", format!("get{many}").into_bytes()),
                ("empty lines", b"\r\n".repeat(100_000)),
            ]);
        }
    }
    all
}

#[test]
fn whoever_breaks_the_protocol_is_told_so_or_closed() {
    let _alone = alone();
    for protocol in PROTOCOLS {
        for (name, bytes) in breaches(protocol) {
            beside_good_clients(protocol, name, |field| {
                for round in 0..3 {
                    // At once, in pieces, and with nothing to follow.
                    let mut bad = field.bad();
                    match round {
                        0 => _ = bad.send(&bytes),
                        1 => _ = bytes.chunks(bytes.len() / 5 + 1).all(|piece| bad.send(piece)),
                        _ => {
                            bad.send(&bytes);
                            let _ = bad.stream.get_ref().shutdown(Shutdown::Write);
                        }
                    }
                    bad.assert_refused();
                }
            });
        }
    }
}

#[test]
fn a_command_of_very_many_words_stays_within_memory() {
    let _alone = alone();
    for count in [30_000, 50_000, 1 << 20] {
        beside_good_clients(Protocol::Resp, &format!("MGET of {count} keys of a byte"), |field| {
            let words: Vec<Vec<u8>> = vec![b"a".to_vec(); count - 1];
            let mut bytes = Vec::new();
            encode(&[&[b"MGET".to_vec()], &words[..]].concat(), &mut bytes);
            let mut bad = field.bad();
            bad.send(&bytes);
            let told = bad.told(Duration::from_secs(3)).unwrap_or_else(|| "closed".into());
            println!("{}", told.trim_end());
            assert!(told == format!("*{}\r\n", count - 1) || told == "closed" || told.starts_with('-'), "{told}");
        });
    }
}

#[test]
fn values_of_a_refused_command_are_not_taken_for_commands() {
    let _alone = alone();
    for protocol in PROTOCOLS {
        beside_good_clients(protocol, "commands within values too large to be kept", |field| {
            let smuggled = protocol.set("smuggled", b"yes");
            for value_bytes in [LARGE_BYTES, 10_000, 1_000_000] {
                let inline = if protocol == Protocol::Resp { &b"\r\nSET smuggled yes\r\n"[..] } else { b"\r\n" };
                let line = [inline, &smuggled].concat();
                let value = line.repeat(value_bytes / line.len());
                let bytes = match protocol {
                    // More than the memory for requests, and no word of it too long.
                    Protocol::Resp => {
                        let count = 3_000_000 / value_bytes;
                        let mut words = vec![b"MSET".to_vec()];
                        (0..count).for_each(|number| words.extend([format!("k{number}").into_bytes(), value.clone()]));
                        let mut bytes = Vec::new();
                        encode(&words, &mut bytes);
                        bytes
                    }
                    Protocol::Memcached => protocol.set("k", &value).repeat(30),
                };
                let mut bad: Vec<Bad> = (0..4).map(|_| field.bad()).collect();
                bad.iter_mut().for_each(|bad| {
                    let mut stream = bad.stream.get_ref().try_clone().unwrap();
                    let bytes = bytes.clone();
                    let sender = thread::spawn(move || _ = stream.write_all(&bytes));
                    // What is answered is passed over, until all is sent and nothing comes any more.
                    bad.stream.get_ref().set_read_timeout(Some(Duration::from_millis(300))).unwrap();
                    let mut some = vec![0; 64 << 10];
                    loop {
                        match bad.stream.read(&mut some) {
                            Ok(1..) => {}
                            Err(error) if error.kind() == ErrorKind::WouldBlock && !sender.is_finished() => {}
                            _ => break,
                        }
                    }
                    let _ = bad.stream.get_ref().shutdown(Shutdown::Both);
                    let _ = sender.join();
                });
                let mut honest = field.bad();
                honest.send(&protocol.get("smuggled"));
                let told = honest.told(PATIENCE).expect("a reply");
                assert!(["$-1\r\n", "END\r\n"].contains(&told.as_str()), "a value was taken for a command: {told}");
            }
        });
    }
}

#[test]
fn what_is_sent_without_ever_reading_the_replies_is_borne() {
    let _alone = alone();
    flood(Protocol::Resp, "many small requests", b"", b"PING\r\n");
    flood(Protocol::Memcached, "many small requests", b"", b"version\r\n");
    flood(Protocol::Memcached, "requests without a reply", b"", b"verbosity 0 noreply\r\n");
}

#[test]
fn requests_that_ask_nothing_take_no_more_than_their_turn() {
    let _alone = alone();
    flood(Protocol::Resp, "requests that ask nothing", b"", b"*-1\r\n*0\r\n\r\n");
}

#[test]
#[ignore = "while others fill the mailbox of a shard, a request may wait for seconds until it gets its place"]
fn floods_of_writes_without_replies_keep_nobody_waiting() {
    let _alone = alone();
    for _ in 0..3 {
        let off = b"CLIENT REPLY OFF\r\n";
        for worst in [
            flood(Protocol::Memcached, "SETs without a reply", b"", b"set k 0 0 1 noreply\r\nx\r\n"),
            flood(Protocol::Resp, "SETs without a reply", off, b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nx\r\n"),
        ] {
            assert!(worst < Duration::from_secs(1), "a good client has waited for {worst:?}");
        }
    }
}

/// Eight clients send `first`, then the same as fast as it is taken, and never read.
fn flood(protocol: Protocol, name: &str, first: &[u8], bytes: &[u8]) -> Duration {
    beside_good_clients(protocol, name, |field| {
        let mut bad: Vec<Bad> = (0..8).map(|_| field.bad()).collect();
        bad.iter_mut().for_each(|bad| assert!(bad.send(first)));
        let (bytes, mut sent) = (bytes.repeat(20_000), vec![0; bad.len()]);
        let started = Instant::now();
        while started.elapsed() < Duration::from_millis(700) {
            for (bad, sent) in bad.iter_mut().zip(&mut sent) {
                *sent = (*sent + bad.send_some(&bytes[*sent..])) % bytes.len();
            }
            // The cores are the server's and the good clients' too.
            thread::sleep(Duration::from_millis(2));
        }
    })
}

#[test]
fn whoever_asks_for_large_values_and_reads_nothing_is_shed() {
    let _alone = alone();
    for protocol in PROTOCOLS {
        beside_good_clients(protocol, "GETs of large values, unread", |field| {
            field.store_large();
            let mut bad: Vec<Bad> = (0..20).map(|_| field.bad()).collect();
            let bytes: Vec<u8> = (0..2000).flat_map(|number| protocol.get(&format!("large{}", number % 4))).collect();
            bad.iter_mut().for_each(|bad| _ = bad.send_some(&bytes));
            let started = Instant::now();
            while !bad.iter_mut().all(Bad::is_gone) {
                assert!(started.elapsed() < Duration::from_secs(20), "somebody who reads nothing is still there");
                thread::sleep(Duration::from_millis(100));
            }
            println!("all shed after {:?}", started.elapsed());
        });
    }
}

#[test]
fn whoever_stops_in_the_middle_of_a_request_is_closed() {
    let _alone = alone();
    for protocol in PROTOCOLS {
        beside_good_clients(protocol, "requests half sent, and byte by byte", |field| {
            let small = protocol.set("half", b"the rest of which does not come");
            let large = protocol.set("half", &[b'x'; 90_000]);
            let mut half: Vec<Bad> = (0..1200).map(|_| field.bad()).collect();
            for (number, bad) in half.iter_mut().enumerate() {
                let bytes = if number % 3 == 0 { &large[..60_000] } else { &small[..1 + number % (small.len() - 1)] };
                bad.send_some(bytes);
            }
            // Meanwhile some send a byte now and then.
            let mut slow: Vec<Bad> = (0..100).map(|_| field.bad()).collect();
            let started = Instant::now();
            let mut sent = 0;
            while !half.iter_mut().all(Bad::is_answered) {
                assert!(started.elapsed() < Duration::from_secs(20), "somebody who stopped halfway is still there");
                slow.iter_mut().for_each(|bad| _ = bad.send_some(&[small[sent % small.len()]]));
                sent += 1;
                thread::sleep(Duration::from_millis(100));
            }
            println!("all closed after {:?}", started.elapsed());
        });
    }
}

#[test]
fn more_connections_than_fit_are_closed() {
    let _alone = alone();
    for protocol in PROTOCOLS {
        beside_good_clients(protocol, "6,000 connections", |field| {
            let mut bad: Vec<Bad> = (0..6000).map(|_| field.bad()).collect();
            let gone = || bad.iter_mut().map(|bad| usize::from(bad.is_gone())).sum::<usize>() > 1000;
            assert!(common::eventually(PATIENCE, gone), "6,000 connections fit into 64 MiB");
        });
    }
}

// --- What clients of RESP may leave behind ---------------------------------------------------------

/// Asks until it is refused or closed, `most` times at most. Answers how often it was not.
fn until_refused(client: &mut Resp, most: usize, mut ask: impl FnMut(usize, &mut Resp)) -> usize {
    for number in 0..most {
        ask(number, client);
        match client.next() {
            Ok(Value::Error(why)) => {
                println!("refused after {number}: {why}");
                return number;
            }
            Err(why) => {
                println!("closed after {number}: {why}");
                return number;
            }
            Ok(_) => {}
        }
    }
    most
}

#[test]
fn commands_queued_for_exec_stay_within_memory() {
    let _alone = alone();
    beside_good_clients(Protocol::Resp, "100 transactions of a megabyte each", |field| {
        let value = vec![b'x'; 50_000];
        let mut clients: Vec<Resp> = (0..100).map(|_| field.resp()).collect();
        for client in &mut clients {
            until_refused(client, 30, |number, client| match number {
                0 => _ = client.send_raw(b"MULTI\r\n"),
                _ => _ = client.send_raw(&command(&[b"SET", b"queued", &value])),
            });
        }
    });
}

#[test]
fn channels_listened_to_stay_within_memory() {
    let _alone = alone();
    beside_good_clients(Protocol::Resp, "subscriptions to long names", |field| {
        for kind in ["SUBSCRIBE", "PSUBSCRIBE"] {
            let mut clients: Vec<Resp> = (0..4).map(|_| field.resp()).collect();
            for (client, mark) in clients.iter_mut().zip(0..) {
                until_refused(client, 400, |number, client| {
                    let name = format!("{mark}.{number}.{}", "n".repeat(50_000));
                    let _ = client.send_raw(&command(&[kind.as_bytes(), name.as_bytes()]));
                });
            }
        }
    });
}

#[test]
fn watched_keys_stay_within_memory() {
    let _alone = alone();
    beside_good_clients(Protocol::Resp, "200 clients that watch a thousand long keys", |field| {
        let keys: Vec<Vec<u8>> = (0..1000).map(|number| format!("{number:01000}").into_bytes()).collect();
        let mut clients: Vec<Resp> = (0..200).map(|_| field.resp()).collect();
        for client in &mut clients {
            until_refused(client, 20, |number, client| {
                let mut words = vec![b"WATCH".to_vec()];
                words.extend_from_slice(&keys[number * 50..number * 50 + 50]);
                let mut bytes = Vec::new();
                encode(&words, &mut bytes);
                let _ = client.send_raw(&bytes);
            });
        }
    });
}

#[test]
fn prefixes_that_are_broadcast_stay_within_memory() {
    let _alone = alone();
    beside_good_clients(Protocol::Resp, "prefixes of 50 kB", |field| {
        let mut client = hello3(field.resp());
        until_refused(&mut client, 1000, |number, client| {
            let prefix = format!("{number:050000}");
            let words = ["CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", &prefix].map(str::as_bytes);
            let _ = client.send_raw(&command(&words));
        });
    });
}

#[test]
fn what_tracking_clients_have_read_stays_within_memory() {
    let _alone = alone();
    beside_good_clients(Protocol::Resp, "800 clients that track 2,000 keys", |field| {
        let mut clients: Vec<Resp> = (0..800).map(|_| hello3(field.resp())).collect();
        let names: Vec<String> = (0..2000).map(|number| format!("read{number}")).collect();
        for client in &mut clients {
            client.add_line("CLIENT TRACKING ON");
            for names in names.chunks(500) {
                client.add(&[&["MGET".to_string()], names].concat());
            }
            client.flush();
            for _ in 0..=names.len() / 500 {
                client.reply();
            }
        }
    });
}

/// 200 MB in one reply: all of it, an error for the whole or for each that is too much, or the end.
fn ask_for_200_mb(is_transaction: bool) {
    let name = if is_transaction { "EXEC of 200 MB" } else { "MGET of 200 MB" };
    beside_good_clients(Protocol::Resp, name, |field| {
        field.store_large();
        let mut client = field.resp();
        let keys: Vec<String> = (0..2000).map(|number| format!("large{}", number % 4)).collect();
        if is_transaction {
            client.add_line("MULTI");
            keys.iter().for_each(|key| client.add(&["GET", key]));
            client.add_line("EXEC");
            client.flush();
            (0..=keys.len()).for_each(|_| assert!(!client.reply().is_error()));
        } else {
            client.add(&[&["MGET".to_string()], &keys[..]].concat());
            client.flush();
        }
        client.stream().set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        match client.try_reply() {
            Ok(Value::Error(why)) => println!("refused: {why}"),
            Ok(reply) => {
                let refused = reply.elements().iter().filter(|element| element.is_error()).count();
                println!("served, {refused} of {} refused", keys.len());
                assert_eq!(reply.elements().len(), keys.len());
            }
            Err(error) => {
                let is_closed = !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
                assert!(is_closed, "neither served nor refused nor closed");
            }
        }
    });
}

#[test]
fn transactions_that_read_200_mb_stay_within_memory() {
    let _alone = alone();
    (0..3).for_each(|_| ask_for_200_mb(true));
}

#[test]
fn mgets_of_200_mb_stay_within_memory() {
    let _alone = alone();
    (0..3).for_each(|_| ask_for_200_mb(false));
}

#[test]
fn messages_to_many_who_read_nothing_stay_within_memory() {
    let _alone = alone();
    beside_good_clients(Protocol::Resp, "messages of 100 kB to 300 who read nothing", |field| {
        let mut lazy: Vec<Resp> = (0..300).map(|_| field.resp()).collect();
        lazy.iter_mut().for_each(|client| assert_eq!(client.say("SUBSCRIBE flood"), "[subscribe flood :1]"));
        let (mut sender, text) = (field.resp(), vec![b'x'; LARGE_BYTES]);
        let started = Instant::now();
        until_refused(&mut sender, 20, |_, client| _ = client.send_raw(&command(&[b"PUBLISH", b"flood", &text])));
        println!("20 messages in {:?}", started.elapsed());
    });
}

#[test]
fn a_pattern_that_takes_for_ever_to_match_takes_nobodys_time() {
    let _alone = alone();
    beside_good_clients(Protocol::Resp, "a pattern of many stars", |field| {
        let mut client = field.resp();
        for number in 0..200 {
            client.ask_words(&["SET", &format!("{}{number}", "a".repeat(900)), "x"]);
        }
        let pattern = format!("{}b", "a*".repeat(400));
        for _ in 0..5 {
            assert_eq!(client.say(&format!("KEYS {pattern}")), "[]");
            client.ask(&format!("SCAN 0 MATCH {pattern} COUNT 1000"));
        }
    });
    beside_good_clients(Protocol::Resp, "a long pattern that nearly matches a long channel", |field| {
        let mut listener = field.resp();
        // Refused is as good.
        listener.ask(&format!("PSUBSCRIBE *{}b", "a".repeat(50_000)));
        let mut client = field.resp();
        for _ in 0..5 {
            client.ask_words(&["PUBLISH", &"a".repeat(100_000), "x"]);
        }
    });
}
