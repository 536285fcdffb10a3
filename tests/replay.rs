//! Replays against published miss ratios.
//!
//! The traces are not in this repository. They are looked for in `$SPINETAIL_TRACES`, then in
//! `../shared/traces` beside the checkout: files `NAME.csv.zst`, and `reference.csv` with rows of
//! trace,cache_size,unit,policy,miss_ratio,…. Without them these tests say so and pass.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use spinetail::base::prng::Prng;
use spinetail::load::keys::{Distribution, Keys};
use spinetail::replay::{Capacity, Charge, Policy, curve, replay, replay_from};
use spinetail::trace::{Trace, TraceRequest};

type Rows = BTreeMap<(String, u64), BTreeMap<String, f64>>;

fn reference() -> Option<(PathBuf, Rows)> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/traces");
    let dir = std::env::var_os("SPINETAIL_TRACES").map_or(beside, PathBuf::from);
    let Ok(text) = std::fs::read_to_string(dir.join("reference.csv")) else {
        println!("SKIPPED: no reference.csv in {}; set SPINETAIL_TRACES", dir.display());
        return None;
    };
    let mut rows = Rows::new();
    for line in text.lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        let (size, ratio) = (fields[1].parse().unwrap(), fields[4].parse().unwrap());
        rows.entry((fields[0].to_string(), size)).or_default().insert(fields[3].to_string(), ratio);
    }
    Some((dir, rows))
}

/// Calls `visit` with each row, its trace read once.
fn for_each_row(mut visit: impl FnMut(&str, &Trace, Capacity, &BTreeMap<String, f64>)) {
    let Some((dir, rows)) = reference() else { return };
    let mut read: Option<(String, Trace)> = None;
    for ((name, size), published) in rows {
        if read.as_ref().is_none_or(|(last, _)| *last != name) {
            let trace = Trace::read(&dir.join(format!("{name}.csv.zst"))).unwrap();
            read = Some((name.clone(), trace));
        }
        let trace = &read.as_ref().unwrap().1;
        let capacity = if trace.is_unsized { Capacity::Objects(size) } else { Capacity::Bytes(size) };
        visit(&name, trace, capacity, &published);
    }
}

#[test]
fn lru_gives_the_published_miss_ratio_on_every_row() {
    for_each_row(|name, trace, capacity, published| {
        let report = replay(name, trace, capacity, Policy::Lru, Charge::Payload).unwrap();
        let difference = (report.miss_ratio - published["LRU"]).abs();
        assert!(difference < 1e-6, "{name} {capacity:?}: {} for {}", report.miss_ratio, published["LRU"]);
    });
}

#[test]
fn s3fifo_gives_the_published_miss_ratio_on_every_row() {
    for_each_row(|name, trace, capacity, published| {
        let report = replay(name, trace, capacity, Policy::S3Fifo, Charge::Payload).unwrap();
        let difference = (report.miss_ratio - published["S3FIFO"]).abs();
        assert!(difference < 0.001, "{name} {capacity:?}: {} for {}", report.miss_ratio, published["S3FIFO"]);
    });
}

/// The published W-TinyLFU counts with a sketch and has a window of at least one object in fewer cases, so
/// small capacities differ by more than this.
#[test]
fn w_tinylfu_comes_near_the_published_miss_ratio_on_large_rows() {
    for_each_row(|name, trace, capacity, published| {
        let Capacity::Objects(objects) = capacity else { return };
        if objects < 1000 || name.starts_with("lirs_") {
            return;
        }
        let report = replay(name, trace, capacity, Policy::WTinyLfu, Charge::Payload).unwrap();
        let difference = report.miss_ratio - published["WTinyLFU"];
        assert!(difference < 0.01, "{name} {capacity:?}: {} for {}", report.miss_ratio, published["WTinyLFU"]);
    });
}

/// What a buyer is promised, row by row: the mean of the gap between LRU and the oracle that is closed, and
/// that nobody is worse off than with LRU or S3-FIFO, in requests or in bytes.
#[test]
fn the_learned_policy_closes_two_fifths_of_the_gap_between_lru_and_the_oracle() {
    let (mut closed_all, mut closed_recorded, mut closed_s3fifo) = (Mean::default(), Mean::default(), Mean::default());
    let mut near_s3fifo = Mean::default();
    for_each_row(|name, trace, capacity, published| {
        let report = replay(name, trace, capacity, Policy::Learned, Charge::Payload).unwrap();
        let (ours, lru, s3fifo) = (report.miss_ratio, published["LRU"], published["S3FIFO"]);
        near_s3fifo.add(f64::from(u8::from(ours <= s3fifo + 0.005)));
        assert!(ours <= lru + LRU_TOLERANCE, "{name} {capacity:?}: {ours:.4}, LRU {lru:.4}");
        if !trace.is_unsized {
            let lru = replay(name, trace, capacity, Policy::Lru, Charge::Payload).unwrap().byte_miss_ratio;
            let ratio = report.byte_miss_ratio / lru;
            assert!(ratio <= 1.05, "{name} {capacity:?}: {ratio:.3} times the bytes that LRU misses");
        }
        let oracle = published["Belady"].min(*published.get("BeladySize").unwrap_or(&1.0));
        if lru - oracle < 0.02 {
            return;
        }
        let closed = |ratio: f64| ((lru - ratio) / (lru - oracle)).max(-1.0);
        println!("{name:<18} {capacity:?}: miss {ours:.4}, gap closed {:.3}", closed(ours));
        closed_all.add(closed(ours));
        closed_s3fifo.add(closed(s3fifo));
        if !name.starts_with("lirs_") {
            closed_recorded.add(closed(ours));
        }
    });
    if closed_all.count > 0.0 {
        let (all, recorded, s3fifo) = (closed_all.get(), closed_recorded.get(), closed_s3fifo.get());
        println!("gap closed {all:.4}, without lirs_* {recorded:.4}; S3-FIFO {s3fifo:.4}");
        println!("no worse than S3-FIFO + 0.005 on {:.1} % of rows", 100.0 * near_s3fifo.get());
        assert!(all > 0.41 && recorded > 0.33, "a change has cost miss ratio: {all:.4}, {recorded:.4}");
        assert!(near_s3fifo.get() >= 0.9, "worse than S3-FIFO on too many rows: {:.3}", near_s3fifo.get());
    }
}

