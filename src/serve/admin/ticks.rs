//! Ten times a second: what has happened since the last time, as a line of JSON (`docs/observability.md` has its shape).
//!
//!   sample ─┬─ minus the one a second before ─> rates, busy
//!           ├─ minus the one before, ten together ─> latencies of the last second
//!           └─ as it is ─────────────────────> totals, memory, connections
//!
//! Once a second a row of the most important numbers is kept for those who come later.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::base::limits;
use crate::observe::hot::HotKey;
use crate::observe::service::{OPERATIONS, STAGES};
use crate::observe::{Buckets, Operation, ShardFigures, Stage};
use crate::serve::admin::sample::{Facts, Sample};

/// Makes ticks of samples.
pub struct Ticks {
    before: Option<Arc<Sample>>,
    /// The samples of the last second, without times; rates count from the oldest. Some counters are published by their
    /// shards four times a second: over a shorter time they would seem to jump.
    past: VecDeque<Sample>,
    /// What requests took in each of the last ticks.
    windows: VecDeque<Window>,
    rows: VecDeque<Row>,
    /// When the last row was kept.
    row_at: Option<Duration>,
    /// How long evicted entries had been idle, as it stood at each row of the last minute.
    idle: VecDeque<Vec<u64>>,
    /// Names of hot keys are hashes with this secret.
    secret: RandomState,
    /// The slowest GET of the window and its shard.
    slowest: Option<(usize, u64)>,
}

/// Latencies of a tick.
#[derive(Default)]
struct Window {
    times: [[Buckets; STAGES.len()]; OPERATIONS.len()],
    shards: Vec<Buckets>,
    tenants: Vec<Buckets>,
}

/// Once a second, in the order of [`COLUMNS`].
type Row = [Option<u64>; COLUMNS.len()];

#[derive(Serialize)]
struct Tick {
    unix_ms: u64,
    uptime_s: f64,
    rates: Map<String, Value>,
    totals: Map<String, Value>,
    latency: Map<String, Value>,
    memory: Value,
    evictions: Value,
    connections: Value,
    shards: Vec<Value>,
    hot_keys: Vec<Value>,
    tenants: Vec<Value>,
}

impl Ticks {
    pub fn new() -> Ticks {
        Ticks {
            before: None,
            past: VecDeque::new(),
            windows: VecDeque::new(),
            rows: VecDeque::new(),
            row_at: None,
            idle: VecDeque::new(),
            secret: RandomState::new(),
            slowest: None,
        }
    }

    /// The line that a sample makes, beside the one before it.
    pub fn tick(&mut self, sample: Arc<Sample>, facts: &Facts, show_keys: bool) -> String {
        let before = self.before.take().unwrap_or_else(|| sample.clone());
        self.windows.push_back(Window::between(&before, &sample));
        while self.windows.len() > WINDOW_TICKS {
            self.windows.pop_front();
        }
        let mut window = Window::default();
        self.windows.iter().for_each(|tick| window.merge(tick));
        self.past.push_back(before.without_times());
        while self.past.len() > WINDOW_TICKS {
            self.past.pop_front();
        }
        self.keep_row(&sample, &window);
        // Shards do not tell their GETs apart: if the slowest of all was one, it is known whose.
        let numbered = window.shards.iter().enumerate();
        let slowest_get = window.times[Operation::Get as usize][Stage::Total as usize].percentile_ns(100.0);
        self.slowest = numbered
            .filter(|(_, times)| !times.is_empty())
            .map(|(shard, times)| (shard, times.percentile_ns(100.0)))
            .max_by_key(|(_, ns)| *ns)
            .filter(|(_, ns)| *ns == slowest_get);
        let tick = self.tick_of(&self.past[0], &sample, &window, facts, show_keys);
        self.before = Some(sample);
        // A value of ours is always JSON.
        serde_json::to_string(&tick).unwrap_or_default()
    }

