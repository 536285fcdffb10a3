//! Spinetail.
#![warn(missing_docs)]
pub mod base;
pub mod cache;
pub mod engine;
pub mod host;
pub mod learn;
pub mod client;
pub mod load;
pub mod net;
pub mod observe;
pub mod serve;
pub mod replay;
pub mod wire;
pub mod trace;
