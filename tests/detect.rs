//! `spinetail host detect` as people use it: what it prints of recorded machines, and that a recording of this
//! machine is read as this machine.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

/// Exit status, stdout and stderr.
fn detect(arguments: &[&str]) -> (i32, String, String) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_spinetail")).args(["host", "detect"]).args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn topology(arguments: &[&str]) -> Value {
    let (status, stdout, stderr) = detect(arguments);
    assert_eq!(status, 0, "{stderr}");
    serde_json::from_str::<Value>(&stdout).unwrap()["topology"].take()
}

/// Takes away what changes by itself between two looks at one machine.
fn still(mut topology: Value) -> Value {
    for key in ["memory_available_bytes", "steal_share"] {
        topology[key].take();
    }
    for node in topology["nodes"].as_array_mut().unwrap() {
        for key in ["memory_free_bytes", "huge_pages_free", "giant_pages_free"] {
            node[key].take();
        }
    }
    for nic in topology["nics"].as_array_mut().unwrap() {
        for irq in nic["irqs"].as_array_mut().unwrap() {
            irq["effective"].take();
        }
    }
    topology
}

fn fixture(name: &str) -> String {
    format!("{}/tests/fixtures/host/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn recording_of_this_machine_is_read_as_this_machine() {
    let path: PathBuf = std::env::temp_dir().join(format!("spinetail-detect-{}.tree", std::process::id()));
    let name = path.to_str().unwrap();
    let (status, stdout, stderr) = detect(&["--record", name]);
    assert_eq!(status, 0, "{stderr}");
    assert!(stdout.contains(&format!("recording written to {name}")), "{stdout}");
    let recorded = topology(&["--json", "--root", name]);
    std::fs::remove_file(&path).unwrap();
    assert!(!recorded["cores"].as_array().unwrap().is_empty());
    assert_eq!(still(recorded), still(topology(&["--json"])));
}

#[test]
fn recorded_machine_is_printed_with_its_layout() {
    let (status, stdout, _) = detect(&["--root", &fixture("epyc-two-socket")]);
    assert_eq!(status, 0);
    for line in [
        "offline            63",
        "isolated           44-47",
        "socket 1",
        "    complex 28 (node 7, L3 16.0 MiB)",
        "      cores       28+60 29+61 30+62 31",
        "  enp161s0f0np0: bnxt_en, node 5, up, 100000 Mb/s, packets of 1500 B, 8 queues in, 8 out",
        "    irq 124     enp161s0f0np0-TxRx-4, queue 4: core 52 of 20-23,52-55",
    ] {
        assert!(stdout.lines().any(|printed| printed == line), "'{line}' is missing in\n{stdout}");
    }
    assert!(stdout.contains("distances 0:10 1:12 2:12 3:12 4:32"), "{stdout}");
    // What is true of this process is not said of another machine.
    assert!(!stdout.contains("open files") && !stdout.contains("io_uring"), "{stdout}");
}

#[test]
fn profile_is_made_for_the_recorded_machine() {
    let (status, stdout, _) = detect(&["--json", "--root", &fixture("container-v1.tree")]);
    assert_eq!(status, 0);
    let all: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(all["limits"], Value::Null);
    // Two cores are in its set, and the quota is one and a half.
    assert_eq!(all["profile"]["cores"]["data"], "1");
}

#[test]
fn root_that_is_no_machine_is_refused_with_its_name() {
    for root in ["/nonexistent-machine", &fixture("README.md")] {
        let (status, _, stderr) = detect(&["--root", root]);
        assert_eq!(status, 1);
        assert!(stderr.contains(root), "{stderr}");
    }
}
