//! One shard a core: the loop that takes bytes from `net`, asks `cache`, and answers.
//!
//! Not for: sockets (`net`), memory (`cache`), bytes on the wire (`wire`), configuration (`serve`).
//!
//!   received -> session -> decode -> owner? -> apply -> reply -> out
//!                                      | another shard's
//!                                      v
//!                                   post ->  mailbox  -> its apply -> mailbox -> session, in order
//!
//! - `budget`: how a server's memory is divided
//! - `session`: one connection's place in its stream of requests, and the replies it waits for
//! - `keys`: the entries of a shard and who is to hear of a change
//! - `apply`: one request against the store
//! - `edit`: what the text protocols ask of one key beyond that
//! - `batch`: the requests in a piece of a connection's stream, answered in order
//! - `strong`: requests about strong keys, on their way to the region's holder and back
//! - `tenants`: whose keys are used how much, where several share the server
//! - `core`: sessions and the bounds on what each may hold
//! - `interest`: near caches: who has read what, and what to push when it changes
//! - `resp`: what RESP has beyond requests about one key
//! - `memcached`: memcached's protocol
//! - `errand`: what other shards ask of this one
//! - `direct`: a shard without sockets, for tests, fuzzing and instruction counts
//! - `shard`: the turn of a shard: network, mail, control, housekeeping
//! - `post`: what one shard has under way at the others
//! - `mailbox`: the ring between two shards
//! - `l0`: what a shard publishes in shared memory, and what it hears from readers
//! - `replica`: what a shard tells other sites of its changes, and how theirs are taken in
//! - `region_map`: where regions are, passed on to whoever asks
//! - `idle`: when a shard that has nothing to do goes to sleep
//! - `executor`: who calls the turns: a glommio executor, or a plain thread where io_uring is refused

mod apply;
mod batch;
pub mod budget;
mod core;
pub mod direct;
mod edit;
mod errand;
mod executor;
mod idle;
mod interest;
mod keys;
pub mod l0;
pub mod mailbox;
mod memcached;
mod post;
pub mod region_map;
pub mod replica;
mod resp;
mod session;
mod shard;
pub mod strong;
pub mod strong_edit;
mod tenants;

/// Names of RESP's commands, by their numbers.
pub fn resp_commands() -> impl Iterator<Item = &'static str> {
    crate::wire::resp::commands::COMMANDS.iter().map(|row| row.name)
}

pub use executor::{Attacher, Io, Plan, Running, start};
pub use idle::PollMode;
pub use session::Protocol;
pub use shard::Shared;
