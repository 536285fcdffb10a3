//! Changing the machine, and changing it back.
//!
//! For: `spinetail host apply` and `spinetail host undo`: from a profile to kernel settings, interrupts, network
//! queues, power management and unit files, in such a way that every one of them can be put back, byte for byte,
//! whatever the process or the machine died of meanwhile.
//!
//! Not for: the kernel's command line, which is only suggested; installing anything; deciding what a profile
//! should say. And not for anything while requests are served: these are commands of an operator.
//!
//!   profile, topology ── plan ── changes ── rehearse ──┬── refused, with a remedy
//!                                                      └── journal ── write ── read back ── report
//!                                                             └── undo: backwards, read back
//!
//! The order in the last line is the whole of it: nothing is written before its old value is on disk. That the old
//! value can be written is tried before (`write`), that two processes do not mix is the journal's lock, that a
//! second apply remembers the first's beginnings is the journal's rule of one old value for each path.
//!
//! - `change`: one setting, its form, and when two texts of it mean the same
//! - `journal`: old values on disk, the lock
//! - `paths`: where a path below a root really is, and whether root may write there
//! - `write`: reading, rehearsing, writing, restoring one setting
//! - `plan`: which changes a profile means on this machine; with it `parameters` (the profile's sysctls, and which cannot
//!   be put back), `interrupts`, `network`, `power` and `units`, the systemd files
//! - `cmdline`: what the kernel's command line lacks, and how to add it
//! - `apply`, `undo`: the two flows
//! - `report`: what came of each setting; `error`: why nothing, or nothing more, was done

pub mod apply;
pub mod change;
pub mod cmdline;
pub mod journal;
pub mod parameters;
pub mod plan;
pub mod report;
pub mod undo;
pub mod write;

mod error;
mod interrupts;
mod network;
mod paths;
mod power;
mod units;

#[cfg(test)]
mod crash_tests;

pub use error::TuneError;
