//! The stream of memcached commands, text and meta: right ones, odd ones, and rows of quiet ones.
//!
//! Uniques differ between servers, so a request names one that was learned by its place, and each server is sent its
//! own. Times to live are hours, or a second that is slept through.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::dice::Dice;
use crate::engine::{ALL_KEYS, Act, CONNECTIONS, KeySet, Request};

/// The stream of one seed.
pub struct MemcachedStream {
    dice: Dice,
    pub keys: Vec<Key>,
    planned: VecDeque<Act<Body, ()>>,
    connection: usize,
    /// Whether a reply with a value may be under way. While it is, memcached holds on to the item and counts in a copy
    /// of it, which differs in its padding, its time and its marks.
    value_under_way: bool,
    /// Whether the reference knows the flag E.
    knows_explicit: bool,
}

/// A key: itself, as text (a binary one has none), as base64, and its bit.
#[derive(Clone, Debug)]
pub struct Key {
    pub raw: Vec<u8>,
    pub text: Option<String>,
    pub base64: String,
    pub set: KeySet,
}

/// A request in pieces: some are each server's own.
pub type Body = Vec<Piece>;

#[derive(Clone, Debug)]
pub enum Piece {
    Bytes(Vec<u8>),
    /// A unique of this key (by bit), so many before the last that was learned.
    Unique(KeySet, usize),
}

/// What a line of flags says.
#[derive(Default)]
struct Flags {
    words: Vec<Vec<Piece>>,
    has_time_left: bool,
}

impl MemcachedStream {
    /// What newer versions know and the reference does not is not sent.
    pub fn new(seed: u64, knows_explicit: bool) -> MemcachedStream {
        let mut keys = Vec::new();
        let mut texts: Vec<String> = (0..6).map(|number| format!("k{number}")).collect();
        texts.push("key:of/other-kind~!".into());
        texts.push("L".repeat(250));
        for text in texts {
            // The longest has no base64 that is a key.
            let base64 = if text.len() > 100 { text.clone() } else { base64(text.as_bytes()) };
            keys.push(Key { raw: text.clone().into_bytes(), text: Some(text), base64, set: 1 << keys.len() });
        }
        for bytes in [&b"\x00\x01\x7f\x02"[..], b"\xff\xfe"] {
            keys.push(Key { raw: bytes.to_vec(), text: None, base64: base64(bytes), set: 1 << keys.len() });
        }
        MemcachedStream {
            dice: Dice::new(seed),
            keys,
            planned: VecDeque::new(),
            connection: 0,
            value_under_way: false,
            knows_explicit,
        }
    }

    pub fn next(&mut self) -> Act<Body, ()> {
        loop {
            if let Some(act) = self.planned.pop_front() {
                return act;
            }
            self.plan();
        }
    }

    fn plan(&mut self) {
        if self.dice.one_in(60) {
            self.connection = self.dice.below(CONNECTIONS as u64) as usize;
            // The thread that served the other one has let go of its items by then.
            self.planned.push_back(Act::Pause(Duration::from_millis(2)));
        }
        if self.dice.one_in(2500) {
            return self.plan_expiry();
        }
        if self.dice.one_in(8000) {
            return self.plan_late_flush();
        }
        let key = self.key();
        match self.dice.below(100) {
            0..12 => self.store(&key),
            12..18 => self.text_cas(&key),
            18..27 => self.text_get(),
            27..31 => self.text_touch(&key),
            31..35 => self.text_delete(&key),
            35..43 => self.text_arithmetic(&key),
            43..45 => self.administer(),
            45..50 => self.bad_line(),
            50..65 => self.meta("mg", &key),
            65..80 => self.meta("ms", &key),
            80..86 => self.meta("md", &key),
            86..94 => self.meta("ma", &key),
            94..96 => self.meta_debug(&key),
            96 => self.wrap(&key),
            _ => self.quiet_row(&key),
        }
    }

    /// A second is the shortest time to live there is, and its end lies within the two that follow.
    fn plan_expiry(&mut self) {
        for _ in 0..1 + self.dice.below(4) {
            let key = self.key();
            let name = key.text.clone().unwrap_or_else(|| "k0".into());
            let line = match self.dice.below(6) {
                0 => format!("touch {name} 1"),
                1 => format!("gat 1 {name}"),
                2 => format!("mg {name} T1 v"),
                3 => format!("ms {name} 2 T1\r\nhi"),
                4 => format!("md {name} I T1"),
                _ => format!("set {name} 5 1 2\r\nhi"),
            };
            let command = line.split(' ').next().expect("a word");
            self.push(command, key.set, vec![bytes(&line), bytes("\r\n")], false);
        }
        self.planned.push_back(Act::Pause(EXPIRY_PAUSE));
        self.get_all();
    }

