//! What the text protocols ask of one key beyond what the native protocol has, each as one step of its shard.

use std::ops::DerefMut;

use crate::base::decimal::{self, NoSum};
use crate::base::hash::KeyHash;
use crate::base::limits;
use crate::base::time::Instant;
use crate::cache::{Put, Store};
use crate::engine::apply::{condition, refusal};
use crate::engine::keys::Keys;
use crate::observe::ShardCounters;
use crate::wire::{Edit, Expiry, Mode, Reply, Status, Then, Want, When};

/// Where a reply goes.
type Answer<'a> = &'a mut dyn FnMut(Reply<'_>);

/// Does `edit` to `key` and answers.
pub fn edit<M: DerefMut<Target = [u8]>>(
    keys: &mut Keys<M>,
    counters: &ShardCounters,
    hash: KeyHash,
    key: &[u8],
    edit: Edit<'_>,
    answer: Answer<'_>,
) {
    let mut at = At { keys, counters, hash, key };
    match edit {
        Edit::Store { value, expiry, mode, old } => at.store(value, expiry, mode, old, answer),
        Edit::Read { expiry } => at.read(expiry, answer),
        Edit::Take => at.take(answer),
        Edit::Append { bytes } => {
            let mut value = at.value().unwrap_or_default();
            value.extend_from_slice(bytes);
            at.rewrite(&value, answer);
        }
        Edit::Splice { at: offset, bytes } => at.splice(offset as usize, bytes, answer),
        Edit::SetBit { at: offset, to } => at.set_bit(offset as usize, to, answer),
        Edit::AddFloat { delta } => at.add_float(delta, answer),
        Edit::Expire { expiry, when } => answer(Reply::status(at.expire(expiry, when))),
        Edit::Look { want } => at.look(want, answer),
        Edit::IfEqual { expected, then } => at.if_equal(expected, then, answer),
    }
}

/// One key of a shard.
pub struct At<'a, M> {
    pub keys: &'a mut Keys<M>,
    pub counters: &'a ShardCounters,
    pub hash: KeyHash,
    pub key: &'a [u8],
}

