//! The same key at several sites: what a write is called there, which of two writes stays, and how sites that
//! have lost touch find out what they miss.
//!
//! Pure: no I/O, no clock; time arrives as an argument. A shard of `engine` keeps this state beside its entries, on
//! its own core; `cluster::host` carries the streams.
//!
//! - `rules`: which keys are replicated how, and where they may go
//! - `clock`: hybrid logical clocks, and what a write is called
//! - `table`: a table that never grows
//! - `versions`: what was written last, as far back as the horizon, and digests of it
//! - `counter`: numbers that several sites count
//! - `record`: one key's state as it travels
//! - `batch`: records to frames, and back
//! - `stream`: numbered frames from one shard to one node, until they have arrived
//! - `repair`: what two sites ask each other to find out what they miss
//! - `shard`: one shard's part in all that
//! - `answers`: what it answers others who compare themselves with it
//! - `counts`: what has happened
//! - `port`: what a shard and whoever carries its streams tell each other
//! - `strong`: entries that one writer at a time writes, by version, and what a store of them must do

mod answers;
pub mod batch;
pub mod clock;
pub mod counter;
pub mod counts;
pub mod port;
pub mod record;
pub mod repair;
pub mod rules;
pub mod shard;
#[cfg(test)]
pub mod shelf;
pub mod stream;
pub mod strong;
pub mod table;
pub mod versions;

pub use clock::Version;
pub use counts::Counts;
pub use record::{Found, Record};
pub use rules::{Mode, Namespace, Rules};
pub use shard::{Config, Count, Entries, Replica};
pub use strong::{StrongEntry, StrongFull, StrongPage, StrongStore, StrongVersion};
pub use table::KeyId;
