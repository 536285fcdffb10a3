use super::*;
use crate::base::prng::Prng;

const A: SiteId = SiteId(0);
const B: SiteId = SiteId(1);
const C: SiteId = SiteId(2);

fn chooser(sites: &[SiteId]) -> Chooser {
    let mut chooser = Chooser::new(Rules::default());
    assert_eq!(chooser.set_regions(sites.iter().copied(), 0), None);
    chooser
}

/// Every region is probed twice a second from `from_ms` on, as `rtt` says at each moment; none is a miss.
fn run(
    chooser: &mut Chooser,
    sites: &[SiteId],
    from_ms: u64,
    to_ms: u64,
    mut rtt: impl FnMut(SiteId, u64) -> Option<u64>,
) -> Vec<(u64, Switch)> {
    let mut switches = Vec::new();
    for now_ms in (from_ms..to_ms).step_by(500) {
        for &site in sites {
            let switch = match rtt(site, now_ms) {
                Some(rtt_us) => chooser.answered(site, now_ms, rtt_us),
                None => chooser.missed(site, now_ms),
            };
            switches.extend(switch.map(|switch| (now_ms, switch)));
        }
    }
    switches
}

#[test]
fn the_first_choice_waits_for_all_and_takes_the_nearest() {
    let mut chooser = chooser(&[A, B, C]);
    for _ in 0..3 {
        assert_eq!(chooser.answered(A, 10, 80_000), None);
    }
    for _ in 0..3 {
        assert_eq!(chooser.answered(B, 20, 5_000), None, "C may be nearer yet");
    }
    let switch = chooser.missed(C, 30).unwrap();
    assert_eq!(switch, Switch { from: None, to: Some(B), why: Why::First });
    assert_eq!(chooser.in_order(30), [B, A]);
}

#[test]
fn the_first_choice_does_not_wait_for_ever() {
    let mut chooser = chooser(&[A, B]);
    assert_eq!(chooser.answered(A, 0, 80_000), None);
    assert_eq!(chooser.tick(limits::ROUTE_SETTLE_MS - 1), None);
    assert_eq!(chooser.tick(limits::ROUTE_SETTLE_MS).unwrap().to, Some(A));
}

#[test]
fn three_missed_probes_move_on_and_two_do_not() {
    let mut chooser = chooser(&[A, B]);
    run(&mut chooser, &[A, B], 0, 3_000, |site, _| Some(if site == A { 1_000 } else { 50_000 }));
    assert_eq!(chooser.current(), Some(A));
    assert_eq!((chooser.missed(A, 3_000), chooser.missed(A, 3_500)), (None, None));
    let switch = chooser.missed(A, 4_000).unwrap();
    assert_eq!(switch, Switch { from: Some(A), to: Some(B), why: Why::Down });
    assert_eq!(chooser.health(A), Some(Health::Down));
}

#[test]
fn a_region_whose_connections_broke_is_left_at_once() {
    let mut chooser = chooser(&[A, B]);
    run(&mut chooser, &[A, B], 0, 3_000, |site, _| Some(if site == A { 1_000 } else { 50_000 }));
    assert_eq!(chooser.lost(A, 3_001).unwrap().to, Some(B));
    assert_eq!(chooser.lost(A, 3_002), None, "once is enough");
}

#[test]
fn a_region_that_comes_back_is_returned_to_once_after_its_hold_down() {
    let mut chooser = chooser(&[A, B]);
    let is_away = |now_ms: u64| (10_000..20_000).contains(&now_ms);
    let switches = run(&mut chooser, &[A, B], 0, 60_000, |site, now_ms| match site {
        A if is_away(now_ms) => None,
        A => Some(1_000),
        _ => Some(50_000),
    });
    let told: Vec<(Option<SiteId>, Why)> = switches.iter().map(|(_, switch)| (switch.to, switch.why)).collect();
    assert_eq!(told, [(Some(A), Why::First), (Some(B), Why::Down), (Some(A), Why::Nearer)]);
    assert_eq!(switches[1].0, 11_000, "at the third miss");
    let back_ms = switches[2].0 - 20_000;
    assert!((limits::ROUTE_RETURN_MS..6_000).contains(&back_ms), "back after {back_ms} ms");
}

