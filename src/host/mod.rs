//! What this machine is, what the appliance wants of it, what the difference costs, and who makes it disappear.
//!
//! For: reading a machine below a root, hardware profiles and where they put shards, the check of one against the
//! other, changing a machine so that it can be put back, measuring it, and memory in the pages and on the node a
//! profile names.
//!
//! Not for: pinning threads (the engine's executors do), or anything on the path of a request.
//!
//! ```text
//!   sysfs, procfs ── files ── topology ──┬── placement ──┬── check ── lines: have, want, cost, remedy
//!   a file, or auto ──────── profile ────┘               ├── tune ── journal ── settings, and back
//!   this process ── process, probe                       └── engine: cores, nodes, memory: one arena a shard
//!   clocks, caches, kernel ── calibrate ── calibration ── figures beside results
//! ```
//!
//! - `topology`: `Topology`, all that is known of the machine, and what is true of it as a whole
//! - `files`: the files of a machine: below a directory, or in a recording
//! - `cores`, `power`, `nodes`: cores with their caches, their clocks and idle states, NUMA nodes
//! - `nics`, `ethtool`, `disks`: network interfaces with queues and interrupts; disks
//! - `system`, `cgroup`, `cpu_list`: processor, hypervisor, steal; control groups; lists of cores
//! - `process`: limits and allowed cores of this process
//! - `probe`: whether the kernel gives us the io_uring we need, if not, why, and what else it has
//! - `profile`, `profile_file`: what the appliance wishes of a machine; its TOML file, every key with its meaning
//! - `placement`: who runs where: a pure function of the two
//! - `check`: the machine against a profile, line by line
//! - `tune`: changing the machine to what a profile wants, and back
//! - `calibrate`, `calibration`: measuring the machine; what was measured, as a value that is kept
//! - `memory`, `numa`: `Arena`, a shard's memory in the pages that were granted; on which node it lies
//! - `shared`: memory files that other processes may read
//! - `vitals`: how the host treats this process: stolen time, switches, where memory lies

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
