//! The meta commands about one key, each as one step of its shard.
//!
//! Stale and won are marks of an item: MD with I makes it stale; whoever reads it first is told to bring a new value
//! (W), everybody after them that somebody is about to (Z), until one is stored.

use std::fmt::Write;
use std::ops::DerefMut;

use crate::base::time::Instant;
use crate::cache::{Item, MARK_STALE, MARK_WON, Put};
use crate::engine::edit::At;
use crate::engine::memcached::one::{Counted, NOT_A_NUMBER, Store, Stored, TOO_LARGE};
use crate::wire::memcached::meta::{Facts, Flags};
use crate::wire::memcached::{Exptime, Storing, Verb, base64, encode};

/// Does a meta command and appends its reply to `out`.
pub fn apply<M: DerefMut<Target = [u8]>>(
    at: At<'_, M>,
    verb: Verb,
    flags: &[u8],
    value: &[u8],
    is_encoded: bool,
    out: &mut Vec<u8>,
) {
    if verb == Verb::Debug {
        return Meta { at, is_encoded }.debug(out);
    }
    let before = out.len();
    let wrong = match Flags::of(verb, flags) {
        Err(text) => Some(text),
        Ok(flags) if flags.opaque_is_too_long() => Some("CLIENT_ERROR opaque token too long"),
        Ok(flags) => {
            let mut meta = Meta { at, is_encoded };
            match verb {
                Verb::Get => meta.get(&flags, out),
                Verb::Set => meta.set(&flags, value, out),
                Verb::Delete => meta.delete(&flags, out),
                _ => meta.arithmetic(&flags, out),
            }
        }
    };
    if let Some(text) = wrong {
        out.truncate(before);
        encode::line(text, out);
    }
}

/// One key of a shard, and how it was sent.
struct Meta<'a, M> {
    at: At<'a, M>,
    is_encoded: bool,
}

/// What is wrong with a command, in memcached's words.
type Wrong = Option<&'static str>;