    /// A flush that is to come. What was flushed before would come back until then, so nothing is left of it.
    fn plan_late_flush(&mut self) {
        let keys = self.keys.clone();
        for key in &keys {
            let line = format!("md {} b q\r\n", key.base64);
            let line = if let Some(text) = &key.text { format!("delete {text}\r\n") } else { line };
            self.push("delete", key.set, vec![bytes(&line)], false);
        }
        self.push("flush_all", ALL_KEYS, vec![bytes("flush_all 2\r\n")], false);
        for key in &keys[..3] {
            let text = key.text.as_deref().expect("the first keys are text");
            self.push("set", key.set, vec![bytes(&format!("set {text} 0 0 5\r\nflush\r\n"))], false);
        }
        self.planned.push_back(Act::Pause(LATE_FLUSH_PAUSE));
        self.get_all();
    }

    fn get_all(&mut self) {
        let texts: Vec<String> = self.keys.iter().filter_map(|key| key.text.clone()).collect();
        self.push("gets", ALL_KEYS, vec![bytes(&format!("gets {}\r\n", texts.join(" ")))], false);
    }

    fn push(&mut self, name: &str, keys: KeySet, body: Body, after_replies: bool) {
        let counts = matches!(name, "incr" | "decr" | "ma" | "row of ma" | "wrap");
        let after_replies = after_replies || (counts && self.value_under_way);
        if after_replies {
            self.value_under_way = false;
        }
        self.value_under_way |=
            matches!(name, "get" | "gets" | "gat" | "gats" | "mg" | "row of mg" | "bad line" | "wrap");
        let request =
            Request { connection: self.connection, name: name.to_string(), body, keys, rule: (), after_replies };
        self.planned.push_back(Act::Send(request));
    }

    // --- Text ----------------------------------------------------------------------------------

    fn store(&mut self, key: &Key) {
        let name = self.dice.one_of(&["set", "set", "set", "add", "replace", "append", "prepend"]);
        let key_text = self.text_of(key);
        let line = self.store_line(name, &key_text, &[]);
        self.push(name, key.set, line, false);
    }

    fn text_cas(&mut self, key: &Key) {
        let text = self.text_of(key);
        if !self.dice.one_in(3) {
            let line = if self.dice.one_in(2) { format!("gets {text}\r\n") } else { format!("mg {text} c\r\n") };
            self.push("gets", key.set, vec![bytes(&line)], false);
        }
        let unique = self.unique(key);
        let line = self.store_line("cas", &text, &[unique]);
        self.push("cas", key.set, line, true);
    }

    /// A line and its data; what is wrong with it has data that no server takes for a command it knows.
    fn store_line(&mut self, name: &str, key: &str, unique: &[Piece]) -> Body {
        let mut data = self.value();
        let mut flags = self.dice.below(1 << 16).to_string();
        let mut time = self.time();
        let mut length = None;
        let odd = self.dice.below(60);
        // A cas without its unique is not one, so its data is a line of its own.
        let has_unique = !unique.is_empty() && !self.dice.one_in(60);
        let is_wrong = matches!(unique, [Piece::Bytes(text)] if !WHOLE_UNIQUES.iter().any(|it| it.as_bytes() == text));
        if odd < 4 || is_wrong || has_unique != (name == "cas") {
            data = b"data".to_vec();
        }
        match odd {
            0 => {
                flags =
                    self.dice.one_of(&["-1", "abc", "4294967296", "4294967295", "99999999999999999999", "1.5"]).into()
            }
            1 => time = self.dice.one_of(&["abc", "1.5", "99999999999", "-", "0x10"]).into(),
            2 => length = Some(self.dice.one_of(&["-1", "abc", "1.5", "2147483647x"])),
            3 => length = Some(self.dice.one_of(&["1", "2", "3"])), // less than there is
            _ => {}
        }
        let length = length.map_or_else(|| data.len().to_string(), str::to_string);
        let mut body = vec![bytes(&format!("{name} {key} {flags} {time} {length}"))];
        if has_unique {
            body.push(bytes(" "));
            body.extend_from_slice(unique);
        }
        body.push(bytes(self.dice.one_of(&["", "", "", "", "", "", " ", " noreply", " noreply ", " norep"])));
        body.push(bytes("\r\n"));
        body.push(Piece::Bytes(data));
        body.push(bytes("\r\n"));
        body
    }

