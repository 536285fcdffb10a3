//! Everything of a shard that a request about a key may touch: the entries, and who is to hear of a change.

use std::ops::DerefMut;
use std::sync::Arc;

use crate::base::hash::KeyHash;
use crate::base::time::Instant;
use crate::cache::Store;
use crate::engine::interest::Interest;
use crate::engine::l0::L0;
use crate::engine::memcached::Observer;
use crate::engine::replica::{Counting, Replication};
use crate::engine::resp::tracking::Tracking;
use crate::engine::resp::watch::Watches;
use crate::engine::tenants::Tenants;
use crate::wire::Expiry;

/// A shard's entries, and who is to hear of a change.
pub struct Keys<M> {
    pub store: Store<M>,
    /// What is published in shared memory, if anything is.
    pub l0: Option<Box<L0>>,
    /// Near caches.
    pub interest: Interest,
    /// Keys that transactions wait on.
    pub watches: Watches,
    /// Clients' caches of RESP.
    pub tracking: Tracking,
    /// Who counts the use of keys by prefix, if anybody asked for that (memcached).
    pub observer: Option<Arc<Observer>>,
    /// Who counts the use of keys by tenant, if there are several.
    pub tenants: Option<Box<Tenants>>,
    /// What other sites are told, if there are any. Reads never look at it.
    pub replication: Option<Box<Replication>>,
    /// The time of this turn.
    pub now: Instant,
    /// Unix time in milliseconds when the shard's clock was zero.
    pub unix_zero_ms: i64,
    /// The client whose command is being done, where somebody asks (RESP); else 0.
    pub client: u64,
}

impl<M: DerefMut<Target = [u8]>> Keys<M> {
    /// A key is no longer what it was.
    #[inline]
    pub fn changed(&mut self, hash: KeyHash, key: &[u8]) {
        self.tell_readers(hash, key);
        if self.replication.is_some() {
            self.replicate(hash, key, None);
        }
    }

    /// A number is about to be counted. If other sites count it too it must be here, also if it was evicted.
    #[inline]
    pub fn about_to_count(&mut self, hash: KeyHash, key: &[u8]) -> Counting {
        if self.replication.is_some() { self.recall(hash, key) } else { Counting::default() }
    }

    /// It was; `is_initial` if it was begun at a number of its own.
    #[inline]
    pub fn counted(&mut self, hash: KeyHash, key: &[u8], counting: Counting, is_initial: bool) {
        self.tell_readers(hash, key);
        if self.replication.is_some() {
            self.replicate(hash, key, Some(counting.count(is_initial)));
        }
    }

    /// A key had to make room. That is nobody else's business.
    pub fn evicted(&mut self, hash: KeyHash, key: &[u8]) {
        self.tell_readers(hash, key);
    }

    /// Whoever has read a key is told that it is no longer what it was.
    #[inline]
    fn tell_readers(&mut self, hash: KeyHash, key: &[u8]) {
        self.interest.changed(hash);
        if !self.watches.is_empty() {
            self.watches.changed(hash);
        }
        if !self.tracking.is_idle() {
            self.tracking.changed(hash, key, self.client);
            if self.tracking.wants_expiries()
                && let Some(expires) = self.store.peek(hash, key, self.now).and_then(|item| item.expires)
            {
                self.tracking.note_expiry(hash, key, expires);
            }
        }
    }

    /// Somebody wants a key gone that is not here: it may have been evicted, and clients hold it still, or other sites.
    pub fn missed(&mut self, hash: KeyHash, key: &[u8]) {
        self.interest.changed(hash);
        if !self.tracking.is_idle() {
            self.tracking.tell_readers(hash, self.client);
        }
        if self.replication.is_some() {
            self.replicate(hash, key, None);
        }
    }

    /// Removes everything, here: to other sites it is as if all had been evicted. To empty a namespace everywhere the
    /// cluster must agree on it.
    pub fn flush(&mut self) {
        self.store.flush();
        if let Some(l0) = &mut self.l0 {
            l0.flushed();
        }
        self.interest.all_changed();
        self.tracking.all_changed();
    }

    /// The moment an expiry means; `before` is the present one.
    #[inline]
    pub fn resolve(&self, expiry: Expiry, before: Option<Instant>) -> Option<Instant> {
        match expiry {
            Expiry::Keep => before,
            Expiry::Never => None,
            Expiry::In(ms) => Some(self.now.after_ms(ms)),
            Expiry::At(unix_ms) => Some(self.moment(unix_ms)),
            Expiry::Senseless { .. } => before,
        }
    }

    /// Unix time in milliseconds.
    pub fn unix_ms(&self) -> i64 {
        self.unix_zero_ms + self.now.ms as i64
    }

    /// A moment of Unix time on the shard's clock; what has passed is now.
    pub fn moment(&self, unix_ms: i64) -> Instant {
        let ms = unix_ms.saturating_sub(self.unix_zero_ms);
        self.now.max(Instant::from_ms(0).after_ms(u64::try_from(ms).unwrap_or(0)))
    }

    /// A moment of the shard's clock in Unix time.
    pub fn unix_of(&self, moment: Instant) -> i64 {
        self.unix_zero_ms.saturating_add(moment.ms as i64)
    }
}
