//! Measures this machine: what its clock, its caches, its memory, its kernel and its other tenants cost a cache.
//!
//! For: figures to hold a server's latency against (a GET of 900 ns means one thing where a load from memory takes 90 ns
//! and another where it takes 300), taken in half a minute, each with the noise that it reports.
//!
//! Not for: naming the machine (`topology`), judging it (`check`), or timing the product (`benches/`).
//!
//! ```text
//!   plan ─ prepare: counter's rate, working sets, ring, pairs                    once, some seconds
//!     └─ round 1 … 9 ┬ clock       counter and kernel clock, and one against the other
//!                    ├ chase       each working set, in each kind of pages, on each node
//!                    ├ pairs       a line to and fro between two cores
//!                    ├ calls       system call, ring, wake-up, loopback
//!                    └ jitter      a few cores at a time, until the round's time is over
//!     └─ Calibration: median of the rounds; lowest to highest round, widened, as noise
//! ```
//!
//! Subjects take turns round by round, so that whatever changes on the machine during the run reaches all of them and shows
//! as noise instead of as a difference between two of them. Within a round a subject runs batches until its share of the
//! time is over, and gives the *median batch*: a batch is short (some 100 µs), so most are not interrupted even where
//! others want the cores, and the median does not care about those that are. What interrupts is no noise of the other
//! figures but has one of its own, the jitter. Why the interval is what it is: `host::calibration`.
//!
//! Everything runs on one pinned thread, which is asleep while other threads measure. It takes the last of the cores it
//! may use: the first is where the system puts what it binds nowhere else.
//!
//! - `run`: `Plan`, the budget, the rounds
//! - `rounds`: batches to a round, rounds to a figure
//! - `counter`: the processor's counter, safely
//! - `clock`: its rate and cost, and the kernel clock's
//! - `chase`: dependent loads through working sets of every size
//! - `pairs`: lines passed between cores, which pairs, and the relation between two
//! - `calls`: a system call and a NOP through a ring
//! - `wake`: waking a sleeping thread, and a byte through loopback
//! - `jitter`: gaps in the time of a thread that has a core to itself
//! - `keep`: where the result is stored and found, and how figures get into a profile
//! - `text`, `page`: the result for a terminal, and as one HTML file

pub mod calls;
pub mod chase;
pub mod clock;
pub mod counter;
pub mod jitter;
pub mod keep;
pub mod page;
pub mod pairs;
pub mod rounds;
pub mod run;
pub mod text;
pub mod wake;

pub use run::{Plan, Progress, run};
