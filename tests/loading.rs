//! `load` against a server in a process of its own: every answer checked, every promised figure
//! there, and the same misses as `replay` has for the same trace.

mod common;

use std::fmt::Write as _;
use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use common::*;
use serde_json::Value;
use spinetail::base::prng::{Prng, mix};

#[test]
fn every_answer_under_load_is_the_one_last_written() {
    for driver in drivers() {
        for shards in shard_counts() {
            // One shard owns every key: nothing is routed.
            for route in if shards == "1" { &["owner"][..] } else { &["any", "owner"] } {
                let told = format!("{driver}, {shards} shard(s), route {route}");
                let server = Server::start(&["--io", driver, "--shards", shards]);
                let load = ["load", "--target", &server.target(), "--verify", "--fill", "--duration", "1s"];
                let shape = ["--gets", "0.5", "--keys", "5000", "--connections", "8", "--pipeline", "16"];
                let ended = spinetail(&[&load[..], &shape, &["--route", *route, "--json", "-"]].concat());
                assert_eq!(ended.status, Some(0), "{told}: {ended:?}");
                assert!(ended.stderr.contains("0 wrong values, 0 lost keys"), "{told}: {ended:?}");
                let json: Value = serde_json::from_str(&ended.stdout).unwrap();
                let of = |name: &str| json[name].as_u64().unwrap();
                assert_eq!((of("errors"), of("misses")), (0, 0), "{told}: {json}");
                assert!(of("requests") > 5_000, "{told}: only {} requests in a second", of("requests"));
                let gets = of("hits") as f64 / of("requests") as f64;
                assert!((0.45..0.55).contains(&gets), "{told}: {gets} of the requests were GETs");
                // Both ends counted the same. SETs of the fill come on top.
                assert_eq!(server.counter("get_hits"), of("hits"), "{told}");
                let sets = json["operations"]["set"]["count"].as_u64().unwrap();
                assert_eq!(server.counter("sets"), sets + 5_000, "{told}");
                if shards == "2" {
                    let forwarded = server.counter("forwarded_out");
                    assert_eq!(forwarded, server.counter("forwarded_in"), "{told}");
                    assert_eq!(forwarded > 0, *route == "any", "{told}: {forwarded} requests were forwarded");
                }
            }
        }
    }
}

#[test]
fn verification_notices_what_somebody_else_wrote() {
    let server = Server::start(&[]);
    let target = server.target();
    let load =
        ["load", "--target", &target, "--verify", "--fill", "--duration", "2s", "--keys", "10", "--gets", "0.99"];
    let stranger = server.address;
    let disturber = thread::spawn(move || {
        let mut wire = Wire::connect(stranger);
        for _ in 0..100 {
            assert_eq!(wire.ask(SET, b"0000000000000003", b"a stranger's value").status, OK);
            thread::sleep(Duration::from_millis(20));
        }
    });
    let ended = spinetail(&load);
    disturber.join().unwrap();
    assert_eq!(ended.status, Some(1), "{ended:?}");
    assert!(!ended.stderr.contains(" 0 wrong values"), "{ended:?}");
}

#[test]
fn verification_notices_lost_keys() {
    let server = Server::start(&[]);
    let target = server.target();
    let load = ["load", "--target", &target, "--verify", "--fill", "--duration", "3s", "--keys", "1000", "--gets", "1"];
    let address = server.address;
    let robber = thread::spawn(move || {
        thread::sleep(Duration::from_millis(1500));
        assert_eq!(Wire::connect(address).ask(FLUSH, b"", b"").status, OK);
    });
    let ended = spinetail(&load);
    robber.join().unwrap();
    assert_eq!(ended.status, Some(1), "{ended:?}");
    assert!(ended.stderr.contains(" 0 wrong values") && !ended.stderr.contains(" 0 lost keys"), "{ended:?}");
}

#[test]
fn the_figures_have_exactly_the_promised_names() {
    let (server, scratch) = (Server::start(&[]), Scratch::new("figures"));
    let (json, report, hgrm) = (scratch.file("load.json"), scratch.file("load.html"), scratch.file("load.hgrm"));
    let target = server.target();
    let load = ["load", "--target", &target, "--fill", "--keys", "1000", "--rate", "2000", "--seed", "7", "--verify"];
    let files = ["--json", &json, "--report", &report, "--hgrm", &hgrm, "--duration", "2s", "--warmup", "200ms"];
    let ended = spinetail(&[&load[..], &files].concat());
    assert_eq!(ended.status, Some(0), "{ended:?}");

    let json: Value = serde_json::from_str(&fs::read_to_string(json).unwrap()).unwrap();
    let promised = "achieved_rps calibration duration_s errors hits miss_ratio misses offered_rps operations requests seconds seed \
                    target timer_ns verified";
    assert_eq!(names(&json), promised.split_whitespace().collect::<Vec<_>>());
    assert_eq!(names(&json["operations"]), ["get", "set"]);
    for operation in ["get", "set"] {
        assert_eq!(names(&json["operations"][operation]), ["count", "latency_ns"]);
        let latency = &json["operations"][operation]["latency_ns"];
        assert_eq!(names(latency), ["max", "mean", "min", "p50", "p90", "p99", "p999", "p9999"]);
        let at = |name: &str| latency[name].as_u64().unwrap();
        let percentiles = ["min", "p50", "p90", "p99", "p999", "p9999", "max"].map(at);
        assert!(percentiles[0] > 0 && percentiles.is_sorted(), "{operation}: {percentiles:?}");
    }
    assert_eq!((&json["target"], json["seed"].as_u64()), (&target.as_str().into(), Some(7)));
    assert_eq!(json["offered_rps"].as_f64(), Some(2_000.0));
    assert_eq!(json["verified"]["wrong"], 0);
    // An open loop sends what is due, no more, whatever the machine does.
    let requests = json["requests"].as_u64().unwrap();
    assert!((3_000..=4_001).contains(&requests), "{requests} requests in 2 s at 2,000/s");

    let report = fs::read_to_string(report).unwrap();
    assert!(report.contains("<svg") && report.contains(&target), "{} bytes of report", report.len());
    for scheme in ["http://", "https://"] {
        for (place, _) in report.match_indices(scheme) {
            let before = report[..place].trim_end_matches(['"', '\'']);
            assert!(
                before.ends_with("xmlns="),
                "the report asks the network: {:?}",
                report.get(place - 20..place + 60)
            );
        }
    }
    assert!(!report.contains("src=") || report.contains("src=\"data:"), "the report loads a file");
    let hgrm = fs::read_to_string(hgrm).unwrap();
    assert!(hgrm.contains("1/(1-Percentile)"), "{hgrm}");
    let total = hgrm.split("Total count    =").nth(1).unwrap().split(']').next().unwrap();
    assert_eq!(total.trim().parse::<u64>().unwrap(), requests);
}

