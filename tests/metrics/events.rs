//! The stream of events: as documented, to a hundred readers, without a gap for those who come back, and not for those who
//! do not read.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::{Server, eventually, spinetail};
use crate::http::{self, Chunked, connect, get, request};
use crate::page::{samples, sum};
use crate::tools::root;
use crate::{Whole, admin_of};

/// An event as it came.
#[derive(Debug, Default)]
struct Event {
    name: String,
    id: String,
    data: String,
    retry: String,
}

impl Event {
    fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The number behind the start's.
    fn number(&self) -> u64 {
        self.id.rsplit('-').next().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no number: {self:?}"))
    }
}

/// A reader of events.
struct Events {
    lines: Box<dyn BufRead + Send>,
}

impl Events {
    fn open(admin: SocketAddr, last: Option<&str>) -> Events {
        let mut stream = connect(admin).unwrap();
        let resume: Vec<(&str, &str)> = last.map(|id| ("Last-Event-ID", id)).into_iter().collect();
        stream
            .write_all(&request("GET", "/events", &[&[("Accept", "text/event-stream")], &resume[..]].concat()))
            .unwrap();
        let mut reader = BufReader::new(stream);
        let head = http::head(&mut reader).unwrap();
        assert_eq!(head.status, 200, "{head:?}");
        assert!(head.header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream")), "{head:?}");
        assert!(
            head.header("cache-control").is_some_and(|value| value.contains("no-store") || value.contains("no-cache"))
        );
        let lines: Box<dyn BufRead + Send> = match head.header("transfer-encoding") {
            Some("chunked") => Box::new(BufReader::new(Chunked::new(reader))),
            _ => Box::new(reader),
        };
        Events { lines }
    }

    fn next(&mut self) -> Event {
        let mut event = Event::default();
        loop {
            let mut line = String::new();
            let count = self.lines.read_line(&mut line).expect("an event in time");
            assert!(count > 0, "the stream has ended");
            let line = line.trim_end_matches(['\r', '\n']);
            if line.is_empty() {
                if !event.data.is_empty() {
                    return event;
                }
                continue;
            }
            let Some((field, value)) = line.split_once(':') else { panic!("no field: {line}") };
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "" => {}
                "event" => event.name = value.to_string(),
                "id" => event.id = value.to_string(),
                "retry" => event.retry = value.to_string(),
                "data" => event.data += value,
                other => panic!("no field of server-sent events: {other}"),
            }
        }
    }

    /// The next tick, whatever comes before.
    fn tick(&mut self) -> Event {
        loop {
            let event = self.next();
            if event.name == "tick" {
                return event;
            }
        }
    }
}

/// The JSON that docs/observability.md shows as an example of an event.
fn documented(event: &str) -> Value {
    let text = std::fs::read_to_string(root().join("docs/observability.md")).unwrap();
    let from = text.find(&format!("\n`{event}`")).unwrap_or_else(|| panic!("{event} is not documented"));
    let block = text[from..].split("```json").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    serde_json::from_str(block).unwrap_or_else(|error| panic!("the example of {event}: {error}"))
}

/// Fields that one has and the other has not. Operations that did not occur are absent.
fn differences(path: &str, documented: &Value, live: &Value, into: &mut Vec<String>) {
    match (documented, live) {
        (Value::Object(documented), Value::Object(live)) => {
            for name in documented.keys().filter(|name| !live.contains_key(*name)) {
                into.push(format!("{path}.{name} is documented and not sent"));
            }
            for (name, value) in live {
                match documented.get(name) {
                    Some(known) => differences(&format!("{path}.{name}"), known, value, into),
                    None if path == "tick.latency" => {}
                    None => into.push(format!("{path}.{name} is sent and not documented")),
                }
            }
        }
        (Value::Array(documented), Value::Array(live)) => {
            if let (Some(known), Some(value)) = (documented.first(), live.first()) {
                differences(&format!("{path}[]"), known, value, into);
            }
        }
        (Value::Number(_), Value::Number(_))
        | (Value::String(_), Value::String(_))
        | (Value::Bool(_), Value::Bool(_)) => {}
        // Where there was nothing to measure.
        (Value::Number(_), Value::Null)
            if path.starts_with("hello.history") || path.contains(".idle_p") || path.ends_with("_ns") => {}
        (known, value) => into.push(format!("{path}: {known} is documented, {value} was sent")),
    }
}

