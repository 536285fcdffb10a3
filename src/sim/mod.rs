//! Seeded simulation of a cluster: sites, links, clocks, disks, their faults, and the invariants that hold all the same.
//!
//! One seed is one history: the same seed gives the same events in the same order on every machine. Nothing here
//! reads a clock or a file.
//!
//!   scenario, seed -> world (time, events) -> cluster: validators <- links, disks, clocks, clients, behaviours
//!                                                 |
//!                                                 v everything that happens
//!                                             invariants -> outcome -> report
//!
//! - `world`: time and the events to come
//! - `link`, `disk`, `clock`: what goes wrong by itself
//! - `behaviours`: what goes wrong by intent; `forge` makes and reads messages
//! - `scenarios`: what is played
//! - `genesis`, `clients`, `site`, `cluster`: sites that order commands, played from a seed
//! - `region`, `replication`: regions that replicate what they cache, played from a seed
//! - `invariants`: what must hold
//! - `run`, `report`: many seeds on all cores, and what came of them
//! - `linear`: whether a recorded history is linearizable

pub mod behaviours;
pub mod clients;
pub mod clock;
pub mod cluster;
pub mod disk;
pub mod forge;
pub mod genesis;
pub mod invariants;
pub mod linear;
pub mod link;
pub mod region;
pub mod replication;
pub mod report;
pub mod run;
pub mod scenarios;
pub mod site;
pub mod world;

#[cfg(test)]
mod tests;
