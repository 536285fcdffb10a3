//! Strangers at the admin listener: too long, too slow, too many, without the token. They are refused, and a native client
//! beside them notices nothing.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::common::{GET, OK, SET, Scratch, Server};
use crate::http::{ask, base64, connect, get, head, is_closed_within, request};
use crate::page::{samples, sum};
use crate::{admin_of, http};

/// "Some seconds" until a request that stops in the middle is given up.
const STOPPED_MAX: Duration = Duration::from_secs(20);
/// More connections than any admin listener should hold.
const FLOOD: usize = 1500;
/// No GET takes longer, whatever strangers do: generous, for machines that others use.
const GET_MAX: Duration = Duration::from_millis(500);
const TOKEN: &str = "a-token-of-more-than-16-characters";

/// A native client that reads one key after the other and checks every answer.
struct Reader {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<(u64, Duration)>>,
}

impl Reader {
    fn start(address: SocketAddr) -> Reader {
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let thread = thread::spawn(move || {
            let mut wire = crate::common::Wire::connect(address);
            assert_eq!(wire.ask(SET, b"steady", b"value").status, OK);
            let (mut count, mut slowest) = (0, Duration::ZERO);
            while !told.load(Ordering::Relaxed) {
                let started = Instant::now();
                assert_eq!(wire.ask(GET, b"steady", b"").value, b"value");
                slowest = slowest.max(started.elapsed());
                count += 1;
                thread::sleep(Duration::from_micros(500));
            }
            (count, slowest)
        });
        Reader { stop, thread: Some(thread) }
    }

    /// Ends it, once it has read for a moment at least; panics if it was harmed.
    fn was_unharmed(mut self) {
        thread::sleep(Duration::from_millis(500));
        self.stop.store(true, Ordering::Relaxed);
        let (count, slowest) = self.thread.take().unwrap().join().expect("every GET was answered rightly");
        assert!(count > 100 && slowest < GET_MAX, "{count} GETs, the slowest took {slowest:?}");
        eprintln!("beside it: {count} GETs, the slowest took {slowest:?}");
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn server() -> (Server, SocketAddr) {
    let server = Server::start(&["--admin", "127.0.0.1:0"]);
    let admin = admin_of(&server);
    (server, admin)
}

fn refused(admin: SocketAddr) -> f64 {
    sum(&samples(&get(admin, "/metrics", &[]).text()), "spinetail_admin_refused_total", &[])
}

#[test]
fn what_is_not_there_or_not_allowed_is_refused_by_its_number() {
    let (_server, admin) = server();
    let status = |method: &str, path: &str| ask(admin, method, path, &[]).expect("an answer").status;
    for path in ["/", "/metrics", "/livez", "/readyz", "/debug/hdr"] {
        assert_eq!((status("GET", path), status("HEAD", path)), (200, 200), "{path}");
        for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
            assert_eq!(status(method, path), 405, "{method} {path}");
        }
    }
    for path in ["/nothing", "/metrics/", "//metrics", "/../etc/passwd", "/%2e%2e/etc/passwd", "/debug"] {
        assert_eq!(status("GET", path), 404, "{path}");
    }
    for host in ["evil.example", "evil.example:80", "localhost.evil.example", "127.0.0.1.evil.example", ""] {
        assert_eq!(get(admin, "/metrics", &[("Host", host)]).status, 403, "Host: {host}");
    }
    for host in ["localhost", "LOCALHOST:7790", "127.0.0.1:7790", "[::1]:7790"] {
        assert_eq!(get(admin, "/metrics", &[("Host", host)]).status, 200, "Host: {host}");
    }
    let allowed = ask(admin, "POST", "/metrics", &[]).unwrap();
    assert!(allowed.header("allow").is_some_and(|methods| methods.contains("GET")), "{allowed:?}");
}

#[test]
fn what_is_too_long_or_no_http_is_refused_and_reads_go_on() {
    let (server, admin) = server();
    let reader = Reader::start(server.address);
    let long = "x".repeat(100 << 10);
    let one_header = format!("GET /metrics HTTP/1.1\r\nHost: x\r\nX-Long: {long}\r\n\r\n");
    let many_headers = format!("GET /metrics HTTP/1.1\r\n{}\r\n", "X-Header: 0123456789abcdef\r\n".repeat(4000));
    let long_path = format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n");
    let binary: Vec<u8> = (0..=255u8).cycle().take(4096).collect();
    let cases = [
        ("one header", one_header.into_bytes()),
        ("many headers", many_headers.into_bytes()),
        ("a path", long_path.into_bytes()),
        ("binary", binary),
        ("no end of line", long.into_bytes()),
        ("no HTTP", b"EHLO example.net\r\n\r\n".to_vec()),
    ];
    for (name, bytes) in cases {
        let mut stream = connect(admin).unwrap();
        let _ = stream.write_all(&bytes); // it may be closed before all is sent
        let answer = head(&mut std::io::BufReader::new(stream.try_clone().unwrap()));
        match answer {
            Ok(response) => assert!((400..=431).contains(&response.status), "{name}: {response:?}"),
            Err(error) => {
                assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "{name}: neither answered nor closed")
            }
        }
        assert!(is_closed_within(stream, STOPPED_MAX), "{name}: it stays open");
        assert_eq!(get(admin, "/livez", &[]).status, 200, "{name}");
    }
    reader.was_unharmed();
}

