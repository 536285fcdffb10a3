//! The stream of Redis commands: what comes when, on which connection, and what needs a sleep or a conversation.
//!
//! Times to live are either hours or milliseconds: the short ones are set last in a batch and slept through, so that
//! no reply depends on how fast a machine is.

use std::collections::VecDeque;
use std::time::Duration;

use crate::engine::{ALL_KEYS, Act, CONNECTIONS, KeySet, Request};
use crate::redis_commands::{Line, RedisCommands, Rule, name_of, now_ms};
use crate::resp;
use crate::tolerances as table;

/// The stream of one seed.
pub struct RedisStream {
    pub commands: RedisCommands,
    /// What has been thought of already.
    planned: VecDeque<Act<Body, Rule>>,
    /// What the generator believes of each connection.
    beliefs: [Belief; CONNECTIONS],
    connection: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Belief {
    in_transaction: bool,
    watches: bool,
}

/// A request as it is sent to both.
pub type Body = Vec<u8>;

impl RedisStream {
    pub fn new(seed: u64) -> RedisStream {
        let commands = RedisCommands::new(seed);
        RedisStream { commands, planned: VecDeque::new(), beliefs: Default::default(), connection: 0 }
    }

    pub fn next(&mut self) -> Act<Body, Rule> {
        loop {
            if let Some(act) = self.planned.pop_front() {
                return act;
            }
            self.plan();
        }
    }

    fn plan(&mut self) {
        if self.commands.dice.one_in(60) {
            self.connection = self.commands.dice.below(CONNECTIONS as u64) as usize;
        }
        let connection = self.connection;
        if self.beliefs[connection].in_transaction {
            if self.commands.dice.one_in(12) {
                return self.end_transaction(connection);
            }
        } else if self.commands.dice.one_in(80) {
            return self.plan_apart();
        }
        if self.commands.dice.one_in(25) {
            return self.plan_transaction(connection);
        }
        if self.commands.dice.one_in(100) {
            return self.plan_lock(connection);
        }
        if self.commands.dice.one_in(100) {
            return self.plan_exact_sums(connection);
        }
        let line = self.commands.command();
        self.send(connection, line);
    }

    /// What needs a connection outside of a transaction, or the clock.
    fn plan_apart(&mut self) {
        let connection = self.connection;
        let nobody_watches = self.beliefs.iter().all(|belief| !belief.watches && !belief.in_transaction);
        match self.commands.dice.below(12) {
            0..3 => {
                let mut line = self.commands.line("SCAN", ALL_KEYS);
                if self.commands.dice.one_in(2) {
                    let pattern = self.commands.pattern();
                    line = line.word(self.commands.spelt("MATCH")).word(pattern);
                }
                if self.commands.dice.one_in(2) {
                    line = line
                        .word(self.commands.spelt("COUNT"))
                        .word(self.commands.dice.one_of(&["1", "2", "5", "1000"]));
                }
                if self.commands.dice.one_in(3) {
                    line = line
                        .word(self.commands.spelt("TYPE"))
                        .word(self.commands.dice.one_of(&["string", "STRING", "hash", "nosuch"]));
                }
                self.converse(connection, line);
            }
            3..5 => {
                let line = self.commands.line("RANDOMKEY", ALL_KEYS);
                self.converse(connection, line);
            }
            5 => self.plan_expiry(connection),
            6..8 => {
                let version = if self.commands.dice.one_in(2) { "2" } else { "3" };
                let mut line = self.commands.line("HELLO", 0).word(version);
                line.rule = Some(&table::HELLO);
                self.send(connection, line);
            }
            8 => {
                let odd = ["4", "1", "abc", "", "-3", "3 ", "99999999999999999999"];
                let odd = self.commands.dice.one_of(&odd);
                let mut line = self.commands.line("HELLO", 0).word(odd);
                line.rule = Some(&table::HELLO);
                self.send(connection, line);
            }
            9 if nobody_watches => self.plan_refused(connection),
            10 => {
                let encoded = self.commands.value();
                let (key, set) = self.commands.key();
                let line = self.commands.line("SET", set).word(&key).word(encoded);
                self.push(connection, line);
                let line = self.commands.line("OBJECT", set).word("ENCODING").word(&key);
                self.push(connection, line);
            }
            _ => {
                // Nothing is left of what expired and was not looked at yet, so the count is exact.
                let line = self.commands.exists_all();
                self.push(connection, line);
                let line = self.commands.line("DBSIZE", ALL_KEYS);
                self.push(connection, line);
            }
        }
    }

