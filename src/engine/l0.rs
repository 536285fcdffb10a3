//! What a shard publishes for readers in shared memory, and what it hears from them.
//!
//!   GET hit ─ one in four ─> offer ─ hot enough? ─> published
//!   SET, DEL, INCR, TOUCH, FLUSH ─> rewritten or cleared, and only then answered
//!   readers' reports ─ every millisecond ─> counted in the store as requests
//!
//! A key belongs to the tenant with the longest prefix that it begins with; keys of no tenant are not
//! published. Each tenant has a table of its own, so no reader maps what is another's.

use std::ops::DerefMut;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::base::hash::{HashSeed, KeyHash};
use crate::base::id::ShardId;
use crate::base::limits;
use crate::base::prng::Prng;
use crate::base::time::Instant;
use crate::cache::Store;
use crate::host::shared::SharedMemory;
use crate::l0::layout::RegionEntry;
use crate::l0::reports::Listener;
use crate::l0::{Entry, Publisher, alive, clock};
use crate::observe::ShardCounters;
use crate::observe::tenants::TenantCounters;

/// A shard's part of one tenant's table.
#[derive(Clone)]
pub struct TableParts {
    /// What the tenant's keys begin with.
    pub prefix: Vec<u8>,
    /// The file, and the shard's region in it.
    pub memory: &'static SharedMemory,
    /// See `memory`.
    pub entry: RegionEntry,
}

/// What a shard publishes in.
#[derive(Clone)]
pub struct Parts {
    /// Where it marks that it lives.
    pub alive: &'static SharedMemory,
    /// A table for each tenant.
    pub tables: Vec<TableParts>,
}

/// One reader's reports, shared by the door, which knows when it has gone, and the shards, which listen.
pub struct ReaderFile {
    /// The file.
    pub memory: SharedMemory,
    /// Its tenant.
    pub tenant: usize,
    /// The reader has gone.
    pub gone: AtomicBool,
}

/// A shard's side of L0.
pub struct L0 {
    shard: ShardId,
    seed: HashSeed,
    alive: &'static SharedMemory,
    /// By length of prefix, longest first, each with the number of its tenant.
    tables: Vec<(usize, Vec<u8>, Publisher<'static, AtomicU64>)>,
    readers: Vec<(Arc<ReaderFile>, Listener)>,
    /// CLOCK_MONOTONIC when the shard's own clock was zero.
    clock_zero_ms: u64,
    hits_to_candidate: u32,
    prng: Prng,
    candidates_left: u32,
}

impl L0 {
    /// Begins to publish. Called on the shard's own thread, which is marked as alive until it ends.
    pub fn new(parts: Parts, shard: ShardId, seed: HashSeed, started: std::time::Instant) -> std::io::Result<L0> {
        let mut tables: Vec<_> = parts
            .tables
            .into_iter()
            .enumerate()
            .map(|(tenant, table)| (tenant, table.prefix, Publisher::new(table.entry.region(table.memory.words()))))
            .collect();
        tables.sort_by_key(|(_, prefix, _)| std::cmp::Reverse(prefix.len()));
        alive::mark(parts.alive.words(), shard.0)?;
        // Rounded down: nothing is served longer in shared memory than in the shard.
        let clock_zero_ms = clock::now_ms() - started.elapsed().as_millis() as u64 - 1;
        Ok(L0 {
            shard,
            seed,
            alive: parts.alive,
            tables,
            readers: Vec::new(),
            clock_zero_ms,
            hits_to_candidate: 1,
            prng: Prng::new(seed.0),
            candidates_left: limits::L0_CANDIDATES_PER_MS,
        })
    }

    /// Listens to one more reader.
    pub fn listen_to(&mut self, reader: Arc<ReaderFile>) {
        self.readers.push((reader, Listener::default()));
    }

    /// Nothing more is published, and readers are told.
    pub fn end(&mut self) {
        alive::unmark(self.alive.words(), self.shard.0);
    }

    /// A key has got another value.
    #[inline]
    pub fn written(&mut self, hash: KeyHash, key: &[u8], value: &[u8], expires: Option<Instant>) {
        let expires_ms = self.monotonic(expires);
        if let Some(publisher) = self.table(key) {
            publisher.written(&Entry { key, hash, value, expires_ms });
        }
    }

    /// A key is gone.
    #[inline]
    pub fn removed(&mut self, hash: KeyHash, key: &[u8]) {
        if let Some(publisher) = self.table(key) {
            publisher.removed(hash, key);
        }
    }

