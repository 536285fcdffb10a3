//! Whose keys are used how much, where several tenants share the server.
//!
//! A key belongs to the tenant with the longest prefix that it begins with, as in L0. A server without named tenants has
//! one for all keys; then the shards' own counters say it all, and nothing here runs.

use std::sync::Arc;

use crate::observe::Operation;
use crate::observe::tenants::{TENANTS_MAX, TenantCounters};

/// A shard's count of its tenants.
pub struct Tenants {
    counters: TenantCounters,
    /// Prefixes, longest first, each with the number of its tenant.
    prefixes: Vec<(Arc<[u8]>, usize)>,
    /// Requests of this turn: reads and changes.
    open: [(u32, u32); TENANTS_MAX],
}

impl Tenants {
    /// Counts into `counters`; `None` if there is nothing to tell apart.
    pub fn new(counters: TenantCounters) -> Option<Box<Tenants>> {
        if !counters.are_told_apart() {
            return None;
        }
        let numbered = counters.tenants().iter().enumerate();
        let mut prefixes: Vec<_> = numbered.map(|(number, tenant)| (tenant.prefix.clone(), number)).collect();
        prefixes.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        Some(Box::new(Tenants { counters, prefixes, open: [(0, 0); TENANTS_MAX] }))
    }

    /// Counts a request about `key`, with the hits and misses that it was.
    pub fn count(&mut self, key: &[u8], operation: Operation, hits: u64, misses: u64) {
        let Some((_, number)) = self.prefixes.iter().find(|(prefix, _)| key.starts_with(prefix)) else { return };
        let tenant = &self.counters.tenants()[*number];
        tenant.hits.add(hits);
        tenant.misses.add(misses);
        let open = &mut self.open[*number];
        match operation {
            Operation::Get => open.0 += 1,
            Operation::Other => {}
            _ => {
                tenant.changes.add(1);
                open.1 += 1;
            }
        }
    }

    /// The turn has ended, after `ns` nanoseconds.
    pub fn end_turn(&mut self, ns: u64) {
        for (open, tenant) in self.open.iter_mut().zip(self.counters.tenants()) {
            let (reads, changes) = std::mem::take(open);
            if reads > 0 {
                tenant.read_times.add(ns, u64::from(reads));
            }
            if changes > 0 {
                tenant.change_times.add(ns, u64::from(changes));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::Buckets;

    #[test]
    fn a_key_counts_for_the_tenant_with_the_longest_prefix() {
        let named = [("all", ""), ("ads", "ads:"), ("hot", "ads:hot:")];
        let counters = TenantCounters::new(named.iter().map(|(name, prefix)| (name.to_string(), prefix.as_bytes())));
        let mut tenants = Tenants::new(counters.clone()).unwrap();
        tenants.count(b"ads:hot:1", Operation::Get, 1, 0);
        tenants.count(b"ads:2", Operation::Get, 0, 1);
        tenants.count(b"x", Operation::Set, 0, 0);
        tenants.end_turn(900);
        tenants.end_turn(5_000);
        let of = |number: usize| {
            let tenant = &counters.tenants()[number];
            let mut times = Buckets::default();
            tenant.read_times.read(&mut times);
            tenant.change_times.read(&mut times);
            (tenant.hits.get(), tenant.misses.get(), tenant.changes.get(), times.count, times.sum_ns)
        };
        assert_eq!((of(0), of(1), of(2)), ((0, 0, 1, 1, 900), (0, 1, 0, 1, 900), (1, 0, 0, 1, 900)));
    }

    #[test]
    fn keys_of_nobody_are_not_counted_and_one_tenant_of_all_keys_needs_no_counting() {
        let counters = TenantCounters::new([("ads".to_string(), &b"ads:"[..])].into_iter());
        let mut tenants = Tenants::new(counters.clone()).unwrap();
        tenants.count(b"other", Operation::Get, 1, 0);
        assert_eq!(counters.tenants()[0].hits.get(), 0);
        assert!(Tenants::new(TenantCounters::new([("default".to_string(), &b""[..])].into_iter())).is_none());
    }
}
