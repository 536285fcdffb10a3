//! What a shard answers others who compare themselves with it, and what it wants of what they name.
//!
//! Each answer is small enough for one turn: a bucket is a 256th part of the table, read in order; names and records are
//! asked for a turn's worth at a time. The questions they are put together from are in `repair`.

use crate::base::id::SiteId;
use crate::base::limits;
use crate::replica::port::{Step, StepAnswer};
use crate::replica::record::Record;
use crate::replica::repair::{Named, Summary};
use crate::replica::rules::Mode;
use crate::replica::shard::{Entries, Replica, may_go};
use crate::replica::table::KeyId;
use crate::replica::versions::{Buckets, Entry, Kind, Scope, window_of};

impl Replica {
    /// The digests of all that another site may have, by set of regions.
    pub fn summary(&self, to: SiteId) -> Vec<(Vec<SiteId>, Summary)> {
        let scopes = self.scopes.iter().enumerate();
        let shared = scopes.filter(|(_, regions)| regions.is_empty() || regions.contains(&to));
        shared
            .map(|(number, regions)| {
                let scope = Scope(number as u8);
                let windows = self.versions.windows(scope).map(|(window, buckets)| (window, buckets.sum())).collect();
                let counters = self.counters.buckets(scope).map(Buckets::sum).unwrap_or_default();
                (regions.to_vec(), Summary { floor: self.versions.floor(), windows, counters })
            })
            .collect()
    }

    /// The digests of one window's buckets, or those of the counters.
    pub fn buckets(&mut self, regions: &[SiteId], window: Option<u64>) -> Buckets {
        let Some(scope) = self.scope_of(regions) else { return Buckets::default() };
        let buckets = match window {
            Some(window) => self.versions.buckets(window, scope),
            None => self.counters.buckets(scope),
        };
        buckets.cloned().unwrap_or_default()
    }

    /// What is in one bucket: of some windows, and of the counters.
    pub fn named(&mut self, regions: &[SiteId], bucket: u8, windows: &[u64], with_counters: bool) -> Vec<Named> {
        let Some(scope) = self.scope_of(regions) else { return Vec::new() };
        let mut named = Vec::new();
        if !windows.is_empty() {
            let visit = |id, version| named.push(Named { id, version, is_counter: false });
            self.versions.of_bucket(bucket, windows, scope, visit);
        }
        if with_counters {
            self.counters.of_bucket(bucket, scope, |held| named.push(Named::of_counter(held.id, &held.counter)));
        }
        named
    }

    /// Whether what another site names is newer than what is known here.
    pub fn wants(&self, named: &Named) -> bool {
        if let Some(held) = self.counters.get(named.id) {
            return match named.is_counter {
                true => *named != Named::of_counter(named.id, &held.counter),
                false => named.version > held.counter.epoch,
            };
        }
        if named.is_counter {
            return true;
        }
        match self.versions.get(named.id) {
            Some(known) => named.version > known.version,
            None => window_of(named.version.time) >= self.versions.floor(),
        }
    }

    /// Appends the record of a name, for a site that lacks it.
    pub fn fetch(&mut self, id: KeyId, to: SiteId, entries: &mut impl Entries, out: &mut Vec<u8>) {
        let rules = self.rules.clone();
        if let Some(held) = self.counters.get(id) {
            let namespace = rules.of(&held.key);
            if !may_go(namespace, to) {
                self.counts.kept_home += 1;
                return;
            }
            Record::Counter { key: &held.key, counter: held.counter.clone(), epoch: namespace.epoch }.encode(out);
            self.counts.sent += 1;
            return;
        }
        let Some(entry) = self.versions.get(id) else { return };
        let scope_regions = self.scopes[entry.scope.0 as usize].clone();
        if !(scope_regions.is_empty() || scope_regions.contains(&to)) {
            self.counts.kept_home += 1;
            return;
        }
        let version = entry.version;
        let mut is_home = None;
        let mut is_sent = false;
        if entry.kind == Kind::Value {
            entries.look(id, &mut |key, found| {
                let namespace = rules.of(key);
                if !may_go(namespace, to) {
                    // It was written when other rules held; from now on it is among those of its own regions.
                    is_home = Some(namespace.clone());
                } else if !self.is_purged(key, version) {
                    Record::Value { key, found, version, epoch: namespace.epoch }.encode(out);
                    is_sent = true;
                }
            });
        }
        if let Some(namespace) = is_home {
            self.counts.kept_home += 1;
            match self.scope_of(&namespace.regions).filter(|_| namespace.mode == Mode::Eventual) {
                Some(scope) => _ = self.versions.set(id, Entry { scope, ..entry }),
                None => _ = self.versions.remove(id),
            }
            return;
        }
        if !is_sent {
            // Deleted, or evicted or expired here: then the other's older value is no better than none.
            Record::Gone { key: None, id, version, regions: scope_regions.to_vec() }.encode(out);
        }
        self.counts.sent += 1;
    }

    /// Does a step of a question.
    pub fn answer(&mut self, step: Step, entries: &mut impl Entries) -> StepAnswer {
        match step {
            Step::Summary { to } => StepAnswer::Summary(self.summary(to), Box::new(self.counts)),
            Step::Buckets { regions, windows } => {
                StepAnswer::Buckets(windows.into_iter().map(|window| self.buckets(&regions, window)).collect())
            }
            Step::List { regions, bucket, windows, with_counters } => {
                StepAnswer::List(self.named(&regions, bucket, &windows, with_counters))
            }
            Step::Wanted(named) => {
                StepAnswer::Wanted(named.iter().filter(|named| self.wants(named)).map(|named| named.id).collect())
            }
            Step::Fetch { ids, to } => {
                let (mut bytes, mut left) = (Vec::new(), Vec::new());
                for id in ids {
                    match bytes.len() < limits::REPLICATION_STEP_BYTES_MAX {
                        true => self.fetch(id, to, entries, &mut bytes),
                        false => left.push(id),
                    }
                }
                StepAnswer::Records(bytes, left)
            }
        }
    }
}
