//! Reading in shared memory, from outside: coherence, expiry, what is published, death, who may read.

mod common;

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use spinetail::client::l0::Table;
use spinetail::client::{Client, L0Client};
use spinetail::host::shared::SharedView;
use spinetail::l0::greeting::{ANSWER_BYTES_MAX, Answer, Wish};
use spinetail::net::socket::receive_with_descriptors;

use crate::common::{PATIENCE, SPINETAIL, Scratch, Server, eventually, run, shard_counts, signal};

/// Reads `key` from the appliance until readers in shared memory find it.
fn publish(client: &mut Client, table: &mut Table, key: &[u8]) {
    let began = Instant::now();
    while table.reader.get(key).unwrap().is_none() {
        client.get(key).unwrap();
        assert!(began.elapsed() < PATIENCE, "{} is read again and again, not published", String::from_utf8_lossy(key));
    }
}

fn serve(scratch: &Scratch, arguments: &[&str]) -> Server {
    let path = scratch.file("l0");
    let mut all = vec!["--l0-socket", path.as_str()];
    all.extend(arguments);
    Server::start(&all)
}

#[test]
fn what_is_acknowledged_is_what_readers_see() {
    for shards in shard_counts() {
        let scratch = Scratch::new("l0-coherent");
        let server = serve(&scratch, &["--shards", shards]);
        assert!(server.ready.contains(&format!(" l0={}", scratch.file("l0"))), "{}", server.ready);
        let mut table = Table::open(Path::new(&scratch.file("l0")), "").unwrap();
        let mut client = Client::connect(server.address).unwrap();
        for number in 0..200u32 {
            let key = format!("key-{number}").into_bytes();
            let value = |version: u32| vec![(number + version) as u8; (number as usize * 7 + version as usize) % 1200];
            client.set(&key, &value(0), None).unwrap();
            if value(0).len() > 1024 {
                continue; // too long to be published
            }
            publish(&mut client, &mut table, &key);
            assert_eq!(table.reader.get(&key).unwrap().unwrap(), value(0));
            client.set(&key, &value(1), None).unwrap();
            let read = table.reader.get(&key).unwrap();
            assert!(
                read.is_none_or(|read| read == value(1)),
                "the old value was read after the new one was acknowledged"
            );
            match number % 4 {
                0 => assert!(client.delete(&key).unwrap()),
                1 => {
                    client.set(&key, b"5", None).unwrap();
                    publish(&mut client, &mut table, &key);
                    assert_eq!(client.increment(&key, 2, None).unwrap(), Some(7));
                    assert!(table.reader.get(&key).unwrap().is_none_or(|read| read == b"7"));
                    continue;
                }
                2 => {
                    publish(&mut client, &mut table, &key);
                    assert!(client.touch(&key, Some(Duration::from_millis(1))).unwrap());
                    thread::sleep(Duration::from_millis(3));
                }
                _ => client.flush().unwrap(),
            }
            assert_eq!(table.reader.get(&key).unwrap(), None, "after number {number}");
        }
    }
}

#[test]
fn no_reader_is_given_an_expired_value() {
    let scratch = Scratch::new("l0-ttl");
    let server = serve(&scratch, &[]);
    let mut table = Table::open(Path::new(&scratch.file("l0")), "").unwrap();
    let mut client = Client::connect(server.address).unwrap();
    for round in 0..20 {
        let key = format!("key-{round}").into_bytes();
        let before = Instant::now();
        client.set(&key, b"brief", Some(Duration::from_millis(150))).unwrap();
        let acknowledged = Instant::now();
        publish(&mut client, &mut table, &key);
        let mut last_seen = before;
        while before.elapsed() < Duration::from_millis(250) {
            let asked = Instant::now();
            if table.reader.get(&key).unwrap().is_some() {
                last_seen = asked;
            }
        }
        let served = last_seen - before;
        assert!(last_seen <= acknowledged + Duration::from_millis(150), "served {served:?} after the SET was sent");
        assert!(served > Duration::from_millis(100), "gone after {served:?} already");
    }
}

