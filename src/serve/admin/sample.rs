//! What is known of the appliance at one moment: every counter, every histogram, what the host says.
//!
//! Reading takes some ten microseconds a shard, on a housekeeping core; shards take no part in it.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::cluster::host::status::StatusSource;
use crate::engine::Shared;
use crate::host::vitals::{CoreVitals, MemoryVitals, ProcessVitals, Vitals};
use crate::observe::hot::HotKey;
use crate::observe::service::{OPERATIONS, STAGES};
use crate::observe::{Buckets, Operation, ShardFigures, Stage};
use crate::serve::admin::locked;

/// What does not change while the appliance runs.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The host's name.
    pub host: String,
    /// What an idle shard does.
    pub poll: &'static str,
    /// What drives the sockets.
    pub io: &'static str,
    /// The profile's name.
    pub profile: String,
    /// Each shard's core.
    pub cores: Vec<usize>,
    /// Memory of the whole.
    pub memory_limit_bytes: u64,
    /// What L0 takes of it.
    pub l0_bytes: u64,
    /// What each tenant's L0 tables take.
    pub tenant_l0_bytes: Vec<u64>,
    /// How the cluster's node does, if this appliance is one.
    pub cluster: Option<ClusterFigures>,
}

/// Tells how the cluster's node does.
#[derive(Clone)]
pub struct ClusterFigures(pub StatusSource);

impl fmt::Debug for ClusterFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterFigures")
    }
}

/// Where all of it is read.
pub struct Sources {
    pub shared: Arc<Shared>,
    pub facts: Facts,
    vitals: Vitals,
    /// Each shard's core, and the thread pinned to it.
    pinned: Vec<(usize, Option<u32>)>,
    cores: Vec<CoreVitals>,
    core_rates: Vec<CoreRates>,
    cores_read: Option<Duration>,
    /// GETs by shard when that was last looked at, and how many there had been since the time before.
    reads: Vec<u64>,
    fresh_reads: Vec<u64>,
    reads_read: Option<Duration>,
    process: ProcessVitals,
    memory: Arc<Mutex<MemoryVitals>>,
}

/// Everything at one moment.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// Since the start.
    pub at: Duration,
    /// Milliseconds of Unix time.
    pub unix_ms: u64,
    /// Each shard's counters, and their sum.
    pub shards: Vec<ShardFigures>,
    pub sum: ShardFigures,
    /// Requests by shard and operation.
    pub requests: Vec<[u64; OPERATIONS.len()]>,
    /// What requests took, by operation and stage, of all shards.
    pub times: [[Buckets; STAGES.len()]; OPERATIONS.len()],
    /// What requests took that another shard answered.
    pub forwarded: [Buckets; OPERATIONS.len()],
    /// What requests of any operation took, by shard.
    pub shard_times: Vec<Buckets>,
    /// Evicted entries by how long they had been idle (place n: less than 2^n seconds), and the sum in milliseconds.
    pub evicted_idle: (Vec<u64>, u64),
    pub tenants: Vec<TenantSample>,
    /// When each shard last took a turn, before now.
    pub turn_ages: Vec<Duration>,
    /// The most read keys of all shards, with their share of the samples.
    pub hot_keys: Vec<(HotKey, f64)>,
    pub cores: Vec<CoreVitals>,
    /// The same as rates, between the last two times that procfs was asked.
    pub core_rates: Vec<CoreRates>,
    pub process: ProcessVitals,
    pub memory: MemoryVitals,
}

/// How a shard's core is treated now.
#[derive(Clone, Copy, Debug, Default)]
pub struct CoreRates {
    /// Share of the time that the hypervisor gave to others.
    pub steal: f64,
    /// Times a second that the shard's thread was taken off.
    pub switches: f64,
}

/// A tenant's part.
#[derive(Clone, Debug, Default)]
pub struct TenantSample {
    pub name: Arc<str>,
    pub hits_l0: u64,
    pub hits_l1: u64,
    pub misses: u64,
    pub changes: u64,
    pub l0_entries: u64,
    pub l0_bytes: u64,
    pub read_times: Buckets,
    pub change_times: Buckets,
}

