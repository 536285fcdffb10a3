//! Tests of `check`: each line as wanted, at a price, and refused, on the recorded machines.

use std::path::Path;

use super::*;

fn recorded(name: &str) -> Topology {
    Topology::detect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/host").join(name)).unwrap()
}

fn generous(machine: &Topology) -> Limits {
    Limits { memlock_bytes: None, nofile: 1 << 20, allowed_cores: machine.core_ids(), io_uring: Ok(()) }
}

/// Two sockets, the profile detected on them, and limits that allow all of it.
fn two_sockets() -> (Topology, Limits, Profile) {
    let machine = recorded("two-socket-smt");
    let limits = generous(&machine);
    let profile = Profile::auto(&machine, &limits.allowed_cores);
    (machine, limits, profile)
}

fn line(item: &str, machine: &Topology, limits: &Limits, profile: &Profile) -> Line {
    check(machine, limits, profile).into_iter().find(|line| line.item == item).unwrap()
}

#[test]
fn tuned_machine_scores_in_full() {
    let (mut machine, limits, profile) = two_sockets();
    machine.swap_bytes = 0;
    machine.isolated = (1..16).chain(17..32).collect();
    machine.cores.iter_mut().for_each(|core| core.governor = Some("performance".to_owned()));
    let lines = check(&machine, &limits, &profile);
    let faults: Vec<&Line> = lines.iter().filter(|line| line.verdict != Verdict::Ok).collect();
    assert!(faults.is_empty(), "{faults:#?}");
    assert_eq!(score(&lines), (lines.len(), lines.len()));
}

#[test]
fn every_fault_has_a_cost_and_a_remedy_and_nothing_else_has() {
    let (machine, limits, profile) = two_sockets();
    let vm = recorded("vm-2core");
    let poor = Limits { memlock_bytes: Some(0), nofile: 100, allowed_cores: vec![], io_uring: Err("why: how".into()) };
    for lines in [check(&machine, &limits, &profile), check(&vm, &poor, &profile), check(&machine, &poor, &profile)] {
        for line in &lines {
            assert_eq!(line.verdict == Verdict::Ok, line.cost.is_empty(), "{line:?}");
            assert_eq!(line.verdict == Verdict::Ok, line.remedy.is_empty(), "{line:?}");
            assert!(!line.have.is_empty() && !line.want.is_empty(), "{line:?}");
        }
        let (ok, total) = score(&lines);
        assert!(ok < total);
    }
}

#[test]
fn recorded_faults_are_found() {
    let (machine, limits, profile) = two_sockets();
    let faults: Vec<String> = check(&machine, &limits, &profile)
        .into_iter()
        .filter(|line| line.verdict == Verdict::Costs)
        .map(|line| line.item)
        .collect();
    assert_eq!(faults, ["siblings of data cores", "isolated cores", "frequency governor", "swap"]);
}

#[test]
fn missing_io_uring_costs_or_refuses_as_the_profile_says() {
    let (machine, mut limits, mut profile) = two_sockets();
    limits.io_uring = Err("the reason: the remedy".to_owned());
    let verdict = |profile: &Profile| line("io_uring", &machine, &limits, profile);
    assert_eq!(verdict(&profile).verdict, Verdict::Costs);
    assert!(verdict(&profile).cost.contains("10 %"));
    assert_eq!(verdict(&profile).remedy, "the reason: the remedy");
    profile.network.io = Io::IoUring;
    assert_eq!(verdict(&profile).verdict, Verdict::Refused);
    profile.network.io = Io::Epoll;
    assert_eq!(verdict(&profile).verdict, Verdict::Ok);
}

#[test]
fn data_cores_absent_or_forbidden_are_refused() {
    let (machine, mut limits, mut profile) = two_sockets();
    limits.allowed_cores = (0..8).collect();
    let forbidden = line("data cores", &machine, &limits, &profile);
    assert_eq!(forbidden.verdict, Verdict::Refused);
    assert!(forbidden.remedy.contains("8-15"), "{forbidden:?}");
    profile.cores.data = vec![7, 99];
    let absent = line("data cores", &machine, &limits, &profile);
    assert_eq!(absent.verdict, Verdict::Refused);
    assert!(absent.remedy.contains("99"), "{absent:?}");
}

#[test]
fn housekeeping_is_missed_and_its_faults_are_refused() {
    let (machine, limits, mut profile) = two_sockets();
    for (cores, verdict) in
        [(vec![0], Verdict::Ok), (vec![], Verdict::Costs), (vec![1], Verdict::Refused), (vec![99], Verdict::Refused)]
    {
        profile.cores.housekeeping = cores;
        assert_eq!(line("housekeeping cores", &machine, &limits, &profile).verdict, verdict);
    }
}

#[test]
fn sibling_with_a_job_of_its_own_is_named() {
    let (machine, limits, mut profile) = two_sockets();
    profile.cores.data = vec![1, 17];
    let line = line("siblings of data cores", &machine, &limits, &profile);
    assert_eq!(line.verdict, Verdict::Costs);
    assert!(line.remedy.contains("take 1,17 out"), "{line:?}");
}