#[test]
fn readers_hits_keep_an_entry_in_the_shard_and_are_counted() {
    let scratch = Scratch::new("l0-fold");
    let server = serve(&scratch, &["--memory", "24MiB", "--l0-memory", "2MiB"]);
    let mut table = Table::open(Path::new(&scratch.file("l0")), "").unwrap();
    let mut client = Client::connect(server.address).unwrap();
    client.set(b"hot", b"kept by its readers", None).unwrap();
    publish(&mut client, &mut table, b"hot");
    // A scan of several times the memory passes through the shard; "hot" is read in shared memory only.
    let filler = vec![7u8; 1000];
    for number in 0..100_000u32 {
        client.set(format!("scan-{number}").as_bytes(), &filler, None).unwrap();
        if number.is_multiple_of(16) {
            assert!(table.reader.get(b"hot").unwrap().is_some(), "cleared after {number} writes of others");
        }
    }
    assert!(server.counter("evicted") > 50_000);
    assert_eq!(client.get(b"hot").unwrap().unwrap().bytes, b"kept by its readers");
    assert!(eventually(PATIENCE, || server.counter("l0_hits") > 5_000), "{} hits", server.counter("l0_hits"));
    assert_eq!((server.counter("l0_readers"), server.counter("l0_published")), (1, 1));
    drop(table);
    assert!(eventually(PATIENCE, || server.counter("l0_readers") == 0));
}

#[test]
fn what_is_published_follows_a_moving_hot_set_within_a_second() {
    let scratch = Scratch::new("l0-moving");
    // Room for some 2,600 entries, of ten times as many that are stored.
    let server = serve(&scratch, &["--memory", "64MiB", "--l0-memory", "896KiB", "--poll", "spin"]);
    let mut client = L0Client::connect(scratch.file("l0"), "").unwrap();
    let key = |number: u64| format!("key-{number:09}").into_bytes();
    for number in 0..20_000 {
        client.set(&key(number), &[1; 100], None).unwrap();
    }
    let mut shares = Vec::new();
    for hot in 0..4u64 {
        let (moved, mut number) = (Instant::now(), 0u64);
        let (mut before, mut counts) = (client.counts(), None);
        while moved.elapsed() < Duration::from_millis(1300) {
            if counts.is_none() && moved.elapsed() > Duration::from_secs(1) {
                (before, counts) = (client.counts(), Some(()));
            }
            for _ in 0..100 {
                number = number.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                assert!(client.get(&key(hot * 5000 + (number >> 33) % 1000)).unwrap().is_some());
            }
        }
        let after = client.counts();
        let (l0, l1) = (after.l0_hits - before.l0_hits, after.l1_hits - before.l1_hits);
        shares.push(l0 as f64 / (l0 + l1) as f64);
    }
    eprintln!("share of reads served in shared memory, from one second after each move on: {shares:.4?}");
    assert!(shares.iter().all(|&share| share > 0.9), "{shares:.4?}; published {}", server.counter("l0_published"));
}

#[test]
fn a_dead_server_is_noticed_at_once_and_its_successor_found() {
    let scratch = Scratch::new("l0-death");
    let mut server = serve(&scratch, &[]);
    let address = server.address.to_string();
    let mut table = Table::open(Path::new(&scratch.file("l0")), "").unwrap();
    let mut client = Client::connect(server.address).unwrap();
    client.set(b"key", b"old", None).unwrap();
    publish(&mut client, &mut table, b"key");
    let mut whole = L0Client::connect(scratch.file("l0"), "").unwrap();
    assert_eq!(whole.get(b"key").unwrap(), Some(&b"old"[..]));

    signal(server.pid(), "KILL");
    server.wait(PATIENCE);
    assert!(table.reader.get(b"key").is_err(), "a dead server's table was read");
    assert!(whole.get(b"key").is_err(), "nobody could have answered that");
    assert!(whole.complaint().is_some());

    let successor = serve(&scratch, &["--listen", &address]);
    Client::connect(successor.address).unwrap().set(b"key", b"new", None).unwrap();
    assert!(table.reader.get(b"key").is_err(), "the dead server's table came back to life");
    assert!(eventually(PATIENCE, || whole.get(b"key").is_ok_and(|value| value == Some(&b"new"[..]))));
    assert_eq!(whole.counts().lost, 1);

    // One that leaves in peace is as dead.
    let mut table = Table::open(Path::new(&scratch.file("l0")), "").unwrap();
    let mut client = Client::connect(successor.address).unwrap();
    publish(&mut client, &mut table, b"key");
    let mut successor = successor;
    successor.terminate();
    successor.wait(PATIENCE);
    assert!(table.reader.get(b"key").is_err());
    assert!(!Path::new(&scratch.file("l0")).exists(), "the socket was left behind");
}

