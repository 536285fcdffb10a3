//! L0: hits that never enter the kernel. Entries that are hot in a shard, in memory that programs of the same
//! host read.
//!
//!   owner shard ──Publisher──> table, a sealed memory file ──Reader──> program     mapped for reading only
//!        ^                                                     │
//!        └───────────── reports: which entries were hit ───────┘                   a file for each reader
//!
//! For: the layout (`layout.rs` draws the file, `table.rs` the region of a shard, `slot.rs` a slot; a reader
//! in C stands in examples/), both sides of it, and what tells a reader that a shard is dead.
//!
//! Not for: sockets (`serve::l0` gives the files out, `client::l0` asks for them), or deciding what is hot
//! (`learn`, asked through the store).
//!
//! - `word`: what the two sides share, and its fences
//! - `slot`: a sequence lock around a key and its value
//! - `table`: a region of slots: finding and reading
//! - `publisher`: the owner's side: publishing, rewriting, taking away before a write is acknowledged
//! - `layout`: the file
//! - `reader`: a program's side
//! - `reports`: hits on their way back
//! - `alive`: the kernel's word for a dead owner
//! - `clock`: the clock of expiry
//! - `greeting`: how a program asks for a table

pub mod alive;
pub mod clock;
pub mod greeting;
pub mod layout;
pub mod publisher;
pub mod reader;
pub mod reports;
mod slot;
pub mod table;
pub mod word;

#[cfg(test)]
mod model_tests;

pub use publisher::{Entry, Publisher};
pub use reader::{Gone, OpenError, Reader};
pub use table::{Region, Shape};