    /// What a reader is told first.
    pub fn hello(&self, facts: &Facts, started_unix_ms: u64, show_keys: bool) -> String {
        let shards = facts.cores.iter().enumerate().map(|(shard, core)| json!({"shard": shard, "core": core}));
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "host": facts.host,
            "started_unix_ms": started_unix_ms,
            "poll": facts.poll,
            "io": facts.io,
            "profile": facts.profile,
            "shards": shards.collect::<Vec<_>>(),
            "memory_limit_bytes": facts.memory_limit_bytes,
            "keys_shown": show_keys,
            "interval_s": limits::ADMIN_TICK_MS as f64 / 1e3,
            "window_s": (WINDOW_TICKS as u64 * limits::ADMIN_TICK_MS) as f64 / 1e3,
            "percentiles": PERCENTILES,
            "history": {"interval_s": 1, "columns": COLUMNS, "rows": self.rows},
        })
        .to_string()
    }

    /// The shard of the slowest request of the last second, and its time in seconds.
    pub fn slowest(&self) -> Option<(String, f64)> {
        self.slowest.map(|(shard, ns)| (shard.to_string(), ns as f64 / 1e9))
    }

    fn tick_of(&self, before: &Sample, sample: &Sample, window: &Window, facts: &Facts, show_keys: bool) -> Tick {
        let seconds = sample.at.saturating_sub(before.at).as_secs_f64().max(1e-3);
        let rate = |after: u64, before: u64| after.saturating_sub(before) as f64 / seconds;
        let (mut rates, mut totals) = (Map::new(), Map::new());
        let (old, new) = (totals_of(before), totals_of(sample));
        for ((name, after), (_, before)) in new.into_iter().zip(old) {
            rates.insert(name.to_string(), rounded(rate(after, before)));
            totals.insert(name.to_string(), after.into());
        }
        let mut latency = Map::new();
        for operation in OPERATIONS {
            let times = &window.times[operation as usize];
            if times[Stage::Total as usize].is_empty() {
                continue;
            }
            let mut stages = Map::new();
            stages.insert("count".to_string(), times[Stage::Total as usize].count.into());
            for stage in STAGES {
                stages.insert(stage.name().to_string(), times[stage as usize].percentiles_ns(&PERCENTILES).into());
            }
            latency.insert(operation.name().to_string(), stages.into());
        }
        let mut memory: Map<String, Value> =
            Sample::memory_of(&sample.sum).into_iter().map(|(kind, bytes)| (kind.to_string(), bytes.into())).collect();
        let further = json!({
            "l0": facts.l0_bytes,
            "resident": sample.process.resident_bytes,
            "limit": facts.memory_limit_bytes,
            "huge_pages": sample.memory.huge_bytes,
            "entries": sample.sum.entries,
            "overhead_per_entry": rounded(Sample::overhead_of(&sample.sum)),
        });
        memory.extend(further.as_object().cloned().unwrap_or_default());
        let shards = sample.shards.iter().enumerate().map(|(shard, figures)| {
            let old = before.shards.get(shard).copied().unwrap_or_default();
            let sum = |sample: &Sample| sample.requests.get(shard).map_or(0, |counts| counts.iter().sum::<u64>());
            let treated = sample.core_rates.get(shard).copied().unwrap_or_default();
            json!({
                "shard": shard,
                "core": facts.cores.get(shard),
                "busy": rounded((rate(figures.busy_ns, old.busy_ns) / 1e9).min(1.0)),
                "requests": rounded(rate(sum(sample), sum(before))),
                "p99_ns": window.shards.get(shard).filter(|times| !times.is_empty()).map(|times| times.percentile_ns(99.0)),
                "entries": figures.entries,
                "connections": figures.connections_opened.saturating_sub(figures.connections_closed),
                "steal": rounded(treated.steal),
                "switches": rounded(treated.switches),
                "mailbox": figures.mailbox_depth,
                "buffers_exhausted": rounded(rate(figures.buffers_exhausted, old.buffers_exhausted)),
            })
        });
        let tenants = sample.tenants.iter().enumerate().map(|(number, tenant)| {
            let none = Default::default();
            let old = before.tenants.get(number).unwrap_or(&none);
            json!({
                "tenant": &*tenant.name,
                "hits_l0": rounded(rate(tenant.hits_l0, old.hits_l0)),
                "hits_l1": rounded(rate(tenant.hits_l1, old.hits_l1)),
                "misses": rounded(rate(tenant.misses, old.misses)),
                "changes": rounded(rate(tenant.changes, old.changes)),
                "get_p99_ns": window.tenants.get(number).filter(|it| !it.is_empty()).map(|it| it.percentile_ns(99.0)),
                "l0_entries": tenant.l0_entries,
                "l0_bytes": tenant.l0_bytes,
            })
        });
        let idle_before = self.idle.front().cloned().unwrap_or_default();
        let numbered = sample.evicted_idle.0.iter().enumerate();
        let idle: Vec<u64> =
            numbered.map(|(place, count)| count - idle_before.get(place).copied().unwrap_or(0).min(*count)).collect();
        let sum = &sample.sum;
        let l0_readers = sample.shards.iter().map(|shard| shard.l0_readers).max();
        Tick {
            unix_ms: sample.unix_ms,
            uptime_s: sample.at.as_secs_f64(),
            rates,
            totals,
            latency,
            memory: memory.into(),
            evictions: json!({
                "idle_p50_s": idle_quantile(&idle, 0.5),
                "idle_p90_s": idle_quantile(&idle, 0.9),
            }),
            connections: json!({
                "open": sum.connections_opened.saturating_sub(sum.connections_closed),
                "l0_readers": l0_readers,
                "near_caches": sum.near_subscribers,
            }),
            shards: shards.collect(),
            hot_keys: sample.hot_keys.iter().map(|(key, share)| self.hot_key(key, *share, show_keys)).collect(),
            tenants: tenants.collect(),
        }
    }

    fn hot_key(&self, key: &HotKey, share: f64, show_keys: bool) -> Value {
        let name = match show_keys {
            true => String::from_utf8_lossy(&key.key).into_owned(),
            // Clients know the seed of the key hash: with the secret nobody can try names against it.
            false => format!("#{:016x}", self.secret.hash_one(key.hash)),
        };
        json!({"key": name, "share": rounded(share)})
    }

    fn keep_row(&mut self, sample: &Sample, window: &Window) {
        let last = *self.row_at.get_or_insert(sample.at);
        if sample.at.saturating_sub(last).as_secs_f64() < ROW_SECONDS {
            return;
        }
        self.row_at = Some(sample.at);
        self.idle.push_back(sample.evicted_idle.0.clone());
        while self.idle.len() > IDLE_ROWS {
            self.idle.pop_front();
        }
        let before = &self.past[0];
        let elapsed = sample.at.saturating_sub(before.at).as_secs_f64().max(1e-3);
        let (old, new) = (totals_of(before), totals_of(sample));
        let rate = |name: &str| {
            let of =
                |totals: &[(&str, u64)]| totals.iter().find(|(known, _)| *known == name).map_or(0, |(_, value)| *value);
            Some((of(&new).saturating_sub(of(&old)) as f64 / elapsed).round() as u64)
        };
        let latency = |operation: Operation, percentile: f64| {
            let times = &window.times[operation as usize][Stage::Total as usize];
            (!times.is_empty()).then(|| times.percentile_ns(percentile))
        };
        let memory = Sample::memory_of(&sample.sum);
        self.rows.push_back(COLUMNS.map(|column| match column {
            "unix_ms" => Some(sample.unix_ms),
            "get_p50_ns" => latency(Operation::Get, 50.0),
            "get_p99_ns" => latency(Operation::Get, 99.0),
            "get_p999_ns" => latency(Operation::Get, 99.9),
            "set_p50_ns" => latency(Operation::Set, 50.0),
            "set_p99_ns" => latency(Operation::Set, 99.0),
            "set_p999_ns" => latency(Operation::Set, 99.9),
            name => match memory.iter().find(|(kind, _)| *kind == name) {
                Some((_, bytes)) => Some(*bytes),
                None => rate(name),
            },
        }));
        while self.rows.len() > HISTORY_ROWS {
            self.rows.pop_front();
        }
    }
}

