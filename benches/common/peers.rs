//! What people would use instead, each at its best for this comparison.
//!
//! - **quick_cache**: its variant without locks, and `quick_cache-sync`, the one that threads share
//! - **moka**: `sync::Cache`; maintenance happens inside its calls
//! - **segcache**: segments like ours, the merge eviction of its paper, segments of 1 MiB
//!
//! Keys are in line, values behind a pointer where the cache must own what it was given. Memory is what
//! malloc says is in use (`mallinfo2`), so headers and rounding count; segcache maps its heap and says
//! how large it is.

use std::sync::Arc;
use std::time::Duration;

use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};

use crate::common::subjects::{KEY_BYTES, Peer, VALUE_BYTES, ends};

type Key = [u8; KEY_BYTES];

/// Weighs an entry by its key and value.
#[derive(Clone)]
pub struct Bytes;

impl<V: AsRef<[u8]>> Weighter<Key, V> for Bytes {
    fn weight(&self, key: &Key, value: &V) -> u64 {
        (key.len() + value.as_ref().len()) as u64
    }
}

fn options(entries: usize) -> quick_cache::Options {
    OptionsBuilder::new()
        .estimated_items_capacity(entries)
        .weight_capacity((entries * (KEY_BYTES + VALUE_BYTES)) as u64)
        .build()
        .expect("both capacities are given")
}

/// A fixed hash, so that every round does the same.
pub struct QuickCache(quick_cache::unsync::Cache<Key, Box<[u8]>, Bytes, DefaultHashBuilder>);

impl QuickCache {
    pub fn new(entries: usize, hash_builder: DefaultHashBuilder) -> QuickCache {
        let lifecycle = quick_cache::unsync::DefaultLifecycle::default();
        QuickCache(quick_cache::unsync::Cache::with_options(options(entries), Bytes, hash_builder, lifecycle))
    }
}

impl Peer for QuickCache {
    const NAME: &'static str = "quick_cache";

    #[inline]
    fn get(&mut self, key: &Key) -> Option<(u64, u64)> {
        self.0.get(key).map(|value| ends(value))
    }

    #[inline]
    fn set(&mut self, key: &Key, value: &[u8; VALUE_BYTES]) {
        self.0.insert(*key, Box::from(&value[..]));
    }

    fn notes(&self) -> String {
        format!("{} entries", self.0.len())
    }
}

/// One shard, since one thread uses it.
pub struct QuickCacheSync(quick_cache::sync::Cache<Key, Arc<[u8]>, Bytes, DefaultHashBuilder>);

impl QuickCacheSync {
    pub fn new(entries: usize, hash_builder: DefaultHashBuilder) -> QuickCacheSync {
        let lifecycle = quick_cache::sync::DefaultLifecycle::default();
        QuickCacheSync(quick_cache::sync::Cache::with_options(options(entries), Bytes, hash_builder, lifecycle))
    }
}

impl Peer for QuickCacheSync {
    const NAME: &'static str = "quick_cache-sync";

    #[inline]
    fn get(&mut self, key: &Key) -> Option<(u64, u64)> {
        self.0.get(key).map(|value| ends(&value))
    }

    #[inline]
    fn set(&mut self, key: &Key, value: &[u8; VALUE_BYTES]) {
        self.0.insert(*key, Arc::from(&value[..]));
    }

    fn notes(&self) -> String {
        format!("{} entries", self.0.len())
    }
}

pub struct Moka(moka::sync::Cache<Key, Arc<[u8]>, DefaultHashBuilder>);

impl Moka {
    pub fn new(entries: usize, hash_builder: DefaultHashBuilder) -> Moka {
        let cache = moka::sync::Cache::builder()
            .initial_capacity(entries)
            .max_capacity((entries * (KEY_BYTES + VALUE_BYTES)) as u64)
            .weigher(|key: &Key, value: &Arc<[u8]>| (key.len() + value.len()) as u32)
            .build_with_hasher(hash_builder);
        Moka(cache)
    }
}

impl Peer for Moka {
    const NAME: &'static str = "moka";
    const KEEPS_ALL: bool = false;

    #[inline]
    fn get(&mut self, key: &Key) -> Option<(u64, u64)> {
        self.0.get(key).map(|value| ends(&value))
    }

    #[inline]
    fn set(&mut self, key: &Key, value: &[u8; VALUE_BYTES]) {
        self.0.insert(*key, Arc::from(&value[..]));
    }

    fn notes(&self) -> String {
        self.0.run_pending_tasks();
        format!("{} entries", self.0.entry_count())
    }
}

pub struct Segcache {
    cache: segcache::Segcache,
    bytes: usize,
}

impl Segcache {
    /// A heap of `bytes` less the hash table that `entries` entries need.
    pub fn new(bytes: usize, entries: usize) -> Segcache {
        // Seven items to a bucket of 64 bytes, as its documentation counts.
        let hash_power = (entries.div_ceil(7) * 8).next_power_of_two().trailing_zeros().max(7) as u8;
        let table = 1usize << (hash_power + 3);
        let segment = if bytes >= 64 << 20 { 1 << 20 } else { 64 << 10 };
        let heap = (bytes.saturating_sub(table) / segment).max(16) * segment;
        let policy = segcache::Policy::Merge { max: 8, merge: 4, compact: 2 };
        let cache = segcache::Segcache::builder()
            .hash_power(hash_power)
            .heap_size(heap)
            .segment_size(segment as i32)
            .eviction(policy)
            .build()
            .expect("the heap can be mapped");
        Segcache { cache, bytes: table + heap }
    }
}

impl Peer for Segcache {
    const NAME: &'static str = "segcache";
    const KEEPS_ALL: bool = false;

    #[inline]
    fn get(&mut self, key: &Key) -> Option<(u64, u64)> {
        let item = self.cache.get(key)?;
        match item.value() {
            segcache::Value::Bytes(value) => Some(ends(value)),
            _ => None,
        }
    }

    #[inline]
    fn set(&mut self, key: &Key, value: &[u8; VALUE_BYTES]) {
        // It may answer that nothing could be evicted just now; then the key stays away.
        let _ = self.cache.insert(key, &value[..], None, Duration::ZERO);
    }

    fn notes(&self) -> String {
        format!("{} MiB of heap and hash table", self.bytes >> 20)
    }
}

/// Bytes that malloc has handed out and not got back.
#[expect(unsafe_code, reason = "glibc's own account of its heap")]
pub fn malloc_bytes() -> usize {
    // SAFETY: mallinfo2 takes nothing and answers a structure of numbers.
    let info = unsafe { libc::mallinfo2() };
    info.uordblks + info.hblkhd
}
