//! A stripe under its lock: the store, what of it is published, and the loaders under way.
//!
//! Every method leaves store, region and flights in agreement, so that the lock may be let go at its end:
//! what the region holds for a key is what was written last, and a flight in the table has seen no write to its
//! key since it began.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::base::hash::{HashSeed, KeyHash};
use crate::base::limits;
use crate::base::time::Instant;
use crate::cache::{Put, Refused, Stats, Store};
use crate::embedded::error::InsertError;
use crate::embedded::flight::Flight;
use crate::embedded::value::Value;
use crate::l0::{Entry, Publisher, clock};

/// What a stripe's lock protects.
pub struct Owner {
    seed: HashSeed,
    store: Store<&'static mut [u8]>,
    publisher: Publisher<'static, AtomicU64>,
    flights: HashMap<Box<[u8]>, Arc<Flight>>,
    counts: Counts,
    /// When time-driven work was last done.
    tended_ms: u64,
    /// Hits until one is weighed against a full window.
    until_weighed: u32,
}

/// What has happened in a stripe under its lock.
#[derive(Clone, Copy, Default)]
pub struct Counts {
    pub hits: u64,
    pub misses: u64,
    pub inserts: u64,
}

/// What a caller who is ready to load finds.
pub enum Joined {
    /// The value.
    Found(Value),
    /// Somebody who loads it.
    Waits(Arc<Flight>),
    /// Nobody: the caller loads.
    Leads(Arc<Flight>),
}

impl Owner {
    pub fn new(seed: HashSeed, store: Store<&'static mut [u8]>, publisher: Publisher<'static, AtomicU64>) -> Owner {
        let (flights, counts) = (HashMap::new(), Counts::default());
        Owner { seed, store, publisher, flights, counts, tended_ms: 0, until_weighed: 1 }
    }

    /// Serves `key` from the store, and publishes it if it may.
    pub fn get(&mut self, hash: KeyHash, key: &[u8], now: Instant) -> Option<Value> {
        let Some(item) = self.store.get(hash, key, now) else {
            self.counts.misses += 1;
            return None;
        };
        self.counts.hits += 1;
        let (value, expires_ms) = (Value::from(item.value), item.expires.map_or(0, |at| at.ms));
        self.offer(&Entry { key, hash, value: &value, expires_ms }, now);
        Some(value)
    }

    /// Publishes an entry if its window has room or if it is hotter than another there.
    fn offer(&mut self, entry: &Entry<'_>, now: Instant) {
        self.until_weighed -= 1;
        let is_weighed = self.until_weighed == 0;
        if is_weighed {
            self.until_weighed = limits::EMBEDDED_WEIGHED_SHARE;
        }
        let (store, seed) = (&self.store, self.seed);
        self.publisher.publish(entry, |key| match key == entry.key {
            // Asked first, and only where the window is full: what has no heat displaces nobody.
            true if !is_weighed => 0.0,
            true => store.hotness(entry.hash, key, now),
            false => store.hotness(seed.hash(key), key, now),
        });
    }

    /// Stores a value.
    pub fn insert(
        &mut self,
        hash: KeyHash,
        key: &[u8],
        value: &[u8],
        expires: Option<Instant>,
        now: Instant,
    ) -> Result<(), InsertError> {
        self.tend(now);
        if !(1..=limits::KEY_BYTES_MAX).contains(&key.len()) {
            return Err(InsertError::KeyLength { bytes: key.len() });
        }
        match self.store.set(hash, key, Put { value, expires, ..Put::default() }, now) {
            Ok(_) => {}
            Err(Refused::TooLarge { bytes, bytes_max }) => return Err(InsertError::TooLarge { bytes, bytes_max }),
            Err(refused) => panic!("an unconditional write was refused: {refused}"),
        }
        self.publisher.written(&Entry { key, hash, value, expires_ms: expires.map_or(0, |at| at.ms) });
        self.counts.inserts += 1;
        self.disown_flight(key);
        Ok(())
    }

    /// Removes `key`. Answers whether readers could see it.
    pub fn remove(&mut self, hash: KeyHash, key: &[u8], now: Instant) -> bool {
        self.tend(now);
        // The store may have evicted what is still published.
        let was_published = self.publisher.region().read_with(hash, key, clock::is_over, |_, _| true).is_some();
        let was_stored = self.store.delete(hash, key, now);
        self.publisher.removed(hash, key);
        self.disown_flight(key);
        was_published || was_stored
    }

    /// Removes everything.
    pub fn clear(&mut self) {
        self.store.flush();
        self.publisher.flushed();
        self.flights.clear();
    }

    /// Whether `key` is stored. Counts nothing.
    pub fn contains(&mut self, hash: KeyHash, key: &[u8], now: Instant) -> bool {
        self.store.peek(hash, key, now).is_some()
    }

    /// Serves `key`, joins the flight that loads it, or begins one.
    pub fn get_or_join(&mut self, hash: KeyHash, key: &[u8], now: Instant) -> Joined {
        if let Some(value) = self.get(hash, key, now) {
            return Joined::Found(value);
        }
        if let Some(flight) = self.flights.get(key) {
            return Joined::Waits(Arc::clone(flight));
        }
        let flight = Arc::new(Flight::new());
        self.flights.insert(key.into(), Arc::clone(&flight));
        Joined::Leads(flight)
    }

    /// Ends `flight`: nobody joins it any more. Answers whether its value is still what the key's should be.
    pub fn end_flight(&mut self, key: &[u8], flight: &Arc<Flight>) -> bool {
        let is_there = self.flights.get(key).is_some_and(|there| Arc::ptr_eq(there, flight));
        if is_there {
            self.flights.remove(key);
        }
        is_there
    }

    fn disown_flight(&mut self, key: &[u8]) {
        if !self.flights.is_empty() {
            self.flights.remove(key);
        }
    }

    /// A reader has hit the entry in `slot`: counts it for the store, or clears it if the store has it no more.
    pub fn reported(&mut self, slot: u32, now: Instant) {
        let (store, seed) = (&mut self.store, self.seed);
        self.publisher.check(slot, |key| store.get(seed.hash(key), key, now).is_some());
    }

    /// Once a millisecond, a bounded part of the work that time brings.
    fn tend(&mut self, now: Instant) {
        if self.tended_ms != now.ms {
            self.tended_ms = now.ms;
            self.store.expire(now, limits::EMBEDDED_EXPIRE_SEGMENTS, limits::EMBEDDED_EXPIRE_ITEMS);
            self.publisher.sweep(limits::EMBEDDED_SWEEP_SLOTS);
        }
    }

    pub fn stats(&self) -> Stats {
        self.store.stats()
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    pub fn published(&self) -> u64 {
        self.publisher.published()
    }

    /// Recounts everything. Not under Miri, for which that takes minutes.
    #[cfg(test)]
    pub fn verify(&self) {
        if cfg!(miri) {
            return;
        }
        self.store.check().expect("the store agrees with itself");
        self.publisher.verify(|key| self.seed.hash(key));
    }
}