fn readers(admin: SocketAddr) -> u64 {
    sum(&samples(&get(admin, "/metrics", &[]).text()), "spinetail_event_readers", &[]) as u64
}

#[test]
fn events_are_as_documented() {
    let whole = Whole::start("metrics-events", &[]);
    let target = whole.target("native");
    let load = thread::spawn(move || {
        spinetail(&[
            "load",
            "--target",
            &target,
            "--rate",
            "2000",
            "--duration",
            "4s",
            "--keys",
            "1000",
            "--on-miss",
            "set",
        ])
    });
    thread::sleep(Duration::from_millis(2500));
    let mut events = Events::open(whole.admin, None);
    let hello = events.next();
    assert_eq!((hello.name.as_str(), hello.retry.as_str()), ("hello", "1000"), "{hello:?}");
    let first = events.tick();
    let tick = events.tick();
    assert_eq!(tick.number(), first.number() + 1);
    let mut wrong = Vec::new();
    differences("hello", &documented("hello"), &hello.json(), &mut wrong);
    differences("tick", &documented("tick"), &tick.json(), &mut wrong);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    let (hello, tick) = (hello.json(), tick.json());
    let rate = |name: &str| tick["rates"][name].as_f64().unwrap();
    assert!(rate("get") > 0.0 && rate("requests") >= rate("get"), "{tick}");
    let percentiles = hello["percentiles"].as_array().unwrap().len();
    for stage in ["queue", "service", "total"] {
        let row: Vec<u64> =
            tick["latency"]["get"][stage].as_array().unwrap().iter().map(|it| it.as_u64().unwrap()).collect();
        assert!(row.len() == percentiles && row.is_sorted(), "{stage}: {row:?}");
    }
    let columns = hello["history"]["columns"].as_array().unwrap().len();
    for row in hello["history"]["rows"].as_array().unwrap() {
        assert_eq!(row.as_array().unwrap().len(), columns, "{row}");
    }
    assert!(
        tick["hot_keys"].as_array().unwrap().iter().all(|key| key["key"].as_str().unwrap().starts_with('#')),
        "{tick}"
    );
    assert_eq!(load.join().unwrap().status, Some(0));
}

#[test]
fn a_hundred_readers_get_ten_ticks_a_second() {
    let server = Server::start(&["--admin", "127.0.0.1:0"]);
    let admin = admin_of(&server);
    const READERS: usize = 100;
    const TICKS: u64 = 40;
    let threads: Vec<_> = (0..READERS)
        .map(|_| {
            thread::spawn(move || {
                let mut events = Events::open(admin, None);
                assert_eq!(events.next().name, "hello");
                let first = events.tick().number();
                let started = Instant::now();
                let numbers: Vec<u64> = (0..TICKS).map(|_| events.tick().number()).collect();
                assert_eq!(numbers, (first + 1..=first + TICKS).collect::<Vec<_>>(), "a gap");
                started.elapsed().as_secs_f64()
            })
        })
        .collect();
    assert!(eventually(Duration::from_secs(5), || readers(admin) == READERS as u64), "{} readers", readers(admin));
    let took: Vec<f64> = threads.into_iter().map(|thread| thread.join().expect("a reader was served")).collect();
    let (least, most) = took.iter().fold((f64::MAX, 0f64), |(least, most), &it| (least.min(it), most.max(it)));
    eprintln!("{TICKS} ticks to {READERS} readers in {least:.3} to {most:.3} s");
    let wanted = TICKS as f64 / 10.0;
    assert!(least > 0.9 * wanted && most < 1.25 * wanted, "{least} to {most} s for {TICKS} ticks");
    assert!(
        eventually(Duration::from_secs(10), || readers(admin) == 0),
        "{} readers have left and are kept",
        readers(admin)
    );
}

