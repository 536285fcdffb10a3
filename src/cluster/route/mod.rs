//! Which region to ask: how far each is, whether it answers, and who says where it stands.
//!
//!   round trips -> estimate -> choose -> the region to ask
//!   signed map  -> map ---------^
//!
//! Pure: probes, clocks and sockets are `host::probe`'s between nodes and `client::regions`' in clients; both judge what
//! they measure by the rules here.
//!
//! - `estimate`: round trips, loss and clock offset of one link
//! - `choose`: the nearest healthy region, without flapping
//! - `map`: the regions and their addresses, signed by validators

pub mod choose;
pub mod estimate;
pub mod map;

pub use choose::{Chooser, Health, RegionReport, Rules, Switch, Why};
pub use estimate::{ClockOffset, Estimate, Stamps};
pub use map::{Authorities, MapRefused, Node, Region, RegionMap, SignedMap};