impl Window {
    fn between(before: &Sample, after: &Sample) -> Window {
        let none = Buckets::default();
        let mut window = Window::default();
        for operation in 0..OPERATIONS.len() {
            for stage in 0..STAGES.len() {
                window.times[operation][stage] = after.times[operation][stage].since(&before.times[operation][stage]);
            }
        }
        let pairs = |after: &[Buckets], before: &[Buckets]| -> Vec<Buckets> {
            after.iter().enumerate().map(|(at, times)| times.since(before.get(at).unwrap_or(&none))).collect()
        };
        window.shards = pairs(&after.shard_times, &before.shard_times);
        let tenants = |sample: &Sample| -> Vec<Buckets> {
            sample.tenants.iter().map(|tenant| tenant.read_times.clone()).collect()
        };
        window.tenants = pairs(&tenants(after), &tenants(before));
        window
    }

    fn merge(&mut self, other: &Window) {
        for (sums, times) in self.times.iter_mut().zip(&other.times) {
            sums.iter_mut().zip(times).for_each(|(sum, times)| sum.merge(times));
        }
        for (sums, others) in [(&mut self.shards, &other.shards), (&mut self.tenants, &other.tenants)] {
            sums.resize(sums.len().max(others.len()), Buckets::default());
            sums.iter_mut().zip(others).for_each(|(sum, times)| sum.merge(times));
        }
    }
}

