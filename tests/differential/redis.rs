//! The stream of Redis commands, and how its replies are compared.
//!
//! Few keys, so that commands meet what others left; the edges of every argument; options in any order, spelling
//! and contradiction. Times to live are either hours or milliseconds: the short ones are set last in a batch and slept
//! through, so that no reply depends on how fast a machine is.

use std::collections::VecDeque;
use std::io::{self, BufReader};
use std::net::TcpStream;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use spinetail::base::prng::Prng;

use crate::engine::{
    ALL_KEYS, Act, CONNECTIONS, Dialect, Facts, Judgement, KeySet, Request, Side, judge_by, shown_bytes,
};
use crate::resp;
use crate::tolerances::{self as table, Tolerance};

/// The stream of one seed.
pub struct Redis {
    prng: Prng,
    /// RESP version in which connections begin.
    version: u8,
    keys: Vec<Vec<u8>>,
    /// What has been thought of already.
    planned: VecDeque<Act<Body, Rule>>,
    /// What the generator believes of each connection.
    beliefs: [Belief; CONNECTIONS],
    connection: usize,
    /// Rules of the commands that each connection has queued, as the reference told.
    queued: [Vec<Rule>; CONNECTIONS],
}

#[derive(Clone, Copy, Debug, Default)]
struct Belief {
    in_transaction: bool,
    watches: bool,
}

/// A request as it is sent to both.
pub type Body = Vec<u8>;

/// The row of the table that may explain a difference.
pub type Rule = Option<&'static Tolerance>;

/// A command under construction.
struct Line {
    words: Vec<Vec<u8>>,
    keys: KeySet,
    rule: Rule,
}

type Sent = Request<Body, Rule>;

impl Redis {
    /// The stream of `seed`; connections begin in RESP `version` (2 or 3) and change it now and then.
    pub fn new(seed: u64, version: u8) -> Redis {
        let mut keys: Vec<Vec<u8>> = (0..7).map(|number| format!("k{number}").into_bytes()).collect();
        keys.push(b"a key with spaces".to_vec());
        keys.push(b"\x00\r\n\xff*binary".to_vec());
        keys.push(b"{tag}:1".to_vec());
        keys.push([b'L'; 1024].to_vec());
        Redis {
            prng: Prng::new(seed),
            version,
            keys,
            planned: VecDeque::new(),
            beliefs: Default::default(),
            connection: 0,
            queued: Default::default(),
        }
    }

    // --- What comes next ---------------------------------------------------------------------

    fn plan(&mut self) {
        if self.one_in(60) {
            self.connection = self.prng.below(CONNECTIONS as u64) as usize;
        }
        let connection = self.connection;
        if self.beliefs[connection].in_transaction {
            if self.one_in(12) {
                return self.end_transaction(connection);
            }
        } else if self.one_in(80) {
            return self.plan_apart();
        }
        if self.one_in(25) {
            return self.plan_transaction(connection);
        }
        if self.one_in(100) {
            return self.plan_lock(connection);
        }
        let line = self.command();
        self.send(connection, line);
    }

    /// What needs a connection outside of a transaction, or the clock.
    fn plan_apart(&mut self) {
        let connection = self.connection;
        let nobody_watches = self.beliefs.iter().all(|belief| !belief.watches && !belief.in_transaction);
        match self.prng.below(12) {
            0..3 => {
                let mut line = self.line("SCAN", ALL_KEYS);
                if self.one_in(2) {
                    let pattern = self.pattern();
                    line = line.word(self.spelt("MATCH")).word(pattern);
                }
                if self.one_in(2) {
                    line = line.word(self.spelt("COUNT")).word(self.one_of(&["1", "2", "5", "1000"]));
                }
                if self.one_in(3) {
                    line = line.word(self.spelt("TYPE")).word(self.one_of(&["string", "STRING", "hash", "nosuch"]));
                }
                self.converse(connection, line);
            }
            3..5 => {
                let line = self.line("RANDOMKEY", ALL_KEYS);
                self.converse(connection, line);
            }
            5 => self.plan_expiry(connection),
            6..8 => {
                let version = if self.one_in(2) { "2" } else { "3" };
                let mut line = self.line("HELLO", 0).word(version);
                line.rule = Some(&table::HELLO);
                self.send(connection, line);
            }
            8 => {
                let odd = ["4", "1", "abc", "", "-3", "3 ", "99999999999999999999"];
                let odd = self.one_of(&odd);
                let line = self.line("HELLO", 0).word(odd);
                self.send(connection, line);
            }
            9 if nobody_watches => self.plan_refused(connection),
            10 => {
                let encoded = self.value();
                let (key, set) = self.key();
                let line = self.line("SET", set).word(&key).word(encoded);
                self.send(connection, line);
                let line = self.line("OBJECT", set).word("ENCODING").word(&key);
                self.send(connection, line);
            }
            _ => {
                // Nothing is left of what expired and was not looked at yet, so the count is exact.
                let line = self.exists_all();
                self.push(connection, line);
                let line = self.line("DBSIZE", ALL_KEYS);
                self.push(connection, line);
            }
        }
    }

