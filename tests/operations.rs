//! What an operator meets: the configuration file, reloading, the log, the service manager, and where threads run.

mod common;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use common::*;
use serde_json::Value;
use spinetail::host::process::Limits;
use spinetail::host::topology::parse_cpu_list;

/// A small server's file; `more` goes on at its end.
fn config(scratch: &Scratch, more: &str) -> String {
    let file = scratch.file("spinetail.toml");
    write_config(&file, more);
    file
}

fn write_config(file: impl AsRef<Path>, more: &str) {
    let text = format!("listen = \"127.0.0.1:0\"\npoll = \"park\"\nshards = 1\nmemory = \"64MiB\"\n{more}");
    fs::write(file, text).unwrap();
}

/// `serve` without the tests' usual flags.
fn serve(arguments: &[&str]) -> Command {
    let mut command = Command::new(SPINETAIL);
    command.arg("serve").args(arguments).env_remove("NOTIFY_SOCKET").env_remove("WATCHDOG_USEC");
    command.env_remove("WATCHDOG_PID");
    command
}

fn start(command: Command) -> Server {
    Server::try_spawn(command).unwrap_or_else(|ended| panic!("this must start: {ended:?}"))
}

fn token(scratch: &Scratch, name: &str, secret: &str, mode: u32) -> String {
    let file = scratch.file(name);
    fs::write(&file, secret).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    file
}

/// Waits until a line on stderr has all of `words`.
fn line_with(server: &Server, words: &[&str]) -> String {
    let mut found = None;
    eventually(PATIENCE, || {
        let stderr = server.stderr();
        found = stderr.lines().find(|line| words.iter().all(|word| line.contains(word))).map(str::to_string);
        found.is_some()
    });
    found.unwrap_or_else(|| panic!("no line with {words:?} in {}", server.stderr()))
}

// --- The file -------------------------------------------------------------------------------------

#[test]
fn flags_win_over_the_file_and_the_file_over_the_profile() {
    let scratch = Scratch::new("precedence");
    let profile = scratch.file("profile.toml");
    let text = "[machine]\nname = \"of-the-file\"\n[cores]\ndata = \"0\"\n[memory]\ntotal = \"96MiB\"\npages = \"4KiB\"\n\
                [network]\npoll = \"spin\"\nio = \"epoll\"\n";
    fs::write(&profile, text).unwrap();
    let file = scratch.file("c.toml");
    let text = format!("profile = \"{profile}\"\nlisten = \"127.0.0.1:0\"\nresp = \"127.0.0.1:0\"\npoll = \"park\"\n");
    fs::write(&file, text).unwrap();

    let mut server = start(serve(&["--config", &file, "--memory", "48MiB"]));
    server.assert_serves();
    assert!(server.ready.contains("resp=127.0.0.1:"), "{}", server.ready);
    let line = line_with(&server, &["msg=serving"]);
    for said in ["profile=of-the-file", "poll=park", "io=epoll", "memory=\"48.0 MiB\"", "pages=4KiB"] {
        assert!(line.contains(said), "'{said}' is missing: {line}");
    }
    // The word that means "none of the file's".
    let checked = spinetail(&["serve", "--config", &file, "--profile", "auto", "--check"]);
    assert!(checked.stdout.contains("profile = \"auto\"\n"), "{checked:?}");
}

#[test]
fn a_check_prints_what_settles_the_same_again_and_serves_nothing() {
    let scratch = Scratch::new("check");
    let secret = token(&scratch, "token", "a-secret-of-many-characters", 0o600);
    let more = format!("[admin]\nlisten = \"0.0.0.0:0\"\ntoken_file = \"{secret}\"\n[log]\nformat = \"json\"\n");
    let file = config(&scratch, &more);
    let checked = spinetail(&["serve", "--config", &file, "--check", "--memory", "32MiB"]);
    assert_eq!((checked.status, checked.stderr.as_str()), (Some(0), ""), "{checked:?}");
    for said in ["memory = \"32MiB\"\n", "shards = 1\n", "[admin]\n", "format = \"json\"\n", "level = \"info\"\n"] {
        assert!(checked.stdout.contains(said), "'{said}' is missing: {checked:?}");
    }
    assert!(!checked.stdout.contains("a-secret"), "{checked:?}");
    let again = scratch.file("again.toml");
    fs::write(&again, &checked.stdout).unwrap();
    assert_eq!(spinetail(&["serve", "--config", &again, "--check"]).stdout, checked.stdout);
    // Without a file it says what the flags and the machine come to.
    assert_eq!(spinetail(&["serve", "--check"]).status, Some(0));
}

