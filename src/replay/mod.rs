//! Replays a trace against caches alone: no sockets, no clock, the answer to "what miss ratio would
//! this memory give me", and how the appliance's policy stands beside published ones.
//!
//! Not for: speed figures of the appliance; `ns_per_request` here is one thread calling the cache.
//!
//! - `run`: a trace through a cache, under either way of charging
//! - `store`: the shard's own store as such a cache
//! - `s3fifo`, `tinylfu`: published policies; exact LRU is `learn::Lru`
//! - `mrc`: miss ratios over all capacities from one pass over a sample of the keys

mod mrc;
mod run;
mod s3fifo;
mod store;
mod tinylfu;

pub use mrc::{Curve, Point, curve};
pub use run::{Capacity, Charge, Policy, Report, replay, replay_from};

/// A cache that is read through: a miss inserts, unless the policy refuses.
pub trait ReadThrough {
    /// Reads the object `key` of `size` units at `second`. Answers "hit".
    fn read(&mut self, key: u64, size: u32, second: u32) -> bool;

    /// Bytes of memory in use beside keys and values, for each entry; zero where nothing is stored.
    fn structure_bytes_per_entry(&self) -> f64 {
        0.0
    }

    /// What was learned from the requests so far, for a policy that learns.
    fn save_learned(&self) -> Option<Vec<u8>> {
        None
    }

    /// Starts with what another learned.
    fn load_learned(&mut self, _: &[u8]) -> Result<(), String> {
        Err("this policy learns nothing that could be loaded".into())
    }
}

impl ReadThrough for crate::learn::Lru {
    fn read(&mut self, key: u64, size: u32, _: u32) -> bool {
        crate::learn::Lru::read(self, key, size)
    }
}
