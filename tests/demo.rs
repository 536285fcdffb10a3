//! `demo` in its shortest form: it ends well, leaves its two files, and leaves nothing running.

mod common;

use std::fs;
use std::process::Command;
use std::time::Duration;

use common::*;
use serde_json::Value;

#[test]
fn the_demo_leaves_a_report_and_nothing_running() {
    let scratch = Scratch::new("demo");
    // A copy of its own: whoever runs under this path was started by this demo.
    let executable = scratch.file("demonstrated");
    fs::copy(SPINETAIL, &executable).unwrap();
    let out = scratch.file("out");
    let mut command = Command::new(&executable);
    command.args(["demo", "--seconds", "1", "--out", &out]);
    let ended = run(command, Duration::from_secs(120));
    assert_eq!(ended.status, Some(0), "{ended:?}");
    assert!(eventually(PATIENCE, || running(&executable).is_empty()), "left running: {:?}", running(&executable));

    let report = fs::read_to_string(scratch.path().join("out/report.html")).unwrap();
    assert!(report.contains("<svg") && report.trim_end().ends_with("</html>"), "{} bytes", report.len());
    let json: Value = serde_json::from_str(&fs::read_to_string(scratch.path().join("out/demo.json")).unwrap()).unwrap();
    let loads = json["loads"].as_array().unwrap();
    assert!(!loads.is_empty());
    for load in loads {
        let outcome = &load["outcome"];
        assert_eq!(outcome["errors"], 0, "{}", load["name"]);
        for operation in ["get", "set"] {
            let measured = &outcome["operations"][operation];
            assert!(measured["count"].as_u64().unwrap() > 0, "{}: no {operation}", load["name"]);
            let at = |name: &str| measured["latency_ns"][name].as_u64().unwrap();
            let percentiles = ["min", "p50", "p90", "p99", "p999", "p9999", "max"].map(at);
            assert!(percentiles[0] > 0 && percentiles.is_sorted(), "{}: {operation} {percentiles:?}", load["name"]);
        }
        assert!(ended.stdout.contains(load["name"].as_str().unwrap()), "the table has all loads: {}", ended.stdout);
    }
    assert!(json["host"].as_object().is_some_and(|host| !host.is_empty()));
}

/// Processes that run this executable.
fn running(executable: &str) -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    processes
        .filter(|entry| fs::read_link(entry.path().join("exe")).is_ok_and(|path| path.starts_with(executable)))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}