#[test]
fn a_file_that_is_wrong_is_refused_with_78_its_line_and_a_remedy() {
    let scratch = Scratch::new("refusals");
    let refused = |more: &str, words: &[&str]| {
        let file = config(&scratch, more);
        for check in [&["--check"][..], &[]] {
            let ended = spinetail(&[&["serve", "--config", &file], check].concat());
            ended.assert_refused(78, words);
            assert_eq!(ended.stdout, "");
        }
    };
    refused("lissten = \"x\"\n", &["spinetail.toml:5", "lissten", "did you mean listen?"]);
    refused("resp = \"somewhere\"\n", &["spinetail.toml:5", "resp", "127.0.0.1:6379"]);
    refused("\n[log]\nlevel = \"loud\"\n", &["spinetail.toml:7", "log.level", "\"debug\", \"info\", \"warn\""]);
    refused(
        "[admin]\nlisten = \"0.0.0.0:0\"\n",
        &["spinetail.toml:6", "admin.listen", "at least 16 characters", "loopback"],
    );
    refused("[admin]\nshow_keys = true\n", &["spinetail.toml:6", "admin.show_keys", "--admin ADDR"]);
    refused("cores = \"999\"\n", &["spinetail.toml:5", "cores", "core 999", "--cores"]);
    refused("[l0\n", &["spinetail.toml:5"]);
    spinetail(&["serve", "--config", "/no/such.toml"]).assert_refused(78, &["/no/such.toml", "name a TOML file"]);
    spinetail(&["serve", "--config", "/"]).assert_refused(78, &["name a TOML file"]);
}

#[test]
fn a_token_that_protects_nothing_is_refused_with_78() {
    let scratch = Scratch::new("tokens");
    let secret = "0123456789abcdef";
    let refused = |file: &str, words: &[&str]| {
        let ended =
            spinetail(&["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--admin-token-file", file]);
        ended.assert_refused(78, words);
        assert!(!ended.stderr.contains(&secret[..8]), "{ended:?}");
    };
    refused(&token(&scratch, "short", &secret[1..], 0o600), &["15 characters", "/dev/urandom"]);
    refused(&token(&scratch, "readable", secret, 0o644), &["mode 644", "chmod 600"]);
    refused(&scratch.file("absent"), &["absent", "cannot be read"]);
    let outside = ["serve", "--listen", "127.0.0.1:0", "--admin", "0.0.0.0:0"];
    spinetail(&outside).assert_refused(78, &["--admin 0.0.0.0:0", "--admin-token-file FILE", "bind loopback"]);
}

// --- Reloading ------------------------------------------------------------------------------------

