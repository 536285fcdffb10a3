//! The log: lines of `key=value` or of JSON on stderr, from housekeeping threads, through one writer.
//!
//!   thread ─ level? ─ rate of its kind? ─ text ──→ bounded queue ──→ writer ──→ stderr
//!                │          │                          │ full
//!                └ nothing  └ counted: suppressed=K    └ counted: dropped=K
//!
//! **Nobody waits for whoever reads the log.** stderr is often a pipe, and a pipe that nobody empties blocks its
//! writer for ever; that is a thread of its own here, which holds no lock that others take. When its queue is full
//! lines are dropped and counted, and the count is the first thing said when it goes on.
//!
//! **A kind is its message.** `msg` is fixed text in the program and everything that varies stands in fields behind
//! it, so that lines can be counted, searched and held to a rate by kind: a thousand peers that send rubbish
//! are not a thousand lines. No field ever holds a key or a value of the cache; there is no way from a shard's data
//! to this file, and shards themselves write nothing: a data core must not block, and formatting takes longer than
//! a GET. The one exception is a panic, whose text goes into the queue from whichever thread it is.
//!
//! **Escapes.** What a field holds may come from a path, a file or the system, and must neither end a line nor fake
//! one. Both forms use JSON's strings: logfmt quotes what is more than plain characters exactly as JSON would.
//! Line and paragraph separators and the marks that turn the direction of text around are escaped as control
//! characters are: a terminal obeys them too. Bytes that are no UTF-8 become U+FFFD.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::str::FromStr;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, bounded};

use crate::base::limits;
use crate::base::time::{civil_from_days, unix_ms};

/// How much a line matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For whoever looks for a fault here.
    Debug,
    /// What was done.
    #[default]
    Info,
    /// Something is wrong, and it serves on.
    Warn,
    /// Something was not done.
    Error,
}

/// How a line is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `key=value`.
    #[default]
    Logfmt,
    /// One JSON object a line.
    Json,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    level: Level,
    msg: &'static str,
    fields: Vec<(&'static str, Value)>,
}

/// What a field holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Text, of whatever characters.
    Text(String),
    /// A count, or a size in bytes.
    Number(u64),
}

/// Takes lines from any thread. Its copies are one log.
#[derive(Clone)]
pub struct Log(Arc<Inner>);

struct Inner {
    queue: Sender<Message>,
    dropped: Arc<AtomicU64>,
    level: AtomicU8,
    format: AtomicU8,
    rates: Mutex<Rates>,
    started: Instant,
}

enum Message {
    Line(String),
    /// Answered when all before it is written.
    Flush(Sender<()>),
}

impl Level {
    const ALL: [Level; 4] = [Level::Debug, Level::Info, Level::Warn, Level::Error];

    /// As lines and the configuration spell it.
    pub fn name(self) -> &'static str {
        match self {
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
        }
    }
}

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Level, String> {
        let found = Level::ALL.into_iter().find(|level| level.name() == text);
        found.ok_or_else(|| format!("'{text}' is no level: use debug, info, warn or error"))
    }
}

impl Format {
    const ALL: [Format; 2] = [Format::Logfmt, Format::Json];

    /// As the configuration spells it.
    pub fn name(self) -> &'static str {
        match self {
            Format::Logfmt => "logfmt",
            Format::Json => "json",
        }
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Format, String> {
        let found = Format::ALL.into_iter().find(|format| format.name() == text);
        found.ok_or_else(|| format!("'{text}' is no format: use logfmt or json"))
    }
}

impl Line {
    /// A line for whoever looks for a fault here.
    pub fn debug(msg: &'static str) -> Line {
        Line::new(Level::Debug, msg)
    }

    /// A line about what was done.
    pub fn info(msg: &'static str) -> Line {
        Line::new(Level::Info, msg)
    }

    /// A line about what is wrong.
    pub fn warn(msg: &'static str) -> Line {
        Line::new(Level::Warn, msg)
    }

    /// A line about what was not done.
    pub fn error(msg: &'static str) -> Line {
        Line::new(Level::Error, msg)
    }

    fn new(level: Level, msg: &'static str) -> Line {
        Line { level, msg, fields: Vec::new() }
    }

    /// Adds a field. Never a key or a value of the cache.
    pub fn with(mut self, key: &'static str, value: impl Into<Value>) -> Line {
        debug_assert!(key.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'));
        debug_assert!(!["ts", "level", "msg"].contains(&key) && self.fields.iter().all(|(other, _)| *other != key));
        self.fields.push((key, value.into()));
        self
    }

    /// The kind of line this is.
    pub fn msg(&self) -> &'static str {
        self.msg
    }

