//! The cluster's part with sockets, disks and clocks. It runs on housekeeping cores and never on a data core.
//!
//! - `links`: messages between nodes, by channel; bounded queues, nothing waits
//! - `replication`: streams of entries between nodes, and repair

pub mod links;
pub mod replication;