    /// Keys that expire in a few milliseconds, and a sleep beyond.
    fn plan_expiry(&mut self, connection: usize) {
        let first = self.prng.below(self.keys.len() as u64);
        for number in 0..1 + self.prng.below(4) {
            let index = ((first + number) % self.keys.len() as u64) as usize;
            let (key, set) = (self.keys[index].clone(), 1 << index);
            let soon = (1 + self.prng.below(5)).to_string();
            let soon_at = (now_ms() + 1 + self.prng.below(5)).to_string();
            let value = self.value();
            let line = match self.prng.below(8) {
                0 => self.line("SET", set).word(&key).word(value).word("PX").word(soon),
                1 => self.line("SET", set).word(&key).word(value).word("PXAT").word(soon_at).word("GET"),
                2 => self.line("PSETEX", set).word(&key).word(soon).word(value),
                3 => self.line("GETEX", set).word(&key).word("PX").word(soon),
                4 => self.line("PEXPIREAT", set).word(&key).word(soon_at),
                5 => self.line("PEXPIRE", set).word(&key).word(soon).word("LT"),
                _ => self.line("PEXPIRE", set).word(&key).word(soon),
            };
            self.send(connection, line);
        }
        self.planned.push_back(Act::Pause(Duration::from_millis(EXPIRY_PAUSE_MS)));
        let line = self.exists_all();
        self.push(connection, line);
    }

    /// What the server refuses by its table and Redis takes, and the way back to the same state.
    fn plan_refused(&mut self, connection: usize) {
        let (mut key, mut set) = self.key();
        let rule: Rule;
        let mut line = match self.prng.below(4) {
            0 => {
                rule = Some(&table::VALUE_LENGTH);
                self.line("SETRANGE", set).word(&key).word("3000000").word("x")
            }
            1 => {
                rule = Some(&table::VALUE_LENGTH);
                self.line("SET", set).word(&key).word([b'v'; 1_500_000])
            }
            chosen => {
                rule = Some(&table::KEY_LENGTH);
                (key, set) = (if chosen == 2 { Vec::new() } else { vec![b'k'; 1025] }, 0);
                match self.prng.below(4) {
                    0 => self.line("GET", set).word(&key),
                    1 => self.line("INCR", set).word(&key),
                    2 => self.line("EXISTS", set).word(&key),
                    _ => self.line("SET", set).word(&key).word("v"),
                }
            }
        };
        line.rule = rule;
        self.push(connection, line);
        let mut line = self.line("DEL", set).word(&key);
        line.rule = Some(&table::CLEANED_UP);
        self.push(connection, line);
    }

    /// Anything between a lone EXEC and a watched transaction into which the other connection writes.
    fn plan_transaction(&mut self, connection: usize) {
        match self.prng.below(10) {
            0 => {
                let name = self.one_of(&["EXEC", "DISCARD", "UNWATCH", "MULTI", "WATCH"]);
                let mut line = self.line(name, 0);
                if name == "WATCH" {
                    let (key, set) = self.key();
                    line = line.word(key);
                    line.keys = set;
                }
                self.send_transactional(connection, name, line);
            }
            1..4 => {
                let line = self.line("MULTI", 0);
                self.send_transactional(connection, "MULTI", line);
            }
            _ => self.plan_watch(connection),
        }
    }

    fn plan_watch(&mut self, connection: usize) {
        let other = 1 - connection;
        if self.beliefs[connection].in_transaction || self.beliefs[other].in_transaction {
            return;
        }
        let mut line = self.line("WATCH", 0);
        for _ in 0..1 + self.prng.below(2) {
            let (key, set) = self.key();
            line = line.word(key);
            line.keys |= set;
        }
        self.send_transactional(connection, "WATCH", line);
        let interfere = |stream: &mut Redis, chance: u64| {
            while stream.prng.below(10) < chance {
                let line = stream.command();
                let by = if stream.one_in(4) { connection } else { other };
                stream.send(by, line);
            }
        };
        interfere(self, 4);
        if self.one_in(15) {
            let line = self.line("UNWATCH", 0);
            self.send_transactional(connection, "UNWATCH", line);
        }
        let line = self.line("MULTI", 0);
        self.send_transactional(connection, "MULTI", line);
        for _ in 0..self.prng.below(5) {
            let line = self.command();
            self.send(connection, line);
            if self.one_in(4) {
                let line = self.command();
                self.send(other, line);
            }
        }
        self.end_transaction(connection);
    }

