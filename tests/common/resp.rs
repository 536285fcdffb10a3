//! A client of RESP2 and RESP3, written from the protocol's page, so that a mistake in the product's own codec cannot
//! hide itself.

use std::collections::VecDeque;
use std::fmt;
use std::io::{BufRead, BufReader, Read, Result, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::{HELLO, OK, PATIENCE, Server, two_shards_fit};

/// A reply, or what came unasked.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Simple(String),
    Error(String),
    Integer(i64),
    Bulk(Vec<u8>),
    /// RESP3's null, RESP2's null bulk and null array.
    Null,
    Double(String),
    Boolean(bool),
    Array(Vec<Value>),
    Set(Vec<Value>),
    Push(Vec<Value>),
    Map(Vec<(Value, Value)>),
}

impl Value {
    pub fn integer(&self) -> i64 {
        if let Value::Integer(number) = self { *number } else { panic!("no integer: {self}") }
    }

    pub fn bytes(&self) -> &[u8] {
        if let Value::Bulk(bytes) = self { bytes } else { panic!("no bulk string: {self}") }
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.bytes().to_vec()).expect("text")
    }

    pub fn elements(&self) -> &[Value] {
        match self {
            Value::Array(elements) | Value::Set(elements) | Value::Push(elements) => elements,
            _ => panic!("nothing with elements: {self}"),
        }
    }

    pub fn is_error(&self) -> bool {
        matches!(self, Value::Error(_))
    }
}

/// Short, for comparing: `OK`, `-ERR why`, `:7`, `value`, `nil`, `[1 nil :2]`, `>[invalidate [key]]`.
impl fmt::Display for Value {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |to: &mut fmt::Formatter<'_>, sign: &str, elements: &[Value]| {
            let shown: Vec<String> = elements.iter().map(Value::to_string).collect();
            write!(to, "{sign}[{}]", shown.join(" "))
        };
        match self {
            Value::Simple(text) => write!(to, "{text}"),
            Value::Error(text) => write!(to, "-{text}"),
            Value::Integer(number) => write!(to, ":{number}"),
            Value::Bulk(bytes) => write!(to, "{}", String::from_utf8_lossy(bytes)),
            Value::Null => write!(to, "nil"),
            Value::Double(text) => write!(to, ",{text}"),
            Value::Boolean(is_true) => write!(to, "#{is_true}"),
            Value::Array(elements) => list(to, "", elements),
            Value::Set(elements) => list(to, "~", elements),
            Value::Push(elements) => list(to, ">", elements),
            Value::Map(pairs) => {
                let shown: Vec<String> = pairs.iter().map(|(key, value)| format!("{key}={value}")).collect();
                write!(to, "{{{}}}", shown.join(" "))
            }
        }
    }
}

/// A connection.
pub struct Resp {
    stream: BufReader<TcpStream>,
    /// What came unasked and has not been looked at.
    pub pushes: VecDeque<Value>,
    /// Commands that wait to be sent together.
    unsent: Vec<u8>,
}