    fn text_get(&mut self) {
        let name = self.dice.one_of(&["get", "get", "gets", "gets", "gat", "gats"]);
        let mut line = name.to_string();
        if name.starts_with("gat") {
            line = format!("{line} {}", if self.dice.one_in(15) { "abc".into() } else { self.time() });
        }
        let mut set = 0;
        for _ in 0..1 + self.dice.few(&[8, 4, 2, 1]) {
            let key = self.key();
            line = format!("{line} {}", self.text_of(&key));
            set |= key.set;
        }
        self.push(name, set, vec![bytes(&line), bytes("\r\n")], false);
    }

    fn text_touch(&mut self, key: &Key) {
        let time = if self.dice.one_in(12) {
            self.dice.one_of(&["abc", "", "1.5", "99999999999"]).into()
        } else {
            self.time()
        };
        let line = format!("touch {} {time}{}\r\n", self.text_of(key), self.noreply());
        self.push("touch", key.set, vec![bytes(&line)], false);
    }

    fn text_delete(&mut self, key: &Key) {
        let odd = if self.dice.one_in(6) {
            self.dice.one_of(&[" 0", " 5", " 0 noreply", " x", " noreply x"])
        } else {
            self.noreply()
        };
        let line = format!("delete {}{odd}\r\n", self.text_of(key));
        self.push("delete", key.set, vec![bytes(&line)], false);
    }

    fn text_arithmetic(&mut self, key: &Key) {
        let name = self.dice.one_of(&["incr", "incr", "decr"]);
        let line = format!("{name} {} {}{}\r\n", self.text_of(key), self.delta(), self.noreply());
        self.push(name, key.set, vec![bytes(&line)], false);
    }

    fn administer(&mut self) {
        if self.dice.one_in(6) {
            let line = self.dice.one_of(&["flush_all", "flush_all 0", "flush_all noreply", "flush_all 0 noreply"]);
            return self.push("flush_all", ALL_KEYS, vec![bytes(line), bytes("\r\n")], false);
        }
        let line = self.dice.one_of(&[
            "verbosity 0",
            "verbosity 1",
            "verbosity 0 noreply",
            "verbosity",
            "verbosity abc",
            "verbosity 0 0 0 0",
            "version",
            "version x",
            "flush_all abc",
            "flush_all 1 2 3",
            "verbosity noreply",
        ]);
        self.push("administer", 0, vec![bytes(line), bytes("\r\n")], false);
    }

    /// Lines that no client sends.
    fn bad_line(&mut self) {
        let long = "x".repeat(1000);
        let long_key = format!("get {}", "k".repeat(251));
        let many = format!("get{}", " k0 nosuch".repeat(60));
        let store_long_key = format!("set {} 0 0 4\r\ndata", "k".repeat(251));
        let meta_long_keys = ["mg", "md", "ma"].map(|name| format!("{name} {}", "k".repeat(251)));
        let line = self.dice.one_of(&[
            "",
            " ",
            "FOO",
            "GET k0",
            "get",
            "gets",
            "gat",
            "gat 0",
            "set",
            "set k0",
            "set k0 0 0",
            "add k0 0",
            "cas k0 0 0 4",
            "incr",
            "incr k0",
            "decr k0",
            "touch",
            "touch k0",
            "delete",
            "delete ",
            "mg",
            "ms",
            "md",
            "ma",
            "me",
            "mg ",
            "m",
            "mgx k0",
            "MG k0",
            " get k0",
            "get  k0   k1",
            "get k0 ",
            "mg  k0  v",
            "mg k0 v ",
            "get\tk0",
            "incr k0 1 1 1",
            "ms k0",
            "ms k0 S2",
            "ms k0 -1",
            "ms k0 abc\r\ndata",
            "ms k0 4T0\r\ndata",
            "md k0 k0",
            "mg k0 k0",
            "mg k0 -",
            "ma k0 1",
            "me k0 k1",
            "gets k0 noreply",
            "incr k0 noreply",
            "touch k0 noreply",
            "ms k0 2147483648",
            "set k0 0 0 2147483648",
            "\x01\x02",
            "get \u{e4}\u{f6}",
            &long,
            &long_key,
            &many,
            &store_long_key,
            &meta_long_keys[0],
            &meta_long_keys[1],
            &meta_long_keys[2],
        ]);
        let ending = if self.dice.one_in(20) { "\n" } else { "\r\n" };
        let line = format!("{line}{ending}");
        self.push("bad line", 0b11, vec![bytes(&line)], false);
    }

