//! A server in a process of its own, the command line, and the native protocol written from its
//! page alone, so that a mistake in the product's own codec cannot hide itself.

#![allow(dead_code, reason = "every test file uses its own part of this")]

pub mod resp;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take that is expected to happen: generous, for loaded machines.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub const SPINETAIL: &str = env!("CARGO_BIN_EXE_spinetail");

/// A running server; killed when dropped.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
    /// The ready line, without its newline.
    pub ready: String,
    stderr: Arc<Mutex<String>>,
}

/// What a command left behind.
#[derive(Debug)]
pub struct Ended {
    /// Exit status; `None` if a signal ended it.
    pub status: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Server {
    /// Starts a server that must start. Defaults stand for what `arguments` does not name.
    pub fn start(arguments: &[&str]) -> Server {
        match Server::try_start(arguments) {
            Ok(server) => server,
            Err(ended) => panic!("serve {arguments:?} did not start: {ended:?}"),
        }
    }

    /// Starts a server, or tells how it ended.
    pub fn try_start(arguments: &[&str]) -> Result<Server, Ended> {
        let mut command = Command::new(SPINETAIL);
        command.arg("serve").args(with_defaults(arguments));
        Server::try_spawn(command)
    }

    /// Waits for the ready line of a server that `command` starts.
    pub fn try_spawn(mut command: Command) -> Result<Server, Ended> {
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a process");
        let stderr = gather(child.stderr.take().expect("a pipe"));
        let stdout = child.stdout.take().expect("a pipe");
        let (send, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = send.send(line);
            }
        });
        let Ok(ready) = lines.recv_timeout(PATIENCE) else {
            if child.try_wait().expect("a status").is_none() {
                thread::sleep(Duration::from_millis(500)); // stdout was closed, the exit follows
            }
            let _ = child.kill();
            let status = child.wait().expect("a status").code();
            thread::sleep(Duration::from_millis(100)); // what was written last is still being gathered
            let stderr = stderr.lock().unwrap().clone();
            return Err(Ended { status, stdout: String::new(), stderr });
        };
        let address = ready.split_whitespace().find_map(|word| word.strip_prefix("native=")?.parse().ok());
        let address = address.unwrap_or_else(|| panic!("no native address in '{ready}'"));
        // The last word of the start stands on stderr before the ready line; gathering may lag behind.
        eventually(PATIENCE, || {
            let stderr = stderr.lock().unwrap();
            stderr.contains("msg=serving") || stderr.contains("\"msg\":\"serving\"")
        });
        Ok(Server { child, address, ready, stderr })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// As `--target` takes it.
    pub fn target(&self) -> String {
        format!("native://{}", self.address)
    }

    /// Everything logged so far.
    pub fn stderr(&self) -> String {
        self.stderr.lock().unwrap().clone()
    }

    pub fn connect(&self) -> Wire {
        Wire::connect(self.address)
    }

    /// Asks it to leave.
    pub fn terminate(&self) {
        signal(self.pid(), "TERM");
    }

    /// Waits until it has left.
    pub fn wait(&mut self, at_most: Duration) -> ExitStatus {
        wait_for(&mut self.child, at_most)
            .unwrap_or_else(|| panic!("the server is still there after {at_most:?}: {}", self.stderr()))
    }

    /// Bytes resident now.
    pub fn rss_bytes(&self) -> u64 {
        self.status_bytes("VmRSS")
    }

    /// Most bytes ever resident.
    pub fn rss_bytes_max(&self) -> u64 {
        self.status_bytes("VmHWM")
    }

    /// Checks that no more was ever resident than `memory_bytes` and a twentieth.
    pub fn assert_within_memory(&self, memory_bytes: u64) {
        let most = self.rss_bytes_max();
        assert!(most <= memory_bytes + memory_bytes / 20, "{most} bytes were resident under --memory {memory_bytes}");
    }

    /// Answers a SET and a GET of a client that has just come, or panics.
    pub fn assert_serves(&mut self) {
        if let Some(status) = self.child.try_wait().expect("a status") {
            panic!("the server has left with {status}: {}", self.stderr());
        }
        let mut wire = self.connect();
        wire.send(&frame(SET, 0, b"health", b"good", 1, 0));
        wire.send(&frame(GET, 0, b"health", b"", 2, 0));
        assert_eq!(wire.reply().status, OK);
        assert_eq!(wire.reply().value, b"good");
    }

    /// One counter of STATS.
    pub fn counter(&self, name: &str) -> u64 {
        let mut wire = self.connect();
        wire.send(&frame(STATS, 0, b"", b"", 1, 0));
        let text = String::from_utf8(wire.reply().value).expect("text");
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no counter '{name}' in {text}"))
    }