    /// Keys that expire in a few milliseconds, and a sleep beyond.
    fn plan_expiry(&mut self, connection: usize) {
        let first = self.commands.dice.below(self.commands.keys.len() as u64);
        for number in 0..1 + self.commands.dice.below(4) {
            let index = ((first + number) % self.commands.keys.len() as u64) as usize;
            let (key, set) = (self.commands.keys[index].clone(), 1 << index);
            let soon = (1 + self.commands.dice.below(5)).to_string();
            let soon_at = (now_ms() + 1 + self.commands.dice.below(5)).to_string();
            let value = self.commands.value();
            let line = match self.commands.dice.below(8) {
                0 => self.commands.line("SET", set).word(&key).word(value).word("PX").word(soon),
                1 => self.commands.line("SET", set).word(&key).word(value).word("PXAT").word(soon_at).word("GET"),
                2 => self.commands.line("PSETEX", set).word(&key).word(soon).word(value),
                3 => self.commands.line("GETEX", set).word(&key).word("PX").word(soon),
                4 => self.commands.line("PEXPIREAT", set).word(&key).word(soon_at),
                5 => self.commands.line("PEXPIRE", set).word(&key).word(soon).word("LT"),
                _ => self.commands.line("PEXPIRE", set).word(&key).word(soon),
            };
            self.send(connection, line);
        }
        self.planned.push_back(Act::Pause(Duration::from_millis(EXPIRY_PAUSE_MS)));
        let line = self.commands.exists_all();
        self.push(connection, line);
    }

    /// What the server refuses by its table and Redis takes, and the way back to the same state.
    fn plan_refused(&mut self, connection: usize) {
        let (mut key, mut set) = self.commands.key();
        let rule: Rule;
        let mut line = match self.commands.dice.below(4) {
            0 => {
                rule = Some(&table::VALUE_LENGTH);
                self.commands.line("SETRANGE", set).word(&key).word("3000000").word("x")
            }
            1 => {
                rule = Some(&table::VALUE_LENGTH);
                self.commands.line("SET", set).word(&key).word([b'v'; 1_500_000])
            }
            chosen => {
                rule = Some(&table::KEY_LENGTH);
                (key, set) = (if chosen == 2 { Vec::new() } else { vec![b'k'; 1025] }, 0);
                match self.commands.dice.below(4) {
                    0 => self.commands.line("GET", set).word(&key),
                    1 => self.commands.line("INCR", set).word(&key),
                    2 => self.commands.line("EXISTS", set).word(&key),
                    _ => self.commands.line("SET", set).word(&key).word("v"),
                }
            }
        };
        line.rule = rule;
        self.push(connection, line);
        let mut line = self.commands.line("DEL", set).word(&key);
        line.rule = Some(&table::CLEANED_UP);
        self.push(connection, line);
    }