#[test]
fn another_layout_a_foreign_tenant_and_one_reader_too_many_are_refused_with_words() {
    let scratch = Scratch::new("l0-refusals");
    let _server = serve(&scratch, &[]);
    let path = scratch.file("l0");
    let refusal = |wish: Wish| {
        let mut socket = UnixStream::connect(&path).unwrap();
        socket.write_all(&wish.encode()).unwrap();
        let mut bytes = [0; ANSWER_BYTES_MAX];
        let (count, files) = receive_with_descriptors(&socket, &mut bytes).unwrap();
        let answer = Answer::decode(&bytes[..count]).unwrap();
        assert!(answer.tables.is_none() && files.is_empty());
        answer.text
    };
    assert!(refusal(Wish { layout: 2, tenant: String::new() }).contains("layout"));
    assert!(refusal(Wish { layout: 1, tenant: "other".to_string() }).contains("no tenant 'other'"));
    let readers: Vec<Table> = (0..64).map(|_| Table::open(Path::new(&path), "").unwrap()).collect();
    let words = Table::open(Path::new(&path), "").err().expect("refused").to_string();
    assert!(words.contains("64 readers"), "{words}");
    drop(readers);
    assert!(eventually(PATIENCE, || Table::open(Path::new(&path), "default").is_ok()));
    // Those who say nothing, or nonsense, are nobody's trouble.
    let mut mute = UnixStream::connect(&path).unwrap();
    mute.write_all(&[7; 64]).unwrap();
    let _silent = UnixStream::connect(&path).unwrap();
    assert!(eventually(PATIENCE, || Table::open(Path::new(&path), "").is_ok()));
}

#[test]
fn impossible_wishes_are_refused_at_the_start() {
    let scratch = Scratch::new("l0-config");
    let path = scratch.file("l0");
    for (arguments, words) in [
        (vec!["--l0-memory", "1MiB"], "--l0-socket"),
        (vec!["--l0-socket", &path, "--l0-memory", "64KiB"], "raise --l0-memory"),
        (vec!["--l0-socket", &path, "--l0-memory", "60MiB"], "give at least"),
    ] {
        Server::try_start(&arguments).err().expect("refused").assert_refused(78, &[words]);
    }
}

/// Run as another user by the test below: what it tries must fail, or it panics.
#[test]
#[ignore = "a part of the next test"]
fn a_program_of_tenant_ads() {
    let Ok(path) = std::env::var("SPINETAIL_L0_OF_ADS") else { return };
    let server: u32 = std::env::var("SPINETAIL_L0_SERVER").unwrap().parse().unwrap();
    let mut own = Table::open(Path::new(&path), "ads").unwrap();
    assert_eq!(own.reader.get(b"ads:1").unwrap(), Some(&b"of ads"[..]));
    assert_eq!(own.reader.get(b"bids:1").unwrap(), None, "another tenant's entry was read");
    let words = Table::open(Path::new(&path), "bids").err().expect("refused").to_string();
    assert!(words.contains("no tenant 'bids'"), "{words}");

    let mut socket = UnixStream::connect(&path).unwrap();
    socket.write_all(&Wish { layout: 1, tenant: String::new() }.encode()).unwrap();
    let mut bytes = [0; ANSWER_BYTES_MAX];
    let (count, files) = receive_with_descriptors(&socket, &mut bytes).unwrap();
    assert_eq!(Answer::decode(&bytes[..count]).unwrap().tables, Some(1));
    assert_eq!(files.len(), 3, "marks of life, reports, one table");
    for (number, file) in files.iter().enumerate().filter(|(number, _)| *number != 1) {
        attack(number, file);
    }
    // What the server has open, and has mapped, is not for others to open.
    for directory in ["fd", "map_files"] {
        let Ok(entries) = fs::read_dir(format!("/proc/{server}/{directory}")) else { continue };
        let opened = entries.flatten().filter(|entry| File::open(entry.path()).is_ok()).count();
        assert_eq!(opened, 0, "opened {opened} of the server's {directory}");
    }
    assert!(File::open(format!("/proc/{server}/mem")).is_err());
    assert_eq!(own.reader.get(b"ads:1").unwrap(), Some(&b"of ads"[..]));
}

