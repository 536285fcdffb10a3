//! `spinetail host calibrate` as people run it: in time, with every figure documented, in agreement with itself, careful with
//! files, and not stopped by a kernel that refuses io_uring.

mod common;

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use common::*;
use serde_json::Value;
use spinetail::host::calibration::{Calibration, Figures};

/// A short run whose result is kept in `scratch` and nowhere else.
fn calibrate(scratch: &Scratch, arguments: &[&str]) -> Ended {
    run(command(scratch, arguments), Duration::from_secs(60))
}

fn command(scratch: &Scratch, arguments: &[&str]) -> Command {
    let mut command = Command::new(SPINETAIL);
    command
        .args(["host", "calibrate"])
        .args(arguments)
        .env("SPINETAIL_CALIBRATION", scratch.file("kept/calibration.json"));
    command
}

fn taken(scratch: &Scratch, arguments: &[&str]) -> Calibration {
    let ended = calibrate(scratch, &[&["--json"], arguments].concat());
    assert_eq!(ended.status, Some(0), "{ended:?}");
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {}", ended.stdout))
}

#[test]
fn half_a_minute_is_the_default_and_less_than_a_minute_in_any_case() {
    let scratch = Scratch::new("calibrate-default");
    let started = Instant::now();
    let ended = calibrate(&scratch, &[]);
    let took = started.elapsed();
    assert_eq!(ended.status, Some(0), "{ended:?}");
    assert!(took < Duration::from_secs(60), "{took:?}");
    assert!(!ended.stdout.contains('\u{1b}') && !ended.stderr.contains('\u{1b}'), "no terminal, no colours: {ended:?}");
    for words in
        ["reading the clock", "system call", "load: L1", "CORE TO CORE", "HICCUPS", "measured here: clock", "kept in"]
    {
        assert!(ended.stdout.contains(words), "no '{words}' in {}", ended.stdout);
    }
}

/// What the page says is there, under the name it says.
#[test]
fn every_documented_field_is_in_the_json() {
    let page = include_str!("../docs/calibration.md");
    let scratch = Scratch::new("calibrate-fields");
    let ended = calibrate(&scratch, &["--json", "--seconds", "3"]);
    assert_eq!(ended.status, Some(0), "{ended:?}");
    let json: Value = serde_json::from_str(&ended.stdout).unwrap();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let fields: Vec<&str> = rows.filter(|name| name.contains('.') || json.get(name).is_some()).collect();
    assert!(fields.len() > 30, "the page documents only {fields:?}");
    for field in &fields {
        let found = field.split('.').try_fold(&json, |value, name| match value {
            Value::Array(items) => items.first().and_then(|item| item.get(name)),
            value => value.get(name),
        });
        // Without a second core there is no pair to show.
        assert!(found.is_some() || field.starts_with("pairs.pairs."), "no {field} in {json}");
    }
    // And the other way round: what is in the JSON is on the page.
    for (name, value) in json.as_object().unwrap() {
        let sample = if let Value::Array(items) = value { items.first().unwrap_or(value) } else { value };
        let documented = |field: &str| fields.contains(&field);
        match sample.as_object() {
            Some(inner) => inner.keys().for_each(|key| assert!(documented(&format!("{name}.{key}")), "{name}.{key}")),
            None => assert!(documented(name), "{name} is not on the page"),
        }
    }
    // The figures in profiles and reports are there too.
    let figures = serde_json::to_value(Figures::default()).unwrap();
    for key in figures.as_object().unwrap().keys() {
        assert!(page.contains(&format!("| `{key}` |")), "{key} is not on the page");
    }
}

/// Noise is reported so that two runs can be held against each other. Others may begin to use the machine between two of
/// them: what a third confirms of either is agreement.
#[test]
fn two_runs_agree_within_the_noise_they_report() {
    let scratch = Scratch::new("calibrate-agree");
    let runs: [Calibration; 2] = std::array::from_fn(|_| taken(&scratch, &["--seconds", "6"]));
    let told = runs[0].disagreements(&runs[1]);
    println!("{} figures, disagreements: {told:?}", runs[0].measured().len());
    if told.is_empty() {
        return;
    }
    let third = taken(&scratch, &["--seconds", "6"]);
    let name = |told: &String| told.split(':').next().unwrap_or_default().to_owned();
    let with = |run: &Calibration| run.disagreements(&third).iter().map(name).collect::<Vec<_>>();
    let (first, second) = (with(&runs[0]), with(&runs[1]));
    let alone: Vec<&String> =
        told.iter().filter(|told| first.contains(&name(told)) && second.contains(&name(told))).collect();
    assert!(alone.is_empty(), "three runs, three answers: {alone:?}");
}