/// What is told as totals and as rates.
fn totals_of(sample: &Sample) -> Vec<(&'static str, u64)> {
    let sum: &ShardFigures = &sample.sum;
    let requests: u64 = (0..OPERATIONS.len()).map(|operation| sample.requests_of(operation)).sum();
    let mut totals = vec![("requests", requests)];
    totals.extend(OPERATIONS.map(|operation| (operation.name(), sample.requests_of(operation as usize))));
    totals.extend([
        ("hits_l0", sum.l0_hits),
        ("hits_l1", sum.get_hits),
        ("misses", sum.get_misses),
        ("evicted", sum.evicted),
        ("expired", sum.expired),
        ("ghost_hits", sum.ghost_hits),
        ("forwarded", sum.forwarded_out),
        ("received_bytes", sum.received_bytes),
        ("sent_bytes", sum.sent_bytes),
        ("connections_opened", sum.connections_opened),
        ("refused", sum.refused + sum.refused_busy),
    ]);
    totals
}

/// Seconds within which this share of evicted entries had last been asked for; `null` if there were none.
fn idle_quantile(places: &[u64], share: f64) -> Option<f64> {
    let all: u64 = places.iter().sum();
    let wanted = (all as f64 * share).ceil().max(1.0) as u64;
    let mut seen = 0;
    let place = places.iter().position(|count| {
        seen += count;
        seen >= wanted
    })?;
    Some((1u64 << place) as f64)
}

/// Four digits: what a reader sees, in a third of the bytes.
fn rounded(value: f64) -> Value {
    if value == 0.0 || !value.is_finite() {
        return json!(0.0);
    }
    let scale = 10f64.powi(4 - 1 - value.abs().log10().floor() as i32);
    json!(if scale < 1.0 { value.round() } else { (value * scale).round() / scale })
}

