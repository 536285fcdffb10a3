//! `spinetail top`: in a terminal without a person, against servers that are wrong in every way, and against the real
//! one.

mod common;
#[path = "common/terminal.rs"]
mod terminal;

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use common::{Ended, PATIENCE, SPINETAIL, Scratch, Server, signal, spinetail};
use serde_json::Value;
use terminal::Terminal;

// --- A server that says what a test wants ------------------------------------------------------

/// Answers the connections that come, one at a time, by `answer(number, head, stream)`.
struct Fake {
    address: String,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    fn start(answer: impl Fn(usize, &str, &mut TcpStream) -> std::io::Result<()> + Send + 'static) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let seen = heads.clone();
        thread::spawn(move || {
            for (number, stream) in listener.incoming().map_while(Result::ok).enumerate() {
                let lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
                let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
                let head = head.join("\n").to_lowercase();
                seen.lock().unwrap().push(head.clone());
                let mut stream = stream;
                let _ = answer(number, &head, &mut stream); // the reader may leave whenever it likes
            }
        });
        Fake { address, heads }
    }

    fn saying(bytes: Vec<u8>) -> Fake {
        Fake::start(move |_, _, stream| stream.write_all(&bytes))
    }
}

const EVENTS: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";

/// The examples of the documentation, each in one line.
fn examples() -> (Value, Value) {
    let page = include_str!("../docs/observability.md");
    let mut blocks = page.split("```json\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let mut next = || serde_json::from_str(blocks.next().unwrap()).unwrap();
    (next(), next())
}

/// Says hello and `count` ticks, every hundredth of a second, each as `change` makes it.
fn tell(stream: &mut TcpStream, count: u64, change: impl Fn(u64, &mut Value)) -> std::io::Result<()> {
    let (hello, example) = examples();
    stream.write_all(EVENTS.as_bytes())?;
    write!(stream, "retry: 200\nid: 7-0\nevent: hello\ndata: {hello}\n\n")?;
    for number in 1..=count {
        let mut tick = example.clone();
        tick["unix_ms"] = (1_764_140_001_000u64 + number * 100).into();
        change(number, &mut tick);
        write!(stream, "id: 7-{number}\nevent: tick\ndata: {tick}\n\n")?;
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn top(arguments: &[&str]) -> Ended {
    let mut all = vec!["top"];
    all.extend(arguments);
    spinetail(&all)
}

#[track_caller]
fn assert_says(ended: &Ended, words: &[&str]) {
    assert_eq!(ended.status, Some(1), "{ended:?}");
    assert!(ended.stdout.is_empty(), "{ended:?}");
    assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
    assert!(!ended.stderr.contains(['\x1b', '\x07', '\r']), "{ended:?}");
    for word in words {
        assert!(ended.stderr.contains(word), "no '{word}' in {ended:?}");
    }
}

// --- What goes wrong ---------------------------------------------------------------------------

#[test]
fn nobody_there_is_said_with_what_to_do() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let words = [address.as_str(), "refused", "start the server with --admin, or name it with --admin"];
    assert_says(&top(&["--admin", &address]), &words);
    assert_says(&top(&["--admin", &format!("http://{address}/"), "--json"]), &words);
    assert_eq!(top(&["--admin", "https://a:1"]).status, Some(2));
}

#[test]
fn wrong_servers_are_told_from_right_ones() {
    let head = |status: &str, kind: &str| format!("HTTP/1.1 {status}\r\ncontent-type: {kind}\r\n\r\n");
    let html = "<html>hello</html>";
    let cases: [(String, &[&str]); 9] = [
        (head("200 OK", "text/html") + html, &["text/html", "another program"]),
        (head("200 OK", "te\x1bxt/\x07ml") + html, &[]),
        (head("404 Not Found", "text/html") + html, &["404 for /events", "another program"]),
        (head("503 Service Unavailable", "text/plain") + "starting", &["503", "try again"]),
        ("-ERR unknown command 'GET'\r\n".to_string(), &["no HTTP", "name the server's admin listener"]),
        (EVENTS.to_string() + "event: hello\ndata: {\"version\":\"9\"}\n\n", &["hello", "missing field", "version"]),
        (EVENTS.to_string() + "event: hello\ndata: <html>\x1b[2J\n\n", &["hello that is not understood"]),
        (EVENTS.to_string() + "data: " + &"x".repeat(2 << 20), &["an event of more than 1024 KiB"]),
        (EVENTS.to_string(), &["the connection was closed"]),
    ];
    for (says, words) in cases {
        let fake = Fake::saying(says.clone().into_bytes());
        let ended = top(&["--admin", &fake.address]);
        println!("{}", ended.stderr);
        assert_says(&ended, words);
    }
}

#[test]
fn a_server_that_says_nothing_is_given_up() {
    let fake = Fake::start(|_, _, _| {
        thread::sleep(PATIENCE);
        Ok(())
    });
    assert_says(&top(&["--admin", &fake.address]), &["no answer within 5 s"]);
}

#[test]
fn tokens_are_sent_and_their_refusal_is_explained() {
    let fake = Fake::start(|_, head, stream| match head.contains("authorization: bearer geheim") {
        true => tell(stream, 10, |_, _| {}),
        false => stream.write_all(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n"),
    });
    assert_says(&top(&["--admin", &fake.address]), &["a token is demanded", "--token-file"]);
    let scratch = Scratch::new("top-token");
    let (right, wrong) = (scratch.file("right"), scratch.file("wrong"));
    std::fs::write(&right, "geheim\n").unwrap();
    std::fs::write(&wrong, "other").unwrap();
    let refused = top(&["--admin", &fake.address, "--token-file", &wrong]);
    assert_says(&refused, &["the token is refused", &wrong, "--admin-token-file"]);
    assert!(!refused.stderr.contains("other"));
    assert_says(&top(&["--admin", &fake.address, "--token-file", "/nowhere"]), &["token file", "No such file"]);
    assert_eq!(top(&["--admin", &fake.address, "--token-file", &right]).status, Some(0));
}

// --- Once ----------------------------------------------------------------------------------------

#[test]
fn a_pipe_gets_a_snapshot_of_a_whole_window() {
    let fake = Fake::start(|_, _, stream| tell(stream, 10, |number, tick| tick["rates"]["requests"] = number.into()));
    let ended = top(&["--admin", &fake.address]);
    assert_eq!(ended.status, Some(0), "{ended:?}");
    for line in ["requests/s             5.5", "GET p50 / p99 / p99.9  4.5 µs / 8.0 µs / 19.0 µs", "shards", "hot keys"]
    {
        assert!(ended.stdout.lines().any(|found| found == line), "no '{line}' in\n{}", ended.stdout);
    }
}

#[test]
fn json_is_the_tick_as_it_came() {
    let fake = Fake::start(|_, _, stream| tell(stream, 10, |_, tick| tick["hot_keys"][0]["key"] = "\u{9b}2J".into()));
    let ended = top(&["--admin", &fake.address, "--json"]);
    assert_eq!((ended.status, ended.stdout.lines().count()), (Some(0), 1), "{ended:?}");
    assert!(ended.stdout.contains(r"\u009b2J") && !ended.stdout.contains('\u{9b}'));
    let tick: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((&tick["unix_ms"], &tick["hot_keys"][0]["key"]), (&1_764_140_002_000u64.into(), &"\u{9b}2J".into()));
}

#[test]
fn once_in_a_terminal_leaves_the_screen_alone() {
    let fake = Fake::start(|_, _, stream| tell(stream, 10, |_, _| {}));
    let terminal = Terminal::start(&["top", "--admin", &fake.address, "--once"], 100, 60);
    let text = terminal.assert_restored(0, PATIENCE);
    assert!(text.contains("requests/s             120k") && !terminal.bytes().contains(&0x1b), "{text}");
}

// --- The screen ------------------------------------------------------------------------------------

fn endless() -> Fake {
    Fake::start(|_, _, stream| tell(stream, 100_000, |number, tick| tick["rates"]["requests"] = number.into()))
}

#[test]
fn ctrl_c_and_signals_give_the_terminal_back() {
    let fake = endless();
    for (keys, name) in [("\x03", ""), ("", "TERM"), ("", "INT"), ("\x1b", "")] {
        let terminal = Terminal::start(&["top", "--admin", &fake.address], 80, 24);
        terminal.wait("the screen", PATIENCE, |text| text.contains("live 127.0.0.1"));
        terminal.press(keys);
        if !name.is_empty() {
            signal(terminal.child_pid(), name);
        }
        terminal.assert_restored(0, PATIENCE);
    }
}

#[test]
fn a_terminal_that_hangs_up_ends_it() {
    let fake = endless();
    let mut terminal = Terminal::start(&["top", "--admin", &fake.address], 80, 24);
    terminal.wait("the screen", PATIENCE, |text| text.contains("live 127.0.0.1"));
    let pid = terminal.child_pid();
    terminal.hang_up();
    let state = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let ended = common::eventually(PATIENCE, || state().is_empty() || state().contains(") Z "));
    if !ended {
        signal(pid, "KILL");
    }
    assert!(ended, "it went on without its terminal");
}

#[test]
fn the_screen_follows_the_size_of_the_terminal() {
    let fake = endless();
    let terminal = Terminal::start(&["top", "--admin", &fake.address], 80, 24);
    let small = terminal.wait("the screen", PATIENCE, |text| text.contains("requests/s, 2 min"));
    assert!(!small.contains("tenants"), "{small}");
    terminal.resize(160, 50);
    terminal.wait("the second column", PATIENCE, |text| text.contains("tenants") && text.contains("fragmentation"));
    terminal.resize(20, 5);
    terminal.wait("a corner", PATIENCE, |text| text.contains("requests/s ") && !text.contains("latency"));
    terminal.resize(80, 24);
    terminal.wait("all of it again", PATIENCE, |text| text.contains("1 overview"));
    terminal.press("q");
    terminal.assert_restored(0, PATIENCE);
}

#[test]
fn pages_pause_and_help_come_by_their_keys() {
    let fake = endless();
    let terminal = Terminal::start(&["top", "--admin", &fake.address], 80, 24);
    terminal.wait("the screen", PATIENCE, |text| text.contains("live 127.0.0.1"));
    terminal.press("?");
    terminal.wait("the help", PATIENCE, |text| text.contains("any key closes this") && text.contains("Ctrl-C"));
    terminal.press("\x1b");
    terminal.wait("its end", PATIENCE, |text| !text.contains("any key closes this"));
    terminal.press("4");
    terminal.wait("memory", PATIENCE, |text| text.contains("fragmentation") && text.contains("hits, 2 min"));
    terminal.press("\t\t");
    terminal.wait("latency", PATIENCE, |text| text.contains("SET p99") && text.contains("p99.9"));
    terminal.press("+");
    terminal.wait("a longer chart", PATIENCE, |text| text.contains("SET p99, 5 min"));
    terminal.press("p");
    let paused = terminal.wait("the pause", PATIENCE, |text| text.contains("PAUSED"));
    thread::sleep(Duration::from_millis(700));
    assert_eq!(terminal.text(), paused);
    terminal.press("p");
    terminal.wait("moving figures", PATIENCE, |text| !text.contains("PAUSED") && text != paused);
    terminal.press("q");
    terminal.assert_restored(0, PATIENCE);
}

#[test]
fn a_lost_link_is_shown_and_taken_up_where_it_broke() {
    let fake = Fake::start(|number, _, stream| {
        if number == 1 {
            thread::sleep(Duration::from_millis(2500));
        }
        tell(stream, if number == 0 { 30 } else { 100_000 }, |_, _| {})
    });
    let terminal = Terminal::start(&["top", "--admin", &fake.address], 80, 24);
    terminal.wait("the screen", PATIENCE, |text| text.contains("live 127.0.0.1"));
    terminal.wait("its age", PATIENCE, |text| text.contains("stale for 2 s: the connection was closed"));
    assert!(terminal.text().contains("120k"), "the last figures stay:\n{}", terminal.text());
    terminal.wait("the link", PATIENCE, |text| text.contains("live 127.0.0.1"));
    terminal.press("q");
    terminal.assert_restored(0, PATIENCE);
    let heads = fake.heads.lock().unwrap();
    assert!(!heads[0].contains("last-event-id") && heads[1].contains("last-event-id: 7-30"), "{heads:#?}");
}

#[test]
fn names_do_not_command_the_terminal() {
    let fake = Fake::start(|_, _, stream| {
        tell(stream, 100_000, |_, tick| {
            tick["hot_keys"][0]["key"] = "\x1b]0;owned\x07\u{202e}".into();
            tick["tenants"][0]["tenant"] = "\u{9b}2Jx".into();
        })
    });
    let terminal = Terminal::start(&["top", "--admin", &fake.address], 160, 50);
    terminal
        .wait("the names", PATIENCE, |text| text.contains(r"\x1b]0;owned\x07\u{202e}") && text.contains(r"\u{9b}2Jx"));
    let bytes = terminal.bytes();
    for raw in ["\x1b]0;", "\u{202e}", "\u{9b}"] {
        assert!(!bytes.windows(raw.len()).any(|window| window == raw.as_bytes()), "{raw:?} was written");
    }
}

#[test]
fn no_colour_and_no_unicode_where_they_are_not_wanted() {
    let fake = endless();
    let variables = [("NO_COLOR", "1"), ("LC_ALL", "C")];
    let terminal = Terminal::start_with(&["top", "--admin", &fake.address], 160, 50, &variables);
    terminal.wait("the screen", PATIENCE, |text| text.contains("tenants"));
    let bytes = terminal.bytes();
    assert!(bytes.is_ascii());
    let text = String::from_utf8(bytes).unwrap();
    for colour in ["\x1b[3", "\x1b[38;"] {
        let coloured = text.match_indices(colour).filter(|(at, _)| {
            let rest = &text[at + 2..];
            let end = rest.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(0);
            rest[end..].starts_with('m') && !rest[..end].split(';').all(|part| part == "39" || part == "0")
        });
        assert_eq!(coloured.count(), 0);
    }
}

// --- The real server -----------------------------------------------------------------------------

/// A load for as long as it is held.
struct Load(Child);

impl Load {
    fn start(server: &Server) -> Load {
        let mut command = Command::new(SPINETAIL);
        command.args([
            "load",
            "--target",
            &server.target(),
            "--rate",
            "2000",
            "--duration",
            "60s",
            "--connections",
            "4",
        ]);
        command.args(["--fill", "--keys", "2000"]);
        Load(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a load"))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn admin_of(server: &Server) -> String {
    let word = server.ready.split_whitespace().find_map(|word| word.strip_prefix("admin="));
    word.unwrap_or_else(|| panic!("no admin= in '{}'", server.ready)).to_string()
}

/// The figure that follows `label` in the snapshot.
fn figure<'a>(text: &'a str, label: &str) -> &'a str {
    let line = text.lines().find(|line| line.starts_with(label)).unwrap_or_else(|| panic!("no {label} in\n{text}"));
    line[label.len()..].trim()
}

#[test]
fn a_server_under_load_is_seen() {
    let server = Server::start(&["--admin", "127.0.0.1:0"]);
    let admin = admin_of(&server);
    let _load = Load::start(&server);

    // Once, until the load is under way.
    let mut snapshot = String::new();
    let came = common::eventually(PATIENCE, || {
        let ended = top(&["--admin", &admin]);
        assert_eq!(ended.status, Some(0), "{ended:?}");
        snapshot = ended.stdout;
        figure(&snapshot, "requests/s").ends_with('k') && snapshot.contains("  get ")
    });
    println!("{snapshot}");
    assert!(came, "{snapshot}");
    assert!(figure(&snapshot, "hits · L0 / L1 / miss").starts_with("100.0 %"), "{snapshot}");
    assert_eq!(figure(&snapshot, "connections"), "4", "{snapshot}");
    let ended = top(&["--admin", &admin, "--json"]);
    let tick: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert!(tick["rates"]["requests"].as_f64().unwrap() > 500.0, "{tick}");

    // Live: figures that move, the help, and out.
    let terminal = Terminal::start(&["top", "--admin", &admin], 120, 40);
    let first = terminal.wait("figures", PATIENCE, |text| text.contains("live 127.0.0.1") && text.contains("get "));
    terminal.wait("other figures", PATIENCE, |text| text.contains("live 127.0.0.1") && text != first);
    terminal.wait("hot keys", PATIENCE, |text| text.contains("hot keys") && text.contains('#'));
    terminal.press("?");
    terminal.wait("the help", PATIENCE, |text| text.contains("any key closes this"));
    terminal.press(" ");
    let text = terminal.wait("its end", PATIENCE, |text| !text.contains("any key closes this"));
    println!("{text}");
    terminal.press("q");
    terminal.assert_restored(0, PATIENCE);
}

#[test]
fn a_server_that_ends_is_missed() {
    let mut server = Server::start(&["--admin", "127.0.0.1:0"]);
    let terminal = Terminal::start(&["top", "--admin", &admin_of(&server)], 100, 30);
    terminal.wait("figures", PATIENCE, |text| text.contains("live 127.0.0.1") && text.contains("shards"));
    server.terminate();
    server.wait(PATIENCE);
    terminal.wait("that it is gone", PATIENCE, |text| text.contains("stale for") && text.contains("refused"));
    terminal.press("q");
    terminal.assert_restored(0, PATIENCE);
}

#[test]
fn a_token_of_the_real_server_is_demanded_and_taken() {
    let scratch = Scratch::new("top-admin");
    let token = scratch.file("token");
    std::fs::write(&token, "correct-horse-battery-staple\n").unwrap();
    let _ = Command::new("chmod").args(["600", &token]).status();
    let server = Server::start(&["--admin", "127.0.0.1:0", "--admin-token-file", &token]);
    let admin = admin_of(&server);
    assert_says(&top(&["--admin", &admin]), &["a token is demanded"]);
    let ended = top(&["--admin", &admin, "--token-file", &token]);
    assert_eq!(ended.status, Some(0), "{ended:?}");
}
