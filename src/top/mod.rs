//! The live view in a terminal: `spinetail top`.
//!
//! Not for: measuring anything. All figures come from the admin listener's `/events`
//! (`docs/observability.md`); this room hears them, keeps the last minutes and draws. What it hears is
//! outside input from beginning to end: bounded, decoded, and names in it are escaped before they
//! come near a terminal.
//!
//!   connection ──bytes──> events ──text──> message ──> model ──> tables ──> draw, snapshot
//!   (a thread)            (SSE)            (JSON)      (what was heard)     (cells) (plain text)
//!                                                       keys ──> view ────────^
//!
//! - `address`: where the admin listener is, and the token it wants
//! - `connection`: HTTP, and connecting anew; its own thread
//! - `events`: bytes to server-sent events, without I/O; *pure*
//! - `message`: the JSON of an event; *pure*
//! - `model`: what was heard: the last window, the last ten minutes, how the link is; *pure*
//! - `view`: what the person at the keyboard has chosen; the keys; *pure*
//! - `text`: figures and names as they are shown; *pure*
//! - `tables`: the model as rows of text; *pure*
//! - `draw`, `panels`: rows and charts into cells; *pure*
//! - `snapshot`: the same rows as plain text; *pure*
//! - `run`: the terminal: taken, given back whatever happens; the loop

pub mod address;
pub mod connection;
pub mod draw;
pub mod events;
pub mod message;
pub mod model;
mod panels;
pub mod run;
pub mod snapshot;
pub mod tables;
pub mod text;
pub mod view;

pub use address::{Address, Admin};
pub use run::{Mode, Options, run};
