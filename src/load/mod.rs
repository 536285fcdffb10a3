//! The load generator: what proves the appliance, and what its users point at what they have now.
//!
//! Open loop: every request has a moment at which it is due, fixed beforehand by the rate; its
//! latency counts from that moment, not from when it could at last be sent. A stalled server stalls
//! the sending, and the wait is charged to it.
//!
//! Not for: deciding what is good. It prints; people judge.
//!
//! - `keys`: distributions over keys
//! - `plan`: what a run consists of
//! - `dialect`: what it speaks to the server
//! - `work`: where a worker's next request comes from: a distribution, a trace, a fill
//! - `worker`: one thread: issues what is due, reads what has come, records
//! - `l0`: one thread that reads in shared memory; `ticks`: the timer for that
//! - `run`: workers together, fill, warm-up, the search for a rate that holds an objective
//! - `outcome`, `report`: what is printed, and the picture of it

pub mod dialect;
pub mod keys;
mod l0;
pub mod outcome;
pub mod plan;
pub mod report;
pub mod run;
pub mod ticks;
mod work;
mod worker;

pub use dialect::Dialect;
pub use keys::Distribution;
pub use outcome::Outcome;
pub use plan::{Arrivals, Objective, Plan, Route};
pub use run::{run, search};