    /// Anything between a lone EXEC and a watched transaction into which the other connection writes.
    fn plan_transaction(&mut self, connection: usize) {
        match self.commands.dice.below(10) {
            0 => {
                let name = self.commands.dice.one_of(&["EXEC", "DISCARD", "UNWATCH", "MULTI", "WATCH"]);
                let mut line = self.commands.line(name, 0);
                if name == "WATCH" {
                    let (key, set) = self.commands.key();
                    line = line.word(key);
                    line.keys = set;
                }
                self.send_transactional(connection, name, line);
            }
            1..4 => {
                let line = self.commands.line("MULTI", 0);
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
        let mut line = self.commands.line("WATCH", 0);
        for _ in 0..1 + self.commands.dice.below(2) {
            let (key, set) = self.commands.key();
            line = line.word(key);
            line.keys |= set;
        }
        self.send_transactional(connection, "WATCH", line);
        let interfere = |stream: &mut RedisStream, chance: u64| {
            while stream.commands.dice.below(10) < chance {
                let line = stream.commands.command();
                let by = if stream.commands.dice.one_in(4) { connection } else { other };
                stream.send(by, line);
            }
        };
        interfere(self, 4);
        if self.commands.dice.one_in(15) {
            let line = self.commands.line("UNWATCH", 0);
            self.send_transactional(connection, "UNWATCH", line);
        }
        let line = self.commands.line("MULTI", 0);
        self.send_transactional(connection, "MULTI", line);
        for _ in 0..self.commands.dice.below(5) {
            let line = self.commands.command();
            self.send(connection, line);
            if self.commands.dice.one_in(4) {
                let line = self.commands.command();
                self.send(other, line);
            }
        }
        self.end_transaction(connection);
    }

    /// A lock taken, held on to and let go, by its holder or by somebody else.
    fn plan_lock(&mut self, connection: usize) {
        let (key, set) = self.commands.key();
        let mut line = self.commands.line("SET", set).word(&key).word("token").word("PX").word("30000000");
        if self.commands.dice.one_in(2) {
            line = line.word("NX");
        }
        self.push(connection, line);
        for _ in 0..1 + self.commands.dice.below(3) {
            let mut line = self.commands.line("EVAL", set);
            self.commands.script_with(&mut line, &key, b"token");
            let by = if self.commands.dice.one_in(4) && !self.beliefs[1 - connection].in_transaction {
                1 - connection
            } else {
                connection
            };
            self.push(by, line);
        }
    }

    fn end_transaction(&mut self, connection: usize) {
        let name = if self.commands.dice.one_in(8) { "DISCARD" } else { "EXEC" };
        let line = self.commands.line(name, ALL_KEYS);
        self.send_transactional(connection, name, line);
    }

    fn send_transactional(&mut self, connection: usize, name: &str, line: Line) {
        if name != "WATCH" && self.commands.dice.one_in(40) {
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
        let sums = line.rule.is_some_and(|row| std::ptr::eq(row, &table::FLOAT));
        let key = line.words.get(1).filter(|_| sums).cloned();
        let keys = line.keys;
        self.push(connection, line);
        if let Some(key) = key {
            self.settle_sum(connection, &key, keys);
        }
    }

    /// Reads a sum that may differ in its last places, and makes it equal again.
    fn settle_sum(&mut self, connection: usize, key: &[u8], keys: KeySet) {
        let mut line = self.commands.line("GET", keys).word(key);
        line.rule = Some(&table::FLOAT);
        self.push(connection, line);
        let mut line = self.commands.line("PTTL", keys).word(key);
        line.rule = Some(&table::MILLISECONDS);
        self.push(connection, line);
        let value = self.commands.value();
        let line = self.commands.line("SET", keys).word(key).word(value);
        self.push(connection, line);
    }

    /// Sums of eighths, which every arithmetic agrees on.
    fn plan_exact_sums(&mut self, connection: usize) {
        let (key, set) = self.commands.key();
        let line = self.commands.line("SET", set).word(&key).word(self.commands.eighths());
        self.push(connection, line);
        for _ in 0..1 + self.commands.dice.below(4) {
            let line = self.commands.line("INCRBYFLOAT", set).word(&key).word(self.commands.eighths());
            self.push(connection, line);
        }
    }

    /// A word too few or one too many.
    fn spoil(&mut self, line: &mut Line) {
        // SCAN without its mistake would answer a cursor, which is the server's own.
        if !self.commands.dice.one_in(30) || name_of(line) == "SCAN" {
            return;
        }
        if self.commands.dice.one_in(2) {
            if line.words.len() > 1 {
                line.words.pop();
            }
        } else {
            let (key, set) = self.commands.key();
            let words = [&key[..], b"extra", b"NX", b"xx", b"GET", b"KEEPTTL", b"REPLACE"];
            let word = words[self.commands.dice.below(words.len() as u64) as usize].to_vec();
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

    fn request(&mut self, connection: usize, line: Line) -> Request<Body, Rule> {
        let name = name_of(&line);
        let plain = line.words.iter().all(|word| {
            (1..60).contains(&word.len())
                && word.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._:{}".contains(byte))
        });
        let mut body = Vec::new();
        if self.commands.dice.one_in(400) {
            body.extend_from_slice(self.commands.dice.one_of(&["*0\r\n", "\r\n", "*-1\r\n"]).as_bytes()); // these are answered by nothing
        }
        if plain && self.commands.dice.one_in(60) {
            body.extend(line.words.join(&b' '));
            body.extend_from_slice(if self.commands.dice.one_in(4) { b"\n" } else { b"\r\n" });
        } else {
            body.extend(resp::request(&line.words));
        }
        Request { connection, name, body, keys: line.keys, rule: line.rule, after_replies: false }
    }
}

/// Beyond the five milliseconds that a short time to live has at most, on a machine that others use too.
const EXPIRY_PAUSE_MS: u64 = 40;
