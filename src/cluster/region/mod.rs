//! Who may write what inside a region.
//!
//! The strong keys of a region are spread over 64 *homes*. At any time at most one node serves a home: its *holder*.
//! Three things, each safe without the next, make that so:
//!
//!   Raft          which node holds which home, under which token: agreed on by a majority, on disk (`homes`)
//!     | token
//!   fencing       replicas refuse whoever comes with an older token: no clock can break a write (`acceptor`, `holder`)
//!     | lease
//!   leases        a holder answers reads alone while its lease runs: clocks must keep their rate (`lease`)
//!
//! Pure: messages go in and come out as values, time is an argument. `cluster::host::region` carries them.
//!
//! - `homes`: the state machine of a region's Raft group
//! - `lease`: promises of voters, assurance of a leader, leases of holders
//! - `strong`: operations, replies, messages
//! - `acceptor`: a node's copy of all homes, and whom it still listens to
//! - `holder`: one home in the hands of its holder
//! - `memory`: a store of strong entries in memory

pub mod acceptor;
pub mod holder;
pub mod homes;
pub mod lease;
pub mod memory;
#[cfg(test)]
mod protocol_tests;
pub mod strong;

pub use homes::{Home, Homes, RegionCommand};
pub use memory::MemoryStore;
pub use strong::{Expires, StrongOp, StrongRefused, StrongReply};

/// Votes that make a majority.
pub fn majority(voters: usize) -> usize {
    voters / 2 + 1
}