    /// A lock taken, held on to and let go, by its holder or by somebody else.
    fn plan_lock(&mut self, connection: usize) {
        let (key, set) = self.key();
        let mut line = self.line("SET", set).word(&key).word("token").word("PX").word("30000000");
        if self.one_in(2) {
            line = line.word("NX");
        }
        self.push(connection, line);
        for _ in 0..1 + self.prng.below(3) {
            let mut line = self.line("EVAL", set);
            self.script_with(&mut line, &key, b"token");
            let by = if self.one_in(4) && !self.beliefs[1 - connection].in_transaction {
                1 - connection
            } else {
                connection
            };
            self.push(by, line);
        }
    }

    fn end_transaction(&mut self, connection: usize) {
        let name = if self.one_in(8) { "DISCARD" } else { "EXEC" };
        let line = self.line(name, ALL_KEYS);
        self.send_transactional(connection, name, line);
    }

    fn send_transactional(&mut self, connection: usize, name: &str, line: Line) {
        if name != "WATCH" && self.one_in(40) {
            return self.push(connection, line.word("extra")); // and the state is what it was
        }
        let belief = &mut self.beliefs[connection];
        match name {
            "MULTI" => belief.in_transaction = true,
            "WATCH" if !belief.in_transaction => belief.watches = true,
            "UNWATCH" if !belief.in_transaction => belief.watches = false,
            "EXEC" | "DISCARD" if belief.in_transaction => *belief = Belief::default(),
            _ => {}
        }
        self.push(connection, line);
    }

    /// Sends a line, which may be spoilt on the way.
    fn send(&mut self, connection: usize, mut line: Line) {
        self.spoil(&mut line);
        self.push(connection, line);
    }

    /// A word too few or one too many.
    fn spoil(&mut self, line: &mut Line) {
        // SCAN without its mistake would answer a cursor, which is the server's own.
        if !self.one_in(30) || name_of(line) == "SCAN" {
            return;
        }
        if self.one_in(2) {
            if line.words.len() > 1 {
                line.words.pop();
            }
        } else {
            let (key, set) = self.key();
            let words = [&key[..], b"extra", b"NX", b"xx", b"GET", b"KEEPTTL", b"REPLACE"];
            let word = words[self.prng.below(words.len() as u64) as usize].to_vec();
            line.keys |= set;
            line.words.push(word);
        }
    }

    fn push(&mut self, connection: usize, line: Line) {
        let request = self.request(connection, line);
        self.planned.push_back(Act::Send(request));
    }

    fn converse(&mut self, connection: usize, line: Line) {
        let body = resp::request(&line.words);
        let name = name_of(&line);
        let request = Request { connection, name, body, keys: line.keys, rule: None, after_replies: false };
        self.planned.push_back(Act::Converse(request));
    }

    fn request(&mut self, connection: usize, line: Line) -> Sent {
        let name = name_of(&line);
        let plain = line.words.iter().all(|word| {
            (1..60).contains(&word.len())
                && word.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._:{}".contains(byte))
        });
        let mut body = Vec::new();
        if self.one_in(400) {
            body.extend_from_slice(self.one_of(&["*0\r\n", "\r\n", "*-1\r\n"]).as_bytes()); // these are answered by nothing
        }
        if plain && self.one_in(60) {
            body.extend(line.words.join(&b' '));
            body.extend_from_slice(if self.one_in(4) { b"\n" } else { b"\r\n" });
        } else {
            body.extend(resp::request(&line.words));
        }
        Request { connection, name, body, keys: line.keys, rule: line.rule, after_replies: false }
    }

    // --- Commands ------------------------------------------------------------------------------

