//! Lines: which command one is, and its words.

use crate::base::limits;
use crate::wire::codec::Decoded;
use crate::wire::memcached::ask::{Ask, Exptime, Storing, Verb};
use crate::wire::memcached::{Wrong, base64, number, value_bytes_max_of};
use crate::wire::request::{Command, Request};

/// What a line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// Something about one key.
    Key {
        /// The key, as it was sent.
        key: &'a [u8],
        /// What; a value is yet to be set.
        ask: Ask<'a>,
        /// The length of the value that follows, if one does.
        block: Option<usize>,
        /// The key is in base64.
        is_encoded: bool,
    },
    /// A retrieval of several keys, or of none.
    Keys {
        /// The keys, between spaces.
        keys: &'a [u8],
        /// When they expire from now on, if that changes.
        exptime: Option<Exptime>,
        /// Versions are asked for.
        with_cas: bool,
    },
    /// MN: answered when everything before it has been.
    Barrier,
    /// Something about the server or the connection.
    Server(Server<'a>),
    /// Nothing that can be done; whether nobody waits for an answer.
    Wrong(Wrong, bool),
}

/// What is about the server or the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server<'a> {
    /// STATS and what follows it.
    Stats(&'a [u8]),
    /// FLUSH_ALL.
    Flush {
        /// When.
        exptime: Exptime,
        /// Nobody waits for an answer.
        is_quiet: bool,
    },
    /// VERSION.
    Version,
    /// QUIT.
    Quit,
    /// WATCH and what follows it.
    Watch(&'a [u8]),
    /// Something that changes nothing here; what it is answered, unless nobody waits.
    Say(&'static str, bool),
}

/// The words of a line, as many as any command but a retrieval has.
struct Words<'a> {
    words: [&'a [u8]; WORDS_MAX],
    count: usize,
    /// What stands behind the first word, and behind the second.
    after: [&'a [u8]; 2],
}

/// `get key\r\n` as a request, if that is what `bytes` begins with.
#[inline]
pub fn plain_get(bytes: &[u8]) -> Option<Decoded<'_>> {
    let end = word_end(bytes, 4);
    let key = &bytes[4..end];
    if bytes.get(end..end + 2)? != b"\r\n" || key.is_empty() || key.len() > limits::MEMCACHED_KEY_BYTES_MAX {
        return None;
    }
    let command = Command::Memcached { key, ask: Ask::Read { exptime: None, with_cas: false, ends: true } };
    Some(Decoded::Request(Request { id: 0, want_version: false, command }, end + 2))
}

/// `set key flags exptime length\r\n` and its value as a request, if that is what `bytes` begins with.
#[inline]
pub fn plain_set(bytes: &[u8], value_bytes_max: usize) -> Option<Decoded<'_>> {
    let end = word_end(bytes, 4);
    let key = &bytes[4..end];
    if key.is_empty() || key.len() > limits::MEMCACHED_KEY_BYTES_MAX {
        return None;
    }
    let (flags, at) = digits(bytes, end)?;
    let (exptime, at) = digits(bytes, at)?;
    let (length, at) = digits(bytes, at)?;
    let length = length as usize;
    if bytes.get(at..at + 2)? != b"\r\n"
        || length > value_bytes_max_of(key, value_bytes_max)
        || flags > u64::from(u32::MAX)
    {
        return None;
    }
    let (value, length) = match block(bytes, at + 2, length) {
        Ok((Some(value), length)) => (value, length),
        Ok((None, _)) => return None,
        Err(needed) => return Some(Decoded::Incomplete(needed)),
    };
    let (flags, exptime, how) = (flags as u32, Exptime(exptime as i32), Storing::Set);
    let ask = Ask::Store { value, flags, exptime, how, is_quiet: false };
    Some(Decoded::Request(Request { id: 0, want_version: false, command: Command::Memcached { key, ask } }, length))
}

/// A space and up to ten digits from `at` on, and where they end; `None` for anything else.
#[inline]
fn digits(bytes: &[u8], at: usize) -> Option<(u64, usize)> {
    if *bytes.get(at)? != b' ' {
        return None;
    }
    let start = at + 1;
    let (mut number, mut at) = (0u64, start);
    while let Some(digit) = bytes.get(at).map(|byte| byte.wrapping_sub(b'0')).filter(|digit| *digit < 10) {
        number = number * 10 + u64::from(digit);
        at += 1;
        if at - start > PLAIN_DIGITS_MAX {
            return None;
        }
    }
    (at > start).then_some((number, at))
}

/// The value of `length` bytes at `start`, if it ends as it should, and where the next line begins; else how many
/// bytes are needed.
#[inline]
pub fn block(bytes: &[u8], start: usize, length: usize) -> Result<(Option<&[u8]>, usize), usize> {
    let end = start + length;
    let Some(tail) = bytes.get(end..end + 2) else { return Err(end + 2) };
    Ok(((tail == b"\r\n").then(|| &bytes[start..end]), end + 2))
}

/// A line without its end.
pub fn stripped(line: &[u8]) -> &[u8] {
    match line {
        [rest @ .., b'\r'] if !rest.is_empty() => rest,
        _ => line,
    }
}

/// What a line says, without its end.
pub fn line(line: &[u8]) -> Line<'_> {
    let words = Words::of(line);
    let Some(&command) = words.all().first() else { return Line::Wrong(Wrong::Command, false) };
    let count = words.count;
    let is_quiet = words.all().last() == Some(&b"noreply".as_slice());
    let one = |ask, block| key(words.words[1], ask, block, is_quiet);
    match command {
        [b'm', b'n'] => Line::Barrier,
        [b'm', letter] => match Verb::of(*letter) {
            Some(verb) => meta(verb, &words),
            None => Line::Wrong(Wrong::Command, false),
        },
        b"get" | b"gets" | b"bget" | b"gat" | b"gats" if count >= 2 => retrieval(command, &words),
        b"set" | b"add" | b"replace" | b"append" | b"prepend" if count == 5 || count == 6 => {
            store(command, &words, is_quiet)
        }
        b"cas" if count == 6 || count == 7 => store(command, &words, is_quiet),
        b"incr" | b"decr" if count == 3 || count == 4 => match number::unsigned(words.words[2]) {
            Some(by) => one(Ask::Count { by, is_down: command == b"decr", is_quiet }, None),
            None if words.words[1].len() > limits::MEMCACHED_KEY_BYTES_MAX => Line::Wrong(Wrong::Format, is_quiet),
            None => Line::Wrong(Wrong::Delta, is_quiet),
        },
        b"touch" if count == 3 || count == 4 => match number::signed32(words.words[2]) {
            Some(seconds) => one(Ask::Touch { exptime: Exptime(seconds), is_quiet }, None),
            None if words.words[1].len() > limits::MEMCACHED_KEY_BYTES_MAX => Line::Wrong(Wrong::Format, is_quiet),
            None => Line::Wrong(Wrong::Exptime, is_quiet),
        },
        b"delete" if (2..=4).contains(&count) => {
            let holds_zero = words.words[2] == b"0";
            let is_fine = match count {
                2 => true,
                3 => holds_zero || is_quiet,
                _ => holds_zero && is_quiet,
            };
            let is_quiet = is_quiet && count > 2;
            if is_fine {
                key(words.words[1], Ask::Delete { is_quiet }, None, is_quiet)
            } else {
                Line::Wrong(Wrong::Delete, is_quiet)
            }
        }
        _ => server(command, &words, is_quiet),
    }
}

