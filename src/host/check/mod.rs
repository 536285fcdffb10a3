//! The machine and the process against a profile, line by line: what there is, what is wanted, what the
//! difference costs, how that is known, and who can change it.
//!
//!   Topology ┐
//!   Limits   ├─ Subject ──→ cores ─ memory ─ network ─ kernel ──→ lines ──→ score
//!   Profile ─┤  (placed)
//!   Figures ─┘
//!
//! A cost is a number only where somebody has measured it, and then it says who and where: this machine by
//! `host calibrate`, the kernel's or the firmware's own tables, or this project on a machine that is named. Elsewhere
//! it says that it was not measured. An invented percentage would be believed, and somebody would spend a day on it.
//!
//! - `line`: a line, its verdict, the source of its cost
//! - `subject`: all that is looked at
//! - `cores`: whose cores are whose, and who else runs there
//! - `memory`: amounts, nodes, pages, limits
//! - `network`: cards, their queues and interrupts
//! - `kernel`: io_uring, clocks, frequency and sleep, parameters, command line

mod cores;
mod kernel;
mod line;
mod memory;
mod network;
mod subject;

pub use kernel::parameter;
pub use line::{Line, Source, Verdict, score};
pub use subject::{Subject, check, denied};

#[cfg(test)]
mod tests;