    /// Any command that may stand in a transaction and needs no clock.
    fn command(&mut self) -> Line {
        let total: u64 = COMMANDS.iter().map(|(weight, _)| weight).sum();
        let mut ticket = self.prng.below(total);
        let (_, name) = COMMANDS
            .iter()
            .find(|(weight, _)| {
                let mine = ticket < *weight;
                ticket = ticket.wrapping_sub(*weight);
                mine
            })
            .expect("a ticket below the total");
        let mut line = self.line(name, 0);
        match *name {
            "GET" | "GETDEL" | "STRLEN" | "INCR" | "DECR" | "TYPE" | "PERSIST" => line = self.keyed(line),
            "SET" => {
                line = self.keyed(line).word(self.value());
                self.set_options(&mut line);
            }
            "SETNX" | "GETSET" => line = self.keyed(line).word(self.value()),
            "APPEND" => {
                line = self.keyed(line);
                line = line.word(if self.one_in(3) { self.number() } else { self.value() });
            }
            "SETEX" => line = self.keyed(line).word(self.time(Unit::Seconds, false)).word(self.value()),
            "PSETEX" => line = self.keyed(line).word(self.time(Unit::Milliseconds, false)).word(self.value()),
            "GETEX" => {
                line = self.keyed(line);
                for _ in 0..self.few(&[2, 8, 2]) {
                    let option = self.one_of(&["EX", "PX", "EXAT", "PXAT", "PERSIST", "PERSIST", "KEEPTTL"]);
                    self.time_option(&mut line, option);
                }
            }
            "MGET" | "DEL" | "UNLINK" | "EXISTS" | "TOUCH" => {
                for _ in 0..1 + self.few(&[3, 4, 3, 1]) {
                    line = self.keyed(line);
                }
            }
            "MSET" | "MSETNX" => {
                for _ in 0..1 + self.few(&[3, 4, 3, 1]) {
                    line = self.keyed(line).word(self.value());
                }
            }
            "GETRANGE" | "SUBSTR" => line = self.keyed(line).word(self.offset()).word(self.offset()),
            "SETRANGE" => {
                let offset = match self.prng.below(12) {
                    0 => self.one_of(&["536870912", "9223372036854775807", "-1", "4294967296"]).into(),
                    1 => (100 + self.prng.below(5000)).to_string().into_bytes(),
                    2 => self.one_of(&["abc", "", "1.0", "-9223372036854775808", "9223372036854775808", "01"]).into(),
                    _ => self.prng.below(24).to_string().into_bytes(),
                };
                let value = if self.one_in(6) { Vec::new() } else { self.value() };
                line = self.keyed(line).word(offset).word(value);
            }
            "INCRBY" | "DECRBY" => line = self.keyed(line).word(self.number()),
            "INCRBYFLOAT" => line = self.keyed(line).word(self.float()),
            "RENAME" | "RENAMENX" => line = self.keyed(line),
            "COPY" => {
                line = self.keyed(line);
                line = self.keyed(line);
                for _ in 0..self.few(&[4, 4, 1]) {
                    match self.prng.below(8) {
                        0 => line = line.word(self.spelt("DB")).word(self.one_of(&["1", "-1", "abc", "", "00"])),
                        1..3 => line = line.word(self.spelt("DB")).word("0"),
                        3 => line = line.word(self.spelt("NX")),
                        _ => line = line.word(self.spelt("REPLACE")),
                    }
                }
            }
            "KEYS" => {
                line.keys = ALL_KEYS;
                line.rule = Some(&table::KEY_ORDER);
                line = line.word(self.pattern());
            }
            "DBSIZE" => line.keys = ALL_KEYS, // only with a wrong number of words, see below
            "SCAN" => {
                let odd: [&[&str]; 10] = [
                    &[],
                    &["abc"],
                    &["0", "COUNT", "0"],
                    &["0", "COUNT", "-5"],
                    &["0", "COUNT", "abc"],
                    &["0", "COUNT"],
                    &["0", "MATCH"],
                    &["0", "FOO", "bar"],
                    &["12x", "COUNT", "5"],
                    &["0", "TYPE"],
                ];
                for word in odd[self.prng.below(odd.len() as u64) as usize] {
                    line = line.word(*word);
                }
            }
            "OBJECT" => match self.prng.below(8) {
                0 => {
                    let (key, set) = self.key();
                    line = line.word(self.one_of(&["NOSUCH", "", "ENCODING ", "encodin"])).word(key);
                    line.keys = set;
                }
                1..3 => {
                    line = line.word(self.spelt("REFCOUNT"));
                    line = self.keyed(line);
                    line.rule = Some(&table::REFCOUNT);
                }
                _ => {
                    line = line.word(self.spelt("ENCODING"));
                    line = self.keyed(line);
                    line.rule = Some(&table::ENCODING);
                }
            },
            "EXPIRE" | "PEXPIRE" | "EXPIREAT" | "PEXPIREAT" => {
                let unit = if name.starts_with('P') { Unit::Milliseconds } else { Unit::Seconds };
                line = self.keyed(line);
                let options = self.few(&[5, 4, 1, 1]);
                let time = if options == 0 {
                    self.time(unit, name.ends_with("AT"))
                } else {
                    self.time_near(unit, name.ends_with("AT"))
                };
                line = line.word(time);
                for _ in 0..options {
                    let option = self.one_of(&["NX", "XX", "GT", "LT", "NX", "XX", "GT", "LT", "KEEPTTL", ""]);
                    line = line.word(self.spelt(option));
                }
            }
            "TTL" | "EXPIRETIME" => {
                line = self.keyed(line);
                line.rule = Some(&table::SECONDS);
            }
            "PTTL" | "PEXPIRETIME" => {
                line = self.keyed(line);
                line.rule = Some(&table::MILLISECONDS);
            }
            "PING" => {
                for _ in 0..self.few(&[4, 4, 1]) {
                    line = line.word(self.value());
                }
            }
            "ECHO" => line = line.word(self.value()),
            "SELECT" => line = line.word(self.one_of(&["0", "0", "0", "1", "-1", "abc", "99999999999", ""])),
            "EVAL" => self.script(&mut line),
            "PUBLISH" => line = line.word(self.one_of(&["channel", "", "k0"])).word(self.value()),
            "UNKNOWN" => {
                let long = "N".repeat(200);
                let names = ["NOSUCH", "G3T", "", "get ", "g\r\net", "\u{e9}", "'quoted'", "GETT", "GE", &long];
                line.words[0] = self.one_of(&names).as_bytes().to_vec();
                for _ in 0..self.few(&[3, 3, 3, 1]) {
                    line = line.word(self.value());
                }
            }
            _ => unreachable!("{name} has no words"),
        }
        if matches!(*name, "RENAME" | "RENAMENX") {
            line = self.keyed(line);
        }
        if *name == "DBSIZE" {
            line = line.word("extra");
        }
        line
    }

