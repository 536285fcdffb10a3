//! What the shards of a server share of memcached's protocol.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::engine::memcached::prefixes::Observer;

/// What the shards share of memcached's protocol.
pub struct MemcachedShared {
    /// When everything is to go, in milliseconds of the process's clock; [`NEVER`] if nobody asked for that.
    flush_at: AtomicU64,
    /// Whether the use of keys is counted by prefix.
    is_observed: AtomicBool,
    /// The counts.
    pub observer: Arc<Observer>,
    /// What counters stood at when they were last set back (`stats reset`).
    forgotten: Mutex<BTreeMap<&'static str, u64>>,
}

impl Default for MemcachedShared {
    fn default() -> MemcachedShared {
        MemcachedShared {
            flush_at: AtomicU64::new(NEVER),
            is_observed: AtomicBool::new(false),
            observer: Arc::default(),
            forgotten: Mutex::default(),
        }
    }
}

impl MemcachedShared {
    /// When everything is to go.
    pub fn flush_at(&self) -> u64 {
        self.flush_at.load(Ordering::Relaxed)
    }

    /// Says when everything is to go.
    pub fn set_flush_at(&self, ms: u64) {
        self.flush_at.store(ms, Ordering::Relaxed);
    }

    /// Whether the use of keys is counted by prefix.
    pub fn is_observed(&self) -> bool {
        self.is_observed.load(Ordering::Relaxed)
    }

    /// Begins to count the use of keys by prefix, or ends it.
    pub fn observe(&self, on: bool) {
        self.is_observed.store(on, Ordering::Relaxed);
    }

    /// What counters stood at when they were last set back.
    pub fn forgotten(&self) -> MutexGuard<'_, BTreeMap<&'static str, u64>> {
        self.forgotten.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// No moment of the process's clock.
pub const NEVER: u64 = u64::MAX;
