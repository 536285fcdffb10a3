//! The reader in C of examples/, against a running server: the layout is what its pages say, in any language.

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use spinetail::client::Client;
use spinetail::client::l0::Table;

use crate::common::{Ended, PATIENCE, Scratch, Server, eventually, run, shard_counts, signal};

/// What the program's exit status says.
const HIT: Option<i32> = Some(0);
const MISS: Option<i32> = Some(1);
const FAILED: Option<i32> = Some(3);

/// The compiled program; `None`, and says why, where it cannot be compiled. Each test has its own.
fn compiled(test: &str) -> Option<PathBuf> {
    let says_yes = |arguments: &[&str]| {
        let mut command = Command::new("cc");
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    if !says_yes(&["--version"]) {
        eprintln!("skipped: there is no C compiler here (apt-get install gcc libc6-dev)");
        return None;
    }
    if !says_yes(&["-include", "xxhash.h", "-fsyntax-only", "-x", "c", "/dev/null"]) {
        eprintln!("skipped: the C compiler finds no xxhash.h (apt-get install libxxhash-dev)");
        return None;
    }
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("l0_reader-{test}"));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/l0_reader.c");
    let mut command = Command::new("cc");
    command.args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-O2", "-o"]).arg(&program).arg(source);
    let ended = run(command, PATIENCE);
    assert_eq!(ended.status, Some(0), "{}", ended.stderr);
    Some(program)
}

/// A server with a door for readers, and a client that makes keys hot.
struct Rig {
    server: Server,
    client: Client,
    table: Table,
    program: PathBuf,
    socket: String,
    _scratch: Scratch,
}

impl Rig {
    fn start(program: PathBuf, test: &str, shards: &str) -> Rig {
        let scratch = Scratch::new(&format!("l0-c-{test}-{shards}"));
        let socket = scratch.file("l0.sock");
        let server = Server::start(&["--shards", shards, "--l0-socket", &socket]);
        let client = Client::connect(server.address).unwrap();
        let table = Table::open(Path::new(&socket), "").unwrap();
        Rig { server, client, table, program, socket, _scratch: scratch }
    }

    /// Stores a value and reads it until it is published.
    fn publish(&mut self, key: &str, value: &str) {
        self.client.set(key.as_bytes(), value.as_bytes(), None).unwrap();
        let is_published = eventually(PATIENCE, || {
            for _ in 0..50 {
                assert!(self.client.get(key.as_bytes()).unwrap().is_some());
            }
            self.table.reader.get(key.as_bytes()).unwrap() == Some(value.as_bytes())
        });
        assert!(is_published, "'{key}' was read often and is not published");
    }

    /// Runs the program to its end.
    fn read(&self, key: &str) -> Ended {
        let mut command = Command::new(&self.program);
        command.args([&self.socket, key]);
        run(command, PATIENCE)
    }

    fn assert_hit(&self, key: &str, value: &str) {
        let ended = self.read(key);
        assert_eq!((ended.status, ended.stdout.as_str()), (HIT, format!("{value}\n").as_str()), "{}", ended.stderr);
    }

    /// Starts the program and waits until it has opened its table.
    fn waiting(&self, key: &str) -> Waiting {
        let mut command = Command::new(&self.program);
        command.args([&self.socket, "--wait", key]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("a process");
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert_eq!(line, "open\n");
        Waiting { stdin: child.stdin.take().expect("a pipe"), child, stdout }
    }
}

/// A program that has its table open and waits for a line before it reads.
struct Waiting {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Waiting {
    fn read(mut self) -> Ended {
        self.stdin.write_all(b"\n").unwrap();
        let mut stdout = String::new();
        self.stdout.read_to_string(&mut stdout).unwrap();
        let ended = self.child.wait_with_output().expect("a status");
        Ended { status: ended.status.code(), stdout, stderr: String::from_utf8(ended.stderr).unwrap() }
    }
}

#[test]
fn what_is_published_reads_the_same_in_c_until_it_is_deleted() {
    let Some(program) = compiled("values") else { return };
    for shards in shard_counts() {
        let mut rig = Rig::start(program.clone(), "values", shards);
        // One that lies in its slot, one that needs a spill cell, keys of all the shapes that words give.
        let (short, long) = ("Ada", "0123456789".repeat(30));
        let keys = [
            "k",
            "user:007",
            "user:00007",
            "a key of sixteen",
            "a key whose length is the longest: of sixty-four bytes in all...",
        ];
        assert_eq!(keys[4].len(), 64);
        for key in keys {
            rig.publish(key, short);
            rig.assert_hit(key, short);
            rig.client.set(key.as_bytes(), long.as_bytes(), None).unwrap();
            rig.publish(key, &long);
            rig.assert_hit(key, &long);
        }
        // A reader that is open sees what is acknowledged while it is.
        let waiting = rig.waiting(keys[0]);
        rig.client.set(keys[0].as_bytes(), b"rewritten", None).unwrap();
        assert_eq!(waiting.read().stdout, "rewritten\n");
        let waiting = rig.waiting(keys[1]);
        assert!(rig.client.delete(keys[1].as_bytes()).unwrap());
        assert_eq!(waiting.read().status, MISS);
        let ended = rig.read(keys[1]);
        ended.assert_refused(1, &["'user:007' is not published", "native="]);
        assert_eq!(ended.stdout, "");
        assert_eq!(rig.read("").status, MISS, "no value has an empty key");
        rig.assert_hit(keys[2], &long);
    }
}

#[test]
fn hits_in_c_are_reported_to_the_shard() {
    let Some(program) = compiled("reports") else { return };
    let mut rig = Rig::start(program, "reports", "1");
    rig.publish("hot", "value");
    let mut command = Command::new(&rig.program);
    command.args([&rig.socket, "--bench", "hot"]);
    let ended = run(command, PATIENCE);
    assert_eq!(ended.status, HIT, "{}", ended.stderr);
    println!("{}", ended.stdout.trim());
    // Fourteen million, but for what it said last: a shard need not listen to a reader that has gone.
    let heard = rig.server.counter("l0_hits");
    assert!((1_000_000..14_001_000).contains(&heard), "{heard}");
}

#[test]
fn a_reader_in_c_learns_of_its_servers_death_and_of_refusals_in_words() {
    let Some(program) = compiled("death") else { return };
    for shards in shard_counts() {
        let mut rig = Rig::start(program.clone(), "death", shards);
        rig.publish("key", "value");
        let (alive, dead) = (rig.waiting("key"), rig.waiting("key"));
        assert_eq!(alive.read().stdout, "value\n");
        signal(rig.server.pid(), "KILL");
        rig.server.wait(PATIENCE);
        let ended = dead.read();
        assert_eq!((ended.status, ended.stdout.as_str()), (FAILED, ""));
        assert!(ended.stderr.contains("has ended"), "{}", ended.stderr);
        rig.read("key").assert_refused(3, &["nobody answers at the socket", "refused"]);
    }
}