    /// A key expires at another time.
    pub fn touched(&mut self, hash: KeyHash, key: &[u8], expires: Option<Instant>) {
        let expires_ms = self.monotonic(expires);
        if let Some(publisher) = self.table(key) {
            publisher.touched(hash, key, expires_ms);
        }
    }

    /// Everything is gone.
    pub fn flushed(&mut self) {
        self.tables.iter_mut().for_each(|(_, _, publisher)| publisher.flushed());
    }

    /// Counts a hit. Answers whether its key is to be offered.
    #[inline]
    pub fn is_candidate(&mut self) -> bool {
        self.hits_to_candidate -= 1;
        if self.hits_to_candidate > 0 {
            return false;
        }
        // Never in step with what a client does: of two keys read by turns every second hit is the same one's.
        let spread = u64::from(2 * limits::L0_CANDIDATE_SHARE - 1);
        self.hits_to_candidate = 1 + (self.prng.next_u64() % spread) as u32;
        true
    }

    /// Publishes a key that was asked for, if it is hotter than what would have to go.
    pub fn offer<M: DerefMut<Target = [u8]>>(&mut self, store: &mut Store<M>, hash: KeyHash, key: &[u8], now: Instant) {
        if self.candidates_left == 0 {
            return;
        }
        let (seed, zero) = (self.seed, self.clock_zero_ms);
        let Some(publisher) = self.table(key) else { return };
        if publisher.has(hash, key) {
            return;
        }
        let Some(item) = store.peek(hash, key, now) else { return };
        let (expires, length) = (item.expires, item.value.len());
        if !Publisher::<AtomicU64>::fits(key.len(), length) {
            return;
        }
        let mut value = [0u8; limits::L0_VALUE_BYTES_MAX];
        value[..length].copy_from_slice(item.value);
        let expires_ms = expires.map_or(0, |at| zero + at.ms);
        let entry = Entry { key, hash, value: &value[..length], expires_ms };
        publisher.publish(&entry, |key| store.hotness(seed.hash(key), key, now));
        self.candidates_left -= 1;
    }

    /// Hears what readers report, once a millisecond, and clears what flushes have left.
    pub fn housekeep<M: DerefMut<Target = [u8]>>(
        &mut self,
        store: &mut Store<M>,
        counters: &ShardCounters,
        tenants: Option<&TenantCounters>,
        now: Instant,
    ) {
        self.candidates_left = limits::L0_CANDIDATES_PER_MS;
        let (seed, shard) = (self.seed, self.shard.0);
        // Those that had gone before are heard once more: their last words are in the file.
        let gone: Vec<bool> = self.readers.iter().map(|(reader, _)| reader.gone.load(Ordering::Acquire)).collect();
        for (reader, listener) in &mut self.readers {
            let Some((_, _, publisher)) = self.tables.iter_mut().find(|(tenant, ..)| *tenant == reader.tenant) else {
                continue;
            };
            let hits = listener.listen(reader.memory.words(), shard, limits::L0_REPORTS_PER_MS, |slot| {
                // An entry that is read here is asked for; one that has left the shard leaves here too.
                publisher.check(slot, |key| store.get(seed.hash(key), key, now).is_some());
            });
            counters.l0_hits.add(hits);
            if let Some(tenant) = tenants.and_then(|tenants| tenants.tenants().get(reader.tenant)) {
                tenant.l0_hits.add(hits);
            }
        }
        let mut gone = gone.into_iter();
        self.readers.retain(|_| !gone.next().unwrap_or(false));
        for (number, _, publisher) in &mut self.tables {
            publisher.sweep(limits::L0_SWEEP_SLOTS_PER_MS);
            if let Some(tenant) = tenants.and_then(|tenants| tenants.tenants().get(*number)) {
                tenant.l0_entries.set(publisher.published());
            }
        }
        counters.l0_readers.set(self.readers.len() as u64);
        counters.l0_published.set(self.tables.iter().map(|(_, _, publisher)| publisher.published()).sum());
    }

    #[inline]
    fn table(&mut self, key: &[u8]) -> Option<&mut Publisher<'static, AtomicU64>> {
        let mut tables = self.tables.iter_mut();
        tables.find(|(_, prefix, _)| key.starts_with(prefix)).map(|(_, _, publisher)| publisher)
    }

    fn monotonic(&self, expires: Option<Instant>) -> u64 {
        expires.map_or(0, |at| (self.clock_zero_ms + at.ms).min(limits::EXPIRY_MS_MAX))
    }
}