#[test]
fn a_hangup_applies_what_can_change_and_names_what_cannot() {
    let scratch = Scratch::new("reload");
    let file = config(&scratch, "");
    let mut server = start(serve(&["--config", &file]));
    // Nothing differs, and that is said too.
    signal(server.pid(), "HUP");
    line_with(&server, &["level=info", "msg=reloaded", "applied=\"\"", "needs_restart=0"]);

    let text = fs::read_to_string(&file).unwrap().replace("64MiB", "32MiB");
    fs::write(&file, text + "[log]\nformat = \"json\"\nlevel = \"debug\"\n").unwrap();
    signal(server.pid(), "HUP");
    line_with(&server, &["\"msg\":\"reloaded\"", "\"applied\":\"log.format,log.level\"", "\"needs_restart\":1"]);
    line_with(&server, &["\"level\":\"debug\""]);
    let stderr = server.stderr();
    let restart: Vec<&str> = stderr.lines().filter(|line| line.contains("needs a restart")).collect();
    assert_eq!(restart.len(), 1, "{stderr}");
    let line: Value = serde_json::from_str(restart[0]).unwrap();
    assert_eq!((&line["key"], &line["level"]), (&"memory".into(), &"warn".into()), "{line}");
    assert_eq!((&line["running"], &line["wanted"]), (&"\"64MiB\"".into(), &"\"32MiB\"".into()), "{line}");
    server.assert_serves();

    // A file that is wrong changes nothing: no line is logfmt again, debug lines still come.
    write_config(&file, "[log]\nformat = \"logfmt\"\nlevl = \"error\"\n");
    signal(server.pid(), "HUP");
    line_with(&server, &["\"level\":\"error\"", "not reloaded", "spinetail.toml:7: log.levl"]);
    let so_far = server.stderr().len();
    assert!(eventually(PATIENCE, || server.stderr()[so_far..].contains("\"debug\"")), "{}", server.stderr());
    assert!(!server.stderr()[so_far..].contains("ts="), "{}", server.stderr());
    fs::remove_file(&file).unwrap();
    signal(server.pid(), "HUP");
    line_with(&server, &["not reloaded", "cannot be read"]);
    server.assert_serves();
    server.terminate();
    assert_eq!(server.wait(PATIENCE).code(), Some(0));
}

#[test]
fn a_hangup_reads_the_token_again_without_a_file_too() {
    let scratch = Scratch::new("rotation");
    let secret = token(&scratch, "token", "the-first-0123456789", 0o600);
    let server = Server::start(&["--admin", "127.0.0.1:0", "--admin-token-file", &secret]);
    fs::write(&secret, "short").unwrap();
    signal(server.pid(), "HUP");
    line_with(&server, &["level=error", "not reloaded", "5 characters"]);
    fs::write(&secret, "the-second-0123456789").unwrap();
    signal(server.pid(), "HUP");
    line_with(&server, &["msg=reloaded", "applied=admin.token_file"]);
    assert!(!server.stderr().contains("0123456789"), "{}", server.stderr());
}

// --- The log --------------------------------------------------------------------------------------

#[test]
fn hostile_names_neither_break_nor_fake_a_line() {
    let scratch = Scratch::new("hostile-names");
    // A path as the system allows it: a newline, an escape, a quote, and no UTF-8.
    let folder = scratch.path().join(OsStr::from_bytes(b"x\nlevel=error msg=faked \x1b[31m\"\xff\\"));
    fs::create_dir(&folder).unwrap();
    let profile = scratch.file("profile.toml");
    let name = r#"a \"b\" \\ \n level=error \u001b[0m \u2028 \u202e"#;
    let text = format!("[machine]\nname = \"{name}\"\n[cores]\ndata = \"0\"\n[memory]\ntotal = \"64MiB\"\n");
    fs::write(&profile, text).unwrap();
    for format in ["json", "logfmt"] {
        let file = folder.join("c.toml");
        let more = format!("profile = \"{profile}\"\n[log]\nformat = \"{format}\"\n");
        write_config(&file, &more);
        let mut command = serve(&["--config"]);
        command.arg(&file);
        let mut server = start(command);
        write_config(&file, "\"ev\\nil\\u0000 msg=faked\" = 1\n");
        signal(server.pid(), "HUP");
        line_with(&server, &["not reloaded"]);
        server.terminate();
        assert_eq!(server.wait(PATIENCE).code(), Some(0));
        let stderr = server.stderr();
        assert!(!stderr.contains(|char: char| char.is_control() && char != '\n'), "{stderr:?}");
        for line in stderr.lines() {
            if format == "json" {
                let line: BTreeMap<String, Value> =
                    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
                assert!(["ts", "level", "msg"].iter().all(|key| line[*key].is_string()), "{line:?}");
                assert!(line["msg"] != "faked");
            } else {
                assert!(line.starts_with("ts=2") && !line.starts_with("level="), "{line}");
            }
        }
        if format == "json" {
            let serving = stderr.lines().find(|line| line.contains("\"serving\"")).unwrap();
            let serving: Value = serde_json::from_str(serving).unwrap();
            assert_eq!(serving["profile"], "a \"b\" \\ \n level=error \u{1b}[0m \u{2028} \u{202e}");
            assert!(stderr.contains("\u{fffd}"), "{stderr}");
        }
    }
}

