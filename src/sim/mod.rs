//! Seeded simulation of a cluster: sites, links, clocks, disks, their faults, and the invariants that hold all the same.
//!
//! One seed is one history: the same seed gives the same events in the same order on every machine. Nothing here
//! reads a clock or a file.

pub mod clock;
pub mod linear;
pub mod link;
pub mod world;
