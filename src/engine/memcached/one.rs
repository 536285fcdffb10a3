//! The classic commands about one key, each as one step of its shard.

use std::ops::DerefMut;

use crate::base::hash::KeyHash;
use crate::base::time::Instant;
use crate::cache::{Condition, Put, Refused};
use crate::engine::edit::At;
use crate::engine::keys::Keys;
use crate::engine::memcached::meta;
use crate::engine::memcached::prefixes::Use;
use crate::observe::ShardCounters;
use crate::wire::memcached::{Ask, Exptime, Storing, encode, number};

/// What came of storing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    /// It is, with this version if one was asked for.
    Done(u64),
    /// The condition does not hold.
    Not,
    /// The present value has another version.
    Differs,
    /// There is no value to compare with.
    Missing,
    /// It is larger than the server stores.
    TooLarge,
}

/// How a number was counted.
pub(super) enum Counted {
    /// The new number, the version if one was asked for, and when the item expires.
    Number(u64, u64, Option<Instant>),
    /// The key is not stored.
    Missing,
    /// The value is no number.
    NotANumber,
    /// The value has another version.
    Differs,
    /// The new number does not fit beside its key.
    TooLarge,
}

/// What is to be stored.
#[derive(Clone, Copy)]
pub(super) struct Store<'a> {
    pub value: &'a [u8],
    pub client_flags: u32,
    pub exptime: Exptime,
    pub how: Storing,
    /// What is added to must have this version.
    pub compare: Option<u64>,
    /// The version is to be told.
    pub versioned: bool,
}

/// Does what is asked of `key` and appends its reply to `out`.
#[inline]
pub fn apply<M: DerefMut<Target = [u8]>>(
    keys: &mut Keys<M>,
    counters: &ShardCounters,
    hash: KeyHash,
    key: &[u8],
    ask: Ask<'_>,
    out: &mut Vec<u8>,
) {
    if keys.observer.is_some() {
        observe(keys, hash, key, ask);
    }
    match ask {
        Ask::Read { exptime: None, with_cas: false, ends } => get(keys, counters, hash, key, ends, out),
        Ask::Store { value, flags, exptime, how: Storing::Set, is_quiet } => {
            set(keys, counters, hash, key, value, flags, exptime, is_quiet, out);
        }
        ask => other(At { keys, counters, hash, key }, ask, out),
    }
}

/// Counts by prefix what is about to be asked, as memcached does: the classic commands that read, store or delete.
#[cold]
fn observe<M: DerefMut<Target = [u8]>>(keys: &mut Keys<M>, hash: KeyHash, key: &[u8], ask: Ask<'_>) {
    let use_of = match ask {
        Ask::Read { .. } => Use::Get { is_hit: keys.store.peek(hash, key, keys.now).is_some() },
        Ask::Store { .. } => Use::Set,
        Ask::Delete { .. } => Use::Delete,
        _ => return,
    };
    if let Some(observer) = &keys.observer {
        observer.note(key, use_of);
    }
}

/// GET, the traffic.
#[inline]
fn get<M: DerefMut<Target = [u8]>>(
    keys: &mut Keys<M>,
    counters: &ShardCounters,
    hash: KeyHash,
    key: &[u8],
    ends: bool,
    out: &mut Vec<u8>,
) {
    let now = keys.now;
    let expired = keys.store.expired();
    match keys.store.get(hash, key, now) {
        Some(item) => {
            encode::value(key, item.client_flags, item.value, None, ends, out);
            counters.get_hits.add(1);
            if let Some(l0) = &mut keys.l0
                && l0.is_candidate()
            {
                l0.offer(&mut keys.store, hash, key, now);
            }
        }
        None => {
            counters.get_misses.add(1);
            counters.gets_expired.add(keys.store.expired() - expired);
            if ends {
                out.extend_from_slice(b"END\r\n");
            }
        }
    }
}

