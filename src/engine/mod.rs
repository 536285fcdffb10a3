//! engine
pub mod budget;
