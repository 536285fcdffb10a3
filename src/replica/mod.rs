//! The same key at several sites: what a write is called there, which of two writes stays, and how sites that
//! have lost touch find out what they miss.
//!
//! Pure: no I/O, no clock; time arrives as an argument. A shard of `engine` keeps this state beside its entries, on
//! its own core; `cluster::host` carries the streams.
//!
//! - `rules`: which keys are replicated how, and where they may go
//! - `strong`: entries that one writer at a time writes, by version, and what a store of them must do

pub mod rules;
pub mod strong;

pub use rules::{Mode, Namespace, Rules};
pub use strong::{StrongEntry, StrongFull, StrongPage, StrongStore, StrongVersion};