impl Resp {
    pub fn connect(address: SocketAddr) -> Resp {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).expect("the server accepts");
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Resp { stream: BufReader::with_capacity(64 << 10, stream), pushes: VecDeque::new(), unsent: Vec::new() }
    }

    pub fn stream(&self) -> &TcpStream {
        self.stream.get_ref()
    }

    /// Sends bytes as they are.
    pub fn send_raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// Adds a command to those that [`Resp::flush`] sends.
    pub fn add<W: AsRef<[u8]>>(&mut self, words: &[W]) {
        encode(words, &mut self.unsent);
    }

    /// The same of a command in one line, words separated by spaces.
    pub fn add_line(&mut self, line: &str) {
        self.add(&line.split(' ').collect::<Vec<_>>());
    }

    pub fn flush(&mut self) {
        let unsent = std::mem::take(&mut self.unsent);
        self.send_raw(&unsent).expect("the server takes what it is sent");
    }

    /// One command in one line, one reply.
    pub fn ask(&mut self, line: &str) -> Value {
        self.ask_words(&line.split(' ').collect::<Vec<_>>())
    }

    /// The reply as [`Value`] shows itself.
    pub fn say(&mut self, line: &str) -> String {
        self.ask(line).to_string()
    }

    pub fn ask_words<W: AsRef<[u8]>>(&mut self, words: &[W]) -> Value {
        self.add(words);
        self.flush();
        self.reply()
    }

    /// Commands sent together, their replies.
    pub fn ask_all(&mut self, lines: &[&str]) -> Vec<String> {
        lines.iter().for_each(|line| self.add_line(line));
        self.flush();
        lines.iter().map(|_| self.reply().to_string()).collect()
    }

    /// The next reply, which must come.
    pub fn reply(&mut self) -> Value {
        self.try_reply().unwrap_or_else(|error| panic!("no reply: {error}"))
    }

    /// The next reply. What comes unasked before it is kept.
    pub fn try_reply(&mut self) -> Result<Value> {
        loop {
            match self.next()? {
                push @ Value::Push(_) => self.pushes.push_back(push),
                reply => return Ok(reply),
            }
        }
    }

    /// The next that came unasked, if it comes in time.
    pub fn push_within(&mut self, at_most: Duration) -> Option<Value> {
        if self.pushes.is_empty() && self.has_more(at_most) {
            match self.next().expect("the rest of it") {
                push @ Value::Push(_) => self.pushes.push_back(push),
                reply => panic!("nobody asked for {reply}"),
            }
        }
        self.pushes.pop_front()
    }

    /// The next that comes unasked, which must come.
    pub fn push(&mut self) -> String {
        self.push_within(PATIENCE).expect("something unasked").to_string()
    }

    /// Whether anything comes in time. What RESP2 delivers unasked looks like a reply.
    pub fn has_more(&mut self, at_most: Duration) -> bool {
        if !self.stream.buffer().is_empty() {
            return true;
        }
        let some = at_most.max(Duration::from_millis(1));
        self.stream().set_read_timeout(Some(some)).unwrap();
        let has_more = self.stream.fill_buf().is_ok_and(|bytes| !bytes.is_empty());
        self.stream().set_read_timeout(Some(PATIENCE)).unwrap();
        has_more
    }

    /// Looks without waiting for what has come unasked.
    pub fn gather_pushes(&mut self) {
        loop {
            if self.stream.buffer().is_empty() {
                self.stream().set_nonblocking(true).unwrap();
                let has_come = self.stream.fill_buf().is_ok_and(|bytes| !bytes.is_empty());
                self.stream().set_nonblocking(false).unwrap();
                if !has_come {
                    return;
                }
            }
            match self.next().expect("the rest of it") {
                push @ Value::Push(_) => self.pushes.push_back(push),
                reply => panic!("nobody asked for {reply}"),
            }
        }
    }

    /// Whether the server closes within the time; what it still sends is passed over.
    pub fn is_closed_within(&mut self, at_most: Duration) -> bool {
        let until = Instant::now() + at_most;
        self.stream().set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let mut some = vec![0; 64 << 10];
        let mut is_closed = false;
        while !is_closed && Instant::now() < until {
            is_closed = match self.stream.read(&mut some) {
                Ok(count) => count == 0,
                Err(error) => !matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
            };
        }
        self.stream().set_read_timeout(Some(PATIENCE)).unwrap();
        is_closed
    }

    /// Leaves at once.
    pub fn close(self) {
        let _ = self.stream().shutdown(Shutdown::Both);
    }

    /// Whatever comes next.
    pub fn next(&mut self) -> Result<Value> {
        let line = self.line()?;
        let (sign, rest) = line.split_at(1);
        Ok(match sign {
            "+" => Value::Simple(rest.to_string()),
            "-" => Value::Error(rest.to_string()),
            ":" => Value::Integer(number(rest)),
            "," => Value::Double(rest.to_string()),
            "#" => Value::Boolean(rest == "t"),
            "_" => Value::Null,
            "$" | "=" if rest == "-1" => Value::Null,
            "$" => Value::Bulk(self.bulk(number(rest))?),
            // Verbatim text: three letters and a colon say of what kind.
            "=" => Value::Bulk(self.bulk(number(rest))?.split_off(4)),
            "*" if rest == "-1" => Value::Null,
            "*" => Value::Array(self.several(number(rest))?),
            "~" => Value::Set(self.several(number(rest))?),
            ">" => Value::Push(self.several(number(rest))?),
            "%" => {
                let mut all = self.several(2 * number(rest))?.into_iter();
                let mut pairs = Vec::new();
                while let (Some(key), Some(value)) = (all.next(), all.next()) {
                    pairs.push((key, value));
                }
                Value::Map(pairs)
            }
            _ => panic!("no reply begins with '{line}'"),
        })
    }

    fn several(&mut self, count: i64) -> Result<Vec<Value>> {
        (0..count).map(|_| self.next()).collect()
    }

    fn bulk(&mut self, length: i64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; length as usize + 2];
        self.stream.read_exact(&mut bytes)?;
        assert!(bytes.ends_with(b"\r\n"), "{length} bytes do not end where they were said to");
        bytes.truncate(length as usize);
        Ok(bytes)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        assert!(line.len() >= 3 && line.ends_with(b"\r\n"), "no line: {}", String::from_utf8_lossy(&line));
        line.truncate(line.len() - 2);
        Ok(String::from_utf8(line).expect("text"))
    }
}