#[test]
fn a_profile_takes_the_figures_and_keeps_every_other_byte() {
    let scratch = Scratch::new("calibrate-profile");
    let path = scratch.file("mine.toml");
    let before = include_str!("../hw-profiles/generic-vm.toml");
    fs::write(&path, before).unwrap();
    let arguments = ["--seconds", "2", "--profile", &path, "--report", &scratch.file("report.html")];
    let ended = calibrate(&scratch, &arguments);
    assert_eq!(ended.status, Some(0), "{ended:?}");
    let after = fs::read_to_string(&path).unwrap();
    let section = after.strip_prefix(before).expect("the profile as it was, and something behind it");
    let table: toml::Table = toml::from_str(section).unwrap();
    let figures: Figures = table["calibration"].clone().try_into().unwrap();
    assert!(figures.clock_ns.is_some_and(|ns| ns > 0.0) && figures.taken.ends_with('Z'), "{figures:?}");
    // A second time it replaces them.
    assert_eq!(calibrate(&scratch, &arguments).status, Some(0));
    let again = fs::read_to_string(&path).unwrap();
    assert!(again.starts_with(before) && again.matches("\n[calibration]\n").count() == 1, "{again}");
    // The page is whole and asks nobody.
    let page = fs::read_to_string(scratch.file("report.html")).unwrap();
    let asks = ["http:", "https:", "src=", "url("].iter().any(|words| page.contains(words));
    assert!(page.ends_with("</html>\n") && !asks, "{page}");
    // Before anything is measured for it, a profile must be there.
    let started = Instant::now();
    let ended = calibrate(&scratch, &["--profile", &scratch.file("none.toml")]);
    assert!(ended.status == Some(78) && ended.stderr.contains("host detect --write"), "{ended:?}");
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn what_is_kept_is_logged_by_a_server_and_told_by_a_load() {
    let scratch = Scratch::new("calibrate-users");
    let kept = scratch.file("kept/calibration.json");
    let load = |server: &Server, json: &str| {
        let mut command = Command::new(SPINETAIL);
        let target = server.target();
        command.args(["load", "--target", &target, "--duration", "200ms", "--keys", "100", "--json", json]);
        command.env("SPINETAIL_CALIBRATION", &kept);
        run(command, PATIENCE)
    };
    let serve = || {
        let mut command = Command::new(SPINETAIL);
        command.args(["serve", "--listen", "127.0.0.1:0", "--memory", "64MiB", "--shards", "1", "--poll", "park"]);
        command.env("SPINETAIL_CALIBRATION", &kept);
        Server::try_spawn(command).expect("a server")
    };
    // Before there is one, nobody claims anything.
    let server = serve();
    assert!(!server.stderr().contains("msg=calibration"), "{}", server.stderr());
    let ended = load(&server, "-");
    assert!(ended.status == Some(0) && ended.stderr.contains("host calibrate"), "{ended:?}");
    assert!(serde_json::from_str::<Value>(&ended.stdout).unwrap()["calibration"].is_null());
    drop(server);

    let taken = taken(&scratch, &["--seconds", "2"]);
    let server = serve();
    assert!(eventually(PATIENCE, || server.stderr().contains("msg=calibration")), "{}", server.stderr());
    let stderr = server.stderr();
    let line = stderr.lines().find(|line| line.contains("msg=calibration")).unwrap();
    assert!(line.contains("level=info") && line.contains(&taken.figures().line()), "{line}");
    let ended = load(&server, &scratch.file("load.json"));
    assert!(ended.status == Some(0) && ended.stdout.contains(&taken.figures().line()), "{ended:?}");
    assert!(!ended.stderr.contains("host calibrate"), "{ended:?}");
    let json: Value = serde_json::from_str(&fs::read_to_string(scratch.file("load.json")).unwrap()).unwrap();
    let told: Figures = serde_json::from_value(json["calibration"].clone()).unwrap();
    assert_eq!(told, taken.figures());
}

#[test]
fn a_kernel_that_refuses_io_uring_is_told_of_and_the_rest_is_measured() {
    let scratch = Scratch::new("calibrate-refused");
    let mut command = command(&scratch, &["--json", "--seconds", "2"]);
    refuse_calls(&mut command, &[libc::SYS_io_uring_setup]);
    let ended = run(command, PATIENCE);
    assert_eq!(ended.status, Some(0), "{ended:?}");
    let taken: Calibration = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((taken.calls.ring_ns, taken.figures().ring_ns), (None, None));
    let refusal = taken.calls.ring_refusal.clone().expect("a reason");
    assert!(refusal.contains("io_uring"), "{refusal}");
    assert!(taken.notes.iter().any(|note| note.contains(&refusal)), "{:?}", taken.notes);
    assert!(taken.calls.syscall_ns.median > 0.0 && taken.figures().dram_ns.is_some());
}

#[test]
fn cores_and_budgets_that_are_not_there_are_refused_at_once() {
    let scratch = Scratch::new("calibrate-usage");
    let started = Instant::now();
    let ended = calibrate(&scratch, &["--cores", "8000"]);
    assert!(ended.status == Some(1) && ended.stderr.contains("cores 8000"), "{ended:?}");
    for arguments in [["--seconds", "61"], ["--seconds", "1"], ["--cores", "x"], ["--bogus", "1"]] {
        assert_eq!(calibrate(&scratch, &arguments).status, Some(2), "{arguments:?}");
    }
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}

#[test]
fn one_core_measures_all_that_one_core_can() {
    let scratch = Scratch::new("calibrate-one");
    let first = spinetail::host::process::Limits::read().allowed_cores[0].to_string();
    let taken = taken(&scratch, &["--seconds", "2", "--cores", &first]);
    assert_eq!((taken.pairs.pairs.len(), taken.calls.wake_across_cores), (0, false));
    assert!(taken.pairs.sample.contains("only one core") && taken.figures().ping_pong_ns.is_none());
    assert!(taken.calls.wake_p50_us.is_some() && taken.calls.loopback_us.is_some());
}
