//! Exact LRU over objects with sizes: a slab of doubly linked entries and a map.
//!
//! The yardstick: `replay --policy lru` reproduces published miss ratios with it, and `balance` runs
//! one on a sample of the keys to know what plain recency would have missed.

use std::collections::HashMap;

use crate::base::hash::BuildMix;

/// Keys and sizes in order of their last access.
#[derive(Clone)]
pub struct Lru {
    capacity: u64,
    held: u64,
    places: HashMap<u64, u32, BuildMix>,
    entries: Vec<Entry>,
    free: Vec<u32>,
    newest: u32,
    oldest: u32,
    swept_to: usize,
}

#[derive(Clone)]
struct Entry {
    key: u64,
    size: u32,
    newer: u32,
    older: u32,
}

impl Lru {
    /// An empty cache of `capacity` units.
    pub fn new(capacity: u64) -> Lru {
        Lru {
            capacity,
            held: 0,
            places: HashMap::default(),
            entries: Vec::new(),
            free: Vec::new(),
            newest: NONE,
            oldest: NONE,
            swept_to: 0,
        }
    }

    /// Makes sure that `entries` fit without allocating.
    pub fn reserve(&mut self, entries: usize) {
        self.places.reserve(entries.saturating_sub(self.places.len()));
        self.entries.reserve(entries.saturating_sub(self.entries.len()));
        self.free.reserve(entries.saturating_sub(self.free.len()));
    }

    /// Reads `key`, inserting it on a miss; objects larger than the cache pass by. Answers "hit".
    pub fn read(&mut self, key: u64, size: u32) -> bool {
        if self.refresh(key).is_some() {
            return true;
        }
        self.insert(key, size);
        false
    }

    /// Makes `key` the newest. Answers its size if it is held.
    pub fn refresh(&mut self, key: u64) -> Option<u32> {
        let &place = self.places.get(&key)?;
        self.unlink(place);
        self.link_newest(place);
        Some(self.entries[place as usize].size)
    }

    /// Inserts a key that is not held, unless it is larger than the cache.
    pub fn insert(&mut self, key: u64, size: u32) {
        if u64::from(size) > self.capacity {
            return;
        }
        self.held += u64::from(size);
        self.shrink();
        let entry = Entry { key, size, newer: NONE, older: NONE };
        let place = match self.free.pop() {
            Some(place) => {
                self.entries[place as usize] = entry;
                place
            }
            None => {
                self.entries.push(entry);
                self.entries.len() as u32 - 1
            }
        };
        self.places.insert(key, place);
        self.link_newest(place);
    }

    /// Forgets `key`. Answers its size if it was held.
    pub fn remove(&mut self, key: u64) -> Option<u32> {
        let place = self.places.remove(&key)?;
        self.unlink(place);
        let size = self.entries[place as usize].size;
        self.held -= u64::from(size);
        self.free.push(place);
        Some(size)
    }

    /// Forgets the key that was accessed the longest ago. Answers it and its size.
    pub fn pop_oldest(&mut self) -> Option<(u64, u32)> {
        let key = self.peek_oldest()?;
        self.remove(key).map(|size| (key, size))
    }

    /// The key that was accessed the longest ago.
    pub fn peek_oldest(&self) -> Option<u64> {
        (self.oldest != NONE).then(|| self.entries[self.oldest as usize].key)
    }

    /// Whether `key` is held.
    pub fn contains(&self, key: u64) -> bool {
        self.places.contains_key(&key)
    }

    /// Sizes held together.
    pub fn held(&self) -> u64 {
        self.held
    }

    /// Changes the capacity; the oldest leave if it is smaller.
    pub fn set_capacity(&mut self, capacity: u64) {
        self.capacity = capacity;
        self.shrink();
    }

    /// Looks at the next `count` places and forgets the keys there for which `keep` does not hold.
    pub fn sweep(&mut self, count: usize, keep: impl Fn(u64) -> bool) {
        for _ in 0..count.min(self.entries.len()) {
            self.swept_to = (self.swept_to + 1) % self.entries.len();
            let key = self.entries[self.swept_to].key;
            if !keep(key) && self.places.get(&key) == Some(&(self.swept_to as u32)) {
                self.remove(key);
            }
        }
    }

    /// Keys held.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    fn shrink(&mut self) {
        while self.held > self.capacity && self.oldest != NONE {
            self.pop_oldest();
        }
    }

    fn unlink(&mut self, place: u32) {
        let Entry { newer, older, .. } = self.entries[place as usize];
        match newer {
            NONE => self.newest = older,
            _ => self.entries[newer as usize].older = older,
        }
        match older {
            NONE => self.oldest = newer,
            _ => self.entries[older as usize].newer = newer,
        }
    }

    fn link_newest(&mut self, place: u32) {
        let second = self.newest;
        self.entries[place as usize].newer = NONE;
        self.entries[place as usize].older = second;
        match second {
            NONE => self.oldest = place,
            _ => self.entries[second as usize].newer = place,
        }
        self.newest = place;
    }
}

const NONE: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_read_object_leaves() {
        let mut lru = Lru::new(3);
        let hits: Vec<bool> = [1, 2, 3, 1, 4, 1, 2].iter().map(|&key| lru.read(key, 1)).collect();
        assert_eq!(hits, [false, false, false, true, false, true, false]);
    }

    #[test]
    fn sizes_are_charged() {
        let mut lru = Lru::new(10);
        assert!(!lru.read(1, 11), "larger than the cache");
        for key in [1, 2] {
            lru.read(key, 5);
        }
        assert!(lru.read(1, 5));
        lru.read(3, 1);
        assert!(lru.read(1, 5) && !lru.read(2, 5));
        assert_eq!((lru.remove(1), lru.remove(1), lru.len()), (Some(5), None, 1));
        lru.set_capacity(4);
        assert!(lru.is_empty());
    }
}