#[test]
fn who_comes_back_misses_nothing() {
    let server = Server::start(&["--admin", "127.0.0.1:0"]);
    let admin = admin_of(&server);
    let mut events = Events::open(admin, None);
    let last = (0..5).map(|_| events.tick()).last().unwrap();
    drop(events);
    thread::sleep(Duration::from_secs(3));
    let started = Instant::now();
    let mut events = Events::open(admin, Some(&last.id));
    let missed: Vec<u64> = (0..25).map(|_| events.tick().number()).collect();
    assert_eq!(missed, (last.number() + 1..=last.number() + 25).collect::<Vec<_>>());
    assert!(started.elapsed() < Duration::from_secs(2), "what was missed comes at once, not at ten a second");
    let live: Vec<u64> = (0..20).map(|_| events.tick().number()).collect();
    assert_eq!(live, (last.number() + 26..=last.number() + 45).collect::<Vec<_>>(), "a gap between missed and live");
    // Of another start, of the future, and of nobody: served like somebody new.
    let future = last.id.replace(&format!("-{}", last.number()), "-99999999");
    for id in ["1-5", &future, "x", "", "-", "18446744073709551616-18446744073709551616"] {
        let mut events = Events::open(admin, Some(id));
        assert_eq!(events.next().name, "hello", "'{id}'");
        let first = events.tick().number();
        assert_eq!(events.tick().number(), first + 1, "'{id}'");
    }
}

#[test]
fn who_reads_nothing_is_dropped() {
    let server = Server::start(&["--admin", "127.0.0.1:0"]);
    let admin = admin_of(&server);
    let mut stream = connect_narrow(admin);
    stream.write_all(&request("GET", "/events", &[])).unwrap();
    assert!(eventually(Duration::from_secs(5), || readers(admin) == 1), "it is no reader");
    let mut good = Events::open(admin, None);
    let started = Instant::now();
    // Until the kernel's buffers for the connection are full it is not to be seen that nobody reads.
    let is_dropped = || readers(admin) == 1;
    assert!(eventually(Duration::from_secs(120), is_dropped), "it is kept for two minutes");
    eprintln!("dropped after {:?}", started.elapsed());
    let dropped = sum(&samples(&get(admin, "/metrics", &[]).text()), "spinetail_event_readers_dropped_total", &[]);
    assert_eq!(dropped, 1.0, "it is counted");
    good.tick();
    let mut rest = Vec::new();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let end = stream.read_to_end(&mut rest);
    let is_closed = end.as_ref().err().is_none_or(|error| error.kind() == std::io::ErrorKind::ConnectionReset);
    assert!(is_closed, "it is not closed: {end:?}");
}

/// A connection whose own kernel takes next to nothing for it.
#[expect(unsafe_code, reason = "a receive buffer must be narrowed before connecting, for which std has no name")]
fn connect_narrow(address: SocketAddr) -> TcpStream {
    use std::os::fd::{AsRawFd, FromRawFd};
    let narrow: libc::c_int = 2048;
    let SocketAddr::V4(address) = address else { panic!("the tests listen on IPv4") };
    let target = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(*address.ip()).to_be() },
        sin_zero: [0; 8],
    };
    // SAFETY: plain calls on a descriptor of our own, with live values of the sizes named.
    unsafe {
        let stream = TcpStream::from_raw_fd(libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0));
        let descriptor = stream.as_raw_fd();
        let option = (&raw const narrow).cast();
        assert_eq!(libc::setsockopt(descriptor, libc::SOL_SOCKET, libc::SO_RCVBUF, option, 4), 0);
        let size = size_of::<libc::sockaddr_in>() as libc::socklen_t;
        assert_eq!(libc::connect(descriptor, (&raw const target).cast(), size), 0);
        stream
    }
}
