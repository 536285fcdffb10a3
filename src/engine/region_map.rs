//! The region map that every shard passes on to whoever asks: bytes, signed elsewhere, replaced as a whole.
//!
//! A shard waits for nobody. Whoever replaces the map holds the lock for the time of moving a pointer, but may lose its
//! core just then; a shard that comes at that moment answers *busy*, and the client asks again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, TryLockError};

/// The map, or its absence.
#[derive(Default)]
pub struct RegionMapBytes {
    bytes: RwLock<Option<Arc<[u8]>>>,
    is_set: AtomicBool,
}

/// What a shard finds.
#[derive(Debug)]
pub enum Look {
    /// This map.
    Map(Arc<[u8]>),
    /// Nobody has given one.
    None,
    /// It is being replaced this moment.
    BeingReplaced,
}

impl RegionMapBytes {
    /// Puts another map in place, or none.
    pub fn set(&self, bytes: Option<&[u8]>) {
        *self.bytes.write().unwrap_or_else(PoisonError::into_inner) = bytes.map(Arc::from);
        self.is_set.store(bytes.is_some(), Ordering::Relaxed);
    }

    /// Whether there is one.
    pub fn is_set(&self) -> bool {
        self.is_set.load(Ordering::Relaxed)
    }

    /// What there is now. Never waits.
    pub fn get(&self) -> Look {
        let found = match self.bytes.try_read() {
            Ok(bytes) => bytes.clone(),
            Err(TryLockError::Poisoned(bytes)) => bytes.into_inner().clone(),
            Err(TryLockError::WouldBlock) => return Look::BeingReplaced,
        };
        found.map_or(Look::None, Look::Map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_found_until_it_is_replaced_and_a_look_never_waits() {
        let map = RegionMapBytes::default();
        assert!(matches!(map.get(), Look::None) && !map.is_set());
        for bytes in [b"one".as_slice(), b"two"] {
            map.set(Some(bytes));
            assert!(matches!(map.get(), Look::Map(found) if *found == *bytes));
        }
        assert!(map.is_set());
        let replacing = map.bytes.write().unwrap();
        assert!(matches!(map.get(), Look::BeingReplaced));
        drop(replacing);
        map.set(None);
        assert!(matches!(map.get(), Look::None) && !map.is_set());
    }
}