    // --- Meta ------------------------------------------------------------------------------------

    fn meta(&mut self, name: &'static str, key: &Key) {
        if self.dice.one_in(200) {
            return self.too_large(key);
        }
        let (body, needs_unique) = self.meta_line(name, key);
        if needs_unique && !self.dice.one_in(4) {
            let line = if key.text.is_some() {
                format!("mg {} c\r\n", self.text_of(key))
            } else {
                format!("mg {} b c\r\n", key.base64)
            };
            self.push("mg", key.set, vec![bytes(&line)], false);
        }
        self.push(name, key.set, body, needs_unique);
    }

    /// A line of one of the four, and whether it names a unique.
    fn meta_line(&mut self, name: &str, key: &Key) -> (Body, bool) {
        let is_base64 = key.text.is_none() || (key.base64.len() <= 100 && self.dice.one_in(8));
        let mut flags = Flags::default();
        if is_base64 {
            flags.words.push(vec![bytes("b")]);
        }
        // Where a time left may be negative memcached answers an unsigned one: `t` and such times are never together.
        flags.has_time_left = self.dice.one_in(4) && name != "md" && name != "ms";
        if flags.has_time_left {
            flags.words.push(vec![bytes("t")]);
        }
        let mut needs_unique = false;
        if name != "mg" && self.dice.one_in(4) {
            needs_unique = true;
            flags.words.push(vec![bytes("C"), self.unique(key)]);
        }
        let plain: &[&str] = match name {
            "mg" => &["c", "f", "h", "k", "l", "q", "s", "u", "v", "v", "v"],
            // Of a key that is no text the uniques of two are taken for one: with I it matters which is older.
            "ms" if key.text.is_none() => &["c", "k", "q"],
            "ms" => &["c", "k", "q", "I"],
            "md" => &["k", "q", "I", "I"],
            _ => &["c", "k", "q", "v", "v"],
        };
        let mut letters: Vec<&str> = plain.to_vec();
        for _ in 0..self.dice.few(&[2, 4, 4, 4, 2, 1]) {
            let at = self.dice.below(letters.len() as u64) as usize;
            let letter = letters[at];
            letters.retain(|other| *other != letter);
            flags.words.push(vec![bytes(letter)]);
            if letters.is_empty() {
                break;
            }
        }
        self.meta_tokens(name, &mut flags);
        if self.dice.one_in(40) {
            let odd = self.dice.one_of(&[
                "v", "k", "Q", "y", "!", "O", "T", "Tabc", "C", "Cabc", "Nabc", "Dabc", "Jabc", "Fabc", "Mz", "M",
                "vv", "P", "L1",
            ]);
            flags.words.push(vec![bytes(odd)]);
        }
        // Any order will do.
        for at in (1..flags.words.len()).rev() {
            flags.words.swap(at, self.dice.below(at as u64 + 1) as usize);
        }
        let name_text = if is_base64 { key.base64.clone() } else { self.text_of(key) };
        let mut body = vec![bytes(&format!("{name} {name_text}"))];
        let mut data = None;
        if name == "ms" {
            let (mut value, mut length) = (self.value(), None);
            if self.dice.one_in(60) {
                value = b"data".to_vec();
                length = Some(self.dice.one_of(&["1", "2", "3"]).to_string());
            }
            body.push(bytes(&format!(" {}", length.unwrap_or_else(|| value.len().to_string()))));
            data = Some(value);
        }
        for word in flags.words {
            body.push(bytes(" "));
            body.extend(word);
        }
        body.push(bytes("\r\n"));
        if let Some(data) = data {
            body.push(Piece::Bytes(data));
            body.push(bytes("\r\n"));
        }
        (body, needs_unique)
    }

