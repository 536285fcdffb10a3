//! What the benches share: timing that is fair to its subjects, and the table they end in.
//!
//! - `measure`: rounds, percentiles, the timer's own cost
//! - `subjects`: the store, the floor and the clock behind one face
//! - `peers`: what people would use instead, behind the same face
//! - `report`: the table on stdout and the JSON beside it

pub mod measure;
pub mod peers;
pub mod report;
pub mod subjects;
