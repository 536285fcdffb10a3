//! One trace, one capacity, one policy: counts.

use std::time::Instant as WallInstant;

use serde::Serialize;

use crate::learn::Lru;
use crate::replay::ReadThrough;
use crate::replay::s3fifo::S3Fifo;
use crate::replay::store::StoreCache;
use crate::replay::tinylfu::WTinyLfu;
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
    /// S3-FIFO.
    S3Fifo,
    /// W-TinyLFU.
    WTinyLfu,
}

impl Policy {
    /// The name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Policy::Learned => "learned",
            Policy::Lru => "lru",
            Policy::S3Fifo => "s3fifo",
            Policy::WTinyLfu => "w-tinylfu",
        }
    }
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
    replay_from(name, trace, capacity, policy, charge, None).map(|(report, _)| report)
}

/// Replays `trace` with a policy that starts from what another has learned. Also answers what this one
/// has learned in the end, if it is one that learns.
pub fn replay_from(
    name: &str,
    trace: &Trace,
    capacity: Capacity,
    policy: Policy,
    charge: Charge,
    learned: Option<&[u8]>,
) -> Result<(Report, Option<Vec<u8>>), String> {
    let units = capacity.units(trace, charge)?;
    let mut cache = new_cache(policy, charge, units, trace)?;
    if let Some(learned) = learned {
        cache.load_learned(learned)?;
    }
    let started = WallInstant::now();
    let (mut misses, mut missed_bytes, mut requested_bytes) = (0u64, 0u64, 0u64);
    for request in &trace.requests {
        requested_bytes += u64::from(request.size);
        if !cache.read(request.key, request.size, request.second) {
            misses += 1;
            missed_bytes += u64::from(request.size);
        }
    }
    let elapsed_ns = started.elapsed().as_nanos();
    let requests = trace.requests.len() as f64;
    let report = Report {
        trace: name.to_string(),
        policy: policy.name(),
        capacity: units,
        requests: trace.requests.len() as u64,
        misses,
        miss_ratio: misses as f64 / requests,
        byte_miss_ratio: missed_bytes as f64 / requested_bytes as f64,
        ns_per_request: elapsed_ns as f64 / requests,
        structure_bytes_per_entry: cache.structure_bytes_per_entry(),
    };
    Ok((report, cache.save_learned()))
}

impl Capacity {
    /// In the trace's unit (objects, or bytes where it has sizes), or in bytes where everything is charged.
    pub(super) fn units(self, trace: &Trace, charge: Charge) -> Result<u64, String> {
        let units = match (self, charge) {
            (Capacity::Share(share), _) => ((trace.footprint() as f64 * share).round() as u64).max(1),
            (Capacity::Objects(_), Charge::Payload) if !trace.is_unsized => {
                return Err(
                    "this trace has object sizes: give the capacity in bytes (16MiB, 4096B) or as a share (1%)".into(),
                );
            }
            (Capacity::Bytes(_), Charge::Payload) if trace.is_unsized => {
                return Err(
                    "this trace has no object sizes: give the capacity in objects (5000) or as a share (1%)".into()
                );
            }
            (Capacity::Objects(_), Charge::All) => {
                return Err(
                    "charging everything counts bytes: give the capacity in bytes (16MiB, 4096B) or as a share (1%)"
                        .into(),
                );
            }
            (Capacity::Objects(units) | Capacity::Bytes(units), _) => units,
        };
        Ok(units)
    }
}

/// An empty cache of `units` for objects of this trace.
pub(super) fn new_cache(
    policy: Policy,
    charge: Charge,
    units: u64,
    trace: &Trace,
) -> Result<Box<dyn ReadThrough>, String> {
    Ok(match (policy, charge) {
        (Policy::Learned, Charge::All) => Box::new(StoreCache::of_memory(units)?),
        (_, Charge::All) => {
            let name = policy.name();
            return Err(format!("{name} is here for comparison and counts payload: use --charge payload"));
        }
        (Policy::Learned, Charge::Payload) => {
            let objects_max = if trace.is_unsized { units.min(trace.unique) } else { trace.unique };
            Box::new(StoreCache::of_payload(units, objects_max))
        }
        (Policy::Lru, Charge::Payload) => Box::new(Lru::new(units)),
        (Policy::S3Fifo, Charge::Payload) => Box::new(S3Fifo::new(units)),
        (Policy::WTinyLfu, Charge::Payload) => Box::new(WTinyLfu::new(units)),
    })
}
