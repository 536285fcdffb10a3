//! A near cache's memory: one part of it, under one lock.
//!
//!   map: hash -> place      entries: | e | e | e | e |      key and value of an entry lie in one allocation
//!                                            ^ hand
//!
//! Eviction is second chance: the hand goes round, spares once what was read since it last came by, and takes the
//! first that was not, or that may be served no more. Everything is counted, what it lies in too. Keys are found by a
//! hash under a seed of this process's own; two keys of the same hash take each other's place.

use std::collections::HashMap;

use crate::base::hash::{BuildMix, KeyHash};
use crate::client::near_watch::Mark;

/// One part of the memory.
pub(super) struct Part {
    places: HashMap<u64, u32, BuildMix>,
    entries: Vec<Entry>,
    hand: usize,
    bytes: usize,
    bytes_max: usize,
    /// What came of look-ups.
    pub(super) counts: Counts,
}

/// What came of look-ups.
#[derive(Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) hits: u64,
    pub(super) misses: u64,
    pub(super) evicted: u64,
    /// Over all hits.
    pub(super) staleness_ns_sum: u64,
    pub(super) staleness_ns_max: u64,
}

struct Entry {
    hash: u64,
    /// The key, then the value.
    bytes: Box<[u8]>,
    mark: Mark,
    /// When it expires, by the near cache's clock.
    expires_ns: u64,
    key_len: u16,
    read: bool,
}

impl Part {
    pub(super) fn new(bytes_max: usize) -> Part {
        let counts = Counts::default();
        Part { places: HashMap::default(), entries: Vec::new(), hand: 0, bytes: 0, bytes_max, counts }
    }

    /// The value of `key`, if it may be served at `now_ns`.
    pub(super) fn get(&mut self, hash: KeyHash, key: &[u8], now_ns: u64) -> Option<Vec<u8>> {
        if let Some(&place) = self.places.get(&hash.0) {
            let entry = &mut self.entries[place as usize];
            if let Some(staleness_ns) = entry.mark.staleness_ns().filter(|_| now_ns < entry.expires_ns) {
                if entry.key() == key {
                    entry.read = true;
                    self.counts.hits += 1;
                    self.counts.staleness_ns_sum += staleness_ns;
                    self.counts.staleness_ns_max = self.counts.staleness_ns_max.max(staleness_ns);
                    return Some(entry.bytes[key.len()..].to_vec());
                }
            } else {
                self.remove_at(place as usize);
            }
        }
        self.counts.misses += 1;
        None
    }

    /// Keeps a value until `expires_ns`, if it fits and may be served still.
    pub(super) fn put(&mut self, hash: KeyHash, key: &[u8], value: &[u8], mark: Mark, expires_ns: u64) {
        let cost = key.len() + value.len() + ENTRY_BYTES;
        if cost > self.bytes_max || mark.staleness_ns().is_none() {
            return;
        }
        if let Some(&place) = self.places.get(&hash.0) {
            self.remove_at(place as usize);
        }
        while self.bytes + cost > self.bytes_max {
            self.evict();
        }
        let mut bytes = Vec::with_capacity(key.len() + value.len());
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(value);
        self.places.insert(hash.0, self.entries.len() as u32);
        let (bytes, key_len) = (bytes.into_boxed_slice(), key.len() as u16);
        self.entries.push(Entry { hash: hash.0, bytes, mark, expires_ns, key_len, read: false });
        self.bytes += cost;
    }

    /// Drops what is held of `key`.
    pub(super) fn remove(&mut self, hash: KeyHash) {
        if let Some(&place) = self.places.get(&hash.0) {
            self.remove_at(place as usize);
        }
    }

    /// Drops what may be served no more.
    pub(super) fn sweep(&mut self) {
        for place in (0..self.entries.len()).rev() {
            if self.entries[place].mark.staleness_ns().is_none() {
                self.remove_at(place);
            }
        }
    }