fn server<'a>(command: &[u8], words: &Words<'a>, is_quiet: bool) -> Line<'a> {
    let count = words.count;
    let say = |text| Line::Server(Server::Say(text, is_quiet));
    match command {
        b"stats" => Line::Server(Server::Stats(words.after[0])),
        b"version" => Line::Server(Server::Version),
        b"quit" => Line::Server(Server::Quit),
        b"flush_all" if count <= 3 => {
            let has_time = count != if is_quiet { 2 } else { 1 };
            match if has_time { number::signed32(words.words[1]) } else { Some(0) } {
                Some(seconds) => Line::Server(Server::Flush { exptime: Exptime(seconds), is_quiet }),
                None => Line::Wrong(Wrong::Exptime, is_quiet),
            }
        }
        b"verbosity" if count == 2 || count == 3 => match number::unsigned32(words.words[1]) {
            Some(_) => say("OK"),
            None => Line::Wrong(Wrong::Format, is_quiet),
        },
        b"watch" => Line::Server(Server::Watch(words.after[0])),
        // There are no slabs, their memory is fixed at start, and nothing crawls.
        b"slabs" if count >= 3 && words.words[1] == b"automove" => match number::unsigned32(words.words[2]) {
            Some(_) => say("CLIENT_ERROR slab reassignment disabled"),
            None => Line::Wrong(Wrong::Format, is_quiet),
        },
        b"slabs" if count == 4 && words.words[1] == b"reassign" => say("CLIENT_ERROR slab reassignment disabled"),
        b"lru_crawler" if (2..=3).contains(&count) => say("CLIENT_ERROR lru crawler disabled"),
        b"cache_memlimit" if count == 2 || count == 3 => match number::unsigned32(words.words[1]) {
            Some(_) => say("MEMLIMIT_ADJUST_FAILED out of bounds or unable to adjust"),
            None => Line::Wrong(Wrong::Command, is_quiet),
        },
        b"shutdown" => say("ERROR: shutdown not enabled"),
        // Somebody takes this for a web server.
        _ if words.all().last().is_some_and(|last| last.starts_with(b"HTTP/")) && !is_known(command) => {
            Line::Wrong(Wrong::Nothing, false)
        }
        _ => Line::Wrong(Wrong::Command, false),
    }
}

