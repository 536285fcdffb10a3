//! How a program talks to a Spinetail.
//!
//! Not for: serving. (L0 readers, the near cache and the embedded cache will stand here too.)
//!
//! - `connection`: one blocking connection, pipelined if its user wants
//! - `native`: a client that keeps one connection to each shard and asks the owner directly

pub mod connection;
pub mod native;

pub use connection::{Connection, Error};
pub use native::{Client, Value};