/// Appends a command as clients send it.
pub fn encode<W: AsRef<[u8]>>(words: &[W], out: &mut Vec<u8>) {
    out.extend(format!("*{}\r\n", words.len()).bytes());
    for word in words {
        let word = word.as_ref();
        out.extend(format!("${}\r\n", word.len()).bytes());
        out.extend(word);
        out.extend(b"\r\n");
    }
}

fn number(text: &str) -> i64 {
    text.parse().unwrap_or_else(|_| panic!("no number: '{text}'"))
}

/// A server of two shards that speaks RESP.
pub struct Two {
    pub server: Server,
    pub address: SocketAddr,
    seed: u64,
}

impl Two {
    /// `None` where two shards do not fit.
    pub fn start() -> Option<Two> {
        Two::start_with(&[])
    }

    pub fn start_with(arguments: &[&str]) -> Option<Two> {
        if !two_shards_fit() {
            return None;
        }
        let server = Server::start(&[&["--shards", "2", "--resp", "127.0.0.1:0"], arguments].concat());
        let address = listener(&server, "resp").expect("a RESP listener");
        // As the native protocol's page has it.
        let hello = server.connect().ask(HELLO, b"", b"tests");
        assert_eq!((hello.status, &hello.value[..2]), (OK, &[2u8, 0][..]));
        let seed = u64::from_le_bytes(hello.value[16..24].try_into().unwrap());
        Some(Two { server, address, seed })
    }

    /// A client of whichever shard.
    pub fn client(&self) -> Resp {
        Resp::connect(self.address)
    }

    /// A client that is connected to `shard`, which is the lowest byte of its number.
    pub fn client_at(&self, shard: i64) -> Resp {
        for _ in 0..200 {
            let mut client = self.client();
            if client.ask("CLIENT ID").integer() & 0xff == shard {
                return client;
            }
        }
        panic!("none of 200 connections came to shard {shard}");
    }

    /// A client of each shard.
    pub fn pair(&self) -> [Resp; 2] {
        [self.client_at(0), self.client_at(1)]
    }

    /// The shard that owns a key, as the native protocol's page has it.
    pub fn shard_of(&self, key: &str) -> usize {
        let hash = xxhash_rust::xxh3::xxh3_64_with_seed(key.as_bytes(), self.seed);
        (((hash >> 32) * 2) >> 32) as usize
    }

    /// Names that `shard` owns.
    pub fn keys(&self, name: &str, shard: usize, count: usize) -> Vec<String> {
        (0..).map(|number| format!("{name}{number}")).filter(|key| self.shard_of(key) == shard).take(count).collect()
    }

    /// A name that `shard` owns.
    pub fn key(&self, name: &str, shard: usize) -> String {
        self.keys(name, shard, 1).remove(0)
    }

    /// Answers both shards' clients, also across.
    pub fn assert_serves(&mut self) {
        self.server.assert_serves();
        let (a, b) = (self.key("health", 0), self.key("health", 1));
        for mut client in self.pair() {
            assert_eq!(client.say(&format!("MSET {a} 1 {b} 2")), "OK");
            assert_eq!(client.ask_all(&["MULTI", &format!("GET {a}"), &format!("GET {b}"), "EXEC"])[3], "[1 2]");
        }
    }
}

/// The address of a listener in the ready line.
pub fn listener(server: &Server, name: &str) -> Option<SocketAddr> {
    server.ready.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
}

/// A client of RESP3.
pub fn hello3(mut client: Resp) -> Resp {
    assert!(matches!(client.ask("HELLO 3"), Value::Map(_)));
    client
}