impl<M: DerefMut<Target = [u8]>> At<'_, M> {
    fn store(&mut self, value: &[u8], expiry: Expiry, mode: Mode, old: bool, answer: Answer<'_>) {
        let now = self.keys.now;
        let found = self.keys.store.peek(self.hash, self.key, now);
        let (kept, before) = match found {
            Some(item) => (item.expires, old.then(|| item.value.to_vec())),
            None => (None, None),
        };
        if old {
            (if before.is_some() { &self.counters.get_hits } else { &self.counters.get_misses }).add(1);
        }
        let expires = self.keys.resolve(expiry, kept);
        let put = Put { value, expires, condition: condition(mode), ..Put::default() };
        let status = match self.keys.store.set(self.hash, self.key, put, now) {
            Ok(_) => {
                self.counters.sets.add(1);
                self.written(value, expires);
                if expires.is_some_and(|expires| expires <= now) {
                    self.delete();
                }
                Status::Ok
            }
            Err(refused) => refusal(refused, self.counters),
        };
        match (old, status, before) {
            (true, Status::Ok | Status::Exists, Some(before)) => {
                answer(Reply { status: Status::Ok, value: &before, number: 0 });
            }
            (true, Status::Ok, None) => answer(Reply::status(Status::NotFound)),
            (_, status, _) => answer(Reply::status(status)),
        }
    }

    fn read(&mut self, expiry: Expiry, answer: Answer<'_>) {
        let now = self.keys.now;
        let Some(item) = self.keys.store.get(self.hash, self.key, now) else {
            self.counters.get_misses.add(1);
            return answer(Reply::status(Status::NotFound));
        };
        self.counters.get_hits.add(1);
        if let Some(status) = senseless(expiry) {
            return answer(Reply::status(status));
        }
        answer(Reply { status: Status::Ok, value: item.value, number: 0 });
        match expiry {
            Expiry::Keep => {}
            // Taking away what is not there changes nothing.
            Expiry::Never => _ = self.expire(expiry, When { persist: true, ..When::default() }),
            _ => _ = self.expire(expiry, When::default()),
        }
    }

    fn take(&mut self, answer: Answer<'_>) {
        let Some(value) = self.value() else {
            self.counters.get_misses.add(1);
            return answer(Reply::status(Status::NotFound));
        };
        self.counters.get_hits.add(1);
        self.delete();
        answer(Reply { status: Status::Ok, value: &value, number: 0 });
    }

    fn splice(&mut self, offset: usize, bytes: &[u8], answer: Answer<'_>) {
        let found = self.value();
        if bytes.is_empty() {
            return answer(Reply { number: found.map_or(0, |value| value.len() as u64), ..Reply::status(Status::Ok) });
        }
        let end = offset.saturating_add(bytes.len());
        if end > self.value_bytes_max() {
            return answer(Reply::status(Status::TooLong));
        }
        let mut value = found.unwrap_or_default();
        value.resize(value.len().max(end), 0);
        value[offset..end].copy_from_slice(bytes);
        self.rewrite(&value, answer);
    }

    fn set_bit(&mut self, offset: usize, to: bool, answer: Answer<'_>) {
        let (byte, mask) = (offset / 8, 0x80u8 >> (offset % 8));
        if byte >= self.value_bytes_max() {
            return answer(Reply::status(Status::TooLong));
        }
        let mut value = self.value().unwrap_or_default();
        value.resize(value.len().max(byte + 1), 0);
        let was = value[byte] & mask != 0;
        value[byte] = if to { value[byte] | mask } else { value[byte] & !mask };
        self.rewrite(&value, &mut |reply| {
            answer(if reply.status == Status::Ok { Reply { number: u64::from(was), ..reply } } else { reply });
        });
    }

    fn add_float(&mut self, delta: &[u8], answer: Answer<'_>) {
        let before = self.value().unwrap_or_else(|| b"0".to_vec());
        match decimal::sum(&before, delta) {
            Ok(sum) => self.rewrite(sum.as_bytes(), &mut |reply| {
                answer(if reply.status == Status::Ok { Reply { value: sum.as_bytes(), ..reply } } else { reply });
            }),
            Err(NoSum::NotANumber) => answer(Reply::status(Status::NotAFloat)),
            Err(NoSum::NotFinite) => answer(Reply::status(Status::NotFinite)),
        }
    }

    /// Changes when the key expires, and removes it if that has passed.
    fn expire(&mut self, expiry: Expiry, when: When) -> Status {
        let now = self.keys.now;
        let Some(item) = self.keys.store.peek(self.hash, self.key, now) else { return Status::NotFound };
        let before = item.expires;
        let after = self.keys.resolve(expiry, before);
        // What never expires is later than anything.
        let is_later = before.is_some_and(|before| after.is_none_or(|after| after > before));
        let is_earlier = after.is_some_and(|after| before.is_none_or(|before| after < before));
        let is_met = !(when.none_yet && before.is_some())
            && !((when.some_already || when.persist) && before.is_none())
            && (!when.later || is_later)
            && (!when.earlier || is_earlier);
        if !is_met {
            return Status::NotFound;
        }
        if after.is_some_and(|after| after <= now) {
            self.delete();
        } else if self.keys.store.touch(self.hash, self.key, after, now) {
            self.counters.touches.add(1);
            if let Some(l0) = &mut self.keys.l0 {
                l0.touched(self.hash, self.key, after);
            }
            self.keys.changed(self.hash, self.key);
        } else {
            return Status::NotFound;
        }
        Status::Ok
    }

    fn look(&mut self, want: Want, answer: Answer<'_>) {
        let (now, hash, key) = (self.keys.now, self.hash, self.key);
        let is_use = matches!(want, Want::Length | Want::Range(..) | Want::Bit(_) | Want::Touch);
        let found = match is_use {
            true => self.keys.store.get(hash, key, now),
            false => self.keys.store.peek(hash, key, now),
        };
        let Some(item) = found else {
            if is_use {
                self.counters.get_misses.add(1);
            }
            return answer(Reply::status(Status::NotFound));
        };
        if is_use {
            self.counters.get_hits.add(1);
        }
        let (value, expires) = (item.value, item.expires);
        let with_value = |value| Reply { status: Status::Ok, value, number: 0 };
        let with_number = |number| Reply { number, ..Reply::status(Status::Ok) };
        match want {
            Want::Presence => answer(with_number(1)),
            Want::Touch => answer(with_number(1)),
            Want::Length => answer(with_number(value.len() as u64)),
            Want::Bit(at) => {
                let byte = value.get(at as usize / 8).copied().unwrap_or(0);
                answer(with_number(u64::from(byte & 0x80 >> (at % 8) != 0)));
            }
            Want::Range(from, to) => answer(with_value(range(value, from, to))),
            Want::Left => answer(with_number(expires.map_or(u64::MAX, |expires| now.ms_until(expires)))),
            Want::ExpiresAt => {
                let at = expires.map_or(u64::MAX, |expires| self.keys.unix_of(expires) as u64);
                answer(with_number(at));
            }
            Want::Encoding => answer(with_value(encoding(value))),
            Want::Memory => answer(with_number((item.bytes() + SLOT_BYTES) as u64)),
            Want::Whole => {
                let value = value.to_vec();
                let number = expires.map_or(u64::MAX, |expires| self.keys.unix_of(expires) as u64);
                answer(Reply { status: Status::Ok, value: &value, number });
            }
            Want::Idle | Want::Frequency => {
                let history = self.keys.store.history(hash, key, now).unwrap_or_default();
                let idle_s = history.idle_ms / 1000;
                answer(with_number(if want == Want::Idle { idle_s } else { u64::from(history.frequency) }));
            }
        }
    }

    fn if_equal(&mut self, expected: Option<&[u8]>, then: Then, answer: Answer<'_>) {
        let now = self.keys.now;
        let found = self.keys.store.peek(self.hash, self.key, now);
        let is_null_otherwise = matches!(then, Then::Increment { is_null_otherwise: true, .. });
        let Some(item) = found.filter(|item| expected.is_none_or(|expected| expected == item.value)) else {
            let number = if is_null_otherwise { u64::MAX } else { 0 };
            return answer(Reply { number, ..Reply::status(Status::NotFound) });
        };
        let expires = item.expires;
        let status = match then {
            Then::Delete => {
                self.delete();
                Status::Ok
            }
            Then::Expire(expiry) => senseless(expiry).unwrap_or_else(|| self.expire(expiry, When::default())),
            Then::Extend(ms) => match expires {
                Some(expires) => {
                    let left = now.ms_until(expires).saturating_add(ms);
                    self.expire(Expiry::In(left), When::default())
                }
                None => Status::NotFound,
            },
            Then::Increment { by, .. } => {
                let counting = self.keys.about_to_count(self.hash, self.key);
                return match self.keys.store.increment(self.hash, self.key, by, None, None, false, now) {
                    Ok((count, _)) => {
                        self.counters.increments.add(1);
                        if let Some(l0) = &mut self.keys.l0 {
                            l0.removed(self.hash, self.key);
                        }
                        self.keys.counted(self.hash, self.key, counting, true);
                        answer(Reply { number: count as u64, ..Reply::status(Status::Ok) });
                    }
                    Err(refused) => answer(Reply::status(refusal(refused, self.counters))),
                };
            }
        };
        answer(Reply { number: 1, ..Reply::status(status) });
    }

    /// The value stored under the key, which counts as used.
    fn value(&mut self) -> Option<Vec<u8>> {
        self.keys.store.get(self.hash, self.key, self.keys.now).map(|item| item.value.to_vec())
    }

    /// Stores another value in place of the present one, whose expiry and flags stay. Answers its length.
    fn rewrite(&mut self, value: &[u8], answer: Answer<'_>) {
        if value.len() > self.value_bytes_max() {
            return answer(Reply::status(Status::TooLong));
        }
        let now = self.keys.now;
        let put = match self.keys.store.peek(self.hash, self.key, now) {
            Some(item) => Put {
                value,
                expires: item.expires,
                client_flags: item.client_flags,
                versioned: item.version.is_some(),
                ..Put::default()
            },
            None => Put { value, ..Put::default() },
        };
        match self.keys.store.set(self.hash, self.key, put, now) {
            Ok(_) => {
                self.counters.sets.add(1);
                self.written(value, put.expires);
                answer(Reply { number: value.len() as u64, ..Reply::status(Status::Ok) });
            }
            Err(refused) => answer(Reply::status(refusal(refused, self.counters))),
        }
    }

    fn delete(&mut self) {
        if self.keys.store.delete(self.hash, self.key, self.keys.now) {
            self.counters.deletes.add(1);
        }
        if let Some(l0) = &mut self.keys.l0 {
            l0.removed(self.hash, self.key);
        }
        self.keys.changed(self.hash, self.key);
    }

    /// Tells everybody about a new value.
    pub fn written(&mut self, value: &[u8], expires: Option<Instant>) {
        if let Some(l0) = &mut self.keys.l0 {
            l0.written(self.hash, self.key, value, expires);
        }
        self.keys.changed(self.hash, self.key);
    }

    fn value_bytes_max(&self) -> usize {
        // As for every value, whatever its key: it may be given a longer one.
        Store::<M>::value_bytes_max(self.keys.store.item_bytes_max(), limits::KEY_BYTES_MAX)
    }
}

