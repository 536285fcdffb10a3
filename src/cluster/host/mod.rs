//! The cluster's part with sockets, disks and clocks. It runs on housekeeping cores and never on a data core.
//!
//! - `links`: messages between nodes, by channel; bounded queues, nothing waits
//! - `region`: Raft, leases and strong entries of a region, with sockets, a disk and a clock

pub mod links;
pub mod region;
