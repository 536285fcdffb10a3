//! What is equal between two memcached: replies word by word, uniques by what they stand for.
//!
//! Each request is followed by `mn`, whose `MN` ends the reply whatever came before: nothing after `noreply` and `q`,
//! several lines where a data block was taken for commands.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, BufRead, BufReader, Error, ErrorKind, Read};
use std::net::TcpStream;

use crate::engine::{Act, Dialect, Facts, Judgement, KeySet, Request, Side, judge_by, shown_bytes};
use crate::memcached_stream::{Body, MemcachedStream, Piece};
use crate::tolerances::{self as table, Tolerance};

/// memcached's text protocol, the meta commands included.
pub struct Memcached {
    stream: MemcachedStream,
    uniques: Uniques,
}

/// What was learned of uniques: which of the one server stands for which of the other.
#[derive(Default)]
struct Uniques {
    forth: BTreeMap<(KeySet, u64), u64>,
    back: BTreeMap<(KeySet, u64), u64>,
    /// By key, the last ones, oldest first.
    learned: BTreeMap<KeySet, VecDeque<[u64; 2]>>,
}

type Sent = Request<Body, ()>;

impl Memcached {
    /// The stream of `seed`; `knows_explicit` says whether the reference knows the flag E.
    pub fn new(seed: u64, knows_explicit: bool) -> Memcached {
        Memcached { stream: MemcachedStream::new(seed, knows_explicit), uniques: Uniques::default() }
    }

    /// Compares two lines of flags or items, word by word.
    fn judge_line(&mut self, keys: KeySet, reference: &[u8], other: &[u8], facts: Facts) -> Judgement {
        let [mut ours, mut theirs] =
            [reference, other].map(|line| line.split(|&byte| byte == b' ').collect::<Vec<_>>());
        if ours[0] == theirs[0] && matches!(ours[0], b"VERSION" | b"ME") {
            let row = if ours[0] == b"ME" { &table::ITEM_DUMP } else { &table::VERSION };
            return judge_by(Some(row), reference, other, facts);
        }
        let mut judgement = Judgement::Equal;
        if self.only_spelling_differs(&ours, &theirs) {
            judgement = Judgement::Explained(&table::KEY_SPELLING);
            for words in [&mut ours, &mut theirs] {
                words.retain(|word| !is_spelling(word));
            }
        }
        if ours.len() != theirs.len() {
            return judge_by(None, reference, other, facts);
        }
        for (place, (one, two)) in ours.iter().zip(&theirs).enumerate() {
            let (row, number): (Option<&'static Tolerance>, usize) = match (ours[0], place, one.first()) {
                (b"VALUE", 4, _) => (Some(&table::UNIQUE), 0),
                (b"HD" | b"VA" | b"EX" | b"NF" | b"NS" | b"EN", 1.., Some(b'c')) => (Some(&table::UNIQUE), 1),
                (b"HD" | b"VA" | b"EN", 1.., Some(b't')) => (Some(&table::TIME_LEFT), 1),
                (b"HD" | b"VA" | b"EN", 1.., Some(b'l')) => (Some(&table::LAST_ACCESS), 1),
                _ => (None, 0),
            };
            if one[..number.min(one.len())] != two[..number.min(two.len())] {
                return judge_by(None, reference, other, facts);
            }
            let [one, two] = [one, two].map(|word| word.get(number..).unwrap_or_default());
            if row.is_some_and(|row| std::ptr::eq(row, &table::UNIQUE)) {
                let key = self.named_in(&ours).unwrap_or(keys);
                if let Err(why) = self.uniques.learn(key, one, two) {
                    return Judgement::Different(why);
                }
            }
            match judge_by(row, one, two, facts) {
                Judgement::Equal => {}
                explained @ Judgement::Explained(_) => judgement = explained,
                different @ Judgement::Different(_) => return different,
            }
        }
        judgement
    }

