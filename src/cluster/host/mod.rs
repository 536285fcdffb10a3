//! The cluster's part with sockets, disks and clocks. It runs on housekeeping cores and never on a data core.
//!
//!   serve --cluster, cluster run ──→ node ─┬─ driver ── ordering (pure) ── disk: log, blocks, snapshots
//!                                          ├─ tls: links over TCP ── connection, greeting, refusals
//!                                          └─ control: the operator's socket ── status
//!
//! - `links`: messages between nodes, by channel; bounded queues, nothing waits
//! - `replication`: streams of entries between nodes, and repair
//! - `connection`: one connection between two nodes, once both are known
//! - `control`: the node's socket for the operator
//! - `disk`: what a node keeps, and what it must not forget
//! - `driver`: drives the ordering: messages, timers, commands in; effects out
//! - `folder`: a node's folder, and how a cluster's folders come to be
//! - `greeting`: what two nodes say first, and what tells a node from a copy of it
//! - `join`: how a node comes to a cluster that exists, and how one gets a new key
//! - `keys`: keys and certificates
//! - `links`: messages between nodes, by channel; bounded queues, nothing waits
//! - `log_file`: the write-ahead log of the open height
//! - `news`: what a node has to say to whoever reads its log
//! - `node`: a node, from its folder to its end
//! - `proxy`: a link made slow, or cut, for rehearsals
//! - `refusals`: what is refused on links, by reason
//! - `replication`: streams of entries between nodes, and repair
//! - `routes`: probes of other nodes, and the signed map that this one gives out
//! - `status`: how a node does, and the same for /metrics
//! - `submit`: how a command comes to be executed, from any node
//! - `tls`: links over TCP with mutual TLS 1.3
//! - `trust`: whom TLS lets in
//! - `region`: Raft, leases and strong entries of a region, with sockets, a disk and a clock
//! - `parts`: what runs beside the ordering: region, probes, the map of regions
//! - `probe`: round trips, loss and clock offset to every other node
//! - `maps`: the region map, made from the state and signed by validators

pub mod connection;
pub mod control;
pub mod disk;
pub mod driver;
pub mod folder;
pub mod greeting;
pub mod join;
pub mod keys;
pub mod links;
pub mod log_file;
pub mod maps;
pub mod news;
pub mod node;
pub mod parts;
pub mod probe;
pub mod proxy;
pub mod refusals;
pub mod region;
pub mod replication;
pub mod routes;
pub mod status;
pub mod submit;
pub mod tls;
pub mod trust;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Takes a lock. What these guard is whole after each step, or figures only: a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
