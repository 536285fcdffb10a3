//! How a program talks to a Spinetail.
//!
//! Not for: serving. (L0 readers, the near cache and the embedded cache will stand here too.)
//!
//! - `connection`: one blocking connection, pipelined if its user wants
//! - `transport`: bytes to a server and back: TCP, or shared memory on the same host
//! - `native`: a client that keeps one connection to each shard and asks the owner directly

pub mod connection;
pub mod native;
mod transport;

pub use connection::{Connection, Error};
pub use native::{Client, Value};
pub use transport::{Endpoint, Transport};