    /// The line as it is written, with its end.
    pub fn text(&self, format: Format, unix_ms: u64) -> String {
        let mut out = String::with_capacity(128);
        let (level, msg) = (self.level.name(), self.msg);
        match format {
            Format::Logfmt => {
                let _ = write!(out, "ts={} level={level} msg=", Timestamp(unix_ms));
                write_plain(&mut out, msg);
            }
            Format::Json => {
                let _ = write!(out, "{{\"ts\":\"{}\",\"level\":\"{level}\",\"msg\":", Timestamp(unix_ms));
                write_quoted(&mut out, msg);
            }
        }
        for (key, value) in &self.fields {
            let _ = match format {
                Format::Logfmt => write!(out, " {key}="),
                Format::Json => write!(out, ",\"{key}\":"),
            };
            match (value, format) {
                (Value::Number(number), _) => drop(write!(out, "{number}")),
                (Value::Text(text), Format::Logfmt) => write_plain(&mut out, text),
                (Value::Text(text), Format::Json) => write_quoted(&mut out, text),
            }
        }
        out.push_str(if format == Format::Json { "}\n" } else { "\n" });
        out
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.to_string())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::Text(text)
    }
}

impl From<Cow<'_, str>> for Value {
    fn from(text: Cow<'_, str>) -> Value {
        Value::Text(text.into_owned())
    }
}

impl From<&Path> for Value {
    fn from(path: &Path) -> Value {
        Value::from(path.to_string_lossy())
    }
}

