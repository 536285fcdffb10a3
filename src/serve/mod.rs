//! The composition root: from flags and a profile to shards that run.
//!
//! Not for: algorithms. This room decides who gets what and says so; the rooms below do the work.
//!
//! - `config`: the configuration file, its keys, and flags over it
//! - `settle`: flags and file over profile over detection: one settled configuration, or a refusal that says
//!   what to do
//! - `token`: the admin listener's secret, from its file
//! - `region_map`: the signed map of regions, from its file
//! - `log`: lines on stderr, which nobody waits for
//! - `watch`: what the shards' counters say went wrong, once a second
//! - `notify`: what the service manager is told
//! - `reload`: what SIGHUP changes, and what it does not
//! - `door`: a Unix socket at a path
//! - `shm`: the door where programs of this host get connections through shared memory
//! - `l0`: tables for readers in shared memory, who may have which, and their door
//! - `cluster`: the appliance as a node of a cluster: the one place where its parts are wired
//! - `run`: starts, prints the ready line, waits for signals, stops

pub mod admin;
pub mod cluster;
pub mod config;
mod door;
pub mod l0;
pub mod log;
pub mod notify;
mod region_map;
pub mod reload;
pub mod run;
pub mod settle;
mod shm;
pub mod token;
pub mod watch;

pub use config::Source;
pub use run::run;
pub use settle::{Failure, Options, Settled};
