//! The flags of the meta commands, and their replies.
//!
//! Flags that ask for something are answered in the order they were sent, so a reply is written flag by flag, and
//! `T` before `t` answers the new time, behind it the old one. Of an opaque token that is too long memcached takes
//! notice when it comes to it, and what stands before it has been done.

use crate::base::limits;
use crate::wire::memcached::ask::{Exptime, Verb};
use crate::wire::memcached::{base64, encode, number, text};

/// The flags of one command.
#[derive(Clone, Copy, Debug)]
pub struct Flags<'a> {
    words: [&'a [u8]; WORDS_MAX],
    count: usize,
    /// An opaque token is longer than it may be; the flags from there on are not there.
    pub is_cut: bool,
    /// q: what goes as it should is not answered.
    pub is_quiet: bool,
    /// v: the value is asked for.
    pub value: bool,
    /// u: it does not count as used.
    pub no_bump: bool,
    /// h or l: what became of the item is asked for.
    pub history: bool,
    /// c: the version is asked for.
    pub cas: bool,
    /// I: it is to be stale, and not to go.
    pub invalidate: bool,
    /// N: made on a miss, to live so long.
    pub vivify: Option<Exptime>,
    /// T: to live so long from now on.
    pub ttl: Option<Exptime>,
    /// R: to be brought anew if it lives shorter than this.
    pub recache: Option<Exptime>,
    /// F: what the client keeps with it.
    pub client_flags: u32,
    /// C: the version it must have.
    pub compare: Option<u64>,
    /// M: the mode.
    pub mode: Option<u8>,
    /// J: what a counter begins with.
    pub initial: u64,
    /// D: how much is counted.
    pub delta: u64,
}

/// What is said of an item.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts {
    /// The length of its value.
    pub size: usize,
    /// Seconds it has left; `None` for ever.
    pub ttl_s: Option<u64>,
    /// Its version.
    pub cas: u64,
    /// What the client keeps with it.
    pub client_flags: u32,
    /// Seconds since it was used.
    pub idle_s: u64,
    /// It was used since it was stored.
    pub is_hit: bool,
}

impl<'a> Flags<'a> {
    /// The flags of a command. What is wrong with them, in memcached's words.
    pub fn of(verb: Verb, line: &'a [u8]) -> Result<Flags<'a>, &'static str> {
        let mut flags = Flags::none();
        let mut seen = 0u128;
        let mut wrong = None;
        let mut at = 0;
        while let Some((start, end)) = text::next_word(line, at) {
            at = end;
            let word = &line[start..end];
            let (letter, token) = (word[0], &word[1..]);
            if letter >= 127 || seen >> letter & 1 == 1 {
                return Err(worded(verb, "CLIENT_ERROR duplicate flag"));
            }
            seen |= 1 << letter;
            let Some(place) = flags.words.get_mut(flags.count) else {
                return Err("CLIENT_ERROR options flags too long");
            };
            *place = word;
            flags.count += 1;
            if let Err(text) = flags.take(letter, token).map_err(|text| worded(verb, text)) {
                if text == INVALID {
                    return Err(text);
                }
                wrong = Some(text);
            }
        }
        if let Some(place) = flags.words().iter().position(|word| word[0] == b'O' && word.len() > OPAQUE_BYTES_MAX) {
            (flags.count, flags.is_cut) = (place, true);
        }
        wrong.map_or(Ok(flags), Err)
    }

