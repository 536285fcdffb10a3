//! Sites and nodes that agree.
//!
//! Between sites, a Byzantine-fault-tolerant order of control commands (`ordering`); inside a region, Raft (`region`).
//! Cached data never passes through either. Everything here is pure but `host`, which has the sockets, the disk and
//! the clock, and runs on the housekeeping cores.
//!
//!   operator, region leaders -> command -> ordering -> state, the same at every node
//!                                                       | namespaces, members, homes, primary
//!                                                       v
//!                                         replication, leases, routes
//!
//! - `genesis`: who begins: sites, nodes, keys, timing; its digest names the network
//! - `keys`: ed25519 keys and signatures
//! - `command`: what can be agreed on, signed by whoever asks for it
//! - `state`: what has been agreed on
//! - `ordering`: the order of commands between sites of which some may lie
//! - `route`: how far others are, which region is the nearest healthy one, and the signed map of regions
//! - `host`: links between nodes, disks, clocks: the part with I/O

pub mod command;
pub mod genesis;
pub mod host;
pub mod keys;
pub mod ordering;
pub mod route;
pub mod state;

pub use command::{Author, Command, Signed};
pub use genesis::{Genesis, Member, NetworkId, Site, SiteKind, Timing};
pub use state::State;