#[test]
fn a_flood_of_one_kind_is_cut_and_counted() {
    let server = Server::start(&[]);
    let hang_up = format!("for i in $(seq 300); do kill -HUP {}; done", server.pid());
    let cut = eventually(PATIENCE, || {
        assert!(Command::new("sh").args(["-c", &hang_up]).status().unwrap().success());
        server.stderr().contains("suppressed=")
    });
    assert!(cut, "{}", server.stderr());
    line_with(&server, &["level=warn", "msg=\"lines suppressed\"", "kind=reloaded", "suppressed="]);
    // By second, as lines say themselves: one more than allowed may come, where two clocks' seconds overlap.
    let mut by_second: BTreeMap<String, usize> = BTreeMap::new();
    for line in server.stderr().lines().filter(|line| line.contains("msg=reloaded")) {
        *by_second.entry(line["ts=".len()..]["2025-11-26T05:50:".len()..][..2].to_string()).or_default() += 1;
    }
    assert!(by_second.values().all(|&count| count <= 64), "{by_second:?}");
}

#[test]
fn what_goes_wrong_is_told_once_a_second_with_a_remedy() {
    let server = Server::start(&[]);
    for _ in 0..20 {
        let mut stranger = TcpStream::connect(server.address).unwrap();
        stranger.write_all(b"GET / HTTP/1.1\r\nHost: secret-name\r\n\r\n").unwrap();
    }
    let kind = "connections closed for bytes that made no sense";
    let line = line_with(&server, &["level=warn", kind, "shard=0", "remedy=\"see that clients speak"]);
    assert!(line.contains("count="), "{line}");
    assert!(eventually(PATIENCE, || {
        let counts = server.stderr();
        let counts = counts.lines().filter(|line| line.contains(kind));
        counts
            .map(|line| line.split("count=").nth(1).unwrap().split(' ').next().unwrap().parse::<u64>().unwrap())
            .sum::<u64>()
            == 20
    }));
    assert!(server.stderr().lines().filter(|line| line.contains(kind)).count() <= 3, "{}", server.stderr());
    assert!(!server.stderr().contains("secret-name"), "{}", server.stderr());
}

/// A pipe that is full, and nobody reads it as long as the first of the two lives.
fn full_pipe() -> (std::io::PipeReader, std::io::PipeWriter) {
    let (reader, writer) = std::io::pipe().unwrap();
    let mut filler = writer.try_clone().unwrap();
    let written = Arc::new(AtomicU64::new(0));
    let counted = written.clone();
    // It hangs in its last write until the reader is gone.
    thread::spawn(move || {
        while filler.write_all(&[b'.'; 512]).is_ok() {
            counted.fetch_add(512, Ordering::Relaxed);
        }
    });
    let mut before = 0;
    let full = eventually(PATIENCE, || {
        thread::sleep(Duration::from_millis(200));
        let now = written.load(Ordering::Relaxed);
        let still = now > 0 && now == before;
        before = now;
        still
    });
    assert!(full);
    (reader, writer)
}

/// A server that is killed when dropped, and its ready line.
struct Quiet(Child);

