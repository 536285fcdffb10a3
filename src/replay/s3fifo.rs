//! S3-FIFO (Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023), with the
//! published parameters: a small queue of a tenth, a ghost queue as large as the main one, and two
//! accesses to pass from small to main.

use std::collections::{HashMap, VecDeque};

use crate::base::hash::BuildMix;
use crate::learn::Lru;
use crate::replay::ReadThrough;

/// Two queues and a memory of what left the small one.
pub struct S3Fifo {
    small_capacity: u64,
    main_capacity: u64,
    small: VecDeque<u64>,
    main: VecDeque<u64>,
    /// A FIFO too: nothing in it is ever refreshed.
    ghosts: Lru,
    small_held: u64,
    main_held: u64,
    objects: HashMap<u64, Object, BuildMix>,
    /// Until then what the small queue has no room for fills the main one.
    has_evicted: bool,
}

#[derive(Clone, Copy)]
struct Object {
    size: u32,
    accesses: u8,
    place: Place,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Small,
    Main,
}

impl S3Fifo {
    pub fn new(capacity: u64) -> S3Fifo {
        let small_capacity = capacity / SMALL_SHARE;
        S3Fifo {
            small_capacity,
            main_capacity: capacity - small_capacity,
            small: VecDeque::new(),
            main: VecDeque::new(),
            ghosts: Lru::new(capacity - small_capacity),
            small_held: 0,
            main_held: 0,
            objects: HashMap::default(),
            has_evicted: false,
        }
    }

    fn evict(&mut self) {
        self.has_evicted = true;
        if self.main_held > self.main_capacity || self.small.is_empty() {
            self.evict_main();
        } else {
            self.evict_small();
        }
    }

    fn evict_small(&mut self) {
        while let Some(key) = self.small.pop_front() {
            let object = self.objects.get_mut(&key).expect("a queued object is known");
            self.small_held -= u64::from(object.size);
            if object.accesses >= ACCESSES_TO_MAIN {
                (object.place, object.accesses) = (Place::Main, 0);
                self.main_held += u64::from(object.size);
                self.main.push_back(key);
            } else {
                let size = object.size;
                self.objects.remove(&key);
                self.ghosts.insert(key, size);
                return;
            }
        }
    }

    fn evict_main(&mut self) {
        while let Some(key) = self.main.pop_front() {
            let object = self.objects.get_mut(&key).expect("a queued object is known");
            if object.accesses > 0 {
                object.accesses -= 1;
                self.main.push_back(key);
            } else {
                self.main_held -= u64::from(object.size);
                self.objects.remove(&key);
                return;
            }
        }
    }
}

impl ReadThrough for S3Fifo {
    fn read(&mut self, key: u64, size: u32, _: u32) -> bool {
        if let Some(object) = self.objects.get_mut(&key) {
            object.accesses = (object.accesses + 1).min(ACCESSES_MAX);
            return true;
        }
        let is_filling = !self.has_evicted && self.small_held >= self.small_capacity;
        let place = if self.ghosts.remove(key).is_some() || is_filling { Place::Main } else { Place::Small };
        let limit = if place == Place::Small { self.small_capacity } else { self.main_capacity };
        if u64::from(size) > limit.max(1) {
            return false;
        }
        while self.small_held + self.main_held + u64::from(size) > self.small_capacity + self.main_capacity {
            self.evict();
        }
        if place == Place::Small {
            self.small.push_back(key);
            self.small_held += u64::from(size);
        } else {
            self.main.push_back(key);
            self.main_held += u64::from(size);
        }
        self.objects.insert(key, Object { size, accesses: 0, place });
        false
    }
}

/// The small queue's share of the capacity: one part in this many.
const SMALL_SHARE: u64 = 10;
/// Accesses in the small queue that lead to the main one.
const ACCESSES_TO_MAIN: u8 = 2;
/// Two bits count them.
const ACCESSES_MAX: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scan_leaves_what_was_read_twice() {
        let mut cache = S3Fifo::new(20);
        for _ in 0..3 {
            for key in 0..10 {
                let _ = cache.read(key, 1, 0);
            }
        }
        (100..200).for_each(|key| assert!(!cache.read(key, 1, 0)));
        assert!((0..10).all(|key| cache.read(key, 1, 0)));
        assert!(cache.small_held + cache.main_held <= 20);
    }
}