#[test]
fn a_request_that_stops_or_drips_is_closed() {
    let (server, admin) = server();
    let reader = Reader::start(server.address);
    let mut stopped = Vec::new();
    for bytes in [&b""[..], b"G", b"GET /metr", b"GET /metrics HTTP/1.1\r\nHost: x\r\n"] {
        let mut stream = connect(admin).unwrap();
        stream.write_all(bytes).unwrap();
        stopped.push((bytes, stream));
    }
    // Another drips a byte each half second: time counts from the first.
    let mut drip = connect(admin).unwrap();
    let started = Instant::now();
    for byte in request("GET", "/metrics", &[("X-Drip", &"x".repeat(200))]) {
        if drip.write_all(&[byte]).is_err() {
            break;
        }
        thread::sleep(Duration::from_millis(500));
        assert!(started.elapsed() < 2 * STOPPED_MAX, "it lets a request drip for {:?}", started.elapsed());
    }
    for (bytes, stream) in stopped {
        assert!(is_closed_within(stream, STOPPED_MAX), "it waits for ever behind {:?}", String::from_utf8_lossy(bytes));
    }
    assert_eq!(get(admin, "/livez", &[]).status, 200);
    reader.was_unharmed();
}

#[test]
fn too_many_connections_are_refused_and_those_who_leave_make_room() {
    let (server, admin) = server();
    let reader = Reader::start(server.address);
    let mut held: Vec<TcpStream> = Vec::new();
    let mut refusal = None;
    for number in 0..FLOOD {
        let Ok(mut stream) = connect(admin) else {
            refusal = Some(number);
            break;
        };
        // A request, and the connection is kept for the next one.
        let _ = stream.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let mut status = [0; 12];
        if stream.read_exact(&mut status).is_err() || status.ends_with(b"503") {
            refusal = Some(number);
            break;
        }
        held.push(stream);
    }
    let refusal = refusal.unwrap_or_else(|| panic!("{FLOOD} connections were taken"));
    eprintln!("refused at connection {refusal}");
    drop(held);
    let answers = || ask(admin, "GET", "/metrics", &[]).is_ok_and(|response| response.status == 200);
    assert!(crate::common::eventually(STOPPED_MAX, answers), "no room again");
    assert!(refused(admin) > 0.0, "refused connections are counted");
    reader.was_unharmed();
}

#[test]
fn connections_that_say_nothing_keep_nobody_out() {
    let (server, admin) = server();
    let reader = Reader::start(server.address);
    let mut held = Vec::new();
    for number in 0..FLOOD {
        let mut stream = connect(admin).unwrap();
        // Nothing at all, or half a request.
        if number % 2 == 0 {
            let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\n");
        }
        held.push(stream);
        if number % 50 == 49 {
            assert_eq!(get(admin, "/livez", &[]).status, 200, "beside {number} silent connections");
        }
    }
    assert!(is_closed_within(held.swap_remove(0), Duration::from_secs(1)), "the oldest has gone");
    reader.was_unharmed();
}

