//! Spinetail.
#![warn(missing_docs)]
pub mod base;
pub mod cache;
pub mod engine;
pub mod learn;
pub mod replay;
pub mod trace;
