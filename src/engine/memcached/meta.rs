//! The meta commands about one key, each as one step of its shard.
//!
//! Stale and won are marks of an item: MD with I makes it stale; whoever reads it first is told to bring a new value
//! (W), everybody after them that somebody is about to (Z), until one is stored.

use std::fmt::Write;
use std::ops::DerefMut;

use crate::base::time::Instant;
use crate::cache::{History, Item, MARK_STALE, MARK_WON, Put};
use crate::engine::edit::At;
use crate::engine::memcached::one::{Counted, NOT_A_NUMBER, Store, Stored, TOO_LARGE};
use crate::wire::memcached::meta::{Facts, Flags};
use crate::wire::memcached::{Storing, Verb, base64, encode};

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
    let done = Flags::of(verb, flags).and_then(|flags| {
        let mut meta = Meta { at, is_encoded };
        match verb {
            Verb::Get => meta.get(&flags, out),
            Verb::Set => meta.set(&flags, value, out),
            Verb::Delete => meta.delete(&flags, out),
            _ => meta.arithmetic(&flags, out),
        }
    });
    if let Err(text) = done {
        out.truncate(before);
        encode::line(text, out);
    }
}

/// What is wrong with an MS before its value is looked at.
pub fn wrong_before_value(flags: &[u8]) -> Option<&'static str> {
    Flags::of(Verb::Set, flags).and_then(|flags| storing(&flags)).err()
}

/// How the value of an MS is stored.
fn storing(flags: &Flags<'_>) -> Result<Storing, &'static str> {
    let how = match (flags.mode, flags.compare) {
        (None | Some(b'S' | b'R'), Some(version)) => Storing::Cas(version),
        (None | Some(b'S'), None) => Storing::Set,
        (Some(b'R'), None) => Storing::Replace,
        (Some(b'E'), _) => Storing::Add,
        (Some(b'A'), _) => Storing::Append,
        (Some(b'P'), _) => Storing::Prepend,
        _ => return Err("CLIENT_ERROR invalid mode for ms M token"),
    };
    if flags.is_cut { Err(OPAQUE) } else { Ok(how) }
}

/// One key of a shard, and how it was sent.
struct Meta<'a, M> {
    at: At<'a, M>,
    is_encoded: bool,
}

/// What is wrong with a command, in memcached's words.
type Done = Result<(), &'static str>;

/// When an item expires, as a command goes through its flags.
struct Times {
    /// Where `t` asks.
    shown: Option<Instant>,
    /// Where `R` compares.
    compared: Option<Instant>,
    /// In the end.
    last: Option<Instant>,
    /// `T` was among them.
    is_touched: bool,
}

impl Times {
    /// The times of an item that expires at `first`; `ttl` is what `T` says, `vivify` what `N` does if it is new.
    fn of(flags: &Flags<'_>, first: Option<Instant>, ttl: Option<Instant>, vivify: Option<Option<Instant>>) -> Times {
        let mut times = Times { shown: first, compared: first, last: first, is_touched: false };
        for word in flags.words() {
            match (word[0], vivify) {
                (b'T', _) => (times.last, times.is_touched) = (ttl, true),
                (b'N', Some(expires)) => times.last = expires,
                (b't', _) => times.shown = times.last,
                (b'R', _) => times.compared = times.last,
                _ => {}
            }
        }
        times
    }
}

