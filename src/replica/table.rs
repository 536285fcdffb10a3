//! A table of 32-byte slots, as large from the start as it will ever be.
//!
//!   | hash | check | first | second |   a slot; `first` is zero in an empty one
//!
//! A shard must not stop to move a million entries, which is what a growing map does when it is full, and what one with
//! markers for removed entries does now and then. So there is one allocation, whose pages are touched as they are used;
//! linear probing from a home that the upper bits of `check` choose; and removal that moves followers back into the gap
//! instead of leaving a marker. Because the home is the upper bits, all entries of a 256th part of the keys lie in a
//! 256th part of the table: whoever compares a bucket reads nothing else.

use crate::base::hash::HashSeed;

/// A key's name among sites: 128 bits of two hashes under the seed that all nodes of a cluster share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct KeyId {
    /// The hash by which the key is routed and stored.
    pub hash: u64,
    /// Another one, by which it is told from others of the same hash.
    pub check: u64,
}

impl KeyId {
    /// The name of a key, whose hash is known.
    #[inline]
    pub fn new(seed: HashSeed, hash: u64, key: &[u8]) -> KeyId {
        // Any other seed will do, as long as it is the same everywhere.
        KeyId { hash, check: HashSeed(seed.0 ^ 0x9e37_79b9_7f4a_7c15).hash(key).0 }
    }

    /// Its bucket of digests.
    #[inline]
    pub fn bucket(self) -> u8 {
        (self.check >> 56) as u8
    }
}

/// The table.
pub struct Table {
    slots: Vec<[u64; 4]>,
    shift: u32,
    used: usize,
}

impl Table {
    /// A table for `entries` entries, of which it uses three quarters of its slots at most.
    pub fn new(entries: usize) -> Table {
        let slots = (entries.max(256) * 4).div_ceil(3).next_power_of_two();
        Table { slots: vec![[0; 4]; slots], shift: 64 - slots.trailing_zeros(), used: 0 }
    }

    /// What is kept under a name.
    #[inline]
    pub fn get(&self, id: KeyId) -> Option<[u64; 2]> {
        let slot = self.slots[self.find(id).ok()?];
        Some([slot[2], slot[3]])
    }

    /// Keeps something under a name. Answers what it replaces, or that there is no room for a new one.
    #[inline]
    pub fn insert(&mut self, id: KeyId, entry: [u64; 2]) -> Result<Option<[u64; 2]>, Full> {
        debug_assert!(entry[0] != 0, "zero is an empty slot");
        let new = [id.hash, id.check, entry[0], entry[1]];
        match self.find(id) {
            Ok(at) => {
                let old = std::mem::replace(&mut self.slots[at], new);
                Ok(Some([old[2], old[3]]))
            }
            Err(_) if self.used >= self.capacity() => Err(Full),
            Err(at) => {
                self.slots[at] = new;
                self.used += 1;
                Ok(None)
            }
        }
    }

    /// Forgets a name. Answers what was kept under it.
    pub fn remove(&mut self, id: KeyId) -> Option<[u64; 2]> {
        let at = self.find(id).ok()?;
        let slot = self.slots[at];
        self.remove_at(at);
        Some([slot[2], slot[3]])
    }