/// Bytes of whatever origin.
impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Value {
        Value::from(String::from_utf8_lossy(bytes))
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Value {
        Value::Number(number)
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Value {
        Value::Number(number as u64)
    }
}

impl Log {
    /// Starts the writer, onto stderr.
    pub fn to_stderr(level: Level, format: Format) -> io::Result<Log> {
        // A descriptor of its own: `io::stderr` has a lock, and whoever held it would keep the writer waiting, or
        // wait for it.
        let stderr = File::from(io::stderr().as_fd().try_clone_to_owned()?);
        Log::start(level, format, stderr)
    }

    /// Starts the writer, on a thread of its own.
    pub fn start(level: Level, format: Format, sink: impl Write + Send + 'static) -> io::Result<Log> {
        let (queue, lines) = bounded(limits::LOG_LINES_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let log = Log(Arc::new(Inner {
            queue,
            dropped: dropped.clone(),
            level: AtomicU8::new(level as u8),
            format: AtomicU8::new(format as u8),
            rates: Mutex::default(),
            started: Instant::now(),
        }));
        let weak = Arc::downgrade(&log.0);
        let format = move || weak.upgrade().map_or(Format::default(), |inner| Log(inner).format());
        let writer = std::thread::Builder::new().name("log".into());
        writer.spawn(move || write_all_lines(&lines, &dropped, format, sink))?;
        Ok(log)
    }

    /// Writes a line, unless it matters too little or there have been too many of its kind. Never waits.
    pub fn write(&self, line: &Line) {
        if line.level < self.level() {
            return;
        }
        let second = self.0.started.elapsed().as_secs();
        let (passes, suppressed) = self.rates().admit(line.msg, second);
        if suppressed > 0 {
            self.enqueue(&suppressed_line(line.msg, suppressed));
        }
        if passes {
            self.enqueue(line);
        }
    }

    /// Once a second: says how many lines were held back of kinds that have not come again since.
    pub fn tick(&self) {
        let second = self.0.started.elapsed().as_secs();
        let overdue = self.rates().overdue(second);
        for (msg, suppressed) in overdue {
            self.enqueue(&suppressed_line(msg, suppressed));
        }
    }

    /// Waits until all that was written is out, but not longer than [`limits::LOG_FLUSH_MS`]: nobody may be reading.
    pub fn flush(&self) {
        let at_most = Duration::from_millis(limits::LOG_FLUSH_MS);
        let (done, is_done) = bounded(1);
        if self.0.queue.send_timeout(Message::Flush(done), at_most).is_ok() {
            let _ = is_done.recv_timeout(at_most);
        }
    }

    /// Changes what is written, and how, from the next line on.
    pub fn change(&self, level: Level, format: Format) {
        self.0.level.store(level as u8, Ordering::Relaxed);
        self.0.format.store(format as u8, Ordering::Relaxed);
    }

    /// The least that is written.
    pub fn level(&self) -> Level {
        Level::ALL[self.0.level.load(Ordering::Relaxed) as usize]
    }

    fn format(&self) -> Format {
        Format::ALL[self.0.format.load(Ordering::Relaxed) as usize]
    }

    fn rates(&self) -> std::sync::MutexGuard<'_, Rates> {
        self.0.rates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enqueue(&self, line: &Line) {
        if self.0.queue.try_send(Message::Line(line.text(self.format(), unix_ms()))).is_err() {
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Sends panics to the log. The standard hook writes to stderr from the thread that panics: a shard's would block
/// there if nobody reads, and nobody would learn that it has ended.
pub fn panics_to(log: &Log) {
    let log = log.clone();
    std::panic::set_hook(Box::new(move |panic| {
        let thread = std::thread::current();
        let place = panic.location().map_or_else(String::new, |place| format!("{}:{}", place.file(), place.line()));
        let payload = panic.payload();
        let text =
            payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let reason = text.unwrap_or("of no text");
        let line = Line::error("panic").with("thread", thread.name().unwrap_or("?")).with("at", place);
        log.write(&line.with("reason", reason));
    }));
}

fn suppressed_line(msg: &'static str, count: u64) -> Line {
    Line::warn("lines suppressed").with("kind", msg).with("suppressed", count)
}

/// The writer thread: until the log and all its copies are gone.
fn write_all_lines(lines: &Receiver<Message>, dropped: &AtomicU64, format: impl Fn() -> Format, mut sink: impl Write) {
    for message in lines {
        match message {
            Message::Line(text) => {
                if write_whole(&mut sink, text.as_bytes()).is_err() {
                    dropped.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
            }
            Message::Flush(done) => drop(done.try_send(())),
        }
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let remedy = "stderr was not read as fast as it was written";
            let line = Line::warn("lines dropped").with("dropped", lost).with("reason", remedy);
            if write_whole(&mut sink, line.text(format(), unix_ms()).as_bytes()).is_err() {
                dropped.fetch_add(lost, Ordering::Relaxed);
            }
        }
    }
}

/// As `write_all`, but waits where stderr is set not to block: it may be shared with a program that did that.
fn write_whole(sink: &mut impl Write, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match sink.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(RETRY),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// How many lines of each kind there have been in this second. Kinds are fixed texts of the program, a few dozen.
#[derive(Default)]
struct Rates(Vec<(&'static str, Second)>);

#[derive(Default)]
struct Second {
    number: u64,
    passed: u64,
    suppressed: u64,
}

impl Rates {
    /// Whether a line of this kind passes in this second, and how many were held back before.
    fn admit(&mut self, msg: &'static str, number: u64) -> (bool, u64) {
        let at = self.0.iter().position(|(kind, _)| *kind == msg).unwrap_or_else(|| {
            self.0.push((msg, Second::default()));
            self.0.len() - 1
        });
        let second = &mut self.0[at].1;
        let mut suppressed = 0;
        if second.number != number {
            suppressed = second.suppressed;
            *second = Second { number, ..Second::default() };
        }
        let passes = second.passed < limits::LOG_LINES_PER_KIND;
        if passes {
            second.passed += 1;
        } else {
            second.suppressed += 1;
        }
        (passes, suppressed)
    }

    /// Kinds of which lines were held back in a second that is over.
    fn overdue(&mut self, number: u64) -> Vec<(&'static str, u64)> {
        let late = self.0.iter_mut().filter(|(_, second)| second.number != number && second.suppressed > 0);
        late.map(|(kind, second)| (*kind, std::mem::take(&mut second.suppressed))).collect()
    }
}

/// Text of logfmt: as it is where that is unambiguous, else quoted.
fn write_plain(out: &mut String, text: &str) {
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'=' | b'\\');
    if !text.is_empty() && text.len() <= limits::LOG_VALUE_BYTES_MAX && text.bytes().all(plain) {
        out.push_str(text);
    } else {
        write_quoted(out, text);
    }
}

/// A string of JSON, cut where it gets too long.
fn write_quoted(out: &mut String, text: &str) {
    let end = out.len() + limits::LOG_VALUE_BYTES_MAX;
    out.push('"');
    for char in text.chars() {
        if out.len() >= end {
            out.push('…');
            break;
        }
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // All of them are below U+10000: one escape each.
            _ if char.is_control() || is_layout(char) => drop(write!(out, "\\u{:04x}", char as u32)),
            _ => out.push(char),
        }
    }
    out.push('"');
}

/// Characters that end a line or turn the direction of text, though they are no control characters.
fn is_layout(char: char) -> bool {
    matches!(char, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// RFC 3339, in UTC, to the millisecond.
struct Timestamp(u64);

impl std::fmt::Display for Timestamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (ms, seconds) = (self.0 % 1000, self.0 / 1000);
        let (second, minute, hour) = (seconds % 60, seconds / 60 % 60, seconds / 3600 % 24);
        let (year, month, day) = civil_from_days(seconds / 86_400);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
    }
}

/// Pause before another attempt where stderr does not block.
const RETRY: Duration = Duration::from_millis(20);

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