    fn set_options(&mut self, line: &mut Line) {
        for _ in 0..self.few(&[6, 5, 3, 1, 1]) {
            let option = self.one_of(&[
                "EX", "PX", "EXAT", "PXAT", "KEEPTTL", "KEEPTTL", "NX", "XX", "NX", "XX", "GET", "GET", "PERSIST",
                "FOO", "EX",
            ]);
            self.time_option(line, option);
        }
    }

    /// An option, with its time if it has one.
    fn time_option(&mut self, line: &mut Line, option: &str) {
        line.words.push(self.spelt(option));
        let unit = if option.starts_with('P') { Unit::Milliseconds } else { Unit::Seconds };
        if matches!(option, "EX" | "PX" | "EXAT" | "PXAT") {
            line.words.push(self.time(unit, option.ends_with("AT")));
        }
    }

    fn script(&mut self, line: &mut Line) {
        let (key, set) = self.key();
        line.keys = set;
        let token = self.common_value();
        self.script_with(line, &key, &token);
        if self.one_in(8) {
            line.words[2] = self.one_of(&["0", "2", "3", "-1", "abc", "", "9223372036854775807"]).into();
        }
    }

    fn script_with(&mut self, line: &mut Line, key: &[u8], token: &[u8]) {
        let is_expiry = self.one_in(2);
        line.rule = Some(&table::SCRIPT_ERROR);
        let script = if is_expiry { COMPARE_AND_PEXPIRE } else { COMPARE_AND_DELETE };
        line.words.extend([script.as_bytes(), b"1", key, token].map(<[u8]>::to_vec));
        if is_expiry {
            let is_odd = self.one_in(4);
            let unit = Unit::Milliseconds;
            line.words.push(if is_odd { self.time(unit, false) } else { self.time_near(unit, false) });
        }
    }

    // --- Words -----------------------------------------------------------------------------------

    fn line(&mut self, name: &str, keys: KeySet) -> Line {
        Line { words: vec![self.spelt(name)], keys, rule: None }
    }

    fn keyed(&mut self, mut line: Line) -> Line {
        let (key, set) = self.key();
        line.keys |= set;
        line.word(key)
    }

    /// A key, the first ones more often, and the set that holds it.
    fn key(&mut self) -> (Vec<u8>, KeySet) {
        let count = self.keys.len() as u64;
        let index = self.prng.below(count).min(self.prng.below(count)) as usize;
        (self.keys[index].clone(), 1 << index)
    }

    fn exists_all(&mut self) -> Line {
        let keys = self.keys.clone();
        let mut line = Line { words: vec![b"EXISTS".to_vec()], keys: ALL_KEYS, rule: None };
        line.words.extend(keys);
        line
    }

    fn value(&mut self) -> Vec<u8> {
        match self.prng.below(20) {
            0 => Vec::new(),
            1..6 => self.common_value(),
            6..10 => self.number(),
            10..13 => self.float(),
            13..16 => {
                let length = self.prng.below(64);
                (0..length).map(|_| self.prng.next_u64() as u8).collect()
            }
            16 => {
                // 44 bytes is where Redis changes the encoding.
                let length = 40 + self.prng.below(9) as usize;
                vec![b'e'; length]
            }
            17 => {
                let length = self.prng.below(6000) as usize;
                let mut value = vec![b'.'; length];
                value.iter_mut().step_by(7).for_each(|byte| *byte = self.prng.next_u64() as u8);
                value
            }
            18 => self.one_of(&["\r\n", "$-1\r\n", "+OK\r\n", "*1\r\n", "END\r\n", "'", "\\", "\0"]).into(),
            _ => self.one_of(&["plain", "OK", "QUEUED", "nil", "hello world", "\u{fc}ml\u{e4}ut"]).into(),
        }
    }

