//! A few seeds of everything, and that a replay is a replay.

use std::time::Instant;

use crate::sim::report::Report;
use crate::sim::run::{Plan, Play, play};

fn report(scenario: Option<Play>, first_seed: u64, seeds: u64) -> Report {
    let mut report = Report::default();
    let mut lines = Vec::new();
    play(&Plan { scenario, first_seed, seeds, threads: 2 }, |outcome| {
        lines.extend(outcome.failure_line());
        report.add(&outcome);
    });
    println!("{}{}", lines.iter().map(|line| format!("{line}\n")).collect::<String>(), report.text());
    report
}

/// Seeds of the tests below: three of every scenario, in seconds. More with `SPINETAIL_SIM_SEEDS`.
fn seeds() -> u64 {
    let more = std::env::var("SPINETAIL_SIM_SEEDS").ok().and_then(|text| text.parse().ok());
    more.unwrap_or(3 * Play::all().len() as u64)
}

#[test]
fn every_scenario_is_safe_and_live() {
    let started = Instant::now();
    let report = report(None, 0, seeds());
    println!("{:.1} s", started.elapsed().as_secs_f64());
    assert!(report.is_clean(), "{:#?}", report.failures.first());
}

#[test]
fn controls_fail_as_they_must() {
    for play in Play::controls() {
        let report = report(Some(play), 0, 12);
        let expected = match play.name() {
            "no-wal" => "signatures",
            "too-many-byzantine" => "agreement",
            other => panic!("what does {other} show?"),
        };
        let seen = report.failures.iter().filter(|failure| failure.invariant == expected).count();
        assert!(seen > 0, "{} is to violate {expected}: {:?}", play.name(), report.failures);
    }
}

#[test]
fn a_replay_is_the_same_event_by_event() {
    for play in Play::all().into_iter().chain(Play::controls()) {
        let (first, again) = (play.seed(11), play.seed(11));
        assert_eq!(first, again, "{}", play.name());
        assert_ne!(first.digest, play.seed(12).digest, "{}", play.name());
    }
}

#[test]
fn outcomes_come_in_the_order_of_seeds() {
    let mut seeds = Vec::new();
    play(&Plan { scenario: None, first_seed: 100, seeds: 30, threads: 4 }, |outcome| seeds.push(outcome.seed));
    assert_eq!(seeds, (100..130).collect::<Vec<_>>());
}
