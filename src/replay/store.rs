//! The shard's own store behind the face that replays use.

use crate::base::hash::HashSeed;
use crate::base::limits;
use crate::base::time::Instant;
use crate::cache::{Accounting, Config, Put, Store};
use crate::engine::budget::Budget;
use crate::replay::ReadThrough;

/// A store that is read through. The key is the trace's, as eight bytes; the value has the rest of the
/// size, or nothing where only the charge counts.
pub struct StoreCache {
    store: Store<Vec<u8>>,
    value: Vec<u8>,
    is_charged: bool,
}

impl StoreCache {
    /// The store of a one-shard server with that much memory; below what a server accepts, an arena of
    /// just that size.
    pub fn of_memory(memory_bytes: u64) -> Result<StoreCache, String> {
        let arena = match Budget::new(memory_bytes, 1, false, 0) {
            Ok(budget) => budget.arena_bytes,
            Err(_) => memory_bytes,
        };
        let segment_bytes = Store::<Vec<u8>>::segment_bytes_for(arena);
        let segments = arena as usize / segment_bytes;
        if segments < limits::SEGMENT_COUNT_MIN {
            let least = limits::SEGMENT_COUNT_MIN * limits::SEGMENT_BYTES_MIN;
            return Err(format!("{arena} B is less than a store can be built in ({least} B)"));
        }
        Ok(StoreCache::new(segments, segment_bytes, Accounting::Memory))
    }

    /// A store whose bound is what items are charged: the arena is ample for `objects_max` items without
    /// their values.
    pub fn of_payload(capacity: u64, objects_max: u64) -> StoreCache {
        let arena = (objects_max * PAYLOAD_ITEM_BYTES).max(64 * 1024);
        let segment_bytes = Store::<Vec<u8>>::segment_bytes_for(arena / 4);
        let segments = (arena as usize / segment_bytes).max(limits::SEGMENT_COUNT_AIM) + 2 * PAYLOAD_SEGMENTS as usize;
        let segment = (capacity / PAYLOAD_SEGMENTS).max(1);
        StoreCache::new(segments, segment_bytes, Accounting::Payload { capacity, segment })
    }

    fn new(segments: usize, segment_bytes: usize, accounting: Accounting) -> StoreCache {
        let store = Store::new(vec![0; segments * segment_bytes], Config { segment_bytes, seed: SEED, accounting });
        let is_charged = accounting != Accounting::Memory;
        let value = vec![0; if is_charged { 0 } else { store.item_bytes_max() }];
        StoreCache { store, value, is_charged }
    }
}

impl ReadThrough for StoreCache {
    fn read(&mut self, key: u64, size: u32, second: u32) -> bool {
        let key = key.to_le_bytes();
        let (hash, now) = (SEED.hash(&key), Instant::from_ms(u64::from(second) * 1000));
        if self.store.get(hash, &key, now).is_some() {
            return true;
        }
        let value_len = if self.is_charged { 0 } else { (size as usize).saturating_sub(key.len()) };
        let put = Put {
            value: &self.value[..value_len.min(self.value.len())],
            charge: self.is_charged.then_some(size),
            ..Put::default()
        };
        // Too large for the cache: it passes by, as it would in the appliance.
        let _ = self.store.set(hash, &key, put, now);
        false
    }

    fn structure_bytes_per_entry(&self) -> f64 {
        let stats = self.store.stats();
        (stats.used_bytes as f64 - stats.payload_bytes as f64) / stats.entries.max(1) as f64
    }

    fn save_learned(&self) -> Option<Vec<u8>> {
        Some(self.store.save_learned())
    }

    fn load_learned(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.store.load_learned(bytes, 1.0).map_err(|error| error.to_string())
    }
}

/// Replays hash with a fixed seed: the same trace gives the same count every time.
const SEED: HashSeed = HashSeed(0);
/// Header, charge, key and index of an item whose value is not stored, doubled.
const PAYLOAD_ITEM_BYTES: u64 = 2 * (5 + 4 + 8 + 16);
/// Segments that a capacity is cut into when only payload is charged.
const PAYLOAD_SEGMENTS: u64 = 100;