    pub(super) fn entry_count(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn evict(&mut self) {
        loop {
            self.hand = if self.hand < self.entries.len() { self.hand } else { 0 };
            let entry = &mut self.entries[self.hand];
            if !std::mem::take(&mut entry.read) || entry.mark.staleness_ns().is_none() {
                // What stood last takes its place and is looked at next.
                self.remove_at(self.hand);
                self.counts.evicted += 1;
                return;
            }
            self.hand += 1;
        }
    }

    fn remove_at(&mut self, place: usize) {
        let entry = self.entries.swap_remove(place);
        self.places.remove(&entry.hash);
        self.bytes -= entry.bytes.len() + ENTRY_BYTES;
        if let Some(moved) = self.entries.get(place) {
            self.places.insert(moved.hash, place as u32);
        }
    }
}

impl Entry {
    fn key(&self) -> &[u8] {
        &self.bytes[..self.key_len as usize]
    }
}

/// What an entry takes beside its key and value: its place in a vector and in a map, either of which may have grown
/// to twice what is used, and the allocator's own.
const ENTRY_BYTES: usize = 2 * size_of::<Entry>() + 2 * 24 + 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::hash::HashSeed;
    use crate::base::prng::Prng;
    use crate::client::near_watch::tests::session;

    fn check(part: &Part) {
        let recount: usize = part.entries.iter().map(|entry| entry.bytes.len() + ENTRY_BYTES).sum();
        assert_eq!((part.bytes, part.places.len()), (recount, part.entries.len()));
        assert!(part.bytes <= part.bytes_max);
        for (place, entry) in part.entries.iter().enumerate() {
            assert_eq!(part.places.get(&entry.hash), Some(&(place as u32)));
        }
    }

    #[test]
    fn it_holds_what_a_map_holds_or_nothing_within_its_bytes() {
        let (session, mut prng, mut part) = (session(), Prng::new(4), Part::new(40_000));
        let mut model: HashMap<u64, Vec<u8>> = HashMap::new();
        for step in 0..20_000u64 {
            let number = prng.below(300);
            let key = number.to_le_bytes();
            let hash = HashSeed(1).hash(&key);
            match prng.below(8) {
                0..3 => {
                    let value = vec![step as u8; prng.below(200) as usize];
                    part.put(hash, &key, &value, session.mark(&key).unwrap().0, u64::MAX);
                    model.insert(number, value);
                }
                3 => {
                    part.remove(hash);
                    model.remove(&number);
                }
                4 if prng.below(20) == 0 => {
                    session.invalidate(&key);
                    assert_eq!(part.get(hash, &key, 0), None);
                    model.remove(&number);
                    part.sweep();
                }
                _ => {
                    if let Some(value) = part.get(hash, &key, 0) {
                        assert_eq!(Some(&value), model.get(&number));
                    }
                }
            }
            check(&part);
        }
        assert!(part.counts.hits > 1_000 && part.counts.evicted > 1_000, "{}", part.counts.hits);
        assert!(session.lose());
        part.sweep();
        assert_eq!((part.entry_count(), part.bytes()), (0, 0));
    }

    #[test]
    fn what_was_read_outlives_what_was_not() {
        let (session, mut part) = (session(), Part::new(20 * (ENTRY_BYTES + 108)));
        let put = |part: &mut Part, number: u64| {
            let key = number.to_le_bytes();
            part.put(HashSeed(1).hash(&key), &key, &[1; 100], session.mark(&key).unwrap().0, u64::MAX);
        };
        put(&mut part, 0);
        for number in 1..500u64 {
            put(&mut part, number);
            let read = part.get(HashSeed(1).hash(&0u64.to_le_bytes()), &0u64.to_le_bytes(), 0);
            assert!(read.is_some(), "evicted by number {number}");
        }
        check(&part);
    }

    #[test]
    fn what_has_expired_or_is_too_large_is_not_held() {
        let (session, mut part) = (session(), Part::new(2_000));
        let (hash, mark) = (HashSeed(1).hash(b"k"), session.mark(b"k").unwrap().0);
        part.put(hash, b"k", b"v", mark.clone(), 1_000);
        assert!(part.get(hash, b"k", 999).is_some() && part.get(hash, b"k", 1_000).is_none());
        assert_eq!(part.entry_count(), 0);
        part.put(hash, b"k", &[0; 2_000], mark, u64::MAX);
        assert_eq!(part.entry_count(), 0);
    }
}