/// Whether a command exists, with other words.
fn is_known(command: &[u8]) -> bool {
    const FIRST_LETTERS: &[u8] = b"gsacidt";
    command.first().is_some_and(|letter| FIRST_LETTERS.contains(letter))
}

fn key<'a>(key: &'a [u8], ask: Ask<'a>, block: Option<usize>, is_quiet: bool) -> Line<'a> {
    if key.len() > limits::MEMCACHED_KEY_BYTES_MAX {
        return Line::Wrong(Wrong::Format, is_quiet);
    }
    Line::Key { key, ask, block, is_encoded: false }
}

fn retrieval<'a>(command: &[u8], words: &Words<'a>) -> Line<'a> {
    let touches = command.starts_with(b"gat");
    let with_cas = command.ends_with(b"s");
    let mut exptime = None;
    let (keys, first, count) = match touches {
        true => {
            let Some(seconds) = number::signed32(words.words[1]) else { return Line::Wrong(Wrong::Exptime, false) };
            exptime = Some(Exptime(seconds));
            (words.after[1], words.words[2], words.count - 2)
        }
        false => (words.after[0], words.words[1], words.count - 1),
    };
    match count {
        1 => key(first, Ask::Read { exptime, with_cas, ends: true }, None, false),
        _ => Line::Keys { keys, exptime, with_cas },
    }
}

fn store<'a>(command: &[u8], words: &Words<'a>, is_quiet: bool) -> Line<'a> {
    let format = Line::Wrong(Wrong::Format, is_quiet);
    let flags = number::unsigned32(words.words[2]);
    let exptime = number::signed32(words.words[3]);
    let length = length(words.words[4]);
    let how = match command {
        b"set" => Some(Storing::Set),
        b"add" => Some(Storing::Add),
        b"replace" => Some(Storing::Replace),
        b"append" => Some(Storing::Append),
        b"prepend" => Some(Storing::Prepend),
        _ => number::unsigned(words.words[5]).map(Storing::Cas),
    };
    let (Some(flags), Some(exptime), Some(length), Some(how)) = (flags, exptime, length, how) else { return format };
    let ask = Ask::Store { value: &[], flags, exptime: Exptime(exptime), how, is_quiet };
    key(words.words[1], ask, Some(length), is_quiet)
}

fn meta<'a>(verb: Verb, words: &Words<'a>) -> Line<'a> {
    let count = words.count;
    let wrong = |wrong| Line::Wrong(wrong, false);
    if count < 2 {
        return wrong(if verb == Verb::Debug { Wrong::Format } else { Wrong::Command });
    }
    let key = words.words[1];
    if key.len() > limits::MEMCACHED_KEY_BYTES_MAX || (verb == Verb::Set && count == 2) {
        return wrong(Wrong::Format);
    }
    if count > META_WORDS_MAX && verb != Verb::Debug {
        return wrong(if verb == Verb::Get { Wrong::FlagsOfGet } else { Wrong::Flags });
    }
    let mut block = None;
    let mut flags = words.after[1];
    let mut first = 2;
    if verb == Verb::Set {
        let Some(length) = length(words.words[2]) else { return wrong(Wrong::Format) };
        block = Some(length);
        first = 3;
        // What follows the length.
        let (_, end) = next_word(flags, 0).unwrap_or((0, 0));
        flags = &flags[end..];
    }
    let given = &words.all()[first.min(count)..];
    let is_encoded = match verb {
        Verb::Debug => given.first() == Some(&b"b".as_slice()),
        _ => given.iter().any(|flag| flag[0] == b'b'),
    };
    let ask = Ask::Meta { verb, flags, value: &[], is_encoded };
    Line::Key { key, ask, block, is_encoded }
}

