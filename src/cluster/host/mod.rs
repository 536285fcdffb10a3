//! The cluster's part with sockets, disks and clocks. It runs on housekeeping cores and never on a data core.
//!
//!   serve --cluster, cluster run ──→ node ─┬─ driver ── ordering (pure) ── disk: log, blocks, snapshots
//!                                          ├─ tls: links over TCP ── connection, greeting, refusals
//!                                          └─ control: the operator's socket ── status
//!
//! - `links`: messages between nodes, by channel; bounded queues, nothing waits
//! - `connection`: one connection between two nodes, once both are known
//! - `disk`: what a node keeps, and what it must not forget
//! - `greeting`: what two nodes say first, and what tells a node from a copy of it
//! - `keys`: keys and certificates
//! - `log_file`: the write-ahead log of the open height
//! - `news`: what a node has to say to whoever reads its log
//! - `refusals`: what is refused on links, by reason
//! - `tls`: links over TCP with mutual TLS 1.3
//! - `trust`: whom TLS lets in

pub mod connection;
pub mod disk;
pub mod greeting;
pub mod keys;
pub mod links;
pub mod log_file;
pub mod news;
pub mod refusals;
pub mod tls;
pub mod trust;
