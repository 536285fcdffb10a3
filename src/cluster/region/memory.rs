//! Strong entries in memory: a map by key and indexes by version and by expiry for each home, under one bound of bytes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound::{Excluded, Unbounded};

use crate::base::limits;
use crate::replica::{StrongEntry, StrongFull, StrongPage, StrongStore, StrongVersion};

/// A store in memory.
pub struct MemoryStore {
    homes: Vec<Home>,
    bytes: usize,
    bytes_max: usize,
}

#[derive(Default)]
struct Home {
    entries: HashMap<Vec<u8>, StrongEntry>,
    versions: BTreeMap<StrongVersion, Vec<u8>>,
    deleted: BTreeSet<StrongVersion>,
    expiring: BTreeSet<(u64, Vec<u8>)>,
}

impl Home {
    /// Takes an entry out of the indexes.
    fn unlink(&mut self, key: &[u8], old: &StrongEntry) {
        self.versions.remove(&old.version);
        self.deleted.remove(&old.version);
        if old.expires_ms != 0 {
            self.expiring.remove(&(old.expires_ms, key.to_vec()));
        }
    }
}

impl MemoryStore {
    /// An empty one that holds so much.
    pub fn new(bytes_max: usize) -> MemoryStore {
        let homes = (0..limits::REGION_HOMES).map(|_| Home::default()).collect();
        MemoryStore { homes, bytes: 0, bytes_max }
    }

    /// Recounts everything.
    pub fn check(&self) {
        let mut bytes = 0;
        for home in &self.homes {
            assert_eq!(home.entries.len(), home.versions.len(), "a version is of one key");
            for (key, entry) in &home.entries {
                assert_eq!(home.versions.get(&entry.version), Some(key));
                assert_eq!(home.deleted.contains(&entry.version), entry.value.is_none());
                assert_eq!(home.expiring.contains(&(entry.expires_ms, key.clone())), entry.expires_ms != 0);
                bytes += size(key, entry);
            }
            assert!(home.deleted.len() <= home.entries.len() && home.expiring.len() <= home.entries.len());
        }
        assert_eq!(bytes, self.bytes);
        assert!(bytes <= self.bytes_max);
    }
}

impl StrongStore for MemoryStore {
    fn get(&self, home: u8, key: &[u8]) -> Option<StrongEntry> {
        self.homes[usize::from(home)].entries.get(key).cloned()
    }

    fn put(&mut self, home: u8, key: &[u8], entry: StrongEntry) -> Result<(), StrongFull> {
        let place = &mut self.homes[usize::from(home)];
        let old = place.entries.get(key).map_or(0, |old| size(key, old));
        let bytes = self.bytes - old + size(key, &entry);
        // A note that a key was deleted is smaller than what it replaces, and is always taken: deleting makes room.
        if bytes > self.bytes_max && bytes > self.bytes {
            return Err(StrongFull);
        }
        self.bytes = bytes;
        if let Some(old) = place.entries.remove(key) {
            place.unlink(key, &old);
        }
        place.versions.insert(entry.version, key.to_vec());
        if entry.value.is_none() {
            place.deleted.insert(entry.version);
        }
        if entry.expires_ms != 0 {
            place.expiring.insert((entry.expires_ms, key.to_vec()));
        }
        place.entries.insert(key.to_vec(), entry);
        Ok(())
    }

    fn forget(&mut self, home: u8, key: &[u8]) {
        let place = &mut self.homes[usize::from(home)];
        if let Some(old) = place.entries.remove(key) {
            self.bytes -= size(key, &old);
            place.unlink(key, &old);
        }
    }

    fn after(&self, home: u8, version: StrongVersion, bytes_max: usize) -> StrongPage {
        let place = &self.homes[usize::from(home)];
        let (mut page, mut bytes) = (StrongPage::default(), 0);
        for key in place.versions.range((Excluded(version), Unbounded)).map(|(_, key)| key) {
            if bytes >= bytes_max {
                page.has_more = true;
                break;
            }
            let entry = place.entries[key].clone();
            bytes += size(key, &entry);
            page.entries.push((key.clone(), entry));
        }
        page
    }

