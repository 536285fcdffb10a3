//! The table on stdout and the same rows as JSON.

use std::path::PathBuf;
use std::{env, fs, io};

use serde_json::{Value, json};

use spinetail::host::calibrate::keep::HINT;
use spinetail::host::calibration::{Calibration, Figures};

use crate::common::measure::{Rounds, median};

/// One line of the table: a subject in a case.
pub struct Row {
    pub case: String,
    pub subject: &'static str,
    pub median_ns: f64,
    pub p99_ns: f64,
    pub rounds: usize,
}

impl Row {
    /// The usual row: median of the rounds' means, median of their p99.
    pub fn usual(case: &str, subject: &'static str, rounds: &Rounds) -> Row {
        let (median_ns, p99_ns) = (median(&rounds.mean_ns), median(&rounds.p99_ns));
        Row { case: case.to_owned(), subject, median_ns, p99_ns, rounds: rounds.mean_ns.len() }
    }
}

/// Prints rows in the order they came, with ratios to the rows of `floor` and `peer` in each case.
pub fn print(rows: &[Row], floor: &str, peer: &str) {
    println!(
        "{:<32} {:<14} {:>12} {:>12} {:>9} {:>14}",
        "case",
        "subject",
        "median ns",
        "p99 ns",
        "/ floor",
        format!("/ {peer}")
    );
    let mut last = "";
    for row in rows {
        let ratio = |subject: &str| {
            let other = rows.iter().find(|other| other.case == row.case && other.subject == subject);
            match other {
                Some(other) if other.median_ns > 0.0 => format!("{:.2}", row.median_ns / other.median_ns),
                _ => "-".to_owned(),
            }
        };
        let case = if row.case == last { "" } else { row.case.as_str() };
        last = &row.case;
        println!(
            "{case:<32} {:<14} {:>12.1} {:>12.0} {:>9} {:>14}",
            row.subject,
            row.median_ns,
            row.p99_ns,
            ratio(floor),
            ratio(peer)
        );
    }
}

/// Writes `target/bench/NAME.json` (below `CARGO_TARGET_DIR` if that is set) and answers its path.
pub fn write(name: &str, host: Value, rows: &[Row]) -> io::Result<PathBuf> {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let folder = target.join("bench");
    fs::create_dir_all(&folder)?;
    let tenth = |ns: f64| (ns * 10.0).round() / 10.0;
    let rows: Vec<Value> = rows
        .iter()
        .map(|row| {
            json!({
                "case": row.case, "subject": row.subject, "median_ns": tenth(row.median_ns),
                "p99_ns": tenth(row.p99_ns), "rounds": row.rounds,
            })
        })
        .collect();
    let path = folder.join(format!("{name}.json"));
    fs::write(&path, serde_json::to_string_pretty(&json!({ "host": host, "rows": rows }))? + "\n")?;
    Ok(path)
}

/// The machine, as far as it says, and its own figures where it was calibrated; these are printed as well.
pub fn host(cores: usize, core: Option<usize>, size: &str) -> Value {
    let calibration = Calibration::load().map(|taken| taken.figures());
    println!("{}", calibration.as_ref().map_or_else(|| HINT.to_owned(), Figures::line));
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
    json!({
        "cpu": model.trim_start_matches(['\t', ' ', ':']),
        "cores": cores,
        "pinned_core": core,
        "last_level_cache": read("/sys/devices/system/cpu/cpu0/cache/index3/size").trim(),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "transparent_huge_pages": read("/sys/kernel/mm/transparent_hugepage/enabled").trim(),
        "load_average": read("/proc/loadavg").split(' ').next().unwrap_or_default(),
        "size": size,
        "calibration": calibration,
    })
}

/// How often this thread has lost its core to another since it started.
pub fn preemptions() -> u64 {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("nonvoluntary_ctxt_switches:"));
    line.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}
