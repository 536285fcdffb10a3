//! Readers and servers are killed at any moment, under write load; every value that is read is checked.
//!
//! A board in a shared file says for each key which version was begun last and which was acknowledged last.
//! A reader takes the acknowledged one, looks up the key in shared memory, then takes the begun one: what it
//! has found must lie between the two, be of that key, and be whole. Values are of any length up to a spill
//! cell's, and made of key and version alone.
//!
//! `SPINETAIL_L0_KILLS=10000,200 cargo test --release --test l0_kills -- --nocapture` kills that many readers
//! and servers; without it, fewer.

mod common;

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use memmap2::{MmapOptions, MmapRaw};
use spinetail::base::hash::HashSeed;
use spinetail::base::prng::{Prng, mix};
use spinetail::client::Client;
use spinetail::client::l0::Table;
use spinetail::host::memory::PageWish;
use spinetail::host::shared::{SharedMemory, Writers};
use spinetail::l0::{Entry, Publisher, Reader, alive, layout, reports};

use crate::common::{Ended, PATIENCE, Scratch, Server, signal};

const KEYS: u64 = 32;

/// What all processes of a test see.
struct Board(MmapRaw);

/// What readers count on the board, after the keys' two words each.
#[derive(Clone, Copy)]
enum Count {
    Reads,
    Torn,
    Foreign,
    Stale,
    Future,
    /// Readers that have found something since they began.
    Reading,
    Lost,
}

impl Board {
    fn create(path: &str) -> Board {
        File::create(path).unwrap().set_len(4096).unwrap();
        Board::open(path)
    }

    fn open(path: &str) -> Board {
        let file = File::options().read(true).write(true).open(path).unwrap();
        Board(MmapOptions::new().map_raw(&file).unwrap())
    }

    #[expect(unsafe_code, reason = "words of a file that several processes map")]
    fn word(&self, at: usize) -> &AtomicU64 {
        assert!(at < 512);
        // SAFETY: the mapping is a page of words, touched by atomic operations only.
        unsafe { &*self.0.as_ptr().cast::<AtomicU64>().add(at) }
    }

    fn begun(&self, key: u64) -> &AtomicU64 {
        self.word(key as usize * 2)
    }

    fn acknowledged(&self, key: u64) -> &AtomicU64 {
        self.word(key as usize * 2 + 1)
    }

    fn count(&self, what: Count) -> &AtomicU64 {
        self.word(KEYS as usize * 2 + what as usize)
    }

    fn violations(&self) -> [u64; 4] {
        [Count::Torn, Count::Foreign, Count::Stale, Count::Future].map(|what| self.count(what).load(Ordering::SeqCst))
    }

    /// Looks up a key and judges what comes. Answers whether something came, or that the table's server is gone.
    fn check(&self, reader: &mut Reader, key: u64) -> Result<bool, spinetail::l0::Gone> {
        let floor = self.acknowledged(key).load(Ordering::SeqCst);
        let Some(found) = reader.get(&name(key))? else { return Ok(false) };
        let ceiling = self.begun(key).load(Ordering::SeqCst);
        let whose = found.get(..8).map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap()));
        let version = found.get(8..16).map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().unwrap()));
        let verdict = match whose {
            Some(whose) if found != value(whose, version) => Some(Count::Torn),
            Some(whose) if whose != key => Some(Count::Foreign),
            Some(_) if version < floor => Some(Count::Stale),
            Some(_) if version > ceiling => Some(Count::Future),
            Some(_) => None,
            None => Some(Count::Torn),
        };
        if let Some(what) = verdict {
            self.count(what).fetch_add(1, Ordering::SeqCst);
            eprintln!("key {key}: version {version} of {whose:?}, acknowledged {floor}, begun {ceiling}");
        }
        self.count(Count::Reads).fetch_add(1, Ordering::Relaxed);
        Ok(true)
    }
}

fn name(key: u64) -> Vec<u8> {
    format!("key-{key:012}").into_bytes()
}

fn value(key: u64, version: u64) -> Vec<u8> {
    let length = 16 + (mix(key ^ version << 7) % 500) as usize;
    let mut bytes: Vec<u8> = (0..length).map(|at| (mix(key ^ version << 9) >> (at % 8 * 8)) as u8).collect();
    bytes[..8].copy_from_slice(&key.to_le_bytes());
    bytes[8..16].copy_from_slice(&version.to_le_bytes());
    bytes
}