    /// Flags with tokens.
    fn meta_tokens(&mut self, name: &str, flags: &mut Flags) {
        let time = |stream: &mut MemcachedStream, flags: &Flags| {
            let time = stream.time();
            let is_past = time.starts_with('-') || PAST.contains(&time.as_str());
            if flags.has_time_left && is_past { "1000".into() } else { time }
        };
        let mut words: Vec<String> = Vec::new();
        if self.dice.one_in(5) {
            let opaque = self.dice.one_of(&[
                "1",
                "opaque",
                "abcdefghijklmnopqrstuvwxyz",
                "c5",
                "abcdefghijklmnopqrstuvwxyz0123456789",
            ]);
            words.push(format!("O{opaque}"));
        }
        if name != "ma" && self.dice.one_in(5) {
            words.push(format!("T{}", time(self, flags)));
        }
        if matches!(name, "mg" | "ma") && self.dice.one_in(4) {
            words.push(format!("N{}", self.dice.one_of(&["0", "1000", "50000"])));
        }
        if name == "mg" && self.dice.one_in(5) {
            words.push(format!("R{}", self.dice.one_of(&["0", "30", "30", "2000000", "2000000000"])));
        }
        if name == "ms" {
            if self.dice.one_in(3) {
                words.push(format!("F{}", self.dice.one_of(&["0", "1", "65535", "4294967295", "123", "4294967296"])));
            }
            if self.dice.one_in(3) {
                let mode =
                    self.dice.one_of(&["E", "A", "P", "R", "S", "E", "A", "P", "R", "S", "E", "A", "P", "a", "append"]);
                words.push(format!("M{mode}"));
            }
        }
        if name == "ma" {
            if self.dice.one_in(2) {
                words.push(format!("D{}", self.delta()));
            }
            if self.dice.one_in(3) {
                words.push(format!("J{}", self.dice.one_of(&["0", "10", "4611686018427387904", "99"])));
            }
            if self.dice.one_in(2) {
                words.push(format!(
                    "M{}",
                    self.dice.one_of(&["I", "+", "D", "-", "I", "+", "D", "-", "D", "i", "decr"])
                ));
            }
        }
        if self.knows_explicit && name != "mg" && self.dice.one_in(8) {
            // Far from what servers count, and never twice.
            words.push(format!("E{}", (1u64 << 48) + (self.dice.next_u64() >> 20)));
        }
        if self.dice.one_in(30) {
            words.push(self.dice.one_of(&["Ppath", "Lpath/"]).into());
        }
        flags.words.extend(words.iter().map(|word| vec![bytes(word)]));
    }

    /// Beyond the limit of both, by whichever command.
    fn too_large(&mut self, key: &Key) {
        let text = self.text_of(key);
        let data = "z".repeat(2_000_000);
        let line = match self.dice.below(3) {
            0 => format!("ms {text} {} c\r\n{data}\r\n", data.len()),
            1 => format!("add {text} 0 0 {}\r\n{data}\r\n", data.len()),
            _ => format!("set {text} 0 0 {}\r\n{data}\r\n", data.len()),
        };
        self.push("too large", key.set, vec![bytes(&line)], false);
        self.push("mg", key.set, vec![bytes(&format!("mg {text} s v\r\n"))], false);
    }

    fn meta_debug(&mut self, key: &Key) {
        let line = if key.text.is_none() || self.dice.one_in(4) {
            format!("me {} b\r\n", key.base64)
        } else {
            format!("me {}\r\n", self.text_of(key))
        };
        self.push("me", key.set, vec![bytes(&line)], false);
    }

    /// Several quiet commands on one key, whose replies only `MN` tells apart.
    fn quiet_row(&mut self, key: &Key) {
        let (title, names) =
            if self.dice.one_in(2) { ("row of mg", ["mg", "ms", "md"]) } else { ("row of ma", ["ma", "ms", "md"]) };
        let mut row = Body::new();
        for _ in 0..2 + self.dice.below(5) {
            let name = names[self.dice.below(4).saturating_sub(1) as usize];
            let (mut line, _) = self.meta_line(name, key);
            let is_quiet = line.iter().any(|piece| matches!(piece, Piece::Bytes(flag) if flag == b"q"));
            if !is_quiet && name != "ms" && self.dice.one_in(2) {
                line.pop();
                line.push(bytes(" q\r\n"));
            }
            row.extend(line);
        }
        self.push(title, key.set, row, true);
    }

    /// Beyond 2^64 and round to where it began. Nothing is left at 2^63 or more: memcached looks for a sign there,
    /// beyond the end of the value, in what memory happens to hold.
    fn wrap(&mut self, key: &Key) {
        let text = self.text_of(key);
        let start = 10 + self.dice.below(80);
        let delta = u64::MAX - self.dice.below(10);
        let line = if self.dice.one_in(2) { format!("incr {text} {delta}") } else { format!("ma {text} D{delta} v") };
        let body = format!("set {text} 0 0 2\r\n{start}\r\n{line}\r\nget {text}\r\n");
        self.push("wrap", key.set, vec![bytes(&body)], false);
    }

