//! memcached's protocol: what is asked of a key, and what is about several keys, the server or the connection.
//!
//!   get k, set k, mg k …  ─> apply ─> one, meta     (wire::memcached understands them, batch serves them)
//!   get a b c             ─> front ─> each key here or at its shard, and END behind them
//!   stats, flush_all …    ─> front
//!
//! - `one`: the classic commands about one key
//! - `meta`: the meta commands
//! - `front`: several keys, the server, the connection
//! - `stats`: what STATS answers
//! - `prefixes`: use of keys by prefix (`stats detail`)
//! - `shared`: what the shards share of it

mod front;
mod meta;
mod one;
mod prefixes;
mod shared;
mod stats;

pub use one::apply;
pub use prefixes::Observer;
pub use shared::MemcachedShared;

#[cfg(test)]
mod tests;