#[test]
fn cores_not_isolated_are_named() {
    let (mut machine, limits, profile) = two_sockets();
    machine.isolated = (1..15).collect();
    let line = line("isolated cores", &machine, &limits, &profile);
    assert_eq!(line.verdict, Verdict::Costs);
    assert_eq!(line.remedy, "boot with isolcpus=15 nohz_full=15");
}

#[test]
fn nobody_is_told_to_isolate_the_boot_core() {
    let (mut machine, limits, mut profile) = two_sockets();
    machine.isolated = vec![];
    profile.cores.data = vec![0, 2];
    let remedy = line("isolated cores", &machine, &limits, &profile).remedy;
    assert_eq!(remedy, "move the shard from core 0 to another core; boot with isolcpus=2 nohz_full=2");
}

#[test]
fn quota_below_the_shards_costs_the_rest_of_its_period() {
    let vm = recorded("vm-2core");
    let limits = generous(&vm);
    let mut profile = Profile::auto(&vm, &limits.allowed_cores);
    assert_eq!(line("core time quota", &vm, &limits, &profile).verdict, Verdict::Ok);
    profile.cores.data = vec![0, 1];
    let line = line("core time quota", &vm, &limits, &profile);
    assert_eq!(line.verdict, Verdict::Costs);
    assert!(line.cost.contains("100 ms"), "{line:?}");
}

#[test]
fn memory_is_refused_beyond_the_machine_and_costs_beyond_what_is_free() {
    let (mut machine, limits, mut profile) = two_sockets();
    profile.memory.total_bytes = 200 << 30;
    assert_eq!(line("memory", &machine, &limits, &profile).verdict, Verdict::Refused);
    profile.memory.total_bytes = 120 << 30;
    assert_eq!(line("memory", &machine, &limits, &profile).verdict, Verdict::Costs);
    profile.memory.total_bytes = 1 << 30;
    assert_eq!(line("memory", &machine, &limits, &profile).verdict, Verdict::Ok);
    machine.control_group.memory_bytes = Some(512 << 20);
    assert_eq!(line("memory", &machine, &limits, &profile).verdict, Verdict::Refused);
}

#[test]
fn node_that_cannot_hold_its_share_is_refused_when_bound() {
    let (machine, limits, mut profile) = two_sockets();
    profile.cores.data = vec![1, 2, 3];
    profile.memory.total_bytes = 90 << 30;
    assert_eq!(line("memory per node", &machine, &limits, &profile).verdict, Verdict::Refused);
    profile.memory.bind = false;
    assert_eq!(line("memory per node", &machine, &limits, &profile).verdict, Verdict::Costs);
}

#[test]
fn short_huge_pages_are_asked_for_where_they_lack() {
    let (machine, limits, mut profile) = two_sockets();
    profile.memory.pages = PageWish::Huge2M;
    let line = line("2 MiB pages set aside", &machine, &limits, &profile);
    assert_eq!(line.verdict, Verdict::Costs);
    // 280 wanted on node 1, where 256 of 512 are free: 24 more.
    assert_eq!((&line.have[..], &line.want[..]), ("node 0: 512, node 1: 256", "node 0: 245, node 1: 280"));
    assert!(line.remedy.starts_with("write 536 to") && line.remedy.contains("node1"), "{line:?}");
    assert!(!line.remedy.contains("node0"), "{line:?}");
}

#[test]
fn transparent_pages_set_to_never_cost_only_those_who_want_them() {
    let (mut machine, limits, mut profile) = two_sockets();
    machine.transparent = Some(TransparentMode::Never);
    assert_eq!(line("transparent huge pages", &machine, &limits, &profile).verdict, Verdict::Costs);
    profile.memory.pages = PageWish::Small;
    assert_eq!(line("transparent huge pages", &machine, &limits, &profile).verdict, Verdict::Ok);
}

#[test]
fn locked_memory_is_refused_below_one_executor_and_costs_below_all() {
    let (machine, mut limits, profile) = two_sockets();
    let cases = [(0, Verdict::Refused), (511, Verdict::Refused), (512, Verdict::Costs), (512 * 15, Verdict::Ok)];
    for (kib, verdict) in cases {
        limits.memlock_bytes = Some(kib << 10);
        assert_eq!(line("locked memory", &machine, &limits, &profile).verdict, verdict, "{kib} KiB");
    }
}

#[test]
fn few_files_cost_connections() {
    let (machine, mut limits, profile) = two_sockets();
    limits.nofile = 2024;
    let line = line("open files", &machine, &limits, &profile);
    assert_eq!(line.verdict, Verdict::Costs);
    assert!(line.cost.contains("1000 connections"), "{line:?}");
}

#[test]
fn verdicts_are_named_alike_in_tables_and_json() {
    for verdict in [Verdict::Ok, Verdict::Costs, Verdict::Refused] {
        assert_eq!(serde_json::to_string(&verdict).unwrap(), format!("\"{}\"", verdict.name()));
    }
}