    /// What scripts and conditions look for.
    fn common_value(&mut self) -> Vec<u8> {
        self.one_of(&["token", "1", "token2", "10"]).into()
    }

    /// An integer, its edges, or what looks like one.
    fn number(&mut self) -> Vec<u8> {
        match self.prng.below(10) {
            0..5 => (self.prng.below(200) as i64 - 50).to_string().into_bytes(),
            5 => (self.prng.next_u64() as i64).to_string().into_bytes(),
            6..8 => self
                .one_of(&[
                    "9223372036854775807",
                    "-9223372036854775808",
                    "9223372036854775806",
                    "-9223372036854775807",
                    "4611686018427387904",
                    "-1",
                    "0",
                    "2147483648",
                ])
                .into(),
            _ => self
                .one_of(&[
                    "9223372036854775808",
                    "-9223372036854775809",
                    "18446744073709551616",
                    "abc",
                    "",
                    " 1",
                    "1 ",
                    "+1",
                    "01",
                    "-0",
                    "-",
                    "0x10",
                    "1.0",
                    "1e3",
                    "1\0",
                ])
                .into(),
        }
    }

    /// A number with a fraction, or what looks like one.
    fn float(&mut self) -> Vec<u8> {
        match self.prng.below(12) {
            0..6 => {
                let places = self.prng.below(6) as usize;
                let whole = self.prng.below(20_000) as i64 - 10_000;
                let fraction = self.prng.below(10u64.pow(places as u32));
                if places == 0 { whole.to_string() } else { format!("{whole}.{fraction:0places$}") }.into_bytes()
            }
            6 => self.number(),
            7..10 => self
                .one_of(&[
                    "0.1",
                    "0.2",
                    "3.0",
                    "-0.5",
                    "1.5e3",
                    "5.0E3",
                    "-0.0",
                    "0.00000001",
                    "3.14159265358979",
                    "1e17",
                    "123456789.125",
                    ".5",
                    "5.",
                    "-.25",
                    "1e-5",
                    "0.30000000000000004",
                    "99999999999999.9",
                ])
                .into(),
            10 => self
                .one_of(&[
                    "inf", "-inf", "nan", "infinity", "+1.5", " 1.5", "1.5 ", "1,5", "1.5.5", "e5", "0x1p3", "--1",
                ])
                .into(),
            _ => format!("{:e}", self.prng.unit() * 1000.0).into_bytes(),
        }
    }

    fn offset(&mut self) -> Vec<u8> {
        match self.prng.below(8) {
            0 => self.number(),
            1 => (self.prng.below(8000) as i64 - 4000).to_string().into_bytes(),
            _ => (self.prng.below(40) as i64 - 20).to_string().into_bytes(),
        }
    }

    /// A time to live or a moment: right and far from now, past, or wrong.
    fn time(&mut self, unit: Unit, is_moment: bool) -> Vec<u8> {
        match self.prng.below(20) {
            0 => self.one_of(&["0", "-1", "-1000", "-0"]).into(),
            1 => self.one_of(&["abc", "", "1.5", " 5000000", "5000000 ", "1e9", "0x100", "+5000000"]).into(),
            2 => self
                .one_of(&[
                    "9223372036854775807",
                    "-9223372036854775808",
                    "9223372036854775808",
                    "9223372036854775",
                    "9223372036854776",
                    "-9223372036854775",
                    "-9223372036854776",
                    "-9223372036854775807",
                ])
                .into(),
            3 => (300_000_000_000 + self.prng.below(1 << 40)).to_string().into_bytes(),
            _ => self.time_near(unit, is_moment),
        }
    }

    /// A time to live of hours to years, or such a moment. Two of them are never nearly equal: they are exactly
    /// equal or (for times to live, which start at different moments) seconds apart.
    fn time_near(&mut self, unit: Unit, is_moment: bool) -> Vec<u8> {
        let mut seconds = 10_000 + self.prng.below(100_000_000);
        if is_moment {
            seconds = match self.prng.below(8) {
                0 => self.prng.below(1_000_000), // long ago
                1..4 => (now_ms() / 1000 / 1_000_000 + 2 + self.prng.below(3)) * 1_000_000,
                _ => now_ms() / 1000 + seconds,
            };
        }
        match unit {
            Unit::Seconds => seconds.to_string(),
            Unit::Milliseconds => (seconds * 1000 + self.prng.below(2)).to_string(),
        }
        .into_bytes()
    }

