//! The subcommands: each file reads its flags, calls the library, prints.
//!
//! Not for: anything worth a test of its own; that belongs into a room of the library.

pub mod calibrate;
pub mod check;
pub mod cluster;
pub mod demo;
pub mod detect;
pub mod host;
pub mod keys;
pub mod load;
pub mod replay;
pub mod serve;
pub mod target;
pub mod top;
pub mod tune;

/// How a subcommand ends: nothing, or an exit status and the reason.
pub type Outcome = Result<(), (u8, String)>;
