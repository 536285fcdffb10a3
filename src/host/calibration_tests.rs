//! Facts about figures, their noise and their summary.

use super::*;

fn exactly(median: f64) -> Measured {
    Measured { median, low: median * 0.9, high: median * 1.1, rounds: 9 }.per(1.0)
}

/// A machine of three cores on two sockets, as good as measured.
pub(crate) fn example() -> Calibration {
    let rung = |level: &str, bytes: u64, pages: &str, load_ns: f64| Rung {
        level: level.to_owned(),
        bytes,
        cache_bytes: Some(bytes * 2),
        pages: pages.to_owned(),
        huge_share: if pages == "4KiB" { 0.0 } else { 1.0 },
        node: None,
        remote: false,
        load_ns: exactly(load_ns),
    };
    let pair = |first, second, relation, ns| Pair { first, second, relation, one_way_ns: exactly(ns) };
    let hiccups = Hiccups { count: 1_000, p50_us: 2.0, p99_us: 10.0, p999_us: 30.0, max_us: 4_000.0 };
    Calibration {
        version: Calibration::VERSION,
        taken_unix_s: 1_700_000_000,
        took_s: 29.5,
        machine: Machine { cpu_model: "Some Processor".to_owned(), cores: 3, kernel: "6.1".to_owned() },
        cores: vec![0, 1, 2],
        measuring_core: 2,
        load_average: Some(0.1),
        clock: ClockFigures {
            counter: "tsc".to_owned(),
            invariant: Some(true),
            clocksource: Some("kvm-clock".to_owned()),
            counter_mhz: Measured { median: 2_300.5, low: 2_300.0, high: 2_301.0, rounds: 9 },
            counter_ns: exactly(10.0),
            clock_ns: exactly(22.744),
        },
        ladder: vec![
            rung("L1", 24 << 10, "4KiB", 1.7),
            rung("L2", 1 << 20, "4KiB", 7.0),
            rung("L3", 6 << 20, "4KiB", 41.0),
            rung("L3", 6 << 20, "transparent", 36.0),
            rung("L3", 32 << 20, "transparent", 135.0),
            rung("DRAM", 1 << 30, "4KiB", 340.0),
            rung("DRAM", 1 << 30, "2MiB", 176.56789),
            Rung { node: Some(1), remote: true, ..rung("DRAM", 1 << 30, "2MiB", 250.0) },
        ],
        pairs: PairFigures {
            pairs_total: 3,
            sample: "all pairs".to_owned(),
            pairs: vec![
                pair(0, 1, Relation::Sibling, 40.0),
                pair(0, 2, Relation::OtherSocket, 120.0),
                pair(1, 2, Relation::OtherSocket, 110.0),
            ],
        },
        calls: CallFigures {
            syscall_ns: exactly(102.0),
            ring_ns: None,
            ring_refusal: Some("forbidden: allow it".to_owned()),
            wake_p50_us: Some(exactly(5.0)),
            wake_p99_us: Some(exactly(50.0)),
            wake_across_cores: true,
            loopback_us: Some(exactly(20.0)),
        },
        jitter: JitterFigures {
            threshold_ns: 500.0,
            watched_s: 10.0,
            lost_share: exactly(0.0012),
            hiccup_p50_us: exactly(2.0),
            hiccup_p99_us: exactly(10.0),
            hiccup_p999_us: exactly(30.0),
            hiccup_max_us: exactly(300.0),
            pooled: hiccups,
            sizes: vec![SizeCount { from_us: 1.0, below_us: 2.0, count: 1_000 }],
            cores: vec![CoreJitter { core: 0, lost_share: 0.001, steal_share: 0.0, hiccups }],
        },
        notes: vec!["said".to_owned()],
    }
}

#[test]
fn a_figure_is_the_median_and_its_noise_the_range_widened() {
    let measured = Measured::of_rounds(&[10.0, 12.0, 11.0, 30.0, 10.5], 0.5, 0.02).unwrap();
    assert_eq!((measured.median, measured.rounds), (11.0, 5));
    assert_eq!((measured.low, measured.high), (9.3, 31.1));
    assert_eq!(Measured::of_rounds(&[], 0.5, 0.02), None);
    // What is measured here is a time or a share: it cannot be negative.
    assert_eq!(Measured::of_rounds(&[0.0], 0.5, 0.02).unwrap().low, 0.0);
}

#[test]
fn figures_agree_where_their_noise_overlaps() {
    let of = |low, high| Measured { median: f64::midpoint(low, high), low, high, rounds: 9 };
    assert!(of(1.0, 2.0).agrees(&of(2.0, 3.0)) && of(1.0, 9.0).agrees(&of(2.0, 3.0)));
    assert!(!of(1.0, 2.0).agrees(&of(2.1, 3.0)) && !of(2.1, 3.0).agrees(&of(1.0, 2.0)));
}

