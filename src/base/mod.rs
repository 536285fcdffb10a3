//! What every room may use and none may change: identities, units, time, the key hash, a seeded
//! generator, and all limits of the product in one file.
//!
//! Not for: anything with I/O, a clock or global state. Time and seeds arrive as arguments.
//!
//! - `decimal`: exact sums of decimal numbers
//! - `hash`: the key hash, and which shard owns a hash
//! - `id`: newtypes for shards and connections
//! - `limits`: every bound with its reason, relations proved at compile time
//! - `prefetch`: asking for a cache line ahead of time
//! - `prng`: a small seeded generator for tests, schedules and tie-breaks
//! - `time`: `Instant`, milliseconds on the caller's clock
//! - `units`: sizes and durations as people write them (`64MiB`, `10s`)

pub mod decimal;
pub mod hash;
pub mod id;
pub mod limits;
pub mod prefetch;
pub mod prng;
pub mod time;
pub mod units;
