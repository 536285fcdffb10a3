//! The composition root: from flags and a profile to shards that run.
//!
//! Not for: algorithms. This room decides who gets what and says so; the rooms below do the work.
//!
//! - `settle`: flags over profile over detection: one settled configuration, or a refusal that says
//!   what to do
//! - `shm`: the door for programs of this host
//! - `run`: starts, prints the ready line, waits for a signal, stops

pub mod run;
pub mod settle;
mod shm;

pub use run::run;
pub use settle::{Failure, Options, Settled, settle};
