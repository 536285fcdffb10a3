//! What this machine is, what the appliance wants of it, and what the difference costs.
//!
//! For: reading the topology from sysfs, the limits of this process, hardware profiles, the
//! line-by-line check of one against the other, and memory in the pages and on the node a
//! profile names.
//!
//! Not for: placing threads (the
//! engine pins its executors), or anything on the path of a request.
//!
//!   sysfs, procfs ── topology ──┬── Profile::auto ──┐
//!   this process  ── process ───┤                   ├── check ── lines with cost and remedy
//!                               └── profile file ───┘
//!                                        └── memory: one arena per shard
//!
//! - `topology`: cores, NUMA nodes, memory, huge pages, clock source, control group
//! - `process`: limits and allowed cores of this process
//! - `probe`: whether the kernel gives us the io_uring we need, and if not, why
//! - `memory`: `Arena`, a shard's memory in 2 MiB pages where they are granted
//! - `shared`: memory files that other processes may read
//! - `profile`: what the appliance takes of a machine: `Profile`, the one for any machine, validation
//! - `profile_file`: the TOML file of a profile: every key with its meaning, read and written
//! - `vitals`: how the host treats this process: stolen time, switches, where memory lies
//! - `tune`: changing the machine to what a profile wants, and back
//! - `check`: the machine against a profile, line by line

pub mod check;
pub mod memory;
pub mod probe;
pub mod process;
pub mod profile;
pub mod profile_file;
pub mod shared;
pub mod topology;
pub mod tune;
pub mod vitals;