    fn due(&self, home: u8, now_ms: u64, count: usize) -> Vec<Vec<u8>> {
        let expiring = self.homes[usize::from(home)].expiring.iter();
        expiring.take_while(|(expires_ms, _)| *expires_ms <= now_ms).take(count).map(|(_, key)| key.clone()).collect()
    }

    fn settle(&mut self, home: u8, version: StrongVersion) {
        let place = &mut self.homes[usize::from(home)];
        while let Some(first) = place.deleted.first().copied().filter(|first| *first <= version) {
            place.deleted.remove(&first);
            if let Some(key) = place.versions.remove(&first)
                && let Some(old) = place.entries.remove(&key)
            {
                self.bytes -= size(&key, &old);
            }
        }
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn is_durable(&self) -> bool {
        false
    }
}

fn size(key: &[u8], entry: &StrongEntry) -> usize {
    // The key is kept twice, once for each direction, and once more by when it expires.
    let copies = if entry.expires_ms == 0 { 2 } else { 3 };
    copies * key.len() + entry.value.as_ref().map_or(0, Vec::len) + limits::STRONG_ENTRY_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::prng::Prng;

    #[test]
    fn it_is_a_map_that_can_be_read_in_the_order_of_versions() {
        let mut random = Prng::new(11);
        let mut store = MemoryStore::new(1 << 20);
        let mut model: BTreeMap<Vec<u8>, StrongEntry> = BTreeMap::new();
        for sequence in 1..5_000 {
            let key = vec![random.below(50) as u8];
            let version = StrongVersion { token: 1, sequence };
            match random.below(8) {
                0 => {
                    store.forget(3, &key);
                    model.remove(&key);
                }
                1 => {
                    let settled = StrongVersion { token: 1, sequence: sequence.saturating_sub(100) };
                    store.settle(3, settled);
                    model.retain(|_, entry| entry.value.is_some() || entry.version > settled);
                }
                kind => {
                    let value = (kind > 3).then(|| vec![kind as u8; random.below(30) as usize]);
                    let expires_ms = if value.is_some() { random.below(3) * sequence } else { 0 };
                    let entry = StrongEntry { version, value, expires_ms };
                    store.put(3, &key, entry.clone()).unwrap();
                    model.insert(key, entry);
                }
            }
            if sequence % 100 == 0 {
                store.check();
                let (mut seen, mut from) = (BTreeMap::new(), StrongVersion::default());
                loop {
                    let page = store.after(3, from, 500);
                    assert!(page.entries.is_sorted_by_key(|(_, entry)| entry.version));
                    from = page.entries.last().map_or(from, |(_, entry)| entry.version);
                    seen.extend(page.entries);
                    if !page.has_more {
                        break;
                    }
                }
                assert_eq!(seen, model);
                let mut due: Vec<_> = model.iter().filter(|(_, entry)| entry.is_due(sequence)).collect();
                due.sort_by_key(|(key, entry)| (entry.expires_ms, *key));
                let due: Vec<_> = due.into_iter().map(|(key, _)| key.clone()).take(7).collect();
                assert_eq!(store.due(3, sequence, 7), due);
            }
        }
        assert!(store.after(4, StrongVersion::default(), 1).entries.is_empty());
    }

    #[test]
    fn a_full_store_refuses_and_a_deletion_makes_room() {
        let mut store = MemoryStore::new(1000);
        let entry =
            |sequence, value| StrongEntry { version: StrongVersion { token: 1, sequence }, value, expires_ms: 0 };
        store.put(0, b"a", entry(1, Some(vec![0; 800]))).unwrap();
        assert_eq!(store.put(0, b"b", entry(2, Some(vec![0; 100]))), Err(StrongFull));
        assert_eq!(store.get(0, b"b"), None);
        store.put(0, b"a", entry(3, None)).unwrap();
        store.put(0, b"b", entry(4, Some(vec![0; 100]))).unwrap();
        store.check();
    }
}
