//! Profiles as people use them: the wrong ones are refused before anything is touched, with file, line and remedy; the
//! right ones are served with, checked against recorded machines, and found by name.

mod common;

use std::fs;
use std::path::Path;

use common::*;

const RIGHT: &str = "[machine]\nname = \"mine\"\n\n[cores]\ndata = \"0\"\n\n[memory]\ntotal = \"64MiB\"\n\n[network]\npoll = \"park\"\n";

/// What is changed in the right one, and what is said of it: the line, and words.
const WRONG: [(&str, &str, usize, &[&str]); 12] = [
    ("data = \"0\"", "data = \"9000\"", 5, &["cores.data", "'9000' is not a list of cores"]),
    ("data = \"0\"", "data = \"8000\"", 5, &["cores.data", "core 8000 is not online", "name cores it has"]),
    ("data = \"0\"", "data = \"0,0\"", 5, &["cores.data", "core 0 is named twice", "remove one"]),
    ("data = \"0\"", "data = \"0\"\nhousekeeping = \"0\"", 6, &["cores.housekeeping", "core 0 is in cores.data too"]),
    ("data = \"0\"", "data = \"0\"\nirq = \"0\"", 6, &["cores.irq", "core 0 is in cores.data too", "remove it"]),
    ("data = \"0\"", "dta = \"0\"", 5, &["cores.dta", "did you mean cores.data?"]),
    ("[cores]", "[core]", 4, &["core: no such section", "did you mean [cores]?"]),
    ("total = \"64MiB\"", "total = \"900000GiB\"", 8, &["memory.total", "more than the", "lower memory.total"]),
    ("total = \"64MiB\"", "total = \"1MiB\"", 8, &["memory.total", "too little", "raise it to 8.0 MiB"]),
    ("total = \"64MiB\"", "total = \"64MiB\"\nper_shard = \"64MiB\"", 9, &["memory.per_shard", "remove one of them"]),
    ("poll = \"park\"", "poll = \"sleep\"", 11, &["network.poll", "unknown variant `sleep`", "`park`"]),
    ("[network]", "[sysctl]\n\"../x\" = 1\n[network]", 11, &["sysctl.../x", "sysctl -a"]),
];

#[test]
fn wrong_profiles_are_refused_with_file_line_and_remedy_before_anything_is_touched() {
    let scratch = Scratch::new("profiles-wrong");
    let file = scratch.file("wrong.toml");
    let root = scratch.file("root");
    for path in ["sys/devices/system/cpu", "proc/sys/vm"] {
        fs::create_dir_all(Path::new(&root).join(path)).unwrap();
    }
    fs::write(format!("{root}/sys/devices/system/cpu/online"), "0-1\n").unwrap();
    fs::write(format!("{root}/proc/meminfo"), "MemTotal: 8388608 kB\n").unwrap();
    let before = listing(Path::new(&root));
    for (from, to, line, words) in WRONG {
        assert!(RIGHT.contains(from));
        fs::write(&file, RIGHT.replacen(from, to, 1)).unwrap();
        let place = format!("{file}:{line}: ");
        let said = [&[place.as_str()], words].concat();
        let refused = Server::try_start(&["--profile", &file]).err().unwrap_or_else(|| panic!("serve takes {to}"));
        refused.assert_refused(78, &said);
        spinetail(&["serve", "--check", "--profile", &file]).assert_refused(78, &said);
        spinetail(&["host", "check", "--profile", &file]).assert_refused(78, &said);
        spinetail(&["host", "apply", "--root", &root, "--profile", &file]).assert_refused(78, &said);
        spinetail(&["host", "apply", "--dry-run", "--root", &root, "--profile", &file]).assert_refused(78, &said);
    }
    assert_eq!(listing(Path::new(&root)), before, "a refused profile touches nothing");
}

