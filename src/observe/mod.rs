//! What the appliance tells of itself.
//!
//! Not for: deciding anything, and not for readers: a shard writes its own numbers with plain
//! stores, anyone may read them at any time, and nobody ever waits for anybody.
//!
//! - `calls`: calls and times by command, for protocols whose clients ask
//! - `counters`: one shard's counters and gauges, one writer, any reader
//! - `service`: how long requests take inside a shard, in HDR histograms

pub mod calls;
pub mod counters;
pub mod service;

pub use counters::{Counter, ShardCounters, stats_text};
pub use service::{Operation, ServiceTimes};
