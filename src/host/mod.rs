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
//! - `topology`: `Topology`, all that is known of the machine, and what is true of it as a whole
//! - `files`: the files of a machine: below a directory, or in a recording
//! - `cores`, `power`, `nodes`: cores with their caches, their clocks and idle states, NUMA nodes
//! - `nics`, `ethtool`, `disks`: network interfaces with queues and interrupts; disks
//! - `system`, `cgroup`, `cpu_list`: processor, hypervisor, steal; control groups; lists of cores
//! - `process`: limits and allowed cores of this process
//! - `probe`: whether the kernel gives us the io_uring we need, if not, why, and what else it has
//! - `memory`: `Arena`, a shard's memory in 2 MiB pages where they are granted
//! - `shared`: memory files that other processes may read
//! - `profile`: what the appliance takes of a machine: `Profile`, the one for any machine, validation
//! - `profile_file`: the TOML file of a profile: every key with its meaning, read and written
//! - `vitals`: how the host treats this process: stolen time, switches, where memory lies
//! - `tune`: changing the machine to what a profile wants, and back
//! - `check`: the machine against a profile, line by line

pub mod calibrate;
pub mod calibration;
pub mod cgroup;
pub mod check;
pub mod cores;
pub mod cpu_list;
pub mod disks;
pub mod ethtool;
pub mod files;
pub mod memory;
pub mod nics;
pub mod nodes;
pub mod numa;
pub mod placement;
pub mod power;
pub mod probe;
pub mod process;
pub mod profile;
pub mod profile_file;
pub mod shared;
pub mod system;
pub mod topology;
pub mod tune;
pub mod vitals;
