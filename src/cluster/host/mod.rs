//! The cluster's part with sockets, disks and clocks. It runs on housekeeping cores and never on a data core.
//!
//! - `links`: messages between nodes, by channel; bounded queues, nothing waits

pub mod links;
