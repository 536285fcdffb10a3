//! One trace, one capacity, one policy: counts.

use std::time::Instant as WallInstant;

use serde::Serialize;

use crate::base::hash::HashSeed;
use crate::base::limits;
use crate::base::time::Instant;
use crate::cache::{Accounting, Config, Put, Store};
use crate::engine::budget::Budget;
use crate::learn::Lru;
use crate::trace::Trace;

/// How much the cache may hold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Capacity {
    /// So many objects.
    Objects(u64),
    /// So many bytes.
    Bytes(u64),
    /// This share of the trace's footprint (objects, or bytes where the trace has sizes).
    Share(f64),
}

/// What counts against it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charge {
    /// Keys and values only, as published simulations count.
    Payload,
    /// Everything a server with `--memory` of that size holds.
    All,
}

/// Which policy decides who leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// The appliance's own.
    Learned,
    /// Exact LRU.
    Lru,
}

/// What a replay prints.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The trace's name.
    pub trace: String,
    /// The policy's name.
    pub policy: &'static str,
    /// The capacity in the trace's unit: bytes, or objects.
    pub capacity: u64,
    /// Requests replayed.
    pub requests: u64,
    /// Requests that were not served.
    pub misses: u64,
    /// `misses / requests`.
    pub miss_ratio: f64,
    /// Bytes of missed objects over bytes of requested ones.
    pub byte_miss_ratio: f64,
    /// Wall time per request of one thread that does nothing else.
    pub ns_per_request: f64,
    /// Bytes of the arena in use, less keys and values, over entries; 0 where nothing is stored.
    pub structure_bytes_per_entry: f64,
}

/// Replays `trace`. Errors are for people.
pub fn replay(name: &str, trace: &Trace, capacity: Capacity, policy: Policy, charge: Charge) -> Result<Report, String> {
    let footprint = if trace.is_unsized { trace.unique } else { trace.footprint_bytes };
    let units = match (capacity, charge) {
        (Capacity::Share(share), _) => ((footprint as f64 * share).round() as u64).max(1),
        (Capacity::Objects(_), Charge::Payload) if !trace.is_unsized => {
            return Err(
                "this trace has object sizes: give the capacity in bytes (16MiB, 4096B) or as a share (1%)".into()
            );
        }
        (Capacity::Bytes(_), Charge::Payload) if trace.is_unsized => {
            return Err("this trace has no object sizes: give the capacity in objects (5000) or as a share (1%)".into());
        }
        (Capacity::Objects(_), Charge::All) => {
            return Err(
                "charging everything counts bytes: give the capacity in bytes (16MiB, 4096B) or as a share (1%)".into(),
            );
        }
        (Capacity::Objects(units) | Capacity::Bytes(units), _) => units,
    };
    let counts = match (policy, charge) {
        (Policy::Lru, Charge::Payload) => through_lru(trace, units),
        (Policy::Lru, Charge::All) => {
            return Err("lru is the published yardstick and counts payload: use --charge payload".into());
        }
        (Policy::Learned, Charge::Payload) => through_store(trace, payload_store(trace, units), true),
        (Policy::Learned, Charge::All) => through_store(trace, memory_store(units)?, false),
    };
    let requested: u64 = trace.requests.iter().map(|request| u64::from(request.size)).sum();
    Ok(Report {
        trace: name.to_string(),
        policy: if policy == Policy::Lru { "lru" } else { "learned" },
        capacity: units,
        requests: trace.requests.len() as u64,
        misses: counts.misses,
        miss_ratio: counts.misses as f64 / trace.requests.len() as f64,
        byte_miss_ratio: counts.missed_bytes as f64 / requested as f64,
        ns_per_request: counts.elapsed_ns as f64 / trace.requests.len() as f64,
        structure_bytes_per_entry: counts.structure_bytes_per_entry,
    })
}

struct Counts {
    misses: u64,
    missed_bytes: u64,
    elapsed_ns: u128,
    structure_bytes_per_entry: f64,
}