impl Sources {
    pub fn new(shared: Arc<Shared>, facts: Facts, vitals: Vitals, memory: Arc<Mutex<MemoryVitals>>) -> Sources {
        let numbered = facts.cores.iter().enumerate();
        let pinned = numbered.map(|(shard, core)| (*core, vitals.thread(&format!("shard-{shard}")))).collect();
        Sources {
            shared,
            facts,
            vitals,
            pinned,
            cores: Vec::new(),
            core_rates: Vec::new(),
            cores_read: None,
            reads: Vec::new(),
            fresh_reads: Vec::new(),
            reads_read: None,
            process: ProcessVitals::default(),
            memory,
        }
    }

    /// Reads everything.
    pub fn sample(&mut self) -> Sample {
        let shared = self.shared.clone();
        let at = shared.started.elapsed();
        self.look_at_host(at);
        let shards: Vec<ShardFigures> = shared.counters.iter().map(|shard| shard.read()).collect();
        let mut sum = ShardFigures::default();
        shards.iter().for_each(|shard| sum.add(shard));
        let hot_keys = self.hot_keys(at);
        let mut sample = Sample {
            at,
            unix_ms: crate::base::time::unix_ms(),
            turn_ages: turn_ages(&shared, at),
            requests: shared.times.iter().map(|times| OPERATIONS.map(|operation| times.count(operation))).collect(),
            cores: self.cores.clone(),
            core_rates: self.core_rates.clone(),
            process: self.process.clone(),
            memory: locked(&self.memory).clone(),
            hot_keys,
            shards,
            sum,
            ..Sample::default()
        };
        for times in &shared.times {
            let mut all = Buckets::default();
            for operation in OPERATIONS {
                if times.count(operation) == 0 {
                    continue;
                }
                for stage in STAGES {
                    times.read(operation, stage, &mut sample.times[operation as usize][stage as usize]);
                }
                times.read(operation, Stage::Total, &mut all);
                times.read_forwarded(operation, &mut sample.forwarded[operation as usize]);
            }
            sample.shard_times.push(all);
        }
        for idle in &shared.evicted_idle {
            let (places, sum_ms) = idle.read();
            sample.evicted_idle.0.resize(places.len(), 0);
            sample.evicted_idle.0.iter_mut().zip(places).for_each(|(sum, count)| *sum += count);
            sample.evicted_idle.1 += sum_ms;
        }
        sample.tenants = self.tenants(&sample);
        sample
    }

    fn tenants(&self, sample: &Sample) -> Vec<TenantSample> {
        let Some(first) = self.shared.tenants.first() else { return Vec::new() };
        let numbered = first.tenants().iter().enumerate();
        let mut tenants: Vec<TenantSample> = numbered
            .map(|(number, tenant)| TenantSample {
                name: tenant.name.clone(),
                l0_bytes: self.facts.tenant_l0_bytes.get(number).copied().unwrap_or(0),
                ..TenantSample::default()
            })
            .collect();
        for shard in &self.shared.tenants {
            for (sum, tenant) in tenants.iter_mut().zip(shard.tenants()) {
                sum.hits_l0 += tenant.l0_hits.get();
                sum.hits_l1 += tenant.hits.get();
                sum.misses += tenant.misses.get();
                sum.changes += tenant.changes.get();
                sum.l0_entries += tenant.l0_entries.get();
                tenant.read_times.read(&mut sum.read_times);
                tenant.change_times.read(&mut sum.change_times);
            }
        }
        if let [only] = tenants.as_mut_slice()
            && !first.are_told_apart()
        {
            // Everything is its own.
            only.hits_l1 = sample.sum.get_hits;
            only.misses = sample.sum.get_misses;
            let times_of = |operation: Operation| &sample.times[operation as usize][Stage::Total as usize];
            only.read_times = times_of(Operation::Get).clone();
            for operation in [Operation::Set, Operation::Delete, Operation::Increment, Operation::Touch] {
                only.changes += sample.requests_of(operation as usize);
                only.change_times.merge(times_of(operation));
            }
        }
        tenants
    }