    // --- Words -----------------------------------------------------------------------------------

    fn key(&mut self) -> Key {
        let count = self.keys.len() as u64;
        let index = self.dice.below(count).min(self.dice.below(count)) as usize;
        self.keys[index].clone()
    }

    /// As a text command names it; a binary key cannot be named so, and another one takes its place.
    fn text_of(&mut self, key: &Key) -> String {
        key.text.clone().unwrap_or_else(|| key.base64.clone())
    }

    fn value(&mut self) -> Vec<u8> {
        match self.dice.below(20) {
            0 => Vec::new(),
            1..8 | 15..18 => {
                let digits = 1 + self.dice.below(8) as u32;
                self.dice.below(10u64.pow(digits)).to_string().into_bytes()
            }
            8 => self.dice.one_of(&["18446744073709551616", "4611686018427387904", "0", "10", "100", "99"]).into(),
            9 => self
                .dice
                .one_of(&["-1", " 5", "5 ", "007", "1.5", "abc", "12a", "99999999999999999999999", "5\0"])
                .into(),
            10..13 => {
                let length = self.dice.below(40);
                let value: Vec<u8> = (0..length).map(|_| self.dice.next_u64() as u8).collect();
                if value.trim_ascii().is_empty() { Vec::new() } else { value }
            }
            13 => {
                let length = self.dice.below(5000) as usize;
                let mut value = vec![b'.'; length];
                value.iter_mut().step_by(7).for_each(|byte| *byte = self.dice.next_u64() as u8);
                value
            }
            14 => self.dice.one_of(&["\r\nx", "END\r\n", "VALUE k0 0 2\r\nhi\r\n", "\0", "\r\nSTORED"]).into(),
            _ => self.dice.one_of(&["plain", "hello world", "hi", "token", "\u{fc}ml\u{e4}ut"]).into(),
        }
    }

    /// A time to live or a moment, neither near now.
    fn time(&mut self) -> String {
        match self.dice.below(24) {
            0 => "-1".into(),
            1 => self.dice.one_of(&PAST).into(),
            2 | 3 => (now_s() + 100_000 + self.dice.below(10_000_000)).to_string(),
            4 => "2592000".into(),
            5..9 => (1000 + self.dice.below(2_000_000)).to_string(),
            _ => "0".into(),
        }
    }

    fn delta(&mut self) -> String {
        match self.dice.below(12) {
            0 => self.dice.one_of(&["4294967296", "1000000000000", "99999"]).into(),
            1 => self.dice.one_of(&["abc", "-1", "1.5", "18446744073709551616", "0x10", "+5"]).into(),
            2 => "0".into(),
            _ => self.dice.below(300).to_string(),
        }
    }

    fn noreply(&mut self) -> &'static str {
        self.dice.one_of(&["", "", "", "", "", "", "", " noreply", " noreply", " NOREPLY"])
    }

    /// A unique that is right, was right, or never was.
    fn unique(&mut self, key: &Key) -> Piece {
        match self.dice.below(16) {
            0 => bytes(self.dice.one_of(&WHOLE_UNIQUES)),
            1 => bytes(self.dice.one_of(&["abc", "-1", "18446744073709551616", "1.5"])),
            2..5 => Piece::Unique(key.set, 1 + self.dice.below(3) as usize),
            _ => Piece::Unique(key.set, 0),
        }
    }
}

/// Moments long past.
const PAST: [&str; 3] = ["2592001", "1000000000", "-5000"];
/// Uniques that nobody was told.
const WHOLE_UNIQUES: [&str; 4] = ["1", "18446744073709551615", "4611686018427387904", "0"];

fn bytes(text: &str) -> Piece {
    Piece::Bytes(text.as_bytes().to_vec())
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let number = three.iter().fold(0u32, |number, &byte| number << 8 | u32::from(byte)) << (8 * (3 - three.len()));
        for place in 0..4 {
            let letter = LETTERS[(number >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= three.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_secs()
}

/// Both clocks have passed a second by then, whatever second they count in.
const EXPIRY_PAUSE: Duration = Duration::from_millis(2500);

/// The same for two seconds.
const LATE_FLUSH_PAUSE: Duration = Duration::from_millis(4200);
