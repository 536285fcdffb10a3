//! Replays against published miss ratios.
//!
//! The traces are not in this repository. They are looked for in `$SPINETAIL_TRACES`, then in
//! `../shared/traces` beside the checkout: files `NAME.csv.zst`, and `reference.csv` with rows of
//! trace,cache_size,unit,policy,miss_ratio,…. Without them these tests say so and pass.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use spinetail::base::prng::Prng;
use spinetail::load::keys::{Distribution, Keys};
use spinetail::replay::{Capacity, Charge, Policy, replay};
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
fn the_learned_policy_closes_a_third_of_the_gap_between_lru_and_the_oracle() {
    let (mut sum, mut peer, mut count) = (0.0, 0.0, 0.0);
    for_each_row(|name, trace, capacity, published| {
        let oracle = published["Belady"].min(*published.get("BeladySize").unwrap_or(&1.0));
        let gap = published["LRU"] - oracle;
        if gap < 0.02 {
            return;
        }
        let report = replay(name, trace, capacity, Policy::Learned, Charge::Payload).unwrap();
        let closed = |ratio: f64| ((published["LRU"] - ratio) / gap).max(-1.0);
        println!("{name:<18} {capacity:?}: miss {:.4}, gap closed {:.3}", report.miss_ratio, closed(report.miss_ratio));
        sum += closed(report.miss_ratio);
        peer += closed(published["S3FIFO"]);
        count += 1.0;
    });
    if count > 0.0 {
        println!("mean {:.4} over {count} rows; S3-FIFO {:.4}", sum / count, peer / count);
        assert!(sum / count > 0.32, "a change has cost miss ratio: {:.4}", sum / count);
    }
}

#[test]
fn the_learned_policy_beats_lru_where_a_scan_runs_through_a_skewed_load() {
    let mut keys = Keys::new(Distribution::Zipf(0.9), 20_000, 5, 0);
    let mut prng = Prng::new(6);
    let mut trace = Trace { unique: 20_000, is_unsized: true, ..Trace::default() };
    let mut scanned = 1 << 40;
    for number in 0..400_000u32 {
        let key = if prng.below(3) == 0 { scanned + 1 } else { keys.next_key() };
        scanned = scanned.max(key);
        trace.requests.push(TraceRequest { second: number / 1000, key, size: 1 });
    }
    trace.unique += scanned - (1 << 40);
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
