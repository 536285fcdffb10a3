//! What RESP has beyond requests about one key: commands about several, transactions, channels, clients' caches, and
//! what is about the connection or the server.
//!
//!   GET, SET, … ──────────────────────────────> apply                   (wire::resp understands them, batch serves them)
//!   everything else ─> front ─> here: PING, CLIENT, CONFIG, INFO …
//!                        │
//!                        └─> tasks ─> parts, each for one shard ─> gather ─> reply
//!                             MGET a b     GET a @1, GET b @0       merge
//!
//! A command about several keys is cut into parts that other shards do by themselves, so it is atomic for each key
//! and not as a whole (MGET, MSET, DEL …); MSETNX, RENAME, COPY and EXEC hold the shards they touch until all is done.
//!
//! - `front`: a command's way through the state of its connection
//! - `tasks`: commands cut into parts
//! - `parts`: what a shard does for one part
//! - `gather`: replies put together
//! - `transaction`: what several shards do as one
//! - `watch`, `tracking`, `pubsub`: who waits for, caches, listens to what
//! - `client`, `clients`: connections as CLIENT knows them, and its subcommands
//! - `news`: what clients are told unasked
//! - `config`, `info`, `describe`: what CONFIG, INFO and COMMAND answer

pub mod client;
mod clients;
pub mod config;
mod describe;
mod front;
pub mod gather;
pub mod info;
mod news;
mod parts;
pub mod pubsub;
mod tasks;
pub mod tracking;
pub mod transaction;
pub mod watch;