    /// Removes what `is_dead` says, among `count` slots from `from` on. Answers where to go on.
    pub fn sweep(&mut self, from: usize, count: usize, mut is_dead: impl FnMut([u64; 2]) -> bool) -> usize {
        let mut at = from & (self.slots.len() - 1);
        for _ in 0..count {
            // What follows moves into the gap and is looked at as well.
            while self.slots[at][2] != 0 && is_dead([self.slots[at][2], self.slots[at][3]]) {
                self.remove_at(at);
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
        at
    }

    /// All entries whose name is in a bucket.
    pub fn of_bucket(&self, bucket: u8, mut visit: impl FnMut(KeyId, [u64; 2])) {
        let share = self.slots.len() >> 8;
        let mut at = bucket as usize * share;
        let mut seen = 0;
        // Beyond the bucket's own part there may be some that found it full, up to the first gap.
        while seen < share || (seen < self.slots.len() && self.slots[at][2] != 0) {
            let [hash, check, first, second] = self.slots[at];
            let id = KeyId { hash, check };
            if first != 0 && id.bucket() == bucket {
                visit(id, [first, second]);
            }
            at = (at + 1) & (self.slots.len() - 1);
            seen += 1;
        }
    }

    /// All entries.
    pub fn for_each(&self, mut visit: impl FnMut(KeyId, [u64; 2])) {
        for [hash, check, first, second] in self.slots.iter().filter(|slot| slot[2] != 0) {
            visit(KeyId { hash: *hash, check: *check }, [*first, *second]);
        }
    }

    /// Entries.
    pub fn used(&self) -> usize {
        self.used
    }

    /// Entries it has room for.
    pub fn capacity(&self) -> usize {
        self.slots.len() / 4 * 3
    }

    /// Slots.
    pub fn slot_count(&self) -> usize {
        self.slots.len()
    }

    /// Recounts.
    pub fn check(&self) -> Result<(), String> {
        let mut count = 0;
        for (at, slot) in self.slots.iter().enumerate().filter(|(_, slot)| slot[2] != 0) {
            count += 1;
            let id = KeyId { hash: slot[0], check: slot[1] };
            if self.find(id) != Ok(at) {
                return Err(format!("{id:?} at {at} is not found from its home {}", self.home(id)));
            }
        }
        if count == self.used { Ok(()) } else { Err(format!("{count} entries, {} counted", self.used)) }
    }

    #[inline]
    fn home(&self, id: KeyId) -> usize {
        (id.check >> self.shift) as usize
    }

    /// Where a name is, or where it would go. A quarter of the slots is empty, so there is an end.
    #[inline]
    fn find(&self, id: KeyId) -> Result<usize, usize> {
        let mut at = self.home(id);
        loop {
            let slot = &self.slots[at];
            if slot[2] == 0 {
                return Err(at);
            }
            if slot[1] == id.check && slot[0] == id.hash {
                return Ok(at);
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }

    fn remove_at(&mut self, gap: usize) {
        let mask = self.slots.len() - 1;
        let (mut gap, mut at) = (gap, gap);
        loop {
            at = (at + 1) & mask;
            let slot = self.slots[at];
            if slot[2] == 0 {
                break;
            }
            // It may move back if its home does not lie between the gap and itself.
            let home = self.home(KeyId { hash: slot[0], check: slot[1] });
            if (at.wrapping_sub(home) & mask) >= (at.wrapping_sub(gap) & mask) {
                self.slots[gap] = slot;
                gap = at;
            }
        }
        self.slots[gap] = [0; 4];
        self.used -= 1;
    }
}

/// There is no room for another entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::base::prng::Prng;

    #[test]
    fn it_is_a_map_whatever_is_inserted_removed_and_swept() {
        let mut prng = Prng::new(3);
        for round in 0..20 {
            let mut table = Table::new(256);
            let mut model = BTreeMap::new();
            for step in 0..4_000u64 {
                // Few homes, so that probes are long and wrap around the end.
                let id = KeyId { hash: prng.below(40), check: prng.below(8) << 61 | prng.below(2) };
                match prng.below(4) {
                    0 => assert_eq!(table.remove(id), model.remove(&id)),
                    _ if model.len() >= table.capacity() && !model.contains_key(&id) => {
                        assert_eq!(table.insert(id, [1, 1]), Err(Full));
                    }
                    _ => assert_eq!(table.insert(id, [step + 1, round]), Ok(model.insert(id, [step + 1, round]))),
                }
                if step % 500 == 499 {
                    table.sweep(prng.below(500) as usize, table.slot_count(), |entry| entry[0] % 3 == 0);
                    model.retain(|_, entry| entry[0] % 3 != 0);
                }
                assert_eq!(table.get(id), model.get(&id).copied());
            }
            table.check().unwrap();
            let mut all = BTreeMap::new();
            for bucket in 0..=255 {
                table.of_bucket(bucket, |id, entry| assert!(all.insert(id, entry).is_none()));
            }
            assert_eq!(all, model);
        }
    }
}