/// What is wrong with an expiry, if anything.
pub(super) fn senseless(expiry: Expiry) -> Option<Status> {
    match expiry {
        Expiry::Senseless { is_number: true } => Some(Status::BadExpiry),
        Expiry::Senseless { is_number: false } => Some(Status::NotANumber),
        _ => None,
    }
}

/// Part of a value, ends included; negative numbers count from its end.
fn range(value: &[u8], from: i64, to: i64) -> &[u8] {
    let length = value.len() as i64;
    let place = |number: i64| if number < 0 { (length.saturating_add(number)).max(0) } else { number };
    if from < 0 && to < 0 && from > to {
        return &[];
    }
    let (from, to) = (place(from), place(to).min(length - 1));
    if from > to || length == 0 { &[] } else { &value[from as usize..=to as usize] }
}

/// What Redis would keep a value as.
fn encoding(value: &[u8]) -> &'static [u8] {
    let text = std::str::from_utf8(value).unwrap_or_default();
    let is_integer = text.parse::<i64>().is_ok_and(|number| number.to_string() == text);
    match value.len() {
        _ if is_integer => b"int",
        ..=EMBEDDED_BYTES_MAX => b"embstr",
        _ => b"raw",
    }
}

/// The index's part of an entry.
const SLOT_BYTES: usize = 8;
/// Values that Redis keeps within their object.
const EMBEDDED_BYTES_MAX: usize = 44;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_count_from_both_ends() {
        let part = |from, to| String::from_utf8(range(b"Hello World", from, to).to_vec()).unwrap();
        assert_eq!((part(0, 3), part(0, -1), part(-4, -1)), ("Hell".into(), "Hello World".into(), "orld".into()));
        assert_eq!(
            (part(5, 3), part(5, 5000), part(-5000, 10_000)),
            ("".into(), " World".into(), "Hello World".into())
        );
        assert_eq!((part(-1, -5), part(20, 30)), (String::new(), String::new()));
        assert_eq!(range(b"", 0, 0), b"");
    }

    #[test]
    fn encodings_are_named_as_redis_names_them() {
        assert_eq!(encoding(b"12"), b"int");
        assert_eq!(encoding(b"012"), b"embstr");
        assert_eq!(encoding(b""), b"embstr");
        assert_eq!(encoding(&[b'a'; 45]), b"raw");
    }
}