    fn none() -> Flags<'a> {
        Flags {
            words: [&[]; WORDS_MAX],
            count: 0,
            is_cut: false,
            is_quiet: false,
            value: false,
            no_bump: false,
            history: false,
            cas: false,
            invalidate: false,
            vivify: None,
            ttl: None,
            recache: None,
            client_flags: 0,
            compare: None,
            mode: None,
            initial: 0,
            delta: 1,
        }
    }

    fn take(&mut self, letter: u8, token: &[u8]) -> Result<(), &'static str> {
        const TOKEN: &str = "CLIENT_ERROR bad token in command line format";
        let time = || number::signed32(token).map(|seconds| Some(Exptime(seconds))).ok_or(TOKEN);
        match letter {
            b'N' => self.vivify = time()?,
            b'T' => self.ttl = time()?,
            b'R' => self.recache = time()?,
            b'l' | b'h' => self.history = true,
            // A hint to proxies, what is answered as it is, and what was looked at before.
            b'O' | b'P' | b'L' | b'k' | b's' | b't' | b'f' | b'b' => {}
            b'c' => self.cas = true,
            b'v' => self.value = true,
            b'u' => self.no_bump = true,
            b'q' => self.is_quiet = true,
            b'I' => self.invalidate = true,
            b'F' => {
                self.client_flags = number::unsigned32(token).ok_or("CLIENT_ERROR bad command line format")?;
            }
            b'C' => self.compare = Some(number::unsigned(token).ok_or(TOKEN)?),
            b'M' => match token {
                [mode] => self.mode = Some(*mode),
                _ => return Err("CLIENT_ERROR incorrect length for M token"),
            },
            b'J' => self.initial = number::unsigned(token).ok_or("CLIENT_ERROR invalid numeric initial value")?,
            b'D' => self.delta = number::unsigned(token).ok_or("CLIENT_ERROR invalid numeric delta value")?,
            _ => return Err(INVALID),
        }
        Ok(())
    }

    /// The flags in the order they were sent, each with its letter in front.
    pub fn words(&self) -> &[&'a [u8]] {
        &self.words[..self.count]
    }

    /// Appends what the flags ask for of an item.
    pub fn answer(&self, key: &[u8], is_encoded: bool, facts: &Facts, out: &mut Vec<u8>) {
        for word in self.words() {
            match word[0] {
                b's' => with_number(b's', facts.size as u64, out),
                b't' => match facts.ttl_s {
                    Some(seconds) => with_number(b't', seconds, out),
                    None => out.extend_from_slice(b" t-1"),
                },
                b'c' => with_number(b'c', facts.cas, out),
                b'f' => with_number(b'f', u64::from(facts.client_flags), out),
                b'l' => with_number(b'l', facts.idle_s, out),
                b'h' => with_number(b'h', u64::from(facts.is_hit), out),
                letter => self.answer_known(letter, word, key, is_encoded, out),
            }
        }
    }

    /// Appends what the flags ask for where there is no item: the opaque token and the key.
    pub fn answer_without_item(&self, key: &[u8], is_encoded: bool, out: &mut Vec<u8>) {
        for word in self.words() {
            self.answer_known(word[0], word, key, is_encoded, out);
        }
    }

    /// Appends what MS is asked for: the opaque token, the key, and the version, 0 if nothing was stored.
    pub fn answer_store(&self, key: &[u8], is_encoded: bool, cas: u64, out: &mut Vec<u8>) {
        for word in self.words() {
            match word[0] {
                b'c' => with_number(b'c', cas, out),
                letter => self.answer_known(letter, word, key, is_encoded, out),
            }
        }
    }

    /// Appends what MA is asked for: the opaque token, the key, the version and the time it has left.
    pub fn answer_arithmetic(&self, key: &[u8], is_encoded: bool, facts: &Facts, out: &mut Vec<u8>) {
        for word in self.words() {
            match (word[0], facts.ttl_s) {
                (b'c', _) => with_number(b'c', facts.cas, out),
                (b't', Some(seconds)) => with_number(b't', seconds, out),
                (b't', None) => out.extend_from_slice(b" t-1"),
                (letter, _) => self.answer_known(letter, word, key, is_encoded, out),
            }
        }
    }

    fn answer_known(&self, letter: u8, word: &[u8], key: &[u8], is_encoded: bool, out: &mut Vec<u8>) {
        match letter {
            b'O' => {
                out.push(b' ');
                out.extend_from_slice(word);
            }
            b'k' => {
                out.extend_from_slice(b" k");
                if is_encoded {
                    base64::encode(key, out);
                    out.extend_from_slice(b" b");
                } else {
                    out.extend_from_slice(key);
                }
            }
            _ => {}
        }
    }
}

fn with_number(letter: u8, number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(&[b' ', letter]);
    encode::decimal(number, out);
}

/// What is wrong with the flags of MD and MA is not told apart.
fn worded(verb: Verb, text: &'static str) -> &'static str {
    match verb {
        Verb::Delete | Verb::Arithmetic => "CLIENT_ERROR invalid or duplicate flag",
        _ => text,
    }
}

const INVALID: &str = "CLIENT_ERROR invalid flag";
/// Words of a line less its name and key.
const WORDS_MAX: usize = 18;
/// Bytes of an opaque token, its letter included.
const OPAQUE_BYTES_MAX: usize = 32;
const _: () = assert!(limits::MEMCACHED_KEY_BYTES_MAX < 256, "the length of a key fits a byte");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read_and_answered_in_their_order() {
        let flags = Flags::of(Verb::Get, b" s v T30 t Oabc k q C7 F9").unwrap();
        assert!(flags.is_quiet && flags.value && flags.ttl == Some(Exptime(30)) && !flags.is_cut);
        assert_eq!((flags.compare, flags.client_flags), (Some(7), 9));
        let facts = Facts { size: 2, ttl_s: Some(30), ..Facts::default() };
        let mut out = Vec::new();
        flags.answer(b"key", false, &facts, &mut out);
        assert_eq!(out, b" s2 t30 Oabc kkey");
        out.clear();
        flags.answer_without_item(b"foo", true, &mut out);
        assert_eq!(out, b" Oabc kZm9v b");
    }

    #[test]
    fn what_is_wrong_is_said_as_memcached_says_it() {
        let wrong = |verb, line: &'static str| Flags::of(verb, line.as_bytes()).unwrap_err();
        assert_eq!(wrong(Verb::Get, "Mxy"), "CLIENT_ERROR incorrect length for M token");
        assert_eq!(wrong(Verb::Get, "s o"), "CLIENT_ERROR invalid flag");
        assert_eq!(wrong(Verb::Get, "s s"), "CLIENT_ERROR duplicate flag");
        assert_eq!(wrong(Verb::Delete, "s s"), "CLIENT_ERROR invalid or duplicate flag");
        assert_eq!(wrong(Verb::Set, "T"), "CLIENT_ERROR bad token in command line format");
        assert_eq!(wrong(Verb::Set, "\u{e9}"), "CLIENT_ERROR duplicate flag");
    }
}
