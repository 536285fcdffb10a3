//! The cluster's part with sockets, disks and clocks. It runs on housekeeping cores and never on a data core.
//!
//! - `links`: messages between nodes, by channel; bounded queues, nothing waits
//! - `probe`: round trips, loss and clock offset to every other node
//! - `maps`: the region map, made from the state and signed by validators

pub mod links;
pub mod maps;
pub mod probe;
