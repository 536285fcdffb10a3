use super::*;

use std::sync::mpsc;

const HOSTILE: [&str; 12] = [
    "",
    "plain",
    "two words",
    "a=b",
    "quote \" and \\ backslash",
    "line\nlevel=error msg=faked",
    "\r\n\t\u{0}\u{1b}[31mred\u{7f}\u{85}",
    "\u{2028}\u{2029}\u{202e}gnirts\u{feff}",
    "höflich 語 🦀",
    "\\u0041",
    "}{\",\"level\":\"error",
    "\u{fffd}",
];

#[test]
fn a_line_looks_as_it_is_described() {
    let line = Line::info("serving").with("cores", "0,1").with("shards", 2usize).with("memory", "64.0 MiB");
    assert_eq!(
        line.text(Format::Logfmt, 1_764_140_000_123),
        "ts=2025-11-26T06:53:20.123Z level=info msg=serving cores=0,1 shards=2 memory=\"64.0 MiB\"\n"
    );
    assert_eq!(
        line.text(Format::Json, 0),
        "{\"ts\":\"1970-01-01T00:00:00.000Z\",\"level\":\"info\",\"msg\":\"serving\",\"cores\":\"0,1\",\"shards\":2,\"memory\":\"64.0 MiB\"}\n"
    );
}

#[test]
fn dates_are_right_around_leap_days() {
    for (seconds, date) in [
        (951_782_399, "2000-02-28T23:59:59"),
        (951_782_400, "2000-02-29T00:00:00"),
        (951_868_800, "2000-03-01T00:00:00"),
        (1_709_164_800, "2024-02-29T00:00:00"),
        (1_735_689_599, "2024-12-31T23:59:59"),
        (4_107_542_400, "2100-03-01T00:00:00"),
    ] {
        assert_eq!(Timestamp(seconds * 1000).to_string(), format!("{date}.000Z"));
    }
}

#[test]
fn whatever_a_field_holds_comes_back_from_json_and_stays_on_its_line() {
    for text in HOSTILE {
        let line = Line::warn("x").with("value", text).with("after", 7u64);
        let json = line.text(Format::Json, 0);
        let parsed: serde_json::Value = serde_json::from_str(&json).unwrap_or_else(|error| panic!("{error}: {json}"));
        assert_eq!((parsed["value"].as_str(), parsed["after"].as_u64()), (Some(text), Some(7)), "{json}");
        let logfmt = line.text(Format::Logfmt, 0);
        for written in [json, logfmt.clone()] {
            let inner = written.strip_suffix('\n').unwrap();
            assert!(!inner.chars().any(|char| char.is_control() || is_layout(char)), "{written:?}");
        }
        // logfmt: either plain, or a JSON string.
        let field = logfmt.split_once(" value=").unwrap().1.strip_suffix(" after=7\n").unwrap();
        let back = if field.starts_with('"') { serde_json::from_str(field).unwrap() } else { field.to_string() };
        assert_eq!(back, text, "{logfmt}");
        assert!(field.starts_with('"') || !field.contains([' ', '=']), "{logfmt}");
    }
    assert_eq!(Value::from(&b"a\xff\xfeb"[..]), Value::Text("a\u{fffd}\u{fffd}b".into()));
}

#[test]
fn a_long_value_is_cut() {
    for value in ["x".repeat(1 << 20), "\u{1}".repeat(1 << 20), "語".repeat(1 << 20)] {
        for format in Format::ALL {
            let text = Line::info("x").with("value", value.as_str()).text(format, 0);
            assert!(text.len() < limits::LOG_VALUE_BYTES_MAX + 128 && text.contains('…'), "{}", text.len());
        }
    }
}

#[test]
fn a_kind_has_so_many_lines_a_second_and_a_count_when_it_goes_on() {
    let most = limits::LOG_LINES_PER_KIND;
    let mut rates = Rates::default();
    let passed = (0..most + 5).filter(|_| rates.admit("a", 3).0).count() as u64;
    assert_eq!(passed, most);
    assert_eq!(rates.admit("b", 3), (true, 0), "another kind has a rate of its own");
    assert!(rates.overdue(3).is_empty(), "its second is not over");
    assert_eq!(rates.admit("a", 4), (true, 5));
    assert_eq!(rates.admit("a", 4), (true, 0), "it is said once");
    assert_eq!((0..most).filter(|_| !rates.admit("a", 4).0).count(), 2);
    assert_eq!(rates.overdue(5), [("a", 2)]);
    assert!(rates.overdue(6).is_empty());
    assert_eq!(rates.admit("a", 7), (true, 0));
}

/// Hands on what is written, and takes nothing while it is told not to.
struct Pipe {
    out: mpsc::Sender<String>,
    gate: Arc<Mutex<()>>,
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _gate = self.gate.lock().unwrap();
        self.out.send(String::from_utf8(bytes.to_vec()).unwrap()).map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn log(level: Level) -> (Log, mpsc::Receiver<String>, Arc<Mutex<()>>) {
    let (out, lines) = mpsc::channel();
    let gate = Arc::new(Mutex::new(()));
    (Log::start(level, Format::Json, Pipe { out, gate: gate.clone() }).unwrap(), lines, gate)
}

#[test]
fn what_matters_too_little_is_not_written_until_the_level_changes() {
    let (log, lines, _) = log(Level::Warn);
    log.write(&Line::info("quiet"));
    log.write(&Line::error("loud"));
    log.change(Level::Debug, Format::Logfmt);
    log.write(&Line::debug("detail"));
    log.flush();
    let lines: Vec<String> = lines.try_iter().collect();
    assert!(lines.len() == 2 && lines[0].contains("\"msg\":\"loud\"") && lines[1].contains("msg=detail"), "{lines:?}");
}

#[test]
fn a_reader_that_does_not_read_costs_lines_and_nobodys_time() {
    let kinds: Vec<&'static str> = (0..1_000).map(|kind| &*format!("kind-{kind}").leak()).collect();
    let (log, lines, gate) = log(Level::Info);
    let closed = gate.lock().unwrap();
    let began = Instant::now();
    kinds.iter().for_each(|kind| log.write(&Line::info(kind)));
    log.flush(); // which gives up
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    drop(closed);
    // The queue is full of lines; the last of them is followed by the count of those that were lost.
    let mut written = 0;
    let lost = loop {
        let line: serde_json::Value = serde_json::from_str(&lines.recv().unwrap()).unwrap();
        if let Some(lost) = line["dropped"].as_u64() {
            break lost;
        }
        written += 1;
    };
    log.flush();
    written += lines.try_iter().count() as u64;
    assert_eq!(written + lost, 1_000);
    assert!(written >= limits::LOG_LINES_MAX as u64, "{written}");
}

#[test]
fn a_reader_that_has_gone_is_no_reason_to_stop() {
    let (log, lines, _) = log(Level::Info);
    drop(lines);
    log.write(&Line::info("into the void"));
    log.flush();
    log.write(&Line::info("again"));
    log.flush();
    assert!(log.0.dropped.load(Ordering::Relaxed) >= 2);
}