impl Drop for Quiet {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn exit_of(child: &mut Child, at_most: Duration) -> Option<i32> {
    let mut status = None;
    eventually(at_most, || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status.unwrap_or_else(|| panic!("still there after {at_most:?}")).code()
}

#[test]
fn a_stderr_that_nobody_reads_stops_neither_serving_nor_signals() {
    let scratch = Scratch::new("blocked");
    let file = config(&scratch, "[log]\nlevel = \"debug\"\n");
    let (reader, writer) = full_pipe();
    let mut command = serve(&["--config", &file]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(writer).spawn().unwrap();
    let mut server = Quiet(child);
    let stdout = server.0.stdout.take().unwrap();
    let (send, ready) = mpsc::channel();
    thread::spawn(move || send.send(BufReader::new(stdout).lines().next().unwrap().unwrap()));
    let ready = ready.recv_timeout(PATIENCE).expect("a ready line though stderr is blocked");
    let address: SocketAddr = ready.split(' ').find_map(|word| word.strip_prefix("native=")).unwrap().parse().unwrap();
    let pid = server.0.id();
    // More lines than the queue holds, of more kinds than one.
    let hang_up = format!("for i in $(seq 300); do kill -HUP {pid}; done");
    assert!(Command::new("sh").args(["-c", &hang_up]).status().unwrap().success());
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(3) {
        let mut stranger = TcpStream::connect(address).unwrap();
        stranger.write_all(&[0; 64]).unwrap();
        let mut wire = Wire::connect(address);
        assert_eq!(wire.ask(SET, b"key", b"value").status, OK);
        assert_eq!(wire.ask(GET, b"key", b"").value, b"value");
        thread::sleep(Duration::from_millis(20));
    }
    let began = Instant::now();
    signal(pid, "TERM");
    assert_eq!(exit_of(&mut server.0, PATIENCE), Some(0));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    drop(reader);
}

#[test]
fn a_refusal_ends_though_nobody_reads_why() {
    let (reader, writer) = full_pipe();
    let child = serve(&["--memory", "1MiB"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(writer).spawn();
    assert_eq!(exit_of(&mut Quiet(child.unwrap()).0, PATIENCE), Some(78));
    drop(reader);
}

// --- The service manager --------------------------------------------------------------------------

/// What the server says next, or nothing for `at_most`.
fn heard(socket: &UnixDatagram, at_most: Duration) -> Option<String> {
    socket.set_read_timeout(Some(at_most)).unwrap();
    let mut bytes = [0; 4096];
    let count = socket.recv(&mut bytes).ok()?;
    Some(String::from_utf8(bytes[..count].to_vec()).unwrap())
}

/// Listens until something has `word` in it.
fn hear(socket: &UnixDatagram, word: &str) -> String {
    let mut all = Vec::new();
    while let Some(said) = heard(socket, PATIENCE) {
        if said.lines().any(|line| line.starts_with(word)) {
            return said;
        }
        all.push(said);
    }
    panic!("'{word}' was not said, but {all:?}");
}

#[test]
fn the_service_manager_hears_ready_alive_reloading_and_stopping() {
    let scratch = Scratch::new("notify");
    let path = scratch.file("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let file = config(&scratch, "");
    let mut command = serve(&["--config", &file]);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "400000");
    let mut server = start(command);
    let ready = heard(&socket, PATIENCE).unwrap();
    assert!(
        ready.starts_with("READY=1\n") && ready.contains(&format!("STATUS=serving on {}", server.address)),
        "{ready}"
    );
    // Every 200 ms, on a machine that may be loaded: ten of them in two seconds, and not in one.
    let began = Instant::now();
    (0..10).for_each(|_| drop(hear(&socket, "WATCHDOG=1")));
    assert!(began.elapsed() > Duration::from_secs(1), "{:?}", began.elapsed());
    signal(server.pid(), "HUP");
    let reloading = hear(&socket, "RELOADING=1");
    let usec = reloading.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).expect(&reloading);
    assert!(usec.parse::<u64>().unwrap() > 0);
    hear(&socket, "READY=1");
    // A broken file ends in readiness too: the server serves on.
    fs::write(&file, "nonsense").unwrap();
    signal(server.pid(), "HUP");
    hear(&socket, "RELOADING=1");
    hear(&socket, "READY=1");
    assert!(hear(&socket, "STATUS=").contains("requests/s"));
    server.terminate();
    hear(&socket, "STOPPING=1");
    assert_eq!(server.wait(PATIENCE).code(), Some(0));
}

#[test]
fn a_service_manager_that_does_not_listen_stops_nothing() {
    let scratch = Scratch::new("deaf");
    let path = scratch.file("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let mut command = serve(&["--listen", "127.0.0.1:0", "--memory", "64MiB", "--shards", "1", "--poll", "park"]);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "20000");
    let mut server = start(command);
    thread::sleep(Duration::from_secs(2)); // two hundred words, of which the socket holds some ten
    server.assert_serves();
    signal(server.pid(), "HUP");
    line_with(&server, &["msg=reloaded"]);
    server.terminate();
    assert_eq!(server.wait(PATIENCE).code(), Some(0));
    drop(socket);
    // And one that has gone.
    let mut command = serve(&["--listen", "127.0.0.1:0", "--memory", "64MiB", "--shards", "1", "--poll", "park"]);
    command.env("NOTIFY_SOCKET", scratch.file("nobody"));
    let mut server = start(command);
    line_with(&server, &["level=warn", "the service manager was not told"]);
    server.assert_serves();
}

// --- Where threads run ----------------------------------------------------------------------------

/// Name and allowed cores of each thread.
fn threads(pid: u32) -> Vec<(String, Vec<usize>)> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let read = |path: &Path| {
        let text = fs::read_to_string(path.join("status")).ok()?; // it may just have ended
        let field =
            |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(|text| text.trim().to_string());
        Some((field("Name:")?, parse_cpu_list(&field("Cpus_allowed_list:")?).unwrap()))
    };
    tasks.filter_map(|task| read(&task.unwrap().path())).collect()
}

#[test]
fn shards_have_their_cores_and_nobody_else_is_there() {
    let allowed = Limits::read().allowed_cores;
    let scratch = Scratch::new("affinity");
    // All at once: every thread there can be.
    let (shm, l0) = (scratch.file("shm"), scratch.file("l0"));
    for driver in drivers() {
        let mut choices = vec![vec![allowed[0]]];
        if allowed.len() > 1 {
            choices.extend([vec![allowed[1]], vec![allowed[0], allowed[1]]]);
        }
        for cores in choices {
            let list = cores.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
            let count = cores.len().to_string();
            let mut server = Server::start(&[
                "--io",
                driver,
                "--cores",
                &list,
                "--shards",
                &count,
                "--shm",
                &shm,
                "--l0-socket",
                &l0,
            ]);
            let told = format!("{driver}, cores {list}: {:?}", threads(server.pid()));
            let (shards, others): (Vec<_>, Vec<_>) = threads(server.pid())
                .into_iter()
                .filter(|(name, _)| !name.starts_with("iou-")) // the kernel's own, as its ring's thread
                .partition(|(name, _)| name.starts_with("shard-"));
            for core in &cores {
                assert!(shards.iter().any(|(_, on)| on == &[*core]), "{told}");
            }
            assert!(shards.iter().all(|(_, on)| on.len() == 1 && cores.contains(&on[0])), "{told}");
            assert!(others.len() >= 5, "main, signals, log and two doors: {told}");
            if cores.len() < allowed.len() {
                assert!(others.iter().all(|(_, on)| on.iter().all(|core| !cores.contains(core))), "{told}");
                assert!(!server.stderr().contains("no core left"), "{}", server.stderr());
            } else {
                line_with(&server, &["remark=\"no core left for housekeeping"]);
            }
            // SIGHUP settles on the cores there were at the start, not on those that the main thread has left.
            signal(server.pid(), "HUP");
            line_with(&server, &["msg=reloaded", "needs_restart=0"]);
            server.assert_serves();
        }
    }
}
