//! Redis commands with arguments of every kind: right, at their edges, of the wrong number or form, and options in any
//! order, spelling and contradiction. Few keys, so that commands meet what others left.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::dice::Dice;
use crate::engine::{ALL_KEYS, KeySet};
use crate::tolerances::{self as table, Tolerance};

/// Writes commands.
pub struct RedisCommands {
    pub dice: Dice,
    pub keys: Vec<Vec<u8>>,
}

/// A command under construction.
pub struct Line {
    pub words: Vec<Vec<u8>>,
    pub keys: KeySet,
    pub rule: Rule,
}

/// The row of the table that may explain a difference.
pub type Rule = Option<&'static Tolerance>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Seconds,
    Milliseconds,
}

impl RedisCommands {
    pub fn new(seed: u64) -> RedisCommands {
        let mut keys: Vec<Vec<u8>> = (0..7).map(|number| format!("k{number}").into_bytes()).collect();
        keys.push(b"a key with spaces".to_vec());
        keys.push(b"\x00\r\n\xff*binary".to_vec());
        keys.push(b"{tag}:1".to_vec());
        keys.push([b'L'; 1024].to_vec());
        RedisCommands { dice: Dice::new(seed), keys }
    }

    /// Any command that may stand in a transaction and needs no clock.
    pub fn command(&mut self) -> Line {
        let (_, name) = COMMANDS[self.dice.weighted(COMMANDS.iter().map(|(weight, _)| *weight))];
        let mut line = self.line(name, 0);
        match name {
            "GET" | "GETDEL" | "STRLEN" | "INCR" | "DECR" | "TYPE" | "PERSIST" => line = self.keyed(line),
            "SET" => {
                line = self.keyed(line).word(self.value());
                self.set_options(&mut line);
            }
            "SETNX" | "GETSET" => line = self.keyed(line).word(self.value()),
            "APPEND" => {
                line = self.keyed(line);
                line = line.word(if self.dice.one_in(3) { self.number() } else { self.value() });
            }
            "SETEX" => line = self.keyed(line).word(self.time(Unit::Seconds, false)).word(self.value()),
            "PSETEX" => line = self.keyed(line).word(self.time(Unit::Milliseconds, false)).word(self.value()),
            "GETEX" => {
                line = self.keyed(line);
                for _ in 0..self.dice.few(&[2, 8, 2]) {
                    let option = self.dice.one_of(&["EX", "PX", "EXAT", "PXAT", "PERSIST", "PERSIST", "KEEPTTL"]);
                    self.time_option(&mut line, option);
                }
            }
            "MGET" | "DEL" | "UNLINK" | "EXISTS" | "TOUCH" => {
                for _ in 0..1 + self.dice.few(&[3, 4, 3, 1]) {
                    line = self.keyed(line);
                }
            }
            "MSET" | "MSETNX" => {
                for _ in 0..1 + self.dice.few(&[3, 4, 3, 1]) {
                    line = self.keyed(line).word(self.value());
                }
            }
            "GETRANGE" | "SUBSTR" => line = self.keyed(line).word(self.offset()).word(self.offset()),
            "SETRANGE" => {
                let offset = match self.dice.below(12) {
                    0 => self.dice.one_of(&["536870912", "9223372036854775807", "-1", "4294967296"]).into(),
                    1 => (100 + self.dice.below(5000)).to_string().into_bytes(),
                    2 => self
                        .dice
                        .one_of(&["abc", "", "1.0", "-9223372036854775808", "9223372036854775808", "01"])
                        .into(),
                    _ => self.dice.below(24).to_string().into_bytes(),
                };
                let value = if self.dice.one_in(6) { Vec::new() } else { self.value() };
                line = self.keyed(line).word(offset).word(value);
            }
            "INCRBY" | "DECRBY" => line = self.keyed(line).word(self.number()),
            "INCRBYFLOAT" => {
                line = self.keyed(line).word(self.float());
                line.rule = Some(&table::FLOAT);
            }
            "RENAME" | "RENAMENX" => line = self.keyed(line),
            "COPY" => {
                line = self.keyed(line);
                line = self.keyed(line);
                for _ in 0..self.dice.few(&[4, 4, 1]) {
                    match self.dice.below(8) {
                        0 => line = line.word(self.spelt("DB")).word(self.dice.one_of(&["1", "-1", "abc", "", "00"])),
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
                for word in odd[self.dice.below(odd.len() as u64) as usize] {
                    line = line.word(*word);
                }
            }
            "OBJECT" => match self.dice.below(8) {
                0 => {
                    let (key, set) = self.key();
                    line = line.word(self.dice.one_of(&["NOSUCH", "", "ENCODING ", "encodin"])).word(key);
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
                let options = self.dice.few(&[5, 4, 1, 1]);
                let time = if options == 0 {
                    self.time(unit, name.ends_with("AT"))
                } else {
                    self.time_near(unit, name.ends_with("AT"))
                };
                line = line.word(time);
                for _ in 0..options {
                    let option = self.dice.one_of(&["NX", "XX", "GT", "LT", "NX", "XX", "GT", "LT", "KEEPTTL", ""]);
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
                for _ in 0..self.dice.few(&[4, 4, 1]) {
                    line = line.word(self.value());
                }
            }
            "ECHO" => line = line.word(self.value()),
            "SELECT" => line = line.word(self.dice.one_of(&["0", "0", "0", "1", "-1", "abc", "99999999999", ""])),
            "EVAL" => self.script(&mut line),
            "PUBLISH" => line = line.word(self.dice.one_of(&["channel", "", "k0"])).word(self.value()),
            "UNKNOWN" => {
                let long = "N".repeat(200);
                let names = ["NOSUCH", "G3T", "", "get ", "g\r\net", "\u{e9}", "'quoted'", "GETT", "GE", &long];
                line.words[0] = self.dice.one_of(&names).as_bytes().to_vec();
                for _ in 0..self.dice.few(&[3, 3, 3, 1]) {
                    line = line.word(self.value());
                }
            }
            _ => unreachable!("{name} has no words"),
        }
        if matches!(name, "RENAME" | "RENAMENX") {
            line = self.keyed(line);
        }
        if name == "DBSIZE" {
            line = line.word("extra");
        }
        line
    }

    fn set_options(&mut self, line: &mut Line) {
        for _ in 0..self.dice.few(&[6, 5, 3, 1, 1]) {
            let option = self.dice.one_of(&[
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
        if self.dice.one_in(8) {
            line.words[2] = self.dice.one_of(&["0", "2", "3", "-1", "abc", "", "9223372036854775807"]).into();
        }
    }

    pub fn script_with(&mut self, line: &mut Line, key: &[u8], token: &[u8]) {
        let is_expiry = self.dice.one_in(2);
        line.rule = Some(&table::SCRIPT_ERROR);
        let script = if is_expiry { COMPARE_AND_PEXPIRE } else { COMPARE_AND_DELETE };
        line.words.extend([script.as_bytes(), b"1", key, token].map(<[u8]>::to_vec));
        if is_expiry {
            let is_odd = self.dice.one_in(4);
            let unit = Unit::Milliseconds;
            line.words.push(if is_odd { self.time(unit, false) } else { self.time_near(unit, false) });
        }
    }

    // --- Words -----------------------------------------------------------------------------------

    pub fn line(&mut self, name: &str, keys: KeySet) -> Line {
        Line { words: vec![self.spelt(name)], keys, rule: None }
    }

    fn keyed(&mut self, mut line: Line) -> Line {
        let (key, set) = self.key();
        line.keys |= set;
        line.word(key)
    }

    /// A key, the first ones more often, and the set that holds it.
    pub fn key(&mut self) -> (Vec<u8>, KeySet) {
        let count = self.keys.len() as u64;
        let index = self.dice.below(count).min(self.dice.below(count)) as usize;
        (self.keys[index].clone(), 1 << index)
    }

    pub fn exists_all(&mut self) -> Line {
        let keys = self.keys.clone();
        let mut line = Line { words: vec![b"EXISTS".to_vec()], keys: ALL_KEYS, rule: None };
        line.words.extend(keys);
        line
    }

    pub fn value(&mut self) -> Vec<u8> {
        match self.dice.below(20) {
            0 => Vec::new(),
            1..6 => self.common_value(),
            6..10 => self.number(),
            10..13 => self.float(),
            13..16 => {
                let length = self.dice.below(64);
                (0..length).map(|_| self.dice.next_u64() as u8).collect()
            }
            16 => {
                // 44 bytes is where Redis changes the encoding.
                let length = 40 + self.dice.below(9) as usize;
                vec![b'e'; length]
            }
            17 => {
                let length = self.dice.below(6000) as usize;
                let mut value = vec![b'.'; length];
                value.iter_mut().step_by(7).for_each(|byte| *byte = self.dice.next_u64() as u8);
                value
            }
            18 => self.dice.one_of(&["\r\n", "$-1\r\n", "+OK\r\n", "*1\r\n", "END\r\n", "'", "\\", "\0"]).into(),
            _ => self.dice.one_of(&["plain", "OK", "QUEUED", "nil", "hello world", "\u{fc}ml\u{e4}ut"]).into(),
        }
    }

    /// What scripts and conditions look for.
    fn common_value(&mut self) -> Vec<u8> {
        self.dice.one_of(&["token", "1", "token2", "10"]).into()
    }

    /// An integer, its edges, or what looks like one.
    fn number(&mut self) -> Vec<u8> {
        match self.dice.below(10) {
            0..5 => (self.dice.below(200) as i64 - 50).to_string().into_bytes(),
            5 => (self.dice.next_u64() as i64).to_string().into_bytes(),
            6..8 => self
                .dice
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
                .dice
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
                    "1x0",
                    "1.0",
                    "1e3",
                    "1\0",
                ])
                .into(),
        }
    }

    /// A number with a fraction, or what looks like one.
    fn float(&mut self) -> Vec<u8> {
        match self.dice.below(12) {
            0..6 => {
                let places = self.dice.below(6) as usize;
                let whole = self.dice.below(20_000) as i64 - 10_000;
                let fraction = self.dice.below(10u64.pow(places as u32));
                if places == 0 { whole.to_string() } else { format!("{whole}.{fraction:0places$}") }.into_bytes()
            }
            6 => self.number(),
            7..10 => self
                .dice
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
                .dice
                .one_of(&["inf", "-inf", "nan", "infinity", "+1.5", " 1.5", "1.5 ", "1,5", "1.5.5", "e5", "--1"])
                .into(),
            _ => format!("{:e}", self.dice.unit() * 1000.0).into_bytes(),
        }
    }

    /// A number of eighths, written in one of the ways there are.
    pub fn eighths(&mut self) -> String {
        let eighths = self.dice.below(2_000_000) as i64 - 1_000_000;
        match self.dice.below(5) {
            0 => format!("{:e}", eighths as f64 / 8.0),
            1 => (eighths * 1_000_003).to_string(),
            2 => format!("{:.5}", eighths as f64 / 8.0),
            _ => (eighths as f64 / 8.0).to_string(),
        }
    }

    fn offset(&mut self) -> Vec<u8> {
        match self.dice.below(8) {
            0 => self.number(),
            1 => (self.dice.below(8000) as i64 - 4000).to_string().into_bytes(),
            _ => (self.dice.below(40) as i64 - 20).to_string().into_bytes(),
        }
    }

    /// A time to live or a moment: right and far from now, past, or wrong.
    fn time(&mut self, unit: Unit, is_moment: bool) -> Vec<u8> {
        match self.dice.below(20) {
            0 => self.dice.one_of(&["0", "-1", "-1000", "-0"]).into(),
            1 => self.dice.one_of(&["abc", "", "1.5", " 5000000", "5000000 ", "1e9", "0x100", "+5000000"]).into(),
            2 => self
                .dice
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
            3 => (300_000_000_000 + self.dice.below(1 << 40)).to_string().into_bytes(),
            _ => self.time_near(unit, is_moment),
        }
    }

    /// A time to live of hours to years, or such a moment. Two of them are never nearly equal: they are exactly
    /// equal or (for times to live, which start at different moments) seconds apart.
    fn time_near(&mut self, unit: Unit, is_moment: bool) -> Vec<u8> {
        let mut seconds = 10_000 + self.dice.below(100_000_000);
        if is_moment {
            seconds = match self.dice.below(8) {
                0 => self.dice.below(1_000_000), // long ago
                1..4 => (now_ms() / 1000 / 1_000_000 + 2 + self.dice.below(3)) * 1_000_000,
                _ => now_ms() / 1000 + seconds,
            };
        }
        match unit {
            Unit::Seconds => seconds.to_string(),
            Unit::Milliseconds => (seconds * 1000 + self.dice.below(2)).to_string(),
        }
        .into_bytes()
    }

    pub fn pattern(&mut self) -> Vec<u8> {
        self.dice
            .one_of(&[
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
    pub fn spelt(&mut self, word: &str) -> Vec<u8> {
        match self.dice.below(8) {
            0 => word.to_lowercase().into_bytes(),
            1 => {
                let odd = |byte: u8| {
                    if self.dice.below(2) == 0 { byte.to_ascii_lowercase() } else { byte.to_ascii_uppercase() }
                };
                word.bytes().map(odd).collect()
            }
            _ => word.into(),
        }
    }
}

impl Line {
    pub fn word(mut self, word: impl AsRef<[u8]>) -> Line {
        self.words.push(word.as_ref().to_vec());
        self
    }
}

/// What reports call it.
pub fn name_of(line: &Line) -> String {
    let name = &line.words[0][..line.words[0].len().min(20)];
    name.to_ascii_uppercase().escape_ascii().to_string()
}

pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_millis() as u64
}

/// The unlock and the renewal of every lock built on Redis.
const COMPARE_AND_DELETE: &str =
    "if redis.call(\"get\",KEYS[1]) == ARGV[1] then return redis.call(\"del\",KEYS[1]) else return 0 end";
const COMPARE_AND_PEXPIRE: &str =
    "if redis.call(\"get\",KEYS[1]) == ARGV[1] then return redis.call(\"pexpire\",KEYS[1],ARGV[2]) else return 0 end";

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
