//! What a shard learns about its traffic: which items will be asked for again, per byte and per
//! moment they would occupy.
//!
//! Not for: the items themselves. This room sees twenty bits an item and never a key.
//!
//!   touch (20 bits of an item's history)  ->  class × age  ->  rank  ->  keep | drop
//!                                               ^ fitted from what came back and what did not
//!
//! - `touch`: an item's history in twenty bits, and the clock it is measured with
//! - `rank`: the learned table of ranks, one class refitted at a time
//! - `cut`: the running threshold below which the hand drops items

pub mod cut;
pub mod rank;
pub mod touch;

pub use cut::Cut;
pub use rank::RankTable;
pub use touch::{Clock, Touch};