/// What latencies are told at.
pub const PERCENTILES: [f64; 12] = [0.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.95, 99.99, 99.999, 100.0];
/// What is kept once a second.
pub const COLUMNS: [&str; 17] = [
    "unix_ms",
    "requests",
    "hits_l0",
    "hits_l1",
    "misses",
    "get_p50_ns",
    "get_p99_ns",
    "get_p999_ns",
    "set_p50_ns",
    "set_p99_ns",
    "set_p999_ns",
    "payload",
    "structure",
    "fragmentation",
    "free",
    "evicted",
    "expired",
];
/// Ticks that latencies are told of: one second.
const WINDOW_TICKS: usize = (1000 / limits::ADMIN_TICK_MS) as usize;
/// Rows over which idle time at eviction is told: a minute.
const IDLE_ROWS: usize = 60;
/// Rows that are kept: ten minutes.
const HISTORY_ROWS: usize = 600;
/// A row is due after this long; a little less than a second, for ticks may come early.
const ROW_SECONDS: f64 = 0.95;

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at_ms: u64, requests: u64, ns: u64) -> Sample {
        let mut sample = Sample { at: Duration::from_millis(at_ms), unix_ms: 1_000_000 + at_ms, ..Sample::default() };
        let figures = ShardFigures {
            get_hits: requests,
            busy_ns: at_ms * 500_000,
            entries: 10,
            payload_bytes: 1_000,
            live_bytes: 1_050,
            index_bytes: 4_200,
            table_bytes: 200,
            used_bytes: 8_000,
            arena_bytes: 20_000,
            ..ShardFigures::default()
        };
        sample.shards = vec![figures];
        sample.sum = figures;
        sample.requests = vec![[requests, 0, 0, 0, 0, 0]];
        let mut times = Buckets::default();
        times.add(ns, requests);
        sample.times[0] = [times.clone(), times.clone(), times.clone()];
        sample.shard_times = vec![times];
        sample
    }

    fn parsed(line: &str) -> Value {
        assert!(!line.contains('\n'), "one line");
        serde_json::from_str(line).unwrap()
    }

    #[test]
    fn rates_are_of_the_interval_and_totals_of_all() {
        let (mut ticks, facts) = (Ticks::new(), Facts { cores: vec![3], ..Facts::default() });
        ticks.tick(Arc::new(sample(1_000, 500, 700)), &facts, false);
        let tick = parsed(&ticks.tick(Arc::new(sample(1_200, 900, 700)), &facts, false));
        assert_eq!((&tick["rates"]["get"], &tick["totals"]["get"]), (&json!(2_000.0), &json!(900)));
        assert_eq!(tick["shards"][0]["busy"], json!(0.5));
        assert_eq!((&tick["latency"]["get"]["count"], &tick["latency"]["get"]["total"][1]), (&json!(400), &json!(703)));
        assert!(tick["latency"].get("set").is_none());
        let memory = |kind: &str| tick["memory"][kind].as_u64().unwrap();
        assert_eq!(memory("payload") + memory("structure") + memory("fragmentation") + memory("free"), 20_000 + 200);
        assert_eq!(tick["memory"]["overhead_per_entry"], json!(425.0));
    }

    #[test]
    fn latencies_are_of_the_last_second_only() {
        let (mut ticks, facts) = (Ticks::new(), Facts::default());
        let mut last = Value::Null;
        for number in 0..=WINDOW_TICKS as u64 + 1 {
            // The one slow request comes with the second sample.
            let mut sample = sample(number * 100, number, 100);
            if number > 0 {
                sample.times[0][2].add(9_000_000, 1);
            }
            last = parsed(&ticks.tick(Arc::new(sample), &facts, false));
            let most = last["latency"]["get"]["total"][11].as_u64();
            assert_eq!(most > Some(8_000_000), (1..=WINDOW_TICKS as u64).contains(&number), "tick {number}: {most:?}");
        }
        assert_eq!(last["latency"]["get"]["count"], json!(WINDOW_TICKS));
    }

    #[test]
    fn a_second_makes_a_row_and_ten_minutes_are_kept() {
        let (mut ticks, facts) = (Ticks::new(), Facts::default());
        for number in 0..6_200 {
            ticks.tick(Arc::new(sample(number * 100, number * 7, 250)), &facts, false);
        }
        assert_eq!(ticks.rows.len(), HISTORY_ROWS);
        let hello = parsed(&ticks.hello(&facts, 5, false));
        let rows = hello["history"]["rows"].as_array().unwrap();
        let row: Vec<Option<u64>> = rows[100].as_array().unwrap().iter().map(Value::as_u64).collect();
        assert_eq!((row[1], row[5], row[8], row[11]), (Some(70), Some(250), None, Some(1_000)));
        assert!(rows.windows(2).all(|pair| pair[1][0].as_u64().unwrap() - pair[0][0].as_u64().unwrap() == 1_000));
    }

    #[test]
    fn names_of_hot_keys_are_hidden_unless_they_may_be_shown() {
        let (mut ticks, facts) = (Ticks::new(), Facts::default());
        let mut with_key = sample(0, 1, 1);
        with_key.hot_keys = vec![(HotKey { hash: 7, count: 9, error: 0, key: b"user:\"7\"\n"[..].into() }, 0.25)];
        let hidden = parsed(&ticks.tick(Arc::new(with_key.clone()), &facts, false));
        assert!(!hidden.to_string().contains("user"), "{hidden}");
        let name = hidden["hot_keys"][0]["key"].as_str().unwrap();
        assert!(name.starts_with('#') && name != format!("#{:016x}", 7));
        assert_eq!(
            hidden,
            parsed(&ticks.tick(Arc::new(with_key.clone()), &facts, false)),
            "the same key keeps its name"
        );
        let shown = parsed(&ticks.tick(Arc::new(with_key), &facts, true));
        assert_eq!(shown["hot_keys"][0], json!({"key": "user:\"7\"\n", "share": 0.25}));
    }

    #[test]
    fn numbers_are_rounded_to_four_digits() {
        let shown = [0.0, 0.123_456, 12_345.6, 123_456_789.0, 1e-9, f64::NAN].map(rounded);
        assert_eq!(shown, [0.0, 0.1235, 12_346.0, 123_456_789.0, 1e-9, 0.0].map(|value| json!(value)));
    }

    #[test]
    fn idle_time_is_the_end_of_its_octave() {
        assert_eq!(idle_quantile(&[1, 0, 0, 8, 1], 0.5), Some(8.0));
        assert_eq!(idle_quantile(&[0, 0], 0.5), None);
    }
}
