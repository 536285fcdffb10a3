//! What is known of the appliance at one moment: every counter, every histogram, what the host says.
//!
//! Reading takes some ten microseconds a shard, on a housekeeping core; shards take no part in it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

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
}

/// Where all of it is read.
pub struct Sources {
    pub shared: Arc<Shared>,
    pub facts: Facts,
    vitals: Vitals,
    /// Each shard's core, and the thread pinned to it.
    pinned: Vec<(usize, Option<u32>)>,
    cores: Vec<CoreVitals>,
    cores_read: Option<Duration>,
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
    pub process: ProcessVitals,
    pub memory: MemoryVitals,
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
            cores_read: None,
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
        let mut sample = Sample {
            at,
            unix_ms: unix_ms(),
            turn_ages: turn_ages(&shared, at),
            requests: shared.times.iter().map(|times| OPERATIONS.map(|operation| times.count(operation))).collect(),
            cores: self.cores.clone(),
            process: self.process.clone(),
            memory: locked(&self.memory).clone(),
            hot_keys: hot_keys(&shared),
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

    fn look_at_host(&mut self, at: Duration) {
        if self.cores_read.is_none_or(|read| at.saturating_sub(read) >= CORES_READ_EVERY) {
            self.cores_read = Some(at);
            self.cores = self.vitals.cores(&self.pinned);
            self.process = self.vitals.process();
        }
    }
}

impl Sample {
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

/// The keys that are read most. A shard samples what its own connections ask, whoever owns the key, so the same key may
/// be on several lists; and it samples by time, so its samples stand for as many reads as it was asked.
fn hot_keys(shared: &Shared) -> Vec<(HotKey, f64)> {
    let reads: Vec<f64> = shared.times.iter().map(|times| times.count(Operation::Get) as f64).collect();
    let all = reads.iter().sum::<f64>().max(1.0);
    let mut found: HashMap<u64, (HotKey, f64)> = HashMap::new();
    for (published, reads) in shared.hot_keys.iter().zip(reads) {
        let (keys, samples) = published.read();
        let weight = reads / all / samples.max(1) as f64;
        // What a counter inherited from another key is not its own; and once is chance.
        for key in keys.into_iter().filter(|key| key.count - key.error > 1) {
            let share = (key.count - key.error) as f64 * weight;
            found.entry(key.hash).or_insert((key, 0.0)).1 += share;
        }
    }
    let mut found: Vec<(HotKey, f64)> = found.into_values().collect();
    found.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.hash.cmp(&b.0.hash)));
    found.truncate(HOT_KEYS_TOLD);
    found
}

/// Milliseconds of Unix time now.
pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

/// Hot keys that are told of.
const HOT_KEYS_TOLD: usize = 10;
/// How often procfs is asked about cores: on a machine with many of them it takes a millisecond to answer.
const CORES_READ_EVERY: Duration = Duration::from_millis(900);
