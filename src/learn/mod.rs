//! What a shard learns about its traffic: which items will be asked for again, per byte and per
//! moment they would occupy.
//!
//! Not for: the items themselves. This room sees twenty bits an item and never a key.
//!
//!   touch (20 bits of an item's history)  ->  class × age  ->  rank  ->  keep | drop
//!                                               ^ fitted from what came back and what did not
//!
//! - `policy`: all of it behind one face
//! - `touch`: an item's history in twenty bits, and the clock it is measured with
//! - `times`: what time it was at which tick
//! - `rank`: the learned table of ranks, one class refitted at a time
//! - `far`: a sample of histories older than the ghosts
//! - `admission`: the bar at the door of the main log
//! - `cut`: the running threshold below which the hand drops items
//! - `balance`: how much sizes count, so that bytes are not sold for objects
//! - `histogram`: ranks that fade, and their quantiles
//! - `lru`: exact LRU, the yardstick
//! - `state`: what was learned as a value: saved, loaded, merged

pub mod admission;
pub mod balance;
pub mod cut;
pub mod far;
pub mod histogram;
pub mod lru;
pub mod policy;
pub mod rank;
pub mod state;
pub mod times;
pub mod touch;

pub use far::GhostKey;
pub use lru::Lru;
pub use policy::Policy;
pub use touch::{Clock, Touch};