    fn pattern(&mut self) -> Vec<u8> {
        self.one_of(&[
            "*",
            "*",
            "k*",
            "k?",
            "k[0-3]",
            "k[^0-3]",
            "k[31]",
            "k[3-1]",
            "??",
            "*[",
            "k[0",
            "\\k1",
            "k\\",
            "",
            "a*s",
            "{tag}:?",
            "**",
            "*\u{0}*",
            "[a-l]*",
            "k1",
            "L*L",
            "k[\\0-2]",
            "nosuch",
            "K1",
            "*a*k*e*y*",
            "k[]",
            "k[^]",
        ])
        .into()
    }

    /// A word in capitals, or in some other spelling.
    fn spelt(&mut self, word: &str) -> Vec<u8> {
        match self.prng.below(8) {
            0 => word.to_lowercase().into_bytes(),
            1 => {
                let odd = |byte: u8| {
                    if self.prng.below(2) == 0 { byte.to_ascii_lowercase() } else { byte.to_ascii_uppercase() }
                };
                word.bytes().map(odd).collect()
            }
            _ => word.into(),
        }
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.prng.below(count) == 0
    }

    fn one_of<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.prng.below(words.len() as u64) as usize]
    }

    /// A count from zero on, each with its weight.
    fn few(&mut self, weights: &[u64]) -> u64 {
        let mut ticket = self.prng.below(weights.iter().sum());
        for (count, weight) in weights.iter().enumerate() {
            if ticket < *weight {
                return count as u64;
            }
            ticket -= weight;
        }
        unreachable!("a ticket below the sum")
    }
}

impl Dialect for Redis {
    type Body = Body;
    type Rule = Rule;

    fn next(&mut self) -> Act<Body, Rule> {
        loop {
            if let Some(act) = self.planned.pop_front() {
                return act;
            }
            self.plan();
        }
    }

    fn render(&self, body: &Body, _: Side) -> Vec<u8> {
        body.clone()
    }

    fn read(&self, from: &mut BufReader<TcpStream>) -> io::Result<Vec<u8>> {
        resp::read(from)
    }

    fn judge(&mut self, request: &Sent, reference: &[u8], other: &[u8], facts: Facts) -> Judgement {
        let queued = &mut self.queued[request.connection];
        if reference == b"+QUEUED\r\n" {
            queued.push(request.rule);
            return judge_by(None, reference, other, facts);
        }
        let ends = matches!(&request.name[..], "EXEC" | "DISCARD");
        if !ends || reference.starts_with(b"-ERR") {
            return judge_by(request.rule, reference, other, facts);
        }
        let rules = std::mem::take(queued);
        let (Some((head, ours)), Some((other_head, theirs))) = (resp::children(reference), resp::children(other))
        else {
            return judge_by(None, reference, other, facts);
        };
        if head != other_head || ours.len() != rules.len() {
            return judge_by(None, reference, other, facts);
        }
        let mut judgement = Judgement::Equal;
        for (place, ((one, two), rule)) in ours.iter().zip(theirs).zip(rules).enumerate() {
            match judge_by(rule, one, two, facts) {
                Judgement::Equal => {}
                explained @ Judgement::Explained(_) => judgement = explained,
                Judgement::Different(why) => {
                    let (one, two) = (shown_bytes(one), shown_bytes(two));
                    return Judgement::Different(format!("reply {place} of EXEC: {one} and {two} {why}"));
                }
            }
        }
        judgement
    }

    /// SCAN: whole iterations, as the set of what they found. RANDOMKEY: whether the key is one of those there, and which they are.
    fn converse(&self, request: &Sent, ask: &mut dyn FnMut(&[u8]) -> io::Result<Vec<u8>>) -> io::Result<Vec<u8>> {
        if request.name == "RANDOMKEY" {
            let found = ask(&resp::request(&["RANDOMKEY"]))?;
            let keys = ask(&resp::request(&["KEYS", "*"]))?;
            let Some((_, mut keys)) = resp::children(&keys) else { return Ok([&b"KEYS: "[..], &keys].concat()) };
            keys.sort_unstable();
            let verdict = match resp::bulk(&found) {
                Some(_) if keys.contains(&&found[..]) => [&b"one of "[..], &keys.concat()].concat(),
                None if keys.is_empty() => found,
                _ => [&b"not one of the keys: "[..], &found].concat(),
            };
            return Ok(verdict);
        }
        let Some((_, options)) = resp::children(&request.body) else { unreachable!("built as an array") };
        let options: Vec<&[u8]> = options.into_iter().skip(1).filter_map(resp::bulk).collect();
        let mut cursor = b"0".to_vec();
        let mut found: Vec<Vec<u8>> = Vec::new();
        for _ in 0..SCAN_ROUNDS_MAX {
            let mut words: Vec<&[u8]> = vec![b"SCAN", &cursor];
            words.extend(&options);
            let reply = ask(&resp::request(&words))?;
            let Some((_, parts)) = resp::children(&reply) else { return Ok(reply) };
            let (next, keys) = match parts[..] {
                [next, keys] => (resp::bulk(next), resp::children(keys)),
                _ => (None, None),
            };
            let (Some(next), Some((_, keys))) = (next, keys) else { return Ok(reply) };
            found.extend(keys.iter().map(|key| key.to_vec()));
            if next == b"0" {
                found.sort_unstable();
                found.dedup();
                return Ok(found.concat());
            }
            cursor = next.to_vec();
        }
        Ok(format!("no end within {SCAN_ROUNDS_MAX} rounds").into_bytes())
    }

