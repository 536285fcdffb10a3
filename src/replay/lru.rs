//! Exact LRU over objects with sizes: a slab of doubly linked entries and a map.
//!
//! It shares nothing with the store on purpose. LRU's miss ratio on a trace is a fact that others
//! have published, so reproducing it proves the reading of traces and the charging.

use std::collections::HashMap;

use crate::trace::BuildMix;

pub struct Lru {
    capacity: u64,
    held: u64,
    places: HashMap<u64, u32, BuildMix>,
    entries: Vec<Entry>,
    free: Vec<u32>,
    newest: u32,
    oldest: u32,
}

struct Entry {
    key: u64,
    size: u32,
    newer: u32,
    older: u32,
}

impl Lru {
    pub fn new(capacity: u64) -> Lru {
        Lru {
            capacity,
            held: 0,
            places: HashMap::default(),
            entries: Vec::new(),
            free: Vec::new(),
            newest: NONE,
            oldest: NONE,
        }
    }

    /// Reads `key`, inserting it on a miss; objects larger than the cache pass by. Answers "hit".
    pub fn read(&mut self, key: u64, size: u32) -> bool {
        if let Some(&place) = self.places.get(&key) {
            self.unlink(place);
            self.link_newest(place);
            return true;
        }
        if u64::from(size) > self.capacity {
            return false;
        }
        while self.held + u64::from(size) > self.capacity {
            let place = self.oldest;
            self.unlink(place);
            let entry = &self.entries[place as usize];
            self.held -= u64::from(entry.size);
            self.places.remove(&entry.key);
            self.free.push(place);
        }
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
        self.held += u64::from(size);
        self.places.insert(key, place);
        self.link_newest(place);
        false
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
    }
}