/// SET, the other traffic.
#[inline]
#[expect(clippy::too_many_arguments, reason = "the fields of one wire request, each used once")]
fn set<M: DerefMut<Target = [u8]>>(
    keys: &mut Keys<M>,
    counters: &ShardCounters,
    hash: KeyHash,
    key: &[u8],
    value: &[u8],
    client_flags: u32,
    exptime: Exptime,
    is_quiet: bool,
    out: &mut Vec<u8>,
) {
    let now = keys.now;
    let expires = keys.expires(exptime);
    let put = Put { value, client_flags, expires, ..Put::default() };
    match keys.store.set(hash, key, put, now) {
        Ok(_) => {
            keys.changed(hash, key);
            counters.sets.add(1);
            counters.entries.set(keys.store.entries());
            if let Some(l0) = &mut keys.l0 {
                l0.written(hash, key, value, expires);
            }
            if !is_quiet {
                out.extend_from_slice(b"STORED\r\n");
            }
        }
        Err(_) => {
            counters.too_large.add(1);
            if !is_quiet {
                encode::line(TOO_LARGE, out);
            }
        }
    }
}

fn other<M: DerefMut<Target = [u8]>>(mut at: At<'_, M>, ask: Ask<'_>, out: &mut Vec<u8>) {
    match ask {
        Ask::Read { exptime, with_cas, ends } => at.read_value(exptime, with_cas, ends, out),
        Ask::Store { value, flags, exptime, how, is_quiet } => {
            let store = Store { value, client_flags: flags, exptime, how, compare: None, versioned: false };
            let text = match at.put(store) {
                Stored::Done(_) => "STORED",
                Stored::Not => "NOT_STORED",
                Stored::Differs => "EXISTS",
                Stored::Missing => "NOT_FOUND",
                Stored::TooLarge => TOO_LARGE,
            };
            if !is_quiet {
                encode::line(text, out);
            }
        }
        Ask::Delete { is_quiet } => {
            let text = if at.remove() { "DELETED" } else { "NOT_FOUND" };
            if !is_quiet {
                encode::line(text, out);
            }
        }
        Ask::Touch { exptime, is_quiet } => {
            let text = if at.touch(exptime) { "TOUCHED" } else { "NOT_FOUND" };
            if !is_quiet {
                encode::line(text, out);
            }
        }
        Ask::Count { by, is_down, is_quiet } => {
            let counted = at.count(by, is_down, None, false);
            if is_quiet {
                return;
            }
            match counted {
                Counted::Number(number, ..) => {
                    encode::decimal(number, out);
                    out.extend_from_slice(b"\r\n");
                }
                Counted::Missing => encode::line("NOT_FOUND", out),
                Counted::NotANumber => encode::line(NOT_A_NUMBER, out),
                Counted::Differs => unreachable!("no version was asked for"),
                Counted::TooLarge => encode::line("SERVER_ERROR out of memory", out),
            }
        }
        Ask::Meta { verb, flags, value, is_encoded } => meta::apply(at, verb, flags, value, is_encoded, out),
    }
}

impl<M: DerefMut<Target = [u8]>> Keys<M> {
    /// When something stored or touched now expires.
    #[inline]
    pub(super) fn expires(&self, exptime: Exptime) -> Option<Instant> {
        if exptime.0 == 0 { None } else { self.resolve(exptime.expiry(), None) }
    }
}