/// Tries every way to write to a file that was given for reading.
fn attack(number: usize, file: &OwnedFd) {
    assert!(SharedView::map(file.as_fd(), true).is_err(), "file {number} was mapped for writing");
    let duplicate = File::from(file.try_clone().unwrap());
    assert!(duplicate.write_at(b"x", 0).is_err(), "file {number} was written");
    assert!(duplicate.set_len(0).is_err(), "file {number} was cut");
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file));
    if let Ok(again) = File::options().read(true).write(true).open(path) {
        assert!(SharedView::map(again.as_fd(), true).is_err(), "file {number} was opened anew and mapped for writing");
        assert!(again.write_at(b"x", 0).is_err(), "file {number} was opened anew and written");
    }
}

#[test]
fn a_tenant_can_neither_write_its_table_nor_reach_anothers() {
    let root = fs::read_to_string("/proc/self/status").unwrap().lines().any(|line| line.starts_with("Uid:\t0\t0"));
    let setpriv = Command::new("setpriv").arg("--version").output().is_ok_and(|output| output.status.success());
    if !root || !setpriv {
        eprintln!("skipped: only root can run a program as another tenant's user, with setpriv");
        return;
    }
    let scratch = Scratch::new("l0-tenants");
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let tenants = ["--l0-tenant", "ads,prefix=ads:,uid=61001", "--l0-tenant", "bids,prefix=bids:,uid=61002,uid=0"];
    let server = serve(&scratch, &tenants);
    let mut client = Client::connect(server.address).unwrap();
    let mut bids = Table::open(Path::new(&scratch.file("l0")), "bids").unwrap();
    client.set(b"bids:1", b"of bids", None).unwrap();
    client.set(b"ads:1", b"of ads", None).unwrap();
    client.set(b"nobody's", b"of nobody", None).unwrap();
    publish(&mut client, &mut bids, b"bids:1");
    for _ in 0..40 {
        client.get(b"ads:1").unwrap();
        client.get(b"nobody's").unwrap();
    }
    assert!(eventually(PATIENCE, || server.counter("l0_published") == 2));
    assert_eq!(bids.reader.get(b"ads:1").unwrap(), None);

    let copy = scratch.path().join("program");
    fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
    let mut program = Command::new("setpriv");
    program.args(["--reuid", "61001", "--regid", "61001", "--clear-groups"]).arg(&copy);
    program.args(["--exact", "a_program_of_tenant_ads", "--ignored", "--nocapture"]).current_dir("/");
    program.env("SPINETAIL_L0_OF_ADS", scratch.file("l0")).env("SPINETAIL_L0_SERVER", server.pid().to_string());
    let ended = run(program, PATIENCE);
    assert!(ended.status == Some(0) && ended.stdout.contains("1 passed"), "{ended:?}");
}

#[test]
fn the_load_generator_reads_there_and_says_what_its_timer_costs() {
    let scratch = Scratch::new("l0-load");
    let _server = serve(&scratch, &[]);
    let target = format!("l0://{}", scratch.file("l0"));
    let mut load = Command::new(SPINETAIL);
    load.args(["load", "--target", &target, "--keys", "100", "--fill", "--gets", "0.999"]);
    load.args(["--warmup", "1s", "--duration", "2s", "--json", "-"]);
    let ended = run(load, PATIENCE);
    assert_eq!(ended.status, Some(0), "{ended:?}");
    let json: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(json["target"], target);
    assert_eq!((&json["errors"], &json["misses"]), (&0.into(), &0.into()));
    assert!(json["timer_ns"].as_u64().unwrap() < 1000);
    let count = |name: &str| json["operations"][name]["count"].as_u64().unwrap();
    assert!(count("get-l0") * 10 > count("get") * 9, "{json}");
    assert!(json["operations"]["get-l0"]["latency_ns"]["p50"].as_u64().unwrap() < 2000, "{json}");
    assert_eq!(count("get") + count("set"), json["requests"].as_u64().unwrap());
    let mut paced = Command::new(SPINETAIL);
    paced.args(["load", "--target", &target, "--keys", "100", "--rate", "1000", "--duration", "1s", "--json", "-"]);
    let json: serde_json::Value = serde_json::from_str(&run(paced, PATIENCE).stdout).unwrap();
    assert!((900..=1000).contains(&json["requests"].as_u64().unwrap()), "{json}");
}