    fn reset(&mut self, connection: usize) -> Vec<Vec<u8>> {
        self.queued[connection].clear();
        let mut words: Vec<&[u8]> = vec![b"DEL"];
        words.extend(self.keys.iter().map(|key| &key[..]));
        let hello = resp::request(&["HELLO", &self.version.to_string()]);
        // A server without DEL of many keys is emptied by DEL of each.
        let single = self.keys.iter().map(|key| resp::request(&[b"DEL", &key[..]]));
        [hello, resp::request(&words)].into_iter().chain(single).collect()
    }

    fn show(&self, request: &[u8]) -> String {
        let shown = |word: &[u8]| {
            let text = match word.get(..SHOWN_WORD_BYTES_MAX) {
                Some(start) => format!("{}...({})", start.escape_ascii(), word.len()),
                None => word.escape_ascii().to_string(),
            };
            if text.is_empty() || text.contains(' ') { format!("\"{text}\"") } else { text }
        };
        match resp::children(request) {
            Some((_, words)) if !words.is_empty() => {
                words.iter().map(|word| shown(resp::bulk(word).unwrap_or(word))).collect::<Vec<_>>().join(" ")
            }
            _ => format!("(raw) {}", shown_bytes(request)),
        }
    }
}

impl Line {
    fn word(mut self, word: impl AsRef<[u8]>) -> Line {
        self.words.push(word.as_ref().to_vec());
        self
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Seconds,
    Milliseconds,
}

fn name_of(line: &Line) -> String {
    String::from_utf8_lossy(&line.words[0]).to_uppercase()
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_millis() as u64
}

/// The unlock and the renewal of every lock built on Redis.
const COMPARE_AND_DELETE: &str =
    "if redis.call(\"get\",KEYS[1]) == ARGV[1] then return redis.call(\"del\",KEYS[1]) else return 0 end";
const COMPARE_AND_PEXPIRE: &str =
    "if redis.call(\"get\",KEYS[1]) == ARGV[1] then return redis.call(\"pexpire\",KEYS[1],ARGV[2]) else return 0 end";

/// Beyond the five milliseconds that a short time to live has at most, on a machine that others use too.
const EXPIRY_PAUSE_MS: u64 = 40;

/// Twelve keys are found in fewer.
const SCAN_ROUNDS_MAX: usize = 1000;

/// Bytes of a word shown in reports: a script as a whole.
const SHOWN_WORD_BYTES_MAX: usize = 120;

/// How often each command comes.
const COMMANDS: &[(u64, &str)] = &[
    (60, "GET"),
    (120, "SET"),
    (20, "SETNX"),
    (15, "SETEX"),
    (15, "PSETEX"),
    (20, "GETSET"),
    (30, "GETEX"),
    (20, "GETDEL"),
    (25, "MGET"),
    (25, "MSET"),
    (20, "MSETNX"),
    (30, "APPEND"),
    (20, "STRLEN"),
    (25, "GETRANGE"),
    (10, "SUBSTR"),
    (25, "SETRANGE"),
    (20, "INCR"),
    (15, "DECR"),
    (20, "INCRBY"),
    (15, "DECRBY"),
    (30, "INCRBYFLOAT"),
    (20, "DEL"),
    (10, "UNLINK"),
    (15, "EXISTS"),
    (10, "TYPE"),
    (10, "TOUCH"),
    (15, "PERSIST"),
    (15, "RENAME"),
    (15, "RENAMENX"),
    (30, "COPY"),
    (15, "KEYS"),
    (2, "DBSIZE"),
    (6, "SCAN"),
    (20, "OBJECT"),
    (25, "EXPIRE"),
    (25, "PEXPIRE"),
    (20, "EXPIREAT"),
    (20, "PEXPIREAT"),
    (15, "TTL"),
    (15, "PTTL"),
    (15, "EXPIRETIME"),
    (15, "PEXPIRETIME"),
    (8, "PING"),
    (5, "ECHO"),
    (6, "SELECT"),
    (30, "EVAL"),
    (8, "PUBLISH"),
    (10, "UNKNOWN"),
];
