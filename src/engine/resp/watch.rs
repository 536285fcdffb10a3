//! Keys that transactions wait on: WATCH.
//!
//! For each key that anybody watches a shard keeps how often it has changed. WATCH is told that number and whether the
//! key is there; EXEC goes ahead if neither has become another. Nothing is kept of keys that nobody watches, and a
//! shard where nobody watches pays one comparison for a write.

use std::collections::HashMap;

use crate::base::hash::{BuildMix, KeyHash};
use crate::base::limits;

/// The watched keys of one shard.
#[derive(Default)]
pub struct Watches {
    by_hash: HashMap<u64, Watched, BuildMix>,
    /// Numbers of changes begin here, and no key gets one that another time of watching it had.
    changes: u64,
}

struct Watched {
    watchers: u32,
    changes: u64,
}

impl Watches {
    /// Whether nobody watches anything.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.by_hash.is_empty()
    }

    /// Begins to watch a key that is there or not. Answers what [`Watches::is_unchanged`] wants to be told; `None` if
    /// too many keys are watched.
    pub fn watch(&mut self, hash: KeyHash, is_there: bool) -> Option<u64> {
        if self.by_hash.len() >= limits::WATCHED_KEYS_MAX && !self.by_hash.contains_key(&hash.0) {
            return None;
        }
        self.changes += 1;
        let changes = self.changes;
        let watched = self.by_hash.entry(hash.0).or_insert(Watched { watchers: 0, changes });
        watched.watchers += 1;
        Some(watched.changes << 1 | u64::from(is_there))
    }

    /// Ends one watch.
    pub fn unwatch(&mut self, hash: KeyHash) {
        if let Some(watched) = self.by_hash.get_mut(&hash.0) {
            watched.watchers -= 1;
            if watched.watchers == 0 {
                self.by_hash.remove(&hash.0);
            }
        }
    }

    /// Whether a key is as it was when [`Watches::watch`] answered `token`.
    pub fn is_unchanged(&self, hash: KeyHash, token: u64, is_there: bool) -> bool {
        self.by_hash.get(&hash.0).is_some_and(|watched| watched.changes << 1 | u64::from(is_there) == token)
    }

    /// A key has changed.
    pub fn changed(&mut self, hash: KeyHash) {
        if let Some(watched) = self.by_hash.get_mut(&hash.0) {
            self.changes += 1;
            watched.changes = self.changes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_seen_by_everybody_who_watched_before_it() {
        let mut watches = Watches::default();
        let (key, other) = (KeyHash(5), KeyHash(6));
        let first = watches.watch(key, true).unwrap();
        watches.changed(other);
        assert!(watches.is_unchanged(key, first, true) && !watches.is_unchanged(key, first, false));
        watches.changed(key);
        let second = watches.watch(key, true).unwrap();
        assert!(!watches.is_unchanged(key, first, true) && watches.is_unchanged(key, second, true));
        watches.unwatch(key);
        assert!(watches.is_unchanged(key, second, true));
        watches.unwatch(key);
        assert!(watches.is_empty() && !watches.is_unchanged(key, second, true));
        let third = watches.watch(key, true).unwrap();
        assert!(third != first && third != second, "a token of an earlier time means nothing");
    }

    #[test]
    fn the_number_of_watched_keys_is_bounded() {
        let mut watches = Watches::default();
        for number in 0..limits::WATCHED_KEYS_MAX as u64 {
            assert!(watches.watch(KeyHash(number), false).is_some());
        }
        assert!(watches.watch(KeyHash(u64::MAX), false).is_none() && watches.watch(KeyHash(1), false).is_some());
    }
}