/// Writes and reads all keys through the appliance until told to stop; what fails with a killed server is tried
/// again with the next one, as a later version.
fn write_load(board: &Board, address: std::net::SocketAddr, stop: &AtomicBool) {
    let (mut prng, mut client) = (Prng::new(9), None);
    while !stop.load(Ordering::Relaxed) {
        let Some(writer) = &mut client else {
            client = Client::connect(address).ok();
            continue;
        };
        let key = prng.next_u64() % KEYS;
        let version = board.begun(key).load(Ordering::SeqCst) + 1;
        board.begun(key).store(version, Ordering::SeqCst);
        let done = match prng.next_u64() % 16 {
            0 => writer.delete(&name(key)).map(|_| ()),
            1 => writer.set(&name(key), &value(key, version), Some(Duration::from_millis(5))),
            _ => writer.set(&name(key), &value(key, version), None),
        };
        // Read a few times, so that it is published again.
        let read = done.is_ok() && (0..6).all(|_| writer.get(&name(prng.next_u64() % KEYS)).is_ok());
        if done.is_ok() {
            board.acknowledged(key).store(version, Ordering::SeqCst);
        }
        if !read {
            client = None;
        }
    }
}

/// A reader process: reads until it is killed.
#[test]
#[ignore = "a part of the next tests"]
fn a_reader() {
    let Ok(path) = std::env::var("SPINETAIL_L0_SOCKET") else { return };
    let board = Board::open(&std::env::var("SPINETAIL_L0_BOARD").unwrap());
    let mut prng = Prng::new(u64::from(std::process::id()));
    let mut has_read = false;
    loop {
        let Ok(mut table) = Table::open(Path::new(&path), "") else {
            thread::sleep(Duration::from_millis(1));
            continue;
        };
        loop {
            match board.check(&mut table.reader, prng.next_u64() % KEYS) {
                Ok(found) if found && !has_read => {
                    has_read = true;
                    board.count(Count::Reading).fetch_add(1, Ordering::SeqCst);
                }
                Ok(_) => {}
                Err(_) => {
                    board.count(Count::Lost).fetch_add(1, Ordering::SeqCst);
                    break;
                }
            }
        }
    }
}

/// A reader process, killed when it is dropped.
struct Spawned(Child);

impl Drop for Spawned {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn spawn_reader(scratch: &Scratch) -> Spawned {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "a_reader", "--ignored", "--nocapture"]);
    command.env("SPINETAIL_L0_SOCKET", scratch.file("l0")).env("SPINETAIL_L0_BOARD", scratch.file("board"));
    Spawned(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("a reader"))
}

/// How many readers and servers to kill.
fn kills() -> (u64, u64) {
    let Ok(text) = std::env::var("SPINETAIL_L0_KILLS") else { return (150, 10) };
    let (readers, servers) = text.split_once(',').expect("SPINETAIL_L0_KILLS=READERS,SERVERS");
    (readers.parse().unwrap(), servers.parse().unwrap())
}

fn start(scratch: &Scratch, address: &str) -> Result<Server, Ended> {
    Server::try_start(&["--l0-socket", &scratch.file("l0"), "--l0-memory", "1MiB", "--listen", address])
}

#[test]
fn readers_killed_anywhere_leave_the_server_and_the_others_unharmed() {
    let scratch = Scratch::new("l0-reader-kills");
    let board = Arc::new(Board::create(&scratch.file("board")));
    let mut server = start(&scratch, "127.0.0.1:0").expect("a server");
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (board, stop, address) = (board.clone(), stop.clone(), server.address);
        thread::spawn(move || write_load(&board, address, &stop))
    };
    let (readers, _) = kills();
    let (survivor, mut prng) = (spawn_reader(&scratch), Prng::new(3));
    for _ in 0..readers {
        let reading = board.count(Count::Reading).load(Ordering::SeqCst);
        let reader = spawn_reader(&scratch);
        let began = Instant::now();
        while board.count(Count::Reading).load(Ordering::SeqCst) == reading {
            assert!(began.elapsed() < PATIENCE, "a reader finds nothing");
            thread::sleep(Duration::from_micros(50));
        }
        thread::sleep(Duration::from_micros(prng.next_u64() % 1000));
        drop(reader);
    }
    let before = board.count(Count::Reads).load(Ordering::SeqCst);
    thread::sleep(Duration::from_millis(200));
    let after = board.count(Count::Reads).load(Ordering::SeqCst);
    assert!(after > before, "the surviving reader has stopped");
    drop(survivor);
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    server.assert_serves();
    eprintln!("killed {readers} readers; {after} values read, [torn, foreign, stale, future] {:?}", board.violations());
    assert_eq!(board.violations(), [0; 4]);
    assert!(common::eventually(PATIENCE, || server.counter("l0_readers") == 0), "dead readers are still listened to");
}

