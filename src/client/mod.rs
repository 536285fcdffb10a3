//! How a program talks to a Spinetail.
//!
//! Not for: serving.
//!
//! - `connection`: one blocking connection, pipelined if its user wants
//! - `transport`: bytes to a server and back: TCP, or shared memory on the same host
//! - `l0`: a client that reads hot entries in shared memory, and asks the appliance for all else
//! - `native`: a client that keeps one connection to each shard and asks the owner directly
//! - `near`: a cache inside the client's process that hears of every write
//! - `near_watch`: its subscriptions, and what they say of what is held
//! - `near_store`: its memory
//! - `geo`: a client that asks the nearest healthy region
//! - `regions`: which one that is: the signed map, and probes
//! - `gateway`: the same for programs that speak RESP or memcached, by a process beside them

pub mod connection;
pub mod gateway;
pub mod geo;
pub mod l0;
pub mod native;
pub mod near;
mod near_store;
mod near_watch;
pub mod regions;
mod transport;

pub use connection::{Connection, Error};
pub use gateway::{Gateway, GatewayOptions};
pub use geo::{Geo, GeoError, GeoStats};
pub use l0::L0Client;
pub use native::{Client, Value};
pub use near::{NearCache, NearOptions, NearStats};
pub use regions::{RegionOptions, Regions, View};
pub use transport::{Endpoint, Transport};