#[test]
fn two_hundred_that_come_in_one_moment_are_all_answered() {
    let (server, admin) = server();
    let reader = Reader::start(server.address);
    let mut streams: Vec<TcpStream> = (0..200).map(|_| connect(admin).unwrap()).collect();
    for stream in &mut streams {
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    }
    for (number, stream) in streams.iter_mut().enumerate() {
        let mut status = [0; 12];
        stream.read_exact(&mut status).unwrap_or_else(|error| panic!("connection {number}: {error}"));
        assert!(status.ends_with(b"200"), "connection {number}: {}", String::from_utf8_lossy(&status));
    }
    reader.was_unharmed();
}

#[test]
fn others_than_loopback_need_a_token() {
    let refused = Server::try_start(&["--admin", "0.0.0.0:0"]).err().expect("this must not start");
    refused.assert_refused(78, &["--admin", "--admin-token-file"]);
    let refused = Server::try_start(&["--admin", "[::]:0"]).err().expect("this must not start");
    refused.assert_refused(78, &["--admin-token-file"]);
}

#[test]
fn only_the_token_opens() {
    let scratch = Scratch::new("metrics-token");
    let file = scratch.file("token");
    fs::write(&file, format!("{TOKEN}\n")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let server = Server::start(&["--admin", "0.0.0.0:0", "--admin-token-file", &file]);
    let admin = SocketAddr::from(([127, 0, 0, 1], admin_of(&server).port()));
    let status = |path: &str, credentials: &str| {
        let headers: &[(&str, &str)] = if credentials.is_empty() { &[] } else { &[("Authorization", credentials)] };
        get(admin, path, headers).status
    };
    let basic = |text: String| format!("Basic {}", base64(text.as_bytes()));
    let before = refused_with(admin);
    let wrong = [
        String::new(),
        "Bearer".to_string(),
        "Bearer ".to_string(),
        format!("Bearer {}", &TOKEN[..TOKEN.len() - 1]),
        format!("Bearer {TOKEN}x"),
        format!("Bearer {}", TOKEN.to_uppercase()),
        TOKEN.to_string(),
        basic(TOKEN.to_string()),
        basic(format!("{TOKEN}:")),
        basic("anybody:guess".to_string()),
        "Basic !!!".to_string(),
    ];
    for credentials in &wrong {
        for path in ["/", "/metrics", "/events", "/debug/hdr", "/nothing"] {
            assert_eq!(status(path, credentials), 401, "{path} with '{credentials}'");
        }
    }
    let right = [
        format!("Bearer {TOKEN}"),
        format!("bearer {TOKEN}"),
        basic(format!("anybody:{TOKEN}")),
        basic(format!(":{TOKEN}")),
    ];
    for credentials in &right {
        for path in ["/", "/metrics", "/debug/hdr"] {
            assert_eq!(status(path, credentials), 200, "{path} with '{credentials}'");
        }
    }
    for path in ["/livez", "/readyz"] {
        assert_eq!(status(path, ""), 200, "{path} needs none");
    }
    let asked = get(admin, "/", &[]);
    let asks = asked.header("www-authenticate").unwrap_or_default();
    assert!(asks.contains("Basic"), "a browser is not asked for the token: {asked:?}");
    let guesses = (wrong.len() * 5 + 1) as f64;
    assert_eq!(refused_with(admin) - before, guesses, "each refusal is counted");
    assert!(!server.stderr().contains(TOKEN), "the token is in the log");
}

fn refused_with(admin: SocketAddr) -> f64 {
    let authorization = format!("Bearer {TOKEN}");
    let page = http::get(admin, "/metrics", &[("Authorization", &authorization)]).text();
    let with = |reason| sum(&samples(&page), "spinetail_admin_refused_total", &[("reason", reason)]);
    with("token") + with("no_token")
}
