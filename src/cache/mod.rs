//! One shard's memory: where entries live, how they are found, when they leave.
//!
//! Not for: sockets, clocks, threads. Memory, time and the key's hash arrive as arguments, so a
//! test or a replay runs exactly what the appliance runs.
//!
//! An arena is cut into equal segments; every byte the shard stores is in one of them:
//!
//!   | index | log | log | ghosts | log | index | free | log | free | …
//!
//!   index     64-byte buckets of eight 8-byte slots; stretches over more segments bucket by bucket
//!   log       items, packed front to back; two logs, small (new) and main (proven)
//!   ghosts    4-byte memories of items that were dropped
//!
//! A GET probes one bucket (rarely two), compares the key in the item, writes the slot back with a
//! fresher touch, and returns a slice of the segment. A SET appends to a log and points the slot
//! there. While few segments are free each SET moves the hand on by a few items of the oldest
//! segment: what ranks high enough is copied to the main log's end, the rest is dropped. The bound
//! on memory is the arena: nothing here allocates after the start but a table of segment states,
//! which has its final size from the beginning.
//!
//! - `bytes`: reading and writing integers at an offset
//! - `item`: the bytes of an item
//! - `slot`: the eight bytes by which the index knows an item
//! - `tags`: eight tags compared at once
//! - `segments`: states of the segments, free list, the two logs
//! - `index`: buckets, probing, stretching
//! - `ghosts`: the memory of what was dropped
//! - `store`: the public face: get, set, delete, increment, touch, mark, flush
//! - `scan`: all entries bit by bit, or one at random
//! - `evict`: the hand, its pace, expiry
//! - `check`: recounts everything and compares

mod bytes;
mod check;
mod evict;
mod ghosts;
mod index;
mod item;
mod scan;
mod segments;
mod slot;
mod store;
mod tags;

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod store_tests;

pub use item::{Item, MARK_STALE, MARK_WON};
pub use store::{Accounting, Condition, Config, History, IDLE_PLACES, IDLE_SHARE, Put, Refused, Stats, Store};
