//! What the appliance tells of itself.
//!
//! Not for: deciding anything, and not for readers: a shard writes its own numbers with plain
//! stores, anyone may read them at any time, and nobody ever waits for anybody.
//!
//! - `calls`: calls and times by command, for protocols whose clients ask
//! - `counters`: one shard's counters and gauges, one writer, any reader
//! - `dashboard`: the page that shows it, and its files
//! - `exposition`: numbers as Prometheus reads them
//! - `live`: a histogram that one thread writes and any reads
//! - `service`: how long requests take inside a shard, by operation and stage
//! - `hot`: which keys are read most, from samples
//! - `idle`: how long evicted entries had been idle
//! - `tenants`: counters by tenant

pub mod calls;
pub mod counters;
pub mod dashboard;
pub mod exposition;
pub mod hot;
mod idle;
pub mod live;
pub mod service;
pub mod tenants;

pub use counters::{Counter, ShardCounters, ShardFigures, stats_text};
pub use idle::EvictedIdle;
pub use live::{Buckets, LiveHistogram};
pub use service::{Operation, ServiceTimes, Stage};