    /// Whether two lines of flags name one key in different ways.
    fn only_spelling_differs(&self, ours: &[&[u8]], theirs: &[&[u8]]) -> bool {
        if !matches!(ours[0], b"HD" | b"VA" | b"EX" | b"NF" | b"NS" | b"EN") {
            return false;
        }
        let names = |words: &[&[u8]]| {
            let name = words.iter().find_map(|word| word.strip_prefix(b"k"))?;
            self.stream.keys.iter().find(|key| name == key.raw || name == key.base64.as_bytes()).map(|key| key.set)
        };
        let spelling = |words: &[&[u8]]| {
            words.iter().filter(|word| is_spelling(word)).map(|word| word.to_vec()).collect::<Vec<_>>()
        };
        spelling(ours) != spelling(theirs) && names(ours).is_some() && names(ours) == names(theirs)
    }

    /// The key that a line of an item names.
    fn named_in(&self, words: &[&[u8]]) -> Option<KeySet> {
        if words[0] != b"VALUE" {
            return None;
        }
        self.stream.keys.iter().find(|key| key.raw == words[1]).map(|key| key.set)
    }
}

impl Dialect for Memcached {
    type Body = Body;
    type Rule = ();

    fn next(&mut self) -> Act<Body, ()> {
        self.stream.next()
    }

    fn render(&self, body: &Body, side: Side) -> Vec<u8> {
        let mut request = Vec::new();
        for piece in body {
            match piece {
                Piece::Bytes(bytes) => request.extend_from_slice(bytes),
                Piece::Unique(key, age) => request.extend(self.uniques.of(*key, *age, side).to_string().into_bytes()),
            }
        }
        request.extend_from_slice(SENTINEL);
        request
    }

    fn read(&self, from: &mut BufReader<TcpStream>) -> io::Result<Vec<u8>> {
        read(from)
    }

    fn judge(&mut self, request: &Sent, reference: &[u8], other: &[u8], facts: Facts) -> Judgement {
        let [mut ours, mut theirs] = [lines(reference), lines(other)];
        let mut judgement = Judgement::Equal;
        loop {
            match (ours.next(), theirs.next()) {
                (None, None) => return judgement,
                (Some(Part::Line(one)), Some(Part::Line(two))) => {
                    match self.judge_line(request.keys, one, two, facts) {
                        Judgement::Equal => {}
                        explained @ Judgement::Explained(_) => judgement = explained,
                        different @ Judgement::Different(_) => return different,
                    }
                }
                (Some(Part::Data(one)), Some(Part::Data(two))) if one == two => {}
                _ => return Judgement::Different(String::new()),
            }
        }
    }

    fn converse(&self, _: &Sent, _: &mut dyn FnMut(&[u8]) -> io::Result<Vec<u8>>) -> io::Result<Vec<u8>> {
        unreachable!("memcached has no conversations")
    }

    fn reset(&mut self, _: usize) -> Vec<Vec<u8>> {
        let lines = self.stream.keys.iter().map(|key| match &key.text {
            Some(text) => format!("delete {text}\r\n"),
            None => format!("md {} b\r\ndelete {}\r\n", key.base64, key.base64),
        });
        vec![[lines.collect::<String>().as_bytes(), SENTINEL].concat()]
    }

    fn show(&self, request: &[u8]) -> String {
        shown_bytes(request.strip_suffix(SENTINEL).unwrap_or(request))
    }
}