    fn status_bytes(&self, field: &str) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the server is alive");
        let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).expect(field);
        line.trim().trim_end_matches(" kB").parse::<u64>().expect(field) << 10
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- what the server logged ---\n{}", self.stderr());
        }
    }
}

impl Ended {
    /// Checks the status, and that every one of `words` stands on stderr.
    pub fn assert_refused(&self, status: i32, words: &[&str]) {
        assert_eq!(self.status, Some(status), "{self:?}");
        for word in words {
            assert!(self.stderr.contains(word), "'{word}' is missing: {self:?}");
        }
    }
}

/// Runs the product's command line to its end.
pub fn spinetail(arguments: &[&str]) -> Ended {
    let mut command = Command::new(SPINETAIL);
    command.args(arguments);
    run(command, Duration::from_secs(60))
}

/// Has the kernel refuse these system calls to `command`, as containers' filters do. The filter is put on after the fork
/// and stays over exec.
#[expect(unsafe_code, reason = "a filter of system calls has no safe face in std")]
pub fn refuse_calls(command: &mut Command, refused: &[libc::c_long]) {
    let step = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
    // The number of the call is the first field of what a filter sees.
    let mut program = vec![step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0)];
    for (before, number) in refused.iter().enumerate() {
        let to_refusal = (refused.len() - before) as u8;
        program.push(step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, to_refusal, 0, *number as u32));
    }
    program.push(step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW));
    program.push(step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32));
    let put_on = move || {
        let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
        // SAFETY: 1. Both are plain system calls, allowed between fork and exec. 2. `filter` and the program it points
        // to outlive the call, which copies them.
        let done = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) == 0
        };
        if done { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    };
    // SAFETY: the closure allocates nothing and takes no lock: the program was made before.
    unsafe { command.pre_exec(put_on) };
}

/// Runs a command to its end.
pub fn run(mut command: Command, at_most: Duration) -> Ended {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a process");
    let (mut stdout, mut stderr) = (child.stdout.take().expect("a pipe"), child.stderr.take().expect("a pipe"));
    let out = thread::spawn(move || read_text(&mut stdout));
    let err = thread::spawn(move || read_text(&mut stderr));
    let status = wait_for(&mut child, at_most);
    if status.is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
    let (stdout, stderr) = (out.join().unwrap(), err.join().unwrap());
    let status = status.unwrap_or_else(|| panic!("{command:?} is still running after {at_most:?}: {stderr}"));
    Ended { status: status.code(), stdout, stderr }
}

/// Sends a signal by name.
pub fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status();
    assert!(sent.is_ok_and(|status| status.success()), "no signal reached process {pid}");
}