#[test]
fn without_verification_the_figures_say_nothing_of_it() {
    let server = Server::start(&[]);
    let target = server.target();
    let ended = spinetail(&["load", "--target", &target, "--duration", "200ms", "--keys", "100", "--json", "-"]);
    assert_eq!(ended.status, Some(0), "{ended:?}");
    let json: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert!(!names(&json).contains(&"verified"));
    assert!(json["offered_rps"].is_null(), "as fast as possible offers no rate");
}

fn names(value: &Value) -> Vec<&str> {
    let mut names: Vec<&str> = value.as_object().expect("an object").keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}

#[test]
fn clients_killed_in_the_middle_leave_nothing_behind() {
    for driver in drivers() {
        for shards in shard_counts() {
            let told = format!("{driver}, {shards} shard(s)");
            let mut server = Server::start(&["--io", driver, "--shards", shards]);
            for round in 0..5 {
                let mut command = Command::new(SPINETAIL);
                command.args(["load", "--target", &server.target(), "--connections", "50", "--pipeline", "32"]);
                command.args(["--gets", "0.5", "--value-bytes", "2000", "--keys", "10000", "--duration", "60s"]);
                command.args(["--route", if round % 2 == 0 { "any" } else { "owner" }]);
                let before = server.counter("sets");
                let mut load =
                    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
                let under_load = eventually(PATIENCE, || server.counter("sets") > before + 500);
                load.kill().unwrap();
                load.wait().unwrap();
                assert!(under_load, "{told}: the load never came");
            }
            server.assert_serves();
            // Each look is a connection of its own, and the only one open while it looks.
            let open = || server.counter("connections_opened") as i64 - server.counter("connections_closed") as i64;
            assert!(eventually(PATIENCE, || open() <= 1), "{told}: {} connections are still open", open());
            assert!(server.counter("connections_opened") >= 250, "{told}");
            server.assert_within_memory(64 << 20);
        }
    }
}

#[test]
fn a_server_misses_what_replay_says_it_will() {
    let scratch = Scratch::new("trace");
    let trace = scratch.file("synthetic.csv");
    fs::write(&trace, synthetic_trace(300_000, 60_000)).unwrap();
    let replayed = spinetail(&["replay", "--trace", &trace, "--capacity", "16MiB", "--charge", "all", "--json", "-"]);
    assert_eq!(replayed.status, Some(0), "{replayed:?}");
    let replayed: Value = serde_json::from_str(&replayed.stdout).unwrap();
    assert_eq!(replayed["requests"].as_u64(), Some(300_000));
    let expected = replayed["miss_ratio"].as_f64().unwrap();

    let server = Server::start(&["--memory", "16MiB"]);
    let load = ["load", "--target", &server.target(), "--trace", &trace, "--on-miss", "set"];
    let ended = spinetail(&[&load[..], &["--connections", "4", "--pipeline", "8", "--json", "-"]].concat());
    assert_eq!(ended.status, Some(0), "{ended:?}");
    let json: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(json["hits"].as_u64().unwrap() + json["misses"].as_u64().unwrap(), 300_000);
    let measured = json["miss_ratio"].as_f64().unwrap();
    assert!((measured - expected).abs() <= 0.005, "the server missed {measured:.4}, the replay {expected:.4}");
    // The trace is worth the comparison: the cache was too small for it, and held on to what counts.
    assert!(eventually(PATIENCE, || server.counter("evicted") > 10_000), "{} evicted", server.counter("evicted"));
    let cold = 60_000.0 / 300_000.0;
    assert!(expected < 0.9 && expected > cold * 0.5, "a miss ratio of {expected}");
    server.assert_within_memory(16 << 20);
}

/// Rows of a skewed popularity: rank r about as often as r^-0.9, sizes 20 to 480 by key.
fn synthetic_trace(rows: u64, keys: u64) -> String {
    let mut prng = Prng::new(20);
    let mut text = String::from("time,key,size\n");
    for row in 0..rows {
        // The inverse of the integral of x^-0.9 from 1 to the number of keys.
        let highest = ((keys as f64).powf(0.1) - 1.0) * 10.0;
        let rank = (prng.unit() * highest / 10.0 + 1.0).powf(10.0).min(keys as f64) as u64;
        let key = mix(rank) % 1_000_000_007;
        let _ = writeln!(text, "{},{key},{}", row / 1_000, 20 + mix(key) % 461);
    }
    text
}
