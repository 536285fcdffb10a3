//! The cluster's part with sockets, disks and clocks. It runs on housekeeping cores and never on a data core.
//!
//!   serve --cluster, cluster run ──→ node ─┬─ driver ── ordering (pure) ── disk: log, blocks, snapshots
//!                                          ├─ tls: links over TCP ── connection, greeting, refusals
//!                                          └─ control: the operator's socket ── status
//!
//! - `links`: messages between nodes, by channel; bounded queues, nothing waits
//! - `keys`: keys and certificates
//! - `news`: what a node has to say to whoever reads its log
//! - `refusals`: what is refused on links, by reason

pub mod keys;
pub mod links;
pub mod news;
pub mod refusals;