    /// The keys that are read most. A shard samples what its own connections ask, whoever owns the key, so the same key
    /// may be on several lists; and it samples by time, so its samples stand for as many reads as it was asked lately.
    fn hot_keys(&mut self, at: Duration) -> Vec<(HotKey, f64)> {
        if self.reads_read.is_none_or(|read| at.saturating_sub(read) >= READS_READ_EVERY) {
            self.reads_read = Some(at);
            let reads: Vec<u64> = self.shared.times.iter().map(|times| times.count(Operation::Get)).collect();
            let before = |shard: usize| self.reads.get(shard).copied().unwrap_or(0);
            self.fresh_reads =
                reads.iter().enumerate().map(|(shard, reads)| reads - before(shard).min(*reads)).collect();
            self.reads = reads;
        }
        let all = self.fresh_reads.iter().sum::<u64>().max(1) as f64;
        let mut found: HashMap<u64, (HotKey, f64)> = HashMap::new();
        for (published, reads) in self.shared.hot_keys.iter().zip(&self.fresh_reads) {
            let (keys, samples) = published.read();
            let weight = *reads as f64 / all / samples.max(1) as f64;
            // What a counter inherited from another key is not its own; and once is chance.
            for key in keys.into_iter().filter(|key| key.count - key.error > 1 && weight > 0.0) {
                let share = (key.count - key.error) as f64 * weight;
                found.entry(key.hash).or_insert((key, 0.0)).1 += share;
            }
        }
        let mut found: Vec<(HotKey, f64)> = found.into_values().collect();
        found.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.hash.cmp(&b.0.hash)));
        found.truncate(HOT_KEYS_TOLD);
        found
    }

    fn look_at_host(&mut self, at: Duration) {
        if self.cores_read.is_none_or(|read| at.saturating_sub(read) >= CORES_READ_EVERY) {
            let seconds = at.saturating_sub(self.cores_read.replace(at).unwrap_or(at)).as_secs_f64();
            let cores = self.vitals.cores(&self.pinned);
            let rate = |(now, before): (&CoreVitals, &CoreVitals)| CoreRates {
                steal: ((now.steal_s - before.steal_s) / seconds.max(1e-3)).clamp(0.0, 1.0),
                switches: now.involuntary.saturating_sub(before.involuntary) as f64 / seconds.max(1e-3),
            };
            self.core_rates = cores.iter().zip(&self.cores).map(rate).collect();
            self.cores = cores;
            self.process = self.vitals.process();
        }
    }
}

impl Sample {
    /// The same without histograms, which are most of it.
    pub fn without_times(&self) -> Sample {
        let plain = |tenant: &TenantSample| TenantSample {
            name: tenant.name.clone(),
            read_times: Buckets::default(),
            change_times: Buckets::default(),
            ..*tenant
        };
        Sample {
            at: self.at,
            unix_ms: self.unix_ms,
            shards: self.shards.clone(),
            sum: self.sum,
            requests: self.requests.clone(),
            tenants: self.tenants.iter().map(plain).collect(),
            ..Sample::default()
        }
    }

    /// Bytes of arenas and tables: keys and values, what is needed to find them, dead bytes in segments in use, and
    /// segments not in use.
    pub fn memory_of(figures: &ShardFigures) -> [(&'static str, u64); 4] {
        let headers = figures.live_bytes.saturating_sub(figures.payload_bytes);
        let pages = figures.index_bytes.saturating_sub(figures.table_bytes);
        [
            ("payload", figures.payload_bytes),
            ("structure", figures.index_bytes + headers),
            ("fragmentation", figures.used_bytes.saturating_sub(pages + figures.live_bytes)),
            ("free", figures.arena_bytes.saturating_sub(figures.used_bytes)),
        ]
    }

    /// Bytes of structure for each entry.
    pub fn overhead_of(figures: &ShardFigures) -> f64 {
        Sample::memory_of(figures)[1].1 as f64 / figures.entries.max(1) as f64
    }

    /// Requests of one operation, of all shards.
    pub fn requests_of(&self, operation: usize) -> u64 {
        self.requests.iter().map(|shard| shard[operation]).sum()
    }
}

/// How long ago each shard said that it takes turns.
pub fn turn_ages(shared: &Shared, now: Duration) -> Vec<Duration> {
    let age = |beat_ms: u64| now.saturating_sub(Duration::from_millis(beat_ms));
    shared.beats_ms.iter().map(|beat| age(beat.get())).collect()
}

/// Hot keys that are told of.
const HOT_KEYS_TOLD: usize = 10;
/// How often it is looked how much each shard is asked; a shard that is asked nothing has no hot keys.
const READS_READ_EVERY: Duration = Duration::from_secs(5);
/// How often procfs is asked about cores: on a machine with many of them it takes a millisecond to answer.
const CORES_READ_EVERY: Duration = Duration::from_millis(900);