impl<M: DerefMut<Target = [u8]>> At<'_, M> {
    /// GETS, GAT, GATS, and GET beside others.
    fn read_value(&mut self, exptime: Option<Exptime>, with_cas: bool, ends: bool, out: &mut Vec<u8>) {
        let (now, hash, key) = (self.keys.now, self.hash, self.key);
        let expired = self.keys.store.expired();
        let found = match with_cas {
            true => self.keys.store.get_versioned(hash, key, now),
            false => self.keys.store.get(hash, key, now),
        };
        let Some(item) = found else {
            (if exptime.is_some() { &self.counters.touch_misses } else { &self.counters.get_misses }).add(1);
            self.counters.gets_expired.add(self.keys.store.expired() - expired);
            if ends {
                out.extend_from_slice(b"END\r\n");
            }
            return;
        };
        let cas = with_cas.then(|| item.version.unwrap_or(0));
        encode::value(key, item.client_flags, item.value, cas, ends, out);
        match exptime {
            Some(exptime) => self.expire_at(self.keys.expires(exptime)),
            None => self.counters.get_hits.add(1),
        }
    }

    /// Stores a value.
    pub(super) fn put(&mut self, store: Store<'_>) -> Stored {
        if matches!(store.how, Storing::Append | Storing::Prepend) {
            return self.extend(store);
        }
        let condition = match store.how {
            Storing::Add => Condition::Absent,
            Storing::Replace => Condition::Present,
            Storing::Cas(version) => Condition::Version(version),
            Storing::Set | Storing::Append | Storing::Prepend => Condition::Always,
        };
        let expires = self.keys.expires(store.exptime);
        let put = Put {
            value: store.value,
            expires,
            client_flags: store.client_flags,
            condition,
            versioned: store.versioned,
            ..Put::default()
        };
        let is_cas = matches!(store.how, Storing::Cas(_));
        let stored = self.write(put);
        if is_cas {
            match stored {
                Stored::Done(_) => self.counters.cas_hits.add(1),
                Stored::Differs => self.counters.cas_differs.add(1),
                Stored::Missing => self.counters.cas_misses.add(1),
                Stored::Not | Stored::TooLarge => {}
            }
        }
        stored
    }

    /// Adds bytes before or behind the present value; whatever else there is to it stays.
    fn extend(&mut self, store: Store<'_>) -> Stored {
        let now = self.keys.now;
        let Some(item) = self.keys.store.peek(self.hash, self.key, now) else {
            self.counters.sets_unmet.add(1);
            return Stored::Not;
        };
        if store.compare.is_some_and(|version| item.version != Some(version)) {
            self.counters.sets_unmet.add(1);
            return Stored::Differs;
        }
        let (first, second) = match store.how {
            Storing::Append => (item.value, store.value),
            _ => (store.value, item.value),
        };
        let value = [first, second].concat();
        let put = Put {
            value: &value,
            expires: item.expires,
            client_flags: item.client_flags,
            versioned: store.versioned || item.version.is_some(),
            ..Put::default()
        };
        match self.write(put) {
            // It is the sum that is too large, and nobody sent that.
            Stored::TooLarge => Stored::Not,
            stored => stored,
        }
    }

    /// Writes, and tells everybody.
    pub(super) fn write(&mut self, put: Put<'_>) -> Stored {
        let now = self.keys.now;
        match self.keys.store.set(self.hash, self.key, put, now) {
            Ok(version) => {
                self.counters.sets.add(1);
                self.counters.entries.set(self.keys.store.entries());
                self.written(put.value, put.expires);
                Stored::Done(version.unwrap_or(0))
            }
            Err(Refused::TooLarge { .. }) => {
                self.counters.too_large.add(1);
                Stored::TooLarge
            }
            Err(refused) => {
                self.counters.sets_unmet.add(1);
                match (refused, put.condition) {
                    (Refused::VersionDiffers, _) => Stored::Differs,
                    (Refused::NotFound, Condition::Version(_)) => Stored::Missing,
                    _ => Stored::Not,
                }
            }
        }
    }

    /// Removes the key. Answers whether it was stored.
    pub(super) fn remove(&mut self) -> bool {
        let is_removed = self.keys.store.delete(self.hash, self.key, self.keys.now);
        // Even what is not stored here any more may be published, and near caches may hold it still.
        if let Some(l0) = &mut self.keys.l0 {
            l0.removed(self.hash, self.key);
        }
        match is_removed {
            true => self.keys.changed(self.hash, self.key),
            false => self.keys.missed(self.hash, self.key),
        }
        (if is_removed { &self.counters.deletes } else { &self.counters.delete_misses }).add(1);
        self.counters.entries.set(self.keys.store.entries());
        is_removed
    }

    /// Changes when the key expires. Answers whether it is stored. What has expired by that stays until it is
    /// looked for, and is counted then.
    fn touch(&mut self, exptime: Exptime) -> bool {
        let expires = self.keys.expires(exptime);
        let is_touched = self.keys.store.touch(self.hash, self.key, expires, self.keys.now);
        (if is_touched { &self.counters.touches } else { &self.counters.touch_misses }).add(1);
        if let Some(l0) = &mut self.keys.l0 {
            match is_touched {
                true => l0.touched(self.hash, self.key, expires),
                false => l0.removed(self.hash, self.key),
            }
        }
        if is_touched {
            self.keys.changed(self.hash, self.key);
        }
        is_touched
    }

    /// Tells everybody that the value is not to be served any more as if nothing were: copies of it go.
    pub(super) fn invalidated(&mut self) {
        if let Some(l0) = &mut self.keys.l0 {
            l0.removed(self.hash, self.key);
        }
        self.keys.changed(self.hash, self.key);
    }

    /// Changes when the key, which is stored, expires. That alone is no use of it.
    pub(super) fn expire_at(&mut self, expires: Option<Instant>) {
        if self.keys.store.expire_at(self.hash, self.key, expires, self.keys.now) {
            self.counters.touches.add(1);
            if let Some(l0) = &mut self.keys.l0 {
                l0.touched(self.hash, self.key, expires);
            }
            self.keys.changed(self.hash, self.key);
        }
    }

    /// Adds to a number, which wraps, or takes from it, down to zero. One that has become shorter keeps its length,
    /// with spaces behind it.
    pub(super) fn count(&mut self, by: u64, is_down: bool, compare: Option<u64>, versioned: bool) -> Counted {
        let now = self.keys.now;
        let counting = self.keys.about_to_count(self.hash, self.key);
        let history = self.keys.store.history(self.hash, self.key, now).unwrap_or_default();
        let Some(item) = self.keys.store.peek(self.hash, self.key, now) else {
            (if is_down { &self.counters.decrement_misses } else { &self.counters.increment_misses }).add(1);
            return Counted::Missing;
        };
        if item.value.is_empty() {
            return Counted::NotANumber;
        }
        if compare.is_some_and(|version| version != 0 && item.version != Some(version)) {
            return Counted::Differs;
        }
        let Some(before) = number::stored(item.value) else { return Counted::NotANumber };
        let number = if is_down { before.saturating_sub(by) } else { before.wrapping_add(by) };
        let mut digits = [0; 20];
        let digits = encode::decimal_in(number, &mut digits);
        // What fits where it was is the same item with another value; what does not is a new one.
        let is_same = digits.len() <= item.value.len();
        let mut padded = Vec::new();
        let value = if digits.len() >= item.value.len() {
            digits
        } else {
            padded.resize(item.value.len(), b' ');
            padded[..digits.len()].copy_from_slice(digits);
            &padded
        };
        let put = Put {
            value,
            expires: item.expires,
            client_flags: item.client_flags,
            versioned: versioned || item.version.is_some(),
            marks: if is_same { item.marks } else { 0 },
            ..Put::default()
        };
        match self.keys.store.set(self.hash, self.key, put, now) {
            Ok(version) => {
                (if is_down { &self.counters.decrements } else { &self.counters.increments }).add(1);
                if let Some(l0) = &mut self.keys.l0 {
                    l0.written(self.hash, self.key, value, put.expires);
                }
                self.keys.counted(self.hash, self.key, counting, true);
                if is_same && history.is_hit {
                    self.keys.store.get(self.hash, self.key, now);
                }
                Counted::Number(number, version.unwrap_or(0), put.expires)
            }
            Err(_) => Counted::TooLarge,
        }
    }
}

pub(super) const TOO_LARGE: &str = "SERVER_ERROR object too large for cache";
pub(super) const NOT_A_NUMBER: &str = "CLIENT_ERROR cannot increment or decrement non-numeric value";
