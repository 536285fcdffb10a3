//! Replays a trace against the cache rooms alone: no sockets, no clock, the answer to "what miss
//! ratio would this memory give me".
//!
//! Not for: speed figures of the appliance; `ns_per_request` here is one thread calling the store.
//!
//! - `run`: a trace through the shard's own store, under either way of charging

mod run;

pub use run::{Capacity, Charge, Policy, Report, replay};