#[test]
fn servers_killed_anywhere_leave_readers_with_nothing_old() {
    let scratch = Scratch::new("l0-server-kills");
    let board = Arc::new(Board::create(&scratch.file("board")));
    let mut server = start(&scratch, "127.0.0.1:0").expect("a server");
    let address = server.address;
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (board, stop) = (board.clone(), stop.clone());
        thread::spawn(move || write_load(&board, address, &stop))
    };
    let readers: Vec<Spawned> = (0..2).map(|_| spawn_reader(&scratch)).collect();
    let ((_, servers), mut prng) = (kills(), Prng::new(4));
    for _ in 0..servers {
        let before = board.count(Count::Reads).load(Ordering::SeqCst);
        let began = Instant::now();
        while board.count(Count::Reads).load(Ordering::SeqCst) < before + 100 {
            assert!(began.elapsed() < PATIENCE, "readers find nothing");
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_micros(prng.next_u64() % 20_000));
        signal(server.pid(), "KILL");
        server.wait(PATIENCE);
        // A killed process's ring holds its listener until the kernel has taken it down, some milliseconds.
        server = loop {
            match start(&scratch, &address.to_string()) {
                Ok(server) => break server,
                Err(ended) if ended.stderr.contains("Address already in use") => {
                    thread::sleep(Duration::from_millis(5))
                }
                Err(ended) => panic!("the successor did not start: {ended:?}"),
            }
            assert!(began.elapsed() < PATIENCE, "the port does not get free");
        };
    }
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    drop(readers);
    let [reads, lost] = [Count::Reads, Count::Lost].map(|what| board.count(what).load(Ordering::SeqCst));
    eprintln!(
        "killed {servers} servers; {reads} values read, tables found dead {lost} times, [torn, foreign, stale, future] {:?}",
        board.violations()
    );
    assert_eq!(board.violations(), [0; 4]);
    assert!(lost >= servers, "readers did not notice that their servers were gone");
}

/// A server in this process, reduced to what matters here: it announces, publishes and acknowledges, in the right
/// order or in the wrong one.
fn violations_of(scratch: &Scratch, acknowledges_too_early: bool) -> ([u64; 4], u64) {
    let board = Arc::new(Board::create(&scratch.file("board")));
    let (regions, bytes) = layout::plan(&[0], 256 << 10);
    let make = |bytes, writers| SharedMemory::create("test", bytes, PageWish::Small, None, writers).unwrap();
    let (marks, table): (&'static _, &'static _) =
        (Box::leak(Box::new(make(4096, Writers::Maker))), Box::leak(Box::new(make(bytes, Writers::Maker))));
    let seed = HashSeed(7);
    layout::write_header(table.words(), seed, 1, &regions);
    let (stop, ready) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let owner = {
        let (board, stop, ready, region) = (board.clone(), stop.clone(), ready.clone(), regions[0]);
        thread::spawn(move || {
            alive::mark(marks.words(), 0).unwrap();
            let mut publisher = Publisher::new(region.region(table.words()));
            let mut prng = Prng::new(5);
            ready.store(true, Ordering::SeqCst);
            while !stop.load(Ordering::Relaxed) {
                let key = prng.next_u64() % KEYS;
                let version = board.begun(key).load(Ordering::SeqCst) + 1;
                board.begun(key).store(version, Ordering::SeqCst);
                let (name, value) = (name(key), value(key, version));
                let entry = Entry { key: &name, hash: seed.hash(&name), value: &value, expires_ms: 0 };
                if acknowledges_too_early {
                    board.acknowledged(key).store(version, Ordering::SeqCst);
                }
                publisher.written(&entry);
                publisher.publish(&entry, |_| 1.0);
                board.acknowledged(key).store(version, Ordering::SeqCst);
            }
        })
    };
    while !ready.load(Ordering::SeqCst) {
        thread::yield_now();
    }
    let cells = make(reports::bytes(1), Writers::All);
    let mut reader = Reader::open(marks.file(), cells.file(), &[table.file().as_fd()]).unwrap();
    let (began, mut prng) = (Instant::now(), Prng::new(6));
    while began.elapsed() < Duration::from_secs(2) && (!acknowledges_too_early || board.violations()[2] == 0) {
        board.check(&mut reader, prng.next_u64() % KEYS).expect("its owner lives");
    }
    stop.store(true, Ordering::Relaxed);
    owner.join().unwrap();
    assert!(reader.get(b"any").is_err(), "the owner's thread has ended");
    (board.violations(), board.count(Count::Reads).load(Ordering::SeqCst))
}

#[test]
fn the_checker_finds_an_acknowledgement_that_comes_before_the_slot_is_written() {
    let scratch = Scratch::new("l0-planted");
    let (violations, reads) = violations_of(&scratch, false);
    assert_eq!(violations, [0; 4]);
    assert!(reads > 10_000, "{reads} reads prove little");
    let (violations, _) = violations_of(&scratch, true);
    assert!(violations[2] > 0, "the planted bug was not found");
}
