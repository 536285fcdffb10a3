//! One shard's counters by tenant: a bounded set, fixed at start.

use std::sync::Arc;

use crate::observe::{Counter, LiveHistogram};

/// The tenants of one shard; clones share the counters.
#[derive(Clone)]
pub struct TenantCounters(Arc<[TenantCount]>);

/// What one tenant's keys were used for, in one shard.
pub struct TenantCount {
    /// Its name.
    pub name: Arc<str>,
    /// What its keys begin with.
    pub prefix: Arc<[u8]>,
    /// Reads that found their key.
    pub hits: Counter,
    /// Reads that did not.
    pub misses: Counter,
    /// Requests that change something.
    pub changes: Counter,
    /// Hits in shared memory, as readers report them.
    pub l0_hits: Counter,
    /// Entries published there.
    pub l0_entries: Counter,
    /// What reads took: the whole turn, as `service` has it.
    pub read_times: LiveHistogram,
    /// What changes took.
    pub change_times: LiveHistogram,
}

impl TenantCounters {
    /// Counters at zero for tenants of these names and prefixes.
    pub fn new<'a>(tenants: impl Iterator<Item = (String, &'a [u8])>) -> TenantCounters {
        let zero = |(name, prefix): (String, &[u8])| TenantCount {
            name: name.into(),
            prefix: prefix.into(),
            hits: Counter::default(),
            misses: Counter::default(),
            changes: Counter::default(),
            l0_hits: Counter::default(),
            l0_entries: Counter::default(),
            read_times: LiveHistogram::default(),
            change_times: LiveHistogram::default(),
        };
        TenantCounters(tenants.map(zero).take(TENANTS_MAX).collect())
    }

    /// The tenants, in the order in which they were named.
    pub fn tenants(&self) -> &[TenantCount] {
        &self.0
    }

    /// Whether there is more to tell than the shard's own counters do.
    pub fn are_told_apart(&self) -> bool {
        self.0.len() > 1 || self.0.iter().any(|tenant| !tenant.prefix.is_empty())
    }
}

/// Most tenants that are counted apart: those of L0.
pub const TENANTS_MAX: usize = crate::base::limits::L0_TENANTS_MAX;