#[test]
fn what_only_larger_machines_can_get_wrong_is_refused_on_their_recordings() {
    let scratch = Scratch::new("profiles-recorded");
    let file = scratch.file("wrong.toml");
    let tree = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/host/two-socket-smt.tree");
    for (data, total, line, words) in [
        (
            "1,17",
            "1GiB",
            5,
            &["cores.data: cores 1 and 17 are two threads of one physical core", "cores.siblings = true"][..],
        ),
        ("1-3", "90GiB", 8, &["memory.total: 90.0 GiB for the 3 shards of node 0", "memory.remote = true"]),
        ("1-40", "1GiB", 5, &["cores.data: core 32-40 is not online, this machine has 0-31"]),
    ] {
        let text = RIGHT.replace("data = \"0\"", &format!("data = \"{data}\"")).replace("64MiB", total);
        fs::write(&file, text).unwrap();
        let place = format!("{file}:{line}: ");
        let said = [&[place.as_str()], words].concat();
        spinetail(&["host", "check", "--root", tree, "--profile", &file]).assert_refused(78, &said);
    }
}

#[test]
fn a_missing_profile_is_refused_with_those_that_are_shipped() {
    let refused = Server::try_start(&["--profile", "epic-two-socket"]).err().expect("there is no such profile");
    refused.assert_refused(78, &["epic-two-socket", "epyc-two-socket", "host detect --write"]);
}

#[test]
fn a_shipped_profile_serves_by_its_name() {
    let mut server = Server::try_start(&["--profile", "generic-vm", "--memory", "64MiB"]).expect("it fits every guest");
    server.assert_serves();
    assert!(server.stderr().contains("profile=generic-vm"), "{}", server.stderr());
}

#[test]
fn a_profile_with_every_key_serves() {
    let scratch = Scratch::new("profiles-every-key");
    let file = scratch.file("all.toml");
    let written = spinetail(&["host", "detect", "--write", &file]);
    assert_eq!(written.status, Some(0), "{}", written.stderr);
    // All that is left out, as it is suggested; but for what belongs to other machines.
    let text = fs::read_to_string(&file).unwrap();
    let foreign = ["#architecture", "#processor", "#sockets", "#virtual", "#limited", "#per_shard"];
    let lines = text.lines().map(|line| match line.strip_prefix('#') {
        Some(key) if key.contains(" = ") && !key.starts_with(' ') && !foreign.iter().any(|no| line.starts_with(no)) => {
            key
        }
        _ => line,
    });
    fs::write(&file, lines.map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("\nbusy_poll_us = 50\n") && text.contains("\ngovernor = \"performance\"\n"), "{text}");
    for poll in ["spin", "park"] {
        let mut server =
            Server::try_start(&["--profile", &file, "--memory", "64MiB", "--poll", poll]).expect("every key is known");
        server.assert_serves();
        let stderr = server.stderr();
        // Where cards cannot be polled, that is said and nothing else happens.
        assert!(!stderr.contains("cards are not polled") || stderr.contains("Linux 6.9"), "{stderr}");
    }
}

#[test]
fn the_shipped_profile_is_named_for_each_recorded_machine() {
    for (tree, profile) in [
        ("epyc-two-socket", "epyc-two-socket"),
        ("two-socket-smt", "xeon-two-socket"),
        ("graviton-metal", "graviton-metal"),
        ("hybrid-desktop", "desktop"),
        ("container-v2", "container, generic-vm"),
        ("vm-2core", "container, generic-vm"),
    ] {
        let tree = format!("{}/tests/fixtures/host/{tree}.tree", env!("CARGO_MANIFEST_DIR"));
        let detected = spinetail(&["host", "detect", "--root", &tree]);
        let line = format!("shipped profiles for such a machine: {profile}\n");
        assert!(detected.stdout.contains(&line), "{tree}: {}", detected.stdout);
        let profile = profile.split(',').next().unwrap();
        let checked = spinetail(&["host", "check", "--root", &tree, "--profile", profile]);
        assert_eq!(checked.status, Some(0), "{tree}: {}", checked.stderr);
        assert!(checked.stdout.contains("lines as wanted, 0 refused"), "{}", checked.stdout);
    }
}

/// Every path below a folder, with its content.
fn listing(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let content = if path.is_dir() { Vec::new() } else { fs::read(&path).unwrap() };
        found.push((path.display().to_string(), content));
        if path.is_dir() {
            found.extend(listing(&path));
        }
    }
    found.sort();
    found
}