/// Decodes a key in base64 into `into`; its length.
pub fn encoded_key(key: &[u8], into: &mut [u8; limits::MEMCACHED_KEY_BYTES_MAX]) -> Option<usize> {
    base64::decode(key, into)
}

/// What is said of a key that is no base64.
pub fn encoded_key_is_wrong(ask: &Ask<'_>) -> &'static str {
    match ask {
        Ask::Meta { verb: Verb::Delete | Verb::Arithmetic, .. } => "CLIENT_ERROR invalid or duplicate flag",
        Ask::Meta { verb: Verb::Debug, .. } => "CLIENT_ERROR bad command line format",
        _ => "CLIENT_ERROR error decoding key",
    }
}

/// The length of a value.
fn length(word: &[u8]) -> Option<usize> {
    number::signed(word).and_then(|length| usize::try_from(length).ok()).filter(|length| *length <= LENGTH_MAX)
}

impl<'a> Words<'a> {
    fn of(line: &'a [u8]) -> Words<'a> {
        let mut words = Words { words: [&[]; WORDS_MAX], count: 0, after: [&[]; 2] };
        let mut at = 0;
        while words.count < WORDS_MAX
            && let Some((start, end)) = next_word(line, at)
        {
            words.words[words.count] = &line[start..end];
            if let Some(after) = words.after.get_mut(words.count) {
                *after = &line[end..];
            }
            words.count += 1;
            at = end;
        }
        words
    }

    fn all(&self) -> &[&'a [u8]] {
        &self.words[..self.count]
    }
}

/// Where the first word from `at` on begins and ends.
#[inline]
pub fn next_word(line: &[u8], at: usize) -> Option<(usize, usize)> {
    let start = at + line[at..].iter().position(|&byte| byte != b' ')?;
    let end = line[start..].iter().position(|&byte| byte == b' ').map_or(line.len(), |length| start + length);
    Some((start, end))
}

/// Where the first byte from `from` on is that no plain word has: a space or a control character.
#[inline]
fn word_end(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    while let Some(eight) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let eight = u64::from_le_bytes(*eight);
        // The lowest bit that is set is right: a borrow goes only to bytes behind one that is below.
        let below = eight.wrapping_sub(EACH * 0x21) & !eight & (EACH * 0x80);
        if below != 0 {
            return at + below.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while bytes.get(at).is_some_and(|&byte| byte > b' ') {
        at += 1;
    }
    at.min(bytes.len())
}

/// Where the first line ends.
#[inline]
pub fn newline(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let Some(eight) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let eight = u64::from_le_bytes(*eight) ^ (EACH * b'\n' as u64);
        let zero = eight.wrapping_sub(EACH) & !eight & (EACH * 0x80);
        if zero != 0 {
            return Some(at + zero.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    bytes[at..].iter().position(|&byte| byte == b'\n').map(|more| at + more)
}

/// A one in each byte.
const EACH: u64 = 0x0101_0101_0101_0101;
/// Words of any command but a retrieval.
const WORDS_MAX: usize = 24;
/// Words of a meta command.
const META_WORDS_MAX: usize = 19;
/// Digits that are read without looking for overflow.
const PLAIN_DIGITS_MAX: usize = 18;
/// The longest value that memcached would listen to.
const LENGTH_MAX: usize = i32::MAX as usize - 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_words_and_lines_are_found_at_any_place() {
        for length in 0..40 {
            let mut bytes = vec![b'\xff'; length];
            assert_eq!((word_end(&bytes, 0), newline(&bytes)), (length, None));
            bytes.extend_from_slice(b"!x\r\n\n  ");
            assert_eq!((word_end(&bytes, 0), newline(&bytes)), (length + 2, Some(length + 3)));
        }
        assert_eq!((word_end(b"ab", 2), word_end(b"a ", 1)), (2, 1));
    }

    #[test]
    fn words_are_what_stands_between_spaces() {
        let words = Words::of(b"  a  bc   d ");
        assert_eq!(words.all(), [b"a".as_slice(), b"bc", b"d"]);
        assert_eq!(words.after, [b"  bc   d ".as_slice(), b"   d "]);
        assert_eq!(Words::of(b"   ").count, 0);
        assert_eq!(Words::of(&b"x ".repeat(30)).count, WORDS_MAX);
    }
}