#[test]
fn a_region_that_falls_again_and_again_is_trusted_later_each_time() {
    let mut chooser = chooser(&[A, B]);
    // Up for 10 s, away for 5 s, and so on: whoever trusted it after 2.5 s would leave it 4 times a minute.
    let switches = run(&mut chooser, &[A, B], 0, 300_000, |site, now_ms| match site {
        A if now_ms % 15_000 >= 10_000 => None,
        A => Some(1_000),
        _ => Some(50_000),
    });
    assert!(switches.len() <= 7, "{} switches in five minutes: {switches:?}", switches.len());
    assert_eq!(chooser.current(), Some(B));
}

#[test]
fn a_little_nearer_or_nearer_for_a_moment_is_no_reason() {
    for (nearer_us, told) in [(42_000, "16 % of 50 ms"), (49_500, "half a millisecond")] {
        let mut chooser = chooser(&[A, B]);
        run(&mut chooser, &[A, B], 0, 3_000, |site, _| Some(if site == A { 50_000 } else { 60_000 }));
        let switches =
            run(&mut chooser, &[A, B], 3_000, 60_000, |site, _| Some(if site == A { 50_000 } else { nearer_us }));
        assert!(switches.is_empty(), "{told}: {switches:?}");
    }
    // Near ones: 40 % of a millisecond are less than the margin.
    let mut chooser = chooser(&[A, B]);
    run(&mut chooser, &[A, B], 0, 3_000, |site, _| Some(if site == A { 900 } else { 1_000 }));
    assert!(run(&mut chooser, &[A, B], 3_000, 60_000, |site, _| Some(if site == A { 900 } else { 500 })).is_empty());
}

#[test]
fn a_region_that_has_become_nearer_for_good_is_chosen_once() {
    let mut chooser = chooser(&[A, B]);
    run(&mut chooser, &[A, B], 0, 10_000, |site, _| Some(if site == A { 50_000 } else { 60_000 }));
    let switches = run(&mut chooser, &[A, B], 10_000, 90_000, |site, _| Some(if site == A { 50_000 } else { 10_000 }));
    assert_eq!(switches.len(), 1);
    assert_eq!(switches[0].1, Switch { from: Some(A), to: Some(B), why: Why::Nearer });
}

#[test]
fn equals_are_told_apart_by_their_number_and_stay() {
    let mut chooser = chooser(&[C, B]);
    let switches = run(&mut chooser, &[C, B], 0, 60_000, |_, _| Some(7_000));
    assert_eq!((switches.len(), chooser.current()), (1, Some(B)));
}

#[test]
fn with_nobody_healthy_whoever_answers_is_asked() {
    let mut chooser = chooser(&[A, B]);
    run(&mut chooser, &[A, B], 0, 3_000, |_, _| Some(1_000));
    run(&mut chooser, &[A, B], 3_000, 10_000, |_, _| None);
    assert_eq!((chooser.current(), chooser.in_order(10_000)), (None, vec![]));
    let switch = chooser.answered(B, 10_000, 9_000).unwrap();
    assert_eq!(switch, Switch { from: None, to: Some(B), why: Why::Down });
}

#[test]
fn a_region_off_the_map_is_left_and_unknown_ones_are_nobody() {
    let mut chooser = chooser(&[A, B]);
    run(&mut chooser, &[A, B], 0, 3_000, |site, _| Some(if site == A { 1_000 } else { 50_000 }));
    assert_eq!(chooser.set_regions([B, C], 3_000).unwrap().to, Some(B));
    assert_eq!((chooser.answered(A, 3_000, 1), chooser.missed(A, 3_000), chooser.lost(A, 3_000)), (None, None, None));
    assert_eq!((chooser.health(A), chooser.health(C)), (None, Some(Health::New)));
}