fn through_lru(trace: &Trace, capacity: u64) -> Counts {
    let mut lru = Lru::new(capacity);
    let started = WallInstant::now();
    let (mut misses, mut missed_bytes) = (0, 0);
    for request in &trace.requests {
        if !lru.read(request.key, request.size) {
            misses += 1;
            missed_bytes += u64::from(request.size);
        }
    }
    Counts { misses, missed_bytes, elapsed_ns: started.elapsed().as_nanos(), structure_bytes_per_entry: 0.0 }
}

/// Reads through the store: a miss inserts. The key is the trace's, as eight bytes; the value has
/// the rest of the size, or nothing where only the charge counts.
fn through_store(trace: &Trace, mut store: Store<Vec<u8>>, charged: bool) -> Counts {
    let value = vec![0u8; limits::VALUE_BYTES_MAX];
    let value_bytes_max = store.item_bytes_max();
    let now = Instant::from_ms(0);
    let started = WallInstant::now();
    let (mut misses, mut missed_bytes) = (0, 0);
    for request in &trace.requests {
        let key = request.key.to_le_bytes();
        let hash = SEED.hash(&key);
        if store.get(hash, &key, now).is_some() {
            continue;
        }
        misses += 1;
        missed_bytes += u64::from(request.size);
        let value_len = if charged { 0 } else { (request.size as usize).saturating_sub(key.len()) };
        let put = Put {
            value: &value[..value_len.min(value_bytes_max)],
            charge: charged.then_some(request.size),
            ..Put::default()
        };
        // Too large for the cache: it passes by, as it would in the appliance.
        let _ = store.set(hash, &key, put, now);
    }
    let elapsed_ns = started.elapsed().as_nanos();
    let stats = store.stats();
    let structure = (stats.used_bytes as f64 - stats.payload_bytes as f64) / stats.entries.max(1) as f64;
    Counts { misses, missed_bytes, elapsed_ns, structure_bytes_per_entry: structure }
}

/// The store of a one-shard server with that much memory; below what a server accepts, an arena of
/// just that size.
fn memory_store(memory_bytes: u64) -> Result<Store<Vec<u8>>, String> {
    let arena = match Budget::new(memory_bytes, 1) {
        Ok(budget) => budget.arena_bytes,
        Err(_) => memory_bytes,
    };
    let segment_bytes = Store::<Vec<u8>>::segment_bytes_for(arena);
    let segments = arena as usize / segment_bytes;
    if segments < limits::SEGMENT_COUNT_MIN {
        let least = limits::SEGMENT_COUNT_MIN * limits::SEGMENT_BYTES_MIN;
        return Err(format!("{arena} B is less than a store can be built in ({least} B)"));
    }
    let config = Config { segment_bytes, seed: SEED, accounting: Accounting::Memory };
    Ok(Store::new(vec![0; segments * segment_bytes], config))
}

/// A store whose bound is the charge: the arena is ample for the items without their values.
fn payload_store(trace: &Trace, capacity: u64) -> Store<Vec<u8>> {
    let objects_max = if trace.is_unsized { capacity.min(trace.unique) } else { trace.unique };
    let arena = (objects_max * PAYLOAD_ITEM_BYTES).max(64 * 1024);
    let segment_bytes = Store::<Vec<u8>>::segment_bytes_for(arena / 4);
    let segments = (arena as usize / segment_bytes).max(limits::SEGMENT_COUNT_AIM) + 2 * PAYLOAD_SEGMENTS as usize;
    let segment = (capacity / PAYLOAD_SEGMENTS).max(1);
    let config = Config { segment_bytes, seed: SEED, accounting: Accounting::Payload { capacity, segment } };
    Store::new(vec![0; segments * segment_bytes], config)
}

/// Replays hash with a fixed seed: the same trace gives the same count every time.
const SEED: HashSeed = HashSeed(0);
/// Header, charge, key and index of an item whose value is not stored, doubled.
const PAYLOAD_ITEM_BYTES: u64 = 2 * (5 + 4 + 8 + 16);
/// Segments that a capacity is cut into when only payload is charged.
const PAYLOAD_SEGMENTS: u64 = 100;