impl<M: DerefMut<Target = [u8]>> Meta<'_, M> {
    fn get(&mut self, flags: &Flags<'_>, out: &mut Vec<u8>) -> Done {
        let at = &mut self.at;
        let (now, hash, key) = (at.keys.now, at.hash, at.key);
        let expired = at.keys.store.expired();
        let ttl = at.keys.expires(flags.ttl.unwrap_or_default());
        let recache = flags.recache.and_then(|exptime| at.keys.expires(exptime));
        // Both are told as they were before this.
        let history = match flags.history {
            true => at.keys.store.history(hash, key, now).unwrap_or_default(),
            false => History::default(),
        };
        // memcached comes to a token that is too long before it notes the use, if it looks at more than the value.
        let looks_closer = flags.history || flags.vivify.is_some() || flags.ttl.is_some() || flags.recache.is_some();
        let is_no_use = flags.no_bump || (flags.is_cut && looks_closer);
        let found = match (flags.cas, is_no_use) {
            (true, true) => at.keys.store.peek_versioned(hash, key, now),
            (true, false) => at.keys.store.get_versioned(hash, key, now),
            (false, true) => at.keys.store.peek(hash, key, now),
            (false, false) => at.keys.store.get(hash, key, now),
        };
        let Some(item) = found else {
            at.counters.gets_expired.add(at.keys.store.expired() - expired);
            return if flags.vivify.is_some() { self.vivify(flags, ttl, out) } else { self.miss(flags, out) };
        };
        let marks = item.marks;
        let times = Times::of(flags, item.expires, ttl, None);
        let is_won = marks & MARK_WON != 0;
        let is_low = matches!((times.compared, recache), (Some(expires), Some(recache)) if expires < recache);
        let wins = !is_won && (is_low || marks & MARK_STALE != 0);
        let facts = facts(&item, times.shown, now, history.idle_ms / 1000, history.is_hit);
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
        if wins && !flags.is_cut {
            at.keys.store.mark(hash, key, marks | MARK_WON, now);
        }
        if times.is_touched {
            at.expire_at(ttl);
        } else {
            at.counters.get_hits.add(1);
            if let Some(l0) = &mut at.keys.l0
                && l0.is_candidate()
            {
                l0.offer(&mut at.keys.store, hash, key, now);
            }
        }
        if flags.is_cut { Err(OPAQUE) } else { Ok(()) }
    }

    fn miss(&mut self, flags: &Flags<'_>, out: &mut Vec<u8>) -> Done {
        let counters = self.at.counters;
        (if flags.ttl.is_some() { &counters.touch_misses } else { &counters.get_misses }).add(1);
        if flags.is_cut {
            return Err(OPAQUE);
        }
        if !flags.is_quiet {
            out.extend_from_slice(b"EN");
            flags.answer_without_item(self.at.key, self.is_encoded, out);
            out.extend_from_slice(b"\r\n");
        }
        Ok(())
    }

    /// Makes an empty item, whose value the client is to bring.
    fn vivify(&mut self, flags: &Flags<'_>, ttl: Option<Instant>, out: &mut Vec<u8>) -> Done {
        let at = &mut self.at;
        let vivify = at.keys.expires(flags.vivify.unwrap_or_default());
        let times = Times::of(flags, None, ttl, Some(vivify));
        let marks = if flags.is_cut { 0 } else { MARK_WON };
        let put = Put { expires: times.last, versioned: flags.cas, marks, ..Put::default() };
        let Stored::Done(cas) = at.write(put) else { return self.miss(flags, out) };
        at.counters.get_misses.add(1);
        if flags.is_cut {
            return Err(OPAQUE);
        }
        if !flags.no_bump {
            at.keys.store.get(at.hash, at.key, at.keys.now);
        }
        let facts = Facts { cas, ttl_s: seconds_left(times.shown, at.keys.now), ..Facts::default() };
        head(flags.value.then_some(0), out);
        flags.answer(at.key, self.is_encoded, &facts, out);
        out.extend_from_slice(if flags.value { b" W\r\n\r\n".as_slice() } else { b" W\r\n" });
        Ok(())
    }

    fn set(&mut self, flags: &Flags<'_>, value: &[u8], out: &mut Vec<u8>) -> Done {
        let how = storing(flags)?;
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
            Stored::Done(_) if flags.is_quiet => return Ok(()),
            Stored::Done(cas) => ("HD", cas),
            Stored::Not => ("NS", 0),
            Stored::Differs => ("EX", 0),
            Stored::Missing => ("NF", 0),
            Stored::TooLarge => {
                self.at.remove();
                return Err(TOO_LARGE);
            }
        };
        out.extend_from_slice(code.as_bytes());
        flags.answer_store(self.at.key, self.is_encoded, cas, out);
        out.extend_from_slice(b"\r\n");
        Ok(())
    }

    /// Whether this version was given before the present item got its own.
    fn is_older(&mut self, version: u64) -> bool {
        let at = &mut self.at;
        let found = at.keys.store.peek_versioned(at.hash, at.key, at.keys.now);
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

    fn delete(&mut self, flags: &Flags<'_>, out: &mut Vec<u8>) -> Done {
        if flags.is_cut {
            return Err(OPAQUE);
        }
        let at = &mut self.at;
        let (now, hash, key) = (at.keys.now, at.hash, at.key);
        let code = match at.keys.store.peek(hash, key, now) {
            None => {
                at.remove();
                "NF"
            }
            Some(item) if flags.compare.is_some_and(|version| item.version != Some(version)) => {
                at.counters.delete_misses.add(1);
                "EX"
            }
            Some(_) if flags.invalidate => {
                if let Some(exptime) = flags.ttl {
                    at.expire_at(at.keys.expires(exptime));
                }
                // Another version, so that nobody who has read it before stores over what comes. An item that filled a
                // segment to the last byte may not have room for it, and goes.
                if !at.keys.store.renew(hash, key, MARK_STALE, now) {
                    at.remove();
                }
                "HD"
            }
            Some(_) => {
                at.remove();
                "HD"
            }
        };
        if code == "HD" && flags.is_quiet {
            return Ok(());
        }
        out.extend_from_slice(code.as_bytes());
        flags.answer_without_item(key, self.is_encoded, out);
        out.extend_from_slice(b"\r\n");
        Ok(())
    }

    fn arithmetic(&mut self, flags: &Flags<'_>, out: &mut Vec<u8>) -> Done {
        let is_down = match flags.mode {
            None | Some(b'I' | b'+') => false,
            Some(b'D' | b'-') => true,
            _ => return Err("CLIENT_ERROR invalid mode for ma M token"),
        };
        let at = &mut self.at;
        let ttl = at.keys.expires(flags.ttl.unwrap_or_default());
        let (number, cas, times, is_silent) = match at.count(flags.delta, is_down, flags.compare, flags.cas) {
            Counted::Number(number, cas, expires) => {
                let times = Times::of(flags, expires, ttl, None);
                if times.is_touched {
                    at.expire_at(ttl);
                }
                (number, cas, times, flags.is_quiet)
            }
            Counted::NotANumber => return Err(NOT_A_NUMBER),
            Counted::TooLarge => return Err("SERVER_ERROR out of memory"),
            Counted::Missing if flags.vivify.is_some() => {
                let vivify = at.keys.expires(flags.vivify.unwrap_or_default());
                let times = Times::of(flags, None, ttl, Some(vivify));
                let mut digits = [0; 20];
                let value = encode::decimal_in(flags.initial, &mut digits);
                match at.write(Put { value, expires: times.last, versioned: flags.cas, ..Put::default() }) {
                    Stored::Done(cas) => (flags.initial, cas, times, false),
                    _ => return Err("SERVER_ERROR Out of memory allocating new item"),
                }
            }
            Counted::Missing | Counted::Differs if flags.is_cut => return Err(OPAQUE),
            missed => {
                out.extend_from_slice(if matches!(missed, Counted::Differs) { b"EX" } else { b"NF" });
                flags.answer_without_item(at.key, self.is_encoded, out);
                out.extend_from_slice(b"\r\n");
                return Ok(());
            }
        };
        if flags.is_cut {
            return Err(OPAQUE);
        }
        if is_silent {
            return Ok(());
        }
        let mut digits = [0; 20];
        let digits = encode::decimal_in(number, &mut digits);
        let facts = Facts { cas, ttl_s: seconds_left(times.shown, at.keys.now), ..Facts::default() };
        head(flags.value.then_some(digits.len()), out);
        flags.answer_arithmetic(at.key, self.is_encoded, &facts, out);
        out.extend_from_slice(b"\r\n");
        if flags.value {
            out.extend_from_slice(digits);
            out.extend_from_slice(b"\r\n");
        }
        Ok(())
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

const OPAQUE: &str = "CLIENT_ERROR opaque token too long";