/// The argument for nine rounds, by drawing: ranges of rounds that could be exchanged are disjoint as rarely as said.
#[test]
fn ranges_of_nine_rounds_contradict_each_other_a_hundred_times_less_often_than_of_five() {
    let mut prng = crate::base::prng::Prng::new(11);
    let mut disjoint = |rounds: usize, draws: usize| {
        let mut range = |_: usize| {
            let drawn: Vec<f64> = (0..rounds).map(|_| prng.unit()).collect();
            Measured::of_rounds(&drawn, 0.0, 0.0).unwrap()
        };
        (0..draws).filter(|&draw| !range(draw).agrees(&range(draw))).count()
    };
    // 1 in 126, and 1 in 24,310.
    assert!((200..280).contains(&disjoint(5, 30_000)));
    assert!(disjoint(9, 30_000) < 8);
}

#[test]
fn figures_are_those_that_a_server_would_meet() {
    let figures = example().figures();
    assert_eq!((figures.l1_ns, figures.l2_ns, figures.l3_ns), (Some(1.7), Some(7.0), Some(36.0)));
    assert_eq!((figures.dram_ns, figures.dram_remote_ns), (Some(176.6), Some(250.0)));
    // Siblings are no neighbours where there are cores of one's own.
    assert_eq!((figures.ping_pong_ns, figures.ping_pong_far_ns), (Some(110.0), Some(120.0)));
    assert_eq!((figures.clock_ns, figures.ring_ns), (Some(22.74), None));
    assert_eq!((figures.hiccup_p999_us, figures.hiccup_max_us), (Some(30.0), Some(4_000.0)));
    assert_eq!(figures.taken, "2023-11-14T22:13:20Z");
    assert_eq!(figures.machine, "Some Processor, 3 cores, Linux 6.1");
    let mut siblings_only = example();
    siblings_only.pairs.pairs.truncate(1);
    assert_eq!(siblings_only.figures().ping_pong_ns, Some(40.0));
}

#[test]
fn the_line_says_what_is_there_and_nothing_else() {
    let line = example().figures().line();
    assert!(
        line.starts_with("measured here: clock 22.7 ns, L1 1.70 ns, L2 7.00 ns, L3 36.0 ns, DRAM 177 ns"),
        "{line}"
    );
    assert!(line.contains("lost 0.12 %") && !line.contains("ring") && !line.contains('\n'), "{line}");
    assert_eq!(Figures::default().line(), "measured here: ");
}

#[test]
fn a_run_agrees_with_itself_and_not_with_a_slower_machine() {
    let (one, mut other) = (example(), example());
    assert_eq!(one.disagreements(&one), Vec::<String>::new());
    other.calls.syscall_ns = exactly(500.0);
    other.ladder[0].load_ns = exactly(9.0);
    let told = one.disagreements(&other);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told.iter().any(|told| told.starts_with("syscall_ns: 102")), "{told:?}");
}

#[test]
fn every_measured_figure_has_a_name_of_its_own() {
    let mut names: Vec<String> = example().measured().into_iter().map(|(name, _)| name).collect();
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all);
}

#[test]
fn what_is_written_as_json_is_read_back() {
    let taken = example();
    let text = serde_json::to_string(&taken).unwrap();
    assert_eq!(serde_json::from_str::<Calibration>(&text).unwrap(), taken);
    let unknown = text.replacen("\"took_s\"", "\"took_h\":1,\"took_s\"", 1);
    assert!(serde_json::from_str::<Calibration>(&unknown).is_err());
}

#[test]
fn figures_from_toml_may_lack_some_and_have_no_others() {
    let figures: Figures = toml::from_str("clock_ns = 21.0\ntaken = \"2026-01-01T00:00:00Z\"\n").unwrap();
    assert_eq!((figures.clock_ns, figures.l1_ns), (Some(21.0), None));
    let error = toml::from_str::<Figures>("clock_us = 21.0\n").unwrap_err();
    assert!(error.message().contains("clock_us"), "{error}");
}

#[test]
fn moments_are_written_as_rfc_3339_says() {
    assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
    assert_eq!(rfc3339(951_782_399), "2000-02-28T23:59:59Z");
    assert_eq!(rfc3339(951_868_800), "2000-03-01T00:00:00Z");
    assert_eq!(rfc3339(4_102_444_799), "2099-12-31T23:59:59Z");
}

#[test]
fn three_digits_say_something_at_every_size() {
    let told: Vec<String> = [0.0, 0.00012, 0.0123, 1.687, 21.34, 318.4, 12_600.0].into_iter().map(short).collect();
    assert_eq!(told, ["0", "0.00012", "0.012", "1.69", "21.3", "318", "12600"]);
}