impl Uniques {
    /// Notes that these two stand for the same; tells where that contradicts what is known.
    fn learn(&mut self, key: KeySet, reference: &[u8], other: &[u8]) -> Result<(), String> {
        let number = |word: &[u8]| std::str::from_utf8(word).ok()?.parse::<u64>().ok();
        let (Some(one), Some(two)) = (number(reference), number(other)) else { return Ok(()) };
        if one == 0 || two == 0 {
            return if one == two { Ok(()) } else { Err("the unique is 0 on one side only".into()) };
        }
        let forth = *self.forth.entry((key, one)).or_insert(two);
        let back = *self.back.entry((key, two)).or_insert(one);
        if forth != two {
            return Err(format!(
                "the unique {one} of the reference was {forth} before, now {two}: it has changed here and not there"
            ));
        }
        if back != one {
            return Err(format!(
                "the unique {two} was {back} of the reference before, now {one}: it has changed there and not here"
            ));
        }
        let learned = self.learned.entry(key).or_default();
        if learned.back() != Some(&[one, two]) {
            learned.push_back([one, two]);
        }
        if learned.len() > UNIQUES_REMEMBERED {
            learned.pop_front();
        }
        Ok(())
    }

    /// The unique of a key that is so many before the last; a number that none has if there is none.
    fn of(&self, key: KeySet, age: usize, side: Side) -> u64 {
        let learned = self.learned.get(&key).and_then(|learned| learned.iter().rev().nth(age));
        learned.map_or(UNIQUE_OF_NOBODY, |pair| pair[side as usize])
    }
}

/// Reads what comes before `MN`, that included.
pub fn read(from: &mut BufReader<TcpStream>) -> io::Result<Vec<u8>> {
    let mut reply = Vec::new();
    loop {
        let start = reply.len();
        from.take(LINE_BYTES_MAX).read_until(b'\n', &mut reply)?;
        let line = &reply[start..];
        if !line.ends_with(b"\n") {
            let kind = if line.is_empty() { ErrorKind::UnexpectedEof } else { ErrorKind::InvalidData };
            return Err(Error::new(kind, format!("the reply ends after {}", shown_bytes(&reply))));
        }
        if line == b"MN\r\n" {
            return Ok(reply);
        }
        if let Some(length) = data_bytes(line) {
            let start = reply.len();
            reply.resize(start + length + 2, 0);
            from.read_exact(&mut reply[start..])?;
        }
    }
}

enum Part<'a> {
    Line(&'a [u8]),
    Data(&'a [u8]),
}

/// The lines of a reply, and the data blocks between.
fn lines(reply: &[u8]) -> impl Iterator<Item = Part<'_>> {
    let mut rest = reply;
    let mut data = None;
    std::iter::from_fn(move || {
        if let Some(length) = data.take() {
            let (block, behind) = rest.split_at_checked(length + 2)?;
            rest = behind;
            return Some(Part::Data(block));
        }
        let end = rest.iter().position(|&byte| byte == b'\n')? + 1;
        let (line, behind) = rest.split_at(end);
        rest = behind;
        data = data_bytes(line);
        Some(Part::Line(line.strip_suffix(b"\r\n").unwrap_or(line)))
    })
}

/// Bytes of the data block that follows a line.
fn data_bytes(line: &[u8]) -> Option<usize> {
    // A key may be any bytes.
    let text = String::from_utf8_lossy(line);
    let mut words = text.split_ascii_whitespace();
    let length = match words.next()? {
        "VALUE" => words.nth(2)?,
        "VA" => words.next()?,
        _ => return None,
    };
    length.parse().ok().filter(|length| *length <= DATA_BYTES_MAX)
}

/// Words of a line of flags that say how its key is named.
fn is_spelling(word: &[u8]) -> bool {
    word.starts_with(b"k") || word == b"b"
}

/// Ends every request.
const SENTINEL: &[u8] = b"mn\r\n";

/// Longer than any line of a reply.
const LINE_BYTES_MAX: u64 = 8 << 10;

/// Larger than anything that is stored.
const DATA_BYTES_MAX: usize = 8 << 20;

/// Uniques of a key that requests may still name.
const UNIQUES_REMEMBERED: usize = 8;

/// Sent where a unique is to be named and none is known. Below what `E` sets and above what servers count.
const UNIQUE_OF_NOBODY: u64 = 1 << 47;