/// How much worse than LRU a row may be. Where LRU is optimal (zigzag) learning that costs some requests.
const LRU_TOLERANCE: f64 = 0.01;

#[derive(Default)]
struct Mean {
    sum: f64,
    count: f64,
}

impl Mean {
    fn add(&mut self, value: f64) {
        self.sum += value;
        self.count += 1.0;
    }

    fn get(&self) -> f64 {
        self.sum / self.count
    }
}

#[test]
fn a_warm_table_beats_a_cold_one_on_the_same_trace() {
    let mut colder = Mean::default();
    for_each_row(|name, trace, capacity, _| {
        if trace.requests.len() > 1_000_000 {
            return;
        }
        let run = |learned: Option<&[u8]>| {
            replay_from(name, trace, capacity, Policy::Learned, Charge::Payload, learned).unwrap()
        };
        let (cold, learned) = run(None);
        let (warm, _) = run(Some(&learned.expect("the learned policy learns")));
        println!("{name} {capacity:?}: cold {:.4}, warm {:.4}", cold.miss_ratio, warm.miss_ratio);
        colder.add(cold.miss_ratio - warm.miss_ratio);
    });
    if colder.count > 0.0 {
        println!("warm is better by {:.4} on average", colder.get());
        assert!(colder.get() > 0.001, "{:.5}", colder.get());
    }
}

/// The same with a load that everybody has: what was learned of one half is worth something in the other.
#[test]
fn a_warm_table_misses_less_where_a_scan_runs_through_a_skewed_load() {
    let (first, second) = (scan_through_zipf(5), scan_through_zipf(50));
    let run = |trace: &Trace, learned: Option<&[u8]>| {
        replay_from("scan", trace, Capacity::Objects(1000), Policy::Learned, Charge::Payload, learned).unwrap()
    };
    let (_, learned) = run(&first, None);
    let mut short = second;
    short.requests.truncate(20_000);
    let (cold, warm) = (run(&short, None).0.misses, run(&short, learned.as_deref()).0.misses);
    assert!(warm < cold, "warm {warm}, cold {cold}");
}

#[test]
fn a_curve_from_a_sample_comes_near_full_replays() {
    let (mut errors, mut last) = (Mean::default(), String::new());
    for_each_row(|name, trace, _, _| {
        // One row of each trace, and those that are quick to replay in full.
        if last == name || trace.unique < 10_000 || trace.requests.len() > 1_000_000 {
            return;
        }
        last = name.to_string();
        if let Ok(curve) = curve(name, trace, Policy::Learned, true) {
            let error = curve.mean_absolute_error.expect("asked for");
            println!("{name}: {} points, mean absolute error {error:.4}", curve.points.len());
            errors.add(error);
        }
    });
    assert!(errors.count == 0.0 || errors.get() < 0.02, "{:.4}", errors.get());
}

fn scan_through_zipf(seed: u64) -> Trace {
    let mut keys = Keys::new(Distribution::Zipf(0.9), 20_000, seed, 0);
    let mut prng = Prng::new(seed + 1);
    let mut trace = Trace { unique: 20_000, is_unsized: true, ..Trace::default() };
    let mut scanned = 1 << 40;
    for number in 0..400_000u32 {
        let key = if prng.below(3) == 0 { scanned + 1 } else { keys.next_key() };
        scanned = scanned.max(key);
        trace.requests.push(TraceRequest { second: number / 1000, key, size: 1 });
    }
    trace.unique += scanned - (1 << 40);
    trace
}

#[test]
fn the_learned_policy_beats_lru_where_a_scan_runs_through_a_skewed_load() {
    let trace = scan_through_zipf(5);
    let ratio = |policy| replay("scan", &trace, Capacity::Objects(1000), policy, Charge::Payload).unwrap().miss_ratio;
    let (learned, lru) = (ratio(Policy::Learned), ratio(Policy::Lru));
    assert!(learned < lru - 0.03, "learned {learned:.4}, lru {lru:.4}");
    assert_eq!(ratio(Policy::Learned), learned, "a replay is the same every time");
}

#[test]
fn capacities_that_do_not_fit_the_trace_are_refused() {
    let request = TraceRequest { second: 0, key: 1, size: 1 };
    let trace = Trace { requests: vec![request], unique: 1, footprint_bytes: 1, is_unsized: true };
    let refused = |capacity, policy, charge| replay("t", &trace, capacity, policy, charge).unwrap_err();
    assert!(refused(Capacity::Bytes(100), Policy::Learned, Charge::Payload).contains("in objects"));
    assert!(refused(Capacity::Objects(5), Policy::Learned, Charge::All).contains("in bytes"));
    assert!(refused(Capacity::Bytes(64), Policy::Learned, Charge::All).contains("less than a store"));
    assert!(refused(Capacity::Bytes(1 << 20), Policy::Lru, Charge::All).contains("payload"));
}