impl<M: DerefMut<Target = [u8]>> Meta<'_, M> {
    fn get(&mut self, flags: &Flags<'_>, out: &mut Vec<u8>) -> Wrong {
        let at = &mut self.at;
        let (now, hash, key) = (at.keys.now, at.hash, at.key);
        let expired = at.keys.store.expired();
        let touched = flags.ttl.map(|exptime| at.keys.expires(exptime));
        let recache = flags.recache.and_then(|exptime| at.keys.expires(exptime));
        // Both are told as they were before this.
        let history = match flags.history {
            true => at.keys.store.history(hash, key, now).unwrap_or_default(),
            false => Default::default(),
        };
        let is_version_wanted = match flags.no_bump {
            // Only an item that has none yet must be used to get one.
            true => flags.cas && at.keys.store.peek(hash, key, now).is_some_and(|item| item.version.is_none()),
            false => flags.cas,
        };
        let found = match (is_version_wanted, flags.no_bump) {
            (true, _) => at.keys.store.get_versioned(hash, key, now),
            (false, true) => at.keys.store.peek(hash, key, now),
            (false, false) => at.keys.store.get(hash, key, now),
        };
        let Some(item) = found else {
            at.counters.gets_expired.add(at.keys.store.expired() - expired);
            return match flags.vivify {
                Some(exptime) => self.vivify(flags, exptime, out),
                None => {
                    self.miss(flags, out);
                    None
                }
            };
        };
        let shown = match touched {
            Some(expires) if flags.ttl_comes_before(b't') => expires,
            _ => item.expires,
        };
        let compared = match touched {
            Some(expires) if flags.ttl_comes_before(b'R') => expires,
            _ => item.expires,
        };
        let is_won = item.marks & MARK_WON != 0;
        let is_low = matches!((compared, recache), (Some(expires), Some(recache)) if expires < recache);
        let wins = !is_won && (is_low || item.marks & MARK_STALE != 0);
        let facts = facts(&item, shown, now, history.idle_ms / 1000, history.is_hit);
        let marks = item.marks;
        head(flags.value.then_some(item.value.len()), out);
        flags.answer(key, self.is_encoded, &facts, out);
        for (is_shown, letter) in [(is_won, b'Z'), (marks & MARK_STALE != 0, b'X'), (wins, b'W')] {
            if is_shown {
                out.extend_from_slice(&[b' ', letter]);
            }
        }
        out.extend_from_slice(b"\r\n");
        if flags.value {
            out.extend_from_slice(item.value);
            out.extend_from_slice(b"\r\n");
        }
        if wins {
            at.keys.store.mark(hash, key, marks | MARK_WON, now);
        }
        match flags.ttl {
            Some(exptime) => _ = at.touch(exptime),
            None => {
                at.counters.get_hits.add(1);
                if let Some(l0) = &mut at.keys.l0
                    && l0.is_candidate()
                {
                    l0.offer(&mut at.keys.store, hash, key, now);
                }
            }
        }
        None
    }

    fn miss(&mut self, flags: &Flags<'_>, out: &mut Vec<u8>) {
        let counters = self.at.counters;
        (if flags.ttl.is_some() { &counters.touch_misses } else { &counters.get_misses }).add(1);
        if flags.is_quiet {
            return;
        }
        out.extend_from_slice(b"EN");
        flags.answer_without_item(self.at.key, self.is_encoded, out);
        out.extend_from_slice(b"\r\n");
    }

    /// Makes an empty item, whose value the client is to bring.
    fn vivify(&mut self, flags: &Flags<'_>, exptime: Exptime, out: &mut Vec<u8>) -> Wrong {
        let at = &mut self.at;
        let exptime = match flags.ttl {
            Some(ttl) if !flags.ttl_comes_before(b'N') => ttl,
            _ => exptime,
        };
        let expires = at.keys.expires(exptime);
        let put = Put { expires, versioned: flags.cas, marks: MARK_WON, ..Put::default() };
        at.counters.get_misses.add(1);
        let Stored::Done(cas) = at.write(put) else {
            self.miss(flags, out);
            return None;
        };
        let facts = Facts { cas, ttl_s: seconds_left(expires, at.keys.now), ..Facts::default() };
        head(flags.value.then_some(0), out);
        flags.answer(at.key, self.is_encoded, &facts, out);
        out.extend_from_slice(if flags.value { b" W\r\n\r\n".as_slice() } else { b" W\r\n" });
        None
    }

    fn set(&mut self, flags: &Flags<'_>, value: &[u8], out: &mut Vec<u8>) -> Wrong {
        let how = match (flags.mode, flags.compare) {
            (None | Some(b'S' | b'R'), Some(version)) => Storing::Cas(version),
            (None | Some(b'S'), None) => Storing::Set,
            (Some(b'R'), None) => Storing::Replace,
            (Some(b'E'), _) => Storing::Add,
            (Some(b'A'), _) => Storing::Append,
            (Some(b'P'), _) => Storing::Prepend,
            _ => return Some("CLIENT_ERROR invalid mode for ms M token"),
        };
        let store = Store {
            value,
            client_flags: flags.client_flags,
            exptime: flags.ttl.unwrap_or_default(),
            how,
            compare: flags.compare.filter(|version| *version != 0),
            versioned: flags.cas,
        };
        let stored = match (how, flags.invalidate) {
            (Storing::Cas(version), true) if self.is_older(version) => self.put_stale(&store),
            _ => self.at.put(store),
        };
        let (code, cas) = match stored {
            Stored::Done(_) if flags.is_quiet => return None,
            Stored::Done(cas) => ("HD", cas),
            Stored::Not => ("NS", 0),
            Stored::Differs => ("EX", 0),
            Stored::Missing => ("NF", 0),
            Stored::TooLarge => {
                self.at.remove();
                return Some(TOO_LARGE);
            }
        };
        out.extend_from_slice(code.as_bytes());
        flags.answer_store(self.at.key, self.is_encoded, cas, out);
        out.extend_from_slice(b"\r\n");
        None
    }

    /// Whether this version was given before the present item got its own.
    fn is_older(&mut self, version: u64) -> bool {
        let at = &mut self.at;
        let found = at.keys.store.get_versioned(at.hash, at.key, at.keys.now);
        version != 0 && found.and_then(|item| item.version).is_some_and(|present| version < present)
    }

    /// Stores a value that is older than the present one: better than nothing, and stale.
    fn put_stale(&mut self, store: &Store<'_>) -> Stored {
        let at = &mut self.at;
        let Some(item) = at.keys.store.peek(at.hash, at.key, at.keys.now) else { return Stored::Missing };
        let put = Put {
            value: store.value,
            expires: item.expires,
            client_flags: store.client_flags,
            versioned: true,
            marks: MARK_STALE | (item.marks & MARK_WON),
            ..Put::default()
        };
        at.counters.cas_hits.add(1);
        at.write(put)
    }

    fn delete(&mut self, flags: &Flags<'_>, out: &mut Vec<u8>) -> Wrong {
        let at = &mut self.at;
        let found = at.keys.store.peek(at.hash, at.key, at.keys.now);
        let code = match found {
            None => {
                at.remove();
                "NF"
            }
            Some(item) if flags.compare.is_some_and(|version| item.version != Some(version)) => {
                at.counters.delete_misses.add(1);
                "EX"
            }
            Some(item) if flags.invalidate => {
                // Another version, so that nobody who has read it before stores over what comes.
                let (value, client_flags, before) = (item.value.to_vec(), item.client_flags, item.expires);
                let expires = flags.ttl.map_or(before, |exptime| at.keys.expires(exptime));
                let put =
                    Put { value: &value, expires, client_flags, versioned: true, marks: MARK_STALE, ..Put::default() };
                match at.write(put) {
                    Stored::Done(_) => {}
                    // An item that filled a segment to the last byte may not have room for marks.
                    _ => _ = at.remove(),
                }
                "HD"
            }
            Some(_) => {
                at.remove();
                "HD"
            }
        };
        if code == "HD" && flags.is_quiet {
            return None;
        }
        out.extend_from_slice(code.as_bytes());
        flags.answer_without_item(at.key, self.is_encoded, out);
        out.extend_from_slice(b"\r\n");
        None
    }

    fn arithmetic(&mut self, flags: &Flags<'_>, out: &mut Vec<u8>) -> Wrong {
        let is_down = match flags.mode {
            None | Some(b'I' | b'+') => false,
            Some(b'D' | b'-') => true,
            _ => return Some("CLIENT_ERROR invalid mode for ma M token"),
        };
        let at = &mut self.at;
        let (number, cas) = match at.count(flags.delta, is_down, flags.compare, flags.cas) {
            Counted::Number(number, cas) => {
                if flags.is_quiet {
                    if let Some(exptime) = flags.ttl {
                        at.touch(exptime);
                    }
                    return None;
                }
                (number, cas)
            }
            Counted::NotANumber => return Some(NOT_A_NUMBER),
            Counted::TooLarge => return Some("SERVER_ERROR out of memory"),
            Counted::Missing if flags.vivify.is_some() => {
                let expires = flags.vivify.and_then(|exptime| at.keys.expires(exptime));
                let mut digits = [0; 20];
                let value = encode::decimal_in(flags.initial, &mut digits);
                match at.write(Put { value, expires, versioned: flags.cas, ..Put::default() }) {
                    Stored::Done(cas) => (flags.initial, cas),
                    _ => return Some("SERVER_ERROR Out of memory allocating new item"),
                }
            }
            missed => {
                out.extend_from_slice(if matches!(missed, Counted::Differs) { b"EX" } else { b"NF" });
                flags.answer_without_item(at.key, self.is_encoded, out);
                out.extend_from_slice(b"\r\n");
                return None;
            }
        };
        let before = at.keys.store.peek(at.hash, at.key, at.keys.now).and_then(|item| item.expires);
        let mut shown = before;
        if let Some(exptime) = flags.ttl {
            at.touch(exptime);
            if flags.ttl_comes_before(b't') {
                shown = at.keys.expires(exptime);
            }
        }
        let mut digits = [0; 20];
        let digits = encode::decimal_in(number, &mut digits);
        let facts = Facts { cas, ttl_s: seconds_left(shown, at.keys.now), ..Facts::default() };
        head(flags.value.then_some(digits.len()), out);
        flags.answer_arithmetic(at.key, self.is_encoded, &facts, out);
        out.extend_from_slice(b"\r\n");
        if flags.value {
            out.extend_from_slice(digits);
            out.extend_from_slice(b"\r\n");
        }
        None
    }

    /// ME: what there is to say about an item, for people.
    fn debug(&mut self, out: &mut Vec<u8>) {
        let at = &mut self.at;
        let now = at.keys.now;
        at.counters.meta_debugs.add(1);
        let history = at.keys.store.history(at.hash, at.key, now).unwrap_or_default();
        let Some(item) = at.keys.store.peek(at.hash, at.key, now) else {
            return out.extend_from_slice(b"EN\r\n");
        };
        out.extend_from_slice(b"ME ");
        if self.is_encoded {
            base64::encode(at.key, out);
        } else {
            out.extend_from_slice(at.key);
        }
        let mut text = String::new();
        let left = seconds_left(item.expires, now).map_or(-1, |seconds| seconds as i64);
        let (idle, cas, bytes) = (history.idle_ms / 1000, item.version.unwrap_or(0), item.bytes());
        let fetched = if history.is_hit { "yes" } else { "no" };
        // Writing to a string cannot fail.
        let _ = write!(text, " exp={left} la={idle} cas={cas} fetch={fetched} cls=1 size={bytes}\r\n");
        out.extend_from_slice(text.as_bytes());
    }
}

fn facts(item: &Item<'_>, expires: Option<Instant>, now: Instant, idle_s: u64, is_hit: bool) -> Facts {
    Facts {
        size: item.value.len(),
        ttl_s: seconds_left(expires, now),
        cas: item.version.unwrap_or(0),
        client_flags: item.client_flags,
        idle_s,
        is_hit,
    }
}

/// A second that has begun counts: what was to live for thirty has thirty left just now.
fn seconds_left(expires: Option<Instant>, now: Instant) -> Option<u64> {
    expires.map(|expires| now.ms_until(expires).div_ceil(1000))
}

/// The beginning of a reply, with the length of the value that follows it.
fn head(value_bytes: Option<usize>, out: &mut Vec<u8>) {
    match value_bytes {
        Some(bytes) => {
            out.extend_from_slice(b"VA ");
            encode::decimal(bytes as u64, out);
        }
        None => out.extend_from_slice(b"HD"),
    }
}