/// Waits until `holds`; answers whether it came to that.
pub fn eventually(at_most: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let started = Instant::now();
    loop {
        if holds() {
            return true;
        }
        if started.elapsed() > at_most {
            return false;
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// Whether the machine lets two shards run, each on a core of its own. Says so where it does not.
pub fn two_shards_fit() -> bool {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    if cores < 2 {
        eprintln!("skipped: two shards need two cores, this process may use one");
    }
    cores >= 2
}

/// The shard counts to test with on this machine.
pub fn shard_counts() -> Vec<&'static str> {
    if two_shards_fit() { vec!["1", "2"] } else { vec!["1"] }
}

/// What can drive the sockets on this machine. Says so where io_uring is refused.
pub fn drivers() -> Vec<&'static str> {
    let mut drivers = vec!["epoll"];
    match Server::try_start(&["--io", "io_uring"]) {
        Ok(_) => drivers.push("io_uring"),
        Err(ended) => {
            assert!(matches!(ended.status, Some(69 | 77)), "{ended:?}");
            eprintln!("skipped: io_uring is refused on this machine: {}", ended.stderr.trim());
        }
    }
    drivers
}

/// A directory for this test process alone, removed when dropped.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("spinetail-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a directory");
        Scratch(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A file in it, as text for a command line.
    pub fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("a plain path").to_string()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

// --- The native protocol, from its page -----------------------------------------------------

pub const HELLO: u8 = 0x01;
pub const NOOP: u8 = 0x02;
pub const STATS: u8 = 0x03;
pub const FLUSH: u8 = 0x04;
pub const GET: u8 = 0x10;
pub const SET: u8 = 0x11;
pub const ADD: u8 = 0x12;
pub const REPLACE: u8 = 0x13;
pub const CAS: u8 = 0x14;
pub const DELETE: u8 = 0x15;
pub const INCREMENT: u8 = 0x16;
pub const TOUCH: u8 = 0x17;
pub const TTL: u8 = 0x18;

pub const WANT_VERSION: u8 = 1;

pub const OK: u16 = 0;
pub const NOT_FOUND: u16 = 1;
pub const EXISTS: u16 = 2;
pub const VERSION_DIFFERS: u16 = 3;
pub const NOT_A_NUMBER: u16 = 4;
pub const OVERFLOW: u16 = 5;
pub const KEY_LENGTH: u16 = 16;
pub const VALUE_TOO_LARGE: u16 = 17;
pub const MALFORMED: u16 = 32;
pub const UNSUPPORTED_VERSION: u16 = 33;
pub const UNSUPPORTED: u16 = 34;
pub const BUSY: u16 = 48;

pub const HEADER_BYTES: usize = 24;

/// A header that promises `value_len` bytes, whether or not they follow.
pub fn header(opcode: u8, flags: u8, key_len: u16, value_len: u32, id: u32, argument: u64) -> Vec<u8> {
    let mut bytes = vec![0x5b, 1, opcode, flags];
    bytes.extend(key_len.to_le_bytes());
    bytes.extend([0, 0]);
    bytes.extend(value_len.to_le_bytes());
    bytes.extend(id.to_le_bytes());
    bytes.extend(argument.to_le_bytes());
    bytes
}

/// A whole request.
pub fn frame(opcode: u8, flags: u8, key: &[u8], value: &[u8], id: u32, argument: u64) -> Vec<u8> {
    let mut bytes = header(opcode, flags, key.len() as u16, value.len() as u32, id, argument);
    bytes.extend(key);
    bytes.extend(value);
    bytes
}

/// A reply as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub opcode: u8,
    pub status: u16,
    pub id: u32,
    pub number: u64,
    pub value: Vec<u8>,
}

/// A connection that can also misbehave.
pub struct Wire {
    pub stream: TcpStream,
}

impl Wire {
    pub fn connect(address: SocketAddr) -> Wire {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).expect("the server accepts");
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Wire { stream }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the server takes what it is sent");
    }

    /// Sends what the server may refuse to take by closing.
    pub fn send_anyway(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// The next reply, which must come.
    pub fn reply(&mut self) -> Reply {
        self.try_reply().unwrap_or_else(|error| panic!("no reply: {error}"))
    }

    pub fn try_reply(&mut self) -> std::io::Result<Reply> {
        let mut head = [0u8; HEADER_BYTES];
        self.stream.read_exact(&mut head)?;
        assert_eq!((head[0], head[1], head[3], &head[4..6]), (0xb5, 1, 0, &[0u8, 0][..]), "no reply header: {head:?}");
        let number_at = |at: usize, length: usize| {
            head[at..at + length].iter().rev().fold(0u64, |number, &byte| number << 8 | u64::from(byte))
        };
        let mut value = vec![0; number_at(8, 4) as usize];
        self.stream.read_exact(&mut value)?;
        Ok(Reply {
            opcode: head[2],
            status: number_at(6, 2) as u16,
            id: number_at(12, 4) as u32,
            number: number_at(16, 8),
            value,
        })
    }

    /// One request, one reply.
    pub fn ask(&mut self, opcode: u8, key: &[u8], value: &[u8]) -> Reply {
        self.send(&frame(opcode, 0, key, value, 77, 0));
        let reply = self.reply();
        assert_eq!((reply.opcode, reply.id), (opcode, 77));
        reply
    }

    /// Tells the server that no more will be sent.
    pub fn finish(&mut self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Whether the server closes, and sends nothing before.
    pub fn is_closed(&mut self) -> bool {
        let mut byte = [0u8; 1];
        match self.stream.read(&mut byte) {
            Ok(count) => count == 0,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }

    /// The server's largest value, from HELLO.
    pub fn value_bytes_max(&mut self) -> usize {
        let hello = self.ask(HELLO, b"", b"tests").value;
        assert!(hello.len() >= 24, "HELLO has {} bytes", hello.len());
        u32::from_le_bytes([hello[8], hello[9], hello[10], hello[11]]) as usize
    }
}

// --- Small change -----------------------------------------------------------------------------

fn with_defaults<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    let mut all = arguments.to_vec();
    for (flag, value) in [("--listen", "127.0.0.1:0"), ("--poll", "park"), ("--memory", "64MiB"), ("--shards", "1")] {
        if !arguments.contains(&flag) {
            all.extend([flag, value]);
        }
    }
    all
}

fn gather(source: impl Read + Send + 'static) -> Arc<Mutex<String>> {
    let text = Arc::new(Mutex::new(String::new()));
    let kept = text.clone();
    thread::spawn(move || {
        for line in BufReader::new(source).lines().map_while(Result::ok) {
            let mut text = kept.lock().unwrap();
            text.push_str(&line);
            text.push('\n');
        }
    });
    text
}

fn read_text(source: &mut impl Read) -> String {
    let mut bytes = Vec::new();
    let _ = source.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

fn wait_for(child: &mut Child, at_most: Duration) -> Option<ExitStatus> {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("a status") {
            return Some(status);
        }
        if started.elapsed() > at_most {
            return None;
        }
        thread::sleep(Duration::from_millis(10));
    }
}
