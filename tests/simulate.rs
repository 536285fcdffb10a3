//! `spinetail cluster simulate`, from outside: what it prints and how it ends.

use std::process::{Command, Output};

fn simulate(arguments: &[&str]) -> Output {
    let binary = env!("CARGO_BIN_EXE_spinetail");
    Command::new(binary).args(["cluster", "simulate"]).args(arguments).output().expect("the binary runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn all_scenarios_pass_and_say_so() {
    let output = simulate(&["--seeds", "44", "--json"]);
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    assert_eq!((&report["seeds"], &report["unsafe_seeds"], &report["stuck_seeds"]), (&44.into(), &0.into(), &0.into()));
    assert_eq!(report["scenarios"].as_object().map(|scenarios| scenarios.len()), Some(22));
}

#[test]
fn controls_exit_with_one_and_their_line_replays_them() {
    for (scenario, invariant) in [("no-wal", "signatures"), ("too-many-byzantine", "agreement")] {
        let output = simulate(&["--scenario", scenario, "--seeds", "20"]);
        assert_eq!(output.status.code(), Some(1), "{scenario}");
        let text = text(&output.stdout);
        let line = text.lines().find(|line| line.contains(invariant)).expect("the invariant is named");
        let command = line.split_once('#').expect("a command, and what it shows").0;
        let again = simulate(&command.split_whitespace().skip(3).collect::<Vec<_>>());
        assert_eq!(again.status.code(), Some(1));
        assert!(self::text(&again.stdout).contains(line), "{line}");
    }
}

#[test]
fn an_unknown_scenario_is_a_usage_error() {
    assert_eq!(simulate(&["--scenario", "sunshine"]).status.code(), Some(2));
}
