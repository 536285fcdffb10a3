//! What the benches share: timing that is fair to its subjects, and the table they end in.
//!
//! - `measure`: rounds, percentiles, the timer's own cost
//! - `subjects`: the store, its peer, the floor and the clock behind one face
//! - `report`: the table on stdout and the JSON beside it

pub mod measure;
pub mod report;
pub mod subjects;