/// One history: what happened to which region when, from hostile series: steady, swinging, jumping, dying, flickering.
fn hostile(seed: u64) -> Vec<(u64, SiteId, Option<u64>, bool)> {
    let mut prng = Prng::new(seed);
    let sites = 2 + prng.below(4) as u8;
    let mut now_ms = 0;
    let mut manners: Vec<(u64, u64)> = (0..sites).map(|_| (prng.below(6), 500 + prng.below(100_000))).collect();
    let mut events = Vec::new();
    for step in 0..3_000u64 {
        now_ms += prng.below(200);
        let site = prng.below(u64::from(sites)) as usize;
        if prng.below(200) == 0 {
            manners[site] = (prng.below(6), 500 + prng.below(100_000));
        }
        let (manner, base_us) = manners[site];
        let rtt_us = match manner {
            0 => Some(base_us + prng.below(1_000)),
            1 => Some(if step % 2 == 0 { 500 } else { 200_000 }),
            2 => Some(if (step / 40) % 2 == 0 { 500 } else { 200_000 }),
            3 => None,
            4 => (prng.below(3) > 0).then_some(base_us),
            _ => Some(prng.next_u64() >> prng.below(64)),
        };
        events.push((now_ms, SiteId(site as u8), rtt_us, prng.below(500) == 0));
    }
    events
}

#[test]
fn hostile_series_never_cause_two_switches_within_the_hold_unless_the_one_left_is_down() {
    let (mut by_nearness, mut by_fall) = (0, 0);
    for seed in 0..100 {
        let events = hostile(seed);
        let sites: Vec<SiteId> =
            (0..6).map(SiteId).filter(|site| events.iter().any(|event| event.1 == *site)).collect();
        let (mut one, mut other) = (chooser(&sites), chooser(&sites));
        let mut switched_ms: Option<u64> = None;
        for &(now_ms, site, rtt_us, is_lost) in &events {
            let step = |chooser: &mut Chooser| match rtt_us {
                _ if is_lost => chooser.lost(site, now_ms),
                Some(rtt_us) => chooser.answered(site, now_ms, rtt_us),
                None => chooser.missed(site, now_ms),
            };
            let before = one.current();
            let switch = step(&mut one);
            assert_eq!(switch, step(&mut other), "seed {seed}: the same series, another choice");
            if let Some(switch) = switch {
                assert_eq!((switch.from, switch.to), (before, one.current()), "seed {seed}");
                assert_ne!(switch.from, switch.to, "seed {seed}");
                let left_is_down = switch.from.is_none_or(|from| one.health(from) == Some(Health::Down));
                if !left_is_down {
                    let held_ms = now_ms - switched_ms.unwrap();
                    assert!(held_ms >= limits::ROUTE_HOLD_MS, "seed {seed} at {now_ms}: left after {held_ms} ms");
                    by_nearness += 1;
                } else {
                    by_fall += 1;
                }
                switched_ms = Some(now_ms);
            } else {
                assert_eq!(before, one.current(), "seed {seed}: a change that nobody was told of");
            }
            // Whoever is asked is healthy; nobody is only where nobody is, or before the first choice.
            let health = one.current().and_then(|current| one.health(current));
            assert!(health.is_none_or(|health| health == Health::Up), "seed {seed} at {now_ms}: asks {health:?}");
            let somebody_is_up = sites.iter().any(|site| one.health(*site) == Some(Health::Up));
            assert!(one.current().is_some() || !somebody_is_up || switched_ms.is_none(), "seed {seed} at {now_ms}");
        }
    }
    assert!(by_nearness > 30 && by_fall > 300, "the series are tame: {by_nearness}, {by_fall}");
}
