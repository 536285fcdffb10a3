//! The cache inside a program: the appliance's rooms without the appliance, for byte keys and byte values.
//!
//!   get ──> hash ──> stripe ──> its region of L0 ── found ──> copied out, nothing shared is written
//!                                     │ not there
//!                                     v
//!                     lock of the stripe ──> store ── found ──> copied out, published if it is hot enough
//!                                              │ not there
//!                                              v
//!                                          flights: one loader a key
//!
//! A stripe is what a shard is in the appliance, with a lock in place of a core: a store, which holds the entries
//! and learns which to keep, and a publisher, which keeps the hottest of them in a region that everybody reads.
//! A hit there is a hash, a compare and a copy. It writes one line that belongs to the reading thread
//! (`reads`), so threads do not slow each other, not even on one key.
//!
//! *Coherence.* Whoever writes holds the stripe's lock and has rewritten or cleared the published entry before it
//! returns; whoever publishes holds it too. So from the return of an insert or remove on nobody is given the
//! older value. An entry that the store has evicted may stay published a while: it is still the last value that
//! was written.
//!
//! *Loaders and invalidation.* A loader may have read its source before somebody changed it and said so with
//! `remove` or `insert`. Flights are kept under the stripe's lock with everything else, so these calls find the
//! flight and disown it: its value goes to those who were already waiting, and not into the cache.
//!
//! *What the policy hears.* Lock-free hits are told to the store one in 32, at intervals that vary so that
//! a program's own rhythm does not hide some of its keys. An entry that is read without locks therefore looks
//! colder than it is. Of a Zipf stream (0.99, 300,000 keys, places for a tenth of them) 74 % of hits take no lock,
//! where the best choice of entries would give 81 %.
//!
//! *Rejected.* A mapping for each stripe: the last huge page of a mapping is touched whole, eight stripes would
//! hold up to 16 MiB more than they were given. Running a caller's closure on the store's own bytes: it would
//! run under the lock, and deadlock when it asks the cache again. Counting all hits exactly: an atomic addition
//! is 5 ns, a fifth of a hit, and only threads that share a cell lose any. Weighing published entries 4 or 16 times
//! heavier, since so few of their hits are heard: no difference on that stream.
//!
//! Not for: typed keys and values (a program encodes its own), persistence, other processes (`l0` serves those).
//!
//! - `cache`: the public face
//! - `builder`: what may be chosen, and how memory is divided
//! - `owner`: a stripe under its lock
//! - `flight`: one loader a key
//! - `reads`: counts and reports of hits that took no lock
//! - `value`: bytes that were read
//! - `memory`: one mapping, cut into pieces
//! - `error`: what can go wrong

mod builder;
mod cache;
mod error;
mod flight;
mod memory;
mod owner;
mod reads;
mod value;

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod thread_tests;

pub use builder::Builder;
pub use cache::{Cache, Metrics};
pub use error::{BuildError, InsertError, LoadError};
pub use value::Value;
